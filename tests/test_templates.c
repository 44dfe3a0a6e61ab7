/* The host's kernel templates, except the convolutions, against naive loops in double; templates.c
 * says how they are called. Values are multiples of 1/4, so that the largest of a window is often
 * not the only one. Shapes: few and many channels, around 8 and 16; odd sizes; maps of one part and
 * of several.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../compiler/lower_small.h"
#include "templates.h"

#define EACH(t)                                     \
    for (int64_t n = 0; n < (t).n; n++)             \
        for (int64_t c = 0; c < (t).c; c++)         \
            for (int64_t h = 0; h < (t).h; h++)     \
                for (int64_t w = 0; w < (t).w; w++)

/* ---- windows ------------------------------------------------------------------------------- */

static Tensor pooled(Tensor x, int64_t kernel, int64_t stride, int64_t padding, bool largest)
{
    Tensor y = zeros(x.n, x.c, (x.h + 2 * padding - kernel) / stride + 1,
                     (x.w + 2 * padding - kernel) / stride + 1);
    EACH(y) {
        double best = -INFINITY, sum = 0;
        for (int64_t r = h * stride - padding; r < h * stride - padding + kernel; r++)
            for (int64_t s = w * stride - padding; s < w * stride - padding + kernel; s++)
                if (r >= 0 && r < x.h && s >= 0 && s < x.w) {
                    best = fmax(best, *at(x, n, c, r, s));
                    sum += *at(x, n, c, r, s);
                }
        *at(y, n, c, h, w) = largest ? best : sum / (double)(kernel * kernel);
    }
    return y;
}

static Tensor max_pooled_grad(Tensor dy, Tensor x, int64_t kernel, int64_t stride, int64_t padding)
{
    Tensor dx = zeros(x.n, x.c, x.h, x.w);
    EACH(dy) {
        double best = -INFINITY, *to = NULL;
        for (int64_t r = h * stride - padding; r < h * stride - padding + kernel; r++)
            for (int64_t s = w * stride - padding; s < w * stride - padding + kernel; s++)
                if (r >= 0 && r < x.h && s >= 0 && s < x.w && *at(x, n, c, r, s) > best) {
                    best = *at(x, n, c, r, s);
                    to = at(dx, n, c, r, s);
                }
        *to += *at(dy, n, c, h, w);
    }
    return dx;
}

static Tensor avg_pooled_grad(Tensor dy, Tensor like, int64_t kernel, int64_t stride,
                              int64_t padding)
{
    Tensor dx = zeros(like.n, like.c, like.h, like.w);
    EACH(dy)
        for (int64_t r = h * stride - padding; r < h * stride - padding + kernel; r++)
            for (int64_t s = w * stride - padding; s < w * stride - padding + kernel; s++)
                if (r >= 0 && r < dx.h && s >= 0 && s < dx.w)
                    *at(dx, n, c, r, s) += *at(dy, n, c, h, w) / (double)(kernel * kernel);
    return dx;
}

static void test_pools(int64_t N, int64_t C, int64_t H, int64_t W)
{
    static const int64_t windows[][3] = {{2, 2, 0}, {3, 2, 1}, {3, 1, 1}, {2, 3, 0}, {3, 3, 0},
                                         {1, 2, 0}, {5, 2, 2}};
    const int64_t *k = windows[below(7)];
    for (int i = 0; i < 2; i++, k = windows[0]) {
        int64_t height = H < k[0] ? k[0] : H, width = W < k[0] ? k[0] : W;
        Tensor x = quarters(N, C, height, width), y = pooled(x, k[0], k[1], k[2], true);
        Tensor mean = pooled(x, k[0], k[1], k[2], false), dy = quarters(N, C, y.h, y.w);
        Tensor x_too = zeros(N, C, height, width), x_again = zeros(N, C, height, width);
        Tensor dy_too = zeros(N, C, y.h, y.w);
        memcpy(x_too.v, x.v, (size_t)count_of(x) * sizeof *x.v);
        memcpy(x_again.v, x.v, (size_t)count_of(x) * sizeof *x.v);
        memcpy(dy_too.v, dy.v, (size_t)count_of(dy) * sizeof *dy.v);
        Tensor max_grad = max_pooled_grad(dy, x, k[0], k[1], k[2]);
        Tensor avg_grad = avg_pooled_grad(dy, x, k[0], k[1], k[2]);
        run_case(&(Case){"max_pool", 1, {x}, y, {k[0], k[1], k[2]}, 0, NULL});
        run_case(&(Case){"avg_pool", 1, {x_too}, mean, {k[0], k[1], k[2]}, 0, NULL});
        run_case(&(Case){"max_pool_grad", 2, {dy, x_again}, max_grad, {k[0], k[1], k[2]}, 0, NULL});
        run_case(&(Case){"avg_pool_grad", 1, {dy_too}, avg_grad, {k[0], k[1], k[2]}, 0, NULL});
    }
}

