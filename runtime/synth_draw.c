/* Draws one pet-like picture and its trimap by rule: a stand-in for photographs in demos and tests.
 *
 * A pet is a handful of tapered capsules (body, head, ears, legs, tail) in one of four poses,
 * joined by a smooth minimum of their distances; the distance field gives the picture's alpha, the
 * shading, and the trimap (a band around zero is outline). Fur has stripes or patches and a fine
 * grain. What lies behind is two textured regions and a few smooth things. The colours of pets and
 * backgrounds overlap on purpose: no threshold on colour finds the pet, shape and texture do.
 *
 * Everything is a function of (seed, index, width, height); noise is hashed whole numbers.
 */
#include <math.h>
#include <string.h>

#include "data.h"

enum { MAX_PARTS = 16, MAX_PETS = 2, MAX_THINGS = 2, FURS = 6, GROUNDS = 8 };

typedef struct { float r, g, b; } Colour;
typedef struct { float x, y; } Point;
typedef struct { Point a, b; float ra, rb; } Part;      /* a capsule from radius ra to rb */
typedef struct { uint64_t state; } Random;

typedef struct {
    int n_parts;
    Part parts[MAX_PARTS];      /* in pixels */
    Point face;                 /* between the eyes */
    float size;                 /* pixels of one unit of the pose */
    int fur, pattern;
    float angle;                /* of stripes and hair */
    uint32_t noise;
} Pet;

typedef struct {
    Colour light, dark;
    int texture;
    uint32_t noise;
    float scale;
} Ground;

typedef struct {
    bool round;
    Point centre;
    float half_width, half_height;
    Colour colour;
} Thing;

typedef struct {
    Ground grounds[2];          /* above and below the horizon */
    float horizon, tilt;
    int n_things;
    Thing things[MAX_THINGS];
    int n_pets;
    Pet pets[MAX_PETS];
    float light_x, light_y, brightness;
    uint32_t grain;
} Scene;

static const Colour fur_colours[FURS][2] = {
    { { 208, 132, 62 }, { 238, 196, 146 } }, { { 134, 131, 128 }, { 76, 75, 78 } },
    { { 44, 40, 40 }, { 84, 76, 68 } }, { { 230, 225, 216 }, { 186, 174, 160 } },
    { { 124, 84, 54 }, { 68, 46, 32 } }, { { 214, 184, 144 }, { 176, 136, 96 } },
};
static const Colour ground_colours[GROUNDS][2] = {
    { { 112, 142, 74 }, { 66, 104, 48 } }, { { 152, 108, 68 }, { 112, 76, 46 } },
    { { 152, 150, 152 }, { 118, 116, 122 } }, { { 144, 58, 54 }, { 100, 36, 40 } },
    { { 76, 98, 146 }, { 46, 62, 104 } }, { { 216, 206, 186 }, { 188, 174, 154 } },
    { { 226, 229, 233 }, { 200, 205, 212 } }, { { 58, 54, 58 }, { 32, 31, 36 } },
};

/* ---- numbers ---- */

