/* A stand-in for libcuda.so.1, for tests without a GPU; the GPU is in stub_queue.c. What is used
 * wrongly (a call that is not allowed while a stream is recorded, too much shared memory) fails as
 * it does there. Real cubins are taken as well; their kernels do nothing.
 *
 *   STUB_DEVICES=1 STUB_CAPABILITY=90 STUB_DRIVER=13000 STUB_SHARED=232448
 *   STUB_UNLOADABLE=1          cubins are refused, as by a driver that is too old for them
 */
#include "stub_queue.h"

#define PROTOTYPE(name, parameters) CUresult name parameters;
CUDA_DRIVER_FUNCTIONS(PROTOTYPE)
int stub_live(char *text, size_t size);

static struct CUctx_st primary;
static __thread CUcontext current;
static struct CUfunc_st *functions[MAX_OBJECTS];
static int live_streams, live_events, live_modules, live_graphs, live_execs;
static int n_events;

/* Injected failures and dead contexts. */
#define BEGIN() \
    do { \
        CUresult failure_ = stub_failure(__func__); \
        if (failure_) { \
            stub_log("%s FAILS %d", __func__, failure_); \
            return failure_; \
        } \
        if (stub.dead) \
            return stub.dead; \
    } while (0)
#define BEGIN_IN_CONTEXT() \
    do { \
        BEGIN(); \
        if (!current) \
            return INVALID_CONTEXT; \
    } while (0)

int stub_live(char *text, size_t size)
{
    int memory = 0;
    for (int i = 0; i < MAX_OBJECTS; i++)
        memory += stub.memories[i].memory != NULL;
    snprintf(text, size,
             "%d contexts, %d pieces of memory, %d streams, %d events, %d modules, %d graphs, "
             "%d graphs to launch",
             primary.retained, memory, live_streams, live_events, live_modules, live_graphs,
             live_execs);
    return primary.retained + memory + live_streams + live_events + live_modules + live_graphs
         + live_execs;
}

/* ---- initialising, devices, contexts --------------------------------------------------------- */

CUresult cuInit(unsigned flags)
{
    CUresult failure = stub_failure(__func__);
    if (failure || flags)
        return failure;
    return stub_number("STUB_DEVICES", 1) == 0 ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version)
{
    *version = (int)stub_number("STUB_DRIVER", 13000);
    return stub_failure(__func__);
}

CUresult cuGetErrorName(CUresult result, const char **name)
{
    *name = result == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
          : result == CUDA_ERROR_ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS"
          : result == CUDA_ERROR_NO_BINARY_FOR_GPU ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
          : result == INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE" : NULL;
    return *name ? CUDA_SUCCESS : INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult result, const char **text)
{
    *text = result == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : NULL;
    return *text ? CUDA_SUCCESS : INVALID_VALUE;
}

CUresult cuDeviceGetCount(int *count)
{
    BEGIN();
    *count = (int)stub_number("STUB_DEVICES", 1);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    BEGIN();
    *device = ordinal;
    return ordinal < stub_number("STUB_DEVICES", 1) ? CUDA_SUCCESS : INVALID_VALUE;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    BEGIN();
    snprintf(name, (size_t)length, "Stub %d", device);
    return CUDA_SUCCESS;
}

/* The device 1 is an old one. */
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    BEGIN();
    int capability = device == 1 ? 61 : (int)stub_number("STUB_CAPABILITY", 90);
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = capability / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = capability % 10; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1980000; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 2619000; break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 5120; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
        *value = (int)stub_number("STUB_SHARED", 232448);
        break;
    default: return INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    BEGIN();
    (void)device;
    *bytes = (size_t)stub_number("STUB_MEMORY", 1 << 30);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    BEGIN();
    stub_log("cuDevicePrimaryCtxRetain %d", device);
    primary.retained++;
    *context = &primary;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    stub_log("cuDevicePrimaryCtxRelease %d", device);
    if (--primary.retained == 0)
        stub.dead = CUDA_SUCCESS;
    current = NULL;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    BEGIN();
    current = context;
    return context == &primary && primary.retained ? CUDA_SUCCESS : INVALID_CONTEXT;
}

