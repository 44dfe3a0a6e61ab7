/* Convolution with stride 1 and a few channels on both sides (the 7x7 window of an attention gate:
 * two channels to one), and the gradient of one for its input. conv.c would compute sixteen output
 * channels for each that there is; here the lanes of a vector are pixels of a row.
 *
 * Own buffers: weights as PyTorch keeps them.  Reads read_x, writes write_y.
 *
 * A task is a part (a band of result rows) of a sample. The rows of x that it needs are taken apart
 * into a plane for each channel, with zeros around; each tap then is a multiply-add of a row of a
 * plane, from its own place on.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PARTS, SIZE_ROWS,    /* parts a sample, result rows of a part */
    SIZE_KERNEL,
    SIZE_TURNED,              /* weights are [C][K]... and turned by 180 degrees */
    SIZE_SPREAD,              /* the dilation */
    SIZE_ORIGIN,              /* row and column of x at which the patch of row 0 begins */
    SIZE_PATCH_ROWS, SIZE_PATCH_COLUMNS,
    SIZE_LINE,                /* floats of a row of a plane */
    SIZE_ROW_OFFSET, SIZE_RESULT_OFFSET, /* bytes in the scratch memory; the planes are at 0 */
};

enum { STRETCH = 64 };        /* pixels at a time */

static void fill_planes(const KernelArguments *a, int64_t n, int64_t top, float *planes, float *row)
{
    const int64_t *s = a->sizes;
    const int64_t columns = s[SIZE_PATCH_COLUMNS], line = s[SIZE_LINE], rows = s[SIZE_PATCH_ROWS];
    const int64_t left = max64(-s[SIZE_ORIGIN], 0);      /* of the row's first pixel in a plane */
    const int64_t first = max64(s[SIZE_ORIGIN], 0);
    const int64_t end = min64(s[SIZE_ORIGIN] + columns, s[SIZE_W]);
    memset(planes, 0, (size_t)(s[SIZE_C] * rows * line) * 4);
    for (int64_t i = 0; i < rows; i++) {
        if (top + i < 0 || top + i >= s[SIZE_H] || end <= first)
            continue;
        for (int64_t c = 0; DENSE_X && c < s[SIZE_C]; c++)
            read_x(a, n, c, top + i, first, end - first, planes + (c * rows + i) * line + left);
        if (DENSE_X)
            continue;
        conv_patch(a, read_x, n, 0, s[SIZE_H], s[SIZE_W], top + i, s[SIZE_ORIGIN], 1, columns, row);
        for (int64_t c = 0; c < s[SIZE_C]; c++) {
            float *to = planes + (c * rows + i) * line;
            for (int64_t column = 0; column < columns; column++)
                to[column] = row[column * 16 + c];
        }
    }
}

/* One output channel of a stretch of a row; `x` is where its first pixel's window begins. */
static void convolve_stretch(const int64_t *s, const float *weights, const float *x, float *to)
{
    const int64_t kernel = s[SIZE_KERNEL], taps = kernel * kernel, spread = s[SIZE_SPREAD];
    const int64_t channel = s[SIZE_TURNED] ? s[SIZE_K] * taps : taps;
    v16 sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};
    for (int64_t c = 0; c < s[SIZE_C]; c++) {
        for (int64_t r = 0; r < kernel; r++) {
            const float *from = x + (c * s[SIZE_PATCH_ROWS] + r * spread) * s[SIZE_LINE];
            for (int64_t k = 0; k < kernel; k++, from += spread) {
                const int64_t place = r * kernel + k;
                const int64_t tap = s[SIZE_TURNED] ? taps - 1 - place : place;
                const v16 w = splat16(weights[c * channel + tap]);
                sum0 += w * load16(from);
                sum1 += w * load16(from + 16);
                sum2 += w * load16(from + 32);
                sum3 += w * load16(from + 48);
            }
        }
    }
    store16(to, sum0);
    store16(to + 16, sum1);
    store16(to + 32, sum2);
    store16(to + 48, sum3);
}

static void convolve_part(const KernelArguments *a, int64_t n, int64_t part)
{
    const int64_t *s = a->sizes;
    const int64_t taps = s[SIZE_KERNEL] * s[SIZE_KERNEL], first = part * s[SIZE_ROWS];
    const int64_t lanes = DENSE_Y ? 1 : 16;
    const int64_t end = min64(first + s[SIZE_ROWS], s[SIZE_P]);
    char *planes = (char *)thread_scratch(a);
    float *result = (float *)(planes + s[SIZE_RESULT_OFFSET]);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    fill_planes(a, n, first + s[SIZE_ORIGIN], (float *)planes,
                (float *)(planes + s[SIZE_ROW_OFFSET]));
    memset(result, 0, (size_t)s[SIZE_Q] * 64);
    for (int64_t row = first; row < end; row++) {
        const float *x = (float *)planes + (row - first) * s[SIZE_LINE];
        for (int64_t k = 0; k < s[SIZE_K]; k++) {
            const float *weights = (const float *)a->buffers[0]
                                   + k * taps * (s[SIZE_TURNED] ? 1 : s[SIZE_C]);
            for (int64_t q = 0; q < s[SIZE_Q]; q += STRETCH) {
                float stretch[STRETCH];
                convolve_stretch(s, weights, x + q, stretch);
                for (int64_t i = 0; i < min64(STRETCH, s[SIZE_Q] - q); i++)
                    result[(q + i) * lanes + k] = stretch[i];
            }
        }
        write_y(a, n, 0, row, 0, s[SIZE_Q], result, accumulators);
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
