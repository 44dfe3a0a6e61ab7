/* Shape and type of every operator from its operands'.
 *
 * One rule an operator, used three ways: infer_call checks what the model's author wrote, before
 * there is a node, and reports in named dimensions which operand is wrong and where it was made;
 * infer runs over a built graph; infer_node serves the passes, for which a violation is a bug of
 * ours. Letters: an activation is [C,H,W] (N implied), a result [K,P,Q].
 */
#include "infer.h"

static int64_t attribute(const Node *node, Attribute which)
{
    return (int64_t)node->attr[which];
}

static Shape vector(int64_t count)
{
    return shape_fixed(1, (int64_t[]){count});
}

static Shape rows(int64_t count, int64_t channels)
{
    return shape_fixed(2, (int64_t[]){count, channels});
}

/* ---- contractions ---------------------------------------------------------------------------- */

/* Passes: the weight and bias that follow x. infer_call: tells the weight's shape. */
static bool check_weight(const Rule *rule, Shape weight, int64_t channels)
{
    int64_t count = 1;
    for (int i = 0; i < weight.rank; i++)
        if (__builtin_mul_overflow(count, weight.dims[i], &count) || count > MAX_COUNT)
            return rule_fail(rule, -1, "the weight would be too large: %s",
                             shape_text(rule, weight));
    if (rule->user) {
        *rule->weight = weight;
        return true;
    }
    return need_shape(rule, 1, weight)
        && (rule->node->n_inputs < 3 || need_shape(rule, 2, vector(channels)));
}

/* A convolution's or pool's output size; 0 where the window does not fit. */
static int64_t window_count(const Node *node, int64_t size, int64_t dilation)
{
    int64_t window = dilation * (attribute(node, ATTR_KERNEL) - 1) + 1;
    int64_t room = size + 2 * attribute(node, ATTR_PADDING) - window;
    return room < 0 ? 0 : room / attribute(node, ATTR_STRIDE) + 1;
}

static bool give_windows(const Rule *rule, int64_t channels, int64_t dilation)
{
    const Node *node = rule->node;
    int64_t h = node->inputs[0]->shape.dims[1], w = node->inputs[0]->shape.dims[2];
    int64_t p = window_count(node, h, dilation), q = window_count(node, w, dilation);
    if (!p || !q) {
        Arena *arena = rule->user ? rule->user->arena : rule->graph->arena;
        const char *dilated =
            dilation > 1 ? arena_printf(arena, " (dilation %lld)", (long long)dilation) : "";
        return rule_fail(rule, 0,
                         "kernel %lld%s does not fit into %s with %c=%lld and padding %lld",
                         (long long)attribute(node, ATTR_KERNEL), dilated, operand_text(rule, 0),
                         p ? 'W' : 'H', (long long)(p ? w : h),
                         (long long)attribute(node, ATTR_PADDING));
    }
    return give(rule, shape_sample(channels, p, q));
}

static bool check_groups(const Rule *rule)
{
    const Node *node = rule->node;
    int64_t c = node->inputs[0]->shape.dims[0], k = attribute(node, ATTR_CHANNELS);
    int64_t groups = attribute(node, ATTR_GROUPS);
    if (c % groups)
        return rule_fail(rule, 0, "groups=%lld does not divide the channels of %s, C=%lld",
                         (long long)groups, operand_text(rule, 0), (long long)c);
    if (k % groups)
        return rule_fail(rule, -1, "groups=%lld does not divide channels=%lld", (long long)groups,
                         (long long)k);
    return true;
}

static bool rule_conv(const Rule *rule)
{
    const Node *node = rule->node;
    if (!need_activation(rule, 0) || !check_groups(rule))
        return false;
    int64_t k = attribute(node, ATTR_CHANNELS), kernel = attribute(node, ATTR_KERNEL);
    int64_t per_group = node->inputs[0]->shape.dims[0] / attribute(node, ATTR_GROUPS);
    Shape weight = shape_fixed(4, (int64_t[]){k, per_group, kernel, kernel});
    return check_weight(rule, weight, k)
        && give_windows(rule, k, attribute(node, ATTR_DILATION));
}

