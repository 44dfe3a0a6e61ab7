/* Weights of conv_depthwise.c: from [C][1][kernel][kernel] to [block][tap][16], zeros behind C.
 *
 * Own buffers: weights as PyTorch keeps them, packed weights.
 */
enum { SIZE_C, SIZE_KERNEL };

void KERNEL(const KernelArguments *a)
{
    const int64_t C = a->sizes[SIZE_C], taps = a->sizes[SIZE_KERNEL] * a->sizes[SIZE_KERNEL];
    const float *weights = a->buffers[0];
    float *packed = a->buffers[1];
    for (int64_t cb = 0; cb < (C + 15) / 16; cb++) {
        for (int64_t tap = 0; tap < taps; tap++) {
            for (int64_t lane = 0; lane < 16; lane++) {
                const int64_t c = cb * 16 + lane;
                packed[(cb * taps + tap) * 16 + lane] = c < C ? weights[c * taps + tap] : 0;
            }
        }
    }
}
