/* Tree -> Graph: runs the model's text. Loops are unrolled and blocks expanded, numbers are
 * computed, every operator's call adds a node whose shape is known at once (infer_call), so a
 * model can ask for channels(x) and all errors carry the place in the text.
 *
 * An instance is a block's or an operator's use. Its name is `name = "..."` or the callee's name
 * and a count within the enclosing instance: conv1, conv2, double_conv1.conv1. Parameters are
 * named after their operator's instance: double_conv1.conv1.weight.
 *
 * Limits, because a small text can ask for much: steps, depth, nodes, lengths of lists and names.
 */
#include "build.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 1000000, MAX_LEVELS = 1000, MAX_NODES = 100000 };

/* ---- errors and limits ----------------------------------------------------------------------- */

void note_blocks(Build *b)
{
    int shown = 0;
    for (Frame *frame = b->frame; frame && frame->caller && shown < 4; frame = frame->caller) {
        note_at(b->compilation, frame->called_at, "in block '%s' used here", frame->block->name);
        shown++;
    }
}

void build_error(Build *b, Loc loc, const char *format, ...)
{
    char message[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    error_at(b->compilation, loc, "%s", message);
    note_blocks(b);
}

bool enter(Build *b, Loc loc)
{
    b->depth++;
    if (b->stopped)
        return false;
    const char *limit = NULL;
    if (++b->steps > MAX_STEPS)
        limit = "the model takes more than 1000000 steps to build: a loop runs too often";
    else if (b->depth > MAX_LEVELS)
        limit = "blocks and expressions nested too deep";
    else if (b->graph && b->graph->n_nodes > MAX_NODES)
        limit = "the model has more than 100000 operators";
    if (!limit)
        return true;
    build_error(b, loc, "%s", limit);
    b->stopped = true;
    return false;
}

void leave(Build *b)
{
    b->depth--;
}

/* ---- statements ------------------------------------------------------------------------------ */

/* A tensor that a variable holds is known by that name from then on. */
static void name_tensor(Build *b, const char *name, Value value)
{
    if (value.kind != VALUE_TENSOR || value.node->name || value.node->op == OP_CONSTANT)
        return;
    const char *instance = b->frame->instance;
    const char *full = *instance ? arena_printf(b->arena, "%s.%s", instance, name) : name;
    value.node->name = intern(b->arena, full, strlen(full));
}

static void assign(Build *b, const Name *name, Value value)
{
    if (!strcmp(name->name, "_"))
        return;
    if (find_param(b->frame->block->tree, name->name) && !find_variable(b->frame, name->name)) {
        build_error(b, name->loc, "'%s' is a param and keeps its value", name->name);
        return;
    }
    name_tensor(b, name->name, value);
    set_variable(b, name->loc, name->name, value);
}

static void run_assign(Build *b, const Statement *statement)
{
    Value value = evaluate(b, statement->exprs);
    int count = 0;
    for (const Name *name = statement->names; name; name = name->next)
        count++;
    if (count == 1) {
        assign(b, statement->names, value);
        return;
    }
    bool fits = value.kind == VALUE_LIST && value.count == count;
    if (!fits && value.kind != VALUE_BROKEN)
        build_error(b, statement->exprs->loc, "expected %d values for %d names, got %s", count,
                    count, value_text(b, value));
    int i = 0;
    for (const Name *name = statement->names; name; name = name->next, i++)
        assign(b, name, fits ? value.items[i] : BROKEN);
}

static void run_if(Build *b, const Statement *statement)
{
    for (const Arm *arm = statement->arms; arm; arm = arm->next) {
        bool holds = true;
        if (arm->condition
            && !want_condition(b, arm->condition->loc, evaluate(b, arm->condition), &holds))
            return;
        if (holds) {
            run(b, arm->body);
            return;
        }
    }
}

static void run_for(Build *b, const Statement *statement)
{
    Value list = evaluate(b, statement->exprs);
    const Name *first = statement->names, *second = first->next;
    if (list.kind != VALUE_LIST) {
        if (list.kind != VALUE_BROKEN)
            build_error(b, statement->exprs->loc, "expected a list to go through, got %s",
                        value_text(b, list));
        return;
    }
    for (int i = 0; i < list.count && !b->stopped && !b->frame->returned; i++) {
        if (second)
            assign(b, first, number_value(i));
        assign(b, second ? second : first, list.items[i]);
        run(b, statement->body);
        if (!enter(b, statement->loc))
            i = list.count;
        leave(b);
    }
}

static void run_repeat(Build *b, const Statement *statement)
{
    int64_t times;
    Loc loc = statement->exprs->loc;
    if (!want_integer(b, loc, evaluate(b, statement->exprs), "the number of repetitions", &times))
        return;
    if (times < 0)
        build_error(b, loc, "cannot repeat %lld times", (long long)times);
    for (int64_t i = 0; i < times && !b->stopped && !b->frame->returned; i++) {
        run(b, statement->body);
        if (!enter(b, statement->loc))
            times = 0;
        leave(b);
    }
}

static void run_push(Build *b, const Statement *statement)
{
    Frame *frame = b->frame;
    const char *name = statement->names->name;
    Value value = evaluate(b, statement->exprs);
    Stack *stack = NULL;
    for (int i = 0; i < frame->n_stacks; i++)
        if (frame->stacks[i].name == name)
            stack = &frame->stacks[i];
    if (!stack) {
        size_t bytes = (size_t)frame->n_stacks * sizeof *stack;
        frame->stacks = arena_grow(b->arena, frame->stacks, bytes, bytes + sizeof *stack);
        stack = &frame->stacks[frame->n_stacks++];
        *stack = (Stack){.name = name};
    }
    if (stack->count == stack->capacity) {
        size_t bytes = (size_t)stack->capacity * sizeof value;
        stack->capacity = stack->capacity ? 2 * stack->capacity : 8;
        stack->values = arena_grow(b->arena, stack->values, bytes,
                                   (size_t)stack->capacity * sizeof value);
    }
    stack->loc = statement->loc;
    stack->values[stack->count++] = value;
}

static void run_return(Build *b, const Statement *statement)
{
    int count = 0;
    for (const Expr *expr = statement->exprs; expr; expr = expr->next)
        count++;
    Value *items = arena_alloc(b->arena, (size_t)count * sizeof *items);
    int i = 0;
    for (const Expr *expr = statement->exprs; expr; expr = expr->next, i++) {
        items[i] = evaluate(b, expr);
        if (items[i].kind == VALUE_TENSOR) /* else the caller's name would be its first */
            name_tensor(b, op_facts[items[i].node->op].name, items[i]);
    }
    b->frame->result = count == 1 ? items[0] : list_value(items, count);
    b->frame->returned = true;
}

/* input and target: a source of type[C, H, W]. */
static void run_data(Build *b, const Statement *statement)
{
    const char *name = statement->names->name, *type = statement->type->name;
    Loc name_loc = statement->names->loc;
    set_variable(b, name_loc, name, BROKEN);
    int64_t dims[3], count = 1;
    int n = 0;
    for (const Expr *expr = statement->exprs; expr; expr = expr->next, n++) {
        if (n == 3)
            break;
        if (!want_integer(b, expr->loc, evaluate(b, expr), "a size", &dims[n]))
            return;
        if (dims[n] < 1 || dims[n] > INT32_MAX || __builtin_mul_overflow(count, dims[n], &count)
            || count > (int64_t)1 << 40) {
            build_error(b, expr->loc, "a size of %lld makes '%s' %s", (long long)dims[n], name,
                        dims[n] < 1 ? "empty" : "too large");
            return;
        }
    }
    if (n != 3 || statement->exprs == NULL) {
        build_error(b, statement->loc, "'%s' needs three sizes: channels, height, width", name);
        return;
    }
    if (strcmp(type, "u8") && strcmp(type, "f32")) {
        build_error(b, statement->type->loc, "expected u8 or f32, got '%s'", type);
        return;
    }
    Op op = statement->kind == STATEMENT_INPUT ? OP_INPUT : OP_TARGET;
    for (int i = 0; i < b->graph->n_nodes; i++) {
        const Node *other = b->graph->nodes[i];
        if ((other->op == OP_INPUT || other->op == OP_TARGET) && other->name == name) {
            build_error(b, name_loc, "'%s' is defined twice", name);
            note_at(b->compilation, other->loc, "first defined here");
        }
    }
    Node *node = graph_add(b->graph, op, statement->loc, 0, NULL);
    node->name = name;
    node->type = !strcmp(type, "u8") ? TYPE_U8 : TYPE_F32;
    node->shape = shape_sample(dims[0], dims[1], dims[2]);
    set_variable(b, name_loc, name, tensor_value(node));
}

/* A result's own name, or its operator's and a count where that is taken. */
static const char *result_name(Build *b, const Statement *statement, const Node *node)
{
    const char *wanted = statement->names ? statement->names->name
        : op_facts[node->op].kind == KIND_POINTWISE ? "loss" : op_facts[node->op].name;
    const char *name = intern(b->arena, wanted, strlen(wanted));
    for (int count = 2, i = 0; i < b->graph->n_results; i++) {
        if (b->graph->results[i].name != name)
            continue;
        if (statement->names) {
            build_error(b, statement->names->loc, "the model has two results called '%s'", name);
            return name;
        }
        const char *next = arena_printf(b->arena, "%s%d", wanted, count++);
        name = intern(b->arena, next, strlen(next));
        i = -1;
    }
    return name;
}

static void run_result(Build *b, const Statement *statement)
{
    Value value = evaluate(b, statement->exprs);
    Loc loc = statement->exprs->loc;
    if (value.kind == VALUE_BROKEN)
        return;
    PlanRole role = statement->kind == STATEMENT_OUTPUT ? ROLE_OUTPUT
        : statement->kind == STATEMENT_LOSS ? ROLE_LOSS : ROLE_METRIC;
    const char *wanted = role == ROLE_OUTPUT ? "a tensor that the model computes"
        : role == ROLE_LOSS ? "a loss, such as binary_cross_entropy(p, t)"
        : "a metric, such as dice(p, t)";
    bool fits = value.kind == VALUE_TENSOR;
    if (fits) {
        const Node *node = value.node;
        OpKind kind = op_facts[node->op].kind;
        bool scalar = !node->shape.batched && kind != KIND_SOURCE;
        fits = role == ROLE_METRIC ? kind == KIND_METRIC
            : role == ROLE_LOSS ? scalar
            : node->shape.batched && kind != KIND_SOURCE && kind != KIND_METRIC;
    }
    if (!fits) {
        build_error(b, loc, "expected %s, got %s", wanted, value_text(b, value));
        return;
    }
    if (role == ROLE_OUTPUT && !value.node->name)
        value.node->name = statement->names->name;
    graph_result(b->graph, role, result_name(b, statement, value.node), value.node);
    if (role == ROLE_OUTPUT)
        set_variable(b, statement->names->loc, statement->names->name, value);
}

bool run(Build *b, const Statement *statement)
{
    for (; statement && !b->stopped && !b->frame->returned; statement = statement->next) {
        if (enter(b, statement->loc)) {
            switch (statement->kind) {
            case STATEMENT_ASSIGN: run_assign(b, statement); break;
            case STATEMENT_IF: run_if(b, statement); break;
            case STATEMENT_FOR: run_for(b, statement); break;
            case STATEMENT_REPEAT: run_repeat(b, statement); break;
            case STATEMENT_PUSH: run_push(b, statement); break;
            case STATEMENT_RETURN: run_return(b, statement); break;
            case STATEMENT_INPUT: case STATEMENT_TARGET: run_data(b, statement); break;
            case STATEMENT_OUTPUT: case STATEMENT_LOSS: case STATEMENT_METRIC:
                run_result(b, statement);
                break;
            case STATEMENT_BROKEN: break;
            }
        }
        leave(b);
    }
    return !b->stopped && !b->frame->returned;
}

/* ---- params ---------------------------------------------------------------------------------- */

/* -D name=value: of the type that the param's own value has. */
static Value defined_value(Build *b, const Param *param, Value own, const char *text)
{
    char *end;
    Value value = own;
    errno = 0;
    switch (own.kind) {
    case VALUE_NUMBER:
        value.number = strtod(text, &end);
        if (end != text && !*end && isfinite(value.number))
            return value;
        break;
    case VALUE_BOOL:
        value.number = !strcmp(text, "true");
        if (value.number || !strcmp(text, "false"))
            return value;
        break;
    case VALUE_TEXT:
        if (strlen(text) <= 200) {
            value.text = intern(b->arena, text, strlen(text));
            return value;
        }
        break;
    case VALUE_BROKEN:
        return own;
    case VALUE_LIST: case VALUE_TENSOR:
        break;
    }
    error_at(b->compilation, param->loc, "-D %s=%.100s: expected %s", param->name, text,
             own.kind == VALUE_NUMBER ? "a number" : own.kind == VALUE_BOOL ? "true or false"
             : own.kind == VALUE_TEXT ? "at most 200 characters" : "a param of one value");
    return BROKEN;
}

static void evaluate_params(Build *b, Tree *tree)
{
    b->params_of = tree;
    for (Param *param = tree->params; param; param = param->next) {
        size_t bytes = (size_t)b->n_params * sizeof *b->params;
        Value value = evaluate(b, param->value);
        for (int i = 0; i < b->compilation->n_defines && tree == b->tree; i++)
            if (!strcmp(b->compilation->defines[i].name, param->name))
                value = defined_value(b, param, value, b->compilation->defines[i].value);
        b->params = arena_grow(b->arena, b->params, bytes, bytes + sizeof *b->params);
        b->params[b->n_params] = value;
        param->index = ++b->n_params;
    }
    b->params_of = NULL;
}

/* Every -D names a param of the model's own file, once. */
static void check_defines(Build *b)
{
    const Compilation *c = b->compilation;
    for (int i = 0; i < c->n_defines; i++) {
        const char *name = c->defines[i].name;
        const Param *param = b->tree->params;
        while (param && strcmp(param->name, name))
            param = param->next;
        if (!param) {
            error_at(b->compilation, (Loc){0}, "-D %.100s: '%s' has no such param", name,
                     b->tree->file->name);
            for (param = b->tree->params; param; param = param->next)
                note_at(b->compilation, param->loc, "param '%s'", param->name);
        }
        for (int k = 0; k < i; k++)
            if (!strcmp(c->defines[k].name, name)) {
                error_at(b->compilation, (Loc){0}, "-D %.100s is given twice", name);
                break;
            }
    }
}

/* ---- the model ------------------------------------------------------------------------------- */

/* Prediction has no target: what depends on one is for losses and metrics. */
static void check_outputs(Build *b)
{
    const Graph *graph = b->graph;
    bool *reads = arena_alloc(b->arena, (size_t)graph->next_id + 1);
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        reads[node->id] = node->op == OP_TARGET;
        for (int k = 0; k < node->n_inputs; k++)
            reads[node->id] |= reads[node->inputs[k]->id];
    }
    for (int i = 0; i < graph->n_results; i++)
        if (graph->results[i].role == ROLE_OUTPUT && reads[graph->results[i].node->id])
            error_at(b->compilation, graph->results[i].node->loc,
                     "output '%s' depends on a target, which prediction has not",
                     graph->results[i].name);
}

