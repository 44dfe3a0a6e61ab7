/* Convolution with a 3x3 window, stride 1, and the gradient of one for its input, with bf16
 * products, by Winograd's minimal filtering along rows alone, F(4, 3): 6 products for 4 results of
 * a row of the window, where the direct way takes 12.
 *
 * Own buffers: packed weights (conv_line_pack.c).  Reads read_x, writes write_y.
 *
 * A tile is four results of a row; it depends on six pixels of three rows. Each row of an input
 * block is transformed to 6 points of every tile and rounded to bf16; then each point is a
 * convolution with a window of 3x1, [rows][tiles][C] to [rows][tiles][K]; its float sums are
 * transformed back, four results a tile. In both directions, as conv_winograd.c does it in float,
 * the error of bf16 would be five times that of direct products; along rows it is twice that, half
 * of a per cent.
 *
 * A task is a part (a band of rows) of one sample, or several samples of a small map, and one split
 * of the strips, groups of output blocks that are multiplied together. It takes some rows and
 * columns of tiles at a time, so that a point's input stays in the second-level cache.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PARTS, SIZE_ROWS,    /* parts a sample, result rows of a part */
    SIZE_ORIGIN,              /* row and column of x at which the first tile's pixels begin */
    SIZE_STRIP,               /* output blocks of a strip, the last strip may have fewer */
    SIZE_POINT_WEIGHTS,       /* words from one point's weights to the next in a strip */
    SIZE_SPLITS, SIZE_SPLIT,  /* splits of the strips, strips of a split */
    SIZE_SAMPLES,             /* samples at a time; 1 unless a part is a whole sample */
    SIZE_TILE_ROWS, SIZE_TILE_COLUMNS, /* most tiles of a sample at a time */
    SIZE_INPUT_PLANE,         /* words from one point's transformed input to the next */
    SIZE_RESULT_PLANE,        /* floats from one point's products to the next */
    SIZE_INPUT_OFFSET, SIZE_RESULT_OFFSET, SIZE_BAND_OFFSET,
    SIZE_TAPS_OFFSET,         /* bytes in the scratch memory; a row of x is at 0 */
};

/* Weights that are read again for every few tiles: they stay in the first-level cache. */
enum { WEIGHT_WORDS = 9 * 16 * 64 };

/* The tiles at work, and the thread's scratch memory. */
typedef struct {
    int64_t n, samples;
    int64_t row, column;      /* first result row and column */
    int64_t rows, columns;    /* of tiles, of a sample */
    int64_t tiles;            /* of all samples */
    float *line, *result, *band;
    uint32_t *input;
    ConvTap *taps;
} Task;

/* ---- input ---------------------------------------------------------------------------------- */

/* Words from one sample's rows to the next, in one block. */
static int64_t sample_words(const Task *task)
{
    return (task->rows + 2) * task->columns * 8;
}

static void transform_row(const KernelArguments *a, const Task *task, int64_t n, int64_t cb,
                          int64_t row, uint32_t *to)
{
    const int64_t *s = a->sizes;
    conv_patch(a, read_x, n, cb, s[SIZE_H], s[SIZE_W], task->row + row + s[SIZE_ORIGIN],
               task->column + s[SIZE_ORIGIN], 1, task->columns * 4 + 2, task->line);
    for (int64_t column = 0; column < task->columns; column++, to += 8) {
        v16 points[6];
        conv_line_input(task->line + column * 64, points);
        for (int64_t point = 0; point < 6; point++)
            *(v16h *)(to + point * s[SIZE_INPUT_PLANE]) = narrow16(points[point]);
    }
}

/* input[point][input block][sample][rows + 2][column][8 pairs of channels] */
static void transform_tiles(const KernelArguments *a, const Task *task)
{
    for (int64_t cb = 0; cb < channel_blocks(a->sizes[SIZE_C]); cb++) {
        for (int64_t i = 0; i < task->samples; i++) {
            uint32_t *to = task->input + (cb * task->samples + i) * sample_words(task);
            for (int64_t row = 0; row < task->rows + 2; row++)
                transform_row(a, task, task->n + i, cb, row, to + row * task->columns * 8);
        }
    }
}

