/* Gradient for its weight of a convolution with a 3x3 window and stride 1, with bf16 products, by
 * Winograd's filtering along rows: the transposed of what conv_line.c computes, F(3, 4).
 *
 * Own buffers: result [K][C][3][3], workspace.  Reads read_x [C,H,W] and read_dy [K,P,Q].
 *
 * A tile is four pixels y of a row of dy; with each row of the window it meets the six pixels d of a
 * row of x. The result's row is G' [sum over tiles of (A y) * (B' d)], with * element by element: at
 * each of the 6 points, for each of the 3 rows, a product of matrices [C][tiles] and [tiles][K].
 * Two neighbouring tiles are the pairs of conv_tiles_bf16.h. The batch is taken a chunk at a time:
 * some rows of a sample, or several samples of small maps. All blocks of both operands are
 * transformed into the workspace, then units of the sums, some input blocks by some output blocks,
 * are multiplied.
 *
 * Small weights (SUMS > 0): the sums stay in the workspace until the last chunk; units are divided
 * by points. Large weights (SUMS = 0): a unit is a task that keeps its sums in the thread's memory,
 * transforms them back and adds them to the result. How the work is divided depends on sizes only,
 * so the bits do not depend on the number of threads.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PADDING,
    SIZE_SAMPLES,             /* of a chunk; 1 unless they are whole */
    SIZE_ROWS,                /* of dy, of a chunk */
    SIZE_BAND,                /* rows that are transformed by a task */
    SIZE_UNIT_C, SIZE_UNIT_K, /* input and output blocks of a unit, the last may have fewer */
    SIZE_POINTS,              /* of a task: 6 where SUMS = 0 */
    SIZE_POINT_SUMS,          /* floats from one point's sums of a unit to the next */
    SIZE_SUMS,                /* floats of the workspace before the sums, or 0 */
};
enum { PAIR_SUMS = 3 * 16 * 32 }; /* floats of one input block's sums with two output blocks */

typedef struct {
    int64_t n, samples;
    int64_t row, rows;
    int64_t pairs;              /* of tiles, in a row */
    int64_t x_point, dy_point;  /* words of a block from one point's tiles to the next */
    bool first;                 /* of the batch */
} Chunk;

/* The transformed tiles of a block: [point][sample][row][pair][16]. */
static uint32_t *x_block(const KernelArguments *a, const Chunk *c, int64_t block)
{
    return (uint32_t *)a->buffers[1] + block * 6 * c->x_point;
}

static uint32_t *dy_block(const KernelArguments *a, const Chunk *c, int64_t block)
{
    return x_block(a, c, channel_blocks(a->sizes[SIZE_C])) + block * 6 * c->dy_point;
}

/* ---- operands ------------------------------------------------------------------------------- */

static void transform_x_row(const KernelArguments *a, const Chunk *c, int64_t sample,
                            int64_t block, int64_t row)
{
    const int64_t *s = a->sizes;
    float *line = thread_scratch(a);
    uint32_t *to =
        x_block(a, c, block) + (sample * (c->rows + 2) + row) * c->pairs * 16;
    conv_patch(a, read_x, c->n + sample, block, s[SIZE_H], s[SIZE_W],
               c->row + row - s[SIZE_PADDING], -s[SIZE_PADDING], 1, c->pairs * 8 + 2, line);
    for (int64_t pair = 0; pair < c->pairs; pair++, line += 128, to += 16) {
        v16 low[6], high[6];
        conv_line_input(line, low);
        conv_line_input(line + 64, high);
        for (int64_t point = 0; point < 6; point++)
            *(v16p *)(to + point * c->x_point) = pair16(low[point], high[point]);
    }
}

static void transform_dy_row(const KernelArguments *a, const Chunk *c, int64_t sample,
                             int64_t block, int64_t row)
{
    const int64_t *s = a->sizes;
    float *line = thread_scratch(a);
    uint32_t *to = dy_block(a, c, block) + (sample * c->rows + row) * c->pairs * 16;
    conv_patch(a, read_dy, c->n + sample, block, s[SIZE_P], s[SIZE_Q], c->row + row, 0, 1,
               c->pairs * 8, line);
    for (int64_t pair = 0; pair < c->pairs; pair++, line += 128, to += 16) {
        v16 low[6], high[6];
        conv_filter_dy(line, 16, (float *)low, 16);
        conv_filter_dy(line + 64, 16, (float *)high, 16);
        for (int64_t point = 0; point < 6; point++)
            *(v16p *)(to + point * c->dy_point) = pair16(low[point], high[point]);
    }
}

