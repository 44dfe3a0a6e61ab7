/* Rows a, b, d with which the gradient of batch normalisation for x is a * dy + b * x + d. With
 * M = N * per_sample, r = 1 / sqrt(variance + eps), S1 = sum dy, S2 = sum dy * (x - mean):
 * a = weight * r, b = -weight * r^3 * S2 / M, d = -a * S1 / M - b * mean.
 *
 * own buffers: moments [2][Cpad], weight, sums [2][Cpad], result [3][Cpad]
 * sizes: C; per_sample    scalars: eps    scratch: 0 */
void KERNEL(const KernelArguments *a)
{
    const float *moments = a->buffers[0], *weight = a->buffers[1], *sums = a->buffers[2];
    float *result = a->buffers[3];
    int64_t channels = a->sizes[0], padded = 16 * channel_blocks(channels);
    double count = (double)(a->batch * a->sizes[1]);
    memset(result, 0, (size_t)padded * 3 * sizeof *result);
    for (int64_t c = 0; c < channels; c++) {
        double mean = moments[c], r = 1.0 / sqrt((double)moments[padded + c] + a->scalars[0]);
        double dy_slope = (double)weight[c] * r;
        double x_slope = -dy_slope * r * r * (double)sums[padded + c] / count;
        result[c] = (float)dy_slope;
        result[padded + c] = (float)x_slope;
        result[2 * padded + c] = (float)(-dy_slope * (double)sums[c] / count - x_slope * mean);
    }
}
