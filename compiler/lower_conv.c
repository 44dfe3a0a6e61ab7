/* See lower_conv.h. Sizes of caches are those of common cores: 32 KB and more of first level, 512
 * KB and more of second level.
 */
#include "lower_conv.h"

#include <string.h>

enum {
    CACHE_BYTES = 640 << 10,       /* patch and band of a task */
    BAND_PIXELS = 512,             /* result pixels for which weights in the first level are read */
    LEAST_BAND_PIXELS = 256,
    LEAST_PART_PIXELS = 128,       /* of a map that is small for so many tasks */
    WANTED_TASKS = 16,             /* a sample: enough for most machines' threads */
    TASK_FLOPS = 8 << 20,          /* a smaller task is not worth its overhead: some 40 us */
    TASK_BYTES = 512 << 10,
    TAP_BYTES = 24,                /* of a ConvTap */
    SPLIT_BLOCKS = 512,            /* result blocks of a task: their sums lie on its stack */
    NARROW_INPUTS = 8,
    FEW_OUTPUTS = 4,
    WINOGRAD_CHANNELS = 4096,      /* most: all of a tile's lie in the scratch memory */
    WINOGRAD_CACHE_BYTES = 800 << 10, /* transformed tiles and their products */
    WINOGRAD_GROUP_PIXELS = 200,   /* cost of a group of tiles, in input pixels */
    WINOGRAD_LEAST_TILES = 32,
    WINOGRAD_MOST_TILES = 48,
    LARGE_WEIGHT_BYTES = 3 << 20,     /* transformed: more are not packed */
    LARGE_CHUNK_BYTES = 12 << 20,     /* transformed tiles */
    LARGE_MOST_CHUNK_BYTES = 64 << 20, /* of maps that are very wide */
    LARGE_LEAST_TILES = 64,
    LARGE_MOST_TILES = 128,
    LARGE_BLOCKS = 32,
    LARGE_DEPTH = 4,
    GRAD_SLOT_BYTES = 640 << 10,   /* larger weights are not copied for each slot */
    GRAD_TASKS = 32,
    GRAD_LEAST_SLOTS = 16,
    GRAD_COPIES_BYTES = 8 << 20,   /* of all slots, as long as there are enough slots */
    GRAD_BAND_PIXELS = 1024,
    GRAD_LEAST_PIXELS = 256,
    GRAD_CALL_PIXELS = 512,
    GRAD_CHUNK_BYTES = 5 << 20,       /* transformed tiles of both operands */
    GRAD_MOST_CHUNK_BYTES = 64 << 20, /* of maps that are very wide */
    GRAD_LEAST_TILES = 64,
    GRAD_MOST_TILES = 256,
    GRAD_UNIT_BLOCKS = 4,
    GRAD_LEAST_UNITS = 16,            /* of tasks that each make one */
    GRAD_TASK_FLOPS = 1 << 20,
    GRAD_PATCH_BYTES = 256 << 10,
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

const char *const way_names[WAY_COUNT] = {
    "model", "direct", "winograd", "winograd_large", "line",
};

/* Winograd is taken where it is estimated to need less than this of the direct way's time. */
static const double WINOGRAD_GAIN = 0.9;

/* A distance in floats between blocks that are read together: not a multiple of a large power of
 * two, which would put all of them into the same few places of the cache. */
static int64_t plane_floats(int64_t pixels)
{
    return (pixels % 16 == 0 ? pixels + 4 : pixels) * 16;
}

static void add_sizes(ConvLowering *out, const int64_t *sizes, int n)
{
    memcpy(out->sizes + out->n_sizes, sizes, (size_t)n * sizeof *sizes);
    out->n_sizes += n;
}

static void add_pack_sizes(ConvLowering *out, const int64_t *sizes, int n)
{
    memcpy(out->pack_sizes, sizes, (size_t)n * sizeof *sizes);
    out->n_pack_sizes = n;
}

#define SIZES(...)                                                                                 \
    (const int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* How rows of the result meet rows of x: see kernels/host/conv.c. */
typedef struct {
    int64_t step, phases, shift, spread, origin;
    int64_t reach;                 /* rows of x that one row in every phase needs */
} Window;

static Window window_of(const ConvShape *s)
{
    const int64_t span = (s->kernel - 1) * s->dilation;
    if (!s->transposed)
        return (Window){s->stride, 1, -s->padding, s->dilation, -s->padding, span + 1};
    const int64_t origin = -floor_divide(span - s->padding, s->stride);
    const int64_t last = (s->stride - 1 + s->padding) / s->stride;
    return (Window){1, s->stride, s->padding, -s->dilation, origin, last - origin + 1};
}

/* Rows (or columns) of x for so many of the result. */
static int64_t patch_rows(const Window *w, int64_t rows)
{
    return (divide_up(rows, w->phases) - 1) * w->step + w->reach;
}

/* Output blocks that are multiplied together. */
static int64_t tile_of(const ConvShape *s, int64_t most_blocks)
{
    const int64_t blocks = divide_up(s->K, 16), K = s->K / s->groups, C = s->C / s->groups;
    if (s->groups > 1) {
        int64_t tile = 1;
        if (K % 16 == 0 && C % 16 == 0) {
            for (int64_t i = 2; i <= most_blocks; i++)
                tile = K / 16 % i == 0 ? i : tile;
        }
        return tile;
    }
    if (blocks > 4 && blocks % 4 == 1 && most_blocks == 4)
        return 3;                  /* rather than a last tile of one block */
    return least(blocks, most_blocks);
}

int64_t conv_strip(const ConvShape *s)
{
    return tile_of(s, 4);
}

/* Most input blocks that a tile's outputs read. */
static int64_t range_of(const ConvShape *s, int64_t tile)
{
    const int64_t K = s->K / s->groups, C = s->C / s->groups;
    int64_t range = 0;
    if (s->groups == 1)
        return divide_up(s->C, 16);
    for (int64_t k = 0; k < s->K; k += tile * 16) {
        const int64_t first = k / K * C / 16;
        const int64_t last = ((least(k + tile * 16, s->K) - 1) / K * C + C - 1) / 16;
        range = most(range, last - first + 1);
    }
    return range;
}

/* Tasks of a sample, by its work or its traffic; channels count in whole blocks, as they are
 * computed. */
int64_t conv_wanted_tasks(const ConvShape *s)
{
    const double C = (double)round_up(s->C, 16), K = (double)round_up(s->K, 16);
    const double x_pixels = (double)s->H * (double)s->W, y_pixels = (double)s->P * (double)s->Q;
    const double window = (double)(s->kernel * s->kernel) / (double)s->groups;
    const double flops = 2 * C * K * window * (s->transposed ? x_pixels : y_pixels);
    const double bytes = 4 * (C * x_pixels + K * y_pixels);
    const double by_flops = flops / TASK_FLOPS, by_bytes = bytes / TASK_BYTES;
    const double tasks = by_flops > by_bytes ? by_flops : by_bytes;
    return tasks < 1 ? 1 : tasks > WANTED_TASKS ? WANTED_TASKS : (int64_t)tasks;
}

static void lower_depthwise(const ConvShape *s, ConvLowering *out)
{
    const Window w = window_of(s);
    const int64_t taps = s->kernel * s->kernel, blocks = divide_up(s->C, 16);
    const int64_t columns = patch_rows(&w, s->Q);
    int64_t rows = most(1, CACHE_BYTES / 64 / (columns * w.step));
    rows = least(rows, divide_up(s->P, divide_up(conv_wanted_tasks(s), blocks)));
    rows = round_up(rows, w.phases);
    const int64_t line_offset = patch_rows(&w, rows) * columns * 64;
    const int64_t taps_offset = line_offset + s->Q * 64;
    out->template = "conv_depthwise.c";
    out->parts = divide_up(s->P, rows);
    out->rows = rows;
    out->scratch_bytes = round_up(taps_offset + taps * TAP_BYTES, 64);
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, out->parts, rows, s->kernel, w.step,
                         w.phases, w.shift, w.spread, w.origin, patch_rows(&w, rows), columns,
                         line_offset, taps_offset));
    out->packed_bytes = blocks * taps * 64;
    out->pack_template = "conv_depthwise_pack.c";
    add_pack_sizes(out, SIZES(s->C, s->kernel));
}

