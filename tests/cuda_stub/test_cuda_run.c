/* Running on the CUDA device against stand-ins for the driver and NVRTC: the order and arguments of
 * launches, graphs, transfers, memory, tuning; lost devices, and every call failing in turn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/device_cuda_api.h"
#include "tiny.h"

/* ---- launches -------------------------------------------------------------------------------- */

static void test_launches(void **state)
{
    (void)state;
    Error error;
    Device *device = open_device(&error);
    Executor *executor = open_executor(device);
    assert_string_equal(logged("cuFuncSetAttribute"), "cuFuncSetAttribute scale 8 65536\n");
    clear_log();
    run_image(executor, 1, 5);
    assert_y(executor, 1, 5);
    /* One piece of memory for the programs: 192 bytes of fixed data, then activations. */
    const char *lines = logged("record|launch|cuGraphInstantiate|s1 cuGraphLaunch|run");
    char *want = NULL;
    int m;
    assert_int_equal(sscanf(lines, "record pack <<<1, 32, 0>>> m%d+128 N=1", &m), 1);
    assert_true(asprintf(&want,
                         "record pack <<<1, 32, 0>>> m%d+128 N=1\n"
                         "record scale <<<5, 128, 65536>>> m%d+192 m%d+256 1 6 N=1\n"
                         "record shift <<<1, 256, 1024>>> m%d+256 m%d+192 10 6 N=1\n"
                         "cuGraphInstantiate 3\ns1 cuGraphLaunch 3\nrun pack\nrun scale\n"
                         "run shift\n",
                         m, m, m, m, m) > 0);
    assert_string_equal(lines, want);
    free(want);
    clear_log();
    run_image(executor, 3, 50);
    assert_y(executor, 3, 50);
    assert_true(asprintf(&want,
                         "record scale <<<11, 128, 65536>>> m%d+192 m%d+384 1 6 N=3\n"
                         "record shift <<<3, 256, 1024>>> m%d+384 m%d+192 10 6 N=3\n"
                         "cuGraphInstantiate 2\ns1 cuGraphLaunch 2\nrun scale\nrun shift\n",
                         m, m, m, m) > 0);
    assert_string_equal(logged("record|launch|cuGraphInstantiate|s1 cuGraphLaunch|run"), want);
    free(want);
    tiny_shift[0].blocks_per_sample = INT32_MAX;
    assert_false(executor_run(executor, "evaluate", 4, &error));
    assert_non_null(strstr(error.text, "step 'shift it' would have 8589934588 thread blocks"));
    tiny_shift[0].blocks_per_sample = 1;
    executor_close(executor);
    device_close(device);
}

/* Products by cuBLAS: not recorded before they ran once. */
static void test_matmul(void **state)
{
    (void)state;
    Error error;
    tiny_targets[0].n_programs = 3;
    Device *device = open_device(&error);
    Executor *executor = open_executor(device);
#define PRODUCT \
    "cublasGemmEx 10 2 6 8, type 0 ld 8, type 0 ld 8, type 0 ld 2, 1 0 77 -1, workspace 33554432\n"
    static const char *const want[] = {
        PRODUCT, /* with the once-steps */
        PRODUCT,
        PRODUCT "cuGraphInstantiate 0\ns1 cuGraphLaunch 0\n",
        "s1 cuGraphLaunch 0\n",
    };
#undef PRODUCT
    for (int i = 0; i < 4; i++) {
        clear_log();
        assert_true(executor_run(executor, "train", 3, &error));
        assert_string_equal(logged("cublas|cuGraphInstantiate|s1 cuGraphLaunch"), want[i]);
    }
    setenv("STUB_CUBLAS", "7", 1);
    assert_false(executor_run(executor, "train", 2, &error));
    assert_non_null(strstr(error.text, "cublasGemmEx: CUBLAS_STATUS_INVALID_VALUE; step 'multiply "
                                       "it': 4 x 8 x 2"));
    executor_close(executor);
    setenv("STUB_FAIL", "cublasCreate_v2:1:3", 1);
    device_close(device);
    device = open_device(&error);
    assert_null(executor_open(&tiny_plan, device, 1, &error));
    assert_non_null(strstr(error.text, "cuBLAS does not start"));
    device_close(device);
    char folder[600], names[2][16] = { "libcuda.so.1", "libnvrtc.so.13" }, from[600];
    snprintf(folder, sizeof folder, "%s/no-cublas", root);
    mkdir(folder, 0700);
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/%s", stubs, names[i]);
        snprintf(folder, sizeof folder, "%s/no-cublas/%s", root, names[i]);
        assert_int_equal(symlink(from, folder), 0);
    }
    *strrchr(folder, '/') = 0;
    setenv("SEG_CUDA_LIBRARIES", folder, 1);
    device = open_device(&error);
    assert_null(executor_open(&tiny_plan, device, 1, &error));
    assert_non_null(strstr(error.text, "no cuBLAS, which this plan needs"));
    executor = executor_open_for(&tiny_plan, device, "predict", 1, &error);
    assert_non_null(executor);
    executor_close(executor);
    device_close(device);
}

