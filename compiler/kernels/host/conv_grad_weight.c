/* Gradient of a convolution for its weight, [K][C/groups][kernel][kernel] as PyTorch keeps it: for
 * each tap the sum over samples and pixels of x under the tap times dy. Also that of a transposed
 * convolution with the roles of x and dy swapped.
 *
 * Own buffers: result, workspace.  Reads read_x [C,H,W] and read_dy [K,P,Q].
 *
 * Tiles of dw are [tap][input channel][output channels] for one input block and up to two output
 * blocks. Small weights (SLOTS > 0): the batch's bands of rows are divided among SLOTS tasks, each
 * packs its bands once and adds to all tiles of its own copy in the workspace; then the copies are
 * added in order. Large weights (SLOTS = 0): there are tiles enough for all threads, so both
 * operands are packed whole into the workspace, each plane once, and a task makes one tile (or some
 * of its taps) from all samples. How the work is divided depends on sizes only, so the bits do not
 * depend on the number of threads.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION, SIZE_GROUPS,
    SIZE_TILE,                /* output blocks of a tile, the last may have fewer */
    SIZE_RANGE,               /* input blocks that meet a tile's outputs: all if groups = 1 */
    SIZE_DEPTH,               /* input channels of a tile */
    SIZE_SLOTS,               /* most copies; no more are used than there are bands */
    SIZE_TAP_PARTS,           /* tasks that share a tile (SLOTS = 0) */
    SIZE_BAND,                /* dy rows at a time */
    SIZE_CALL_ROWS, SIZE_CALL_PIXELS, /* part of a band that stays in the first-level cache */
    SIZE_PATCH_ROWS, SIZE_PATCH_COLUMNS,
    SIZE_PATCH_PLANE, SIZE_DY_PLANE,  /* floats from block to block of the packed operands */
    SIZE_DY_OFFSET,           /* floats from packed x to packed dy, in scratch or the workspace */
    SIZE_SAMPLE,              /* floats of the workspace a sample (SLOTS = 0) */
    SIZE_SUM_OFFSET,          /* bytes in scratch of one tile */
    SIZE_TAPS_OFFSET,         /* bytes in scratch of the tap table */
};

/* Where each tap lies in the patch. */
static int64_t *list_taps(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t *taps =
        (int64_t *)(a->scratch + omp_get_thread_num() * a->scratch_bytes + s[SIZE_TAPS_OFFSET]);
    for (int64_t r = 0; r < s[SIZE_KERNEL]; r++) {
        for (int64_t c = 0; c < s[SIZE_KERNEL]; c++)
            taps[r * s[SIZE_KERNEL] + c] = (r * s[SIZE_PATCH_COLUMNS] + c) * s[SIZE_DILATION] * 16;
    }
    return taps;
}

/* Packs x under dy's rows row...; the first `kept` patch rows move from the band before. */
static void pack_x(const KernelArguments *a, int64_t n, int64_t cb, int64_t row, int64_t kept,
                   float *plane)
{
    const int64_t *s = a->sizes;
    const int64_t line = s[SIZE_PATCH_COLUMNS] * 16;
    if (kept > 0)
        memmove(plane, plane + (s[SIZE_PATCH_ROWS] - kept) * line, (size_t)(kept * line) * 4);
    conv_patch(a, read_x, n, cb, s[SIZE_H], s[SIZE_W],
               row * s[SIZE_STRIDE] - s[SIZE_PADDING] + kept, -s[SIZE_PADDING],
               s[SIZE_PATCH_ROWS] - kept, s[SIZE_PATCH_COLUMNS], plane + kept * line);
}

