/* The functions around a host kernel's rows, as C text:
 *
 *     read_x    count pixels of one channel block of an operand, through all that was inlined in it
 *     write_y   count pixels of the anchor's result through the epilogue into memory, and into sums
 *     finish_y  the partial sums of one part of a sample
 *
 * A row lies in consecutive vectors of 16 channels; the loop over its pixels is generated too, so
 * that the compiler sees all of it.
 */
#include "emit.h"

/* ---- loads ----------------------------------------------------------------------------------- */

static const char *element_name(const Node *node)
{
    return node->element == TYPE_U8 ? "uint8_t" : node->element == TYPE_BF16 ? "bf16" : "float";
}

/* Behind load16 and store16 of a blocked tensor's elements. */
static const char *element_suffix(const Node *node)
{
    return node->element == TYPE_BF16 ? "_bf16" : "";
}

/* `const float *pK` to a batched tensor's element (n, block, h, w) of the row; K is returned. */
static int leaf_pointer(Row *row, const Node *node, Place at)
{
    Emission *e = row->e;
    int buffer = emission_buffer(e, node_buffer(node));
    int k = row->counter++;
    const char *type = element_name(node);
    bool one_pixel = at.one_pixel || (node->shape.dims[1] == 1 && node->shape.dims[2] == 1);
    int size = emission_size(e, node->block ? channel_blocks(e, node) : node->shape.dims[0]);
    text_printf(&row->before, "%sconst int64_t c%d = a->sizes[%d];\n", row->indent, k, size);
    if (one_pixel) {
        text_printf(&row->before, node->block
                    ? "%sconst %s *p%d = (const %s *)a->buffers[%d] + (n * c%d + %s) * 16;\n"
                    : "%sconst %s *p%d = (const %s *)a->buffers[%d] + n * c%d + 16 * %s;\n",
                    row->indent, type, k, type, buffer, k, at.block);
        return k;
    }
    int height = emission_size(e, node->shape.dims[1]);
    int width = emission_size(e, node->shape.dims[2]);
    text_printf(&row->before, "%sconst int64_t h%d = a->sizes[%d], w%d = a->sizes[%d];\n",
                row->indent, k, height, k, width);
    if (node->block)
        text_printf(&row->before, "%sconst %s *p%d = (const %s *)a->buffers[%d]\n"
                    "%s    + (((n * c%d + %s) * h%d + h) * w%d + w) * 16;\n", row->indent, type, k,
                    type, buffer, row->indent, k, at.block, k, k);
    else
        text_printf(&row->before, "%sconst %s *p%d = (const %s *)a->buffers[%d]\n"
                    "%s    + ((n * c%d + 16 * %s) * h%d + h) * w%d + w;\n", row->indent, type, k,
                    type, buffer, row->indent, k, at.block, k, k);
    return k;
}

static Value load_leaf(Row *row, Node *node, Place at)
{
    bool one_pixel = at.one_pixel || (node->shape.dims[1] == 1 && node->shape.dims[2] == 1);
    int k = leaf_pointer(row, node, at);
    Value value = new_value(row, one_pixel);
    Text *text = one_pixel ? &row->before : &row->inside;
    const char *i = one_pixel ? "0" : "i", *kind = node->type == TYPE_U8 ? "u8" : "f32";
    if (node->block) {
        text_printf(text, "load16%s(p%d + 16 * %s);\n", element_suffix(node), k, i);
        return value;
    }
    text_printf(text, "load_plain_%s(p%d + %s, ", kind, k, i);
    if (one_pixel)
        text_printf(text, "1, ");
    else
        text_printf(text, "h%d * w%d, ", k, k);
    if (node->shape.dims[0] < PLAN_BLOCK / 2)
        text_printf(text, "%d);\n", (int)node->shape.dims[0]);
    else
        text_printf(text, "min64(16, c%d - 16 * %s));\n", k, at.block);
    return value;
}

const Dialect host_dialect = { load_leaf, " + i", "    " };

/* Of a map of one channel, sixteen pixels along the row instead of sixteen channels. */
static Value load_along(Row *row, Node *node, Place at)
{
    bool one_pixel = at.one_pixel || (node->shape.dims[1] == 1 && node->shape.dims[2] == 1);
    int k = leaf_pointer(row, node, at);
    Value value = new_value(row, one_pixel);
    const char *kind = node->type == TYPE_U8 ? "u8" : "f32";
    if (one_pixel)
        text_printf(&row->before, "splat16((float)p%d[0]);\n", k);
    else
        text_printf(&row->inside, "load_along_%s(p%d + i, some);\n", kind, k);
    return value;
}

