/* Gradient of linear for weight: dw[k][f] = the sum over the samples of dy[k] * x[f],
 * f = (c * H + h) * W + w. One task is 16 rows of dw; the samples are added in order.
 *
 * own buffers: result [K][C * H * W], padded with zeros to a multiple of 16    own scalars: none
 * scratch: 64 * (ceil(C * H * W / 16) + W + 1)
 * sizes: C H W of x; K * C * H * W, 1, 1 of the result; parts (1); rows (1). No write_y. */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_RESULT };

static void flatten(const KernelArguments *a, int64_t n, float *row, float *flat)
{
    const int64_t *s = a->sizes;
    int64_t pixels = s[SIZE_H] * s[SIZE_W];
    for (int64_t cb = 0; cb < channel_blocks(s[SIZE_C]); cb++)
        for (int64_t h = 0; h < s[SIZE_H]; h++) {
            read_x(a, n, cb, h, 0, s[SIZE_W], row);
            store_plain_f32(flat + 16 * cb * pixels + h * s[SIZE_W], pixels,
                            min64(16, s[SIZE_C] - 16 * cb), s[SIZE_W], row);
        }
}

static void one_block(const KernelArguments *a, int64_t kb)
{
    const int64_t *s = a->sizes;
    int64_t count = s[SIZE_C] * s[SIZE_H] * s[SIZE_W];
    int64_t end = min64(16 * kb + 16, s[SIZE_RESULT] / count);
    float *dy = thread_scratch(a), *row = dy + 16, *restrict flat = row + 16 * s[SIZE_W];
    float *result = a->buffers[0];
    memset(result + 16 * kb * count, 0, (size_t)((end - 16 * kb) * count) * sizeof *result);
    for (int64_t n = 0; n < a->batch; n++) {
        flatten(a, n, row, flat);
        read_dy(a, n, kb, 0, 0, 1, dy);
        for (int64_t k = 16 * kb; k < end; k++) {
            float *restrict to = result + k * count;
            for (int64_t i = 0; i < count; i++)
                to[i] += dy[k % 16] * flat[i];
        }
    }
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    float *result = a->buffers[0];
    int64_t count = s[SIZE_RESULT];
    int64_t blocks = channel_blocks(count / (s[SIZE_C] * s[SIZE_H] * s[SIZE_W]));
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) if (a->batch * count > 65536)
    for (int64_t kb = 0; kb < blocks; kb++)
        one_block(a, kb);
    for (int64_t i = count; i % 16 != 0; i++)
        result[i] = 0;
}
