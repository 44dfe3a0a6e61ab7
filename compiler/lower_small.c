/* Parts and scratch of the host templates: a row a template. The formulas are those at the heads of
 * compiler/kernels/host/NAME.c, in vectors of 16 floats.
 *
 * A part is the unit that threads take, and that accumulates a partial sum of fused reductions. Its
 * rows should fit the second-level cache together with those of a few operands, and a large map
 * should give every thread several. More parts would only cost partial sums, and windows that
 * overlap their borders.
 */
#include "lower_small.h"

#include <string.h>

#include "seg.h"

enum { SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS, SIZE_ATTRIBUTE };
enum { PART_PIXELS = 2048, SMALL_MAP_PIXELS = 1024, LEAST_PARTS = 8 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t no_scratch(const int64_t *s) { return 0 * s[0]; }
static int64_t one_row(const int64_t *s) { return s[SIZE_W]; }
static int64_t one_result_row(const int64_t *s) { return s[SIZE_Q]; }
static int64_t two_rows(const int64_t *s) { return 2 * s[SIZE_W]; }
static int64_t reduced_rows(const int64_t *s) { return s[SIZE_W] + 16 * divide_up(s[SIZE_W], 16); }
static int64_t concat_rows(const int64_t *s) { return 2 * s[SIZE_Q] + 2; }
static int64_t slice_rows(const int64_t *s) { return 2 * s[SIZE_Q] + 3; }
static int64_t gathered_rows(const int64_t *s) { return 2 * s[SIZE_W] + s[SIZE_Q]; }
static int64_t upsampled_rows(const int64_t *s) { return 3 * s[SIZE_W] + s[SIZE_Q]; }
static int64_t flat_result(const int64_t *s) { return s[SIZE_P] * s[SIZE_Q] + s[SIZE_Q] + 1; }

static int64_t flat_operand(const int64_t *s)
{
    return divide_up(s[SIZE_C] * s[SIZE_H] * s[SIZE_W], 16) + s[SIZE_W] + 1;
}

static int64_t pool_rows(const int64_t *s)
{
    int64_t kernel = s[SIZE_ATTRIBUTE], padding = s[SIZE_ATTRIBUTE + 2];
    return s[SIZE_W] + 2 * padding + (kernel + 1) * s[SIZE_Q];
}

static int64_t max_pool_grad_rows(const int64_t *s)
{
    return s[SIZE_W] + 2 * s[SIZE_ATTRIBUTE] * s[SIZE_Q];
}

/* Some rows, and some floats for each pixel of the part. */
static int64_t pixel_table(const int64_t *s, int64_t vectors, int64_t floats)
{
    return vectors + divide_up(floats * s[SIZE_ROWS] * s[SIZE_Q], 16);
}
static int64_t softmax_rows(const int64_t *s)
{
    return pixel_table(s, 16 * divide_up(s[SIZE_C], 16) + s[SIZE_Q], 2);
}
static int64_t channel_rows(const int64_t *s) { return pixel_table(s, 3 * s[SIZE_Q], 1); }

typedef struct {
    const char *name;
    bool whole;                           /* a sample is one part */
    int64_t (*vectors)(const int64_t *sizes);
} Template;

static const Template templates[] = {
    {"avg_pool.c", false, pool_rows},
    {"avg_pool_grad.c", false, gathered_rows},
    {"channel_max_grad.c", false, channel_rows},
    {"concat.c", false, concat_rows},
    {"dice_sums.c", true, two_rows},
    {"global_max_pool_grad.c", true, one_result_row},
    {"linear.c", true, flat_operand},
    {"linear_grad_input.c", true, flat_result},
    {"linear_grad_weight.c", true, flat_operand},
    {"max_pool.c", false, pool_rows},
    {"max_pool_grad.c", false, max_pool_grad_rows},
    {"pad_crop.c", false, one_result_row},
    {"pointwise.c", false, no_scratch},
    {"reduce_channels.c", false, reduced_rows},
    {"reduce_pixels.c", true, one_row},
    {"slice.c", false, slice_rows},
    {"softmax.c", false, softmax_rows},
    {"softmax_grad.c", false, channel_rows},
    {"upsample.c", false, upsampled_rows},
    {"upsample_grad.c", false, gathered_rows},
};

static const Template *find_template(const char *name)
{
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (strcmp(templates[i].name, name) == 0)
            return &templates[i];
    bug("lower: no parts are known for the template %s", name);
}

void template_parts(const char *template, const int64_t *sizes, int64_t *parts, int64_t *rows)
{
    int64_t height = sizes[SIZE_P], width = sizes[SIZE_Q];
    *parts = 1;
    *rows = height;
    if (find_template(template)->whole || height * width <= SMALL_MAP_PIXELS)
        return;
    *rows = least(divide_up(PART_PIXELS, width), divide_up(height, LEAST_PARTS));
    *parts = divide_up(height, *rows);
}

int64_t template_scratch(const char *template, const int64_t *sizes)
{
    return 64 * find_template(template)->vectors(sizes);
}
