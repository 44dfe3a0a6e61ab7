/* Gradients against finite differences, in float64 on the oracle; and simplify against its input.
 *
 * A case is a text of the language with random params: sizes odd and even, strides, paddings,
 * groups, dilations, batch 1 to 5. For some elements of every f32 input and every parameter the
 * central difference of the loss is compared with what differentiate's graph computes. The loss is
 * evaluated on the graph as specialise made it, the gradient on the graph as the pipeline leaves
 * it, so that simplify is tested too. Evaluate and predict must give the same before and after it.
 *
 * A case without a loss gets the cross entropy of sigmoid(y) with a random target, whose gradient
 * is different and not zero everywhere. In the end every operator of ops.def must have been met.
 */
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oracle.h"

typedef struct {
    const char *name;
    const char *params;   /* "c 1 4, kernel 1 3": a name and its range */
    const char *body;     /* of the model; gives y, or a loss of its own */
} Case;

/* Broadcasting: each operand has one channel or c, one pixel or h x w. */
#define BROADCAST                                                                                \
    "ac 0 1, ap 0 1, bc 0 1, bp 0 1, c 2 5, h 2 5, w 2 5",                                       \
    "input a : f32[1 + ac*(c-1), 1 + ap*(h-1), 1 + ap*(w-1)]\n"                                  \
    "input b : f32[1 + bc*(c-1), 1 + bp*(h-1), 1 + bp*(w-1)]\n"
#define POINTWISE(name, expression) \
    {name, "c 1 9, h 1 5, w 1 5", "input x : f32[c, h, w]\ny = " expression "\n"}

