/* Which template serves an operator, and the sizes, scalars and buffers that are its own: the same
 * for every target, whose templates have the same names.
 *
 * The conv family is described by lower_conv.c and lower_conv_cuda.c instead.
 */
#include "lower.h"

#include <string.h>

/* ---- which template -------------------------------------------------------------------------- */

static const char *reduction_template(const Node *anchor, const char **defines)
{
    bool mean = anchor->op == OP_MEAN || anchor->op == OP_GLOBAL_AVG_POOL
                || anchor->op == OP_CHANNEL_MEAN;
    bool max = anchor->op == OP_GLOBAL_MAX_POOL || anchor->op == OP_CHANNEL_MAX;
    *defines = mean ? "#define REDUCE_MEAN\n"
             : max  ? "#define REDUCE_MAX\n" : "#define REDUCE_SUM\n";
    bool channels = anchor->op == OP_CHANNEL_MEAN || anchor->op == OP_CHANNEL_MAX
                    || ((anchor->op == OP_SUM || anchor->op == OP_MEAN)
                        && (int)anchor->attr[ATTR_AXES] == AXIS_CHANNELS);
    return channels ? "reduce_channels" : "reduce_pixels";
}

static const char *choose_template(Arena *arena, const Group *group, const char **defines)
{
    const Node *anchor = group->anchor;
    *defines = "";
    if (node_reduces_batch(anchor))
        return "pointwise";
    if (node_pointwise(anchor)) {
        *defines = anchor->shape.batched ? "" : "#define FIXED_RESULT\n";
        return "pointwise";
    }
    if (anchor->op == OP_PAD || anchor->op == OP_CROP)
        return "pad_crop";
    if (anchor->op == OP_CONCAT)
        *defines = arena_printf(arena, "#define OPERANDS %d\n", anchor->n_inputs);
    if (op_facts[anchor->op].kind == KIND_REDUCE && anchor->op != OP_DICE_SUMS)
        return reduction_template(anchor, defines);
    return op_facts[anchor->op].name;
}

static void add_size(Call *call, int64_t size)
{
    if (call->n_sizes == MAX_OWN_SIZES)
        bug("lower: more than %d sizes for the template %s", MAX_OWN_SIZES, call->template);
    call->sizes[call->n_sizes++] = size;
}

/* The attributes that are whole numbers become sizes, the others scalars. */
static void add_attributes(const Node *anchor, Call *call)
{
    for (int a = 0; a < ATTR_COUNT; a++) {
        if (!op_has_attribute(anchor->op, (Attribute)a))
            continue;
        if (attribute_facts[a].type != ATTR_FLOAT)
            add_size(call, (int64_t)anchor->attr[a]);
        else if (call->n_scalars < MAX_OWN_SCALARS)
            call->scalars[call->n_scalars++] = anchor->attr[a];
        else
            bug("lower: more than %d scalars for the template %s", MAX_OWN_SCALARS, call->template);
    }
}

/* C H W, K P Q, `reserved` sizes of the target's own, then the attributes. */
static void standard_sizes(const Group *group, int reserved, Call *call)
{
    const Node *anchor = group->anchor, *x = anchor;
    for (int i = anchor->n_inputs - 1; i >= 0; i--)
        if (anchor->inputs[i]->shape.batched)
            x = anchor->inputs[i];
    const Node *y = node_reduces_batch(anchor) ? x : anchor;
    for (int i = 0; i < 3; i++) {
        call->sizes[i] = x->shape.dims[i];
        call->sizes[3 + i] = y->shape.dims[i];
    }
    if (!y->shape.batched) {
        call->sizes[3] = shape_count(y->shape);
        call->sizes[4] = call->sizes[5] = 1;
    }
    call->n_sizes = 6 + reserved;
    if (node_pointwise(anchor) || node_reduces_batch(anchor))
        return;
    add_attributes(anchor, call);
    if (anchor->op == OP_CONCAT)
        for (int i = 0; i < anchor->n_inputs; i++)
            add_size(call, anchor->inputs[i]->shape.dims[0]);
}

int64_t padded_channels(int64_t channels)
{
    return (channels + PLAN_BLOCK - 1) / PLAN_BLOCK * PLAN_BLOCK;
}

static void describe_small(const Node *anchor, Call *call)
{
    const Node *vector = anchor->inputs[0];
    if (anchor->n_inputs >= MAX_OWN_BUFFERS)
        bug("lower: too many operands for the template %s", call->template);
    for (int i = 0; i < anchor->n_inputs; i++)
        call->buffers[call->n_buffers++] = node_buffer(anchor->inputs[i]);
    call->buffers[call->n_buffers++] = node_buffer(anchor);
    if (anchor->op == OP_FOLD_WEIGHT) {
        add_size(call, anchor->inputs[1]->shape.dims[1]);
        add_size(call, vector->shape.dims[0]);
        add_size(call, shape_count(vector->shape) / vector->shape.dims[0]);
    } else {
        add_size(call, vector->shape.rank == 2 ? vector->shape.dims[1] : vector->shape.dims[0]);
    }
    add_attributes(anchor, call);
    if (anchor->op == OP_FOLD_BIAS)
        call->defines = anchor->n_inputs == 2 ? "#define HAS_BIAS 1\n" : "#define HAS_BIAS 0\n";
    call->parts = 1;
}

