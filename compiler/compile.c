/* The pipeline: one table of passes, one loop that runs, verifies, times and dumps them.
 *
 * What comes in: a Compilation (path, options). What goes out: a Plan with the programs train,
 * evaluate and predict for each target, or NULL after user errors, or when --stop-after ended it;
 * then the graphs were printed on stdout.
 */
#include "seg.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "lower_conv.h"

typedef struct {
    const char *name;
    void (*run)(Graph *);
    unsigned programs;     /* bit set of Program */
    const char *holds;     /* from here on */
} Pass;

enum { TRAIN = 1 << PROGRAM_TRAIN, EVERY = 7, FIRST_OF_TARGET = 3, END_OF_PASSES = 6 };

static const Pass passes[] = {
    { "simplify", simplify, EVERY, "no dead or repeated nodes; cross entropy from the logits" },
    { "differentiate", differentiate, TRAIN, "every trained parameter has a gradient" },
    { "tidy", simplify, EVERY, "no dead or repeated nodes in the gradients either" },
    { "fuse", fuse, EVERY, "every node is inlined or belongs to a group" },
    { "order", order, EVERY, "groups stand in the order they run" },
    { "place", place, EVERY, "every stored tensor has its place" },
};

static const char *const program_names[] = { "train", "evaluate", "predict" };

static bool stops_after(const Compilation *c, const char *pass)
{
    return c->stop_after && strcmp(c->stop_after, pass) == 0;
}

/* Writes the graph to FOLDER/06-fuse.train.ir. */
static void dump(const Graph *graph, int number, const char *pass, const char *program)
{
    Compilation *c = graph->compilation;
    if (!c->dump_dir)
        return;
    const char *path = arena_printf(c->arena, "%s/%02d-%s%s%s.ir", c->dump_dir, number, pass,
                                    *program ? "." : "", program);
    FILE *file = fopen(path, "w");
    if (!file) {
        error_system(c, "give --dump a folder that exists and can be written", "%s: %s", path,
                     strerror(errno));
        c->dump_dir = NULL;
        return;
    }
    graph_print(graph, file);
    fclose(file);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The passes from the n-th to before the end-th. True where --stop-after ended it. */
static bool run_passes(Graph *graph, int first, int end)
{
    Compilation *c = graph->compilation;
    Program program = graph->program;
    for (int i = first; i < end; i++) {
        const Pass *pass = &passes[i];
        double start = seconds();
        if (pass->programs & (1u << program)) {
            pass->run(graph);
            verify(graph);
        }
        if (c->verbose)
            fprintf(c->messages, "segc: %-8s %-14s %7.1f ms\n", program_names[program], pass->name,
                    1e3 * (seconds() - start));
        dump(graph, i + 3, pass->name, program_names[program]);
        if (stops_after(c, pass->name)) {
            graph_print(graph, stdout);
            return true;
        }
    }
    return false;
}

/* "train     280 steps, 201.9 MB a picture: 61 % less than 518.4 MB with a place for each tensor"
 */
static void say_saved(Text *text, const Graph *graph, int steps)
{
    double planned = 1e-6 * (double)graph->activation_bytes;
    double unshared = 1e-6 * (double)graph->activation_bytes_unshared;
    text_printf(text, "%-9s %4d steps, %.1f MB a picture", program_names[graph->program], steps,
                planned);
    if (unshared > planned)
        text_printf(text, ": %.0f %% less than %.1f MB with a place for each tensor",
                    100 * (1 - planned / unshared), unshared);
    text_printf(text, "\n");
}

static char *options_text(const Compilation *c)
{
    Text text = { .arena = c->arena };
    if (strcmp(c->targets, "host,cuda") != 0)
        text_printf(&text, " --target %s", c->targets);
    if (strcmp(c->precision, "fp32,tf32,bf16") != 0)
        text_printf(&text, " --precision %s", c->precision);
    for (int i = 0; i < c->n_defines; i++)
        text_printf(&text, " -D %s=%s", c->defines[i].name, c->defines[i].value);
    for (int i = 0; i < c->n_include_dirs; i++)
        text_printf(&text, " -I %s", c->include_dirs[i]);
    if (c->freeze)
        text_printf(&text, " --freeze '%s'", c->freeze);
    if (c->way)
        text_printf(&text, " --way %s", way_names[c->way]);
    if (c->tuned_path)
        text_printf(&text, " --tuned %s", c->tuned_path);
    if (c->warp_groups)
        text_printf(&text, " --warp-groups");
    if (c->gemm)
        text_printf(&text, " --gemm cublas");
    if (c->no_fuse)
        text_printf(&text, *c->no_fuse ? " --no-fuse=%s" : " --no-fuse", c->no_fuse);
    return text.length ? text.text + 1 : (char *)"";
}

char *sources_text(const Compilation *c)
{
    Text text = { .arena = c->arena };
    for (const Tree *tree = c->trees; tree; tree = tree->next) {
        if (tree != c->trees)
            text_printf(&text, "\n# used: %s\n", tree->file->name);
        text_printf(&text, "%s", tree->file->text);
    }
    return text.text;
}

/* Is `name` in a comma list? */
static bool is_listed(const char *list, const char *name, size_t length)
{
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == 0))
            return true;
    return false;
}

