/* What every command that runs a plan opens: the plan, the device, the data set, and the executor
 * with the kernels of the programs it needs; and which of a program's tensors is the picture, the
 * mask, the probability, the loss and the metric.
 *
 * Building kernels takes longest, so it comes last: a command looks at the plan, the weights, the
 * folders, the memory and the pictures before.
 */
#include "commands.h"

#include <string.h>
#include <xxhash.h>

uint64_t plan_hash(const Plan *plan)
{
    XXH64_hash_t text = XXH3_64bits(plan->text, strlen(plan->text));
    return XXH3_64bits_withSeed(plan->options, strlen(plan->options), text);
}

static void warn_progress(void *context, const char *text)
{
    progress_clear(context);
    fprintf(stderr, "segrun: warning: %s\n", text);
}

static bool show_built(void *context, int built, int total)
{
    progress_update(context, "building kernels", built, total, "kernels", "");
    return !interrupted();
}

static bool show_timed(void *context, int done, int total)
{
    progress_update(context, "timing kernels", done, total, "steps", "");
    return !interrupted();
}

static void say_lines(void *context, const char *text)
{
    progress_clear(context);
    fprintf(stderr, "%s\n", text);
}

static bool show_decoded(void *context, int done, int total)
{
    progress_update(context, "decoding", done, total, "pictures", "");
    return !interrupted();
}

bool session_open(Session *session, const Options *options, Error *error)
{
    *session = (Session){ .options = options, .plan_path = options->operands[0] };
    progress_open(&session->progress, stderr, options->quiet);
    session->plan = plan_open(session->plan_path, error);
    if (!session->plan)
        return false;
    session->target = plan_target(session->plan, "host");
    if (!session->target && session->plan->n_targets > 0)
        session->target = &session->plan->targets[0];
    return session->target || fail(error, EXIT_USER, "compile the model again with segc",
                                   "%s: this plan holds no kernels", session->plan_path);
}

bool session_device(Session *session, const char *programs, int max_batch, Error *error)
{
    const Options *options = session->options;
    session->programs = programs;
    session->max_batch = max_batch;
    DeviceOptions wanted = {
        .name = options->device, .precision = options->precision, .plan = session->plan,
        .threads = (int)options->threads, .verbose = options->verbose, .trust = options->trust,
        .tune = !options->no_tune, .progress = show_built, .tuning = show_timed,
        .warn = warn_progress, .say = say_lines, .context = &session->progress,
    };
    session->device = device_open(&wanted, error);
    if (!session->device)
        return false;
    const char *note = device_note(session->device);
    progress_say(&session->progress, "device %s%s%s", device_describe(session->device),
                 *note ? "; " : "", note);
    if (!executor_check(session->plan, session->device, programs, max_batch, error))
        return false;
    session->target = plan_target(session->plan, device_target(session->device));
    return true;
}

bool session_build(Session *session, Error *error)
{
    progress_start(&session->progress, 0);
    session->executor = executor_open_for(session->plan, session->device, session->programs,
                                          session->max_batch, error);
    if (session->executor)
        progress_finish(&session->progress, "built", session->progress.done, "kernels");
    return session->executor != NULL;
}

void session_close(Session *session)
{
    if (session->executor)
        executor_close(session->executor);
    if (session->device)
        device_close(session->device);
    if (session->plan)
        plan_close(session->plan);
    *session = (Session){ 0 };
}

static const PlanTensor *find_role(const PlanProgram *program, PlanRole role, int64_t channels)
{
    for (int i = 0; i < program->n_tensors; i++) {
        const PlanTensor *tensor = &program->tensors[i];
        if (tensor->role == role && (channels == 0 || tensor->dims[0] == channels))
            return tensor;
    }
    return NULL;
}

