/* What can be said about a file's names before it runs: statements in the wrong place, names that
 * are defined twice or clash with the language's own, and names that nothing reads. The last are
 * errors because a name nobody reads is most often a name somebody misspelled.
 */
#include "build.h"

#include <string.h>

typedef struct Seen {
    const char *name;
    Loc loc;
    const char *what;        /* "argument", "name", "stack" */
    bool read;
} Seen;

typedef struct {
    Compilation *compilation;
    Tree *tree;
    const Block *block;      /* whose body is looked at; NULL: a param's value */
    bool is_model;
    Seen *seen; int n_seen;
    bool too_many;           /* names: what follows would take too long */
} Check;

static Seen *find_seen(Check *check, const char *name, bool stack)
{
    for (int i = 0; i < check->n_seen; i++)
        if (check->seen[i].name == name && (check->seen[i].what[0] == 's') == stack)
            return &check->seen[i];
    return NULL;
}

static void add_seen(Check *check, const char *name, Loc loc, const char *what)
{
    if (check->too_many || find_seen(check, name, what[0] == 's') || !strcmp(name, "_"))
        return;
    if (check->n_seen == MAX_VARIABLES) {
        error_at(check->compilation, loc, "more than %d names in one block", MAX_VARIABLES);
        check->too_many = true;
        return;
    }
    int n = check->n_seen++;
    if ((n & (n - 1)) == 0)
        check->seen = arena_grow(check->compilation->arena, check->seen,
                                 (size_t)n * sizeof *check->seen,
                                 (size_t)(n ? 2 * n : 1) * sizeof *check->seen);
    check->seen[n] = (Seen){name, loc, what, false};
}

/* ---- what is defined ------------------------------------------------------------------------- */

static void define(Check *check, const Statement *statement)
{
    for (; statement; statement = statement->next) {
        const char *what = statement->kind == STATEMENT_PUSH ? "stack"
            : statement->kind == STATEMENT_INPUT ? "input"
            : statement->kind == STATEMENT_TARGET ? "target" : "name";
        bool result = statement->kind == STATEMENT_OUTPUT || statement->kind == STATEMENT_LOSS
            || statement->kind == STATEMENT_METRIC;
        for (const Name *name = statement->names; name && !result; name = name->next)
            add_seen(check, name->name, name->loc, what);
        for (const Arm *arm = statement->arms; arm; arm = arm->next)
            define(check, arm->body);
        define(check, statement->body);
    }
}

/* ---- what is read ---------------------------------------------------------------------------- */

static void read_expr(Check *check, const Expr *expr)
{
    for (; expr; expr = expr->next) {
        if (expr->kind == EXPR_NAME || expr->kind == EXPR_POP) {
            Seen *seen = find_seen(check, expr->name, expr->kind == EXPR_POP);
            if (seen)
                seen->read = true;
        }
        if (expr->kind == EXPR_NAME)
            for (Param *param = check->tree->params; param; param = param->next)
                param->used |= param->name == expr->name;
        if (expr->kind == EXPR_CALL) {
            for (Block *block = check->tree->blocks; block; block = block->next)
                block->used |= block->name == expr->name && block != check->block;
            for (const Argument *argument = expr->arguments; argument; argument = argument->next)
                read_expr(check, argument->value);
        }
        read_expr(check, expr->items);
        read_expr(check, expr->left);
        read_expr(check, expr->right);
    }
}

static void check_place(Check *check, const Statement *statement)
{
    static const char *const words[] = {
        [STATEMENT_RETURN] = "return", [STATEMENT_INPUT] = "input", [STATEMENT_TARGET] = "target",
        [STATEMENT_OUTPUT] = "output", [STATEMENT_LOSS] = "loss", [STATEMENT_METRIC] = "metric",
    };
    if (statement->kind < STATEMENT_RETURN || statement->kind == STATEMENT_BROKEN)
        return;
    bool returns = statement->kind == STATEMENT_RETURN;
    if (returns == check->is_model)
        error_at(check->compilation, statement->loc, "'%s' belongs in a %s", words[statement->kind],
                 returns ? "block" : "model");
    if (returns && statement->next) {
        error_at(check->compilation, statement->next->loc, "nothing behind 'return' is reached");
        note_at(check->compilation, statement->loc, "'return' is here");
    }
}

