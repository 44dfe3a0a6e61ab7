/* A training run, between train.c (what stands around the epochs) and train_epoch.c (the steps). */
#ifndef TRAIN_H
#define TRAIN_H

#include "commands.h"
#include "trace.h"

typedef struct {
    const Options *options;
    Session session;
    Dataset *data;
    ProgramTensors tensors;
    RunState state;
    char folder[1024];
    RunFiles files;
    char programs[64];       /* "train+clip,evaluate": what this recipe needs of the plan */
    SafeTensors *origin;     /* --resume or --weights; NULL: a new run */
    Weights weights;         /* until they are on the device */
    Augmentation augment;
    double rate;             /* of the last step */
    float *sums;             /* the metric of a batch */
    int *samples;            /* copies of a Batch's, for while the next one is written */
    bool *flipped;
    bool auto_batch;
    bool stopped;            /* by a signal, or because the time is over */
    double deadline;         /* of now_seconds; 0: none */
    Trace *trace;            /* --trace; or NULL */
    int traced_steps;        /* whose kernels are in it */
    TensorBoard *board;      /* --tensorboard; or NULL */
    Sheet *sheet;            /* for it: of the last evaluation */
} Training;

/* ---- train_epoch.c ---- */

/* An event of --trace: what went on since `begin`. Gives the time. */
double traced(Training *, const char *what, double begin);
bool open_trace(Training *, Error *);
/* The batches of the epoch that are not done; sets `stopped` where there were more. */
bool train_epoch(Training *, Error *);

#endif
