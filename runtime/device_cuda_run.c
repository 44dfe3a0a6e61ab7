/* Running programs on CUDA.
 *
 * A program is recorded as a graph when it first runs with a batch, and replayed from then on: one
 * call for hundreds of kernels. What changes between runs (the learning rate, the optimiser's step,
 * dropout's seed) is read from the device's memory, so a graph never has to be changed. When times
 * are asked for, steps are queued one by one with events between them. With SEG_DEBUG each is
 * waited for, so that an error is known by the kernel that caused it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_cuda.h"

enum { DEBUG_WAIT = 1, DEBUG_PRINT = 2 };

static CudaKernels *kernels_of(const DeviceRun *run) { return (CudaKernels *)run->kernels; }

static bool is_due(const DeviceRun *run, int step)
{
    return step_is_due(run, run->steps[step].plan);
}

/* ---- one step -------------------------------------------------------------------------------- */

bool cuda_can_launch(const CudaDevice *cuda, const CudaKernels *kernels, const PlanLaunch *launch)
{
    return kernels->kernels[launch->kernel].function
        && launch->shared_bytes <= cuda->shared_bytes;
}

static void put(char **at, const void *bytes, size_t size)
{
    if (size)
        memcpy(*at, bytes, size);
    *at += size;
}

/* struct Arguments of the kernel: see PLAN_CUDA_ARGUMENTS. */
static void pack_arguments(const DeviceStep *step, int64_t batch, char *at)
{
    const PlanStep *plan = step->plan;
    put(&at, step->buffers, (size_t)plan->n_buffers * sizeof *step->buffers);
    put(&at, plan->scalars, (size_t)plan->n_scalars * sizeof *plan->scalars);
    for (int i = 0; i < plan->n_sizes; i++)
        put(&at, &(int32_t){ (int32_t)plan->sizes[i] }, sizeof(int32_t));
    put(&at, &(int32_t){ (int32_t)batch }, sizeof(int32_t));
}

bool cuda_launch(CudaDevice *cuda, const CudaKernels *kernels, const DeviceStep *step, int index,
                 int64_t batch, Error *error)
{
    if (cuda_is_matmul(kernels, step->plan))
        return cuda_matmul(cuda, step, batch, error)
            && (cuda->debug < DEBUG_WAIT
                || CUDA_CALL(cuda, error, cuStreamSynchronize, cuda->compute));
    const PlanLaunch *launch = &step->plan->launches[index];
    const CudaKernel *kernel = &kernels->kernels[launch->kernel];
    _Alignas(16) char arguments[PLAN_CUDA_ARGUMENTS + 16] = { 0 };
    void *parameters[] = { arguments };
    int64_t blocks = launch->blocks + batch * launch->blocks_per_sample;
    if (blocks > INT32_MAX)
        return fail(error, EXIT_USER, "use a smaller batch",
                    "step '%s' would have %lld thread blocks with batch %lld, a GPU has 2147483647",
                    step->plan->label, (long long)blocks, (long long)batch);
    pack_arguments(step, batch, arguments);
    if (cuda->debug >= DEBUG_PRINT)
        cuda_say(cuda, "launch %s: %s <<<%lld, %d, %lld>>>", step->plan->label,
                 kernels->target->kernels[launch->kernel].name, (long long)blocks,
                 launch->threads, (long long)launch->shared_bytes);
    bool queued = CUDA_CALL(cuda, error, cuLaunchKernel, kernel->function, (unsigned)blocks, 1, 1,
                            (unsigned)launch->threads, 1, 1, (unsigned)launch->shared_bytes,
                            cuda->compute, parameters, NULL);
    if (queued && cuda->debug >= DEBUG_WAIT)
        queued = CUDA_CALL(cuda, error, cuStreamSynchronize, cuda->compute);
    if (queued)
        return true;
    cuda_add_text(error, "; step '%.200s', kernel %.200s in %.300s", step->plan->label,
                  kernels->target->kernels[launch->kernel].name, kernel->source);
    if (cuda->lost.code && error)
        cuda->lost = *error;
    return false;
}

/* ---- which launches -------------------------------------------------------------------------- */

static bool no_launch(const CudaDevice *cuda, const CudaKernels *kernels, const PlanStep *step,
                      Error *error)
{
    int64_t least = INT64_MAX;
    for (int i = 0; i < step->n_launches; i++)
        if (step->launches[i].shared_bytes < least)
            least = step->launches[i].shared_bytes;
    return fail(error, EXIT_ENVIRONMENT, "use another --precision, or -d cpu",
                "step '%s', kernel %s: it needs %lld bytes of shared memory, %s has %d a block",
                step->label, kernels->target->kernels[step->kernel].name, (long long)least,
                cuda->name, cuda->shared_bytes);
}

