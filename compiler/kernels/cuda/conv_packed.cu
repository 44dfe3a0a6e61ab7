/* Where a convolution's weights lie when they are packed, and how they are stored: for
 * conv_pack.cu, and for adam.cu, which packs new weights in the same pass.
 *
 * For each 16 result channels, for each tap (or for all of them together, where x has few
 * channels), for each STEP_CHANNELS channels of x there is a unit of 512 bytes, zeros where there
 * are no channels. A unit is four matrices of 8 rows of 16 bytes, (result channels 0-7, first half
 * of the channels of x), (0-7, second half), (8-15, first), (8-15, second), a row a result channel;
 * for plain products it is [channel of x][result channel].
 */
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
