/* Depthwise convolution (groups = channels in and out), transposed or not: every block of 16
 * channels by itself, vectorised over its channels. PHASES, STEP, SHIFT, SPREAD and ORIGIN as in
 * conv.c.
 *
 * Own buffers: packed weights (conv_depthwise_pack.c).  Reads read_x, writes write_y.
 * A task is a part of one channel block of one sample.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PARTS, SIZE_ROWS,    /* parts a sample, result rows of a part: a multiple of PHASES */
    SIZE_KERNEL,
    SIZE_STEP, SIZE_PHASES, SIZE_SHIFT, SIZE_SPREAD, SIZE_ORIGIN,
    SIZE_PATCH_ROWS, SIZE_PATCH_COLUMNS,
    SIZE_LINE_OFFSET, SIZE_TAPS_OFFSET, /* bytes in the scratch memory; the patch is at 0 */
};

/* Place of tap k in the patch for a phase, in rows or columns; false if it does not contribute. */
static bool tap_place(const int64_t *s, int64_t phase, int64_t k, int64_t *place)
{
    const int64_t at = phase + s[SIZE_SHIFT] + s[SIZE_SPREAD] * k;
    *place = at / s[SIZE_PHASES] - s[SIZE_ORIGIN];
    return at % s[SIZE_PHASES] == 0;
}

static int64_t list_taps(const int64_t *s, int64_t row_phase, int64_t column_phase, ConvTap *taps)
{
    const int64_t kernel = s[SIZE_KERNEL];
    int64_t n = 0, row, column;
    for (int64_t r = 0; r < kernel; r++) {
        for (int64_t c = 0; c < kernel; c++) {
            if (tap_place(s, row_phase, r, &row) && tap_place(s, column_phase, c, &column))
                taps[n++] = (ConvTap){.x = (row * s[SIZE_PATCH_COLUMNS] + column) * 16,
                                      .weights = (r * kernel + c) * 16};
        }
    }
    return n;
}

/* One row of the result; `patch` is where its first pixel's window begins. */
static void convolve_row(const int64_t *s, int64_t row_phase, const float *patch,
                         const float *weights, ConvTap *taps, float *line)
{
    const int64_t phases = s[SIZE_PHASES];
    for (int64_t phase = 0; phase < phases; phase++) {
        const int64_t n_taps = list_taps(s, row_phase, phase, taps);
        const float *x = patch;
        for (int64_t q = phase; q < s[SIZE_Q]; q += phases, x += s[SIZE_STEP] * 16) {
            v16 sum = {0};
            for (int64_t tap = 0; tap < n_taps; tap++)
                sum +=
                    *(const v16 *)(x + taps[tap].x) * *(const v16 *)(weights + taps[tap].weights);
            *(v16 *)(line + q * 16) = sum;
        }
    }
}

static void convolve_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    const int64_t *s = a->sizes;
    const int64_t phases = s[SIZE_PHASES], first = part * s[SIZE_ROWS];
    const int64_t end = first + s[SIZE_ROWS] < s[SIZE_P] ? first + s[SIZE_ROWS] : s[SIZE_P];
    const float *weights = (const float *)a->buffers[0] + cb * s[SIZE_KERNEL] * s[SIZE_KERNEL] * 16;
    char *scratch = (char *)thread_scratch(a);
    float *patch = (float *)scratch, *line = (float *)(scratch + s[SIZE_LINE_OFFSET]);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    conv_patch(a, read_x, n, cb, s[SIZE_H], s[SIZE_W],
               first / phases * s[SIZE_STEP] + s[SIZE_ORIGIN], s[SIZE_ORIGIN],
               s[SIZE_PATCH_ROWS], s[SIZE_PATCH_COLUMNS], patch);
    for (int64_t row = first; row < end; row++) {
        const int64_t patch_row = (row - first) / phases * s[SIZE_STEP];
        convolve_row(s, row % phases, patch + patch_row * s[SIZE_PATCH_COLUMNS] * 16, weights,
                     (ConvTap *)(scratch + s[SIZE_TAPS_OFFSET]), line);
        write_y(a, n, cb, row, 0, s[SIZE_Q], line, accumulators);
    }
    finish_y(a, n, part, cb, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t parts = a->sizes[SIZE_PARTS], blocks = (a->sizes[SIZE_C] + 15) / 16;
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < a->batch * parts * blocks; task++)
        convolve_part(a, task / blocks / parts, task / blocks % parts, task % blocks);
}
