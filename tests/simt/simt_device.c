/* The emulator as a device for the executor: see simt_device.h.
 *
 * What may be read without having been written depends on the slab. Parameters, gradients and
 * moments begin as zeros that count. Activations are forgotten before each run, but for what was
 * uploaded since the last one, and fixed memory before a run that also does the steps that depend on
 * parameters only. So a step that reads what another program, or an earlier run, has left is found.
 */
#include <stdlib.h>
#include <string.h>

#include "simt_device.h"

enum { MAX_BUFFERS = 512, MAX_UPLOADS = 64, MAX_THREADS = 8 };

typedef struct { SimtMemory *memory; int64_t offset, bytes; } Upload;

typedef struct {
    Device base;
    SimtBuilder builder;
    Simt *simt;
    Upload uploads[MAX_UPLOADS]; int n_uploads;   /* since the last run */
    SimtMemory *activations;   /* of that run */
} SimtDevice;

/* Those of a target that run; `units` has room for all. */
struct DeviceKernels {
    int n_units;
    SimtUnit *units;
    int *unit_of;              /* by kernel; -1: not built */
};

static const PlanLaunch *chosen_launch(const PlanStep *step)
{
    return step->n_launches ? &step->launches[0] : NULL;
}

/* ---- kernels --------------------------------------------------------------------------------- */

static void unload(Device *device, DeviceKernels *kernels)
{
    (void)device;
    simt_unload(kernels->units, kernels->n_units);
    free(kernels->units);
    free(kernels->unit_of);
    free(kernels);
}

static void need_kernel(DeviceKernels *kernels, const PlanTarget *target, int kernel)
{
    if (kernels->unit_of[kernel] >= 0)
        return;
    kernels->unit_of[kernel] = kernels->n_units;
    kernels->units[kernels->n_units++] =
        (SimtUnit){ .name = target->kernels[kernel].name,
                    .parts = { target->prelude, target->kernels[kernel].body } };
}

