/* Where every stored tensor lies.
 *
 * needs: order; the graph's target can tell what a group needs besides its tensors.
 * keeps: the groups and their order; gives stored nodes their layout, slab and offset, and
 *     temporaries theirs.
 * breaks: nothing.
 *
 * A tensor lives from the group that stores it to the last group that reads it. Two arenas are laid
 * out, one for tensors of a sample (offsets are times N) and one for fixed tensors: largest first,
 * each at the lowest offset where nothing that lives at the same time lies (Pisarchyk, Lee 2020,
 * "greedy by size"). A pointwise result takes the place of an operand of its own shape that nobody
 * reads later. At the end the places are proved right from the groups alone: see verify_places.
 */
#include "seg.h"

#include <stdlib.h>
#include <string.h>

/* Tensors of fewer channels are plain: most of a block would be zeros. */
enum { LEAST_BLOCKED = 8 };

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
    int64_t element = node->element == TYPE_U8 ? 1 : node->element == TYPE_BF16 ? 2 : 4;
    int64_t count = shape_count(node->shape);
    if (node->block)
        count = round_up(node->shape.dims[0], node->block) * node->shape.dims[1]
                * node->shape.dims[2];
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
            p->init = node->init == INIT_CONSTANT ? PLAN_INIT_CONSTANT
                    : node->init == INIT_VALUES   ? PLAN_INIT_VALUES : PLAN_INIT_UNIFORM;
            p->values = node->init_values;
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

/* Are packed weights there until parameters change, so that they need not be packed in every run? */
static bool keeps_packed(const Graph *graph)
{
    return graph->program != PROGRAM_TRAIN
        || (graph->target->keeps_packed && fusion_on(graph->compilation, "adam"));
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
    bool until_end = is_plain_result(graph, node) || whole_run;
    int death = until_end ? graph->n_groups : p->last_reader[node->id];
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
            bool kept = t == TEMPORARY_PACKED && keeps_packed(graph);
            add_extent(p, NULL, &group->temporaries[t], kept ? -1 : i, kept ? graph->n_groups : i);
        }
    }
}

/* ---- in place -------------------------------------------------------------------------------- */

/* Is the leaf read for another element than the one that the reader writes? `same`: not so far. */
static bool reads_elsewhere(const Node *node, const Node *stop, const Node *leaf, bool same)
{
    if (node == stop)
        return false;
    if (node == leaf)
        return !same;
    bool pointwise = op_facts[node->op].kind == KIND_POINTWISE;
    for (int i = 0; i < node->n_inputs && !node->stored; i++) {
        const Node *operand = node->inputs[i];
        if (reads_elsewhere(operand, stop, leaf,
                            same && pointwise && shape_equal(operand->shape, node->shape)))
            return true;
    }
    return false;
}

static bool operands_elsewhere(const Node *node, const Node *stop, const Node *leaf, bool same)
{
    for (int i = 0; i < node->n_inputs; i++)
        if (reads_elsewhere(node->inputs[i], stop, leaf,
                            same && shape_equal(node->inputs[i]->shape, node->shape)))
            return true;
    return false;
}

/* May the group's root lie over this operand? Each element must be read, by all in the group, just
 * before the root's is written over it. A batch's moments are summed in two passes. */
static bool may_lie_over(const Group *group, const Node *leaf)
{
    const Node *anchor = group->anchor, *root = group->root;
    if (root->op == OP_RUNNING_MEAN || root->op == OP_RUNNING_VAR)
        return leaf == root->inputs[0] && leaf != root->inputs[1];
    if (!root->shape.batched) /* read as constants, by some kernels in any order */
        return false;
    if (op_facts[root->op].kind != KIND_POINTWISE || !shape_equal(leaf->shape, root->shape)
        || leaf->block != root->block || leaf->element != root->element)
        return false;
    bool pointwise = op_facts[anchor->op].kind == KIND_POINTWISE;
    if (operands_elsewhere(anchor, NULL, leaf, pointwise)
        || operands_elsewhere(root, anchor, leaf, true))
        return false;
    for (int r = 0; r < group->n_reductions; r++) {
        const Node *reduction = group->reductions[r];
        for (int i = 0; i < reduction->n_inputs; i++)
            if (reads_elsewhere(reduction->inputs[i], root, leaf,
                                reduction->op != OP_BATCH_MOMENTS))
                return false;
    }
    return true;
}

typedef struct {
    Placement *placement;
    Group *group;
    Extent *found;
} InPlace;

static void try_leaf(void *context, Node *leaf)
{
    InPlace *search = context;
    Extent *extent = search->placement->of_node[leaf->id];
    if (!search->found && extent && extent->death == search->group->id
        && may_lie_over(search->group, leaf))
        search->found = extent;
}

