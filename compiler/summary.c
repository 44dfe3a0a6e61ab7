/* What segc prints for people: --summary, --explain and --help-ops. Reads graphs, changes nothing.
 *
 * The summary is the table that torchinfo made usual: a row a layer with its result, parameters and
 * multiply-adds, under the instance that it belongs to. Multiply-adds are those of convolutions and
 * linear layers, one for each weight and each place it is used at, and one for each bias.
 */
#include "build.h"

#include <string.h>

enum { NAME_WIDTH = 30 };

/* 31037633 -> "31,037,633" */
static const char *grouped(Arena *arena, double number)
{
    const char *digits = arena_printf(arena, "%.0f", number);
    size_t length = strlen(digits);
    Text text = {.arena = arena};
    for (size_t i = 0; i < length; i++)
        text_printf(&text, "%s%c", i && (length - i) % 3 == 0 ? "," : "", digits[i]);
    return text.text;
}

static const char *size_text(Arena *arena, double bytes)
{
    return bytes < 1024.0 * 1024 ? arena_printf(arena, "%.1f KiB", bytes / 1024)
        : bytes < 1024.0 * 1024 * 1024 ? arena_printf(arena, "%.1f MiB", bytes / (1024.0 * 1024))
        : arena_printf(arena, "%.2f GiB", bytes / (1024.0 * 1024 * 1024));
}

static const char *shape_text(Arena *arena, Shape shape)
{
    Text text = {.arena = arena};
    for (int i = 0; i < shape.rank; i++)
        text_printf(&text, "%s%lld", i ? " x " : "", (long long)shape.dims[i]);
    return text.text;
}

static bool is_stored_parameter(const Node *node)
{
    return node->op == OP_PARAMETER || node->op == OP_BUFFER;
}

/* The trained numbers that a node is the first to use. */
static int64_t own_parameters(const Node *node, bool *counted)
{
    int64_t count = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        const Node *input = node->inputs[i];
        if (input->op == OP_PARAMETER && !counted[input->id])
            count += shape_count(input->shape);
        counted[input->id] |= is_stored_parameter(input);
    }
    return count;
}

/* Of one sample; a double, because nothing bounds the product. */
static double multiply_adds(const Node *node)
{
    if (op_facts[node->op].kind != KIND_CONTRACTION)
        return 0;
    const int64_t *x = node->inputs[0]->shape.dims, *y = node->shape.dims;
    double weights = (double)shape_count(node->inputs[1]->shape);
    double pixels = (double)y[1] * (double)y[2];
    double uses = node->op == OP_CONV_TRANSPOSE ? (double)x[1] * (double)x[2] : pixels;
    double bias = node->n_inputs > 2 ? (double)y[0] * pixels : 0;
    return weights * uses + bias;
}

/* The instance around a layer: "layer1.0" of "layer1.0.conv1"; its length. */
static int outer_length(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? (int)(dot - name) : 0;
}

/* ---- summary --------------------------------------------------------------------------------- */

typedef struct {
    int64_t parameters, buffers;
    double multiply_adds;            /* of a sample */
    double inputs, activations;      /* bytes of a sample */
} Totals;

static void add_totals(Totals *totals, const Node *node)
{
    OpKind kind = op_facts[node->op].kind;
    double count = (double)shape_count(node->shape);
    if (node->op == OP_PARAMETER)
        totals->parameters += shape_count(node->shape);
    if (node->op == OP_BUFFER)
        totals->buffers += shape_count(node->shape);
    if (node->op == OP_INPUT || node->op == OP_TARGET)
        totals->inputs += count * (node->type == TYPE_U8 ? 1 : 4);
    if (kind == KIND_CONTRACTION || kind == KIND_WINDOW
        || (kind == KIND_MOVE && node->op != OP_CONCAT))
        totals->activations += 4 * count;
    totals->multiply_adds += multiply_adds(node);
}

