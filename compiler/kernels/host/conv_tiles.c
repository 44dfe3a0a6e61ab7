/* Register-blocked micro-kernels of the convolutions: see conv_tiles.h for what they compute.
 *
 * A tile is P pixels by V vectors of output channels, P * V accumulators that stay in registers
 * over all taps and channels of a call. Each is a variable of its own, written out by the list
 * macros below: gcc keeps arrays of vectors in memory even when every loop over them is unrolled. A
 * broadcast input feeds V multiply-adds and a weight vector P of them, so loads stay below one a
 * multiply-add.
 *
 * The weight gradient's tile is T taps by I input channels by V vectors, summed over pixels.
 *
 * A block of 16 channels is one vector with AVX-512, two with AVX, four else; tiles are as large as
 * the registers allow.
 */
#if defined __AVX512F__
#define VECTOR 16
#elif defined __AVX__
#define VECTOR 8
#else
#define VECTOR 4
#endif
typedef float vector __attribute__((vector_size(VECTOR * 4), may_alias));

/* Lists: VECTORS_n calls M(p, 0) ... M(p, n-1), PIXELS_n calls E(M, 0) ... E(M, n-1). */
#define VECTORS_1(M, p) M(p, 0)
#define VECTORS_2(M, p) VECTORS_1(M, p) M(p, 1)
#define VECTORS_3(M, p) VECTORS_2(M, p) M(p, 2)
#define VECTORS_4(M, p) VECTORS_3(M, p) M(p, 3)
#define PIXELS_1(E, M) E(M, 0)
#define PIXELS_2(E, M) PIXELS_1(E, M) E(M, 1)
#define PIXELS_3(E, M) PIXELS_2(E, M) E(M, 2)
#define PIXELS_4(E, M) PIXELS_3(E, M) E(M, 3)
#define PIXELS_5(E, M) PIXELS_4(E, M) E(M, 4)
#define PIXELS_6(E, M) PIXELS_5(E, M) E(M, 5)
#define PIXELS_7(E, M) PIXELS_6(E, M) E(M, 6)
#define PIXELS_8(E, M) PIXELS_7(E, M) E(M, 7)
#define PIXELS_9(E, M) PIXELS_8(E, M) E(M, 8)
#define PIXELS_10(E, M) PIXELS_9(E, M) E(M, 9)
#define PIXELS_11(E, M) PIXELS_10(E, M) E(M, 10)
#define PIXELS_12(E, M) PIXELS_11(E, M) E(M, 11)
#define PIXELS_13(E, M) PIXELS_12(E, M) E(M, 12)
#define PIXELS_14(E, M) PIXELS_13(E, M) E(M, 13)
#define PIXELS_15(E, M) PIXELS_14(E, M) E(M, 14)
#define PIXELS_16(E, M) PIXELS_15(E, M) E(M, 15)
#define PIXELS_17(E, M) PIXELS_16(E, M) E(M, 16)
#define PIXELS_18(E, M) PIXELS_17(E, M) E(M, 17)
#define PIXELS_19(E, M) PIXELS_18(E, M) E(M, 18)
#define PIXELS_20(E, M) PIXELS_19(E, M) E(M, 19)
#define PIXELS_21(E, M) PIXELS_20(E, M) E(M, 20)
#define PIXELS_22(E, M) PIXELS_21(E, M) E(M, 21)
#define PIXELS_23(E, M) PIXELS_22(E, M) E(M, 22)
#define PIXELS_24(E, M) PIXELS_23(E, M) E(M, 23)