static const Case cases[] = {
    {"conv", "c 1 3, k 1 3, groups 1 3, kernel 1 4, stride 1 3, padding 0 2, dilation 1 2, "
             "h 7 10, w 7 10",
     "input x : f32[c*groups, h, w]\n"
     "y = conv(x, k*groups, kernel=kernel, stride=stride, padding=padding, dilation=dilation,\n"
     "         groups=groups)\n"},
    {"conv_wide", "c 7 18, k 7 18, kernel 1 3, h 3 5, w 3 5",
     "input x : f32[c, h, w]\ny = conv(x, k, kernel=kernel, padding=1, bias=false)\n"},
    {"conv_depthwise", "c 2 9, multiple 1 2, kernel 1 3, stride 1 2, h 4 7, w 4 7",
     "input x : f32[c, h, w]\n"
     "y = conv(x, c*multiple, kernel=kernel, stride=stride, padding=1, groups=c)\n"},
    {"conv_transpose", "c 1 3, k 1 3, groups 1 3, kernel 1 4, stride 1 3, padding 0 1, extra 0 2, "
                       "dilation 1 2, h 4 6, w 4 6",
     "input x : f32[c*groups, h, w]\n"
     "y = conv_transpose(x, k*groups, kernel=kernel, stride=stride, padding=padding,\n"
     "                   output_padding=extra % stride, dilation=dilation, groups=groups)\n"},
    {"conv_transpose_far", "c 1 3, k 1 3, stride 1 2, extra 0 2, h 2 5, w 2 5",
     "input x : f32[c, h, w]\n"
     "y = conv_transpose(x, k, kernel=2, stride=stride, output_padding=extra, dilation=3,\n"
     "                   bias=false)\n"},
    {"linear", "c 1 4, h 1 3, w 1 3, k 1 6",
     "input x : f32[c, h, w]\ny = linear(linear(x, k), 2*k, bias=false)\n"},
    {"batch_norm", "c 1 9, h 2 5, w 2 5",
     "input x : f32[c, h, w]\ny = batch_norm(x, eps=1e-3, momentum=0.3)\n"},
    {"conv_batch_norm", "c 1 4, k 1 4, groups 1 3, h 2 5, w 3 5",
     "input x : f32[c*groups, h, w]\n"
     "y = relu(batch_norm(conv(x, k*groups, kernel=3, padding=1, groups=groups)))\n"},
    POINTWISE("relu", "relu(x)"),
    POINTWISE("leaky_relu", "leaky_relu(x, slope=0.2)"),
    POINTWISE("silu", "silu(x)"),
    POINTWISE("gelu", "gelu(x)"),
    POINTWISE("sigmoid", "sigmoid(x)"),
    POINTWISE("softmax", "softmax(x)"),
    POINTWISE("dropout", "dropout(x, rate=0.3) + dropout(x, rate=0.6) + dropout(x, rate=0)"),
    POINTWISE("constants", "(2/(x + 3) - 1)*0.5 + (1 - x)/4 + 0 + 1*(x - 0)/1"),
    POINTWISE("repeated", "x*x + sigmoid(x)*sigmoid(x) - (x + x)"),
    {"add", BROADCAST "y = add(a, b)\n"},
    {"sub", BROADCAST "y = a - b\n"},
    {"mul", BROADCAST "y = a * b\n"},
    {"div", BROADCAST "y = a / (b*b + 0.5)\n"},
    {"max_pool", "c 1 3, kernel 1 3, stride 1 3, padding 0 1, h 4 8, w 4 8",
     "input x : f32[c, h, w]\n"
     "y = max_pool(x, kernel=kernel + padding, stride=stride, padding=padding)\n"},
    {"avg_pool", "c 1 3, kernel 1 3, stride 1 3, padding 0 1, h 4 8, w 4 8",
     "input x : f32[c, h, w]\n"
     "y = avg_pool(x, kernel=kernel + padding, stride=stride, padding=padding)\n"},
    {"upsample", "c 1 3, scale 1 4, h 1 5, w 1 5",
     "input x : f32[c, h, w]\n"
     "y = upsample(x, scale=scale) + upsample(x, scale=scale, mode=bilinear)\n"},
    {"global_pools", "c 1 9, h 1 5, w 1 5",
     "input x : f32[c, h, w]\ny = global_avg_pool(x)*2 + global_max_pool(x)\n"},
    {"channel_pools", "c 1 9, h 1 5, w 1 5",
     "input x : f32[c, h, w]\ny = concat(channel_max(x), channel_mean(x))\n"},
    {"concat", "c 1 5, k 1 20, h 1 4, w 1 4",
     "input a : f32[c, h, w]\ninput b : f32[k, h, w]\ny = concat(a, concat(b), a)\n"},
    {"pad_crop", "h 4 7, w 4 7, more 0 3, less 0 3",
     "input x : f32[2, h, w]\ninput large : f32[1, h + more, w + less]\n"
     "input small : f32[1, h - less, w - more]\n"
     "y = concat(pad(crop(x, small), large), pad(x, large), large)\n"},
    {"cross_entropy", "c 1 3, h 1 5, w 1 5",
     "input x : f32[c, h, w]\ntarget t : f32[c, h, w]\n"
     "output p = x*0.4 + 0.5\nloss binary_cross_entropy(p, t)\n"},
    {"dice_loss", "c 1 3, h 1 5, w 1 5",
     "input x : f32[c, h, w]\ntarget t : u8[c, h, w]\n"
     "output p = sigmoid(x)\nloss dice_loss(p, t, smooth=0.5)\n"},
    {"tversky_loss", "c 1 3, h 1 5, w 1 5",
     "input x : f32[c, h, w]\ntarget t : u8[c, h, w]\n"
     "output p = sigmoid(x)\nloss tversky_loss(p, t, alpha=0.2, beta=0.9, smooth=0.5)\n"},
    {"focal_loss", "c 1 3, h 1 5, w 1 5, g 0 3",
     "input x : f32[c, h, w]\ntarget t : u8[c, h, w]\n"
     "output p = sigmoid(x)\nloss focal_loss(p, t, gamma=g) + focal_loss(p, t, alpha=0.5)\n"},
    {"class_losses", "c 2 5, h 1 5, w 1 5",
     "input x : f32[c, h, w]\ntarget t : u8[1, h, w]\n"
     "output p = softmax(2*x)\nloss cross_entropy(p, t) + 0.5*dice_loss(p, t)\nmetric dice(p, t)\n"},
    {"class_losses_of_a_mean", "c 1 9, h 1 5, w 1 5",
     "input x : f32[c, h, w]\ntarget t : u8[1, h, w]\n"
     "output y = concat(x, 2*x)\n"
     "p = (softmax(y) + softmax(concat(x, 1 - x)) + one_hot(t, 2*c))/3\n"
     "loss cross_entropy(p, t)\n"},
    {"weighted_losses", "c 1 3, h 1 5, w 1 5",
     "input x : f32[c, h, w]\ntarget t : u8[c, h, w]\n"
     "output p = sigmoid(conv(x, c, kernel=1))\n"
     "loss 0.7*binary_cross_entropy(p, t) + dice_loss(p, t)/2\nmetric dice(p, t)\n"},
    {"several_losses", "h 1 5, w 1 5",
     "input x : f32[2, h, w]\ntarget t : u8[1, h, w]\n"
     "output p = sigmoid(conv(x, 1, kernel=1))\nq = sigmoid(conv(x, 1, kernel=1))\n"
     "loss main = dice_loss(p, t)\nloss side = 0.3*binary_cross_entropy(q, t)\n"},
    {"not_reached", "h 1 5, w 1 5",
     "input x : f32[2, h, w]\ntarget t : u8[1, h, w]\n"
     "output other = conv(x, 3, kernel=1)\n"
     "loss binary_cross_entropy(sigmoid(conv(x, 1, kernel=1)), t)\n"},
    {"bytes", "h 3 6, w 3 6",
     "input image : u8[3, h, w]\ninput x : f32[3, h, w]\n"
     "y = batch_norm(conv(concat((image/255 - 0.5)/0.2, x), 4, kernel=3, padding=1))\n"},
    {"residual", "c 1 5, h 4 7, w 4 7, stride 1 2",
     "input x : f32[c, h, w]\n"
     "y = relu(batch_norm(conv(x, 2*c, kernel=3, stride=stride, padding=1, bias=false)))\n"
     "y = batch_norm(conv(y, 2*c, kernel=3, padding=1, bias=false))\n"
     "y = relu(y + batch_norm(conv(x, 2*c, kernel=1, stride=stride, bias=false)))\n"},
    {"attention", "c 1 4, h 3 6, w 3 6",
     "input x : f32[4*c, h, w]\n"
     "a = linear(relu(linear(global_avg_pool(x), c)), 4*c)\n"
     "b = linear(relu(linear(global_max_pool(x), c)), 4*c)\n"
     "x = x * sigmoid(a + b)\n"
     "y = x * sigmoid(conv(concat(channel_max(x), channel_mean(x)), 1, kernel=7, padding=3))\n"},
    {"unet", "c 2 4, h 6 9, w 6 9",
     "input image : u8[3, h, w]\ntarget mask : u8[1, h, w]\n"
     "x = image/255\n"
     "repeat 2 { x = relu(batch_norm(conv(x, c, kernel=3, padding=1, bias=false))) }\n"
     "skip = x\n"
     "x = max_pool(x, kernel=2)\n"
     "repeat 2 { x = relu(batch_norm(conv(x, 2*c, kernel=3, padding=1, bias=false))) }\n"
     "x = dropout(x, rate=0.2)\n"
     "x = pad(conv_transpose(x, c, kernel=2, stride=2), skip)\n"
     "x = concat(skip, x)\n"
     "repeat 2 { x = relu(batch_norm(conv(x, c, kernel=3, padding=1, bias=false))) }\n"
     "output probability = sigmoid(conv(x, 1, kernel=1))\n"
     "loss binary_cross_entropy(probability, mask)\nmetric dice(probability, mask)\n"},
};

