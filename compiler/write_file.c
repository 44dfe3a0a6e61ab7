/* Writing a file: under another name, then renamed, so that it is never seen half written and an old
 * one survives a full disk. A link stays a link, an old file's permissions stay; what is no regular
 * file (/dev/null, a pipe) is written in place.
 */
#include "seg.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool write_all(int file, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t done = write(file, bytes, size);
        if (done < 0 && errno != EINTR)
            return false;
        if (done > 0) {
            bytes += done;
            size -= (size_t)done;
        }
    }
    return true;
}

/* False with errno set. */
static bool replace_file(const char *path, const char *temporary, const mode_t *mode,
                         const void *bytes, size_t size)
{
    int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0)
        return false;
    int reason = 0;
    if ((mode && fchmod(file, *mode) != 0) || !write_all(file, bytes, size) || fsync(file) != 0)
        reason = errno;
    if (close(file) != 0 && !reason)
        reason = errno;
    if (!reason && rename(temporary, path) != 0)
        reason = errno;
    if (reason)
        unlink(temporary);
    errno = reason;
    return !reason;
}

static bool write_in_place(const char *path, const void *bytes, size_t size)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool written = write_all(file, bytes, size);
    int reason = errno;
    bool closed = close(file) == 0;
    if (!written)
        errno = reason;
    return written && closed;
}

bool write_file(Compilation *c, const char *path, const void *bytes, size_t size, const char *hint)
{
    struct stat facts;
    bool exists = stat(path, &facts) == 0;
    char *real = realpath(path, NULL);
    const char *temporary =
        arena_printf(c->arena, "%s.tmp-%ld", real ? real : path, (long)getpid());
    mode_t mode = exists ? facts.st_mode & 0777 : 0;
    bool done = exists && !S_ISREG(facts.st_mode)
              ? write_in_place(path, bytes, size)
              : replace_file(real ? real : path, temporary, exists ? &mode : NULL, bytes, size);
    if (!done) {
        int reason = errno;
        const char *first = reason == ENOSPC ? "make room on the disk"
                                             : "check the folder and its permissions";
        error_system(c, arena_printf(c->arena, "%s, %s", first, hint), "cannot write %s: %s", path,
                     strerror(reason));
    }
    free(real);
    return done;
}
