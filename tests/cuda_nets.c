/* See cuda_cases.h. Whole networks, fused, in float32, tf32 and bf16.
 *
 *   oracle    every result and gradient, in train, evaluate and predict, against float64. In tf32
 *             and bf16 of a copy of the network in which nothing jumps (silu for relu, means for
 *             maxima): else the oracle and the device would take different sides at many places,
 *             and gradients would differ by what that does, not by their rounding
 *   losses    of the first steps of training, with Adam, against those recorded on the host
 */
#include "cuda_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nets.h"

typedef struct {
    const char *target;
    bool smooth;               /* see above */
    double tolerance;          /* of each tensor */
    double all_gradients;      /* of the parameters' gradients together */
    int steps;                 /* of training */
    double first_loss, losses; /* how far the losses may be off, relative */
} Mode;

/* Rounding the operands of every product to tf32, and nothing else, in the float64 oracle puts
 * U-Net's gradients together off by 2e-3 to 3.5e-3, those of bf16 by 2e-2 to 3e-2: some forty
 * products lie between the pictures and the first gradient. Single tensors, small differences of
 * large sums, are off by three times as much. The tolerances leave little beside that. */
static const Mode modes[] = {
    {"cuda-fp32", false, 1e-4, 1e-5, 3, 1e-5, 5e-3},
    {"cuda-tf32", true, 1.5e-2, 4e-3, 3, 1e-4, 5e-3},
    {"cuda-bf16", true, 0.15, 4e-2, 3, 1e-3, 2e-2},
    {"host-bf16", true, 0.15, 4e-2, 3, 1e-3, 2e-2},
};
enum { N_MODES = sizeof modes / sizeof *modes };
/* Those that run without `all`. */
static bool is_usual(const Net *net)
{
    return strcmp(net->name, "unet") == 0 || strcmp(net->name, "resnet34_unet-narrow") == 0;
}

static int passed, failed;

static void judge(bool good, const char *target, const char *net, const char *why)
{
    if (!good)
        printf("FAIL %s, %s: %s\n", target, net, why);
    *(good ? &passed : &failed) += 1;
    fflush(stdout);
}

/* ---- the tests ------------------------------------------------------------------------------ */

/* ResNet's last maps have one pixel here, and batch norm over the values of few samples multiplies
 * errors: with four, rounding in the oracle, as above, gives 7e-3 to 1.1e-2 and 6e-2 to 7e-2; with
 * eight 2.6e-3 and 2e-2, as U-Net has. */
enum { DEEP_BATCH = 8 };

static void test_oracle(const Net *net, const Mode *mode, bool train_only, Device *device,
                        const char *folder)
{
    static Outcome outcome;
    char path[SMOOTH_PATH];
    Case test = net_case(net);
    memset(&outcome, 0, sizeof outcome);
    smooth_path(net, folder, path);
    /* With relus, roundings move the gradients of deep networks ten times as far, and somewhere in
     * 40 of them float32 takes the other side as well: so does the host's. */
    if (mode->smooth || net->deep)
        test.path = path;
    if (net->deep)
        test.batch = DEEP_BATCH;
    test.tolerance = mode->tolerance;
    test.all_gradients = mode->all_gradients;
    test.train_only = train_only;
    test.fused_only = true;
    judge(compare_case(&test, device, &outcome), mode->target, net->name, outcome.problem);
    printf("%s %s: gradients together %.1e, largest error of a tensor %.1e: %s\n", mode->target,
           net->name, outcome.gradients, outcome.worst, outcome.where);
}

static void test_losses(const Net *net, const Mode *mode, Device *device)
{
    static Outcome outcome;
    Error error = {0};
    char path[200], why[200] = "";
    double want[STEPS];
    Case test = net_case(net);
    test.target = mode->target;
    Plan *plan = case_plan(&test, &outcome);
    Executor *executor = plan ? open_training(plan, device, net->batch, &error) : NULL;
    snprintf(path, sizeof path, "tests/golden/nets/%s.want", net->name);
    bool ok = executor && read_losses(path, want);
    judge(ok, mode->target, net->name, plan ? error.text : outcome.problem);
    for (int i = 0; i < mode->steps && ok; i++) {
        float loss;
        ok = train_step(executor, plan, mode->target, i + 1, net->batch, 1e-3, &loss, &error);
        snprintf(why, sizeof why, "step %d: %.100s: loss %.7g, recorded %.7g", i + 1, error.text,
                 (double)loss, want[i]);
        double off = fabs(loss - want[i]) / want[i];
        judge(ok && off <= (i ? mode->losses : mode->first_loss), mode->target, net->name, why);
        printf("%s %s, step %d: loss %.7g, off by %.1e\n", mode->target, net->name, i + 1,
               (double)loss, off);
    }
    executor_close(executor);
    if (plan)
        plan_close(plan);
}

static bool is_wanted(const CudaCases *wanted, const Net *net)
{
    if (net->host_only || !(wanted->all || wanted->name || is_usual(net)))
        return false;
    return !wanted->name || strcmp(net->name, wanted->name) == 0;
}

static void run_mode(const CudaCases *wanted, const Mode *mode, const char *folder)
{
    Error error = {0};
    Device *device = wanted->open(mode->target, &error);
    int turn = 0;
    judge(device != NULL, mode->target, "device", error.text);
    for (int i = 0; i < n_nets && device; i++)
        if (is_wanted(wanted, &nets[i])
            && (wanted->shards < 2 || turn++ % wanted->shards == wanted->shard)) {
            bool large = !is_usual(&nets[i]) && !wanted->all;
            test_oracle(&nets[i], mode, large, device, folder);
            if (!large)
                test_losses(&nets[i], mode, device);
        }
    if (device)
        device_close(device);
}

int cuda_nets(const CudaCases *wanted)
{
    char folder[SMOOTH_FOLDER];
    judge(write_smooth_models(folder), "models", "smooth", "cannot be written");
    for (int i = 0; i < N_MODES; i++)
        if (cuda_mode_wanted(wanted, modes[i].target))
            run_mode(wanted, &modes[i], folder);
    remove_smooth_models(folder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
