/* Gradient for its weight of a convolution with a 3x3 window and stride 1, by Winograd's filtering:
 * the transposed of what conv_winograd.c computes, F(3x3, 4x4).
 *
 * Own buffers: result [K][C][3][3], workspace.  Reads read_x [C,H,W] and read_dy [K,P,Q].
 *
 * A tile is 4x4 pixels y of dy and the 6x6 pixels d of x that they meet; the result is
 * G' [sum over tiles of (A y A') * (B' d B)] G, with * element by element: for each of the 36
 * points a product of matrices [C][tiles] and [tiles][K]. The batch is taken a chunk of tiles at a
 * time: some rows of tiles of a sample, or several samples of small maps. All blocks of both
 * operands are transformed into the workspace, then units of the sums, some input blocks by some
 * output blocks, are multiplied.
 *
 * Small weights (SUMS > 0): the sums stay in the workspace until the last chunk; units are divided
 * by points, so that there are tasks enough. Large weights (SUMS = 0): there are units enough for
 * all threads, so each is a task that keeps its sums in the thread's memory, transforms them back
 * and adds them to the result. How the work is divided depends on sizes only, so the bits do not
 * depend on the number of threads.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PADDING,
    SIZE_SAMPLES,             /* of a chunk; 1 unless they are whole */
    SIZE_ROWS,                /* rows of tiles of a chunk */
    SIZE_BAND,                /* rows of tiles that are transformed at a time */
    SIZE_UNIT_C, SIZE_UNIT_K, /* input and output blocks of a unit, the last may have fewer */
    SIZE_POINTS,              /* of a task: 36 where SUMS = 0 */
    SIZE_POINT_SUMS,          /* floats from one point's sums of a unit to the next */
    SIZE_SUMS,                /* floats of the workspace before the sums, or 0 */
    SIZE_LINES_OFFSET,        /* bytes in the scratch memory; the patch, and sums, are at 0 */
};

typedef struct {
    int64_t n, samples;
    int64_t row, rows, columns; /* of tiles, of each sample */
    int64_t tiles;
    int64_t point;              /* floats of the workspace from one point's tiles to the next */
    bool first;                 /* of the batch */
} Chunk;

/* The transformed tiles of x's block, or of dy's behind them: [point][tile][16]. */
static float *block_of(const KernelArguments *a, const Chunk *c, int64_t block)
{
    return (float *)a->buffers[1] + block * 36 * c->point;
}

/* ---- operands ------------------------------------------------------------------------------- */

static void transform_dy_tiles(const float *patch, int64_t rows, int64_t columns, float *lines,
                               float *to, int64_t point)
{
    const int64_t line = columns * 64;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < line; i += 16)
            conv_filter_dy(patch + row * 4 * line + i, line, lines + i, line);
        for (int64_t column = 0; column < columns; column++, to += 16) {
            for (int64_t i = 0; i < 6; i++)
                conv_filter_dy(lines + i * line + column * 64, 16, to + i * 6 * point, point);
        }
    }
}

/* Some rows of tiles, from `row` of the chunk's on, of one block of one sample. */
static void transform_band(const KernelArguments *a, const Chunk *c, int64_t sample, int64_t block,
                           int64_t row)
{
    const int64_t *s = a->sizes;
    const int64_t x_blocks = channel_blocks(s[SIZE_C]);
    const int64_t rows = min64(s[SIZE_BAND], c->rows - row), top = (c->row + row) * 4;
    float *patch = thread_scratch(a), *lines = patch + s[SIZE_LINES_OFFSET] / 4;
    float *to = block_of(a, c, block) + (sample * c->rows + row) * c->columns * 16;
    if (block < x_blocks) {
        conv_patch(a, read_x, c->n + sample, block, s[SIZE_H], s[SIZE_W], top - s[SIZE_PADDING],
                   -s[SIZE_PADDING], rows * 4 + 2, c->columns * 4 + 2, patch);
        conv_winograd_input(patch, rows, c->columns, lines, to, c->point);
    } else {
        conv_patch(a, read_dy, c->n + sample, block - x_blocks, s[SIZE_P], s[SIZE_Q], top, 0,
                   rows * 4, c->columns * 4, patch);
        transform_dy_tiles(patch, rows, c->columns, lines, to, c->point);
    }
}

