/* Expressions of the model's text: numbers, bools, texts, lists and tensors. Arithmetic with a
 * tensor in it becomes an operator of the graph. */
#include "build.h"

#include <math.h>
#include <string.h>

enum { MAX_ITEMS = 100000, MAX_TEXT = 1000 };

Value number_value(double number)
{
    return (Value){.kind = VALUE_NUMBER, .number = number};
}

static Value bool_value(bool holds)
{
    return (Value){.kind = VALUE_BOOL, .number = holds};
}

Value tensor_value(Node *node)
{
    return (Value){.kind = VALUE_TENSOR, .node = node};
}

Value list_value(Value *items, int count)
{
    return (Value){.kind = VALUE_LIST, .items = items, .count = count};
}

/* A number as a person writes it: 64, 0.5. */
static const char *number_text(Build *b, double number)
{
    if (number == floor(number) && fabs(number) < 1e15)
        return arena_printf(b->arena, "%.0f", number + 0.0);
    return arena_printf(b->arena, "%g", number);
}

const char *value_text(Build *b, Value value)
{
    switch (value.kind) {
    case VALUE_BROKEN: return "nothing";
    case VALUE_NUMBER: return arena_printf(b->arena, "the number %s", number_text(b, value.number));
    case VALUE_BOOL: return value.number ? "true" : "false";
    case VALUE_TEXT: return arena_printf(b->arena, "the text \"%s\"", value.text);
    case VALUE_LIST: return arena_printf(b->arena, "a list of %d", value.count);
    case VALUE_TENSOR:
        switch ((int)op_facts[value.node->op].kind) {
        case KIND_METRIC: return "a metric";
        case KIND_LOSS: return "a loss";
        case KIND_SOURCE:
            return arena_printf(b->arena, "the %s '%s'", op_facts[value.node->op].name,
                                value.node->name);
        }
        return !value.node->shape.batched ? "a loss"
            : arena_printf(b->arena, "a tensor (%s)", op_facts[value.node->op].name);
    }
    return "nothing";
}

bool want_number(Build *b, Loc loc, Value value, const char *what, double *number)
{
    *number = value.number;
    if (value.kind != VALUE_NUMBER && value.kind != VALUE_BROKEN)
        build_error(b, loc, "expected a number for %s, got %s", what, value_text(b, value));
    return value.kind == VALUE_NUMBER;
}

bool want_integer(Build *b, Loc loc, Value value, const char *what, int64_t *integer)
{
    double number;
    if (!want_number(b, loc, value, what, &number))
        return false;
    if (number != floor(number) || fabs(number) > 1e15) {
        build_error(b, loc, "expected a whole number for %s, got %s", what,
                    number_text(b, number));
        return false;
    }
    *integer = (int64_t)number;
    return true;
}

bool want_condition(Build *b, Loc loc, Value value, bool *condition)
{
    *condition = value.number != 0;
    if (value.kind != VALUE_BOOL && value.kind != VALUE_NUMBER && value.kind != VALUE_BROKEN)
        build_error(b, loc, "expected a condition, got %s", value_text(b, value));
    return value.kind == VALUE_BOOL || value.kind == VALUE_NUMBER;
}

/* ---- names ----------------------------------------------------------------------------------- */

Value *find_variable(Frame *frame, const char *name)
{
    for (int i = 0; frame && i < frame->n_variables; i++)
        if (frame->variables[i].name == name)
            return &frame->variables[i].value;
    return NULL;
}

void set_variable(Build *b, Loc loc, const char *name, Value value)
{
    Frame *frame = b->frame;
    Value *known = find_variable(frame, name);
    if (known) {
        *known = value;
        return;
    }
    if (frame->n_variables == MAX_VARIABLES) {
        build_error(b, loc, "more than %d names in one block", MAX_VARIABLES);
        b->stopped = true;
        return;
    }
    int n = frame->n_variables++;
    if ((n & (n - 1)) == 0) /* full at every power of two */
        frame->variables = arena_grow(b->arena, frame->variables, (size_t)n * sizeof(Variable),
                                      (size_t)(n ? 2 * n : 1) * sizeof(Variable));
    frame->variables[n] = (Variable){name, value};
}

