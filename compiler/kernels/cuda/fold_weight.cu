/* A convolution's weight times the scale of its output channel: batch normalisation folded into it.
 * Element i of it, in the order of the weight.
 *
 * own buffers: weight [K][C][R][S], coefficients [2][Kpad], result as weight, padded to 16 floats
 * sizes: K (of the coefficients); K; C * R * S    scalars: none */
DEVICE void fold_weight(const Arguments *a, int i, int buffer, int size, int)
{
    const float *weight = (const float *)a->buffers[buffer];
    const float *scale = (const float *)a->buffers[buffer + 1];
    float *result = (float *)a->buffers[buffer + 2];
    int filter = a->sizes[size + 2], count = a->sizes[size + 1] * filter;
    if (i < count)
        store_global(result + i, load_global(weight + i) * load_global(scale + i / filter));
    else if (i < 16 * divide_up(count, 16))
        store_global(result + i, 0.0f);
}
