/* Checkpoints: safetensors files that hold a run.
 *
 * Tensors: every parameter and buffer under the name it has in PyTorch, and Adam's moments as
 * optimizer.exp_avg.NAME and optimizer.exp_avg_sq.NAME. Metadata: the recipe, where the run stands
 * (down to the batch in the epoch and the sums over it), and the curves, all as decimal texts with
 * the digits that give the same double back. There is no state of a random generator to keep: the
 * order of the pictures is a function of (seed, epoch), flips of (seed, epoch, picture) and dropout
 * of (seed, step). With that a resumed run computes the same bits as one that never stopped.
 *
 * Files are written by safetensors_write: to a temporary file, fsynced, renamed.
 */
#include "commands.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_NAME "segrun checkpoint"
#define FORMAT FORMAT_NAME " 1"
#define FIRST_MOMENT "optimizer.exp_avg."
#define SECOND_MOMENT "optimizer.exp_avg_sq."
#define TRAINED "optimizer.trained."      /* where NAME is the average of the weights */

enum { MAX_METADATA = 80 };

/* ---- the run's state as texts ---- */

typedef enum { FIELD_INT, FIELD_INT64, FIELD_HASH, FIELD_DOUBLE } FieldKind;
typedef struct {
    const char *key;
    FieldKind kind;
    size_t place;
    double least, most;      /* what a sound file holds */
    bool newer;              /* files of before have 0 */
} Field;

/* Where the run stands; what it was told to do is recipe_items.c's. */
#define FIELD(kind, field, least, most) { #field, kind, offsetof(RunState, field), least, most, false }
static const Field fields[] = {
    FIELD(FIELD_INT, epoch, 0, 1e6),
    FIELD(FIELD_INT64, batch_in_epoch, 0, 1e9),
    FIELD(FIELD_INT64, step, 0, 1e15),
    FIELD(FIELD_DOUBLE, loss_sum, -HUGE_VAL, HUGE_VAL),
    FIELD(FIELD_DOUBLE, dice_sum, -HUGE_VAL, HUGE_VAL),
    FIELD(FIELD_DOUBLE, seconds, 0, HUGE_VAL),
    FIELD(FIELD_INT64, pictures, 0, 1e9),
    FIELD(FIELD_DOUBLE, best_dice, -1, 1),
    FIELD(FIELD_INT, best_epoch, 0, 1e6),
    FIELD(FIELD_HASH, data_key, 0, 0),
    { "worse_epochs", FIELD_INT, offsetof(RunState, worse_epochs), 0, 1e6, true },
    { "plateaus", FIELD_INT, offsetof(RunState, plateaus), 0, 1e6, true },
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

static void field_print(const Field *field, const RunState *state, char text[64])
{
    const void *place = (const char *)state + field->place;
    switch (field->kind) {
    case FIELD_INT: snprintf(text, 64, "%d", *(const int *)place); break;
    case FIELD_INT64: snprintf(text, 64, "%" PRId64, *(const int64_t *)place); break;
    case FIELD_HASH: snprintf(text, 64, "%" PRIu64, *(const uint64_t *)place); break;
    case FIELD_DOUBLE: snprintf(text, 64, "%.17g", *(const double *)place); break;
    }
}

static bool field_parse(const Field *field, const char *text, RunState *state)
{
    void *place = (char *)state + field->place;
    char *end;
    if (field->kind == FIELD_HASH) {
        *(uint64_t *)place = strtoull(text, &end, 10);
        return end != text && *end == 0;
    }
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= field->least && value <= field->most))
        return false;
    switch (field->kind) {
    case FIELD_INT: *(int *)place = (int)value; break;
    case FIELD_INT64: *(int64_t *)place = (int64_t)value; break;
    case FIELD_HASH:
    case FIELD_DOUBLE: *(double *)place = value; break;
    }
    return true;
}

void run_state_close(RunState *state)
{
    free(state->rows);
    *state = (RunState){ 0 };
}

void run_state_begin_epoch(RunState *state)
{
    state->batch_in_epoch = state->pictures = 0;
    state->loss_sum = state->dice_sum = state->seconds = 0;
}

void run_state_add(RunState *state, const EpochRow *row)
{
    if (state->n_rows == state->capacity) {
        state->capacity = state->capacity ? 2 * state->capacity : 64;
        EpochRow *rows = realloc(state->rows, (size_t)state->capacity * sizeof *rows);
        if (!rows) {
            fprintf(stderr, "segrun: error: not enough memory for the curves\n");
            exit(EXIT_ENVIRONMENT);
        }
        state->rows = rows;
    }
    state->rows[state->n_rows++] = *row;
}

