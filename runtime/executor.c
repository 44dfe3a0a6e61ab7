/* Runs the programs of a plan on a device.
 *
 * All memory is taken when the executor is opened: one slab a kind, as large as the largest program
 * needs for the largest batch. The programs share SLAB_FIXED and SLAB_ACTIVATIONS. For each program
 * there is a table of resolved buffers, which is filled again only when the batch changes; a step
 * of training allocates nothing.
 *
 * Steps marked `once` (packing of weights, folding of batch norm) depend on parameters only. They
 * run when parameters may have changed since, and when another program has used SLAB_FIXED since.
 * Whether a program changes parameters is seen from what it touches: Adam's moments, or buffers it
 * updates. A program that `keeps_once` does those steps' work again itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

typedef struct {
    const PlanProgram *plan;    /* NULL: not opened */
    DeviceStep *steps;
    void **buffers;             /* of all steps, one behind the other */
    int batch;                  /* that buffers are resolved for; 0: none */
    unsigned parts;             /* that were opened */
    bool changes_parameters;
} BoundProgram;

struct Executor {
    const Plan *plan;
    const PlanTarget *target;
    Device *device;
    DeviceKernels *kernels;
    int max_batch;
    void *slabs[SLAB_COUNT];
    int64_t bytes[SLAB_COUNT];
    void *scratch;
    int64_t scratch_bytes;      /* of one thread */
    BoundProgram *programs;     /* as the target's */
    PlanState state;
    int prepared;               /* program whose once-steps hold; -1: none */
    int ran, ran_batch;         /* the last run; -1: none */
    bool written;               /* something was written since: batched results may be gone */
    bool profiling;
    double *times;              /* as many as the longest program has steps */
};

/* ---- what a plan needs ----------------------------------------------------------------------- */

/* "evaluate,predict"; NULL names all. */
static bool is_listed(const char *programs, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = programs; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, n) == 0 && (at[n] == 0 || at[n] == ',' || at[n] == '+'))
            return true;
    return programs == NULL;
}

/* What a run does unless it is told: see executor_run_parts. */
enum { DEFAULT_PARTS = 1 << PART_MAIN | 1 << PART_UPDATE };

/* Of "train+clip+average,evaluate". */
static unsigned listed_parts(const char *programs, const char *name)
{
    static const char *const names[PART_COUNT] = { "", "sum", "total", "clip", "update", "average" };
    size_t n = strlen(name);
    unsigned parts = DEFAULT_PARTS;
    for (const char *at = programs; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, n) == 0 && at[n] == '+')
            for (const char *word = at + n; *word == '+'; word += 1 + strcspn(word + 1, "+,"))
                for (int part = PART_SUM; part < PART_COUNT; part++)
                    if (strcspn(word + 1, "+,") == strlen(names[part])
                        && strncmp(word + 1, names[part], strlen(names[part])) == 0)
                        parts |= 1u << part;
    return parts;
}