/* ---- products ------------------------------------------------------------------------------- */

static void list_taps(const KernelArguments *a, const Task *task, int64_t blocks)
{
    const int64_t C = a->sizes[SIZE_C];
    ConvTap *tap = task->taps;
    for (int64_t cb = 0; cb * 16 < C; cb++) {
        for (int64_t row = 0; row < 3; row++, tap++)
            *tap = (ConvTap){.x = cb * task->samples * sample_words(task) + row * task->columns * 8,
                             .weights = (cb * 3 + row) * 8 * blocks * 16,
                             .channels = (min64(16, C - cb * 16) + 1) / 2};
    }
}

/* result[point][block][tile][16] of a strip. */
static void multiply_strip(const KernelArguments *a, const Task *task, int64_t strip,
                           int64_t blocks)
{
    const int64_t *s = a->sizes;
    const int64_t n_taps = channel_blocks(s[SIZE_C]) * 3;
    const int64_t step = max64(1, WEIGHT_WORDS / (8 * 16 * blocks));
    const int64_t steps = (n_taps + step - 1) / step;
    const uint32_t *weights = (const uint32_t *)a->buffers[0] + strip * 6 * s[SIZE_POINT_WEIGHTS];
    for (int64_t point = 0; point < 6; point++) {
        PairTile t = {.x = task->input + point * s[SIZE_INPUT_PLANE],
                      .weights = weights + point * s[SIZE_POINT_WEIGHTS],
                      .y = task->result + point * s[SIZE_RESULT_PLANE],
                      .rows = task->samples,
                      .pixels = task->rows * task->columns,
                      .blocks = blocks,
                      .x_row = sample_words(task),
                      .y_row = task->rows * task->columns * 16,
                      .y_block = task->tiles * 16};
        for (int64_t i = 0; i < steps; i++) {
            t.taps = task->taps + i * n_taps / steps;
            t.n_taps = (i + 1) * n_taps / steps - i * n_taps / steps;
            t.accumulate = i > 0;
            conv_pair_tiles(&t);
        }
    }
}

/* ---- results -------------------------------------------------------------------------------- */

/* Four results: A' of the 6 points. */
INLINE void transform_result(const float *from, int64_t plane, float *to)
{
    const float S = POINT_S, L = POINT_L;
    const v16 m0 = *(const v16 *)from, m1 = *(const v16 *)(from + plane),
              m2 = *(const v16 *)(from + 2 * plane), m3 = *(const v16 *)(from + 3 * plane),
              m4 = *(const v16 *)(from + 4 * plane), m5 = *(const v16 *)(from + 5 * plane);
    const v16 even_s = m1 + m2, odd_s = m1 - m2, even_l = m3 + m4, odd_l = m3 - m4;
    *(v16 *)to = m0 + even_s + even_l;
    *(v16 *)(to + 16) = S * odd_s + L * odd_l;
    *(v16 *)(to + 32) = S * S * even_s + L * L * even_l;
    *(v16 *)(to + 48) = S * S * S * odd_s + (L * L * L * odd_l + m5);
}

/* One output block of a sample's tiles; what lies behind the result's edges is not written. */
static void write_block(const KernelArguments *a, const Task *task, const float *result, int64_t n,
                        int64_t cb, v16 *accumulators)
{
    const int64_t *s = a->sizes;
    const int64_t pixels = min64(task->columns * 4, s[SIZE_Q] - task->column);
    for (int64_t row = 0; row < task->rows; row++) {
        for (int64_t column = 0; column < task->columns; column++, result += 16)
            transform_result(result, s[SIZE_RESULT_PLANE], task->band + column * 64);
        write_y(a, n, cb, task->row + row, task->column, pixels, task->band, accumulators);
    }
}