/* ---- units ---------------------------------------------------------------------------------- */

typedef struct { int64_t cb, cb_end, kb, kb_end; } Unit; /* input and output blocks */

static int64_t units_of(int64_t channels, int64_t unit)
{
    return (channel_blocks(channels) + unit - 1) / unit;
}

static Unit unit_of(const KernelArguments *a, int64_t index)
{
    const int64_t *s = a->sizes;
    const int64_t units = units_of(s[SIZE_C], s[SIZE_UNIT_C]);
    const int64_t cb = index % units * s[SIZE_UNIT_C], kb = index / units * s[SIZE_UNIT_K];
    return (Unit){cb, min64(cb + s[SIZE_UNIT_C], channel_blocks(s[SIZE_C])),
                  kb, min64(kb + s[SIZE_UNIT_K], channel_blocks(s[SIZE_K]))};
}

/* Asks for a point's tiles of some blocks, a call's share of all, while others are multiplied. */
static void fetch(const KernelArguments *a, const Chunk *c, const Unit *u, int64_t point,
                  int64_t call)
{
    const int64_t x = u->cb_end - u->cb, blocks = x + u->kb_end - u->kb;
    const int64_t calls = x * ((u->kb_end - u->kb + 1) / 2);
    for (int64_t b = call * blocks / calls; b < (call + 1) * blocks / calls; b++) {
        const int64_t block = b < x ? u->cb + b : channel_blocks(a->sizes[SIZE_C]) + u->kb + b - x;
        const float *at = block_of(a, c, block) + point * c->point;
        for (int64_t i = 0; i < c->tiles; i++)
            __builtin_prefetch(at + i * 16);
    }
}

/* The chunk's products at `points` points, from `point` on: sums[point][pair of output blocks]
 * [input block][16 channels][output channels], added to or made. */
static void multiply(const KernelArguments *a, const Chunk *c, const Unit *u, int64_t point,
                     int64_t points, bool add, float *sums)
{
    const int64_t *s = a->sizes;
    const int64_t x_blocks = channel_blocks(s[SIZE_C]);
    ConvGradTile g = {.taps = (int64_t[]){0}, .n_taps = 1, .depth = 16, .rows = 1,
                      .pixels = c->tiles, .x_pixel = 16, .dy_block = 36 * c->point,
                      .accumulate = add};
    for (int64_t i = point; i < point + points; i++) {
        int64_t call = 0;
        for (int64_t kb = u->kb; kb < u->kb_end; kb += 2) {
            g.blocks = min64(2, u->kb_end - kb);
            g.dy = block_of(a, c, x_blocks + kb) + i * c->point;
            for (int64_t cb = u->cb; cb < u->cb_end; cb++) {
                if (i < 35)
                    fetch(a, c, u, i + 1, call++);
                g.channels = min64(16, s[SIZE_C] - cb * 16);
                g.x = block_of(a, c, cb) + i * c->point;
                g.dw = sums + i * s[SIZE_POINT_SUMS]
                       + ((kb - u->kb) / 2 * s[SIZE_UNIT_C] + cb - u->cb) * 512;
                conv_grad_tiles(&g);
            }
        }
    }
}

/* ---- result --------------------------------------------------------------------------------- */

