/* Groups to steps: what is the same for every target.
 *
 * needs: place.
 * keeps: the graph. What goes out: the program's steps, tensors and sizes in the plan, and the
 *     kernels they call, each text once.
 * breaks: nothing.
 *
 * lower_host.c and lower_cuda.c say which template serves an operator, and how it is called.
 */
#include "lower.h"

#include <string.h>

#include "kernel_files.h"

const Target targets[] = {
    { "host", 16, TYPE_F32, false, true, "host", ".c", host_prelude, host_temporaries, host_lower },
    { "host-bf16", 16, TYPE_BF16, false, false, "host", ".c", host_prelude, host_temporaries,
      host_lower },
    { "cuda-fp32", 8, TYPE_F32, true, false, "cuda", ".cu", cuda_prelude, cuda_temporaries,
      cuda_lower },
    { "cuda-tf32", 8, TYPE_F32, true, false, "cuda", ".cu", cuda_prelude, cuda_temporaries,
      cuda_lower },
    { "cuda-bf16", 8, TYPE_BF16, true, false, "cuda", ".cu", cuda_prelude, cuda_temporaries,
      cuda_lower },
};
const int n_targets = sizeof targets / sizeof *targets;

/* ---- what is said of a group ----------------------------------------------------------------- */

bool is_conv(const Node *anchor)
{
    return anchor->op == OP_CONV || anchor->op == OP_CONV_TRANSPOSE
           || anchor->op == OP_CONV_GRAD_INPUT || anchor->op == OP_CONV_GRAD_WEIGHT;
}

ConvShape conv_shape(const Node *anchor)
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

/* Names of the operands in ops.def's column: the i-th word, without brackets and dots. */
const char *operand_name(Arena *arena, const Node *anchor, int index)
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

/* ---- partial sums ---------------------------------------------------------------------------- */

int partial_rows(const Node *reduction)
{
    bool two = reduction->op == OP_BATCH_NORM_SUMS || reduction->op == OP_GLOBAL_MAX_POOL;
    return reduction->op == OP_BATCH_MOMENTS ? 3 : two ? 2 : 1;
}

int group_reductions(const Group *group, Node *const **list)
{
    bool alone = node_reduces_batch(group->anchor);
    *list = alone ? &group->anchor : group->reductions;
    return alone ? 1 : group->n_reductions;
}

