/* `segrun tune` on the cpu: which way to compute each convolution is the fastest here.
 *
 * There the ways differ in their steps and in the memory they need (packed weights, transformed
 * tiles), so it is segc that has to choose. It makes plans of one model that take one way each
 * wherever that fits (segc --way); here they run in turn (A B C A B C ...), and of each convolution
 * all steps are timed, packing included. Machines change their speed from second to second, so a way
 * is held against the first plan's in the same turn, and the median of these ratios counts. What is
 * written is a text that `segc --tuned` follows: see compiler/tuned.c. The first plan's way stays
 * where no other is faster by more than timings waver.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench.h"
#include "commands.h"

enum { WAY_BYTES = 32, LAYER_WIDTH = 52, MOST_RUNS = 1000 };
static const double LEAST_GAIN = 0.03, MOST_OTHERS = 0.05;

typedef struct { char way[WAY_BYTES]; double ratio; } Way; /* of its time to the first one's */
typedef struct {
    const char *label;
    double seconds;                      /* of the first plan's way */
    int n_ways; Way ways[BENCH_PLANS];   /* the first is the first plan's */
    int best;
} Layer;

typedef struct {
    const Options *options;
    Options other_options[BENCH_PLANS];
    Session *first, others[BENCH_PLANS]; /* the others use the first one's device */
    int n_plans;
    FILE *out;                  /* the text that is written */
} Tuning;

/* ---- who else computes ------------------------------------------------------------------------ */

/* Seconds of all processors since the machine started; of them not idle, and not this process. */
typedef struct { double all, others; } Load;

static Load read_load(void)
{
    unsigned long long t[8] = { 0 }, all = 0; /* user nice system idle iowait irq softirq steal */
    struct rusage own;
    FILE *in = fopen("/proc/stat", "re");
    if (in && fscanf(in, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3],
                     &t[4], &t[5], &t[6], &t[7]) < 8)
        memset(t, 0, sizeof t);
    if (in)
        fclose(in);
    for (int i = 0; i < 8; i++)
        all += t[i];
    const double ticks = (double)sysconf(_SC_CLK_TCK);
    getrusage(RUSAGE_SELF, &own);
    return (Load){ (double)all / ticks, (double)(all - t[3] - t[4]) / ticks
                       - (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec)
                       - 1e-6 * (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) };
}

static void warn_others(const Load *before)
{
    const Load now = read_load();
    const double part = (now.others - before->others) / (now.all - before->all);
    if (now.all > before->all && part > MOST_OTHERS)
        fprintf(stderr, "segrun: warning: other programs used %.0f %% of this machine meanwhile; ways "
                "whose threads wait for each other look slower then\nhint: tune again when it is "
                "quiet, or give -t fewer threads\n", 100 * part);
}

/* ---- what was measured ----------------------------------------------------------------------- */

/* Whether a step is a convolution, by the library that its kernel calls: library_conv_winograd,
 * library_conv_winograd_grad_weight. Its way: direct where the name has none. */
static bool read_way(const PlanTarget *target, const PlanStep *step, char way[WAY_BYTES])
{
    static const char begin[] = "library_conv", end[] = "_grad_weight";
    const char *library = target->kernels[step->kernel].library;
    if (!library || strncmp(library, begin, sizeof begin - 1) != 0)
        return false;
    library += sizeof begin - 1;
    const char *tail = strstr(library, end);
    int length = (int)(tail ? (size_t)(tail - library) : strlen(library));
    snprintf(way, WAY_BYTES, "%.*s", length > 1 ? length - 1 : 6, length > 1 ? library + 1 : "direct");
    return true;
}