/* Where vector v of a tile lies in y: a block's vectors are together, its blocks y_block apart. */
#define PLACE(v) ((v) * VECTOR / 16 * t->y_block + (v) * VECTOR % 16)
#define DECLARE(p, v) vector sum_##p##_##v;
#define CLEAR(p, v) sum_##p##_##v = (vector){0};
#define ADD(p, v) sum_##p##_##v += *(const vector *)(to_##v + (p) * y_step);
#define STORE(p, v) *(vector *)(to_##v + (p) * y_step) = sum_##p##_##v;
#define TO(p, v) float *to_##v = y + PLACE(v);
/* gcc would load a vector again for each of up to four multiply-adds: more loads than there can be. */
#if defined __AVX512F__
#define KEEP(x) __asm__("" : "+v"(x));
#elif defined __SSE__
#define KEEP(x) __asm__("" : "+x"(x));
#else
#define KEEP(x)
#endif
#define WEIGHT(p, v) vector weight_##v = *(const vector *)(w + (v) * VECTOR); KEEP(weight_##v)
#define MULTIPLY(p, v) sum_##p##_##v += input * weight_##v;
/* The subtraction of zero is how a scalar becomes a vector of equal elements; it costs nothing. */
#define NEXT_PIXEL { const vector input = *pixel - (vector){0}; pixel += step;
#define PRODUCTS_1(M, p) NEXT_PIXEL VECTORS_1(MULTIPLY, p) }
#define PRODUCTS_2(M, p) NEXT_PIXEL VECTORS_2(MULTIPLY, p) }
#define PRODUCTS_3(M, p) NEXT_PIXEL VECTORS_3(MULTIPLY, p) }
#define PRODUCTS_4(M, p) NEXT_PIXEL VECTORS_4(MULTIPLY, p) }

typedef void TileFunction(const ConvTile *t, const float *x, const float *weights, float *y);

/* tile_PxV for pixels that are neighbours in the patch and in y, apart_PxV for any distances. */
#define TILE(P, V)                                                                                 \
    static inline __attribute__((always_inline)) void body_##P##x##V(                              \
        const ConvTile *t, const float *x, const float *weights, float *restrict y,                \
        const int64_t step, const int64_t y_step)                                                  \
    {                                                                                              \
        const int64_t row = t->blocks * 16;                                                        \
        VECTORS_##V(TO, 0)                                                                         \
        PIXELS_##P(VECTORS_##V, DECLARE)                                                           \
        PIXELS_##P(VECTORS_##V, CLEAR)                                                             \
        for (const ConvTap *tap = t->taps, *end = tap + t->n_taps; tap < end; tap++) {             \
            const float *w = weights + tap->weights;                                               \
            const float *from = x + tap->x;                                                        \
            for (const float *last = from + tap->channels; from < last; from++, w += row) {        \
                const float *pixel = from;                                                         \
                VECTORS_##V(WEIGHT, 0)                                                             \
                PIXELS_##P(PRODUCTS_##V, )                                                         \
            }                                                                                      \
        }                                                                                          \
        if (t->accumulate) {                                                                       \
            PIXELS_##P(VECTORS_##V, ADD)                                                           \
        }                                                                                          \
        PIXELS_##P(VECTORS_##V, STORE)                                                             \
    }                                                                                              \
    static void tile_##P##x##V(const ConvTile *t, const float *x, const float *w, float *y)        \
    {                                                                                              \
        body_##P##x##V(t, x, w, y, 16, 16);                                                        \
    }
#define APART(P, V)                                                                                \
    static void apart_##P##x##V(const ConvTile *t, const float *x, const float *w, float *y)       \
    {                                                                                              \
        body_##P##x##V(t, x, w, y, t->x_pixel, t->y_pixel);                                        \
    }

#define TO_2(M, V) M(1, V) M(2, V)
#define TO_6(M, V) TO_2(M, V) M(3, V) M(4, V) M(5, V) M(6, V)
#define TO_8(M, V) TO_6(M, V) M(7, V) M(8, V)
#define TO_14(M, V) TO_8(M, V) M(9, V) M(10, V) M(11, V) M(12, V) M(13, V) M(14, V)
#define TO_24(M, V) TO_14(M, V) M(15, V) M(16, V) M(17, V) M(18, V) M(19, V) M(20, V) \
    M(21, V) M(22, V) M(23, V) M(24, V)

