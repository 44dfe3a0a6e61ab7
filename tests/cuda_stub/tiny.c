/* See tiny.h. */
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tiny.h"

char root[32] = "/tmp/test-cuda-XXXXXX";
char stubs[512], log_path[128], cache[128];

/* ---- the plan -------------------------------------------------------------------------------- */

PlanKernel tiny_kernels[] = {
    { .name = TEXT("pack"), .header = TEXT("what runs once"),
      .body = TEXT("stub count pack\nstub buffers 1\n") },
    { .name = TEXT("scale"), .header = TEXT("y = image + 1  # tiny.seg:3"),
      .body = TEXT("stub add scale\nstub buffers 2\nstub scalars 1\nstub sizes 1\n"
                   "stub microseconds 30\n") },
    { .name = TEXT("shift"), .header = TEXT(""),
      .body = TEXT("stub add shift\nstub buffers 2\nstub scalars 1\nstub sizes 1\n"
                   "stub microseconds 30\n") },
    { .name = TEXT("shift_fast"), .header = TEXT(""),
      .body = TEXT("stub add shift_fast\nstub buffers 2\nstub scalars 1\nstub sizes 1\n"
                   "stub microseconds 20\n") },
    { .name = TEXT(PLAN_MATMUL), .header = TEXT(""), .body = TEXT("") },
};
static PlanTensor tensors[] = {
    { TEXT("image"), ROLE_INPUT, PLAN_F32, true, { 1, 2, 3 }, { SLAB_ACTIVATIONS, 0, 64 } },
    { TEXT("y"), ROLE_OUTPUT, PLAN_F32, true, { 1, 2, 3 }, { SLAB_ACTIVATIONS, 0, 64 } },
    { TEXT("packs"), ROLE_METRIC, PLAN_F32, false, { 1, 1, 1 }, { SLAB_FIXED, 128, 64 } },
};
static PlanBuffer pack_buffers[] = { { SLAB_FIXED, 128, 64 } };
static PlanBuffer scale_buffers[] = { { SLAB_ACTIVATIONS, 0, 64 }, { SLAB_ACTIVATIONS, 64, 64 } };
static PlanBuffer shift_buffers[] = { { SLAB_ACTIVATIONS, 64, 64 }, { SLAB_ACTIVATIONS, 0, 64 } };
static int64_t sizes[] = { PIXELS };
static double one[] = { 1 }, ten[] = { 10 };
static PlanLaunch pack_launches[] = { { 0, 32, 1, 0, 0 } };
static PlanLaunch scale_launches[] = { { 1, 128, 2, 3, 65536 } };
PlanLaunch tiny_shift[] = { { 2, 256, 0, 1, 1024 }, { 3, 64, 1, 1, 2048 } };
static PlanStep steps[] = {
    { .kernel = 0, .n_launches = 1, .launches = pack_launches, .n_buffers = 1,
      .buffers = pack_buffers, .once = true, .label = TEXT("pack the weights") },
    { .kernel = 1, .n_launches = 1, .launches = scale_launches, .n_buffers = 2, .n_sizes = 1,
      .n_scalars = 1, .buffers = scale_buffers, .sizes = sizes, .scalars = one,
      .label = TEXT("scale it") },
    { .kernel = 2, .n_launches = 2, .launches = tiny_shift, .n_buffers = 2, .n_sizes = 1,
      .n_scalars = 1, .buffers = shift_buffers, .sizes = sizes, .scalars = ten,
      .label = TEXT("shift it") },
};
static PlanBuffer matrices[] = { { SLAB_ACTIVATIONS, 0, 64 }, { SLAB_FIXED, 128, 64 },
                                 { SLAB_ACTIVATIONS, 64, 64 } };
static int64_t matrix_sizes[MATMUL_SIZES] = { [MATMUL_ROWS_PER_SAMPLE] = 2, [MATMUL_COLUMNS] = 2,
                                              [MATMUL_DEPTH] = 8, [MATMUL_B_TRANSPOSED] = 1 };
static PlanStep product = { .kernel = 4, .n_buffers = 3, .buffers = matrices,
                            .n_sizes = MATMUL_SIZES, .sizes = matrix_sizes,
                            .label = TEXT("multiply it") };
PlanProgram tiny_programs[] = {
    { TEXT("predict"), 3, tensors, 3, steps, 192, 128, 0, false, 0, NULL },
    { TEXT("evaluate"), 3, tensors, 3, steps, 192, 128, 0, false, 0, NULL },
    { TEXT("train"), 3, tensors, 1, &product, 192, 128, 0, false, 0, NULL },
};
PlanTarget tiny_targets[] = {
    { TEXT("cuda-tf32"), TEXT("stub prelude"), 5, tiny_kernels, 2, tiny_programs },
    { TEXT("cuda-fp32"), TEXT("stub prelude of fp32"), 5, tiny_kernels, 2, tiny_programs },
    { TEXT("host"), TEXT(""), 0, NULL, 0, NULL },
};
Plan tiny_plan = { .model = TEXT("tiny"), .path = TEXT("tiny.seg"), .text = TEXT(""),
                   .options = TEXT(""), .parameter_bytes = 64, .trainable_bytes = 64,
                   .n_targets = 3, .targets = tiny_targets };

