/* Weights for what the compiler writes with weights inside: a safetensors file into the slab of
 * parameters, by the runtime's own reader (runtime/files.h), and its errors as the compiler's.
 */
#include "weights.h"

#include <stdlib.h>

bool report_error(Compilation *c, const Error *error)
{
    const char *hint = *error->hint ? error->hint : "check the file's name and its place";
    if (error->code == EXIT_ENVIRONMENT)
        error_system(c, hint, "%s", error->text);
    else
        error_at(c, (Loc){0}, "%s (%s)", error->text, hint);
    return false;
}

char *read_weights(Compilation *c, const Plan *plan, const char *path)
{
    Error error = {0};
    SafeTensors *file = safetensors_open(path, &error);
    char *parameters = file ? calloc(1, (size_t)plan->parameter_bytes + PLAN_ALIGN) : NULL;
    bool loaded = false;
    if (file && !parameters)
        fail(&error, EXIT_ENVIRONMENT, "", "not enough memory for the weights of %s", path);
    else if (file)
        loaded = params_load(plan, file, parameters, true, &error);
    safetensors_close(file);
    if (loaded)
        return parameters;
    free(parameters);
    report_error(c, &error);
    return NULL;
}
