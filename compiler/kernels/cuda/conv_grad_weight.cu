/* Gradient of a convolution for its weight, [K][C][kernel][kernel] as PyTorch keeps it: for each
 * tap the sum over samples and pixels of x under the tap times dy. Also that of a transposed
 * convolution, with the roles of x and dy swapped. For one group.
 *
 * own buffers: where SPLITS is 1 the result, else a workspace [SPLITS][result], which
 *     conv_grad_weight_finish.cu adds up.  Reads read_x [C,H,W] and read_dy [K,P,Q].
 * grid: SPLITS * groups of taps * tiles of channels
 * shared memory: HEAD_BYTES, the list of a patch's pixels, two tiles of dy, two patches of x; at
 *     the end rows of the result
 *
 * For a group of taps this is a matrix product whose inner dimension is the pixels. A block makes a
 * tile of TILE_K output channels, TILE_C input channels and TAP_ROWS x TAP_COLUMNS taps from every
 * SPLITS-th tile of TILE_P x TILE_Q pixels of all samples: the bits depend on sizes only. A step
 * writes one tile of dy, and the patch of x under it, to shared memory as [pixel][channel], once
 * for all of its taps, from where the product reads both transposed. What the next step needs is
 * loaded before a part of a step's products, and computed and written into the other half of shared
 * memory behind it; so many words at a time as there are registers beside the sums.
 *
 * COLUMNS is for a few input channels: instead of channels there are C * kernel * kernel columns,
 * neighbours in the result, and one tap. x lies as planes of 32-bit words, for bf16 of pairs of
 * pixels STRIDE apart, so that a column is read like a channel, from an offset of its own.
 *
 * Defines: THREADS BLOCKS (that fit a multiprocessor) TILE_K TILE_C WARP_K WARP_C TAP_ROWS
 * TAP_COLUMNS PATCH_STRIDE TILE_P TILE_Q, and COLUMNS with X_LOADS.
 */
#undef LEAST_BLOCKS
#define LEAST_BLOCKS BLOCKS

enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION,
    SIZE_SPLITS,
};

#ifdef PRECISION_BF16
enum { ELEMENT = 2, SLICE = 32 };  /* bytes of an operand; pixels that are multiplied at a time */
#else
enum { ELEMENT = 4, SLICE = 8 };
#endif

enum {
    TAPS = TAP_ROWS * TAP_COLUMNS,
    PIXELS = TILE_P * TILE_Q,
    K_WARPS = TILE_K / WARP_K,
    K_BLOCKS = WARP_K / 16,            /* of a warp's tile, as the small matrices are */
    C_BLOCKS = WARP_C / 8,
    DY_PIXEL = TILE_K + 8,             /* elements from pixel to pixel: no two in one bank */
    DY_BYTES = PIXELS * DY_PIXEL * ELEMENT,
    DY_SLOTS = THREADS / (TILE_K / 8), /* pixels that are loaded at a time */
    DY_LOADS = (PIXELS + DY_SLOTS - 1) / DY_SLOTS,
    RESULT_ROW = TILE_C * TAPS,
    RESULT_LINE = RESULT_ROW + 8,
    RESULT_ROWS = 16 * K_WARPS,
#ifdef COLUMNS
    X_SLOTS = THREADS,
#else
    PATCH_ROWS = (TILE_P - 1) * PATCH_STRIDE + TAP_ROWS,
    PATCH_COLUMNS = (TILE_Q - 1) * PATCH_STRIDE + TAP_COLUMNS,
    /* Columns that are PATCH_STRIDE apart lie side by side. */
    PHASE_COLUMNS = (PATCH_COLUMNS + PATCH_STRIDE - 1) / PATCH_STRIDE,
    PATCH_LINE = PATCH_STRIDE * PHASE_COLUMNS,
    X_PIXEL = TILE_C + 8,
    X_SLOTS = THREADS / (TILE_C / 8),
    X_LOADS = (PATCH_ROWS * PATCH_COLUMNS + X_SLOTS - 1) / X_SLOTS,
#endif
    /* Loads that are under way while the warp multiplies, and so a step's turns of loading and
     * multiplying. */
    AHEAD_WORDS = 4,
    X_AHEAD = words_of_x < AHEAD_WORDS ? AHEAD_WORDS / words_of_x : 1,
    DY_AHEAD = words_of_dy < AHEAD_WORDS ? AHEAD_WORDS / words_of_dy : 1,
    X_TURNS = (X_LOADS + X_AHEAD - 1) / X_AHEAD,
    DY_TURNS = (DY_LOADS + DY_AHEAD - 1) / DY_AHEAD,
    X_PART = (X_LOADS + X_TURNS - 1) / X_TURNS,
    DY_PART = (DY_LOADS + DY_TURNS - 1) / DY_TURNS,
    TURNS = X_TURNS + DY_TURNS,
    SLICES = PIXELS / SLICE,
    /* In shared memory. Registers are scarce, so where the tiles of pixels lie is there as well:
     * behind the way from one to the next those that are loaded in steps of even and odd number. */
    HEAD_BYTES = 128,
    LIST_AT = HEAD_BYTES,
    DY_AT = LIST_AT + X_LOADS * X_SLOTS * 8,
    X_AT = DY_AT + 2 * DY_BYTES,
};
static_assert(THREADS == 32 * K_WARPS * (TILE_C / WARP_C), "a warp a tile");
static_assert(PIXELS % SLICE == 0 && TILE_Q % 8 == 0 && 32 % TILE_Q == 0, "slices");
static_assert(THREADS % (TILE_K / 8) == 0 && THREADS % X_SLOTS == 0, "one block a thread");

