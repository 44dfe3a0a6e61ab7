/* Which launch of a step is the fastest on this GPU: measured once, kept in the cache.
 *
 * What is kept is a line for a step and a batch: the hash of the step's kernels, launches and
 * sizes, the batch, the winner. So a plan that was compiled again keeps the winners of its
 * unchanged steps, and steps that are alike are timed once. A batch that was not timed takes the
 * winners of the nearest one: the last batch of an epoch is not worth the time.
 *
 * Steps are timed in the order of the program, on what the steps before them left: real data. Since
 * a step may read what it writes, and runs several times here, results mean nothing afterwards: the
 * executor restores what must survive.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "device_cuda.h"

/* Long kernels are timed alone, short ones several in a row; the best of some rounds counts. */
enum { ROUNDS = 3, MAX_ROW = 16 };
static const double ROW_SECONDS = 2e-4;

/* ---- what is known --------------------------------------------------------------------------- */

static uint64_t signature_of(const CudaKernels *kernels, const PlanStep *step)
{
    uint64_t hash = XXH64(step->sizes ? (const void *)step->sizes : "",
                          (size_t)step->n_sizes * sizeof *step->sizes, (uint64_t)step->n_buffers);
    for (int i = 0; i < step->n_launches; i++) {
        const PlanLaunch *launch = &step->launches[i];
        const int64_t facts[] = { launch->threads, launch->blocks, launch->blocks_per_sample,
                                  launch->shared_bytes };
        const char *key = kernels->kernels[launch->kernel].key;
        hash = XXH64(facts, sizeof facts, XXH64(key, strlen(key), hash));
    }
    return hash;
}

static int usable_launches(const CudaDevice *cuda, const CudaKernels *kernels,
                           const PlanStep *step)
{
    int n = 0;
    for (int i = 0; i < step->n_launches; i++)
        n += cuda_can_launch(cuda, kernels, &step->launches[i]);
    return n;
}

/* That of this batch, else of the nearest, as ratios go. */
static const CudaWinner *find_winner(const CudaDevice *cuda, uint64_t signature, int64_t batch)
{
    const CudaWinner *best = NULL;
    double best_distance = INFINITY;
    for (int i = 0; i < cuda->n_winners; i++) {
        const CudaWinner *winner = &cuda->winners[i];
        double distance = fabs(log((double)winner->batch / (double)batch));
        if (winner->signature == signature && distance < best_distance) {
            best = winner;
            best_distance = distance;
        }
    }
    return best;
}

int cuda_winner(const CudaDevice *cuda, const CudaKernels *kernels, const PlanStep *step,
                int64_t batch)
{
    if (step->n_launches < 2 || !cuda->base.options.tune)
        return -1;
    const CudaWinner *winner = find_winner(cuda, signature_of(kernels, step), batch);
    bool usable = winner && winner->launch < step->n_launches
               && cuda_can_launch(cuda, kernels, &step->launches[winner->launch]);
    return usable ? winner->launch : -1;
}

static bool add_winner(CudaDevice *cuda, const CudaWinner *winner)
{
    CudaWinner *winners = realloc(cuda->winners, (size_t)(cuda->n_winners + 1) * sizeof *winners);
    if (!winners)
        return false;
    cuda->winners = winners;
    winners[cuda->n_winners++] = *winner;
    return true;
}

/* ---- the file -------------------------------------------------------------------------------- */

static void tuning_path(const CudaDevice *cuda, char path[4096])
{
    char facts[256], name[64];
    int length = snprintf(facts, sizeof facts, "%s %d %lld NVRTC %d.%d %s", cuda->name,
                          cuda->processors, (long long)cuda->memory, cuda->nvrtc.major,
                          cuda->nvrtc.minor, cuda->nvrtc.architecture);
    snprintf(name, sizeof name, "tuned-%016llx.txt",
             (unsigned long long)XXH64(facts, (size_t)length, 0));
    cache_path(&cuda->cache, name, path);
}

/* Adds what the file holds and is not known yet: another process may have written there. */
void cuda_tuning_read(CudaDevice *cuda)
{
    char path[4096];
    size_t size;
    tuning_path(cuda, path);
    char *text = cache_read(path, &size);
    for (char *at = text; at && *at; at += strcspn(at, "\n") + (at[strcspn(at, "\n")] != 0)) {
        unsigned long long signature;
        long long batch;
        int launch;
        if (sscanf(at, "%llx %lld %d", &signature, &batch, &launch) != 3 || batch < 1
            || launch < 0)
            continue;
        const CudaWinner *known = find_winner(cuda, signature, batch);
        if (!known || known->batch != batch)
            add_winner(cuda, &(CudaWinner){ signature, batch, launch });
    }
    free(text);
}

static bool write_tuning(CudaDevice *cuda, Error *error)
{
    char path[4096], *text = NULL;
    size_t size = 0;
    cuda_tuning_read(cuda);
    tuning_path(cuda, path);
    FILE *out = open_memstream(&text, &size);
    for (int i = 0; out && i < cuda->n_winners; i++)
        fprintf(out, "%016llx %lld %d\n", (unsigned long long)cuda->winners[i].signature,
                (long long)cuda->winners[i].batch, cuda->winners[i].launch);
    bool written = out && fclose(out) == 0 && cache_write(path, text, size, true, error);
    free(text);
    return written || (out ? false : fail(error, EXIT_ENVIRONMENT, "", "not enough memory"));
}

