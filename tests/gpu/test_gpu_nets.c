/* The networks of nets.c on a GPU, in float32, tf32 and bf16, against the float64 oracle:
 * as on the emulator (cuda_nets.c), but all of them.
 *
 * test_gpu_nets [TARGET [SHARD/SHARDS [SECONDS]]]: a precision; one process of several; how long
 * something may still be begun.
 * timeout: 1800   sanitize: no
 */
#include <stdlib.h>

#include "cuda_cases.h"
#include "gpu.h"

static Device *open_device(const char *target, Error *error)
{
    return gpu_open(target, false, error);
}

int main(int argc, char **argv)
{
    CudaCases wanted = {.open = open_device, .target = argc > 1 ? argv[1] : NULL, .model = -1,
                        .all = true, .seconds = argc > 3 ? atof(argv[3]) : 0};
    if (argc > 2 && sscanf(argv[2], "%d/%d", &wanted.shard, &wanted.shards) != 2)
        return 2;
    return gpu_is_there() ? cuda_nets(&wanted) : 0;
}
