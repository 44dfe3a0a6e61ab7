/* The norm of all gradients together, and from it the scale that makes it the state's `clip` at most,
 * as PyTorch's clip_grad_norm_: min(1, clip / (norm + 1e-6)). Sums of squares of equal chunks are
 * added in their order, so that the number of threads changes no bit.
 *
 * own buffers: gradients, a double for each CHUNK of them, state (PlanState; its gradient_scale is
 * written)
 * sizes: count of floats (a multiple of 16); CHUNK    scalars: none    scratch: 0 */
static double squares(const float *g, int64_t count)
{
    double sums[16] = { 0 };
    for (int64_t i = 0; i < count; i += 16)
        for (int lane = 0; lane < 16; lane++)
            sums[lane] += (double)g[i + lane] * (double)g[i + lane];
    for (int lane = 1; lane < 16; lane++)
        sums[0] += sums[lane];
    return sums[0];
}

void KERNEL(const KernelArguments *a)
{
    const float *g = a->buffers[0];
    double *partials = a->buffers[1], sum = 0;
    PlanState *state = a->buffers[2];
    int64_t count = a->sizes[0], chunk = a->sizes[1], parts = (count + chunk - 1) / chunk;
#pragma omp parallel for num_threads(a->threads) if (parts > 1)
    for (int64_t i = 0; i < parts; i++)
        partials[i] = squares(g + i * chunk, min64(chunk, count - i * chunk));
    for (int64_t i = 0; i < parts; i++)
        sum += partials[i];
    double scale = state->clip / (sqrt(sum) + 1e-6);
    state->gradient_scale = scale < 1 ? scale : 1;
}
