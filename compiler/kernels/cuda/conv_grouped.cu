/* Convolution in groups of any size; transposed, or the gradient of one for its input, as well. A
 * thread does 8 output channels of a few pixels, a block of threads LANES such blocks of channels.
 * For one block of 8 input channels after the other, and some taps at a time, the weights are
 * shared as [lane][tap][input channel][output channel], zeros between channels of different groups.
 *
 * own buffers: weights [K][C / GROUPS][kernel][kernel]; if TRANSPOSED [C][K / GROUPS]...
 * Reads read_x, writes write_y.
 * grid: PARTS * groups of LANES channel blocks a sample; shared memory: LANES * LANE_BYTES
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION, SIZE_GROUPS, SIZE_TRANSPOSED,
    SIZE_RANGE,               /* blocks of input channels that a block of output channels meets */
};
enum {
    OWN_PIXELS = 4,           /* of a thread: PIXELS is OWN_PIXELS * THREADS / LANES */
    MOST_TAPS = 9,            /* at a time */
    LANE_BYTES = MOST_TAPS * 256 + 16,
};

/* The first block of input channels that output block kb meets. */
DEVICE int first_block(const int *s, int kb)
{
    return 8 * kb / (s[SIZE_K] / s[SIZE_GROUPS]) * (s[SIZE_C] / s[SIZE_GROUPS]) / 8;
}

/* 0 where the channels are of different groups, or there are none. */
DEVICE float weight_of(const Arguments *a, int k, int c, int tap)
{
    const int *s = a->sizes;
    int K = s[SIZE_K] / s[SIZE_GROUPS], C = s[SIZE_C] / s[SIZE_GROUPS];
    int taps = s[SIZE_KERNEL] * s[SIZE_KERNEL];
    if (k >= s[SIZE_K] || c >= s[SIZE_C] || k / K != c / C)
        return 0;
    int64_t row = s[SIZE_TRANSPOSED] ? (int64_t)c * K + k % K : (int64_t)k * C + c % C;
    return load_fixed((const float *)a->buffers[0] + row * taps + tap);
}

DEVICE void share_weights(const Arguments *a, int first_kb, int step, int first_tap, int taps)
{
    const int *s = a->sizes;
    for (int i = thread_index(); i < s[SIZE_LANES] * taps * 64; i += THREADS) {
        int lane = i / 64 / taps, tap = i / 64 % taps, kb = first_kb + lane;
        float weight = weight_of(a, 8 * kb + i % 8, 8 * (first_block(s, kb) + step) + i / 8 % 8,
                                 first_tap + tap);
        store_shared((unsigned)(lane * LANE_BYTES + (tap * 64 + i % 64) * 4), weight);
    }
}

/* The row (or column) of x that tap `k` reads for one of the result; negative if there is none. */
DEVICE int x_place(const Arguments *a, int p, int k, int size)
{
    const int *s = a->sizes;
    int place;
    if (s[SIZE_TRANSPOSED]) {
        place = p + s[SIZE_PADDING] - k * s[SIZE_DILATION];
        if (place < 0 || place % s[SIZE_STRIDE])
            return -1;
        place /= s[SIZE_STRIDE];
    } else {
        place = p * s[SIZE_STRIDE] - s[SIZE_PADDING] + k * s[SIZE_DILATION];
    }
    return place < size ? place : -1;
}

DEVICE void add_tap(v8 y[OWN_PIXELS], const v8 x[OWN_PIXELS], unsigned weights)
{
    UNROLL for (int c = 0; c < 8; c++) {
        v8 weight = words_floats(load_shared<word4>(weights + 32 * (unsigned)c),
                                 load_shared<word4>(weights + 32 * (unsigned)c + 16));
        UNROLL for (int j = 0; j < OWN_PIXELS; j++)
            y[j] += x[j].lane[c] * weight;
    }
}

/* What some taps of one block of input channels give. */
DEVICE void add_taps(const Arguments *a, const Walk &walk, int cb, int first_tap, int taps,
                     v8 y[OWN_PIXELS])
{
    const int *s = a->sizes;
    for (int tap = 0; tap < taps; tap++) {
        int r = (first_tap + tap) / s[SIZE_KERNEL], column = (first_tap + tap) % s[SIZE_KERNEL];
        v8 x[OWN_PIXELS];
        UNROLL for (int j = 0; j < OWN_PIXELS; j++) {
            int i = walk.first + j * walk.step;
            int h = i < walk.end ? x_place(a, i / s[SIZE_Q], r, s[SIZE_H]) : -1;
            int w = x_place(a, i % s[SIZE_Q], column, s[SIZE_W]);
            x[j] = splat8(0);
            if (h >= 0 && w >= 0)
                x[j] = read_x(a, walk.n, cb, h, w);
        }
        add_tap(y, x, (unsigned)(thread_index() % s[SIZE_LANES] * LANE_BYTES + tap * 256));
    }
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    int x_blocks = channel_blocks(s[SIZE_C]), all_taps = s[SIZE_KERNEL] * s[SIZE_KERNEL];
    Walk walk = walk_of_thread(blocks, s[SIZE_P] * s[SIZE_Q], s[SIZE_PARTS], s[SIZE_PIXELS], lanes);
    v8 y[OWN_PIXELS];
    UNROLL for (int j = 0; j < OWN_PIXELS; j++)
        y[j] = splat8(0);
    for (int step = 0; step < s[SIZE_RANGE]; step++) {
        int cb = first_block(s, walk.cb) + step;
        for (int tap = 0; tap < all_taps; tap += MOST_TAPS) {
            int taps = least(MOST_TAPS, all_taps - tap);
            barrier();
            share_weights(a, walk.cb - thread_index() % lanes, step, tap, taps);
            barrier();
            if (cb < x_blocks && walk.first < walk.end)
                add_taps(a, walk, cb, tap, taps, y);
        }
    }
    Accumulators sums;
    clear_y(&sums);
    UNROLL for (int j = 0; j < OWN_PIXELS; j++) {
        int i = walk.first + j * walk.step;
        if (i < walk.end)
            write_y(a, walk.n, walk.cb, i / s[SIZE_Q], i % s[SIZE_Q], y[j], &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
