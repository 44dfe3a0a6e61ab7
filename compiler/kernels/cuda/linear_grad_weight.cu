/* Gradient of linear for weight: dw[k][f] = the sum over the samples of dy[k] * x[f],
 * f = (c * H + h) * W + w. A thread does 8 input channels of a pixel for one k; the samples are
 * added in order.
 *
 * own buffers: result [K][C * H * W], padded with zeros to a multiple of 16
 * sizes: the standard ones; C H W is x, SIZE_K counts the result's numbers
 * grid: any number of blocks
 */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_RESULT };

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    float *result = (float *)a->buffers[0];
    int pixels = s[SIZE_H] * s[SIZE_W], count = s[SIZE_C] * pixels, K = s[SIZE_RESULT] / count;
    int blocks = channel_blocks(s[SIZE_C]), first = block_index() * THREADS + thread_index();
    for (int i = first; i < K * blocks * pixels; i += block_count() * THREADS) {
        int pixel = i / blocks % pixels, cb = i % blocks, k = i / blocks / pixels;
        v8 sum = splat8(0);
        for (int n = 0; n < a->batch; n++) {
            v8 dy = read_dy(a, n, k / 8, 0, 0);
            float own = 0;
            UNROLL for (int lane = 0; lane < 8; lane++)
                own = lane == k % 8 ? dy.lane[lane] : own;
            sum += own * read_x(a, n, cb, pixel / s[SIZE_W], pixel % s[SIZE_W]);
        }
        store_plain8(result + (int64_t)k * count + 8 * cb * pixels + pixel, pixels,
                     least(8, s[SIZE_C] - 8 * cb), sum);
    }
    int padding = (s[SIZE_RESULT] + 15) / 16 * 16 - s[SIZE_RESULT];
    if (first < padding)
        store_global(result + s[SIZE_RESULT] + first, 0.0f);
}