static const Dialect along_dialect = { load_along, " + i", "    " };

/* Whether a value can be computed so. */
static bool runs_along(const Group *group, const Node *node)
{
    if (node->op == OP_CONSTANT)
        return true;
    if (!node->shape.batched)
        return node->stored && shape_count(node->shape) == 1;
    if (node->shape.dims[0] != 1 || node->block)
        return false;
    if (node == group->anchor && !node_pointwise(node))
        return !has_bias(node) || shape_count(node->inputs[2]->shape) == 1;
    if (node->stored && node != group->root)
        return true;
    if (node->op == OP_CONCAT || node->op == OP_SLICE || node->op == OP_DROPOUT
        || node->op == OP_ONE_HOT || node->op == OP_AFFINE || node->op == OP_COMBINE)
        return false;
    for (int i = 0; i < node->n_inputs; i++)
        if (!runs_along(group, node->inputs[i]))
            return false;
    return true;
}

/* Whether a group's whole row can: it is of pixels, and of numbers or sums of one channel. */
static bool group_runs_along(const Group *group)
{
    int n;
    Node *const *reductions = sums_of(group, &n);
    bool sum_only = node_reduces_batch(group->anchor);
    const Node *map = sum_only ? reductions[0]->inputs[0] : group->root;
    if (!map->shape.batched || map->shape.dims[2] == 1 || (!sum_only && !runs_along(group, map)))
        return false;
    for (int r = 0; r < n; r++)
        if (reductions[r]->op == OP_BATCH_MOMENTS || reductions[r]->op == OP_BATCH_NORM_SUMS
            || !runs_along(group, reductions[r]->inputs[0]))
            return false;
    return true;
}

bool host_reads_dense(const Group *group, const Node *node)
{
    return (node->stored && !node->block) || runs_along(group, node);
}

/* What comes from planes and goes into planes as it is, or can be computed so. */
bool host_writes_dense(const Group *group)
{
    const Node *anchor = group->anchor;
    if (anchor->op != OP_CONCAT)
        return group_runs_along(group);
    bool dense = group->root == anchor && !anchor->block && group->n_reductions == 0;
    for (int i = 0; i < anchor->n_inputs; i++)
        dense = dense && anchor->inputs[i]->shape.batched
                && host_reads_dense(group, anchor->inputs[i]);
    return dense;
}

/* ---- read ------------------------------------------------------------------------------------ */

static void masked(Text *text, const Node *node, const char *value)
{
    if (node->shape.dims[0] % PLAN_BLOCK)
        text_printf(text, "keep16(lanes, %s)", value);
    else
        text_printf(text, "%s", value);
}

static void declare_lanes(Row *row, const Node *node)
{
    if (node->shape.dims[0] % PLAN_BLOCK)
        text_printf(&row->before, "%sconst v16i lanes = channel_mask16(a->sizes[%d], cb);\n",
                    row->indent, emission_size(row->e, node->shape.dims[0]));
}

static void read_body(Row *row, void *context)
{
    Node *node = context;
    Place here = { "cb", false };
    if (node->stored && node->block) { /* as it lies in memory */
        int k = leaf_pointer(row, node, here);
        if (node->element == TYPE_BF16)
            text_printf(&row->inside, "%swiden_bf16(p%d, count, out);\n", row->indent, k);
        else
            text_printf(&row->inside, "%smemcpy(out, p%d, (size_t)count * 16 * sizeof *out);\n",
                        row->indent, k);
        return;
    }
    if (!node->stored)
        declare_lanes(row, node);
    text_printf(&row->inside, "%sfor (int64_t i = 0; i < count; i++) {\n", row->indent);
    Value value = row_value(row, node, here);
    text_printf(&row->inside, "%s    store16(out + 16 * i, ", row->indent);
    if (node->stored)
        text_printf(&row->inside, "%s", value.name);
    else
        masked(&row->inside, node, value.name);
    text_printf(&row->inside, ");\n%s}\n", row->indent);
}

