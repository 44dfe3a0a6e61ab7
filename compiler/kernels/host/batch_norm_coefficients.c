/* Scale and shift with which batch normalisation is one multiply-add:
 * scale = weight / sqrt(variance + eps), shift = bias - mean * scale.
 *
 * own buffers: moments [2][Cpad], weight, bias, result [2][Cpad]
 * sizes: C    scalars: eps    scratch: 0 */
void KERNEL(const KernelArguments *a)
{
    const float *moments = a->buffers[0], *weight = a->buffers[1], *bias = a->buffers[2];
    float *result = a->buffers[3];
    int64_t channels = a->sizes[0], padded = 16 * channel_blocks(channels);
    memset(result, 0, (size_t)padded * 2 * sizeof *result);
    for (int64_t c = 0; c < channels; c++) {
        double mean = moments[c], variance = moments[padded + c];
        double scale = (double)weight[c] / sqrt(variance + a->scalars[0]);
        result[c] = (float)scale;
        result[padded + c] = (float)((double)bias[c] - mean * scale);
    }
}
