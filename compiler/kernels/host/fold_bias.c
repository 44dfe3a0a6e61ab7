/* The bias of a convolution that batch normalisation was folded into: shift + scale * bias.
 * HAS_BIAS is 1 where the convolution had a bias, else 0.
 *
 * own buffers: coefficients [2][Cpad], bias where HAS_BIAS, result
 * sizes: C    scalars: none    scratch: 0 */
void KERNEL(const KernelArguments *a)
{
    const float *coefficients = a->buffers[0];
    float *result = a->buffers[1 + HAS_BIAS];
    int64_t channels = a->sizes[0], padded = 16 * channel_blocks(channels);
    for (int64_t c = 0; c < padded; c++) {
        float value = coefficients[padded + c];
#if HAS_BIAS
        const float *bias = a->buffers[1];
        value += coefficients[c] * bias[c];
#endif
        result[c] = c < channels ? value : 0;
    }
}
