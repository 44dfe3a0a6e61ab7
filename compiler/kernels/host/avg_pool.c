/* Average pooling: y[p][q] = the sum of x over a window of kernel * kernel pixels, divided by
 * kernel * kernel: zeros of the padding are counted. Each row of x is read once a part and summed
 * along the row to Q values; the last `kernel` of those rows are kept in a ring and summed down the
 * columns. No running sums: they would gather rounding errors along a row.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * (W + 2 * padding + (kernel + 1) * Q)
 * sizes: C H W of x; K P Q of the result; parts a sample; rows of the result a part; kernel stride
 * padding */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING
};

/* out[q] = the sum of row h of x over the window of column q. padded has its margins set. */
static void reduce_row(const KernelArguments *a, int64_t n, int64_t cb, int64_t h,
                       float *restrict padded, float *restrict out)
{
    const int64_t *s = a->sizes;
    int64_t kernel = s[SIZE_KERNEL], step = 16 * s[SIZE_STRIDE];
    read_x(a, n, cb, h, 0, s[SIZE_W], padded + 16 * s[SIZE_PADDING]);
    for (int64_t q = 0; q < s[SIZE_Q]; q++) {
        v16 sum = load16(padded + q * step);
        for (int64_t i = 1; i < kernel; i++)
            sum += load16(padded + q * step + 16 * i);
        store16(out + 16 * q, sum);
    }
}

static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    const int64_t *s = a->sizes;
    int64_t kernel = s[SIZE_KERNEL], padding = s[SIZE_PADDING];
    int64_t width = s[SIZE_W], out_width = s[SIZE_Q];
    float *padded = thread_scratch(a);
    float *ring = padded + 16 * (width + 2 * padding);
    float *out = ring + 16 * kernel * out_width;
    memset(padded, 0, (size_t)(width + 2 * padding) * 64);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    float factor = 1.0f / (float)(kernel * kernel);
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]), next = 0;
    for (int64_t p = begin; p < end; p++) {
        int64_t top = max64(p * s[SIZE_STRIDE] - padding, 0);
        int64_t bottom = min64(p * s[SIZE_STRIDE] - padding + kernel, s[SIZE_H]);
        for (next = max64(next, top); next < bottom; next++)
            reduce_row(a, n, cb, next, padded, ring + 16 * out_width * (next % kernel));
        memset(out, 0, (size_t)out_width * 64);
        for (int64_t h = top; h < bottom; h++) {
            const float *row = ring + 16 * out_width * (h % kernel);
            for (int64_t q = 0; q < out_width; q++)
                store16(out + 16 * q, load16(out + 16 * q) + load16(row + 16 * q) * factor);
        }
        write_y(a, n, cb, p, 0, out_width, out, accumulators);
    }
    finish_y(a, n, part, cb, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t blocks = channel_blocks(s[SIZE_K]), parts = s[SIZE_PARTS];
    int64_t tasks = a->batch * blocks * parts;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (a->batch * blocks * s[SIZE_H] * s[SIZE_W] > 1024)
    for (int64_t task = 0; task < tasks; task++)
        one_part(a, task / parts / blocks, task % parts, task / parts % blocks);
}
