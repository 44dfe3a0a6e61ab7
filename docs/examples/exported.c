/* An exported network in a program of one's own: the mask of a picture, with nothing but libc.
 *
 *     segc models/unet.seg --export-c unet -m unet.best.safetensors
 *     cc -O3 -march=native -fopenmp -Iunet exported.c unet/unet.c -o exported -lm
 *     ./exported unet/unet.weights cat.ppm > cat.mask.pgm
 *
 * The picture is a binary PPM of the model's size (`convert cat.jpg -resize '256x256!' cat.ppm`).
 */
#include <stdio.h>
#include <stdlib.h>

#include "unet.h"

enum { HEIGHT = UNET_IMAGE_HEIGHT, WIDTH = UNET_IMAGE_WIDTH, PIXELS = HEIGHT * WIDTH, THREADS = 2 };

/* All of the weights, or NULL. */
static void *read_weights(const char *path)
{
    void *weights = aligned_alloc(UNET_ALIGN, UNET_WEIGHTS_BYTES);
    FILE *in = fopen(path, "rb");
    if (!in || !weights || fread(weights, 1, UNET_WEIGHTS_BYTES, in) != UNET_WEIGHTS_BYTES)
        return NULL;
    fclose(in);
    return weights;
}

/* The picture as [3][height][width]; false where it is none of the model's size. */
static bool read_ppm(const char *path, uint8_t *planes)
{
    int w, h, most, byte = 0;
    FILE *in = fopen(path, "rb");
    if (!in || fscanf(in, "P6 %d %d %d", &w, &h, &most) != 3 || fgetc(in) == EOF)
        return false;
    for (int i = 0; w == WIDTH && h == HEIGHT && i < PIXELS * 3 && (byte = fgetc(in)) != EOF; i++)
        planes[i % 3 * PIXELS + i / 3] = (uint8_t)byte;
    fclose(in);
    return w == WIDTH && h == HEIGHT && most == 255 && byte != EOF;
}

int main(int argc, char **argv)
{
    static uint8_t image[3 * PIXELS];
    static float probability[PIXELS];
    Unet net;
    const size_t bytes = UNET_ARENA_BYTES(1, THREADS);
    void *weights = argc == 3 ? read_weights(argv[1]) : NULL;
    void *arena = aligned_alloc(UNET_ALIGN, bytes);
    if (!weights)
        return fprintf(stderr, "usage: exported unet.weights PICTURE.ppm > MASK.pgm\n"), 2;
    const char *wrong = unet_open(&net, weights, UNET_WEIGHTS_BYTES, arena, bytes, 1, THREADS);
    if (wrong)
        return fprintf(stderr, "exported: %s: %s\n", argv[1], wrong), 1;
    if (!read_ppm(argv[2], image))
        return fprintf(stderr, "exported: %s: not a PPM of %d x %d\n", argv[2], WIDTH, HEIGHT), 1;
    unet_predict(&net, 1, image, probability);
    printf("P5\n%d %d\n255\n", WIDTH, HEIGHT);
    for (int i = 0; i < PIXELS; i++)
        putchar(probability[i] >= 0.5f ? 255 : 0);
    free(arena);
    free(weights);
    return 0;
}
