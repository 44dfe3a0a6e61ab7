/* Fully connected layer: y[k] = the sum over f of weight[k][f] * x[f], f = (c * H + h) * W + w. One
 * task is 16 results of one sample; it lays the sample out in that order for itself, which costs a
 * sixteenth of its products. The bias is added by write_y.
 *
 * own buffers: weight [K][C * H * W]    own scalars: none
 * scratch: 64 * (ceil(C * H * W / 16) + W + 1)
 * sizes: C H W of x; K P Q of the result (K 1 1); parts a sample (1); rows a part (1) */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };

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

static float dot(const float *weight, const float *x, int64_t count)
{
    v16 even = {0}, odd = {0};
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) {
        even += load16(weight + i) * load16(x + i);
        odd += load16(weight + i + 16) * load16(x + i + 16);
    }
    if (i + 16 <= count) {
        even += load16(weight + i) * load16(x + i);
        i += 16;
    }
    float rest = 0;
    for (; i < count; i++)
        rest += weight[i] * x[i];
    return sum16(even + odd) + rest;
}

static void one_block(const KernelArguments *a, int64_t n, int64_t kb)
{
    const int64_t *s = a->sizes;
    const float *weight = a->buffers[0];
    int64_t count = s[SIZE_C] * s[SIZE_H] * s[SIZE_W];
    float *row = thread_scratch(a), *flat = row + 16 * s[SIZE_W];
    flatten(a, n, row, flat);
    union { v16 whole; float lane[16]; } result = {{0}};
    for (int64_t k = 16 * kb; k < min64(16 * kb + 16, s[SIZE_K]); k++)
        result.lane[k % 16] = dot(weight + k * count, flat, count);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    write_y(a, n, kb, 0, 0, 1, result.lane, accumulators);
    finish_y(a, n, 0, kb, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t blocks = channel_blocks(s[SIZE_K]), tasks = a->batch * blocks;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (tasks * s[SIZE_C] * s[SIZE_H] * s[SIZE_W] > 4096)
    for (int64_t task = 0; task < tasks; task++)
        one_block(a, task / blocks, task % blocks);
}
