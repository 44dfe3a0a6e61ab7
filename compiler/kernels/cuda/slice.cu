/* Channels from .. from+channels of x where `from` is not a multiple of a block of the graph's
 * layouts (else slice is inlined): a block of the result is the end of one block of x and the
 * beginning of the next.
 *
 * own buffers: none    own scalars: none    own shared bytes: 0
 * sizes: C H W of x; K P Q of the result; parts a sample; pixels of the result a part; channel
 * blocks a thread block; channels from (in the order of attributes.def) */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_CHANNELS, SIZE_FROM
};

/* Lanes shift .. shift + 7 of low and high behind each other; 0 <= shift < 8. In three steps of
 * fixed distance, as registers cannot be indexed; by masks, because of a choice between elements of
 * an array the compiler makes an index. */
DEVICE v8 shifted(v8 low, v8 high, int shift)
{
    unsigned x[16];
    EACH_LANE {
        x[i] = float_bits(low.lane[i]);
        x[i + 8] = float_bits(high.lane[i]);
    }
    UNROLL for (int step = 0; step < 3; step++) {
        const int distance = 4 >> step;
        unsigned moves = shift & distance ? ~0u : 0u;
        UNROLL for (int i = 0; i < 16 - distance; i++)
            x[i] = (x[i + distance] & moves) | (x[i] & ~moves);
    }
    v8 y;
    EACH_LANE y.lane[i] = bits_float(x[i]);
    return y;
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    Walk walk = walk_of_thread(blocks, s[SIZE_P] * s[SIZE_Q], s[SIZE_PARTS], s[SIZE_PIXELS], lanes);
    int block = s[SIZE_FROM] / 8 + walk.cb, shift = s[SIZE_FROM] % 8;
    bool next = shift > 0 && block + 1 < channel_blocks(s[SIZE_C]);
    m8 channels = channel_mask8(s[SIZE_K], walk.cb);
    Accumulators sums;
    clear_y(&sums);
    for (int i = walk.first; i < walk.end; i += walk.step) {
        int p = i / s[SIZE_Q], q = i % s[SIZE_Q];
        v8 low = read_x(a, walk.n, block, p, q), high = splat8(0.0f);
        if (next)
            high = read_x(a, walk.n, block + 1, p, q);
        write_y(a, walk.n, walk.cb, p, q, keep8(channels, shifted(low, high, shift)), &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
