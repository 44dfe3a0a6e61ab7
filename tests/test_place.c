/* The memory planner by itself: random lifetimes laid out and checked byte by byte; and the proof
 * at the end of place() on real programs whose tensors are moved at random: whenever a run of the
 * groups, byte by byte, would read what is no longer there, the proof must reject the places.
 * Includes place.c, whose parts are static.
 */
#include "../compiler/place.c"

#include <sys/wait.h>
#include <unistd.h>

#include "comparison.h"

enum { MAX_EXTENTS = 40, MAX_TIME = 12, MAX_BYTES = 4096 };

typedef struct {
    Placement placement;
    Extent extents[MAX_EXTENTS];
    Temporary temporaries[MAX_EXTENTS];
} Sample;

static int passed, failed;

static void check(bool good, const char *what)
{
    if (!good)
        printf("FAIL %s\n", what);
    *(good ? &passed : &failed) += 1;
}

static uint32_t draw(uint64_t *state, uint32_t limit)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % limit;
}

static void fill(Sample *sample, Graph *graph, uint64_t seed)
{
    memset(sample, 0, sizeof *sample);
    sample->placement = (Placement){.graph = graph, .extents = sample->extents};
    sample->placement.n_extents = 2 + (int)draw(&seed, MAX_EXTENTS - 2);
    for (int i = 0; i < sample->placement.n_extents; i++) {
        int birth = (int)draw(&seed, MAX_TIME);
        sample->temporaries[i].batched = true;
        sample->extents[i] = (Extent){
            .temporary = &sample->temporaries[i],
            .birth = birth,
            .death = birth + (int)draw(&seed, (uint32_t)(MAX_TIME - birth)),
            .bytes = PLAN_ALIGN * (1 + draw(&seed, MAX_BYTES / PLAN_ALIGN)),
        };
    }
}

/* No byte has two owners at any time. */
static bool no_byte_shared(const Sample *sample, int64_t bytes)
{
    const Extent *extents = sample->extents;
    char *owned = malloc((size_t)bytes);
    bool good = true;
    for (int time = 0; time < MAX_TIME && good; time++) {
        memset(owned, 0, (size_t)bytes);
        for (int i = 0; i < sample->placement.n_extents; i++) {
            if (extents[i].birth > time || extents[i].death < time)
                continue;
            for (int64_t k = 0; k < extents[i].bytes; k++)
                good &= !owned[extents[i].offset + k]++;
        }
    }
    free(owned);
    return good;
}

/* The most bytes that live at one time: no layout can be smaller. */
static int64_t least_bytes(const Sample *sample)
{
    int64_t most = 0;
    for (int time = 0; time < MAX_TIME; time++) {
        int64_t live = 0;
        for (int i = 0; i < sample->placement.n_extents; i++)
            if (sample->extents[i].birth <= time && sample->extents[i].death >= time)
                live += sample->extents[i].bytes;
        most = live > most ? live : most;
    }
    return most;
}

/* Whether the proof aborts. */
static bool rejects(const Graph *graph)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        fclose(stderr);
        verify_places(graph);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void test_random_lifetimes(Graph *graph)
{
    double worst = 1;
    for (uint64_t seed = 0; seed < 200; seed++) {
        static Sample sample;
        int64_t unshared;
        fill(&sample, graph, seed);
        int64_t bytes = lay_out(&sample.placement, true, 0, &unshared);
        assign(&sample.placement);
        int64_t least = least_bytes(&sample);
        check(no_byte_shared(&sample, bytes) && bytes >= least && bytes <= unshared,
              "a random layout shares no byte and is no larger than without sharing");
        worst = (double)bytes / (double)least > worst ? (double)bytes / (double)least : worst;
    }
    printf("200 random layouts: at most %.2f times the bytes that live at one time\n", worst);
    check(worst < 1.5, "layouts are near the least possible");
}

/* ---- the proof ------------------------------------------------------------------------------- */

/* Who wrote each block of PLAN_ALIGN bytes last. */
typedef struct {
    const Graph *graph;
    const void **owner[SLAB_COUNT];
    bool intact;
} Memory;