PlanBuffer temporary_buffer(const Temporary *t)
{
    return (PlanBuffer){ t->batched ? SLAB_ACTIVATIONS : SLAB_FIXED, t->offset,
                         (t->bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN };
}

/* ---- kernels --------------------------------------------------------------------------------- */

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

const char *template_text(const Lowering *l, const char *template)
{
    char name[80];
    snprintf(name, sizeof name, "%s/%s", l->graph->target->folder, template);
    const char *text = kernel_file(name);
    if (!text)
        bug("lower: no template compiler/kernels/%s", name);
    return text;
}

/* An array with room for one more; it has room for a power of two. */
void *lower_append(Arena *arena, void *array, int *n, size_t size)
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

int add_kernel(Lowering *l, const char *stem, const char *front, const char *template,
               const char *header)
{
    Arena *arena = l->graph->arena;
    uint64_t hash = hash_text(front) * 31 + hash_text(template);
    const char *name = arena_printf(arena, "%s_%08x", stem, (unsigned)(hash ^ hash >> 32));
    for (int i = 0; i < l->target->n_kernels; i++) {
        PlanKernel *kernel = &l->target->kernels[i];
        if (strcmp(kernel->name, name) != 0)
            continue;
        if (!ends_with(kernel->body, template) || !strstr(kernel->body, front))
            bug("lower: two kernels have the name %s", name);
        if (strlen(kernel->header) < 2000 && !strstr(kernel->header, header))
            kernel->header = (char *)arena_printf(arena, "%s%s", kernel->header, header);
        return i;
    }
    l->target->kernels = lower_append(arena, l->target->kernels, &l->target->n_kernels,
                                      sizeof(PlanKernel));
    l->target->kernels[l->target->n_kernels - 1] = (PlanKernel){
        .name = (char *)name, .header = (char *)header, .tail = template,
        .body = (char *)arena_printf(arena, "#define KERNEL %s\n%s%s", name, front, template),
    };
    return l->target->n_kernels - 1;
}

/* ---- steps ----------------------------------------------------------------------------------- */

PlanStep *add_step(Lowering *l, int kernel, const Group *group)
{
    PlanProgram *program = l->program;
    program->steps = lower_append(l->graph->arena, program->steps, &program->n_steps,
                                  sizeof(PlanStep));
    PlanStep *step = &program->steps[program->n_steps - 1];
    step->kernel = kernel;
    step->group = group ? group->id : -1;
    step->once = group && group->once;
    return step;
}

void *copied(Lowering *l, const void *data, size_t bytes)
{
    void *copy = arena_alloc(l->graph->arena, bytes + 1);
    return bytes ? memcpy(copy, data, bytes) : copy;
}

void fill_step(Lowering *l, PlanStep *step, const PlanBuffer *buffers, int n_buffers,
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
char *label_of(const Graph *graph, const Group *group, const char *what)
{
    const Node *anchor = group->anchor, *root = group->root, *named = anchor;
    const char *name = "";
    int length = 0;
    for (int i = 0; i < anchor->n_inputs; i++) {
        const Node *input = anchor->inputs[i];
        if (input->op == OP_FOLD_WEIGHT)
            input = input->inputs[0];
        if (input->op == OP_PARAMETER && !*name)
            name = input->name;
    }
    for (int i = 0; i < graph->n_results && !*name; i++)
        if (graph->results[i].role == ROLE_GRADIENT && graph->results[i].node == anchor)
            name = graph->results[i].name;
    const char *dot = strrchr(name, '.');
    length = dot ? (int)(dot - name) : (int)strlen(name);
    if (anchor->op == OP_CONV_GRAD_WEIGHT || anchor->op == OP_LINEAR_GRAD_WEIGHT)
        named = anchor->inputs[1];
    else if (!anchor->shape.batched && anchor->n_inputs)
        named = anchor->inputs[0];
    Text text = { .arena = graph->arena };
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
double group_flops(const Group *group)
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
const char *header_of(const Graph *graph, const Group *group)
{
    Text text = { .arena = graph->arena };
    say_operands(&text, graph, group->anchor, NULL);
    if (group->root != group->anchor)
        say_operands(&text, graph, group->root, group->anchor);
    for (int r = 0; r < group->n_reductions; r++)
        say_operands(&text, graph, group->reductions[r], group->root);
    return text.text;
}

/* ---- the program's tensors ------------------------------------------------------------------- */

static void add_tensor(Lowering *l, PlanRole role, const char *name, const Node *node)
{
    PlanProgram *program = l->program;
    program->tensors = lower_append(l->graph->arena, program->tensors, &program->n_tensors,
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

/* The graph as fuse, order and place left it. */
static void add_nodes(Lowering *l)
{
    const Graph *graph = l->graph;
    PlanProgram *program = l->program;
    int *index = arena_alloc(graph->arena, ((size_t)graph->next_id + 1) * sizeof *index);
    program->n_nodes = graph->n_nodes;
    program->nodes = arena_alloc(graph->arena, ((size_t)graph->n_nodes + 1) * sizeof(PlanNode));
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        PlanNode *into = &program->nodes[i];
        index[node->id] = i;
        into->line = (char *)node_text(graph, node);
        into->group = node->group ? node->group->id : -1;
        into->n_inputs = node->n_inputs;
        into->inputs = arena_alloc(graph->arena, ((size_t)node->n_inputs + 1) * sizeof(int));
        for (int k = 0; k < node->n_inputs; k++)
            into->inputs[k] = index[node->inputs[k]->id];
        if (node->stored)
            into->buffer = node_buffer(node);
    }
}

Lowering lower_begin(Graph *graph, Plan *plan, PlanTarget *target)
{
    static const char *const names[] = { "train", "evaluate", "predict" };
    Lowering l = { graph, plan, target, &target->programs[target->n_programs++] };
    l.program->name = (char *)names[graph->program];
    l.program->fixed_bytes = graph->fixed_bytes;
    l.program->sample_bytes = graph->activation_bytes;
    add_tensors(&l);
    add_nodes(&l);
    return l;
}
