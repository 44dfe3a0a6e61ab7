/* pictures FOLDER SIZE COUNT FILE: the first pictures of a data set as one file of bytes.
 *
 * FILE gets COUNT pictures [3][SIZE][SIZE] of the train split, then their masks [1][SIZE][SIZE] of
 * 0 and 1: what is needed of a data set where no picture can be decoded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"

static bool write_samples(Dataset *data, int count, size_t pixels, const char *path, Error *error)
{
    uint8_t *images = malloc(4 * pixels * (size_t)count);
    uint8_t *masks = images + 3 * pixels * (size_t)count;
    bool good = images || fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the pictures");
    for (int i = 0; good && i < count; i++) {
        const uint8_t *image, *mask;
        good = dataset_load(data, SPLIT_TRAIN, i, &image, &mask, error);
        if (good) {
            memcpy(images + 3 * pixels * (size_t)i, image, 3 * pixels);
            memcpy(masks + pixels * (size_t)i, mask, pixels);
        }
    }
    good = good && file_write(path, images, 4 * pixels * (size_t)count, error);
    free(images);
    return good;
}

int main(int argc, char **argv)
{
    int size = argc == 5 ? atoi(argv[2]) : 0, count = argc == 5 ? atoi(argv[3]) : 0;
    if (size < 1 || count < 1) {
        fprintf(stderr, "usage: pictures FOLDER SIZE COUNT FILE\n");
        return EXIT_USAGE;
    }
    Error error = { 0 };
    DatasetOptions wanted = { .width = size, .height = size, .splits = 1u << SPLIT_TRAIN,
                              .limit = count, .no_cache = true };
    Dataset *data = dataset_open(argv[1], &wanted, &error);
    bool good = data && (dataset_count(data, SPLIT_TRAIN) == count
                         || fail(&error, EXIT_USER, "", "%s has fewer pictures", argv[1]))
                && write_samples(data, count, (size_t)size * (size_t)size, argv[4], &error);
    if (data)
        dataset_close(data);
    if (!good)
        fprintf(stderr, "pictures: error: %s\n", error.text);
    return good ? EXIT_FINE : (int)error.code;
}