/* The share of source `from` in place `to` of an enlarged axis. */
static double share(int64_t from, int64_t to, int64_t scale, int64_t count, int64_t mode)
{
    if (mode == 0)
        return from == to / scale;
    double source = fmax(((double)to + 0.5) / (double)scale - 0.5, 0);
    int64_t first = (int64_t)source, second = first + 1 < count ? first + 1 : first;
    double rest = source - (double)first;
    return (from == first) * (1 - rest) + (from == second) * rest;
}

static void test_upsample(int64_t N, int64_t C, int64_t H, int64_t W)
{
    int64_t scale = 1 + below(4), mode = below(2);
    Tensor x = quarters(N, C, H, W), dx = zeros(N, C, H, W);
    Tensor y = zeros(N, C, H * scale, W * scale), dy = quarters(N, C, H * scale, W * scale);
    EACH(y)
        for (int64_t k = 0; k < 9; k++) { /* the neighbours of its place in x */
            int64_t i = h / scale + k / 3 - 1, j = w / scale + k % 3 - 1;
            if (i < 0 || i >= x.h || j < 0 || j >= x.w)
                continue;
            double part = share(i, h, scale, x.h, mode) * share(j, w, scale, x.w, mode);
            *at(y, n, c, h, w) += part * *at(x, n, c, i, j);
            *at(dx, n, c, i, j) += part * *at(dy, n, c, h, w);
        }
    run_case(&(Case){"upsample", 1, {x}, y, {scale, mode}, 0, NULL});
    run_case(&(Case){"upsample_grad", 1, {dy}, dx, {scale, mode}, 0, NULL});
}

/* ---- moves --------------------------------------------------------------------------------- */

static void test_frames(int64_t N, int64_t C, int64_t H, int64_t W)
{
    int64_t more_h = below(4), more_w = below(4), top = below(more_h + 1), left = below(more_w + 1);
    Tensor inner = quarters(N, C, H, W), outer = zeros(N, C, H + more_h, W + more_w);
    EACH(inner)
        *at(outer, n, c, h + top, w + left) = *at(inner, n, c, h, w);
    run_case(&(Case){"pad_crop", 1, {inner}, outer, {top, left}, 0, NULL});
    inner = zeros(N, C, H, W);
    outer = quarters(N, C, H + more_h, W + more_w);
    EACH(inner)
        *at(inner, n, c, h, w) = *at(outer, n, c, h + top, w + left);
    run_case(&(Case){"pad_crop", 1, {outer}, inner, {top, left}, 0, NULL});
}

static void test_joins(int64_t N, int64_t C, int64_t H, int64_t W)
{
    int64_t counts[3] = {C, 1 + below(20), 1 + below(40)}, from = 0;
    Tensor parts[3], y = zeros(N, C + counts[1] + counts[2], H, W);
    for (int i = 0; i < 3; from += counts[i], i++) {
        parts[i] = quarters(N, counts[i], H, W);
        EACH(parts[i])
            *at(y, n, from + c, h, w) = *at(parts[i], n, c, h, w);
    }
    run_case(&(Case){"concat", 3, {parts[0], parts[1], parts[2]}, y,
                     {counts[0], counts[1], counts[2]}, 0, NULL});
    from = below(30);
    Tensor x = quarters(N, from + C + below(20), H, W), slice = zeros(N, C, H, W);
    EACH(slice)
        *at(slice, n, c, h, w) = *at(x, n, from + c, h, w);
    run_case(&(Case){"slice", 1, {x}, slice, {C, from}, 0, NULL});
}

