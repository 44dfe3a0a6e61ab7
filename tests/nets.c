/* See nets.h. */
#include "nets.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* `deep`: rounding takes the other side of some of the many relus than the oracle does, and moves
 * whole gradients; the last maps, of one to four pixels, multiply that by their batch norms. Where
 * products are rounded as Winograd's are, this happens for every choice of values; so such a
 * network is compared with direct products, and a copy that has no jumps with Winograd's. */
const Net nets[] = {
    {"unet", "models/unet.seg", {{"width", "4"}, {"size", "32"}}, 2, 1e-4, 2e-3, false, false},
    {"unet-wide", "models/unet.seg", {{"width", "16"}, {"size", "64"}}, 2, 1e-4, 2e-3, true, false},
    {"unet-odd", "models/unet.seg", {{"width", "8"}, {"size", "50"}}, 3, 1e-4, 2e-3, false, false},
    {"resnet34_unet", "models/resnet34_unet.seg", {{"size", "32"}}, 4, 1e-4, 5e-3, false, true},
    {"resnet34_unet-odd", "models/resnet34_unet.seg", {{"size", "42"}, {"pool_padding", "0"}}, 3,
     1e-4, 5e-3, false, true},
    {"resnet34_unet-narrow", "models/resnet34_unet.seg",
     {{"width", "16"}, {"reduction", "4"}, {"size", "32"}}, 8, 1e-4, 5e-3, false, true},
    {"resnet34_unet_paper", "models/resnet34_unet_paper.seg", {{"size", "32"}}, 8, 1e-4, 5e-3, false,
     true},
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

/* ---- networks without jumps ------------------------------------------------------------------ */

enum { N_FILES = 6 };
static const char *const files[N_FILES] = {"unet.seg", "resnet34_unet.seg",
                                           "resnet34_unet_paper.seg", "resnet34.seg", "blocks.seg",
                                           "losses.seg"};

bool write_smooth_models(char folder[SMOOTH_FOLDER])
{
    snprintf(folder, SMOOTH_FOLDER, "/tmp/seg-smooth-XXXXXX");
    bool ok = mkdtemp(folder) != NULL;
    for (int i = 0; i < N_FILES && ok; i++) {
        char path[SMOOTH_PATH];
        size_t size;
        snprintf(path, sizeof path, "models/%s", files[i]);
        char *text = file_read(path, &size, NULL);
        ok = text != NULL;
        if (ok)
            text = without_jumps(text);
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        FILE *out = fopen(path, "w");
        ok = ok && out && fputs(text, out) >= 0;
        if (out)
            fclose(out);
        free(text);
    }
    return ok;
}

void remove_smooth_models(const char *folder)
{
    char path[SMOOTH_PATH];
    for (int i = 0; i < N_FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

void smooth_path(const Net *net, const char *folder, char path[SMOOTH_PATH])
{
    snprintf(path, SMOOTH_PATH, "%s%s", folder, strrchr(net->path, '/'));
}
