/* segc: the command line of the compiler.
 *
 * Exit codes: 0 fine, 1 the model has errors, 2 usage, 3 the environment (a file that cannot be
 * written, ...). Options are in one table, from which --help is printed too.
 */
#include "export_c.h"
#include "seg.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lower_conv.h"

static const char passes[] = "build infer specialise simplify differentiate tidy fuse order place";

enum { EXIT_FINE, EXIT_INPUT, EXIT_USAGE, EXIT_ENVIRONMENT };
static const char all_targets[] = "host,cuda", all_precisions[] = "fp32,tf32,bf16";

enum {
    OPTION_TARGET = 256, OPTION_PRECISION, OPTION_NO_FUSE, OPTION_STOP_AFTER, OPTION_DUMP,
    OPTION_DOT, OPTION_SUMMARY, OPTION_EXPLAIN, OPTION_EMIT_SOURCE, OPTION_CHECK,
    OPTION_DIAGNOSTICS, OPTION_HELP_OPS, OPTION_MAN, OPTION_VERSION, OPTION_NO_WINOGRAD, OPTION_GEMM,
    OPTION_WARP_GROUPS, OPTION_EXPORT, OPTION_EXPORT_C, OPTION_FREEZE,
    OPTION_WAY, OPTION_TUNED,
};

typedef struct {
    int value;             /* the short letter, or OPTION_... */
    const char *name;
    const char *argument;  /* NULL: none; "[=X]": may be left out */
    const char *text;
} Option;

static const Option options[] = {
    {'o', "output", "FILE", "write the plan to FILE (default: the model's name, .plan)"},
    {'D', "define", "NAME=VALUE", "set a param of the model"},
    {'I', "include", "DIR", "look in DIR too for files that `use` names"},
    {OPTION_FREEZE, "freeze", "PATTERNS", "do not train parameters called so: 'encoder.*,head.*'"},
    {OPTION_TARGET, "target", "LIST", "of host,cuda (default both)"},
    {OPTION_PRECISION, "precision", "LIST", "of fp32,tf32,bf16 (default all; the host: fp32 always, bf16)"},
    {OPTION_NO_FUSE, "no-fuse", "[=LIST]", "without fusion, or without those of LIST"},
    {OPTION_TUNED, "tuned", "FILE", "on the host, convolutions in the ways that segrun tune found"},
    {OPTION_WAY, "way", "WAY", "all of them, where it fits: direct, winograd, winograd_large, line"},
    {OPTION_NO_WINOGRAD, "no-winograd", NULL, "the same as --way direct"},
    {OPTION_WARP_GROUPS, "warp-groups", NULL, "more launches to tune: wgmma, which no GPU has run yet"},
    {OPTION_GEMM, "gemm", "LIBRARY", "cublas: convolutions on CUDA by im2col; not fused"},
    {OPTION_CHECK, "check", NULL, "look for errors only, write nothing"},
    {OPTION_SUMMARY, "summary", "[=BATCH]", "print layers, parameters, multiply-adds, memory"},
    {OPTION_EXPLAIN, "explain", NULL, "print which group every operator went into, or why not"},
    {OPTION_STOP_AFTER, "stop-after", "PASS", "print the graph after PASS and stop"},
    {OPTION_DUMP, "dump", "DIR", "write the graph after every pass to DIR/NN-PASS.ir"},
    {OPTION_DOT, "dot", NULL, "print the model's graph for Graphviz"},
    {OPTION_EXPORT, "export", "FILE", "write the network with the weights of -m to FILE, as ONNX"},
    {OPTION_EXPORT_C, "export-c", "DIR", "write prediction with the weights of -m to DIR, as plain C"},
    {'m', "weights", "FILE", "the weights for --export and --export-c: a safetensors file"},
    {OPTION_EMIT_SOURCE, "emit-source", "DIR", "write the kernels' sources to DIR"},
    {OPTION_DIAGNOSTICS, "diagnostics", "FORM", "of messages: text (default) or json"},
    {OPTION_HELP_OPS, "help-ops", NULL, "print the reference of the operators"},
    {OPTION_MAN, "man", NULL, "print the man page"},
    {'v', "verbose", NULL, "print the time of every pass"},
    {OPTION_VERSION, "version", NULL, "print the version"},
    {'h', "help", NULL, "print this"},
};
enum { N_OPTIONS = sizeof options / sizeof options[0] };