/* ---- elementwise, channels, reductions ----------------------------------------------------- */

static void test_pointwise(int64_t N, int64_t C, int64_t H, int64_t W)
{
    Tensor x = quarters(N, C, H, W), y = zeros(N, C, H, W);
    for (int64_t i = 0; i < count_of(x); i++)
        y.v[i] = 2 * x.v[i] + 1;
    run_case(&(Case){"pointwise", 1, {x}, y, {0}, 0, NULL});
}

static void test_softmax(int64_t N, int64_t C, int64_t H, int64_t W)
{
    Tensor x = quarters(N, C, H, W), y = zeros(N, C, H, W);
    Tensor dy = quarters(N, C, H, W), any = quarters(N, C, H, W), dx = zeros(N, C, H, W);
    double offset = 100 * (double)(below(5) - 2);
    Tensor sums = zeros(N, 1, H, W), dots = zeros(N, 1, H, W);
    EACH(x) {
        *at(sums, n, 0, h, w) += exp(*at(x, n, c, h, w));
        *at(dots, n, 0, h, w) += *at(dy, n, c, h, w) * *at(any, n, c, h, w);
    }
    EACH(x) {
        *at(y, n, c, h, w) = exp(*at(x, n, c, h, w)) / *at(sums, n, 0, h, w);
        *at(x, n, c, h, w) += offset;
        *at(dx, n, c, h, w) = *at(any, n, c, h, w) * (*at(dy, n, c, h, w) - *at(dots, n, 0, h, w));
    }
    free(sums.v);
    free(dots.v);
    run_case(&(Case){"softmax", 1, {x}, y, {0}, 0, NULL});
    run_case(&(Case){"softmax_grad", 2, {dy, any}, dx, {0}, 0, NULL});
}

enum { SUM, MEAN, LARGEST };

static void test_reduction(Tensor shape, int how, bool over_channels)
{
    static const char *const names[] = {"sum_pixels", "mean_pixels", "max_pixels",
                                        "sum_channels", "mean_channels", "max_channels"};
    Tensor x = quarters(shape.n, shape.c, shape.h, shape.w);
    Tensor y = over_channels ? zeros(x.n, 1, x.h, x.w) : zeros(x.n, x.c, 1, 1);
    for (int64_t i = 0; i < count_of(x); i++)
        x.v[i] -= how == LARGEST ? 10 : 0; /* all negative: zeros in padded lanes must not win */
    for (int64_t i = 0; i < count_of(y); i++)
        y.v[i] = how == LARGEST ? -INFINITY : 0;
    EACH(x) {
        double *to = over_channels ? at(y, n, 0, h, w) : at(y, n, c, 0, 0);
        *to = how == LARGEST ? fmax(*to, *at(x, n, c, h, w)) : *to + *at(x, n, c, h, w);
    }
    for (int64_t i = 0; i < count_of(y) && how == MEAN; i++)
        y.v[i] /= (double)(count_of(x) / count_of(y));
    run_case(&(Case){names[how + 3 * over_channels], 1, {x}, y, {0}, 0, NULL});
}

/* Gradient of the largest over the pixels or over the channels. */
static void test_largest_grad(int64_t N, int64_t C, int64_t H, int64_t W, bool over_channels)
{
    Tensor x = quarters(N, C, H, W), dx = zeros(N, C, H, W);
    Tensor dy = over_channels ? quarters(N, 1, H, W) : quarters(N, C, 1, 1);
    for (int64_t i = 0; i < count_of(x); i++)
        x.v[i] -= 10;
    EACH(dy) {
        int64_t count = over_channels ? C : H * W, step = over_channels ? H * W : 1, best = 0;
        const double *from = at(x, n, c, h, w);
        for (int64_t i = 1; i < count; i++)
            if (from[i * step] > from[best * step])
                best = i;
        at(dx, n, c, h, w)[best * step] = *at(dy, n, c, h, w);
    }
    run_case(&(Case){over_channels ? "channel_max_grad" : "global_max_pool_grad", 2, {dy, x}, dx,
                     {0}, 0, NULL});
}