typedef float Sums[TAPS][C_BLOCKS][K_BLOCKS][4];

/* What a block does, and which part of it this warp. */
typedef struct {
    int split, k, c, tap_row, tap_column;
    int warp_k, warp_c;
} Task;

/* Where an operand's part of a tile of pixels begins: sample, row, column (of x, or of dy), block
 * of channels. */
typedef struct alignas(16) { int n, row, column, block; } Corner;

enum { STRIDE_AT = 0, CORNERS_AT = 16 };   /* [step % 2][x, dy] */

/* ---- operands into shared memory ------------------------------------------------------------- */

struct Packed { word4 words[ELEMENT / 2]; };              /* 8 channels of a pixel */

DEVICE Packed packed(const v8 &value, bool valid)
{
    v8 kept;
    EACH_LANE kept.lane[i] = valid ? value.lane[i] : 0.0f;
#ifdef PRECISION_TF32
    EACH_LANE kept.lane[i] = bits_float(round_tf32(kept.lane[i]));
#endif
#ifdef PRECISION_BF16
    Packed y = { { bf16_words(kept) } };
#else
    Packed y = { { floats_words(kept, 0), floats_words(kept, 1) } };
#endif
    return y;
}

DEVICE void store_packed(unsigned at, const Packed &value)
{
    UNROLL for (int i = 0; i < ELEMENT / 2; i++)
        store_shared(at + 16 * (unsigned)i, value.words[i]);
}

/* Where an operand's value for one of a thread's loads comes from: the nearest place in the tensor,
 * and whether that is the right one. */
typedef struct { int n, cb, h, w; bool valid; } Origin;

DEVICE Origin origin_at(int n, int cb, int h, int w, int channels, int height, int width)
{
    int blocks = channel_blocks(channels);
    Origin y = { n, least(cb, blocks - 1), most(0, least(h, height - 1)),
                 most(0, least(w, width - 1)), false };
    y.valid = cb < blocks && y.h == h && y.w == w;
    return y;
}

DEVICE Origin dy_origin(const Arguments *a, unsigned corners, int load)
{
    const int *s = a->sizes;
    Corner corner = load_shared<Corner>(corners + 16);
    int pixel = thread_index() / (TILE_K / 8) + load * DY_SLOTS;
    return origin_at(corner.n, corner.block + thread_index() % (TILE_K / 8),
                     corner.row + pixel / TILE_Q, corner.column + pixel % TILE_Q, s[SIZE_K],
                     s[SIZE_P], s[SIZE_Q]);
}

DEVICE void store_dy(unsigned dy, int load, const Packed &value)
{
    int pixel = thread_index() / (TILE_K / 8) + load * DY_SLOTS;
    if (DY_LOADS * DY_SLOTS == PIXELS || pixel < PIXELS)
        store_packed(dy + (unsigned)((pixel * DY_PIXEL + thread_index() % (TILE_K / 8) * 8)
                                     * ELEMENT), value);
}

