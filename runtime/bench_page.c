/* The page of `segrun bench --report`; its pictures are inline SVG. The table of kernels stands in
 * the page of `segrun report` as well.
 */
#include "bench_page.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "bench_pictures.h"
#include "page.h"
#include "plan_graph.h"

/* ---- what was measured ----------------------------------------------------------------------- */

static void put_summary(FILE *out, const Bench *bench)
{
    fputs("<table>\n<tr><th>plan</th><th>ms a run</th><th>middle half</th><th>images/s</th>"
          "<th>GFLOP/s</th><th>GB/s</th><th>GB</th><th>MiB held</th><th>times as long</th></tr>\n",
          out);
    for (int i = 0; i < bench->n_plans; i++) {
        const BenchPlan *plan = &bench->plans[i];
        Spread time = spread_of(plan->times, bench->n_times);
        fputs("<tr><td>", out);
        put_html(out, plan->path);
        if (*plan->plan->options) {
            fputs(" (segc ", out);
            put_html(out, plan->plan->options);
            fputc(')', out);
        }
        fputs("</td>", out);
        put_cell(out, "%.3f", 1e3 * time.median);
        fprintf(out, "<td>%.3f to %.3f</td>", 1e3 * time.low, 1e3 * time.high);
        put_cell(out, "%.2f", bench->batch / time.median);
        put_cell(out, "%.1f", 1e-9 * plan->flops / time.median);
        put_cell(out, "%.1f", 1e-9 * plan->bytes / time.median);
        put_cell(out, "%.3f", 1e-9 * plan->bytes);
        put_cell(out, "%.0f", plan->memory / (1 << 20));
        Spread ratio = i ? bench_ratio(bench, i) : (Spread){ 1, 1, 1, 1, 1 };
        fprintf(out, "<td>%.3f (%.3f to %.3f)</td></tr>\n", ratio.median, ratio.low, ratio.high);
    }
    fputs("</table>\n", out);
}

static void put_ceiling(FILE *out, const Bench *bench)
{
    DeviceCeiling ceiling = bench_ceiling(bench);
    if (bench->n_ceilings == 0)
        return;
    const DeviceCeiling *first = &bench->ceilings[0], *last = first + bench->n_ceilings - 1;
    fprintf(out, "<p>Ceiling: %.1f GFLOP/s, %.1f GB/s, %s", 1e-9 * ceiling.flops,
            1e-9 * ceiling.bytes, ceiling.measured ? "measured" : "by the device's clocks");
    if (ceiling.measured)
        fprintf(out, "; before %.1f and %.1f, after %.1f and %.1f", 1e-9 * first->flops,
                1e-9 * first->bytes, 1e-9 * last->flops, 1e-9 * last->bytes);
    fputs(". Operations and bytes are those that the steps need by definition: a Winograd "
          "convolution, or operands in caches, can pass the ceiling.</p>\n", out);
}

void put_measured(FILE *out, const Bench *bench)
{
    put_summary(out, bench);
    put_ceiling(out, bench);
}

/* ---- pictures -------------------------------------------------------------------------------- */

static void put_pictures(FILE *out, const Bench *bench)
{
    fputs("<h2 id=\"times\">Times</h2>\n", out);
    Canvas bars = canvas_svg(PICTURE_WIDTH, bars_height(bench), out);
    draw_bars(&bars, bench);
    canvas_close(&bars, NULL, NULL);
    fputs("<h2 id=\"roofline\">Roofline</h2>\n", out);
    Canvas roofline = canvas_svg(PICTURE_WIDTH, ROOFLINE_HEIGHT, out);
    draw_roofline(&roofline, bench);
    canvas_close(&roofline, NULL, NULL);
    fputs("<h2 id=\"timeline\">Timeline</h2>\n<p>Each step has all threads. Point at a step for "
          "what it does.</p>\n", out);
    for (int i = 0; i < bench->n_plans; i++) {
        Canvas timeline = canvas_svg(PICTURE_WIDTH, timeline_height(), out);
        draw_timeline(&timeline, bench, &bench->plans[i]);
        canvas_close(&timeline, NULL, NULL);
    }
    fputs("<h2 id=\"memory\">Memory</h2>\n<p>The activations: a rectangle is a tensor, as wide as "
          "the steps that need it, as high as its bytes, at its address; in the colour of the step "
          "that makes it. Grey: workspaces and inputs.</p>\n", out);
    for (int i = 0; i < bench->n_plans; i++) {
        Canvas memory = canvas_svg(PICTURE_WIDTH, MEMORY_HEIGHT, out);
        draw_memory(&memory, bench, &bench->plans[i]);
        canvas_close(&memory, NULL, NULL);
    }
}

