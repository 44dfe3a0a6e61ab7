/* The Oxford-IIIT Pet data set: its lists, splits and rules, and samples at the model's size.
 *
 *     images/NAME.jpg  annotations/trimaps/NAME.png  annotations/trainval.txt  annotations/test.txt
 *
 * Line i of trainval.txt, comments and empty lines not counted, is valid where i % 10 == 0 and
 * train elsewhere; test.txt is test. The lists alone say what belongs to the set. Splits are fixed
 * first, then limited, and only then are broken samples left out, so that one of them never moves
 * another sample to a different split.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "data.h"

enum { RULE_VERSION = 1 };      /* of sample_decode: a change makes old caches unused */
enum { TRIMAP_PET = 1, TRIMAP_BACKGROUND = 2, TRIMAP_OUTLINE = 3 };

typedef struct {
    int n_names, n_kept;
    char **names;               /* all of the split after the limit; owned by the lists */
    int *kept;                  /* those not left out: indexes into names */
    uint64_t key;
    Cache *cache;               /* NULL where the split was not asked for */
} SplitData;

struct Dataset {
    char *folder;
    DatasetOptions options;
    bool general;               /* images/ and masks/ */
    NameList trainval, test;
    NameList lists[SPLIT_COUNT]; /* of the general layout */
    NameList classes;           /* their names; none: they are called by their numbers */
    SplitData splits[SPLIT_COUNT];
};

const char *split_name(Split split)
{
    static const char *const names[] = { "train", "valid", "test" };
    return names[split];
}

static char *join(const char *folder, const char *middle, const char *name, const char *end)
{
    size_t size = strlen(folder) + strlen(middle) + strlen(name) + strlen(end) + 1;
    char *path = malloc(size);
    if (path != NULL) snprintf(path, size, "%s%s%s%s", folder, middle, name, end);
    return path;
}

static char *image_path_of(const Dataset *dataset, const char *name)
{
    return dataset->general ? folders_image_path(dataset->folder, name)
                            : join(dataset->folder, "/images/", name, ".jpg");
}

static char *mask_path_of(const Dataset *dataset, const char *name)
{
    return join(dataset->folder, dataset->general ? "/masks/" : "/annotations/trimaps/", name, ".png");
}

/* ---- lists ---- */

void list_close(NameList *list)
{
    for (int i = 0; i < list->count; i++) free(list->names[i]);
    free(list->names);
    *list = (NameList){ 0 };
}

bool list_add(NameList *list, const char *name, size_t length)
{
    if ((list->count & (list->count - 1)) == 0) {      /* room doubles at powers of two */
        size_t room = list->count == 0 ? 1 : 2 * (size_t)list->count;
        char **names = realloc(list->names, room * sizeof *names);
        if (names == NULL) return false;
        list->names = names;
    }
    char *copy = strndup(name, length);
    if (copy == NULL) return false;
    list->names[list->count++] = copy;
    return true;
}

bool list_read(const char *path, NameList *list, Error *error)
{
    *list = (NameList){ 0 };
    size_t size;
    char *text = file_read(path, &size, error);
    if (text == NULL) return false;
    bool good = true;
    int line_number = 0;
    for (char *line = text, *next; good && line < text + size; line = next) {
        line_number++;
        char *end = memchr(line, '\n', (size_t)(text + size - line));
        next = end == NULL ? text + size : end + 1;
        if (end != NULL) *end = '\0';
        line += strspn(line, " \t\r");
        size_t length = strcspn(line, " \t\r");
        if (length == 0 || *line == '#') continue;
        if (length > 200 || memchr(line, '/', length) != NULL || *line == '.')
            good = fail(error, EXIT_USER, "a line is: NAME CLASS SPECIES BREED",
                        "%s:%d: '%.40s' is no name of a picture", path, line_number, line);
        else if (!list_add(list, line, length))
            good = fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    }
    free(text);
    if (good && list->count == 0)
        good = fail(error, EXIT_USER, "", "%s: no names in this list", path);
    if (!good) list_close(list);
    return good;
}

