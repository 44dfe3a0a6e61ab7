/* The sums of which Dice coefficients are made, of each picture: [5,1,1] = elements with
 * p >= threshold and t = 1; with p >= threshold; with t = 1; the sum of p * t; the sum of p.
 * Counts are exact up to 2^24. Each thread of a block does every THREADS-th pixel of each channel
 * block, a few of them at a time, then all together in the order of a tree.
 *
 * Where a picture is too much for one thread block there are two launches: in STAGE 1 a block does
 * SIZE_PIXELS of it and stores what it has, in STAGE 2 a block adds that up. STAGE 0: one launch
 * does all.
 *
 * own buffers: in STAGE 1 and 2 the workspace, [N][parts][8] floats, with parts = H * W /
 * SIZE_PIXELS (rounded up)    own scalars: threshold    own shared bytes: 20 * THREADS
 * sizes: C H W of p and t; K P Q of the result (5 1 1); parts of the result (1); pixels of p a
 * part; channel blocks a thread block (1) */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};
enum { BATCH = 4, SUMS = 5 };

/* Of the first `channels` lanes of one pixel. */
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

/* Of pixels first, first + THREADS, ... < end of channel block cb, up to BATCH of them. */
DEVICE void add_pixels(const Arguments *a, int n, int cb, int first, int end, float sums[SUMS])
{
    const int *s = a->sizes;
    float part[SUMS] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
    v8 p[BATCH], t[BATCH];
    UNROLL for (int k = 0; k < BATCH; k++) {
        int at = least(first + k * THREADS, end - 1);
        p[k] = read_p(a, n, cb, at / s[SIZE_W], at % s[SIZE_W]);
        t[k] = read_t(a, n, cb, at / s[SIZE_W], at % s[SIZE_W]);
    }
    UNROLL for (int k = 0; k < BATCH; k++)
        if (first + k * THREADS < end)
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
    int pixels = s[SIZE_H] * s[SIZE_W], parts = divide_up(pixels, s[SIZE_PIXELS]);
    int n = STAGE == 1 ? block_index() / parts : block_index();
    float part[SUMS] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
#if STAGE == 2
    const float *stored = (const float *)a->buffers[0] + (int64_t)n * parts * 8;
    for (int i = thread_index(); i < parts; i += THREADS)
        UNROLL for (int k = 0; k < SUMS; k++)
            part[k] += load_global(stored + 8 * i + k);
#else
    int begin = STAGE == 1 ? block_index() % parts * s[SIZE_PIXELS] : 0;
    int end = STAGE == 1 ? least(begin + s[SIZE_PIXELS], pixels) : pixels;
    for (int cb = 0; cb < channel_blocks(s[SIZE_C]); cb++)
        for (int i = begin + thread_index(); i < end; i += BATCH * THREADS)
            add_pixels(a, n, cb, i, end, part);
#endif
    add_threads(part);
    v8 result = splat8(0.0f);
    UNROLL for (int k = 0; k < SUMS; k++)
        result.lane[k] = part[k];
#if STAGE == 1
    if (thread_index() == 0)
        store8((float *)a->buffers[0] + (int64_t)block_index() * 8, result);
#else
    Accumulators sums;
    clear_y(&sums);
    if (thread_index() == 0)
        write_y(a, n, 0, 0, 0, result, &sums);
    finish_block(a, n, 0, 0, 1, 1, &sums, 0);
#endif
}
