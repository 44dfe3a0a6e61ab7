/* See comparison.h. */
#include "comparison.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../compiler/lower_conv.h"
#include "../runtime/device.h"
#include "oracle.h"

static const char *const program_names[] = {"train", "evaluate", "predict"};

static bool problem(Outcome *outcome, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(outcome->problem, sizeof outcome->problem, format, arguments);
    va_end(arguments);
    outcome->failed = true;
    return false;
}

/* ---- values -------------------------------------------------------------------------------- */

/* A number in [0,1) for a place (splitmix64: Steele, Lea, Flood 2014). */
static double uniform(uint64_t seed, const char *name, int64_t index)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + (uint64_t)index;
    for (const char *c = name; *c; c++)
        x = (x ^ (uint64_t)(unsigned char)*c) * 0x100000001b3u;
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (double)((x ^ (x >> 31)) >> 40) * 0x1p-24;
}

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcmp(name + length - tail, end) == 0;
}

double source_value(const char *name, PlanRole role, PlanType type, int rank, const int64_t *dims,
                    bool parameter, uint64_t seed, int64_t index)
{
    double u = uniform(seed, name, index), value;
    if (parameter && rank > 1) {
        int64_t fan_in = 1;
        for (int i = 1; i < rank; i++)
            fan_in *= dims[i];
        value = (2 * u - 1) * sqrt(3.0 / (double)fan_in);
    } else if (parameter) {
        value = ends_with(name, "running_var") || ends_with(name, "weight") ? 0.5 + u : u - 0.5;
    } else if (type == PLAN_U8) {
        value = role != ROLE_TARGET                   ? floor(256 * u)
              : strncmp(name, "classes", 7) == 0 ? floor(5 * u) : u < 0.4;
    } else {
        value = role == ROLE_TARGET ? u : 4 * u - 2;
    }
    return (float)value;
}

static int64_t count_of(int rank, const int64_t *dims)
{
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= dims[i];
    return count;
}

static void *allocate(int64_t bytes)
{
    void *memory = calloc((size_t)bytes + 1, 1);
    if (!memory)
        abort();
    return memory;
}

bool write_parameters(Executor *executor, const Plan *plan, uint64_t seed, Error *error)
{
    float *slab = allocate(executor_slab_bytes(executor, SLAB_PARAMETERS));
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *p = &plan->parameters[i];
        int64_t count = count_of(p->rank, p->dims);
        for (int64_t k = 0; k < count; k++)
            slab[p->offset / 4 + k] = (float)source_value(p->name, ROLE_INPUT, PLAN_F32, p->rank,
                                                          p->dims, true, seed, k);
    }
    bool ok = executor_upload(executor, SLAB_PARAMETERS, slab, error);
    free(slab);
    return ok;
}

bool write_sources(Executor *executor, const PlanProgram *program, int batch, uint64_t seed,
                   Error *error)
{
    bool ok = true;
    for (int i = 0; i < program->n_tensors && ok; i++) {
        const PlanTensor *t = &program->tensors[i];
        if (t->role != ROLE_INPUT && t->role != ROLE_TARGET)
            continue;
        int64_t count = count_of(3, t->dims) * (t->batched ? batch : 1);
        float *floats = allocate(4 * count);
        uint8_t *bytes = (uint8_t *)floats;
        for (int64_t k = 0; k < count; k++) {
            double value = source_value(t->name, t->role, t->type, 3, t->dims, false, seed, k);
            if (t->type == PLAN_U8)
                bytes[k] = (uint8_t)value;
            else
                floats[k] = (float)value;
        }
        ok = executor_write(executor, program->name, t->name, floats, batch, error);
        free(floats);
    }
    return ok;
}

/* ---- compiling ------------------------------------------------------------------------------- */

/* "host", or as "cuda-bf16". */
static const char *target_of(const Case *test)
{
    return test->target ? test->target : "host";
}

/* SEG_TEST_WAY: one way to compute convolutions, wherever it fits. */
static int way_of(const Case *test)
{
    const char *forced = getenv("SEG_TEST_WAY");
    for (int i = 0; forced && i < WAY_COUNT; i++)
        if (strcmp(forced, way_names[i]) == 0)
            return i;
    return test->winograd ? WAY_MODEL : WAY_DIRECT;
}

