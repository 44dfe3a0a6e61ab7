/* Max pooling: y[p][q] = the largest of x over a window of kernel * kernel pixels; the padding
 * never wins. A thread reads the window of its pixel; neighbours' windows overlap in the caches.
 * WINDOW is the kernel where it is small, so that its pixels are loaded at the same time, else 0.
 *
 * own buffers: none    own scalars: none    own shared bytes: 0
 * sizes: C H W of x; K P Q of the result; parts a sample; pixels of the result a part; channel
 * blocks a thread block; kernel stride padding */
#undef LEAST_BLOCKS
#define LEAST_BLOCKS 1 /* no spills for the sake of occupancy */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING
};

/* What lies outside the map is replaced by the nearest pixel in it, which is in the window too. */
DEVICE v8 largest_in_window(const Arguments *a, int n, int cb, int p, int q)
{
    const int *s = a->sizes;
    const int kernel = WINDOW ? WINDOW : s[SIZE_KERNEL];
    int top = p * s[SIZE_STRIDE] - s[SIZE_PADDING], left = q * s[SIZE_STRIDE] - s[SIZE_PADDING];
    v8 best = splat8(-INFINITY);
    UNROLL for (int i = 0; i < kernel; i++)
        UNROLL for (int j = 0; j < kernel; j++) {
            int h = most(least(top + i, s[SIZE_H] - 1), 0);
            int w = most(least(left + j, s[SIZE_W] - 1), 0);
            v8 value = read_x(a, n, cb, h, w);
            best = i + j == 0 ? value : max8(best, value);
        }
    return best;
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    Walk walk = walk_of_thread(blocks, s[SIZE_P] * s[SIZE_Q], s[SIZE_PARTS], s[SIZE_PIXELS], lanes);
    Accumulators sums;
    clear_y(&sums);
    for (int i = walk.first; i < walk.end; i += walk.step) {
        int p = i / s[SIZE_Q], q = i % s[SIZE_Q];
        v8 value = largest_in_window(a, walk.n, walk.cb, p, q);
        write_y(a, walk.n, walk.cb, p, q, value, &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
