/* The host's convolution kernels by themselves: templates with small hand-written row functions in
 * place of generated ones, built at run time with the system's compiler, against a naive reference
 * in double over random shapes; and the same bits for 1, 2 and 3 threads.
 *
 *   test_conv_kernels                 the tests
 *   test_conv_kernels --bench [T [LAYER]]  GFLOP/s with T threads beside a probe of the machine's
 *                                     peak; LAYER is a part of 64-64@256:2 (C-K@H:N), or all of it,
 *                                     or 3-64@256:2,7,2 with a kernel and a stride; "input" then is
 *                                     a transposed convolution
 *
 * Runs in the repository's root. SEG_CC is the compiler; SEG_TEST_CFLAGS are added to its flags
 * (for sanitizers, the test itself must be built with them too).
 */
#include "conv_kernels.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the reference --------------------------------------------------------------------------- */

typedef struct {
    ConvShape shape;
    Pass pass;
    int64_t N;
    bool fused;
} Case;

static double at(const float *tensor, int64_t n, int64_t C, int64_t c, int64_t pixels,
                 int64_t pixel)
{
    return tensor[((n * (padded_channels(C) / 16) + c / 16) * pixels + pixel) * 16 + c % 16];
}

static double prologue(bool fused, double x)
{
    return fused ? fmax(0, 0.5 * x + 0.25) : x;
}

/* Calls visit(context, n, c, x pixel, k, y pixel, weight) for each product there is. */
typedef void Visit(void *context, int64_t n, int64_t c, int64_t xp, int64_t k, int64_t yp,
                   int64_t w);
static void each_product(const Case *t, Visit *visit, void *context)
{
    const ConvShape *s = &t->shape;
    const int64_t C = s->C / s->groups, K = s->K / s->groups, taps = s->kernel * s->kernel;
    /* the conv's input and output maps: swapped where transposed */
    const int64_t H = s->transposed ? s->P : s->H, W = s->transposed ? s->Q : s->W;
    const int64_t P = s->transposed ? s->H : s->P, Q = s->transposed ? s->W : s->Q;
    for (int64_t tap = 0; tap < taps; tap++) {
        for (int64_t p = 0; p < P; p++) {
            for (int64_t q = 0; q < Q; q++) {
                const int64_t h = p * s->stride - s->padding + tap / s->kernel * s->dilation;
                const int64_t w = q * s->stride - s->padding + tap % s->kernel * s->dilation;
                if (h < 0 || h >= H || w < 0 || w >= W)
                    continue;
                for (int64_t i = 0; i < t->N * s->C * K; i++) {
                    const int64_t n = i / (s->C * K), c = i / K % s->C, k = c / C * K + i % K;
                    const int64_t row = s->transposed ? c * K + k % K : k * C + c % C;
                    if (s->transposed)
                        visit(context, n, c, p * Q + q, k, h * W + w, row * taps + tap);
                    else
                        visit(context, n, c, h * W + w, k, p * Q + q, row * taps + tap);
                }
            }
        }
    }
}

typedef struct {
    const Case *test;
    const float *x, *y, *weights; /* y: dy of a weight gradient */
    double *result, *size;        /* and the sum of its terms' absolute values */
} Reference;

static void visit_forward(void *context, int64_t n, int64_t c, int64_t xp, int64_t k, int64_t yp,
                          int64_t w)
{
    const Reference *r = context;
    const ConvShape *s = &r->test->shape;
    const double value =
        prologue(r->test->fused, at(r->x, n, s->C, c, s->H * s->W, xp)) * r->weights[w];
    r->result[(n * s->K + k) * s->P * s->Q + yp] += value;
    r->size[(n * s->K + k) * s->P * s->Q + yp] += fabs(value);
}

static void visit_weight(void *context, int64_t n, int64_t c, int64_t xp, int64_t k, int64_t yp,
                         int64_t w)
{
    const Reference *r = context;
    const ConvShape *s = &r->test->shape;
    const double value = prologue(r->test->fused, at(r->x, n, s->C, c, s->H * s->W, xp))
                         * prologue(r->test->fused, at(r->y, n, s->K, k, s->P * s->Q, yp));
    r->result[w] += value;
    r->size[w] += fabs(value);
}

/* ---- running a case --------------------------------------------------------------------- */

static int passed, failed;

