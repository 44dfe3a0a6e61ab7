/* Gradient of batch normalisation for weight: sum dy * (x - mean), divided by sqrt(variance + eps).
 * Channel c of it.
 *
 * own buffers: moments [2][Cpad], sums [2][Cpad], result
 * sizes: C    scalars: eps */
DEVICE void batch_norm_grad_weight(const Arguments *a, int c, int buffer, int size, int scalar)
{
    const float *moments = (const float *)a->buffers[buffer];
    const float *sums = (const float *)a->buffers[buffer + 1];
    float *result = (float *)a->buffers[buffer + 2];
    int channels = a->sizes[size], padded = 16 * divide_up(channels, 16);
    double value = 0;
    if (c >= padded)
        return;
    if (c < channels)
        value = (double)load_global(sums + padded + c)
              / sqrt((double)load_global(moments + padded + c) + a->scalars[scalar]);
    store_global(result + c, (float)value);
}
