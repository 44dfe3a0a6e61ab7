/* `segrun train`: the loop over epochs and steps.
 *
 * A step writes a batch, runs the program "train" (forward, backward and Adam are its kernels) and
 * reads the loss and the Dice counts. Where the device can take it, the next batch is written while
 * a step runs. An epoch ends with the valid split, then the files: best
 * (first, so that the last one never speaks of a best that is not there), last, log.csv, loss.png.
 *
 * Where a run stands is in RunState and nowhere else; it is saved with every checkpoint, down to
 * the sums of an unfinished epoch, so that a resumed run continues the same additions in the same
 * order.
 */
#include "commands.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "trace.h"

enum { SUMS = 5 };

typedef struct {
    const Options *options;
    Session session;
    Dataset *data;
    ProgramTensors tensors;
    RunState state;
    char folder[1024];
    RunFiles files;
    SafeTensors *origin;     /* --resume or --weights; NULL: a new run */
    Weights weights;         /* until they are on the device */
    float *sums;             /* the metric of a batch */
    int *samples;            /* copies of a Batch's, for while the next one is written */
    bool *flipped;
    bool stopped;            /* by a signal */
    Trace *trace;            /* --trace; or NULL */
    int traced_steps;        /* whose kernels are in it */
} Training;

/* ---- what --trace shows ---- */

enum { TRACED_STEPS = 5 };

/* What went on since `begin`. Gives the time. */
static double traced(Training *training, const char *what, double begin)
{
    double now = now_seconds();
    if (training->trace)
        trace_event(training->trace, 1, 1, what, begin, now - begin);
    return now;
}

/* The first steps are profiled: an event a kernel, below the step's. */
static void traced_step(Training *training, int batch, double begin)
{
    const Session *session = &training->session;
    bool kernels = training->trace && training->traced_steps < TRACED_STEPS;
    traced(training, "step", begin);
    if (kernels)
        trace_run(training->trace, 1, 1,
                  &(TracedRun){ session->target, plan_program(session->target, "train"), batch,
                                executor_step_times(session->executor), begin });
    if (kernels && ++training->traced_steps == TRACED_STEPS)
        executor_profile(session->executor, false);
}

static bool open_trace(Training *training, Error *error)
{
    const Session *session = &training->session;
    if (!training->options->trace)
        return true;
    training->trace = trace_open(now_seconds(), error);
    if (!training->trace)
        return false;
    trace_track(training->trace, 1, session->plan_path, 1, device_describe(session->device));
    executor_profile(session->executor, true);
    return true;
}

/* ---- files ---- */

static bool save(const Training *training, const char *path, Error *error)
{
    if (checkpoint_save(path, &training->session, &training->state, training->tensors.threshold,
                        error))
        return true;
    if (access(training->files.last, R_OK) == 0)
        snprintf(error->hint, sizeof error->hint,
                 "%.200s is the last good checkpoint: --resume goes on from it",
                 training->files.last);
    return false;
}

static bool save_epoch(const Training *training, bool best, Error *error)
{
    const RunState *state = &training->state;
    char title[200];
    snprintf(title, sizeof title, "%.80s: batch %d, lr %g, seed %" PRIu64,
             training->session.plan->model, state->batch, state->lr, state->seed);
    return (!best || save(training, training->files.best, error))
           && save(training, training->files.last, error)
           && log_write(training->files.log, state->rows, state->n_rows, error)
           && plot_write(training->files.plot, title, state->rows, state->n_rows, error);
}

/* ---- a step ---- */