static void open_compilation(Compilation *c, const Case *test, const char *path, FILE *messages)
{
    const char *target = target_of(test), *precision = strchr(target, '-');
    *c = (Compilation){
        .arena = arena_open(), .path = path, .precision = precision ? precision + 1 : "fp32",
        .targets = strncmp(target, "host", 4) == 0 ? "host" : "cuda",
        .no_fuse = test->no_fuse, .way = way_of(test), .warp_groups = true,
        .gemm = test->gemm,
        .input_gradients = !test->plain_inputs, .messages = messages,
    };
    c->defines = arena_alloc(c->arena, (size_t)(test->n_defines + 1) * sizeof *c->defines);
    for (int i = 0; i < test->n_defines; i++)
        c->defines[i] = test->defines[i];
    c->n_defines = test->n_defines;
}

/* The file of a case's text; *temporary: unlink and free it. */
static char *case_path(const Case *test, bool *temporary, Outcome *outcome)
{
    *temporary = !test->path;
    if (test->path)
        return strdup(test->path);
    char *path = strdup("/tmp/seg-test-XXXXXX");
    int fd = mkstemp(path);
    size_t length = strlen(test->text);
    if (fd < 0 || write(fd, test->text, length) != (ssize_t)length)
        problem(outcome, "cannot write %s", path);
    if (fd >= 0)
        close(fd);
    return path;
}

static void release_path(char *path, bool temporary)
{
    if (temporary)
        unlink(path);
    free(path);
}

Graph *case_graph(const Case *test, Program program, Compilation *c, Outcome *outcome)
{
    bool temporary;
    char *path = case_path(test, &temporary, outcome), *text = NULL;
    size_t length = 0;
    FILE *messages = open_memstream(&text, &length);
    open_compilation(c, test, path, messages);
    c->path = arena_printf(c->arena, "%s", path);
    Graph *graph = NULL;
    struct Tree *tree = parse(c, c->path, (Loc){0});
    if (tree)
        graph = build(c, tree);
    if (graph)
        infer(graph);
    if (c->errors)
        graph = NULL;
    if (graph && program != PROGRAM_MODEL) {
        graph = specialise(graph, program);
        verify(graph);
        if (program == PROGRAM_TRAIN) {
            simplify(graph);
            differentiate(graph);
            verify(graph);
        }
    }
    fclose(messages);
    c->messages = stderr;
    if (!graph)
        problem(outcome, "the front end says:\n%s", text);
    free(text);
    release_path(path, temporary);
    return graph;
}

/* Leaves every step one way to be launched. */
static void keep_launch(Plan *plan, int launch)
{
    for (int i = 0; i < plan->n_targets; i++)
        for (int j = 0; j < plan->targets[i].n_programs; j++) {
            PlanProgram *program = &plan->targets[i].programs[j];
            for (int k = 0; k < program->n_steps; k++) {
                PlanStep *step = &program->steps[k];
                if (step->n_launches < 2)
                    continue;
                step->launches[0] = step->launches[launch % step->n_launches];
                step->kernel = step->launches[0].kernel;
                step->n_launches = 1;
            }
        }
}

Plan *case_plan(const Case *test, Outcome *outcome)
{
    bool temporary;
    char *path = case_path(test, &temporary, outcome), *text = NULL;
    char plan_path[] = "/tmp/seg-plan-XXXXXX";
    size_t length = 0;
    FILE *messages = open_memstream(&text, &length);
    Compilation c;
    open_compilation(&c, test, path, messages);
    Plan *compiled = compile(&c), *plan = NULL;
    int fd = mkstemp(plan_path);
    if (fd >= 0)
        close(fd);
    bool written = compiled && write_plan(&c, compiled, plan_path);
    fclose(messages);
    Error error = {0};
    if (written)
        plan = plan_open(plan_path, &error);
    if (!plan)
        problem(outcome, "no plan: %s%s", written ? error.text : "the compiler says:\n",
                written ? "" : text);
    if (plan && test->launch)
        keep_launch(plan, test->launch);
    free(text);
    unlink(plan_path);
    arena_close(c.arena);
    release_path(path, temporary);
    return plan;
}

static char *replaced(char *text, const char *from, const char *to)
{
    char *result = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&result, &length);
    const char *at = text;
    for (const char *found; (found = strstr(at, from)); at = found + strlen(from))
        fprintf(out, "%.*s%s", (int)(found - at), at, to);
    fputs(at, out);
    fclose(out);
    free(text);
    return result;
}

