/* Reduces the pixels of each channel: [C,H,W] to [C,1,1]. One of REDUCE_SUM, REDUCE_MEAN,
 * REDUCE_MAX is defined. A thread block does LANES channel blocks: each thread every
 * THREADS / LANES-th pixel, a few of them at a time, then all together in the order of a tree.
 *
 * Where a sample is too much for one thread block there are two launches: in STAGE 1 a block does
 * SIZE_PIXELS of a sample and stores what it has, in STAGE 2 a block goes on from there. STAGE 0:
 * one launch does all.
 *
 * own buffers: in STAGE 1 and 2 the workspace, [N][parts][channel blocks][8] floats, with
 * parts = H * W / SIZE_PIXELS (rounded up)    own scalars: none    own shared bytes: 32 * THREADS
 * sizes: C H W of x; K P Q of the result (C 1 1); parts of the result (1); pixels of x a part;
 * channel blocks a thread block */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};
enum { BATCH = 4 };

#ifdef REDUCE_MAX
DEVICE v8 neutral(void) { return splat8(-INFINITY); }
DEVICE v8 reduced(v8 a, v8 b) { return max8(a, b); }
#else
DEVICE v8 neutral(void) { return splat8(0.0f); }
DEVICE v8 reduced(v8 a, v8 b) { return a + b; }
#endif

/* Of element cb of part `part`. */
DEVICE float *workspace_at(const Arguments *a, int n, int part, int parts, int cb)
{
    int64_t row = (int64_t)n * parts + part;
    return (float *)a->buffers[0] + (row * channel_blocks(a->sizes[SIZE_K]) + cb) * 8;
}

/* Thing number i of those that are reduced: pixel i of x, in STAGE 2 part i. */
DEVICE v8 thing(const Arguments *a, int n, int cb, int i, int parts)
{
#if STAGE == 2
    return load8(workspace_at(a, n, i, parts, cb));
#else
    return read_x(a, n, cb, i / a->sizes[SIZE_W], i % a->sizes[SIZE_W]);
#endif
}

/* Of things first, first + step, ... < end. */
DEVICE v8 reduce_own(const Arguments *a, int n, int cb, int first, int step, int end, int parts)
{
    v8 sum = first < end ? thing(a, n, cb, first, parts) : neutral();
    for (int i = first + step; i < end; i += BATCH * step) {
        v8 value[BATCH];
        UNROLL for (int k = 0; k < BATCH; k++)
            value[k] = i + k * step < end ? thing(a, n, cb, i + k * step, parts) : neutral();
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
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    int groups = divide_up(blocks, lanes);
    int pixels = s[SIZE_H] * s[SIZE_W], parts = divide_up(pixels, s[SIZE_PIXELS]);
    int block = block_index() / groups, n = block, first = 0, end = STAGE == 2 ? parts : pixels;
    int thread = thread_index(), cb = block_index() % groups * lanes + thread % lanes;
#if STAGE == 1
    n = block / parts;
    first = block % parts * s[SIZE_PIXELS];
    end = least(first + s[SIZE_PIXELS], pixels);
#endif
    v8 value = neutral();
    if (cb < blocks)
        value = reduce_own(a, n, cb, first + thread / lanes, THREADS / lanes, end, parts);
    value = reduce_threads(value, lanes);
#if STAGE == 1
    if (thread < lanes && cb < blocks)
        store8(workspace_at(a, n, block % parts, parts, cb), value);
#else
#ifdef REDUCE_MEAN
    value = value / (float)pixels;
#endif
    Accumulators sums;
    clear_y(&sums);
    if (thread < lanes && cb < blocks)
        write_y(a, n, cb, 0, 0, value, &sums);
    finish_block(a, n, 0, cb, blocks, lanes, &sums, 0);
#endif
}
