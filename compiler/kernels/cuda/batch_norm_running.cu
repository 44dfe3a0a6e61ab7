/* Scale and shift with which batch normalisation is one multiply-add, from the running statistics:
 * scale = weight / sqrt(running_var + eps), shift = bias - running_mean * scale. Channel c of them.
 *
 * own buffers: running_mean, running_var, weight, bias, result [2][Cpad]
 * sizes: C    scalars: eps */
DEVICE void batch_norm_running(const Arguments *a, int c, int buffer, int size, int scalar)
{
    const float *mean = (const float *)a->buffers[buffer];
    const float *variance = (const float *)a->buffers[buffer + 1];
    const float *weight = (const float *)a->buffers[buffer + 2];
    const float *bias = (const float *)a->buffers[buffer + 3];
    float *result = (float *)a->buffers[buffer + 4];
    int channels = a->sizes[size], padded = 16 * divide_up(channels, 16);
    double scale = 0, shift = 0;
    if (c >= padded)
        return;
    if (c < channels) {
        double root = sqrt((double)load_global(variance + c) + a->scalars[scalar]);
        scale = (double)load_global(weight + c) / root;
        shift = (double)load_global(bias + c) - (double)load_global(mean + c) * scale;
    }
    store_global(result + c, (float)scale);
    store_global(result + padded + c, (float)shift);
}