/* Seconds of all steps of the groups whose convolution has this label, added to one sum a run. */
static void layer_seconds(const Bench *bench, const BenchPlan *plan, const char *label, int runs,
                          double *seconds, char way[WAY_BYTES])
{
    const PlanTarget *target = plan_target(plan->plan, device_target(bench->device));
    const PlanProgram *program = plan->program;
    for (int i = 0; i < program->n_steps; i++) {
        if (strcmp(program->steps[i].label, label) != 0 || !read_way(target, &program->steps[i], way))
            continue;
        for (int k = 0; k < program->n_steps * runs; k++)
            if (program->steps[k % program->n_steps].group == program->steps[i].group)
                seconds[k / program->n_steps] += plan->run_times[k];
    }
}

static bool measure_layer(const Bench *bench, Layer *layer, int runs, Error *error)
{
    double first[MOST_RUNS] = { 0 };
    for (int p = 0; p < bench->n_plans; p++) {
        double seconds[MOST_RUNS] = { 0 };
        char way[WAY_BYTES] = "";
        layer_seconds(bench, &bench->plans[p], layer->label, runs, seconds, way);
        if (!*way)
            return fail(error, EXIT_USER, "compile one model with segc --way, else with equal options",
                        "%s: it has no %s, as %s has", bench->plans[p].path, layer->label,
                        bench->plans[0].path);
        int i = 0;
        while (i < layer->n_ways && strcmp(layer->ways[i].way, way) != 0)
            i++;
        if (i < layer->n_ways)
            continue;
        for (int k = 0; k < runs; k++) {
            first[k] = p ? first[k] : seconds[k];
            seconds[k] /= first[k];
        }
        if (p == 0)
            layer->seconds = spread_of(first, runs).median;
        layer->ways[i].ratio = spread_of(seconds, runs).median;
        strcpy(layer->ways[i].way, way);
        if (layer->ways[i].ratio < layer->ways[layer->best].ratio)
            layer->best = i;
        layer->n_ways++;
    }
    if (layer->ways[layer->best].ratio > 1 - LEAST_GAIN)
        layer->best = 0;
    return true;
}

/* ---- what is written and said ---------------------------------------------------------------- */

static void write_layer(FILE *out, const Bench *bench, const Layer *layer)
{
    fprintf(out, "%s %s %s %s\n#  ", bench->plans[0].program->name, device_target(bench->device),
            layer->ways[layer->best].way, layer->label);
    for (int i = 0; i < layer->n_ways; i++)
        fprintf(out, " %s %.3f ms%s", layer->ways[i].way,
                1e3 * layer->seconds * layer->ways[i].ratio, i + 1 < layer->n_ways ? "," : "\n");
}

static void say_layer(const Layer *layer)
{
    const Way *was = &layer->ways[0], *best = &layer->ways[layer->best];
    printf("  %-*.*s %14s %8.3f  %14s %8.3f\n", LAYER_WIDTH - 3, LAYER_WIDTH - 3, layer->label,
           was->way, 1e3 * layer->seconds, best->way, 1e3 * layer->seconds * best->ratio);
}

static bool choose_layers(const Tuning *tuning, const Bench *bench, Error *error)
{
    const BenchPlan *plan = &bench->plans[0];
    const PlanTarget *target = plan_target(plan->plan, device_target(bench->device));
    int n = 0, changed = 0;
    double was = 0, best = 0;
    if (!tuning->options->quiet)
        printf("%s, batch %d, ms\n", plan->program->name, bench->batch);
    for (int i = 0; i < plan->program->n_steps; i++) {
        Layer layer = { .label = plan->program->steps[i].label };
        char way[WAY_BYTES];
        bool seen = !read_way(target, &plan->program->steps[i], way);
        for (int k = 0; k < i && !seen; k++)
            seen = strcmp(plan->program->steps[k].label, layer.label) == 0;
        if (seen)
            continue;
        if (!measure_layer(bench, &layer, (int)tuning->options->runs, error))
            return false;
        if (layer.n_ways == 1)
            continue;
        write_layer(tuning->out, bench, &layer);
        if (layer.best > 0 && !tuning->options->quiet)
            say_layer(&layer);
        n++;
        changed += layer.best > 0;
        was += layer.seconds;
        best += layer.seconds * layer.ways[layer.best].ratio;
    }
    if (!tuning->options->quiet)
        printf("  %d of %d convolutions change; together %.3f ms, tuned %.3f\n", changed, n,
               1e3 * was, 1e3 * best);
    return true;
}

