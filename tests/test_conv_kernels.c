/* The host's convolution kernels by themselves: templates with small hand-written row functions in
 * place of generated ones, built at run time with the system's compiler, against a naive reference
 * in double over random shapes; and the same bits for 1, 2 and 3 threads.
 *
 *   test_conv_kernels                 the tests
 *   test_conv_kernels --bench [T [LAYER]]  GFLOP/s with T threads beside a probe of the machine's
 *                                     peak; LAYER is a part of 64-64@256:2 (C-K@H:N), or all of it
 *
 * Runs in the repository's root. SEG_CC is the compiler; SEG_TEST_CFLAGS are added to its flags
 * (for sanitizers, the test itself must be built with them too).
 */
#define _GNU_SOURCE
#include "../compiler/lower_conv.h"
#include "../runtime/plan.h"

#include <dlfcn.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- building kernels ----------------------------------------------------------------------- */

#define KERNELS "compiler/kernels/host/"
#define FLAGS "-std=gnu17 -O3 -march=native -mprefer-vector-width=512 -ffp-contract=fast " \
              "-fno-math-errno -fno-trapping-math -fopenmp -fPIC -Wall -Wextra -Werror"

/* x and dy: blocked tensors. The fused variants have a prologue that is not zero at zero, a bias
 * and relu behind the result, and the sums of what is stored. */
static const char *const READ =
    "static void read_%s(const KernelArguments *a, int64_t n, int64_t cb, int64_t h, int64_t w,\n"
    "                    int64_t count, float *restrict out)\n"
    "{\n"
    "    const int64_t C = a->sizes[%d], H = a->sizes[%d], W = a->sizes[%d];\n"
    "    const float *in = (const float *)a->buffers[%d]\n"
    "                      + (((n * ((C + 15) / 16) + cb) * H + h) * W + w) * 16;\n"
    "    if (!%d) {\n"
    "        memcpy(out, in, (size_t)count * 64);\n"
    "        return;\n"
    "    }\n"
    "    for (int64_t i = 0; i < count * 16; i++) {\n"
    "        const float value = 0.5f * in[i] + 0.25f;\n"
    "        out[i] = cb * 16 + i %% 16 >= C ? 0 : value > 0 ? value : 0;\n"
    "    }\n"
    "}\n";
static const char *const WRITE =
    "enum { ACCUMULATORS = %d };\n"
    "static void write_y(const KernelArguments *a, int64_t n, int64_t cb, int64_t h, int64_t w,\n"
    "                    int64_t count, const float *restrict in, v16 *sums)\n"
    "{\n"
    "    const int64_t K = a->sizes[3], P = a->sizes[4], Q = a->sizes[5];\n"
    "    float *out = (float *)a->buffers[2] + (((n * ((K + 15) / 16) + cb) * P + h) * Q + w) * "
    "16;\n"
    "    if (!ACCUMULATORS) {\n"
    "        memcpy(out, in, (size_t)count * 64);\n"
    "        return;\n"
    "    }\n"
    "    const float *bias = (const float *)a->buffers[3] + cb * 16;\n"
    "    for (int64_t i = 0; i < count * 16; i++) {\n"
    "        const float value = in[i] + bias[i %% 16];\n"
    "        out[i] = cb * 16 + i %% 16 >= K ? 0 : value > 0 ? value : 0;\n"
    "        ((float *)sums)[i %% 16] += out[i];\n"
    "    }\n"
    "}\n"
    "static void finish_y(const KernelArguments *a, int64_t n, int64_t part, int64_t cb, v16 "
    "*sums)\n"
    "{\n"
    "    const int64_t blocks = (a->sizes[3] + 15) / 16, parts = a->sizes[6];\n"
    "    if (ACCUMULATORS)\n"
    "        ((v16 *)a->buffers[4])[(n * parts + part) * blocks + cb] += *sums;\n"
    "}\n";