/* This thread's load-th pixel of the patch: its row (bits 16-31) and column, and its byte. */
DEVICE word2 patch_pixel(int load)
{
    int slot = thread_index() / (THREADS / X_SLOTS) + load * X_SLOTS;
    return load_shared<word2>(LIST_AT + 8 * (unsigned)slot);
}

#ifndef COLUMNS

DEVICE int patch_place(int row, int column)
{
    return row * PATCH_LINE + column % PATCH_STRIDE * PHASE_COLUMNS + column / PATCH_STRIDE;
}

DEVICE unsigned patch_bytes(const Arguments *)
{
    return PATCH_ROWS * PATCH_LINE * X_PIXEL * ELEMENT;
}

DEVICE void list_pixels(const Arguments *)
{
    ROLLED for (int i = thread_index(); i < X_LOADS * X_SLOTS; i += THREADS) {
        int row = i / PATCH_COLUMNS, column = i % PATCH_COLUMNS;
        word2 pixel = { (unsigned)(row << 16 | column),
                        (unsigned)(patch_place(row, column) * X_PIXEL * ELEMENT) };
        store_shared(LIST_AT + 8 * (unsigned)i, pixel);
    }
}

DEVICE Origin x_origin(const Arguments *a, unsigned corners, int load)
{
    const int *s = a->sizes;
    Corner corner = load_shared<Corner>(corners);
    int step = TAPS == 1 ? s[SIZE_STRIDE] : 1, place = (int)patch_pixel(load).x;
    return origin_at(corner.n, corner.block + thread_index() % (TILE_C / 8),
                     corner.row + (place >> 16) * step, corner.column + (place & 0xffff) * step,
                     s[SIZE_C], s[SIZE_H], s[SIZE_W]);
}

DEVICE void store_x(const Arguments *, unsigned x, int load, const Packed &value)
{
    word2 pixel = patch_pixel(load);
    if (X_LOADS * X_SLOTS == PATCH_ROWS * PATCH_COLUMNS || pixel.x >> 16 < PATCH_ROWS)
        store_packed(x + pixel.y + (unsigned)(thread_index() % (TILE_C / 8) * 8 * ELEMENT), value);
}

#else

/* Rows (or columns) of x under so many of dy. */
DEVICE int patch_length(const Arguments *a, int pixels)
{
    const int *s = a->sizes;
    return (pixels - 1) * s[SIZE_STRIDE] + (s[SIZE_KERNEL] - 1) * s[SIZE_DILATION] + 1;
}

DEVICE unsigned plane_bytes(const Arguments *a)
{
    return (unsigned)(patch_length(a, TILE_P) * patch_length(a, TILE_Q) * 4);
}

DEVICE unsigned patch_bytes(const Arguments *a)
{
    return (unsigned)a->sizes[SIZE_C] * plane_bytes(a);
}

DEVICE void list_pixels(const Arguments *a)
{
    int line = patch_length(a, TILE_Q);
    ROLLED for (int i = thread_index(); i < X_LOADS * X_SLOTS; i += THREADS) {
        word2 pixel = { (unsigned)(i / line << 16 | i % line), 4 * (unsigned)i };
        store_shared(LIST_AT + 8 * (unsigned)i, pixel);
    }
}

DEVICE Origin x_origin(const Arguments *a, unsigned corners, int load)
{
    const int *s = a->sizes;
    Corner corner = load_shared<Corner>(corners);
    int place = (int)patch_pixel(load).x;
    return origin_at(corner.n, 0, corner.row + (place >> 16), corner.column + (place & 0xffff),
                     s[SIZE_C], s[SIZE_H], s[SIZE_W]);
}

