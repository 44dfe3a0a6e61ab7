/* Weights of conv_line.c: transformed along the rows of the window, rounded to bf16, in the order in
 * which its products read them.
 *
 * Own buffers: weights as PyTorch keeps them, packed weights.
 * From [K][C][3][3], or where TRANSPOSED [C][K][3][3] (C the channels that the convolution reads;
 * these are turned by 180 degrees), to [strip][point][input block][row of the window][pair of
 * channels][16 * blocks of the strip] with G g at the 6 points, and zeros behind C and K. A task is
 * one strip and one input block.
 */
enum { SIZE_C, SIZE_K, SIZE_TRANSPOSED, SIZE_STRIP, SIZE_POINT_WEIGHTS }; /* as conv_line.c's */

/* The points, and what the weights are divided by there. */
#define S ((double)POINT_S)
#define L ((double)POINT_L)
#define BY_S (2 * S * S * (S * S - L * L))
#define BY_L (2 * L * L * (L * L - S * S))

/* to = G from, 3 vectors to 6. */
INLINE void transform_weights(const float from[3][16], v16 to[6])
{
    const v16 g0 = load16(from[0]), g1 = load16(from[1]), g2 = load16(from[2]);
    const v16 even_s = g0 * (float)(1 / BY_S) + g2 * (float)(S * S / BY_S);
    const v16 even_l = g0 * (float)(1 / BY_L) + g2 * (float)(L * L / BY_L);
    to[0] = g0 * (float)(1 / (S * S * L * L));
    to[1] = even_s + g1 * (float)(S / BY_S);
    to[2] = even_s - g1 * (float)(S / BY_S);
    to[3] = even_l + g1 * (float)(L / BY_L);
    to[4] = even_l - g1 * (float)(L / BY_L);
    to[5] = g2;
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t blocks = channel_blocks(s[SIZE_K]), x_blocks = channel_blocks(s[SIZE_C]);
    const int64_t strips = (blocks + s[SIZE_STRIP] - 1) / s[SIZE_STRIP];
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < strips * x_blocks; task++) {
        const int64_t strip = task / x_blocks, cb = task % x_blocks, first = strip * s[SIZE_STRIP];
        const int64_t width = 16 * min64(s[SIZE_STRIP], blocks - first);
        uint32_t *to = (uint32_t *)a->buffers[1] + strip * 6 * s[SIZE_POINT_WEIGHTS];
        const ConvWeights weights = {.weights = a->buffers[0], .C = s[SIZE_C], .K = s[SIZE_K],
                                     .turned = s[SIZE_TRANSPOSED]};
        ConvBlock block __attribute__((aligned(64))) = {{0}};
        for (int64_t lane = 0; lane < width; lane += 16) {
            conv_gather_weights(&weights, first * 16 + lane, cb * 16, block);
            for (int64_t i = 0; i < 24; i++) { /* rows of the window, pairs of channels */
                const int64_t row = i / 8, channel = i % 8 * 2;
                v16 low[6], high[6];
                transform_weights(block + channel * 9 + row * 3, low);
                transform_weights(block + (channel + 1) * 9 + row * 3, high);
                for (int64_t point = 0; point < 6; point++)
                    *(v16p *)(to + point * s[SIZE_POINT_WEIGHTS] + (cb * 24 + i) * width + lane) =
                        pair16(low[point], high[point]);
            }
        }
    }
}
