/* What the two stand-ins for CUDA's libraries share: settings, the log, failures on demand.
 *
 * Settings are environment variables, read at every call:
 *   STUB_LOG=FILE          gets a line for every call
 *   STUB_FAIL=CALL:N:CODE  the Nth call of CALL (from 1, since STUB_FAIL was set) returns CODE
 * and the numbers in stub_cuda.c and stub_nvrtc.c.
 */
#ifndef STUB_H
#define STUB_H

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t stub_lock = PTHREAD_MUTEX_INITIALIZER;

static inline long long stub_number(const char *name, long long standard)
{
    const char *text = getenv(name);
    return text && *text ? atoll(text) : standard;
}

/* A line, written at once. */
static inline void __attribute__((format(printf, 1, 2))) stub_log(const char *format, ...)
{
    const char *path = getenv("STUB_LOG");
    if (!path || !*path)
        return;
    char line[2048];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length++] = '\n';
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0)
        return;
    if (write(file, line, (size_t)length) != length)
        abort();
    close(file);
}

/* The code that this call shall fail with; 0: none. */
static inline int stub_failure(const char *call)
{
    static char seen[128];
    static int calls;
    const char *wanted = getenv("STUB_FAIL");
    size_t length = strlen(call);
    int code = 0, number, after;
    pthread_mutex_lock(&stub_lock);
    if (!wanted || strcmp(seen, wanted) != 0) {
        snprintf(seen, sizeof seen, "%s", wanted ? wanted : "");
        calls = 0;
    }
    if (wanted && strncmp(wanted, call, length) == 0 && wanted[length] == ':'
        && sscanf(wanted + length, ":%d:%d", &number, &after) == 2 && ++calls == number)
        code = after;
    pthread_mutex_unlock(&stub_lock);
    return code;
}

#endif
