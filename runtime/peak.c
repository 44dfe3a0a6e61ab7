/* The float32 multiply-add peak of this machine, measured: what a time is to be compared with.
 *
 * Twelve or fourteen independent chains of multiply-adds in registers, on all threads, for a few
 * hundredths of a second. It is taken close to what it is compared with, since virtual processors
 * share cores and clocks change. The widest vectors this processor has are used.
 */
#include "commands.h"

#include <pthread.h>
#include <stdlib.h>

typedef float Vector16 __attribute__((vector_size(64)));
typedef float Vector8 __attribute__((vector_size(32)));
typedef float Vector4 __attribute__((vector_size(16)));

enum { ROUNDS = 20000 };

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

typedef struct {
    pthread_t thread;
    bool started;
    Chains *chains;
    double until;          /* on now_seconds() */
    double operations;     /* done */
    float sink;
} Prober;

static void *probe(void *context)
{
    Prober *prober = context;
    do
        prober->operations += prober->chains(&prober->sink);
    while (now_seconds() < prober->until);
    return NULL;
}

double measure_peak(int threads, double seconds)
{
    Prober *probers = calloc((size_t)threads, sizeof *probers);
    if (!probers)
        return 0;
    double begun = now_seconds(), operations = 0;
    for (int i = threads - 1; i >= 0; i--) {
        probers[i].chains = choose_chains();
        probers[i].until = begun + seconds;
        if (i > 0)
            probers[i].started = pthread_create(&probers[i].thread, NULL, probe, &probers[i]) == 0;
        else
            probe(&probers[i]);
    }
    for (int i = 0; i < threads; i++) {
        if (probers[i].started)
            pthread_join(probers[i].thread, NULL);
        operations += probers[i].operations;
    }
    double spent = now_seconds() - begun;
    free(probers);
    return operations / spent;
}
