/* `segrun train`: the loop over epochs, and what comes before and behind it.
 *
 * Steps are train_epoch.c's. An epoch ends with the valid split, then the files: best (first, so that
 * the last one never speaks of a best that is not there), last, log.csv, loss.png.
 *
 * Where a run stands is in RunState and nowhere else; it is saved with every checkpoint, down to
 * the sums of an unfinished epoch, so that a resumed run continues the same additions in the same
 * order.
 */
#include "train.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

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

/* NAME.epoch-0010.safetensors */
static bool save_nth(const Training *training, Error *error)
{
    const RunState *state = &training->state;
    char path[1100];
    if (state->save_every == 0 || state->epoch % state->save_every != 0)
        return true;
    snprintf(path, sizeof path, "%.*sepoch-%04d.safetensors",
             (int)(strlen(training->files.last) - strlen("last.safetensors")),
             training->files.last, state->epoch);
    return save(training, path, error);
}

static bool save_epoch(const Training *training, bool best, Error *error)
{
    const RunState *state = &training->state;
    char title[200];
    snprintf(title, sizeof title, "%.80s: batch %" PRId64 ", lr %g, seed %" PRIu64,
             training->session.plan->model, state->batch, state->lr, state->seed);
    return (!best || save(training, training->files.best, error)) && save_nth(training, error)
           && save(training, training->files.last, error)
           && log_write(training->files.log, state->rows, state->n_rows, error)
           && plot_write(training->files.plot, title, state->rows, state->n_rows, error);
}

/* ---- an epoch ---- */

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
    int epochs = (int)training->state.epochs;
    format_duration(row->seconds, duration);
    printf("epoch %*d/%d  loss %.4f valid %.4f  Dice %.4f valid %.4f%s  %s\n", digits_of(epochs),
           row->epoch, epochs, row->train_loss, row->valid_loss, row->train_dice, row->valid_dice,
           row->best ? " best" : "     ", duration);
    fflush(stdout);
}

/* For --tensorboard: some valid pictures with their masks. */
static bool begin_sheet(Training *training, EvaluateOptions *wanted, Error *error)
{
    enum { PICTURES = 8 };
    if (!training->board || !training->tensors.output)
        return true;
    int count = dataset_count(training->data, SPLIT_VALID);
    wanted->sheet_pictures = count < PICTURES ? count : PICTURES;
    wanted->threshold = training->tensors.threshold;
    wanted->sheet = sheet_of(training->data, &training->tensors, "valid", wanted->sheet_pictures,
                             error);
    training->sheet = wanted->sheet;
    return training->sheet != NULL;
}

static void end_sheet(Training *training)
{
    if (training->sheet)
        sheet_close(training->sheet);
    training->sheet = NULL;
}

/* The epoch's numbers, and the pictures where it is the best so far. */
static bool write_events(Training *training, const EpochRow *row, Error *error)
{
    TensorBoard *board = training->board;
    const struct { const char *tag; double value; } scalars[] = {
        { "loss/train", row->train_loss }, { "loss/valid", row->valid_loss },
        { "dice/train", row->train_dice }, { "dice/valid", row->valid_dice },
        { "learning_rate", row->lr },      { "images_per_second", row->images_per_second },
    };
    bool fine = true;
    for (int i = 0; board && fine && i < (int)(sizeof scalars / sizeof *scalars); i++)
        fine = tensorboard_scalar(board, row->epoch, scalars[i].tag, scalars[i].value, error);
    if (!board || !fine || !training->sheet || !row->best)
        return fine;
    size_t bytes = 0;
    int height, width;
    char *png = sheet_png(training->sheet, &bytes, &height, &width, error);
    fine = png && tensorboard_picture(board, row->epoch, "valid", height, width, png, bytes, error);
    free(png);
    return fine;
}

/* Scores the valid split; with an average of the weights in their place, which is what files hold. */
static bool evaluate_epoch(Training *training, Scores *scores, Error *error)
{
    Executor *executor = training->session.executor;
    EvaluateOptions wanted = { .split = SPLIT_VALID, .batch = (int)training->state.batch,
                               .threshold = -1, .workers = (int)training->options->workers };
    if (!begin_sheet(training, &wanted, error))
        return false;
    if (training->state.ema == 0)
        return evaluate_split(&training->session, training->data, &wanted, scores, error);
    int64_t bytes = executor_slab_bytes(executor, SLAB_PARAMETERS);
    char *trained = malloc((size_t)bytes + 1), *average = malloc((size_t)bytes + 1);
    bool done = trained && average
              ? executor_download(executor, SLAB_PARAMETERS, trained, error)
                    && executor_download(executor, SLAB_AVERAGE, average, error)
                    && executor_upload(executor, SLAB_PARAMETERS, average, error)
              : fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the average of the weights");
    if (done) {
        Error back;
        done = evaluate_split(&training->session, training->data, &wanted, scores, error);
        if (!executor_upload(executor, SLAB_PARAMETERS, trained, done ? error : &back))
            done = false;
    }
    free(trained);
    free(average);
    return done;
}

