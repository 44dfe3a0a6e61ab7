/* JPEG, through libjpeg(-turbo) with its defaults: the slow integer transform and fancy upsampling,
 * which is what Pillow decodes with.
 *
 * Four components are CMYK with Adobe's inverted polarity, converted as Pillow converts them. A
 * file that ends early is an error, as in Pillow; other damage the library gets over is a warning.
 * Errors leave the library by longjmp: everything that must survive the jump lives in a Job owned
 * by a function that does not call setjmp.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "data.h"

enum { MAX_SCANS = 500, ROWS_AT_ONCE = 16, MAX_MEMORY = 1 << 30 };

typedef struct {
    struct jpeg_error_mgr errors;          /* first: the library hands this back */
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    struct jpeg_decompress_struct decoder;
    struct jpeg_compress_struct encoder;
    uint8_t *row;                          /* of CMYK */
    unsigned char *encoded;
    unsigned long encoded_size;
    Image *image;                          /* NULL when encoding */
    const char *path;
    Error *error;
} Job;

static void on_error(j_common_ptr common)
{
    Job *job = (Job *)common->err;
    char text[JMSG_LENGTH_MAX];
    common->err->format_message(common, text);
    fail(job->error, EXIT_USER, "", "%s: broken JPEG: %s", job->path, text);
    longjmp(job->jump, 1);
}

static void on_message(j_common_ptr common, int level)
{
    Job *job = (Job *)common->err;
    if (level >= 0) return;
    if (common->err->msg_code == JWRN_JPEG_EOF) {
        fail(job->error, EXIT_USER, "", "%s: truncated JPEG: the file ends too early", job->path);
        longjmp(job->jump, 1);
    }
    if (job->image == NULL || job->image->warnings++ > 0) return;
    char text[JMSG_LENGTH_MAX];
    common->err->format_message(common, text);
    snprintf(job->image->warning, sizeof job->image->warning, "%s", text);
}

/* A progressive file of a few bytes can ask for thousands of passes over the picture. */
static void on_progress(j_common_ptr common)
{
    Job *job = (Job *)common->err;
    if (common->is_decompressor && ((j_decompress_ptr)common)->input_scan_number > MAX_SCANS) {
        fail(job->error, EXIT_USER, "", "%s: broken JPEG: more than %d scans", job->path,
             MAX_SCANS);
        longjmp(job->jump, 1);
    }
}

static void job_begin(Job *job)
{
    jpeg_std_error(&job->errors);
    job->errors.error_exit = on_error;
    job->errors.emit_message = on_message;
    job->progress.progress_monitor = on_progress;
}

/* Pillow's product of two bytes over 255. */
static int multiply_bytes(int a, int b)
{
    int product = a * b + 128;
    return ((product >> 8) + product) >> 8;
}

static void cmyk_row(const uint8_t *cmyk, int width, uint8_t *rgb)
{
    for (int x = 0; x < width; x++, cmyk += 4, rgb += 3) {
        int light = cmyk[3];               /* inverted: 255 is no black */
        for (int c = 0; c < 3; c++) {
            int value = light - multiply_bytes(255 - cmyk[c], light);
            rgb[c] = (uint8_t)(value < 0 ? 0 : value);
        }
    }
}

static void read_rows(Job *job)
{
    struct jpeg_decompress_struct *decoder = &job->decoder;
    Image *image = job->image;
    size_t stride = (size_t)image->width * (size_t)image->channels;
    while (decoder->output_scanline < decoder->output_height) {
        uint8_t *target = image->pixels + decoder->output_scanline * stride;
        if (job->row != NULL) {
            jpeg_read_scanlines(decoder, &job->row, 1);
            cmyk_row(job->row, image->width, target);
            continue;
        }
        JSAMPROW rows[ROWS_AT_ONCE];
        JDIMENSION left = decoder->output_height - decoder->output_scanline;
        JDIMENSION count = left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE;
        for (JDIMENSION i = 0; i < count; i++) rows[i] = target + i * stride;
        jpeg_read_scanlines(decoder, rows, count);
    }
}

static bool decode(Job *job, const void *bytes, size_t size)
{
    struct jpeg_decompress_struct *decoder = &job->decoder;
    decoder->err = &job->errors;
    if (setjmp(job->jump) != 0) return false;
    jpeg_create_decompress(decoder);
    decoder->mem->max_memory_to_use = MAX_MEMORY;
    decoder->progress = &job->progress;
    jpeg_mem_src(decoder, bytes, size);
    jpeg_read_header(decoder, TRUE);
    int components = decoder->num_components;
    if (components != 1 && components != 3 && components != 4)
        return fail(job->error, EXIT_USER, "", "%s: a JPEG of %d components", job->path,
                    components);
    static const J_COLOR_SPACE spaces[] = { [1] = JCS_GRAYSCALE, [3] = JCS_RGB, [4] = JCS_CMYK };
    decoder->out_color_space = spaces[components];
    if (!image_allocate(job->image, decoder->image_width, decoder->image_height,
                        components == 1 ? 1 : 3, job->path, job->error))
        return false;
    if (components == 4 && (job->row = malloc((size_t)decoder->image_width * 4)) == NULL)
        return fail(job->error, EXIT_ENVIRONMENT, "", "%s: not enough memory", job->path);
    jpeg_start_decompress(decoder);
    read_rows(job);
    jpeg_finish_decompress(decoder);
    return true;
}

bool image_jpeg_decode(const void *bytes, size_t size, const char *path, Image *image, Error *error)
{
    Job job = { .image = image, .path = path, .error = error };
    job_begin(&job);
    bool decoded = decode(&job, bytes, size);
    jpeg_destroy_decompress(&job.decoder);
    free(job.row);
    return decoded;
}

static bool encode(Job *job, const uint8_t *pixels, int width, int height, int channels,
                   int quality)
{
    struct jpeg_compress_struct *encoder = &job->encoder;
    encoder->err = &job->errors;
    if (setjmp(job->jump) != 0) return false;
    jpeg_create_compress(encoder);
    jpeg_mem_dest(encoder, &job->encoded, &job->encoded_size);
    encoder->image_width = (JDIMENSION)width;
    encoder->image_height = (JDIMENSION)height;
    encoder->input_components = channels;
    encoder->in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(encoder);
    jpeg_set_quality(encoder, quality, TRUE);
    jpeg_start_compress(encoder, TRUE);
    while (encoder->next_scanline < encoder->image_height) {
        size_t offset = (size_t)encoder->next_scanline * (size_t)width * (size_t)channels;
        JSAMPROW row = (JSAMPROW)(pixels + offset);
        jpeg_write_scanlines(encoder, &row, 1);
    }
    jpeg_finish_compress(encoder);
    return true;
}

bool image_write_jpeg(const char *path, const uint8_t *pixels, int width, int height, int channels,
                      int quality, Error *error)
{
    Job job = { .path = path, .error = error };
    job_begin(&job);
    bool written = encode(&job, pixels, width, height, channels, quality)
                   && file_write(path, job.encoded, job.encoded_size, error);
    jpeg_destroy_compress(&job.encoder);
    free(job.encoded);
    return written;
}
