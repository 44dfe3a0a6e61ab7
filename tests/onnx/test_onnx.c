/* ONNX: what is exported is imported again and computes the same, by the oracle; files that are
 * broken or hostile give an error that names the node, and never more.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "onnx_file.h"
#include "oracle.h"
#include "runtime/run.h"

static int passed, failed;

static void check(bool right, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void check(bool right, const char *format, ...)
{
    va_list list;
    passed += right;
    failed += !right;
    if (right)
        return;
    va_start(list, format);
    printf("FAIL ");
    vprintf(format, list);
    printf("\n");
    va_end(list);
}

/* ---- there and back -------------------------------------------------------------------------- */

typedef struct { const char *path; Define defines[2]; int n_defines; bool large; } Network;
static const Network networks[] = {
    {"models/unet.seg", {{"width", "4"}, {"size", "22"}}, 2, false},
    {"models/resnet34_unet.seg", {{"size", "38"}, {"pool_padding", "0"}}, 2, true},
    {"tests/onnx/operators.seg", {{0}}, 0, false},
};

static Graph *prepared(Compilation *c, Tree *tree)
{
    Graph *graph = tree ? build(c, tree) : NULL;
    if (graph)
        infer(graph);
    return c->errors ? NULL : graph;
}

/* The results of predict for one picture; weights by name. */
static double *predict(const Graph *model, const SafeTensors *weights, int64_t *count)
{
    Graph *graph = specialise(model, PROGRAM_PREDICT);
    OracleBinding *bindings = calloc((size_t)graph->n_nodes, sizeof *bindings);
    int n = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        if (op_facts[node->op].kind != KIND_SOURCE || node->op == OP_CONSTANT)
            continue;
        int64_t numbers = shape_count(node->shape);
        double *data = calloc((size_t)numbers, sizeof *data);
        const SafeTensor *tensor = node->op == OP_INPUT ? NULL
                                                        : safetensors_find(weights, node->name);
        for (int64_t k = 0; k < numbers; k++) {
            float value = 0;
            if (tensor)
                memcpy(&value, (const char *)tensor->data + k * 4, sizeof value);
            data[k] = node->op == OP_INPUT ? (double)(k * 37 % 256) : (double)value;
        }
        bindings[n++] = (OracleBinding){node->name, data};
    }
    Oracle *oracle = oracle_run(graph, 1, 1, bindings, n);
    *count = oracle_count(graph->results[0].node, 1);
    double *out = malloc((size_t)*count * sizeof *out);
    memcpy(out, oracle_value(oracle, graph->results[0].node), (size_t)*count * sizeof *out);
    oracle_close(oracle);
    for (int i = 0; i < n; i++)
        free((void *)bindings[i].data);
    free(bindings);
    return out;
}

/* Weights at which batch norms do something, written to a file. */
static bool write_weights(Compilation *c, Graph *model, const char *path)
{
    Error error = {0};
    Plan *plan = arena_alloc(c->arena, sizeof *plan);
    plan->model = (char *)"test";
    place_parameters(model, plan);
    char *slab = calloc(1, (size_t)plan->parameter_bytes);
    params_initialise(plan, 3, slab);
    SafeTensor *tensors = calloc((size_t)plan->n_parameters, sizeof *tensors);
    SafeTensors file = {.n_tensors = plan->n_parameters, .tensors = tensors};
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *p = &plan->parameters[i];
        float *values = (float *)(slab + p->offset);
        for (int64_t k = 0; k < params_count(p) && p->init == PLAN_INIT_CONSTANT; k++)
            values[k] += 0.05f * (float)((k + i) % 9);
        tensors[i] = (SafeTensor){.name = p->name, .type = PLAN_F32, .dtype = "F32",
                                  .rank = p->rank, .data = values, .bytes = 4 * params_count(p)};
        memcpy(tensors[i].dims, p->dims, sizeof p->dims);
    }
    bool written = safetensors_write(path, &file, &error);
    free(tensors);
    free(slab);
    return written;
}

static void compare(const Graph *model, const SafeTensors *old, const Graph *again,
                    const SafeTensors *new, const char *name)
{
    int64_t count, other;
    double *a = predict(model, old, &count), *b = predict(again, new, &other), worst = 0, least = 2;
    for (int64_t i = 0; i < count && count == other; i++) {
        worst = fmax(worst, fabs(a[i] - b[i]));
        least = fmin(least, a[i]);
    }
    check(count == other && worst <= 1e-6, "%s: predictions differ by %g", name, worst);
    check(least < 1, "%s: predictions are all 1", name);
    free(a);
    free(b);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const SafeTensor *)a)->name, ((const SafeTensor *)b)->name);
}

