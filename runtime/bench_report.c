/* What bench_measure found, as text for people and logs (at most 100 columns) and as JSON.
 *
 * The JSON is written by hand: the programs that print it link nothing but libc. A number that is
 * not known is null.
 */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trace.h"

enum { NAME_WIDTH = 45 };

/* VmHWM: the most memory this process ever had. */
static double process_memory(void)
{
    FILE *in = fopen("/proc/self/status", "re");
    char line[256];
    double kib = 0;
    while (in && fgets(line, sizeof line, in))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtod(line + 6, NULL);
    if (in)
        fclose(in);
    return kib * 1024;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Seconds of a run by the ceiling, each step for itself: what no kernel can beat. 0: not known. */
static double floor_seconds(const Bench *bench, const BenchPlan *plan)
{
    DeviceCeiling ceiling = bench_ceiling(bench);
    bool train = strcmp(plan->program->name, "train") == 0;
    double seconds = 0;
    for (int i = 0; i < plan->program->n_steps; i++) {
        const PlanStep *step = &plan->program->steps[i];
        if ((!step->once || (train && !plan->program->keeps_once)) && step_is_usual(step))
            seconds += ceiling_seconds(&ceiling, step_flops(step, bench->batch),
                                       step_bytes(step, bench->batch));
    }
    return seconds;
}

/* ---- text ------------------------------------------------------------------------------------ */

static void print_plan(const Bench *bench, const BenchPlan *plan, FILE *out)
{
    Spread time = spread_of(plan->times, bench->n_times);
    double floor = floor_seconds(bench, plan);
    fprintf(out, "  %.90s\n", file_name(plan->path));
    fprintf(out, "    time      %.3f ms a run (%.3f to %.3f in the middle half, best %.3f)\n",
            1e3 * time.median, 1e3 * time.low, 1e3 * time.high, 1e3 * time.least);
    fprintf(out, "              median of %d timings of %d run%s each\n", bench->n_times,
            plan->inner, plan->inner == 1 ? "" : "s");
    fprintf(out, "    rate      %.2f images/s, %.1f GFLOP/s, %.1f GB/s", bench->batch / time.median,
            1e-9 * plan->flops / time.median, 1e-9 * plan->bytes / time.median);
    if (floor > 0)
        fprintf(out, ", %.1f %% of the ceiling", 100 * floor / time.median);
    fprintf(out, "\n    needs     %.3f GFLOP and %.3f GB a run; holds %.1f MiB\n",
            1e-9 * plan->flops, 1e-9 * plan->bytes, plan->memory / (1 << 20));
}

static void print_ceiling(const Bench *bench, FILE *out)
{
    const DeviceCeiling middle = bench_ceiling(bench);
    int last = bench->n_ceilings - 1;
    if (last < 0) {
        fprintf(out, "  ceiling     not known\n");
        return;
    }
    fprintf(out, "  ceiling     %.1f GFLOP/s", 1e-9 * middle.flops);
    if (middle.bytes > 0)
        fprintf(out, ", %.1f GB/s", 1e-9 * middle.bytes);
    if (!middle.measured) {
        fprintf(out, " by the device's clocks and widths\n");
        return;
    }
    fprintf(out, ", measured; before %.1f and %.1f, after %.1f and %.1f\n",
            1e-9 * bench->ceilings[0].flops, 1e-9 * bench->ceilings[0].bytes,
            1e-9 * bench->ceilings[last].flops, 1e-9 * bench->ceilings[last].bytes);
}

static void print_ratio(const Bench *bench, int other, FILE *out)
{
    const BenchPlan *first = &bench->plans[0], *second = &bench->plans[other];
    Spread ratio = bench_ratio(bench, other);
    fprintf(out, "  ratio       %.3f times as long, %.50s (%.3f to %.3f)\n", ratio.median,
            file_name(second->path), ratio.low, ratio.high);
    fprintf(out, "              %.3f times the bytes, %.3f times the memory\n",
            second->bytes / first->bytes, second->memory / first->memory);
}

void bench_print(const Bench *bench, FILE *out)
{
    const BenchPlan *first = &bench->plans[0];
    fprintf(out, "%s, program %s, batch %d\n", first->plan->model, first->program->name,
            bench->batch);
    for (int i = 0; i < bench->n_plans; i++)
        print_plan(bench, &bench->plans[i], out);
    for (int i = 1; i < bench->n_plans; i++)
        print_ratio(bench, i, out);
    print_ceiling(bench, out);
    fprintf(out, "  memory      %.1f MiB, the whole process at most\n",
            process_memory() / (1 << 20));
}

void bench_print_line(const Bench *bench, FILE *out)
{
    const BenchPlan *plan = &bench->plans[0];
    Spread time = spread_of(plan->times, bench->n_times);
    double floor = floor_seconds(bench, plan);
    fprintf(out, "%-14.14s %-8s %4d %-9s %10.3f ms %9.1f img/s", plan->plan->model,
            plan->program->name, bench->batch, device_target(bench->device), 1e3 * time.median,
            bench->batch / time.median);
    if (floor > 0)
        fprintf(out, " %5.1f %%", 100 * floor / time.median);
    for (int i = 1; i < bench->n_plans; i++) {
        Spread ratio = bench_ratio(bench, i);
        fprintf(out, "  x %.2f (%.2f-%.2f)", ratio.median, ratio.low, ratio.high);
    }
    fputc('\n', out);
}

/* Long names lose their middle: kernels of one kind differ at both ends. */
static void print_name(const char *name, FILE *out)
{
    enum { END = 12 };
    int length = (int)strlen(name);
    if (length <= NAME_WIDTH)
        fprintf(out, "%-*s", NAME_WIDTH, name);
    else
        fprintf(out, "%.*s..%s", NAME_WIDTH - END - 2, name, name + length - END);
}

static void print_row(const BenchRow *row, const DeviceCeiling *ceiling, double total, FILE *out)
{
    double per = 1e-9 / row->seconds;
    bool compute = row->flops * ceiling->bytes >= row->bytes * ceiling->flops;
    fprintf(out, " %5d %9.3f %5.1f%% %9.1f %7.1f", row->calls, 1e3 * row->seconds,
            100 * row->seconds / total, row->flops * per, row->bytes * per);
    if (row->floor > 0)
        fprintf(out, " %6.1f%% %s", 100 * row->floor / row->seconds, compute ? "flop" : "byte");
    fputc('\n', out);
}

static bool print_profile(const Bench *bench, const BenchPlan *plan, bool steps, FILE *out,
                          Error *error)
{
    int n;
    BenchRow *rows = bench_rows(bench, plan, steps, &n);
    DeviceCeiling ceiling = bench_best_ceiling(bench);
    double total = 0;
    if (!rows)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the profile");
    for (int i = 0; i < n; i++)
        total += rows[i].seconds;
    fprintf(out, "\n%-*.*s %5s %9s %6s %9s %7s %12s\n", NAME_WIDTH, NAME_WIDTH,
            file_name(plan->path), "calls", "ms", "share", "GFLOP/s", "GB/s", "of ceiling");
    for (int i = 0; i < n; i++) {
        print_name(steps ? rows[i].label : rows[i].name, out);
        print_row(&rows[i], &ceiling, total, out);
    }
    fprintf(out, "%-*s %5s %9.3f\n", NAME_WIDTH, "together", "", 1e3 * total);
    free(rows);
    return true;
}

bool bench_print_profile(const Bench *bench, bool steps, FILE *out, Error *error)
{
    for (int i = 0; i < bench->n_plans; i++)
        if (!print_profile(bench, &bench->plans[i], steps, out, error))
            return false;
    fprintf(out, "\nof ceiling: the least time for the operations (flop) or the bytes (byte), the "
            "longer, over ms;\nmore than 100 %% where operands lie in caches\n");
    return true;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_text(FILE *out, const char *key, const char *text)
{
    fprintf(out, "\"%s\": ", key);
    put_json_text(out, text);
    fputs(", ", out);
}

static void put_number(FILE *out, const char *key, double value, const char *behind)
{
    if (isfinite(value))
        fprintf(out, "\"%s\": %.9g%s", key, value, behind);
    else
        fprintf(out, "\"%s\": null%s", key, behind);
}

static void put_spread(FILE *out, const char *key, Spread spread, const char *behind)
{
    fprintf(out, "\"%s\": {", key);
    put_number(out, "median", spread.median, ", ");
    put_number(out, "quartile1", spread.low, ", ");
    put_number(out, "quartile3", spread.high, ", ");
    put_number(out, "least", spread.least, ", ");
    put_number(out, "most", spread.most, "}");
    fputs(behind, out);
}

static bool put_rows(const Bench *bench, const BenchPlan *plan, bool steps, FILE *out)
{
    int n;
    BenchRow *rows = bench_rows(bench, plan, steps, &n);
    fprintf(out, ",\n     \"%s\": [", steps ? "steps" : "kernels");
    for (int i = 0; rows && i < n; i++) {
        fputs(i ? ",\n      {" : "\n      {", out);
        put_text(out, "kernel", rows[i].name);
        if (steps)
            put_text(out, "step", rows[i].label);
        else
            put_number(out, "calls", rows[i].calls, ", ");
        put_number(out, "seconds", rows[i].seconds, ", ");
        put_number(out, "flops", rows[i].flops, ", ");
        put_number(out, "bytes", rows[i].bytes, ", ");
        put_number(out, "floor_seconds", rows[i].floor, "}");
    }
    fputc(']', out);
    free(rows);
    return rows != NULL;
}

static bool put_plan(const Bench *bench, int number, FILE *out)
{
    const BenchPlan *plan = &bench->plans[number];
    Spread time = spread_of(plan->times, bench->n_times);
    fputs("    {", out);
    put_text(out, "file", file_name(plan->path));
    put_text(out, "options", plan->plan->options);
    put_spread(out, "seconds", time, ",\n     ");
    if (number > 0)
        put_spread(out, "ratio", bench_ratio(bench, number), ",\n     ");
    put_number(out, "images_per_second", bench->batch / time.median, ", ");
    put_number(out, "flops", plan->flops, ", ");
    put_number(out, "bytes", plan->bytes, ", ");
    put_number(out, "floor_seconds", floor_seconds(bench, plan), ",\n     ");
    put_number(out, "device_bytes", plan->memory, ", ");
    put_number(out, "runs_a_timing", plan->inner, ",\n     ");
    fputs("\"timings\": [", out);
    for (int i = 0; i < bench->n_times; i++)
        fprintf(out, "%s%.9g", i ? ", " : "", plan->times[i]);
    fputc(']', out);
    bool complete = !plan->step_times
                 || (put_rows(bench, plan, false, out) && put_rows(bench, plan, true, out));
    fputc('}', out);
    return complete;
}

static void put_ceilings(const Bench *bench, FILE *out)
{
    fputs("  \"ceilings\": [", out);
    for (int i = 0; i < bench->n_ceilings; i++) {
        fputs(i ? ", {" : "{", out);
        put_number(out, "flops_per_second", bench->ceilings[i].flops, ", ");
        put_number(out, "bytes_per_second", bench->ceilings[i].bytes, "}");
    }
    fprintf(out, "], \"ceilings_measured\": %s,\n",
            bench->n_ceilings && bench->ceilings[0].measured ? "true" : "false");
}

static bool put_bench(const Bench *bench, FILE *out)
{
    char date[32];
    time_t seconds = time(NULL);
    struct tm fields;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &fields));
    fputs("{\n  ", out);
    put_text(out, "date", date);
    put_text(out, "device", device_describe(bench->device));
    put_text(out, "target", device_target(bench->device));
    fputs("\n  ", out);
    put_text(out, "model", bench->plans[0].plan->model);
    put_text(out, "program", bench->plans[0].program->name);
    put_number(out, "batch", bench->batch, ", ");
    put_number(out, "process_bytes", process_memory(), ",\n");
    put_ceilings(bench, out);
    fputs("  \"plans\": [\n", out);
    bool complete = true;
    for (int i = 0; i < bench->n_plans; i++) {
        fputs(i ? ",\n" : "", out);
        complete &= put_plan(bench, i, out);
    }
    fputs("]\n}\n", out);
    return complete;
}

bool bench_write_json(const Bench *bench, const char *path, Error *error)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    bool written = out && put_bench(bench, out);
    if ((out && fclose(out) != 0) || !written)
        written = fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    else if (strcmp(path, "-") == 0)
        fwrite(text, 1, size, stdout);
    else
        written = file_write(path, text, size, error);
    free(text);
    return written;
}
