/* The norm of all gradients together, and from it the scale that makes it the state's `clip` at most,
 * as PyTorch's clip_grad_norm_: min(1, clip / (norm + 1e-6)). Two launches: blocks of the first add
 * up squares, each of CHUNK floats; the second, of one block, adds up their sums. Both in a fixed
 * order.
 *
 * own buffers: gradients, a double for each block of the first launch, state (PlanState; its
 * gradient_scale is changed)
 * sizes: count of floats (a multiple of 16); CHUNK; 0: the first launch, 1: the second
 * scalars: none    own shared bytes: 8 * THREADS */

/* Of a value of each thread. */
DEVICE double sum_threads(double value)
{
    int thread = thread_index();
    store_shared(8 * (unsigned)thread, value);
    barrier();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (thread < half)
            store_shared(8 * (unsigned)thread,
                         load_shared<double>(8 * (unsigned)thread)
                             + load_shared<double>(8 * (unsigned)(thread + half)));
        barrier();
    }
    return load_shared<double>(0);
}

ENTRY
{
    const Arguments *a = &arguments;
    double *partials = (double *)a->buffers[1], sum = 0.0;
    int count = a->sizes[0], chunk = a->sizes[1], thread = thread_index();
    if (a->sizes[2] == 0) {
        const float *g = (const float *)a->buffers[0];
        int first = block_index() * chunk, end = least(first + chunk, count);
        for (int i = first + thread; i < end; i += THREADS) {
            double value = (double)load_global(g + i);
            sum += value * value;
        }
        sum = sum_threads(sum);
        if (thread == 0)
            store_global(partials + block_index(), sum);
    } else {
        for (int i = thread; i < divide_up(count, chunk); i += THREADS)
            sum += load_global(partials + i);
        sum = sum_threads(sum);
        PlanState *state = (PlanState *)a->buffers[2];
        double *word = (double *)state + thread, scale = load_global(&state->clip) / (sqrt(sum) + 1e-6);
        if (word < (double *)(state + 1))  /* results are written whole */
            store_global(word, word != &state->gradient_scale ? load_global(word)
                               : scale < 1.0                  ? scale : 1.0);
    }
}
