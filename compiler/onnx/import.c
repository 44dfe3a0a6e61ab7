/* `segc import`: an ONNX file becomes a model's text and a safetensors file with its weights.
 *
 * Files come from anywhere. They are read by protobuf-c with a schema that cannot nest, every size is
 * checked before it is used, names are made of letters before they are written, and external data is
 * looked for beside the file only. What was made is compiled before it is written: the text that the
 * user gets is one that segc takes, and its parameters are those of the weights.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "import.h"

/* ---- errors ---------------------------------------------------------------------------------- */

bool import_fail(Import *import, const char *hint, const char *format, ...)
{
    char text[700], place[300] = "";
    if (import->failed)
        return false;
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    const Onnx__NodeProto *node = import->node;
    if (node && *node->name)
        snprintf(place, sizeof place, "node '%.120s' (%.60s): ", node->name, node->op_type);
    else if (node)
        snprintf(place, sizeof place, "node %zu (%.60s): ", import->node_index + 1, node->op_type);
    import->failed = true;
    return fail(import->error, EXIT_USER, hint, "%s: %s%s", import->options->path, place, text);
}

bool import_lacks(Import *import, const char *format, ...)
{
    char text[500];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return import_fail(import, "docs/onnx.md lists what segc import can read", "%s", text);
}

/* ---- the result ------------------------------------------------------------------------------ */

/* The weights of the lines that are live, as a file. Names live in the arena. */
static void collect_weights(Import *import, SafeTensors *file)
{
    int count = 0;
    for (int i = 0; i < import->n_lines; i++)
        count += import->lines[i]->n_weights;
    file->tensors = arena_alloc(import->arena, (size_t)(count + 1) * sizeof *file->tensors);
    for (int i = 0; i < import->n_lines; i++) {
        const Line *line = import->lines[i];
        if (!line->live || line->leader != line)
            continue;
        for (int k = 0; k < line->n_weights; k++) {
            const Weight *weight = &line->weights[k];
            SafeTensor *tensor = &file->tensors[file->n_tensors++];
            *tensor = (SafeTensor){.type = PLAN_F32, .dtype = "F32", .rank = weight->rank,
                                   .data = weight->floats, .bytes = sizeof(float)};
            tensor->name = (char *)arena_printf(import->arena, "%s.%s", line->instance,
                                                weight->suffix);
            for (int d = 0; d < weight->rank; d++) {
                tensor->dims[d] = weight->dims[d];
                tensor->bytes *= weight->dims[d];
            }
        }
    }
}

/* Compiles the text; its parameters must be the weights. */
static bool check_text(Import *import, const char *text, const SafeTensors *weights)
{
    char *said = NULL;
    size_t size = 0;
    FILE *messages = open_memstream(&said, &size);
    if (!messages)
        return fail(import->error, EXIT_ENVIRONMENT, "", "not enough memory");
    SourceFile file = {.name = "the model", .text = text, .length = strlen(text)};
    Tree tree = {.file = &file, .identity = ""};
    Compilation c = {.arena = import->arena, .path = file.name, .source = &file,
                     .messages = messages, .trees = &tree};
    Graph *graph = parse_text(&c, &tree) ? build(&c, &tree) : NULL;
    if (graph)
        infer(graph);
    fclose(messages);
    bool good = graph && !c.errors;
    if (!good)
        import_fail(import, "the model that the file would give", "%.*s",
                    said ? (int)strcspn(said, "\n") : 0, said ? said : "");
    free(said);
    int parameters = 0;
    for (int i = 0; good && i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        if (node->op != OP_PARAMETER && node->op != OP_BUFFER)
            continue;
        parameters++;
        bool found = false;
        for (int k = 0; k < weights->n_tensors && !found; k++)
            found = !strcmp(weights->tensors[k].name, node->name)
                && weights->tensors[k].bytes == shape_count(node->shape) * (int64_t)sizeof(float);
        if (!found)
            bug("segc import: the text has '%s', the weights have not", node->name);
    }
    if (good && parameters != weights->n_tensors)
        bug("segc import: %d parameters, %d weights", parameters, weights->n_tensors);
    return good;
}

/* The model's text, and its weights, which point into the message and the arena. NULL after an
 * error. */
