/* The parts of the CUDA device, in the order of a run:
 *
 *   device_cuda_libraries.c   the driver and NVRTC, loaded when a device is opened; which GPU
 *   device_cuda_build.c       kernels: text -> cubin -> function
 *   device_cuda_memory.c      slabs; transfers that overlap with kernels
 *   device_cuda_matmul.c      products of matrices by cuBLAS
 *   device_cuda_run.c         programs, each recorded as a graph once and replayed
 *   device_cuda_tune.c        which launch of a step is the fastest
 *   device_cuda.c             opening, closing; what a failed call says
 */
#ifndef DEVICE_CUDA_H
#define DEVICE_CUDA_H

#include "device.h"
#include "device_cuda_api.h"

/* ---- device_cuda_libraries.c ----------------------------------------------------------------- */

#define CUDA_FIELD(name, parameters) CUresult (*name) parameters;
typedef struct {
    void *library;
    int version;                /* 12040: CUDA 12.4 */
    CUDA_DRIVER_FUNCTIONS(CUDA_FIELD)
} CudaDriver;
#undef CUDA_FIELD
#define NVRTC_FIELD(name, parameters) nvrtcResult (*name) parameters;
typedef struct {
    void *library;
    int major, minor;
    char path[512];             /* as it was opened */
    char architecture[16];      /* that it builds for: "sm_90a" */
    NVRTC_FUNCTIONS(NVRTC_FIELD)
} Nvrtc;
#undef NVRTC_FIELD

#define CUBLAS_FIELD(name, parameters) cublasStatus_t (*name) parameters;
typedef struct {
    void *library;
    char path[512];
    cublasHandle_t handle;      /* NULL: not needed so far */
    CUdeviceptr workspace;
    const char *(*cublasGetStatusName)(cublasStatus_t);
    CUBLAS_FUNCTIONS(CUBLAS_FIELD)
} CudaBlas;
#undef CUBLAS_FIELD

/* A library of a CUDA toolkit by its name, from where they usually lie; path: as it was opened. */
void *cuda_library_open(const char *name, char path[512]);
bool cuda_driver_open(CudaDriver *, Error *);
void cuda_driver_close(CudaDriver *);
/* capability: 90 for 9.0. */
bool nvrtc_open(Nvrtc *, int capability, int driver_version, Error *);
void nvrtc_close(Nvrtc *);
/* What kernels are built with for an architecture ("sm_90a"); the number of options. Lives as long
 * as `room`. */
enum { NVRTC_OPTIONS = 4, NVRTC_ARCHITECTURE = 64 };
int nvrtc_options(const Nvrtc *, const char *architecture, char room[NVRTC_ARCHITECTURE],
                  const char *options[NVRTC_OPTIONS]);

/* ---- device_cuda_memory.c -------------------------------------------------------------------- */

enum { CUDA_STAGES = 2, CUDA_FEEDS = 16 };

/* Pinned memory of the host, for copies that go by the compute stream. */
typedef struct { void *memory; CUevent copied; } CudaStage;

/* What was written for the next run: on its way to the device while the run before computes, then
 * copied to its place. */
typedef struct {
    void *pinned;
    CUdeviceptr staging;
    int64_t capacity;           /* of both */
    CUdeviceptr to;
    int64_t bytes;
} CudaFeed;
typedef struct {
    CudaFeed feeds[CUDA_FEEDS]; int n_feeds;
    CUevent arrived;            /* in staging */
    CUevent landed;             /* in their places */
} CudaFeedSet;

typedef struct {
    CudaStage stages[CUDA_STAGES]; int stage;
    CudaFeedSet sets[2]; int set;  /* the one that is filled; the other may still be read */
} CudaTransfers;

/* ---- the device ------------------------------------------------------------------------------ */

typedef struct {
    uint64_t signature;         /* of a step: its launches and sizes */
    int64_t batch;
    int launch;                 /* the fastest */
} CudaWinner;

typedef struct {
    Device base;
    CudaDriver driver;
    Nvrtc nvrtc;
    CudaBlas blas;
    KernelCache cache;
    CUdevice device;
    int capability;             /* 90: sm_90 */
    int processors;             /* SMs */
    int shared_bytes;           /* most that a block may have */
    int64_t memory;             /* bytes in all */
    char name[96];
    const char *precision;      /* "tf32" */
    char target[16];            /* "cuda-tf32" */
    int debug;                  /* SEG_DEBUG */
    bool retained;              /* the primary context */
    CUcontext context;
    CUstream compute, copy;
    CudaTransfers transfers;
    CudaWinner *winners; int n_winners;
    Error lost;                 /* code 0: the device works; else what every call fails with */
} CudaDevice;

