/* What nodes give: a node's result is a Value, made by a new Line of the model or another view of what
 * is there. In: the node being looked at, its operands. Out: Lines in the order of the file, each with
 * the Lines that it reads and the shape of what it makes.
 *
 * A reader says what it can take: any tensor, or one of floats seen as [N,C,H,W], for which bytes are
 * made floats. Inputs are lines too; pictures get what the network expects of them, a normalisation
 * included, before any node is looked at.
 */
#include <stdarg.h>
#include <string.h>

#include "import.h"

Value *result(Import *import)
{
    const Onnx__NodeProto *node = import->node;
    if (import->failed)
        return NULL;
    if (!node->n_output || !*node->output[0]) {
        import_fail(import, "the file is damaged: export it again", "it has no result");
        return NULL;
    }
    const char *name = intern(import->arena, node->output[0], strlen(node->output[0]));
    Value *value = table_get(&import->values, name);
    if (!value) {
        value = arena_alloc(import->arena, sizeof *value);
        value->name = name;
        table_put(&import->values, name, value);
    }
    if (value->known) {
        import_fail(import, "the file is damaged: export it again",
                    "its result '%.100s' has been made before", name);
        return NULL;
    }
    value->known = true;
    return value;
}

bool give_alias(Import *import, const Value *of, bool flat)
{
    Value *value = result(import);
    if (!value)
        return false;
    Value own = *value;
    *value = *of;
    value->name = own.name;
    value->uses = own.uses;
    value->output_name = own.output_name;
    value->flat = flat;
    value->half = value->rows = false;
    return true;
}

/* What was just given. */
Value *result_again(Import *import)
{
    const char *name = import->node->output[0];
    return table_get(&import->values, intern(import->arena, name, strlen(name)));
}

static Line *add_line(Import *import, const char *variable, const int64_t dims[3], int n_reads,
                      Value *const *reads)
{
    Line *line = arena_alloc(import->arena, sizeof *line);
    line->variable = variable;
    line->leader = line;
    line->dims = memcpy(arena_alloc(import->arena, 3 * sizeof *dims), dims, 3 * sizeof *dims);
    line->reads = arena_alloc(import->arena, (size_t)(n_reads + 1) * sizeof *line->reads);
    for (int i = 0; i < n_reads; i++)
        if (reads[i]->line)
            line->reads[line->n_reads++] = reads[i]->line;
    if (import->n_lines == import->lines_capacity) {
        int capacity = import->lines_capacity ? 2 * import->lines_capacity : 64;
        import->lines = arena_grow(import->arena, import->lines,
                                   (size_t)import->n_lines * sizeof *import->lines,
                                   (size_t)capacity * sizeof *import->lines);
        import->lines_capacity = capacity;
    }
    import->lines[import->n_lines++] = line;
    return line;
}

Line *give_line(Import *import, const int64_t dims[3], int n_reads, Value *const *reads,
                const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    size_t size = (size_t)vsnprintf(NULL, 0, format, list) + 1;
    char *text = arena_alloc(import->arena, size);
    vsnprintf(text, size, format, again);
    va_end(again);
    va_end(list);
    for (int i = 0; i < 3; i++)
        if (dims[i] < 1 || dims[i] > INT32_MAX)
            return import_lacks(import, "its result would be %lld x %lld x %lld",
                                (long long)dims[0], (long long)dims[1], (long long)dims[2]), NULL;
    Value *value = result(import);
    if (!value)
        return NULL;
    const char *variable = value->output_name
        ? value->output_name : new_variable(import, value->name, import->node->op_type);
    Line *line = add_line(import, variable, dims, n_reads, reads);
    line->text = text;
    line->value = value;
    value->line = line;
    value->variable = variable;
    value->flat = reads[0]->flat;
    value->half = reads[0]->half;
    memcpy(value->dims, dims, sizeof value->dims);
    return line;
}

/* Pictures: bytes / 255, and as --mean and --std say. */
static bool normalise(Import *import, Value *value)
{
    const ImportOptions *options = import->options;
    Line *line = add_line(import, new_variable(import, arena_printf(import->arena, "%s_01",
                                                                    value->variable), ""),
                          value->dims, 1, &value);
    line->text = arena_printf(import->arena, "%s / 255", value->variable);
    value->line = line;
    value->variable = line->variable;
    if (!options->n_mean)
        return true;
    int64_t channels = value->dims[0];
    if (channels != options->n_mean)
        return import_fail(import, "give a number for each channel",
                           "input '%.100s' has %lld channels, and --mean has %d numbers",
                           value->name, (long long)channels, options->n_mean);
    double scale[16];
    for (int64_t i = 0; i < channels; i++)
        scale[i] = 1 / options->deviation[i];
    Line *layer = add_line(import, new_variable(import, arena_printf(import->arena, "%s_normalized",
                                                                     value->name), ""),
                           value->dims, 1, &value);
    if (!fill_normalize(import, layer, value, options->mean, scale, ""))
        return false;
    value->line = layer;
    value->variable = layer->variable;
    return true;
}

bool add_inputs(Import *import)
{
    for (int i = 0; i < import->n_inputs; i++) {
        Value *value = import->inputs[i];
        Line *line = add_line(import, new_variable(import, value->name, ""), value->dims, 0, NULL);
        line->is_input = true;
        line->bytes = value->bytes || !import->options->float_input;
        value->line = line;
        value->variable = line->variable;
    }
    for (int i = 0; i < import->n_inputs; i++)
        if (!import->inputs[i]->bytes && !import->options->float_input
            && !normalise(import, import->inputs[i]))
            return false;
    return true;
}

Value *any_tensor(Import *import, size_t index)
{
    Value *value = operand(import, index);
    if (!value && !import->failed)
        import_fail(import, "the file is damaged: export it again", "an operand is missing");
    if (value && value->constant) {
        import_lacks(import, "its operand '%.100s' is a constant", value->name);
        return NULL;
    }
    return value;
}

Value *need_tensor(Import *import, size_t index)
{
    Value *value = any_tensor(import, index);
    if (value && value->flat && (value->dims[1] != 1 || value->dims[2] != 1)) {
        import_lacks(import, "its operand is flattened: [N, %lld]",
                     (long long)(value->dims[0] * value->dims[1] * value->dims[2]));
        return NULL;
    }
    if (value && value->rows) {
        import_lacks(import, "its operand is reshaped to [N, %lld, %lld]",
                     (long long)value->dims[0], (long long)(value->dims[1] * value->dims[2]));
        return NULL;
    }
    if (value && value->bytes) { /* bytes can be computed with, no more: a line of its own */
        Line *line = add_line(import, new_variable(import, arena_printf(import->arena, "%s_f32",
                                                                        value->variable), ""),
                              value->dims, 1, &value);
        line->text = arena_printf(import->arena, "%s * 1", value->variable);
        value->line = line;
        value->variable = line->variable;
        value->bytes = false;
    }
    return value;
}
