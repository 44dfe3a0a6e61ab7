/* Gradient of average pooling, as a gather: a pixel of the result is the sum of dy over the windows
 * that cover it, divided by kernel * kernel.
 *
 * own buffers: none    own scalars: none    own shared bytes: 0
 * sizes: C H W of dy; K P Q of the result; parts a sample; pixels of the result a part; channel
 * blocks a thread block; kernel stride padding */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING
};

/* The windows of `count` that cover `place`: begin <= i < end. */
DEVICE int windows_begin(const int *s, int place)
{
    return most(place + s[SIZE_PADDING] - s[SIZE_KERNEL] + s[SIZE_STRIDE], 0) / s[SIZE_STRIDE];
}
DEVICE int windows_end(const int *s, int place, int count)
{
    return least((place + s[SIZE_PADDING]) / s[SIZE_STRIDE] + 1, count);
}

DEVICE v8 gathered(const Arguments *a, int n, int cb, int p, int q)
{
    const int *s = a->sizes;
    int bottom = windows_end(s, p, s[SIZE_H]), right = windows_end(s, q, s[SIZE_W]);
    v8 sum = splat8(0.0f);
    for (int i = windows_begin(s, p); i < bottom; i++)
        for (int j = windows_begin(s, q); j < right; j++)
            sum += read_dy(a, n, cb, i, j);
    return sum * (1.0f / (float)(s[SIZE_KERNEL] * s[SIZE_KERNEL]));
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
        v8 value = gathered(a, walk.n, walk.cb, p, q);
        write_y(a, walk.n, walk.cb, p, q, value, &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