static bool read_general(Dataset *dataset, Error *error)
{
    if (!folders_read(dataset->folder, dataset->lists, error)) return false;
    for (int s = 0; s < SPLIT_COUNT; s++) {
        SplitData *data = &dataset->splits[s];
        const NameList *list = &dataset->lists[s];
        int limit = dataset->options.limit;
        data->n_names = limit > 0 && limit < list->count ? limit : list->count;
        data->names = malloc(((size_t)list->count + 1) * sizeof *data->names);
        data->kept = malloc(((size_t)list->count + 1) * sizeof *data->kept);
        if (data->names == NULL || data->kept == NULL)
            return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
        for (int i = 0; i < data->n_names; i++) data->names[i] = list->names[i];
    }
    return true;
}

/* Reads the lists that are needed and fills n_names and names of the splits. */
static bool read_lists(Dataset *dataset, Error *error)
{
    unsigned wanted = dataset->options.splits;
    const char *files[] = { "trainval.txt", "test.txt" };
    NameList *lists[] = { &dataset->trainval, &dataset->test };
    unsigned needed[] = { SPLITS_TRAINING, 1 << SPLIT_TEST };
    for (int i = 0; i < 2; i++) {
        if ((wanted & needed[i]) == 0) continue;
        char *path = join(dataset->folder, "/annotations/", files[i], "");
        if (path == NULL) return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
        struct stat status;
        bool read = stat(path, &status) == 0
            ? list_read(path, lists[i], error)
            : fail(error, EXIT_USER, "the folder of a data set holds images/ and annotations/, or images/ and masks/",
                   "%s: no such file", path);
        free(path);
        if (!read) return false;
    }
    int limit = dataset->options.limit;
    SplitData *splits = dataset->splits;
    for (int s = 0; s < SPLIT_COUNT; s++) {
        size_t room = (size_t)dataset->trainval.count + (size_t)dataset->test.count;
        splits[s].names = malloc(room * sizeof *splits[s].names);
        splits[s].kept = malloc(room * sizeof *splits[s].kept);
        if (splits[s].names == NULL || splits[s].kept == NULL)
            return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    }
    for (int i = 0; i < dataset->trainval.count + dataset->test.count; i++) {
        bool test = i >= dataset->trainval.count;
        SplitData *data = &splits[test ? SPLIT_TEST : i % 10 == 0 ? SPLIT_VALID : SPLIT_TRAIN];
        if (limit > 0 && data->n_names >= limit) continue;
        data->names[data->n_names++] =
            test ? dataset->test.names[i - dataset->trainval.count] : dataset->trainval.names[i];
    }
    return true;
}

/* ---- samples ---- */

bool trimap_read(const char *path, int width, int height, Image *trimap, Error *error)
{
    if (!image_read(path, IMAGE_CLASSES, trimap, error)) return false;
    bool good = true;
    if (width > 0 && (trimap->width != width || trimap->height != height))
        good = fail(error, EXIT_USER, "", "%s: the trimap is %d x %d, its picture %d x %d", path,
                    trimap->width, trimap->height, width, height);
    size_t count = (size_t)trimap->width * (size_t)trimap->height, at = 0;
    while (good && at < count && trimap->pixels[at] >= TRIMAP_PET
           && trimap->pixels[at] <= TRIMAP_OUTLINE)
        at++;
    if (good && at < count)
        good = fail(error, EXIT_USER, "1 is pet, 2 background, 3 outline",
                    "%s: value %d at column %d, row %d; a trimap holds 1, 2 and 3", path,
                    trimap->pixels[at], (int)(at % (size_t)trimap->width),
                    (int)(at / (size_t)trimap->width));
    if (!good) image_close(trimap);
    return good;
}

bool mask_read(const char *path, int width, int height, Image *mask, Error *error)
{
    if (!image_read(path, IMAGE_CLASSES, mask, error)) return false;
    bool good = mask->channels == 1
        || fail(error, EXIT_USER, "save masks as grey or palette PNG",
                "%s: a mask has one value a pixel, this one %d", path, mask->channels);
    if (good && (mask->width != width || mask->height != height))
        good = fail(error, EXIT_USER, "", "%s: the mask is %d x %d, its picture %d x %d", path,
                    mask->width, mask->height, width, height);
    if (!good) image_close(mask);
    return good;
}