static void test_dice_sums(int64_t N, int64_t C, int64_t H, int64_t W)
{
    Tensor p = quarters(N, C, H, W), t = zeros(N, C, H, W), y = zeros(N, 5, 1, 1);
    double threshold = 0.25 * (double)(below(3) - 1);
    EACH(p) {
        double pixel = *at(p, n, c, h, w), mark = (double)below(2);
        *at(t, n, c, h, w) = mark;
        *at(y, n, 0, 0, 0) += pixel >= threshold && mark == 1;
        *at(y, n, 1, 0, 0) += pixel >= threshold;
        *at(y, n, 2, 0, 0) += mark == 1;
        *at(y, n, 3, 0, 0) += pixel * mark;
        *at(y, n, 4, 0, 0) += pixel;
    }
    run_case(&(Case){"dice_sums", 2, {p, t}, y, {0}, threshold, NULL});
}

/* ---- linear -------------------------------------------------------------------------------- */

static void test_linear(int64_t N, int64_t C, int64_t H, int64_t W)
{
    int64_t channels = 1 + below(40), count = C * H * W;
    Tensor x = quarters(N, C, H, W), weight = quarters(1, channels, count, 1);
    Tensor y = zeros(N, channels, 1, 1), dy = quarters(N, channels, 1, 1), dx = zeros(N, C, H, W);
    for (int64_t i = 0; i < N; i++)
        for (int64_t k = 0; k < channels; k++)
            for (int64_t f = 0; f < count; f++) {
                y.v[i * channels + k] += weight.v[k * count + f] * x.v[i * count + f];
                dx.v[i * count + f] += weight.v[k * count + f] * dy.v[i * channels + k];
            }
    float *own = fixed(weight.v, 1, channels * count);
    float *own_too = fixed(weight.v, 1, channels * count);
    free(weight.v);
    run_case(&(Case){"linear", 1, {x}, y, {0}, 0, own});
    run_case(&(Case){"linear_grad_input", 1, {dy}, dx, {0}, 0, own_too});
}

static void test_linear_grad_weight(int64_t N, int64_t C, int64_t H, int64_t W)
{
    int64_t channels = 1 + below(40), count = C * H * W;
    Tensor x = quarters(N, C, H, W), dy = quarters(N, channels, 1, 1);
    Tensor dw = zeros(1, channels, count, 1);
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < channels; k++)
            for (int64_t f = 0; f < count; f++)
                dw.v[k * count + f] += x.v[n * count + f] * dy.v[n * channels + k];
    run_case(&(Case){"linear_grad_weight", 2, {x, dy}, dw, {0}, 0, NULL});
}

/* ---- what has no rows ---------------------------------------------------------------------- */

enum { MANY = 4096 };
static double random_values[MAX_SMALL][MANY];

static void fill_values(void)
{
    for (int i = 0; i < MAX_SMALL; i++)
        for (int j = 0; j < MANY; j++)
            random_values[i][j] = 0.25 * (double)(1 + below(40)) - (i == 0 ? 0 : 5);
}

