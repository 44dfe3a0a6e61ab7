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
 * A block does TILE_H x TILE_W pixels q of one phase of one sample for TILE_K result channels. They
 * are PARTS_H x PARTS_W parts of the partial sums. Its channels of x come in chunks. Of each chunk
 * the patch of x that the window needs is read through read_x once, while the chunk before it is
 * multiplied, and serves all taps: a tap is a distance in the patch. Windows that are wide or leave
 * gaps have a patch for each tap instead (SIZE_TAPWISE). Weights come by asynchronous copies, one
 * tap and chunk (a slab) at a time, into a ring of STAGES.
 *
 * A patch has PITCH bytes a place, an odd multiple of 16: eight neighbours lie in different banks.
 * With STEP > 1 it is split into planes, one for each row and column modulo STEP, so that what
 * neighbouring results read is neighbouring as well.
 *
 * FEW_INPUTS: for up to 8 channels of x, where chunks would be mostly padding. The patch of all
 * taps is in shared memory from the beginning, in floats; what is multiplied are columns (tap,
 * channel) gathered from it, in this order: they take the place of the channels of a single tap.
 *
 * Warps divide the pixels, the result channels and, where WARPS_K > 1, the channels of a chunk.
 * Defines: THREADS TILE_H TILE_W PARTS_H PARTS_W TILE_K CHUNK_STEPS STAGES WARPS_M WARPS_N WARPS_K.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_PART_ROWS, SIZE_PART_COLUMNS, /* parts of a phase below and beside each other */
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
    TILE_PIXELS = TILE_H * TILE_W,
    CHUNK = CHUNK_STEPS * STEP_CHANNELS,
    CHUNK_BLOCKS = CHUNK / 8,
    UNIT_WORDS = STEP_CHANNELS == 16 ? 1 : 2,  /* 16-byte words of 8 channels of a place */
    UNITS = 2,             /* that a thread reads at a time */
    PITCH = CHUNK_STEPS * 32 + 16,
    GROUPS = TILE_K / 16,  /* of 16 result channels */
    SLAB = CHUNK_STEPS * GROUPS * 512,
    PIECES = SLAB / 16,    /* that are copied */
    THREAD_PIECES = (PIECES + THREADS - 1) / THREADS,
    PATCHES = STAGES * SLAB,                   /* bytes before the two patches */
    M_TILES = TILE_PIXELS / 16 / WARPS_M,      /* of a warp: 16 pixels each */
    N_PAIRS = GROUPS / WARPS_N,                /* 16 result channels each */
    WARP_STEPS = CHUNK_STEPS / WARPS_K,
    RESULT_PITCH = TILE_K * 4 + 32,
    LANES = TILE_K / 8,
    PART_H = TILE_H / PARTS_H,
    PART_W = TILE_W / PARTS_W,
    MERGE_OFFSET = PARTS_H * PARTS_W > 1 ? WARPS_K * TILE_PIXELS * RESULT_PITCH : 0,
};

