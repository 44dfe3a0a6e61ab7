/* The memory planner by itself: random lifetimes laid out and checked byte by byte, and the proof at
 * the end of place() made to fail on purpose. Includes place.c, whose parts are static.
 */
#include "../compiler/place.c"

#include <sys/wait.h>
#include <unistd.h>

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
static bool rejects(const Placement *placement)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        fclose(stderr);
        verify_places(placement);
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
        verify_places(&sample.placement);
        worst = (double)bytes / (double)least > worst ? (double)bytes / (double)least : worst;
    }
    printf("200 random layouts: at most %.2f times the bytes that live at one time\n", worst);
    check(worst < 1.5, "layouts are near the least possible");
}

static void test_proof(Graph *graph)
{
    int tried = 0;
    for (uint64_t seed = 0; tried < 10; seed++) {
        static Sample sample;
        int64_t unshared;
        fill(&sample, graph, seed);
        lay_out(&sample.placement, true, 0, &unshared);
        assign(&sample.placement);
        Extent *a = &sample.extents[0], *b = &sample.extents[1];
        if (!overlap_in_time(a, b))
            continue;
        tried++;
        b->offset = a->offset + a->bytes - PLAN_ALIGN;
        check(rejects(&sample.placement), "the proof rejects two live tensors that share bytes");
        b->inside = a;
        b->offset = a->offset;
        b->bytes = a->bytes;
        sample.placement.n_extents = 2;
        check(!rejects(&sample.placement), "and accepts a tensor in another's place");
    }
}

int main(void)
{
    Arena *arena = arena_open();
    Graph graph = {.arena = arena, .name = "test"};
    test_random_lifetimes(&graph);
    test_proof(&graph);
    arena_close(arena);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
