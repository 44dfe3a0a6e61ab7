/* Building those kernels of a plan that the cache does not hold, several at a time.
 *
 * Each is built on its own and kept by the hash of its text and of the tool (a compiler, its flags,
 * the machine): a plan that shares kernels with another builds only the rest, and one that ran
 * before builds nothing. The text stays beside what was built from it, for people and for the
 * tool's messages. A kernel's header is a comment and no part of its key: two places in a model may
 * share a kernel.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "device.h"

/* ---- texts ----------------------------------------------------------------------------------- */

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

static char *make_text(const KernelBuild *build, const KernelUnit *unit, size_t *size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (!out)
        return NULL;
    print_header(unit->kernel->header, out);
    fprintf(out, "%s\n%s", build->target->prelude, unit->kernel->body);
    bool written = !ferror(out);
    if (fclose(out) == 0 && written)
        return text;
    free(text);
    return NULL;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static bool set_key(const KernelBuild *build, KernelUnit *unit)
{
    XXH3_state_t *state = XXH3_createState();
    const char *parts[] = { build->tool, build->target->prelude, unit->kernel->body };
    if (!state)
        return false;
    XXH3_128bits_reset(state);
    for (int i = 0; i < 3; i++)
        XXH3_128bits_update(state, parts[i], strlen(parts[i]) + 1);
    XXH128_hash_t key = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    snprintf(unit->key, sizeof unit->key, "%016llx%016llx", (unsigned long long)key.high64,
             (unsigned long long)key.low64);
    return true;
}

static char *unit_path(const KernelBuild *build, const KernelUnit *unit, const char *ending)
{
    char name[300], path[4096];
    snprintf(name, sizeof name, "%.200s-%s.%s", unit->kernel->name, unit->key, ending);
    cache_path(build->cache, name, path);
    return strdup(path);
}

/* Those needed, the libraries they call, and what those call. NULL: no memory. */
static bool *with_libraries(const PlanTarget *target, const bool *needed)
{
    bool *wanted = calloc((size_t)target->n_kernels + 1, sizeof *wanted);
    for (int i = 0; wanted && i < target->n_kernels; i++)
        for (int k = needed[i] ? i : -1; k >= 0 && !wanted[k];) {
            const char *library = target->kernels[k].library;
            wanted[k] = true;
            k = library ? plan_kernel(target, library) : -1;
        }
    return wanted;
}

bool kernel_build_open(KernelBuild *build, const bool *needed, Error *error)
{
    const PlanTarget *target = build->target;
    build->units = calloc((size_t)target->n_kernels + 1, sizeof *build->units);
    build->missing = calloc((size_t)target->n_kernels + 1, sizeof *build->missing);
    bool *wanted = with_libraries(target, needed);
    bool complete = build->units && build->missing && wanted;
    for (int i = 0; complete && i < target->n_kernels; i++) {
        if (!wanted[i])
            continue;
        KernelUnit *unit = &build->units[build->n_units++];
        unit->kernel = &target->kernels[i];
        complete = set_key(build, unit);
        unit->source = unit_path(build, unit, build->endings[0]);
        unit->object = unit_path(build, unit, build->endings[1]);
        complete = complete && unit->source && unit->object;
    }
    free(wanted);
    return complete
        || fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to build it", build->file);
}

void kernel_build_close(KernelBuild *build)
{
    for (int i = 0; i < build->n_units; i++) {
        free(build->units[i].source);
        free(build->units[i].object);
    }
    free(build->units);
    free(build->missing);
}

/* ---- building -------------------------------------------------------------------------------- */

static bool build_unit(const KernelBuild *build, const KernelUnit *unit, Error *error)
{
    char what[512];
    size_t size;
    char *text = make_text(build, unit, &size);
    snprintf(what, sizeof what, "%.200s: kernel %.200s", build->file, unit->kernel->name);
    bool done = text ? cache_write(unit->source, text, size, false, error)
                           && build->compile(build->context, unit, text, what, error)
                     : fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", what);
    free(text);
    return done;
}

/* After the first failure the rest is left out. */
static void build_missing(void *context, int index)
{
    KernelBuild *build = context;
    Error error = { 0 };
    pthread_mutex_lock(&build->lock);
    bool failed = build->failed;
    pthread_mutex_unlock(&build->lock);
    bool done = !failed && build_unit(build, &build->units[build->missing[index]], &error);
    pthread_mutex_lock(&build->lock);
    build->built += done;
    if (!done && !build->failed) {
        build->failed = true;
        build->error = error;
    }
    pthread_mutex_unlock(&build->lock);
}

static bool show_progress(void *context, int done, int total)
{
    KernelBuild *build = context;
    (void)done;
    pthread_mutex_lock(&build->lock);
    int built = build->built;
    pthread_mutex_unlock(&build->lock);
    return !build->options->progress
        || build->options->progress(build->options->context, built, total);
}

/* Longer texts take longer; none of them may be begun when all others are done. */
static void put_longest_first(KernelBuild *build)
{
    const KernelUnit *units = build->units;
    for (int i = 1; i < build->n_missing; i++) {
        int moved = build->missing[i], at = i;
        size_t length = strlen(units[moved].kernel->body);
        for (; at > 0 && strlen(units[build->missing[at - 1]].kernel->body) < length; at--)
            build->missing[at] = build->missing[at - 1];
        build->missing[at] = moved;
    }
}

bool kernel_build_missing(KernelBuild *build, int workers, Error *error)
{
    for (int i = 0; i < build->n_units; i++)
        if (!cache_has(build->units[i].object))
            build->missing[build->n_missing++] = i;
    if (build->n_missing == 0)
        return true;
    put_longest_first(build);
    pthread_mutex_init(&build->lock, NULL);
    bool complete = parallel_for(build->n_missing, workers, build_missing, build, show_progress,
                                 build);
    pthread_mutex_destroy(&build->lock);
    if (build->failed)
        *error = build->error;
    else if (!complete)
        fail(error, EXIT_INTERRUPTED, "", "interrupted while kernels were built");
    return complete && !build->failed;
}