bool cuda_choose(const CudaDevice *cuda, const CudaKernels *kernels, const PlanStep *step,
                 int64_t batch, int *chosen, Error *error)
{
    *chosen = cuda_is_matmul(kernels, step) ? 0 : cuda_winner(cuda, kernels, step, batch);
    for (int i = 0; i < step->n_launches && *chosen < 0; i++)
        if (cuda_can_launch(cuda, kernels, &step->launches[i]))
            *chosen = i;
    return *chosen >= 0 || no_launch(cuda, kernels, step, error);
}

/* The launch of every step of the run's parts; NULL after an error. */
static const int *choice_of(const CudaDevice *cuda, const DeviceRun *run, Error *error)
{
    CudaKernels *kernels = kernels_of(run);
    for (int i = 0; i < kernels->n_choices; i++)
        if (kernels->choices[i].steps == run->steps && kernels->choices[i].batch == run->batch
            && kernels->choices[i].parts == run->parts)
            return kernels->choices[i].launches;
    CudaChoice *choices = realloc(kernels->choices,
                                  (size_t)(kernels->n_choices + 1) * sizeof *choices);
    int *launches = calloc((size_t)run->n_steps + 1, sizeof *launches);
    if (choices)
        kernels->choices = choices;
    if (!choices || !launches) {
        free(launches);
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory to run a plan");
        return NULL;
    }
    for (int i = 0; i < run->n_steps; i++)
        if ((run->parts >> run->steps[i].plan->part & 1)
            && !cuda_choose(cuda, kernels, run->steps[i].plan, run->batch, &launches[i], error)) {
            free(launches);
            return NULL;
        }
    choices[kernels->n_choices++] = (CudaChoice){ run->steps, run->batch, run->parts, launches };
    return launches;
}

/* ---- step by step ---------------------------------------------------------------------------- */

bool cuda_need_events(CudaDevice *cuda, CudaKernels *kernels, int n, Error *error)
{
    CUevent *events = realloc(kernels->events, (size_t)n * sizeof *events);
    if (!events)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the profile");
    kernels->events = events;
    while (kernels->n_events < n) {
        if (!CUDA_CALL(cuda, error, cuEventCreate, &events[kernels->n_events], CU_EVENT_DEFAULT))
            return false;
        kernels->n_events++;
    }
    return true;
}

/* Event i + 1 stands behind step i. */
static bool run_steps(CudaDevice *cuda, const DeviceRun *run, Error *error)
{
    CudaKernels *kernels = kernels_of(run);
    const int *launches = choice_of(cuda, run, error);
    if (!launches || (run->times && !cuda_need_events(cuda, kernels, run->n_steps + 1, error)))
        return false;
    CUevent *events = kernels->events;
    if (run->times && !CUDA_CALL(cuda, error, cuEventRecord, events[0], cuda->compute))
        return false;
    for (int i = 0; i < run->n_steps; i++) {
        if (is_due(run, i)
            && !cuda_launch(cuda, kernels, &run->steps[i], launches[i], run->batch, error))
            return false;
        if (run->times && !CUDA_CALL(cuda, error, cuEventRecord, events[i + 1], cuda->compute))
            return false;
    }
    if (!run->times)
        return true;
    if (!CUDA_CALL(cuda, error, cuStreamSynchronize, cuda->compute))
        return false;
    for (int i = 0; i < run->n_steps; i++) {
        float milliseconds = 0;
        if (is_due(run, i)
            && !CUDA_CALL(cuda, error, cuEventElapsedTime, &milliseconds, events[i],
                          events[i + 1]))
            return false;
        run->times[i] = 1e-3 * (double)milliseconds;
    }
    return true;
}

/* ---- graphs ---------------------------------------------------------------------------------- */

void cuda_forget_graphs(CudaDevice *cuda, CudaKernels *kernels)
{
    for (int i = 0; i < kernels->n_graphs; i++)
        if (kernels->graphs[i].exec)
            cuda->driver.cuGraphExecDestroy(kernels->graphs[i].exec);
    for (int i = 0; i < kernels->n_choices; i++)
        free(kernels->choices[i].launches);
    free(kernels->choices);
    kernels->choices = NULL;
    kernels->n_graphs = kernels->n_choices = 0;
}

