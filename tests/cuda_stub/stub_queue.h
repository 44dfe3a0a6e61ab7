/* The stand-in for a GPU behind stub_cuda.c: memory, queues of work, kernels. */
#ifndef STUB_QUEUE_H
#define STUB_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "stub.h"

#include "runtime/device_cuda_api.h"

enum { MAX_OBJECTS = 256, MAX_STREAMS = 8, MAX_ARGUMENTS = 4096 };
enum { INVALID_VALUE = 1, INVALID_CONTEXT = 201, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900 };

typedef enum { OP_NOTHING, OP_SET, OP_COPY, OP_KERNEL, OP_GRAPH, OP_RECORD, OP_WAIT } OpKind;
typedef struct {
    OpKind kind;
    char *to;
    const char *from;
    size_t bytes;
    unsigned char value;
    bool to_device, from_device;
    CUfunction function;
    char *arguments;            /* owned */
    CUgraphExec graph;
    CUevent event;
    CUstream stream;            /* of the record that is waited for */
    long until;                 /* number of that record in it */
} Op;

struct CUctx_st { int retained; };
struct CUmod_st { char *text; };
struct CUfunc_st { CUmodule module; char name[256]; int shared; };
struct CUstream_st {
    int number;
    long n_ops, n_done;         /* since it was made */
    Op *ops; long first, capacity; /* those from the number `first` on */
    CUgraph recording;
};
struct CUevent_st { int number; CUstream stream; long until; double time; };
struct CUgraph_st { Op *ops; int n_ops; };
struct CUgraphExec_st { Op *ops; int n_ops; };

typedef struct { char *memory; size_t bytes; bool pinned; int number; } Memory;

typedef struct {
    CUresult dead;              /* what every call returns from now on; 0: none */
    Memory memories[MAX_OBJECTS]; int n_memories;
    CUstream streams[MAX_STREAMS];
    double now;                 /* milliseconds */
} Stub;
extern Stub stub;

CUresult stub_allocate(void **memory, size_t bytes, bool pinned);
CUresult stub_release(void *memory, bool pinned);
const char *stub_place(const void *at, char text[32]);   /* "m3+128" */

/* A line of the log: the grid, and the arguments as the kernel's text says they lie. */
void stub_log_launch(const CUfunction function, unsigned blocks, unsigned threads,
                     unsigned shared, const char *arguments, bool recorded);

CUresult stub_push(CUstream stream, Op op);              /* into the recording, if there is one */
void stub_run_until(CUstream stream, long end);
void stub_run_everything(void);
bool stub_is_recording(void);
void stub_free_ops(Op *ops, int n);

#endif
