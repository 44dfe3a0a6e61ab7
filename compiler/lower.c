/* Groups to steps of the host target.
 *
 * needs: place.
 * keeps: the graph. What goes out: the program's steps, tensors and sizes in the plan, and the
 *     kernels they call, each text once.
 * breaks: nothing.
 *
 * A group becomes one call of a template (kernels/host/) between generated rows (emit.c), with a
 * step before it that packs a contraction's weights, and one behind it for every reduction over the
 * batch that adds up the partial sums in a fixed order. Which template serves an operator, and its
 * own buffers and sizes, is said here and nowhere else.
 */
#include "seg.h"

#include <string.h>

#include "kernel_files.h"
#include "lower_conv.h"
#include "lower_small.h"

enum { MAX_OWN_SIZES = 48, MAX_OWN_SCALARS = 4, MAX_OWN_BUFFERS = 8 };

/* One call of a template, before its rows are generated. */
typedef struct {
    const char *template;       /* "max_pool.c" */
    const char *defines;        /* lines before it, or "" */
    int64_t sizes[MAX_OWN_SIZES]; int n_sizes;
    double scalars[MAX_OWN_SCALARS]; int n_scalars;
    PlanBuffer buffers[MAX_OWN_BUFFERS]; int n_buffers;
    int64_t parts;
    int64_t scratch;
    bool writes;                /* has write_y */
    ConvLowering conv;          /* of the conv family: template is set */
} Call;

/* ---- which template -------------------------------------------------------------------------- */

static bool is_conv(const Node *anchor)
{
    return anchor->op == OP_CONV || anchor->op == OP_CONV_TRANSPOSE
           || anchor->op == OP_CONV_GRAD_INPUT || anchor->op == OP_CONV_GRAD_WEIGHT;
}

static ConvShape conv_shape(const Node *anchor)
{
    const Node *x = anchor->inputs[0];
    const Node *y = anchor->op == OP_CONV_GRAD_WEIGHT ? anchor->inputs[1] : anchor;
    const int64_t *from = x->shape.dims, *to = y->shape.dims;
    const Node *weight = anchor->op == OP_CONV_GRAD_WEIGHT ? anchor : anchor->inputs[1];
    return (ConvShape){
        .C = from[0], .H = from[1], .W = from[2], .K = to[0], .P = to[1], .Q = to[2],
        .kernel = weight->shape.dims[2],
        .stride = (int64_t)anchor->attr[ATTR_STRIDE],
        .padding = (int64_t)anchor->attr[ATTR_PADDING],
        .dilation = (int64_t)anchor->attr[ATTR_DILATION],
        .groups = (int64_t)anchor->attr[ATTR_GROUPS],
        .transposed = anchor->op == OP_CONV_TRANSPOSE || anchor->op == OP_CONV_GRAD_INPUT,
    };
}

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
    return channels ? "reduce_channels.c" : "reduce_pixels.c";
}

static const char *choose_template(Arena *arena, const Group *group, const char **defines)
{
    const Node *anchor = group->anchor;
    *defines = "";
    if (node_reduces_batch(anchor))
        return "pointwise.c";
    if (node_pointwise(anchor)) {
        *defines = anchor->shape.batched ? "" : "#define FIXED_RESULT\n";
        return "pointwise.c";
    }
    if (anchor->op == OP_PAD || anchor->op == OP_CROP)
        return "pad_crop.c";
    if (anchor->op == OP_CONCAT)
        *defines = arena_printf(arena, "#define OPERANDS %d\n", anchor->n_inputs);
    if (op_facts[anchor->op].kind == KIND_REDUCE && anchor->op != OP_DICE_SUMS)
        return reduction_template(anchor, defines);
    return NULL; /* named after the operator */
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

/* C H W, K P Q, parts, rows, then the attributes. */
static void standard_sizes(const Group *group, Call *call)
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
    call->n_sizes = 8;
    if (node_pointwise(anchor) || node_reduces_batch(anchor))
        return;
    add_attributes(anchor, call);
    if (anchor->op == OP_CONCAT)
        for (int i = 0; i < anchor->n_inputs; i++)
            add_size(call, anchor->inputs[i]->shape.dims[0]);
}

