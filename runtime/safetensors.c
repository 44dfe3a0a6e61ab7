/* safetensors files: an 8-byte little-endian length, a JSON object that names the tensors, their
 * bytes. (Format: huggingface/safetensors, README.)
 *
 *     {"__metadata__": {"key": "text"}, "conv1.weight": {"dtype": "F32", "shape": [64,3,7,7],
 *      "data_offsets": [0, 37632]}, ...}
 *
 * Here: elements, and writing; safetensors_read.c reads. When written, names are sorted, floats lie
 * before bytes so that all are aligned, and the file appears whole or not at all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

typedef struct { const char *name; int bits; } ElementType;
static const ElementType element_types[] = {
    { "F32", 32 }, { "U8", 8 },   { "F16", 16 }, { "BF16", 16 },   { "F64", 64 },
    { "I8", 8 },   { "I16", 16 }, { "U16", 16 }, { "I32", 32 },    { "U32", 32 },
    { "I64", 64 }, { "U64", 64 }, { "BOOL", 8 }, { "F8_E4M3", 8 }, { "F8_E5M2", 8 },
};

int safetensor_bits(const char *dtype)
{
    for (size_t i = 0; i < sizeof element_types / sizeof *element_types; i++)
        if (strcmp(dtype, element_types[i].name) == 0)
            return element_types[i].bits;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const SafeTensor *)a)->name, ((const SafeTensor *)b)->name);
}

void safetensors_sort(SafeTensor *tensors, int n)
{
    if (n)
        qsort(tensors, (size_t)n, sizeof *tensors, by_name);
}

const SafeTensor *safetensors_find(const SafeTensors *file, const char *name)
{
    SafeTensor key = { .name = (char *)name };
    return file->n_tensors
             ? bsearch(&key, file->tensors, (size_t)file->n_tensors, sizeof key, by_name)
             : NULL;
}

/* ---- elements -------------------------------------------------------------------------------- */

static float half_float(uint16_t half)
{
    uint32_t exponent = half >> 10 & 31, fraction = half & 1023,
             sign = (uint32_t)(half >> 15) << 31;
    uint32_t bits = sign | (exponent + 112) << 23 | fraction << 13;
    float value;
    if (exponent == 0) {
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    if (exponent == 31)
        bits = sign | 0x7f800000u | fraction << 13;
    memcpy(&value, &bits, sizeof value);
    return value;
}

bool safetensor_floats(const SafeTensor *tensor, float *out)
{
    const char *type = *tensor->dtype ? tensor->dtype : tensor->type == PLAN_F32 ? "F32" : "U8";
    const char *data = tensor->data;
    if (strcmp(type, "F32") == 0) {
        memcpy(out, data, (size_t)tensor->bytes);
    } else if (strcmp(type, "F16") == 0 || strcmp(type, "BF16") == 0) {
        for (int64_t i = 0; i < tensor->bytes / 2; i++) {
            uint16_t half;
            memcpy(&half, data + 2 * i, sizeof half);
            uint32_t bits = (uint32_t)half << 16;
            if (*type == 'B')
                memcpy(&out[i], &bits, sizeof bits);
            else
                out[i] = half_float(half);
        }
    } else if (strcmp(type, "F64") == 0) {
        for (int64_t i = 0; i < tensor->bytes / 8; i++) {
            double value;
            memcpy(&value, data + 8 * i, sizeof value);
            out[i] = (float)value;
        }
    } else {
        return false;
    }
    return true;
}

/* ---- writing --------------------------------------------------------------------------------- */

size_t utf8_character(const char *text, size_t room)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t n = c[0] < 0x80 ? 1 : c[0] >= 0xc2 && c[0] < 0xe0 ? 2 : c[0] >= 0xe0 && c[0] < 0xf0 ? 3
             : c[0] >= 0xf0 && c[0] < 0xf5 ? 4 : 0;
    if (n > room)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    bool bad = (c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f)
            || (c[0] == 0xf0 && c[1] < 0x90) || (c[0] == 0xf4 && c[1] > 0x8f);
    return bad ? 0 : n;
}

