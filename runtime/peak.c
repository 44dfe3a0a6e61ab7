/* What this machine can do, measured: what a time is to be compared with.
 *
 *   multiply-adds   twelve or fourteen independent chains in registers, with the widest vectors
 *                   that this processor has
 *   memory          every thread reads a part of its own, together far more than caches hold
 *
 * On all threads, for a few hundredths of a second each. It is taken close to what it is compared
 * with, since virtual processors share cores and clocks change. Reading is what memory does
 * fastest, so it is a ceiling for what also writes.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "device.h"

typedef float Vector16 __attribute__((vector_size(64)));
typedef float Vector8 __attribute__((vector_size(32)));
typedef float Vector4 __attribute__((vector_size(16)));

enum { ROUNDS = 20000, PAGE = 4096, PROBED_BYTES = 256 << 20 };

/* Gives the floating-point operations done; *sink keeps the compiler from leaving them out. */
#define DEFINE_CHAINS(name, Vector, CHAINS, attributes)                                      \
    attributes static double name(float *sink)                                               \
    {                                                                                        \
        Vector chain[CHAINS];                                                                \
        Vector scale = (Vector){ 0 } + 0.999f, shift = (Vector){ 0 } + 1e-3f;                \
        for (int i = 0; i < CHAINS; i++)                                                     \
            chain[i] = (Vector){ 0 } + (float)i;                                             \
        for (int round = 0; round < ROUNDS; round++)                                         \
            for (int i = 0; i < CHAINS; i++)                                                 \
                chain[i] = chain[i] * scale + shift;                                         \
        for (int i = 0; i < CHAINS; i++)                                                     \
            *sink += chain[i][0];                                                            \
        return 2.0 * ROUNDS * CHAINS * (double)(sizeof(Vector) / sizeof(float));             \
    }

#define FAST __attribute__((noinline, optimize("O3")))
#if defined(__clang__)
#undef FAST
#define FAST __attribute__((noinline))
#endif

#if defined(__x86_64__)
DEFINE_CHAINS(chains_512, Vector16, 14, FAST __attribute__((target("avx512f"))))
DEFINE_CHAINS(chains_256, Vector8, 12, FAST __attribute__((target("avx2,fma"))))
#endif
DEFINE_CHAINS(chains_128, Vector4, 12, FAST)

typedef double Chains(float *);

static Chains *choose_chains(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return chains_512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return chains_256;
#endif
    return chains_128;
}

/* ---- on all threads -------------------------------------------------------------------------- */

typedef struct Prober Prober;
struct Prober {
    pthread_t thread;
    bool started;
    double until;              /* on now() */
    double done;               /* operations, or bytes */
    float sink;                /* keeps the compiler from leaving the work out */
    const char *memory;        /* this thread's part */
    size_t bytes;
    void (*work)(Prober *);    /* a millisecond or so of it */
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void *probe(void *context)
{
    Prober *prober = context;
    do
        prober->work(prober);
    while (now() < prober->until);
    return NULL;
}

/* What all of them did a second. */
static double run_probers(Prober *probers, int threads, double seconds)
{
    double begun = now(), done = 0;
    for (int i = threads - 1; i >= 0; i--) {
        probers[i].until = begun + seconds;
        if (i > 0)
            probers[i].started = pthread_create(&probers[i].thread, NULL, probe, &probers[i]) == 0;
        else
            probe(&probers[i]);
    }
    for (int i = 0; i < threads; i++) {
        if (probers[i].started)
            pthread_join(probers[i].thread, NULL);
        done += probers[i].done;
    }
    return done / (now() - begun);
}

static void multiply_add(Prober *prober)
{
    prober->done += choose_chains()(&prober->sink);
}

/* A load from each line of the cache brings all of it; more arithmetic would set the time. */
static void read_memory(Prober *prober)
{
    Vector4 a = { 0 }, b = a, c = a, d = a;
    const Vector4 *at = (const Vector4 *)prober->memory;
    for (size_t i = 0; i + 16 <= prober->bytes / sizeof *at; i += 16) {
        a += at[i];
        b += at[i + 4];
        c += at[i + 8];
        d += at[i + 12];
    }
    prober->sink += a[0] + b[0] + c[0] + d[0];
    prober->done += (double)prober->bytes;
}

double measure_peak(int threads, double seconds)
{
    Prober *probers = calloc((size_t)threads, sizeof *probers);
    if (!probers)
        return 0;
    for (int i = 0; i < threads; i++)
        probers[i].work = multiply_add;
    double rate = run_probers(probers, threads, seconds);
    free(probers);
    return rate;
}

double measure_bandwidth(int threads, double seconds)
{
    size_t part = PROBED_BYTES / (size_t)threads / PAGE * PAGE, size = part * (size_t)threads;
    Prober *probers = calloc((size_t)threads, sizeof *probers);
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double rate = 0;
    if (probers && memory != MAP_FAILED && (int64_t)size < system_memory()) {
        madvise(memory, size, MADV_HUGEPAGE);
        memset(memory, 1, size); /* pages that were never written are all one page of zeros */
        for (int i = 0; i < threads; i++) {
            probers[i].memory = memory + part * (size_t)i;
            probers[i].bytes = part;
            probers[i].work = read_memory;
        }
        rate = run_probers(probers, threads, seconds);
    }
    if (memory != MAP_FAILED)
        munmap(memory, size);
    free(probers);
    return rate;
}