/* Some rows, from `row` of the chunk's on, of one block of one sample. */
static void transform_band(const KernelArguments *a, const Chunk *c, int64_t sample, int64_t block,
                           int64_t row)
{
    const int64_t x_blocks = channel_blocks(a->sizes[SIZE_C]), end = row + a->sizes[SIZE_BAND];
    if (block < x_blocks) {
        for (; row < min64(end, c->rows + 2); row++)
            transform_x_row(a, c, sample, block, row);
    } else {
        for (; row < min64(end, c->rows); row++)
            transform_dy_row(a, c, sample, block - x_blocks, row);
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

/* The chunk's products at `points` points, from `point` on: sums[point][pair of output blocks]
 * [input block][row of the window][16 channels][output channels], added to or made. */
static void multiply(const KernelArguments *a, const Chunk *c, const Unit *u, int64_t point,
                     int64_t points, bool add, float *sums)
{
    const int64_t *s = a->sizes;
    const int64_t line = c->pairs * 16, taps[] = {0, line, 2 * line};
    PairGradTile g = {.taps = taps, .n_taps = 3, .rows = c->samples, .pixels = c->rows * c->pairs,
                      .x_row = (c->rows + 2) * line, .dy_row = c->rows * line,
                      .dy_block = 6 * c->dy_point, .accumulate = add};
    for (int64_t i = point; i < point + points; i++) {
        for (int64_t kb = u->kb; kb < u->kb_end; kb += 2) {
            g.blocks = min64(2, u->kb_end - kb);
            g.dy = dy_block(a, c, kb) + i * c->dy_point;
            for (int64_t cb = u->cb; cb < u->cb_end; cb++) {
                g.x = x_block(a, c, cb) + i * c->x_point;
                g.dw = sums + i * s[SIZE_POINT_SUMS]
                       + ((kb - u->kb) / 2 * s[SIZE_UNIT_C] + cb - u->cb) * PAIR_SUMS;
                conv_pair_grad_tiles(&g);
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
    const int64_t pair = (kb - u->kb) / 2, first = u->kb + 2 * pair;
    const int64_t width = 16 * min64(2, u->kb_end - first);
    const float *from = sums + (pair * s[SIZE_UNIT_C] + cb - u->cb) * PAIR_SUMS + (kb - first) * 16;
    ConvBlock result __attribute__((aligned(64)));
    for (int64_t row = 0; row < 3; row++) {
        for (int64_t channel = 0; channel < 16; channel++, from += width)
            conv_filter_sums(from, s[SIZE_POINT_SUMS], result[channel * 9 + row * 3], 16);
    }
    conv_store_weights(result, kb * 16, cb * 16, s[SIZE_K], s[SIZE_C], add, a->buffers[0]);
}

static void finish_unit(const KernelArguments *a, const Unit *u, bool add, const float *sums)
{
    for (int64_t kb = u->kb; kb < u->kb_end; kb++) {
        for (int64_t cb = u->cb; cb < u->cb_end; cb++)
            finish_block(a, u, cb, kb, add, sums);
    }
}

/* ---- chunks --------------------------------------------------------------------------------- */

static void transform_chunk(const KernelArguments *a, const Chunk *c)
{
    const int64_t *s = a->sizes;
    const int64_t blocks = channel_blocks(s[SIZE_C]) + channel_blocks(s[SIZE_K]);
    const int64_t bands = (c->rows + 2 + s[SIZE_BAND] - 1) / s[SIZE_BAND];
    #pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < blocks * c->samples * bands; task++)
        transform_band(a, c, task / bands % c->samples, task / bands / c->samples,
                       task % bands * s[SIZE_BAND]);
}

static void multiply_part(const KernelArguments *a, const Chunk *c, int64_t task)
{
    const int64_t *s = a->sizes;
    const int64_t parts = 6 / s[SIZE_POINTS];
    const Unit u = unit_of(a, task / parts);
    multiply(a, c, &u, task % parts * s[SIZE_POINTS], s[SIZE_POINTS], !c->first,
             (float *)a->buffers[1] + s[SIZE_SUMS] + task / parts * 6 * s[SIZE_POINT_SUMS]);
}

static void multiply_chunk(const KernelArguments *a, const Chunk *c, int64_t units)
{
    const int64_t *s = a->sizes;
    #pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < units * 6 / s[SIZE_POINTS]; task++) {
        if (s[SIZE_SUMS] > 0) {
            multiply_part(a, c, task);
        } else {
            const Unit u = unit_of(a, task);
            multiply(a, c, &u, 0, 6, false, thread_scratch(a));
            finish_unit(a, &u, !c->first, thread_scratch(a));
        }
    }
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t units = units_of(s[SIZE_C], s[SIZE_UNIT_C]) * units_of(s[SIZE_K], s[SIZE_UNIT_K]);
    #pragma omp parallel num_threads(a->threads)
    {
        for (int64_t n = 0; n < a->batch; n += s[SIZE_SAMPLES]) {
            for (int64_t row = 0; row < s[SIZE_P]; row += s[SIZE_ROWS]) {
                Chunk c = {.n = n, .samples = min64(s[SIZE_SAMPLES], a->batch - n), .row = row,
                           .rows = min64(s[SIZE_ROWS], s[SIZE_P] - row),
                           .pairs = (s[SIZE_Q] + 7) / 8, .first = n == 0 && row == 0};
                c.x_point = (c.samples * (c.rows + 2) * c.pairs + 3) * 16; /* see plane_words */
                c.dy_point = (c.samples * c.rows * c.pairs + 3) * 16;
                transform_chunk(a, &c);
                multiply_chunk(a, &c, units);
            }
        }
        #pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < (s[SIZE_SUMS] > 0 ? units : 0); i++) {
            const Unit u = unit_of(a, i);
            finish_unit(a, &u, false,
                        (float *)a->buffers[1] + s[SIZE_SUMS] + i * 6 * s[SIZE_POINT_SUMS]);
        }
    }
}
