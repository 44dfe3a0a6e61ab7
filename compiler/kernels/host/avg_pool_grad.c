/* Gradient of average pooling, as a gather: a pixel of the result is the sum of dy over the windows
 * that cover it, divided by kernel * kernel. The covering rows of dy are added up first; where the
 * next row is covered by the same ones (kernel = stride) the sum is used again.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * (2 * W + Q)
 * sizes: C H W of dy; K P Q of the result; parts a sample; rows of the result a part; kernel stride
 * padding */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING
};

/* The windows of `count` that cover `place`: begin <= i < end. */
static int64_t windows_begin(const int64_t *s, int64_t place)
{
    return max64(place + s[SIZE_PADDING] - s[SIZE_KERNEL] + s[SIZE_STRIDE], 0) / s[SIZE_STRIDE];
}
static int64_t windows_end(const int64_t *s, int64_t place, int64_t count)
{
    return min64((place + s[SIZE_PADDING]) / s[SIZE_STRIDE] + 1, count);
}

static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    const int64_t *s = a->sizes;
    float *row = thread_scratch(a), *sum = row + 16 * s[SIZE_W], *out = sum + 16 * s[SIZE_W];
    float factor = 1.0f / (float)(s[SIZE_KERNEL] * s[SIZE_KERNEL]);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    int64_t summed_top = -1, summed_bottom = -1;
    for (int64_t p = begin; p < end; p++) {
        int64_t top = windows_begin(s, p), bottom = windows_end(s, p, s[SIZE_H]);
        if (top != summed_top || bottom != summed_bottom) {
            memset(sum, 0, (size_t)s[SIZE_W] * 64);
            for (int64_t i = top; i < bottom; i++) {
                read_dy(a, n, cb, i, 0, s[SIZE_W], row);
                for (int64_t j = 0; j < s[SIZE_W]; j++)
                    store16(sum + 16 * j, load16(sum + 16 * j) + load16(row + 16 * j) * factor);
            }
            for (int64_t q = 0; q < s[SIZE_Q]; q++) {
                int64_t right = windows_end(s, q, s[SIZE_W]);
                v16 value = {0};
                for (int64_t j = windows_begin(s, q); j < right; j++)
                    value += load16(sum + 16 * j);
                store16(out + 16 * q, value);
            }
            summed_top = top;
            summed_bottom = bottom;
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
