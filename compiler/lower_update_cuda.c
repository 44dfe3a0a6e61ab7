/* What follows the gradients on CUDA. The optimiser's step is one pass over parameters, gradients and
 * moments that also writes the packed weights of the convolutions, so that the next step need not pack them.
 *
 * The slab of parameters is cut into segments, in its order: convolution weights that are packed,
 * and all that lies between them. A launch takes some segments, as many as its arguments hold. What
 * a segment's numbers mean is said in kernels/cuda/update.cu.
 */
#include "lower_cuda.h"

#include <string.h>

#include "emit.h"
#include "lower_small_cuda.h"

enum {
    SEGMENT_FIRST_BLOCK, SEGMENT_OFFSET, SEGMENT_COUNT, SEGMENT_FIRST, SEGMENT_SECOND,
    SEGMENT_TAPS, SEGMENT_STEPS_A, SEGMENT_STEPS_B,
    SEGMENT_SIZES,
    MAX_SEGMENTS = 60,             /* of a launch */
    PLAIN_FLOATS = 16,             /* of a thread */
    TILE = 16,
    MAX_TAPS = 49,
    TILE_AT = 64,                  /* bytes of shared memory before the tiles */
    TILE_BYTES = TILE * (TILE * 4 + 4), /* of shared memory, for each tap */
};

typedef struct {
    int64_t offset, count;         /* floats */
    int64_t first, second, taps;   /* of a packed weight [first][second][taps] */
    int64_t steps[2];              /* of its packings A and B, as in conv_pack.cu; 0: none */
    PlanBuffer packed[2];
} Segment;

static bool is_packed_weight(const Graph *graph, const Group *group, ConvCudaLowering *conv)
{
    const Node *anchor = group->anchor;
    if (graph->program != PROGRAM_TRAIN || !is_conv(anchor) || is_matmul(graph, group)
        || anchor->op == OP_CONV_GRAD_WEIGHT || anchor->inputs[1]->op != OP_PARAMETER)
        return false;
    describe_conv_cuda(graph, anchor, conv);
    const Shape *shape = &anchor->inputs[1]->shape;
    return conv->packed_bytes && !conv->pack_sizes[PACK_FEW_INPUTS]
        && shape_count(*shape) % PLAN_BLOCK == 0 && shape->dims[2] * shape->dims[3] <= MAX_TAPS;
}

bool update_packs(const Graph *graph, const Group *group)
{
    ConvCudaLowering own, other;
    if (!is_packed_weight(graph, group, &own) || !fusion_on(graph->compilation, "adam"))
        return false;
    for (int i = 0; i < group->id; i++) {
        const Group *before = graph->groups[i];
        if (is_packed_weight(graph, before, &other)
            && before->anchor->inputs[1] == group->anchor->inputs[1]
            && other.pack_sizes[PACK_TRANSPOSED] == own.pack_sizes[PACK_TRANSPOSED])
            return false; /* a segment has one packing of a kind */
    }
    return true;
}

/* ---- segments -------------------------------------------------------------------------------- */

static void find_packings(const Graph *graph, const PlanParameter *parameter, Segment *segment)
{
    for (int i = 0; i < graph->n_groups; i++) {
        const Group *group = graph->groups[i];
        ConvCudaLowering conv;
        if (!update_packs(graph, group) || group->anchor->inputs[1]->offset != parameter->offset)
            continue;
        describe_conv_cuda(graph, group->anchor, &conv);
        int kind = conv.pack_sizes[PACK_TRANSPOSED] != 0;
        segment->steps[kind] = conv.pack_sizes[PACK_STEPS];
        segment->packed[kind] = temporary_buffer(&group->temporaries[TEMPORARY_PACKED]);
    }
    segment->first = parameter->dims[0];
    segment->second = parameter->dims[1];
    segment->taps = parameter->rank == 4 ? parameter->dims[2] * parameter->dims[3] : 1;
}

/* All of the trained parameters, in order. */
static Segment *list_segments(Lowering *l, int *n)
{
    const Plan *plan = l->plan;
    Segment *list = arena_alloc(l->graph->arena,
                                ((size_t)plan->n_parameters + 1) * sizeof *list);
    int64_t offset = 0;
    *n = 0;
    for (int i = 0; i < plan->n_parameters && plan->parameters[i].trainable; i++) {
        bool last = i + 1 == plan->n_parameters || !plan->parameters[i + 1].trainable;
        int64_t end = (last ? plan->trainable_bytes : plan->parameters[i + 1].offset) / 4;
        Segment one = { .offset = offset, .count = end - offset };
        find_packings(l->graph, &plan->parameters[i], &one);
        offset = end;
        bool packs = one.steps[0] || one.steps[1];
        Segment *before = *n ? &list[*n - 1] : NULL;
        if (!packs && before && !before->steps[0] && !before->steps[1])
            before->count += one.count;
        else
            list[(*n)++] = one;
    }
    return list;
}

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t segment_blocks(const Segment *s, int64_t step_channels, int threads)
{
    if (!s->steps[0] && !s->steps[1])
        return divide_up(s->count, (int64_t)threads * PLAIN_FLOATS);
    return divide_up(larger(s->first, s->steps[1] * step_channels), TILE)
         * divide_up(larger(s->second, s->steps[0] * step_channels), TILE);
}

