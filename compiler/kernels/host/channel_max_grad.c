/* Gradient of channel_max: dy of a pixel at its first largest channel of x, zero elsewhere. First
 * that channel of every pixel of the part: per lane the first block that has the lane's largest
 * value, then over the lanes. Then the result, a channel block after the other.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * 3 * Q + 4 * rows * Q
 * sizes: C H W of dy (1 H W); K P Q of x and the result; parts a sample; rows a part */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };

/* The first channel with the largest value, from each lane's largest and first block with it. */
static int32_t first_channel(v16 best, v16i block)
{
    v16i lower = less16(best, splat16(highest16(best)));
    union { v16i whole; int32_t lane[16]; } x = {((16 * block + lanes16()) & ~lower)
                                                 | (INT32_MAX & lower)};
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            x.lane[i] = x.lane[i] < x.lane[i + half] ? x.lane[i] : x.lane[i + half];
    return x.lane[0];
}

/* channels[q] of row p. */
static void find_channels(const KernelArguments *a, int64_t n, int64_t p, float *row,
                          int32_t *channels)
{
    const int64_t *s = a->sizes;
    int64_t width = s[SIZE_Q];
    float *best = row + 16 * width, *block = best + 16 * width;
    v16 lowest = splat16(-(float)INFINITY);
    for (int64_t cb = 0; cb < channel_blocks(s[SIZE_K]); cb++) {
        v16i mask = channel_mask16(s[SIZE_K], cb);
        read_x(a, n, cb, p, 0, width, row);
        for (int64_t q = 0; q < width; q++) {
            v16 value = select16(mask, load16(row + 16 * q), lowest), old = load16(best + 16 * q);
            v16i larger = cb == 0 ? ~(v16i){0} : less16(old, value);
            v16i index = ((v16i)load16(block + 16 * q) & ~larger) | (larger & (int32_t)cb);
            store16(best + 16 * q, select16(larger, value, old));
            store16(block + 16 * q, (v16)index);
        }
    }
    for (int64_t q = 0; q < width; q++)
        channels[q] = first_channel(load16(best + 16 * q), (v16i)load16(block + 16 * q));
}

static void one_part(const KernelArguments *a, int64_t n, int64_t part)
{
    const int64_t *s = a->sizes;
    int64_t width = s[SIZE_Q];
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    float *row = thread_scratch(a), *out = row + 16 * width;
    int32_t *channels = (int32_t *)(row + 3 * 16 * width);
    for (int64_t p = begin; p < end; p++)
        find_channels(a, n, p, row, channels + (p - begin) * width);
    for (int64_t cb = 0; cb < channel_blocks(s[SIZE_K]); cb++) {
        v16 accumulators[ACCUMULATORS + 1];
        memset(accumulators, 0, sizeof accumulators);
        for (int64_t p = begin; p < end; p++) {
            read_dy(a, n, 0, p, 0, width, row);
            memset(out, 0, (size_t)width * 64);
            for (int64_t q = 0; q < width; q++) {
                int32_t channel = channels[(p - begin) * width + q];
                if (channel / 16 == cb)
                    out[16 * q + channel % 16] = row[16 * q];
            }
            write_y(a, n, cb, p, 0, width, out, accumulators);
        }
        finish_y(a, n, part, cb, accumulators);
    }
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t parts = s[SIZE_PARTS], tasks = a->batch * parts;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (a->batch * channel_blocks(s[SIZE_K]) * s[SIZE_P] * s[SIZE_Q] > 256)
    for (int64_t task = 0; task < tasks; task++)
        one_part(a, task / parts, task % parts);
}
