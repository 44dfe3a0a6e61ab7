/* The generated part of a host kernel: functions that read and write rows.
 *
 * A template (kernels/host/) loops; what it reads and what becomes of its results is generated here
 * from the group's nodes, as C text:
 *
 *     read_x    count pixels of one channel block of an operand, through all that was inlined in it
 *     write_y   count pixels of the anchor's result through the epilogue into memory, and into sums
 *     finish_y  the partial sums of one part of a sample
 *
 * An expression is walked from its root to stored tensors (leaves). What does not change along a row
 * is computed before the loop. A place is a sample n, a channel block, a row h and a pixel w + i;
 * slices and concatenations change the block, broadcasts fix it to 0 or the pixel to 0: a Place.
 * Which operand of a concatenation a block comes from is decided once a row: the text branches.
 *
 * Sizes and offsets are run-time arguments, so that equal patterns give equal text, built once.
 */
#include "seg.h"

#include <string.h>

typedef struct {
    const char *block;      /* C text of the channel block */
    bool one_pixel;         /* read at h = w = 0 */
} Place;

typedef struct {
    char name[24];
    bool constant;          /* along a row */
} Value;

typedef struct { Node *node; Place place; Value value; } Memo;
typedef struct { Node *concat; const char *block; int operand; const char *operand_block; } Choice;

enum { MAX_MEMOS = 256, MAX_CHOICES = 16, MAX_LEAVES = 64 };

/* One loop over a row. */
typedef struct {
    Emission *e;
    Text before, inside;    /* declarations before the loop; its body */
    Memo memos[MAX_MEMOS]; int n_memos;
    Choice *choices; int n_choices;
    Node *pending; const char *pending_block; /* a concat that is not decided yet */
    int counter;
    const char *indent;
} Row;

/* ---- arguments ------------------------------------------------------------------------------ */

PlanBuffer node_buffer(const Node *node)
{
    return (PlanBuffer){ node->slab, node->offset, node_bytes(node) };
}

static int add_buffer(Emission *e, PlanBuffer buffer)
{
    for (int i = 0; i < e->n_buffers; i++)
        if (e->buffers[i].slab == buffer.slab && e->buffers[i].offset == buffer.offset
            && e->buffers[i].bytes == buffer.bytes)
            return i;
    e->buffers = arena_grow(e->graph->arena, e->buffers, (size_t)e->n_buffers * sizeof buffer,
                            ((size_t)e->n_buffers + 1) * sizeof buffer);
    e->buffers[e->n_buffers] = buffer;
    return e->n_buffers++;
}

static int add_size(Emission *e, int64_t size)
{
    e->sizes = arena_grow(e->graph->arena, e->sizes, (size_t)e->n_sizes * sizeof size,
                          ((size_t)e->n_sizes + 1) * sizeof size);
    e->sizes[e->n_sizes] = size;
    return e->n_sizes++;
}

static int add_scalar(Emission *e, double scalar)
{
    e->scalars = arena_grow(e->graph->arena, e->scalars, (size_t)e->n_scalars * sizeof scalar,
                            ((size_t)e->n_scalars + 1) * sizeof scalar);
    e->scalars[e->n_scalars] = scalar;
    return e->n_scalars++;
}

static int64_t channel_blocks(const Node *node)
{
    return (node->shape.dims[0] + PLAN_BLOCK - 1) / PLAN_BLOCK;
}

static void count_bytes(Emission *e, const Node *node)
{
    if (node->shape.batched)
        e->read_bytes_per_sample += (double)node_bytes(node);
    else
        e->read_bytes += (double)node_bytes(node);
}

/* ---- values ----------------------------------------------------------------------------------- */

static const char *graph_text(Row *row, const char *format, long a)
{
    return arena_printf(row->e->graph->arena, format, a);
}

/* A new variable: `type name = `; the caller writes the rest of the line. */
static Value new_value(Row *row, bool constant)
{
    Value value = { "", constant };
    snprintf(value.name, sizeof value.name, "%s%d", constant ? "k" : "t", row->counter++);
    text_printf(constant ? &row->before : &row->inside, "%s%sconst v16 %s = ", row->indent,
                constant ? "" : "    ", value.name);
    return value;
}

