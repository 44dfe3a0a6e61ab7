/* Gradient of global_max_pool: dy of a channel at the first largest pixel of x (row by row), zero
 * elsewhere. A thread block does LANES channel blocks of a sample: a first walk finds the largest
 * pixels, each thread's and then over all in the order of a tree; a second one writes.
 *
 * own buffers: none    own scalars: none    own shared bytes: 64 * THREADS
 * sizes: C H W of dy (C 1 1); K P Q of x and the result; parts a sample (1); pixels a part (P * Q);
 * channel blocks a thread block */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};

typedef struct { v8 value; int pixel[8]; } Largest;

/* Of pixels first, first + step, ... */
DEVICE Largest largest_of_own(const Arguments *a, int n, int cb, int first, int step)
{
    const int *s = a->sizes;
    Largest best;
    best.value = splat8(-INFINITY);
    EACH_LANE best.pixel[i] = first;
    for (int pixel = first; pixel < s[SIZE_P] * s[SIZE_Q]; pixel += step) {
        v8 x = read_x(a, n, cb, pixel / s[SIZE_Q], pixel % s[SIZE_Q]);
        EACH_LANE {
            best.pixel[i] = best.value.lane[i] < x.lane[i] ? pixel : best.pixel[i];
            best.value.lane[i] = best.value.lane[i] < x.lane[i] ? x.lane[i] : best.value.lane[i];
        }
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
                float value = load_shared<float>(at), own = best.value.lane[i];
                int pixel = load_shared<int>(at + THREADS * 4);
                bool other = own < value || (own == value && pixel < best.pixel[i]);
                best.value.lane[i] = other ? value : own;
                best.pixel[i] = other ? pixel : best.pixel[i];
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
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES], groups = divide_up(blocks, lanes);
    int n = block_index() / groups, thread = thread_index();
    int cb = block_index() % groups * lanes + thread % lanes;
    int first = cb < blocks ? thread / lanes : s[SIZE_P] * s[SIZE_Q];
    Largest best = largest_of_own(a, n, cb, first, THREADS / lanes);
    best = largest_of_threads(best, lanes);
    v8 dy = cb < blocks ? read_dy(a, n, cb, 0, 0) : splat8(0.0f);
    Accumulators sums;
    clear_y(&sums);
    for (int pixel = first; pixel < s[SIZE_P] * s[SIZE_Q]; pixel += THREADS / lanes) {
        v8 value;
        EACH_LANE value.lane[i] = best.pixel[i] == pixel ? dy.lane[i] : 0.0f;
        write_y(a, n, cb, pixel / s[SIZE_Q], pixel % s[SIZE_Q], value, &sums);
    }
    finish_block(a, n, 0, cb, blocks, lanes, &sums, 64 * THREADS);
}