static bool show_runs(void *context, int done, int64_t wanted)
{
    progress_update(context, "timing", done, wanted, "turns", "");
    return !interrupted();
}

static bool tune_program(Tuning *tuning, const char *program, Error *error)
{
    const Options *options = tuning->options;
    Session *first = tuning->first;
    Bench bench = { .device = first->device, .batch = (int)options->batch, .seed = options->seed,
                    .tick = show_runs, .context = &first->progress };
    bool done = true;
    progress_start(&first->progress, 0);
    const Load before = read_load();
    for (int i = 0; done && i < tuning->n_plans; i++) {
        const Session *session = i ? &tuning->others[i] : first;
        done = bench_add(&bench, session->plan_path, session->plan, session->executor, program, error);
    }
    done = done && bench_profile(&bench, (int)options->runs, error);
    progress_clear(&first->progress);
    if (done)
        warn_others(&before);
    done = done && choose_layers(tuning, &bench, error);
    bench_close(&bench);
    return done;
}

/* ---- the command ------------------------------------------------------------------------------ */

static bool open_other(Tuning *tuning, int i, Error *error)
{
    Session *other = &tuning->others[i];
    tuning->other_options[i] = *tuning->options;
    tuning->other_options[i].operands = tuning->options->operands + i;
    if (!session_open(other, &tuning->other_options[i], error))
        return false;
    other->device = tuning->first->device;
    other->programs = tuning->first->programs;
    other->max_batch = tuning->first->max_batch;
    return executor_check(other->plan, other->device, other->programs, other->max_batch, error)
        && session_build(other, error);
}

static void write_head(const Tuning *tuning)
{
    char line[256];
    FILE *in = fopen("/proc/cpuinfo", "re");
    fprintf(tuning->out, "# The fastest ways of convolutions, by segrun tune; for segc --tuned.\n");
    while (in && fgets(line, sizeof line, in))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            fprintf(tuning->out, "#%s", strchr(line, ':') + 1);
            break;
        }
    if (in)
        fclose(in);
    fprintf(tuning->out, "# %s; batch %d\n", device_describe(tuning->first->device),
            (int)tuning->options->batch);
}

static bool tune_all(Tuning *tuning, Error *error)
{
    static const char *const all[] = { "train", "evaluate", "predict" };
    const Options *options = tuning->options;
    bool every = strcmp(options->program, "all") == 0;
    for (int i = 1; i < tuning->n_plans; i++)
        if (!open_other(tuning, i, error))
            return false;
    write_head(tuning);
    for (int i = 0; i < 3; i++)
        if ((every ? plan_program(tuning->first->target, all[i]) != NULL
                   : strcmp(options->program, all[i]) == 0)
            && !tune_program(tuning, all[i], error))
            return false;
    return true;
}

bool tune_ways(Session *first, Error *error)
{
    const Options *options = first->options;
    if (options->n_operands < 2 || options->n_operands > BENCH_PLANS || !options->output)
        return fail(error, EXIT_USAGE, "segrun tune --help shows how",
                    "the cpu takes two to %d plans of one model, by segc --way, and -o FILE",
                    BENCH_PLANS);
    Tuning tuning = { .options = options, .first = first, .n_plans = options->n_operands };
    char *text = NULL;
    size_t length = 0;
    tuning.out = open_memstream(&text, &length);
    bool done = tuning.out ? tune_all(&tuning, error)
                           : fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    if (tuning.out && fclose(tuning.out) != 0)
        done = done && fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    done = done && file_write(options->output, text, length, error);
    free(text);
    for (int i = 1; i < tuning.n_plans; i++) {
        tuning.others[i].device = NULL;
        session_close(&tuning.others[i]);
    }
    if (done && !options->quiet)
        printf("%s: for segc --tuned\n", options->output);
    return done;
}