static Text *value_text(Row *row, Value value)
{
    return value.constant ? &row->before : &row->inside;
}

static bool same_place(Place a, Place b)
{
    return a.one_pixel == b.one_pixel && strcmp(a.block, b.block) == 0;
}

static Value remember(Row *row, Node *node, Place at, Value value)
{
    if (row->n_memos < MAX_MEMOS)
        row->memos[row->n_memos++] = (Memo){ node, at, value };
    return value;
}

static const Memo *recall(const Row *row, const Node *node, Place at)
{
    for (int i = 0; i < row->n_memos; i++)
        if (row->memos[i].node == node && same_place(row->memos[i].place, at))
            return &row->memos[i];
    return NULL;
}

/* ---- leaves ------------------------------------------------------------------------------------- */

static Value fixed_leaf(Row *row, Node *node, Place at)
{
    int buffer = add_buffer(row->e, node_buffer(node));
    Value value = new_value(row, true);
    if (shape_count(node->shape) == 1)
        text_printf(&row->before, "splat16(*(const float *)a->buffers[%d]);\n", buffer);
    else
        text_printf(&row->before, "load16((const float *)a->buffers[%d] + 16 * %s);\n", buffer,
                    at.block);
    return value;
}

/* `const float *pK` to the tensor's element (n, block, h, w) of the row; K is returned. */
static int leaf_pointer(Row *row, const Node *node, Place at)
{
    Emission *e = row->e;
    int buffer = add_buffer(e, node_buffer(node));
    int k = row->counter++;
    const char *type = node->type == TYPE_U8 ? "uint8_t" : "float";
    bool one_pixel = at.one_pixel || (node->shape.dims[1] == 1 && node->shape.dims[2] == 1);
    int size = add_size(e, node->blocked ? channel_blocks(node) : node->shape.dims[0]);
    text_printf(&row->before, "%sconst int64_t c%d = a->sizes[%d];\n", row->indent, k, size);
    if (one_pixel) {
        text_printf(&row->before, node->blocked
                    ? "%sconst %s *p%d = (const %s *)a->buffers[%d] + (n * c%d + %s) * 16;\n"
                    : "%sconst %s *p%d = (const %s *)a->buffers[%d] + n * c%d + 16 * %s;\n",
                    row->indent, type, k, type, buffer, k, at.block);
        return k;
    }
    int height = add_size(e, node->shape.dims[1]), width = add_size(e, node->shape.dims[2]);
    text_printf(&row->before, "%sconst int64_t h%d = a->sizes[%d], w%d = a->sizes[%d];\n",
                row->indent, k, height, k, width);
    if (node->blocked)
        text_printf(&row->before, "%sconst %s *p%d = (const %s *)a->buffers[%d]\n"
                    "%s    + (((n * c%d + %s) * h%d + h) * w%d + w) * 16;\n", row->indent, type, k,
                    type, buffer, row->indent, k, at.block, k, k);
    else
        text_printf(&row->before, "%sconst %s *p%d = (const %s *)a->buffers[%d]\n"
                    "%s    + ((n * c%d + 16 * %s) * h%d + h) * w%d + w;\n", row->indent, type, k,
                    type, buffer, row->indent, k, at.block, k, k);
    return k;
}

static Value batched_leaf(Row *row, Node *node, Place at)
{
    bool one_pixel = at.one_pixel || (node->shape.dims[1] == 1 && node->shape.dims[2] == 1);
    int k = leaf_pointer(row, node, at);
    Value value = new_value(row, one_pixel);
    Text *text = value_text(row, value);
    const char *i = one_pixel ? "0" : "i", *kind = node->type == TYPE_U8 ? "u8" : "f32";
    if (node->blocked) {
        text_printf(text, "load16(p%d + 16 * %s);\n", k, i);
        return value;
    }
    text_printf(text, "load_plain_%s(p%d + %s, ", kind, k, i);
    if (one_pixel)
        text_printf(text, "1, ");
    else
        text_printf(text, "h%d * w%d, ", k, k);
    if (node->shape.dims[0] < PLAN_BLOCK / 2)
        text_printf(text, "%d);\n", (int)node->shape.dims[0]);
    else
        text_printf(text, "min64(16, c%d - 16 * %s));\n", k, at.block);
    return value;
}

