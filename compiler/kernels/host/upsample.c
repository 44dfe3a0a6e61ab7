/* Enlarges by a whole factor. nearest: y[p][q] = x[p / scale][q / scale]. bilinear: the pixel
 * centres are matched (PyTorch's align_corners=False): source place (p + 0.5) / scale - 0.5, at
 * least 0, between row i and row min(i + 1, H - 1); first between the rows, then along the row.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * (3 * W + Q)
 * sizes: C H W of x; K P Q of the result; parts a sample; rows of the result a part; scale;
 * mode (0 nearest, 1 bilinear) */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS, SIZE_SCALE, SIZE_MODE
};

/* Two neighbours among `count` and the share of the second. */
typedef struct { int64_t first, second; float share; } Between;

static Between between(int64_t place, int64_t scale, int64_t count)
{
    double source = ((double)place + 0.5) / (double)scale - 0.5;
    source = source < 0 ? 0 : source;
    int64_t first = min64((int64_t)source, count - 1);
    return (Between){first, min64(first + 1, count - 1), (float)(source - (double)first)};
}

static void repeat_row(const int64_t *s, const float *restrict row, float *restrict out)
{
    for (int64_t w = 0; w < s[SIZE_W]; w++)
        for (int64_t i = 0; i < s[SIZE_SCALE]; i++)
            store16(out + 16 * (w * s[SIZE_SCALE] + i), load16(row + 16 * w));
}

static void stretch_row(const int64_t *s, const float *restrict row, float *restrict out)
{
    for (int64_t q = 0; q < s[SIZE_Q]; q++) {
        Between at = between(q, s[SIZE_SCALE], s[SIZE_W]);
        v16 left = load16(row + 16 * at.first), right = load16(row + 16 * at.second);
        store16(out + 16 * q, left * (1.0f - at.share) + right * at.share);
    }
}

static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    const int64_t *s = a->sizes;
    int64_t width = s[SIZE_W];
    float *rows = thread_scratch(a); /* two: row h lies at h % 2 */
    float *mixed = rows + 32 * width, *out = mixed + 16 * width;
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    int64_t next = 0;                /* the rows below have been read */
    for (int64_t p = begin; p < end; p++) {
        Between at = between(p, s[SIZE_SCALE], s[SIZE_H]);
        if (s[SIZE_MODE] == 0)
            at = (Between){p / s[SIZE_SCALE], p / s[SIZE_SCALE], 0.0f};
        int64_t before = next;
        for (next = max64(next, at.first); next <= at.second; next++)
            read_x(a, n, cb, next, 0, width, rows + 16 * width * (next % 2));
        const float *above = rows + 16 * width * (at.first % 2);
        const float *below = rows + 16 * width * (at.second % 2);
        if (s[SIZE_MODE] == 0 && next != before)
            repeat_row(s, above, out);
        if (s[SIZE_MODE] != 0) {
            for (int64_t w = 0; w < width; w++)
                store16(mixed + 16 * w, load16(above + 16 * w) * (1.0f - at.share)
                                      + load16(below + 16 * w) * at.share);
            stretch_row(s, mixed, out);
        }
        write_y(a, n, cb, p, 0, s[SIZE_Q], out, accumulators);
    }
    finish_y(a, n, part, cb, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t blocks = channel_blocks(s[SIZE_K]), parts = s[SIZE_PARTS];
    int64_t tasks = a->batch * blocks * parts;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (a->batch * blocks * s[SIZE_P] * s[SIZE_Q] > 1024)
    for (int64_t task = 0; task < tasks; task++)
        one_part(a, task / parts / blocks, task % parts, task / parts % blocks);
}