static const char *const PEAK =
    "#define EACH(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)\n"
    "#define DECLARE(i) v16 x##i = {i};\n"
    "#define STEP(i) x##i = x##i * m + b;\n"
    "#define ADD(i) + x##i\n"
    "void KERNEL(const KernelArguments *a)\n"
    "{\n"
    "    #pragma omp parallel num_threads(a->threads)\n"
    "    {\n"
    "        const v16 m = {0.5f}, b = {1.0f};\n"
    "        EACH(DECLARE)\n"
    "        for (int64_t i = 0; i < a->batch; i++) {\n"
    "            EACH(STEP)\n"
    "            __asm__ volatile(\"\" ::: \"memory\");\n"
    "        }\n"
    "        ((v16 *)a->buffers[0])[omp_get_thread_num()] = (v16){0} EACH(ADD);\n"
    "    }\n"
    "}\n";

static char folder[] = "/tmp/test_conv_XXXXXX";

static void stop(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(3);
}

static void append_file(FILE *out, const char *path)
{
    FILE *in = fopen(path, "r");
    if (!in)
        stop("cannot open %s (run in the repository's root)", path);
    char buffer[4096];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        fwrite(buffer, 1, n, out);
    fclose(in);
}

static FILE *open_source(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s.c", folder, name);
    FILE *out = fopen(path, "w");
    if (!out)
        stop("cannot write %s", path);
    append_file(out, KERNELS "prelude.h");
    append_file(out, KERNELS "conv_tiles.h");
    return out;
}

static void build(const char *name, const char *options)
{
    const char *cc = getenv("SEG_CC"), *more = getenv("SEG_TEST_CFLAGS");
    char command[1024];
    snprintf(command, sizeof command, "cd %s && %s %s %s %s.c -o %s.o -c %s", folder,
             cc ? cc : "cc", FLAGS, more ? more : "", name, name, options);
    if (system(command) != 0)
        stop("failed: %s", command);
}

/* One of `conv conv_pack ...`, plain or fused. */
static void build_kernel(const char *template, bool fused)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%s", template, fused ? "fused" : "plain");
    const bool gradient = strstr(template, "_grad_") != NULL;
    const bool rows = strstr(template, "pack") == NULL;
    FILE *out = open_source(name);
    if (rows)
        fprintf(out, READ, "x", 0, 1, 2, gradient ? 2 : 1, fused);
    if (rows && gradient)
        fprintf(out, READ, "dy", 3, 4, 5, 3, fused);
    if (rows && !gradient)
        fprintf(out, WRITE, fused);
    fprintf(out, "#define KERNEL %s\n", name);
    char path[256];
    snprintf(path, sizeof path, KERNELS "%s.c", template);
    append_file(out, path);
    fclose(out);
    build(name, "");
}

static void *library;

static void build_all(void)
{
    if (!mkdtemp(folder))
        stop("cannot make %s", folder);
    FILE *out = open_source("tiles");
    append_file(out, KERNELS "conv_tiles.c");
    fclose(out);
    build("tiles", "");
    out = open_source("peak");
    fprintf(out, "#define KERNEL peak\n%s", PEAK);
    fclose(out);
    build("peak", "");
    static const char *const templates[] = {"conv", "conv_depthwise", "conv_grad_weight",
                                            "conv_depthwise_grad_weight", "conv_winograd"};
    for (int i = 0; i < 5; i++) {
        build_kernel(templates[i], false);
        build_kernel(templates[i], true);
    }
    build_kernel("conv_pack", false);
    build_kernel("conv_winograd_pack", false);
    build_kernel("conv_depthwise_pack", false);
    char command[1024];
    const char *cc = getenv("SEG_CC"), *more = getenv("SEG_TEST_CFLAGS");
    snprintf(command, sizeof command, "cd %s && %s %s %s -shared *.o -o all.so -lm", folder,
             cc ? cc : "cc", FLAGS, more ? more : "");
    if (system(command) != 0)
        stop("failed: %s", command);
    snprintf(command, sizeof command, "%s/all.so", folder);
    library = dlopen(command, RTLD_NOW);
    if (!library)
        stop("%s", dlerror());
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (!getenv("SEG_TEST_KEEP") && system(command) != 0)
        stop("failed: %s", command);
}

