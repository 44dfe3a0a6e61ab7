/* Reading a plan file.
 *
 *     8 bytes   PLAN_MAGIC
 *     u32       PLAN_VERSION
 *     u32       0
 *     u64       length of the whole file
 *     u64       XXH64 of everything behind this head
 *     ...       records
 *
 * All numbers are little-endian. A string is a u32 length and its bytes; a list is a u32 count and
 * its records; a record is a u64 length and its fields, in the order of plan.h's structures (see
 * compiler/write.c). The checksum finds accidents. The checks behind it find everything else, so
 * that whoever runs a plan never looks at an offset again; the C in it is another matter (see
 * device_host.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "plan_reader.h"

enum { MAX_LIST = 4096, MAX_GROUP = 1 << 24 };
/* Of all kernels' texts in a target. */
static const int64_t MAX_TEXT_BYTES = (int64_t)256 << 20;
/* Of CUDA launches; a device may have less. */
enum { MAX_LAUNCHES = 64, MAX_THREADS = 1024, MAX_SHARED = 1 << 20 };

/* The product of dims and `bytes`; -1 where one is not positive or the product is too large. */
static int64_t dims_bytes(const int64_t *dims, int rank, int64_t bytes)
{
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 1 || dims[i] > PLAN_MAX_BYTES / bytes)
            return -1;
        bytes *= dims[i];
    }
    return bytes;
}

/* ---- names, ranges --------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void check_unique(Reader *reader, char **names, int n, const char *what)
{
    if (reader->failed)
        return;
    qsort(names, (size_t)n, sizeof *names, by_text);
    for (int i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            reader_wrong(reader, "two %s are named '%s'", what, names[i]);
}

typedef struct { const PlanParameter *parameter; int64_t begin, end; } Range;

static int by_begin(const void *a, const void *b)
{
    const Range *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static void check_parameters(Reader *reader, const Plan *plan)
{
    size_t n = (size_t)plan->n_parameters;
    Range *ranges = reader_allocate(reader, n, sizeof *ranges);
    char **names = reader_allocate(reader, n, sizeof *names);
    if (reader->failed)
        return;
    for (size_t i = 0; i < n; i++) {
        const PlanParameter *p = &plan->parameters[i];
        int64_t bytes = dims_bytes(p->dims, p->rank, sizeof(float));
        ranges[i] = (Range){ p, p->offset, p->offset + bytes };
        names[i] = p->name;
    }
    check_unique(reader, names, (int)n, "parameters");
    qsort(ranges, n, sizeof *ranges, by_begin);
    for (size_t i = 1; i < n; i++)
        if (ranges[i - 1].end > ranges[i].begin)
            reader_wrong(reader, "the parameters '%s' and '%s' overlap",
                         ranges[i - 1].parameter->name, ranges[i].parameter->name);
}

/* ---- records --------------------------------------------------------------------------------- */

enum { MAX_VALUES = 65536 };

static void read_values(Reader *reader, int64_t count, PlanParameter *p)
{
    if (count < 1 || count > MAX_VALUES) {
        reader_wrong(reader, "'%s' has initial values for an impossible shape", p->name);
        return;
    }
    p->values = reader_allocate(reader, (size_t)count, sizeof *p->values);
    for (int64_t i = 0; i < count && !reader->failed; i++)
        p->values[i] = read_f64(reader, "an initial value");
}

