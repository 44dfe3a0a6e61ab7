/* Scale and shift with which batch normalisation is one multiply-add:
 * scale = weight / sqrt(variance + eps), shift = bias - mean * scale. Channel c of them.
 *
 * own buffers: moments [2][Cpad], weight, bias, result [2][Cpad]
 * sizes: C    scalars: eps */
DEVICE void batch_norm_coefficients(const Arguments *a, int c, int buffer, int size, int scalar)
{
    const float *moments = (const float *)a->buffers[buffer];
    const float *weight = (const float *)a->buffers[buffer + 1];
    const float *bias = (const float *)a->buffers[buffer + 2];
    float *result = (float *)a->buffers[buffer + 3];
    int channels = a->sizes[size], padded = 16 * divide_up(channels, 16);
    double scale = 0, shift = 0;
    if (c >= padded)
        return;
    if (c < channels) {
        double mean = load_global(moments + c), variance = load_global(moments + padded + c);
        scale = (double)load_global(weight + c) / sqrt(variance + a->scalars[scalar]);
        shift = (double)load_global(bias + c) - mean * scale;
    }
    store_global(result + c, (float)scale);
    store_global(result + padded + c, (float)shift);
}