/* Adds to tap `tap`... of one tile what `rows` rows of packed x and dy give. */
static void add_tile(const KernelArguments *a, const int64_t *taps, int64_t tap, int64_t n_taps,
                     int64_t blocks, int64_t cb, const float *x, const float *dy, int64_t rows,
                     float *dw)
{
    const int64_t *s = a->sizes;
    ConvGradTile g = {.dw = dw + tap * s[SIZE_DEPTH] * blocks * 16,
                      .taps = taps + tap,
                      .n_taps = n_taps,
                      .channels = min64(16, s[SIZE_C] - cb * 16),
                      .depth = s[SIZE_DEPTH],
                      .blocks = blocks,
                      .x_row = s[SIZE_STRIDE] * s[SIZE_PATCH_COLUMNS] * 16,
                      .x_pixel = s[SIZE_STRIDE] * 16,
                      .dy_row = s[SIZE_Q] * 16,
                      .dy_block = s[SIZE_DY_PLANE],
                      .accumulate = true};
    for (int64_t row = 0; row < rows; row += s[SIZE_CALL_ROWS]) {
        g.rows = min64(s[SIZE_CALL_ROWS], rows - row);
        for (int64_t q = 0; q < s[SIZE_Q]; q += s[SIZE_CALL_PIXELS]) {
            g.pixels = min64(s[SIZE_CALL_PIXELS], s[SIZE_Q] - q);
            g.x = x + row * g.x_row + q * g.x_pixel;
            g.dy = dy + row * g.dy_row + q * 16;
            conv_grad_tiles(&g);
        }
    }
}

/* Input block at which a tile's range begins. */
static int64_t range_start(const int64_t *s, int64_t tile)
{
    const int64_t group = tile * s[SIZE_TILE] * 16 / (s[SIZE_K] / s[SIZE_GROUPS]);
    return group * (s[SIZE_C] / s[SIZE_GROUPS]) / 16;
}

static int64_t tile_blocks(const int64_t *s, int64_t tile)
{
    return min64(s[SIZE_TILE], (s[SIZE_K] + 15) / 16 - tile * s[SIZE_TILE]);
}

static int64_t tile_floats(const int64_t *s)
{
    return s[SIZE_KERNEL] * s[SIZE_KERNEL] * s[SIZE_DEPTH] * s[SIZE_TILE] * 16;
}

/* All taps of a full tile without groups: 16 outputs' results are 16 rows of 16 * taps floats. */
static void write_rows(const KernelArguments *a, int64_t tile, int64_t cb, const float *dw)
{
    const int64_t *s = a->sizes;
    const int64_t width = tile_blocks(s, tile) * 16, taps = s[SIZE_KERNEL] * s[SIZE_KERNEL];
    for (int64_t lane = 0; lane < width; lane += 16) {
        float *out = (float *)a->buffers[0]
                     + ((tile * s[SIZE_TILE] * 16 + lane) * s[SIZE_C] + cb * 16) * taps;
        for (int64_t i = 0; i < 16 * taps; i += 16) {
            const float *from[16];
            float *to[16];
            for (int64_t j = 0; j < 16; j++) {
                from[j] = dw + ((i + j) % taps * 16 + (i + j) / taps) * width + lane;
                to[j] = out + j * s[SIZE_C] * taps + i;
            }
            conv_transpose(from, to);
        }
    }
}

/* Writes taps tap... of a finished tile to the result. */
static void write_tile(const KernelArguments *a, int64_t tile, int64_t cb, int64_t tap,
                       int64_t n_taps, const float *dw)
{
    const int64_t *s = a->sizes;
    const int64_t K = s[SIZE_K] / s[SIZE_GROUPS], C = s[SIZE_C] / s[SIZE_GROUPS];
    const int64_t width = tile_blocks(s, tile) * 16, taps = s[SIZE_KERNEL] * s[SIZE_KERNEL];
    const int64_t first = tile * s[SIZE_TILE] * 16, end = min64(first + width, s[SIZE_K]);
    if (n_taps == taps && s[SIZE_GROUPS] == 1 && end == first + width && cb * 16 + 16 <= C) {
        write_rows(a, tile, cb, dw);
        return;
    }
    for (int64_t k = first; k < end; k++) {
        const int64_t start = k / K * C;
        const int64_t c_end = min64(min64(cb * 16 + 16, s[SIZE_C]), start + C);
        for (int64_t c = cb * 16 > start ? cb * 16 : start; c < c_end; c++) {
            float *to = (float *)a->buffers[0] + (k * C + c - start) * taps;
            const float *from = dw + (c - cb * 16) * width + (k - first);
            for (int64_t i = tap; i < tap + n_taps; i++)
                to[i] = from[i * s[SIZE_DEPTH] * width];
        }
    }
}

