/* Reduces the pixels of each channel: [C,H,W] to [C,1,1]. One of REDUCE_SUM, REDUCE_MEAN,
 * REDUCE_MAX is defined. Sums are made a row at a time, then over the rows: the rounding error
 * of a sum grows with its length.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * W
 * sizes: C H W of x; K P Q of the result (C 1 1); parts a sample (1); rows a part (1) */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };

INLINE v16 reduce_row(const float *row, int64_t width)
{
#ifdef REDUCE_MAX
    v16 even = load16(row), odd = load16(row + 16 * (width - 1)), third = even, fourth = even;
    int64_t w = 1;
    for (; w + 3 < width; w += 4) {
        odd = max16(odd, load16(row + 16 * w));
        third = max16(third, load16(row + 16 * w + 16));
        fourth = max16(fourth, load16(row + 16 * w + 32));
        even = max16(even, load16(row + 16 * w + 48));
    }
    for (; w < width; w++)
        even = max16(even, load16(row + 16 * w));
    return max16(max16(even, odd), max16(third, fourth));
#else
    v16 even = load16(row), odd = {0};
    int64_t w = 1;
    for (; w + 1 < width; w += 2) {
        odd += load16(row + 16 * w);
        even += load16(row + 16 * w + 16);
    }
    return w < width ? even + (odd + load16(row + 16 * w)) : even + odd;
#endif
}

static void one_block(const KernelArguments *a, int64_t n, int64_t cb)
{
    const int64_t *s = a->sizes;
    float *row = thread_scratch(a);
    v16 accumulators[ACCUMULATORS + 1], result = {0};
    memset(accumulators, 0, sizeof accumulators);
    for (int64_t h = 0; h < s[SIZE_H]; h++) {
        read_x(a, n, cb, h, 0, s[SIZE_W], row);
        v16 value = reduce_row(row, s[SIZE_W]);
#ifdef REDUCE_MAX
        result = h == 0 ? value : max16(result, value);
#else
        result += value;
#endif
    }
#ifdef REDUCE_MEAN
    result /= (float)(s[SIZE_H] * s[SIZE_W]);
#endif
    write_y(a, n, cb, 0, 0, 1, (const float *)&result, accumulators);
    finish_y(a, n, 0, cb, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t blocks = channel_blocks(s[SIZE_C]), tasks = a->batch * blocks;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (tasks * s[SIZE_H] * s[SIZE_W] > 1024)
    for (int64_t task = 0; task < tasks; task++)
        one_block(a, task / blocks, task % blocks);
}
