/* A trace of what happened when, in Chrome's trace event format, which Perfetto (ui.perfetto.dev)
 * and chrome://tracing open: tracks of events, each with a name, a begin, a duration and arguments.
 * Events that lie within others of their track are drawn below them. Times are in seconds, on one
 * clock. Everything is kept in memory until the trace is closed; what comes after the first
 * 200,000 events is only counted.
 */
#ifndef TRACE_H
#define TRACE_H

#include <stdio.h>

#include "run.h"

typedef struct Trace Trace;
/* origin: the time that the trace calls 0. NULL: no memory. */
Trace *trace_open(double origin, Error *);
/* What a track is called, and the process that it belongs to. */
void trace_track(Trace *, int process, const char *process_name, int track, const char *name);
/* Arguments of an event follow it. A number that is not finite is left out. */
void trace_event(Trace *, int process, int track, const char *name, double begin, double seconds);
void trace_number(Trace *, const char *key, double value);
void trace_text(Trace *, const char *key, const char *text);
/* One run of a program, an event a step, with what it needs: operations and bytes are the plan's.
 * times: seconds of each step, 0: it was not run. */
typedef struct {
    const PlanTarget *target;
    const PlanProgram *program;
    int batch;
    const double *times;
    double begin;
} TracedRun;
void trace_run(Trace *, int process, int track, const TracedRun *);
/* Writes the file, atomically, and frees the trace. path NULL: only frees it. */
bool trace_close(Trace *, const char *path, Error *);

/* With its quotation marks. */
void put_json_text(FILE *, const char *text);

#endif
