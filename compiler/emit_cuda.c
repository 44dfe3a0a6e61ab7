/* The functions that a CUDA kernel's template calls for 8 channels of one pixel, as CUDA C text:
 *
 *     read_x     an operand's value, through all that was inlined in it; in two steps, if a
 *                template wants to load before it computes: see Direct, Fetch and Fetched in the
 *                prelude
 *     write_y    the anchor's result through the epilogue into memory, and into the thread's sums
 *     merge_y    adds up the sums of two threads
 *     finish_y   stores those of a whole part
 *
 * Which pixels a thread does, and whom it adds up with, is the template's business: see
 * kernels/cuda/rows.h. Moments are updated element by element (Welford 1962) and merged as Chan,
 * Golub and LeVeque do (1979), so that no difference of large sums is taken.
 */
#include "emit.h"

/* ---- loads ----------------------------------------------------------------------------------- */

static const char *element_type(const Node *node)
{
    return node->element == TYPE_U8 ? "uint8_t" : node->element == TYPE_BF16 ? "bf16" : "float";
}

static bool is_one_pixel(const Node *node, Place at)
{
    return at.one_pixel || (node->shape.dims[1] == 1 && node->shape.dims[2] == 1);
}

/* `pK` points to a batched tensor's element (n, block, h, w), `cK` is its channels (rounded up, if
 * it is blocked); K is returned. Planes of a plain tensor are `planeK` apart. */
static int leaf_pointer(Row *row, const Node *node, Place at)
{
    Emission *e = row->e;
    Text *text = &row->before;
    const char *in = row->indent, *type = element_type(node);
    int buffer = emission_buffer(e, node_buffer(node)), k = row->counter++;
    int64_t channels = node->block ? channel_blocks(e, node) * node->block : node->shape.dims[0];
    text_printf(text, "%sconst int c%d = a->sizes[%d];\n", in, k, emission_size(e, channels));
    if (is_one_pixel(node, at)) {
        text_printf(text, "%s%s *p%d = (%s *)a->buffers[%d] + (int64_t)n * c%d + 8 * %s;\n", in,
                    type, k, type, buffer, k, at.block);
        if (!node->block)
            text_printf(text, "%sconst int64_t plane%d = 1;\n", in, k);
        return k;
    }
    int height = emission_size(e, node->shape.dims[1]);
    int width = emission_size(e, node->shape.dims[2]);
    if (node->block) {
        text_printf(text, "%s%s *p%d = (%s *)a->buffers[%d] + (((int64_t)n * a->sizes[%d] + h)\n"
                    "%s    * a->sizes[%d] + w) * c%d + 8 * %s;\n", in, type, k, type, buffer,
                    height, in, width, k, at.block);
        return k;
    }
    text_printf(text, "%sconst int64_t plane%d = (int64_t)a->sizes[%d] * a->sizes[%d];\n"
                "%s%s *p%d = (%s *)a->buffers[%d] + ((int64_t)n * c%d + 8 * %s) * plane%d\n"
                "%s    + h * a->sizes[%d] + w;\n", in, k, height, width, in, type, k, type, buffer,
                k, at.block, k, in, width);
    return k;
}

/* How many of a plain tensor's channels lie in the block. */
static const char *plain_channels(Row *row, const Node *node, int k, Place at)
{
    if (node->shape.dims[0] < 8)
        return arena_printf(row->e->graph->arena, "%d", (int)node->shape.dims[0]);
    return arena_printf(row->e->graph->arena, "least(8, c%d - 8 * (int)%s)", k, at.block);
}

static Value load_leaf(Row *row, Node *node, Place at)
{
    int k = leaf_pointer(row, node, at);
    Value value = new_value(row, true);
    const char *blocked = "load8(", *plain = "load_plain8(";
    if (row->e->reads) {
        blocked = arena_printf(row->e->graph->arena, "source.load(%d, ", row->words);
        plain = arena_printf(row->e->graph->arena, "source.load_plain(%d, ", row->words);
        row->words += node->element == TYPE_BF16 ? 1 : 2;
        row->e->words = row->words > row->e->words ? row->words : row->e->words;
    }
    if (node->block)
        text_printf(&row->before, "%sp%d);\n", blocked, k);
    else
        text_printf(&row->before, "%sp%d, plane%d, %s);\n", plain, k, k,
                    plain_channels(row, node, k, at));
    return value;
}

