/* Two exported networks in one program, or one with ONE_NETWORK: `program IN OUT` reads the bytes of
 * two pictures from IN and writes what the networks make of them to OUT. test_export_c.c builds it
 * in several ways.
 *
 * The arenas are full of NaN before, and exactly as large as the header says. Then the networks are
 * given what they must not take.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef ONE_NETWORK
#include "resnet34_unet.h"
#endif
#include "unet.h"

enum { BATCH = 2, THREADS = 2, PICTURE = 3 * 64 * 64, MAP = 64 * 64 };

static int wrong(const char *what, const char *why)
{
    fprintf(stderr, "program: %s: %s\n", what, why);
    return 1;
}

static char *read_file(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    char *data = aligned_alloc(64, bytes);
    if (!file || !data || fread(data, 1, bytes, file) != bytes || fgetc(file) != EOF)
        exit(wrong(path, "cannot be read, or has another size"));
    fclose(file);
    return data;
}

static int refuse_others(char *weights, char *arena, size_t size)
{
    Unet net;
    const size_t bytes = UNET_WEIGHTS_BYTES;
    if (!unet_open(&net, weights + 8, bytes - 8, arena, size, BATCH, THREADS))
        return wrong("unet", "takes weights from anywhere");
    if (!unet_open(&net, weights, bytes, arena, size - 1, BATCH, THREADS))
        return wrong("unet", "takes a small arena");
    if (!unet_open(&net, weights, bytes, arena, size, 0, THREADS))
        return wrong("unet", "takes a batch of 0");
    if (!unet_open(&net, weights, bytes - 64, arena, size, BATCH, THREADS))
        return wrong("unet", "takes a cut file");
    if (!unet_open(&net, weights, 7, arena, size, BATCH, THREADS))
        return wrong("unet", "takes seven bytes");
    for (size_t at = 0; at < bytes; at = at < 64 ? at + 1 : at + bytes / 9) {
        weights[at] ^= 1;
        if (!unet_open(&net, weights, bytes, arena, size, BATCH, THREADS))
            return wrong("unet", "takes damaged weights");
        weights[at] ^= 1;
    }
    return 0;
}

static int predict_unet(const unsigned char *pictures, float *result)
{
    static float again[MAP];
    Unet net;
    const size_t size = UNET_ARENA_BYTES(BATCH, THREADS);
    char *weights = read_file("unet.weights", UNET_WEIGHTS_BYTES), *arena = aligned_alloc(64, size);
    memset(arena, 0xff, size);
    if (refuse_others(weights, arena, size))
        return 1;
    const char *why = unet_open(&net, weights, UNET_WEIGHTS_BYTES, arena, size, BATCH, THREADS);
    if (why)
        return wrong("unet", why);
    if (unet_predict(&net, BATCH + 1, pictures, result) || unet_predict(&net, 0, pictures, result))
        return wrong("unet", "takes any batch");
    if (!unet_predict(&net, BATCH, pictures, result)
        || !unet_predict(&net, 1, pictures + PICTURE, again))
        return wrong("unet", "does not predict");
    if (memcmp(again, result + MAP, sizeof again))
        return wrong("unet", "another result for one picture than for two");
    free(weights);
    free(arena);
    return 0;
}

#ifndef ONE_NETWORK
static int predict_resnet(const unsigned char *pictures, float *result)
{
    Resnet34Unet net;
    Unet other;
    const size_t bytes = RESNET34_UNET_WEIGHTS_BYTES;
    const size_t size = RESNET34_UNET_ARENA_BYTES(BATCH, THREADS);
    char *weights = read_file("resnet34_unet.weights", bytes), *arena = aligned_alloc(64, size);
    memset(arena, 0xff, size);
    if (!unet_open(&other, weights, bytes, arena, size, 1, 1))
        return wrong("unet", "takes weights of another network");
    const char *why = resnet34_unet_open(&net, weights, bytes, arena, size, BATCH, THREADS);
    if (why)
        return wrong("resnet34_unet", why);
    if (!resnet34_unet_predict(&net, BATCH, pictures, result))
        return wrong("resnet34_unet", "does not predict");
    free(weights);
    free(arena);
    return 0;
}
#endif

int main(int argc, char **argv)
{
    static float results[2 * BATCH * MAP];
    if (argc != 3)
        return wrong("usage", "program IN OUT");
    unsigned char *pictures = (unsigned char *)read_file(argv[1], BATCH * PICTURE);
    if (predict_unet(pictures, results))
        return 1;
#ifndef ONE_NETWORK
    if (predict_resnet(pictures, results + BATCH * MAP))
        return 1;
#endif
    FILE *out = fopen(argv[2], "wb");
    if (!out || fwrite(results, sizeof results, 1, out) != 1 || fclose(out))
        return wrong(argv[2], "cannot be written");
    free(pictures);
    return 0;
}
