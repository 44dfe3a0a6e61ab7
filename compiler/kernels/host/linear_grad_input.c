/* Gradient of linear for x: dx[f] = the sum over k of dy[k] * weight[k][f], with
 * f = (c * P + p) * Q + q. One task is one channel block of one sample: 16 * P * Q values that lie
 * together in each row of the weight.
 *
 * own buffers: weight [C][K * P * Q]    own scalars: none
 * scratch: 64 * (P * Q + Q + 1)
 * sizes: C H W of dy (C 1 1); K P Q of the result; parts a sample (1); rows a part (P) */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };

static void one_block(const KernelArguments *a, int64_t n, int64_t cb)
{
    const int64_t *s = a->sizes;
    const float *weight = a->buffers[0];
    int64_t pixels = s[SIZE_P] * s[SIZE_Q], channels = min64(16, s[SIZE_K] - 16 * cb);
    float *dy = thread_scratch(a), *row = dy + 16, *restrict flat = row + 16 * s[SIZE_Q];
    memset(flat, 0, (size_t)(channels * pixels) * sizeof *flat);
    for (int64_t k = 0; k < s[SIZE_C]; k++) {
        if (k % 16 == 0)
            read_dy(a, n, k / 16, 0, 0, 1, dy);
        const float *restrict from = weight + (k * s[SIZE_K] + 16 * cb) * pixels;
        float factor = dy[k % 16];
        for (int64_t i = 0; i < channels * pixels; i++)
            flat[i] += factor * from[i];
    }
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    for (int64_t p = 0; p < s[SIZE_P]; p++) {
        expand_plain_f32(flat + p * s[SIZE_Q], pixels, channels, s[SIZE_Q], row);
        write_y(a, n, cb, p, 0, s[SIZE_Q], row, accumulators);
    }
    finish_y(a, n, 0, cb, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t blocks = channel_blocks(s[SIZE_K]), tasks = a->batch * blocks;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (tasks * s[SIZE_P] * s[SIZE_Q] * s[SIZE_C] > 4096)
    for (int64_t task = 0; task < tasks; task++)
        one_block(a, task / blocks, task % blocks);
}
