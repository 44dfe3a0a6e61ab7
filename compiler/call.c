/* Calls of operators and blocks.
 *
 * Arguments are matched to slots by position, then by name; a slot without a value takes its
 * default (ops.def for operators, the block's own for blocks) or is an error. `name = "..."`
 * names the instance of a block, or of an operator with parameters.
 */
#include "build.h"

#include <math.h>
#include <string.h>

enum { MAX_BLOCKS = 64 };

/* The operator a model can call by this name, or OP_COUNT. */
static Op find_operator(const char *name)
{
    for (int op = 0; op < OP_COUNT; op++)
        if (op_facts[op].tensors[0] && !strcmp(op_facts[op].name, name))
            return (Op)op;
    return OP_COUNT;
}

bool is_operator(const char *name)
{
    return find_operator(name) != OP_COUNT;
}

static bool has_parameters(Op op)
{
    return op_facts[op].kind == KIND_CONTRACTION || op == OP_BATCH_NORM;
}

/* ---- arguments ------------------------------------------------------------------------------- */

/* Names the parameters of a call: "x, channels, kernel". */
static const char *slot_names(Build *b, const Slot *slots, int count)
{
    Text text = {.arena = b->arena};
    text_append(&text, "", 0);
    for (int i = 0; i < count; i++)
        text_printf(&text, "%s%s", i ? ", " : "", slots[i].name);
    return text.length ? text.text : "nothing";
}

bool match(Build *b, const Expr *expr, Slot *slots, int count, const Expr **instance)
{
    int position = 0;
    bool named = false, fine = true;
    *instance = NULL;
    for (const Argument *argument = expr->arguments; argument; argument = argument->next) {
        Slot *slot = NULL;
        if (!argument->name) {
            if (named) {
                build_error(b, argument->loc, "an argument without a name behind one with a name");
                return false;
            }
            if (position == count) {
                build_error(b, argument->loc, "%s takes %d argument%s (%s), got more", expr->name,
                            count, count == 1 ? "" : "s", slot_names(b, slots, count));
                return false;
            }
            slot = &slots[position++];
        } else {
            named = true;
            for (int i = 0; i < count; i++)
                if (!strcmp(slots[i].name, argument->name))
                    slot = &slots[i];
            if (!slot && !strcmp(argument->name, "name") && !*instance) {
                *instance = argument->value;
                continue;
            }
        }
        if (!slot || slot->given) {
            if (slot || !strcmp(argument->name, "name"))
                build_error(b, argument->loc, "%s: '%s' is given twice", expr->name,
                            slot ? slot->name : argument->name);
            else
                build_error(b, argument->loc, "%s has no argument '%s'; it takes %s", expr->name,
                            argument->name, slot_names(b, slots, count));
            fine = false;
            continue;
        }
        slot->given = true;
        slot->expr = argument->value;
    }
    return fine;
}

/* ---- operators ------------------------------------------------------------------------------- */

static Node *add_parameter(Build *b, const Node *made, const char *suffix, Op op, Shape shape,
                           Init init, double init_value)
{
    const char *name = arena_printf(b->arena, "%s.%s", made->name, suffix);
    name = intern(b->arena, name, strlen(name));
    if (!own_name(b, name, made->loc))
        return NULL;
    Node *node = graph_add(b->graph, op, made->loc, 0, NULL);
    node->name = name;
    node->shape = shape;
    node->init = init;
    node->init_value = init_value;
    return node;
}

/* What one layer owns. A list of tensors goes through it with the same parameters for each. */
typedef struct {
    Node *nodes[4];
    int count;               /* 0: not made yet; -1: after an error */
    Shape weight;
} Parameters;

/* The parameters of a checked call; PyTorch's names, shapes and initial values (torch.nn.Conv2d,
 * ConvTranspose2d, Linear, BatchNorm2d). */
