/* Devices by name. */
#include <stdlib.h>
#include <string.h>

#include "device.h"

Device *device_open(const DeviceOptions *options, Error *error)
{
    const char *name = options->name ? options->name : "auto";
    if (strcmp(name, "auto") == 0 || strcmp(name, "cpu") == 0)
        return device_host_open(options, error);
    if (strcmp(name, "cuda") == 0)
        fail(error, EXIT_ENVIRONMENT, "use the device cpu, or auto",
             "this build has no CUDA device");
    else
        fail(error, EXIT_USAGE, "it is one of auto, cpu, cuda", "unknown device '%s'", name);
    return NULL;
}

void device_close(Device *device)
{
    if (device)
        device->close(device);
}

const char *device_describe(const Device *device)
{
    return device->description;
}
