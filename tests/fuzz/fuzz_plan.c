/* libFuzzer: a plan, with its checksum put right, so that what is behind it is reached. See make
 * fuzz.
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
    if (plan)
        plan_close(plan);
    free(copy);
    return 0;
}
