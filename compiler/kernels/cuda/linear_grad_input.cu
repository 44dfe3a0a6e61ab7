/* Gradient of linear for x: dx[f] = the sum over k of dy[k] * weight[k][f], with
 * f = (c * P + p) * Q + q. A thread does 8 channels of a pixel; dy is shared, THREADS * 8 of its
 * channels at a time.
 *
 * own buffers: weight [C][K * P * Q]
 * sizes: the standard ones; C 1 1 is dy, K P Q the result
 * shared memory: THREADS * 32, also for the sums
 */
#undef LEAST_BLOCKS
#define LEAST_BLOCKS 1

enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
};

/* Adds what `rows` rows of the weight from `row` on give; dy of them is shared. */
DEVICE void add_rows(const Arguments *a, v8 *y, int cb, int pixel, int row, int rows)
{
    const int *s = a->sizes;
    int pixels = s[SIZE_P] * s[SIZE_Q], channels = least(8, s[SIZE_K] - 8 * cb);
    int64_t count = (int64_t)s[SIZE_K] * pixels;
    const float *from = (const float *)a->buffers[0] + row * count + 8 * cb * pixels + pixel;
    for (int k = 0; k < rows; k++) {
        float dy = load_shared<float>(4 * (unsigned)k);
        EACH_LANE {
            if (i < channels)
                y->lane[i] += dy * load_fixed(from + k * count + i * pixels);
        }
    }
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), dy_blocks = channel_blocks(s[SIZE_C]);
    Walk walk = walk_of_thread(blocks, s[SIZE_P] * s[SIZE_Q], s[SIZE_PARTS], s[SIZE_PIXELS],
                               s[SIZE_LANES]);
    Accumulators sums;
    clear_y(&sums);
    int turns = divide_up(s[SIZE_PIXELS], walk.step);
    for (int turn = 0; turn < turns; turn++) {
        int i = walk.first + turn * walk.step;
        v8 y = splat8(0);
        for (int first = 0; first < dy_blocks; first += THREADS) {
            int kb = first + thread_index();
            barrier();
            if (kb < dy_blocks) {
                v8 dy = read_dy(a, walk.n, kb, 0, 0);
                store_shared(32 * (unsigned)thread_index(), floats_words(dy, 0));
                store_shared(32 * (unsigned)thread_index() + 16, floats_words(dy, 1));
            }
            barrier();
            if (i < walk.end)
                add_rows(a, &y, walk.cb, i, 8 * first, least(8 * THREADS, s[SIZE_C] - 8 * first));
        }
        if (i < walk.end)
            write_y(a, walk.n, walk.cb, i / s[SIZE_Q], i % s[SIZE_Q], y, &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, s[SIZE_LANES], &sums, 0);
}