/* The tiles there are, and the widest for each number of vectors. */
#if VECTOR == 16
enum { BLOCKS_AT_ONCE = 4, MOST_VECTORS = 4, WIDEST = 24 };
#define TILES(M) TO_24(M, 1) TO_14(M, 2) TO_8(M, 3) TO_6(M, 4)
#define TILES_APART(M) TO_14(M, 1) TO_8(M, 2) TO_8(M, 3) TO_6(M, 4)
static const int widest[MOST_VECTORS + 1] = {0, 24, 14, 8, 6};
static const int widest_apart[MOST_VECTORS + 1] = {0, 14, 8, 8, 6};
#else
enum { BLOCKS_AT_ONCE = 1, MOST_VECTORS = 4, WIDEST = 6 };
#if VECTOR == 8
#define TILES(M) TO_6(M, 2)
#elif defined __aarch64__
#define TILES(M) TO_6(M, 4)
#else
#define TILES(M) TO_2(M, 4)
#endif
#define TILES_APART(M) TILES(M)
#if VECTOR == 8 || defined __aarch64__
static const int widest[MOST_VECTORS + 1] = {0, 0, 6, 0, 6};
#else
static const int widest[MOST_VECTORS + 1] = {0, 0, 0, 0, 2};
#endif
static const int *const widest_apart = widest;
#endif

TILES(TILE)
TILES_APART(APART)
#define TILE_ENTRY(P, V) [V][P] = tile_##P##x##V,
#define APART_ENTRY(P, V) [V][P] = apart_##P##x##V,
static TileFunction *const tile_table[MOST_VECTORS + 1][WIDEST + 1] = {TILES(TILE_ENTRY)};
static TileFunction *const apart_table[MOST_VECTORS + 1][WIDEST + 1] = {TILES_APART(APART_ENTRY)};

/* Rows are covered by tiles of nearly equal width. */
void conv_tiles(const ConvTile *t)
{
    const bool apart = t->x_pixel != 16 || t->y_pixel != 16;
    const int64_t blocks = t->blocks < BLOCKS_AT_ONCE ? t->blocks : BLOCKS_AT_ONCE;
    const int64_t vectors = blocks * 16 / VECTOR;
    const int64_t width = apart ? widest_apart[vectors] : widest[vectors];
    TileFunction *const *functions = apart ? apart_table[vectors] : tile_table[vectors];
    const int64_t n = (t->pixels + width - 1) / width;
    for (int64_t block = 0; block < t->blocks; block += blocks) {
        for (int64_t row = 0; row < t->rows; row++) {
            const float *x = t->x + row * t->x_row;
            float *y = t->y + row * t->y_row + block * t->y_block;
            for (int64_t i = 0; i < n; i++) {
                const int64_t first = i * t->pixels / n, end = (i + 1) * t->pixels / n;
                functions[end - first](t, x + first * t->x_pixel, t->weights + block * 16,
                                       y + first * t->y_pixel);
            }
        }
    }
}

/* ---- weight gradient ---------------------------------------------------------------------- */

#define TAPS_1(E, M) E(M, 0)
#define TAPS_2(E, M) TAPS_1(E, M) E(M, 1)
#define TAPS_3(E, M) TAPS_2(E, M) E(M, 2)
#define CHANNELS_1(M, t) M(t, 0)
#define CHANNELS_2(M, t) CHANNELS_1(M, t) M(t, 1)
#define CHANNELS_4(M, t) CHANNELS_2(M, t) M(t, 2) M(t, 3)
#define CHANNELS_8(M, t) CHANNELS_4(M, t) M(t, 4) M(t, 5) M(t, 6) M(t, 7)

