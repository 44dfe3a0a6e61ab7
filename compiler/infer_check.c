/* What the rules of infer.c check with, and how a violation is reported.
 *
 * Of a call that the model's author wrote: an error in named dimensions, at the operand that is
 * wrong, with a note where it was made and, if a window rounds down there, from what size. Of a
 * node that a pass made: a bug of ours. A result's size is checked as well, so that nobody behind
 * infer computes with more elements than 64 bits hold.
 */
#include "infer.h"

#include <stdarg.h>

static const int64_t MAX_DIM = INT32_MAX;

static const struct { Attribute attribute; double least, most; const char *text; } ranges[] = {
    {ATTR_CHANNELS, 1, INT32_MAX, "at least 1"},
    {ATTR_KERNEL, 1, 65535, "between 1 and 65535"},
    {ATTR_STRIDE, 1, 65535, "between 1 and 65535"},
    {ATTR_PADDING, 0, 65535, "between 0 and 65535"},
    {ATTR_OUTPUT_PADDING, 0, 65535, "between 0 and 65535"},
    {ATTR_DILATION, 1, 65535, "between 1 and 65535"},
    {ATTR_GROUPS, 1, INT32_MAX, "at least 1"},
    {ATTR_SCALE, 1, 65535, "between 1 and 65535"},
    {ATTR_EPS, 1e-30, 1e30, "positive"},
    {ATTR_MOMENTUM, 0, 1, "between 0 and 1"},
    {ATTR_RATE, 0, 0.999999, "at least 0 and less than 1"},
    {ATTR_SMOOTH, 0, 1e30, "at least 0"},
    {ATTR_ALPHA, 0, 1, "between 0 and 1"},
    {ATTR_BETA, 0, 1, "between 0 and 1"},
    {ATTR_GAMMA, 0, 5, "between 0 and 5"},
};

/* ---- messages -------------------------------------------------------------------------------- */

bool rule_fail(const Rule *rule, int operand, const char *format, ...)
{
    Node *node = rule->node;
    Arena *arena = rule->user ? rule->user->arena : rule->graph->arena;
    char *message = arena_alloc(arena, 1024);
    va_list list;
    va_start(list, format);
    vsnprintf(message, 1024, format, list);
    va_end(list);
    const char *op = op_facts[node->op].name;
    if (!rule->user)
        bug("%s: %s\n  %s", op, message, node_text(rule->graph, node));
    if (operand < 0)
        error_at(rule->user, node->loc, "%s: %s", op, message);
    else
        error_spans(rule->user, rule->arguments[operand], rule->arguments, node->n_inputs,
                    "%s: %s", op, message);
    return false;
}

static bool is_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] != '_' && !(text[i] >= '0' && text[i] <= '9')
            && !((text[i] | 32) >= 'a' && (text[i] | 32) <= 'z'))
            return false;
    return length > 0;
}

const char *operand_text(const Rule *rule, int operand)
{
    Arena *arena = rule->user ? rule->user->arena : rule->graph->arena;
    if (rule->arguments && rule->arguments[operand].file) {
        Loc loc = rule->arguments[operand];
        size_t length = loc.end - loc.begin;
        if (length < 60 && is_name(loc.file->text + loc.begin, length))
            return arena_printf(arena, "'%.*s'", (int)length, loc.file->text + loc.begin);
    }
    const Node *input = rule->node->inputs[operand];
    if (op_facts[input->op].kind == KIND_SOURCE)
        return input->op == OP_CONSTANT ? "the number" : arena_printf(arena, "'%s'", input->name);
    return arena_printf(arena, "the result of %s", op_facts[input->op].name);
}

const char *shape_text(const Rule *rule, Shape shape)
{
    Arena *arena = rule->user ? rule->user->arena : rule->graph->arena;
    if (shape.rank == 3)
        return arena_printf(arena, "C=%lld, H=%lld, W=%lld", (long long)shape.dims[0],
                            (long long)shape.dims[1], (long long)shape.dims[2]);
    Text text = {.arena = arena};
    text_printf(&text, "[");
    for (int i = 0; i < shape.rank; i++)
        text_printf(&text, "%s%lld", i ? "," : "", (long long)shape.dims[i]);
    text_printf(&text, "]");
    return text.text;
}

