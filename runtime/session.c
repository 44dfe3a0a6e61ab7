/* What every command that runs a plan opens: the plan (after the question of trust), the device,
 * the executor with its kernels built, and the data set; and which of a program's tensors is the
 * picture, the mask, the probability, the loss and the metric.
 *
 * Memory is asked for before anything is allocated, so that the message can say how much is needed
 * and the largest batch that would fit.
 */
#include "commands.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

Plan *session_plan(const Options *options, const char *path, Error *error)
{
    struct stat facts;
    if (!options->trust && stat(path, &facts) == 0 && facts.st_uid != getuid()) {
        fail(error, EXIT_USER,
             "add --trust if you trust whoever made it, or compile the model again with segc",
             "%s: this plan was made by another user (uid %u); its kernels are C that would run as you",
             path, (unsigned)facts.st_uid);
        return NULL;
    }
    return plan_open(path, error);
}

uint64_t plan_hash(const Plan *plan)
{
    XXH64_hash_t text = XXH3_64bits(plan->text, strlen(plan->text));
    return XXH3_64bits_withSeed(plan->options, strlen(plan->options), text);
}

/* The number in a one-line file; -1 where there is none ("max"). */
static int64_t read_number(const char *path, const char *key)
{
    FILE *in = fopen(path, "r");
    if (!in)
        return -1;
    char line[256];
    int64_t value = -1;
    while (value < 0 && fgets(line, sizeof line, in))
        if (strncmp(line, key, strlen(key)) == 0)
            sscanf(line + strlen(key), "%" SCNd64, &value);
    fclose(in);
    return value;
}

int64_t memory_available(void)
{
    int64_t free_bytes = read_number("/proc/meminfo", "MemAvailable:");
    if (free_bytes >= 0)
        free_bytes *= 1024;
    int64_t limit = read_number("/sys/fs/cgroup/memory.max", "");
    int64_t used = read_number("/sys/fs/cgroup/memory.current", "");
    /* Pages of files count as used, but are given back when memory runs short. */
    int64_t files = read_number("/sys/fs/cgroup/memory.stat", "file ");
    if (limit >= 0 && used >= 0) {
        int64_t left = limit - used + (files > 0 ? files : 0);
        if (free_bytes < 0 || left < free_bytes)
            free_bytes = left;
    }
    return free_bytes;
}

static bool check_memory(const Session *session, int batch, int threads, Error *error)
{
    int64_t need = plan_bytes(session->plan, session->target->name, batch, threads);
    int64_t have = memory_available();
    if (have < 0 || need <= have)
        return true;
    int low = 0, high = batch;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (plan_bytes(session->plan, session->target->name, middle, threads) <= have)
            low = middle;
        else
            high = middle;
    }
    char needed[16], had[16], hint[128];
    format_bytes((double)need, needed);
    format_bytes((double)have, had);
    if (low > 0)
        snprintf(hint, sizeof hint, "the largest batch that fits is %d: --batch %d", low, low);
    else
        snprintf(hint, sizeof hint, "not even one picture fits; a smaller model or size is needed");
    return fail(error, EXIT_ENVIRONMENT, hint,
                "%s: not enough memory: batch %d needs %s, %s are free", session->plan_path, batch,
                needed, had);
}

static bool open_device(Session *session, const Options *options, Error *error)
{
    if (strcmp(options->device, "cuda") == 0)
        return fail(error, EXIT_ENVIRONMENT, "use --device cpu, or auto",
                    "--device cuda: this build has the host device (cpu) only");
    DeviceOptions wanted = {
        .name = "cpu", .threads = (int)options->threads, .verbose = options->verbose,
        .progress = progress_built, .context = &session->progress,
    };
    session->device = device_open(&wanted, error);
    if (!session->device)
        return false;
    progress_say(&session->progress, "device %s%s", device_describe(session->device),
                 strcmp(options->device, "auto") == 0 ? " (auto: the only device of this build)" : "");
    return true;
}

bool session_open(Session *session, const Options *options, const char *path, int max_batch,
                  Error *error)
{
    *session = (Session){ .plan_path = path };
    progress_open(&session->progress, stderr, options->quiet);
    session->plan = session_plan(options, path, error);
    if (!session->plan)
        return false;
    session->target = plan_target(session->plan, "host");
    if (!session->target)
        return fail(error, EXIT_USER, "compile the model with segc --target host",
                    "%s: this plan holds no kernels for the cpu", path);
    if (!open_device(session, options, error))
        return false;
    int threads = options->threads ? (int)options->threads : processor_count();
    if (!check_memory(session, max_batch, threads, error))
        return false;
    progress_start(&session->progress, 0);
    session->executor = executor_open(session->plan, session->device, max_batch, error);
    progress_clear(&session->progress);
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

static int count_role(const PlanProgram *program, PlanRole role)
{
    int n = 0;
    for (int i = 0; i < program->n_tensors; i++)
        n += program->tensors[i].role == role;
    return n;
}

bool session_tensors(const Session *session, const char *name, bool needs_mask, ProgramTensors *found,
                     Error *error)
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
    };
    static const char hint[] =
        "segrun feeds one `input image : u8[3, H, W]` and one `target mask : u8[1, H, W]`";
    if (!found->image || count_role(program, ROLE_INPUT) != 1 || found->image->type != PLAN_U8)
        return fail(error, EXIT_USER, hint, "%s: %s: the model must have one input, u8 with 3 channels",
                    path, name);
    if (!needs_mask)
        return true;
    if (!found->mask || count_role(program, ROLE_TARGET) != 1 || found->mask->type != PLAN_U8
        || found->mask->dims[1] != found->image->dims[1]
        || found->mask->dims[2] != found->image->dims[2])
        return fail(error, EXIT_USER, hint,
                    "%s: %s: the model must have one target, u8 with 1 channel, of the input's size",
                    path, name);
    if (!found->loss)
        return fail(error, EXIT_USER, "add a line such as `loss binary_cross_entropy(probability, mask)`",
                    "%s: %s: the model has no loss", path, name);
    if (found->output && (found->output->dims[1] != found->mask->dims[1]
                          || found->output->dims[2] != found->mask->dims[2]))
        found->output = NULL;
    return true;
}

static void warn_line(void *context, const char *line)
{
    Session *session = context;
    progress_clear(&session->progress);
    fprintf(stderr, "segrun: warning: %s\n", line);
}

static bool decode_progress(void *context, int done, int total)
{
    Session *session = context;
    progress_update(&session->progress, "decoding pictures", done, total, "pictures", "");
    return true;
}

Dataset *session_dataset(Session *session, const Options *options, unsigned splits,
                         bool outline_background, int limit, const PlanTensor *image, Error *error)
{
    if (!options->data) {
        fail(error, EXIT_USAGE, "the folder that holds images/ and annotations/", "--data is required");
        return NULL;
    }
    bool no_cache = options->cache && strcmp(options->cache, "none") == 0;
    DatasetOptions wanted = {
        .height = (int)image->dims[1], .width = (int)image->dims[2], .splits = splits,
        .outline_background = outline_background,
        .skip_bad = strcmp(options->on_bad, "skip") == 0, .limit = limit,
        .workers = (int)options->workers, .no_cache = no_cache,
        .cache_folder = no_cache ? NULL : options->cache,
        .progress = decode_progress, .warn = warn_line, .context = session,
    };
    progress_start(&session->progress, 0);
    Dataset *data = dataset_open(options->data, &wanted, error);
    progress_clear(&session->progress);
    return data;
}