enum { N_CASES = sizeof cases / sizeof *cases, MAX_SOURCES = 64, ROUNDS = 10, ELEMENTS = 12 };

/* ---- random numbers: SplitMix64 (Steele, Lea, Flood 2014) ------------------------------------ */

static uint64_t random_bits(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double random_between(uint64_t *state, double low, double high)
{
    return low + (high - low) * (double)(random_bits(state) >> 11) * 0x1p-53;
}

static int64_t random_integer(uint64_t *state, int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits(state) % (uint64_t)(high - low + 1));
}

/* ---- one case as text and graph -------------------------------------------------------------- */

typedef struct {
    const Case *kind;
    Compilation *compilation;
    const char *text;
    uint64_t seed;
    int batch;
    OracleBinding bindings[MAX_SOURCES];
    int n_bindings;
    bool *met;            /* by Op: seen in a graph that was run */
} Trial;

static bool failed(const Trial *trial, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool failed(const Trial *trial, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("FAILED %s, batch %d: ", trial->kind->name, trial->batch);
    vprintf(format, arguments);
    printf("\n%s\n", trial->text);
    va_end(arguments);
    return false;
}

/* "param c = 2" lines for "c 1 4, ...". */
static void write_params(Text *text, const char *params, uint64_t *random)
{
    for (const char *at = params; *at; at += strcspn(at, ","), at += strspn(at, ", ")) {
        char name[32];
        long long low, high;
        if (sscanf(at, "%31s %lld %lld", name, &low, &high) != 3)
            bug("test_gradients: params '%s'", params);
        text_printf(text, "param %s = %lld\n", name, (long long)random_integer(random, low, high));
    }
}

/* Parses a text through a file, as segc does. */
static Graph *model_of(Compilation *compilation, const char *text)
{
    char path[] = "/tmp/test_gradients.XXXXXX";
    int descriptor = mkstemp(path);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0)
        bug("test_gradients: cannot write %s", path);
    const char *name = arena_printf(compilation->arena, "%s", path);
    struct Tree *tree = parse(compilation, name, (Loc){0});
    unlink(path);
    Graph *graph = tree ? build(compilation, tree) : NULL;
    if (graph)
        infer(graph);
    return graph && !compilation->errors ? graph : NULL;
}