static bool read_mask(const char *path, const Image *picture, MaskRule rule, int classes,
                      Image *mask, Error *error)
{
    if (rule < MASK_NOT_ZERO)
        return trimap_read(path, picture->width, picture->height, mask, error);
    if (!mask_read(path, picture->width, picture->height, mask, error)) return false;
    if (rule != MASK_CLASSES || classes_check(mask, classes, path, error)) return true;
    image_close(mask);
    return false;
}

/* A mask's value as it is stored: a class, or 1 for what counts as pet. */
static uint8_t class_of(MaskRule rule, uint8_t value)
{
    switch (rule) {
    case MASK_TRIMAP: return value != TRIMAP_BACKGROUND;
    case MASK_TRIMAP_INSIDE: return value == TRIMAP_PET;
    case MASK_TRIMAP_CLASSES: return value == TRIMAP_BACKGROUND ? 0 : value == TRIMAP_PET ? 1 : 2;
    case MASK_NOT_ZERO: return value != 0;
    case MASK_CLASSES: return value;
    }
    return value;
}

bool sample_decode(const char *image_path, const char *trimap_path, int width, int height,
                   MaskRule rule, int classes, uint8_t *image, uint8_t *mask, Error *error)
{
    Image picture, trimap;
    if (!image_read(image_path, IMAGE_RGB, &picture, error)) return false;
    if (!read_mask(trimap_path, &picture, rule, classes, &trimap, error)) {
        image_close(&picture);
        return false;
    }
    size_t count = (size_t)width * (size_t)height;
    uint8_t *resized = malloc(count * 3);
    bool done = resized != NULL
        && resize_bilinear(picture.pixels, picture.width, picture.height, 3, resized, width, height)
        && resize_nearest(trimap.pixels, trimap.width, trimap.height, 1, mask, width, height);
    if (done) {
        image_to_planes(resized, width, height, image);
        for (size_t i = 0; i < count; i++) mask[i] = class_of(rule, mask[i]);
    } else {
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory to resize it", image_path);
    }
    free(resized);
    image_close(&picture);
    image_close(&trimap);
    return done;
}

/* What a cache's decode callback needs; one a split, alive as long as the data set. */
typedef struct {
    Dataset *dataset;
    SplitData *split;
} Decoder;

static MaskRule mask_rule(const Dataset *dataset)
{
    const DatasetOptions *options = &dataset->options;
    if (dataset->general) return options->classes > 1 ? MASK_CLASSES : MASK_NOT_ZERO;
    return options->outline == OUTLINE_CLASS      ? MASK_TRIMAP_CLASSES
         : options->outline == OUTLINE_BACKGROUND ? MASK_TRIMAP_INSIDE : MASK_TRIMAP;
}

static bool decode_sample(void *context, int index, uint8_t *sample, Error *error)
{
    const Decoder *decoder = context;
    const Dataset *dataset = decoder->dataset;
    const DatasetOptions *options = &dataset->options;
    const char *name = decoder->split->names[index];
    char *image_path = image_path_of(dataset, name);
    char *trimap_path = mask_path_of(dataset, name);
    struct stat status;
    bool good = true;
    if (image_path == NULL || trimap_path == NULL)
        good = fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    else if (stat(image_path, &status) != 0)
        good =
            fail(error, EXIT_USER, "", "%s: a list names this picture; it is missing", image_path);
    else if (stat(trimap_path, &status) != 0)
        good =
            fail(error, EXIT_USER, "", "%s: a list names this %s; it is missing",
                 trimap_path, dataset->general ? "mask" : "trimap");
    size_t plane = (size_t)options->width * (size_t)options->height;
    good = good && sample_decode(image_path, trimap_path, options->width, options->height,
                                 mask_rule(dataset), options->classes, sample, sample + 3 * plane,
                                 error);
    free(image_path);
    free(trimap_path);
    return good;
}

/* ---- opening ---- */

