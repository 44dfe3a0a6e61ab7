/* The other way round: y[n][p][q] = the sum of what columns[n][h][w][tap] say of that pixel, for a
 * transposed convolution or an input gradient. A thread gathers, so that nothing is added twice at
 * the same time.
 *
 * own buffers: columns [N][H][W][taps][Kpad] of elements   own scalars: none   own shared bytes: 0
 * sizes: C H W of the operand; K P Q of the result; parts a sample; pixels of the result a part;
 * channel blocks a thread block; kernel stride padding dilation */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION
};

DEVICE v8 gathered(const Arguments *a, int n, int cb, int p, int q)
{
    const int *s = a->sizes;
    int kernel = s[SIZE_KERNEL], stride = s[SIZE_STRIDE], blocks = channel_blocks(s[SIZE_K]);
    v8 sum = splat8(0.0f);
    for (int r = 0; r < kernel; r++) {
        int down = p + s[SIZE_PADDING] - r * s[SIZE_DILATION];
        if (down < 0 || down % stride || down / stride >= s[SIZE_H])
            continue;
        for (int t = 0; t < kernel; t++) {
            int right = q + s[SIZE_PADDING] - t * s[SIZE_DILATION];
            if (right < 0 || right % stride || right / stride >= s[SIZE_W])
                continue;
            int64_t pixel = ((int64_t)n * s[SIZE_H] + down / stride) * s[SIZE_W] + right / stride;
            int64_t at = (pixel * kernel * kernel + r * kernel + t) * blocks + cb;
            sum += load8((const element *)a->buffers[0] + 8 * at);
        }
    }
    return sum;
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
        write_y(a, walk.n, walk.cb, p, q, gathered(a, walk.n, walk.cb, p, q), &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
