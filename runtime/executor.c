/* Runs the programs of a plan on a device.
 *
 * All memory is taken when the executor is opened (executor_memory.c). For each program there is a
 * table of resolved buffers, which is filled again only when the batch changes; a step of training
 * allocates nothing.
 *
 * Steps marked `once` (packing of weights, folding of batch norm) depend on parameters only. They
 * run when parameters may have changed since, and when another program has used the shared memory
 * since. Whether a program changes parameters is seen from what it touches: Adam's moments, or
 * buffers it updates. A program that `keeps_once` does those steps' work again itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executor.h"

/* ---- opening --------------------------------------------------------------------------------- */

static bool bind_program(BoundProgram *bound, const Plan *plan, const PlanProgram *program,
                         unsigned parts)
{
    size_t n = 0;
    for (int i = 0; i < program->n_steps; i++)
        n += (size_t)program->steps[i].n_buffers;
    bound->buffers = calloc(n + 1, sizeof *bound->buffers);
    bound->steps = calloc((size_t)program->n_steps + 1, sizeof *bound->steps);
    if (!bound->buffers || !bound->steps)
        return false;
    n = 0;
    for (int i = 0; i < program->n_steps; i++) {
        bound->steps[i] = (DeviceStep){ &program->steps[i], bound->buffers + n };
        n += (size_t)program->steps[i].n_buffers;
    }
    bound->plan = program;
    bound->parts = parts;
    place_slabs(plan, program, parts, bound->places);
    bound->changes_parameters = uses_slab(program, parts, SLAB_MOMENTS);
    for (int i = 0; i < program->n_tensors; i++)
        if (program->tensors[i].role == ROLE_UPDATE)
            bound->changes_parameters = true;
    return true;
}

static bool bind_programs(Executor *executor, const char *programs, Error *error)
{
    const PlanTarget *target = executor->target;
    int longest = 0;
    bool complete = (executor->programs = calloc((size_t)target->n_programs + 1,
                                                 sizeof *executor->programs)) != NULL;
    for (int i = 0; complete && i < target->n_programs; i++) {
        const PlanProgram *program = &target->programs[i];
        if (!is_listed(programs, program->name))
            continue;
        complete = bind_program(&executor->programs[i], executor->plan, program,
                                listed_parts(programs, program->name));
        longest = program->n_steps > longest ? program->n_steps : longest;
    }
    complete = complete && (executor->times = calloc((size_t)longest + 1, sizeof(double)));
    return complete || fail(error, EXIT_ENVIRONMENT, "", "not enough memory to run a plan");
}

static bool build_kernels(Executor *executor, Error *error)
{
    const PlanTarget *target = executor->target;
    const Plan *plan = executor->plan;
    const char *file = plan->file ? plan->file : plan->model;
    bool *needed = calloc((size_t)target->n_kernels + 1, sizeof *needed);
    if (!needed)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory to run a plan");
    for (int i = 0; i < target->n_programs; i++) {
        const PlanProgram *program = executor->programs[i].plan;
        for (int j = 0; program && j < program->n_steps; j++) {
            const PlanStep *step = &program->steps[j];
            if (!(executor->programs[i].parts >> step->part & 1))
                continue;
            needed[step->kernel] = true;
            for (int k = 0; executor->device->options.tune && k < step->n_launches; k++)
                needed[step->launches[k].kernel] = true;
        }
    }
    executor->kernels = executor->device->build(executor->device, target, needed, file, error);
    free(needed);
    return executor->kernels != NULL;
}

static bool check_programs(const Plan *plan, const PlanTarget *target, const char *programs,
                           Error *error)
{
    char name[208];
    for (const char *at = programs; at && *at; at += at[strcspn(at, ",")] != 0) {
        int n = (int)strcspn(at, ",");
        int stem = (int)strcspn(at, ",+");
        snprintf(name, sizeof name, "%.*s", stem < 200 ? stem : 200, at);
        at += n;
        if (!plan_program(target, name))
            return fail(error, EXIT_USER, "compile the model again with segc",
                        "%s has no program '%s'", plan->file ? plan->file : plan->model, name);
    }
    return true;
}

bool executor_check(const Plan *plan, const Device *device, const char *programs, int max_batch,
                    Error *error)
{
    const char *file = plan->file ? plan->file : plan->model;
    const PlanTarget *target = plan_target(plan, device->target);
    if (!target) {
        char hint[128];
        const char *precision = strchr(device->target, '-'); /* "cuda-tf32" */
        int length = (int)strcspn(device->target, "-");
        snprintf(hint, sizeof hint, "compile the model again with segc --target %.*s%s%s", length,
                 device->target, precision ? " --precision " : "", precision ? precision + 1 : "");
        return fail(error, EXIT_USER, hint, "%s has no kernels for the target '%s'", file,
                    device->target);
    }
    if (max_batch < 1 || max_batch > 1 << 17)
        return fail(error, EXIT_USER, "it is between 1 and 131072", "a batch of %d cannot be run",
                    max_batch);
    if (plan->foreign && !device->options.trust)
        return fail(error, EXIT_USER,
                    "--trust, if you trust whoever made it; or compile the model "
                    "again with segc",
                    "%s belongs to another user: it holds C that would run as you", file);
    return check_programs(plan, target, programs, error)
        && check_memory(plan, target, device, programs, max_batch, error);
}

