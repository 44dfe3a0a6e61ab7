/* Resizing as Pillow does it, equal byte for byte.
 *
 * BILINEAR is a triangle as wide as the scale where the picture shrinks, so it is anti-aliased.
 * Weights are made in double, normalised, rounded to 22-bit fixed point; sums start from one half
 * and are clipped; the horizontal pass comes first and leaves bytes. NEAREST adds the scale up in
 * double, as Pillow does, instead of multiplying: the rounding differs. The float rule is Pillow's
 * mode 'F': the same weights unrounded, sums in double.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"

enum { WEIGHT_BITS = 22, WEIGHT_HALF = 1 << (WEIGHT_BITS - 1) };

/* The weights of one axis: output i is the sum over first[i] .. first[i] + count[i] - 1. */
typedef struct {
    int taps;                   /* room for weights an output */
    int *first, *count;
    double *weights;            /* [out][taps], their sum is 1 */
    int32_t *fixed;             /* the same in fixed point */
} Axis;

static void axis_close(Axis *axis)
{
    free(axis->first);
    free(axis->count);
    free(axis->weights);
    free(axis->fixed);
}

/* A fused multiply-add would round the centres otherwise than Pillow's builds do. */
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((optimize("fp-contract=off")))
#endif
static void axis_fill(Axis *axis, int in, int out, double scale, double widening)
{
#ifdef __clang__
#pragma clang fp contract(off)
#endif
    double narrowing = 1.0 / widening;
    for (int i = 0; i < out; i++) {
        double centre = (i + 0.5) * scale;
        int first = (int)(centre - widening + 0.5);
        int end = (int)(centre + widening + 0.5);
        if (first < 0) first = 0;
        if (end > in) end = in;
        double *weights = axis->weights + (size_t)i * (size_t)axis->taps;
        double sum = 0;
        for (int k = 0; k < end - first; k++) {
            double distance = fabs((k + first - centre + 0.5) * narrowing);
            weights[k] = distance < 1.0 ? 1.0 - distance : 0.0;
            sum += weights[k];
        }
        int32_t *fixed = axis->fixed + (size_t)i * (size_t)axis->taps;
        for (int k = 0; k < end - first; k++) {
            if (sum != 0.0) weights[k] /= sum;
            fixed[k] = (int32_t)(0.5 + weights[k] * (1 << WEIGHT_BITS));
        }
        axis->first[i] = first;
        axis->count[i] = end - first;
    }
}

static bool axis_open(Axis *axis, int in, int out)
{
    double scale = (double)in / out;
    double widening = scale < 1.0 ? 1.0 : scale;
    axis->taps = (int)ceil(widening) * 2 + 1;
    size_t count = (size_t)out, all = count * (size_t)axis->taps;
    axis->first = malloc(count * sizeof *axis->first);
    axis->count = malloc(count * sizeof *axis->count);
    axis->weights = calloc(all, sizeof *axis->weights);
    axis->fixed = calloc(all, sizeof *axis->fixed);
    if (!axis->first || !axis->count || !axis->weights || !axis->fixed) {
        axis_close(axis);
        return false;
    }
    axis_fill(axis, in, out, scale, widening);
    return true;
}

