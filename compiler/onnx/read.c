/* What an ONNX graph brings along before its first node: initializers, inputs, outputs; and how
 * nodes are asked for their operands and attributes.
 *
 * Every tensor's size is computed and compared with its data here, whether anything reads it or not.
 * Numbers are taken out of the file when they are first asked for: weights stay where they lie.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import.h"

static const int64_t MAX_COUNT = INT64_C(1) << 31;     /* numbers in a tensor */
static const int64_t MAX_FOLDED = INT64_C(1) << 26;    /* numbers made from constants, in all */

/* ---- tables ---------------------------------------------------------------------------------- */

static size_t table_slot(const Table *table, const char *key)
{
    size_t mask = table->capacity - 1, slot = ((uintptr_t)key >> 4) * 0x9E3779B1u & mask;
    while (table->keys[slot] && table->keys[slot] != key)
        slot = (slot + 1) & mask;
    return slot;
}

void *table_get(const Table *table, const char *key)
{
    return table->capacity ? table->values[table_slot(table, key)] : NULL;
}

void table_put(Table *table, const char *key, void *value)
{
    if (2 * table->count >= table->capacity) {
        Table old = *table;
        table->count = 0;
        table->capacity = old.capacity ? 2 * old.capacity : 256;
        table->keys = arena_alloc(table->arena, table->capacity * sizeof *table->keys);
        table->values = arena_alloc(table->arena, table->capacity * sizeof *table->values);
        for (size_t i = 0; i < old.capacity; i++)
            if (old.keys[i])
                table_put(table, old.keys[i], old.values[i]);
    }
    size_t slot = table_slot(table, key);
    table->count += table->keys[slot] == NULL;
    table->keys[slot] = key;
    table->values[slot] = value;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static int type_bytes(int type)
{
    switch (type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT8: case ONNX__TENSOR_PROTO__DATA_TYPE__INT8:
    case ONNX__TENSOR_PROTO__DATA_TYPE__BOOL: return 1;
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT16: case ONNX__TENSOR_PROTO__DATA_TYPE__INT16:
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16: case ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16:
        return 2;
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT: case ONNX__TENSOR_PROTO__DATA_TYPE__INT32:
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT32: return 4;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64: case ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE:
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT64: return 8;
    }
    return 0;
}

bool constant_is_integer(const Constant *constant)
{
    return constant->type != FLOAT_TYPE && constant->type != ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE
        && constant->type != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16
        && constant->type != ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16;
}

/* Bytes of a file beside the ONNX file, read once. */
static const char *external_file(Import *import, const char *name, size_t *size)
{
    for (int i = 0; i < import->n_files; i++)
        if (!strcmp(import->files[i].name, name)) {
            *size = import->files[i].size;
            return import->files[i].bytes;
        }
    if (!*name || name[0] == '/' || strstr(name, "..") || strlen(name) > 1000) {
        import_fail(import, "keep the file with the weights in the folder of the ONNX file",
                    "its weights are in '%.100s', which is not beside it", name);
        return NULL;
    }
    if (import->n_files == 16) {
        import_fail(import, "", "its weights are in more than 16 files");
        return NULL;
    }
    const char *slash = strrchr(import->options->path, '/');
    int folder = slash ? (int)(slash + 1 - import->options->path) : 0;
    const char *path = arena_printf(import->arena, "%.*s%s", folder, import->options->path, name);
    char *bytes = file_read(path, size, import->error);
    if (!bytes) {
        import->failed = true;
        return NULL;
    }
    import->files[import->n_files].name = name;
    import->files[import->n_files].size = *size;
    import->files[import->n_files++].bytes = bytes;
    return bytes;
}

static bool external_data(Import *import, const Onnx__TensorProto *tensor, Constant *constant,
                          uint64_t wanted)
{
    const char *location = "";
    uint64_t offset = 0, length = wanted;
    for (size_t i = 0; i < tensor->n_external_data; i++) {
        const Onnx__StringStringEntryProto *entry = tensor->external_data[i];
        if (!strcmp(entry->key, "location"))
            location = entry->value;
        else if (!strcmp(entry->key, "offset"))
            offset = strtoull(entry->value, NULL, 10);
        else if (!strcmp(entry->key, "length"))
            length = strtoull(entry->value, NULL, 10);
    }
    size_t size;
    const char *bytes = external_file(import, location, &size);
    if (!bytes)
        return false;
    if (length != wanted || offset > size || length > size - offset)
        return import_fail(import, "the file is damaged, or of another export: copy both again",
                           "tensor '%.100s' needs %llu bytes at %llu of '%.100s', which has %zu",
                           tensor->name, (unsigned long long)wanted, (unsigned long long)offset,
                           location, size);
    constant->data = bytes + offset;
    return true;
}

/* From the list of its type, in place of raw_data. */
static bool listed_data(Import *import, const Onnx__TensorProto *tensor, Constant *constant)
{
    size_t count = 0;
    int type = tensor->data_type;
    bool narrow = type_bytes(type) < 4 || type == ONNX__TENSOR_PROTO__DATA_TYPE__INT32;
    bool halves = type == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16
        || type == ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16;
    if (type == FLOAT_TYPE)
        count = tensor->n_float_data;
    else if (type == ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE)
        count = tensor->n_double_data;
    else if (type == INT64_TYPE)
        count = tensor->n_int64_data;
    else if (narrow && !halves)
        count = tensor->n_int32_data;
    if (count != (size_t)constant->count)
        return import_fail(import, "the file is damaged: export it again",
                           "tensor '%.100s' has %zu numbers, and its shape says %lld", tensor->name,
                           count, (long long)constant->count);
    if (type == FLOAT_TYPE || type == ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE || type == INT64_TYPE) {
        constant->data = type == FLOAT_TYPE ? (const void *)tensor->float_data
            : type == INT64_TYPE ? (const void *)tensor->int64_data
            : (const void *)tensor->double_data;
        return true;
    }
    constant->numbers = arena_alloc(import->arena, (count + 1) * sizeof *constant->numbers);
    for (size_t i = 0; i < count; i++)
        constant->numbers[i] = tensor->int32_data[i];
    return true;
}

Constant *read_tensor(Import *import, const Onnx__TensorProto *tensor)
{
    Constant *constant = arena_alloc(import->arena, sizeof *constant);
    *constant = (Constant){.type = tensor->data_type, .rank = (int)tensor->n_dims, .count = 1,
                           .name = tensor->name};
    int size = type_bytes(tensor->data_type);
    if (!size) {
        import_fail(import, "", "tensor '%.100s' is of type %d, which segc import cannot read",
                    tensor->name, (int)tensor->data_type);
        return NULL;
    }
    if (tensor->n_dims > MAX_RANK) {
        import_fail(import, "", "tensor '%.100s' has %zu dimensions", tensor->name, tensor->n_dims);
        return NULL;
    }
    for (int i = 0; i < constant->rank; i++) {
        constant->dims[i] = tensor->dims[i];
        if (tensor->dims[i] < 0 || __builtin_mul_overflow(constant->count, tensor->dims[i],
                                                           &constant->count)
            || constant->count > MAX_COUNT) {
            import_fail(import, "the file is damaged: export it again",
                        "tensor '%.100s' cannot have a dimension of %lld", tensor->name,
                        (long long)tensor->dims[i]);
            return NULL;
        }
    }
    uint64_t wanted = (uint64_t)constant->count * (uint64_t)size;
    if (tensor->data_location == 1)
        return external_data(import, tensor, constant, wanted) ? constant : NULL;
    if (!tensor->raw_data.len && constant->count)
        return listed_data(import, tensor, constant) ? constant : NULL;
    if (tensor->raw_data.len != wanted) {
        import_fail(import, "the file is damaged: export it again",
                    "tensor '%.100s' has %zu bytes, and its shape and type say %llu", tensor->name,
                    tensor->raw_data.len, (unsigned long long)wanted);
        return NULL;
    }
    constant->data = tensor->raw_data.data ? (const void *)tensor->raw_data.data : "";
    return constant;
}

Constant *new_constant(Import *import, int type, int rank, const int64_t *dims)
{
    Constant *constant = arena_alloc(import->arena, sizeof *constant);
    *constant = (Constant){.type = type, .rank = rank, .count = 1, .name = ""};
    for (int i = 0; i < rank; i++) {
        constant->dims[i] = dims[i];
        if (dims[i] < 0 || __builtin_mul_overflow(constant->count, dims[i], &constant->count)
            || constant->count > MAX_FOLDED)
            constant->count = MAX_FOLDED + 1;
    }
    import->folded += constant->count;
    if (constant->count > MAX_FOLDED || import->folded > MAX_FOLDED) {
        import_fail(import, "", "computing with constants of this size is too much");
        return NULL;
    }
    constant->numbers =
        arena_alloc(import->arena, (size_t)(constant->count + 1) * sizeof *constant->numbers);
    return constant;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static double half_number(uint16_t bits, bool bfloat)
{
    if (bfloat) {
        uint32_t wide = (uint32_t)bits << 16;
        float value;
        memcpy(&value, &wide, sizeof value);
        return value;
    }
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 0 ? ldexp(fraction, -24)
        : exponent < 31 ? ldexp(1024 + fraction, exponent - 25) : fraction ? NAN : INFINITY;
    return bits >> 15 ? -size : size;
}

#define LOAD(TYPE) { TYPE value; memcpy(&value, data + i * (int64_t)sizeof value, sizeof value); \
                     return (double)value; }
static double number_at(const Constant *constant, int64_t i)
{
    const char *data = constant->data;
    if (constant->numbers)
        return constant->numbers[i];
    switch (constant->type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT8: LOAD(uint8_t)
    case ONNX__TENSOR_PROTO__DATA_TYPE__BOOL: LOAD(uint8_t)
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT8: LOAD(int8_t)
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT16: LOAD(uint16_t)
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT16: LOAD(int16_t)
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT32: LOAD(int32_t)
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT32: LOAD(uint32_t)
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64: LOAD(int64_t)
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT64: LOAD(uint64_t)
    case ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE: LOAD(double)
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT: LOAD(float)
    }
    uint16_t bits;
    memcpy(&bits, data + 2 * i, sizeof bits);
    return half_number(bits, constant->type == ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16);
}

double *constant_numbers(Import *import, Constant *constant)
{
    if (constant->numbers)
        return constant->numbers;
    Constant *loaded = new_constant(import, constant->type, constant->rank, constant->dims);
    for (int64_t i = 0; loaded && i < constant->count; i++)
        loaded->numbers[i] = number_at(constant, i);
    return loaded ? constant->numbers = loaded->numbers : NULL;
}

const float *constant_floats(Import *import, Constant *constant)
{
    if (constant->type == FLOAT_TYPE && !constant->numbers)
        return constant->data;
    import->folded += constant->count;
    if (import->folded > MAX_FOLDED) {
        import_fail(import, "", "too many weights that are not of type float32");
        return NULL;
    }
    float *floats = arena_alloc(import->arena, (size_t)(constant->count + 1) * sizeof *floats);
    for (int64_t i = 0; i < constant->count; i++)
        floats[i] = (float)number_at(constant, i);
    return floats;
}

/* ---- what nodes have ------------------------------------------------------------------------- */

const Onnx__AttributeProto *find_attribute(Import *import, const char *name)
{
    for (size_t i = 0; i < import->node->n_attribute; i++)
        if (!strcmp(import->node->attribute[i]->name, name))
            return import->node->attribute[i];
    return NULL;
}

/* Old files leave the type out: 0. */
static const Onnx__AttributeProto *typed_attribute(Import *import, const char *name, int type)
{
    const Onnx__AttributeProto *attribute = find_attribute(import, name);
    if (!attribute || attribute->type == type || attribute->type == 0)
        return attribute;
    import_fail(import, "the file is damaged: export it again",
                "its attribute '%s' is of type %d, not %d", name, (int)attribute->type, type);
    return NULL;
}

int64_t attribute_int(Import *import, const char *name, int64_t missing)
{
    const Onnx__AttributeProto *attribute =
        typed_attribute(import, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    return attribute ? attribute->i : missing;
}

double attribute_float(Import *import, const char *name, double missing)
{
    const Onnx__AttributeProto *attribute =
        typed_attribute(import, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    if (attribute && !isfinite(attribute->f))
        import_fail(import, "", "its attribute '%s' is no number", name);
    return attribute ? attribute->f : missing;
}

int attribute_ints(Import *import, const char *name, int64_t *values, int most)
{
    const Onnx__AttributeProto *attribute =
        typed_attribute(import, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    if (!attribute)
        return 0;
    if (attribute->n_ints > (size_t)most) {
        import_fail(import, "", "its attribute '%s' has %zu numbers", name, attribute->n_ints);
        return 0;
    }
    for (size_t i = 0; i < attribute->n_ints; i++)
        values[i] = attribute->ints[i];
    return (int)attribute->n_ints;
}

bool attribute_is(Import *import, const char *name, const char *text, bool missing)
{
    const Onnx__AttributeProto *attribute =
        typed_attribute(import, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    return !attribute ? missing
        : attribute->s.len == strlen(text) && !memcmp(attribute->s.data, text, attribute->s.len);
}

Value *operand(Import *import, size_t index)
{
    const Onnx__NodeProto *node = import->node;
    if (index >= node->n_input || !*node->input[index] || import->failed)
        return NULL;
    const char *name = intern(import->arena, node->input[index], strlen(node->input[index]));
    Value *value = table_get(&import->values, name);
    if (value && value->known)
        return value;
    import_fail(import, "the file is damaged: export it again",
                "it reads '%.100s', which no node before it makes%s", name,
                value ? " (a cycle, or nodes in a wrong order)" : "");
    return NULL;
}

int operand_numbers(Import *import, size_t index, double *numbers, int most)
{
    Value *value = operand(import, index);
    if (!value)
        return import->failed ? -1 : 0;
    if (!value->constant || value->constant->count > most) {
        import_lacks(import, "its operand '%.100s' must be %s", value->name,
                     value->constant ? "shorter" : "a constant");
        return -1;
    }
    const double *from = constant_numbers(import, value->constant);
    for (int64_t i = 0; from && i < value->constant->count; i++)
        numbers[i] = from[i];
    return from ? (int)value->constant->count : -1;
}

/* ---- the graph ------------------------------------------------------------------------------- */

static Value *add_value(Import *import, const char *text)
{
    const char *name = intern(import->arena, text, strlen(text));
    Value *value = table_get(&import->values, name);
    if (!value) {
        value = arena_alloc(import->arena, sizeof *value);
        value->name = name;
        table_put(&import->values, name, value);
    }
    return value;
}

static bool read_initializers(Import *import)
{
    for (size_t i = 0; i < import->graph->n_initializer && !import->failed; i++) {
        const Onnx__TensorProto *tensor = import->graph->initializer[i];
        Value *value = add_value(import, tensor->name);
        if (value->known || !*tensor->name)
            return import_fail(import, "the file is damaged: export it again",
                               *tensor->name ? "two initializers are called '%.100s'"
                               : "an initializer has no name%s", tensor->name);
        value->constant = read_tensor(import, tensor);
        value->known = true;
    }
    return !import->failed;
}

/* H or W of an input, which is fixed in the file or given by --size. */
static int64_t input_side(Import *import, const Onnx__ValueInfoProto *info, int dimension)
{
    int64_t side = info->type->tensor_type->shape->dim[dimension]->dim_value;
    int64_t given = dimension == 2 ? import->options->height : import->options->width;
    if (side == 0)
        side = given;
    if (!side)
        import_fail(import, "say which they shall be: --size 256 or --size 256x320",
                    "input '%.100s' leaves its height and width open", info->name);
    else if (given && given != side)
        import_fail(import, "leave --size out, or export the network with open sizes",
                    "input '%.100s' has %lld pixels, and --size says %lld", info->name,
                    (long long)side, (long long)given);
    return side;
}

static bool read_input(Import *import, const Onnx__ValueInfoProto *info)
{
    const Onnx__TypeProto__Tensor *tensor = info->type ? info->type->tensor_type : NULL;
    Value *value = add_value(import, info->name);
    if (value->constant)
        return true; /* an initializer's default, as files before IR version 4 list them */
    if (value->known || !*info->name)
        return import_fail(import, "the file is damaged: export it again",
                           *info->name ? "two inputs are called '%.100s'"
                           : "an input has no name%s", info->name);
    if (!tensor || !tensor->shape || tensor->shape->n_dim != 4)
        return import_fail(import, "export it with an input of [N, C, H, W]",
                           "input '%.100s' is no batch of pictures [N, C, H, W]", info->name);
    value->bytes = tensor->elem_type == UINT8_TYPE;
    if (!value->bytes && tensor->elem_type != FLOAT_TYPE)
        return import_fail(import, "export it with float32",
                           "input '%.100s' is of type %d, neither float32 nor uint8", info->name,
                           (int)tensor->elem_type);
    value->dims[0] = tensor->shape->dim[1]->dim_value;
    value->dims[1] = input_side(import, info, 2);
    value->dims[2] = input_side(import, info, 3);
    for (int i = 0; i < 3 && !import->failed; i++)
        if (value->dims[i] < 1 || value->dims[i] > 65536)
            import_fail(import, "export it with a fixed number of channels",
                        "input '%.100s' has %lld for its %s", info->name,
                        (long long)value->dims[i], i ? "height or width" : "channels");
    value->known = true;
    import->inputs[import->n_inputs++] = value;
    return !import->failed;
}

bool read_graph(Import *import)
{
    const Onnx__GraphProto *graph = import->graph;
    if (!read_initializers(import))
        return false;
    import->inputs = arena_alloc(import->arena, (graph->n_input + 1) * sizeof *import->inputs);
    import->outputs = arena_alloc(import->arena, (graph->n_output + 1) * sizeof *import->outputs);
    for (size_t i = 0; i < graph->n_input; i++)
        if (!read_input(import, graph->input[i]))
            return false;
    if (!import->n_inputs)
        return import_fail(import, "", "the network has no input");
    if (!graph->n_output)
        return import_fail(import, "", "the network has no output");
    if (!add_inputs(import))
        return false;
    for (size_t i = 0; i < graph->n_output; i++) {
        Value *value = add_value(import, graph->output[i]->name);
        if (value->output_name)
            return import_fail(import, "", "'%.100s' is listed as an output twice", value->name);
        value->uses++;
        import->outputs[import->n_outputs++] = value;
        value->output_name = new_variable(import, value->name, "");
    }
    for (size_t i = 0; i < graph->n_node; i++)
        for (size_t k = 0; k < graph->node[i]->n_input; k++)
            if (*graph->node[i]->input[k])
                add_value(import, graph->node[i]->input[k])->uses++;
    return true;
}
