/* Kernels of a plan on CUDA: NVRTC makes a cubin of each, several at a time, and the driver loads
 * them. Cubins and not PTX: nothing is compiled when a module is loaded, and the driver may be
 * older than the toolkit.
 *
 * A cubin is kept by the hash of its text, the version of NVRTC and the architecture. The text lies
 * beside it as NAME-KEY.cu; what NVRTC says about a text that it cannot build lies beside that, and
 * the lines in question are shown.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_cuda.h"

enum { MAX_OPTIONS = NVRTC_OPTIONS + 1, QUOTED_LINES = 3, SHARED_BY_DEFAULT = 48 << 10 };

typedef struct {
    CudaDevice *cuda;
    char architecture[NVRTC_ARCHITECTURE];
    const char *options[MAX_OPTIONS]; int n_options;
    char tool[256];
    KernelBuild kernels;
    pthread_mutex_t lock;
    char *quote;                /* of the first text that could not be built */
} Build;

/* ---- what is wrong in a text ----------------------------------------------------------------- */

/* NVRTC's first line with an error, "NAME.cu(12): error: ..."; *line: its number, 0 if none. */
static const char *first_error(const char *log, int *line)
{
    const char *found = strstr(log, "error:"), *start = found ? found : log;
    while (start > log && start[-1] != '\n')
        start--;
    const char *bracket = found ? memchr(start, '(', (size_t)(found - start)) : NULL;
    *line = bracket ? atoi(bracket + 1) : 0;
    return start;
}

/* The lines round `line` with their numbers. */
static void print_lines(FILE *out, const char *text, int line)
{
    int number = 1;
    for (; *text; number++) {
        int n = (int)strcspn(text, "\n");
        if (number >= line - QUOTED_LINES && number <= line + QUOTED_LINES)
            fprintf(out, "%s %5d | %.*s\n", number == line ? ">" : " ", number, n, text);
        text += n + (text[n] != 0);
    }
}

static bool compile_failed(Build *build, const KernelUnit *unit, const char *text,
                           const char *what, const char *log, Error *error)
{
    char path[4096 + 8], *quote = NULL, hint[500];
    size_t size;
    int line;
    const char *start = first_error(log, &line);
    snprintf(path, sizeof path, "%s.log", unit->source);
    cache_write(path, log, strlen(log), false, NULL);
    FILE *out = open_memstream(&quote, &size);
    if (out) {
        fprintf(out, "%s\n", log);
        if (line > 0)
            print_lines(out, text, line);
        fclose(out);
    }
    pthread_mutex_lock(&build->lock);
    if (!build->quote)
        build->quote = quote;
    else
        free(quote);
    pthread_mutex_unlock(&build->lock);
    snprintf(hint, sizeof hint, "the text is in %.400s, all that NVRTC says beside it",
             unit->source);
    return fail(error, EXIT_ENVIRONMENT, hint, "%s: NVRTC %d.%d cannot build it: %.*s", what,
                build->cuda->nvrtc.major, build->cuda->nvrtc.minor, (int)strcspn(start, "\n"),
                *start ? start : "it says nothing");
}

/* ---- compiling ------------------------------------------------------------------------------- */

static char *read_log(const Nvrtc *nvrtc, nvrtcProgram program)
{
    size_t size = 0;
    char *log = nvrtc->nvrtcGetProgramLogSize(program, &size) == NVRTC_SUCCESS
              ? calloc(1, size + 1) : NULL;
    if (log && nvrtc->nvrtcGetProgramLog(program, log) != NVRTC_SUCCESS)
        *log = 0;
    return log;
}

static bool nvrtc_failed(const Nvrtc *nvrtc, const char *call, nvrtcResult result,
                         const char *what, Error *error)
{
    return fail(error, EXIT_ENVIRONMENT,
                result == NVRTC_ERROR_OUT_OF_MEMORY ? "end other programs"
                                                    : "install another version of libnvrtc",
                "%s: NVRTC %d.%d: %s: %s (%d)", what, nvrtc->major, nvrtc->minor, call,
                result == NVRTC_ERROR_OUT_OF_MEMORY ? "not enough memory" : "error", result);
}

static bool save_cubin(const Nvrtc *nvrtc, nvrtcProgram program, const KernelUnit *unit,
                       const char *what, Error *error)
{
    size_t size = 0;
    nvrtcResult result = nvrtc->nvrtcGetCUBINSize(program, &size);
    if (result != NVRTC_SUCCESS || size == 0)
        return nvrtc_failed(nvrtc, "nvrtcGetCUBINSize", result, what, error);
    char *cubin = malloc(size);
    if (!cubin)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", what);
    result = nvrtc->nvrtcGetCUBIN(program, cubin);
    bool saved = result == NVRTC_SUCCESS ? cache_write(unit->object, cubin, size, true, error)
               : nvrtc_failed(nvrtc, "nvrtcGetCUBIN", result, what, error);
    free(cubin);
    return saved;
}

