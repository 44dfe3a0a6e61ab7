/* Enlarges by a whole factor. nearest: y[p][q] = x[p / scale][q / scale]. bilinear: the pixel
 * centres are matched (PyTorch's align_corners=False): source place (p + 0.5) / scale - 0.5, at
 * least 0, between row i and row min(i + 1, H - 1); first between the rows, then along the row.
 *
 * own buffers: none    own scalars: none    own shared bytes: 0
 * sizes: C H W of x; K P Q of the result; parts a sample; pixels of the result a part; channel
 * blocks a thread block; scale; mode (0 nearest, 1 bilinear) */
#undef LEAST_BLOCKS
#define LEAST_BLOCKS 1 /* no spills for the sake of occupancy */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_SCALE, SIZE_MODE
};

/* Two neighbours among `count` and the share of the second. */
typedef struct { int first, second; float share; } Between;

DEVICE Between between(int place, int scale, int count)
{
    int source = most(2 * place + 1 - scale, 0);           /* in parts of 1 / (2 * scale) */
    int first = source / (2 * scale), rest = source - first * 2 * scale;
    Between at = { first, least(first + 1, count - 1), (float)rest / (float)(2 * scale) };
    return at;
}

DEVICE v8 enlarged(const Arguments *a, int n, int cb, int p, int q)
{
    const int *s = a->sizes;
    int scale = s[SIZE_SCALE];
    if (s[SIZE_MODE] == 0)
        return read_x(a, n, cb, p / scale, q / scale);
    Between h = between(p, scale, s[SIZE_H]), w = between(q, scale, s[SIZE_W]);
    v8 above_left = read_x(a, n, cb, h.first, w.first);
    v8 above_right = read_x(a, n, cb, h.first, w.second);
    v8 below_left = read_x(a, n, cb, h.second, w.first);
    v8 below_right = read_x(a, n, cb, h.second, w.second);
    v8 left = above_left * (1.0f - h.share) + below_left * h.share;
    v8 right = above_right * (1.0f - h.share) + below_right * h.share;
    return left * (1.0f - w.share) + right * w.share;
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
        write_y(a, walk.n, walk.cb, p, q, enlarged(a, walk.n, walk.cb, p, q), &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
