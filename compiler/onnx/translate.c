/* Nodes on tensors -> lines of a model: arithmetic, activations, what changes a shape. Layers with
 * weights or windows are in layers.c.
 *
 * A node that only renames or reshapes gives no line: its result is another view of its operand.
 * Some operators that the language lacks are patterns of those that it has (relu6, hard sigmoid,
 * tanh); some that are several nodes in ONNX are one in the language (silu, gelu). A node that can
 * only be a part of such a pattern gets a line with a problem, which is an error if anything but the
 * pattern reads it.
 */
#include <math.h>
#include <string.h>

#include "import.h"

/* ---- pointwise ------------------------------------------------------------------------------- */

static bool same_tensor(const Value *a, const Value *b)
{
    return a && b && a->line == b->line && a->variable == b->variable;
}

static void mark(const Line *line, Made made, const Value *of, double number)
{
    if (!line)
        return;
    line->value->made = made;
    line->value->of = of;
    line->value->number = number;
}

/* f(x), with x where the format says %1$s and the node's numbers behind it. */
static bool unary(Import *import, const char *format, double a, double b)
{
    Value *x = need_tensor(import, 0);
    if (!x)
        return false;
    const char *text_a = number_text(import, a), *text_b = number_text(import, b);
    Text text = {.arena = import->arena};
    for (const char *at = format; *at; at++) {
        const char *part = *at == '$' ? x->variable : *at == 'A' ? text_a : *at == 'B' ? text_b
            : NULL;
        if (part)
            text_printf(&text, "%s", part);
        else
            text_append(&text, at, 1);
    }
    Line *line = give_line(import, x->dims, 1, &x, "%s", text.text);
    if (line && !strcmp(import->node->op_type, "Sigmoid"))
        mark(line, MADE_SIGMOID, x, 0);
    return line != NULL;
}

/* min(max(x, least), most) out of relus. */
static bool clip(Import *import)
{
    double least = -INFINITY, most = INFINITY;
    if (import->opset < 11) {
        least = attribute_float(import, "min", -3.4e38);
        most = attribute_float(import, "max", 3.4e38);
    } else if (operand_numbers(import, 1, &least, 1) < 0
               || operand_numbers(import, 2, &most, 1) < 0) {
        return false;
    }
    bool low = least > -3e38, high = most < 3e38;
    if (!low && !high)
        return need_tensor(import, 0) && give_alias(import, operand(import, 0), false);
    if (low && !high)
        return least == 0 ? unary(import, "relu($)", 0, 0) : unary(import, "relu($ - A) + A", least, 0);
    if (!low)
        return unary(import, "B - relu(B - $)", 0, most);
    return least == 0 ? unary(import, "relu($) - relu($ - B)", 0, most)
                      : unary(import, "relu($ - A) - relu($ - B) + A", least, most);
}

static bool hard_sigmoid(Import *import, double alpha, double beta, bool swish)
{
    const char *format = swish ? "$ * (relu(A * $ + B) - relu(A * $ + B - 1))"
                               : "relu(A * $ + B) - relu(A * $ + B - 1)";
    return unary(import, format, alpha, beta);
}

