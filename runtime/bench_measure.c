/* The measuring behind bench.h.
 *
 * Machines drift, and shared ones jump: plans that are to be compared run in turn, and their ratio
 * is taken from neighbours. A timing is long enough for the clock (ten milliseconds, or one run)
 * and ends when the device is done. The first runs build caches, fault pages in and record what a
 * device replays; they are not counted.
 */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_TIMES = 10000, LEAST_TIMES = 5, WARM_RUNS = 3, MAX_INNER = 1000 };
static const double DEFAULT_SECONDS = 3, TIMING_SECONDS = 0.01, CEILING_SECONDS = 0.5,
                    WARM_SECONDS = 0.2; /* clocks rise under load */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

/* xorshift64 (Marsaglia 2003) */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Random bytes for inputs, 0 or 1 for targets. */
static bool write_tensor(const Bench *bench, const BenchPlan *plan, const PlanTensor *tensor,
                         uint64_t *random, Error *error)
{
    int64_t count = tensor->dims[0] * tensor->dims[1] * tensor->dims[2]
                  * (tensor->batched ? bench->batch : 1);
    float *floats = malloc((size_t)count * sizeof *floats);
    uint8_t *bytes = (uint8_t *)floats;
    if (!floats)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the inputs");
    for (int64_t i = 0; i < count; i++) {
        uint64_t value = next_random(random) >> 24;
        if (tensor->type == PLAN_U8)
            bytes[i] = tensor->role == ROLE_TARGET ? value & 1 : value & 255;
        else
            floats[i] = (float)(value & 0xffff) / 65536.0f;
    }
    bool written = executor_write(plan->executor, plan->program->name, tensor->name, floats,
                                  bench->batch, error);
    free(floats);
    return written;
}

static bool write_all(const Bench *bench, const BenchPlan *plan, Error *error)
{
    uint64_t random = 88172645463325252u + bench->seed;
    for (int i = 0; i < plan->program->n_tensors; i++) {
        const PlanTensor *tensor = &plan->program->tensors[i];
        bool given = tensor->role == ROLE_INPUT || tensor->role == ROLE_TARGET;
        if (given && !write_tensor(bench, plan, tensor, &random, error))
            return false;
    }
    return executor_initialise(plan->executor, bench->seed, error);
}

/* ---- running --------------------------------------------------------------------------------- */

/* Seconds of one of `n` runs. */
static bool run(const Bench *bench, BenchPlan *plan, int n, double *seconds, Error *error)
{
    double begun = now();
    for (int i = 0; i < n; i++) {
        plan->step++;
        *executor_state(plan->executor) = (PlanState){
            .learning_rate = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = plan->step,
            .seed = bench->seed + (uint64_t)plan->step };
        if (!executor_run(plan->executor, plan->program->name, bench->batch, error))
            return false;
    }
    if (!executor_synchronise(plan->executor, error))
        return false;
    *seconds = (now() - begun) / n;
    return true;
}

static bool warm_up(const Bench *bench, BenchPlan *plan, Error *error)
{
    double seconds = 0, spent = 0;
    if (!write_all(bench, plan, error))
        return false;
    for (int i = 0; i < WARM_RUNS || spent < WARM_SECONDS; i++) {
        if (!run(bench, plan, 1, &seconds, error))
            return false;
        spent += seconds;
    }
    double runs = ceil(TIMING_SECONDS / fmax(seconds, 1e-9));
    plan->inner = runs < MAX_INNER ? (int)runs : MAX_INNER;
    return true;
}

/* One that is not measured stays as it is. */
static void take_ceiling(Bench *bench)
{
    int n = bench->n_ceilings;
    if (n > 0 && !bench->ceilings[n - 1].measured)
        return;
    if (n == BENCH_CEILINGS)
        n--;
    if (device_ceiling(bench->device, &bench->ceilings[n]))
        bench->n_ceilings = n + 1;
}