static void add_parameters(Build *b, const Node *made, Shape weight, Parameters *own)
{
    *own = (Parameters){.weight = weight};
    if (made->op == OP_BATCH_NORM) {
        own->nodes[0] = add_parameter(b, made, "weight", OP_PARAMETER, weight, INIT_CONSTANT, 1);
        own->nodes[1] = add_parameter(b, made, "bias", OP_PARAMETER, weight, INIT_CONSTANT, 0);
        own->nodes[2] = add_parameter(b, made, "running_mean", OP_BUFFER, weight, INIT_CONSTANT, 0);
        own->nodes[3] = add_parameter(b, made, "running_var", OP_BUFFER, weight, INIT_CONSTANT, 1);
        own->count = 4;
    } else {
        int64_t fan_in = 1, channels = (int64_t)made->attr[ATTR_CHANNELS];
        for (int i = 1; i < weight.rank; i++)
            fan_in *= weight.dims[i];
        own->nodes[0] = add_parameter(b, made, "weight", OP_PARAMETER, weight,
                                      INIT_KAIMING_UNIFORM, (double)fan_in);
        own->count = 1;
        if (made->attr[ATTR_BIAS] != 0)
            own->nodes[own->count++] =
                add_parameter(b, made, "bias", OP_PARAMETER, shape_fixed(1, &channels),
                              INIT_UNIFORM, (double)fan_in);
    }
    for (int i = 0; i < own->count; i++)
        if (!own->nodes[i])
            own->count = -1;
}

/* Adds the operator's node after checking it. draft: op, loc, attributes, tensors, instance's name.
 * own: of an operator with parameters. */
static Value add_operator(Build *b, Node *draft, const Loc *places, Parameters *own)
{
    Shape weight = {0};
    for (int i = 0; i < draft->n_inputs; i++) {
        if (op_facts[draft->inputs[i]->op].kind == KIND_METRIC) {
            build_error(b, places[i], "a metric cannot be computed with");
            return BROKEN;
        }
    }
    int errors = b->compilation->errors;
    if (!infer_call(b->compilation, draft, places, &weight)) {
        if (b->compilation->errors > errors)
            note_blocks(b);
        return BROKEN;
    }
    if ((draft->op == OP_PAD || draft->op == OP_CROP)
        && shape_equal(draft->shape, draft->inputs[0]->shape))
        return tensor_value(draft->inputs[0]); /* nothing to add or to cut */
    Node *inputs[5] = {draft->inputs[0]}, **all = draft->inputs;
    int count = draft->n_inputs;
    if (has_parameters(draft->op)) {
        if (own->count == 0)
            add_parameters(b, draft, weight, own);
        if (own->count < 0)
            return BROKEN;
        if (!shape_equal(weight, own->weight)) {
            build_error(b, places[0], "%s: the tensors of the list need weights of different shape",
                        op_facts[draft->op].name);
            return BROKEN;
        }
        memcpy(inputs + 1, own->nodes, (size_t)own->count * sizeof *inputs);
        all = inputs;
        count = 1 + own->count;
    }
    Node *node = graph_add(b->graph, draft->op, draft->loc, count, all);
    memcpy(node->attr, draft->attr, sizeof node->attr);
    node->shape = draft->shape;
    node->type = draft->type;
    node->name = draft->name;
    return tensor_value(node);
}

static Node *as_tensor(Build *b, Loc loc, Value value)
{
    if (value.kind == VALUE_TENSOR)
        return value.node;
    Node *node = graph_add(b->graph, OP_CONSTANT, loc, 0, NULL);
    node->shape = shape_fixed(3, (int64_t[]){1, 1, 1});
    node->attr[ATTR_VALUE] = value.number;
    return node;
}

Value apply_sign(Build *b, Op op, Loc loc, Value left, Value right, const Loc *places)
{
    Node *inputs[2] = {as_tensor(b, places[0], left), as_tensor(b, places[1], right)};
    Node draft = {.op = op, .loc = loc, .inputs = inputs, .n_inputs = 2};
    return add_operator(b, &draft, places, NULL);
}

/* Attributes that passes fill in. */
bool is_hidden_attribute(Op op, Attribute attribute)
{
    return (op == OP_DROPOUT && attribute == ATTR_STREAM)
        || ((op == OP_PAD || op == OP_CROP) && (attribute == ATTR_TOP || attribute == ATTR_LEFT));
}

/* The next word of a column of ops.def, without its default; false at the end. */
static bool next_word(Build *b, const char **column, const char **word)
{
    *column += strspn(*column, " ");
    size_t length = strcspn(*column, " ");
    if (!length)
        return false;
    *word = intern(b->arena, *column, strcspn(*column, " =."));
    *column += length;
    return true;
}

