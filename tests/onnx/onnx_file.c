/* Small ONNX files for tests. */
#include "onnx_file.h"

#include <stdlib.h>
#include <string.h>

enum { ROOM = 64 };

OnnxFile *onnx_file_open(void)
{
    Arena *arena = arena_open();
    OnnxFile *file = arena_alloc(arena, sizeof *file);
    file->arena = arena;
    onnx__model_proto__init(&file->model);
    onnx__graph_proto__init(&file->graph);
    Onnx__OperatorSetIdProto *opset = arena_alloc(arena, sizeof *opset);
    onnx__operator_set_id_proto__init(opset);
    opset->version = 17;
    file->model.opset_import = arena_alloc(arena, ROOM * sizeof *file->model.opset_import);
    file->model.opset_import[file->model.n_opset_import++] = opset;
    file->model.ir_version = 8;
    file->model.graph = &file->graph;
    file->graph.name = (char *)"small";
    file->graph.node = arena_alloc(arena, ROOM * sizeof *file->graph.node);
    file->graph.initializer = arena_alloc(arena, ROOM * sizeof *file->graph.initializer);
    file->graph.input = arena_alloc(arena, ROOM * sizeof *file->graph.input);
    file->graph.output = arena_alloc(arena, ROOM * sizeof *file->graph.output);
    return file;
}

void onnx_file_close(OnnxFile *file)
{
    arena_close(file->arena);
}

void *onnx_file_bytes(OnnxFile *file, size_t *size)
{
    *size = onnx__model_proto__get_packed_size(&file->model);
    uint8_t *bytes = malloc(*size + 1);
    if (bytes)
        onnx__model_proto__pack(&file->model, bytes);
    return bytes;
}

Onnx__NodeProto *onnx_node(OnnxFile *file, const char *op, const char *name, const char *output,
                           const char *const *inputs)
{
    Onnx__NodeProto *node = arena_alloc(file->arena, sizeof *node);
    onnx__node_proto__init(node);
    node->op_type = (char *)op;
    node->name = (char *)name;
    node->output = arena_alloc(file->arena, ROOM * sizeof *node->output);
    node->output[node->n_output++] = (char *)output;
    node->input = arena_alloc(file->arena, ROOM * sizeof *node->input);
    while (*inputs)
        node->input[node->n_input++] = (char *)*inputs++;
    node->attribute = arena_alloc(file->arena, ROOM * sizeof *node->attribute);
    file->graph.node[file->graph.n_node++] = node;
    return node;
}

static Onnx__AttributeProto *attribute(OnnxFile *file, Onnx__NodeProto *node, const char *name,
                                       int type)
{
    Onnx__AttributeProto *made = arena_alloc(file->arena, sizeof *made);
    onnx__attribute_proto__init(made);
    made->name = (char *)name;
    made->type = type;
    node->attribute[node->n_attribute++] = made;
    return made;
}

void onnx_int(OnnxFile *file, Onnx__NodeProto *node, const char *name, int64_t value)
{
    attribute(file, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT)->i = value;
}

