/* Elementwise groups: the expression, and any reduction fused with it, is inside write_y, which
 * this template calls for every pixel of the result. Where the result does not depend on the batch,
 * the grid has the blocks of sample 0 alone.
 *
 * own buffers: none    own scalars: none    own shared bytes: 0
 * sizes: C H W of the first batched operand (of the result, where there is none); K P Q of the
 * result; parts a sample; pixels of the result a part; channel blocks a thread block */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    Walk walk = walk_of_thread(blocks, s[SIZE_P] * s[SIZE_Q], s[SIZE_PARTS], s[SIZE_PIXELS], lanes);
    Accumulators sums;
    clear_y(&sums);
    for (int i = walk.first; i < walk.end; i += walk.step)
        write_y(a, walk.n, walk.cb, i / s[SIZE_Q], i % s[SIZE_Q], splat8(0.0f), &sums);
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}
