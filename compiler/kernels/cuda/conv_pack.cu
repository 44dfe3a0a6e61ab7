/* Weights of a convolution as conv.cu wants them: in the operands' type, in the order in which its
 * products read them.
 *
 * Own buffers: weights (OIHW floats, or IOHW where TRANSPOSED), packed weights.
 *
 * What is packed where is said in conv_packed.cu. */
enum {
    SIZE_C, SIZE_K, SIZE_KERNEL, SIZE_TRANSPOSED,
    SIZE_FEW_INPUTS,
    SIZE_STEPS,            /* units of a tap */
};

/* A thread does 8 channels of a result channel: neighbours, the same of 16 result channels. */
ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    const float *weights = (const float *)a->buffers[0];
    int taps = s[SIZE_KERNEL] * s[SIZE_KERNEL], own_taps = s[SIZE_FEW_INPUTS] ? 1 : taps;
    int steps = s[SIZE_STEPS] * own_taps, blocks = s[SIZE_STEPS] * STEP_CHANNELS / 8;
    int index = block_index() * THREADS + thread_index();
    int o = index % 16 + index / 16 / own_taps / blocks * 16, own_tap = index / 16 % own_taps;
    int block = index / 16 / own_taps % blocks;
    if (o >= divide_up(s[SIZE_K], 16) * 16)
        return;
    v8 value = splat8(0);
    EACH_LANE {
        int c = block * 8 + i, tap = own_tap;
        if (s[SIZE_FEW_INPUTS]) {
            tap = c / s[SIZE_C];
            c %= s[SIZE_C];
        }
        int64_t from = s[SIZE_TRANSPOSED] ? (int64_t)c * s[SIZE_K] + o : (int64_t)o * s[SIZE_C] + c;
        if (o < s[SIZE_K] && c < s[SIZE_C] && tap < taps)
            value.lane[i] = load_fixed(weights + from * taps + tap);
    }
    int k = own_tap * s[SIZE_STEPS] * STEP_CHANNELS + block * 8;
    store_packed8(a->buffers[1], packed_place(o, k, steps), value);
}