static void mark(Memory *memory, Slab slab, int64_t offset, int64_t bytes, const void *owner)
{
    for (int64_t at = offset; at < offset + bytes; at += PLAN_ALIGN)
        memory->owner[slab][at / PLAN_ALIGN] = owner;
}

static void write_node(Memory *memory, const Node *node)
{
    mark(memory, node->slab, node->offset, node_bytes(node), node);
}

static void read_node(void *context, Node *node)
{
    Memory *memory = context;
    for (int64_t at = 0; at < node_bytes(node); at += PLAN_ALIGN)
        memory->intact &= memory->owner[node->slab][(node->offset + at) / PLAN_ALIGN] == node;
}

static void run_group(Memory *memory, const Group *group)
{
    for (int t = 0; t < MAX_TEMPORARIES; t++)
        if (group->temporaries[t].bytes)
            mark(memory, group->temporaries[t].batched ? SLAB_ACTIVATIONS : SLAB_FIXED,
                 group->temporaries[t].offset, group->temporaries[t].bytes, &group->temporaries[t]);
    group_visit_leaves(group, read_node, memory);
    write_node(memory, group->root);
    for (int r = 0; r < group->n_reductions; r++)
        write_node(memory, group->reductions[r]);
}

/* A run of the program; what is read must be what was written, and results must last. */
static bool runs(const Graph *graph)
{
    Memory memory = {.graph = graph, .intact = true};
    for (int slab = 0; slab < SLAB_COUNT; slab++)
        memory.owner[slab] = calloc(1 << 16, sizeof(void *));
    for (int i = 0; i < graph->n_nodes; i++)
        if (op_facts[graph->nodes[i]->op].kind == KIND_SOURCE && graph->nodes[i]->op != OP_CONSTANT)
            write_node(&memory, graph->nodes[i]);
    for (int i = 0; i < graph->n_groups; i++)
        run_group(&memory, graph->groups[i]);
    for (int i = 0; i < graph->n_results; i++)
        read_node(&memory, graph->results[i].node);
    for (int slab = 0; slab < SLAB_COUNT; slab++)
        free(memory.owner[slab]);
    return memory.intact;
}

/* Moves one tensor to another's place, many times. */
static void test_proof(Program program)
{
    static Outcome outcome;
    static const Case test = {.text =
        "model places {\n"
        "    input x : f32[16, 6, 5]\n    target t : f32[16, 6, 5]\n"
        "    a = silu(batch_norm(conv(x, 16, kernel = 3, padding = 1)))\n"
        "    b = softmax(a) + a * global_avg_pool(a)\n"
        "    c = batch_norm(conv(b, 16, kernel = 1) + b)\n"
        "    y = sigmoid(conv(silu(c), 16, kernel = 1) + max_pool(b, kernel = 3, stride = 1,"
        " padding = 1))\n"
        "    output y = y\n    loss binary_cross_entropy(y, t)\n}\n"};
    Compilation c;
    Graph *graph = case_graph(&test, program, &c, &outcome);
    Plan plan = {0};
    place_parameters(graph, &plan);
    simplify(graph);
    graph->target = &targets[0];
    fuse(graph);
    order(graph);
    place(graph);
    check(!rejects(graph) && runs(graph), "the places of a program are right");
    uint64_t state = 1;
    int broken = 0;
    for (int i = 0; i < 300; i++) {
        Node *node = graph->nodes[draw(&state, (uint32_t)graph->n_nodes)];
        Node *other = graph->nodes[draw(&state, (uint32_t)graph->n_nodes)];
        int64_t was = node->offset;
        if (!node->stored || !other->stored || node->slab != other->slab || node == other)
            continue;
        node->offset = other->offset;
        if (!runs(graph)) {
            broken++;
            check(rejects(graph), "the proof rejects what does not run");
        }
        node->offset = was;
    }
    printf("%d moves of tensors broke the program\n", broken);
    check(broken > 10, "moving tensors breaks programs");
    arena_close(c.arena);
}

int main(void)
{
    Arena *arena = arena_open();
    Graph graph = {.arena = arena, .name = "test"};
    test_random_lifetimes(&graph);
    test_proof(PROGRAM_TRAIN);
    test_proof(PROGRAM_PREDICT);
    arena_close(arena);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
