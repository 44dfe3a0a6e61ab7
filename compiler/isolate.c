/* A kernel's text so that many of them can stand in one file of C: text -> text.
 *
 * Kernels are made to be compiled one by one (kernels/host/): each has its own SIZE_C, read_x or
 * convolve_part. Here what a text declares for itself at file level (static functions and data,
 * types, enumerators) gets `_kN` behind its name; what it shows to others becomes static, by
 * NOINLINE; its macros are undefined behind it. Words behind `.` and `->` are members and stay, as
 * do macros' names.
 *
 * This is no parser of C: it knows declarations as the templates and emit_host.c write them. What
 * it would miss, the C compiler that builds the file reports: a name twice.
 */
#include "isolate.h"

#include <ctype.h>
#include <string.h>

typedef struct { const char *at; size_t length; } Word;
typedef struct { Word *words; int n, capacity; } Words;

typedef struct {
    Arena *arena;
    Words names, macros;
} Scan;

static void add(Scan *s, Words *list, Word word)
{
    if (list->n == list->capacity) {
        size_t bytes = (size_t)list->capacity * sizeof word;
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        list->words = arena_grow(s->arena, list->words, bytes,
                                 (size_t)list->capacity * sizeof word);
    }
    list->words[list->n++] = word;
}

static bool is(Word word, const char *text)
{
    return word.length == strlen(text) && memcmp(word.at, text, word.length) == 0;
}

static bool has(const Words *list, Word word)
{
    for (int i = 0; i < list->n; i++)
        if (list->words[i].length == word.length
            && memcmp(list->words[i].at, word.at, word.length) == 0)
            return true;
    return false;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static bool starts_word(char c) { return isalpha((unsigned char)c) || c == '_'; }
static bool in_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

static size_t quoted_length(const char *at)
{
    size_t n = 1;
    while (at[n] && at[n] != at[0])
        n += at[n] == '\\' && at[n + 1] ? 2 : 1;
    return n + (at[n] != 0);
}

/* Of a word, number, string, comment, run of blanks, `->`, or one other character. */
static size_t token_length(const char *at)
{
    size_t n = 1;
    if (starts_word(*at)) {
        while (in_word(at[n]))
            n++;
    } else if (isdigit((unsigned char)*at)) {
        while (in_word(at[n]) || at[n] == '.' || (strchr("+-", at[n]) && strchr("eEpP", at[n - 1])
                                                  && at[n]))
            n++;
    } else if (*at == '"' || *at == '\'') {
        n = quoted_length(at);
    } else if (at[0] == '/' && at[1] == '/') {
        n = strcspn(at, "\n");
    } else if (at[0] == '/' && at[1] == '*') {
        const char *end = strstr(at + 2, "*/");
        n = end ? (size_t)(end - at) + 2 : strlen(at);
    } else if (at[0] == '-' && at[1] == '>') {
        n = 2;
    } else if (isspace((unsigned char)*at)) {
        n = strspn(at, " \t\n");
    }
    return n;
}

static bool is_blank(const char *at)
{
    return isspace((unsigned char)*at) || (at[0] == '/' && (at[1] == '/' || at[1] == '*'));
}

static const char *skip_blanks(const char *at)
{
    while (*at && is_blank(at))
        at += token_length(at);
    return at;
}

/* Behind the bracket that closes the one at `at`. */
static const char *skip_group(const char *at)
{
    int depth = 0;
    while (*at) {
        depth += strchr("([{", *at) != NULL;
        depth -= strchr(")]}", *at) != NULL;
        at += token_length(at);
        if (depth == 0)
            break;
    }
    return at;
}

/* Behind a line that begins with #, and those that continue it. */
static const char *skip_directive(const char *at)
{
    while (*at && *at != '\n')
        at += at[0] == '\\' && at[1] == '\n' ? 2 : 1;
    return at;
}

/* ---- what a text declares -------------------------------------------------------------------- */

static void note_macro(Scan *s, const char *at)
{
    at += 1 + strspn(at + 1, " ");
    if (strncmp(at, "define ", 7) != 0)
        return;
    at += 7;
    Word name = {at, token_length(at)};
    if (!has(&s->macros, name))
        add(s, &s->macros, name);
}

static void note_enumerators(Scan *s, const char *at)
{
    const char *end = skip_group(at);
    bool next = true;          /* the next word is one */
    for (at++; at < end; at += token_length(at)) {
        if (next && starts_word(*at)) {
            add(s, &s->names, (Word){at, token_length(at)});
            next = false;
        } else if (*at == ',') {
            next = true;
        }
    }
}

/* One declaration at file level, to behind its end. */
static const char *note_declaration(Scan *s, const char *at)
{
    const Word first = {at, token_length(at)};
    const bool own = is(first, "static") || is(first, "INLINE") || is(first, "typedef")
                  || is(first, "enum");
    Word last = {0};
    bool named = false, enumerates = false, function = false;
    while ((at = skip_blanks(at)), *at && *at != ';') {
        const Word word = {at, token_length(at)};
        const char *behind = skip_blanks(at + word.length);
        if (is(word, "__attribute__")) {
            at = skip_group(behind);
            continue;
        }
        if (starts_word(*at)) {
            if (at == first.at && *behind == '(')
                return skip_group(behind); /* a macro that makes declarations */
            enumerates |= is(word, "enum");
            last = named ? last : word;
        } else if (strchr("([{=", *at)) {
            if (*at == '{' && enumerates && !named)
                note_enumerators(s, at);
            else if (*at != '{' && !named && own)
                add(s, &s->names, last);
            function |= *at == '(' && !named;
            named |= *at != '{';
            if (*at != '=') {
                at = skip_group(at);
                if (function && at[-1] == '}')
                    return at;
                continue;
            }
        }
        at += word.length;
    }
    if (!named && own && !is(last, "enum"))
        add(s, &s->names, last);
    return at + (*at == ';');
}

static void note_all(Scan *s, const char *text)
{
    for (const char *at = text; (at = skip_blanks(at)), *at; ) {
        if (*at == '#') {
            note_macro(s, at);
            at = skip_directive(at);
        } else {
            at = note_declaration(s, at);
        }
    }
}

/* ---- the text again -------------------------------------------------------------------------- */

static void write_words(Text *into, const Scan *s, const char *text, int number)
{
    bool member = false;
    for (const char *at = text; *at; ) {
        const Word word = {at, token_length(at)};
        if (is(word, "void") && (at == text || at[-1] == '\n'))
            text_printf(into, "NOINLINE ");
        text_append(into, word.at, word.length);
        if (starts_word(*at) && !member && has(&s->names, word) && !has(&s->macros, word))
            text_printf(into, "_k%d", number);
        if (!is_blank(at))
            member = *at == '.' || is(word, "->");
        at += word.length;
    }
}

void isolate(Text *into, const char *text, int number)
{
    Scan s = {.arena = into->arena};
    if (number > 0)
        note_all(&s, text);
    write_words(into, &s, text, number);
    for (int i = 0; i < s.macros.n; i++)
        text_printf(into, "#undef %.*s\n", (int)s.macros.words[i].length, s.macros.words[i].at);
}
