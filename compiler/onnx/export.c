/* The program predict as an ONNX file, opset 17: graph -> messages -> bytes.
 *
 * In: the model's graph after infer, and a safetensors file with its weights. Out: one file with the
 * weights inside and the batch left open (`N`). The graph is the one of specialise, before simplify
 * folds batch norms: an affine with coefficients from running statistics is a BatchNormalization
 * again, so that the file says what the model says.
 *
 * Names: parameters, inputs and outputs keep theirs; a value that the model names has that name, any
 * other that of the layer whose weight it uses, or of its operator; where one is taken, _2, _3, ...
 * follow. Nodes are called as their result is. Operators that ONNX lacks become several nodes.
 *
 * Pictures stay bytes: the input is uint8 and is cast where it is first computed with.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../weights.h"
#include "onnx.pb-c.h"

enum { OPSET = 17, IR_VERSION = 8, LARGEST_TEXT = 64 << 10, MAX_ATTRIBUTES = 8 };
static const int64_t LARGEST_FILE = INT64_C(2) << 30; /* of protobuf: lengths are 31 bits */

typedef struct {
    Compilation *compilation;
    Arena *arena;
    Graph *graph;
    const char *parameters;        /* the slab */
    Onnx__GraphProto *out;
    int node_capacity, initializer_capacity;
    const char **names;            /* of each graph node's value, by id */
    const char **floats;           /* by id: the name of a byte tensor's cast */
    const char **taken; int n_taken, taken_capacity; /* interned names in use: a hash table */
} Export;

/* ---- names ----------------------------------------------------------------------------------- */

static bool is_taken(const Export *e, const char *name)
{
    if (!e->taken_capacity)
        return false;
    size_t mask = (size_t)e->taken_capacity - 1, slot = ((uintptr_t)name >> 4) * 0x9E3779B1u & mask;
    while (e->taken[slot] && e->taken[slot] != name)
        slot = (slot + 1) & mask;
    return e->taken[slot] != NULL;
}

static void take(Export *e, const char *name)
{
    if (2 * e->n_taken >= e->taken_capacity) {
        const char **old = e->taken;
        int capacity = e->taken_capacity;
        e->taken_capacity = capacity ? 2 * capacity : 256;
        e->taken = arena_alloc(e->arena, (size_t)e->taken_capacity * sizeof *e->taken);
        e->n_taken = 0;
        for (int i = 0; i < capacity; i++)
            if (old[i])
                take(e, old[i]);
    }
    size_t mask = (size_t)e->taken_capacity - 1, slot = ((uintptr_t)name >> 4) * 0x9E3779B1u & mask;
    while (e->taken[slot] && e->taken[slot] != name)
        slot = (slot + 1) & mask;
    e->n_taken += e->taken[slot] == NULL;
    e->taken[slot] = name;
}

/* `wanted`, or with a number behind it. */
static const char *new_name(Export *e, const char *wanted)
{
    const char *name = intern(e->arena, wanted, strlen(wanted));
    for (int i = 2; is_taken(e, name); i++) {
        const char *next = arena_printf(e->arena, "%s_%d", wanted, i);
        name = intern(e->arena, next, strlen(next));
    }
    take(e, name);
    return name;
}

/* What a value is called where the model does not say: its layer, else its operator. */
static const char *plain_name(Export *e, const Node *node)
{
    static const char ending[] = ".weight";
    const Node *weight = node->n_inputs > 1 ? node->inputs[1] : NULL;
    if (weight && weight->op == OP_BATCH_NORM_RUNNING)
        weight = weight->inputs[2];
    if (!weight || weight->op != OP_PARAMETER)
        return op_facts[node->op].name;
    size_t length = strlen(weight->name), end = sizeof ending - 1;
    if (length > end && !strcmp(weight->name + length - end, ending))
        length -= end;
    return arena_printf(e->arena, "%.*s", (int)length, weight->name);
}

