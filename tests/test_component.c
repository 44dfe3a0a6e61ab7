/* runtime/component.c against flood filling, on random masks and on shapes with known answers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/data.h"

enum { MOST = 40 };

static int fill(const uint8_t *mask, int *label, int width, int height, int x, int y, int name)
{
    if (x < 0 || y < 0 || x >= width || y >= height || !mask[y * width + x] || label[y * width + x])
        return 0;
    label[y * width + x] = name;
    return 1 + fill(mask, label, width, height, x + 1, y, name)
        + fill(mask, label, width, height, x - 1, y, name)
        + fill(mask, label, width, height, x, y + 1, name)
        + fill(mask, label, width, height, x, y - 1, name);
}

/* The first of the largest, in reading order. */
static void largest_by_filling(uint8_t *mask, int width, int height)
{
    static int label[MOST * MOST];
    int best = 0, most = 0, name = 0;
    memset(label, 0, sizeof label);
    for (int i = 0; i < width * height; i++) {
        int pixels = fill(mask, label, width, height, i % width, i / width, ++name);
        if (pixels > most) {
            most = pixels;
            best = name;
        }
    }
    for (int i = 0; i < width * height; i++)
        mask[i] = mask[i] && label[i] == best ? mask[i] : 0;
}

static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

int main(void)
{
    int passed = 0, failed = 0;
    uint32_t state = 1;
    for (int trial = 0; trial < 400; trial++) {
        static uint8_t mask[MOST * MOST], expected[MOST * MOST];
        int width = 1 + (int)(random_next(&state) % MOST), height = 1 + (int)(random_next(&state) % MOST);
        uint32_t density = random_next(&state) % 101;
        for (int i = 0; i < width * height; i++)
            mask[i] = random_next(&state) % 100 < density ? 255 : 0;
        memcpy(expected, mask, sizeof mask);
        largest_by_filling(expected, width, height);
        bool same = keep_largest_component(mask, width, height)
            && !memcmp(mask, expected, (size_t)(width * height));
        if (!same)
            printf("FAIL %d x %d, %u %%\n", width, height, density);
        same ? passed++ : failed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
