/* The sections of report_page.h. Texts from the run's files go through put_html. */
#include "report_page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_page.h"
#include "bench_pictures.h"
#include "plot.h"

enum { MOST_ROWS = 2000, OPEN_ROWS = 30, KERNELS = 12 };

static void put_fact(FILE *out, const char *name, const char *value)
{
    fputs("<div><dt>", out);
    put_html(out, name);
    fputs("</dt><dd>", out);
    put_html(out, value);
    fputs("</dd></div>\n", out);
}

static void put_text(FILE *out, const char *text)
{
    fputs("<pre>", out);
    put_html(out, text);
    fputs("</pre>\n", out);
}

/* ---- the run in short ------------------------------------------------------------------------ */

static const EpochRow *best_row(const RunFolder *run)
{
    const EpochRow *best = NULL;
    for (int i = 0; i < run->n_rows; i++)
        if (run->rows[i].best)
            best = &run->rows[i];
    return best;
}

static void put_short(FILE *out, const RunFolder *run)
{
    const EpochRow *best = best_row(run), *last = &run->rows[run->n_rows - 1];
    char text[64];
    double seconds = 0, images = 0;
    for (int i = 0; i < run->n_rows; i++) {
        seconds += run->rows[i].seconds;
        images += run->rows[i].seconds * run->rows[i].images_per_second;
    }
    fputs("<dl class=\"facts\">\n", out);
    snprintf(text, sizeof text, "%d", last->epoch);
    put_fact(out, "epochs", text);
    if (best) {
        snprintf(text, sizeof text, "%.4f", best->valid_dice);
        put_fact(out, "best valid Dice", text);
        snprintf(text, sizeof text, "%d", best->epoch);
        put_fact(out, "in epoch", text);
    }
    snprintf(text, sizeof text, "%.4f", last->valid_dice);
    put_fact(out, "last valid Dice", text);
    if (seconds > 0 && seconds < 1e9) {
        format_duration(seconds, text);
        put_fact(out, "time of the epochs", text);
        snprintf(text, sizeof text, "%.1f", images / seconds);
        put_fact(out, "training images/s", text);
    }
    fputs("</dl>\n", out);
}

void put_run(FILE *out, const RunFolder *run)
{
    fputs("<h1>", out);
    put_html(out, run->model);
    fputs(": a training run</h1>\n<p>", out);
    put_html(out, run->folder);
    fputs("</p>\n", out);
    if (run->n_rows > 0)
        put_short(out, run);
    else
        fputs("<p>No epoch of this run was finished, or its log.csv is not there.</p>\n", out);
}

void put_curves(FILE *out, const RunFolder *run)
{
    if (run->n_rows == 0)
        return;
    fputs("<h2 id=\"curves\">Curves</h2>\n", out);
    Canvas canvas = canvas_svg(CURVES_WIDTH, CURVES_HEIGHT, out);
    draw_curves(&canvas, "", run->rows, run->n_rows);
    canvas_close(&canvas, NULL, NULL);
    fputs("<p>Points of the train split are means over the epoch's batches as they were trained, "
          "so they lag behind; the valid split is scored after the epoch. The Dice is the first "
          "score of <code>segrun eval</code>: of each picture, then the mean over pictures.</p>\n", out);
}

/* ---- recipe, commands, files ----------------------------------------------------------------- */

void put_recipe(FILE *out, const RunFolder *run)
{
    const char *key;
    json_t *value;
    if (!run->recipe)
        return;
    fputs("<h2 id=\"recipe\">Recipe</h2>\n<p>As recipe.json has it; <code>--config</code> reads "
          "it.</p>\n<dl class=\"facts\">\n", out);
    json_object_foreach(run->recipe, key, value) {
        char number[32];
        char *text = json_is_string(value) ? strdup(json_string_value(value))
                   : json_is_real(value)   ? (snprintf(number, sizeof number, "%g",
                                                       json_real_value(value)), strdup(number))
                                           : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        put_fact(out, key, text ? text : "?");
        free(text);
    }
    fputs("</dl>\n", out);
}

static void put_checkpoints(FILE *out, const RunFolder *run)
{
    fputs("<h2 id=\"files\">Checkpoints</h2>\n<table>\n<tr><th>file</th><th>size</th></tr>\n", out);
    for (int i = 0; i < run->n_checkpoints; i++) {
        char size[16];
        format_bytes(run->checkpoints[i].bytes, size);
        fputs("<tr><td>", out);
        put_html(out, run->checkpoints[i].name);
        fprintf(out, "</td><td>%s</td></tr>\n", size);
    }
    fputs("</table>\n", out);
}

void put_files(FILE *out, const RunFolder *run)
{
    if (run->command) {
        fputs("<h2 id=\"commands\">Commands</h2>\n", out);
        put_text(out, run->command);
    }
    if (run->n_checkpoints > 0)
        put_checkpoints(out, run);
    if (run->text) {
        fputs("<h2 id=\"model\">Model</h2>\n<details><summary>The text of the network</summary>\n",
              out);
        put_text(out, run->text);
        fputs("</details>\n", out);
    }
}