DEVICE void store_x(const Arguments *a, unsigned x, int load, const Packed &value)
{
    word2 pixel = patch_pixel(load);
    if (pixel.y >= plane_bytes(a))
        return;
    UNROLL for (int c = 0; c < 7; c++) {
        if (c >= a->sizes[SIZE_C])
            return;
        const word4 &four = value.words[c * ELEMENT / 16];
        int word = c * ELEMENT / 4 % 4;
        unsigned bits = word == 0 ? four.x : word == 1 ? four.y : word == 2 ? four.z : four.w;
        unsigned at = x + (unsigned)c * plane_bytes(a) + pixel.y;
#ifdef PRECISION_BF16
        uint16_t half = (uint16_t)(c % 2 ? bits >> 16 : bits);
        store_shared(at, half);
        if ((int)(pixel.x & 0xffff) >= a->sizes[SIZE_STRIDE])
            store_shared(at + 2 - 4 * (unsigned)a->sizes[SIZE_STRIDE], half);
#else
        store_shared(at, bits);
#endif
    }
}

#endif

/* ---- where lanes read them ------------------------------------------------------------------- */

/* In bytes from the operand's first, and from pixel to pixel. */
typedef struct {
    unsigned dy, x;
#ifdef COLUMNS
    unsigned row, pixel;           /* to the pixel below, and beside */
    unsigned columns[C_BLOCKS];
#ifdef PRECISION_FP32
    unsigned odd_columns[C_BLOCKS];
#endif
#endif
} Lane;

/* The channel of the row g + 8 * half of small matrix m. Floats are read as vectors of neighbouring
 * channels, which become rows of different matrices. */
DEVICE int row_channel(int m, int half, int g)
{
#ifdef PRECISION_BF16
    return 16 * m + 8 * half + g;
#else
    return WARP_K == 16 ? 2 * g + half : 32 * (m / 2) + 4 * g + 2 * (m % 2) + half;
#endif
}

DEVICE unsigned dy_lane(const Task &task)
{
    int lane = thread_index() % 32;
#if defined(PRECISION_BF16)
    int pixel = lane / 16 * 8 + lane % 8, channel = lane / 8 % 2 * 8;
#elif defined(PRECISION_TF32)
    int pixel = lane % 4, channel = row_channel(0, 0, lane / 4);
#else
    int pixel = 0, channel = row_channel(0, 0, lane / 4);
#endif
    return (unsigned)((pixel * DY_PIXEL + task.warp_k + channel) * ELEMENT);
}

#ifdef COLUMNS

DEVICE unsigned column_offset(const Arguments *a, int column)
{
    const int *s = a->sizes;
    int kernel = s[SIZE_KERNEL], tap = column % (kernel * kernel), c = column / (kernel * kernel);
    int place = tap / kernel * s[SIZE_DILATION] * patch_length(a, TILE_Q)
              + tap % kernel * s[SIZE_DILATION];
    return c < s[SIZE_C] ? (unsigned)c * plane_bytes(a) + 4 * (unsigned)place : 0;
}

DEVICE Lane begin_lane(const Arguments *a, const Task &task)
{
    int g = thread_index() % 32 / 4, t = thread_index() % 4, stride = a->sizes[SIZE_STRIDE];
    Lane y;
    y.dy = dy_lane(task);
    y.row = (unsigned)(stride * patch_length(a, TILE_Q) * 4);
    y.pixel = (unsigned)(stride * 4);
    UNROLL for (int j = 0; j < C_BLOCKS; j++) {
        int column = task.c + task.warp_c + 8 * j;
#ifdef PRECISION_FP32
        y.columns[j] = column_offset(a, column + 2 * t);
        y.odd_columns[j] = column_offset(a, column + 2 * t + 1);
        (void)g;
#else
        y.columns[j] = column_offset(a, column + g);
#endif
    }
#ifdef PRECISION_FP32
    y.x = 0;
#else
    y.x = (unsigned)(4 / ELEMENT * t) * y.pixel;
#endif
    return y;
}

/* Where in x a lane's word for pixel `pixel` of the tile lies, of the column at 0. */
DEVICE unsigned x_offset(const Lane &lane, int pixel)
{
    return lane.x + (unsigned)(pixel / TILE_Q) * lane.row + (unsigned)(pixel % TILE_Q) * lane.pixel;
}

#else

