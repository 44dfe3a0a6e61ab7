/* What follows the gradients in a program of training, whatever the target: sums over several batches,
 * the gradients' norm, the optimiser's step, the running average of the parameters. All but the
 * optimiser's step are parts that a run may leave out (PlanPart in runtime/plan.h), so that one plan
 * serves every recipe. Here is where their numbers lie; kernels are each target's own.
 */
#include "lower.h"

UpdatePlaces update_places(Lowering *l)
{
    int64_t bytes = l->plan->trainable_bytes, chunks = (bytes / 4 + NORM_CHUNK - 1) / NORM_CHUNK;
    UpdatePlaces at = {
        .bytes = bytes,
        .parameters = { SLAB_PARAMETERS, 0, bytes }, .gradients = { SLAB_GRADIENTS, 0, bytes },
        .first = { SLAB_MOMENTS, 0, bytes }, .second = { SLAB_MOMENTS, bytes, bytes },
        .state = { SLAB_FIXED, 0, PLAN_STATE_BYTES },
        .sums = { SLAB_SUMS, 0, bytes }, .all = { SLAB_PARAMETERS, 0, l->plan->parameter_bytes },
        .average = { SLAB_AVERAGE, 0, l->plan->parameter_bytes },
    };
    at.partials = (PlanBuffer){ SLAB_FIXED, l->program->fixed_bytes,
                                (8 * chunks + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN };
    if (bytes)
        l->program->fixed_bytes += at.partials.bytes;
    return at;
}

int blend_of(const UpdatePlaces *at, PlanPart part, PlanBuffer *y, PlanBuffer *x)
{
    switch (part) {
    case PART_SUM: *y = at->sums; *x = at->gradients; return 0;
    case PART_TOTAL: *y = at->gradients; *x = at->sums; return 1;
    case PART_AVERAGE: *y = at->average; *x = at->all; return 2;
    case PART_MAIN: case PART_CLIP: case PART_UPDATE: case PART_COUNT: break;
    }
    return -1;
}

const char *part_label(PlanPart part)
{
    static const char *const labels[PART_COUNT] = {
        "", "sum of gradients", "total of gradients", "norm of gradients", "update",
        "average of parameters",
    };
    return labels[part];
}
