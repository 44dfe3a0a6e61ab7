/* `segrun train`: the loop over epochs and steps.
 *
 * A step writes a batch, runs the program "train" (forward, backward and Adam are its kernels) and
 * reads the loss and the Dice counts. An epoch ends with the valid split, then the files: best
 * (first, so that the last one never speaks of a best that is not there), last, log.csv, loss.png.
 *
 * Where a run stands is in RunState and nowhere else; it is saved with every checkpoint, down to
 * the sums of an unfinished epoch, so that a resumed run continues the same additions in the same
 * order.
 */
#include "commands.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { SUMS = 5 };

typedef struct {
    const Options *options;
    Session session;
    Dataset *data;
    ProgramTensors tensors;
    RunState state;
    RunFiles files;
    float *sums;             /* the metric of a batch */
    bool stopped;            /* by a signal */
    bool saved;              /* this run has written files.last */
} Training;

/* ---- signals ---- */

/* The one variable that a signal handler can reach. */
static volatile int stop_wanted;

static void on_signal(int number)
{
    (void)number;
    if (stop_wanted) {
        ssize_t ignored = write(STDERR_FILENO, "\n", 1);
        (void)ignored;
        _exit(EXIT_INTERRUPTED);
    }
    stop_wanted = 1;
}

static void catch_signals(bool on)
{
    struct sigaction action = { .sa_handler = on ? on_signal : SIG_DFL };
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* ---- files ---- */

static bool save(Training *training, const char *path, Error *error)
{
    if (!checkpoint_save(path, &training->session, &training->state, error)) {
        bool last = access(training->files.last, R_OK) == 0;
        if (last)
            snprintf(error->hint, sizeof error->hint,
                     "%.200s is the last good checkpoint: --resume goes on from it",
                     training->files.last);
        return false;
    }
    training->saved = true;
    return true;
}

static bool save_epoch(Training *training, bool best, Error *error)
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
         "the loss is %g in epoch %d, batch %d of %d (step %" PRId64 "); its pictures: %.600s",
         loss, training->state.epoch + 1, batch->index + 1, loader_batches(loader),
         training->state.step + 1, names ? names : "?");
    free(names);
    return false;
}

