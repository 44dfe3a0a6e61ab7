/* Gradient of softmax: y * (dy - the sum of dy * y over the channels). First that sum of every
 * pixel of the part, by LANES threads side by side; then the result, LANES channel blocks after the
 * others.
 *
 * own buffers: none    own scalars: none    own shared bytes: 4 * pixels a part
 * sizes: C H W of dy; K P Q of the result; parts a sample; pixels of the result a part; channel
 * blocks (and threads a pixel) at a time */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};

/* Pixel first + i of the part: its sum at byte 4 * i. */
DEVICE void measure(const Arguments *a, int n, int first, int end)
{
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_C]), lanes = s[SIZE_LANES], lane = thread_index() % lanes;
    for (int begin = first; begin < end; begin += THREADS / lanes) {
        int i = begin + thread_index() / lanes, p = i / s[SIZE_Q], q = i % s[SIZE_Q];
        v8 products = splat8(0.0f);
        for (int cb = lane; cb < blocks && i < end; cb += lanes)
            products += read_dy(a, n, cb, p, q) * read_y(a, n, cb, p, q);
        float sum = sum8(products);
        for (int mask = 1; mask < lanes; mask *= 2)
            sum += shuffle_xor(sum, mask);
        if (lane == 0 && i < end)
            store_shared((unsigned)(i - first) * 4, sum);
    }
}

DEVICE void write_part(const Arguments *a, int n, int part, int cb, int first, int end)
{
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    Accumulators sums;
    clear_y(&sums);
    if (cb < blocks)
        for (int i = first + thread_index() / lanes; i < end; i += THREADS / lanes) {
            int p = i / s[SIZE_Q], q = i % s[SIZE_Q];
            v8 difference = read_dy(a, n, cb, p, q)
                          - load_shared<float>((unsigned)(i - first) * 4);
            v8 value = keep8(channel_mask8(s[SIZE_K], cb), read_y(a, n, cb, p, q) * difference);
            write_y(a, n, cb, p, q, value, &sums);
        }
    finish_block(a, n, part, cb, blocks, lanes, &sums, (unsigned)s[SIZE_PIXELS] * 4);
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int n = block_index() / s[SIZE_PARTS], part = block_index() % s[SIZE_PARTS];
    int lanes = s[SIZE_LANES], first = part * s[SIZE_PIXELS];
    int end = least(first + s[SIZE_PIXELS], s[SIZE_P] * s[SIZE_Q]);
    measure(a, n, first, end);
    barrier();
    for (int cb = 0; cb < channel_blocks(s[SIZE_K]); cb += lanes)
        write_part(a, n, part, cb + thread_index() % lanes, first, end);
}
