/* The grammar of the language: text -> Tree (compiler/tree.h).
 *
 * Statements need no separator: none begins with a word that could go on with an expression, and
 * line ends mean nothing. They only help after a syntax error: the rest of the line is skipped,
 * with the braces that open on it, and reading goes on.
 *
 * Syntax errors are written by yyreport_syntax_error (`parse.error custom`, not `detailed`),
 * because the useful message is often about the bracket that was never closed, which only we
 * remember.
 */
%define api.pure full
%define api.header.include {"seg.tab.h"}
%define parse.error custom
%define parse.lac full
%define api.location.type {Loc}
%locations
%expect 0
%lex-param   {yyscan_t scanner} {Parser *parser}
%parse-param {yyscan_t scanner} {Parser *parser}

%code requires {
#include "seg.h"
#include "parser.h"

#ifndef YY_TYPEDEF_YY_SCANNER_T
#define YY_TYPEDEF_YY_SCANNER_T
typedef void *yyscan_t;
#endif

typedef struct { Expr *first, *last; } ExprList;
typedef struct { Argument *first, *last; } ArgumentList;
typedef struct { Name *first, *last; } NameList;
typedef struct { Statement *first, *last; } StatementList;
typedef struct { Arm *first, *last; } ArmList;
typedef struct { Formal *first, *last; } FormalList;

#define YYLLOC_DEFAULT(all, rhs, n)                                            \
    ((n) ? ((all) = YYRHSLOC(rhs, 1), (all).end = YYRHSLOC(rhs, n).end)        \
         : ((all) = YYRHSLOC(rhs, 0), (all).begin = (all).end))
}

%code {
#include <string.h>

int scan_word(YYSTYPE *, Loc *, yyscan_t);
int yylex_init_extra(Parser *, yyscan_t *);
int yylex_destroy(yyscan_t);
struct yy_buffer_state *yy_scan_bytes(const char *, int, yyscan_t);

static int yylex(YYSTYPE *, Loc *, yyscan_t, Parser *);
static void yyerror(Loc *, yyscan_t, Parser *, const char *);

#define NEW(type) ((type *)arena_alloc(parser->compilation->arena, sizeof(type)))
#define APPEND(list, item)                                                     \
    ((list).last = (list).first ? ((list).last->next = (item)) : ((list).first = (item)))

/* Where the rest of a line is skipped, the next error is a new one. */
#define GO_ON                                                                  \
    do {                                                                       \
        if (parser->skipping) {                                                \
            yyclearin;                                                         \
            yyerrok;                                                           \
        }                                                                      \
    } while (0)

static Expr *make(Parser *, ExprKind, Loc, Expr *left, Expr *right);
static Expr *make_sign(Parser *, Sign, Loc, Expr *left, Expr *right);
static Expr *make_list(Parser *, ExprKind, Loc, Expr *items);
static Expr *make_call(Parser *, const char *name, Loc name_loc, Argument *, Loc);
static Argument *make_argument(Parser *, const char *name, Loc, Expr *value);
static Name *make_name(Parser *, const char *name, Loc);
static Statement *make_statement(Parser *, StatementKind, Loc, Name *, Expr *, Statement *body);
static Arm *make_arm(Parser *, Expr *condition, Statement *body);
static void count_item(Parser *, Loc);
static void add_use(Parser *, const char *path, Loc);
static void add_param(Parser *, const char *name, Loc, Expr *);
static void add_block(Parser *, Block **, const char *name, Loc, Formal *, Statement *body);
}

%union {
    double number;
    const char *name;
    Expr *expr;
    ExprList exprs;
    ArgumentList arguments;
    Argument *argument;
    NameList names;
    Statement *statement;
    StatementList statements;
    ArmList arms;
    Formal *formal;
    FormalList formals;
    StatementKind kind;
}

