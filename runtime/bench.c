/* `segrun bench`: how long a step takes, and how that compares with this machine.
 *
 * Inputs are random, weights are the initial ones. After warm-up every run is timed on its own; the
 * median is the headline and the spread stands beside it. The multiply-add peak is probed between
 * the runs, because on a shared machine it moves: a percentage is of the peak at that time.
 * Floating-point operations are those the plan's steps need by definition (a convolution's multiply
 * and add count two), whatever algorithm a kernel uses.
 */
#include "commands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 100000, PROFILE_RUNS = 3 };
static const double default_seconds = 3, probe_seconds = 0.02;

typedef struct {
    const Options *options;
    Session session;
    const PlanProgram *program;
    int batch, threads;
    double *times;  int n_times;         /* seconds; sorted in the end */
    double *peaks;  int n_peaks;
    double flops;                        /* of one run */
    uint64_t random;
} Bench;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

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

/* VmHWM: the most memory this process ever had. */
static double peak_memory(void)
{
    FILE *in = fopen("/proc/self/status", "r");
    char line[256];
    double kib = 0;
    while (in && fgets(line, sizeof line, in))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtod(line + 6, NULL);
    if (in)
        fclose(in);
    return kib * 1024;
}

/* Random bytes for every input, 0 or 1 for every target. */
static bool write_inputs(Bench *bench, Error *error)
{
    for (int i = 0; i < bench->program->n_tensors; i++) {
        const PlanTensor *tensor = &bench->program->tensors[i];
        if (tensor->role != ROLE_INPUT && tensor->role != ROLE_TARGET)
            continue;
        int64_t count = tensor->dims[0] * tensor->dims[1] * tensor->dims[2]
                        * (tensor->batched ? bench->batch : 1);
        void *data = malloc((size_t)count * sizeof(float));
        if (!data)
            return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the inputs");
        for (int64_t k = 0; k < count; k++) {
            uint64_t value = next_random(&bench->random) >> 24;
            if (tensor->type == PLAN_U8)
                ((uint8_t *)data)[k] = tensor->role == ROLE_TARGET ? value & 1 : value & 255;
            else
                ((float *)data)[k] = (float)(value & 0xffff) / 65536.0f;
        }
        bool written = executor_write(bench->session.executor, bench->program->name, tensor->name,
                                      data, bench->batch, error);
        free(data);
        if (!written)
            return false;
    }
    return true;
}

static bool write_weights(Bench *bench, Error *error)
{
    Executor *executor = bench->session.executor;
    char *slab = calloc(1, (size_t)executor_slab_bytes(executor, SLAB_PARAMETERS) + 1);
    if (!slab)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the weights");
    params_initialise(bench->session.plan, bench->options->seed, slab);
    bool written = executor_upload(executor, SLAB_PARAMETERS, slab, error);
    free(slab);
    return written;
}

static bool run_once(Bench *bench, int64_t step, double *seconds, Error *error)
{
    *executor_state(bench->session.executor) = (PlanState){
        .learning_rate = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = step,
        .seed = bench->options->seed + (uint64_t)step };
    double begun = now_seconds();
    if (!executor_run(bench->session.executor, bench->program->name, bench->batch, error))
        return false;
    *seconds = now_seconds() - begun;
    return true;
}

static bool time_runs(Bench *bench, Error *error)
{
    const Options *options = bench->options;
    int64_t wanted = options->runs ? options->runs : MAX_RUNS, step = 1;
    double seconds, spent = 0;
    bench->times = malloc(sizeof(double) * (size_t)wanted);
    bench->peaks = malloc(sizeof(double) * (size_t)wanted);
    if (!bench->times || !bench->peaks)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for %lld times",
                    (long long)wanted);
    for (int warm = 0; warm < 2; warm++)
        if (!run_once(bench, step++, &seconds, error))
            return false;
    progress_start(&bench->session.progress, 0);
    while (bench->n_times < wanted
           && (options->runs || bench->n_times < 5 || spent < default_seconds)) {
        if (interrupted())
            return fail(error, EXIT_INTERRUPTED, "", "interrupted after %d runs", bench->n_times);
        if (!run_once(bench, step++, &seconds, error))
            return false;
        spent += seconds;
        bench->times[bench->n_times++] = seconds;
        if (bench->n_peaks < 40)
            bench->peaks[bench->n_peaks++] = measure_peak(bench->threads, probe_seconds);
        if (options->runs)
            progress_update(&bench->session.progress, "timing", bench->n_times, wanted, "runs", "");
    }
    progress_clear(&bench->session.progress);
    qsort(bench->times, (size_t)bench->n_times, sizeof *bench->times, by_value);
    qsort(bench->peaks, (size_t)bench->n_peaks, sizeof *bench->peaks, by_value);
    return true;
}

/* ---- profile ---- */

typedef struct { const char *label; int calls; double seconds, flops, bytes; } ProfileRow;