typedef struct {
    Compilation c;
    const char *output, *emit_source, *export, *export_c, *weights;
    bool check, dot;
    void (*print)(void);   /* --help and its like: nothing else is done */
    int summary_batch;     /* 0: no summary */
} Command;

static void print_help(void)
{
    puts("Usage: segc [OPTION]... MODEL.seg\n"
         "       segc fmt [--check] MODEL.seg...\n"
         "       segc import MODEL.onnx [-o MODEL.seg]     (segc import --help)\n"
         "Compiles a segmentation network to a plan that segrun trains and runs; fmt rewrites models\n"
         "in the one style; import brings networks in from ONNX.\n");
    for (int i = 0; i < N_OPTIONS; i++) {
        const Option *option = &options[i];
        char name[64], letter[8] = "    ";
        if (option->value < 256)
            snprintf(letter, sizeof letter, "-%c, ", option->value);
        bool may = option->argument && option->argument[0] == '[';
        snprintf(name, sizeof name, "%s--%s%s%s", letter, option->name,
                 option->argument && !may ? " " : "", option->argument ? option->argument : "");
        printf("  %-28s %s\n", name, option->text);
    }
    printf("\nPasses for --stop-after: %s.\nFusions for --no-fuse=LIST, with commas:\n", passes);
    for (int i = 0; i < n_fusions; i++)
        printf("  %-12s %s\n", fusions[i].name, fusions[i].text);
    puts("Exit status: 0 fine, 1 errors in the model, 2 wrong usage, 3 the environment.\n"
         "The language: docs/language.md. Example: segc models/unet.seg -D width=16 -o unet.plan");
}

/* Text for troff. */
static void put_troff(const char *text)
{
    for (; *text; text++)
        fputs(*text == '-' ? "\\-" : *text == '\\' ? "\\e" : (char[2]){*text, 0}, stdout);
}

static void print_man(void)
{
    fputs(".TH \"segc\" 1\n.SH NAME\nsegc \\- compile segmentation networks\n"
          ".SH SYNOPSIS\n.B segc\n[OPTION]... MODEL.seg\n.br\n.B segc fmt\n[\\-\\-check] MODEL.seg...\n"
          ".SH DESCRIPTION\nCompiles a segmentation network to a plan that segrun trains and runs; fmt\n"
          "rewrites models in the one style.\n.SH OPTIONS\n", stdout);
    for (int i = 0; i < N_OPTIONS; i++) {
        const Option *option = &options[i];
        bool may = option->argument && option->argument[0] == '[';
        fputs(".TP\n", stdout);
        if (option->value < 256)
            printf("\\fB\\-%c\\fR, ", option->value);
        fputs("\\fB\\-\\-", stdout);
        put_troff(option->name);
        printf("\\fR%s%s\n", option->argument && !may ? " " : "",
               option->argument ? option->argument : "");
        put_troff(option->text);
        putchar('\n');
    }
    printf(".SH PASSES\n%s\n.SH EXIT STATUS\n0 fine, 1 errors in the model, 2 wrong usage, 3 the "
           "environment.\n.SH EXAMPLES\n.nf\n", passes);
    put_troff("segc models/unet.seg -D width=16 -o unet.plan\n");
    puts(".fi\n.SH SEE ALSO\nsegrun(1)");
}

static void print_version(void)
{
    printf("segc " SEGC_VERSION " (plan version %d)\n", PLAN_VERSION);
}

static void print_reference(void)
{
    print_ops(stdout);
}

__attribute__((format(printf, 1, 2))) static int usage(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("segc: ", stderr);
    vfprintf(stderr, format, list);
    fputs("\nTry 'segc --help'.\n", stderr);
    va_end(list);
    return EXIT_USAGE;
}

/* ---- options --------------------------------------------------------------------------------- */

/* In a list with blanks or commas. */
static bool is_one_of(const char *word, const char *list)
{
    const char *at = strstr(list, word);
    size_t length = strlen(word);
    while (at && length && ((at != list && !strchr(" ,", at[-1])) || !strchr(" ,", at[length])))
        at = strstr(at + 1, word);
    return at && length;
}