%token YYEOF 0 "end of file"
%token <name> NAME "a name" TEXT "text"
%token <number> NUMBER "a number"
%token AND "'and'" BLOCK "'block'" ELSE "'else'" FALSE "'false'" FOR "'for'" IF "'if'" IN "'in'"
%token INPUT "'input'" LOSS "'loss'" METRIC "'metric'" MODEL "'model'" NOT "'not'" OR "'or'"
%token OUTPUT "'output'" PARAM "'param'" POP "'pop'" PUSH "'push'" REPEAT "'repeat'"
%token RETURN "'return'" TARGET "'target'" TRUE "'true'" USE "'use'"
%token LESS_EQUAL "'<='" GREATER_EQUAL "'>='" EQUAL "'=='" NOT_EQUAL "'!='" INT_DIV "'//'"
%token OPEN_EXPRESSION "'{' in a string" CLOSE_EXPRESSION "'}' of a string"

%left OR
%left AND
%precedence NOT
%nonassoc '<' '>' LESS_EQUAL GREATER_EQUAL EQUAL NOT_EQUAL
%left '+' '-'
%left '*' '/' '%' INT_DIV
%precedence NEGATE
%precedence '['

%type <expr> expr string
%type <exprs> pieces exprs exprs1
%type <arguments> arguments arguments1
%type <argument> argument
%type <names> names
%type <statement> statement
%type <statements> statements body
%type <arms> arms
%type <formal> formal
%type <formals> formals formals1
%type <kind> data result

%%

file: %empty | file item                  { count_item(parser, @2); } ;

item:
    USE '"' TEXT '"'                      { add_use(parser, $3, @$); }
  | PARAM NAME '=' expr                   { add_param(parser, $2, @2, $4); }
  | BLOCK NAME '(' formals ')' body
        { add_block(parser, &parser->tree->blocks, $2, @2, $4.first, $6.first); }
  | MODEL NAME body
        { add_block(parser, &parser->tree->models, $2, @2, NULL, $3.first); }
  | error                                 { GO_ON; }
  ;

formals: %empty                           { $$ = (FormalList){0}; }
  | formals1 comma
  ;
formals1: formal                          { $$ = (FormalList){$1, $1}; }
  | formals1 ',' formal                   { $$ = $1; APPEND($$, $3); }
  ;
formal: NAME                              { $$ = NEW(Formal); $$->name = $1; $$->loc = @1; }
  | NAME '=' expr
        { $$ = NEW(Formal); $$->name = $1; $$->loc = @1; $$->value = $3; }
  ;
comma: %empty | ',' ;

body: '{' statements '}'                  { $$ = $2; } ;
statements: %empty                        { $$ = (StatementList){0}; }
  | statements statement                  { $$ = $1; APPEND($$, $2); }
  ;

statement:
    names '=' expr
        { $$ = make_statement(parser, STATEMENT_ASSIGN, @$, $1.first, $3, NULL); }
  | arms
        { $$ = make_statement(parser, STATEMENT_IF, @$, NULL, NULL, NULL); $$->arms = $1.first; }
  | arms ELSE body
        { APPEND($1, make_arm(parser, NULL, $3.first));
          $$ = make_statement(parser, STATEMENT_IF, @$, NULL, NULL, NULL); $$->arms = $1.first; }
  | FOR names IN expr body
        { $$ = make_statement(parser, STATEMENT_FOR, @$, $2.first, $4, $5.first); }
  | REPEAT expr body
        { $$ = make_statement(parser, STATEMENT_REPEAT, @$, NULL, $2, $3.first); }
  | PUSH NAME ',' expr
        { $$ = make_statement(parser, STATEMENT_PUSH, @$, make_name(parser, $2, @2), $4, NULL); }
  | RETURN exprs1
        { $$ = make_statement(parser, STATEMENT_RETURN, @$, NULL, $2.first, NULL); }
  | data NAME ':' NAME '[' exprs ']'
        { $$ = make_statement(parser, $1, @$, make_name(parser, $2, @2), $6.first, NULL);
          $$->type = make_name(parser, $4, @4); }
  | OUTPUT NAME '=' expr
        { $$ = make_statement(parser, STATEMENT_OUTPUT, @$, make_name(parser, $2, @2), $4, NULL); }
  | result expr
        { $$ = make_statement(parser, $1, @$, NULL, $2, NULL); }
  | result NAME '=' expr
        { $$ = make_statement(parser, $1, @$, make_name(parser, $2, @2), $4, NULL); }
  | error
        { $$ = make_statement(parser, STATEMENT_BROKEN, @$, NULL, NULL, NULL); GO_ON; }
  ;
