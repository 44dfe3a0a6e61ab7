/* The model's graph into the graph of one program.
 *
 * Needs: shapes of every node (infer). Keeps: names of sources, results' names, places in the text.
 * Breaks: batch_norm, losses and metrics are gone; the rows of ops.def below theirs stand for them.
 *
 *               batch_norm               dropout           losses, metrics   outputs
 *   train       moments of the batch     a stream each     plain operators   kept
 *   evaluate    running statistics       gone              plain operators   kept
 *   predict     running statistics       gone              gone              kept
 *
 * Batch norm becomes one multiply-add a channel (affine) with coefficients of [2,C], in training
 * and after it: only where the coefficients come from differs, so fusion sees one pattern.
 * Statistics and losses as ordinary nodes need no rule of their own in later passes.
 */
#include <string.h>

#include "seg.h"

static Node *add_unary(Graph *graph, Op op, Loc loc, Node *x)
{
    return graph_add(graph, op, loc, 1, (Node *[]){x});
}

static Node *inferred(Graph *graph, Node *node)
{
    infer_node(graph, node);
    return node;
}

static Node *binary(Graph *graph, Op op, Loc loc, Node *a, Node *b)
{
    return inferred(graph, graph_add(graph, op, loc, 2, (Node *[]){a, b}));
}

static Node *constant(Graph *graph, Loc loc, double value)
{
    Node *node = graph_add(graph, OP_CONSTANT, loc, 0, NULL);
    node->attr[ATTR_VALUE] = value;
    node->shape = shape_fixed(3, (int64_t[]){1, 1, 1});
    return node;
}

static Node *reduce_all(Graph *graph, Op op, Loc loc, Node *x)
{
    Node *node = add_unary(graph, op, loc, x);
    node->attr[ATTR_AXES] = AXIS_ALL;
    return inferred(graph, node);
}

/* ---- batch normalisation --------------------------------------------------------------------- */

enum { X, WEIGHT, SHIFT, RUNNING_MEAN, RUNNING_VAR }; /* operands of batch_norm */

static void update_statistics(Graph *graph, const Node *norm, Node *moments)
{
    Node *old_mean = norm->inputs[RUNNING_MEAN], *old_var = norm->inputs[RUNNING_VAR];
    Node *mean = graph_add(graph, OP_RUNNING_MEAN, norm->loc, 2, (Node *[]){old_mean, moments});
    Node *var = graph_add(graph, OP_RUNNING_VAR, norm->loc, 2, (Node *[]){old_var, moments});
    mean->attr[ATTR_MOMENTUM] = var->attr[ATTR_MOMENTUM] = norm->attr[ATTR_MOMENTUM];
    var->attr[ATTR_PER_SAMPLE] = (double)(norm->shape.dims[1] * norm->shape.dims[2]);
    graph_result(graph, ROLE_UPDATE, old_mean->name, inferred(graph, mean));
    graph_result(graph, ROLE_UPDATE, old_var->name, inferred(graph, var));
}

static Node *specialise_batch_norm(Graph *graph, const Node *norm)
{
    Node *x = norm->inputs[X], *weight = norm->inputs[WEIGHT], *shift = norm->inputs[SHIFT];
    Node *coefficients;
    if (graph->program == PROGRAM_TRAIN) {
        Node *moments = inferred(graph, add_unary(graph, OP_BATCH_MOMENTS, norm->loc, x));
        coefficients = graph_add(graph, OP_BATCH_NORM_COEFFICIENTS, norm->loc, 3,
                                 (Node *[]){moments, weight, shift});
        update_statistics(graph, norm, moments);
    } else {
        coefficients = graph_add(
            graph, OP_BATCH_NORM_RUNNING, norm->loc, 4,
            (Node *[]){norm->inputs[RUNNING_MEAN], norm->inputs[RUNNING_VAR], weight, shift});
    }
    coefficients->attr[ATTR_EPS] = norm->attr[ATTR_EPS];
    return binary(graph, OP_AFFINE, norm->loc, x, inferred(graph, coefficients));
}

/* ---- losses and metrics ---------------------------------------------------------------------- */