const Param *find_param(const Tree *tree, const char *name)
{
    for (const Param *param = tree->params; param; param = param->next)
        if (param->name == name)
            return param;
    return NULL;
}

static Value evaluate_name(Build *b, const Expr *expr)
{
    const Value *variable = b->params_of ? NULL : find_variable(b->frame, expr->name);
    if (variable)
        return *variable;
    const Tree *tree = b->params_of ? b->params_of : b->frame->block->tree;
    const Param *param = find_param(tree, expr->name);
    if (param && param->index)
        return b->params[param->index - 1];
    build_error(b, expr->loc, "'%s' is not defined%s", expr->name,
                param ? " yet: params are worked out in their order" : "");
    return BROKEN;
}

static Value evaluate_pop(Build *b, const Expr *expr)
{
    Frame *frame = b->params_of ? NULL : b->frame;
    for (int i = 0; frame && i < frame->n_stacks; i++)
        if (frame->stacks[i].name == expr->name && frame->stacks[i].count)
            return frame->stacks[i].values[--frame->stacks[i].count];
    build_error(b, expr->loc, "'%s' is empty: nothing left to pop", expr->name);
    return BROKEN;
}

/* ---- lists and texts ------------------------------------------------------------------------- */

static Value evaluate_list(Build *b, const Expr *expr)
{
    int count = 0, i = 0;
    for (const Expr *item = expr->items; item; item = item->next)
        count++;
    Value *items = arena_alloc(b->arena, (size_t)count * sizeof *items);
    for (const Expr *item = expr->items; item; item = item->next)
        items[i++] = evaluate(b, item);
    return list_value(items, count);
}

static Value evaluate_string(Build *b, const Expr *expr)
{
    Text text = {.arena = b->arena};
    text_append(&text, "", 0);
    for (const Expr *item = expr->items; item; item = item->next) {
        if (item->kind == EXPR_TEXT) {
            text_append(&text, item->name, strlen(item->name));
            continue;
        }
        Value value = evaluate(b, item);
        if (value.kind == VALUE_BROKEN)
            return BROKEN;
        if (value.kind == VALUE_LIST || value.kind == VALUE_TENSOR) {
            build_error(b, item->loc, "expected a number or text in a string, got %s",
                        value_text(b, value));
            return BROKEN;
        }
        text_printf(&text, "%s", value.kind == VALUE_NUMBER ? number_text(b, value.number)
                    : value.kind == VALUE_BOOL ? value_text(b, value) : value.text);
        if (text.length > MAX_TEXT) {
            build_error(b, expr->loc, "text longer than %d characters", MAX_TEXT);
            return BROKEN;
        }
    }
    return (Value){.kind = VALUE_TEXT, .text = intern(b->arena, text.text, text.length)};
}