/* "weight_decay"; items that files always had keep their first keys and are numbers there. */
static void item_key(const RecipeItem *item, char key[64])
{
    snprintf(key, 64, "%s", strcmp(item->option, "outline") == 0 ? "outline_background"
                                                                 : item->option);
    for (char *c = key; *c; c++)
        if (*c == '-')
            *c = '_';
}

static bool read_items(const SafeTensors *file, RunState *state, const char *path, Error *error)
{
    const RecipeItem *items;
    for (int i = 0, n = recipe_items(&items); i < n; i++) {
        char key[64];
        item_key(&items[i], key);
        const char *text = checkpoint_value(file, key);
        text = text ? text : items[i].earlier;
        if (!text || !item_parse(&items[i], text, state)
            || !item_sound(&items[i], state))
            return fail(error, EXIT_USER, "", "%s: damaged: %s is %s%.80s", path, key,
                        text ? "" : "missing", text ? text : "");
    }
    return true;
}

static char *curves_print(const RunState *state)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    for (int i = 0; out && i < state->n_rows; i++) {
        const EpochRow *row = &state->rows[i];
        fprintf(out, "%d %.17g %.17g %.17g %.17g %d %.17g %.17g %.17g\n", row->epoch,
                row->train_loss, row->train_dice, row->valid_loss, row->valid_dice, row->best,
                row->seconds, row->images_per_second, row->lr);
    }
    if (out)
        fclose(out);
    return text;
}

static bool curves_parse(const char *text, RunState *state)
{
    while (*text) {
        double values[9];
        for (int i = 0; i < 9; i++) {
            char *end;
            values[i] = strtod(text, &end);
            if (end == text || *end != (i < 8 ? ' ' : '\n'))
                return false;
            text = end + 1;
        }
        if (!(values[0] == state->n_rows + 1))
            return false;
        EpochRow row = { state->n_rows + 1, values[1], values[2], values[3], values[4],
                         values[5] != 0, values[6], values[7], values[8] };
        run_state_add(state, &row);
    }
    return state->n_rows == state->epoch;
}

const char *checkpoint_value(const SafeTensors *file, const char *key)
{
    for (int i = 0; i < file->n_metadata; i++)
        if (strcmp(file->keys[i], key) == 0)
            return file->values[i];
    return NULL;
}

bool checkpoint_has_state(const SafeTensors *file)
{
    const char *format = checkpoint_value(file, "format");
    return format && strncmp(format, FORMAT, sizeof FORMAT_NAME - 1) == 0;
}

bool checkpoint_state(const SafeTensors *file, RunState *state, Error *error)
{
    *state = (RunState){ 0 };
    const char *path = file->path ? file->path : "the checkpoint";
    const char *format = checkpoint_value(file, "format");
    if (!checkpoint_has_state(file))
        return fail(error, EXIT_USER, "to begin a new run from these weights: --weights FILE",
                    "%s: holds no state of a run", path);
    if (strcmp(format, FORMAT) != 0)
        return fail(error, EXIT_USER, "this program reads '" FORMAT "'",
                    "%s: is a '%.80s', made by another version", path, format);
    if (!read_items(file, state, path, error))
        return false;
    for (int i = 0; i < N_FIELDS; i++) {
        const char *text = checkpoint_value(file, fields[i].key);
        if (!text && fields[i].newer)
            text = "0";
        if (!text || !field_parse(&fields[i], text, state))
            return fail(error, EXIT_USER, "", "%s: damaged: %s is %s%.80s", path, fields[i].key,
                        text ? "" : "missing", text ? text : "");
    }
    const char *curves = checkpoint_value(file, "curves");
    if (!curves || !curves_parse(curves, state)) {
        run_state_close(state);
        return fail(error, EXIT_USER, "", "%s: damaged: the curves cannot be read", path);
    }
    return true;
}

/* ---- tensors ---- */

int64_t checkpoint_bytes(const Plan *plan, bool average)
{
    int64_t bytes = 4096;
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        bytes += (params_count(parameter) * 4 + 200) * ((parameter->trainable ? 3 : 1) + average);
    }
    return bytes;
}

/* Adds one tensor that lies in a copy of a slab; false without memory. */
static bool add_tensor(SafeTensors *file, const char *prefix, const PlanParameter *parameter,
                       const char *data)
{
    SafeTensor *tensor = &file->tensors[file->n_tensors];
    size_t length = strlen(prefix) + strlen(parameter->name) + 1;
    *tensor = (SafeTensor){ .name = malloc(length), .type = PLAN_F32, .rank = parameter->rank };
    if (!tensor->name)
        return false;
    snprintf(tensor->name, length, "%s%s", prefix, parameter->name);
    memcpy(tensor->dims, parameter->dims, sizeof parameter->dims);
    tensor->data = data;
    tensor->bytes = 4 * params_count(parameter);
    file->n_tensors++;
    return true;
}

