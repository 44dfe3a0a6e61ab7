/* See conv_kernels.h. */
#define _GNU_SOURCE
#include "conv_kernels.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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
    "    float *out = (float *)a->buffers[%d] + (((n * ((K + 15) / 16) + cb) * P + h) * Q + w) * "
    "16;\n"
    "    if (!ACCUMULATORS) {\n"
    "        memcpy(out, in, (size_t)count * 64);\n"
    "        return;\n"
    "    }\n"
    "    const float *bias = (const float *)a->buffers[%d] + cb * 16;\n"
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
    "        ((v16 *)a->buffers[%d])[(n * parts + part) * blocks + cb] += *sums;\n"
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
    const int own = gradient || strstr(template, "_large") ? 2 : 1; /* buffers before x */
    const bool rows = strstr(template, "pack") == NULL;
    FILE *out = open_source(name);
    if (rows)
        fprintf(out, READ, "x", 0, 1, 2, own, fused);
    if (rows && gradient)
        fprintf(out, READ, "dy", 3, 4, 5, 3, fused);
    if (rows && !gradient)
        fprintf(out, WRITE, fused, own + 1, own + 2, own + 3);
    fprintf(out, "enum { DENSE_X = 0, DENSE_Y = 0 };\n#define KERNEL %s\n", name);
    char path[256];
    snprintf(path, sizeof path, KERNELS "%s.c", template);
    append_file(out, path);
    fclose(out);
    build(name, "");
}

static void *library;

void build_conv_kernels(void)
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
                                            "conv_depthwise_grad_weight", "conv_winograd",
                                            "conv_winograd_large", "conv_winograd_grad_weight",
                                            "conv_narrow", "conv_dot"};
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
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

KernelFunction *conv_kernel(const char *template, bool fused)
{
    char name[80];
    snprintf(name, sizeof name, "%.*s%s", (int)(strlen(template) - 2), template,
             fused ? "_fused" : "_plain");
    KernelFunction *function = (KernelFunction *)dlsym(library, name);
    if (!function)
        stop("%s", dlerror());
    return function;
}

KernelFunction *peak_kernel(void)
{
    return (KernelFunction *)dlsym(library, "peak");
}

/* ---- shapes and tensors ---------------------------------------------------------------------- */

const char *const pass_names[] = {"forward", "winograd", "winograd large", "weight",
                                  "winograd weight"};

void lower_pass(Pass pass, const ConvShape *shape, ConvLowering *out)
{
    typedef void Lower(const ConvShape *, ConvLowering *);
    static Lower *const lower[] = {lower_conv, lower_conv_winograd,
                                   lower_conv_winograd_large, lower_conv_grad_weight,
                                   lower_conv_winograd_grad_weight};
    lower[pass](shape, out);
}

int64_t weight_count(const ConvShape *s)
{
    return s->K * s->C / s->groups * s->kernel * s->kernel;
}

static uint64_t state = 1;

int64_t random_below(int64_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((state >> 33) % (uint64_t)n);
}

float random_value(void)
{
    return (float)random_below(2001) * 1e-3f - 1;
}

float *allocate_floats(int64_t count)
{
    const int64_t huge = 2 << 20, unit = count * 4 >= huge ? huge : 64;
    const int64_t bytes = (count * 4 + unit - 1) / unit * unit + (count == 0) * unit;
    float *memory = aligned_alloc((size_t)unit, (size_t)bytes);
    if (!memory)
        stop("no memory for %lld floats", (long long)count);
    if (unit == huge)
        madvise(memory, (size_t)bytes, MADV_HUGEPAGE);
    return memory;
}

int64_t padded_channels(int64_t channels)
{
    return (channels + 15) / 16 * 16;
}

float *random_blocked(int64_t N, int64_t C, int64_t pixels)
{
    float *out = allocate_floats(N * padded_channels(C) * pixels);
    for (int64_t i = 0; i < N * padded_channels(C) * pixels; i++)
        out[i] = i / 16 / pixels % (padded_channels(C) / 16) * 16 + i % 16 < C ? random_value() : 0;
    return out;
}