static bool rule_conv_transpose(const Rule *rule)
{
    const Node *node = rule->node;
    if (!need_activation(rule, 0) || !check_groups(rule))
        return false;
    int64_t k = attribute(node, ATTR_CHANNELS), kernel = attribute(node, ATTR_KERNEL);
    int64_t stride = attribute(node, ATTR_STRIDE), dilation = attribute(node, ATTR_DILATION);
    int64_t end = attribute(node, ATTR_OUTPUT_PADDING);
    const int64_t *x = node->inputs[0]->shape.dims;
    if (end >= stride && end >= dilation)
        return rule_fail(rule, -1, "output_padding=%lld must be less than stride or dilation",
                         (long long)end);
    Shape weight =
        shape_fixed(4, (int64_t[]){x[0], k / attribute(node, ATTR_GROUPS), kernel, kernel});
    int64_t more = dilation * (kernel - 1) + end + 1 - 2 * attribute(node, ATTR_PADDING);
    int64_t p = (x[1] - 1) * stride + more, q = (x[2] - 1) * stride + more;
    return check_weight(rule, weight, k) && give(rule, shape_sample(k, p, q));
}

static bool rule_linear(const Rule *rule)
{
    const Node *node = rule->node;
    int64_t k = attribute(node, ATTR_CHANNELS);
    if (!need_activation(rule, 0))
        return false;
    Shape weight = rows(k, shape_count(node->inputs[0]->shape));
    return check_weight(rule, weight, k) && give(rule, shape_sample(k, 1, 1));
}

/* Gradients whose shape the caller gave: only its kind is checked. */
static bool rule_given(const Rule *rule, bool batched, int rank)
{
    const Shape shape = rule->node->shape;
    if (shape.rank == 0)
        return rule_fail(rule, -1, "the caller must give the shape");
    if (shape.batched != batched || shape.rank != rank)
        return rule_fail(rule, -1, "the caller gave the shape %s", shape_text(rule, shape));
    return need_activation(rule, 0) && give(rule, shape);
}

static bool rule_conv_grad_weight(const Rule *rule)
{
    const Node *node = rule->node;
    int64_t kernel = attribute(node, ATTR_KERNEL);
    if (!need_activation(rule, 0) || !need_activation(rule, 1))
        return false;
    int64_t c = node->inputs[0]->shape.dims[0], k = node->inputs[1]->shape.dims[0];
    return give(rule, shape_fixed(4, (int64_t[]){k, c / attribute(node, ATTR_GROUPS), kernel,
                                                 kernel}));
}

static bool rule_linear_grad_weight(const Rule *rule)
{
    const Node *node = rule->node;
    return need_activation(rule, 0) && need_activation(rule, 1)
        && give(rule, rows(node->inputs[1]->shape.dims[0], shape_count(node->inputs[0]->shape)));
}

/* ---- batch normalisation: fixed tensors of C numbers or rows of C ---------------------------- */

static int64_t channels_of(const Node *node, int operand)
{
    Shape shape = node->inputs[operand]->shape;
    return shape.dims[shape.rank == 2 ? 1 : 0];
}

/* Operands from `first`: n_rows (0: a vector) of C each, as the letters say. */
static bool need_rows(const Rule *rule, int first, const char *row_counts, int64_t c)
{
    for (int i = 0; row_counts[i]; i++) {
        int count = row_counts[i] - '0';
        if (!need_shape(rule, first + i, count ? rows(count, c) : vector(c)))
            return false;
    }
    return true;
}

static bool rule_batch_norm(const Rule *rule)
{
    const Node *node = rule->node;
    if (!need_activation(rule, 0))
        return false;
    Shape x = node->inputs[0]->shape;
    if (rule->user)
        *rule->weight = vector(x.dims[0]);
    else if (!need_rows(rule, 1, "0000", x.dims[0]))
        return false;
    return give(rule, x);
}

