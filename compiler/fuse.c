/* Which nodes one kernel computes together.
 *
 * needs: a simplified graph of one program.
 * keeps: the nodes and their order; gives every node `stored` and `group`, and the graph its groups.
 * breaks: nothing.
 *
 * A node is either stored by the group it belongs to, or inlined: every reader computes it again from
 * what it reads. Three fusions, each of which `--no-fuse=` can switch off:
 *   epilogue    a pointwise node joins the group whose result it alone reads;
 *   prologue    a pointwise node that is cheap is inlined in its readers;
 *   statistics  a reduction over the batch joins the group that stores what it sums.
 *   concat      joining and slicing of whole channel blocks is inlined: no copy is made.
 * The method is that of loop fusion over a graph with anchors, as in Relay (Roesch et al. 2018), with
 * recomputation instead of storing where that moves fewer bytes.
 */
#include "seg.h"

#include <string.h>

static bool fusion_on(const Graph *graph, const char *fusion)
{
    const char *list = graph->compilation->no_fuse;
    if (!list)
        return true;
    if (!*list)
        return false;
    size_t length = strlen(fusion);
    for (const char *at = list; (at = strstr(at, fusion)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
            return false;
    return true;
}

bool node_pointwise(const Node *node)
{
    if (op_facts[node->op].kind == KIND_POINTWISE)
        return true;
    if (node->op == OP_SLICE)
        return (int64_t)node->attr[ATTR_FROM] % PLAN_BLOCK == 0;
    if (node->op == OP_CONCAT) {
        for (int i = 0; i + 1 < node->n_inputs; i++)
            if (node->inputs[i]->shape.dims[0] % PLAN_BLOCK)
                return false;
        return true;
    }
    return false;
}

bool node_reduces_batch(const Node *node)
{
    switch (op_facts[node->op].kind) {
    case KIND_REDUCE: return !node->shape.batched;
    default: return false;
    }
}

bool node_inlined(const Node *node)
{
    return !node->stored;
}

/* ---- what a group reads ------------------------------------------------------------------- */

static void visit_expanded(Node *node, const Node *stop, void (*visit)(void *, Node *), void *context)
{
    if (node == stop)
        return;
    if (node->stored || node->op == OP_CONSTANT) {
        if (node->stored)
            visit(context, node);
        return;
    }
    for (int i = 0; i < node->n_inputs; i++)
        visit_expanded(node->inputs[i], stop, visit, context);
}

void group_visit_leaves(const Group *group, void (*visit)(void *, Node *), void *context)
{
    const Node *anchor = group->anchor;
    for (int i = 0; i < anchor->n_inputs; i++)
        visit_expanded(anchor->inputs[i], NULL, visit, context);
    if (group->root != anchor)
        for (int i = 0; i < group->root->n_inputs; i++)
            visit_expanded(group->root->inputs[i], anchor, visit, context);
    for (int r = 0; r < group->n_reductions; r++)
        for (int i = 0; i < group->reductions[r]->n_inputs; i++)
            visit_expanded(group->reductions[r]->inputs[i], group->root, visit, context);
}

/* ---- would a new member close a circle? ----------------------------------------------------- */

typedef struct {
    const Group *target;
    unsigned char *seen;   /* by node id */
    bool found;
} Search;

static void search_node(Search *, Node *);

static void search_leaf(void *context, Node *leaf)
{
    search_node(context, leaf);
}

/* Does computing this node need a result of the target group? */
static void search_node(Search *search, Node *node)
{
    if (search->found || search->seen[node->id])
        return;
    search->seen[node->id] = 1;
    if (node->group && node->group == search->target) {
        search->found = true;
        return;
    }
    if (node->group)
        group_visit_leaves(node->group, search_leaf, search);
    else
        for (int i = 0; i < node->n_inputs; i++)
            search_node(search, node->inputs[i]);
}

/* May `node` join `group` by its operand `through`? Not if another operand comes after the group. */
static bool joins_without_circle(Graph *graph, Group *group, Node *node, const Node *through)
{
    Search search = { group, arena_alloc(graph->arena, (size_t)graph->next_id + 1), false };
    search.seen[through->id] = 1;
    for (int i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] != through)
            search_node(&search, node->inputs[i]);
    return !search.found;
}

/* ---- groups ----------------------------------------------------------------------------------- */

static Group *group_new(Graph *graph, Node *anchor)
{
    Group *group = arena_alloc(graph->arena, sizeof *group);
    group->id = graph->n_groups;
    group->anchor = group->root = anchor;
    group->reductions = arena_alloc(graph->arena, MAX_REDUCTIONS * sizeof *group->reductions);
    graph->groups = arena_grow(graph->arena, graph->groups,
                               (size_t)graph->n_groups * sizeof *graph->groups,
                               ((size_t)graph->n_groups + 1) * sizeof *graph->groups);
    graph->groups[graph->n_groups++] = group;
    anchor->group = group;
    anchor->stored = true;
    return group;
}

/* Groups whose kernel ends in write_y, where an epilogue can stand. */
static bool group_has_epilogue(const Group *group)
{
    const Node *anchor = group->anchor;
    if (!anchor->shape.batched || anchor->op == OP_DICE_SUMS)
        return false;
    return anchor->op != OP_LINEAR_GRAD_WEIGHT && anchor->op != OP_CONV_GRAD_WEIGHT;
}

static bool is_result(const Graph *graph, const Node *node)
{
    for (int i = 0; i < graph->n_results; i++)
        if (graph->results[i].node == node)
            return true;
    return false;
}

/* The operand whose group this pointwise node can end: the one that is computed last. */
static Node *epilogue_operand(Graph *graph, Node *node)
{
    if (!node->shape.batched || op_facts[node->op].kind != KIND_POINTWISE)
        return NULL;
    Node *best = NULL;
    for (int i = 0; i < node->n_inputs; i++) {
        Node *operand = node->inputs[i];
        Group *group = operand->group;
        if (!group || group->root != operand || operand->uses != 1 || group->n_reductions
            || !group_has_epilogue(group) || !shape_equal(operand->shape, node->shape)
            || is_result(graph, operand) || (best && best->id > operand->id))
            continue;
        if (joins_without_circle(graph, group, node, operand))
            best = operand;
    }
    return best;
}

/* ---- inlining ----------------------------------------------------------------------------------- */

typedef struct {
    int loads;            /* full-size tensors an element needs */
    bool slow;            /* has a function such as exp */
    int64_t pixels;       /* of the node: smaller tensors cost little to read */
} Cost;

static bool op_is_slow(Op op)
{
    switch ((int)op) {
    case OP_SIGMOID: case OP_SILU: case OP_GELU: case OP_SILU_GRAD: case OP_GELU_GRAD:
    case OP_CROSS_ENTROPY_TERMS: case OP_LOGITS_CROSS_ENTROPY_TERMS:
    case OP_LOGITS_CROSS_ENTROPY_TERMS_GRAD: case OP_DROPOUT: case OP_DIV:
        return true;
    default:
        return false;
    }
}

static void add_cost(const Node *node, int64_t full, Cost *cost)
{
    if (node->op == OP_CONSTANT)
        return;
    if (node->stored) {
        if (node->shape.batched && 2 * shape_count(node->shape) > full)
            cost->loads++;
        return;
    }
    if (op_is_slow(node->op) && !(node->op == OP_DIV && node->inputs[1]->op == OP_CONSTANT))
        cost->slow = true;
    if (node->op == OP_CONCAT) { /* an element comes from one of them */
        Cost most = { 0, false, 0 };
        for (int i = 0; i < node->n_inputs; i++) {
            Cost one = { 0, false, 0 };
            add_cost(node->inputs[i], 0, &one);
            most.loads = one.loads > most.loads ? one.loads : most.loads;
            most.slow |= one.slow;
        }
        cost->loads += most.loads;
        cost->slow |= most.slow;
        return;
    }
    for (int i = 0; i < node->n_inputs; i++)
        add_cost(node->inputs[i], full, cost);
}

static int64_t largest_reader(const Graph *graph, const Node *node)
{
    int64_t largest = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        for (int k = 0; k < graph->nodes[i]->n_inputs; k++)
            if (graph->nodes[i]->inputs[k] == node && node_pointwise(graph->nodes[i])
                && graph->nodes[i]->op != OP_CONCAT && shape_count(graph->nodes[i]->shape) > largest)
                largest = shape_count(graph->nodes[i]->shape);
    return largest;
}

/* Reading again what the node reads, once a reader, against writing it once and reading that. */
static bool worth_inlining(const Graph *graph, const Node *node)
{
    if (!node->shape.batched)
        return node->op == OP_EXPAND;
    int64_t count = shape_count(node->shape);
    Cost cost = { 0, false, 0 };
    for (int i = 0; i < node->n_inputs; i++)
        add_cost(node->inputs[i], count, &cost);
    if (op_is_slow(node->op))
        cost.slow = !(node->op == OP_DIV && node->inputs[1]->op == OP_CONSTANT) || cost.slow;
    if (cost.loads > 6)
        return false;
    if (largest_reader(graph, node) > count)
        return cost.loads == 0; /* computed again for every element it is spread over */
    if (cost.slow)
        return node->uses == 1;
    return node->uses * cost.loads <= cost.loads + 1 + node->uses;
}

static bool fusion_allows_inlining(const Graph *graph, const Node *node)
{
    bool move = node->op == OP_CONCAT || node->op == OP_SLICE;
    return fusion_on(graph, move ? "concat" : "prologue");
}

/* ---- reductions ------------------------------------------------------------------------------------ */

/* Sums over the batch that a template's accumulators can take: all that node_reduces_batch says. */
static bool reads_root_pointwise(const Node *node, const Node *root, bool *found)
{
    if (node == root) {
        *found = true;
        return true;
    }
    if (node->stored || node->op == OP_CONSTANT)
        return true;
    for (int i = 0; i < node->n_inputs; i++) {
        bool below = false;
        if (!reads_root_pointwise(node->inputs[i], root, &below))
            return false;
        if (below && (!shape_equal(node->inputs[i]->shape, node->shape) || node->op == OP_SLICE
                      || node->op == OP_CONCAT))
            return false; /* the root's value is needed at another place */
        *found |= below;
    }
    return true;
}

static Node *find_root(Node *node)
{
    if (node->stored)
        return node->group && node->group->root == node ? node : NULL;
    for (int i = 0; i < node->n_inputs; i++) {
        Node *root = find_root(node->inputs[i]);
        if (root)
            return root;
    }
    return NULL;
}

/* The group that stores what this reduction sums, if the reduction can be done with it. */
static bool attach_reduction(Graph *graph, Node *node)
{
    Node *root = find_root(node->inputs[0]);
    if (!root || !fusion_on(graph, "statistics"))
        return false;
    Group *group = root->group;
    bool found = false;
    if (!group_has_epilogue(group) || group->n_reductions == MAX_REDUCTIONS
        || op_facts[group->anchor->op].kind == KIND_REDUCE
        || !shape_equal(root->shape, node->inputs[0]->shape)
        || !reads_root_pointwise(node->inputs[0], root, &found) || !found)
        return false;
    if (!joins_without_circle(graph, group, node, root))
        return false;
    Cost cost = { 0, false, 0 };
    for (int i = 0; i < node->n_inputs; i++)
        add_cost(node->inputs[i], shape_count(root->shape), &cost);
    if (cost.loads > 4)
        return false;
    group->reductions[group->n_reductions++] = node;
    node->group = group;
    node->stored = true;
    return true;
}

/* ---- the pass ---------------------------------------------------------------------------------------- */

static void fuse_pointwise(Graph *graph, Node *node)
{
    Node *operand = fusion_on(graph, "epilogue") ? epilogue_operand(graph, node) : NULL;
    if (operand) {
        Group *group = operand->group;
        operand->stored = false;
        node->stored = true;
        node->group = group;
        group->root = node;
        return;
    }
    bool result = is_result(graph, node);
    if (!result && fusion_allows_inlining(graph, node) && worth_inlining(graph, node))
        return;
    Group *group = group_new(graph, node);
    group->reason = result ? "a result of the program"
                  : node->uses > 1 ? "several readers would compute it again" : NULL;
}

/* A result that must lie in a place of its own (a gradient, an update) and is a source, or the value
 * of another result too, becomes a copy. */
static void separate_results(Graph *graph)
{
    for (int i = 0; i < graph->n_results; i++) {
        Result *result = &graph->results[i];
        bool shared = op_facts[result->node->op].kind == KIND_SOURCE;
        for (int k = 0; k < i; k++)
            shared |= graph->results[k].node == result->node
                      && (result->role == ROLE_GRADIENT || result->role == ROLE_UPDATE
                          || graph->results[k].role == ROLE_GRADIENT
                          || graph->results[k].role == ROLE_UPDATE);
        if (!shared)
            continue;
        Node *copy = graph_add(graph, OP_EXPAND, result->node->loc, 1, &result->node);
        copy->shape = result->node->shape;
        copy->type = TYPE_F32;
        result->node = copy;
    }
}

static bool depends_on_parameters_only(const Node *node)
{
    if (node->op == OP_INPUT || node->op == OP_TARGET || node->op == OP_DROPOUT)
        return false;
    for (int i = 0; i < node->n_inputs; i++)
        if (!depends_on_parameters_only(node->inputs[i]))
            return false;
    return true;
}

void fuse(Graph *graph)
{
    separate_results(graph);
    graph_count_uses(graph);
    graph->groups = NULL;
    graph->n_groups = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        graph->nodes[i]->group = NULL;
        graph->nodes[i]->stored = false;
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        Node *node = graph->nodes[i];
        if (op_facts[node->op].kind == KIND_SOURCE)
            node->stored = node->op != OP_CONSTANT;
        else if (node_pointwise(node))
            fuse_pointwise(graph, node);
        else if (!(node_reduces_batch(node) && attach_reduction(graph, node)))
            group_new(graph, node);
    }
    if (graph->program == PROGRAM_TRAIN)
        return;
    for (int i = 0; i < graph->n_groups; i++)
        graph->groups[i]->once = op_facts[graph->groups[i]->anchor->op].kind == KIND_SMALL
                                 && depends_on_parameters_only(graph->groups[i]->anchor);
}