data: INPUT { $$ = STATEMENT_INPUT; } | TARGET { $$ = STATEMENT_TARGET; } ;
result: LOSS { $$ = STATEMENT_LOSS; } | METRIC { $$ = STATEMENT_METRIC; } ;
arms: IF expr body
        { Arm *arm = make_arm(parser, $2, $3.first); $$ = (ArmList){arm, arm}; }
  | arms ELSE IF expr body                { $$ = $1; APPEND($$, make_arm(parser, $4, $5.first)); }
  ;
names: NAME
        { Name *name = make_name(parser, $1, @1); $$ = (NameList){name, name}; }
  | names ',' NAME                        { $$ = $1; APPEND($$, make_name(parser, $3, @3)); }
  ;

expr:
    NUMBER              { $$ = make(parser, EXPR_NUMBER, @$, NULL, NULL); $$->number = $1; }
  | TRUE                { $$ = make(parser, EXPR_BOOL, @$, NULL, NULL); $$->number = 1; }
  | FALSE               { $$ = make(parser, EXPR_BOOL, @$, NULL, NULL); }
  | string
  | NAME                { $$ = make(parser, EXPR_NAME, @$, NULL, NULL); $$->name = $1; }
  | NAME '(' arguments ')'  { $$ = make_call(parser, $1, @1, $3.first, @$); }
  | POP NAME            { $$ = make(parser, EXPR_POP, @$, NULL, NULL); $$->name = $2; }
  | '[' exprs ']'       { $$ = make_list(parser, EXPR_LIST, @$, $2.first); }
  | '(' expr ')'        { $$ = $2; $$->loc = @$; }
  | expr '[' expr ']'   { $$ = make(parser, EXPR_INDEX, @$, $1, $3); }
  | expr OR expr        { $$ = make_sign(parser, SIGN_OR, @$, $1, $3); }
  | expr AND expr       { $$ = make_sign(parser, SIGN_AND, @$, $1, $3); }
  | NOT expr            { $$ = make_sign(parser, SIGN_NOT, @$, $2, NULL); }
  | expr '<' expr       { $$ = make_sign(parser, SIGN_LESS, @$, $1, $3); }
  | expr '>' expr       { $$ = make_sign(parser, SIGN_GREATER, @$, $1, $3); }
  | expr LESS_EQUAL expr    { $$ = make_sign(parser, SIGN_LESS_EQUAL, @$, $1, $3); }
  | expr GREATER_EQUAL expr { $$ = make_sign(parser, SIGN_GREATER_EQUAL, @$, $1, $3); }
  | expr EQUAL expr     { $$ = make_sign(parser, SIGN_EQUAL, @$, $1, $3); }
  | expr NOT_EQUAL expr { $$ = make_sign(parser, SIGN_NOT_EQUAL, @$, $1, $3); }
  | expr '+' expr       { $$ = make_sign(parser, SIGN_ADD, @$, $1, $3); }
  | expr '-' expr       { $$ = make_sign(parser, SIGN_SUB, @$, $1, $3); }
  | expr '*' expr       { $$ = make_sign(parser, SIGN_MUL, @$, $1, $3); }
  | expr '/' expr       { $$ = make_sign(parser, SIGN_DIV, @$, $1, $3); }
  | expr '%' expr       { $$ = make_sign(parser, SIGN_MOD, @$, $1, $3); }
  | expr INT_DIV expr   { $$ = make_sign(parser, SIGN_INT_DIV, @$, $1, $3); }
  | '-' expr %prec NEGATE   { $$ = make_sign(parser, SIGN_NEGATE, @$, $2, NULL); }
  ;

