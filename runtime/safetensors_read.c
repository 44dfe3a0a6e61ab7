/* Reading safetensors files: safetensors.c says what they are.
 *
 * Files come from anywhere, so everything is checked: the JSON is read by a strict parser of just
 * this form, names are unique, sizes are what the shapes say, and the data have no holes and no
 * overlaps. The data stay where they were read.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"

static const size_t MAX_HEADER = 100u << 20;
enum { MAX_RANK = 8 };

/* ---- reading: JSON --------------------------------------------------------------------------- */

typedef struct {
    const char *text;           /* the header; no NUL behind it is relied on */
    size_t at, length;
    const char *path;
    bool failed;
    Error *error;
    SafeTensors *file;
    int tensor_capacity, metadata_capacity;
    bool has_metadata;
} Parser;

static const char again[] = "the file is damaged or no safetensors file: copy or download it again";

static bool __attribute__((format(printf, 2, 3))) wrong(Parser *parser, const char *format, ...)
{
    if (parser->failed)
        return false;
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    parser->failed = true;
    return fail(parser->error, EXIT_USER, again, "%s: header, byte %zu: %s", parser->path,
                8 + parser->at, text);
}

static bool out_of_memory(Parser *parser)
{
    if (!parser->failed)
        fail(parser->error, EXIT_ENVIRONMENT, "", "%s: not enough memory to read it", parser->path);
    parser->failed = true;
    return false;
}

static int peek(Parser *parser)
{
    while (parser->at < parser->length && strchr(" \t\n\r", parser->text[parser->at])
           && parser->text[parser->at])
        parser->at++;
    return parser->at < parser->length ? (unsigned char)parser->text[parser->at] : -1;
}

static bool accept(Parser *parser, char c)
{
    if (parser->failed || peek(parser) != c)
        return false;
    parser->at++;
    return true;
}

static bool expect(Parser *parser, char c)
{
    return accept(parser, c) || wrong(parser, "'%c' expected", c);
}

static int read_hex(Parser *parser)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = parser->at < parser->length ? parser->text[parser->at++] : 0;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                  : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static size_t put_utf8(char *out, uint32_t code)
{
    if (code < 0x80)
        return out[0] = (char)code, 1;
    if (code < 0x800)
        return out[0] = (char)(0xc0 | code >> 6), out[1] = (char)(0x80 | (code & 63)), 2;
    if (code < 0x10000)
        return out[0] = (char)(0xe0 | code >> 12), out[1] = (char)(0x80 | (code >> 6 & 63)),
               out[2] = (char)(0x80 | (code & 63)), 3;
    return out[0] = (char)(0xf0 | code >> 18), out[1] = (char)(0x80 | (code >> 12 & 63)),
           out[2] = (char)(0x80 | (code >> 6 & 63)), out[3] = (char)(0x80 | (code & 63)), 4;
}

/* Behind a backslash. Gives the number of bytes written, never more than were read; 0: wrong. */
static size_t read_escape(Parser *parser, char *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = parser->at < parser->length ? parser->text[parser->at++] : 0;
    const char *known = c ? strchr(from, c) : NULL;
    if (known)
        return *out = to[known - from], 1;
    int code = c == 'u' ? read_hex(parser) : -1;
    if (code >= 0xd800 && code < 0xdc00 && parser->length - parser->at >= 6
        && memcmp(parser->text + parser->at, "\\u", 2) == 0) {
        parser->at += 2;
        int low = read_hex(parser);
        code =
            low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : -1;
    }
    if (code <= 0 || (code >= 0xd800 && code < 0xe000))
        return 0;
    return put_utf8(out, (uint32_t)code);
}