static uint64_t next_random(Random *random)
{
    uint64_t x = random->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static float between(Random *random, float low, float high)
{
    return low + (high - low) * (float)(next_random(random) >> 40) / 16777216.0f;
}

static int below(Random *random, int count)
{
    return (int)(next_random(random) % (uint64_t)count);
}

static float lattice(uint32_t seed, int x, int y)
{
    uint32_t h = seed + (uint32_t)x * 0x8da6b343u + (uint32_t)y * 0xd8163841u;
    h = (h ^ (h >> 15)) * 0x2c1b3c6du;
    h = (h ^ (h >> 12)) * 0x297a2d39u;
    return (float)((h ^ (h >> 15)) >> 8) / 8388608.0f - 1.0f;
}

/* Smooth noise in -1..1 with features about one unit large. */
static float noise(uint32_t seed, float x, float y)
{
    float fx = floorf(x), fy = floorf(y), u = x - fx, v = y - fy;
    int ix = (int)fx, iy = (int)fy;
    u = u * u * (3 - 2 * u);
    v = v * v * (3 - 2 * v);
    float top = lattice(seed, ix, iy) * (1 - u) + lattice(seed, ix + 1, iy) * u;
    float bottom = lattice(seed, ix, iy + 1) * (1 - u) + lattice(seed, ix + 1, iy + 1) * u;
    return top * (1 - v) + bottom * v;
}

static float clamp(float value, float low, float high)
{
    return value < low ? low : value > high ? high : value;
}

static Colour mix(Colour a, Colour b, float t)
{
    return (Colour){ a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t };
}

static Colour shade(Colour colour, float factor)
{
    return (Colour){ colour.r * factor, colour.g * factor, colour.b * factor };
}

/* ---- pets ---- */

/* The poses, in units of about half a body's length, y down. The ears come first: two parts whose
 * far ends hang down for dogs. Then the head, whose first end is the face. Ends with a part of
 * radius 0. */
static const Part poses[4][MAX_PARTS] = {
    {   /* standing, from the side */
        { { 0.76f, -0.60f }, { 0.68f, -0.92f }, 0.15f, 0.02f },
        { { 1.00f, -0.60f }, { 1.06f, -0.90f }, 0.15f, 0.02f },
        { { 0.90f, -0.42f }, { 1.06f, -0.34f }, 0.31f, 0.20f },
        { { -0.60f, 0.00f }, { 0.50f, -0.02f }, 0.40f, 0.38f },
        { { 0.50f, -0.10f }, { 0.85f, -0.38f }, 0.30f, 0.24f },
        { { -0.72f, 0.20f }, { -0.76f, 0.88f }, 0.17f, 0.10f },
        { { -0.46f, 0.20f }, { -0.40f, 0.86f }, 0.15f, 0.09f },
        { { 0.36f, 0.20f }, { 0.32f, 0.88f }, 0.14f, 0.09f },
        { { 0.58f, 0.20f }, { 0.62f, 0.86f }, 0.14f, 0.09f },
        { { -0.90f, -0.12f }, { -1.24f, -0.36f }, 0.11f, 0.08f },
        { { -1.24f, -0.36f }, { -1.28f, -0.78f }, 0.08f, 0.05f },
    },
    {   /* sitting, from the front */
        { { -0.20f, -0.80f }, { -0.32f, -1.14f }, 0.16f, 0.02f },
        { { 0.20f, -0.80f }, { 0.32f, -1.14f }, 0.16f, 0.02f },
        { { 0.00f, -0.60f }, { 0.00f, -0.50f }, 0.37f, 0.32f },
        { { 0.00f, 0.48f }, { 0.00f, -0.10f }, 0.50f, 0.32f },
        { { -0.17f, 0.20f }, { -0.20f, 0.92f }, 0.15f, 0.12f },
        { { 0.17f, 0.20f }, { 0.20f, 0.92f }, 0.15f, 0.12f },
        { { 0.40f, 0.80f }, { 0.86f, 0.74f }, 0.12f, 0.08f },
        { { 0.86f, 0.74f }, { 1.02f, 0.44f }, 0.08f, 0.05f },
    },
    {   /* the head, close */
        { { -0.42f, -0.50f }, { -0.62f, -1.00f }, 0.28f, 0.04f },
        { { 0.42f, -0.50f }, { 0.62f, -1.00f }, 0.28f, 0.04f },
        { { 0.00f, -0.12f }, { 0.00f, 0.24f }, 0.66f, 0.46f },
        { { -0.40f, 1.00f }, { 0.40f, 1.00f }, 0.58f, 0.58f },
    },
    {   /* lying */
        { { 0.62f, -0.26f }, { 0.54f, -0.54f }, 0.14f, 0.02f },
        { { 0.88f, -0.26f }, { 0.98f, -0.52f }, 0.14f, 0.02f },
        { { 0.76f, -0.08f }, { 0.82f, 0.02f }, 0.30f, 0.24f },
        { { -0.62f, 0.20f }, { 0.46f, 0.18f }, 0.36f, 0.32f },
        { { 0.56f, 0.44f }, { 1.12f, 0.48f }, 0.11f, 0.10f },
        { { 0.30f, 0.46f }, { 0.86f, 0.56f }, 0.12f, 0.10f },
        { { -0.86f, 0.34f }, { -1.22f, 0.46f }, 0.10f, 0.07f },
        { { -1.22f, 0.46f }, { -0.90f, 0.62f }, 0.07f, 0.05f },
    },
};

static void make_pet(Random *random, Pet *pet, int species, Point centre, float size)
{
    const Part *pose = poses[below(random, 4)];
    float mirror = below(random, 2) ? 1.0f : -1.0f, turn = between(random, -0.25f, 0.25f);
    float c = cosf(turn) * size, s = sinf(turn) * size, fat = between(random, 0.88f, 1.15f);
    pet->size = size;
    pet->fur = below(random, FURS);
    pet->pattern = below(random, 3);
    pet->angle = between(random, 0, 3.14f);
    pet->noise = (uint32_t)next_random(random);
    for (pet->n_parts = 0; pose[pet->n_parts].ra > 0; pet->n_parts++) {
        Part part = pose[pet->n_parts], *made = &pet->parts[pet->n_parts];
        if (pet->n_parts < 2 && species == 2) part.b.y = part.a.y + 0.9f * (part.a.y - part.b.y);
        if (pet->n_parts < 2 && species == 2) part.rb = 0.7f * part.ra;
        part.b.x += between(random, -0.06f, 0.06f);
        part.b.y += between(random, -0.06f, 0.06f);
        made->a = (Point){ centre.x + mirror * part.a.x * c - part.a.y * s,
                           centre.y + mirror * part.a.x * s + part.a.y * c };
        made->b = (Point){ centre.x + mirror * part.b.x * c - part.b.y * s,
                           centre.y + mirror * part.b.x * s + part.b.y * c };
        made->ra = part.ra * size * fat;
        made->rb = part.rb * size * fat;
    }
    pet->face = pet->parts[2].a;
}

/* Pixels to the pet's edge; negative inside. */
static float pet_distance(const Pet *pet, float x, float y)
{
    float distance = 1e9f, soft = 0.10f * pet->size;
    for (int i = 0; i < pet->n_parts; i++) {
        const Part *part = &pet->parts[i];
        float dx = part->b.x - part->a.x, dy = part->b.y - part->a.y;
        float px = x - part->a.x, py = y - part->a.y;
        float t = clamp((px * dx + py * dy) / (dx * dx + dy * dy + 1e-6f), 0, 1);
        float d = hypotf(px - t * dx, py - t * dy) - (part->ra + (part->rb - part->ra) * t);
        float h = clamp(0.5f + 0.5f * (distance - d) / soft, 0, 1);
        distance = distance + (d - distance) * h - soft * h * (1 - h);
        if (i == 0) distance = d;
    }
    return distance
           + 0.035f * pet->size * noise(pet->noise, x * 14 / pet->size, y * 14 / pet->size);
}

static Colour pet_colour(const Pet *pet, float x, float y, float distance)
{
    float c = cosf(pet->angle), s = sinf(pet->angle);
    float u = (x * c + y * s) / pet->size, v = (y * c - x * s) / pet->size, t;
    float bend = noise(pet->noise + 1, 2 * u, 2 * v);
    if (pet->pattern == 0)
        t = clamp(0.5f + 1.2f * sinf(17 * u + 4 * bend), 0, 1);
    else if (pet->pattern == 1)
        t = clamp(0.5f + 4 * noise(pet->noise + 2, 2.2f * u, 2.2f * v), 0, 1);
    else
        t = 0.3f + 0.3f * bend;
    Colour colour = mix(fur_colours[pet->fur][0], fur_colours[pet->fur][1], t);
    float hair = noise(pet->noise + 3, x * 0.55f * c + y * 0.55f * s, (y * c - x * s) * 0.16f);
    float round = clamp(-distance / (0.30f * pet->size), 0, 1);
    colour = shade(colour, (0.72f + 0.34f * round) * (1 + 0.26f * hair));
    for (int side = -1; side <= 1; side++) {       /* eyes, and between and below them the nose */
        float ex = pet->face.x + (float)side * 0.13f * pet->size;
        float ey = pet->face.y + (side == 0 ? 0.13f : -0.02f) * pet->size;
        if (hypotf(x - ex, y - ey) < 0.045f * pet->size) colour = (Colour){ 26, 22, 20 };
    }
    return colour;
}

/* ---- what is behind ---- */

static Colour ground_colour(const Ground *ground, float x, float y)
{
    float u = x / ground->scale, v = y / ground->scale, t;
    if (ground->texture == 0)                      /* soft cloth */
        t = 0.5f + 0.5f * noise(ground->noise, 2 * u, 2 * v)
            + 0.2f * noise(ground->noise + 1, 6 * u, 6 * v);
    else if (ground->texture == 1)                 /* boards */
        t = 0.5f + 0.4f * lattice(ground->noise, (int)floorf(3 * v), 0)
            + 0.25f * noise(ground->noise, 1.5f * u, 14 * v)
            + (3 * v - floorf(3 * v) < 0.06f ? 0.6f : 0.0f);
    else                                           /* grass or carpet: grain without direction */
        t = 0.5f + 0.3f * noise(ground->noise, 3 * u, 3 * v)
            + 0.22f * noise(ground->noise + 1, x / 3, y / 3);
    return mix(ground->light, ground->dark, clamp(t, 0, 1));
}

static Colour background(const Scene *scene, float x, float y)
{
    int below_horizon = y > scene->horizon + scene->tilt * x;
    Colour colour = ground_colour(&scene->grounds[below_horizon], x, y);
    for (int i = 0; i < scene->n_things; i++) {
        const Thing *thing = &scene->things[i];
        float u = (x - thing->centre.x) / thing->half_width;
        float v = (y - thing->centre.y) / thing->half_height;
        float far = thing->round ? hypotf(u, v) : fmaxf(fabsf(u), fabsf(v));
        if (far < 1) colour = shade(thing->colour, 1.05f - 0.22f * v - 0.1f * u);
    }
    return colour;
}

static void make_scene(Random *random, Scene *scene, int species, int width, int height)
{
    float w = (float)width, h = (float)height, side = fminf(w, h);
    for (int i = 0; i < 2; i++) {
        Ground *ground = &scene->grounds[i];
        int family = below(random, GROUNDS);
        *ground = (Ground){ ground_colours[family][0], ground_colours[family][1], below(random, 3),
                            (uint32_t)next_random(random), side * between(random, 0.25f, 0.5f) };
    }
    scene->horizon = h * between(random, 0.2f, 0.8f);
    scene->tilt = between(random, -0.15f, 0.15f);
    scene->n_things = below(random, MAX_THINGS + 1);
    for (int i = 0; i < scene->n_things; i++) {
        int family = below(random, GROUNDS + FURS);
        Colour colour =
            family < GROUNDS ? ground_colours[family][1] : fur_colours[family - GROUNDS][0];
        scene->things[i] = (Thing){ below(random, 2) != 0,
                                    { between(random, 0, w), between(random, 0, h) },
                                    side * between(random, 0.06f, 0.22f),
                                    side * between(random, 0.06f, 0.22f), colour };
    }
    scene->n_pets = below(random, 6) == 0 ? 2 : 1;
    for (int i = 0; i < scene->n_pets; i++) {
        float place = scene->n_pets == 1 ? 0.5f : i == 0 ? 0.28f : 0.72f;
        float size = side * (scene->n_pets == 1 ? between(random, 0.36f, 0.52f)
                                                : between(random, 0.22f, 0.28f));
        Point centre = { w * (place + between(random, -0.08f, 0.08f)),
                         h * between(random, 0.42f, 0.6f) };
        make_pet(random, &scene->pets[i], species, centre, size);
    }
    scene->light_x = between(random, -0.25f, 0.25f);
    scene->light_y = between(random, -0.25f, 0.25f);
    scene->brightness = between(random, 0.85f, 1.12f);
    scene->grain = (uint32_t)next_random(random);
}

static uint8_t to_byte(float value)
{
    return (uint8_t)(clamp(value, 0, 255) + 0.5f);
}

SynthPet synth_draw(uint64_t seed, int index, int width, int height, uint8_t *rgb, uint8_t *trimap)
{
    Random random = { seed * 0x9e3779b97f4a7c15u + (uint64_t)index * 0xd1342543de82ef95u };
    next_random(&random);
    Scene scene = { 0 };
    int species = 1 + below(&random, 2);
    make_scene(&random, &scene, species, width, height);
    float band = fmaxf(1.5f, 0.008f * (float)(width < height ? width : height));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, rgb += 3, trimap++) {
            float fx = (float)x, fy = (float)y, nearest = 1e9f;
            Colour colour = background(&scene, fx, fy);
            for (int i = 0; i < scene.n_pets; i++) {
                float distance = pet_distance(&scene.pets[i], fx, fy);
                float alpha = clamp(0.5f - distance / 1.6f, 0, 1);
                if (alpha > 0)
                    colour = mix(colour, pet_colour(&scene.pets[i], fx, fy, distance), alpha);
                nearest = fminf(nearest, distance);
            }
            float light = scene.brightness * (1 + scene.light_x * (fx / (float)width - 0.5f)
                                              + scene.light_y * (fy / (float)height - 0.5f));
            float grain = 4 * lattice(scene.grain, x, y);
            rgb[0] = to_byte(colour.r * light + grain);
            rgb[1] = to_byte(colour.g * light + grain);
            rgb[2] = to_byte(colour.b * light + grain);
            *trimap = nearest < -band ? 1 : nearest > band ? 2 : 3;
        }
    return (SynthPet){ species, 1 + scene.pets[0].fur };
}