/* Transforms the sums of one input and one output block of a unit back. */
static void finish_block(const KernelArguments *a, const Unit *u, int64_t cb, int64_t kb, bool add,
                         const float *sums)
{
    const int64_t *s = a->sizes;
    const int64_t pair = (kb - u->kb) / 2, first = u->kb + 2 * pair, step = s[SIZE_POINT_SUMS];
    const int64_t width = 16 * min64(2, u->kb_end - first);
    const float *from = sums + (pair * s[SIZE_UNIT_C] + cb - u->cb) * 512 + (kb - first) * 16;
    ConvBlock result __attribute__((aligned(64)));
    for (int64_t channel = 0; channel < min64(16, s[SIZE_C] - cb * 16); channel++, from += width) {
        float columns[3 * 6 * 16] __attribute__((aligned(64)));
        for (int64_t j = 0; j < 6; j++)
            conv_filter_sums(from + j * step, 6 * step, columns + j * 16, 96);
        for (int64_t i = 0; i < 3; i++)
            conv_filter_sums(columns + i * 96, 16, result[channel * 9 + i * 3], 16);
    }
    conv_store_weights(result, kb * 16, cb * 16, s[SIZE_K], s[SIZE_C], add, a->buffers[0]);
}

/* ---- chunks --------------------------------------------------------------------------------- */

static void transform_chunk(const KernelArguments *a, const Chunk *c)
{
    const int64_t *s = a->sizes;
    const int64_t blocks = channel_blocks(s[SIZE_C]) + channel_blocks(s[SIZE_K]);
    const int64_t bands = (c->rows + s[SIZE_BAND] - 1) / s[SIZE_BAND];
    #pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < blocks * c->samples * bands; task++)
        transform_band(a, c, task / bands % c->samples, task / bands / c->samples,
                       task % bands * s[SIZE_BAND]);
}

static void multiply_part(const KernelArguments *a, const Chunk *c, int64_t task)
{
    const int64_t *s = a->sizes;
    const int64_t parts = 36 / s[SIZE_POINTS];
    const Unit u = unit_of(a, task / parts);
    multiply(a, c, &u, task % parts * s[SIZE_POINTS], s[SIZE_POINTS], !c->first,
             (float *)a->buffers[1] + s[SIZE_SUMS] + task / parts * 36 * s[SIZE_POINT_SUMS]);
}

static void finish_unit(const KernelArguments *a, const Unit *u, bool add, const float *sums)
{
    for (int64_t kb = u->kb; kb < u->kb_end; kb++) {
        for (int64_t cb = u->cb; cb < u->cb_end; cb++)
            finish_block(a, u, cb, kb, add, sums);
    }
}

static void multiply_chunk(const KernelArguments *a, const Chunk *c, int64_t units)
{
    const int64_t *s = a->sizes;
    #pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < units * 36 / s[SIZE_POINTS]; task++) {
        if (s[SIZE_SUMS] > 0) {
            multiply_part(a, c, task);
        } else {
            const Unit u = unit_of(a, task);
            multiply(a, c, &u, 0, 36, false, thread_scratch(a));
            finish_unit(a, &u, !c->first, thread_scratch(a));
        }
    }
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t rows = (s[SIZE_P] + 3) / 4, columns = (s[SIZE_Q] + 3) / 4;
    const int64_t units = units_of(s[SIZE_C], s[SIZE_UNIT_C]) * units_of(s[SIZE_K], s[SIZE_UNIT_K]);
    #pragma omp parallel num_threads(a->threads)
    {
        for (int64_t n = 0; n < a->batch; n += s[SIZE_SAMPLES]) {
            for (int64_t row = 0; row < rows; row += s[SIZE_ROWS]) {
                Chunk c = {.n = n, .samples = min64(s[SIZE_SAMPLES], a->batch - n), .row = row,
                           .rows = min64(s[SIZE_ROWS], rows - row), .columns = columns,
                           .first = n == 0 && row == 0};
                c.tiles = c.samples * c.rows * c.columns;
                c.point = (c.tiles % 16 ? c.tiles : c.tiles + 4) * 16; /* see plane_floats */
                transform_chunk(a, &c);
                multiply_chunk(a, &c, units);
            }
        }
        #pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < (s[SIZE_SUMS] > 0 ? units : 0); i++) {
            const Unit u = unit_of(a, i);
            finish_unit(a, &u, false,
                        (float *)a->buffers[1] + s[SIZE_SUMS] + i * 36 * s[SIZE_POINT_SUMS]);
        }
    }
}
