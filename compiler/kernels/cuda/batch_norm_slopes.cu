/* Rows a, b, d with which the gradient of batch normalisation for x is a * dy + b * x + d. With
 * M = N * per_sample, r = 1 / sqrt(variance + eps), S1 = sum dy, S2 = sum dy * (x - mean):
 * a = weight * r, b = -weight * r^3 * S2 / M, d = -a * S1 / M - b * mean. Channel c of them.
 *
 * own buffers: moments [2][Cpad], weight, sums [2][Cpad], result [3][Cpad]
 * sizes: C; per_sample    scalars: eps */
DEVICE void batch_norm_slopes(const Arguments *a, int c, int buffer, int size, int scalar)
{
    const float *moments = (const float *)a->buffers[buffer];
    const float *weight = (const float *)a->buffers[buffer + 1];
    const float *sums = (const float *)a->buffers[buffer + 2];
    float *result = (float *)a->buffers[buffer + 3];
    int channels = a->sizes[size], padded = 16 * divide_up(channels, 16);
    double dy_slope = 0, x_slope = 0, offset = 0;
    if (c >= padded)
        return;
    if (c < channels) {
        double count = (double)a->batch * (double)a->sizes[size + 1];
        double mean = load_global(moments + c), variance = load_global(moments + padded + c);
        double r = 1.0 / sqrt(variance + a->scalars[scalar]);
        dy_slope = (double)load_global(weight + c) * r;
        x_slope = -dy_slope * r * r * (double)load_global(sums + padded + c) / count;
        offset = -dy_slope * (double)load_global(sums + c) / count - x_slope * mean;
    }
    store_global(result + c, (float)dy_slope);
    store_global(result + padded + c, (float)x_slope);
    store_global(result + 2 * padded + c, (float)offset);
}
