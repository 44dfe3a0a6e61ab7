/* What a device does. One implementation each: device_host.c and device_cuda.c; device.c finds them
 * by name. Only the executor calls these functions.
 *
 * Memory is handed around as pointers that only the device may follow; offsets may be added to
 * them. Work is given as whole programs: arrays of steps with their buffers resolved for a batch,
 * so that a device is free to queue them, or to record them once and replay them.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <pthread.h>

#include "run.h"

/* The kernels of a target, built for this device and loaded; only the device looks inside. */
typedef struct DeviceKernels DeviceKernels;

typedef struct {
    const PlanStep *plan;
    void **buffers;             /* as plan->buffers; for the batch that is bound */
} DeviceStep;

typedef struct {
    DeviceKernels *kernels;
    const DeviceStep *steps; int n_steps;
    int64_t batch;
    bool once;                  /* also the steps that depend on parameters only */
    unsigned parts;             /* of the program: bit p for PlanPart p */
    void *scratch;              /* device->scratch_copies times scratch_bytes */
    int64_t scratch_bytes;      /* a multiple of PLAN_ALIGN */
    double *times;              /* seconds of each step; NULL: not measured */
} DeviceRun;

static inline bool step_is_due(const DeviceRun *run, const PlanStep *step)
{
    return (run->once || !step->once) && (run->parts >> step->part & 1);
}

struct Device {
    const char *target;         /* the PlanTarget it runs */
    int scratch_copies;         /* threads on the host; 0: kernels bring their own */
    bool direct;                /* its memory is the host's: pointers may be followed */
    DeviceOptions options;
    char description[256];
    char note[1100];            /* why this one, where `auto` chose; may be empty */

    void (*close)(Device *);
    /* Builds those kernels of a target that are `needed` (one flag each). file: for messages. */
    DeviceKernels *(*build)(Device *, const PlanTarget *, const bool *needed, const char *file,
                            Error *);
    void (*unload)(Device *, DeviceKernels *);
    int64_t (*available)(const Device *);      /* bytes that slabs may take; INT64_MAX: unknown */
    void *(*allocate)(Device *, int64_t bytes, Error *);        /* zeros, 64-byte aligned */
    void (*release)(Device *, void *memory, int64_t bytes);
    bool (*upload)(Device *, void *to, const void *from, int64_t bytes, Error *);
    /* As upload, but only the next run needs it: what is there stays until then. NULL: the device
     * has no such thing. */
    bool (*feed)(Device *, void *to, const void *from, int64_t bytes, Error *);
    bool (*download)(Device *, void *to, const void *from, int64_t bytes, Error *); /* waits */
    bool (*run)(Device *, const DeviceRun *, Error *);          /* may only queue */
    bool (*synchronise)(Device *, Error *);
    /* Whether steps have several launches, and which is the fastest is unknown. NULL: never. */
    bool (*wants_tuning)(Device *, const DeviceRun *);
    /* Times them. All that the program writes has no meaning afterwards. */
    bool (*tune)(Device *, const DeviceRun *, Error *);
    bool (*ceiling)(Device *, DeviceCeiling *);                 /* NULL: not known */
};

Device *device_host_open(const DeviceOptions *, Error *);
/* ordinal: of the GPU; -1: the first that can be used. */
Device *device_cuda_open(const DeviceOptions *, int ordinal, Error *);

/* ---- peak.c: what this machine can do, measured for `seconds` on so many threads ------------- */

double measure_peak(int threads, double seconds);        /* float32 multiply-adds, two each */
double measure_bandwidth(int threads, double seconds);   /* bytes read; 0: no memory to do it in */

/* ---- kernel_cache.c: the folder of built kernels --------------------------------------------- */

typedef struct {
    char folder[3072];          /* ours alone to write */
    bool temporary;             /* removed by kernel_cache_close */
} KernelCache;
/* $SEG_CACHE, $XDG_CACHE_HOME/seg or ~/.cache/seg; where that cannot be used, a folder of our own
 * in $TMPDIR with a warning. */
