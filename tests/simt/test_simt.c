/* The emulator itself: small kernels that are right must pass with the right values, and kernels
 * with one planted defect must be found out, by the words of the report.
 *
 * Each text is what stands in ENTRY { }. Four blocks of 64 threads run it: x and z are inputs of 256
 * floats (x[i] = i), y is the output, t the thread in its block, i in the grid; 1024 bytes of shared
 * memory.
 * timeout: 120   sanitize: no
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "simt_device.h"

enum { THREADS = 64, BLOCKS = 4, COUNT = THREADS * BLOCKS };

typedef struct {
    const char *name;
    const char *finding;       /* words of the report; NULL: nothing is wrong */
    const char *text;
    float (*want)(int i);      /* what y holds then */
} Case;

static float same(int i) { return (float)i; }
static float reversed(int i) { return (float)(i / 64 * 64 + 63 - i % 64); }
static float turned(int i) { return (float)(i / 32 * 32 + 31 - i % 32); }
static float swapped(int i) { return (float)(i ^ 5); }
static float zero(int i) { (void)i; return 0; }
static float warp_sum(int i) { return (float)(i / 32 * 1024 + 496); }
static float doubled(int i) { return 2 * (float)i; }

#define REVERSE(BEFORE, BETWEEN) BEFORE "store_shared(4 * t, load_global(x + i));" BETWEEN \
    "store_global(y + i, load_shared<float>(4 * (63 - t)));"
#define COPY(AFTER_ISSUE, BEFORE_READ) \
    "unsigned at = 16 * (t / 4);" \
    "if (t % 4 == 0) copy_async(at, x + i, true);" AFTER_ISSUE BEFORE_READ \
    "store_global(y + i, load_shared<float>(4 * t));"