/* As above with t, i, v for the tap, the channel and the vector. */
#define GRAD_VECTORS_1(M, t, i) M(t, i, 0)
#define GRAD_VECTORS_2(M, t, i) GRAD_VECTORS_1(M, t, i) M(t, i, 1)
#define GRAD_VECTORS_4(M, t, i) GRAD_VECTORS_2(M, t, i) M(t, i, 2) M(t, i, 3)
#define GRAD_PLACE(t, i, v) (dw + (t) * g->depth * row + (i) * row + (v) * VECTOR)
#define GRAD_DECLARE(t, i, v) vector sum_##t##_##i##_##v;
#define GRAD_CLEAR(t, i, v) sum_##t##_##i##_##v = (vector){0};
#define GRAD_LOAD(t, i, v) sum_##t##_##i##_##v = *(const vector *)GRAD_PLACE(t, i, v);
#define GRAD_STORE(t, i, v) *(vector *)GRAD_PLACE(t, i, v) = sum_##t##_##i##_##v;
#define GRAD_MULTIPLY(t, i, v) sum_##t##_##i##_##v += input * dy_##v;
#define GRAD_DECLARES_1(t, i) GRAD_VECTORS_1(GRAD_DECLARE, t, i)
#define GRAD_DECLARES_2(t, i) GRAD_VECTORS_2(GRAD_DECLARE, t, i)
#define GRAD_DECLARES_4(t, i) GRAD_VECTORS_4(GRAD_DECLARE, t, i)
#define GRAD_CLEARS_1(t, i) GRAD_VECTORS_1(GRAD_CLEAR, t, i)
#define GRAD_CLEARS_2(t, i) GRAD_VECTORS_2(GRAD_CLEAR, t, i)
#define GRAD_CLEARS_4(t, i) GRAD_VECTORS_4(GRAD_CLEAR, t, i)
#define GRAD_LOADS_1(t, i) GRAD_VECTORS_1(GRAD_LOAD, t, i)
#define GRAD_LOADS_2(t, i) GRAD_VECTORS_2(GRAD_LOAD, t, i)
#define GRAD_LOADS_4(t, i) GRAD_VECTORS_4(GRAD_LOAD, t, i)
#define GRAD_STORES_1(t, i) GRAD_VECTORS_1(GRAD_STORE, t, i)
#define GRAD_STORES_2(t, i) GRAD_VECTORS_2(GRAD_STORE, t, i)
#define GRAD_STORES_4(t, i) GRAD_VECTORS_4(GRAD_STORE, t, i)
#define GRAD_INPUT(t, i) const vector input = from_##t[i] - (vector){0};
#define GRAD_PRODUCTS_1(t, i) { GRAD_INPUT(t, i) GRAD_VECTORS_1(GRAD_MULTIPLY, t, i) }
#define GRAD_PRODUCTS_2(t, i) { GRAD_INPUT(t, i) GRAD_VECTORS_2(GRAD_MULTIPLY, t, i) }
#define GRAD_PRODUCTS_4(t, i) { GRAD_INPUT(t, i) GRAD_VECTORS_4(GRAD_MULTIPLY, t, i) }
#define GRAD_DY_PLACE(v) ((v) * VECTOR / 16 * g->dy_block + (v) * VECTOR % 16)
#define GRAD_DY(p, v) const vector dy_##v = *(const vector *)(d + GRAD_DY_PLACE(v));
#define GRAD_FROM(M, t) const float *from_##t = x + taps[t] + r * g->x_row;
#define GRAD_NEXT(M, t) from_##t += g->x_pixel;

typedef void GradTileFunction(const ConvGradTile *g, const int64_t *taps, const float *x,
                              const float *dy, float *dw);
