/* `segrun convert`: the weights of a checkpoint, or of a file from elsewhere, as plain safetensors.
 *
 * Kept: tensors of floats, as float32 under their names (perhaps renamed). Left out: Adam's moments
 * (optimizer.*), what is not of floats, such as num_batches_tracked, and the metadata of the run.
 * With a plan the result is checked against it, with the same list of missing and unexpected names
 * that training gives.
 */
#include "commands.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    SafeTensors file;        /* of floats that are in `values` */
    float *values;
    int moments, others;     /* left out */
} Conversion;

static bool is_moment(const SafeTensor *tensor)
{
    return strncmp(tensor->name, "optimizer.", 10) == 0;
}

static int64_t count_of(const SafeTensor *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        count *= tensor->dims[i];
    return count;
}

/* --rename OLD=NEW; a new text. */
static char *rename_tensor(const char *name, const char *rename)
{
    const char *equals = rename ? strchr(rename, '=') : NULL;
    size_t length = equals ? (size_t)(equals - rename) : 0;
    char *text = NULL;
    if (!equals || strncmp(name, rename, length) != 0)
        return strdup(name);
    return asprintf(&text, "%s%s", equals + 1, name + length) < 0 ? NULL : text;
}

static bool collect(Conversion *out, const SafeTensors *from, const char *rename, Error *error)
{
    int64_t room = 0;
    for (int i = 0; i < from->n_tensors; i++)
        room += count_of(&from->tensors[i]);
    out->values = calloc((size_t)room + 1, sizeof *out->values);
    out->file.tensors = calloc((size_t)from->n_tensors + 1, sizeof *out->file.tensors);
    bool memory = out->values && out->file.tensors;
    float *values = out->values;
    for (int i = 0; memory && i < from->n_tensors; i++) {
        const SafeTensor *tensor = &from->tensors[i];
        if (is_moment(tensor) || !safetensor_floats(tensor, values)) {
            *(is_moment(tensor) ? &out->moments : &out->others) += 1;
            continue;
        }
        SafeTensor *copy = &out->file.tensors[out->file.n_tensors++];
        *copy = (SafeTensor){ .name = rename_tensor(tensor->name, rename), .type = PLAN_F32,
                              .rank = tensor->rank, .data = values, .bytes = 4 * count_of(tensor) };
        memcpy(copy->dims, tensor->dims, sizeof copy->dims);
        values += count_of(tensor);
        memory = copy->name != NULL;
    }
    if (!memory)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", from->path);
    return out->file.n_tensors > 0
        || fail(error, EXIT_USER, "", "%s: holds no weights of floats", from->path);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const SafeTensor *)a)->name, ((const SafeTensor *)b)->name);
}

/* Renaming may make two names one. */
static bool check_names(Conversion *out, const char *rename, Error *error)
{
    SafeTensors *file = &out->file;
    qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, by_name);
    for (int i = 0; i < file->n_tensors; i++) {
        const char *name = file->tensors[i].name;
        if (!*name || (i && strcmp(name, file->tensors[i - 1].name) == 0))
            return fail(error, EXIT_USER, "choose another NEW", "--rename %s: %s '%s'", rename,
                        *name ? "two tensors would be called" : "a tensor would have no name", name);
    }
    return true;
}

static bool check_plan(const Conversion *out, const char *path, const char *from, Error *error)
{
    Plan *plan = plan_open(path, error);
    if (!plan)
        return false;
    SafeTensors named = out->file;
    named.path = from;
    void *scratch = calloc(1, (size_t)plan->parameter_bytes + 1);
    bool fine = scratch ? params_load(plan, &named, scratch, true, error)
                        : fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    free(scratch);
    plan_close(plan);
    return fine;
}

static bool convert(const Options *options, Conversion *out, Error *error)
{
    static char format[] = "format", torch[] = "pt";
    char *keys[] = { format }, *values[] = { torch };
    const char *rename = options->rename;
    if (!options->output)
        return fail(error, EXIT_USAGE, "-o FILE", "convert: which file is written?");
    if (rename && !strchr(rename, '='))
        return fail(error, EXIT_USAGE, "", "--rename '%s': expected OLD=NEW", rename);
    SafeTensors *from = safetensors_open(options->operands[0], error);
    if (!from)
        return false;
    bool fine = collect(out, from, rename, error) && check_names(out, rename, error)
        && (!options->plan || check_plan(out, options->plan, options->operands[0], error));
    safetensors_close(from);
    SafeTensors file = out->file;
    file.n_metadata = 1;
    file.keys = keys;
    file.values = values;
    return fine && safetensors_write(options->output, &file, error);
}

int command_convert(const Options *options)
{
    Conversion out = { 0 };
    Error error = { 0 };
    bool fine = convert(options, &out, &error);
    int64_t count = 0;
    for (int i = 0; i < out.file.n_tensors; i++) {
        count += out.file.tensors[i].bytes / 4;
        free(out.file.tensors[i].name);
    }
    free(out.file.tensors);
    free(out.values);
    if (!fine)
        return report(&error);
    char numbers[32];
    format_count(count, numbers);
    if (!options->quiet)
        printf("%s: %d tensors, %s numbers; left out: %d of the optimiser, %d others\n",
               options->output, out.file.n_tensors, numbers, out.moments, out.others);
    return EXIT_FINE;
}