/* Scores the valid split, adds the row, writes the files. The epoch's sums begin anew. */
static bool finish_epoch(Training *training, Error *error)
{
    RunState *state = &training->state;
    Scores scores;
    double begun = now_seconds();
    if (!evaluate_epoch(training, &scores, error)) {
        end_sheet(training);
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
        .lr = training->rate,
    };
    run_state_add(state, &row);
    state->epoch++;
    run_state_begin_epoch(state);
    if (row.best) {
        state->best_dice = scores.dice;
        state->best_epoch = row.epoch;
    }
    schedule_epoch(state, row.best);
    print_row(training, &row);
    double at = traced(training, "evaluate", begun);
    bool saved = save_epoch(training, row.best, error) && write_events(training, &row, error);
    end_sheet(training);
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
        && recipe_check_folder(&training->files, training->folder, training->session.plan,
                               training->state.ema > 0, error);
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
    if (!training->origin) /* initial values: made where they are needed, by prepare() */
        return true;
    if (!weights_allocate(&training->weights, plan, resumes, error))
        return false;
    if (training->options->init)
        params_initialise(plan, training->state.seed, training->weights.parameters);
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
    training->data = session_dataset(&training->session, SPLITS_TRAINING, (Outline)state->outline,
                                     (int)state->limit, &training->tensors, error);
    if (!training->data)
        return false;
    int train = dataset_count(training->data, SPLIT_TRAIN);
    int valid = dataset_count(training->data, SPLIT_VALID);
    if (train == 0 || valid == 0)
        return fail(error, EXIT_USER, "every tenth picture of trainval.txt is for valid",
                    "%s: the %s split is empty", training->options->data,
                    train ? "valid" : "train");
    while (training->auto_batch && state->batch > 1 && 8 * state->batch > train)
        training->session.max_batch = (int)(state->batch /= 2);
    if (state->batch > train) {
        char hint[64];
        snprintf(hint, sizeof hint, "--batch %d or less", train);
        return fail(error, EXIT_USER, hint, "batch %" PRId64 " is larger than the train split: %d pictures", state->batch, train);
    }
    uint64_t key = names_key(training->data);
    if (training->options->resume && key != state->data_key) {
        fprintf(stderr, "segrun: warning: the training pictures are not the checkpoint's%s\n",
                state->batch_in_epoch ? "; the unfinished epoch begins again" : "");
        run_state_begin_epoch(state);
    }
    state->data_key = key;
    join_class_names(training->data, training->tensors.classes, state->class_names);
    return true;
}

static const char *plural(int64_t count)
{
    return count == 1 ? "" : "s";
}

static void say_recipe(Progress *progress, const RunState *state)
{
    static const char *const optimizers[] = { "Adam", "AdamW", "SGD", "SGD with Nesterov's momentum" };
    static const char *const schedules[] = { "", ", cosine", ", poly", ", less at a plateau" };
    char more[400] = "";
    size_t n = 0;
#define MORE(...) n += (size_t)snprintf(more + n, sizeof more - n, __VA_ARGS__)
    if (state->accumulate > 1) MORE(", %" PRId64 " batches a step", state->accumulate);
    if (state->weight_decay > 0) MORE(", weight decay %g", state->weight_decay);
    if (state->warmup > 0) MORE(", warm-up of %g epochs", state->warmup);
    if (state->clip > 0) MORE(", gradients clipped to %g", state->clip);
    if (state->ema > 0) MORE(", average of weights %g", state->ema);
    if (state->patience > 0) MORE(", patience %" PRId64, state->patience);
#undef MORE
    progress_say(progress, "recipe %s, lr %g%s, batch %" PRId64 ", %" PRId64 " epoch%s, seed %" PRIu64 "%s",
                 optimizers[state->optimizer], state->lr, schedules[state->schedule], state->batch,
                 state->epochs, plural(state->epochs), state->seed, state->flip ? ", flips" : "");
    if (*more)
        progress_say(progress, "       %s", more + 2);
    if (strcmp(state->augment, "none") != 0)
        progress_say(progress, "       augmentation %s", state->augment);
}

static bool say_start(Training *training, Error *error)
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
    const bool several = training->tensors.classes > 1;
    const char *rule = several ? "of several classes"
                     : folders_are_general(training->options->data) ? "masks count where they are not 0"
                     : state->outline == OUTLINE_BACKGROUND ? "the outline counts as background"
                                                            : "the outline counts as pet";
    progress_say(progress, "data   %s: %d train, %d valid; %s", training->options->data,
                 dataset_count(training->data, SPLIT_TRAIN),
                 dataset_count(training->data, SPLIT_VALID), rule);
    if (several && !say_classes(progress, training->data, training->tensors.classes, error))
        return false;
    say_recipe(progress, state);
    progress_say(progress, "saves  %s/", training->folder);
    if (training->options->resume)
        progress_say(progress, "resume %s: %d epoch%s and %" PRId64 " batch%s done",
                     training->options->resume, state->epoch, plural(state->epoch),
                     state->batch_in_epoch, state->batch_in_epoch == 1 ? "" : "es");
    return true;
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