char *without_jumps(char *text)
{
    text = replaced(text, "relu(", "silu(");
    text = replaced(text, "max_pool(", "avg_pool(");
    return replaced(text, "channel_max(", "channel_mean(");
}

/* ---- the oracle's run ------------------------------------------------------------------------ */

typedef struct {
    Oracle *oracle;
    double **data;
    int n_data;
    int batch;
    double gradient_scale;     /* the largest gradient */
} Reference;

static bool is_source(const Node *node)
{
    return node->op == OP_INPUT || node->op == OP_TARGET || node->op == OP_PARAMETER
           || node->op == OP_BUFFER;
}

static double *reference_values(const Node *node, int batch, uint64_t seed)
{
    bool parameter = node->op == OP_PARAMETER || node->op == OP_BUFFER;
    PlanRole role = node->op == OP_TARGET ? ROLE_TARGET : ROLE_INPUT;
    int64_t count = oracle_count(node, batch);
    double *data = allocate(count * (int64_t)sizeof *data);
    for (int64_t i = 0; i < count; i++)
        data[i] = source_value(node->name, role, node->type == TYPE_U8 ? PLAN_U8 : PLAN_F32,
                               node->shape.rank, node->shape.dims, parameter, seed, i);
    return data;
}

static void run_reference(Reference *reference, const Graph *graph, int batch, uint64_t seed)
{
    OracleBinding *bindings = allocate(graph->n_nodes * (int64_t)sizeof *bindings);
    int n = 0;
    *reference = (Reference){.batch = batch};
    reference->data = allocate(graph->n_nodes * (int64_t)sizeof *reference->data);
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        if (!is_source(node))
            continue;
        reference->data[n] = reference_values(node, batch, seed);
        bindings[n] = (OracleBinding){node->name, reference->data[n]};
        n++;
    }
    reference->n_data = n;
    reference->oracle = oracle_run(graph, batch, seed, bindings, n);
    free(bindings);
    for (int i = 0; i < graph->n_results; i++) {
        const Result *result = &graph->results[i];
        if (result->role != ROLE_GRADIENT)
            continue;
        const double *value = oracle_value(reference->oracle, result->node);
        int64_t count = oracle_count(result->node, batch);
        for (int64_t k = 0; k < count; k++)
            reference->gradient_scale = fmax(reference->gradient_scale, fabs(value[k]));
    }
}

static void close_reference(Reference *reference)
{
    oracle_close(reference->oracle);
    for (int i = 0; i < reference->n_data; i++)
        free(reference->data[i]);
    free(reference->data);
}

/* ---- comparing --------------------------------------------------------------------------------- */

static const char *role_name(PlanRole role)
{
    switch (role) {
    case ROLE_INPUT: return "input";
    case ROLE_TARGET: return "target";
    case ROLE_OUTPUT: return "output";
    case ROLE_LOSS: return "loss";
    case ROLE_METRIC: return "metric";
    case ROLE_GRADIENT: return "gradient of";
    case ROLE_UPDATE: return "update of";
    }
    return "?";
}

/* One tensor. `floor` is the least scale that its differences are measured against. */
static bool compare_tensor(const Case *test, const char *program, const Result *result,
                           const float *got, const double *want, int64_t count, double floor,
                           Outcome *outcome)
{
    double square = 0, square_want = 0, largest = 0, largest_want = floor;
    int64_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = isfinite(got[i]) ? fabs(got[i] - want[i]) : HUGE_VAL;
        square += difference * difference;
        square_want += want[i] * want[i];
        largest_want = fmax(largest_want, fabs(want[i]));
        if (difference > largest) {
            largest = difference;
            at = i;
        }
    }
    if (count == 0 || largest == 0)
        return true;
    double norm = fmax(sqrt(square_want), floor * sqrt((double)count));
    double measure = norm > 0 ? fmax(sqrt(square) / norm, largest / largest_want / 10) : HUGE_VAL;
    char where[sizeof outcome->where];
    snprintf(where, sizeof where, "%s%s: %s %s, element %lld of %lld: got %.9g, want %.9g", program,
             !test->no_fuse ? "" : *test->no_fuse ? test->no_fuse : " (no fusion)",
             role_name(result->role), result->name, (long long)at, (long long)count, (double)got[at], want[at]);
    if (measure > outcome->worst) {
        outcome->worst = measure;
        memcpy(outcome->where, where, sizeof where);
    }
    if (measure > test->tolerance)
        return problem(outcome, "%s: error %.3g, allowed %.3g", where, measure, test->tolerance);
    return true;
}

