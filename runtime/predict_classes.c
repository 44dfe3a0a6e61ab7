/* What `segrun predict` writes of several classes: the mask as a palette PNG of class numbers, the
 * probability of the class that each pixel was given, and the picture tinted in the classes'
 * colours.
 *
 * Each class's probabilities are brought back to the picture's own size, one class after the
 * other, and the largest wins; so memory is that of two maps, however many classes there are.
 */
#include "commands.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* The class with the largest probability at the picture's size, and that probability. */
static bool choose(const ClassPicture *picture, float *best, float *one, uint8_t *mask)
{
    const int width = picture->image->width, height = picture->image->height;
    const size_t pixels = (size_t)width * (size_t)height;
    const size_t plane = (size_t)picture->width * (size_t)picture->height;
    memset(mask, 0, pixels);
    for (int k = 0; k < picture->classes; k++) {
        if (!resize_float(picture->probabilities + (size_t)k * plane, picture->width,
                          picture->height, k ? one : best, width, height))
            return false;
        for (size_t i = 0; k > 0 && i < pixels; i++)
            if (one[i] > best[i]) {
                best[i] = one[i];
                mask[i] = (uint8_t)k;
            }
    }
    return true;
}

/* The classes but the background tinted, their edges drawn; in place. */
static void tint(uint8_t *rgb, const uint8_t *mask, int width, int height)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            size_t i = (size_t)y * (size_t)width + (size_t)x;
            if (!mask[i])
                continue;
            bool edge = (x > 0 && mask[i] != mask[i - 1])
                     || (x + 1 < width && mask[i] != mask[i + 1])
                     || (y > 0 && mask[i] != mask[i - (size_t)width])
                     || (y + 1 < height && mask[i] != mask[i + (size_t)width]);
            uint32_t colour = class_colour(mask[i]);
            for (int c = 0; c < 3; c++) {
                int tone = (int)(colour >> (16 - 8 * c) & 255);
                rgb[3 * i + (size_t)c] =
                    (uint8_t)(edge ? tone : (rgb[3 * i + (size_t)c] * 10 + tone * 10) / 20);
            }
        }
}

static bool path_of(const ClassPicture *picture, const char *kind, char path[PATH_MAX],
                    Error *error)
{
    return snprintf(path, PATH_MAX, "%s/%s.%s.png", picture->folder, picture->name, kind) < PATH_MAX
        || fail(error, EXIT_USER, "use a shorter name",
                "cannot write %.200s...: the name is too long", path);
}

static bool write_files(const ClassPicture *picture, const float *best, const uint8_t *mask,
                        uint8_t *grey, Error *error)
{
    const int width = picture->image->width, height = picture->image->height;
    const size_t pixels = (size_t)width * (size_t)height;
    char path[PATH_MAX];
    for (size_t i = 0; i < pixels; i++) {
        float p = best[i] < 0 ? 0 : best[i] > 1 ? 1 : best[i];
        grey[i] = (uint8_t)(p * 255 + 0.5f);
    }
    if (!path_of(picture, "probability", path, error)
        || !image_write_png(path, grey, width, height, 1, error)
        || !path_of(picture, "mask", path, error)
        || !image_write_classes(path, mask, width, height, error)
        || !path_of(picture, "overlay", path, error))
        return false;
    tint(picture->image->pixels, mask, width, height);
    return image_write_png(path, picture->image->pixels, width, height, 3, error);
}

bool predict_write_classes(const ClassPicture *picture, Error *error)
{
    const size_t pixels = (size_t)picture->image->width * (size_t)picture->image->height;
    float *best = malloc(2 * pixels * sizeof *best);
    uint8_t *mask = malloc(2 * pixels);
    bool chosen = best && mask && choose(picture, best, best + pixels, mask)
               && (!picture->largest
                   || classes_keep_largest(mask, picture->image->width, picture->image->height,
                                           picture->classes));
    bool written = chosen ? write_files(picture, best, mask, mask + pixels, error)
                          : fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory",
                                 picture->name);
    free(best);
    free(mask);
    return written;
}
