/* The measuring of `segrun bench` on a device made by hand, whose clock is the test's: what is run
 * in which order, which numbers come out, and that they are complete as text and as JSON.
 *
 * The device "runs" a step by sleeping for its `flops` nanoseconds.
 */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/bench.h"
#include "runtime/bench_page.h"
#include "runtime/bench_pictures.h"
#include "runtime/device.h"

static int passed, failed;

static void check(bool right, const char *format, ...)
{
    va_list arguments;
    passed += right;
    failed += !right;
    if (right)
        return;
    va_start(arguments, format);
    printf("FAIL ");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

static bool is_near(double a, double b) { return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b)); }

/* ---- two plans ------------------------------------------------------------------------------- */

#define TEXT(constant) ((char *)(constant))
static PlanKernel kernels[] = { { TEXT("scale"), TEXT(""), TEXT(""), NULL, NULL },
                                { TEXT("a_name_with_more_letters_than_fit_into_the_column_17d4a5"),
                                  TEXT(""), TEXT(""), NULL, NULL } };
static PlanTensor tensors[] = {
    { TEXT("image"), ROLE_INPUT, PLAN_U8, true, { 3, 4, 4 }, { SLAB_ACTIVATIONS, 0, 48 } },
};
#define STEP(number, ns, moved, is_once, text) \
    { .kernel = number, .group = -1, .flops_per_sample = ns, .bytes_per_sample = moved, .once = is_once, \
      .label = TEXT(text) }
static PlanStep quick_steps[] = { STEP(0, 1e5, 100, false, "scale \"one\""),
                                  { .kernel = 1, .flops_per_sample = 2e5, .bytes_per_sample = 4e6,
                                    .label = TEXT("long") }, STEP(0, 1e5, 0, true, "pack"),
                                  STEP(0, 3e5, 300, false, "scale two") };
static PlanStep slow_steps[] = { STEP(0, 2e6, 100, false, "scale") };
static int source[] = { 0 };
static PlanNode nodes[] = { { TEXT("%x = input : u8"), 0, NULL, -1, { SLAB_ACTIVATIONS, 0, 48 } },
                            { TEXT("%1 = mul %x : \"f32\"<b>&"), 1, source, 0, { 0 } } };
static PlanProgram quick_programs[] = { { TEXT("predict"), 1, tensors, 4, quick_steps, 64, 64, 0,
                                          false, 2, nodes } };
static PlanProgram slow_programs[] = { { TEXT("predict"), 1, tensors, 1, slow_steps, 64, 64, 0,
                                         false, 0, NULL } };
static PlanTarget quick_target = { TEXT("fake"), TEXT(""), 2, kernels, 1, quick_programs };
static PlanTarget slow_target = { TEXT("fake"), TEXT(""), 2, kernels, 1, slow_programs };
static Plan quick = { .model = TEXT("tiny"), .options = TEXT("-D name=\"\\\""),
                      .n_targets = 1, .targets = &quick_target };
static Plan slow = { .model = TEXT("tiny"), .options = TEXT(""),
                     .n_targets = 1, .targets = &slow_target };

/* ---- the device ------------------------------------------------------------------------------ */

static char order[8192];        /* q or s for every run */
static int synchronised, probed;
static bool breaks;

static DeviceKernels *build(Device *device, const PlanTarget *target, const bool *needed,
                            const char *file, Error *error)
{
    (void)device, (void)needed, (void)file, (void)error;
    return (DeviceKernels *)target;
}
static void unload(Device *device, DeviceKernels *built) { (void)device, (void)built; }
static void closed(Device *device) { (void)device; }
static int64_t available(const Device *device)
{
    (void)device;
    return 1 << 20;
}
static void *allocate(Device *device, int64_t bytes, Error *error)
{
    (void)device, (void)error;
    return calloc(1, (size_t)bytes);
}
static void release(Device *device, void *memory, int64_t bytes)
{
    (void)device, (void)bytes;
    free(memory);
}
static bool copy(Device *device, void *to, const void *from, int64_t bytes, Error *error)
{
    (void)device, (void)error;
    memcpy(to, from, (size_t)bytes);
    return true;
}
static bool run(Device *device, const DeviceRun *work, Error *error)
{
    (void)device;
    size_t length = strlen(order);
    if (breaks)
        return fail(error, EXIT_ENVIRONMENT, "", "broken");
    if (length + 1 < sizeof order)
        order[length] = (void *)work->kernels == (void *)&slow_target ? 's' : 'q';
    for (int i = 0; i < work->n_steps; i++) {
        const PlanStep *step = work->steps[i].plan;
        double nanoseconds = step->once && !work->once ? 0 : step->flops_per_sample;
        struct timespec wait = { 0, (long)nanoseconds };
        nanosleep(&wait, NULL);
        if (work->times)
            work->times[i] = 1e-9 * nanoseconds;
    }
    return true;
}
static bool synchronise(Device *device, Error *error)
{
    (void)device, (void)error;
    synchronised++;
    return true;
}
/* 2 GFLOP/s and 10 GB/s in the middle. */
static bool ceiling(Device *device, DeviceCeiling *found)
{
    (void)device;
    probed++;
    *found = (DeviceCeiling){ 2e9, 10e9, true };
    return true;
}
static Device device = {
    .target = "fake", .description = "a device", .close = closed, .build = build, .unload = unload,
    .available = available, .allocate = allocate, .release = release, .upload = copy,
    .download = copy, .run = run, .synchronise = synchronise, .ceiling = ceiling,
};

