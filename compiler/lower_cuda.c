/* Groups to steps of the CUDA targets.
 *
 * A group becomes one launch of a template (kernels/cuda/) behind generated functions (emit_cuda.c),
 * with a step before it that packs a contraction's weights, and steps behind it that add up partial
 * sums: of reductions over the batch, and of a weight gradient's splits. A step lists the ways in
 * which it may be launched: the same text with other tiles. Small operators, some numbers a channel,
 * run in the same kernel as the reduction that they follow: see Chain.
 */
#include "lower_cuda.h"

#include <string.h>

#include "emit.h"
#include "kernel_files.h"
#include "lower_small_cuda.h"

/* One call of a template, with the ways to launch it. */
typedef struct {
    Call call;
    int n_launches;
    CudaLaunch launches[MAX_CUDA_LAUNCHES];
    ConvCudaLowering conv;      /* of the conv family */
    CudaLaunch first;           /* of a reduction of large samples: launched before, */
    int64_t sample_bytes;       /* with so many bytes a sample between both; else 0 */
} CudaCall;

static CudaPrecision precision_of(const Graph *graph)
{
    const char *name = graph->target->name;
    return strcmp(name, "cuda-bf16") == 0 ? CUDA_BF16
         : strcmp(name, "cuda-tf32") == 0 ? CUDA_TF32 : CUDA_FP32;
}

char *cuda_prelude(const Target *target, Arena *arena)
{
    const char *macro = strcmp(target->name, "cuda-bf16") == 0 ? "PRECISION_BF16"
                      : strcmp(target->name, "cuda-tf32") == 0 ? "PRECISION_TF32"
                                                               : "PRECISION_FP32";
    return (char *)arena_printf(arena, "#define %s\n%s%s", macro, kernel_file("cuda/primitives.h"),
                                kernel_file("cuda/prelude.h"));
}

/* ---- which template -------------------------------------------------------------------------- */

void describe_conv_cuda(const Graph *graph, const Node *anchor, ConvCudaLowering *conv)
{
    ConvShape shape = conv_shape(anchor);
    *conv = (ConvCudaLowering){ 0 };
    if (anchor->op == OP_CONV_GRAD_WEIGHT)
        lower_conv_cuda_grad_weight(&shape, precision_of(graph), conv);
    else
        lower_conv_cuda(&shape, precision_of(graph), graph->compilation->warp_groups, conv);
}

static void describe_conv(const Graph *graph, const Node *anchor, CudaCall *cuda)
{
    ConvCudaLowering *conv = &cuda->conv;
    describe_conv_cuda(graph, anchor, conv);
    cuda->call = (Call){ .defines = "", .template = conv->template, .n_sizes = conv->n_sizes,
                         .parts = conv->parts, .writes = anchor->op != OP_CONV_GRAD_WEIGHT };
    memcpy(cuda->call.sizes, conv->sizes, (size_t)conv->n_sizes * sizeof *conv->sizes);
    cuda->n_launches = conv->n_launches;
    memcpy(cuda->launches, conv->launches, (size_t)conv->n_launches * sizeof *conv->launches);
}

static void describe(const Graph *graph, const Group *group, CudaCall *cuda)
{
    *cuda = (CudaCall){ .n_launches = 1 };
    Call *call = &cuda->call;
    if (is_conv(group->anchor)) {
        describe_conv(graph, group->anchor, cuda);
        return;
    }
    describe_call(graph, group, RESERVED_CUDA_SIZES, call);
    if (op_facts[group->anchor->op].kind == KIND_SMALL)
        return;
    bool batched = group->anchor->shape.batched || node_reduces_batch(group->anchor);
    cuda->sample_bytes = lower_small_cuda(call->template, call->sizes, call->n_sizes, batched,
                                          cuda->launches, &cuda->first);
    call->parts = call->sizes[6];
}

