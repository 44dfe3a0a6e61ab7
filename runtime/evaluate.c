/* Scores of a network on a split, in every definition that people quote; what `segrun eval` and
 * `report` share.
 *
 * Everything follows from five numbers a picture (dice_sums in compiler/ops.def): A and B = pixels
 * predicted and true, |A and B|, sum p*t and sum p. They come from the model's own metric during
 * training and, where the threshold is the user's, from the probabilities. Sums are in double and
 * in the order of the list, so that the scores do not depend on threads. Of several classes the
 * numbers are others: evaluate_classes.c.
 */
#include "commands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SUMS = 5 };
static const double soft_smooth = 1e-6;

double dice_of(double intersection, double predicted, double truth)
{
    return predicted + truth > 0 ? 2 * intersection / (predicted + truth) : 1;
}

double iou_of(double intersection, double predicted, double truth)
{
    double together = predicted + truth - intersection;
    return together > 0 ? intersection / together : 1;
}

/* dice_sums of one picture on the host. */
static void sum_picture(const float *p, const uint8_t *t, int64_t pixels, double threshold,
                        double sums[SUMS])
{
    int64_t intersection = 0, predicted = 0, truth = 0;
    double products = 0, total = 0;
    for (int64_t i = 0; i < pixels; i++) {
        bool pet = (double)p[i] >= threshold;
        predicted += pet;
        truth += t[i];
        intersection += pet && t[i];
        products += t[i] ? (double)p[i] : 0;
        total += (double)p[i];
    }
    sums[0] = (double)intersection;
    sums[1] = (double)predicted;
    sums[2] = (double)truth;
    sums[3] = products;
    sums[4] = total;
}

/* What one call of evaluate_split works with. */
typedef struct {
    Session *session;
    Dataset *data;
    const EvaluateOptions *options;
    ProgramTensors tensors;
    bool from_metric;
    float *values;            /* of the metric or of the output, a batch */
    uint8_t *predicted;       /* of a picture: class numbers, or 0 and 1 */
    uint8_t *mirrored_images; /* --tta flip: a batch's, and what the network says of them */
    float *mirrored;
    double batch_sums[3];     /* soft Dice: sum p*t, sum p, sum t of this batch */
    double loss, dice, iou, correct, all[3], soft;
    ClassCount classes[MOST_CLASSES];
    int64_t pictures, batches, pixels;
    int64_t count;            /* of the pictures to come */
    int sheet_next;           /* pictures on the sheet so far */
} Scoring;

static bool is_on_sheet(const Scoring *scoring)
{
    int64_t places = scoring->options->sheet_pictures;
    return scoring->pictures * places >= scoring->sheet_next * scoring->count;
}

static void draw_picture(Scoring *scoring, const Batch *batch, int i, double dice)
{
    const EvaluateOptions *options = scoring->options;
    const int64_t pixels = scoring->pixels;
    const int index = batch->samples[i];
    if (!options->sheet || scoring->from_metric || !is_on_sheet(scoring))
        return;
    if (scoring->tensors.classes == 1)
        for (int64_t at = 0; at < pixels; at++)
            scoring->predicted[at] = (double)scoring->values[i * pixels + at] >= options->threshold;
    sheet_add(options->sheet, dataset_name(scoring->data, options->split, index),
              batch->images + 3 * i * pixels, batch->masks + i * pixels, scoring->predicted, dice);
    scoring->sheet_next++;
}

/* Of several classes: by the metric, or by the probabilities. */
static void score_picture_classes(Scoring *scoring, const Batch *batch, int i)
{
    const EvaluateOptions *options = scoring->options;
    const int classes = scoring->tensors.classes, index = batch->samples[i];
    const int64_t pixels = scoring->pixels;
    ClassCount counts[MOST_CLASSES];
    if (scoring->from_metric) {
        metric_counts(&scoring->tensors, scoring->values, batch->n, i, counts);
    } else {
        largest_classes(scoring->values + i * classes * pixels, classes, pixels,
                        scoring->predicted);
        count_classes(scoring->predicted, batch->masks + i * pixels, pixels, classes, counts);
    }
    PictureScore score = { .index = index };
    score_classes(counts, classes, &score.dice, &score.iou);
    scoring->dice += score.dice;
    scoring->iou += score.iou;
    for (int k = 0; k < classes; k++) {
        scoring->classes[k].both += counts[k].both;
        scoring->classes[k].predicted += counts[k].predicted;
        scoring->classes[k].truth += counts[k].truth;
        if (options->class_dice)
            options->class_dice[(int64_t)index * classes + k] = class_dice(&counts[k]);
    }
    if (options->scores)
        options->scores[scoring->pictures] = score;
    draw_picture(scoring, batch, i, score.dice);
    scoring->pictures++;
}

