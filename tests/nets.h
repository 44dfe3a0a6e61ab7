/* The networks of models/, small by their params, as test_nets.c (host) and cuda_nets.c (CUDA devices,
 * emulated or real) run them: training from fixed values, and the losses that were recorded.
 */
#ifndef NETS_H
#define NETS_H

#include "comparison.h"

enum { STEPS = 10, MAX_DEFINES = 4, SMOOTH_FOLDER = 64, SMOOTH_PATH = 200 };

typedef struct {
    const char *name;
    const char *path;
    Define defines[MAX_DEFINES];
    int batch;
    double tolerance;
    double loss_tolerance;     /* of the recorded losses, relative; for other compilers and processors */
    bool host_only;            /* too large for an emulated device */
    bool deep;                 /* see nets.c */
} Net;
extern const Net nets[];
extern const int n_nets;

Case net_case(const Net *);
/* A network at its initial values, ready for train_step. NULL after an error. */
Executor *open_training(const Plan *, Device *, int batch, Error *);
/* Step 1, 2, ... on one of two batches in turn. */
bool train_step(Executor *, const Plan *, const char *target, int step, int batch, double rate,
                float *loss, Error *);
/* Of the first steps with Adam at 1e-3, from tests/golden/nets/. */
bool read_losses(const char *path, double losses[STEPS]);

/* Copies of all models, without_jumps, in a new folder; the copy of a network's model there. */
bool write_smooth_models(char folder[SMOOTH_FOLDER]);
void remove_smooth_models(const char *folder);
void smooth_path(const Net *, const char *folder, char path[SMOOTH_PATH]);

#endif