void cuda_temporaries(Graph *graph, Group *group)
{
    CudaCall cuda;
    memset(group->temporaries, 0, sizeof group->temporaries);
    if (is_matmul(graph, group)) {
        matmul_temporaries(graph, group);
        return;
    }
    describe(graph, group, &cuda);
    group->temporaries[TEMPORARY_PACKED].bytes = cuda.conv.packed_bytes;
    group->temporaries[TEMPORARY_WORKSPACE].bytes = cuda.conv.workspace_bytes;
    group->temporaries[TEMPORARY_SAMPLES].bytes = cuda.sample_bytes;
    group->temporaries[TEMPORARY_SAMPLES].batched = true;
    partial_temporaries(group, cuda.call.parts);
}

/* ---- kernels --------------------------------------------------------------------------------- */

static const char *arguments_text(Arena *arena, const Emission *e)
{
    Text text = { .arena = arena };
    text_printf(&text, "struct Arguments {");
    if (e->n_buffers)
        text_printf(&text, " void *buffers[%d];", e->n_buffers);
    if (e->n_scalars)
        text_printf(&text, " double scalars[%d];", e->n_scalars);
    if (e->n_sizes)
        text_printf(&text, " int sizes[%d];", e->n_sizes);
    text_printf(&text, " int batch; };\n");
    return text.text;
}

static void check_arguments(const Emission *e)
{
    int bytes = 8 * e->n_buffers + 8 * e->n_scalars + 4 * e->n_sizes + 8;
    if (bytes > PLAN_CUDA_ARGUMENTS)
        bug("lower: a kernel has %d bytes of arguments, more than %d", bytes, PLAN_CUDA_ARGUMENTS);
    for (int i = 0; i < e->n_sizes; i++)
        if (e->sizes[i] > INT32_MAX || e->sizes[i] < INT32_MIN)
            bug("lower: a size of %lld is too large for a CUDA kernel", (long long)e->sizes[i]);
}

PlanStep *add_launches(Lowering *l, const Emission *e, const char *template,
                       const CudaLaunch *launches, int n_launches, const char *header)
{
    Arena *arena = l->graph->arena;
    const char *stem = arena_printf(arena, "%.*s%.*s", (int)(strlen(template) - 3), template,
                                    (int)e->name.length, e->name.length ? e->name.text : "");
    bool packs = strcmp(template, "update.cu") == 0 || strcmp(template, "conv_pack.cu") == 0;
    const char *tail = arena_printf(arena, "%s%s%s", kernel_file("cuda/rows.h"),
                                    packs ? template_text(l, "conv_packed.cu") : "",
                                    template_text(l, template));
    int sums = e->group ? count_accumulators(e->group) : 0;
    PlanLaunch *list = arena_alloc(arena, (size_t)n_launches * sizeof *list);
    check_arguments(e);
    for (int i = 0; i < n_launches; i++) {
        const CudaLaunch *launch = &launches[i];
        const char *front = arena_printf(arena, "%s%s%s", launch->defines,
                                         arguments_text(arena, e), e->text.length ? e->text.text
                                                                                  : "");
        int64_t merging = (int64_t)launch->threads * 32 * sums; /* of finish_block in rows.h */
        int64_t own = launch->shared_bytes, bytes = launch->merge_offset + merging;
        bytes = own > bytes ? own : bytes;
        list[i] = (PlanLaunch){
            .kernel = add_kernel(l, stem, front, tail, header), .threads = launch->threads,
            .blocks = launch->blocks, .blocks_per_sample = launch->blocks_per_sample,
            .shared_bytes = bytes,
        };
    }
    PlanStep *step = add_step(l, list[0].kernel, e->group);
    step->n_launches = n_launches;
    step->launches = list;
    return step;
}

PlanStep *add_plain(Lowering *l, const Call *call, const CudaLaunch *launch)
{
    Emission e = begin_emission(l, NULL, call, &cuda_dialect);
    PlanStep *step = add_launches(l, &e, call->template, launch, 1, "");
    fill_step(l, step, e.buffers, e.n_buffers, e.sizes, e.n_sizes, e.scalars, e.n_scalars);
    return step;
}

/* ---- small operators, one behind the other --------------------------------------------------- */

/* Functions of one kernel: at most one that adds up partial sums, then small operators, each of
 * which computes a channel from what the same thread has stored for that channel before. */
enum { MAX_CHAIN = 8 };

