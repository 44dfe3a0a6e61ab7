/* The running mean after this batch: (1 - momentum) * running_mean + momentum * mean. The result
 * may be written over the old one. Channel c of it.
 *
 * own buffers: running_mean, moments [2][Cpad], result
 * sizes: C    scalars: momentum */
DEVICE void running_mean(const Arguments *a, int c, int buffer, int size, int scalar)
{
    const float *old = (const float *)a->buffers[buffer];
    const float *moments = (const float *)a->buffers[buffer + 1];
    float *result = (float *)a->buffers[buffer + 2];
    int channels = a->sizes[size];
    double momentum = a->scalars[scalar], value = 0;
    if (c >= 16 * divide_up(channels, 16))
        return;
    if (c < channels)
        value = (1.0 - momentum) * (double)load_global(old + c)
              + momentum * (double)load_global(moments + c);
    store_global(result + c, (float)value);
}