static const Case cases[] = {
    /* global memory */
    {"copy", NULL, "store_global(y + i, load_global(x + i));", same},
    {"fixed", NULL, "store_global(y + i, load_fixed(x + i));", same},
    {"vectors", NULL, "if (i % 4 == 0) store_global((word4 *)(y + i), load_global((word4 *)(x + i)));",
     same},
    {"halves", NULL, "store_global((uint16_t *)y + 2 * i, load_global((uint16_t *)x + 2 * i));"
     "store_global((uint16_t *)y + 2 * i + 1, load_global((uint16_t *)x + 2 * i + 1));", same},
    {"in_place", NULL, "store_global(z + i, 2 * load_global(z + i));"
     "store_global(y + i, load_global(z + i));", doubled},
    {"read_behind", "load_global of 4 bytes at byte 1024 of buffer 0, which has 1024",
     "store_global(y + i, load_global(x + i + 1));", NULL},
    {"read_before", "load_global of 4 bytes at byte -4 of buffer 0",
     "store_global(y + i, load_global(x + i - 1));", NULL},
    {"read_far", "which is in no buffer", "store_global(y + i, load_global((float *)(int64_t)4096));", NULL},
    {"fixed_behind", "load_fixed of 16 bytes at byte 1024",
     "float four[4]; load_fixed4(x + 4 * i, four); store_global(y + i, four[0]);", NULL},
    {"write_behind", "store_global of 4 bytes at byte 1024 of buffer 1",
     "store_global(y + i + 1, load_global(x + i));", NULL},
    {"odd_vector", "load_global of 16 bytes at byte 4 of buffer 0: not aligned",
     "word4 four = load_global((word4 *)(x + 1)); store_global(y + i, bits_float(four.x));", NULL},
    {"odd_store", "store_global of 8 bytes at byte 4 of buffer 1: not aligned",
     "word2 two = {0, 0}; store_global((word2 *)(y + 1), two); store_global(y + i, 0.0f);", NULL},
    {"read_output", "buffer 1: nobody has written there", "store_global(y + i, load_global(y + i));", NULL},
    {"half_written", "buffer 1: nobody has written there",
     "store_global((uint16_t *)y + 2 * i, (uint16_t)0); store_global(y + i, load_global(y + i));", NULL},
    {"hole", "bytes 400 to 403 of buffer 1 were not written (4 bytes in 1 pieces, of 1024)",
     "if (i != 100) store_global(y + i, 0.0f);", NULL},
    {"tail", NULL, "if (i < 241) store_global(y + i, 0.0f);", zero},
    {"long_tail", "bytes 960 to 1023 of buffer 1 were not written",
     "if (i < 240) store_global(y + i, 0.0f);", NULL},
    {"two_writers", "which block", "store_global(y + i % 64, 0.0f); store_global(y + i, 0.0f);", NULL},
    {"reads_other_block", "of this launch",
     "store_global(z + i, 1.0f); store_global(y + i, load_global(z + (i + 64) % 256));", NULL},
    {"fixed_of_own", "which this launch reads by load_fixed",
     "float old = load_fixed(z + i); store_global(z + i, old); store_global(y + i, old);", NULL},
    {"own_then_fixed", "which this launch writes",
     "store_global(z + i, 1.0f); store_global(y + i, load_fixed(z + i));", NULL},
    /* shared memory */
    {"reverse", NULL, REVERSE("", "barrier();"), reversed},
    {"reverse_twice", NULL, REVERSE("store_shared(4 * t, 0.0f); barrier();", "barrier();"), reversed},
    {"no_barrier", "no barrier since thread", REVERSE("", ""), NULL},
    {"only_warp_barrier", "no barrier since thread", REVERSE("", "warp_barrier();"), NULL},
    {"in_warp", NULL, "store_shared(4 * t, load_global(x + i)); warp_barrier();"
     "store_global(y + i, load_shared<float>(4 * (t / 32 * 32 + 31 - t % 32)));", turned},
    {"in_warp_no_barrier", "no barrier since thread", "store_shared(4 * t, load_global(x + i));"
     "store_global(y + i, load_shared<float>(4 * (t ^ 1)));", NULL},
    {"write_after_read", "no barrier since another thread of warp 0 read it",
     REVERSE("store_shared(4 * t, 0.0f); barrier(); load_shared<float>(0); store_shared(4 * t, 0.0f);",
             "barrier();"), NULL},
    {"write_after_read_of_all", "no barrier since",
     "if (t == 0) store_shared(0, 1.0f); barrier(); float one = load_shared<float>(0);"
     "if (t == 63) store_shared(0, 2.0f); barrier(); store_global(y + i, one);", NULL},
    {"two_write", "no barrier since thread", "store_shared(0, 1.0f); store_global(y + i, 0.0f);", NULL},
    {"split_words", NULL, "store_shared(2 * t, (uint16_t)t); barrier();"
     "store_global(y + i, (float)(i - t + load_shared<uint16_t>(2 * t)));", same},
    {"split_words_race", "no barrier since thread", "store_shared(2 * t, (uint16_t)t);"
     "store_global(y + i, bits_float(load_shared<uint32_t>(4 * (t / 2))));", NULL},
    {"stale_shared", "nobody has written there", "if (block_index() == 0) store_shared(4 * t, 0.0f);"
     "store_global(y + i, load_shared<float>(4 * t));", NULL},
    {"fresh_shared", "reads byte 252 of shared memory: nobody has written there",
     "if (t < 63) store_shared(4 * t, 0.0f); barrier(); store_global(y + i, load_shared<float>(4 * t));",
     NULL},
    {"shared_behind", "writes 4 bytes at byte 1024 of shared memory, which has 1024",
     "store_shared(4 * t + 4 * 193, 0.0f); store_global(y + i, 0.0f);", NULL},
    {"shared_read_behind", "reads 4 bytes at byte 1024 of shared memory, which has 1024",
     "store_global(y + i, load_shared<float>(1024));", NULL},
    {"shared_odd", "writes 8 bytes at byte 4 of shared memory: not aligned",
     "word2 two = {0, 0}; if (t == 0) store_shared(4, two); store_global(y + i, 0.0f);", NULL},
    /* asynchronous copies */
    {"async", NULL, COPY("copy_commit(); copy_wait<0>();", "barrier();"), same},
    {"async_zeros", NULL, "if (t % 4 == 0) copy_async(4 * t, 0, false); copy_commit(); copy_wait<0>();"
     "barrier(); store_global(y + i, load_shared<float>(4 * t));", zero},
    {"async_stages", NULL, "for (int s = 0; s < 2; s++) {"
     "    if (t % 4 == 0) copy_async(256 * s + 4 * t, x + i, true); copy_commit(); }"
     "copy_wait<1>(); barrier(); float first = load_shared<float>(4 * t);"
     "copy_wait<0>(); barrier(); store_global(y + i, 0 * first + load_shared<float>(256 + 4 * t));", same},
    {"async_wrong_stage", "a copy_async of thread", "for (int s = 0; s < 2; s++) {"
     "    if (t % 4 == 0) copy_async(256 * s + 4 * t, x + i, true); copy_commit(); }"
     "copy_wait<1>(); barrier(); store_global(y + i, load_shared<float>(256 + 4 * t));", NULL},
    {"no_wait", "is not waited for", COPY("copy_commit();", "barrier();"), NULL},
    {"no_commit", "is not waited for", COPY("copy_wait<0>();", "barrier();"), NULL},
    {"no_barrier_after_wait", "no barrier since thread", COPY("copy_commit(); copy_wait<0>();", ""), NULL},
    {"wait_after_barrier", "no barrier since thread",
     COPY("copy_commit(); barrier();", "copy_wait<0>();"), NULL},
    {"copy_over_read", "no barrier since", "store_shared(4 * t, 0.0f); barrier();"
     "float old = load_shared<float>(4 * (t ^ 1));"
     "if (t % 4 == 0) copy_async(4 * t, x + i, true); copy_commit(); copy_wait<0>(); barrier();"
     "store_global(y + i, old);", NULL},
    {"copy_odd", "copy_async of 16 bytes at byte 4 of buffer 0: not aligned",
     "if (t == 0) copy_async(0, x + 1, true); store_global(y + i, 0.0f);", NULL},
    {"copy_behind", "copy_async of 16 bytes at byte 1024 of buffer 0",
     "if (t == 0) copy_async(0, x + 256, true); store_global(y + i, 0.0f);", NULL},
    /* meeting */
    {"shuffles", NULL, "store_global(y + i, shuffle(load_global(x + i), 31 - t % 32));", turned},
    {"shuffle_xor", NULL, "store_global(y + i, shuffle_xor(load_global(x + i), 5));", swapped},
    {"warp_sums", NULL, "float sum = load_global(x + i);"
     "for (int m = 16; m; m /= 2) sum += shuffle_xor(sum, m);"
     "store_global(y + i, sum);", warp_sum},
    {"lanes_missing", "for ever: thread 31 has ended",
     "store_global(y + i, 0.0f); if (t % 32 != 31) shuffle_xor(1.0f, 0);", NULL},
    {"other_lane_calls", "meet at different calls",
     "float v = 0; if (t % 2)\n v = shuffle_xor(1.0f, 0); else\n v = shuffle_xor(2.0f, 0);\n"
     "store_global(y + i, v);", NULL},
    {"barrier_missing", "waits at barrier in line",
     "store_global(y + i, 0.0f); if (t != 40) barrier();", NULL},
    {"barriers_differ", "meet at different calls",
     "store_global(y + i, 0.0f); if (t < 32)\n barrier(); else\n barrier();", NULL},
    {"barrier_and_shuffle", "for ever: thread",
     "store_global(y + i, 0.0f); if (t == 3) barrier(); else shuffle_xor(1.0f, 1);", NULL},
    {"no_lane", "which is no lane", "store_global(y + i, shuffle(1.0f, 40));", NULL},
    /* products */
    {"not_rounded", "which round_tf32 has not rounded",
     "float d[4] = {0, 0, 0, 0}; unsigned a[4] = {0, 0, 0, float_bits(0.1f)}, b[2] = {0, 0};"
     "multiply_tf32(d, a, b); store_global(y + i, d[0]);", NULL},
    {"rounded", NULL,
     "float d[4] = {0, 0, 0, 0}; unsigned a[4] = {0, 0, 0, round_tf32(0.1f)}, b[2] = {0, 0};"
     "multiply_tf32(d, a, b); store_global(y + i, d[0]);", zero},
    {"matrix_behind", "reads 16 bytes at byte 1024 of shared memory",
     "unsigned r[4]; for (int k = 0; k < 4; k++) store_shared(4 * (t + 64 * k), 0); barrier();"
     "load_matrices(r, 16 * (t + 1)); store_global(y + i, bits_float(r[0]));", NULL},
    {"matrix_fresh", "nobody has written there",
     "unsigned r[4]; load_matrices(r, 16 * t); store_global(y + i, bits_float(r[0]));", NULL},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static int passed, failed;

static void judge(bool good, const char *name, const char *why)
{
    if (!good)
        printf("FAIL %s: %s\n", name, why);
    *(good ? &passed : &failed) += 1;
    fflush(stdout);
}

static char *case_text(const Case *one, const char *name)
{
    static char body[4000];
    snprintf(body, sizeof body,
             "#define KERNEL %s\n#define THREADS 64\n"
             "struct Arguments { void *buffers[3]; double scalars[1]; int sizes[2]; int batch; };\n"
             "ENTRY\n{\n    const float *x = (const float *)arguments.buffers[0];\n"
             "    float *y = (float *)arguments.buffers[1], *z = (float *)arguments.buffers[2];\n"
             "    int t = thread_index(), i = block_index() * THREADS + t;\n    (void)x; (void)z;\n"
             "%s\n}\n", name, one->text);
    return simt_text("fp32", NULL, body);
}

/* Runs a case with its kernel built; returns what the emulator reports. */
static bool run_case(Simt *simt, const Case *one, const struct SimtKernel *kernel, float *y,
                     char *report, size_t size)
{
    SimtBuffer buffers[3];
    for (int k = 0; k < 3; k++) {
        buffers[k] = (SimtBuffer){simt_memory_open(simt, 4 * COUNT), 0, 4 * COUNT, 1};
        float *data = (float *)simt_memory_data(buffers[k].memory);
        for (int i = 0; i < COUNT && k != 1; i++)
            data[i] = (float)i;
        simt_memory_mark(buffers[k].memory, 0, 4 * COUNT, k != 1);
    }
    static const double scalars[] = {1};
    static const int64_t sizes[] = {COUNT, 7};
    SimtLaunch launch = {.name = one->name, .kernel = kernel, .n_buffers = 3, .buffers = buffers,
                         .n_scalars = 1, .scalars = scalars, .n_sizes = 2, .sizes = sizes,
                         .batch = 2, .threads = THREADS, .blocks = BLOCKS, .shared_bytes = 1024};
    bool ok = simt_launch(simt, &launch, report, size);
    memcpy(y, simt_memory_data(buffers[1].memory), 4 * COUNT);
    for (int k = 0; k < 3; k++)
        simt_memory_close(simt, buffers[k].memory);
    return ok;
}

static void check_case(Simt *simt, const Case *one, const struct SimtKernel *kernel)
{
    float y[COUNT];
    char report[4096], why[5000] = "";
    bool ok = run_case(simt, one, kernel, y, report, sizeof report);
    if (one->finding) {
        snprintf(why, sizeof why, "wanted '%s', got: %s", one->finding, ok ? "nothing" : report);
        judge(!ok && strstr(report, one->finding), one->name, why);
        return;
    }
    for (int i = 0; i < COUNT && ok; i++)
        if (y[i] != one->want(i)) {
            snprintf(report, sizeof report, "y[%d] is %g, not %g", i, (double)y[i],
                     (double)one->want(i));
            ok = false;
        }
    judge(ok, one->name, report);
}

static void check_cases(const SimtBuilder *builder)
{
    static SimtUnit units[N_CASES];
    static char names[N_CASES][40];
    Error error = {0};
    for (int i = 0; i < N_CASES; i++) {
        snprintf(names[i], sizeof names[i], "try_%s", cases[i].name);
        units[i] = (SimtUnit){.name = names[i], .parts = {case_text(&cases[i], names[i]), NULL}};
    }
    bool built = simt_build(builder, units, N_CASES, &error);
    judge(built, "build", error.text);
    Simt *simt = simt_open(2);
    for (int i = 0; i < N_CASES && built; i++)
        check_case(simt, &cases[i], units[i].kernel);
    simt_close(simt);
    if (built)
        simt_unload(units, N_CASES);
    for (int i = 0; i < N_CASES; i++)
        free((char *)units[i].parts[0]);
}

int main(void)
{
    Error error = {0};
    SimtBuilder builder;
    if (!simt_builder_open(&builder, &error)) {
        printf("skipped: %s\n0 passed, 0 failed, 1 skipped\n", error.text);
        return 0;
    }
    check_cases(&builder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
