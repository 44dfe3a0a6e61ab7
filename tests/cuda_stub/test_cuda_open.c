/* Opening the CUDA device against stand-ins for the driver and NVRTC: which GPU and precision are
 * chosen, what is said where something is missing or too old, kernels and their cache.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tiny.h"

/* ---- what is missing, and what is chosen ----------------------------------------------------- */

static void refuses(DeviceOptions options, const char *text, const char *hint)
{
    Error error;
    Device *device = open_with(options, &error);
    assert_null(device);
    if (!strstr(error.text, text) || !strstr(error.hint, hint))
        fail_msg("got '%s' (hint: %s), wanted '%s' (hint: %s)", error.text, error.hint, text, hint);
    assert_true(error.code >= EXIT_USER && error.code <= EXIT_ENVIRONMENT);
    assert_nothing_lives();
}

static void folder_with(const char *name, const char *link, const char *of)
{
    char folder[256], path[512], from[600];
    snprintf(folder, sizeof folder, "%s/%s", root, name);
    mkdir(folder, 0700);
    snprintf(path, sizeof path, "%s/%s", folder, link);
    snprintf(from, sizeof from, "%s/%s", stubs, of);
    assert_true(!*link || symlink(from, path) == 0);
    setenv("SEG_CUDA_LIBRARIES", folder, 1);
}

static void test_missing(void **state)
{
    (void)state;
    Error error;
    folder_with("nothing", "", "");
    refuses((DeviceOptions){ 0 }, "no NVIDIA driver: there is no libcuda.so.1", "-d cpu");
    Device *device = open_with((DeviceOptions){ .name = "auto", .threads = 1 }, &error);
    assert_non_null(device);
    assert_non_null(strstr(device_describe(device), "cpu: 1 thread"));
    assert_string_equal(device_note(device),
                        "not cuda: no NVIDIA driver: there is no libcuda.so.1");
    device_close(device);
    folder_with("driver", "libcuda.so.1", "libcuda.so.1");
    refuses((DeviceOptions){ 0 }, "no NVRTC", "CUDA_HOME");
    folder_with("old", "libcuda.so.1", "libnvrtc.so.13");
    refuses((DeviceOptions){ 0 }, "too old: it has no cuInit", "update the NVIDIA driver");
    setenv("SEG_CUDA_LIBRARIES", stubs, 1);
    setenv("STUB_DRIVER", "11020", 1);
    refuses((DeviceOptions){ 0 }, "it is for CUDA 11.2, 11.4 is needed", "update");
    unsetenv("STUB_DRIVER");
    setenv("STUB_DEVICES", "0", 1);
    refuses((DeviceOptions){ 0 }, "no GPU", "nvidia-smi");
    unsetenv("STUB_DEVICES");
    setenv("STUB_FAIL", "cuInit:1:803", 1);
    refuses((DeviceOptions){ 0 }, "different versions", "restart");
    setenv("STUB_FAIL", "cuInit:1:34", 1);
    refuses((DeviceOptions){ 0 }, "stub", "install");
    setenv("STUB_FAIL", "cuInit:1:999", 1);
    refuses((DeviceOptions){ 0 }, "does not start", "nvidia-smi");
}

static void test_unsuitable(void **state)
{
    (void)state;
    refuses((DeviceOptions){ .name = "cuda:3" }, "no cuda:3: the NVIDIA driver finds 1 device",
            "from 0");
    refuses((DeviceOptions){ .name = "cuda:x" }, "unknown device 'cuda:x'", "cuda:N");
    refuses((DeviceOptions){ .name = "cuda:" }, "unknown device", "cuda:N");
    refuses((DeviceOptions){ .precision = "fp8" }, "unknown precision 'fp8'", "bf16");
    refuses((DeviceOptions){ .name = "cpu", .precision = "tf32" }, "the cpu computes in fp32",
            "-d cuda");
    setenv("STUB_DEVICES", "2", 1);
    refuses((DeviceOptions){ .name = "cuda:1" }, "Stub 1 is sm_61: CUDA kernels need sm_70",
            "-d cpu");
    setenv("STUB_CAPABILITY", "75", 1);
    refuses((DeviceOptions){ .precision = "tf32" }, "Stub 0 is sm_75: tf32 needs sm_80",
            "--precision fp32");
    tiny_plan.n_targets = 1;
    refuses((DeviceOptions){ 0 }, "tf32 or bf16 needs sm_80",
            "segc --target cuda --precision fp32");
    tiny_plan.n_targets = 3;
    setenv("STUB_CAPABILITY", "70", 1);
    refuses((DeviceOptions){ 0 }, "builds for sm_75 to sm_120, not for this GPU, sm_70",
            "older CUDA toolkit");
    setenv("STUB_CAPABILITY", "120", 1);
    setenv("STUB_NVRTC", "12040", 1);
    refuses((DeviceOptions){ 0 }, "NVRTC 12.4", "newer CUDA toolkit");
}

static void expect_device(DeviceOptions options, const char *description, const char *target)
{
    Error error;
    options.verbose = true;
    Device *device = open_with(options, &error);
    if (!device)
        fail_msg("%s", error.text);
    assert_string_equal(device_describe(device), description);
    assert_string_equal(device_target(device), target);
    device_close(device);
    assert_nothing_lives();
}