static void read_parameter(Reader *reader, const Plan *plan, PlanParameter *p)
{
    size_t outer = enter_record(reader);
    p->name = read_name(reader, "name");
    p->rank = (int)read_u32(reader);
    if (p->rank < 0 || p->rank > 4) {
        reader_wrong(reader, "'%s' has rank %d", p->name, p->rank);
        p->rank = 0;
    }
    for (int i = 0; i < p->rank; i++)
        p->dims[i] = read_i64(reader);
    p->trainable = read_bool(reader);
    p->init = read_enum(reader, PLAN_INIT_VALUES + 1, "initial value");
    p->value = read_f64(reader, "its initial value");
    p->offset = read_size(reader, "the offset");
    int64_t bytes = dims_bytes(p->dims, p->rank, sizeof(float));
    if (p->init == PLAN_INIT_VALUES)
        read_values(reader, bytes / (int64_t)sizeof(float), p);
    leave_record(reader, outer);
    int64_t low = p->trainable ? 0 : plan->trainable_bytes;
    int64_t high = p->trainable ? plan->trainable_bytes : plan->parameter_bytes;
    if (bytes < 0)
        reader_wrong(reader, "'%s' has an impossible shape", p->name);
    else if (p->offset % PLAN_ALIGN || p->offset < low || p->offset > high
             || bytes > high - p->offset)
        reader_wrong(reader,
                     "'%s' (%lld bytes at %lld) lies outside bytes %lld to %lld of the "
                     "parameters, or not at a multiple of %d",
                     p->name, (long long)bytes, (long long)p->offset, (long long)low,
                     (long long)high,
                     PLAN_ALIGN);
}

/* Where buffers may lie in a program. */
typedef struct { int64_t bytes[SLAB_COUNT]; } Slabs;

static void read_buffer(Reader *reader, const Slabs *slabs, PlanBuffer *buffer)
{
    static const char *const names[] = { "parameters", "gradients", "moments", "sums of gradients",
                                         "average of the parameters", "fixed data",
                                         "activations" };
    buffer->slab = read_enum(reader, SLAB_COUNT, "slab");
    buffer->offset = read_i64(reader);
    buffer->bytes = read_i64(reader);
    int64_t slab = slabs->bytes[buffer->slab];
    if (buffer->offset < 0 || buffer->bytes < 0 || buffer->offset > slab
        || buffer->bytes > slab - buffer->offset)
        reader_wrong(reader, "a buffer (%lld bytes at %lld) lies outside the %lld bytes of the %s",
                     (long long)buffer->bytes, (long long)buffer->offset, (long long)slab,
                     names[buffer->slab]);
    else if (buffer->offset % PLAN_ALIGN)
        reader_wrong(reader, "a buffer lies at %lld, no multiple of %d", (long long)buffer->offset,
                     PLAN_ALIGN);
}

static void read_tensor(Reader *reader, const Slabs *slabs, PlanTensor *tensor)
{
    size_t outer = enter_record(reader);
    tensor->name = read_name(reader, "name");
    tensor->role = read_enum(reader, ROLE_UPDATE + 1, "role");
    tensor->type = read_enum(reader, PLAN_U8 + 1, "type");
    tensor->batched = read_bool(reader);
    for (int i = 0; i < 3; i++)
        tensor->dims[i] = read_i64(reader);
    read_buffer(reader, slabs, &tensor->buffer);
    leave_record(reader, outer);
    int64_t bytes = dims_bytes(tensor->dims, 3, tensor->type == PLAN_U8 ? 1 : sizeof(float));
    if (bytes < 0 || bytes > tensor->buffer.bytes)
        reader_wrong(reader, "'%s': its shape does not fit its %lld bytes", tensor->name,
                     (long long)tensor->buffer.bytes);
    else if (tensor->batched != (tensor->buffer.slab == SLAB_ACTIVATIONS))
        reader_wrong(reader, "'%s' lies in the wrong slab", tensor->name);
}

/* A kernel that may be called. */
static int check_kernel(Reader *reader, const PlanTarget *target, uint32_t kernel)
{
    if (kernel >= (uint32_t)target->n_kernels)
        reader_wrong(reader, "kernel %u of %d", kernel, target->n_kernels);
    else if (plan_kernel_is_library(&target->kernels[kernel]))
        reader_wrong(reader, "'%s' cannot be run", target->kernels[kernel].name);
    return reader->failed ? 0 : (int)kernel;
}

