/* What follows the gradients on the emulated CUDA device: see update_cases.c.
 *
 * sanitize: no
 */
#include "simt_device.h"
#include "../update_cases.h"

int main(void)
{
    Error error = { 0 };
    Device *device = simt_device_open("cuda-fp32", &error);
    if (!device) {
        printf("%s\n0 passed, 1 failed\n", error.text);
        return 1;
    }
    int code = update_cases("cuda-fp32", device);
    device_close(device);
    return code;
}
