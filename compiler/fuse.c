/* Which nodes one kernel computes together.
 *
 * needs: a simplified graph of one program.
 * keeps: what the results are; every node gets `stored` and `group`, and the graph its groups.
 * breaks: nothing; concatenations of many unaligned operands are split, results that must lie in a
 *     place of their own are copied.
 *
 * A node is either stored by the group it belongs to, or inlined: every reader computes it again
 * from what it reads. Each kind of fusion is a row of `fusions`, which `--no-fuse=` can switch off.
 * The method is that of loop fusion over a graph with anchors, as in Relay (Roesch et al. 2018),
 * with recomputation instead of storing where that moves fewer bytes.
 */
#include "seg.h"

#include <string.h>

/* Bounds on what one expression may hold, so that texts and the time to make them stay small
 * whatever a model says. A concat of more unaligned operands than its kernel takes is split. */
enum { MAX_EXPRESSION = 64, MAX_BRANCHES = 16, MAX_GROUP_BRANCHES = 256, MAX_UNALIGNED = 16 };

/* What the pass knows of each node, by id. */
typedef struct {
    Graph *graph;
    bool *is_result;
    int64_t *largest_reader; /* elements of the largest result that needs it at the same place or
                                spread over it */
    int *seen, search;       /* by the search of that number */
} Fusion;

const FusionFacts fusions[] = {
    { "epilogue", "a pointwise operator joins the kernel whose result it alone reads" },
    { "prologue", "a cheap pointwise operator is computed by the kernels that read it" },
    { "statistics", "batch norm's moments are taken where their tensor is made" },
    { "sums", "so are other sums over the batch, of gradients, and on the host a picture's pools" },
    { "concat", "joins and slices of whole channel blocks are read in place: no copy" },
    { "adam", "on CUDA, Adam packs the convolutions' weights for the next step" },
};
const int n_fusions = sizeof fusions / sizeof *fusions;

