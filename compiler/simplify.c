/* Smaller graphs that compute the same.
 *
 * Needs: a program's graph (specialise), in topological order. Keeps: results, shapes, the order of
 * what remains. Breaks: dead nodes and equal nodes are gone; a node may have more readers.
 *
 * Three things, repeated until nothing changes: a node that does nothing (x*1, x+0, a slice of
 * everything) is replaced by its operand; a pattern with a better form is replaced by it; of two
 * equal nodes the first stays. The patterns are the ones that fusion could not find, because they
 * change the arithmetic and not only the place where it is done:
 *
 *     cross entropy of sigmoid(z)     from z, stably, with the gradient sigmoid(z) - t
 *     batch norm behind a convolution into the convolution's weight and bias (not in training)
 */
#include <string.h>

#include "seg.h"

static bool is_constant(const Node *node, double value)
{
    return node->op == OP_CONSTANT && node->attr[ATTR_VALUE] == value;
}

/* The operand, where putting it in the node's place changes neither shape nor type. */
static Node *pass_through(Node *node, Node *x)
{
    return x->type == node->type && shape_equal(x->shape, node->shape) ? x : node;
}

/* ---- arithmetic with constants --------------------------------------------------------------- */

static Node *fold_constants(Graph *graph, Node *node)
{
    double a = node->inputs[0]->attr[ATTR_VALUE], b = node->inputs[1]->attr[ATTR_VALUE];
    double value;
    if (node->op == OP_ADD)
        value = a + b;
    else if (node->op == OP_SUB)
        value = a - b;
    else if (node->op == OP_MUL)
        value = a * b;
    else
        value = a / b;
    Node *folded = graph_add(graph, OP_CONSTANT, node->loc, 0, NULL);
    folded->attr[ATTR_VALUE] = value;
    folded->shape = node->shape;
    return folded;
}

static Node *simplify_arithmetic(Graph *graph, Node *node)
{
    Node *a = node->inputs[0], *b = node->inputs[1];
    if (a->op == OP_CONSTANT && b->op == OP_CONSTANT)
        return fold_constants(graph, node);
    double neutral = node->op == OP_MUL || node->op == OP_DIV ? 1 : 0;
    if (is_constant(b, neutral))
        return pass_through(node, a);
    if ((node->op == OP_ADD || node->op == OP_MUL) && is_constant(a, neutral))
        return pass_through(node, b);
    return node;
}

/* ---- patterns -------------------------------------------------------------------------------- */

static Node *cross_entropy_from_logits(Graph *graph, Node *node)
{
    Node *p = node->inputs[0], *t = node->inputs[1];
    if (p->op != OP_SIGMOID)
        return node;
    Node *terms = graph_add(graph, OP_LOGITS_CROSS_ENTROPY_TERMS, node->loc, 2,
                            (Node *[]){p->inputs[0], t});
    infer_node(graph, terms);
    return terms;
}

/* affine(conv(x, weight, [bias]), coefficients) is conv(x, weight * scale, shift + scale * bias)
 * where the coefficients depend on parameters only. node->uses is up to date. */
static Node *fold_batch_norm(Graph *graph, Node *affine)
{
    Node *conv = affine->inputs[0], *coefficients = affine->inputs[1];
    if (conv->op != OP_CONV || coefficients->op != OP_BATCH_NORM_RUNNING || conv->uses != 1)
        return affine;
    Node *weight = graph_add(graph, OP_FOLD_WEIGHT, affine->loc, 2,
                             (Node *[]){conv->inputs[1], coefficients});
    infer_node(graph, weight);
    Node *bias = graph_add(graph, OP_FOLD_BIAS, affine->loc, conv->n_inputs - 1,
                           (Node *[]){coefficients, conv->n_inputs > 2 ? conv->inputs[2] : NULL});
    infer_node(graph, bias);
    Node *folded = graph_add(graph, OP_CONV, conv->loc, 3,
                             (Node *[]){conv->inputs[0], weight, bias});
    memcpy(folded->attr, conv->attr, sizeof folded->attr);
    folded->attr[ATTR_BIAS] = true;
    infer_node(graph, folded);
    folded->name = affine->name;
    return folded;
}