/* NULL after an error, else malloc'ed. */
static char *read_string(Parser *parser)
{
    if (!expect(parser, '"'))
        return NULL;
    size_t end = parser->at;
    while (end < parser->length && parser->text[end] != '"')
        end += parser->text[end] == '\\' ? 2 : 1;
    char *text = malloc(end - parser->at + 1), *out = text;
    if (!text)
        return out_of_memory(parser), NULL;
    bool good = true;
    while (good && parser->at < parser->length && parser->text[parser->at] != '"') {
        char c = parser->text[parser->at];
        size_t n =
            c == '\\' ? 1 : utf8_character(parser->text + parser->at, parser->length - parser->at);
        good = n > 0 && (unsigned char)c >= ' ';
        if (good && c != '\\')
            memcpy(out, parser->text + parser->at, n);
        parser->at += n;
        if (c == '\\') {
            n = read_escape(parser, out);
            good = n > 0;
        }
        out += n;
    }
    *out = 0;
    if (good && accept(parser, '"'))
        return text;
    wrong(parser, "a string with a wrong character or escape, or without its end");
    free(text);
    return NULL;
}

static int64_t read_integer(Parser *parser)
{
    int c = peek(parser);
    size_t begin = parser->at;
    int64_t value = 0;
    while (parser->at < parser->length && (c = parser->text[parser->at]) >= '0' && c <= '9') {
        if (value > (INT64_MAX - 9) / 10)
            return wrong(parser, "a number is too large"), 0;
        value = 10 * value + (c - '0');
        parser->at++;
    }
    if (parser->at == begin || (parser->text[begin] == '0' && parser->at > begin + 1))
        return wrong(parser, "a number from 0 expected"), 0;
    return value;
}

/* Numbers in brackets; gives how many. */
static int read_integers(Parser *parser, int64_t *values, int most)
{
    int n = 0;
    expect(parser, '[');
    if (accept(parser, ']'))
        return 0;
    do {
        if (n == most)
            return wrong(parser, "more than %d numbers", most), 0;
        values[n++] = read_integer(parser);
    } while (accept(parser, ','));
    expect(parser, ']');
    return parser->failed ? 0 : n;
}

/* ---- reading: records ------------------------------------------------------------------------ */

static void *grow(Parser *parser, void *old, int count, int *capacity, size_t size)
{
    if (count < *capacity)
        return old;
    int larger = *capacity ? 2 * *capacity : 64;
    void *new = larger > *capacity ? realloc(old, (size_t)larger * size) : NULL;
    if (new)
        *capacity = larger;
    else
        out_of_memory(parser);
    return new ? new : old;
}

static void read_metadata(Parser *parser)
{
    SafeTensors *file = parser->file;
    if (parser->has_metadata)
        wrong(parser, "__metadata__ stands there twice");
    parser->has_metadata = true;
    expect(parser, '{');
    if (accept(parser, '}'))
        return;
    do {
        int capacity = parser->metadata_capacity, same = capacity;
        file->keys = grow(parser, file->keys, file->n_metadata, &capacity, sizeof *file->keys);
        file->values = grow(parser, file->values, file->n_metadata, &same, sizeof *file->values);
        if (parser->failed)
            return;
        parser->metadata_capacity = capacity;
        char *key = read_string(parser);
        expect(parser, ':');
        char *value = parser->failed ? NULL : read_string(parser);
        if (!value) {
            free(key);
            return;
        }
        file->keys[file->n_metadata] = key;
        file->values[file->n_metadata++] = value;
        for (int i = 0; i + 1 < file->n_metadata && !parser->failed; i++)
            if (strcmp(file->keys[i], key) == 0)
                wrong(parser, "the metadata have '%s' twice", key);
        if (file->n_metadata > 4096)
            wrong(parser, "more than 4096 metadata");
    } while (accept(parser, ','));
    expect(parser, '}');
}

static void read_dtype(Parser *parser, SafeTensor *tensor)
{
    char *text = read_string(parser);
    if (!text)
        return;
    if (strlen(text) < sizeof tensor->dtype)
        strcpy(tensor->dtype, text);
    tensor->type = strcmp(text, "F32") == 0 ? PLAN_F32 : PLAN_U8;
    free(text);
}