static bool train_step(Training *training, const Loader *loader, const Batch *batch, Error *error)
{
    RunState *state = &training->state;
    Executor *executor = training->session.executor;
    const ProgramTensors *tensors = &training->tensors;
    PlanState *plan_state = executor_state(executor);
    *plan_state = (PlanState){
        .learning_rate = state->lr, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8,
        .step = state->step + 1, .seed = step_seed(state->seed, (uint64_t)state->step + 1),
    };
    float loss;
    if (!executor_write(executor, "train", tensors->image->name, batch->images, batch->n, error)
        || !executor_write(executor, "train", tensors->mask->name, batch->masks, batch->n, error)
        || !executor_run(executor, "train", batch->n, error)
        || !executor_read(executor, "train", tensors->loss->name, &loss, batch->n, error)
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
    Batch batch;
    while (state->batch_in_epoch < loader_batches(loader)) {
        if (stop_wanted) {
            training->stopped = true;
            return true;
        }
        if (!loader_next(loader, &batch, error) || !train_step(training, loader, &batch, error))
            return false;
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

static void print_row(const Training *training, const EpochRow *row)
{
    if (training->options->quiet)
        return;
    char duration[16];
    format_duration(row->seconds, duration);
    printf(
        "epoch %3d/%d  train loss %.4f Dice %.4f  valid loss %.4f Dice %.4f%s  %s  %.*f images/s\n",
        row->epoch, training->state.epochs, row->train_loss, row->train_dice, row->valid_loss,
        row->valid_dice, row->best ? " best" : "     ", duration,
        row->images_per_second < 10 ? 1 : 0, row->images_per_second);
    fflush(stdout);
}

/* Scores the valid split, adds the row, writes the files. The epoch's sums begin anew. */
static bool finish_epoch(Training *training, Error *error)
{
    RunState *state = &training->state;
    EvaluateOptions wanted = { .split = SPLIT_VALID, .batch = state->batch, .threshold = -1,
                               .workers = (int)training->options->workers, .stop = &stop_wanted };
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
    state->batch_in_epoch = state->pictures = 0;
    state->loss_sum = state->dice_sum = state->seconds = 0;
    if (row.best) {
        state->best_dice = scores.dice;
        state->best_epoch = row.epoch;
    }
    print_row(training, &row);
    return save_epoch(training, row.best, error);
}

/* ---- before the first step ---- */

static bool load_weights(Training *training, Error *error)
{
    const Options *options = training->options;
    Session *session = &training->session;
    if (options->resume)
        return checkpoint_load(options->resume, session, true, error);
    int64_t parameters = executor_slab_bytes(session->executor, SLAB_PARAMETERS);
    int64_t moments = executor_slab_bytes(session->executor, SLAB_MOMENTS);
    char *slab = calloc(1, (size_t)(parameters > moments ? parameters : moments) + 1);
    if (!slab)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the initial weights");
    bool set = executor_upload(session->executor, SLAB_MOMENTS, slab, error);
    if (set) {
        params_initialise(session->plan, training->state.seed, slab);
        set = executor_upload(session->executor, SLAB_PARAMETERS, slab, error);
    }
    free(slab);
    return set && (!options->weights || checkpoint_load(options->weights, session, false, error));
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
    training->data = session_dataset(&training->session, training->options, SPLITS_TRAINING,
                                     state->outline_background, (int)state->limit,
                                     training->tensors.image, error);
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
        state->batch_in_epoch = state->pictures = 0;
        state->loss_sum = state->dice_sum = state->seconds = 0;
    }
    state->data_key = key;
    return true;
}

static void say_start(Training *training)
{
    const RunState *state = &training->state;
    const Plan *plan = training->session.plan;
    Progress *progress = &training->session.progress;
    int64_t weights = 0;
    char count_text[32];
    for (int i = 0; i < plan->n_parameters; i++) {
        int64_t count = plan->parameters[i].trainable;
        for (int k = 0; k < plan->parameters[i].rank; k++)
            count *= plan->parameters[i].dims[k];
        weights += count;
    }
    format_count(weights, count_text);
    progress_say(progress, "model  %s%s%s, %s parameters, input %" PRId64 " x %" PRId64,
                 plan->model, *plan->options ? " " : "", plan->options, count_text,
                 training->tensors.image->dims[1], training->tensors.image->dims[2]);
    progress_say(progress, "data   %s: %d train, %d valid; the outline counts as %s",
                 training->options->data, dataset_count(training->data, SPLIT_TRAIN),
                 dataset_count(training->data, SPLIT_VALID),
                 state->outline_background ? "background" : "pet");
    progress_say(progress, "recipe Adam, lr %g, batch %d, %d epochs, seed %" PRIu64 "%s", state->lr,
                 state->batch, state->epochs, state->seed, state->flip ? ", flips" : "");
    if (training->options->resume)
        progress_say(progress, "resume %s: %d epochs and %" PRId64 " batches done, best Dice %.4f",
                     training->options->resume, state->epoch, state->batch_in_epoch,
                     state->best_dice < 0 ? 0 : state->best_dice);
}

/* A checkpoint fits any plan with the same names and shapes; only the same text gives the same
 * bits. */
static void warn_other_plan(const Training *training)
{
    SafeTensors *file = NULL;
    Error ignored;
    char hash[32];
    if (!training->options->resume
        || !(file = safetensors_open(training->options->resume, &ignored)))
        return;
    const char *was = checkpoint_value(file, "plan_hash");
    snprintf(hash, sizeof hash, "%" PRIu64, plan_hash(training->session.plan));
    if (was && strcmp(was, hash) != 0)
        fprintf(stderr,
                "segrun: warning: the plan was made from another text than the checkpoint's: "
                "the run goes on, but not bit for bit\n");
    safetensors_close(file);
}

static bool prepare(Training *training, Error *error)
{
    const Options *options = training->options;
    Session *session = &training->session;
    if (!options->data)
        return fail(error, EXIT_USAGE, "the folder that holds images/ and annotations/",
                    "--data is required");
    if (!recipe_choose(options, &training->state, error)
        || !session_open(session, options, "train,evaluate", training->state.batch, error)
        || !session_tensors(session, "train", true, &training->tensors, error))
        return false;
    if (!training->tensors.metric)
        return fail(error, EXIT_USER, "add a line such as `metric dice(probability, mask)`",
                    "%s: the model has no metric: there is nothing to choose the best by",
                    session->plan_path);
    training->sums = calloc((size_t)training->state.batch * SUMS, sizeof *training->sums);
    if (!training->sums)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    if (!run_files(&training->files, options->folder, session->plan->model, error)
        || !recipe_check_folder(&training->files, options->folder, session->plan, error)
        || !load_weights(training, error))
        return false;
    warn_other_plan(training);
    return open_data(training, error);
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

static bool say_how_to_go_on(Training *training, Error *error)
{
    const RunState *state = &training->state;
    if (!save(training, training->files.last, error))
        return false;
    char folder[1100] = "";
    if (strcmp(training->options->folder, "saved_models") != 0)
        snprintf(folder, sizeof folder, " -p %s", training->options->folder);
    fprintf(stderr,
            "interrupted in epoch %d after %" PRId64 " batches; everything is saved. To go on:\n"
            "  segrun train %s --data %s%s -r %s\n",
            state->epoch + 1, state->batch_in_epoch, training->session.plan_path,
            training->options->data, folder, training->files.last);
    return true;
}

static bool run_epochs(Training *training, Error *error)
{
    RunState *state = &training->state;
    if (state->epoch >= state->epochs) {
        progress_say(&training->session.progress,
                     "all %d epochs are done; --epochs N trains further", state->epoch);
        return true;
    }
    if (!recipe_write(&training->files, training->options, &training->session, error))
        return false;
    while (state->epoch < state->epochs && !training->stopped)
        if (!train_epoch(training, error)
            || (!training->stopped && !finish_epoch(training, error)))
            return false;
    return !training->stopped || say_how_to_go_on(training, error);
}

int command_train(const Options *options)
{
    Training training = { .options = options };
    Error error = { 0 };
    bool trained = prepare(&training, &error);
    if (trained) {
        say_start(&training);
        catch_signals(true);
        trained = run_epochs(&training, &error);
        catch_signals(false);
    }
    progress_clear(&training.session.progress);
    int code = !trained ? report(&error) : training.stopped ? EXIT_INTERRUPTED : EXIT_FINE;
    if (code == EXIT_FINE)
        print_end(&training);
    free(training.sums);
    run_state_close(&training.state);
    if (training.data)
        dataset_close(training.data);
    session_close(&training.session);
    return code;
}