static void read_launch(Reader *reader, const PlanTarget *target, PlanLaunch *launch)
{
    launch->kernel = check_kernel(reader, target, read_u32(reader));
    uint32_t threads = read_u32(reader);
    launch->blocks = read_size(reader, "the number of blocks");
    launch->blocks_per_sample = read_size(reader, "the number of blocks a sample");
    launch->shared_bytes = read_size(reader, "the shared memory");
    launch->threads = (int)threads;
    if (threads < 1 || threads > MAX_THREADS)
        reader_wrong(reader, "a launch has %u threads a block", threads);
    else if (launch->blocks > INT32_MAX || launch->blocks_per_sample > INT32_MAX
             || launch->blocks + launch->blocks_per_sample == 0)
        reader_wrong(reader, "a launch has %lld blocks and %lld a sample",
                     (long long)launch->blocks, (long long)launch->blocks_per_sample);
    else if (launch->shared_bytes > MAX_SHARED)
        reader_wrong(reader, "a launch has %lld bytes of shared memory",
                     (long long)launch->shared_bytes);
}

/* Whether a matrix lies within a buffer, whatever the batch. Of rows and columns [0] are fixed and
 * [1] go with each sample. */
static bool matrix_fits(const PlanBuffer *buffer, const int64_t rows[2], const int64_t columns[2],
                        int64_t element_bytes)
{
    bool grows = rows[1] > 0 || columns[1] > 0;
    if (grows && (buffer->slab != SLAB_ACTIVATIONS || (rows[1] > 0 && columns[1] > 0)))
        return false;
    int64_t all_rows = rows[0] + rows[1], all_columns = columns[0] + columns[1];
    return all_rows > 0 && all_columns > 0
        && all_rows <= buffer->bytes / element_bytes / all_columns;
}

/* A product of matrices: see PLAN_MATMUL. */
static void check_matmul(Reader *reader, const PlanTarget *target, const PlanStep *step)
{
    const int64_t *s = step->sizes;
    bool complete = step->n_launches == 0 && step->n_buffers == 3 && step->n_scalars == 0
                 && step->n_sizes == MATMUL_SIZES;
    for (int i = 0; complete && i < MATMUL_SIZES; i++)
        complete = s[i] >= 0 && s[i] <= (i < MATMUL_A_TRANSPOSED ? INT32_MAX : 1);
    if (!complete) {
        reader_wrong(reader, "it is no product of matrices");
        return;
    }
    int64_t element = strcmp(target->name, "cuda-bf16") == 0 ? 2 : 4;
    const int64_t rows[] = { s[MATMUL_ROWS], s[MATMUL_ROWS_PER_SAMPLE] };
    const int64_t depth[] = { s[MATMUL_DEPTH], s[MATMUL_DEPTH_PER_SAMPLE] };
    const int64_t columns[] = { s[MATMUL_COLUMNS], 0 };
    if (!matrix_fits(&step->buffers[0], rows, depth, element)
        || !matrix_fits(&step->buffers[1], depth, columns, element)
        || !matrix_fits(&step->buffers[2], rows, columns, s[MATMUL_FLOAT_RESULT] ? 4 : element))
        reader_wrong(reader, "a matrix lies outside its buffer");
}

/* What only CUDA steps have, and what holds for those. */
static void read_launches(Reader *reader, const PlanTarget *target, PlanStep *step)
{
    bool cuda = strncmp(target->name, "cuda-", 5) == 0;
    step->n_launches = read_count(reader, "launches", 32, MAX_LAUNCHES);
    step->launches = reader_allocate(reader, (size_t)step->n_launches, sizeof *step->launches);
    for (int i = 0; i < step->n_launches && !reader->failed; i++)
        read_launch(reader, target, &step->launches[i]);
    if (reader->failed)
        return;
    if (cuda && strcmp(target->kernels[step->kernel].name, PLAN_MATMUL) == 0) {
        check_matmul(reader, target, step);
        return;
    }
    if ((step->n_launches > 0) != cuda)
        reader_wrong(reader, "a step of the target '%s' has %d launches", target->name,
                     step->n_launches);
    else if (cuda && step->launches[0].kernel != step->kernel)
        reader_wrong(reader, "its kernel is %d, its first launch's %d", step->kernel,
                     step->launches[0].kernel);
    else if (cuda && plan_arguments_bytes(step) > PLAN_CUDA_ARGUMENTS)
        reader_wrong(reader, "it has %lld bytes of arguments, %d can be given",
                     (long long)plan_arguments_bytes(step), PLAN_CUDA_ARGUMENTS);
    for (int i = 0; cuda && i < step->n_sizes; i++)
        if (step->sizes[i] < INT32_MIN || step->sizes[i] > INT32_MAX)
            reader_wrong(reader, "the size %lld does not fit 32 bits", (long long)step->sizes[i]);
}

