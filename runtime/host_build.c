/* From the kernels of a plan to functions: every kernel is compiled on its own, all at the same
 * time, the objects are linked to one shared object, and that is loaded.
 *
 * Both are kept in the cache by the hash of their text, the compiler, its flags and the processor:
 * a plan that shares kernels with another compiles only the rest, and one that ran before compiles
 * nothing. The text stays beside the object, for people and for the compiler's messages. A kernel's
 * header is a comment and no part of its key: two places in a model may share a kernel.
 *
 * The compilers are started by threads that do nothing but wait for them; waiting for any child
 * would take those of a program that embeds this.
 */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "device.h"

enum { TICK_NANOSECONDS = 100000000 };

typedef struct {
    const PlanKernel *kernel;
    XXH128_hash_t key;
    char *source, *object;      /* paths */
} Unit;

typedef struct {
    const HostCompiler *compiler;
    const KernelCache *cache;
    const DeviceOptions *options;
    const PlanTarget *target;
    const char *file;           /* the plan's, for messages */
    Unit *units; int n_units;
    char library[PATH_MAX];
    /* shared by the threads */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int *missing; int n_missing; /* units to compile */
    int next, built, running;
    bool failed;
    Error error;                /* the first */
} Build;

/* ---- keys ------------------------------------------------------------------------------------ */

static XXH128_hash_t hash_kernel(const Build *build, const PlanKernel *kernel)
{
    XXH3_state_t *state = XXH3_createState();
    XXH128_hash_t key = { 0 };
    const char *parts[] = { build->compiler->key, build->target->prelude, kernel->body };
    if (!state)
        return key;
    XXH3_128bits_reset(state);
    for (int i = 0; i < 3; i++)
        XXH3_128bits_update(state, parts[i], strlen(parts[i]) + 1);
    key = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    return key;
}

static char *unit_path(const Build *build, const Unit *unit, const char *ending)
{
    char name[300], path[PATH_MAX];
    snprintf(name, sizeof name, "%.200s-%016llx%016llx.%s", unit->kernel->name,
             (unsigned long long)unit->key.high64, (unsigned long long)unit->key.low64, ending);
    cache_path(build->cache, name, path);
    return strdup(path);
}

static bool find_units(Build *build, const bool *needed, Error *error)
{
    const PlanTarget *target = build->target;
    build->units = calloc((size_t)target->n_kernels + 1, sizeof *build->units);
    build->missing = calloc((size_t)target->n_kernels + 1, sizeof *build->missing);
    XXH3_state_t *state = XXH3_createState();
    if (!build->units || !build->missing || !state)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to build it", build->file);
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, build->compiler->key, sizeof build->compiler->key);
    bool complete = true;
    for (int i = 0; i < target->n_kernels; i++) {
        if (!needed[i] && !plan_kernel_is_library(&target->kernels[i]))
            continue;
        Unit *unit = &build->units[build->n_units++];
        unit->kernel = &target->kernels[i];
        unit->key = hash_kernel(build, unit->kernel);
        unit->source = unit_path(build, unit, "c");
        unit->object = unit_path(build, unit, "o");
        complete = complete && unit->source && unit->object;
        XXH3_128bits_update(state, unit->kernel->name, strlen(unit->kernel->name) + 1);
        XXH3_128bits_update(state, &unit->key, sizeof unit->key);
    }
    XXH128_hash_t key = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    char name[64];
    snprintf(name, sizeof name, "kernels-%016llx%016llx.so", (unsigned long long)key.high64,
             (unsigned long long)key.low64);
    cache_path(build->cache, name, build->library);
    return complete
        || fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to build it", build->file);
}

/* ---- compiling ------------------------------------------------------------------------------- */

/* The header is written as a comment whatever it holds. */
static void print_header(const char *header, FILE *out)
{
    while (*header) {
        int n = (int)strcspn(header, "\n");
        bool continued = n > 0 && header[n - 1] == '\\';
        fprintf(out, "//%s%.*s%s\n", n ? " " : "", n, header, continued ? " ." : "");
        header += n + (header[n] != 0);
    }
}

static bool write_source(const Build *build, const Unit *unit, Error *error)
{
    char temporary[PATH_MAX + 32];
    snprintf(temporary, sizeof temporary, "%s-%ld", unit->source, (long)getpid());
    FILE *out = fopen(temporary, "we");
    bool written = out != NULL;
    if (out) {
        print_header(unit->kernel->header, out);
        fputs(build->target->prelude, out);
        fputs("\n", out);
        fputs(unit->kernel->body, out);
        written = !ferror(out);
        written = fclose(out) == 0 && written;
    }
    if (written && rename(temporary, unit->source) == 0)
        return true;
    int reason = errno;
    unlink(temporary);
    return fail(error, EXIT_ENVIRONMENT, "make room there, or set SEG_CACHE to another folder",
                "cannot write %s: %s", unit->source, strerror(reason));
}

static void *compile_units(void *context)
{
    Build *build = context;
    pthread_mutex_lock(&build->lock);
    while (!build->failed && build->next < build->n_missing) {
        const Unit *unit = &build->units[build->missing[build->next++]];
        pthread_mutex_unlock(&build->lock);
        char what[512];
        Error error = { 0 };
        snprintf(what, sizeof what, "%.200s: kernel %.200s", build->file, unit->kernel->name);
        bool done = write_source(build, unit, &error)
                 && compiler_compile(build->compiler, unit->source, unit->object, what, &error);
        pthread_mutex_lock(&build->lock);
        build->built += done;
        if (!done && !build->failed) {
            build->failed = true;
            build->error = error;
        }
        pthread_cond_signal(&build->changed);
    }
    build->running--;
    pthread_cond_signal(&build->changed);
    pthread_mutex_unlock(&build->lock);
    return NULL;
}

