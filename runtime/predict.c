/* `segrun predict`: masks for pictures of any size.
 *
 * Pictures go through in batches: decoded and resized as for training on all processors, run, and
 * the probabilities brought back to each picture's own size before they meet the threshold, so that
 * an edge is as smooth as the picture allows. Names are decided before anything is written: two
 * pictures never share one.
 */
#include "commands.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

typedef struct { char *path, *name; } Job;      /* a picture, and what its files are called */
typedef struct { Job *jobs; int n, capacity; } JobList;

/* One place in a batch. */
typedef struct {
    const Job *job;
    Image image;
    bool decoded;
    uint8_t *planes;             /* [3][H][W] at the model's size */
    const float *probability;    /* [H][W] at the model's size */
    Error error;
} Slot;

typedef struct {
    const Options *options;
    Session session;
    ProgramTensors tensors;
    JobList list;
    Slot *slots;
    uint8_t *planes;
    float *probabilities;
    float *mirrored;             /* --tta flip: of the mirrored pictures; else NULL */
    int width, height;
    int done, left_out;
    Weights weights;
    double threshold;
} Prediction;

/* ---- what to predict ---- */

static bool add_job(JobList *list, const char *folder, const char *file)
{
    if (list->n == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 64;
        Job *jobs = realloc(list->jobs, (size_t)capacity * sizeof *jobs);
        if (!jobs)
            return false;
        list->jobs = jobs;
        list->capacity = capacity;
    }
    Job *job = &list->jobs[list->n];
    *job = (Job){ 0 };
    size_t length = strlen(folder);
    const char *slash = length == 0 || folder[length - 1] == '/' ? "" : "/";
    if (asprintf(&job->path, "%s%s%s", folder, slash, file) < 0) {
        job->path = NULL;
        return false;
    }
    list->n++;
    return true;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcasecmp(name + n - m, end) == 0;
}

/* By its first bytes, or by its name: a picture that lost its head is broken, not unseen. */
static bool looks_like_picture(const char *folder, const char *name)
{
    static const char *const ours[] = { ".mask.png", ".probability.png", ".overlay.png" };
    static const char *const endings[] = { ".jpg", ".jpeg", ".png", ".gif" };
    for (int i = 0; i < 3; i++)
        if (ends_with(name, ours[i]))
            return false;
    char path[PATH_MAX];
    unsigned char head[16];
    struct stat facts;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (stat(path, &facts) != 0 || !S_ISREG(facts.st_mode))
        return false;
    for (int i = 0; i < 4; i++)
        if (ends_with(name, endings[i]))
            return true;
    FILE *in = fopen(path, "rb");
    size_t n = in ? fread(head, 1, sizeof head, in) : 0;
    if (in)
        fclose(in);
    return image_sniff(head, n) != IMAGE_UNKNOWN;
}

static bool add_folder(JobList *list, const char *folder, Error *error)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort), before = list->n;
    if (n < 0)
        return fail(error, EXIT_USER, "", "%s: %s", folder, strerror(errno));
    bool fine = true;
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        if (name[0] != '.' && fine && looks_like_picture(folder, name))
            fine = add_job(list, folder, name);
        free(entries[i]);
    }
    free(entries);
    if (!fine)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the list of pictures");
    return list->n > before || fail(error, EXIT_USER, "only files directly in the folder are taken",
                                    "%s: no picture (JPEG, PNG or GIF) in this folder", folder);
}

static bool list_pictures(JobList *list, const Options *options, Error *error)
{
    for (int i = 1; i < options->n_operands; i++) {
        const char *operand = options->operands[i];
        struct stat facts;
        if (stat(operand, &facts) != 0)
            return fail(error, EXIT_USER, "", "%s: %s", operand, strerror(errno));
        if (S_ISDIR(facts.st_mode) ? !add_folder(list, operand, error)
                                   : !add_job(list, "", operand))
            return error->text[0]
                       ? false
                       : fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the list");
    }
    return true;
}

/* ---- names ---- */