string: '"' pieces '"'  { $$ = make_list(parser, EXPR_STRING, @$, $2.first); } ;
pieces: %empty          { $$ = (ExprList){0}; }
  | pieces TEXT
        { Expr *text = make(parser, EXPR_TEXT, @2, NULL, NULL); text->name = $2;
          $$ = $1; APPEND($$, text); }
  | pieces OPEN_EXPRESSION expr CLOSE_EXPRESSION  { $$ = $1; APPEND($$, $3); }
  ;

exprs: %empty           { $$ = (ExprList){0}; }
  | exprs1 comma
  ;
exprs1: expr            { $$ = (ExprList){$1, $1}; }
  | exprs1 ',' expr     { $$ = $1; APPEND($$, $3); }
  ;
arguments: %empty       { $$ = (ArgumentList){0}; }
  | arguments1 comma
  ;
arguments1: argument    { $$ = (ArgumentList){$1, $1}; }
  | arguments1 ',' argument { $$ = $1; APPEND($$, $3); }
  ;
argument: expr          { $$ = make_argument(parser, NULL, @$, $1); }
  | NAME '=' expr       { $$ = make_argument(parser, $1, @$, $3); }
  ;

%%

/* ---- the tree's pieces ----------------------------------------------------------------------- */

static Expr *make(Parser *parser, ExprKind kind, Loc loc, Expr *left, Expr *right)
{
    int depth = left ? left->depth : 0;
    if (right && right->depth > depth)
        depth = right->depth;
    Expr *expr = NEW(Expr);
    *expr = (Expr){.kind = kind, .loc = loc, .left = left, .right = right, .depth = depth + 1};
    if (expr->depth > MAX_DEPTH) {
        if (!parser->stopped)
            error_at(parser->compilation, loc, "expression nested more than %d deep", MAX_DEPTH);
        parser->stopped = true;
        *expr = (Expr){.kind = EXPR_BROKEN, .loc = loc, .depth = 1};
    }
    return expr;
}

static Expr *make_sign(Parser *parser, Sign sign, Loc loc, Expr *left, Expr *right)
{
    Expr *expr = make(parser, right ? EXPR_BINARY : EXPR_UNARY, loc, left, right);
    expr->sign = sign;
    return expr;
}

static Expr *make_list(Parser *parser, ExprKind kind, Loc loc, Expr *items)
{
    Expr *deepest = items;
    for (Expr *item = items; item; item = item->next)
        if (item->depth > deepest->depth)
            deepest = item;
    Expr *expr = make(parser, kind, loc, deepest, NULL);
    expr->left = NULL;
    expr->items = items;
    return expr;
}

static Expr *make_call(Parser *parser, const char *name, Loc name_loc, Argument *arguments,
                       Loc loc)
{
    Expr *deepest = NULL;
    for (Argument *argument = arguments; argument; argument = argument->next)
        if (!deepest || argument->value->depth > deepest->depth)
            deepest = argument->value;
    Expr *expr = make(parser, EXPR_CALL, loc, deepest, NULL);
    expr->left = NULL;
    expr->name = name;
    expr->name_loc = name_loc;
    expr->arguments = arguments;
    return expr;
}

static Argument *make_argument(Parser *parser, const char *name, Loc loc, Expr *value)
{
    Argument *argument = NEW(Argument);
    *argument = (Argument){.name = name, .loc = loc, .value = value};
    return argument;
}

static Name *make_name(Parser *parser, const char *text, Loc loc)
{
    Name *name = NEW(Name);
    *name = (Name){.name = text, .loc = loc};
    return name;
}

static Statement *make_statement(Parser *parser, StatementKind kind, Loc loc, Name *names,
                                 Expr *exprs, Statement *body)
{
    Statement *statement = NEW(Statement);
    *statement = (Statement){
        .kind = kind, .loc = loc, .names = names, .exprs = exprs, .body = body};
    return statement;
}

static Arm *make_arm(Parser *parser, Expr *condition, Statement *body)
{
    Arm *arm = NEW(Arm);
    *arm = (Arm){.condition = condition, .body = body};
    return arm;
}

