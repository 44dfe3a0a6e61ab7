/* Stands in for the row functions that the compiler generates: a text that test_templates.c puts
 * before each kernel template. Tensors are loaded and stored as they are, plain or blocked; every
 * access is checked, and one fused reduction (the sum over the pixels of a part) is accumulated.
 *
 * a->buffers: 0..5 the template's own; 6..9 the operands; 10 the result; 11 the partial sums
 * a->sizes:   from 32 on, for operands 0..3 and the result: blocked (0 or 1), C, H, W
 */
enum { TEST_OPERANDS = 6, TEST_RESULT = 10, TEST_PARTIALS = 11, TEST_SIZES = 32 };
enum { ACCUMULATORS = 1 };

/* A row of operand or result `index`, or a part of it: its first float, after checks. */
INLINE float *test_row(const KernelArguments *a, int64_t index, int64_t n, int64_t cb, int64_t h,
                       int64_t w, int64_t count)
{
    const int64_t *d = a->sizes + TEST_SIZES + 4 * index;
    float *base = a->buffers[TEST_OPERANDS + index];
    int64_t blocks = channel_blocks(d[1]);
    if (n < 0 || n >= a->batch || cb < 0 || cb >= blocks || h < 0 || h >= d[2] || w < 0 || count < 0
        || w + count > d[3])
        __builtin_trap();
    return d[0] ? base + 16 * (((n * blocks + cb) * d[2] + h) * d[3] + w)
                : base + ((n * d[1] + 16 * cb) * d[2] + h) * d[3] + w;
}

INLINE void test_read(const KernelArguments *a, int64_t index, int64_t n, int64_t cb, int64_t h,
                      int64_t w, int64_t count, float *restrict out)
{
    const int64_t *d = a->sizes + TEST_SIZES + 4 * index;
    const float *row = test_row(a, index, n, cb, h, w, count);
    if (d[0])
        memcpy(out, row, (size_t)count * 64);
    else
        expand_plain_f32(row, d[2] * d[3], min64(16, d[1] - 16 * cb), count, out);
}

#define READ(operand, index)                                                                       \
    INLINE void read_##operand(const KernelArguments *a, int64_t n, int64_t cb, int64_t h,         \
                               int64_t w, int64_t count, float *restrict out)                      \
    {                                                                                              \
        test_read(a, index, n, cb, h, w, count, out);                                              \
    }

/* Where in is NULL (pointwise.c) the expression is 2 * x + 1. */
INLINE void write_y(const KernelArguments *a, int64_t n, int64_t cb, int64_t h, int64_t w,
                    int64_t count, const float *restrict in, v16 *accumulators)
{
    const int64_t *d = a->sizes + TEST_SIZES + 4 * (TEST_RESULT - TEST_OPERANDS);
    float *row = test_row(a, TEST_RESULT - TEST_OPERANDS, n, cb, h, w, count);
    v16i channels = channel_mask16(d[1], cb);
    for (int64_t i = 0; i < count; i++) {
        float pixel[16];
        if (in) {
            memcpy(pixel, in + 16 * i, 64);
        } else {
            test_read(a, 0, n, cb, h, w + i, 1, pixel);
            store16(pixel, keep16(channels, load16(pixel) * 2.0f + 1.0f));
        }
        for (int64_t lane = 0; lane < 16; lane++)
            if (16 * cb + lane >= d[1] && pixel[lane] != 0)
                __builtin_trap();
        accumulators[0] += load16(pixel);
        if (d[0])
            store16(row + 16 * i, load16(pixel));
        else
            store_plain_f32(row + i, d[2] * d[3], min64(16, d[1] - 16 * cb), 1, pixel);
    }
}

INLINE void finish_y(const KernelArguments *a, int64_t n, int64_t part, int64_t cb,
                     v16 *accumulators)
{
    const int64_t *d = a->sizes + TEST_SIZES + 4 * (TEST_RESULT - TEST_OPERANDS);
    float *partials = a->buffers[TEST_PARTIALS];
    int64_t place = (n * a->sizes[6] + part) * channel_blocks(d[1]) + cb;
    store16(partials + 16 * place, accumulators[0]);
}