static int slowest_first(const void *a, const void *b)
{
    const ProfileRow *x = a, *y = b;
    if (x->seconds != y->seconds)
        return x->seconds > y->seconds ? -1 : 1;
    return strcmp(x->label, y->label);
}

static void print_profile(const ProfileRow *rows, int n)
{
    double total = 0;
    for (int i = 0; i < n; i++)
        total += rows[i].seconds;
    printf("\n%-56s %5s %9s %6s %8s %7s\n", "kernel", "calls", "ms", "share", "GFLOP/s", "GB/s");
    for (int i = 0; i < n; i++) {
        const ProfileRow *row = &rows[i];
        double per = row->seconds > 0 ? 1e-9 / row->seconds : 0;
        printf("%-56.56s %5d %9.3f %5.1f%% %8.1f %7.1f\n", row->label, row->calls,
               1e3 * row->seconds, total > 0 ? 100 * row->seconds / total : 0, row->flops * per,
               row->bytes * per);
    }
    printf("%-56s %5s %9.3f\n", "together", "", 1e3 * total);
}

/* One row for every label: steps of equal label are the same kernel on the same sizes. */
static ProfileRow *profile_rows(Bench *bench, int *n_rows, Error *error)
{
    const PlanProgram *program = bench->program;
    int n = program->n_steps;
    double *best = malloc(sizeof(double) * (size_t)(n + 1));
    ProfileRow *rows = calloc((size_t)n + 1, sizeof *rows);
    bool fine = best && rows;
    if (!fine)
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the profile");
    executor_profile(bench->session.executor, true);
    for (int run = 0; fine && run < PROFILE_RUNS; run++) {
        double seconds;
        fine = run_once(bench, 1000 + run, &seconds, error);
        const double *times = fine ? executor_step_times(bench->session.executor) : NULL;
        for (int i = 0; fine && i < n; i++)
            best[i] = run == 0 ? times[i] : fmin(best[i], times[i]);
    }
    executor_profile(bench->session.executor, false);
    *n_rows = 0;
    for (int i = 0; fine && i < n; i++) {
        const PlanStep *step = &program->steps[i];
        int k = 0;
        while (k < *n_rows && strcmp(rows[k].label, step->label) != 0)
            k++;
        rows[k].label = step->label;
        rows[k].calls++;
        rows[k].seconds += best[i];
        rows[k].flops += step->flops + step->flops_per_sample * bench->batch;
        rows[k].bytes += step->bytes + step->bytes_per_sample * bench->batch;
        *n_rows += k == *n_rows;
    }
    free(best);
    if (!fine) {
        free(rows);
        return NULL;
    }
    qsort(rows, (size_t)*n_rows, sizeof *rows, slowest_first);
    return rows;
}

/* ---- results ---- */

static double program_flops(const Bench *bench)
{
    bool train = strcmp(bench->program->name, "train") == 0;
    double flops = 0;
    for (int i = 0; i < bench->program->n_steps; i++) {
        const PlanStep *step = &bench->program->steps[i];
        if (train || !step->once)
            flops += step->flops + step->flops_per_sample * bench->batch;
    }
    return flops;
}

static void print_results(const Bench *bench)
{
    const double *times = bench->times;
    int n = bench->n_times;
    double median = quantile(times, n, 0.5), rate = bench->flops / median;
    double peak = quantile(bench->peaks, bench->n_peaks, 0.5);
    char held[16], most[16];
    format_bytes((double)executor_bytes(bench->session.executor), held);
    format_bytes(peak_memory(), most);
    printf("%s, program %s, batch %d, %s\n", bench->session.plan->model, bench->program->name,
           bench->batch, device_describe(bench->session.device));
    printf("  time        %.3f ms median of %d runs (%.3f to %.3f in the middle half, best %.3f)\n",
           1e3 * median, n, 1e3 * quantile(times, n, 0.25), 1e3 * quantile(times, n, 0.75),
           1e3 * times[0]);
    printf("  rate        %.2f images/s\n", bench->batch / median);
    printf("  arithmetic  %.1f GFLOP/s (%.3f GFLOP a run)\n", 1e-9 * rate, 1e-9 * bench->flops);
    printf("  peak        %.1f GFLOP/s measured multiply-adds, %d threads; this is %.1f %% of it\n",
           1e-9 * peak, bench->threads, 100 * rate / peak);
    printf("  memory      %s for the plan, %s the whole process at most\n", held, most);
}

