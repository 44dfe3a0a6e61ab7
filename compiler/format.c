/* `segc fmt`: a model's text in the one style. Lines stay as they were broken; what changes is blank
 * space:
 *
 *   4 spaces a brace, and for the rest of a statement that goes on; at most one empty line; none at
 *   the ends of the file and of a body
 *   one space around operators, but * / % // stay as tight as they were written: 2*width
 *   in neighbouring lines `=` of params, names and ':' of inputs and targets, and comments stand
 *   below each other
 *
 * The words come from the scanner, comments from the gaps between them. The result is scanned again:
 * it must have the same words.
 */
#include "../runtime/files.h"
#include "seg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { INDENT = 4, COMMENT_GAP = 2 };

typedef struct {
    const char *text;
    int length;
    int lines;               /* line ends before it */
    bool spaced;             /* blank before it */
    bool comment;
} Word;

typedef struct {
    Compilation *c;
    Word *words;
    int n_words, capacity;
} Words;

/* A line that is written: code, then perhaps a comment. */
typedef struct {
    Text code;
    int keyword, column;     /* of columns: lengths of the first and the second; 0: none */
    const char *comment;     /* NULL: none */
    int comment_length;
    int empty_before;
    bool statement;          /* begins with param, input, target, output, loss or metric */
} Line;

/* ---- words ----------------------------------------------------------------------------------- */

static void add_word(Words *w, const char *text, int length, int lines, bool spaced)
{
    if (w->n_words == w->capacity) {
        size_t bytes = (size_t)w->capacity * sizeof *w->words;
        w->capacity = 2 * w->capacity + 256;
        w->words = arena_grow(w->c->arena, w->words, bytes,
                              (size_t)w->capacity * sizeof *w->words);
    }
    w->words[w->n_words++] = (Word){text, length, lines, spaced, text[0] == '#'};
}

/* The comments between two words; what is left in front of the next word. */
static void add_gap(Words *w, const char *at, const char *end, int *lines, bool *spaced)
{
    *lines = 0;
    *spaced = false;
    for (; at < end; at++) {
        *lines += *at == '\n';
        *spaced |= *at != '\n';
        if (*at != '#')
            continue;
        const char *line_end = memchr(at, '\n', (size_t)(end - at)), *last;
        line_end = line_end ? line_end : end;
        for (last = line_end; last[-1] == ' ' || last[-1] == '\t' || last[-1] == '\r';)
            last--;
        add_word(w, at, (int)(last - at), *lines, true);
        *lines = 0;
        at = line_end - 1;
    }
}

/* Strings are one word, with the expressions in them. */
static Words read_words(Compilation *c, Tree *tree)
{
    Words words = {.c = c};
    const SourceFile *file = tree->file;
    uint32_t end = 0;
    int count, lines;
    bool spaced;
    const Loc *found = scan_words(c, tree, &count);
    for (int i = 0; i < count; i++) {
        uint32_t begin = found[i].begin;
        add_gap(&words, file->text + end, file->text + begin, &lines, &spaced);
        if (file->text[begin] == '"')
            while (file->text[found[++i].begin] != '"')
                ;
        end = found[i].end;
        add_word(&words, file->text + begin, (int)(end - begin), lines, spaced);
    }
    add_gap(&words, file->text + end, file->text + file->length, &lines, &spaced);
    return words;
}

static bool is(const Word *word, const char *text)
{
    return word && (size_t)word->length == strlen(text)
        && !memcmp(word->text, text, (size_t)word->length);
}

/* Of a list with blanks at both ends. */
static bool is_in(const Word *word, const char *list)
{
    size_t length = word ? (size_t)word->length : 0;
    for (const char *at = list; length && (at = strchr(at, ' ')) && at[1]; at++)
        if (!strncmp(at + 1, word->text, length) && at[1 + length] == ' ')
            return true;
    return false;
}

static bool is_keyword(const Word *word)
{
    return is_in(word, " and block else for if in input loss metric model not or output param pop"
                       " push repeat return target use ");
}

/* Whether an expression can end with the word. */
static bool ends_operand(const Word *word)
{
    char last = word ? word->text[word->length - 1] : 0;
    bool name = (last >= 'a' && last <= 'z') || (last >= 'A' && last <= 'Z')
        || (last >= '0' && last <= '9') || last == '_';
    return last == ')' || last == ']' || last == '"' || (name && !is_keyword(word));
}

/* ---- spaces ---------------------------------------------------------------------------------- */

static bool is_sign(const Words *w, int i)
{
    return is(&w->words[i], "-") && !ends_operand(i ? &w->words[i - 1] : NULL);
}