static Node *specialise_cross_entropy(Graph *graph, const Node *loss)
{
    Node *p = loss->inputs[0], *t = loss->inputs[1];
    Node *terms = binary(graph, OP_CROSS_ENTROPY_TERMS, loss->loc, p, t);
    return reduce_all(graph, OP_MEAN, loss->loc, terms);
}

/* ---- of several classes: p [K,H,W], t [1,H,W] their numbers ---------------------------------- */

static Node *one_hot(Graph *graph, Loc loc, const Node *p, Node *t)
{
    Node *node = add_unary(graph, OP_ONE_HOT, loc, t);
    node->attr[ATTR_CHANNELS] = (double)p->shape.dims[0];
    return inferred(graph, node);
}

static Node *sum_over(Graph *graph, Loc loc, Node *x, int axes)
{
    Node *node = add_unary(graph, OP_SUM, loc, x);
    node->attr[ATTR_AXES] = axes;
    return inferred(graph, node);
}

/* Over the pixels that have a class; where none has one, 0 / 1e-12. */
static Node *specialise_class_cross_entropy(Graph *graph, const Node *loss)
{
    Loc loc = loss->loc;
    Node *p = loss->inputs[0], *t = one_hot(graph, loc, p, loss->inputs[1]);
    Node *terms = reduce_all(graph, OP_SUM, loc, binary(graph, OP_CLASS_TERMS, loc, p, t));
    Node *pixels = binary(graph, OP_ADD, loc, reduce_all(graph, OP_SUM, loc, t),
                          constant(graph, loc, 1e-12));
    return binary(graph, OP_DIV, loc, terms, pixels);
}

/* Of each picture and class, then their mean; pixels without a class do not count. */
static Node *specialise_class_dice_loss(Graph *graph, const Node *loss)
{
    Loc loc = loss->loc;
    Node *p = loss->inputs[0], *t = one_hot(graph, loc, p, loss->inputs[1]);
    Node *smooth = constant(graph, loc, loss->attr[ATTR_SMOOTH]);
    Node *counts = binary(graph, OP_MUL, loc, p, sum_over(graph, loc, t, AXIS_CHANNELS));
    Node *both = sum_over(graph, loc, binary(graph, OP_MUL, loc, p, t), AXIS_PIXELS);
    Node *sizes = binary(graph, OP_ADD, loc, sum_over(graph, loc, counts, AXIS_PIXELS),
                         sum_over(graph, loc, t, AXIS_PIXELS));
    Node *twice = binary(graph, OP_MUL, loc, constant(graph, loc, 2), both);
    Node *dice = binary(graph, OP_DIV, loc, binary(graph, OP_ADD, loc, twice, smooth),
                        binary(graph, OP_ADD, loc, sizes, smooth));
    return binary(graph, OP_SUB, loc, constant(graph, loc, 1),
                  reduce_all(graph, OP_MEAN, loc, dice));
}

/* For each picture and class, pixels that are both, predicted, true: three results, NAME,
 * NAME.predicted and NAME.true. The class with the largest p is predicted, the first of equals:
 * that is where the gradient of channel_max goes. */
static Node *specialise_class_dice(Graph *graph, const Node *metric)
{
    Loc loc = metric->loc;
    Node *p = metric->inputs[0], *t = one_hot(graph, loc, p, metric->inputs[1]);
    Node *counts = sum_over(graph, loc, t, AXIS_CHANNELS);
    Node *chosen = binary(graph, OP_CHANNEL_MAX_GRAD, loc, counts, p);
    const char *name = NULL;
    for (int i = 0; i < graph->n_results && !name; i++)
        if (graph->results[i].node == metric)
            name = graph->results[i].name;
    const char *predicted = arena_printf(graph->arena, "%s.predicted", name);
    const char *truth = arena_printf(graph->arena, "%s.true", name);
    graph_result(graph, ROLE_METRIC, intern(graph->arena, predicted, strlen(predicted)),
                 sum_over(graph, loc, chosen, AXIS_PIXELS));
    graph_result(graph, ROLE_METRIC, intern(graph->arena, truth, strlen(truth)),
                 sum_over(graph, loc, t, AXIS_PIXELS));
    return sum_over(graph, loc, binary(graph, OP_MUL, loc, chosen, t), AXIS_PIXELS);
}

