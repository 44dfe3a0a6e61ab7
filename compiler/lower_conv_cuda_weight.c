/* How gradients of convolutions for their weights are launched on CUDA, and convolutions in groups.
 *
 * The tiles of conv_grad_weight.cu are a table. Each entry that can do a shape gets an estimate of
 * its clocks on a GPU like the H100: products, loads through the operands' expressions, and the
 * addition of splits. The cheapest is the default, the next ones are candidates; they share the
 * default's splits and workspace.
 */
#include "lower_conv_cuda.h"

#include <string.h>

enum {
    UNITS = 132,                   /* multiprocessors */
    BATCH = 8,                     /* samples that the estimates are for */
    MOST_WAVES = 3,                /* blocks a place on the device */
    WORKSPACE_BYTES = 64 << 20,
    SHARED_BYTES = 99 << 10,       /* what a block may have on every device from sm_80 on */
    OLD_SHARED_BYTES = 64 << 10,   /* fp32: and before */
    STEP_CLOCKS = 300,             /* that no product fills */
    BLOCK_CLOCKS = 4000,           /* before and behind the steps */
    LAUNCH_CLOCKS = 4000,
    CLOCK_BYTES = 1700,            /* of memory */
    CANDIDATES = 4,
    HEAD_BYTES = 128,              /* HEAD_BYTES of conv_grad_weight.cu */
    FEW_CHANNELS = 8,              /* fewer are columns: see conv_grad_weight.cu */
    /* Groups. */
    GROUPED_THREADS = 256,
    GROUPED_BLOCKS = 4 * UNITS,
    GROUPED_TAPS = 9,              /* MOST_TAPS of conv_depthwise_grad_weight.cu */
    GROUPED_LANE_BYTES = 9 * 256 + 16, /* LANE_BYTES of conv_grouped.cu */
    DEPTHWISE_BYTES = 32 << 10,    /* of shared weights */
};
#define GROUPED_DEFINES "#define THREADS 256\n"

/* An instance of conv_grad_weight.cu. */
typedef struct {
    const char *defines;
    int precision, threads;
    int blocks;                    /* that a multiprocessor holds */
    int k, c, warp_k, rows, columns, stride, p, q;
    int loads;                     /* of x, for columns; else 0 */
} Tile;

#define DEFINES(T, BLOCKS, K, C, WK, WC, R, S, STRIDE, P, Q)                                       \
    "#define THREADS " #T "\n#define BLOCKS " #BLOCKS                                              \
    "\n#define TILE_K " #K "\n#define TILE_C " #C "\n#define WARP_K " #WK "\n#define WARP_C " #WC  \
    "\n#define TAP_ROWS " #R "\n#define TAP_COLUMNS " #S "\n#define PATCH_STRIDE " #STRIDE         \
    "\n#define TILE_P " #P "\n#define TILE_Q " #Q "\n"
#define TILE(PRECISION, T, BLOCKS, K, C, WK, WC, R, S, STRIDE, P, Q)                               \
    { DEFINES(T, BLOCKS, K, C, WK, WC, R, S, STRIDE, P, Q), CUDA_##PRECISION, T, BLOCKS, K, C, WK, \
      R, S, STRIDE, P, Q, 0 }