/* ---- helpers --------------------------------------------------------------------------------- */

int built;
char said[8192];

static bool count_built(void *context, int done, int total)
{
    (void)context;
    (void)total;
    built = done;
    return true;
}

static void keep_said(void *context, const char *text)
{
    (void)context;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", text);
}

Device *open_with(DeviceOptions options, Error *error)
{
    if (!options.name)
        options.name = "cuda";
    options.plan = &tiny_plan;
    options.progress = count_built;
    options.say = keep_said;
    *error = (Error){ 0 };
    built = 0;
    said[0] = 0;
    return device_open(&options, error);
}

Device *open_device(Error *error) { return open_with((DeviceOptions){ 0 }, error); }

void clear_log(void) { assert_int_equal(truncate(log_path, 0), 0); }

const char *logged(const char *words)
{
    static char found[16384];
    size_t size;
    char *text = file_read(log_path, &size, NULL), *rest;
    found[0] = 0;
    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest))
        for (const char *at = words; *at; at += strcspn(at, "|") + (at[strcspn(at, "|")] != 0)) {
            size_t n = strcspn(at, "|");
            if (strncmp(line, at, n) != 0)
                continue;
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s\n", line);
            break;
        }
    free(text);
    return found;
}

void assert_nothing_lives(void)
{
    char path[600], text[256];
    snprintf(path, sizeof path, "%s/libcuda.so.1", stubs);
    void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (!library)
        return;
    int (*live)(char *, size_t) = NULL;
    *(void **)&live = dlsym(library, "stub_live");
    if (live(text, sizeof text) != 0)
        fail_msg("left: %s", text);
    dlclose(library);
}

void remove_folder(const char *folder)
{
    char path[512];
    DIR *names = opendir(folder);
    for (struct dirent *entry; names && (entry = readdir(names));) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.' && unlink(path) != 0)
            remove_folder(path);
    }
    if (names)
        closedir(names);
    rmdir(folder);
}

static const char *const settings[] = {
    "STUB_FAIL", "STUB_DEVICES", "STUB_CAPABILITY", "STUB_DRIVER", "STUB_SHARED", "STUB_MEMORY",
    "STUB_NVRTC", "STUB_UNLOADABLE", "STUB_CUBLAS", "SEG_DEBUG", "CUDA_HOME", "CUDA_PATH",
};

int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        unsetenv(settings[i]);
    setenv("SEG_CUDA_LIBRARIES", stubs, 1);
    setenv("SEG_CACHE", cache, 1);
    setenv("STUB_LOG", log_path, 1);
    tiny_plan.targets = tiny_targets;
    tiny_plan.n_targets = 3;
    tiny_targets[0].n_programs = 2;
    return file_write(log_path, "", 0, NULL) ? 0 : -1;
}

int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        unsetenv(settings[i]);
    assert_nothing_lives();
    remove_folder(cache);
    return 0;
}

static void fill(float *image, float first)
{
    for (int i = 0; i < MAX_BATCH * PIXELS; i++)
        image[i] = first + (float)i;
}

bool write_image(Executor *executor, int batch, float first, Error *error)
{
    float image[MAX_BATCH * PIXELS];
    fill(image, first);
    return executor_write(executor, "predict", "image", image, batch, error);
}

void assert_y(Executor *executor, int batch, float first)
{
    float y[MAX_BATCH * PIXELS] = { 0 };
    Error error = { 0 };
    if (!executor_read(executor, "predict", "y", y, batch, &error))
        fail_msg("%s", error.text);
    for (int i = 0; i < batch * PIXELS; i++)
        assert_float_equal(y[i], first + (float)i + 11, 0);
}

void run_image(Executor *executor, int batch, float first)
{
    Error error = { 0 };
    if (!write_image(executor, batch, first, &error)
        || !executor_run(executor, "predict", batch, &error))
        fail_msg("%s", error.text);
}

Executor *open_executor(Device *device)
{
    Error error = { 0 };
    Executor *executor = executor_open(&tiny_plan, device, MAX_BATCH, &error);
    if (!executor)
        fail_msg("%s", error.text);
    return executor;
}

int visit_cache(const char *ending, void (*visit)(const char *path))
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

/* ---- all tests ------------------------------------------------------------------------------- */

bool tiny_open(void)
{
    ssize_t length = readlink("/proc/self/exe", stubs, sizeof stubs - 1);
    if (length <= 0 || !mkdtemp(root))
        return false;
    stubs[length] = 0;
    *strstr(strrchr(stubs, '/') - strlen("/tests/cuda_stub"), "/tests/cuda_stub") = 0;
    strcat(stubs, "/cuda_stub"); /* build/tests/cuda_stub/test_... -> build/cuda_stub */
    snprintf(log_path, sizeof log_path, "%s/log", root);
    snprintf(cache, sizeof cache, "%s/cache", root);
    return true;
}

void tiny_close(void) { remove_folder(root); }
