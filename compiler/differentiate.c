/* Reverse-mode differentiation: adds the gradient of the loss to a training graph.
 *
 * Needs: a graph of PROGRAM_TRAIN with one result ROLE_LOSS named "loss". Keeps: every node and
 * result there is. Adds: a result ROLE_GRADIENT for each trainable parameter, named after it (and
 * for each f32 input, where the compilation asks), and the ordinary nodes that compute them.
 *
 * The walk goes from the loss to the sources. A node whose gradient dy is complete hands each
 * operand its share; shares of several readers are added. Only nodes that depend on something
 * trained take part, so no gradient is made for pictures. Batch norm is differentiated as a unit
 * (its moments depend on x too): the affine's rule reaches through coefficients and moments to x,
 * weight and bias.
 *
 * Rules return ordinary nodes with the forward node's place in the text. There is no tape and no
 * second form of a graph: the same passes simplify, fuse and plan both directions.
 */
#include <string.h>

#include "seg.h"

typedef struct {
    Graph *graph;
    Node **gradients;   /* by id of the forward node; NULL: none yet */
    bool *needed;       /* by id: depends on a parameter, or on an input that asks */
} Gradients;

/* ---- making nodes ---------------------------------------------------------------------------- */

static Node *inferred(Gradients *g, Node *node)
{
    infer_node(g->graph, node);
    return node;
}

static Node *unary(Gradients *g, Op op, const Node *at, Node *a)
{
    return graph_add(g->graph, op, at->loc, 1, (Node *[]){a});
}

static Node *binary(Gradients *g, Op op, const Node *at, Node *a, Node *b)
{
    return graph_add(g->graph, op, at->loc, 2, (Node *[]){a, b});
}

/* Copies those attributes of the forward node that the gradient operator has too. */
static Node *with_attributes(Node *node, const Node *from)
{
    for (int i = 0; i < ATTR_COUNT; i++)
        if (op_has_attribute(node->op, (Attribute)i))
            node->attr[i] = from->attr[i];
    return node;
}

static Node *constant(Gradients *g, const Node *at, double value)
{
    Node *node = graph_add(g->graph, OP_CONSTANT, at->loc, 0, NULL);
    node->attr[ATTR_VALUE] = value;
    node->shape = shape_fixed(3, (int64_t[]){1, 1, 1});
    return node;
}

static Node *negated(Gradients *g, const Node *at, Node *x)
{
    return inferred(g, binary(g, OP_MUL, at, x, constant(g, at, -1)));
}

static Node *sum(Gradients *g, const Node *at, Node *x, int axes)
{
    Node *node = unary(g, OP_SUM, at, x);
    node->attr[ATTR_AXES] = axes;
    return inferred(g, node);
}

static Node *expanded(Gradients *g, const Node *at, Node *x, Shape shape)
{
    if (shape_equal(x->shape, shape))
        return x;
    Node *node = unary(g, OP_EXPAND, at, x);
    node->shape = shape;
    return inferred(g, node);
}

static Node *divided(Gradients *g, const Node *at, Node *x, int64_t per_sample, bool batched)
{
    Node *node = unary(g, OP_DIVIDE_BY_COUNT, at, x);
    node->attr[ATTR_PER_SAMPLE] = (double)per_sample;
    node->attr[ATTR_BATCHED] = batched;
    return inferred(g, node);
}

/* Undoes broadcasting: sums dy over the axes along which an operand of that shape was repeated. */
static Node *summed_to(Gradients *g, const Node *at, Node *dy, Shape shape)
{
    if (dy->shape.batched && !shape.batched)
        return sum(g, at, dy, AXIS_ALL);
    if (dy->shape.dims[0] != 1 && shape.dims[0] == 1)
        dy = sum(g, at, dy, AXIS_CHANNELS);
    if (dy->shape.dims[1] * dy->shape.dims[2] != shape.dims[1] * shape.dims[2])
        dy = sum(g, at, dy, AXIS_PIXELS);
    return dy;
}

/* Adds a share to the gradient of a forward node. */
static void share(Gradients *g, const Node *at, Node *of, Node *gradient)
{
    Node *before = g->gradients[of->id];
    g->gradients[of->id] = before ? inferred(g, binary(g, OP_ADD, at, before, gradient)) : gradient;
}