static uint8_t round_byte(int32_t sum)
{
    sum >>= WEIGHT_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void narrow_row_rgb(const uint8_t *in, const Axis *axis, uint8_t *out, int width)
{
    for (int x = 0; x < width; x++, out += 3) {
        const uint8_t *p = in + 3 * axis->first[x];
        const int32_t *weights = axis->fixed + (size_t)x * (size_t)axis->taps;
        int32_t red = WEIGHT_HALF, green = WEIGHT_HALF, blue = WEIGHT_HALF;
        for (int k = 0, n = axis->count[x]; k < n; k++, p += 3) {
            red += p[0] * weights[k];
            green += p[1] * weights[k];
            blue += p[2] * weights[k];
        }
        out[0] = round_byte(red);
        out[1] = round_byte(green);
        out[2] = round_byte(blue);
    }
}

static void narrow_row_grey(const uint8_t *in, const Axis *axis, uint8_t *out, int width)
{
    for (int x = 0; x < width; x++) {
        const uint8_t *p = in + axis->first[x];
        const int32_t *weights = axis->fixed + (size_t)x * (size_t)axis->taps;
        int32_t sum = WEIGHT_HALF;
        for (int k = 0, n = axis->count[x]; k < n; k++) sum += p[k] * weights[k];
        out[x] = round_byte(sum);
    }
}

/* One output row: `count` input rows of `stride` bytes, weighted. */
static void blend_rows(const uint8_t *in, size_t stride, const int32_t *weights, int count,
                       int32_t *restrict sums, uint8_t *restrict out)
{
    for (size_t x = 0; x < stride; x++) sums[x] = WEIGHT_HALF;
    for (int k = 0; k < count; k++) {
        const uint8_t *restrict row = in + (size_t)k * stride;
        int32_t weight = weights[k];
        for (size_t x = 0; x < stride; x++) sums[x] += row[x] * weight;
    }
    for (size_t x = 0; x < stride; x++) out[x] = round_byte(sums[x]);
}

static void resize_columns(const uint8_t *in, const Axis *axis, size_t stride, int32_t *sums,
                           uint8_t *out, int height)
{
    for (int y = 0; y < height; y++)
        blend_rows(in + (size_t)axis->first[y] * stride, stride,
                   axis->fixed + (size_t)y * (size_t)axis->taps, axis->count[y], sums,
                   out + (size_t)y * stride);
}

bool resize_bilinear(const uint8_t *in, int in_width, int in_height, int channels,
                     uint8_t *out, int width, int height)
{
    size_t in_stride = (size_t)in_width * (size_t)channels;
    size_t stride = (size_t)width * (size_t)channels;
    if (in_width == width && in_height == height) {
        memcpy(out, in, stride * (size_t)height);
        return true;
    }
    Axis across = { 0 }, down = { 0 };
    uint8_t *narrowed = malloc(stride * (size_t)in_height);
    int32_t *sums = malloc(stride * sizeof *sums);
    bool ready = narrowed != NULL && sums != NULL && axis_open(&across, in_width, width);
    if (ready && !axis_open(&down, in_height, height)) {
        axis_close(&across);
        ready = false;
    }
    if (ready) {
        for (int y = 0; y < in_height; y++) {
            const uint8_t *row = in + (size_t)y * in_stride;
            uint8_t *target = narrowed + (size_t)y * stride;
            if (channels == 3)
                narrow_row_rgb(row, &across, target, width);
            else
                narrow_row_grey(row, &across, target, width);
        }
        resize_columns(narrowed, &down, stride, sums, out, height);
        axis_close(&across);
        axis_close(&down);
    }
    free(narrowed);
    free(sums);
    return ready;
}

bool resize_float(const float *in, int in_width, int in_height, float *out, int width, int height)
{
    Axis across = { 0 }, down = { 0 };
    float *narrowed = malloc((size_t)width * (size_t)in_height * sizeof *narrowed);
    bool ready = narrowed != NULL && axis_open(&across, in_width, width);
    if (ready && !axis_open(&down, in_height, height)) {
        axis_close(&across);
        ready = false;
    }
    if (!ready) {
        free(narrowed);
        return false;
    }
    for (int y = 0; y < in_height; y++)
        for (int x = 0; x < width; x++) {
            const float *p = in + (size_t)y * (size_t)in_width + across.first[x];
            const double *weights = across.weights + (size_t)x * (size_t)across.taps;
            double sum = 0;
            for (int k = 0; k < across.count[x]; k++) sum += (double)p[k] * weights[k];
            narrowed[(size_t)y * (size_t)width + (size_t)x] = (float)sum;
        }
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const float *p = narrowed + (size_t)down.first[y] * (size_t)width + x;
            const double *weights = down.weights + (size_t)y * (size_t)down.taps;
            double sum = 0;
            for (int k = 0; k < down.count[y]; k++)
                sum += (double)p[(size_t)k * (size_t)width] * weights[k];
            out[(size_t)y * (size_t)width + (size_t)x] = (float)sum;
        }
    axis_close(&across);
    axis_close(&down);
    free(narrowed);
    return true;
}

/* The source of each output position; NULL without memory. */
static int *nearest_axis(int in, int out)
{
    int *source = malloc((size_t)out * sizeof *source);
    if (source == NULL) return NULL;
    double scale = (double)in / out, at = scale * 0.5;
    for (int i = 0; i < out; i++, at += scale) source[i] = at >= in ? in - 1 : (int)at;
    return source;
}

bool resize_nearest(const uint8_t *in, int in_width, int in_height, int channels,
                    uint8_t *out, int width, int height)
{
    int *columns = nearest_axis(in_width, width), *rows = nearest_axis(in_height, height);
    bool ready = columns != NULL && rows != NULL;
    for (int y = 0; ready && y < height; y++) {
        const uint8_t *row = in + (size_t)rows[y] * (size_t)in_width * (size_t)channels;
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++)
                *out++ = row[(size_t)columns[x] * (size_t)channels + (size_t)c];
    }
    free(columns);
    free(rows);
    return ready;
}
