/* libFuzzer: a safetensors file, the state of a run in its metadata, and its tensors into a model's
 * parameters by name. See make fuzz.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/commands.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Of the seeds' first convolution. */
static PlanParameter parameters[] = {
    {.name = "conv.weight", .rank = 4, .dims = {2, 3, 3, 3}, .trainable = true},
    {.name = "conv.bias", .rank = 1, .dims = {2}, .trainable = true, .offset = 256},
};
static const Plan plan = {.model = "tiny", .n_parameters = 2, .parameters = parameters,
                          .parameter_bytes = 320, .trainable_bytes = 320, .file = "tiny.plan"};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    Error error = {0};
    RunState state;
    char report[PARAMS_REPORT];
    float slab[80];
    void *copy = malloc(size + 1);
    memcpy(copy, bytes, size);
    SafeTensors *file = safetensors_parse(copy, size, "fuzz.safetensors", &error);
    if (!file)
        return 0;
    for (int i = 0; i < file->n_tensors; i++) {
        const SafeTensor *tensor = &file->tensors[i];
        float *floats = malloc((size_t)tensor->bytes * 2 + 1);
        safetensor_floats(tensor, floats);
        free(floats);
    }
    if (checkpoint_state(file, &state, &error))
        run_state_close(&state);
    params_load(&plan, file, slab, true, &error);
    params_load(&plan, file, slab, false, &error);
    params_take_part(&plan, file, "", slab, report, &error);
    params_take_part(&plan, file, "conv", slab, report, &error);
    safetensors_close(file);
    return 0;
}
