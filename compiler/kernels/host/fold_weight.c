/* A convolution's weight times the scale of its output channel: batch normalisation folded into it.
 *
 * own buffers: weight [K][C][R][S], coefficients [2][Kpad], result as weight, padded to 16 floats
 * sizes: K (of the coefficients); K; C * R * S    scalars: none    scratch: 0 */
enum { SIZE_CHANNELS, SIZE_K, SIZE_FILTER };

void KERNEL(const KernelArguments *a)
{
    const float *weight = a->buffers[0], *scale = a->buffers[1];
    float *result = a->buffers[2];
    int64_t filter = a->sizes[SIZE_FILTER], count = a->sizes[SIZE_K] * filter;
#pragma omp parallel for num_threads(a->threads) if (count > 65536)
    for (int64_t k = 0; k < a->sizes[SIZE_K]; k++)
        for (int64_t i = 0; i < filter; i++)
            result[k * filter + i] = weight[k * filter + i] * scale[k];
    for (int64_t i = count; i % 16 != 0; i++)
        result[i] = 0;
}