static Value leaf(Row *row, Node *node, Place at)
{
    count_bytes(row->e, node);
    if (!node->shape.batched)
        return fixed_leaf(row, node, at);
    return batched_leaf(row, node, at);
}

/* Row `which` of a [rows,C] tensor. */
static Value coefficient(Row *row, Node *node, int which, Place at)
{
    int buffer = add_buffer(row->e, node_buffer(node));
    int64_t blocks = (node->shape.dims[1] + PLAN_BLOCK - 1) / PLAN_BLOCK;
    int size = add_size(row->e, blocks);
    Value value = new_value(row, true);
    text_printf(&row->before, "load16((const float *)a->buffers[%d] + 16 * (%d * a->sizes[%d] + %s));\n",
                buffer, which, size, at.block);
    return value;
}

/* ---- expressions ----------------------------------------------------------------------------------- */

static Value evaluate(Row *, Node *, Place);

/* An operand at its reader's place: broadcasts over channels and pixels. */
static Value operand(Row *row, const Node *reader, int index, Place at)
{
    Node *node = reader->inputs[index];
    if (!node->shape.batched || !reader->shape.batched)
        return evaluate(row, node, at);
    const int64_t *from = node->shape.dims, *to = reader->shape.dims;
    Place place = at;
    bool spread = from[0] == 1 && to[0] > 1;
    if (spread)
        place.block = "0";
    if (from[1] == 1 && from[2] == 1 && (to[1] > 1 || to[2] > 1))
        place.one_pixel = true;
    Value value = evaluate(row, node, place);
    if (!spread)
        return value;
    Value wide = new_value(row, value.constant);
    text_printf(value_text(row, wide), "splat16(%s[0]);\n", value.name);
    return wide;
}

static Value evaluate_concat(Row *row, Node *node, Place at)
{
    for (int i = 0; i < row->n_choices; i++)
        if (row->choices[i].concat == node && strcmp(row->choices[i].block, at.block) == 0) {
            Place place = { row->choices[i].operand_block, at.one_pixel };
            return evaluate(row, node->inputs[row->choices[i].operand], place);
        }
    if (!row->pending) {
        row->pending = node;
        row->pending_block = at.block;
    }
    return (Value){ "undecided", false };
}

static Value evaluate_slice(Row *row, Node *node, Place at)
{
    int size = add_size(row->e, (int64_t)node->attr[ATTR_FROM] / PLAN_BLOCK);
    int k = row->counter++;
    text_printf(&row->before, "%sconst int64_t b%d = %s + a->sizes[%d];\n", row->indent, k, at.block,
                size);
    Place place = { graph_text(row, "b%ld", k), at.one_pixel };
    return evaluate(row, node->inputs[0], place);
}

static Value evaluate_dropout(Row *row, Node *node, Place at)
{
    Value x = operand(row, node, 0, at);
    int buffer = add_buffer(row->e, (PlanBuffer){ SLAB_FIXED, 0, PLAN_STATE_BYTES });
    int stream = add_size(row->e, (int64_t)node->attr[ATTR_STREAM]);
    int width = add_size(row->e, node->shape.dims[2]);
    int rate = add_scalar(row->e, node->attr[ATTR_RATE]);
    int k = row->counter++;
    text_printf(&row->before, "%sconst uint64_t seed%d = ((const PlanState *)a->buffers[%d])->seed;\n"
                "%sconst uint64_t stream%d = (uint64_t)a->sizes[%d];\n"
                "%sconst int64_t pixel%d = h * a->sizes[%d] + w;\n"
                "%sconst v16 rate%d = splat16((float)a->scalars[%d]);\n", row->indent, k, buffer,
                row->indent, k, stream, row->indent, k, width, row->indent, k, rate);
    Value value = new_value(row, false);
    text_printf(&row->inside, "keep16(~less16(uniform16(seed%d, stream%d, n, 16 * %s, pixel%d + i), "
                "rate%d), %s) / (1 - rate%d);\n", k, k, at.block, k, k, x.name, k);
    return value;
}