static bool put_graphs(FILE *out, const Bench *bench)
{
    const BenchPlan *plan = &bench->plans[0];
    if (plan->program->n_nodes == 0)
        return true;
    fputs("<h2 id=\"after\">Graph after fusion</h2>\n<p>A box is what one kernel computes (with the "
          "steps that pack its weights or add up its sums), with its time. Gradients come up on "
          "the right. Point at a box for the nodes in it.</p>\n", out);
    bool fine = put_graph(out, plan, true);
    fputs("<h2 id=\"before\">Graph before fusion</h2>\n<p>A box is an operator, with the shape of "
          "its result. One colour: computed together. Dashed: computed again by each reader, never "
          "stored.</p>\n", out);
    return put_graph(out, plan, false) && fine;
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void put_numbers(FILE *out, const BenchRow *row, double total)
{
    double per = 1e-9 / row->seconds;
    put_cell(out, "%.3f", 1e3 * row->seconds);
    put_cell(out, "%.1f&nbsp;%%", 100 * row->seconds / total);
    put_cell(out, "%.1f", row->flops * per);
    put_cell(out, "%.1f", row->bytes * per);
    if (row->floor > 0)
        put_cell(out, "%.1f&nbsp;%%", 100 * row->floor / row->seconds);
    else
        fputs("<td></td>", out);
    fputs("</tr>\n", out);
}

static const char *kernel_header(const PlanTarget *target, const char *name)
{
    for (int i = 0; i < target->n_kernels; i++)
        if (strcmp(target->kernels[i].name, name) == 0)
            return target->kernels[i].header;
    return "";
}

bool put_kernels(FILE *out, const Bench *bench, const BenchPlan *plan, bool steps, int most)
{
    const PlanTarget *target = plan_target(plan->plan, device_target(bench->device));
    int n;
    double total = 0;
    BenchRow *rows = bench_rows(bench, plan, steps, &n);
    if (!rows)
        return false;
    for (int i = 0; i < n; i++)
        total += rows[i].seconds;
    fprintf(out, "<table>\n<tr><th>%s</th>%s<th>ms</th><th>share</th><th>GFLOP/s</th><th>GB/s</th>"
            "<th>of ceiling</th></tr>\n", steps ? "step" : "kernel",
            steps ? "" : "<th>calls</th>");
    for (int i = 0; i < n && i < most; i++) {
        const char *header = steps ? "" : kernel_header(target, rows[i].name);
        fputs(*header ? "<tr><td><details><summary>" : "<tr><td>", out);
        put_html(out, steps ? rows[i].label : rows[i].name);
        if (*header) {
            fputs("</summary><pre>", out);
            put_html(out, header);
            fputs("</pre></details>", out);
        }
        fputs("</td>", out);
        if (!steps)
            put_cell(out, "%.0f", rows[i].calls);
        put_numbers(out, &rows[i], total);
    }
    fputs("</table>\n", out);
    free(rows);
    return true;
}

static bool put_tables(FILE *out, const Bench *bench)
{
    bool fine = true;
    fputs("<h2 id=\"kernels\">Kernels</h2>\n<p>The least of three runs of each step, slowest "
          "first. Open a row for the lines of the graph that the kernel computes.</p>\n", out);
    for (int i = 0; i < bench->n_plans; i++) {
        const BenchPlan *plan = &bench->plans[i];
        fputs("<h3>", out);
        put_html(out, plan->path);
        fputs("</h3>\n", out);
        fine = put_kernels(out, bench, plan, false, INT_MAX) && fine;
        fprintf(out, "<details><summary>All %d steps, in the order they run</summary>\n",
                plan->program->n_steps);
        fine = put_kernels(out, bench, plan, true, INT_MAX) && fine;
        fputs("</details>\n", out);
    }
    return fine;
}

/* ---- the page -------------------------------------------------------------------------------- */

static bool put_page(FILE *out, const Bench *bench)
{
    const BenchPlan *plan = &bench->plans[0];
    fputs("<h1>", out);
    put_html(out, plan->plan->model);
    fprintf(out, ": program %s, batch %d</h1>\n<p>", plan->program->name, bench->batch);
    put_html(out, device_describe(bench->device));
    fputs("</p>\n<nav><a href=\"#times\">Times</a> <a href=\"#roofline\">Roofline</a> "
          "<a href=\"#timeline\">Timeline</a> <a href=\"#memory\">Memory</a> "
          "<a href=\"#after\">Graph after fusion</a> <a href=\"#before\">Graph before fusion</a> "
          "<a href=\"#kernels\">Kernels</a></nav>\n<h2>Measured</h2>\n", out);
    put_measured(out, bench);
    put_pictures(out, bench);
    return put_graphs(out, bench) && put_tables(out, bench);
}

bool bench_write_page(const Bench *bench, const char *path, Error *error)
{
    const BenchPlan *plan = &bench->plans[0];
    char title[256];
    Page page;
    snprintf(title, sizeof title, "%.200s %.20s %d", plan->plan->model, plan->program->name,
             bench->batch);
    if (!page_open(&page, title, error))
        return false;
    bool fine = put_page(page.out, bench)
             || fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    return page_close(&page, path, fine, error);
}
