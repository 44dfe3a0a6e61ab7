/* Parameters by name: taking them from a file, all of them or those that fit.
 *
 * Everything is compared before anything is changed, so that one message names all that differs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

int64_t params_count(const PlanParameter *parameter)
{
    int64_t count = 1;
    for (int i = 0; i < parameter->rank; i++)
        count *= parameter->dims[i];
    return count;
}

/* ---- by name --------------------------------------------------------------------------------- */

/* Names that differ, up to 10 each, in one line. */
typedef struct { int count; size_t length; char text[330]; } List;
typedef struct { List missing, unexpected, shapes; } Differences;
enum { MAX_LISTED = 10 };

static void list_add(List *list, const char *name, const char *more)
{
    size_t room = sizeof list->text - list->length;
    if (list->count < MAX_LISTED) {
        int n = snprintf(list->text + list->length, room, "%s%s%s", list->count ? ", " : "", name,
                         more);
        if ((size_t)n < room)
            list->length += (size_t)n;
        else
            list->text[list->length] = 0; /* no half names */
    }
    list->count++;
}

static void list_print(const List *list, const char *what, char *text, size_t size)
{
    size_t length = strlen(text);
    if (list->count)
        snprintf(text + length, size - length, "%s%d %s: %s%s", length ? "; " : "", list->count,
                 what, list->text, list->count > MAX_LISTED || !list->length ? ", ..." : "");
}

static void print_shape(int rank, const int64_t *dims, char text[128])
{
    int n = snprintf(text, 128, "[");
    for (int i = 0; i < rank && n < 100; i++)
        n += snprintf(text + n, 128 - (size_t)n, "%s%lld", i ? "," : "", (long long)dims[i]);
    snprintf(text + n, 128 - (size_t)n, "]");
}

static bool is_floats(const SafeTensor *tensor)
{
    const char *type = tensor->dtype;
    return (!*type && tensor->type == PLAN_F32) || strcmp(type, "F32") == 0
        || strcmp(type, "F16") == 0 || strcmp(type, "BF16") == 0 || strcmp(type, "F64") == 0;
}

static bool fits(const PlanParameter *parameter, const SafeTensor *tensor)
{
    if (!is_floats(tensor) || tensor->rank != parameter->rank)
        return false;
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->dims[i] != parameter->dims[i])
            return false;
    return true;
}

static void add_shape(List *shapes, const PlanParameter *parameter, const SafeTensor *tensor)
{
    char there[128], wanted[128], text[300];
    print_shape(tensor->rank, tensor->dims, there);
    print_shape(parameter->rank, parameter->dims, wanted);
    snprintf(text, sizeof text, " is %s%s, not %s", is_floats(tensor) ? "" : tensor->dtype, there,
             wanted);
    list_add(shapes, parameter->name, text);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Adam's moments, and the counters that PyTorch's batch norm keeps and nobody reads. */
static bool is_expected(const char *name)
{
    static const char ending[] = "num_batches_tracked";
    size_t n = strlen(name), m = sizeof ending - 1;
    return strncmp(name, "optimizer.", 10) == 0 || (n >= m && strcmp(name + n - m, ending) == 0);
}

static bool find_unexpected(const Plan *plan, const SafeTensors *tensors, List *unexpected)
{
    char **names = calloc((size_t)plan->n_parameters + 1, sizeof *names);
    if (!names)
        return false;
    for (int i = 0; i < plan->n_parameters; i++)
        names[i] = plan->parameters[i].name;
    qsort(names, (size_t)plan->n_parameters, sizeof *names, by_text);
    for (int i = 0; i < tensors->n_tensors; i++) {
        const char *name = tensors->tensors[i].name;
        if (!is_expected(name)
            && !bsearch(&name, names, (size_t)plan->n_parameters, sizeof *names, by_text))
            list_add(unexpected, name, "");
    }
    free(names);
    return true;
}

static void find_differences(const Plan *plan, const SafeTensors *tensors, Differences *differences)
{
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        const SafeTensor *tensor = safetensors_find(tensors, parameter->name);
        if (!tensor) {
            list_add(&differences->missing, parameter->name, "");
        } else if (!fits(parameter, tensor)) {
            add_shape(&differences->shapes, parameter, tensor);
        }
    }
}

