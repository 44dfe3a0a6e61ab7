/* Networks as plain C (compiler/export_c.c) against the executor.
 *
 *   bits      two exported networks in one program (tests/export_c/program.c), built with the flags
 *             that kernels are built with, give the bits that an executor gives
 *   builds    without any flag for this machine, by gcc with AddressSanitizer and
 *             UndefinedBehaviorSanitizer, by clang, and for aarch64 under qemu, where these are there:
 *             no warning, no report, the same numbers to 1e-6
 *   models    every other model of models/ is C without warnings
 *
 * Weights are drawn, statistics too.
 * timeout: 300   sanitize: no
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiler/export_c.h"
#include "runtime/run.h"

enum { BATCH = 2, SIZE = 64, PICTURE = 3 * SIZE * SIZE, MAP = SIZE * SIZE };
enum { RESULTS = 2 * BATCH * MAP };

static int passed, failed, skipped;
static char folder[64] = "/tmp/seg-export-XXXXXX";
static uint8_t pictures[BATCH * PICTURE];
static float expected[RESULTS];

static bool check(bool good, const char *what, const char *why)
{
    if (!good)
        printf("FAIL %s: %s\n", what, why);
    *(good ? &passed : &failed) += 1;
    fflush(stdout);
    return good;
}

static double next_number(void)
{
    static uint32_t state = 1;
    state = state * 1664525 + 1013904223;
    return (state >> 8) / (double)(1 << 24);
}

/* Runs a command in the folder. */
static bool run(const char *format, const char *a, const char *b)
{
    char command[1200];
    int n = snprintf(command, sizeof command, "cd %s && ", folder);
    snprintf(command + n, sizeof command - (size_t)n, format, a, b);
    return system(command) == 0;
}

static bool is_there(const char *program)
{
    return run("command -v %s >/dev/null 2>&1", program, "");
}

/* ---- exporting ------------------------------------------------------------------------------- */

static Compilation compilation(const char *path, Define *defines, int n_defines)
{
    return (Compilation){.arena = arena_open(), .path = path, .defines = defines,
                         .n_defines = n_defines, .precision = "fp32", .targets = "host",
                         .json = true, .messages = stdout};
}

/* As PyTorch would, but for statistics that keep the size of values through the layers. */
static float *draw_parameters(const Plan *plan)
{
    float *parameters = calloc((size_t)plan->parameter_bytes + 1, 1);
    params_initialise(plan, 1, parameters);
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        float *at = parameters + parameter->offset / 4;
        const double scale = strstr(parameter->name, "running_var") ? 0.17 : 1;
        const int64_t count = parameter->init == PLAN_INIT_CONSTANT ? params_count(parameter) : 0;
        for (int64_t k = 0; k < count; k++)
            at[k] = (float)(scale * (at[k] + 0.3 * (next_number() - 0.5)));
    }
    return parameters;
}

static bool write_safetensors(const Plan *plan, const float *parameters, const char *path)
{
    Error error = {0};
    SafeTensors file = {.n_tensors = plan->n_parameters};
    file.tensors = calloc((size_t)plan->n_parameters + 1, sizeof *file.tensors);
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        SafeTensor *tensor = &file.tensors[i];
        *tensor = (SafeTensor){.name = parameter->name, .type = PLAN_F32, .rank = parameter->rank,
                               .data = parameters + parameter->offset / 4,
                               .bytes = params_count(parameter) * 4};
        memcpy(tensor->dims, parameter->dims, sizeof parameter->dims);
    }
    bool written = safetensors_write(path, &file, &error);
    free(file.tensors);
    return check(written, path, error.text);
}

static void predict(const Plan *plan, const float *parameters, float *result)
{
    Error error = {0};
    DeviceOptions options = {.name = "cpu", .threads = 2};
    Device *device = device_open(&options, &error);
    Executor *executor = device ? executor_open_for(plan, device, "predict", BATCH, &error) : NULL;
    check(executor && executor_upload(executor, SLAB_PARAMETERS, parameters, &error)
              && executor_write(executor, "predict", "image", pictures, BATCH, &error)
              && executor_run(executor, "predict", BATCH, &error)
              && executor_read(executor, "predict", "probability", result, BATCH, &error),
          plan->model, error.text);
    executor_close(executor);
    device_close(device);
}

/* A model into the folder; its result, where it is asked for. */
static bool export_model(const char *path, Define *defines, int n_defines, float *result)
{
    char weights[100];
    Compilation c = compilation(path, defines, n_defines);
    Plan *plan = compile(&c);
    bool done = check(plan != NULL, path, "does not compile");
    if (done) {
        float *parameters = draw_parameters(plan);
        snprintf(weights, sizeof weights, "%s/weights.safetensors", folder);
        done = write_safetensors(plan, parameters, weights)
            && check(export_c(&c, plan, weights, folder), path, "is not exported");
        if (done && result)
            predict(plan, parameters, result);
        free(parameters);
    }
    arena_close(c.arena);
    return done;
}