static int read_group(Reader *reader)
{
    uint32_t group = read_u32(reader);
    if (group > MAX_GROUP && group != UINT32_MAX)
        reader_wrong(reader, "its group is %u", group);
    return reader->failed || group == UINT32_MAX ? -1 : (int)group;
}

/* Lines stand in the order in which nodes have them: `seen` counts those that one had. */
static void read_node(Reader *reader, Texts *lines, const Slabs *slabs, int index,
                      PlanNode *node)
{
    size_t outer = enter_record(reader);
    uint32_t line = read_u32(reader);
    if (line >= (uint32_t)lines->n || line > (uint32_t)lines->seen)
        reader_wrong(reader, "its line is %u of %d", line, lines->n);
    else
        node->line = lines->texts[line];
    lines->seen += line == (uint32_t)lines->seen;
    node->n_inputs = read_count(reader, "operands", 4, MAX_LIST);
    node->inputs = reader_allocate(reader, (size_t)node->n_inputs, sizeof *node->inputs);
    for (int i = 0; i < node->n_inputs && !reader->failed; i++) {
        int input = node->inputs[i] = (int)read_u32(reader);
        if (input < 0 || input >= index)
            reader_wrong(reader, "node %d is no operand of node %d", input, index);
    }
    node->group = read_group(reader);
    read_buffer(reader, slabs, &node->buffer);
    leave_record(reader, outer);
}

static void read_step(Reader *reader, const PlanTarget *target, const PlanProgram *program,
                      const Slabs *slabs, PlanStep *step)
{
    size_t outer = enter_record(reader);
    step->kernel = check_kernel(reader, target, read_u32(reader));
    step->label = read_string(reader, "label", true);
    step->n_buffers = read_count(reader, "buffers", 17, MAX_LIST);
    step->buffers = reader_allocate(reader, (size_t)step->n_buffers, sizeof *step->buffers);
    for (int i = 0; i < step->n_buffers && !reader->failed; i++)
        read_buffer(reader, slabs, &step->buffers[i]);
    step->n_sizes = read_count(reader, "sizes", 8, MAX_LIST);
    step->sizes = reader_allocate(reader, (size_t)step->n_sizes, sizeof *step->sizes);
    for (int i = 0; i < step->n_sizes && !reader->failed; i++)
        step->sizes[i] = read_i64(reader);
    step->n_scalars = read_count(reader, "scalars", 8, MAX_LIST);
    step->scalars = reader_allocate(reader, (size_t)step->n_scalars, sizeof *step->scalars);
    for (int i = 0; i < step->n_scalars && !reader->failed; i++)
        step->scalars[i] = read_f64(reader, "a scalar");
    step->group = read_group(reader);
    step->once = read_bool(reader);
    step->part = (PlanPart)read_enum(reader, PART_COUNT, "part");
    read_launches(reader, target, step);
    step->scratch = read_size(reader, "the scratch memory");
    step->flops = read_f64(reader, "the work");
    step->flops_per_sample = read_f64(reader, "the work");
    step->bytes = read_f64(reader, "the traffic");
    step->bytes_per_sample = read_f64(reader, "the traffic");
    leave_record(reader, outer);
    if (step->scratch > program->scratch_bytes)
        reader_wrong(reader, "it needs %lld bytes of scratch memory, the program has %lld",
                     (long long)step->scratch, (long long)program->scratch_bytes);
}

/* What a caller writes, and what it reads, go by name. */
static void check_tensor_names(Reader *reader, const PlanProgram *program)
{
    char **names = reader_allocate(reader, (size_t)program->n_tensors, sizeof *names);
    for (int results = 0; results < 2 && !reader->failed; results++) {
        int n = 0;
        for (int i = 0; i < program->n_tensors; i++) {
            const PlanTensor *tensor = &program->tensors[i];
            bool given = tensor->role == ROLE_INPUT || tensor->role == ROLE_TARGET;
            if (given != (results == 1))
                names[n++] = tensor->name;
        }
        check_unique(reader, names, n, results ? "results" : "inputs and targets");
    }
}

