/* `segrun predict`: masks for pictures of any size, and of folders of them (pictures.c); of several
 * classes they are written by predict_classes.c.
 *
 * Pictures go through in batches: decoded and resized as for training on all processors, run, and
 * the probabilities brought back to each picture's own size before they meet the threshold, so that
 * an edge is as smooth as the picture allows. Names are decided before anything is written: two
 * pictures never share one. Their folders are made as they are needed.
 */
#include "commands.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* One place in a batch. */
typedef struct {
    const Picture *picture;
    Image image;
    bool decoded;
    uint8_t *planes;             /* [3][H][W] at the model's size */
    const float *probability;    /* [H][W] at the model's size, or [K][H][W] */
    Error error;
} Slot;

typedef struct {
    const Options *options;
    Session session;
    ProgramTensors tensors;
    PictureList list;
    Slot *slots;
    uint8_t *planes;
    float *probabilities;
    float *mirrored;             /* --tta flip: of the mirrored pictures; else NULL */
    int width, height;
    int done, left_out;
    Weights weights;
    double threshold;
} Prediction;

/* ---- a batch ---- */

static void decode_slot(void *context, int index)
{
    Prediction *prediction = context;
    Slot *slot = &prediction->slots[index];
    int width = prediction->width, height = prediction->height;
    slot->decoded = false;
    slot->error = (Error){ 0 };
    if (!image_read(slot->picture->path, IMAGE_RGB, &slot->image, &slot->error))
        return;
    uint8_t *small = malloc(3 * (size_t)width * (size_t)height);
    if (small
        && resize_bilinear(slot->image.pixels, slot->image.width, slot->image.height, 3, small,
                           width, height)) {
        image_to_planes(small, width, height, slot->planes);
        slot->decoded = true;
    } else {
        image_close(&slot->image);
        fail(&slot->error, EXIT_ENVIRONMENT, "", "%s: not enough memory", slot->picture->path);
    }
    free(small);
}

/* The picture with the pet tinted and its edge drawn; in place. */
static void tint(uint8_t *rgb, const uint8_t *mask, int width, int height)
{
    static const int tone[3] = { 255, 64, 32 };
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            size_t i = (size_t)y * (size_t)width + (size_t)x;
            if (!mask[i])
                continue;
            bool edge = (x > 0 && !mask[i - 1]) || (x + 1 < width && !mask[i + 1])
                        || (y > 0 && !mask[i - (size_t)width])
                        || (y + 1 < height && !mask[i + (size_t)width]);
            for (int c = 0; c < 3; c++)
                rgb[3 * i + (size_t)c] =
                    (uint8_t)(edge ? tone[c] : (rgb[3 * i + (size_t)c] * 11 + tone[c] * 9) / 20);
        }
}

/* Writes PICTURE.KIND.png below the output folder. */
static bool write_result(const Prediction *prediction, Slot *slot, const char *kind,
                         const uint8_t *pixels, int channels)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s.%s.png", prediction->options->output,
                 slot->picture->name, kind) >= (int)sizeof path)
        return fail(&slot->error, EXIT_USER, "use a shorter name",
                    "cannot write %.200s...: the name is too long", path);
    return image_write_png(path, pixels, slot->image.width, slot->image.height, channels,
                           &slot->error);
}

static bool write_files(const Prediction *prediction, Slot *slot, float *full, uint8_t *grey)
{
    int width = slot->image.width, height = slot->image.height;
    size_t pixels = (size_t)width * (size_t)height;
    for (size_t i = 0; i < pixels; i++) {
        float p = full[i] < 0 ? 0 : full[i] > 1 ? 1 : full[i];
        grey[i] = (uint8_t)(p * 255 + 0.5f);
    }
    if (!write_result(prediction, slot, "probability", grey, 1))
        return false;
    for (size_t i = 0; i < pixels; i++)
        grey[i] = (double)full[i] >= prediction->threshold ? 255 : 0;
    if (prediction->options->largest && !keep_largest_component(grey, width, height))
        return fail(&slot->error, EXIT_ENVIRONMENT, "", "%s: not enough memory",
                    slot->picture->path);
    if (!write_result(prediction, slot, "mask", grey, 1))
        return false;
    tint(slot->image.pixels, grey, width, height);
    return write_result(prediction, slot, "overlay", slot->image.pixels, 3);
}

/* The folder of a picture's results, where it is another than that of the one before. */
static bool make_folder(const Prediction *prediction, const Picture *picture,
                        const Picture *before, Error *error)
{
    const char *slash = strrchr(picture->name, '/');
    const char *old = before ? strrchr(before->name, '/') : NULL;
    size_t length = slash ? (size_t)(slash - picture->name) : 0;
    if (!slash || (old && (size_t)(old - before->name) == length
                   && strncmp(before->name, picture->name, length) == 0))
        return true;
    char *folder = NULL;
    bool made = asprintf(&folder, "%s/%.*s", prediction->options->output, (int)length,
                         picture->name) >= 0
              ? folder_make(folder, error) : fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    free(folder);
    return made;
}

