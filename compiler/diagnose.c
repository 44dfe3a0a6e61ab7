/* Messages. Three kinds, never mixed: the user's errors (a place in a text, a caret, notes), the
 * environment's (a line and a hint), and our own (bug: abort).
 *
 *     models/unet.seg:31:16: error: concat: heights differ: 'up3' has H=64, 'skip3' has H=63
 *        31 |     x = concat(up3, skip3)
 *           |                ^~~  ~~~~~
 *     models/unet.seg:18:9: note: 'skip3' made here: max_pool of H=127 ...
 *
 * With --diagnostics=json each line is one JSON object instead. Columns count characters (code
 * points) from 1. Source lines are shown with bytes that are no text replaced by '?', and long ones
 * in a window, so that a hostile file cannot write to the terminal.
 */
#include "seg.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ERRORS = 20, WINDOW = 160 };

struct Diagnostics {
    struct { Loc loc; const char *format; } said[MAX_ERRORS];
    bool silent;             /* the last error was not printed: nor are its notes */
};

/* The start of the line that holds the byte. */
static uint32_t line_begin(const SourceFile *file, uint32_t byte)
{
    while (byte > 0 && file->text[byte - 1] != '\n')
        byte--;
    return byte;
}

static uint32_t line_end(const SourceFile *file, uint32_t byte)
{
    while (byte < file->length && file->text[byte] != '\n')
        byte++;
    return byte;
}

int loc_line(Loc loc)
{
    int line = 1;
    for (uint32_t i = 0; i < loc.begin; i++)
        line += loc.file->text[i] == '\n';
    return line;
}

static bool is_continuation(char byte)
{
    return ((unsigned char)byte & 0xC0) == 0x80;
}

int loc_column(Loc loc)
{
    int column = 1;
    for (uint32_t i = line_begin(loc.file, loc.begin); i < loc.begin; i++)
        column += !is_continuation(loc.file->text[i]);
    return column;
}

