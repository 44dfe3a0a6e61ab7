/* The harness of test_templates.c; see templates.h.
 *
 * Every template is compiled by the system's compiler with -Werror between simple row functions
 * (template_rows.h) and loaded; with SAN=1 the kernels have the sanitizers too. Each case runs with
 * one thread and with three, which must give the same bits; results are full of NaN before, scratch
 * memory also, and what lies behind the scratch must stay.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../compiler/lower_small.h"
#include "templates.h"

enum { OWN = 6, SIZES_OF_TENSORS = 32 }; /* as template_rows.h */
static const char folder[] = "compiler/kernels/host";

typedef struct {
    const char *name, *template, *lines;   /* lines before the template */
    KernelFunction *function;
} Kernel;

static Kernel kernels[] = {
    {"pointwise", "pointwise.c", "READ(x, 0)", NULL},
    {"max_pool", "max_pool.c", "READ(x, 0)", NULL},
    {"avg_pool", "avg_pool.c", "READ(x, 0)", NULL},
    {"max_pool_grad", "max_pool_grad.c", "READ(dy, 0) READ(x, 1)", NULL},
    {"avg_pool_grad", "avg_pool_grad.c", "READ(dy, 0)", NULL},
    {"upsample", "upsample.c", "READ(x, 0)", NULL},
    {"upsample_grad", "upsample_grad.c", "READ(dy, 0)", NULL},
    {"pad_crop", "pad_crop.c", "READ(x, 0)", NULL},
    {"sum_pixels", "reduce_pixels.c", "#define REDUCE_SUM\nREAD(x, 0)", NULL},
    {"mean_pixels", "reduce_pixels.c", "#define REDUCE_MEAN\nREAD(x, 0)", NULL},
    {"max_pixels", "reduce_pixels.c", "#define REDUCE_MAX\nREAD(x, 0)", NULL},
    {"sum_channels", "reduce_channels.c", "#define REDUCE_SUM\nREAD(x, 0)", NULL},
    {"mean_channels", "reduce_channels.c", "#define REDUCE_MEAN\nREAD(x, 0)", NULL},
    {"max_channels", "reduce_channels.c", "#define REDUCE_MAX\nREAD(x, 0)", NULL},
    {"softmax", "softmax.c", "READ(x, 0)", NULL},
    {"softmax_grad", "softmax_grad.c", "READ(dy, 0) READ(y, 1)", NULL},
    {"global_max_pool_grad", "global_max_pool_grad.c", "READ(dy, 0) READ(x, 1)", NULL},
    {"channel_max_grad", "channel_max_grad.c", "READ(dy, 0) READ(x, 1)", NULL},
    {"dice_sums", "dice_sums.c", "READ(p, 0) READ(t, 1)", NULL},
    {"linear", "linear.c", "READ(x, 0)", NULL},
    {"linear_grad_input", "linear_grad_input.c", "READ(dy, 0)", NULL},
    {"linear_grad_weight", "linear_grad_weight.c", "READ(x, 0) READ(dy, 1)", NULL},
    {"concat", "concat.c", "#define OPERANDS 3\nREAD(x0, 0) READ(x1, 1) READ(x2, 2)", NULL},
    {"slice", "slice.c", "READ(x, 0)", NULL},
    {"finish_sum", "finish_sum.c", "", NULL},
    {"finish_sums", "finish_sums.c", "", NULL},
    {"finish_moments", "finish_moments.c", "", NULL},
    {"finish_pool", "finish_pool.c", "", NULL},
    {"batch_norm_coefficients", "batch_norm_coefficients.c", "", NULL},
    {"batch_norm_running", "batch_norm_running.c", "", NULL},
    {"batch_norm_slopes", "batch_norm_slopes.c", "", NULL},
    {"batch_norm_grad_weight", "batch_norm_grad_weight.c", "", NULL},
    {"batch_norm_grad_bias", "batch_norm_grad_bias.c", "", NULL},
    {"running_mean", "running_mean.c", "", NULL},
    {"running_var", "running_var.c", "", NULL},
    {"fold_weight", "fold_weight.c", "", NULL},
    {"fold_bias", "fold_bias.c", "#define HAS_BIAS 1", NULL},
    {"fold_no_bias", "fold_bias.c", "#define HAS_BIAS 0", NULL},
    {"update", "update.c", "", NULL},
    {"blend", "blend.c", "", NULL},
    {"gradient_norm", "gradient_norm.c", "", NULL},
    {"functions", "../../../tests/template_functions.h", "", NULL},
};
enum { N_KERNELS = sizeof kernels / sizeof *kernels };