static bool choose_deadline(Training *training, Error *error)
{
    const char *text = training->options->max_time;
    double seconds = 0;
    if (text && !duration_parse(text, &seconds))
        return fail(error, EXIT_USAGE, "seconds, or numbers with h, m and s: 45m, 1h30m",
                    "--max-time '%s' is no time", text);
    training->deadline = text ? now_seconds() + seconds : 0;
    return true;
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
                          error)
        || !augment_parse(training->state.augment, &training->augment, error)
        || !choose_deadline(training, error))
        return false;
    if (!training->tensors.metric)
        return fail(error, EXIT_USER, "add a line such as `metric dice(probability, mask)`",
                    "%s: the model has no metric: there is nothing to choose the best by",
                    session->plan_path);
    warn_other_plan(training);
    return read_weights(training, error) && choose_folder(training, error);
}

enum { MOST_AUTO = 64 };

/* --batch auto: by the memory, with a quarter more for what stands around. */
static bool choose_batch(Training *training, Error *error)
{
    RunState *state = &training->state;
    Session *session = &training->session;
    Error ignored;
    if (state->batch > 0)
        return true;
    for (state->batch = MOST_AUTO; state->batch > 1; state->batch /= 2)
        if (executor_check(session->plan, session->device, training->programs,
                           (int)(state->batch + (state->batch + 3) / 4), &ignored))
            break;
    session->max_batch = (int)state->batch;
    training->auto_batch = true;
    return executor_check(session->plan, session->device, training->programs, session->max_batch,
                          error);
}

static bool allocate_batch(Training *training, Error *error)
{
    size_t batch = (size_t)training->state.batch;
    training->sums = calloc(batch * (size_t)metric_numbers(&training->tensors),
                            sizeof *training->sums);
    training->samples = calloc(batch, sizeof *training->samples);
    training->flipped = calloc(batch, sizeof *training->flipped);
    return (training->sums && training->samples && training->flipped)
        || fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
}

static bool prepare(Training *training, Error *error)
{
    Session *session = &training->session;
    const RunState *state = &training->state;
    snprintf(training->programs, sizeof training->programs, "train%s%s%s,evaluate",
             state->accumulate > 1 ? "+sum+total" : "", state->clip > 0 ? "+clip" : "",
             state->ema > 0 ? "+average" : "");
    if (!session_device(session, training->programs, state->batch ? (int)state->batch : 1, error)
        || !choose_batch(training, error) || !open_data(training, error)
        || !allocate_batch(training, error))
        return false;
    bool loaded = say_start(training, error) && session_build(session, error)
               && (training->weights.parameters
                       ? weights_upload(&training->weights, session->executor, error)
                       : executor_initialise(session->executor, training->state.seed, error));
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
            "%s in epoch %d after %" PRId64 " batch%s; everything is saved. To go on:\n",
            interrupted() ? "interrupted" : "the time is over", state->epoch + 1, state->batch_in_epoch, state->batch_in_epoch == 1 ? "" : "es");
    const char *words[] = { "  segrun train ", training->session.plan_path, " --data ",
                            training->options->data, " -r ", training->files.last };
    for (int i = 0; i < 6; i += 2) {
        fputs(words[i], stderr);
        print_quoted(stderr, words[i + 1]);
    }
    fputc('\n', stderr);
    return true;
}

static bool is_out_of_patience(const Training *training)
{
    const RunState *state = &training->state;
    if (state->patience == 0 || state->epoch - state->best_epoch < state->patience)
        return false;
    progress_say(&((Training *)training)->session.progress,
                 "no better valid Dice for %" PRId64 " epochs: the run ends here", state->patience);
    return true;
}

/* For another epoch as long as the last one. */
static bool has_no_time(const Training *training)
{
    const RunState *state = &training->state;
    return training->deadline > 0 && state->n_rows > 0 && state->epoch < state->epochs
        && now_seconds() + state->rows[state->n_rows - 1].seconds > training->deadline;
}

static bool run_epochs(Training *training, Error *error)
{
    RunState *state = &training->state;
    if (!recipe_write(&training->files, training->options, &training->session, state, error))
        return false;
    const char *board = training->options->tensorboard;
    if (board && !(training->board = tensorboard_open(board, error)))
        return false;
    while (state->epoch < state->epochs && !training->stopped && !is_out_of_patience(training)) {
        if (!train_epoch(training, error)
            || (!training->stopped && !finish_epoch(training, error)))
            return false;
        training->stopped = training->stopped || has_no_time(training);
    }
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
    tensorboard_close(training.board);
    int code = !trained ? report(&error) : training.stopped && interrupted() ? EXIT_INTERRUPTED
                                                      : EXIT_FINE;
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
