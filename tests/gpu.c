/* See gpu.h. */
#include "gpu.h"

#include <stdio.h>
#include <string.h>

static void warn(void *context, const char *text)
{
    (void)context;
    printf("warning: %s\n", text);
}

Device *gpu_open(const char *target, bool tune, Error *error)
{
    DeviceOptions options = {.name = "cuda", .precision = strchr(target, '-') + 1, .tune = tune,
                             .warn = warn};
    return device_open(&options, error);
}

bool gpu_is_there(void)
{
    Error error = {0};
    Device *device = gpu_open("cuda-fp32", false, &error);
    if (!device) {
        printf("skipped: %s\n0 passed, 0 failed, 1 skipped\n", error.text);
        return false;
    }
    printf("%s\n", device_describe(device));
    device_close(device);
    return true;
}
