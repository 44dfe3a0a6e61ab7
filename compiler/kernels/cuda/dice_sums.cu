/* The sums of which Dice coefficients are made, of each picture: [5,1,1] = elements with
 * p >= threshold and t = 1; with p >= threshold; with t = 1; the sum of p * t; the sum of p.
 * Counts are exact up to 2^24. A thread block does a picture: each thread every THREADS-th pixel of
 * each channel block, a few of them at a time, then all together in the order of a tree.
 *
 * own buffers: none    own scalars: threshold    own shared bytes: 20 * THREADS
 * sizes: C H W of p and t; K P Q of the result (5 1 1); parts a sample (1); pixels of the result a
 * part (1); channel blocks a thread block (1) */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};
enum { BATCH = 4, SUMS = 5 };

/* Of channel block cb of one pixel. */
DEVICE void add_pixel(float sums[SUMS], v8 p, v8 t, float threshold, int channels)
{
    EACH_LANE {
        if (i >= channels)
            break;
        bool predicted = !(p.lane[i] < threshold);
        bool marked = !(t.lane[i] < 1.0f || 1.0f < t.lane[i]);
        sums[0] += predicted && marked ? 1.0f : 0.0f;
        sums[1] += predicted ? 1.0f : 0.0f;
        sums[2] += marked ? 1.0f : 0.0f;
        sums[3] += p.lane[i] * t.lane[i];
        sums[4] += p.lane[i];
    }
}

/* Of pixels first, first + THREADS, ..., of channel block cb, up to BATCH of them. */
DEVICE void add_pixels(const Arguments *a, int n, int cb, int first, float sums[SUMS])
{
    const int *s = a->sizes;
    float part[SUMS] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
    int pixels = s[SIZE_H] * s[SIZE_W];
    v8 p[BATCH], t[BATCH];
    UNROLL for (int k = 0; k < BATCH; k++) {
        int at = least(first + k * THREADS, pixels - 1);
        p[k] = read_p(a, n, cb, at / s[SIZE_W], at % s[SIZE_W]);
        t[k] = read_t(a, n, cb, at / s[SIZE_W], at % s[SIZE_W]);
    }
    UNROLL for (int k = 0; k < BATCH; k++)
        if (first + k * THREADS < pixels)
            add_pixel(part, p[k], t[k], (float)a->scalars[0], s[SIZE_C] - 8 * cb);
    UNROLL for (int k = 0; k < SUMS; k++)
        sums[k] += part[k];
}

/* The sums of all threads, in thread 0. */
DEVICE void add_threads(float sums[SUMS])
{
    int thread = thread_index();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (thread >= half && thread < 2 * half)
            UNROLL for (int k = 0; k < SUMS; k++)
                store_shared((unsigned)(k * THREADS + thread) * 4, sums[k]);
        barrier();
        if (thread < half)
            UNROLL for (int k = 0; k < SUMS; k++)
                sums[k] += load_shared<float>((unsigned)(k * THREADS + thread + half) * 4);
    }
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int n = block_index(), thread = thread_index();
    float part[SUMS] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
    for (int cb = 0; cb < channel_blocks(s[SIZE_C]); cb++)
        for (int i = thread; i < s[SIZE_H] * s[SIZE_W]; i += BATCH * THREADS)
            add_pixels(a, n, cb, i, part);
    add_threads(part);
    v8 result = splat8(0.0f);
    UNROLL for (int k = 0; k < SUMS; k++)
        result.lane[k] = part[k];
    Accumulators sums;
    clear_y(&sums);
    if (thread == 0)
        write_y(a, n, 0, 0, 0, result, &sums);
    finish_block(a, n, 0, 0, 1, 1, &sums, 20 * THREADS);
}