/* Names of a file are looked up one after the other: a bound keeps that fast. */
static void count_item(Parser *parser, Loc loc)
{
    if (++parser->n_items <= MAX_ITEMS)
        return;
    error_at(parser->compilation, loc, "a file has at most %d params, blocks and uses", MAX_ITEMS);
    parser->stopped = true;
}

static void add_use(Parser *parser, const char *path, Loc loc)
{
    Use *use = NEW(Use), **end = &parser->tree->uses;
    *use = (Use){.path = path, .loc = loc};
    while (*end)
        end = &(*end)->next;
    *end = use;
}

static void add_param(Parser *parser, const char *name, Loc loc, Expr *value)
{
    Param *param = NEW(Param), **end = &parser->tree->params;
    *param = (Param){.name = name, .loc = loc, .value = value};
    for (; *end; end = &(*end)->next) {
        if ((*end)->name == name) {
            error_at(parser->compilation, loc, "param '%s' is defined twice", name);
            note_at(parser->compilation, (*end)->loc, "first defined here");
            return;
        }
    }
    *end = param;
}

static void add_block(Parser *parser, Block **end, const char *name, Loc loc, Formal *formals,
                      Statement *body)
{
    Block *block = NEW(Block);
    bool is_block = end == &parser->tree->blocks;
    *block = (Block){.name = name, .loc = loc, .formals = formals, .body = body,
                     .tree = parser->tree};
    for (; *end; end = &(*end)->next) {
        if ((*end)->name == name || !is_block) {
            if (is_block)
                error_at(parser->compilation, loc, "block '%s' is defined twice", name);
            else
                error_at(parser->compilation, loc, "a file has one model");
            note_at(parser->compilation, (*end)->loc, "first defined here");
            return;
        }
    }
    *end = block;
}

/* ---- words, brackets and what to skip -------------------------------------------------------- */

static bool begins_statement(int word)
{
    switch (word) {
    case NAME: case FOR: case IF: case REPEAT: case PUSH: case RETURN: case INPUT: case TARGET:
    case OUTPUT: case LOSS: case METRIC: case BLOCK: case MODEL: case PARAM: case USE:
        return true;
    default:
        return false;
    }
}

/* Keeps the stack of open brackets. A closing brace also closes what was forgotten inside. */
static int track_brackets(Parser *parser, int word, Loc loc)
{
    if (word == '(' || word == '[' || word == '{') {
        if (parser->n_open == MAX_DEPTH) {
            if (!parser->stopped)
                error_at(parser->compilation, loc, "brackets nested more than %d deep", MAX_DEPTH);
            parser->stopped = true;
            return YYEOF; /* nothing after it could be understood */
        }
        parser->open[parser->n_open].word = word;
        parser->open[parser->n_open++].loc = loc;
    }
    parser->word = word;
    parser->forgotten = 0;
    while (word == '}' && parser->n_open > 0 && parser->open[parser->n_open - 1].word != '{') {
        parser->forgotten = parser->open[--parser->n_open].word;
        parser->forgotten_loc = parser->open[parser->n_open].loc;
    }
    int top = parser->n_open ? parser->open[parser->n_open - 1].word : 0;
    parser->unmatched = word == '}' && top != '{';
    if ((word == ')' && top == '(') || (word == ']' && top == '[') || (word == '}' && top == '{'))
        parser->n_open--;
    return word;
}

/* After a syntax error: reads to the first line that begins like a statement. */
static int skip(YYSTYPE *value, Loc *loc, yyscan_t scanner, Parser *parser, int word, int line)
{
    for (;; word = scan_word(value, loc, scanner)) {
        bool new_line = parser->line != line;
        if (word == YYEOF)
            break;
        if (parser->skip_braces == 0 && new_line && word != ELSE
            && (begins_statement(word) || word == '}'))
            break;
        if (word == ELSE)
            line = parser->line;
        if (word == '{')
            parser->skip_braces++;
        if (word == '}' && parser->skip_braces > 0) {
            parser->skip_braces--;
            line = parser->line;
        } else if (word == '}') {
            break;
        }
    }
    parser->skipping = false;
    parser->skip_braces = 0;
    parser->first_in_line = true;
    while (parser->n_open > 0 && parser->open[parser->n_open - 1].word != '{')
        parser->n_open--;
    return word;
}

