/* An emulator of a CUDA device, for C: memory with a shadow, and launches of kernels that were
 * compiled with simt.h. machine.cc runs threads, memory.cc checks what they touch.
 *
 * A launch fails, with a line for each finding (kernel, block, thread, place), when a kernel
 *   - touches global memory outside the buffers it was given, or shared memory outside its own;
 *   - touches memory at an address that is no multiple of the size;
 *   - reads memory that was never written, or a buffer's byte that the launch that wrote the buffer
 *     left out;
 *   - stores into a buffer and leaves out some of its bytes (see SimtBuffer);
 *   - reads or writes shared memory that another thread writes or reads with no barrier between, or
 *     that a copy_async is still on its way to;
 *   - reads or writes global memory that another block of the launch writes or reads;
 *   - does not bring all threads of the block to the same barrier, or of the warp to the same
 *     collective function; gives multiply_tf32 numbers that are not rounded.
 * Buffers may overlap (work in place); each has addresses of its own that only the primitives
 * understand, so an access beyond one buffer never passes for one of its neighbour.
 */
#ifndef EMULATOR_H
#define EMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Simt Simt;
Simt *simt_open(int threads);             /* that blocks are spread over; NULL: out of memory */
void simt_close(Simt *);                  /* with all its memories */

/* Zeros, and none of them written yet. NULL: out of memory. */
typedef struct SimtMemory SimtMemory;
SimtMemory *simt_memory_open(Simt *, int64_t bytes);
void simt_memory_close(Simt *, SimtMemory *);
unsigned char *simt_memory_data(SimtMemory *);
int64_t simt_memory_bytes(const SimtMemory *);
/* From now on some of its bytes count as written, or as not. */
void simt_memory_mark(SimtMemory *, int64_t offset, int64_t bytes, bool written);
/* The first byte that is not written; -1: all are. */
int64_t simt_memory_unwritten(const SimtMemory *, int64_t offset, int64_t bytes);
/* The memory that an address of the host lies in; NULL: none. */
SimtMemory *simt_memory_find(Simt *, const void *address, int64_t *offset);

/* A kernel that stores into a buffer must write all of it, but for less than 64 bytes a sample at
 * its end. */
typedef struct {
    SimtMemory *memory;
    int64_t offset, bytes;
    int64_t samples;                      /* at least 1 */
    bool keeps_tail;                      /* which then may still be read; else nobody wrote it */
} SimtBuffer;

/* What dlsym gives for a kernel's name. The same text as in simt.h. */
struct SimtKernel {
    void (*function)(const void *arguments);
    int threads;
    int arguments_bytes;
};
typedef struct {
    const char *name;
    const struct SimtKernel *kernel;
    int n_buffers, n_scalars, n_sizes;
    const SimtBuffer *buffers;
    const double *scalars;
    const int64_t *sizes;
    int batch;
    int threads;                          /* a block */
    int64_t blocks, shared_bytes;
} SimtLaunch;
/* Runs it to its end, or to where it cannot go on. False after writing lines to `report`. */
bool simt_launch(Simt *, const SimtLaunch *, char *report, size_t size);

#ifdef __cplusplus
}
#endif
#endif
