/* Moves a map within its frame. pad: y[p][q] = x[p - top][q - left], zero where that is outside x.
 * crop: y[p][q] = x[p + top][q + left]. Which of both it is, is told by the sizes, for height and
 * width each: no smaller result is a pad.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * Q
 * sizes: C H W of x; K P Q of the result; parts a sample; rows of the result a part; top left */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS, SIZE_TOP, SIZE_LEFT
};

static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    const int64_t *s = a->sizes;
    /* y[p][q] = x[p + down][q + right] */
    int64_t down = s[SIZE_P] >= s[SIZE_H] ? -s[SIZE_TOP] : s[SIZE_TOP];
    int64_t right = s[SIZE_Q] >= s[SIZE_W] ? -s[SIZE_LEFT] : s[SIZE_LEFT];
    int64_t begin_q = max64(0, -right), end_q = min64(s[SIZE_Q], s[SIZE_W] - right);
    float *out = thread_scratch(a);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    for (int64_t p = begin; p < end; p++) {
        memset(out, 0, (size_t)s[SIZE_Q] * 64);
        if (p + down >= 0 && p + down < s[SIZE_H] && begin_q < end_q)
            read_x(a, n, cb, p + down, begin_q + right, end_q - begin_q, out + 16 * begin_q);
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