static Value evaluate_divide(Row *row, Node *node, Place at)
{
    Value x = operand(row, node, 0, at);
    int size = add_size(row->e, (int64_t)node->attr[ATTR_PER_SAMPLE]);
    Value factor = new_value(row, true);
    text_printf(&row->before, "splat16((float)(1.0 / ((double)a->sizes[%d]%s)));\n", size,
                node->attr[ATTR_BATCHED] != 0 ? " * (double)a->batch" : "");
    Value value = new_value(row, x.constant);
    text_printf(value_text(row, value), "%s * %s;\n", x.name, factor.name);
    return value;
}

/* C text of the operators that need nothing but their operands' values. */
static const char *formula(Op op)
{
    switch ((int)op) {
    case OP_RELU: return "relu16($0)";
    case OP_SILU: return "silu16($0)";
    case OP_GELU: return "gelu16($0)";
    case OP_SIGMOID: return "sigmoid16($0)";
    case OP_EXPAND: return "$0";
    case OP_ADD: return "$0 + $1";
    case OP_SUB: return "$0 - $1";
    case OP_MUL: return "$0 * $1";
    case OP_DIV: return "$0 / $1";
    case OP_LEAKY_RELU: return "select16(less16(splat16(0), $0), $0, $0 * $s)";
    case OP_RELU_GRAD: return "keep16(less16(splat16(0), $1), $0)";
    case OP_LEAKY_RELU_GRAD: return "select16(less16(splat16(0), $1), $0, $0 * $s)";
    case OP_SILU_GRAD: return "silu_grad16($0, $1)";
    case OP_GELU_GRAD: return "gelu_grad16($0, $1)";
    case OP_SIGMOID_GRAD: return "$0 * $1 * (1 - $1)";
    case OP_CROSS_ENTROPY_TERMS:
        return "-($1 * max16(log16($0), splat16(-100)) + (1 - $1) * max16(log16(1 - $0), splat16(-100)))";
    case OP_CROSS_ENTROPY_TERMS_GRAD: return "($0 - $1) / max16($0 * (1 - $0), splat16(1e-12f))";
    case OP_LOGITS_CROSS_ENTROPY_TERMS: return "relu16($0) - $0 * $1 + log1p16(exp16(-abs16($0)))";
    case OP_LOGITS_CROSS_ENTROPY_TERMS_GRAD: return "sigmoid16($0) - $1";
    default: return NULL;
    }
}

static Value evaluate_formula(Row *row, Node *node, Place at)
{
    Value values[2] = { { "", true }, { "", true } };
    bool constant = true;
    for (int i = 0; i < node->n_inputs && i < 2; i++) {
        values[i] = operand(row, node, i, at);
        constant &= values[i].constant;
    }
    const char *slope = "";
    if (op_has_attribute(node->op, ATTR_SLOPE))
        slope = graph_text(row, "((float)a->scalars[%ld])", add_scalar(row->e, node->attr[ATTR_SLOPE]));
    Value value = new_value(row, constant);
    Text *text = value_text(row, value);
    for (const char *at_text = formula(node->op); *at_text; at_text++) {
        if (*at_text != '$')
            text_append(text, at_text, 1);
        else if (*++at_text == 's')
            text_printf(text, "%s", slope);
        else
            text_printf(text, "%s", values[*at_text - '0'].name);
    }
    text_printf(text, ";\n");
    return value;
}

static Value evaluate_affine(Row *row, Node *node, Place at)
{
    Value x = operand(row, node, 0, at);
    Value scale = coefficient(row, node->inputs[1], 0, at);
    Value shift = coefficient(row, node->inputs[1], 1, at);
    Value value = new_value(row, x.constant);
    text_printf(value_text(row, value), "%s * %s + %s;\n", x.name, scale.name, shift.name);
    return value;
}

