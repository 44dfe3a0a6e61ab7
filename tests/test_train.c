/* Training, checkpoints and resuming, with a network of four numbers made by hand: p is the sigmoid
 * of a weighted sum of red, green and blue. Its plan needs no compiler of ours, its kernel does a
 * whole step, and it can be told to raise a signal in a given step, so that "in the middle of an
 * epoch" is exact. segrun itself is run, as a person runs it.
 *
 * The plan's kernel takes part of its learning rate from the step's seed, and keeps a running mean,
 * so that a resumed run shows it when the seed or a buffer is not restored. timeout: 300
 */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compiler/seg.h"
#include "runtime/commands.h"

enum { SIZE = 32, PIXELS = SIZE * SIZE, PICTURES = 32, OUTPUT = 65536 };

static int passed, failed;
static char segrun[4096];          /* the program under test */
static char output[OUTPUT];        /* what it printed last, both streams */

static void check(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void check(bool good, const char *format, ...)
{
    va_list arguments;
    good ? passed++ : failed++;
    if (good)
        return;
    printf("FAIL ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n%.1500s\n", output);
}

/* ---- the plan ---- */

static const char prelude[] =
    "#include <math.h>\n#include <signal.h>\n#include <stdint.h>\n#include <stdlib.h>\n"
    "#include <string.h>\n"
    "typedef struct { void *const *buffers; const int64_t *sizes; const double *scalars;\n"
    "    int64_t batch; int threads; char *scratch; int64_t scratch_bytes; } KernelArguments;\n"
    "typedef struct { double learning_rate, beta1, beta2, eps, weight_decay, clip, gradient_scale,\n"
    "    blends[3][2]; int64_t step; uint64_t seed; int64_t optimiser; } PlanState;\n"
    /* p of a pixel; `at` counts the pixels of a batch. */
    "static float pixel(const float *w, const uint8_t *x, int64_t at, int64_t pixels)\n"
    "{\n"
    "    const uint8_t *first = x + at / pixels * 3 * pixels + at % pixels;\n"
    "    float z = w[16];\n"
    "    for (int c = 0; c < 3; c++)\n"
    "        z += w[c] * (first[c * pixels] / 255.0f - 0.5f);\n"
    "    return 1 / (1 + expf(-z));\n"
    "}\n"
    "static float score(const float *p, const uint8_t *t, int64_t batch, int64_t pixels, float "
    "*sums)\n"
    "{\n"
    "    double loss = 0;\n"
    "    memset(sums, 0, 5 * sizeof *sums * batch);\n"
    "    for (int64_t at = 0; at < batch * pixels; at++) {\n"
    "        float *s = sums + 5 * (at / pixels);\n"
    "        loss -= log(t[at] ? p[at] : 1 - p[at]);\n"
    "        s[0] += p[at] >= 0.5f && t[at];\n"
    "        s[1] += p[at] >= 0.5f;\n"
    "        s[2] += t[at];\n"
    "        s[3] += p[at] * t[at];\n"
    "        s[4] += p[at];\n"
    "    }\n"
    "    return loss / (batch * pixels);\n"
    "}\n";

/* Buffers of all: parameters (weight, bias, running), image, probability; then mask, loss, sums;
 * then state, moments. */
static const char predict_body[] =
    "void tiny_predict(const KernelArguments *a)\n"
    "{\n"
    "    for (int64_t at = 0; at < a->batch * a->sizes[0]; at++)\n"
    "        ((float *)a->buffers[2])[at] = pixel(a->buffers[0], a->buffers[1], at, a->sizes[0]);\n"
    "}\n";
static const char evaluate_body[] =
    "void tiny_evaluate(const KernelArguments *a)\n"
    "{\n"
    "    float *p = a->buffers[2];\n"
    "    for (int64_t at = 0; at < a->batch * a->sizes[0]; at++)\n"
    "        p[at] = pixel(a->buffers[0], a->buffers[1], at, a->sizes[0]);\n"
    "    *(float *)a->buffers[4] = score(p, a->buffers[3], a->batch, a->sizes[0], a->buffers[5]);\n"
    "}\n";
static const char train_body[] =
    "void tiny_train(const KernelArguments *a)\n"
    "{\n"
    "    float *w = a->buffers[0], *p = a->buffers[2], *m = a->buffers[7], *v = m + 32;\n"
    "    const uint8_t *x = a->buffers[1], *t = a->buffers[3];\n"
    "    const PlanState *state = a->buffers[6];\n"
    "    int64_t pixels = a->sizes[0];\n"
    "    double slopes[4] = { 0 }, mean = 0;\n"
    "    const char *stop = getenv(\"TINY_STOP\");\n"
    "    if (stop && state->step == atoll(stop))\n"
    "        raise(SIGINT), getenv(\"TINY_TWICE\") ? raise(SIGINT) : 0;\n"
    "    for (int64_t at = 0; at < a->batch * pixels; at++) {\n"
    "        p[at] = pixel(w, x, at, pixels);\n"
    "        for (int c = 0; c < 3; c++)\n"
    "            slopes[c] += (p[at] - t[at])\n"
    "                * (x[at / pixels * 3 * pixels + c * pixels + at % pixels] / 255.0 - 0.5);\n"
    "        slopes[3] += p[at] - t[at];\n"
    "        mean += p[at];\n"
    "    }\n"
    "    *(float *)a->buffers[4] = score(p, t, a->batch, pixels, a->buffers[5]);\n"
    "    double rate = state->learning_rate * (1 + state->seed % 1000 / 1000.0);\n"
    "    for (int i = 0; i < 4; i++) {\n"
    "        int k = i < 3 ? i : 16;\n"
    "        double g = slopes[i] / (a->batch * pixels);\n"
    "        m[k] = state->beta1 * m[k] + (1 - state->beta1) * g;\n"
    "        v[k] = state->beta2 * v[k] + (1 - state->beta2) * g * g;\n"
    "        w[k] -= rate * (m[k] / (1 - pow(state->beta1, state->step)))\n"
    "            / (sqrt(v[k] / (1 - pow(state->beta2, state->step))) + state->eps);\n"
    "    }\n"
    "    w[32] += 0.1f * ((float)(mean / (a->batch * pixels)) - w[32]);\n"
    "}\n";

enum { IMAGE_AT = 0, PROBABILITY_AT = 3 * PIXELS, MASK_AT = 7 * PIXELS, SUMS_AT = 8 * PIXELS };

static PlanTensor tensors[] = {
    { (char *)"image", ROLE_INPUT, PLAN_U8, true, { 3, SIZE, SIZE },
      { SLAB_ACTIVATIONS, IMAGE_AT, 3 * PIXELS } },
    { (char *)"probability", ROLE_OUTPUT, PLAN_F32, true, { 1, SIZE, SIZE },
      { SLAB_ACTIVATIONS, PROBABILITY_AT, 4 * PIXELS } },
    { (char *)"mask", ROLE_TARGET, PLAN_U8, true, { 1, SIZE, SIZE },
      { SLAB_ACTIVATIONS, MASK_AT, PIXELS } },
    { (char *)"loss", ROLE_LOSS, PLAN_F32, false, { 1, 1, 1 }, { SLAB_FIXED, 128, 64 } },
    { (char *)"dice", ROLE_METRIC, PLAN_F32, true, { 5, 1, 1 }, { SLAB_ACTIVATIONS, SUMS_AT, 64 } },
};
static PlanBuffer buffers[] = {
    { SLAB_PARAMETERS, 0, 192 },
    { SLAB_ACTIVATIONS, IMAGE_AT, 3 * PIXELS },
    { SLAB_ACTIVATIONS, PROBABILITY_AT, 4 * PIXELS },
    { SLAB_ACTIVATIONS, MASK_AT, PIXELS },
    { SLAB_FIXED, 128, 64 },
    { SLAB_ACTIVATIONS, SUMS_AT, 64 },
    { SLAB_FIXED, 0, 128 },
    { SLAB_MOMENTS, 0, 256 },
};

static PlanProgram make_program(const char *name, int kernel, int n_tensors, int n_buffers)
{
    static int64_t pixels = PIXELS;
    PlanStep *step = calloc(1, sizeof *step);
    *step = (PlanStep){ .kernel = kernel, .n_buffers = n_buffers, .buffers = buffers, .n_sizes = 1,
                        .sizes = &pixels, .flops_per_sample = 20.0 * PIXELS,
                        .bytes_per_sample = 8.0 * PIXELS, .label = (char *)name };
    return (PlanProgram){ .name = (char *)name,
                          .n_tensors = n_tensors,
                          .tensors = tensors,
                          .n_steps = 1,
                          .steps = step,
                          .fixed_bytes = 192,
                          .sample_bytes = SUMS_AT + 64 };
}

/* `kernel`: side of the weight [1,3,kernel,kernel]; another one makes another model. */
static bool make_plan(const char *path, int kernel, const char *bias)
{
    PlanKernel kernels[] = {
        { (char *)"tiny_train", (char *)"", (char *)train_body, NULL, NULL },
        { (char *)"tiny_evaluate", (char *)"", (char *)evaluate_body, NULL, NULL },
        { (char *)"tiny_predict", (char *)"", (char *)predict_body, NULL, NULL },
    };
    PlanProgram programs[] = { make_program("train", 0, 5, 8), make_program("evaluate", 1, 5, 6),
                               make_program("predict", 2, 2, 3) };
    PlanTarget target = { .name = (char *)"host", .prelude = (char *)prelude, .n_kernels = 3,
                          .kernels = kernels, .n_programs = 3, .programs = programs };
    PlanParameter parameters[] = {
        { (char *)"head.weight",
          4,
          { 1, kernel == 1 ? 3 : 1, kernel, kernel },
          true,
          PLAN_INIT_UNIFORM,
          0.5,
          0,
          NULL },
        { (char *)bias, 1, { 1 }, true, PLAN_INIT_CONSTANT, 0, 64, NULL },
        { (char *)"running_mean", 1, { 1 }, false, PLAN_INIT_CONSTANT, 0.5, 128, NULL },
    };
    Plan plan = { .model = (char *)"tiny", .path = (char *)"tiny.seg",
                  .text = (char *)(kernel == 1 ? "model tiny\n" : "model larger\n"),
                  .options = (char *)"", .parameter_bytes = 192, .trainable_bytes = 128,
                  .n_parameters = 3, .parameters = parameters, .n_targets = 1, .targets = &target };
    Compilation compilation = { .arena = arena_open(), .messages = stderr };
    bool written = write_plan(&compilation, &plan, path);
    arena_close(compilation.arena);
    for (int i = 0; i < 3; i++)
        free(programs[i].steps);
    return written;
}

/* ---- running segrun ---- */

static char *words_of(const char *line, char **words, int most)
{
    char *copy = strdup(line), *state;
    int n = 0;
    words[n++] = segrun;
    for (char *word = strtok_r(copy, " ", &state); word && n < most - 1;
         word = strtok_r(NULL, " ", &state))
        words[n++] = word;
    words[n] = NULL;
    return copy;
}

/* Starts it with both streams in the file "output". limit: the largest file it may write; 0: any.
 */
static pid_t start(const char *line, rlim_t limit)
{
    char *words[64], *copy = words_of(line, words, 64);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int out = open("output", O_WRONLY | O_CREAT | O_TRUNC, 0666);
        dup2(out, 1);
        dup2(out, 2);
        struct rlimit file_size = { limit, limit };
        if (limit)
            setrlimit(RLIMIT_FSIZE, &file_size);
        execv(segrun, words);
        _exit(127);
    }
    free(copy);
    return pid;
}

