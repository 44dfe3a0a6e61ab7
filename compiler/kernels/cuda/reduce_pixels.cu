/* Reduces the pixels of each channel: [C,H,W] to [C,1,1]. One of REDUCE_SUM, REDUCE_MEAN,
 * REDUCE_MAX is defined. A thread block does LANES channel blocks of a sample: each thread every
 * THREADS / LANES-th pixel, a few of them at a time, then all together in the order of a tree.
 *
 * own buffers: none    own scalars: none    own shared bytes: 32 * THREADS
 * sizes: C H W of x; K P Q of the result (C 1 1); parts a sample (1); pixels of the result a part
 * (1); channel blocks a thread block */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};
enum { BATCH = 4 };

DEVICE v8 reduced(v8 a, v8 b)
{
#ifdef REDUCE_MAX
    return max8(a, b);
#else
    return a + b;
#endif
}

DEVICE v8 reduce_own_pixels(const Arguments *a, int n, int cb, int first, int step)
{
    const int *s = a->sizes;
    int pixels = s[SIZE_H] * s[SIZE_W];
#ifdef REDUCE_MAX
    const v8 neutral = splat8(-INFINITY);
#else
    const v8 neutral = splat8(0.0f);
#endif
    v8 sum = neutral;
    if (first < pixels)
        sum = read_x(a, n, cb, first / s[SIZE_W], first % s[SIZE_W]);
    for (int i = first + step; i < pixels; i += BATCH * step) {
        v8 value[BATCH];
        UNROLL for (int k = 0; k < BATCH; k++) {
            int at = i + k * step;
            value[k] = neutral;
            if (at < pixels)
                value[k] = read_x(a, n, cb, at / s[SIZE_W], at % s[SIZE_W]);
        }
        UNROLL for (int k = 0; k < BATCH; k++)
            sum = reduced(sum, value[k]);
    }
    return sum;
}

/* The values of all threads whose number is equal modulo `lanes`, in the threads below `lanes`. */
DEVICE v8 reduce_threads(v8 value, int lanes)
{
    int thread = thread_index();
    for (int half = THREADS / 2; half >= lanes; half /= 2) {
        if (thread >= half && thread < 2 * half)
            EACH_LANE store_shared((unsigned)(i * THREADS + thread) * 4, value.lane[i]);
        barrier();
        if (thread < half) {
            v8 other;
            EACH_LANE other.lane[i] =
                load_shared<float>((unsigned)(i * THREADS + thread + half) * 4);
            value = reduced(value, other);
        }
    }
    return value;
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES], groups = divide_up(blocks, lanes);
    int n = block_index() / groups, thread = thread_index();
    int cb = block_index() % groups * lanes + thread % lanes;
    v8 value = splat8(0.0f);
    if (cb < blocks)
        value = reduce_own_pixels(a, n, cb, thread / lanes, THREADS / lanes);
    value = reduce_threads(value, lanes);
#ifdef REDUCE_MEAN
    value = value / (float)(s[SIZE_H] * s[SIZE_W]);
#endif
    Accumulators sums;
    clear_y(&sums);
    if (thread < lanes && cb < blocks)
        write_y(a, n, cb, 0, 0, value, &sums);
    finish_block(a, n, 0, cb, blocks, lanes, &sums, 32 * THREADS);
}