static int passed, failed;
static uint64_t random_state = 1;

int64_t below(int64_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((random_state >> 33) % (uint64_t)limit);
}

void judge(bool good, const char *name, const int64_t *sizes, int64_t n, double worst)
{
    if (good) {
        passed++;
        return;
    }
    failed++;
    printf("FAIL %s N=%d sizes", name, (int)n);
    for (int i = 0; i < 12; i++)
        printf(" %d", (int)sizes[i]);
    printf(": worst difference %g\n", worst);
}

/* ---- compiling ----------------------------------------------------------------------------- */

static void write_source(const char *directory, const Kernel *kernel)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s.c", directory, kernel->name);
    FILE *file = fopen(path, "w");
    char *root = realpath(".", NULL);
    if (!file || !root) {
        perror(path);
        exit(1);
    }
    fprintf(file, "#include \"%s/%s/prelude.h\"\n", root, folder);
    if (strstr(kernel->lines, "READ"))
        fprintf(file, "#include \"%s/tests/template_rows.h\"\n", root);
    fprintf(file, "void %s(const KernelArguments *a);\n#define KERNEL %s\n%s\n", kernel->name,
            kernel->name, kernel->lines);
    fprintf(file, "#include \"%s/%s/%s\"\n", root, folder, kernel->template);
    fclose(file);
    free(root);
}

void compile_templates(void)
{
#if defined(__SANITIZE_ADDRESS__)
    const char *mode = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all";
#else
    const char *mode = "-O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math";
#endif
    char directory[] = "/tmp/test_templates_XXXXXX", command[1024];
    const char *compiler = getenv("SEG_CC") ? getenv("SEG_CC") : "cc";
    if (!mkdtemp(directory)) {
        perror(directory);
        exit(1);
    }
    for (int i = 0; i < N_KERNELS; i++)
        write_source(directory, &kernels[i]);
    snprintf(command, sizeof command,
             "cd %s && F='-std=gnu17 %s -march=native -fopenmp -fPIC -Wall -Wextra -Wshadow "
             "-Werror -Wno-psabi' && ls *.c | xargs -P2 -I@ %s $F -c @ "
             "&& %s $F -shared -o all.so *.o -lm",
             directory, mode, compiler, compiler);
    if (system(command) != 0) {
        printf("the templates do not compile: %s\n0 passed, 1 failed\n", command);
        exit(1);
    }
    snprintf(command, sizeof command, "%s/all.so", directory);
    void *library = dlopen(command, RTLD_NOW);
    for (int i = 0; i < N_KERNELS; i++)
        kernels[i].function = library ? (KernelFunction *)dlsym(library, kernels[i].name) : NULL;
    if (!library || !kernels[N_KERNELS - 1].function) {
        printf("%s\n0 passed, 1 failed\n", dlerror());
        exit(1);
    }
    snprintf(command, sizeof command, "rm -r %s", directory);
    if (system(command) != 0)
        printf("note: %s stays\n", directory);
}

static const Kernel *find_kernel(const char *name)
{
    for (int i = 0; i < N_KERNELS; i++)
        if (strcmp(kernels[i].name, name) == 0)
            return &kernels[i];
    printf("no kernel %s\n", name);
    exit(1);
}

KernelFunction *template_function(const char *name)
{
    return find_kernel(name)->function;
}

/* ---- tensors and calls --------------------------------------------------------------------- */

static void *allocate(int64_t bytes)
{
    void *memory = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
    if (!memory)
        exit(1);
    memset(memory, 0xff, (size_t)(bytes + 63) / 64 * 64);
    return memory;
}

int64_t count_of(Tensor t) { return t.n * t.c * t.h * t.w; }
double *at(Tensor t, int64_t n, int64_t c, int64_t h, int64_t w)
{
    return &t.v[((n * t.c + c) * t.h + h) * t.w + w];
}