static void test_graphs(void **state)
{
    (void)state;
    Error error;
    float packs;
    Device *device = open_device(&error);
    Executor *executor = open_executor(device);
    static const char lines[] = "cuGraphInstantiate|s1 cuGraphLaunch";
    clear_log();
    for (int i = 0; i < 3; i++) {
        run_image(executor, 2, (float)i);
        assert_y(executor, 2, (float)i);
    }
    assert_string_equal(logged(lines), "cuGraphInstantiate 3\ns1 cuGraphLaunch 3\n"
                                       "cuGraphInstantiate 2\ns1 cuGraphLaunch 2\n"
                                       "s1 cuGraphLaunch 2\n");
    clear_log();
    run_image(executor, 1, 7);
    assert_y(executor, 1, 7);
    run_image(executor, 2, 8);
    assert_y(executor, 2, 8);
    assert_string_equal(logged(lines), "cuGraphInstantiate 2\ns1 cuGraphLaunch 2\n"
                                       "s1 cuGraphLaunch 2\n");
    assert_true(executor_read(executor, "predict", "packs", &packs, 2, &error));
    assert_float_equal(packs, 1, 0);
    clear_log(); /* parameters changed: the recording with the once-steps comes back */
    float parameters[16] = { 0 };
    assert_true(executor_upload(executor, SLAB_PARAMETERS, parameters, &error));
    run_image(executor, 2, 9);
    assert_y(executor, 2, 9);
    assert_string_equal(logged(lines), "s1 cuGraphLaunch 3\n");
    assert_true(executor_read(executor, "predict", "packs", &packs, 2, &error));
    assert_float_equal(packs, 2, 0);
    executor_close(executor);
    device_close(device);
}

/* More batches than graphs are kept. */
static void test_many_graphs(void **state)
{
    (void)state;
    Error error;
    Device *device = open_device(&error);
    Executor *executor = executor_open(&tiny_plan, device, 40, &error);
    assert_non_null(executor);
    for (int i = 0; i < 80; i++)
        if (!executor_run(executor, "predict", 1 + i % 40, &error))
            fail_msg("%s", error.text);
    executor_close(executor);
    device_close(device);
}

static void test_profile(void **state)
{
    (void)state;
    Error error;
    Device *device = open_device(&error);
    Executor *executor = open_executor(device);
    executor_profile(executor, true);
    clear_log();
    run_image(executor, 1, 5);
    const double *times = executor_step_times(executor);
    assert_float_equal(times[0], 1e-6, 1e-9);
    assert_float_equal(times[1], 30e-6, 1e-9);
    assert_float_equal(times[2], 30e-6, 1e-9);
    assert_y(executor, 1, 5);
    run_image(executor, 1, 6);
    assert_float_equal(times[0], 0, 0);
    assert_float_equal(times[1], 30e-6, 1e-9);
    assert_y(executor, 1, 6);
    assert_string_equal(logged("s1 cuGraph|cuGraph|record"), "");
    executor_profile(executor, false);
    run_image(executor, 1, 7);
    assert_y(executor, 1, 7);
    assert_string_equal(logged("s1 cuGraph"), "s1 cuGraphLaunch 2\n");
    executor_close(executor);
    device_close(device);
}