static int yylex(YYSTYPE *value, Loc *loc, yyscan_t scanner, Parser *parser)
{
    if (parser->stopped)
        return YYEOF;
    int line = parser->word_line;
    int word = scan_word(value, loc, scanner);
    parser->first_in_line = parser->line != line;
    if (parser->skipping)
        word = skip(value, loc, scanner, parser, word, line);
    parser->word_line = parser->line;
    if (word == YYerror) {
        parser->skipping = true;
        return word;
    }
    return track_brackets(parser, word, *loc);
}

/* ---- messages -------------------------------------------------------------------------------- */

/* "'kernel'" as it stands in the text, or "end of file". */
static const char *found(const Parser *parser, int symbol, Loc loc)
{
    if (symbol == YYSYMBOL_YYEOF)
        return "the end of the file";
    int length = (int)(loc.end - loc.begin);
    return arena_printf(parser->compilation->arena, "'%.*s'", length > 40 ? 40 : length,
                        loc.file->text + loc.begin);
}

static bool among(const yysymbol_kind_t *symbols, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(yysymbol_name(symbols[i]), name))
            return true;
    return false;
}

/* "',' or ')'". The many words that begin an expression are one, and the many that go on with one
 * are left out. */
static const char *list_expected(Parser *parser, const yysymbol_kind_t *symbols, int count)
{
    static const char starts[] = " a name a number 'false' 'not' 'pop' 'true' '-' '\"' '[' '(' ";
    static const char signs[] =
        " 'and' 'or' '<=' '>=' '==' '!=' '//' '<' '>' '+' '-' '*' '/' '%' '[' ";
    bool begin = among(symbols, count, "a number"), go_on = among(symbols, count, "'*'");
    if (among(symbols, count, "'repeat'"))
        return "a statement";
    if (among(symbols, count, "'model'"))
        return "'use', 'param', 'block' or 'model'";
    Text text = {.arena = parser->compilation->arena};
    if (begin)
        text_printf(&text, "an expression");
    for (int i = 0; i < count; i++) {
        const char *name = yysymbol_name(symbols[i]);
        const char *padded = arena_printf(text.arena, " %s ", name);
        if ((begin && strstr(starts, padded)) || (go_on && strstr(signs, padded)))
            continue;
        text_printf(&text, "%s%s", text.length ? " or " : "", name);
    }
    return text.length ? text.text : "an operator";
}

/* Decides which message helps most. False: none of the known slips. */
static bool report_slip(Parser *parser, Loc loc, const char *symbol, const char *word,
                        const yysymbol_kind_t *expected, int count)
{
    Compilation *c = parser->compilation;
    bool end = !strcmp(symbol, "end of file");
    bool outer = end || strstr("'block' 'model' 'param' 'use'", symbol);
    int open = parser->n_open ? parser->open[parser->n_open - 1].word : 0;
    Loc opened = parser->n_open ? parser->open[parser->n_open - 1].loc : loc;
    bool inside = open == '(' || open == '[';
    if (parser->forgotten) {
        open = parser->forgotten;
        opened = parser->forgotten_loc;
        inside = true;
    }
    if (inside && (outer || parser->forgotten || (parser->first_in_line && !strcmp(symbol, "a name")
                                                  && among(expected, count, "','")))) {
        error_at(c, loc, "missing '%c' before %s", open == '(' ? ')' : ']', word);
        note_at(c, opened, "'%c' opened here", open);
    } else if (open == '{' && outer) {
        error_at(c, loc, "missing '}' before %s", word);
        note_at(c, opened, "'{' opened here");
    } else if (!strcmp(symbol, "'}'") && parser->unmatched) {
        error_at(c, loc, "'}' without '{'");
    } else if (inside && among(expected, count, "','")
               && strstr("a name a number 'pop' 'true' 'false' '\"'", symbol)) {
        error_at(c, loc, "missing ',' before %s", word);
    } else if (!strcmp(symbol, "'('") && among(expected, count, "'='")) {
        error_at(c, loc, "a call alone does nothing: its result needs a name, as in x = relu(x)");
    } else if (among(expected, count, "'='") && count <= 2) {
        error_at(c, loc, "missing '=' before %s", word);
    } else if (!strcmp(symbol, "'else'") && among(expected, count, "'repeat'")) {
        error_at(c, loc, "'else' without an 'if' before it");
    } else if (symbol[0] == '\'' && symbol[1] >= 'a' && symbol[1] <= 'z'
               && among(expected, count, "a name") && !among(expected, count, "a number")
               && !among(expected, count, "'repeat'")) {
        error_at(c, loc, "%s is a word of the language and cannot be a name", word);
    } else {
        return false;
    }
    return true;
}