static bool needs(const Gradients *g, const Node *node, int operand)
{
    return operand < node->n_inputs && g->needed[node->inputs[operand]->id];
}

/* ---- contractions ---------------------------------------------------------------------------- */

static void share_bias(Gradients *g, const Node *node, Node *dy)
{
    if (needs(g, node, 2))
        share(g, node, node->inputs[2], sum(g, node, dy, AXIS_BATCH | AXIS_PIXELS));
}

static void differentiate_conv(Gradients *g, Node *node, Node *dy)
{
    Node *x = node->inputs[0], *weight = node->inputs[1];
    if (needs(g, node, 0)) {
        Node *dx = with_attributes(binary(g, OP_CONV_GRAD_INPUT, node, dy, weight), node);
        dx->shape = x->shape;
        share(g, node, x, inferred(g, dx));
    }
    if (needs(g, node, 1)) {
        Node *dweight = with_attributes(binary(g, OP_CONV_GRAD_WEIGHT, node, x, dy), node);
        share(g, node, weight, inferred(g, dweight));
    }
    share_bias(g, node, dy);
}

/* conv_transpose is the input gradient of a convolution from its result to x, so that convolution,
 * with the same weight, is its own input gradient. With an output padding of a stride or more
 * (legal under dilation) the convolution has rows that x has not; they belong to nothing. */
static void differentiate_conv_transpose(Gradients *g, Node *node, Node *dy)
{
    Node *x = node->inputs[0], *weight = node->inputs[1];
    if (needs(g, node, 0)) {
        Node *dx = with_attributes(binary(g, OP_CONV, node, dy, weight), node);
        dx->attr[ATTR_CHANNELS] = (double)x->shape.dims[0];
        dx->attr[ATTR_BIAS] = false;
        dx = inferred(g, dx);
        if (!shape_equal(dx->shape, x->shape)) {
            dx = unary(g, OP_CROP, node, dx);
            dx->shape = x->shape;
            dx = inferred(g, dx);
        }
        share(g, node, x, dx);
    }
    if (needs(g, node, 1)) {
        Node *dweight = with_attributes(binary(g, OP_CONV_GRAD_WEIGHT, node, dy, x), node);
        share(g, node, weight, inferred(g, dweight));
    }
    share_bias(g, node, dy);
}

static void differentiate_linear(Gradients *g, Node *node, Node *dy)
{
    Node *x = node->inputs[0], *weight = node->inputs[1];
    if (needs(g, node, 0)) {
        Node *dx = binary(g, OP_LINEAR_GRAD_INPUT, node, dy, weight);
        dx->shape = x->shape;
        share(g, node, x, inferred(g, dx));
    }
    if (needs(g, node, 1))
        share(g, node, weight, inferred(g, binary(g, OP_LINEAR_GRAD_WEIGHT, node, x, dy)));
    share_bias(g, node, dy);
}

/* ---- batch normalisation (Ioffe, Szegedy 2015, section 3) ------------------------------------ */