/* Result rows that are computed together, a multiple of the phases: what fits the cache, but not
 * less than the weights' way into the first level is worth. */
static int64_t band_of(const ConvShape *s, const Window *w, int64_t tile)
{
    const int64_t columns = patch_rows(w, s->Q), blocks = divide_up(s->C, 16);
    int64_t band = w->phases;
    while (band < s->P) {
        const int64_t next = band + w->phases;
        const int64_t bytes = 64 * (blocks * patch_rows(w, next) * columns + tile * next * s->Q);
        if (next * s->Q > BAND_PIXELS * w->phases * w->phases
            || (bytes > CACHE_BYTES && band * s->Q >= LEAST_BAND_PIXELS))
            break;
        band = next;
    }
    return band;
}

/* 4x4 results at a time, as rows and columns of a map of tiles: what the cache holds, with little
 * overlap of their input. */
static void tiles_of(int64_t tile_rows, int64_t tile_columns, int64_t tiles, int64_t *rows,
                     int64_t *columns)
{
    int64_t best = INT64_MAX;
    for (int64_t r = 1; r <= least(tile_rows, tiles); r++) {
        const int64_t groups = divide_up(tile_columns, tiles / r);
        const int64_t c = divide_up(tile_columns, groups);
        const int64_t pixels = (4 * r + 2) * (4 * c + 2) + WINOGRAD_GROUP_PIXELS;
        const int64_t cost = pixels * groups * divide_up(tile_rows, r);
        if (cost < best) {
            best = cost;
            *rows = r;
            *columns = c;
        }
    }
}

