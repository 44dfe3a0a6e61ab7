/* Gradient of batch normalisation for bias: sum dy, the first row of the sums. Channel c of it.
 *
 * own buffers: sums [2][Cpad], result
 * sizes: C    scalars: none */
DEVICE void batch_norm_grad_bias(const Arguments *a, int c, int buffer, int size, int)
{
    const float *sums = (const float *)a->buffers[buffer];
    float *result = (float *)a->buffers[buffer + 1];
    int channels = a->sizes[size];
    if (c < 16 * divide_up(channels, 16))
        store_global(result + c, c < channels ? load_global(sums + c) : 0.0f);
}
