/* Nodes with weights or windows: Conv, Gemm, BatchNormalization, pools, reductions.
 *
 * The language has square windows and padding that is the same on all sides. Each node is checked
 * against that; what does not fit is an error that says what the file has and what the language has.
 * Layers that share weights are found by their constants, and become one statement (text.c).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import.h"

typedef struct { int64_t kernel, stride, dilation, padding; bool ceil; } Window;

/* ---- windows --------------------------------------------------------------------------------- */

/* Two numbers that must be equal. */
static bool square(Import *import, const char *name, int64_t least, int64_t *out)
{
    int64_t values[MAX_RANK];
    int n = attribute_ints(import, name, values, MAX_RANK);
    if (n == 0)
        return !import->failed;
    if (n != 2)
        return import_lacks(import, "%s has %d numbers: only pictures have two dimensions", name, n);
    if (values[0] != values[1])
        return import_lacks(import, "%s is %lld x %lld, and the language has it square", name,
                            (long long)values[0], (long long)values[1]);
    if (values[0] < least || values[0] > 65535)
        return import_fail(import, "the file is damaged: export it again", "%s is %lld", name,
                           (long long)values[0]);
    *out = values[0];
    return true;
}

/* pads, or what auto_pad makes of it for an input of this size. */
static bool read_padding(Import *import, const Value *x, Window *window)
{
    int64_t pads[MAX_RANK] = {0};
    int n = attribute_ints(import, "pads", pads, MAX_RANK);
    bool given = attribute_is(import, "auto_pad", "NOTSET", true);
    bool valid = attribute_is(import, "auto_pad", "VALID", false);
    if (!given && !valid) {
        for (int i = 0; i < 2; i++) {
            int64_t size = x->dims[1 + i], out = (size + window->stride - 1) / window->stride;
            int64_t total = (out - 1) * window->stride + window->dilation * (window->kernel - 1) + 1
                          - size;
            total = total < 0 ? 0 : total;
            pads[i] = total / 2;
            pads[2 + i] = total - total / 2;
        }
    } else if (n && n != 4) {
        return import_lacks(import, "pads has %d numbers", n);
    }
    for (int i = 1; i < 4; i++)
        if (pads[i] != pads[0])
            return import_lacks(import, "it pads %lld,%lld above and left and %lld,%lld below and "
                                "right, and the language pads all sides alike",
                                (long long)pads[0], (long long)pads[1], (long long)pads[2],
                                (long long)pads[3]);
    if (pads[0] < 0 || pads[0] > 65535)
        return import_lacks(import, "a padding of %lld", (long long)pads[0]);
    window->padding = valid ? 0 : pads[0];
    return !import->failed;
}

static bool read_window(Import *import, const Value *x, int64_t kernel, Window *window)
{
    *window = (Window){kernel, 1, 1, 0, false};
    if (!square(import, "kernel_shape", 1, &window->kernel)
        || !square(import, "strides", 1, &window->stride)
        || !square(import, "dilations", 1, &window->dilation) || !read_padding(import, x, window))
        return false;
    if (kernel && window->kernel != kernel)
        return import_fail(import, "the file is damaged: export it again",
                           "kernel_shape is %lld, and its weights are %lld wide",
                           (long long)window->kernel, (long long)kernel);
    window->ceil = attribute_int(import, "ceil_mode", 0) != 0;
    return window->kernel > 0 || import_fail(import, "", "it has no kernel_shape");
}

/* How often the window fits; 0 where it does not. */
static int64_t window_count(const Window *window, int64_t size)
{
    int64_t room = size + 2 * window->padding - window->dilation * (window->kernel - 1) - 1;
    return room < 0 ? 0 : room / window->stride + 1;
}

static const char *window_text(Import *import, const Window *window, int64_t usual_stride)
{
    Text text = {.arena = import->arena};
    text_printf(&text, "kernel = %lld", (long long)window->kernel);
    if (window->stride != usual_stride)
        text_printf(&text, ", stride = %lld", (long long)window->stride);
    if (window->padding)
        text_printf(&text, ", padding = %lld", (long long)window->padding);
    if (window->dilation != 1)
        text_printf(&text, ", dilation = %lld", (long long)window->dilation);
    return text.text;
}

/* ---- layers ---------------------------------------------------------------------------------- */

