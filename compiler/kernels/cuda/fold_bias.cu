/* The bias of a convolution that batch normalisation was folded into: shift + scale * bias, of
 * channel c. HAS_BIAS is 1 where the convolution had a bias, else 0.
 *
 * own buffers: coefficients [2][Cpad], bias where HAS_BIAS, result
 * sizes: C    scalars: none */
DEVICE void fold_bias(const Arguments *a, int c, int buffer, int size, int)
{
    const float *coefficients = (const float *)a->buffers[buffer];
    float *result = (float *)a->buffers[buffer + 1 + HAS_BIAS];
    int channels = a->sizes[size], padded = 16 * divide_up(channels, 16);
    float value = 0.0f;
    if (c >= padded)
        return;
    if (c < channels) {
        value = load_global(coefficients + padded + c);
#if HAS_BIAS
        const float *bias = (const float *)a->buffers[buffer + 1];
        value += load_global(coefficients + c) * load_global(bias + c);
#endif
    }
    store_global(result + c, value);
}
