/* ours PLAN PROGRAM BATCH THREADS [PRECISION]: our side of bench/peers/turns.py.
 *
 * Opens and warms up like `segrun bench`, then waits, with all its memory, for its next turn: reads
 * commands from standard input, a line each, and answers with a line of JSON.
 *
 *   run N     seconds of each of N runs, one after the other
 *   peak      multiply-adds and bytes a second that the machine reaches now, on all threads
 *   quit      most memory this process had, and the end
 */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "bench.h"

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static bool run(Bench *bench, double *seconds, Error *error)
{
    BenchPlan *plan = &bench->plans[0];
    double begun = now();
    plan->step++;
    *executor_state(plan->executor) = (PlanState){
        .learning_rate = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = plan->step,
        .seed = (uint64_t)plan->step };
    bool done = executor_run(plan->executor, plan->program->name, bench->batch, error)
                && executor_synchronise(plan->executor, error);
    *seconds = now() - begun;
    return done;
}

static bool answer_runs(Bench *bench, int n, Error *error)
{
    printf("{\"seconds\": [");
    for (int i = 0; i < n; i++) {
        double seconds;
        if (!run(bench, &seconds, error))
            return false;
        printf("%s%.6f", i ? ", " : "", seconds);
    }
    printf("]}\n");
    return true;
}

static bool answer_peak(Bench *bench, Error *error)
{
    DeviceCeiling ceiling;
    if (!device_ceiling(bench->device, &ceiling))
        return fail(error, EXIT_ENVIRONMENT, "", "the peak cannot be measured");
    printf("{\"flops\": %.4g, \"bytes\": %.4g}\n", ceiling.flops, ceiling.bytes);
    return true;
}

/* Until "quit" or the end of the input. */
static bool answer(Bench *bench, Error *error)
{
    char line[64];
    bool fine = true;
    while (fine && fgets(line, sizeof line, stdin) && strncmp(line, "quit", 4) != 0) {
        if (strncmp(line, "run ", 4) == 0)
            fine = answer_runs(bench, atoi(line + 4), error);
        else
            fine = answer_peak(bench, error);
        fflush(stdout);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"memory\": %ld}\n", usage.ru_maxrss * 1024);
    return fine;
}

static bool serve(char **argv, Bench *bench, Plan **plan, Executor **executor, Error *error)
{
    const char *program = argv[2];
    double begun = now();
    bench->batch = atoi(argv[3]);
    if (!(*plan = plan_open(argv[1], error)))
        return false;
    DeviceOptions options = { .name = "cpu", .threads = atoi(argv[4]), .precision = argv[5],
                              .plan = *plan };
    if (!(bench->device = device_open(&options, error))
        || !(*executor = executor_open_for(*plan, bench->device, program, bench->batch, error)))
        return false;
    double opened = now();
    if (!bench_add(bench, argv[1], *plan, *executor, program, error))
        return false;
    printf("{\"ready\": \"%s\", \"first_seconds\": %.3f, \"flops\": %.6g}\n",
           device_describe(bench->device), opened - begun, bench->plans[0].flops);
    fflush(stdout);
    return answer(bench, error);
}

int main(int argc, char **argv)
{
    Bench bench = { 0 };
    Plan *plan = NULL;
    Executor *executor = NULL;
    Error error = { 0 };
    if (argc < 5 || argc > 6) {
        fprintf(stderr, "usage: ours PLAN PROGRAM BATCH THREADS [PRECISION]\n");
        return EXIT_USAGE;
    }
    bool done = serve(argv, &bench, &plan, &executor, &error);
    if (!done)
        fprintf(stderr, "ours: error: %s\n", error.text);
    bench_close(&bench);
    executor_close(executor);
    if (bench.device)
        device_close(bench.device);
    if (plan)
        plan_close(plan);
    return done ? EXIT_FINE : EXIT_ENVIRONMENT;
}
