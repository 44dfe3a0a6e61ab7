/* The runs of a profile as a trace: see bench.h and trace.h. On the host a step has all threads, on
 * a GPU all of it: a track for the steps shows all there is.
 */
#include <string.h>

#include "bench.h"
#include "trace.h"

static void put_plan(Trace *trace, const Bench *bench, int number)
{
    const BenchPlan *plan = &bench->plans[number];
    const PlanTarget *target = plan_target(plan->plan, device_target(bench->device));
    char name[64];
    trace_track(trace, number + 1, plan->path, 1, device_describe(bench->device));
    for (int k = 0; k < BENCH_PROFILE_RUNS; k++) {
        double begin = plan->run_begins[k];
        const double *times = plan->run_times + (size_t)k * (size_t)plan->program->n_steps;
        snprintf(name, sizeof name, "%.30s, batch %d, run %d", plan->program->name, bench->batch,
                 k + 1);
        trace_event(trace, number + 1, 1, name, begin, plan->run_seconds[k]);
        trace_number(trace, "FLOP", plan->flops);
        trace_number(trace, "bytes", plan->bytes);
        trace_run(trace, number + 1, 1, &(TracedRun){ target, plan->program, bench->batch, times,
                                                      begin });
    }
}

bool bench_write_trace(const Bench *bench, const char *path, Error *error)
{
    Trace *trace = trace_open(bench->plans[0].run_begins[0], error);
    for (int i = 0; trace && i < bench->n_plans; i++)
        put_plan(trace, bench, i);
    return trace && trace_close(trace, path, error);
}
