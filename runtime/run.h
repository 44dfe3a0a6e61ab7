/* The runtime, in two rings.
 *
 *   core     plan device executor params       libc, libdl, threads and OpenMP only
 *   around   image dataset loader, train evaluate predict, progress plot log, the command line
 *
 * Errors: a function that can fail returns false or NULL and has filled an Error. Nothing here
 * exits or prints, except the command line. Every x_open has its x_close.
 */
#ifndef RUN_H
#define RUN_H

#include "files.h"
#include "plan.h"

/* ---- system.c: what this process may use, in a container too --------------------------------- */

int system_processors(void);                           /* affinity and cgroup quota; at least 1 */
/* Bytes that may still be taken: free memory, cgroup limits, ulimit -v. INT64_MAX if unknown. */
int64_t system_memory(void);
/* Model and features of the processor: programs built for one run on another with the same text. */
void system_cpu(char *text, size_t size);

/* ---- parallel.c ---------------------------------------------------------------------------- */

/* Calls work(context, i) for every i < count on `workers` threads (0: one a processor), in no
 * order. tick(tick_context, done, count), where it is not NULL, is called on the caller's thread
 * about ten times a second and at the end; when it returns false no more work is started. False if
 * stopped. */
bool parallel_for(int count, int workers, void (*work)(void *context, int index), void *context,
                  bool (*tick)(void *tick_context, int done, int count), void *tick_context);

/* ---- plan.c -------------------------------------------------------------------------------- */

/* Everything is checked: what is returned can be run without looking at its offsets again. */
Plan *plan_open(const char *path, Error *);
/* path: for messages. */
Plan *plan_parse(const void *bytes, size_t size, const char *path, Error *);
void plan_close(Plan *);
const PlanTarget *plan_target(const Plan *, const char *name);
const PlanProgram *plan_program(const PlanTarget *, const char *name);
int plan_kernel(const PlanTarget *, const char *name);   /* its index; -1: there is none */
/* Functions that other kernels call: linked in with those, never a step. Their names begin with
 * "library_". */
bool plan_kernel_is_library(const PlanKernel *);
/* Of the struct that a CUDA kernel is called with: see PLAN_CUDA_ARGUMENTS. */
int64_t plan_arguments_bytes(const PlanStep *);

/* ---- device.c: devices by name; device.h: what one does -------------------------------------- */

typedef struct Device Device;
typedef struct {
    const char *name;           /* auto cpu cuda cuda:N */
    const char *precision;      /* fp32 bf16, on cuda tf32; NULL: fp32, or what plan and GPU have */
    const Plan *plan;           /* what it is for: auto looks which kernels there are; NULL: cpu */
    int threads;                /* of the cpu; 0: OMP_NUM_THREADS, else all */
    bool verbose;               /* details through `say` */
    bool trust;                 /* build plans that another user made */
    bool tune;                  /* time the launches of a program's steps before its first run */
    /* While kernels are built, about ten times a second; false stops with EXIT_INTERRUPTED. May be
     * NULL. */
    bool (*progress)(void *context, int built, int total);
    bool (*tuning)(void *context, int done, int total);    /* the same while steps are timed */
    void (*warn)(void *context, const char *text);         /* may be NULL */
    void (*say)(void *context, const char *text);          /* lines for people; may be NULL */
    void *context;
} DeviceOptions;
Device *device_open(const DeviceOptions *, Error *);
void device_close(Device *);
const char *device_describe(const Device *);   /* "cpu: 2 threads, AVX-512, cc (gcc 12.2)" */
const char *device_target(const Device *);     /* the PlanTarget it runs: "host", "cuda-bf16" */
const char *device_note(const Device *);       /* why `auto` chose it; may be empty */
/* What it can do at best, a second; a multiply and its add count two. */
typedef struct {
    double flops;               /* in the precision of its target */
    double bytes;               /* of its memory; 0: not known */
    bool measured;              /* just now, in a tenth of a second; else by its clocks and widths */
} DeviceCeiling;
bool device_ceiling(Device *, DeviceCeiling *);   /* false: not known */

/* ---- initial.c ------------------------------------------------------------------------------- */

/* PyTorch's defaults, from the plan's init column, on all threads; the same seed gives the same
 * bits. */
void params_initialise(const Plan *, uint64_t seed, void *parameters);

/* ---- executor.c ------------------------------------------------------------------------------ */

/* A plan on a device: kernels built, slabs allocated for up to `max_batch` samples. The plan and
 * the device must outlive it. */
typedef struct Executor Executor;
Executor *executor_open(const Plan *, Device *, int max_batch, Error *);
/* Whether it could be opened, as far as can be said without building anything: kernels for this
 * device, the programs, trust, memory. */
bool executor_check(const Plan *, const Device *, const char *programs, int max_batch, Error *);
/* For some programs only, such as "evaluate,predict": what the others need is not built and not
 * allocated. NULL: all. Behind a program may stand parts of it (PlanPart) besides the usual ones:
 * "train+sum+total+clip+average". */
Executor *executor_open_for(const Plan *, Device *, const char *programs, int max_batch, Error *);
void executor_close(Executor *);
PlanState *executor_state(Executor *);
/* Writes an input or target, or reads a result, of a program: plain layout, `batch` samples where
 * batched, bytes or floats as its type says. What is written before a run must be of that run's
 * batch. Only results of the program that ran last can be read, batched ones until the next
 * write. */
bool executor_write(Executor *, const char *program, const char *tensor, const void *data,
                    int batch, Error *);
bool executor_read(Executor *, const char *program, const char *tensor, void *data, int batch,
                   Error *);
bool executor_run(Executor *, const char *program, int batch, Error *);   /* may only queue */
/* Only these parts, bit p for PlanPart p; executor_run does PART_MAIN and PART_UPDATE. */
bool executor_run_parts(Executor *, const char *program, unsigned parts, int batch, Error *);
/* Whether what is written for the next run leaves the results of the last one as they are, and goes
 * to the device while that computes. */
bool executor_feeds(const Executor *);
/* Times the ways that the device has to run the program's steps, with what was written last, and
 * keeps the fastest. Parameters, moments and inputs stay as they are. */
bool executor_tune(Executor *, const char *program, int batch, Error *);
bool executor_synchronise(Executor *, Error *);   /* waits until all that was run is done */
/* Writes the initial values of a seed to the parameters, and to their average. */
bool executor_initialise(Executor *, uint64_t seed, Error *);
/* A whole slab, in the plan's offsets: the parameters, their gradients, the optimiser's moments. */
bool executor_download(Executor *, Slab, void *data, Error *);
bool executor_upload(Executor *, Slab, const void *data, Error *);
/* The parameters or moments where they lie, until the next run, if the host may read and write
 * there; NULL: not. */
void *executor_slab(Executor *, Slab);
int64_t executor_slab_bytes(const Executor *, Slab);   /* 0: no program needs it */
int64_t executor_bytes(const Executor *);      /* all memory held on the device */
/* What a plan needs for a batch, before anything is allocated; 0 if it has no such target. */
int64_t plan_bytes(const Plan *, const char *target, int batch, int threads);
int64_t plan_bytes_for(const Plan *, const char *target, const char *programs, int batch,
                       int threads);
/* Times of the steps of the last run, in seconds, when profiling is on; n_steps of the program. A
 * step that was not needed has 0. */
void executor_profile(Executor *, bool on);
const double *executor_step_times(const Executor *);

#endif