static void report(const Case *t, bool good, const char *format, ...)
{
    if (good) {
        passed++;
        return;
    }
    const ConvShape *s = &t->shape;
    va_list list;
    va_start(list, format);
    printf("FAILED %s%s%s N=%lld C=%lld H=%lld W=%lld K=%lld P=%lld Q=%lld kernel=%lld stride=%lld "
           "padding=%lld dilation=%lld groups=%lld: ", pass_names[t->pass],
           s->transposed ? " transposed" : "", t->fused ? " fused" : "", (long long)t->N,
           (long long)s->C, (long long)s->H, (long long)s->W, (long long)s->K, (long long)s->P,
           (long long)s->Q, (long long)s->kernel, (long long)s->stride, (long long)s->padding,
           (long long)s->dilation, (long long)s->groups);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
    failed++;
}

static void call(KernelFunction *function, const ConvLowering *l, bool pack, void *const *buffers,
                 int64_t N, int threads)
{
    KernelArguments a = {.buffers = buffers, .sizes = pack ? l->pack_sizes : l->sizes, .batch = N,
                         .threads = threads, .scratch_bytes = l->scratch_bytes};
    a.scratch = (char *)allocate_floats(l->scratch_bytes / 4 * threads);
    memset(a.scratch, 0xff, (size_t)(l->scratch_bytes * threads)); /* NaN */
    function(&a);
    free(a.scratch);
}

static void check_sums(const Case *t, const ConvLowering *l, const float *y, const float *partials)
{
    const ConvShape *s = &t->shape;
    const int64_t pixels = s->P * s->Q, blocks = padded_channels(s->K) / 16;
    for (int64_t n = 0; n < t->N; n++) {
        for (int64_t k = 0; k < s->K; k++) {
            double want = 0, got = 0;
            for (int64_t i = 0; i < pixels; i++)
                want += at(y, n, s->K, k, pixels, i);
            for (int64_t part = 0; part < l->parts; part++)
                got += partials[((n * l->parts + part) * blocks + k / 16) * 16 + k % 16];
            if (!(fabs(want - got) <= 1e-5 * (want + 1))) {
                report(t, false, "sum of channel %lld is %g, not %g", (long long)k, got, want);
                return;
            }
        }
    }
    passed++;
}

/* Largest error in units of the sum of the terms' absolute values. */
static void run_forward(const Case *t)
{
    const ConvShape *s = &t->shape;
    const int64_t pixels = s->P * s->Q, count = t->N * s->K * pixels,
                  stored = t->N * padded_channels(s->K) * pixels;
    ConvLowering l;
    lower_pass(t->pass, s, &l);
    float *x = random_blocked(t->N, s->C, s->H * s->W), *weights = allocate_floats(weight_count(s));
    float *packed = allocate_floats(l.packed_bytes / 4), *y = allocate_floats(stored), *again = allocate_floats(stored);
    float *bias = random_blocked(1, s->K, 1);
    const int64_t sums = t->N * l.parts * padded_channels(s->K);
    float *partials = allocate_floats(sums);
    for (int64_t i = 0; i < weight_count(s); i++)
        weights[i] = random_value();
    float *workspace = allocate_floats(l.workspace_bytes / 4);
    memset(packed, 0xff, (size_t)l.packed_bytes);
    memset(workspace, 0xff, (size_t)l.workspace_bytes);
    if (l.pack_template)
        call(conv_kernel(l.pack_template, false), &l, true, (void *[]){weights, packed}, 1, 2);
    Reference r = {t, x, NULL, weights, calloc((size_t)count, 8), calloc((size_t)count, 8)};
    each_product(t, visit_forward, &r);
    for (int threads = 1; threads <= 3; threads++) {
        float *to = threads == 1 ? y : again;
        memset(to, 0xff, (size_t)stored * 4);
        memset(partials, 0, (size_t)sums * 4);
        void *const with_workspace[] = {weights, workspace, x, to, bias, partials};
        void *const without[] = {l.pack_template ? packed : weights, x, to, bias, partials};
        call(conv_kernel(l.template, t->fused), &l, false,
             l.workspace_bytes ? with_workspace : without, t->N, threads);
        if (threads > 1)
            report(t, memcmp(y, again, (size_t)stored * 4) == 0, "%d threads differ", threads);
    }
    double worst = 0, largest = 1;
    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(r.result[i]));
    for (int64_t i = 0; i < t->N * padded_channels(s->K) * pixels; i++) {
        const int64_t n = i / (padded_channels(s->K) * pixels), pixel = i % pixels,
                      k = i / pixels % padded_channels(s->K);
        const int64_t place = k < s->K ? (n * s->K + k) * pixels + pixel : 0;
        double want = k < s->K ? r.result[place] : 0;
        if (t->fused && k < s->K)
            want = fmax(0, want + bias[k]);
        const double size = t->pass != FORWARD ? largest : k < s->K ? r.size[place] + 1 : 1;
        const double error = fabs(at(y, n, padded_channels(s->K), k, pixels, pixel) - want) / size;
        worst = error <= worst ? worst : error;
    }
    report(t, worst < (t->pass != FORWARD ? 1e-5 : 2e-6), "error %g", worst);
    if (t->fused)
        check_sums(t, &l, y, partials);
    free(x), free(weights), free(packed), free(workspace), free(y), free(again), free(bias);
    free(partials);
    free(r.result), free(r.size);
}