static void test_finish_sums(int64_t N, int64_t C, int64_t parts)
{
    const double *v = random_values[1];
    double sums[2][64] = {{0}}, all = 0, count = (double)(N * 7);
    for (int64_t i = 0; i < N * parts; i++)
        for (int64_t c = 0; c < C; c++) {
            sums[0][c] += v[2 * i * C + c];
            sums[1][c] += v[(2 * i + 1) * C + c];
        }
    double packed[2 * 64], mean[64], one[1];
    for (int64_t c = 0; c < C; c++) {
        packed[c] = sums[0][c];
        packed[C + c] = sums[1][c];
    }
    run_small(&(Small){"finish_sums", 2, {fixed(v, 2 * N * parts, C)}, fixed(packed, 2, C),
                       2 * padded(C), {C, parts}, N, 0, 0});
    for (int64_t c = 0; c < C; c++) {
        sums[0][c] = 0;
        for (int64_t i = 0; i < N * parts; i++)
            sums[0][c] += v[i * C + c];
        mean[c] = sums[0][c] / count;
        all += sums[0][c];
    }
    one[0] = all / count;
    run_small(&(Small){"finish_sum", 2, {fixed(v, N * parts, C)}, fixed(sums[0], 1, C), padded(C),
                       {C, parts, 0, 0}, N, 0, 0});
    run_small(&(Small){"finish_sum", 2, {fixed(v, N * parts, C)}, fixed(mean, 1, C), padded(C),
                       {C, parts, 0, 7}, N, 0, 0});
    run_small(&(Small){"finish_sum", 2, {fixed(v, N * parts, C)}, fixed(&all, 1, 1), 16,
                       {C, parts, 1, 0}, N, 0, 0});
    run_small(&(Small){"finish_sum", 2, {fixed(v, N * parts, C)}, fixed(one, 1, 1), 16,
                       {C, parts, 1, 7}, N, 0, 0});
}

static void test_finish_pool(int64_t N, int64_t C, int64_t parts)
{
    const double *v = random_values[1];
    double mean[4 * 64] = {0}, largest[4 * 64];
    for (int64_t i = 0; i < N * C; i++) {
        const int64_t n = i / C, c = i % C;
        largest[i] = -INFINITY;
        for (int64_t part = 0; part < parts; part++) {
            mean[i] += v[(n * parts + part) * C + c] / 7;
            largest[i] = fmax(largest[i], v[2 * (n * parts + part) * C + c]);
        }
    }
    run_small(&(Small){"finish_pool", 2, {fixed(v, N * parts, C)}, fixed(mean, N, C), N * padded(C),
                       {C, parts, 1, 7}, N, 0, 0});
    run_small(&(Small){"finish_pool", 2, {fixed(v, 2 * N * parts, C)}, fixed(largest, N, C),
                       N * padded(C), {C, parts, 2, 0}, N, 0, 0});
}

/* Parts of different lengths of one long list a channel, whose mean is far from zero. */
static void test_finish_moments(int64_t N, int64_t C, int64_t parts)
{
    double *rows = calloc((size_t)(3 * N * parts * C), sizeof *rows), want[2 * 64];
    for (int64_t c = 0; rows && c < C; c++) {
        const double *v = random_values[1] + c;
        int64_t used = 0;
        double mean = 0, squares = 0;
        for (int64_t i = 0; i < N * parts; i++) {
            int64_t length = 1 << i % 3; /* powers of two: the means are exact */
            double *row = rows + 3 * i * C + c;
            row[0] = (double)length;
            for (int64_t j = 0; j < length; j++)
                row[C] += (v[used + j] + 1000) / (double)length;
            row[C] = (float)row[C];
            for (int64_t j = 0; j < length; j++)
                row[2 * C] += (v[used + j] + 1000 - row[C]) * (v[used + j] + 1000 - row[C]);
            used += length;
        }
        for (int64_t j = 0; j < used; j++)
            mean += (v[j] + 1000) / (double)used;
        for (int64_t j = 0; j < used; j++)
            squares += (v[j] + 1000 - mean) * (v[j] + 1000 - mean);
        want[c] = mean;
        want[C + c] = squares / (double)used;
    }
    run_small(&(Small){"finish_moments", 2, {fixed(rows, 3 * N * parts, C)}, fixed(want, 2, C),
                       2 * padded(C), {C, parts}, N, 0, 0});
    free(rows);
}

