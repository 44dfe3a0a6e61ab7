/* Groups to steps of the host target.
 *
 * A group becomes one call of a template (kernels/host/) between generated rows (emit_host.c), with
 * a step before it that packs a contraction's weights, and one behind it for every reduction over
 * the batch that adds up the partial sums in a fixed order. Which template serves an operator, and
 * its own buffers and sizes, is said here and nowhere else.
 */
#include "lower.h"

#include <string.h>

#include "emit.h"
#include "kernel_files.h"
#include "lower_small.h"

/* Sizes that host templates have of their own, behind C H W and K P Q: parts and rows. */
enum { RESERVED_SIZES = 2 };

/* One call of a template, with what only the host's need. */
typedef struct {
    Call call;
    int64_t scratch;
    ConvLowering conv;          /* of the conv family */
} HostCall;

static void describe_conv(const Graph *graph, const Group *group, HostCall *host)
{
    const Node *anchor = group->anchor;
    Call *call = &host->call;
    ConvLowering *conv = &host->conv;
    ConvShape shape = conv_shape(anchor);
    shape.bf16 = graph->target->stored == TYPE_BF16;
    shape.way = (ConvWay)tuned_way(graph, group);
    if (anchor->op == OP_CONV_GRAD_WEIGHT)
        lower_conv_grad_weight(&shape, conv);
    else
        lower_conv(&shape, conv);
    *call = (Call){ .defines = "", .template = conv->template, .n_sizes = conv->n_sizes,
                    .parts = conv->parts, .writes = anchor->op != OP_CONV_GRAD_WEIGHT };
    memcpy(call->sizes, conv->sizes, (size_t)call->n_sizes * sizeof *call->sizes);
    host->scratch = conv->scratch_bytes;
}

static void describe(const Graph *graph, const Group *group, HostCall *host)
{
    *host = (HostCall){ 0 };
    Call *call = &host->call;
    if (is_conv(group->anchor)) {
        describe_conv(graph, group, host);
        return;
    }
    describe_call(graph, group, RESERVED_SIZES, call);
    if (op_facts[group->anchor->op].kind == KIND_SMALL)
        return;
    template_parts(call->template, call->sizes, &call->parts, &call->sizes[7]);
    call->sizes[6] = call->parts;
    host->scratch = template_scratch(call->template, call->sizes);
}

void host_temporaries(Graph *graph, Group *group)
{
    HostCall host;
    describe(graph, group, &host);
    Temporary *t = group->temporaries;
    memset(t, 0, sizeof group->temporaries);
    t[TEMPORARY_PACKED].bytes = host.conv.packed_bytes;
    t[TEMPORARY_WORKSPACE].bytes = host.conv.workspace_bytes;
    t[TEMPORARY_SAMPLES].bytes = host.conv.workspace_sample_bytes;
    t[TEMPORARY_SAMPLES].batched = true;
    partial_temporaries(group, host.call.parts);
}

/* ---- kernels --------------------------------------------------------------------------------- */

/* One that has no generated rows. */
static int add_plain_kernel(Lowering *l, const char *template)
{
    Arena *arena = l->graph->arena;
    const char *stem = arena_printf(arena, "%.*s", (int)(strlen(template) - 2), template);
    return add_kernel(l, stem, "", template_text(l, template), "");
}

/* A text that is compiled once, whatever the rows of the kernels that call it, and so the longest
 * ones are. It may call another, or NULL. */
static const char *add_library(Lowering *l, const char *template, const char *front,
                               const char *library)
{
    Arena *arena = l->graph->arena;
    PlanTarget *target = l->target;
    const char *text = template_text(l, template);
    const char *name = arena_printf(arena, "library_%.*s", (int)(strlen(template) - 2), template);
    for (int i = 0; i < target->n_kernels; i++)
        if (strcmp(target->kernels[i].name, name) == 0)
            return name;
    target->kernels = lower_append(arena, target->kernels, &target->n_kernels, sizeof(PlanKernel));
    target->kernels[target->n_kernels - 1] = (PlanKernel){
        .name = (char *)name, .header = (char *)"", .tail = text, .library = library,
        .body = (char *)arena_printf(arena, "#define KERNEL %s\n%s%s", name, front, text),
    };
    return name;
}

