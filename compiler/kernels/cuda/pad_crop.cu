/* Moves a map within its frame. pad: y[p][q] = x[p - top][q - left], zero where that is outside x.
 * crop: y[p][q] = x[p + top][q + left]. Which of both it is, is told by the sizes, for height and
 * width each: no smaller result is a pad.
 *
 * own buffers: none    own scalars: none    own shared bytes: 0
 * sizes: C H W of x; K P Q of the result; parts a sample; pixels of the result a part; channel
 * blocks a thread block; top left */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_TOP, SIZE_LEFT
};

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    Walk walk = walk_of_thread(blocks, s[SIZE_P] * s[SIZE_Q], s[SIZE_PARTS], s[SIZE_PIXELS], lanes);
    /* y[p][q] = x[p + down][q + right] */
    int down = s[SIZE_P] >= s[SIZE_H] ? -s[SIZE_TOP] : s[SIZE_TOP];
    int right = s[SIZE_Q] >= s[SIZE_W] ? -s[SIZE_LEFT] : s[SIZE_LEFT];
    Accumulators sums;
    clear_y(&sums);
    for (int i = walk.first; i < walk.end; i += walk.step) {
        int p = i / s[SIZE_Q], q = i % s[SIZE_Q], h = p + down, w = q + right;
        v8 value = splat8(0.0f);
        if (h >= 0 && h < s[SIZE_H] && w >= 0 && w < s[SIZE_W])
            value = read_x(a, walk.n, walk.cb, h, w);
        write_y(a, walk.n, walk.cb, p, q, value, &sums);
    }
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
