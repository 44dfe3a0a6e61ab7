/* Files, what can go wrong with them, and weights in them: all that the compiler needs of the runtime
 * besides the plan's form, and so an archive of its own (build/files.a), which both programs link.
 * error.c, file.c, safetensors*.c and params.c know of no device and need nothing but libc.
 */
#ifndef FILES_H
#define FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan.h"

/* ---- error.c ------------------------------------------------------------------------------ */

typedef enum {
    EXIT_FINE = 0,
    EXIT_USER = 1,
    EXIT_USAGE = 2,
    EXIT_ENVIRONMENT = 3,
    EXIT_INTERRUPTED = 130
} ExitCode;

typedef struct {
    ExitCode code;      /* EXIT_USER or EXIT_ENVIRONMENT */
    char text[1024];    /* one line: what failed on which file */
    char hint[512];     /* what to do; may be empty */
} Error;
/* Always returns false, so that a failing function can `return fail(...)`. */
bool fail(Error *, ExitCode, const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- file.c ------------------------------------------------------------------------------- */

/* Whole file, NUL behind it; *bytes its size. Free with free(). */
char *file_read(const char *path, size_t *bytes, Error *);
/* Temporary file beside it, fsync, rename, fsync of the folder. A link stays a link, an old file's
 * permissions stay; what is no regular file (/dev/null, a pipe) is written in place. */
bool file_write(const char *path, const void *bytes, size_t size, Error *);
/* The same in pieces, for what is too large to be put together in memory. file_append and
 * file_commit abandon the file when they fail; file_abandon leaves the old file as it was. */
typedef struct { int file; char path[4096], temporary[4160]; } FileWriter;
bool file_begin(FileWriter *, const char *path, Error *);
bool file_append(FileWriter *, const void *bytes, size_t size, Error *);
bool file_commit(FileWriter *, Error *);
void file_abandon(FileWriter *);
bool folder_make(const char *path, Error *);           /* with its parents */

/* ---- safetensors.c safetensors_read.c -------------------------------------------------------- */

/* A safetensors file in memory. Names are sorted; metadata values are strings. */
typedef struct {
    char *name;
    PlanType type;              /* of an F32 or U8 one; PLAN_U8 for any other: see dtype */
    char dtype[8];              /* as in the file: "BF16"; may be empty when writing */
    int rank;
    int64_t dims[8];
    const void *data;           /* little-endian, perhaps not aligned when read */
    int64_t bytes;
} SafeTensor;
typedef struct SafeTensors {
    int n_tensors; SafeTensor *tensors;
    int n_metadata; char **keys, **values;
    const void *storage;        /* all tensors' data, where it was read from a file */
    size_t storage_bytes;
    void *memory;               /* owner of storage: allocated, or the mapped file */
    size_t memory_bytes;
    bool mapped;
    const char *path;           /* for messages; may be NULL */
} SafeTensors;
SafeTensors *safetensors_open(const char *path, Error *);
/* Takes the bytes. */
SafeTensors *safetensors_parse(void *bytes, size_t size, const char *path, Error *);
void safetensors_close(SafeTensors *);
/* Sorts by name, whatever order they come in. */
bool safetensors_write(const char *path, const SafeTensors *, Error *);
void safetensors_sort(SafeTensor *, int n);            /* by name */
int safetensor_bits(const char *dtype);                /* of an element; 0: no type of this name */
/* Length of the UTF-8 character at text, 0 if it is none. */
size_t utf8_character(const char *text, size_t room);
const SafeTensor *safetensors_find(const SafeTensors *, const char *name);
/* Elements as floats, from F32, F16, BF16 or F64; false for other types. */
bool safetensor_floats(const SafeTensor *, float *out);

/* ---- params.c: weights by name --------------------------------------------------------------- */

int64_t params_count(const PlanParameter *);   /* its numbers */

/* The weights of a file into the slab of parameters, by name. Strict: every parameter must be there
 * and nothing else, except Adam's moments (optimizer.*) and num_batches_tracked. Else what has the
 * name and the shape is taken, and error->text says what was left out. Nothing is changed on
 * failure. */
bool params_load(const Plan *, const SafeTensors *, void *parameters, bool strict, Error *);
/* Part of a model from another network's file: the parameters PREFIX.NAME from tensors NAME; prefix
 * "": all of the model. The others, and those that the file lacks, stay as they are. Fails where no
 * name fits or a shape differs. report: what was taken, skipped and kept, in a line or two. */
enum { PARAMS_REPORT = 1600 };
bool params_take_part(const Plan *, const SafeTensors *, const char *prefix, void *parameters,
                      char report[PARAMS_REPORT], Error *);

#endif
