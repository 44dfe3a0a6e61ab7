/* Convolution, transposed convolution and the gradient of a convolution for its input: direct, by
 * register-blocked products over a patch of the input.
 *
 * Own buffers: packed weights (conv_pack.c).  Reads read_x, writes write_y.
 *
 * One form covers all three. The result's rows (and columns) fall into PHASES classes, row
 * p = PHASES * q + phase; the tap k of the window contributes to those phases for which
 * phase + SHIFT + SPREAD * k is a multiple of PHASES, and reads row STEP * q + that quotient of x:
 *
 *   conv             PHASES 1       STEP stride  SHIFT -padding  SPREAD dilation
 *   transposed       PHASES stride  STEP 1       SHIFT padding   SPREAD -dilation
 *
 * So a transposed convolution multiplies no zeros. A task is a part (a band of result rows) of one
 * sample and one split of the output channels. It goes through its rows in bands whose input patch
 * fits the second-level cache; rows that two bands need are kept. Input channels are packed CHUNK
 * blocks at a time, sums of several chunks meet in the band buffer. Groups of output blocks (tiles)
 * read RANGE input blocks: all, or with groups > 1 those with channels of the same groups; weights
 * between different groups are zeros in the packed form.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PARTS, SIZE_ROWS,    /* parts a sample, result rows of a part */
    SIZE_KERNEL, SIZE_GROUPS,
    SIZE_STEP, SIZE_PHASES, SIZE_SHIFT, SIZE_SPREAD,
    SIZE_ORIGIN,              /* row and column of x at which the patch of row 0 begins */
    SIZE_TILE,                /* output blocks multiplied together, the last tile may have fewer */
    SIZE_RANGE,               /* input blocks of a tile */
    SIZE_TILE_WEIGHTS,        /* floats from one tile's weights to the next */
    SIZE_SPLITS, SIZE_SPLIT,  /* splits of the tiles, tiles of a split */
    SIZE_BAND,                /* result rows at a time, a multiple of PHASES as ROWS is */
    SIZE_CHUNK,               /* input blocks at a time */
    SIZE_PATCH_ROWS, SIZE_PATCH_COLUMNS,
    SIZE_PATCH_PLANE,         /* floats from one block of the patch to the next */
    SIZE_BAND_PLANE,
    SIZE_BAND_OFFSET, SIZE_TAPS_OFFSET, /* bytes in the scratch memory; the patch is at 0 */
};

/* Weights that are read again for each row: they stay in the first-level cache. */
enum { WEIGHT_FLOATS = 9 * 16 * 64 };

/* What a task works on. */
typedef struct {
    int64_t n;
    int64_t first_block, end_block; /* input blocks in the patch */
    int64_t row, rows;              /* result rows in the band */
    float *patch, *band;
    ConvTap *taps;
} Task;

/* Packs the patch for the band; its first `kept` rows are there already, behind the last band's. */
static void pack_patch(const KernelArguments *a, const Task *task, int64_t kept)
{
    const int64_t *s = a->sizes;
    const int64_t top = task->row / s[SIZE_PHASES] * s[SIZE_STEP] + s[SIZE_ORIGIN];
    const int64_t line = s[SIZE_PATCH_COLUMNS] * 16;
    for (int64_t cb = task->first_block; cb < task->end_block; cb++) {
        float *plane = task->patch + (cb - task->first_block) * s[SIZE_PATCH_PLANE];
        if (kept > 0)
            memmove(plane, plane + (s[SIZE_PATCH_ROWS] - kept) * line, (size_t)(kept * line) * 4);
        conv_patch(a, read_x, task->n, cb, s[SIZE_H], s[SIZE_W], top + kept, s[SIZE_ORIGIN],
                   s[SIZE_PATCH_ROWS] - kept, s[SIZE_PATCH_COLUMNS], plane + kept * line);
    }
}