/* A row of channel cb of planes, or of an expression of one channel. */
static void read_dense_body(Row *row, void *context)
{
    Node *node = context;
    if (node->stored) {
        int k = leaf_pointer(row, node, (Place){ "0", false });
        bool one_pixel = node->shape.dims[1] == 1 && node->shape.dims[2] == 1;
        if (one_pixel)
            text_printf(&row->inside, "%sout[0] = (float)p%d[cb];\n", row->indent, k);
        else
            text_printf(&row->inside, "%1$sfor (int64_t i = 0; i < count; i++)\n"
                        "%1$s    out[i] = (float)p%2$d[cb * h%2$d * w%2$d + i];\n", row->indent, k);
        return;
    }
    text_printf(&row->inside, "%1$sfor (int64_t i = 0; i < count; i += 16) {\n"
                "%1$s    const int64_t some = min64(16, count - i);\n", row->indent);
    Value value = row_value(row, node, (Place){ "cb", false });
    text_printf(&row->inside, "%1$s    store_along_f32(out + i, some, %2$s);\n%1$s}\n",
                row->indent, value.name);
}

void emit_host_read(Emission *e, const char *name, Node *node)
{
    const Dialect *dialect = e->dialect;
    e->dialect = e->dense_x ? &along_dialect : dialect;
    text_printf(&e->text, "INLINE void read_%s(const KernelArguments *a, int64_t n, int64_t cb,\n"
                "                   int64_t h, int64_t w, int64_t count, float *restrict out)\n"
                "{\n    (void)n; (void)h; (void)w;\n", name);
    if (!node->stored)
        emission_name(e, name);
    emit_rows(e, e->dense_x ? read_dense_body : read_body, node, NULL, "    ");
    text_printf(&e->text, "}\n\n");
    e->dialect = dialect;
}

/* ---- write ----------------------------------------------------------------------------------- */

static void store_root(Row *row, Node *root, const char *value)
{
    Text *in = &row->inside;
    if (!root->shape.batched) {
        int buffer = emission_buffer(row->e, node_buffer(root));
        if (shape_count(root->shape) == 1)
            text_printf(in, "%s    *(float *)a->buffers[%d] = %s[0];\n", row->indent, buffer,
                        value);
        else
            text_printf(in, "%s    store16((float *)a->buffers[%d] + 16 * cb, %s);\n", row->indent,
                        buffer, value);
        return;
    }
    int k = leaf_pointer(row, root, (Place){ "cb", false });
    if (row->e->dialect == &along_dialect) {
        text_printf(in, "%s    store_along_f32((float *)p%d + i, some, %s);\n", row->indent, k,
                    value);
        return;
    }
    if (root->block) {
        text_printf(in, "%s    store16%s((%s *)p%d + 16 * i, ", row->indent, element_suffix(root),
                    element_name(root), k);
        masked(in, root, value);
        text_printf(in, ");\n");
        return;
    }
    bool one_pixel = root->shape.dims[1] == 1 && root->shape.dims[2] == 1;
    const char *stride = one_pixel ? "1"
                                   : arena_printf(row->e->graph->arena, "(h%1$d * w%1$d)", k);
    if (root->shape.dims[0] < PLAN_BLOCK / 2) {
        for (int c = 0; c < root->shape.dims[0]; c++)
            text_printf(in, "%s    ((float *)p%d)[i + %d * %s] = %s[%d];\n", row->indent, k, c,
                        stride, value, c);
        return;
    }
    text_printf(in, "%s    for (int64_t c = 0; c < min64(16, c%d - 16 * cb); c++)\n"
                "%s        ((float *)p%d)[i + c * %s] = %s[c];\n", row->indent, k, row->indent, k,
                stride, value);
}

/* Local sums of one reduction, along a row. */
static void accumulate(Row *row, Node *reduction, int first)
{
    Place here = { "cb", false };
    const char *indent = row->indent;
    Value x = row_value(row, reduction->inputs[0], here);
    if (reduction->op == OP_BATCH_NORM_SUMS) {
        Value y = row_value(row, reduction->inputs[1], here);
        Value mean = coefficient(row, reduction->inputs[2], 0, here);
        text_printf(&row->before, "%sv16 sum%d = {0}, sum%d = {0};\n", indent, first, first + 1);
        text_printf(&row->inside, "%s    sum%d += %s;\n%s    sum%d += %s * (%s - %s);\n", indent,
                    first, x.name, indent, first + 1, x.name, y.name, mean.name);
        return;
    }
    if (reduction->op == OP_GLOBAL_MAX_POOL) {
        text_printf(&row->before, "%sv16 sum%d = splat16(-(float)INFINITY);\n", indent, first);
        text_printf(&row->inside, "%1$s    sum%2$d = max16(sum%2$d, %3$s);\n", indent, first,
                    x.name);
        return;
    }
    text_printf(&row->before, "%sv16 sum%d = {0};\n", indent, first);
    text_printf(&row->inside, row->e->dialect == &along_dialect
                ? "%s    sum%d += keep16(mask16(some), %s);\n" : "%s    sum%d += %s;\n", indent,
                first, x.name);
}

