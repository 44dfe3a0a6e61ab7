/* See lower_conv_cuda.h, and kernels/cuda/conv.cu for what the sizes mean.
 *
 * Which tiles suit a convolution depends on how many there are for the processors of a GPU, so a
 * layer has several candidates. The first is the best by a simple estimate: rounds of blocks on
 * PROCESSORS, each as long as its products at the tile's rate.
 */
#include "lower_conv_cuda.h"

#include <string.h>

#include "seg.h"

enum {
    SHARED_BYTES = 99 << 10,       /* of a block: the least of sm_80, sm_86, sm_89 and sm_90 */
    PROCESSOR_BYTES = 227 << 10,   /* of the GPU that is estimated for */
    PROCESSORS = 132,
    PROCESSOR_THREADS = 512,       /* of these tiles, by their registers */
    SAMPLES = 8,                   /* of the batch that is estimated for */
    SMALL_MAP = 32,                /* rows and columns up to which parts are 8 x 8 */
    UNIT_BYTES = 512,              /* 16 result channels, a step of channels of x */
    TILE_COLUMNS = 8,
    FEW_INPUTS = 8,
    PACK_THREADS = 256,
};

/* A candidate: the defines of conv.cu, and how fast its products are, in percent; 0: never the
 * default. */
typedef struct {
    int threads, rows, tile_k, chunk_steps, stages, groups_k, rate;
    const char *defines, *few_inputs_defines;
} Tile;

#define DEFINES(THREADS, ROWS, K, CHUNK, STAGES, GROUPS)                                           \
    "#define THREADS " #THREADS "\n#define ROWS " #ROWS "\n#define TILE_K " #K                     \
    "\n#define CHUNK_STEPS " #CHUNK "\n#define STAGES " #STAGES "\n#define GROUPS_K " #GROUPS "\n"
#define TILE(THREADS, ROWS, K, CHUNK, STAGES, GROUPS, RATE)                                        \
    { THREADS, ROWS, K, CHUNK, STAGES, GROUPS, RATE,                                               \
      DEFINES(THREADS, ROWS, K, CHUNK, STAGES, GROUPS),                                            \
      "#define FEW_INPUTS\n" DEFINES(THREADS, ROWS, K, CHUNK, STAGES, GROUPS) }
#define TILE_OF_WARP_GROUPS(THREADS, ROWS, K, CHUNK, STAGES, GROUPS)                               \
    { THREADS, ROWS, K, CHUNK, STAGES, GROUPS, 0,                                                  \
      "#define WARP_GROUPS\n" DEFINES(THREADS, ROWS, K, CHUNK, STAGES, GROUPS), NULL }

/* At most 4 suit a layer. */
static const Tile tiles_of_matrices[] = {
    TILE(128, 32, 32, 2, 4, 1, 75),
    TILE(128, 16, 32, 2, 4, 1, 60),
    TILE(256, 8, 32, 4, 4, 2, 50),
    TILE(128, 32, 64, 2, 4, 1, 100),
    TILE(128, 16, 64, 2, 4, 1, 85),
    TILE(256, 8, 64, 4, 4, 2, 70),
    TILE(128, 16, 128, 2, 4, 1, 100),
    TILE_OF_WARP_GROUPS(256, 8, 64, 4, 4, 2),
    TILE_OF_WARP_GROUPS(128, 32, 64, 2, 4, 1),
    TILE_OF_WARP_GROUPS(128, 16, 128, 2, 4, 1),
};
/* Plain products: a thread has many sums. */
static const Tile tiles_of_floats[] = {
    TILE(128, 16, 32, 2, 4, 1, 80),
    TILE(128, 8, 32, 2, 4, 1, 70),
    TILE(128, 32, 64, 2, 4, 1, 100),
    TILE(128, 16, 64, 2, 4, 1, 95),
    TILE(128, 8, 64, 2, 4, 1, 80),
};

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

static int64_t round_up(int64_t a, int64_t b)
{
    return divide_up(a, b) * b;
}

static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* How rows of the result meet rows of x: see kernels/cuda/conv.cu. */
typedef struct {
    int64_t step, phases, shift, spread, origin, reach;
    int64_t taps;                  /* of a phase, at most */
    int64_t rows, columns;         /* of a phase of the result */
    int64_t channels;              /* of x in a step of products */
    int64_t steps, group_steps;
    int64_t part_height;
    bool few_inputs, tapwise;
} Window;

