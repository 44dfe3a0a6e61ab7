/* The runtime, in two rings.
 *
 *   core     plan device executor params       libc, libdl, threads and OpenMP only
 *   around   image dataset loader, train evaluate predict, progress plot log, the command line
 *
 * Errors: a function that can fail returns false or NULL and has filled an Error. Nothing here exits
 * or prints, except the command line. Every x_open has its x_close.
 */
#ifndef RUN_H
#define RUN_H

#include "plan.h"

/* ---- error.c ------------------------------------------------------------------------------ */

typedef enum { EXIT_FINE = 0, EXIT_USER = 1, EXIT_USAGE = 2, EXIT_ENVIRONMENT = 3, EXIT_INTERRUPTED = 130 } ExitCode;

typedef struct {
    ExitCode code;      /* EXIT_USER or EXIT_ENVIRONMENT */
    char text[1024];    /* one line: what failed on which file */
    char hint[512];     /* what to do; may be empty */
} Error;
/* Always returns false, so that a failing function can `return fail(...)`. */
bool fail(Error *, ExitCode, const char *hint, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* ---- file.c ------------------------------------------------------------------------------- */

/* Whole file, NUL behind it; *bytes its size. Free with free(). */
char *file_read(const char *path, size_t *bytes, Error *);
/* Temporary file beside it, fsync, rename, fsync of the folder. */
bool file_write(const char *path, const void *bytes, size_t size, Error *);
bool folder_make(const char *path, Error *);           /* with its parents */

/* ---- plan.c -------------------------------------------------------------------------------- */

Plan *plan_open(const char *path, Error *);
Plan *plan_parse(const void *bytes, size_t size, const char *path, Error *); /* path: for messages */
void plan_close(Plan *);
const PlanTarget *plan_target(const Plan *, const char *name);
const PlanProgram *plan_program(const PlanTarget *, const char *name);

/* ---- device.h: what a device does; device_host.c implements it -------------------------------- */

typedef struct Device Device;
typedef struct {
    const char *name;           /* auto cpu cuda */
    int threads;                /* 0: all */
    bool verbose;
    void (*progress)(void *context, int built, int total); /* while kernels are built; may be NULL */
    void *context;
} DeviceOptions;
Device *device_open(const DeviceOptions *, Error *);
void device_close(Device *);
const char *device_describe(const Device *);   /* one line: "cpu: 2 threads, AVX-512, cc (gcc 12.2)" */

/* ---- executor.c ------------------------------------------------------------------------------- */

/* A plan on a device: kernels built, slabs allocated for up to `max_batch` samples. */
typedef struct Executor Executor;
Executor *executor_open(const Plan *, Device *, int max_batch, Error *);
void executor_close(Executor *);
PlanState *executor_state(Executor *);
/* Writes or reads a tensor of a program: plain layout, `batch` samples where batched, bytes or
 * floats as its type says. Only tensors of the program that ran last can be read. */
bool executor_write(Executor *, const char *program, const char *tensor, const void *data, int batch, Error *);
bool executor_read(Executor *, const char *program, const char *tensor, void *data, int batch, Error *);
bool executor_run(Executor *, const char *program, int batch, Error *);
/* The parameters' slab and Adam's moments, in the plan's offsets. Call executor_parameters_changed
 * after writing; reading is always up to date between runs. */
bool executor_download(Executor *, Slab, void *data, Error *);
bool executor_upload(Executor *, Slab, const void *data, Error *);
int64_t executor_slab_bytes(const Executor *, Slab);
int64_t executor_bytes(const Executor *);      /* all memory held on the device */
/* What a plan needs for a batch, before anything is allocated. */
int64_t plan_bytes(const Plan *, const char *target, int batch, int threads);
/* Times of the steps of the last run, in seconds, when profiling is on; n_steps of the program. */
void executor_profile(Executor *, bool on);
const double *executor_step_times(const Executor *);

/* ---- params.c: initial values; safetensors ---------------------------------------------------- */

/* PyTorch's defaults, from the plan's init column; the same seed gives the same bits. */
void params_initialise(const Plan *, uint64_t seed, void *parameters);

/* A safetensors file in memory. Names are sorted; metadata values are strings. */
typedef struct { char *name; PlanType type; int rank; int64_t dims[8]; const void *data; int64_t bytes; } SafeTensor;
typedef struct {
    int n_tensors; SafeTensor *tensors;
    int n_metadata; char **keys, **values;
    void *storage;              /* owner of the tensors' data, where it was read from a file */
    size_t storage_bytes;
} SafeTensors;
SafeTensors *safetensors_open(const char *path, Error *);
void safetensors_close(SafeTensors *);
bool safetensors_write(const char *path, const SafeTensors *, Error *);
const SafeTensor *safetensors_find(const SafeTensors *, const char *name);

#endif