static void test_debug(void **state)
{
    (void)state;
    Error error;
    setenv("SEG_DEBUG", "2", 1);
    Device *device = open_device(&error);
    Executor *executor = open_executor(device);
    clear_log();
    run_image(executor, 1, 5);
    assert_y(executor, 1, 5);
    assert_string_equal(logged("run|s1 synchronise|cuGraph"),
                        "s1 synchronise\nrun pack\ns1 synchronise\nrun scale\ns1 synchronise\n"
                        "run shift\n");
    assert_non_null(strstr(said, "launch scale it: scale <<<5, 128, 65536>>>\n"));
    executor_close(executor);
    device_close(device);
}

static void test_shared_memory(void **state)
{
    (void)state;
    Error error;
    setenv("STUB_SHARED", "101376", 1);
    tiny_shift[0].shared_bytes = 200000;
    Device *device = open_with((DeviceOptions){ .tune = true }, &error);
    Executor *executor = open_executor(device);
    clear_log();
    run_image(executor, 1, 5);
    assert_y(executor, 1, 5);
    assert_null(strstr(logged("run"), "run shift\n"));
    assert_non_null(strstr(logged("run"), "run shift_fast\n"));
    tiny_shift[1].shared_bytes = 150000;
    assert_false(executor_run(executor, "evaluate", 1, &error));
    assert_non_null(strstr(error.text, "kernel shift: it needs 150000 bytes of shared memory"));
    executor_close(executor);
    device_close(device);
    tiny_shift[0].shared_bytes = 1024;
    tiny_shift[1].shared_bytes = 2048;
}

/* ---- transfers ------------------------------------------------------------------------------- */

/* What is written for the next run neither waits for the one before nor disturbs its results. */
static void test_feeding(void **state)
{
    (void)state;
    Error error;
    Device *device = open_device(&error);
    Executor *executor = open_executor(device);
    run_image(executor, 2, 100);
    assert_y(executor, 2, 100);
    clear_log();
    for (int i = 0; i < 5; i++) {
        run_image(executor, 2, (float)i);
        assert_true(write_image(executor, 2, 1000, &error)); /* overwritten by the next */
        assert_true(write_image(executor, 2, (float)(i + 1), &error));
        if (i % 2)
            assert_y(executor, 2, (float)i);
    }
    assert_true(executor_run(executor, "predict", 2, &error));
    assert_y(executor, 2, 5);
    clear_log();
    run_image(executor, 2, 6);
    assert_true(write_image(executor, 2, 7, &error));
    assert_string_equal(logged("run"), ""); /* nobody has waited */
    assert_null(strstr(logged("s"), "synchronise"));
    assert_y(executor, 2, 6);
    executor_close(executor);
    device_close(device);
}

static void test_large_transfers(void **state)
{
    (void)state;
    Error error;
    const int64_t bytes = ((int64_t)11 << 20) + 24;
    Device *device = open_device(&error);
    unsigned char *a = malloc((size_t)bytes), *b = calloc(1, (size_t)bytes);
    void *memory = device->allocate(device, bytes, &error);
    assert_non_null(memory);
    assert_true(device->download(device, b, memory, bytes, &error));
    int64_t wrong = 0;
    for (int64_t i = 0; i < bytes; i++) {
        wrong += b[i] != 0;
        a[i] = (unsigned char)(i * 7 + i / 4096);
    }
    assert_true(device->upload(device, memory, a, bytes, &error));
    memset(a, 1, 4096); /* was copied already */
    assert_true(device->download(device, b, memory, bytes, &error));
    for (int64_t i = 0; i < bytes; i++)
        wrong += b[i] != (unsigned char)(i * 7 + i / 4096);
    assert_int_equal(wrong, 0);
    device->release(device, memory, bytes);
    device_close(device);
    free(a);
    free(b);
}

/* ---- memory, lost devices -------------------------------------------------------------------- */