static void read_program(Reader *reader, const Plan *plan, Texts *lines,
                         const PlanTarget *target, PlanProgram *program)
{
    size_t outer = enter_record(reader);
    program->name = read_identifier(reader, "name");
    program->fixed_bytes = read_size(reader, "the size of the fixed data");
    program->sample_bytes = read_size(reader, "the size of the activations");
    program->scratch_bytes = read_size(reader, "the size of the scratch memory");
    program->keeps_once = read_bool(reader);
    Slabs slabs = { { [SLAB_PARAMETERS] = plan->parameter_bytes,
                      [SLAB_GRADIENTS] = plan->trainable_bytes,
                      [SLAB_MOMENTS] = 2 * plan->trainable_bytes,
                      [SLAB_SUMS] = plan->trainable_bytes,
                      [SLAB_AVERAGE] = plan->parameter_bytes,
                      [SLAB_FIXED] = program->fixed_bytes,
                      [SLAB_ACTIVATIONS] = program->sample_bytes } };
    program->n_tensors = read_count(reader, "tensors", 8, INT32_MAX);
    program->tensors =
        reader_allocate(reader, (size_t)program->n_tensors, sizeof *program->tensors);
    for (int i = 0; i < program->n_tensors && !reader->failed; i++) {
        reader_place(reader, "program '%s', tensor %d", program->name, i);
        read_tensor(reader, &slabs, &program->tensors[i]);
    }
    reader_place(reader, "program '%s'", program->name);
    check_tensor_names(reader, program);
    program->n_steps = read_count(reader, "steps", 8, INT32_MAX);
    program->steps = reader_allocate(reader, (size_t)program->n_steps, sizeof *program->steps);
    for (int i = 0; i < program->n_steps && !reader->failed; i++) {
        reader_place(reader, "program '%s', step %d", program->name, i);
        read_step(reader, target, program, &slabs, &program->steps[i]);
    }
    program->n_nodes = read_count(reader, "nodes", 8, INT32_MAX);
    program->nodes = reader_allocate(reader, (size_t)program->n_nodes, sizeof *program->nodes);
    for (int i = 0; i < program->n_nodes && !reader->failed; i++) {
        reader_place(reader, "program '%s', node %d", program->name, i);
        read_node(reader, lines, &slabs, i, &program->nodes[i]);
    }
    reader_place(reader, "program '%s'", program->name);
    leave_record(reader, outer);
}


/* `bytes`: of all texts so far. */
static void read_kernel(Reader *reader, const Texts *tails, int64_t *bytes, PlanKernel *kernel)
{
    size_t outer = enter_record(reader);
    kernel->name = read_identifier(reader, "name");
    kernel->header = read_string(reader, "header", false);
    char *body = read_string(reader, "body", false);
    uint32_t tail = read_u32(reader);
    char *library = read_string(reader, "library", false);
    leave_record(reader, outer);
    if (tail >= (uint32_t)tails->n)
        reader_wrong(reader, "its text ends with %u of %d texts", tail, tails->n);
    if (reader->failed)
        return;
    kernel->library = *library ? library : NULL;
    size_t front = strlen(body), rest = strlen(tails->texts[tail]);
    *bytes += (int64_t)(front + rest);
    if (*bytes > MAX_TEXT_BYTES) {
        reader_wrong(reader, "the kernels' texts have more than %lld bytes",
                     (long long)MAX_TEXT_BYTES);
        return;
    }
    kernel->body = reader_allocate(reader, front + rest + 1, 1);
    if (!reader->failed) {
        memcpy(kernel->body, body, front);
        memcpy(kernel->body + front, tails->texts[tail], rest + 1);
    }
}