static Value evaluate_index(Build *b, const Expr *expr)
{
    Value list = evaluate(b, expr->left), index = evaluate(b, expr->right);
    int64_t at;
    if (list.kind == VALUE_BROKEN || index.kind == VALUE_BROKEN)
        return BROKEN;
    if (list.kind != VALUE_LIST) {
        build_error(b, expr->left->loc, "expected a list before [, got %s", value_text(b, list));
        return BROKEN;
    }
    if (!want_integer(b, expr->right->loc, index, "an index", &at))
        return BROKEN;
    if (at >= 0 && at < list.count)
        return list.items[at];
    build_error(b, expr->right->loc, "index %lld of a list of %d (the first is 0)", (long long)at,
                list.count);
    return BROKEN;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static const char *const sign_text[] = {
    [SIGN_ADD] = "+", [SIGN_SUB] = "-", [SIGN_MUL] = "*", [SIGN_DIV] = "/", [SIGN_MOD] = "%",
    [SIGN_INT_DIV] = "//", [SIGN_LESS] = "<", [SIGN_LESS_EQUAL] = "<=", [SIGN_GREATER] = ">",
    [SIGN_GREATER_EQUAL] = ">=", [SIGN_EQUAL] = "==", [SIGN_NOT_EQUAL] = "!=",
    [SIGN_AND] = "and", [SIGN_OR] = "or", [SIGN_NOT] = "not", [SIGN_NEGATE] = "-",
};

static Value of_numbers(Build *b, const Expr *expr, double left, double right)
{
    double result = 0;
    switch (expr->sign) {
    case SIGN_LESS: return bool_value(left < right);
    case SIGN_LESS_EQUAL: return bool_value(left <= right);
    case SIGN_GREATER: return bool_value(left > right);
    case SIGN_GREATER_EQUAL: return bool_value(left >= right);
    case SIGN_EQUAL: return bool_value(left == right);
    case SIGN_NOT_EQUAL: return bool_value(left != right);
    case SIGN_ADD: result = left + right; break;
    case SIGN_SUB: result = left - right; break;
    case SIGN_MUL: result = left * right; break;
    case SIGN_DIV: result = left / right; break;
    case SIGN_INT_DIV: result = floor(left / right); break;
    case SIGN_MOD: result = left - right * floor(left / right); break;
    case SIGN_AND: case SIGN_OR: case SIGN_NOT: case SIGN_NEGATE: break; /* not of two numbers */
    }
    if (right == 0 && (expr->sign == SIGN_DIV || expr->sign == SIGN_INT_DIV
                       || expr->sign == SIGN_MOD)) {
        build_error(b, expr->loc, "division by zero");
        return BROKEN;
    }
    if (!isfinite(result)) {
        build_error(b, expr->loc, "the result is too large for a number");
        return BROKEN;
    }
    return number_value(result);
}

static Value join_lists(Build *b, const Expr *expr, Value left, Value right)
{
    if (left.count + right.count > MAX_ITEMS) {
        build_error(b, expr->loc, "a list of more than %d", MAX_ITEMS);
        return BROKEN;
    }
    Value *items = arena_grow(b->arena, left.items, (size_t)left.count * sizeof *items,
                              (size_t)(left.count + right.count) * sizeof *items);
    for (int i = 0; i < right.count; i++)
        items[left.count + i] = right.items[i];
    b->steps += (left.count + right.count) / 16;
    return list_value(items, left.count + right.count);
}

static Value evaluate_binary(Build *b, const Expr *expr)
{
    Value left = evaluate(b, expr->left);
    if (expr->sign == SIGN_AND || expr->sign == SIGN_OR) {
        bool first, second;
        if (!want_condition(b, expr->left->loc, left, &first))
            return BROKEN;
        if (first == (expr->sign == SIGN_OR))
            return bool_value(first);
        if (!want_condition(b, expr->right->loc, evaluate(b, expr->right), &second))
            return BROKEN;
        return bool_value(second);
    }
    Value right = evaluate(b, expr->right);
    if (left.kind == VALUE_BROKEN || right.kind == VALUE_BROKEN)
        return BROKEN;
    bool equality = expr->sign == SIGN_EQUAL || expr->sign == SIGN_NOT_EQUAL;
    if (left.kind == VALUE_NUMBER && right.kind == VALUE_NUMBER)
        return of_numbers(b, expr, left.number, right.number);
    if (equality && left.kind == right.kind && left.kind == VALUE_TEXT)
        return bool_value((left.text == right.text) == (expr->sign == SIGN_EQUAL));
    if (equality && left.kind == right.kind && left.kind == VALUE_BOOL)
        return bool_value((left.number == right.number) == (expr->sign == SIGN_EQUAL));
    if (left.kind == VALUE_LIST && right.kind == VALUE_LIST && expr->sign == SIGN_ADD)
        return join_lists(b, expr, left, right);
    bool tensors = (left.kind == VALUE_TENSOR || left.kind == VALUE_NUMBER)
        && (right.kind == VALUE_TENSOR || right.kind == VALUE_NUMBER);
    if (tensors && expr->sign <= SIGN_DIV) {
        static const Op ops[] = {[SIGN_ADD] = OP_ADD, [SIGN_SUB] = OP_SUB, [SIGN_MUL] = OP_MUL,
                                 [SIGN_DIV] = OP_DIV};
        Loc places[2] = {expr->left->loc, expr->right->loc};
        return apply_sign(b, ops[expr->sign], expr->loc, left, right, places);
    }
    build_error(b, expr->loc, "'%s' has no meaning between %s and %s", sign_text[expr->sign],
                value_text(b, left), value_text(b, right));
    return BROKEN;
}

static Value evaluate_unary(Build *b, const Expr *expr)
{
    Value value = evaluate(b, expr->left);
    if (value.kind == VALUE_BROKEN)
        return BROKEN;
    bool condition;
    if (expr->sign == SIGN_NOT)
        return want_condition(b, expr->left->loc, value, &condition) ? bool_value(!condition)
                                                                     : BROKEN;
    if (value.kind == VALUE_NUMBER)
        return number_value(-value.number);
    if (value.kind == VALUE_TENSOR) {
        Loc places[2] = {expr->left->loc, expr->left->loc};
        return apply_sign(b, OP_MUL, expr->loc, value, number_value(-1), places);
    }
    build_error(b, expr->loc, "'-' has no meaning before %s", value_text(b, value));
    return BROKEN;
}

/* ---- functions ------------------------------------------------------------------------------- */

static const char *const functions[] = {"range", "len", "channels", "height", "width"};

bool is_function(const char *name)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (!strcmp(name, functions[i]))
            return true;
    return false;
}

