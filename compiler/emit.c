/* The generated part of a kernel, as far as it is the same for every target.
 *
 * A template (kernels/) loops; what it reads and what becomes of its results is generated here from
 * the group's nodes, as C text. What a row computes for a pixel is written by emit_value.c; the
 * functions around rows by emit_host.c and emit_cuda.c. Which operand of a concatenation a block
 * comes from is decided once a row: the walk stops there, the text branches, and the walk begins
 * again in each branch with that choice made.
 *
 * Sizes and offsets are run-time arguments, so that equal patterns give equal text, built once.
 */
#include "emit.h"
#include "lower.h"

#include <stdio.h>
#include <string.h>

/* ---- rows with decisions --------------------------------------------------------------------- */

void begin_row(Row *row, Emission *e, const Choice *choices, const char *indent)
{
    *row = (Row){ .e = e, .choices = choices, .indent = indent };
    row->before.arena = row->inside.arena = e->graph->arena;
}

static void emit_slice(Emission *e, RowBody *body, void *context, Choice choice, const char *indent)
{
    int64_t first = (int64_t)choice.node->attr[ATTR_FROM] / e->graph->target->block;
    choice.operand_block = arena_printf(e->graph->arena, "x%d", choice.depth);
    text_printf(&e->text, "%sconst int64_t %s = %s + a->sizes[%d];\n", indent, choice.operand_block,
                choice.block, emission_size(e, first));
    emit_rows(e, body, context, &choice, indent);
}

/* A branch for each operand. */
static void emit_concat(Emission *e, RowBody *body, void *context, Choice choice,
                        const char *indent)
{
    const Node *concat = choice.node;
    const char *deeper = arena_printf(e->graph->arena, "%s    ", indent);
    int64_t start = 0;
    for (int k = 0; k < concat->n_inputs; k++) {
        int first = emission_size(e, start);
        start += channel_blocks(e, concat->inputs[k]);
        text_printf(&e->text, "%s", k ? " else " : indent);
        if (k + 1 < concat->n_inputs)
            text_printf(&e->text, "if (%s < a->sizes[%d]) ", choice.block, emission_size(e, start));
        choice.operand = k;
        choice.operand_block = arena_printf(e->graph->arena, "x%d", choice.depth);
        text_printf(&e->text, "{\n%sconst int64_t %s = %s - a->sizes[%d];\n", deeper,
                    choice.operand_block, choice.block, first);
        emit_rows(e, body, context, &choice, deeper);
        text_printf(&e->text, "%s}", indent);
    }
    text_printf(&e->text, "\n");
}

/* Where body meets a choice that is not made, what it wrote is forgotten. */
void emit_rows(Emission *e, RowBody *body, void *context, const Choice *choices,
                      const char *indent)
{
    Row row;
    Emission before = *e;
    begin_row(&row, e, choices, indent);
    body(&row, context);
    if (!row.pending) {
        text_append(&e->text, row.before.text ? row.before.text : "", row.before.length);
        text_append(&e->text, row.inside.text ? row.inside.text : "", row.inside.length);
        return;
    }
    e->n_buffers = before.n_buffers;
    e->n_sizes = before.n_sizes;
    e->n_scalars = before.n_scalars;
    e->name.length = before.name.length;
    emission_name(e, op_facts[row.pending->op].name);
    Choice choice = { .node = row.pending, .block = row.pending_block, .outer = choices,
                      .depth = choices ? choices->depth + 1 : 0 };
    if (choice.node->op == OP_SLICE)
        emit_slice(e, body, context, choice, indent);
    else
        emit_concat(e, body, context, choice, indent);
}

/* ---- what a group sums ----------------------------------------------------------------------- */

int accumulators_of(const Node *reduction)
{
    return partial_rows(reduction);
}

Node *const *sums_of(const Group *group, int *n)
{
    bool alone = node_reduces_batch(group->anchor);
    *n = alone ? 1 : group->n_reductions;
    return alone ? &group->anchor : group->reductions;
}

int count_accumulators(const Group *group)
{
    int n, count = 0;
    Node *const *sums = sums_of(group, &n);
    for (int r = 0; r < n; r++)
        count += accumulators_of(sums[r]);
    return count;
}

/* ---- the anchor and the root ----------------------------------------------------------------- */

bool has_bias(const Node *anchor)
{
    return (anchor->op == OP_CONV || anchor->op == OP_CONV_TRANSPOSE || anchor->op == OP_LINEAR)
           && anchor->n_inputs == 3;
}

Value root_value(Row *row, Node *root, Place here)
{
    const Memo *memo = recall(row, root, here);
    return memo ? memo->value : remember(row, root, here, row_expression(row, root, here));
}

void emit_width(Emission *e)
{
    char number[16];
    Text text = { .arena = e->graph->arena };
    snprintf(number, sizeof number, "%d", e->graph->target->block);
    text_printf(&text, "%s", "");
    for (size_t i = 0; i < e->text.length; i++) {
        size_t plain = strcspn(e->text.text + i, "@");
        text_append(&text, e->text.text + i, plain);
        i += plain;
        if (i < e->text.length)
            text_append(&text, number, strlen(number));
    }
    e->text = text;
}