static void check_libraries(Reader *reader, const PlanTarget *target)
{
    for (int i = 0; i < target->n_kernels && !reader->failed; i++) {
        const char *library = target->kernels[i].library;
        int found = library ? plan_kernel(target, library) : i;
        if (found < 0 || (library && !plan_kernel_is_library(&target->kernels[found])))
            reader_wrong(reader, "'%s' calls '%s', which is no library", target->kernels[i].name,
                         library);
    }
}

static void read_target(Reader *reader, const Plan *plan, Texts *lines, PlanTarget *target)
{
    size_t outer = enter_record(reader);
    target->name = read_word(reader, "name", PLAN_LETTERS "-"); /* "cuda-tf32" */
    target->prelude = read_string(reader, "prelude", false);
    const Texts tails = read_texts(reader);
    int64_t bytes = 0;
    target->n_kernels = read_count(reader, "kernels", 8, INT32_MAX);
    target->kernels = reader_allocate(reader, (size_t)target->n_kernels, sizeof *target->kernels);
    char **names = reader_allocate(reader, (size_t)target->n_kernels, sizeof *names);
    for (int i = 0; i < target->n_kernels && !reader->failed; i++) {
        reader_place(reader, "target '%s', kernel %d", target->name, i);
        read_kernel(reader, &tails, &bytes, &target->kernels[i]);
        names[i] = target->kernels[i].name;
    }
    reader_place(reader, "target '%s'", target->name);
    check_unique(reader, names, target->n_kernels, "kernels");
    check_libraries(reader, target);
    target->n_programs = read_count(reader, "programs", 8, 64);
    target->programs =
        reader_allocate(reader, (size_t)target->n_programs, sizeof *target->programs);
    for (int i = 0; i < target->n_programs && !reader->failed; i++) {
        reader_place(reader, "program %d", i);
        read_program(reader, plan, lines, target, &target->programs[i]);
        names = reader_allocate(reader, (size_t)i + 1, sizeof *names);
        for (int j = 0; j <= i && !reader->failed; j++)
            names[j] = target->programs[j].name;
        check_unique(reader, names, i + 1, "programs");
    }
    leave_record(reader, outer);
}

static void read_plan(Reader *reader, Plan *plan)
{
    reader_place(reader, "the model");
    size_t outer = enter_record(reader);
    plan->model = read_identifier(reader, "name");
    plan->path = read_string(reader, "path", true);
    plan->text = read_string(reader, "text", false);
    plan->options = read_string(reader, "options", false);
    plan->parameter_bytes = read_size(reader, "the size of the parameters");
    plan->trainable_bytes = read_size(reader, "the size of the trainable parameters");
    if (plan->trainable_bytes > plan->parameter_bytes || plan->trainable_bytes % PLAN_ALIGN)
        reader_wrong(reader, "%lld of %lld bytes of parameters are trainable",
                     (long long)plan->trainable_bytes, (long long)plan->parameter_bytes);
    leave_record(reader, outer);
    plan->n_parameters = read_count(reader, "parameters", 8, INT32_MAX);
    plan->parameters =
        reader_allocate(reader, (size_t)plan->n_parameters, sizeof *plan->parameters);
    for (int i = 0; i < plan->n_parameters && !reader->failed; i++) {
        reader_place(reader, "parameter %d", i);
        read_parameter(reader, plan, &plan->parameters[i]);
    }
    reader_place(reader, "the parameters");
    check_parameters(reader, plan);
    reader_place(reader, "the graphs");
    Texts lines = read_texts(reader);
    char **sorted = reader_allocate(reader, (size_t)lines.n, sizeof *sorted);
    if (lines.n && !reader->failed)
        memcpy(sorted, lines.texts, (size_t)lines.n * sizeof *sorted);
    check_unique(reader, sorted, lines.n, "lines");
    plan->n_targets = read_count(reader, "targets", 8, 64);
    plan->targets = reader_allocate(reader, (size_t)plan->n_targets, sizeof *plan->targets);
    for (int i = 0; i < plan->n_targets && !reader->failed; i++) {
        reader_place(reader, "target %d", i);
        read_target(reader, plan, &lines, &plan->targets[i]);
        for (int j = 0; j < i && !reader->failed; j++)
            if (strcmp(plan->targets[i].name, plan->targets[j].name) == 0)
                reader_wrong(reader, "two targets are named '%s'", plan->targets[i].name);
    }
    reader_place(reader, "the end");
    if (lines.seen != lines.n)
        reader_wrong(reader, "%d lines of graphs, nodes have %d", lines.n, lines.seen);
    if (reader->at != reader->end)
        reader_wrong(reader, "%zu bytes are left over", reader->end - reader->at);
}