static int64_t padded(int64_t channels)
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

static void describe_conv(const Graph *graph, const Node *anchor, Call *call)
{
    ConvShape shape = conv_shape(anchor);
    shape.direct_only = !graph->compilation->winograd;
    if (anchor->op == OP_CONV_GRAD_WEIGHT)
        lower_conv_grad_weight(&shape, &call->conv);
    else
        lower_conv(&shape, &call->conv);
    call->template = call->conv.template;
    call->n_sizes = call->conv.n_sizes;
    memcpy(call->sizes, call->conv.sizes, (size_t)call->n_sizes * sizeof *call->sizes);
    call->parts = call->conv.parts;
    call->scratch = call->conv.scratch_bytes;
    call->writes = anchor->op != OP_CONV_GRAD_WEIGHT;
}

static void describe(const Graph *graph, const Group *group, Call *call)
{
    Arena *arena = graph->arena;
    Node *anchor = group->anchor;
    *call = (Call){ .defines = "", .writes = true };
    if (is_conv(anchor)) {
        describe_conv(graph, anchor, call);
        return;
    }
    bool small = op_facts[anchor->op].kind == KIND_SMALL;
    call->template = choose_template(arena, group, &call->defines);
    if (!call->template)
        call->template = arena_printf(arena, "%s.c", op_facts[anchor->op].name);
    if (small) {
        call->writes = false;
        describe_small(anchor, call);
        return;
    }
    standard_sizes(group, call);
    template_parts(call->template, call->sizes, &call->parts, &call->sizes[7]);
    call->sizes[6] = call->parts;
    call->scratch = template_scratch(call->template, call->sizes);
    if (anchor->op == OP_LINEAR || anchor->op == OP_LINEAR_GRAD_INPUT)
        call->buffers[call->n_buffers++] = node_buffer(anchor->inputs[1]);
    if (anchor->op == OP_LINEAR_GRAD_WEIGHT) {
        call->buffers[call->n_buffers++] = node_buffer(anchor);
        call->writes = false;
    }
}

/* ---- temporaries ----------------------------------------------------------------------------- */

static int partial_rows(const Node *reduction)
{
    return reduction->op == OP_BATCH_MOMENTS ? 3 : reduction->op == OP_BATCH_NORM_SUMS ? 2 : 1;
}

static int group_reductions(const Group *group, Node *const **list)
{
    bool alone = node_reduces_batch(group->anchor);
    *list = alone ? &group->anchor : group->reductions;
    return alone ? 1 : group->n_reductions;
}

void lower_temporaries(Graph *graph, Group *group)
{
    Call call;
    describe(graph, group, &call);
    Temporary *t = group->temporaries;
    memset(t, 0, sizeof group->temporaries);
    if (is_conv(group->anchor)) {
        t[TEMPORARY_PACKED].bytes = call.conv.packed_bytes;
        t[TEMPORARY_WORKSPACE].bytes = call.conv.workspace_bytes;
        t[TEMPORARY_SAMPLES].bytes = call.conv.workspace_sample_bytes;
        t[TEMPORARY_SAMPLES].batched = true;
    }
    Node *const *reductions;
    int n = group_reductions(group, &reductions);
    for (int r = 0; r < n; r++) {
        t[TEMPORARY_PARTIALS + r].batched = true;
        t[TEMPORARY_PARTIALS + r].bytes = call.parts * partial_rows(reductions[r])
                                          * padded(reductions[r]->inputs[0]->shape.dims[0]) * 4;
    }
}