static DeviceKernels *build(Device *device, const PlanTarget *target, const bool *needed,
                            const char *file, Error *error)
{
    SimtDevice *simt = (SimtDevice *)device;
    DeviceKernels *kernels = calloc(1, sizeof *kernels);
    if (!kernels)
        abort();
    (void)file;
    kernels->units = calloc((size_t)target->n_kernels + 1, sizeof *kernels->units);
    kernels->unit_of = malloc(((size_t)target->n_kernels + 1) * sizeof *kernels->unit_of);
    if (!kernels->units || !kernels->unit_of)
        abort();
    for (int i = 0; i < target->n_kernels; i++)
        kernels->unit_of[i] = -1;
    for (int i = 0; i < target->n_programs; i++)
        for (int j = 0; j < target->programs[i].n_steps; j++) {
            const PlanStep *step = &target->programs[i].steps[j];
            const PlanLaunch *launch = chosen_launch(step);
            if (needed[step->kernel] && launch)
                need_kernel(kernels, target, launch->kernel);
        }
    if (simt_build(&simt->builder, kernels->units, kernels->n_units, error))
        return kernels;
    kernels->n_units = 0;
    unload(device, kernels);
    return NULL;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static int64_t available(const Device *device)
{
    (void)device;
    return system_memory() / 4;                   /* the shadow is larger than what it is of */
}

static void *allocate(Device *device, int64_t bytes, Error *error)
{
    SimtMemory *memory = simt_memory_open(((SimtDevice *)device)->simt, bytes);
    if (memory)
        return simt_memory_data(memory);
    fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the emulator");
    return NULL;
}

static void release(Device *device, void *data, int64_t bytes)
{
    SimtDevice *simt = (SimtDevice *)device;
    int64_t offset;
    SimtMemory *memory = simt_memory_find(simt->simt, data, &offset);
    (void)bytes;
    simt->n_uploads = 0;
    simt->activations = NULL;
    simt_memory_close(simt->simt, memory);
}

static bool upload(Device *device, void *to, const void *from, int64_t bytes, Error *error)
{
    SimtDevice *simt = (SimtDevice *)device;
    int64_t offset;
    if (bytes == 0)
        return true;
    SimtMemory *memory = simt_memory_find(simt->simt, to, &offset);
    if (!memory || simt->n_uploads == MAX_UPLOADS)
        return fail(error, EXIT_ENVIRONMENT, "", "uploads to nowhere, or too many of them");
    memcpy(to, from, (size_t)bytes);
    simt_memory_mark(memory, offset, bytes, true);
    simt->uploads[simt->n_uploads++] = (Upload){ memory, offset, bytes };
    return true;
}

static bool download(Device *device, void *to, const void *from, int64_t bytes, Error *error)
{
    SimtDevice *simt = (SimtDevice *)device;
    int64_t offset = 0;
    if (bytes == 0)
        return true;
    SimtMemory *memory = simt_memory_find(simt->simt, from, &offset);
    bool checked = memory && memory == simt->activations;
    int64_t hole = checked ? simt_memory_unwritten(memory, offset, bytes) : -1;
    if (!memory || hole >= 0)
        return fail(error, EXIT_ENVIRONMENT, "", "downloads %lld bytes, of which byte %lld was "
                    "never written", (long long)bytes, (long long)(hole - offset));
    memcpy(to, from, (size_t)bytes);
    return true;
}

/* ---- what counts as written ------------------------------------------------------------------ */

static int64_t buffer_bytes(const PlanBuffer *buffer, int64_t batch)
{
    return buffer->bytes * (buffer->slab == SLAB_ACTIVATIONS ? batch : 1);
}

static void forget(SimtDevice *simt, SimtMemory *memory)
{
    simt_memory_mark(memory, 0, simt_memory_bytes(memory), false);
    for (int i = 0; i < simt->n_uploads; i++)
        if (simt->uploads[i].memory == memory)
            simt_memory_mark(memory, simt->uploads[i].offset, simt->uploads[i].bytes, true);
}

static void prepare_memory(SimtDevice *simt, const DeviceRun *work)
{
    bool done[SLAB_COUNT] = { false };
    for (int i = 0; i < work->n_steps; i++) {
        const DeviceStep *step = &work->steps[i];
        for (int k = 0; k < step->plan->n_buffers; k++) {
            Slab slab = step->plan->buffers[k].slab;
            int64_t offset;
            SimtMemory *memory = simt_memory_find(simt->simt, step->buffers[k], &offset);
            if (done[slab] || !memory)
                continue;
            done[slab] = true;
            if (slab == SLAB_ACTIVATIONS)
                simt->activations = memory;
            if (slab == SLAB_ACTIVATIONS || (slab == SLAB_FIXED && work->once))
                forget(simt, memory);
            else if (slab != SLAB_FIXED)
                simt_memory_mark(memory, 0, simt_memory_bytes(memory), true);
        }
    }
    simt->n_uploads = 0;
}

/* ---- running --------------------------------------------------------------------------------- */

static float float_of(const void *data, int64_t index, bool bf16)
{
    uint32_t bits = bf16 ? (uint32_t)((const uint16_t *)data)[index] << 16
                         : ((const uint32_t *)data)[index];
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static void store_float(void *data, int64_t index, bool bf16, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (bf16)
        ((uint16_t *)data)[index] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    else
        ((float *)data)[index] = value;
}

/* A step of PLAN_MATMUL: what the vendor's library does, in double. */
static bool run_matmul(SimtDevice *simt, const DeviceStep *step, int64_t batch, Error *error)
{
    const int64_t *s = step->plan->sizes;
    bool bf16 = strcmp(simt->base.target, "cuda-bf16") == 0;
    bool bf16_result = bf16 && !s[MATMUL_FLOAT_RESULT];
    int64_t rows = s[MATMUL_ROWS] + batch * s[MATMUL_ROWS_PER_SAMPLE], columns = s[MATMUL_COLUMNS];
    int64_t depth = s[MATMUL_DEPTH] + batch * s[MATMUL_DEPTH_PER_SAMPLE];
    int64_t counts[] = { rows * depth, depth * columns, rows * columns };
    for (int i = 0; i < 3; i++) {
        int64_t offset, bytes = counts[i] * ((i < 2 ? bf16 : bf16_result) ? 2 : 4);
        SimtMemory *memory = simt_memory_find(simt->simt, step->buffers[i], &offset);
        if (bytes > buffer_bytes(&step->plan->buffers[i], batch))
            return fail(error, EXIT_USER, "", "%s: matrix %d is larger than its buffer",
                        step->plan->label, i);
        if (i == 2)
            simt_memory_mark(memory, offset, bytes, true);
        else if (simt_memory_unwritten(memory, offset, bytes) >= 0)
            return fail(error, EXIT_USER, "", "%s: matrix %d has elements that were never written",
                        step->plan->label, i);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            double sum = 0;
            for (int64_t k = 0; k < depth; k++) {
                int64_t a = s[MATMUL_A_TRANSPOSED] ? k * rows + r : r * depth + k;
                int64_t b = s[MATMUL_B_TRANSPOSED] ? c * depth + k : k * columns + c;
                sum += (double)float_of(step->buffers[0], a, bf16)
                     * (double)float_of(step->buffers[1], b, bf16);
            }
            store_float(step->buffers[2], r * columns + c, bf16_result, (float)sum);
        }
    return true;
}

static bool run_step(SimtDevice *simt, const DeviceRun *work, const DeviceStep *step, Error *error)
{
    const PlanStep *plan = step->plan;
    const PlanLaunch *launch = chosen_launch(plan);
    SimtBuffer buffers[MAX_BUFFERS];
    static _Thread_local char report[8192];
    if (!launch)
        return run_matmul(simt, step, work->batch, error);
    const SimtUnit *unit = &work->kernels->units[work->kernels->unit_of[launch->kernel]];
    for (int i = 0; i < plan->n_buffers && i < MAX_BUFFERS; i++) {
        int64_t offset;
        SimtMemory *memory = simt_memory_find(simt->simt, step->buffers[i], &offset);
        Slab slab = plan->buffers[i].slab;
        buffers[i] = (SimtBuffer){
            .memory = memory, .offset = offset,
            .bytes = buffer_bytes(&plan->buffers[i], work->batch),
            .samples = slab == SLAB_ACTIVATIONS ? work->batch : 1,
            .keeps_tail = slab != SLAB_ACTIVATIONS && slab != SLAB_FIXED,
        };
    }
    SimtLaunch given = {
        .name = unit->name, .kernel = unit->kernel, .n_buffers = plan->n_buffers,
        .buffers = buffers, .n_scalars = plan->n_scalars, .scalars = plan->scalars,
        .n_sizes = plan->n_sizes, .sizes = plan->sizes, .batch = (int)work->batch,
        .threads = launch->threads, .shared_bytes = launch->shared_bytes,
        .blocks = launch->blocks + work->batch * launch->blocks_per_sample,
    };
    if (simt_launch(simt->simt, &given, report, sizeof report))
        return true;
    return fail(error, EXIT_USER, "", "%.150s: %.800s", plan->label, report);
}

static bool run(Device *device, const DeviceRun *work, Error *error)
{
    SimtDevice *simt = (SimtDevice *)device;
    prepare_memory(simt, work);
    for (int i = 0; i < work->n_steps; i++) {
        if (work->times)
            work->times[i] = 0;
        if (step_is_due(work, work->steps[i].plan)
            && !run_step(simt, work, &work->steps[i], error))
            return false;
    }
    return true;
}

static bool synchronise(Device *device, Error *error)
{
    (void)device;
    (void)error;
    return true;
}

/* ---- opening --------------------------------------------------------------------------------- */

static void close_simt(Device *device)
{
    SimtDevice *simt = (SimtDevice *)device;
    simt_close(simt->simt);
    free(simt);
}

Device *simt_device_open(const char *target, Error *error)
{
    SimtDevice *simt = calloc(1, sizeof *simt);
    int threads = system_processors();
    if (!simt)
        abort();
    simt->base = (Device){
        .target = target, .options = { .name = "simt" }, .close = close_simt, .build = build,
        .unload = unload, .available = available, .allocate = allocate, .release = release,
        .upload = upload, .download = download, .run = run, .synchronise = synchronise,
    };
    snprintf(simt->base.description, sizeof simt->base.description, "emulated %s", target);
    if (!simt_builder_open(&simt->builder, error)) {
        free(simt);
        return NULL;
    }
    simt->simt = simt_open(threads < MAX_THREADS ? threads : MAX_THREADS);
    return &simt->base;
}