static bool compile(void *context, const KernelUnit *unit, const char *text, const char *what,
                    Error *error)
{
    Build *build = context;
    const Nvrtc *nvrtc = &build->cuda->nvrtc;
    nvrtcProgram program = NULL;
    const char *name = strrchr(unit->source, '/');
    nvrtcResult result = nvrtc->nvrtcCreateProgram(&program, text, name ? name + 1 : unit->source,
                                                   0, NULL, NULL);
    if (result != NVRTC_SUCCESS)
        return nvrtc_failed(nvrtc, "nvrtcCreateProgram", result, what, error);
    result = nvrtc->nvrtcCompileProgram(program, build->n_options, build->options);
    bool done = false;
    if (result == NVRTC_SUCCESS) {
        done = save_cubin(nvrtc, program, unit, what, error);
    } else if (result == NVRTC_ERROR_COMPILATION) {
        char *log = read_log(nvrtc, program);
        compile_failed(build, unit, text, what, log ? log : "", error);
        free(log);
    } else {
        nvrtc_failed(nvrtc, "nvrtcCompileProgram", result, what, error);
    }
    nvrtc->nvrtcDestroyProgram(&program);
    return done;
}

/* ---- loading --------------------------------------------------------------------------------- */

/* The most dynamic shared memory that a launch of the kernel has, of those that fit this GPU. */
static int64_t shared_needed(const CudaDevice *cuda, const PlanTarget *target, int kernel)
{
    int64_t most = 0;
    for (int p = 0; p < target->n_programs; p++)
        for (int s = 0; s < target->programs[p].n_steps; s++) {
            const PlanStep *step = &target->programs[p].steps[s];
            for (int i = 0; i < step->n_launches; i++) {
                const PlanLaunch *launch = &step->launches[i];
                if (launch->kernel == kernel && launch->shared_bytes > most
                    && launch->shared_bytes <= cuda->shared_bytes)
                    most = launch->shared_bytes;
            }
        }
    return most;
}

static void say_facts(const CudaDevice *cuda, const KernelUnit *unit, CUfunction function)
{
    int registers = 0, local = 0;
    if (cuda->base.options.verbose
        && cuda->driver.cuFuncGetAttribute(&registers, CU_FUNC_ATTRIBUTE_NUM_REGS, function)
               == CUDA_SUCCESS
        && cuda->driver.cuFuncGetAttribute(&local, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, function)
               == CUDA_SUCCESS)
        cuda_say(cuda, "kernel %s: %d registers, %d bytes of local memory", unit->kernel->name,
                 registers, local);
}

/* A cubin that the driver does not take: most often of a later CUDA than the driver. */
static bool load_failed(CudaDevice *cuda, CUresult result, const KernelUnit *unit,
                        const char *file, Error *error)
{
    cuda_check(cuda, result, "cuModuleLoadData", error);
    cuda_add_text(error, "; %.200s: kernel %.200s", file, unit->kernel->name);
    bool later = cuda->nvrtc.major * 1000 + cuda->nvrtc.minor * 10 > cuda->driver.version;
    bool refused = result == CUDA_ERROR_INVALID_IMAGE || result == CUDA_ERROR_NO_BINARY_FOR_GPU
                || result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    if (error && refused && later)
        snprintf(error->hint, sizeof error->hint,
                 "the driver (CUDA %d.%d) is older than NVRTC %d.%d: update the driver, or install "
                 "libnvrtc of CUDA %d",
                 cuda->driver.version / 1000, cuda->driver.version % 1000 / 10, cuda->nvrtc.major,
                 cuda->nvrtc.minor, cuda->driver.version / 1000);
    return false;
}

