/* The plan file: what is written is read back the same, and nothing else is taken for a plan.
 *
 * A small plan is written, then damaged in every byte, cut at every length, and made wrong in every
 * field that the reader checks (with a right checksum, as somebody who means harm would).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "compiler/seg.h"
#include "runtime/run.h"

static int passed, failed;

static void check(bool right, const char *format, ...)
{
    va_list arguments;
    passed += right;
    failed += !right;
    if (right)
        return;
    va_start(arguments, format);
    printf("FAIL ");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

/* ---- a plan ---------------------------------------------------------------------------------- */

typedef struct {
    Plan plan;
    PlanParameter parameters[3];
    PlanTarget targets[2];
    PlanKernel kernels[4];
    PlanProgram programs[2];
    PlanNode nodes[3];
    PlanTensor tensors[3];
    PlanStep steps[2];
    PlanProgram cuda_program;
    PlanStep cuda_steps[2];
    PlanLaunch launches[2];
    PlanBuffer buffers[3], matrices[3];
    int inputs[2];
    double values[16];
    int64_t sizes[2], matmul[MATMUL_SIZES];
    double scalars[1];
} Sample;

static char *text(const char *constant) { return (char *)constant; }

static void make_sample(Sample *s)
{
    *s = (Sample){
        .plan = { .model = text("tiny"),
                  .path = text("models/tiny.seg"),
                  .text = text("model tiny {\n}\n"),
                  .options = text("-D width=16"),
                  .parameter_bytes = 256,
                  .trainable_bytes = 192,
                  .n_parameters = 3,
                  .parameters = s->parameters,
                  .n_targets = 2,
                  .targets = s->targets },
        .parameters = { { text("a.weight"), 4, { 2, 3, 2, 2 }, true, PLAN_INIT_UNIFORM, 0.25, 0,
                          NULL },
                        { text("a.bias"), 1, { 2 }, true, PLAN_INIT_CONSTANT, 0, 128, NULL },
                        { text("n.running_mean"), 1, { 16 }, false, PLAN_INIT_VALUES, 1, 192,
                          s->values } },
        .targets = { { text("host"), text("#include <math.h>\n"), 3, s->kernels, 2, s->programs },
                     { text("cuda-tf32"), text("\n"), 4, s->kernels, 1, &s->cuda_program } },
        .kernels = { { text("scale"), text("%1 = mul"), text("void scale(void) {}\n"), NULL,
                       "library_help" },
                     { text("finish"), text(""), text("void finish(void) {}\n") },
                     { text("library_help"), text(""), text("void help(void) {}\n") },
                     { .name = text(PLAN_MATMUL), .header = text(""), .body = text("") } },
        .programs = { { text("train"), 3, s->tensors, 2, s->steps, 128, 640, 64, false, 3,
                        s->nodes },
                      { text("predict"), 0, NULL, 0, NULL, 128, 0, 0, false, 0, NULL } },
        .cuda_program = { text("train"), 3, s->tensors, 2, s->cuda_steps, 128, 640, 0, true, 2,
                          s->nodes },
        .nodes = { { text("%image = input : u8[N,3,5,7]"), 0, NULL, -1,
                     { SLAB_ACTIVATIONS, 0, 128 } },
                   { text("%1 = mul %image, %image"), 2, s->inputs, 0,
                     { SLAB_ACTIVATIONS, 128, 448 } },
                   { text("%image = input : u8[N,3,5,7]"), 1, &s->inputs[1], -1, { 0 } } },
        .values = { [15] = 15 },
        .launches = { { 1, 256, 0, 6, 49152 }, { 0, 128, 4, 0, 0 } },
        .tensors = { { text("image"), ROLE_INPUT, PLAN_U8, true, { 3, 5, 7 },
                       { SLAB_ACTIVATIONS, 0, 128 } },
                     { text("loss"), ROLE_LOSS, PLAN_F32, false, { 1, 1, 1 },
                       { SLAB_FIXED, 64, 4 } },
                     { text("image"), ROLE_GRADIENT, PLAN_F32, true, { 3, 5, 7 },
                       { SLAB_ACTIVATIONS, 128, 448 } } },
        .steps = { { .kernel = 0, .n_buffers = 3, .n_sizes = 2, .n_scalars = 1,
                     .buffers = s->buffers, .sizes = s->sizes, .scalars = s->scalars, .once = true,
                     .scratch = 64, .flops = 1, .flops_per_sample = 2, .bytes = 3,
                     .bytes_per_sample = 4, .label = text("scale it") },
                   { .kernel = 1, .n_buffers = 1, .buffers = s->buffers, .label = text(""),
                     .group = -1 } },
        .cuda_steps = { { .kernel = 1, .n_launches = 2, .launches = s->launches, .n_buffers = 3,
                          .n_sizes = 2, .buffers = s->buffers, .sizes = s->sizes,
                          .label = text("scale it") },
                        { .kernel = 3, .n_buffers = 3, .n_sizes = MATMUL_SIZES,
                          .buffers = s->matrices, .sizes = s->matmul, .label = text("") } },
        .matrices = { { SLAB_ACTIVATIONS, 0, 128 },
                      { SLAB_FIXED, 0, 128 },
                      { SLAB_ACTIVATIONS, 128, 64 } },
        .matmul = { [MATMUL_ROWS_PER_SAMPLE] = 4, [MATMUL_COLUMNS] = 4, [MATMUL_DEPTH] = 8 },
        .buffers = { { SLAB_ACTIVATIONS, 128, 448 },
                     { SLAB_MOMENTS, 192, 192 },
                     { SLAB_FIXED, 0, 128 } },
        .inputs = { 0, 0 },
        .sizes = { 3, -5 },
        .scalars = { 1.5 },
    };
}