static void check_model(Build *b, const Block *model)
{
    bool input = false, output = false;
    for (int i = 0; i < b->graph->n_nodes; i++)
        input |= b->graph->nodes[i]->op == OP_INPUT;
    for (int i = 0; i < b->graph->n_results; i++)
        output |= b->graph->results[i].role == ROLE_OUTPUT;
    if (!input)
        error_at(b->compilation, model->loc, "model '%s' has no input", model->name);
    if (!output)
        error_at(b->compilation, model->loc, "model '%s' has no output", model->name);
    check_outputs(b);
    for (int i = 0; i < b->frame->n_stacks; i++)
        if (b->frame->stacks[i].count)
            error_at(b->compilation, b->frame->stacks[i].loc,
                     "'%s' is not empty at the end: pushed values that nothing pops",
                     b->frame->stacks[i].name);
}

/* --freeze: parameters that match a pattern become buffers. */
static void freeze(Build *b, const Block *model)
{
    int n_trained = 0;
    for (const char *at = b->compilation->freeze; at && *at; at += *at == ',') {
        size_t length = strcspn(at, ",");
        const char *pattern = arena_printf(b->arena, "%.*s", (int)length, at);
        bool found = false;
        for (int i = 0; i < b->graph->n_nodes; i++) {
            Node *node = b->graph->nodes[i];
            if (node->init == INIT_NONE || fnmatch(pattern, node->name, 0) != 0)
                continue;
            node->op = OP_BUFFER;
            found = true;
        }
        if (!found)
            error_at(b->compilation, model->loc, "--freeze: '%s' has no parameter called '%.100s'",
                     model->name, pattern);
        at += length;
    }
    for (int i = 0; i < b->graph->n_nodes; i++)
        n_trained += b->graph->nodes[i]->op == OP_PARAMETER;
    if (b->compilation->freeze && !n_trained && !b->compilation->errors)
        error_at(b->compilation, model->loc, "--freeze: nothing of '%s' is left to train",
                 model->name);
}

Graph *build(Compilation *c, Tree *tree)
{
    Build *b = arena_alloc(c->arena, sizeof *b);
    *b = (Build){.compilation = c, .arena = c->arena, .tree = tree};
    int errors = c->errors;
    for (Tree *each = c->trees; each; each = each->next)
        b->stopped |= !check_names(c, each, each == tree);
    if (!tree->models) {
        Loc end = {tree->file, (uint32_t)tree->file->length, (uint32_t)tree->file->length};
        error_at(c, end, "the file has no model");
    }
    check_defines(b);
    for (Tree *each = c->trees; each; each = each->next)
        evaluate_params(b, each);
    if (!tree->models || b->stopped)
        return NULL;
    Frame frame = {.block = tree->models, .instance = ""};
    b->graph = graph_new(c, tree->models->name, PROGRAM_MODEL);
    b->frame = &frame;
    run(b, tree->models->body);
    if (c->errors == errors)
        check_model(b, tree->models);
    if (c->errors == errors)
        freeze(b, tree->models);
    if (c->errors > errors)
        return NULL;
    graph_sort(b->graph);
    return b->graph;
}
