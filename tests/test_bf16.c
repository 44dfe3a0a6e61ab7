/* The host in bf16: operators and networks against the float64 oracle, with the tolerances of CUDA's
 * bf16 (cuda_ops.c, cuda_nets.c say what they are made of). Without arguments some operators and
 * U-Net, which between them have all that is special: products, sums of what is stored, both kinds of
 * layout. `test_bf16 ops` runs every operator, `test_bf16 nets resnet34_unet` another network.
 * timeout: 280   sanitize: no (it computes for long)
 */
#include <stdlib.h>
#include <string.h>

#include "cuda_cases.h"

#define USUAL_OPS "winograd,conv_transpose,max_pool,concat"

static Device *open_host(const char *target, Error *error)
{
    (void)target;
    return device_open(&(DeviceOptions){.name = "cpu", .precision = "bf16"}, error);
}

/* test_bf16 [ops [NAME,... [MODEL]] | nets [NAME]] */
int main(int argc, char **argv)
{
    CudaCases cases = {.open = open_host, .target = "host-bf16", .model = argc > 3 ? atoi(argv[3]) : -1,
                       .name = argc > 2 ? argv[2] : NULL};
    if (argc > 1)
        return strcmp(argv[1], "ops") == 0 ? cuda_ops(&cases) : cuda_nets(&cases);
    cases.name = USUAL_OPS;
    int failed = cuda_ops(&cases);
    cases.name = "unet";
    return cuda_nets(&cases) | failed;
}
