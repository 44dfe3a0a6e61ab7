/* The partial sums, or largest values, of each picture's parts to what global_avg_pool, or
 * global_max_pool, makes of its pixels: part by part, sums in double, so that the number of threads
 * does not change a bit.
 *
 * own buffers: partials [N][parts][rows][Cpad], of which the first row counts; result [N][Cpad]
 * sizes: C; parts; rows; pixels (the sum is divided by that many; 0: the largest value)
 * scalars: none    scratch: 0 */
enum { SIZE_C, SIZE_PARTS, SIZE_ROWS, SIZE_PIXELS };

INLINE v16 mean_block(const float *partials, int64_t parts, int64_t step, int64_t pixels)
{
    double sums[16] = {0};
    v16 mean;
    for (int64_t part = 0; part < parts; part++)
        for (int64_t i = 0; i < 16; i++)
            sums[i] += (double)partials[part * step + i];
    for (int64_t i = 0; i < 16; i++)
        mean[i] = (float)(sums[i] / (double)pixels);
    return mean;
}

INLINE v16 largest_block(const float *partials, int64_t parts, int64_t step)
{
    v16 largest = load16(partials);
    for (int64_t part = 1; part < parts; part++)
        largest = max16(largest, load16(partials + part * step));
    return largest;
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t blocks = channel_blocks(s[SIZE_C]), step = s[SIZE_ROWS] * blocks * 16;
    for (int64_t n = 0; n < a->batch; n++) {
        for (int64_t cb = 0; cb < blocks; cb++) {
            const float *from =
                (const float *)a->buffers[0] + n * s[SIZE_PARTS] * step + cb * 16;
            const v16 value = s[SIZE_PIXELS]
                                  ? mean_block(from, s[SIZE_PARTS], step, s[SIZE_PIXELS])
                                  : largest_block(from, s[SIZE_PARTS], step);
            store16((float *)a->buffers[1] + (n * blocks + cb) * 16,
                    keep16(channel_mask16(s[SIZE_C], cb), value));
        }
    }
}
