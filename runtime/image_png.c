/* PNG, through libpng: palette expanded, 16 bits cut to the high 8, alpha dropped, not blended.
 *
 * Where class numbers are wanted (trimaps), a palette's indices and the samples of 1, 2 and 4 bits
 * stay what they are. The chunk after the last row is not asked for: a file cut there has all its
 * pixels. Errors leave the library by longjmp: see image_jpeg.c for the pattern. Files are written
 * from memory in one piece, so that a full disk leaves no half of a picture.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "data.h"

typedef struct {
    png_structp png;
    png_infop info;
    const uint8_t *bytes;       /* being read */
    size_t size, at;
    uint8_t *written;           /* being written; grows */
    size_t written_size, capacity;
    png_bytep *rows;
    Image *image;               /* NULL when writing */
    const char *path;
    Error *error;
} Job;

static void on_error(png_structp png, png_const_charp text)
{
    Job *job = png_get_error_ptr(png);
    fail(job->error, EXIT_USER, "", "%s: broken PNG: %s", job->path, text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    Job *job = png_get_error_ptr(png);
    if (job->image == NULL || job->image->warnings++ > 0) return;
    snprintf(job->image->warning, sizeof job->image->warning, "%s", text);
}

static void read_bytes(png_structp png, png_bytep out, size_t count)
{
    Job *job = png_get_io_ptr(png);
    if (count > job->size - job->at) png_error(png, "the file ends too early");
    memcpy(out, job->bytes + job->at, count);
    job->at += count;
}

static void write_bytes(png_structp png, png_bytep in, size_t count)
{
    Job *job = png_get_io_ptr(png);
    if (count > job->capacity - job->written_size) {
        size_t capacity = 2 * job->capacity + count;
        uint8_t *grown = realloc(job->written, capacity);
        if (grown == NULL) png_error(png, "not enough memory");
        job->written = grown;
        job->capacity = capacity;
    }
    memcpy(job->written + job->written_size, in, count);
    job->written_size += count;
}

static void flush_bytes(png_structp png)
{
    (void)png;                  /* memory needs none */
}

static bool make_rows(Job *job, const uint8_t *pixels, int height, size_t stride)
{
    job->rows = malloc((size_t)height * sizeof *job->rows);
    if (job->rows == NULL)
        return fail(job->error, EXIT_ENVIRONMENT, "", "%s: not enough memory", job->path);
    for (int y = 0; y < height; y++) job->rows[y] = (png_bytep)(pixels + (size_t)y * stride);
    return true;
}

static void set_transforms(Job *job, bool classes)
{
    int type = png_get_color_type(job->png, job->info);
    int depth = png_get_bit_depth(job->png, job->info);
    if (depth == 16) png_set_strip_16(job->png);
    if (classes && depth < 8)
        png_set_packing(job->png);
    else if (type == PNG_COLOR_TYPE_GRAY && depth < 8)
        png_set_expand_gray_1_2_4_to_8(job->png);
    bool expanded = type == PNG_COLOR_TYPE_PALETTE && !classes;
    if (expanded) png_set_palette_to_rgb(job->png);
    if (expanded || (type & PNG_COLOR_MASK_ALPHA)) png_set_strip_alpha(job->png);
    png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
}

static bool decode(Job *job, bool classes)
{
    if (setjmp(png_jmpbuf(job->png)) != 0) return false;
    png_set_read_fn(job->png, job, read_bytes);
    png_read_info(job->png, job->info);
    int64_t width = png_get_image_width(job->png, job->info);
    int64_t height = png_get_image_height(job->png, job->info);
    if (classes && png_get_bit_depth(job->png, job->info) == 16)
        return fail(job->error, EXIT_USER, "save it with 8 bits: a value a pixel, from 0 to 255",
                    "%s: a mask with 16 bits a value", job->path);
    set_transforms(job, classes);
    int channels = png_get_channels(job->png, job->info);
    if (channels != 1 && channels != 3)
        return fail(job->error, EXIT_USER, "", "%s: a PNG of %d channels", job->path, channels);
    if (!image_allocate(job->image, width, height, channels, job->path, job->error)) return false;
    if (png_get_rowbytes(job->png, job->info) != (size_t)width * (size_t)channels)
        return fail(job->error, EXIT_USER, "", "%s: a PNG with rows of an odd length", job->path);
    if (!make_rows(job, job->image->pixels, (int)height, (size_t)width * (size_t)channels))
        return false;
    png_read_image(job->png, job->rows);
    return true;
}

bool image_png_decode(const void *bytes, size_t size, const char *path, bool classes, Image *image,
                      Error *error)
{
    Job job = { .bytes = bytes, .size = size, .image = image, .path = path, .error = error };
    job.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning);
    job.info = job.png == NULL ? NULL : png_create_info_struct(job.png);
    bool decoded = job.info == NULL
        ? fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path)
        : decode(&job, classes);
    png_destroy_read_struct(&job.png, &job.info, NULL);
    free(job.rows);
    return decoded;
}

static void set_class_colours(Job *job)
{
    png_color palette[256];
    for (int i = 0; i < 256; i++) {
        uint32_t colour = class_colour(i);
        palette[i] = (png_color){ (png_byte)(colour >> 16), (png_byte)(colour >> 8 & 255),
                                  (png_byte)(colour & 255) };
    }
    png_set_PLTE(job->png, job->info, palette, 256);
}

static bool encode(Job *job, int width, int height, int type)
{
    if (setjmp(png_jmpbuf(job->png)) != 0) return false;
    png_set_write_fn(job->png, job, write_bytes, flush_bytes);
    png_set_IHDR(job->png, job->info, (png_uint_32)width, (png_uint_32)height, 8, type,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (type == PNG_COLOR_TYPE_PALETTE) set_class_colours(job);
    png_set_rows(job->png, job->info, job->rows);
    png_write_png(job->png, job->info, PNG_TRANSFORM_IDENTITY, NULL);
    return true;
}

static bool write_png(const char *path, const uint8_t *pixels, int width, int height, int type,
                      Error *error)
{
    Job job = { .path = path, .error = error };
    size_t channels = type == PNG_COLOR_TYPE_RGB ? 3 : 1;
    if (!make_rows(&job, pixels, height, (size_t)width * channels)) return false;
    job.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning);
    job.info = job.png == NULL ? NULL : png_create_info_struct(job.png);
    bool written = job.info == NULL
        ? fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path)
        : encode(&job, width, height, type)
          && file_write(path, job.written, job.written_size, error);
    png_destroy_write_struct(&job.png, &job.info);
    free(job.rows);
    free(job.written);
    return written;
}

bool image_write_png(const char *path, const uint8_t *pixels, int width, int height, int channels,
                     Error *error)
{
    return write_png(path, pixels, width, height,
                     channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, error);
}

bool image_write_classes(const char *path, const uint8_t *classes, int width, int height,
                         Error *error)
{
    return write_png(path, classes, width, height, PNG_COLOR_TYPE_PALETTE, error);
}