/* Notes where an operand comes from, and why its height or width is what it is. */
static void note_origin(const Rule *rule, int operand)
{
    const Node *made = rule->node->inputs[operand];
    if (!rule->user || made->op == OP_CONSTANT)
        return;
    const char *name = operand_text(rule, operand), *op = op_facts[made->op].name;
    if (made->op == OP_MAX_POOL || made->op == OP_AVG_POOL || made->op == OP_CONV) {
        int64_t h = made->inputs[0]->shape.dims[1];
        int64_t window = (int64_t)(made->attr[ATTR_KERNEL] - 1)
            * (made->op == OP_CONV ? (int64_t)made->attr[ATTR_DILATION] : 1) + 1;
        int64_t stride = (int64_t)made->attr[ATTR_STRIDE];
        if (stride > 1 && (h + 2 * (int64_t)made->attr[ATTR_PADDING] - window) % stride) {
            note_at(rule->user, made->loc,
                    "%s made here: %s of H=%lld with kernel %g, stride %g rounds down", name, op,
                    (long long)h, made->attr[ATTR_KERNEL], made->attr[ATTR_STRIDE]);
            return;
        }
    }
    note_at(rule->user, made->loc, "%s made here: %s of %s", name, op,
            shape_text(rule, made->shape));
}

/* ---- checks ---------------------------------------------------------------------------------- */

bool check_attributes(const Rule *rule)
{
    const Node *node = rule->node;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        Attribute which = ranges[i].attribute;
        double value = node->attr[which];
        if (op_has_attribute(node->op, which)
            && !(value >= ranges[i].least && value <= ranges[i].most))
            return rule_fail(rule, -1, "%s must be %s, got %g", attribute_facts[which].name,
                             ranges[i].text, value);
    }
    return true;
}

bool give(const Rule *rule, Shape shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++) {
        if (shape.dims[i] < 1)
            return rule_fail(rule, -1, "the result would be empty: %s", shape_text(rule, shape));
        if (shape.dims[i] > MAX_DIM || __builtin_mul_overflow(count, shape.dims[i], &count)
            || count > MAX_COUNT)
            return rule_fail(rule, -1, "the result would be too large: %s",
                             shape_text(rule, shape));
    }
    rule->node->shape = shape;
    rule->node->type = TYPE_F32;
    return true;
}

bool need_activation(const Rule *rule, int operand)
{
    const Node *input = rule->node->inputs[operand];
    if (!input->shape.batched || input->shape.rank != 3)
        return rule_fail(rule, operand, "expected an activation, got %s, which is %s",
                         operand_text(rule, operand),
                         op_facts[input->op].kind == KIND_LOSS ? "a loss"
                                                               : "one number for the batch");
    if (input->type != TYPE_F32)
        return rule_fail(rule, operand, "expected f32, got %s, which is u8: divide it first, as in "
                         "image / 255", operand_text(rule, operand));
    return true;
}

bool need_shape(const Rule *rule, int operand, Shape expected)
{
    if (shape_equal(rule->node->inputs[operand]->shape, expected))
        return true;
    return rule_fail(rule, operand, "operand %d: expected %s, got %s", operand,
                     shape_text(rule, expected),
                     shape_text(rule, rule->node->inputs[operand]->shape));
}

bool need_equal(const Rule *rule, int a, int b, int dimension)
{
    static const char *const names[] = {"channels", "heights", "widths"};
    int64_t left = rule->node->inputs[a]->shape.dims[dimension];
    int64_t right = rule->node->inputs[b]->shape.dims[dimension];
    if (left == right)
        return true;
    const Loc *spans = rule->arguments;
    if (!rule->user)
        return rule_fail(rule, a, "%s differ: %lld, %lld", names[dimension], (long long)left,
                         (long long)right);
    error_spans(rule->user, spans[a], &spans[b], 1, "%s: %s differ: %s has %c=%lld, %s has %c=%lld",
                op_facts[rule->node->op].name, names[dimension], operand_text(rule, a),
                "CHW"[dimension], (long long)left, operand_text(rule, b), "CHW"[dimension],
                (long long)right);
    note_origin(rule, a);
    note_origin(rule, b);
    return false;
}
