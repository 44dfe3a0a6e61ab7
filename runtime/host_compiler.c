/* The system's C compiler: finding it, the flags it takes, running it.
 *
 * $SEG_CC, else cc; a command in words, such as "gcc-13", "ccache gcc" or "gcc -march=haswell", started
 * without a shell. Where the words choose a processor, that is the one; else this one.
 * Which flags it accepts is tried out once with a tiny program and kept in the cache, by the
 * compiler's path, size and time and this processor's features: code for one is wrong for another.
 *
 * -ffp-contract=fast lets a multiply and an add become one instruction, as the kernels expect; the
 * other flags change no result. -Ofast is not used: kernels rely on infinities and NaN.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "device.h"

extern char **environ;

/* ---- running --------------------------------------------------------------------------------- */

static int spawn(char *const *words, const char *log, pid_t *child)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, standard;
    sigemptyset(&none);
    sigemptyset(&standard);
    sigaddset(&standard, SIGPIPE);
    sigaddset(&standard, SIGXFSZ);
    posix_spawnattr_init(&how);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setsigdefault(&how, &standard);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    int reason = posix_spawn(child, words[0], &files, &how, words, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&how);
    return reason;
}

/* The line of a compiler's output that says what is wrong, else its first. */
static void quote_log(const char *log, char *text, size_t size)
{
    size_t length;
    char *output = file_read(log, &length, NULL);
    static const char *const signs[] = { "undefined reference", "error:", "rror" };
    const char *line = NULL;
    for (int i = 0; output && !line && i < 3; i++)
        line = strstr(output, signs[i]);
    while (line && line > output && line[-1] != '\n')
        line--;
    if (!line)
        line = output ? output + strspn(output, "\n") : "";
    snprintf(text, size, "%.*s", (int)strcspn(line, "\n"), *line ? line : "it says nothing");
    free(output);
}

static bool run_failed(const HostCompiler *compiler, int status, const char *log, const char *what,
                       Error *error)
{
    char line[600], hint[500];
    int signal_number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (signal_number == SIGINT || signal_number == SIGTERM || signal_number == SIGHUP) {
        unlink(log);
        return fail(error, EXIT_INTERRUPTED, "", "interrupted while kernels were built");
    }
    if (signal_number) {
        unlink(log);
        return fail(error, EXIT_ENVIRONMENT,
                    "there may be too little memory: close other programs, or "
                    "build with fewer threads",
                    "%s: the C compiler %s was killed by signal %d", what, compiler->command[0],
                    signal_number);
    }
    quote_log(log, line, sizeof line);
    snprintf(hint, sizeof hint, "its whole output is in %.400s, the source beside it", log);
    return fail(error, EXIT_ENVIRONMENT, hint, "%s: the C compiler %s failed: %s", what,
                compiler->command[0], line);
}