void put_log(FILE *out, const RunFolder *run)
{
    if (run->n_rows == 0)
        return;
    int stride = (run->n_rows + MOST_ROWS - 1) / MOST_ROWS;
    fprintf(out, "<h2 id=\"log\">Log</h2>\n<details%s><summary>%d epochs", run->n_rows <= OPEN_ROWS
            ? " open" : "", run->n_rows);
    if (stride > 1)
        fprintf(out, ", one of %d shown", stride);
    fputs("</summary>\n<table>\n<tr><th>epoch</th><th>train loss</th><th>valid loss</th>"
          "<th>train Dice</th><th>valid Dice</th><th>best</th><th>seconds</th><th>images/s</th>"
          "<th>learning rate</th></tr>\n", out);
    for (int i = 0; i < run->n_rows; i += stride) {
        const EpochRow *row = &run->rows[i];
        fprintf(out, "<tr><td>%d</td>", row->epoch);
        put_cell(out, "%.4g", row->train_loss);
        put_cell(out, "%.4g", row->valid_loss);
        put_cell(out, "%.4f", row->train_dice);
        put_cell(out, "%.4f", row->valid_dice);
        fputs(row->best ? "<td>best</td>" : "<td></td>", out);
        put_cell(out, "%.1f", row->seconds);
        put_cell(out, "%.1f", row->images_per_second);
        put_cell(out, "%.3g", row->lr);
        fputs("</tr>\n", out);
    }
    fputs("</table></details>\n", out);
}

/* ---- scores and pictures --------------------------------------------------------------------- */

static bool put_sheet(FILE *out, Evaluation *evaluation, bool worst, int pictures, Error *error)
{
    int count = (int)evaluation->total.pictures, height, width;
    size_t size = 0;
    char title[64];
    int n = 2 * pictures <= count ? pictures : (count + 1) / 2;
    snprintf(title, sizeof title, "%s split: the %s %d of %d pictures",
             split_name(evaluation->split), worst ? "worst" : "best", n, count);
    Sheet *sheet = evaluation_sheet(evaluation, title, worst ? 0 : count - n, n, error);
    char *png = sheet ? sheet_png(sheet, &size, &height, &width, error) : NULL;
    if (png)
        put_png(out, title, png, size);
    if (sheet)
        sheet_close(sheet);
    free(png);
    return png != NULL;
}

/* A line a class, as eval prints them. */
static void put_classes(FILE *out, const Evaluation *evaluation)
{
    char *text = NULL;
    size_t size;
    FILE *lines = open_memstream(&text, &size);
    if (!lines)
        return;
    print_class_scores(&evaluation->total, evaluation->data, lines);
    if (fclose(lines) == 0)
        put_text(out, text);
    free(text);
}

bool put_scores(FILE *out, Evaluation *evaluation, int pictures, Error *error)
{
    ScoreLine lines[SCORE_LINES];
    int n = score_lines(&evaluation->total, evaluation->options, lines);
    fputs("<h3>", out);
    evaluation_describe(evaluation, out);
    fputs("</h3>\n<table>\n<tr><th>score</th><th>value</th><th class=\"t\">definition</th></tr>\n",
          out);
    for (int i = 0; i < n; i++) {
        fprintf(out, "<tr><td>%s</td>", lines[i].name);
        put_cell(out, "%.4f", lines[i].value);
        fputs("<td class=\"t\">", out);
        put_html(out, lines[i].definition);
        fputs("</td></tr>\n", out);
    }
    fputs("</table>\n", out);
    if (evaluation->total.n_classes > 1)
        put_classes(out, evaluation);
    return pictures == 0 || (put_sheet(out, evaluation, false, pictures, error)
                             && put_sheet(out, evaluation, true, pictures, error));
}

/* ---- kernels --------------------------------------------------------------------------------- */

bool put_times(FILE *out, const Bench *bench, Error *error)
{
    const BenchPlan *plan = &bench->plans[0];
    fprintf(out, "<h2 id=\"kernels\">Kernel times</h2>\n<p>Program %s, batch %d, on ",
            plan->program->name, bench->batch);
    put_html(out, device_describe(bench->device));
    fputs(". Random pictures; timed when this page was made.</p>\n", out);
    put_measured(out, bench);
    Canvas bars = canvas_svg(PICTURE_WIDTH, bars_height(bench), out);
    draw_bars(&bars, bench);
    canvas_close(&bars, NULL, NULL);
    fprintf(out, "<p>The %d slowest kernels, the least of three runs of each step. Open a row for "
            "the lines of the graph that it computes; <code>segrun bench --report</code> shows "
            "all.</p>\n", KERNELS);
    return put_kernels(out, bench, plan, false, KERNELS)
        || fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the profile");
}
