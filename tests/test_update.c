/* What follows the gradients on the host, with two threads: see update_cases.c.
 */
#include "update_cases.h"

int main(void)
{
    Error error = { 0 };
    DeviceOptions options = { .name = "cpu", .threads = 2 };
    Device *device = device_open(&options, &error);
    if (!device) {
        printf("%s\n0 passed, 1 failed\n", error.text);
        return 1;
    }
    int code = update_cases("host", device);
    device_close(device);
    return code;
}
