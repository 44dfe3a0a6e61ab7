/* segbench: `segrun bench` where there is nothing but a C library: no pictures, no command line of
 * segrun's. `make gpu` builds it and bench/gpu.sh uses it.
 *
 *   segbench PLAN [OTHER.plan...] [-d DEVICE] [-p PRECISION] [-P PROGRAM] [-b N] [-n TIMINGS]
 *            [-k] [-s] [-j FILE] [-t TRACE] [-1] [-T] [-B] [-v]
 *
 * -k profile by kernels, -s by steps, -t for Perfetto, -1 one line of text only, -T no tuning, -B only build the
 * kernels; the rest is as in `segrun bench --help`.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

typedef struct {
    const char *paths[BENCH_PLANS]; int n_paths;
    const char *device, *precision, *program, *json, *trace;
    int batch, runs;
    bool kernels, steps, line, untuned, build_only, verbose;
} Wanted;

static int usage(void)
{
    fprintf(stderr, "usage: segbench PLAN [OTHER.plan...] [-d DEVICE] [-p PRECISION]\n"
                    "                [-P PROGRAM] [-b N] [-n TIMINGS] [-k] [-s] [-j FILE]\n"
                    "                [-t TRACE] [-1] [-T] [-B] [-v]\n");
    return EXIT_USAGE;
}

static bool parse(int argc, char **argv, Wanted *wanted)
{
    int letter;
    *wanted = (Wanted){ .device = "auto", .program = "train", .batch = 2 };
    while ((letter = getopt(argc, argv, "d:p:P:b:n:ksj:t:1TBv")) != -1)
        switch (letter) {
        case 'd': wanted->device = optarg; break;
        case 'p': wanted->precision = optarg; break;
        case 'P': wanted->program = optarg; break;
        case 'b': wanted->batch = atoi(optarg); break;
        case 'n': wanted->runs = atoi(optarg); break;
        case 'k': wanted->kernels = true; break;
        case 's': wanted->steps = true; break;
        case 'j': wanted->json = optarg; break;
        case 't': wanted->trace = optarg; break;
        case '1': wanted->line = true; break;
        case 'T': wanted->untuned = true; break;
        case 'B': wanted->build_only = true; break;
        case 'v': wanted->verbose = true; break;
        default: return false;
        }
    while (optind < argc && wanted->n_paths < BENCH_PLANS)
        wanted->paths[wanted->n_paths++] = argv[optind++];
    return wanted->n_paths > 0 && optind == argc && wanted->batch > 0 && wanted->runs >= 0
        && wanted->runs <= 10000;
}

static void say(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "segbench: %s\n", text);
}

typedef struct { Plan *plan; Executor *executor; } Opened;

static bool open_device(Bench *bench, const Wanted *wanted, const Plan *plan, Error *error)
{
    DeviceOptions options = { .name = wanted->device, .precision = wanted->precision, .plan = plan,
                              .tune = !wanted->untuned, .verbose = wanted->verbose, .warn = say,
                              .say = say };
    return (bench->device = device_open(&options, error)) != NULL;
}

static bool open_plan(Bench *bench, const Wanted *wanted, int number, Opened *opened, Error *error)
{
    const char *path = wanted->paths[number];
    if (!(opened->plan = plan_open(path, error))
        || (number == 0 && !open_device(bench, wanted, opened->plan, error)))
        return false;
    opened->executor = executor_open_for(opened->plan, bench->device, wanted->program,
                                         wanted->batch, error);
    return opened->executor
        && (wanted->build_only
            || bench_add(bench, path, opened->plan, opened->executor, wanted->program, error));
}

static bool measure(Bench *bench, const Wanted *wanted, Opened *opened, Error *error)
{
    *bench = (Bench){ .batch = wanted->batch, .runs = wanted->runs,
                      .profile = wanted->kernels || wanted->steps || wanted->trace };
    for (int i = 0; i < wanted->n_paths; i++)
        if (!open_plan(bench, wanted, i, &opened[i], error))
            return false;
    return wanted->build_only
        || (bench_measure(bench, error)
            && (!wanted->json || bench_write_json(bench, wanted->json, error))
            && (!wanted->trace || bench_write_trace(bench, wanted->trace, error)));
}

static bool print(const Bench *bench, const Wanted *wanted, Error *error)
{
    if (wanted->build_only || (wanted->json && strcmp(wanted->json, "-") == 0))
        return true;
    if (wanted->line) {
        bench_print_line(bench, stdout);
        return true;
    }
    printf("%s\n", device_describe(bench->device));
    bench_print(bench, stdout);
    return !(wanted->kernels || wanted->steps) || bench_print_profile(bench, wanted->steps, stdout, error);
}

int main(int argc, char **argv)
{
    Wanted wanted;
    Bench bench = { 0 };
    Opened opened[BENCH_PLANS] = { 0 };
    Error error = { 0 };
    if (!parse(argc, argv, &wanted))
        return usage();
    bool done = measure(&bench, &wanted, opened, &error) && print(&bench, &wanted, &error);
    if (!done)
        fprintf(stderr, "segbench: error: %s\n%s%s%s", error.text, *error.hint ? "hint: " : "",
                error.hint, *error.hint ? "\n" : "");
    bench_close(&bench);
    for (int i = 0; i < BENCH_PLANS; i++) {
        executor_close(opened[i].executor);
        if (opened[i].plan)
            plan_close(opened[i].plan);
    }
    if (bench.device)
        device_close(bench.device);
    return done ? EXIT_FINE : error.code ? (int)error.code : EXIT_ENVIRONMENT;
}
