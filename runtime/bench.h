/* Timing programs of plans: what `segrun bench` and segbench (bench/segbench.c) have in common. It
 * needs the core of the runtime only, so that it builds where nothing else is installed.
 *
 *   bench_measure.c  warm-up; plans in turn (A B A B ...); the machine's ceiling before, between,
 *                    after; the times of each step
 *   bench_report.c   the same numbers as text and as JSON
 *   bench_trace.c    the profile's runs as a trace
 *
 * Inputs are random, weights the initial ones of a seed. Floating-point operations and bytes are
 * the plan's: what the steps need by definition (a multiply and its add count two, every operand
 * and result is moved once), whatever a kernel really does.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdio.h>

#include "run.h"

enum { BENCH_PLANS = 4, BENCH_CEILINGS = 64, BENCH_PROFILE_RUNS = 3 };

/* A plan that takes part. */
typedef struct {
    const char *path;
    const Plan *plan;
    const PlanProgram *program;
    Executor *executor;
    int64_t step;               /* of the optimiser */
    int inner;                  /* runs in one timing: short programs are timed several at once */
    double *times;              /* seconds a run, of each timing */
    double *step_times;         /* seconds of each of the program's steps; NULL: no profile */
    double *run_times;          /* the same of each of the profile's runs */
    double run_begins[BENCH_PROFILE_RUNS], run_seconds[BENCH_PROFILE_RUNS];
    double flops, bytes;        /* of a run; without the steps that it needs once only */
    double memory;              /* bytes on the device */
} BenchPlan;

typedef struct {
    /* the caller's */
    Device *device;
    int batch;
    uint64_t seed;
    int64_t runs;               /* timings; 0: about three seconds a plan, at least five */
    bool profile;
    /* After every timing, and every profiled run of all plans; false stops with EXIT_INTERRUPTED. May
     * be NULL. */
    bool (*tick)(void *context, int done, int64_t wanted);
    void *context;
    /* the results */
    int n_plans; BenchPlan plans[BENCH_PLANS];
    int n_times;                /* of each plan */
    int n_ceilings; DeviceCeiling ceilings[BENCH_CEILINGS]; /* the first before, the last after */
} Bench;

/* Takes a plan in and warms it up. The executor is the caller's, opened for the program and the
 * batch. */
bool bench_add(Bench *, const char *path, const Plan *, Executor *, const char *program, Error *);
bool bench_measure(Bench *, Error *);
/* The times of the steps in so many runs, the plans in turn; step_times is the least: what disturbs
 * a step makes it longer. bench_measure does it where it is to profile. */
bool bench_profile(Bench *, int runs, Error *);
void bench_close(Bench *);

/* Medians and quartiles. */
typedef struct { double least, low, median, high, most; } Spread;
Spread spread_of(const double *values, int n);
/* Times of plans[other] over those of plans[0], pair by pair. */
Spread bench_ratio(const Bench *, int other);
DeviceCeiling bench_ceiling(const Bench *);   /* the median of all; zeros: not known */
DeviceCeiling bench_best_ceiling(const Bench *);   /* for the best times, those of a profile */
/* Seconds in which a step of so many operations and bytes could be done; 0: not known. */
double ceiling_seconds(const DeviceCeiling *, double flops, double bytes);
/* Of one step, for a batch. */
/* Not only done where a recipe asks for it. */
bool step_is_usual(const PlanStep *);
double step_flops(const PlanStep *, int batch);
double step_bytes(const PlanStep *, int batch);

/* A row of a profile: a kernel with all its steps, or one step. */
typedef struct {
    const char *name, *label;   /* the kernel; what one of its steps does */
    int calls;
    double seconds, flops, bytes;
    double floor;               /* seconds by the ceiling, step by step */
} BenchRow;
/* Slowest first; or one a step, in their order. Steps that were not run are left out. Free with
 * free(); NULL: no memory. */
BenchRow *bench_rows(const Bench *, const BenchPlan *, bool steps, int *n);

/* ---- bench_report.c: at most 100 columns ----------------------------------------------------- */

void bench_print(const Bench *, FILE *);
/* A row a kernel of each plan, or with `steps` a row a step. */
bool bench_print_profile(const Bench *, bool steps, FILE *, Error *);
/* One line for tables of many measurements. */
void bench_print_line(const Bench *, FILE *);
/* "-": standard output. */
bool bench_write_json(const Bench *, const char *path, Error *);

/* ---- bench_trace.c --------------------------------------------------------------------------- */

/* Of the profile's runs: a process a plan, an event a run and, below it, one a step. */
bool bench_write_trace(const Bench *, const char *path, Error *);

#endif