static bool rule_statistics(const Rule *rule)
{
    const Node *node = rule->node;
    int64_t c = channels_of(node, 0);
    switch ((int)node->op) {
    case OP_BATCH_MOMENTS:
        return need_activation(rule, 0) && give(rule, rows(2, c));
    case OP_BATCH_NORM_COEFFICIENTS:
        return need_rows(rule, 0, "200", c) && give(rule, rows(2, c));
    case OP_BATCH_NORM_RUNNING:
        return need_rows(rule, 0, "0000", c) && give(rule, rows(2, c));
    case OP_AFFINE:
        return need_activation(rule, 0) && need_rows(rule, 1, "2", c)
            && give(rule, node->inputs[0]->shape);
    case OP_BATCH_NORM_SUMS:
        return need_activation(rule, 0) && need_shape(rule, 1, node->inputs[0]->shape)
            && need_rows(rule, 2, "2", c) && give(rule, rows(2, c));
    case OP_BATCH_NORM_SLOPES:
        return need_rows(rule, 0, "202", c) && give(rule, rows(3, c));
    case OP_COMBINE:
        return need_activation(rule, 0) && need_shape(rule, 1, node->inputs[0]->shape)
            && need_rows(rule, 2, "3", c) && give(rule, node->inputs[0]->shape);
    case OP_BATCH_NORM_GRAD_WEIGHT:
        return need_rows(rule, 0, "22", c) && give(rule, vector(c));
    case OP_BATCH_NORM_GRAD_BIAS:
        return need_rows(rule, 0, "2", c) && give(rule, vector(c));
    case OP_RUNNING_MEAN: case OP_RUNNING_VAR:
        return need_rows(rule, 0, "02", c) && give(rule, vector(c));
    case OP_FOLD_WEIGHT:
        return need_rows(rule, 1, "2", node->inputs[0]->shape.dims[0])
            && give(rule, node->inputs[0]->shape);
    case OP_FOLD_BIAS:
        return need_rows(rule, 0, node->n_inputs > 1 ? "20" : "2", c) && give(rule, vector(c));
    }
    bug("rule_statistics: %s", op_facts[node->op].name);
}

/* ---- pointwise ------------------------------------------------------------------------------- */

static bool is_scalar(Shape shape)
{
    return !shape.batched && shape_count(shape) == 1;
}

/* a and b broadcast over the batch (a fixed one), the channels (C=1) and the pixels (H=W=1). */
static bool rule_broadcast(const Rule *rule)
{
    const Node *a = rule->node->inputs[0], *b = rule->node->inputs[1];
    if (shape_equal(a->shape, b->shape))
        return give(rule, a->shape);
    if (a->shape.rank != 3 || b->shape.rank != 3)
        return rule_fail(rule, 1, "shapes %s and %s", shape_text(rule, a->shape),
                         shape_text(rule, b->shape));
    for (int i = 0; i < 2 && rule->user; i++) {
        const Node *one = rule->node->inputs[i], *other = rule->node->inputs[1 - i];
        if (is_scalar(one->shape) && one->op != OP_CONSTANT && !is_scalar(other->shape))
            return rule_fail(rule, i, "%s is one number for the batch and goes with numbers and "
                             "losses only", operand_text(rule, i));
    }
    const int64_t *x = a->shape.dims, *y = b->shape.dims;
    Shape shape = a->shape;
    bool x_pixel = x[1] == 1 && x[2] == 1, y_pixel = y[1] == 1 && y[2] == 1;
    if (x[0] != 1 && y[0] != 1 && !need_equal(rule, 0, 1, 0))
        return false;
    if (!x_pixel && !y_pixel && (!need_equal(rule, 0, 1, 1) || !need_equal(rule, 0, 1, 2)))
        return false;
    shape.batched |= b->shape.batched;
    shape.dims[0] = x[0] == 1 ? y[0] : x[0];
    shape.dims[1] = x_pixel ? y[1] : x[1];
    shape.dims[2] = x_pixel ? y[2] : x[2];
    return give(rule, shape);
}

/* f(x) of any shape. */
static bool rule_same(const Rule *rule)
{
    if (rule->user && !need_activation(rule, 0))
        return false;
    return give(rule, rule->node->inputs[0]->shape);
}

