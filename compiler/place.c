/* Where every stored tensor lies.
 *
 * needs: order; lower_temporaries() can tell what a group needs besides its tensors.
 * keeps: the groups and their order; gives stored nodes `blocked`, `slab`, `offset`, and temporaries theirs.
 * breaks: nothing.
 *
 * A tensor lives from the group that stores it to the last group that reads it. Two arenas are laid
 * out, one for tensors of a sample (offsets are times N) and one for fixed tensors: largest first,
 * each at the lowest offset where nothing that lives at the same time lies (Pisarchyk, Lee 2020,
 * "greedy by size"). A pointwise result takes the place of an operand of its own shape that nobody
 * reads later. At the end every pair is checked again for overlap.
 */
#include "seg.h"

#include <stdlib.h>
#include <string.h>

typedef struct Extent Extent;
struct Extent {
    Node *node;               /* the first tensor in it, or NULL for a temporary */
    Temporary *temporary;
    int birth, death;         /* group ids, both included; -1: before the first */
    int64_t bytes;
    int64_t offset;
    Extent *inside;            /* lies in that extent's place */
};

typedef struct {
    Graph *graph;
    Extent *extents; int n_extents;
    Extent **of_node;          /* by node id */
    int *last_reader;         /* by node id */
    Group *group;
} Placement;

static int64_t round_up(int64_t value, int64_t to)
{
    return (value + to - 1) / to * to;
}

/* [rows,C] tensors, whose rows are padded to whole blocks. */
static bool is_coefficients(const Node *node)
{
    switch ((int)node->op) {
    case OP_BATCH_MOMENTS: case OP_BATCH_NORM_COEFFICIENTS: case OP_BATCH_NORM_RUNNING:
    case OP_BATCH_NORM_SUMS: case OP_BATCH_NORM_SLOPES:
        return true;
    default:
        return false;
    }
}

int64_t node_bytes(const Node *node)
{
    int64_t element = node->type == TYPE_U8 ? 1 : 4;
    int64_t count = shape_count(node->shape);
    if (node->blocked)
        count = round_up(node->shape.dims[0], PLAN_BLOCK) * node->shape.dims[1] * node->shape.dims[2];
    else if (is_coefficients(node))
        count = node->shape.dims[0] * round_up(node->shape.dims[1], PLAN_BLOCK);
    return round_up(count * element, PLAN_ALIGN);
}

void place_parameters(Graph *model, Plan *plan)
{
    int64_t offset = 0;
    int count = 0;
    for (int i = 0; i < model->n_nodes; i++)
        count += model->nodes[i]->op == OP_PARAMETER || model->nodes[i]->op == OP_BUFFER;
    plan->parameters = arena_alloc(model->arena, (size_t)(count + 1) * sizeof *plan->parameters);
    static const Op kinds[] = { OP_PARAMETER, OP_BUFFER };
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < model->n_nodes; i++) {
            Node *node = model->nodes[i];
            if (node->op != kinds[k])
                continue;
            node->slab = SLAB_PARAMETERS;
            node->offset = offset;
            offset += node_bytes(node);
            PlanParameter *p = &plan->parameters[plan->n_parameters++];
            p->name = (char *)node->name;
            p->rank = node->shape.rank;
            memcpy(p->dims, node->shape.dims, sizeof p->dims);
            p->trainable = node->op == OP_PARAMETER;
            p->init = node->init == INIT_CONSTANT ? PLAN_INIT_CONSTANT : PLAN_INIT_UNIFORM;
            p->value = node->init_value;
            if (node->init == INIT_KAIMING_UNIFORM || node->init == INIT_UNIFORM)
                p->value = 1 / __builtin_sqrt(node->init_value > 0 ? node->init_value : 1);
            p->offset = node->offset;
        }
        if (k == 0)
            plan->trainable_bytes = offset;
    }
    plan->parameter_bytes = offset;
}

/* ---- layout and fixed places ----------------------------------------------------------------- */

static bool is_plain_result(const Graph *graph, const Node *node)
{
    for (int i = 0; i < graph->n_results; i++)
        if (graph->results[i].node == node)
            return true;
    return false;
}

static Node *named_source(const Graph *graph, const char *name)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (op_facts[graph->nodes[i]->op].kind == KIND_SOURCE && graph->nodes[i]->name == name)
            return graph->nodes[i];
    bug("place: no source is named '%s'", name);
}

/* Gradients lie where their parameter lies, updates over the old value. */
static bool place_result(Graph *graph, Node *node)
{
    for (int i = 0; i < graph->n_results; i++) {
        const Result *result = &graph->results[i];
        if (result->node != node || (result->role != ROLE_GRADIENT && result->role != ROLE_UPDATE))
            continue;
        Node *source = named_source(graph, result->name);
        if (source->op == OP_INPUT)
            continue;
        node->slab = result->role == ROLE_GRADIENT ? SLAB_GRADIENTS : SLAB_PARAMETERS;
        node->offset = source->offset;
        return true;
    }
    return false;
}

