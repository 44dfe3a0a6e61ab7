/* libFuzzer: a plan, with its checksum put right, so that what is behind it is reached; then what
 * relies on the reader's checks: the first values of the parameters, the memory of its programs. See
 * make fuzz.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "runtime/run.h"

enum { CHECKSUM = 24, HEAD = 32 }; /* as compiler/write.c has them */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    Error error = {0};
    uint8_t *copy = malloc(size + 1);
    memcpy(copy, bytes, size);
    if (size > HEAD) {
        uint64_t sum = XXH64(copy + HEAD, size - HEAD, 0), length = size;
        memcpy(copy + CHECKSUM, &sum, sizeof sum);
        memcpy(copy + 16, &length, sizeof length);
    }
    Plan *plan = plan_parse(copy, size, "fuzz.plan", &error);
    for (int i = 0; plan && i < plan->n_targets; i++)
        plan_bytes(plan, plan->targets[i].name, 3, 2);
    if (plan && plan->parameter_bytes <= 1 << 20) {
        void *parameters = aligned_alloc(PLAN_ALIGN, (size_t)plan->parameter_bytes + PLAN_ALIGN);
        params_initialise(plan, 1, parameters);
        free(parameters);
    }
    plan_close(plan);
    free(copy);
    return 0;
}
