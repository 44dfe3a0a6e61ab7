/* Event files that TensorBoard reads: scalars and pictures by step.
 *
 * A file is a sequence of records: length (u64), checksum of the length, an Event message, checksum
 * of the message; checksums are CRC-32C, masked (TensorFlow: core/lib/io/record_writer). An Event
 * (event.proto) has wall_time = 1, step = 2, file_version = 3, summary = 5; a Summary (summary.proto)
 * has values = 1 of tag = 1 and simple_value = 2 or image = 4 (height = 1, width = 2, colorspace = 3,
 * PNG = 4). These few fields are written here in protobuf's wire form.
 *
 * Files only grow, as TensorBoard expects of a run that goes on: each record in one write. A resumed
 * run opens another file in the same folder.
 */
#include "commands.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct TensorBoard { int file; char path[1100]; };

/* ---- records --------------------------------------------------------------------------------- */

uint32_t crc32c(const void *bytes, size_t size)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc ^= ((const unsigned char *)bytes)[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

static uint32_t masked(const void *bytes, size_t size)
{
    uint32_t crc = crc32c(bytes, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8;
}

static void put_fixed(FILE *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        fputc((int)(value >> 8 * i & 0xff), out);
}

static bool write_record(TensorBoard *board, const char *event, size_t size, Error *error)
{
    char *record = NULL;
    size_t length = 0;
    unsigned char head[8];
    for (int i = 0; i < 8; i++)
        head[i] = (unsigned char)(size >> 8 * i);
    FILE *out = open_memstream(&record, &length);
    if (out) {
        fwrite(head, 1, sizeof head, out);
        put_fixed(out, masked(head, sizeof head), 4);
        fwrite(event, 1, size, out);
        put_fixed(out, masked(event, size), 4);
    }
    bool fine = out && fclose(out) == 0 && write(board->file, record, length) == (ssize_t)length;
    free(record);
    return fine || fail(error, EXIT_ENVIRONMENT, "is there room?", "cannot write %s: %s",
                        board->path, strerror(errno));
}

/* ---- messages -------------------------------------------------------------------------------- */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void put_varint(FILE *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        fputc((int)(value & 0x7f) | 0x80, out);
    fputc((int)value, out);
}

static void put_bytes(FILE *out, int field, const void *bytes, size_t size)
{
    put_varint(out, (uint64_t)field << 3 | BYTES);
    put_varint(out, size);
    fwrite(bytes, 1, size, out);
}

static void put_number(FILE *out, int field, int64_t value)
{
    put_varint(out, (uint64_t)field << 3 | VARINT);
    put_varint(out, (uint64_t)value);
}

static void put_double(FILE *out, int field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_varint(out, (uint64_t)field << 3 | FIXED64);
    put_fixed(out, bits, 8);
}

static void put_float(FILE *out, int field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_varint(out, (uint64_t)field << 3 | FIXED32);
    put_fixed(out, bits, 4);
}

static double wall_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Takes what was written to *out; false without memory. */
static bool finish(FILE *out)
{
    bool failed = !out || ferror(out);
    return out && fclose(out) == 0 && !failed;
}

/* An event with a field of bytes: the file's version, or a summary. */
static bool write_event(TensorBoard *board, int64_t step, int field, const char *bytes, size_t size,
                        Error *error)
{
    char *event = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&event, &length);
    if (out) {
        put_double(out, 1, wall_time());
        put_number(out, 2, step);
        put_bytes(out, field, bytes, size);
    }
    bool fine = finish(out) ? write_record(board, event, length, error)
                            : fail(error, EXIT_ENVIRONMENT, "", "not enough memory for an event");
    free(event);
    return fine;
}

/* A summary of one value: its tag, and `what` in the form of its field. */
static bool write_value(TensorBoard *board, int64_t step, const char *tag, const char *what,
                        size_t size, Error *error)
{
    char *value = NULL, *summary = NULL;
    size_t value_size = 0, summary_size = 0;
    FILE *out = open_memstream(&value, &value_size);
    if (out) {
        put_bytes(out, 1, tag, strlen(tag));
        fwrite(what, 1, size, out);
    }
    bool fine = finish(out);
    out = fine ? open_memstream(&summary, &summary_size) : NULL;
    if (out)
        put_bytes(out, 1, value, value_size);
    fine = finish(out) ? write_event(board, step, 5, summary, summary_size, error)
                       : fail(error, EXIT_ENVIRONMENT, "", "not enough memory for an event");
    free(value);
    free(summary);
    return fine;
}

/* ---- the file -------------------------------------------------------------------------------- */

TensorBoard *tensorboard_open(const char *folder, Error *error)
{
    static const char version[] = "brain.Event:2";
    TensorBoard *board = calloc(1, sizeof *board);
    if (!board) {
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
        return NULL;
    }
    board->file = -1;
    if (folder_make(folder, error)) {
        snprintf(board->path, sizeof board->path, "%.1000s/events.out.tfevents.%lld.%ld.seg", folder,
                 (long long)time(NULL), (long)getpid());
        board->file = open(board->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (board->file < 0)
            fail(error, EXIT_ENVIRONMENT, "name another folder with --tensorboard",
                 "cannot write %s: %s", board->path, strerror(errno));
    }
    if (board->file >= 0 && write_event(board, 0, 3, version, sizeof version - 1, error))
        return board;
    tensorboard_close(board);
    return NULL;
}

bool tensorboard_scalar(TensorBoard *board, int64_t step, const char *tag, double value, Error *error)
{
    char *field = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&field, &size);
    if (out)
        put_float(out, 2, (float)value);
    bool fine = finish(out) ? write_value(board, step, tag, field, size, error)
                            : fail(error, EXIT_ENVIRONMENT, "", "not enough memory for an event");
    free(field);
    return fine;
}

bool tensorboard_picture(TensorBoard *board, int64_t step, const char *tag, int height, int width,
                         const void *png, size_t bytes, Error *error)
{
    enum { RGB = 3 };
    char *image = NULL, *field = NULL;
    size_t image_size = 0, size = 0;
    FILE *out = open_memstream(&image, &image_size);
    if (out) {
        put_number(out, 1, height);
        put_number(out, 2, width);
        put_number(out, 3, RGB);
        put_bytes(out, 4, png, bytes);
    }
    bool fine = finish(out);
    out = fine ? open_memstream(&field, &size) : NULL;
    if (out)
        put_bytes(out, 4, image, image_size);
    fine = finish(out) ? write_value(board, step, tag, field, size, error)
                       : fail(error, EXIT_ENVIRONMENT, "", "not enough memory for an event");
    free(image);
    free(field);
    return fine;
}

void tensorboard_close(TensorBoard *board)
{
    if (board && board->file >= 0) {
        fsync(board->file);
        close(board->file);
    }
    free(board);
}