static void hash_file(XXH64_state_t *key, XXH64_state_t *cache_key, const char *path)
{
    struct stat status;
    int64_t facts[3] = { -1, 0, 0 };
    if (path != NULL && stat(path, &status) == 0) {
        facts[0] = status.st_size;
        facts[1] = status.st_mtim.tv_sec;
        facts[2] = status.st_mtim.tv_nsec;
    }
    XXH64_update(key, facts, sizeof facts[0]);
    XXH64_update(cache_key, facts, sizeof facts);
}

/* Fills split->key; returns the cache's key, which depends on the files' times too. */
static uint64_t split_keys(const Dataset *dataset, SplitData *split)
{
    const DatasetOptions *options = &dataset->options;
    XXH64_state_t *key = XXH64_createState(), *cache_key = XXH64_createState();
    int32_t rule[4] = { RULE_VERSION, options->width, options->height,
                        options->classes > 1
                            ? 16 * options->classes + 4 * dataset->general + (int)options->outline
                            : (int)options->outline + 2 * dataset->general };
    if (key == NULL || cache_key == NULL) abort();
    XXH64_reset(key, 0);
    XXH64_reset(cache_key, 0);
    XXH64_update(key, rule, sizeof rule);
    XXH64_update(cache_key, rule, sizeof rule);
    for (int i = 0; i < split->n_names; i++) {
        const char *name = split->names[i];
        XXH64_update(key, name, strlen(name) + 1);
        XXH64_update(cache_key, name, strlen(name) + 1);
        char *image_path = image_path_of(dataset, name);
        char *trimap_path = mask_path_of(dataset, name);
        hash_file(key, cache_key, image_path);
        hash_file(key, cache_key, trimap_path);
        free(image_path);
        free(trimap_path);
    }
    split->key = XXH64_digest(key);
    uint64_t result = XXH64_digest(cache_key);
    XXH64_freeState(key);
    XXH64_freeState(cache_key);
    return result;
}

/* Which samples stay; the names of the others go to the warning callback. */
static void keep_good(Dataset *dataset, SplitData *split)
{
    for (int i = 0; i < split->n_names; i++) {
        const char *problem = cache_problem(split->cache, i);
        if (problem == NULL) {
            split->kept[split->n_kept++] = i;
        } else if (dataset->options.warn != NULL) {
            char line[640];
            snprintf(line, sizeof line, "skipped %s: %s", split->names[i], problem);
            dataset->options.warn(dataset->options.context, line);
        }
    }
}

static bool open_split(Dataset *dataset, SplitData *split, const char *folder, Error *error)
{
    const DatasetOptions *options = &dataset->options;
    Decoder *decoder = malloc(sizeof *decoder);
    if (decoder == NULL) return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    *decoder = (Decoder){ dataset, split };
    CacheOptions cache = {
        .key = split_keys(dataset, split),
        .count = split->n_names,
        .sample_bytes = (int64_t)options->width * options->height * 4,
        .folder = folder,
        .keep_bad = options->skip_bad,
        .workers = options->workers,
        .decode = decode_sample,
        .context = decoder,         /* the cache frees it */
        .progress = options->progress,
        .warn = options->warn,
        .progress_context = options->context,
    };
    split->cache = cache_open(&cache, error);
    if (split->cache == NULL) return false;
    keep_good(dataset, split);
    return true;
}

/* The network and the trimaps have as many classes; their names. */
static bool name_trimap_classes(Dataset *dataset, Error *error)
{
    static const char *const names[] = { "background", "pet", "outline" };
    const bool outline = dataset->options.outline == OUTLINE_CLASS;
    const int found = outline ? 3 : 2, wanted = dataset->options.classes;
    if (found != (wanted < 2 ? 2 : wanted))
        return fail(error, EXIT_USER, wanted > 2 ? "--outline class: it is the third" :
                    "a network for that: segc models/unet_classes.seg -D classes=3",
                    "%s: these trimaps have %d classes where the outline %s; the network has %d",
                    dataset->folder, found, outline ? "is one" : "is pet or background",
                    wanted < 2 ? 2 : wanted);
    for (int i = 0; i < found; i++)
        if (!list_add(&dataset->classes, names[i], strlen(names[i])))
            return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    return true;
}