static Attribute attribute_named(const char *name)
{
    for (int i = 0; i < ATTR_COUNT; i++)
        if (!strcmp(attribute_facts[i].name, name))
            return (Attribute)i;
    return ATTR_COUNT;
}

/* A given attribute's value in the attribute's type. */
static bool take_attribute(Build *b, const Expr *expr, Attribute which, double *number)
{
    const AttributeFacts *facts = &attribute_facts[which];
    Value value = BROKEN;
    int64_t integer;
    if (facts->type == ATTR_MODE_NAME && expr->kind == EXPR_NAME
        && !find_variable(b->frame, expr->name)
        && !find_param(b->frame->block->tree, expr->name))
        value = (Value){.kind = VALUE_TEXT, .text = expr->name}; /* mode = bilinear */
    else
        value = evaluate(b, expr);
    if (value.kind == VALUE_BROKEN)
        return false;
    switch (facts->type) {
    case ATTR_INT:
        if (!want_integer(b, expr->loc, value, facts->name, &integer))
            return false;
        *number = (double)integer;
        return true;
    case ATTR_FLOAT:
        return want_number(b, expr->loc, value, facts->name, number);
    case ATTR_BOOL:
        *number = value.number;
        if (value.kind == VALUE_BOOL)
            return true;
        build_error(b, expr->loc, "expected true or false for %s, got %s", facts->name,
                    value_text(b, value));
        return false;
    case ATTR_MODE_NAME:
        *number = value.kind == VALUE_TEXT && !strcmp(value.text, "bilinear") ? MODE_BILINEAR
                                                                               : MODE_NEAREST;
        if (value.kind == VALUE_TEXT
            && (*number == MODE_BILINEAR || !strcmp(value.text, "nearest")))
            return true;
        build_error(b, expr->loc, "expected nearest or bilinear for %s, got %s", facts->name,
                    value_text(b, value));
        return false;
    }
    return false;
}

static Node *take_tensor(Build *b, const Expr *call_expr, Loc place, Value value)
{
    if (value.kind == VALUE_TENSOR)
        return value.node;
    if (value.kind != VALUE_BROKEN)
        build_error(b, place, "%s: expected a tensor, got %s", call_expr->name,
                    value_text(b, value));
    return NULL;
}

/* concat(a, b, [c, d]): any number of tensors, lists of them too. */
static Value call_concat(Build *b, const Expr *expr)
{
    int count = 0, capacity = 0;
    Node **inputs = NULL;
    Loc *places = NULL;
    bool fine = true;
    for (const Argument *argument = expr->arguments; argument; argument = argument->next) {
        if (argument->name) {
            build_error(b, argument->loc, "concat has no argument '%s'; it takes tensors",
                        argument->name);
            fine = false;
            continue;
        }
        Value value = evaluate(b, argument->value);
        const Value *items = value.kind == VALUE_LIST ? value.items : &value;
        int n = value.kind == VALUE_LIST ? value.count : 1;
        if (count + n > capacity) {
            capacity = 2 * (count + n);
            inputs = arena_grow(b->arena, inputs, (size_t)count * sizeof *inputs,
                                (size_t)capacity * sizeof *inputs);
            places = arena_grow(b->arena, places, (size_t)count * sizeof *places,
                                (size_t)capacity * sizeof *places);
        }
        for (int i = 0; i < n; i++, count++) {
            inputs[count] = take_tensor(b, expr, argument->loc, items[i]);
            places[count] = argument->loc;
            fine = fine && inputs[count];
        }
        b->steps += n;
    }
    if (fine && !count)
        build_error(b, expr->loc, "concat needs at least one tensor");
    if (!fine || !count)
        return BROKEN;
    if (count == 1)
        return tensor_value(inputs[0]);
    Node draft = {.op = OP_CONCAT, .loc = expr->loc, .inputs = inputs, .n_inputs = count};
    return add_operator(b, &draft, places, NULL);
}