/* Place of tap k in the patch for a phase, in rows or columns; false if it does not contribute. */
static bool tap_place(const int64_t *s, int64_t phase, int64_t k, int64_t *place)
{
    const int64_t at = phase + s[SIZE_SHIFT] + s[SIZE_SPREAD] * k;
    *place = at / s[SIZE_PHASES] - s[SIZE_ORIGIN];
    return at % s[SIZE_PHASES] == 0;
}

/* The taps of a phase in all input blocks that are in the patch and that the tile reads. */
static int64_t list_taps(const KernelArguments *a, const Task *task, int64_t tile,
                         int64_t row_phase, int64_t column_phase)
{
    const int64_t *s = a->sizes;
    const int64_t kernel = s[SIZE_KERNEL], K = s[SIZE_K] / s[SIZE_GROUPS];
    const int64_t width = min64(s[SIZE_TILE], (s[SIZE_K] + 15) / 16 - tile * s[SIZE_TILE]) * 16;
    const int64_t start = tile * s[SIZE_TILE] * 16 / K * (s[SIZE_C] / s[SIZE_GROUPS]) / 16;
    const int64_t end = min64(start + s[SIZE_RANGE], task->end_block);
    int64_t n = 0;
    for (int64_t cb = start > task->first_block ? start : task->first_block; cb < end; cb++) {
        const int64_t channels = min64(16, s[SIZE_C] - cb * 16);
        for (int64_t r = 0; r < kernel; r++) {
            int64_t row, column;
            if (!tap_place(s, row_phase, r, &row))
                continue;
            for (int64_t c = 0; c < kernel; c++) {
                if (!tap_place(s, column_phase, c, &column))
                    continue;
                task->taps[n++] = (ConvTap){
                    .x = (cb - task->first_block) * s[SIZE_PATCH_PLANE]
                         + (row * s[SIZE_PATCH_COLUMNS] + column) * 16,
                    .weights =
                        ((cb - start) * 16 * kernel * kernel + (r * kernel + c) * channels) * width,
                    .channels = channels};
            }
        }
    }
    return n;
}

/* One phase of a tile's result in the band, in steps of taps whose weights fit the cache. */
static void multiply_phase(const KernelArguments *a, const Task *task, int64_t tile, float *band,
                           int64_t row_phase, int64_t column_phase)
{
    const int64_t *s = a->sizes;
    const int64_t phases = s[SIZE_PHASES], line = s[SIZE_Q] * 16;
    const int64_t n_taps = list_taps(a, task, tile, row_phase, column_phase);
    ConvTile t = {
        .x = task->patch,
        .weights = (const float *)a->buffers[0] + tile * s[SIZE_TILE_WEIGHTS],
        .y = band + row_phase * line + column_phase * 16,
        .taps = task->taps,
        .rows = (task->rows - row_phase + phases - 1) / phases,
        .pixels = (s[SIZE_Q] - column_phase + phases - 1) / phases,
        .blocks = min64(s[SIZE_TILE], (s[SIZE_K] + 15) / 16 - tile * s[SIZE_TILE]),
        .x_row = s[SIZE_STEP] * s[SIZE_PATCH_COLUMNS] * 16,
        .x_pixel = s[SIZE_STEP] * 16,
        .y_row = phases * line,
        .y_pixel = phases * 16,
        .y_block = s[SIZE_BAND_PLANE],
        .accumulate = task->first_block > 0};
    const ConvTap *end = task->taps + n_taps;
    do {
        int64_t floats = 0;
        for (t.n_taps = 0; t.taps + t.n_taps < end && floats < WEIGHT_FLOATS; t.n_taps++)
            floats += t.taps[t.n_taps].channels * t.blocks * 16;
        conv_tiles(&t);
        t.taps += t.n_taps;
        t.accumulate = true;
    } while (t.taps < end);
}