static const PlanParameter *find_parameter(const Plan *plan, const char *name)
{
    for (int i = 0; i < plan->n_parameters; i++)
        if (strcmp(plan->parameters[i].name, name) == 0)
            return &plan->parameters[i];
    return NULL;
}

typedef struct {
    const Case *test;
    const Plan *plan;
    Executor *executor;
    float *slabs[SLAB_COUNT];  /* parameters and gradients after the run */
    double gradients, differences; /* squares of all parameters' */
} Running;

static bool read_slabs(Running *running, bool trained, Outcome *outcome)
{
    static const Slab slabs[] = {SLAB_PARAMETERS, SLAB_GRADIENTS};
    Error error = {0};
    for (int i = 0; i < 2; i++) {
        bool there = slabs[i] != SLAB_GRADIENTS || trained; /* other programs' data lie there */
        int64_t bytes = there ? executor_slab_bytes(running->executor, slabs[i]) : 0;
        running->slabs[slabs[i]] = allocate(bytes);
        if (bytes && !executor_download(running->executor, slabs[i], running->slabs[slabs[i]], &error))
            return problem(outcome, "reading a slab: %s", error.text);
    }
    return true;
}

/* A result's values from the device, into `got`. */
static bool read_result(Running *running, const char *program, const Result *result, float *got,
                        int64_t count, int batch, Outcome *outcome)
{
    const PlanParameter *parameter = find_parameter(running->plan, result->name);
    if (parameter && (result->role == ROLE_GRADIENT || result->role == ROLE_UPDATE)) {
        Slab slab = result->role == ROLE_GRADIENT ? SLAB_GRADIENTS : SLAB_PARAMETERS;
        memcpy(got, running->slabs[slab] + parameter->offset / 4, (size_t)count * sizeof *got);
        return true;
    }
    Error error = {0};
    if (!executor_read(running->executor, program, result->name, got, batch, &error))
        return problem(outcome, "%s: reading %s %s: %s", program, role_name(result->role),
                       result->name, error.text);
    return true;
}

static void add_gradient(Running *running, const float *got, const double *want, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        running->gradients += want[i] * want[i];
        running->differences += (got[i] - want[i]) * (got[i] - want[i]);
    }
}

static bool compare_gradients(const Running *running, const char *program, Outcome *outcome)
{
    double allowed = running->test->all_gradients;
    double measure = sqrt(running->differences / running->gradients);
    if (running->gradients <= 0)
        return true;
    if (measure > outcome->gradients)
        outcome->gradients = measure;
    return allowed <= 0 || measure <= allowed
        || problem(outcome, "%s: the gradients together are off by %.3g, allowed %.3g", program,
                   measure, allowed);
}

/* Trained parameters must be as they were: the learning rate is zero. */
static bool check_unchanged(const Running *running, Outcome *outcome)
{
    for (int i = 0; i < running->plan->n_parameters; i++) {
        const PlanParameter *p = &running->plan->parameters[i];
        int64_t count = p->trainable ? count_of(p->rank, p->dims) : 0;
        for (int64_t k = 0; k < count; k++)
            if (running->slabs[SLAB_PARAMETERS][p->offset / 4 + k]
                != (float)source_value(p->name, ROLE_INPUT, PLAN_F32, p->rank, p->dims, true,
                                       running->test->seed, k))
                return problem(outcome, "train: %s changed with a learning rate of 0", p->name);
    }
    return true;
}

