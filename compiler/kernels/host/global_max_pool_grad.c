/* Gradient of global_max_pool: dy of a channel at the first largest pixel of x (row by row), zero
 * elsewhere. One task is one channel block of one sample: a first walk finds the largest values.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * Q
 * sizes: C H W of dy (C 1 1); K P Q of x and the result; parts a sample (1); rows a part (P) */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };

static void one_block(const KernelArguments *a, int64_t n, int64_t cb)
{
    const int64_t *s = a->sizes;
    float *row = thread_scratch(a);
    v16 best = splat16(-(float)INFINITY), dy;
    for (int64_t p = 0; p < s[SIZE_P]; p++) {
        read_x(a, n, cb, p, 0, s[SIZE_Q], row);
        for (int64_t q = 0; q < s[SIZE_Q]; q++)
            best = max16(best, load16(row + 16 * q));
    }
    read_dy(a, n, cb, 0, 0, 1, row);
    dy = load16(row);
    v16i taken = {0};
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    for (int64_t p = 0; p < s[SIZE_P]; p++) {
        read_x(a, n, cb, p, 0, s[SIZE_Q], row);
        for (int64_t q = 0; q < s[SIZE_Q]; q++) {
            v16i hit = ~(less16(load16(row + 16 * q), best) | taken);
            taken |= hit;
            store16(row + 16 * q, keep16(hit, dy));
        }
        write_y(a, n, cb, p, 0, s[SIZE_Q], row, accumulators);
    }
    finish_y(a, n, 0, cb, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t blocks = channel_blocks(s[SIZE_K]), tasks = a->batch * blocks;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (tasks * s[SIZE_P] * s[SIZE_Q] > 1024)
    for (int64_t task = 0; task < tasks; task++)
        one_block(a, task / blocks, task % blocks);
}
