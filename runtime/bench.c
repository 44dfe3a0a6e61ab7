/* `segrun bench`: how long a program takes, beside this machine's ceiling and beside another plan.
 *
 * The measuring is in bench_measure.c, what is printed in bench_report.c, the loader in
 * bench_data.c. Here are the options and what they open. A plan to compare with runs on the same
 * device, in turn with the first.
 */
#include "commands.h"

#include <string.h>

#include "bench.h"
#include "bench_page.h"
#include "bench_pictures.h"

typedef struct {
    const Options *options;
    Options other_options;      /* the same for the other plan */
    char *other_operands[2];
    Session session, other;     /* the other uses the first one's device */
    Bench bench;
} BenchCommand;

static bool show_timed(void *context, int done, int64_t wanted)
{
    if (wanted)
        progress_update(context, "timing", done, wanted, "timings", "");
    return !interrupted();
}

static bool add_plan(BenchCommand *command, const Session *session, Error *error)
{
    return bench_add(&command->bench, session->plan_path, session->plan, session->executor,
                     command->options->program, error);
}

static bool open_first(BenchCommand *command, Error *error)
{
    const Options *options = command->options;
    Session *session = &command->session;
    if (!session_open(session, options, error)
        || !session_device(session, options->program, (int)options->batch, error)
        || !session_build(session, error))
        return false;
    command->bench = (Bench){
        .device = session->device, .batch = (int)options->batch, .seed = options->seed,
        .runs = options->runs, .profile = options->profile || options->steps || options->trace || options->plot
                || options->report,
        .tick = show_timed, .context = &session->progress,
    };
    return add_plan(command, session, error);
}

/* Opened when the first has run, so that the memory it takes is seen to be taken. */
static bool open_other(BenchCommand *command, Error *error)
{
    Session *other = &command->other;
    command->other_options = *command->options;
    command->other_operands[0] = (char *)command->options->compare;
    command->other_options.operands = command->other_operands;
    if (!session_open(other, &command->other_options, error))
        return false;
    other->device = command->session.device;
    other->programs = command->session.programs;
    other->max_batch = command->session.max_batch;
    return executor_check(other->plan, other->device, other->programs, other->max_batch, error)
        && session_build(other, error) && add_plan(command, other, error);
}

static bool bench_plans(BenchCommand *command, Error *error)
{
    const Options *options = command->options;
    Bench *bench = &command->bench;
    if (!open_first(command, error) || (options->compare && !open_other(command, error)))
        return false;
    progress_start(&command->session.progress, 0);
    bool measured = bench_measure(bench, error);
    progress_clear(&command->session.progress);
    if (!measured || (options->json && !bench_write_json(bench, options->json, error))
        || (options->trace && !bench_write_trace(bench, options->trace, error))
        || (options->plot && !bench_plot(bench, options->plot, error))
        || (options->report && !bench_write_page(bench, options->report, error)))
        return false;
    if (options->json && strcmp(options->json, "-") == 0)
        return true;
    printf("%s\n", device_describe(bench->device));
    bench_print(bench, stdout);
    bool tables = options->profile || options->steps;
    return !tables || bench_print_profile(bench, options->steps, stdout, error);
}

int command_bench(const Options *options)
{
    BenchCommand command = { .options = options };
    Error error = { 0 };
    bool done = strcmp(options->program, "data") == 0
              ? bench_data(&command.session, options, &error)
              : bench_plans(&command, &error);
    progress_clear(&command.session.progress);
    int code = done ? EXIT_FINE : report(&error);
    bench_close(&command.bench);
    command.other.device = NULL;
    session_close(&command.other);
    session_close(&command.session);
    return code;
}
