/* Micro-kernels on pairs of bf16: see conv_tiles_bf16.h for what they compute. This text stands
 * behind conv_tiles.c, whose lists and tiles it takes: the sums are the same, in as many registers.
 *
 * With AVX512_BF16 one instruction multiplies and adds 32 pairs' elements. Without it both halves
 * are made floats first: nearly the same results, at less than the speed of conv_tiles.
 */
typedef uint32_t pairs __attribute__((vector_size(VECTOR * 4), may_alias));

#if VECTOR == 16 && defined __AVX512BF16__
#define DOT(sum, a, b) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#else
#define UPPER(a) ((vector)((a) & 0xffff0000u))
#define LOWER(a) ((vector)((a) << 16))
#define DOT(sum, a, b)                \
    sum += LOWER(a) * LOWER(b);       \
    sum += UPPER(a) * UPPER(b);
#endif

#define PAIR_WEIGHT(p, v) const pairs weight_##v = *(const pairs *)(w + (v) * VECTOR);
#define PAIR_MULTIPLY(p, v) DOT(sum_##p##_##v, weight_##v, input)
#define NEXT_PAIR { const pairs input = *pixel - (pairs){0}; pixel += 8;
#define PAIR_PRODUCTS_1(M, p) NEXT_PAIR VECTORS_1(PAIR_MULTIPLY, p) }
#define PAIR_PRODUCTS_2(M, p) NEXT_PAIR VECTORS_2(PAIR_MULTIPLY, p) }
#define PAIR_PRODUCTS_3(M, p) NEXT_PAIR VECTORS_3(PAIR_MULTIPLY, p) }
#define PAIR_PRODUCTS_4(M, p) NEXT_PAIR VECTORS_4(PAIR_MULTIPLY, p) }

typedef void PairTileFunction(const PairTile *t, const uint32_t *x, const uint32_t *weights,
                              float *y);
#define PAIR_TILE(P, V)                                                                            \
    static void pair_tile_##P##x##V(const PairTile *t, const uint32_t *x, const uint32_t *weights, \
                                    float *restrict y)                                             \
    {                                                                                              \
        const int64_t row = t->blocks * 16, y_step = 16;                                           \
        VECTORS_##V(TO, 0)                                                                         \
        PIXELS_##P(VECTORS_##V, DECLARE)                                                           \
        PIXELS_##P(VECTORS_##V, CLEAR)                                                             \
        for (const ConvTap *tap = t->taps, *end = tap + t->n_taps; tap < end; tap++) {             \
            const uint32_t *w = weights + tap->weights;                                            \
            const uint32_t *from = x + tap->x;                                                     \
            for (const uint32_t *last = from + tap->channels; from < last; from++, w += row) {     \
                const uint32_t *pixel = from;                                                      \
                VECTORS_##V(PAIR_WEIGHT, 0)                                                        \
                PIXELS_##P(PAIR_PRODUCTS_##V, )                                                    \
            }                                                                                      \
        }                                                                                          \
        if (t->accumulate) {                                                                       \
            PIXELS_##P(VECTORS_##V, ADD)                                                           \
        }                                                                                          \
        PIXELS_##P(VECTORS_##V, STORE)                                                             \
    }
TILES(PAIR_TILE)
#define PAIR_ENTRY(P, V) [V][P] = pair_tile_##P##x##V,
static PairTileFunction *const pair_table[MOST_VECTORS + 1][WIDEST + 1] = {TILES(PAIR_ENTRY)};

void conv_pair_tiles(const PairTile *t)
{
    const int64_t blocks = t->blocks < BLOCKS_AT_ONCE ? t->blocks : BLOCKS_AT_ONCE;
    const int64_t vectors = blocks * 16 / VECTOR, width = widest[vectors];
    const int64_t n = (t->pixels + width - 1) / width;
    for (int64_t block = 0; block < t->blocks; block += blocks) {
        for (int64_t row = 0; row < t->rows; row++) {
            const uint32_t *x = t->x + row * t->x_row;
            float *y = t->y + row * t->y_row + block * t->y_block;
            for (int64_t i = 0; i < n; i++) {
                const int64_t first = i * t->pixels / n, end = (i + 1) * t->pixels / n;
                pair_table[vectors][end - first](t, x + first * 8, t->weights + block * 16,
                                                 y + first * 16);
            }
        }
    }
}

/* ---- weight gradient ---------------------------------------------------------------------- */

#define PAIR_GRAD_PLACE(t, i, v) (dw + (t) * 16 * row + (i) * row + (v) * VECTOR)
#define PAIR_GRAD_LOAD(t, i, v) sum_##t##_##i##_##v = *(const vector *)PAIR_GRAD_PLACE(t, i, v);
#define PAIR_GRAD_STORE(t, i, v) *(vector *)PAIR_GRAD_PLACE(t, i, v) = sum_##t##_##i##_##v;
#define PAIR_GRAD_MULTIPLY(t, i, v) DOT(sum_##t##_##i##_##v, dy_##v, input)
#define PAIR_GRAD_LOADS_1(t, i) GRAD_VECTORS_1(PAIR_GRAD_LOAD, t, i)
#define PAIR_GRAD_LOADS_2(t, i) GRAD_VECTORS_2(PAIR_GRAD_LOAD, t, i)
#define PAIR_GRAD_LOADS_4(t, i) GRAD_VECTORS_4(PAIR_GRAD_LOAD, t, i)
#define PAIR_GRAD_STORES_1(t, i) GRAD_VECTORS_1(PAIR_GRAD_STORE, t, i)
#define PAIR_GRAD_STORES_2(t, i) GRAD_VECTORS_2(PAIR_GRAD_STORE, t, i)
#define PAIR_GRAD_STORES_4(t, i) GRAD_VECTORS_4(PAIR_GRAD_STORE, t, i)
#define PAIR_GRAD_INPUT(t, i) const pairs input = from_##t[i] - (pairs){0};
#define PAIR_GRAD_PRODUCTS_1(t, i)                                                                 \
    { PAIR_GRAD_INPUT(t, i) GRAD_VECTORS_1(PAIR_GRAD_MULTIPLY, t, i) }
