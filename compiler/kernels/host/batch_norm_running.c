/* Scale and shift with which batch normalisation is one multiply-add, from the running statistics:
 * scale = weight / sqrt(running_var + eps), shift = bias - running_mean * scale.
 *
 * own buffers: running_mean, running_var, weight, bias, result [2][Cpad]
 * sizes: C    scalars: eps    scratch: 0 */
void KERNEL(const KernelArguments *a)
{
    const float *mean = a->buffers[0], *variance = a->buffers[1];
    const float *weight = a->buffers[2], *bias = a->buffers[3];
    float *result = a->buffers[4];
    int64_t channels = a->sizes[0], padded = 16 * channel_blocks(channels);
    memset(result, 0, (size_t)padded * 2 * sizeof *result);
    for (int64_t c = 0; c < channels; c++) {
        double scale = (double)weight[c] / sqrt((double)variance[c] + a->scalars[0]);
        result[c] = (float)scale;
        result[padded + c] = (float)((double)bias[c] - (double)mean[c] * scale);
    }
}