static bool add_metadata(SafeTensors *file, const char *key, const char *value)
{
    char *key_copy = strdup(key), *value_copy = value ? strdup(value) : NULL;
    if (!key_copy || !value_copy) {
        free(key_copy);
        free(value_copy);
        return false;
    }
    file->keys[file->n_metadata] = key_copy;
    file->values[file->n_metadata++] = value_copy;
    return true;
}

static bool collect_metadata(SafeTensors *file, const Plan *plan, const RunState *state,
                             double threshold)
{
    char text[64], threshold_text[64];
    snprintf(threshold_text, sizeof threshold_text, "%.9g", threshold);
    snprintf(text, sizeof text, "%" PRIu64, plan_hash(plan));
    bool fine = add_metadata(file, "format", FORMAT) && add_metadata(file, "model", plan->model)
                && add_metadata(file, "model_options", plan->options)
                && add_metadata(file, "plan_hash", text)
                && add_metadata(file, "threshold", threshold_text)
                && add_metadata(file, "optimizer_constants", "beta2=0.999 eps=1e-8")
                && add_metadata(file, "random", "functions of seed, epoch and step");
    if (fine && state->class_names[0])
        fine = add_metadata(file, "classes", state->class_names);
    const RecipeItem *items;
    for (int i = 0, n = recipe_items(&items); fine && i < n; i++) {
        char key[64], value[ITEM_BYTES];
        item_key(&items[i], key);
        item_print(&items[i], state, true, value);
        if (items[i].kind == ITEM_CHOICE && !items[i].earlier)
            snprintf(value, sizeof value, "%d", *(const int *)((const char *)state + items[i].place));
        fine = add_metadata(file, key, value);
    }
    for (int i = 0; fine && i < N_FIELDS; i++) {
        field_print(&fields[i], state, text);
        fine = add_metadata(file, fields[i].key, text);
    }
    char *curves = curves_print(state);
    fine = fine && curves && add_metadata(file, "curves", curves);
    free(curves);
    return fine;
}

static bool collect_tensors(SafeTensors *file, const Plan *plan, const Weights *weights)
{
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        const char *trained = weights->parameters + parameter->offset;
        const char *moments = weights->moments + parameter->offset;
        if (!add_tensor(file, "", parameter,
                        weights->average ? weights->average + parameter->offset : trained)
            || (weights->average && !add_tensor(file, TRAINED, parameter, trained)))
            return false;
        if (parameter->trainable
            && !(add_tensor(file, FIRST_MOMENT, parameter, moments)
                 && add_tensor(file, SECOND_MOMENT, parameter, moments + plan->trainable_bytes)))
            return false;
    }
    return true;
}

/* ---- copies of the slabs ---- */

bool weights_allocate(Weights *weights, const Plan *plan, bool moments, Error *error)
{
    *weights = (Weights){ .parameters = calloc(1, (size_t)plan->parameter_bytes + 1),
                          .moments = moments ? calloc(2, (size_t)plan->trainable_bytes + 1) : NULL };
    if (weights->parameters && (weights->moments || !moments))
        return true;
    weights_close(weights);
    return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the weights");
}

void weights_close(Weights *weights)
{
    if (!weights->borrowed) {
        free(weights->parameters);
        free(weights->moments);
        free(weights->average);
    }
    *weights = (Weights){ 0 };
}

bool weights_upload(const Weights *weights, Executor *executor, Error *error)
{
    const char *average = weights->average ? weights->average : weights->parameters;
    return executor_upload(executor, SLAB_PARAMETERS, weights->parameters, error)
        && (!weights->moments || executor_upload(executor, SLAB_MOMENTS, weights->moments, error))
        && (executor_slab_bytes(executor, SLAB_AVERAGE) == 0
            || executor_upload(executor, SLAB_AVERAGE, average, error));
}

static bool allocate_average(Weights *weights, const Plan *plan, Error *error)
{
    weights->average = calloc(1, (size_t)plan->parameter_bytes + 1);
    return weights->average || fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the weights");
}

