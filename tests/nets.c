/* See nets.h. */
#include "nets.h"

#include <stdlib.h>

/* The deepest maps of the ResNets at 32 x 32 are single pixels: batch norm divides by the deviation
 * of four values, so the roundings of Winograd's products, some three times those of direct ones,
 * come out some hundred times larger. */
const Net nets[] = {
    {"unet", "models/unet.seg", {{"width", "4"}, {"size", "32"}}, 2, 1e-4, 2e-3, false},
    {"unet-wide", "models/unet.seg", {{"width", "16"}, {"size", "64"}}, 2, 1e-4, 2e-3, true},
    {"unet-odd", "models/unet.seg", {{"width", "8"}, {"size", "50"}}, 3, 1e-4, 2e-3, false},
    {"resnet34_unet", "models/resnet34_unet.seg", {{"size", "32"}}, 4, 3e-4, 5e-3, false},
    {"resnet34_unet-odd", "models/resnet34_unet.seg", {{"size", "42"}, {"pool_padding", "0"}}, 3,
     1e-4, 5e-3, false},
    {"resnet34_unet_paper", "models/resnet34_unet_paper.seg", {{"size", "32"}}, 4, 3e-4, 5e-3, false},
};
const int n_nets = sizeof nets / sizeof *nets;

Case net_case(const Net *net)
{
    int n = 0;
    while (n < MAX_DEFINES && net->defines[n].name)
        n++;
    return (Case){.path = net->path, .defines = net->defines, .n_defines = n, .plain_inputs = true,
                  .winograd = true,
                  .batch = net->batch, .seed = 11, .tolerance = net->tolerance};
}

Executor *open_training(const Plan *plan, Device *device, int batch, Error *error)
{
    Executor *executor = executor_open(plan, device, batch, error);
    if (!executor)
        return NULL;
    float *parameters = calloc((size_t)plan->parameter_bytes + 1, 1);
    params_initialise(plan, 1, parameters);
    bool ok = executor_upload(executor, SLAB_PARAMETERS, parameters, error);
    free(parameters);
    if (!ok) {
        executor_close(executor);
        return NULL;
    }
    return executor;
}

bool train_step(Executor *executor, const Plan *plan, const char *target, int step, int batch,
                double rate, float *loss, Error *error)
{
    const PlanProgram *program = plan_program(plan_target(plan, target), "train");
    *executor_state(executor) = (PlanState){.learning_rate = rate, .beta1 = 0.9, .beta2 = 0.999,
                                            .eps = 1e-8, .step = step, .seed = (uint64_t)step};
    return write_sources(executor, program, batch, (uint64_t)(step % 2), error)
           && executor_run(executor, "train", batch, error)
           && executor_read(executor, "train", "loss", loss, batch, error);
}

bool read_losses(const char *path, double losses[STEPS])
{
    FILE *file = fopen(path, "r");
    int n = 0;
    char line[200];
    while (file && fgets(line, sizeof line, file) && n < STEPS)
        n += sscanf(line, "step %*d loss %lf", &losses[n]) == 1;
    if (file)
        fclose(file);
    return n == STEPS;
}
