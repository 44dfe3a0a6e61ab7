/* Scores of several classes: everything follows from three numbers a class, the pixels that are
 * predicted as it, that are it, and that are both. Pixels without a class (255) are in none.
 *
 * Of a picture the score is the mean over the classes that it or its prediction holds, since a
 * class that is neither says nothing. Over the set a class's pixels of all pictures are counted
 * together, as the mean IoU of published results is.
 */
#include "commands.h"

#include <math.h>
#include <string.h>

void largest_classes(const float *probabilities, int classes, int64_t pixels, uint8_t *predicted)
{
    memset(predicted, 0, (size_t)pixels);
    for (int k = 1; k < classes; k++) {
        const float *p = probabilities + k * pixels;
        for (int64_t i = 0; i < pixels; i++)
            if (p[i] > probabilities[predicted[i] * pixels + i])
                predicted[i] = (uint8_t)k;
    }
}

void count_classes(const uint8_t *predicted, const uint8_t *truth, int64_t pixels, int classes,
                   ClassCount *counts)
{
    memset(counts, 0, (size_t)classes * sizeof *counts);
    for (int64_t i = 0; i < pixels; i++) {
        if (truth[i] >= classes)
            continue;
        counts[predicted[i]].predicted++;
        counts[truth[i]].truth++;
        counts[truth[i]].both += predicted[i] == truth[i];
    }
}

static bool is_anywhere(const ClassCount *count)
{
    return count->predicted + count->truth > 0;
}

double class_dice(const ClassCount *count)
{
    if (!is_anywhere(count))
        return NAN;
    return dice_of((double)count->both, (double)count->predicted, (double)count->truth);
}

static double class_iou(const ClassCount *count)
{
    return iou_of((double)count->both, (double)count->predicted, (double)count->truth);
}

void score_classes(const ClassCount *counts, int classes, double *dice, double *iou)
{
    double sums[2] = { 0, 0 };
    int n = 0;
    for (int k = 0; k < classes; k++)
        if (is_anywhere(&counts[k])) {
            sums[0] += class_dice(&counts[k]);
            sums[1] += class_iou(&counts[k]);
            n++;
        }
    *dice = n ? sums[0] / n : 1;
    *iou = n ? sums[1] / n : 1;
}

void print_class_scores(const Scores *scores, const Dataset *data, FILE *out)
{
    int64_t pixels = 0;
    int width = 14;
    for (int k = 0; k < scores->n_classes; k++) {
        int length = (int)strlen(dataset_class(data, k));
        width = length > width ? length : width;
        pixels += scores->classes[k].truth;
    }
    fprintf(out, "  %-*s  %6s  %6s  %s\n", width, "class", "Dice", "IoU",
            "part of the true pixels");
    for (int k = 0; k < scores->n_classes; k++) {
        const ClassCount *count = &scores->classes[k];
        fprintf(out, "  %-*s  ", width, dataset_class(data, k));
        if (is_anywhere(count))
            fprintf(out, "%.4f  %.4f  %.4f\n", class_dice(count), class_iou(count),
                    pixels ? (double)count->truth / (double)pixels : 0);
        else
            fprintf(out, "%6s  %6s  nowhere, and nowhere predicted\n", "-", "-");
    }
}

void write_csv_cell(const char *text, FILE *out)
{
    bool quoted = strpbrk(text, ",\"") != NULL;
    fputs(quoted ? "\"" : "", out);
    for (; *text; text++)
        fputs(*text == '"' ? "\"\"" : (char[]){ *text, '\0' }, out);
    fputs(quoted ? "\"" : "", out);
}

void write_class_line(const Evaluation *evaluation, const PictureScore *score, FILE *out)
{
    const int classes = evaluation->total.n_classes;
    if (!score) {
        fputs("name,dice,iou", out);
        for (int k = 0; k < classes; k++) {
            fputc(',', out);
            write_csv_cell(dataset_class(evaluation->data, k), out);
        }
        fputs(",tta\n", out);
        return;
    }
    write_csv_cell(dataset_name(evaluation->data, evaluation->split, score->index), out);
    fprintf(out, ",%.6f,%.6f", score->dice, score->iou);
    for (int k = 0; k < classes; k++) {
        double dice = evaluation->class_dice[(int64_t)score->index * classes + k];
        fprintf(out, isnan(dice) ? "," : ",%.6f", dice);
    }
    fprintf(out, ",%s\n", evaluation->options->tta);
}

json_t *class_scores_json(const Scores *scores, const Dataset *data)
{
    json_t *all = json_object();
    for (int k = 0; k < scores->n_classes; k++) {
        const ClassCount *count = &scores->classes[k];
        json_t *one = json_pack(
            "{s:f, s:f, s:I, s:I, s:I}", "dice", is_anywhere(count) ? class_dice(count) : 1, "iou",
            class_iou(count), "both_pixels", (json_int_t)count->both, "predicted_pixels",
            (json_int_t)count->predicted, "true_pixels", (json_int_t)count->truth);
        json_object_set_new(all, dataset_class(data, k), one);
    }
    return all;
}
