/* The CUDA device: driver API and NVRTC, both loaded at run time. This file opens and closes it and
 * says what a failed call means; the other parts are listed in device_cuda.h.
 *
 * A device is opened for one precision, which is a target of its own in the plan. All work of a run
 * goes by one stream, in the order of the steps; a second stream carries what the next run reads.
 * The primary context is shared with whatever else in this process uses the device.
 *
 * After some errors (an illegal address, an uncorrectable memory error) the context is dead: the
 * first such error is kept, and every later call fails with it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_cuda.h"

enum { OLDEST_CAPABILITY = 70, TENSOR_CAPABILITY = 80 };

/* ---- errors ---------------------------------------------------------------------------------- */

void cuda_add_text(Error *error, const char *format, ...)
{
    if (!error)
        return;
    size_t length = strlen(error->text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text + length, sizeof error->text - length, format, arguments);
    va_end(arguments);
}

void cuda_say(const CudaDevice *cuda, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    if (!cuda->base.options.say)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cuda->base.options.say(cuda->base.options.context, text);
}

/* Whether nothing more can be done with the context. */
static bool is_final(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_CONTAINED:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_UNKNOWN:
        return true;
    default:
        return result >= CUDA_ERROR_HARDWARE_STACK_ERROR && result <= CUDA_ERROR_LAUNCH_FAILED;
    }
}

/* "cuMemAlloc_v2": the number is for the linker. */
static int call_length(const char *call)
{
    const char *version = strstr(call, "_v");
    return version ? (int)(version - call) : (int)strlen(call);
}

bool cuda_check(CudaDevice *cuda, CUresult result, const char *call, Error *error)
{
    if (result == CUDA_SUCCESS)
        return true;
    const char *name = NULL, *text = NULL;
    cuda->driver.cuGetErrorName(result, &name);
    cuda->driver.cuGetErrorString(result, &text);
    const char *hint = "nvidia-smi may say more";
    if (!cuda->context)
        hint = "nvidia-smi may say more: another program may have the GPU for itself";
    else if (is_final(result))
        hint = cuda->debug ? "segrun train --resume goes on from the last checkpoint"
                           : "segrun train --resume goes on from the last checkpoint; with "
                             "SEG_DEBUG=1 the message names the kernel that was running";
    else if (result == CUDA_ERROR_OUT_OF_MEMORY)
        hint = "use a smaller batch, or end other programs on this GPU (nvidia-smi lists them)";
    Error reason;
    fail(&reason, EXIT_ENVIRONMENT, hint, "%s: %.*s: %s (%s)", cuda->name, call_length(call), call,
         name ? name : "an unknown error", text ? text : "the driver has no text for it");
    if (error)
        *error = reason;
    if (is_final(result) && !cuda->lost.code)
        cuda->lost = reason;
    return false;
}

bool cuda_enter(CudaDevice *cuda, Error *error)
{
    if (!cuda->lost.code)
        return CUDA_CALL(cuda, error, cuCtxSetCurrent, cuda->context);
    if (error)
        *error = cuda->lost;
    return false;
}

/* ---- which GPU ------------------------------------------------------------------------------- */

static bool read_device(CudaDevice *cuda, int ordinal, Error *error)
{
    int major = 0, minor = 0;
    size_t memory = 0;
    if (!CUDA_CALL(cuda, error, cuDeviceGet, &cuda->device, ordinal)
        || !CUDA_CALL(cuda, error, cuDeviceGetName, cuda->name, sizeof cuda->name, cuda->device)
        || !CUDA_CALL(cuda, error, cuDeviceGetAttribute, &major,
                      CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, cuda->device)
        || !CUDA_CALL(cuda, error, cuDeviceGetAttribute, &minor,
                      CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, cuda->device)
        || !CUDA_CALL(cuda, error, cuDeviceGetAttribute, &cuda->processors,
                      CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, cuda->device)
        || !CUDA_CALL(cuda, error, cuDeviceGetAttribute, &cuda->shared_bytes,
                      CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, cuda->device)
        || !CUDA_CALL(cuda, error, cuDeviceTotalMem_v2, &memory, cuda->device))
        return false;
    cuda->capability = 10 * major + minor;
    cuda->memory = (int64_t)memory;
    return true;
}