static void test_memory(void **state)
{
    (void)state;
    Error error;
    Device *device = open_device(&error);
    tiny_programs[0].sample_bytes = 64 << 20;
    assert_null(executor_open(&tiny_plan, device, 16, &error));
    assert_non_null(strstr(error.text, "'tiny' with batch 16 needs 1.00 GiB"));
    assert_string_equal(error.hint, "the largest batch that fits is 11");
    setenv("STUB_FAIL", "cuMemAlloc_v2:2:2", 1);
    assert_null(executor_open(&tiny_plan, device, 8, &error));
    assert_non_null(strstr(error.text, "'tiny' with batch 8 needs 512.0 MiB"));
    assert_non_null(strstr(error.text, "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (out of memory)"));
    assert_non_null(strstr(error.hint, "the largest batch that fits is 6"));
    unsetenv("STUB_FAIL");
    tiny_programs[0].sample_bytes = 128;
    executor_close(open_executor(device));
    device_close(device);
}

static void test_lost(void **state)
{
    (void)state;
    Error error = { 0 }, again = { 0 };
    float y[PIXELS];
    char *body = tiny_kernels[2].body;
    tiny_kernels[2].body = TEXT("stub crash shift\nstub buffers 2\nstub scalars 1\nstub sizes 1\n");
    for (int debug = 0; debug < 2; debug++) {
        setenv("SEG_DEBUG", debug ? "1" : "0", 1);
        Device *device = open_device(&error);
        Executor *executor = open_executor(device);
        assert_true(write_image(executor, 1, 0, &error));
        bool ran = executor_run(executor, "predict", 1, &error);
        assert_int_equal(ran, !debug);
        assert_true(debug || !executor_read(executor, "predict", "y", y, 1, &error));
        assert_int_equal(error.code, EXIT_ENVIRONMENT);
        assert_non_null(strstr(error.text, "CUDA_ERROR_ILLEGAL_ADDRESS"));
        assert_non_null(strstr(error.hint, "segrun train --resume"));
        if (debug)
            assert_non_null(strstr(error.text, "step 'shift it', kernel shift in "));
        else
            assert_non_null(strstr(error.hint, "SEG_DEBUG=1"));
        assert_false(executor_run(executor, "predict", 1, &again));
        assert_string_equal(again.text, error.text);
        assert_false(write_image(executor, 1, 0, &again));
        assert_false(executor_synchronise(executor, &again));
        assert_false(executor_download(executor, SLAB_PARAMETERS, y, &again));
        assert_string_equal(again.text, error.text);
        assert_null(executor_open(&tiny_plan, device, 1, &again));
        executor_close(executor);
        device_close(device);
        assert_nothing_lives();
    }
    tiny_kernels[2].body = body;
}

/* ---- tuning ---------------------------------------------------------------------------------- */

static void test_tuning(void **state)
{
    (void)state;
    Error error;
    for (int opening = 0; opening < 2; opening++) {
        Device *device = open_with((DeviceOptions){ .tune = true, .verbose = true }, &error);
        Executor *executor = open_executor(device);
        float parameters[16] = { 42 };
        assert_true(executor_upload(executor, SLAB_PARAMETERS, parameters, &error));
        clear_log();
        run_image(executor, 2, 20);
        assert_y(executor, 2, 20);
        assert_true((strstr(logged("launch"), "launch shift <<<") != NULL) == (opening == 0));
        assert_non_null(strstr(logged("record"), "record shift_fast <<<3, 64, 2048>>>"));
        clear_log(); /* the nearest batch that was timed */
        run_image(executor, 4, 30);
        assert_y(executor, 4, 30);
        assert_string_equal(logged("launch"), "");
        assert_non_null(strstr(logged("record"), "record shift_fast <<<5, 64, 2048>>>"));
        assert_true(executor_download(executor, SLAB_PARAMETERS, parameters, &error));
        assert_float_equal(parameters[0], 42, 0);
        if (opening == 1) { /* asked for, a batch is timed itself; once */
            assert_true(executor_tune(executor, "predict", 4, &error));
            assert_non_null(strstr(logged("launch"), "launch shift <<<4"));
            clear_log();
            assert_true(executor_tune(executor, "predict", 4, &error));
            assert_null(strstr(logged("launch"), "launch shift <<<"));
        }
        executor_close(executor);
        device_close(device);
    }
    assert_int_equal(visit_cache(".txt", NULL), 1);
    Device *device = open_device(&error); /* without tuning: as the plan says */
    Executor *executor = open_executor(device);
    clear_log();
    run_image(executor, 2, 20);
    assert_string_equal(logged("launch"), "");
    assert_non_null(strstr(logged("record"), "record shift <<<2, 256, 1024>>>"));
    assert_y(executor, 2, 20);
    executor_close(executor);
    device_close(device);
}

