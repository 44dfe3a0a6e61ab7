/* See cuda_cases.h. Every row of op_cases.c in float32, fused and unfused; in bf16, whose tensors
 * lie otherwise in memory, every row fused; in tf32, where only products differ, those with
 * products. Then the ways to launch a step: a kernel's other tiles must give what the first ones
 * give. Last, convolutions by `--gemm cublas`, in each precision: what leads to a product of
 * matrices and away from it, and how its steps describe the product.
 */
#include "cuda_cases.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "op_cases.h"

/* Which models of a row run, and how far they may be off. */
typedef struct {
    const char *target;
    int models, products;      /* of a row; of one with products of matrices */
    bool fused_only;
    double tolerance;          /* 0: the row's */
    double norm_tolerance;     /* of rows with batch norm, which divides by small deviations */
} Mode;

static const Mode modes[] = {
    {"cuda-fp32", 1, 1, false, 0, 0},
    {"cuda-tf32", 0, 1, true, 1e-3, 5e-3},
    {"cuda-bf16", 1, 1, true, 1e-2, 5e-2},
    {"host-bf16", 1, 1, true, 1e-2, 5e-2},
};
enum { N_MODES = sizeof modes / sizeof *modes, MAX_MODELS = 16 };

typedef struct {
    const CudaCases *wanted;
    const Mode *mode;
    Device *device;
    double start;
    int turn;                  /* of the shards */
    int passed, failed, skipped;
} Running;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Whether this process runs the next case; one that there is no time for is skipped. */
static bool is_mine(Running *running)
{
    const CudaCases *wanted = running->wanted;
    if (wanted->shards > 1 && running->turn++ % wanted->shards != wanted->shard)
        return false;
    if (wanted->seconds <= 0 || now() - running->start < wanted->seconds)
        return true;
    running->skipped++;
    return false;
}

static bool has_products(const OpRow *row)
{
    return strstr(row->body, "conv") || strstr(row->body, "linear(");
}

/* In less than float32, products are followed by nothing that jumps: it would turn their rounding
 * into anything. */
static Case case_in_mode(int row, int number, const Mode *mode, Outcome *outcome)
{
    static char *smooth;
    Case test = {0};
    memset(outcome, 0, sizeof *outcome);
    if (!op_case(row, number, &test, outcome) || mode->tolerance <= 0)
        return test;
    test.tolerance = strstr(op_rows[row].body, "batch_norm") ? mode->norm_tolerance
                                                             : mode->tolerance;
    test.fused_only = mode->fused_only;
    if (has_products(&op_rows[row])) {
        free(smooth);
        test.text = smooth = without_jumps(strdup(test.text));
    }
    return test;
}

static void judge(Running *running, bool ok, int row, int number, const Case *test,
                  const Outcome *outcome)
{
    if (!ok)
        printf("FAIL %s, row %d (%s), model %d, launch %d, batch %d: %s\n%s\n",
               running->mode->target, row, op_rows[row].op, number, test->launch, test->batch,
               outcome->problem, test->text);
    *(ok ? &running->passed : &running->failed) += 1;
    fflush(stdout);
}

static void run_model(Running *running, int row, int number, double *worst)
{
    static Outcome outcome;
    Case test = case_in_mode(row, number, running->mode, &outcome);
    bool ok = !outcome.failed && compare_case(&test, running->device, &outcome);
    if (outcome.worst > *worst)
        *worst = outcome.worst;
    judge(running, ok, row, number, &test, &outcome);
}

/* Is `name` in a comma list? */
static bool is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == 0))
            return true;
    return false;
}

static bool is_convolution(const OpRow *row)
{
    return strcmp(row->op, "conv") == 0 || strcmp(row->op, "conv_transpose") == 0;
}

/* Models of a row that are wanted. */
static int count_models(const Running *running, const OpRow *row)
{
    const CudaCases *wanted = running->wanted;
    int models = has_products(row) ? running->mode->products : running->mode->models;
    bool cuda = strncmp(running->mode->target, "cuda", 4) == 0;
    if (models == 0 || (row->rule == WINOGRAD && cuda)
        || (wanted->name && !is_listed(wanted->name, row->op)))
        return 0;
    return wanted->all || wanted->model >= 0 || row->models < models ? row->models : models;
}

/* The first models of all rows come first: time may end. */
static void run_models(Running *running)
{
    double worst[512] = {0};
    for (int number = 0; number < MAX_MODELS; number++)
        for (int row = 0; row < n_op_rows; row++)
            if (number < count_models(running, &op_rows[row])
                && (running->wanted->model < 0 || running->wanted->model == number)
                && is_mine(running))
                run_model(running, row, number, &worst[row]);
    for (int row = 0; row < n_op_rows; row++)
        if (worst[row] > 0)
            printf("%s %-22s largest error %.1e\n", running->mode->target, op_rows[row].op,
                   worst[row]);
}

/* ---- other ways to launch -------------------------------------------------------------------- */