static Plan *read_back(const void *bytes, size_t size, Error *error)
{
    *error = (Error){ 0 };
    return plan_parse(bytes, size, "tiny.plan", error);
}

static void test_round_trip(void)
{
    Sample sample;
    Error error;
    size_t size, again_size;
    make_sample(&sample);
    char *bytes = plan_bytes_make(&sample.plan, &size);
    Plan *plan = read_back(bytes, size, &error);
    check(plan != NULL, "round trip: %s", error.text);
    if (plan) {
        char *again = plan_bytes_make(plan, &again_size);
        check(again_size == size && memcmp(again, bytes, size) == 0,
              "round trip gives other bytes");
        const PlanTarget *target = plan_target(plan, "host");
        check(target && plan_program(target, "predict") && !plan_program(target, "eval"),
              "looking up");
        check(plan->parameters[0].dims[1] == 3 && plan->parameters[2].value == 1
                  && plan->parameters[2].values[15] == 15
                  && strcmp(plan->text, sample.plan.text) == 0
                  && target->programs[0].steps[0].sizes[1] == -5
                  && target->programs[0].steps[1].group == -1,
              "fields of a plan");
        const PlanNode *nodes = target->programs[0].nodes;
        check(nodes[0].line == nodes[2].line && strstr(nodes[1].line, "mul") && nodes[0].group == -1
                  && nodes[1].group == 0 && nodes[1].n_inputs == 2 && nodes[1].inputs[1] == 0
                  && nodes[1].buffer.offset == 128 && nodes[2].buffer.bytes == 0,
              "fields of a node");
        const PlanProgram *train = plan_program(plan_target(plan, "cuda-tf32"), "train");
        check(train && train->keeps_once && train->steps[0].n_launches == 2
                  && train->steps[0].launches[0].threads == 256
                  && train->steps[0].launches[0].blocks_per_sample == 6
                  && train->steps[0].launches[0].shared_bytes == 49152
                  && train->steps[0].launches[1].blocks == 4
                  && plan_arguments_bytes(&train->steps[0]) == 40,
              "fields of a CUDA step");
        free(again);
    }
    plan_close(plan);
    free(bytes);
}

/* ---- accidents ------------------------------------------------------------------------------- */