static PlanBuffer temporary_buffer(const Temporary *t)
{
    return (PlanBuffer){ t->batched ? SLAB_ACTIVATIONS : SLAB_FIXED, t->offset,
                         (t->bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN };
}

/* ---- kernels --------------------------------------------------------------------------------- */

typedef struct {
    Graph *graph;
    Plan *plan;
    PlanTarget *target;
    PlanProgram *program;
} Lowering;

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

static const char *template_text(const char *template)
{
    char name[80];
    snprintf(name, sizeof name, "host/%s", template);
    const char *text = kernel_file(name);
    if (!text)
        bug("lower: no template compiler/kernels/host/%s", template);
    return text;
}

/* An array with room for one more; it has room for a power of two. */
static void *append(Arena *arena, void *array, int *n, size_t size)
{
    size_t count = (size_t)(*n)++;
    if (count & (count - 1))
        return array;
    return arena_grow(arena, array, count * size, (count ? 2 * count : 1) * size);
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && memcmp(text + length - tail, end, tail) == 0;
}

/* The kernel of these rows before this template, which calls its function KERNEL; added where the
 * plan has none yet. The header tells what it computes, at the first places that need it. */
static int add_kernel(Lowering *l, const char *stem, const char *rows, const char *template,
                      const char *header)
{
    Arena *arena = l->graph->arena;
    const char *text = template_text(template);
    uint64_t hash = hash_text(rows) * 31 + hash_text(text);
    const char *name = arena_printf(arena, "%s_%08x", stem, (unsigned)(hash ^ hash >> 32));
    for (int i = 0; i < l->target->n_kernels; i++) {
        PlanKernel *kernel = &l->target->kernels[i];
        if (strcmp(kernel->name, name) != 0)
            continue;
        if (!ends_with(kernel->body, text) || !strstr(kernel->body, rows))
            bug("lower: two kernels have the name %s", name);
        if (strlen(kernel->header) < 2000 && !strstr(kernel->header, header))
            kernel->header = (char *)arena_printf(arena, "%s%s", kernel->header, header);
        return i;
    }
    l->target->kernels = append(arena, l->target->kernels, &l->target->n_kernels,
                                sizeof(PlanKernel));
    l->target->kernels[l->target->n_kernels - 1] = (PlanKernel){
        .name = (char *)name, .header = (char *)header,
        .body = (char *)arena_printf(arena, "#define KERNEL %s\n%s%s", name, rows, text),
    };
    return l->target->n_kernels - 1;
}

/* One that has no generated rows. */
static int add_plain_kernel(Lowering *l, const char *template)
{
    Arena *arena = l->graph->arena;
    const char *stem = arena_printf(arena, "%.*s", (int)(strlen(template) - 2), template);
    return add_kernel(l, stem, "", template, "");
}

/* The micro-kernels of the conv family: one text of their own that every kernel is linked with. */
static void add_library(Lowering *l)
{
    if (l->target->n_kernels)
        return;
    l->target->kernels = append(l->graph->arena, NULL, &l->target->n_kernels, sizeof(PlanKernel));
    l->target->kernels[0] = (PlanKernel){ (char *)"library_conv_tiles", (char *)"",
                                          (char *)template_text("conv_tiles.c") };
}

/* ---- steps ----------------------------------------------------------------------------------- */

static PlanStep *add_step(Lowering *l, int kernel, const Group *group)
{
    PlanProgram *program = l->program;
    program->steps = append(l->graph->arena, program->steps, &program->n_steps, sizeof(PlanStep));
    PlanStep *step = &program->steps[program->n_steps - 1];
    step->kernel = kernel;
    step->once = group && group->once;
    return step;
}

static void *copied(Lowering *l, const void *data, size_t bytes)
{
    void *copy = arena_alloc(l->graph->arena, bytes + 1);
    return bytes ? memcpy(copy, data, bytes) : copy;
}

static void fill_step(Lowering *l, PlanStep *step, const PlanBuffer *buffers, int n_buffers,
                      const int64_t *sizes, int n_sizes, const double *scalars, int n_scalars)
{
    step->n_buffers = n_buffers;
    step->n_sizes = n_sizes;
    step->n_scalars = n_scalars;
    step->buffers = copied(l, buffers, (size_t)n_buffers * sizeof *buffers);
    step->sizes = copied(l, sizes, (size_t)n_sizes * sizeof *sizes);
    step->scalars = copied(l, scalars, (size_t)n_scalars * sizeof *scalars);
    for (int i = 0; i < n_buffers; i++) {
        bool batched = buffers[i].slab == SLAB_ACTIVATIONS;
        *(batched ? &step->bytes_per_sample : &step->bytes) += (double)buffers[i].bytes;
    }
}

/* "conv encoder.conv1 64->128 @128x128" */
static char *label_of(Lowering *l, const Group *group, const char *what)
{
    const Node *anchor = group->anchor, *root = group->root, *named = anchor;
    const char *name = "";
    int length = 0;
    for (int i = 0; i < anchor->n_inputs; i++)
        if (anchor->inputs[i]->op == OP_PARAMETER && !*name)
            name = anchor->inputs[i]->name;
    const char *dot = strrchr(name, '.');
    length = dot ? (int)(dot - name) : (int)strlen(name);
    if (anchor->op == OP_CONV_GRAD_WEIGHT || anchor->op == OP_LINEAR_GRAD_WEIGHT)
        named = anchor->inputs[1];
    else if (!anchor->shape.batched && anchor->n_inputs)
        named = anchor->inputs[0];
    Text text = { .arena = l->graph->arena };
    text_printf(&text, "%s%s%s%.*s", op_facts[anchor->op].name, what, length ? " " : "", length,
                name);
    const int64_t *to = named->shape.dims;
    if (anchor->n_inputs && anchor->inputs[0]->shape.batched && named->shape.batched)
        text_printf(&text, " %lld->%lld @%lldx%lld", (long long)anchor->inputs[0]->shape.dims[0],
                    (long long)to[0], (long long)to[1], (long long)to[2]);
    if (root != anchor)
        text_printf(&text, " +%s", op_facts[root->op].name);
    return text.text;
}

/* Of a sample, where the group has anything of a sample. */
static double group_flops(const Group *group)
{
    const Node *anchor = group->anchor;
    if (is_conv(anchor)) {
        ConvShape s = conv_shape(anchor);
        double pixels = s.transposed ? (double)s.H * (double)s.W : (double)s.P * (double)s.Q;
        double weights = (double)s.C * (double)s.K / (double)s.groups;
        return 2 * weights * (double)(s.kernel * s.kernel) * pixels;
    }
    if (anchor->op == OP_LINEAR || anchor->op == OP_LINEAR_GRAD_INPUT)
        return 2 * (double)shape_count(anchor->inputs[1]->shape);
    if (anchor->op == OP_LINEAR_GRAD_WEIGHT)
        return 2 * (double)shape_count(anchor->shape);
    return anchor->n_inputs ? (double)shape_count(anchor->inputs[0]->shape) : 0;
}

/* A line of the graph, once. */
static void say_node(Text *text, const Graph *graph, const Node *node)
{
    const char *line = node_text(graph, node);
    if (!text->text || !strstr(text->text, line))
        text_printf(text, "%s\n", line);
}

static void say_expression(Text *text, const Graph *graph, const Node *node, const Node *stop)
{
    if (node == stop || node->stored || text->length > 3000)
        return;
    for (int i = 0; i < node->n_inputs; i++)
        say_expression(text, graph, node->inputs[i], stop);
    say_node(text, graph, node);
}

static void say_operands(Text *text, const Graph *graph, const Node *node, const Node *stop)
{
    for (int i = 0; i < node->n_inputs; i++)
        say_expression(text, graph, node->inputs[i], stop);
    say_node(text, graph, node);
}

/* The graph lines this call implements: what it reads through, the anchor, the epilogue, the
 * sums. */
static const char *header_of(const Graph *graph, const Group *group)
{
    Text text = { .arena = graph->arena };
    say_operands(&text, graph, group->anchor, NULL);
    if (group->root != group->anchor)
        say_operands(&text, graph, group->root, group->anchor);
    for (int r = 0; r < group->n_reductions; r++)
        say_operands(&text, graph, group->reductions[r], group->root);
    return text.text;
}

/* ---- one group ------------------------------------------------------------------------------- */

static void lower_pack(Lowering *l, const Group *group, const Call *call)
{
    const ConvLowering *conv = &call->conv;
    if (!conv->packed_bytes)
        return;
    PlanStep *step = add_step(l, add_plain_kernel(l, conv->pack_template), group);
    step->once = l->graph->program != PROGRAM_TRAIN;
    PlanBuffer buffers[] = { node_buffer(group->anchor->inputs[1]),
                             temporary_buffer(&group->temporaries[TEMPORARY_PACKED]) };
    fill_step(l, step, buffers, 2, conv->pack_sizes, conv->n_pack_sizes, NULL, 0);
    step->label = label_of(l, group, " pack");
}

static void lower_finish(Lowering *l, const Group *group, const Call *call, Node *reduction,
                         PlanBuffer partials)
{
    bool moments = reduction->op == OP_BATCH_MOMENTS, sums = reduction->op == OP_BATCH_NORM_SUMS;
    const char *template = moments ? "finish_moments.c" : sums ? "finish_sums.c" : "finish_sum.c";
    PlanStep *step = add_step(l, add_plain_kernel(l, template), group);
    const int64_t *dims = reduction->inputs[0]->shape.dims;
    bool all = (int)reduction->attr[ATTR_AXES] & AXIS_CHANNELS;
    int64_t count = dims[1] * dims[2] * (all ? dims[0] : 1);
    int64_t sizes[] = { dims[0], call->parts, all, reduction->op == OP_MEAN ? count : 0 };
    PlanBuffer buffers[] = { partials, node_buffer(reduction) };
    fill_step(l, step, buffers, 2, sizes, moments || sums ? 2 : 4, NULL, 0);
    step->label = (char *)arena_printf(l->graph->arena, "%s finish %lld",
                                       op_facts[reduction->op].name, (long long)dims[0]);
}

/* Names of the operands in ops.def's column: the i-th word, without brackets and dots. */
static const char *operand_name(Arena *arena, const Node *anchor, int index)
{
    if (anchor->op == OP_CONCAT)
        return arena_printf(arena, "x%d", index);
    if (is_conv(anchor) && anchor->op != OP_CONV_GRAD_WEIGHT)
        return "x";
    const char *at = op_facts[anchor->op].operands;
    for (int i = 0; i < index; i++)
        at += strcspn(at, " ") + 1;
    at += strspn(at, "[");
    return arena_printf(arena, "%.*s", (int)strcspn(at, " ]."), at);
}

static void emit_rows_of(Emission *e, const Group *group, const PlanBuffer *partials, bool writes)
{
    Node *anchor = group->anchor;
    if (!node_pointwise(anchor) && !node_reduces_batch(anchor))
        for (int i = 0; i < anchor->n_inputs; i++)
            if (anchor->inputs[i]->shape.batched)
                emit_read(e, operand_name(e->graph->arena, anchor, i), anchor->inputs[i]);
    if (writes)
        emit_write(e, partials);
}

static void begin_emission(Lowering *l, Emission *e, Group *group, const Call *call)
{
    Arena *arena = l->graph->arena;
    *e = (Emission){ .graph = l->graph, .group = group, .parts = call->parts,
                     .n_buffers = call->n_buffers, .n_sizes = call->n_sizes,
                     .n_scalars = call->n_scalars };
    e->text.arena = e->name.arena = arena;
    e->buffers = copied(l, call->buffers, (size_t)call->n_buffers * sizeof *call->buffers);
    e->sizes = copied(l, call->sizes, (size_t)call->n_sizes * sizeof *call->sizes);
    e->scalars = copied(l, call->scalars, (size_t)call->n_scalars * sizeof *call->scalars);
    text_printf(&e->text, "%s", call->defines);
    text_printf(&e->name, "%s", "");
}

static void own_conv_buffers(const Group *group, Call *call)
{
    const Temporary *t = group->temporaries;
    if (group->anchor->op == OP_CONV_GRAD_WEIGHT)
        call->buffers[call->n_buffers++] = node_buffer(group->anchor);
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
    Call call;
    Emission e;
    PlanBuffer partials[MAX_REDUCTIONS];
    describe(l->graph, group, &call);
    if (is_conv(group->anchor)) {
        own_conv_buffers(group, &call);
        lower_pack(l, group, &call);
    }
    Node *const *reductions;
    int n = group_reductions(group, &reductions);
    for (int r = 0; r < n; r++)
        partials[r] = temporary_buffer(&group->temporaries[TEMPORARY_PARTIALS + r]);
    begin_emission(l, &e, group, &call);
    if (op_facts[group->anchor->op].kind != KIND_SMALL)
        emit_rows_of(&e, group, partials, call.writes);
    const char *stem = arena_printf(arena, "%.*s%.*s", (int)(strlen(call.template) - 2),
                                    call.template, (int)e.name.length, e.name.text);
    int kernel = add_kernel(l, stem, e.text.text, call.template, header_of(l->graph, group));
    PlanStep *step = add_step(l, kernel, group);
    fill_step(l, step, e.buffers, e.n_buffers, e.sizes, e.n_sizes, e.scalars, e.n_scalars);
    step->scratch = call.scratch;
    step->label = label_of(l, group, "");
    bool batched = group->root->shape.batched;
    for (int i = 0; i < group->anchor->n_inputs; i++)
        batched |= group->anchor->inputs[i]->shape.batched;
    *(batched ? &step->flops_per_sample : &step->flops) = group_flops(group);
    for (int r = 0; r < n; r++)
        lower_finish(l, group, &call, reductions[r], partials[r]);
}

static void lower_adam(Lowering *l)
{
    int64_t bytes = l->plan->trainable_bytes, count = bytes / 4;
    if (!bytes)
        return;
    PlanBuffer buffers[] = {
        { SLAB_PARAMETERS, 0, bytes }, { SLAB_GRADIENTS, 0, bytes }, { SLAB_MOMENTS, 0, bytes },
        { SLAB_MOMENTS, bytes, bytes }, { SLAB_FIXED, 0, PLAN_STATE_BYTES },
    };
    PlanStep *step = add_step(l, add_plain_kernel(l, "adam.c"), NULL);
    fill_step(l, step, buffers, 5, &count, 1, NULL, 0);
    step->flops = 12 * (double)count;
    step->label = (char *)"adam";
}

/* ---- the program's tensors ------------------------------------------------------------------- */

static void add_tensor(Lowering *l, PlanRole role, const char *name, const Node *node)
{
    PlanProgram *program = l->program;
    program->tensors = append(l->graph->arena, program->tensors, &program->n_tensors,
                              sizeof(PlanTensor));
    PlanTensor *tensor = &program->tensors[program->n_tensors - 1];
    *tensor = (PlanTensor){ .name = (char *)name, .role = role, .batched = node->shape.batched,
                            .type = node->type == TYPE_U8 ? PLAN_U8 : PLAN_F32,
                            .buffer = node_buffer(node), .dims = { 1, 1, 1 } };
    if (node->shape.batched)
        memcpy(tensor->dims, node->shape.dims, sizeof tensor->dims);
    else
        tensor->dims[0] = shape_count(node->shape);
}

static void add_tensors(Lowering *l)
{
    const Graph *graph = l->graph;
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i]->op == OP_INPUT || graph->nodes[i]->op == OP_TARGET)
            add_tensor(l, graph->nodes[i]->op == OP_INPUT ? ROLE_INPUT : ROLE_TARGET,
                       graph->nodes[i]->name, graph->nodes[i]);
    for (int i = 0; i < graph->n_results; i++) {
        const Result *result = &graph->results[i];
        if (result->role != ROLE_UPDATE)
            add_tensor(l, result->role, result->name, result->node);
    }
}

void lower(Graph *graph, Plan *plan)
{
    static const char *const names[] = { "train", "evaluate", "predict" };
    PlanTarget *target = &plan->targets[0];
    Lowering l = { graph, plan, target, &target->programs[target->n_programs++] };
    l.program->name = (char *)names[graph->program];
    l.program->fixed_bytes = graph->fixed_bytes;
    l.program->sample_bytes = graph->activation_bytes;
    add_library(&l);
    add_tensors(&l);
    for (int i = 0; i < graph->n_groups; i++)
        if (graph->groups[i]->once)
            lower_group(&l, graph->groups[i]);
    for (int i = 0; i < graph->n_groups; i++)
        if (!graph->groups[i]->once)
            lower_group(&l, graph->groups[i]);
    if (graph->program == PROGRAM_TRAIN)
        lower_adam(&l);
    for (int i = 0; i < l.program->n_steps; i++)
        if (l.program->steps[i].scratch > l.program->scratch_bytes)
            l.program->scratch_bytes = l.program->steps[i].scratch;
}
