/* Gradient of softmax: y * (dy - the sum of dy * y over the channels). First that sum of every
 * pixel of the part, then the result, a channel block after the other.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * 3 * Q + 4 * rows * Q
 * sizes: C H W of dy; K P Q of the result; parts a sample; rows of the result a part */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };

static void one_part(const KernelArguments *a, int64_t n, int64_t part)
{
    const int64_t *s = a->sizes;
    int64_t blocks = channel_blocks(s[SIZE_C]), width = s[SIZE_Q];
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    float *dy = thread_scratch(a), *y = dy + 16 * width, *products = y + 16 * width;
    float *sums = products + 16 * width;
    for (int64_t p = begin; p < end; p++) {
        memset(products, 0, (size_t)width * 64);
        for (int64_t cb = 0; cb < blocks; cb++) {
            read_dy(a, n, cb, p, 0, width, dy);
            read_y(a, n, cb, p, 0, width, y);
            for (int64_t i = 0; i < 16 * width; i++)
                products[i] += dy[i] * y[i];
        }
        for (int64_t q = 0; q < width; q++)
            sums[(p - begin) * width + q] = sum16(load16(products + 16 * q));
    }
    for (int64_t cb = 0; cb < blocks; cb++) {
        v16i channels = channel_mask16(s[SIZE_C], cb);
        v16 accumulators[ACCUMULATORS + 1];
        memset(accumulators, 0, sizeof accumulators);
        for (int64_t p = begin; p < end; p++) {
            read_dy(a, n, cb, p, 0, width, dy);
            read_y(a, n, cb, p, 0, width, y);
            for (int64_t q = 0; q < width; q++) {
                v16 difference = load16(dy + 16 * q) - sums[(p - begin) * width + q];
                store16(dy + 16 * q, keep16(channels, load16(y + 16 * q) * difference));
            }
            write_y(a, n, cb, p, 0, width, dy, accumulators);
        }
        finish_y(a, n, part, cb, accumulators);
    }
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t parts = s[SIZE_PARTS], tasks = a->batch * parts;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (a->batch * channel_blocks(s[SIZE_K]) * s[SIZE_P] * s[SIZE_Q] > 256)
    for (int64_t task = 0; task < tasks; task++)
        one_part(a, task / parts, task % parts);
}
