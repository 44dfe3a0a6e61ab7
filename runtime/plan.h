/* The plan: what the compiler writes and the runtime runs. Plain data, no pointers into graphs.
 *
 * A plan holds the model's parameters, three programs (train, evaluate, predict), and the sources
 * of the kernels their steps call. The batch N is not compiled in: a buffer in SLAB_ACTIVATIONS
 * lies at offset * N and holds N samples, everything else is fixed.
 *
 * Layouts. A tensor is `plain`, [N][C][H][W], or `blocked`, [N][C/16][H][W][16] with the channels
 * rounded up to a multiple of 16 and zeros in the lanes behind C. Inputs, targets and all results
 * of a program are plain. Fixed tensors are plain; [rows,C] coefficients have rows of C rounded up
 * to 16.
 */
#ifndef PLAN_H
#define PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_MAGIC "SEGPLAN\n"
#define PLAN_VERSION 6
#define PLAN_BLOCK 16          /* channels in a block on the host */
#define PLAN_ALIGN 64          /* bytes; every offset is a multiple */

typedef enum {
    SLAB_PARAMETERS,   /* trainable parameters, then buffers */
    SLAB_GRADIENTS,    /* as the trainable part of SLAB_PARAMETERS */
    SLAB_MOMENTS,      /* of the optimiser: first, then second, each as SLAB_GRADIENTS */
    SLAB_SUMS,         /* of gradients over several batches; as SLAB_GRADIENTS */
    SLAB_AVERAGE,      /* of the parameters over the steps; as SLAB_PARAMETERS */
    SLAB_FIXED,        /* packed weights, statistics, coefficients, scalars, `state` */
    SLAB_ACTIVATIONS,  /* times N */
    SLAB_COUNT
} Slab;

typedef enum {
    ROLE_INPUT, ROLE_TARGET,
    ROLE_OUTPUT, ROLE_LOSS, ROLE_METRIC,
    ROLE_GRADIENT,     /* of a parameter: in SLAB_GRADIENTS; of an input: in SLAB_ACTIVATIONS */
    ROLE_UPDATE,       /* the new value of a buffer, written over the old one */
} PlanRole;

typedef enum { PLAN_F32, PLAN_U8 } PlanType;

typedef struct {
    Slab slab;
    int64_t offset;    /* bytes; times N in SLAB_ACTIVATIONS */
    int64_t bytes;     /* size; of one sample in SLAB_ACTIVATIONS */
} PlanBuffer;

/* What a caller may write before a run or read after it. Plain layout. */
typedef struct {
    char *name;
    PlanRole role;
    PlanType type;
    bool batched;
    int64_t dims[3];   /* C,H,W; scalars 1,1,1 */
    PlanBuffer buffer;
} PlanTensor;

typedef enum { PLAN_INIT_CONSTANT, PLAN_INIT_UNIFORM, PLAN_INIT_VALUES } PlanInit;

typedef struct {
    char *name;        /* as in PyTorch: "layer1.0.conv1.weight" */
    int rank;
    int64_t dims[4];
    bool trainable;    /* else a buffer */
    PlanInit init;
    double value;      /* the constant, or the bound b of U(-b, b) */
    int64_t offset;    /* in SLAB_PARAMETERS; if trainable, in SLAB_GRADIENTS as well */
    double *values;    /* of PLAN_INIT_VALUES: one for each element; else NULL */
} PlanParameter;

/* One text of C. Sources that begin alike share `prelude`; kernels with equal body are one
 * kernel. */
typedef struct {
    char *name;        /* the function, and the name of the emitted file */
    char *header;      /* a comment: the graph lines it implements; not part of the cache's key */
    char *body;        /* C behind the prelude */
    const char *tail;  /* how body ends as others' do: written once a target; NULL where read */
    const char *library; /* name of the library whose functions it calls; NULL: none */
} PlanKernel;

/* One way to launch a CUDA kernel: candidates of a step differ in their kernel's tiles, and give the
 * same result from the same arguments. */
typedef struct {
    int kernel;                 /* index into the target's kernels */
    int threads;                /* a block */
    int64_t blocks, blocks_per_sample; /* the grid: blocks + N * blocks_per_sample */
    int64_t shared_bytes;       /* of dynamic shared memory, a block */
} PlanLaunch;

/* What a step of "train" is for. A run does PART_MAIN and those it names. */
typedef enum {
    PART_MAIN,                  /* forward and backward; all steps of other programs */
    PART_SUM,                   /* sums = blend of sums and gradients */
    PART_TOTAL,                 /* gradients = blend of gradients and sums */
    PART_CLIP,                  /* the gradients' norm becomes their scale */
    PART_UPDATE,                /* the optimiser's step */
    PART_AVERAGE,               /* average = blend of average and parameters */
    PART_COUNT
} PlanPart;

