/* The partial sums of batch_norm_sums to their result: added in double, sample by sample and
 * part by part, so that the number of threads does not change a bit.
 *
 * own buffers: partials [N][parts][2][Cpad], result [2][Cpad]
 * sizes: C; parts    scalars: none    scratch: 0 */
enum { SIZE_C, SIZE_PARTS };

void KERNEL(const KernelArguments *a)
{
    const float *partials = a->buffers[0];
    float *result = a->buffers[1];
    int64_t channels = a->sizes[SIZE_C], rows = a->batch * a->sizes[SIZE_PARTS];
    int64_t blocks = 2 * channel_blocks(channels); /* of both rows */
#pragma omp parallel for num_threads(a->threads) if (rows * blocks > 4096)
    for (int64_t block = 0; block < blocks; block++) {
        v16i mask = channel_mask16(channels, block % (blocks / 2));
        double sums[16] = {0};
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < 16; i++)
                sums[i] += (double)partials[16 * (row * blocks + block) + i];
        for (int64_t i = 0; i < 16; i++)
            result[16 * block + i] = mask[i] ? (float)sums[i] : 0;
    }
}
