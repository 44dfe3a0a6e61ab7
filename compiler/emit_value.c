/* The expression that a row computes for each of its pixels, as C text: see emit.c.
 *
 * What comes in: a Row, a node and the place at which its value is wanted. What goes out: lines in
 * row->before and row->inside, and the name of the variable that holds the value. An expression is
 * walked from its root to stored tensors (leaves), each value computed once; what does not change
 * along a row is computed before the loop. Slices and concatenations change the channel block,
 * broadcasts fix it to 0 or the pixel to 0. The same expressions serve every target: `@` in a text
 * stands for the number of channels in its vectors, and how a batched tensor's element is loaded is
 * its dialect's.
 */
#include "emit.h"

#include <math.h>
#include <string.h>

/* ---- arguments ------------------------------------------------------------------------------- */

PlanBuffer node_buffer(const Node *node)
{
    return (PlanBuffer){ node->slab, node->offset, node_bytes(node) };
}

int emission_buffer(Emission *e, PlanBuffer buffer)
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

int emission_size(Emission *e, int64_t size)
{
    e->sizes = arena_grow(e->graph->arena, e->sizes, (size_t)e->n_sizes * sizeof size,
                          ((size_t)e->n_sizes + 1) * sizeof size);
    e->sizes[e->n_sizes] = size;
    return e->n_sizes++;
}

int emission_scalar(Emission *e, double scalar)
{
    e->scalars = arena_grow(e->graph->arena, e->scalars, (size_t)e->n_scalars * sizeof scalar,
                            ((size_t)e->n_scalars + 1) * sizeof scalar);
    e->scalars[e->n_scalars] = scalar;
    return e->n_scalars++;
}

int64_t channel_blocks(const Emission *e, const Node *node)
{
    int block = e->graph->target->block;
    return (node->shape.dims[0] + block - 1) / block;
}

void emission_name(Emission *e, const char *word)
{
    if (e->name.length < 72)
        text_printf(&e->name, "_%s", word);
}

/* ---- values ---------------------------------------------------------------------------------- */