Tensor zeros(int64_t n, int64_t c, int64_t h, int64_t w)
{
    Tensor t = {n, c, h, w, NULL};
    t.v = calloc((size_t)count_of(t), sizeof *t.v);
    if (!t.v)
        exit(1);
    return t;
}
Tensor quarters(int64_t n, int64_t c, int64_t h, int64_t w)
{
    Tensor t = zeros(n, c, h, w);
    for (int64_t i = 0; i < count_of(t); i++)
        t.v[i] = 0.25 * (double)(below(25) - 12);
    return t;
}
int64_t padded(int64_t c) { return (c + 15) / 16 * 16; }

/* As kernels have it: blocked or plain. */
static float *pack(Tensor t, bool blocked)
{
    int64_t channels = blocked ? padded(t.c) : t.c;
    float *packed = allocate(t.n * channels * t.h * t.w * 4);
    for (int64_t n = 0; n < t.n; n++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < t.h * t.w; i++) {
                int64_t to = blocked ? ((n * channels / 16 + c / 16) * t.h * t.w + i) * 16 + c % 16
                                     : (n * t.c + c) * t.h * t.w + i;
                packed[to] = c < t.c ? (float)at(t, n, c, 0, 0)[i] : 0.0f;
            }
    return packed;
}

float *fixed(const double *values, int64_t rows, int64_t c)
{
    float *packed = allocate(rows * padded(c) * 4);
    memset(packed, 0, (size_t)(rows * padded(c)) * 4);
    for (int64_t i = 0; i < rows * c; i++)
        packed[i / c * padded(c) + i % c] = (float)values[i];
    return packed;
}

/* The largest difference, in units of 1 + |want|; infinite where NaN. */
double difference(const float *got, const float *want, int64_t count)
{
    double worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)got[i] - (double)want[i]) / (1 + fabs((double)want[i]));
        worst = isnan(d) ? INFINITY : d > worst ? d : worst;
    }
    return worst;
}

/* Calls with scratch of just the size that was asked for; false where more was written. */
static bool call(const Kernel *kernel, void *const *buffers, const int64_t *sizes,
                 const double *scalars, int64_t batch, int threads, int64_t scratch)
{
    enum { GUARD = 64 };
    char *memory = allocate(threads * scratch + GUARD);
    KernelArguments arguments = {buffers, sizes, scalars, batch, threads, memory, scratch};
    kernel->function(&arguments);
    bool good = true;
    for (int i = 0; i < GUARD; i++)
        good = good && (unsigned char)memory[threads * scratch + i] == 0xff;
    free(memory);
    return good;
}

static void describe_tensor(int64_t *sizes, Tensor t, bool blocked)
{
    sizes[0] = blocked;
    sizes[1] = t.c;
    sizes[2] = t.h;
    sizes[3] = t.w;
}

/* The sums over the pixels of each part, as finish_y stores them. */
static double check_partials(Tensor want, const int64_t *sizes, const float *partials)
{
    double worst = 0;
    int64_t channels = padded(want.c), parts = sizes[6];
    for (int64_t n = 0; n < want.n; n++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t part = 0; part < parts; part++) {
                double sum = 0;
                for (int64_t h = part * sizes[7]; h < (part + 1) * sizes[7] && h < want.h; h++)
                    for (int64_t w = 0; c < want.c && w < want.w; w++)
                        sum += *at(want, n, c, h, w);
                double got = partials[(n * parts + part) * channels + c];
                double d = fabs(got - sum) / (1 + fabs(sum));
                worst = isnan(d) ? INFINITY : d > worst ? d : worst;
            }
    return worst;
}

/* The buffers of two runs: results and partial sums apart, all else shared. */
typedef struct {
    void *buffers[2][12];
    int64_t sizes[64];
    int64_t result_bytes, partial_bytes;
    bool blocked;               /* the result */
    int result;                 /* its index */
} Calls;

