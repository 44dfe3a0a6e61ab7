/* `segc --export-c`: the program predict of a plan's host target as plain C: plan -> text.
 *
 * In: a plan with the host target, and a safetensors file. Out, in one folder and in the model's
 * name: NAME.c, NAME.h and NAME.weights. The C file is the target's prelude, each kernel's text
 * once (isolate.c), and a call for every step with its sizes and places. What depends on weights
 * only (packing, folding) is done by NAME_open, once; so the file of weights is the slab of
 * parameters as it is, behind a head of 64 bytes, and any weights of the model fit the same C.
 *
 * The caller's arena holds what an executor would allocate: SLAB_FIXED, SLAB_ACTIVATIONS times the
 * largest batch, the threads' scratch memory. Inputs are copied into it and outputs out of it: the
 * planner may put other tensors over them. Everything but the functions of the header is static.
 */
#include "export_c.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "isolate.h"
#include "weights.h"

enum { HEAD_BYTES = 64 };

typedef struct {
    Compilation *compilation;
    Arena *arena;
    const Plan *plan;
    const PlanTarget *target;
    const PlanProgram *program;
    const char *name, *type, *capital;  /* resnet34_unet, Resnet34Unet, RESNET34_UNET */
    const char **parameters;            /* of predict: a name for each of the program's tensors */
    const char *from;                   /* "unet.seg -D width=16": for people */
    int *numbers, n_numbers;            /* of kernels that are written: from 1; 0: not yet */
    uint64_t network;                   /* tells weights of one network from those of another */
} Export;

/* ---- names ----------------------------------------------------------------------------------- */

static const char *changed(Arena *arena, const char *text, int (*change)(int))
{
    char *copy = (char *)arena_printf(arena, "%s", text);
    for (char *at = copy; *at; at++)
        *at = (char)(isalnum((unsigned char)*at) ? change((unsigned char)*at) : '_');
    return copy;
}

static int unchanged(int c) { return c; }

/* resnet34_unet -> Resnet34Unet; with an ending where the kernels may have such a type. */
static const char *type_name(Arena *arena, const char *name, const char *prelude)
{
    Text text = {.arena = arena};
    for (const char *at = name; *at; at++)
        if (*at != '_')
            text_printf(&text, "%c",
                        at == name || at[-1] == '_' ? toupper((unsigned char)*at) : *at);
    if (!text.length || strstr(prelude, text.text))
        text_printf(&text, "Network");
    return text.text;
}

static bool is_reserved(const char *name)
{
    static const char words[] =
        " net batch auto bool break case catch char class const constexpr continue default "
        "delete do double else enum explicit export extern false float for friend goto if inline int long "
        "mutable namespace new operator private protected public register restrict return short "
        "signed sizeof static struct switch template this throw true try typedef typename union "
        "unsigned using virtual void volatile while run memcpy memset NAN INFINITY NULL ";
    const char *at = strstr(words, name);
    size_t length = strlen(name);
    while (at && (at[-1] != ' ' || at[length] != ' '))
        at = strstr(at + 1, name);
    return at != NULL;
}

static void name_parameters(Export *e)
{
    const PlanProgram *program = e->program;
    e->parameters = arena_alloc(e->arena, (size_t)(program->n_tensors + 1) * sizeof(char *));
    for (int i = 0; i < program->n_tensors; i++) {
        const char *name = changed(e->arena, program->tensors[i].name, unchanged);
        bool taken = is_reserved(name);
        for (int k = 0; k < i; k++)
            taken |= strcasecmp(e->parameters[k], name) == 0; /* capitals in the header */
        e->parameters[i] = taken ? arena_printf(e->arena, "%s_%d", name, i) : name;
    }
}