static void run_weight(const Case *t)
{
    const ConvShape *s = &t->shape;
    const int64_t count = weight_count(s);
    ConvLowering l;
    lower_pass(t->pass, s, &l);
    float *x = random_blocked(t->N, s->C, s->H * s->W), *dy = random_blocked(t->N, s->K, s->P * s->Q);
    float *dw = allocate_floats(count), *again = allocate_floats(count);
    Reference r = {t, x, dy, NULL, calloc((size_t)count, 8), calloc((size_t)count, 8)};
    each_product(t, visit_weight, &r);
    for (int threads = 1; threads <= 3; threads++) {
        float *to = threads == 1 ? dw : again;
        float *workspace = allocate_floats((l.workspace_bytes + t->N * l.workspace_sample_bytes) / 4);
        memset(to, 0xff, (size_t)count * 4);
        memset(workspace, 0xff, (size_t)(l.workspace_bytes + t->N * l.workspace_sample_bytes));
        call(conv_kernel(l.template, t->fused), &l, false, (void *[]){to, workspace, x, dy}, t->N,
             threads);
        if (threads > 1)
            report(t, memcmp(dw, again, (size_t)count * 4) == 0, "%d threads differ", threads);
        free(workspace);
    }
    const bool winograd = t->pass == WINOGRAD_WEIGHT;
    double worst = 0, largest = 1;
    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(r.result[i]));
    for (int64_t i = 0; i < count; i++) {
        const double error = fabs(dw[i] - r.result[i]) / (winograd ? largest : r.size[i] + 1);
        worst = error <= worst ? worst : error;
    }
    report(t, worst < (winograd ? 1e-5 : 2e-6), "error %g", worst);
    free(x), free(dy), free(dw), free(again), free(r.result), free(r.size);
}

static int64_t sooner(int64_t small, int64_t n)      /* 1..n, often small */
{
    return 1 + random_below(random_below(3) ? small : n);
}

/* False where there is no result, or the reference would take too long. */
static bool random_case(Case *t)
{
    ConvShape *s = &t->shape;
    *s = (ConvShape){.kernel = sooner(3, 7), .stride = sooner(2, 3), .padding = random_below(5),
                     .dilation = sooner(1, 2), .groups = 1};
    t->N = sooner(2, 5);
    t->fused = random_below(2);
    static const Pass passes[] = {FORWARD, FORWARD, WINOGRAD, LARGE, WEIGHT, WINOGRAD_WEIGHT};
    t->pass = passes[random_below(6)];
    const bool winograd = t->pass != FORWARD && t->pass != WEIGHT;
    s->way = WAY_DIRECT;
    if (winograd)
        s->kernel = 3, s->stride = s->dilation = 1;
    const int64_t span = (s->kernel - 1) * s->dilation;
    int64_t H = sooner(20, 40), W = sooner(20, 40), C = sooner(40, 70), K = sooner(40, 70);
    const int64_t kind = winograd ? 2 : random_below(6);
    if (kind < 2) {                                  /* groups, depthwise */
        s->groups = kind == 0 ? sooner(4, 35) : C;
        C = kind == 0 ? s->groups * sooner(4, 1 + 70 / s->groups) : C;
        K = kind == 0 ? s->groups * sooner(4, 1 + 70 / s->groups) : C;
    }
    if (H + 2 * s->padding < span + 1 || W + 2 * s->padding < span + 1)
        return false;
    s->C = C, s->H = H, s->W = W, s->K = K;
    s->P = (H + 2 * s->padding - span - 1) / s->stride + 1;
    s->Q = (W + 2 * s->padding - span - 1) / s->stride + 1;
    if (t->pass <= LARGE && random_below(2)) {    /* the gradient for an input of H x W */
        s->transposed = true;
        s->C = K, s->K = C;
        s->H = s->P, s->W = s->Q, s->P = H, s->Q = W;
    }
    const double products = (double)t->N * s->C * s->K / (double)s->groups
                            * (double)(s->kernel * s->kernel)
                            * (double)(s->transposed ? s->H * s->W : s->P * s->Q);
    return products < 4e6;
}

