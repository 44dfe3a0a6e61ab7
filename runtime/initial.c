/* The initial values of parameters, on all threads.
 *
 * Each parameter draws from a generator of its own (xoshiro256**, Blackman and Vigna 2021, seeded
 * by splitmix64 from the seed and the parameter's index), so its values depend neither on the
 * others' sizes nor on who computes them first.
 */
#include <string.h>

#include "run.h"

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

typedef struct { uint64_t s[4]; } Random;

static Random random_open(uint64_t seed, uint64_t stream)
{
    Random random;
    uint64_t state = seed;
    state = splitmix(&state) ^ stream;
    for (int i = 0; i < 4; i++)
        random.s[i] = splitmix(&state);
    return random;
}

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static uint64_t random_next(Random *random)
{
    uint64_t *s = random->s, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

typedef struct { const Plan *plan; uint64_t seed; char *parameters; } Initial;

static void initialise(void *context, int index)
{
    const Initial *initial = context;
    const PlanParameter *p = &initial->plan->parameters[index];
    float *values = (float *)(initial->parameters + p->offset);
    int64_t count = params_count(p), end = initial->plan->parameter_bytes - p->offset;
    int64_t padding = -count * (int64_t)sizeof *values & (PLAN_ALIGN - 1);
    Random random = random_open(initial->seed, (uint64_t)index);
    for (int64_t i = 0; p->init == PLAN_INIT_VALUES && i < count; i++)
        values[i] = (float)p->values[i];
    for (int64_t i = 0; p->init != PLAN_INIT_VALUES && i < count; i++) {
        /* 24 bits: every value of [0, 1) is a float */
        double unit =
            p->init == PLAN_INIT_UNIFORM ? (double)(random_next(&random) >> 40) * 0x1p-24 : 1;
        values[i] = (float)((2 * unit - 1) * p->value);
    }
    if (padding <= end - count * (int64_t)sizeof *values)
        memset(values + count, 0, (size_t)padding);
}

void params_initialise(const Plan *plan, uint64_t seed, void *parameters)
{
    Initial initial = { plan, seed, parameters };
    parallel_for(plan->n_parameters, 0, initialise, &initial, NULL, NULL);
}