/* The operator on each tensor of a list, with the same parameters and attributes. */
static Value apply_to_list(Build *b, const Expr *expr, Node *draft, Value list, Loc place)
{
    Parameters own = {0};
    Value *results = arena_alloc(b->arena, (size_t)list.count * sizeof *results);
    if (draft->op == OP_BATCH_NORM && list.count > 1) {
        build_error(b, place, "batch_norm cannot be shared: each tensor of a list has its own "
                    "statistics");
        return BROKEN;
    }
    for (int i = 0; i < list.count; i++) {
        Node each = *draft;
        each.inputs[0] = take_tensor(b, expr, place, list.items[i]);
        if (!each.inputs[0] || !enter(b, expr->loc))
            return BROKEN;
        leave(b);
        if (draft->op == OP_DROPOUT)
            each.attr[ATTR_STREAM] = b->streams++;
        results[i] = add_operator(b, &each, &place, &own);
        if (results[i].kind == VALUE_BROKEN)
            return BROKEN;
    }
    return list_value(results, list.count);
}

/* Takes the tensor slots. A list for the only tensor of an operator is left in *list. */
static bool take_tensors(Build *b, const Expr *expr, const Slot *slots, Node *draft, Loc *places,
                         Value *list)
{
    bool fine = true;
    bool numbers = draft->n_inputs == 2 && op_facts[draft->op].kind == KIND_POINTWISE;
    for (int i = 0; i < draft->n_inputs; i++) {
        if (!slots[i].given) {
            build_error(b, expr->loc, "%s needs '%s'", expr->name, slots[i].name);
            fine = false;
            continue;
        }
        Value value = evaluate(b, slots[i].expr);
        places[i] = slots[i].expr->loc;
        if (value.kind == VALUE_LIST && draft->n_inputs == 1) {
            *list = value;
            continue;
        }
        draft->inputs[i] = numbers && value.kind == VALUE_NUMBER
            ? as_tensor(b, places[i], value) : take_tensor(b, expr, places[i], value);
        fine = fine && draft->inputs[i];
    }
    return fine;
}

static bool take_attributes(Build *b, const Expr *expr, const Slot *slots, int count,
                            const Attribute *attributes, Node *draft)
{
    bool fine = true;
    for (int i = 0; i < count; i++) {
        double number = 0;
        Attribute same = ATTR_COUNT;
        if (slots[i].given) {
            fine = take_attribute(b, slots[i].expr, attributes[i], &number) && fine;
        } else if (!op_attribute_default(draft->op, attributes[i], &number, &same)) {
            build_error(b, expr->loc, "%s needs '%s'", expr->name, slots[i].name);
            fine = false;
        } else if (same != ATTR_COUNT) {
            number = draft->attr[same];
        }
        draft->attr[attributes[i]] = number;
    }
    return fine;
}