#define GRAD_TILE(T, I, V)                                                                         \
    static void grad_tile_##T##x##I##x##V(const ConvGradTile *g, const int64_t *taps,              \
                                          const float *x, const float *dy, float *restrict dw)     \
    {                                                                                              \
        const int64_t row = g->blocks * 16;                                                        \
        TAPS_##T(CHANNELS_##I, GRAD_DECLARES_##V)                                                  \
        if (g->accumulate) {                                                                       \
            TAPS_##T(CHANNELS_##I, GRAD_LOADS_##V)                                                 \
        } else {                                                                                   \
            TAPS_##T(CHANNELS_##I, GRAD_CLEARS_##V)                                                \
        }                                                                                          \
        for (int64_t r = 0; r < g->rows; r++) {                                                    \
            TAPS_##T(GRAD_FROM, )                                                                  \
            const float *d = dy + r * g->dy_row;                                                   \
            for (const float *end = d + g->pixels * 16; d < end; d += 16) {                        \
                VECTORS_##V(GRAD_DY, 0)                                                            \
                TAPS_##T(CHANNELS_##I, GRAD_PRODUCTS_##V)                                          \
                TAPS_##T(GRAD_NEXT, )                                                              \
            }                                                                                      \
        }                                                                                          \
        TAPS_##T(CHANNELS_##I, GRAD_STORES_##V)                                                    \
    }

/* grad_table[blocks][taps], and the input channels of the tiles for so many taps. */
enum { GRAD_TAPS = 3 };
#if VECTOR == 16
enum { GRAD_BLOCKS_AT_ONCE = 2 };
static const int grad_channels[GRAD_TAPS + 1] = {0, 8, 4, 4};
GRAD_TILE(1, 8, 1)
GRAD_TILE(2, 4, 1)
GRAD_TILE(3, 4, 1)
GRAD_TILE(1, 8, 2)
GRAD_TILE(2, 4, 2)
GRAD_TILE(3, 4, 2)
static GradTileFunction *const grad_table[GRAD_BLOCKS_AT_ONCE + 1][GRAD_TAPS + 1] = {
    {0},
    {0, grad_tile_1x8x1, grad_tile_2x4x1, grad_tile_3x4x1},
    {0, grad_tile_1x8x2, grad_tile_2x4x2, grad_tile_3x4x2}};
#elif VECTOR == 8
enum { GRAD_BLOCKS_AT_ONCE = 1 };
static const int grad_channels[GRAD_TAPS + 1] = {0, 4, 2, 2};
GRAD_TILE(1, 4, 2)
GRAD_TILE(2, 2, 2)
GRAD_TILE(3, 2, 2)
static GradTileFunction *const grad_table[GRAD_BLOCKS_AT_ONCE + 1][GRAD_TAPS + 1] = {
    {0}, {0, grad_tile_1x4x2, grad_tile_2x2x2, grad_tile_3x2x2}};
#else
enum { GRAD_BLOCKS_AT_ONCE = 1 };
static const int grad_channels[GRAD_TAPS + 1] = {0, 2, 1, 1};
GRAD_TILE(1, 2, 4)
GRAD_TILE(2, 1, 4)
GRAD_TILE(3, 1, 4)
static GradTileFunction *const grad_table[GRAD_BLOCKS_AT_ONCE + 1][GRAD_TAPS + 1] = {
    {0}, {0, grad_tile_1x2x4, grad_tile_2x1x4, grad_tile_3x1x4}};
#endif

void conv_grad_tiles(const ConvGradTile *g)
{
    const int64_t calls = (g->n_taps + GRAD_TAPS - 1) / GRAD_TAPS;
    const int64_t blocks = g->blocks < GRAD_BLOCKS_AT_ONCE ? g->blocks : GRAD_BLOCKS_AT_ONCE;
    for (int64_t block = 0; block < g->blocks; block += blocks) {
        for (int64_t call = 0; call < calls; call++) {
            const int64_t tap = call * g->n_taps / calls;
            const int64_t taps = (call + 1) * g->n_taps / calls - tap;
            for (int64_t i = 0; i < g->channels; i += grad_channels[taps])
                grad_table[blocks][taps](
                    g, g->taps + tap, g->x + i, g->dy + block * g->dy_block,
                    g->dw + ((tap * g->depth + i) * g->blocks + block) * 16);
        }
    }
}

/* ---- Winograd ------------------------------------------------------------------------------- */

/* The points +-S and +-L, their squares and cubes. */
#define S POINT_S
#define L POINT_L
#define S2 (S * S)
#define L2 (L * L)
#define S3 (S * S2)
#define L3 (L * L2)