static void test_damage(void)
{
    Sample sample;
    Error error;
    size_t size;
    make_sample(&sample);
    unsigned char *bytes = plan_bytes_make(&sample.plan, &size);
    int wrong = 0;
    for (size_t i = 0; i < size; i++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] ^= (unsigned char)(1 << bit);
            Plan *plan = read_back(bytes, size, &error);
            wrong += plan || error.code != EXIT_USER || !strstr(error.text, "tiny.plan")
                  || !error.hint[0];
            plan_close(plan);
            bytes[i] ^= (unsigned char)(1 << bit);
        }
    check(wrong == 0, "%d of %zu flipped bits found no error", wrong, 8 * size);
    wrong = 0;
    for (size_t length = 0; length < size; length++) {
        char *part = malloc(length ? length : 1); /* so that AddressSanitizer sees its end */
        memcpy(part, bytes, length);
        Plan *plan = read_back(part, length, &error);
        wrong += plan || error.code != EXIT_USER;
        plan_close(plan);
        free(part);
    }
    check(wrong == 0, "%d of %zu truncations found no error", wrong, size);
    unsigned char *longer = calloc(1, size + 1);
    memcpy(longer, bytes, size);
    check(!read_back(longer, size + 1, &error), "a byte too many is accepted");
    free(longer);
    char newer[100], older[100];
    snprintf(newer, sizeof newer, "made by a newer segc: plan version %d, this segrun reads %d",
             PLAN_VERSION + 1, PLAN_VERSION);
    snprintf(older, sizeof older, "made by an older segc: plan version 1, this segrun reads %d",
             PLAN_VERSION);
    bytes[8] = PLAN_VERSION + 1;
    read_back(bytes, size, &error);
    check(strstr(error.text, newer) != NULL, "newer version: %s", error.text);
    bytes[8] = 1;
    read_back(bytes, size, &error);
    check(strstr(error.text, older) != NULL, "older version: %s", error.text);
    free(bytes);
}

static void seal(unsigned char *bytes, size_t size)
{
    uint64_t checksum = XXH64(bytes + 32, size - 32, 0);
    for (int i = 0; i < 8; i++) {
        bytes[16 + i] = (unsigned char)(size >> (8 * i));
        bytes[24 + i] = (unsigned char)(checksum >> (8 * i));
    }
}

/* Damage with a right checksum: it may be accepted, but must not crash, and what is accepted must
 * be a plan that can be written again. */
static void test_malice(void)
{
    static const unsigned char values[] = { 0, 1, 2, 5, 0x40, 0x7f, 0x80, 0xff };
    Sample sample;
    Error error;
    size_t size, again_size;
    make_sample(&sample);
    unsigned char *bytes = plan_bytes_make(&sample.plan, &size);
    int wrong = 0, accepted = 0;
    for (size_t i = 32; i < size; i++)
        for (size_t j = 0; j < sizeof values; j++) {
            unsigned char before = bytes[i];
            bytes[i] = values[j];
            seal(bytes, size);
            Plan *plan = read_back(bytes, size, &error);
            if (plan) {
                void *again = plan_bytes_make(plan, &again_size);
                wrong += again_size != size || memcmp(again, bytes, size) != 0;
                accepted++;
                free(again);
            } else {
                wrong += !error.text[0];
            }
            plan_close(plan);
            bytes[i] = before;
        }
    check(wrong == 0, "%d damaged plans (of %d accepted ones) came back otherwise", wrong,
          accepted);
    wrong = 0;
    for (size_t length = 32; length < size; length++) {
        unsigned char *part = malloc(length);
        memcpy(part, bytes, length);
        seal(part, length);
        Plan *plan = read_back(part, length, &error);
        wrong += plan != NULL;
        plan_close(plan);
        free(part);
    }
    check(wrong == 0, "%d sealed truncations are accepted", wrong);
    free(bytes);
}

/* ---- one thing wrong ------------------------------------------------------------------------- */

