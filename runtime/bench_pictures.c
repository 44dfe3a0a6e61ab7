/* The pictures of bench_pictures.h.
 *
 * A step's kind is told from the first word of its label, which is its operator. Times are the least
 * of a profile's runs. The roofline is that of Williams, Waterman and Patterson (2009): the rate of
 * a step over its operations a byte, below the lines that memory and arithmetic allow. Operations
 * and bytes are by definition, so that Winograd, and what lies in caches, can stand above.
 */
#include "bench_pictures.h"

#include <math.h>
#include <string.h>

const StepKind step_kinds[] = {
    { "convolution", { 0.12, 0.38, 0.72 } },
    { "gradient of input", { 0.40, 0.65, 0.90 } },
    { "gradient of weight", { 0.42, 0.24, 0.60 } },
    { "packing of weights", { 0.60, 0.60, 0.60 } },
    { "normalisation", { 0.17, 0.60, 0.30 } },
    { "pooling, resizing", { 0.70, 0.52, 0.16 } },
    { "elementwise, sums", { 0.85, 0.37, 0.05 } },
    { "optimiser", { 0.80, 0.15, 0.25 } },
};
const int n_step_kinds = sizeof step_kinds / sizeof *step_kinds;
enum { CONVOLUTION, INPUT_GRADIENT, WEIGHT_GRADIENT, PACKING, NORMALISATION, WINDOWS, ELEMENTWISE,
       OPTIMISER };

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

