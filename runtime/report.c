/* `segrun report RUN`: one page of a training run. Its folder gives the recipe, the command lines,
 * the curves and the log; with a data set the network is scored, and its best and worst pictures
 * drawn; with a plan the kernels of a training step are timed.
 *
 * A section whose file is not there is left out; what is there and cannot be read is an error, and
 * no page is written. A plan is run, so its name is never taken from what a run's files say: it
 * is given, or lies under the model's name in the current folder, made from the run's own text.
 */
#include "report_page.h"

#include <string.h>
#include <unistd.h>

typedef struct {
    Options options;            /* as given, with the plan as operand and the weights found */
    char *operands[2];
    char plan_path[4096];       /* empty: none */
    RunFolder run;
    Page page;
} ReportCommand;

/* ---- what is run ----------------------------------------------------------------------------- */

static bool made_from(const char *path, const char *text)
{
    Error ignored = { 0 };
    Plan *plan = text && access(path, R_OK) == 0 ? plan_open(path, &ignored) : NULL;
    bool same = plan && strcmp(plan->text, text) == 0;
    if (plan)
        plan_close(plan);
    return same;
}

/* In the current folder only: who sent a run could have put a plan of his own into it. */
static bool find_plan(ReportCommand *command)
{
    char *path = command->plan_path;
    int length = snprintf(path, sizeof command->plan_path, "%s.plan", command->run.model);
    if (length < (int)sizeof command->plan_path && made_from(path, command->run.text))
        return true;
    *path = 0;
    return false;
}

static bool choose_plan(ReportCommand *command, Error *error)
{
    const Options *options = &command->options;
    const RunFolder *run = &command->run;
    if (options->plan) {
        if (snprintf(command->plan_path, sizeof command->plan_path, "%s", options->plan)
            >= (int)sizeof command->plan_path)
            return fail(error, EXIT_USER, "", "%.200s...: the name is too long", options->plan);
    } else if (options->data && !find_plan(command)) {
        return fail(error, EXIT_USER, "name the plan with --plan",
                    "to score the run its plan is needed: no %s.plan of its text in the "
                    "current folder", run->model);
    }
    command->operands[0] = command->plan_path;
    command->options.operands = command->operands;
    if (options->data && !options->weights && !run->has_best && !run->has_last)
        return fail(error, EXIT_USER, "name weights with -m",
                    "%s: no best and no last checkpoint to score", run->folder);
    if (!options->weights)
        command->options.weights = run->has_best ? run->files.best : run->files.last;
    return true;
}

/* ---- scores ---------------------------------------------------------------------------------- */

static bool score_splits(ReportCommand *command, Evaluation *evaluation, unsigned splits,
                         Error *error)
{
    FILE *out = command->page.out;
    int scored = 0;
    fputs("<h2 id=\"scores\">Scores</h2>\n<p>Of the weights ", out);
    put_html(out, command->options.weights);
    fputs(evaluation->tensors.classes > 1
              ? ". A are the pixels that are predicted as a class, B those that are it; "
              : ". A is the predicted pet, B the true one, p the probability, t the true mask (0 or "
                "1); ", out);
    fputs("everything at the model's size.</p>\n", out);
    for (Split split = 0; split < SPLIT_COUNT; split++) {
        if (!(splits & 1u << split) || dataset_count(evaluation->data, split) == 0)
            continue;
        scored++;
        if (!evaluation_score(evaluation, split, NULL, 0, error)
            || !put_scores(out, evaluation, (int)command->options.count, error))
            return false;
    }
    return scored || fail(error, EXIT_USER, "", "%s: no picture in the splits to score",
                          command->options.data);
}

static bool put_evaluation(ReportCommand *command, Error *error)
{
    const char *split = command->options.split;
    unsigned splits = strcmp(split, "both") == 0 ? 1u << SPLIT_VALID | 1u << SPLIT_TEST
                                                 : 1u << split_of(split);
    Evaluation evaluation = { 0 };
    bool fine = evaluation_open(&evaluation, &command->options, splits, error)
             && evaluation_build(&evaluation, error)
             && score_splits(command, &evaluation, splits, error);
    progress_clear(&evaluation.session.progress);
    evaluation_close(&evaluation);
    return fine;
}

/* ---- kernel times ---------------------------------------------------------------------------- */

static bool go_on(void *context, int done, int64_t wanted)
{
    if (wanted)
        progress_update(context, "timing", done, wanted, "timings", "");
    return !interrupted();
}

/* The run's; a recipe can say anything. */
static int batch_of_run(const RunFolder *run)
{
    json_int_t batch = json_integer_value(json_object_get(run->recipe, "batch"));
    return batch >= 1 && batch <= 65536 ? (int)batch : 2;
}

static bool put_bench(ReportCommand *command, Error *error)
{
    const Options *options = &command->options;
    int batch = batch_of_run(&command->run);
    Session session = { 0 };
    bool fine = session_open(&session, options, error)
             && session_device(&session, options->program, batch, error)
             && session_build(&session, error);
    Bench bench = {
        .device = session.device, .batch = batch, .runs = 5, .profile = true, .tick = go_on,
        .context = &session.progress,
    };
    fine = fine && bench_add(&bench, session.plan_path, session.plan, session.executor,
                             options->program, error)
        && bench_measure(&bench, error);
    progress_clear(&session.progress);
    fine = fine && put_times(command->page.out, &bench, error);
    bench_close(&bench);
    session_close(&session);
    return fine;
}

/* ---- the page -------------------------------------------------------------------------------- */

static bool put_sections(ReportCommand *command, Error *error)
{
    FILE *out = command->page.out;
    const RunFolder *run = &command->run;
    const Options *options = &command->options;
    bool timed = command->plan_path[0] && strcmp(options->program, "none") != 0;
    put_run(out, run);
    fprintf(out, "<nav>%s%s%s%s%s</nav>\n",
            run->n_rows ? "<a href=\"#curves\">Curves</a> " : "",
            options->data ? "<a href=\"#scores\">Scores</a> " : "",
            run->recipe ? "<a href=\"#recipe\">Recipe</a> " : "",
            timed ? "<a href=\"#kernels\">Kernel times</a> " : "",
            run->n_rows ? "<a href=\"#log\">Log</a>" : "");
    put_curves(out, run);
    if (options->data && !put_evaluation(command, error))
        return false;
    put_recipe(out, run);
    put_files(out, run);
    if (timed && !put_bench(command, error))
        return false;
    put_log(out, run);
    return true;
}

static bool write_report(ReportCommand *command, Error *error)
{
    char title[300];
    if (!run_folder_open(&command->run, command->options.operands[0], error)
        || !choose_plan(command, error))
        return false;
    snprintf(title, sizeof title, "%s: a training run", command->run.model);
    if (!page_open(&command->page, title, error))
        return false;
    bool fine = put_sections(command, error);
    return page_close(&command->page, command->options.output, fine, error);
}

int command_report(const Options *options)
{
    ReportCommand command = { .options = *options };
    Error error = { 0 };
    bool written = write_report(&command, &error);
    if (written && !options->quiet)
        printf("%s: curves, recipe, log%s%s\n", options->output,
               options->data ? ", scores, best and worst pictures" : "; --data FOLDER adds scores "
                               "and pictures",
               command.plan_path[0] && strcmp(options->program, "none") != 0 ? ", kernel times"
                                                                             : "");
    run_folder_close(&command.run);
    return written ? EXIT_FINE : report(&error);
}
