/* The generated part of a host kernel: functions that read and write rows.
 *
 * A template (kernels/host/) loops; what it reads and what becomes of its results is generated here
 * from the group's nodes, as C text:
 *
 *     read_x    count pixels of one channel block of an operand, through all that was inlined in it
 *     write_y   count pixels of the anchor's result through the epilogue into memory, and into sums
 *     finish_y  the partial sums of one part of a sample
 *
 * An expression is walked from its root to stored tensors (leaves). What does not change along a
 * row is computed before the loop. A place is a sample n, a channel block, a row h and a pixel
 * w + i; slices and concatenations change the block, broadcasts fix it to 0 or the pixel to 0.
 * Which operand of a concatenation a block comes from is decided once a row: the walk stops there,
 * the text branches, and the walk begins again in each branch with that choice made.
 *
 * Sizes and offsets are run-time arguments, so that equal patterns give equal text, built once.
 */
#include "seg.h"

#include <math.h>
#include <string.h>

typedef struct {
    const char *block;      /* C text of the channel block */
    bool one_pixel;         /* read at h = w = 0 */
} Place;

typedef struct {
    char name[24];
    bool constant;          /* along a row */
} Value;

/* A value that was computed in this row. */
typedef struct Memo Memo;
struct Memo {
    const Node *node;
    Place place;
    Value value;
    Memo *older;
};

/* At `block` of a concat or slice, the value is that of an operand at `operand_block`. */
typedef struct Choice Choice;
struct Choice {
    const Node *node;
    const char *block;
    int operand;
    const char *operand_block;
    int depth;
    const Choice *outer;
};

/* One loop over a row. */
typedef struct {
    Emission *e;
    Text before, inside;    /* declarations before the loop; its body */
    Memo *memos;            /* the newest */
    const Choice *choices;  /* the innermost */
    const Node *pending;    /* a concat or slice that is not decided yet, or NULL */
    const char *pending_block;
    int counter;
    const char *indent;
} Row;

/* ---- arguments ------------------------------------------------------------------------------- */

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

/* Kernels are files: a name that says a lot is enough. */
static void add_to_name(Emission *e, const char *word)
{
    if (e->name.length < 72)
        text_printf(&e->name, "_%s", word);
}

/* ---- values ---------------------------------------------------------------------------------- */

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

static Value remember(Row *row, const Node *node, Place at, Value value)
{
    Memo *memo = arena_alloc(row->e->graph->arena, sizeof *memo);
    *memo = (Memo){ node, at, value, row->memos };
    row->memos = memo;
    return value;
}

static const Memo *recall(const Row *row, const Node *node, Place at)
{
    const Memo *memo = row->memos;
    while (memo && !(memo->node == node && same_place(memo->place, at)))
        memo = memo->older;
    return memo;
}

/* ---- leaves ---------------------------------------------------------------------------------- */

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
    text_printf(&row->before,
                "load16((const float *)a->buffers[%d] + 16 * (%d * a->sizes[%d] + %s));\n", buffer,
                which, size, at.block);
    return value;
}

/* ---- expressions ----------------------------------------------------------------------------- */

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

/* A concat or slice: the operand's value at the block that was chosen, or a choice to be made. */
static Value evaluate_move(Row *row, const Node *node, Place at)
{
    for (const Choice *choice = row->choices; choice; choice = choice->outer)
        if (choice->node == node && strcmp(choice->block, at.block) == 0)
            return evaluate(row, node->inputs[choice->operand],
                            (Place){ choice->operand_block, at.one_pixel });
    if (!row->pending) {
        row->pending = node;
        row->pending_block = at.block;
    }
    return (Value){ "undecided", false };
}

