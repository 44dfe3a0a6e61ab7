/* Convolutions with bf16 products: sizes for kernels/host/conv_line*.c, and where they are chosen. See
 * lower_conv.h.
 */
#include "lower_conv.h"

#include <string.h>

enum {
    CACHE_BYTES = 800 << 10,       /* of a task's transformed input and a strip's products */
    LEAST_TILES = 64,
    MOST_TILES = 256,
    GROUP_PIXELS = 200,            /* cost of a group of tiles, in input pixels */
    TAP_BYTES = 24,                /* of a ConvTap */
    SPLIT_BLOCKS = 512,            /* result blocks of a task: their sums lie on its stack */
    GRAD_CHUNK_BYTES = 4 << 20,    /* transformed tiles of both operands */
    GRAD_LEAST_PAIRS = 64,
    GRAD_MOST_PAIRS = 1024,
    GRAD_BAND_PIXELS = 2048,
    GRAD_LEAST_UNITS = 16,         /* of tasks that each make one */
    LEAST_CHANNELS = 16,
    MOST_CHANNELS = 4096,          /* all of a tile's lie in the scratch memory */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Rows and columns of tiles at a time: with little overlap of their input. */
static void tiles_of(int64_t all_rows, int64_t all_columns, int64_t tiles, int64_t *rows,
                     int64_t *columns)
{
    int64_t best = INT64_MAX;
    for (int64_t r = 1; r <= least(all_rows, tiles); r++) {
        const int64_t groups = divide_up(all_columns, tiles / r);
        const int64_t c = divide_up(all_columns, groups);
        const int64_t cost =
            ((r + 2) * (4 * c + 2) + GROUP_PIXELS) * groups * divide_up(all_rows, r);
        if (cost < best) {
            best = cost;
            *rows = r;
            *columns = c;
        }
    }
}

/* A distance between what is read together: not a multiple of a large power of two. */
static int64_t plane_words(int64_t vectors)
{
    return (vectors + 3 - vectors % 2) * 16;
}

void lower_conv_line(const ConvShape *s, ConvLowering *out)
{
    memset(out, 0, sizeof *out);
    const int64_t x_blocks = divide_up(s->C, 16), blocks = divide_up(s->K, 16);
    const int64_t strip = conv_strip(s), strips = divide_up(blocks, strip);
    const int64_t wanted = conv_wanted_tasks(s), all_columns = divide_up(s->Q, 4);
    const int64_t tile_bytes = 6 * (40 * x_blocks + 64 * strip);
    const int64_t tiles_wanted = least(most(CACHE_BYTES / tile_bytes, LEAST_TILES), MOST_TILES);
    int64_t rows = 1, columns = 1;
    tiles_of(s->P, all_columns, tiles_wanted, &rows, &columns);
    const int64_t bands = divide_up(s->P, rows);
    out->rows = rows * divide_up(bands, least(bands, wanted));
    out->parts = divide_up(s->P, out->rows);
    const int64_t split =
        least(SPLIT_BLOCKS / strip,
              divide_up(strips, least(strips, divide_up(divide_up(wanted, 2), out->parts))));
    const int64_t samples = out->parts > 1 ? 1
                          : most(1, least(SPLIT_BLOCKS / (split * strip),
                                          tiles_wanted / (s->P * all_columns)));

    const int64_t input_plane = plane_words(divide_up(x_blocks * samples * (rows + 2) * columns, 2));
    const int64_t result_plane = plane_words(strip * samples * rows * columns);
    const int64_t point_weights = plane_words(x_blocks * 24 * strip);
    const int64_t input_offset = (4 * columns + 2) * 64;
    const int64_t result_offset = input_offset + 6 * input_plane * 4;
    const int64_t band_offset = result_offset + 6 * result_plane * 4;
    const int64_t taps_offset = band_offset + columns * 4 * 64;
    out->template = "conv_line.c";
    out->scratch_bytes = divide_up(taps_offset + x_blocks * 3 * TAP_BYTES, 64) * 64;
    const int64_t sizes[] = {
        s->C, s->H, s->W, s->K, s->P, s->Q, out->parts, out->rows,
        s->transposed ? s->padding - 2 : -s->padding, strip, point_weights,
        divide_up(strips, split), split, samples, rows, columns, input_plane, result_plane,
        input_offset, result_offset, band_offset, taps_offset,
    };
    out->n_sizes = sizeof sizes / sizeof *sizes;
    memcpy(out->sizes, sizes, sizeof sizes);
    out->packed_bytes = strips * 6 * point_weights * 4;
    out->pack_template = "conv_line_pack.c";
    const int64_t pack_sizes[] = {s->C, s->K, s->transposed, strip, point_weights};
    out->n_pack_sizes = sizeof pack_sizes / sizeof *pack_sizes;
    memcpy(out->pack_sizes, pack_sizes, sizeof pack_sizes);
}

void lower_conv_line_grad_weight(const ConvShape *s, ConvLowering *out)
{
    memset(out, 0, sizeof *out);
    const int64_t x_blocks = divide_up(s->C, 16), dy_blocks = divide_up(s->K, 16);
    const int64_t pairs = divide_up(s->Q, 8), all_blocks = x_blocks + dy_blocks;
    const int64_t wanted = least(most(GRAD_CHUNK_BYTES / (6 * 64 * all_blocks), GRAD_LEAST_PAIRS),
                                 GRAD_MOST_PAIRS);
    const int64_t samples = most(1, wanted / (s->P * pairs));
    const int64_t chunks = divide_up(s->P, most(1, wanted / pairs));
    const int64_t rows = divide_up(s->P, chunks);
    const int64_t band = most(1, GRAD_BAND_PIXELS / s->Q);

    const int64_t unit_c = least(x_blocks, x_blocks > 8 ? 4 : 2);
    const int64_t unit_k = least(dy_blocks, dy_blocks > 8 ? 4 : 2);
    const int64_t units = divide_up(x_blocks, unit_c) * divide_up(dy_blocks, unit_k);
    const int64_t point_sums = divide_up(unit_k, 2) * unit_c * 3 * 16 * 32 + 16;
    const bool small = units < GRAD_LEAST_UNITS;
    const int64_t operands = 96 * (x_blocks * (samples * (rows + 2) * pairs + 3)
                                   + dy_blocks * (samples * rows * pairs + 3));
    const int64_t line_bytes = (8 * pairs + 2) * 64;
    out->template = "conv_line_grad_weight.c";
    out->parts = 1;
    out->rows = s->P;
    out->scratch_bytes = most(line_bytes, small ? 0 : 6 * point_sums * 4);
    out->workspace_bytes = (operands + (small ? units * 6 * point_sums : 0)) * 4;
    const int64_t sizes[] = {
        s->C, s->H, s->W, s->K, s->P, s->Q, s->padding, samples, rows, band, unit_c, unit_k,
        small ? 1 : 6, point_sums, small ? operands : 0,
    };
    out->n_sizes = sizeof sizes / sizeof *sizes;
    memcpy(out->sizes, sizes, sizeof sizes);
}

bool conv_line_fits(const ConvShape *s)
{
    return s->bf16 && s->kernel == 3 && s->stride == 1 && s->dilation == 1
        && s->groups == 1 && s->C >= LEAST_CHANNELS && s->C <= MOST_CHANNELS
        && s->K >= LEAST_CHANNELS;
}
