/* The speed of convolution kernels: see test_conv_kernels.c. The ways to compute a layer take turns,
 * so that they meet the same moments of the machine; Winograd's is set in relation to the direct way
 * run by run.
 */
#define _GNU_SOURCE
#include "conv_kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { JOBS = 8, RUNS = 40, LEAST_RUNS = 3 };
static const double SECONDS = 1.5;        /* of a layer */

/* One thread: its own processor time, so that other programs disturb less; else wall-clock time. */
static double seconds(int threads)
{
    struct timespec now;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double peak_gflops(int threads)
{
    float *out = allocate_floats(16 * threads);
    KernelArguments a = {.buffers = (void *[]){out}, .batch = 200000, .threads = threads};
    const double start = seconds(threads);
    peak_kernel()(&a);
    free(out);
    return 200000e-9 * 12 * 32 * threads / (seconds(threads) - start);
}

/* One way to compute a pass of a layer. */
typedef struct {
    const char *name;
    ConvShape shape;
    ConvLowering lowering;
    float *x, *y, *weights, *packed, *workspace;
    char *scratch;
    int64_t N;
    int threads;
    double times[RUNS], pack_times[RUNS];
} Job;

typedef struct {
    const char *name;
    Pass pass;
    bool gradient;                        /* for the input */
} Way;
static const Way ways_of_3x3[JOBS + 1] = {
    {"forward", FORWARD, false}, {"forward winograd", WINOGRAD, false},
    {"forward large", LARGE, false},
    {"input", FORWARD, true}, {"input winograd", WINOGRAD, true}, {"input large", LARGE, true},
    {"weight", WEIGHT, false}, {"weight winograd", WINOGRAD_WEIGHT, false}};
static const Way ways_of_others[JOBS + 1] = {
    {"forward", FORWARD, false}, {"input", FORWARD, true}, {"weight", WEIGHT, false}};

static void prepare(Job *job, const Way *way, const ConvShape *s, int64_t N, int threads)
{
    ConvLowering *l = &job->lowering;
    *job = (Job){.name = way->name, .shape = *s, .N = N, .threads = threads};
    lower_pass(way->pass, s, l);
    job->x = random_blocked(N, s->C, s->H * s->W);
    job->y = random_blocked(N, s->K, s->P * s->Q);
    job->weights = allocate_floats(weight_count(s));
    job->packed = allocate_floats(l->packed_bytes / 4);
    job->workspace = allocate_floats((l->workspace_bytes + N * l->workspace_sample_bytes) / 4);
    job->scratch = (char *)allocate_floats(l->scratch_bytes / 4 * threads);
    for (int64_t i = 0; i < weight_count(s); i++)
        job->weights[i] = random_value();
}

static void release(Job *job)
{
    free(job->x), free(job->y), free(job->weights);
    free(job->packed), free(job->workspace), free(job->scratch);
}

static void run_job(Job *job, int run)
{
    const ConvLowering *l = &job->lowering;
    KernelArguments pack = {.buffers = (void *[]){job->weights, job->packed},
                            .sizes = l->pack_sizes, .threads = job->threads};
    KernelArguments a = {.sizes = l->sizes, .batch = job->N, .threads = job->threads,
                         .scratch = job->scratch, .scratch_bytes = l->scratch_bytes};
    void *const with_workspace[] = {job->weights, job->workspace, job->x, job->y};
    void *const without[] = {l->packed_bytes ? job->packed : job->weights, job->x, job->y};
    a.buffers = l->workspace_bytes || l->workspace_sample_bytes ? with_workspace : without;
    const double start = seconds(job->threads);
    if (l->pack_template)
        conv_kernel(l->pack_template, false)(&pack);
    job->pack_times[run] = seconds(job->threads) - start;
    conv_kernel(l->template, false)(&a);
    job->times[run] = seconds(job->threads) - start;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n)
{
    double sorted[RUNS];
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    return sorted[n / 2];
}

static double smallest(const double *values, int n)
{
    double least = INFINITY;
    for (int i = 0; i < n; i++)
        least = fmin(least, values[i]);
    return least;
}

/* The best run; `direct` is the direct way to compute the same. */
static void print_job(const Job *job, const Job *direct, int runs, double peak)
{
    const ConvShape *s = &job->shape;
    const double flops = 2 * (double)job->N * (double)weight_count(s)
                         * (double)(s->transposed ? s->H * s->W : s->P * s->Q);
    const double best = smallest(job->times, runs), rate = flops / best * 1e-9;
    printf("%4lld ->%4lld @%3lld N=%lld %-16s %8.3f ms %7.1f GFLOP/s %5.1f %% of peak %5.0f",
           (long long)s->C, (long long)s->K, (long long)s->P, (long long)job->N, job->name,
           best * 1e3, rate, 100 * rate / peak, peak);
    if (direct != job) {
        double ratios[RUNS];
        for (int i = 0; i < runs; i++)
            ratios[i] = direct->times[i] / job->times[i];
        printf("  %5.2f times the direct way", median(ratios, runs));
    }
    if (job->lowering.pack_template)
        printf("  packing %.3f ms", smallest(job->pack_times, runs) * 1e3);
    putchar('\n');
    fflush(stdout);
}

/* With an odd kernel padded by half of it; even ones are padded by as much as their stride leaves. */
static void time_layer(int threads, int64_t C, int64_t K, int64_t H, int64_t k, int64_t s, int64_t N)
{
    const int64_t P = H / s, padding = (k - s + 1) / 2;
    const ConvShape forward = {C, H, H, K, P, P, k, s, padding, 1, 1, false, false, WAY_DIRECT};
    const ConvShape gradient = {K, P, P, C, H, H, k, s, padding, 1, 1, true, false, WAY_DIRECT};
    static Job jobs[JOBS];
    const Way *ways = k == 3 && s == 1 ? ways_of_3x3 : ways_of_others;
    int n = 0;
    for (; n < JOBS && ways[n].name; n++)
        prepare(&jobs[n], &ways[n], ways[n].gradient ? &gradient : &forward, N, threads);
    const double begin = seconds(threads);
    double peak = 0;
    int runs = 0;
    for (; runs < RUNS && (runs < LEAST_RUNS || seconds(threads) - begin < SECONDS); runs++) {
        for (int i = 0; i < n; i++)
            run_job(&jobs[i], runs);
        peak = fmax(peak, peak_gflops(threads));
    }
    const Job *direct = NULL;
    for (int i = 0; i < n; i++) {
        direct = ways[i].pass == FORWARD || ways[i].pass == WEIGHT ? &jobs[i] : direct;
        print_job(&jobs[i], direct, runs, peak);
    }
    for (int i = 0; i < n; i++)
        release(&jobs[i]);
}

void conv_speed(int threads, const char *only)
{
    static const int64_t layers[][4] = {{64, 64, 256, 3}, {128, 128, 128, 3}, {256, 256, 64, 3},
                                        {512, 512, 32, 3}, {1024, 1024, 16, 3}, {16, 16, 128, 3},
                                        {3, 16, 128, 3}, {32, 16, 128, 3}, {64, 1, 256, 1}};
    long long one_C, one_K, one_H, one_N, one_k = 3, one_s = 1;
    if (only && sscanf(only, "%lld-%lld@%lld:%lld,%lld,%lld", &one_C, &one_K, &one_H, &one_N,
                       &one_k, &one_s) >= 4) {
        time_layer(threads, one_C, one_K, one_H, one_k, one_s, one_N);
        return;
    }
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        for (int64_t N = 2; N <= 8; N += 6) {
            const int64_t C = layers[i][0], K = layers[i][1], H = layers[i][2], k = layers[i][3];
            char name[64];
            snprintf(name, sizeof name, "%lld-%lld@%lld:%lld", (long long)C, (long long)K,
                     (long long)H, (long long)N);
            if (!only || strstr(name, only))
                time_layer(threads, C, K, H, k, 1, N);
        }
    }
}