void onnx_ints(OnnxFile *file, Onnx__NodeProto *node, const char *name, int n,
               const int64_t *values)
{
    Onnx__AttributeProto *made =
        attribute(file, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    made->n_ints = (size_t)n;
    made->ints = memcpy(arena_alloc(file->arena, (size_t)n * sizeof *values), values,
                        (size_t)n * sizeof *values);
}

void onnx_float(OnnxFile *file, Onnx__NodeProto *node, const char *name, float value)
{
    attribute(file, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT)->f = value;
}

void onnx_text(OnnxFile *file, Onnx__NodeProto *node, const char *name, const char *value)
{
    attribute(file, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING)->s =
        (ProtobufCBinaryData){strlen(value), (uint8_t *)value};
}

static Onnx__TensorProto *tensor(OnnxFile *file, const char *name, int type, int rank,
                                 const int64_t *dims, void *data, size_t bytes)
{
    Onnx__TensorProto *made = arena_alloc(file->arena, sizeof *made);
    onnx__tensor_proto__init(made);
    made->name = (char *)name;
    made->data_type = type;
    made->n_dims = (size_t)rank;
    made->dims = arena_alloc(file->arena, ROOM * sizeof *dims);
    memcpy(made->dims, dims, (size_t)rank * sizeof *dims);
    made->raw_data = (ProtobufCBinaryData){bytes, data};
    file->graph.initializer[file->graph.n_initializer++] = made;
    return made;
}

Onnx__TensorProto *onnx_weights(OnnxFile *file, const char *name, int rank, const int64_t *dims)
{
    size_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= (size_t)dims[i];
    float *floats = arena_alloc(file->arena, (count + 1) * sizeof *floats);
    for (size_t i = 0; i < count; i++)
        floats[i] = 0.1f * (float)(1 + i % 7);
    return tensor(file, name, FLOAT_TYPE, rank, dims, floats, count * sizeof *floats);
}

Onnx__TensorProto *onnx_integers(OnnxFile *file, const char *name, int64_t n, const int64_t *values)
{
    size_t bytes = (size_t)n * sizeof *values;
    return tensor(file, name, INT64_TYPE, 1, &n, memcpy(arena_alloc(file->arena, bytes + 1), values,
                                                        bytes), bytes);
}

Onnx__ValueInfoProto *onnx_value(OnnxFile *file, const char *name, int type, int rank,
                                 const int64_t *dims)
{
    Onnx__ValueInfoProto *info = arena_alloc(file->arena, sizeof *info);
    onnx__value_info_proto__init(info);
    info->name = (char *)name;
    info->type = arena_alloc(file->arena, sizeof *info->type);
    onnx__type_proto__init(info->type);
    Onnx__TypeProto__Tensor *made = arena_alloc(file->arena, sizeof *made);
    onnx__type_proto__tensor__init(made);
    made->elem_type = type;
    made->shape = arena_alloc(file->arena, sizeof *made->shape);
    onnx__tensor_shape_proto__init(made->shape);
    made->shape->dim = arena_alloc(file->arena, (size_t)(rank + 1) * sizeof *made->shape->dim);
    for (int i = 0; i < rank; i++) {
        Onnx__TensorShapeProto__Dimension *dim = arena_alloc(file->arena, sizeof *dim);
        onnx__tensor_shape_proto__dimension__init(dim);
        dim->dim_value = dims[i];
        if (!dims[i])
            dim->dim_param = (char *)"N";
        made->shape->dim[made->shape->n_dim++] = dim;
    }
    info->type->tensor_type = made;
    return info;
}

void onnx_input(OnnxFile *file, const char *name, int64_t c, int64_t h, int64_t w)
{
    file->graph.input[file->graph.n_input++] =
        onnx_value(file, name, FLOAT_TYPE, 4, (int64_t[]){0, c, h, w});
}

void onnx_output(OnnxFile *file, const char *name)
{
    file->graph.output[file->graph.n_output++] = onnx_value(file, name, FLOAT_TYPE, 0, NULL);
}

OnnxFile *onnx_small(void)
{
    OnnxFile *file = onnx_file_open();
    onnx_input(file, "image", 3, 16, 16);
    onnx_weights(file, "stem.weight", 4, (int64_t[]){1, 3, 3, 3});
    onnx_weights(file, "stem.bias", 1, (int64_t[]){1});
    Onnx__NodeProto *conv = onnx_node(file, "Conv", "/stem/Conv", "/stem/Conv_output_0",
                                      (const char *[]){"image", "stem.weight", "stem.bias", NULL});
    onnx_ints(file, conv, "kernel_shape", 2, (int64_t[]){3, 3});
    onnx_ints(file, conv, "pads", 4, (int64_t[]){1, 1, 1, 1});
    onnx_node(file, "Relu", "/relu/Relu", "mask_logits",
              (const char *[]){"/stem/Conv_output_0", NULL});
    onnx_output(file, "mask_logits");
    return file;
}