static void read_statements(Check *check, const Statement *statement)
{
    for (; statement; statement = statement->next) {
        check_place(check, statement);
        read_expr(check, statement->exprs);
        for (const Arm *arm = statement->arms; arm; arm = arm->next) {
            read_expr(check, arm->condition);
            read_statements(check, arm->body);
        }
        read_statements(check, statement->body);
        if (statement->kind == STATEMENT_FOR && statement->names->next
            && statement->names->next->next)
            error_at(check->compilation, statement->names->next->next->loc,
                     "'for' takes one name for the item, or two for its index and the item");
    }
}

/* ---- a file ---------------------------------------------------------------------------------- */

static bool check_body(Compilation *c, Tree *tree, const Block *block, bool is_model)
{
    Check check = {.compilation = c, .tree = tree, .block = block, .is_model = is_model};
    int count = 0;
    for (const Formal *formal = block->formals; formal; formal = formal->next, count++) {
        if (find_seen(&check, formal->name, false))
            error_at(c, formal->loc, "block '%s' has two arguments '%s'", block->name,
                     formal->name);
        if (!strcmp(formal->name, "name"))
            error_at(c, formal->loc, "every block has an argument 'name': it names the instance");
        add_seen(&check, formal->name, formal->loc, "argument");
        if (count == 64)
            error_at(c, formal->loc, "a block takes at most 64 arguments");
    }
    define(&check, block->body);
    if (check.too_many)
        return false;
    for (const Formal *formal = block->formals; formal; formal = formal->next)
        read_expr(&check, formal->value);
    read_statements(&check, block->body);
    for (int i = 0; i < check.n_seen; i++)
        if (!check.seen[i].read)
            error_at(c, check.seen[i].loc, "%s '%s' is never %s", check.seen[i].what,
                     check.seen[i].name, check.seen[i].what[0] == 's' ? "popped" : "used");
    return true;
}

/* Blocks may not hide operators, functions, or each other across files. */
static void check_block_name(Compilation *c, const Tree *tree, const Block *block)
{
    if (is_operator(block->name) || is_function(block->name) || is_normalize(block->name))
        error_at(c, block->loc, "'%s' is %s of the language", block->name,
                 is_operator(block->name) ? "an operator" : "a function");
    for (const Use *use = tree->uses; use; use = use->next) {
        for (const Block *other = use->tree->blocks; other; other = other->next) {
            if (other->name == block->name) {
                error_at(c, block->loc, "block '%s' is also in '%s'", block->name, use->path);
                note_at(c, other->loc, "block '%s' is defined here", other->name);
            }
        }
    }
}

static void check_uses(Compilation *c, const Tree *tree)
{
    for (const Use *use = tree->uses; use; use = use->next) {
        for (const Use *other = tree->uses; other != use; other = other->next) {
            if (other->tree == use->tree) {
                error_at(c, use->loc, "'%s' is used twice", use->path);
                break;
            }
            for (const Block *block = use->tree->blocks; block; block = block->next)
                for (const Block *same = other->tree->blocks; same; same = same->next)
                    if (same->name == block->name)
                        error_at(c, use->loc, "block '%s' is also in '%s'", block->name,
                                 other->path);
        }
    }
}

bool check_names(Compilation *c, Tree *tree, bool main_file)
{
    bool fine = true;
    check_uses(c, tree);
    for (const Block *block = tree->blocks; block; block = block->next) {
        check_block_name(c, tree, block);
        fine = check_body(c, tree, block, false) && fine;
    }
    for (const Block *model = tree->models; model; model = model->next)
        fine = check_body(c, tree, model, true) && fine;
    Check check = {.compilation = c, .tree = tree};
    for (const Param *param = tree->params; param; param = param->next)
        read_expr(&check, param->value);
    for (const Param *param = tree->params; param; param = param->next)
        if (!param->used)
            error_at(c, param->loc, "param '%s' is never used", param->name);
    for (const Block *block = tree->blocks; block && main_file; block = block->next)
        if (!block->used && tree->models)
            error_at(c, block->loc, "block '%s' is never used", block->name);
    return fine;
}
