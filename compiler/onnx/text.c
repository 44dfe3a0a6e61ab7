/* Lines -> the text of a model.
 *
 * Only what the outputs need is written; a name that nothing reads would be an error. Layers with
 * the same weights become one statement, `a, b = linear([x, y], 16)`, where no layer needs the result
 * of another; else each gets a copy of the weights. A network with one map as its output becomes one
 * that segrun trains and scores: sigmoid, mask, loss and metric are added.
 */
#include <string.h>

#include "import.h"

/* ---- what is read ---------------------------------------------------------------------------- */

static bool mark_live(Import *import, Line *first)
{
    Line **stack = arena_alloc(import->arena, (size_t)(import->n_lines + 1) * sizeof *stack);
    int depth = 0;
    if (!first->live)
        stack[depth++] = first;
    first->live = true;
    while (depth) {
        Line *line = stack[--depth];
        if (line->problem)
            return import_fail(import, "docs/onnx.md lists what segc import can read", "%s",
                               line->problem);
        for (int i = 0; i < line->n_reads; i++) {
            if (!line->reads[i]->live)
                stack[depth++] = line->reads[i];
            line->reads[i]->live = true;
        }
    }
    return true;
}

static bool check_outputs(Import *import)
{
    int live = 0;
    for (int i = 0; i < import->n_outputs; i++) {
        Value *output = import->outputs[i];
        if (!output->known || output->constant || output->line->is_input)
            return import_lacks(import, "output '%.100s' is %s", output->name,
                                !output->known ? "made by no node"
                                : output->constant ? "a constant" : "an input");
        if (output->flat && (output->dims[1] != 1 || output->dims[2] != 1))
            return import_lacks(import, "output '%.100s' is flattened", output->name);
        if (!mark_live(import, output->line))
            return false;
    }
    for (int i = 0; i < import->n_lines; i++)
        live += import->lines[i]->live;
    return live <= MAX_LINES
        || import_lacks(import, "the network has %d operators, and a model can have %d", live,
                        MAX_LINES);
}

/* ---- layers that share weights --------------------------------------------------------------- */

/* Of a chain only what is live stays; its first line has the weights. */
static void shorten_chain(Line *leader)
{
    Line *first = NULL, *last = NULL;
    for (Line *line = leader, *next; line; line = next) {
        next = line->shared;
        line->shared = NULL;
        if (!line->live)
            continue;
        if (last)
            last->shared = line;
        if (!first && line != leader) {
            line->instance = leader->instance;
            line->takes_bias = leader->takes_bias;
            memcpy(line->weights, leader->weights, sizeof line->weights);
            line->n_weights = leader->n_weights;
        }
        first = first ? first : line;
        line->leader = first;
        last = line;
    }
}

/* Would a statement need its own result? Depth is at most the number of live lines. */
static bool has_cycle(Line *line)
{
    Line *leader = line->leader;
    if (leader->open || leader->printed)
        return leader->open;
    leader->open = true;
    bool cycle = false;
    for (Line *each = leader; each; each = each->shared)
        for (int i = 0; i < each->n_reads; i++)
            cycle |= has_cycle(each->reads[i]);
    leader->open = false;
    leader->printed = true;
    return cycle;
}

static bool any_cycle(Import *import)
{
    bool cycle = false;
    for (int i = 0; i < import->n_lines; i++)
        import->lines[i]->printed = false;
    for (int i = 0; i < import->n_lines; i++)
        if (import->lines[i]->live)
            cycle |= has_cycle(import->lines[i]);
    return cycle;
}

static void split_chain(Import *import, Line *leader)
{
    for (Line *line = leader->shared, *next; line; line = next) {
        next = line->shared;
        line->shared = NULL;
        line->leader = line;
        line->instance = new_instance(import, leader->instance);
        line->takes_bias = leader->takes_bias;
        line->n_weights = leader->n_weights;
        memcpy(line->weights, leader->weights, sizeof line->weights);
    }
    leader->shared = NULL;
}

static void settle_chains(Import *import)
{
    for (int i = 0; i < import->n_lines; i++)
        if (import->lines[i]->leader == import->lines[i] && import->lines[i]->shared)
            shorten_chain(import->lines[i]);
    while (any_cycle(import)) { /* rare: the last chain goes, until it is none */
        Line *last = NULL;
        for (int i = 0; i < import->n_lines; i++)
            if (import->lines[i]->live && import->lines[i]->shared
                && import->lines[i]->leader == import->lines[i])
                last = import->lines[i];
        if (!last)
            bug("segc import: lines in a cycle");
        split_chain(import, last);
    }
    for (int i = 0; i < import->n_lines; i++)
        import->lines[i]->printed = false;
}

/* ---- statements ------------------------------------------------------------------------------ */

static void print_layer(Text *text, const Line *leader)
{
    const char *separator = "";
    if (leader->shared) {
        for (const Line *line = leader; line; line = line->shared, separator = ", ")
            text_printf(text, "%s%s", separator, line->variable);
        text_printf(text, " = %s([", leader->layer);
        separator = "";
        for (const Line *line = leader; line; line = line->shared, separator = ", ")
            text_printf(text, "%s%s", separator, line->operand);
        text_printf(text, "]");
    } else {
        text_printf(text, "%s = %s(%s", leader->variable, leader->layer, leader->operand);
    }
    text_printf(text, "%s%s%s, name = \"%s\")\n", *leader->text ? ", " : "", leader->text,
                leader->takes_bias ? ", bias = false" : "", leader->instance);
}