static Value call_range(Build *b, const Expr *expr, const Value *values, const Loc *places, int n)
{
    int64_t from = 0, to;
    if (!want_integer(b, places[n - 1], values[n - 1], "the end of a range", &to)
        || (n == 2 && !want_integer(b, places[0], values[0], "the start of a range", &from)))
        return BROKEN;
    if (to - from > MAX_ITEMS) {
        build_error(b, expr->loc, "a list of more than %d", MAX_ITEMS);
        return BROKEN;
    }
    int count = to > from ? (int)(to - from) : 0;
    Value *items = arena_alloc(b->arena, (size_t)count * sizeof *items);
    for (int i = 0; i < count; i++)
        items[i] = number_value((double)(from + i));
    b->steps += count / 16;
    return list_value(items, count);
}

Value call_function(Build *b, const Expr *expr)
{
    Value values[2];
    Loc places[2];
    int n = 0, most = expr->name[0] == 'r' ? 2 : 1;
    for (const Argument *argument = expr->arguments; argument; argument = argument->next) {
        if (n == most || argument->name) {
            build_error(b, argument->loc, "%s takes %d argument%s without a name", expr->name, most,
                        most == 1 ? "" : "s at most,");
            return BROKEN;
        }
        places[n] = argument->loc;
        values[n++] = evaluate(b, argument->value);
        if (values[n - 1].kind == VALUE_BROKEN)
            return BROKEN;
    }
    if (n == 0) {
        build_error(b, expr->loc, "%s needs an argument", expr->name);
        return BROKEN;
    }
    if (expr->name[0] == 'r')
        return call_range(b, expr, values, places, n);
    bool list = expr->name[0] == 'l';
    if (values[0].kind != (list ? VALUE_LIST : VALUE_TENSOR)) {
        build_error(b, places[0], "%s: expected a %s, got %s", expr->name,
                    list ? "list" : "tensor", value_text(b, values[0]));
        return BROKEN;
    }
    if (list)
        return number_value(values[0].count);
    int dimension = expr->name[0] == 'c' ? 0 : expr->name[0] == 'h' ? 1 : 2;
    return number_value((double)values[0].node->shape.dims[dimension]);
}

/* ---- expressions ----------------------------------------------------------------------------- */

Value evaluate(Build *b, const Expr *expr)
{
    Value value = BROKEN;
    if (enter(b, expr->loc)) {
        switch (expr->kind) {
        case EXPR_NUMBER: value = number_value(expr->number); break;
        case EXPR_BOOL: value = bool_value(expr->number != 0); break;
        case EXPR_TEXT: case EXPR_STRING: value = evaluate_string(b, expr); break;
        case EXPR_LIST: value = evaluate_list(b, expr); break;
        case EXPR_NAME: value = evaluate_name(b, expr); break;
        case EXPR_CALL: value = call(b, expr); break;
        case EXPR_POP: value = evaluate_pop(b, expr); break;
        case EXPR_INDEX: value = evaluate_index(b, expr); break;
        case EXPR_UNARY: value = evaluate_unary(b, expr); break;
        case EXPR_BINARY: value = evaluate_binary(b, expr); break;
        case EXPR_BROKEN: break;
        }
    }
    leave(b);
    return value;
}
