/* The operators of op_cases.c on the emulated CUDA device, in float32, tf32 and bf16, against the
 * float64 oracle: see cuda_ops.c.
 *
 * test_simt_ops [TARGET [NAME [MODEL]]]: a precision, an operator's rows, one of their models.
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
                        .name = argc > 2 ? argv[2] : NULL, .model = argc > 3 ? atoi(argv[3]) : -1};
    return cuda_ops(&wanted);
}