static bool compares_classes(const Node *node)
{
    return node->inputs[0]->shape.dims[0] > node->inputs[1]->shape.dims[0];
}

/* ---- of one class ---------------------------------------------------------------------------- */

/* 1 - (2 sum(p t) + smooth) / (sum p + sum t + smooth) (Milletari, Navab, Ahmadi 2016) */
static Node *specialise_dice_loss(Graph *graph, const Node *loss)
{
    Loc loc = loss->loc;
    Node *p = loss->inputs[0], *t = loss->inputs[1];
    Node *smooth = constant(graph, loc, loss->attr[ATTR_SMOOTH]);
    Node *both = reduce_all(graph, OP_SUM, loc, binary(graph, OP_MUL, loc, p, t));
    Node *sizes = binary(graph, OP_ADD, loc, reduce_all(graph, OP_SUM, loc, p),
                         reduce_all(graph, OP_SUM, loc, t));
    Node *twice = binary(graph, OP_MUL, loc, constant(graph, loc, 2), both);
    Node *dice = binary(graph, OP_DIV, loc, binary(graph, OP_ADD, loc, twice, smooth),
                        binary(graph, OP_ADD, loc, sizes, smooth));
    return binary(graph, OP_SUB, loc, constant(graph, loc, 1), dice);
}

/* With a = sum(p t): 1 - (a + s) / ((1 - alpha - beta) a + alpha sum p + beta sum t + s)
 * (Salehi, Erdogmus, Gholipour 2017) */
static Node *specialise_tversky_loss(Graph *graph, const Node *loss)
{
    Loc loc = loss->loc;
    Node *p = loss->inputs[0], *t = loss->inputs[1];
    double alpha = loss->attr[ATTR_ALPHA], beta = loss->attr[ATTR_BETA];
    Node *smooth = constant(graph, loc, loss->attr[ATTR_SMOOTH]);
    Node *both = reduce_all(graph, OP_SUM, loc, binary(graph, OP_MUL, loc, p, t));
    Node *found = reduce_all(graph, OP_SUM, loc, p), *there = reduce_all(graph, OP_SUM, loc, t);
    Node *all = binary(graph, OP_ADD, loc,
                       binary(graph, OP_MUL, loc, constant(graph, loc, 1 - alpha - beta), both),
                       binary(graph, OP_ADD, loc,
                              binary(graph, OP_MUL, loc, constant(graph, loc, alpha), found),
                              binary(graph, OP_MUL, loc, constant(graph, loc, beta), there)));
    Node *index = binary(graph, OP_DIV, loc, binary(graph, OP_ADD, loc, both, smooth),
                         binary(graph, OP_ADD, loc, all, smooth));
    return binary(graph, OP_SUB, loc, constant(graph, loc, 1), index);
}

/* Lin, Goyal, Girshick, He, Dollar 2017. 1 - q = p + t - 2 p t, and the weight of t is
 * 1 - alpha + (2 alpha - 1) t: for t of 0 and 1 the definition, and smooth between. */
static Node *specialise_focal_loss(Graph *graph, const Node *loss)
{
    Loc loc = loss->loc;
    Node *p = loss->inputs[0], *t = loss->inputs[1];
    double alpha = loss->attr[ATTR_ALPHA];
    Node *terms = binary(graph, OP_CROSS_ENTROPY_TERMS, loc, p, t);
    Node *twice = binary(graph, OP_MUL, loc, constant(graph, loc, 2),
                         binary(graph, OP_MUL, loc, p, t));
    Node *wrong = binary(graph, OP_SUB, loc, binary(graph, OP_ADD, loc, p, t), twice);
    for (int i = 0; i < (int)loss->attr[ATTR_GAMMA]; i++)
        terms = binary(graph, OP_MUL, loc, terms, wrong);
    if (alpha != 0.5) {
        Node *slope = binary(graph, OP_MUL, loc, constant(graph, loc, 2 * alpha - 1), t);
        terms = binary(graph, OP_MUL, loc, terms,
                       binary(graph, OP_ADD, loc, slope, constant(graph, loc, 1 - alpha)));
    } else {
        terms = binary(graph, OP_MUL, loc, terms, constant(graph, loc, 0.5));
    }
    return reduce_all(graph, OP_MEAN, loc, terms);
}