static Window window_of(const ConvShape *s, CudaPrecision precision, bool few_inputs)
{
    const int64_t span = (s->kernel - 1) * s->dilation, all = s->kernel * s->kernel;
    Window w = { .phases = s->transposed ? s->stride : 1 };
    if (s->transposed) {
        w.step = 1;
        w.shift = s->padding;
        w.spread = -s->dilation;
        w.origin = -floor_divide(span - s->padding, s->stride);
        w.reach = (s->stride - 1 + s->padding) / s->stride - w.origin + 1;
    } else {
        w.step = s->stride;
        w.shift = w.origin = -s->padding;
        w.spread = s->dilation;
        w.reach = span + 1;
    }
    w.rows = divide_up(s->P, w.phases);
    w.columns = divide_up(s->Q, w.phases);
    const int64_t taps = divide_up(s->kernel, w.phases);
    w.taps = s->dilation % w.phases ? taps * taps : all;
    w.part_height = w.rows <= SMALL_MAP && w.columns <= SMALL_MAP ? 8 : 16;
    w.channels = precision == CUDA_BF16 ? 16 : 8;
    w.few_inputs = w.tapwise = few_inputs;
    w.steps = divide_up(few_inputs ? all * s->C : s->C, w.channels);
    w.steps = round_up(w.steps, w.steps >= 8 || w.rows < 16 ? 4 : 2);
    w.group_steps = w.few_inputs ? w.steps : w.steps * all;
    return w;
}

static int64_t patch_places(const Window *w, const Tile *tile)
{
    const int64_t reach = w->tapwise ? 1 : w->reach, planes = least(w->step, reach);
    const int64_t margin = (reach - 1) / w->step;
    return planes * planes * (tile->rows + margin) * (TILE_COLUMNS + margin);
}

static int64_t result_bytes(const Tile *tile)
{
    return (int64_t)tile->groups_k * tile->rows * TILE_COLUMNS * (tile->tile_k * 4 + 32);
}

static int64_t tile_bytes(const ConvShape *s, const Window *w, const Tile *tile)
{
    const int64_t places = patch_places(w, tile), layer = (places + 5) / 8 * 128 + 32;
    const int64_t slab = (int64_t)tile->chunk_steps * tile->tile_k / 16 * UNIT_BYTES;
    int64_t bytes = tile->stages * slab + tile->chunk_steps * 4 * layer
                  + s->kernel * s->kernel * 16 + places * 4;
    if (w->few_inputs) {
        const int64_t rows = (tile->rows - 1) * w->step + w->reach;
        const int64_t columns = (TILE_COLUMNS - 1) * w->step + w->reach;
        bytes += w->steps * w->channels * 4 + rows * columns * s->C * 4;
    }
    return most(bytes, result_bytes(tile));
}

static int64_t tile_blocks(const ConvShape *s, const Window *w, const Tile *tile)
{
    return w->phases * w->phases * divide_up(w->rows, tile->rows)
         * divide_up(w->columns, TILE_COLUMNS) * divide_up(s->K, tile->tile_k);
}

/* What a batch takes on a GPU, in units of its own. */
static double tile_cost(const ConvShape *s, const Window *w, const Tile *tile)
{
    const int64_t blocks = SAMPLES * tile_blocks(s, w, tile);
    const int64_t by_memory = PROCESSOR_BYTES / tile_bytes(s, w, tile);
    const int64_t resident = most(1, least(by_memory, PROCESSOR_THREADS / tile->threads));
    const int64_t together = least(PROCESSORS * resident, blocks);
    const double products = (double)tile->rows * TILE_COLUMNS * tile->tile_k;
    const double rounds = (double)divide_up(blocks, together);
    return rounds * (double)divide_up(together, PROCESSORS) * products / tile->rate;
}

static void add_launch(const ConvShape *s, const Window *w, const Tile *tile,
                       ConvCudaLowering *out)
{
    if (out->n_launches == MAX_CUDA_LAUNCHES)
        return;
    out->launches[out->n_launches++] = (CudaLaunch){
        .defines = w->few_inputs ? tile->few_inputs_defines : tile->defines,
        .threads = tile->threads, .blocks_per_sample = tile_blocks(s, w, tile),
        .shared_bytes = tile_bytes(s, w, tile),
        .merge_offset = tile->rows > w->part_height ? result_bytes(tile) : 0,
    };
}