static const char *result_name(const Export *e, const Node *node)
{
    for (int i = 0; i < e->graph->n_results; i++)
        if (e->graph->results[i].node == node)
            return e->graph->results[i].name;
    return NULL;
}

/* Those that are given come first: a value takes none of them. */
static void name_values(Export *e)
{
    const Graph *graph = e->graph;
    e->names = arena_alloc(e->arena, (size_t)(graph->next_id + 1) * sizeof *e->names);
    e->floats = arena_alloc(e->arena, (size_t)(graph->next_id + 1) * sizeof *e->floats);
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        if (op_facts[node->op].kind == KIND_SOURCE && node->op != OP_CONSTANT)
            e->names[node->id] = new_name(e, node->name);
    }
    for (int i = 0; i < graph->n_results; i++) {
        const Node *node = graph->results[i].node;
        if (!e->names[node->id])
            e->names[node->id] = new_name(e, graph->results[i].name);
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        if (!e->names[node->id] && node->op != OP_BATCH_NORM_RUNNING)
            e->names[node->id] = new_name(e, node->name ? node->name : plain_name(e, node));
    }
}

/* ---- messages -------------------------------------------------------------------------------- */

static void *grow(Export *e, void *list, size_t count, int *capacity)
{
    if (count < (size_t)*capacity)
        return list;
    size_t bytes = (size_t)*capacity * sizeof(void *);
    *capacity = *capacity ? 2 * *capacity : 64;
    return arena_grow(e->arena, list, bytes, (size_t)*capacity * sizeof(void *));
}

static char **text_list(Export *e, int count, const char *const *texts)
{
    char **list = arena_alloc(e->arena, (size_t)(count + 1) * sizeof *list);
    for (int i = 0; i < count; i++)
        list[i] = (char *)texts[i];
    return list;
}

/* A node with one result, which names it. */
static Onnx__NodeProto *add_node(Export *e, const char *op, const char *result, int n_inputs,
                                 const char *const *inputs)
{
    Onnx__NodeProto *node = arena_alloc(e->arena, sizeof *node);
    onnx__node_proto__init(node);
    node->op_type = (char *)op;
    node->name = (char *)result;
    node->n_input = (size_t)n_inputs;
    node->input = text_list(e, n_inputs, inputs);
    node->n_output = 1;
    node->output = text_list(e, 1, &result);
    node->attribute = arena_alloc(e->arena, MAX_ATTRIBUTES * sizeof *node->attribute);
    e->out->node = grow(e, e->out->node, e->out->n_node, &e->node_capacity);
    e->out->node[e->out->n_node++] = node;
    return node;
}

static Onnx__AttributeProto *add_attribute(Export *e, Onnx__NodeProto *node, const char *name,
                                           int type)
{
    Onnx__AttributeProto *attribute = arena_alloc(e->arena, sizeof *attribute);
    onnx__attribute_proto__init(attribute);
    attribute->name = (char *)name;
    attribute->type = type;
    if (node->n_attribute == MAX_ATTRIBUTES)
        bug("%s has more than %d attributes", node->op_type, MAX_ATTRIBUTES);
    node->attribute[node->n_attribute++] = attribute;
    return attribute;
}

static void add_int(Export *e, Onnx__NodeProto *node, const char *name, int64_t value)
{
    add_attribute(e, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT)->i = value;
}

static void add_float(Export *e, Onnx__NodeProto *node, const char *name, double value)
{
    add_attribute(e, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT)->f = (float)value;
}

