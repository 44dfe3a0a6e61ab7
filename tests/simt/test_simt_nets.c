/* Whole networks on the emulated CUDA device, in float32, tf32 and bf16: see cuda_nets.c.
 *
 * test_simt_nets [TARGET [NAME]]: a precision, a network. SEG_SIMT_ALL=1: all networks, an hour.
 * timeout: 400   sanitize: no
 */
#include <stdlib.h>

#include "cuda_cases.h"
#include "simt_device.h"

static Device *open_device(const char *target, Error *error)
{
    return simt_device_open(target, error);
}

int main(int argc, char **argv)
{
    CudaCases wanted = {.open = open_device, .target = argc > 1 ? argv[1] : NULL,
                        .name = argc > 2 ? argv[2] : NULL, .all = getenv("SEG_SIMT_ALL")};
    return cuda_nets(&wanted);
}
