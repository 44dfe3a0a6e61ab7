/* Gradient of a depthwise convolution for its weight, [C][1][kernel][kernel]: vectorised over the
 * 16 channels of a block.
 *
 * Own buffers: result, workspace.  Reads read_x [C,H,W] and read_dy [C,P,Q].
 * A task is one channel block and one of SLOTS divisions of the batch's bands of rows; it keeps its
 * sums [tap][16] in the workspace [block][slot], which are added in order at the end.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION,
    SIZE_SLOTS,
    SIZE_BAND,                /* dy rows at a time */
    SIZE_PATCH_ROWS, SIZE_PATCH_COLUMNS,
    SIZE_DY_OFFSET,           /* floats: packed dy behind packed x in the scratch memory */
};

/* Adds the products of one packed band to sums[tap][16]. */
static void add_band(const int64_t *s, const float *x, const float *dy, int64_t rows, v16 *sums)
{
    const int64_t kernel = s[SIZE_KERNEL], line = s[SIZE_PATCH_COLUMNS] * 16;
    for (int64_t tap = 0; tap < kernel * kernel; tap++) {
        v16 even = {0}, odd = {0};
        for (int64_t row = 0; row < rows; row++) {
            const float *from = x + (row * s[SIZE_STRIDE] + tap / kernel * s[SIZE_DILATION]) * line
                                + tap % kernel * s[SIZE_DILATION] * 16;
            const v16 *d = (const v16 *)(dy + row * s[SIZE_Q] * 16);
            int64_t q = 0;
            for (; q + 1 < s[SIZE_Q]; q += 2, from += s[SIZE_STRIDE] * 32) {
                even += d[q] * *(const v16 *)from;
                odd += d[q + 1] * *(const v16 *)(from + s[SIZE_STRIDE] * 16);
            }
            if (q < s[SIZE_Q])
                even += d[q] * *(const v16 *)from;
        }
        sums[tap] += even + odd;
    }
}

static void fill_slot(const KernelArguments *a, int64_t cb, int64_t slot, v16 *sums)
{
    const int64_t *s = a->sizes;
    const int64_t bands = (s[SIZE_P] + s[SIZE_BAND] - 1) / s[SIZE_BAND], all = bands * a->batch;
    float *x = (float *)(a->scratch + omp_get_thread_num() * a->scratch_bytes);
    float *dy = x + s[SIZE_DY_OFFSET];
    memset(sums, 0, (size_t)(s[SIZE_KERNEL] * s[SIZE_KERNEL]) * sizeof *sums);
    for (int64_t i = slot * all / s[SIZE_SLOTS]; i < (slot + 1) * all / s[SIZE_SLOTS]; i++) {
        const int64_t n = i / bands, row = i % bands * s[SIZE_BAND];
        const int64_t rows = row + s[SIZE_BAND] < s[SIZE_P] ? s[SIZE_BAND] : s[SIZE_P] - row;
        conv_patch(a, read_x, n, cb, s[SIZE_H], s[SIZE_W], row * s[SIZE_STRIDE] - s[SIZE_PADDING],
                   -s[SIZE_PADDING], s[SIZE_PATCH_ROWS], s[SIZE_PATCH_COLUMNS], x);
        conv_patch(a, read_dy, n, cb, s[SIZE_P], s[SIZE_Q], row, 0, rows, s[SIZE_Q], dy);
        add_band(s, x, dy, rows, sums);
    }
}

/* Adds the slots of one block in order and writes its channels. */
static void write_block(const KernelArguments *a, int64_t cb, v16 *sums)
{
    const int64_t *s = a->sizes;
    const int64_t taps = s[SIZE_KERNEL] * s[SIZE_KERNEL];
    for (int64_t slot = 1; slot < s[SIZE_SLOTS]; slot++) {
        for (int64_t tap = 0; tap < taps; tap++)
            sums[tap] += sums[slot * taps + tap];
    }
    for (int64_t lane = 0; lane < 16 && cb * 16 + lane < s[SIZE_C]; lane++) {
        float *to = (float *)a->buffers[0] + (cb * 16 + lane) * taps;
        for (int64_t tap = 0; tap < taps; tap++)
            to[tap] = sums[tap][lane];
    }
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t blocks = (s[SIZE_C] + 15) / 16, slots = s[SIZE_SLOTS];
    const int64_t taps = s[SIZE_KERNEL] * s[SIZE_KERNEL];
    v16 *workspace = a->buffers[1];
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < blocks * slots; task++)
        fill_slot(a, task / slots, task % slots, workspace + task * taps);
    #pragma omp parallel for num_threads(a->threads) schedule(static)
    for (int64_t cb = 0; cb < blocks; cb++)
        write_block(a, cb, workspace + cb * slots * taps);
}
