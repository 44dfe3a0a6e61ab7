/* Looking things up in a plan that was read or made: see run.h. */
#include <string.h>

#include "run.h"

const PlanTarget *plan_target(const Plan *plan, const char *name)
{
    for (int i = 0; i < plan->n_targets; i++)
        if (strcmp(plan->targets[i].name, name) == 0)
            return &plan->targets[i];
    return NULL;
}

const PlanProgram *plan_program(const PlanTarget *target, const char *name)
{
    for (int i = 0; i < target->n_programs; i++)
        if (strcmp(target->programs[i].name, name) == 0)
            return &target->programs[i];
    return NULL;
}

int plan_kernel(const PlanTarget *target, const char *name)
{
    for (int i = 0; i < target->n_kernels; i++)
        if (strcmp(target->kernels[i].name, name) == 0)
            return i;
    return -1;
}

bool plan_kernel_is_library(const PlanKernel *kernel)
{
    return strncmp(kernel->name, "library_", 8) == 0;
}

int64_t plan_arguments_bytes(const PlanStep *step)
{
    int64_t words = (int64_t)sizeof(void *) * step->n_buffers
                  + (int64_t)sizeof(double) * step->n_scalars;
    int64_t bytes = words + (int64_t)sizeof(int32_t) * (step->n_sizes + 1);
    return words ? (bytes + 7) / 8 * 8 : bytes;
}