static bool space_between(const Words *w, int i)
{
    const Word *left = &w->words[i - 1], *right = &w->words[i];
    if (is_in(left, " ( [ ") || is_in(right, " ) ] , ") || is_sign(w, i - 1))
        return false;
    if (is(left, "{") && is(right, "}"))
        return false;
    if (is_in(left, " * / % // "))
        return left->spaced || right->spaced;
    if (is_in(right, " ( [ "))
        return !ends_operand(left);
    if (is_in(right, " * / % // "))
        return right->spaced || (i + 1 < w->n_words && w->words[i + 1].spaced);
    return true;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static bool begins_statement(const Word *word)
{
    return is_in(word, " block else for if input loss metric model output param push repeat return"
                       " target use ") || is(word, "}");
}

/* Whether the statement before the word goes on with it: outside brackets, lines may only be broken
 * where an operator or '=' stands. */
static bool goes_on(const Words *w, int i)
{
    static const char operators[] = " = + - * / % // < > <= >= == != and or , ";
    const Word *left = i ? &w->words[i - 1] : NULL, *right = &w->words[i];
    for (int k = i - 1; left && left->comment; k--)
        left = k ? &w->words[k - 1] : NULL;
    return !right->comment && left && !begins_statement(right)
        && (is_in(left, operators) || is_in(left, " in not return if for repeat push ")
            || is_in(right, operators));
}

/* Where columns of this line end: `param NAME`, `input NAME`, or the word of a result. */
static void note_columns(Line *line, const Words *w, int first, int next)
{
    const Word *words = w->words + first;
    if (next - first < 2 || !is_in(&words[0], " param input target output loss metric "))
        return;
    line->statement = true;
    line->keyword = words[0].length;
    if (is_in(&words[0], " param input target "))
        line->column = words[1].length;
}

typedef struct { int depth, inner; } Depth;  /* of braces; of the other brackets since */

/* Brackets of one line, for the lines after it. */
static void count_brackets(const Word *word, Depth *depth)
{
    if (is(word, "{")) {
        depth->depth++;
        depth->inner = 0;
    } else if (is(word, "}")) {
        depth->depth -= depth->depth > 0;
        depth->inner = 0;
    } else if (is_in(word, " ( [ ")) {
        depth->inner++;
    } else if (is_in(word, " ) ] ")) {
        depth->inner -= depth->inner > 0;
    }
}

/* Reads one line from words[first] on; gives the first word of the next. */
static int read_line(const Words *w, int first, Depth *depth, Line *line)
{
    const Word *word = &w->words[first];
    *line = (Line){.code.arena = w->c->arena, .empty_before = word->lines > 1};
    int indent = depth->depth - (is(word, "}") && depth->depth > 0);
    bool inside = depth->inner > 0 && !(is_in(word, " ) ] ") && depth->inner == 1);
    if (inside || (depth->inner == 0 && goes_on(w, first)))
        indent++;
    text_printf(&line->code, "%*s", indent * INDENT, "");
    int next = first;
    for (; next < w->n_words && (next == first || w->words[next].lines == 0); next++) {
        word = &w->words[next];
        if (word->comment && next > first) {
            line->comment = word->text;
            line->comment_length = word->length;
            next++;
            break;
        }
        if (next > first && space_between(w, next))
            text_append(&line->code, " ", 1);
        text_append(&line->code, word->text, (size_t)word->length);
        count_brackets(word, depth);
    }
    note_columns(line, w, first, next);
    return next;
}

/* ---- columns --------------------------------------------------------------------------------- */

static void insert_blanks(Line *line, int at, int count)
{
    Text code = {.arena = line->code.arena};
    text_printf(&code, "%.*s%*s%s", at, line->code.text, count, "", line->code.text + at);
    line->code = code;
}

static int indent_of(const Line *line)
{
    return (int)strspn(line->code.text, " ");
}

/* Whether b, the next line, stands in one group with a. */
static bool same_columns(const Line *a, const Line *b)
{
    return a->statement && b->statement && !b->empty_before && indent_of(a) == indent_of(b)
        && !a->column == !b->column;
}

static int largest(int a, int b)
{
    return a > b ? a : b;
}

/* `input` and `loss` in a group; then names. A line of one is left alone. */
static void align_columns(Line *lines, int n)
{
    for (int first = 0, next; first < n; first = next) {
        int keyword = lines[first].keyword, column = lines[first].column;
        for (next = first + 1; next < n && same_columns(&lines[next - 1], &lines[next]); next++) {
            keyword = largest(keyword, lines[next].keyword);
            column = largest(column, lines[next].column);
        }
        for (int i = first; i < next && lines[i].statement; i++) {
            Line *line = &lines[i];
            int at = indent_of(line) + line->keyword + 1 + line->column;
            if (line->column)
                insert_blanks(line, at, column - line->column);
            insert_blanks(line, indent_of(line) + line->keyword, keyword - line->keyword);
        }
    }
}

/* Characters, of UTF-8. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

static void align_comments(Line *lines, int n)
{
    for (int first = 0, next; first < n; first = next) {
        int column = 0;
        for (next = first; next < n && lines[next].comment
             && (next == first || !lines[next].empty_before); next++)
            column = largest(column, width_of(lines[next].code.text) + COMMENT_GAP);
        for (int i = first; i < next; i++) {
            Line *line = &lines[i];
            text_printf(&line->code, "%*s%.*s", column - width_of(line->code.text), "",
                        line->comment_length, line->comment);
        }
        next += next == first;
    }
}

/* ---- the whole text -------------------------------------------------------------------------- */

static bool opens(const Line *line)
{
    return line->code.length > 0 && line->code.text[line->code.length - 1] == '{';
}

static bool closes(const Line *line)
{
    return line->code.text[indent_of(line)] == '}';
}

/* Blank space may have changed, nothing else. */
static void check_words(Compilation *c, const Words *before, const Text *after)
{
    SourceFile file = {.name = "the formatted text", .text = after->text, .length = after->length};
    Tree *tree = parse_alone(c, &file);
    Words words = {0};
    if (tree)
        words = read_words(c, tree);
    bool same = tree && words.n_words == before->n_words;
    for (int i = 0; same && i < words.n_words; i++)
        same = words.words[i].length == before->words[i].length
            && !memcmp(words.words[i].text, before->words[i].text, (size_t)words.words[i].length);
    if (!same)
        bug("formatting changed more than blank space");
}

const char *format_text(Compilation *c, const SourceFile *file, size_t *length)
{
    Tree *tree = parse_alone(c, file);
    if (!tree)
        return NULL;
    Words words = read_words(c, tree);
    Line *lines = arena_alloc(c->arena, (size_t)(words.n_words + 1) * sizeof *lines);
    int n = 0;
    Depth depth = {0};
    for (int word = 0; word < words.n_words; n++)
        word = read_line(&words, word, &depth, &lines[n]);
    for (int i = 0; i < n; i++)
        lines[i].empty_before &= i > 0 && !opens(&lines[i - 1]) && !closes(&lines[i]);
    align_columns(lines, n);
    align_comments(lines, n);
    Text text = {.arena = c->arena};
    text_append(&text, "", 0);
    for (int i = 0; i < n; i++)
        text_printf(&text, "%s%s\n", lines[i].empty_before ? "\n" : "", lines[i].code.text);
    check_words(c, &words, &text);
    *length = text.length;
    return text.text;
}

/* ---- the command ----------------------------------------------------------------------------- */

enum { MAX_STDIN = 1 << 20 };

static const char help[] =
    "Usage: segc fmt [--check] FILE.seg...\n"
    "Rewrites models in the one style, and names those that changed. Only blank space changes.\n\n"
    "  --check    change nothing, name the files that are not in the style; exit status 1 if any\n"
    "  -          standard input, to standard output (for editors)\n"
    "  -h, --help print this\n\n"
    "Exit status: 0 fine, 1 errors in a text (or --check), 2 wrong usage, 3 the environment.\n";

static bool read_stdin(Compilation *c, SourceFile *file)
{
    char *text = arena_alloc(c->arena, MAX_STDIN + 1);
    file->name = "standard input";
    file->text = text;
    file->length = fread(text, 1, MAX_STDIN, stdin);
    if (!ferror(stdin) && fgetc(stdin) == EOF)
        return true;
    error_system(c, "give a text of at most 1 MiB", "cannot read standard input");
    return false;
}

/* One file; true where it is in the style already. */
static bool format_file(Compilation *c, const char *path, bool check)
{
    SourceFile file;
    bool standard = !strcmp(path, "-");
    if (!(standard ? read_stdin(c, &file) : read_source(c, path, &file)))
        return true;
    size_t length;
    const char *text = format_text(c, &file, &length);
    if (!text)
        return true;
    bool same = length == file.length && !memcmp(text, file.text, length);
    if (standard && !check)
        fwrite(text, 1, length, stdout);
    else if (!same && (check || write_file(c, path, text, length)))
        puts(file.name);
    return same;
}

int format_command(int argc, char **argv)
{
    bool check = false, fine = true, failed = false, environment = false;
    int first = 1;
    for (; first < argc && argv[first][0] == '-' && argv[first][1]; first++) {
        if (!strcmp(argv[first], "--help") || !strcmp(argv[first], "-h"))
            return fputs(help, stdout), EXIT_FINE;
        check = !strcmp(argv[first], "--check");
        if (!check) {
            fprintf(stderr, "segc: fmt: unknown option '%s'\nTry 'segc fmt --help'.\n", argv[first]);
            return EXIT_USAGE;
        }
    }
    if (first == argc)
        return fputs("segc: fmt: no file given\nTry 'segc fmt --help'.\n", stderr), EXIT_USAGE;
    for (int i = first; i < argc; i++) {
        Compilation c = {.arena = arena_open(), .path = argv[i], .messages = stderr};
        fine &= format_file(&c, argv[i], check);
        failed |= c.errors > 0;
        environment |= c.environment;
        arena_close(c.arena);
    }
    return environment ? EXIT_ENVIRONMENT : failed || (check && !fine) ? EXIT_USER : EXIT_FINE;
}
