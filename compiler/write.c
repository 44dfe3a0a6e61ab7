/* Writing a plan file; runtime/plan.c reads it and describes its head.
 *
 * Everything is appended to one growing text of bytes, numbers little-endian whatever the machine.
 * A record starts with room for its length, which is filled in when it ends; the file's length and
 * checksum are filled in last.
 */
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "../runtime/files.h"
#include "seg.h"

enum { HEAD_BYTES = 32 };

typedef struct { unsigned char *bytes; size_t length, capacity; } Bytes;

/* The graphs' lines, each once: programs and targets have many in common. */
typedef struct { const char **texts; int n; int *slots; size_t n_slots; } Lines;

static void append(Bytes *out, const void *bytes, size_t length)
{
    if (out->capacity - out->length < length) {
        out->capacity = 2 * (out->capacity + length) + 4096;
        out->bytes = realloc(out->bytes, out->capacity);
        if (!out->bytes)
            bug("write: not enough memory for the plan");
    }
    if (length)
        memcpy(out->bytes + out->length, bytes, length);
    out->length += length;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static void store_u64(unsigned char *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static void put(Bytes *out, uint64_t value, size_t bytes)
{
    unsigned char text[8];
    store_u64(text, value);
    append(out, text, bytes);
}

static void put_u8(Bytes *out, unsigned value) { put(out, value, 1); }
static void put_u32(Bytes *out, int64_t value) { put(out, (uint64_t)value, 4); }
static void put_i64(Bytes *out, int64_t value) { put(out, (uint64_t)value, 8); }

static void put_f64(Bytes *out, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(out, bits, 8);
}

static void put_string(Bytes *out, const char *text)
{
    size_t length = text ? strlen(text) : 0;
    put_u32(out, (int64_t)length);
    append(out, text, length);
}

static size_t begin_record(Bytes *out)
{
    put_i64(out, 0);
    return out->length;
}

static void end_record(Bytes *out, size_t begin)
{
    store_u64(out->bytes + begin - 8, out->length - begin);
}

/* ---- records --------------------------------------------------------------------------------- */

static void put_parameter(Bytes *out, const PlanParameter *p)
{
    size_t record = begin_record(out);
    put_string(out, p->name);
    put_u32(out, p->rank);
    for (int i = 0; i < p->rank; i++)
        put_i64(out, p->dims[i]);
    put_u8(out, p->trainable);
    put_u8(out, p->init);
    put_f64(out, p->value);
    put_i64(out, p->offset);
    int64_t count = p->init == PLAN_INIT_VALUES ? 1 : 0;
    for (int i = 0; i < p->rank; i++)
        count *= p->dims[i];
    for (int64_t i = 0; i < count; i++)
        put_f64(out, p->values[i]);
    end_record(out, record);
}

static void put_buffer(Bytes *out, const PlanBuffer *buffer)
{
    put_u8(out, buffer->slab);
    put_i64(out, buffer->offset);
    put_i64(out, buffer->bytes);
}

static void put_tensor(Bytes *out, const PlanTensor *tensor)
{
    size_t record = begin_record(out);
    put_string(out, tensor->name);
    put_u8(out, tensor->role);
    put_u8(out, tensor->type);
    put_u8(out, tensor->batched);
    for (int i = 0; i < 3; i++)
        put_i64(out, tensor->dims[i]);
    put_buffer(out, &tensor->buffer);
    end_record(out, record);
}

static void put_step(Bytes *out, const PlanStep *step)
{
    size_t record = begin_record(out);
    put_u32(out, step->kernel);
    put_string(out, step->label);
    put_u32(out, step->n_buffers);
    for (int i = 0; i < step->n_buffers; i++)
        put_buffer(out, &step->buffers[i]);
    put_u32(out, step->n_sizes);
    for (int i = 0; i < step->n_sizes; i++)
        put_i64(out, step->sizes[i]);
    put_u32(out, step->n_scalars);
    for (int i = 0; i < step->n_scalars; i++)
        put_f64(out, step->scalars[i]);
    put_u32(out, step->group);
    put_u8(out, step->once);
    put_u8(out, step->part);
    put_u32(out, step->n_launches);
    for (int i = 0; i < step->n_launches; i++) {
        put_u32(out, step->launches[i].kernel);
        put_u32(out, step->launches[i].threads);
        put_i64(out, step->launches[i].blocks);
        put_i64(out, step->launches[i].blocks_per_sample);
        put_i64(out, step->launches[i].shared_bytes);
    }
    put_i64(out, step->scratch);
    put_f64(out, step->flops);
    put_f64(out, step->flops_per_sample);
    put_f64(out, step->bytes);
    put_f64(out, step->bytes_per_sample);
    end_record(out, record);
}

/* Its number, given to it where it is new. */
static int line_number(Lines *lines, const char *text)
{
    size_t slot = XXH64(text, strlen(text), 0) & (lines->n_slots - 1);
    while (lines->slots[slot] && strcmp(lines->texts[lines->slots[slot] - 1], text) != 0)
        slot = (slot + 1) & (lines->n_slots - 1);
    if (!lines->slots[slot]) {
        lines->texts[lines->n++] = text;
        lines->slots[slot] = lines->n;
    }
    return lines->slots[slot] - 1;
}

static void put_node(Bytes *out, Lines *lines, const PlanNode *node)
{
    size_t record = begin_record(out);
    put_u32(out, line_number(lines, node->line));
    put_u32(out, node->n_inputs);
    for (int i = 0; i < node->n_inputs; i++)
        put_u32(out, node->inputs[i]);
    put_u32(out, node->group);
    put_buffer(out, &node->buffer);
    end_record(out, record);
}

static void put_program(Bytes *out, Lines *lines, const PlanProgram *program)
{
    size_t record = begin_record(out);
    put_string(out, program->name);
    put_i64(out, program->fixed_bytes);
    put_i64(out, program->sample_bytes);
    put_i64(out, program->scratch_bytes);
    put_u8(out, program->keeps_once);
    put_u32(out, program->n_tensors);
    for (int i = 0; i < program->n_tensors; i++)
        put_tensor(out, &program->tensors[i]);
    put_u32(out, program->n_steps);
    for (int i = 0; i < program->n_steps; i++)
        put_step(out, &program->steps[i]);
    put_u32(out, program->n_nodes);
    for (int i = 0; i < program->n_nodes; i++)
        put_node(out, lines, &program->nodes[i]);
    end_record(out, record);
}

/* What kernels end with, each text once; tails[i] is that of kernel i. Returns how many. */
static int list_tails(const PlanTarget *target, const char **texts, int *tails)
{
    int n = 1;
    texts[0] = "";
    for (int i = 0; i < target->n_kernels; i++) {
        const char *tail = target->kernels[i].tail ? target->kernels[i].tail : "";
        for (tails[i] = 0; tails[i] < n && strcmp(texts[tails[i]], tail) != 0; )
            tails[i]++;
        if (tails[i] == n)
            texts[n++] = tail;
    }
    return n;
}

static void put_kernels(Bytes *out, const PlanTarget *target)
{
    size_t n = (size_t)target->n_kernels + 1;
    const char **texts = calloc(n, sizeof *texts);
    int *tails = calloc(n, sizeof *tails);
    if (!texts || !tails)
        bug("write: not enough memory for the plan");
    int n_texts = list_tails(target, texts, tails);
    put_u32(out, n_texts);
    for (int i = 0; i < n_texts; i++)
        put_string(out, texts[i]);
    put_u32(out, target->n_kernels);
    for (int i = 0; i < target->n_kernels; i++) {
        const PlanKernel *kernel = &target->kernels[i];
        size_t front = strlen(kernel->body) - strlen(texts[tails[i]]), record = begin_record(out);
        put_string(out, kernel->name);
        put_string(out, kernel->header);
        put_u32(out, (int64_t)front);
        append(out, kernel->body, front);
        put_u32(out, tails[i]);
        put_string(out, kernel->library ? kernel->library : "");
        end_record(out, record);
    }
    free(texts);
    free(tails);
}

static void put_target(Bytes *out, Lines *lines, const PlanTarget *target)
{
    size_t record = begin_record(out);
    put_string(out, target->name);
    put_string(out, target->prelude);
    put_kernels(out, target);
    put_u32(out, target->n_programs);
    for (int i = 0; i < target->n_programs; i++)
        put_program(out, lines, &target->programs[i]);
    end_record(out, record);
}

/* All that the plan has; none has a number yet. */
static Lines lines_make(const Plan *plan)
{
    size_t n = 1;
    for (int t = 0; t < plan->n_targets; t++)
        for (int p = 0; p < plan->targets[t].n_programs; p++)
            n += (size_t)plan->targets[t].programs[p].n_nodes;
    Lines lines = { .texts = calloc(n, sizeof *lines.texts), .n_slots = 2 };
    while (lines.n_slots < 2 * n)
        lines.n_slots *= 2;
    lines.slots = calloc(lines.n_slots, sizeof *lines.slots);
    if (!lines.texts || !lines.slots)
        bug("write: not enough memory for the plan");
    return lines;
}

static void put_lines(Bytes *out, Lines *lines, const Plan *plan)
{
    for (int t = 0; t < plan->n_targets; t++)
        for (int p = 0; p < plan->targets[t].n_programs; p++) {
            const PlanProgram *program = &plan->targets[t].programs[p];
            for (int i = 0; i < program->n_nodes; i++)
                line_number(lines, program->nodes[i].line);
        }
    put_u32(out, lines->n);
    for (int i = 0; i < lines->n; i++)
        put_string(out, lines->texts[i]);
}

void *plan_bytes_make(const Plan *plan, size_t *size)
{
    Bytes out = { 0 };
    Lines lines = lines_make(plan);
    append(&out, PLAN_MAGIC, 8);
    put_u32(&out, PLAN_VERSION);
    put_u32(&out, 0);
    put_i64(&out, 0); /* length and checksum: below */
    put_i64(&out, 0);
    size_t model = begin_record(&out);
    put_string(&out, plan->model);
    put_string(&out, plan->path);
    put_string(&out, plan->text);
    put_string(&out, plan->options);
    put_i64(&out, plan->parameter_bytes);
    put_i64(&out, plan->trainable_bytes);
    end_record(&out, model);
    put_u32(&out, plan->n_parameters);
    for (int i = 0; i < plan->n_parameters; i++)
        put_parameter(&out, &plan->parameters[i]);
    put_lines(&out, &lines, plan);
    put_u32(&out, plan->n_targets);
    for (int i = 0; i < plan->n_targets; i++)
        put_target(&out, &lines, &plan->targets[i]);
    free(lines.texts);
    free(lines.slots);
    store_u64(out.bytes + 16, out.length);
    store_u64(out.bytes + 24, XXH64(out.bytes + HEAD_BYTES, out.length - HEAD_BYTES, 0));
    *size = out.length;
    return out.bytes;
}

bool write_file(Compilation *c, const char *path, const void *bytes, size_t size)
{
    Error error;
    if (file_write(path, bytes, size, &error))
        return true;
    error_system(c, error.hint[0] ? error.hint : "name another file", "%s", error.text);
    return false;
}

bool write_plan(Compilation *c, const Plan *plan, const char *path)
{
    size_t size;
    void *bytes = plan_bytes_make(plan, &size);
    bool done = write_file(c, path, bytes, size);
    free(bytes);
    return done;
}