static int add_define(Compilation *c, char *text)
{
    char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return usage("-D %s: expected NAME=VALUE", text);
    size_t bytes = (size_t)c->n_defines * sizeof *c->defines;
    c->defines = arena_grow(c->arena, c->defines, bytes, bytes + sizeof *c->defines);
    *equals = 0;
    c->defines[c->n_defines++] = (Define){text, equals + 1};
    return EXIT_FINE;
}

/* The first word of a comma list that does not stand in `known`; or NULL. */
static const char *unknown_word(Compilation *c, const char *list, const char *known)
{
    for (;; list++) {
        size_t length = strcspn(list, ",");
        const char *word = arena_printf(c->arena, "%.*s", (int)length, list);
        if (!is_one_of(word, known))
            return word;
        list += length;
        if (!*list)
            return NULL;
    }
}

static int set_targets(Compilation *c, const char *list)
{
    const char *unknown = unknown_word(c, list, all_targets);
    c->targets = list;
    return unknown ? usage("--target: no target is called '%s'; there are %s", unknown, all_targets)
                   : EXIT_FINE;
}

static int set_precision(Compilation *c, const char *list)
{
    const char *unknown = unknown_word(c, list, all_precisions);
    c->precision = list;
    return unknown ? usage("--precision: none is called '%s'; there are %s", unknown,
                           all_precisions)
                   : EXIT_FINE;
}

static int set_no_fuse(Compilation *c, const char *list)
{
    Text names = {.arena = c->arena};
    for (int i = 0; i < n_fusions; i++)
        text_printf(&names, "%s%s", i ? ", " : "", fusions[i].name);
    const char *unknown = list ? unknown_word(c, list, names.text) : NULL;
    c->no_fuse = list ? list : "";
    return unknown ? usage("--no-fuse: no fusion is called '%s'; there are %s", unknown, names.text)
                   : EXIT_FINE;
}

static int set_way(Compilation *c, const char *word)
{
    c->way = 0;
    while (c->way < WAY_COUNT && strcmp(way_names[c->way], word))
        c->way++;
    return c->way < WAY_COUNT ? EXIT_FINE
        : usage("--way: none is called '%s'; there are model, direct, winograd, winograd_large, line",
                word);
}

static int set_option(Command *command, int value, char *text)
{
    Compilation *c = &command->c;
    size_t bytes;
    switch (value) {
    case 'o': command->output = text; break;
    case 'D': return add_define(c, text);
    case 'I':
        bytes = (size_t)c->n_include_dirs * sizeof *c->include_dirs;
        c->include_dirs = arena_grow(c->arena, c->include_dirs, bytes, bytes + sizeof(char *));
        c->include_dirs[c->n_include_dirs++] = text;
        break;
    case OPTION_FREEZE:
        if (strchr(text, '\''))
            return usage("--freeze: names have no quotes");
        c->freeze = text;
        break;
    case OPTION_TARGET: return set_targets(c, text);
    case OPTION_PRECISION: return set_precision(c, text);
    case OPTION_NO_FUSE: return set_no_fuse(c, text);
    case OPTION_NO_WINOGRAD: c->way = WAY_DIRECT; break;
    case OPTION_WAY: return set_way(c, text);
    case OPTION_TUNED: c->tuned_path = text; break;
    case OPTION_WARP_GROUPS: c->warp_groups = true; break;
    case OPTION_GEMM:
        if (strcmp(text, "cublas") != 0)
            return usage("--gemm: no library is called '%s'; there is cublas", text);
        c->gemm = true;
        c->no_fuse = "";
        break;
    case OPTION_STOP_AFTER:
        if (!is_one_of(text, passes))
            return usage("--stop-after: no pass is called '%s'; there are %s", text, passes);
        c->stop_after = text;
        break;
    case OPTION_DUMP: c->dump_dir = text; break;
    case OPTION_DOT: command->dot = true; break;
    case OPTION_SUMMARY: {
        char *end = text;
        long batch = text ? strtol(text, &end, 10) : 1;
        if (text && (*end || end == text || batch < 1 || batch > 1000000))
            return usage("--summary: expected a batch from 1 to 1000000, got '%s'", text);
        command->summary_batch = (int)batch;
        break;
    }
    case OPTION_EXPLAIN: c->explain = true; break;
    case OPTION_EXPORT: command->export = text; break;
    case OPTION_EXPORT_C: command->export_c = text; break;
    case 'm': command->weights = text; break;
    case OPTION_EMIT_SOURCE: command->emit_source = text; break;
    case OPTION_CHECK: command->check = true; break;
    case OPTION_DIAGNOSTICS:
        if (strcmp(text, "text") && strcmp(text, "json"))
            return usage("--diagnostics: expected text or json, got '%s'", text);
        c->json = !strcmp(text, "json");
        break;
    case OPTION_HELP_OPS: command->print = print_reference; break;
    case OPTION_MAN: command->print = print_man; break;
    case 'v': c->verbose = true; break;
    case 'h': command->print = print_help; break;
    case OPTION_VERSION: command->print = print_version; break;
    }
    return EXIT_FINE;
}

