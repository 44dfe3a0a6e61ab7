/* Joins tensors along the channels where one begins in the middle of a block of the graph's layouts
 * (else concat is only a choice of operand and is inlined). A block of the result gathers lanes of
 * up to two blocks of each operand. OPERANDS is their number, at most 16.
 *
 * own buffers: none    own scalars: none    own shared bytes: 0
 * sizes: C H W of x0; K P Q of the result; parts a sample; pixels of the result a part; channel
 * blocks a thread block; the channels of each operand */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_CHANNELS
};
#if OPERANDS > 16
#error "concat: more than 16 operands"
#endif

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

typedef v8 ReadFunction(const Arguments *a, int n, int cb, int h, int w);

/* What an operand of `channels` channels, whose channel 0 is channel `from` of the result, has in
 * block cb of the result; zero in the other lanes. */
template <ReadFunction read>
DEVICE v8 share_of(const Arguments *a, int channels, int from, int n, int cb, int p, int q)
{
    int first = 8 * cb - from;              /* of the operand, in lane 0 */
    if (first <= -8 || first >= channels)
        return splat8(0.0f);
    int block = first < 0 ? -1 : first / 8, shift = first - 8 * block;
    v8 low = splat8(0.0f), high = splat8(0.0f);
    if (block >= 0)
        low = read(a, n, block, p, q);
    if (shift > 0 && block + 1 < channel_blocks(channels))
        high = read(a, n, block + 1, p, q);
    return shifted(low, high, shift);
}

DEVICE v8 joined(const Arguments *a, int n, int cb, int p, int q)
{
    const int *channels = a->sizes + SIZE_CHANNELS;
    v8 sum = splat8(0.0f);
    int from = 0;
#define JOIN(NUMBER) \
    sum += share_of<read_x##NUMBER>(a, channels[NUMBER], from, n, cb, p, q); \
    from += channels[NUMBER];
    JOIN(0)
#if OPERANDS > 1
    JOIN(1)
#endif
#if OPERANDS > 2
    JOIN(2)
#endif
#if OPERANDS > 3
    JOIN(3)
#endif
#if OPERANDS > 4
    JOIN(4)
#endif
#if OPERANDS > 5
    JOIN(5)
#endif
#if OPERANDS > 6
    JOIN(6)
#endif
#if OPERANDS > 7
    JOIN(7)
#endif
#if OPERANDS > 8
    JOIN(8)
#endif
#if OPERANDS > 9
    JOIN(9)
#endif
#if OPERANDS > 10
    JOIN(10)
#endif
#if OPERANDS > 11
    JOIN(11)
#endif
#if OPERANDS > 12
    JOIN(12)
#endif
#if OPERANDS > 13
    JOIN(13)
#endif
#if OPERANDS > 14
    JOIN(14)
#endif
#if OPERANDS > 15
    JOIN(15)
#endif
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
        write_y(a, walk.n, walk.cb, p, q, joined(a, walk.n, walk.cb, p, q), &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