/* ---- launches -------------------------------------------------------------------------------- */

static void lower_segments(Lowering *l, const Segment *segments, int n)
{
    int64_t step_channels = l->graph->target->stored == TYPE_BF16 ? 16 : 8, begin = segments->offset;
    int64_t end = segments[n - 1].offset + segments[n - 1].count, taps = 0, blocks = 0;
    int64_t bytes = 4 * (end - begin), sizes[MAX_SEGMENTS * SEGMENT_SIZES] = { 0 };
    int n_buffers = 5;
    PlanBuffer buffers[5 + 2 * MAX_SEGMENTS] = {
        { SLAB_PARAMETERS, 4 * begin, bytes }, { SLAB_GRADIENTS, 4 * begin, bytes },
        { SLAB_MOMENTS, 4 * begin, bytes },
        { SLAB_MOMENTS, l->plan->trainable_bytes + 4 * begin, bytes },
        { SLAB_FIXED, 0, PLAN_STATE_BYTES },
    };
    CudaLaunch launch;
    lower_small_cuda("update.cu", sizes, 0, false, &launch, NULL);
    for (int i = 0; i < n; i++) {
        const Segment *s = &segments[i];
        bool packs = s->steps[0] || s->steps[1];
        const int64_t numbers[SEGMENT_SIZES] = {
            blocks, s->offset - begin, packs ? n_buffers : s->count, packs ? s->first : 0,
            s->second, s->taps, s->steps[0], s->steps[1],
        };
        memcpy(sizes + i * SEGMENT_SIZES, numbers, sizeof numbers);
        for (int kind = 0; kind < 2; kind++)
            if (s->steps[kind])
                buffers[n_buffers++] = s->packed[kind];
        blocks += segment_blocks(s, step_channels, launch.threads);
        taps = packs ? larger(taps, s->taps) : taps;
    }
    launch.blocks = blocks;
    launch.blocks_per_sample = 0;
    launch.shared_bytes = TILE_AT + TILE_BYTES * taps;
    const Call call = { .defines = arena_printf(l->graph->arena, "#define SEGMENTS %d\n", n) };
    Emission e = begin_emission(l, NULL, &call, &cuda_dialect);
    e.buffers = copied(l, buffers, (size_t)n_buffers * sizeof *buffers);
    e.sizes = copied(l, sizes, (size_t)n * SEGMENT_SIZES * sizeof *sizes);
    e.n_buffers = n_buffers;
    e.n_sizes = n * SEGMENT_SIZES;
    PlanStep *step = add_launches(l, &e, "update.cu", &launch, 1, "");
    fill_step(l, step, e.buffers, e.n_buffers, e.sizes, e.n_sizes, NULL, 0);
    step->flops = 12 * (double)(end - begin);
    step->part = PART_UPDATE;
    step->label = (char *)part_label(PART_UPDATE);
}

static void lower_segments_all(Lowering *l)
{
    int n;
    const Segment *segments = list_segments(l, &n);
    for (int first = 0; first < n; first += MAX_SEGMENTS)
        lower_segments(l, segments + first, n - first < MAX_SEGMENTS ? n - first : MAX_SEGMENTS);
}

static void lower_part(Lowering *l, PlanPart part, const char *template, int64_t blocks, Call *call)
{
    CudaLaunch launch;
    call->template = template;
    call->defines = "";
    lower_small_cuda(template, call->sizes, call->n_sizes, false, &launch, NULL);
    launch.blocks = blocks;
    PlanStep *step = add_plain(l, call, &launch);
    step->part = part;
    step->label = (char *)part_label(part);
}

void lower_update_cuda(Lowering *l)
{
    const UpdatePlaces at = update_places(l);
    if (!at.bytes)
        return;
    const int64_t count = at.bytes / 4;
    for (PlanPart part = PART_SUM; part <= PART_AVERAGE; part++) {
        PlanBuffer y, x;
        int blend = blend_of(&at, part, &y, &x);
        if (part == PART_UPDATE) {
            lower_segments_all(l);
        } else if (blend >= 0) {
            Call call = { .sizes = { y.bytes / 4, blend }, .n_sizes = 2,
                          .buffers = { y, x, at.state }, .n_buffers = 3 };
            lower_part(l, part, "blend.cu",
                       divide_up(y.bytes / 4, UPDATE_THREADS * PLAIN_FLOATS), &call);
        } else {
            for (int last = 0; last < 2; last++) {
                Call call = { .sizes = { count, NORM_CHUNK, last }, .n_sizes = 3,
                              .buffers = { at.gradients, at.partials, at.state }, .n_buffers = 3 };
                lower_part(l, part, "gradient_norm.cu", last ? 1 : divide_up(count, NORM_CHUNK),
                           &call);
            }
        }
    }
    l->program->keeps_once = true;
}