static void try_in_place(Placement *p, Group *group)
{
    InPlace search = { p, group, NULL };
    Extent *extent = p->of_node[group->root->id];
    if (!extent || op_facts[group->root->op].kind != KIND_POINTWISE)
        return;
    group_visit_leaves(group, try_leaf, &search);
    extent->inside = search.found;
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

/* ---- the proof ------------------------------------------------------------------------------- */

/* Memory that holds something between two times, told from the groups and not from the extents. */
typedef struct {
    const Node *node;         /* NULL: a temporary */
    Slab slab;
    int64_t begin, end;       /* bytes, of a sample where batched */
    int written, last_read;   /* group ids; -1: before all, n_groups: after all */
} Content;

typedef struct {
    const Graph *graph;
    Content *contents; int n_contents;
    int *last_read;           /* by node id */
    int now;
} Proof;

static void read_content(void *context, Node *leaf)
{
    Proof *proof = context;
    proof->last_read[leaf->id] = proof->now;
}

static void add_content(Proof *proof, const Node *node, int written, int last_read)
{
    proof->contents[proof->n_contents++] = (Content){
        .node = node, .slab = node->slab, .begin = node->offset,
        .end = node->offset + node_bytes(node), .written = written,
        .last_read = last_read > written ? last_read : written,
    };
}

/* A buffer that gets a new value is needed until then; other sources keep theirs. */
static int source_last_read(const Proof *proof, const Node *node)
{
    for (int i = 0; i < proof->graph->n_results; i++)
        if (proof->graph->results[i].role == ROLE_UPDATE
            && proof->graph->results[i].name == node->name)
            return proof->last_read[node->id];
    return proof->graph->n_groups;
}

static void list_group(Proof *proof, const Group *group)
{
    int end = proof->graph->n_groups;
    const bool kept = keeps_packed(proof->graph);
    for (int r = -1; r < group->n_reductions; r++) {
        const Node *node = r < 0 ? group->root : group->reductions[r];
        int last = is_plain_result(proof->graph, node) ? end : proof->last_read[node->id];
        add_content(proof, node, group->once ? -1 : group->id, group->once ? end : last);
    }
    for (int t = 0; t < MAX_TEMPORARIES; t++) {
        const Temporary *temporary = &group->temporaries[t];
        bool whole_run = group->once || (kept && t == TEMPORARY_PACKED);
        if (temporary->bytes)
            proof->contents[proof->n_contents++] = (Content){
                .slab = temporary->batched ? SLAB_ACTIVATIONS : SLAB_FIXED,
                .begin = temporary->offset, .end = temporary->offset + temporary->bytes,
                .written = whole_run ? -1 : group->id, .last_read = whole_run ? end : group->id,
            };
    }
}

static void list_contents(Proof *proof)
{
    const Graph *graph = proof->graph;
    for (int i = 0; i < graph->n_nodes; i++)
        proof->last_read[graph->nodes[i]->id] = -1;
    for (int i = 0; i < graph->n_groups; i++) {
        proof->now = graph->groups[i]->id;
        group_visit_leaves(graph->groups[i], read_content, proof);
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        if (op_facts[node->op].kind == KIND_SOURCE && node->op != OP_CONSTANT)
            add_content(proof, node, -1, source_last_read(proof, node));
    }
    for (int i = 0; i < graph->n_groups; i++)
        list_group(proof, graph->groups[i]);
}

/* Is `old` no longer needed when `new` is written, or read only where that is just written? */
static bool makes_way(const Content *old, const Content *new)
{
    if (old->last_read < new->written)
        return true;
    return old->last_read == new->written && old->written < new->written && old->node && new->node
           && new->node->group && new->node == new->node->group->root
           && old->begin == new->begin && old->end == new->end
           && may_lie_over(new->node->group, old->node);
}

/* What holds of the places: whatever shares a byte is needed at different times, or in turn. */
static void verify_places(const Graph *graph)
{
    size_t most = (size_t)graph->n_nodes + (size_t)graph->n_groups
                  * (1 + MAX_REDUCTIONS + MAX_TEMPORARIES);
    Proof proof = { .graph = graph };
    proof.contents = arena_alloc(graph->arena, (most + 1) * sizeof *proof.contents);
    proof.last_read = arena_alloc(graph->arena, ((size_t)graph->next_id + 1) * sizeof(int));
    list_contents(&proof);
    for (int i = 0; i < proof.n_contents; i++) {
        const Content *a = &proof.contents[i];
        int64_t start = a->slab == SLAB_FIXED ? PLAN_STATE_BYTES : 0;
        int64_t size = a->slab == SLAB_FIXED ? graph->fixed_bytes
                     : a->slab == SLAB_ACTIVATIONS ? graph->activation_bytes : INT64_MAX;
        if (a->begin % PLAN_ALIGN || a->begin < start || a->end > size)
            bug("place: outside its slab in %s: %s", graph->name,
                a->node ? node_text(graph, a->node) : "a temporary");
        for (int k = 0; k < i; k++) {
            const Content *b = &proof.contents[k];
            if (a->slab == b->slab && a->begin < b->end && b->begin < a->end && !makes_way(a, b)
                && !makes_way(b, a))
                bug("place: two live tensors overlap in %s:\n    %s\n    %s", graph->name,
                    a->node ? node_text(graph, a->node) : "a temporary",
                    b->node ? node_text(graph, b->node) : "a temporary");
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
        bool blocked = node->stored && node->shape.batched && node->shape.dims[0] >= LEAST_BLOCKED
                       && op_facts[node->op].kind != KIND_SOURCE && !is_plain_result(graph, node);
        node->block = blocked ? graph->target->block : 0;
        node->element = blocked ? graph->target->stored : node->type;
    }
    for (int i = 0; i < graph->n_groups; i++)
        graph->target->temporaries(graph, graph->groups[i]);
    collect(&p);
    for (int i = 0; i < graph->n_groups; i++)
        try_in_place(&p, graph->groups[i]);
    extend_outer_lifetimes(&p);
    int64_t fixed_unshared;
    graph->fixed_bytes = lay_out(&p, false, PLAN_STATE_BYTES, &fixed_unshared);
    graph->activation_bytes = lay_out(&p, true, 0, &graph->activation_bytes_unshared);
    assign(&p);
    verify_places(graph);
}