/* Only a part of gelu. */
static bool erf_part(Import *import)
{
    Value *x = need_tensor(import, 0);
    Line *line = x ? give_line(import, x->dims, 1, &x, "%s", x->variable) : NULL;
    if (!line)
        return false;
    line->problem = arena_printf(import->arena, "node '%.100s' (Erf): the language has it as a "
                                 "part of gelu only", import->node->name);
    if (x->made == MADE_SCALED && fabs(x->number - M_SQRT1_2) < 1e-5)
        mark(line, MADE_ERF, x->of, 0);
    return true;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

/* One number, whatever its shape; false after an error too. */
static bool is_number(Import *import, const Value *value, double *number)
{
    if (!value->constant || value->constant->count != 1)
        return false;
    const double *numbers = constant_numbers(import, value->constant);
    if (numbers)
        *number = *numbers;
    return numbers != NULL;
}

/* A constant with a number a channel of x: [C,1,1] or [1,C,1,1], or [C] beside a flat tensor. */
static bool is_per_channel(const Constant *constant, const Value *x)
{
    int place = constant->rank - (x->half ? 2 : x->flat ? 1 : 3);
    return place >= 0 && constant->dims[place] == x->dims[0] && constant->count == x->dims[0];
}

/* a number op x, or x op a number. */
static bool with_number(Import *import, Value *x, double number, bool first, char sign)
{
    const char *text = number_text(import, number);
    if (sign == '*' && x->made == MADE_TWICE_GELU && number == 0.5) {
        Value *of = (Value *)x->of;
        return give_line(import, of->dims, 1, &of, "gelu(%s)", of->variable) != NULL;
    }
    Line *line = first ? give_line(import, x->dims, 1, &x, "%s %c %s", text, sign, x->variable)
                       : give_line(import, x->dims, 1, &x, "%s %c %s", x->variable, sign, text);
    if (sign == '*' || (sign == '/' && !first))
        mark(line, MADE_SCALED, x, sign == '*' ? number : 1 / number);
    else if (sign == '+' && x->made == MADE_ERF && number == 1)
        mark(line, MADE_ERF_AND_1, x->of, 0);
    return line != NULL;
}

/* (x - centre) * scale, or / deviation. */
static bool normalized(Import *import, const Value *centred, const Constant *constant,
                       bool divides)
{
    double scale[16], *numbers = constant->numbers;
    Value *x = (Value *)centred->of;
    for (int64_t i = 0; i < x->dims[0]; i++) {
        scale[i] = divides ? 1 / numbers[i] : numbers[i];
        if (!(fabs(scale[i]) < 1e30) || !(fabs(scale[i]) > 1e-30))
            return import_lacks(import, "it scales by %g", scale[i]);
    }
    Line *line = give_line(import, x->dims, 1, &x, "%s", "");
    return line && fill_normalize(import, line, x, centred->centre, scale, constant->name);
}

static bool with_channels(Import *import, Value *x, Constant *constant, bool first, char sign)
{
    const double *numbers = constant_numbers(import, constant);
    if (!numbers || (x->bytes && !need_tensor(import, first ? 1 : 0)))
        return false;
    if (sign == '+' && add_bias(import, x, constant))
        return give_alias(import, x, x->flat);
    if (import->failed)
        return false;
    if (x->made == MADE_CENTRED && (sign == '*' || (sign == '/' && !first)))
        return normalized(import, x, constant, sign == '/');
    Constant *other = new_constant(import, FLOAT_TYPE, 1, x->dims);
    for (int64_t i = 0; other && i < x->dims[0]; i++)
        other->numbers[i] = sign == '-' && !first ? -numbers[i]
            : sign == '/' ? 1 / numbers[i] : numbers[i];
    if (!other)
        return false;
    if ((sign == '/' || sign == '-') && first)
        return import_lacks(import, "a list of numbers %c a tensor", sign);
    bool scales = sign == '*' || sign == '/';
    if (!give_affine(import, x, scales ? other : NULL, scales ? NULL : other))
        return false;
    if (sign == '-' && x->dims[0] <= 16) { /* perhaps the first half of normalize */
        Value *made = result_again(import);
        made->made = MADE_CENTRED;
        made->of = x;
        made->centre = numbers;
    }
    return true;
}

/* Two tensors that broadcast as the language has it. */
static bool of_tensors(Import *import, Value *a, Value *b, char sign)
{
    bool a_pixel = a->dims[1] == 1 && a->dims[2] == 1, b_pixel = b->dims[1] == 1 && b->dims[2] == 1;
    bool fits = (a->dims[0] == b->dims[0] || a->dims[0] == 1 || b->dims[0] == 1)
        && (a_pixel || b_pixel || (a->dims[1] == b->dims[1] && a->dims[2] == b->dims[2]))
        && ((a->flat == b->flat) || (a_pixel && b_pixel));
    if (!fits || (a->flat && !(a_pixel && b_pixel)))
        return import_lacks(import, "shapes %lldx%lldx%lld and %lldx%lldx%lld do not go together",
                            (long long)a->dims[0], (long long)a->dims[1], (long long)a->dims[2],
                            (long long)b->dims[0], (long long)b->dims[1], (long long)b->dims[2]);
    int64_t dims[3] = {a->dims[0] == 1 ? b->dims[0] : a->dims[0],
                       a_pixel ? b->dims[1] : a->dims[1], a_pixel ? b->dims[2] : a->dims[2]};
    for (int swap = 0; swap < 2 && sign == '*'; swap++) {
        Value *x = swap ? b : a, *gate = swap ? a : b;
        if (gate->made == MADE_SIGMOID && same_tensor(gate->of, x))
            return give_line(import, dims, 1, &x, "silu(%s)", x->variable) != NULL;
        if (gate->made == MADE_ERF_AND_1 && same_tensor(gate->of, x)) {
            Line *line = give_line(import, dims, 1, &x, "2 * gelu(%s)", x->variable);
            mark(line, MADE_TWICE_GELU, x, 0);
            return line != NULL;
        }
        if (gate->made == MADE_ERF_AND_1 && x->made == MADE_SCALED && x->number == 0.5
            && same_tensor(gate->of, x->of)) {
            Value *of = (Value *)x->of;
            return give_line(import, dims, 1, &of, "gelu(%s)", of->variable) != NULL;
        }
    }
    return give_line(import, dims, 2, (Value *[]){a, b}, "%s %c %s", a->variable, sign,
                     b->variable) != NULL;
}

static bool arithmetic(Import *import, char sign)
{
    Value *a = operand(import, 0), *b = operand(import, 1);
    double number;
    if (!a || !b)
        return import_fail(import, "the file is damaged: export it again", "an operand is missing");
    if (a->rows || b->rows)
        return need_tensor(import, a->rows ? 0 : 1) != NULL;
    bool first = a->constant != NULL;
    Value *x = first ? b : a, *other = first ? a : b;
    if (!other->constant)
        return of_tensors(import, a, b, sign);
    if (x->flat && (x->dims[1] != 1 || x->dims[2] != 1))
        return import_lacks(import, "a flattened tensor can go into Gemm only");
    if (is_number(import, other, &number))
        return with_number(import, x, number, first, sign);
    if (is_per_channel(other->constant, x))
        return with_channels(import, x, other->constant, first, sign);
    return import_lacks(import, "a constant of %lld numbers does not go with %lld channels",
                        (long long)other->constant->count, (long long)x->dims[0]);
}

static bool sum(Import *import)
{
    Value *values[64];
    size_t n = import->node->n_input;
    if (n < 1 || n > 64)
        return import_lacks(import, "it has %zu operands", n);
    Text text = {.arena = import->arena};
    for (size_t i = 0; i < n; i++) {
        if (!(values[i] = need_tensor(import, i)))
            return false;
        if (memcmp(values[i]->dims, values[0]->dims, sizeof values[0]->dims))
            return import_lacks(import, "its operands are of different shapes");
        text_printf(&text, "%s%s", i ? " + " : "", values[i]->variable);
    }
    return give_line(import, values[0]->dims, (int)n, values, "%s", text.text) != NULL;
}

/* ---- views ----------------------------------------------------------------------------------- */

/* The result has these dimensions, of which the first is the batch: a view of x or an error. */
static bool give_view(Import *import, const Value *x, int rank, const double *dims)
{
    int64_t count = x->dims[0] * x->dims[1] * x->dims[2];
    bool same = rank == 4, pixel = x->dims[1] == 1 && x->dims[2] == 1;
    for (int d = 1; d < 4 && rank == 4; d++)
        same &= dims[d] == (double)x->dims[d - 1] || dims[d] == -1;
    if (same && (!x->flat || pixel))
        return give_alias(import, x, false);
    if (rank == 2 && (dims[1] == (double)count || dims[1] == -1))
        return give_alias(import, x, true);
    bool rows = rank == 3 && (dims[1] == (double)x->dims[0] || dims[1] == -1)
        && (dims[2] == (double)(x->dims[1] * x->dims[2]) || dims[2] == -1);
    if (rows && !x->flat) {
        if (!give_alias(import, x, false))
            return false;
        result_again(import)->rows = true;
        return true;
    }
    return import_lacks(import, "it reshapes %s%lldx%lldx%lld, and the language knows [C, H, W] and "
                        "what goes into linear only", x->flat ? "flattened " : "",
                        (long long)x->dims[0], (long long)x->dims[1], (long long)x->dims[2]);
}

static bool reshape(Import *import)
{
    double dims[MAX_RANK];
    int64_t whole[MAX_RANK];
    Value *x = any_tensor(import, 0);
    int rank = import->node->n_input > 1 ? operand_numbers(import, 1, dims, MAX_RANK)
                                         : attribute_ints(import, "shape", whole, MAX_RANK);
    if (!x || rank < 0)
        return false;
    for (int d = 0; d < rank; d++) {
        dims[d] = import->node->n_input > 1 ? dims[d] : (double)whole[d];
        if (dims[d] == 0 && d > 0)
            dims[d] = d < 4 && !x->flat ? (double)x->dims[d - 1] : dims[d];
    }
    return give_view(import, x, rank, dims);
}

static bool flatten(Import *import)
{
    Value *x = any_tensor(import, 0);
    if (!x)
        return false;
    if (attribute_int(import, "axis", 1) != 1)
        return import_lacks(import, "it flattens from another axis than 1");
    return give_alias(import, x, true);
}

/* Only the two last dimensions, where they are 1. */
static bool squeeze(Import *import, bool insert)
{
    double numbers[MAX_RANK];
    int64_t whole[MAX_RANK];
    Value *x = any_tensor(import, 0);
    bool from_operand = import->node->n_input > 1;
    int n = from_operand ? operand_numbers(import, 1, numbers, MAX_RANK)
                         : attribute_ints(import, "axes", whole, MAX_RANK);
    if (!x || n < 0)
        return false;
    int rank = x->flat ? 2 + x->half : 4, after = insert ? rank + n : rank - n;
    bool fits = x->dims[1] == 1 && x->dims[2] == 1 && !x->rows && n > 0 && after >= 2 && after <= 4;
    for (int i = 0; i < n; i++) {
        double axis = from_operand ? numbers[i] : (double)whole[i];
        axis += axis < 0 ? insert ? after : rank : 0;
        fits &= axis == 2 || axis == 3;
    }
    if (!fits)
        return import_lacks(import, "only [N, C, 1, 1] and [N, C] can be made of each other");
    if (!give_alias(import, x, after < 4))
        return false;
    result_again(import)->half = after == 3;
    return true;
}

static bool transpose(Import *import)
{
    int64_t order[MAX_RANK];
    Value *x = any_tensor(import, 0);
    int n = attribute_ints(import, "perm", order, MAX_RANK);
    bool same = n > 0;
    for (int i = 0; i < n; i++)
        same &= order[i] == i;
    if (x && !same)
        import_lacks(import, "the language does not transpose: export the network with [N, C, H, W]");
    return x && same && give_alias(import, x, x->flat);
}

/* The same view of the same tensor. */
static bool same(Import *import)
{
    Value *x = any_tensor(import, 0);
    if (!x || !give_alias(import, x, x->flat))
        return false;
    result_again(import)->half = x->half;
    result_again(import)->rows = x->rows;
    return true;
}

static bool cast(Import *import)
{
    int64_t to = attribute_int(import, "to", 0);
    if (to != FLOAT_TYPE)
        return import_lacks(import, "it casts to type %lld; tensors are float32", (long long)to);
    return same(import);
}

static bool softmax(Import *import)
{
    Value *x = need_tensor(import, 0);
    int64_t axis = attribute_int(import, "axis", import->opset < 13 ? 1 : -1);
    if (!x)
        return false;
    bool pixel = x->dims[1] == 1 && x->dims[2] == 1;
    bool channels = axis == 1 || (axis == -3 && !x->flat) || (axis == -1 && x->flat);
    if (!channels || (import->opset < 13 && !pixel))
        return import_lacks(import, "softmax goes over the channels: axis 1, opset 13 or newer");
    Line *line = give_line(import, x->dims, 1, &x, "softmax(%s)", x->variable);
    if (line)
        mark(line, MADE_SOFTMAX, x, 0);
    return line != NULL;
}

/* ---- all of them ----------------------------------------------------------------------------- */

typedef struct { const char *op, *text; } Simple;
static const Simple simple[] = {
    {"Relu", "relu($)"}, {"Sigmoid", "sigmoid($)"}, {"Neg", "0 - $"}, {"Reciprocal", "1 / $"},
    {"Tanh", "2 * sigmoid(2 * $) - 1"},
};

static bool translate_pointwise(Import *import, const char *op, bool *known)
{
    static const char *const signs[] = {"Add", "Sub", "Mul", "Div"};
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (!strcmp(op, simple[i].op))
            return unary(import, simple[i].text, 0, 0);
    for (int i = 0; i < 4; i++)
        if (!strcmp(op, signs[i]))
            return arithmetic(import, "+-*/"[i]);
    if (!strcmp(op, "LeakyRelu"))
        return unary(import, "leaky_relu($, slope = A)", attribute_float(import, "alpha", 0.01), 0);
    if (!strcmp(op, "Gelu") && attribute_is(import, "approximate", "none", true))
        return unary(import, "gelu($)", 0, 0);
    if (!strcmp(op, "Erf"))
        return erf_part(import);
    if (!strcmp(op, "Clip"))
        return clip(import);
    if (!strcmp(op, "HardSigmoid"))
        return hard_sigmoid(import, attribute_float(import, "alpha", 0.2),
                            attribute_float(import, "beta", 0.5), false);
    if (!strcmp(op, "HardSwish"))
        return hard_sigmoid(import, 1.0 / 6, 0.5, true);
    if (!strcmp(op, "Softmax"))
        return softmax(import);
    if (!strcmp(op, "Sum"))
        return sum(import);
    *known = false;
    return false;
}

static bool translate_view(Import *import, const char *op, bool *known)
{
    if (!strcmp(op, "Identity") || !strcmp(op, "Dropout"))
        return same(import);
    if (!strcmp(op, "Reshape"))
        return reshape(import);
    if (!strcmp(op, "Flatten"))
        return flatten(import);
    if (!strcmp(op, "Squeeze") || !strcmp(op, "Unsqueeze"))
        return squeeze(import, *op == 'U');
    if (!strcmp(op, "Transpose"))
        return transpose(import);
    if (!strcmp(op, "Cast"))
        return cast(import);
    *known = false;
    return false;
}

bool translate_node(Import *import)
{
    const Onnx__NodeProto *node = import->node;
    if (import->n_lines > 20 * MAX_LINES)
        return import_fail(import, "", "the network has more than %d operators", 20 * MAX_LINES);
    bool foreign = *node->domain && strcmp(node->domain, "ai.onnx");
    if (!foreign && is_foldable(import))
        return fold_node(import);
    if (import->failed)
        return false;
    bool (*const parts[])(Import *, const char *, bool *) = {translate_pointwise, translate_view,
                                                             translate_layer, translate_size};
    for (int i = 0; i < 4 && !foreign; i++) {
        bool known = true, done = parts[i](import, node->op_type, &known);
        if (known)
            return done;
    }
    return import_lacks(import, "the language has no such operator%s%.60s", foreign ? ": domain " : "",
                        foreign ? node->domain : "");
}
