/* The micro-kernels of the convolutions, and what their templates share; conv_tiles.c has the
 * bodies and is compiled once, every kernel made from a conv template is linked with it. This text
 * stands behind prelude.h.
 *
 * A patch is the part of an operand that a task works on, [blocks][rows][columns][16], with zeros
 * wherever a window reaches over the tensor's edge: the micro-kernels know no edges. A tap is one
 * place of the window in one block of input channels: where it lies in the patch and in the
 * weights. Taps are a table, so one micro-kernel serves all kernels, dilations, transposed phases
 * and 1x1. Distances are in floats.
 */
#include <stdbool.h>

typedef struct {
    int64_t x;         /* from the pixel's address in the patch */
    int64_t weights;   /* from ConvTile.weights */
    int64_t channels;  /* 1 to 16 */
} ConvTap;

/* y[block][row][pixel][16] (+)= sum over taps and channels of x * weights. */
typedef struct {
    const float *x, *weights; /* weights: [channel][blocks * 16] at each tap */
    float *y;
    const ConvTap *taps;
    int64_t n_taps;           /* none: y becomes zero, or stays */
    int64_t rows, pixels, blocks;
    int64_t x_row, x_pixel;   /* from one result row or pixel to the next */
    int64_t y_row, y_pixel, y_block;
    bool accumulate;          /* add to y */
} ConvTile;
enum { CONV_TILE_BLOCKS = 4 };         /* most blocks of a ConvTile */
void conv_tiles(const ConvTile *);

/* dw[tap][channel][blocks * 16] (+)= sum over rows and pixels of x at the tap * dy. */
typedef struct {
    const float *x, *dy;
    float *dw;
    const int64_t *taps;      /* each one's place in the patch */
    int64_t n_taps;
    int64_t channels;         /* 1 to 16; up to `depth` may be computed */
    int64_t depth;            /* channels in dw, a multiple of 8 */
    int64_t rows, pixels, blocks;
    int64_t x_row, x_pixel;
    int64_t dy_row, dy_block;
    bool accumulate;          /* add to dw */
} ConvGradTile;
enum { CONV_GRAD_TILE_BLOCKS = 2 };
void conv_grad_tiles(const ConvGradTile *);

/* Winograd's minimal filtering of 3x3 windows takes polynomials at 0, +-POINT_S, +-POINT_L and
 * infinity. Beside the usual 0, +-1, +-2 these take as many operations, all constants are exact in
 * float too, and the error is a quarter (Barabasz et al. 2020 show why the points matter). */
#define POINT_S 0.625f
#define POINT_L 1.5f
/* to[point][row][column][16] = B' d B for rows x columns tiles d of 6x6 pixels, 4 apart, of a patch
 * with 4 * columns + 2 pixels a row; `plane` floats from one of the 36 points to the next. `lines`
 * is memory for 6 rows of the patch. */
void conv_winograd_input(const float *patch, int64_t rows, int64_t columns, float *lines, float *to,
                         int64_t plane);
/* to[4 * rows][4 * columns][16] = A' m A for the products m[point][row][column][16]. */
void conv_winograd_results(const float *from, int64_t rows, int64_t columns, float *to,
                           int64_t plane);
/* to[point][channel][16] = G g G' for the weights g of 16 output channels, from k on, and up to 16
 * input channels, from c on, `step` floats apart; zeros for lanes behind K. */
typedef struct {
    const float *weights;     /* [K][C][3][3]; turned: [C][K][3][3], by 180 degrees */
    int64_t C, K;
    bool turned;
} ConvWeights;
/* The weights of one input and one output block: [channel][tap][16], zero behind the last output
 * channel. What lies behind the last input channel of `turned` ones is left as it is. */
typedef float ConvBlock[16 * 9][16];
void conv_gather_weights(const ConvWeights *, int64_t k, int64_t c, ConvBlock out);
void conv_winograd_weights(const ConvWeights *, int64_t k, int64_t c, float *to, int64_t step,
                           int64_t plane);
/* The gradient for 16 input channels, from c on, of 16 output channels, from k on: stored in, or
 * added to, dw [K][C][3][3]. */
void conv_store_weights(const ConvBlock from, int64_t k, int64_t c, int64_t K, int64_t C, bool add,
                        float *dw);