static int yyreport_syntax_error(const yypcontext_t *context, yyscan_t scanner, Parser *parser)
{
    (void)scanner;
    Loc loc = *yypcontext_location(context);
    const char *symbol = yysymbol_name(yypcontext_token(context));
    yysymbol_kind_t expected[YYNTOKENS];
    int count = yypcontext_expected_tokens(context, expected, YYNTOKENS);
    const char *word = found(parser, yypcontext_token(context), loc);
    if (parser->stopped)
        return 0;
    if (!report_slip(parser, loc, symbol, word, expected, count > 0 ? count : 0))
        error_at(parser->compilation, loc, "expected %s, found %s",
                 list_expected(parser, expected, count), word);

    /* Go on with the next line, unless this word begins one or ends what is open. */
    bool fresh = parser->first_in_line && begins_statement(parser->word)
        && (parser->n_open > 0 || parser->word != NAME);
    if ((parser->word != '}' || parser->unmatched) && parser->word != YYEOF && !fresh) {
        parser->skipping = true;
        if (parser->word == '{')
            parser->skip_braces = 1;
    }
    while (parser->n_open > 0
           && (parser->open[parser->n_open - 1].word != '{' || parser->skip_braces > 0)) {
        bool was_brace = parser->open[--parser->n_open].word == '{';
        if (was_brace)
            break;
    }
    return 0;
}

static void yyerror(Loc *loc, yyscan_t scanner, Parser *parser, const char *message)
{
    (void)scanner, (void)message; /* the only message that comes this way */
    error_at(parser->compilation, *loc, "nested too deep");
}

/* False after error_system. */
static bool open_scanner(Parser *parser, yyscan_t *scanner)
{
    const SourceFile *file = parser->tree->file;
    if (!yylex_init_extra(parser, scanner) && yy_scan_bytes(file->text, (int)file->length, *scanner))
        return true;
    error_system(parser->compilation, "close other programs", "out of memory");
    return false;
}

bool parse_text(Compilation *compilation, Tree *tree)
{
    Parser *parser = arena_alloc(compilation->arena, sizeof *parser);
    *parser = (Parser){.compilation = compilation, .tree = tree, .word_line = -1};
    int errors = compilation->errors;
    yyscan_t scanner;
    if (!open_scanner(parser, &scanner))
        return false;
    yyparse(scanner, parser);
    yylex_destroy(scanner);
    return compilation->errors == errors;
}

Loc *scan_words(Compilation *compilation, Tree *tree, int *count)
{
    Parser *parser = arena_alloc(compilation->arena, sizeof *parser);
    *parser = (Parser){.compilation = compilation, .tree = tree};
    Loc *words = NULL;
    *count = 0;
    yyscan_t scanner;
    if (!open_scanner(parser, &scanner))
        return NULL;
    YYSTYPE value;
    for (Loc loc; scan_word(&value, &loc, scanner) != YYEOF;) {
        size_t bytes = (size_t)*count * sizeof *words;
        if (*count % 256 == 0)
            words = arena_grow(compilation->arena, words, bytes, bytes + 256 * sizeof *words);
        words[(*count)++] = loc;
    }
    yylex_destroy(scanner);
    return words;
}
