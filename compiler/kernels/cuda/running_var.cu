/* The running variance after this batch: (1 - momentum) * running_var + momentum * variance *
 * M / (M - 1), M = N * per_sample; the factor is 1 for M = 1. The result may be written over the
 * old one. Channel c of it.
 *
 * own buffers: running_var, moments [2][Cpad], result
 * sizes: C; per_sample    scalars: momentum */
DEVICE void running_var(const Arguments *a, int c, int buffer, int size, int scalar)
{
    const float *old = (const float *)a->buffers[buffer];
    const float *moments = (const float *)a->buffers[buffer + 1];
    float *result = (float *)a->buffers[buffer + 2];
    int channels = a->sizes[size], padded = 16 * divide_up(channels, 16);
    double count = (double)a->batch * (double)a->sizes[size + 1], momentum = a->scalars[scalar];
    double share = momentum * (count > 1 ? count / (count - 1) : 1.0), value = 0;
    if (c >= padded)
        return;
    if (c < channels)
        value = (1.0 - momentum) * (double)load_global(old + c)
              + share * (double)load_global(moments + padded + c);
    store_global(result + c, (float)value);
}
