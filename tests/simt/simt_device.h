/* CUDA kernels on the host: a Device for plans, and single launches by hand.
 *
 * To try one kernel:
 *
 *     char *text = simt_text("fp32", "max_pool.cu",         // "bf16", "tf32"
 *                            "#define KERNEL max_pool_x\n#define THREADS 256\n"
 *                            "struct Arguments { void *buffers[2]; int sizes[12]; int batch; };\n"
 *                            "DEVICE v8 read_x(const Arguments *a, ...) {...}\n ...");
 *     SimtTry launch = {.name = "max_pool_x", .text = text, .n_buffers = 2,
 *                       .buffers = {{x, x_bytes, .input = true}, {y, y_bytes}},
 *                       .n_sizes = 12, .sizes = {8, 32, 32, ...}, .batch = 2,
 *                       .blocks = 2 * blocks_per_sample, .shared_bytes = 0};
 *     bool ok = simt_try(&launch, stderr);                  // y holds the result
 *
 * What is wrong with the kernel is written to the file, a line each, with the lines of the kernel's
 * text, which lies in $SEG_CACHE/simt/ (see emulator.h for what is checked). The program must be
 * linked with -rdynamic, because kernels call the emulator.
 */
#ifndef SIMT_DEVICE_H
#define SIMT_DEVICE_H

#include <stdio.h>

#include "../../runtime/device.h"
#include "emulator.h"

/* ---- simt_build.c: texts to functions --------------------------------------------------------- */

typedef struct {
    HostCompiler compiler;     /* of C++ */
    char folder[3072];         /* of what was built */
    uint64_t key;              /* of the compiler and of simt.h */
} SimtBuilder;
/* $SEG_CXX, c++, g++ or clang++. False: there is none, or no folder. */
bool simt_builder_open(SimtBuilder *, Error *);

typedef struct {
    const char *name;          /* the function */
    const char *parts[2];      /* its text; the second may be NULL */
    void *library;             /* filled in */
    const struct SimtKernel *kernel;
} SimtUnit;
/* Compiles what is not in the folder yet, two at a time, and loads all. */
bool simt_build(const SimtBuilder *, SimtUnit *, int n, Error *);
void simt_unload(SimtUnit *, int n);

/* A kernel's text: the prelude of a precision, `body`, rows.h and a template of kernels/cuda, which
 * may be NULL. Free with free(). */
char *simt_text(const char *precision, const char *template, const char *body);

/* ---- simt_device.c ---------------------------------------------------------------------------- */

/* A device for a target such as "cuda-bf16". Of several launches a step runs the first. */
Device *simt_device_open(const char *target, Error *);

/* ---- simt_try.c -------------------------------------------------------------------------------- */

enum { SIMT_TRY = 24 };
typedef struct {
    void *data;                /* taken from here before, and put here after the launch */
    int64_t bytes;
    bool input;                /* its bytes may be read by the kernel; else they are not written */
    int64_t samples;           /* 0: 1; a hole shorter than 64 bytes a sample may be at its end */
} SimtTryBuffer;
typedef struct {
    const char *name, *text;
    int n_buffers; SimtTryBuffer buffers[SIMT_TRY];
    int n_scalars; double scalars[SIMT_TRY];
    int n_sizes; int64_t sizes[2 * SIMT_TRY];
    int batch;
    int64_t blocks, shared_bytes;
    int threads;               /* of a block; 0: as the text says */
} SimtTry;
/* False after writing to `messages` (NULL: nothing) what was wrong. */
bool simt_try(const SimtTry *, FILE *messages);

#endif