/* A row's mean and squared deviations join those of the rows before (Chan, Golub, LeVeque 1979). */
static void merge_moments(Row *row, Node *reduction, int first)
{
    Row again;
    begin_row(&again, row->e, row->choices, row->indent);
    again.counter = row->counter;
    const char *in = row->indent;
    text_printf(&again.before,
                "%sconst v16 mean%d = sum%d / (float)count;\n%sv16 square%d = {0};\n", in, first,
                first, in, first);
    text_printf(&again.inside, "%sfor (int64_t i = 0; i < count; i++) {\n", in);
    Value x = row_value(&again, reduction->inputs[0], (Place){ "cb", false });
    text_printf(&again.inside,
                "%s    const v16 d = %s - mean%d;\n%s    square%d += d * d;\n%s}\n", in, x.name,
                first, in, first, in);
    text_printf(&again.inside,
                "%1$sconst v16 before%2$d = accumulators[%2$d];\n"
                "%1$sconst v16 total%2$d = before%2$d + (float)count;\n"
                "%1$sconst v16 shift%2$d = mean%2$d - accumulators[%2$d + 1];\n"
                "%1$saccumulators[%2$d] = total%2$d;\n"
                "%1$saccumulators[%2$d + 1] += shift%2$d * ((float)count / total%2$d);\n"
                "%1$saccumulators[%2$d + 2] += square%2$d + shift%2$d * shift%2$d\n"
                "%1$s    * (before%2$d * (float)count / total%2$d);\n", in, first);
    text_printf(&row->inside, "%.*s%.*s", (int)again.before.length, again.before.text,
                (int)again.inside.length, again.inside.text);
    row->counter = again.counter;
    if (!row->pending) {
        row->pending = again.pending;
        row->pending_block = again.pending_block;
    }
}

/* The second accumulator says whether the first has a value yet. */
static void merge_largest(Row *row, int first)
{
    text_printf(&row->inside,
                "%1$ssum%2$d = max16(sum%2$d, select16(less16(splat16(0), accumulators[%3$d]),\n"
                "%1$s                              accumulators[%2$d], sum%2$d));\n"
                "%1$saccumulators[%2$d] = sum%2$d;\n"
                "%1$saccumulators[%3$d] = splat16(1);\n", row->indent, first, first + 1);
}

static void close_reductions(Row *row, Node *const *reductions, int n)
{
    int first = 0;
    for (int r = 0; r < n; r++) {
        if (reductions[r]->op == OP_BATCH_MOMENTS)
            merge_moments(row, reductions[r], first);
        else if (reductions[r]->op == OP_GLOBAL_MAX_POOL)
            merge_largest(row, first);
        else
            for (int k = 0; k < accumulators_of(reductions[r]); k++)
                text_printf(&row->inside, row->e->dialect == &along_dialect
                            ? "%saccumulators[%d] += (v16){sum16(sum%d)};\n"
                            : "%saccumulators[%d] += sum%d;\n", row->indent, first + k, first + k);
        first += accumulators_of(reductions[r]);
    }
}

/* The anchor's raw value, with its bias. */
static void take_raw_value(Row *row, const Node *anchor, Place here)
{
    Value bias = { "", true };
    if (has_bias(anchor))
        bias = fixed_leaf(row, anchor->inputs[2], here);
    Value raw = new_value(row, false);
    text_printf(&row->inside, row->e->dialect != &along_dialect ? "load16(in + 16 * i)%s%s;\n"
                : row->e->dense_y ? "load_along_f32(in + i, some)%s%s;\n"
                : "first_lanes16(in + 16 * i, some)%s%s;\n",
                has_bias(anchor) ? " + " : "", bias.name);
    remember(row, anchor, here, raw);
}

/* Sums are of what is stored, which in bf16 is not what was computed. */
static Value as_stored(Row *row, Node *root, Value value, Place here)
{
    if (!root->block || root->element != TYPE_BF16)
        return value;
    Value rounded = new_value(row, false);
    text_printf(&row->inside, "rounded16(%s);\n", value.name);
    return remember(row, root, here, rounded);
}