static bool uses_matmul(const DeviceRun *run)
{
    for (int i = 0; i < run->n_steps; i++)
        if (is_due(run, i) && cuda_is_matmul(kernels_of(run), run->steps[i].plan))
            return true;
    return false;
}

static CudaGraph *find_graph(CudaKernels *kernels, const DeviceRun *run)
{
    for (int i = 0; i < kernels->n_graphs; i++) {
        CudaGraph *graph = &kernels->graphs[i];
        if (graph->steps == run->steps && graph->batch == run->batch && graph->once == run->once
            && graph->parts == run->parts)
            return graph;
    }
    return NULL;
}

/* A place for one more; the graph that was not used for longest goes. NULL after an error. */
static CudaGraph *place_for_graph(CudaDevice *cuda, CudaKernels *kernels, Error *error)
{
    if (kernels->n_graphs < CUDA_GRAPHS)
        return &kernels->graphs[kernels->n_graphs];
    CudaGraph *oldest = &kernels->graphs[0];
    for (int i = 1; i < CUDA_GRAPHS; i++)
        if (kernels->graphs[i].used < oldest->used)
            oldest = &kernels->graphs[i];
    if (!CUDA_CALL(cuda, error, cuStreamSynchronize, cuda->compute))
        return NULL;
    if (oldest->exec)
        cuda->driver.cuGraphExecDestroy(oldest->exec);
    *oldest = kernels->graphs[--kernels->n_graphs];
    return &kernels->graphs[kernels->n_graphs];
}

static bool record(CudaDevice *cuda, const DeviceRun *run, const int *launches, CUgraph *graph,
                   Error *error)
{
    if (!CUDA_CALL(cuda, error, cuStreamBeginCapture_v2, cuda->compute,
                   CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        return false;
    bool queued = true;
    for (int i = 0; i < run->n_steps && queued; i++)
        if (is_due(run, i))
            queued = cuda_launch(cuda, kernels_of(run), &run->steps[i], launches[i], run->batch,
                                 error);
    Error ending = { 0 };
    bool ended = CUDA_CALL(cuda, &ending, cuStreamEndCapture, cuda->compute, graph);
    if (queued && !ended && error)
        *error = ending;
    return queued && ended;
}

static bool make_graph(CudaDevice *cuda, const DeviceRun *run, CUgraphExec *exec, Error *error)
{
    const int *launches = choice_of(cuda, run, error);
    CUgraph graph = NULL;
    bool made = launches && record(cuda, run, launches, &graph, error)
             && CUDA_CALL(cuda, error, cuGraphInstantiateWithFlags, exec, graph, 0);
    if (graph)
        cuda->driver.cuGraphDestroy(graph);
    return made;
}

static bool run_graph(CudaDevice *cuda, const DeviceRun *run, Error *error)
{
    CudaKernels *kernels = kernels_of(run);
    CudaGraph *graph = find_graph(kernels, run);
    if (!graph) {
        graph = place_for_graph(cuda, kernels, error);
        if (!graph)
            return false;
        *graph = (CudaGraph){ .steps = run->steps, .batch = run->batch, .once = run->once,
                              .parts = run->parts };
        kernels->n_graphs++;
        /* cuBLAS chooses and loads its kernels when it is first called with these sizes. */
        if (uses_matmul(run))
            return run_steps(cuda, run, error);
    }
    graph->used = ++kernels->runs;
    return (graph->exec || make_graph(cuda, run, &graph->exec, error))
        && CUDA_CALL(cuda, error, cuGraphLaunch, graph->exec, cuda->compute);
}

/* ---- runs ------------------------------------------------------------------------------------ */

bool cuda_run(Device *device, const DeviceRun *run, Error *error)
{
    CudaDevice *cuda = (CudaDevice *)device;
    if (!cuda_enter(cuda, error) || !cuda_land_feeds(cuda, error))
        return false;
    int due = 0;
    for (int i = 0; i < run->n_steps; i++)
        due += is_due(run, i);
    if (run->times || cuda->debug >= DEBUG_WAIT)
        return run_steps(cuda, run, error);
    return due == 0 || run_graph(cuda, run, error);
}

bool cuda_synchronise(Device *device, Error *error)
{
    CudaDevice *cuda = (CudaDevice *)device;
    return cuda_enter(cuda, error)
        && CUDA_CALL(cuda, error, cuStreamSynchronize, cuda->compute);
}
