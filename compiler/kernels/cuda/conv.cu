/* Convolution, transposed convolution and the gradient of a convolution for its input: products of
 * small matrices over a patch of the input.
 *
 * Own buffers: packed weights (conv_pack.cu).  Reads read_x, writes write_y.
 *
 * One form covers all three, as on the host: the result's rows (and columns) fall into PHASES
 * classes, row p = PHASES * q + phase; the tap k of the window contributes to those phases for
 * which phase + SHIFT + SPREAD * k is a multiple of PHASES, and reads row STEP * q + that quotient
 * of x.
 *
 * A block does ROWS x 8 pixels q of one phase of one sample for TILE_K result channels. They are
 * one or more parts of the partial sums. Its channels of x come in chunks. Of each chunk the patch
 * of x that the window needs is read through read_x once, while the chunk before it is multiplied,
 * and serves all taps: a tap is a distance in the patch. Windows that are wide or leave gaps have a
 * patch for each tap instead (SIZE_TAPWISE). Weights come by asynchronous copies, one tap and chunk
 * (a slab) at a time, into a ring of STAGES.
 *
 * A patch consists of layers of 16 bytes a place, two a step of products: 8 neighbours are 128
 * bytes wherever they begin, as all ways to multiply want them, without conflicts of banks. With
 * STEP > 1 a layer is split into planes, one for each row and column modulo STEP, so that what
 * neighbouring results read is neighbouring as well.
 *
 * FEW_INPUTS: for up to 8 channels of x, where chunks would be mostly padding. The patch of all
 * taps is in shared memory from the beginning, in floats; what is multiplied are columns (tap,
 * channel) gathered from it, in this order: they take the place of the channels of a single tap.
 *
 * A warp has 16 pixels of every WARPS_M * 16, and all result channels. Groups of warps divide the
 * channels of a chunk, GROUPS_K of them. With WARP_GROUPS four warps multiply together where the
 * device can.
 * Defines: THREADS ROWS TILE_K CHUNK_STEPS STAGES GROUPS_K, perhaps WARP_GROUPS or FEW_INPUTS.
 */
#undef LEAST_BLOCKS
#define LEAST_BLOCKS 1
#if defined(WARP_GROUPS) && !defined(GROUP_PRODUCTS)
#undef WARP_GROUPS
#endif

enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PART_HEIGHT,      /* of a part's 8 columns, ROWS or a divisor of it */
    SIZE_PART_ROWS, SIZE_PART_COLUMNS, /* parts of a phase: below, and beside each other */
    SIZE_KERNEL, SIZE_STEP, SIZE_PHASES, SIZE_SHIFT, SIZE_SPREAD,
    SIZE_ORIGIN,           /* row and column of x at which the patch of q = 0 begins */
    SIZE_REACH,            /* rows and columns of x that a q needs */
    SIZE_TAPWISE,          /* a patch is of one tap, and begins at the tap's place */
    SIZE_STEPS,            /* of STEP_CHANNELS in the packed weights of a tap: whole chunks */
    SIZE_GROUP_STEPS,      /* of all taps */
};

enum {
#ifdef PRECISION_BF16
    STEP_CHANNELS = 16,    /* channels of x that are multiplied at a time: 32 bytes */
#else
    STEP_CHANNELS = 8,
#endif
    PIXELS = ROWS * 8,
    CHUNK = CHUNK_STEPS * STEP_CHANNELS,
    CHUNK_BLOCKS = CHUNK / 8,
    UNIT_LAYERS = STEP_CHANNELS == 16 ? 1 : 2, /* of 8 channels */
    UNITS = 3 - UNIT_LAYERS,                   /* that a thread reads at a time */
    GROUPS = TILE_K / 16,  /* of 16 result channels */
    SLAB = CHUNK_STEPS * GROUPS * 512,
    PIECES = SLAB / 16,    /* that are copied */
    THREAD_PIECES = (PIECES + THREADS - 1) / THREADS,
    PATCHES = STAGES * SLAB,                   /* bytes before the two patches */
    WARPS_M = THREADS / 32 / GROUPS_K,
    M_TILES = PIXELS / 16 / WARPS_M,      /* of a warp: 16 pixels each */
    WARP_STEPS = CHUNK_STEPS / GROUPS_K,
    RESULT_PITCH = TILE_K * 4 + 32,
    LANES = TILE_K / 8,
};

