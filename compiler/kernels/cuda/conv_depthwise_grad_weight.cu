/* Gradient of a convolution with as many groups as channels for its weight, [C][1][kernel][kernel]:
 * for each tap the sum over samples and pixels of x under the tap times dy. A thread does 8
 * channels and MOST_TAPS taps of every so manieth pixel; its neighbours' sums are added in order.
 *
 * own buffers: where SPLITS is 1 the result, else a workspace [SPLITS][result], which
 *     conv_grad_weight_finish.cu adds up.  Reads read_x [C,H,W] and read_dy [C,P,Q].
 * grid: SPLITS * groups of LANES channel blocks * groups of taps; shared memory: THREADS * 32
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION,
    SIZE_SPLITS, SIZE_LANES,
};
enum { MOST_TAPS = 9 };

/* Adds one pixel's products. */
DEVICE void add_pixel(const Arguments *a, v8 sums[MOST_TAPS], int cb, int pixel, int first_tap)
{
    const int *s = a->sizes;
    int q = pixel % s[SIZE_Q], p = pixel / s[SIZE_Q] % s[SIZE_P], n = pixel / s[SIZE_Q] / s[SIZE_P];
    v8 dy = read_dy(a, n, cb, p, q);
    UNROLL for (int i = 0; i < MOST_TAPS; i++) {
        int r = (first_tap + i) / s[SIZE_KERNEL], c = (first_tap + i) % s[SIZE_KERNEL];
        int h = p * s[SIZE_STRIDE] - s[SIZE_PADDING] + r * s[SIZE_DILATION];
        int w = q * s[SIZE_STRIDE] - s[SIZE_PADDING] + c * s[SIZE_DILATION];
        if (r < s[SIZE_KERNEL] && h >= 0 && h < s[SIZE_H] && w >= 0 && w < s[SIZE_W])
            sums[i] += dy * read_x(a, n, cb, h, w);
    }
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int lanes = s[SIZE_LANES], slots = THREADS / lanes, thread = thread_index();
    int taps = s[SIZE_KERNEL] * s[SIZE_KERNEL], tap_groups = divide_up(taps, MOST_TAPS);
    int blocks = channel_blocks(s[SIZE_C]), groups = divide_up(blocks, lanes);
    int first_tap = block_index() % tap_groups * MOST_TAPS;
    int first_cb = block_index() / tap_groups % groups * lanes, cb = first_cb + thread % lanes;
    int split = block_index() / tap_groups / groups;
    v8 sums[MOST_TAPS];
    UNROLL for (int i = 0; i < MOST_TAPS; i++)
        sums[i] = splat8(0);
    if (cb < blocks)
        for (int pixel = split * slots + thread / lanes; pixel < a->batch * s[SIZE_P] * s[SIZE_Q];
             pixel += s[SIZE_SPLITS] * slots)
            add_pixel(a, sums, cb, pixel, first_tap);
    int c = 8 * first_cb + thread;
    float *to = (float *)a->buffers[0] + ((int64_t)split * s[SIZE_C] + c) * taps;
    UNROLL for (int i = 0; i < MOST_TAPS; i++) {
        barrier();
        store_shared(32 * (unsigned)thread, floats_words(sums[i], 0));
        store_shared(32 * (unsigned)thread + 16, floats_words(sums[i], 1));
        barrier();
        if (thread < 8 * lanes && c < s[SIZE_C] && first_tap + i < taps) {
            float sum = 0;
            for (int slot = 0; slot < slots; slot++)
                sum += load_shared<float>((unsigned)(slot * lanes * 8 + thread) * 4);
            store_global(to + first_tap + i, sum);
        }
    }
}
