/* Reduces the channels of each pixel: [C,H,W] to [1,H,W]. One of REDUCE_SUM, REDUCE_MEAN,
 * REDUCE_MAX is defined. The blocks are reduced lane by lane first, the 16 lanes last, of sixteen
 * pixels together. With DENSE_Y the result's row is [W], not [W][16].
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * (W + W rounded up to 16)
 * sizes: C H W of x; K P Q of the result (1 H W); parts a sample; rows of the result a part */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS };

/* best[w] = best[w] and row[w] reduced; the lanes behind the last channel never win. */
static void reduce_block(const int64_t *s, int64_t cb, const float *restrict row,
                         float *restrict best)
{
#ifdef REDUCE_MAX
    v16i channels = channel_mask16(s[SIZE_C], cb);
    v16 lowest = splat16(-(float)INFINITY);
    for (int64_t w = 0; w < s[SIZE_W]; w++) {
        v16 value = select16(channels, load16(row + 16 * w), lowest);
        if (cb > 0)
            value = max16(load16(best + 16 * w), value);
        store16(best + 16 * w, value);
    }
#else
    for (int64_t w = 0; w < s[SIZE_W]; w++) {
        v16 value = load16(row + 16 * w);
        if (cb > 0)
            value += load16(best + 16 * w);
        store16(best + 16 * w, value);
    }
#endif
}

/* The 16 lanes of each pixel into one, in place; what is made of pixels behind the row is not used. */
static void reduce_lanes(const int64_t *s, float *best)
{
    for (int64_t w = 0; w < s[SIZE_W]; w += 16) {
#ifdef REDUCE_MAX
        v16 values = highest_rows16(best + 16 * w);
#else
        v16 values = sum_rows16(best + 16 * w);
#endif
#ifdef REDUCE_MEAN
        values /= (float)s[SIZE_C];
#endif
#if DENSE_Y
        store16(best + w, values);
#else
        for (int64_t i = 0; i < 16; i++)
            store16(best + 16 * (w + i), (v16){values[i]});
#endif
    }
}

static void one_part(const KernelArguments *a, int64_t n, int64_t part)
{
    const int64_t *s = a->sizes;
    float *row = thread_scratch(a), *best = row + 16 * s[SIZE_W];
    int64_t blocks = channel_blocks(s[SIZE_C]);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    for (int64_t p = begin; p < end; p++) {
        for (int64_t cb = 0; cb < blocks; cb++) {
            read_x(a, n, cb, p, 0, s[SIZE_W], row);
            reduce_block(s, cb, row, best);
        }
        reduce_lanes(s, best);
        write_y(a, n, 0, p, 0, s[SIZE_W], best, accumulators);
    }
    finish_y(a, n, part, 0, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t parts = s[SIZE_PARTS], tasks = a->batch * parts;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (a->batch * channel_blocks(s[SIZE_C]) * s[SIZE_H] * s[SIZE_W] > 1024)
    for (int64_t task = 0; task < tasks; task++)
        one_part(a, task / parts, task % parts);
}
