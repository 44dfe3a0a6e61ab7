/* Softmax over the channels of each pixel: exp(x - highest) / sum, which no x can overflow. First
 * the highest value and the sum of every pixel of the part, from a few columns of all channels at a
 * time; then the result, a channel block after the other.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * (16 * ceil(C / 16) + Q) + 8 * rows * Q
 * sizes: C H W of x; K P Q of the result; parts a sample; rows of the result a part */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };
enum { COLUMNS = 16 };

/* The highest value and 1 / sum of `count` pixels; x is [blocks][COLUMNS][16]. */
static void measure(int64_t channels, const float *x, int64_t count, float *highest, float *inverse)
{
    int64_t blocks = channel_blocks(channels);
    v16i last = channel_mask16(channels, blocks - 1);
    v16 lowest = splat16(-(float)INFINITY);
    for (int64_t i = 0; i < count; i++) {
        v16 best = select16(last, load16(x + 16 * (COLUMNS * (blocks - 1) + i)), lowest);
        for (int64_t cb = 0; cb < blocks - 1; cb++)
            best = max16(best, load16(x + 16 * (COLUMNS * cb + i)));
        highest[i] = highest16(best);
        v16 sum = exp16(load16(x + 16 * (COLUMNS * (blocks - 1) + i)) - highest[i]);
        sum = keep16(last, sum);
        for (int64_t cb = 0; cb < blocks - 1; cb++)
            sum += exp16(load16(x + 16 * (COLUMNS * cb + i)) - highest[i]);
        inverse[i] = 1.0f / sum16(sum);
    }
}

static void one_part(const KernelArguments *a, int64_t n, int64_t part)
{
    const int64_t *s = a->sizes;
    int64_t blocks = channel_blocks(s[SIZE_C]), width = s[SIZE_Q];
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    float *columns = thread_scratch(a), *row = columns + 16 * COLUMNS * blocks;
    float *highest = row + 16 * width, *inverse = highest + s[SIZE_ROWS] * width;
    for (int64_t p = begin; p < end; p++)
        for (int64_t q = 0; q < width; q += COLUMNS) {
            int64_t count = min64(COLUMNS, width - q), at = (p - begin) * width + q;
            for (int64_t cb = 0; cb < blocks; cb++)
                read_x(a, n, cb, p, q, count, columns + 16 * COLUMNS * cb);
            measure(s[SIZE_C], columns, count, highest + at, inverse + at);
        }
    for (int64_t cb = 0; cb < blocks; cb++) {
        v16i channels = channel_mask16(s[SIZE_C], cb);
        v16 accumulators[ACCUMULATORS + 1];
        memset(accumulators, 0, sizeof accumulators);
        for (int64_t p = begin; p < end; p++) {
            read_x(a, n, cb, p, 0, width, row);
            for (int64_t q = 0; q < width; q++) {
                int64_t at = (p - begin) * width + q;
                v16 value = exp16(load16(row + 16 * q) - highest[at]) * inverse[at];
                store16(row + 16 * q, keep16(channels, value));
            }
            write_y(a, n, cb, p, 0, width, row, accumulators);
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