static void score_picture(Scoring *scoring, const Batch *batch, int i, const double sums[SUMS])
{
    const EvaluateOptions *options = scoring->options;
    double dice = dice_of(sums[0], sums[1], sums[2]), iou = iou_of(sums[0], sums[1], sums[2]);
    int index = batch->samples[i];
    scoring->dice += dice;
    scoring->iou += iou;
    scoring->correct += (double)scoring->pixels - (sums[1] + sums[2] - 2 * sums[0]);
    for (int k = 0; k < 3; k++)
        scoring->all[k] += sums[k];
    scoring->batch_sums[0] += sums[3];
    scoring->batch_sums[1] += sums[4];
    scoring->batch_sums[2] += sums[2];
    if (options->scores)
        options->scores[scoring->pictures] = (PictureScore){
            dice, iou, (int64_t)sums[0], (int64_t)sums[1], (int64_t)sums[2], index };
    draw_picture(scoring, batch, i, dice);
    scoring->pictures++;
}

/* --tta flip: the loss is still that of the pictures as they are. */
static bool average_mirrored(Scoring *scoring, const Batch *batch, Error *error)
{
    Executor *executor = scoring->session->executor;
    const ProgramTensors *tensors = &scoring->tensors;
    const PlanTensor *image = tensors->image;
    int64_t rows = batch->n * image->dims[1];
    int width = (int)image->dims[2];
    mirror_rows(batch->images, scoring->mirrored_images, 3 * rows, width);
    if (!executor_write(executor, tensors->name, image->name, scoring->mirrored_images, batch->n,
                        error)
        || !executor_run(executor, tensors->name, batch->n, error)
        || !executor_read(executor, tensors->name, tensors->output->name, scoring->mirrored,
                          batch->n, error))
        return false;
    add_mirrored(scoring->values, scoring->mirrored, tensors->classes * rows, width);
    return true;
}

static bool score_batch(Scoring *scoring, const Batch *batch, Error *error)
{
    Executor *executor = scoring->session->executor;
    const ProgramTensors *tensors = &scoring->tensors;
    const char *program = tensors->name;
    float loss;
    if (!executor_write(executor, program, tensors->image->name, batch->images, batch->n, error)
        || !executor_write(executor, program, tensors->mask->name, batch->masks, batch->n, error)
        || !executor_run(executor, program, batch->n, error)
        || !executor_read(executor, program, tensors->loss->name, &loss, batch->n, error)
        || !(scoring->from_metric
                 ? metric_read(executor, tensors, batch->n, scoring->values, error)
                 : executor_read(executor, program, tensors->output->name, scoring->values,
                                 batch->n, error))
        || (scoring->options->mirrors && !average_mirrored(scoring, batch, error)))
        return false;
    scoring->loss += (double)loss * batch->n;
    memset(scoring->batch_sums, 0, sizeof scoring->batch_sums);
    for (int i = 0; i < batch->n; i++) {
        double sums[SUMS];
        if (tensors->classes > 1) {
            score_picture_classes(scoring, batch, i);
            continue;
        }
        if (scoring->from_metric)
            for (int k = 0; k < SUMS; k++)
                sums[k] = (double)scoring->values[SUMS * i + k];
        else
            sum_picture(scoring->values + i * scoring->pixels, batch->masks + i * scoring->pixels,
                        scoring->pixels, scoring->options->threshold, sums);
        score_picture(scoring, batch, i, sums);
    }
    scoring->soft += (2 * scoring->batch_sums[0] + soft_smooth)
                     / (scoring->batch_sums[1] + scoring->batch_sums[2] + soft_smooth);
    scoring->batches++;
    return true;
}

