/* The operators of op_cases.c and the networks of nets.c on a CUDA device: the emulated one (simt/)
 * and, where there is one, a GPU (gpu/); and on the host in bf16 (test_bf16.c). All run the same
 * models with the same tolerances.
 */
#ifndef CUDA_CASES_H
#define CUDA_CASES_H

#include "comparison.h"

typedef struct {
    Device *(*open)(const char *target, Error *);
    const char *target;        /* NULL: in all precisions */
    const char *name;          /* a comma list of operators, or a network; NULL: all */
    int model;                 /* of an operator's row; -1: as many as there is time for */
    bool all;                  /* every model of every row, and every launch of its steps */
    int shard, shards;         /* one process of several; shards 0: the only one */
    double seconds;            /* then nothing is begun any more, and counts as skipped; 0: no limit */
} CudaCases;

/* Does a mode of this target run? Without a target, all of CUDA's do. */
bool cuda_mode_wanted(const CudaCases *, const char *target);
/* Print what they find and, last, the count. The exit code. */
int cuda_ops(const CudaCases *);
int cuda_nets(const CudaCases *);

#endif
