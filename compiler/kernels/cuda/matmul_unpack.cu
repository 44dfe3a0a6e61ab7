/* A weight gradient from its matrix: weight[k][c][tap] = matrix[k][tap][c].
 *
 * own buffers: matrix [Kpad][taps][Cpad] of floats, weight [K][C][taps] of floats
 * sizes: K; C; taps */
enum { SIZE_K, SIZE_C, SIZE_TAPS };

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int row = channel_blocks(s[SIZE_C]) * 8;
    int64_t i = (int64_t)block_index() * THREADS + thread_index();
    if (i >= (int64_t)s[SIZE_K] * s[SIZE_C] * s[SIZE_TAPS])
        return;
    int tap = (int)(i % s[SIZE_TAPS]), c = (int)(i / s[SIZE_TAPS] % s[SIZE_C]);
    int k = (int)(i / s[SIZE_TAPS] / s[SIZE_C]);
    const float *matrix = (const float *)a->buffers[0];
    store_global((float *)a->buffers[1] + i,
                 load_global(matrix + ((int64_t)k * s[SIZE_TAPS] + tap) * row + c));
}
