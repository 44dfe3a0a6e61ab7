/* CUDA templates at shapes that the operator table does not reach, as it keeps maps small: many
 * channels, so that threads take several blocks of them in turn; large maps, which are reduced in
 * two launches; windows that fill max_pool_grad's table more than once; partial sums in more rows
 * than a thread block takes at a time.
 *
 * test_simt_shapes [TARGET [NAME]]: a precision; the cases whose name holds NAME.
 * timeout: 240   sanitize: no
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../compiler/kernel_files.h"
#include "../comparison.h"
#include "simt_device.h"

/* ---- models against the oracle --------------------------------------------------------------- */

typedef struct {
    const char *name, *input, *target; /* the target's shape: that of y */
    const char *body;                  /* gives y, from x */
    double tolerance, bf16;
} ShapeCase;

static const ShapeCase cases[] = {
    {"softmax of many channels", "f32[300,5,7]", "f32[300,5,7]", "y = softmax(3 * x)", 1e-5, 2e-2},
    {"largest of many channels", "f32[300,5,7]", "f32[300,5,7]",
     "y = x * channel_max(x) + channel_mean(x)", 1e-5, 2e-2},
    {"pools of a large map", "f32[10,96,100]", "u8[10,96,100]",
     "y = x * sigmoid(global_max_pool(x)) + global_avg_pool(x)", 1e-5, 2e-2},
    {"pools of a large map of one channel", "f32[1,96,100]", "f32[1,96,100]",
     "y = x * global_max_pool(x) + global_avg_pool(x)", 1e-5, 2e-2},
    {"wide windows side by side by a pixel", "f32[64,13,24]", "f32[64,13,24]",
     "y = max_pool(x, kernel = 9, stride = 1, padding = 4)", 1e-5, 2e-2},
    {"wide windows of few channels", "f32[3,29,31]", "f32[3,15,16]",
     "y = max_pool(x, kernel = 13, stride = 2, padding = 6)", 1e-5, 2e-2},
    {"windows that leave pixels over", "f32[20,33,35]", "f32[20,16,17]",
     "y = max_pool(x, kernel = 2)", 1e-5, 2e-2},
    {"windows with gaps", "f32[20,33,33]", "f32[20,11,11]",
     "y = max_pool(x, kernel = 2, stride = 3) + avg_pool(x, kernel = 3)", 1e-5, 2e-2},
    {"five by five", "f32[9,27,25]", "f32[9,5,5]", "y = max_pool(x, kernel = 5)", 1e-5, 2e-2},
    {"unaligned parts of unaligned parts", "f32[3,4,5]", "f32[48,4,5]",
     "a = concat(x, 2 * x, 3 * x, 4 * x)\n    b = a + 1\n    y = concat(a, b, 2 * a, 2 * b)",
     1e-5, 2e-2},
    {"enlarged four times", "f32[12,1,6]", "f32[12,4,24]",
     "y = upsample(x, scale = 4, mode = bilinear)", 1e-5, 2e-2},
    {"statistics of a large map", "f32[72,64,66]", "f32[72,64,66]", "y = relu(batch_norm(x)) * x",
     3e-5, 3e-2},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static bool run_case(const ShapeCase *one, const char *target, Device *device)
{
    static Outcome outcome;
    char text[1024], metric[80] = "";
    memset(&outcome, 0, sizeof outcome);
    if (one->target[0] == 'u')
        snprintf(metric, sizeof metric, "    metric dice(sigmoid(y), t)\n");
    snprintf(text, sizeof text, "model shapes {\n    input x : %s\n    target t : %s\n    %s\n"
             "    output out = y\n    loss binary_cross_entropy(sigmoid(y), t)\n%s}\n",
             one->input, one->target, one->body, metric);
    Case test = {.text = text, .batch = 2, .seed = 7, .fused_only = true,
                 .tolerance = strcmp(target, "cuda-bf16") == 0 ? one->bf16 : one->tolerance};
    bool ok = compare_case(&test, device, &outcome);
    if (ok)
        printf("%s %-38s largest error %.1e\n", target, one->name, outcome.worst);
    else
        printf("FAIL %s, %s: %s\n%s\n", target, one->name, outcome.problem, text);
    fflush(stdout);
    return ok;
}

/* ---- finishing many rows --------------------------------------------------------------------- */

static float random_float(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) / 16777216.0f - 0.5f;
}

/* Rows count, mean, M2 of ROWS parts; channel 3 lies far from zero, channel 5 is constant. */
enum { ROWS = 2700, CHANNELS = 20, PADDED = 32 };