#define COLUMNS(PRECISION, T, BLOCKS, K, C, WK, WC, P, Q, LOADS)                                   \
    { DEFINES(T, BLOCKS, K, C, WK, WC, 1, 1, 1, P, Q)                                              \
      "#define COLUMNS\n#define X_LOADS " #LOADS "\n",                                             \
      CUDA_##PRECISION, T, BLOCKS, K, C, WK, 1, 1, 1, P, Q, LOADS }

static const Tile tiles[] = {
    /*  threads, blocks; K   C  a warp's  taps stride  pixels */
    TILE(BF16, 256, 1, 64, 64, 64, 8, 3, 3, 1, 8, 16),
    TILE(BF16, 256, 1, 64, 32, 32, 8, 3, 3, 1, 8, 8),
    TILE(BF16, 128, 2, 64, 32, 64, 8, 3, 3, 1, 8, 16),
    TILE(BF16, 128, 2, 32, 32, 32, 8, 3, 3, 1, 8, 16),
    TILE(BF16, 256, 1, 16, 64, 16, 8, 3, 3, 1, 8, 16),
    TILE(BF16, 256, 1, 64, 64, 64, 8, 3, 3, 2, 4, 8),
    TILE(BF16, 128, 2, 32, 32, 32, 8, 3, 3, 2, 4, 8),
    TILE(BF16, 256, 1, 64, 64, 32, 16, 2, 2, 2, 8, 8),
    TILE(BF16, 256, 1, 128, 64, 64, 16, 2, 2, 2, 4, 8),
    TILE(BF16, 256, 1, 128, 128, 64, 32, 1, 1, 1, 8, 8),
    TILE(BF16, 256, 2, 64, 64, 32, 16, 1, 1, 1, 8, 16),
    TILE(BF16, 128, 3, 16, 64, 16, 16, 1, 1, 1, 8, 16),
    TILE(BF16, 128, 3, 32, 32, 32, 8, 1, 1, 1, 8, 16),
    TILE(TF32, 256, 1, 64, 64, 64, 8, 3, 3, 1, 8, 8),
    TILE(TF32, 128, 2, 64, 32, 64, 8, 3, 3, 1, 8, 8),
    TILE(TF32, 128, 2, 32, 32, 32, 8, 3, 3, 1, 8, 8),
    TILE(TF32, 256, 1, 16, 64, 16, 8, 3, 3, 1, 8, 8),
    TILE(TF32, 256, 1, 64, 64, 64, 8, 3, 3, 2, 2, 8),
    TILE(TF32, 128, 2, 32, 32, 32, 8, 3, 3, 2, 4, 8),
    TILE(TF32, 256, 1, 64, 64, 32, 16, 2, 2, 2, 4, 8),
    TILE(TF32, 128, 2, 64, 32, 64, 8, 2, 2, 2, 4, 8),
    TILE(TF32, 256, 1, 128, 128, 64, 32, 1, 1, 1, 4, 8),
    TILE(TF32, 256, 2, 64, 64, 32, 16, 1, 1, 1, 8, 8),
    TILE(TF32, 128, 3, 16, 64, 16, 16, 1, 1, 1, 8, 8),
    TILE(TF32, 128, 3, 32, 32, 32, 8, 1, 1, 1, 8, 8),
    TILE(FP32, 256, 1, 64, 64, 64, 8, 3, 3, 1, 4, 8),
    TILE(FP32, 128, 2, 32, 32, 32, 8, 3, 3, 1, 4, 8),
    TILE(FP32, 256, 1, 16, 64, 16, 8, 3, 3, 1, 4, 8),
    TILE(FP32, 256, 1, 64, 64, 64, 8, 3, 3, 2, 2, 8),
    TILE(FP32, 256, 1, 64, 64, 32, 16, 2, 2, 2, 2, 8),
    TILE(FP32, 256, 2, 64, 64, 32, 16, 1, 1, 1, 4, 8),
    TILE(FP32, 128, 3, 16, 64, 16, 16, 1, 1, 1, 8, 8),
    TILE(FP32, 128, 3, 32, 32, 32, 8, 1, 1, 1, 8, 8),
    /*     threads, blocks; K  C  a warp's pixels loads */
    COLUMNS(BF16, 256, 2, 64, 32, 32, 8, 8, 16, 1),
    COLUMNS(BF16, 256, 2, 64, 160, 32, 40, 8, 16, 4),
    COLUMNS(BF16, 256, 2, 16, 128, 16, 16, 8, 16, 2),
    COLUMNS(BF16, 128, 4, 16, 32, 16, 8, 8, 16, 2),
    COLUMNS(TF32, 256, 2, 64, 32, 32, 8, 8, 8, 2),
    COLUMNS(TF32, 256, 2, 64, 160, 32, 40, 8, 8, 2),
    COLUMNS(TF32, 256, 2, 16, 128, 16, 16, 8, 8, 2),
    COLUMNS(TF32, 128, 4, 16, 32, 16, 8, 8, 8, 3),
    COLUMNS(FP32, 256, 2, 64, 32, 32, 8, 8, 8, 2),
    COLUMNS(FP32, 256, 1, 64, 160, 32, 40, 8, 8, 2),
    COLUMNS(FP32, 256, 2, 16, 128, 16, 16, 8, 8, 2),
    COLUMNS(FP32, 128, 4, 16, 32, 16, 8, 8, 8, 3),
};
enum { TILES = sizeof tiles / sizeof *tiles };

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static void add_sizes(ConvCudaLowering *out, const int64_t *sizes, int n)
{
    memcpy(out->sizes + out->n_sizes, sizes, (size_t)n * sizeof *sizes);
    out->n_sizes += n;
}

#define SIZES(...)                                                                                 \
    (const int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static void add_launch(ConvCudaLowering *out, const char *defines, int threads, int64_t blocks,
                       int64_t blocks_per_sample, int64_t shared)
{
    out->launches[out->n_launches++] =
        (CudaLaunch){ .defines = defines, .threads = threads, .blocks = blocks,
                      .blocks_per_sample = blocks_per_sample, .shared_bytes = shared };
}

/* The kernel that adds up `splits` results of `count` weights. */
static void add_finish(ConvCudaLowering *out, int64_t count, int64_t splits)
{
    int64_t rows = 1;
    if (splits == 1)
        return;
    while (rows < 16 && rows * 2 <= splits)
        rows *= 2;
    out->workspace_bytes = splits * count * 4;
    out->finish_template = "conv_grad_weight_finish.cu";
    out->finish = (CudaLaunch){ .defines = "#define THREADS 256\n", .threads = 256,
                                .blocks = divide_up(count, 256 / rows), .shared_bytes = 4 * 256 };
    out->finish_sizes[out->n_finish_sizes++] = count;
    out->finish_sizes[out->n_finish_sizes++] = splits;
    out->finish_sizes[out->n_finish_sizes++] = rows;
}

/* ---- groups ---------------------------------------------------------------------------------- */

static bool is_depthwise(const ConvShape *s)
{
    return s->groups == s->C && s->groups == s->K
           && s->kernel * s->kernel * 32 <= DEPTHWISE_BYTES;
}

/* Channel blocks side by side in a block of threads: a power of two. */
static int64_t lanes_of(int64_t blocks, int64_t limit)
{
    int64_t lanes = 1;
    while (lanes < blocks && lanes * 2 <= limit)
        lanes *= 2;
    return lanes;
}

/* Most blocks of input channels that a block of 8 output channels meets. */
static int64_t range_of(const ConvShape *s)
{
    const int64_t K = s->K / s->groups, C = s->C / s->groups;
    int64_t range = 1;
    for (int64_t k = 0; k < s->K; k += 8) {
        const int64_t first = k / K * C / 8, last = (least(k + 7, s->K - 1) / K * C + C - 1) / 8;
        range = most(range, last - first + 1);
    }
    return range;
}

void lower_conv_cuda_grouped(const ConvShape *s, CudaPrecision precision, ConvCudaLowering *out)
{
    (void)precision;
    memset(out, 0, sizeof *out);
    const bool depthwise = is_depthwise(s);
    const int64_t taps = s->kernel * s->kernel, blocks = divide_up(s->K, 8);
    const int64_t lanes = lanes_of(blocks, depthwise ? least(8, DEPTHWISE_BYTES / (taps * 32)) : 8);
    const int64_t pixels = 4 * GROUPED_THREADS / lanes;
    out->template = depthwise ? "conv_depthwise.cu" : "conv_grouped.cu";
    out->parts = divide_up(s->P * s->Q, pixels);
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, out->parts, pixels, lanes, s->kernel,
                         s->stride, s->padding, s->dilation));
    if (depthwise)
        add_sizes(out, SIZES(s->transposed));
    else
        add_sizes(out, SIZES(s->groups, s->transposed, range_of(s)));
    add_launch(out, GROUPED_DEFINES, GROUPED_THREADS, 0, out->parts * divide_up(blocks, lanes),
               lanes * (depthwise ? taps * 32 : GROUPED_LANE_BYTES));
}