static bool uses_slab(const PlanProgram *program, unsigned parts, Slab slab)
{
    for (int i = 0; i < program->n_tensors; i++)
        if (program->tensors[i].buffer.slab == slab)
            return true;
    for (int i = 0; i < program->n_steps; i++)
        if (parts >> program->steps[i].part & 1)
        for (int j = 0; j < program->steps[i].n_buffers; j++)
            if (program->steps[i].buffers[j].slab == slab)
                return true;
    return false;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t round_up(int64_t value)
{
    return (value + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
}

typedef struct { int64_t slabs[SLAB_COUNT], scratch; } Needs; /* activations: of one sample */

static Needs needs_of(const Plan *plan, const PlanTarget *target, const char *programs)
{
    Needs needs = { .slabs = { [SLAB_PARAMETERS] = plan->parameter_bytes,
                               [SLAB_FIXED] = PLAN_STATE_BYTES } };
    for (int i = 0; i < target->n_programs; i++) {
        const PlanProgram *program = &target->programs[i];
        if (!is_listed(programs, program->name))
            continue;
        const int64_t trained = plan->trainable_bytes;
        const struct { Slab slab; int64_t bytes; } kept[] = {
            { SLAB_GRADIENTS, trained }, { SLAB_MOMENTS, 2 * trained }, { SLAB_SUMS, trained },
            { SLAB_AVERAGE, plan->parameter_bytes },
        };
        for (int k = 0; k < 4; k++)
            if (uses_slab(program, listed_parts(programs, program->name), kept[k].slab))
                needs.slabs[kept[k].slab] = kept[k].bytes;
        needs.slabs[SLAB_FIXED] = larger(needs.slabs[SLAB_FIXED], program->fixed_bytes);
        needs.slabs[SLAB_ACTIVATIONS] =
            larger(needs.slabs[SLAB_ACTIVATIONS], program->sample_bytes);
        needs.scratch = larger(needs.scratch, round_up(program->scratch_bytes));
    }
    return needs;
}

/* Saturates: sums of a hostile plan's sizes may not fit. */
static int64_t total_bytes(const Needs *needs, int64_t batch, int64_t threads)
{
    double exact = (double)needs->slabs[SLAB_ACTIVATIONS] * (double)batch
                 + (double)needs->scratch * (double)threads;
    int64_t fixed = 0;
    for (int i = 0; i < SLAB_ACTIVATIONS; i++)
        fixed += needs->slabs[i];
    if (exact + (double)fixed > 9e18)
        return INT64_MAX;
    return fixed + needs->slabs[SLAB_ACTIVATIONS] * batch + needs->scratch * threads;
}

int64_t plan_bytes_for(const Plan *plan, const char *target, const char *programs, int batch,
                       int threads)
{
    const PlanTarget *found = plan_target(plan, target);
    if (!found)
        return 0;
    Needs needs = needs_of(plan, found, programs);
    return total_bytes(&needs, batch, threads);
}

int64_t plan_bytes(const Plan *plan, const char *target, int batch, int threads)
{
    return plan_bytes_for(plan, target, NULL, batch, threads);
}

static void print_bytes(int64_t bytes, char text[32])
{
    if (bytes < 1 << 30)
        snprintf(text, 32, "%.1f MiB", (double)bytes / (1 << 20));
    else
        snprintf(text, 32, "%.2f GiB", (double)bytes / (1 << 30));
}

/* there: the bytes that can be had. */
static bool no_memory(const Plan *plan, const Device *device, const Needs *needs, int max_batch,
                      int64_t there, Error *error)
{
    int threads = device->scratch_copies;
    int64_t needed = total_bytes(needs, max_batch, threads);
    char hint[200], least[32], needed_text[32], there_text[32];
    print_bytes(total_bytes(needs, 1, threads), least);
    print_bytes(needed, needed_text);
    print_bytes(there, there_text);
    int64_t fixed = total_bytes(needs, 0, threads);
    int64_t sample = needs->slabs[SLAB_ACTIVATIONS];
    int64_t room = there - there / 10; /* the rest for what stands around: threads, pictures */
    int64_t fits = sample > 0 && room > fixed ? (room - fixed) / sample : 0;
    if (fits > 0)
        snprintf(hint, sizeof hint, "the largest batch that fits is %lld", (long long)fits);
    else
        snprintf(hint, sizeof hint,
                 "not even a batch of 1 fits, which needs %s: make the model or "
                 "its pictures smaller, or close other programs",
                 least);
    return fail(error, EXIT_ENVIRONMENT, hint,
                "not enough memory: '%s' with batch %d needs %s, %s are available", plan->model,
                max_batch, needed_text, there_text);
}

static bool check_memory(const Plan *plan, const Device *device, const Needs *needs, int max_batch,
                         Error *error)
{
    int64_t there = device->available(device);
    return total_bytes(needs, max_batch, device->scratch_copies) <= there
        || no_memory(plan, device, needs, max_batch, there, error);
}

/* ---- opening --------------------------------------------------------------------------------- */

static bool bind_program(BoundProgram *bound, const PlanProgram *program, unsigned parts)
{
    size_t n = 0;
    for (int i = 0; i < program->n_steps; i++)
        n += (size_t)program->steps[i].n_buffers;
    bound->buffers = calloc(n + 1, sizeof *bound->buffers);
    bound->steps = calloc((size_t)program->n_steps + 1, sizeof *bound->steps);
    if (!bound->buffers || !bound->steps)
        return false;
    n = 0;
    for (int i = 0; i < program->n_steps; i++) {
        bound->steps[i] = (DeviceStep){ &program->steps[i], bound->buffers + n };
        n += (size_t)program->steps[i].n_buffers;
    }
    bound->plan = program;
    bound->parts = parts;
    bound->changes_parameters = uses_slab(program, parts, SLAB_MOMENTS);
    for (int i = 0; i < program->n_tensors; i++)
        if (program->tensors[i].role == ROLE_UPDATE)
            bound->changes_parameters = true;
    return true;
}

static bool bind_programs(Executor *executor, const char *programs, Error *error)
{
    const PlanTarget *target = executor->target;
    int longest = 0;
    bool complete = (executor->programs = calloc((size_t)target->n_programs + 1,
                                                 sizeof *executor->programs)) != NULL;
    for (int i = 0; complete && i < target->n_programs; i++) {
        const PlanProgram *program = &target->programs[i];
        if (!is_listed(programs, program->name))
            continue;
        complete = bind_program(&executor->programs[i], program,
                                listed_parts(programs, program->name));
        longest = program->n_steps > longest ? program->n_steps : longest;
    }
    complete = complete && (executor->times = calloc((size_t)longest + 1, sizeof(double)));
    return complete || fail(error, EXIT_ENVIRONMENT, "", "not enough memory to run a plan");
}

static bool build_kernels(Executor *executor, Error *error)
{
    const PlanTarget *target = executor->target;
    const Plan *plan = executor->plan;
    const char *file = plan->file ? plan->file : plan->model;
    bool *needed = calloc((size_t)target->n_kernels + 1, sizeof *needed);
    if (!needed)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory to run a plan");
    for (int i = 0; i < target->n_programs; i++) {
        const PlanProgram *program = executor->programs[i].plan;
        for (int j = 0; program && j < program->n_steps; j++) {
            const PlanStep *step = &program->steps[j];
            if (!(executor->programs[i].parts >> step->part & 1))
                continue;
            needed[step->kernel] = true;
            for (int k = 0; executor->device->options.tune && k < step->n_launches; k++)
                needed[step->launches[k].kernel] = true;
        }
    }
    executor->kernels = executor->device->build(executor->device, target, needed, file, error);
    free(needed);
    return executor->kernels != NULL;
}

static void release_slabs(Executor *executor)
{
    Device *device = executor->device;
    for (int i = 0; i < SLAB_COUNT; i++) {
        if (executor->slabs[i])
            device->release(device, executor->slabs[i], executor->bytes[i]);
        executor->slabs[i] = NULL;
    }
    if (executor->scratch)
        device->release(device, executor->scratch,
                        executor->scratch_bytes * device->scratch_copies);
    executor->scratch = NULL;
}

static bool allocate_all(Executor *executor, const Needs *needs, Error *error)
{
    Device *device = executor->device;
    for (int i = 0; i < SLAB_COUNT; i++) {
        int64_t bytes = needs->slabs[i] * (i == SLAB_ACTIVATIONS ? executor->max_batch : 1);
        if (bytes > 0 && !(executor->slabs[i] = device->allocate(device, bytes, error)))
            return false;
        executor->bytes[i] = bytes;
    }
    executor->scratch_bytes = needs->scratch;
    int64_t scratch = needs->scratch * device->scratch_copies;
    return scratch == 0 || (executor->scratch = device->allocate(device, scratch, error));
}

/* What was available may be gone, or in pieces. */
static bool allocate_slabs(Executor *executor, const Needs *needs, Error *error)
{
    Device *device = executor->device;
    Error reason = { 0 };
    if (allocate_all(executor, needs, &reason))
        return true;
    release_slabs(executor);
    int64_t there = device->available(device);
    int64_t needed = total_bytes(needs, executor->max_batch, device->scratch_copies);
    if (error && there == INT64_MAX) {
        *error = reason;
    } else if (error) {
        no_memory(executor->plan, device, needs, executor->max_batch,
                  there < needed ? there : needed - needed / 10, error);
        snprintf(error->text + strlen(error->text), sizeof error->text - strlen(error->text),
                 ": %.300s", reason.text);
    }
    return false;
}

static bool check_programs(const Plan *plan, const PlanTarget *target, const char *programs,
                           Error *error)
{
    char name[208];
    for (const char *at = programs; at && *at; at += at[strcspn(at, ",")] != 0) {
        int n = (int)strcspn(at, ",");
        int stem = (int)strcspn(at, ",+");
        snprintf(name, sizeof name, "%.*s", stem < 200 ? stem : 200, at);
        at += n;
        if (!plan_program(target, name))
            return fail(error, EXIT_USER, "compile the model again with segc",
                        "%s has no program '%s'", plan->file ? plan->file : plan->model, name);
    }
    return true;
}

bool executor_check(const Plan *plan, const Device *device, const char *programs, int max_batch,
                    Error *error)
{
    const char *file = plan->file ? plan->file : plan->model;
    const PlanTarget *target = plan_target(plan, device->target);
    if (!target) {
        char hint[128];
        const char *precision = strchr(device->target, '-'); /* "cuda-tf32" */
        int length = (int)strcspn(device->target, "-");
        snprintf(hint, sizeof hint, "compile the model again with segc --target %.*s%s%s", length,
                 device->target, precision ? " --precision " : "", precision ? precision + 1 : "");
        return fail(error, EXIT_USER, hint, "%s has no kernels for the target '%s'", file,
                    device->target);
    }
    if (max_batch < 1 || max_batch > 1 << 17)
        return fail(error, EXIT_USER, "it is between 1 and 131072", "a batch of %d cannot be run",
                    max_batch);
    if (plan->foreign && !device->options.trust)
        return fail(error, EXIT_USER,
                    "--trust, if you trust whoever made it; or compile the model "
                    "again with segc",
                    "%s belongs to another user: it holds C that would run as you", file);
    Needs needs = needs_of(plan, target, programs);
    return check_programs(plan, target, programs, error)
        && check_memory(plan, device, &needs, max_batch, error);
}

Executor *executor_open_for(const Plan *plan, Device *device, const char *programs, int max_batch,
                            Error *error)
{
    if (!executor_check(plan, device, programs, max_batch, error))
        return NULL;
    const PlanTarget *target = plan_target(plan, device->target);
    Executor *executor = calloc(1, sizeof *executor);
    if (!executor) {
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory to run a plan");
        return NULL;
    }
    *executor = (Executor){ .plan = plan,
                            .target = target,
                            .device = device,
                            .max_batch = max_batch,
                            .prepared = -1,
                            .ran = -1 };
    Needs needs = needs_of(plan, target, programs);
    if (bind_programs(executor, programs, error) && build_kernels(executor, error)
        && allocate_slabs(executor, &needs, error))
        return executor;
    executor_close(executor);
    return NULL;
}

Executor *executor_open(const Plan *plan, Device *device, int max_batch, Error *error)
{
    return executor_open_for(plan, device, NULL, max_batch, error);
}

void executor_close(Executor *executor)
{
    if (!executor)
        return;
    release_slabs(executor);
    if (executor->kernels)
        executor->device->unload(executor->device, executor->kernels);
    for (int i = 0; executor->programs && i < executor->target->n_programs; i++) {
        free(executor->programs[i].buffers);
        free(executor->programs[i].steps);
    }
    free(executor->programs);
    free(executor->times);
    free(executor);
}

/* ---- running --------------------------------------------------------------------------------- */

static void *buffer_place(const Executor *executor, const PlanBuffer *buffer, int64_t batch)
{
    int64_t offset = buffer->offset * (buffer->slab == SLAB_ACTIVATIONS ? batch : 1);
    return (char *)executor->slabs[buffer->slab] + offset;
}

static int64_t tensor_bytes(const PlanTensor *tensor, int batch)
{
    return tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * (tensor->batched ? batch : 1)
         * (tensor->type == PLAN_U8 ? 1 : (int64_t)sizeof(float));
}

static void bind_batch(Executor *executor, BoundProgram *bound, int batch)
{
    if (bound->batch == batch)
        return;
    for (int i = 0; i < bound->plan->n_steps; i++)
        for (int j = 0; (bound->parts >> bound->plan->steps[i].part & 1)
                        && j < bound->plan->steps[i].n_buffers; j++)
            bound->steps[i].buffers[j] =
                buffer_place(executor, &bound->plan->steps[i].buffers[j], batch);
    bound->batch = batch;
}

/* Index of a program that was opened, for a batch that fits; -1 after an error. */
static int find_program(const Executor *executor, const char *name, int batch, Error *error)
{
    int found = -1;
    for (int i = 0; i < executor->target->n_programs; i++)
        if (executor->programs[i].plan && strcmp(executor->programs[i].plan->name, name) == 0)
            found = i;
    if (found < 0)
        fail(error, EXIT_USER, "compile the model again with segc",
             "'%s' has no program '%s', or it was "
             "not opened",
             executor->plan->model, name);
    else if (batch >= 1 && batch <= executor->max_batch)
        return found;
    else
        fail(error, EXIT_USER, "", "program '%s': a batch of %d, but memory is for 1 to %d", name,
             batch, executor->max_batch);
    return -1;
}

static DeviceRun run_of(Executor *executor, int index, unsigned parts, int batch)
{
    BoundProgram *bound = &executor->programs[index];
    bind_batch(executor, bound, batch);
    return (DeviceRun){
        .kernels = executor->kernels, .steps = bound->steps, .n_steps = bound->plan->n_steps,
        .batch = batch, .once = executor->prepared != index, .parts = parts, .scratch = executor->scratch,
        .scratch_bytes = executor->scratch_bytes,
        .times = executor->profiling ? executor->times : NULL,
    };
}

static bool upload_state(Executor *executor, Error *error)
{
    executor->state.gradient_scale = 1;
    return executor->device->upload(executor->device, executor->slabs[SLAB_FIXED],
                                    &executor->state, sizeof executor->state, error);
}

bool executor_run(Executor *executor, const char *program, int batch, Error *error)
{
    return executor_run_parts(executor, program, DEFAULT_PARTS, batch, error);
}

bool executor_run_parts(Executor *executor, const char *program, unsigned parts, int batch,
                        Error *error)
{
    int index = find_program(executor, program, batch, error);
    if (index < 0)
        return false;
    Device *device = executor->device;
    BoundProgram *bound = &executor->programs[index];
    if (parts & ~bound->parts)
        return fail(error, EXIT_USER, "", "program '%s' was opened without what it shall do", program);
    DeviceRun work = run_of(executor, index, parts, batch);
    if (device->options.tune && device->wants_tuning && device->wants_tuning(device, &work)
        && !executor_tune(executor, program, batch, error))
        return false;
    work.once = executor->prepared != index;
    executor->prepared = -1;
    executor->ran = -1;
    if (!upload_state(executor, error) || !device->run(device, &work, error))
        return false;
    executor->prepared = bound->changes_parameters && !bound->plan->keeps_once ? -1 : index;
    executor->ran = index;
    executor->ran_batch = batch;
    executor->written = false;
    return true;
}

bool executor_feeds(const Executor *executor)
{
    return executor->device->feed != NULL;
}

bool executor_synchronise(Executor *executor, Error *error)
{
    return executor->device->synchronise(executor->device, error);
}

/* ---- tuning ---------------------------------------------------------------------------------- */

/* What a run finds, and may change: kept on the host while kernels are timed. */
typedef struct { void *place, *copy; int64_t bytes; } Kept;

static bool keep(Executor *executor, Kept *kept, void *place, int64_t bytes, Error *error)
{
    if (bytes == 0)
        return true;
    *kept = (Kept){ place, malloc((size_t)bytes), bytes };
    if (!kept->copy)
        return fail(error, EXIT_ENVIRONMENT, "--no-tune runs without",
                    "not enough memory to time kernels");
    return executor->device->download(executor->device, kept->copy, place, bytes, error);
}

static bool keep_all(Executor *executor, const PlanProgram *program, int batch, Kept *kept,
                     Error *error)
{
    bool done = keep(executor, &kept[0], executor->slabs[SLAB_PARAMETERS],
                     executor->bytes[SLAB_PARAMETERS], error)
             && keep(executor, &kept[1], executor->slabs[SLAB_MOMENTS],
                     executor->bytes[SLAB_MOMENTS], error);
    for (int i = 0; done && i < program->n_tensors; i++) {
        const PlanTensor *tensor = &program->tensors[i];
        if (tensor->role == ROLE_INPUT || tensor->role == ROLE_TARGET)
            done = keep(executor, &kept[2 + i], buffer_place(executor, &tensor->buffer, batch),
                        tensor_bytes(tensor, batch), error);
    }
    return done;
}

bool executor_tune(Executor *executor, const char *program, int batch, Error *error)
{
    int index = find_program(executor, program, batch, error);
    Device *device = executor->device;
    if (index < 0 || !device->tune)
        return index >= 0;
    const PlanProgram *plan = executor->programs[index].plan;
    DeviceRun work = run_of(executor, index, DEFAULT_PARTS, batch), nothing = work;
    nothing.n_steps = 0; /* but what was fed is in its place then */
    executor->prepared = -1;
    executor->ran = -1;
    work.once = true;
    Kept *kept = calloc((size_t)plan->n_tensors + 2, sizeof *kept);
    bool done = kept ? upload_state(executor, error) && device->run(device, &nothing, error)
                           && keep_all(executor, plan, batch, kept, error)
                           && device->tune(device, &work, error)
                     : fail(error, EXIT_ENVIRONMENT, "", "not enough memory to time kernels");
    for (int i = 0; kept && i < plan->n_tensors + 2; i++) {
        done = done && (!kept[i].copy || device->upload(device, kept[i].place, kept[i].copy,
                                                        kept[i].bytes, error));
        free(kept[i].copy);
    }
    free(kept);
    return done;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static const PlanTensor *find_tensor(const Executor *executor, int program, const char *name,
                                     bool given, Error *error)
{
    const PlanProgram *plan = executor->programs[program].plan;
    for (int i = 0; i < plan->n_tensors; i++) {
        const PlanTensor *tensor = &plan->tensors[i];
        if (strcmp(tensor->name, name) == 0
            && given == (tensor->role == ROLE_INPUT || tensor->role == ROLE_TARGET))
            return tensor;
    }
    fail(error, EXIT_USER, "segrun info lists them", "program '%s' of '%s' has no %s '%s'",
         plan->name, executor->plan->model, given ? "input or target" : "result", name);
    return NULL;
}

bool executor_write(Executor *executor, const char *program, const char *tensor, const void *data,
                    int batch, Error *error)
{
    int index = find_program(executor, program, batch, error);
    const PlanTensor *found = index < 0 ? NULL : find_tensor(executor, index, tensor, true, error);
    if (!found)
        return false;
    Device *device = executor->device;
    executor->written = !device->feed;
    return (device->feed ? device->feed : device->upload)(
        device, buffer_place(executor, &found->buffer, batch), data, tensor_bytes(found, batch),
        error);
}

bool executor_read(Executor *executor, const char *program, const char *tensor, void *data,
                   int batch, Error *error)
{
    int index = find_program(executor, program, batch, error);
    const PlanTensor *found = index < 0 ? NULL : find_tensor(executor, index, tensor, false, error);
    if (!found)
        return false;
    if (executor->ran != index
        || (found->batched && (executor->written || executor->ran_batch != batch)))
        return fail(error, EXIT_USER, "",
                    "'%s' of program '%s' is not there: read it after a run with "
                    "that batch and before the next is written",
                    tensor, program);
    return executor->device->download(executor->device, data,
                                      buffer_place(executor, &found->buffer, batch),
                                      tensor_bytes(found, batch), error);
}

/* ---- slabs and the rest ---------------------------------------------------------------------- */

static bool check_slab(const Executor *executor, Slab slab, Error *error)
{
    return executor->slabs[slab] || executor->bytes[slab] == 0
        || fail(error, EXIT_USER, "", "'%s' has no such memory", executor->plan->model);
}

bool executor_download(Executor *executor, Slab slab, void *data, Error *error)
{
    return check_slab(executor, slab, error)
        && executor->device->download(executor->device, data, executor->slabs[slab],
                                      executor->bytes[slab], error);
}

bool executor_upload(Executor *executor, Slab slab, const void *data, Error *error)
{
    executor->prepared = -1;
    return check_slab(executor, slab, error)
        && executor->device->upload(executor->device, executor->slabs[slab], data,
                                    executor->bytes[slab], error);
}

PlanState *executor_state(Executor *executor) { return &executor->state; }

int64_t executor_slab_bytes(const Executor *executor, Slab slab) { return executor->bytes[slab]; }

int64_t executor_bytes(const Executor *executor)
{
    int64_t total = executor->scratch_bytes * executor->device->scratch_copies;
    for (int i = 0; i < SLAB_COUNT; i++)
        total += executor->bytes[i];
    return total;
}

void executor_profile(Executor *executor, bool on) { executor->profiling = on; }

const double *executor_step_times(const Executor *executor) { return executor->times; }
