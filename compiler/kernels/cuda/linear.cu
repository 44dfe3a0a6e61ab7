/* Fully connected layer: y[k] = the sum over f of weight[k][f] * x[f], f = (c * H + h) * W + w. A
 * block of threads does LANES channel blocks of a sample: THREADS / LANES neighbours share one,
 * take turns at the features, 8 channels of a pixel at a time, and add up in the order of a tree.
 * The bias is added by write_y.
 *
 * own buffers: weight [K][C * H * W]
 * sizes: the standard ones; K 1 1 is the result, PARTS and PIXELS are 1
 * shared memory: THREADS * 32 + THREADS * 32 * sums
 */
#undef LEAST_BLOCKS
#define LEAST_BLOCKS 1

enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
};

/* What the `turn`-th of `turns` threads adds to 8 results. */
DEVICE v8 add_features(const Arguments *a, int n, int kb, int turn, int turns)
{
    const int *s = a->sizes;
    int pixels = s[SIZE_H] * s[SIZE_W], count = s[SIZE_C] * pixels;
    const float *weight = (const float *)a->buffers[0] + (int64_t)8 * kb * count;
    int rows = least(8, s[SIZE_K] - 8 * kb);
    v8 y = splat8(0);
    for (int i = turn; i < channel_blocks(s[SIZE_C]) * pixels; i += turns) {
        int cb = i / pixels, pixel = i % pixels, channels = least(8, s[SIZE_C] - 8 * cb);
        v8 x = read_x(a, n, cb, pixel / s[SIZE_W], pixel % s[SIZE_W]);
        const float *from = weight + 8 * cb * pixels + pixel;
        UNROLL for (int k = 0; k < 8; k++)
            EACH_LANE {
                if (k < rows && i < channels)
                    y.lane[k] += x.lane[i] * load_fixed(from + (int64_t)k * count + i * pixels);
            }
    }
    return y;
}

DEVICE v8 load_sums(unsigned at)
{
    return words_floats(load_shared<word4>(at), load_shared<word4>(at + 16));
}

DEVICE void store_sums(unsigned at, const v8 &sums)
{
    store_shared(at, floats_words(sums, 0));
    store_shared(at + 16, floats_words(sums, 1));
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    int groups = divide_up(blocks, lanes);
    int thread = thread_index(), turns = THREADS / lanes, turn = thread % turns;
    int n = block_index() / groups, first = block_index() % groups * lanes;
    int own = first + thread / turns, kb = first + thread;
    unsigned at = 32 * (unsigned)thread;
    v8 y = own < blocks ? add_features(a, n, own, turn, turns) : splat8(0);
    store_sums(at, y);
    for (int half = turns / 2; half > 0; half /= 2) {
        barrier();
        if (turn < half) {
            y += load_sums(at + 32 * (unsigned)half);
            store_sums(at, y);
        }
    }
    barrier();
    Accumulators sums;
    clear_y(&sums);
    if (thread < lanes && kb < blocks)
        write_y(a, n, kb, 0, 0, load_sums(at * (unsigned)turns), &sums);
    finish_block(a, n, 0, kb, blocks, lanes, &sums, 32 * THREADS);
}