/* What may stand for a node; the node itself where there is nothing to gain. */
static Node *simplify_node(Graph *graph, Node *node)
{
    switch (op_facts[node->op].kind) {
    case KIND_POINTWISE:
        break;
    case KIND_MOVE:
        return node->n_inputs == 1 ? pass_through(node, node->inputs[0]) : node;
    case KIND_WINDOW:
        if (node->op == OP_UPSAMPLE || node->op == OP_UPSAMPLE_GRAD)
            return node->attr[ATTR_SCALE] == 1 ? pass_through(node, node->inputs[0]) : node;
        return node;
    case KIND_SOURCE:
    case KIND_CONTRACTION:
    case KIND_NORMALISE:
    case KIND_CHANNEL:
    case KIND_REDUCE:
    case KIND_SMALL:
    case KIND_LOSS:
    case KIND_METRIC:
        return node;
    }
    if (node->op == OP_ADD || node->op == OP_SUB || node->op == OP_MUL || node->op == OP_DIV)
        return simplify_arithmetic(graph, node);
    if (node->op == OP_EXPAND || (node->op == OP_DROPOUT && node->attr[ATTR_RATE] == 0)
        || (node->op == OP_DIVIDE_BY_COUNT && node->attr[ATTR_PER_SAMPLE] == 1
            && !node->attr[ATTR_BATCHED]))
        return pass_through(node, node->inputs[0]);
    if (node->op == OP_CROSS_ENTROPY_TERMS)
        return cross_entropy_from_logits(graph, node);
    if (node->op == OP_AFFINE)
        return fold_batch_norm(graph, node);
    return node;
}

/* ---- equal nodes ----------------------------------------------------------------------------- */

static bool equal_nodes(const Node *a, const Node *b)
{
    if (a->op != b->op || a->type != b->type || a->n_inputs != b->n_inputs
        || !shape_equal(a->shape, b->shape) || memcmp(a->attr, b->attr, sizeof a->attr) != 0)
        return false;
    return a->n_inputs == 0
           || memcmp(a->inputs, b->inputs, (size_t)a->n_inputs * sizeof *a->inputs) == 0;
}

/* Gradients of parameters and new values of buffers each have a place of their own. */
static bool has_own_place(const Graph *graph, const Node *node)
{
    for (int i = 0; i < graph->n_results; i++)
        if (graph->results[i].node == node
            && (graph->results[i].role == ROLE_GRADIENT || graph->results[i].role == ROLE_UPDATE))
            return true;
    return false;
}

static uint64_t hash_node(const Node *node)
{
    uint64_t hash = (uint64_t)node->op * 0x9E3779B97F4A7C15u;
    for (int i = 0; i < node->n_inputs; i++)
        hash = (hash ^ (uint64_t)node->inputs[i]->id) * 0x100000001B3u;
    return hash ^ hash >> 29;
}

/* A table of the nodes seen, open addressing; operands are merged before their readers, so one
 * walk finds equal trees of any depth. */
static bool merge_equal_nodes(Graph *graph)
{
    size_t capacity = 64;
    while (capacity < 2 * (size_t)graph->n_nodes)
        capacity *= 2;
    Node **table = arena_alloc(graph->arena, capacity * sizeof *table);
    bool changed = false;
    for (int i = 0; i < graph->n_nodes; i++) {
        Node *node = graph->nodes[i];
        if (op_facts[node->op].kind == KIND_SOURCE && node->op != OP_CONSTANT)
            continue;
        size_t slot = hash_node(node) & (capacity - 1);
        while (table[slot] && !equal_nodes(table[slot], node))
            slot = (slot + 1) & (capacity - 1);
        if (!table[slot]) {
            table[slot] = node;
        } else if (!has_own_place(graph, node) || !has_own_place(graph, table[slot])) {
            if (!table[slot]->name)
                table[slot]->name = node->name;
            graph_replace(graph, node, table[slot]);
            changed = true;
        }
    }
    return changed;
}

/* ---- the pass -------------------------------------------------------------------------------- */

void simplify(Graph *graph)
{
    bool changed = true;
    while (changed) {
        changed = false;
        graph_sort(graph);
        graph_count_uses(graph);
        int n_nodes = graph->n_nodes;
        for (int i = 0; i < n_nodes; i++) {
            Node *node = graph->nodes[i];
            Node *better = simplify_node(graph, node);
            if (better == node)
                continue;
            if (!better->name && op_facts[better->op].kind != KIND_SOURCE)
                better->name = node->name;
            graph_replace(graph, node, better);
            changed = true;
        }
        graph_sort(graph);
        changed |= merge_equal_nodes(graph);
    }
    graph_sort(graph);
}
