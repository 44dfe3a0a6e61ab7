/* What follows the gradients, against its formulas in double (as PyTorch has them):
 *
 *   optimisers   Adam, AdamW, SGD with momentum, Nesterov's, each with weight decay, three steps
 *   clipping     gradients longer and shorter than the limit
 *   sums         of two batches: the same gradients as of the batch alone, in the same steps
 *   average      of all parameters, running statistics included
 */
#include "update_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2, N_STEPS = 3 };
static const char text[] =
    "model tiny {\n"
    "    input  image : u8[3, 9, 9]\n"
    "    target mask  : u8[1, 9, 9]\n"
    "    x = relu(batch_norm(conv(image / 255, 20, kernel = 3, padding = 1)))\n"
    "    x = relu(conv(x, 17, kernel = 3, padding = 1, name = \"second\"))\n"
    "    output p = sigmoid(conv(x, 1, kernel = 1, name = \"head\"))\n"
    "    loss binary_cross_entropy(p, mask)\n"
    "}\n";
static const double rate = 1e-2, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0.1;
static int passed, failed;

static bool judge(bool good, const char *target, const char *what, const char *why)
{
    if (!good)
        printf("FAIL %s, %s: %s\n", target, what, why);
    *(good ? &passed : &failed) += 1;
    return good;
}

typedef struct {
    const char *name;
    Optimiser optimiser;
    unsigned parts;
    double clip;
} UpdateCase;
enum { SUMMED = 1 << PART_SUM | 1 << PART_TOTAL, USUAL = 1 << PART_MAIN | 1 << PART_UPDATE };
static const UpdateCase cases[] = {
    { "Adam", OPTIMISER_ADAM, 0, 0 },
    { "AdamW", OPTIMISER_ADAMW, 1 << PART_AVERAGE, 0 },
    { "SGD", OPTIMISER_SGD, 1 << PART_CLIP, 1e-3 },
    { "Nesterov", OPTIMISER_NESTEROV, SUMMED | 1 << PART_AVERAGE, 0 },
    { "Adam, clipped sums", OPTIMISER_ADAM, SUMMED | 1 << PART_CLIP, 1e-2 },
    { "SGD, a limit that is not reached", OPTIMISER_SGD, 1 << PART_CLIP, 1e6 },
};

static double norm_of(const float *gradients, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)gradients[i] * (double)gradients[i];
    return sqrt(sum);
}

/* One parameter's step: p and its two moments. */
static double step_of(const UpdateCase *test, int step, double p, double g, double moments[2])
{
    double *m = &moments[0], *v = &moments[1];
    bool adam = test->optimiser <= OPTIMISER_ADAMW;
    if (test->optimiser == OPTIMISER_ADAMW)
        p -= rate * decay * p;
    else
        g += decay * p;
    *m = beta1 * *m + (adam ? 1 - beta1 : 1) * g;
    *v = beta2 * *v + (1 - beta2) * g * g;
    if (adam)
        return p - rate / (1 - pow(beta1, step)) * *m
                       / (sqrt(*v) / sqrt(1 - pow(beta2, step)) + eps);
    return p - rate * (test->optimiser == OPTIMISER_NESTEROV ? g + beta1 * *m : *m);
}

static float *download(Executor *executor, Slab slab, Error *error)
{
    float *data = calloc((size_t)executor_slab_bytes(executor, slab) + 1, 1);
    if (data && executor_download(executor, slab, data, error))
        return data;
    free(data);
    return NULL;
}

/* A run of one batch, or of the same batch twice. */
static bool run_step(Executor *executor, const Plan *plan, const char *target,
                     const UpdateCase *test, int step, Error *error)
{
    const PlanProgram *program = plan_program(plan_target(plan, target), "train");
    bool twice = test->parts & SUMMED;
    *executor_state(executor) = (PlanState){
        .learning_rate = rate, .beta1 = beta1, .beta2 = beta2, .eps = eps, .weight_decay = decay,
        .clip = test->clip, .step = step, .optimiser = test->optimiser,
        .blends = { { 0, 0.25 }, { 0.75, 1 }, { step > 1 ? 0.9 : 0, step > 1 ? 0.1 : 1 } },
    };
    return write_sources(executor, program, BATCH, 1, error)
        && (!twice || executor_run_parts(executor, "train", 1 << PART_MAIN | 1 << PART_SUM, BATCH,
                                         error))
        && (!twice || write_sources(executor, program, BATCH, 1, error))
        && executor_run_parts(executor, "train", USUAL | (test->parts & ~(1u << PART_SUM)), BATCH,
                              error);
}