/* ---- the file -------------------------------------------------------------------------------- */

static bool read_head(Reader *reader, size_t size)
{
    const char *path = reader->path;
    if (size < 8 || memcmp(reader->bytes, PLAN_MAGIC, 8) != 0)
        return fail(reader->error, EXIT_USER,
                    "name a file that segc wrote: segc MODEL.seg -o MODEL.plan", "%s: not a plan",
                    path);
    if (size < PLAN_HEAD_BYTES)
        return fail(reader->error, EXIT_USER, reader_again,
                    "%s: truncated: it ends at byte %zu, in its head", path, size);
    reader->at = 8;
    reader->end = PLAN_HEAD_BYTES;
    uint32_t version = read_u32(reader), zero = read_u32(reader);
    uint64_t length = read_bytes(reader, 8), checksum = read_bytes(reader, 8);
    if (version > PLAN_VERSION)
        return fail(reader->error, EXIT_USER,
                    "compile the model again with this version's segc, or "
                    "use a newer segrun",
                    "%s: made by a newer segc: plan version %u, this segrun reads %d",
                    path, version, PLAN_VERSION);
    if (version < 1 || zero != 0)
        return fail(reader->error, EXIT_USER, reader_again, "%s: damaged in its first 16 bytes",
                    path);
    if (version < PLAN_VERSION)
        return fail(reader->error, EXIT_USER, "compile the model again with segc",
                    "%s: made by an older segc: plan version %u, this segrun reads %d", path,
                    version, PLAN_VERSION);
    if (length != size)
        return fail(reader->error, EXIT_USER, reader_again,
                    size < length ? "%s: truncated: %zu of %llu bytes are there"
                                  : "%s: %zu bytes where there should be %llu",
                    path, size, (unsigned long long)length);
    if (XXH64(reader->bytes + PLAN_HEAD_BYTES, size - PLAN_HEAD_BYTES, 0) != checksum)
        return fail(reader->error, EXIT_USER, reader_again,
                    "%s: damaged: the checksum of bytes %d to %zu is wrong", path, PLAN_HEAD_BYTES,
                    size);
    return true;
}

Plan *plan_parse(const void *bytes, size_t size, const char *path, Error *error)
{
    Reader reader = { .bytes = bytes, .path = path, .error = error };
    if (!read_head(&reader, size))
        return NULL;
    reader.memory = calloc(1, sizeof *reader.memory);
    if (!reader.memory) {
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to read it", path);
        return NULL;
    }
    reader.bytes += PLAN_HEAD_BYTES;
    reader.at = 0;
    reader.end = size - PLAN_HEAD_BYTES;
    read_plan(&reader, &reader.memory->plan);
    if (!reader.failed) {
        char *name = reader_allocate(&reader, strlen(path) + 1, 1);
        if (!reader.failed)
            reader.memory->plan.file = strcpy(name, path);
    }
    if (reader.failed) {
        plan_close(&reader.memory->plan);
        return NULL;
    }
    return &reader.memory->plan;
}

Plan *plan_open(const char *path, Error *error)
{
    struct stat facts;
    size_t size;
    char *bytes = file_read(path, &size, error);
    if (!bytes)
        return NULL;
    Plan *plan = plan_parse(bytes, size, path, error);
    free(bytes);
    if (plan)
        plan->foreign = stat(path, &facts) != 0 || (facts.st_uid != geteuid() && facts.st_uid != 0);
    return plan;
}

void plan_close(Plan *plan)
{
    if (!plan)
        return;
    PlanMemory *memory = (PlanMemory *)plan;
    for (Block *block = memory->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(memory);
}