/* ---- small weights: a copy for each slot --------------------------------------------------- */

/* Packs band `row`... of sample n and adds its products to a copy of all tiles. */
static void add_band(const KernelArguments *a, const int64_t *taps, int64_t n, int64_t row,
                     int64_t kept, float *copy)
{
    const int64_t *s = a->sizes;
    const int64_t rows = min64(s[SIZE_BAND], s[SIZE_P] - row);
    const int64_t n_taps = s[SIZE_KERNEL] * s[SIZE_KERNEL];
    const int64_t blocks = (s[SIZE_K] + 15) / 16, x_blocks = (s[SIZE_C] + 15) / 16;
    float *x = (float *)(a->scratch + omp_get_thread_num() * a->scratch_bytes);
    float *dy = x + s[SIZE_DY_OFFSET];
    for (int64_t cb = 0; cb < x_blocks; cb++)
        pack_x(a, n, cb, row, kept, x + cb * s[SIZE_PATCH_PLANE]);
    for (int64_t kb = 0; kb < blocks; kb++)
        conv_patch(a, read_dy, n, kb, s[SIZE_P], s[SIZE_Q], row, 0, rows, s[SIZE_Q],
                   dy + kb * s[SIZE_DY_PLANE]);
    for (int64_t tile = 0; tile * s[SIZE_TILE] < blocks; tile++) {
        const int64_t start = range_start(s, tile);
        for (int64_t i = 0; i < s[SIZE_RANGE] && start + i < x_blocks; i++)
            add_tile(a, taps, 0, n_taps, tile_blocks(s, tile), start + i,
                     x + (start + i) * s[SIZE_PATCH_PLANE],
                     dy + tile * s[SIZE_TILE] * s[SIZE_DY_PLANE], rows,
                     copy + (tile * s[SIZE_RANGE] + i) * tile_floats(s));
    }
}

static int64_t bands_of(const int64_t *s)
{
    return (s[SIZE_P] + s[SIZE_BAND] - 1) / s[SIZE_BAND];
}

static int64_t slots_of(const KernelArguments *a)
{
    return min64(a->sizes[SIZE_SLOTS], bands_of(a->sizes) * a->batch);
}

static void fill_slot(const KernelArguments *a, int64_t slot, float *copy, int64_t copy_floats)
{
    const int64_t *s = a->sizes;
    const int64_t bands = bands_of(s), all = bands * a->batch, slots = slots_of(a);
    const int64_t first = slot * all / slots, end = (slot + 1) * all / slots;
    const int64_t overlap = s[SIZE_PATCH_ROWS] - s[SIZE_BAND] * s[SIZE_STRIDE];
    const int64_t *taps = list_taps(a);
    memset(copy, 0, (size_t)copy_floats * 4);
    for (int64_t i = first; i < end; i++) {
        const bool follows = i > first && i % bands > 0 && overlap > 0;
        add_band(a, taps, i / bands, i % bands * s[SIZE_BAND], follows ? overlap : 0, copy);
    }
}

/* Adds the slots' copies of one tile in order. */
static void add_copies(const KernelArguments *a, int64_t tile, int64_t cb, const float *copies,
                       int64_t copy_floats)
{
    const int64_t *s = a->sizes;
    v16 *sum = (v16 *)(a->scratch + omp_get_thread_num() * a->scratch_bytes + s[SIZE_SUM_OFFSET]);
    const int64_t vectors = tile_floats(s) / 16, slots = slots_of(a);
    memcpy(sum, copies, (size_t)vectors * 64);
    for (int64_t slot = 1; slot < slots; slot++) {
        const v16 *copy = (const v16 *)(copies + slot * copy_floats);
        for (int64_t i = 0; i < vectors; i++)
            sum[i] += copy[i];
    }
    write_tile(a, tile, cb, 0, s[SIZE_KERNEL] * s[SIZE_KERNEL], (const float *)sum);
}

