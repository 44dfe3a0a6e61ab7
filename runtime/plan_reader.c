/* See plan_reader.h. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan_reader.h"

enum { MAX_NAME = 4096 };

/* ---- failing, allocating --------------------------------------------------------------------- */

const char reader_again[] =
    "the file is damaged: compile the model again with segc, or copy it again";

void reader_wrong(Reader *reader, const char *format, ...)
{
    if (reader->failed)
        return;
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    reader->failed = true;
    fail(reader->error, EXIT_USER, reader_again, "%s: %s, before byte %zu: %s", reader->path,
         reader->place, PLAN_HEAD_BYTES + reader->at, text);
}

void reader_place(Reader *reader, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reader->place, sizeof reader->place, format, arguments);
    va_end(arguments);
}

void *reader_allocate(Reader *reader, size_t count, size_t size)
{
    static const char nothing[1];
    Block *block = reader->failed ? NULL : calloc(1, sizeof *block + (count ? count : 1) * size);
    if (!block) {
        if (!reader->failed)
            fail(reader->error, EXIT_ENVIRONMENT, "", "%s: not enough memory to read it",
                 reader->path);
        reader->failed = true;
        return (void *)nothing; /* never written: whoever reads on sees `failed` or a count of 0 */
    }
    block->next = reader->memory->blocks;
    reader->memory->blocks = block;
    return block->data;
}

/* ---- fields ---------------------------------------------------------------------------------- */

uint64_t read_bytes(Reader *reader, size_t n)
{
    if (reader->failed || reader->end - reader->at < n) {
        reader_wrong(reader, "the record ends too early");
        return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value |= (uint64_t)reader->bytes[reader->at + i] << (8 * i);
    reader->at += n;
    return value;
}

uint32_t read_u32(Reader *reader) { return (uint32_t)read_bytes(reader, 4); }
int64_t read_i64(Reader *reader) { return (int64_t)read_bytes(reader, 8); }

bool read_bool(Reader *reader)
{
    uint64_t value = read_bytes(reader, 1);
    if (value > 1)
        reader_wrong(reader, "a yes-or-no field is %u", (unsigned)value);
    return value == 1;
}

int read_enum(Reader *reader, int count, const char *what)
{
    uint64_t value = read_bytes(reader, 1);
    if (value >= (uint64_t)count)
        reader_wrong(reader, "unknown %s %u", what, (unsigned)value);
    return reader->failed ? 0 : (int)value;
}

double read_f64(Reader *reader, const char *what)
{
    uint64_t bits = read_bytes(reader, 8);
    double value;
    memcpy(&value, &bits, sizeof value);
    if (!isfinite(value)) {
        reader_wrong(reader, "%s is not a finite number", what);
        return 0;
    }
    return value;
}

int64_t read_size(Reader *reader, const char *what)
{
    int64_t value = read_i64(reader);
    if (value < 0 || value > PLAN_MAX_BYTES) {
        reader_wrong(reader, "%s is %lld", what, (long long)value);
        return 0;
    }
    return value;
}

char *read_string(Reader *reader, const char *what, bool is_name)
{
    uint32_t length = read_u32(reader);
    if (reader->end - reader->at < length || (is_name && length > MAX_NAME)) {
        reader_wrong(reader, "the %s has an impossible length of %u bytes", what, length);
        length = 0;
    }
    char *text = reader_allocate(reader, (size_t)length + 1, 1);
    if (reader->failed)
        return text;
    memcpy(text, reader->bytes + reader->at, length);
    for (uint32_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < ' ' && (is_name || !strchr("\t\n\r\f", c) || c == 0)) || c == 0x7f)
            reader_wrong(reader, "the %s holds a control character", what);
    }
    reader->at += length;
    return text;
}

char *read_name(Reader *reader, const char *what)
{
    char *name = read_string(reader, what, true);
    if (!*name)
        reader_wrong(reader, "the %s is empty", what);
    return name;
}

char *read_word(Reader *reader, const char *what, const char *letters)
{
    char *name = read_name(reader, what);
    size_t length = strlen(name);
    if (length > 200 || strspn(name, letters) != length || (*name >= '0' && *name <= '9'))
        reader_wrong(reader, "the %s '%s' is no identifier", what, name);
    return name;
}

char *read_identifier(Reader *reader, const char *what)
{
    return read_word(reader, what, PLAN_LETTERS);
}

int read_count(Reader *reader, const char *what, size_t least, uint32_t most)
{
    uint32_t count = read_u32(reader);
    if (count > most || count > (reader->end - reader->at) / least) {
        reader_wrong(reader, "impossible number of %s: %u", what, count);
        return 0;
    }
    return (int)count;
}

Texts read_texts(Reader *reader)
{
    int n = read_count(reader, "texts", 4, INT32_MAX);
    Texts texts = { .n = n, .texts = reader_allocate(reader, (size_t)n, sizeof *texts.texts) };
    for (int i = 0; i < n && !reader->failed; i++)
        texts.texts[i] = read_string(reader, "text", false);
    return texts;
}

size_t enter_record(Reader *reader)
{
    size_t outer = reader->end;
    uint64_t length = read_bytes(reader, 8);
    if (length > reader->end - reader->at)
        reader_wrong(reader, "the record is longer than what is left of the file");
    else
        reader->end = reader->at + length;
    return outer;
}

void leave_record(Reader *reader, size_t outer)
{
    if (reader->at != reader->end)
        reader_wrong(reader, "the record is %zu bytes too long", reader->end - reader->at);
    reader->end = outer;
}