/* ordinal: -1: the first that is new enough. */
static bool choose_device(CudaDevice *cuda, int ordinal, Error *error)
{
    int count = 0;
    if (!CUDA_CALL(cuda, error, cuDeviceGetCount, &count))
        return false;
    if (count == 0)
        return fail(error, EXIT_ENVIRONMENT,
                    "nvidia-smi lists the GPUs; CUDA_VISIBLE_DEVICES can hide them",
                    "no GPU: the NVIDIA driver finds no device");
    if (ordinal >= count)
        return fail(error, EXIT_ENVIRONMENT, "devices are numbered from 0; nvidia-smi lists them",
                    "there is no cuda:%d: the NVIDIA driver finds %d device%s", ordinal, count,
                    count == 1 ? "" : "s");
    int first = ordinal < 0 ? 0 : ordinal, last = ordinal < 0 ? count - 1 : ordinal;
    for (int i = first; i <= last; i++) {
        if (!read_device(cuda, i, error))
            return false;
        if (cuda->capability >= OLDEST_CAPABILITY)
            return true;
    }
    return fail(error, EXIT_ENVIRONMENT, "use -d cpu", "%s is sm_%d: CUDA kernels need sm_%d or "
                "newer", cuda->name, cuda->capability, OLDEST_CAPABILITY);
}

/* ---- which precision ------------------------------------------------------------------------- */

static bool is_in_plan(const DeviceOptions *options, const char *precision)
{
    char target[16];
    snprintf(target, sizeof target, "cuda-%s", precision);
    return !options->plan || plan_target(options->plan, target);
}

/* As asked for; else the first that the plan has and the GPU can compute. */
static bool choose_precision(CudaDevice *cuda, Error *error)
{
    static const char *const precisions[] = { "tf32", "bf16", "fp32" };
    const DeviceOptions *options = &cuda->base.options;
    const char *asked = options->precision;
    bool known = false;
    for (int i = 0; i < 3; i++) {
        bool able = cuda->capability >= TENSOR_CAPABILITY || i == 2;
        if (asked ? strcmp(asked, precisions[i]) != 0 : !is_in_plan(options, precisions[i]))
            continue;
        known = true;
        if (!able)
            continue;
        cuda->precision = precisions[i];
        snprintf(cuda->target, sizeof cuda->target, "cuda-%s", precisions[i]);
        return true;
    }
    if (asked && !known)
        return fail(error, EXIT_USAGE, "it is one of fp32, tf32, bf16", "unknown precision '%s'",
                    asked);
    return fail(error, EXIT_ENVIRONMENT,
                is_in_plan(options, "fp32") ? "use --precision fp32"
                : "compile the model again with segc --target cuda --precision fp32",
                "%s is sm_%d: %s needs sm_%d or newer", cuda->name, cuda->capability,
                asked ? asked : "tf32 or bf16", TENSOR_CAPABILITY);
}

/* ---- what it can do at best ------------------------------------------------------------------ */

/* Operations of an SM in a clock, a multiply and its add as two. Source: the architectures' white
 * papers, dense matrices, sums in float32. */
static int operations_a_clock(int capability, const char *precision)
{
    int major = capability / 10;
    bool server = capability == 80 || major == 9 || major == 10 || major == 11;
    if (strcmp(precision, "fp32") == 0)
        return capability <= 80 ? 128 : 256;
    int tf32 = !server ? 256 : major == 8 ? 1024 : major == 9 ? 2048 : 4096;
    return strcmp(precision, "bf16") == 0 ? 2 * tf32 : tf32;
}

