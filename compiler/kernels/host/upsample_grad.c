/* Gradient of upsample, as a gather over rows: the rows of dy that were made from row p are added
 * up with their weights, then the sum is folded along the row. See upsample.c for the places.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * (2 * W + Q)
 * sizes: C H W of dy; K P Q of the result; parts a sample; rows of the result a part; scale;
 * mode (0 nearest, 1 bilinear) */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS, SIZE_SCALE, SIZE_MODE
};

/* Two neighbours among `count` and the share of the second. */
typedef struct { int64_t first, second; float share; } Between;

static Between between(int64_t place, int64_t scale, int64_t count)
{
    double source = ((double)place + 0.5) / (double)scale - 0.5;
    source = source < 0 ? 0 : source;
    int64_t first = min64((int64_t)source, count - 1);
    return (Between){first, min64(first + 1, count - 1), (float)(source - (double)first)};
}

/* sum[w] = the rows of dy made from row p of x, each times row p's share in it. */
static void gather_rows(const KernelArguments *a, int64_t n, int64_t cb, int64_t p,
                        float *restrict row, float *restrict sum)
{
    const int64_t *s = a->sizes;
    int64_t scale = s[SIZE_SCALE], reach = s[SIZE_MODE] == 0 ? 0 : scale;
    int64_t begin = max64(p * scale - reach, 0), end = min64((p + 1) * scale + reach, s[SIZE_H]);
    memset(sum, 0, (size_t)s[SIZE_W] * 64);
    for (int64_t h = begin; h < end; h++) {
        float share = 1.0f;
        if (s[SIZE_MODE] != 0) {
            Between at = between(h, scale, s[SIZE_P]);
            share = (at.first == p ? 1.0f - at.share : 0.0f) + (at.second == p ? at.share : 0.0f);
            if (at.first != p && at.second != p)
                continue;
        }
        read_dy(a, n, cb, h, 0, s[SIZE_W], row);
        for (int64_t w = 0; w < s[SIZE_W]; w++)
            store16(sum + 16 * w, load16(sum + 16 * w) + load16(row + 16 * w) * share);
    }
}

static void fold_repeated(const int64_t *s, const float *restrict sum, float *restrict out)
{
    for (int64_t q = 0; q < s[SIZE_Q]; q++) {
        v16 value = {0};
        for (int64_t i = 0; i < s[SIZE_SCALE]; i++)
            value += load16(sum + 16 * (q * s[SIZE_SCALE] + i));
        store16(out + 16 * q, value);
    }
}

static void fold_stretched(const int64_t *s, const float *restrict sum, float *restrict out)
{
    memset(out, 0, (size_t)s[SIZE_Q] * 64);
    for (int64_t w = 0; w < s[SIZE_W]; w++) {
        Between at = between(w, s[SIZE_SCALE], s[SIZE_Q]);
        v16 value = load16(sum + 16 * w);
        float *left = out + 16 * at.first, *right = out + 16 * at.second;
        store16(left, load16(left) + value * (1.0f - at.share));
        store16(right, load16(right) + value * at.share);
    }
}

static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    const int64_t *s = a->sizes;
    float *row = thread_scratch(a), *sum = row + 16 * s[SIZE_W], *out = sum + 16 * s[SIZE_W];
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    for (int64_t p = begin; p < end; p++) {
        gather_rows(a, n, cb, p, row, sum);
        if (s[SIZE_MODE] == 0)
            fold_repeated(s, sum, out);
        else
            fold_stretched(s, sum, out);
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
