/* What the user sees while something long runs.
 *
 * On a terminal: one line, redrawn at most ten times a second in a single write (carriage return,
 * text, erase to the end of the line), cut to the terminal's width, so that nothing flickers or
 * wraps. Elsewhere (a pipe, a file): plain lines, after 30, 60, 120, ... seconds of a task, so that
 * a log stays short. Everything goes to the stream it was opened with; results go to standard
 * output.
 */
#include "commands.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LINE = 400, LOG_SECONDS = 30 };

double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void format_duration(double seconds, char text[16])
{
    if (!(seconds >= 0) || seconds > 3.6e8) {
        snprintf(text, 16, "--:--");
        return;
    }
    unsigned whole = (unsigned)lround(seconds);
    if (whole >= 3600)
        snprintf(text, 16, "%u:%02u:%02u", whole / 3600, whole / 60 % 60, whole % 60);
    else
        snprintf(text, 16, "%u:%02u", whole / 60, whole % 60);
}

void format_bytes(double bytes, char text[16])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    int unit = 0;
    while (bytes >= 1024 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, 16, unit && bytes < 100 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

void format_count(int64_t count, char text[32])
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)count), k = 0;
    for (int i = 0; i < n && k < 31; i++) {
        text[k++] = digits[i];
        if ((n - 1 - i) % 3 == 0 && i + 1 < n && digits[i] != '-')
            text[k++] = ',';
    }
    text[k] = 0;
}

void progress_open(Progress *progress, FILE *out, bool quiet)
{
    const char *term = getenv("TERM");
    *progress = (Progress){ .out = out, .quiet = quiet };
    progress->terminal = isatty(fileno(out)) && !(term && strcmp(term, "dumb") == 0);
    progress_start(progress, 0);
}

void progress_start(Progress *progress, int64_t already_done)
{
    progress->start = now_seconds();
    progress->last = progress->terminal ? 0 : progress->start;
    progress->first = progress->done = already_done;
}

static int terminal_width(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col < MAX_LINE / 2 ? size.ws_col : MAX_LINE / 2;
    return 80;
}

static void draw_bar(Progress *progress, const char *head, const char *tail, double part)
{
    int width = terminal_width(progress->out) - 3; /* room for the ^C that a terminal echoes */
    int bar = width - (int)strlen(head) - (int)strlen(tail) - 4;
    char line[2 * MAX_LINE], cells[64] = "";
    if (bar > 30)
        bar = 30;
    if (bar >= 6) {
        int full = (int)(part * bar);
        for (int i = 0; i < bar; i++)
            cells[i + 1] = i < full ? '=' : i == full ? '>' : ' ';
        cells[0] = '[';
        cells[bar + 1] = ']';
        cells[bar + 2] = ' ';
    }
    snprintf(line, sizeof line, "%s %s%s", head, cells, tail);
    if (width < (int)strlen(line) && width > 0)
        line[width] = 0;
    fprintf(progress->out, "\r%s\033[K", line);
    fflush(progress->out);
    progress->drawn = true;
}

void progress_update(Progress *progress, const char *title, int64_t done, int64_t total,
                     const char *unit, const char *detail)
{
    double now = now_seconds(), so_far = progress->last - progress->start;
    double gap = progress->terminal ? 0.1 : so_far > LOG_SECONDS ? so_far : LOG_SECONDS;
    bool last = progress->terminal && done >= total;
    progress->done = done;
    if (progress->quiet || total <= 0 || (now - progress->last < gap && !last))
        return;
    progress->last = now;
    double elapsed = now - progress->start, since = (double)(done - progress->first);
    double rate = elapsed > 0 ? since / elapsed : 0;
    char left[16], head[MAX_LINE / 2], tail[MAX_LINE / 2];
    format_duration(rate > 0 ? (double)(total - done) / rate : -1, left);
    snprintf(head, sizeof head, "%s %lld/%lld", title, (long long)done, (long long)total);
    snprintf(tail, sizeof tail, "%.*f %s/s%s%s  %s left", rate < 10 ? 1 : 0, rate, unit,
             *detail ? "  " : "", detail, left);
    if (progress->terminal)
        draw_bar(progress, head, tail, (double)done / (double)total);
    else
        fprintf(progress->out, "%s  %s\n", head, tail);
}

void progress_clear(Progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", progress->out);
    progress->drawn = false;
    fflush(progress->out);
}

void progress_say(Progress *progress, const char *format, ...)
{
    if (progress->quiet)
        return;
    va_list arguments;
    progress_clear(progress);
    va_start(arguments, format);
    vfprintf(progress->out, format, arguments);
    va_end(arguments);
    fputc('\n', progress->out);
    fflush(progress->out);
}

void progress_finish(Progress *progress, const char *verb, int64_t count, const char *unit)
{
    char duration[16], digits[32];
    double seconds = now_seconds() - progress->start;
    progress_clear(progress);
    if (progress->done == progress->first || seconds < 1)
        return;
    format_duration(seconds, duration);
    format_count(count, digits);
    progress_say(progress, "%s %s %s in %s", verb, digits, unit, duration);
}