DEVICE Lane begin_lane(const Arguments *, const Task &task)
{
    int lane = thread_index() % 32;
#if defined(PRECISION_BF16)
    int place = patch_place(lane / TILE_Q * PATCH_STRIDE, lane % TILE_Q * PATCH_STRIDE), c = 0;
#elif defined(PRECISION_TF32)
    int place = lane % 4, c = lane / 4;
#else
    int place = 0, c = lane % 4 * 2;
#endif
    Lane y = { dy_lane(task), (unsigned)((place * X_PIXEL + task.warp_c + c) * ELEMENT) };
    return y;
}

/* Where in x a lane reads for a slice that begins at pixel `pixel`, at a place of the window and a
 * block of channels. */
DEVICE unsigned x_offset(const Lane &lane, int pixel, int row, int column, int block)
{
    int place = patch_place(pixel / TILE_Q * PATCH_STRIDE + row,
                            pixel % TILE_Q * PATCH_STRIDE + column);
    return lane.x + (unsigned)((place * X_PIXEL + 8 * block) * ELEMENT);
}

#endif

/* ---- the product ----------------------------------------------------------------------------- */

#ifdef PRECISION_BF16

enum {
    /* A slice is two rows of pixels: what one tap reads for its second row is what the tap below
     * reads for its first. Then pairs of rows of the patch are loaded, else a slice a tap. */
    PAIRS = PATCH_STRIDE == 1 && TILE_Q == 16 && TAP_ROWS % 2 == 1,
    RIGHT_LOADS = PAIRS ? (TAP_ROWS + 1) / 2 : TAP_ROWS,
};

DEVICE void load_right(unsigned right[4], const Lane &lane, unsigned x, int pixel, int load,
                       int column, int block)
{
#ifdef COLUMNS
    (void)load, (void)column;
    UNROLL for (int i = 0; i < 4; i++)
        right[i] = load_shared<unsigned>(x + lane.columns[block] + x_offset(lane, pixel + 8 * i));
#else
    int row = PAIRS ? 2 * load : load;
    load_matrices_transposed(right, x + x_offset(lane, pixel, row, column, block));
#endif
}

DEVICE void multiply_slice(Sums sums, const Lane &lane, unsigned dy, unsigned x, int pixel)
{
    unsigned left[2][K_BLOCKS][4];
    UNROLL for (int half = 0; half < 2; half++)
        UNROLL for (int m = 0; m < K_BLOCKS; m++)
            load_matrices_transposed(left[half][m], dy + lane.dy
                                     + (unsigned)(((pixel + 16 * half) * DY_PIXEL + 16 * m) * 2));
    UNROLL for (int column = 0; column < TAP_COLUMNS; column++) {
        UNROLL for (int j = 0; j < C_BLOCKS; j++) {
            unsigned right[RIGHT_LOADS][4];
            UNROLL for (int load = 0; load < RIGHT_LOADS; load++)
                load_right(right[load], lane, x, pixel, load, column, j);
            UNROLL for (int row = 0; row < TAP_ROWS; row++)
                UNROLL for (int half = 0; half < 2; half++) {
                    int at = PAIRS ? row + half : 2 * row + half;
                    UNROLL for (int m = 0; m < K_BLOCKS; m++)
                        multiply_bf16(sums[row * TAP_COLUMNS + column][j][m], left[half][m],
                                      right[at / 2] + at % 2 * 2);
                }
        }
    }
}

#else

/* This lane's channels of dy at one pixel: y[2 * m + half]. */
DEVICE void load_rows(unsigned y[2 * K_BLOCKS], unsigned at)
{
    if (WARP_K == 16) {
        word2 two = load_shared<word2>(at);
        y[0] = two.x;
        y[1] = two.y;
        return;
    }
    UNROLL for (int i = 0; i < WARP_K / 32; i++) {
        word4 four = load_shared<word4>(at + 128 * (unsigned)i);
        y[4 * i] = four.x;
        y[4 * i + 1] = four.y;
        y[4 * i + 2] = four.z;
        y[4 * i + 3] = four.w;
    }
}

#ifdef PRECISION_TF32

DEVICE void load_right(unsigned right[2], const Lane &lane, unsigned x, int pixel, int tap,
                       int block)
{
    UNROLL for (int i = 0; i < 2; i++) {
#ifdef COLUMNS
        (void)tap;
        right[i] = load_shared<unsigned>(x + lane.columns[block] + x_offset(lane, pixel + 4 * i));
#else
        right[i] = load_shared<unsigned>(x + 16 * (unsigned)(i * X_PIXEL)
            + x_offset(lane, pixel, tap / TAP_COLUMNS, tap % TAP_COLUMNS, block));
#endif
    }
}