static void test_batch_norm(int64_t N, int64_t C)
{
    const double *variance = random_values[0], *mean = random_values[1], *weight = random_values[2];
    const double *bias = random_values[3], *s1 = random_values[4], *s2 = random_values[5];
    double eps = 0.125, momentum = 0.25, count = (double)(N * 9), unbiased = count / (count - 1);
    double moments[128], sums[128], affine[128], slopes[192], grad[64], next_mean[64], next_var[64];
    for (int64_t c = 0; c < C; c++) {
        double r = 1 / sqrt(variance[c] + eps), a = weight[c] * r, b = -a * r * r * s2[c] / count;
        moments[c] = mean[c], moments[C + c] = variance[c];
        sums[c] = s1[c], sums[C + c] = s2[c];
        affine[c] = a, affine[C + c] = bias[c] - mean[c] * a;
        slopes[c] = a, slopes[C + c] = b, slopes[2 * C + c] = -a * s1[c] / count - b * mean[c];
        grad[c] = s2[c] * r;
        next_mean[c] = (1 - momentum) * weight[c] + momentum * mean[c];
        next_var[c] = (1 - momentum) * weight[c] + momentum * variance[c] * unbiased;
    }
#define FIXED(rows, values) fixed(values, rows, C)
    run_small(&(Small){"batch_norm_coefficients", 4, {FIXED(2, moments), FIXED(1, weight),
              FIXED(1, bias)}, FIXED(2, affine), 2 * padded(C), {C}, N, eps, 0});
    run_small(&(Small){"batch_norm_running", 5, {FIXED(1, mean), FIXED(1, variance),
              FIXED(1, weight), FIXED(1, bias)}, FIXED(2, affine), 2 * padded(C), {C}, N, eps, 0});
    run_small(&(Small){"batch_norm_slopes", 4, {FIXED(2, moments), FIXED(1, weight),
              FIXED(2, sums)}, FIXED(3, slopes), 3 * padded(C), {C, 9}, N, eps, 0});
    run_small(&(Small){"batch_norm_grad_weight", 3, {FIXED(2, moments), FIXED(2, sums)},
              FIXED(1, grad), padded(C), {C}, N, eps, 0});
    run_small(&(Small){"batch_norm_grad_bias", 2, {FIXED(2, sums)}, FIXED(1, s1), padded(C), {C},
              N, 0, 0});
    run_small(&(Small){"running_mean", 3, {FIXED(1, weight), FIXED(2, moments)},
              FIXED(1, next_mean), padded(C), {C}, N, momentum, N % 2});
    run_small(&(Small){"running_var", 3, {FIXED(1, weight), FIXED(2, moments)},
              FIXED(1, next_var), padded(C), {C, 9}, N, momentum, N % 2});
}

static void test_fold(int64_t C, int64_t filter)
{
    const double *weight = random_values[1], *bias = random_values[2], *scale = random_values[3];
    double *folded = calloc((size_t)(C * filter), sizeof *folded), shifts[64];
    for (int64_t i = 0; folded && i < C * filter; i++)
        folded[i] = weight[i] * scale[i / filter];
    for (int64_t c = 0; c < C; c++)
        shifts[c] = scale[C + c] + scale[c] * bias[c];
    run_small(&(Small){"fold_weight", 3, {fixed(weight, 1, C * filter), FIXED(2, scale)},
              fixed(folded, 1, C * filter), padded(C * filter), {C, C, filter}, 1, 0, 0});
    run_small(&(Small){"fold_bias", 3, {FIXED(2, scale), FIXED(1, bias)}, FIXED(1, shifts),
              padded(C), {C}, 1, 0, 0});
    run_small(&(Small){"fold_no_bias", 2, {FIXED(2, scale)}, FIXED(1, scale + C), padded(C), {C},
              1, 0, 0});
    free(folded);
}