typedef struct {
    int kernel;                 /* index into the target's kernels; that of the first launch */
    int n_launches;             /* none on the host */
    PlanLaunch *launches;       /* the first is the default */
    int n_buffers, n_sizes, n_scalars;
    PlanBuffer *buffers;
    int64_t *sizes;
    double *scalars;
    int group;                  /* of its program's nodes that it computes; -1: none */
    bool once;                  /* depends on parameters only */
    PlanPart part;
    int64_t scratch;            /* bytes a thread */
    double flops, flops_per_sample;
    double bytes, bytes_per_sample; /* least traffic: each operand and result once */
    char *label;                /* "conv encoder.1.0 64->128 @128": what a profile shows */
} PlanStep;

/* A node of the graph that a program was made from: for people, see segrun bench --report. */
typedef struct {
    char *line;                 /* "%12 = conv %9, %a.weight {kernel=3} : f32[N,64,8,8]  # m.seg:3" */
    int n_inputs; int *inputs;  /* of the nodes before it */
    int group;                  /* that computes it; -1: a source, or each reader computes it */
    PlanBuffer buffer;          /* where it is kept; of 0 bytes: nowhere */
} PlanNode;

typedef struct {
    char *name;                 /* train evaluate predict */
    int n_tensors; PlanTensor *tensors;
    int n_steps; PlanStep *steps;
    int64_t fixed_bytes;        /* of SLAB_FIXED */
    int64_t sample_bytes;       /* of SLAB_ACTIVATIONS, a sample */
    int64_t scratch_bytes;      /* a thread: the largest of its steps */
    bool keeps_once;            /* its steps that change parameters also do again what those marked
                                   once had done */
    int n_nodes; PlanNode *nodes;
} PlanProgram;

typedef struct {
    char *name;                 /* "host", "cuda-fp32", "cuda-tf32", "cuda-bf16" */
    char *prelude;              /* text before every body */
    int n_kernels; PlanKernel *kernels;
    int n_programs; PlanProgram *programs;
} PlanTarget;

typedef struct {
    char *model;                /* its name */
    char *path;                 /* of the model's text */
    char *text;                 /* the model's text, with the files it uses behind it */
    char *options;              /* "-D width=16": what makes it again */
    int64_t parameter_bytes;    /* of SLAB_PARAMETERS */
    int64_t trainable_bytes;    /* its first part */
    int n_parameters; PlanParameter *parameters;
    int n_targets; PlanTarget *targets;
    /* Not in the file: where it was read from. */
    char *file;                 /* its name; NULL: made in memory */
    bool foreign;               /* it belongs to another user, who is not root */
} Plan;

/* What a CUDA kernel is called with is one struct; arrays that are empty are left out:
 *     struct Arguments { void *buffers[B]; double scalars[S]; int sizes[Z]; int batch; };
 * No more than this many bytes. */
#define PLAN_CUDA_ARGUMENTS 4096

/* A CUDA kernel of this name has no text, and its steps no launches: they are products of two
 * matrices by the vendor's library. Buffers a, b, result; all matrices are row by row without gaps,
 *     result[rows][columns] = sum over depth of a[rows][depth] * b[depth][columns],
 * a and b of floats, or of bf16 in the target cuda-bf16. Sizes: */
#define PLAN_MATMUL "cublas_matmul"
enum {
    MATMUL_ROWS, MATMUL_ROWS_PER_SAMPLE,     /* rows = the first + N * the second */
    MATMUL_COLUMNS,
    MATMUL_DEPTH, MATMUL_DEPTH_PER_SAMPLE,   /* likewise */
    MATMUL_A_TRANSPOSED,                     /* a lies in memory as [depth][rows] */
    MATMUL_B_TRANSPOSED,                     /* b lies in memory as [columns][depth] */
    MATMUL_FLOAT_RESULT,                     /* the result is of floats whatever a and b are */
    MATMUL_SIZES
};

/* What a host kernel is called with. `state` (the optimiser's step and rates, dropout's seed) is the
 * buffer at offset 0 of SLAB_FIXED in every program: see PlanState. */
typedef struct {
    void *const *buffers;       /* as the step lists them, for this N */
    const int64_t *sizes;
    const double *scalars;
    int64_t batch;              /* N */
    int threads;
    char *scratch;              /* thread t owns scratch + t * scratch_bytes; 64-byte aligned */
    int64_t scratch_bytes;
} KernelArguments;
typedef void KernelFunction(const KernelArguments *);

/* Formulas as PyTorch's. SGD's momentum is beta1, and its memory the first moments. */
typedef enum { OPTIMISER_ADAM, OPTIMISER_ADAMW, OPTIMISER_SGD, OPTIMISER_NESTEROV } Optimiser;

/* The first PLAN_STATE_BYTES of SLAB_FIXED, written by the runtime before each run. */
#define PLAN_STATE_BYTES 128
typedef struct {
    double learning_rate, beta1, beta2, eps, weight_decay;
    double clip;                /* PART_CLIP: the largest norm of all gradients together */
    double gradient_scale;      /* 1 before each run; PART_CLIP changes it */
    double blends[3][2];        /* of PART_SUM, PART_TOTAL, PART_AVERAGE: y = [0] y + [1] x */
    int64_t step;               /* of the optimiser, from 1 */
    uint64_t seed;              /* of dropout in this step */
    int64_t optimiser;          /* an Optimiser */
} PlanState;

#endif
