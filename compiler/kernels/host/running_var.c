/* The running variance after this batch: (1 - momentum) * running_var + momentum * variance *
 * M / (M - 1), M = N * per_sample; the factor is 1 for M = 1. The result may be written over the
 * old one.
 *
 * own buffers: running_var, moments [2][Cpad], result
 * sizes: C; per_sample    scalars: momentum    scratch: 0 */
void KERNEL(const KernelArguments *a)
{
    const float *old = a->buffers[0], *moments = a->buffers[1];
    float *result = a->buffers[2];
    int64_t channels = a->sizes[0], padded = 16 * channel_blocks(channels);
    double count = (double)(a->batch * a->sizes[1]), momentum = a->scalars[0];
    double share = momentum * (count > 1 ? count / (count - 1) : 1.0);
    for (int64_t c = 0; c < padded; c++) {
        double value = (1.0 - momentum) * (double)old[c] + share * (double)moments[padded + c];
        result[c] = c < channels ? (float)value : 0;
    }
}
