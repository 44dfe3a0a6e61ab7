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

/* The weights of one input and one output block: [channel][tap][16]. */
typedef float Block[16 * 9][16];

static void gather_block(const KernelArguments *a, int64_t k, int64_t c, Block out)
{
    const int64_t *s = a->sizes;
    const int64_t row = s[SIZE_C] * 9, lanes = min64(16, s[SIZE_K] - k);
    const float *weights = (const float *)a->buffers[0] + k * row + c * 9;
    if (lanes < 16 || s[SIZE_C] - c < 16) {
        const int64_t length = min64(16, s[SIZE_C] - c) * 9;
        for (int64_t lane = 0; lane < lanes; lane++) {
            for (int64_t i = 0; i < length; i++)
                out[i][lane] = weights[lane * row + i];
        }
        return;
    }
    for (int64_t i = 0; i < 144; i += 16) {
        const float *from[16];
        float *to[16];
        for (int64_t j = 0; j < 16; j++) {
            from[j] = weights + j * row + i;
            to[j] = out[i + j];
        }
        conv_transpose(from, to);
    }
}

/* One channel's weights lie together, 9 an output channel. conv_transpose reads 16 from each on,
 * so it reads a copy, which is longer. */
static void gather_turned(const KernelArguments *a, int64_t k, int64_t c, Block out)
{
    const int64_t *s = a->sizes;
    const int64_t lanes = min64(16, s[SIZE_K] - k), channels = min64(16, s[SIZE_C] - c);
    float copy[16 * 9 + 16] = {0}, rest[16];
    for (int64_t channel = 0; channel < channels; channel++) {
        const float *from[16];
        float *to[16];
        memcpy(copy, (const float *)a->buffers[0] + ((c + channel) * s[SIZE_K] + k) * 9,
               (size_t)lanes * 36);
        for (int64_t j = 0; j < 16; j++) {
            from[j] = copy + j * 9;
            to[j] = j < 9 ? out[channel * 9 + 8 - j] : rest;
        }
        conv_transpose(from, to);
    }
}

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
        Block block __attribute__((aligned(64))) = {{0}};
        for (int64_t lane = 0; lane < width; lane += 16) {
            if (s[SIZE_K] - first * 16 - lane < 16)
                memset(block, 0, sizeof block);
            (s[SIZE_TRANSPOSED] ? gather_turned : gather_block)(a, first * 16 + lane, cb * 16,
                                                                block);
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