/* A strip's blocks of all samples. */
static void write_strip(const KernelArguments *a, const Task *task, int64_t first, int64_t blocks,
                        v16 *accumulators)
{
    const int64_t all_blocks = a->sizes[SIZE_SPLIT] * a->sizes[SIZE_STRIP];
    for (int64_t block = 0; block < blocks; block++) {
        for (int64_t i = 0; i < task->samples; i++)
            write_block(a, task,
                        task->result
                            + (block * task->tiles + i * task->rows * task->columns) * 16,
                        task->n + i, first + block,
                        accumulators + (i * all_blocks + block) * ACCUMULATORS);
    }
}

/* ---- tasks ---------------------------------------------------------------------------------- */

static void convolve_tiles(const KernelArguments *a, const Task *task, int64_t first_block,
                           int64_t end_block, v16 *accumulators)
{
    const int64_t strip = a->sizes[SIZE_STRIP];
    transform_tiles(a, task);
    for (int64_t block = first_block; block < end_block; block += strip) {
        const int64_t blocks = min64(strip, end_block - block);
        list_taps(a, task, blocks);
        multiply_strip(a, task, block / strip, blocks);
        write_strip(a, task, block, blocks, accumulators + (block - first_block) * ACCUMULATORS);
    }
}

static void convolve_part(const KernelArguments *a, int64_t n, int64_t part, int64_t split)
{
    const int64_t *s = a->sizes;
    const int64_t split_blocks = s[SIZE_SPLIT] * s[SIZE_STRIP], first_block = split * split_blocks;
    const int64_t end_block = min64(first_block + split_blocks, channel_blocks(s[SIZE_K]));
    const int64_t end_row = min64((part + 1) * s[SIZE_ROWS], s[SIZE_P]);
    const int64_t columns = (s[SIZE_Q] + 3) / 4;
    const int64_t groups = (columns + s[SIZE_TILE_COLUMNS] - 1) / s[SIZE_TILE_COLUMNS];
    char *scratch = (char *)thread_scratch(a);
    v16 accumulators[s[SIZE_SAMPLES] * split_blocks * ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    Task task = {.n = n,
                 .samples = min64(s[SIZE_SAMPLES], a->batch - n),
                 .line = (float *)scratch,
                 .input = (uint32_t *)(scratch + s[SIZE_INPUT_OFFSET]),
                 .result = (float *)(scratch + s[SIZE_RESULT_OFFSET]),
                 .band = (float *)(scratch + s[SIZE_BAND_OFFSET]),
                 .taps = (ConvTap *)(scratch + s[SIZE_TAPS_OFFSET])};
    for (task.row = part * s[SIZE_ROWS]; task.row < end_row; task.row += task.rows) {
        task.rows = min64(s[SIZE_TILE_ROWS], end_row - task.row);
        for (int64_t i = 0; i < groups; i++) { /* of nearly equal width */
            task.column = i * columns / groups * 4;
            task.columns = (i + 1) * columns / groups - i * columns / groups;
            task.tiles = task.samples * task.rows * task.columns;
            convolve_tiles(a, &task, first_block, end_block, accumulators);
        }
    }
    for (int64_t i = 0; i < task.samples; i++) {
        for (int64_t cb = first_block; cb < end_block; cb++)
            finish_y(a, n + i, part, cb,
                     accumulators + (i * split_blocks + cb - first_block) * ACCUMULATORS);
    }
}

void KERNEL(const KernelArguments *a)
{
    const int64_t parts = a->sizes[SIZE_PARTS], splits = a->sizes[SIZE_SPLITS];
    const int64_t samples = a->sizes[SIZE_SAMPLES], n = (a->batch + samples - 1) / samples;
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < n * parts * splits; task++)
        convolve_part(a, task / splits / parts * samples, task / splits % parts, task % splits);
}