/* Of the gradient's filtering, one-dimensional. to = A from, 4 vectors of dy to 6. */
INLINE void conv_filter_dy(const float *from, int64_t from_step, float *to, int64_t to_step)
{
    const float S = POINT_S, L = POINT_L;
    const v16 y0 = load16(from), y1 = load16(from + from_step), y2 = load16(from + 2 * from_step),
              y3 = load16(from + 3 * from_step);
    const v16 even_s = y0 + S * S * y2, odd_s = y1 + S * S * y3;
    const v16 even_l = y0 + L * L * y2, odd_l = y1 + L * L * y3;
    *(v16 *)to = y0;
    *(v16 *)(to + to_step) = even_s + S * odd_s;
    *(v16 *)(to + 2 * to_step) = even_s - S * odd_s;
    *(v16 *)(to + 3 * to_step) = even_l + L * odd_l;
    *(v16 *)(to + 4 * to_step) = even_l - L * odd_l;
    *(v16 *)(to + 5 * to_step) = y3;
}

/* to = G' from, 6 vectors of sums to 3; by BY_S and BY_L a convolution's weights are divided. */
INLINE void conv_filter_sums(const float *from, int64_t from_step, float *to, int64_t to_step)
{
    const float S = POINT_S, L = POINT_L;
    const float BY_S = 2 * S * S * (S * S - L * L), BY_L = 2 * L * L * (L * L - S * S);
    const v16 m0 = load16(from), m1 = load16(from + from_step), m2 = load16(from + 2 * from_step),
              m3 = load16(from + 3 * from_step), m4 = load16(from + 4 * from_step),
              m5 = load16(from + 5 * from_step);
    const v16 even_s = m1 + m2, odd_s = m1 - m2, even_l = m3 + m4, odd_l = m3 - m4;
    *(v16 *)to = 1 / (S * S * L * L) * m0 + (1 / BY_S * even_s + 1 / BY_L * even_l);
    *(v16 *)(to + to_step) = S / BY_S * odd_s + L / BY_L * odd_l;
    *(v16 *)(to + 2 * to_step) = m5 + (S * S / BY_S * even_s + L * L / BY_L * even_l);
}

/* Transposes 16 x 16 floats: to[i][j] = from[j][i]. The rows may be anywhere. */
void conv_transpose(const float *const from[16], float *const to[16]);

typedef void ReadRow(const KernelArguments *, int64_t n, int64_t cb, int64_t h, int64_t w,
                     int64_t count, float *restrict out);

/* What a conv template that is compiled once is called with: a kernel's arguments and its rows. */
typedef struct {
    KernelArguments arguments;      /* first: the template sees these alone */
    ReadRow *read_x, *read_dy;      /* those there are; also of the next two */
    void (*write_y)(const KernelArguments *, int64_t n, int64_t cb, int64_t h, int64_t w,
                    int64_t count, const float *restrict in, v16 *accumulators);
    void (*finish_y)(const KernelArguments *, int64_t n, int64_t part, int64_t cb,
                     v16 *accumulators);
    int64_t accumulators;           /* of a channel block */
    bool dense_x, dense_y;          /* rows of x, or of y, are [count] of one channel: cb is it */
} ConvCall;

/* Rows `top`... and columns `left`... of one channel block; zeros outside the H x W tensor. */
INLINE void conv_patch(const KernelArguments *a, ReadRow *read, int64_t n, int64_t cb,
                              int64_t H, int64_t W, int64_t top, int64_t left, int64_t rows,
                              int64_t columns, float *out)
{
    const int64_t first = left < 0 ? (-left < columns ? -left : columns) : 0;
    const int64_t end = W - left < columns ? (W - left > first ? W - left : first) : columns;
    for (int64_t row = 0; row < rows; row++, out += columns * 16) {
        const int64_t h = top + row;
        if (h < 0 || h >= H || end == first) {
            memset(out, 0, (size_t)columns * 64);
            continue;
        }
        memset(out, 0, (size_t)first * 64);
        read(a, n, cb, h, left + first, end - first, out + first * 16);
        memset(out + end * 16, 0, (size_t)(columns - end) * 64);
    }
}