Executor *executor_open_for(const Plan *plan, Device *device, const char *programs, int max_batch,
                            Error *error)
{
    if (!executor_check(plan, device, programs, max_batch, error))
        return NULL;
    const PlanTarget *target = plan_target(plan, device->target);
    Executor *executor = calloc(1, sizeof *executor);
    if (!executor) {
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory to run a plan");
        return NULL;
    }
    *executor = (Executor){ .plan = plan,
                            .target = target,
                            .device = device,
                            .max_batch = max_batch,
                            .prepared = -1,
                            .ran = -1,
                            .holds = -1 };
    if (bind_programs(executor, programs, error) && build_kernels(executor, error)
        && allocate_slabs(executor, programs, error))
        return executor;
    executor_close(executor);
    return NULL;
}

Executor *executor_open(const Plan *plan, Device *device, int max_batch, Error *error)
{
    return executor_open_for(plan, device, NULL, max_batch, error);
}

void executor_close(Executor *executor)
{
    if (!executor)
        return;
    release_slabs(executor);
    if (executor->kernels)
        executor->device->unload(executor->device, executor->kernels);
    for (int i = 0; executor->programs && i < executor->target->n_programs; i++) {
        free(executor->programs[i].buffers);
        free(executor->programs[i].steps);
    }
    free(executor->programs);
    free(executor->times);
    free(executor);
}

/* ---- running --------------------------------------------------------------------------------- */

int64_t tensor_bytes(const PlanTensor *tensor, int batch)
{
    return tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * (tensor->batched ? batch : 1)
         * (tensor->type == PLAN_U8 ? 1 : (int64_t)sizeof(float));
}

static void bind_batch(Executor *executor, int program, int batch)
{
    BoundProgram *bound = &executor->programs[program];
    if (bound->batch == batch)
        return;
    for (int i = 0; i < bound->plan->n_steps; i++)
        for (int j = 0; (bound->parts >> bound->plan->steps[i].part & 1)
                        && j < bound->plan->steps[i].n_buffers; j++)
            bound->steps[i].buffers[j] =
                buffer_place(executor, program, &bound->plan->steps[i].buffers[j], batch);
    bound->batch = batch;
}

/* Index of a program that was opened, for a batch that fits; -1 after an error. */
int find_program(const Executor *executor, const char *name, int batch, Error *error)
{
    int found = -1;
    for (int i = 0; i < executor->target->n_programs; i++)
        if (executor->programs[i].plan && strcmp(executor->programs[i].plan->name, name) == 0)
            found = i;
    if (found < 0)
        fail(error, EXIT_USER, "compile the model again with segc",
             "'%s' has no program '%s', or it was "
             "not opened",
             executor->plan->model, name);
    else if (batch >= 1 && batch <= executor->max_batch)
        return found;
    else
        fail(error, EXIT_USER, "", "program '%s': a batch of %d, but memory is for 1 to %d", name,
             batch, executor->max_batch);
    return -1;
}

DeviceRun run_of(Executor *executor, int program, unsigned parts, int batch)
{
    BoundProgram *bound = &executor->programs[program];
    bind_batch(executor, program, batch);
    return (DeviceRun){
        .kernels = executor->kernels, .steps = bound->steps, .n_steps = bound->plan->n_steps,
        .batch = batch, .once = executor->prepared != program, .parts = parts,
        .scratch = executor->scratch,
        .scratch_bytes = executor->scratch_bytes,
        .times = executor->profiling ? executor->times : NULL,
    };
}

bool upload_state(Executor *executor, Error *error)
{
    executor->state.gradient_scale = 1;
    return executor->device->upload(executor->device, executor->shared,
                                    &executor->state, sizeof executor->state, error);
}

bool executor_run(Executor *executor, const char *program, int batch, Error *error)
{
    return executor_run_parts(executor, program, DEFAULT_PARTS, batch, error);
}

bool executor_run_parts(Executor *executor, const char *program, unsigned parts, int batch,
                        Error *error)
{
    int index = find_program(executor, program, batch, error);
    if (index < 0 || !take_shared(executor, index, error))
        return false;
    Device *device = executor->device;
    BoundProgram *bound = &executor->programs[index];
    if (parts & ~bound->parts)
        return fail(error, EXIT_USER, "", "program '%s' was opened without what it shall do",
                    program);
    DeviceRun work = run_of(executor, index, parts, batch);
    if (device->options.tune && device->wants_tuning && device->wants_tuning(device, &work)
        && !executor_tune(executor, program, batch, error))
        return false;
    work.once = executor->prepared != index;
    executor->prepared = -1;
    executor->ran = -1;
    if (!upload_state(executor, error) || !device->run(device, &work, error))
        return false;
    executor->prepared = bound->changes_parameters && !bound->plan->keeps_once ? -1 : index;
    executor->ran = index;
    executor->ran_batch = batch;
    executor->written = false;
    return true;
}