static void lower_grouped_grad_weight(const ConvShape *s, ConvCudaLowering *out)
{
    const bool depthwise = is_depthwise(s);
    const int64_t taps = s->kernel * s->kernel, blocks = divide_up(s->K, 8);
    const int64_t lanes = lanes_of(blocks, 8), count = s->K * (s->C / s->groups) * taps;
    const int64_t tasks = depthwise ? divide_up(blocks, lanes) * divide_up(taps, GROUPED_TAPS)
                                    : blocks * range_of(s) * taps;
    const int64_t slots = depthwise ? GROUPED_THREADS / lanes : GROUPED_THREADS;
    int64_t splits = least(divide_up(GROUPED_BLOCKS, tasks), WORKSPACE_BYTES / (count * 4));
    splits = most(1, least(splits, divide_up(BATCH * s->P * s->Q, 4 * slots)));
    out->template = depthwise ? "conv_depthwise_grad_weight.cu" : "conv_grouped_grad_weight.cu";
    out->parts = 1;
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, s->kernel, s->stride, s->padding,
                         s->dilation));
    if (depthwise)
        add_sizes(out, SIZES(splits, lanes));
    else
        add_sizes(out, SIZES(s->groups, splits, range_of(s)));
    add_launch(out, GROUPED_DEFINES, GROUPED_THREADS, splits * tasks, 0,
               depthwise ? GROUPED_THREADS * 32 : GROUPED_THREADS / 32 * 256);
    add_finish(out, count, splits);
}