static KernelFunction *kernel(const char *template, bool fused)
{
    char name[80];
    snprintf(name, sizeof name, "%.*s%s", (int)(strlen(template) - 2), template,
             fused ? "_fused" : "_plain");
    KernelFunction *function = (KernelFunction *)dlsym(library, name);
    if (!function)
        stop("%s", dlerror());
    return function;
}

/* ---- shapes and tensors ---------------------------------------------------------------- */

typedef enum { FORWARD, WINOGRAD, WEIGHT } Pass;
static const char *const pass_names[] = {"forward", "winograd", "weight"};

typedef struct {
    ConvShape shape;
    Pass pass;
    int64_t N;
    bool fused;
} Case;

static uint64_t state = 1;

static int64_t random_below(int64_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((state >> 33) % (uint64_t)n);
}

static float random_value(void)
{
    return (float)random_below(2001) * 1e-3f - 1;
}

/* On huge pages where it is much, as the executor's memory is. */
static float *allocate(int64_t floats)
{
    const int64_t huge = 2 << 20, unit = floats * 4 >= huge ? huge : 64;
    const int64_t bytes = (floats * 4 + unit - 1) / unit * unit + (floats == 0) * unit;
    float *memory = aligned_alloc((size_t)unit, (size_t)bytes);
    if (!memory)
        stop("no memory for %lld floats", (long long)floats);
    if (unit == huge)
        madvise(memory, (size_t)bytes, MADV_HUGEPAGE);
    return memory;
}

static int64_t padded(int64_t channels)
{
    return (channels + 15) / 16 * 16;
}

/* A blocked tensor, zeros behind C. */
static float *random_tensor(int64_t N, int64_t C, int64_t pixels)
{
    float *out = allocate(N * padded(C) * pixels);
    for (int64_t i = 0; i < N * padded(C) * pixels; i++)
        out[i] = i / 16 / pixels % (padded(C) / 16) * 16 + i % 16 < C ? random_value() : 0;
    return out;
}

static double at(const float *tensor, int64_t n, int64_t C, int64_t c, int64_t pixels,
                 int64_t pixel)
{
    return tensor[((n * (padded(C) / 16) + c / 16) * pixels + pixel) * 16 + c % 16];
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

static void call(KernelFunction *function, const ConvLowering *l, bool pack, void **buffers,
                 int64_t N, int threads)
{
    KernelArguments a = {.buffers = buffers, .sizes = pack ? l->pack_sizes : l->sizes, .batch = N,
                         .threads = threads, .scratch_bytes = l->scratch_bytes};
    a.scratch = (char *)allocate(l->scratch_bytes / 4 * threads);
    memset(a.scratch, 0xff, (size_t)(l->scratch_bytes * threads)); /* NaN */
    function(&a);
    free(a.scratch);
}

static int64_t weight_count(const ConvShape *s)
{
    return s->K * s->C / s->groups * s->kernel * s->kernel;
}

static void check_sums(const Case *t, const ConvLowering *l, const float *y, const float *partials)
{
    const ConvShape *s = &t->shape;
    const int64_t pixels = s->P * s->Q, blocks = padded(s->K) / 16;
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
                  stored = t->N * padded(s->K) * pixels;
    ConvLowering l;
    (t->pass == WINOGRAD ? lower_conv_winograd : lower_conv)(s, &l);
    float *x = random_tensor(t->N, s->C, s->H * s->W), *weights = allocate(weight_count(s));
    float *packed = allocate(l.packed_bytes / 4), *y = allocate(stored), *again = allocate(stored);
    float *bias = random_tensor(1, s->K, 1);
    const int64_t sums = t->N * l.parts * padded(s->K);
    float *partials = allocate(sums);
    for (int64_t i = 0; i < weight_count(s); i++)
        weights[i] = random_value();
    memset(packed, 0xff, (size_t)l.packed_bytes);
    call(kernel(l.pack_template, false), &l, true, (void *[]){weights, packed}, 1, 2);
    Reference r = {t, x, NULL, weights, calloc((size_t)count, 8), calloc((size_t)count, 8)};
    each_product(t, visit_forward, &r);
    for (int threads = 1; threads <= 3; threads++) {
        float *to = threads == 1 ? y : again;
        memset(to, 0xff, (size_t)stored * 4);
        memset(partials, 0, (size_t)sums * 4);
        call(kernel(l.template, t->fused), &l, false, (void *[]){packed, x, to, bias, partials},
             t->N, threads);
        if (threads > 1)
            report(t, memcmp(y, again, (size_t)stored * 4) == 0, "%d threads differ", threads);
    }
    double worst = 0, largest = 1;
    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(r.result[i]));
    for (int64_t i = 0; i < t->N * padded(s->K) * pixels; i++) {
        const int64_t n = i / (padded(s->K) * pixels), pixel = i % pixels,
                      k = i / pixels % padded(s->K);
        const int64_t place = k < s->K ? (n * s->K + k) * pixels + pixel : 0;
        double want = k < s->K ? r.result[place] : 0;
        if (t->fused && k < s->K)
            want = fmax(0, want + bias[k]);
        const double size = t->pass == WINOGRAD ? largest : k < s->K ? r.size[place] + 1 : 1;
        const double error = fabs(at(y, n, padded(s->K), k, pixels, pixel) - want) / size;
        worst = error <= worst ? worst : error;
    }
    report(t, worst < (t->pass == WINOGRAD ? 1e-5 : 2e-6), "error %g", worst);
    if (t->fused)
        check_sums(t, &l, y, partials);
    free(x), free(weights), free(packed), free(y), free(again), free(bias), free(partials);
    free(r.result), free(r.size);
}

