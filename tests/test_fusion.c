/* Odd models that fusion, ordering and memory planning could get wrong, on the host device against
 * the float64 oracle: outputs, losses, gradients of everything, statistics, in train, evaluate and
 * predict.
 *
 * A case is the body of a model. Every text must compile; the cases of `usual`, or with
 * SEG_FUSION_ALL=1 all, run fused and unfused, and where `each` is set also with every single
 * fusion off. Activations are smooth, so that float and double cannot take different sides.
 * Every text must also give the same plan twice. `test_fusion NAME` runs the cases whose name holds
 * NAME.
 * timeout: 400   sanitize: no (it computes for long; what parses and plans is sanitised elsewhere)
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fusion_cases.h"

/* One of each kind: building kernels takes seconds a case. */
static const char *const usual[] = {
    "residual adds in all orders", "an output that is read on", "dense connections",
    "unaligned concat", "gates of maps and channels", "shared convolutions",
    "dropout with several readers", "batch norm on one concat twice", "transposed convolutions",
    "chances to work in place", "the same operand twice", "pictures of bytes",
};

static bool is_usual(const char *name)
{
    bool found = getenv("SEG_FUSION_ALL") != NULL;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        found |= strcmp(name, usual[i]) == 0;
    return found;
}

/* The bytes of the plan of a file; NULL where it does not compile. */
static void *compile_bytes(const char *path, size_t *size)
{
    Compilation c = {.arena = arena_open(), .path = path, .precision = "fp32", .targets = "host",
                     .messages = stderr};
    const Plan *plan = compile(&c);
    void *bytes = plan ? plan_bytes_make(plan, size) : NULL;
    arena_close(c.arena);
    return bytes;
}

/* The same text gives the same plan. */
static bool same_twice(const char *text)
{
    char path[] = "/tmp/seg-test-XXXXXX";
    int file = mkstemp(path);
    size_t length = strlen(text), sizes[2] = {0, 1};
    if (file < 0 || write(file, text, length) != (ssize_t)length)
        abort();
    close(file);
    void *first = compile_bytes(path, &sizes[0]), *second = compile_bytes(path, &sizes[1]);
    bool same = first && second && sizes[0] == sizes[1] && memcmp(first, second, sizes[0]) == 0;
    free(first);
    free(second);
    unlink(path);
    return same;
}

static bool run_case(const FusionCase *one, bool whole, Device *device)
{
    static Outcome outcome;
    memset(&outcome, 0, sizeof outcome);
    Case test = fusion_case(one);
    bool ok = same_twice(test.text);
    if (!ok)
        snprintf(outcome.problem, sizeof outcome.problem, "two plans of one text differ");
    ok = ok && (!whole || compare_case(&test, device, &outcome));
    if (ok && !whole)
        printf("%-42s compiles\n", one->name);
    else if (ok)
        printf("%-42s largest error %.1e of %.1e\n", one->name, outcome.worst, one->tolerance);
    else
        printf("FAIL %s: %s\n%s\n", one->name, outcome.problem, test.text);
    fflush(stdout);
    return ok;
}

int main(int argc, char **argv)
{
    Error error = {0};
    DeviceOptions options = {.name = "cpu"};
    Device *device = device_open(&options, &error);
    if (!device) {
        printf("FAIL no device: %s\n0 passed, 1 failed\n", error.text);
        return 1;
    }
    int passed = 0, failed = 0;
    for (int i = 0; i < n_fusion_cases; i++)
        if (argc < 2 || strstr(fusion_cases[i].name, argv[1]))
            *(run_case(&fusion_cases[i], argc > 1 || is_usual(fusion_cases[i].name), device)
                  ? &passed : &failed) += 1;
    device_close(device);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