static void fill_parts(float *parts)
{
    uint64_t state = 1;
    for (int row = 0; row < ROWS; row++)
        for (int c = 0; c < CHANNELS; c++) {
            float *at = parts + 3 * row * PADDED + c;
            at[0] = (float)(1 + row % 7);
            at[PADDED] = c == 5 ? 2.5f : (c == 3 ? 1e4f : 0.0f) + random_float(&state);
            at[2 * PADDED] = c == 5 ? 0.0f : 1.0f + random_float(&state);
        }
}

static bool moments_right(const float *parts, const float *moments)
{
    for (int c = 0; c < PADDED; c++) {
        double count = 0, mean = 0, squares = 0;
        for (int row = 0; row < ROWS; row++) {
            const float *at = parts + 3 * row * PADDED + c;
            count += at[0];
            mean += (double)at[0] * at[PADDED];
        }
        mean = c < CHANNELS ? mean / count : 0;
        for (int row = 0; row < ROWS && c < CHANNELS; row++) {
            const float *at = parts + 3 * row * PADDED + c;
            squares += at[2 * PADDED] + at[0] * pow(at[PADDED] - mean, 2);
        }
        double variance = c < CHANNELS ? squares / count : 0;
        if (fabs(moments[c] - mean) > 1e-6 * fabs(mean) + 1e-9
            || fabs(moments[PADDED + c] - variance) > 1e-6 * variance) {
            printf("FAIL finish_moments, channel %d: %.9g %.9g, want %.9g %.9g\n", c, moments[c],
                   moments[PADDED + c], mean, variance);
            return false;
        }
    }
    return true;
}

static bool test_finish(void)
{
    static float parts[ROWS * 3 * PADDED], moments[2 * PADDED], total[16];
    fill_parts(parts);
    static const char head[] = "#define KERNEL finish\n#define THREADS 512\n"
        "struct Arguments { void *buffers[4]; int sizes[6]; int batch; };\n";
    static const char entry[] = "ENTRY\n{\n    const Arguments *a = &arguments;\n"
        "    int block = block_index();\n    if (block < 4) {\n"
        "        finish_moments(a, block, 0, 0, [](int) {});\n        return;\n    }\n"
        "    finish_sum(a, block - 4, 2, 2);\n}\n";
    static const char *const files[] = {"cuda/finish_rows.cu", "cuda/finish_moments.cu",
                                        "cuda/finish_sum.cu"};
    char body[32768];
    const size_t size = sizeof body;
    size_t length = (size_t)snprintf(body, size, "%s", head);
    for (int i = 0; i < 3; i++)
        length += (size_t)snprintf(body + length, size - length, "%s", kernel_file(files[i]));
    snprintf(body + length, size - length, "%s", entry);
    char *text = simt_text("fp32", NULL, body);
    /* finish_sum over all channels, of the same memory as three times as many rows */
    SimtTry launch = {
        .name = "finish", .text = text, .n_buffers = 4,
        .buffers = {{.data = parts, .bytes = sizeof parts, .input = true},
                    {.data = moments, .bytes = sizeof moments},
                    {.data = parts, .bytes = sizeof parts, .input = true},
                    {.data = total, .bytes = sizeof total}},
        .n_sizes = 6, .sizes = {CHANNELS, ROWS / 3, CHANNELS, ROWS, 1, 0}, .batch = 3,
        .blocks = 5, .shared_bytes = 48 * 512,
    };
    bool ok = simt_try(&launch, stdout) && moments_right(parts, moments);
    double want = 0;
    for (int i = 0; i < ROWS * 3 * PADDED; i++)
        want += parts[i];
    if (ok && fabs(total[0] - want) > 1e-6 * fabs(want)) {
        printf("FAIL finish_sum: %.9g, want %.9g\n", total[0], want);
        ok = false;
    }
    free(text);
    return ok;
}

int main(int argc, char **argv)
{
    static const char *const precisions[] = {"cuda-fp32", "cuda-bf16"};
    int passed = 0, failed = 0;
    *(test_finish() ? &passed : &failed) += 1;
    for (int t = 0; t < 2; t++) {
        Error error = {0};
        if (argc > 1 && strcmp(precisions[t], argv[1]) != 0)
            continue;
        Device *device = simt_device_open(precisions[t], &error);
        if (!device) {
            printf("FAIL no device: %s\n", error.text);
            failed++;
            continue;
        }
        for (int i = 0; i < N_CASES; i++)
            if (argc < 3 || strstr(cases[i].name, argv[2]))
                *(run_case(&cases[i], precisions[t], device) ? &passed : &failed) += 1;
        device_close(device);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
