/* Whole networks on the host device.
 *
 *   oracle    every result and gradient, fused and unfused, against float64 (comparison.c); deep
 *             networks twice (nets.c)
 *   threads   the same bits after training steps with 1, 2 and 3 threads
 *   adam      one fused step against PyTorch's formula in double
 *   losses    the first ten losses from a fixed seed against tests/golden/nets/NAME.want;
 *             SEG_BLESS=1 rewrites these files
 *
 * The networks are those of models/, small by their params. Tolerances: an error of one rounding is
 * multiplied by every batch norm (it divides by a deviation) on the way, most where it sees few
 * pixels.
 * timeout: 400   sanitize: no
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nets.h"

static int passed, failed;

static bool check(bool good, const char *format, const char *name, const char *why)
{
    if (!good) {
        printf("FAIL ");
        printf(format, name, why);
        printf("\n");
    }
    *(good ? &passed : &failed) += 1;
    fflush(stdout);
    return good;
}

static Device *open_device(int threads)
{
    Error error = {0};
    DeviceOptions options = {.name = "cpu", .threads = threads};
    Device *device = device_open(&options, &error);
    if (!device) {
        printf("FAIL no device: %s\n0 passed, 1 failed\n", error.text);
        exit(1);
    }
    return device;
}

static void compare(const Net *net, const Case *test, const char *how, Device *device)
{
    static Outcome outcome;
    memset(&outcome, 0, sizeof outcome);
    bool ok = compare_case(test, device, &outcome);
    check(ok, "%s: %s", net->name, outcome.problem);
    printf("%s%s: largest error %.1e: %s\n", net->name, how, outcome.worst, outcome.where);
}

static void test_oracle(const Net *net, Device *device)
{
    char folder[SMOOTH_FOLDER], path[SMOOTH_PATH];
    Case test = net_case(net);
    test.winograd = !net->deep;
    compare(net, &test, "", device);
    if (!net->deep)
        return;
    check(write_smooth_models(folder), "%s: no copy in %s", net->name, folder);
    smooth_path(net, folder, path);
    test.path = path;
    test.winograd = test.train_only = true;
    compare(net, &test, " without jumps, by Winograd", device);
    remove_smooth_models(folder);
}

/* ---- training ---------------------------------------------------------------------------------- */

static float *download(Executor *executor, Slab slab)
{
    Error error = {0};
    float *data = calloc((size_t)executor_slab_bytes(executor, slab) + 1, 1);
    if (!data || !executor_download(executor, slab, data, &error))
        abort();
    return data;
}

static void test_threads(const Net *net, const Plan *plan)
{
    float *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        Device *device = open_device(threads);
        Error error = {0};
        Executor *executor = open_training(plan, device, net->batch, &error);
        bool ok = executor != NULL;
        float loss;
        for (int step = 1; step <= 3 && ok; step++)
            ok = train_step(executor, plan, "host", step, net->batch, 1e-3, &loss, &error);
        if (check(ok, "%s, threads: %s", net->name, error.text)) {
            float *parameters = download(executor, SLAB_PARAMETERS);
            check(!first || memcmp(first, parameters, (size_t)plan->parameter_bytes) == 0,
                  "%s: other bits with another number of threads%s", net->name, "");
            if (first)
                free(parameters);
            else
                first = parameters;
        }
        executor_close(executor);
        device_close(device);
    }
    free(first);
}

/* Adam (Kingma, Ba 2015) as PyTorch computes it, in double. */
static void adam(double *parameter, double *moments, double gradient, int step, double rate)
{
    moments[0] = 0.9 * moments[0] + 0.1 * gradient;
    moments[1] = 0.999 * moments[1] + 0.001 * gradient * gradient;
    double mean = moments[0] / (1 - pow(0.9, step)), square = moments[1] / (1 - pow(0.999, step));
    *parameter -= rate * mean / (sqrt(square) + 1e-8);
}