static bool add(Bench *bench, const char *path, const Plan *plan, Error *error)
{
    Executor *executor = executor_open(plan, bench->device, bench->batch, error);
    return executor && bench_add(bench, path, plan, executor, "predict", error);
}

static void close_all(Bench *bench)
{
    for (int i = 0; i < bench->n_plans; i++)
        executor_close(bench->plans[i].executor);
    bench_close(bench);
}

static int ticks;
static bool tick(void *context, int done, int64_t wanted)
{
    (void)context, (void)done, (void)wanted;
    return ++ticks < 1000;
}
static bool stop(void *context, int done, int64_t wanted)
{
    (void)context, (void)wanted;
    return done < 2;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_spread(void)
{
    const double values[] = { 5, 1, 3, 2, 4 };
    Spread spread = spread_of(values, 5);
    check(is_near(spread.median, 3) && is_near(spread.least, 1) && is_near(spread.most, 5)
              && is_near(spread.low, 2) && is_near(spread.high, 4), "quartiles of 1 to 5");
    spread = spread_of(values, 2);
    check(is_near(spread.median, 3) && is_near(spread.low, 2), "quartiles between two");
    spread = spread_of(values, 0);
    check(spread.median == 0, "of nothing");
    DeviceCeiling limit = { 100, 10, false };
    check(is_near(ceiling_seconds(&limit, 200, 10), 2), "bound by operations");
    check(is_near(ceiling_seconds(&limit, 100, 30), 3), "bound by bytes");
    check(ceiling_seconds(&(DeviceCeiling){ 0 }, 100, 30) == 0, "no ceiling");
}

/* Up to 17 runs of 0.6 ms in a timing of the one, fewer on a busy machine; up to 5 of the other. */
static void test_order(const Bench *bench)
{
    const char *at = order + strspn(order, "q");
    at += strspn(at, "s");
    int turns = 0;
    for (; *at; turns++) {
        size_t first = strspn(at, "q"), second = strspn(at + first, "s");
        if ((int)first != bench->plans[0].inner || (int)second != bench->plans[1].inner)
            break;
        at += first + second;
    }
    check(turns == bench->n_times, "plans run in turn: %d of %d", turns, bench->n_times);
    check(bench->plans[0].inner >= 1 && bench->plans[0].inner <= 17,
          "short runs are timed together, up to 10 ms: %d", bench->plans[0].inner);
    check(synchronised >= 2 * bench->n_times, "timings end when the device is done");
    check(probed == bench->n_ceilings && probed >= 3, "the ceiling, before, after, and at the end");
    check(ticks == bench->n_times + BENCH_PROFILE_RUNS, "a tick a timing and a profiled run: %d",
          ticks);
}

static void test_numbers(const Bench *bench)
{
    const BenchPlan *plan = &bench->plans[0];
    Spread ratio = bench_ratio(bench, 1);
    check(is_near(plan->flops, 2 * 6e5) && is_near(plan->bytes, 2 * (4e6 + 400)),
          "what a run needs, without the once-step: %g, %g", plan->flops, plan->bytes);
    check(plan->step == bench->n_times * plan->inner + (int64_t)strspn(order, "q") + 3,
          "a step of the optimiser a run");
    check(ratio.median > 1.2 && ratio.median < 10, "the ratio: %g", ratio.median);
    int n;
    BenchRow *rows = bench_rows(bench, plan, false, &n);
    check(n == 2 && strcmp(rows[0].name, "scale") == 0 && rows[0].calls == 2
              && is_near(rows[0].seconds, 4e-4) && is_near(rows[0].flops, 8e5)
              && is_near(rows[0].bytes, 800), "steps of one kernel are one row");
    check(is_near(rows[0].floor, 4e-4) && is_near(rows[1].floor, 8e-4),
          "the larger of operations and bytes: %g %g", rows[0].floor, rows[1].floor);
    free(rows);
    rows = bench_rows(bench, plan, true, &n);
    check(n == 3 && strcmp(rows[1].label, "long") == 0 && rows[2].calls == 1,
          "or one a step, in order");
    free(rows);
}

static void test_text(const Bench *bench)
{
    char *text = NULL;
    size_t size, longest = 0;
    Error error = { 0 };
    FILE *out = open_memstream(&text, &size);
    bench_print(bench, out);
    check(bench_print_profile(bench, false, out, &error), "profile");
    check(bench_print_profile(bench, true, out, &error), "profile by steps");
    bench_print_line(bench, out);
    fclose(out);
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
        longest = strcspn(line, "\n") > longest ? strcspn(line, "\n") : longest;
    check(longest <= 100, "fits 100 columns: %zu", longest);
    check(strstr(text, "images/s") && strstr(text, "ratio") && strstr(text, "ceiling"),
          "headlines");
    check(strstr(text, "a_name_with_more_letters_than_f..olumn_17d4a5"),
          "long names lose the middle");
    free(text);
}

static void test_json(const Bench *bench)
{
    char path[] = "/tmp/test-bench-XXXXXX";
    Error error = { 0 };
    json_error_t where;
    int file = mkstemp(path);
    check(file >= 0 && bench_write_json(bench, path, &error), "JSON: %s", error.text);
    json_t *json = json_load_file(path, 0, &where);
    check(json != NULL, "JSON: %s in line %d", where.text, where.line);
    json_t *plan = json_array_get(json_object_get(json, "plans"), 0);
    check(json_array_size(json_object_get(plan, "timings")) == (size_t)bench->n_times,
          "all timings");
    check(json_array_size(json_object_get(plan, "kernels")) == 2
              && json_array_size(json_object_get(plan, "steps")) == 3, "the profile, both ways");
    const char *options = json_string_value(json_object_get(plan, "options"));
    check(options && strcmp(options, "-D name=\"\\\"") == 0, "texts with quotation marks");
    json_t *ratio = json_object_get(json_array_get(json_object_get(json, "plans"), 1), "ratio");
    check(json_number_value(json_object_get(ratio, "median")) > 0, "the ratio");
    json_decref(json);
    remove(path);
}

/* What Perfetto reads: complete events, those of the steps within their run's, numbers that fit. */
static void test_trace(const Bench *bench)
{
    char path[] = "/tmp/test-bench-XXXXXX";
    Error error = { 0 };
    json_error_t where;
    int file = mkstemp(path);
    check(file >= 0 && bench_write_trace(bench, path, &error), "trace: %s", error.text);
    json_t *json = json_load_file(path, 0, &where), *event;
    check(json != NULL, "trace: %s in line %d", where.text, where.line);
    int runs = 0, steps = 0, names = 0, astray = 0, graphs = 0;
    double begin = 0, end = 0;
    size_t i;
    json_array_foreach(json_object_get(json, "traceEvents"), i, event) {
        double at = json_number_value(json_object_get(event, "ts"));
        double length = json_number_value(json_object_get(event, "dur"));
        json_t *arguments = json_object_get(event, "args");
        const char *graph = json_string_value(json_object_get(arguments, "graph"));
        if (strcmp(json_string_value(json_object_get(event, "ph")), "M") == 0) {
            names++;
        } else if (!json_object_get(arguments, "kernel")) {
            runs++;
            begin = at;
            end = at + length;
        } else {
            steps++;
            double rate = json_number_value(json_object_get(arguments, "GFLOP/s"));
            double work = json_number_value(json_object_get(arguments, "FLOP"));
            astray += at < begin - 0.01 || at + length > end + 0.01 || length <= 0
                   || fabs(rate * 1e3 * length - work) > 1e-3 * work + 1;
            graphs += graph && strcmp(graph, "%1 = mul %x : \"f32\"<b>&\n") == 0;
        }
    }
    check(names == 4 && runs == 6 && steps == 3 * 3 + 3, "events: %d %d %d", names, runs, steps);
    check(astray == 0, "%d of %d steps lie outside their run, or have other numbers", astray, steps);
    check(graphs == 3, "the lines of the graph: %d", graphs);
    json_decref(json);
    remove(path);
    check(!bench_write_trace(bench, "/nowhere/trace.json", &error)
          && error.code == EXIT_ENVIRONMENT && error.hint[0], "where it cannot be written");
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        n++;
    return n;
}

/* One page, whole, with nothing from elsewhere and no text of a plan taken for HTML. */
static void test_page(const Bench *bench)
{
    static const char *const foreign[] = { "http", "src=", "<script", "url(", "@import", "<link",
                                           "<b>", "nan", "inf\"" };
    static const char *const elements[] = { "svg", "table", "details", "g", "title", "div", "h2" };
    char path[] = "/tmp/test-bench-XXXXXX", begin[16], end[16];
    Error error = { 0 };
    size_t size = 0;
    int file = mkstemp(path);
    check(file >= 0 && bench_write_page(bench, path, &error), "page: %s", error.text);
    char *text = file_read(path, &size, &error);
    check(text && strncmp(text, "<!DOCTYPE html>", 15) == 0
              && strcmp(text + size - 15, "</body></html>\n") == 0, "a whole page");
    for (size_t i = 0; text && i < sizeof foreign / sizeof *foreign; i++)
        check(!strstr(text, foreign[i]), "the page has %s", foreign[i]);
    for (size_t i = 0; text && i < sizeof elements / sizeof *elements; i++) {
        snprintf(begin, sizeof begin, "<%s", elements[i]);
        snprintf(end, sizeof end, "</%s>", elements[i]);
        int opened = count(text, begin);
        if (strcmp(elements[i], "g") == 0)
            opened = count(text, "<g>") + count(text, "<g ");
        check(opened > 0 && opened == count(text, end), "<%s>: %d and %d ends", elements[i],
              opened, count(text, end));
    }
    check(text && strstr(text, "scale &quot;one&quot;") && strstr(text, "&lt;b&gt;&amp;"),
          "texts are escaped");
    check(text && count(text, "<td>") == 2 * 9 + 3 * 7 + (3 + 1) * 6, "cells: %d",
          text ? count(text, "<td>") : 0);
    free(text);
    remove(path);
    check(!bench_write_page(bench, "/nowhere/page.html", &error)
              && error.code == EXIT_ENVIRONMENT && strstr(error.text, "/nowhere/page.html"),
          "a page that cannot be written: %s", error.text);
}

static void test_plot(const Bench *bench)
{
    static const char *const names[] = { "roofline", "times", "timeline", "memory" };
    char folder[] = "/tmp/test-bench-XXXXXX", path[64];
    Error error = { 0 };
    check(mkdtemp(folder) && bench_plot(bench, folder, &error), "plot: %s", error.text);
    for (int i = 0; i < 4; i++) {
        size_t size = 0;
        snprintf(path, sizeof path, "%s/%s.png", folder, names[i]);
        char *bytes = file_read(path, &size, &error);
        check(bytes && size > 1000 && memcmp(bytes, "\x89PNG", 4) == 0, "%s", path);
        free(bytes);
        check(i > 0 || !bench_plot(bench, path, &error), "a folder that is a file");
        remove(path);
    }
    check(rmdir(folder) == 0, "four files and no more");
}

static void test_failures(void)
{
    Error error = { 0 };
    Bench bench = { .device = &device, .batch = 1, .tick = stop };
    check(add(&bench, "q", &quick, &error) && !bench_measure(&bench, &error)
              && error.code == EXIT_INTERRUPTED && strstr(error.text, "2 timings"),
          "stopped: %s", error.text);
    breaks = true;
    check(!bench_measure(&bench, &error) && strstr(error.text, "broken"), "a device that fails");
    close_all(&bench);
    breaks = false;
    device.ceiling = NULL;
    bench = (Bench){ .device = &device, .batch = 1, .runs = 3, .profile = true };
    check(add(&bench, "q", &quick, &error) && bench_measure(&bench, &error) && bench.n_times == 3
              && bench.n_ceilings == 0, "no ceiling: %s", error.text);
    test_text(&(Bench){ .device = &device, .batch = 1, .n_plans = 2, .n_times = 3,
                        .plans = { bench.plans[0], bench.plans[0] } });
    close_all(&bench);
}

int main(void)
{
    Error error = { 0 };
    Bench bench = { .device = &device, .batch = 2, .runs = 12, .profile = true, .tick = tick };
    test_spread();
    bool measured = add(&bench, "folder/quick.plan", &quick, &error)
                 && add(&bench, "slow.plan", &slow, &error) && bench_measure(&bench, &error);
    check(measured, "measured: %s", error.text);
    if (measured) {
        order[strlen(order) - 6] = 0; /* the profile's: three of each plan */
        test_order(&bench);
        test_numbers(&bench);
        test_text(&bench);
        test_json(&bench);
        test_trace(&bench);
        test_page(&bench);
        test_plot(&bench);
    }
    close_all(&bench);
    test_failures();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