static int read_options(Command *command, int argc, char **argv)
{
    struct option longs[N_OPTIONS + 1] = {0};
    char shorts[2 * N_OPTIONS + 2] = "";
    for (int i = 0; i < N_OPTIONS; i++) {
        const char *argument = options[i].argument;
        longs[i] = (struct option){options[i].name, !argument ? no_argument : argument[0] == '['
                                   ? optional_argument : required_argument, NULL,
                                   options[i].value};
        if (options[i].value < 256) {
            char letter[3] = {(char)options[i].value, argument ? ':' : 0, 0};
            strcat(shorts, letter);
        }
    }
    for (int value; (value = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (value == '?')
            return fputs("Try 'segc --help'.\n", stderr), EXIT_USAGE;
        int code = set_option(command, value, optarg);
        if (code)
            return code;
    }
    if (command->print)
        return EXIT_FINE;
    if (optind == argc)
        return usage("no model given");
    if (optind + 1 < argc)
        return usage("one model at a time, got '%s' and '%s'", argv[optind], argv[optind + 1]);
    if ((command->export || command->export_c) && !command->weights)
        return usage("%s needs the weights: -m FILE", command->export ? "--export" : "--export-c");
    if (command->weights && !command->export && !command->export_c)
        return usage("-m goes with --export and --export-c");
    if (command->check && (command->export || command->export_c))
        return usage("--check writes nothing: leave out %s", command->export ? "--export" : "--export-c");
    command->c.path = argv[optind];
    return EXIT_FINE;
}

/* ---- what to do ------------------------------------------------------------------------------ */

static int exit_code(const Compilation *c)
{
    if (c->errors > 20)
        fprintf(c->messages, "segc: %d errors, the first 20 shown\n", c->errors);
    return c->errors ? EXIT_INPUT : c->environment ? EXIT_ENVIRONMENT : EXIT_FINE;
}

/* The model's graph alone: for --check, --summary and --dot. */
static Graph *read_model(Compilation *c)
{
    Tree *tree = parse(c, c->path, (Loc){0});
    Graph *model = tree ? build(c, tree) : NULL;
    if (model)
        infer(model);
    return c->errors || c->environment ? NULL : model;
}

/* models/unet.seg -> unet.plan, in the working folder */
static const char *default_output(Compilation *c)
{
    const char *slash = strrchr(c->path, '/'), *base = slash ? slash + 1 : c->path;
    size_t length = strlen(base);
    if (length > 4 && !strcmp(base + length - 4, ".seg"))
        length -= 4;
    return arena_printf(c->arena, "%.*s.plan", (int)length, base);
}

/* The lines of the graph as a comment. */
static void write_header(const char *header, FILE *file)
{
    for (size_t length; *header; header += length + (header[length] != 0)) {
        length = strcspn(header, "\n");
        fprintf(file, "// %.*s\n", (int)length, header);
    }
}

static bool write_source(Compilation *c, const PlanTarget *target, const PlanKernel *kernel,
                         const char *folder)
{
    bool cuda = strncmp(target->name, "cuda", 4) == 0;
    const char *path = arena_printf(c->arena, "%s/%s.%s", folder, kernel->name, cuda ? "cu" : "c");
    FILE *file = fopen(path, "w");
    if (file)
        write_header(kernel->header, file);
    bool fine = file && fprintf(file, "%s%s", target->prelude, kernel->body) >= 0;
    if (file && fclose(file))
        fine = false;
    if (!fine)
        error_system(c, "is there room, and may you write there?", "%s: %s", path,
                     strerror(errno));
    return fine;
}

/* One file a kernel, in FOLDER; of several targets in FOLDER/TARGET. */
static void write_sources(Compilation *c, const Plan *plan, const char *folder)
{
    for (int t = -1; t < plan->n_targets; t++) {
        const PlanTarget *target = t < 0 ? NULL : &plan->targets[t];
        bool several = target && plan->n_targets > 1;
        const char *inner = several ? arena_printf(c->arena, "%s/%s", folder, target->name)
                                    : folder;
        if (mkdir(inner, 0777) && errno != EEXIST) {
            error_system(c, "give --emit-source a folder that can be made", "%s: %s", inner,
                         strerror(errno));
            return;
        }
        for (int k = 0; target && k < target->n_kernels; k++)
            if (!write_source(c, target, &target->kernels[k], inner))
                return;
    }
}

/* The same command line, nothing done yet. */
static Compilation fresh(const Compilation *c)
{
    return (Compilation){.arena = c->arena, .path = c->path, .defines = c->defines,
                         .n_defines = c->n_defines, .include_dirs = c->include_dirs,
                         .n_include_dirs = c->n_include_dirs, .precision = c->precision,
                         .targets = c->targets, .no_fuse = c->no_fuse, .way = c->way,
                         .tuned_path = c->tuned_path,
                         .freeze = c->freeze, .gemm = c->gemm, .warp_groups = c->warp_groups,
                         .json = c->json, .messages = c->messages, .stop_after = c->stop_after,
                         .dump_dir = c->dump_dir, .verbose = c->verbose, .explain = c->explain};
}

/* What is made of the model's graph, without a plan. False after errors. */
static bool run_on_model(Command *command)
{
    Compilation *c = &command->c;
    Graph *model = read_model(c);
    if (model && command->export && export_onnx(c, model, command->weights, command->export)
        && !c->json)
        printf("%s\n", command->export);
    if (model && command->dot)
        graph_dot(model, stdout);
    if (model && command->summary_batch)
        print_summary(model, command->summary_batch, stdout);
    return model && !c->errors && !c->environment;
}

/* By a plan of the host's alone. */
static bool run_export_c(Command *command)
{
    Compilation *c = &command->c, asked = *c;
    c->targets = "host";
    c->precision = "fp32";
    c->explain = false;
    c->dump_dir = NULL;
    Plan *plan = compile(c);
    bool done = plan && export_c(c, plan, command->weights, command->export_c);
    c->targets = asked.targets;
    c->precision = asked.precision;
    c->explain = asked.explain;
    c->dump_dir = asked.dump_dir;
    return done;
}

static int run_command(Command *command)
{
    Compilation *c = &command->c;
    if (command->print) {
        command->print();
        return EXIT_FINE;
    }
    bool other = command->check || command->dot || command->summary_batch || command->export;
    if (other && !run_on_model(command))
        return exit_code(c);
    if (other)
        *c = fresh(c);
    if (command->export_c && !run_export_c(command))
        return exit_code(c);
    if (command->export_c)
        *c = fresh(c);
    if ((other || command->export_c) && !command->output && !command->emit_source && !c->explain)
        return EXIT_FINE;
    if (c->dump_dir && mkdir(c->dump_dir, 0777) && errno != EEXIST) {
        error_system(c, "give --dump a folder that can be made", "%s: %s", c->dump_dir,
                     strerror(errno));
        return EXIT_ENVIRONMENT;
    }
    Plan *plan = compile(c);
    if (plan && command->emit_source)
        write_sources(c, plan, command->emit_source);
    if (plan && (command->output || !c->explain)) {
        const char *path = command->output ? command->output : default_output(c);
        bool table = c->explain || command->summary_batch; /* then standard output is that */
        if (write_plan(c, plan, path) && !c->json && !table)
            printf("%s\n%s", path, c->saved);
    }
    return exit_code(c);
}

static int compile_command(int argc, char **argv)
{
    Command command = {.c = {.arena = arena_open(), .precision = all_precisions,
                             .targets = all_targets, .messages = stderr}};
    int code = read_options(&command, argc, argv);
    if (!code)
        code = run_command(&command);
    arena_close(command.c.arena);
    return code;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    int code = !strcmp(word, "fmt") ? format_command(argc - 1, argv + 1)
        : !strcmp(word, "import") ? import_command(argc - 1, argv + 1)
        : compile_command(argc, argv);
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "segc: error: cannot write the output: %s\n", strerror(errno));
        code = EXIT_ENVIRONMENT;
    }
    return code;
}
