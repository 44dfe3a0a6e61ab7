/* The data set, its cache, the loader, the drawn data set and its check, on drawn pictures in a
 * folder of its own; and decoders against hostile files: every truncation and many flipped bytes of
 * the small files in tests/golden/data/decode.txt. timeout: 300
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "runtime/data.h"

enum { COUNT = 60, SIDE = 48 };          /* drawn: 45 trainval (5 valid), 15 test */

static int passed, failed;
static char root[64], pets[100], cache[100];   /* made by main */
static char warnings[4000];                    /* what the callback got, a line each */
static int progress_calls;

static void check_at(bool good, const char *what, int line)
{
    if (good) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED: line %d: %s\n", line, what);
}
#define CHECK(condition) check_at(condition, #condition, __LINE__)

static void on_warning(void *context, const char *line)
{
    (void)context;
    size_t used = strlen(warnings);
    snprintf(warnings + used, sizeof warnings - used, "%s\n", line);
}

static bool on_progress(void *context, int done, int total)
{
    (void)context, (void)done, (void)total;
    progress_calls++;
    return true;
}

static bool stop_at_once(void *context, int done, int total)
{
    (void)context, (void)done, (void)total;
    return false;
}

static DatasetOptions options(void)
{
    warnings[0] = '\0';
    progress_calls = 0;
    return (DatasetOptions){ .width = SIDE,
                             .height = SIDE,
                             .cache_folder = cache,
                             .warn = on_warning,
                             .progress = on_progress };
}

