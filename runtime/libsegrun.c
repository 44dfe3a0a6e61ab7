/* The functions of segrun.h, on the runtime's core. Only they are visible in libsegrun.so. */
#include "segrun.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

#define PUBLIC __attribute__((visibility("default")))

static const char program_name[] = "predict";

struct SegNetwork {
    Plan *plan;
    Device *device;
    Executor *executor;
    const PlanTensor **tensors;    /* the inputs, then the outputs */
    int n_inputs, n_outputs, max_batch;
    char message[SEG_MESSAGE];
};

static void put_message(char message[SEG_MESSAGE], const Error *error)
{
    snprintf(message, SEG_MESSAGE, "%s%s%s", error->text, error->hint[0] ? "\nhint: " : "",
             error->hint);
}

static int add_role(SegNetwork *net, const PlanProgram *program, PlanRole role, int at)
{
    for (int i = 0; i < program->n_tensors; i++)
        if (program->tensors[i].role == role)
            net->tensors[at++] = &program->tensors[i];
    return at;
}

static bool list_tensors(SegNetwork *net, Error *error)
{
    const PlanTarget *target = plan_target(net->plan, device_target(net->device));
    const PlanProgram *program = target ? plan_program(target, program_name) : NULL;
    if (!program)
        return fail(error, EXIT_USER, "compile the model again with segc",
                    "%s: the plan cannot predict", net->plan->file);
    net->tensors = calloc((size_t)program->n_tensors + 1, sizeof *net->tensors);
    if (!net->tensors)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    net->n_inputs = add_role(net, program, ROLE_INPUT, 0);
    net->n_outputs = add_role(net, program, ROLE_OUTPUT, net->n_inputs) - net->n_inputs;
    return true;
}

static bool load_weights(SegNetwork *net, const char *path, Error *error)
{
    size_t bytes = (size_t)net->plan->parameter_bytes;
    SafeTensors *weights = safetensors_open(path, error);
    char *parameters = weights ? calloc(bytes ? bytes : 1, 1) : NULL;
    bool fine = parameters && params_load(net->plan, weights, parameters, true, error)
        && executor_upload(net->executor, SLAB_PARAMETERS, parameters, error);
    if (weights && !parameters)
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory for the weights", path);
    free(parameters);
    if (weights)
        safetensors_close(weights);
    return fine;
}

static bool open_network(SegNetwork *net, const char *plan, const char *weights,
                         const SegOptions *options, Error *error)
{
    net->max_batch = options->max_batch > 0 ? options->max_batch : 1;
    if (!(net->plan = plan_open(plan, error)))
        return false;
    DeviceOptions wanted = {
        .name = options->device ? options->device : "auto", .precision = options->precision,
        .plan = net->plan, .threads = options->threads, .trust = options->trust,
    };
    if (!(net->device = device_open(&wanted, error)) || !list_tensors(net, error)
        || !executor_check(net->plan, net->device, program_name, net->max_batch, error))
        return false;
    net->executor = executor_open_for(net->plan, net->device, program_name, net->max_batch, error);
    return net->executor && load_weights(net, weights, error);
}

PUBLIC SegNetwork *seg_open(const char *plan, const char *weights, const SegOptions *options,
                            char message[SEG_MESSAGE])
{
    static const SegOptions standard;
    Error error = {0};
    SegNetwork *net = calloc(1, sizeof *net);
    if (!net)
        fail(&error, EXIT_ENVIRONMENT, "", "not enough memory");
    if (net && open_network(net, plan, weights, options ? options : &standard, &error))
        return net;
    put_message(message, &error);
    seg_close(net);
    return NULL;
}

PUBLIC void seg_close(SegNetwork *net)
{
    if (!net)
        return;
    if (net->executor)
        executor_close(net->executor);
    if (net->device)
        device_close(net->device);
    if (net->plan)
        plan_close(net->plan);
    free(net->tensors);
    free(net);
}

/* An empty one where there is no such index. */
static SegTensor describe(const SegNetwork *net, int index, int first, int count)
{
    if (index < 0 || index >= count)
        return (SegTensor){.name = ""};
    const PlanTensor *tensor = net->tensors[first + index];
    return (SegTensor){.name = tensor->name, .type = tensor->type == PLAN_U8 ? SEG_BYTE : SEG_FLOAT,
                       .channels = (int)tensor->dims[0], .height = (int)tensor->dims[1],
                       .width = (int)tensor->dims[2]};
}

PUBLIC int seg_inputs(const SegNetwork *net) { return net->n_inputs; }
PUBLIC int seg_outputs(const SegNetwork *net) { return net->n_outputs; }
PUBLIC const char *seg_device(const SegNetwork *net) { return device_describe(net->device); }
PUBLIC const char *seg_message(const SegNetwork *net) { return net->message; }

PUBLIC SegTensor seg_input(const SegNetwork *net, int index)
{
    return describe(net, index, 0, net->n_inputs);
}

PUBLIC SegTensor seg_output(const SegNetwork *net, int index)
{
    return describe(net, index, net->n_inputs, net->n_outputs);
}

static bool run(SegNetwork *net, int batch, const void *const *inputs, void *const *outputs,
                Error *error)
{
    if (batch < 1 || batch > net->max_batch)
        return fail(error, EXIT_USER, "set max_batch in the SegOptions of seg_open",
                    "a batch of %d, where the network was opened for 1 to %d", batch,
                    net->max_batch);
    for (int i = 0; i < net->n_inputs; i++)
        if (!executor_write(net->executor, program_name, net->tensors[i]->name, inputs[i], batch,
                            error))
            return false;
    if (!executor_run(net->executor, program_name, batch, error))
        return false;
    for (int i = 0; i < net->n_outputs; i++)
        if (!executor_read(net->executor, program_name, net->tensors[net->n_inputs + i]->name,
                           outputs[i], batch, error))
            return false;
    return true;
}

PUBLIC bool seg_run(SegNetwork *net, int batch, const void *const *inputs, void *const *outputs)
{
    Error error = {0};
    if (run(net, batch, inputs, outputs, &error))
        return true;
    put_message(net->message, &error);
    return false;
}