/* The module that the weight belongs to, else the node's own place or name. */
static const char *instance_name(Import *import, const Constant *weight)
{
    static const char ending[] = ".weight";
    const Onnx__NodeProto *node = import->node;
    size_t length = strlen(weight->name), end = sizeof ending - 1;
    bool named = length > end && !strcmp(weight->name + length - end, ending);
    const char *wanted = named
        ? plain_path(import, arena_printf(import->arena, "%.*s", (int)(length - end), weight->name),
                     "", true)
        : plain_path(import, strchr(node->name, '/') ? node->name : node->output[0], node->op_type,
                     true);
    return new_instance(import, *wanted ? wanted : "layer");
}

static bool add_weight(Import *import, Line *line, const char *suffix, Constant *constant, int rank,
                       const int64_t *dims)
{
    const float *floats = constant_floats(import, constant);
    if (!floats)
        return false;
    Weight *weight = &line->weights[line->n_weights++];
    *weight = (Weight){.suffix = suffix, .rank = rank, .floats = floats};
    memcpy(weight->dims, dims, (size_t)rank * sizeof *dims);
    return true;
}

/* conv(x, arguments): the layer whose weights `key` names, perhaps one that is there already. */
static Line *give_layer(Import *import, const char *layer, Value *x, const int64_t dims[3],
                        Constant *key, const Constant *bias, const char *arguments)
{
    Line *line = give_line(import, dims, 1, &x, "%s", arguments);
    if (!line)
        return NULL;
    line->layer = layer;
    line->operand = x->variable;
    line->key_bias = bias;
    Line *first = key->user;
    if (first && !strcmp(first->layer, layer) && strcmp(layer, "batch_norm")
        && !strcmp(first->text, line->text) && first->key_bias == bias && !first->late_bias) {
        Line *last = first;
        while (last->shared)
            last = last->shared;
        last->shared = line;
        line->leader = first;
        return line;
    }
    key->user = line;
    line->instance = instance_name(import, key);
    return line;
}

static Constant *weight_operand(Import *import, size_t index, int rank)
{
    Value *value = operand(import, index);
    if (!value || !value->constant) {
        import_lacks(import, "its weights are %s", value ? "computed, not constants" : "missing");
        return NULL;
    }
    if (rank && value->constant->rank != rank) {
        import_lacks(import, "its weights have %d dimensions, not %d: only layers on pictures",
                     value->constant->rank, rank);
        return NULL;
    }
    if (!value->constant->count || constant_is_integer(value->constant)) {
        import_fail(import, "export it with float32 weights", "its weights are %s",
                    value->constant->count ? "integers" : "empty");
        return NULL;
    }
    return value->constant;
}

/* A list of `count` numbers; *there says whether it is given. */
static Constant *vector_operand(Import *import, size_t index, int64_t count, bool *there)
{
    *there = index < import->node->n_input && *import->node->input[index];
    Constant *constant = *there ? weight_operand(import, index, 0) : NULL;
    if (constant && constant->count != count) {
        import_fail(import, "the file is damaged: export it again",
                    "a list of %lld numbers for %lld channels", (long long)constant->count,
                    (long long)count);
        return NULL;
    }
    return constant;
}

static bool finish_layer(Import *import, Line *line, Constant *weight, Constant *bias, int rank,
                         const int64_t *dims, int64_t channels)
{
    if (!line || line->leader != line)
        return line != NULL;
    line->takes_bias = !bias;
    return add_weight(import, line, "weight", weight, rank, dims)
        && (!bias || add_weight(import, line, "bias", bias, 1, &channels));
}