static Value call_operator(Build *b, const Expr *expr, Op op)
{
    Slot slots[16] = {0};
    Attribute attributes[16];
    const char *tensors = op_facts[op].tensors, *column = op_facts[op].attributes, *word;
    int n_tensors = 0, count = 0;
    while (next_word(b, &tensors, &word))
        slots[n_tensors++].name = word;
    while (next_word(b, &column, &word)) {
        attributes[count] = attribute_named(word);
        if (!is_hidden_attribute(op, attributes[count]))
            slots[n_tensors + count++].name = word;
    }
    const Expr *given;
    if (!match(b, expr, slots, n_tensors + count, &given))
        return BROKEN;
    if (given && !has_parameters(op)) {
        build_error(b, given->loc, "%s has no parameters, so it takes no name", expr->name);
        return BROKEN;
    }

    Node *inputs[4] = {0};
    Loc places[4] = {0};
    Node draft = {.op = op, .loc = expr->loc, .inputs = inputs, .n_inputs = n_tensors};
    Value list = BROKEN;
    bool fine = take_tensors(b, expr, slots, &draft, places, &list);
    fine = take_attributes(b, expr, slots + n_tensors, count, attributes, &draft) && fine;
    if (has_parameters(op)) {
        draft.name = instance_name(b, expr, given, false);
        fine = fine && draft.name;
    }
    if (!fine)
        return BROKEN;
    if (list.kind == VALUE_LIST)
        return apply_to_list(b, expr, &draft, list, places[0]);
    if (op == OP_DROPOUT)
        draft.attr[ATTR_STREAM] = b->streams++;
    Parameters own = {0};
    return add_operator(b, &draft, places, &own);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* Blocks of the file itself, then of the files it uses. */
static const Block *find_block(const Tree *tree, const char *name)
{
    for (const Block *block = tree->blocks; block; block = block->next)
        if (block->name == name)
            return block;
    for (const Use *use = tree->uses; use; use = use->next)
        for (const Block *block = use->tree->blocks; block; block = block->next)
            if (block->name == name)
                return block;
    return NULL;
}

static Value call_block(Build *b, const Expr *expr, const Block *block)
{
    Slot slots[MAX_SLOTS] = {0};
    Value values[MAX_SLOTS];
    int count = 0, i = 0;
    for (const Formal *formal = block->formals; formal && count < MAX_SLOTS; formal = formal->next)
        slots[count++].name = formal->name;
    const Expr *given;
    if (!match(b, expr, slots, count, &given))
        return BROKEN;
    bool fine = true;
    for (const Formal *formal = block->formals; i < count; formal = formal->next, i++) {
        if (slots[i].given) {
            values[i] = evaluate(b, slots[i].expr);
        } else if (!formal->value) {
            build_error(b, expr->loc, "block '%s' needs '%s'", expr->name, formal->name);
            note_at(b->compilation, block->loc, "block '%s' is defined here", block->name);
            fine = false;
        }
    }
    const char *instance = instance_name(b, expr, given, true);
    if (!fine || !instance)
        return BROKEN;

    if (b->frame->level == MAX_BLOCKS) {
        build_error(b, expr->loc, "blocks inside blocks more than %d deep: does '%s' use itself "
                    "without end?", MAX_BLOCKS, block->name);
        b->stopped = true;
        return BROKEN;
    }
    Frame frame = {.caller = b->frame, .called_at = expr->loc, .block = block,
                   .instance = instance, .level = b->frame->level + 1};
    b->frame = &frame;
    i = 0;
    for (const Formal *formal = block->formals; i < count; formal = formal->next, i++)
        set_variable(b, formal->loc, formal->name,
                     slots[i].given ? values[i] : evaluate(b, formal->value));
    run(b, block->body);
    b->frame = frame.caller;
    if (!frame.returned && !b->stopped) {
        build_error(b, expr->loc, "block '%s' returned nothing", block->name);
        return BROKEN;
    }
    for (i = 0; i < frame.n_stacks; i++)
        if (frame.stacks[i].count)
            build_error(b, frame.stacks[i].loc,
                        "'%s' is not empty at the end: pushed values that nothing pops",
                        frame.stacks[i].name);
    return frame.returned ? frame.result : BROKEN;
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* Whether two names differ by one letter changed, left out, put in, or swapped with the next. */
static bool is_near(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    if (*a && *b && (!strcmp(a + 1, b + 1) || !strcmp(a + 1, b) || !strcmp(a, b + 1)))
        return true;
    if (*a && *b && a[1] && a[0] == b[1] && a[1] == b[0] && !strcmp(a + 2, b + 2))
        return true;
    return (!*a && *b && !b[1]) || (!*b && *a && !a[1]);
}

static const char *near_name(Build *b, const char *name)
{
    for (int op = 0; op < OP_COUNT; op++)
        if (op_facts[op].tensors[0] && is_near(name, op_facts[op].name))
            return arena_printf(b->arena, "; is it '%s'?", op_facts[op].name);
    for (const Block *block = b->tree->blocks; block; block = block->next)
        if (is_near(name, block->name))
            return arena_printf(b->arena, "; is it '%s'?", block->name);
    return "";
}

Value call(Build *b, const Expr *expr)
{
    if (is_function(expr->name))
        return call_function(b, expr);
    if (b->params_of) {
        build_error(b, expr->name_loc, "a param is worked out before there are tensors: no '%s' "
                    "here", expr->name);
        return BROKEN;
    }
    if (is_normalize(expr->name))
        return call_normalize(b, expr);
    Op op = find_operator(expr->name);
    if (op == OP_CONCAT)
        return call_concat(b, expr);
    if (op != OP_COUNT)
        return call_operator(b, expr, op);
    const Block *block = find_block(b->frame->block->tree, expr->name);
    if (block)
        return call_block(b, expr, block);
    build_error(b, expr->name_loc, "no operator or block is called '%s'%s", expr->name,
                near_name(b, expr->name));
    for (const Argument *argument = expr->arguments; argument; argument = argument->next)
        evaluate(b, argument->value);
    return BROKEN;
}