static void print_row(const Node *node, bool *counted, Arena *arena, FILE *out)
{
    bool layer = node->n_inputs > 1 && is_stored_parameter(node->inputs[1]);
    const char *name = layer ? node->name + outer_length(node->name) : "";
    double parameters = (double)own_parameters(node, counted), work = multiply_adds(node);
    fprintf(out, "  %-*.*s %-20s %18s", NAME_WIDTH - 2, NAME_WIDTH - 2,
            *name == '.' ? name + 1 : name, op_facts[node->op].name,
            shape_text(arena, node->shape));
    if (parameters > 0 || work > 0)
        fprintf(out, " %12s", parameters > 0 ? grouped(arena, parameters) : "shared");
    if (work > 0)
        fprintf(out, " %14s", grouped(arena, work));
    fputc('\n', out);
}

static void print_totals(const Totals *totals, int batch, Arena *arena, FILE *out)
{
    double inputs = totals->inputs * batch, activations = totals->activations * batch;
    double parameters = 4.0 * (double)totals->parameters;
    fprintf(out, "%-34s %s\n", "Parameters, all trained",
            grouped(arena, (double)totals->parameters));
    fprintf(out, "%-34s %s\n", "Running statistics", grouped(arena, (double)totals->buffers));
    fprintf(out, "%-34s %s at batch %d\n", "Multiply-adds of a forward pass",
            grouped(arena, totals->multiply_adds * batch), batch);
    fprintf(out, "Memory to train at batch %d, before the compiler shares any:\n", batch);
    fprintf(out, "%-34s %s\n", "  inputs and targets", size_text(arena, inputs));
    fprintf(out, "%-34s %s\n", "  results kept for backward", size_text(arena, activations));
    fprintf(out, "%-34s %s\n", "  parameters, gradients, Adam", size_text(arena, 4 * parameters));
    fprintf(out, "%-34s %s\n", "  together",
            size_text(arena, inputs + activations + 4 * parameters));
}

void print_summary(const Graph *model, int batch, FILE *out)
{
    static const char line[] = "------------------------------------------------------------------"
                               "---------------------------------";
    bool *counted = arena_alloc(model->arena, (size_t)model->next_id + 1);
    const char *outer = "";
    int length = 0;
    Totals totals = {0};
    fprintf(out, "%s\n%-*s %-20s %18s %12s %14s\n%s\n", line, NAME_WIDTH, model->name, "operator",
            "C x H x W", "parameters", "multiply-adds", line);
    for (int i = 0; i < model->n_nodes; i++) {
        const Node *node = model->nodes[i];
        add_totals(&totals, node);
        if (is_stored_parameter(node) || node->op == OP_CONSTANT)
            continue;
        if (node->op == OP_INPUT || node->op == OP_TARGET) {
            fprintf(out, "%-*.*s %-20s %18s\n", NAME_WIDTH, NAME_WIDTH, node->name,
                    op_facts[node->op].name, shape_text(model->arena, node->shape));
            continue;
        }
        if (node->name && (outer_length(node->name) != length
                           || strncmp(node->name, outer, (size_t)length))) {
            outer = node->name;
            length = outer_length(outer);
            fprintf(out, "%.*s\n", length ? length : 99, length ? outer : model->name);
        }
        print_row(node, counted, model->arena, out);
    }
    fprintf(out, "%s\n", line);
    print_totals(&totals, batch, model->arena, out);
    fprintf(out, "%s\n", line);
}

/* ---- explain --------------------------------------------------------------------------------- */

static const char *label(Arena *arena, const Node *node)
{
    return arena_printf(arena, "%%%d %s%s%s", node->id, op_facts[node->op].name,
                        node->name ? " " : "", node->name ? node->name : "");
}

/* The groups that compute an inlined node for themselves. */
static const char *readers(const Graph *graph, const Node *node)
{
    Text text = {.arena = graph->arena};
    text_append(&text, "", 0);
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *reader = graph->nodes[i];
        for (int k = 0; k < reader->n_inputs; k++) {
            if (reader->inputs[k] != node)
                continue;
            if (reader->group)
                text_printf(&text, "%sgroup %d", text.length ? ", " : "", reader->group->id);
            else
                text_printf(&text, "%s%%%d", text.length ? ", " : "", reader->id);
            break;
        }
    }
    return text.length ? text.text : "nothing";
}

