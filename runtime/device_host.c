/* The processor as a device: kernels are C functions in a shared object that the system's compiler
 * built for it, run one after the other; each runs on all threads by OpenMP.
 *
 * Slabs are mapped, not malloc'ed: zeros without touching them, at 2 MiB boundaries, in huge pages
 * where the kernel gives them (a step walks through gigabytes; the translation of addresses is what
 * small pages cost).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "device.h"

static const size_t HUGE = (size_t)2 << 20;
static const double PROBE_SECONDS = 0.03;

typedef struct {
    Device base;
    KernelCache cache;
    HostCompiler compiler;
} HostDevice;

/* ---- kernels --------------------------------------------------------------------------------- */

static DeviceKernels *build(Device *device, const PlanTarget *target, const bool *needed,
                            const char *file, Error *error)
{
    HostDevice *host = (HostDevice *)device;
    return (DeviceKernels *)host_build(&host->compiler, &host->cache, &device->options,
                                       device->scratch_copies, target, needed, file, error);
}

static void unload(Device *device, DeviceKernels *kernels)
{
    (void)device;
    host_unload((HostKernels *)kernels);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static int64_t available(const Device *device)
{
    (void)device;
    return system_memory();
}

static size_t mapped_bytes(int64_t bytes)
{
    return ((size_t)bytes + HUGE - 1) / HUGE * HUGE;
}

static void *allocate(Device *device, int64_t bytes, Error *error)
{
    (void)device;
    size_t size = mapped_bytes(bytes);
    char *mapped = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
                        | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        fail(error, EXIT_ENVIRONMENT, "use a smaller batch, or close other programs",
             "cannot get %.1f MiB of memory: %s", (double)bytes / (1 << 20), strerror(errno));
        return NULL;
    }
    size_t before = (HUGE - (uintptr_t)mapped % HUGE) % HUGE;
    if (before)
        munmap(mapped, before);
    munmap(mapped + before + size, HUGE - before);
    madvise(mapped + before, size, MADV_HUGEPAGE); /* may be off: slower, not wrong */
    return mapped + before;
}

static void release(Device *device, void *memory, int64_t bytes)
{
    (void)device;
    munmap(memory, mapped_bytes(bytes));
}

static bool copy(Device *device, void *to, const void *from, int64_t bytes, Error *error)
{
    (void)device;
    (void)error;
    memcpy(to, from, (size_t)bytes);
    return true;
}

/* ---- running --------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static bool run(Device *device, const DeviceRun *work, Error *error)
{
    (void)error;
    const HostKernels *kernels = (const HostKernels *)work->kernels;
    KernelArguments arguments = { .batch = work->batch, .threads = device->scratch_copies,
                                  .scratch = work->scratch, .scratch_bytes = work->scratch_bytes };
    for (int i = 0; i < work->n_steps; i++) {
        const DeviceStep *step = &work->steps[i];
        double start = work->times ? now() : 0;
        if (step_is_due(work, step->plan)) {
            arguments.buffers = step->buffers;
            arguments.sizes = step->plan->sizes;
            arguments.scalars = step->plan->scalars;
            kernels->functions[step->plan->kernel](&arguments);
        }
        if (work->times)
            work->times[i] = step_is_due(work, step->plan) ? now() - start : 0;
    }
    return true;
}

static bool synchronise(Device *device, Error *error)
{
    (void)device;
    (void)error;
    return true;
}

static bool ceiling(Device *device, DeviceCeiling *ceiling)
{
    int threads = device->scratch_copies;
    *ceiling = (DeviceCeiling){ .flops = measure_peak(threads, PROBE_SECONDS),
                                .bytes = measure_bandwidth(threads, PROBE_SECONDS),
                                .measured = true };
    return ceiling->flops > 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* -t, else OMP_NUM_THREADS, else all that this process may use. */
static int choose_threads(const DeviceOptions *options)
{
    const char *omp = getenv("OMP_NUM_THREADS");
    long threads = options->threads;
    if (threads <= 0 && omp)
        threads = strtol(omp, NULL, 10);
    if (threads <= 0)
        threads = system_processors();
    return threads < 4096 ? (int)threads : 4096;
}

static const char *vector_name(void)
{
    char cpu[16384];
    system_cpu(cpu, sizeof cpu);
    return strstr(cpu, " avx512f") ? "AVX-512" : strstr(cpu, " avx2") ? "AVX2"
         : strstr(cpu, " sse2") ? "SSE2" : strstr(cpu, " sve") ? "SVE"
         : strstr(cpu, " asimd") ? "NEON" : "plain C";
}

/* How products of bf16 are computed, as words of the description. */
static const char *bf16_words(void)
{
    char cpu[16384];
    system_cpu(cpu, sizeof cpu);
    return strstr(cpu, " avx512_bf16") ? ", bf16" : ", bf16 by float instructions";
}

static void close_host(Device *device)
{
    HostDevice *host = (HostDevice *)device;
    kernel_cache_close(&host->cache);
    free(host);
}

Device *device_host_open(const DeviceOptions *options, Error *error)
{
    HostDevice *host = calloc(1, sizeof *host);
    if (!host) {
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory for a device");
        return NULL;
    }
    /* libgomp, which comes with the kernels: waiting threads give their processor away soon. Where
     * other programs run, spinning for longer makes a step several times slower. */
    setenv("GOMP_SPINCOUNT", "10000", 0);
    int threads = choose_threads(options);
    bool bf16 = options->precision && strcmp(options->precision, "bf16") == 0;
    host->base = (Device){
        .target = bf16 ? "host-bf16" : "host", .scratch_copies = threads, .direct = true,
        .options = *options, .close = close_host,
        .build = build, .unload = unload, .available = available, .allocate = allocate,
        .release = release, .upload = copy, .download = copy, .run = run,
        .synchronise = synchronise, .ceiling = ceiling,
    };
    if (!kernel_cache_open(&host->cache, options, error)
        || !compiler_open(&host->compiler, &host->cache, error)) {
        close_host(&host->base);
        return NULL;
    }
    const char *name = strrchr(host->compiler.program, '/');
    snprintf(host->base.description, sizeof host->base.description,
             "cpu: %d thread%s, %.60s%s, %.60s (%s)", threads, threads == 1 ? "" : "s",
             host->compiler.machine ? host->compiler.machine : vector_name(),
             !bf16 ? "" : host->compiler.machine ? ", bf16" : bf16_words(), name ? name + 1 : host->compiler.program, host->compiler.version);
    return &host->base;
}