/* The seed of dropout in a step (splitmix64's finaliser). */
static uint64_t step_seed(uint64_t seed, uint64_t step)
{
    uint64_t z = seed + 0x9e3779b97f4a7c15u * (step + 1);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static bool not_finite(const Training *training, const Loader *loader, const Batch *batch,
                       double loss, Error *error)
{
    char *names = loader_names(loader, batch), hint[512];
    bool last = access(training->files.last, R_OK) == 0;
    snprintf(hint, sizeof hint, "a smaller --lr often helps%s%.300s",
             last ? "; the last good checkpoint is " : "", last ? training->files.last : "");
    fail(error, EXIT_USER, hint,
         "the loss is %s in epoch %d, batch %d of %d (step %" PRId64 "); its pictures: %.600s",
         isnan(loss) ? "no number (NaN)" : "infinite", training->state.epoch + 1,
         batch->index + 1, loader_batches(loader), training->state.step + 1, names ? names : "?");
    free(names);
    return false;
}

static bool write_batch(Training *training, const Batch *batch, Error *error)
{
    Executor *executor = training->session.executor;
    const ProgramTensors *tensors = &training->tensors;
    return executor_write(executor, "train", tensors->image->name, batch->images, batch->n, error)
        && executor_write(executor, "train", tensors->mask->name, batch->masks, batch->n, error);
}

static bool start_step(Training *training, const Batch *batch, Error *error)
{
    const RunState *state = &training->state;
    *executor_state(training->session.executor) = (PlanState){
        .learning_rate = state->lr, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8,
        .step = state->step + 1, .seed = step_seed(state->seed, (uint64_t)state->step + 1),
    };
    return executor_run(training->session.executor, "train", batch->n, error);
}

static bool finish_step(Training *training, const Loader *loader, const Batch *batch, Error *error)
{
    RunState *state = &training->state;
    Executor *executor = training->session.executor;
    const ProgramTensors *tensors = &training->tensors;
    float loss;
    if (!executor_read(executor, "train", tensors->loss->name, &loss, batch->n, error)
        || !executor_read(executor, "train", tensors->metric->name, training->sums, batch->n,
                          error))
        return false;
    if (!isfinite(loss))
        return not_finite(training, loader, batch, (double)loss, error);
    state->loss_sum += (double)loss * batch->n;
    for (int i = 0; i < batch->n; i++) {
        const float *sums = training->sums + SUMS * i;
        state->dice_sum += dice_of((double)sums[0], (double)sums[1], (double)sums[2]);
    }
    state->pictures += batch->n;
    state->batch_in_epoch = batch->index + 1;
    state->step++;
    return true;
}

/* Takes the next batch, if there is one, while the device computes *batch; that keeps what is said
 * of it when the step goes wrong. */
static bool write_ahead(Training *training, Loader *loader, Batch *batch, Batch *next,
                        Error *error)
{
    size_t n = (size_t)batch->n;
    memcpy(training->samples, batch->samples, n * sizeof *batch->samples);
    memcpy(training->flipped, batch->flipped, n * sizeof *batch->flipped);
    batch->samples = training->samples;
    batch->flipped = training->flipped;
    return loader_next(loader, next, error)
        && (next->n == 0 || write_batch(training, next, error));
}

/* ---- an epoch ---- */

static bool train_batches(Training *training, Loader *loader, Error *error)
{
    RunState *state = &training->state;
    Progress *progress = &training->session.progress;
    char title[64], detail[96];
    int total = dataset_count(training->data, SPLIT_TRAIN);
    snprintf(title, sizeof title, "epoch %d/%d", state->epoch + 1, state->epochs);
    progress_start(progress, state->pictures);
    double begun = now_seconds(), before = state->seconds;
    bool ahead = executor_feeds(training->session.executor);
    Batch batch, next = { 0 };
    while (state->batch_in_epoch < loader_batches(loader)) {
        if (interrupted()) {
            training->stopped = true;
            return true;
        }
        batch = next;
        double at = now_seconds();
        if (batch.n == 0 && !loader_next(loader, &batch, error))
            return false;
        at = traced(training, "wait for pictures", at);
        if (next.n == 0 && !write_batch(training, &batch, error))
            return false;
        at = traced(training, "upload", at);
        if (!start_step(training, &batch, error)
            || (ahead && !write_ahead(training, loader, &batch, &next, error))
            || !finish_step(training, loader, &batch, error))
            return false;
        traced_step(training, batch.n, at);
        state->seconds = before + now_seconds() - begun;
        snprintf(detail, sizeof detail, "loss %.4f  Dice %.4f",
                 state->loss_sum / (double)state->pictures,
                 state->dice_sum / (double)state->pictures);
        progress_update(progress, title, state->pictures, total, "images", detail);
    }
    return true;
}

static bool train_epoch(Training *training, Error *error)
{
    RunState *state = &training->state;
    LoaderOptions wanted = {
        .split = SPLIT_TRAIN, .batch = state->batch, .shuffle = true, .flip = state->flip,
        .seed = state->seed, .epoch = state->epoch, .workers = (int)training->options->workers,
    };
    Loader *loader = loader_open(training->data, &wanted, error);
    if (!loader)
        return false;
    if (state->batch_in_epoch > 0)
        loader_skip(loader, (int)state->batch_in_epoch);
    bool trained = train_batches(training, loader, error);
    loader_close(loader);
    progress_clear(&training->session.progress);
    return trained;
}

static int digits_of(int number)
{
    return snprintf(NULL, 0, "%d", number);
}

/* At most 79 columns, up to 999 epochs. */
static void print_row(const Training *training, const EpochRow *row)
{
    if (training->options->quiet)
        return;
    char duration[16];
    int epochs = training->state.epochs;
    format_duration(row->seconds, duration);
    printf("epoch %*d/%d  loss %.4f valid %.4f  Dice %.4f valid %.4f%s  %s\n", digits_of(epochs),
           row->epoch, epochs, row->train_loss, row->valid_loss, row->train_dice, row->valid_dice,
           row->best ? " best" : "     ", duration);
    fflush(stdout);
}

/* Scores the valid split, adds the row, writes the files. The epoch's sums begin anew. */
static bool finish_epoch(Training *training, Error *error)
{
    RunState *state = &training->state;
    EvaluateOptions wanted = { .split = SPLIT_VALID, .batch = state->batch, .threshold = -1,
                               .workers = (int)training->options->workers };
    Scores scores;
    double begun = now_seconds();
    if (!evaluate_split(&training->session, training->data, &wanted, &scores, error)) {
        progress_clear(&training->session.progress);
        training->stopped = error->code == EXIT_INTERRUPTED;
        return training->stopped;
    }
    if (!isfinite(scores.loss))
        return fail(error, EXIT_USER,
                    "a smaller --lr often helps; the checkpoints were not touched",
                    "the valid loss is %g after epoch %d (step %" PRId64 ")", scores.loss,
                    state->epoch + 1, state->step);
    double pictures = (double)state->pictures;
    EpochRow row = {
        .epoch = state->epoch + 1,
        .train_loss = state->loss_sum / pictures,
        .train_dice = state->dice_sum / pictures,
        .valid_loss = scores.loss,
        .valid_dice = scores.dice,
        .best = scores.dice > state->best_dice,
        .seconds = state->seconds + now_seconds() - begun,
        .images_per_second = state->seconds > 0 ? pictures / state->seconds : 0,
        .lr = state->lr,
    };
    run_state_add(state, &row);
    state->epoch++;
    run_state_begin_epoch(state);
    if (row.best) {
        state->best_dice = scores.dice;
        state->best_epoch = row.epoch;
    }
    print_row(training, &row);
    double at = traced(training, "evaluate", begun);
    bool saved = save_epoch(training, row.best, error);
    traced(training, "save", at);
    return saved;
}

/* ---- before the first step ---- */

/* The checkpoint to go on from, or the weights to begin with. */
static bool open_origin(Training *training, Error *error)
{
    const Options *options = training->options;
    int given = !!options->resume + !!options->weights + !!options->init;
    if (given > 1)
        return fail(error, EXIT_USAGE, "--resume goes on with a run; --weights and --init begin one",
                    "one of --resume, --weights and --init at a time");
    const char *init = options->init ? strrchr(options->init, '=') : NULL;
    const char *path = options->resume ? options->resume
                     : options->weights ? options->weights : init ? init + 1 : options->init;
    return !path || (training->origin = safetensors_open(path, error)) != NULL;
}

/* --folder; a resumed run goes on where its checkpoint lies. */
static bool choose_folder(Training *training, Error *error)
{
    const Options *options = training->options;
    const char *slash = options->resume ? strrchr(options->resume, '/') : NULL;
    const char *folder = options->folder;
    int length = (int)strlen(folder);
    if (options->resume && !option_given(options, "folder")) {
        folder = slash ? options->resume : ".";
        length = slash > options->resume ? (int)(slash - options->resume) : 1;
    }
    if (snprintf(training->folder, sizeof training->folder, "%.*s", length, folder)
        >= (int)sizeof training->folder)
        return fail(error, EXIT_USER, "", "%s: the folder's name is too long", folder);
    return run_files(&training->files, training->folder, training->session.plan->model, error)
        && recipe_check_folder(&training->files, training->folder, training->session.plan, error);
}

/* --init [PREFIX=]FILE */
static bool take_part(Training *training, Error *error)
{
    const char *init = training->options->init, *equals = strrchr(init, '=');
    char prefix[256] = "", report[PARAMS_REPORT];
    if (equals && equals - init >= (int)sizeof prefix)
        return fail(error, EXIT_USAGE, "", "--init: the prefix is too long");
    if (equals)
        memcpy(prefix, init, (size_t)(equals - init));
    if (!params_take_part(training->session.plan, training->origin, prefix,
                          training->weights.parameters, report, error))
        return false;
    progress_say(&training->session.progress, "%s", report);
    return true;
}

static bool read_weights(Training *training, Error *error)
{
    const Plan *plan = training->session.plan;
    bool resumes = training->options->resume != NULL;
    if (!weights_open(&training->weights, plan, training->state.seed, error))
        return false;
    if (!training->origin)
        return true;
    bool taken = training->options->init
               ? take_part(training, error)
               : weights_take(&training->weights, plan, training->origin, resumes, error);
    safetensors_close(training->origin);
    training->origin = NULL;
    return taken;
}

/* Of the training pictures' names: the order in an epoch depends on them. Not dataset_key, which
 * changes when a data set is copied. */
static uint64_t names_key(const Dataset *data)
{
    uint64_t key = 0;
    for (int i = 0; i < dataset_count(data, SPLIT_TRAIN); i++) {
        const char *name = dataset_name(data, SPLIT_TRAIN, i);
        key = XXH3_64bits_withSeed(name, strlen(name), key);
    }
    return key;
}

static bool open_data(Training *training, Error *error)
{
    RunState *state = &training->state;
    training->data = session_dataset(&training->session, SPLITS_TRAINING, state->outline_background,
                                     (int)state->limit, training->tensors.image, error);
    if (!training->data)
        return false;
    int train = dataset_count(training->data, SPLIT_TRAIN);
    int valid = dataset_count(training->data, SPLIT_VALID);
    if (train == 0 || valid == 0)
        return fail(error, EXIT_USER, "every tenth picture of trainval.txt is for valid",
                    "%s: the %s split is empty", training->options->data,
                    train ? "valid" : "train");
    if (state->batch > train) {
        char hint[64];
        snprintf(hint, sizeof hint, "--batch %d or less", train);
        return fail(error, EXIT_USER, hint, "batch %d is larger than the train split: %d pictures",
                    state->batch, train);
    }
    uint64_t key = names_key(training->data);
    if (training->options->resume && key != state->data_key) {
        fprintf(stderr, "segrun: warning: the training pictures are not the checkpoint's%s\n",
                state->batch_in_epoch ? "; the unfinished epoch begins again" : "");
        run_state_begin_epoch(state);
    }
    state->data_key = key;
    return true;
}

static const char *plural(int64_t count)
{
    return count == 1 ? "" : "s";
}

static void say_start(Training *training)
{
    const RunState *state = &training->state;
    const Plan *plan = training->session.plan;
    Progress *progress = &training->session.progress;
    int64_t weights = 0;
    char count_text[32];
    for (int i = 0; i < plan->n_parameters; i++)
        if (plan->parameters[i].trainable)
            weights += params_count(&plan->parameters[i]);
    format_count(weights, count_text);
    progress_say(progress, "model  %s, %s parameters, input %" PRId64 " x %" PRId64, plan->model,
                 count_text, training->tensors.image->dims[1], training->tensors.image->dims[2]);
    if (*plan->options)
        progress_say(progress, "made   segc %s", plan->options);
    progress_say(progress, "data   %s: %d train, %d valid; the outline counts as %s",
                 training->options->data, dataset_count(training->data, SPLIT_TRAIN),
                 dataset_count(training->data, SPLIT_VALID),
                 state->outline_background ? "background" : "pet");
    progress_say(progress, "recipe Adam, lr %g, batch %d, %d epoch%s, seed %" PRIu64 "%s",
                 state->lr, state->batch, state->epochs, plural(state->epochs), state->seed,
                 state->flip ? ", flips" : "");
    progress_say(progress, "saves  %s/", training->folder);
    if (training->options->resume)
        progress_say(progress, "resume %s: %d epoch%s and %" PRId64 " batch%s done",
                     training->options->resume, state->epoch, plural(state->epoch),
                     state->batch_in_epoch, state->batch_in_epoch == 1 ? "" : "es");
}

/* A checkpoint fits any plan with the same names and shapes; only the same text gives the same
 * bits. */
static void warn_other_plan(const Training *training)
{
    char hash[32];
    const char *was =
        training->options->resume ? checkpoint_value(training->origin, "plan_hash") : NULL;
    snprintf(hash, sizeof hash, "%" PRIu64, plan_hash(training->session.plan));
    if (was && strcmp(was, hash) != 0)
        fprintf(stderr,
                "segrun: warning: the plan was made from another text than the checkpoint's: "
                "the run goes on, but not bit for bit\n");
}

/* Everything that needs neither pictures nor kernels. */
static bool check(Training *training, Error *error)
{
    const Options *options = training->options;
    Session *session = &training->session;
    if (!options->data)
        return fail(error, EXIT_USAGE, "the folder that holds images/ and annotations/",
                    "--data is required");
    if (!open_origin(training, error) || !session_open(session, options, error)
        || !session_tensors(session, "train", true, &training->tensors, error)
        || !recipe_choose(options, options->resume ? training->origin : NULL, &training->state,
                          error))
        return false;
    if (!training->tensors.metric)
        return fail(error, EXIT_USER, "add a line such as `metric dice(probability, mask)`",
                    "%s: the model has no metric: there is nothing to choose the best by",
                    session->plan_path);
    training->sums = calloc((size_t)training->state.batch * SUMS, sizeof *training->sums);
    training->samples = calloc((size_t)training->state.batch, sizeof *training->samples);
    training->flipped = calloc((size_t)training->state.batch, sizeof *training->flipped);
    if (!training->sums || !training->samples || !training->flipped)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    warn_other_plan(training);
    return read_weights(training, error) && choose_folder(training, error);
}

static bool prepare(Training *training, Error *error)
{
    Session *session = &training->session;
    if (!session_device(session, "train,evaluate", training->state.batch, error)
        || !open_data(training, error))
        return false;
    say_start(training);
    bool loaded = session_build(session, error)
               && weights_upload(&training->weights, session->executor, error);
    weights_close(&training->weights);
    return loaded && open_trace(training, error);
}

/* ---- the run ---- */

static void print_end(const Training *training)
{
    const RunState *state = &training->state;
    bool here = access(training->files.best, R_OK) == 0;
    if (state->best_epoch > 0)
        printf("best valid Dice %.4f in epoch %d: %s\n", state->best_dice, state->best_epoch,
               here ? training->files.best : "saved where the run began");
}

static bool say_how_to_go_on(const Training *training, Error *error)
{
    const RunState *state = &training->state;
    if (!save(training, training->files.last, error))
        return false;
    fprintf(stderr,
            "interrupted in epoch %d after %" PRId64 " batch%s; everything is saved. To go on:\n",
            state->epoch + 1, state->batch_in_epoch, state->batch_in_epoch == 1 ? "" : "es");
    const char *words[] = { "  segrun train ", training->session.plan_path, " --data ",
                            training->options->data, " -r ", training->files.last };
    for (int i = 0; i < 6; i += 2) {
        fputs(words[i], stderr);
        print_quoted(stderr, words[i + 1]);
    }
    fputc('\n', stderr);
    return true;
}

static bool run_epochs(Training *training, Error *error)
{
    RunState *state = &training->state;
    if (!recipe_write(&training->files, training->options, &training->session, error))
        return false;
    while (state->epoch < state->epochs && !training->stopped)
        if (!train_epoch(training, error)
            || (!training->stopped && !finish_epoch(training, error)))
            return false;
    return !training->stopped || say_how_to_go_on(training, error);
}

/* Where a GPU was lost, its hint says what can be done; here is what to type for it. */
static bool device_failed(const Training *training, Error *error)
{
    static const char resume[] = "segrun train --resume";
    const char *found = strstr(error->hint, resume);
    if (!found || access(training->files.last, R_OK) != 0)
        return false;
    char rest[sizeof error->hint];
    snprintf(rest, sizeof rest, "%s", found + strlen(resume));
    int before = (int)(found - error->hint);
    snprintf(error->hint + before, sizeof error->hint - (size_t)before,
             "segrun train %.120s --data %.120s -r %.120s%s", training->session.plan_path,
             training->options->data, training->files.last, rest);
    return false;
}

static bool train(Training *training, Error *error)
{
    if (!check(training, error))
        return false;
    if (training->state.epoch < training->state.epochs)
        return prepare(training, error)
            && (run_epochs(training, error) || device_failed(training, error));
    progress_say(&training->session.progress, "all %d epochs are done; --epochs N trains further",
                 training->state.epoch);
    return true;
}

int command_train(const Options *options)
{
    Training training = { .options = options };
    Error error = { 0 };
    bool trained = train(&training, &error);
    progress_clear(&training.session.progress);
    Error trace_error;
    if (!trace_close(training.trace, options->trace, trained ? &error : &trace_error))
        trained = false;
    int code = !trained ? report(&error) : training.stopped ? EXIT_INTERRUPTED : EXIT_FINE;
    if (code == EXIT_FINE)
        print_end(&training);
    free(training.sums);
    free(training.samples);
    free(training.flipped);
    weights_close(&training.weights);
    run_state_close(&training.state);
    if (training.origin)
        safetensors_close(training.origin);
    if (training.data)
        dataset_close(training.data);
    session_close(&training.session);
    return code;
}
