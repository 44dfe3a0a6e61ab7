/* A trained network inside a program of one's own: the mask of a picture, without segrun.
 *
 *     cc -O2 embed.c -o embed $(pkg-config --cflags --libs libsegrun)
 *     ./embed unet.plan unet.best.safetensors cat.ppm > cat.mask.pgm
 *
 * The picture is a binary PPM of the model's size (`convert cat.jpg -resize '256x256!' cat.ppm`).
 */
#include <segrun.h>
#include <stdio.h>
#include <stdlib.h>

/* The picture as [3][height][width], or NULL. */
static unsigned char *read_ppm(const char *path, int height, int width)
{
    int w, h, most;
    FILE *in = fopen(path, "rb");
    if (!in || fscanf(in, "P6 %d %d %d", &w, &h, &most) != 3 || fgetc(in) == EOF)
        return NULL;
    if (w != width || h != height || most != 255)
        return NULL;
    int pixels = width * height;
    unsigned char *planes = malloc((size_t)pixels * 3);
    for (int i = 0; planes && i < pixels * 3; i++)
        planes[i % 3 * pixels + i / 3] = (unsigned char)fgetc(in);
    fclose(in);
    return planes;
}

int main(int argc, char **argv)
{
    char why[SEG_MESSAGE];
    if (argc != 4)
        return fprintf(stderr, "usage: embed PLAN WEIGHTS PICTURE.ppm\n"), 2;
    SegNetwork *net = seg_open(argv[1], argv[2], NULL, why);
    if (!net)
        return fprintf(stderr, "embed: %s\n", why), 1;
    SegTensor in = seg_input(net, 0), out = seg_output(net, 0);
    unsigned char *image = read_ppm(argv[3], in.height, in.width);
    if (!image)
        return fprintf(stderr, "embed: %s: not a PPM of %d x %d\n", argv[3], in.width, in.height), 1;
    int pixels = out.height * out.width;
    float *probability = malloc((size_t)pixels * sizeof(float));
    const void *inputs[] = {image};
    void *outputs[] = {probability};
    if (!probability || !seg_run(net, 1, inputs, outputs))
        return fprintf(stderr, "embed: %s\n", seg_message(net)), 1;
    printf("P5\n%d %d\n255\n", out.width, out.height);
    for (int i = 0; i < pixels; i++)
        putchar(probability[i] >= 0.5f ? 255 : 0);
    free(probability);
    free(image);
    seg_close(net);
    return 0;
}