static bool score_batches(Scoring *scoring, Loader *loader, Error *error)
{
    const EvaluateOptions *options = scoring->options;
    Progress *progress = &scoring->session->progress;
    char title[64], detail[64];
    int total = dataset_count(scoring->data, options->split);
    scoring->count = total;
    snprintf(title, sizeof title, "scoring %s", split_name(options->split));
    progress_start(progress, 0);
    Batch batch;
    while (loader_next(loader, &batch, error)) {
        if (batch.n == 0) {
            progress_clear(progress);
            return true;
        }
        if (interrupted())
            return fail(error, EXIT_INTERRUPTED, "", "interrupted while scoring");
        if (!score_batch(scoring, &batch, error))
            return false;
        snprintf(detail, sizeof detail, "Dice %.4f", scoring->dice / (double)scoring->pictures);
        progress_update(progress, title, scoring->pictures, total, "images", detail);
    }
    return false;
}

/* Of several classes, over those that are somewhere in the set. */
static Scores class_scores(const Scoring *scoring)
{
    const double n = (double)scoring->pictures;
    Scores scores = { .loss = scoring->loss / n, .dice = scoring->dice / n,
                      .iou = scoring->iou / n, .pictures = scoring->pictures,
                      .n_classes = scoring->tensors.classes };
    int64_t both = 0, all = 0;
    for (int k = 0; k < scores.n_classes; k++) {
        scores.classes[k] = scoring->classes[k];
        both += scores.classes[k].both;
        all += scores.classes[k].truth;
    }
    score_classes(scores.classes, scores.n_classes, &scores.dice_all, &scores.iou_all);
    scores.accuracy = all ? (double)both / (double)all : 1;
    return scores;
}

static Scores object_scores(const Scoring *scoring)
{
    const double n = (double)scoring->pictures;
    return (Scores){
        .loss = scoring->loss / n, .dice = scoring->dice / n, .iou = scoring->iou / n,
        .dice_all = dice_of(scoring->all[0], scoring->all[1], scoring->all[2]),
        .accuracy = scoring->correct / (n * (double)scoring->pixels),
        .soft_dice = scoring->soft / (double)scoring->batches, .pictures = scoring->pictures,
        .n_classes = 1,
    };
}

static bool allocate(Scoring *scoring, Error *error)
{
    const EvaluateOptions *options = scoring->options;
    int64_t outputs = scoring->pixels * scoring->tensors.classes, batch = options->batch;
    int64_t values = scoring->from_metric ? metric_numbers(&scoring->tensors) : outputs;
    scoring->values = malloc(sizeof(float) * (size_t)(values * batch));
    scoring->predicted = malloc((size_t)scoring->pixels);
    if (options->mirrors) {
        scoring->mirrored_images = malloc((size_t)(3 * scoring->pixels * batch));
        scoring->mirrored = malloc(sizeof(float) * (size_t)(outputs * batch));
    }
    return (scoring->values && scoring->predicted
            && (!options->mirrors || (scoring->mirrored_images && scoring->mirrored)))
        || fail(error, EXIT_ENVIRONMENT, "", "not enough memory to score");
}

/* What scoring batches takes; scoring_close in any case. */
static bool scoring_open(Scoring *scoring, Session *session, Dataset *data,
                         const EvaluateOptions *options, Error *error)
{
    *scoring = (Scoring){ .session = session, .data = data, .options = options };
    if (!session_tensors(session, "evaluate", true, &scoring->tensors, error))
        return false;
    const bool probabilities = options->mirrors || options->sheet
                            || (options->threshold >= 0 && scoring->tensors.classes == 1);
    scoring->from_metric = scoring->tensors.metric && !probabilities;
    const PlanTensor *image = scoring->tensors.image;
    scoring->pixels = image->dims[1] * image->dims[2];
    if (!scoring->from_metric && !scoring->tensors.output)
        return fail(error, EXIT_USER, "add a line such as `output probability = sigmoid(logits)`",
                    "%s: the model has no output [1, H, W] to score", session->plan_path);
    return allocate(scoring, error);
}

static void scoring_close(Scoring *scoring)
{
    free(scoring->values);
    free(scoring->predicted);
    free(scoring->mirrored_images);
    free(scoring->mirrored);
}

