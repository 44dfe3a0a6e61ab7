/* Training on a GPU against training on the host: the same initial values, the same pictures, the
 * losses of the first steps and the gradients of the first, in float32, tf32 and bf16.
 *
 *   test_gpu_training                                 small networks, drawn pictures
 *   test_gpu_training PICTURES SIZE [STEPS [BATCH]]   whole networks; PICTURES is a file of
 *                                                     bench/pictures.c
 *
 * Gradients are read from Adam's first moments. Rounding decides here and there on which side of a
 * relu or a maximum a value falls, and training on multiplies that: limits of gradients and of
 * later losses are wide, the first loss's is not. Maps must not shrink to a pixel or two: batch norm
 * over so few values multiplies every difference.
 * timeout: 300   sanitize: no
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comparison.h"
#include "gpu.h"

enum { MAX_STEPS = 100 };

typedef struct {
    const char *target;
    double first_loss, losses, gradients; /* relative */
} Limit;
static const Limit limits[] = {
    {"cuda-fp32", 1e-5, 5e-3, 2e-2},
    {"cuda-tf32", 1e-3, 2e-2, 1e-1},
    {"cuda-bf16", 1e-2, 5e-2, 5e-1},
};

typedef struct { const char *name, *path; Define defines[2]; int n_defines; } Net;
typedef struct {
    int size, count, batch, steps;
    uint8_t *images, *masks;   /* [count][3][size][size], [count][1][size][size] */
} Pictures;
typedef struct {
    float losses[MAX_STEPS];
    float *moments;            /* after the first step; trainable_bytes of them */
    double seconds;            /* of a step, all but the first */
} Run;

static int passed, failed;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- pictures ------------------------------------------------------------------------------- */

/* A bright disc on a dark ground, and noise; the mask is the disc. */
static void draw(const Pictures *pictures, int index)
{
    int size = pictures->size, x0 = size / 4 + 7 * index % (size / 2), y0 = size / 3 + index;
    uint32_t noise = 12345u + (uint32_t)index;
    for (int i = 0; i < size * size; i++) {
        int dx = i % size - x0, dy = i / size - y0;
        bool inside = 9 * (dx * dx + dy * dy) < size * size;
        pictures->masks[index * size * size + i] = inside;
        for (int c = 0; c < 3; c++) {
            noise = noise * 1664525u + 1013904223u;
            pictures->images[(index * 3 + c) * size * size + i] =
                (uint8_t)((inside ? 140 : 40) + (noise >> 26));
        }
    }
}

static bool read_pictures(Pictures *pictures, const char *path)
{
    size_t bytes = 0, pixels = (size_t)pictures->size * (size_t)pictures->size;
    char *file = path ? file_read(path, &bytes, NULL) : NULL;
    if (path && (!file || bytes < 4 * pixels)) {
        printf("FAIL %s cannot be read\n", path);
        return false;
    }
    pictures->count = path ? (int)(bytes / (4 * pixels)) : 8;
    pictures->images = file ? (uint8_t *)file : malloc(4 * pixels * (size_t)pictures->count);
    pictures->masks = pictures->images + 3 * pixels * (size_t)pictures->count;
    for (int i = 0; !path && i < pictures->count; i++)
        draw(pictures, i);
    return pictures->images != NULL;
}

/* ---- training ------------------------------------------------------------------------------- */

static bool write_batch(Executor *executor, const PlanProgram *program, const Pictures *pictures,
                        int step, Error *error)
{
    int64_t pixels = (int64_t)pictures->size * pictures->size;
    int from = step * pictures->batch % (pictures->count - pictures->batch + 1);
    bool ok = true;
    for (int i = 0; ok && i < program->n_tensors; i++) {
        const PlanTensor *tensor = &program->tensors[i];
        if (tensor->role == ROLE_INPUT)
            ok = executor_write(executor, "train", tensor->name,
                                pictures->images + 3 * pixels * from, pictures->batch, error);
        else if (tensor->role == ROLE_TARGET)
            ok = executor_write(executor, "train", tensor->name, pictures->masks + pixels * from,
                                pictures->batch, error);
    }
    return ok;
}

static bool start(Executor *executor, const Plan *plan, Run *run, Error *error)
{
    char *values = calloc(1, (size_t)executor_slab_bytes(executor, SLAB_PARAMETERS) + 1);
    params_initialise(plan, 1, values);
    bool ok = executor_upload(executor, SLAB_PARAMETERS, values, error);
    free(values);
    run->moments = calloc(1, (size_t)executor_slab_bytes(executor, SLAB_MOMENTS) + 1);
    return ok;
}

static bool train(const Plan *plan, Device *device, const Pictures *pictures, Run *run,
                  Error *error)
{
    const PlanProgram *program = plan_program(plan_target(plan, device_target(device)), "train");
    Executor *executor = executor_open_for(plan, device, "train", pictures->batch, error);
    bool ok = executor && start(executor, plan, run, error);
    double begun = 0;
    for (int step = 0; ok && step < pictures->steps; step++) {
        *executor_state(executor) = (PlanState){.learning_rate = 1e-4, .beta1 = 0.9, .beta2 = 0.999,
                                                .eps = 1e-8, .step = step + 1};
        ok = write_batch(executor, program, pictures, step, error)
             && executor_run(executor, "train", pictures->batch, error)
             && executor_read(executor, "train", "loss", &run->losses[step], pictures->batch, error)
             && (step || executor_download(executor, SLAB_MOMENTS, run->moments, error));
        begun = step == 0 ? now() : begun;
    }
    run->seconds = (now() - begun) / (pictures->steps > 1 ? pictures->steps - 1 : 1);
    executor_close(executor);
    return ok;
}