const StepKind *step_kind(const PlanStep *step)
{
    const char *label = step->label;
    int kind = ELEMENTWISE;
    if (begins(label, "adam"))
        kind = OPTIMISER;
    else if (begins(label, "conv") || begins(label, "linear"))
        kind = strstr(label, " pack") ? PACKING : strstr(label, "_grad_input") ? INPUT_GRADIENT
             : strstr(label, "_grad_weight") ? WEIGHT_GRADIENT : CONVOLUTION;
    else if (begins(label, "batch_") || begins(label, "running_") || begins(label, "fold_"))
        kind = NORMALISATION;
    else if (strstr(label, "pool") || begins(label, "upsample") || begins(label, "pad")
             || begins(label, "crop"))
        kind = WINDOWS;
    return &step_kinds[kind];
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- roofline -------------------------------------------------------------------------------- */

typedef struct {
    Canvas *canvas;
    double x, y, width, height;
    double left, right, low, high;   /* powers of ten */
} LogPlane;

static double plane_x(const LogPlane *plane, double value)
{
    return plane->x + plane->width * (log10(value) - plane->left) / (plane->right - plane->left);
}

static double plane_y(const LogPlane *plane, double value)
{
    double part = (log10(value) - plane->low) / (plane->high - plane->low);
    return plane->y + plane->height * (1 - fmin(fmax(part, 0), 1));
}

static void draw_plane(const LogPlane *plane)
{
    char text[32];
    for (double i = plane->left; i <= plane->right; i++) {
        double x = plane_x(plane, pow(10, i));
        draw_line(plane->canvas, x, plane->y, x, plane->y + plane->height, 1, faint);
        snprintf(text, sizeof text, "%g", pow(10, i));
        draw_label(plane->canvas, x, plane->y + plane->height + 18, 12, 0.5, ink, text);
    }
    for (double i = plane->low; i <= plane->high; i++) {
        double y = plane_y(plane, pow(10, i));
        draw_line(plane->canvas, plane->x, y, plane->x + plane->width, y, 1, faint);
        snprintf(text, sizeof text, "%g", pow(10, i));
        draw_label(plane->canvas, plane->x - 8, y + 4, 12, 1, ink, text);
    }
    draw_label(plane->canvas, plane->x + plane->width / 2, plane->y + plane->height + 38, 13, 0.5,
               ink, "operations a byte");
    draw_label(plane->canvas, plane->x - 40, plane->y - 12, 13, 0, ink, "GFLOP/s");
}

static void draw_ceiling(const LogPlane *plane, const DeviceCeiling *ceiling)
{
    char text[64];
    double flops = 1e-9 * ceiling->flops, bytes = 1e-9 * ceiling->bytes;
    if (flops <= 0)
        return;
    double right = pow(10, plane->right), ridge = bytes > 0 ? flops / bytes : pow(10, plane->left);
    double from = fmax(pow(10, plane->left), pow(10, plane->low) / fmax(bytes, 1e-9));
    if (bytes > 0)
        draw_line(plane->canvas, plane_x(plane, from), plane_y(plane, from * bytes),
                  plane_x(plane, ridge), plane_y(plane, flops), 2, ink);
    draw_line(plane->canvas, plane_x(plane, ridge), plane_y(plane, flops), plane_x(plane, right),
              plane_y(plane, flops), 2, ink);
    snprintf(text, sizeof text, "%.0f GFLOP/s, %.1f GB/s", flops, bytes);
    draw_label(plane->canvas, plane_x(plane, right) - 6, plane_y(plane, flops) - 6, 12, 1, ink,
               text);
}

static double total_time(const BenchPlan *plan)
{
    double total = 0;
    for (int i = 0; i < plan->program->n_steps; i++)
        total += plan->step_times[i];
    return total > 0 ? total : 1e-30;
}

static void draw_kinds(Canvas *canvas, double x, double y)
{
    for (int i = 0; i < n_step_kinds; i++) {
        draw_box(canvas, x + i % 4 * 170, y + i / 4 * 18, 11, 11, step_kinds[i].colour, NULL);
        draw_label(canvas, x + 16 + i % 4 * 170, y + 10 + i / 4 * 18, 12, 0, ink,
                   step_kinds[i].name);
    }
}

void draw_roofline(Canvas *canvas, const Bench *bench)
{
    const BenchPlan *plan = &bench->plans[0];
    LogPlane plane = { canvas, 70, 80, PICTURE_WIDTH - 100, ROOFLINE_HEIGHT - 135, -2, 4, -1, 4 };
    DeviceCeiling ceiling = bench_best_ceiling(bench);
    double total = total_time(plan);
    char title[400];
    plane.high = ceil(log10(fmax(3e-9 * ceiling.flops, 100)));
    snprintf(title, sizeof title, "%.60s: %.40s, batch %d: each step; area: its share of the time",
             base_name(plan->path), plan->program->name, bench->batch);
    draw_label(canvas, PICTURE_WIDTH / 2.0, 20, 14, 0.5, ink, title);
    draw_kinds(canvas, 210, 30);
    draw_plane(&plane);
    draw_ceiling(&plane, &ceiling);
    for (int i = 0; i < plan->program->n_steps; i++) {
        const PlanStep *step = &plan->program->steps[i];
        double seconds = plan->step_times[i], flops = step_flops(step, bench->batch);
        double bytes = step_bytes(step, bench->batch);
        if (seconds <= 0 || flops <= 0 || bytes <= 0)
            continue;
        snprintf(title, sizeof title, "%.150s\n%.3f ms, %.1f GFLOP/s, %.1f GB/s", step->label,
                 1e3 * seconds, 1e-9 * flops / seconds, 1e-9 * bytes / seconds);
        double x = fmin(fmax(flops / bytes, pow(10, plane.left)), pow(10, plane.right));
        draw_dot(canvas, plane_x(&plane, x), plane_y(&plane, 1e-9 * flops / seconds),
                 2 + 60 * sqrt(seconds / total / M_PI), step_kind(step)->colour, title);
    }
}

/* ---- bars ------------------------------------------------------------------------------------ */

enum { BAR = 34, BARS_TOP = 90, BARS_LEFT = 190, BARS_WIDTH = PICTURE_WIDTH - 400 };

double bars_height(const Bench *bench)
{
    return BARS_TOP + bench->n_plans * (BAR + 18) + 45;
}

/* The kinds' parts of the profile, stretched to the median of the timings. */
static void draw_bar(Canvas *canvas, const Bench *bench, int number, double pixels_a_second)
{
    const BenchPlan *plan = &bench->plans[number];
    Spread time = spread_of(plan->times, bench->n_times);
    double total = total_time(plan), x = BARS_LEFT, y = BARS_TOP + number * (BAR + 18);
    char text[200];
    for (int k = 0; k < n_step_kinds; k++) {
        double seconds = 0;
        for (int i = 0; i < plan->program->n_steps; i++)
            if (step_kind(&plan->program->steps[i]) == &step_kinds[k])
                seconds += plan->step_times[i];
        double width = seconds / total * time.median * pixels_a_second;
        snprintf(text, sizeof text, "%s: %.3f ms, %.1f %%", step_kinds[k].name,
                 1e3 * seconds / total * time.median, 100 * seconds / total);
        draw_box(canvas, x, y, width, BAR, step_kinds[k].colour, text);
        x += width;
    }
    double low = BARS_LEFT + time.low * pixels_a_second;
    double high = BARS_LEFT + time.high * pixels_a_second;
    draw_line(canvas, low, y + BAR + 5, high, y + BAR + 5, 3, ink);
    snprintf(text, sizeof text, "%.26s", base_name(plan->path));
    draw_label(canvas, BARS_LEFT - 10, y + BAR / 2.0 + 4, 13, 1, ink, text);
    snprintf(text, sizeof text, "%.2f ms, %.2f GB", 1e3 * time.median, 1e-9 * plan->bytes);
    draw_label(canvas, fmax(x, high) + 10, y + 14, 13, 0, ink, text);
    if (number == 0)
        return;
    Spread ratio = bench_ratio(bench, number);
    snprintf(text, sizeof text, "%.2f times (%.2f to %.2f)", ratio.median, ratio.low, ratio.high);
    draw_label(canvas, fmax(x, high) + 10, y + 30, 13, 0, ink, text);
}

void draw_bars(Canvas *canvas, const Bench *bench)
{
    double longest = 0;
    char text[160];
    for (int i = 0; i < bench->n_plans; i++)
        longest = fmax(longest, spread_of(bench->plans[i].times, bench->n_times).high);
    snprintf(text, sizeof text, "%.40s, %.40s, batch %d: time of a run, by kinds of steps",
             bench->plans[0].plan->model, bench->plans[0].program->name, bench->batch);
    draw_label(canvas, PICTURE_WIDTH / 2.0, 20, 14, 0.5, ink, text);
    draw_kinds(canvas, 210, 34);
    for (int i = 0; i < bench->n_plans; i++)
        draw_bar(canvas, bench, i, BARS_WIDTH / fmax(longest, 1e-30));
    draw_label(canvas, BARS_LEFT, bars_height(bench) - 18, 12, 0, grey,
               "medians of runs in turn; the line below a bar: their middle half");
}

/* ---- timeline -------------------------------------------------------------------------------- */

enum { LANE = 24, TIMELINE_TOP = 34, TIMELINE_LEFT = 150 };

double timeline_height(void)
{
    return TIMELINE_TOP + n_step_kinds * LANE + 30;
}

void draw_timeline(Canvas *canvas, const Bench *bench, const BenchPlan *plan)
{
    double total = total_time(plan), width = PICTURE_WIDTH - TIMELINE_LEFT - 30, at = 0;
    double bottom = TIMELINE_TOP + n_step_kinds * LANE, step = tick_step(1e3 * total, 10);
    char text[300];
    snprintf(text, sizeof text, "%.60s: %.40s, batch %d: %d steps in %.2f ms",
             base_name(plan->path), plan->program->name, bench->batch, plan->program->n_steps,
             1e3 * total);
    draw_label(canvas, PICTURE_WIDTH / 2.0, 20, 14, 0.5, ink, text);
    for (double tick = 0; tick <= 1e3 * total; tick += step) {
        double x = TIMELINE_LEFT + width * tick / (1e3 * total);
        draw_line(canvas, x, TIMELINE_TOP, x, bottom, 1, faint);
        snprintf(text, sizeof text, "%g ms", tick);
        draw_label(canvas, x, bottom + 18, 12, 0.5, ink, text);
    }
    for (int k = 0; k < n_step_kinds; k++)
        draw_label(canvas, TIMELINE_LEFT - 8, TIMELINE_TOP + k * LANE + 16, 12, 1, ink,
                   step_kinds[k].name);
    for (int i = 0; i < plan->program->n_steps; i++) {
        const StepKind *kind = step_kind(&plan->program->steps[i]);
        double seconds = plan->step_times[i];
        snprintf(text, sizeof text, "step %d: %.150s\n%.3f ms, %.1f %%", i,
                 plan->program->steps[i].label, 1e3 * seconds, 100 * seconds / total);
        if (seconds > 0)
            draw_box(canvas, TIMELINE_LEFT + width * at / total,
                     TIMELINE_TOP + (double)(kind - step_kinds) * LANE + 2,
                     fmax(width * seconds / total, 0.3), LANE - 4, kind->colour, text);
        at += seconds;
    }
}
