/* Draws one picture with shapes of several classes, and its mask of class numbers: what `segrun
 * data synth --classes` makes data sets of.
 *
 * Two to four shapes lie on striped ground, each turned and sized at random, later ones over
 * earlier ones. A shape's colour leans to its class's, as things have colours they are often seen
 * in, so that a network learns something in the first epochs; the form says the rest. The picture
 * is the mean of 3 x 3 samples a pixel; the mask is of the pixel's centre. Everything is a
 * function of (seed, index, classes, width, height).
 */
#include <math.h>
#include <string.h>

#include "data.h"

enum { MOST_SHAPES = 4, SAMPLES = 3 };
static const float pi = 3.14159265f;

typedef struct { float r, g, b; } Colour;
typedef struct {
    int class;                  /* from 1 */
    float x, y, radius;         /* pixels */
    float sine, cosine;         /* of its turn */
    Colour colour;
} Shape;
typedef struct {
    Colour light, dark;
    float wave_x, wave_y, phase; /* of the ground's stripes, a pixel */
    uint32_t grain;
    int n_shapes;
    Shape shapes[MOST_SHAPES];
} Scene;

const char *synth_class(int class)
{
    static const char *const names[SYNTH_CLASSES] = { "background", "disc", "cross", "triangle",
                                                      "ring", "square", "star", "half disc" };
    return names[class];
}

static float between(uint64_t *state, float low, float high)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return low + (high - low) * (float)((x ^ (x >> 31)) >> 40) / 16777216.0f;
}

static Colour any_colour(uint64_t *state, float low, float high)
{
    Colour colour;
    colour.r = between(state, low, high);
    colour.g = between(state, low, high);
    colour.b = between(state, low, high);
    return colour;
}

/* ---- forms, of about radius 1 ---------------------------------------------------------------- */

static bool inside_star(float u, float v, float distance)
{
    float fifth = 2 * pi / 5, angle = fmodf(atan2f(v, u) + 4 * pi, fifth);
    float off = fabsf(angle - fifth / 2), inner = 0.45f;
    /* the edge from the outer corner (off = fifth / 2) to the inner one (off = 0) */
    float x = distance * cosf(off), y = distance * sinf(off);
    float corner_x = cosf(fifth / 2), corner_y = sinf(fifth / 2);
    return (corner_x - inner) * y - corner_y * (x - inner) > 0;
}

static bool is_inside(int class, float u, float v)
{
    float distance = sqrtf(u * u + v * v), a = fabsf(u), b = fabsf(v);
    switch (class) {
    case 1: return distance < 1;
    case 2: return (a < 0.3f && b < 0.95f) || (b < 0.3f && a < 0.95f);
    case 3: return v < 0.5f && 0.866f * a - 0.5f * v < 0.5f;
    case 4: return distance < 1 && distance > 0.55f;
    case 5: return a < 0.8f && b < 0.8f;
    case 6: return inside_star(u, v, distance);
    default: return distance < 1 && v > 0;
    }
}

/* The topmost shape at a place, or NULL. */
static const Shape *shape_at(const Scene *scene, float x, float y)
{
    for (int i = scene->n_shapes - 1; i >= 0; i--) {
        const Shape *shape = &scene->shapes[i];
        float dx = (x - shape->x) / shape->radius, dy = (y - shape->y) / shape->radius;
        if (dx * dx + dy * dy < 1.5f
            && is_inside(shape->class, shape->cosine * dx + shape->sine * dy,
                         shape->cosine * dy - shape->sine * dx))
            return shape;
    }
    return NULL;
}

/* Half the class's colour, half any. */
static Colour class_tone(int class, Colour any)
{
    uint32_t own = class_colour(class);
    return (Colour){ (any.r + (float)(own >> 16)) / 2, (any.g + (float)(own >> 8 & 255)) / 2,
                     (any.b + (float)(own & 255)) / 2 };
}

/* ---- the picture ----------------------------------------------------------------------------- */

static Scene make_scene(uint64_t state, int classes, int width, int height)
{
    float side = (float)(width < height ? width : height), turn = between(&state, 0, pi);
    float wave = 2 * pi * between(&state, 2, 6) / side;
    Scene scene = { .wave_x = wave * cosf(turn), .wave_y = wave * sinf(turn),
                    .phase = between(&state, 0, 6) };
    scene.light = any_colour(&state, 90, 230);
    scene.dark = any_colour(&state, 20, 150);
    scene.grain = (uint32_t)between(&state, 0, 16777216);
    scene.n_shapes = 2 + (int)between(&state, 0, 2.999f);
    for (int i = 0; i < scene.n_shapes; i++) {
        Shape *shape = &scene.shapes[i];
        float angle = between(&state, 0, 2 * pi);
        shape->class = 1 + (int)between(&state, 0, (float)(classes - 1) - 0.001f);
        shape->radius = side * between(&state, 0.12f, 0.24f);
        shape->x = between(&state, 0.15f, 0.85f) * (float)width;
        shape->y = between(&state, 0.15f, 0.85f) * (float)height;
        shape->sine = sinf(angle);
        shape->cosine = cosf(angle);
        shape->colour = class_tone(shape->class, any_colour(&state, 0, 255));
    }
    return scene;
}

static Colour colour_at(const Scene *scene, float x, float y)
{
    const Shape *shape = shape_at(scene, x, y);
    if (shape)
        return shape->colour;
    float t = 0.5f + 0.5f * sinf(scene->wave_x * x + scene->wave_y * y + scene->phase);
    return (Colour){ scene->dark.r + t * (scene->light.r - scene->dark.r),
                     scene->dark.g + t * (scene->light.g - scene->dark.g),
                     scene->dark.b + t * (scene->light.b - scene->dark.b) };
}

/* -12 to 12, of a pixel. */
static float grain_at(const Scene *scene, int x, int y)
{
    uint32_t h = scene->grain + (uint32_t)x * 0x8da6b343u + (uint32_t)y * 0xd8163841u;
    h = (h ^ (h >> 15)) * 0x2c1b3c6du;
    h = (h ^ (h >> 12)) * 0x297a2d39u;
    return ((float)(h >> 8) / 8388608.0f - 1.0f) * 12;
}

static uint8_t byte_of(float level)
{
    return (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level + 0.5f);
}

void synth_shapes(uint64_t seed, int index, int classes, int width, int height, uint8_t *rgb,
                  uint8_t *mask)
{
    uint64_t state = seed * 0xc2b2ae3d27d4eb4fu + (uint64_t)index * 0x165667b19e3779f9u + 1;
    const Scene scene = make_scene(state, classes, width, height);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            size_t at = (size_t)y * (size_t)width + (size_t)x;
            Colour sum = { 0, 0, 0 };
            for (int s = 0; s < SAMPLES * SAMPLES; s++) {
                Colour one = colour_at(&scene, (float)x + ((float)(s % SAMPLES) + 0.5f) / SAMPLES,
                                       (float)y + ((float)(s / SAMPLES) + 0.5f) / SAMPLES);
                sum.r += one.r, sum.g += one.g, sum.b += one.b;
            }
            float grain = grain_at(&scene, x, y), share = 1.0f / (SAMPLES * SAMPLES);
            rgb[3 * at] = byte_of(sum.r * share + grain);
            rgb[3 * at + 1] = byte_of(sum.g * share + grain);
            rgb[3 * at + 2] = byte_of(sum.b * share + grain);
            const Shape *shape = shape_at(&scene, (float)x + 0.5f, (float)y + 0.5f);
            mask[at] = shape ? (uint8_t)shape->class : 0;
        }
}
