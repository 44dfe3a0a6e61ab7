/* The decoded samples of a split, kept in a file that is mapped, so that pictures are decoded once.
 *
 *     header | index: one entry a sample | samples, each at a multiple of 64 bytes
 *
 * The file's name is its key, a hash of everything the samples depend on; a stale file is never
 * opened, only forgotten. Header and index are checked on opening, each sample's hash when it is
 * first used: a damaged sample is decoded again in place (the mapping is private) and the file is
 * removed, so that the next run makes a new one. That is also why a new file needs no fsync: what
 * did not reach the disk is noticed. A new file is made under a temporary name and renamed. Where
 * there is no folder or no space, the same bytes are held in memory.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "data.h"

enum { CACHE_VERSION = 1, SAMPLE_ALIGN = 64, DATA_ALIGN = 4096, LOCKS = 16 };
enum { STALE_SECONDS = 24 * 60 * 60 };

typedef struct {
    char magic[8];
    uint32_t version, count;
    uint64_t key;
    int64_t sample_bytes;
    uint64_t index_hash;
    uint64_t header_hash;       /* of the fields above */
} Header;

typedef struct {
    uint64_t hash;              /* of the sample */
    char problem[248];          /* why it cannot be decoded; empty if it can */
} Entry;

struct Cache {
    CacheOptions options;
    char *path;                 /* of the file; NULL in memory */
    uint8_t *map;
    size_t map_bytes, stride;
    Entry *entries;             /* in the map */
    uint8_t *samples;           /* in the map */
    atomic_bool *verified;      /* [count] */
    pthread_mutex_t locks[LOCKS];   /* of the samples, by index */
    pthread_mutex_t warning;
};

static const char MAGIC[8] = "SEGCACHE";

char *cache_folder(void)
{
    static const struct { const char *variable, *below; } places[] = {
        { "SEG_CACHE", "" }, { "XDG_CACHE_HOME", "/seg" }, { "HOME", "/.cache/seg" },
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *value = getenv(places[i].variable);
        if (value == NULL || *value == '\0') continue;
        size_t size = strlen(value) + strlen(places[i].below) + 1;
        char *folder = malloc(size);
        if (folder != NULL) snprintf(folder, size, "%s%s", value, places[i].below);
        return folder;
    }
    return NULL;
}

static void warn(Cache *cache, const char *format, const char *detail)
{
    if (cache->options.warn == NULL) return;
    char line[1400];
    snprintf(line, sizeof line, format, detail);
    pthread_mutex_lock(&cache->warning);
    cache->options.warn(cache->options.progress_context, line);
    pthread_mutex_unlock(&cache->warning);
}

