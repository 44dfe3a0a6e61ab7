/* The float32 multiply-add peak of this machine, measured: what a time is to be compared with.
 *
 * Ten to fourteen independent chains of multiply-adds in registers, on all threads, for a few
 * hundredths of a second. It is taken close to what it is compared with, since virtual processors
 * share cores and clocks change. The widest vectors this processor has are used.
 */
#include "commands.h"

#include <omp.h>

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

double measure_peak(int threads, double seconds)
{
    Chains *chains = choose_chains();
    double operations = 0;
    volatile float kept = 0;
    double begun = now_seconds();
#pragma omp parallel num_threads(threads) reduction(+ : operations)
    {
        float sink = 0;
        do
            operations += chains(&sink);
        while (now_seconds() - begun < seconds);
        if (sink == 12345.0f)
            kept = sink;
    }
    (void)kept;
    return operations / (now_seconds() - begun);
}
