/* Convolution with a 3x3 window, stride 1, and the gradient of one for its input, by Winograd's
 * minimal filtering F(4x4, 3x3) (Lavin, Gray 2016): 36 products for 16 results, where the direct
 * way takes 144.
 *
 * Own buffers: packed weights (conv_winograd_pack.c).  Reads read_x, writes write_y.
 *
 * A tile is 4x4 results of one channel block; it depends on 6x6 pixels d of each input block, and
 * is A' [sum over input channels of (G g G') * (B' d B)] A, with * element by element: for each of
 * the 36 points a product of matrices [tiles][C] and [C][K]. A task is a part (a band of rows) of
 * one sample and one split of the strips, groups of output blocks that are multiplied together; of
 * small maps it takes several samples. It takes its tiles some dozens at a time, so that their
 * transformed input stays in the second-level cache: transforms each input block; then, strip by
 * strip, multiplies, transforms back and writes.
 *
 * The error is about 1e-6 of the largest result, by the choice of the points (conv_tiles.h).
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PARTS, SIZE_ROWS,    /* parts a sample, result rows of a part: a multiple of 4 */
    SIZE_ORIGIN,              /* row and column of x at which the first tile's pixels begin */
    SIZE_STRIP,               /* output blocks of a strip, the last strip may have fewer */
    SIZE_POINT_WEIGHTS,       /* floats from one point's weights to the next in a strip */
    SIZE_SPLITS, SIZE_SPLIT,  /* splits of the strips, strips of a split */
    SIZE_SAMPLES,             /* samples at a time; 1 unless a part is a whole sample */
    SIZE_TILE_ROWS, SIZE_TILE_COLUMNS, /* most tiles of a sample at a time */
    SIZE_INPUT_PLANE,         /* floats from one point's transformed input to the next */
    SIZE_RESULT_PLANE,        /* the same of the products */
    SIZE_LINES_OFFSET, SIZE_INPUT_OFFSET, SIZE_RESULT_OFFSET, SIZE_BAND_OFFSET,
    SIZE_TAPS_OFFSET,         /* bytes in the scratch memory; the patch is at 0 */
};

/* Weights that are read again for every few tiles: they stay in the first-level cache. */
enum { WEIGHT_FLOATS = 9 * 16 * 64 };

/* The tiles at work, and the thread's scratch memory. */
typedef struct {
    int64_t n, samples;
    int64_t row, column;      /* first result row and column */
    int64_t rows, columns;    /* tiles of a sample */
    int64_t tiles;            /* of all samples */
    float *patch, *lines, *input, *result, *band;
    ConvTap *taps;
} Task;

/* ---- input ---------------------------------------------------------------------------------- */

/* One input block of a sample's tiles. */
static void transform_block(const KernelArguments *a, const Task *task, int64_t n, int64_t cb,
                            float *to)
{
    const int64_t *s = a->sizes;
    conv_patch(a, read_x, n, cb, s[SIZE_H], s[SIZE_W], task->row + s[SIZE_ORIGIN],
               task->column + s[SIZE_ORIGIN], task->rows * 4 + 2, task->columns * 4 + 2,
               task->patch);
    conv_winograd_input(task->patch, task->rows, task->columns, task->lines, to,
                        s[SIZE_INPUT_PLANE]);
}

/* input[point][input block][tile][16] */
static void transform_tiles(const KernelArguments *a, const Task *task)
{
    for (int64_t cb = 0; cb < channel_blocks(a->sizes[SIZE_C]); cb++) {
        for (int64_t i = 0; i < task->samples; i++)
            transform_block(a, task, task->n + i, cb,
                            task->input + (cb * task->tiles + i * task->rows * task->columns) * 16);
    }
}

/* ---- products ------------------------------------------------------------------------------- */

static void list_taps(const KernelArguments *a, const Task *task, int64_t blocks)
{
    const int64_t C = a->sizes[SIZE_C];
    for (int64_t cb = 0; cb * 16 < C; cb++)
        task->taps[cb] = (ConvTap){.x = cb * task->tiles * 16,
                                   .weights = cb * 16 * blocks * 16,
                                   .channels = min64(16, C - cb * 16)};
}

/* result[point][block][tile][16] of a strip. */
static void multiply_strip(const KernelArguments *a, const Task *task, int64_t strip,
                           int64_t blocks)
{
    const int64_t *s = a->sizes;
    const int64_t n_taps = channel_blocks(s[SIZE_C]);
    const int64_t step = max64(1, WEIGHT_FLOATS / (16 * 16 * blocks));
    const int64_t steps = (n_taps + step - 1) / step;
    const float *weights = (const float *)a->buffers[0] + strip * 36 * s[SIZE_POINT_WEIGHTS];
    for (int64_t point = 0; point < 36; point++) {
        ConvTile t = {.x = task->input + point * s[SIZE_INPUT_PLANE],
                      .weights = weights + point * s[SIZE_POINT_WEIGHTS],
                      .y = task->result + point * s[SIZE_RESULT_PLANE],
                      .rows = 1,
                      .pixels = task->tiles,
                      .blocks = blocks,
                      .x_pixel = 16,
                      .y_pixel = 16,
                      .y_block = task->tiles * 16};
        for (int64_t i = 0; i < steps; i++) {
            t.taps = task->taps + i * n_taps / steps;
            t.n_taps = (i + 1) * n_taps / steps - i * n_taps / steps;
            t.accumulate = i > 0;
            conv_tiles(&t);
        }
    }
}

/* ---- results -------------------------------------------------------------------------------- */

/* One output block of a sample's tiles; what lies behind the result's edges is not written. */
static void write_block(const KernelArguments *a, const Task *task, const float *result, int64_t n,
                        int64_t cb, v16 *accumulators)
{
    const int64_t *s = a->sizes;
    const int64_t line = task->columns * 64;
    conv_winograd_results(result, task->rows, task->columns, task->band, s[SIZE_RESULT_PLANE]);
    const int64_t rows = min64(task->rows * 4, s[SIZE_P] - task->row);
    const int64_t pixels = min64(task->columns * 4, s[SIZE_Q] - task->column);
    for (int64_t row = 0; row < rows; row++)
        write_y(a, n, cb, task->row + row, task->column, pixels, task->band + row * line,
                accumulators);
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
                 .patch = (float *)scratch,
                 .lines = (float *)(scratch + s[SIZE_LINES_OFFSET]),
                 .input = (float *)(scratch + s[SIZE_INPUT_OFFSET]),
                 .result = (float *)(scratch + s[SIZE_RESULT_OFFSET]),
                 .band = (float *)(scratch + s[SIZE_BAND_OFFSET]),
                 .taps = (ConvTap *)(scratch + s[SIZE_TAPS_OFFSET])};
    for (task.row = part * s[SIZE_ROWS]; task.row < end_row; task.row += task.rows * 4) {
        task.rows = min64(s[SIZE_TILE_ROWS], (end_row - task.row + 3) / 4);
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
