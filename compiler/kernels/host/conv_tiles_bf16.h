/* The micro-kernels of convolutions whose operands are rounded to bf16, for the target host-bf16;
 * conv_tiles_bf16.c has the bodies. This text stands behind conv_tiles.h.
 *
 * A word is a pair of bf16 that meet another pair in a product: two neighbouring channels, the
 * lower one in the lower half, or two neighbouring pixels. A sum grows by both products of a word,
 * in float. Distances in the operands are in words, those in y and dw in floats.
 */
typedef struct {
    const uint32_t *x;        /* [pixel][8 pairs of channels] */
    const uint32_t *weights;  /* [pair of channels][blocks * 16] at each tap */
    float *y;                 /* [block][row][pixel][16] (+)= sum over taps and channels */
    const ConvTap *taps;      /* in words; `channels` counts pairs, 1 to 8 */
    int64_t n_taps;
    int64_t rows, pixels, blocks;
    int64_t x_row, y_row, y_block;
    bool accumulate;
} PairTile;
void conv_pair_tiles(const PairTile *);

/* dw[tap][16 channels][blocks * 16] (+)= sum over pixels of x at the tap * dy. */
typedef struct {
    const uint32_t *x, *dy;   /* [pair of pixels][16] */
    float *dw;
    const int64_t *taps;      /* each one's place in x */
    int64_t n_taps;
    int64_t rows, pixels, blocks; /* pixels: pairs of them */
    int64_t x_row, dy_row, dy_block;
    bool accumulate;
} PairGradTile;
void conv_pair_grad_tiles(const PairGradTile *);

/* The words of two vectors: `low` in the lower halves. */
typedef uint32_t v16p __attribute__((vector_size(64), may_alias));
INLINE v16p pair16(v16 low, v16 high)
{
    return __builtin_convertvector(narrow16(low), v16w)
           | __builtin_convertvector(narrow16(high), v16w) << 16;
}

/* One-dimensional filtering F(4, 3) at the points of conv_tiles.h, along a row: what conv_winograd.c
 * does in both directions. to = B' from, 6 vectors to 6. */
INLINE void conv_line_input(const float *from, v16 to[6])
{
    const float S = POINT_S, L = POINT_L, S2 = S * S, L2 = L * L;
    const v16 d0 = load16(from), d1 = load16(from + 16), d2 = load16(from + 32),
              d3 = load16(from + 48), d4 = load16(from + 64), d5 = load16(from + 80);
    const v16 even_s = d4 - L2 * d2, odd_s = d3 - L2 * d1;
    const v16 even_l = d4 - S2 * d2, odd_l = d3 - S2 * d1;
    to[0] = S2 * L2 * d0 + (d4 - (S2 + L2) * d2);
    to[1] = even_s + S * odd_s;
    to[2] = even_s - S * odd_s;
    to[3] = even_l + L * odd_l;
    to[4] = even_l - L * odd_l;
    to[5] = S2 * L2 * d1 + (d5 - (S2 + L2) * d3);
}