static bool time_plans(Bench *bench, Error *error)
{
    int64_t wanted = bench->runs ? bench->runs : MAX_TIMES;
    double spent = 0, probed = now();
    while (bench->n_times < wanted
           && (bench->runs || bench->n_times < LEAST_TIMES
               || spent < DEFAULT_SECONDS * bench->n_plans)) {
        for (int i = 0; i < bench->n_plans; i++) {
            BenchPlan *plan = &bench->plans[i];
            double *seconds = &plan->times[bench->n_times];
            if (!run(bench, plan, plan->inner, seconds, error))
                return false;
            spent += *seconds * plan->inner;
        }
        bench->n_times++;
        if (bench->tick && !bench->tick(bench->context, bench->n_times, bench->runs))
            return fail(error, EXIT_INTERRUPTED, "", "interrupted after %d timings",
                        bench->n_times);
        if (now() - probed > CEILING_SECONDS && bench->n_ceilings < BENCH_CEILINGS - 1) {
            take_ceiling(bench);
            probed = now();
        }
    }
    return true;
}

static bool profile_run(const Bench *bench, BenchPlan *plan, int number, Error *error)
{
    int n = plan->program->n_steps;
    double *kept = plan->run_times + (size_t)number * (size_t)n, begin = now(), seconds;
    executor_profile(plan->executor, true);
    bool fine = run(bench, plan, 1, &seconds, error);
    executor_profile(plan->executor, false);
    if (!fine)
        return false;
    if (number < BENCH_PROFILE_RUNS) {
        plan->run_begins[number] = begin;
        plan->run_seconds[number] = seconds;
    }
    if (n > 0)
        memcpy(kept, executor_step_times(plan->executor), (size_t)n * sizeof *kept);
    for (int i = 0; i < n; i++)
        plan->step_times[i] = number == 0 ? kept[i] : fmin(plan->step_times[i], kept[i]);
    return true;
}

static bool profile_memory(BenchPlan *plan, int runs, Error *error)
{
    size_t n = (size_t)plan->program->n_steps + 1;
    plan->step_times = calloc(n, sizeof *plan->step_times);
    plan->run_times = calloc((size_t)runs * n, sizeof *plan->run_times);
    return (plan->step_times && plan->run_times)
        || fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the profile");
}

bool bench_profile(Bench *bench, int runs, Error *error)
{
    for (int i = 0; i < bench->n_plans; i++)
        if (!profile_memory(&bench->plans[i], runs, error))
            return false;
    for (int k = 0; k < runs; k++) {
        for (int i = 0; i < bench->n_plans; i++)
            if (!profile_run(bench, &bench->plans[i], k, error))
                return false;
        if (bench->tick && !bench->tick(bench->context, k + 1, runs))
            return fail(error, EXIT_INTERRUPTED, "", "interrupted after %d runs", k + 1);
    }
    return true;
}

/* ---- what is needed by definition ------------------------------------------------------------ */

bool step_is_usual(const PlanStep *step)
{
    return step->part == PART_MAIN || step->part == PART_UPDATE;
}

double step_flops(const PlanStep *step, int batch)
{
    return step->flops + step->flops_per_sample * batch;
}

double step_bytes(const PlanStep *step, int batch)
{
    return step->bytes + step->bytes_per_sample * batch;
}

static void add_up(const Bench *bench, BenchPlan *plan)
{
    bool train = strcmp(plan->program->name, "train") == 0;
    for (int i = 0; i < plan->program->n_steps; i++) {
        const PlanStep *step = &plan->program->steps[i];
        if ((step->once && (!train || plan->program->keeps_once)) || !step_is_usual(step))
            continue;
        plan->flops += step_flops(step, bench->batch);
        plan->bytes += step_bytes(step, bench->batch);
    }
    plan->memory = (double)executor_bytes(plan->executor);
}

bool bench_add(Bench *bench, const char *path, const Plan *plan, Executor *executor,
               const char *program, Error *error)
{
    BenchPlan *added = &bench->plans[bench->n_plans++];
    *added = (BenchPlan){ .path = path, .plan = plan, .executor = executor };
    added->program = plan_program(plan_target(plan, device_target(bench->device)), program);
    added->times = malloc(sizeof *added->times * (size_t)(bench->runs ? bench->runs : MAX_TIMES));
    if (!added->times)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the times");
    add_up(bench, added);
    return warm_up(bench, added, error);
}

bool bench_measure(Bench *bench, Error *error)
{
    take_ceiling(bench);
    if (!time_plans(bench, error))
        return false;
    take_ceiling(bench);
    if (bench->profile && !bench_profile(bench, BENCH_PROFILE_RUNS, error))
        return false;
    if (bench->profile)
        take_ceiling(bench);
    return true;
}

