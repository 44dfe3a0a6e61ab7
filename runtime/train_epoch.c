/* The steps of an epoch of training.
 *
 * A step writes a batch, runs the program "train" (forward, backward and what follows the gradients
 * are its kernels) and reads the loss and the Dice counts. Where the device can take it, the next
 * batch is written while a step runs. With --accumulate a step of the optimiser takes several
 * batches; a run is only interrupted between such steps, so that there are no sums to be kept.
 */
#include "train.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what --trace shows ---- */

enum { TRACED_STEPS = 5 };

/* What went on since `begin`. Gives the time. */
double traced(Training *training, const char *what, double begin)
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

bool open_trace(Training *training, Error *error)
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

/* The batches whose gradients make one step. */
typedef struct {
    int64_t first, last, pictures;
    int64_t step, steps;     /* its number in the epoch; how many there are */
} Window;

static Window window_of(const Training *training, const Loader *loader, int64_t batch)
{
    const RunState *state = &training->state;
    int64_t size = state->accumulate, batches = loader_batches(loader);
    int64_t count = dataset_count(training->data, SPLIT_TRAIN);
    Window window = { .first = batch - batch % size, .step = batch / size,
                      .steps = (batches + size - 1) / size };
    int64_t end = window.first + size < batches ? window.first + size : batches;
    int64_t all = end * state->batch < count ? end * state->batch : count;
    window.last = end - 1;
    window.pictures = all - window.first * state->batch;
    return window;
}

static unsigned parts_of(const RunState *state, const Window *window, int64_t batch)
{
    if (batch < window->last)
        return 1 << PART_MAIN | 1 << PART_SUM;
    return 1u << PART_MAIN | 1u << PART_UPDATE | (window->first < window->last) << PART_TOTAL
         | (state->clip > 0) << PART_CLIP | (state->ema > 0) << PART_AVERAGE;
}

/* Batches of a window count as their pictures do; dropout differs between them. */
static bool start_step(Training *training, const Loader *loader, const Batch *batch, Error *error)
{
    RunState *state = &training->state;
    Window window = window_of(training, loader, batch->index);
    int64_t nth = batch->index - window.first;
    double share = (double)batch->n / (double)window.pictures, decay = schedule_decay(state);
    training->rate = schedule_rate(state, window.step, window.steps);
    *executor_state(training->session.executor) = (PlanState){
        .learning_rate = training->rate, .beta1 = state->momentum, .beta2 = 0.999, .eps = 1e-8,
        .weight_decay = state->weight_decay, .clip = state->clip, .optimiser = state->optimizer,
        .blends = { { nth > 0, share }, { share, 1 }, { decay, 1 - decay } },
        .step = state->step + 1,
        .seed = step_seed(state->seed, ((uint64_t)nth << 40) + (uint64_t)state->step + 1),
    };
    return executor_run_parts(training->session.executor, "train",
                              parts_of(state, &window, batch->index), batch->n, error);
}

static bool finish_step(Training *training, const Loader *loader, const Batch *batch, Error *error)
{
    RunState *state = &training->state;
    Executor *executor = training->session.executor;
    const ProgramTensors *tensors = &training->tensors;
    float loss;
    if (!executor_read(executor, "train", tensors->loss->name, &loss, batch->n, error)
        || !metric_read(executor, tensors, batch->n, training->sums, error))
        return false;
    if (!isfinite(loss))
        return not_finite(training, loader, batch, (double)loss, error);
    state->loss_sum += (double)loss * batch->n;
    for (int i = 0; i < batch->n; i++)
        state->dice_sum += metric_dice(tensors, training->sums, batch->n, i);
    state->pictures += batch->n;
    state->batch_in_epoch = batch->index + 1;
    state->step += window_of(training, loader, batch->index).last == batch->index;
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

static bool is_late(const Training *training)
{
    return training->deadline > 0 && now_seconds() > training->deadline;
}

static bool train_batches(Training *training, Loader *loader, Error *error)
{
    RunState *state = &training->state;
    Progress *progress = &training->session.progress;
    char title[64], detail[96];
    int total = dataset_count(training->data, SPLIT_TRAIN);
    snprintf(title, sizeof title, "epoch %d/%" PRId64, state->epoch + 1, state->epochs);
    progress_start(progress, state->pictures);
    double begun = now_seconds(), before = state->seconds;
    bool ahead = executor_feeds(training->session.executor);
    Batch batch, next = { 0 };
    while (state->batch_in_epoch < loader_batches(loader)) {
        bool whole = state->batch_in_epoch % state->accumulate == 0;
        if (whole && (interrupted() || is_late(training))) {
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
        if (!start_step(training, loader, &batch, error)
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

bool train_epoch(Training *training, Error *error)
{
    RunState *state = &training->state;
    LoaderOptions wanted = {
        .split = SPLIT_TRAIN, .batch = (int)state->batch, .shuffle = true, .flip = state->flip,
        .seed = state->seed, .epoch = state->epoch, .workers = (int)training->options->workers,
        .augment = training->augment,
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
