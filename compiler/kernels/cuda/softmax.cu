/* Softmax over the channels of each pixel: exp(x - highest) / sum, which no x can overflow. First
 * the highest value and the sum of every pixel of the part, by LANES threads side by side; then the
 * result, LANES channel blocks after the others.
 *
 * own buffers: none    own scalars: none    own shared bytes: 8 * pixels a part
 * sizes: C H W of x; K P Q of the result; parts a sample; pixels of the result a part; channel
 * blocks (and threads a pixel) at a time */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};

/* Of the channel blocks first, first + step, ... */
DEVICE float highest_of_own(const Arguments *a, int n, int first, int step, int p, int q)
{
    int channels = a->sizes[SIZE_C];
    v8 best = splat8(-INFINITY);
    for (int cb = first; cb < channel_blocks(channels); cb += step) {
        v8 value = select8(channel_mask8(channels, cb), read_x(a, n, cb, p, q), splat8(-INFINITY));
        best = max8(best, value);
    }
    return highest8(best);
}

DEVICE float sum_of_own(const Arguments *a, int n, int first, int step, int p, int q, float highest)
{
    int channels = a->sizes[SIZE_C];
    v8 sum = splat8(0.0f);
    for (int cb = first; cb < channel_blocks(channels); cb += step)
        sum += keep8(channel_mask8(channels, cb), exp8(read_x(a, n, cb, p, q) - highest));
    return sum8(sum);
}

/* Pixel first + i of the part: the highest value at byte 8 * i, 1 / sum behind it. */
DEVICE void measure(const Arguments *a, int n, int first, int end)
{
    const int *s = a->sizes;
    int lanes = s[SIZE_LANES], lane = thread_index() % lanes;
    for (int begin = first; begin < end; begin += THREADS / lanes) {
        int i = begin + thread_index() / lanes, p = i / s[SIZE_Q], q = i % s[SIZE_Q];
        float highest = i < end ? highest_of_own(a, n, lane, lanes, p, q) : 0.0f;
        for (int mask = 1; mask < lanes; mask *= 2) {
            float other = shuffle_xor(highest, mask);
            highest = highest < other ? other : highest;
        }
        float sum = i < end ? sum_of_own(a, n, lane, lanes, p, q, highest) : 0.0f;
        for (int mask = 1; mask < lanes; mask *= 2)
            sum += shuffle_xor(sum, mask);
        if (lane == 0 && i < end) {
            store_shared((unsigned)(i - first) * 8, highest);
            store_shared((unsigned)(i - first) * 8 + 4, 1.0f / sum);
        }
    }
}

DEVICE void write_part(const Arguments *a, int n, int part, int cb, int first, int end)
{
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    m8 channels = channel_mask8(s[SIZE_K], cb);
    Accumulators sums;
    clear_y(&sums);
    if (cb < blocks)
        for (int i = first + thread_index() / lanes; i < end; i += THREADS / lanes) {
            int p = i / s[SIZE_Q], q = i % s[SIZE_Q];
            float highest = load_shared<float>((unsigned)(i - first) * 8);
            float inverse = load_shared<float>((unsigned)(i - first) * 8 + 4);
            v8 value = exp8(read_x(a, n, cb, p, q) - highest) * inverse;
            write_y(a, n, cb, p, q, keep8(channels, value), &sums);
        }
    finish_block(a, n, part, cb, blocks, lanes, &sums, (unsigned)s[SIZE_PIXELS] * 8);
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int n = block_index() / s[SIZE_PARTS], part = block_index() % s[SIZE_PARTS];
    int lanes = s[SIZE_LANES], first = part * s[SIZE_PIXELS];
    int end = least(first + s[SIZE_PIXELS], s[SIZE_P] * s[SIZE_Q]);
    measure(a, n, first, end);
    barrier();
    for (int cb = 0; cb < channel_blocks(s[SIZE_K]); cb += lanes)
        write_part(a, n, part, cb + thread_index() % lanes, first, end);
}