bool fusion_on(const Compilation *c, const char *fusion)
{
    const char *list = c->no_fuse;
    size_t length = strlen(fusion);
    if (!list)
        return true;
    for (const char *at = list; (at = strstr(at, fusion)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
            return false;
    return *list != '\0';
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
    return op_facts[node->op].kind == KIND_REDUCE && !node->shape.batched;
}

/* ---- what a group reads ---------------------------------------------------------------------- */

static void visit_expanded(Node *node, const Node *stop, void (*visit)(void *, Node *),
                           void *context)
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

const char *group_part(const Group *group, const Node *node)
{
    for (int i = 0; i < group->n_reductions; i++)
        if (group->reductions[i] == node)
            return "reduced on the way, stored";
    if (node == group->anchor)
        return node == group->root ? "anchor, stored" : "anchor";
    return node == group->root ? "epilogue, stored" : "epilogue";
}

/* ---- would a new member close a circle? ------------------------------------------------------ */

typedef struct {
    Fusion *fusion;
    const Group *target;
    bool found;
} Search;

/* Does storing this node need a result of the target group? */
static void search_stored(void *context, Node *node)
{
    Search *search = context;
    int *seen = &search->fusion->seen[node->id];
    if (search->found || *seen == search->fusion->search || !node->group)
        return;
    *seen = search->fusion->search;
    if (node->group == search->target)
        search->found = true;
    else if (node->group->last > search->target->anchor->id) /* else it was there before */
        group_visit_leaves(node->group, search_stored, search);
}

/* May `node` join `group` by its operand `through`? Not if another operand comes after the group;
 * what it reads of `through` itself is at hand. */
static bool joins_without_circle(Fusion *f, const Group *group, const Node *node,
                                 const Node *through)
{
    Search search = { f, group, false };
    f->search++;
    for (int i = 0; i < node->n_inputs; i++)
        visit_expanded(node->inputs[i], through, search_stored, &search);
    return !search.found;
}

/* ---- groups ---------------------------------------------------------------------------------- */

static Group *group_new(Fusion *f, Node *anchor)
{
    Graph *graph = f->graph;
    Group *group = arena_alloc(graph->arena, sizeof *group);
    group->id = graph->n_groups;
    group->anchor = group->root = anchor;
    group->reductions = arena_alloc(graph->arena, MAX_REDUCTIONS * sizeof *group->reductions);
    group->branches = 1;
    group->last = anchor->id;
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

/* ---- inlining -------------------------------------------------------------------------------- */

typedef struct {
    int loads;            /* full-size tensors an element needs */
    bool slow;            /* has a function such as exp */
    int operators;        /* of the expression, counted wherever they stand */
    int branches;         /* of its text: which operand of a concat, and of the next */
} Cost;

static bool is_slow(const Node *node)
{
    switch ((int)node->op) {
    case OP_SIGMOID: case OP_SILU: case OP_GELU: case OP_SILU_GRAD: case OP_GELU_GRAD:
    case OP_CROSS_ENTROPY_TERMS: case OP_LOGITS_CROSS_ENTROPY_TERMS:
    case OP_LOGITS_CROSS_ENTROPY_TERMS_GRAD: case OP_CLASS_TERMS: case OP_DROPOUT:
        return true;
    case OP_DIV:
        return node->inputs[1]->op != OP_CONSTANT;
    default:
        return false;
    }
}

static Cost expression_cost(const Node *node, int64_t full);

/* An element comes from one operand. */
static Cost concat_cost(const Node *node)
{
    Cost most = { .operators = 1 };
    for (int i = 0; i < node->n_inputs; i++) {
        Cost one = expression_cost(node->inputs[i], 0);
        most.loads = one.loads > most.loads ? one.loads : most.loads;
        most.slow |= one.slow;
        most.operators += one.operators;
        most.branches += one.branches;
    }
    return most;
}

/* What a node's operands cost together, for a reader of `full` elements. */
static Cost operands_cost(const Node *node, int64_t full)
{
    Cost sum = { .branches = 1 };
    for (int i = 0; i < node->n_inputs; i++) {
        Cost one = expression_cost(node->inputs[i], full);
        sum.loads += one.loads;
        sum.slow |= one.slow;
        sum.operators += one.operators;
        sum.branches *= one.branches;
    }
    return sum;
}

/* Of an operand: of one load where it is stored, else of all that it is computed from. */
static Cost expression_cost(const Node *node, int64_t full)
{
    if (node->op == OP_CONSTANT)
        return (Cost){ .branches = 1 };
    if (node->stored)
        return (Cost){ .loads = node->shape.batched && 2 * shape_count(node->shape) > full,
                       .branches = 1 };
    if (node->op == OP_CONCAT)
        return concat_cost(node);
    Cost cost = operands_cost(node, full);
    cost.slow |= is_slow(node);
    cost.operators++;
    return cost;
}

/* Why a node is stored rather than computed by its readers; NULL: it is computed by them. Reading
 * again what the node reads, once a reader, against writing it once and reading that. */
static const char *reason_to_store(const Fusion *f, const Node *node)
{
    if (!node->shape.batched)
        return node->op == OP_EXPAND ? NULL : "a number for the batch, computed once";
    int64_t count = shape_count(node->shape);
    Cost cost = node->op == OP_CONCAT ? concat_cost(node) : operands_cost(node, count);
    if (cost.loads > 6)
        return "it reads too many tensors";
    if (cost.operators >= MAX_EXPRESSION || cost.branches > MAX_BRANCHES)
        return "its expression is large enough for a kernel";
    if (f->largest_reader[node->id] > count)
        return cost.loads == 0 ? NULL : "it is spread over channels or pixels";
    if (cost.slow || is_slow(node))
        return node->uses == 1 ? NULL : "several readers, and it is slow to compute again";
    bool cheap = node->uses * cost.loads <= cost.loads + 1 + node->uses;
    return cheap ? NULL : "several readers would read its operands again";
}

/* The operand whose group this pointwise node can end: the one that is computed last. */
static Node *epilogue_operand(Fusion *f, const Node *node)
{
    if (!node->shape.batched || op_facts[node->op].kind != KIND_POINTWISE)
        return NULL;
    Node *best = NULL;
    for (int i = 0; i < node->n_inputs; i++) {
        Node *operand = node->inputs[i];
        Group *group = operand->group;
        if (!group || group->root != operand || operand->uses != 1 || group->n_reductions
            || !group_has_epilogue(group) || !shape_equal(operand->shape, node->shape)
            || f->is_result[operand->id] || (best && best->id > operand->id)
            || group->branches * operands_cost(node, 0).branches > MAX_GROUP_BRANCHES)
            continue;
        if (joins_without_circle(f, group, node, operand))
            best = operand;
    }
    return best;
}

static bool fusion_allows_inlining(const Fusion *f, const Node *node)
{
    bool move = node->op == OP_CONCAT || node->op == OP_SLICE;
    return fusion_on(f->graph->compilation, move ? "concat" : "prologue");
}

/* ---- reductions ------------------------------------------------------------------------------ */

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

static const char *fusion_of_sum(const Node *reduction)
{
    return reduction->op == OP_BATCH_MOMENTS ? "statistics" : "sums";
}

/* Sums over the batch; and for targets that can, both global poolings, where their results lie in
 * whole blocks. */
static bool can_attach(const Fusion *f, const Node *node)
{
    bool pools = node->op == OP_GLOBAL_AVG_POOL || node->op == OP_GLOBAL_MAX_POOL;
    return node_reduces_batch(node)
           || (pools && f->graph->target->pools && node->shape.dims[0] >= PLAN_BLOCK);
}

/* The group that stores what this reduction sums, if the reduction can be done with it. */
static Group *reduction_group(Fusion *f, const Node *node)
{
    Node *root = find_root(node->inputs[0]);
    if (!root || !fusion_on(f->graph->compilation, fusion_of_sum(node)))
        return NULL;
    Group *group = root->group;
    bool found = false, same_place = true;
    for (int i = 0; i < node->n_inputs; i++)
        same_place = same_place && reads_root_pointwise(node->inputs[i], root, &found);
    Cost cost = operands_cost(node, shape_count(root->shape));
    if (!group_has_epilogue(group) || group->n_reductions == MAX_REDUCTIONS
        || op_facts[group->anchor->op].kind == KIND_REDUCE
        || !shape_equal(root->shape, node->inputs[0]->shape) || !found || !same_place
        || cost.loads > 4 || group->branches * cost.branches > MAX_GROUP_BRANCHES
        || !joins_without_circle(f, group, node, root))
        return NULL;
    group->branches *= cost.branches;
    return group;
}

static bool attach_reduction(Fusion *f, Node *node)
{
    Group *group = reduction_group(f, node);
    if (!group)
        return false;
    group->reductions[group->n_reductions++] = node;
    group->last = node->id;
    node->group = group;
    node->stored = true;
    return true;
}

/* ---- one node -------------------------------------------------------------------------------- */

static void fuse_pointwise(Fusion *f, Node *node)
{
    int branches = node->op == OP_CONCAT ? concat_cost(node).branches
                                         : operands_cost(node, 0).branches;
    Node *operand = fusion_on(f->graph->compilation, "epilogue") ? epilogue_operand(f, node) : NULL;
    if (operand) {
        Group *group = operand->group;
        group->branches *= branches;
        operand->stored = false;
        node->stored = true;
        node->group = group;
        group->root = node;
        group->last = node->id;
        return;
    }
    const char *reason = f->is_result[node->id] ? "a result of the program"
                       : !fusion_allows_inlining(f, node) ? "this fusion is switched off"
                       : reason_to_store(f, node);
    if (!reason)
        return;
    Group *group = group_new(f, node);
    group->branches = branches;
    group->reason = reason;
}

/* ---- before and after ------------------------------------------------------------------------ */

/* A result that must lie in a place of its own (a gradient, an update) and is a source, or the
 * value of another result too, becomes a copy. */
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

/* The kernel of an unaligned concat takes so many operands: the first ones are joined before. */
static void split_concats(Graph *graph)
{
    int n_nodes = graph->n_nodes;
    for (int i = 0; i < n_nodes; i++) {
        Node *node = graph->nodes[i];
        while (node->op == OP_CONCAT && !node_pointwise(node) && node->n_inputs > MAX_UNALIGNED) {
            Node *first = graph_add(graph, OP_CONCAT, node->loc, MAX_UNALIGNED, node->inputs);
            infer_node(graph, first);
            node->inputs += MAX_UNALIGNED - 1;
            node->n_inputs -= MAX_UNALIGNED - 1;
            node->inputs[0] = first;
        }
    }
    graph_sort(graph);
}

/* Groups that depend on parameters alone: outside training they run when those have changed. */
static void mark_once(Graph *graph)
{
    bool *changes = arena_alloc(graph->arena, (size_t)graph->next_id + 1);
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        changes[node->id] = node->op == OP_INPUT || node->op == OP_TARGET;
        for (int k = 0; k < node->n_inputs; k++)
            changes[node->id] |= changes[node->inputs[k]->id];
    }
    for (int i = 0; i < graph->n_groups; i++) {
        const Node *anchor = graph->groups[i]->anchor;
        graph->groups[i]->once = op_facts[anchor->op].kind == KIND_SMALL && !changes[anchor->id];
    }
}

/* ---- why no more was fused, for --explain ---------------------------------------------------- */

/* What keeps the only reader of a group's result out of the group. */
static const char *reason_of_reader(const Fusion *f, const Group *group, const Node *reader)
{
    if (!group->root->shape.batched)
        return "its result is known when the whole batch is done";
    if (can_attach(f, reader))
        return fusion_on(f->graph->compilation, fusion_of_sum(reader))
                   ? "its reduction reads what comes later" : "this fusion is switched off";
    if (!node_pointwise(reader))
        return "its reader needs more than one element for each of its own";
    if (!fusion_on(f->graph->compilation, "epilogue"))
        return "epilogues are switched off";
    if (!group_has_epilogue(group))
        return "its kernel takes no epilogue";
    if (group->n_reductions)
        return "its statistics must be known first";
    if (!shape_equal(reader->shape, group->root->shape))
        return "its reader has another shape";
    return reader->group ? "its reader ends the group of another operand"
                         : "its reader is computed by several";
}

/* Gives every group a reason that has none yet. */
static void explain(const Fusion *f)
{
    const Graph *graph = f->graph;
    const Node **reader = arena_alloc(graph->arena, ((size_t)graph->next_id + 1) * sizeof *reader);
    for (int i = 0; i < graph->n_nodes; i++)
        for (int k = 0; k < graph->nodes[i]->n_inputs; k++)
            reader[graph->nodes[i]->inputs[k]->id] = graph->nodes[i];
    for (int i = 0; i < graph->n_groups; i++) {
        Group *group = graph->groups[i];
        const Node *root = group->root;
        if (group->reason && root == group->anchor)
            continue;
        group->reason = f->is_result[root->id] ? "a result of the program"
                      : root->uses > 1 ? "its result has several readers"
                      : reason_of_reader(f, group, reader[root->id]);
    }
}

/* ---- the pass -------------------------------------------------------------------------------- */

/* What is known of each node before the first is fused. */
static Fusion survey(Graph *graph)
{
    size_t ids = (size_t)graph->next_id + 1;
    Fusion f = { .graph = graph };
    f.is_result = arena_alloc(graph->arena, ids * sizeof *f.is_result);
    f.largest_reader = arena_alloc(graph->arena, ids * sizeof *f.largest_reader);
    f.seen = arena_alloc(graph->arena, ids * sizeof *f.seen);
    for (int i = 0; i < graph->n_results; i++)
        f.is_result[graph->results[i].node->id] = true;
    for (int i = 0; i < graph->n_nodes; i++) {
        Node *node = graph->nodes[i];
        node->group = NULL;
        node->stored = false;
        if (!node_pointwise(node) || node->op == OP_CONCAT)
            continue;
        for (int k = 0; k < node->n_inputs; k++) {
            int64_t *largest = &f.largest_reader[node->inputs[k]->id];
            *largest = shape_count(node->shape) > *largest ? shape_count(node->shape) : *largest;
        }
    }
    return f;
}

void fuse(Graph *graph)
{
    split_concats(graph);
    separate_results(graph);
    graph_count_uses(graph);
    graph->groups = arena_alloc(graph->arena, ((size_t)graph->n_nodes + 1) * sizeof *graph->groups);
    graph->n_groups = 0;
    Fusion f = survey(graph);
    for (int i = 0; i < graph->n_nodes; i++) {
        Node *node = graph->nodes[i];
        if (op_facts[node->op].kind == KIND_SOURCE)
            node->stored = node->op != OP_CONSTANT;
        else if (node_pointwise(node))
            fuse_pointwise(&f, node);
        else if (!(can_attach(&f, node) && attach_reduction(&f, node)))
            group_new(&f, node);
    }
    explain(&f);
    if (graph->program != PROGRAM_TRAIN)
        mark_once(graph);
}
