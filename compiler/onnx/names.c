/* Names in a model out of names in an ONNX file, which may be any text.
 *
 * Exporters write a value's path through the modules, "/encoder/layer1/layer1.0/conv1/Conv_output_0".
 * What a person would call it is encoder.layer1.0.conv1: repeated parts go, and the operator where the
 * module is nothing else. Variables have _ for dots. Whatever is no letter becomes _ as well, and a
 * name that is taken gets _2, _3, ...
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import.h"

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Operators that are a module of their own, which exporters name the path after. */
static bool is_module(const char *op)
{
    static const char modules[] = " Conv ConvTranspose BatchNormalization Gemm Relu LeakyRelu "
                                  "Sigmoid Softmax MaxPool AveragePool GlobalAveragePool ";
    char spaced[64];
    snprintf(spaced, sizeof spaced, " %.50s ", op);
    return *op && strstr(modules, spaced) != NULL;
}

/* "/encoder/layer1/layer1.0/conv1/Conv_output_0" -> encoder.layer1.0.conv1, or with _ for dots. */
const char *plain_path(Import *import, const char *onnx_name, const char *op, bool dotted)
{
    Text text = {.arena = import->arena};
    const char *previous = "";
    size_t previous_length = 0, op_length = strlen(op);
    text_append(&text, "", 0);
    for (const char *at = onnx_name; *at && text.length < 150;) {
        at += strspn(at, "/");
        size_t length = strcspn(at, "/"), shown = length;
        bool last = !at[length];
        const char *output = last ? strstr(at, "_output_0") : NULL;
        if (output && !output[9] && output > at)
            shown = (size_t)(output - at);
        const char *part = at;
        if (previous_length && shown > previous_length && part[previous_length] == '.'
            && !strncmp(part, previous, previous_length)) {
            part += previous_length + 1; /* layer1/layer1.0 */
            shown -= previous_length + 1;
        }
        bool named_after_op = last && text.length && is_module(op) && shown == op_length
            && !strncmp(part, op, shown);
        if (shown && !named_after_op)
            text_printf(&text, "%s%.*s", text.length ? "." : "", (int)(shown < 100 ? shown : 100),
                        part);
        previous = at;
        previous_length = length;
        at += length;
    }
    char *out = text.text ? text.text : (char *)arena_printf(import->arena, "%s", "");
    size_t length = 0;
    for (const char *in = out; *in; in++) {
        bool dot = *in == '.' && dotted && length && out[length - 1] != '.' && in[1];
        char c = is_letter(*in) || dot || (dotted && *in == '-') ? *in : '_';
        if (c != '_' || !length || out[length - 1] != '_' || *in == '_')
            out[length++] = c;
    }
    while (length && (out[length - 1] == '.' || (out[length - 1] == '_' && !dotted)))
        length--;
    return arena_printf(import->arena, "%.*s", (int)length, out);
}

static const char *unique(const Import *import, Table *table, const char *wanted)
{
    const char *name = intern(import->arena, wanted, strlen(wanted));
    for (int i = 2; table_get(table, name); i++) {
        const char *next = arena_printf(import->arena, "%s_%d", wanted, i);
        name = intern(import->arena, next, strlen(next));
    }
    table_put(table, name, (void *)name);
    return name;
}

const char *new_instance(Import *import, const char *wanted)
{
    return unique(import, &import->instances, wanted);
}

static bool is_reserved(const char *name)
{
    static const char *const words[] = {
        "and", "block", "else", "false", "for", "if", "in", "input", "loss", "metric", "model",
        "not", "or", "output", "param", "pop", "push", "repeat", "return", "target", "true", "use",
        "name", "nearest", "bilinear", "size", "height", "width", "channels", "mask", "dice",
        "_", "input_height", "input_width"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(name, words[i]))
            return true;
    return false;
}

const char *new_variable(Import *import, const char *onnx_name, const char *op)
{
    const char *name = plain_path(import, onnx_name, op, false);
    if (!*name)
        name = "x";
    if (*name >= '0' && *name <= '9')
        name = arena_printf(import->arena, "x%s", name);
    if (is_reserved(name))
        name = arena_printf(import->arena, "%s_", name);
    return unique(import, &import->names, name);
}

const char *number_text(Import *import, double value)
{
    char digits[40];
    for (int precision = 1; precision <= 9; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtof(digits, NULL) == (float)value)
            break;
    }
    if (!isfinite(value) || !isfinite((float)value))
        import_fail(import, "", "a number that is not finite");
    return arena_printf(import->arena, value < 0 ? "(%s)" : "%s", digits);
}