/* Signals are for the thread that called, which may have handlers. */
static int start_workers(Build *build, pthread_t *threads, int workers)
{
    sigset_t all, before;
    int started = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (started < workers
           && pthread_create(&threads[started], NULL, compile_units, build) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

/* Until all have ended; called and returns with the lock held. */
static void wait_for_workers(Build *build)
{
    int shown = -1;
    while (build->running > 0 || shown < build->built) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TICK_NANOSECONDS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (shown == build->built)
            pthread_cond_timedwait(&build->changed, &build->lock, &until);
        shown = build->built;
        pthread_mutex_unlock(&build->lock);
        bool go_on = !build->options->progress
                  || build->options->progress(build->options->context, shown, build->n_missing);
        pthread_mutex_lock(&build->lock);
        if (!go_on && !build->failed) {
            fail(&build->error, EXIT_INTERRUPTED, "", "interrupted while kernels were built");
            build->failed = true;
        }
    }
}

static bool compile_missing(Build *build, int workers, Error *error)
{
    for (int i = 0; i < build->n_units; i++)
        if (!cache_has(build->units[i].object))
            build->missing[build->n_missing++] = i;
    workers = workers < build->n_missing ? workers : build->n_missing;
    if (workers == 0)
        return true;
    pthread_t *threads = calloc((size_t)workers, sizeof *threads);
    if (!threads)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to build it", build->file);
    build->running = workers;
    int started = start_workers(build, threads, workers);
    pthread_mutex_lock(&build->lock);
    build->running -= workers - started;
    wait_for_workers(build);
    pthread_mutex_unlock(&build->lock);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    if (started == 0)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: cannot start threads to build it",
                    build->file);
    if (build->failed)
        *error = build->error;
    return !build->failed;
}

/* ---- loading --------------------------------------------------------------------------------- */

/* OpenMP's threads outlive the kernels that started them, and must not lose their code: its library
 * stays in memory until the end. */
static void keep_openmp(void *library)
{
    Dl_info facts;
    void *function = dlsym(library, "omp_get_max_threads");
    if (function && dladdr(function, &facts) && facts.dli_fname)
        (void)dlopen(facts.dli_fname, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

static DeviceKernels *load(const Build *build, const bool *needed, Error *error)
{
    const PlanTarget *target = build->target;
    /* NODELETE: libgomp, which came with it, has threads that outlive a dlclose */
    void *library = dlopen(build->library, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) {
        fail(error, EXIT_ENVIRONMENT, "set SEG_CACHE to a folder from which programs may be run",
             "cannot load built kernels: %s", dlerror());
        return NULL;
    }
    keep_openmp(library);
    DeviceKernels *kernels = calloc(1, sizeof *kernels);
    KernelFunction **functions = calloc((size_t)target->n_kernels + 1, sizeof *functions);
    bool complete = kernels && functions;
    if (!complete)
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to load it", build->file);
    for (int i = 0; complete && i < target->n_kernels; i++) {
        if (!needed[i] || plan_kernel_is_library(&target->kernels[i]))
            continue;
        *(void **)&functions[i] = dlsym(library, target->kernels[i].name);
        if (!functions[i])
            complete = fail(error, EXIT_USER, "compile the model again with segc",
                            "%s: kernel %s has no function of that name", build->file,
                            target->kernels[i].name);
    }
    if (!complete) {
        free(functions);
        free(kernels);
        dlclose(library);
        return NULL;
    }
    *kernels = (DeviceKernels){ library, functions };
    return kernels;
}

static DeviceKernels *make(Build *build, int workers, const bool *needed, Error *error)
{
    if (!compile_missing(build, workers, error))
        return NULL;
    char **objects = calloc((size_t)build->n_units + 1, sizeof *objects);
    if (!objects) {
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to build it", build->file);
        return NULL;
    }
    for (int i = 0; i < build->n_units; i++)
        objects[i] = build->units[i].object;
    bool linked = compiler_link(build->compiler, objects, build->n_units, build->library, error);
    free(objects);
    return linked ? load(build, needed, error) : NULL;
}

DeviceKernels *host_build(const HostCompiler *compiler, const KernelCache *cache,
                          const DeviceOptions *options, int workers, const PlanTarget *target,
                          const bool *needed, const char *file, Error *error)
{
    Build build = { .compiler = compiler, .cache = cache, .options = options, .target = target,
                    .file = file, .lock = PTHREAD_MUTEX_INITIALIZER,
                    .changed = PTHREAD_COND_INITIALIZER };
    DeviceKernels *kernels = NULL;
    if (find_units(&build, needed, error)) {
        if (cache_has(build.library))
            kernels = load(&build, needed, error);
        if (!kernels)
            kernels = make(&build, workers, needed, error);
    }
    for (int i = 0; i < build.n_units; i++) {
        free(build.units[i].source);
        free(build.units[i].object);
    }
    free(build.units);
    free(build.missing);
    return kernels;
}

void host_unload(DeviceKernels *kernels)
{
    dlclose(kernels->library);
    free(kernels->functions);
    free(kernels);
}
