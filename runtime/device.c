/* Devices by name: "cpu", "cuda", "cuda:1", or "auto". `auto` is the first GPU where there is one,
 * with a driver and NVRTC, and where the plan has kernels for it; else the processor. It says which
 * and why.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

/* "cuda" is -1, "cuda:1" is 1; false for anything else. */
static bool parse_cuda(const char *name, int *ordinal)
{
    *ordinal = -1;
    if (strncmp(name, "cuda", 4) != 0)
        return false;
    if (!name[4])
        return true;
    char *end;
    long number = name[4] == ':' ? strtol(name + 5, &end, 10) : -1;
    *ordinal = (int)number;
    return number >= 0 && number < 1024 && end > name + 5 && !*end;
}

static bool has_cuda(const Plan *plan)
{
    for (int i = 0; plan && i < plan->n_targets; i++)
        if (strncmp(plan->targets[i].name, "cuda-", 5) == 0)
            return true;
    return false;
}

static Device *open_auto(const DeviceOptions *options, Error *error)
{
    Error why = { .text = "the plan has no kernels for it" };
    Device *device = NULL;
    if (has_cuda(options->plan))
        device = device_cuda_open(options, -1, &why);
    if (device)
        return device;
    if (why.code == EXIT_USAGE || (options->plan && !plan_target(options->plan, "host"))) {
        if (error)
            *error = why;
        return NULL;
    }
    device = device_host_open(options, error);
    if (device && options->plan)
        snprintf(device->note, sizeof device->note, "not cuda: %s", why.text);
    return device;
}

Device *device_open(const DeviceOptions *options, Error *error)
{
    const char *name = options->name ? options->name : "auto";
    int ordinal;
    if (strcmp(name, "auto") == 0)
        return open_auto(options, error);
    bool cuda = parse_cuda(name, &ordinal);
    if (cuda && (!options->plan || has_cuda(options->plan)))
        return device_cuda_open(options, ordinal, error);
    if (cuda)
        fail(error, EXIT_USER, "compile the model again with segc --target host,cuda",
             "the plan has no kernels for cuda");
    else if (strcmp(name, "cpu") != 0)
        fail(error, EXIT_USAGE, "it is one of auto, cpu, cuda, cuda:N", "unknown device '%s'",
             name);
    else if (options->precision && strcmp(options->precision, "tf32") == 0)
        fail(error, EXIT_USAGE, "leave --precision out, or use -d cuda",
             "the cpu computes in fp32 or bf16, not in tf32");
    else
        return device_host_open(options, error);
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

const char *device_target(const Device *device)
{
    return device->target;
}

bool device_ceiling(Device *device, DeviceCeiling *ceiling)
{
    return device->ceiling && device->ceiling(device, ceiling);
}

const char *device_note(const Device *device)
{
    return device->note;
}