static char *in(const char *folder, const char *name)
{
    static char paths[4][400];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put(const char *path, const void *bytes, size_t size)
{
    Error error;
    if (!file_write(path, bytes, size, &error)) printf("%s\n", error.text);
}

/* A file's bytes for as long as the test changes it. */
typedef struct { char path[400]; char *bytes; size_t size; } Saved;

static Saved save(const char *path)
{
    Saved saved;
    Error error;
    snprintf(saved.path, sizeof saved.path, "%s", path);
    saved.bytes = file_read(path, &saved.size, &error);
    if (saved.bytes == NULL) {
        printf("%s\n", error.text);
        exit(1);
    }
    return saved;
}

static void restore(Saved *saved)
{
    put(saved->path, saved->bytes, saved->size);
    free(saved->bytes);
}

/* The only file in the cache's folder, or an empty name. */
static char *cache_file(const char *ending)
{
    static char path[400];
    path[0] = '\0';
    DIR *directory = opendir(cache);
    for (struct dirent *entry; directory && (entry = readdir(directory)) != NULL;) {
        if (strstr(entry->d_name, ending) == NULL) continue;
        snprintf(path, sizeof path, "%s/%.200s", cache, entry->d_name);
    }
    if (directory) closedir(directory);
    return path;
}

static void clear_cache(void)
{
    while (cache_file(".pictures")[0] != '\0') unlink(cache_file(".pictures"));
}

/* Of all samples of a split, with their names. */
static uint64_t split_hash(Dataset *dataset, Split split)
{
    uint64_t hash = 0;
    const uint8_t *image, *mask;
    Error error;
    for (int i = 0; i < dataset_count(dataset, split); i++) {
        if (!dataset_load(dataset, split, i, &image, &mask, &error)) {
            printf("%s\n", error.text);
            return 0;
        }
        hash =
            XXH64(dataset_name(dataset, split, i), strlen(dataset_name(dataset, split, i)), hash);
        hash = XXH64(image, 3 * SIDE * SIDE, hash);
        hash = XXH64(mask, SIDE * SIDE, hash);
    }
    return hash;
}

/* ---- lists, splits, rules ---- */

static void test_lists(void)
{
    NameList list;
    Error error;
    const char *path = in(root, "list.txt");
    const char text[] = "# a comment\r\ncat_1 1 1 1\r\n\n  dog_2\t2 2 1\ndog_3";
    put(path, text, sizeof text - 1);
    CHECK(list_read(path, &list, &error) && list.count == 3);
    CHECK(strcmp(list.names[0], "cat_1") == 0 && strcmp(list.names[1], "dog_2") == 0
          && strcmp(list.names[2], "dog_3") == 0);
    list_close(&list);
    put(path, "cat_1 1\n../secret 1\n", 20);
    CHECK(!list_read(path, &list, &error) && strstr(error.text, "list.txt:2:") != NULL);
    put(path, "# nothing\n", 10);
    CHECK(!list_read(path, &list, &error) && strstr(error.text, "no names") != NULL);
    unlink(path);
    DatasetOptions wanted = options();
    CHECK(dataset_open(in(root, "nowhere"), &wanted, &error) == NULL && error.code == EXIT_USER);
    CHECK(strstr(error.text, "nowhere/annotations/trainval.txt") != NULL && error.hint[0] != '\0');
}

static void test_splits(void)
{
    DatasetOptions wanted = options();
    Error error;
    Dataset *dataset = dataset_open(pets, &wanted, &error);
    CHECK(dataset != NULL);
    CHECK(dataset_count(dataset, SPLIT_TRAIN) == 40 && dataset_count(dataset, SPLIT_VALID) == 5
          && dataset_count(dataset, SPLIT_TEST) == 15);
    /* Every fourth picture is test; line 10 of the others is picture 13. */
    CHECK(strcmp(dataset_name(dataset, SPLIT_VALID, 0), "drawn_0000") == 0);
    CHECK(strcmp(dataset_name(dataset, SPLIT_VALID, 1), "drawn_0013") == 0);
    CHECK(strcmp(dataset_name(dataset, SPLIT_TRAIN, 0), "drawn_0001") == 0);
    CHECK(strcmp(dataset_name(dataset, SPLIT_TEST, 0), "drawn_0003") == 0);
    char *path = dataset_image_path(dataset, SPLIT_TEST, 0);
    CHECK(access(path, R_OK) == 0);
    free(path);
    uint64_t key = dataset_key(dataset, SPLIT_TRAIN);
    dataset_close(dataset);

    wanted = options();
    wanted.limit = 3;
    wanted.splits = SPLITS_TRAINING;
    dataset = dataset_open(pets, &wanted, &error);
    CHECK(dataset != NULL && dataset_count(dataset, SPLIT_TRAIN) == 3
          && dataset_count(dataset, SPLIT_VALID) == 3 && dataset_count(dataset, SPLIT_TEST) == 0);
    CHECK(strcmp(dataset_name(dataset, SPLIT_VALID, 1), "drawn_0013") == 0);
    CHECK(dataset_key(dataset, SPLIT_TRAIN) != key);
    dataset_close(dataset);
}

static int mask_sum(bool outline_background)
{
    DatasetOptions wanted = options();
    wanted.outline = outline_background ? OUTLINE_BACKGROUND : OUTLINE_FOREGROUND;
    wanted.splits = 1 << SPLIT_TEST;
    Error error;
    int sum = 0, others = 0;
    const uint8_t *image, *mask;
    Dataset *dataset = dataset_open(pets, &wanted, &error);
    for (int i = 0; dataset && i < dataset_count(dataset, SPLIT_TEST); i++)
        if (dataset_load(dataset, SPLIT_TEST, i, &image, &mask, &error))
            for (int p = 0; p < SIDE * SIDE; p++) {
                sum += mask[p];
                others += mask[p] > 1;
            }
    dataset_close(dataset);
    return others == 0 ? sum : -1;
}

static void test_outline(void)
{
    int foreground = mask_sum(false), background = mask_sum(true);
    CHECK(background > 0 && foreground > background);
}

/* Makes one listed picture bad in a way, and looks at both --on-bad rules. */
static void test_bad(const char *file, const void *bytes, size_t size, const char *text)
{
    Saved saved = save(in(pets, file));
    Error error;
    if (bytes == NULL)
        unlink(saved.path);
    else
        put(saved.path, bytes, size);
    DatasetOptions wanted = options();
    wanted.splits = SPLITS_TRAINING;
    CHECK(dataset_open(pets, &wanted, &error) == NULL && error.code == EXIT_USER);
    CHECK(strstr(error.text, text) != NULL && strstr(error.text, strrchr(file, '/') + 1) != NULL);
    for (int again = 0; again < 2; again++) {      /* the second time from the cache */
        wanted = options();
        wanted.splits = SPLITS_TRAINING;
        wanted.skip_bad = true;
        Dataset *dataset = dataset_open(pets, &wanted, &error);
        CHECK(dataset != NULL && dataset_count(dataset, SPLIT_TRAIN) == 39
              && dataset_count(dataset, SPLIT_VALID) == 5
              && dataset_skipped(dataset, SPLIT_TRAIN) == 1);
        CHECK(strcmp(dataset_name(dataset, SPLIT_TRAIN, 0), "drawn_0002") == 0
              && strcmp(dataset_name(dataset, SPLIT_VALID, 1), "drawn_0013") == 0);
        CHECK(strstr(warnings, "skipped drawn_0001") != NULL && strstr(warnings, text) != NULL);
        CHECK(again == 0 || progress_calls == 0);
        dataset_close(dataset);
    }
    wanted = options();                            /* what was skipped before is an error again */
    wanted.splits = SPLITS_TRAINING;
    CHECK(dataset_open(pets, &wanted, &error) == NULL && strstr(error.text, text) != NULL);
    restore(&saved);
}

static void test_bad_files(void)
{
    const char *image = "images/drawn_0001.jpg", *trimap = "annotations/trimaps/drawn_0001.png";
    Saved good = save(in(pets, image));
    Saved other = save(in(pets, "annotations/trimaps/drawn_0005.png"));
    Error error;
    uint8_t zeros[20 * 20] = { 0 };
    test_bad(image, good.bytes, good.size / 2, "truncated");
    test_bad(image, good.bytes, good.size - 2, "truncated");
    test_bad(image, "hello", 5, "not a JPEG");
    test_bad(image, "", 0, "empty");
    test_bad(image, NULL, 0, "missing");
    test_bad(trimap, NULL, 0, "missing");
    test_bad(trimap, other.bytes, other.size, "its picture");
    test_bad(trimap, other.bytes, other.size / 2, "broken PNG");
    char *odd = in(root, "odd.png");
    CHECK(image_write_png(odd, zeros, 20, 20, 1, &error));
    Image trimap_image;
    CHECK(!trimap_read(odd, 0, 0, &trimap_image, &error)
          && strstr(error.text, "value 0 at column 0"));
    CHECK(image_write_png(odd, zeros, 10, 10, 3, &error));
    CHECK(!trimap_read(odd, 0, 0, &trimap_image, &error) && strstr(error.text, "colour"));
    unlink(odd);
    put(good.path, good.bytes, good.size);
    free(good.bytes);
    free(other.bytes);
}

/* ---- cache ---- */

static uint64_t open_and_hash(DatasetOptions *wanted)
{
    Error error;
    wanted->splits = 1 << SPLIT_TRAIN;
    Dataset *dataset = dataset_open(pets, wanted, &error);
    if (dataset == NULL) {
        printf("%s\n", error.text);
        return 0;
    }
    uint64_t hash = split_hash(dataset, SPLIT_TRAIN);
    dataset_close(dataset);
    return hash;
}

/* Changes the cache file as it says; the samples must come out the same, with a warning. */
static void test_damage(uint64_t want, long at, long cut, const char *warning)
{
    char *path = cache_file(".pictures");
    FILE *file = fopen(path, "r+b");
    CHECK(file != NULL);
    if (file == NULL) return;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    if (cut > 0) {
        CHECK(ftruncate(fileno(file), size - cut) == 0);
    } else {
        fseek(file, at >= 0 ? at : size + at, SEEK_SET);
        int byte = fgetc(file);
        fseek(file, -1, SEEK_CUR);
        fputc(byte ^ 0x40, file);
    }
    fclose(file);
    DatasetOptions wanted = options();
    CHECK(open_and_hash(&wanted) == want);
    CHECK(strstr(warnings, warning) != NULL);
    wanted = options();
    CHECK(open_and_hash(&wanted) == want);             /* makes it where it was removed */
    CHECK(warnings[0] == '\0');
    wanted = options();
    CHECK(open_and_hash(&wanted) == want && progress_calls == 0);
}

static void test_cache(void)
{
    clear_cache();
    DatasetOptions wanted = options();
    wanted.no_cache = true;
    uint64_t want = open_and_hash(&wanted);
    CHECK(want != 0 && cache_file(".pictures")[0] == '\0');
    wanted = options();
    CHECK(open_and_hash(&wanted) == want && progress_calls > 0 && warnings[0] == '\0');
    wanted = options();
    CHECK(open_and_hash(&wanted) == want && progress_calls == 0);
    CHECK(cache_file("making")[0] == '\0');
    test_damage(want, 3, 0, "header");                 /* magic */
    test_damage(want, 20, 0, "header");                /* key */
    test_damage(want, 300, 0, "header");               /* index */
    test_damage(want, -100, 0, "damaged");             /* the last sample */
    test_damage(want, 0, 5, "length");
    test_damage(want, 0, 100000, "length");
    put(cache_file(".pictures"), "", 0);
    wanted = options();
    CHECK(open_and_hash(&wanted) == want && strstr(warnings, "length") != NULL);
}

static void test_cache_places(void)
{
    clear_cache();
    DatasetOptions wanted = options();
    wanted.no_cache = true;
    uint64_t want = open_and_hash(&wanted);
    wanted = options();
    wanted.cache_folder = "/dev/null/seg";             /* no folder can be made there */
    CHECK(open_and_hash(&wanted) == want && strstr(warnings, "in memory") != NULL);

    struct rlimit old, small = { 100000, RLIM_INFINITY };   /* no space */
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    wanted = options();
    uint64_t hash = open_and_hash(&wanted);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    CHECK(hash == want && strstr(warnings, "in memory") != NULL);
    CHECK(cache_file("making")[0] == '\0' && cache_file(".pictures")[0] == '\0');

    wanted = options();
    wanted.progress = stop_at_once;
    Error error;
    CHECK(dataset_open(pets, &wanted, &error) == NULL && error.code == EXIT_INTERRUPTED);
    CHECK(cache_file("making")[0] == '\0' && cache_file(".pictures")[0] == '\0');

    wanted = options();                                /* a changed file means a new cache */
    CHECK(open_and_hash(&wanted) == want);
    Saved first = save(in(pets, "images/drawn_0001.jpg"));
    Saved other = save(in(pets, "images/drawn_0001.jpg"));
    put(other.path, other.bytes, other.size);
    wanted = options();
    CHECK(open_and_hash(&wanted) == want && progress_calls > 0);
    free(other.bytes);
    restore(&first);

    setenv("SEG_CACHE", "/a", 1);
    char *folder = cache_folder();
    CHECK(strcmp(folder, "/a") == 0);
    free(folder);
    unsetenv("SEG_CACHE");
    setenv("XDG_CACHE_HOME", "/b", 1);
    folder = cache_folder();
    CHECK(strcmp(folder, "/b/seg") == 0);
    free(folder);
}

/* ---- loader ---- */

typedef struct {
    int n, samples[COUNT], batches, flipped, last;
    uint64_t hash;              /* of everything, in order */
    uint64_t bytes[COUNT];      /* of each sample as it came */
    bool flips[COUNT];
} Epoch;

static Epoch run_epoch(Dataset *dataset, LoaderOptions wanted, int skip)
{
    Epoch epoch = { 0 };
    Error error;
    Batch batch;
    Loader *loader = loader_open(dataset, &wanted, &error);
    if (skip > 0) loader_skip(loader, skip);
    while (loader_next(loader, &batch, &error) && batch.n > 0) {
        CHECK(batch.index == skip + epoch.batches);
        epoch.batches++;
        epoch.last = batch.n;
        epoch.hash = XXH64(batch.images, (size_t)batch.n * 3 * SIDE * SIDE, epoch.hash);
        epoch.hash = XXH64(batch.masks, (size_t)batch.n * SIDE * SIDE, epoch.hash);
        for (int i = 0; i < batch.n; i++) {
            epoch.flipped += batch.flipped[i];
            epoch.flips[batch.samples[i]] = batch.flipped[i];
            epoch.bytes[batch.samples[i]] =
                XXH64(batch.images + (size_t)i * 3 * SIDE * SIDE, 3 * SIDE * SIDE, 0);
            epoch.samples[epoch.n++] = batch.samples[i];
        }
    }
    CHECK(batch.n == 0);
    loader_close(loader);
    return epoch;
}

static void test_flip(Dataset *dataset, const Epoch *epoch)
{
    const uint8_t *image, *mask;
    static uint8_t mirrored[3 * SIDE * SIDE];
    Error error;
    int wrong = 0;
    for (int s = 0; s < dataset_count(dataset, SPLIT_TRAIN); s++) {
        CHECK(dataset_load(dataset, SPLIT_TRAIN, s, &image, &mask, &error));
        for (int y = 0; y < 3 * SIDE; y++)
            for (int x = 0; x < SIDE; x++)
                mirrored[y * SIDE + x] = image[y * SIDE + (epoch->flips[s] ? SIDE - 1 - x : x)];
        wrong += XXH64(mirrored, sizeof mirrored, 0) != epoch->bytes[s];
    }
    CHECK(wrong == 0);
}

static void test_loader(void)
{
    DatasetOptions data_options = options();
    Error error;
    Dataset *dataset = dataset_open(pets, &data_options, &error);
    LoaderOptions wanted = {
        .split = SPLIT_TRAIN, .batch = 7, .shuffle = true, .flip = true, .seed = 5, .epoch = 1
    };
    Epoch first = run_epoch(dataset, wanted, 0);
    CHECK(first.n == 40 && first.batches == 6 && first.last == 5);
    bool seen[COUNT] = { false };
    int distinct = 0, moved = 0;
    for (int i = 0; i < first.n; i++) {
        distinct += !seen[first.samples[i]];
        seen[first.samples[i]] = true;
        moved += first.samples[i] != i;
    }
    CHECK(distinct == 40 && moved > 30);
    int flipped = 0;                                   /* of 800: 400, deviation 14 */
    for (wanted.epoch = 1; wanted.epoch <= 20; wanted.epoch++)
        flipped += run_epoch(dataset, wanted, 0).flipped;
    CHECK(flipped > 340 && flipped < 460);
    wanted.epoch = 1;
    test_flip(dataset, &first);
    for (wanted.workers = 1; wanted.workers <= 8; wanted.workers++)
        CHECK(run_epoch(dataset, wanted, 0).hash == first.hash);
    wanted.workers = 0;
    Epoch rest = run_epoch(dataset, wanted, 4);
    CHECK(rest.n == 12 && memcmp(rest.samples, first.samples + 28, 12 * sizeof *rest.samples) == 0);
    CHECK(run_epoch(dataset, wanted, 6).n == 0);
    wanted.epoch = 2;
    CHECK(run_epoch(dataset, wanted, 0).hash != first.hash);
    wanted.epoch = 1;
    wanted.seed = 6;
    CHECK(run_epoch(dataset, wanted, 0).hash != first.hash);
    wanted = (LoaderOptions){ .split = SPLIT_TEST, .batch = 100 };
    Epoch plain = run_epoch(dataset, wanted, 0);
    CHECK(plain.n == 15 && plain.batches == 1 && plain.flipped == 0);
    for (int i = 0; i < plain.n; i++) CHECK(plain.samples[i] == i);
    wanted.batch = 2;                                  /* closed early */
    Loader *loader = loader_open(dataset, &wanted, &error);
    Batch batch;
    CHECK(loader_batches(loader) == 8 && loader_next(loader, &batch, &error) && batch.n == 2);
    char *names = loader_names(loader, &batch);
    CHECK(strcmp(names, "drawn_0003, drawn_0007") == 0);
    free(names);
    loader_close(loader);
    dataset_close(dataset);
}

/* The order of an epoch is part of what a checkpoint means: it must not change between versions. */
static void test_order_fixed(void)
{
    DatasetOptions data_options = options();
    Error error;
    Dataset *dataset = dataset_open(pets, &data_options, &error);
    LoaderOptions wanted = {
        .split = SPLIT_TEST, .batch = 4, .shuffle = true, .flip = true, .seed = 1, .epoch = 1
    };
    Epoch epoch = run_epoch(dataset, wanted, 0);
    const char order[] = "14 0 4f 2f 9f 8f 3f 10 7 5 1f 6f 12 13 11 ";
    char text[200] = "";
    for (int i = 0; i < epoch.n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d%s ", epoch.samples[i],
                 epoch.flips[epoch.samples[i]] ? "f" : "");
    if (strcmp(text, order) != 0) printf("order: %s\n", text);
    CHECK(strcmp(text, order) == 0);
    dataset_close(dataset);
}

/* ---- drawn data set, check ---- */

static uint64_t file_hash(const char *path)
{
    Saved saved = save(path);
    uint64_t hash = XXH64(saved.bytes, saved.size, 0);
    free(saved.bytes);
    return hash;
}

static int run_check(char **text)
{
    size_t size;
    FILE *out = open_memstream(text, &size);
    int code = data_check(pets, 0, out, NULL, NULL);
    fclose(out);
    return code;
}

static void test_synth(void)
{
    Error error;
    char again[100];
    snprintf(again, sizeof again, "%s/again", root);
    SynthOptions wanted = { .count = 8, .seed = 1, .workers = 1 };
    CHECK(data_synth(again, &wanted, &error));
    CHECK(file_hash(in(again, "images/drawn_0005.jpg"))
          == file_hash(in(pets, "images/drawn_0005.jpg")));
    wanted.seed = 2;
    CHECK(!data_synth(again, &wanted, &error) && strstr(error.text, "not empty") != NULL);
    wanted.force = true;
    CHECK(data_synth(again, &wanted, &error));
    CHECK(file_hash(in(again, "images/drawn_0005.jpg"))
          != file_hash(in(pets, "images/drawn_0005.jpg")));
    put(in(again, "annotations/test.txt"), "Abyssinian_1 1 1 1\n", 19);
    CHECK(!data_synth(again, &wanted, &error) && strstr(error.text, "another data set") != NULL);
    wanted.count = 3;
    CHECK(!data_synth(in(root, "few"), &wanted, &error));
    wanted.count = 8;
    CHECK(!data_synth("/dev/null/pets", &wanted, &error) && error.code == EXIT_ENVIRONMENT);
}

static void test_check(void)
{
    char *text;
    CHECK(run_check(&text) == EXIT_FINE);
    CHECK(strstr(text, "train 40, valid 5, test 15") && strstr(text, "60 listed, 0 odd, 0 broken"));
    free(text);
    Saved picture = save(in(pets, "images/drawn_0002.jpg"));
    Saved cut = save(in(pets, "images/drawn_0003.jpg"));
    Saved trimap = save(in(pets, "annotations/trimaps/drawn_0002.png"));
    Image image;
    Error error;
    CHECK(image_parse(picture.bytes, picture.size, "drawn", IMAGE_RGB, &image, &error));
    CHECK(image_write_png(picture.path, image.pixels, image.width, image.height, 3, &error));
    memset(image.pixels, 2, (size_t)image.width * (size_t)image.height);
    CHECK(image_write_png(trimap.path, image.pixels, image.width, image.height, 1, &error));
    image_close(&image);
    CHECK(run_check(&text) == EXIT_FINE);
    CHECK(strstr(text, "images/drawn_0002.jpg is a PNG") && strstr(text, "2 odd, 0 broken"));
    CHECK(strstr(text, "trimaps/drawn_0002.png\n") != NULL);
    free(text);
    put(in(pets, "images/stray.jpg"), "GIF89a", 6);
    put(in(pets, "images/._stray.jpg"), "x", 1);
    put(in(pets, "images/stray.mat"), "x", 1);
    put(cut.path, cut.bytes, cut.size / 2);
    unlink(in(pets, "annotations/trimaps/drawn_0004.png"));
    CHECK(run_check(&text) == EXIT_USER);
    CHECK(strstr(text, "2 broken") && strstr(text, "truncated") && strstr(text, "drawn_0004.png"));
    CHECK(
        strstr(text, "1 not listed (1 GIF); 1 hidden (._*); 1 of another kind, such as stray.mat"));
    free(text);
    restore(&picture);
    restore(&cut);
    restore(&trimap);
}

/* ---- hostile files ---- */

static void decode_all(const uint8_t *bytes, size_t size)
{
    static const ImageMode modes[] = { IMAGE_RGB, IMAGE_GREY, IMAGE_CLASSES };
    for (int m = 0; m < 3; m++) {
        uint8_t *exact = malloc(size + (size == 0));   /* so that a read behind it is seen */
        memcpy(exact, bytes, size);
        Image image;
        Error error = { 0 };
        if (image_parse(exact, size, "hostile", modes[m], &image, &error))
            image_close(&image);
        else if (strstr(error.text, "hostile") == NULL)
            CHECK(!"the message names the file");
        free(exact);
    }
}

static void test_hostile(void)
{
    static uint8_t bytes[1 << 16];
    Error error;
    size_t length, files = 0;
    uint64_t state = 1;
    char *text = file_read("tests/golden/data/decode.txt", &length, &error), *rest = text;
    for (char *line; text && (line = strsep(&rest, "\n")) != NULL && *line != '\0'; files++) {
        const char *hex = strrchr(line, ' ') + 1;
        size_t size = 0;
        for (unsigned value; sscanf(hex + 2 * size, "%2x", &value) == 1;)
            bytes[size++] = (uint8_t)value;
        for (size_t cut = 0; cut < size; cut++) decode_all(bytes, cut);
        for (int i = 0; i < 300; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            size_t at = (state >> 33) % size;
            uint8_t old = bytes[at];
            bytes[at] = (uint8_t)(state >> 24);
            decode_all(bytes, size);
            bytes[at] = old;
        }
    }
    free(text);
    CHECK(files >= 20);
}

static void test_limits(void)
{
    /* A PNG of 20000 x 20000 in 45 bytes, and one without rows. */
    static const uint8_t large[] = { 0x89, 'P',  'N', 'G', 13,  10, 26, 10,   0,    0,    0,
                                     13,   'I',  'H', 'D', 'R', 0,  0,  0x4e, 0x20, 0,    0,
                                     0x4e, 0x20, 8,   2,   0,   0,  0,  0xc7, 0x1f, 0x3e, 0x0b };
    Image image;
    Error error;
    CHECK(!image_parse(large, sizeof large, "large", IMAGE_RGB, &image, &error));
    CHECK(!image_read(root, IMAGE_RGB, &image, &error));
    CHECK(!image_read(in(root, "nothing.jpg"), IMAGE_RGB, &image, &error));
    image = (Image){ 0 };
    CHECK(!image_allocate(&image, 20000, 20000, 3, "large", &error) && image.pixels == NULL
          && strstr(error.text, "20000 x 20000") != NULL);
    CHECK(!image_allocate(&image, 0, 5, 3, "flat", &error));
}

static void remove_folder(const char *folder)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) printf("cannot remove %s\n", folder);
}

int main(void)
{
    Error error;
    snprintf(root, sizeof root, "/tmp/seg-test-data-XXXXXX");
    if (mkdtemp(root) == NULL) return 1;
    snprintf(pets, sizeof pets, "%s/pets", root);
    snprintf(cache, sizeof cache, "%s/cache", root);
    SynthOptions drawn = { .count = COUNT, .seed = 1 };
    CHECK(data_synth(pets, &drawn, &error));
    test_lists();
    test_splits();
    test_outline();
    test_bad_files();
    test_cache();
    test_cache_places();
    test_loader();
    test_order_fixed();
    test_synth();
    test_check();
    test_hostile();
    test_limits();
    remove_folder(root);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
