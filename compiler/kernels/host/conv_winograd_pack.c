/* Weights of conv_winograd.c: transformed, in the order in which its products read them.
 *
 * Own buffers: weights as PyTorch keeps them, packed weights.
 * From [K][C][3][3], or where TRANSPOSED [C][K][3][3] (C the channels that the convolution reads;
 * these are turned by 180 degrees), to [strip][point][channel][16 * blocks of the strip] with
 * G g G' at the 36 points, and zeros for lanes behind K. A task is one strip and one input block.
 */
enum { SIZE_C, SIZE_K, SIZE_TRANSPOSED, SIZE_STRIP, SIZE_POINT_WEIGHTS }; /* as conv_winograd.c's */

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t blocks = channel_blocks(s[SIZE_K]), x_blocks = channel_blocks(s[SIZE_C]);
    const ConvWeights weights = {a->buffers[0], s[SIZE_C], s[SIZE_K], s[SIZE_TRANSPOSED]};
    const int64_t strips = (blocks + s[SIZE_STRIP] - 1) / s[SIZE_STRIP];
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < strips * x_blocks; task++) {
        const int64_t strip = task / x_blocks, c = task % x_blocks * 16;
        const int64_t first = strip * s[SIZE_STRIP];
        const int64_t width = 16 * min64(s[SIZE_STRIP], blocks - first);
        float *to = (float *)a->buffers[1] + strip * 36 * s[SIZE_POINT_WEIGHTS] + c * width;
        for (int64_t lane = 0; lane < width; lane += 16)
            conv_winograd_weights(&weights, first * 16 + lane, c, to + lane, width,
                                  s[SIZE_POINT_WEIGHTS]);
    }
}