static Value evaluate_combine(Row *row, Node *node, Place at)
{
    Value dy = operand(row, node, 0, at), x = operand(row, node, 1, at);
    Value a = coefficient(row, node->inputs[2], 0, at), b = coefficient(row, node->inputs[2], 1, at);
    Value d = coefficient(row, node->inputs[2], 2, at);
    Value value = new_value(row, x.constant && dy.constant);
    text_printf(value_text(row, value), "%s * %s + (%s * %s + %s);\n", a.name, dy.name, b.name, x.name,
                d.name);
    return value;
}

static Value evaluate_new(Row *row, Node *node, Place at)
{
    if (node->op == OP_CONSTANT) {
        Value value = new_value(row, true);
        text_printf(&row->before, "splat16((float)%.9g);\n", node->attr[ATTR_VALUE]);
        return value;
    }
    if (node->stored)
        return leaf(row, node, at);
    if (row->e->name.length < 72)
        text_printf(&row->e->name, "_%s", op_facts[node->op].name);
    switch ((int)node->op) {
    case OP_CONCAT: return evaluate_concat(row, node, at);
    case OP_SLICE: return evaluate_slice(row, node, at);
    case OP_DROPOUT: return evaluate_dropout(row, node, at);
    case OP_DIVIDE_BY_COUNT: return evaluate_divide(row, node, at);
    case OP_AFFINE: return evaluate_affine(row, node, at);
    case OP_COMBINE: return evaluate_combine(row, node, at);
    default: break;
    }
    if (!formula(node->op))
        bug("emit: no text for %s", node_text(row->e->graph, node));
    return evaluate_formula(row, node, at);
}

static Value evaluate(Row *row, Node *node, Place at)
{
    const Memo *memo = recall(row, node, at);
    if (memo)
        return memo->value;
    return remember(row, node, at, evaluate_new(row, node, at));
}

/* ---- rows with decisions ------------------------------------------------------------------------------ */

typedef void RowBody(Row *, void *context);

static void begin_row(Row *row, Emission *e, Choice *choices, int n_choices, const char *indent)
{
    *row = (Row){ .e = e, .choices = choices, .n_choices = n_choices, .indent = indent };
    row->before.arena = row->inside.arena = e->graph->arena;
    row->counter = 10 * n_choices;
}

/* Writes body's text; where it meets a concatenation, a branch for each of its operands. */
static void emit_rows(Emission *e, RowBody *body, void *context, Choice *choices, int n_choices,
                      const char *indent)
{
    Row *row = arena_alloc(e->graph->arena, sizeof *row);
    size_t name_length = e->name.length;
    double read_bytes = e->read_bytes;
    begin_row(row, e, choices, n_choices, indent);
    body(row, context);
    if (!row->pending) {
        text_append(&e->text, row->before.text ? row->before.text : "", row->before.length);
        text_append(&e->text, row->inside.text ? row->inside.text : "", row->inside.length);
        return;
    }
    if (n_choices == MAX_CHOICES)
        bug("emit: more than %d concatenations in one expression", MAX_CHOICES);
    Node *concat = row->pending;
    const char *block = row->pending_block, *deeper = arena_printf(e->graph->arena, "%s    ", indent);
    int64_t start = 0;
    for (int k = 0; k < concat->n_inputs; k++) {
        int first = add_size(e, start);
        start += channel_blocks(concat->inputs[k]);
        if (k)
            text_printf(&e->text, " else ");
        else
            text_printf(&e->text, "%s", indent);
        if (k + 1 < concat->n_inputs)
            text_printf(&e->text, "if (%s < a->sizes[%d]) ", block, add_size(e, start));
        text_printf(&e->text, "{\n");
        if (k) {
            e->name.length = name_length;
            e->read_bytes = read_bytes;
        }
        const char *name = arena_printf(e->graph->arena, "x%d_%d", n_choices, k);
        text_printf(&e->text, "%sconst int64_t %s = %s - a->sizes[%d];\n", deeper, name, block, first);
        choices[n_choices] = (Choice){ concat, block, k, name };
        emit_rows(e, body, context, choices, n_choices + 1, deeper);
        text_printf(&e->text, "%s}", indent);
    }
    text_printf(&e->text, "\n");
}