/* The model: a body without a loss is built once to learn y's shape. */
static Graph *make_model(Trial *trial, uint64_t *random)
{
    Compilation *c = trial->compilation;
    Text params = {.arena = c->arena};
    write_params(&params, trial->kind->params, random);
    const char *head = arena_printf(c->arena, "%smodel %s {\n%s", params.text, trial->kind->name,
                                    trial->kind->body);
    if (strstr(head, "loss ")) {
        trial->text = arena_printf(c->arena, "%s}\n", head);
        return model_of(c, trial->text);
    }
    trial->text = arena_printf(c->arena, "%soutput value = y\n}\n", head);
    Graph *graph = model_of(c, trial->text);
    if (!graph)
        return NULL;
    const int64_t *dims = graph->results[0].node->shape.dims;
    trial->text = arena_printf(c->arena,
                               "%soutput value = y\ntarget t : f32[%lld, %lld, %lld]\n"
                               "loss binary_cross_entropy(sigmoid(y), t)\n}\n",
                               head, (long long)dims[0], (long long)dims[1], (long long)dims[2]);
    return model_of(c, trial->text);
}

/* Weights keep the variance of what they multiply, so that logits stay where a cross entropy from
 * probabilities is exact. */
static double random_value(const Node *source, uint64_t *random)
{
    if (source->op == OP_TARGET)
        return source->type == TYPE_U8 ? (double)random_integer(random, 0, 1) /* class 0 or 1 */
                                       : random_between(random, 0.05, 0.95);
    if (source->type == TYPE_U8)
        return (double)random_integer(random, 0, 255);
    if (source->op == OP_BUFFER)
        return random_between(random, 0.5, 1.5);
    Shape shape = source->shape;
    bool weight = source->op == OP_PARAMETER && shape.rank > 1;
    double bound = weight ? sqrt(3 * (double)shape.dims[0] / (double)shape_count(shape)) : 1;
    return random_between(random, -bound, bound);
}

