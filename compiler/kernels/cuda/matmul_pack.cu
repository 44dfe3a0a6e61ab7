/* A convolution's weights as a matrix: packed[k][tap][c] = weight[k][c][tap], zeros behind K and C.
 *
 * own buffers: weight [K][C][taps] of floats, packed [Kpad][taps][Cpad] of elements
 * sizes: K; C; taps */
enum { SIZE_K, SIZE_C, SIZE_TAPS };

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_C]), rows = channel_blocks(s[SIZE_K]) * 8;
    int64_t i = (int64_t)block_index() * THREADS + thread_index();
    if (i >= (int64_t)rows * s[SIZE_TAPS] * blocks)
        return;
    int cb = (int)(i % blocks), tap = (int)(i / blocks % s[SIZE_TAPS]);
    int k = (int)(i / blocks / s[SIZE_TAPS]);
    const float *weight = (const float *)a->buffers[0];
    v8 value = splat8(0.0f);
    for (int lane = 0; lane < 8; lane++) {
        int c = 8 * cb + lane;
        if (k < s[SIZE_K] && c < s[SIZE_C])
            value.lane[lane] = load_global(weight + ((int64_t)k * s[SIZE_C] + c) * s[SIZE_TAPS]
                                           + tap);
    }
    store8((element *)a->buffers[1] + 8 * i, value);
}
