/* Pictures: a file's bytes in, 8-bit pixels out, equal to Pillow's byte for byte.
 *
 * The format is told by the first bytes, because the data set has PNG and GIF files named .jpg.
 * Each decoder (image_jpeg.c, image_png.c, image_gif.c) gives one channel or three as its file has
 * them; this file brings them to what the caller asked for, with Pillow's rules: alpha is dropped,
 * grey is tripled, colour becomes grey by ITU-R 601-2 in 16-bit fixed point.
 *
 * One rule differs on purpose: 16-bit grey keeps its high byte, where Pillow saturates at 255 and
 * so turns most of such pictures white.
 */
#include <stdlib.h>
#include <string.h>

#include "data.h"

static const int64_t MAX_PIXELS = 100 * 1000 * 1000;

ImageFormat image_sniff(const void *bytes, size_t size)
{
    if (size >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) return IMAGE_JPEG;
    if (size >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0) return IMAGE_PNG;
    if (size >= 6 && (memcmp(bytes, "GIF87a", 6) == 0 || memcmp(bytes, "GIF89a", 6) == 0))
        return IMAGE_GIF;
    return IMAGE_UNKNOWN;
}

const char *image_format_name(ImageFormat format)
{
    switch (format) {
    case IMAGE_JPEG: return "JPEG";
    case IMAGE_PNG: return "PNG";
    case IMAGE_GIF: return "GIF";
    case IMAGE_UNKNOWN: break;
    }
    return "unknown";
}

bool image_allocate(Image *image, int64_t width, int64_t height, int channels, const char *path,
                    Error *error)
{
    if (width < 1 || height < 1)
        return fail(error, EXIT_USER, "", "%s: a picture without pixels (%lld x %lld)", path,
                    (long long)width, (long long)height);
    if (width > MAX_PIXELS / height)
        return fail(error, EXIT_USER, "make it smaller first",
                    "%s: %lld x %lld pixels; the limit is 100 million", path, (long long)width,
                    (long long)height);
    image->pixels = calloc((size_t)(width * height), (size_t)channels);
    if (image->pixels == NULL)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory for %lld x %lld pixels",
                    path, (long long)width, (long long)height);
    image->width = (int)width;
    image->height = (int)height;
    image->channels = channels;
    return true;
}

void image_close(Image *image)
{
    free(image->pixels);
    image->pixels = NULL;
}

/* One channel -> three equal ones. */
static bool grey_to_rgb(Image *image)
{
    size_t count = (size_t)image->width * (size_t)image->height;
    uint8_t *rgb = malloc(count * 3);
    if (rgb == NULL) return false;
    for (size_t i = 0; i < count; i++)
        rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = image->pixels[i];
    free(image->pixels);
    image->pixels = rgb;
    image->channels = 3;
    return true;
}

/* Luma in place, as Pillow's convert('L'). */
static void rgb_to_grey(Image *image)
{
    size_t count = (size_t)image->width * (size_t)image->height;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = image->pixels + 3 * i;
        image->pixels[i] = (uint8_t)((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16);
    }
    image->channels = 1;
}

static bool convert(Image *image, ImageMode mode, const char *path, Error *error)
{
    switch (mode) {
    case IMAGE_RGB:
        if (image->channels == 1 && !grey_to_rgb(image))
            return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
        break;
    case IMAGE_GREY:
        if (image->channels == 3) rgb_to_grey(image);
        break;
    case IMAGE_CLASSES:
        if (image->channels == 3)
            return fail(error, EXIT_USER, "",
                        "%s: a colour picture, where one channel of class numbers is expected",
                        path);
        break;
    }
    return true;
}

bool image_parse(const void *bytes, size_t size, const char *path, ImageMode mode, Image *image,
                 Error *error)
{
    *image = (Image){ .format = image_sniff(bytes, size) };
    bool decoded = false;
    switch (image->format) {
    case IMAGE_JPEG:
        decoded = image_jpeg_decode(bytes, size, path, image, error);
        break;
    case IMAGE_PNG:
        decoded = image_png_decode(bytes, size, path, mode == IMAGE_CLASSES, image, error);
        break;
    case IMAGE_GIF:
        decoded = image_gif_decode(bytes, size, path, mode == IMAGE_CLASSES, image, error);
        break;
    case IMAGE_UNKNOWN:
        fail(error, EXIT_USER, "", size == 0 ? "%s: the file is empty"
                                             : "%s: not a JPEG, PNG or GIF picture", path);
        break;
    }
    if (decoded && convert(image, mode, path, error)) return true;
    image_close(image);
    return false;
}

bool image_read(const char *path, ImageMode mode, Image *image, Error *error)
{
    size_t size;
    char *bytes = file_read(path, &size, error);
    if (bytes == NULL) return false;
    bool read = image_parse(bytes, size, path, mode, image, error);
    free(bytes);
    return read;
}

void image_to_planes(const uint8_t *pixels, int width, int height, uint8_t *planes)
{
    size_t count = (size_t)width * (size_t)height;
    uint8_t *red = planes, *green = planes + count, *blue = planes + 2 * count;
    for (size_t i = 0; i < count; i++) {
        red[i] = pixels[3 * i];
        green[i] = pixels[3 * i + 1];
        blue[i] = pixels[3 * i + 2];
    }
}
