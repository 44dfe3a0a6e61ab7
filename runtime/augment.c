/* Changes of training pictures: a rotation, a scale and a cut-out as one affine map, then brightness,
 * contrast and saturation.
 *
 * What happens to a picture is drawn from its own numbers (the loader gives their stream, a function
 * of seed, epoch and picture), always as many of them in the same order: it depends on no thread and
 * on no other picture. Pictures are sampled bilinearly and masks by the nearest pixel, from the same
 * places; what lies outside is mirrored. Everything is done at the model's size, as the cache holds
 * it, in fixed point with 16 bits behind the point: some microseconds for a row.
 *
 * Colours as in torchvision: x b, then a blend with the mean grey of the picture, then with each
 * pixel's own grey (0.299 R + 0.587 G + 0.114 B).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"

static const struct { const char *name; size_t place; double most; const char *what; } kinds[] = {
    { "rotate", offsetof(Augmentation, rotate), 180, "degrees" },
    { "scale", offsetof(Augmentation, scale), 0.9, "a share" },
    { "crop", offsetof(Augmentation, crop), 0.9, "a share" },
    { "brightness", offsetof(Augmentation, brightness), 0.95, "a share" },
    { "contrast", offsetof(Augmentation, contrast), 0.95, "a share" },
    { "saturation", offsetof(Augmentation, saturation), 1, "a share" },
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

/* "rotate=10@0.5", the first `length` letters of text. */
static bool parse_change(const char *text, size_t length, Augmentation *augmentation, Error *error)
{
    static const char hint[] = "NAME=AMOUNT[@PROBABILITY], such as rotate=10@0.5,scale=0.2; names: rotate "
                               "scale crop brightness contrast saturation";
    char word[80], *end;
    if (length >= sizeof word)
        return fail(error, EXIT_USAGE, hint, "--augment: '%.40s...' is no change", text);
    snprintf(word, sizeof word, "%.*s", (int)length, text);
    char *equals = strchr(word, '=');
    for (int i = 0; i < N_KINDS; i++) {
        size_t n = strlen(kinds[i].name);
        if (!equals || (size_t)(equals - word) != n || memcmp(word, kinds[i].name, n) != 0)
            continue;
        Change *change = (Change *)((char *)augmentation + kinds[i].place);
        *change = (Change){ strtod(equals + 1, &end), 1 };
        bool number = end > equals + 1;
        if (number && *end == '@') {
            char *from = end + 1;
            change->probability = strtod(from, &end);
            number = end > from;
        }
        if (!number || *end || !(change->amount >= 0 && change->amount <= kinds[i].most)
            || !(change->probability >= 0 && change->probability <= 1))
            return fail(error, EXIT_USAGE, hint,
                        "--augment: '%s': expected %s from 0 to %g, and a probability from 0 to 1",
                        word, kinds[i].what, kinds[i].most);
        return true;
    }
    return fail(error, EXIT_USAGE, hint, "--augment: '%s' is no change", word);
}

bool augment_parse(const char *text, Augmentation *augmentation, Error *error)
{
    *augmentation = (Augmentation){ 0 };
    if (strcmp(text, "none") == 0)
        return true;
    for (size_t n; *text; text += n + (text[n] == ',')) {
        n = strcspn(text, ",");
        if (!parse_change(text, n, augmentation, error))
            return false;
        augmentation->any = true;
    }
    return true;
}

/* ---- what is drawn for a picture ---- */

static double unit(uint64_t (*next)(uint64_t *), uint64_t *state)
{
    return (double)(next(state) >> 11) * 0x1p-53;
}

/* From -amount to amount, or 0 where it does not happen; two numbers are drawn in any case. */
static double drawn(const Change *change, uint64_t (*next)(uint64_t *), uint64_t *state)
{
    double happens = unit(next, state), value = 2 * unit(next, state) - 1;
    return happens < change->probability ? value * change->amount : 0;
}

PictureChange augment_draw(const Augmentation *a, bool flipped, uint64_t (*next)(uint64_t *),
                           uint64_t state)
{
    double turn = drawn(&a->rotate, next, &state) * M_PI / 180;
    double size = drawn(&a->scale, next, &state);
    double cut = fabs(drawn(&a->crop, next, &state));
    double x = 2 * unit(next, &state) - 1, y = 2 * unit(next, &state) - 1;
    PictureChange change = { .flipped = flipped, .turn = turn,
                             .side = (1 - cut) * (size < 0 ? 1 - size : 1 / (1 + size)),
                             .x = x * cut / 2, .y = y * cut / 2 };
    change.brightness = 1 + drawn(&a->brightness, next, &state);
    change.contrast = 1 + drawn(&a->contrast, next, &state);
    change.saturation = 1 + drawn(&a->saturation, next, &state);
    return change;
}

/* ---- geometry ---- */

typedef struct { int64_t x, y, x_by_x, y_by_x, x_by_y, y_by_y; } Map; /* 16 bits behind the point */

