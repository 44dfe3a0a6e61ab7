/* What the files of the builder share: build.c runs statements, value.c expressions, call.c
 * operators and blocks, instance.c names instances and their parameters, names.c looks for names that
 * nothing uses. All of it is one stage, Tree -> Graph. */
#ifndef BUILD_H
#define BUILD_H

#include "seg.h"

enum { MAX_VARIABLES = 1000 };

typedef enum {
    VALUE_BROKEN,        /* an error was reported: says no more */
    VALUE_NUMBER, VALUE_BOOL, VALUE_TEXT, VALUE_LIST, VALUE_TENSOR,
} ValueKind;

typedef struct Value {
    ValueKind kind;
    double number;       /* NUMBER; 0 or 1 of BOOL */
    const char *text;
    Node *node;
    struct Value *items;
    int count;
} Value;

typedef struct { const char *name; Value value; } Variable;
typedef struct { const char *name; Value *values; int count, capacity; Loc loc; } Stack;
typedef struct { const char *name; int count; } Counter;

/* One block being expanded, or the model. */
typedef struct Frame {
    struct Frame *caller;
    Loc called_at;
    const Block *block;
    const char *instance;              /* "" for the model */
    int level;                         /* blocks around it */
    Variable *variables; int n_variables;
    Stack *stacks; int n_stacks;
    Counter *counters; int n_counters; /* automatic names given so far */
    bool returned;
    Value result;
} Frame;

typedef struct { const char *name; Loc loc; } Owner;

typedef struct {
    Compilation *compilation;
    Arena *arena;
    Graph *graph;
    Tree *tree;                        /* of the model's own file */
    Frame *frame;
    const Tree *params_of;             /* while params and defaults are evaluated */
    Value *params;                     /* by Param.index */
    int n_params;
    int depth;                         /* of the recursion over the tree */
    int64_t steps;
    bool stopped;                      /* a limit was reached */
    int streams;                       /* dropouts so far */
    Owner *owners; int n_owners, owners_capacity; /* parameters by name: a hash table */
} Build;

static const Value BROKEN = {.kind = VALUE_BROKEN};

/* build.c: reports, with notes of the blocks being expanded. */
void build_error(Build *, Loc, const char *format, ...) __attribute__((format(printf, 3, 4)));
void note_blocks(Build *);
bool run(Build *, const Statement *); /* the statements; false once returned or stopped */
bool enter(Build *, Loc);             /* counts a step and a level; false: stopped */
void leave(Build *);

/* value.c */
Value evaluate(Build *, const Expr *);
Value *find_variable(Frame *, const char *name);
void set_variable(Build *, Loc, const char *name, Value);
const Param *find_param(const Tree *, const char *name);
const char *value_text(Build *, Value);        /* "a list of 3": what it is, for messages */
bool want_number(Build *, Loc, Value, const char *what, double *number);
bool want_integer(Build *, Loc, Value, const char *what, int64_t *number);
bool want_condition(Build *, Loc, Value, bool *condition);
Value number_value(double);
Value tensor_value(Node *);
Value list_value(Value *items, int count);
bool is_function(const char *name);    /* range len channels height width */
Value call_function(Build *, const Expr *);

/* call.c */
enum { MAX_SLOTS = 64 };
typedef struct {
    const char *name;
    bool given;
    const Expr *expr;                  /* what was given */
} Slot;
/* Arguments to slots, by position, then by name; *instance: the expression of `name =`. False after
 * an error. */
bool match(Build *, const Expr *call, Slot *, int count, const Expr **instance);
Value call(Build *, const Expr *);
Value apply_sign(Build *, Op, Loc, Value left, Value right, const Loc *places);
bool is_operator(const char *name);
bool is_hidden_attribute(Op, Attribute); /* filled in by passes, not by the model */

/* instance.c */
/* The full name of an instance, given or automatic; NULL after an error. */
const char *instance_name(Build *, const Expr *call, const Expr *given, bool is_block);
bool own_name(Build *, const char *parameter, Loc);   /* each is one operator's: else an error */

/* normalize.c */
bool is_normalize(const char *name);
Value call_normalize(Build *, const Expr *);

/* names.c: unknown places for statements, repeated and unused names. False: do not run it. */
bool check_names(Compilation *, Tree *, bool main_file);

#endif
