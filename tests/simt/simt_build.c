/* Kernels for the emulator: a text becomes a shared object by the system's C++ compiler, as
 * tests/simt/simt.h has it. Each kernel is compiled on its own and kept by the hash of its text, of
 * simt.h and of the compiler; most kernels of the tests are shared by many models.
 */
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "kernel_files.h"
#include "simt_device.h"

enum { WORKERS = 2 };
static const char include_folder[] = "tests/simt";
static const char *const flags[] = { "-std=c++17", "-O1", "-g1", "-w", "-fPIC", "-shared",
                                     "-ffp-contract=off", "-DSIMT" };
enum { N_FLAGS = sizeof flags / sizeof *flags };

/* ---- the compiler ---------------------------------------------------------------------------- */

static bool find_program(const char *name, char path[4096])
{
    const char *folders = getenv("PATH");
    for (const char *at = folders; at && *at; at += strcspn(at, ":"), at += *at == ':') {
        snprintf(path, 4096, "%.*s/%s", (int)strcspn(at, ":"), at, name);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static bool find_compiler(HostCompiler *compiler, Error *error)
{
    const char *names[] = { getenv("SEG_CXX"), "c++", "g++", "clang++" };
    for (int i = 0; i < 4; i++) {
        if (!names[i] || !find_program(names[i], compiler->program))
            continue;
        compiler->command[0] = compiler->program;
        compiler->n_command = 1;
        return true;
    }
    return fail(error, EXIT_ENVIRONMENT, "install one (Debian: apt install g++)",
                "there is no C++ compiler");
}

static bool hash_file(XXH64_hash_t *key, const char *path, Error *error)
{
    size_t size;
    char *bytes = file_read(path, &size, error);
    if (!bytes)
        return false;
    *key = XXH64(bytes, size, *key);
    free(bytes);
    return true;
}

bool simt_builder_open(SimtBuilder *builder, Error *error)
{
    const char *cache = getenv("SEG_CACHE");
    char log[4096], header[200];
    *builder = (SimtBuilder){ 0 };
    snprintf(builder->folder, sizeof builder->folder, "%.3000s/simt",
             cache && *cache ? cache : "build/test-cache");
    snprintf(log, sizeof log, "%s/compiler-%ld", builder->folder, (long)getpid());
    snprintf(header, sizeof header, "%s/simt.h", include_folder);
    char *const version[] = { (char *)"--version" };
    for (int i = 0; i < N_FLAGS; i++)
        builder->key = XXH64(flags[i], strlen(flags[i]), builder->key);
    bool ok = find_compiler(&builder->compiler, error) && folder_make(builder->folder, error)
           && compiler_run(&builder->compiler, version, 1, log, "--version", error)
           && hash_file(&builder->key, log, error) && hash_file(&builder->key, header, error);
    unlink(log);
    return ok;
}

/* ---- building -------------------------------------------------------------------------------- */

typedef struct {
    const SimtBuilder *builder;
    SimtUnit *units; int n;
    pthread_mutex_t lock;      /* of the rest */
    int next;
    bool failed;
    Error error;
} Build;

static void unit_path(const SimtBuilder *builder, const SimtUnit *unit, const char *ending,
                      char path[PATH_MAX])
{
    uint64_t key = builder->key;
    for (int i = 0; i < 2; i++)
        if (unit->parts[i])
            key = XXH64(unit->parts[i], strlen(unit->parts[i]), key);
    snprintf(path, PATH_MAX, "%s/%.200s-%016llx.%s", builder->folder, unit->name,
             (unsigned long long)key, ending);
}

static bool write_source(const SimtUnit *unit, const char *path, Error *error)
{
    FILE *out = fopen(path, "we");
    for (int i = 0; out && i < 2; i++)
        if (unit->parts[i])
            fputs(unit->parts[i], out);
    if (out && !ferror(out) && fclose(out) == 0)
        return true;
    return fail(error, EXIT_ENVIRONMENT, "", "cannot write %s", path);
}

static bool compile(const SimtBuilder *builder, const SimtUnit *unit, Error *error)
{
    char library[PATH_MAX], source[PATH_MAX], temporary[PATH_MAX], log[PATH_MAX], what[300];
    unit_path(builder, unit, "so", library);
    if (access(library, R_OK) == 0)
        return true;
    unit_path(builder, unit, "cc", source);
    unit_path(builder, unit, "log", log);
    unit_path(builder, unit, "tmp", temporary);
    snprintf(temporary + strlen(temporary), sizeof temporary - strlen(temporary), "-%ld",
             (long)getpid());
    char *arguments[N_FLAGS + 8];
    int n = 0;
    for (int i = 0; i < N_FLAGS; i++)
        arguments[n++] = (char *)flags[i];
    arguments[n++] = (char *)"-I";
    arguments[n++] = (char *)include_folder;
    arguments[n++] = (char *)"-o";
    arguments[n++] = temporary;
    arguments[n++] = source;
    snprintf(what, sizeof what, "kernel %.200s", unit->name);
    if (!write_source(unit, source, error)
        || !compiler_run(&builder->compiler, arguments, n, log, what, error))
        return false;
    unlink(log);
    return rename(temporary, library) == 0
        || fail(error, EXIT_ENVIRONMENT, "", "cannot write %s", library);
}

static void *compile_units(void *context)
{
    Build *build = context;
    pthread_mutex_lock(&build->lock);
    while (!build->failed && build->next < build->n) {
        const SimtUnit *unit = &build->units[build->next++];
        Error error = { 0 };
        pthread_mutex_unlock(&build->lock);
        bool done = compile(build->builder, unit, &error);
        pthread_mutex_lock(&build->lock);
        if (!done && !build->failed) {
            build->failed = true;
            build->error = error;
        }
    }
    pthread_mutex_unlock(&build->lock);
    return NULL;
}

static bool load(const SimtBuilder *builder, SimtUnit *unit, Error *error)
{
    char path[PATH_MAX];
    unit_path(builder, unit, "so", path);
    if (*path != '/' && !strchr(path, '/'))
        return fail(error, EXIT_ENVIRONMENT, "", "bad path %s", path);
    unit->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!unit->library)
        return fail(error, EXIT_ENVIRONMENT, "link the program with -rdynamic", "%s", dlerror());
    unit->kernel = dlsym(unit->library, unit->name);
    return unit->kernel
        || fail(error, EXIT_USER, "", "%s has no kernel %s", path, unit->name);
}

bool simt_build(const SimtBuilder *builder, SimtUnit *units, int n, Error *error)
{
    Build build = { .builder = builder, .units = units, .n = n,
                    .lock = PTHREAD_MUTEX_INITIALIZER };
    pthread_t workers[WORKERS];
    int started = 0;
    while (started < WORKERS - 1 && started < n - 1
           && pthread_create(&workers[started], NULL, compile_units, &build) == 0)
        started++;
    compile_units(&build);
    for (int i = 0; i < started; i++)
        pthread_join(workers[i], NULL);
    if (build.failed) {
        *error = build.error;
        return false;
    }
    for (int i = 0; i < n; i++)
        if (!load(builder, &units[i], error)) {
            simt_unload(units, i + 1);
            return false;
        }
    return true;
}

void simt_unload(SimtUnit *units, int n)
{
    for (int i = 0; i < n; i++)
        if (units[i].library)
            dlclose(units[i].library);
}

char *simt_text(const char *precision, const char *template, const char *body)
{
    char path[200], *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        abort();
    fprintf(out, "#define PRECISION_%s\n%s%s%s%s",
            strcmp(precision, "fp32") == 0 ? "FP32" : strcmp(precision, "tf32") == 0 ? "TF32"
                                                                                     : "BF16",
            kernel_file("cuda/primitives.h"), kernel_file("cuda/prelude.h"), body,
            kernel_file("cuda/rows.h"));
    snprintf(path, sizeof path, "cuda/%s", template ? template : "rows.h");
    if (template)
        fputs(kernel_file(path), out);
    fclose(out);
    return text;
}