static void differentiate_batch_norm(Gradients *g, Node *node, Node *dy)
{
    Graph *graph = g->graph;
    Node *x = node->inputs[0], *coefficients = node->inputs[1];
    if (coefficients->op != OP_BATCH_NORM_COEFFICIENTS
        || coefficients->inputs[0]->inputs[0] != x)
        bug("differentiate: not the batch norm of its own operand\n    %s", node_text(graph, node));
    Node *moments = coefficients->inputs[0], *weight = coefficients->inputs[1];
    Node *bias = coefficients->inputs[2];
    double eps = coefficients->attr[ATTR_EPS];

    Node *sums = inferred(g, graph_add(graph, OP_BATCH_NORM_SUMS, node->loc, 3,
                                       (Node *[]){dy, x, moments}));
    if (g->needed[x->id]) {
        Node *slopes = graph_add(graph, OP_BATCH_NORM_SLOPES, node->loc, 3,
                                 (Node *[]){moments, weight, sums});
        slopes->attr[ATTR_EPS] = eps;
        slopes->attr[ATTR_PER_SAMPLE] = (double)(x->shape.dims[1] * x->shape.dims[2]);
        infer_node(graph, slopes);
        share(g, node, x, inferred(g, graph_add(graph, OP_COMBINE, node->loc, 3,
                                                (Node *[]){dy, x, slopes})));
    }
    if (g->needed[weight->id]) {
        Node *dweight = binary(g, OP_BATCH_NORM_GRAD_WEIGHT, node, moments, sums);
        dweight->attr[ATTR_EPS] = eps;
        share(g, node, weight, inferred(g, dweight));
    }
    if (g->needed[bias->id])
        share(g, node, bias, inferred(g, unary(g, OP_BATCH_NORM_GRAD_BIAS, node, sums)));
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static void share_summed(Gradients *g, Node *node, int operand, Node *gradient)
{
    Node *of = node->inputs[operand];
    share(g, node, of, summed_to(g, node, gradient, of->shape));
}

static void differentiate_sum_of_two(Gradients *g, Node *node, Node *dy)
{
    if (needs(g, node, 0))
        share_summed(g, node, 0, dy);
    if (needs(g, node, 1)) {
        Node *db = summed_to(g, node, dy, node->inputs[1]->shape);
        share(g, node, node->inputs[1], node->op == OP_SUB ? negated(g, node, db) : db);
    }
}

static void differentiate_mul(Gradients *g, Node *node, Node *dy)
{
    for (int i = 0; i < 2; i++)
        if (needs(g, node, i))
            share_summed(g, node, i, inferred(g, binary(g, OP_MUL, node, dy, node->inputs[1 - i])));
}

/* y = a/b: dy/b for a, -dy*y/b for b. */
static void differentiate_div(Gradients *g, Node *node, Node *dy)
{
    Node *a = node->inputs[0], *b = node->inputs[1];
    Node *da = inferred(g, binary(g, OP_DIV, node, dy, b));
    if (needs(g, node, 0))
        share(g, node, a, summed_to(g, node, da, a->shape));
    if (needs(g, node, 1)) {
        Node *product = inferred(g, binary(g, OP_MUL, node, da, node));
        share(g, node, b, negated(g, node, summed_to(g, node, product, b->shape)));
    }
}

/* The terms of a cross entropy, for p or z; targets have no gradient. */
static void differentiate_terms(Gradients *g, Node *node, Node *dy, Op gradient)
{
    Node *slope = inferred(g, binary(g, gradient, node, node->inputs[0], node->inputs[1]));
    if (needs(g, node, 0))
        share_summed(g, node, 0, inferred(g, binary(g, OP_MUL, node, dy, slope)));
}

/* Terms t log p of softmax's p: through p, dz = p * sum(dy t) - dy t, which no p however small
 * makes wrong. */
static void differentiate_class_terms(Gradients *g, Node *node, Node *dy)
{
    Node *p = node->inputs[0], *t = node->inputs[1];
    if (p->op != OP_SOFTMAX) {
        differentiate_terms(g, node, dy, OP_CLASS_TERMS_GRAD);
        return;
    }
    if (!needs(g, p, 0))
        return;
    Node *wanted = inferred(g, binary(g, OP_MUL, node, dy, t));
    Node *spread = inferred(g, binary(g, OP_MUL, node, p, sum(g, node, wanted, AXIS_CHANNELS)));
    share(g, node, p->inputs[0], inferred(g, binary(g, OP_SUB, node, spread, wanted)));
}

/* ---- reductions, windows, moves -------------------------------------------------------------- */

static int64_t mean_count(const Node *node, Shape shape)
{
    int axes = (int)node->attr[ATTR_AXES];
    return (axes & AXIS_CHANNELS ? shape.dims[0] : 1)
           * (axes & AXIS_PIXELS ? shape.dims[1] * shape.dims[2] : 1);
}

/* The mean of `per_sample` elements (times the batch): every one gets an equal part of dy. */
static void differentiate_mean(Gradients *g, Node *node, Node *dy, int64_t per_sample, bool batched)
{
    Node *x = node->inputs[0];
    share(g, node, x, expanded(g, node, divided(g, node, dy, per_sample, batched), x->shape));
}

/* A gradient operator of dy and, where its row has a second operand, `kept`. */
static void differentiate_by(Gradients *g, Node *node, Node *dy, Op op, Node *kept)
{
    Node *x = node->inputs[0];
    Node *dx = kept ? binary(g, op, node, dy, kept) : unary(g, op, node, dy);
    with_attributes(dx, node)->shape = x->shape;
    share(g, node, x, inferred(g, dx));
}

static void differentiate_concat(Gradients *g, Node *node, Node *dy)
{
    int64_t from = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        Node *part = node->inputs[i];
        if (needs(g, node, i)) {
            Node *slice = unary(g, OP_SLICE, node, dy);
            slice->attr[ATTR_FROM] = (double)from;
            slice->attr[ATTR_CHANNELS] = (double)part->shape.dims[0];
            share(g, node, part, inferred(g, slice));
        }
        from += part->shape.dims[0];
    }
}