bool compiler_run(const HostCompiler *compiler, char *const *arguments, int n_arguments,
                  const char *log, const char *what, Error *error)
{
    char **words = calloc((size_t)(compiler->n_command + n_arguments + 1), sizeof *words);
    if (!words)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", what);
    memcpy(words, compiler->command, (size_t)compiler->n_command * sizeof *words);
    memcpy(words + compiler->n_command, arguments, (size_t)n_arguments * sizeof *words);
    pid_t child;
    int reason = spawn(words, log, &child), status = 0;
    free(words);
    if (reason)
        return fail(error, EXIT_ENVIRONMENT,
                    "install a C compiler (Debian: apt install gcc), or set "
                    "SEG_CC to one",
                    "%s: cannot start the C compiler %s: %s", what, compiler->command[0],
                    strerror(reason));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return fail(error, EXIT_ENVIRONMENT, "", "%s: lost the C compiler: %s", what,
                        strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return run_failed(compiler, status, log, what, error);
    return true;
}

/* Runs it to make `result`, by way of a temporary file; the seal is the proof that it is whole. */
static bool make_file(const HostCompiler *compiler, char **arguments, int n, const char *result,
                      const char *what, Error *error)
{
    char temporary[PATH_MAX], log[PATH_MAX + 8];
    cache_temporary(result, temporary);
    snprintf(log, sizeof log, "%s.log", result);
    arguments[n++] = (char *)"-o";
    arguments[n++] = temporary;
    bool done = compiler_run(compiler, arguments, n, log, what, error);
    if (!done) {
        unlink(temporary);
        return false;
    }
    unlink(log);
    return cache_seal(temporary, result, error);
}

static int put_flags(const HostCompiler *compiler, char **arguments)
{
    for (int i = 0; i < compiler->n_flags; i++)
        arguments[i] = (char *)compiler->flags[i];
    return compiler->n_flags;
}

bool compiler_compile(const HostCompiler *compiler, const char *source, const char *object,
                      const char *what, Error *error)
{
    char *arguments[MAX_FLAGS + 8];
    int n = put_flags(compiler, arguments);
    arguments[n++] = (char *)"-c";
    arguments[n++] = (char *)source;
    return make_file(compiler, arguments, n, object, what, error);
}

bool compiler_link(const HostCompiler *compiler, char *const *objects, int n_objects,
                   const char *library, Error *error)
{
    char **arguments = calloc((size_t)n_objects + MAX_FLAGS + 8, sizeof *arguments);
    if (!arguments)
        return fail(error, EXIT_ENVIRONMENT, "", "linking kernels: not enough memory");
    int n = put_flags(compiler, arguments);
    arguments[n++] = (char *)"-shared";
    arguments[n++] = (char *)"-Wl,--no-undefined";
    for (int i = 0; i < n_objects; i++)
        arguments[n++] = objects[i];
    arguments[n++] = (char *)"-lm";
    bool done = make_file(compiler, arguments, n, library, "linking kernels", error);
    free(arguments);
    return done;
}

/* ---- finding --------------------------------------------------------------------------------- */

static bool is_program(const char *path)
{
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISREG(facts.st_mode) && access(path, X_OK) == 0;
}

/* The path of a program that is named as a shell would. */
static bool find_program(const char *name, char path[4096])
{
    if (strchr(name, '/'))
        return snprintf(path, 4096, "%s", name) < 4096 && is_program(path);
    const char *folders = getenv("PATH");
    for (const char *at = folders ? folders : "/usr/local/bin:/usr/bin:/bin"; ; ) {
        int n = (int)strcspn(at, ":");
        if (n > 0 && snprintf(path, 4096, "%.*s/%s", n, at, name) < 4096 && is_program(path))
            return true;
        if (at[n] == 0)
            return false;
        at += n + 1;
    }
}

static bool find_compiler(HostCompiler *compiler, Error *error)
{
    const char *given = getenv("SEG_CC");
    bool is_given = given && given[strspn(given, " ")];
    snprintf(compiler->words, sizeof compiler->words, "%s", is_given ? given : "cc");
    char *rest;
    for (char *word = strtok_r(compiler->words, " ", &rest); word;
         word = strtok_r(NULL, " ", &rest)) {
        if (compiler->n_command == sizeof compiler->command / sizeof *compiler->command)
            return fail(error, EXIT_ENVIRONMENT, "set SEG_CC to a shorter command",
                        "SEG_CC has too many words");
        compiler->command[compiler->n_command++] = word;
    }
    if (!find_program(compiler->command[0], compiler->program))
        return fail(error, EXIT_ENVIRONMENT, is_given ? "set SEG_CC to a C compiler: gcc or clang"
                    : "install a C compiler (Debian: apt install gcc), or set SEG_CC to one",
                    "no C compiler: %s%s is not there; the cpu device builds its kernels with one",
                    is_given ? "SEG_CC=" : "", compiler->command[0]);
    compiler->command[0] = compiler->program;
    return true;
}

/* ---- flags ----------------------------------------------------------------------------------- */

/* From the best set of flags to the plainest; the last has no OpenMP and is only for the message.
 */
enum { WITH_WIDTH, WITH_MACHINE, WITH_OPENMP, WITH_NOTHING, ATTEMPTS };

static void set_flags(HostCompiler *compiler, int attempt, const char *cpu)
{
    static const char *const always[] = { "-std=gnu17", "-O3", "-w", "-ffp-contract=fast",
                                          "-fno-math-errno", "-fno-trapping-math", "-fPIC" };
    compiler->n_flags = 0;
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        compiler->flags[compiler->n_flags++] = always[i];
    if (attempt <= WITH_OPENMP)
        compiler->flags[compiler->n_flags++] = "-fopenmp";
    for (int i = 1; i < compiler->n_command; i++)
        if (strncmp(compiler->command[i], "-march=", 7) == 0
            || strncmp(compiler->command[i], "-mcpu=", 6) == 0)
            compiler->machine = compiler->command[i];
    if (compiler->machine)
        return;
#if defined(__x86_64__) || defined(__i386__)
    if (attempt <= WITH_MACHINE)
        compiler->flags[compiler->n_flags++] = "-march=native";
    if (attempt <= WITH_WIDTH)
        compiler->flags[compiler->n_flags++] =
            strstr(cpu, " avx512f") ? "-mprefer-vector-width=512" : "-mprefer-vector-width=256";
#else
    (void)cpu;
    if (attempt <= WITH_MACHINE)
        compiler->flags[compiler->n_flags++] = "-mcpu=native";
#endif
}

/* "gcc 12.2.0" from the first line of --version. */
static void read_version(HostCompiler *compiler, const char *log)
{
    size_t size;
    char *arguments[] = { (char *)"--version" };
    snprintf(compiler->version, sizeof compiler->version, "unknown");
    char *text = compiler_run(compiler, arguments, 1, log, "--version", NULL)
               ? file_read(log, &size, NULL) : NULL;
    if (!text)
        return;
    const char *clang = strstr(text, "clang version ");
    bool gcc = strstr(text, "Free Software Foundation") != NULL;
    char *line = text;
    line[strcspn(line, "\n")] = 0;
    char *last = strrchr(line, ' ');
    if (clang && clang < line + strlen(line))
        snprintf(compiler->version, sizeof compiler->version, "clang %.*s",
                 (int)strcspn(clang + 14, " \n"), clang + 14);
    else if (gcc && last)
        snprintf(compiler->version, sizeof compiler->version, "gcc %s", last + 1);
    else
        snprintf(compiler->version, sizeof compiler->version, "%s", line);
    free(text);
}

/* Builds a tiny program with one set of flags after the other, until one works. */
static bool try_flags(HostCompiler *compiler, const char *stem, const char *cpu, int *attempt,
                      Error *error)
{
    static const char program[] = "#include <math.h>\n#ifdef _OPENMP\n#include <omp.h>\n#else\n"
        "static int omp_get_max_threads(void) { return 1; }\n#endif\n"
        "double probe(double x) { return sin(x) * omp_get_max_threads(); }\n";
    char source[PATH_MAX + 8], library[PATH_MAX + 8];
    snprintf(source, sizeof source, "%s.c", stem);
    snprintf(library, sizeof library, "%s.so", stem);
    if (!file_write(source, program, sizeof program - 1, error)) {
        snprintf(error->hint, sizeof error->hint,
                 "make room there, or set SEG_CACHE to another folder");
        return false;
    }
    bool works = false;
    for (*attempt = 0; *attempt < ATTEMPTS; ++*attempt) {
        char *objects[] = { source };
        set_flags(compiler, *attempt, cpu);
        works = compiler_link(compiler, objects, 1, library, error);
        if (works || error->code == EXIT_INTERRUPTED)
            break;
    }
    unlink(source);
    unlink(library);
    if (works && *attempt == WITH_NOTHING)
        return fail(error, EXIT_ENVIRONMENT, "install its OpenMP library (Debian: apt install "
                    "libomp-dev for clang, gcc for gcc), or set SEG_CC to another compiler",
                    "the C compiler %s builds nothing with -fopenmp", compiler->program);
    return works;
}

/* Which compiler on which processor. */
static bool identify(const HostCompiler *compiler, const char *cpu, uint64_t *hash, Error *error)
{
    char real[PATH_MAX], facts[3 * PATH_MAX];
    struct stat file;
    if (!realpath(compiler->program, real) || stat(real, &file) != 0)
        return fail(error, EXIT_ENVIRONMENT, "set SEG_CC to a C compiler", "cannot open %s: %s",
                    compiler->program, strerror(errno));
    int length = snprintf(facts, sizeof facts, "%s %lld %lld.%ld", real, (long long)file.st_size,
                          (long long)file.st_mtim.tv_sec, file.st_mtim.tv_nsec);
    for (int i = 1; i < compiler->n_command; i++)
        length +=
            snprintf(facts + length, sizeof facts - (size_t)length, " %s", compiler->command[i]);
    *hash = XXH64(facts, (size_t)length, XXH64(cpu, strlen(cpu), 0));
    return true;
}

/* What an earlier run found out; false where there was none. */
static bool recall(HostCompiler *compiler, const char *path, int *attempt)
{
    size_t size;
    char *text = cache_has(path) ? file_read(path, &size, NULL) : NULL;
    bool known = text && sscanf(text, "%d %95[^\n]", attempt, compiler->version) == 2
              && *attempt >= 0 && *attempt <= WITH_OPENMP;
    free(text);
    return known;
}

static bool find_out(HostCompiler *compiler, const KernelCache *cache, const char *cpu,
                     const char *path, int *attempt, Error *error)
{
    char name[64], stem[PATH_MAX], log[PATH_MAX + 8], text[128];
    snprintf(name, sizeof name, "tmp-probe-%ld", (long)getpid());
    cache_path(cache, name, stem);
    snprintf(log, sizeof log, "%s.log", stem);
    read_version(compiler, log);
    unlink(log);
    if (!try_flags(compiler, stem, cpu, attempt, error))
        return false;
    if (strcmp(compiler->version, "unknown") == 0) /* interrupted, perhaps: ask again next time */
        return true;
    int length = snprintf(text, sizeof text, "%d %s\n", *attempt, compiler->version);
    return file_write(stem, text, (size_t)length, error) && cache_seal(stem, path, error);
}

bool compiler_open(HostCompiler *compiler, const KernelCache *cache, Error *error)
{
    char cpu[16384], name[64], path[PATH_MAX];
    uint64_t hash = 0;
    int attempt;
    *compiler = (HostCompiler){ 0 };
    system_cpu(cpu, sizeof cpu);
    if (!find_compiler(compiler, error) || !identify(compiler, cpu, &hash, error))
        return false;
    snprintf(name, sizeof name, "compiler-%016llx.txt", (unsigned long long)hash);
    cache_path(cache, name, path);
    if (!recall(compiler, path, &attempt) && !find_out(compiler, cache, cpu, path, &attempt, error))
        return false;
    set_flags(compiler, attempt, cpu);
    uint64_t flags = hash;
    for (int i = 0; i < compiler->n_flags; i++)
        flags = XXH64(compiler->flags[i], strlen(compiler->flags[i]), flags);
    snprintf(compiler->key, sizeof compiler->key, "%016llx%016llx", (unsigned long long)hash,
             (unsigned long long)flags);
    return true;
}
