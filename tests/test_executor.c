/* The executor on the host device, with a plan made by hand: kernels are built, cached, repaired
 * and shared; programs run in any order and batch; what goes wrong says so.
 *
 * The model: y = 2 * w * image, with w packed by a `once` step that counts its runs; `train` adds 1
 * to w and is known by its use of the moments.
 */
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/run.h"

static int passed, failed;
static char root[] = "/tmp/test-executor-XXXXXX";

static void check(bool right, const char *format, ...)
{
    va_list arguments;
    passed += right;
    failed += !right;
    if (right)
        return;
    va_start(arguments, format);
    printf("FAIL ");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

/* ---- the plan -------------------------------------------------------------------------------- */

#define TEXT(constant) ((char *)(constant))
enum { PIXELS = 6 };

static const char prelude[] =
    "#include <stdint.h>\n#include <omp.h>\n"
    "typedef struct { void *const *buffers; const int64_t *sizes; const double *scalars; int64_t "
    "batch;\n"
    "    int threads; char *scratch; int64_t scratch_bytes; } KernelArguments;\n";
static PlanKernel kernels[] = {
    { TEXT("scale"), TEXT("y = 2 * w * image\nends in a backslash \\"),
      TEXT(
          "double library_factor(double);\n"
          "void scale(const KernelArguments *a)\n{\n"
          "    const float *w = a->buffers[0], *x = a->buffers[1];\n    float *y = a->buffers[2];\n"
          "    #pragma omp parallel for num_threads(a->threads)\n"
          "    for (int64_t i = 0; i < a->batch * a->sizes[0]; i++) {\n"
          "        *(int64_t *)(a->scratch + omp_get_thread_num() * a->scratch_bytes + 56) = i;\n"
          "        y[i] = (float)library_factor(a->scalars[0]) * w[0] * x[i];\n    }\n}\n"),
      NULL, "library_factor" },
    { TEXT("pack"), TEXT(""),
      TEXT("void pack(const KernelArguments *a)\n{\n    float *to = a->buffers[1];\n"
           "    to[0] = *(const float *)a->buffers[0];\n    to[1] += 1;\n}\n"), NULL, NULL },
    { TEXT("library_factor"), TEXT(""),
      TEXT("double library_factor(double x) { return x + 1; }\n"), NULL, NULL },
    { TEXT("adam"), TEXT(""),
      TEXT("void adam(const KernelArguments *a)\n{\n"
           "    *(float *)a->buffers[0] += (float)*(const double *)a->buffers[2];\n"
           "    ((float *)a->buffers[1])[0] += 1;\n}\n"), NULL, NULL },
};
static PlanParameter parameters[] = {
    { TEXT("w"), 1, { 1 }, true, PLAN_INIT_CONSTANT, 3, 0, NULL },
};
static PlanTensor tensors[] = {
    { TEXT("image"), ROLE_INPUT, PLAN_F32, true, { 1, 2, 3 }, { SLAB_ACTIVATIONS, 0, 24 } },
    { TEXT("y"), ROLE_OUTPUT, PLAN_F32, true, { 1, 2, 3 }, { SLAB_ACTIVATIONS, 64, 24 } },
    { TEXT("packs"), ROLE_METRIC, PLAN_F32, false, { 2, 1, 1 }, { SLAB_FIXED, 128, 64 } },
};
static PlanBuffer pack_buffers[] = { { SLAB_PARAMETERS, 0, 4 }, { SLAB_FIXED, 128, 64 } };
static PlanBuffer scale_buffers[] = { { SLAB_FIXED, 128, 64 }, { SLAB_ACTIVATIONS, 0, 24 },
                                      { SLAB_ACTIVATIONS, 64, 24 } };
static PlanBuffer adam_buffers[] = { { SLAB_PARAMETERS, 0, 4 }, { SLAB_MOMENTS, 64, 64 },
                                     { SLAB_FIXED, 0, 128 } };
static int64_t scale_sizes[] = { PIXELS };
static double scale_scalars[] = { 1 };
static PlanStep steps[] = {
    { .kernel = 1, .n_buffers = 2, .buffers = pack_buffers, .once = true, .label = TEXT("pack") },
    { .kernel = 0, .n_buffers = 3, .n_sizes = 1, .n_scalars = 1, .buffers = scale_buffers,
      .sizes = scale_sizes, .scalars = scale_scalars, .scratch = 64, .flops_per_sample = 12,
      .bytes_per_sample = 48, .label = TEXT("scale") },
    { .kernel = 3, .n_buffers = 3, .buffers = adam_buffers, .flops = 1, .bytes = 12,
      .label = TEXT("adam") },
};
static PlanProgram programs[] = {
    { TEXT("train"), 3, tensors, 3, steps, 192, 128, 64, false, 0, NULL },
    { TEXT("evaluate"), 3, tensors, 2, steps, 192, 128, 64, false, 0, NULL },
    { TEXT("predict"), 3, tensors, 2, steps, 192, 128, 64, false, 0, NULL },
};
static PlanTarget target = { TEXT("host"), TEXT(prelude), 4, kernels, 3, programs };
static Plan plan = { .model = TEXT("tiny"),
                     .path = TEXT("tiny.seg"),
                     .text = TEXT(""),
                     .options = TEXT(""),
                     .parameter_bytes = 64,
                     .trainable_bytes = 64,
                     .n_parameters = 1,
                     .parameters = parameters,
                     .n_targets = 1,
                     .targets = &target };

/* ---- helpers --------------------------------------------------------------------------------- */

static int built, warned;
static bool count_built(void *context, int done, int total)
{
    (void)context;
    built = done;
    if (done > total)
        built = -1;
    return true;
}
static void count_warning(void *context, const char *text)
{
    (void)context;
    (void)text;
    warned++;
}

static Device *open_device(Error *error)
{
    DeviceOptions options = {
        .name = "auto", .threads = 2, .progress = count_built, .warn = count_warning
    };
    built = warned = 0;
    *error = (Error){ 0 };
    return device_open(&options, error);
}

static bool run_once(Executor *executor, const char *program, int batch, float *y, Error *error)
{
    float image[4 * PIXELS];
    for (int i = 0; i < 4 * PIXELS; i++)
        image[i] = (float)i;
    return executor_write(executor, program, "image", image, batch, error)
        && executor_run(executor, program, batch, error)
        && executor_read(executor, program, "y", y, batch, error);
}

/* Opens everything, predicts with w = 3, and tells how many kernels were built; -1 after an error.
 */
static int build_and_run(Error *error)
{
    float w[16] = { 3 }, y[4 * PIXELS] = { 0 };
    Device *device = open_device(error);
    Executor *executor = device ? executor_open(&plan, device, 4, error) : NULL;
    bool right = executor && executor_upload(executor, SLAB_PARAMETERS, w, error)
              && run_once(executor, "predict", 4, y, error);
    for (int i = 0; i < 4 * PIXELS; i++)
        right = right && y[i] == 6.0f * (float)i;
    executor_close(executor);
    device_close(device);
    return right ? built : -1;
}

static void set_cache(const char *name, char folder[128])
{
    snprintf(folder, 128, "%s/%s", root, name);
    setenv("SEG_CACHE", folder, 1);
}

/* Calls visit for the files of the kernels' folder with that ending; gives their number. */
static int visit_cache(const char *cache, const char *ending, void (*visit)(const char *path))
{
    char folder[160], path[512];
    int count = 0;
    snprintf(folder, sizeof folder, "%s/kernels", cache);
    DIR *names = opendir(folder);
    for (struct dirent *entry; names && (entry = readdir(names));) {
        size_t n = strlen(entry->d_name), m = strlen(ending);
        if (entry->d_name[0] == '.' || n < m || strcmp(entry->d_name + n - m, ending) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (visit)
            visit(path);
        count++;
    }
    if (names)
        closedir(names);
    return count;
}

static void remove_file(const char *path) { unlink(path); }

static void remove_cache(const char *cache)
{
    char folder[160];
    visit_cache(cache, "", remove_file);
    snprintf(folder, sizeof folder, "%s/kernels", cache);
    rmdir(folder);
    check(rmdir(cache) == 0, "something was left in %s", cache);
}

/* ---- programs -------------------------------------------------------------------------------- */

static void check_state(Executor *executor)
{
    float y[4 * PIXELS], packs[2], w[16] = { 3 };
    Error error = { 0 };
    executor_state(executor)->learning_rate = 1;
    check(executor_upload(executor, SLAB_PARAMETERS, w, &error), "upload: %s", error.text);
    check(run_once(executor, "predict", 2, y, &error) && y[11] == 66, "predict, batch 2: %s",
          error.text);
    check(run_once(executor, "predict", 3, y, &error) && y[17] == 102, "predict, batch 3: %s",
          error.text);
    executor_read(executor, "predict", "packs", packs, 3, &error);
    check(packs[1] == 1, "packed %g times in two runs", packs[1]);
    check(run_once(executor, "train", 4, y, &error) && y[23] == 138, "train: %s", error.text);
    check(run_once(executor, "train", 1, y, &error) && y[5] == 40, "train again: %s", error.text);
    check(run_once(executor, "evaluate", 1, y, &error) && y[5] == 50, "evaluate: %s", error.text);
    executor_read(executor, "evaluate", "packs", packs, 1, &error);
    check(packs[1] == 4, "packed %g times, 4 were needed", packs[1]);
    check(executor_download(executor, SLAB_PARAMETERS, w, &error) && w[0] == 5, "w is %g", w[0]);
    float moments[32];
    check(executor_download(executor, SLAB_MOMENTS, moments, &error) && moments[16] == 2,
          "moments");
}

/* A program that packs anew itself what it changed: its once-steps hold after it. */
static void check_keeps_once(Executor *executor)
{
    float y[4 * PIXELS], before[2] = { 0 }, after[2] = { 0 };
    Error error = { 0 };
    programs[0].keeps_once = true;
    bool ran = run_once(executor, "train", 1, y, &error)
            && executor_read(executor, "train", "packs", before, 1, &error)
            && run_once(executor, "train", 1, y, &error)
            && executor_read(executor, "train", "packs", after, 1, &error);
    check(ran && after[1] == before[1], "packed %g times, then %g: %s", before[1], after[1],
          error.text);
    programs[0].keeps_once = false;
}

static void check_refusals(Executor *executor)
{
    float y[4 * PIXELS] = { 0 };
    Error error = { 0 };
    check(!executor_run(executor, "predict", 5, &error) && strstr(error.text, "1 to 4"), "batch 5");
    check(!executor_run(executor, "predict", 0, &error), "batch 0");
    check(!executor_run(executor, "dream", 1, &error) && strstr(error.text, "dream"),
          "unknown program");
    check(!executor_write(executor, "train", "y", y, 1, &error), "writing a result");
    check(!executor_read(executor, "train", "image", y, 1, &error), "reading an input");
    check(!executor_read(executor, "train", "y", y, 1, &error), "reading another program's result");
    check(executor_read(executor, "evaluate", "y", y, 1, &error), "reading again: %s", error.text);
    check(!executor_read(executor, "evaluate", "y", y, 2, &error), "reading with another batch");
    executor_write(executor, "evaluate", "image", y, 1, &error);
    check(!executor_read(executor, "evaluate", "y", y, 1, &error),
          "reading what a write overwrote");
    check(executor_read(executor, "evaluate", "packs", y, 1, &error),
          "a fixed result after a write");
}

static void test_programs(void)
{
    char cache[128];
    Error error;
    set_cache("programs", cache);
    Device *device = open_device(&error);
    check(device != NULL, "device: %s", error.text);
    if (!device)
        return;
    check(strstr(device_describe(device), "cpu: 2 threads, ") != NULL, "%s",
          device_describe(device));
    Executor *executor = executor_open(&plan, device, 4, &error);
    check(executor && built == 4, "executor: %s, %d built", error.text, built);
    if (executor) {
        check_state(executor);
        check_keeps_once(executor);
        executor_run(executor, "evaluate", 1, &error);
        check_refusals(executor);
        executor_profile(executor, true);
        executor_run(executor, "predict", 4, &error);
        executor_run(executor, "predict", 4, &error);
        check(executor_step_times(executor)[0] == 0 && executor_step_times(executor)[1] > 0,
              "step times");
        check(executor_bytes(executor) == 64 + 192 + 128 + 4 * 128 + 2 * 64
              && executor_bytes(executor) == plan_bytes(&plan, "host", 4, 2), "%lld bytes",
              (long long)executor_bytes(executor));
    }
    executor_close(executor);
    executor = executor_open_for(&plan, device, "evaluate,predict", 2, &error);
    check(executor && executor_slab_bytes(executor, SLAB_MOMENTS) == 0, "two programs: %s",
          error.text);
    check(executor && !executor_run(executor, "train", 1, &error), "a program that was not opened");
    executor_close(executor);
    check(!executor_open_for(&plan, device, "predict,dream", 2, &error)
              && strstr(error.text, "dream"),
          "opening an unknown program");
    device_close(device);
    remove_cache(cache);
}

/* ---- the cache ------------------------------------------------------------------------------- */

/* Damaged copies take the files' places: what is loaded from the old ones must not change. */
static void cut(const char *path)
{
    size_t size;
    char *bytes = file_read(path, &size, NULL);
    check(bytes && file_write(path, bytes, size / 2, NULL), "cutting %s", path);
    free(bytes);
}
static void flip(const char *path)
{
    size_t size;
    char *bytes = file_read(path, &size, NULL);
    if (bytes)
        bytes[size / 3] ^= 1;
    check(bytes && file_write(path, bytes, size, NULL), "damaging %s", path);
    free(bytes);
}
static void empty(const char *path) { check(file_write(path, "", 0, NULL), "emptying %s", path); }

static void test_cache(void)
{
    static void (*const damages[])(const char *) = { cut, flip, empty, remove_file };
    char cache[128];
    Error error;
    set_cache("cache", cache);
    check(build_and_run(&error) == 4, "first build: %d built; %s", built, error.text);
    check(visit_cache(cache, ".c", NULL) == 4 && visit_cache(cache, ".o", NULL) == 4
              && visit_cache(cache, ".so", NULL) == 1 && visit_cache(cache, ".log", NULL) == 0,
          "cached files");
    check(build_and_run(&error) == 0, "second build: %d built; %s", built, error.text);
    kernels[1].header = TEXT("another comment");
    check(build_and_run(&error) == 0, "another comment: %d built", built);
    for (int i = 0; i < 4; i++) {
        visit_cache(cache, ".so", damages[i]);
        check(build_and_run(&error) == 0, "library damaged (%d): %d built; %s", i, built,
              error.text);
        visit_cache(cache, ".so", damages[i]);
        visit_cache(cache, ".o", damages[i]);
        check(build_and_run(&error) == 4, "all damaged (%d): %d built; %s", i, built, error.text);
        visit_cache(cache, ".txt", damages[i]);
        check(build_and_run(&error) == 0, "probe damaged (%d): %d built; %s", i, built, error.text);
    }
    char *body = kernels[1].body;
    kernels[1].body = TEXT("void pack(const KernelArguments *a)\n{\n"
                           "    ((float *)a->buffers[1])[0] = *(float *)a->buffers[0];\n}\n");
    check(build_and_run(&error) == 1, "one kernel changed: %d built; %s", built, error.text);
    kernels[1].body = body;
    check(visit_cache(cache, "", NULL) == 4 * 2 + 2 + 2 + 1, "%d files",
          visit_cache(cache, "", NULL));
    remove_cache(cache);
}

static void test_many_processes(void)
{
    char cache[128];
    Error error;
    set_cache("many", cache);
    pid_t children[4];
    fflush(stdout);
    for (int i = 0; i < 4; i++)
        if ((children[i] = fork()) == 0) { /* OpenMP does not survive a fork: start anew */
            execl("/proc/self/exe", "test_executor", "child", (char *)NULL);
            _exit(3);
        }
    int status, wrong = 0;
    for (int i = 0; i < 4; i++)
        wrong += waitpid(children[i], &status, 0) < 0 || status != 0;
    check(wrong == 0, "%d of 4 processes with one cache failed", wrong);
    check(visit_cache(cache, ".so", NULL) == 1 && build_and_run(&error) == 0, "what they left");
    check(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD, "a child is left");
    remove_cache(cache);
}

static void test_no_cache(void)
{
    char temporary[128];
    Error error;
    snprintf(temporary, sizeof temporary, "%s/tmp", root);
    mkdir(temporary, 0700);
    setenv("TMPDIR", temporary, 1);
    setenv("SEG_CACHE", "/proc/nowhere", 1);
    check(build_and_run(&error) == 4 && warned == 1, "no cache folder: %d built, %d warnings; %s",
          built, warned, error.text);
    check(rmdir(temporary) == 0, "the temporary folder is not removed");
    unsetenv("TMPDIR");
}

/* ---- compilers ------------------------------------------------------------------------------- */

static void test_compilers(void)
{
    char cache[128];
    Error error;
    set_cache("compilers", cache);
    setenv("SEG_CC", "/nowhere/cc", 1);
    check(build_and_run(&error) == -1 && error.code == EXIT_ENVIRONMENT
              && strstr(error.text, "/nowhere/cc") && error.hint[0],
          "no compiler: %s", error.text);
    setenv("SEG_CC", "false", 1);
    check(build_and_run(&error) == -1 && error.code == EXIT_ENVIRONMENT, "false: %s", error.text);
    unsetenv("SEG_CC");
    setenv("PATH", "/nowhere", 1);
    check(build_and_run(&error) == -1 && strstr(error.hint, "apt install"), "empty PATH: %s",
          error.text);
    setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
    setenv("SEG_CC", " gcc  -DEXTRA ", 1);
    if (access("/usr/bin/gcc", X_OK) == 0)
        check(build_and_run(&error) == 4, "gcc with a flag: %s", error.text);
    setenv("SEG_CC", "clang", 1);
    if (access("/usr/bin/clang", X_OK) == 0) {
        int result = build_and_run(&error);
        check(result == 4 || (result == -1 && strstr(error.hint, "libomp-dev")), "clang: %s",
              error.text);
    }
    unsetenv("SEG_CC");
    char *body = kernels[1].body;
    kernels[1].body = TEXT("void pack(void)\n{\n    nonsense here;\n}\n");
    check(build_and_run(&error) == -1 && error.code == EXIT_ENVIRONMENT
              && strstr(error.text, "kernel pack") && strstr(error.text, "nonsense")
              && strstr(error.hint, ".log"),
          "wrong C: %s", error.text);
    kernels[1].body = TEXT("void packed(void) {}\n");
    check(build_and_run(&error) == -1 && error.code == EXIT_USER
              && strstr(error.text, "no function"),
          "no function: %s", error.text);
    kernels[1].body = TEXT("void missing(void);\nvoid pack(void) { missing(); }\n");
    check(build_and_run(&error) == -1 && strstr(error.text, "missing"), "not linkable: %s",
          error.text);
    kernels[1].body = body;
    remove_cache(cache);
}

/* ---- memory, trust --------------------------------------------------------------------------- */

static void test_limits(void)
{
    char cache[128];
    Error error;
    set_cache("limits", cache);
    Device *device = open_device(&error);
    if (!device) {
        check(false, "device: %s", error.text);
        return;
    }
    programs[2].sample_bytes = (int64_t)1 << 30;
    check(!executor_open(&plan, device, 100000, &error) && error.code == EXIT_ENVIRONMENT
              && strstr(error.text, "batch 100000 needs 100000.00 GiB")
              && strstr(error.hint, "the largest batch that fits is "),
          "memory: %s; %s", error.text, error.hint);
    programs[2].sample_bytes = (int64_t)1 << 43;
    check(!executor_open(&plan, device, 1, &error) && strstr(error.hint, "not even"), "memory: %s",
          error.hint);
    programs[2].sample_bytes = (int64_t)1 << 30;
    Executor *executor = executor_open_for(&plan, device, "train", 100, &error);
    check(executor != NULL, "memory of other programs is asked for: %s", error.text);
    executor_close(executor);
    programs[2].sample_bytes = 128;
    check(!executor_open(&plan, device, 0, &error), "batch 0");
    plan.foreign = true;
    check(!executor_open(&plan, device, 1, &error) && error.code == EXIT_USER
          && strstr(error.hint, "--trust"), "another user's plan: %s", error.text);
    device_close(device);
    DeviceOptions trusting = { .name = "cpu", .trust = true };
    device = device_open(&trusting, &error);
    executor = executor_open(&plan, device, 1, &error);
    check(executor != NULL, "a trusted plan: %s", error.text);
    executor_close(executor);
    plan.foreign = false;
    target.name = TEXT("other");
    check(!executor_open(&plan, device, 1, &error) && strstr(error.hint, "--target host"), "%s",
          error.text);
    target.name = TEXT("host");
    device_close(device);
    DeviceOptions cuda = { .name = "cuda" };
    setenv("SEG_CUDA_LIBRARIES", "/nowhere", 1);
    check(!device_open(&cuda, &error) && error.code == EXIT_ENVIRONMENT, "cuda");
    unsetenv("SEG_CUDA_LIBRARIES");
    check(system_processors() >= 1 && system_memory() > 0, "this machine");
    remove_cache(cache);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0) {
        Error error;
        return build_and_run(&error) < 0;
    }
    if (!mkdtemp(root))
        return 3;
    unsetenv("SEG_CC");
    test_programs();
    test_cache();
    test_many_processes();
    test_no_cache();
    test_compilers();
    test_limits();
    check(rmdir(root) == 0, "something was left in %s", root);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
