/* y = keep y + take x for a slab: sums of gradients over batches, running averages of parameters. The
 * two factors are the state's, since they change from step to step.
 *
 * own buffers: y, x, state (PlanState)
 * sizes: count of floats (a multiple of 16); which of the state's blends
 * scalars: none    scratch: 0 */
enum { CHUNK = 8192 };

void KERNEL(const KernelArguments *a)
{
    float *y = a->buffers[0];
    const float *x = a->buffers[1];
    const PlanState *state = a->buffers[2];
    const float keep = (float)state->blends[a->sizes[1]][0];
    const float take = (float)state->blends[a->sizes[1]][1];
    int64_t count = a->sizes[0];
#pragma omp parallel for num_threads(a->threads) if (count > CHUNK)
    for (int64_t first = 0; first < count; first += CHUNK)
        for (int64_t i = first, end = min64(first + CHUNK, count); i < end; i++)
            y[i] = keep * y[i] + take * x[i];
}