static void add_text(Export *e, Onnx__NodeProto *node, const char *name, const char *value)
{
    Onnx__AttributeProto *attribute =
        add_attribute(e, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    attribute->s = (ProtobufCBinaryData){strlen(value), (uint8_t *)value};
}

/* The same number `count` times. */
static void add_ints(Export *e, Onnx__NodeProto *node, const char *name, int count, double value)
{
    Onnx__AttributeProto *attribute =
        add_attribute(e, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    attribute->ints = arena_alloc(e->arena, (size_t)count * sizeof *attribute->ints);
    attribute->n_ints = (size_t)count;
    for (int i = 0; i < count; i++)
        attribute->ints[i] = (int64_t)value;
}

static const char *add_initializer(Export *e, const char *name, int type, int rank,
                                   const int64_t *dims, const void *data, size_t bytes)
{
    Onnx__TensorProto *tensor = arena_alloc(e->arena, sizeof *tensor);
    onnx__tensor_proto__init(tensor);
    tensor->name = (char *)name;
    tensor->data_type = type;
    tensor->n_dims = (size_t)rank;
    tensor->dims = arena_alloc(e->arena, (size_t)(rank + 1) * sizeof *dims);
    if (rank)
        memcpy(tensor->dims, dims, (size_t)rank * sizeof *dims);
    tensor->raw_data = (ProtobufCBinaryData){bytes, (uint8_t *)data};
    Onnx__GraphProto *out = e->out;
    out->initializer = grow(e, out->initializer, out->n_initializer, &e->initializer_capacity);
    out->initializer[out->n_initializer++] = tensor;
    return name;
}

/* A number as a tensor of rank 0. */
static const char *add_number(Export *e, const char *name, double value)
{
    float *number = arena_alloc(e->arena, sizeof *number);
    *number = (float)value;
    return add_initializer(e, name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, 0, NULL, number,
                           sizeof *number);
}

static const char *add_integers(Export *e, const char *wanted, int64_t count, const int64_t *values)
{
    size_t bytes = (size_t)count * sizeof *values;
    return add_initializer(e, new_name(e, wanted), ONNX__TENSOR_PROTO__DATA_TYPE__INT64, 1, &count,
                           memcpy(arena_alloc(e->arena, bytes), values, bytes), bytes);
}

/* ---- operators ------------------------------------------------------------------------------- */

static const char *input_name(Export *e, const Node *node, int i)
{
    return e->names[node->inputs[i]->id];
}

/* As numbers that can be computed with: bytes are cast, once each. */
static const char *float_name(Export *e, const Node *node, int i)
{
    const Node *input = node->inputs[i];
    if (input->type != TYPE_U8)
        return e->names[input->id];
    if (!e->floats[input->id]) {
        const char *name = new_name(e, arena_printf(e->arena, "%s.f32", input->name));
        Onnx__NodeProto *cast = add_node(e, "Cast", name, 1, &e->names[input->id]);
        add_int(e, cast, "to", ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT);
        e->floats[input->id] = name;
    }
    return e->floats[input->id];
}

/* The node's own operator on its operands. */
static Onnx__NodeProto *add_plain(Export *e, const Node *node, const char *op)
{
    const char *inputs[3];
    int count = node->n_inputs < 3 ? node->n_inputs : 3;
    for (int i = 0; i < count; i++)
        inputs[i] = float_name(e, node, i);
    return add_node(e, op, e->names[node->id], count, inputs);
}

/* A step on the way to the node's result. */
static const char *add_step(Export *e, const Node *node, const char *op, const char *a,
                            const char *b)
{
    const char *name = new_name(e, arena_printf(e->arena, "%s.%s", e->names[node->id], op));
    add_node(e, op, name, b ? 2 : 1, (const char *[]){a, b});
    return name;
}

static void add_windows(Export *e, const Node *node, Onnx__NodeProto *out)
{
    add_ints(e, out, "kernel_shape", 2, node->attr[ATTR_KERNEL]);
    add_ints(e, out, "strides", 2, node->attr[ATTR_STRIDE]);
    add_ints(e, out, "pads", 4, node->attr[ATTR_PADDING]);
}

static void add_conv(Export *e, const Node *node)
{
    bool transposed = node->op == OP_CONV_TRANSPOSE;
    Onnx__NodeProto *out = add_plain(e, node, transposed ? "ConvTranspose" : "Conv");
    add_windows(e, node, out);
    add_ints(e, out, "dilations", 2, node->attr[ATTR_DILATION]);
    add_int(e, out, "group", (int64_t)node->attr[ATTR_GROUPS]);
    if (transposed)
        add_ints(e, out, "output_padding", 2, node->attr[ATTR_OUTPUT_PADDING]);
}

/* Flatten, Gemm with the weight transposed, and two dimensions of 1 behind the result. */
static void add_linear(Export *e, const Node *node)
{
    const char *name = e->names[node->id], *flat, *product;
    flat = add_step(e, node, "Flatten", input_name(e, node, 0), NULL);
    product = new_name(e, arena_printf(e->arena, "%s.Gemm", name));
    const char *inputs[3] = {flat, input_name(e, node, 1),
                             node->n_inputs > 2 ? input_name(e, node, 2) : NULL};
    add_int(e, add_node(e, "Gemm", product, node->n_inputs, inputs), "transB", 1);
    const char *axes = add_integers(e, arena_printf(e->arena, "%s.axes", name), 2,
                                    (int64_t[]){2, 3});
    add_node(e, "Unsqueeze", name, 2, (const char *[]){product, axes});
}

/* affine(x, batch_norm_running(mean, var, weight, bias)) */
static void add_batch_norm(Export *e, const Node *node)
{
    const Node *statistics = node->inputs[1];
    if (statistics->op != OP_BATCH_NORM_RUNNING)
        bug("affine without running statistics has no form in ONNX");
    const char *inputs[5] = {input_name(e, node, 0), input_name(e, statistics, 2),
                             input_name(e, statistics, 3), input_name(e, statistics, 0),
                             input_name(e, statistics, 1)};
    Onnx__NodeProto *out = add_node(e, "BatchNormalization", e->names[node->id], 5, inputs);
    add_float(e, out, "epsilon", statistics->attr[ATTR_EPS]);
}

static void add_silu(Export *e, const Node *node)
{
    const char *x = input_name(e, node, 0), *gate = add_step(e, node, "Sigmoid", x, NULL);
    add_node(e, "Mul", e->names[node->id], 2, (const char *[]){x, gate});
}

/* x * (erf(x / sqrt 2) + 1) * 0.5 */
static void add_gelu(Export *e, const Node *node)
{
    const char *x = input_name(e, node, 0), *name = e->names[node->id];
    const char *root = add_number(e, new_name(e, arena_printf(e->arena, "%s.root", name)),
                                  1.4142135623730951);
    const char *one = add_number(e, new_name(e, arena_printf(e->arena, "%s.one", name)), 1);
    const char *half = add_number(e, new_name(e, arena_printf(e->arena, "%s.half", name)), 0.5);
    const char *step = add_step(e, node, "Div", x, root);
    step = add_step(e, node, "Erf", step, NULL);
    step = add_step(e, node, "Add", step, one);
    step = add_step(e, node, "Mul", x, step);
    add_node(e, "Mul", name, 2, (const char *[]){step, half});
}

static void add_upsample(Export *e, const Node *node)
{
    bool nearest = node->attr[ATTR_MODE] == MODE_NEAREST;
    int64_t four = 4;
    float *scales = arena_alloc(e->arena, 4 * sizeof *scales);
    scales[0] = scales[1] = 1;
    scales[2] = scales[3] = (float)node->attr[ATTR_SCALE];
    const char *name = new_name(e, arena_printf(e->arena, "%s.scales", e->names[node->id]));
    add_initializer(e, name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, 1, &four, scales,
                    4 * sizeof *scales);
    Onnx__NodeProto *out = add_node(e, "Resize", e->names[node->id], 3,
                                    (const char *[]){input_name(e, node, 0), "", name});
    add_text(e, out, "mode", nearest ? "nearest" : "linear");
    add_text(e, out, "coordinate_transformation_mode", nearest ? "asymmetric" : "half_pixel");
    if (nearest)
        add_text(e, out, "nearest_mode", "floor");
}

static void add_pad(Export *e, const Node *node)
{
    const int64_t *x = node->inputs[0]->shape.dims, *y = node->shape.dims;
    int64_t top = (int64_t)node->attr[ATTR_TOP], left = (int64_t)node->attr[ATTR_LEFT];
    int64_t pads[8] = {0, 0, top, left, 0, 0, y[1] - x[1] - top, y[2] - x[2] - left};
    const char *name = e->names[node->id];
    const char *amounts = add_integers(e, arena_printf(e->arena, "%s.pads", name), 8, pads);
    add_node(e, "Pad", name, 2, (const char *[]){input_name(e, node, 0), amounts});
}

static void add_crop(Export *e, const Node *node)
{
    const int64_t *y = node->shape.dims;
    int64_t top = (int64_t)node->attr[ATTR_TOP], left = (int64_t)node->attr[ATTR_LEFT];
    const char *name = e->names[node->id];
    const char *inputs[4] = {
        input_name(e, node, 0),
        add_integers(e, arena_printf(e->arena, "%s.starts", name), 2, (int64_t[]){top, left}),
        add_integers(e, arena_printf(e->arena, "%s.ends", name), 2,
                     (int64_t[]){top + y[1], left + y[2]}),
        add_integers(e, arena_printf(e->arena, "%s.axes", name), 2, (int64_t[]){2, 3})};
    add_node(e, "Slice", name, 4, inputs);
}

static void add_concat(Export *e, const Node *node)
{
    const char **inputs = arena_alloc(e->arena, (size_t)node->n_inputs * sizeof *inputs);
    for (int i = 0; i < node->n_inputs; i++)
        inputs[i] = input_name(e, node, i);
    add_int(e, add_node(e, "Concat", e->names[node->id], node->n_inputs, inputs), "axis", 1);
}

static void add_over_channels(Export *e, const Node *node, const char *op)
{
    Onnx__NodeProto *out = add_plain(e, node, op);
    add_ints(e, out, "axes", 1, 1);
    add_int(e, out, "keepdims", 1);
}

static void add_source(Export *e, const Node *node)
{
    if (node->op == OP_CONSTANT)
        add_number(e, e->names[node->id], node->attr[ATTR_VALUE]);
    else if (node->op != OP_INPUT)
        add_initializer(e, e->names[node->id], ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
                        node->shape.rank, node->shape.dims, e->parameters + node->offset,
                        (size_t)shape_count(node->shape) * sizeof(float));
}

/* Operators of a model. Those that passes make for training do not come here: false. (No warning for
 * a new operator: until it has a row here, --export says that it has no form in ONNX.) */
static bool add_operator(Export *e, const Node *node)
{
    switch ((int)node->op) {
    case OP_INPUT: case OP_PARAMETER: case OP_BUFFER: case OP_CONSTANT: add_source(e, node); break;
    case OP_CONV: case OP_CONV_TRANSPOSE: add_conv(e, node); break;
    case OP_LINEAR: add_linear(e, node); break;
    case OP_BATCH_NORM_RUNNING: break; /* an operand of the affine that follows */
    case OP_AFFINE: add_batch_norm(e, node); break;
    case OP_RELU: add_plain(e, node, "Relu"); break;
    case OP_LEAKY_RELU:
        add_float(e, add_plain(e, node, "LeakyRelu"), "alpha", node->attr[ATTR_SLOPE]);
        break;
    case OP_SILU: add_silu(e, node); break;
    case OP_GELU: add_gelu(e, node); break;
    case OP_SIGMOID: add_plain(e, node, "Sigmoid"); break;
    case OP_ADD: add_plain(e, node, "Add"); break;
    case OP_SUB: add_plain(e, node, "Sub"); break;
    case OP_MUL: add_plain(e, node, "Mul"); break;
    case OP_DIV: add_plain(e, node, "Div"); break;
    case OP_SOFTMAX: add_int(e, add_plain(e, node, "Softmax"), "axis", 1); break;
    case OP_GLOBAL_AVG_POOL: add_plain(e, node, "GlobalAveragePool"); break;
    case OP_GLOBAL_MAX_POOL: add_plain(e, node, "GlobalMaxPool"); break;
    case OP_CHANNEL_MEAN: add_over_channels(e, node, "ReduceMean"); break;
    case OP_CHANNEL_MAX: add_over_channels(e, node, "ReduceMax"); break;
    case OP_MAX_POOL: add_windows(e, node, add_plain(e, node, "MaxPool")); break;
    case OP_AVG_POOL: {
        Onnx__NodeProto *out = add_plain(e, node, "AveragePool");
        add_windows(e, node, out);
        add_int(e, out, "count_include_pad", 1);
        break;
    }
    case OP_UPSAMPLE: add_upsample(e, node); break;
    case OP_CONCAT: add_concat(e, node); break;
    case OP_PAD: add_pad(e, node); break;
    case OP_CROP: add_crop(e, node); break;
    default: return false;
    }
    return true;
}

/* ---- the model ------------------------------------------------------------------------------- */

/* uint8[N, 3, 256, 256] */
static Onnx__ValueInfoProto *value_info(Export *e, const char *name, const Node *node)
{
    Onnx__ValueInfoProto *info = arena_alloc(e->arena, sizeof *info);
    Onnx__TypeProto *type = arena_alloc(e->arena, sizeof *type);
    Onnx__TypeProto__Tensor *tensor = arena_alloc(e->arena, sizeof *tensor);
    Onnx__TensorShapeProto *shape = arena_alloc(e->arena, sizeof *shape);
    onnx__value_info_proto__init(info);
    onnx__type_proto__init(type);
    onnx__type_proto__tensor__init(tensor);
    onnx__tensor_shape_proto__init(shape);
    info->name = (char *)name;
    info->type = type;
    type->tensor_type = tensor;
    tensor->elem_type = node->type == TYPE_U8 ? ONNX__TENSOR_PROTO__DATA_TYPE__UINT8
                                              : ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    tensor->shape = shape;
    shape->n_dim = 4;
    shape->dim = arena_alloc(e->arena, shape->n_dim * sizeof *shape->dim);
    for (int i = 0; i < 4; i++) {
        shape->dim[i] = arena_alloc(e->arena, sizeof **shape->dim);
        onnx__tensor_shape_proto__dimension__init(shape->dim[i]);
        if (i == 0)
            shape->dim[i]->dim_param = (char *)"N";
        else
            shape->dim[i]->dim_value = node->shape.dims[i - 1];
    }
    return info;
}

static bool fill_graph(Export *e)
{
    Onnx__GraphProto *out = e->out;
    const Graph *graph = e->graph;
    name_values(e);
    out->name = (char *)graph->name;
    out->input = arena_alloc(e->arena, (size_t)(graph->n_nodes + 1) * sizeof *out->input);
    out->output = arena_alloc(e->arena, (size_t)(graph->n_results + 1) * sizeof *out->output);
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        if (node->op == OP_INPUT)
            out->input[out->n_input++] = value_info(e, node->name, node);
        if (!add_operator(e, node)) {
            error_at(e->compilation, node->loc, "--export: '%s' has no form in ONNX",
                     op_facts[node->op].name);
            return false;
        }
    }
    for (int i = 0; i < graph->n_results; i++) {
        const Result *result = &graph->results[i];
        const char *name = result->name;
        if (result_name(e, result->node) != name) /* one value under two names */
            add_node(e, "Identity", name = new_name(e, name), 1, &e->names[result->node->id]);
        out->output[out->n_output++] = value_info(e, name, result->node);
    }
    return true;
}

static void add_metadata(Export *e, Onnx__ModelProto *model, const char *key, const char *value)
{
    Onnx__StringStringEntryProto *entry = arena_alloc(e->arena, sizeof *entry);
    onnx__string_string_entry_proto__init(entry);
    char *text = memcpy(arena_alloc(e->arena, strlen(value) + 1), value, strlen(value) + 1);
    for (size_t i = 0, length = strlen(text); i < length;) {
        int bytes = utf8_length(text, i, length); /* readers refuse a file with other bytes */
        if (!bytes)
            text[i] = '?';
        i += bytes ? (size_t)bytes : 1;
    }
    entry->key = (char *)key;
    entry->value = text;
    model->metadata_props[model->n_metadata_props++] = entry;
}

static void fill_model(Export *e, Onnx__ModelProto *model)
{
    Compilation *c = e->compilation;
    Onnx__OperatorSetIdProto *opset = arena_alloc(c->arena, sizeof *opset);
    onnx__operator_set_id_proto__init(opset);
    opset->version = OPSET;
    model->ir_version = IR_VERSION;
    model->producer_name = (char *)"segc";
    model->producer_version = (char *)SEGC_VERSION;
    model->n_opset_import = 1;
    model->opset_import = arena_alloc(c->arena, sizeof *model->opset_import);
    model->opset_import[0] = opset;
    model->graph = e->out;
    model->metadata_props = arena_alloc(c->arena, 2 * sizeof *model->metadata_props);
    const char *text = sources_text(c);
    if (strlen(text) <= LARGEST_TEXT)
        add_metadata(e, model, "seg.model", text);
    Text defines = {.arena = c->arena};
    for (int i = 0; i < c->n_defines; i++)
        text_printf(&defines, "%s-D %s=%s", i ? " " : "", c->defines[i].name, c->defines[i].value);
    if (c->n_defines)
        add_metadata(e, model, "seg.options", defines.text);
}

/* ---- the file -------------------------------------------------------------------------------- */

/* The slab of parameters, filled; NULL after an error. Free with free(). */
static char *read_parameters(Compilation *c, Graph *model, const char *path)
{
    Plan *plan = arena_alloc(c->arena, sizeof *plan);
    plan->model = (char *)model->name;
    place_parameters(model, plan);
    if (plan->parameter_bytes <= LARGEST_FILE - (1 << 20))
        return read_weights(c, plan, path);
    error_at(c, (Loc){0}, "--export: the weights have %.1f GB, and an ONNX file of one piece "
             "holds 2 GB", 1e-9 * (double)plan->parameter_bytes);
    return NULL;
}

static bool write_model(Compilation *c, const Onnx__ModelProto *model, const char *path)
{
    Error error = {0};
    size_t size = onnx__model_proto__get_packed_size(model);
    if (size > (size_t)LARGEST_FILE - 1) {
        error_at(c, (Loc){0}, "--export: %.1f GB, and an ONNX file of one piece holds 2 GB",
                 1e-9 * (double)size);
        return false;
    }
    uint8_t *bytes = malloc(size + 1);
    bool written = false;
    if (bytes) {
        onnx__model_proto__pack(model, bytes);
        written = file_write(path, bytes, size, &error);
    } else {
        fail(&error, EXIT_ENVIRONMENT, "", "not enough memory to write %s", path);
    }
    free(bytes);
    return written || report_error(c, &error);
}

bool export_onnx(Compilation *c, Graph *model, const char *weights, const char *path)
{
    char *parameters = read_parameters(c, model, weights);
    if (!parameters)
        return false;
    Export e = {.compilation = c, .arena = c->arena, .parameters = parameters,
                .graph = specialise(model, PROGRAM_PREDICT)};
    e.out = arena_alloc(c->arena, sizeof *e.out);
    onnx__graph_proto__init(e.out);
    Onnx__ModelProto file;
    onnx__model_proto__init(&file);
    bool done = fill_graph(&e);
    if (done) {
        fill_model(&e, &file);
        done = write_model(c, &file, path);
    }
    free(parameters);
    return done;
}
