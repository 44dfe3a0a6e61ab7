/* runtime/tensorboard.c: records as TensorBoard reads them: lengths, checksums, fields. */
#include "runtime/commands.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The vectors of RFC 3720, B.4. */
static void checksums(void **state)
{
    (void)state;
    unsigned char zeros[32] = {0}, ones[32], rising[32];
    memset(ones, 0xff, sizeof ones);
    for (int i = 0; i < 32; i++)
        rising[i] = (unsigned char)i;
    assert_int_equal(crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(zeros, 32), 0x8a9136aa);
    assert_int_equal(crc32c(ones, 32), 0x62a8ab43);
    assert_int_equal(crc32c(rising, 32), 0x46dd794e);
}

static uint64_t read_fixed(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << 8 * i;
    return value;
}

static uint32_t unmask(uint32_t masked)
{
    uint32_t rotated = masked - 0xa282ead8;
    return rotated >> 17 | rotated << 15;
}

/* The event of the record at *at, which moves behind it. */
static const unsigned char *read_record(const unsigned char *bytes, size_t size, size_t *at,
                                        size_t *length)
{
    const unsigned char *record = bytes + *at;
    assert_true(*at + 16 <= size);
    *length = read_fixed(record, 8);
    assert_true(*length < 4096 && *at + 16 + *length <= size);
    assert_int_equal(unmask((uint32_t)read_fixed(record + 8, 4)), crc32c(record, 8));
    assert_int_equal(unmask((uint32_t)read_fixed(record + 12 + *length, 4)),
                     crc32c(record + 12, *length));
    *at += 16 + *length;
    return record + 12;
}

static char *only_file(const char *folder)
{
    char *path = NULL;
    DIR *open = opendir(folder);
    assert_non_null(open);
    for (struct dirent *entry; (entry = readdir(open));)
        if (entry->d_name[0] != '.') {
            assert_null(path);
            assert_non_null(strstr(entry->d_name, "tfevents"));
            assert_true(asprintf(&path, "%s/%s", folder, entry->d_name) > 0);
        }
    closedir(open);
    assert_non_null(path);
    return path;
}

static void events(void **state)
{
    (void)state;
    char folder[] = "/tmp/seg-tensorboard-XXXXXX", inner[64];
    Error error = {0};
    assert_non_null(mkdtemp(folder));
    snprintf(inner, sizeof inner, "%s/a/b", folder);
    TensorBoard *board = tensorboard_open(inner, &error);
    assert_non_null(board);
    assert_true(tensorboard_scalar(board, 300, "loss/train", 0.5, &error));
    assert_true(tensorboard_picture(board, 7, "valid", 2, 3, "PNG", 3, &error));
    tensorboard_close(board);

    char *path = only_file(inner);
    size_t size = 0, at = 0, length;
    unsigned char *bytes = (unsigned char *)file_read(path, &size, &error);
    assert_non_null(bytes);
    const unsigned char *event = read_record(bytes, size, &at, &length);
    assert_int_equal(event[0], 1 << 3 | 1);               /* wall_time, 8 bytes */
    assert_memory_equal(event + 9, "\x10\x00\x1a\x0d" "brain.Event:2", 17);
    assert_int_equal(length, 26);
    event = read_record(bytes, size, &at, &length);
    static const unsigned char scalar[] = "\x10\xac\x02" "\x2a\x13" "\x0a\x11" "\x0a\x0a" "loss/train"
                                          "\x15\x00\x00\x00\x3f";
    assert_int_equal(length, 9 + sizeof scalar - 1);
    assert_memory_equal(event + 9, scalar, sizeof scalar - 1);
    event = read_record(bytes, size, &at, &length);
    static const unsigned char picture[] = "\x10\x07" "\x2a\x16" "\x0a\x14" "\x0a\x05" "valid"
                                           "\x22\x0b" "\x08\x02\x10\x03\x18\x03\x22\x03" "PNG";
    assert_int_equal(length, 9 + sizeof picture - 1);
    assert_memory_equal(event + 9, picture, sizeof picture - 1);
    assert_int_equal(at, size);

    free(bytes);
    unlink(path);
    free(path);
    rmdir(inner);
    *strrchr(inner, '/') = 0;
    rmdir(inner);
    rmdir(folder);
}

static void no_folder(void **state)
{
    (void)state;
    Error error = {0};
    assert_null(tensorboard_open("/dev/null/board", &error));
    assert_int_equal(error.code, EXIT_ENVIRONMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksums), cmocka_unit_test(events), cmocka_unit_test(no_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