static void run_case(const Case *t)
{
    if (t->pass <= LARGE)
        run_forward(t);
    else
        run_weight(t);
}

/* Shapes that take the paths which small random ones do not: chunks of input channels, splits of
 * the output channels, large weights, maps of one pixel. */
static void run_chosen(void)
{
    static const ConvShape shapes[] = {{1024, 3, 3, 80, 3, 3, 3, 1, 1, 1, 1, false, false, WAY_DIRECT},
                                       {2048, 6, 5, 17, 6, 5, 1, 1, 0, 1, 1, false, false, WAY_DIRECT},
                                       {600, 1, 1, 300, 1, 1, 1, 1, 0, 1, 1, false, false, WAY_DIRECT},
                                       {400, 2, 2, 200, 2, 2, 3, 1, 1, 1, 1, true, false, WAY_DIRECT},
                                       {64, 2, 40, 80, 2, 40, 3, 1, 1, 1, 1, false, false, WAY_DIRECT},
                                       {700, 12, 12, 5, 12, 12, 3, 1, 1, 1, 1, false, false, WAY_DIRECT},
                                       {320, 8, 8, 32, 16, 16, 2, 2, 0, 1, 1, true, false, WAY_DIRECT},
                                       {32, 1, 300, 3, 2, 600, 2, 2, 0, 1, 1, true, false, WAY_DIRECT},
                                       {256, 2, 3, 256, 2, 3, 3, 1, 1, 1, 4, false, false, WAY_DIRECT},
                                       {3, 60, 61, 10, 30, 31, 7, 2, 3, 1, 1, false, false, WAY_DIRECT},
                                       {2, 40, 40, 2, 40, 40, 9, 1, 4, 1, 1, false, false, WAY_DIRECT},
                                       {70, 9, 37, 2, 9, 37, 1, 1, 0, 1, 1, false, false, WAY_DIRECT},
                                       {1, 20, 33, 2, 20, 33, 7, 1, 3, 1, 1, true, false, WAY_DIRECT},
                                       {5, 9, 130, 4, 9, 130, 5, 1, 4, 2, 1, false, false, WAY_DIRECT},
                                       {9, 70, 3, 9, 70, 3, 3, 1, 1, 1, 9, false, false, WAY_DIRECT}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int fused = 0; fused < 2; fused++) {
            run_case(&(Case){shapes[i], FORWARD, 2, fused});
            const bool winograd = shapes[i].kernel == 3 && shapes[i].groups == 1;
            if (winograd)
                run_case(&(Case){shapes[i], WINOGRAD, 2, fused});
            if (winograd)
                run_case(&(Case){shapes[i], LARGE, 3, fused});
            if (!shapes[i].transposed)
                run_case(&(Case){shapes[i], WEIGHT, 2, fused});
            if (!shapes[i].transposed && winograd)
                run_case(&(Case){shapes[i], WINOGRAD_WEIGHT, 2, fused});
        }
    }
}

int main(int n_arguments, char **arguments)
{
    build_conv_kernels();
    if (n_arguments > 1 && strcmp(arguments[1], "--bench") == 0) {
        conv_speed(n_arguments > 2 ? atoi(arguments[2]) : 1, n_arguments > 3 ? arguments[3] : NULL);
        return 0;
    }
    run_chosen();
    for (int cases = 0; cases < 500;) {
        Case t;
        if (random_case(&t)) {
            run_case(&t);
            cases++;
        }
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
