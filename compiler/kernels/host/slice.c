/* Channels from .. from+channels of x where `from` is no multiple of 16 (else slice is inlined): a
 * block of the result is the end of one block of x and the beginning of the next, by unaligned
 * loads from rows with a block of slack at both ends.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * (2 * Q + 3)
 * sizes: C H W of x; K P Q of the result; parts a sample; rows of the result a part;
 * channels from (in the order of attributes.def) */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS, SIZE_CHANNELS, SIZE_FROM
};

static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    const int64_t *s = a->sizes;
    int64_t width = s[SIZE_Q], block = s[SIZE_FROM] / 16 + cb, shift = s[SIZE_FROM] % 16;
    float *low = thread_scratch(a) + 16, *high = low + 16 * width + 16;
    v16i low_lanes = mask16(16 - shift), channels = channel_mask16(s[SIZE_K], cb);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    for (int64_t p = begin; p < end; p++) {
        read_x(a, n, block, p, 0, width, low);
        if (block + 1 < channel_blocks(s[SIZE_C]))
            read_x(a, n, block + 1, p, 0, width, high);
        else
            memset(high, 0, (size_t)width * 64);
        for (int64_t q = 0; q < width; q++) {
            v16 value = select16(low_lanes, load16(low + 16 * q + shift),
                                 load16(high + 16 * q + shift - 16));
            store16(low + 16 * q, keep16(channels, value));
        }
        write_y(a, n, cb, p, 0, width, low, accumulators);
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