static bool run_program(Running *running, Program program, const Graph *graph,
                        const Reference *reference, Outcome *outcome)
{
    const char *name = program_names[program];
    const PlanProgram *plan_part = plan_program(plan_target(running->plan, target_of(running->test)),
                                                 name);
    uint64_t seed = running->test->seed;
    Executor *executor = running->executor;
    Error error = {0};
    if (!plan_part)
        return problem(outcome, "the plan has no program %s", name);
    *executor_state(executor) = (PlanState){.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = 1,
                                            .seed = seed};
    if (!write_parameters(executor, running->plan, seed, &error)
        || !write_sources(executor, plan_part, reference->batch, seed, &error)
        || !executor_run(executor, name, reference->batch, &error))
        return problem(outcome, "%s: %s", name, error.text);
    bool ok = read_slabs(running, program == PROGRAM_TRAIN, outcome);
    for (int i = 0; i < graph->n_results && ok; i++) {
        const Result *result = &graph->results[i];
        int64_t count = oracle_count(result->node, reference->batch);
        float *got = allocate(4 * count);
        double floor = result->role == ROLE_GRADIENT ? reference->gradient_scale / 100 : 1e-6;
        const double *want = oracle_value(reference->oracle, result->node);
        ok = read_result(running, name, result, got, count, reference->batch, outcome)
             && compare_tensor(running->test, name, result, got, want, count, floor, outcome);
        if (ok && result->role == ROLE_GRADIENT && find_parameter(running->plan, result->name))
            add_gradient(running, got, want, count);
        free(got);
    }
    ok = ok && compare_gradients(running, name, outcome);
    ok = ok && (program != PROGRAM_TRAIN || check_unchanged(running, outcome));
    free(running->slabs[SLAB_PARAMETERS]);
    free(running->slabs[SLAB_GRADIENTS]);
    return ok;
}

/* The fused and the unfused plan of a case, and one for each single fusion that is off. */
enum { MAX_VARIANTS = 16 };
typedef struct { const char *no_fuse; Plan *plan; Executor *executor; } Variant;

static int variant_count(const Case *test)
{
    return test->each_fusion ? 2 + n_fusions : test->fused_only ? 1 : 2;
}

static bool open_variants(const Case *test, Device *device, Variant *variants, Outcome *outcome)
{
    for (int i = 0; i < variant_count(test); i++)
        variants[i] = (Variant){.no_fuse = i == 0 ? NULL : i == 1 ? "" : fusions[i - 2].name};
    for (int i = 0; i < variant_count(test); i++) {
        Error error = {0};
        Case variant = *test;
        variant.no_fuse = variants[i].no_fuse;
        variants[i].plan = case_plan(&variant, outcome);
        if (!variants[i].plan)
            return false;
        variants[i].executor = executor_open(variants[i].plan, device, test->batch, &error);
        if (!variants[i].executor)
            return problem(outcome, "opening the plan: %s", error.text);
    }
    return true;
}

static bool compare_program(const Case *test, Program program, const Variant *variants, Outcome *outcome)
{
    Compilation c;
    Graph *graph = case_graph(test, program, &c, outcome);
    bool ok = graph != NULL;
    if (ok) {
        Reference reference;
        /* A smaller batch than the executor was opened for is as good. */
        int batch = program == PROGRAM_EVALUATE && test->batch > 1 ? test->batch - 1 : test->batch;
        run_reference(&reference, graph, batch, test->seed);
        for (int i = 0; i < variant_count(test) && ok; i++) {
            Case variant = *test;
            variant.no_fuse = variants[i].no_fuse;
            Running running = {.test = &variant, .plan = variants[i].plan,
                               .executor = variants[i].executor};
            ok = run_program(&running, program, graph, &reference, outcome);
        }
        close_reference(&reference);
    }
    arena_close(c.arena);
    return ok;
}

/* Where a relu's or a maximum's operands differ by less than a rounding, float and double may take
 * different sides, and one element's gradient goes elsewhere. That is no error, and other values
 * do not do it again; a wrong kernel is wrong for all of them. */
enum { SEEDS = 6 };
#define KINK 0.05

bool compare_case(const Case *given, Device *device, Outcome *outcome)
{
    Variant variants[MAX_VARIANTS];
    Case on_device = *given;
    const Case *test = &on_device;
    on_device.target = device->target;
    bool ok = open_variants(test, device, variants, outcome);
    for (Program program = PROGRAM_EVALUATE; program <= PROGRAM_PREDICT && ok && !test->train_only;
         program++)
        ok = compare_program(test, program, variants, outcome);
    for (int seed = 0; ok && seed < SEEDS; seed++) {
        Outcome before = *outcome;
        Case train = *test;
        train.seed += (uint64_t)seed;
        ok = compare_program(&train, PROGRAM_TRAIN, variants, outcome);
        if (ok || outcome->worst > KINK || outcome->worst <= test->tolerance || seed == SEEDS - 1)
            break;
        printf("again with other values: %s\n", outcome->problem);
        *outcome = before;
        ok = true;
    }
    for (int i = 0; i < variant_count(test); i++) {
        executor_close(variants[i].executor);
        if (variants[i].plan)
            plan_close(variants[i].plan);
    }
    return ok;
}