/* The names of classes.txt, else the numbers. */
static bool name_classes(Dataset *dataset, Error *error)
{
    const int wanted = dataset->options.classes;
    NameList *names = &dataset->classes;
    if (!dataset->general) return name_trimap_classes(dataset, error);
    if (wanted < 2) return true;
    if (!classes_read(dataset->folder, names, error)) return false;
    if (names->count > 0 && names->count != wanted)
        return fail(error, EXIT_USER, "compile the network with as many: segc -D classes=N",
                    "%s/classes.txt: %d classes; the network has %d", dataset->folder,
                    names->count, wanted);
    for (char digits[12]; names->count < wanted;) {
        snprintf(digits, sizeof digits, "%d", names->count);
        if (!list_add(names, digits, strlen(digits)))
            return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    }
    return true;
}

Dataset *dataset_open(const char *folder, const DatasetOptions *options, Error *error)
{
    if (options->width < 1 || options->height < 1 || options->limit < 0) {
        fail(error, EXIT_USER, "", "a data set of %d x %d pixels", options->width, options->height);
        return NULL;
    }
    Dataset *dataset = calloc(1, sizeof *dataset);
    char *own_folder = NULL;
    if (dataset != NULL) dataset->folder = strdup(folder);
    if (dataset == NULL || dataset->folder == NULL) {
        free(dataset);
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
        return NULL;
    }
    dataset->options = *options;
    if (dataset->options.splits == 0) dataset->options.splits = SPLITS_ALL;
    if (options->cache_folder == NULL && !options->no_cache) own_folder = cache_folder();
    const char *cache = options->no_cache ? NULL : own_folder ? own_folder : options->cache_folder;
    dataset->general = folders_are_general(folder);
    bool good = (dataset->general ? read_general(dataset, error) : read_lists(dataset, error))
             && name_classes(dataset, error);
    for (int s = 0; good && s < SPLIT_COUNT; s++)
        if (dataset->options.splits >> s & 1)
            good = open_split(dataset, &dataset->splits[s], cache, error);
    free(own_folder);
    if (good) return dataset;
    dataset_close(dataset);
    return NULL;
}

void dataset_close(Dataset *dataset)
{
    if (dataset == NULL) return;
    for (int s = 0; s < SPLIT_COUNT; s++) {
        cache_close(dataset->splits[s].cache);
        free(dataset->splits[s].names);
        free(dataset->splits[s].kept);
        list_close(&dataset->lists[s]);
    }
    list_close(&dataset->trainval);
    list_close(&dataset->test);
    list_close(&dataset->classes);
    free(dataset->folder);
    free(dataset);
}

/* ---- use ---- */

int dataset_count(const Dataset *dataset, Split split)
{
    return dataset->splits[split].n_kept;
}

int dataset_skipped(const Dataset *dataset, Split split)
{
    const SplitData *data = &dataset->splits[split];
    return data->cache == NULL ? 0 : data->n_names - data->n_kept;
}

int dataset_width(const Dataset *dataset)
{
    return dataset->options.width;
}

int dataset_height(const Dataset *dataset)
{
    return dataset->options.height;
}

const char *dataset_name(const Dataset *dataset, Split split, int i)
{
    const SplitData *data = &dataset->splits[split];
    return data->names[data->kept[i]];
}

const char *dataset_class(const Dataset *dataset, int class)
{
    return dataset->classes.names[class];
}

bool dataset_load(Dataset *dataset, Split split, int i, const uint8_t **image, const uint8_t **mask,
                  Error *error)
{
    SplitData *data = &dataset->splits[split];
    const uint8_t *sample = cache_sample(data->cache, data->kept[i], error);
    if (sample == NULL) return false;
    *image = sample;
    *mask = sample + (size_t)dataset->options.width * (size_t)dataset->options.height * 3;
    return true;
}

char *dataset_image_path(const Dataset *dataset, Split split, int i)
{
    return image_path_of(dataset, dataset_name(dataset, split, i));
}

char *dataset_trimap_path(const Dataset *dataset, Split split, int i)
{
    return mask_path_of(dataset, dataset_name(dataset, split, i));
}

uint64_t dataset_key(const Dataset *dataset, Split split)
{
    return dataset->splits[split].key;
}