static void test_choice(void **state)
{
    (void)state;
    expect_device((DeviceOptions){ 0 }, "cuda: Stub 0, 132 SMs, 1.0 GiB, tf32, NVRTC 13.0",
                  "cuda-tf32");
    assert_non_null(strstr(said, "builds for sm_90a"));
    expect_device((DeviceOptions){ .name = "auto" },
                  "cuda: Stub 0, 132 SMs, 1.0 GiB, tf32, NVRTC 13.0", "cuda-tf32");
    expect_device((DeviceOptions){ .precision = "bf16" },
                  "cuda: Stub 0, 132 SMs, 1.0 GiB, bf16, NVRTC 13.0", "cuda-bf16");
    setenv("STUB_DEVICES", "2", 1);
    expect_device((DeviceOptions){ .name = "cuda:0" },
                  "cuda: Stub 0, 132 SMs, 1.0 GiB, tf32, NVRTC 13.0", "cuda-tf32");
    setenv("STUB_CAPABILITY", "103", 1);
    expect_device((DeviceOptions){ 0 }, "cuda: Stub 0, 132 SMs, 1.0 GiB, tf32, NVRTC 13.0",
                  "cuda-tf32");
    assert_non_null(strstr(said, "builds for sm_100;"));
    setenv("STUB_CAPABILITY", "75", 1);
    expect_device((DeviceOptions){ .name = "auto" },
                  "cuda: Stub 0, 132 SMs, 1.0 GiB, fp32, NVRTC 13.0", "cuda-fp32");
    assert_non_null(strstr(said, "builds for sm_75;"));
    Error error;
    tiny_plan.targets = tiny_targets + 2;
    tiny_plan.n_targets = 1;
    Device *device = open_with((DeviceOptions){ .name = "auto", .threads = 2 }, &error);
    assert_string_equal(device_note(device), "not cuda: the plan has no kernels for it");
    device_close(device);
    refuses((DeviceOptions){ 0 }, "the plan has no kernels for cuda", "--target host,cuda");
    tiny_plan.targets = tiny_targets;
    setenv("STUB_DEVICES", "0", 1);
    refuses((DeviceOptions){ .name = "auto" }, "no GPU", "nvidia-smi");
    tiny_plan.n_targets = 3;
}

/* ---- kernels --------------------------------------------------------------------------------- */

static int build_and_run(Error *error)
{
    Device *device = open_device(error);
    Executor *executor = device ? executor_open(&tiny_plan, device, 1, error) : NULL;
    bool done = executor && write_image(executor, 1, 3, error)
             && executor_run(executor, "predict", 1, error);
    if (done)
        assert_y(executor, 1, 3);
    executor_close(executor);
    device_close(device);
    assert_nothing_lives();
    return done ? built : -1;
}

static void cut(const char *path)
{
    size_t size;
    char *bytes = file_read(path, &size, NULL);
    assert_true(bytes && file_write(path, bytes, size / 2, NULL));
    free(bytes);
}

static void test_build(void **state)
{
    (void)state;
    Error error;
    int n = build_and_run(&error);
    if (n != 3)
        fail_msg("%d built: %s", n, error.text);
    assert_int_equal(visit_cache(".cu", NULL), 3);
    assert_int_equal(visit_cache(".cubin", NULL), 3);
    assert_int_equal(visit_cache("", NULL), 6);
    const char *lines = logged("nvrtcCompileProgram scale-");
    assert_non_null(strstr(lines, ".cu --gpu-architecture=sm_90a --std=c++17 "
                                  "--device-as-default-execution-space --minimal\n"));
    assert_int_equal(build_and_run(&error), 0);
    visit_cache(".cubin", cut);
    assert_int_equal(build_and_run(&error), 3);
    tiny_kernels[0].header = TEXT("another comment");
    assert_int_equal(build_and_run(&error), 0);
    setenv("STUB_CAPABILITY", "80", 1); /* another architecture */
    assert_int_equal(build_and_run(&error), 3);
    setenv("STUB_CAPABILITY", "90", 1);
    setenv("STUB_NVRTC", "12040", 1);   /* another version */
    assert_int_equal(build_and_run(&error), 3);
    setenv("STUB_DRIVER", "12020", 1);
    setenv("STUB_UNLOADABLE", "1", 1);
    assert_int_equal(build_and_run(&error), -1);
    assert_non_null(strstr(error.text, "cuModuleLoadData: CUDA_ERROR_NO_BINARY_FOR_GPU"));
    assert_non_null(strstr(error.text, "tiny: kernel "));
    assert_non_null(strstr(error.hint, "the driver (CUDA 12.2) is older than NVRTC 12.4"));
}

static void test_build_fails(void **state)
{
    (void)state;
    Error error;
    char *body = tiny_kernels[1].body, line[64];
    tiny_kernels[1].body = TEXT("a first line\na second line\nthe STUB_ERROR line\n"
                                "a line behind it\n");
    assert_int_equal(build_and_run(&error), -1);
    tiny_kernels[1].body = body;
    assert_int_equal(error.code, EXIT_ENVIRONMENT);
    /* the header's comment and the prelude are before it */
    assert_non_null(strstr(error.text, "tiny: kernel scale: NVRTC 13.0 cannot build it: scale-"));
    assert_non_null(strstr(error.text, ".cu(5): error: identifier"));
    snprintf(line, sizeof line, ">     5 | the STUB_ERROR line\n");
    assert_non_null(strstr(said, line));
    assert_non_null(strstr(said, "      4 | a second line\n"));
    assert_non_null(strstr(error.hint, "/kernels/scale-"));
    assert_int_equal(visit_cache(".cu.log", NULL), 1);
    setenv("STUB_FAIL", "nvrtcCompileProgram:1:1", 1);
    assert_int_equal(build_and_run(&error), -1);
    assert_non_null(strstr(error.text, "not enough memory (1)"));
}

/* ---- main ------------------------------------------------------------------------------------ */

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_missing),
        TEST(test_unsuitable),
        TEST(test_choice),
        TEST(test_build),
        TEST(test_build_fails),
    };
    if (!tiny_open())
        return 3;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tiny_close();
    return failed > 0;
}