/* See kernels/host/conv_winograd.c. */
void lower_conv_winograd(const ConvShape *s, ConvLowering *out)
{
    memset(out, 0, sizeof *out);
    const Window w = window_of(s);
    const int64_t x_blocks = divide_up(s->C, 16), blocks = divide_up(s->K, 16);
    const int64_t strip = tile_of(s, 4), strips = divide_up(blocks, strip);
    const int64_t wanted = conv_wanted_tasks(s), tile_rows = divide_up(s->P, 4);
    const int64_t tile_columns = divide_up(s->Q, 4);
    const int64_t fitting = WINOGRAD_CACHE_BYTES / (36 * 64 * (x_blocks + strip));
    const int64_t wanted_tiles = least(most(fitting, WINOGRAD_LEAST_TILES), WINOGRAD_MOST_TILES);
    int64_t rows = 1, columns = 1;
    tiles_of(tile_rows, tile_columns, wanted_tiles, &rows, &columns);
    const int64_t bands = divide_up(tile_rows, rows);
    out->rows = 4 * rows * divide_up(bands, least(bands, wanted));
    out->parts = divide_up(s->P, out->rows);
    const int64_t split =
        least(SPLIT_BLOCKS / strip,
              divide_up(strips, least(strips, divide_up(divide_up(wanted, 2), out->parts))));
    const int64_t samples = most(1, least(SPLIT_BLOCKS / (split * strip),
                                          wanted_tiles / (tile_rows * tile_columns)));

    const int64_t tiles = samples * rows * columns, pixels = 4 * columns + 2;
    const int64_t input_plane = plane_floats(x_blocks * tiles);
    const int64_t result_plane = plane_floats(strip * tiles);
    const int64_t point_weights = plane_floats(s->C * strip);
    const int64_t lines_offset = (4 * rows + 2) * pixels * 64;
    const int64_t input_offset = lines_offset + 6 * pixels * 64;
    const int64_t result_offset = input_offset + 36 * input_plane * 4;
    const int64_t band_offset = result_offset + 36 * result_plane * 4;
    const int64_t taps_offset = band_offset + rows * columns * 16 * 64;
    out->template = "conv_winograd.c";
    out->scratch_bytes = round_up(taps_offset + x_blocks * TAP_BYTES, 64);
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, out->parts, out->rows, w.origin, strip,
                         point_weights, divide_up(strips, split), split, samples, rows,
                         columns));
    add_sizes(out, SIZES(input_plane, result_plane, lines_offset, input_offset, result_offset,
                         band_offset, taps_offset));
    out->packed_bytes = strips * 36 * point_weights * 4;
    out->pack_template = "conv_winograd_pack.c";
    add_pack_sizes(out, SIZES(s->C, s->K, s->transposed, strip, point_weights));
}