int utf8_length(const char *text, size_t i, size_t length)
{
    unsigned char first = (unsigned char)text[i];
    int more = first < 0x80 ? 0 : first >= 0xC2 && first < 0xE0 ? 1
        : first >= 0xE0 && first < 0xF0 ? 2 : first >= 0xF0 && first < 0xF5 ? 3 : -1;
    if (more < 0 || i + (size_t)more >= length)
        return 0;
    for (int k = 1; k <= more; k++)
        if (!is_continuation(text[i + (size_t)k]))
            return 0;
    unsigned char second = more ? (unsigned char)text[i + 1] : 0x80;
    bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
    bool outside = (first == 0xED && second > 0x9F) || (first == 0xF4 && second > 0x8F);
    return overlong || outside ? 0 : more + 1;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void json_string(FILE *out, const char *text, size_t length)
{
    fputc('"', out);
    for (size_t i = 0; i < length;) {
        int bytes = utf8_length(text, i, length);
        unsigned char byte = (unsigned char)text[i];
        if (bytes == 0)
            fputs("\\ufffd", out);
        else if (byte == '"' || byte == '\\')
            fprintf(out, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7F)
            fprintf(out, "\\u%04x", byte);
        else
            fwrite(text + i, 1, (size_t)bytes, out);
        i += bytes ? (size_t)bytes : 1;
    }
    fputc('"', out);
}

static void json_message(FILE *out, const char *severity, Loc loc, const char *message)
{
    fprintf(out, "{\"severity\":\"%s\"", severity);
    if (loc.file) {
        Loc last = loc;
        last.begin = loc.end > loc.begin ? loc.end - 1 : loc.begin;
        fputs(",\"file\":", out);
        json_string(out, loc.file->name, strlen(loc.file->name));
        fprintf(out, ",\"line\":%d,\"column\":%d,\"end_line\":%d,\"end_column\":%d",
                loc_line(loc), loc_column(loc), loc_line(last), loc_column(last));
    }
    fputs(",\"message\":", out);
    json_string(out, message, strlen(message));
}

/* ---- Text ------------------------------------------------------------------------------------ */

static void mark(char *marks, uint32_t begin, uint32_t end, Loc loc, bool caret)
{
    for (uint32_t i = loc.begin; i < loc.end; i++)
        if (i >= begin && i < end && marks[i - begin] == ' ')
            marks[i - begin] = '~';
    if (caret && loc.begin >= begin && loc.begin <= end)
        marks[loc.begin - begin] = '^';
}

/* The source line of loc with ^~~~ under it and ~~~ under the other spans on the same line. */
static void print_line(FILE *out, Loc loc, const Loc *more, int n_more)
{
    const char *text = loc.file->text;
    uint32_t begin = line_begin(loc.file, loc.begin), end = line_end(loc.file, loc.begin);
    bool cut_left = loc.begin - begin > WINDOW / 2, cut_right;
    if (cut_left)
        begin = loc.begin - WINDOW / 2;
    while (cut_left && is_continuation(text[begin]))
        begin++;
    cut_right = end - begin > WINDOW;
    if (cut_right)
        end = begin + WINDOW;
    char marks[WINDOW + 2];
    memset(marks, ' ', sizeof marks);
    mark(marks, begin, end, loc, true);
    for (int i = 0; i < n_more; i++)
        if (more[i].file == loc.file)
            mark(marks, begin, end, more[i], false);

    fprintf(out, "%5d | %s", loc_line(loc), cut_left ? "..." : "");
    for (uint32_t i = begin; i < end;) {
        int bytes = utf8_length(text, i, end);
        unsigned char byte = (unsigned char)text[i];
        if (bytes == 0 || (byte < 0x20 && byte != '\t') || byte == 0x7F
            || (byte == 0xC2 && (unsigned char)text[i + 1] < 0xA0))
            fputc('?', out);
        else
            fwrite(text + i, 1, (size_t)bytes, out);
        i += bytes ? (uint32_t)bytes : 1;
    }
    fprintf(out, "%s\n      | %s", cut_right ? "..." : "", cut_left ? "   " : "");
    uint32_t last = end - begin + 1;
    while (last > 0 && marks[last - 1] == ' ')
        last--;
    for (uint32_t i = 0; i < last;) {
        int bytes = begin + i < end ? utf8_length(text, begin + i, end) : 1;
        bool tab = begin + i < end && text[begin + i] == '\t';
        fputc(tab && marks[i] == ' ' ? '\t' : marks[i], out);
        i += bytes ? (uint32_t)bytes : 1;
    }
    fputc('\n', out);
}

static void print_message(Compilation *c, const char *severity, Loc loc, const Loc *more,
                          int n_more, const char *message)
{
    FILE *out = c->messages;
    if (c->json) {
        json_message(out, severity, loc, message);
        fputs("}\n", out);
        return;
    }
    if (loc.file)
        fprintf(out, "%s:%d:%d: %s: %s\n", loc.file->name, loc_line(loc), loc_column(loc),
                severity, message);
    else
        fprintf(out, "segc: %s: %s\n", severity, message);
    if (loc.file && severity[0] == 'e')
        print_line(out, loc, more, n_more);
}

static char *format_message(Compilation *c, const char *format, va_list list)
{
    va_list again;
    va_copy(again, list);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *message = arena_alloc(c->arena, (size_t)length + 1);
    vsnprintf(message, (size_t)length + 1, format, list);
    return message;
}

static bool said_already(const struct Diagnostics *d, int errors, Loc loc, const char *format)
{
    for (int i = 0; i < errors && i < MAX_ERRORS; i++)
        if (d->said[i].format == format && d->said[i].loc.file == loc.file && loc.file
            && d->said[i].loc.begin == loc.begin && d->said[i].loc.end == loc.end)
            return true;
    return false;
}

static void report_error(Compilation *c, Loc loc, const Loc *more, int n_more, const char *format,
                         va_list list)
{
    if (!c->diagnostics)
        c->diagnostics = arena_alloc(c->arena, sizeof *c->diagnostics);
    struct Diagnostics *d = c->diagnostics;
    if (said_already(d, c->errors, loc, format)) {
        d->silent = true;
        return;
    }
    d->silent = c->errors >= MAX_ERRORS;
    if (!d->silent) {
        d->said[c->errors].loc = loc;
        d->said[c->errors].format = format;
        print_message(c, "error", loc, more, n_more, format_message(c, format, list));
    }
    c->errors++;
}

void error_at(Compilation *c, Loc loc, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    report_error(c, loc, NULL, 0, format, list);
    va_end(list);
}

void error_spans(Compilation *c, Loc loc, const Loc *more, int n_more, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    report_error(c, loc, more, n_more, format, list);
    va_end(list);
}

void warn_at(Compilation *c, Loc loc, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    print_message(c, "warning", loc, NULL, 0, format_message(c, format, list));
    va_end(list);
}

void note_at(Compilation *c, Loc loc, const char *format, ...)
{
    if (c->diagnostics && c->diagnostics->silent)
        return;
    va_list list;
    va_start(list, format);
    print_message(c, "note", loc, NULL, 0, format_message(c, format, list));
    va_end(list);
}

void error_system(Compilation *c, const char *hint, const char *format, ...)
{
    c->environment = true;
    va_list list;
    va_start(list, format);
    const char *message = format_message(c, format, list);
    va_end(list);
    if (!c->json) {
        fprintf(c->messages, "segc: error: %s\nhint: %s\n", message, hint);
        return;
    }
    json_message(c->messages, "error", (Loc){0}, message);
    fputs(",\"hint\":", c->messages);
    json_string(c->messages, hint, strlen(hint));
    fputs("}\n", c->messages);
}

void bug(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("segc: internal error: ", stderr);
    vfprintf(stderr, format, list);
    fputs("\nThis is a mistake in segc, not in the model. Please report it with the model.\n",
          stderr);
    va_end(list);
    abort();
}
