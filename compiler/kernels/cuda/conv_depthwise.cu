/* Convolution with as many groups as channels, in and out; transposed, or the gradient of one for
 * its input, as well. A thread does 8 channels of a pixel.
 *
 * own buffers: weights [C][1][kernel][kernel].  Reads read_x, writes write_y.
 * grid: PARTS * groups of LANES channel blocks a sample
 * shared memory: the weights of LANES channel blocks, kernel * kernel * LANES * 32
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION, SIZE_TRANSPOSED,
};

/* To shared memory as [tap][channel]. */
DEVICE void share_weights(const Arguments *a, int first_channel)
{
    const int *s = a->sizes;
    int taps = s[SIZE_KERNEL] * s[SIZE_KERNEL], channels = 8 * s[SIZE_LANES];
    for (int i = thread_index(); i < taps * channels; i += THREADS) {
        int c = first_channel + i / taps, tap = i % taps;
        const float *from = (const float *)a->buffers[0] + c * taps + tap;
        store_shared((unsigned)(tap * channels + i / taps) * 4,
                     c < s[SIZE_C] ? load_fixed(from) : 0.0f);
    }
}

DEVICE v8 shared_weights(const Arguments *a, int tap)
{
    int lanes = a->sizes[SIZE_LANES];
    unsigned at = (unsigned)(tap * lanes + thread_index() % lanes) * 32;
    return words_floats(load_shared<word4>(at), load_shared<word4>(at + 16));
}

/* The row (or column) of x that tap `k` reads for one of the result; negative if there is none. */
DEVICE int x_place(const Arguments *a, int p, int k, int size)
{
    const int *s = a->sizes;
    int place;
    if (s[SIZE_TRANSPOSED]) {
        place = p + s[SIZE_PADDING] - k * s[SIZE_DILATION];
        if (place < 0 || place % s[SIZE_STRIDE])
            return -1;
        place /= s[SIZE_STRIDE];
    } else {
        place = p * s[SIZE_STRIDE] - s[SIZE_PADDING] + k * s[SIZE_DILATION];
    }
    return place < size ? place : -1;
}

DEVICE v8 convolve(const Arguments *a, int n, int cb, int p, int q)
{
    const int *s = a->sizes;
    v8 sum = splat8(0);
    for (int r = 0; r < s[SIZE_KERNEL]; r++) {
        int h = x_place(a, p, r, s[SIZE_H]);
        if (h < 0)
            continue;
        for (int c = 0; c < s[SIZE_KERNEL]; c++) {
            int w = x_place(a, q, c, s[SIZE_W]);
            if (w >= 0)
                sum += shared_weights(a, r * s[SIZE_KERNEL] + c) * read_x(a, n, cb, h, w);
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
    share_weights(a, 8 * (walk.cb - thread_index() % lanes));
    barrier();
    for (int i = walk.first; i < walk.end; i += walk.step) {
        int p = i / s[SIZE_Q], q = i % s[SIZE_Q];
        write_y(a, walk.n, walk.cb, p, q, convolve(a, walk.n, walk.cb, p, q), &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