static Value evaluate_dropout(Row *row, Node *node, Place at)
{
    Value x = operand(row, node, 0, at);
    bool one_pixel = at.one_pixel || (node->shape.dims[1] == 1 && node->shape.dims[2] == 1);
    int buffer = add_buffer(row->e, (PlanBuffer){ SLAB_FIXED, 0, PLAN_STATE_BYTES });
    int stream = add_size(row->e, (int64_t)node->attr[ATTR_STREAM]);
    int rate = add_scalar(row->e, node->attr[ATTR_RATE]);
    int k = row->counter++;
    text_printf(&row->before,
                "%1$sconst uint64_t seed%2$d = ((const PlanState *)a->buffers[%3$d])->seed;\n"
                "%1$sconst uint64_t stream%2$d = (uint64_t)a->sizes[%4$d];\n"
                "%1$sconst v16 rate%2$d = splat16((float)a->scalars[%5$d]);\n", row->indent, k,
                buffer, stream, rate);
    const char *pixel = "0";
    if (!one_pixel) {
        pixel = arena_printf(row->e->graph->arena, "pixel%d + i", k);
        text_printf(&row->before, "%sconst int64_t pixel%d = h * a->sizes[%d] + w;\n", row->indent,
                    k, add_size(row->e, node->shape.dims[2]));
    }
    Value value = new_value(row, one_pixel && x.constant);
    text_printf(value_text(row, value),
                "keep16(~less16(uniform16(seed%1$d, stream%1$d, n, 16 * %2$s, %3$s), rate%1$d), "
                "%4$s) / (1 - rate%1$d);\n", k, at.block, pixel, x.name);
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
        return "-($1 * max16(log16($0), splat16(-100))"
               " + (1 - $1) * max16(log16(1 - $0), splat16(-100)))";
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
        slope = arena_printf(row->e->graph->arena, "((float)a->scalars[%d])",
                             add_scalar(row->e, node->attr[ATTR_SLOPE]));
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
    Value a = coefficient(row, node->inputs[2], 0, at);
    Value b = coefficient(row, node->inputs[2], 1, at);
    Value d = coefficient(row, node->inputs[2], 2, at);
    Value value = new_value(row, x.constant && dy.constant);
    text_printf(value_text(row, value), "%s * %s + (%s * %s + %s);\n", a.name, dy.name, b.name,
                x.name, d.name);
    return value;
}

static Value evaluate_constant(Row *row, const Node *node)
{
    Value value = new_value(row, true);
    double number = node->attr[ATTR_VALUE];
    if (isfinite(number))
        text_printf(&row->before, "splat16((float)%.9g);\n", number);
    else
        text_printf(&row->before, "splat16(%s);\n", number > 0 ? "INFINITY"
                                                   : number < 0 ? "-INFINITY" : "NAN");
    return value;
}