/* Not copied where they lie in the host's memory. */
static bool weights_download(Weights *weights, const Session *session, Error *error)
{
    Executor *executor = session->executor;
    *weights = (Weights){ executor_slab(executor, SLAB_PARAMETERS),
                          executor_slab(executor, SLAB_MOMENTS),
                          executor_slab(executor, SLAB_AVERAGE), true };
    if (weights->parameters && weights->moments)
        return true;
    return weights_allocate(weights, session->plan, true, error)
        && executor_download(executor, SLAB_PARAMETERS, weights->parameters, error)
        && executor_download(executor, SLAB_MOMENTS, weights->moments, error)
        && (executor_slab_bytes(executor, SLAB_AVERAGE) == 0
            || (allocate_average(weights, session->plan, error)
                && executor_download(executor, SLAB_AVERAGE, weights->average, error)));
}

/* ---- saving ---- */

bool checkpoint_save(const char *path, const Session *session, const RunState *state,
                     double threshold, Error *error)
{
    const Plan *plan = session->plan;
    char *keys[MAX_METADATA], *values[MAX_METADATA];
    SafeTensors file = { .keys = keys, .values = values };
    file.tensors = calloc(4 * (size_t)plan->n_parameters + 1, sizeof *file.tensors);
    Weights weights = { 0 };
    bool saved = false;
    if (weights_download(&weights, session, error)) {
        if (file.tensors && collect_metadata(&file, plan, state, threshold)
            && collect_tensors(&file, plan, &weights))
            saved = safetensors_write(path, &file, error);
        else
            fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory for a checkpoint", path);
    }
    for (int i = 0; i < file.n_tensors; i++)
        free(file.tensors[i].name);
    for (int i = 0; i < file.n_metadata; i++) {
        free(keys[i]);
        free(values[i]);
    }
    free(file.tensors);
    weights_close(&weights);
    return saved;
}

/* ---- loading ---- */

static bool take_moment(const SafeTensors *file, const char *prefix, const PlanParameter *parameter,
                        char *to, Error *error)
{
    char name[4200];
    snprintf(name, sizeof name, "%s%s", prefix, parameter->name);
    const SafeTensor *tensor = safetensors_find(file, name);
    if (!tensor)
        return fail(error, EXIT_USER, "to begin a new run from these weights: --weights FILE",
                    "%s: cannot go on from it: '%s' is missing", file->path, name);
    if (tensor->type != PLAN_F32 || tensor->bytes != 4 * params_count(parameter))
        return fail(error, EXIT_USER, "", "%s: '%s' has not the size of its parameter", file->path,
                    name);
    memcpy(to, tensor->data, (size_t)tensor->bytes);
    return true;
}

static bool take_moments(const SafeTensors *file, const Plan *plan, char *moments, Error *error)
{
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        char *first = moments + parameter->offset, *second = first + plan->trainable_bytes;
        if (parameter->trainable
            && !(take_moment(file, FIRST_MOMENT, parameter, first, error)
                 && take_moment(file, SECOND_MOMENT, parameter, second, error)))
            return false;
    }
    return true;
}

/* Where a file holds an average under the parameters' names, what was trained stands beside it. */
static bool take_trained(Weights *weights, const Plan *plan, const SafeTensors *file, Error *error)
{
    char name[4200];
    snprintf(name, sizeof name, TRAINED "%s", plan->n_parameters ? plan->parameters[0].name : "");
    if (!safetensors_find(file, name))
        return true;
    if (!allocate_average(weights, plan, error))
        return false;
    memcpy(weights->average, weights->parameters, (size_t)plan->parameter_bytes);
    for (int i = 0; i < plan->n_parameters; i++)
        if (!take_moment(file, TRAINED, &plan->parameters[i],
                         weights->parameters + plan->parameters[i].offset, error))
            return false;
    return true;
}

bool weights_take(Weights *weights, const Plan *plan, const SafeTensors *file, bool moments,
                  Error *error)
{
    return params_load(plan, file, weights->parameters, true, error)
        && (!moments || (take_moments(file, plan, weights->moments, error)
                         && take_trained(weights, plan, file, error)));
}

SafeTensors *weights_read(Weights *weights, const Session *session, Error *error)
{
    SafeTensors *file = safetensors_open(session->options->weights, error);
    if (file
        && !(weights_allocate(weights, session->plan, false, error)
             && weights_take(weights, session->plan, file, false, error))) {
        safetensors_close(file);
        return NULL;
    }
    return file;
}

double threshold_of(const Options *options, const SafeTensors *file)
{
    const char *trained = checkpoint_value(file, "threshold");
    double value = trained ? strtod(trained, NULL) : -1;
    if (option_given(options, "threshold"))
        return options->threshold;
    return value >= 0 && value <= 1 ? value : 0.5;
}
