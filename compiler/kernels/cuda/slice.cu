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

/* Lanes SHIFT .. SHIFT + 7 of low and high behind each other. */
template <int SHIFT> DEVICE v8 moved(v8 low, v8 high)
{
    v8 y;
    EACH_LANE y.lane[i] = i + SHIFT < 8 ? low.lane[(i + SHIFT) % 8] : high.lane[(i + SHIFT) % 8];
    return y;
}
/* 0 <= shift < 8; registers cannot be indexed. */
DEVICE v8 shifted(v8 low, v8 high, int shift)
{
    switch (shift) {
    case 0: return low;
    case 1: return moved<1>(low, high);
    case 2: return moved<2>(low, high);
    case 3: return moved<3>(low, high);
    case 4: return moved<4>(low, high);
    case 5: return moved<5>(low, high);
    case 6: return moved<6>(low, high);
    default: return moved<7>(low, high);
    }
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