/* From its operands, even if it has memory. */
static Value evaluate_expression(Row *row, Node *node, Place at)
{
    add_to_name(row->e, op_facts[node->op].name);
    switch ((int)node->op) {
    case OP_CONCAT: case OP_SLICE: return evaluate_move(row, node, at);
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
    if (node->op == OP_CONSTANT)
        return remember(row, node, at, evaluate_constant(row, node));
    if (node->stored)
        return remember(row, node, at, leaf(row, node, at));
    return remember(row, node, at, evaluate_expression(row, node, at));
}

/* ---- rows with decisions --------------------------------------------------------------------- */

typedef void RowBody(Row *, void *context);

static void begin_row(Row *row, Emission *e, const Choice *choices, const char *indent)
{
    *row = (Row){ .e = e, .choices = choices, .indent = indent };
    row->before.arena = row->inside.arena = e->graph->arena;
}

static void emit_rows(Emission *, RowBody *, void *context, const Choice *, const char *indent);

static void emit_slice(Emission *e, RowBody *body, void *context, Choice choice, const char *indent)
{
    int64_t first = (int64_t)choice.node->attr[ATTR_FROM] / PLAN_BLOCK;
    choice.operand_block = arena_printf(e->graph->arena, "x%d", choice.depth);
    text_printf(&e->text, "%sconst int64_t %s = %s + a->sizes[%d];\n", indent, choice.operand_block,
                choice.block, add_size(e, first));
    emit_rows(e, body, context, &choice, indent);
}

/* A branch for each operand. */
static void emit_concat(Emission *e, RowBody *body, void *context, Choice choice,
                        const char *indent)
{
    const Node *concat = choice.node;
    const char *deeper = arena_printf(e->graph->arena, "%s    ", indent);
    int64_t start = 0;
    for (int k = 0; k < concat->n_inputs; k++) {
        int first = add_size(e, start);
        start += channel_blocks(concat->inputs[k]);
        text_printf(&e->text, "%s", k ? " else " : indent);
        if (k + 1 < concat->n_inputs)
            text_printf(&e->text, "if (%s < a->sizes[%d]) ", choice.block, add_size(e, start));
        choice.operand = k;
        choice.operand_block = arena_printf(e->graph->arena, "x%d", choice.depth);
        text_printf(&e->text, "{\n%sconst int64_t %s = %s - a->sizes[%d];\n", deeper,
                    choice.operand_block, choice.block, first);
        emit_rows(e, body, context, &choice, deeper);
        text_printf(&e->text, "%s}", indent);
    }
    text_printf(&e->text, "\n");
}

/* Writes body's text; where it meets a choice that is not made, what it wrote is forgotten. */
static void emit_rows(Emission *e, RowBody *body, void *context, const Choice *choices,
                      const char *indent)
{
    Row row;
    Emission before = *e;
    begin_row(&row, e, choices, indent);
    body(&row, context);
    if (!row.pending) {
        text_append(&e->text, row.before.text ? row.before.text : "", row.before.length);
        text_append(&e->text, row.inside.text ? row.inside.text : "", row.inside.length);
        return;
    }
    e->n_buffers = before.n_buffers;
    e->n_sizes = before.n_sizes;
    e->n_scalars = before.n_scalars;
    e->name.length = before.name.length;
    add_to_name(e, op_facts[row.pending->op].name);
    Choice choice = { .node = row.pending, .block = row.pending_block, .outer = choices,
                      .depth = choices ? choices->depth + 1 : 0 };
    if (choice.node->op == OP_SLICE)
        emit_slice(e, body, context, choice, indent);
    else
        emit_concat(e, body, context, choice, indent);
}

/* ---- read ------------------------------------------------------------------------------------ */

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
        int k = leaf_pointer(row, node, here);
        text_printf(&row->inside, "%smemcpy(out, p%d, (size_t)count * 16 * sizeof *out);\n",
                    row->indent, k);
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
    text_printf(&e->text, "INLINE void read_%s(const KernelArguments *a, int64_t n, int64_t cb,\n"
                "                   int64_t h, int64_t w, int64_t count, float *restrict out)\n"
                "{\n    (void)n; (void)h; (void)w;\n", name);
    if (!node->stored)
        add_to_name(e, name);
    emit_rows(e, read_body, node, NULL, "    ");
    text_printf(&e->text, "}\n\n");
}

/* ---- write ----------------------------------------------------------------------------------- */

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
            text_printf(in, "%s    *(float *)a->buffers[%d] = %s[0];\n", row->indent, buffer,
                        value);
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
    const char *stride = one_pixel ? "1"
                                   : arena_printf(row->e->graph->arena, "(h%1$d * w%1$d)", k);
    if (root->shape.dims[0] < PLAN_BLOCK / 2) {
        for (int c = 0; c < root->shape.dims[0]; c++)
            text_printf(in, "%s    ((float *)p%d)[i + %d * %s] = %s[%d];\n", row->indent, k, c,
                        stride, value, c);
        return;
    }
    text_printf(in, "%s    for (int64_t c = 0; c < min64(16, c%d - 16 * cb); c++)\n"
                "%s        ((float *)p%d)[i + c * %s] = %s[c];\n", row->indent, k, row->indent, k,
                stride, value);
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
        text_printf(&row->inside, "%s    sum%d += %s;\n%s    sum%d += %s * (%s - %s);\n", indent,
                    first, x.name, indent, first + 1, x.name, y.name, mean.name);
        return;
    }
    text_printf(&row->before, "%sv16 sum%d = {0};\n", indent, first);
    text_printf(&row->inside, "%s    sum%d += %s;\n", indent, first, x.name);
}

