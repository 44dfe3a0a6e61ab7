/* Elementwise groups: the expression, and any reduction fused with it, is inside write_y, which
 * this template calls for every row of the result. One map's channel block is done in parts, so
 * that a few rows of every operand stay in the cache and the threads have enough to share.
 * FIXED_RESULT is defined where the result does not depend on the batch: sample 0 alone is done.
 *
 * own buffers: none    own scalars: none    scratch: 0
 * sizes: C H W of the first batched operand (of the result, where there is none); K P Q of the
 * result; parts a sample; rows of the result a part */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };

static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    const int64_t *s = a->sizes;
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    for (int64_t p = begin; p < end; p++)
        write_y(a, n, cb, p, 0, s[SIZE_Q], NULL, accumulators);
    finish_y(a, n, part, cb, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
#ifdef FIXED_RESULT
    int64_t batch = 1;
#else
    int64_t batch = a->batch;
#endif
    int64_t blocks = channel_blocks(s[SIZE_K]), parts = s[SIZE_PARTS];
    int64_t tasks = batch * blocks * parts;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (batch * blocks * s[SIZE_P] * s[SIZE_Q] > 1024)
    for (int64_t task = 0; task < tasks; task++)
        one_part(a, task / parts / blocks, task % parts, task / parts % blocks);
}
