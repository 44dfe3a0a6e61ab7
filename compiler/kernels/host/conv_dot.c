/* Convolution with a 1x1 window and few output channels (the last layer of a network): a product of
 * each pixel's channels with the weights, lane by lane, and a sum over the lanes, of sixteen pixels
 * together. conv.c would compute sixteen output channels for each that there is.
 *
 * Own buffers: weights as PyTorch keeps them, [K][C].  Reads read_x, writes write_y.
 *
 * A task is a part (a band of rows) of a sample.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PARTS, SIZE_ROWS,    /* parts a sample, rows of a part */
    SIZE_SUMS_OFFSET,         /* bytes in the scratch memory: sums [K][Q rounded up to 16][16], */
    SIZE_RESULT_OFFSET,       /* the result's row; a row of x is at 0 */
};

/* Weights of one output and one input block, zeros behind the last channel. */
INLINE v16 block_weights(const KernelArguments *a, int64_t k, int64_t cb)
{
    const int64_t C = a->sizes[SIZE_C];
    float lanes[16] = {0};
    memcpy(lanes, (const float *)a->buffers[0] + k * C + cb * 16,
           (size_t)min64(16, C - cb * 16) * 4);
    return load16(lanes);
}

/* sums[k][q][16] (+)= x * weights of an input block. */
static void multiply_block(const KernelArguments *a, int64_t cb, const float *row, float *sums,
                           int64_t width)
{
    const int64_t Q = a->sizes[SIZE_Q];
    for (int64_t k = 0; k < a->sizes[SIZE_K]; k++) {
        const v16 w = block_weights(a, k, cb);
        v16 *sum = (v16 *)(sums + k * width * 16);
        for (int64_t q = 0; q < Q; q++) {
            v16 product = load16(row + q * 16) * w;
            if (cb > 0)
                product += sum[q];
            sum[q] = product;
        }
    }
}

/* The sums of the lanes of sums[q], of sixteen pixels, `step` floats apart. */
static void add_lanes(const float *sums, int64_t count, float *result, int64_t step)
{
    const v16 sum = sum_rows16(sums);
    if (step == 1)
        store16(result, sum);
    else
        for (int64_t i = 0; i < count; i++)
            result[i * step] = sum[i];
}

static void convolve_part(const KernelArguments *a, int64_t n, int64_t part)
{
    const int64_t *s = a->sizes;
    const int64_t Q = s[SIZE_Q], width = (Q + 15) / 16 * 16;
    const int64_t first = part * s[SIZE_ROWS], end = min64(first + s[SIZE_ROWS], s[SIZE_P]);
    char *scratch = (char *)thread_scratch(a);
    const int64_t lanes = DENSE_Y ? 1 : 16;
    float *x = (float *)scratch, *sums = (float *)(scratch + s[SIZE_SUMS_OFFSET]);
    float *result = (float *)(scratch + s[SIZE_RESULT_OFFSET]);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    memset(result, 0, (size_t)Q * 64);
    for (int64_t row = first; row < end; row++) {
        for (int64_t cb = 0; cb < channel_blocks(s[SIZE_C]); cb++) {
            read_x(a, n, cb, row, 0, Q, x);
            multiply_block(a, cb, x, sums, width);
        }
        for (int64_t k = 0; k < s[SIZE_K]; k++) {
            for (int64_t q = 0; q < Q; q += 16)
                add_lanes(sums + (k * width + q) * 16, min64(16, Q - q), result + q * lanes + k,
                          lanes);
        }
        write_y(a, n, 0, row, 0, Q, result, accumulators);
    }
    finish_y(a, n, part, 0, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t parts = a->sizes[SIZE_PARTS];
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < a->batch * parts; task++)
        convolve_part(a, task / parts, task % parts);
}