/* to = B' from, for 6 vectors some distance apart each. */
INLINE void transform_input(const float *from, int64_t from_step, float *to, int64_t to_step)
{
    const v16 d0 = *(const v16 *)from, d1 = *(const v16 *)(from + from_step),
              d2 = *(const v16 *)(from + 2 * from_step), d3 = *(const v16 *)(from + 3 * from_step),
              d4 = *(const v16 *)(from + 4 * from_step), d5 = *(const v16 *)(from + 5 * from_step);
    const v16 even_s = d4 - L2 * d2, odd_s = d3 - L2 * d1;
    const v16 even_l = d4 - S2 * d2, odd_l = d3 - S2 * d1;
    *(v16 *)to = S2 * L2 * d0 + (d4 - (S2 + L2) * d2);
    *(v16 *)(to + to_step) = even_s + S * odd_s;
    *(v16 *)(to + 2 * to_step) = even_s - S * odd_s;
    *(v16 *)(to + 3 * to_step) = even_l + L * odd_l;
    *(v16 *)(to + 4 * to_step) = even_l - L * odd_l;
    *(v16 *)(to + 5 * to_step) = S2 * L2 * d1 + (d5 - (S2 + L2) * d3);
}

/* Columns of a row of tiles first, which neighbours share, then each tile's rows. */
void conv_winograd_input(const float *patch, int64_t rows, int64_t columns, float *lines, float *to,
                         int64_t plane)
{
    const int64_t pixels = columns * 4 + 2, line = pixels * 16;
    for (int64_t row = 0; row < rows; row++) {
        const float *from = patch + row * 4 * line;
        for (int64_t i = 0; i < pixels; i++)
            transform_input(from + i * 16, line, lines + i * 16, line);
        for (int64_t column = 0; column < columns; column++, to += 16) {
            for (int64_t i = 0; i < 6; i++)
                transform_input(lines + i * line + column * 64, 16, to + i * 6 * plane, plane);
        }
    }
}

/* The 4 elements of A' m. */
#define RESULT_0(m0, m1, m2, m3, m4, m5) (m0 + (m1 + m2) + (m3 + m4))
#define RESULT_1(m0, m1, m2, m3, m4, m5) (S * (m1 - m2) + L * (m3 - m4))
#define RESULT_2(m0, m1, m2, m3, m4, m5) (S2 * (m1 + m2) + L2 * (m3 + m4))
#define RESULT_3(m0, m1, m2, m3, m4, m5) (S3 * (m1 - m2) + (L3 * (m3 - m4) + m5))

