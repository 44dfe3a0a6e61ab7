/* Masks of several classes: palette PNGs, names, data sets (with 255 and with trimaps), scores
 * against counting by hand, the largest part of each class. In a folder of its own.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/commands.h"

enum { SIDE = 24, PIXELS = SIDE * SIDE, COUNT = 12 };
static int passed, failed;
static char root[64];

static void check_at(bool good, const char *what, int line)
{
    passed += good;
    failed += !good;
    if (!good)
        printf("FAILED: line %d: %s\n", line, what);
}
#define CHECK(condition) check_at(condition, #condition, __LINE__)

static char *in(const char *folder, const char *file)
{
    static char paths[4][300];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s/%s", root, folder, file);
    return paths[next];
}

static void put(const char *path, const char *text)
{
    Error error;
    CHECK(file_write(path, text, strlen(text), &error));
}

/* ---- files ----------------------------------------------------------------------------------- */

static void test_palette(void)
{
    uint8_t classes[PIXELS];
    Image read;
    Error error;
    for (int i = 0; i < PIXELS; i++)
        classes[i] = (uint8_t)i;
    CHECK(image_write_classes(in(".", "all.png"), classes, SIDE, SIDE, &error));
    CHECK(image_read(in(".", "all.png"), IMAGE_CLASSES, &read, &error));
    CHECK(read.channels == 1 && memcmp(read.pixels, classes, PIXELS) == 0);
    CHECK(!classes_check(&read, 4, "all.png", &error)
          && strstr(error.text, "number 4 at column 4, row 0"));
    image_close(&read);
    CHECK(image_read(in(".", "all.png"), IMAGE_RGB, &read, &error));
    uint32_t third = (uint32_t)read.pixels[9] << 16 | (uint32_t)read.pixels[10] << 8 | read.pixels[11];
    CHECK(third == class_colour(3));
    image_close(&read);
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < a; b++)
            if (class_colour(a) == class_colour(b))
                CHECK(!"two classes of one colour");
}

static void test_names(void)
{
    NameList names;
    Error error;
    CHECK(folder_make(in("names", ""), &error));
    CHECK(classes_read(in("names", ""), &names, &error) && names.count == 0);
    put(in("names", "classes.txt"), "sky\nroad, wet\r\n  car \n");
    CHECK(classes_read(in("names", ""), &names, &error) && names.count == 3);
    CHECK(strcmp(names.names[1], "road, wet") == 0);
    list_close(&names);
    put(in("names", "classes.txt"), "sky\n\ncar\n");
    CHECK(!classes_read(in("names", ""), &names, &error) && strstr(error.text, "classes.txt:2:"));
}

/* ---- data sets ------------------------------------------------------------------------------- */

static Dataset *open_set(const char *folder, int classes, Outline outline, Error *error)
{
    DatasetOptions wanted = { .width = SIDE, .height = SIDE, .classes = classes, .outline = outline,
                              .no_cache = true };
    return dataset_open(in(folder, ""), &wanted, error);
}

/* Pixels of each number in the masks of a split. */
static void count_numbers(Dataset *data, Split split, int numbers[256])
{
    const uint8_t *image, *mask;
    Error error;
    memset(numbers, 0, 256 * sizeof *numbers);
    for (int i = 0; i < dataset_count(data, split); i++)
        if (dataset_load(data, split, i, &image, &mask, &error))
            for (int at = 0; at < PIXELS; at++)
                numbers[mask[at]]++;
}

/* A mask with two classes, 255 and a corner of the background. */
static void test_folders(void)
{
    SynthOptions drawn = { .count = COUNT, .size = SIDE, .classes = 4, .seed = 3 };
    uint8_t mask[PIXELS];
    int numbers[256];
    Error error;
    CHECK(data_synth(in("shapes", ""), &drawn, &error));
    for (int i = 0; i < PIXELS; i++)
        mask[i] = i == 0 ? 0 : i < SIDE ? 3 : i < 3 * SIDE ? 255 : 1;
    CHECK(image_write_classes(in("shapes", "masks/drawn_0003.png"), mask, SIDE, SIDE, &error));
    put(in("shapes", "test.txt"), "drawn_0003\n");
    Dataset *data = open_set("shapes", 4, OUTLINE_FOREGROUND, &error);
    CHECK(data != NULL);
    count_numbers(data, SPLIT_TEST, numbers);
    CHECK(numbers[0] == 1 && numbers[3] == SIDE - 1 && numbers[255] == 2 * SIDE
          && numbers[1] == PIXELS - 3 * SIDE);
    CHECK(strcmp(dataset_class(data, 2), "cross") == 0);
    dataset_close(data);
    data = open_set("shapes", 1, OUTLINE_FOREGROUND, &error);     /* one class: all but 0 */
    count_numbers(data, SPLIT_TEST, numbers);
    CHECK(numbers[1] == PIXELS - 1);
    dataset_close(data);
    CHECK(!open_set("shapes", 3, OUTLINE_FOREGROUND, &error) && strstr(error.text, "4 classes"));
    CHECK(unlink(in("shapes", "classes.txt")) == 0);
    CHECK(!open_set("shapes", 3, OUTLINE_FOREGROUND, &error)
          && strstr(error.text, ": number 3 at column "));
    data = open_set("shapes", 4, OUTLINE_FOREGROUND, &error);
    CHECK(strcmp(dataset_class(data, 2), "2") == 0);
    dataset_close(data);
}

