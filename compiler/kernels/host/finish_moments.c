/* Mean and biased variance of each channel from those of its parts, as Chan, Golub and LeVeque
 * add them up (Updating formulae and a pairwise algorithm for computing sample variances, 1979), for
 * all parts at once: mean = sum(count * mean) / M; M2 = sum(M2 + count * (mean of the part - mean)^2).
 * In double, in a fixed order. No difference of large sums is taken anywhere.
 *
 * own buffers: partials [N][parts][3][Cpad]: count, mean, sum of squared differences from that mean
 * (M2); result [2][Cpad]: mean, biased variance
 * sizes: C; parts    scalars: none    scratch: 0 */
enum { SIZE_C, SIZE_PARTS };

static void finish_block(const float *partials, int64_t rows, int64_t stride, v16i mask,
                         float *mean, float *variance)
{
    double count[16] = {0}, sum[16] = {0}, squares[16] = {0};
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < 16; i++) {
            const float *part = partials + 3 * row * stride + i;
            count[i] += (double)part[0];
            sum[i] += (double)part[0] * (double)part[stride];
        }
    for (int64_t i = 0; i < 16; i++)
        sum[i] = mask[i] ? sum[i] / count[i] : 0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < 16; i++) {
            const float *part = partials + 3 * row * stride + i;
            double difference = (double)part[stride] - sum[i];
            squares[i] += (double)part[2 * stride] + (double)part[0] * difference * difference;
        }
    for (int64_t i = 0; i < 16; i++) {
        mean[i] = (float)sum[i];
        variance[i] = mask[i] ? (float)(squares[i] / count[i]) : 0;
    }
}

void KERNEL(const KernelArguments *a)
{
    const float *partials = a->buffers[0];
    float *result = a->buffers[1];
    int64_t rows = a->batch * a->sizes[SIZE_PARTS], blocks = channel_blocks(a->sizes[SIZE_C]);
#pragma omp parallel for num_threads(a->threads) if (rows * blocks > 2048)
    for (int64_t cb = 0; cb < blocks; cb++)
        finish_block(partials + 16 * cb, rows, 16 * blocks, channel_mask16(a->sizes[SIZE_C], cb),
                     result + 16 * cb, result + 16 * (blocks + cb));
}