/* One tile: 36 points to 4 rows of 4 pixels. */
INLINE void transform_result(const float *from, int64_t plane, float *to, int64_t line)
{
#define POINT(i, j) (*(const v16 *)(from + (6 * i + j) * plane))
#define COLUMN(j)                                                                                  \
    const v16 m0##j = POINT(0, j), m1##j = POINT(1, j), m2##j = POINT(2, j), m3##j = POINT(3, j),  \
              m4##j = POINT(4, j), m5##j = POINT(5, j);                                            \
    const v16 r0##j = RESULT_0(m0##j, m1##j, m2##j, m3##j, m4##j, m5##j),                          \
              r1##j = RESULT_1(m0##j, m1##j, m2##j, m3##j, m4##j, m5##j),                          \
              r2##j = RESULT_2(m0##j, m1##j, m2##j, m3##j, m4##j, m5##j),                          \
              r3##j = RESULT_3(m0##j, m1##j, m2##j, m3##j, m4##j, m5##j);
#define ROW(i)                                                                                     \
    *(v16 *)(to + i * line) = RESULT_0(r##i##0, r##i##1, r##i##2, r##i##3, r##i##4, r##i##5);      \
    *(v16 *)(to + i * line + 16) = RESULT_1(r##i##0, r##i##1, r##i##2, r##i##3, r##i##4, r##i##5); \
    *(v16 *)(to + i * line + 32) = RESULT_2(r##i##0, r##i##1, r##i##2, r##i##3, r##i##4, r##i##5); \
    *(v16 *)(to + i * line + 48) = RESULT_3(r##i##0, r##i##1, r##i##2, r##i##3, r##i##4, r##i##5);
    COLUMN(0)
    COLUMN(1)
    COLUMN(2)
    COLUMN(3)
    COLUMN(4)
    COLUMN(5)
    ROW(0)
    ROW(1)
    ROW(2)
    ROW(3)
}

void conv_winograd_results(const float *from, int64_t rows, int64_t columns, float *to,
                           int64_t plane)
{
    const int64_t line = columns * 64;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t column = 0; column < columns; column++, from += 16)
            transform_result(from, plane, to + row * 4 * line + column * 64, line);
    }
}

static void gather_block(const ConvWeights *w, int64_t k, int64_t c, ConvBlock out)
{
    const int64_t row = w->C * 9, lanes = min64(16, w->K - k);
    const float *weights = w->weights + k * row + c * 9;
    if (lanes < 16 || w->C - c < 16) {
        const int64_t length = min64(16, w->C - c) * 9;
        memset(out, 0, sizeof(ConvBlock));
        for (int64_t lane = 0; lane < lanes; lane++) {
            for (int64_t i = 0; i < length; i++)
                out[i][lane] = weights[lane * row + i];
        }
        return;
    }
    for (int64_t i = 0; i < 144; i += 16) {
        const float *from[16];
        float *to[16];
        for (int64_t j = 0; j < 16; j++) {
            from[j] = weights + j * row + i;
            to[j] = out[i + j];
        }
        conv_transpose(from, to);
    }
}

/* One channel's weights lie together, 9 an output channel. conv_transpose reads 16 from each on,
 * so it reads a copy, which is longer. */
static void gather_turned(const ConvWeights *w, int64_t k, int64_t c, ConvBlock out)
{
    const int64_t lanes = min64(16, w->K - k), channels = min64(16, w->C - c);
    float copy[16 * 9 + 16] = {0}, rest[16];
    for (int64_t channel = 0; channel < channels; channel++) {
        const float *from[16];
        float *to[16];
        memcpy(copy, w->weights + ((c + channel) * w->K + k) * 9,
               (size_t)lanes * 36);
        for (int64_t j = 0; j < 16; j++) {
            from[j] = copy + j * 9;
            to[j] = j < 9 ? out[channel * 9 + 8 - j] : rest;
        }
        conv_transpose(from, to);
    }
}

void conv_gather_weights(const ConvWeights *w, int64_t k, int64_t c, ConvBlock out)
{
    (w->turned ? gather_turned : gather_block)(w, k, c, out);
}

void conv_store_weights(const ConvBlock from, int64_t k, int64_t c, int64_t K, int64_t C, bool add,
                        float *dw)
{
    const int64_t lanes = min64(16, K - k), count = 9 * min64(16, C - c);
    float *out = dw + (k * C + c) * 9;
    for (int64_t i = 0; i < count; i += 16) {
        const bool straight = !add && lanes == 16 && i + 16 <= count;
        float rows[16][16] __attribute__((aligned(64)));
        const float *row[16];
        float *to[16];
        for (int64_t j = 0; j < 16; j++) {
            row[j] = from[i + j];
            to[j] = straight ? out + j * C * 9 + i : rows[j];
        }
        conv_transpose(row, to);
        for (int64_t lane = 0; lane < (straight ? 0 : lanes); lane++) {
            float *at = out + lane * C * 9 + i;
            if (add && i + 16 <= count) {
                store16(at, load16(at) + *(const v16 *)rows[lane]);
                continue;
            }
            for (int64_t j = 0; j < min64(16, count - i); j++)
                at[j] = add ? at[j] + rows[lane][j] : rows[lane][j];
        }
    }
}

/* What the weights are divided by at the points. */
#define BY_S (2 * S2 * (S2 - L2))
#define BY_L (2 * L2 * (L2 - S2))

/* to = G from, 3 vectors to 6. */
INLINE void transform_weights(v16 g0, v16 g1, v16 g2, v16 to[6])
{
    const v16 even_s = g0 * (1 / BY_S) + g2 * (S2 / BY_S);
    const v16 even_l = g0 * (1 / BY_L) + g2 * (L2 / BY_L);
    to[0] = g0 * (1 / (S2 * L2));
    to[1] = even_s + g1 * (S / BY_S);
    to[2] = even_s - g1 * (S / BY_S);
    to[3] = even_l + g1 * (L / BY_L);
    to[4] = even_l - g1 * (L / BY_L);
    to[5] = g2;
}

static void transform_channel(const v16 g[9], float *out, int64_t plane)
{
    v16 column[3][6], row[6];
    for (int64_t j = 0; j < 3; j++)
        transform_weights(g[j], g[3 + j], g[6 + j], column[j]);
    for (int64_t i = 0; i < 6; i++) {
        transform_weights(column[0][i], column[1][i], column[2][i], row);
        for (int64_t j = 0; j < 6; j++)
            *(v16 *)(out + (i * 6 + j) * plane) = row[j];
    }
}

void conv_winograd_weights(const ConvWeights *w, int64_t k, int64_t c, float *to, int64_t step,
                           int64_t plane)
{
    ConvBlock block __attribute__((aligned(64)));
    conv_gather_weights(w, k, c, block);
    for (int64_t channel = 0; channel < 16 && c + channel < w->C; channel++)
        transform_channel((const v16 *)block[channel * 9], to + channel * step, plane);
}

/* ---- transposing ---------------------------------------------------------------------------- */

#if VECTOR == 16 && defined __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLES
#endif
#endif

#ifdef SHUFFLES
/* Exchanges the upper elements of each 2*n of a with the lower ones of b (Eklundh 1972). */
#define LOW_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define LOW_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define HIGH_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define LOW_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define HIGH_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define LOW_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define HIGH_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define EXCHANGE(n, a, b)                                 \
    {                                                     \
        const v16 low = SHUFFLE(r##a, r##b, LOW_##n);     \
        r##b = SHUFFLE(r##a, r##b, HIGH_##n);             \
        r##a = low;                                       \
    }
#define ROWS(M)                                                                                    \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define GET(i) v16 r##i = *(const v16u *)from[i];
#define PUT(i) *(v16u *)to[i] = r##i;

void conv_transpose(const float *const from[16], float *const to[16])
{
    ROWS(GET)
    EXCHANGE(8, 0, 8) EXCHANGE(8, 1, 9) EXCHANGE(8, 2, 10) EXCHANGE(8, 3, 11)
    EXCHANGE(8, 4, 12) EXCHANGE(8, 5, 13) EXCHANGE(8, 6, 14) EXCHANGE(8, 7, 15)
    EXCHANGE(4, 0, 4) EXCHANGE(4, 1, 5) EXCHANGE(4, 2, 6) EXCHANGE(4, 3, 7)
    EXCHANGE(4, 8, 12) EXCHANGE(4, 9, 13) EXCHANGE(4, 10, 14) EXCHANGE(4, 11, 15)
    EXCHANGE(2, 0, 2) EXCHANGE(2, 1, 3) EXCHANGE(2, 4, 6) EXCHANGE(2, 5, 7)
    EXCHANGE(2, 8, 10) EXCHANGE(2, 9, 11) EXCHANGE(2, 12, 14) EXCHANGE(2, 13, 15)
    EXCHANGE(1, 0, 1) EXCHANGE(1, 2, 3) EXCHANGE(1, 4, 5) EXCHANGE(1, 6, 7)
    EXCHANGE(1, 8, 9) EXCHANGE(1, 10, 11) EXCHANGE(1, 12, 13) EXCHANGE(1, 14, 15)
    ROWS(PUT)
}
#else
void conv_transpose(const float *const from[16], float *const to[16])
{
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 16; j++)
            to[i][j] = from[j][i];
    }
}
#endif