typedef struct {
    const Group *group;         /* the first; NULL: the chain is empty */
    int64_t channels;
    Call calls[MAX_CHAIN]; int n_calls;
    bool finishes;              /* the first call adds up partial sums */
    char *label;
} Chain;

static void append_call(Call *all, const Call *call)
{
    for (int i = 0; i < call->n_buffers; i++)
        all->buffers[all->n_buffers++] = call->buffers[i];
    for (int i = 0; i < call->n_sizes; i++)
        all->sizes[all->n_sizes++] = call->sizes[i];
    for (int i = 0; i < call->n_scalars; i++)
        all->scalars[all->n_scalars++] = call->scalars[i];
}

static bool has_room(const Chain *chain, const Call *more)
{
    int buffers = more->n_buffers, sizes = more->n_sizes, scalars = more->n_scalars;
    for (int i = 0; i < chain->n_calls; i++) {
        buffers += chain->calls[i].n_buffers;
        sizes += chain->calls[i].n_sizes;
        scalars += chain->calls[i].n_scalars;
    }
    return chain->n_calls < MAX_CHAIN && buffers <= MAX_OWN_BUFFERS && sizes <= MAX_OWN_SIZES
        && scalars <= MAX_OWN_SCALARS;
}

/* Threads of a chain do not wait for each other: a result may lie over what another call uses only
 * where it lies over it channel by channel, that is, exactly. */
static bool keeps_apart(const Chain *chain, const Call *more)
{
    const PlanBuffer *result = &more->buffers[more->n_buffers - 1];
    for (int i = 0; i < chain->n_calls; i++)
        for (int k = 0; k < chain->calls[i].n_buffers; k++) {
            const PlanBuffer *used = &chain->calls[i].buffers[k];
            bool same = used->offset == result->offset && used->bytes == result->bytes;
            if (used->slab == result->slab && !same && used->offset < result->offset + result->bytes
                && result->offset < used->offset + used->bytes)
                return false;
        }
    return true;
}

static const char *function_name(Lowering *l, const Call *call)
{
    return arena_printf(l->graph->arena, "%.*s", (int)(strlen(call->template) - 3), call->template);
}

/* The templates' functions, and the kernel that calls them in order. */
static const char *chain_text(Lowering *l, const Chain *chain)
{
    Text functions = { .arena = l->graph->arena }, entry = { .arena = l->graph->arena };
    int buffer = 0, size = 0, scalar = 0;
    text_printf(&entry, "ENTRY\n{\n    const Arguments *a = &arguments;\n");
    if (chain->finishes)
        text_printf(&functions, "%s", template_text(l, "finish_rows.cu"));
    else
        text_printf(&entry, "    int c = block_index() * THREADS + thread_index();\n");
    for (int i = 0; i < chain->n_calls; i++) {
        const Call *call = &chain->calls[i];
        const char *name = function_name(l, call), *text = template_text(l, call->template);
        if (!functions.text || !strstr(functions.text, text))
            text_printf(&functions, "%s%s", call->defines, text);
        if (i == 0 && chain->finishes && strcmp(name, "finish_sum") == 0)
            text_printf(&entry, "    %s(a, block_index(), 0, 0);\n", name);
        else if (i == 0 && chain->finishes)
            text_printf(&entry, "    %s(a, block_index(), 0, 0, [a](int c) {\n", name);
        else
            text_printf(&entry, "%s    %s(a, c, %d, %d, %d);\n", chain->finishes ? "    " : "",
                        name, buffer, size, scalar);
        buffer += call->n_buffers;
        size += call->n_sizes;
        scalar += call->n_scalars;
    }
    bool closure = chain->finishes && strcmp(chain->calls[0].template, "finish_sum.cu") != 0;
    text_printf(&entry, "%s%s}\n", closure && chain->n_calls == 1 ? "        (void)c;\n" : "",
                closure ? "    });\n" : "");
    return arena_printf(l->graph->arena, "%s%s", functions.text, entry.text);
}