static void check_tensor(Parser *parser, SafeTensor *tensor, const int64_t offsets[2])
{
    int64_t bits = safetensor_bits(tensor->dtype), most = (int64_t)parser->file->storage_bytes;
    int64_t bytes = bits / 8;
    bool empty = false;
    for (int i = 0; i < tensor->rank; i++)
        empty = empty || tensor->dims[i] == 0;
    for (int i = 0; i < tensor->rank && !empty; i++)
        bytes = tensor->dims[i] <= most / (bytes ? bytes : 1) ? bytes * tensor->dims[i] : most + 1;
    if (empty)
        bytes = 0;
    if (!bits)
        wrong(parser, "'%.100s' has an unknown type '%s'", tensor->name, tensor->dtype);
    else if (offsets[1] < offsets[0] || offsets[1] > most)
        wrong(parser, "'%.100s' lies outside the file's data", tensor->name);
    else if (bytes != offsets[1] - offsets[0])
        wrong(parser, "'%.100s' has %lld bytes, which is not what its shape and type say",
              tensor->name, (long long)(offsets[1] - offsets[0]));
    tensor->bytes = bytes;
    tensor->data = (const char *)parser->file->storage + (parser->failed ? 0 : offsets[0]);
}

/* The object behind a tensor's name. */
static void read_tensor(Parser *parser, SafeTensor *tensor)
{
    int64_t offsets[2] = { 0, 0 };
    bool dtype = false, shape = false, data = false;
    expect(parser, '{');
    do {
        char *key = read_string(parser);
        expect(parser, ':');
        if (parser->failed) {
            free(key);
            return;
        }
        if (strcmp(key, "dtype") == 0 && !dtype) {
            dtype = true;
            read_dtype(parser, tensor);
        } else if (strcmp(key, "shape") == 0 && !shape) {
            shape = true;
            tensor->rank = read_integers(parser, tensor->dims, MAX_RANK);
        } else if (strcmp(key, "data_offsets") == 0 && !data) {
            data = true;
            if (read_integers(parser, offsets, 2) != 2)
                wrong(parser, "two data_offsets expected");
        } else {
            wrong(parser, "'%.100s': unexpected key '%.100s'", tensor->name, key);
        }
        free(key);
    } while (accept(parser, ','));
    expect(parser, '}');
    if (!dtype || !shape || !data)
        wrong(parser, "'%.100s' lacks its dtype, shape or data_offsets", tensor->name);
    if (!parser->failed)
        check_tensor(parser, tensor, offsets);
}

static void read_header(Parser *parser)
{
    SafeTensors *file = parser->file;
    if (parser->length == 0 || parser->text[0] != '{')
        wrong(parser, "'{' expected");
    expect(parser, '{');
    if (!accept(parser, '}')) {
        do {
            char *name = read_string(parser);
            expect(parser, ':');
            if (name && strcmp(name, "__metadata__") == 0) {
                free(name);
                read_metadata(parser);
                continue;
            }
            file->tensors = grow(parser, file->tensors, file->n_tensors, &parser->tensor_capacity,
                                 sizeof *file->tensors);
            if (parser->failed || !name) {
                free(name);
                return;
            }
            SafeTensor *tensor = &file->tensors[file->n_tensors++];
            *tensor = (SafeTensor){ .name = name };
            for (const char *c = name; *c; c++)
                if ((unsigned char)*c < ' ' || *c == 0x7f)
                    wrong(parser, "a tensor's name holds a control character");
            read_tensor(parser, tensor);
        } while (accept(parser, ','));
        expect(parser, '}');
    }
    if (!parser->failed && peek(parser) != -1)
        wrong(parser, "something stands behind the header's end");
}