static void write_slot_classes(const Prediction *prediction, Slot *slot)
{
    predict_write_classes(&(ClassPicture){
        .folder = prediction->options->output, .name = slot->picture->name, .image = &slot->image,
        .probabilities = slot->probability, .classes = prediction->tensors.classes,
        .width = prediction->width, .height = prediction->height,
        .largest = prediction->options->largest }, &slot->error);
    image_close(&slot->image);
}

static void write_slot(void *context, int index)
{
    Prediction *prediction = context;
    Slot *slot = &prediction->slots[index];
    if (!slot->decoded)
        return;
    if (prediction->tensors.classes > 1) {
        write_slot_classes(prediction, slot);
        return;
    }
    size_t pixels = (size_t)slot->image.width * (size_t)slot->image.height;
    float *full = malloc(pixels * sizeof *full);
    uint8_t *grey = malloc(pixels);
    if (full && grey && resize_float(slot->probability, prediction->width, prediction->height, full,
                                     slot->image.width, slot->image.height))
        write_files(prediction, slot, full, grey);
    else
        fail(&slot->error, EXIT_ENVIRONMENT, "", "%s: not enough memory", slot->picture->path);
    free(full);
    free(grey);
    image_close(&slot->image);
}

static bool run_planes(Prediction *prediction, int n, float *probabilities, Error *error)
{
    Executor *executor = prediction->session.executor;
    const ProgramTensors *tensors = &prediction->tensors;
    return executor_write(executor, "predict", tensors->image->name, prediction->planes, n, error)
        && executor_run(executor, "predict", n, error)
        && executor_read(executor, "predict", tensors->output->name, probabilities, n, error);
}

/* The decoded pictures are moved to the front of the batch, run, and handed back to their slots. */
static bool run_batch(Prediction *prediction, int n, Error *error)
{
    size_t pixels = (size_t)prediction->width * (size_t)prediction->height;
    size_t outputs = pixels * (size_t)prediction->tensors.classes;
    int good = 0;
    for (int i = 0; i < n; i++) {
        Slot *slot = &prediction->slots[i];
        if (!slot->decoded)
            continue;
        if (good != i)
            memmove(prediction->planes + 3 * pixels * (size_t)good, slot->planes, 3 * pixels);
        slot->probability = prediction->probabilities + outputs * (size_t)good++;
    }
    if (good == 0)
        return true;
    if (!run_planes(prediction, good, prediction->probabilities, error))
        return false;
    if (!prediction->mirrored)
        return true;
    int64_t rows = (int64_t)good * prediction->height;
    mirror_rows(prediction->planes, prediction->planes, 3 * rows, prediction->width);
    if (!run_planes(prediction, good, prediction->mirrored, error))
        return false;
    add_mirrored(prediction->probabilities, prediction->mirrored,
                 prediction->tensors.classes * rows, prediction->width);
    return true;
}

/* Errors of the slots, in order: the first that is not to be left out ends the run. */
static bool check_slots(Prediction *prediction, int n, bool decoding, Error *error)
{
    bool skip = strcmp(prediction->options->on_bad, "skip") == 0;
    for (int i = 0; i < n; i++) {
        Slot *slot = &prediction->slots[i];
        if (!slot->error.text[0] || (!decoding && !slot->decoded))
            continue;
        if (!decoding || !skip || slot->error.code != EXIT_USER) {
            *error = slot->error;
            if (decoding && !error->hint[0] && !skip)
                snprintf(error->hint, sizeof error->hint, "--on-bad skip goes on without it");
            return false;
        }
        progress_clear(&prediction->session.progress);
        fprintf(stderr, "segrun: warning: left out: %s\n", slot->error.text);
        prediction->left_out++;
    }
    return true;
}

static void close_slots(Prediction *prediction, int n)
{
    for (int i = 0; i < n; i++)
        if (prediction->slots[i].decoded)
            image_close(&prediction->slots[i].image);
}

static bool predict_all(Prediction *prediction, Error *error)
{
    Progress *progress = &prediction->session.progress;
    const PictureList *list = &prediction->list;
    progress_start(progress, 0);
    for (int first = 0; first < list->n;) {
        if (interrupted())
            return fail(error, EXIT_INTERRUPTED, "", "interrupted after %d of %d pictures", first,
                        list->n);
        int n = list->n - first < prediction->options->batch ? list->n - first
                                                             : (int)prediction->options->batch;
        for (int i = 0; i < n; i++) {
            prediction->slots[i].picture = &list->pictures[first + i];
            prediction->slots[i].planes = prediction->planes
                + 3 * (size_t)prediction->width * (size_t)prediction->height * (size_t)i;
        }
        parallel_for(n, 0, decode_slot, prediction, NULL, NULL);
        if (!check_slots(prediction, n, true, error) || !run_batch(prediction, n, error)) {
            close_slots(prediction, n);
            return false;
        }
        for (int i = 0; i < n; i++)
            if (!make_folder(prediction, &list->pictures[first + i],
                             first + i ? &list->pictures[first + i - 1] : NULL, error)) {
                close_slots(prediction, n);
                return false;
            }
        parallel_for(n, 0, write_slot, prediction, NULL, NULL);
        if (!check_slots(prediction, n, false, error))
            return false;
        first += n;
        prediction->done = first;
        progress_update(progress, "predicting", first, list->n, "pictures", "");
    }
    progress_clear(progress);
    return true;
}

