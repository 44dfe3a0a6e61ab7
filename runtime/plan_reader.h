/* The fields of a plan file: numbers, texts, lists and records, each checked as it is read. After
 * the first error everything reads as zero, so that callers need not look after each field.
 */
#ifndef PLAN_READER_H
#define PLAN_READER_H

#include "run.h"

enum { PLAN_HEAD_BYTES = 32 };
/* Of a slab; times a batch it still fits 63 bits. */
static const int64_t PLAN_MAX_BYTES = (int64_t)1 << 44;
#define PLAN_LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789"

typedef struct Block Block;
struct Block { Block *next; max_align_t data[]; };
typedef struct { Plan plan; Block *blocks; } PlanMemory;

typedef struct {
    const unsigned char *bytes;
    size_t at, end;             /* end of the innermost record */
    const char *path;
    char place[320];            /* "program 'train', step 12", for messages */
    bool failed;                /* from then on everything reads as zero */
    Error *error;
    PlanMemory *memory;
} Reader;

extern const char reader_again[];   /* the hint of a damaged file */
/* Keeps the first error. */
void reader_wrong(Reader *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void reader_place(Reader *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Zeros, freed with the plan. Never NULL, but not to be written after a failure. */
void *reader_allocate(Reader *, size_t count, size_t size);

uint64_t read_bytes(Reader *, size_t n);
uint32_t read_u32(Reader *);
int64_t read_i64(Reader *);
bool read_bool(Reader *);
int read_enum(Reader *, int count, const char *what);
double read_f64(Reader *, const char *what);                /* finite */
int64_t read_size(Reader *, const char *what);              /* from 0 to PLAN_MAX_BYTES */
/* Texts may hold lines and tabs; names nothing below a space. */
char *read_string(Reader *, const char *what, bool is_name);
char *read_name(Reader *, const char *what);                /* not empty */
/* A name of these letters that does not begin with a digit. */
char *read_word(Reader *, const char *what, const char *letters);
char *read_identifier(Reader *, const char *what);          /* a C function's or a file's name */
/* `least`: bytes that each element takes at least, so that a wrong count cannot ask for memory that
 * the file could not fill. */
int read_count(Reader *, const char *what, size_t least, uint32_t most);
/* Texts that are there once for many: with which kernels end, the graphs' lines. */
typedef struct { int n; char **texts; int seen; } Texts;
Texts read_texts(Reader *);
/* Enters a record; gives the end of the one around it for leave_record. */
size_t enter_record(Reader *);
void leave_record(Reader *, size_t outer);

#endif