/* See kernels/host/conv_winograd_large.c. */
void lower_conv_winograd_large(const ConvShape *s, ConvLowering *out)
{
    memset(out, 0, sizeof *out);
    const Window w = window_of(s);
    const int64_t x_blocks = divide_up(s->C, 16), blocks = divide_up(s->K, 16);
    const int64_t tile_rows = divide_up(s->P, 4), columns = divide_up(s->Q, 4);
    const int64_t wanted = least(most(LARGE_CHUNK_BYTES / (36 * 64 * x_blocks), LARGE_LEAST_TILES),
                                 LARGE_MOST_TILES);
    const int64_t samples = most(1, wanted / (tile_rows * columns));
    const int64_t chunks = divide_up(tile_rows, most(1, wanted / columns));
    const int64_t rows = divide_up(tile_rows, chunks), tiles = samples * rows * columns;
    const int64_t band = least(rows, most(1, GRAD_PATCH_BYTES / ((4 * columns + 2) * 256)));

    const int64_t strip = least(blocks, blocks < LARGE_BLOCKS ? 2 : 4);
    const int64_t depth = least(x_blocks, LARGE_DEPTH);
    const int64_t point_weights = (depth * strip * 16 + 1) * 16;
    const int64_t lines_offset = (4 * band + 2) * (4 * columns + 2) * 64;
    const int64_t transform_bytes = lines_offset + 6 * (4 * columns + 2) * 64;
    const int64_t result_offset = 36 * point_weights * 4;
    const int64_t image_offset = result_offset + 36 * (strip * tiles + 1) * 64;
    const int64_t taps_offset = image_offset + rows * columns * 16 * 64;
    out->template = "conv_winograd_large.c";
    out->rows = 4 * rows;
    out->parts = divide_up(s->P, out->rows);
    out->scratch_bytes = most(transform_bytes, round_up(taps_offset + depth * TAP_BYTES, 64));
    out->workspace_bytes = x_blocks * 36 * (tiles + 4) * 64;
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, out->parts, out->rows, w.origin,
                         s->transposed, samples, band, strip, depth, point_weights, lines_offset,
                         result_offset, image_offset, taps_offset));
}

/* See kernels/host/conv_narrow.c. */
static bool is_narrow(const ConvShape *s)
{
    return s->stride == 1 && s->groups == 1 && s->kernel > 1 && s->C <= NARROW_INPUTS
           && s->K <= FEW_OUTPUTS;
}

/* See kernels/host/conv_dot.c. */
static bool is_dot(const ConvShape *s)
{
    return s->stride == 1 && s->groups == 1 && s->kernel == 1 && s->padding == 0 && !s->transposed
           && s->K <= FEW_OUTPUTS;
}

static bool winograd_fits(const ConvShape *s)
{
    return s->kernel == 3 && s->stride == 1 && s->dilation == 1 && s->groups == 1
           && s->C <= WINOGRAD_CHANNELS;
}