/* ---- read ----------------------------------------------------------------------------------------------- */

static void masked(Text *text, const Node *node, const char *value)
{
    if (node->shape.dims[0] % PLAN_BLOCK)
        text_printf(text, "keep16(lanes, %s)", value);
    else
        text_printf(text, "%s", value);
}

static void declare_lanes(Row *row, const Node *node)
{
    if (node->shape.dims[0] % PLAN_BLOCK)
        text_printf(&row->before, "%sconst v16i lanes = channel_mask16(a->sizes[%d], cb);\n",
                    row->indent, add_size(row->e, node->shape.dims[0]));
}

static void read_body(Row *row, void *context)
{
    Node *node = context;
    Place here = { "cb", false };
    if (node->stored && node->blocked) { /* as it lies in memory */
        count_bytes(row->e, node);
        int k = leaf_pointer(row, node, here);
        text_printf(&row->inside, "%smemcpy(out, p%d, (size_t)count * 16 * sizeof *out);\n", row->indent,
                    k);
        return;
    }
    declare_lanes(row, node);
    text_printf(&row->inside, "%sfor (int64_t i = 0; i < count; i++) {\n", row->indent);
    Value value = evaluate(row, node, here);
    text_printf(&row->inside, "%s    store16(out + 16 * i, ", row->indent);
    if (node->stored)
        text_printf(&row->inside, "%s", value.name);
    else
        masked(&row->inside, node, value.name);
    text_printf(&row->inside, ");\n%s}\n", row->indent);
}

void emit_read(Emission *e, const char *name, Node *node)
{
    Choice choices[MAX_CHOICES];
    text_printf(&e->text, "INLINE void read_%s(const KernelArguments *a, int64_t n, int64_t cb, int64_t h,\n"
                "                   int64_t w, int64_t count, float *restrict out)\n{\n", name);
    if (e->name.length < 72)
        text_printf(&e->name, node->stored ? "" : "_%s", name);
    text_printf(&e->text, "    (void)n; (void)h; (void)w;\n");
    emit_rows(e, read_body, node, choices, 0, "    ");
    text_printf(&e->text, "}\n\n");
}

/* ---- write ------------------------------------------------------------------------------------------------ */

static int accumulators_of(const Node *reduction)
{
    return reduction->op == OP_BATCH_MOMENTS ? 3 : reduction->op == OP_BATCH_NORM_SUMS ? 2 : 1;
}

static int count_accumulators(const Group *group)
{
    int count = 0;
    for (int r = 0; r < group->n_reductions; r++)
        count += accumulators_of(group->reductions[r]);
    if (node_reduces_batch(group->anchor))
        count += accumulators_of(group->anchor);
    return count;
}

static void store_root(Row *row, Node *root, const char *value)
{
    Text *in = &row->inside;
    if (!root->shape.batched) {
        int buffer = add_buffer(row->e, node_buffer(root));
        if (shape_count(root->shape) == 1)
            text_printf(in, "%s    *(float *)a->buffers[%d] = %s[0];\n", row->indent, buffer, value);
        else
            text_printf(in, "%s    store16((float *)a->buffers[%d] + 16 * cb, %s);\n", row->indent,
                        buffer, value);
        return;
    }
    int k = leaf_pointer(row, root, (Place){ "cb", false });
    if (root->blocked) {
        text_printf(in, "%s    store16((float *)p%d + 16 * i, ", row->indent, k);
        masked(in, root, value);
        text_printf(in, ");\n");
        return;
    }
    bool one_pixel = root->shape.dims[1] == 1 && root->shape.dims[2] == 1;
    const char *stride = one_pixel ? "1" : graph_text(row, "(h%1$ld * w%1$ld)", k);
    if (root->shape.dims[0] < PLAN_BLOCK / 2) {
        for (int c = 0; c < root->shape.dims[0]; c++)
            text_printf(in, "%s    ((float *)p%d)[i + %d * %s] = %s[%d];\n", row->indent, k, c, stride,
                        value, c);
        return;
    }
    text_printf(in, "%s    for (int64_t c = 0; c < min64(16, c%d - 16 * cb); c++)\n"
                "%s        ((float *)p%d)[i + c * %s] = %s[c];\n", row->indent, k, row->indent, k, stride,
                value);
}

