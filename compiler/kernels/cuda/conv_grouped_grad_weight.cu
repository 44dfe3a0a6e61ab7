/* Gradient of a convolution in groups of any size for its weight, [K][C / GROUPS][kernel][kernel]:
 * for each tap the sum over samples and pixels of x under the tap times dy. Also that of a
 * transposed convolution, with x and dy swapped. A block of threads does one tap for 8 output and
 * 8 input channels, of which those count that are of the same group; its threads take turns at the
 * pixels, and their sums are added in a fixed order.
 *
 * own buffers: where SPLITS is 1 the result, else a workspace [SPLITS][result], which
 *     conv_grad_weight_finish.cu adds up.  Reads read_x [C,H,W] and read_dy [K,P,Q].
 * grid: SPLITS * blocks of output channels * RANGE * taps; shared memory: THREADS / 32 * 256
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION, SIZE_GROUPS,
    SIZE_SPLITS,
    SIZE_RANGE,               /* blocks of input channels that a block of output channels meets */
};

/* Of every so manieth pixel: sums[k] are those of output channel k. */
DEVICE void add_pixels(const Arguments *a, v8 sums[8], int split, int kb, int cb, int tap)
{
    const int *s = a->sizes;
    int down = tap / s[SIZE_KERNEL] * s[SIZE_DILATION] - s[SIZE_PADDING];
    int across = tap % s[SIZE_KERNEL] * s[SIZE_DILATION] - s[SIZE_PADDING];
    for (int pixel = split * THREADS + thread_index(); pixel < a->batch * s[SIZE_P] * s[SIZE_Q];
         pixel += s[SIZE_SPLITS] * THREADS) {
        int q = pixel % s[SIZE_Q], p = pixel / s[SIZE_Q] % s[SIZE_P];
        int n = pixel / s[SIZE_Q] / s[SIZE_P];
        int h = p * s[SIZE_STRIDE] + down, w = q * s[SIZE_STRIDE] + across;
        if (h < 0 || h >= s[SIZE_H] || w < 0 || w >= s[SIZE_W])
            continue;
        v8 dy = read_dy(a, n, kb, p, q), x = read_x(a, n, cb, h, w);
        EACH_LANE sums[i] += dy.lane[i] * x;
    }
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int taps = s[SIZE_KERNEL] * s[SIZE_KERNEL], blocks = channel_blocks(s[SIZE_K]);
    int K = s[SIZE_K] / s[SIZE_GROUPS], C = s[SIZE_C] / s[SIZE_GROUPS], thread = thread_index();
    int tap = block_index() % taps, rest = block_index() / taps;
    int kb = rest / s[SIZE_RANGE] % blocks, split = rest / s[SIZE_RANGE] / blocks;
    int cb = 8 * kb / K * C / 8 + rest % s[SIZE_RANGE];
    if (cb >= channel_blocks(s[SIZE_C]))
        return;
    v8 sums[8];
    EACH_LANE sums[i] = splat8(0);
    add_pixels(a, sums, split, kb, cb, tap);
    EACH_LANE {
        UNROLL for (int j = 0; j < 8; j++) {
            float sum = sums[i].lane[j];
            for (int mask = 16; mask > 0; mask /= 2)
                sum += shuffle_xor(sum, mask);
            if (thread % 32 == 0)
                store_shared((unsigned)(thread / 32 * 64 + 8 * i + j) * 4, sum);
        }
    }
    barrier();
    int k = 8 * kb + thread / 8, c = 8 * cb + thread % 8;
    if (thread >= 64 || k >= s[SIZE_K] || c >= s[SIZE_C] || k / K != c / C)
        return;
    float sum = 0;
    for (int warp = 0; warp < THREADS / 32; warp++)
        sum += load_shared<float>((unsigned)(warp * 64 + thread) * 4);
    int64_t row = ((int64_t)split * s[SIZE_K] + k) * C + c % C;
    store_global((float *)a->buffers[0] + row * taps + tap, sum);
}