bool conv_way_fits(const ConvShape *s, bool grad_weight, ConvWay way)
{
    const int64_t columns = divide_up(s->Q, 4), x_blocks = divide_up(s->C, 16);
    const int64_t blocks = x_blocks + (grad_weight ? divide_up(s->K, 16) : 0);
    const int64_t row_bytes = blocks * 36 * 64 * columns;
    if (!grad_weight && (is_narrow(s) || is_dot(s)))
        return false;
    switch (way) {
    case WAY_DIRECT: return true;
    case WAY_WINOGRAD:
        return winograd_fits(s) && (!grad_weight || row_bytes < GRAD_MOST_CHUNK_BYTES);
    case WAY_WINOGRAD_LARGE:
        return winograd_fits(s) && !grad_weight && row_bytes < LARGE_MOST_CHUNK_BYTES;
    case WAY_LINE: return conv_line_fits(s);
    case WAY_MODEL: case WAY_COUNT: break;
    }
    return false;
}

/* Where weights are many beside the tiles of two samples, and would fill the caches packed. */
static bool is_large(const ConvShape *s)
{
    const int64_t tiles = 2 * divide_up(s->P, 4) * divide_up(s->Q, 4);
    return 36 * 4 * s->C * s->K > LARGE_WEIGHT_BYTES && s->C * s->K > 64 * tiles
           && conv_way_fits(s, false, WAY_WINOGRAD_LARGE);
}

/* Estimates, in nanoseconds for two samples on one core with AVX-512, fitted to measurements of both
 * ways at 169 shapes from 3 to 1024 channels and from 3 to 128 pixels wide; a step of training packs
 * the weights again. Winograd's products are a quarter of the direct way's, but each tile is
 * transformed there and back, and so are its weights, which are four times as many then. */
static bool winograd_pays(const ConvShape *s)
{
    const double C = (double)s->C, K = (double)round_up(s->K, 16), samples = 2;
    const double channels = (double)round_up(s->C, 16) + K;
    const double pixels = samples * (double)(s->P * s->Q);
    const double tiles = samples * (double)(divide_up(s->P, 4) * divide_up(s->Q, 4));
    const double packed = 36 * 4 * C * K > LARGE_WEIGHT_BYTES ? 0.43 : 0.18;
    const double weight = is_large(s) ? 0.12 : packed;
    const double direct = 9 * C * K * (0.009 * pixels + 0.9) + 0.18 * channels * pixels;
    const double winograd = 36 * C * K * (0.012 * tiles + weight) + 5 * channels * tiles;
    return winograd < WINOGRAD_GAIN * direct;
}

static ConvWay way_of(const ConvShape *s)
{
    if (conv_way_fits(s, false, s->way) || conv_line_fits(s))
        return conv_way_fits(s, false, s->way) ? s->way : WAY_LINE;
    if (!winograd_fits(s) || !winograd_pays(s))
        return WAY_DIRECT;
    return is_large(s) ? WAY_WINOGRAD_LARGE : WAY_WINOGRAD;
}

static void lower_narrow(const ConvShape *s, ConvLowering *out)
{
    const Window w = window_of(s);
    const int64_t rows = divide_up(s->P, least(s->P, conv_wanted_tasks(s)));
    const int64_t columns = patch_rows(&w, s->Q), line = round_up(round_up(s->Q, 64) + w.reach, 16);
    const int64_t row_offset = round_up(s->C * patch_rows(&w, rows) * line * 4, 64);
    const int64_t result_offset = row_offset + columns * 64;
    out->template = "conv_narrow.c";
    out->parts = divide_up(s->P, rows);
    out->rows = rows;
    out->scratch_bytes = result_offset + s->Q * 64;
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, out->parts, rows, s->kernel,
                         s->transposed, s->dilation, w.origin, patch_rows(&w, rows), columns, line,
                         row_offset, result_offset));
}

static void lower_dot(const ConvShape *s, ConvLowering *out)
{
    const int64_t rows = divide_up(s->P, least(s->P, conv_wanted_tasks(s)));
    const int64_t sums_offset = s->Q * 64;
    const int64_t result_offset = sums_offset + s->K * round_up(s->Q, 16) * 64;
    out->template = "conv_dot.c";
    out->parts = divide_up(s->P, rows);
    out->rows = rows;
    out->scratch_bytes = result_offset + s->Q * 64;
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, out->parts, rows, sums_offset,
                         result_offset));
}

