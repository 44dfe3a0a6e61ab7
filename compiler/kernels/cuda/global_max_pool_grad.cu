/* Gradient of global_max_pool: dy of a channel at the first largest pixel of x (row by row), zero
 * elsewhere. A thread block does LANES channel blocks: a first walk finds the largest pixels, each
 * thread's and then over all in the order of a tree; a second one writes.
 *
 * Where a sample is too much for one thread block there are two launches: in STAGE 1 a block finds
 * the largest of its part of a sample, in STAGE 2 a block finds the largest of the parts, and
 * writes its own. STAGE 0: one launch does all.
 *
 * own buffers: in STAGE 1 and 2 the workspace, [N][parts][channel blocks][16]: 8 largest values,
 * then their pixels    own scalars: none    own shared bytes: 64 * THREADS
 * sizes: C H W of dy (C 1 1); K P Q of x and the result; parts a sample (1 in STAGE 0); pixels a
 * part; channel blocks a thread block */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};

typedef struct { v8 value; int pixel[8]; } Largest;

/* The larger of two; of equal ones the pixel before. */
DEVICE void keep_larger(Largest *best, int lane, float value, int pixel)
{
    float own = best->value.lane[lane];
    bool other = own < value || (own == value && pixel < best->pixel[lane]);
    best->value.lane[lane] = other ? value : own;
    best->pixel[lane] = other ? pixel : best->pixel[lane];
}

/* Of pixels first, first + step, ... < end. */
DEVICE Largest largest_of_own(const Arguments *a, int n, int cb, int first, int step, int end)
{
    Largest best;
    best.value = splat8(-INFINITY);
    EACH_LANE best.pixel[i] = first;
    for (int pixel = first; pixel < end; pixel += step) {
        v8 x = read_x(a, n, cb, pixel / a->sizes[SIZE_Q], pixel % a->sizes[SIZE_Q]);
        EACH_LANE keep_larger(&best, i, x.lane[i], pixel);
    }
    return best;
}

DEVICE float *workspace_at(const Arguments *a, int n, int part, int cb)
{
    int64_t row = (int64_t)n * a->sizes[SIZE_PARTS] + part;
    return (float *)a->buffers[0] + (row * channel_blocks(a->sizes[SIZE_K]) + cb) * 16;
}
DEVICE void store_largest(float *at, const Largest *best)
{
    v8 pixels;
    EACH_LANE pixels.lane[i] = bits_float((unsigned)best->pixel[i]);
    store8(at, best->value);
    store8(at + 8, pixels);
}
/* Of parts first, first + step, ... */
DEVICE Largest largest_of_parts(const Arguments *a, int n, int cb, int first, int step)
{
    const int *s = a->sizes;
    Largest best;
    best.value = splat8(-INFINITY);
    EACH_LANE best.pixel[i] = s[SIZE_P] * s[SIZE_Q];
    for (int part = first; part < s[SIZE_PARTS]; part += step) {
        const float *at = workspace_at(a, n, part, cb);
        v8 value = load8(at), pixels = load8(at + 8);
        EACH_LANE keep_larger(&best, i, value.lane[i], (int)float_bits(pixels.lane[i]));
    }
    return best;
}

/* Of all threads whose number is equal modulo `lanes`: in all of them. */
DEVICE Largest largest_of_threads(Largest best, int lanes)
{
    int thread = thread_index();
    for (int half = THREADS / 2; half >= lanes; half /= 2) {
        if (thread >= half && thread < 2 * half)
            EACH_LANE {
                store_shared((unsigned)(2 * i * THREADS + thread) * 4, best.value.lane[i]);
                store_shared((unsigned)((2 * i + 1) * THREADS + thread) * 4, best.pixel[i]);
            }
        barrier();
        if (thread < half)
            EACH_LANE {
                unsigned at = (unsigned)(2 * i * THREADS + thread + half) * 4;
                keep_larger(&best, i, load_shared<float>(at), load_shared<int>(at + THREADS * 4));
            }
    }
    if (thread < lanes)
        EACH_LANE store_shared((unsigned)((2 * i + 1) * THREADS + thread) * 4, best.pixel[i]);
    barrier();
    EACH_LANE best.pixel[i] =
        load_shared<int>((unsigned)((2 * i + 1) * THREADS + thread % lanes) * 4);
    return best;
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    Walk walk = walk_of_thread(blocks, s[SIZE_P] * s[SIZE_Q], s[SIZE_PARTS], s[SIZE_PIXELS], lanes);
    Largest best = {};
#if STAGE == 2
    if (walk.cb < blocks)
        best = largest_of_parts(a, walk.n, walk.cb, thread_index() / lanes, walk.step);
#else
    best = largest_of_own(a, walk.n, walk.cb, walk.first, walk.step, walk.end);
#endif
    best = largest_of_threads(best, lanes);
#if STAGE == 1
    if (thread_index() < lanes && walk.cb < blocks)
        store_largest(workspace_at(a, walk.n, walk.part, walk.cb), &best);
#else
    v8 dy = walk.cb < blocks ? read_dy(a, walk.n, walk.cb, 0, 0) : splat8(0.0f);
    Accumulators sums;
    clear_y(&sums);
    for (int pixel = walk.first; pixel < walk.end; pixel += walk.step) {
        v8 value;
        EACH_LANE value.lane[i] = best.pixel[i] == pixel ? dy.lane[i] : 0.0f;
        write_y(a, walk.n, walk.cb, pixel / s[SIZE_Q], pixel % s[SIZE_Q], value, &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
#endif
}
