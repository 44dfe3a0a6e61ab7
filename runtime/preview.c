/* `segrun data preview`: training pictures before and after augmentation, on one sheet.
 *
 * A row is a picture: as it is, then as the loader gives it in epochs 0 to 3. The outline of the mask
 * is drawn over each, so that one sees whether picture and mask moved together. The pictures come
 * from the loader itself: what is shown is what training gets.
 */
#include "commands.h"

#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 5, GAP = 4 };

/* A cell of the sheet; pixels at the mask's border are red. */
static void draw(uint8_t *sheet, int sheet_width, int row, int column, const uint8_t *image,
                 const uint8_t *mask, int size)
{
    size_t plane = (size_t)size * (size_t)size;
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            size_t at = (size_t)y * (size_t)size + (size_t)x;
            bool edge = (x > 0 && mask[at] != mask[at - 1])
                     || (y > 0 && mask[at] != mask[at - (size_t)size]);
            int to_y = GAP + row * (size + GAP) + y, to_x = GAP + column * (size + GAP) + x;
            uint8_t *to = sheet + 3 * ((size_t)to_y * (size_t)sheet_width + (size_t)to_x);
            for (int c = 0; c < 3; c++)
                to[c] = edge ? (c == 0 ? 255 : 0) : image[(size_t)c * plane + at];
        }
}

static bool draw_epoch(Dataset *data, const LoaderOptions *wanted, int count, uint8_t *sheet,
                       int sheet_width, Error *error)
{
    Loader *loader = loader_open(data, wanted, error);
    Batch batch;
    int row = 0, size = dataset_width(data);
    bool fine = loader != NULL;
    while (fine && row < count && (fine = loader_next(loader, &batch, error)) && batch.n > 0)
        for (int i = 0; i < batch.n && row < count; i++, row++) {
            size_t plane = (size_t)size * (size_t)size;
            draw(sheet, sheet_width, row, wanted->epoch + 1, batch.images + (size_t)i * 3 * plane,
                 batch.masks + (size_t)i * plane, size);
        }
    loader_close(loader);
    return fine;
}

static bool preview(const Options *options, Dataset *data, Error *error)
{
    int size = (int)options->size, there = dataset_count(data, SPLIT_TRAIN);
    int count = (int)options->count < there ? (int)options->count : there;
    int width = GAP + COLUMNS * (size + GAP), height = GAP + count * (size + GAP);
    LoaderOptions wanted = { .split = SPLIT_TRAIN, .batch = 4, .flip = options->flip[0] == 'y',
                             .seed = options->seed, .workers = 1 };
    if (!augment_parse(options->augment, &wanted.augment, error))
        return false;
    uint8_t *sheet = malloc(3 * (size_t)width * (size_t)height);
    if (!sheet)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the sheet");
    memset(sheet, 255, 3 * (size_t)width * (size_t)height);
    bool fine = true;
    for (int i = 0; fine && i < count; i++) {
        const uint8_t *image, *mask;
        fine = dataset_load(data, SPLIT_TRAIN, i, &image, &mask, error);
        if (fine)
            draw(sheet, width, i, 0, image, mask, size);
    }
    for (wanted.epoch = 0; fine && wanted.epoch < COLUMNS - 1; wanted.epoch++)
        fine = draw_epoch(data, &wanted, count, sheet, width, error);
    fine = fine && image_write_png(options->output, sheet, width, height, 3, error);
    free(sheet);
    return fine;
}

int command_data_preview(const Options *options)
{
    Options with = *options;
    Session session = { .options = &with };
    Error error = { 0 };
    Augmentation checked;
    with.data = options->operands[0];
    progress_open(&session.progress, stderr, options->quiet);
    const PlanTensor image = { .dims = { 3, options->size, options->size } };
    const bool third = outline_of(options->outline) == OUTLINE_CLASS;
    const ProgramTensors tensors = { .image = &image,
                                     .classes = third ? 3 : (int)options->classes };
    bool fine = augment_parse(options->augment, &checked, &error);
    Dataset *data = fine ? session_dataset(&session, SPLITS_TRAINING,
                                           outline_of(options->outline), (int)options->count,
                                           &tensors, &error)
                         : NULL;
    fine = data && preview(&with, data, &error);
    progress_clear(&session.progress);
    if (data)
        dataset_close(data);
    if (!fine)
        return report(&error);
    if (!options->quiet)
        printf("%s: each picture, then as in four epochs\n", options->output);
    return EXIT_FINE;
}