static int finish(pid_t pid)
{
    int status;
    waitpid(pid, &status, 0);
    FILE *in = fopen("output", "rb");
    size_t n = in ? fread(output, 1, OUTPUT - 1, in) : 0;
    output[n] = 0;
    if (in)
        fclose(in);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *format, ...)
{
    char line[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    return finish(start(line, 0));
}

static bool exists(const char *path)
{
    return access(path, R_OK) == 0;
}

/* ---- comparing ---- */

static bool load_state(const char *path, RunState *state)
{
    Error error = { 0 };
    SafeTensors *file = safetensors_open(path, &error);
    bool loaded = file && checkpoint_state(file, state, &error);
    if (file)
        safetensors_close(file);
    if (!loaded)
        printf("     %s\n", error.text);
    return loaded;
}

/* Everything but the times. */
static bool same_curves(const char *a, const char *b)
{
    RunState x, y;
    if (!load_state(a, &x) || !load_state(b, &y))
        return false;
    bool same = x.n_rows == y.n_rows && x.step == y.step && x.best_dice == y.best_dice
                && x.best_epoch == y.best_epoch && x.epoch == y.epoch;
    for (int i = 0; same && i < x.n_rows; i++)
        same = memcmp(&x.rows[i].train_loss, &y.rows[i].train_loss, 4 * sizeof(double)) == 0
               && x.rows[i].best == y.rows[i].best;
    run_state_close(&x);
    run_state_close(&y);
    return same;
}

static bool same_tensors(const char *a, const char *b)
{
    Error error = { 0 };
    SafeTensors *x = safetensors_open(a, &error), *y = safetensors_open(b, &error);
    bool same = x && y && x->n_tensors == y->n_tensors && x->n_tensors == 7;
    for (int i = 0; same && i < x->n_tensors; i++)
        same = strcmp(x->tensors[i].name, y->tensors[i].name) == 0
               && x->tensors[i].bytes == y->tensors[i].bytes
               && memcmp(x->tensors[i].data, y->tensors[i].data, (size_t)x->tensors[i].bytes) == 0;
    if (x)
        safetensors_close(x);
    if (y)
        safetensors_close(y);
    return same;
}

static bool same_files(const char *a, const char *b)
{
    Error error = { 0 };
    size_t n, m;
    char *x = file_read(a, &n, &error), *y = file_read(b, &m, &error);
    bool same = x && y && n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

static void check_same_run(const char *folder, const char *what)
{
    char last[256], best[256];
    snprintf(last, sizeof last, "%s/tiny.last.safetensors", folder);
    snprintf(best, sizeof best, "%s/tiny.best.safetensors", folder);
    check(same_tensors(last, "whole/tiny.last.safetensors"), "%s: the same last bits", what);
    check(same_tensors(best, "whole/tiny.best.safetensors"), "%s: the same best bits", what);
    check(same_curves(last, "whole/tiny.last.safetensors"), "%s: the same curves", what);
}

static int count_lines(const char *path)
{
    Error error;
    size_t n;
    char *text = file_read(path, &n, &error);
    int lines = 0;
    for (size_t i = 0; text && i < n; i++)
        lines += text[i] == '\n';
    free(text);
    return lines;
}

/* ---- the tests ---- */

#define RECIPE "--data pets -b 4 --lr 0.02 --seed 7 "

static void test_whole_run(void)
{
    check(run("train tiny.plan " RECIPE "-e 4 -p whole") == 0, "train four epochs");
    static const char *const files[] = { "whole/tiny.best.safetensors",
                                         "whole/tiny.last.safetensors",
                                         "whole/log.csv",
                                         "whole/loss.png",
                                         "whole/tiny.seg",
                                         "whole/command.txt" };
    for (int i = 0; i < 6; i++)
        check(exists(files[i]), "%s is there", files[i]);
    check(count_lines("whole/log.csv") == 5, "log.csv has a row an epoch");
    RunState state;
    bool loaded = load_state("whole/tiny.last.safetensors", &state);
    check(loaded && state.epoch == 4 && state.step == 24 && state.n_rows == 4 && state.batch == 4
              && state.batch_in_epoch == 0 && state.seed == 7,
          "the checkpoint says where the run stands");
    check(loaded && state.rows[3].train_loss < state.rows[0].train_loss, "the loss falls");
    run_state_close(&state);
    check(run("train tiny.plan " RECIPE "-e 4 -p again -q --threads 1 --workers 3") == 0,
          "once more");
    check_same_run("again", "another number of threads and workers");
    Image image;
    Error error;
    bool read = image_read("whole/loss.png", IMAGE_RGB, &image, &error);
    check(read && image.width > 600, "loss.png is a picture");
    if (read)
        image_close(&image);
}

static void test_resume(void)
{
    check(run("train tiny.plan " RECIPE "-e 1 -p parts") == 0, "one epoch");
    check(run("train tiny.plan --data pets -r parts/tiny.last.safetensors -e 4 -p parts") == 0,
          "three more");
    check(strstr(output, "--epochs 4 from the command line; the checkpoint had 1") != NULL,
          "what differs is said");
    check_same_run("parts", "resumed after an epoch");
    check(count_lines("parts/log.csv") == 5, "log.csv is complete after resuming");
    check(run("train tiny.plan --data pets -r parts/tiny.last.safetensors -p parts") == 0
              && strstr(output, "all 4 epochs are done"), "nothing left to do");
}

static void test_interrupts(void)
{
    static const int steps[] = { 1, 3, 6, 7, 12, 17, 24 };
    for (int i = 0; i < 7; i++) {
        char folder[64], text[16];
        snprintf(folder, sizeof folder, "stop-%d", steps[i]);
        snprintf(text, sizeof text, "%d", steps[i]);
        setenv("TINY_STOP", text, 1);
        check(run("train tiny.plan " RECIPE "-e 4 -p %s", folder) == 130, "step %d: exit code 130",
              steps[i]);
        check(strstr(output, "To go on:") != NULL, "step %d: says how to go on", steps[i]);
        unsetenv("TINY_STOP");
        RunState state;
        char last[128];
        snprintf(last, sizeof last, "%s/tiny.last.safetensors", folder);
        bool loaded = load_state(last, &state);
        check(loaded && state.step == steps[i], "step %d: was finished and saved", steps[i]);
        run_state_close(&state);
        check(run("train tiny.plan --data pets -r %s -p %s", last, folder) == 0, "step %d: goes on",
              steps[i]);
        check_same_run(folder, folder);
    }
}

static void test_other_interrupts(void)
{
    setenv("TINY_STOP", "3", 1);
    check(run("train tiny.plan " RECIPE "-e 4 -p changed") == 130, "stopped in an epoch");
    setenv("TINY_TWICE", "y", 1);
    check(run("train tiny.plan " RECIPE "-e 4 -p twice") == 130
              && !exists("twice/tiny.last.safetensors"), "a second Ctrl-C exits at once");
    unsetenv("TINY_STOP");
    unsetenv("TINY_TWICE");
    check(run("train tiny.plan --data pets -r changed/tiny.last.safetensors -b 5 -p changed") == 0
              && strstr(output, "--batch 5 from the command line; the checkpoint had 4")
              && strstr(output, "the unfinished epoch 1 begins again"),
          "another batch: the epoch begins again, and that is said");
    check(system("cp -r pets copied") == 0, "the data set copied");
    check(run("train tiny.plan --data copied -r parts/tiny.last.safetensors -e 5 -p parts") == 0
              && !strstr(output, "warning"), "a copied data set is the same data set");
    pid_t pid = start("train tiny.plan " RECIPE "-e 100000 -p twice -q", 0);
    for (int i = 0; i < 500 && !exists("twice/tiny.last.safetensors"); i++)
        usleep(20000);
    kill(pid, SIGTERM);
    check(finish(pid) == 130, "SIGTERM: exit code 130");
    check(run("info twice/tiny.last.safetensors") == 0, "SIGTERM: the checkpoint can be read");
}

static void test_kill(void)
{
    int readable = 0, tries = 8;
    for (int i = 0; i < tries; i++) {
        check(system("rm -rf killed") == 0, "an empty folder");
        pid_t pid = start("train tiny.plan " RECIPE "-e 100000 -p killed -q", 0);
        for (int k = 0; k < 500 && !exists("killed/tiny.last.safetensors"); k++)
            usleep(10000);
        usleep((useconds_t)(7000 * i));
        kill(pid, SIGKILL);
        finish(pid);
        RunState state;
        bool last = load_state("killed/tiny.last.safetensors", &state);
        run_state_close(&state);
        bool best = load_state("killed/tiny.best.safetensors", &state);
        run_state_close(&state);
        readable += last && best;
    }
    check(readable == tries, "kill -9: %d of %d times both checkpoints can be read", readable,
          tries);
    RunState state;
    if (!load_state("killed/tiny.last.safetensors", &state))
        return;
    int epochs = state.epoch + 2;
    run_state_close(&state);
    check(run("train tiny.plan --data pets -r killed/tiny.last.safetensors -e %d -p killed -q",
              epochs)
              == 0,
          "kill -9: goes on");
    check(run("train tiny.plan " RECIPE "-e %d -p straight -q", epochs) == 0, "the same without");
    check(same_tensors("killed/tiny.last.safetensors", "straight/tiny.last.safetensors"),
          "kill -9 and going on: the same bits");
}

static void test_bad_folders(void)
{
    FILE *file = fopen("file", "w");
    fclose(file);
    check(run("train tiny.plan " RECIPE "-e 1 -p file/below") == 3, "a folder that cannot be made");
    check(run("train tiny.plan " RECIPE "-e 1 -p /proc/segrun") == 3,
          "a file system without writing");
    if (geteuid() != 0) {
        mkdir("closed", 0500);
        check(run("train tiny.plan " RECIPE "-e 1 -p closed") == 3 && strstr(output, "--folder"),
              "a read-only folder");
    }
    check(run("train tiny.plan " RECIPE "-e 1 -p full -q") == 0, "one epoch in a folder");
    check(system("cp -r full full-before") == 0, "a copy");
    pid_t pid =
        start("train tiny.plan --data pets -r full/tiny.last.safetensors -e 3 -p full", 900);
    check(finish(pid) == 3, "no space while saving: exit code 3");
    check(strstr(output, "last good checkpoint") != NULL,
          "no space: names the last good checkpoint");
    check(same_files("full/tiny.last.safetensors", "full-before/tiny.last.safetensors"),
          "no space: the last good checkpoint is untouched");
}

static void damage(const char *from, const char *to, long keep, long at)
{
    Error error;
    size_t n;
    char *bytes = file_read(from, &n, &error);
    if (!bytes)
        return;
    if (at >= 0)
        bytes[at] ^= 0x5a;
    file_write(to, bytes, keep >= 0 && (size_t)keep < n ? (size_t)keep : n, &error);
    free(bytes);
}

static void test_bad_checkpoints(void)
{
    static const long lengths[] = { 0, 5, 8, 100, 1500 };
    for (int i = 0; i < 5; i++) {
        damage("whole/tiny.last.safetensors", "short.safetensors", lengths[i], -1);
        check(run("train tiny.plan --data pets -r short.safetensors -p p") == 1
                  && strstr(output, "short.safetensors"), "truncated to %ld bytes", lengths[i]);
    }
    for (long at = 0; at < 30; at += 3) {
        damage("whole/tiny.last.safetensors", "bent.safetensors", -1, at);
        int code = run("train tiny.plan --data pets -r bent.safetensors -p p");
        check(code == 1, "byte %ld changed: exit code %d", at, code);
    }
    check(run("train tiny.plan --data pets -r none.safetensors -p p") != 0, "no such checkpoint");
    check(run("train larger.plan --data pets -r whole/tiny.last.safetensors -p p") == 1
              && strstr(output, "head.weight"), "another shape is named");
    check(run("eval renamed.plan -m whole/tiny.last.safetensors --data pets") == 1
              && strstr(output, "head.bias") && strstr(output, "other.bias"),
          "other names are named");
    check(!exists("p/tiny.last.safetensors"), "none of them was saved over");
}

static void test_not_finite(void)
{
    check(run("train tiny.plan " RECIPE "-e 1 -p wild -q") == 0, "one good epoch");
    check(system("cp -r wild wild-before") == 0, "a copy");
    check(run("train tiny.plan --data pets -r wild/tiny.last.safetensors -e 9 --lr 1000 -p wild")
              == 1,
          "a loss that is no number stops with exit code 1");
    check(strstr(output, "epoch 2") && strstr(output, "step ") && strstr(output, "drawn_"),
          "it names epoch, step and pictures");
    check(same_files("wild/tiny.last.safetensors", "wild-before/tiny.last.safetensors"),
          "the last good checkpoint is untouched");
}

static void test_wrong_use(void)
{
    check(run("train tiny.plan " RECIPE "-b 5000 -p p") == 1 && strstr(output, "5000"),
          "batch too large");
    check(run("train tiny.plan -p p") == 2, "no --data");
    check(run("train tiny.plan --data pets -d cuda -p p") == 1 && strstr(output, "for cuda"),
          "-d cuda");
    check(run("train tiny.plan --data pets -lr nonsense -p p") == 2 && strstr(output, "--lr"),
          "-lr");
    check(run("train tiny.plan --data pets -r a -m b -p p") == 2, "-r and -m");
    check(run("train tiny.plan --data nowhere -p p") == 1, "no such data set");
    static const char *const commands[] = { "train", "eval",       "predict",   "bench",
                                            "info",  "data check", "data synth" };
    for (int i = 0; i < 7; i++) {
        int longest = 0;
        check(run("%s --help", commands[i]) == 0, "%s --help", commands[i]);
        for (char *line = output, *end; (end = strchr(line, '\n')); line = end + 1)
            longest = end - line > longest ? (int)(end - line) : longest;
        check(longest <= 100, "%s --help fits: %d columns", commands[i], longest);
    }
}

static void test_eval(void)
{
    check(run("eval tiny.plan -m whole/tiny.best.safetensors --data pets --split valid -b 4 --csv "
              "s.csv "
              "--plot y -o sheet.png --json s.json")
              == 0,
          "eval");
    RunState state;
    char headline[32];
    if (load_state("whole/tiny.best.safetensors", &state)) {
        snprintf(headline, sizeof headline, "Dice            %.4f", state.best_dice);
        check(strstr(output, headline) != NULL, "eval gives the Dice of the training: %s",
              headline);
        run_state_close(&state);
    }
    check(count_lines("s.csv") == 4, "a row a picture");
    check(exists("sheet.png") && exists("s.json"), "sheet and JSON");
    check(run("predict tiny.plan -m whole/tiny.best.safetensors pets/images two/pets -o out") != 0,
          "a folder that is not there");
    check(system("mkdir -p a b && cp pets/images/* a && cp pets/images/* b") == 0, "folders");
    check(run("predict tiny.plan -m whole/tiny.best.safetensors a b -o out") == 0, "two folders");
    int files = 0;
    FILE *found = popen("find out -type f | wc -l", "r");
    check(found && fscanf(found, "%d", &files) == 1, "find");
    if (found)
        pclose(found);
    check(files == 2 * 3 * PICTURES, "equal names do not overwrite each other: %d files", files);
    damage("whole/loss.png", "b/broken.png", 2000, -1);
    check(run("predict tiny.plan -m whole/tiny.best.safetensors b -o out") == 1
              && strstr(output, "broken.png"), "a broken picture stops");
    check(run("predict tiny.plan -m whole/tiny.best.safetensors b -o out --on-bad skip") == 0
              && strstr(output, "1 left out"), "or is left out");
    check(run("bench tiny.plan --program train --runs 3 --profile --json b.json") == 0, "bench");
    check(run("info tiny.plan -v") == 0 && run("info tiny.plan --json -") == 0, "info of a plan");
}

int main(int argc, char **argv)
{
    (void)argc;
    char here[4096], folder[] = "/tmp/test_train-XXXXXX";
    snprintf(here, sizeof here, "%s", realpath(argv[0], segrun) ? segrun : argv[0]);
    *strrchr(here, '/') = 0;
    snprintf(segrun, sizeof segrun, "%.4000s/../segrun", here);
    const char *given = getenv("SEGRUN");
    if (given)
        snprintf(segrun, sizeof segrun, "%s", given);
    if (!mkdtemp(folder) || chdir(folder) != 0)
        return 3;
    /* Under AddressSanitizer: what cairo's fonts keep until the end is not ours. */
    Error ignored;
    file_write("leaks", "leak:libfontconfig\n", 19, &ignored);
    setenv("LSAN_OPTIONS", "suppressions=leaks:print_suppressions=0", 0);
    bool ready = make_plan("tiny.plan", 1, "head.bias") && make_plan("larger.plan", 3, "head.bias")
                 && make_plan("renamed.plan", 1, "other.bias");
    check(ready, "plans");
    check(run("data synth pets --count %d --size 40 -q", PICTURES) == 0, "data synth");
    test_whole_run();
    test_resume();
    test_interrupts();
    test_other_interrupts();
    test_kill();
    test_bad_folders();
    test_bad_checkpoints();
    test_not_finite();
    test_wrong_use();
    test_eval();
    char remove[64];
    snprintf(remove, sizeof remove, "rm -rf %s", folder);
    if (failed == 0 && system(remove) != 0)
        printf("%s was not removed\n", folder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
