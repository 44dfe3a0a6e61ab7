/* Gradient of batch normalisation for bias: sum dy, the first row of the sums.
 *
 * own buffers: sums [2][Cpad], result
 * sizes: C    scalars: none    scratch: 0 */
void KERNEL(const KernelArguments *a)
{
    float *result = a->buffers[1];
    int64_t channels = a->sizes[0], padded = 16 * channel_blocks(channels);
    memset(result, 0, (size_t)padded * sizeof *result);
    memcpy(result, a->buffers[0], (size_t)channels * sizeof *result);
}