/* What a block does, and where its tables lie. */
typedef struct {
    int n, first_cb;
    int row_phase, column_phase;
    int row, column;       /* the first q */
    int taps;              /* that contribute to the phase */
    int planes, plane_rows, plane_columns;
    int places;            /* of a patch: planes in both dimensions, their rows and columns */
    unsigned layer;        /* bytes: odd multiples of 32, so that layers begin in different banks */
    unsigned taps_at, places_at, x_at;
} Block;

/* What is multiplied next, or copied, or read. */
typedef struct { int tap, chunk; } Cursor;

/* A tap of the block's phase. */
typedef struct {
    unsigned place;        /* byte in the patch */
    int weights;           /* its number in the window */
    int row, column;       /* in x, of its patch from the block's */
} Tap;

/* 8 channels of a place, on their way into a patch. */
typedef struct {
    Fetched<words_of_x> x;
    int h, w;              /* in x; h < 0: outside */
} Unit;

/* A slice of a patch: the units from this thread's next to before `end`. */
typedef struct {
    int chunk;
    int top, left;         /* in x, of the patch's first place */
    int next, end;
    unsigned at;           /* byte of the patch */
} Slice;

/* A warp's share of the result, as the products leave it. */
typedef struct { float sums[M_TILES][TILE_K / 8][4]; } Share;

/* How many of the first `end` rows (or columns) of the window contribute to a phase. */
DEVICE int count_taps(const Arguments *a, int phase, int end)
{
    int phases = a->sizes[SIZE_PHASES], n = 0;
    if (phases == 1)
        return end;
    ROLLED for (int k = 0; k < end; k++)
        n += (phase + a->sizes[SIZE_SHIFT] + a->sizes[SIZE_SPREAD] * k) % phases == 0;
    return n;
}

DEVICE Block this_block(const Arguments *a)
{
    const int *s = a->sizes;
    int phases = s[SIZE_PHASES], tiles_of_k = divide_up(s[SIZE_K], TILE_K), i = block_index();
    int columns = s[SIZE_PART_COLUMNS];
    int rows = divide_up(s[SIZE_PART_ROWS] * s[SIZE_PART_HEIGHT], ROWS);
    Block block;
    block.first_cb = i % tiles_of_k * LANES;
    i /= tiles_of_k;
    block.column_phase = i % phases;
    i /= phases;
    block.row_phase = i % phases;
    i /= phases;
    block.column = i % columns * 8;
    block.row = i / columns % rows * ROWS;
    block.n = i / columns / rows;
#ifdef FEW_INPUTS
    block.taps = 1;
#else
    block.taps = count_taps(a, block.row_phase, s[SIZE_KERNEL])
               * count_taps(a, block.column_phase, s[SIZE_KERNEL]);
#endif
    int step = s[SIZE_STEP], reach = s[SIZE_TAPWISE] ? 1 : s[SIZE_REACH];
    block.planes = least(step, reach);
    block.plane_rows = ROWS + (reach - 1) / step;
    block.plane_columns = 8 + (reach - 1) / step;
    block.places = block.planes * block.planes * block.plane_rows * block.plane_columns;
    block.layer = ((unsigned)block.places + 5) / 8 * 128 + 32;
    block.taps_at = PATCHES + block.layer * (CHUNK_STEPS * 4);
    block.places_at = block.taps_at + (unsigned)block.taps * 16;
    block.x_at = block.places_at + (unsigned)(s[SIZE_STEPS] * STEP_CHANNELS) * 4;
    return block;
}

/* Does tap r, c of the window contribute to the block's phase, and to which place in x from q's? */
DEVICE bool tap_place(const Arguments *a, const Block *block, int r, int c, int *row, int *column)
{
    const int *s = a->sizes;
    int phases = s[SIZE_PHASES];
    int y = block->row_phase + s[SIZE_SHIFT] + s[SIZE_SPREAD] * r;
    int x = block->column_phase + s[SIZE_SHIFT] + s[SIZE_SPREAD] * c;
    *row = y / phases;
    *column = x / phases;
    return y % phases == 0 && x % phases == 0;
}

DEVICE void put_tap(const Block *block, int n, unsigned place, int weights, int row, int column)
{
    word4 words = { place, (unsigned)weights, (unsigned)row, (unsigned)column };
    store_shared(block->taps_at + (unsigned)n * 16, words);
}

