/* What conv_winograd.c computes, for large weights: they are transformed where they are used, some
 * input channels of a strip of output blocks at a time, instead of being packed in four times the
 * memory and read from there.
 *
 * Own buffers: weights as PyTorch keeps them, workspace.  Reads read_x, writes write_y.
 *
 * The batch is taken a chunk of tiles at a time: some rows of tiles of a sample, which are a part,
 * or several samples of small maps. All blocks of x are transformed into the workspace. Then each
 * strip is a task: it transforms its weights, multiplies, transforms back and writes.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PARTS, SIZE_ROWS,    /* parts a sample, result rows of a part: a multiple of 4 */
    SIZE_ORIGIN,              /* row and column of x at which the first tile's pixels begin */
    SIZE_TURNED,              /* weights are [C][K][3][3], turned by 180 degrees */
    SIZE_SAMPLES,             /* of a chunk; 1 unless they are whole */
    SIZE_BAND,                /* rows of tiles that are transformed at a time */
    SIZE_STRIP,               /* output blocks of a strip, the last may have fewer */
    SIZE_DEPTH,               /* input blocks whose weights are transformed at a time */
    SIZE_POINT_WEIGHTS,       /* floats from one point's weights to the next */
    SIZE_LINES_OFFSET,        /* bytes in the scratch memory, behind the patch; */
    SIZE_RESULT_OFFSET, SIZE_IMAGE_OFFSET, SIZE_TAPS_OFFSET, /* behind the weights, at 0 */
};

typedef struct {
    int64_t n, samples;
    int64_t row, rows, columns; /* of tiles, of each sample */
    int64_t tiles;
    int64_t point;              /* floats of the workspace from one point's tiles to the next */
} Chunk;

/* The scratch memory of a strip, and its result: [point][block][tile][16]. */
typedef struct {
    int64_t first, blocks;      /* output blocks */
    int64_t point;              /* floats of the result from one point to the next */
    float *weights, *result, *image;
    ConvTap *taps;
} Strip;

static float *block_of(const KernelArguments *a, const Chunk *c, int64_t cb)
{
    return (float *)a->buffers[1] + cb * 36 * c->point;
}

/* Some rows of tiles, from `row` of the chunk's on, of one block of one sample. */
static void transform_band(const KernelArguments *a, const Chunk *c, int64_t sample, int64_t cb,
                           int64_t row)
{
    const int64_t *s = a->sizes;
    const int64_t rows = min64(s[SIZE_BAND], c->rows - row);
    float *patch = thread_scratch(a);
    conv_patch(a, read_x, c->n + sample, cb, s[SIZE_H], s[SIZE_W],
               (c->row + row) * 4 + s[SIZE_ORIGIN], s[SIZE_ORIGIN], rows * 4 + 2,
               c->columns * 4 + 2, patch);
    conv_winograd_input(patch, rows, c->columns, patch + s[SIZE_LINES_OFFSET] / 4,
                        block_of(a, c, cb) + (sample * c->rows + row) * c->columns * 16, c->point);
}

/* ---- products ------------------------------------------------------------------------------- */

/* weights[point][channel][16 * blocks] of some input blocks. */
static void transform_weights(const KernelArguments *a, const Strip *strip, int64_t cb, int64_t end)
{
    const int64_t *s = a->sizes;
    const ConvWeights w = {a->buffers[0], s[SIZE_C], s[SIZE_K], s[SIZE_TURNED]};
    const int64_t width = strip->blocks * 16;
    for (int64_t lane = 0; lane < width; lane += 16) {
        for (int64_t i = cb; i < end; i++)
            conv_winograd_weights(&w, strip->first * 16 + lane, i * 16,
                                  strip->weights + (i - cb) * 16 * width + lane, width,
                                  s[SIZE_POINT_WEIGHTS]);
    }
}

/* Asks for one point's tiles of some input blocks, while others are multiplied. */
static void fetch(const KernelArguments *a, const Chunk *c, int64_t cb, int64_t end, int64_t point)
{
    for (; cb < end; cb++) {
        const float *at = block_of(a, c, cb) + point * c->point;
        for (int64_t i = 0; i < c->tiles; i++)
            __builtin_prefetch(at + i * 16);
    }
}