void lower_conv(const ConvShape *s, ConvLowering *out)
{
    memset(out, 0, sizeof *out);
    if (is_narrow(s) || is_dot(s)) {
        (is_narrow(s) ? lower_narrow : lower_dot)(s, out);
        return;
    }
    switch (way_of(s)) {
    case WAY_LINE: lower_conv_line(s, out); return;
    case WAY_WINOGRAD: lower_conv_winograd(s, out); return;
    case WAY_WINOGRAD_LARGE: lower_conv_winograd_large(s, out); return;
    case WAY_DIRECT: case WAY_MODEL: case WAY_COUNT: break;
    }
    if (s->groups > 1 && s->groups == s->C && s->groups == s->K) {
        lower_depthwise(s, out);
        return;
    }
    const Window w = window_of(s);
    const int64_t taps = s->kernel * s->kernel, x_blocks = divide_up(s->C, 16);
    const int64_t tile = tile_of(s, 4), range = range_of(s, tile);
    const int64_t tiles = divide_up(divide_up(s->K, 16), tile);
    const int64_t tile_weights = tile * 16 * taps * (s->groups == 1 ? s->C : range * 16);
    const int64_t columns = patch_rows(&w, s->Q), wanted = conv_wanted_tasks(s);

    const int64_t least_parts = divide_up(divide_up(wanted, 2), tiles);
    const int64_t most_rows =
        most(divide_up(s->P, least_parts), divide_up(LEAST_PART_PIXELS, s->Q));
    int64_t band = least(band_of(s, &w, tile), most_rows);
    band = round_up(divide_up(s->P, divide_up(s->P, band)), w.phases);
    const int64_t bands = divide_up(s->P, band);
    const int64_t rows = band * divide_up(bands, least(bands, wanted));
    out->rows = rows;
    out->parts = divide_up(s->P, rows);
    const int64_t split =
        least(SPLIT_BLOCKS / tile,
              divide_up(tiles, least(tiles, divide_up(divide_up(wanted, 2), out->parts))));
    const int64_t splits = divide_up(tiles, split);

    const int64_t plane = plane_floats(patch_rows(&w, band) * columns);
    const int64_t band_plane = plane_floats(band * s->Q);
    const int64_t chunk = divide_up(x_blocks, divide_up(x_blocks * plane * 4, CACHE_BYTES));
    const int64_t band_blocks = chunk < x_blocks ? split * tile : tile;
    const int64_t band_offset = chunk * plane * 4;
    const int64_t taps_offset = band_offset + band_blocks * band_plane * 4;
    out->template = "conv.c";
    out->scratch_bytes = round_up(taps_offset + least(chunk, range) * taps * TAP_BYTES, 64);
    add_sizes(out,
              SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, out->parts, rows, s->kernel, s->groups));
    add_sizes(out, SIZES(w.step, w.phases, w.shift, w.spread, w.origin, tile, range, tile_weights,
                         splits, split, band, chunk, patch_rows(&w, band), columns, plane,
                         band_plane, band_offset, taps_offset));
    out->packed_bytes = tiles * tile_weights * 4;
    out->pack_template = "conv_pack.c";
    add_pack_sizes(out, SIZES(s->C, s->K, s->kernel, s->groups, s->transposed, tile, range,
                              tile_weights));
}

static void lower_depthwise_grad_weight(const ConvShape *s, const Window *w, ConvLowering *out)
{
    const int64_t taps = s->kernel * s->kernel, blocks = divide_up(s->C, 16);
    const int64_t columns = patch_rows(w, s->Q);
    const int64_t band = least(s->P, divide_up(GRAD_BAND_PIXELS, s->Q));
    const int64_t slots = divide_up(GRAD_TASKS, blocks);
    const int64_t dy_offset = patch_rows(w, band) * columns * 16;
    out->template = "conv_depthwise_grad_weight.c";
    out->scratch_bytes = (dy_offset + band * s->Q * 16) * 4;
    out->workspace_bytes = slots * blocks * taps * 64;
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, s->kernel, s->stride, s->padding,
                         s->dilation, slots, band, patch_rows(w, band), columns, dy_offset));
}

