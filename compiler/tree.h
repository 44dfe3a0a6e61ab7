/* The tree of one file, as grammar/seg.y makes it and build.c reads it. Lists are linked by `next`,
 * in the order of the text. Names are interned. Nothing is checked here but the grammar. */
#ifndef TREE_H
#define TREE_H

typedef enum {
    EXPR_NUMBER, EXPR_BOOL,
    EXPR_TEXT,      /* a piece of a string without {} */
    EXPR_STRING,    /* items: TEXTs and the expressions in {} */
    EXPR_LIST,      /* items */
    EXPR_NAME, EXPR_CALL, EXPR_POP,
    EXPR_INDEX,     /* left[right] */
    EXPR_UNARY,     /* operator left */
    EXPR_BINARY,    /* left operator right */
    EXPR_BROKEN,    /* stands where a syntax error was */
} ExprKind;

typedef enum {
    SIGN_ADD, SIGN_SUB, SIGN_MUL, SIGN_DIV, SIGN_MOD, SIGN_INT_DIV,
    SIGN_LESS, SIGN_LESS_EQUAL, SIGN_GREATER, SIGN_GREATER_EQUAL, SIGN_EQUAL, SIGN_NOT_EQUAL,
    SIGN_AND, SIGN_OR, SIGN_NOT, SIGN_NEGATE,
} Sign;

typedef struct Argument {
    const char *name;        /* NULL: by position */
    Loc loc;                 /* with the name */
    struct Expr *value;
    struct Argument *next;
} Argument;

typedef struct Expr {
    ExprKind kind;
    Loc loc;
    int depth;               /* of the tree below, at least 1 */
    Sign sign;
    double number;           /* of NUMBER; 0 or 1 of BOOL */
    const char *name;        /* NAME, CALL, POP; the text of TEXT */
    Loc name_loc;            /* CALL: of the callee's name alone */
    struct Expr *left, *right;
    struct Expr *items;
    Argument *arguments;
    struct Expr *next;
} Expr;

typedef struct Name {
    const char *name;
    Loc loc;
    struct Name *next;
} Name;

typedef enum {
    STATEMENT_ASSIGN,        /* names = exprs */
    STATEMENT_IF,            /* arms */
    STATEMENT_FOR,           /* for names in exprs { body } */
    STATEMENT_REPEAT,        /* repeat exprs { body } */
    STATEMENT_PUSH,          /* push names, exprs */
    STATEMENT_RETURN,        /* exprs */
    STATEMENT_INPUT, STATEMENT_TARGET, /* names : type[exprs] */
    STATEMENT_OUTPUT, STATEMENT_LOSS, STATEMENT_METRIC, /* [names =] exprs */
    STATEMENT_BROKEN,
} StatementKind;

/* One `if`, `else if` or `else`. */
typedef struct Arm {
    Expr *condition;         /* NULL: else */
    struct Statement *body;
    struct Arm *next;
} Arm;

typedef struct Statement {
    StatementKind kind;
    Loc loc;
    Name *names;
    Expr *exprs;
    Name *type;
    struct Statement *body;
    Arm *arms;
    struct Statement *next;
} Statement;

typedef struct Param {
    const char *name;
    Loc loc;
    Expr *value;
    bool used;               /* read somewhere: names.c */
    int index;               /* of its value in Build, from 1; 0: not worked out yet */
    struct Param *next;
} Param;

typedef struct Formal {
    const char *name;
    Loc loc;
    Expr *value;             /* default, or NULL */
    struct Formal *next;
} Formal;

typedef struct Block {       /* also a model: no formals */
    const char *name;
    Loc loc;                 /* of the name */
    Formal *formals;
    Statement *body;
    bool used;
    struct Tree *tree;       /* where it stands */
    struct Block *next;
} Block;

typedef struct Use {
    const char *path;
    Loc loc;
    struct Tree *tree;
    struct Use *next;
} Use;

typedef struct Tree {
    const SourceFile *file;
    const char *identity;    /* the file's real path: a file is parsed once */
    bool open;               /* its uses are being read: using it again is a cycle */
    bool broken;             /* had errors */
    Use *uses;
    Param *params;
    Block *blocks, *models;
    struct Tree *next;       /* in Compilation.trees, in the order they were opened */
} Tree;

/* The parser's half of parse(): text to tree, no files. False after errors. */
bool parse_text(struct Compilation *, Tree *);
/* The places of all words of a text that parses, in their order. */
Loc *scan_words(struct Compilation *, Tree *, int *count);

#endif