void describe_call(const Graph *graph, const Group *group, int reserved, Call *call)
{
    Arena *arena = graph->arena;
    Node *anchor = group->anchor;
    *call = (Call){ .defines = "", .writes = true };
    const char *stem = choose_template(arena, group, &call->defines);
    call->template = arena_printf(arena, "%s%s", stem, graph->target->extension);
    if (op_facts[anchor->op].kind == KIND_SMALL) {
        call->writes = false;
        describe_small(anchor, call);
        return;
    }
    standard_sizes(group, reserved, call);
    if (anchor->op == OP_LINEAR || anchor->op == OP_LINEAR_GRAD_INPUT)
        call->buffers[call->n_buffers++] = node_buffer(anchor->inputs[1]);
    if (anchor->op == OP_LINEAR_GRAD_WEIGHT) {
        call->buffers[call->n_buffers++] = node_buffer(anchor);
        call->writes = false;
    }
}

void partial_temporaries(Group *group, int64_t parts)
{
    Temporary *t = group->temporaries + TEMPORARY_PARTIALS;
    Node *const *reductions;
    int n = group_reductions(group, &reductions);
    for (int r = 0; r < n; r++) {
        t[r].batched = true;
        t[r].bytes = parts * partial_rows(reductions[r])
                   * padded_channels(reductions[r]->inputs[0]->shape.dims[0]) * 4;
    }
}

Emission begin_emission(Lowering *l, Group *group, const Call *call,
                        const struct Dialect *dialect)
{
    Emission e = { .graph = l->graph, .group = group, .parts = call->parts,
                   .n_buffers = call->n_buffers, .n_sizes = call->n_sizes,
                   .n_scalars = call->n_scalars, .dialect = dialect };
    e.text.arena = e.name.arena = l->graph->arena;
    e.buffers = copied(l, call->buffers, (size_t)call->n_buffers * sizeof *call->buffers);
    e.sizes = copied(l, call->sizes, (size_t)call->n_sizes * sizeof *call->sizes);
    e.scalars = copied(l, call->scalars, (size_t)call->n_scalars * sizeof *call->scalars);
    text_printf(&e.text, "%s", call->defines);
    text_printf(&e.name, "%s", "");
    return e;
}

void fill_call_step(Lowering *l, PlanStep *step, const Emission *e)
{
    Group *group = e->group;
    fill_step(l, step, e->buffers, e->n_buffers, e->sizes, e->n_sizes, e->scalars, e->n_scalars);
    step->label = label_of(l->graph, group, "");
    bool batched = group->root->shape.batched;
    for (int i = 0; i < group->anchor->n_inputs; i++)
        batched |= group->anchor->inputs[i]->shape.batched;
    *(batched ? &step->flops_per_sample : &step->flops) = group_flops(group);
}

/* ---- finishing a reduction ------------------------------------------------------------------- */

void describe_finish(const Graph *graph, const Node *reduction, int64_t parts,
                     PlanBuffer partials, Call *call)
{
    bool moments = reduction->op == OP_BATCH_MOMENTS, sums = reduction->op == OP_BATCH_NORM_SUMS;
    const char *stem = moments ? "finish_moments" : sums ? "finish_sums" : "finish_sum";
    const int64_t *dims = reduction->inputs[0]->shape.dims;
    if (reduction->shape.batched) {
        int64_t pixels = reduction->op == OP_GLOBAL_AVG_POOL ? dims[1] * dims[2] : 0;
        *call = (Call){ .template = "finish_pool.c", .defines = "", .n_sizes = 4, .n_buffers = 2,
                        .sizes = { dims[0], parts, partial_rows(reduction), pixels },
                        .buffers = { partials, node_buffer(reduction) } };
        return;
    }
    bool all = (int)reduction->attr[ATTR_AXES] & AXIS_CHANNELS;
    int64_t count = dims[1] * dims[2] * (all ? dims[0] : 1);
    *call = (Call){ .defines = "", .sizes = { dims[0], parts, all,
                                              reduction->op == OP_MEAN ? count : 0 },
                    .n_sizes = moments || sums ? 2 : 4, .n_buffers = 2,
                    .buffers = { partials, node_buffer(reduction) } };
    call->template = arena_printf(graph->arena, "%s%s", stem, graph->target->extension);
}

char *finish_label(const Graph *graph, const Node *reduction)
{
    return (char *)arena_printf(graph->arena, "%s finish %lld", op_facts[reduction->op].name,
                                (long long)reduction->inputs[0]->shape.dims[0]);
}