/* ---- device_cuda.c --------------------------------------------------------------------------- */

/* Makes the device's context current; false, with the old error, when the device was lost. */
bool cuda_enter(CudaDevice *, Error *);
/* True for CUDA_SUCCESS; else fills the error by the name of the call. */
bool cuda_check(CudaDevice *, CUresult, const char *call, Error *);
#define CUDA_CALL(cuda, error, function, ...) \
    cuda_check(cuda, (cuda)->driver.function(__VA_ARGS__), #function, error)
void cuda_say(const CudaDevice *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "while kernel K ran": to the end of an error's text. */
void cuda_add_text(Error *, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool cuda_transfers_open(CudaDevice *, Error *);
void cuda_transfers_close(CudaDevice *);
int64_t cuda_available(const Device *);
void *cuda_allocate(Device *, int64_t bytes, Error *);
void cuda_release(Device *, void *memory, int64_t bytes);
bool cuda_upload(Device *, void *to, const void *from, int64_t bytes, Error *);
bool cuda_feed(Device *, void *to, const void *from, int64_t bytes, Error *);
bool cuda_download(Device *, void *to, const void *from, int64_t bytes, Error *);
/* What was fed is brought to its places, before whatever is queued next. */
bool cuda_land_feeds(CudaDevice *, Error *);

/* ---- device_cuda_build.c --------------------------------------------------------------------- */

typedef struct {
    CUmodule module;
    CUfunction function;        /* NULL: not built */
    char key[33];
    char *source;               /* path of its text */
} CudaKernel;

/* A program recorded for a batch. */
typedef struct {
    const DeviceStep *steps;
    int64_t batch;
    bool once;
    unsigned parts;
    CUgraphExec exec;           /* NULL: it ran once, without being recorded */
    uint64_t used;              /* when, in runs */
} CudaGraph;

/* Which launch each step of a program takes, for a batch; 0 for those of other parts. */
typedef struct {
    const DeviceStep *steps;
    int64_t batch;
    unsigned parts;
    int *launches;
} CudaChoice;

enum { CUDA_GRAPHS = 24 };
typedef struct {
    const PlanTarget *target;
    CudaKernel *kernels;        /* as the target's */
    CudaGraph graphs[CUDA_GRAPHS]; int n_graphs;
    CudaChoice *choices; int n_choices;
    CUevent *events; int n_events; /* for times */
    uint64_t runs;
} CudaKernels;

DeviceKernels *cuda_build(Device *, const PlanTarget *, const bool *needed, const char *file,
                          Error *);
void cuda_unload(Device *, DeviceKernels *);

/* ---- device_cuda_matmul.c -------------------------------------------------------------------- */

bool cuda_blas_open(CudaDevice *, Error *);    /* once */
void cuda_blas_close(CudaDevice *);
bool cuda_is_matmul(const CudaKernels *, const PlanStep *);
/* Queues a product. */
bool cuda_matmul(CudaDevice *, const DeviceStep *, int64_t batch, Error *);

/* ---- device_cuda_run.c ----------------------------------------------------------------------- */

bool cuda_run(Device *, const DeviceRun *, Error *);
bool cuda_synchronise(Device *, Error *);
/* Whether a launch was built and has the shared memory it needs here. */
bool cuda_can_launch(const CudaDevice *, const CudaKernels *, const PlanLaunch *);
/* Queues one step. */
bool cuda_launch(CudaDevice *, const CudaKernels *, const DeviceStep *, int launch, int64_t batch,
                 Error *);
/* Events that measure time, at least n. */
bool cuda_need_events(CudaDevice *, CudaKernels *, int n, Error *);
/* The launch of a step: the fastest as far as it is known, else the first that can be launched. */
bool cuda_choose(const CudaDevice *, const CudaKernels *, const PlanStep *, int64_t batch,
                 int *chosen, Error *);
/* From now on programs are recorded and choices made anew. */
void cuda_forget_graphs(CudaDevice *, CudaKernels *);

/* ---- device_cuda_tune.c ---------------------------------------------------------------------- */

bool cuda_wants_tuning(Device *, const DeviceRun *);
bool cuda_tune(Device *, const DeviceRun *, Error *);
void cuda_tuning_read(CudaDevice *);
/* The fastest launch of a step as far as it is known, for this batch or the nearest; else -1. */
int cuda_winner(const CudaDevice *, const CudaKernels *, const PlanStep *, int64_t batch);

#endif