static void prepare(const Case *test, const Kernel *kernel, Calls *calls)
{
    Tensor x = test->operands[0], want = test->want;
    bool own_result = strcmp(test->name, "linear_grad_weight") == 0;
    int64_t first[8] = {x.c, x.h, x.w, want.c, want.h, want.w};
    if (own_result)
        memcpy(first + 3, (int64_t[]){count_of(want), 1, 1}, 3 * sizeof *first);
    template_parts(kernel->template, first, &first[6], &first[7]);
    memcpy(calls->sizes, first, sizeof first);
    memcpy(calls->sizes + 8, test->attributes, sizeof test->attributes);
    calls->blocked = !own_result && (want.c >= 8 || below(4) == 0);
    calls->result = own_result ? 0 : OWN + MAX_OPERANDS;
    calls->result_bytes = own_result ? 4 * padded(count_of(want))
        : want.n * (calls->blocked ? padded(want.c) : want.c) * want.h * want.w * 4;
    calls->partial_bytes = own_result ? 0 : want.n * first[6] * padded(want.c) * 4;
    for (int i = 0; i < test->n_operands; i++) {
        bool blocked = test->operands[i].c >= 8 || below(4) == 0;
        void *packed = pack(test->operands[i], blocked);
        calls->buffers[0][OWN + i] = calls->buffers[1][OWN + i] = packed;
        describe_tensor(calls->sizes + SIZES_OF_TENSORS + 4 * i, test->operands[i], blocked);
    }
    describe_tensor(calls->sizes + SIZES_OF_TENSORS + 4 * MAX_OPERANDS, want, calls->blocked);
    for (int i = 0; i < 2; i++) {
        calls->buffers[i][0] = test->own;
        calls->buffers[i][calls->result] = allocate(calls->result_bytes);
        calls->buffers[i][OWN + MAX_OPERANDS + 1] = allocate(calls->partial_bytes);
    }
}

void run_case(Case *test)
{
    const Kernel *kernel = find_kernel(test->name);
    Calls calls = {0};
    prepare(test, kernel, &calls);
    int64_t scratch = template_scratch(kernel->template, calls.sizes);
    bool good = true;
    for (int i = 0; i < 2; i++)
        good &= call(kernel, calls.buffers[i], calls.sizes, &test->scalar, test->operands[0].n,
                     i == 0 ? 1 : 3, scratch);
    const float *result = calls.buffers[0][calls.result];
    const float *partials = calls.buffers[0][OWN + MAX_OPERANDS + 1];
    float *wanted = calls.result == 0 ? fixed(test->want.v, 1, count_of(test->want))
                                      : pack(test->want, calls.blocked);
    double worst = difference(result, wanted, calls.result_bytes / 4);
    if (calls.partial_bytes)
        worst = fmax(worst, check_partials(test->want, calls.sizes, partials));
    good &= memcmp(result, calls.buffers[1][calls.result], (size_t)calls.result_bytes) == 0;
    good &= memcmp(partials, calls.buffers[1][OWN + MAX_OPERANDS + 1],
                   (size_t)calls.partial_bytes) == 0;
    judge(good && worst < 2e-5, test->name, calls.sizes, test->operands[0].n, worst);
    for (int i = 0; i < 2; i++) {
        free(calls.buffers[i][calls.result]);
        free(calls.buffers[i][OWN + MAX_OPERANDS + 1]);
    }
    for (int i = 0; i < test->n_operands; i++) {
        free(calls.buffers[0][OWN + i]);
        free(test->operands[i].v);
    }
    free(wanted);
    free(test->want.v);
    free(test->own);
}

void run_small(Small *test)
{
    const Kernel *kernel = find_kernel(test->name);
    double worst = 0;
    float *first = NULL;
    bool good = true;
    for (int i = 0; i < 2; i++) {
        void *buffers[MAX_SMALL] = {0};
        memcpy(buffers, test->buffers, sizeof buffers);
        float *result = allocate(test->count * 4);
        if (test->same)
            buffers[0] = memcpy(result, test->buffers[0], (size_t)test->count * 4);
        buffers[test->n_buffers - 1] = result;
        good &= call(kernel, buffers, test->sizes, &test->scalar, test->batch, i == 0 ? 1 : 3, 0);
        worst = fmax(worst, difference(result, test->want, test->count));
        good &= !first || memcmp(first, result, (size_t)test->count * 4) == 0;
        free(first);
        first = result;
    }
    free(first);
    int64_t sizes[12] = {0};
    memcpy(sizes, test->sizes, sizeof test->sizes);
    judge(good && worst < 1e-6, test->name, sizes, test->batch, worst);
    for (int i = 0; i < test->n_buffers - 1; i++)
        free(test->buffers[i]);
    free(test->want);
}

int report(void)
{
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