bool evaluate_split(Session *session, Dataset *data, const EvaluateOptions *options, Scores *scores,
                    Error *error)
{
    Scoring scoring;
    LoaderOptions wanted = { .split = options->split, .batch = options->batch,
                             .workers = options->workers };
    Loader *loader = NULL;
    bool scored = scoring_open(&scoring, session, data, options, error)
               && (loader = loader_open(data, &wanted, error))
               && score_batches(&scoring, loader, error);
    if (loader)
        loader_close(loader);
    scoring_close(&scoring);
    if (scored)
        *scores = scoring.tensors.classes > 1 ? class_scores(&scoring) : object_scores(&scoring);
    return scored;
}

/* ---- what eval and report share -------------------------------------------------------------- */

static void class_lines(const Scores *scores, ScoreLine lines[SCORE_LINES])
{
    const ScoreLine all[SCORE_LINES] = {
        { "Dice", scores->dice, "a picture's mean over the classes in it or predicted; mean" },
        { "IoU", scores->iou, "likewise" },
        { "Dice, classes", scores->dice_all, "2|A and B| / (|A|+|B|) over the set, mean of classes"
        },
        { "IoU, classes", scores->iou_all, "|A and B| / |A or B| over the set, mean of classes" },
        { "pixel accuracy", scores->accuracy, "pixels that are right, of those with a class" },
        { "loss", scores->loss, "the model's, mean over pictures" },
    };
    memcpy(lines, all, sizeof all);
}

int score_lines(const Scores *scores, const Options *options, ScoreLine lines[SCORE_LINES])
{
    const ScoreLine all[SCORE_LINES] = {
        { "Dice", scores->dice, "2|A and B| / (|A|+|B|) a picture (both empty: 1), mean" },
        { "IoU", scores->iou, "|A and B| / |A or B| a picture (both empty: 1), mean" },
        { "Dice, all", scores->dice_all, "2|A and B| / (|A|+|B|) over all pixels of the set" },
        { "pixel accuracy", scores->accuracy, "pixels that are right" },
        { "soft Dice", scores->soft_dice, "" },
        { "loss", scores->loss, "the model's, mean over pictures" },
    };
    memcpy(lines, all, sizeof all);
    snprintf(lines[4].definition, sizeof lines[4].definition,
             "(2 sum p*t + 1e-6) / (sum p + sum t + 1e-6) a batch of %lld, mean",
             (long long)options->batch);
    if (scores->n_classes > 1)
        class_lines(scores, lines);
    if (mirrors(options))
        snprintf(lines[5].definition, sizeof lines[5].definition,
                 "the model's, mean over pictures; of the pictures as they are");
    return SCORE_LINES;
}

const char *outline_word(Outline outline)
{
    static const char *const words[] = { "foreground", "background", "class" };
    return words[outline];
}

/* The outline rule of the training, where the weights say it and the user does not. */
static Outline outline_rule(const Options *options, const SafeTensors *weights)
{
    const char *text = checkpoint_value(weights, "outline_background");
    const Outline wanted = outline_of(options->outline);
    if (!text)
        return wanted;
    const Outline trained = strcmp(text, "1") == 0   ? OUTLINE_BACKGROUND
                          : strcmp(text, "2") == 0 ? OUTLINE_CLASS : OUTLINE_FOREGROUND;
    if (options->outline && trained != wanted)
        fprintf(stderr, "segrun: warning: trained with --outline %s, scored with the other rule\n",
                outline_word(trained));
    return options->outline ? wanted : trained;
}

bool evaluation_open(Evaluation *evaluation, const Options *options, unsigned splits, Error *error)
{
    Session *session = &evaluation->session;
    const ProgramTensors *tensors = &evaluation->tensors;
    evaluation->options = options;
    if (!session_open(session, options, error)
        || !session_tensors(session, "evaluate", true, &evaluation->tensors, error)
        || !check_threshold(options, tensors, error))
        return false;
    SafeTensors *file = weights_read(&evaluation->weights, session, error);
    if (!file)
        return false;
    evaluation->outline = outline_rule(options, file);
    evaluation->threshold = threshold_of(options, file);
    safetensors_close(file);
    if (!session_device(session, "evaluate", (int)options->batch, error))
        return false;
    evaluation->data = session_dataset(session, splits, evaluation->outline,
                                       (int)options->limit, tensors, error);
    return evaluation->data != NULL;
}

