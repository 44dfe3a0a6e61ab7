/* Joins tensors along the channels where one begins in the middle of a block (else concat is only a
 * choice of operand and is inlined). Each operand's block is read and its lanes are shifted into
 * place: unaligned loads from a row with a block of slack at both ends.
 * OPERANDS is their number, at most 16. With DENSE_X all operands and the result are planes, and
 * rows [count] of a channel are read and written, not [count][16] of a block.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * (2 * Q + 2)
 * sizes: C H W of x0; K P Q of the result; parts a sample; rows of the result a part; the channels
 * of each operand */
enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS, SIZE_CHANNELS };

#define READS_1 read_x0
#define READS_2 READS_1, read_x1
#define READS_3 READS_2, read_x2
#define READS_4 READS_3, read_x3
#define READS_5 READS_4, read_x4
#define READS_6 READS_5, read_x5
#define READS_7 READS_6, read_x6
#define READS_8 READS_7, read_x7
#define READS_9 READS_8, read_x8
#define READS_10 READS_9, read_x9
#define READS_11 READS_10, read_x10
#define READS_12 READS_11, read_x11
#define READS_13 READS_12, read_x12
#define READS_14 READS_13, read_x13
#define READS_15 READS_14, read_x14
#define READS_16 READS_15, read_x15
#define READS_OF(count) READS_##count
#define READS(count) READS_OF(count)
#if OPERANDS > 16
#error "concat: more than 16 operands"
#endif

typedef void ReadFunction(const KernelArguments *a, int64_t n, int64_t cb, int64_t h, int64_t w,
                          int64_t count, float *restrict out);

#if DENSE_X
static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    static ReadFunction *const reads[OPERANDS] = {READS(OPERANDS)};
    const int64_t *s = a->sizes;
    float *row = thread_scratch(a);
    (void)cb;
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    for (int64_t i = 0, from = 0; i < OPERANDS; from += s[SIZE_CHANNELS + i], i++)
        for (int64_t c = 0; c < s[SIZE_CHANNELS + i]; c++)
            for (int64_t p = begin; p < end; p++) {
                reads[i](a, n, c, p, 0, s[SIZE_Q], row);
                write_y(a, n, from + c, p, 0, s[SIZE_Q], row, NULL);
            }
}
#else
/* Adds to out the lanes of one operand whose channel 0 is channel `from` of the result. */
static void take_lanes(const KernelArguments *a, ReadFunction *read, int64_t channels, int64_t from,
                       int64_t n, int64_t cb, int64_t p, float *row, float *out)
{
    int64_t width = a->sizes[SIZE_Q];
    int64_t first = max64(16 * cb - from, 0), last = min64(16 * cb + 16 - from, channels) - 1;
    if (first > last)
        return;
    for (int64_t block = first / 16; block <= last / 16; block++) {
        int64_t shift = from + 16 * block - 16 * cb; /* lane of the result - lane of the operand */
        v16i lanes = mask16(shift + 16) & ~mask16(shift);
        read(a, n, block, p, 0, width, row);
        for (int64_t q = 0; q < width; q++) {
            v16 moved = keep16(lanes, load16(row + 16 * q - shift));
            store16(out + 16 * q, (v16)((v16i)load16(out + 16 * q) | (v16i)moved));
        }
    }
}

static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    static ReadFunction *const reads[OPERANDS] = {READS(OPERANDS)};
    const int64_t *s = a->sizes;
    float *out = thread_scratch(a), *row = out + 16 * s[SIZE_Q] + 16;
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    for (int64_t p = begin; p < end; p++) {
        memset(out, 0, (size_t)s[SIZE_Q] * 64);
        for (int64_t i = 0, from = 0; i < OPERANDS; from += s[SIZE_CHANNELS + i], i++)
            take_lanes(a, reads[i], s[SIZE_CHANNELS + i], from, n, cb, p, row, out);
        write_y(a, n, cb, p, 0, s[SIZE_Q], out, accumulators);
    }
    finish_y(a, n, part, cb, accumulators);
}
#endif

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
