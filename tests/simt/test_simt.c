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
        buffers[k] = (SimtBuffer){simt_memory_open(simt, 4 * COUNT), 0, 4 * COUNT, 1, false};
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

/* ---- products ---------------------------------------------------------------------------------- */

/* One warp: y[16][8] = a[16][DEPTH] b, with b as [DEPTH][8], or as [8][DEPTH] where COLUMNS. */
static const char product_text[] =
    "#define KERNEL product\n#define THREADS 32\n"
    "struct Arguments { void *buffers[3]; int batch; };\n"
    "DEVICE void copy(const void *from, unsigned to, int bytes)\n{\n"
    "    for (int at = 16 * thread_index(); at < bytes; at += 16 * 32)\n"
    "        copy_async(to + at, (const char *)from + at, true);\n}\n"
    "ENTRY\n{\n"
    "    int lane = thread_index(), row = lane % 8, matrix = lane / 8;\n"
    "    copy(arguments.buffers[0], 0, 512);\n"
    "    copy(arguments.buffers[1], 512, 256);\n"
    "    copy_commit();\n"
    "    copy_wait<0>();\n"
    "    barrier();\n"
    "    unsigned a[4], b[4];\n"
    "    float d[4] = { 1, 1, 1, 1 };\n"
    "    load_matrices(a, 32 * (row + matrix % 2 * 8) + matrix / 2 * 16);\n"
    "#ifdef COLUMNS\n"
    "    load_matrices(b, 512 + 32 * row + matrix % 2 * 16);\n"
    "#else\n"
    "    load_matrices_transposed(b, 512 + 16 * (row + matrix % 2 * 8));\n"
    "#endif\n"
    "#ifdef PRECISION_BF16\n"
    "    multiply_bf16(d, a, b);\n"
    "#else\n"
    "    for (int i = 0; i < 4; i++) {\n"
    "        a[i] = round_tf32(bits_float(a[i]));\n"
    "        b[i] = round_tf32(bits_float(b[i]));\n"
    "    }\n"
    "    multiply_tf32(d, a, b);\n"
    "#endif\n"
    "    float *y = (float *)arguments.buffers[2] + lane / 4 * 8 + lane % 4 * 2;\n"
    "    for (int i = 0; i < 4; i++)\n"
    "        store_global(y + i / 2 * 64 + i % 2, d[i]);\n"
    "}\n";

static uint64_t random_state = 1;
static float quarter(void)             /* exact in bf16 */
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)((int)(random_state >> 60) - 8) / 4;
}

static void put(void *memory, int index, bool bf16, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (bf16)
        ((uint16_t *)memory)[index] = (uint16_t)(bits >> 16);
    else
        ((uint32_t *)memory)[index] = bits;
}

static void check_product(const char *precision, bool columns)
{
    bool bf16 = strcmp(precision, "bf16") == 0;
    int depth = bf16 ? 16 : 8;
    float a[16][16], b[16][8], y[16][8];
    char a_bytes[512], b_bytes[256], body[3000], why[200] = "";
    for (int i = 0; i < 16 * depth; i++)
        put(a_bytes, i, bf16, a[i / depth][i % depth] = quarter());
    for (int i = 0; i < depth * 8; i++)
        put(b_bytes, columns ? i % 8 * depth + i / 8 : i, bf16, b[i / 8][i % 8] = quarter());
    snprintf(body, sizeof body, "%s%s", columns ? "#define COLUMNS\n" : "", product_text);
    char *text = simt_text(precision, NULL, body);
    SimtTry try = {.name = "product", .text = text, .n_buffers = 3,
                   .buffers = {{a_bytes, 512, true, 0}, {b_bytes, 256, true, 0}, {y, 512, false, 0}},
                   .blocks = 1, .shared_bytes = 768};
    bool ok = simt_try(&try, stdout);
    for (int i = 0; i < 16 * 8 && ok; i++) {
        float want = 1;
        for (int k = 0; k < depth; k++)
            want += a[i / 8][k] * b[k][i % 8];
        if (y[i / 8][i % 8] != want) {
            snprintf(why, sizeof why, "row %d, column %d: %g, not %g", i / 8, i % 8,
                     (double)y[i / 8][i % 8], (double)want);
            ok = false;
        }
    }
    judge(ok, columns ? "product with columns" : "product", why);
    free(text);
}

/* ---- rounding ---------------------------------------------------------------------------------- */

static const char rounding_text[] =
    "#define KERNEL rounding\n#define THREADS 32\n"
    "struct Arguments { void *buffers[2]; int batch; };\n"
    "ENTRY\n{\n    int t = thread_index();\n"
    "    float x = load_global((const float *)arguments.buffers[0] + t);\n"
    "    uint32_t *y = (uint32_t *)arguments.buffers[1] + 2 * t;\n"
    "    store_global(y, round_tf32(x));\n"
    "    store_global(y + 1, pack_bf16(x, -x));\n}\n";