static void bind_sources(Trial *trial, const Graph *model, uint64_t *random)
{
    for (int i = 0; i < model->n_nodes; i++) {
        const Node *node = model->nodes[i];
        if (op_facts[node->op].kind != KIND_SOURCE || node->op == OP_CONSTANT)
            continue;
        if (trial->n_bindings == MAX_SOURCES)
            bug("test_gradients: more than %d sources", MAX_SOURCES);
        int64_t count = oracle_count(node, trial->batch);
        double *data = arena_alloc(model->arena, (size_t)count * sizeof *data);
        for (int64_t k = 0; k < count; k++)
            data[k] = random_value(node, random);
        trial->bindings[trial->n_bindings++] = (OracleBinding){node->name, data};
    }
}

static Oracle *run(Trial *trial, const Graph *graph)
{
    for (int i = 0; i < graph->n_nodes; i++)
        trial->met[graph->nodes[i]->op] = true;
    return oracle_run(graph, trial->batch, trial->seed, trial->bindings, trial->n_bindings);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static double loss_at(Trial *trial, const Graph *forward, double *element, double value)
{
    double kept = *element;
    *element = value;
    Oracle *oracle = run(trial, forward);
    double loss = oracle_result(oracle, ROLE_LOSS, "loss")[0];
    oracle_close(oracle);
    *element = kept;
    return loss;
}

/* Central differences with two steps: where a kink (of a maximum, of relu) lies inside the longer
 * one, the shorter, less exact one decides. */
static bool slope_agrees(Trial *trial, const Graph *forward, double *element, double gradient,
                         double largest, double *measured)
{
    static const double steps[] = {1e-5, 1e-6};
    static const double noises[] = {2e-10, 2e-9};
    for (int i = 0; i < 2; i++) {
        double value = *element, step = steps[i];
        double up = loss_at(trial, forward, element, value + step);
        double down = loss_at(trial, forward, element, value - step);
        *measured = (up - down) / ((value + step) - (value - step));
        if (fabs(*measured - gradient) <= 1e-6 * largest + noises[i])
            return true;
    }
    return false;
}

static bool check_gradient(Trial *trial, const Graph *forward, const char *name,
                           const double *gradient, int64_t count, uint64_t *random)
{
    double *data = NULL;
    for (int i = 0; i < trial->n_bindings; i++)
        if (strcmp(trial->bindings[i].name, name) == 0)
            data = (double *)trial->bindings[i].data;
    double largest = 0;
    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(gradient[i]));
    for (int64_t i = 0; i < count && i < ELEMENTS; i++) {
        int64_t k = count <= ELEMENTS ? i : random_integer(random, 0, count - 1);
        double measured;
        if (!slope_agrees(trial, forward, &data[k], gradient[k], largest, &measured))
            return failed(trial, "gradient of %s[%lld] is %.12g, finite difference %.12g", name,
                          (long long)k, gradient[k], measured);
    }
    return true;
}

/* Every result of one graph has the same value in the other. */
static bool check_same_results(Trial *trial, const Graph *a, const Graph *b)
{
    Oracle *x = run(trial, a), *y = run(trial, b);
    bool same = true;
    for (int r = 0; r < a->n_results && same; r++) {
        const Result *result = &a->results[r];
        const double *p = oracle_value(x, result->node);
        const double *q = oracle_result(y, result->role, result->name);
        if (!q)
            same = failed(trial, "result '%s' is lost", result->name);
        for (int64_t i = 0; same && i < oracle_count(result->node, trial->batch); i++)
            if (!(fabs(p[i] - q[i]) <= 1e-9 * (1 + fabs(p[i]))))
                same = failed(trial, "result %s[%lld] is %.12g, was %.12g before simplify",
                              result->name, (long long)i, q[i], p[i]);
    }
    oracle_close(x);
    oracle_close(y);
    return same;
}

