/* The running mean after this batch: (1 - momentum) * running_mean + momentum * mean. The result
 * may be written over the old one.
 *
 * own buffers: running_mean, moments [2][Cpad], result
 * sizes: C    scalars: momentum    scratch: 0 */
void KERNEL(const KernelArguments *a)
{
    const float *old = a->buffers[0], *moments = a->buffers[1];
    float *result = a->buffers[2];
    int64_t channels = a->sizes[0], padded = 16 * channel_blocks(channels);
    double momentum = a->scalars[0];
    for (int64_t c = 0; c < padded; c++) {
        double value = (1.0 - momentum) * (double)old[c] + momentum * (double)moments[c];
        result[c] = c < channels ? (float)value : 0;
    }
}