static bool conv(Import *import)
{
    Value *x = need_tensor(import, 0);
    Constant *weight = x ? weight_operand(import, 1, 4) : NULL;
    if (!weight)
        return false;
    bool has_bias, transposed = import->node->op_type[4] == 'T';
    const int64_t *w = weight->dims;
    int64_t groups = attribute_int(import, "group", 1), end = 0;
    if (groups < 1 || groups > INT32_MAX || w[0] > INT32_MAX || w[1] > INT32_MAX)
        return import_fail(import, "", "it has %lld groups", (long long)groups);
    int64_t channels = transposed ? w[1] * groups : w[0];
    if (w[2] != w[3])
        return import_lacks(import, "its weights are %lld x %lld, and the language has square kernels",
                            (long long)w[2], (long long)w[3]);
    if ((transposed ? w[0] : w[1] * groups) != x->dims[0] || channels % groups
        || x->dims[0] % groups)
        return import_fail(import, "the file is damaged: export it again",
                           "weights [%lld, %lld, ...] with %lld groups do not go with %lld channels",
                           (long long)w[0], (long long)w[1], (long long)groups,
                           (long long)x->dims[0]);
    Constant *bias = vector_operand(import, 2, channels, &has_bias);
    Window window;
    if ((has_bias && !bias) || !read_window(import, x, w[2], &window)
        || !square(import, "output_padding", 0, &end))
        return false;
    if (transposed && find_attribute(import, "output_shape"))
        return import_lacks(import, "it has an output_shape: export it with pads");
    int64_t dims[3] = {channels};
    for (int i = 1; i < 3; i++)
        dims[i] = !transposed ? window_count(&window, x->dims[i])
            : (x->dims[i] - 1) * window.stride + window.dilation * (window.kernel - 1) + 1 + end
              - 2 * window.padding;
    const char *arguments = arena_printf(import->arena, "%lld, %s%s%s", (long long)channels,
        window_text(import, &window, 1),
        end ? arena_printf(import->arena, ", output_padding = %lld", (long long)end) : "",
        groups > 1 ? arena_printf(import->arena, ", groups = %lld", (long long)groups) : "");
    Line *line = give_layer(import, transposed ? "conv_transpose" : "conv", x, dims, weight, bias,
                            arguments);
    return finish_layer(import, line, weight, bias, 4, w, channels);
}

/* [F, K] -> [K, F] */
static Constant *transposed_weight(Import *import, Constant *weight)
{
    const double *from = constant_numbers(import, weight);
    int64_t rows = weight->dims[0], columns = weight->dims[1];
    Constant *to = from ? new_constant(import, FLOAT_TYPE, 2, (int64_t[]){columns, rows}) : NULL;
    for (int64_t i = 0; to && i < rows; i++)
        for (int64_t k = 0; k < columns; k++)
            to->numbers[k * rows + i] = from[i * columns + k];
    return to;
}

/* Gemm and MatMul: the rows of a flat tensor by a matrix of weights. */
static bool linear(Import *import, bool gemm)
{
    Value *x = operand(import, 0);
    if (!x || x->constant || !x->flat || x->half)
        return import_lacks(import, "it multiplies what is no flat tensor [N, C] by something");
    if (x->bytes && !(x = need_tensor(import, 0)))
        return false;
    Constant *key = weight_operand(import, 1, 2);
    if (!key)
        return false;
    bool has_bias = false, by_rows = gemm && attribute_int(import, "transB", 0);
    int64_t channels = key->dims[by_rows ? 0 : 1], depth = key->dims[by_rows ? 1 : 0];
    if (gemm && (attribute_int(import, "transA", 0) || attribute_float(import, "alpha", 1) != 1
                 || attribute_float(import, "beta", 1) != 1))
        return import_lacks(import, "it has transA, alpha or beta");
    if (depth != x->dims[0] * x->dims[1] * x->dims[2])
        return import_fail(import, "the file is damaged, or --size is not what it was made for",
                           "weights for %lld numbers, and the tensor has %lld", (long long)depth,
                           (long long)(x->dims[0] * x->dims[1] * x->dims[2]));
    Constant *bias = gemm ? vector_operand(import, 2, channels, &has_bias) : NULL;
    Constant *weight = by_rows ? key : transposed_weight(import, key);
    if ((has_bias && !bias) || !weight)
        return false;
    Line *line = give_layer(import, "linear", x, (int64_t[]){channels, 1, 1}, key, bias,
                            arena_printf(import->arena, "%lld", (long long)channels));
    if (line)
        line->value->flat = true;
    return finish_layer(import, line, weight, bias, 2, (int64_t[]){channels, depth}, channels);
}

