/* From the kernels of a plan to functions: every kernel is compiled on its own (kernel_build.c),
 * the objects are linked to one shared object, and that is loaded.
 *
 * The shared object is kept in the cache as well, by the names and keys of its kernels: a plan that
 * ran before builds nothing.
 */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "device.h"

typedef struct { KernelBuild kernels; const HostCompiler *compiler; char library[4096]; } Build;

static bool compile(void *context, const KernelUnit *unit, const char *text, const char *what,
                    Error *error)
{
    (void)text;
    return compiler_compile(context, unit->source, unit->object, what, error);
}

static bool name_library(Build *build, Error *error)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to build it",
                    build->kernels.file);
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, build->compiler->key, sizeof build->compiler->key);
    for (int i = 0; i < build->kernels.n_units; i++) {
        const KernelUnit *unit = &build->kernels.units[i];
        XXH3_128bits_update(state, unit->kernel->name, strlen(unit->kernel->name) + 1);
        XXH3_128bits_update(state, unit->key, sizeof unit->key);
    }
    XXH128_hash_t key = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    char name[64];
    snprintf(name, sizeof name, "kernels-%016llx%016llx.so", (unsigned long long)key.high64,
             (unsigned long long)key.low64);
    cache_path(build->kernels.cache, name, build->library);
    return true;
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

static HostKernels *load(const Build *build, const bool *needed, Error *error)
{
    const PlanTarget *target = build->kernels.target;
    /* NODELETE: libgomp, which came with it, has threads that outlive a dlclose */
    void *library = dlopen(build->library, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) {
        fail(error, EXIT_ENVIRONMENT, "set SEG_CACHE to a folder from which programs may be run",
             "cannot load built kernels: %s", dlerror());
        return NULL;
    }
    keep_openmp(library);
    HostKernels *kernels = calloc(1, sizeof *kernels);
    KernelFunction **functions = calloc((size_t)target->n_kernels + 1, sizeof *functions);
    bool complete = kernels && functions;
    if (!complete)
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to load it", build->kernels.file);
    for (int i = 0; complete && i < target->n_kernels; i++) {
        if (!needed[i] || plan_kernel_is_library(&target->kernels[i]))
            continue;
        *(void **)&functions[i] = dlsym(library, target->kernels[i].name);
        if (!functions[i])
            complete = fail(error, EXIT_USER, "compile the model again with segc",
                            "%s: kernel %s has no function of that name", build->kernels.file,
                            target->kernels[i].name);
    }
    if (!complete) {
        free(functions);
        free(kernels);
        dlclose(library);
        return NULL;
    }
    *kernels = (HostKernels){ library, functions };
    return kernels;
}

static HostKernels *make(Build *build, int workers, const bool *needed, Error *error)
{
    KernelBuild *kernels = &build->kernels;
    if (!kernel_build_missing(kernels, workers, error))
        return NULL;
    char **objects = calloc((size_t)kernels->n_units + 1, sizeof *objects);
    if (!objects) {
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to build it", kernels->file);
        return NULL;
    }
    for (int i = 0; i < kernels->n_units; i++)
        objects[i] = kernels->units[i].object;
    bool linked = compiler_link(build->compiler, objects, kernels->n_units, build->library, error);
    free(objects);
    return linked ? load(build, needed, error) : NULL;
}

HostKernels *host_build(const HostCompiler *compiler, const KernelCache *cache,
                        const DeviceOptions *options, int workers, const PlanTarget *target,
                        const bool *needed, const char *file, Error *error)
{
    Build build = { .compiler = compiler,
                    .kernels = { .cache = cache, .options = options, .target = target,
                                 .file = file, .tool = compiler->key, .endings = { "c", "o" },
                                 .compile = compile, .context = (void *)compiler } };
    HostKernels *kernels = NULL;
    if (kernel_build_open(&build.kernels, needed, error) && name_library(&build, error)) {
        if (cache_has(build.library))
            kernels = load(&build, needed, error);
        if (!kernels)
            kernels = make(&build, workers, needed, error);
    }
    kernel_build_close(&build.kernels);
    return kernels;
}

void host_unload(HostKernels *kernels)
{
    dlclose(kernels->library);
    free(kernels->functions);
    free(kernels);
}