/* A row's mean and squared deviations join those of the rows before (Chan, Golub, LeVeque 1979). */
static void merge_moments(Row *row, Node *reduction, int first)
{
    Row again;
    begin_row(&again, row->e, row->choices, row->indent);
    again.counter = row->counter;
    const char *in = row->indent;
    text_printf(&again.before,
                "%sconst v16 mean%d = sum%d / (float)count;\n%sv16 square%d = {0};\n", in, first,
                first, in, first);
    text_printf(&again.inside, "%sfor (int64_t i = 0; i < count; i++) {\n", in);
    Value x = evaluate(&again, reduction->inputs[0], (Place){ "cb", false });
    text_printf(&again.inside,
                "%s    const v16 d = %s - mean%d;\n%s    square%d += d * d;\n%s}\n", in, x.name,
                first, in, first, in);
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
    row->counter = again.counter;
    if (!row->pending) {
        row->pending = again.pending;
        row->pending_block = again.pending_block;
    }
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

/* The anchor's raw value, with its bias. */
static void take_raw_value(Row *row, const Node *anchor, Place here)
{
    Value bias = { "", true };
    if (has_bias(anchor))
        bias = fixed_leaf(row, anchor->inputs[2], here);
    Value raw = new_value(row, false);
    text_printf(&row->inside, "load16(in + 16 * i)%s%s;\n", has_bias(anchor) ? " + " : "",
                bias.name);
    remember(row, anchor, here, raw);
}

static Value root_value(Row *row, Node *root, Place here)
{
    const Memo *memo = recall(row, root, here);
    return memo ? memo->value : remember(row, root, here, evaluate_expression(row, root, here));
}

static void write_body(Row *row, void *context)
{
    Group *group = context;
    Place here = { "cb", false };
    bool sum_only = node_reduces_batch(group->anchor);
    Node *const *reductions = sum_only ? &group->anchor : group->reductions;
    int n_reductions = sum_only ? 1 : group->n_reductions, first = 0;
    Value value = { "", false };
    if (!sum_only && group->root->shape.batched)
        declare_lanes(row, group->root);
    text_printf(&row->inside, "%sfor (int64_t i = 0; i < count; i++) {\n", row->indent);
    if (!sum_only && !node_pointwise(group->anchor))
        take_raw_value(row, group->anchor, here);
    if (!sum_only)
        value = root_value(row, group->root, here);
    for (int r = 0; r < n_reductions; r++) {
        accumulate(row, reductions[r], first);
        first += accumulators_of(reductions[r]);
    }
    if (!sum_only) /* last: it may lie over an operand */
        store_root(row, group->root, value.name);
    text_printf(&row->inside, "%s}\n", row->indent);
    close_reductions(row, reductions, n_reductions);
}

static void emit_finish(Emission *e, Group *group, const PlanBuffer *partials)
{
    bool sum_only = node_reduces_batch(group->anchor);
    Node *const *reductions = sum_only ? &group->anchor : group->reductions;
    int n = sum_only ? 1 : group->n_reductions, first = 0;
    text_printf(&e->text, "INLINE void finish_y(const KernelArguments *a, int64_t n, int64_t part,\n"
                          "                     int64_t cb, v16 *accumulators)\n{\n"
                          "    (void)a; (void)n; (void)part; (void)cb; (void)accumulators;\n");
    for (int r = 0; r < n; r++) {
        int rows = accumulators_of(reductions[r]), buffer = add_buffer(e, partials[r]);
        int parts = add_size(e, e->parts);
        int blocks = add_size(e, channel_blocks(reductions[r]->inputs[0]));
        text_printf(&e->text,
                    "    for (int64_t k = 0; k < %1$d; k++)\n"
                    "        store16((float *)a->buffers[%2$d]\n"
                    "            + 16 * (((n * a->sizes[%3$d] + part) * %1$d + k)"
                    " * a->sizes[%4$d] + cb),\n"
                    "            accumulators[%5$d + k]);\n", rows, buffer, parts, blocks, first);
        first += rows;
    }
    text_printf(&e->text, "}\n\n");
}

void emit_write(Emission *e, const PlanBuffer *partials)
{
    Group *group = e->group;
    text_printf(&e->text, "enum { ACCUMULATORS = %d };\n", count_accumulators(group));
    text_printf(&e->text, "INLINE void write_y(const KernelArguments *a, int64_t n, int64_t cb,\n"
                "                    int64_t h, int64_t w, int64_t count,\n"
                "                    const float *restrict in, v16 *accumulators)\n{\n"
                "    (void)n; (void)h; (void)w; (void)in; (void)accumulators;\n");
    text_printf(&e->name, "_to");
    emit_rows(e, write_body, group, NULL, "    ");
    for (int r = 0; r < group->n_reductions; r++)
        add_to_name(e, op_facts[group->reductions[r]->op].name);
    text_printf(&e->text, "}\n\n");
    emit_finish(e, group, partials);
}