static void print_line(Text *text, Line *line)
{
    Line *leader = line->leader;
    if (leader->printed || leader->is_input)
        return;
    leader->printed = true;
    for (const Line *each = leader; each; each = each->shared)
        for (int i = 0; i < each->n_reads; i++)
            print_line(text, each->reads[i]);
    text_printf(text, "    %s", leader->is_output ? "output " : "");
    if (leader->layer)
        print_layer(text, leader);
    else
        text_printf(text, "%s = %s\n", leader->variable, leader->text);
}

/* ---- the model ------------------------------------------------------------------------------- */

/* The graph's name, unless it is an exporter's for all graphs; then the file's. */
static const char *model_name(Import *import)
{
    static const char common[] = " main_graph torch_jit torch-jit-export graph ";
    const char *name = import->graph->name, *slash = strrchr(import->options->path, '/');
    if (!*name || strstr(common, arena_printf(import->arena, " %.60s ", name))) {
        name = slash ? slash + 1 : import->options->path;
        size_t length = strlen(name);
        if (length > 5 && !strcmp(name + length - 5, ".onnx"))
            length -= 5;
        name = arena_printf(import->arena, "%.*s", (int)length, name);
    }
    return new_variable(import, name, "");
}

/* "[3, size, size]" */
static const char *dims_text(Import *import, const int64_t *dims, int64_t channels)
{
    const int64_t *first = import->inputs[0]->dims;
    if (dims[1] != first[1] || dims[2] != first[2])
        return arena_printf(import->arena, "[%lld, %lld, %lld]", (long long)channels,
                            (long long)dims[1], (long long)dims[2]);
    bool square = first[1] == first[2];
    return arena_printf(import->arena, "[%lld, %s, %s]", (long long)channels,
                        square ? "size" : "input_height", square ? "size" : "input_width");
}

/* One line: nothing from a file's name may end the comment. */
static const char *comment_text(Import *import, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *text = (char *)arena_printf(import->arena, "%.200s", slash ? slash + 1 : path);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return text;
}

static void print_head(Import *import, Text *text, const char *name, bool with_mask)
{
    const int64_t *dims = import->inputs[0]->dims;
    text_printf(text, "# Imported from %s; the weights are in %s.\n",
                comment_text(import, import->options->path),
                comment_text(import, import->options->weights));
    if (dims[1] == dims[2])
        text_printf(text, "param size = %lld  # height and width of the input\n",
                    (long long)dims[1]);
    else
        text_printf(text, "param input_height = %lld\nparam input_width  = %lld\n",
                    (long long)dims[1], (long long)dims[2]);
    text_printf(text, "\nmodel %s {\n", name);
    int width = with_mask ? 4 : 0;
    for (int i = 0; i < import->n_inputs; i++)
        if (import->lines[i]->live && (int)strlen(import->lines[i]->variable) > width)
            width = (int)strlen(import->lines[i]->variable);
    for (int i = 0; i < import->n_inputs; i++) {
        const Line *line = import->lines[i];
        if (line->live)
            text_printf(text, "    input %s%-*s : %s%s\n", with_mask ? " " : "", width, line->variable,
                        line->bytes ? "u8" : "f32", dims_text(import, line->dims, line->dims[0]));
    }
    if (with_mask)
        text_printf(text, "    target %-*s : u8%s\n", width, "mask", dims_text(import, dims, 1));
    text_printf(text, "\n");
}

char *model_text(Import *import)
{
    if (!check_outputs(import))
        return NULL;
    settle_chains(import);
    Value *output = import->outputs[0];
    const int64_t *in = import->inputs[0]->dims;
    bool classes = output->made == MADE_SOFTMAX && output->dims[0] > 1 && output->dims[0] < 256;
    bool is_map = !import->options->as_is && import->n_outputs == 1 && import->n_inputs == 1
        && (output->dims[0] == 1 || classes) && output->dims[1] == in[1]
        && output->dims[2] == in[2];
    bool adds_sigmoid = is_map && !classes && output->made != MADE_SIGMOID;
    const char *result_name = output->output_name;
    if (adds_sigmoid)
        result_name = new_variable(import, "probability", "");
    for (int i = 0; i < import->n_outputs && !adds_sigmoid; i++) {
        Line *line = import->outputs[i]->line;
        line->is_output = line->variable == import->outputs[i]->output_name
            && line->leader == line && !line->shared;
    }
    Text text = {.arena = import->arena};
    print_head(import, &text, model_name(import), is_map);
    for (int i = 0; i < import->n_lines; i++)
        if (import->lines[i]->live)
            print_line(&text, import->lines[i]);
    for (int i = 0; i < import->n_outputs && !adds_sigmoid; i++)
        if (!import->outputs[i]->line->is_output
            || import->outputs[i]->line->variable != import->outputs[i]->output_name)
            text_printf(&text, "    output %s = %s\n", import->outputs[i]->output_name,
                        import->outputs[i]->variable);
    if (adds_sigmoid)
        text_printf(&text, "\n    output %s = sigmoid(%s)\n", result_name, output->variable);
    if (is_map)
        text_printf(&text, "    loss   %s(%s, mask)\n    metric dice(%s, mask)\n",
                    classes ? "cross_entropy" : "binary_cross_entropy", result_name, result_name);
    text_printf(&text, "}\n");
    return text.text;
}