static void with_slots(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t tiles = ((s[SIZE_K] + 15) / 16 + s[SIZE_TILE] - 1) / s[SIZE_TILE];
    const int64_t copy_floats = tiles * s[SIZE_RANGE] * tile_floats(s), slots = slots_of(a);
    float *copies = a->buffers[1];
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t slot = 0; slot < slots; slot++)
        fill_slot(a, slot, copies + slot * copy_floats, copy_floats);
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < tiles * s[SIZE_RANGE]; task++) {
        const int64_t tile = task / s[SIZE_RANGE], cb = range_start(s, tile) + task % s[SIZE_RANGE];
        if (cb * 16 < s[SIZE_C])
            add_copies(a, tile, cb, copies + task * tile_floats(s), copy_floats);
    }
}

/* ---- large weights: operands packed once --------------------------------------------------- */

static void pack_plane(const KernelArguments *a, int64_t n, int64_t block)
{
    const int64_t *s = a->sizes;
    const int64_t x_blocks = (s[SIZE_C] + 15) / 16;
    float *sample = (float *)a->buffers[1] + n * s[SIZE_SAMPLE];
    if (block < x_blocks)
        pack_x(a, n, block, 0, 0, sample + block * s[SIZE_PATCH_PLANE]);
    else
        conv_patch(a, read_dy, n, block - x_blocks, s[SIZE_P], s[SIZE_Q], 0, 0, s[SIZE_P],
                   s[SIZE_Q], sample + s[SIZE_DY_OFFSET] + (block - x_blocks) * s[SIZE_DY_PLANE]);
}

static void make_tile(const KernelArguments *a, int64_t tile, int64_t cb, int64_t tap_part)
{
    const int64_t *s = a->sizes;
    const int64_t all = s[SIZE_KERNEL] * s[SIZE_KERNEL];
    const int64_t tap = tap_part * all / s[SIZE_TAP_PARTS];
    const int64_t n_taps = (tap_part + 1) * all / s[SIZE_TAP_PARTS] - tap;
    const int64_t *taps = list_taps(a);
    float *sum =
        (float *)(a->scratch + omp_get_thread_num() * a->scratch_bytes + s[SIZE_SUM_OFFSET]);
    memset(sum, 0, (size_t)tile_floats(s) * 4);
    for (int64_t n = 0; n < a->batch; n++) {
        const float *sample = (const float *)a->buffers[1] + n * s[SIZE_SAMPLE];
        add_tile(a, taps, tap, n_taps, tile_blocks(s, tile), cb, sample + cb * s[SIZE_PATCH_PLANE],
                 sample + s[SIZE_DY_OFFSET] + tile * s[SIZE_TILE] * s[SIZE_DY_PLANE], s[SIZE_P],
                 sum);
    }
    write_tile(a, tile, cb, tap, n_taps, sum);
}

static void with_packed_operands(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    const int64_t blocks = (s[SIZE_K] + 15) / 16, planes = (s[SIZE_C] + 15) / 16 + blocks;
    const int64_t tiles = (blocks + s[SIZE_TILE] - 1) / s[SIZE_TILE];
    const int64_t parts = s[SIZE_TAP_PARTS], range = s[SIZE_RANGE];
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < a->batch * planes; task++)
        pack_plane(a, task / planes, task % planes);
    #pragma omp parallel for num_threads(a->threads) schedule(dynamic)
    for (int64_t task = 0; task < tiles * range * parts; task++) {
        const int64_t tile = task / parts / range, cb = range_start(s, tile) + task / parts % range;
        if (cb * 16 < s[SIZE_C])
            make_tile(a, tile, cb, task % parts);
    }
}

void KERNEL(const KernelArguments *a)
{
    if (a->sizes[SIZE_SLOTS] > 0)
        with_slots(a);
    else
        with_packed_operands(a);
}