/* What the chain holds becomes a step; the chain is empty then. */
static void flush_chain(Lowering *l, Chain *chain)
{
    if (!chain->n_calls)
        return;
    Arena *arena = l->graph->arena;
    CudaLaunch launch;
    Call all = { .defines = "" };
    Text stem = { .arena = arena };
    for (int i = 0; i < chain->n_calls; i++) {
        append_call(&all, &chain->calls[i]);
        if (stem.length < 72)
            text_printf(&stem, "%s%s", i ? "_" : "", function_name(l, &chain->calls[i]));
    }
    const Call *first = &chain->calls[0];
    int64_t sizes[MAX_OWN_SIZES];
    memcpy(sizes, first->sizes, sizeof sizes);
    lower_small_cuda(first->template, sizes, first->n_sizes, false, &launch, NULL);
    Emission e = begin_emission(l, NULL, &all, &cuda_dialect);
    check_arguments(&e);
    const char *front = arena_printf(arena, "%s%s", launch.defines, arguments_text(arena, &e));
    PlanLaunch *only = arena_alloc(arena, sizeof *only);
    *only = (PlanLaunch){ add_kernel(l, stem.text, front, chain_text(l, chain), ""), launch.threads,
                          launch.blocks, launch.blocks_per_sample, launch.shared_bytes };
    PlanStep *step = add_step(l, only->kernel, chain->group);
    step->n_launches = 1;
    step->launches = only;
    fill_step(l, step, e.buffers, e.n_buffers, e.sizes, e.n_sizes, e.scalars, e.n_scalars);
    step->label = (char *)arena_printf(arena, "%s%s", chain->label,
                                       chain->n_calls > 1 ? " +small" : "");
    *chain = (Chain){ 0 };
}

static void begin_chain(Chain *chain, const Group *group, const Call *call, char *label,
                        bool finishes)
{
    *chain = (Chain){ .group = group, .channels = call->sizes[0], .calls = { *call },
                      .n_calls = 1, .finishes = finishes, .label = label };
}

/* Of a group of a small operator: it joins the chain where it computes as many channels. */
static void lower_small_group(Lowering *l, const Group *group, Chain *chain)
{
    Call call;
    describe_call(l->graph, group, RESERVED_CUDA_SIZES, &call);
    bool folds = group->anchor->op == OP_FOLD_WEIGHT || group->anchor->op == OP_FOLD_BIAS;
    if (!folds && chain->n_calls && chain->channels == call.sizes[0]
        && chain->group->once == group->once && has_room(chain, &call)
        && keeps_apart(chain, &call)) {
        chain->calls[chain->n_calls++] = call;
        return;
    }
    flush_chain(l, chain);
    begin_chain(chain, group, &call, label_of(l->graph, group, ""), false);
    if (folds)
        flush_chain(l, chain);
}

/* Adds up the partial sums of a reduction. */
static void lower_finish(Lowering *l, const CudaCall *cuda, const Group *group,
                         const Node *reduction, PlanBuffer partials, Chain *chain)
{
    Call finish;
    flush_chain(l, chain);
    describe_finish(l->graph, reduction, cuda->call.parts, partials, &finish);
    begin_chain(chain, group, &finish, finish_label(l->graph, reduction), true);
    if (strcmp(finish.template, "finish_sum.cu") == 0)
        flush_chain(l, chain);
}

/* ---- one group ------------------------------------------------------------------------------- */

static void lower_pack(Lowering *l, const Group *group, const ConvCudaLowering *conv)
{
    Call call = { .template = "conv_pack.cu", .defines = "", .n_sizes = conv->n_pack_sizes,
                  .n_buffers = 2,
                  .buffers = { node_buffer(group->anchor->inputs[1]),
                               temporary_buffer(&group->temporaries[TEMPORARY_PACKED]) } };
    memcpy(call.sizes, conv->pack_sizes, (size_t)conv->n_pack_sizes * sizeof *call.sizes);
    PlanStep *step = add_plain(l, &call, &conv->pack);
    step->once = l->graph->program != PROGRAM_TRAIN || update_packs(l->graph, group);
    step->label = label_of(l->graph, group, " pack");
}