static bool write_json(const Bench *bench, const ProfileRow *rows, int n_rows, Error *error)
{
    int n = bench->n_times;
    double median = quantile(bench->times, n, 0.5);
    json_t *json = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f}",
        "plan", bench->session.plan_path, "model", bench->session.plan->model, "program",
        bench->program->name, "batch", bench->batch, "threads", bench->threads, "device",
        device_describe(bench->session.device), "runs", n, "median_seconds", median, "best_seconds",
        bench->times[0], "quartile1_seconds", quantile(bench->times, n, 0.25), "quartile3_seconds",
        quantile(bench->times, n, 0.75), "images_per_second", bench->batch / median, "flops",
        bench->flops, "flops_per_second", bench->flops / median, "peak_flops_per_second",
        quantile(bench->peaks, bench->n_peaks, 0.5), "plan_bytes",
        (json_int_t)executor_bytes(bench->session.executor), "process_bytes", peak_memory());
    json_t *list = json && rows ? json_array() : NULL;
    for (int i = 0; list && i < n_rows; i++)
        json_array_append_new(list, json_pack("{s:s, s:i, s:f, s:f, s:f}", "label", rows[i].label,
                                              "calls", rows[i].calls, "seconds", rows[i].seconds,
                                              "flops", rows[i].flops, "bytes", rows[i].bytes));
    if (list)
        json_object_set_new(json, "profile", list);
    return json_write(bench->options->json, json, error);
}

static bool bench_program(Bench *bench, Error *error)
{
    const Options *options = bench->options;
    Session *session = &bench->session;
    bench->program = plan_program(session->target, options->program);
    if (!bench->program)
        return fail(error, EXIT_USER, "segrun info lists its programs", "%s: no program '%s'",
                    session->plan_path, options->program);
    bench->flops = program_flops(bench);
    if (!write_weights(bench, error) || !write_inputs(bench, error) || !time_runs(bench, error))
        return false;
    ProfileRow *rows = NULL;
    int n_rows = 0;
    if (options->profile && !(rows = profile_rows(bench, &n_rows, error)))
        return false;
    bool written = !options->json || write_json(bench, rows, n_rows, error);
    print_results(bench);
    if (rows)
        print_profile(rows, n_rows);
    free(rows);
    return written;
}

/* ---- the loader alone ---- */

static bool time_loader(const Bench *bench, Dataset *data, Split split, Error *error)
{
    int64_t images = 0;
    int epoch = 0;
    double begun = now_seconds(), slowest = 0;
    while (now_seconds() - begun < default_seconds && !interrupted()) {
        LoaderOptions wanted = { .split = split,
                                 .batch = bench->batch,
                                 .shuffle = true,
                                 .flip = true,
                                 .seed = bench->options->seed,
                                 .epoch = epoch++,
                                 .workers = (int)bench->options->workers };
        Loader *loader = loader_open(data, &wanted, error);
        Batch batch = { .n = 1 };
        while (loader && batch.n > 0) {
            double before = now_seconds();
            if (!loader_next(loader, &batch, error)) {
                loader_close(loader);
                return false;
            }
            slowest = fmax(slowest, now_seconds() - before);
            images += batch.n;
        }
        if (!loader)
            return false;
        loader_close(loader);
    }
    double seconds = now_seconds() - begun;
    printf("loader, %s split, %d pictures, batch %d\n", split_name(split),
           dataset_count(data, split), bench->batch);
    printf("  rate        %.0f images/s over %d epochs; longest wait %.2f ms\n",
           (double)images / seconds, epoch, 1e3 * slowest);
    if (!bench->options->json)
        return true;
    char text[256];
    int length = snprintf(text, sizeof text,
                          "{\n  \"program\": \"data\",\n  \"batch\": %d,\n"
                          "  \"images_per_second\": %.9g,\n  \"longest_wait_seconds\": %.9g\n}\n",
                          bench->batch, (double)images / seconds, slowest);
    return file_write(bench->options->json, text, (size_t)length, error);
}

/* Needs only the plan, for the size of its input. */
static bool bench_data(Bench *bench, Error *error)
{
    const Options *options = bench->options;
    Session *session = &bench->session;
    ProgramTensors tensors;
    if (!session_open(session, options, error)
        || !session_tensors(session, "train", true, &tensors, error))
        return false;
    Split split = split_of(options->split);
    Dataset *data =
        session_dataset(session, 1u << split, strcmp(options->outline, "background") == 0,
                        (int)options->limit, tensors.image, error);
    if (!data)
        return false;
    bool timed = dataset_count(data, split) == 0
                     ? fail(error, EXIT_USER, "", "%s: the %s split is empty", options->data,
                            split_name(split))
                     : time_loader(bench, data, split, error);
    dataset_close(data);
    return timed;
}

int command_bench(const Options *options)
{
    Bench bench = { .options = options,
                    .batch = (int)options->batch,
                    .random = 88172645463325252u };
    Error error = { 0 };
    bench.threads = options->threads ? (int)options->threads : system_processors();
    bool done = strcmp(options->program, "data") == 0
                    ? bench_data(&bench, &error)
                    : session_open(&bench.session, options, &error)
                          && session_device(&bench.session, options->program, bench.batch, &error)
                          && session_build(&bench.session, &error)
                          && bench_program(&bench, &error);
    int code = done ? EXIT_FINE : report(&error);
    free(bench.times);
    free(bench.peaks);
    session_close(&bench.session);
    return code;
}
