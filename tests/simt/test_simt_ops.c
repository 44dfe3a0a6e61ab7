/* draft */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "op_cases.h"
#include "simt_device.h"

int main(int argc, char **argv)
{
    Error error = {0};
    const char *target = argc > 1 ? argv[1] : "cuda-fp32";
    Device *device = simt_device_open(target, 0, &error);
    if (!device) {
        printf("%s\n", error.text);
        return 1;
    }
    int passed = 0, failed = 0;
    for (int i = 0; i < n_op_rows; i++) {
        if (argc > 2 && strcmp(op_rows[i].op, argv[2]) != 0)
            continue;
        for (int k = 0; k < op_rows[i].models; k++) {
            if (argc > 3 && k != atoi(argv[3]))
                continue;
            static Outcome outcome;
            Case test;
            struct timespec start, end;
            clock_gettime(CLOCK_MONOTONIC, &start);
            memset(&outcome, 0, sizeof outcome);
            bool ok = op_case(i, k, &test, &outcome);
            test.tolerance = strcmp(target, "cuda-fp32") == 0 ? test.tolerance : argc > 4 ? atof(argv[4]) : 0.02;
            ok = ok && compare_case(&test, device, &outcome);
            clock_gettime(CLOCK_MONOTONIC, &end);
            printf("%s row %d %s model %d: %.1e %.2f s %s\n", ok ? "ok" : "FAIL", i, op_rows[i].op, k, outcome.worst, (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec), outcome.problem);
            if (!ok) printf("%s\n", test.text);
            fflush(stdout);
            *(ok ? &passed : &failed) += 1;
        }
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