bool executor_feeds(const Executor *executor)
{
    return executor->device->feed != NULL;
}

bool executor_synchronise(Executor *executor, Error *error)
{
    return executor->device->synchronise(executor->device, error);
}

/* ---- tensors --------------------------------------------------------------------------------- */

static const PlanTensor *find_tensor(const Executor *executor, int program, const char *name,
                                     bool given, Error *error)
{
    const PlanProgram *plan = executor->programs[program].plan;
    for (int i = 0; i < plan->n_tensors; i++) {
        const PlanTensor *tensor = &plan->tensors[i];
        if (strcmp(tensor->name, name) == 0
            && given == (tensor->role == ROLE_INPUT || tensor->role == ROLE_TARGET))
            return tensor;
    }
    fail(error, EXIT_USER, "segrun info lists them", "program '%s' of '%s' has no %s '%s'",
         plan->name, executor->plan->model, given ? "input or target" : "result", name);
    return NULL;
}

bool executor_write(Executor *executor, const char *program, const char *tensor, const void *data,
                    int batch, Error *error)
{
    int index = find_program(executor, program, batch, error);
    const PlanTensor *found = index < 0 ? NULL : find_tensor(executor, index, tensor, true, error);
    if (!found)
        return false;
    Device *device = executor->device;
    if (!device->feed && !take_shared(executor, index, error)) /* fed, it waits for the run */
        return false;
    executor->written = !device->feed;
    return (device->feed ? device->feed : device->upload)(
        device, buffer_place(executor, index, &found->buffer, batch), data,
        tensor_bytes(found, batch), error);
}

bool executor_read(Executor *executor, const char *program, const char *tensor, void *data,
                   int batch, Error *error)
{
    int index = find_program(executor, program, batch, error);
    const PlanTensor *found = index < 0 ? NULL : find_tensor(executor, index, tensor, false, error);
    if (!found)
        return false;
    if (executor->ran != index
        || (found->batched && (executor->written || executor->ran_batch != batch)))
        return fail(error, EXIT_USER, "",
                    "'%s' of program '%s' is not there: read it after a run with "
                    "that batch and before the next is written",
                    tensor, program);
    return executor->device->download(executor->device, data,
                                      buffer_place(executor, index, &found->buffer, batch),
                                      tensor_bytes(found, batch), error);
}

/* ---- slabs and the rest ---------------------------------------------------------------------- */

/* A slab that is kept, or the gradients of the last run. */
static void *find_slab(const Executor *executor, Slab slab, Error *error)
{
    int ran = executor->ran;
    const BoundProgram *bound = ran < 0 ? NULL : &executor->programs[ran];
    if (slab_is_kept(slab)
        || (slab == SLAB_GRADIENTS && bound && uses_slab(bound->plan, bound->parts, slab)))
        return slab_place(executor, ran, slab);
    fail(error, EXIT_USER, "", "'%s': what ran last has no such memory", executor->plan->model);
    return NULL;
}

bool executor_download(Executor *executor, Slab slab, void *data, Error *error)
{
    if (executor->bytes[slab] == 0)
        return true;
    const void *from = find_slab(executor, slab, error);
    return from
        && executor->device->download(executor->device, data, from, executor->bytes[slab], error);
}

bool executor_upload(Executor *executor, Slab slab, const void *data, Error *error)
{
    executor->prepared = -1;
    if (executor->bytes[slab] == 0)
        return true;
    void *to = find_slab(executor, slab, error);
    return to
        && executor->device->upload(executor->device, to, data, executor->bytes[slab], error);
}

static bool initialise_slab(Executor *executor, Slab slab, uint64_t seed, Error *error)
{
    char *there = executor_slab(executor, slab), *copy = NULL;
    if (executor->bytes[slab] == 0)
        return true;
    if (!there && !(copy = calloc(1, (size_t)executor->bytes[slab])))
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the weights");
    params_initialise(executor->plan, seed, there ? there : copy);
    bool written = there || executor_upload(executor, slab, copy, error);
    free(copy);
    return written;
}

bool executor_initialise(Executor *executor, uint64_t seed, Error *error)
{
    return initialise_slab(executor, SLAB_PARAMETERS, seed, error)
        && initialise_slab(executor, SLAB_AVERAGE, seed, error);
}

void *executor_slab(Executor *executor, Slab slab)
{
    executor->prepared = -1;
    return executor->device->direct ? executor->kept[slab] : NULL;
}

PlanState *executor_state(Executor *executor) { return &executor->state; }

int64_t executor_slab_bytes(const Executor *executor, Slab slab) { return executor->bytes[slab]; }

int64_t executor_bytes(const Executor *executor)
{
    int64_t total = executor->shared_bytes
                  + executor->scratch_bytes * executor->device->scratch_copies;
    for (int i = 0; i < SLAB_COUNT; i++)
        total += slab_is_kept(i) ? executor->bytes[i] : 0;
    return total;
}

void executor_profile(Executor *executor, bool on) { executor->profiling = on; }

const double *executor_step_times(const Executor *executor) { return executor->times; }