static void test_round_trip(const Network *network, const char *folder)
{
    Arena *arena = arena_open();
    Error error = {0};
    char weights[200], path[200];
    snprintf(weights, sizeof weights, "%s/weights.safetensors", folder);
    snprintf(path, sizeof path, "%s/network.onnx", folder);
    Compilation c = {.arena = arena, .path = network->path, .messages = stdout,
                     .defines = (Define *)network->defines, .n_defines = network->n_defines};
    Graph *model = prepared(&c, parse(&c, network->path, (Loc){0}));
    bool made = model && write_weights(&c, model, weights)
        && export_onnx(&c, model, weights, path);
    check(made, "%s: export", network->path);
    size_t size = 0;
    char *bytes = made ? file_read(path, &size, &error) : NULL;
    const char *text = NULL;
    SafeTensors imported = {0};
    Onnx__ModelProto *message = NULL;
    ImportOptions options = {.path = path, .weights = weights};
    bool read = bytes && import_onnx(arena, &options, bytes, size, &text, &imported, &message,
                                     &error);
    check(read, "%s: import: %s", network->path, error.text);
    SafeTensors *old = read ? safetensors_open(weights, &error) : NULL;
    if (old) {
        check(imported.n_tensors == old->n_tensors, "%s: %d of %d tensors", network->path,
              imported.n_tensors, old->n_tensors);
        qsort(imported.tensors, (size_t)imported.n_tensors, sizeof *imported.tensors, by_name);
    }
    SourceFile file = {.name = "imported", .text = text, .length = read ? strlen(text) : 0};
    Tree tree = {.file = &file, .identity = ""};
    Compilation d = {.arena = arena, .path = "imported", .source = &file, .messages = stdout,
                     .trees = &tree};
    Graph *again = read && parse_text(&d, &tree) ? prepared(&d, &tree) : NULL;
    check(again != NULL, "%s: the text compiles", network->path);
    if (again && old)
        compare(model, old, again, &imported, network->path);
    safetensors_close(old);
    if (message)
        onnx__model_proto__free_unpacked(message, NULL);
    free(bytes);
    unlink(weights);
    unlink(path);
    arena_close(arena);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void import_bytes(const void *bytes, size_t size, char *text, size_t room,
                         char said[1024])
{
    Arena *arena = arena_open();
    Error error = {0};
    SafeTensors weights = {0};
    Onnx__ModelProto *message = NULL;
    const char *made = NULL;
    ImportOptions options = {.path = "dir/small.onnx", .weights = "small.safetensors"};
    bool done = import_onnx(arena, &options, bytes, size, &made, &weights, &message, &error);
    snprintf(said, 1024, "%s", done ? "" : error.text);
    if (text)
        snprintf(text, room, "%s", done ? made : "");
    if (message)
        onnx__model_proto__free_unpacked(message, NULL);
    arena_close(arena);
}

static void wide_kernel(OnnxFile *f) { f->graph.initializer[0]->dims[3] = 4; f->graph.initializer[0]->raw_data.len = 144; }
static void short_data(OnnxFile *f) { f->graph.initializer[0]->raw_data.len -= 3; }
static void huge_dims(OnnxFile *f) { f->graph.initializer[0]->dims[0] = INT64_MAX / 2; }
static void negative_dims(OnnxFile *f) { f->graph.initializer[0]->dims[0] = -1; }
static void many_dims(OnnxFile *f) { f->graph.initializer[0]->n_dims = 40; }
static void unknown_type(OnnxFile *f) { f->graph.initializer[0]->data_type = 77; }
static void unknown_operator(OnnxFile *f) { f->graph.node[1]->op_type = (char *)"Einsum"; }
static void foreign_domain(OnnxFile *f) { f->graph.node[1]->domain = (char *)"com.somebody"; }
static void cycle(OnnxFile *f) { f->graph.node[0]->input[0] = (char *)"mask_logits"; }
static void itself(OnnxFile *f) { f->graph.node[1]->input[0] = (char *)"mask_logits"; }
static void made_twice(OnnxFile *f) { f->graph.node[1]->output[0] = (char *)"/stem/Conv_output_0"; }
static void makes_input(OnnxFile *f) { f->graph.node[1]->output[0] = (char *)"image"; }
static void no_result(OnnxFile *f) { f->graph.node[1]->n_output = 0; }
static void nothing_read(OnnxFile *f) { f->graph.node[1]->n_input = 0; }
static void missing_value(OnnxFile *f) { f->graph.node[1]->input[0] = (char *)"nobody"; }
static void missing_output(OnnxFile *f) { f->graph.output[0]->name = (char *)"nobody"; }
static void same_output(OnnxFile *f) { onnx_output(f, "mask_logits"); }
static void no_output(OnnxFile *f) { f->graph.n_output = 0; }
static void no_input(OnnxFile *f) { f->graph.n_input = 0; }
static void no_graph(OnnxFile *f) { f->model.graph = NULL; }
static void old_opset(OnnxFile *f) { f->model.opset_import[0]->version = 3; }
static void no_opset(OnnxFile *f) { f->model.n_opset_import = 0; }
static void same_initializer(OnnxFile *f) { f->graph.initializer[1]->name = (char *)"stem.weight"; }
static void same_input(OnnxFile *f) { onnx_input(f, "image", 3, 16, 16); }
static void vector_input(OnnxFile *f) { f->graph.input[0]->type->tensor_type->shape->n_dim = 2; }
static void huge_input(OnnxFile *f) { f->graph.input[0]->type->tensor_type->shape->dim[2]->dim_value = INT64_MAX; }
static void negative_input(OnnxFile *f) { f->graph.input[0]->type->tensor_type->shape->dim[3]->dim_value = -16; }
static void open_input(OnnxFile *f) { f->graph.input[0]->type->tensor_type->shape->dim[2]->dim_value = 0; }
static void text_input(OnnxFile *f) { f->graph.input[0]->type->tensor_type->elem_type = 8; }
static void wrong_channels(OnnxFile *f) { f->graph.input[0]->type->tensor_type->shape->dim[1]->dim_value = 4; }
static void uneven_pads(OnnxFile *f) { f->graph.node[0]->attribute[1]->ints[3] = 2; }
static void negative_pads(OnnxFile *f) { for (int i = 0; i < 4; i++) f->graph.node[0]->attribute[1]->ints[i] = -1; }
static void wrong_kernel(OnnxFile *f) { f->graph.node[0]->attribute[0]->ints[0] = f->graph.node[0]->attribute[0]->ints[1] = 5; }
static void wrong_attribute(OnnxFile *f) { f->graph.node[0]->attribute[1]->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT; }
static void zero_stride(OnnxFile *f) { onnx_ints(f, f->graph.node[0], "strides", 2, (int64_t[]){0, 0}); }
static void many_groups(OnnxFile *f) { onnx_int(f, f->graph.node[0], "group", INT64_MAX); }
static void no_groups(OnnxFile *f) { onnx_int(f, f->graph.node[0], "group", 0); }
static void long_bias(OnnxFile *f) { f->graph.initializer[1]->dims[0] = 5; f->graph.initializer[1]->raw_data.len = 0; f->graph.initializer[1]->n_float_data = 5; f->graph.initializer[1]->float_data = arena_alloc(f->arena, 20); }
static void outside(OnnxFile *f)
{
    Onnx__TensorProto *tensor = f->graph.initializer[0];
    Onnx__StringStringEntryProto *entry = arena_alloc(f->arena, sizeof *entry);
    onnx__string_string_entry_proto__init(entry);
    entry->key = (char *)"location";
    entry->value = (char *)"../../etc/passwd";
    tensor->external_data = arena_alloc(f->arena, sizeof entry);
    tensor->external_data[0] = entry;
    tensor->n_external_data = 1;
    tensor->data_location = 1;
}
static void transposes(OnnxFile *f) { f->graph.node[1]->op_type = (char *)"Transpose"; onnx_ints(f, f->graph.node[1], "perm", 4, (int64_t[]){0, 2, 3, 1}); }
static void pad_to_nothing(OnnxFile *f)
{
    onnx_integers(f, "pads", 8, (int64_t[]){0, 0, 1, 1, 0, 0, 1, 1});
    f->graph.node[1]->op_type = (char *)"Pad";
    f->graph.node[1]->input[f->graph.node[1]->n_input++] = (char *)"pads";
}
static void pad_much(OnnxFile *f)
{
    onnx_integers(f, "pads", 8, (int64_t[]){0, 0, INT64_MAX, 1, 0, 0, INT64_MIN, 1});
    f->graph.node[1]->op_type = (char *)"Pad";
    f->graph.node[1]->input[f->graph.node[1]->n_input++] = (char *)"pads";
}
static void reshapes(OnnxFile *f)
{
    onnx_integers(f, "shape", 3, (int64_t[]){0, 256, 1});
    f->graph.node[1]->op_type = (char *)"Reshape";
    f->graph.node[1]->input[f->graph.node[1]->n_input++] = (char *)"shape";
}
static void fills(OnnxFile *f)
{
    onnx_integers(f, "shape", 3, (int64_t[]){1 << 20, 1 << 20, 1 << 20});
    onnx_node(f, "ConstantOfShape", "fill", "filled", (const char *[]){"shape", NULL});
}
static void slices(OnnxFile *f)
{
    onnx_integers(f, "v", 3, (int64_t[]){1, 2, 3});
    onnx_integers(f, "axes", 2, (int64_t[]){0, 0});
    onnx_integers(f, "ends", 2, (int64_t[]){3, 3});
    onnx_node(f, "Slice", "cut", "part", (const char *[]){"v", "axes", "ends", "axes", NULL});
}
static void gathers(OnnxFile *f)
{
    onnx_integers(f, "v", 3, (int64_t[]){1, 2, 3});
    onnx_integers(f, "i", 1, (int64_t[]){-9});
    onnx_node(f, "Gather", "pick", "picked", (const char *[]){"v", "i", NULL});
}
static void resizes(OnnxFile *f)
{
    Onnx__TensorProto *scales = onnx_weights(f, "scales", 1, (int64_t[]){4});
    memcpy(scales->raw_data.data, (float[]){1, 1, 1.5f, 1.5f}, 16);
    f->graph.node[1]->op_type = (char *)"Resize";
    f->graph.node[1]->input[1] = (char *)"";
    f->graph.node[1]->input[2] = (char *)"scales";
    f->graph.node[1]->n_input = 3;
}

static const struct { void (*change)(OnnxFile *); const char *said; } broken[] = {
    {wide_kernel, "node '/stem/Conv' (Conv): its weights are 3 x 4"},
    {short_data, "tensor 'stem.weight' has 105 bytes, and its shape and type say 108"},
    {huge_dims, "tensor 'stem.weight' cannot have a dimension of 4611686018427387903"},
    {negative_dims, "tensor 'stem.weight' cannot have a dimension of -1"},
    {many_dims, "tensor 'stem.weight' has 40 dimensions"},
    {unknown_type, "tensor 'stem.weight' is of type 77"},
    {unknown_operator, "node '/relu/Relu' (Einsum): the language has no such operator"},
    {foreign_domain, "domain com.somebody"},
    {cycle, "node '/stem/Conv' (Conv): it reads 'mask_logits', which no node before it makes (a cycle"},
    {itself, "which no node before it makes (a cycle"},
    {made_twice, "its result '/stem/Conv_output_0' has been made before"},
    {makes_input, "its result 'image' has been made before"},
    {no_result, "node '/relu/Relu' (Relu): it has no result"},
    {nothing_read, "node '/relu/Relu' (Relu): an operand is missing"},
    {missing_value, "it reads 'nobody', which no node before it makes"},
    {missing_output, "output 'nobody' is made by no node"},
    {same_output, "listed as an output twice"},
    {no_output, "the network has no output"},
    {no_input, "the network has no input"},
    {no_graph, "there is no network in it"},
    {old_opset, "opset 3"},
    {no_opset, "opset 0"},
    {same_initializer, "two initializers are called 'stem.weight'"},
    {same_input, "two inputs are called 'image'"},
    {vector_input, "is no batch of pictures"},
    {huge_input, "input 'image' has 9223372036854775807 for its height or width"},
    {negative_input, "input 'image' has -16 for its height or width"},
    {open_input, "leaves its height and width open"},
    {text_input, "is of type 8, neither float32 nor uint8"},
    {wrong_channels, "do not go with 4 channels"},
    {uneven_pads, "it pads 1,1 above and left and 1,2 below and right"},
    {negative_pads, "a padding of -1"},
    {wrong_kernel, "kernel_shape is 5, and its weights are 3 wide"},
    {wrong_attribute, "its attribute 'pads' is of type 1, not 7"},
    {zero_stride, "strides is 0"},
    {many_groups, "it has 9223372036854775807 groups"},
    {no_groups, "it has 0 groups"},
    {long_bias, "a list of 5 numbers for 1 channels"},
    {outside, "'../../etc/passwd', which is not beside it"},
    {transposes, "the language does not transpose"},
    {pad_to_nothing, "none is of that size"},
    {pad_much, "it pads the batch or the channels, or by"},
    {reshapes, "it reshapes 1x16x16"},
    {fills, "computing with constants of this size is too much"},
    {slices, "an axis is named twice"},
    {gathers, "element -6 of 3"},
    {resizes, "it resizes 16x16 pixels by 1.5 and 1.5"},
};

static void test_errors(void)
{
    char said[1024];
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        OnnxFile *file = onnx_small();
        size_t size;
        broken[i].change(file);
        void *bytes = onnx_file_bytes(file, &size);
        import_bytes(bytes, size, NULL, 0, said);
        check(strstr(said, broken[i].said) != NULL, "expected '%s', got '%s'", broken[i].said, said);
        free(bytes);
        onnx_file_close(file);
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

static void test_names(void)
{
    static const char *const names[] = {"a\"b\nmodel x {", "../../etc/passwd", "", "\x1b[31mred",
                                        "relu", "in", "9", "\xff\xfe", "name = \"x\""};
    char text[4000], said[1024];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        OnnxFile *file = onnx_small();
        char *name = (char *)names[i];
        size_t size;
        file->graph.name = name;
        file->graph.node[0]->name = name;
        if (*name) {
            file->graph.node[0]->output[0] = file->graph.node[1]->input[0] = name;
            file->graph.initializer[0]->name = file->graph.node[0]->input[1] =
                (char *)arena_printf(file->arena, "%s.weight", name);
        }
        void *bytes = onnx_file_bytes(file, &size);
        import_bytes(bytes, size, text, sizeof text, said);
        check(!*said, "'%s' as a name: %s", name, said);
        for (const char *c = text; *c; c++)
            if (((unsigned char)*c < ' ' && *c != '\n') || (unsigned char)*c >= 0x7f) {
                check(false, "'%s' gets into the text", name);
                break;
            }
        free(bytes);
        onnx_file_close(file);
    }
}

static void test_text(void)
{
    static const char wanted[] =
        "# Imported from small.onnx; the weights are in small.safetensors.\n"
        "param size = 16  # height and width of the input\n\n"
        "model small {\n"
        "    input  image : u8[3, size, size]\n"
        "    target mask  : u8[1, size, size]\n\n"
        "    image_01 = image / 255\n"
        "    stem = conv(image_01, 1, kernel = 3, padding = 1, name = \"stem\")\n"
        "    mask_logits = relu(stem)\n\n"
        "    output probability = sigmoid(mask_logits)\n"
        "    loss   binary_cross_entropy(probability, mask)\n"
        "    metric dice(probability, mask)\n"
        "}\n";
    char text[4000], said[1024];
    OnnxFile *file = onnx_small();
    size_t size;
    void *bytes = onnx_file_bytes(file, &size);
    import_bytes(bytes, size, text, sizeof text, said);
    check(!strcmp(text, wanted), "%s the text is\n%s", said, text);
    free(bytes);
    onnx_file_close(file);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void test_damage(void)
{
    char said[1024];
    OnnxFile *file = onnx_small();
    size_t size;
    uint8_t *bytes = onnx_file_bytes(file, &size);
    int refused = 0;
    for (size_t length = 0; length < size; length++) {
        uint8_t *part = malloc(length + 1);
        memcpy(part, bytes, length);
        import_bytes(part, length, NULL, 0, said);
        refused += *said != 0;
        free(part);
    }
    check(refused > (int)size * 9 / 10, "%d of %zu truncated files are refused", refused, size);
    uint64_t random = 88172645463325252u;
    for (int i = 0; i < 3000; i++) {
        uint8_t *copy = malloc(size);
        memcpy(copy, bytes, size);
        for (int k = 0; k < 1 + i % 3; k++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            copy[random % size] = (uint8_t)(random >> 32);
        }
        import_bytes(copy, size, NULL, 0, said);
        free(copy);
    }
    check(true, "damaged files do not crash it");
    free(bytes);
    onnx_file_close(file);
}

int main(void)
{
    char folder[] = "/tmp/test-onnx-XXXXXX";
    if (!mkdtemp(folder))
        return 3;
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
#ifdef __SANITIZE_ADDRESS__
        if (networks[i].large)
            continue;
#endif
        test_round_trip(&networks[i], folder);
    }
    rmdir(folder);
    test_text();
    test_errors();
    test_names();
    test_damage();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