/* The file's name without its folder and its ending. */
static char *stem_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    return strndup(name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

/* The last part of the name of the folder that holds it. */
static void folder_of(const char *path, char folder[NAME_MAX + 1])
{
    char full[PATH_MAX];
    snprintf(folder, NAME_MAX + 1, "root");
    if (!realpath(path, full))
        return;
    char *end = strrchr(full, '/');
    *end = 0;
    const char *name = strrchr(full, '/');
    if (name && name[1])
        snprintf(folder, NAME_MAX + 1, "%s", name + 1);
}

static bool name_taken(const JobList *list, int before, const char *name)
{
    for (int i = 0; i < before; i++)
        if (strcmp(list->jobs[i].name, name) == 0)
            return true;
    return false;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Stems that occur once stay; the others get their folder's name in front, and a number if that is
 * not enough. */
static bool name_jobs(JobList *list)
{
    char **stems = calloc((size_t)list->n + 1, sizeof *stems);
    bool fine = stems != NULL;
    for (int i = 0; fine && i < list->n; i++)
        fine = (list->jobs[i].name = stems[i] = stem_of(list->jobs[i].path)) != NULL;
    if (fine)
        qsort(stems, (size_t)list->n, sizeof *stems, by_text);
    for (int i = 0; fine && i < list->n; i++) {
        char *stem = list->jobs[i].name, folder[NAME_MAX + 1], *name = NULL;
        char **found = bsearch(&stem, stems, (size_t)list->n, sizeof *stems, by_text);
        size_t at = (size_t)(found - stems);
        bool twice = (at > 0 && strcmp(stems[at - 1], stem) == 0)
                     || (at + 1 < (size_t)list->n && strcmp(stems[at + 1], stem) == 0);
        folder_of(list->jobs[i].path, folder);
        if (asprintf(&name, twice ? "%s_%s" : "%.0s%s", folder, stem) < 0)
            name = NULL;
        for (int number = 2; name && name_taken(list, i, name); number++) {
            free(name);
            if (asprintf(&name, "%s_%s-%d", folder, stem, number) < 0)
                name = NULL;
        }
        list->jobs[i].name = name;
        fine = name != NULL;
    }
    for (int i = 0; stems && i < list->n; i++)
        free(stems[i]);
    free(stems);
    return fine;
}

/* ---- a batch ---- */

static void decode_slot(void *context, int index)
{
    Prediction *prediction = context;
    Slot *slot = &prediction->slots[index];
    int width = prediction->width, height = prediction->height;
    slot->decoded = false;
    slot->error = (Error){ 0 };
    if (!image_read(slot->job->path, IMAGE_RGB, &slot->image, &slot->error))
        return;
    uint8_t *small = malloc(3 * (size_t)width * (size_t)height);
    if (small
        && resize_bilinear(slot->image.pixels, slot->image.width, slot->image.height, 3, small,
                           width, height)) {
        image_to_planes(small, width, height, slot->planes);
        slot->decoded = true;
    } else {
        image_close(&slot->image);
        fail(&slot->error, EXIT_ENVIRONMENT, "", "%s: not enough memory", slot->job->path);
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

static bool write_files(const Prediction *prediction, Slot *slot, float *full, uint8_t *grey)
{
    const char *folder = prediction->options->output;
    int width = slot->image.width, height = slot->image.height;
    size_t pixels = (size_t)width * (size_t)height;
    char path[PATH_MAX];
    for (size_t i = 0; i < pixels; i++) {
        float p = full[i] < 0 ? 0 : full[i] > 1 ? 1 : full[i];
        grey[i] = (uint8_t)(p * 255 + 0.5f);
    }
    snprintf(path, sizeof path, "%s/%s.probability.png", folder, slot->job->name);
    if (!image_write_png(path, grey, width, height, 1, &slot->error))
        return false;
    for (size_t i = 0; i < pixels; i++)
        grey[i] = (double)full[i] >= prediction->threshold ? 255 : 0;
    if (prediction->options->largest && !keep_largest_component(grey, width, height))
        return fail(&slot->error, EXIT_ENVIRONMENT, "", "%s: not enough memory", slot->job->path);
    snprintf(path, sizeof path, "%s/%s.mask.png", folder, slot->job->name);
    if (!image_write_png(path, grey, width, height, 1, &slot->error))
        return false;
    tint(slot->image.pixels, grey, width, height);
    snprintf(path, sizeof path, "%s/%s.overlay.png", folder, slot->job->name);
    return image_write_png(path, slot->image.pixels, width, height, 3, &slot->error);
}

static void write_slot(void *context, int index)
{
    Prediction *prediction = context;
    Slot *slot = &prediction->slots[index];
    if (!slot->decoded)
        return;
    size_t pixels = (size_t)slot->image.width * (size_t)slot->image.height;
    float *full = malloc(pixels * sizeof *full);
    uint8_t *grey = malloc(pixels);
    if (full && grey && resize_float(slot->probability, prediction->width, prediction->height, full,
                                     slot->image.width, slot->image.height))
        write_files(prediction, slot, full, grey);
    else
        fail(&slot->error, EXIT_ENVIRONMENT, "", "%s: not enough memory", slot->job->path);
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
    int good = 0;
    for (int i = 0; i < n; i++) {
        Slot *slot = &prediction->slots[i];
        if (!slot->decoded)
            continue;
        if (good != i)
            memmove(prediction->planes + 3 * pixels * (size_t)good, slot->planes, 3 * pixels);
        slot->probability = prediction->probabilities + pixels * (size_t)good++;
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
    add_mirrored(prediction->probabilities, prediction->mirrored, rows, prediction->width);
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
    const JobList *list = &prediction->list;
    progress_start(progress, 0);
    for (int first = 0; first < list->n;) {
        if (interrupted())
            return fail(error, EXIT_INTERRUPTED, "", "interrupted after %d of %d pictures", first,
                        list->n);
        int n = list->n - first < prediction->options->batch ? list->n - first
                                                             : (int)prediction->options->batch;
        for (int i = 0; i < n; i++) {
            prediction->slots[i].job = &list->jobs[first + i];
            prediction->slots[i].planes = prediction->planes
                + 3 * (size_t)prediction->width * (size_t)prediction->height * (size_t)i;
        }
        parallel_for(n, 0, decode_slot, prediction, NULL, NULL);
        if (!check_slots(prediction, n, true, error) || !run_batch(prediction, n, error)) {
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
    prediction->slots = calloc((size_t)options->batch, sizeof *prediction->slots);
    prediction->planes = malloc(3 * values);
    prediction->probabilities = malloc(values * sizeof(float));
    if (mirrors(options))
        prediction->mirrored = malloc(values * sizeof(float));
    return (prediction->slots && prediction->planes && prediction->probabilities
            && (!mirrors(options) || prediction->mirrored))
        || fail(error, EXIT_ENVIRONMENT, "", "not enough memory for a batch");
}

static bool read_weights(Prediction *prediction, Error *error)
{
    SafeTensors *file = weights_read(&prediction->weights, &prediction->session, error);
    if (!file)
        return false;
    prediction->threshold = threshold_of(prediction->options, file);
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
    if (!list_pictures(&prediction->list, options, error))
        return false;
    if (!name_jobs(&prediction->list))
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the names");
    if (!session_open(session, options, error)
        || !session_tensors(session, "predict", false, &prediction->tensors, error))
        return false;
    const PlanTensor *image = prediction->tensors.image, *output = prediction->tensors.output;
    if (!output || output->dims[1] != image->dims[1] || output->dims[2] != image->dims[2])
        return fail(error, EXIT_USER, "add a line such as `output probability = sigmoid(logits)`",
                    "%s: the model has no output [1, H, W] of the input's size",
                    session->plan_path);
    return read_weights(prediction, error) && folder_make(options->output, error)
        && session_device(session, "predict", (int)options->batch, error)
        && allocate(prediction, error) && session_build(session, error)
        && weights_upload(&prediction->weights, session->executor, error);
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
    if (predicted && !options->quiet) {
        printf("%d picture%s to %s/ (mask, probability, overlay), %.1f pictures/s", good,
               good == 1 ? "" : "s", options->output, good / (now_seconds() - begun));
        printf(prediction.left_out ? "; %d left out\n" : "\n", prediction.left_out);
    }
    int code = predicted ? EXIT_FINE : report(&error);
    for (int i = 0; i < prediction.list.n; i++) {
        free(prediction.list.jobs[i].path);
        free(prediction.list.jobs[i].name);
    }
    free(prediction.list.jobs);
    free(prediction.slots);
    free(prediction.planes);
    free(prediction.probabilities);
    free(prediction.mirrored);
    weights_close(&prediction.weights);
    session_close(&prediction.session);
    return code;
}