static void cache_layout(Cache *cache)
{
    size_t count = (size_t)cache->options.count;
    size_t data = sizeof(Header) + count * sizeof(Entry);
    data = (data + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    cache->stride = ((size_t)cache->options.sample_bytes + SAMPLE_ALIGN - 1)
                    / SAMPLE_ALIGN * SAMPLE_ALIGN;
    cache->map_bytes = data + count * cache->stride;
}

static void cache_place(Cache *cache, void *map)
{
    size_t data = cache->map_bytes - (size_t)cache->options.count * cache->stride;
    cache->map = map;
    cache->entries = (Entry *)(cache->map + sizeof(Header));
    cache->samples = cache->map + data;
}

static void cache_unmap(Cache *cache)
{
    if (cache->map != NULL) munmap(cache->map, cache->map_bytes);
    cache->map = NULL;
}

static uint8_t *sample_at(const Cache *cache, int index)
{
    return cache->samples + (size_t)index * cache->stride;
}

static uint64_t sample_hash(const Cache *cache, int index)
{
    return XXH64(sample_at(cache, index), (size_t)cache->options.sample_bytes, 0);
}

static Header make_header(const Cache *cache)
{
    Header header = {
        .version = CACHE_VERSION,
        .count = (uint32_t)cache->options.count,
        .key = cache->options.key,
        .sample_bytes = cache->options.sample_bytes,
        .index_hash = XXH64(cache->entries, (size_t)cache->options.count * sizeof(Entry), 0),
    };
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    header.header_hash = XXH64(&header, offsetof(Header, header_hash), 0);
    return header;
}

/* ---- making ---- */

typedef struct {
    Cache *cache;
    pthread_mutex_t lock;
    int failed;                 /* the smallest index that failed, or count */
    Error error;                /* of that one */
    atomic_bool stop;
} Build;

static void build_sample(void *context, int index)
{
    Build *build = context;
    Cache *cache = build->cache;
    if (atomic_load(&build->stop)) return;
    Error error = { 0 };
    Entry *entry = &cache->entries[index];
    uint8_t *sample = sample_at(cache, index);
    memset(entry, 0, sizeof *entry);
    if (!cache->options.decode(cache->options.context, index, sample, &error)) {
        memset(sample, 0, (size_t)cache->options.sample_bytes);
        if (cache->options.keep_bad && error.code == EXIT_USER) {
            snprintf(entry->problem, sizeof entry->problem, "%.247s", error.text);
        } else {
            pthread_mutex_lock(&build->lock);
            if (index < build->failed) {
                build->failed = index;
                build->error = error;
            }
            pthread_mutex_unlock(&build->lock);
            atomic_store(&build->stop, true);
        }
    }
    entry->hash = sample_hash(cache, index);
}

/* Decodes everything into the map. */
static bool build_all(Cache *cache, Error *error)
{
    Build build = { .cache = cache, .failed = cache->options.count };
    pthread_mutex_init(&build.lock, NULL);
    bool complete = parallel_for(cache->options.count, cache->options.workers, build_sample, &build,
                                 cache->options.progress, cache->options.progress_context);
    pthread_mutex_destroy(&build.lock);
    if (build.failed < cache->options.count) {
        *error = build.error;
        return false;
    }
    if (!complete) return fail(error, EXIT_INTERRUPTED, "", "interrupted while decoding pictures");
    Header header = make_header(cache);
    memcpy(cache->map, &header, sizeof header);
    return true;
}

static bool build_in_memory(Cache *cache, Error *error)
{
    void *map = mmap(NULL, cache->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                     -1, 0);
    if (map == MAP_FAILED)
        return fail(error, EXIT_ENVIRONMENT, "use a smaller --limit, or set SEG_CACHE to a folder "
                    "with space", "not enough memory for %lld MB of decoded pictures",
                    (long long)(cache->map_bytes >> 20));
    cache_place(cache, map);
    if (!build_all(cache, error)) return false;
    for (int i = 0; i < cache->options.count; i++) atomic_store(&cache->verified[i], true);
    return true;
}

/* Removes what builds that were killed left behind. */
static void remove_stale(const char *folder)
{
    DIR *directory = opendir(folder);
    if (directory == NULL) return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        struct stat status;
        const char *end = strrchr(entry->d_name, '.');
        if (end == NULL || strncmp(end, ".making-", 8) != 0) continue;
        if (fstatat(dirfd(directory), entry->d_name, &status, 0) == 0
            && status.st_mtime + STALE_SECONDS < time(NULL))
            unlinkat(dirfd(directory), entry->d_name, 0);
    }
    closedir(directory);
}