/* The largest difference of a step from its formula, and of the average from its own. */
static double check_step(Executor *executor, const Plan *plan, const UpdateCase *test, int step,
                         const float *before, double (*moments)[2], double *average, Error *error)
{
    int64_t count = plan->trainable_bytes / 4;
    float *after = download(executor, SLAB_PARAMETERS, error);
    float *gradients = download(executor, SLAB_GRADIENTS, error);
    bool averages = test->parts >> PART_AVERAGE & 1;
    float *mean = averages ? download(executor, SLAB_AVERAGE, error) : NULL;
    double worst = after && gradients && (mean || !averages) ? 0 : HUGE_VAL, scale = 1;
    if (worst == 0 && test->parts >> PART_CLIP & 1)
        scale = fmin(1, test->clip / (norm_of(gradients, count) + 1e-6));
    for (int64_t i = 0; i < count && worst < HUGE_VAL; i++) {
        double want = step_of(test, step, before[i], scale * (double)gradients[i], moments[i]);
        worst = fmax(worst, fabs((double)after[i] - want) - fabs(want) * 0x1p-23);
    }
    for (int64_t i = 0; averages && i < plan->parameter_bytes / 4 && worst < HUGE_VAL; i++) {
        average[i] = step > 1 ? 0.9 * average[i] + 0.1 * (double)after[i] : (double)after[i];
        worst = fmax(worst, fabs((double)mean[i] - average[i]) - fabs(average[i]) * 0x1p-22);
    }
    free(after);
    free(gradients);
    free(mean);
    return worst;
}

/* The gradients of the batch alone, which sums must give again: step 1, from the same values. */
static void check_sums(Executor *executor, const Plan *plan, const char *target,
                       const float *alone, const char *name, Error *error)
{
    (void)target;
    float *gradients = download(executor, SLAB_GRADIENTS, error);
    double worst = gradients ? 0 : HUGE_VAL;
    for (int64_t i = 0; gradients && i < plan->trainable_bytes / 4; i++)
        worst = fmax(worst, fabs((double)gradients[i] - (double)alone[i]) / (1e-4 + fabs((double)alone[i])));
    judge(worst < 1e-5, target, name, "the sum of two batches' gradients is wrong");
    free(gradients);
}

static void run_case(const Plan *plan, Device *device, const char *target, const UpdateCase *test,
                     float **alone)
{
    Error error = { 0 };
    Executor *executor = executor_open_for(plan, device, "train+sum+total+clip+average", BATCH,
                                           &error);
    double (*moments)[2] = calloc((size_t)plan->parameter_bytes / 4, sizeof *moments), worst = 0;
    double *average = calloc((size_t)plan->parameter_bytes / 4, sizeof *average);
    bool good = executor && write_parameters(executor, plan, 5, &error);
    for (int step = 1; good && step <= N_STEPS; step++) {
        float *before = download(executor, SLAB_PARAMETERS, &error);
        good = before && run_step(executor, plan, target, test, step, &error);
        if (good && step == 1 && (test->parts & SUMMED))
            check_sums(executor, plan, target, *alone, test->name, &error);
        if (good && !*alone)
            *alone = download(executor, SLAB_GRADIENTS, &error);
        if (good)
            worst = fmax(worst, check_step(executor, plan, test, step, before, moments, average,
                                           &error));
        free(before);
    }
    judge(good, target, test->name, error.text);
    char why[80];
    snprintf(why, sizeof why, "off by %.1e, with a rate of %.0e", worst, rate);
    judge(worst < 1e-5 * rate, target, test->name, why);
    printf("%s, %s: largest difference %.1e\n", target, test->name, worst);
    free(moments);
    free(average);
    executor_close(executor);
}

/* A run cannot do what the program was not opened for. */
static void check_parts(const Plan *plan, Device *device, const char *target)
{
    Error error = { 0 };
    Executor *executor = executor_open_for(plan, device, "train+clip", 1, &error);
    judge(executor && executor_slab_bytes(executor, SLAB_SUMS) == 0
              && executor_slab_bytes(executor, SLAB_AVERAGE) == 0, target, "memory", error.text);
    judge(executor && !executor_run_parts(executor, "train", 1 << PART_AVERAGE, 1, &error), target,
          "parts", "ran what was not opened");
    executor_close(executor);
}

int update_cases(const char *target, Device *device)
{
    static Outcome outcome;
    float *alone = NULL;
    Case test = { .text = text, .batch = BATCH, .plain_inputs = true, .target = target };
    Plan *plan = case_plan(&test, &outcome);
    judge(plan != NULL, target, "plan", outcome.problem);
    for (size_t i = 0; plan && i < sizeof cases / sizeof *cases; i++)
        run_case(plan, device, target, &cases[i], &alone);
    if (plan)
        check_parts(plan, device, target);
    free(alone);
    if (plan)
        plan_close(plan);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