const Dialect cuda_dialect = { load_leaf, "", "" };

/* ---- read ------------------------------------------------------------------------------------ */

static void declare_lanes(Row *row, const Node *node)
{
    if (node->shape.dims[0] % 8)
        text_printf(&row->before, "%sconst m8 lanes = channel_mask8(a->sizes[%d], cb);\n",
                    row->indent, emission_size(row->e, node->shape.dims[0]));
}

/* Zeros behind the last channel. */
static const char *masked(Row *row, const Node *node, const char *value)
{
    if (node->shape.dims[0] % 8 == 0)
        return value;
    return arena_printf(row->e->graph->arena, "keep8(lanes, %s)", value);
}

static void read_body(Row *row, void *context)
{
    Node *node = context;
    if (!node->stored)
        declare_lanes(row, node);
    Value value = row_value(row, node, (Place){ "cb", false });
    text_printf(&row->inside, "%sreturn %s;\n", row->indent,
                node->stored ? value.name : masked(row, node, value.name));
}

void emit_cuda_read(Emission *e, const char *name, Node *node)
{
    text_printf(&e->text, "template <class Source>\nDEVICE v8 read_%s(const Arguments *a, int n, "
                "int cb, int h, int w, const Source &source)\n{\n", name);
    if (!node->stored)
        emission_name(e, name);
    e->words = 1;
    e->reads = true;
    emit_rows(e, read_body, node, NULL, "    ");
    e->reads = false;
    text_printf(&e->text, "}\nDEVICE v8 read_%s(const Arguments *a, int n, int cb, int h, int w)\n"
                "{\n    return read_%s(a, n, cb, h, w, Direct());\n}\n"
                "enum { words_of_%s = %d };\n\n", name, name, name, e->words);
}

/* ---- write ----------------------------------------------------------------------------------- */

static void store_root(Row *row, Node *root, const char *value)
{
    Text *in = &row->inside;
    if (!root->shape.batched) {
        int buffer = emission_buffer(row->e, node_buffer(root));
        if (shape_count(root->shape) == 1)
            text_printf(in, "%sstore_global((float *)a->buffers[%d], %s[0]);\n", row->indent,
                        buffer, value);
        else
            text_printf(in, "%sstore8((float *)a->buffers[%d] + 8 * cb, %s);\n", row->indent,
                        buffer, value);
        return;
    }
    Place here = { "cb", false };
    int k = leaf_pointer(row, root, here);
    if (root->block)
        text_printf(in, "%sstore8(p%d, %s);\n", row->indent, k, masked(row, root, value));
    else
        text_printf(in, "%sstore_plain8(p%d, plane%d, %s, %s);\n", row->indent, k, k,
                    plain_channels(row, root, k, here), value);
}

static void accumulate(Row *row, Node *reduction, int first)
{
    Place here = { "cb", false };
    Value x = row_value(row, reduction->inputs[0], here);
    Text *text = &row->inside;
    const char *in = row->indent;
    if (reduction->op == OP_BATCH_NORM_SUMS) {
        Value y = row_value(row, reduction->inputs[1], here);
        Value mean = coefficient(row, reduction->inputs[2], 0, here);
        text_printf(text, "%ssums->value[%d] += %s;\n%ssums->value[%d] += %s * (%s - %s);\n", in,
                    first, x.name, in, first + 1, x.name, y.name, mean.name);
    } else if (reduction->op == OP_BATCH_MOMENTS) {
        text_printf(text, "%sadd_moments(sums->value + %d, %s);\n", in, first, x.name);
    } else {
        text_printf(text, "%ssums->value[%d] += %s;\n", in, first, x.name);
    }
}

/* The anchor's raw value, with its bias. */
static void take_raw_value(Row *row, const Node *anchor, Place here)
{
    Value bias = { "", true };
    if (has_bias(anchor))
        bias = fixed_leaf(row, anchor->inputs[2], here);
    Value raw = new_value(row, false);
    text_printf(&row->inside, "in%s%s;\n", has_bias(anchor) ? " + " : "", bias.name);
    remember(row, anchor, here, raw);
}