static bool check_inference(Trial *trial, const Graph *model, Program program)
{
    Graph *graph = specialise(model, program);
    verify(graph);
    Graph *simple = graph_copy(graph, program);
    simplify(simple);
    verify(simple);
    return check_same_results(trial, graph, simple);
}

/* The training graph as the pipeline makes it. */
static Graph *differentiated(const Graph *forward)
{
    Graph *graph = graph_copy(forward, PROGRAM_TRAIN);
    simplify(graph);
    verify(graph);
    differentiate(graph);
    verify(graph);
    simplify(graph);
    verify(graph);
    return graph;
}

static int count_wanted(const Graph *graph)
{
    int count = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        count += graph->nodes[i]->op == OP_PARAMETER
                 || (graph->nodes[i]->op == OP_INPUT && graph->nodes[i]->type == TYPE_F32);
    return count;
}

static bool check_training(Trial *trial, const Graph *model, uint64_t *random)
{
    Graph *forward = specialise(model, PROGRAM_TRAIN);
    verify(forward);
    Graph *graph = differentiated(forward);
    if (!check_same_results(trial, forward, graph))
        return false;
    Oracle *oracle = run(trial, graph);
    bool fine = true;
    int found = 0;
    for (int r = 0; r < graph->n_results; r++) {
        const Result *result = &graph->results[r];
        if (result->role != ROLE_GRADIENT)
            continue;
        found++;
        if (fine)
            fine = check_gradient(trial, forward, result->name, oracle_value(oracle, result->node),
                                  oracle_count(result->node, trial->batch), random);
    }
    oracle_close(oracle);
    if (fine && found != count_wanted(forward))
        fine = failed(trial, "%d gradients, expected %d", found, count_wanted(forward));
    return fine;
}

/* ---- when a pass aborts ---------------------------------------------------------------------- */

static const char *running = ""; /* the text of the case that runs */

static void print_running(int signal_number)
{
    ssize_t written = write(STDERR_FILENO, running, strlen(running));
    (void)written;
    (void)signal_number; /* abort() ends the program when this returns */
}

/* ---- all of them ----------------------------------------------------------------------------- */

static bool run_trial(const Case *kind, uint64_t seed, int batch, bool *met)
{
    Compilation compilation = {.arena = arena_open(), .path = kind->name, .precision = "fp32",
                               .targets = "host", .input_gradients = true, .messages = stderr};
    Trial trial = {.kind = kind, .compilation = &compilation, .seed = seed, .batch = batch,
                   .met = met};
    uint64_t random = seed;
    Graph *model = make_model(&trial, &random);
    bool fine;
    if (!model) {
        fine = failed(&trial, "does not compile");
    } else {
        for (int i = 0; i < model->n_nodes; i++)
            met[model->nodes[i]->op] = true;
        running = trial.text;
        verify(model);
        bind_sources(&trial, model, &random);
        fine = check_training(&trial, model, &random)
               && check_inference(&trial, model, PROGRAM_EVALUATE)
               && check_inference(&trial, model, PROGRAM_PREDICT);
    }
    running = "";
    arena_close(compilation.arena);
    return fine;
}

/* With a name: only that case. */
int main(int argc, char **argv)
{
    signal(SIGABRT, print_running);
    bool met[OP_COUNT] = {0};
    int passed = 0, n_failed = 0;
    for (int i = 0; i < N_CASES; i++) {
        if (argc > 1 && strcmp(argv[1], cases[i].name) != 0)
            continue;
        bool fine = true;
        for (int round = 0; round < ROUNDS && fine; round++)
            fine = run_trial(&cases[i], 1000 * (uint64_t)i + (uint64_t)round, 1 + round % 5, met);
        passed += fine;
        n_failed += !fine;
    }
    for (int i = 0; i < OP_COUNT && argc == 1; i++) {
        if (!met[i])
            printf("FAILED no case has the operator %s\n", op_facts[i].name);
        passed += met[i];
        n_failed += !met[i];
    }
    printf("%d passed, %d failed\n", passed, n_failed);
    return n_failed != 0;
}
