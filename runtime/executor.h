/* Between executor.c, which runs programs, executor_memory.c, which knows what they need and where
 * it lies, and executor_tune.c.
 *
 * Parameters, moments, sums and averages are kept from run to run. All else of a program lies in
 * one piece of memory that the programs share, as large as the largest needs for the largest batch:
 *
 *     fixed data | gradients, if it has any | activations of the batch
 *
 * So the weights that evaluation packs lie where training had its gradients and activations.
 */
#ifndef EXECUTOR_H
#define EXECUTOR_H

#include "device.h"

typedef struct {
    const PlanProgram *plan;    /* NULL: not opened */
    DeviceStep *steps;
    void **buffers;             /* of all steps, one behind the other */
    int batch;                  /* that buffers are resolved for; 0: none */
    unsigned parts;             /* that were opened */
    bool changes_parameters;
    int64_t places[SLAB_COUNT]; /* in the shared memory, of those slabs that lie there */
} BoundProgram;

struct Executor {
    const Plan *plan;
    const PlanTarget *target;
    Device *device;
    DeviceKernels *kernels;
    int max_batch;
    void *kept[SLAB_COUNT];     /* slabs that are kept from run to run; NULL: no bytes, or shared */
    int64_t bytes[SLAB_COUNT];  /* of all slabs; fixed data and activations as the largest needs */
    void *shared;
    int64_t shared_bytes;
    void *scratch;
    int64_t scratch_bytes;      /* of one thread */
    BoundProgram *programs;     /* as the target's */
    PlanState state;
    int prepared;               /* program whose once-steps hold; -1: none */
    int ran, ran_batch;         /* the last run; -1: none */
    int holds;                  /* program whose data the shared memory holds; -1: still zeros */
    bool written;               /* something was written since: batched results may be gone */
    bool profiling;
    double *times;              /* as many as the longest program has steps */
};

/* ---- executor_memory.c ----------------------------------------------------------------------- */

/* Whether a list, "evaluate,predict", has the name; NULL names all. */
bool is_listed(const char *programs, const char *name);
/* What a run does unless it is told: see executor_run_parts. */
enum { DEFAULT_PARTS = 1 << PART_MAIN | 1 << PART_UPDATE };
unsigned listed_parts(const char *programs, const char *name); /* of "train+clip,evaluate" */
bool slab_is_kept(Slab);
bool uses_slab(const PlanProgram *, unsigned parts, Slab);
bool check_memory(const Plan *, const PlanTarget *, const Device *, const char *programs,
                  int max_batch, Error *);
/* Where a program's slabs lie in the shared memory. */
void place_slabs(const Plan *, const PlanProgram *, unsigned parts, int64_t places[SLAB_COUNT]);
bool allocate_slabs(Executor *, const char *programs, Error *);
void release_slabs(Executor *);
/* Where a slab of a program lies; NULL: it has none. */
char *slab_place(const Executor *, int program, Slab);
void *buffer_place(const Executor *, int program, const PlanBuffer *, int64_t batch);
/* The shared memory is this program's from here on. Its gradients become zeros, where another
 * program's data lay: not all are written in each step. */
bool take_shared(Executor *, int program, Error *);

/* ---- executor.c ------------------------------------------------------------------------------ */

/* Index of a program that was opened, for a batch that fits; -1 after an error. */
int find_program(const Executor *, const char *name, int batch, Error *);
DeviceRun run_of(Executor *, int program, unsigned parts, int batch);
bool upload_state(Executor *, Error *);
int64_t tensor_bytes(const PlanTensor *, int batch);

#endif