static bool batch_norm(Import *import)
{
    static const char *const suffixes[] = {"weight", "bias", "running_mean", "running_var"};
    Value *x = need_tensor(import, 0);
    Constant *lists[4];
    bool there;
    if (!x)
        return false;
    if (attribute_int(import, "training_mode", 0))
        return import_lacks(import, "it is in training mode: export the network with eval()");
    for (size_t i = 0; i < 4; i++)
        if (!(lists[i] = vector_operand(import, 1 + i, x->dims[0], &there)))
            return import_fail(import, "", "a list is missing");
    double eps = attribute_float(import, "epsilon", 1e-5);
    double momentum = 1 - attribute_float(import, "momentum", 0.9);
    Text text = {.arena = import->arena};
    text_append(&text, "", 0);
    if ((float)eps != 1e-5f)
        text_printf(&text, "%seps = %s", text.length ? ", " : "", number_text(import, eps));
    if (fabs(momentum - 0.1) > 1e-6 && momentum >= 0 && momentum <= 1)
        text_printf(&text, "%smomentum = %s", text.length ? ", " : "",
                    number_text(import, momentum));
    Line *line = give_layer(import, "batch_norm", x, x->dims, lists[0], NULL, text.text);
    for (int i = 0; line && i < 4; i++)
        if (!add_weight(import, line, suffixes[i], lists[i], 1, x->dims))
            return false;
    return line != NULL;
}

/* A number a channel: a convolution of one pixel and one channel each. */
bool give_affine(Import *import, Value *x, const Constant *scale, const Constant *shift)
{
    int64_t channels = x->dims[0];
    Constant *weight = (Constant *)scale, *bias = (Constant *)shift;
    if (!weight) {
        weight = new_constant(import, FLOAT_TYPE, 1, &channels);
        for (int64_t i = 0; weight && i < channels; i++)
            weight->numbers[i] = 1;
    }
    if (!weight)
        return false;
    Line *line = give_layer(import, "conv", x, x->dims, weight, bias,
                            arena_printf(import->arena, "%lld, kernel = 1, groups = %lld",
                                         (long long)channels, (long long)channels));
    if (!finish_layer(import, line, weight, bias, 4, (int64_t[]){channels, 1, 1, 1}, channels))
        return false;
    line->takes_bias = !bias;
    return true;
}

bool fill_normalize(Import *import, Line *line, const Value *x, const double *mean,
                    const double *scale, const char *constant)
{
    int64_t channels = x->dims[0];
    const char *dot = strrchr(constant, '.');
    const char *module = arena_printf(import->arena, "%.*s", dot ? (int)(dot - constant) : 0,
                                      constant);
    const char *wanted = plain_path(import, module, "", true);
    Text text = {.arena = import->arena};
    const double *lists[2] = {mean, scale};
    float *floats[2];
    for (int k = 0; k < 2; k++) {
        text_printf(&text, k ? "], std = [" : "mean = [");
        floats[k] = arena_alloc(import->arena, (size_t)channels * sizeof **floats);
        for (int64_t i = 0; i < channels; i++) {
            floats[k][i] = (float)lists[k][i];
            text_printf(&text, "%s%s", i ? ", " : "", number_text(import, k ? 1 / lists[k][i]
                                                                            : lists[k][i]));
        }
    }
    text_printf(&text, "]");
    line->layer = "normalize";
    line->operand = x->variable;
    line->text = text.text;
    line->instance = new_instance(import, *wanted ? wanted : "normalize");
    line->weights[0] = (Weight){"mean", 3, {channels, 1, 1}, floats[0]};
    line->weights[1] = (Weight){"scale", 3, {channels, 1, 1}, floats[1]};
    line->n_weights = 2;
    return !import->failed;
}

/* x + bias where x is a layer without one that nothing else reads. */
bool add_bias(Import *import, Value *x, Constant *bias)
{
    Line *line = x->line;
    if (!line || !line->takes_bias || line->value != x || x->uses != 1 || line->shared
        || line->leader != line || bias->count != line->dims[0])
        return false;
    line->takes_bias = false;
    line->late_bias = true;
    return add_weight(import, line, "bias", bias, 1, line->dims);
}

/* ---- pools and reductions -------------------------------------------------------------------- */