/* A path may hold bytes that are no UTF-8, which JSON cannot: they become question marks. */
static void print_string(const char *text, FILE *out)
{
    putc('"', out);
    for (size_t left = strlen(text), n; left > 0; text += n, left -= n) {
        n = utf8_character(text, left);
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if (n == 1 && (unsigned char)*text < ' ')
            fprintf(out, "\\u%04x", (unsigned)*text);
        else
            fprintf(out, "%.*s", n ? (int)n : 1, n ? text : "?");
        n = n ? n : 1;
    }
    putc('"', out);
}

static const char *dtype_of(const SafeTensor *tensor)
{
    return *tensor->dtype ? tensor->dtype : tensor->type == PLAN_F32 ? "F32" : "U8";
}

/* Wide elements first: data of 8-byte, then 4-byte, 2-byte, 1-byte types. */
static int element_bits(const SafeTensor *tensor)
{
    int bits = safetensor_bits(dtype_of(tensor));
    return bits ? bits : 8;
}

/* The header for tensors that are sorted by name; malloc'ed. */
static char *print_header(const SafeTensors *file, const SafeTensor *sorted, size_t *size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (!out)
        return NULL;
    const char *separator = "";
    fputs("{", out);
    if (file->n_metadata)
        fputs("\"__metadata__\":{", out);
    for (int i = 0; i < file->n_metadata; i++, separator = ",") {
        fputs(separator, out);
        print_string(file->keys[i], out);
        putc(':', out);
        print_string(file->values[i], out);
    }
    if (file->n_metadata)
        fputs("}", out);
    int64_t next[65] = { 0 }, at = 0; /* by bits: where the next tensor of that width begins */
    for (int bits = 64; bits >= 8; bits /= 2) {
        next[bits] = at;
        for (int i = 0; i < file->n_tensors; i++)
            at += element_bits(&sorted[i]) == bits ? sorted[i].bytes : 0;
    }
    for (int i = 0; i < file->n_tensors; i++, separator = ",") {
        const SafeTensor *tensor = &sorted[i];
        int64_t *begin = &next[element_bits(tensor)];
        fputs(separator, out);
        print_string(tensor->name, out);
        fprintf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtype_of(tensor));
        for (int j = 0; j < tensor->rank; j++)
            fprintf(out, "%s%lld", j ? "," : "", (long long)tensor->dims[j]);
        fprintf(out, "],\"data_offsets\":[%lld,%lld]}", (long long)*begin,
                (long long)(*begin + tensor->bytes));
        *begin += tensor->bytes;
    }
    fputs("}", out);
    for (long length = ftell(out); length % 8; length++)
        putc(' ', out);
    bool failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}

static bool write_data(FileWriter *writer, const SafeTensors *file, const SafeTensor *sorted,
                       Error *error)
{
    for (int bits = 64; bits >= 8; bits /= 2)
        for (int i = 0; i < file->n_tensors; i++)
            if (element_bits(&sorted[i]) == bits
                && !file_append(writer, sorted[i].data, (size_t)sorted[i].bytes, error))
                return false;
    return true;
}

bool safetensors_write(const char *path, const SafeTensors *file, Error *error)
{
    size_t n = (size_t)file->n_tensors, size;
    SafeTensor *sorted = calloc(n + 1, sizeof *sorted);
    if (sorted && n) {
        memcpy(sorted, file->tensors, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, by_name);
    }
    for (size_t i = 1; sorted && i < n; i++)
        if (strcmp(sorted[i - 1].name, sorted[i].name) == 0) {
            fail(error, EXIT_USER, "", "%s: two tensors are named '%s'", path, sorted[i].name);
            free(sorted);
            return false;
        }
    char *header = sorted ? print_header(file, sorted, &size) : NULL;
    FileWriter writer;
    unsigned char head[8];
    bool written =
        header || fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to write it", path);
    for (int i = 0; written && i < 8; i++)
        head[i] = (unsigned char)((uint64_t)size >> (8 * i));
    written = written && file_begin(&writer, path, error) && file_append(&writer, head, 8, error)
           && file_append(&writer, header, size, error) && write_data(&writer, file, sorted, error)
           && file_commit(&writer, error);
    free(header);
    free(sorted);
    return written;
}