/* The metric's threshold is the first scalar of the kernel that counts for it. */
static double metric_threshold(const PlanProgram *program)
{
    static const char label[] = "dice_sums ";
    for (int i = 0; i < program->n_steps; i++) {
        const PlanStep *step = &program->steps[i];
        if (strncmp(step->label, label, sizeof label - 1) == 0 && step->n_scalars > 0)
            return step->scalars[0];
    }
    return 0.5;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

/* The metric of several classes is three results: NAME, NAME.predicted and NAME.true. */
static void find_class_metric(const PlanProgram *program, ProgramTensors *found)
{
    size_t length = 0;
    for (int i = 0; i < program->n_tensors; i++) {
        const PlanTensor *tensor = &program->tensors[i];
        if (tensor->role == ROLE_METRIC && ends_with(tensor->name, ".predicted")) {
            found->predicted = tensor;
            length = strlen(tensor->name) - strlen(".predicted");
        }
    }
    for (int i = 0; found->predicted && i < program->n_tensors; i++) {
        const PlanTensor *tensor = &program->tensors[i];
        if (tensor->role != ROLE_METRIC || tensor->dims[0] != found->predicted->dims[0]
            || strncmp(tensor->name, found->predicted->name, length) != 0)
            continue;
        if (!tensor->name[length])
            found->metric = tensor;
        else if (strcmp(tensor->name + length, ".true") == 0)
            found->truth = tensor;
    }
    found->classes = found->metric && found->truth ? (int)found->metric->dims[0] : 1;
}

/* Of the picture's size, with so many channels, or with several. */
static const PlanTensor *find_output(const PlanProgram *program, const PlanTensor *image,
                                     int64_t least, int64_t most)
{
    for (int i = 0; image && i < program->n_tensors; i++) {
        const PlanTensor *tensor = &program->tensors[i];
        if (tensor->role == ROLE_OUTPUT && tensor->dims[0] >= least && tensor->dims[0] <= most
            && tensor->dims[1] == image->dims[1] && tensor->dims[2] == image->dims[2])
            return tensor;
    }
    return NULL;
}

/* How many classes the plan tells apart says its metric, or else what it gives out. */
static void find_classes(const Session *session, const PlanProgram *program,
                         ProgramTensors *found)
{
    const PlanProgram *scored = plan_program(session->target, "evaluate");
    ProgramTensors metric = { 0 };
    find_class_metric(program, found);
    find_class_metric(scored ? scored : program, &metric);
    found->classes = metric.classes;
    found->output = find_output(program, found->image, metric.classes, metric.classes);
    if (found->classes > 1 || found->output)
        return;
    found->output = find_output(program, found->image, 2, MOST_CLASSES);
    found->classes = found->output ? (int)found->output->dims[0] : 1;
}

static int count_role(const PlanProgram *program, PlanRole role)
{
    int n = 0;
    for (int i = 0; i < program->n_tensors; i++)
        n += program->tensors[i].role == role;
    return n;
}

bool session_tensors(const Session *session, const char *name, bool needs_mask,
                     ProgramTensors *found, Error *error)
{
    const PlanProgram *program = plan_program(session->target, name);
    const char *path = session->plan_path;
    if (!program)
        return fail(error, EXIT_USER, "compile the model again with segc",
                    "%s: the plan has no program '%s'", path, name);
    *found = (ProgramTensors){
        .name = name,
        .image = find_role(program, ROLE_INPUT, 3),
        .mask = find_role(program, ROLE_TARGET, 1),
        .loss = find_role(program, ROLE_LOSS, 0),
        .threshold = metric_threshold(program),
    };
    find_classes(session, program, found);
    if (found->classes == 1)
        found->metric = find_role(program, ROLE_METRIC, 5);
    static const char hint[] =
        "segrun feeds one `input image : u8[3, H, W]` and one `target mask : u8[1, H, W]`";
    if (!found->image || count_role(program, ROLE_INPUT) != 1 || found->image->type != PLAN_U8)
        return fail(error, EXIT_USER, hint,
                    "%s: %s: the model must have one input, u8 with 3 channels", path, name);
    if (!needs_mask)
        return true;
    if (!found->mask || count_role(program, ROLE_TARGET) != 1 || found->mask->type != PLAN_U8
        || found->mask->dims[1] != found->image->dims[1]
        || found->mask->dims[2] != found->image->dims[2])
        return fail(
            error, EXIT_USER, hint,
            "%s: %s: the model must have one target, u8 with 1 channel, of the input's size", path,
            name);
    if (!found->loss)
        return fail(error, EXIT_USER,
                    "add a line such as `loss binary_cross_entropy(probability, mask)`",
                    "%s: %s: the model has no loss", path, name);
    return true;
}

/* ---- the metric ------------------------------------------------------------------------------ */

enum { SUMS = 5 };           /* of dice_sums, a picture */

int metric_numbers(const ProgramTensors *tensors)
{
    return tensors->classes > 1 ? 3 * tensors->classes : SUMS;
}

bool metric_read(Executor *executor, const ProgramTensors *tensors, int batch, float *numbers,
                 Error *error)
{
    const PlanTensor *parts[] = { tensors->metric, tensors->predicted, tensors->truth };
    const int n = tensors->classes > 1 ? 3 : 1;
    for (int i = 0; i < n; i++)
        if (!executor_read(executor, tensors->name, parts[i]->name,
                           numbers + (int64_t)i * batch * tensors->classes, batch, error))
            return false;
    return true;
}

void metric_counts(const ProgramTensors *tensors, const float *numbers, int batch, int picture,
                   ClassCount *counts)
{
    const int64_t classes = tensors->classes, part = batch * classes;
    for (int64_t k = 0; k < classes; k++) {
        const float *at = numbers + picture * classes + k;
        counts[k] = (ClassCount){ (int64_t)at[0], (int64_t)at[part], (int64_t)at[2 * part] };
    }
}

double metric_dice(const ProgramTensors *tensors, const float *numbers, int batch, int picture)
{
    if (tensors->classes == 1) {
        const float *sums = numbers + SUMS * picture;
        return dice_of((double)sums[0], (double)sums[1], (double)sums[2]);
    }
    ClassCount counts[MOST_CLASSES];
    double dice, iou;
    metric_counts(tensors, numbers, batch, picture, counts);
    score_classes(counts, tensors->classes, &dice, &iou);
    return dice;
}

bool check_threshold(const Options *options, const ProgramTensors *tensors, Error *error)
{
    return tensors->classes == 1 || !option_given(options, "threshold")
        || fail(error, EXIT_USAGE, "leave it out: of several classes the most probable one counts",
                "--threshold is for networks with one class; this one has %d", tensors->classes);
}

/* ---- the data set ---------------------------------------------------------------------------- */

Outline outline_of(const char *word)
{
    return !word || strcmp(word, "foreground") == 0 ? OUTLINE_FOREGROUND
         : strcmp(word, "background") == 0          ? OUTLINE_BACKGROUND : OUTLINE_CLASS;
}

Split split_of(const char *name)
{
    return strcmp(name, "train") == 0   ? SPLIT_TRAIN
           : strcmp(name, "valid") == 0 ? SPLIT_VALID
                                        : SPLIT_TEST;
}

Dataset *session_dataset(Session *session, unsigned splits, Outline outline, int limit,
                         const ProgramTensors *tensors, Error *error)
{
    const Options *options = session->options;
    const PlanTensor *image = tensors->image;
    bool no_cache = options->cache && strcmp(options->cache, "none") == 0;
    DatasetOptions wanted = {
        .height = (int)image->dims[1], .width = (int)image->dims[2], .splits = splits,
        .outline = outline, .classes = tensors->classes,
        .skip_bad = strcmp(options->on_bad, "skip") == 0, .limit = limit,
        .workers = (int)options->workers, .no_cache = no_cache,
        .cache_folder = no_cache ? NULL : options->cache,
        .progress = show_decoded, .warn = warn_progress, .context = &session->progress,
    };
    progress_start(&session->progress, 0);
    Dataset *data = dataset_open(options->data, &wanted, error);
    int count = 0;
    for (int i = 0; data && i < SPLIT_COUNT; i++)
        count += dataset_count(data, i) + dataset_skipped(data, i);
    if (data)
        progress_finish(&session->progress, "decoded", count, "pictures");
    else if (error->code == EXIT_USER && !error->hint[0])
        snprintf(error->hint, sizeof error->hint,
                 "segrun data check %.200s lists all that is broken; --on-bad skip leaves it out",
                 options->data);
    return data;
}

/* ---- its classes ----------------------------------------------------------------------------- */

/* pixels[VOID_CLASS] too. */
static bool count_pixels(Dataset *data, int64_t pixels[256], Error *error)
{
    const int64_t plane = (int64_t)dataset_width(data) * dataset_height(data);
    for (int i = 0; i < dataset_count(data, SPLIT_TRAIN); i++) {
        const uint8_t *image, *mask;
        if (!dataset_load(data, SPLIT_TRAIN, i, &image, &mask, error))
            return false;
        for (int64_t at = 0; at < plane; at++)
            pixels[mask[at]]++;
    }
    return true;
}

bool say_classes(Progress *progress, Dataset *data, int classes, Error *error)
{
    int64_t pixels[256] = { 0 }, all = 0;
    char line[256] = "";
    size_t length = 0;
    if (!count_pixels(data, pixels, error))
        return false;
    for (int k = 0; k < 256; k++)
        all += pixels[k];
    for (int k = 0; k < classes; k++) {
        char item[100];
        int n = snprintf(item, sizeof item, "%s %.1f %%", dataset_class(data, k),
                         100 * (double)pixels[k] / (double)(all ? all : 1));
        if (length && length + (size_t)n > 70) {
            progress_say(progress, "       %s,", line);
            length = 0;
        }
        length += (size_t)snprintf(line + length, sizeof line - length, "%s%s",
                                   length ? ", " : "", item);
    }
    progress_say(progress, "       %s%s", line,
                 pixels[VOID_CLASS] ? "; the rest has no class" : "");
    for (int k = 0; k < classes; k++)
        if (pixels[k] == 0)
            fprintf(stderr, "segrun: warning: no pixel of the train split is %s (class %d)\n",
                    dataset_class(data, k), k);
    return true;
}

void join_class_names(const Dataset *data, int classes, char text[])
{
    size_t length = 0;
    text[0] = '\0';
    for (int k = 0; classes > 1 && k < classes; k++) {
        const char *name = dataset_class(data, k);
        if (length + strlen(name) + 2 > ITEM_BYTES) {
            text[0] = '\0';
            return;
        }
        length += (size_t)snprintf(text + length, ITEM_BYTES - length, "%s%s", k ? "\n" : "", name);
    }
}