#define CASES                                                                                      \
    CASE(s->parameters[1].offset = 100, "'a.bias'")                                                \
    CASE(s->parameters[1].offset = 64, "overlap")                                                  \
    CASE(s->parameters[1].offset = -64, "offset")                                                  \
    CASE(s->parameters[1].offset = 192, "'a.bias'")                                                \
    CASE(s->parameters[2].offset = 128, "'n.running_mean'")                                        \
    CASE(s->parameters[1].name = text("a.weight"), "two parameters are named 'a.weight'")          \
    CASE(s->parameters[1].name = text(""), "empty")                                                \
    CASE(s->parameters[1].name = text("a\033[2J"), "control character")                            \
    CASE(s->parameters[0].dims[1] = 0, "impossible shape")                                         \
    CASE(s->parameters[0].dims[1] = -3, "impossible shape")                                        \
    CASE(s->parameters[0].dims[1] = INT64_MAX / 2, "impossible shape")                             \
    CASE((s->parameters[0].dims[0] = (int64_t)1 << 31,                                             \
          s->parameters[0].dims[1] = (int64_t)1 << 31),                                            \
         "impossible shape")                                                                       \
    CASE(s->parameters[0].init = 7, "initial value")                                               \
    CASE(s->parameters[0].value = 0.0 / 0.0, "finite")                                             \
    CASE(s->values[3] = 1 / 0.0, "an initial value is not a finite number")                        \
    CASE(s->plan.trainable_bytes = 320, "are trainable")                                           \
    CASE(s->plan.parameter_bytes = -1, "the size of the parameters is -1")                         \
    CASE(s->plan.parameter_bytes = INT64_MAX, "the size of the parameters")                        \
    CASE(s->plan.model = text("../tiny"), "no identifier")                                         \
    CASE(s->kernels[0].name = text("scale it"), "no identifier")                                   \
    CASE(s->kernels[0].name = text("7scale"), "no identifier")                                     \
    CASE(s->kernels[1].name = text("scale"), "two kernels")                                        \
    CASE(s->kernels[0].library = "library_none", "calls 'library_none', which is no library")      \
    CASE(s->kernels[0].library = "finish", "which is no library")                                  \
    CASE(s->programs[1].name = text("train"), "two programs")                                      \
    CASE(s->steps[1].kernel = 3, "kernel 3 of 3")                                                  \
    CASE(s->steps[1].kernel = -1, "program 'train', step 1")                                       \
    CASE(s->steps[1].kernel = 2, "'library_help' cannot be run")                                   \
    CASE(s->steps[0].scratch = 128, "scratch")                                                     \
    CASE(s->buffers[0].offset = 256, "outside the 640 bytes of the activations")                   \
    CASE(s->buffers[0].offset = 100, "multiple of 64")                                             \
    CASE(s->buffers[0].offset = INT64_MIN, "outside")                                              \
    CASE(s->buffers[0].bytes = INT64_MAX, "outside")                                               \
    CASE(s->buffers[0].bytes = -1, "outside")                                                      \
    CASE(s->buffers[1].bytes = 256, "outside the 384 bytes of the moments")                        \
    CASE(s->buffers[2].slab = SLAB_COUNT, "unknown slab 7")                                        \
    CASE(s->programs[0].fixed_bytes = 64, "fixed data")                                            \
    CASE(s->programs[0].sample_bytes = (int64_t)1 << 60, "activations")                            \
    CASE(s->tensors[0].role = ROLE_METRIC, "two results are named 'image'")                        \
    CASE(s->tensors[0].dims[2] = 9, "does not fit")                                                \
    CASE(s->tensors[0].dims[2] = INT64_MAX, "does not fit")                                        \
    CASE(s->tensors[0].batched = false, "wrong slab")                                              \
    CASE(s->tensors[1].type = 2, "unknown type 2")                                                 \
    CASE(s->targets[1].name = text("host"), "has 2 launches")                                      \
    CASE(s->targets[1].name = text("cuda tf32"), "no identifier")                                  \
    CASE(s->targets[0].name = text("cuda-fp32"), "has 0 launches")                                 \
    CASE(s->cuda_steps[0].n_launches = 0, "has 0 launches")                                            \
    CASE(s->cuda_steps[0].kernel = 0, "its first launch's 1")                                          \
    CASE(s->launches[1].kernel = 7, "kernel 7 of 4")                                               \
    CASE(s->launches[1].kernel = 2, "'library_help' cannot be run")                                \
    CASE(s->launches[0].threads = 0, "0 threads")                                                  \
    CASE(s->launches[0].threads = 1025, "1025 threads")                                            \
    CASE(s->launches[0].threads = -1, "threads")                                                   \
    CASE(s->launches[1].blocks = 0, "0 blocks")                                                    \
    CASE(s->launches[1].blocks = -1, "blocks is -1")                                               \
    CASE(s->launches[1].blocks = (int64_t)1 << 31, "2147483648 blocks")                            \
    CASE(s->launches[0].blocks_per_sample = INT64_MAX, "blocks a sample")                          \
    CASE(s->launches[0].shared_bytes = 1 << 21, "2097152 bytes of shared memory")                  \
    CASE(s->launches[0].shared_bytes = -1, "the shared memory is -1")                              \
    CASE(s->sizes[0] = (int64_t)1 << 31, "does not fit 32 bits")                                   \
    CASE(s->cuda_steps[1].n_sizes = 7, "no product of matrices")                                   \
    CASE(s->cuda_steps[1].n_buffers = 2, "no product of matrices")                                 \
    CASE(s->matmul[MATMUL_COLUMNS] = -4, "no product of matrices")                                 \
    CASE(s->matmul[MATMUL_B_TRANSPOSED] = 2, "no product of matrices")                             \
    CASE(s->matmul[MATMUL_COLUMNS] = 5, "outside its buffer")                                      \
    CASE(s->matmul[MATMUL_COLUMNS] = 0, "outside its buffer")                                      \
    CASE(s->matmul[MATMUL_DEPTH] = INT32_MAX, "outside its buffer")                                \
    CASE(s->matmul[MATMUL_DEPTH_PER_SAMPLE] = 1, "outside its buffer")                             \
    CASE(s->matrices[2].slab = SLAB_PARAMETERS, "outside its buffer")                              \
    CASE(s->steps[0].group = 1 << 25, "its group is 33554432")                                     \
    CASE(s->nodes[1].group = -2, "its group is 4294967294")                                        \
    CASE(s->inputs[0] = 1, "node 1 is no operand of node 1")                                       \
    CASE(s->inputs[0] = -1, "is no operand of node 1")                                             \
    CASE(s->nodes[0].buffer.bytes = 704, "outside the 640 bytes of the activations")               \
    CASE((s->nodes[0].n_inputs = 2, s->nodes[0].inputs = s->inputs), "program 'train', node 0")

