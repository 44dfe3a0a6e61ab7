/* Whole files: reading them, and writing them so that they appear complete or not at all.
 *
 * A file is written to a temporary one beside it, flushed to the disk, renamed over the old one,
 * and the folder is flushed too. Whoever is killed on the way, or fills the disk, leaves the old
 * file as it was. What is no regular file (/dev/null, a pipe) is written in place: renaming would
 * replace it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"

/* ---- reading --------------------------------------------------------------------------------- */

static const char *read_hint(int error)
{
    switch (error) {
    case ENOENT: return "check the name";
    case EACCES: return "check the permissions of the file and its folders";
    case ENOMEM: return "close other programs, or use a machine with more memory";
    default: return "";
    }
}

static char *read_all(int file, size_t expected, size_t *bytes)
{
    size_t capacity = expected + 1, size = 0;
    char *text = malloc(capacity);
    while (text) {
        ssize_t got = read(file, text + size, capacity - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        size += (size_t)got;
        if (got == 0) {
            text[size] = 0; /* there is room: a full buffer grows before it is read again */
            *bytes = size;
            return text;
        }
        if (size == capacity) {
            capacity = capacity < SIZE_MAX / 2 ? capacity * 2 : SIZE_MAX;
            char *larger = realloc(text, capacity);
            if (!larger)
                break;
            text = larger;
        }
    }
    int reason = text ? errno : ENOMEM;
    free(text);
    errno = reason;
    return NULL;
}

char *file_read(const char *path, size_t *bytes, Error *error)
{
    struct stat facts;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &facts) != 0) {
        fail(error, EXIT_USER, read_hint(errno), "cannot open %s: %s", path, strerror(errno));
        if (file >= 0)
            close(file);
        return NULL;
    }
    if (!S_ISREG(facts.st_mode) && !S_ISFIFO(facts.st_mode)) {
        close(file);
        fail(error, EXIT_USER, "name a file", "cannot read %s: it is %s", path,
             S_ISDIR(facts.st_mode) ? "a folder" : "no regular file");
        return NULL;
    }
    char *text = read_all(file, (size_t)facts.st_size, bytes);
    if (!text)
        fail(error, EXIT_ENVIRONMENT, read_hint(errno), "cannot read %s: %s", path,
             strerror(errno));
    close(file);
    return text;
}

/* ---- writing --------------------------------------------------------------------------------- */

static const char *write_hint(int error)
{
    switch (error) {
    case ENOSPC: case EDQUOT: return "the disk is full: make room, or name another folder";
    case EFBIG: return "the file would be larger than this process may write (ulimit -f)";
    case EACCES: case EPERM: return "check the permissions of the folder, or name another one";
    case EROFS: return "the file system is read-only: name another folder";
    case ENOENT: case ENOTDIR: return "the folder does not exist: make it, or name another one";
    default: return "";
    }
}

static bool write_error(const FileWriter *writer, const char *what, Error *error)
{
    return fail(error, EXIT_ENVIRONMENT, write_hint(errno), "cannot %s %s: %s", what, writer->path,
                strerror(errno));
}

bool file_begin(FileWriter *writer, const char *path, Error *error)
{
    static atomic_uint counter;
    struct stat facts;
    char real[PATH_MAX];
    *writer = (FileWriter){ .file = -1 };
    if (snprintf(writer->path, sizeof writer->path, "%s", realpath(path, real) ? real : path)
        >= (int)sizeof writer->path - 32)
        return fail(error, EXIT_USER, "use a shorter name", "cannot write %.200s...: name too long",
                    path);
    bool exists = stat(writer->path, &facts) == 0;
    if (exists && !S_ISREG(facts.st_mode)) {
        writer->file = open(writer->path, O_WRONLY | O_CLOEXEC);
        return writer->file >= 0 || write_error(writer, "write", error);
    }
    do {
        snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp-%ld-%u", writer->path,
                 (long)getpid(), atomic_fetch_add(&counter, 1));
        writer->file = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (writer->file < 0 && errno == EEXIST);
    if (writer->file < 0) {
        writer->temporary[0] = 0;
        return write_error(writer, "write", error);
    }
    if (exists && fchmod(writer->file, facts.st_mode & 0777) != 0) {
        write_error(writer, "write", error);
        file_abandon(writer);
        return false;
    }
    return true;
}

bool file_append(FileWriter *writer, const void *bytes, size_t size, Error *error)
{
    const char *from = bytes;
    while (size > 0) {
        ssize_t done = write(writer->file, from, size < 1 << 30 ? size : 1 << 30);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            write_error(writer, "write", error);
            file_abandon(writer);
            return false;
        }
        from += done;
        size -= (size_t)done;
    }
    return true;
}

static void flush_folder(const char *path)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        strcpy(folder, ".");
    else
        slash[slash == folder] = 0;
    int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file >= 0) {
        fsync(file); /* some file systems cannot; the file itself is safe */
        close(file);
    }
}

bool file_commit(FileWriter *writer, Error *error)
{
    bool in_place = writer->temporary[0] == 0;
    int reason = 0;
    if (fsync(writer->file) != 0 && !in_place) /* pipes and devices cannot */
        reason = errno;
    if (close(writer->file) != 0 && !reason)
        reason = errno;
    writer->file = -1;
    if (!reason && !in_place && rename(writer->temporary, writer->path) != 0)
        reason = errno;
    if (reason) {
        errno = reason;
        write_error(writer, "write", error);
        file_abandon(writer);
        return false;
    }
    if (!in_place)
        flush_folder(writer->path);
    return true;
}

void file_abandon(FileWriter *writer)
{
    if (writer->file >= 0)
        close(writer->file);
    if (writer->temporary[0])
        unlink(writer->temporary);
    *writer = (FileWriter){ .file = -1 };
}

bool file_write(const char *path, const void *bytes, size_t size, Error *error)
{
    FileWriter writer;
    return file_begin(&writer, path, error) && file_append(&writer, bytes, size, error)
        && file_commit(&writer, error);
}

/* ---- folders --------------------------------------------------------------------------------- */

static bool make_one(const char *path, Error *error)
{
    struct stat facts;
    if (mkdir(path, 0777) == 0)
        return true;
    int reason = errno;
    if (stat(path, &facts) == 0) {
        if (S_ISDIR(facts.st_mode))
            return true;
        reason = ENOTDIR;
    }
    const char *hint = reason == ENOTDIR ? "a file has that name: name another folder"
                                         : write_hint(reason);
    return fail(error, EXIT_ENVIRONMENT, hint, "cannot make the folder %s: %s", path,
                strerror(reason));
}

bool folder_make(const char *path, Error *error)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return fail(error, EXIT_USER, "use a shorter name", "folder name too long: %.200s...",
                    path);
    for (char *slash = part + 1; part[0] && (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        if (!make_one(part, error))
            return false;
        *slash = '/';
    }
    return make_one(part, error);
}
