/* Choosing among the ways that a device has to run a program's steps: see executor_tune in run.h.
 *
 * The device times its kernels on the program's own memory, so what a run finds there, and may
 * change, is kept on the host meanwhile: parameters, moments and what was written for the run.
 */
#include <stdlib.h>

#include "executor.h"

/* What a run finds, and may change: kept on the host while kernels are timed. */
typedef struct { void *place, *copy; int64_t bytes; } Kept;

static bool keep(Executor *executor, Kept *kept, void *place, int64_t bytes, Error *error)
{
    if (bytes == 0)
        return true;
    *kept = (Kept){ place, malloc((size_t)bytes), bytes };
    if (!kept->copy)
        return fail(error, EXIT_ENVIRONMENT, "--no-tune runs without",
                    "not enough memory to time kernels");
    return executor->device->download(executor->device, kept->copy, place, bytes, error);
}

static bool keep_all(Executor *executor, int index, int batch, Kept *kept, Error *error)
{
    const PlanProgram *program = executor->programs[index].plan;
    bool done = keep(executor, &kept[0], executor->kept[SLAB_PARAMETERS],
                     executor->bytes[SLAB_PARAMETERS], error)
             && keep(executor, &kept[1], executor->kept[SLAB_MOMENTS],
                     executor->bytes[SLAB_MOMENTS], error);
    for (int i = 0; done && i < program->n_tensors; i++) {
        const PlanTensor *tensor = &program->tensors[i];
        if (tensor->role == ROLE_INPUT || tensor->role == ROLE_TARGET)
            done = keep(executor, &kept[2 + i],
                        buffer_place(executor, index, &tensor->buffer, batch),
                        tensor_bytes(tensor, batch), error);
    }
    return done;
}

bool executor_tune(Executor *executor, const char *program, int batch, Error *error)
{
    int index = find_program(executor, program, batch, error);
    Device *device = executor->device;
    if (index < 0 || !device->tune)
        return index >= 0;
    if (!take_shared(executor, index, error))
        return false;
    const PlanProgram *plan = executor->programs[index].plan;
    DeviceRun work = run_of(executor, index, DEFAULT_PARTS, batch), nothing = work;
    nothing.n_steps = 0; /* but what was fed is in its place then */
    executor->prepared = -1;
    executor->ran = -1;
    work.once = true;
    Kept *kept = calloc((size_t)plan->n_tensors + 2, sizeof *kept);
    bool done = kept ? upload_state(executor, error) && device->run(device, &nothing, error)
                           && keep_all(executor, index, batch, kept, error)
                           && device->tune(device, &work, error)
                     : fail(error, EXIT_ENVIRONMENT, "", "not enough memory to time kernels");
    for (int i = 0; kept && i < plan->n_tensors + 2; i++) {
        done = done && (!kept[i].copy || device->upload(device, kept[i].place, kept[i].copy,
                                                        kept[i].bytes, error));
        free(kept[i].copy);
    }
    free(kept);
    return done;
}