static bool pool(Import *import, bool largest)
{
    Value *x = need_tensor(import, 0);
    Window window;
    if (!x || !read_window(import, x, 0, &window))
        return false;
    if (window.dilation != 1)
        return import_lacks(import, "its window has gaps (dilations)");
    if (!largest && window.padding && !attribute_int(import, "count_include_pad", 0))
        return import_lacks(import, "its mean leaves the padding out (count_include_pad = 0), and the "
                            "language counts it");
    if (2 * window.padding > window.kernel)
        return import_lacks(import, "its padding is more than half of its kernel");
    int64_t dims[3] = {x->dims[0]};
    for (int i = 1; i < 3; i++) {
        dims[i] = window_count(&window, x->dims[i]);
        int64_t room = x->dims[i] + 2 * window.padding - window.kernel;
        if (window.ceil && room % window.stride)
            return import_lacks(import, "it rounds sizes up (ceil_mode), and the language down");
    }
    return give_line(import, dims, 1, &x, "%s(%s, %s)", largest ? "max_pool" : "avg_pool",
                     x->variable, window_text(import, &window, window.kernel)) != NULL;
}

static bool global_pool(Import *import, Value *x, const char *op, const char *more, bool flat)
{
    Line *line = x ? give_line(import, (int64_t[]){x->dims[0], 1, 1}, 1, &x, "%s(%s)%s", op,
                               x->variable, more) : NULL;
    if (line)
        line->value->flat = flat;
    return line != NULL;
}

/* ReduceMean, ReduceMax, ReduceSum over the channels, or over the pixels. */
static bool reduce(Import *import, char kind)
{
    double axes[MAX_RANK];
    int64_t listed[MAX_RANK];
    Value *x = any_tensor(import, 0);
    int n = import->node->n_input > 1 ? operand_numbers(import, 1, axes, MAX_RANK)
                                      : attribute_ints(import, "axes", listed, MAX_RANK);
    unsigned found = 0;
    if (!x || n < 0)
        return false;
    int rank = x->rows ? 3 : 4;
    for (int i = 0; i < n; i++) {
        double axis = import->node->n_input > 1 ? axes[i] : (double)listed[i];
        axis += axis < 0 ? rank : 0;
        found |= axis >= 1 && axis <= 3 ? 1u << (int)axis : 16;
    }
    bool rows = x->rows && found == 4; /* over H*W */
    if (!rows && !(x = need_tensor(import, 0)))
        return false;
    found = rows ? 12 : found;
    bool keep = attribute_int(import, "keepdims", 1) != 0, sum = kind == 'S';
    if (x->flat || (found != 2 && found != 12) || (found == 2 && !keep))
        return import_lacks(import, "the language reduces over the channels (axis 1, keepdims), or "
                            "over the pixels (axes 2, 3)");
    const char *name = x->variable;
    if (found == 12 && !global_pool(import, x, kind == 'a' ? "global_max_pool" : "global_avg_pool",
                                    sum ? arena_printf(import->arena, " * (height(%s) * width(%s))",
                                                       name, name) : "", !keep || rows))
        return false;
    if (found == 12) {
        import->lines[import->n_lines - 1]->value->half = keep && rows;
        return true;
    }
    return give_line(import, (int64_t[]){1, x->dims[1], x->dims[2]}, 1, &x, "%s(%s)%s",
                     kind == 'a' ? "channel_max" : "channel_mean", name,
                     sum ? arena_printf(import->arena, " * channels(%s)", name) : "") != NULL;
}

/* ---- all of them ----------------------------------------------------------------------------- */

bool translate_layer(Import *import, const char *op, bool *known)
{
    if (!strcmp(op, "Conv") || !strcmp(op, "ConvTranspose"))
        return conv(import);
    if (!strcmp(op, "Gemm") || !strcmp(op, "MatMul"))
        return linear(import, *op == 'G');
    if (!strcmp(op, "BatchNormalization"))
        return batch_norm(import);
    if (!strcmp(op, "MaxPool") || !strcmp(op, "AveragePool"))
        return pool(import, *op == 'M');
    if (!strcmp(op, "GlobalAveragePool") || !strcmp(op, "GlobalMaxPool"))
        return global_pool(import, need_tensor(import, 0),
                           op[6] == 'A' ? "global_avg_pool" : "global_max_pool", "", false);
    if (!strcmp(op, "ReduceMean") || !strcmp(op, "ReduceSum"))
        return reduce(import, op[6] == 'S' ? 'S' : 'e');
    if (!strcmp(op, "ReduceMax"))
        return reduce(import, 'a');
    *known = false;
    return false;
}