/* ---- weight gradient ------------------------------------------------------------------------- */

/* Columns of the result's matrix, and taps of each. */
static int64_t result_channels(const ConvShape *s, const Tile *t)
{
    return t->loads ? s->C * s->kernel * s->kernel : s->C;
}

static int64_t result_kernel(const ConvShape *s, const Tile *t)
{
    return t->loads ? 1 : s->kernel;
}

static int64_t patch_length(const ConvShape *s, const Tile *t, int64_t pixels, int64_t taps)
{
    if (t->loads)
        return (pixels - 1) * s->stride + (s->kernel - 1) * s->dilation + 1;
    return (pixels - 1) * t->stride + taps;
}

static int64_t shared_bytes(const ConvShape *s, const Tile *t)
{
    const int64_t element = t->precision == CUDA_BF16 ? 2 : 4;
    const int64_t rows = patch_length(s, t, t->p, t->rows);
    const int64_t columns = patch_length(s, t, t->q, t->columns);
    const int64_t slots = t->loads ? t->threads : t->threads / (t->c / 8);
    const int64_t list = (t->loads ? t->loads : divide_up(rows * columns, slots)) * slots * 8;
    const int64_t dy = t->p * t->q * (t->k + 8) * element;
    const int64_t line = divide_up(columns, t->stride) * t->stride;
    const int64_t x = t->loads ? s->C * rows * columns * 4 : rows * line * (t->c + 8) * element;
    const int64_t result = 16 * (t->k / t->warp_k) * (t->c * t->rows * t->columns + 8) * 4;
    return most(HEAD_BYTES + list + 2 * dy + 2 * x, result);
}

static bool serves(const ConvShape *s, CudaPrecision precision, const Tile *t)
{
    if (t->precision != (int)precision
        || shared_bytes(s, t) > (precision == CUDA_FP32 ? OLD_SHARED_BYTES : SHARED_BYTES))
        return false;
    if (t->loads)
        return s->C < FEW_CHANNELS
               && patch_length(s, t, t->p, 1) * patch_length(s, t, t->q, 1)
                      <= t->loads * t->threads;
    return (t->rows == 1 && t->columns == 1)
           || (t->stride == s->stride && s->dilation == 1 && s->kernel >= t->rows);
}

