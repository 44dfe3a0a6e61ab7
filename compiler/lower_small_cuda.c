/* Launches of the CUDA templates outside the conv family: a row a template.
 *
 * A part of a sample is what one thread block does, and what has a row of partial sums for every
 * fused reduction. So few pixels in it mean many blocks, which a small map needs at a small batch;
 * many pixels mean few rows. Threads side by side take neighbouring channel blocks, so that what a
 * warp reads is whole cache lines: 8 of them at most, because more would leave less pixels for the
 * same number of blocks.
 *
 * All depends on sizes alone, never on the machine; the numbers suit some 130 multiprocessors.
 */
#include "lower_small_cuda.h"

#include <string.h>

#include "seg.h"

enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_ATTRIBUTE
};
enum { SIZE_KERNEL = SIZE_ATTRIBUTE, SIZE_STRIDE, SIZE_PADDING }; /* of the pools */
enum {
    WALK_THREADS = 256, SAMPLE_THREADS = 512, FINISH_THREADS = 512, SMALL_THREADS = 128,
    MAX_WALK_LANES = 8, MAX_LANES = 32,
    ENOUGH_BLOCKS = 264,        /* of a sample: four a multiprocessor at batch 2 */
    MOST_STEPS = 8,             /* pixels that a thread does one after the other */
    LARGE_SAMPLE = 8192,        /* pixels: more than one thread block should walk over */
    MOST_PARTS = 256,           /* of a large sample */
    WINDOW_TABLE = 32768,       /* bytes: TABLE of max_pool_grad.cu; */
    PLACES_BYTES = 32,          /* of a window and lane in it */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t blocks_of(int64_t channels) { return divide_up(channels, 8); }

/* How a template divides its work. */
typedef enum {
    BY_PIXELS,                  /* walk_of_thread of rows.h */
    BY_WINDOWS,                 /* the same with windows that are DISJOINT, or tiles of pixels that
                                   windows overlap: max_pool_grad.cu */
    BY_WHOLE_PIXELS,            /* a thread block does all channels of its pixels */
    BY_SAMPLES,                 /* a thread block does all pixels of a sample for its channels; a
                                   large sample is done in two stages */
    BY_VECTORS,                 /* 8 numbers of a fixed result a thread */
    BY_CHANNEL_GROUPS,          /* finish_*: 8 channels a thread block, fixed tensors */
    BY_CHANNELS,                /* small operators: a channel a thread */
    BY_ELEMENTS,                /* fold_weight */
    BY_SLAB,                    /* what follows the gradients */
} Division;

typedef struct {
    const char *name;
    Division division;
    int shared;                 /* own bytes of shared memory: a pixel (BY_WHOLE_PIXELS), thread */
    int workspace;              /* bytes that a part of a large sample stores, a channel block */
    bool window;                /* has WINDOW: the attribute kernel where it is small */
} Template;

static const Template templates[] = {
    {"avg_pool.cu", BY_PIXELS, 0, 0, true},
    {"avg_pool_grad.cu", BY_PIXELS, 0, 0, false},
    {"batch_norm_coefficients.cu", BY_CHANNELS, 0, 0, false},
    {"batch_norm_grad_bias.cu", BY_CHANNELS, 0, 0, false},
    {"batch_norm_grad_weight.cu", BY_CHANNELS, 0, 0, false},
    {"batch_norm_running.cu", BY_CHANNELS, 0, 0, false},
    {"batch_norm_slopes.cu", BY_CHANNELS, 0, 0, false},
    {"blend.cu", BY_SLAB, 0, 0, false},
    {"channel_max_grad.cu", BY_WHOLE_PIXELS, 4, 0, false},
    {"concat.cu", BY_PIXELS, 0, 0, false},
    {"dice_sums.cu", BY_SAMPLES, 20, 32, false},
    {"finish_moments.cu", BY_CHANNEL_GROUPS, 48, 0, false},
    {"finish_sum.cu", BY_CHANNEL_GROUPS, 16, 0, false},
    {"finish_sums.cu", BY_CHANNEL_GROUPS, 32, 0, false},
    {"fold_bias.cu", BY_CHANNELS, 0, 0, false},
    {"fold_weight.cu", BY_ELEMENTS, 0, 0, false},
    {"global_max_pool_grad.cu", BY_SAMPLES, 64, 64, false},
    {"gradient_norm.cu", BY_SLAB, 8, 0, false},
    {"linear.cu", BY_PIXELS, 32, 0, false},
    {"linear_grad_input.cu", BY_PIXELS, 32, 0, false},
    {"linear_grad_weight.cu", BY_VECTORS, 0, 0, false},
    {"max_pool.cu", BY_PIXELS, 0, 0, true},
    {"max_pool_grad.cu", BY_WINDOWS, 0, 0, true},
    {"pad_crop.cu", BY_PIXELS, 0, 0, false},
    {"pointwise.cu", BY_PIXELS, 0, 0, false},
    {"reduce_channels.cu", BY_WHOLE_PIXELS, 0, 0, false},
    {"reduce_pixels.cu", BY_SAMPLES, 32, 32, false},
    {"running_mean.cu", BY_CHANNELS, 0, 0, false},
    {"running_var.cu", BY_CHANNELS, 0, 0, false},
    {"slice.cu", BY_PIXELS, 0, 0, false},
    {"softmax.cu", BY_WHOLE_PIXELS, 8, 0, false},
    {"softmax_grad.cu", BY_WHOLE_PIXELS, 4, 0, false},
    {"update.cu", BY_SLAB, 0, 0, false},
    {"upsample.cu", BY_PIXELS, 0, 0, false},
    {"upsample_grad.cu", BY_PIXELS, 0, 0, false},
};

static const Template *find_template(const char *name)
{
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (strcmp(templates[i].name, name) == 0)
            return &templates[i];
    bug("lower: no launch is known for the template %s", name);
}

/* ---- threads side by side -------------------------------------------------------------------- */

/* A power of two up to `most`, with few threads in it that have no channel block. */
static int64_t lanes_for(int64_t blocks, int64_t most)
{
    int64_t lanes = 1;
    while (lanes < most && lanes < blocks)
        lanes *= 2;
    while (lanes > 4 && 4 * divide_up(blocks, lanes) * lanes > 5 * blocks)
        lanes /= 2;
    return lanes;
}

/* Of a thread block that does all pixels of a sample: few, so that there are many blocks, but each
 * thread should have a pixel. */
static int64_t sample_lanes(int64_t blocks, int64_t pixels)
{
    int64_t lanes = least(blocks, 2);
    while (lanes < MAX_LANES && lanes < blocks && SAMPLE_THREADS / lanes > pixels)
        lanes *= 2;
    return lanes;
}

/* Pixels a thread does, where a sample is `steps` of a whole thread block. */
static int64_t steps_of_part(int64_t steps)
{
    if (steps < ENOUGH_BLOCKS / 2)
        return 1;
    int64_t count = steps / ENOUGH_BLOCKS;
    return count < 2 ? 2 : least(count, MOST_STEPS);
}

/* ---- divisions ------------------------------------------------------------------------------- */

/* A walk over `pixels`, or what stands for them; where they are few, threads take channels. */
static void by_pixels(int64_t *s, int64_t pixels, CudaLaunch *launch)
{
    int64_t blocks = blocks_of(s[SIZE_K]), lanes = lanes_for(blocks, MAX_WALK_LANES);
    while (lanes < WALK_THREADS && lanes < blocks && WALK_THREADS / lanes > pixels)
        lanes *= 2;
    int64_t groups = divide_up(blocks, lanes), step = WALK_THREADS / lanes;
    s[SIZE_LANES] = lanes;
    s[SIZE_PIXELS] = step * steps_of_part(divide_up(pixels, step) * groups);
    s[SIZE_PARTS] = divide_up(pixels, s[SIZE_PIXELS]);
    launch->blocks_per_sample = s[SIZE_PARTS] * groups;
}

/* The widest row of windows that reach a tile must fit in the table. */
static int64_t tile_width(int64_t pixels) { return pixels < 16 ? 4 : pixels < 64 ? 8 : 16; }
static bool windows_fit(const int64_t *s, int64_t lanes)
{
    int64_t width = tile_width(WALK_THREADS / lanes);
    return ((width + s[SIZE_KERNEL] - 2) / s[SIZE_STRIDE] + 1) * lanes * PLACES_BYTES
        <= WINDOW_TABLE;
}

static bool windows_disjoint(const int64_t *s)
{
    return s[SIZE_STRIDE] == s[SIZE_KERNEL] && s[SIZE_PADDING] == 0;
}

static void by_windows(int64_t *s, CudaLaunch *launch)
{
    if (windows_disjoint(s)) {
        by_pixels(s, divide_up(s[SIZE_P], s[SIZE_KERNEL]) * divide_up(s[SIZE_Q], s[SIZE_KERNEL]),
                  launch);
        return;
    }
    int64_t blocks = blocks_of(s[SIZE_K]), lanes = lanes_for(blocks, MAX_WALK_LANES);
    while (lanes > 1 && !windows_fit(s, lanes))
        lanes /= 2;
    if (!windows_fit(s, lanes))
        bug("lower: no kernel for the gradient of max_pool with windows of %lld",
            (long long)s[SIZE_KERNEL]);
    int64_t groups = divide_up(blocks, lanes), step = WALK_THREADS / lanes;
    int64_t width = tile_width(step);
    int64_t tiles = divide_up(s[SIZE_Q], width) * divide_up(s[SIZE_P], step / width);
    int64_t steps = steps_of_part(tiles * groups);
    s[SIZE_LANES] = lanes;
    s[SIZE_PIXELS] = step * steps;
    s[SIZE_PARTS] = divide_up(tiles, steps);
    launch->blocks_per_sample = s[SIZE_PARTS] * groups;
    launch->shared_bytes = WINDOW_TABLE;
}

static void by_whole_pixels(int64_t *s, const Template *template, CudaLaunch *launch)
{
    int64_t channels = s[SIZE_C] > s[SIZE_K] ? s[SIZE_C] : s[SIZE_K], blocks = blocks_of(channels);
    int64_t lanes = lanes_for(blocks, MAX_LANES), step = WALK_THREADS / lanes;
    int64_t pixels = s[SIZE_P] * s[SIZE_Q];
    s[SIZE_LANES] = lanes;
    s[SIZE_PIXELS] = step * steps_of_part(divide_up(pixels, step));
    s[SIZE_PARTS] = divide_up(pixels, s[SIZE_PIXELS]);
    launch->blocks_per_sample = s[SIZE_PARTS];
    launch->shared_bytes = template->shared * s[SIZE_PIXELS];
}

/* Parts of a sample: as many as blocks of threads; a thread has four pixels in hand at a time. */
static void large_sample(int64_t *s, int64_t pixels, bool spread, CudaLaunch *first,
                         CudaLaunch *launch)
{
    int64_t blocks = blocks_of(s[SIZE_K]), lanes = lanes_for(blocks, MAX_WALK_LANES);
    int64_t step = SAMPLE_THREADS / lanes, groups = divide_up(blocks, lanes);
    int64_t part = 4 * step, parts;
    while (divide_up(pixels, part) > MOST_PARTS)
        part *= 2;
    parts = divide_up(pixels, part);
    s[SIZE_LANES] = lanes;
    s[SIZE_PIXELS] = part;
    s[SIZE_PARTS] = spread ? parts : 1;
    first->defines = "#define THREADS 512\n#define STAGE 1\n";
    launch->defines = "#define THREADS 512\n#define STAGE 2\n";
    first->blocks_per_sample = parts * groups;
    launch->blocks_per_sample = s[SIZE_PARTS] * groups;
}

/* Gives the bytes of workspace a sample; 0: one launch does all. */
static int64_t by_samples(int64_t *s, const Template *template, CudaLaunch *first,
                          CudaLaunch *launch)
{
    int64_t blocks = blocks_of(s[SIZE_K]), result = s[SIZE_P] * s[SIZE_Q];
    int64_t pixels = s[SIZE_H] * s[SIZE_W] * result;     /* one of both maps is 1 x 1 */
    launch->shared_bytes = first->shared_bytes = template->shared * SAMPLE_THREADS;
    if (pixels > LARGE_SAMPLE) {
        large_sample(s, pixels, result > 1, first, launch);
        return divide_up(pixels, s[SIZE_PIXELS]) * blocks * template->workspace;
    }
    launch->defines = "#define THREADS 512\n#define STAGE 0\n";
    s[SIZE_LANES] = sample_lanes(blocks, pixels);
    s[SIZE_PIXELS] = pixels;
    s[SIZE_PARTS] = 1;
    launch->blocks_per_sample = divide_up(blocks, s[SIZE_LANES]);
    return 0;
}

/* ---- what a launch defines ------------------------------------------------------------------- */

static const char *walk_defines(const Template *template, const int64_t *s)
{
    static const char *const pool[] = {
        "#define THREADS 256\n#define WINDOW 0\n",
        "#define THREADS 256\n#define WINDOW 2\n",
        "#define THREADS 256\n#define WINDOW 3\n",
    }, *const disjoint[] = {
        "#define THREADS 256\n#define WINDOW 0\n#define DISJOINT\n",
        "#define THREADS 256\n#define WINDOW 2\n#define DISJOINT\n",
        "#define THREADS 256\n#define WINDOW 3\n#define DISJOINT\n",
    }, *const overlapping[] = {
        "#define THREADS 256\n#define WINDOW 0\n#define TABLE 32768\n",
        "#define THREADS 256\n#define WINDOW 2\n#define TABLE 32768\n",
        "#define THREADS 256\n#define WINDOW 3\n#define TABLE 32768\n",
    };
    if (!template->window)
        return "#define THREADS 256\n";
    int kernel = s[SIZE_KERNEL] == 2 || s[SIZE_KERNEL] == 3 ? (int)s[SIZE_KERNEL] - 1 : 0;
    if (template->division != BY_WINDOWS)
        return pool[kernel];
    return windows_disjoint(s) ? disjoint[kernel] : overlapping[kernel];
}

static void set_threads(CudaLaunch *launch, int threads)
{
    launch->threads = threads;
    launch->defines = threads == 128 ? "#define THREADS 128\n"
                    : threads == 256 ? "#define THREADS 256\n" : "#define THREADS 512\n";
}

static void lower_fixed(const Template *template, const int64_t *s, CudaLaunch *launch)
{
    int64_t count;
    switch (template->division) {
    case BY_SLAB:
        set_threads(launch, UPDATE_THREADS);
        launch->shared_bytes = template->shared * UPDATE_THREADS;
        return;
    case BY_CHANNEL_GROUPS:
        set_threads(launch, FINISH_THREADS);
        launch->blocks = strcmp(template->name, "finish_sum.cu") == 0 && s[2]
                       ? 1 : 2 * divide_up(s[0], 16);
        launch->shared_bytes = template->shared * FINISH_THREADS;
        return;
    default:
        count = template->division == BY_ELEMENTS ? s[1] * s[2] : s[0];
        set_threads(launch, SMALL_THREADS);
        launch->blocks = divide_up(16 * divide_up(count, 16), SMALL_THREADS);
    }
}

int64_t lower_small_cuda(const char *name, int64_t *sizes, int n_sizes, bool batched,
                         CudaLaunch *launch, CudaLaunch *first)
{
    const Template *template = find_template(name);
    int64_t workspace = 0;
    *launch = (CudaLaunch){ .threads = SAMPLE_THREADS };
    if (first)
        *first = *launch;
    if (template->division >= BY_CHANNEL_GROUPS) {
        lower_fixed(template, sizes, launch);
        return 0;
    }
    if (n_sizes < SIZE_ATTRIBUTE)
        bug("lower: %s has %d sizes", name, n_sizes);
    if (template->division == BY_SAMPLES) {
        workspace = by_samples(sizes, template, first, launch);
    } else {
        launch->threads = WALK_THREADS;
        launch->defines = walk_defines(template, sizes);
    }
    if (template->division == BY_PIXELS) {
        by_pixels(sizes, sizes[SIZE_P] * sizes[SIZE_Q], launch);
        launch->merge_offset = launch->shared_bytes = template->shared * WALK_THREADS;
    } else if (template->division == BY_VECTORS) {
        launch->blocks_per_sample = divide_up(sizes[SIZE_K], 8 * WALK_THREADS);
    } else if (template->division == BY_WINDOWS) {
        by_windows(sizes, launch);
    } else if (template->division == BY_WHOLE_PIXELS) {
        by_whole_pixels(sizes, template, launch);
        launch->merge_offset = launch->shared_bytes;     /* its table is read until the end */
    }
    if (!batched) {
        launch->blocks = launch->blocks_per_sample;
        launch->blocks_per_sample = 0;
    }
    return workspace;
}
