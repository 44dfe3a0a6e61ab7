/* Gradient of batch normalisation for weight: sum dy * (x - mean), divided by sqrt(variance + eps).
 *
 * own buffers: moments [2][Cpad], sums [2][Cpad], result
 * sizes: C    scalars: eps    scratch: 0 */
void KERNEL(const KernelArguments *a)
{
    const float *moments = a->buffers[0], *sums = a->buffers[1];
    float *result = a->buffers[2];
    int64_t channels = a->sizes[0], padded = 16 * channel_blocks(channels);
    memset(result, 0, (size_t)padded * sizeof *result);
    for (int64_t c = 0; c < channels; c++)
        result[c] = (float)((double)sums[padded + c]
                            / sqrt((double)moments[padded + c] + a->scalars[0]));
}