/* Tiles of the result, and of a sample's pixels. */
static int64_t result_tiles(const ConvShape *s, const Tile *t)
{
    const int64_t kernel = result_kernel(s, t);
    return divide_up(s->K, t->k) * divide_up(result_channels(s, t), t->c)
           * divide_up(kernel, t->rows) * divide_up(kernel, t->columns);
}

static int64_t pixel_tiles(const ConvShape *s, const Tile *t)
{
    return divide_up(s->P, t->p) * divide_up(s->Q, t->q);
}

static double clocks(const ConvShape *s, const Tile *t, int64_t splits)
{
    static const double product_rate[] = { [CUDA_FP32] = 100, [CUDA_TF32] = 635,
                                           [CUDA_BF16] = 1270 };
    const double pixels = (double)(t->p * t->q);
    const double patch = (double)(patch_length(s, t, t->p, t->rows)
                                  * patch_length(s, t, t->q, t->columns));
    const double products = pixels * t->k * t->c * t->rows * t->columns;
    const double loads = pixels * t->k + patch * (t->loads ? 8 : t->c);
    const double step = products / product_rate[t->precision] + 0.05 * loads + STEP_CLOCKS;
    const int64_t waves = divide_up(result_tiles(s, t) * splits, UNITS * t->blocks);
    const int64_t steps = divide_up(BATCH * pixel_tiles(s, t), splits);
    const double weights = (double)(s->K * s->C * s->kernel * s->kernel);
    const double finish = (double)(2 * splits + 1) * 4 * weights / CLOCK_BYTES + LAUNCH_CLOCKS;
    return (double)waves * (step * (double)(steps * t->blocks) + BLOCK_CLOCKS)
           + (splits > 1 ? finish : 0);
}

/* How often the pixels are split: no more than fill the device MOST_WAVES times. */
static int64_t best_splits(const ConvShape *s, const Tile *t)
{
    const int64_t bytes = s->K * s->C * s->kernel * s->kernel * 4;
    const int64_t limit = least(WORKSPACE_BYTES / bytes, 4 * pixel_tiles(s, t));
    int64_t best = 1;
    for (int64_t waves = 1; waves <= MOST_WAVES; waves++) {
        const int64_t splits = least(limit, waves * UNITS * t->blocks / result_tiles(s, t));
        if (splits > 1 && clocks(s, t, splits) < clocks(s, t, best))
            best = splits;
    }
    return best;
}

void lower_conv_cuda_grad_weight(const ConvShape *s, CudaPrecision precision,
                                 ConvCudaLowering *out)
{
    bool used[TILES] = { false };
    int64_t splits = 0;
    memset(out, 0, sizeof *out);
    if (s->groups > 1) {
        lower_grouped_grad_weight(s, out);
        return;
    }
    out->template = "conv_grad_weight.cu";
    out->parts = 1;
    for (int i = 0; i < CANDIDATES; i++) {
        const Tile *best = NULL;
        double best_clocks = 0;
        for (const Tile *t = tiles; t < tiles + TILES; t++) {
            if (used[t - tiles] || !serves(s, precision, t))
                continue;
            const double own = clocks(s, t, splits ? splits : best_splits(s, t));
            if (!best || own < best_clocks) {
                best = t;
                best_clocks = own;
            }
        }
        if (!best)
            break;
        used[best - tiles] = true;
        if (!splits)
            splits = best_splits(s, best);
        add_launch(out, best->defines, best->threads, splits * result_tiles(s, best), 0,
                   shared_bytes(s, best));
    }
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, s->kernel, s->stride, s->padding,
                         s->dilation, splits));
    add_finish(out, s->K * s->C * s->kernel * s->kernel, splits);
}
