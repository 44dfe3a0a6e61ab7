/* Some of the odd models of fusion_cases.c on the emulated CUDA device, fused: templates between
 * others, with the operands, epilogues and places in memory that fusion and planning give them. In
 * bf16 most tensors in memory are of 16 bits only here and in the networks: the models of op_cases.c
 * mostly read and write plain floats. There the cases run without what jumps: see comparison.h.
 *
 * test_simt_fusion [TARGET [NAME]]: a precision; the cases, run or not, whose name holds NAME.
 * timeout: 400   sanitize: no
 */
#include <stdlib.h>
#include <string.h>

#include "fusion_cases.h"
#include "simt_device.h"

typedef struct {
    const char *target;
    const char *names[20];     /* NULL ends them */
    double tolerance;          /* 0: the case's */
} Mode;

static const Mode modes[] = {
    {"cuda-fp32", {
        "concat of concats", "shared linear layers", "batch norm on a map of one pixel",
        "several losses", "reductions of one value", "folded convolutions", NULL}, 0},
    {"cuda-bf16", {
        "unaligned concat", "chances to work in place", "a value read by many", "softmax around",
        "upsample and concat", "maps of one pixel", "pad and crop with what follows", NULL}, 3e-2},
};
enum { N_MODES = sizeof modes / sizeof *modes };

static bool is_chosen(const Mode *mode, const char *name, const char *wanted)
{
    for (int i = 0; mode->names[i] && !wanted; i++)
        if (strcmp(mode->names[i], name) == 0)
            return true;
    return wanted && strstr(name, wanted);
}

static bool run_case(const FusionCase *one, const Mode *mode, Device *device)
{
    static Outcome outcome;
    memset(&outcome, 0, sizeof outcome);
    Case test = fusion_case(one);
    test.fused_only = true;
    test.each_fusion = false;
    char *smooth = mode->tolerance > 0 ? without_jumps(strdup(test.text)) : NULL;
    if (smooth) {
        test.text = smooth;
        test.tolerance = mode->tolerance;
    }
    bool ok = compare_case(&test, device, &outcome);
    if (ok)
        printf("%s %-42s largest error %.1e of %.1e\n", mode->target, one->name, outcome.worst,
               test.tolerance);
    else
        printf("FAIL %s, %s: %s\n%s\n", mode->target, one->name, outcome.problem, test.text);
    fflush(stdout);
    free(smooth);
    return ok;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    for (int m = 0; m < N_MODES; m++) {
        Error error = {0};
        if (argc > 1 && strcmp(modes[m].target, argv[1]) != 0)
            continue;
        Device *device = simt_device_open(modes[m].target, &error);
        if (!device) {
            printf("FAIL no device: %s\n", error.text);
            failed++;
            continue;
        }
        for (int i = 0; i < n_fusion_cases; i++)
            if (is_chosen(&modes[m], fusion_cases[i].name, argc > 2 ? argv[2] : NULL))
                *(run_case(&fusion_cases[i], &modes[m], device) ? &passed : &failed) += 1;
        device_close(device);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
