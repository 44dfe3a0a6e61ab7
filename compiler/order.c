/* The order in which the groups run.
 *
 * needs: fuse.
 * keeps: groups and nodes; sorts graph->groups and numbers them.
 * breaks: nothing.
 *
 * A group can run when all it reads is there. Among those that can, the first that gives back at
 * least as much memory as it takes runs (the last reader of a large tensor), else the one that
 * comes first in the graph: forward in the model's order, backward in its reverse.
 */
#include "seg.h"

typedef struct {
    Group *group;
    Node **leaves; int n_leaves;  /* that it reads, each once */
    bool done;
} Task;

typedef struct {
    Graph *graph;
    Task *tasks;          /* by group id */
    Task *task;           /* whose leaves are being listed */
    int *readers_left;    /* by node id: groups that still read it */
    int *listed;          /* by node id: the last group in whose list it is, + 1 */
} Schedule;

static void count_leaf(void *context, Node *leaf)
{
    ++*(int *)context;
    (void)leaf;
}

static void list_leaf(void *context, Node *leaf)
{
    Schedule *s = context;
    if (s->listed[leaf->id] == s->task->group->id + 1)
        return;
    s->listed[leaf->id] = s->task->group->id + 1;
    s->readers_left[leaf->id]++;
    s->task->leaves[s->task->n_leaves++] = leaf;
}

static void list_tasks(Schedule *s)
{
    for (int i = 0; i < s->graph->n_groups; i++) {
        Group *group = s->graph->groups[i];
        int visits = 0;
        group->id = i;
        group_visit_leaves(group, count_leaf, &visits);
        s->task = &s->tasks[i];
        s->task->group = group;
        s->task->leaves = arena_alloc(s->graph->arena, ((size_t)visits + 1) * sizeof(Node *));
        group_visit_leaves(group, list_leaf, s);
    }
}

static bool is_ready(const Schedule *s, const Task *task)
{
    for (int i = 0; i < task->n_leaves; i++) {
        const Group *group = task->leaves[i]->group;
        if (group && group != task->group && !s->tasks[group->id].done)
            return false;
    }
    return true;
}

/* Elements of a sample that running this group now gives back, less those it takes. */
static int64_t gain(const Schedule *s, const Task *task)
{
    int64_t gained = 0;
    for (int i = 0; i < task->n_leaves; i++) {
        const Node *leaf = task->leaves[i];
        if (leaf->group && leaf->shape.batched && s->readers_left[leaf->id] == 1)
            gained += shape_count(leaf->shape);
    }
    const Node *root = task->group->root;
    return root->shape.batched ? gained - shape_count(root->shape) : gained;
}

/* Groups before `first` are done. */
static Task *next_task(Schedule *s, int first)
{
    Task *next = NULL;
    for (int i = first; i < s->graph->n_groups; i++) {
        Task *task = &s->tasks[i];
        if (task->done || !is_ready(s, task))
            continue;
        if (gain(s, task) >= 0)
            return task;
        if (!next)
            next = task;
    }
    if (!next)
        bug("order: the groups of %s form a circle", s->graph->name);
    return next;
}

void order(Graph *graph)
{
    size_t n = (size_t)graph->n_groups, nodes = (size_t)graph->next_id + 1;
    Schedule s = { .graph = graph, .tasks = arena_alloc(graph->arena, (n + 1) * sizeof *s.tasks),
                   .readers_left = arena_alloc(graph->arena, nodes * sizeof(int)),
                   .listed = arena_alloc(graph->arena, nodes * sizeof(int)) };
    list_tasks(&s);
    int first = 0;
    for (int placed = 0; placed < graph->n_groups; placed++) {
        while (s.tasks[first].done)
            first++;
        Task *next = next_task(&s, first);
        next->done = true;
        for (int i = 0; i < next->n_leaves; i++)
            s.readers_left[next->leaves[i]->id]--;
        graph->groups[placed] = next->group;
    }
    for (int i = 0; i < graph->n_groups; i++)
        graph->groups[i]->id = i;
}