/* What a block does, and where its tables lie. */
typedef struct {
    int n, first_cb;
    int row_phase, column_phase;
    int row, column;       /* the first q */
    int taps;              /* that contribute to the phase */
    int planes, plane_rows, plane_columns;
    int places;            /* of a patch: planes in both dimensions, their rows and columns */
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

typedef struct { word4 words[UNIT_WORDS]; } Unit;

/* A warp's share of the result, as the products leave it. */
typedef struct { float sums[M_TILES][2 * N_PAIRS][4]; } Share;

/* How many of the first `end` rows (or columns) of the window contribute to a phase. */
DEVICE int count_taps(const Arguments *a, int phase, int end)
{
    int phases = a->sizes[SIZE_PHASES], n = 0;
    if (phases == 1)
        return end;
    for (int k = 0; k < end; k++)
        n += (phase + a->sizes[SIZE_SHIFT] + a->sizes[SIZE_SPREAD] * k) % phases == 0;
    return n;
}

DEVICE Block this_block(const Arguments *a)
{
    const int *s = a->sizes;
    int phases = s[SIZE_PHASES], tiles_of_k = divide_up(s[SIZE_K], TILE_K), i = block_index();
    int rows = divide_up(s[SIZE_PART_ROWS], PARTS_H);
    int columns = divide_up(s[SIZE_PART_COLUMNS], PARTS_W);
    Block block;
    block.first_cb = i % tiles_of_k * LANES;
    i /= tiles_of_k;
    block.column_phase = i % phases;
    i /= phases;
    block.row_phase = i % phases;
    i /= phases;
    block.column = i % columns * TILE_W;
    block.row = i / columns % rows * TILE_H;
    block.n = i / columns / rows;
#ifdef FEW_INPUTS
    block.taps = 1;
#else
    block.taps = count_taps(a, block.row_phase, s[SIZE_KERNEL])
               * count_taps(a, block.column_phase, s[SIZE_KERNEL]);
#endif
    int step = s[SIZE_STEP], reach = s[SIZE_TAPWISE] ? 1 : s[SIZE_REACH];
    block.planes = least(step, reach);
    block.plane_rows = TILE_H + (reach - 1) / step;
    block.plane_columns = TILE_W + (reach - 1) / step;
    block.places = block.planes * block.planes * block.plane_rows * block.plane_columns;
    block.taps_at = PATCHES + (unsigned)block.places * (2 * PITCH);
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
    return (TILE_W - 1) * a->sizes[SIZE_STEP] + a->sizes[SIZE_REACH];
}

/* The only tap, and the byte behind a pixel's first at which each column's factor lies. */
DEVICE void list_places(const Arguments *a, const Block *block)
{
    const int *s = a->sizes;
    int kernel = s[SIZE_KERNEL], channels = s[SIZE_C];
    if (thread_index() == 0)
        put_tap(block, 0, 0, 0, 0, 0);
    for (int i = thread_index(); i < s[SIZE_STEPS] * STEP_CHANNELS; i += THREADS) {
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
    int places = ((TILE_H - 1) * s[SIZE_STEP] + s[SIZE_REACH]) * columns;
    for (int place = thread_index(); place < places; place += THREADS) {
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

/* The factors in 8 columns of a pixel. */
DEVICE v8 unit_value(const Arguments *a, const Block *block, int unit, Cursor cursor, int, int)
{
    const int *s = a->sizes;
    int pixel = unit / CHUNK_BLOCKS, column = cursor.chunk * CHUNK + unit % CHUNK_BLOCKS * 8;
    int place = (pixel / TILE_W * x_columns(a) + pixel % TILE_W) * s[SIZE_STEP];
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
    for (int k = thread_index(); k < kernel * kernel; k += THREADS) {
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
        put_tap(block, n, (unsigned)(place * PITCH), k, s[SIZE_ORIGIN], s[SIZE_ORIGIN]);
    }
    for (int i = thread_index(); i < block->places; i += THREADS) {
        int column = i % columns_each, row = i / columns_each % rows_each;
        int plane = i / columns_each / rows_each;
        row = row * step + plane / block->planes;
        column = column * step + plane % block->planes;
        store_shared(block->places_at + (unsigned)i * 4, row << 16 | column);
    }
}

/* 8 channels of a place; `top` and `left` are the place in x of the patch's first. */
DEVICE v8 unit_value(const Arguments *a, const Block *block, int unit, Cursor cursor, int top,
                     int left)
{
    const int *s = a->sizes;
    int place = load_shared<int>(block->places_at + (unsigned)(unit / CHUNK_BLOCKS) * 4);
    int h = top + (place >> 16), w = left + (place & 0xffff);
    int cb = cursor.chunk * CHUNK_BLOCKS + unit % CHUNK_BLOCKS;
    if (h < 0 || h >= s[SIZE_H] || w < 0 || w >= s[SIZE_W] || cb >= channel_blocks(s[SIZE_C]))
        return splat8(0);
    return read_x(a, block->n, cb, h, w);
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

/* As operands of the products. */
DEVICE Unit unit_of(v8 value)
{
    Unit unit;
#if defined(PRECISION_BF16)
    unit.words[0] = bf16_words(value);
#else
#ifdef PRECISION_TF32
    EACH_LANE value.lane[i] = bits_float(round_tf32(value.lane[i]));
#endif
    unit.words[0] = floats_words(value, 0);
    unit.words[1] = floats_words(value, 1);
#endif
    return unit;
}

DEVICE void put_unit(unsigned patch, int unit, const Unit *value)
{
    unsigned at = patch + (unsigned)(unit / CHUNK_BLOCKS * PITCH
                                     + unit % CHUNK_BLOCKS * UNIT_WORDS * 16);
    UNROLL for (int i = 0; i < UNIT_WORDS; i++)
        store_shared(at + (unsigned)i * 16, value->words[i]);
}

/* The units from `first` to before `end` of the patch that the cursor needs. */
DEVICE void read_patch(const Arguments *a, const Block *block, Cursor cursor, int first, int end,
                       unsigned patch)
{
    const int *s = a->sizes;
    Tap tap = load_tap(block, cursor.tap);
    int top = block->row * s[SIZE_STEP] + tap.row;
    int left = block->column * s[SIZE_STEP] + tap.column;
    for (int unit = first + thread_index(); unit < end; unit += UNITS * THREADS) {
        Unit units[UNITS];
        UNROLL for (int i = 0; i < UNITS; i++)
            if (unit + i * THREADS < end)
                units[i] = unit_of(unit_value(a, block, unit + i * THREADS, cursor, top, left));
        UNROLL for (int i = 0; i < UNITS; i++)
            if (unit + i * THREADS < end)
                put_unit(patch, unit + i * THREADS, &units[i]);
    }
}

/* ---- products -------------------------------------------------------------------------------- */

/* The lane's first address in a patch, from that of the tap's first pixel. */
DEVICE unsigned lane_place(const Block *block)
{
    int lane = thread_index() % 32, warp = thread_index() / 32;
    int warp_m = warp % WARPS_M, warp_k = warp / WARPS_M / WARPS_N;
#ifdef PRECISION_FP32
    int pixel = warp_m * 16 + lane / 4, byte = 0;
#else
    int pixel = warp_m * 16 + lane % 16, byte = lane / 16 * 16;
#endif
    int place = pixel / TILE_W * block->plane_columns + pixel % TILE_W;
    return (unsigned)(place * PITCH + warp_k * WARP_STEPS * 32 + byte);
}

DEVICE unsigned lane_weights(void)
{
    int lane = thread_index() % 32, warp = thread_index() / 32;
    int warp_n = warp / WARPS_M % WARPS_N, warp_k = warp / WARPS_M / WARPS_N;
#ifdef PRECISION_FP32
    return (unsigned)(warp_k * WARP_STEPS * 8 * TILE_K + warp_n * N_PAIRS * 16 + lane % 4 * 4) * 4;
#else
    return (unsigned)((warp_k * WARP_STEPS * GROUPS + warp_n * N_PAIRS) * 512 + lane * 16);
#endif
}

#ifdef PRECISION_FP32

/* A lane has the pixels i + 8 m, i = lane / 4, and the result channels 4 j to 4 j + 3 of 16,
 * j = lane % 4: sums[m / 2][m % 2 * N_PAIRS + pair]. */
DEVICE void multiply(Share *share, unsigned x_at, unsigned row_pitch, unsigned weights_at)
{
    UNROLL for (int c = 0; c < WARP_STEPS * 8; c += 4) {
        word4 x[2 * M_TILES];
        UNROLL for (int m = 0; m < 2 * M_TILES; m++) {
            int pixel = m / 2 * WARPS_M * 16 + m % 2 * 8;
            x[m] = load_shared<word4>(x_at + (unsigned)(pixel / TILE_W) * row_pitch
                                      + (unsigned)(pixel % TILE_W * PITCH + c * 4));
        }
        UNROLL for (int k = 0; k < 4; k++) {
            UNROLL for (int pair = 0; pair < N_PAIRS; pair++) {
                word4 w = load_shared<word4>(weights_at
                                             + (unsigned)((c + k) * TILE_K + pair * 16) * 4);
                UNROLL for (int m = 0; m < 2 * M_TILES; m++) {
                    float *sums = share->sums[m / 2][m % 2 * N_PAIRS + pair];
                    float value = bits_float(k == 0 ? x[m].x : k == 1 ? x[m].y
                                           : k == 2 ? x[m].z : x[m].w);
                    sums[0] += value * bits_float(w.x);
                    sums[1] += value * bits_float(w.y);
                    sums[2] += value * bits_float(w.z);
                    sums[3] += value * bits_float(w.w);
                }
            }
        }
    }
}

#else

DEVICE void multiply(Share *share, unsigned x_at, unsigned row_pitch, unsigned weights_at)
{
    UNROLL for (int step = 0; step < WARP_STEPS; step++) {
        unsigned x[M_TILES][4], w[N_PAIRS][4];
        UNROLL for (int m = 0; m < M_TILES; m++)
            load_matrices(x[m], x_at + (unsigned)(m * WARPS_M * 16 / TILE_W) * row_pitch
                                + (unsigned)(step * 32));
        UNROLL for (int n = 0; n < N_PAIRS; n++)
            load_matrices(w[n], weights_at + (unsigned)((step * GROUPS + n) * 512));
        UNROLL for (int m = 0; m < M_TILES; m++) {
            UNROLL for (int n = 0; n < 2 * N_PAIRS; n++) {
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

/* The block's sums of products, divided over its warps. */
DEVICE void convolve(const Arguments *a, const Block *block, Share *share)
{
    const int *s = a->sizes;
    int chunks = s[SIZE_STEPS] / CHUNK_STEPS, units = block->places * CHUNK_BLOCKS;
    int slice = s[SIZE_TAPWISE] ? units : divide_up(units, block->taps);
    unsigned patch_bytes = (unsigned)block->places * PITCH, patch = PATCHES;
    unsigned row_pitch = (unsigned)block->plane_columns * PITCH;
    unsigned x_at = lane_place(block), weights_at = lane_weights();
    int64_t from[THREAD_PIECES];
    UNROLL for (int i = 0; i < THREAD_PIECES; i++)
        from[i] = piece_from(a, block, i * THREADS + thread_index());

    Cursor now = { 0, 0 }, copied = { 0, 0 };
    int stage = 0;
    for (int i = 0; i < STAGES - 1; i++) {
        if (copied.chunk < chunks)
            copy_slab(a, block, from, copied, (unsigned)i * SLAB);
        copy_commit();
        advance(&copied, block->taps);
    }
    read_patch(a, block, now, 0, units, patch);
    while (now.chunk < chunks) {
        copy_wait<STAGES - 2>();
        barrier();
        if (copied.chunk < chunks)
            copy_slab(a, block, from, copied, (unsigned)(stage ? stage - 1 : STAGES - 1) * SLAB);
        copy_commit();
        advance(&copied, block->taps);

        Cursor next = now;
        advance(&next, block->taps);
        unsigned other = PATCHES + (PATCHES + patch_bytes - patch);
        Cursor wanted = { s[SIZE_TAPWISE] ? next.tap : 0,
                          s[SIZE_TAPWISE] ? next.chunk : now.chunk + 1 };
        int first = s[SIZE_TAPWISE] ? 0 : now.tap * slice;
        if (wanted.chunk < chunks)
            read_patch(a, block, wanted, first, least(first + slice, units), other);
        multiply(share, patch + x_at + load_tap(block, now.tap).place, row_pitch,
                 (unsigned)stage * SLAB + weights_at);
        if (s[SIZE_TAPWISE] || next.tap == 0)
            patch = other;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        now = next;
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
    int first_pixel = warp % WARPS_M * 16;
    int first_channel = warp / WARPS_M % WARPS_N * N_PAIRS * 16;
    unsigned at = (unsigned)(warp / WARPS_M / WARPS_N * TILE_PIXELS * RESULT_PITCH);
    UNROLL for (int m = 0; m < M_TILES; m++) {
        UNROLL for (int n = 0; n < 2 * N_PAIRS; n++) {
            const float *sums = share->sums[m][n];
#ifdef PRECISION_FP32
            int pixel = first_pixel + m * WARPS_M * 16 + n / N_PAIRS * 8 + lane / 4;
            int channel = first_channel + n % N_PAIRS * 16 + lane % 4 * 4;
            word4 four = { float_bits(sums[0]), float_bits(sums[1]), float_bits(sums[2]),
                           float_bits(sums[3]) };
            store_shared(at + result_at(pixel, channel), four);
#else
            int pixel = first_pixel + m * WARPS_M * 16 + lane / 4;
            int channel = first_channel + n * 8 + lane % 4 * 2;
            word2 low = { float_bits(sums[0]), float_bits(sums[1]) };
            word2 high = { float_bits(sums[2]), float_bits(sums[3]) };
            store_shared(at + result_at(pixel, channel), low);
            store_shared(at + result_at(pixel + 8, channel), high);
#endif
        }
    }
}

DEVICE v8 result_of(int pixel, int cb)
{
    v8 value = splat8(0);
    UNROLL for (int k = 0; k < WARPS_K; k++) {
        unsigned at = (unsigned)(k * TILE_PIXELS * RESULT_PITCH);
        v8 part = words_floats(load_shared<word4>(at + result_at(pixel, cb * 8)),
                               load_shared<word4>(at + result_at(pixel, cb * 8 + 4)));
        value = k ? value + part : part;
    }
    return value;
}

/* One part of the block's. */
DEVICE void write_part(const Arguments *a, const Block *block, int part_row, int part_column)
{
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), phases = s[SIZE_PHASES];
    int lane = thread_index() % LANES, cb = block->first_cb + lane;
    int first = (part_row * TILE_W * PART_H) + part_column * PART_W;
    Accumulators sums;
    clear_y(&sums);
    if (cb < blocks) {
        for (int i = thread_index() / LANES; i < PART_H * PART_W; i += THREADS / LANES) {
            int pixel = first + i / PART_W * TILE_W + i % PART_W;
            int p = (block->row + pixel / TILE_W) * phases + block->row_phase;
            int q = (block->column + pixel % TILE_W) * phases + block->column_phase;
            if (p < s[SIZE_P] && q < s[SIZE_Q])
                write_y(a, block->n, cb, p, q, result_of(pixel, lane), &sums);
        }
    }
    int row = block->row / PART_H + part_row, column = block->column / PART_W + part_column;
    int part = ((row * s[SIZE_PART_COLUMNS] + column) * phases + block->row_phase) * phases
             + block->column_phase;
    finish_block(a, block->n, part, cb, blocks, LANES, &sums, MERGE_OFFSET);
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
        UNROLL for (int n = 0; n < 2 * N_PAIRS; n++)
            UNROLL for (int i = 0; i < 4; i++)
                share.sums[m][n][i] = 0;
    barrier();
    if (block.taps > 0)
        convolve(a, &block, &share);
    barrier();
    put_share(&share);
    barrier();
    for (int row = 0; row < PARTS_H; row++)
        for (int column = 0; column < PARTS_W; column++)
            if (block.row + row * PART_H < s[SIZE_PART_ROWS] * PART_H
                && block.column + column * PART_W < s[SIZE_PART_COLUMNS] * PART_W)
                write_part(a, &block, row, column);
}
