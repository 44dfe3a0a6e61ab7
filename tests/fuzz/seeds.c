/* Seeds for the fuzzers that no program writes as they are needed.
 *
 *   seeds plan IN OUT        a plan whose kernels' texts are a line each: small, so that changes
 *                            fall on its tables
 *   seeds weights PLAN OUT   weights of a plan, all 0.5, for an export to ONNX
 *   seeds pictures FOLDER    PNG and JPEG files of the kinds that the decoders tell apart
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

#include "compiler/seg.h"
#include "runtime/run.h"

static int complain(const Error *error)
{
    fprintf(stderr, "seeds: %s\n", error->text);
    return 3;
}

static int small_plan(Plan *plan, const char *path, Error *error)
{
    for (int t = 0; t < plan->n_targets; t++) {
        PlanTarget *target = &plan->targets[t];
        target->prelude = "/* prelude */\n";
        for (int k = 0; k < target->n_kernels; k++) {
            target->kernels[k].header = "/* header */\n";
            target->kernels[k].body = k % 2 ? "/* body */\n/* tail */\n" : "/* tail */\n";
        }
    }
    size_t size;
    void *bytes = plan_bytes_make(plan, &size);
    bool done = file_write(path, bytes, size, error);
    free(bytes);
    return done ? 0 : complain(error);
}

static int half_weights(const Plan *plan, const char *path, Error *error)
{
    SafeTensors file = {.tensors = calloc((size_t)plan->n_parameters + 1, sizeof(SafeTensor))};
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        int64_t count = params_count(parameter);
        float *floats = malloc((size_t)count * sizeof *floats);
        for (int64_t k = 0; k < count; k++)
            floats[k] = 0.5f;
        SafeTensor *tensor = &file.tensors[file.n_tensors++];
        *tensor = (SafeTensor){.name = parameter->name, .type = PLAN_F32, .dtype = "F32",
                               .rank = parameter->rank, .data = floats, .bytes = 4 * count};
        memcpy(tensor->dims, parameter->dims, sizeof parameter->dims);
    }
    bool done = safetensors_write(path, &file, error);
    for (int i = 0; i < file.n_tensors; i++)
        free((void *)file.tensors[i].data);
    free(file.tensors);
    return done ? 0 : complain(error);
}

/* ---- pictures -------------------------------------------------------------------------------- */

enum { SIDE = 24 };
static uint8_t pixels[SIDE * SIDE * 8];

static void write_jpeg(const char *path, int components, bool progressive, int restart)
{
    struct jpeg_compress_struct job;
    struct jpeg_error_mgr errors;
    FILE *file = fopen(path, "wb");
    if (!file)
        exit(3);
    job.err = jpeg_std_error(&errors);
    jpeg_create_compress(&job);
    jpeg_stdio_dest(&job, file);
    job.image_width = job.image_height = SIDE;
    job.input_components = components;
    job.in_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&job);
    job.restart_interval = (unsigned)restart;
    if (progressive)
        jpeg_simple_progression(&job);
    jpeg_start_compress(&job, TRUE);
    for (int y = 0; y < SIDE; y++) {
        JSAMPROW row = pixels + y * SIDE * components;
        jpeg_write_scanlines(&job, &row, 1);
    }
    jpeg_finish_compress(&job);
    jpeg_destroy_compress(&job);
    fclose(file);
}

static void write_png(const char *path, png_uint_32 format)
{
    static uint8_t colours[4 * 256];
    png_image image = {.version = PNG_IMAGE_VERSION, .width = SIDE, .height = SIDE,
                       .format = format, .colormap_entries = 64};
    for (int i = 0; i < SIDE * SIDE && (format & PNG_FORMAT_FLAG_COLORMAP); i++)
        pixels[i] &= 63;
    if (!png_image_write_to_file(&image, path, 0, pixels, 0, colours))
        exit(3);
}

static int pictures(const char *folder)
{
    static const png_uint_32 formats[] = {PNG_FORMAT_GRAY, PNG_FORMAT_GA, PNG_FORMAT_RGB,
        PNG_FORMAT_RGBA, PNG_FORMAT_LINEAR_Y, PNG_FORMAT_LINEAR_RGB_ALPHA, PNG_FORMAT_RGB_COLORMAP,
        PNG_FORMAT_RGBA_COLORMAP};
    char path[4096];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * i >> 5);
    for (int i = 0; i < 8; i++) {
        const int components[] = {1, 3, 4, 3}, n = components[i % 4];
        snprintf(path, sizeof path, "%s/%d.jpg", folder, i);
        write_jpeg(path, n, i > 3, i % 4 == 3 ? 2 : 0);
    }
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        snprintf(path, sizeof path, "%s/%zu.png", folder, i);
        write_png(path, formats[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    Error error = {0};
    if (argc == 3 && !strcmp(argv[1], "pictures"))
        return pictures(argv[2]);
    if (argc != 4 || (strcmp(argv[1], "plan") && strcmp(argv[1], "weights")))
        return fprintf(stderr, "usage: seeds plan IN OUT | weights PLAN OUT | pictures FOLDER\n"), 2;
    Plan *plan = plan_open(argv[2], &error);
    if (!plan)
        return complain(&error);
    int code = !strcmp(argv[1], "plan") ? small_plan(plan, argv[3], &error)
                                        : half_weights(plan, argv[3], &error);
    plan_close(plan);
    return code;
}
