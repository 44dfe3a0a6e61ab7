/* The partial sums of a reduction over the batch to their result: added in double, sample by sample
 * and part by part, so that the number of threads does not change a bit.
 *
 * own buffers: partials [N][parts][1][Cpad], result [Cpad], or one number (padded with zeros to 16)
 * sizes: C; parts; all_channels (1: the sum over the channels too); mean_per_sample (0: the sum;
 * else it is divided by N * mean_per_sample)    scalars: none    scratch: 0 */
enum { SIZE_C, SIZE_PARTS, SIZE_ALL_CHANNELS, SIZE_MEAN_PER_SAMPLE };

void KERNEL(const KernelArguments *a)
{
    const float *partials = a->buffers[0];
    float *result = a->buffers[1];
    int64_t channels = a->sizes[SIZE_C], rows = a->batch * a->sizes[SIZE_PARTS];
    int64_t per_sample = a->sizes[SIZE_MEAN_PER_SAMPLE], blocks = channel_blocks(channels);
    double divisor = per_sample == 0 ? 1.0 : (double)(a->batch * per_sample), total = 0;
    for (int64_t cb = 0; cb < blocks; cb++) {
        double sums[16] = {0};
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < 16; i++)
                sums[i] += (double)partials[16 * (row * blocks + cb) + i];
        for (int64_t i = 0; i < 16; i++) {
            double sum = 16 * cb + i < channels ? sums[i] : 0;
            total += sum;
            if (!a->sizes[SIZE_ALL_CHANNELS])
                result[16 * cb + i] = (float)(sum / divisor);
        }
    }
    if (a->sizes[SIZE_ALL_CHANNELS])
        store16(result, (v16){(float)(total / divisor)});
}
