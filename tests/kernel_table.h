/* What the CUDA kernels of some plans take of a GPU: a table for people, kept in the repository.
 *
 * Kernels are told apart by what a reader can see: the precision, the template with what was fused
 * into it ("conv_x_relu_affine_to_batch_moments", a stem), and the numbers that its variant was
 * compiled with. Texts that agree in these are one row, which shows the least favourable of them.
 * Hashes do not come in, so that a row stays the same when its text is written another way.
 */
#ifndef KERNEL_TABLE_H
#define KERNEL_TABLE_H

#include <stdio.h>

#include "../compiler/seg.h"

enum { TABLE_ARCHITECTURES = 3, TABLE_MODELS = 4, TABLE_PROGRAMS = 3 };

/* What the assembler says of a kernel. */
typedef struct {
    int registers;             /* a thread; 0: not built */
    int shared_bytes;          /* static */
    int stack;                 /* bytes of local memory a thread: spilled registers, and arrays */
    int spills;                /* bytes that are stored and loaded because registers ran out */
} KernelUse;

typedef struct {
    const char *name;          /* "sm_90a" */
    int capability;            /* 90 */
} Architecture;

/* One text. */
typedef struct {
    const PlanTarget *target;
    const PlanKernel *kernel;
    int row;
    int64_t shared_bytes;      /* dynamic, the most that a launch asks for */
    unsigned defaults;         /* bit set over models * TABLE_PROGRAMS + program: where it runs if
                                  nothing was tuned */
    KernelUse use[TABLE_ARCHITECTURES];
} TableText;

typedef struct {
    int stem;
    const char *variant;       /* "8/16/64", or "" */
    int threads;
    bool tuned;                /* a convolution: no register may be spilled */
    bool is_default;           /* one of its texts is */
} TableRow;

/* Of the steps that run a stem's kernels, in a program. */
typedef struct { int steps; double flops, bytes; } Work;

typedef struct {
    const char *target;        /* "cuda-bf16" */
    const char *name;
    Work work[TABLE_MODELS][TABLE_PROGRAMS];
} TableStem;

typedef struct {
    Arena *arena;
    const char *toolkit;       /* "NVRTC 13.0" */
    Architecture architectures[TABLE_ARCHITECTURES]; int n_architectures;
    const char *models[TABLE_MODELS]; int n_models;
    TableText *texts; int n_texts;
    TableRow *rows; int n_rows;
    TableStem *stems; int n_stems;
    const char **legends; int n_legends; /* a template's variants: "conv: TILE_H/TILE_W" */
} KernelTable;

/* The kernels of all CUDA targets of a plan, which must live as long as the table. */
void table_add_plan(KernelTable *, const char *model, const Plan *);
/* Rows in the order of their names. Cells of which a text was not built are taken from `committed`,
 * a table that was printed before (or NULL); "?" where it has none either. What is "?" there stays
 * so. */
void table_print(const KernelTable *, const char *committed, FILE *);
/* The assembler's words in a log of NVRTC. False where it has none. */
bool parse_kernel_use(const char *log, KernelUse *);

#endif