bool evaluation_build(Evaluation *evaluation, Error *error)
{
    return session_build(&evaluation->session, error)
        && weights_upload(&evaluation->weights, evaluation->session.executor, error);
}

static int worst_first(const void *a, const void *b)
{
    const PictureScore *x = a, *y = b;
    if (x->dice != y->dice)
        return x->dice < y->dice ? -1 : 1;
    return x->index - y->index;
}

static EvaluateOptions evaluate_options(const Evaluation *evaluation)
{
    const Options *options = evaluation->options;
    return (EvaluateOptions){
        .split = evaluation->split, .batch = (int)options->batch, .workers = (int)options->workers,
        .threshold = evaluation->threshold, .mirrors = mirrors(options),
    };
}

bool evaluation_score(Evaluation *evaluation, Split split, Sheet *sheet, int sheet_pictures,
                      Error *error)
{
    int count = dataset_count(evaluation->data, split);
    free(evaluation->scores);
    evaluation->split = split;
    free(evaluation->class_dice);
    const int classes = evaluation->tensors.classes;
    evaluation->scores = calloc((size_t)count + 1, sizeof *evaluation->scores);
    evaluation->class_dice =
        classes > 1 ? calloc((size_t)count + 1, (size_t)classes * sizeof(double)) : NULL;
    if (!evaluation->scores || (classes > 1 && !evaluation->class_dice))
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for %d scores", count);
    EvaluateOptions wanted = evaluate_options(evaluation);
    wanted.scores = evaluation->scores;
    wanted.class_dice = evaluation->class_dice;
    wanted.sheet = sheet;
    wanted.sheet_pictures = sheet_pictures;
    if (!evaluate_split(&evaluation->session, evaluation->data, &wanted, &evaluation->total, error))
        return false;
    qsort(evaluation->scores, (size_t)count, sizeof *evaluation->scores, worst_first);
    return true;
}

/* One after another, each as a batch of its own. */
static bool draw_pictures(Evaluation *evaluation, const EvaluateOptions *options, int first,
                          Error *error)
{
    Scoring scoring;
    bool drawn = scoring_open(&scoring, &evaluation->session, evaluation->data, options, error);
    scoring.count = options->sheet_pictures;
    for (int i = first; drawn && i < first + options->sheet_pictures; i++) {
        int index = evaluation->scores[i].index;
        Batch batch = { .n = 1, .samples = &index };
        drawn = dataset_load(evaluation->data, options->split, index, &batch.images, &batch.masks,
                             error)
             && score_batch(&scoring, &batch, error);
    }
    scoring_close(&scoring);
    return drawn;
}

Sheet *evaluation_sheet(Evaluation *evaluation, const char *title, int first, int count,
                        Error *error)
{
    EvaluateOptions wanted = evaluate_options(evaluation);
    wanted.batch = 1;
    wanted.sheet = sheet_of(evaluation->data, &evaluation->tensors, title, count, error);
    wanted.sheet_pictures = count;
    if (wanted.sheet && !draw_pictures(evaluation, &wanted, first, error)) {
        sheet_close(wanted.sheet);
        wanted.sheet = NULL;
    }
    return wanted.sheet;
}

void evaluation_describe(const Evaluation *evaluation, FILE *out)
{
    int64_t n = evaluation->total.pictures;
    const bool several = evaluation->tensors.classes > 1;
    fprintf(out, "%s split, %lld picture%s, ", split_name(evaluation->split), (long long)n,
            n == 1 ? "" : "s");
    if (several)
        fprintf(out, "%d classes, the most probable counts", evaluation->tensors.classes);
    else
        fprintf(out, "outline counts as %s, threshold %g",
                evaluation->outline == OUTLINE_BACKGROUND ? "background" : "pet",
                evaluation->threshold);
    fputs(mirrors(evaluation->options) ? ", tta flip" : "", out);
    int skipped = dataset_skipped(evaluation->data, evaluation->split);
    if (skipped > 0)
        fprintf(out, "; %d broken picture%s left out", skipped, skipped == 1 ? "" : "s");
}

void evaluation_close(Evaluation *evaluation)
{
    free(evaluation->scores);
    free(evaluation->class_dice);
    weights_close(&evaluation->weights);
    if (evaluation->data)
        dataset_close(evaluation->data);
    session_close(&evaluation->session);
}