static Node *specialise_loss(Graph *graph, const Node *loss)
{
    if (loss->op == OP_CROSS_ENTROPY)
        return specialise_class_cross_entropy(graph, loss);
    if (loss->op == OP_DICE_LOSS && compares_classes(loss))
        return specialise_class_dice_loss(graph, loss);
    return loss->op == OP_DICE_LOSS    ? specialise_dice_loss(graph, loss)
         : loss->op == OP_TVERSKY_LOSS ? specialise_tversky_loss(graph, loss)
         : loss->op == OP_FOCAL_LOSS   ? specialise_focal_loss(graph, loss)
                                       : specialise_cross_entropy(graph, loss);
}

static Node *specialise_dice(Graph *graph, const Node *metric)
{
    if (compares_classes(metric))
        return specialise_class_dice(graph, metric);
    Node *sums = graph_add(graph, OP_DICE_SUMS, metric->loc, 2, metric->inputs);
    sums->attr[ATTR_THRESHOLD] = metric->attr[ATTR_THRESHOLD];
    return inferred(graph, sums);
}

/* All losses become one result, "loss", their sum; where there are several, each is kept under its
 * own name beside it. */
static void join_losses(Graph *graph)
{
    Arena *arena = graph->arena;
    Result *results = graph->results;
    int count = 0;
    Node *total = NULL;
    int n_results = graph->n_results;
    for (int i = 0; i < n_results; i++) {
        if (results[i].role != ROLE_LOSS)
            continue;
        Node *node = results[i].node;
        total = total ? binary(graph, OP_ADD, node->loc, total, node) : node;
        count++;
    }
    for (int i = 0; i < n_results; i++) {
        if (results[i].role != ROLE_LOSS)
            continue;
        if (count == 1)
            results[i].name = intern(arena, "loss", 4);
        else if (strcmp(results[i].name, "loss") == 0)
            results[i].name = intern(arena, "loss.0", 6);
    }
    if (count > 1)
        graph_result(graph, ROLE_LOSS, intern(arena, "loss", 4), total);
}

/* ---- the pass -------------------------------------------------------------------------------- */

static void drop_results(Graph *graph)
{
    int kept = 0;
    for (int i = 0; i < graph->n_results; i++)
        if (graph->results[i].role == ROLE_OUTPUT)
            graph->results[kept++] = graph->results[i];
    graph->n_results = kept;
}

/* What stands for a node in this program; the node itself where nothing changes. */
static Node *specialise_node(Graph *graph, Node *node, int *streams)
{
    switch (op_facts[node->op].kind) {
    case KIND_NORMALISE:
        return specialise_batch_norm(graph, node);
    case KIND_LOSS:
        return specialise_loss(graph, node);
    case KIND_METRIC:
        return specialise_dice(graph, node);
    case KIND_POINTWISE:
        if (node->op != OP_DROPOUT)
            return node;
        if (graph->program != PROGRAM_TRAIN)
            return node->inputs[0];
        node->attr[ATTR_STREAM] = (*streams)++;
        return node;
    case KIND_SOURCE:
    case KIND_CONTRACTION:
    case KIND_CHANNEL:
    case KIND_REDUCE:
    case KIND_WINDOW:
    case KIND_MOVE:
    case KIND_SMALL:
        return node;
    }
    return node;
}

Graph *specialise(const Graph *model, Program program)
{
    Graph *graph = graph_copy(model, program);
    if (program == PROGRAM_PREDICT)
        drop_results(graph);
    graph_sort(graph);
    int n_nodes = graph->n_nodes, streams = 0;
    for (int i = 0; i < n_nodes; i++) {
        Node *node = graph->nodes[i];
        Node *made = specialise_node(graph, node, &streams);
        if (made == node)
            continue;
        if (!made->name && op_facts[made->op].kind != KIND_SOURCE)
            made->name = node->name;
        graph_replace(graph, node, made);
    }
    join_losses(graph);
    graph_sort(graph);
    return graph;
}