DEVICE Tap load_tap(const Block *block, int tap)
{
    word4 words = load_shared<word4>(block->taps_at + (unsigned)tap * 16);
    Tap result = { words.x, (int)words.y, (int)words.z, (int)words.w };
    return result;
}

#ifdef FEW_INPUTS

/* Columns of the patch in floats. */
DEVICE int x_columns(const Arguments *a)
{
    return 7 * a->sizes[SIZE_STEP] + a->sizes[SIZE_REACH];
}

/* The only tap, and the byte behind a pixel's first at which each column's factor lies. */
DEVICE void list_places(const Arguments *a, const Block *block)
{
    const int *s = a->sizes;
    int kernel = s[SIZE_KERNEL], channels = s[SIZE_C];
    if (thread_index() == 0)
        put_tap(block, 0, 0, 0, 0, 0);
    ROLLED for (int i = thread_index(); i < s[SIZE_STEPS] * STEP_CHANNELS; i += THREADS) {
        int tap = i / channels, row, column, at = -1;
        if (tap < kernel * kernel
            && tap_place(a, block, tap / kernel, tap % kernel, &row, &column))
            at = (((row - s[SIZE_ORIGIN]) * x_columns(a) + column - s[SIZE_ORIGIN]) * channels
                  + i % channels) * 4;
        store_shared(block->places_at + (unsigned)i * 4, at);
    }
}

/* The patch in floats: x where it is, zeros around it. */
DEVICE void read_floats(const Arguments *a, const Block *block)
{
    const int *s = a->sizes;
    int top = block->row * s[SIZE_STEP] + s[SIZE_ORIGIN];
    int left = block->column * s[SIZE_STEP] + s[SIZE_ORIGIN];
    int columns = x_columns(a);
    int places = ((ROWS - 1) * s[SIZE_STEP] + s[SIZE_REACH]) * columns;
    ROLLED for (int place = thread_index(); place < places; place += THREADS) {
        int h = top + place / columns, w = left + place % columns;
        v8 value = splat8(0);
        if (h >= 0 && h < s[SIZE_H] && w >= 0 && w < s[SIZE_W])
            value = read_x(a, block->n, 0, h, w);
        EACH_LANE {
            if (i < s[SIZE_C])
                store_shared(block->x_at + (unsigned)(place * s[SIZE_C] + i) * 4, value.lane[i]);
        }
    }
}

DEVICE void fetch_unit(const Arguments *, const Block *, const Slice *, int, Unit *) {}

/* The factors in 8 columns of a pixel. */
DEVICE v8 unit_value(const Arguments *a, const Block *block, const Slice *slice, int unit,
                     const Unit *)
{
    const int *s = a->sizes;
    int pixel = unit / CHUNK_BLOCKS, column = slice->chunk * CHUNK + unit % CHUNK_BLOCKS * 8;
    int place = (pixel / 8 * x_columns(a) + pixel % 8) * s[SIZE_STEP];
    unsigned at = block->x_at + (unsigned)(place * s[SIZE_C] * 4);
    v8 value;
    EACH_LANE {
        int more = load_shared<int>(block->places_at + (unsigned)(column + i) * 4);
        value.lane[i] = more < 0 ? 0.0f : load_shared<float>(at + (unsigned)more);
    }
    return value;
}

#else

/* The taps of the block's phase, and row and column of x of each place of a patch, from its
 * first. */
DEVICE void list_places(const Arguments *a, const Block *block)
{
    const int *s = a->sizes;
    int kernel = s[SIZE_KERNEL], step = s[SIZE_STEP];
    int rows_each = block->plane_rows, columns_each = block->plane_columns;
    int columns = count_taps(a, block->column_phase, kernel);
    ROLLED for (int k = thread_index(); k < kernel * kernel; k += THREADS) {
        int row, column;
        if (!tap_place(a, block, k / kernel, k % kernel, &row, &column))
            continue;
        int n = count_taps(a, block->row_phase, k / kernel) * columns
              + count_taps(a, block->column_phase, k % kernel);
        if (s[SIZE_TAPWISE]) {
            put_tap(block, n, 0, k, row, column);
            continue;
        }
        row -= s[SIZE_ORIGIN];
        column -= s[SIZE_ORIGIN];
        int plane = row % step * block->planes + column % step;
        int place = (plane * rows_each + row / step) * columns_each + column / step;
        put_tap(block, n, (unsigned)place * 16, k, s[SIZE_ORIGIN], s[SIZE_ORIGIN]);
    }
    ROLLED for (int i = thread_index(); i < block->places; i += THREADS) {
        int column = i % columns_each, row = i / columns_each % rows_each;
        int plane = i / columns_each / rows_each;
        row = row * step + plane / block->planes;
        column = column * step + plane % block->planes;
        store_shared(block->places_at + (unsigned)i * 4, row << 16 | column);
    }
}