/* ---- the rules ------------------------------------------------------------------------------- */

/* Hands dy, the complete gradient of a node, on to the operands that need it. */
static void differentiate_node(Gradients *g, Node *node, Node *dy)
{
    Node *x = node->n_inputs ? node->inputs[0] : NULL;
    switch (node->op) {
    case OP_INPUT: case OP_TARGET: case OP_PARAMETER: case OP_BUFFER: case OP_CONSTANT: return;

    case OP_CONV: differentiate_conv(g, node, dy); return;
    case OP_CONV_TRANSPOSE: differentiate_conv_transpose(g, node, dy); return;
    case OP_LINEAR: differentiate_linear(g, node, dy); return;
    case OP_AFFINE: differentiate_batch_norm(g, node, dy); return;

    case OP_RELU: differentiate_by(g, node, dy, OP_RELU_GRAD, node); return;
    case OP_LEAKY_RELU: differentiate_by(g, node, dy, OP_LEAKY_RELU_GRAD, x); return;
    case OP_SILU: differentiate_by(g, node, dy, OP_SILU_GRAD, x); return;
    case OP_GELU: differentiate_by(g, node, dy, OP_GELU_GRAD, x); return;
    case OP_SIGMOID: differentiate_by(g, node, dy, OP_SIGMOID_GRAD, node); return;
    case OP_SOFTMAX: differentiate_by(g, node, dy, OP_SOFTMAX_GRAD, node); return;
    case OP_DROPOUT: differentiate_by(g, node, dy, OP_DROPOUT, NULL); return;

    case OP_ADD: case OP_SUB: differentiate_sum_of_two(g, node, dy); return;
    case OP_MUL: differentiate_mul(g, node, dy); return;
    case OP_DIV: differentiate_div(g, node, dy); return;
    case OP_EXPAND: share_summed(g, node, 0, dy); return;
    case OP_DIVIDE_BY_COUNT: differentiate_by(g, node, dy, OP_DIVIDE_BY_COUNT, NULL); return;
    case OP_CROSS_ENTROPY_TERMS:
        differentiate_terms(g, node, dy, OP_CROSS_ENTROPY_TERMS_GRAD); return;
    case OP_LOGITS_CROSS_ENTROPY_TERMS:
        differentiate_terms(g, node, dy, OP_LOGITS_CROSS_ENTROPY_TERMS_GRAD); return;

    case OP_CLASS_TERMS: differentiate_class_terms(g, node, dy); return;
    case OP_ONE_HOT: return; /* constant but where it jumps */

    case OP_SUM: share(g, node, x, expanded(g, node, dy, x->shape)); return;
    case OP_MEAN:
        differentiate_mean(g, node, dy, mean_count(node, x->shape),
                           (int)node->attr[ATTR_AXES] & AXIS_BATCH);
        return;
    case OP_GLOBAL_AVG_POOL:
        differentiate_mean(g, node, dy, x->shape.dims[1] * x->shape.dims[2], false); return;
    case OP_CHANNEL_MEAN: differentiate_mean(g, node, dy, x->shape.dims[0], false); return;
    case OP_GLOBAL_MAX_POOL: differentiate_by(g, node, dy, OP_GLOBAL_MAX_POOL_GRAD, x); return;
    case OP_CHANNEL_MAX: differentiate_by(g, node, dy, OP_CHANNEL_MAX_GRAD, x); return;

    case OP_MAX_POOL: differentiate_by(g, node, dy, OP_MAX_POOL_GRAD, x); return;
    case OP_AVG_POOL: differentiate_by(g, node, dy, OP_AVG_POOL_GRAD, NULL); return;
    case OP_UPSAMPLE: differentiate_by(g, node, dy, OP_UPSAMPLE_GRAD, NULL); return;
    case OP_CONCAT: differentiate_concat(g, node, dy); return;
    case OP_PAD: differentiate_by(g, node, dy, OP_CROP, NULL); return;
    case OP_CROP: differentiate_by(g, node, dy, OP_PAD, NULL); return;

    /* Reached through the affine that reads them, which hands them no gradient. */
    case OP_BATCH_MOMENTS: case OP_BATCH_NORM_COEFFICIENTS:
    /* Replaced by specialise. */
    case OP_BATCH_NORM: case OP_BINARY_CROSS_ENTROPY: case OP_CROSS_ENTROPY: case OP_DICE_LOSS:
    case OP_TVERSKY_LOSS: case OP_FOCAL_LOSS: case OP_DICE:
    /* Not in a training graph before this pass, or below no loss. */
    case OP_BATCH_NORM_RUNNING: case OP_RUNNING_MEAN: case OP_RUNNING_VAR: case OP_DICE_SUMS:
    case OP_FOLD_WEIGHT: case OP_FOLD_BIAS: case OP_SLICE:
    /* Gradients are not differentiated again. */
    case OP_CONV_GRAD_INPUT: case OP_CONV_GRAD_WEIGHT: case OP_LINEAR_GRAD_INPUT:
    case OP_LINEAR_GRAD_WEIGHT: case OP_BATCH_NORM_SUMS: case OP_BATCH_NORM_SLOPES: case OP_COMBINE:
    case OP_BATCH_NORM_GRAD_WEIGHT: case OP_BATCH_NORM_GRAD_BIAS: case OP_RELU_GRAD:
    case OP_LEAKY_RELU_GRAD: case OP_SILU_GRAD: case OP_GELU_GRAD: case OP_SIGMOID_GRAD:
    case OP_CROSS_ENTROPY_TERMS_GRAD: case OP_LOGITS_CROSS_ENTROPY_TERMS_GRAD: case OP_SOFTMAX_GRAD:
    case OP_CLASS_TERMS_GRAD:
    case OP_GLOBAL_MAX_POOL_GRAD: case OP_CHANNEL_MAX_GRAD: case OP_MAX_POOL_GRAD:
    case OP_AVG_POOL_GRAD: case OP_UPSAMPLE_GRAD:
    case OP_COUNT:
        break;
    }
    bug("differentiate: no gradient rule\n    %s", node_text(g->graph, node));
}

