/* `segrun eval`: a split's scores, printed with their definitions, and written as CSV, JSON and a
 * sheet of pictures. What is scored and how is evaluate.c's.
 */
#include "commands.h"

#include <stdlib.h>
#include <string.h>

static bool write_csv(const char *path, const Evaluation *evaluation, Error *error)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    const bool several = evaluation->total.n_classes > 1;
    if (several)
        write_class_line(evaluation, NULL, out);
    else
        fputs("name,dice,iou,intersection_pixels,predicted_pixels,true_pixels,tta\n", out);
    for (int i = 0; i < evaluation->total.pictures; i++) {
        const PictureScore *score = &evaluation->scores[i];
        if (several)
            write_class_line(evaluation, score, out);
        else {
            write_csv_cell(dataset_name(evaluation->data, evaluation->split, score->index), out);
            fprintf(out, ",%.6f,%.6f,%lld,%lld,%lld,%s\n", score->dice, score->iou,
                    (long long)score->intersection, (long long)score->predicted,
                    (long long)score->truth, evaluation->options->tta);
        }
    }
    bool written = fclose(out) == 0 && file_write(path, text, size, error);
    free(text);
    return written;
}

static bool write_json(const Evaluation *evaluation, const Options *options, Error *error)
{
    const Scores *s = &evaluation->total;
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "plan",
                  evaluation->session.plan_path, "weights", options->weights, "split",
                  split_name(evaluation->split), "outline",
                  outline_word(evaluation->outline), "tta",
                  options->tta, "pictures",
                  (json_int_t)s->pictures, "batch", (json_int_t)options->batch, "threshold",
                  evaluation->threshold, "dice", s->dice, "iou", s->iou, "dice_all", s->dice_all,
                  "accuracy", s->accuracy, "soft_dice", s->soft_dice, "loss", s->loss);
    if (json && s->n_classes > 1) {
        json_object_del(json, "threshold");
        json_object_del(json, "soft_dice");
        json_object_set_new(json, "iou_all", json_real(s->iou_all));
        json_object_set_new(json, "classes", class_scores_json(s, evaluation->data));
    }
    return json_write(options->json, json, error);
}

static void print_scores(const Evaluation *evaluation)
{
    ScoreLine lines[SCORE_LINES];
    int n = score_lines(&evaluation->total, evaluation->options, lines);
    evaluation_describe(evaluation, stdout);
    putchar('\n');
    for (int i = 0; i < n; i++)
        printf("  %-14s  %.4f  %s\n", lines[i].name, lines[i].value, lines[i].definition);
    if (evaluation->total.n_classes > 1)
        print_class_scores(&evaluation->total, evaluation->data, stdout);
}

/* Scores, and the sheet where one is asked for. */
static bool score_and_draw(Evaluation *evaluation, Sheet **sheet, Error *error)
{
    const Options *options = evaluation->options;
    Split split = split_of(options->split);
    int count = dataset_count(evaluation->data, split);
    int pictures = count < options->count ? count : (int)options->count;
    bool worst = strcmp(options->plot, "worst") == 0;
    char title[256];
    snprintf(title, sizeof title, "%.80s, %s split: %s%d of %d pictures",
             evaluation->session.plan->model, split_name(split), worst ? "the worst " : "",
             pictures, count);
    if (strcmp(options->plot, "y") == 0
        && !(*sheet = sheet_of(evaluation->data, &evaluation->tensors, title, pictures, error)))
        return false;
    if (!evaluation_build(evaluation, error)
        || !evaluation_score(evaluation, split, *sheet, pictures, error))
        return false;
    print_scores(evaluation);
    return !worst || (*sheet = evaluation_sheet(evaluation, title, 0, pictures, error));
}

static bool evaluate(Evaluation *evaluation, const Options *options, Sheet **sheet, Error *error)
{
    if (!options->weights)
        return fail(error, EXIT_USAGE, "a checkpoint such as saved_models/unet.best.safetensors",
                    "--weights is required");
    if (!options->data)
        return fail(error, EXIT_USAGE, "the folder that holds images/ and annotations/",
                    "--data is required");
    Split split = split_of(options->split);
    if (!evaluation_open(evaluation, options, 1u << split, error))
        return false;
    if (dataset_count(evaluation->data, split) == 0)
        return fail(error, EXIT_USER, "", "%s: the %s split is empty", options->data,
                    split_name(split));
    if (!score_and_draw(evaluation, sheet, error)
        || (options->csv && !write_csv(options->csv, evaluation, error))
        || (*sheet && !sheet_write(*sheet, options->output, error)))
        return false;
    if (*sheet)
        progress_say(&evaluation->session.progress, "sheet: %s", options->output);
    return !options->json || write_json(evaluation, options, error);
}

int command_eval(const Options *options)
{
    Evaluation evaluation = { 0 };
    Sheet *sheet = NULL;
    Error error = { 0 };
    int code = evaluate(&evaluation, options, &sheet, &error) ? EXIT_FINE : report(&error);
    if (sheet)
        sheet_close(sheet);
    evaluation_close(&evaluation);
    return code;
}