/* dy rows that are packed at a time: several bands a sample, and what fits the cache. */
static int64_t grad_band_of(const ConvShape *s, const Window *w)
{
    const int64_t x_line = divide_up(s->C, 16) * patch_rows(w, s->Q) * 64;
    const int64_t dy_line = divide_up(s->K, 16) * s->Q * 64;
    int64_t band = least(divide_up(s->P, 8), divide_up(GRAD_BAND_PIXELS, s->Q));
    while (band > 1 && (band - 1) * s->Q >= GRAD_LEAST_PIXELS
           && patch_rows(w, band) * x_line + band * dy_line > CACHE_BYTES)
        band--;
    return band;
}

/* Points of a task, a divisor of 36, so that there are tasks enough of a useful size. */
static int64_t points_of(int64_t units, int64_t flops)
{
    const int64_t wanted = most(1, least(GRAD_TASKS, flops / GRAD_TASK_FLOPS));
    int64_t points = 1;
    for (int64_t i = 2; i <= 36; i++)
        points = 36 % i == 0 && units * 36 / i >= wanted ? i : points;
    return points;
}

/* See kernels/host/conv_winograd_grad_weight.c. */
void lower_conv_winograd_grad_weight(const ConvShape *s, ConvLowering *out)
{
    memset(out, 0, sizeof *out);
    const int64_t x_blocks = divide_up(s->C, 16), dy_blocks = divide_up(s->K, 16);
    const int64_t tile_rows = divide_up(s->P, 4), columns = divide_up(s->Q, 4);
    const int64_t fitting = GRAD_CHUNK_BYTES / (36 * 64 * (x_blocks + dy_blocks));
    const int64_t wanted = least(most(fitting, GRAD_LEAST_TILES), GRAD_MOST_TILES);
    const int64_t samples = most(1, wanted / (tile_rows * columns));
    const int64_t chunks = divide_up(tile_rows, most(1, wanted / columns));
    const int64_t rows = divide_up(tile_rows, chunks);
    const int64_t tiles = samples * rows * columns;
    const int64_t band = least(rows, most(1, GRAD_PATCH_BYTES / ((4 * columns + 2) * 256)));

    const int64_t unit_c = least(x_blocks, GRAD_UNIT_BLOCKS);
    const int64_t unit_k = least(dy_blocks, GRAD_UNIT_BLOCKS);
    const int64_t units = divide_up(x_blocks, unit_c) * divide_up(dy_blocks, unit_k);
    const int64_t point_sums = round_up(unit_k, 2) * unit_c * 256 + 16;
    const bool small = units < GRAD_LEAST_UNITS;
    const int64_t flops = 72 * 256 * x_blocks * dy_blocks * tiles;
    const int64_t operands = (x_blocks + dy_blocks) * 36 * (tiles + 4) * 16;
    const int64_t lines_offset = (4 * band + 2) * (4 * columns + 2) * 64;
    const int64_t transform_bytes = lines_offset + 6 * (4 * columns + 2) * 64;
    out->template = "conv_winograd_grad_weight.c";
    out->parts = 1;
    out->rows = s->P;
    out->scratch_bytes = most(transform_bytes, small ? 0 : 36 * point_sums * 4);
    out->workspace_bytes = (operands + (small ? units * 36 * point_sums : 0)) * 4;
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, s->padding, samples, rows, band,
                         unit_c, unit_k, small ? points_of(units, flops) : 36, point_sums,
                         small ? operands : 0, lines_offset));
}