/* Where pixel (0,0) comes from, and how that moves with x and y. Turns keep angles in the picture as
 * it is stored, whatever its sides were. */
static Map map_of(const PictureChange *change, int width, int height)
{
    double c = cos(change->turn) * change->side, s = sin(change->turn) * change->side;
    double mirror = change->flipped ? -1 : 1, one = 65536;
    double x = -(width - 1) / 2.0, y = -(height - 1) / 2.0;
    double from_x = c * mirror * x - s * y + (width - 1) / 2.0 + change->x * width;
    double from_y = s * mirror * x + c * y + (height - 1) / 2.0 + change->y * height;
    return (Map){ llrint(from_x * one), llrint(from_y * one), llrint(c * mirror * one),
                  llrint(s * mirror * one), llrint(-s * one), llrint(c * one) };
}

/* Mirrored into 0 .. size-1, the edge once: -1 is 0. */
static int mirrored(int64_t i, int size)
{
    int64_t period = 2 * (int64_t)size;
    if (i >= 0 && i < size)
        return (int)i;
    i %= period;
    i += i < 0 ? period : 0;
    return (int)(i < size ? i : period - 1 - i);
}

/* For each pixel of a row: its four places and the two weights of the later ones (0..256). */
typedef struct { int places[4], nearest; int by_x, by_y; } Tap;

static void row_taps(const Map *map, int y, int width, int height, Tap *taps)
{
    int64_t sx = map->x + map->x_by_y * y, sy = map->y + map->y_by_y * y;
    for (int x = 0; x < width; x++, sx += map->x_by_x, sy += map->y_by_x) {
        int left = mirrored(sx >> 16, width), right = mirrored((sx >> 16) + 1, width);
        int top = mirrored(sy >> 16, height) * width, low = mirrored((sy >> 16) + 1, height) * width;
        int near_x = mirrored((sx + 32768) >> 16, width);
        int near_y = mirrored((sy + 32768) >> 16, height) * width;
        taps[x] = (Tap){ { top + left, top + right, low + left, low + right }, near_y + near_x,
                         (int)(sx >> 8 & 255), (int)(sy >> 8 & 255) };
    }
}

static void transform(const Map *map, const uint8_t *image, const uint8_t *mask, int width,
                      int height, Tap *taps, uint8_t *out, uint8_t *out_mask)
{
    size_t plane = (size_t)width * (size_t)height;
    for (int y = 0; y < height; y++) {
        row_taps(map, y, width, height, taps);
        for (int c = 0; c < 3; c++) {
            const uint8_t *from = image + (size_t)c * plane;
            uint8_t *to = out + (size_t)c * plane + (size_t)y * (size_t)width;
            for (int x = 0; x < width; x++) {
                const Tap *t = &taps[x];
                int top = from[t->places[0]] * (256 - t->by_x) + from[t->places[1]] * t->by_x;
                int low = from[t->places[2]] * (256 - t->by_x) + from[t->places[3]] * t->by_x;
                to[x] = (uint8_t)((top * (256 - t->by_y) + low * t->by_y + 32768) >> 16);
            }
        }
        for (int x = 0; x < width; x++)
            out_mask[(size_t)y * (size_t)width + (size_t)x] = mask[taps[x].nearest];
    }
}

/* ---- colours ---- */

static uint8_t byte_of(float value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value + 0.5f);
}

static void colour(const PictureChange *change, uint8_t *image, size_t plane)
{
    uint8_t *r = image, *g = image + plane, *b = image + 2 * plane;
    uint64_t sums[3] = { 0 };
    for (size_t i = 0; i < plane; i++) {
        sums[0] += r[i];
        sums[1] += g[i];
        sums[2] += b[i];
    }
    double mean = (0.299 * (double)sums[0] + 0.587 * (double)sums[1] + 0.114 * (double)sums[2])
                / (double)plane * change->brightness;
    float factor = (float)(change->brightness * change->contrast);
    float shift = (float)((1 - change->contrast) * mean), keep = (float)change->saturation;
    for (size_t i = 0; i < plane; i++) {
        float red = factor * r[i] + shift, green = factor * g[i] + shift;
        float blue = factor * b[i] + shift;
        float grey = (1 - keep) * (0.299f * red + 0.587f * green + 0.114f * blue);
        r[i] = byte_of(keep * red + grey);
        g[i] = byte_of(keep * green + grey);
        b[i] = byte_of(keep * blue + grey);
    }
}

bool augment_apply(const PictureChange *change, const uint8_t *image, const uint8_t *mask, int width,
                   int height, uint8_t *out, uint8_t *out_mask)
{
    size_t plane = (size_t)width * (size_t)height;
    Map map = map_of(change, width, height);
    Tap *taps = malloc((size_t)width * sizeof *taps);
    if (!taps)
        return false;
    transform(&map, image, mask, width, height, taps, out, out_mask);
    free(taps);
    if (change->brightness != 1 || change->contrast != 1 || change->saturation != 1)
        colour(change, out, plane);
    return true;
}
