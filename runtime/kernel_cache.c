/* The folder of built kernels, of the host and of CUDA.
 *
 * Files are named by the hash of what they were made from, so they never go stale and the folder
 * may be deleted at any time. What the compiler writes there is sealed: its length and a checksum
 * stand behind it, because a shared object cut short by a full disk or a crash can kill the process
 * that loads it. Files get their names by renaming, so processes that build the same kernel at the
 * same time do not meet.
 *
 * What lies here is run. So the folder must be this user's alone: one that belongs to somebody else
 * is not used.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "device.h"

#define SEAL "SEGSEAL\n"
enum { SEAL_BYTES = 24, OLD_SECONDS = 24 * 60 * 60 };

/* ---- the folder ------------------------------------------------------------------------------ */

static bool find_folder(char folder[PATH_MAX])
{
    const char *cache = getenv("SEG_CACHE"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (cache && *cache)
        return snprintf(folder, PATH_MAX, "%s/kernels", cache) < 2048;
    if (xdg && *xdg == '/')
        return snprintf(folder, PATH_MAX, "%s/seg/kernels", xdg) < 2048;
    return home && *home == '/' && snprintf(folder, PATH_MAX, "%s/.cache/seg/kernels", home) < 2048;
}

/* Ours, and nobody else may write there. */
static bool make_private(const char *folder, Error *error)
{
    struct stat facts;
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", folder);
    *strrchr(parent, '/') = 0;
    if (!folder_make(parent, error))
        return false;
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return fail(error, EXIT_ENVIRONMENT, "", "cannot make the folder %s: %s", folder,
                    strerror(errno));
    if (stat(folder, &facts) != 0 || facts.st_uid != geteuid())
        return fail(error, EXIT_ENVIRONMENT, "", "the folder %s belongs to another user", folder);
    if (((facts.st_mode & 022) && chmod(folder, 0700) != 0) || access(folder, W_OK | X_OK) != 0)
        return fail(error, EXIT_ENVIRONMENT, "", "cannot write in %s: %s", folder, strerror(errno));
    return true;
}

/* What killed processes left. */
static void remove_old(const char *folder, bool all)
{
    DIR *names = opendir(folder);
    time_t now = time(NULL);
    for (struct dirent *entry; names && (entry = readdir(names));) {
        struct stat facts;
        char path[PATH_MAX + 256];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        bool old = strncmp(entry->d_name, "tmp-", 4) == 0 && lstat(path, &facts) == 0
                && now - facts.st_mtime > OLD_SECONDS;
        if (all || old)
            unlink(path); /* fails for . and .. */
    }
    if (names)
        closedir(names);
}

bool kernel_cache_open(KernelCache *cache, const DeviceOptions *options, Error *error)
{
    char folder[PATH_MAX], warning[1200];
    Error problem = { .text = "there is no home folder" };
    *cache = (KernelCache){ 0 };
    if (find_folder(folder) && make_private(folder, &problem) && realpath(folder, cache->folder)) {
        remove_old(cache->folder, false);
        return true;
    }
    const char *where = getenv("TMPDIR");
    snprintf(cache->folder, sizeof cache->folder, "%.2000s/seg-XXXXXX",
             where && *where ? where : "/tmp");
    if (!mkdtemp(cache->folder))
        return fail(error, EXIT_ENVIRONMENT, "set SEG_CACHE to a folder that you can write",
                    "no folder for built kernels: %s; and cannot make %s: %s", problem.text,
                    cache->folder, strerror(errno));
    cache->temporary = true;
    snprintf(warning, sizeof warning,
             "built kernels are not kept: %s (set SEG_CACHE to a folder of "
             "your own)",
             problem.text);
    if (options->warn)
        options->warn(options->context, warning);
    return true;
}

void kernel_cache_close(KernelCache *cache)
{
    if (!cache->temporary)
        return;
    remove_old(cache->folder, true);
    rmdir(cache->folder);
    cache->temporary = false;
}

void cache_path(const KernelCache *cache, const char *name, char path[4096])
{
    snprintf(path, 4096, "%s/%.400s", cache->folder, name);
}

/* ---- seals ----------------------------------------------------------------------------------- */

static bool cannot_write(const char *path, int reason, Error *error)
{
    return fail(error, EXIT_ENVIRONMENT, "make room there, or set SEG_CACHE to another folder",
                "cannot write %s: %s", path, strerror(reason));
}

static void make_seal(const char *bytes, size_t size, unsigned char seal[SEAL_BYTES])
{
    uint64_t facts[2] = { size, XXH64(bytes, size, 0) };
    memcpy(seal, SEAL, 8);
    memcpy(seal + 8, facts, sizeof facts); /* the cache never leaves this machine's byte order */
}

char *cache_read(const char *path, size_t *bytes)
{
    unsigned char seal[SEAL_BYTES];
    char *content = file_read(path, bytes, NULL);
    if (content && *bytes > SEAL_BYTES) {
        *bytes -= SEAL_BYTES;
        make_seal(content, *bytes, seal);
        if (memcmp(seal, content + *bytes, SEAL_BYTES) == 0) {
            content[*bytes] = 0;
            return content;
        }
    }
    free(content);
    return NULL;
}

bool cache_has(const char *path)
{
    size_t size;
    char *content = cache_read(path, &size);
    free(content);
    return content != NULL;
}

bool cache_seal(const char *temporary, const char *path, Error *error)
{
    size_t size;
    unsigned char seal[SEAL_BYTES];
    char *bytes = file_read(temporary, &size, error);
    if (!bytes)
        return false;
    make_seal(bytes, size, seal);
    free(bytes);
    FILE *out = fopen(temporary, "abe");
    bool written = out && fwrite(seal, 1, SEAL_BYTES, out) == SEAL_BYTES;
    int reason = errno;
    if (out && fclose(out) != 0 && written) {
        written = false;
        reason = errno;
    }
    if (written && rename(temporary, path) == 0)
        return true;
    reason = written ? errno : reason;
    unlink(temporary);
    return cannot_write(path, reason, error);
}

void cache_temporary(const char *path, char temporary[4096])
{
    static atomic_uint counter;
    int folder = (int)(strrchr(path, '/') - path);
    snprintf(temporary, 4096, "%.*s/tmp-%ld-%u", folder, path, (long)getpid(),
             atomic_fetch_add(&counter, 1));
}

bool cache_write(const char *path, const void *bytes, size_t size, bool sealed, Error *error)
{
    char temporary[PATH_MAX];
    cache_temporary(path, temporary);
    FILE *out = fopen(temporary, "wbe");
    bool written = out && fwrite(bytes, 1, size, out) == size;
    int reason = errno;
    if (out && fclose(out) != 0 && written) {
        written = false;
        reason = errno;
    }
    if (written && sealed)
        return cache_seal(temporary, path, error);
    if (written && rename(temporary, path) == 0)
        return true;
    reason = written ? errno : reason;
    unlink(temporary);
    return cannot_write(path, reason, error);
}