static bool train_on(const char *target, const Net *net, const Pictures *pictures, Run *run,
                     int64_t *trainable)
{
    static Outcome outcome;
    Error error = {0};
    Case test = {.path = net->path, .defines = net->defines, .n_defines = net->n_defines,
                 .target = target, .plain_inputs = true};
    bool host = strcmp(target, "host") == 0;
    DeviceOptions options = {.name = "cpu"};
    Plan *plan = case_plan(&test, &outcome);
    Device *device = !plan ? NULL : host ? device_open(&options, &error)
                                         : gpu_open(target, true, &error);
    bool ok = device && train(plan, device, pictures, run, &error);
    if (!ok)
        printf("FAIL %s on %s: %s\n", net->name, target, plan ? error.text : outcome.problem);
    *trainable = plan ? plan->trainable_bytes : 0;
    device_close(device);
    if (plan)
        plan_close(plan);
    return ok;
}

/* ---- comparing ------------------------------------------------------------------------------ */

static void judge(bool good, const char *net, const char *target, const char *what, double error,
                  double limit)
{
    printf("%s%s, %s: %s differ%s by %.2e, allowed %.0e\n", good ? "" : "FAIL ", net, target, what,
           strcmp(what, "the first loss") == 0 ? "s" : "", error, limit);
    *(good ? &passed : &failed) += 1;
}

static double gradient_error(const Run *host, const Run *gpu, int64_t bytes)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < bytes / 4; i++) {
        double a = host->moments[i], b = gpu->moments[i];
        difference += (a - b) * (a - b);
        norm += a * a;
    }
    return sqrt(difference / norm);
}

static void compare(const Net *net, const Limit *limit, const Run *host, const Run *gpu, int steps,
                    int64_t trainable)
{
    double first = fabs((double)(gpu->losses[0] / host->losses[0] - 1)), worst = 0;
    for (int i = 1; i < steps; i++)
        worst = fmax(worst, fabs((double)(gpu->losses[i] / host->losses[i] - 1)));
    double gradients = gradient_error(host, gpu, trainable);
    judge(first <= limit->first_loss, net->name, limit->target, "the first loss", first,
          limit->first_loss);
    judge(worst <= limit->losses, net->name, limit->target, "later losses", worst, limit->losses);
    judge(gradients <= limit->gradients, net->name, limit->target, "gradients", gradients,
          limit->gradients);
}

static void print_losses(const char *name, const Run *run, int steps)
{
    printf("%-10s", name);
    for (int i = 0; i < steps; i++)
        printf("%s%.5f", i && i % 10 == 0 ? "\n           " : " ", (double)run->losses[i]);
    printf("  %.2f ms a step\n", 1e3 * run->seconds);
}

static void test_net(const Net *net, const Pictures *pictures)
{
    Run host = {.moments = NULL};
    int64_t trainable;
    bool ok = train_on("host", net, pictures, &host, &trainable);
    failed += !ok;
    printf("%s, %dx%d, batch %d\n", net->name, pictures->size, pictures->size, pictures->batch);
    if (ok)
        print_losses("host", &host, pictures->steps);
    for (int i = 0; ok && i < (int)(sizeof limits / sizeof *limits); i++) {
        Run gpu = {.moments = NULL};
        if (train_on(limits[i].target, net, pictures, &gpu, &trainable)) {
            print_losses(limits[i].target, &gpu, pictures->steps);
            compare(net, &limits[i], &host, &gpu, pictures->steps, trainable);
        } else {
            failed++;
        }
        free(gpu.moments);
    }
    free(host.moments);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!gpu_is_there())
        return 0;
    bool whole = argc > 2;
    char size[16];
    Pictures pictures = {.size = whole ? atoi(argv[2]) : 64, .batch = argc > 4 ? atoi(argv[4]) : 4,
                         .steps = argc > 3 ? atoi(argv[3]) : 5};
    if (pictures.steps < 1 || pictures.steps > MAX_STEPS
        || !read_pictures(&pictures, whole ? argv[1] : NULL) || pictures.batch < 1
        || pictures.batch > pictures.count) {
        printf("FAIL wrong arguments\n0 passed, 1 failed\n");
        return 1;
    }
    snprintf(size, sizeof size, "%d", pictures.size);
    const Net nets[] = {
        {"unet", "models/unet.seg", {{"size", size}, {"width", whole ? "64" : "8"}}, 2},
        {"resnet34_unet", "models/resnet34_unet.seg", {{"size", size}}, 1},
    };
    for (int i = 0; i < 2; i++)
        test_net(&nets[i], &pictures);
    free(pictures.images);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
