/* Device memory is the host's. Streams are queues, and nothing in them is done before somebody
 * waits for it: whoever reads a result too early, or overwrites what is still to be copied, gets
 * wrong numbers. Kernels do what their text says, see `run_kernel`. A clock of its own counts their
 * costs; events read it. Memory that is not allocated is an illegal address, and kills the device.
 *
 *   STUB_MEMORY=1073741824     bytes of the device
 */
#include "stub_queue.h"

Stub stub;

/* ---- memory ---------------------------------------------------------------------------------- */

static const Memory *find_memory(const void *at, size_t bytes, bool pinned)
{
    for (int i = 0; i < MAX_OBJECTS; i++) {
        const Memory *m = &stub.memories[i];
        if (m->memory && m->pinned == pinned && (const char *)at >= m->memory
            && (const char *)at + bytes <= m->memory + m->bytes)
            return m;
    }
    return NULL;
}

/* "m3+128" */
const char *stub_place(const void *at, char text[32])
{
    const Memory *m = find_memory(at, 0, false);
    if (m)
        snprintf(text, 32, "m%d+%ld", m->number, (long)((const char *)at - m->memory));
    else
        snprintf(text, 32, "nowhere");
    return text;
}

CUresult stub_allocate(void **memory, size_t bytes, bool pinned)
{
    size_t used = bytes;
    int slot = -1;
    for (int i = 0; i < MAX_OBJECTS; i++) {
        if (!stub.memories[i].memory)
            slot = i;
        else if (!stub.memories[i].pinned)
            used += stub.memories[i].bytes;
    }
    if (bytes == 0)
        return INVALID_VALUE;
    if (slot < 0 || (!pinned && used > (size_t)stub_number("STUB_MEMORY", 1 << 30)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    char *data = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!data)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memset(data, 0xcd, bytes);
    stub.memories[slot] = (Memory){ data, bytes, pinned, ++stub.n_memories };
    stub_log("%s m%d %zu", pinned ? "cuMemAllocHost" : "cuMemAlloc", stub.n_memories, bytes);
    *memory = data;
    return CUDA_SUCCESS;
}

CUresult stub_release(void *memory, bool pinned)
{
    for (int i = 0; i < MAX_OBJECTS; i++)
        if (stub.memories[i].memory == memory && stub.memories[i].pinned == pinned) {
            stub_log("%s m%d", pinned ? "cuMemFreeHost" : "cuMemFree", stub.memories[i].number);
            free(stub.memories[i].memory);
            stub.memories[i] = (Memory){ 0 };
            return CUDA_SUCCESS;
        }
    return INVALID_VALUE;
}

/* ---- kernels --------------------------------------------------------------------------------- */

/* The number behind `word` in the kernel's text. */
static int fact(const CUfunction function, const char *word, int standard)
{
    const char *found = strstr(function->module->text, word);
    return found ? atoi(found + strlen(word)) : standard;
}

typedef struct {
    int n_buffers, n_scalars, n_sizes;
    char *const *buffers;
    const double *scalars;
    const int *sizes;
    int batch;
} Arguments;

static Arguments unpack(const CUfunction function, const char *arguments)
{
    Arguments a = { .n_buffers = fact(function, "stub buffers ", 0),
                    .n_scalars = fact(function, "stub scalars ", 0),
                    .n_sizes = fact(function, "stub sizes ", 0) };
    a.buffers = (char *const *)arguments;
    a.scalars = (const double *)(arguments + 8 * a.n_buffers);
    a.sizes = (const int *)(arguments + 8 * (a.n_buffers + a.n_scalars));
    a.batch = a.sizes[a.n_sizes];
    return a;
}

/* `stub add`: the first size times the batch floats of the last buffer become those of the one
 * before it, plus the first scalar. `stub count`: the first float of the last buffer is one more.
 * `stub crash`: an illegal address. */
static CUresult run_kernel(const Op *op)
{
    Arguments a = unpack(op->function, op->arguments);
    const char *text = op->function->module->text;
    stub.now += 1e-3 * fact(op->function, "stub microseconds ", 1);
    for (int i = 0; i < a.n_buffers; i++)
        if (!find_memory(a.buffers[i], 1, false))
            return CUDA_ERROR_ILLEGAL_ADDRESS;
    if (strstr(text, "stub crash"))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    if (strstr(text, "stub count"))
        ((float *)a.buffers[a.n_buffers - 1])[0] += 1;
    if (!strstr(text, "stub add"))
        return CUDA_SUCCESS;
    size_t n = (size_t)a.sizes[0] * (size_t)a.batch;
    float *to = (float *)a.buffers[a.n_buffers - 1];
    const float *from = (const float *)a.buffers[a.n_buffers - 2];
    if (!find_memory(to, 4 * n, false) || !find_memory(from, 4 * n, false))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    for (size_t i = 0; i < n; i++)
        to[i] = from[i] + (float)a.scalars[0];
    return CUDA_SUCCESS;
}

void stub_log_launch(const CUfunction function, unsigned blocks, unsigned threads,
                       unsigned shared, const char *arguments, bool recorded)
{
    Arguments a = unpack(function, arguments);
    char text[1024] = "", at[32];
    for (int i = 0; i < a.n_buffers; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %s",
                 stub_place(a.buffers[i], at));
    for (int i = 0; i < a.n_scalars; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %g", a.scalars[i]);
    for (int i = 0; i < a.n_sizes; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %d", a.sizes[i]);
    stub_log("%s %s <<<%u, %u, %u>>>%s N=%d", recorded ? "record" : "launch", function->name,
             blocks, threads, shared, text, a.batch);
}

/* ---- queues ---------------------------------------------------------------------------------- */

static void run_op(const Op *op)
{
    CUresult result = CUDA_SUCCESS;
    switch (op->kind) {
    case OP_NOTHING:
        break;
    case OP_SET:
    case OP_COPY:
        stub.now += 1e-3;
        if (!find_memory(op->to, op->bytes, !op->to_device)
            || (op->kind == OP_COPY && !find_memory(op->from, op->bytes, !op->from_device)))
            result = CUDA_ERROR_ILLEGAL_ADDRESS;
        else if (op->kind == OP_SET)
            memset(op->to, op->value, op->bytes);
        else
            memmove(op->to, op->from, op->bytes);
        break;
    case OP_KERNEL:
        stub_log("run %s", op->function->name);
        result = run_kernel(op);
        break;
    case OP_GRAPH:
        for (int i = 0; i < op->graph->n_ops; i++)
            run_op(&op->graph->ops[i]);
        break;
    case OP_RECORD:
        op->event->time = stub.now;
        break;
    case OP_WAIT:
        stub_run_until(op->stream, op->until);
        break;
    }
    if (result != CUDA_SUCCESS && !stub.dead)
        stub.dead = result;
}

void stub_run_until(CUstream stream, long end)
{
    while (stream->n_done < end) {
        Op op = stream->ops[stream->n_done++ - stream->first]; /* waits may come back here */
        if (!stub.dead)
            run_op(&op);
        free(op.arguments);
    }
}

void stub_run_everything(void)
{
    for (int i = 0; i < 8; i++)
        if (stub.streams[i])
            stub_run_until(stub.streams[i], stub.streams[i]->n_ops);
}

bool stub_is_recording(void)
{
    for (int i = 0; i < 8; i++)
        if (stub.streams[i] && stub.streams[i]->recording)
            return true;
    return false;
}

CUresult stub_push(CUstream stream, Op op)
{
    if (stream->recording) {
        CUgraph graph = stream->recording;
        if (op.kind != OP_KERNEL)
            return CAPTURE_UNSUPPORTED;
        graph->ops = realloc(graph->ops, (size_t)(graph->n_ops + 1) * sizeof op);
        graph->ops[graph->n_ops++] = op;
        return CUDA_SUCCESS;
    }
    if (stream->n_done == stream->n_ops)
        stream->first = stream->n_ops;
    if (stream->n_ops - stream->first == stream->capacity) {
        stream->capacity = 2 * stream->capacity + 64;
        stream->ops = realloc(stream->ops, (size_t)stream->capacity * sizeof op);
    }
    stream->ops[stream->n_ops++ - stream->first] = op;
    return CUDA_SUCCESS;
}

void stub_free_ops(Op *ops, int n)
{
    for (int i = 0; i < n; i++)
        free(ops[i].arguments);
    free(ops);
}