/* ---- every call fails ------------------------------------------------------------------------ */

/* Everything that a device does; false with an error where something fails. */
static bool do_everything(const char *folder, Error *error)
{
    float y[MAX_BATCH * PIXELS] = { 0 }, parameters[16] = { 0 };
    setenv("SEG_CACHE", folder, 1);
    Device *device = open_with((DeviceOptions){ .tune = true, .verbose = true }, error);
    Executor *executor = device ? executor_open(&tiny_plan, device, MAX_BATCH, error) : NULL;
    bool done = executor && executor_upload(executor, SLAB_PARAMETERS, parameters, error);
    for (int i = 0; done && i < 4; i++) {
        int batch = i < 3 ? 2 : 4;
        executor_profile(executor, i == 2);
        done = write_image(executor, batch, 1, error)
            && executor_run(executor, "predict", batch, error)
            && executor_read(executor, "predict", "y", y, batch, error);
        if (done)
            assert_float_equal(y[0], 12, 0);
    }
    done = done && executor_synchronise(executor, error);
    executor_close(executor);
    device_close(device);
    remove_folder(folder);
    return done;
}

static void fail_each(const char *call, int code, int most)
{
    char wanted[128], folder[160], name[64];
    snprintf(name, sizeof name, "%s", call);
    char *version = strstr(name, "_v");
    if (version)
        *version = 0;
    for (int n = 1; n <= most; n++) {
        Error error = { 0 };
        snprintf(wanted, sizeof wanted, "%s:%d:%d", call, n, code);
        snprintf(folder, sizeof folder, "%s/failing", root);
        setenv("STUB_FAIL", wanted, 1);
        bool done = do_everything(folder, &error);
        unsetenv("STUB_FAIL");
        assert_nothing_lives();
        if (done)
            break; /* it is not called so often, or can be done without */
        if (!strstr(error.text, name) || error.code != EXIT_ENVIRONMENT || !error.hint[0])
            fail_msg("%s: '%s' (hint: %s)", wanted, error.text, error.hint);
    }
}

static void test_failures(void **state)
{
    (void)state;
#define NAME(name, parameters) #name,
    static const char *const driver[] = { CUDA_DRIVER_FUNCTIONS(NAME) };
    static const char *const nvrtc[] = { "nvrtcCreateProgram", "nvrtcCompileProgram",
                                         "nvrtcGetCUBINSize", "nvrtcGetCUBIN" };
#undef NAME
    for (size_t i = 1; i < sizeof driver / sizeof *driver; i++) {
        if (strncmp(driver[i], "cuGetError", 10) == 0
            || strcmp(driver[i], "cuDriverGetVersion") == 0)
            continue;
        fail_each(driver[i], 1, 40);
        fail_each(driver[i], 719, 12); /* and the context is lost */
    }
    for (size_t i = 0; i < sizeof nvrtc / sizeof *nvrtc; i++)
        fail_each(nvrtc[i], 11, 6);
}

/* ---- main ------------------------------------------------------------------------------------ */

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_launches),
        TEST(test_matmul),
        TEST(test_graphs),
        TEST(test_many_graphs),
        TEST(test_profile),
        TEST(test_debug),
        TEST(test_shared_memory),
        TEST(test_feeding),
        TEST(test_large_transfers),
        TEST(test_memory),
        TEST(test_lost),
        TEST(test_tuning),
        TEST(test_failures),
    };
    if (!tiny_open())
        return 3;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tiny_close();
    return failed > 0;
}