static void expect_refused(const Sample *sample, const char *change, const char *want)
{
    size_t size;
    Error error;
    void *bytes = plan_bytes_make(&sample->plan, &size);
    Plan *plan = read_back(bytes, size, &error);
    check(!plan && strstr(error.text, want), "%s: got '%s', want '%s'", change,
          plan ? "" : error.text, want);
    plan_close(plan);
    free(bytes);
}

static void test_checks(void)
{
    Sample sample, *s = &sample;
#define CASE(change, want) make_sample(s); change; expect_refused(s, #change, want);
    CASES
#undef CASE
}

/* ---- files ----------------------------------------------------------------------------------- */

static void test_files(void)
{
    char folder[] = "/tmp/test-plan-XXXXXX", path[64];
    Sample sample;
    Error error;
    make_sample(&sample);
    if (!mkdtemp(folder)) {
        check(false, "mkdtemp: %s", strerror(errno));
        return;
    }
    snprintf(path, sizeof path, "%s/tiny.plan", folder);
    FILE *messages = tmpfile();
    Compilation compilation = { .arena = arena_open(), .messages = messages };
    check(write_plan(&compilation, &sample.plan, path), "writing %s", path);
    Plan *plan = plan_open(path, &error);
    check(plan && !plan->foreign && strcmp(plan->file, path) == 0, "opening what was written");
    plan_close(plan);
    check(write_plan(&compilation, &sample.plan, "/dev/null"), "writing to /dev/null");
    struct stat facts;
    check(stat("/dev/null", &facts) == 0 && S_ISCHR(facts.st_mode), "/dev/null was replaced");
    check(!write_plan(&compilation, &sample.plan, "/nowhere/tiny.plan") && ftell(messages) > 0,
          "writing into a folder that is not there");
    check(!plan_open("/nowhere/tiny.plan", &error) && strstr(error.text, "/nowhere/tiny.plan")
          && error.hint[0], "opening what is not there: %s", error.text);
    check(!plan_open(folder, &error) && strstr(error.text, "a folder"), "opening a folder: %s",
          error.text);
    if (geteuid() == 0 && chown(path, 12345, 12345) == 0) {
        plan = plan_open(path, &error);
        check(plan && plan->foreign, "another user's plan is not recognised");
        plan_close(plan);
    }
    unlink(path);
    check(rmdir(folder) == 0, "something was left in %s", folder);
    arena_close(compilation.arena);
    fclose(messages);
}

int main(void)
{
    test_round_trip();
    test_damage();
    test_malice();
    test_checks();
    test_files();
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