static void run_weight(const Case *t)
{
    const ConvShape *s = &t->shape;
    const int64_t count = weight_count(s);
    ConvLowering l;
    lower_conv_grad_weight(s, &l);
    float *x = random_tensor(t->N, s->C, s->H * s->W), *dy = random_tensor(t->N, s->K, s->P * s->Q);
    float *dw = allocate(count), *again = allocate(count);
    Reference r = {t, x, dy, NULL, calloc((size_t)count, 8), calloc((size_t)count, 8)};
    each_product(t, visit_weight, &r);
    for (int threads = 1; threads <= 3; threads++) {
        float *to = threads == 1 ? dw : again;
        float *workspace = allocate((l.workspace_bytes + t->N * l.workspace_sample_bytes) / 4);
        memset(to, 0xff, (size_t)count * 4);
        memset(workspace, 0xff, (size_t)(l.workspace_bytes + t->N * l.workspace_sample_bytes));
        call(kernel(l.template, t->fused), &l, false, (void *[]){to, workspace, x, dy}, t->N,
             threads);
        if (threads > 1)
            report(t, memcmp(dw, again, (size_t)count * 4) == 0, "%d threads differ", threads);
        free(workspace);
    }
    double worst = 0;
    for (int64_t i = 0; i < count; i++) {
        const double error = fabs(dw[i] - r.result[i]) / (r.size[i] + 1);
        worst = error <= worst ? worst : error;
    }
    report(t, worst < 2e-6, "error %g", worst);
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
    t->N = sooner(2, 3);
    t->fused = random_below(2);
    static const Pass passes[] = {FORWARD, FORWARD, WINOGRAD, WEIGHT};
    t->pass = passes[random_below(4)];
    s->direct_only = t->pass == FORWARD;
    if (t->pass == WINOGRAD)
        s->kernel = 3, s->stride = s->dilation = 1;
    const int64_t span = (s->kernel - 1) * s->dilation;
    int64_t H = sooner(20, 40), W = sooner(20, 40), C = sooner(40, 70), K = sooner(40, 70);
    const int64_t kind = t->pass == WINOGRAD ? 2 : random_below(6);
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
    if (t->pass != WEIGHT && random_below(2)) {     /* the gradient for an input of H x W */
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
    if (t->pass == WEIGHT)
        run_weight(t);
    else
        run_forward(t);
}

/* Shapes that take the paths which small random ones do not: chunks of input channels, splits of
 * the output channels, large weights, maps of one pixel. */
static void run_chosen(void)
{
    static const ConvShape shapes[] = {{1024, 3, 3, 80, 3, 3, 3, 1, 1, 1, 1, false, true},
                                       {2048, 6, 5, 17, 6, 5, 1, 1, 0, 1, 1, false, true},
                                       {600, 1, 1, 300, 1, 1, 1, 1, 0, 1, 1, false, true},
                                       {400, 2, 2, 200, 2, 2, 3, 1, 1, 1, 1, true, true},
                                       {64, 2, 40, 80, 2, 40, 3, 1, 1, 1, 1, false, true},
                                       {700, 12, 12, 5, 12, 12, 3, 1, 1, 1, 1, false, true},
                                       {320, 8, 8, 32, 16, 16, 2, 2, 0, 1, 1, true, true},
                                       {32, 1, 300, 3, 2, 600, 2, 2, 0, 1, 1, true, true},
                                       {256, 2, 3, 256, 2, 3, 3, 1, 1, 1, 4, false, true},
                                       {3, 60, 61, 10, 30, 31, 7, 2, 3, 1, 1, false, true},
                                       {2, 40, 40, 2, 40, 40, 9, 1, 4, 1, 1, false, true},
                                       {9, 70, 3, 9, 70, 3, 3, 1, 1, 1, 9, false, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int fused = 0; fused < 2; fused++) {
            run_case(&(Case){shapes[i], FORWARD, 2, fused});
            if (shapes[i].kernel == 3 && shapes[i].groups == 1)
                run_case(&(Case){shapes[i], WINOGRAD, 2, fused});
            if (!shapes[i].transposed)
                run_case(&(Case){shapes[i], WEIGHT, 2, fused});
        }
    }
}

/* ---- speed ------------------------------------------------------------------------------ */

/* One thread: its own processor time, so that other programs disturb less; else wall-clock time. */
static double seconds(int threads)
{
    struct timespec now;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double peak_gflops(int threads)
{
    KernelFunction *function = (KernelFunction *)dlsym(library, "peak");
    float *out = allocate(16 * threads);
    double best = 0;
    for (int i = 0; i < 5; i++) {
        KernelArguments a = {.buffers = (void *[]){out}, .batch = 300000, .threads = threads};
        const double start = seconds(threads);
        function(&a);
        best = fmax(best, 300000e-9 * 12 * 32 * threads / (seconds(threads) - start));
    }
    free(out);
    return best;
}

typedef struct {
    KernelFunction *pack, *run;
    KernelArguments pack_arguments, arguments;
} Job;

/* Best of several runs, in GFLOP/s, and that as a part of the peak measured before and after. */
static void time_job(const char *name, const ConvShape *s, int64_t N, const Job *job)
{
    const double flops = 2.0 * (double)N * (double)(s->transposed ? s->H * s->W : s->P * s->Q)
                         * (double)weight_count(s);
    const int threads = job->arguments.threads;
    const double before = peak_gflops(threads), begin = seconds(threads);
    double best = 1e9, best_pack = 1e9;
    for (int i = 0; i < 30 && (i < 3 || seconds(threads) - begin < 0.3); i++) {
        const double start = seconds(threads);
        if (job->pack)
            job->pack(&job->pack_arguments);
        const double packed = seconds(threads);
        job->run(&job->arguments);
        best = fmin(best, seconds(threads) - start);
        best_pack = fmin(best_pack, packed - start);
    }
    const double peak = fmax(before, peak_gflops(threads));
    printf("%4lld ->%4lld @%3lld N=%lld %-9s %8.3f ms %7.1f GFLOP/s %5.1f %% of peak %5.0f",
           (long long)s->C, (long long)s->K, (long long)s->P, (long long)N, name, best * 1e3,
           flops / best * 1e-9, 100 * flops / best * 1e-9 / peak, peak);
    if (job->pack)
        printf("   weights packed in %.3f ms", best_pack * 1e3);
    putchar('\n');
    fflush(stdout);
}

static void bench_pass(const char *name, const ConvShape *s, int64_t N, Pass pass, int threads)
{
    ConvLowering l;
    (pass == WEIGHT ? lower_conv_grad_weight : pass == WINOGRAD ? lower_conv_winograd : lower_conv)(
        s, &l);
    float *x = random_tensor(N, s->C, s->H * s->W), *y = random_tensor(N, s->K, s->P * s->Q);
    float *weights = allocate(weight_count(s)), *packed = allocate(l.packed_bytes / 4);
    float *workspace = allocate((l.workspace_bytes + N * l.workspace_sample_bytes) / 4);
    char *scratch = (char *)allocate(l.scratch_bytes / 4 * threads);
    for (int64_t i = 0; i < weight_count(s); i++)
        weights[i] = random_value();
    KernelArguments a = {.sizes = l.sizes, .batch = N, .threads = threads, .scratch = scratch,
                         .scratch_bytes = l.scratch_bytes};
    a.buffers = pass == WEIGHT ? (void *[]){weights, workspace, x, y} : (void *[]){packed, x, y};
    KernelArguments pack = {
        .buffers = (void *[]){weights, packed}, .sizes = l.pack_sizes, .threads = threads};
    Job job = {l.pack_template ? kernel(l.pack_template, false) : NULL, kernel(l.template, false),
               pack, a};
    time_job(name, s, N, &job);
    free(x), free(y), free(weights), free(packed), free(workspace), free(scratch);
}

static void bench_layer(int threads, int64_t C, int64_t K, int64_t H, int64_t k, int64_t N)
{
    const ConvShape forward = {C, H, H, K, H, H, k, 1, k / 2, 1, 1, false, true};
    const ConvShape gradient = {K, H, H, C, H, H, k, 1, k / 2, 1, 1, true, true};
    bench_pass("forward", &forward, N, FORWARD, threads);
    if (k == 3)
        bench_pass("winograd", &forward, N, WINOGRAD, threads);
    bench_pass("input", &gradient, N, FORWARD, threads);
    if (k == 3)
        bench_pass("winograd", &gradient, N, WINOGRAD, threads);
    bench_pass("weight", &forward, N, WEIGHT, threads);
}

/* Some layers of U-Nets, those whose names contain `only`; or one of kernel 3, C-K@H:N. */
static void bench(int threads, const char *only)
{
    static const int64_t layers[][4] = {{64, 64, 256, 3}, {128, 128, 128, 3}, {256, 256, 64, 3},
                                        {512, 512, 32, 3}, {1024, 1024, 16, 3}, {16, 16, 128, 3},
                                        {3, 16, 128, 3}, {32, 16, 128, 3}, {64, 1, 256, 1}};
    long long one_C, one_K, one_H, one_N;
    if (only && sscanf(only, "%lld-%lld@%lld:%lld", &one_C, &one_K, &one_H, &one_N) == 4) {
        bench_layer(threads, one_C, one_K, one_H, 3, one_N);
        return;
    }
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        for (int64_t N = 2; N <= 8; N += 6) {
            const int64_t C = layers[i][0], K = layers[i][1], H = layers[i][2], k = layers[i][3];
            char name[64];
            snprintf(name, sizeof name, "%lld-%lld@%lld:%lld", (long long)C, (long long)K,
                     (long long)H, (long long)N);
            if (!only || strstr(name, only))
                bench_layer(threads, C, K, H, k, N);
        }
    }
}

int main(int n_arguments, char **arguments)
{
    build_all();
    if (n_arguments > 1 && strcmp(arguments[1], "--bench") == 0) {
        bench(n_arguments > 2 ? atoi(arguments[2]) : 1, n_arguments > 3 ? arguments[3] : NULL);
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