/* f(a, b) of two tensors of one shape, the second of any type. */
static bool rule_pair(const Rule *rule, Shape result)
{
    const Node *a = rule->node->inputs[0], *b = rule->node->inputs[1];
    if (!rule->user)
        return need_shape(rule, 1, a->shape) && give(rule, result);
    if (!need_activation(rule, 0))
        return false;
    if (!b->shape.batched)
        return need_activation(rule, 1);
    return need_equal(rule, 0, 1, 0) && need_equal(rule, 0, 1, 1) && need_equal(rule, 0, 1, 2)
        && give(rule, result);
}

/* ---- class numbers --------------------------------------------------------------------------- */

enum { MOST_CLASSES = 255 };  /* 255 in a mask is no class */

/* One channel of numbers of any type. */
static bool need_class_numbers(const Rule *rule, int operand)
{
    const Node *t = rule->node->inputs[operand];
    if (!t->shape.batched || t->shape.rank != 3)
        return need_activation(rule, operand);
    return t->shape.dims[0] == 1
        || rule_fail(rule, operand, "expected class numbers, [1,H,W], got %s with C=%lld",
                     operand_text(rule, operand), (long long)t->shape.dims[0]);
}

static bool rule_one_hot(const Rule *rule)
{
    const int64_t *t = rule->node->inputs[0]->shape.dims;
    return need_class_numbers(rule, 0)
        && give(rule, shape_sample(attribute(rule->node, ATTR_CHANNELS), t[1], t[2]));
}

/* Probabilities of several classes against class numbers. */
static bool compares_classes(const Node *node)
{
    const Shape p = node->inputs[0]->shape, t = node->inputs[1]->shape;
    return p.rank == 3 && t.rank == 3 && p.batched && t.batched && p.dims[0] > 1
        && t.dims[0] == 1;
}

static bool rule_classes(const Rule *rule, Shape result)
{
    const Node *p = rule->node->inputs[0];
    if (!need_activation(rule, 0) || !need_class_numbers(rule, 1))
        return false;
    if (p->shape.dims[0] < 2)
        return rule_fail(rule, 0, "%s has C=1: of one class against the background the loss is "
                         "binary_cross_entropy", operand_text(rule, 0));
    if (p->shape.dims[0] > MOST_CLASSES)
        return rule_fail(rule, 0, "%s has C=%lld; a mask of bytes holds %d classes at most",
                         operand_text(rule, 0), (long long)p->shape.dims[0], MOST_CLASSES);
    if (rule->node->op == OP_DICE && rule->node->attr[ATTR_THRESHOLD] != 0.5)
        return rule_fail(rule, -1, "threshold=%g is for one class; of several the largest counts",
                         rule->node->attr[ATTR_THRESHOLD]);
    return need_equal(rule, 0, 1, 1) && need_equal(rule, 0, 1, 2) && give(rule, result);
}

/* ---- reductions and windows ------------------------------------------------------------------ */

/* The reduced dimensions become 1; over the batch the result is fixed, over batch and pixels it
 * is a vector of C as a bias is. */
static bool rule_sum(const Rule *rule)
{
    int64_t axes = attribute(rule->node, ATTR_AXES);
    Shape shape = rule->node->inputs[0]->shape;
    if (shape.rank != 3 || axes < 1 || axes > AXIS_ALL)
        return rule_fail(rule, -1, "axes=%lld of %s", (long long)axes, shape_text(rule, shape));
    if (axes == (AXIS_BATCH | AXIS_PIXELS))
        return give(rule, vector(shape.dims[0]));
    if (axes & AXIS_BATCH)
        shape.batched = false;
    if (axes & AXIS_CHANNELS)
        shape.dims[0] = 1;
    if (axes & AXIS_PIXELS)
        shape.dims[1] = shape.dims[2] = 1;
    return give(rule, shape);
}

static bool rule_pool(const Rule *rule)
{
    const Node *node = rule->node;
    if (!need_activation(rule, 0))
        return false;
    if (2 * attribute(node, ATTR_PADDING) > attribute(node, ATTR_KERNEL))
        return rule_fail(rule, -1, "padding=%g is more than half of kernel=%g",
                         node->attr[ATTR_PADDING], node->attr[ATTR_KERNEL]);
    return give_windows(rule, node->inputs[0]->shape.dims[0], 1);
}