static void multiply(const KernelArguments *a, const Chunk *c, const Strip *strip, int64_t cb,
                     int64_t end)
{
    const int64_t *s = a->sizes;
    for (int64_t i = cb; i < end; i++)
        strip->taps[i - cb] = (ConvTap){.x = (i - cb) * 36 * c->point,
                                        .weights = (i - cb) * 16 * strip->blocks * 16,
                                        .channels = min64(16, s[SIZE_C] - i * 16)};
    for (int64_t point = 0; point < 36; point++) {
        const ConvTile t = {.x = block_of(a, c, cb) + point * c->point,
                            .weights = strip->weights + point * s[SIZE_POINT_WEIGHTS],
                            .y = strip->result + point * strip->point,
                            .taps = strip->taps,
                            .n_taps = end - cb,
                            .rows = 1,
                            .pixels = c->tiles,
                            .blocks = strip->blocks,
                            .x_pixel = 16,
                            .y_pixel = 16,
                            .y_block = c->tiles * 16,
                            .accumulate = cb > 0};
        if (point < 35)
            fetch(a, c, cb, end, point + 1);
        conv_tiles(&t);
    }
}

/* ---- results -------------------------------------------------------------------------------- */

/* One output block of a sample; what lies behind the result's edges is not written. */
static void write_block(const KernelArguments *a, const Chunk *c, const Strip *strip,
                        int64_t sample, int64_t block)
{
    const int64_t *s = a->sizes;
    const int64_t n = c->n + sample, cb = strip->first + block, line = c->columns * 64;
    const int64_t rows = min64(c->rows * 4, s[SIZE_P] - c->row * 4);
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    conv_winograd_results(strip->result + (block * c->tiles + sample * c->rows * c->columns) * 16,
                          c->rows, c->columns, strip->image, strip->point);
    for (int64_t row = 0; row < rows; row++)
        write_y(a, n, cb, c->row * 4 + row, 0, s[SIZE_Q], strip->image + row * line, accumulators);
    finish_y(a, n, c->row * 4 / s[SIZE_ROWS], cb, accumulators);
}

static void make_strip(const KernelArguments *a, const Chunk *c, int64_t index)
{
    const int64_t *s = a->sizes;
    const int64_t x_blocks = channel_blocks(s[SIZE_C]), first = index * s[SIZE_STRIP];
    char *scratch = (char *)thread_scratch(a);
    Strip strip = {.first = first,
                   .blocks = min64(s[SIZE_STRIP], channel_blocks(s[SIZE_K]) - first),
                   .weights = (float *)scratch,
                   .result = (float *)(scratch + s[SIZE_RESULT_OFFSET]),
                   .image = (float *)(scratch + s[SIZE_IMAGE_OFFSET]),
                   .taps = (ConvTap *)(scratch + s[SIZE_TAPS_OFFSET])};
    strip.point = (strip.blocks * c->tiles + 1) * 16;
    for (int64_t cb = 0; cb < x_blocks; cb += s[SIZE_DEPTH]) {
        const int64_t end = min64(cb + s[SIZE_DEPTH], x_blocks);
        transform_weights(a, &strip, cb, end);
        multiply(a, c, &strip, cb, end);
    }
    for (int64_t block = 0; block < strip.blocks; block++) {
        for (int64_t sample = 0; sample < c->samples; sample++)
            write_block(a, c, &strip, sample, block);
    }
}

/* ---- chunks --------------------------------------------------------------------------------- */

static void transform_chunk(const KernelArguments *a, const Chunk *c)
{
    const int64_t *s = a->sizes;
    const int64_t bands = (c->rows + s[SIZE_BAND] - 1) / s[SIZE_BAND];
    #pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < channel_blocks(s[SIZE_C]) * c->samples * bands; task++)
        transform_band(a, c, task / bands % c->samples, task / bands / c->samples,
                       task % bands * s[SIZE_BAND]);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t strips = (channel_blocks(s[SIZE_K]) + s[SIZE_STRIP] - 1) / s[SIZE_STRIP];
    const int64_t rows = (s[SIZE_P] + 3) / 4, step = s[SIZE_ROWS] / 4;
    #pragma omp parallel num_threads(a->threads)
    for (int64_t n = 0; n < a->batch; n += s[SIZE_SAMPLES]) {
        for (int64_t row = 0; row < rows; row += step) {
            Chunk c = {.n = n, .samples = min64(s[SIZE_SAMPLES], a->batch - n), .row = row,
                       .rows = min64(step, rows - row), .columns = (s[SIZE_Q] + 3) / 4};
            c.tiles = c.samples * c.rows * c.columns;
            c.point = (c.tiles % 16 ? c.tiles : c.tiles + 4) * 16; /* see plane_floats */
            transform_chunk(a, &c);
            #pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < strips; i++)
                make_strip(a, &c, i);
        }
    }
}