/* "host", which is float32, is asked for by --target host; "host-bf16" by --target host
 * --precision bf16; "cuda-bf16" by --target cuda --precision bf16. */
static bool target_wanted(const Compilation *c, const Target *target)
{
    const char *dash = strchr(target->name, '-');
    size_t length = dash ? (size_t)(dash - target->name) : strlen(target->name);
    return is_listed(c->targets, target->name, length)
        && (!dash || is_listed(c->precision, dash + 1, strlen(dash + 1)));
}

static Plan *plan_new(Compilation *c, const Graph *model)
{
    Plan *plan = arena_alloc(c->arena, sizeof *plan);
    plan->model = (char *)model->name;
    plan->path = (char *)c->path;
    plan->text = sources_text(c);
    plan->options = options_text(c);
    plan->targets = arena_alloc(c->arena, (size_t)n_targets * sizeof *plan->targets);
    for (int i = 0; i < n_targets; i++) {
        if (!target_wanted(c, &targets[i]))
            continue;
        PlanTarget *target = &plan->targets[plan->n_targets++];
        target->name = (char *)targets[i].name;
        target->prelude = targets[i].prelude(&targets[i], c->arena);
        target->programs = arena_alloc(c->arena, 3 * sizeof *target->programs);
    }
    return plan;
}

static Graph *front(Compilation *c)
{
    struct Tree *tree = parse(c, c->path, (Loc){ 0 });
    if (!tree || c->errors)
        return NULL;
    Graph *model = build(c, tree);
    if (!model || c->errors)
        return NULL;
    if (stops_after(c, "build"))
        return model;
    infer(model);
    return c->errors ? NULL : model;
}

/* One program's graph, as far as it is the same for every target. */
static bool make_program(Graph *graph)
{
    Compilation *c = graph->compilation;
    verify(graph);
    if (stops_after(c, "specialise")) {
        graph_print(graph, stdout);
        return false;
    }
    dump(graph, 2, "specialise", program_names[graph->program]);
    return !run_passes(graph, 0, FIRST_OF_TARGET);
}

/* From there on once for each target; what is dumped and explained is the first one's. */
static bool lower_program(const Graph *program, Plan *plan, Text *saved)
{
    Compilation *c = program->compilation;
    for (int t = 0, k = 0; k < plan->n_targets; t++) {
        PlanTarget *into = &plan->targets[k];
        if (strcmp(targets[t].name, into->name) != 0)
            continue;
        Graph *graph = graph_copy(program, program->program);
        graph->target = &targets[t];
        const char *dump_dir = c->dump_dir;
        if (k > 0)
            c->dump_dir = NULL;
        bool stopped = run_passes(graph, FIRST_OF_TARGET, END_OF_PASSES);
        c->dump_dir = dump_dir;
        if (stopped)
            return false;
        targets[t].lower(graph, plan, into);
        if (k == 0 && c->explain)
            print_explain(graph, stdout);
        if (k == 0)
            say_saved(saved, graph, into->programs[into->n_programs - 1].n_steps);
        k++;
    }
    return true;
}

Plan *compile(Compilation *c)
{
    Graph *model = tuned_read(c) ? front(c) : NULL;
    if (!model)
        return NULL;
    dump(model, 1, "infer", "");
    if (stops_after(c, "build") || stops_after(c, "infer")) {
        graph_print(model, stdout);
        return NULL;
    }
    verify(model);
    Plan *plan = plan_new(c, model);
    place_parameters(model, plan);
    bool stopped = false;
    Text saved = { .arena = c->arena };
    for (int program = PROGRAM_TRAIN; program <= PROGRAM_PREDICT; program++) {
        bool has_loss = false;
        for (int i = 0; i < model->n_results; i++)
            has_loss |= model->results[i].role == ROLE_LOSS;
        if (program == PROGRAM_TRAIN && !has_loss)
            continue;
        if (c->stop_after)
            printf("# program %s\n", program_names[program]);
        Graph *graph = specialise(model, (Program)program);
        if (!make_program(graph) || !lower_program(graph, plan, &saved))
            stopped = true;
    }
    c->saved = saved.text;
    if (!stopped && !c->errors)
        tuned_warn(c);
    return stopped || c->errors ? NULL : plan;
}