/* ---- timing ---------------------------------------------------------------------------------- */

/* Seconds of a launch that is queued `row` times. */
static bool time_row(CudaDevice *cuda, CudaKernels *kernels, const DeviceStep *step, int launch,
                     int64_t batch, int row, double *seconds, Error *error)
{
    float milliseconds = 0;
    if (!CUDA_CALL(cuda, error, cuEventRecord, kernels->events[0], cuda->compute))
        return false;
    for (int i = 0; i < row; i++)
        if (!cuda_launch(cuda, kernels, step, launch, batch, error))
            return false;
    if (!CUDA_CALL(cuda, error, cuEventRecord, kernels->events[1], cuda->compute)
        || !CUDA_CALL(cuda, error, cuEventSynchronize, kernels->events[1])
        || !CUDA_CALL(cuda, error, cuEventElapsedTime, &milliseconds, kernels->events[0],
                      kernels->events[1]))
        return false;
    *seconds = 1e-3 * (double)milliseconds / row;
    return true;
}

static bool time_launch(CudaDevice *cuda, CudaKernels *kernels, const DeviceStep *step, int launch,
                        int64_t batch, double *best, Error *error)
{
    double seconds;
    if (!time_row(cuda, kernels, step, launch, batch, 1, &seconds, error)
        || !time_row(cuda, kernels, step, launch, batch, 1, best, error))
        return false;
    int row = *best * MAX_ROW > ROW_SECONDS ? (int)ceil(ROW_SECONDS / *best) : MAX_ROW;
    for (int round = 0; round < ROUNDS; round++) {
        if (!time_row(cuda, kernels, step, launch, batch, row, &seconds, error))
            return false;
        if (round == 0 || seconds < *best)
            *best = seconds;
    }
    return true;
}

static bool tune_step(CudaDevice *cuda, CudaKernels *kernels, const DeviceStep *step,
                      int64_t batch, Error *error)
{
    CudaWinner winner = { signature_of(kernels, step->plan), batch, 0 };
    double least = INFINITY, seconds;
    for (int i = 0; i < step->plan->n_launches; i++) {
        if (!cuda_can_launch(cuda, kernels, &step->plan->launches[i]))
            continue;
        if (!time_launch(cuda, kernels, step, i, batch, &seconds, error))
            return false;
        if (cuda->base.options.verbose)
            cuda_say(cuda, "tune   %s: %d: %.1f us, %s", step->plan->label, i, 1e6 * seconds,
                     kernels->target->kernels[step->plan->launches[i].kernel].name);
        if (seconds < least) {
            least = seconds;
            winner.launch = i;
        }
    }
    return add_winner(cuda, &winner)
        || fail(error, EXIT_ENVIRONMENT, "", "not enough memory to tune a plan");
}

/* Whether a step has several launches and none of them was the fastest with this batch yet. */
static bool is_open(const CudaDevice *cuda, const CudaKernels *kernels, const PlanStep *step,
                    int64_t batch)
{
    if (usable_launches(cuda, kernels, step) < 2)
        return false;
    const CudaWinner *winner = find_winner(cuda, signature_of(kernels, step), batch);
    return !winner || winner->batch != batch;
}

bool cuda_wants_tuning(Device *device, const DeviceRun *run)
{
    CudaDevice *cuda = (CudaDevice *)device;
    const CudaKernels *kernels = (const CudaKernels *)run->kernels;
    for (int i = 0; i < kernels->n_choices; i++)
        if (kernels->choices[i].steps == run->steps && kernels->choices[i].batch == run->batch)
            return false; /* it ran already */
    for (int i = 0; i < run->n_steps; i++) {
        const PlanStep *step = run->steps[i].plan;
        if ((run->parts >> step->part & 1) && usable_launches(cuda, kernels, step) > 1
            && !find_winner(cuda, signature_of(kernels, step), run->batch))
            return true;
    }
    return false;
}

bool cuda_tune(Device *device, const DeviceRun *run, Error *error)
{
    CudaDevice *cuda = (CudaDevice *)device;
    CudaKernels *kernels = (CudaKernels *)run->kernels;
    int before = cuda->n_winners, launch;
    if (!cuda_enter(cuda, error) || !cuda_land_feeds(cuda, error)
        || !cuda_need_events(cuda, kernels, 2, error))
        return false;
    for (int i = 0; i < run->n_steps; i++) {
        const DeviceStep *step = &run->steps[i];
        if (!step_is_due(run, step->plan))
            continue;
        if (is_open(cuda, kernels, step->plan, run->batch)
            && !tune_step(cuda, kernels, step, run->batch, error))
            return false;
        if (!cuda_choose(cuda, kernels, step->plan, run->batch, &launch, error)
            || !cuda_launch(cuda, kernels, step, launch, run->batch, error))
            return false;
        const DeviceOptions *options = &device->options;
        if (options->tuning && !options->tuning(options->context, i + 1, run->n_steps))
            return fail(error, EXIT_INTERRUPTED, "", "interrupted while kernels were timed");
    }
    if (!CUDA_CALL(cuda, error, cuStreamSynchronize, cuda->compute))
        return false;
    cuda_forget_graphs(cuda, kernels);
    return cuda->n_winners == before || write_tuning(cuda, error);
}