void bench_close(Bench *bench)
{
    for (int i = 0; i < bench->n_plans; i++) {
        free(bench->plans[i].times);
        free(bench->plans[i].step_times);
        free(bench->plans[i].run_times);
        bench->plans[i].times = bench->plans[i].step_times = bench->plans[i].run_times = NULL;
    }
}

/* ---- statistics ------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double part)
{
    double at = part * (n - 1);
    int low = (int)at;
    return low + 1 < n ? sorted[low] + (at - low) * (sorted[low + 1] - sorted[low]) : sorted[low];
}

Spread spread_of(const double *values, int n)
{
    double *sorted = n > 0 ? malloc(sizeof *sorted * (size_t)n) : NULL;
    if (!sorted)
        return (Spread){ 0 };
    memcpy(sorted, values, sizeof *sorted * (size_t)n);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    Spread spread = { sorted[0], quantile(sorted, n, 0.25), quantile(sorted, n, 0.5),
                      quantile(sorted, n, 0.75), sorted[n - 1] };
    free(sorted);
    return spread;
}

Spread bench_ratio(const Bench *bench, int other)
{
    int n = bench->n_times;
    double *ratios = malloc(sizeof *ratios * (size_t)(n + 1));
    for (int i = 0; ratios && i < n; i++)
        ratios[i] = bench->plans[other].times[i] / bench->plans[0].times[i];
    Spread spread = spread_of(ratios, ratios ? n : 0);
    free(ratios);
    return spread;
}

DeviceCeiling bench_ceiling(const Bench *bench)
{
    double flops[BENCH_CEILINGS] = { 0 }, bytes[BENCH_CEILINGS] = { 0 };
    int n = bench->n_ceilings;
    for (int i = 0; i < n; i++) {
        flops[i] = bench->ceilings[i].flops;
        bytes[i] = bench->ceilings[i].bytes;
    }
    return (DeviceCeiling){ spread_of(flops, n).median, spread_of(bytes, n).median,
                            n > 0 && bench->ceilings[0].measured };
}

DeviceCeiling bench_best_ceiling(const Bench *bench)
{
    DeviceCeiling best = bench_ceiling(bench);
    for (int i = 0; i < bench->n_ceilings; i++) {
        best.flops = fmax(best.flops, bench->ceilings[i].flops);
        best.bytes = fmax(best.bytes, bench->ceilings[i].bytes);
    }
    return best;
}

double ceiling_seconds(const DeviceCeiling *ceiling, double flops, double bytes)
{
    double compute = ceiling->flops > 0 ? flops / ceiling->flops : 0;
    double memory = ceiling->bytes > 0 ? bytes / ceiling->bytes : 0;
    return fmax(compute, memory);
}

/* ---- rows of a profile ----------------------------------------------------------------------- */

static int slowest_first(const void *a, const void *b)
{
    const BenchRow *x = a, *y = b;
    if (x->seconds != y->seconds)
        return x->seconds > y->seconds ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The row that a step belongs to; the one behind the last where it is new. */
static int find_row(const BenchRow *rows, int n, const char *name)
{
    int i = 0;
    while (i < n && strcmp(rows[i].name, name) != 0)
        i++;
    return i;
}

BenchRow *bench_rows(const Bench *bench, const BenchPlan *plan, bool steps, int *n)
{
    const PlanTarget *target = plan_target(plan->plan, device_target(bench->device));
    const PlanProgram *program = plan->program;
    DeviceCeiling ceiling = bench_best_ceiling(bench);
    BenchRow *rows = calloc((size_t)program->n_steps + 1, sizeof *rows);
    *n = 0;
    for (int i = 0; rows && i < program->n_steps; i++) {
        const PlanStep *step = &program->steps[i];
        const char *name = target->kernels[step->kernel].name;
        double flops = step_flops(step, bench->batch), bytes = step_bytes(step, bench->batch);
        if (plan->step_times[i] <= 0)
            continue;
        int k = steps ? *n : find_row(rows, *n, name);
        *n += k == *n;
        rows[k].name = name;
        rows[k].label = step->label;
        rows[k].calls++;
        rows[k].seconds += plan->step_times[i];
        rows[k].flops += flops;
        rows[k].bytes += bytes;
        rows[k].floor += ceiling_seconds(&ceiling, flops, bytes);
    }
    if (rows && !steps)
        qsort(rows, (size_t)*n, sizeof *rows, slowest_first);
    return rows;
}