Value new_value(Row *row, bool constant)
{
    Value value = { "", constant };
    snprintf(value.name, sizeof value.name, "%s%d", constant ? "k" : "t", row->counter++);
    text_printf(constant ? &row->before : &row->inside, "%s%sconst v@ %s = ", row->indent,
                constant ? "" : row->e->dialect->deeper, value.name);
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

Value remember(Row *row, const Node *node, Place at, Value value)
{
    Memo *memo = arena_alloc(row->e->graph->arena, sizeof *memo);
    *memo = (Memo){ node, at, value, row->memos };
    row->memos = memo;
    return value;
}

const Memo *recall(const Row *row, const Node *node, Place at)
{
    const Memo *memo = row->memos;
    while (memo && !(memo->node == node && same_place(memo->place, at)))
        memo = memo->older;
    return memo;
}

/* ---- leaves ---------------------------------------------------------------------------------- */

Value fixed_leaf(Row *row, Node *node, Place at)
{
    int buffer = emission_buffer(row->e, node_buffer(node));
    Value value = new_value(row, true);
    if (shape_count(node->shape) == 1)
        text_printf(&row->before, "splat@(load_fixed((const float *)a->buffers[%d]));\n", buffer);
    else
        text_printf(&row->before, "load_fixed@((const float *)a->buffers[%d] + @ * %s);\n", buffer,
                    at.block);
    return value;
}

static Value leaf(Row *row, Node *node, Place at)
{
    if (!node->shape.batched)
        return fixed_leaf(row, node, at);
    return row->e->dialect->load(row, node, at);
}

Value coefficient(Row *row, Node *node, int which, Place at)
{
    int buffer = emission_buffer(row->e, node_buffer(node));
    int64_t padded = (node->shape.dims[1] + PLAN_BLOCK - 1) / PLAN_BLOCK * PLAN_BLOCK;
    int size = emission_size(row->e, padded);
    Value value = new_value(row, true);
    text_printf(&row->before,
                "load_fixed@((const float *)a->buffers[%d] + %d * a->sizes[%d] + @ * %s);\n",
                buffer, which, size, at.block);
    return value;
}

/* ---- expressions ----------------------------------------------------------------------------- */

/* An operand at its reader's place: broadcasts over channels and pixels. */
static Value operand(Row *row, const Node *reader, int index, Place at)
{
    Node *node = reader->inputs[index];
    if (!node->shape.batched || !reader->shape.batched)
        return row_value(row, node, at);
    const int64_t *from = node->shape.dims, *to = reader->shape.dims;
    Place place = at;
    bool spread = from[0] == 1 && to[0] > 1;
    if (spread)
        place.block = "0";
    if (from[1] == 1 && from[2] == 1 && (to[1] > 1 || to[2] > 1))
        place.one_pixel = true;
    Value value = row_value(row, node, place);
    if (!spread)
        return value;
    Value wide = new_value(row, value.constant);
    text_printf(value_text(row, wide), "splat@(%s[0]);\n", value.name);
    return wide;
}

/* A concat or slice: the operand's value at the block that was chosen, or a choice to be made. */
static Value evaluate_move(Row *row, const Node *node, Place at)
{
    for (const Choice *choice = row->choices; choice; choice = choice->outer)
        if (choice->node == node && strcmp(choice->block, at.block) == 0)
            return row_value(row, node->inputs[choice->operand],
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
    int buffer = emission_buffer(row->e, (PlanBuffer){ SLAB_FIXED, 0, PLAN_STATE_BYTES });
    int stream = emission_size(row->e, (int64_t)node->attr[ATTR_STREAM]);
    int rate = emission_scalar(row->e, node->attr[ATTR_RATE]);
    int k = row->counter++;
    text_printf(&row->before,
                "%1$sconst uint64_t seed%2$d =\n"
                "%1$s    load_fixed_seed((const PlanState *)a->buffers[%3$d]);\n"
                "%1$sconst uint64_t stream%2$d = (uint64_t)a->sizes[%4$d];\n"
                "%1$sconst v@ rate%2$d = splat@((float)a->scalars[%5$d]);\n", row->indent, k,
                buffer, stream, rate);
    const char *pixel = "0";
    if (!one_pixel) {
        pixel = arena_printf(row->e->graph->arena, "pixel%d%s", k, row->e->dialect->along_row);
        text_printf(&row->before, "%sconst int64_t pixel%d = h * a->sizes[%d] + w;\n", row->indent,
                    k, emission_size(row->e, node->shape.dims[2]));
    }
    Value value = new_value(row, one_pixel && x.constant);
    text_printf(value_text(row, value),
                "keep@(~less@(uniform@(seed%1$d, stream%1$d, n, @ * %2$s, %3$s), rate%1$d), "
                "%4$s) / (1 - rate%1$d);\n", k, at.block, pixel, x.name);
    return value;
}

/* Lanes behind the last channel stay zero: a number that is no channel's is in none. */
static Value evaluate_one_hot(Row *row, Node *node, Place at)
{
    Value t = operand(row, node, 0, at);
    int channels = emission_size(row->e, node->shape.dims[0]);
    Value value = new_value(row, t.constant);
    text_printf(value_text(row, value), "one_hot@(%s, @ * %s, a->sizes[%d]);\n", t.name, at.block,
                channels);
    return value;
}

static Value evaluate_divide(Row *row, Node *node, Place at)
{
    Value x = operand(row, node, 0, at);
    int size = emission_size(row->e, (int64_t)node->attr[ATTR_PER_SAMPLE]);
    Value factor = new_value(row, true);
    text_printf(&row->before, "splat@((float)(1.0 / ((double)a->sizes[%d]%s)));\n", size,
                node->attr[ATTR_BATCHED] != 0 ? " * (double)a->batch" : "");
    Value value = new_value(row, x.constant);
    text_printf(value_text(row, value), "%s * %s;\n", x.name, factor.name);
    return value;
}

/* C text of the operators that need nothing but their operands' values. */
static const char *formula(Op op)
{
    switch ((int)op) {
    case OP_RELU: return "relu@($0)";
    case OP_SILU: return "silu@($0)";
    case OP_GELU: return "gelu@($0)";
    case OP_SIGMOID: return "sigmoid@($0)";
    case OP_EXPAND: return "$0";
    case OP_ADD: return "$0 + $1";
    case OP_SUB: return "$0 - $1";
    case OP_MUL: return "$0 * $1";
    case OP_DIV: return "$0 / $1";
    case OP_LEAKY_RELU: return "select@(less@(splat@(0), $0), $0, $0 * $s)";
    case OP_RELU_GRAD: return "keep@(less@(splat@(0), $1), $0)";
    case OP_LEAKY_RELU_GRAD: return "select@(less@(splat@(0), $1), $0, $0 * $s)";
    case OP_SILU_GRAD: return "silu_grad@($0, $1)";
    case OP_GELU_GRAD: return "gelu_grad@($0, $1)";
    case OP_SIGMOID_GRAD: return "$0 * $1 * (1 - $1)";
    case OP_CROSS_ENTROPY_TERMS:
        return "-($1 * max@(log@($0), splat@(-100))"
               " + (1 - $1) * max@(log@(1 - $0), splat@(-100)))";
    case OP_CROSS_ENTROPY_TERMS_GRAD: return "($0 - $1) / max@($0 * (1 - $0), splat@(1e-12f))";
    case OP_LOGITS_CROSS_ENTROPY_TERMS: return "relu@($0) - $0 * $1 + log1p@(exp@(-abs@($0)))";
    case OP_LOGITS_CROSS_ENTROPY_TERMS_GRAD: return "sigmoid@($0) - $1";
    case OP_CLASS_TERMS: return "-($1 * max@(log@($0), splat@(-100)))";
    case OP_CLASS_TERMS_GRAD: return "-($1 / max@($0, splat@(1e-12f)))";
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
                             emission_scalar(row->e, node->attr[ATTR_SLOPE]));
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
        text_printf(&row->before, "splat@((float)%.9g);\n", number);
    else
        text_printf(&row->before, "splat@(%s);\n", number > 0 ? "INFINITY"
                                                   : number < 0 ? "-INFINITY" : "NAN");
    return value;
}

Value row_expression(Row *row, Node *node, Place at)
{
    emission_name(row->e, op_facts[node->op].name);
    switch ((int)node->op) {
    case OP_CONCAT: case OP_SLICE: return evaluate_move(row, node, at);
    case OP_DROPOUT: return evaluate_dropout(row, node, at);
    case OP_ONE_HOT: return evaluate_one_hot(row, node, at);
    case OP_DIVIDE_BY_COUNT: return evaluate_divide(row, node, at);
    case OP_AFFINE: return evaluate_affine(row, node, at);
    case OP_COMBINE: return evaluate_combine(row, node, at);
    default: break;
    }
    if (!formula(node->op))
        bug("emit: no text for %s", node_text(row->e->graph, node));
    return evaluate_formula(row, node, at);
}

Value row_value(Row *row, Node *node, Place at)
{
    const Memo *memo = recall(row, node, at);
    if (memo)
        return memo->value;
    if (node->op == OP_CONSTANT)
        return remember(row, node, at, evaluate_constant(row, node));
    if (node->stored)
        return remember(row, node, at, leaf(row, node, at));
    return remember(row, node, at, row_expression(row, node, at));
}