static bool load_kernel(CudaDevice *cuda, const PlanTarget *target, const KernelUnit *unit,
                        CudaKernel *kernel, const char *file, Error *error)
{
    size_t size;
    char *cubin = cache_read(unit->object, &size);
    if (!cubin)
        return fail(error, EXIT_ENVIRONMENT, "try again; or set SEG_CACHE to another folder",
                    "cannot read %s", unit->object);
    CUresult result = cuda->driver.cuModuleLoadData(&kernel->module, cubin);
    free(cubin);
    if (result != CUDA_SUCCESS)
        return load_failed(cuda, result, unit, file, error);
    snprintf(kernel->key, sizeof kernel->key, "%s", unit->key);
    kernel->source = strdup(unit->source);
    CUfunction function = NULL;
    bool loaded = CUDA_CALL(cuda, error, cuModuleGetFunction, &function, kernel->module,
                            unit->kernel->name);
    int64_t shared = shared_needed(cuda, target, (int)(unit->kernel - target->kernels));
    if (loaded && shared > SHARED_BY_DEFAULT)
        loaded = CUDA_CALL(cuda, error, cuFuncSetAttribute, function,
                           CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared);
    if (!loaded) {
        cuda_add_text(error, "; %.200s: kernel %.200s", file, unit->kernel->name);
        return false;
    }
    kernel->function = function;
    say_facts(cuda, unit, function);
    return true;
}

static CudaKernels *load(Build *build, Error *error)
{
    CudaDevice *cuda = build->cuda;
    const PlanTarget *target = build->kernels.target;
    CudaKernels *kernels = calloc(1, sizeof *kernels);
    if (kernels)
        kernels->kernels = calloc((size_t)target->n_kernels + 1, sizeof *kernels->kernels);
    if (!kernels || !kernels->kernels) {
        free(kernels);
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to load it", build->kernels.file);
        return NULL;
    }
    kernels->target = target;
    for (int i = 0; i < build->kernels.n_units; i++) {
        const KernelUnit *unit = &build->kernels.units[i];
        if (!load_kernel(cuda, target, unit, &kernels->kernels[unit->kernel - target->kernels],
                         build->kernels.file, error)) {
            cuda_unload(&cuda->base, (DeviceKernels *)kernels);
            return NULL;
        }
    }
    return kernels;
}

void cuda_unload(Device *device, DeviceKernels *opaque)
{
    CudaDevice *cuda = (CudaDevice *)device;
    CudaKernels *kernels = (CudaKernels *)opaque;
    cuda_enter(cuda, NULL);
    cuda->driver.cuStreamSynchronize(cuda->compute);
    cuda_forget_graphs(cuda, kernels);
    for (int i = 0; i < kernels->n_events; i++)
        cuda->driver.cuEventDestroy_v2(kernels->events[i]);
    for (int i = 0; i < kernels->target->n_kernels; i++) {
        if (kernels->kernels[i].module)
            cuda->driver.cuModuleUnload(kernels->kernels[i].module);
        free(kernels->kernels[i].source);
    }
    free(kernels->events);
    free(kernels->kernels);
    free(kernels);
}

/* ---- building -------------------------------------------------------------------------------- */

static void choose_options(Build *build)
{
    const Nvrtc *nvrtc = &build->cuda->nvrtc;
    build->n_options = nvrtc_options(nvrtc, nvrtc->architecture, build->architecture,
                                     build->options);
    if (build->cuda->debug > 0)
        build->options[build->n_options++] = "--generate-line-info"; /* for compute-sanitizer */
    int length = snprintf(build->tool, sizeof build->tool, "NVRTC %d.%d", nvrtc->major,
                          nvrtc->minor);
    for (int i = 0; i < build->n_options; i++)
        length += snprintf(build->tool + length, sizeof build->tool - (size_t)length, " %s",
                           build->options[i]);
}

DeviceKernels *cuda_build(Device *device, const PlanTarget *target, const bool *needed,
                          const char *file, Error *error)
{
    CudaDevice *cuda = (CudaDevice *)device;
    Build build = { .cuda = cuda, .lock = PTHREAD_MUTEX_INITIALIZER,
                    .kernels = { .cache = &cuda->cache, .options = &device->options,
                                 .target = target, .file = file, .tool = build.tool,
                                 .endings = { "cu", "cubin" }, .compile = compile,
                                 .context = &build } };
    CudaKernels *kernels = NULL;
    bool *texts = malloc(((size_t)target->n_kernels + 1) * sizeof *texts), products = false;
    for (int i = 0; texts && i < target->n_kernels; i++) {
        bool product = strcmp(target->kernels[i].name, PLAN_MATMUL) == 0;
        texts[i] = needed[i] && !product;
        products = products || (needed[i] && product);
    }
    choose_options(&build);
    if (!texts)
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to build it", file);
    else if (cuda_enter(cuda, error) && (!products || cuda_blas_open(cuda, error))
             && kernel_build_open(&build.kernels, texts, error)
             && kernel_build_missing(&build.kernels, system_processors(), error))
        kernels = load(&build, error);
    free(texts);
    if (build.quote && device->options.say)
        device->options.say(device->options.context, build.quote);
    free(build.quote);
    kernel_build_close(&build.kernels);
    return (DeviceKernels *)kernels;
}