static const char *import_model(Import *import, const Onnx__ModelProto *model,
                                SafeTensors *weights)
{
    if (!model->graph || !model->graph->n_node) {
        import_fail(import, "is it an ONNX file?", "there is no network in it");
        return NULL;
    }
    for (size_t i = 0; i < model->n_opset_import; i++)
        if (!*model->opset_import[i]->domain || !strcmp(model->opset_import[i]->domain, "ai.onnx"))
            import->opset = model->opset_import[i]->version;
    if (import->opset < 7) {
        import_fail(import, "export it again with a newer opset, such as 17",
                    "its operators are of opset %lld, and segc import reads 7 and newer",
                    (long long)import->opset);
        return NULL;
    }
    import->graph = model->graph;
    if (!read_graph(import))
        return NULL;
    for (size_t i = 0; i < model->graph->n_node && !import->failed; i++) {
        import->node = model->graph->node[i];
        import->node_index = i;
        translate_node(import);
    }
    import->node = NULL;
    const char *text = import->failed ? NULL : model_text(import);
    if (!text)
        return NULL;
    collect_weights(import, weights);
    return check_text(import, text, weights) ? text : NULL;
}

bool import_onnx(Arena *arena, const ImportOptions *options, const void *bytes, size_t size,
                 const char **text, SafeTensors *weights, Onnx__ModelProto **message, Error *error)
{
    Import import = {.options = options, .arena = arena, .error = error,
                     .values = {.arena = arena}, .names = {.arena = arena},
                     .instances = {.arena = arena}};
    *message = onnx__model_proto__unpack(NULL, size, bytes);
    if (!*message)
        return fail(error, EXIT_USER, "the file is damaged or no ONNX file: export it again",
                    "%s: not an ONNX file, or truncated (%zu bytes)", options->path, size);
    *text = import_model(&import, *message, weights);
    if (!*text) { /* what external data was read belongs to weights only */
        for (int i = 0; i < import.n_files; i++)
            free(import.files[i].bytes);
        return false;
    }
    /* Kept until the weights are written; the process ends then. */
    return true;
}

/* ---- the command line ------------------------------------------------------------------------ */

static const char help[] =
    "Usage: segc import [OPTION]... MODEL.onnx\n"
    "Writes a network from an ONNX file as a model's text and its weights.\n"
    "\n"
    "  -o, --output FILE       the model (default: the file's name, .seg, in the working folder)\n"
    "      --weights FILE      its weights (default: the model's name, .safetensors)\n"
    "      --size N or HxW     height and width, where the file leaves them open\n"
    "      --mean R,G,B        of the pictures that the network expects, as parts of 1\n"
    "      --std R,G,B         and their standard deviation: (picture / 255 - mean) / std\n"
    "      --float-input       inputs stay floats; else they become pictures in bytes, which the\n"
    "                          model divides by 255\n"
    "      --as-is             only what the file has; else a network with one map as its output\n"
    "                          gets sigmoid (if it has none), mask, loss and metric\n"
    "  -h, --help              print this\n"
    "\n"
    "Operators that it reads, and what to do about others: docs/onnx.md.\n"
    "Exit status: 0 fine, 1 errors in the file, 2 wrong usage, 3 the environment.\n"
    "Example: segc import unet.onnx -o unet.seg && segc unet.seg -o unet.plan &&\n"
    "         segrun predict unet.plan -m unet.safetensors cat.jpg\n";

typedef struct { ImportOptions options; const char *output, *weights; bool help; } Command;

__attribute__((format(printf, 1, 2))) static int usage(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("segc import: ", stderr);
    vfprintf(stderr, format, list);
    fputs("\nTry 'segc import --help'.\n", stderr);
    va_end(list);
    return EXIT_USAGE;
}

/* "0.485,0.456,0.406": how many, 0 for anything else. */
static int read_list(const char *text, double *values, int most)
{
    int n = 0;
    for (char *end;; text = end + 1) {
        if (n == most)
            return 0;
        values[n] = strtod(text, &end);
        if (end == text || !isfinite(values[n++]) || (*end && *end != ','))
            return 0;
        if (!*end)
            return n;
    }
}

static bool read_size(const char *text, ImportOptions *options)
{
    char *end;
    options->height = options->width = strtol(text, &end, 10);
    if (end != text && *end == 'x')
        options->width = strtol(text = end + 1, &end, 10);
    return end != text && !*end && options->height > 0 && options->width > 0
        && options->height <= 65536 && options->width <= 65536;
}