/* The kernel of a conv template between a group's rows: the template is a library. */
static int add_conv_kernel(Lowering *l, const char *stem, const char *rows, const Call *call,
                           const char *header)
{
    const bool bf16 = l->graph->target->stored == TYPE_BF16;
    const char *tiles = bf16
        ? add_library(l, "conv_tiles_bf16.c", template_text(l, "conv_tiles.c"), NULL)
        : add_library(l, "conv_tiles.c", "", NULL);
    const char *library = add_library(l, call->template, template_text(l, "conv_library.h"), tiles);
    const char *front = arena_printf(l->graph->arena, "#define LIBRARY %s\n#define WRITES %d\n%s",
                                     library, call->writes, rows);
    int kernel = add_kernel(l, stem, front, template_text(l, "conv_call.c"), header);
    l->target->kernels[kernel].library = library;
    return kernel;
}

/* ---- one group ------------------------------------------------------------------------------- */

static void lower_pack(Lowering *l, const Group *group, const ConvLowering *conv)
{
    if (!conv->packed_bytes)
        return;
    PlanStep *step = add_step(l, add_plain_kernel(l, conv->pack_template), group);
    step->once = l->graph->program != PROGRAM_TRAIN;
    PlanBuffer buffers[] = { node_buffer(group->anchor->inputs[1]),
                             temporary_buffer(&group->temporaries[TEMPORARY_PACKED]) };
    fill_step(l, step, buffers, 2, conv->pack_sizes, conv->n_pack_sizes, NULL, 0);
    step->label = label_of(l->graph, group, " pack");
}

static void lower_finish(Lowering *l, const Group *group, const Call *call, const Node *reduction,
                         PlanBuffer partials)
{
    Call finish;
    describe_finish(l->graph, reduction, call->parts, partials, &finish);
    PlanStep *step = add_step(l, add_plain_kernel(l, finish.template), group);
    fill_step(l, step, finish.buffers, finish.n_buffers, finish.sizes, finish.n_sizes, NULL, 0);
    step->label = finish_label(l->graph, reduction);
}

static void emit_rows_of(Emission *e, const Group *group, const PlanBuffer *partials, bool writes)
{
    Node *anchor = group->anchor;
    if (!node_pointwise(anchor) && !node_reduces_batch(anchor))
        for (int i = 0; i < anchor->n_inputs; i++)
            if (anchor->inputs[i]->shape.batched)
                emit_host_read(e, operand_name(e->graph->arena, anchor, i), anchor->inputs[i]);
    if (writes)
        emit_host_write(e, partials);
}

/* Rows of one channel for the templates that take them, and tells those so. */
static void choose_dense(const Group *group, Emission *e, const char *template)
{
    const Node *anchor = group->anchor;
    bool narrow = strcmp(template, "conv_narrow.c") == 0, joins = strcmp(template, "concat.c") == 0;
    if (joins || narrow || strcmp(template, "conv_dot.c") == 0
        || strcmp(template, "reduce_channels.c") == 0)
        e->dense_y = host_writes_dense(group);
    e->dense_x = (joins && e->dense_y) || (narrow && host_reads_dense(group, anchor->inputs[0]));
    text_printf(&e->text, "#define DENSE_X %d\n#define DENSE_Y %d\n", e->dense_x, e->dense_y);
}

static void own_conv_buffers(const Group *group, Call *call)
{
    const Temporary *t = group->temporaries;
    if (group->anchor->op == OP_CONV_GRAD_WEIGHT)
        call->buffers[call->n_buffers++] = node_buffer(group->anchor);
    else if (!t[TEMPORARY_PACKED].bytes)
        call->buffers[call->n_buffers++] = node_buffer(group->anchor->inputs[1]);
    if (t[TEMPORARY_PACKED].bytes)
        call->buffers[call->n_buffers++] = temporary_buffer(&t[TEMPORARY_PACKED]);
    if (t[TEMPORARY_WORKSPACE].bytes)
        call->buffers[call->n_buffers++] = temporary_buffer(&t[TEMPORARY_WORKSPACE]);
    if (t[TEMPORARY_SAMPLES].bytes)
        call->buffers[call->n_buffers++] = temporary_buffer(&t[TEMPORARY_SAMPLES]);
}

