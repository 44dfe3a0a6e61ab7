/* `segrun tune`, on the cpu in tune_ways.c; on a GPU: times the ways that the steps of a plan can run, for a batch, and keeps
 * the fastest in the cache, where every later run finds them. A first run does the same for its own
 * program and batch; this is for doing it beforehand, and for batches that would otherwise take what
 * was the fastest for another one.
 */
#include "commands.h"

#include <string.h>

#include "bench.h"

static bool tune_program(Session *session, const char *program, Error *error)
{
    const Options *options = session->options;
    Bench bench = { .device = session->device, .batch = (int)options->batch,
                    .seed = options->seed };
    progress_start(&session->progress, 0);
    /* random inputs, the initial weights, and some runs: clocks rise under load */
    bool done = bench_add(&bench, session->plan_path, session->plan, session->executor, program,
                          error)
             && executor_tune(session->executor, program, bench.batch, error);
    bench_close(&bench);
    progress_clear(&session->progress);
    if (done && !options->quiet)
        printf("%-9s batch %d is tuned\n", program, (int)options->batch);
    return done;
}

static bool tune(Session *session, const Options *options, Error *error)
{
    static const char *const all[] = { "train", "evaluate", "predict" };
    bool every = strcmp(options->program, "all") == 0;
    if (!session_open(session, options, error)
        || !session_device(session, every ? NULL : options->program, (int)options->batch, error))
        return false;
    if (strncmp(device_target(session->device), "host", 4) == 0)
        return session_build(session, error) && tune_ways(session, error);
    if (options->n_operands > 1 || options->output)
        return fail(error, EXIT_USAGE, "segrun tune PLAN -d cuda; the cache keeps what is found",
                    "on a GPU one plan has all the ways, and no file is written");
    if (!session_build(session, error))
        return false;
    for (int i = 0; i < 3; i++)
        if ((every ? plan_program(session->target, all[i]) != NULL
                   : strcmp(options->program, all[i]) == 0)
            && !tune_program(session, all[i], error))
            return false;
    return true;
}

int command_tune(const Options *options)
{
    Session session = { 0 };
    Error error = { 0 };
    bool done = tune(&session, options, &error);
    progress_clear(&session.progress);
    int code = done ? EXIT_FINE : report(&error);
    session_close(&session);
    return code;
}
