/* libFuzzer: an ONNX file into `segc import`. See make fuzz.
 *
 * A changed byte of a protobuf file mostly breaks a length, and nothing behind it is reached. So
 * three in four changes are made to the message: other operators, operands, attributes, shapes.
 */
#include <stdlib.h>
#include <string.h>

#include "compiler/onnx/import.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
size_t LLVMFuzzerMutate(uint8_t *bytes, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t room, unsigned int seed);

static bool import_once(const ImportOptions *options, const uint8_t *bytes, size_t size)
{
    Arena *arena = arena_open();
    Error error = {0};
    SafeTensors weights = {0};
    Onnx__ModelProto *message = NULL;
    const char *text = NULL;
    bool done = import_onnx(arena, options, bytes, size, &text, &weights, &message, &error);
    if (message)
        onnx__model_proto__free_unpacked(message, NULL);
    arena_close(arena);
    return done;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    ImportOptions options = {.path = "/nowhere/fuzz.onnx", .weights = "fuzz.safetensors"};
    import_once(&options, bytes, size);
    options.as_is = true;
    options.height = options.width = 32; /* where the file leaves them open */
    import_once(&options, bytes, size);
    return 0;
}

/* ---- changes to the message ------------------------------------------------------------------ */

static uint32_t random_below(uint64_t *state, size_t n)
{
    *state = *state * 6364136223846793005 + 1442695040888963407;
    return n ? (uint32_t)((*state >> 33) % n) : 0;
}

static int64_t odd_number(uint64_t *state)
{
    static const int64_t numbers[] = {0, 1, 2, 3, 4, 7, 8, 16, 255, -1, -2, 1 << 16, INT32_MAX,
                                      (int64_t)1 << 32, (int64_t)1 << 62, INT64_MAX, INT64_MIN};
    return numbers[random_below(state, sizeof numbers / sizeof *numbers)];
}

static void set_text(char **text, const char *value)
{
    if (*text != protobuf_c_empty_string)
        free(*text);
    *text = strdup(value);
}

static const char *any_name(const Onnx__GraphProto *graph, uint64_t *state)
{
    if (graph->n_initializer && random_below(state, 3) == 0)
        return graph->initializer[random_below(state, graph->n_initializer)]->name;
    const Onnx__NodeProto *node = graph->node[random_below(state, graph->n_node)];
    return node->n_output ? node->output[0] : "";
}

static void change_attribute(Onnx__AttributeProto *attribute, uint64_t *state)
{
    static char *const words[] = {"linear", "nearest", "cubic", "half_pixel", "asymmetric", "VALID",
                                  "SAME_UPPER", "align_corners", "pytorch_half_pixel", "reflect"};
    switch (random_below(state, 5)) {
    case 0: attribute->i = odd_number(state); break;
    case 1: attribute->f = (float)odd_number(state); break;
    case 2: attribute->type = (int)random_below(state, 9); break;
    case 3:
        if (attribute->n_ints && random_below(state, 4) == 0)
            attribute->n_ints--;
        else if (attribute->n_ints)
            attribute->ints[random_below(state, attribute->n_ints)] = odd_number(state);
        break;
    case 4: {
        const char *word = words[random_below(state, sizeof words / sizeof *words)];
        if (attribute->s.data)
            free(attribute->s.data);
        attribute->s = (ProtobufCBinaryData){.len = strlen(word), .data = (uint8_t *)strdup(word)};
    }
    }
}

static void change_node(const Onnx__GraphProto *graph, Onnx__NodeProto *node, uint64_t *state)
{
    static const char *const operators[] = {
        "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant",
        "ConstantOfShape", "Conv", "ConvTranspose", "Div", "Dropout", "Equal", "Erf", "Expand",
        "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid",
        "HardSwish", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Neg", "Pad", "Range",
        "Reciprocal", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape",
        "Sigmoid", "Slice", "Softmax", "Squeeze", "Sub", "Sum", "Tanh", "Transpose", "Unsqueeze",
        "Upsample", "Where"};
    switch (random_below(state, 4)) {
    case 0:
        set_text(&node->op_type, operators[random_below(state, sizeof operators / sizeof *operators)]);
        break;
    case 1:
        if (node->n_input)
            set_text(&node->input[random_below(state, node->n_input)], any_name(graph, state));
        break;
    case 2:
        if (node->n_attribute)
            change_attribute(node->attribute[random_below(state, node->n_attribute)], state);
        break;
    case 3:
        if (node->n_input)
            free(node->input[--node->n_input]);
        break;
    }
}

static void change_tensor(Onnx__TensorProto *tensor, uint64_t *state)
{
    switch (random_below(state, 4)) {
    case 0:
        if (tensor->n_dims)
            tensor->dims[random_below(state, tensor->n_dims)] = odd_number(state);
        break;
    case 1: tensor->data_type = (int)random_below(state, 17); break;
    case 2:
        if (tensor->n_dims)
            tensor->n_dims--;
        break;
    case 3:
        if (tensor->raw_data.len >= 8) {
            int64_t number = odd_number(state);
            memcpy(tensor->raw_data.data + random_below(state, tensor->raw_data.len / 8) * 8,
                   &number, 8);
        }
    }
}

static void change_model(Onnx__ModelProto *model, uint64_t *state)
{
    Onnx__GraphProto *graph = model->graph;
    uint32_t kind = random_below(state, 16);
    if (kind < 9) {
        change_node(graph, graph->node[random_below(state, graph->n_node)], state);
    } else if (kind < 12 && graph->n_initializer) {
        change_tensor(graph->initializer[random_below(state, graph->n_initializer)], state);
    } else if (kind == 12) {
        Onnx__NodeProto **a = &graph->node[random_below(state, graph->n_node)];
        Onnx__NodeProto **b = &graph->node[random_below(state, graph->n_node)], *kept = *a;
        *a = *b;
        *b = kept;
    } else if (kind == 13 && model->n_opset_import) {
        model->opset_import[0]->version = 5 + random_below(state, 20);
    } else if (kind == 14 && graph->n_input && graph->input[0]->type
               && graph->input[0]->type->tensor_type && graph->input[0]->type->tensor_type->shape) {
        Onnx__TensorShapeProto *shape = graph->input[0]->type->tensor_type->shape;
        if (shape->n_dim)
            shape->dim[random_below(state, shape->n_dim)]->dim_value = odd_number(state);
    } else if (graph->n_node > 1) {
        onnx__node_proto__free_unpacked(graph->node[--graph->n_node], NULL);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t room, unsigned int seed)
{
    uint64_t state = seed;
    Onnx__ModelProto *model = random_below(&state, 4)
                            ? onnx__model_proto__unpack(NULL, size, bytes) : NULL;
    size_t length = 0;
    if (model && model->graph && model->graph->n_node) {
        for (uint32_t i = 0, n = 1 + random_below(&state, 3); i < n; i++)
            change_model(model, &state);
        length = onnx__model_proto__get_packed_size(model);
        if (length <= room)
            onnx__model_proto__pack(model, bytes);
    }
    if (model)
        onnx__model_proto__free_unpacked(model, NULL);
    return length && length <= room ? length : LLVMFuzzerMutate(bytes, size, room);
}