DEVICE void multiply_slice(Sums sums, const Lane &lane, unsigned dy, unsigned x, int pixel)
{
    unsigned near[2 * K_BLOCKS], far[2 * K_BLOCKS];
    load_rows(near, dy + lane.dy + (unsigned)(pixel * DY_PIXEL * 4));
    load_rows(far, dy + lane.dy + (unsigned)((pixel + 4) * DY_PIXEL * 4));
    UNROLL for (int tap = 0; tap < TAPS; tap++) {
        UNROLL for (int j = 0; j < C_BLOCKS; j++) {
            unsigned right[2];
            load_right(right, lane, x, pixel, tap, j);
            UNROLL for (int m = 0; m < K_BLOCKS; m++) {
                unsigned left[4] = { near[2 * m], near[2 * m + 1], far[2 * m], far[2 * m + 1] };
                multiply_tf32(sums[tap][j][m], left, right);
            }
        }
    }
}

#else

DEVICE word2 load_right(const Lane &lane, unsigned x, int first, int pixel, int tap, int block)
{
#ifdef COLUMNS
    (void)tap;
    unsigned at = x + x_offset(lane, first + pixel);
    word2 right = { load_shared<unsigned>(at + lane.columns[block]),
                    load_shared<unsigned>(at + lane.odd_columns[block]) };
    return right;
#else
    return load_shared<word2>(x + 4 * (unsigned)(pixel * X_PIXEL)
        + x_offset(lane, first, tap / TAP_COLUMNS, tap % TAP_COLUMNS, block));
#endif
}

DEVICE void multiply_slice(Sums sums, const Lane &lane, unsigned dy, unsigned x, int first)
{
    ROLLED for (int pixel = 0; pixel < SLICE; pixel++) {
        unsigned left[2 * K_BLOCKS];
        load_rows(left, dy + lane.dy + (unsigned)((first + pixel) * DY_PIXEL * 4));
        UNROLL for (int tap = 0; tap < TAPS; tap++) {
            UNROLL for (int j = 0; j < C_BLOCKS; j++) {
                word2 right = load_right(lane, x, first, pixel, tap, j);
                UNROLL for (int i = 0; i < 2 * K_BLOCKS; i++) {
                    float *sum = sums[tap][j][i / 2] + i % 2 * 2;
                    sum[0] += bits_float(left[i]) * bits_float(right.x);
                    sum[1] += bits_float(left[i]) * bits_float(right.y);
                }
            }
        }
    }
}

#endif
#endif

/* ---- a block --------------------------------------------------------------------------------- */

/* Of the result, as the block sees it. */
DEVICE int result_channels(const int *s)
{
#ifdef COLUMNS
    return s[SIZE_C] * s[SIZE_KERNEL] * s[SIZE_KERNEL];
#else
    return s[SIZE_C];
#endif
}
DEVICE int result_kernel(const int *s)
{
#ifdef COLUMNS
    return 1;
#else
    return s[SIZE_KERNEL];
#endif
}

DEVICE Task task_of_block(const int *s)
{
    int across = divide_up(result_kernel(s), TAP_COLUMNS), block = block_index();
    int groups = across * divide_up(result_kernel(s), TAP_ROWS), warp = thread_index() / 32;
    int c_tiles = divide_up(result_channels(s), TILE_C), k_tiles = divide_up(s[SIZE_K], TILE_K);
    Task y;
    y.c = block % c_tiles * TILE_C;
    block /= c_tiles;
    y.k = block % k_tiles * TILE_K;
    block /= k_tiles;
    y.tap_row = block % groups / across * TAP_ROWS;
    y.tap_column = block % groups % across * TAP_COLUMNS;
    y.split = block / groups;
    y.warp_k = warp % K_WARPS * WARP_K;
    y.warp_c = warp / K_WARPS * WARP_C;
    return y;
}