/* ---- programs -------------------------------------------------------------------------------- */

/* The largest difference between `count` numbers of a file and what the executor gave; infinity
 * where these are not in it. */
static double difference(const char *name, size_t count)
{
    static float found[RESULTS];
    char path[100];
    double largest = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    bool whole = file && fread(found, sizeof *found, count, file) == count;
    if (file)
        fclose(file);
    for (size_t i = 0; whole && i < count; i++) {
        double d = fabs((double)found[i] - (double)expected[i]);
        largest = d <= largest ? largest : d; /* NaN stays */
    }
    return whole ? largest : INFINITY;
}

/* Builds the program with a compiler and its flags, runs it, compares; with both networks or, which
 * takes half the time, one. emulator: before the program's name. */
static void test_program(const char *what, const char *build, bool both, const char *emulator,
                         double tolerance)
{
    if (!check(run("%s -Wall -Wextra -Werror -Wno-psabi %s unet.c program.c -o program -lm", build,
                   both ? "resnet34_unet.c" : "-DONE_NETWORK"), what, "does not build"))
        return;
    bool ran = run("%s ./program pictures %s", emulator, "results");
    double worst = ran ? difference("results", both ? RESULTS : RESULTS / 2) : INFINITY;
    check(worst <= tolerance, what, ran ? "other numbers" : "fails");
    printf("%s: largest difference %.1e\n", what, worst);
    run("rm -f program results%s%s", "", "");
}

static bool test_networks(void)
{
    Define narrow[] = {{"width", "8"}, {"size", "64"}};
    Define resnet[] = {{"width", "16"}, {"reduction", "4"}, {"size", "64"}};
    char root[1000], path[100];
    for (int i = 0; i < BATCH * PICTURE; i++)
        pictures[i] = (uint8_t)(256 * next_number());
    snprintf(path, sizeof path, "%s/pictures", folder);
    return export_model("models/unet.seg", narrow, 2, expected)
        && export_model("models/resnet34_unet.seg", resnet, 3, expected + BATCH * MAP)
        && check(file_write(path, pictures, sizeof pictures, NULL), path, "cannot be written")
        && check(getcwd(root, sizeof root)
                 && run("cp '%s/tests/export_c/program.c' .%s", root, ""), "program.c", "no copy");
}

static void test_programs(void)
{
    double least = INFINITY, most = 0;
    for (int i = 0; i < RESULTS; i++) {
        least = expected[i] < least ? expected[i] : least;
        most = expected[i] > most ? expected[i] : most;
    }
    printf("probabilities from %.3f to %.3f\n", least, most);
    check(least < most - 0.05, "probabilities", "are all the same");
    test_program("this machine", "${SEG_CC:-cc} -O3 -march=native -fopenmp -ffp-contract=fast "
                 "-fno-math-errno -fno-trapping-math", true, "", 0);
    test_program("sanitizers", "${SEG_CC:-cc} -std=c17 -O1 -fsanitize=address,undefined "
                 "-fno-sanitize-recover=all", false, "", 1e-6);
    if (is_there("clang"))
        test_program("clang", "clang -O1", false, "", 1e-6);
    else
        skipped++;
    if (is_there("aarch64-linux-gnu-gcc") && is_there("qemu-aarch64"))
        test_program("aarch64", "aarch64-linux-gnu-gcc -O1 -static", false, "qemu-aarch64", 1e-6);
    else
        skipped++;
}

/* ---- all models ------------------------------------------------------------------------------ */

static void test_models(void)
{
    static const char *const models[] = {
        "attention_unet", "deeplabv3_resnet34", "mobilenetv2_unet", "resnet34_unet_paper",
        "unet_bilinear", "unet_plus_plus", "unet_small",
    };
    Define size[] = {{"size", "64"}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[100];
        snprintf(path, sizeof path, "models/%s.seg", models[i]);
        if (export_model(path, size, 1, NULL))
            check(run("${SEG_CC:-cc} -fsyntax-only -Wall -Wextra -Werror %s.c%s", models[i], ""),
                  path, "is not good C");
    }
}

int main(void)
{
    if (!mkdtemp(folder))
        return printf("FAIL %s\n0 passed, 1 failed\n", folder), 1;
    if (test_networks())
        test_programs();
    test_models();
    if (!getenv("SEG_TEST_KEEP"))
        run("rm -rf %s%s", folder, "");
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed > 0;
}
