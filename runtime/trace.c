/* Writing traces: see trace.h. The format: "Trace Event Format", Google 2016. Times are in
 * microseconds; an event is complete ("X") or gives a track its name ("M").
 */
#include "trace.h"

#include <math.h>
#include <stdlib.h>

#include "plan_graph.h"

enum { MAX_EVENTS = 200000 };

struct Trace {
    FILE *out;
    char *text;
    size_t size;
    double origin;
    int64_t events;             /* those left out as well */
    bool open;                  /* the last event's arguments can go on */
    bool arguments;             /* it has some */
};

void put_json_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < ' ' || *c == '"' || *c == '\\')
            fprintf(out, "\\u%04x", *c);
        else
            fputc(*c, out);
    fputc('"', out);
}

Trace *trace_open(double origin, Error *error)
{
    Trace *trace = calloc(1, sizeof *trace);
    if (trace)
        trace->out = open_memstream(&trace->text, &trace->size);
    if (!trace || !trace->out) {
        free(trace);
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory for a trace");
        return NULL;
    }
    trace->origin = origin;
    fputs("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [", trace->out);
    return trace;
}

/* ---- events ---------------------------------------------------------------------------------- */

static void end_event(Trace *trace)
{
    if (trace->open)
        fputs(trace->arguments ? "}}" : "}", trace->out);
    trace->open = false;
}

/* False where no more are kept. */
static bool begin_event(Trace *trace)
{
    end_event(trace);
    if (trace->events++ >= MAX_EVENTS)
        return false;
    fputs(trace->events > 1 ? ",\n{" : "\n{", trace->out);
    trace->open = true;
    trace->arguments = false;
    return true;
}

static void put_name(Trace *trace, int process, int track, const char *kind, const char *name)
{
    if (!begin_event(trace))
        return;
    fprintf(trace->out, "\"ph\": \"M\", \"pid\": %d, \"tid\": %d, \"name\": \"%s\"", process,
            track, kind);
    trace_text(trace, "name", name);
}

void trace_track(Trace *trace, int process, const char *process_name, int track, const char *name)
{
    put_name(trace, process, track, "process_name", process_name);
    put_name(trace, process, track, "thread_name", name);
}

void trace_event(Trace *trace, int process, int track, const char *name, double begin,
                 double seconds)
{
    if (!begin_event(trace))
        return;
    fprintf(trace->out, "\"ph\": \"X\", \"pid\": %d, \"tid\": %d, \"ts\": %.3f, \"dur\": %.3f, ",
            process, track, 1e6 * (begin - trace->origin), 1e6 * seconds);
    fputs("\"name\": ", trace->out);
    put_json_text(trace->out, name);
}

static void put_key(Trace *trace, const char *key)
{
    fputs(trace->arguments ? ", " : ", \"args\": {", trace->out);
    put_json_text(trace->out, key);
    fputs(": ", trace->out);
    trace->arguments = true;
}

void trace_number(Trace *trace, const char *key, double value)
{
    if (!trace->open || !isfinite(value))
        return;
    put_key(trace, key);
    fprintf(trace->out, "%.6g", value);
}

void trace_text(Trace *trace, const char *key, const char *text)
{
    if (!trace->open)
        return;
    put_key(trace, key);
    put_json_text(trace->out, text);
}

/* ---- a run of a program ---------------------------------------------------------------------- */

static void put_step(Trace *trace, const TracedRun *run, const PlanStep *step, double seconds)
{
    double flops = step->flops + step->flops_per_sample * run->batch;
    double bytes = step->bytes + step->bytes_per_sample * run->batch;
    char *lines = group_lines(run->program, step->group);
    trace_text(trace, "kernel", run->target->kernels[step->kernel].name);
    trace_number(trace, "FLOP", flops);
    trace_number(trace, "bytes", bytes);
    trace_number(trace, "GFLOP/s", 1e-9 * flops / seconds);
    trace_number(trace, "GB/s", 1e-9 * bytes / seconds);
    if (lines && *lines)
        trace_text(trace, "graph", lines);
    free(lines);
}

void trace_run(Trace *trace, int process, int track, const TracedRun *run)
{
    double at = run->begin;
    for (int i = 0; i < run->program->n_steps; i++) {
        const PlanStep *step = &run->program->steps[i];
        if (run->times[i] <= 0)
            continue;
        const char *kernel = run->target->kernels[step->kernel].name;
        trace_event(trace, process, track, *step->label ? step->label : kernel, at, run->times[i]);
        if (trace->open)
            put_step(trace, run, step, run->times[i]);
        at += run->times[i];
    }
}

/* ---- the file -------------------------------------------------------------------------------- */

bool trace_close(Trace *trace, const char *path, Error *error)
{
    if (!trace)
        return true;
    int64_t left_out = trace->events > MAX_EVENTS ? trace->events - MAX_EVENTS : 0;
    end_event(trace);
    fprintf(trace->out, "\n], \"otherData\": {\"left_out\": %lld}}\n", (long long)left_out);
    bool written = fclose(trace->out) == 0;
    if (!written)
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory for a trace");
    else if (path)
        written = file_write(path, trace->text, trace->size, error);
    free(trace->text);
    free(trace);
    return written;
}