DEVICE void fetch_unit(const Arguments *a, const Block *block, const Slice *slice, int unit,
                       Unit *to)
{
    const int *s = a->sizes;
    int place = load_shared<int>(block->places_at + (unsigned)(unit / CHUNK_BLOCKS) * 4);
    int cb = slice->chunk * CHUNK_BLOCKS + unit % CHUNK_BLOCKS;
    to->h = slice->top + (place >> 16);
    to->w = slice->left + (place & 0xffff);
    if (to->h >= s[SIZE_H] || to->w < 0 || to->w >= s[SIZE_W] || cb >= channel_blocks(s[SIZE_C]))
        to->h = -1;
    Fetch<words_of_x> fetch = { &to->x };
    if (to->h >= 0)
        read_x(a, block->n, cb, to->h, to->w, fetch);
}

DEVICE v8 unit_value(const Arguments *a, const Block *block, const Slice *slice, int unit,
                     const Unit *from)
{
    int cb = slice->chunk * CHUNK_BLOCKS + unit % CHUNK_BLOCKS;
    if (from->h < 0)
        return splat8(0);
    return read_x(a, block->n, cb, from->h, from->w, from->x);
}

#endif

/* ---- what comes into shared memory ----------------------------------------------------------- */

/* Where a thread's pieces of a slab come from, in 16-byte words behind the tap's and chunk's, and
 * where they go. The packed weights are [16 result channels][tap][step][512 bytes], a slab is
 * [step][16 result channels][512 bytes]; for plain products [channel][result channel]. */
DEVICE int64_t piece_from(const Arguments *a, const Block *block, int piece)
{
    const int *s = a->sizes;
    int group = block->first_cb / 2 + piece / 32 % GROUPS;
    int last = divide_up(s[SIZE_K], 16) - 1;
    return ((int64_t)least(group, last) * s[SIZE_GROUP_STEPS] + piece / 32 / GROUPS) * 32
         + piece % 32;
}

DEVICE unsigned piece_to(int piece)
{
#ifdef PRECISION_FP32
    int channel = piece / 32 / GROUPS * 8 + piece % 32 / 4;
    return (unsigned)(channel * TILE_K + piece / 32 % GROUPS * 16 + piece % 4 * 4) * 4;
#else
    return (unsigned)piece * 16;
#endif
}

DEVICE void copy_slab(const Arguments *a, const Block *block, const int64_t from[THREAD_PIECES],
                      Cursor cursor, unsigned at)
{
    int step = load_tap(block, cursor.tap).weights * a->sizes[SIZE_STEPS]
             + cursor.chunk * CHUNK_STEPS;
    UNROLL for (int i = 0; i < THREAD_PIECES; i++) {
        int piece = i * THREADS + thread_index();
        if (PIECES % THREADS == 0 || piece < PIECES)
            copy_async(at + piece_to(piece),
                       (const word4 *)a->buffers[0] + from[i] + (int64_t)step * 32, true);
    }
}

DEVICE Slice slice_of(const Arguments *a, const Block *block, Cursor cursor, int first, int end,
                      unsigned at)
{
    Tap tap = load_tap(block, cursor.tap);
    Slice slice = { cursor.chunk, block->row * a->sizes[SIZE_STEP] + tap.row,
                    block->column * a->sizes[SIZE_STEP] + tap.column, first + thread_index(), end,
                    at };
    return slice;
}

/* The slice's next UNITS units of each thread. */
DEVICE void fetch_units(const Arguments *a, const Block *block, const Slice *slice,
                        Unit units[UNITS])
{
    UNROLL for (int i = 0; i < UNITS; i++)
        if (slice->next + i * THREADS < slice->end)
            fetch_unit(a, block, slice, slice->next + i * THREADS, &units[i]);
}