static bool rule_upsample(const Rule *rule)
{
    if (!need_activation(rule, 0))
        return false;
    int64_t scale = attribute(rule->node, ATTR_SCALE);
    const int64_t *x = rule->node->inputs[0]->shape.dims;
    return give(rule, shape_sample(x[0], x[1] * scale, x[2] * scale));
}

static bool rule_reduced(const Rule *rule, bool to_pixel)
{
    if (!need_activation(rule, 0))
        return false;
    const int64_t *x = rule->node->inputs[0]->shape.dims;
    return give(rule, to_pixel ? shape_sample(x[0], 1, 1) : shape_sample(1, x[1], x[2]));
}

/* ---- moves ----------------------------------------------------------------------------------- */

static bool rule_concat(const Rule *rule)
{
    const Node *node = rule->node;
    int64_t channels = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        if (!need_activation(rule, i)
            || (i && (!need_equal(rule, 0, i, 1) || !need_equal(rule, 0, i, 2))))
            return false;
        channels += node->inputs[i]->shape.dims[0];
    }
    const int64_t *x = node->inputs[0]->shape.dims;
    return give(rule, shape_sample(channels, x[1], x[2]));
}

static bool rule_slice(const Rule *rule)
{
    const Node *node = rule->node;
    if (!need_activation(rule, 0))
        return false;
    const int64_t *x = node->inputs[0]->shape.dims;
    int64_t from = attribute(node, ATTR_FROM), channels = attribute(node, ATTR_CHANNELS);
    if (from < 0 || from + channels > x[0])
        return rule_fail(rule, -1, "channels %lld..%lld of C=%lld", (long long)from,
                         (long long)(from + channels), (long long)x[0]);
    return give(rule, shape_sample(channels, x[1], x[2]));
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* pad enlarges the sides that are smaller than like's, crop cuts those that are larger. With `like`
 * the place is worked out here and the operand dropped: it is a size, not a value. */
static bool rule_pad_crop(const Rule *rule)
{
    Node *node = rule->node;
    if (!need_activation(rule, 0))
        return false;
    const int64_t *x = node->inputs[0]->shape.dims;
    if (node->n_inputs == 1)
        return node->shape.rank == 3 ? give(rule, node->shape)
                                     : rule_fail(rule, -1, "the caller must give the shape");
    Shape like = node->inputs[1]->shape;
    if (like.rank != 3 || !like.batched)
        return need_activation(rule, 1);
    int64_t side[2];
    for (int i = 0; i < 2; i++) {
        int64_t more = node->op == OP_PAD ? larger(like.dims[1 + i] - x[1 + i], 0)
                                          : larger(x[1 + i] - like.dims[1 + i], 0);
        node->attr[i == 0 ? ATTR_TOP : ATTR_LEFT] = (double)(more / 2);
        side[i] = node->op == OP_PAD ? x[1 + i] + more : x[1 + i] - more;
    }
    node->n_inputs = 1;
    return give(rule, shape_sample(x[0], side[0], side[1]));
}

/* ---- all of them ----------------------------------------------------------------------------- */

static bool apply(const Rule *rule)
{
    Node *node = rule->node;
    static const int64_t one[3] = {1, 1, 1};
    Shape x = node->n_inputs ? node->inputs[0]->shape : (Shape){0};
    switch (node->op) {
    case OP_INPUT: case OP_TARGET: case OP_PARAMETER: case OP_BUFFER:
        return node->shape.rank ? true : rule_fail(rule, -1, "a source without a shape");
    case OP_CONSTANT:
        return give(rule, shape_fixed(3, one));
    case OP_CONV: return rule_conv(rule);
    case OP_CONV_TRANSPOSE: return rule_conv_transpose(rule);
    case OP_LINEAR: return rule_linear(rule);
    case OP_CONV_GRAD_WEIGHT: return rule_conv_grad_weight(rule);
    case OP_LINEAR_GRAD_WEIGHT: return rule_linear_grad_weight(rule);
    case OP_CONV_GRAD_INPUT: case OP_LINEAR_GRAD_INPUT:
    case OP_AVG_POOL_GRAD: case OP_UPSAMPLE_GRAD:
        return rule_given(rule, true, 3);
    case OP_BATCH_NORM: return rule_batch_norm(rule);
    case OP_BATCH_MOMENTS: case OP_BATCH_NORM_COEFFICIENTS: case OP_BATCH_NORM_RUNNING:
    case OP_AFFINE: case OP_BATCH_NORM_SUMS: case OP_BATCH_NORM_SLOPES: case OP_COMBINE:
    case OP_BATCH_NORM_GRAD_WEIGHT: case OP_BATCH_NORM_GRAD_BIAS: case OP_RUNNING_MEAN:
    case OP_RUNNING_VAR: case OP_FOLD_WEIGHT: case OP_FOLD_BIAS:
        return rule_statistics(rule);
    case OP_RELU: case OP_LEAKY_RELU: case OP_SILU: case OP_GELU: case OP_SIGMOID:
    case OP_DROPOUT: case OP_DIVIDE_BY_COUNT: case OP_SOFTMAX:
        return rule_same(rule);
    case OP_ONE_HOT: return rule_one_hot(rule);
    case OP_ADD: case OP_SUB: case OP_MUL: case OP_DIV: return rule_broadcast(rule);
    case OP_EXPAND:
        return node->shape.rank ? give(rule, node->shape)
                                : rule_fail(rule, -1, "the caller must give the shape");
    case OP_RELU_GRAD: case OP_LEAKY_RELU_GRAD: case OP_SILU_GRAD: case OP_GELU_GRAD:
    case OP_SIGMOID_GRAD: case OP_SOFTMAX_GRAD: case OP_CROSS_ENTROPY_TERMS:
    case OP_CROSS_ENTROPY_TERMS_GRAD: case OP_LOGITS_CROSS_ENTROPY_TERMS:
    case OP_LOGITS_CROSS_ENTROPY_TERMS_GRAD: case OP_CLASS_TERMS: case OP_CLASS_TERMS_GRAD:
        return rule_pair(rule, x);
    case OP_SUM: case OP_MEAN: return rule_sum(rule);
    case OP_GLOBAL_AVG_POOL: case OP_GLOBAL_MAX_POOL: return rule_reduced(rule, true);
    case OP_CHANNEL_MEAN: case OP_CHANNEL_MAX: return rule_reduced(rule, false);
    case OP_GLOBAL_MAX_POOL_GRAD: case OP_CHANNEL_MAX_GRAD: case OP_MAX_POOL_GRAD:
        return need_activation(rule, 0) && give(rule, node->inputs[1]->shape);
    case OP_DICE_SUMS: return rule_pair(rule, shape_sample(5, 1, 1));
    case OP_MAX_POOL: case OP_AVG_POOL: return rule_pool(rule);
    case OP_UPSAMPLE: return rule_upsample(rule);
    case OP_CONCAT: return rule_concat(rule);
    case OP_SLICE: return rule_slice(rule);
    case OP_PAD: case OP_CROP: return rule_pad_crop(rule);
    case OP_CROSS_ENTROPY: return rule_classes(rule, shape_fixed(3, one));
    case OP_DICE_LOSS: case OP_DICE: {
        const Shape result = node->op == OP_DICE ? shape_sample(1, 1, 1) : shape_fixed(3, one);
        return compares_classes(node) ? rule_classes(rule, result) : rule_pair(rule, result);
    }
    case OP_BINARY_CROSS_ENTROPY: case OP_TVERSKY_LOSS: case OP_FOCAL_LOSS:
        return rule_pair(rule, shape_fixed(3, one));
    case OP_COUNT: break;
    }
    bug("no such operator: %d", (int)node->op);
}

bool infer_call(Compilation *c, Node *call, const Loc *arguments, Shape *weight)
{
    Rule rule = {.user = c, .node = call, .arguments = arguments, .weight = weight};
    return check_attributes(&rule) && apply(&rule);
}

void infer_node(Graph *graph, Node *node)
{
    Rule rule = {.graph = graph, .node = node};
    if (check_attributes(&rule))
        apply(&rule);
}

void infer(Graph *graph)
{
    for (int i = 0; i < graph->n_nodes; i++)
        infer_node(graph, graph->nodes[i]);
}
