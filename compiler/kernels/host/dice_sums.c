/* The sums of which Dice coefficients are made, of each picture: [5,1,1] = elements with
 * p >= threshold and t = 1; with p >= threshold; with t = 1; the sum of p * t; the sum of p.
 * Counts are exact up to 2^24 a lane. One task is one picture.
 *
 * own buffers: none    own scalars: threshold
 * scratch: 64 * 2 * W
 * sizes: C H W of p and t; K P Q of the result (5 1 1); parts a sample (1); rows a part (1) */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };

static void one_picture(const KernelArguments *a, int64_t n)
{
    const int64_t *s = a->sizes;
    float *p = thread_scratch(a), *t = p + 16 * s[SIZE_W];
    v16 threshold = splat16((float)a->scalars[0]), one = splat16(1.0f);
    v16 both = {0}, predicted = {0}, marked = {0};
    double products = 0, sum = 0;
    for (int64_t cb = 0; cb < channel_blocks(s[SIZE_C]); cb++)
        for (int64_t h = 0; h < s[SIZE_H]; h++) {
            v16i channels = channel_mask16(s[SIZE_C], cb);
            v16 row_products = {0}, row_sum = {0};
            read_p(a, n, cb, h, 0, s[SIZE_W], p);
            read_t(a, n, cb, h, 0, s[SIZE_W], t);
            for (int64_t w = 0; w < s[SIZE_W]; w++) {
                v16 pixel = load16(p + 16 * w), mark = load16(t + 16 * w);
                v16i is_predicted = ~less16(pixel, threshold) & channels;
                v16i is_marked = ~(less16(mark, one) | less16(one, mark)) & channels;
                both += keep16(is_predicted & is_marked, one);
                predicted += keep16(is_predicted, one);
                marked += keep16(is_marked, one);
                row_products += pixel * mark;
                row_sum += pixel;
            }
            products += (double)sum16(row_products);
            sum += (double)sum16(row_sum);
        }
    v16 result = {sum16(both), sum16(predicted), sum16(marked), (float)products, (float)sum};
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    write_y(a, n, 0, 0, 0, 1, (const float *)&result, accumulators);
    finish_y(a, n, 0, 0, accumulators);
}

void KERNEL(const KernelArguments *a)
{
#pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t n = 0; n < a->batch; n++)
        one_picture(a, n);
}