/* ---- the pass -------------------------------------------------------------------------------- */

static Node *find_loss(const Graph *graph)
{
    for (int i = 0; i < graph->n_results; i++)
        if (graph->results[i].role == ROLE_LOSS && strcmp(graph->results[i].name, "loss") == 0)
            return graph->results[i].node;
    bug("differentiate: '%s' has no loss", graph->name);
}

static bool wants_gradient(const Graph *graph, const Node *node)
{
    return node->op == OP_PARAMETER
           || (node->op == OP_INPUT && node->type == TYPE_F32
               && graph->compilation->input_gradients);
}

/* A source that the loss does not depend on has a gradient of zero, so that every trained tensor
 * has one and the optimiser needs no exception. */
static void add_results(Gradients *g, int n_nodes)
{
    for (int i = 0; i < n_nodes; i++) {
        Node *node = g->graph->nodes[i];
        if (!wants_gradient(g->graph, node))
            continue;
        Node *gradient = g->gradients[node->id];
        if (!gradient)
            gradient = expanded(g, node, constant(g, node, 0), node->shape);
        graph_result(g->graph, ROLE_GRADIENT, node->name, gradient);
    }
}

void differentiate(Graph *graph)
{
    graph_sort(graph);
    int n_nodes = graph->n_nodes;
    Gradients g = {graph, arena_alloc(graph->arena, (size_t)n_nodes * sizeof(Node *)),
                   arena_alloc(graph->arena, (size_t)n_nodes * sizeof(bool))};
    for (int i = 0; i < n_nodes; i++) {
        Node *node = graph->nodes[i];
        g.needed[node->id] = wants_gradient(graph, node);
        for (int k = 0; k < node->n_inputs; k++)
            g.needed[node->id] |= g.needed[node->inputs[k]->id];
    }
    Node *loss = find_loss(graph);
    g.gradients[loss->id] = constant(&g, loss, 1);
    for (int i = n_nodes - 1; i >= 0; i--) {
        Node *node = graph->nodes[i];
        if (g.gradients[node->id] && g.needed[node->id])
            differentiate_node(&g, node, g.gradients[node->id]);
    }
    add_results(&g, n_nodes);
    graph_sort(graph);
}
