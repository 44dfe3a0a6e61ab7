/* Weights of conv.c in the order in which its micro-kernels read them.
 *
 * Own buffers: weights as PyTorch keeps them, packed weights.
 * From [K][C/groups][kernel][kernel], or where TRANSPOSED [C][K/groups][kernel][kernel] (C the
 * channels that the convolution reads), to [tile][input block][tap][channel][16 * blocks of the
 * tile], with zeros for lanes behind K and between channels of different groups. A task is one tile
 * and one input block.
 */
enum {
    SIZE_C, SIZE_K, SIZE_KERNEL, SIZE_GROUPS, SIZE_TRANSPOSED,
    SIZE_TILE, SIZE_RANGE, SIZE_TILE_WEIGHTS, /* as conv.c's */
};

/* The usual case, not transposed and without groups: 16 output channels' weights of these input
 * channels are 16 rows of channels * taps floats, which are transposed. */
static void pack_rows(const KernelArguments *a, int64_t k, int64_t width, int64_t c,
                      float *out)
{
    enum { channels = 16 };
    const int64_t taps = a->sizes[SIZE_KERNEL] * a->sizes[SIZE_KERNEL];
    const int64_t row = a->sizes[SIZE_C] * taps;
    const float *weights = (const float *)a->buffers[0] + k * row + c * taps;
    for (int64_t lane = 0; lane < width; lane += 16) {
        for (int64_t i = 0; i < channels * taps; i += 16) {
            const float *from[16];
            float *to[16];
            for (int64_t j = 0; j < 16; j++) {
                from[j] = weights + (lane + j) * row + i;
                to[j] = out + ((i + j) % taps * channels + (i + j) / taps) * width + lane;
            }
            conv_transpose(from, to);
        }
    }
}

/* out[tap][channel][width] of output channels k... and input channels c... */
static void pack_block(const KernelArguments *a, int64_t k, int64_t width, int64_t c,
                       int64_t channels, float *out)
{
    const int64_t *s = a->sizes;
    const float *weights = a->buffers[0];
    const int64_t K = s[SIZE_K] / s[SIZE_GROUPS], C = s[SIZE_C] / s[SIZE_GROUPS];
    const int64_t taps = s[SIZE_KERNEL] * s[SIZE_KERNEL];
    const int64_t lanes = s[SIZE_K] - k < width ? s[SIZE_K] - k : width;
    if (lanes == width && channels == 16 && s[SIZE_GROUPS] == 1 && !s[SIZE_TRANSPOSED]) {
        pack_rows(a, k, width, c, out);
        return;
    }
    if (lanes < width || s[SIZE_GROUPS] > 1)
        memset(out, 0, (size_t)(taps * channels * width) * 4);
    for (int64_t lane = 0; lane < lanes; lane++) {
        const int64_t group = (k + lane) / K;
        for (int64_t channel = 0; channel < channels; channel++) {
            const int64_t in_group = c + channel - group * C;
            if (in_group < 0 || in_group >= C)
                continue;
            const float *from = weights + (s[SIZE_TRANSPOSED]
                                               ? (c + channel) * K + (k + lane - group * K)
                                               : (k + lane) * C + in_group) * taps;
            float *to = out + channel * width + lane;
            for (int64_t tap = 0; tap < taps; tap++)
                to[tap * channels * width] = from[tap];
        }
    }
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t blocks = (s[SIZE_K] + 15) / 16, range = s[SIZE_RANGE];
    const int64_t tiles = (blocks + s[SIZE_TILE] - 1) / s[SIZE_TILE];
    const int64_t K = s[SIZE_K] / s[SIZE_GROUPS], C = s[SIZE_C] / s[SIZE_GROUPS];
    float *packed = a->buffers[1];
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < tiles * range; task++) {
        const int64_t tile = task / range, block = tile * s[SIZE_TILE];
        const int64_t left = blocks - block;
        const int64_t width = 16 * (left < s[SIZE_TILE] ? left : s[SIZE_TILE]);
        const int64_t c = (block * 16 / K * C / 16 + task % range) * 16;
        if (c < s[SIZE_C])
            pack_block(a, block * 16, width, c, s[SIZE_C] - c < 16 ? s[SIZE_C] - c : 16,
                       packed + tile * s[SIZE_TILE_WEIGHTS]
                           + task % range * 16 * s[SIZE_KERNEL] * s[SIZE_KERNEL] * width);
    }
}