static int by_data(const void *a, const void *b)
{
    const SafeTensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Every byte of the data belongs to one tensor; every name to one too. */
static void check_tensors(Parser *parser)
{
    SafeTensors *file = parser->file;
    if (parser->failed)
        return;
    if (file->n_tensors)
        qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, by_data);
    const char *at = file->storage;
    for (int i = 0; i < file->n_tensors; i++) {
        if (file->tensors[i].data != at)
            wrong(parser, "there is a hole or an overlap before the data of '%.100s'",
                  file->tensors[i].name);
        at = (const char *)file->tensors[i].data + file->tensors[i].bytes;
    }
    if (at != (const char *)file->storage + file->storage_bytes)
        wrong(parser, "%zu bytes of data belong to no tensor",
              (size_t)((const char *)file->storage + file->storage_bytes - at));
    safetensors_sort(file->tensors, file->n_tensors);
    for (int i = 1; i < file->n_tensors; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            wrong(parser, "two tensors are named '%.100s'", file->tensors[i].name);
}

static void release(void *bytes, size_t size, bool mapped)
{
    if (mapped)
        munmap(bytes, size);
    else
        free(bytes);
}

static SafeTensors *parse(void *bytes, size_t size, bool mapped, const char *path, Error *error)
{
    uint64_t length = 0;
    const unsigned char *head = bytes;
    SafeTensors *file = calloc(1, sizeof *file);
    char *name = strdup(path);
    if (!file || !name) {
        free(file);
        free(name);
        release(bytes, size, mapped);
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to read it", path);
        return NULL;
    }
    file->path = name;
    file->memory = bytes;
    file->memory_bytes = size;
    file->mapped = mapped;
    for (size_t i = 0; i < 8 && size >= 8; i++)
        length |= (uint64_t)head[i] << (8 * i);
    if (size < 8 || length > MAX_HEADER || length > size - 8) {
        fail(error, EXIT_USER, again,
             "%s: not a safetensors file, or truncated: %zu bytes, its header "
             "would have %llu",
             path, size, (unsigned long long)length);
        safetensors_close(file);
        return NULL;
    }
    file->storage = (char *)bytes + 8 + length;
    file->storage_bytes = size - 8 - length;
    Parser parser = { .text = (char *)bytes + 8, .length = length, .path = path, .error = error,
                      .file = file };
    read_header(&parser);
    check_tensors(&parser);
    if (!parser.failed)
        return file;
    safetensors_close(file);
    return NULL;
}

SafeTensors *safetensors_parse(void *bytes, size_t size, const char *path, Error *error)
{
    return parse(bytes, size, false, path, error);
}

/* Maps a regular file: of a checkpoint that is three times as large as its weights, only the
 * weights are read. NULL: not possible, read it instead, which also says what is wrong. */
static void *map_file(const char *path, size_t *size)
{
    struct stat facts;
    void *bytes = MAP_FAILED;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0 && fstat(file, &facts) == 0 && S_ISREG(facts.st_mode) && facts.st_size > 0) {
        *size = (size_t)facts.st_size;
        bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, file, 0);
    }
    if (file >= 0)
        close(file);
    return bytes == MAP_FAILED ? NULL : bytes;
}

SafeTensors *safetensors_open(const char *path, Error *error)
{
    size_t size;
    void *bytes = map_file(path, &size);
    if (bytes)
        return parse(bytes, size, true, path, error);
    bytes = file_read(path, &size, error);
    return bytes ? parse(bytes, size, false, path, error) : NULL;
}

void safetensors_close(SafeTensors *file)
{
    if (!file)
        return;
    for (int i = 0; i < file->n_tensors; i++)
        free(file->tensors[i].name);
    for (int i = 0; i < file->n_metadata; i++) {
        free(file->keys[i]);
        free(file->values[i]);
    }
    free(file->tensors);
    free(file->keys);
    free(file->values);
    if (file->memory)
        release(file->memory, file->memory_bytes, file->mapped);
    free((char *)file->path);
    free(file);
}