/* As operands into the patch. */
DEVICE void put_unit(const Block *block, const Slice *slice, int unit, v8 value)
{
    unsigned at = slice->at + (unsigned)(unit / CHUNK_BLOCKS) * 16
                + (unsigned)(unit % CHUNK_BLOCKS * UNIT_LAYERS) * block->layer;
#ifdef PRECISION_BF16
    store_shared(at, bf16_words(value));
#else
#ifdef PRECISION_TF32
    EACH_LANE value.lane[i] = bits_float(round_tf32(value.lane[i]));
#endif
    store_shared(at, floats_words(value, 0));
    store_shared(at + block->layer, floats_words(value, 1));
#endif
}

DEVICE void put_units(const Arguments *a, const Block *block, Slice *slice,
                      const Unit units[UNITS])
{
    UNROLL for (int i = 0; i < UNITS; i++) {
        int unit = slice->next + i * THREADS;
        if (unit < slice->end)
            put_unit(block, slice, unit, unit_value(a, block, slice, unit, &units[i]));
    }
    slice->next += UNITS * THREADS;
}

/* ---- products -------------------------------------------------------------------------------- */

/* What a thread multiplies: bytes from the beginning of a slab, and of a patch from the place that
 * the tap has for the block's first pixel; from there a row further, and a layer. */
typedef struct { unsigned weights, x, row, layer; } Operands;

DEVICE Operands operands_of_thread(const Block *block)
{
    int lane = thread_index() % 32, warp = thread_index() / 32, group = warp / WARPS_M;
    unsigned row = (unsigned)block->plane_columns * 16;
    unsigned x = (unsigned)(group * WARP_STEPS * 2) * block->layer;
    unsigned weights = (unsigned)(group * WARP_STEPS * GROUPS * 512);
#if defined(PRECISION_FP32)
    x += (unsigned)(warp % WARPS_M * 2) * row + (unsigned)(lane / 4) * 16;
    weights += (unsigned)(lane % 4) * 16;
#elif defined(WARP_GROUPS)
    x += (unsigned)(warp % WARPS_M / 4 * 8) * row;
#else
    x += (unsigned)(warp % WARPS_M * 2 + lane / 8 % 2) * row + (unsigned)(lane % 8) * 16
       + (unsigned)(lane / 16) * block->layer;
    weights += (unsigned)lane * 16;
#endif
    Operands operands = { weights, x, row, block->layer };
    return operands;
}

#if defined(PRECISION_FP32)

/* A lane has the pixels i and i + 8, i = lane / 4, of 16, and the result channels 4 j to 4 j + 3,
 * j = lane % 4, of 16: sums[m][n] are of pixel i + n % 2 * 8 and channels n / 2 * 16 + 4 j. */
DEVICE void multiply(Share *share, const Operands *at)
{
    ROLLED for (int c = 0; c < WARP_STEPS * 8; c += 4) {
        word4 x[M_TILES][2];
        UNROLL for (int m = 0; m < 2 * M_TILES; m++)
            x[m / 2][m % 2] = load_shared<word4>(
                at->x + (unsigned)(m / 2 * WARPS_M * 2 + m % 2) * at->row
                + (unsigned)(c / 4) * at->layer);
        UNROLL for (int k = 0; k < 4; k++) {
            UNROLL for (int n = 0; n < TILE_K / 8; n++) {
                word4 w = load_shared<word4>(at->weights
                                             + (unsigned)((c + k) * TILE_K + n / 2 * 16) * 4);
                UNROLL for (int m = 0; m < M_TILES; m++) {
                    float *sums = share->sums[m][n];
                    const word4 *four = &x[m][n % 2];
                    float value = bits_float(k == 0 ? four->x : k == 1 ? four->y
                                           : k == 2 ? four->z : four->w);
                    sums[0] += value * bits_float(w.x);
                    sums[1] += value * bits_float(w.y);
                    sums[2] += value * bits_float(w.z);
                    sums[3] += value * bits_float(w.w);
                }
            }
        }
    }
}

#elif defined(WARP_GROUPS)

/* Begins the products: they are done after group_wait. */
DEVICE void multiply(Share *share, const Operands *at)
{
    group_fence();
    UNROLL for (int step = 0; step < WARP_STEPS; step++) {
        uint64_t w = group_operand(at->weights + (unsigned)(step * GROUPS * 512), 128, 256);
        UNROLL for (int m = 0; m < M_TILES; m++) {
            uint64_t x = group_operand(at->x + (unsigned)(step * 2) * at->layer
                                       + (unsigned)(m * WARPS_M * 2) * at->row, at->layer, at->row);
#ifdef PRECISION_BF16
            group_multiply_bf16<TILE_K>(share->sums[m], x, w);
#else
            group_multiply_tf32<TILE_K>(share->sums[m], x, w);
#endif
        }
    }
    group_commit();
}