static void lower_group(Lowering *l, Group *group)
{
    Arena *arena = l->graph->arena;
    HostCall host;
    PlanBuffer partials[MAX_REDUCTIONS];
    describe(l->graph, group, &host);
    Call *call = &host.call;
    if (is_conv(group->anchor)) {
        own_conv_buffers(group, call);
        lower_pack(l, group, &host.conv);
    }
    Node *const *reductions;
    int n = group_reductions(group, &reductions);
    for (int r = 0; r < n; r++)
        partials[r] = temporary_buffer(&group->temporaries[TEMPORARY_PARTIALS + r]);
    Emission e = begin_emission(l, group, call, &host_dialect);
    choose_dense(group, &e, call->template);
    if (op_facts[group->anchor->op].kind != KIND_SMALL)
        emit_rows_of(&e, group, partials, call->writes);
    const char *stem = arena_printf(arena, "%.*s%.*s", (int)(strlen(call->template) - 2),
                                    call->template, (int)e.name.length, e.name.text);
    emit_width(&e);
    const char *header = header_of(l->graph, group);
    int kernel = is_conv(group->anchor)
               ? add_conv_kernel(l, stem, e.text.text, call, header)
               : add_kernel(l, stem, e.text.text, template_text(l, call->template), header);
    PlanStep *step = add_step(l, kernel, group);
    fill_call_step(l, step, &e);
    step->scratch = host.scratch;
    for (int r = 0; r < n; r++)
        lower_finish(l, group, call, reductions[r], partials[r]);
}

static void lower_part(Lowering *l, PlanPart part, const char *template, const char *label,
                       const PlanBuffer *buffers, int n_buffers, const int64_t *sizes, int n_sizes)
{
    PlanStep *step = add_step(l, add_plain_kernel(l, template), NULL);
    fill_step(l, step, buffers, n_buffers, sizes, n_sizes, NULL, 0);
    step->part = part;
    step->label = (char *)label;
}

/* What follows the gradients: see PlanPart. */
static void lower_update(Lowering *l)
{
    const UpdatePlaces at = update_places(l);
    if (!at.bytes)
        return;
    const int64_t count = at.bytes / 4;
    for (PlanPart part = PART_SUM; part <= PART_AVERAGE; part++) {
        PlanBuffer y, x;
        int blend = blend_of(&at, part, &y, &x);
        if (blend >= 0)
            lower_part(l, part, "blend.c", part_label(part), (PlanBuffer[]){ y, x, at.state }, 3,
                       (int64_t[]){ y.bytes / 4, blend }, 2);
        else if (part == PART_CLIP)
            lower_part(l, part, "gradient_norm.c", part_label(part),
                       (PlanBuffer[]){ at.gradients, at.partials, at.state }, 3,
                       (int64_t[]){ count, NORM_CHUNK }, 2);
        else
            lower_part(l, part, "update.c", part_label(part),
                       (PlanBuffer[]){ at.parameters, at.gradients, at.first, at.second, at.state },
                       5, &count, 1);
    }
}

char *host_prelude(const Target *target, Arena *arena)
{
    const bool bf16 = target->stored == TYPE_BF16;
    return (char *)arena_printf(arena, "%s%s%s%s", kernel_file("host/prelude.h"),
                                bf16 ? kernel_file("host/bf16.h") : "",
                                kernel_file("host/conv_tiles.h"),
                                bf16 ? kernel_file("host/conv_tiles_bf16.h") : "");
}

void host_lower(Graph *graph, Plan *plan, PlanTarget *target)
{
    Lowering l = lower_begin(graph, plan, target);
    for (int i = 0; i < graph->n_groups; i++)
        if (graph->groups[i]->once)
            lower_group(&l, graph->groups[i]);
    for (int i = 0; i < graph->n_groups; i++)
        if (!graph->groups[i]->once)
            lower_group(&l, graph->groups[i]);
    if (graph->program == PROGRAM_TRAIN)
        lower_update(&l);
    for (int i = 0; i < l.program->n_steps; i++)
        if (l.program->steps[i].scratch > l.program->scratch_bytes)
            l.program->scratch_bytes = l.program->steps[i].scratch;
}