/* As winograd_pays, of a weight gradient. */
static bool winograd_grad_pays(const ConvShape *s)
{
    const double C = (double)round_up(s->C, 8), K = (double)round_up(s->K, 16), samples = 2;
    const double channels = (double)round_up(s->C, 16) + K;
    const double pixels = samples * (double)(s->P * s->Q);
    const double tiles = samples * (double)(divide_up(s->P, 4) * divide_up(s->Q, 4));
    const double weight = 36 * C * K > GRAD_SLOT_BYTES ? 0.28 : 2.6;
    const double direct = 9 * C * K * (0.0097 * pixels + weight);
    const double winograd = 36 * C * K * (0.0125 * tiles + 0.15) + 5.2 * channels * tiles;
    return winograd < WINOGRAD_GAIN * direct;
}

static ConvWay grad_weight_way_of(const ConvShape *s)
{
    if (conv_way_fits(s, true, s->way) || conv_line_fits(s))
        return conv_way_fits(s, true, s->way) ? s->way : WAY_LINE;
    return conv_way_fits(s, true, WAY_WINOGRAD) && winograd_grad_pays(s) ? WAY_WINOGRAD : WAY_DIRECT;
}

void lower_conv_grad_weight(const ConvShape *s, ConvLowering *out)
{
    memset(out, 0, sizeof *out);
    const ConvWay way = grad_weight_way_of(s);
    if (way == WAY_LINE || way == WAY_WINOGRAD) {
        (way == WAY_LINE ? lower_conv_line_grad_weight : lower_conv_winograd_grad_weight)(s, out);
        return;
    }
    ConvShape forward = *s;
    forward.transposed = false;
    const Window w = window_of(&forward);
    out->parts = 1;
    out->rows = s->P;
    if (s->groups > 1 && s->groups == s->C && s->groups == s->K) {
        lower_depthwise_grad_weight(s, &w, out);
        return;
    }
    const int64_t taps = s->kernel * s->kernel;
    const int64_t x_blocks = divide_up(s->C, 16), dy_blocks = divide_up(s->K, 16);
    const int64_t tile = tile_of(s, 2), range = range_of(s, tile);
    const int64_t tiles = divide_up(dy_blocks, tile);
    const int64_t depth = least(16, round_up(s->C, 8));
    const int64_t tile_bytes = taps * depth * tile * 64, copy_bytes = tiles * range * tile_bytes;
    const int64_t columns = patch_rows(&w, s->Q);
    const int64_t most_slots = most(GRAD_LEAST_SLOTS, GRAD_COPIES_BYTES / copy_bytes);
    const int64_t slots = copy_bytes > GRAD_SLOT_BYTES ? 0 : least(GRAD_TASKS, most_slots);
    const int64_t tap_parts = least(taps, divide_up(GRAD_TASKS, tiles * range));
    const int64_t band = slots ? grad_band_of(s, &w) : s->P;

    const int64_t patch_plane = plane_floats(patch_rows(&w, band) * columns);
    const int64_t dy_plane = plane_floats(band * s->Q);
    const int64_t dy_offset = x_blocks * patch_plane, sample = dy_offset + dy_blocks * dy_plane;
    const int64_t call_pixels = divide_up(s->Q, divide_up(s->Q, GRAD_CALL_PIXELS));
    const int64_t sum_offset = slots ? sample * 4 : 0, taps_offset = sum_offset + tile_bytes;
    out->template = "conv_grad_weight.c";
    out->scratch_bytes = round_up(taps_offset + taps * 8, 64);
    out->workspace_bytes = slots * copy_bytes;
    out->workspace_sample_bytes = slots ? 0 : sample * 4;
    add_sizes(out, SIZES(s->C, s->H, s->W, s->K, s->P, s->Q, s->kernel, s->stride, s->padding,
                         s->dilation, s->groups, tile, range, depth, slots, tap_parts, band));
    add_sizes(out,
              SIZES(divide_up(GRAD_CALL_PIXELS, call_pixels), call_pixels, patch_rows(&w, band),
                    columns, patch_plane, dy_plane, dy_offset, sample, sum_offset, taps_offset));
}