static bool ceiling(Device *device, DeviceCeiling *ceiling)
{
    CudaDevice *cuda = (CudaDevice *)device;
    int clock = 0, memory_clock = 0, width = 0;
    if (!CUDA_CALL(cuda, NULL, cuDeviceGetAttribute, &clock, CU_DEVICE_ATTRIBUTE_CLOCK_RATE,
                   cuda->device)
        || !CUDA_CALL(cuda, NULL, cuDeviceGetAttribute, &memory_clock,
                      CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, cuda->device)
        || !CUDA_CALL(cuda, NULL, cuDeviceGetAttribute, &width,
                      CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, cuda->device))
        return false;
    *ceiling = (DeviceCeiling){
        .flops = 1e3 * clock * cuda->processors
               * operations_a_clock(cuda->capability, cuda->precision),
        .bytes = 2e3 * memory_clock * width / 8,
    };
    return ceiling->flops > 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

static void close_cuda(Device *device)
{
    CudaDevice *cuda = (CudaDevice *)device;
    if (cuda->retained) {
        cuda->driver.cuCtxSetCurrent(cuda->context);
        if (cuda->compute)
            cuda->driver.cuStreamSynchronize(cuda->compute);
        cuda_transfers_close(cuda);
        cuda_blas_close(cuda);
        if (cuda->copy)
            cuda->driver.cuStreamDestroy_v2(cuda->copy);
        if (cuda->compute)
            cuda->driver.cuStreamDestroy_v2(cuda->compute);
        cuda->driver.cuDevicePrimaryCtxRelease_v2(cuda->device);
    }
    nvrtc_close(&cuda->nvrtc);
    cuda_driver_close(&cuda->driver);
    kernel_cache_close(&cuda->cache);
    free(cuda->winners);
    free(cuda);
}

static bool open_context(CudaDevice *cuda, Error *error)
{
    if (!CUDA_CALL(cuda, error, cuDevicePrimaryCtxRetain, &cuda->context, cuda->device))
        return false;
    cuda->retained = true;
    return cuda_enter(cuda, error)
        && CUDA_CALL(cuda, error, cuStreamCreate, &cuda->compute, CU_STREAM_NON_BLOCKING)
        && CUDA_CALL(cuda, error, cuStreamCreate, &cuda->copy, CU_STREAM_NON_BLOCKING)
        && cuda_transfers_open(cuda, error);
}

static void describe(CudaDevice *cuda)
{
    snprintf(cuda->base.description, sizeof cuda->base.description,
             "cuda: %s, %d SMs, %.1f GiB, %s, NVRTC %d.%d", cuda->name, cuda->processors,
             (double)cuda->memory / (1 << 30), cuda->precision, cuda->nvrtc.major,
             cuda->nvrtc.minor);
    if (cuda->base.options.verbose)
        cuda_say(cuda, "cuda   driver for CUDA %d.%d; %s builds for %s; kernels in %s",
                 cuda->driver.version / 1000, cuda->driver.version % 1000 / 10, cuda->nvrtc.path,
                 cuda->nvrtc.architecture, cuda->cache.folder);
}

Device *device_cuda_open(const DeviceOptions *options, int ordinal, Error *error)
{
    CudaDevice *cuda = calloc(1, sizeof *cuda);
    if (!cuda) {
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory for a device");
        return NULL;
    }
    const char *debug = getenv("SEG_DEBUG");
    cuda->debug = debug ? atoi(debug) : 0;
    snprintf(cuda->name, sizeof cuda->name, "cuda");
    cuda->base = (Device){
        .target = cuda->target, .scratch_copies = 0, .options = *options, .close = close_cuda,
        .build = cuda_build, .unload = cuda_unload, .available = cuda_available,
        .allocate = cuda_allocate, .release = cuda_release, .upload = cuda_upload,
        .feed = cuda_feed, .download = cuda_download, .run = cuda_run,
        .synchronise = cuda_synchronise, .wants_tuning = cuda_wants_tuning, .tune = cuda_tune,
        .ceiling = ceiling,
    };
    if (cuda_driver_open(&cuda->driver, error) && choose_device(cuda, ordinal, error)
        && choose_precision(cuda, error)
        && nvrtc_open(&cuda->nvrtc, cuda->capability, cuda->driver.version, error)
        && kernel_cache_open(&cuda->cache, options, error) && open_context(cuda, error)) {
        describe(cuda);
        cuda_tuning_read(cuda);
        return &cuda->base;
    }
    close_cuda(&cuda->base);
    return NULL;
}