static void test_adam(const Net *net, const Plan *plan, Device *device)
{
    Error error = {0};
    Executor *executor = open_training(plan, device, net->batch, &error);
    if (!check(executor != NULL, "%s, adam: %s", net->name, error.text))
        return;
    int64_t count = plan->trainable_bytes / 4;
    double (*moments)[2] = calloc((size_t)count, sizeof *moments), worst = 0, rate = 1e-3;
    for (int step = 1; step <= 3; step++) {
        float loss, *before = download(executor, SLAB_PARAMETERS);
        bool ok = train_step(executor, plan, "host", step, net->batch, rate, &loss, &error);
        check(ok, "%s, adam: %s", net->name, error.text);
        float *after = download(executor, SLAB_PARAMETERS);
        float *gradients = download(executor, SLAB_GRADIENTS);
        for (int64_t i = 0; i < count; i++) {
            double want = before[i];
            adam(&want, moments[i], gradients[i], step, rate);
            /* Moments are kept in float: 1e-6 of a step; and the sum is rounded to float. */
            worst = fmax(worst, fabs(after[i] - want) - fabs(want) * 0x1p-24);
        }
        free(before);
        free(after);
        free(gradients);
    }
    free(moments);
    executor_close(executor);
    printf("%s: Adam, largest difference %.1e of a step of %.0e\n", net->name, worst, rate);
    check(worst < 1e-5 * rate, "%s: Adam's steps differ from the formula%s", net->name, "");
}

/* ---- recorded losses ------------------------------------------------------------------------------ */

static void write_losses(const Net *net, const char *path, const float losses[STEPS])
{
    FILE *file = fopen(path, "w");
    if (!file)
        return;
    fprintf(file, "# %s, batch %d: losses of the first steps, Adam 1e-3. Tolerance: 1e-5 for the first, "
            "%g for the rest, relative.\n", net->name, net->batch, net->loss_tolerance);
    for (int i = 0; i < STEPS; i++)
        fprintf(file, "step %d loss %.7g\n", i + 1, (double)losses[i]);
    fclose(file);
}

static void test_losses(const Net *net, const Plan *plan, Device *device)
{
    char path[200];
    snprintf(path, sizeof path, "tests/golden/nets/%s.want", net->name);
    Error error = {0};
    Executor *executor = open_training(plan, device, net->batch, &error);
    bool ok = executor != NULL;
    float losses[STEPS];
    for (int i = 0; i < STEPS && ok; i++)
        ok = train_step(executor, plan, "host", i + 1, net->batch, 1e-3, &losses[i], &error);
    executor_close(executor);
    if (!check(ok, "%s, losses: %s", net->name, error.text))
        return;
    if (getenv("SEG_BLESS"))
        write_losses(net, path, losses);
    double want[STEPS];
    if (!check(read_losses(path, want), "%s: no recorded losses in %s", net->name, path))
        return;
    for (int i = 0; i < STEPS; i++) {
        double tolerance = i == 0 ? 1e-5 : net->loss_tolerance;
        char text[100];
        snprintf(text, sizeof text, "step %d: %.7g, recorded %.7g", i + 1, (double)losses[i], want[i]);
        check(fabs(losses[i] - want[i]) <= tolerance * fabs(want[i]), "%s, loss of %s", net->name, text);
    }
}

/* test_nets [NAME]: one network. */
int main(int argc, char **argv)
{
    Device *device = open_device(0);
    for (int i = 0; i < n_nets; i++) {
        if (argc > 1 && strcmp(nets[i].name, argv[1]) != 0)
            continue;
        static Outcome outcome;
        Case test = net_case(&nets[i]);
        Plan *plan = case_plan(&test, &outcome);
        if (!check(plan != NULL, "%s: %s", nets[i].name, outcome.problem))
            continue;
        if (!getenv("SEG_BLESS"))
            test_oracle(&nets[i], device);
        test_threads(&nets[i], plan);
        if (i == 0)
            test_adam(&nets[i], plan, device);
        test_losses(&nets[i], plan, device);
        plan_close(plan);
    }
    device_close(device);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