static void write_body(Row *row, void *context)
{
    Group *group = context;
    Place here = { "cb", false };
    bool sum_only = node_reduces_batch(group->anchor);
    int n_reductions, first = 0;
    Node *const *reductions = sums_of(group, &n_reductions);
    Value value = { "", false };
    if (!sum_only && group->root->shape.batched && group->root->block)
        declare_lanes(row, group->root);
    if (row->e->dialect == &along_dialect)
        text_printf(&row->inside, "%1$sfor (int64_t i = 0; i < count; i += 16) {\n"
                    "%1$s    const int64_t some = min64(16, count - i);\n", row->indent);
    else
        text_printf(&row->inside, "%sfor (int64_t i = 0; i < count; i++) {\n", row->indent);
    if (!sum_only && !node_pointwise(group->anchor))
        take_raw_value(row, group->anchor, here);
    if (!sum_only)
        value = root_value(row, group->root, here);
    if (!sum_only && n_reductions)
        value = as_stored(row, group->root, value, here);
    for (int r = 0; r < n_reductions; r++) {
        accumulate(row, reductions[r], first);
        first += accumulators_of(reductions[r]);
    }
    if (!sum_only) /* last: it may lie over an operand */
        store_root(row, group->root, value.name);
    text_printf(&row->inside, "%s}\n", row->indent);
    close_reductions(row, reductions, n_reductions);
}

/* A row of channel cb into its plane. */
static void write_plane_body(Row *row, void *context)
{
    Group *group = context;
    int k = leaf_pointer(row, group->root, (Place){ "0", false });
    bool one_pixel = group->root->shape.dims[1] == 1 && group->root->shape.dims[2] == 1;
    const char *stride = one_pixel ? ""
                                   : arena_printf(row->e->graph->arena, " * h%1$d * w%1$d", k);
    text_printf(&row->inside, "%smemcpy((float *)p%d + cb%s, in, (size_t)count * 4);\n",
                row->indent, k, stride);
}

static void emit_finish(Emission *e, Group *group, const PlanBuffer *partials)
{
    int n, first = 0;
    Node *const *reductions = sums_of(group, &n);
    text_printf(&e->text,
                "INLINE void finish_y(const KernelArguments *a, int64_t n, int64_t part,\n"
                "                     int64_t cb, v16 *accumulators)\n{\n"
                "    (void)a; (void)n; (void)part; (void)cb; (void)accumulators;\n");
    for (int r = 0; r < n; r++) {
        int rows = accumulators_of(reductions[r]), buffer = emission_buffer(e, partials[r]);
        int parts = emission_size(e, e->parts);
        int blocks = emission_size(e, channel_blocks(e, reductions[r]->inputs[0]));
        text_printf(&e->text,
                    "    for (int64_t k = 0; k < %1$d; k++)\n"
                    "        store16((float *)a->buffers[%2$d]\n"
                    "            + 16 * (((n * a->sizes[%3$d] + part) * %1$d + k)"
                    " * a->sizes[%4$d] + cb),\n"
                    "            accumulators[%5$d + k]);\n", rows, buffer, parts, blocks, first);
        first += rows;
    }
    text_printf(&e->text, "}\n\n");
}

void emit_host_write(Emission *e, const PlanBuffer *partials)
{
    Group *group = e->group;
    text_printf(&e->text, "enum { ACCUMULATORS = %d };\n", count_accumulators(group));
    text_printf(&e->text, "INLINE void write_y(const KernelArguments *a, int64_t n, int64_t cb,\n"
                "                    int64_t h, int64_t w, int64_t count,\n"
                "                    const float *restrict in, v16 *accumulators)\n{\n"
                "    (void)n; (void)h; (void)w; (void)in; (void)accumulators;\n");
    text_printf(&e->name, "_to");
    const Dialect *dialect = e->dialect;
    if (group_runs_along(group))
        e->dialect = &along_dialect;
    bool plane = e->dense_y && group->anchor->op == OP_CONCAT;
    emit_rows(e, plane ? write_plane_body : write_body, group, NULL, "    ");
    e->dialect = dialect;
    for (int r = 0; r < group->n_reductions; r++)
        emission_name(e, op_facts[group->reductions[r]->op].name);
    text_printf(&e->text, "}\n\n");
    emit_finish(e, group, partials);
}
