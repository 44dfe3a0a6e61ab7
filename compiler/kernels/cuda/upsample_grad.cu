/* Gradient of upsample, as a gather: the pixels of dy that were made from pixel (p, q) are added up
 * with their weights, along the rows first. See upsample.cu for the places.
 *
 * own buffers: none    own scalars: none    own shared bytes: 0
 * sizes: C H W of dy; K P Q of the result; parts a sample; pixels of the result a part; channel
 * blocks a thread block; scale; mode (0 nearest, 1 bilinear) */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_SCALE, SIZE_MODE
};

/* How much place `to` of `count` counts for place `from` of the enlarged axis (bilinear). */
DEVICE float share_of(int from, int to, int scale, int count)
{
    int source = most(2 * from + 1 - scale, 0);            /* in parts of 1 / (2 * scale) */
    int first = source / (2 * scale), rest = source - first * 2 * scale;
    float second = (float)rest / (float)(2 * scale);
    return (first == to ? 1.0f - second : 0.0f)
         + (least(first + 1, count - 1) == to ? second : 0.0f);
}

DEVICE v8 gathered(const Arguments *a, int n, int cb, int p, int q)
{
    const int *s = a->sizes;
    int scale = s[SIZE_SCALE], reach = s[SIZE_MODE] == 0 ? 0 : scale;
    int bottom = least((p + 1) * scale + reach, s[SIZE_H]);
    int right = least((q + 1) * scale + reach, s[SIZE_W]);
    v8 sum = splat8(0.0f);
    for (int h = most(p * scale - reach, 0); h < bottom; h++) {
        float share_h = reach ? share_of(h, p, scale, s[SIZE_P]) : 1.0f;
        if (share_h == 0.0f)
            continue;
        v8 row = splat8(0.0f);
        for (int w = most(q * scale - reach, 0); w < right; w++) {
            float share_w = reach ? share_of(w, q, scale, s[SIZE_Q]) : 1.0f;
            if (share_w != 0.0f)
                row += read_dy(a, n, cb, h, w) * share_w;
        }
        sum += row * share_h;
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
