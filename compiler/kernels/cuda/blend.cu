/* y = keep y + take x for a slab: sums of gradients over batches, running averages of parameters. The
 * two factors are the state's, so that a recorded graph of launches stays valid.
 *
 * own buffers: y, x, state (PlanState)
 * sizes: count of floats (a multiple of 16); which of the state's blends    scalars: none
 * blocks: one for 16 floats a thread    own shared bytes: 0 */
enum { THREAD_FLOATS = 16 };

DEVICE uint32_t blended(float keep, uint32_t y, float take, uint32_t x)
{
    return float_bits(keep * bits_float(y) + take * bits_float(x));
}

ENTRY
{
    const Arguments *a = &arguments;
    word4 *y = (word4 *)a->buffers[0];
    const word4 *x = (const word4 *)a->buffers[1];
    const PlanState *state = (const PlanState *)a->buffers[2];
    float keep = (float)load_fixed(&state->blends[a->sizes[1]][0]);
    float take = (float)load_fixed(&state->blends[a->sizes[1]][1]);
    int end = a->sizes[0] / 4;
    int first = block_index() * THREADS * (THREAD_FLOATS / 4) + thread_index();
    UNROLL for (int k = 0; k < THREAD_FLOATS / 4; k++) {
        int i = first + k * THREADS;
        if (i < end) {
            word4 old = load_global(y + i), more = load_global(x + i);
            word4 sum = { blended(keep, old.x, take, more.x), blended(keep, old.y, take, more.y),
                          blended(keep, old.z, take, more.z), blended(keep, old.w, take, more.w) };
            store_global(y + i, sum);
        }
    }
}
