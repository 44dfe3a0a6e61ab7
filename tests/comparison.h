/* Compares what a compiled model computes on a device with what the oracle says it should.
 *
 * A case is a model's text (or file) with a batch and a tolerance. It is compiled to a plan, with and
 * without fusion, written, read back and run: train, evaluate and predict, on random values of every
 * source. Outputs, losses,
 * metrics, the gradients of all parameters and f32 inputs, and the updated statistics are compared
 * with a float64 run of the specialised, unfused graph.
 *
 * The measure of a tensor: |got - want| / |want| in the Euclidean norm, and a tenth of the largest
 * difference over the largest value. `all_gradients` is for all parameters' gradients as one vector,
 * which says more about a precision than its worst tensor does. Gradients that are small beside the case's largest one (those
 * that cancel to zero) are measured against a hundredth of that one.
 */
#ifndef COMPARISON_H
#define COMPARISON_H

#include "../compiler/seg.h"
#include "../runtime/run.h"

typedef struct {
    const char *path;          /* of the model; NULL: text */
    const char *text;
    const Define *defines; int n_defines;
    const char *target;        /* of case_plan; NULL: "host". compare_case: that of its device */
    const char *no_fuse;       /* as in Compilation; compare_case tries NULL and "" */
    bool each_fusion;          /* compare_case also tries each single fusion off */
    bool fused_only;           /* compare_case does not try "" */
    bool train_only;           /* it does not run evaluate and predict */
    int launch;                /* of those of each step; 0: what the device chooses */
    bool winograd, gemm;       /* as in Compilation */
    bool plain_inputs;         /* no gradients of inputs */
    int batch;
    uint64_t seed;             /* of all values and of dropout */
    double tolerance;
    double all_gradients;      /* of the parameters' gradients together; 0: not looked at */
} Case;

typedef struct {
    double worst;              /* the largest measure over all tensors */
    char where[256];           /* its tensor and element */
    double gradients;          /* the measure of all parameters' gradients, in the norm */
    bool failed;
    char problem[4096];        /* of compiling or running, or a value beyond the tolerance */
} Outcome;

/* False where the case failed; the outcome says why. Keeps the largest measure of several calls. */
bool compare_case(const Case *, Device *, Outcome *);

/* The plan of a case, written to a file and read back; NULL after filling outcome->problem. */
Plan *case_plan(const Case *, Outcome *);
/* The graph of the model, or of a program before fusion (with gradients, in TRAIN). Lives until
 * arena_close(compilation->arena). NULL after filling outcome->problem. */
Graph *case_graph(const Case *, Program, Compilation *, Outcome *);

/* A source's value: element `index`, for the gradient-friendly distribution of its name and shape.
 * Bytes and targets of bytes come as 0..255 and 0..1. */
double source_value(const char *name, PlanRole role, PlanType type, int rank, const int64_t *dims,
                    bool parameter, uint64_t seed, int64_t index);
/* A model's text with silu for relu and means for maxima, so that no rounding decides which way a
 * gradient goes. Takes and gives what free() frees. */
char *without_jumps(char *text);
/* Writes random values of all inputs and targets of a program. */
bool write_sources(Executor *, const PlanProgram *, int batch, uint64_t seed, Error *);
/* Fills SLAB_PARAMETERS with random values. */
bool write_parameters(Executor *, const Plan *, uint64_t seed, Error *);

#endif