#else

DEVICE void multiply(Share *share, const Operands *at)
{
    UNROLL for (int step = 0; step < WARP_STEPS; step++) {
        unsigned x[M_TILES][4], w[GROUPS][4];
        UNROLL for (int m = 0; m < M_TILES; m++)
            load_matrices(x[m], at->x + (unsigned)(step * 2) * at->layer
                                + (unsigned)(m * WARPS_M * 2) * at->row);
        UNROLL for (int n = 0; n < GROUPS; n++)
            load_matrices(w[n], at->weights + (unsigned)((step * GROUPS + n) * 512));
        UNROLL for (int m = 0; m < M_TILES; m++) {
            UNROLL for (int n = 0; n < TILE_K / 8; n++) {
#ifdef PRECISION_BF16
                multiply_bf16(share->sums[m][n], x[m], w[n / 2] + n % 2 * 2);
#else
                multiply_tf32(share->sums[m][n], x[m], w[n / 2] + n % 2 * 2);
#endif
            }
        }
    }
}

#endif

DEVICE void advance(Cursor *cursor, int taps)
{
    if (++cursor->tap == taps) {
        cursor->tap = 0;
        cursor->chunk++;
    }
}

/* Reads a slice, and multiplies meanwhile. In one loop, though only the first turn multiplies: what
 * read_x has become is then in the kernel once. */
DEVICE void read_slice(const Arguments *a, const Block *block, Slice *slice, bool multiplies,
                       Share *share, const Operands *operands)
{
    do {
        Unit units[UNITS];
        fetch_units(a, block, slice, units);
        if (multiplies)
            multiply(share, operands);
        multiplies = false;
        put_units(a, block, slice, units);
    } while (slice->next < slice->end);
}

/* The block's sums of products, divided over its warps. The first turn, before any chunk, only
 * reads. */
DEVICE void convolve(const Arguments *a, const Block *block, Share *share)
{
    const int *s = a->sizes;
    int chunks = s[SIZE_STEPS] / CHUNK_STEPS, units = block->places * CHUNK_BLOCKS;
    int slice = s[SIZE_TAPWISE] ? units : divide_up(units, block->taps);
    unsigned patch_bytes = block->layer * (CHUNK_STEPS * 2), patch = PATCHES;
    const Operands first_operands = operands_of_thread(block);
    int64_t from[THREAD_PIECES];
    UNROLL for (int i = 0; i < THREAD_PIECES; i++)
        from[i] = piece_from(a, block, i * THREADS + thread_index());

    Cursor now = { 0, 0 }, next = now, copied = now;
    int stage = 0;
    ROLLED for (int i = 0; i < STAGES - 1; i++) {
        if (copied.chunk < chunks)
            copy_slab(a, block, from, copied, (unsigned)i * SLAB);
        copy_commit();
        advance(&copied, block->taps);
    }
    Slice more = slice_of(a, block, now, 0, units, patch);
    Operands operands = first_operands;
    for (bool multiplies = false;; multiplies = true) {
        read_slice(a, block, &more, multiplies, share, &operands);
        if (multiplies) {
#ifdef WARP_GROUPS
            group_wait();
#endif
            if (s[SIZE_TAPWISE] || next.tap == 0)
                patch = PATCHES + (PATCHES + patch_bytes - patch);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
            now = next;
        }
        if (now.chunk == chunks)
            return;
        copy_wait<STAGES - 2>();
#ifdef WARP_GROUPS
        group_fence_shared();
#endif
        barrier();
        if (copied.chunk < chunks)
            copy_slab(a, block, from, copied, (unsigned)(stage ? stage - 1 : STAGES - 1) * SLAB);
        copy_commit();
        advance(&copied, block->taps);

        advance(&next, block->taps);
        Cursor wanted = { s[SIZE_TAPWISE] ? next.tap : 0,
                          s[SIZE_TAPWISE] ? next.chunk : now.chunk + 1 };
        int first = s[SIZE_TAPWISE] ? 0 : now.tap * slice;
        int end = wanted.chunk < chunks ? least(first + slice, units) : first;
        more = slice_of(a, block, wanted, first, end, PATCHES + (PATCHES + patch_bytes - patch));
        operands = first_operands;
        operands.x += patch + load_tap(block, now.tap).place;
        operands.weights += (unsigned)stage * SLAB;
    }
}

