/* Every operator of the language on the host device against the float64 oracle, forward and
 * backward, fused and unfused: the models of op_cases.c. comparison.c compares all of their results
 * and gradients. What fails prints the model's text, ready for segc.
 * timeout: 400   sanitize: no (it computes for long; what parses and plans is sanitised elsewhere)
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "op_cases.h"

typedef struct { int passed, failed; } Count;

static bool run_model(int row, int number, Device *device, double *worst)
{
    static Outcome outcome;
    Case test;
    memset(&outcome, 0, sizeof outcome);
    bool ok = op_case(row, number, &test, &outcome) && compare_case(&test, device, &outcome);
    if (outcome.worst > *worst)
        *worst = outcome.worst;
    if (!ok)
        printf("FAIL row %d (%s), model %d, batch %d: %s\n%s\n", row, op_rows[row].op, number,
               test.batch, outcome.problem, test.text);
    return ok;
}

/* Every operator that a model can write has a row of its name. */
static void check_coverage(Count *count)
{
    for (int op = 0; op < OP_COUNT; op++) {
        if (!op_facts[op].tensors[0])
            continue;
        bool found = op_has_row(op_facts[op].name);
        if (!found)
            printf("FAIL no row for the operator %s\n", op_facts[op].name);
        *(found ? &count->passed : &count->failed) += 1;
    }
}

/* test_ops [NAME [MODEL]]: one operator's rows; one of their models. */
int main(int argc, char **argv)
{
    Error error = {0};
    DeviceOptions options = {.name = "cpu"};
    Device *device = device_open(&options, &error);
    if (!device) {
        printf("FAIL no device: %s\n0 passed, 1 failed\n", error.text);
        return 1;
    }
    Count count = {0, 0};
    check_coverage(&count);
    for (int i = 0; i < n_op_rows; i++) {
        if (argc > 1 && strcmp(op_rows[i].op, argv[1]) != 0)
            continue;
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        double worst = 0;
        for (int k = 0; k < op_rows[i].models; k++)
            if (argc < 3 || k == atoi(argv[2]))
                *(run_model(i, k, device, &worst) ? &count.passed : &count.failed) += 1;
        clock_gettime(CLOCK_MONOTONIC, &end);
        printf("%-22s %2d models  largest error %.1e of %.1e  %.1f s\n", op_rows[i].op, op_rows[i].models,
               worst, op_rows[i].tolerance,
               (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec));
        fflush(stdout);
    }
    device_close(device);
    printf("%d passed, %d failed\n", count.passed, count.failed);
    return count.failed != 0;
}