/* The tile of dy that begins at `dy`, and its patch. */
DEVICE void store_corners(const Arguments *a, const Task &task, unsigned at, const Corner &dy)
{
    const int *s = a->sizes;
    Corner x = { dy.n, dy.row * s[SIZE_STRIDE] + task.tap_row * s[SIZE_DILATION] - s[SIZE_PADDING],
                 dy.column * s[SIZE_STRIDE] + task.tap_column * s[SIZE_DILATION] - s[SIZE_PADDING],
                 task.c / 8 };
    store_shared(at, x);
    store_shared(at + 16, dy);
}

DEVICE Corner tile_corner(const Arguments *a, const Task &task, int tile)
{
    int across = divide_up(a->sizes[SIZE_Q], TILE_Q), down = divide_up(a->sizes[SIZE_P], TILE_P);
    Corner y = { tile / (down * across), tile / across % down * TILE_P, tile % across * TILE_Q,
                 task.k / 8 };
    return y;
}

/* From the corners at `from` to those SPLITS tiles behind them. */
DEVICE void advance(const Arguments *a, const Task &task, unsigned from, unsigned to)
{
    int width = divide_up(a->sizes[SIZE_Q], TILE_Q) * TILE_Q;
    int height = divide_up(a->sizes[SIZE_P], TILE_P) * TILE_P;
    Corner y = load_shared<Corner>(from + 16), by = load_shared<Corner>(STRIDE_AT);
    y.column += by.column;
    y.row += by.row + (y.column >= width ? TILE_P : 0);
    y.column -= y.column >= width ? width : 0;
    y.n += by.n + (y.row >= height);
    y.row -= y.row >= height ? height : 0;
    store_corners(a, task, to, y);
}

/* What is multiplied, and where the next tile goes, in bytes of shared memory. */
typedef struct {
    unsigned dy, next_dy, x, next_x;
    unsigned corners;              /* of the next tile */
    bool loads, multiplies;        /* there is a next tile; this is one */
} Step;

DEVICE void exchange(unsigned *a, unsigned *b)
{
    unsigned old = *a;
    *a = *b;
    *b = old;
}

/* The warps' sums of the small matrices m, through shared memory to rows of the result. */
DEVICE void write_rows(const Arguments *a, const Task &task, const Sums sums, int m)
{
    const int *s = a->sizes;
    int g = thread_index() % 32 / 4, t = thread_index() % 4;
    int channels = result_channels(s), kernel = result_kernel(s);
    int64_t count = (int64_t)s[SIZE_K] * channels * kernel * kernel;
    float *to = (float *)a->buffers[0] + task.split * count;
    barrier();
    UNROLL for (int tap = 0; tap < TAPS; tap++)
        UNROLL for (int j = 0; j < C_BLOCKS; j++)
            UNROLL for (int i = 0; i < 4; i++) {
                int row = task.warp_k / WARP_K * 16 + i / 2 * 8 + g;
                int c = task.warp_c + 8 * j + 2 * t + i % 2;
                store_shared((unsigned)(row * RESULT_LINE + c * TAPS + tap) * 4,
                             sums[tap][j][m][i]);
            }
    barrier();
    ROLLED for (int i = thread_index(); i < RESULT_ROWS * RESULT_ROW; i += THREADS) {
        int row = i / RESULT_ROW, column = i % RESULT_ROW, tap = column % TAPS;
        int k = task.k + row / 16 * WARP_K + row_channel(m, row / 8 % 2, row % 8);
        int c = task.c + column / TAPS, tap_row = task.tap_row + tap / TAP_COLUMNS;
        int tap_column = task.tap_column + tap % TAP_COLUMNS;
        int64_t place = ((int64_t)k * channels + c) * kernel + tap_row;
        if (k < s[SIZE_K] && c < channels && tap_row < kernel && tap_column < kernel)
            store_global(to + place * kernel + tap_column,
                         load_shared<float>((unsigned)(row * RESULT_LINE + column) * 4));
    }
}

DEVICE void multiply_turn(const Step &step, const Lane &lane, Sums sums, int turn)
{
    for (int slice = turn * SLICES / TURNS; slice < (turn + 1) * SLICES / TURNS; slice++)
        multiply_slice(sums, lane, step.dy, step.x, slice * SLICE);
}