static void lower_splits(Lowering *l, const Group *group, const ConvCudaLowering *conv)
{
    Call call = { .template = conv->finish_template, .defines = "",
                  .n_sizes = conv->n_finish_sizes, .n_buffers = 2,
                  .buffers = { temporary_buffer(&group->temporaries[TEMPORARY_WORKSPACE]),
                               node_buffer(group->anchor) } };
    memcpy(call.sizes, conv->finish_sizes, (size_t)conv->n_finish_sizes * sizeof *call.sizes);
    add_plain(l, &call, &conv->finish)->label = label_of(l->graph, group, " finish");
}

static void own_conv_buffers(const Group *group, CudaCall *cuda)
{
    const Temporary *t = group->temporaries;
    Call *call = &cuda->call;
    if (group->anchor->op != OP_CONV_GRAD_WEIGHT)
        call->buffers[call->n_buffers++] = t[TEMPORARY_PACKED].bytes
                                         ? temporary_buffer(&t[TEMPORARY_PACKED])
                                         : node_buffer(group->anchor->inputs[1]);
    else
        call->buffers[call->n_buffers++] = t[TEMPORARY_WORKSPACE].bytes
                                         ? temporary_buffer(&t[TEMPORARY_WORKSPACE])
                                         : node_buffer(group->anchor);
}

static void emit_functions(Emission *e, const PlanBuffer *partials, bool writes)
{
    Node *anchor = e->group->anchor;
    if (!node_pointwise(anchor) && !node_reduces_batch(anchor))
        for (int i = 0; i < anchor->n_inputs; i++)
            if (anchor->inputs[i]->shape.batched)
                emit_cuda_read(e, operand_name(e->graph->arena, anchor, i), anchor->inputs[i]);
    if (writes)
        emit_cuda_write(e, partials);
    emit_width(e);
}

static void lower_group(Lowering *l, Group *group, Chain *chain)
{
    CudaCall cuda;
    PlanBuffer partials[MAX_REDUCTIONS];
    if (op_facts[group->anchor->op].kind == KIND_SMALL) {
        lower_small_group(l, group, chain);
        return;
    }
    flush_chain(l, chain);
    if (is_matmul(l->graph, group)) {
        lower_matmul(l, group);
        return;
    }
    describe(l->graph, group, &cuda);
    if (is_conv(group->anchor)) {
        own_conv_buffers(group, &cuda);
        if (cuda.conv.packed_bytes)
            lower_pack(l, group, &cuda.conv);
    }
    if (cuda.sample_bytes)
        cuda.call.buffers[cuda.call.n_buffers++] =
            temporary_buffer(&group->temporaries[TEMPORARY_SAMPLES]);
    Node *const *reductions;
    int n = group_reductions(group, &reductions);
    for (int r = 0; r < n; r++)
        partials[r] = temporary_buffer(&group->temporaries[TEMPORARY_PARTIALS + r]);
    Emission e = begin_emission(l, group, &cuda.call, &cuda_dialect);
    emit_functions(&e, partials, cuda.call.writes);
    const char *header = header_of(l->graph, group);
    if (cuda.sample_bytes) {
        PlanStep *first = add_launches(l, &e, cuda.call.template, &cuda.first, 1, header);
        fill_call_step(l, first, &e);
    }
    PlanStep *step = add_launches(l, &e, cuda.call.template, cuda.launches, cuda.n_launches, header);
    fill_call_step(l, step, &e);
    if (cuda.conv.workspace_bytes)
        lower_splits(l, group, &cuda.conv);
    for (int r = 0; r < n; r++)
        lower_finish(l, &cuda, group, reductions[r], partials[r], chain);
}

void cuda_lower(Graph *graph, Plan *plan, PlanTarget *target)
{
    Lowering l = lower_begin(graph, plan, target);
    Chain chain = { 0 };
    for (int i = 0; i < graph->n_groups; i++)
        if (graph->groups[i]->once)
            lower_group(&l, graph->groups[i], &chain);
    flush_chain(&l, &chain);
    for (int i = 0; i < graph->n_groups; i++)
        if (!graph->groups[i]->once)
            lower_group(&l, graph->groups[i], &chain);
    flush_chain(&l, &chain);
    if (graph->program == PROGRAM_TRAIN)
        lower_update_cuda(&l);
}