/* ---- lifetimes ------------------------------------------------------------------------------- */

static void note_reader(void *context, Node *leaf)
{
    Placement *p = context;
    p->last_reader[leaf->id] = p->group->id;
}

static Extent *add_extent(Placement *p, Node *node, Temporary *temporary, int birth, int death)
{
    Extent *extent = &p->extents[p->n_extents++];
    extent->node = node;
    extent->temporary = temporary;
    extent->birth = birth;
    extent->death = death;
    extent->bytes = node ? node_bytes(node) : round_up(temporary->bytes, PLAN_ALIGN);
    if (node)
        p->of_node[node->id] = extent;
    return extent;
}

static void add_tensor(Placement *p, Node *node, int birth)
{
    Graph *graph = p->graph;
    node->slab = node->shape.batched ? SLAB_ACTIVATIONS : SLAB_FIXED;
    if (place_result(graph, node))
        return;
    bool whole_run = op_facts[node->op].kind == KIND_SOURCE || (node->group && node->group->once);
    int death = is_plain_result(graph, node) || whole_run ? graph->n_groups : p->last_reader[node->id];
    add_extent(p, node, NULL, whole_run ? -1 : birth, death > birth ? death : birth);
}

static void collect(Placement *p)
{
    Graph *graph = p->graph;
    for (int i = 0; i < graph->n_groups; i++) {
        p->group = graph->groups[i];
        group_visit_leaves(p->group, note_reader, p);
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        Node *node = graph->nodes[i];
        if (node->op == OP_INPUT || node->op == OP_TARGET)
            add_tensor(p, node, -1);
    }
    for (int i = 0; i < graph->n_groups; i++) {
        Group *group = graph->groups[i];
        add_tensor(p, group->root, i);
        for (int r = 0; r < group->n_reductions; r++)
            add_tensor(p, group->reductions[r], i);
        for (int t = 0; t < MAX_TEMPORARIES; t++) {
            if (!group->temporaries[t].bytes)
                continue;
            bool kept = t == TEMPORARY_PACKED && graph->program != PROGRAM_TRAIN;
            add_extent(p, NULL, &group->temporaries[t], kept ? -1 : i, kept ? graph->n_groups : i);
        }
    }
}

/* ---- in place -------------------------------------------------------------------------------- */

typedef struct {
    Node *leaf;
    int visits;
} LeafCount;

static void count_leaf(void *context, Node *leaf)
{
    LeafCount *count = context;
    count->visits += leaf == count->leaf;
}

/* Leaves that the group's elementwise part reads at the same element that it then writes. */
static void pointwise_leaves(Node *node, const Group *group, Node **leaves, int *n, int capacity)
{
    for (int i = 0; i < node->n_inputs; i++) {
        Node *operand = node->inputs[i];
        if (operand == group->anchor || !shape_equal(operand->shape, group->root->shape))
            continue;
        if (operand->stored) {
            if (*n < capacity)
                leaves[(*n)++] = operand;
        } else if (op_facts[operand->op].kind == KIND_POINTWISE) {
            pointwise_leaves(operand, group, leaves, n, capacity);
        }
    }
}

static void try_in_place(Placement *p, Group *group)
{
    Node *root = group->root;
    Extent *extent = p->of_node[root->id];
    if (!extent || op_facts[root->op].kind != KIND_POINTWISE)
        return;
    for (int r = 0; r < group->n_reductions; r++)
        if (group->reductions[r]->op == OP_BATCH_MOMENTS && group->reductions[r]->inputs[0] != root)
            return; /* reads its operands a second time, after root was written */
    Node *leaves[16];
    int n = 0;
    pointwise_leaves(root, group, leaves, &n, 16);
    for (int i = 0; i < n; i++) {
        Extent *old = p->of_node[leaves[i]->id];
        int here = 0;
        for (int k = 0; k < n; k++)
            here += leaves[k] == leaves[i];
        for (int r = 0; r < group->n_reductions; r++)
            for (int k = 0; k < group->reductions[r]->n_inputs; k++)
                here += group->reductions[r]->inputs[k] == leaves[i];
        LeafCount all = { leaves[i], 0 };
        group_visit_leaves(group, count_leaf, &all);
        if (!old || old->death != group->id || leaves[i]->blocked != root->blocked
            || leaves[i]->type != root->type || all.visits != here)
            continue; /* needed later, or read at another place as well */
        extent->inside = old;
        return;
    }
}