static void test_trimaps(void)
{
    SynthOptions drawn = { .count = COUNT, .size = SIDE, .seed = 3 };
    int all[256], outside[256], third[256];
    Error error;
    CHECK(data_synth(in("pets", ""), &drawn, &error));
    Dataset *foreground = open_set("pets", 1, OUTLINE_FOREGROUND, &error);
    Dataset *background = open_set("pets", 2, OUTLINE_BACKGROUND, &error);
    Dataset *class = open_set("pets", 3, OUTLINE_CLASS, &error);
    CHECK(foreground && background && class);
    count_numbers(foreground, SPLIT_TRAIN, all);
    count_numbers(background, SPLIT_TRAIN, outside);
    count_numbers(class, SPLIT_TRAIN, third);
    CHECK(third[0] == all[0] && third[1] == outside[1] && third[2] == all[1] - outside[1]);
    CHECK(third[2] > 0 && third[0] + third[1] + third[2] == PIXELS * dataset_count(class, SPLIT_TRAIN));
    CHECK(strcmp(dataset_class(class, 2), "outline") == 0);
    dataset_close(foreground);
    dataset_close(background);
    dataset_close(class);
    CHECK(!open_set("pets", 3, OUTLINE_FOREGROUND, &error) && strstr(error.hint, "--outline class"));
    CHECK(!open_set("pets", 1, OUTLINE_CLASS, &error) && strstr(error.hint, "classes=3"));
}

/* ---- scores ---------------------------------------------------------------------------------- */

static void test_scores(void)
{
    enum { K = 3, N = 6 };
    const float p[K * N] = { 0.5f, 0.2f, 0.1f, 0.3f, 0.4f, 0.9f,      /* background */
                             0.5f, 0.7f, 0.2f, 0.4f, 0.2f, 0.1f,
                             0.0f, 0.1f, 0.7f, 0.3f, 0.4f, 0.0f };
    const uint8_t truth[N] = { 1, 1, 2, 1, 0, 255 }, wanted[N] = { 0, 1, 2, 1, 0, 0 };
    uint8_t predicted[N];
    ClassCount counts[4];
    double dice, iou;
    largest_classes(p, K, N, predicted);
    CHECK(memcmp(predicted, wanted, N) == 0);              /* of equals the first */
    count_classes(predicted, truth, N, K, counts);
    CHECK(counts[0].both == 1 && counts[0].predicted == 2 && counts[0].truth == 1);
    CHECK(counts[1].both == 2 && counts[1].predicted == 2 && counts[1].truth == 3);
    CHECK(counts[2].both == 1 && counts[2].predicted == 1 && counts[2].truth == 1);
    counts[3] = (ClassCount){ 0, 0, 0 };                   /* nowhere: does not count */
    score_classes(counts, 4, &dice, &iou);
    CHECK(fabs(dice - (2.0 / 3 + 4.0 / 5 + 1) / 3) < 1e-12);
    CHECK(fabs(iou - (1.0 / 2 + 2.0 / 3 + 1) / 3) < 1e-12);
    CHECK(isnan(class_dice(&counts[3])));
    score_classes(counts + 3, 1, &dice, &iou);
    CHECK(dice == 1 && iou == 1);
}

static void test_largest(void)
{
    uint8_t mask[20] = { 1, 1, 0, 1, 2,
                         0, 0, 2, 0, 2,
                         2, 2, 2, 0, 255,
                         0, 0, 0, 1, 1 };
    const uint8_t wanted[20] = { 1, 1, 0, 0, 0,
                                 0, 0, 2, 0, 0,
                                 2, 2, 2, 0, 255,
                                 0, 0, 0, 0, 0 };
    CHECK(classes_keep_largest(mask, 5, 4, 3) && memcmp(mask, wanted, 20) == 0);
}

int main(void)
{
    char command[100];
    Error error;
    snprintf(root, sizeof root, "/tmp/seg-test-classes-XXXXXX");
    if (!mkdtemp(root) || !folder_make(root, &error))
        return 1;
    test_palette();
    test_names();
    test_folders();
    test_trimaps();
    test_scores();
    test_largest();
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    if (system(command) != 0)
        printf("cannot remove %s\n", root);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