/* tf32 keeps 10 bits, ties away from zero; bf16 7, ties to even. */
static void check_rounding(void)
{
    static const uint32_t rows[][3] = { /* x, in tf32, its bf16 */
        {0x3f800000, 0x3f800000, 0x3f80}, {0x3f800fff, 0x3f800000, 0x3f80},
        {0x3f801000, 0x3f802000, 0x3f80}, {0x3f803000, 0x3f804000, 0x3f80},
        {0xbf801000, 0xbf802000, 0xbf80}, {0x3f807fff, 0x3f808000, 0x3f80},
        {0x3f808000, 0x3f808000, 0x3f80}, {0x3f808001, 0x3f808000, 0x3f81},
        {0x3f818000, 0x3f818000, 0x3f82}, {0x3fffffff, 0x40000000, 0x4000},
        {0x7f7fffff, 0x7f800000, 0x7f80}, {0x7f800000, 0x7f800000, 0x7f80},
        {0x00000000, 0x00000000, 0x0000}, {0x00001000, 0x00002000, 0x0000},
    };
    uint32_t x[32] = {0}, y[64];
    int n = sizeof rows / sizeof *rows;
    for (int i = 0; i < n; i++)
        x[i] = rows[i][0];
    x[n] = 0x7fc00001;
    char *text = simt_text("tf32", NULL, rounding_text), why[200] = "";
    SimtTry try = {.name = "rounding", .text = text, .n_buffers = 2,
                   .buffers = {{x, 128, true, 0}, {y, 256, false, 0}}, .blocks = 1};
    bool ok = simt_try(&try, stdout);
    for (int i = 0; i < n && ok; i++) {
        uint32_t pair = rows[i][2] | (rows[i][2] ^ 0x8000) << 16;
        ok = y[2 * i] == rows[i][1] && y[2 * i + 1] == pair;
        snprintf(why, sizeof why, "%08x: %08x and %08x, not %08x and %08x", x[i], y[2 * i],
                 y[2 * i + 1], rows[i][1], pair);
    }
    judge(ok, "rounding", why);
    judge((y[2 * n] & 0x7fffffff) > 0x7f800000 && (y[2 * n + 1] & 0x7fff) > 0x7f80, "NaN", "is lost");
    free(text);
}

/* ---- the device -------------------------------------------------------------------------------- */

static const char add_text[] =
    "#define KERNEL add\n#define THREADS 32\n"
    "struct Arguments { void *buffers[3]; double scalars[1]; int sizes[1]; int batch; };\n"
    "ENTRY\n{\n    int i = block_index() * THREADS + thread_index();\n"
    "    const float *x = (const float *)arguments.buffers[0];\n"
    "    const float *bias = (const float *)arguments.buffers[1];\n"
    "    if (i < arguments.sizes[0] * arguments.batch)\n"
    "        store_global((float *)arguments.buffers[2] + i, (float)arguments.scalars[0]\n"
    "                     * (load_global(x + i) + load_fixed(bias)));\n}\n";

typedef struct {
    Device *device;
    DeviceRun work;
    char *activations, *parameters;
} DeviceTest;

/* Uploads x where it is given, runs, and says what came of it; y: 2 samples of 20 floats. */
static bool run_device(DeviceTest *test, const float *x, float *y, Error *error)
{
    Device *device = test->device;
    float bias = 2;
    if ((x && !device->upload(device, test->activations, x, 160, error))
        || !device->upload(device, test->parameters, &bias, 4, error)
        || !device->run(device, &test->work, error))
        return false;
    for (int n = 0; n < 2; n++)
        if (!device->download(device, y + 20 * n, test->activations + 256 + 80 * n, 80, error))
            return false;
    return true;
}

static void check_device(void)
{
    Error error = {0};
    Device *device = simt_device_open("cuda-fp32", &error);
    char *text = simt_text("fp32", NULL, add_text);
    PlanKernel kernel = {.name = (char *)"add", .header = (char *)"", .body = text};
    PlanLaunch launch = {.threads = 32, .blocks = 1, .blocks_per_sample = 1};
    PlanBuffer buffers[] = {{SLAB_ACTIVATIONS, 0, 128}, {SLAB_PARAMETERS, 0, 64},
                            {SLAB_ACTIVATIONS, 128, 128}};
    int64_t size = 20;
    double three = 3;
    PlanStep step = {.n_launches = 1, .launches = &launch, .n_buffers = 3, .buffers = buffers,
                     .n_sizes = 1, .sizes = &size, .n_scalars = 1, .scalars = &three,
                     .label = (char *)"add"};
    PlanProgram program = {.name = (char *)"train", .n_steps = 1, .steps = &step};
    PlanTarget target = {.name = (char *)"cuda-fp32", .prelude = (char *)"", .n_kernels = 1,
                         .kernels = &kernel, .n_programs = 1, .programs = &program};
    bool needed = true;
    DeviceTest test = {.device = device};
    test.activations = device->allocate(device, 512, &error);
    test.parameters = device->allocate(device, 64, &error);
    void *places[] = {test.activations, test.parameters, test.activations + 256};
    DeviceStep bound = {&step, places};
    test.work = (DeviceRun){.steps = &bound, .n_steps = 1, .parts = 1 << PART_MAIN,
                             .batch = 2,
                            .kernels = device->build(device, &target, &needed, "test", &error)};
    judge(test.work.kernels != NULL, "device: build", error.text);
    float x[40], y[40] = {0};
    for (int i = 0; i < 40; i++)
        x[i] = (float)i;
    judge(run_device(&test, x, y, &error), "device: run", error.text);
    judge(y[0] == 6 && y[39] == 123, "device: run", "wrong values");
    judge(!run_device(&test, NULL, y, &error) && strstr(error.text, "nobody has written there"),
          "device: an input of the run before", error.text);
    judge(!device->download(device, y, test.activations + 420, 16, &error), "device: download",
          "of bytes that were never written");
    device->unload(device, test.work.kernels);
    device_close(device);
    free(text);
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
    check_product("bf16", false);
    check_product("bf16", true);
    check_product("tf32", true);
    check_rounding();
    check_device();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