/* ---- offsets --------------------------------------------------------------------------------- */

static bool extent_batched(const Extent *extent)
{
    return extent->node ? extent->node->shape.batched : extent->temporary->batched;
}

static Extent *outermost(Extent *extent)
{
    while (extent->inside)
        extent = extent->inside;
    return extent;
}

static int larger_first(const void *a, const void *b)
{
    const Extent *x = *(Extent *const *)a, *y = *(Extent *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x < y ? -1 : 1;
}

static bool overlap_in_time(const Extent *a, const Extent *b)
{
    return a->birth <= b->death && b->birth <= a->death;
}

static int64_t lowest_free(Extent *const *placed, int n, const Extent *extent, int64_t start)
{
    int64_t offset = start;
    bool moved = true;
    while (moved) {
        moved = false;
        for (int i = 0; i < n; i++) {
            const Extent *other = placed[i];
            if (overlap_in_time(extent, other) && offset < other->offset + other->bytes
                && other->offset < offset + extent->bytes) {
                offset = other->offset + other->bytes;
                moved = true;
            }
        }
    }
    return offset;
}

static int64_t lay_out(Placement *p, bool batched, int64_t start, int64_t *unshared)
{
    Extent **list = arena_alloc(p->graph->arena, (size_t)(p->n_extents + 1) * sizeof *list);
    int n = 0;
    int64_t end = start;
    *unshared = start;
    for (int i = 0; i < p->n_extents; i++) {
        if (extent_batched(&p->extents[i]) != batched)
            continue;
        *unshared += p->extents[i].bytes;
        if (!p->extents[i].inside)
            list[n++] = &p->extents[i];
    }
    qsort(list, (size_t)n, sizeof *list, larger_first);
    for (int i = 0; i < n; i++) {
        list[i]->offset = lowest_free(list, i, list[i], start);
        if (list[i]->offset + list[i]->bytes > end)
            end = list[i]->offset + list[i]->bytes;
    }
    return end;
}

static void extend_outer_lifetimes(Placement *p)
{
    for (int i = 0; i < p->n_extents; i++) {
        Extent *outer = outermost(&p->extents[i]);
        if (p->extents[i].death > outer->death)
            outer->death = p->extents[i].death;
    }
}

static void assign(Placement *p)
{
    for (int i = 0; i < p->n_extents; i++) {
        Extent *extent = &p->extents[i];
        extent->offset = outermost(extent)->offset;
        if (extent->node)
            extent->node->offset = extent->offset;
        else
            extent->temporary->offset = extent->offset;
    }
}

/* The proof: no two extents that live at the same time share a byte, but for those in place. */
static void verify_places(const Placement *p)
{
    for (int i = 0; i < p->n_extents; i++) {
        for (int k = 0; k < i; k++) {
            Extent *a = &p->extents[i], *b = &p->extents[k];
            if (outermost(a) == outermost(b) || extent_batched(a) != extent_batched(b)
                || !overlap_in_time(a, b))
                continue;
            if (a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes)
                bug("place: two live tensors overlap in %s: %s and %s", p->graph->name,
                    a->node ? node_text(p->graph, a->node) : "a temporary",
                    b->node ? node_text(p->graph, b->node) : "a temporary");
        }
    }
}

void place(Graph *graph)
{
    size_t ids = (size_t)graph->next_id + 1;
    Placement p = { .graph = graph };
    p.of_node = arena_alloc(graph->arena, ids * sizeof *p.of_node);
    p.last_reader = arena_alloc(graph->arena, ids * sizeof *p.last_reader);
    p.extents = arena_alloc(graph->arena, ((size_t)graph->n_groups
                                          * (1 + MAX_REDUCTIONS + MAX_TEMPORARIES)
                                          + (size_t)graph->n_nodes + 1) * sizeof *p.extents);
    for (int i = 0; i < graph->n_nodes; i++) {
        Node *node = graph->nodes[i];
        p.last_reader[node->id] = -1;
        node->blocked = node->stored && node->shape.batched && node->shape.dims[0] >= PLAN_BLOCK / 2
                        && op_facts[node->op].kind != KIND_SOURCE && !is_plain_result(graph, node);
    }
    for (int i = 0; i < graph->n_groups; i++)
        lower_temporaries(graph, graph->groups[i]);
    collect(&p);
    for (int i = 0; i < graph->n_groups; i++)
        try_in_place(&p, graph->groups[i]);
    extend_outer_lifetimes(&p);
    int64_t fixed_unshared;
    graph->fixed_bytes = lay_out(&p, false, PLAN_STATE_BYTES, &fixed_unshared);
    graph->activation_bytes = lay_out(&p, true, 0, &graph->activation_bytes_unshared);
    assign(&p);
    verify_places(&p);
}
