/* Reduces the channels of each pixel: [C,H,W] to [1,H,W]. One of REDUCE_SUM, REDUCE_MEAN,
 * REDUCE_MAX is defined. LANES threads side by side do the channel blocks of a pixel in turn, lane
 * by lane, then exchange what they have.
 *
 * own buffers: none    own scalars: none    own shared bytes: 0
 * sizes: C H W of x; K P Q of the result (1 H W); parts a sample; pixels of the result a part;
 * threads a pixel (up to 32) */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};

/* Of the channel blocks first, first + step, ...; the lanes behind the last channel never win. */
DEVICE float reduce_own_blocks(const Arguments *a, int n, int first, int step, int h, int w)
{
    int channels = a->sizes[SIZE_C];
#ifdef REDUCE_MAX
    v8 best = splat8(-INFINITY);
    for (int cb = first; cb < channel_blocks(channels); cb += step) {
        v8 value = select8(channel_mask8(channels, cb), read_x(a, n, cb, h, w), splat8(-INFINITY));
        best = cb == first ? value : max8(best, value);
    }
    return highest8(best);
#else
    v8 sum = splat8(0.0f);
    for (int cb = first; cb < channel_blocks(channels); cb += step)
        sum += read_x(a, n, cb, h, w);
    return sum8(sum);
#endif
}

/* Of `lanes` threads side by side; right in the first of them. */
DEVICE float reduce_threads(float value, int lanes)
{
    for (int mask = 1; mask < lanes; mask *= 2) {
        float other = shuffle_xor(value, mask);
#ifdef REDUCE_MAX
        value = value < other ? other : value;
#else
        value += other;
#endif
    }
    return value;
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int lanes = s[SIZE_LANES], lane = thread_index() % lanes, step = THREADS / lanes;
    int n = block_index() / s[SIZE_PARTS], part = block_index() % s[SIZE_PARTS];
    int end = least((part + 1) * s[SIZE_PIXELS], s[SIZE_P] * s[SIZE_Q]);
    Accumulators sums;
    clear_y(&sums);
    for (int first = part * s[SIZE_PIXELS]; first < end; first += step) {
        int i = first + thread_index() / lanes, p = i / s[SIZE_Q], q = i % s[SIZE_Q];
        float value = i < end ? reduce_own_blocks(a, n, lane, lanes, p, q) : 0.0f;
        value = reduce_threads(value, lanes);
#ifdef REDUCE_MEAN
        value = value / (float)s[SIZE_C];
#endif
        v8 result = splat8(0.0f);
        result.lane[0] = value;
        if (lane == 0 && i < end)
            write_y(a, n, 0, p, q, result, &sums);
    }
    finish_block(a, n, part, lane, 1, lanes, &sums, 0);
}