/* Local sums of one reduction, along a row. */
static void accumulate(Row *row, Node *reduction, int first)
{
    Place here = { "cb", false };
    const char *indent = row->indent;
    Value x = evaluate(row, reduction->inputs[0], here);
    if (reduction->op == OP_BATCH_NORM_SUMS) {
        Value y = evaluate(row, reduction->inputs[1], here);
        Value mean = coefficient(row, reduction->inputs[2], 0, here);
        text_printf(&row->before, "%sv16 sum%d = {0}, sum%d = {0};\n", indent, first, first + 1);
        text_printf(&row->inside, "%s    sum%d += %s;\n%s    sum%d += %s * (%s - %s);\n", indent, first,
                    x.name, indent, first + 1, x.name, y.name, mean.name);
        return;
    }
    text_printf(&row->before, "%sv16 sum%d = {0};\n", indent, first);
    text_printf(&row->inside, "%s    sum%d += %s;\n", indent, first, x.name);
}

/* A row's mean and squared deviations join those of the rows before (Chan, Golub, LeVeque 1979). */
static void merge_moments(Row *row, Node *reduction, int first)
{
    Row again;
    double read_bytes = row->e->read_bytes, per_sample = row->e->read_bytes_per_sample;
    begin_row(&again, row->e, row->choices, row->n_choices, row->indent);
    again.counter = row->counter + 100;
    const char *in = row->indent;
    text_printf(&again.before, "%sconst v16 mean%d = sum%d / (float)count;\n%sv16 square%d = {0};\n", in,
                first, first, in, first);
    text_printf(&again.inside, "%sfor (int64_t i = 0; i < count; i++) {\n", in);
    Value x = evaluate(&again, reduction->inputs[0], (Place){ "cb", false });
    text_printf(&again.inside, "%s    const v16 d = %s - mean%d;\n%s    square%d += d * d;\n%s}\n", in,
                x.name, first, in, first, in);
    text_printf(&again.inside,
                "%1$sconst v16 before%2$d = accumulators[%2$d];\n"
                "%1$sconst v16 total%2$d = before%2$d + (float)count;\n"
                "%1$sconst v16 shift%2$d = mean%2$d - accumulators[%2$d + 1];\n"
                "%1$saccumulators[%2$d] = total%2$d;\n"
                "%1$saccumulators[%2$d + 1] += shift%2$d * ((float)count / total%2$d);\n"
                "%1$saccumulators[%2$d + 2] += square%2$d + shift%2$d * shift%2$d\n"
                "%1$s    * (before%2$d * (float)count / total%2$d);\n", in, first);
    text_printf(&row->inside, "%.*s%.*s", (int)again.before.length, again.before.text,
                (int)again.inside.length, again.inside.text);
    row->counter = again.counter + 100;
    row->e->read_bytes = read_bytes; /* from the cache */
    row->e->read_bytes_per_sample = per_sample;
}

static bool has_bias(const Node *anchor)
{
    return (anchor->op == OP_CONV || anchor->op == OP_CONV_TRANSPOSE || anchor->op == OP_LINEAR)
           && anchor->n_inputs == 3;
}

static void close_reductions(Row *row, Node *const *reductions, int n)
{
    int first = 0;
    for (int r = 0; r < n; r++) {
        if (reductions[r]->op == OP_BATCH_MOMENTS)
            merge_moments(row, reductions[r], first);
        else
            for (int k = 0; k < accumulators_of(reductions[r]); k++)
                text_printf(&row->inside, "%saccumulators[%d] += sum%d;\n", row->indent, first + k,
                            first + k);
        first += accumulators_of(reductions[r]);
    }
}

