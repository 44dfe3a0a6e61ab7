/* Weights of a convolution as conv.cu wants them: in the operands' type, in the order in which its
 * products read them.
 *
 * Own buffers: weights (OIHW floats, or IOHW where TRANSPOSED), packed weights.
 *
 * Packed: for each 16 result channels, for each tap (or with FEW_INPUTS for all of them together),
 * for each STEP_CHANNELS channels of x a unit of 512 bytes, zeros where there are no channels.
 * A unit is four matrices of 8 rows of 16 bytes, (result channels 0-7, first half of the channels
 * of x), (0-7, second half), (8-15, first), (8-15, second), a row a result channel; for plain
 * products it is [channel of x][result channel].
 */
enum {
    SIZE_C, SIZE_K, SIZE_KERNEL, SIZE_TRANSPOSED,
    SIZE_FEW_INPUTS,
    SIZE_STEPS,            /* units of a tap */
};

enum {
#ifdef PRECISION_BF16
    STEP_CHANNELS = 16,
#else
    STEP_CHANNELS = 8,
#endif
};

/* Where the 8 numbers from channel k of x on (a multiple of 8), for result channel o, begin in the
 * packed weights of all taps: `steps` units for each 16 result channels. */
DEVICE int64_t packed_place(int o, int k, int steps)
{
    int64_t unit = (int64_t)(o / 16) * steps + k / STEP_CHANNELS;
#if defined(PRECISION_BF16)
    return unit * 256 + o % 16 / 8 * 128 + k % 16 / 8 * 64 + o % 8 * 8;
#elif defined(PRECISION_TF32)
    return unit * 128 + o % 16 / 8 * 64 + o % 8 * 4;
#else
    return unit * 128 + o % 16;
#endif
}

/* Puts them there. */
DEVICE void store_packed8(void *packed, int64_t place, v8 value)
{
#if defined(PRECISION_BF16)
    store_global((word4 *)((bf16 *)packed + place), bf16_words(value));
#elif defined(PRECISION_TF32)
    EACH_LANE value.lane[i] = bits_float(round_tf32(value.lane[i]));
    store_global((word4 *)((float *)packed + place), floats_words(value, 0));
    store_global((word4 *)((float *)packed + place + 32), floats_words(value, 1));
#else
    EACH_LANE store_global((float *)packed + place + i * 16, value.lane[i]);
#endif
}

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