bool kernel_cache_open(KernelCache *, const DeviceOptions *, Error *);
void kernel_cache_close(KernelCache *);
void cache_path(const KernelCache *, const char *name, char path[4096]);
/* A file that is whole: its contents were sealed with their length and checksum, which stand behind
 * them (linkers and loaders do not look there). */
bool cache_has(const char *path);
/* Its contents without the seal, NUL behind them; NULL where it is not there or not whole. */
char *cache_read(const char *path, size_t *bytes);
/* Seals what a tool wrote into `temporary`, and gives it its name. */
bool cache_seal(const char *temporary, const char *path, Error *);
/* Replaces a file at once. */
bool cache_write(const char *path, const void *bytes, size_t size, bool sealed, Error *);
/* The name of a file beside `path` that nobody else writes. */
void cache_temporary(const char *path, char temporary[4096]);

/* ---- kernel_build.c: those kernels that the cache does not hold ------------------------------ */

typedef struct {
    const PlanKernel *kernel;
    char key[33];               /* of its text and the tool */
    char *source, *object;      /* paths: the text, and what is built from it */
} KernelUnit;
typedef struct {
    const KernelCache *cache;
    const DeviceOptions *options;
    const PlanTarget *target;
    const char *file;           /* the plan's, for messages */
    const char *tool;           /* all that what is built depends on besides the text */
    const char *endings[2];     /* of the two files: "c", "o" */
    /* Builds unit->object from `text`, which stands in unit->source; on any thread. what: for
     * messages, "unet.plan: kernel conv_relu". */
    bool (*compile)(void *context, const KernelUnit *unit, const char *text, const char *what,
                    Error *);
    void *context;
    /* filled in by kernel_build_open: those needed, and functions that others call */
    KernelUnit *units; int n_units;
    int *missing; int n_missing; /* units that are built */
    pthread_mutex_t lock;
    int built;
    bool failed;
    Error error;                /* the first */
} KernelBuild;
bool kernel_build_open(KernelBuild *, const bool *needed, Error *);
bool kernel_build_missing(KernelBuild *, int workers, Error *);
void kernel_build_close(KernelBuild *);

/* ---- host_compiler.c: the system's C compiler ------------------------------------------------ */

enum { MAX_FLAGS = 24 };
typedef struct {
    char *command[8]; int n_command;  /* $SEG_CC in words; the first with its path */
    const char *flags[MAX_FLAGS]; int n_flags;
    const char *machine;              /* "-march=haswell", where $SEG_CC says so; else NULL: this */
    char version[96];                 /* "gcc 12.2.0", for people */
    char key[33];                     /* of the compiler, its flags and this processor */
    char words[1024];                 /* storage of command */
    char program[4096];               /* path of the compiler */
} HostCompiler;
bool compiler_open(HostCompiler *, const KernelCache *, Error *);
/* Runs it, without a shell; its output goes to `log` (a file). False after an error that quotes the
 * output; what: "kernel conv_relu". */
bool compiler_run(const HostCompiler *, char *const *arguments, int n_arguments, const char *log,
                  const char *what, Error *);
/* .c to .o, .o files to a shared object. */
bool compiler_compile(const HostCompiler *, const char *source, const char *object,
                      const char *what, Error *);
bool compiler_link(const HostCompiler *, char *const *objects, int n_objects, const char *library,
                   Error *);

/* ---- host_build.c: kernels of a target -> a loaded shared object ----------------------------- */

typedef struct {
    void *library;
    KernelFunction **functions; /* as the target's kernels; NULL where not needed */
} HostKernels;
HostKernels *host_build(const HostCompiler *, const KernelCache *, const DeviceOptions *,
                        int workers, const PlanTarget *, const bool *needed, const char *file,
                        Error *);
void host_unload(HostKernels *);

#endif