/* Three steps; the parameters after them. */
static void test_adam(int64_t count)
{
    PlanState state = {.learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8,
                       .gradient_scale = 1};
    double *zero = calloc((size_t)count, sizeof *zero), *want = calloc((size_t)count, sizeof *want);
    float *p = fixed(zero, 1, count), *m = fixed(zero, 1, count), *v = fixed(zero, 1, count);
    float *g = fixed(zero, 1, count), *wanted;
    for (int64_t i = 0; i < count; i++) {
        double m64 = 0, v64 = 0;
        g[i] = (float)random_values[1][i % MANY];
        for (int step = 1; step <= 3; step++) {
            m64 = 0.9 * m64 + 0.1 * (double)g[i];
            v64 = 0.999 * v64 + 0.001 * (double)g[i] * (double)g[i];
            want[i] -= 0.01 / (1 - pow(0.9, step)) * m64
                       / (sqrt(v64) / sqrt(1 - pow(0.999, step)) + 1e-8);
        }
    }
    for (state.step = 1; state.step <= 3; state.step++) {
        void *buffers[] = {p, g, m, v, &state};
        int64_t size = padded(count);
        KernelArguments arguments = {buffers, &size, NULL, 1, 2, NULL, 0};
        template_function("update")(&arguments);
    }
    wanted = fixed(want, 1, count);
    int64_t sizes[12] = {count};
    double worst = difference(p, wanted, padded(count));
    judge(worst < 1e-7, "adam", sizes, 1, worst);
    free(zero), free(want), free(p), free(m), free(v), free(g), free(wanted);
}

static void test_small(void)
{
    static const int64_t channels[] = {1, 3, 8, 16, 17, 40};
    for (int i = 0; i < 12; i++) {
        int64_t C = channels[i % 6], N = 1 + below(4);
        fill_values();
        test_finish_sums(N, C, 1 + below(12));
        test_finish_moments(N, C, 1 + below(12));
        test_finish_pool(N, C, 1 + below(12));
        test_batch_norm(N, C);
        test_fold(C, 1 + below(30));
    }
    test_adam(5);
    test_adam(50000);
}

static void test_batched(void)
{
    static const int64_t channels[] = {1, 3, 8, 16, 17, 40};
    for (int i = 0; i < 18; i++) {
        int64_t c = channels[i % 6], n = 1 + below(4), h = 1 + below(20), w = 1 + below(20);
        if (i >= 12) {
            n = 1 + below(2);
            h = 31 + below(10);
            w = 40 + below(5);
        }
        test_pools(n, c, h, w);
        test_upsample(n, c, h, w);
        test_frames(n, c, h, w);
        test_joins(n, c, h, w);
        test_pointwise(n, c, h, w);
        test_softmax(n, c, h, w);
        for (int how = SUM; how <= LARGEST; how++) {
            test_reduction((Tensor){n, c, h, w, NULL}, how, false);
            test_reduction((Tensor){n, c, h, w, NULL}, how, true);
        }
        test_largest_grad(n, c, h, w, false);
        test_largest_grad(n, c, h, w, true);
        test_dice_sums(n, c, h, w);
        test_linear(n, c, 1 + below(5), 1 + below(5));
        test_linear(n, c, 1, 1);
        test_linear_grad_weight(n, c, 1 + below(5), 1 + below(5));
    }
}

/* ---- the prelude's functions --------------------------------------------------------------- */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double silu(double x) { return x / (1 + exp(-x)); }
static double silu_grad(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }
static double gelu(double x) { return x * erfc(-x / sqrt(2)) / 2; }
static double gelu_grad(double x)
{
    return erfc(-x / sqrt(2)) / 2 + x * exp(-x * x / 2) / sqrt(2 * acos(-1));
}

/* Bounds of the relative error, and of an error that is absolute: where results cancel. */
static const struct {
    const char *name;
    double (*exact)(double);
    double low, high;           /* where it is compared */
    double relative, absolute;
} functions[] = {
    {"exp16", exp, -80, 88, 3e-7, 1e-44},
    {"log16", log, 1e-38, 1e30, 2e-7, 1e-7},
    {"log1p16", log1p, -0.5, 1e5, 3e-7, 0},
    {"sigmoid16", sigmoid, -80, 80, 5e-7, 0},
    {"erf16", erf, -20, 20, 4e-7, 0},
    {"silu16", silu, -80, 1e30, 6e-7, 0},
    {"silu_grad16", silu_grad, -80, 80, 5e-7, 5e-7},
    {"gelu16", gelu, -20, 1e30, 2e-7, 1e-6},
    {"gelu_grad16", gelu_grad, -20, 20, 3e-7, 5e-7},
};
enum { FUNCTIONS = sizeof functions / sizeof *functions, POINTS = 1 << 16 };

