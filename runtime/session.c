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
        .output = find_role(program, ROLE_OUTPUT, 1),
        .loss = find_role(program, ROLE_LOSS, 0),
        .metric = find_role(program, ROLE_METRIC, 5),
        .threshold = metric_threshold(program),
    };
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
    if (found->output && (found->output->dims[1] != found->mask->dims[1]
                          || found->output->dims[2] != found->mask->dims[2]))
        found->output = NULL;
    return true;
}

Split split_of(const char *name)
{
    return strcmp(name, "train") == 0   ? SPLIT_TRAIN
           : strcmp(name, "valid") == 0 ? SPLIT_VALID
                                        : SPLIT_TEST;
}

Dataset *session_dataset(Session *session, unsigned splits, bool outline_background, int limit,
                         const PlanTensor *image, Error *error)
{
    const Options *options = session->options;
    bool no_cache = options->cache && strcmp(options->cache, "none") == 0;
    DatasetOptions wanted = {
        .height = (int)image->dims[1], .width = (int)image->dims[2], .splits = splits,
        .outline_background = outline_background,
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