/* Is the tile one of those between which the device should decide? */
static bool suits(const ConvShape *s, const Window *w, const Tile *tile)
{
    const int64_t most_k = s->K <= 32 ? 32 : s->K <= 64 ? 64 : 128;
    const int64_t most_rows = most(w->part_height, least(w->rows, 2 * w->part_height));
    const bool groups = tile->rate == 0;
    return tile->rows >= w->part_height && tile->rows <= most_rows
        && tile->tile_k <= most_k && tile->tile_k >= least(most_k, 64)
        && w->steps % tile->chunk_steps == 0 && tile_bytes(s, w, tile) <= SHARED_BYTES
        && !(groups && (w->few_inputs || (tile->tile_k < most_k && most_rows >= 16)));
}

/* All tiles that suit, the cheapest first. */
static void choose_tiles(const ConvShape *s, const Window *w, const Tile *tiles, int n,
                         bool warp_groups, ConvCudaLowering *out)
{
    double best = 0;
    for (int i = 0; i < n; i++) {
        if (!suits(s, w, &tiles[i]) || (tiles[i].rate == 0 && !warp_groups))
            continue;
        add_launch(s, w, &tiles[i], out);
        if (tiles[i].rate == 0)
            continue;
        const double cost = tile_cost(s, w, &tiles[i]);
        if (out->n_launches > 1 && cost < best) {
            CudaLaunch first = out->launches[out->n_launches - 1];
            out->launches[out->n_launches - 1] = out->launches[0];
            out->launches[0] = first;
        }
        best = out->n_launches == 1 || cost < best ? cost : best;
    }
}

static void add_pack(const ConvShape *s, const Window *w, ConvCudaLowering *out)
{
    const int64_t sizes[] = { s->C, s->K, s->kernel, s->transposed, w->few_inputs, w->steps };
    const int64_t units = divide_up(s->K, 16) * w->group_steps;
    out->packed_bytes = units * UNIT_BYTES;
    out->n_pack_sizes = sizeof sizes / sizeof *sizes;
    memcpy(out->pack_sizes, sizes, sizeof sizes);
    out->pack = (CudaLaunch){
        .defines = "#define THREADS 256\n", .threads = PACK_THREADS,
        .blocks = divide_up(units * w->channels * 2, PACK_THREADS),
    };
}

/* Large windows with gaps, and those that share nothing, read x for each tap. */
static bool shares_patch(const ConvShape *s, const Window *w, const Tile *tiles, int n)
{
    bool fits = false;
    for (int i = 0; i < n; i++)
        fits = fits || suits(s, w, &tiles[i]);
    return fits && patch_places(w, tiles) < w->taps * tiles->rows * TILE_COLUMNS;
}

/* False: no tile suits. */
static bool lower_tiles(const ConvShape *s, CudaPrecision precision, bool few_inputs,
                        bool warp_groups, ConvCudaLowering *out)
{
    Window w = window_of(s, precision, few_inputs);
    const bool plain = precision == CUDA_FP32;
    const Tile *tiles = plain ? tiles_of_floats : tiles_of_matrices;
    const int n = plain ? sizeof tiles_of_floats / sizeof *tiles
                        : sizeof tiles_of_matrices / sizeof *tiles;
    w.tapwise = few_inputs || !shares_patch(s, &w, tiles, n);
    choose_tiles(s, &w, tiles, n, warp_groups, out);
    const int64_t part_rows = divide_up(w.rows, w.part_height);
    const int64_t part_columns = divide_up(w.columns, TILE_COLUMNS);
    const int64_t sizes[] = { s->C, s->H, s->W, s->K, s->P, s->Q, w.part_height, part_rows,
                              part_columns, s->kernel, w.step, w.phases, w.shift, w.spread,
                              w.origin, w.reach, w.tapwise, w.steps, w.group_steps };
    out->template = "conv.cu";
    out->n_sizes = sizeof sizes / sizeof *sizes;
    memcpy(out->sizes, sizes, sizeof sizes);
    out->parts = w.phases * w.phases * part_rows * part_columns;
    add_pack(s, &w, out);
    return out->n_launches > 0;
}

void lower_conv_cuda(const ConvShape *s, CudaPrecision precision, bool warp_groups,
                     ConvCudaLowering *out)
{
    memset(out, 0, sizeof *out);
    if (s->groups > 1) {
        lower_conv_cuda_grouped(s, precision, out);
        return;
    }
    if (!(s->C <= FEW_INPUTS && lower_tiles(s, precision, true, warp_groups, out))
        && !lower_tiles(s, precision, false, warp_groups, out))
        bug("lower: no tile for a convolution with a kernel of %lld", (long long)s->kernel);
}