bool params_load(const Plan *plan, const SafeTensors *tensors, void *parameters, bool strict,
                 Error *error)
{
    Differences differences = { 0 };
    const char *path = tensors->path ? tensors->path : "the weights";
    char text[1000] = "";
    if (!find_unexpected(plan, tensors, &differences.unexpected))
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    find_differences(plan, tensors, &differences);
    list_print(&differences.shapes, "of another shape", text, sizeof text);
    list_print(&differences.missing, "missing", text, sizeof text);
    list_print(&differences.unexpected, "unexpected", text, sizeof text);
    if (*text && strict)
        return fail(error, EXIT_USER, "use weights of this model, made with the same -D options",
                    "%s: not the tensors of '%s': %s", path, plan->model, text);
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        const SafeTensor *tensor = safetensors_find(tensors, parameter->name);
        if (tensor && fits(parameter, tensor))
            safetensor_floats(tensor, (float *)((char *)parameters + parameter->offset));
    }
    if (error)
        *error = (Error){ 0 };
    if (*text)
        fail(error, EXIT_FINE, "", "%s: left out: %s", path, text);
    return true;
}

/* ---- part of a model ------------------------------------------------------------------------- */

/* The tensor NAME for the parameter PREFIX.NAME, or NULL. */
static const SafeTensor *find_inner(const SafeTensors *tensors, const PlanParameter *parameter,
                                    const char *prefix)
{
    const char *name = parameter->name;
    size_t length = strlen(prefix);
    if (length && (strncmp(name, prefix, length) != 0 || name[length] != '.'))
        return NULL;
    return safetensors_find(tensors, length ? name + length + 1 : name);
}

static bool nothing_fits(const Plan *plan, const SafeTensors *tensors, const char *prefix,
                         const char *path, Error *error)
{
    char hint[512];
    snprintf(hint, sizeof hint, "the file has names like '%.100s', the model like '%.100s'; segrun "
             "convert --rename OLD=NEW changes how names begin",
             tensors->n_tensors ? tensors->tensors[0].name : "", plan->parameters[0].name);
    return fail(error, EXIT_USER, hint, "%s: holds no parameter of '%s'%s%s", path, plan->model,
                *prefix ? " below " : "", prefix);
}

bool params_take_part(const Plan *plan, const SafeTensors *tensors, const char *prefix,
                      void *parameters, char report[PARAMS_REPORT], Error *error)
{
    const char *path = tensors->path ? tensors->path : "the weights";
    List kept = { 0 }, skipped = { 0 }, shapes = { 0 };
    bool *used = calloc((size_t)tensors->n_tensors + 1, sizeof *used);
    if (!used)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    int taken = 0, counters = 0;
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        const SafeTensor *tensor = find_inner(tensors, parameter, prefix);
        if (!tensor)
            list_add(&kept, parameter->name, "");
        else if (!fits(parameter, tensor))
            add_shape(&shapes, parameter, tensor);
        else
            taken++;
        if (tensor)
            used[tensor - tensors->tensors] = true;
    }
    for (int i = 0; i < plan->n_parameters && !shapes.count; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        const SafeTensor *tensor = find_inner(tensors, parameter, prefix);
        if (tensor)
            safetensor_floats(tensor, (float *)((char *)parameters + parameter->offset));
    }
    for (int i = 0; i < tensors->n_tensors; i++) {
        if (!used[i] && is_expected(tensors->tensors[i].name))
            counters++;
        else if (!used[i])
            list_add(&skipped, tensors->tensors[i].name, "");
    }
    free(used);
    char text[1000] = "";
    if (shapes.count) {
        list_print(&shapes, "of another shape", text, sizeof text);
        return fail(error, EXIT_USER, "the layers must be those of the other network", "%s: %s",
                    path, text);
    }
    if (!taken)
        return nothing_fits(plan, tensors, prefix, path, error);
    char left[500] = "";
    list_print(&skipped, "skipped", text, sizeof text);
    list_print(&kept, "not in it, as they were", left, sizeof left);
    snprintf(report, PARAMS_REPORT, "%s: %d tensors taken, %d counters and moments skipped%s%s%s%s", path,
             taken, counters, *text ? "\n  " : "", text, *left ? "\n  " : "", left);
    return true;
}