static bool allocate(Prediction *prediction, Error *error)
{
    const Options *options = prediction->options;
    const PlanTensor *image = prediction->tensors.image;
    prediction->height = (int)image->dims[1];
    prediction->width = (int)image->dims[2];
    size_t values = (size_t)image->dims[1] * (size_t)image->dims[2] * (size_t)options->batch;
    size_t outputs = values * (size_t)prediction->tensors.classes;
    prediction->slots = calloc((size_t)options->batch, sizeof *prediction->slots);
    prediction->planes = malloc(3 * values);
    prediction->probabilities = malloc(outputs * sizeof(float));
    if (mirrors(options))
        prediction->mirrored = malloc(outputs * sizeof(float));
    return (prediction->slots && prediction->planes && prediction->probabilities
            && (!mirrors(options) || prediction->mirrored))
        || fail(error, EXIT_ENVIRONMENT, "", "not enough memory for a batch");
}

/* What the numbers in the masks stand for. */
static void say_class_colours(Prediction *prediction, const char *names)
{
    for (int k = 0; names && prediction->tensors.classes > 1 && *names; k++) {
        int length = (int)strcspn(names, "\n");
        progress_say(&prediction->session.progress, "class  %3d %.*s, #%06x", k, length, names,
                     class_colour(k));
        names += length + (names[length] == '\n');
    }
}

static bool read_weights(Prediction *prediction, Error *error)
{
    SafeTensors *file = weights_read(&prediction->weights, &prediction->session, error);
    if (!file)
        return false;
    prediction->threshold = threshold_of(prediction->options, file);
    say_class_colours(prediction, checkpoint_value(file, "classes"));
    safetensors_close(file);
    return true;
}

static bool prepare(Prediction *prediction, Error *error)
{
    const Options *options = prediction->options;
    Session *session = &prediction->session;
    if (!options->weights)
        return fail(error, EXIT_USAGE, "a checkpoint such as saved_models/unet.best.safetensors",
                    "--weights is required");
    if (!pictures_list(&prediction->list, options->operands + 1, options->n_operands - 1,
                       options->output, error))
        return false;
    if (!session_open(session, options, error)
        || !session_tensors(session, "predict", false, &prediction->tensors, error))
        return false;
    if (!prediction->tensors.output)
        return fail(error, EXIT_USER, "add a line such as `output probability = sigmoid(logits)`",
                    "%s: the model has no output [1, H, W] of the input's size",
                    session->plan_path);
    return check_threshold(options, &prediction->tensors, error)
        && read_weights(prediction, error) && folder_make(options->output, error)
        && session_device(session, "predict", (int)options->batch, error)
        && allocate(prediction, error) && session_build(session, error)
        && weights_upload(&prediction->weights, session->executor, error);
}

static void print_done(const Prediction *prediction, double rate)
{
    const PictureList *list = &prediction->list;
    int good = prediction->done - prediction->left_out;
    printf("%d picture%s to %s/ (mask, probability, overlay), %.1f images/s", good,
           good == 1 ? "" : "s", prediction->options->output, rate);
    printf(prediction->left_out ? "; %d left out\n" : "\n", prediction->left_out);
    if (list->hidden + list->others + list->links > 0)
        printf("passed over: %d hidden, %d no picture, %d link%s to a folder\n", list->hidden,
               list->others, list->links, list->links == 1 ? "" : "s");
}

int command_predict(const Options *options)
{
    Prediction prediction = { .options = options };
    Error error = { 0 };
    bool predicted = prepare(&prediction, &error);
    double begun = now_seconds();
    predicted = predicted && predict_all(&prediction, &error);
    progress_clear(&prediction.session.progress);
    int good = prediction.done - prediction.left_out;
    if (predicted && good == 0)
        predicted = fail(&error, EXIT_USER, "", prediction.done == 1
                             ? "the picture could not be read"
                             : "none of the %d pictures could be read", prediction.done);
    if (predicted && !options->quiet)
        print_done(&prediction, good / (now_seconds() - begun));
    int code = predicted ? EXIT_FINE : report(&error);
    pictures_close(&prediction.list);
    free(prediction.slots);
    free(prediction.planes);
    free(prediction.probabilities);
    free(prediction.mirrored);
    weights_close(&prediction.weights);
    session_close(&prediction.session);
    return code;
}