/* Multiplies while a part of the next tile's patch is loaded. */
DEVICE void turn_x(const Arguments *a, const Step &step, const Lane &lane, Sums sums, int turn)
{
    Fetched<words_of_x> fetched[X_PART];
    if (step.loads)
        UNROLL for (int i = 0, load = turn * X_PART; i < X_PART; i++, load++)
            if (X_TURNS * X_PART == X_LOADS || load < X_LOADS) {
                Origin at = x_origin(a, step.corners, load);
                Fetch<words_of_x> fetch = { &fetched[i] };
                read_x(a, at.n, at.cb, at.h, at.w, fetch);
            }
    if (step.multiplies)
        multiply_turn(step, lane, sums, turn);
    if (step.loads)
        UNROLL for (int i = 0, load = turn * X_PART; i < X_PART; i++, load++)
            if (X_TURNS * X_PART == X_LOADS || load < X_LOADS) {
                Origin at = x_origin(a, step.corners, load);
                v8 value = read_x(a, at.n, at.cb, at.h, at.w, fetched[i]);
                store_x(a, step.next_x, load, packed(value, at.valid));
            }
}

/* The same with dy. */
DEVICE void turn_dy(const Arguments *a, const Step &step, const Lane &lane, Sums sums, int turn)
{
    Fetched<words_of_dy> fetched[DY_PART];
    if (step.loads)
        UNROLL for (int i = 0, load = turn * DY_PART; i < DY_PART; i++, load++)
            if (DY_TURNS * DY_PART == DY_LOADS || load < DY_LOADS) {
                Origin at = dy_origin(a, step.corners, load);
                Fetch<words_of_dy> fetch = { &fetched[i] };
                read_dy(a, at.n, at.cb, at.h, at.w, fetch);
            }
    if (step.multiplies)
        multiply_turn(step, lane, sums, X_TURNS + turn);
    if (step.loads)
        UNROLL for (int i = 0, load = turn * DY_PART; i < DY_PART; i++, load++)
            if (DY_TURNS * DY_PART == DY_LOADS || load < DY_LOADS) {
                Origin at = dy_origin(a, step.corners, load);
                v8 value = read_dy(a, at.n, at.cb, at.h, at.w, fetched[i]);
                store_dy(step.next_dy, load, packed(value, at.valid));
            }
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int tiles = a->batch * divide_up(s[SIZE_P], TILE_P) * divide_up(s[SIZE_Q], TILE_Q);
    int splits = s[SIZE_SPLITS];
    unsigned x_bytes = patch_bytes(a);
    Lane lane = begin_lane(a, task_of_block(s));
    Sums sums;
    UNROLL for (int tap = 0; tap < TAPS; tap++)
        UNROLL for (int i = 0; i < C_BLOCKS * K_BLOCKS * 4; i++)
            sums[tap][i / 4 / K_BLOCKS][i / 4 % K_BLOCKS][i % 4] = 0;
    list_pixels(a);
    if (thread_index() == 0) {
        Task task = task_of_block(s);
        store_shared(STRIDE_AT, tile_corner(a, task, splits));
        store_corners(a, task, CORNERS_AT, tile_corner(a, task, task.split));
    }
    barrier();
    Step step = { DY_AT, DY_AT + DY_BYTES, X_AT, X_AT + x_bytes, CORNERS_AT, false, false };
    /* The first step, before the block's first tile, only loads. */
    ROLLED for (int tile = task_of_block(s).split - splits; tile < tiles; tile += splits) {
        step.loads = tile + splits < tiles;
        step.multiplies = tile >= 0;
        ROLLED for (int turn = 0; turn < X_TURNS; turn++)
            turn_x(a, step, lane, sums, turn);
        ROLLED for (int turn = 0; turn < DY_TURNS; turn++)
            turn_dy(a, step, lane, sums, turn);
        unsigned next = 2 * CORNERS_AT + 32 - step.corners;
        if (thread_index() == 0)
            advance(a, task_of_block(s), step.corners, next);
        step.corners = next;
        exchange(&step.dy, &step.next_dy);
        exchange(&step.x, &step.next_x);
        barrier();
    }
    UNROLL for (int m = 0; m < K_BLOCKS; m++)
        write_rows(a, task_of_block(s), sums, m);
}