static void write_band(const KernelArguments *a, const Task *task, int64_t tile, const float *band,
                       v16 *accumulators)
{
    const int64_t *s = a->sizes;
    const int64_t first = tile * s[SIZE_TILE];
    const int64_t end = min64(first + s[SIZE_TILE], (s[SIZE_K] + 15) / 16);
    for (int64_t cb = first; cb < end; cb++) {
        for (int64_t row = 0; row < task->rows; row++)
            write_y(a, task->n, cb, task->row + row, 0, s[SIZE_Q],
                    band + (cb - first) * s[SIZE_BAND_PLANE] + row * s[SIZE_Q] * 16,
                    accumulators + (cb - first) * ACCUMULATORS);
    }
}

/* The band of a task's split of the tiles. */
static void convolve_band(const KernelArguments *a, Task *task, int64_t first_tile,
                          int64_t end_tile, int64_t kept, v16 *accumulators)
{
    const int64_t *s = a->sizes;
    const int64_t phases = s[SIZE_PHASES], blocks = (s[SIZE_C] + 15) / 16;
    for (int64_t block = 0; block < blocks; block += s[SIZE_CHUNK]) {
        task->first_block = block;
        task->end_block = min64(block + s[SIZE_CHUNK], blocks);
        pack_patch(a, task, kept);
        for (int64_t tile = first_tile; tile < end_tile; tile++) {
            const int64_t place = s[SIZE_CHUNK] < blocks ? tile - first_tile : 0;
            float *band = task->band + place * s[SIZE_TILE] * s[SIZE_BAND_PLANE];
            for (int64_t row_phase = 0; row_phase < min64(phases, task->rows); row_phase++) {
                for (int64_t phase = 0; phase < min64(phases, s[SIZE_Q]); phase++)
                    multiply_phase(a, task, tile, band, row_phase, phase);
            }
            if (task->end_block == blocks)
                write_band(a, task, tile, band,
                           accumulators + (tile - first_tile) * s[SIZE_TILE] * ACCUMULATORS);
        }
    }
}

static void convolve_part(const KernelArguments *a, int64_t n, int64_t part, int64_t split)
{
    const int64_t *s = a->sizes;
    const int64_t blocks = (s[SIZE_K] + 15) / 16, chunked = s[SIZE_CHUNK] * 16 < s[SIZE_C];
    const int64_t first_tile = split * s[SIZE_SPLIT];
    const int64_t end_tile =
        min64(first_tile + s[SIZE_SPLIT], (blocks + s[SIZE_TILE] - 1) / s[SIZE_TILE]);
    const int64_t first_row = part * s[SIZE_ROWS];
    const int64_t end_row = min64(first_row + s[SIZE_ROWS], s[SIZE_P]);
    const int64_t kept = s[SIZE_PATCH_ROWS] - s[SIZE_BAND] / s[SIZE_PHASES] * s[SIZE_STEP];
    char *scratch = (char *)thread_scratch(a);
    v16 accumulators[s[SIZE_SPLIT] * s[SIZE_TILE] * ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    Task task = {.n = n,
                 .patch = (float *)scratch,
                 .band = (float *)(scratch + s[SIZE_BAND_OFFSET]),
                 .taps = (ConvTap *)(scratch + s[SIZE_TAPS_OFFSET])};
    for (task.row = first_row; task.row < end_row; task.row += s[SIZE_BAND]) {
        task.rows = min64(s[SIZE_BAND], end_row - task.row);
        convolve_band(a, &task, first_tile, end_tile,
                      task.row > first_row && !chunked && kept > 0 ? kept : 0, accumulators);
    }
    const int64_t first = first_tile * s[SIZE_TILE], end = min64(end_tile * s[SIZE_TILE], blocks);
    for (int64_t cb = first; cb < end; cb++)
        finish_y(a, n, part, cb, accumulators + (cb - first) * ACCUMULATORS);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t parts = a->sizes[SIZE_PARTS], splits = a->sizes[SIZE_SPLITS];
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < a->batch * parts * splits; task++)
        convolve_part(a, task / splits / parts, task / splits % parts, task % splits);
}