/* ---- the result ------------------------------------------------------------------------------ */

/* Byte of a pixel's channel in shared memory. The halves of 8 channels change places in every other
 * 4 of them, so that 8 threads read from different banks. */
DEVICE unsigned result_at(int pixel, int channel)
{
    int half = channel / 4 % 2 ^ channel / 32 % 2;
    return (unsigned)(pixel * RESULT_PITCH + channel / 8 * 32 + half * 16 + channel % 4 * 4);
}

DEVICE void put_share(const Share *share)
{
    int lane = thread_index() % 32, warp = thread_index() / 32;
    unsigned at = (unsigned)(warp / WARPS_M * PIXELS * RESULT_PITCH);
    UNROLL for (int m = 0; m < M_TILES; m++) {
        int pixel = (m * WARPS_M + warp % WARPS_M) * 16 + lane / 4;
        UNROLL for (int n = 0; n < TILE_K / 8; n++) {
            const float *sums = share->sums[m][n];
#ifdef PRECISION_FP32
            word4 four = { float_bits(sums[0]), float_bits(sums[1]), float_bits(sums[2]),
                           float_bits(sums[3]) };
            store_shared(at + result_at(pixel + n % 2 * 8, n / 2 * 16 + lane % 4 * 4), four);
#else
            word2 low = { float_bits(sums[0]), float_bits(sums[1]) };
            word2 high = { float_bits(sums[2]), float_bits(sums[3]) };
            store_shared(at + result_at(pixel, n * 8 + lane % 4 * 2), low);
            store_shared(at + result_at(pixel + 8, n * 8 + lane % 4 * 2), high);
#endif
        }
    }
}

DEVICE v8 result_of(int pixel, int cb)
{
    v8 value = splat8(0);
    UNROLL for (int k = 0; k < GROUPS_K; k++) {
        unsigned at = (unsigned)(k * PIXELS * RESULT_PITCH);
        v8 part = words_floats(load_shared<word4>(at + result_at(pixel, cb * 8)),
                               load_shared<word4>(at + result_at(pixel, cb * 8 + 4)));
        value = k ? value + part : part;
    }
    return value;
}

/* The part whose first row is the block's `first`. */
DEVICE void write_part(const Arguments *a, const Block *block, int first)
{
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), phases = s[SIZE_PHASES];
    int height = s[SIZE_PART_HEIGHT];
    int lane = thread_index() % LANES, cb = block->first_cb + lane;
    Accumulators sums;
    clear_y(&sums);
    if (cb < blocks) {
        int end = (first + height) * 8;
        for (int i = first * 8 + thread_index() / LANES; i < end; i += THREADS / LANES) {
            int p = (block->row + i / 8) * phases + block->row_phase;
            int q = (block->column + i % 8) * phases + block->column_phase;
            if (p < s[SIZE_P] && q < s[SIZE_Q])
                write_y(a, block->n, cb, p, q, result_of(i, lane), &sums);
        }
    }
    int row = (block->row + first) / height, column = block->column / 8;
    int part = ((row * s[SIZE_PART_COLUMNS] + column) * phases + block->row_phase) * phases
             + block->column_phase;
    finish_block(a, block->n, part, cb, blocks, LANES, &sums,
                 height < ROWS ? GROUPS_K * PIXELS * RESULT_PITCH : 0);
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    Block block = this_block(a);
    list_places(a, &block);
#ifdef FEW_INPUTS
    read_floats(a, &block);
#endif
    Share share;
    UNROLL for (int m = 0; m < M_TILES; m++)
        UNROLL for (int n = 0; n < TILE_K / 8; n++)
            UNROLL for (int i = 0; i < 4; i++)
                share.sums[m][n][i] = 0;
    barrier();
    if (block.taps > 0)
        convolve(a, &block, &share);
    barrier();
    put_share(&share);
    barrier();
    int end = least(ROWS, s[SIZE_PART_ROWS] * s[SIZE_PART_HEIGHT] - block.row);
    ROLLED for (int first = 0; first < end; first += s[SIZE_PART_HEIGHT])
        write_part(a, &block, first);
}