void print_explain(const Graph *program, FILE *out)
{
    static const char *const names[] = {"train", "evaluate", "predict"};
    fprintf(out, "program %s: %d operators in %d groups\n",
            program->program >= 0 ? names[program->program] : program->name, program->n_nodes,
            program->n_groups);
    for (int g = 0; g < program->n_groups; g++) {
        const Group *group = program->groups[g];
        fprintf(out, "group %d: %s -> %s%s\n", group->id, label(program->arena, group->anchor),
                shape_text(program->arena, group->root->shape),
                group->once ? " (once a set of parameters)" : "");
        for (int i = 0; i < program->n_nodes; i++)
            if (program->nodes[i]->group == group)
                fprintf(out, "    %-48s %s\n", label(program->arena, program->nodes[i]),
                        group_part(group, program->nodes[i]));
        if (group->reason)
            fprintf(out, "    no more in it: %s\n", group->reason);
    }
    fprintf(out, "computed where they are read:\n");
    for (int i = 0; i < program->n_nodes; i++) {
        const Node *node = program->nodes[i];
        if (!node->group && op_facts[node->op].kind != KIND_SOURCE)
            fprintf(out, "    %-48s in %s\n", label(program->arena, node),
                    readers(program, node));
    }
}

/* ---- reference of the operators -------------------------------------------------------------- */

static const char *const kind_text[] = {
    [KIND_CONTRACTION] = "Convolutions and linear layers",
    [KIND_NORMALISE] = "Normalisation",
    [KIND_POINTWISE] = "Element by element",
    [KIND_CHANNEL] = "Over the channels of a pixel",
    [KIND_REDUCE] = "Reductions",
    [KIND_WINDOW] = "Windows",
    [KIND_MOVE] = "Moving",
    [KIND_LOSS] = "Losses",
    [KIND_METRIC] = "Metrics",
};

/* `conv(x, channels, kernel, stride = 1)` */
static void print_signature(Op op, FILE *out)
{
    const char *separator = "";
    fprintf(out, "- `%s(", op_facts[op].name);
    for (const char *at = op_facts[op].tensors; *at; separator = ", ") {
        size_t length = strcspn(at, " ");
        fprintf(out, "%s%.*s", separator, (int)length, at);
        at += length + strspn(at + length, " ");
    }
    for (const char *at = op_facts[op].attributes; *at;) {
        size_t length = strcspn(at, " "), name = strcspn(at, " =");
        bool hidden = false;
        for (int i = 0; i < ATTR_COUNT; i++)
            hidden |= strlen(attribute_facts[i].name) == name
                && !strncmp(at, attribute_facts[i].name, name)
                && is_hidden_attribute(op, (Attribute)i);
        if (!hidden && name < length)
            fprintf(out, "%s%.*s = %.*s", separator, (int)name, at, (int)(length - name - 1),
                    at + name + 1);
        else if (!hidden)
            fprintf(out, "%s%.*s", separator, (int)name, at);
        separator = ", ";
        at += length + strspn(at + length, " ");
    }
    fprintf(out, ")`");
}

void print_ops(FILE *out)
{
    fprintf(out, "## Operators\n");
    for (OpKind kind = KIND_SOURCE; kind <= KIND_METRIC; kind++) {
        bool headed = false;
        for (int op = 0; op < OP_COUNT; op++) {
            const OpFacts *facts = &op_facts[op];
            if (facts->kind != kind || !facts->tensors[0])
                continue;
            if (!headed)
                fprintf(out, "\n### %s\n\n", kind_text[kind]);
            headed = true;
            print_signature((Op)op, out);
            fprintf(out, "<br>\n  %s", facts->text);
            const char *weight = strstr(facts->operands, "weight");
            if (weight)
                fprintf(out, " Parameters: `%s`.", weight);
            fprintf(out, "\n");
        }
    }
}