/* ---- modules --------------------------------------------------------------------------------- */

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    BEGIN_IN_CONTEXT();
    bool real = memcmp(image, "\177ELF", 4) == 0;
    if (!real && strncmp(image, "STUB CUBIN", 10) != 0)
        return CUDA_ERROR_INVALID_IMAGE;
    if (stub_number("STUB_UNLOADABLE", 0))
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    *module = calloc(1, sizeof **module);
    (*module)->text = strdup(real ? "" : image);
    live_modules++;
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module)
{
    for (int i = 0; i < MAX_OBJECTS; i++)
        if (functions[i] && functions[i]->module == module) {
            free(functions[i]);
            functions[i] = NULL;
        }
    free(module->text);
    free(module);
    live_modules--;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    BEGIN_IN_CONTEXT();
    if (*module->text && !strstr(module->text, name))
        return NOT_FOUND;
    for (int i = 0; i < MAX_OBJECTS; i++) {
        if (functions[i])
            continue;
        *function = functions[i] = calloc(1, sizeof **functions);
        (*function)->module = module;
        (*function)->shared = 48 << 10;
        snprintf((*function)->name, sizeof (*function)->name, "%s", name);
        stub_log("cuModuleGetFunction %s", name);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction function)
{
    BEGIN_IN_CONTEXT();
    (void)function;
    *value = attribute == CU_FUNC_ATTRIBUTE_NUM_REGS ? 40 : 0;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value)
{
    BEGIN_IN_CONTEXT();
    stub_log("cuFuncSetAttribute %s %d %d", function->name, attribute, value);
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        || value > stub_number("STUB_SHARED", 232448))
        return INVALID_VALUE;
    function->shared = value;
    return CUDA_SUCCESS;
}

/* ---- memory and copies ----------------------------------------------------------------------- */

CUresult cuMemGetInfo_v2(size_t *available, size_t *total)
{
    BEGIN_IN_CONTEXT();
    *total = *available = (size_t)stub_number("STUB_MEMORY", 1 << 30);
    for (int i = 0; i < MAX_OBJECTS; i++)
        if (stub.memories[i].memory && !stub.memories[i].pinned)
            *available -= stub.memories[i].bytes;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *memory, size_t bytes)
{
    BEGIN_IN_CONTEXT();
    if (stub_is_recording())
        return CAPTURE_UNSUPPORTED;
    void *data = NULL;
    CUresult result = stub_allocate(&data, bytes, false);
    *memory = (CUdeviceptr)(uintptr_t)data;
    return result;
}

CUresult cuMemFree_v2(CUdeviceptr memory)
{
    stub_run_everything();
    return stub_release((void *)(uintptr_t)memory, false);
}

CUresult cuMemAllocHost_v2(void **memory, size_t bytes)
{
    BEGIN_IN_CONTEXT();
    return stub_is_recording() ? CAPTURE_UNSUPPORTED : stub_allocate(memory, bytes, true);
}

CUresult cuMemFreeHost(void *memory)
{
    stub_run_everything();
    return stub_release(memory, true);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream)
{
    BEGIN_IN_CONTEXT();
    return stub_push(stream, (Op){ OP_SET, .to = (char *)(uintptr_t)to, .bytes = bytes,
                                   .value = value, .to_device = true });
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    BEGIN_IN_CONTEXT();
    char at[32];
    stub_log("s%d upload %zu to %s", stream->number, bytes, stub_place((void *)(uintptr_t)to, at));
    return stub_push(stream, (Op){ OP_COPY, .to = (char *)(uintptr_t)to, .from = from,
                                   .bytes = bytes, .to_device = true });
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    BEGIN_IN_CONTEXT();
    char at[32];
    stub_log("s%d download %zu from %s", stream->number, bytes,
             stub_place((void *)(uintptr_t)from, at));
    return stub_push(stream, (Op){ OP_COPY, .to = to, .from = (char *)(uintptr_t)from,
                                   .bytes = bytes, .from_device = true });
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    BEGIN_IN_CONTEXT();
    char a[32], b[32];
    stub_log("s%d move %zu from %s to %s", stream->number, bytes,
             stub_place((void *)(uintptr_t)from, a), stub_place((void *)(uintptr_t)to, b));
    return stub_push(stream, (Op){ OP_COPY, .to = (char *)(uintptr_t)to, .bytes = bytes,
                                   .from = (char *)(uintptr_t)from, .to_device = true,
                                   .from_device = true });
}

/* ---- streams, events ------------------------------------------------------------------------- */

CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    BEGIN_IN_CONTEXT();
    int slot = 0;
    while (slot < MAX_STREAMS && stub.streams[slot])
        slot++;
    if (slot == MAX_STREAMS || flags != CU_STREAM_NON_BLOCKING)
        return INVALID_VALUE;
    *stream = stub.streams[slot] = calloc(1, sizeof **stream);
    (*stream)->number = slot + 1;
    live_streams++;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    stub_run_until(stream, stream->n_ops);
    stub.streams[stream->number - 1] = NULL;
    free(stream->ops);
    free(stream);
    live_streams--;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    BEGIN_IN_CONTEXT();
    if (stream->recording)
        return CAPTURE_UNSUPPORTED;
    stub_log("s%d synchronise", stream->number);
    stub_run_until(stream, stream->n_ops);
    return stub.dead;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    BEGIN_IN_CONTEXT();
    (void)flags;
    stub_log("s%d wait e%d", stream->number, event->number);
    return stub_push(stream, (Op){ event->stream ? OP_WAIT : OP_NOTHING, .stream = event->stream,
                              .until = event->until });
}

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    BEGIN_IN_CONTEXT();
    (void)flags;
    *event = calloc(1, sizeof **event);
    (*event)->number = ++n_events;
    live_events++;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event)
{
    stub_run_everything();
    free(event);
    live_events--;
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    BEGIN_IN_CONTEXT();
    stub_log("s%d event e%d", stream->number, event->number);
    CUresult result = stub_push(stream, (Op){ OP_RECORD, .event = event });
    event->stream = stream;
    event->until = stream->n_ops;
    return result;
}

CUresult cuEventSynchronize(CUevent event)
{
    BEGIN_IN_CONTEXT();
    if (stub_is_recording())
        return CAPTURE_UNSUPPORTED;
    if (event->stream)
        stub_run_until(event->stream, event->until);
    return stub.dead;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent first, CUevent last)
{
    BEGIN_IN_CONTEXT();
    if (!first->stream || !last->stream || first->stream->n_done < first->until
        || last->stream->n_done < last->until)
        return INVALID_VALUE;
    *milliseconds = (float)(last->time - first->time);
    return CUDA_SUCCESS;
}

/* ---- launches, graphs ------------------------------------------------------------------------ */

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z,
                        unsigned shared_bytes, CUstream stream, void **parameters, void **extra)
{
    BEGIN_IN_CONTEXT();
    if (grid_x == 0 || grid_y != 1 || grid_z != 1 || block_x == 0 || block_x > 1024 || block_y != 1
        || block_z != 1 || !parameters || extra || shared_bytes > (unsigned)function->shared)
        return INVALID_VALUE;
    char *arguments = malloc(MAX_ARGUMENTS);
    memcpy(arguments, parameters[0], MAX_ARGUMENTS);
    stub_log_launch(function, grid_x, block_x, shared_bytes, arguments, stream->recording != NULL);
    return stub_push(stream, (Op){ OP_KERNEL, .function = function,
                                   .arguments = arguments });
}

CUresult cuStreamBeginCapture_v2(CUstream stream, int mode)
{
    BEGIN_IN_CONTEXT();
    if (mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL || stream->recording)
        return INVALID_VALUE;
    stream->recording = calloc(1, sizeof *stream->recording);
    live_graphs++;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    CUresult failure = stub_failure(__func__);
    if (failure) { /* the recording is lost */
        cuGraphDestroy(stream->recording);
        stream->recording = NULL;
        return failure;
    }
    *graph = stream->recording;
    stream->recording = NULL;
    return *graph ? CUDA_SUCCESS : INVALID_VALUE;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    BEGIN_IN_CONTEXT();
    (void)flags;
    *exec = calloc(1, sizeof **exec);
    (*exec)->ops = calloc((size_t)graph->n_ops + 1, sizeof(Op));
    (*exec)->n_ops = graph->n_ops;
    for (int i = 0; i < graph->n_ops; i++) {
        (*exec)->ops[i] = graph->ops[i];
        (*exec)->ops[i].arguments = malloc(MAX_ARGUMENTS);
        memcpy((*exec)->ops[i].arguments, graph->ops[i].arguments, MAX_ARGUMENTS);
    }
    stub_log("cuGraphInstantiate %d", graph->n_ops);
    live_execs++;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph)
{
    stub_free_ops(graph->ops, graph->n_ops);
    free(graph);
    live_graphs--;
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    stub_run_everything();
    stub_free_ops(exec->ops, exec->n_ops);
    free(exec);
    live_execs--;
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    BEGIN_IN_CONTEXT();
    stub_log("s%d cuGraphLaunch %d", stream->number, exec->n_ops);
    return stub_push(stream, (Op){ OP_GRAPH, .graph = exec });
}
