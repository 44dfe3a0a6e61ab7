/* The operators of op_cases.c on the emulated CUDA device, in float32, tf32 and bf16, against the
 * float64 oracle: every row in float32, fused and unfused; in bf16, whose tensors lie otherwise in
 * memory, every row fused; in tf32, where only products differ, those with products. Then the ways to
 * launch a step: a kernel's other tiles must give what the first ones give.
 *
 * test_simt_ops [TARGET [NAME [MODEL]]]: a mode, an operator's rows, one of their models.
 * timeout: 240   sanitize: no
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "op_cases.h"
#include "simt_device.h"

/* Which models of a row run, and how far they may be off. */
typedef struct {
    const char *target;
    int models, products;      /* of a row; of one with products of matrices */
    bool fused_only;
    double tolerance;          /* 0: the row's */
    double norm_tolerance;     /* of rows with batch norm, which divides by small deviations */
} Mode;

static const Mode modes[] = {
    {"cuda-fp32", 1, 3, false, 0, 0},
    {"cuda-tf32", 0, 3, true, 1e-3, 5e-3},
    {"cuda-bf16", 1, 3, true, 1e-2, 5e-2},
};
enum { N_MODES = sizeof modes / sizeof *modes, MAX_CANDIDATES = 8 };

static int passed, failed;

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

static void run_model(int row, int number, const Mode *mode, Device *device, double *worst)
{
    static Outcome outcome;
    Case test = case_in_mode(row, number, mode, &outcome);
    bool ok = !outcome.failed && compare_case(&test, device, &outcome);
    if (outcome.worst > *worst)
        *worst = outcome.worst;
    if (!ok)
        printf("FAIL %s, row %d (%s), model %d, batch %d: %s\n%s\n", mode->target, row,
               op_rows[row].op, number, test.batch, outcome.problem, test.text);
    *(ok ? &passed : &failed) += 1;
    fflush(stdout);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void run_mode(const Mode *mode, const char *op, int number)
{
    Error error = {0};
    Device *device = simt_device_open(mode->target, 0, &error);
    for (int i = 0; i < n_op_rows && device; i++) {
        const OpRow *row = &op_rows[i];
        int models = has_products(row) ? mode->products : mode->models;
        double worst = 0, start = now();
        if (models == 0 || (op && strcmp(row->op, op) != 0))
            continue;
        for (int k = 0; k < (number < 0 && models < row->models ? models : row->models); k++)
            if (number < 0 || k == number)
                run_model(i, k, mode, device, &worst);
        printf("%s %-22s largest error %.1e  %.1f s\n", mode->target, row->op, worst, now() - start);
    }
    if (device)
        device_close(device);
    else
        printf("FAIL no device: %s\n", error.text);
    failed += !device;
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

/* One model of a row by its steps' second, third, ... launches; true where there were any. */
static bool run_candidates(int row, int number, const Mode *mode)
{
    static Outcome outcome;
    Case test = case_in_mode(row, number, mode, &outcome);
    test.target = mode->target;
    Plan *plan = case_plan(&test, &outcome);
    int n = plan ? count_launches(plan, mode->target) : 0;
    if (plan)
        plan_close(plan);
    test.fused_only = true;
    for (int i = 1; i < n; i++) {
        Error error = {0};
        Device *device = simt_device_open(mode->target, i, &error);
        bool ok = device && compare_case(&test, device, &outcome);
        if (!ok)
            printf("FAIL %s, row %d (%s), model %d, batch %d, launch %d of %d: %s\n%s\n",
                   mode->target, row, op_rows[row].op, number, test.batch, i, n, outcome.problem,
                   test.text);
        *(ok ? &passed : &failed) += 1;
        if (device)
            device_close(device);
    }
    return n > 1;
}

/* Rows with products that share a table of launches: the first few. */
static void run_all_candidates(const Mode *mode)
{
    static const char *const ops[] = {"conv", "conv_transpose"};
    double start = now();
    int rows = 0;
    for (int i = 0; i < n_op_rows; i++)
        for (int k = 0; k < 2; k++)
            if (strcmp(op_rows[i].op, ops[k]) == 0)
                rows += run_candidates(i, 0, mode);
    printf("%s: other launches of %d models  %.1f s\n", mode->target, rows, now() - start);
}

int main(int argc, char **argv)
{
    for (int i = 0; i < N_MODES; i++) {
        if (argc > 1 && strcmp(modes[i].target, argv[1]) != 0)
            continue;
        run_mode(&modes[i], argc > 2 ? argv[2] : NULL, argc > 3 ? atoi(argv[3]) : -1);
        if (argc < 3)
            run_all_candidates(&modes[i]);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
