/* The order in which the groups run.
 *
 * needs: fuse.
 * keeps: groups and nodes; sorts graph->groups and numbers them.
 * breaks: nothing.
 *
 * A group can run when all it reads is there. Among those that can, the one that ends the most
 * memory runs first where it ends any (the last reader of a large tensor), else the one that comes
 * first in the graph: forward in the model's order, backward in its reverse.
 */
#include "seg.h"

typedef struct {
    Graph *graph;
    bool *done;           /* by group id */
    int *readers_left;    /* by node id: groups that still read it */
    Group *group;
    bool ready;
    int64_t frees;
    int *stamp, stamp_now;
} Schedule;

static void count_reader(void *context, Node *leaf)
{
    Schedule *s = context;
    if (s->stamp[leaf->id] == s->stamp_now)
        return;
    s->stamp[leaf->id] = s->stamp_now;
    s->readers_left[leaf->id]++;
}

static void check_leaf(void *context, Node *leaf)
{
    Schedule *s = context;
    if (leaf->group && leaf->group != s->group && !s->done[leaf->group->id])
        s->ready = false;
    if (s->stamp[leaf->id] == s->stamp_now)
        return;
    s->stamp[leaf->id] = s->stamp_now;
    if (leaf->group && leaf->shape.batched && s->readers_left[leaf->id] == 1)
        s->frees += shape_count(leaf->shape);
}

static void finish_reader(void *context, Node *leaf)
{
    Schedule *s = context;
    if (s->stamp[leaf->id] == s->stamp_now)
        return;
    s->stamp[leaf->id] = s->stamp_now;
    s->readers_left[leaf->id]--;
}

/* Bytes (in elements of a sample) that running this group now gives back, less what it takes. */
static int64_t gain(Schedule *s, Group *group)
{
    s->group = group;
    s->ready = true;
    s->frees = 0;
    s->stamp_now++;
    group_visit_leaves(group, check_leaf, s);
    if (group->root->shape.batched)
        s->frees -= shape_count(group->root->shape);
    return s->frees;
}

void order(Graph *graph)
{
    int n = graph->n_groups;
    Group **sorted = arena_alloc(graph->arena, (size_t)(n + 1) * sizeof *sorted);
    size_t nodes = (size_t)graph->next_id + 1;
    Schedule s = { .graph = graph, .done = arena_alloc(graph->arena, (size_t)n + 1),
                   .readers_left = arena_alloc(graph->arena, nodes * sizeof(int)),
                   .stamp = arena_alloc(graph->arena, nodes * sizeof(int)) };
    for (int i = 0; i < n; i++) {
        graph->groups[i]->id = i;
        s.stamp_now++;
        group_visit_leaves(graph->groups[i], count_reader, &s);
    }
    for (int placed = 0; placed < n; placed++) {
        Group *next = NULL;
        for (int i = 0; i < n; i++) {
            if (s.done[i])
                continue;
            int64_t gained = gain(&s, graph->groups[i]);
            if (!s.ready)
                continue;
            if (!next || gained >= 0) {
                next = graph->groups[i];
                if (gained >= 0)
                    break;
            }
        }
        if (!next)
            bug("order: the groups of %s form a circle", graph->name);
        s.done[next->id] = true;
        s.stamp_now++;
        group_visit_leaves(next, finish_reader, &s);
        sorted[placed] = next;
    }
    for (int i = 0; i < n; i++) {
        sorted[i]->id = i;
        graph->groups[i] = sorted[i];
    }
}