static int count_launches(const Plan *plan, const char *name)
{
    const PlanTarget *target = plan_target(plan, name);
    int most = 0;
    for (int i = 0; i < target->n_programs; i++)
        for (int j = 0; j < target->programs[i].n_steps; j++) {
            int n = target->programs[i].steps[j].n_launches;
            most = n > most ? n : most;
        }
    return most;
}

/* A model by its steps' second, third, ... launches. */
static void run_launches(Running *running, int row, int number)
{
    static Outcome outcome;
    Case test = case_in_mode(row, number, running->mode, &outcome);
    test.target = running->mode->target;
    test.fused_only = true;
    Plan *plan = case_plan(&test, &outcome);
    int n = plan ? count_launches(plan, test.target) : 0;
    if (plan)
        plan_close(plan);
    for (test.launch = 1; test.launch < n; test.launch++)
        judge(running, compare_case(&test, running->device, &outcome), row, number, &test,
              &outcome);
}

/* Rows with products share a table of launches: without `all`, the first of each kind. */
static void run_all_launches(Running *running)
{
    for (int i = 0; i < n_op_rows; i++) {
        const char *op = op_rows[i].op;
        bool first = i == 0 || strcmp(op, op_rows[i - 1].op) != 0;
        bool few = first && is_convolution(&op_rows[i]);
        if ((few || (running->wanted->all && has_products(&op_rows[i]))) && is_mine(running))
            run_launches(running, i, 0);
    }
}

/* ---- products by the vendor's library -------------------------------------------------------- */

/* How the products of a training step are given: neither operand transposed (transposed
 * convolution, gradient of the input), the second (forward), the first (gradient of the weight). */
enum { PLAIN = 1, SECOND = 2, FIRST = 4, ALL_KINDS = PLAIN | SECOND | FIRST };

static int kinds_of_products(const Plan *plan, const char *name)
{
    const PlanTarget *target = plan_target(plan, name);
    const PlanProgram *train = plan_program(target, "train");
    int kinds = 0;
    for (int i = 0; train && i < train->n_steps; i++) {
        const PlanStep *step = &train->steps[i];
        if (strcmp(target->kernels[step->kernel].name, PLAN_MATMUL) == 0)
            kinds |= step->sizes[MATMUL_A_TRANSPOSED] ? FIRST
                   : step->sizes[MATMUL_B_TRANSPOSED] ? SECOND : PLAIN;
    }
    return kinds;
}

/* A model with convolutions, all that can be by im2col and products. Gives the products' kinds. */
static int run_products(Running *running, int row, int number)
{
    static Outcome outcome;
    Case test = case_in_mode(row, number, running->mode, &outcome);
    test.target = running->mode->target;
    test.gemm = test.fused_only = true;
    Plan *plan = case_plan(&test, &outcome);
    int kinds = plan ? kinds_of_products(plan, test.target) : 0;
    if (plan)
        plan_close(plan);
    if (kinds || !plan)
        judge(running, plan && compare_case(&test, running->device, &outcome), row, number, &test,
              &outcome);
    return kinds;
}

/* What reads an input or has few channels is no product: "level" has them all. */
static void run_all_products(Running *running)
{
    int kinds = 0;
    for (int row = 0; row < n_op_rows; row++) {
        bool level = strcmp(op_rows[row].op, "level") == 0;
        bool wanted = level || is_convolution(&op_rows[row])
                   || (running->wanted->all && has_products(&op_rows[row]));
        if (!wanted || !is_mine(running))
            continue;
        for (int i = 0; i < op_rows[row].models && (i == 0 || running->wanted->all); i++)
            kinds |= run_products(running, row, i);
    }
    bool complete = kinds == ALL_KINDS || running->wanted->shards > 1;
    if (!complete)
        printf("FAIL %s by --gemm cublas: only products of the kinds %d\n",
               running->mode->target, kinds);
    *(complete ? &running->passed : &running->failed) += 1;
}

static void print_count(const Running *running)
{
    printf("%d passed, %d failed, %d skipped\n", running->passed, running->failed,
           running->skipped);
    fflush(stdout);
}

bool cuda_mode_wanted(const CudaCases *wanted, const char *target)
{
    return wanted->target ? strcmp(target, wanted->target) == 0 : strncmp(target, "cuda", 4) == 0;
}

int cuda_ops(const CudaCases *wanted)
{
    Running running = {.wanted = wanted, .start = now()};
    for (int i = 0; i < N_MODES; i++) {
        Error error = {0};
        if (!cuda_mode_wanted(wanted, modes[i].target))
            continue;
        double start = now();
        running.mode = &modes[i];
        running.device = wanted->open(modes[i].target, &error);
        if (!running.device) {
            printf("FAIL no device: %s\n", error.text);
            running.failed++;
            continue;
        }
        run_models(&running);
        if (!wanted->name) {
            print_count(&running); /* a launch that hangs shall not lose it */
            run_all_launches(&running);
            print_count(&running);
            if (strncmp(modes[i].target, "cuda", 4) == 0)
                run_all_products(&running);
        }
        device_close(running.device);
        printf("%s: %.1f s\n", modes[i].target, now() - start);
    }
    print_count(&running);
    return running.failed != 0;
}