static int read_command(Command *command, int argc, char **argv)
{
    enum { WEIGHTS = 256, SIZE, MEAN, STD, FLOAT_INPUT, AS_IS };
    static const struct option longs[] = {
        {"output", required_argument, NULL, 'o'}, {"weights", required_argument, NULL, WEIGHTS},
        {"size", required_argument, NULL, SIZE}, {"mean", required_argument, NULL, MEAN},
        {"std", required_argument, NULL, STD}, {"float-input", no_argument, NULL, FLOAT_INPUT},
        {"as-is", no_argument, NULL, AS_IS}, {"help", no_argument, NULL, 'h'}, {0},
    };
    ImportOptions *options = &command->options;
    int n_std = 0;
    for (int value; (value = getopt_long(argc, argv, "o:h", longs, NULL)) != -1;) {
        switch (value) {
        case 'o': command->output = optarg; break;
        case WEIGHTS: command->weights = optarg; break;
        case SIZE:
            if (!read_size(optarg, options))
                return usage("--size: expected 256 or 256x320, got '%s'", optarg);
            break;
        case MEAN: case STD: {
            double *list = value == MEAN ? options->mean : options->deviation;
            int n = read_list(optarg, list, 16);
            *(value == MEAN ? &options->n_mean : &n_std) = n;
            for (int i = 0; i < n && value == STD; i++)
                n = list[i] > 0 ? n : 0;
            if (!n)
                return usage("%s: expected numbers such as 0.485,0.456,0.406, got '%s'",
                             value == MEAN ? "--mean" : "--std", optarg);
            break;
        }
        case FLOAT_INPUT: options->float_input = true; break;
        case AS_IS: options->as_is = true; break;
        case 'h': command->help = true; return EXIT_FINE;
        default: return fputs("Try 'segc import --help'.\n", stderr), EXIT_USAGE;
        }
    }
    if (options->n_mean != n_std)
        return usage("--mean and --std go together, with a number a channel each");
    if (n_std && options->float_input)
        return usage("--mean is for pictures, and --float-input says that there are none");
    if (optind + 1 != argc)
        return usage(optind == argc ? "no file given" : "one file at a time");
    options->path = argv[optind];
    return EXIT_FINE;
}

/* dir/unet.onnx -> unet.seg; dir/unet.seg -> dir/unet.safetensors */
static const char *other_ending(Arena *arena, const char *path, const char *old, const char *new,
                                bool keep_folder)
{
    const char *slash = strrchr(path, '/'), *base = slash && !keep_folder ? slash + 1 : path;
    size_t length = strlen(base), end = strlen(old);
    if (length > end && !strcmp(base + length - end, old))
        length -= end;
    return arena_printf(arena, "%.*s%s", (int)length, base, new);
}

static bool run(Command *command, Arena *arena, Error *error)
{
    size_t size;
    const char *text = NULL;
    SafeTensors weights = {0};
    Onnx__ModelProto *message = NULL;
    char *bytes = file_read(command->options.path, &size, error);
    bool done = bytes
        && import_onnx(arena, &command->options, bytes, size, &text, &weights, &message, error);
    done = done && safetensors_write(command->weights, &weights, error)
        && file_write(command->output, text, strlen(text), error);
    if (message)
        onnx__model_proto__free_unpacked(message, NULL);
    free(bytes);
    if (done)
        printf("%s\n%s: %d tensors\n", command->output, command->weights, weights.n_tensors);
    return done;
}

int import_command(int argc, char **argv)
{
    Command command = {0};
    Arena *arena = arena_open();
    int code = read_command(&command, argc, argv);
    if (!code && command.help) {
        fputs(help, stdout);
    } else if (!code) {
        Error error = {0};
        if (!command.output)
            command.output = other_ending(arena, command.options.path, ".onnx", ".seg", false);
        if (!command.weights)
            command.weights = other_ending(arena, command.output, ".seg", ".safetensors", true);
        command.options.weights = command.weights;
        if (!run(&command, arena, &error)) {
            code = error.code;
            fprintf(stderr, "segc: error: %s\n", error.text);
            if (*error.hint)
                fprintf(stderr, "hint: %s\n", error.hint);
        }
    }
    arena_close(arena);
    return code;
}
