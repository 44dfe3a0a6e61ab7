/* What this process may use: processors, memory, and which processor it is.
 *
 * The kernel's plain answers are those of the whole machine. In a container less is allowed: the
 * affinity mask and the cgroup's quota of processor time, the cgroup's memory limit at any level
 * above this process, and ulimit -v. Linux promises memory that it does not have, so what is
 * allocated must be compared with these numbers before it is touched. Both versions of cgroups are
 * read.
 */
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "run.h"

/* ---- small files of the kernel's ------------------------------------------------------------- */

/* The number behind `key` at the start of a line; false where there is none ("max"). */
static bool read_number(const char *path, const char *key, int64_t *value)
{
    FILE *in = fopen(path, "re");
    char line[512];
    bool found = false;
    while (in && !found && fgets(line, sizeof line, in)) {
        char *end;
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        *value = strtoll(line + strlen(key), &end, 10);
        found = end != line + strlen(key);
    }
    if (in)
        fclose(in);
    return found;
}

/* Where this process's cgroup of a controller lies: "/sys/fs/cgroup/memory/a/b". An empty name is
 * version 2's. */
static bool find_cgroup(const char *controller, char folder[PATH_MAX])
{
    FILE *in = fopen("/proc/self/cgroup", "re");
    char line[PATH_MAX];
    bool found = false;
    while (in && !found && fgets(line, sizeof line, in)) {
        line[strcspn(line, "\n")] = 0;
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        names++;
        *path++ = 0;
        size_t n = strlen(controller);
        for (char *name = names; name && !found;
             name = strchr(name, ',') ? strchr(name, ',') + 1 : NULL)
            found = strncmp(name, controller, n) == 0 && (name[n] == 0 || (n && name[n] == ','));
        if (found)
            snprintf(folder, PATH_MAX, "/sys/fs/cgroup%s%.64s%.3900s", *names ? "/" : "", names,
                     path);
    }
    if (in)
        fclose(in);
    return found;
}

/* Calls visit for a cgroup and those around it, up to the mount. A container may see its own group
 * as the mount: then only the last call finds files. */
static void visit_cgroups(const char *controller, int64_t (*visit)(const char *folder),
                          int64_t *least)
{
    char folder[PATH_MAX];
    if (!find_cgroup(controller, folder))
        return;
    size_t mount = strlen("/sys/fs/cgroup");
    if (*controller)
        mount += strcspn(folder + mount + 1, "/") + 1;
    for (;;) {
        int64_t value = visit(folder);
        *least = value < *least ? value : *least;
        char *slash = strrchr(folder + mount, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

static bool read_in(const char *folder, const char *name, const char *key, int64_t *value)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return read_number(path, key, value);
}

/* ---- processors ------------------------------------------------------------------------------ */

static int64_t whole_processors(int64_t quota, int64_t period)
{
    return quota > 0 && period > 0 ? (quota + period - 1) / period : INT64_MAX;
}

static int64_t quota_of(const char *folder)
{
    char path[PATH_MAX + 64];
    long long quota, period;
    int64_t result = INT64_MAX;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    FILE *in = fopen(path, "re");
    if (in && fscanf(in, "%lld %lld", &quota, &period) == 2)
        result = whole_processors(quota, period);
    if (in)
        fclose(in);
    return result;
}

static int64_t old_quota_of(const char *folder)
{
    int64_t quota, period;
    if (!read_in(folder, "cpu.cfs_quota_us", "", &quota)
        || !read_in(folder, "cpu.cfs_period_us", "", &period))
        return INT64_MAX;
    return whole_processors(quota, period);
}

int system_processors(void)
{
    int64_t count = 0;
    for (int most = 1024; most <= 1 << 20 && count == 0; most *= 2) {
        cpu_set_t *set = CPU_ALLOC(most);
        if (set && sched_getaffinity(0, CPU_ALLOC_SIZE(most), set) == 0)
            count = CPU_COUNT_S(CPU_ALLOC_SIZE(most), set);
        CPU_FREE(set);
    }
    if (count == 0)
        count = sysconf(_SC_NPROCESSORS_ONLN);
    visit_cgroups("", quota_of, &count);
    visit_cgroups("cpu", old_quota_of, &count);
    return count < 1 ? 1 : (int)count;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Pages of files count as used, but are given back when memory runs short. */
static int64_t left_of(int64_t limit, int64_t used, int64_t files)
{
    int64_t left = limit - used + files;
    return left < 0 ? 0 : left > limit ? limit : left;
}

static int64_t memory_of(const char *folder)
{
    int64_t limit, used, inactive = 0, active = 0;
    if (!read_in(folder, "memory.max", "", &limit) || !read_in(folder, "memory.current", "", &used))
        return INT64_MAX;
    read_in(folder, "memory.stat", "inactive_file ", &inactive);
    read_in(folder, "memory.stat", "active_file ", &active);
    return left_of(limit, used, inactive + active);
}

static int64_t old_memory_of(const char *folder)
{
    int64_t limit, used, inactive = 0, active = 0;
    if (!read_in(folder, "memory.limit_in_bytes", "", &limit)
        || !read_in(folder, "memory.usage_in_bytes", "", &used))
        return INT64_MAX;
    read_in(folder, "memory.stat", "total_inactive_file ", &inactive);
    read_in(folder, "memory.stat", "total_active_file ", &active);
    return left_of(limit, used, inactive + active);
}

int64_t system_memory(void)
{
    int64_t left = INT64_MAX, value;
    if (read_number("/proc/meminfo", "MemAvailable:", &value))
        left = value * 1024;
    visit_cgroups("", memory_of, &left);
    visit_cgroups("memory", old_memory_of, &left);
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
        && read_number("/proc/self/statm", "", &value)) {
        int64_t used = value * sysconf(_SC_PAGESIZE);
        int64_t room = (int64_t)limit.rlim_cur > used ? (int64_t)limit.rlim_cur - used : 0;
        left = room < left ? room : left;
    }
    return left;
}

/* ---- the processor --------------------------------------------------------------------------- */

void system_cpu(char *text, size_t size)
{
    static const char *const keys[] = { "vendor_id", "cpu family",      "model",
                                        "flags",     "CPU implementer", "CPU variant",
                                        "CPU part",  "Features",        "isa" };
    FILE *in = fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t capacity = 0, length = 0;
    text[0] = 0;
    while (in && getline(&line, &capacity, in) > 1) /* an empty line ends the first processor */
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            size_t n = strlen(keys[i]);
            if (strncmp(line, keys[i], n) == 0 && strchr(" \t:", line[n]) && length < size)
                length += (size_t)snprintf(text + length, size - length, "%s", line);
        }
    free(line);
    if (in)
        fclose(in);
}