static void write_body(Row *row, void *context)
{
    Group *group = context;
    Node *anchor = group->anchor, *root = group->root;
    Place here = { "cb", false };
    bool sum_only = node_reduces_batch(anchor);
    Node *const *reductions = sum_only ? &group->anchor : group->reductions;
    int n_reductions = sum_only ? 1 : group->n_reductions;
    if (!sum_only && root->shape.batched)
        declare_lanes(row, root);
    text_printf(&row->inside, "%sfor (int64_t i = 0; i < count; i++) {\n", row->indent);
    if (!sum_only && !node_pointwise(anchor)) {
        Value raw = new_value(row, false);
        text_printf(&row->inside, "load16(in + 16 * i)");
        if (has_bias(anchor)) {
            Value bias = fixed_leaf(row, anchor->inputs[2], here);
            text_printf(&row->inside, " + %s", bias.name);
        }
        text_printf(&row->inside, ";\n");
        remember(row, anchor, here, raw);
    }
    if (!sum_only) {
        bool was_stored = root->stored;
        root->stored = false; /* its value is wanted, not its memory */
        Value value = recall(row, root, here) ? recall(row, root, here)->value
                                              : remember(row, root, here, evaluate_new(row, root, here));
        root->stored = was_stored;
        int first = 0;
        for (int r = 0; r < n_reductions; r++) {
            accumulate(row, reductions[r], first);
            first += accumulators_of(reductions[r]);
        }
        store_root(row, root, value.name);
    } else {
        accumulate(row, reductions[0], 0);
    }
    text_printf(&row->inside, "%s}\n", row->indent);
    close_reductions(row, reductions, n_reductions);
}

static void emit_finish(Emission *e, Group *group, const PlanBuffer *partials)
{
    bool sum_only = node_reduces_batch(group->anchor);
    Node *const *reductions = sum_only ? &group->anchor : group->reductions;
    int n = sum_only ? 1 : group->n_reductions, first = 0;
    text_printf(&e->text, "INLINE void finish_y(const KernelArguments *a, int64_t n, int64_t part, int64_t cb,\n"
                "                     v16 *accumulators)\n{\n"
                "    (void)a; (void)n; (void)part; (void)cb; (void)accumulators;\n");
    for (int r = 0; r < n; r++) {
        int rows = accumulators_of(reductions[r]), buffer = add_buffer(e, partials[r]);
        int parts = add_size(e, e->parts);
        int blocks = add_size(e, channel_blocks(reductions[r]->inputs[0]));
        text_printf(&e->text, "    for (int64_t k = 0; k < %d; k++)\n"
                    "        store16((float *)a->buffers[%d]\n"
                    "            + 16 * (((n * a->sizes[%d] + part) * %d + k) * a->sizes[%d] + cb),\n"
                    "            accumulators[%d + k]);\n", rows, buffer, parts, rows, blocks, first);
        first += rows;
    }
    text_printf(&e->text, "}\n\n");
}

void emit_write(Emission *e, const PlanBuffer *partials)
{
    Group *group = e->group;
    Choice choices[MAX_CHOICES];
    text_printf(&e->text, "enum { ACCUMULATORS = %d };\n", count_accumulators(group));
    text_printf(&e->text, "INLINE void write_y(const KernelArguments *a, int64_t n, int64_t cb, int64_t h,\n"
                "                    int64_t w, int64_t count, const float *restrict in,\n"
                "                    v16 *accumulators)\n{\n"
                "    (void)n; (void)h; (void)w; (void)in; (void)accumulators;\n");
    text_printf(&e->name, "_to");
    emit_rows(e, write_body, group, choices, 0, "    ");
    for (int r = 0; r < group->n_reductions; r++)
        text_printf(&e->name, "_%s", op_facts[group->reductions[r]->op].name);
    text_printf(&e->text, "}\n\n");
    emit_finish(e, group, partials);
}
