/* outputs PLAN WEIGHTS PROGRAM BATCH [NAME]: an output of a program, as floats, for pictures as
 * bytes.
 *
 * Pictures come on standard input as [3][H][W] bytes of the model's size, one behind the other, and
 * leave on standard output as the floats of the program's output of that name, or its first. segrun
 * writes only pictures of 8 bits; check.py compares all the digits. Uses nothing but the core of the
 * runtime.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

static int failed(const Error *error)
{
    fprintf(stderr, "outputs: %s\n", error->text);
    return 1;
}

/* The first of a role, or the one of that name. */
static const PlanTensor *tensor_of(const PlanProgram *program, PlanRole role, const char *name)
{
    for (int i = 0; i < program->n_tensors; i++)
        if (program->tensors[i].role == role
            && (!name || strcmp(program->tensors[i].name, name) == 0))
            return &program->tensors[i];
    return NULL;
}

/* Elements of one sample. */
static size_t sample_count(const PlanTensor *tensor)
{
    return (size_t)(tensor->dims[0] * tensor->dims[1] * tensor->dims[2]);
}

static bool load(const Plan *plan, Executor *executor, const char *path, Error *error)
{
    SafeTensors *file = safetensors_open(path, error);
    void *slab = malloc((size_t)executor_slab_bytes(executor, SLAB_PARAMETERS) + 1);
    bool loaded = file && slab && executor_download(executor, SLAB_PARAMETERS, slab, error)
                  && params_load(plan, file, slab, true, error)
                  && executor_upload(executor, SLAB_PARAMETERS, slab, error);
    free(slab);
    if (file)
        safetensors_close(file);
    return loaded;
}

static bool run(Executor *executor, const PlanProgram *program, int batch, const char *name,
                Error *error)
{
    const PlanTensor *image = tensor_of(program, ROLE_INPUT, NULL);
    const PlanTensor *output = tensor_of(program, ROLE_OUTPUT, name);
    const PlanTensor *target = tensor_of(program, ROLE_TARGET, NULL);
    if (!image || !output)
        return fail(error, EXIT_USER, "", "the program has no input or no such output");
    size_t in = sample_count(image), out = sample_count(output) * sizeof(float);
    char *bytes = malloc(in * (size_t)batch), *floats = malloc(out * (size_t)batch);
    char *zeros = target ? calloc((size_t)batch, sample_count(target) * sizeof(float)) : NULL;
    size_t n = 0;
    bool fine = bytes && floats && (!target || zeros);
    while (fine && (n = fread(bytes, in, (size_t)batch, stdin)) > 0)
        fine = executor_write(executor, program->name, image->name, bytes, (int)n, error)
               && (!target
                   || executor_write(executor, program->name, target->name, zeros, (int)n, error))
               && executor_run(executor, program->name, (int)n, error)
               && executor_read(executor, program->name, output->name, floats, (int)n, error)
               && fwrite(floats, out, n, stdout) == n;
    free(bytes);
    free(floats);
    free(zeros);
    return fine;
}

int main(int argc, char **argv)
{
    Error error = { .text = "a short write, or not enough memory" };
    if (argc != 5 && argc != 6) {
        fprintf(stderr, "usage: outputs PLAN WEIGHTS PROGRAM BATCH [NAME]\n");
        return 2;
    }
    DeviceOptions wanted = { .name = "cpu" };
    Plan *plan = plan_open(argv[1], &error);
    const PlanTarget *target = plan ? plan_target(plan, "host") : NULL;
    const PlanProgram *program = target ? plan_program(target, argv[3]) : NULL;
    Device *device = program ? device_open(&wanted, &error) : NULL;
    Executor *executor =
        device ? executor_open_for(plan, device, argv[3], atoi(argv[4]), &error) : NULL;
    bool fine = executor && load(plan, executor, argv[2], &error)
                && run(executor, program, atoi(argv[4]), argv[5], &error);
    if (executor)
        executor_close(executor);
    if (device)
        device_close(device);
    if (plan)
        plan_close(plan);
    return fine ? 0 : failed(&error);
}