/* Sums are of what is stored, which in bf16 is not what was computed. */
static Value as_stored(Row *row, Node *root, Value value, Place here)
{
    if (!root->block || root->element != TYPE_BF16)
        return value;
    Value rounded = new_value(row, false);
    text_printf(&row->inside, "rounded8((const bf16 *)0, %s);\n", value.name);
    return remember(row, root, here, rounded);
}

static void write_body(Row *row, void *context)
{
    Group *group = context;
    Place here = { "cb", false };
    bool sum_only = node_reduces_batch(group->anchor);
    int n, first = 0;
    Node *const *sums = sums_of(group, &n);
    Value value = { "", false };
    if (!sum_only && group->root->shape.batched)
        declare_lanes(row, group->root);
    if (!sum_only && !node_pointwise(group->anchor))
        take_raw_value(row, group->anchor, here);
    if (!sum_only)
        value = root_value(row, group->root, here);
    if (!sum_only && n)
        value = as_stored(row, group->root, value, here);
    for (int r = 0; r < n; r++) {
        accumulate(row, sums[r], first);
        first += accumulators_of(sums[r]);
    }
    if (!sum_only) /* last: it may lie over an operand */
        store_root(row, group->root, value.name);
}

static void emit_merge(Emission *e, const Group *group)
{
    int n, first = 0;
    Node *const *sums = sums_of(group, &n);
    text_printf(&e->text, "DEVICE void merge_y(Accumulators *into, const Accumulators *from)\n{\n");
    for (int r = 0; r < n; r++) {
        int rows = accumulators_of(sums[r]);
        if (sums[r]->op == OP_BATCH_MOMENTS)
            text_printf(&e->text, "    merge_moments(into->value + %d, from->value + %d);\n", first,
                        first);
        else
            for (int k = 0; k < rows; k++)
                text_printf(&e->text, "    into->value[%d] += from->value[%d];\n", first + k,
                            first + k);
        first += rows;
    }
    text_printf(&e->text, "}\n\n");
}

/* Rows of partial sums are padded to PLAN_BLOCK channels. */
static void emit_finish(Emission *e, const Group *group, const PlanBuffer *partials)
{
    int n, first = 0;
    Node *const *sums = sums_of(group, &n);
    text_printf(&e->text, "DEVICE void finish_y(const Arguments *a, int n, int part, int cb,\n"
                "                     const Accumulators *sums)\n{\n");
    for (int r = 0; r < n; r++) {
        int rows = accumulators_of(sums[r]), buffer = emission_buffer(e, partials[r]);
        int64_t blocks = channel_blocks(e, sums[r]->inputs[0]);
        int parts = emission_size(e, e->parts), size = emission_size(e, blocks);
        text_printf(&e->text, "    store_partials<%d>((float *)a->buffers[%d], "
                    "(int64_t)n * a->sizes[%d] + part, a->sizes[%d], cb,\n"
                    "                      sums->value + %d);\n", rows, buffer, parts, size, first);
        first += rows;
    }
    text_printf(&e->text, "}\n\n");
}

void emit_cuda_write(Emission *e, const PlanBuffer *partials)
{
    Group *group = e->group;
    int count = count_accumulators(group);
    text_printf(&e->text, "#define HAS_WRITE\nenum { ACCUMULATORS = %d };\n"
                "struct Accumulators { v8 value[%d]; };\n"
                "DEVICE void clear_y(Accumulators *sums)\n{\n"
                "    UNROLL for (int k = 0; k < %d; k++)\n"
                "        sums->value[k] = splat8(0);\n}\n\n", count, count ? count : 1, count);
    text_printf(&e->text, "DEVICE void write_y(const Arguments *a, int n, int cb, int h, int w, "
                "v8 in,\n                    Accumulators *sums)\n{\n");
    text_printf(&e->name, "_to");
    emit_rows(e, write_body, group, NULL, "    ");
    for (int r = 0; r < group->n_reductions; r++)
        emission_name(e, op_facts[group->reductions[r]->op].name);
    text_printf(&e->text, "}\n\n");
    emit_merge(e, group);
    emit_finish(e, group, partials);
}