/* Without what would end a comment or a line. */
static const char *comment(Arena *arena, const char *text)
{
    char *copy = (char *)arena_printf(arena, "%s", text);
    for (char *at = copy; *at; at++)
        if (iscntrl((unsigned char)*at) || *at == '\\' || (at[0] == '*' && at[1] == '/'))
            *at = '?';
    return copy;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static int64_t round_up(int64_t bytes)
{
    return (bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
}

static int64_t fixed_bytes(const Export *e)
{
    int64_t bytes = e->program->fixed_bytes;
    return round_up(bytes > PLAN_STATE_BYTES ? bytes : PLAN_STATE_BYTES);
}

static int64_t weights_bytes(const Export *e)
{
    return HEAD_BYTES + round_up(e->plan->parameter_bytes);
}

/* Of a call with one sample; fixed ones have all of it. */
static int64_t tensor_count(const PlanTensor *tensor)
{
    return tensor->dims[0] * tensor->dims[1] * tensor->dims[2];
}

static const char *tensor_type(const PlanTensor *tensor)
{
    return tensor->type == PLAN_U8 ? "uint8_t" : "float";
}

/* ---- the header ------------------------------------------------------------------------------ */

static void put_tensor_sizes(Text *text, const Export *e, int i)
{
    const PlanTensor *tensor = &e->program->tensors[i];
    const char *name = changed(e->arena, e->parameters[i], toupper);
    text_printf(text, "enum { %1$s_%2$s_CHANNELS = %3$lld, %1$s_%2$s_HEIGHT = %4$lld, "
                "%1$s_%2$s_WIDTH = %5$lld };\n", e->capital, name, (long long)tensor->dims[0],
                (long long)tensor->dims[1], (long long)tensor->dims[2]);
}

/* "bool unet_predict(const Unet *net, int batch, const uint8_t *image, float *probability)" */
static void put_prototype(Text *text, const Export *e)
{
    text_printf(text, "bool %s_predict(const %s *net, int batch", e->name, e->type);
    for (int i = 0; i < e->program->n_tensors; i++) {
        const PlanTensor *tensor = &e->program->tensors[i];
        text_printf(text, ",\n    %s%s *%s", tensor->role == ROLE_INPUT ? "const " : "",
                    tensor_type(tensor), e->parameters[i]);
    }
    text_printf(text, ")");
}

static const char *header_text(const Export *e)
{
    Text text = {.arena = e->arena};
    const char *name = e->name, *type = e->type, *capital = e->capital;
    text_printf(&text,
        "/* %1$s: prediction in plain C. Written by segc " SEGC_VERSION " from %2$s.\n"
        " *\n"
        " * Read %1$s.weights into memory, or map it, and give an arena; both lie at multiples of\n"
        " * %3$s_ALIGN bytes. Call %1$s_open once, %1$s_predict as often as you like. Nothing is\n"
        " * allocated, no file is read, there is no state but the arena. %1$s.c is built by\n"
        " * `cc -O3 -c`; -march=native is for the best speed, -fopenmp for several threads.\n"
        " */\n"
        "#ifndef %3$s_H\n#define %3$s_H\n\n"
        "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n\n"
        "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n", name, e->from, capital);
    for (int i = 0; i < e->program->n_tensors; i++)
        put_tensor_sizes(&text, e, i);
    text_printf(&text, "\n"
        "#define %1$s_ALIGN %2$d                    /* of weights and arena, in bytes */\n"
        "#define %1$s_WEIGHTS_BYTES ((size_t)%3$lld) /* of %4$s.weights */\n"
        "/* Of the arena for up to `batch` samples a call on up to `threads` threads; a multiple\n"
        " * of the alignment. Without -fopenmp one thread is all there is. */\n"
        "#define %1$s_ARENA_BYTES(batch, threads) \\\n"
        "    ((size_t)%5$lld + (size_t)(batch) * %6$lld + (size_t)(threads) * %7$lld)\n\n",
        capital, PLAN_ALIGN, (long long)weights_bytes(e), name, (long long)fixed_bytes(e),
        (long long)round_up(e->program->sample_bytes),
        (long long)round_up(e->program->scratch_bytes));
    text_printf(&text,
        "/* A network ready to predict; filled by %1$s_open. It is used by one thread at a time;\n"
        " * several, each with its own arena, can share the weights. */\n"
        "typedef struct {\n"
        "    const char *weights;\n    char *arena;\n    int batch, threads;\n} %2$s;\n\n"
        "/* Checks the weights, prepares them in the arena. Both must stay until the last call.\n"
        " * NULL, or what is wrong. */\n"
        "const char *%1$s_open(%2$s *net, const void *weights, size_t weights_bytes,\n"
        "    void *arena, size_t arena_bytes, int batch, int threads);\n\n"
        "/* Of `batch` samples: [batch][channels][height][width]. False, and nothing done, where\n"
        " * these are more than the network was opened for. */\n", name, type);
    put_prototype(&text, e);
    text_printf(&text, ";\n\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
    return text.text;
}

/* ---- kernels --------------------------------------------------------------------------------- */

static int find_kernel(const Export *e, const char *name)
{
    for (int i = 0; i < e->target->n_kernels; i++)
        if (strcmp(e->target->kernels[i].name, name) == 0)
            return i;
    bug("export: the kernels have no %s", name);
}

/* The graph lines that it implements, and its text; what it calls comes before. */
static void put_kernel(Text *text, Export *e, int index)
{
    const PlanKernel *kernel = &e->target->kernels[index];
    if (e->numbers[index])
        return;
    if (kernel->library)
        put_kernel(text, e, find_kernel(e, kernel->library));
    e->numbers[index] = ++e->n_numbers;
    text_printf(text, "\n/* ---- %s */\n\n", kernel->name);
    for (const char *line = kernel->header; *line; line += strcspn(line, "\n") + 1) {
        int length = (int)strcspn(line, "\n");
        text_printf(text, "/* %s */\n",
                    comment(e->arena, arena_printf(e->arena, "%.*s", length, line)));
        if (!line[length])
            break;
    }
    isolate(text, kernel->body, e->numbers[index]);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void put_place(Text *text, const PlanBuffer *buffer)
{
    static const char *const macros[SLAB_COUNT] = {
        [SLAB_PARAMETERS] = "WEIGHTS", [SLAB_FIXED] = "FIXED", [SLAB_ACTIVATIONS] = "SAMPLES",
    };
    if (!macros[buffer->slab])
        bug("export: predict uses memory of training");
    text_printf(text, "%s(%lld)", macros[buffer->slab], (long long)buffer->offset);
}

/* Before item i of a list; where the line is full a new one begins. */
static void put_comma(Text *text, int i, size_t *line)
{
    if (i > 0 && text->length - *line > 66) {
        text_printf(text, ",\n            ");
        *line = text->length;
    } else if (i > 0) {
        text_printf(text, ", ");
    }
}

static void put_number(Text *text, double value)
{
    if (isfinite(value))
        text_printf(text, "%.17g", value);
    else
        text_printf(text, isnan(value) ? "NAN" : value < 0 ? "-INFINITY" : "INFINITY");
}

static void put_step(Text *text, const Export *e, const PlanStep *step)
{
    const char *name = e->target->kernels[step->kernel].name;
    text_printf(text, "    { /* %s */\n        void *const buffers[] = {",
                comment(e->arena, step->label ? step->label : name));
    size_t line = text->length;
    for (int i = 0; i < step->n_buffers; i++) {
        put_comma(text, i, &line);
        put_place(text, &step->buffers[i]);
    }
    text_printf(text, "%s};\n        static const int64_t sizes[] = {",
                step->n_buffers ? "" : "NULL");
    line = text->length;
    for (int i = 0; i < step->n_sizes; i++) {
        put_comma(text, i, &line);
        text_printf(text, "%lld", (long long)step->sizes[i]);
    }
    text_printf(text, "%s};\n", step->n_sizes ? "" : "0");
    if (step->n_scalars)
        text_printf(text, "        static const double scalars[] = {");
    line = text->length;
    for (int i = 0; i < step->n_scalars; i++) {
        put_comma(text, i, &line);
        put_number(text, step->scalars[i]);
    }
    text_printf(text, "%s        run(net, batch, %s, buffers, sizes, %s);\n    }\n",
                step->n_scalars ? "};\n" : "", name, step->n_scalars ? "scalars" : "NULL");
}

static void put_steps(Text *text, const Export *e, bool once)
{
    for (int i = 0; i < e->program->n_steps; i++)
        if (e->program->steps[i].once == once)
            put_step(text, e, &e->program->steps[i]);
}

/* ---- the functions of the header ------------------------------------------------------------- */

/* What the file of weights must be; the same is computed by hash() here. */
static const char checks[] =
    "/* Of 8-byte words, behind others that have `sum`: each counts, and their order. */\n"
    "static uint64_t hash(uint64_t sum, const char *at, size_t bytes)\n"
    "{\n"
    "    uint64_t word;\n"
    "    for (size_t i = 0; i < bytes; i += 8) {\n"
    "        memcpy(&word, at + i, 8);\n"
    "        sum ^= word;\n"
    "        sum = (sum << 29 | sum >> 35) * 0x9E3779B97F4A7C15u;\n"
    "    }\n"
    "    return sum;\n"
    "}\n\n"
    "/* The file begins with its magic, its bytes, its network and the hash of what follows. All\n"
    " * numbers are little-endian. */\n"
    "static const char *check_weights(const char *weights, size_t bytes)\n"
    "{\n"
    "    uint64_t head[3];\n"
    "    if (bytes < %2$d || memcmp(weights, \"SEGWTS1\\n\", 8) != 0)\n"
    "        return \"this is no file of weights that segc --export-c wrote\";\n"
    "    memcpy(head, weights + 8, sizeof head);\n"
    "    if (head[1] != 0x%3$llxu)\n"
    "        return \"the weights are of another network than %1$s, or this is big-endian\";\n"
    "    if (head[0] != %4$lld || bytes != head[0])\n"
    "        return \"the file of weights is cut, or something stands behind it\";\n"
    "    return hash(0, weights + 32, bytes - 32) == head[2] ? NULL\n"
    "        : \"the file of weights is damaged: its bytes do not have the hash that it says\";\n"
    "}\n\n";

static uint64_t hash(uint64_t sum, const char *at, size_t bytes)
{
    uint64_t word;
    for (size_t i = 0; i < bytes; i += 8) {
        memcpy(&word, at + i, 8);
        sum ^= word;
        sum = (sum << 29 | sum >> 35) * 0x9E3779B97F4A7C15u;
    }
    return sum;
}

static void put_open(Text *text, const Export *e)
{
    const char *name = e->name, *type = e->type, *capital = e->capital;
    text_printf(text, checks, name, HEAD_BYTES, (unsigned long long)e->network,
                (long long)weights_bytes(e));
    text_printf(text,
        "/* What depends on weights only. */\n"
        "static void prepare(const %s *net)\n{\n    const int batch = 1;\n    (void)net;\n", type);
    put_steps(text, e, true);
    text_printf(text, "    (void)batch;\n}\n\n");
    text_printf(text,
        "const char *%1$s_open(%2$s *net, const void *weights, size_t weights_bytes,\n"
        "    void *arena, size_t arena_bytes, int batch, int threads)\n{\n"
        "    if (!weights || !arena || ((uintptr_t)weights | (uintptr_t)arena) %% %3$s_ALIGN)\n"
        "        return \"weights and arena must lie at multiples of %4$d bytes\";\n"
        "    if (batch < 1 || threads < 1 || arena_bytes < %3$s_ARENA_BYTES(batch, threads))\n"
        "        return \"the arena is smaller than %3$s_ARENA_BYTES(batch, threads)\";\n"
        "    const char *wrong = check_weights(weights, weights_bytes);\n"
        "    if (wrong)\n        return wrong;\n"
        "    *net = (%2$s){(const char *)weights + %5$d, arena, batch, threads};\n"
        "    memset(arena, 0, %6$lld);\n"
        "    prepare(net);\n    return NULL;\n}\n\n", name, type, capital, PLAN_ALIGN, HEAD_BYTES,
        (long long)fixed_bytes(e));
}

static void put_copy(Text *text, const Export *e, int i)
{
    const PlanTensor *tensor = &e->program->tensors[i];
    bool input = tensor->role == ROLE_INPUT;
    text_printf(text, "    memcpy(%s", input ? "" : e->parameters[i]);
    if (!input)
        text_printf(text, ", ");
    put_place(text, &tensor->buffer);
    text_printf(text, "%s%s, %s%lld * sizeof(%s));\n", input ? ", " : "",
                input ? e->parameters[i] : "", tensor->batched ? "(size_t)batch * " : "",
                (long long)tensor_count(tensor), tensor_type(tensor));
}

static void put_predict(Text *text, const Export *e)
{
    put_prototype(text, e);
    text_printf(text, "\n{\n    if (batch < 1 || batch > net->batch)\n        return false;\n");
    for (int i = 0; i < e->program->n_tensors; i++)
        if (e->program->tensors[i].role == ROLE_INPUT)
            put_copy(text, e, i);
    put_steps(text, e, false);
    for (int i = 0; i < e->program->n_tensors; i++)
        if (e->program->tensors[i].role == ROLE_OUTPUT)
            put_copy(text, e, i);
    text_printf(text, "    return true;\n}\n");
}

static const char *source_text(Export *e)
{
    Text text = {.arena = e->arena};
    text_printf(&text,
        "/* %1$s: prediction in plain C, see %1$s.h. Written by segc " SEGC_VERSION " from %2$s.\n"
        " *\n"
        " * C17 with the vector extensions of gcc and clang. First what all kernels use, then the\n"
        " * kernels, then the network: one call after the other.\n"
        " */\n"
        "#include \"%1$s.h\"\n\n"
        "#pragma GCC diagnostic ignored \"-Wunused-function\"\n"
        "#pragma GCC diagnostic ignored \"-Wunknown-pragmas\"\n"
        "#define NOINLINE static __attribute__((noinline))\n\n", e->name, e->from);
    isolate(&text, e->target->prelude, 0);
    for (int i = 0; i < e->program->n_steps; i++)
        put_kernel(&text, e, e->program->steps[i].kernel);
    text_printf(&text,
        "\n/* ---- the network */\n\n"
        "/* Where a tensor lies. */\n"
        "#define WEIGHTS(offset) ((void *)(net->weights + (offset)))\n"
        "#define FIXED(offset) ((void *)(net->arena + (offset)))\n"
        "#define SAMPLES(offset) ((void *)(net->arena + %1$lld + (size_t)batch * (offset)))\n\n"
        "static void run(const %2$s *net, int batch, void (*kernel)(const KernelArguments *),\n"
        "                void *const *buffers, const int64_t *sizes, const double *scalars)\n{\n"
        "    const KernelArguments arguments = {\n"
        "        .buffers = buffers, .sizes = sizes, .scalars = scalars, .batch = batch,\n"
        "        .threads = net->threads, .scratch_bytes = %3$lld,\n"
        "        .scratch = net->arena + %4$s_ARENA_BYTES(net->batch, 0)};\n"
        "    kernel(&arguments);\n}\n\n", (long long)fixed_bytes(e), e->type,
        (long long)round_up(e->program->scratch_bytes), e->capital);
    put_open(&text, e);
    put_predict(&text, e);
    return text.text;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* A number for the names, shapes and places of the parameters. */
static uint64_t network_number(const Export *e)
{
    Text text = {.arena = e->arena};
    text_printf(&text, "%s", e->plan->model);
    for (int i = 0; i < e->plan->n_parameters; i++) {
        const PlanParameter *parameter = &e->plan->parameters[i];
        text_printf(&text, "\n%s %lld", parameter->name, (long long)parameter->offset);
        for (int k = 0; k < parameter->rank; k++)
            text_printf(&text, " %lld", (long long)parameter->dims[k]);
    }
    text_printf(&text, "%8s", ""); /* the last word is whole */
    return hash(0, text.text, text.length / 8 * 8);
}

static bool write_weights(const Export *e, const char *parameters, const char *path)
{
    Error error = {0};
    FileWriter file;
    const size_t body = (size_t)weights_bytes(e) - HEAD_BYTES;
    char head[HEAD_BYTES] = "SEGWTS1\n";
    const uint64_t sum = hash(hash(0, head + 32, HEAD_BYTES - 32), parameters, body);
    const uint64_t words[] = {(uint64_t)weights_bytes(e), e->network, sum};
    memcpy(head + 8, words, sizeof words);
    return (file_begin(&file, path, &error) && file_append(&file, head, sizeof head, &error)
            && file_append(&file, parameters, body, &error) && file_commit(&file, &error))
        || report_error(e->compilation, &error);
}

static bool write_files(Export *e, const char *parameters, const char *folder)
{
    Compilation *c = e->compilation;
    Error error = {0};
    const char *header = header_text(e), *source = source_text(e);
    const char *path = arena_printf(c->arena, "%s/%s", folder, e->name);
    const char *weights_path = arena_printf(c->arena, "%s.weights", path);
    const char *header_path = arena_printf(c->arena, "%s.h", path);
    const char *source_path = arena_printf(c->arena, "%s.c", path);
    if (!folder_make(folder, &error))
        return report_error(c, &error);
    if (!write_weights(e, parameters, weights_path)
        || !write_file(c, header_path, header, strlen(header))
        || !write_file(c, source_path, source, strlen(source)))
        return false;
    if (!c->json)
        printf("%s\n%s\n%s\n", source_path, header_path, weights_path);
    return true;
}

static const char *made_from(const Compilation *c, const Plan *plan)
{
    const char *slash = strrchr(plan->path, '/'), *base = slash ? slash + 1 : plan->path;
    Text text = {.arena = c->arena};
    text_printf(&text, "%s", base);
    for (int i = 0; i < c->n_defines; i++)
        text_printf(&text, " -D %s=%s", c->defines[i].name, c->defines[i].value);
    return comment(c->arena, text.text);
}

bool export_c(Compilation *c, const Plan *plan, const char *weights, const char *folder)
{
    Export e = {.compilation = c, .arena = c->arena, .plan = plan};
    for (int t = 0; t < plan->n_targets; t++)
        if (strcmp(plan->targets[t].name, "host") == 0)
            e.target = &plan->targets[t];
    for (int p = 0; e.target && p < e.target->n_programs; p++)
        if (strcmp(e.target->programs[p].name, "predict") == 0)
            e.program = &e.target->programs[p];
    if (!e.program)
        bug("export: the plan has no program predict for the host");
    e.name = changed(c->arena, plan->model, unchanged);
    e.type = type_name(c->arena, e.name, e.target->prelude);
    e.capital = changed(c->arena, plan->model, toupper);
    e.from = made_from(c, plan);
    e.numbers = arena_alloc(c->arena, (size_t)(e.target->n_kernels + 1) * sizeof *e.numbers);
    e.network = network_number(&e);
    name_parameters(&e);
    char *parameters = read_weights(c, plan, weights);
    bool done = parameters && write_files(&e, parameters, folder);
    free(parameters);
    return done;
}