static void test_functions(void)
{
    static float lists[FUNCTIONS + 3][POINTS];
    void *buffers[FUNCTIONS + 3];
    int64_t sizes[12] = {POINTS};
    float *x = lists[0];
    for (int i = 0; i < FUNCTIONS + 3; i++)
        buffers[i] = lists[i];
    for (int64_t i = 0; i < POINTS; i++) {
        double size = pow(2, (double)below(1000) / 20 - 44);
        x[i] = i % 2 ? (float)((double)below(200001) / 1000 - 100) : (float)(size * (i % 4 - 1));
    }
    memcpy(x, (float[]){INFINITY, -INFINITY, NAN, 0, 1e-40f}, 5 * sizeof *x);
    KernelArguments arguments = {buffers, sizes, NULL, 1, 1, NULL, 0};
    template_function("functions")(&arguments);
    for (int f = 0; f < FUNCTIONS; f++) {
        double worst = 0;
        for (int64_t i = 0; i < POINTS; i++) {
            double want = functions[f].exact((double)x[i]), got = (double)lists[f + 1][i];
            bool inside = (double)x[i] >= functions[f].low && (double)x[i] <= functions[f].high;
            double allowed = functions[f].relative * fabs(want) + functions[f].absolute + 1e-45;
            if (inside)
                worst = fmax(worst, isnan(got) ? INFINITY : fabs(got - want) / allowed);
        }
        judge(worst <= 1 && isnan(lists[f + 1][2]), functions[f].name, sizes, 1, worst);
    }
    float ends[] = {lists[1][0], lists[1][1], lists[2][0], lists[2][3], lists[4][0], lists[4][1],
                    lists[5][0], lists[5][1], lists[6][0], lists[7][0], lists[8][0], lists[9][0]};
    float want[] = {INFINITY, 0, INFINITY, -INFINITY, 1, 0, 1, -1, INFINITY, 1, INFINITY, 1};
    judge(memcmp(ends, want, sizeof want) == 0 && isnan(lists[2][1]) && fabsf(lists[6][1]) < 1e-30f
          && fabsf(lists[7][1]) < 1e-30f && lists[8][1] == 0 && lists[9][1] == 0,
          "at infinity", sizes, 1, 0);
}

static void test_random(void)
{
    static float lists[12][POINTS];
    void *buffers[12];
    int64_t sizes[12] = {POINTS};
    for (int i = 0; i < 12; i++)
        buffers[i] = lists[i];
    KernelArguments arguments = {buffers, sizes, NULL, 1, 1, NULL, 0};
    template_function("functions")(&arguments);
    const float *u = lists[10];
    double mean = 0, square = 0, neighbours = 0;
    bool inside = memcmp(lists[10], lists[11], sizeof lists[10]) == 0;
    for (int64_t i = 0; i < POINTS; i++) {
        inside = inside && u[i] >= 0 && u[i] < 1;
        mean += (double)u[i] / POINTS;
        square += (double)u[i] * (double)u[i] / POINTS;
        neighbours += ((double)u[i] - 0.5) * ((double)u[(i + 16) % POINTS] - 0.5) / POINTS;
    }
    judge(inside, "uniform16 and uniform1", sizes, 1, 0);
    judge(fabs(mean - 0.5) < 0.006, "mean of uniform16", sizes, 1, mean);
    judge(fabs(square - 1.0 / 3) < 0.006, "square of uniform16", sizes, 1, square);
    judge(fabs(neighbours) < 0.002, "neighbours of uniform16", sizes, 1, neighbours);
}

int main(void)
{
    compile_templates();
    test_functions();
    test_random();
    test_batched();
    test_small();
    return report();
}
