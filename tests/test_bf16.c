/* The host in bf16 against the float64 oracle, with the tolerances of CUDA's bf16 (cuda_ops.c,
 * cuda_nets.c say what they are made of): U-Net's training, which has convolutions of every kind,
 * pools, concatenations and sums of what is stored. SEG_BF16_ALL=1: every operator, and
 * ResNet34-U-Net too.
 * timeout: 280   sanitize: no (it computes for long)
 */
#include <stdlib.h>
#include <string.h>

#include "cuda_cases.h"

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
    bool all = getenv("SEG_BF16_ALL") != NULL;
    int failed = all ? cuda_ops(&cases) : 0;
    cases.name = "unet";
    failed |= cuda_nets(&cases);
    cases.name = "resnet34_unet";
    return (all ? cuda_nets(&cases) : 0) | failed;
}