/* A temporary file of the full size, its blocks reserved, mapped. False: not possible here. */
static bool reserve_file(Cache *cache, char *temporary, size_t size, const char **what)
{
    snprintf(temporary, size, "%s.making-XXXXXX", cache->path);
    int file = mkstemp(temporary);
    if (file < 0) {
        *what = strerror(errno);
        return false;
    }
    int code = posix_fallocate(file, 0, (off_t)cache->map_bytes);
    void *map = MAP_FAILED;
    if (code == 0) {
        map = mmap(NULL, cache->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (map == MAP_FAILED) code = errno;
    }
    close(file);
    if (map == MAP_FAILED) {
        *what = strerror(code);
        unlink(temporary);
        return false;
    }
    cache_place(cache, map);
    return true;
}

/* ---- opening ---- */

/* Maps the file and checks its header and index; says nothing where there is none. */
static bool map_file(Cache *cache)
{
    int file = open(cache->path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    struct stat status;
    const char *problem = NULL;
    void *map = MAP_FAILED;
    if (fstat(file, &status) != 0 || (uint64_t)status.st_size != cache->map_bytes)
        problem = "it has the wrong length";
    else
        map = mmap(NULL, cache->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    close(file);
    if (map != MAP_FAILED) {
        cache_place(cache, map);
        Header want = make_header(cache);
        if (memcmp(map, &want, sizeof want) != 0) problem = "its header is damaged";
        for (int i = 0; problem == NULL && i < cache->options.count; i++)
            if (cache->entries[i].problem[0] != '\0' && !cache->options.keep_bad)
                problem = "";           /* the caller wants the error of this picture */
        if (problem == NULL) return true;
        cache_unmap(cache);
    }
    if (problem != NULL && *problem != '\0') {
        char line[256];
        snprintf(line, sizeof line, "the cache of decoded pictures is made again: %s (%%s)",
                 problem);
        warn(cache, line, cache->path);
    }
    return false;
}

/* Maps the file, or makes it. False with *what: use memory; false without: *error. */
static bool open_file(Cache *cache, const char **what, Error *error)
{
    char temporary[4200];
    if (map_file(cache)) return true;
    remove_stale(cache->options.folder);
    if (!reserve_file(cache, temporary, sizeof temporary, what)) return false;
    bool built = build_all(cache, error);
    cache_unmap(cache);
    if (built && rename(temporary, cache->path) == 0 && map_file(cache)) return true;
    if (built) *what = strerror(errno);
    unlink(temporary);
    return false;
}

static Cache *cache_new(const CacheOptions *options)
{
    Cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) return NULL;
    cache->options = *options;
    pthread_mutex_init(&cache->warning, NULL);
    for (int i = 0; i < LOCKS; i++) pthread_mutex_init(&cache->locks[i], NULL);
    cache->verified = calloc((size_t)options->count + 1, sizeof *cache->verified);
    if (options->folder != NULL) {
        size_t size = strlen(options->folder) + 32;
        cache->path = malloc(size);
        if (cache->path != NULL)
            snprintf(cache->path, size, "%s/%016llx.pictures", options->folder,
                     (unsigned long long)options->key);
    }
    cache_layout(cache);
    return cache;
}

Cache *cache_open(const CacheOptions *options, Error *error)
{
    Cache *cache = cache_new(options);
    if (cache == NULL || cache->verified == NULL) {
        if (cache == NULL) free(options->context);
        cache_close(cache);
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
        return NULL;
    }
    bool opened = false, in_memory = cache->path == NULL;
    if (!in_memory) {
        Error folder_error = { 0 };
        const char *what = NULL;
        if (!folder_make(options->folder, &folder_error))
            what = folder_error.text;
        else
            opened = open_file(cache, &what, error);
        if (what != NULL) {
            in_memory = true;
            warn(cache, "no cache of decoded pictures, they are held in memory: %s", what);
            free(cache->path);
            cache->path = NULL;
        }
    }
    if (in_memory) opened = build_in_memory(cache, error);
    if (opened) return cache;
    cache_close(cache);
    return NULL;
}

void cache_close(Cache *cache)
{
    if (cache == NULL) return;
    cache_unmap(cache);
    for (int i = 0; i < LOCKS; i++) pthread_mutex_destroy(&cache->locks[i]);
    pthread_mutex_destroy(&cache->warning);
    free((void *)cache->verified);
    free(cache->path);
    free(cache->options.context);
    free(cache);
}

/* ---- use ---- */

const char *cache_problem(const Cache *cache, int index)
{
    const Entry *entry = &cache->entries[index];
    return entry->problem[0] == '\0' ? NULL : entry->problem;
}

static bool verify(Cache *cache, int index, Error *error)
{
    if (sample_hash(cache, index) == cache->entries[index].hash) return true;
    warn(cache, "a picture in the cache was damaged and is decoded again (%s)", cache->path);
    unlink(cache->path);
    return cache->options.decode(cache->options.context, index, sample_at(cache, index), error);
}

const uint8_t *cache_sample(Cache *cache, int index, Error *error)
{
    if (!atomic_load_explicit(&cache->verified[index], memory_order_acquire)) {
        pthread_mutex_t *lock = &cache->locks[index % LOCKS];
        pthread_mutex_lock(lock);
        bool good = atomic_load(&cache->verified[index]) || verify(cache, index, error);
        if (good) atomic_store_explicit(&cache->verified[index], true, memory_order_release);
        pthread_mutex_unlock(lock);
        if (!good) return NULL;
    }
    return sample_at(cache, index);
}