#define PAIR_GRAD_PRODUCTS_2(t, i)                                                                 \
    { PAIR_GRAD_INPUT(t, i) GRAD_VECTORS_2(PAIR_GRAD_MULTIPLY, t, i) }
#define PAIR_GRAD_PRODUCTS_4(t, i)                                                                 \
    { PAIR_GRAD_INPUT(t, i) GRAD_VECTORS_4(PAIR_GRAD_MULTIPLY, t, i) }
#define PAIR_GRAD_DY(p, v) const pairs dy_##v = *(const pairs *)(d + GRAD_DY_PLACE(v));
#define PAIR_GRAD_FROM(M, t) const uint32_t *from_##t = x + taps[t] + r * g->x_row;
#define PAIR_GRAD_NEXT(M, t) from_##t += 16;

typedef void PairGradFunction(const PairGradTile *g, const int64_t *taps, const uint32_t *x,
                              const uint32_t *dy, float *dw);
#define PAIR_GRAD_TILE(T, I, V)                                                                    \
    static void pair_grad_##T##x##I##x##V(const PairGradTile *g, const int64_t *taps,              \
                                          const uint32_t *x, const uint32_t *dy,                   \
                                          float *restrict dw)                                      \
    {                                                                                              \
        const int64_t row = g->blocks * 16;                                                        \
        TAPS_##T(CHANNELS_##I, GRAD_DECLARES_##V)                                                  \
        if (g->accumulate) {                                                                       \
            TAPS_##T(CHANNELS_##I, PAIR_GRAD_LOADS_##V)                                            \
        } else {                                                                                   \
            TAPS_##T(CHANNELS_##I, GRAD_CLEARS_##V)                                                \
        }                                                                                          \
        for (int64_t r = 0; r < g->rows; r++) {                                                    \
            TAPS_##T(PAIR_GRAD_FROM, )                                                             \
            const uint32_t *d = dy + r * g->dy_row;                                                \
            for (const uint32_t *end = d + g->pixels * 16; d < end; d += 16) {                     \
                VECTORS_##V(PAIR_GRAD_DY, 0)                                                       \
                TAPS_##T(CHANNELS_##I, PAIR_GRAD_PRODUCTS_##V)                                     \
                TAPS_##T(PAIR_GRAD_NEXT, )                                                         \
            }                                                                                      \
        }                                                                                          \
        TAPS_##T(CHANNELS_##I, PAIR_GRAD_STORES_##V)                                               \
    }

#if VECTOR == 16
PAIR_GRAD_TILE(1, 8, 1)
PAIR_GRAD_TILE(2, 4, 1)
PAIR_GRAD_TILE(3, 4, 1)
PAIR_GRAD_TILE(1, 8, 2)
PAIR_GRAD_TILE(2, 4, 2)
PAIR_GRAD_TILE(3, 4, 2)
static PairGradFunction *const pair_grad_table[GRAD_BLOCKS_AT_ONCE + 1][GRAD_TAPS + 1] = {
    {0},
    {0, pair_grad_1x8x1, pair_grad_2x4x1, pair_grad_3x4x1},
    {0, pair_grad_1x8x2, pair_grad_2x4x2, pair_grad_3x4x2}};
#elif VECTOR == 8
PAIR_GRAD_TILE(1, 4, 2)
PAIR_GRAD_TILE(2, 2, 2)
PAIR_GRAD_TILE(3, 2, 2)
static PairGradFunction *const pair_grad_table[GRAD_BLOCKS_AT_ONCE + 1][GRAD_TAPS + 1] = {
    {0}, {0, pair_grad_1x4x2, pair_grad_2x2x2, pair_grad_3x2x2}};
#else
PAIR_GRAD_TILE(1, 2, 4)
PAIR_GRAD_TILE(2, 1, 4)
PAIR_GRAD_TILE(3, 1, 4)
static PairGradFunction *const pair_grad_table[GRAD_BLOCKS_AT_ONCE + 1][GRAD_TAPS + 1] = {
    {0}, {0, pair_grad_1x2x4, pair_grad_2x1x4, pair_grad_3x1x4}};
#endif

void conv_pair_grad_tiles(const PairGradTile *g)
{
    const int64_t calls = (g->n_taps + GRAD_TAPS - 1) / GRAD_TAPS;
    const int64_t blocks = g->blocks < GRAD_BLOCKS_AT_ONCE ? g->blocks : GRAD_BLOCKS_AT_ONCE;
    for (int64_t block = 0; block < g->blocks; block += blocks) {
        for (int64_t call = 0; call < calls; call++) {
            const int64_t tap = call * g->n_taps / calls;
            const int64_t taps = (call + 1) * g->n_taps / calls - tap;
            for (int64_t i = 0; i < 16; i += grad_channels[taps])
                pair_grad_table[blocks][taps](
                    g, g->taps + tap, g->x + i, g->dy + block * g->dy_block,
                    g->dw + ((tap * 16 + i) * g->blocks + block) * 16);
        }
    }
}
