/* `segrun data synth`: a small data set in the Oxford-IIIT Pet layout, drawn by rule; or shapes of
 * several classes in images/ and masks/.
 *
 * The pictures come from synth_draw.c and synth_shapes.c. Every fourth is listed in test.txt, the
 * others in trainval.txt, which the data set's own rule splits into train and valid: every tenth
 * of them, which in the other layout stands in valid.txt. The lists are written last, so an
 * interrupted run leaves no data set that looks complete; their first line says who drew it, and a
 * folder whose lists begin otherwise is not touched.
 */
#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data.h"

enum { SMALLEST = 16, LARGEST = 4096, QUALITY = 90, TEST_EVERY = 4 };

static const char MARK[] = "# drawn by segrun data synth";

typedef struct {
    const char *folder;
    const SynthOptions *options;
    SynthPet *pets;             /* [count]: for the lists */
    pthread_mutex_t lock;
    bool failed;
    Error error;                /* the first */
} Synth;

static void picture_size(const SynthOptions *options, int index, int *width, int *height)
{
    *width = *height = options->size;
    if (options->size > 0) return;
    uint64_t h = (options->seed + 1) * 0x9e3779b97f4a7c15u + (uint64_t)index * 0xc2b2ae3d27d4eb4fu;
    h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u;
    *width = 200 + (int)((h >> 20) % 301);
    *height = 200 + (int)((h >> 40) % 301);
}

static bool draw_files(Synth *synth, int index, Error *error)
{
    int width, height;
    char path[4300];
    picture_size(synth->options, index, &width, &height);
    size_t count = (size_t)width * (size_t)height;
    uint8_t *rgb = malloc(count * 3), *trimap = malloc(count);
    bool good = rgb != NULL && trimap != NULL;
    if (good && synth->options->classes > 1) {
        synth_shapes(synth->options->seed, index, synth->options->classes, width, height, rgb,
                     trimap);
        snprintf(path, sizeof path, "%s/images/drawn_%04d.jpg", synth->folder, index);
        good = image_write_jpeg(path, rgb, width, height, 3, QUALITY, error);
        snprintf(path, sizeof path, "%s/masks/drawn_%04d.png", synth->folder, index);
        good = good && image_write_classes(path, trimap, width, height, error);
    } else if (good) {
        synth->pets[index] = synth_draw(synth->options->seed, index, width, height, rgb, trimap);
        snprintf(path, sizeof path, "%s/images/drawn_%04d.jpg", synth->folder, index);
        good = image_write_jpeg(path, rgb, width, height, 3, QUALITY, error);
        snprintf(path, sizeof path, "%s/annotations/trimaps/drawn_%04d.png", synth->folder, index);
        good = good && image_write_png(path, trimap, width, height, 1, error);
    } else {
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory to draw pictures");
    }
    free(rgb);
    free(trimap);
    return good;
}

static void draw_one(void *context, int index)
{
    Synth *synth = context;
    Error error;
    pthread_mutex_lock(&synth->lock);
    bool failed = synth->failed;
    pthread_mutex_unlock(&synth->lock);
    if (failed || draw_files(synth, index, &error)) return;
    pthread_mutex_lock(&synth->lock);
    if (!synth->failed) synth->error = error;
    synth->failed = true;
    pthread_mutex_unlock(&synth->lock);
}

/* classes.txt, and a list for each split. */
static bool write_class_lists(const Synth *synth, Error *error)
{
    const SynthOptions *options = synth->options;
    bool written = true;
    for (int list = -1; written && list < SPLIT_COUNT; list++) {
        char path[4300], *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        if (out == NULL) return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
        for (int k = 0; list < 0 && k < options->classes; k++) fprintf(out, "%s\n", synth_class(k));
        if (list >= 0) fprintf(out, "%s, seed %llu\n", MARK, (unsigned long long)options->seed);
        for (int i = 0, others = 0; list >= 0 && i < options->count; i++) {
            bool test = i % TEST_EVERY == TEST_EVERY - 1;
            Split split = test ? SPLIT_TEST : others++ % 10 == 0 ? SPLIT_VALID : SPLIT_TRAIN;
            if ((int)split == list) fprintf(out, "drawn_%04d\n", i);
        }
        fclose(out);
        snprintf(path, sizeof path, "%s/%s.txt", synth->folder,
                 list < 0 ? "classes" : split_name((Split)list));
        written = file_write(path, text, size, error);
        free(text);
    }
    return written;
}

static bool write_list(const Synth *synth, bool test, Error *error)
{
    char path[4300], *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    fprintf(out, "%s, seed %llu\n# NAME CLASS SPECIES BREED\n", MARK,
            (unsigned long long)synth->options->seed);
    for (int i = 0; i < synth->options->count; i++)
        if ((i % TEST_EVERY == TEST_EVERY - 1) == test)
            fprintf(out, "drawn_%04d %d %d %d\n", i, synth->pets[i].fur, synth->pets[i].species,
                    synth->pets[i].fur);
    fclose(out);
    snprintf(path, sizeof path, "%s/annotations/%s.txt", synth->folder, test ? "test" : "trainval");
    bool written = file_write(path, text, size, error);
    free(text);
    return written;
}

static bool is_empty(const char *folder)
{
    DIR *directory = opendir(folder);
    int entries = 0;
    while (directory != NULL && readdir(directory) != NULL) entries++;
    if (directory != NULL) closedir(directory);
    return entries <= 2;        /* itself and its parent */
}

/* Is there nothing yet, or, forced, something this wrote? */
static bool may_write(const char *folder, bool force, Error *error)
{
    if (!force && !is_empty(folder))
        return fail(error, EXIT_USER, "name a new folder; --force draws among what is there",
                    "%s: the folder is not empty", folder);
    static const char *const lists[] = { "annotations/trainval.txt", "annotations/test.txt",
                                         "train.txt", "valid.txt", "test.txt" };
    for (int i = 0; i < 5; i++) {
        char path[4300];
        struct stat status;
        snprintf(path, sizeof path, "%s/%s", folder, lists[i]);
        if (stat(path, &status) != 0) continue;
        size_t size;
        char *text = file_read(path, &size, error);
        if (text == NULL) return false;
        bool own = strncmp(text, MARK, strlen(MARK)) == 0;
        free(text);
        if (!own)
            return fail(error, EXIT_USER, "name a new folder",
                        "%s: the folder holds another data set", folder);
    }
    return true;
}

bool data_synth(const char *folder, const SynthOptions *options, Error *error)
{
    if (options->count < TEST_EVERY || options->count > 9999)
        return fail(error, EXIT_USER, "", "%d pictures; from %d to 9999 can be drawn",
                    options->count, TEST_EVERY);
    if (options->size != 0 && (options->size < SMALLEST || options->size > LARGEST))
        return fail(error, EXIT_USER, "", "pictures of %d pixels; a side has %d to %d",
                    options->size, SMALLEST, LARGEST);
    if (options->classes > SYNTH_CLASSES)
        return fail(error, EXIT_USER, "", "%d classes; 2 to %d can be drawn", options->classes,
                    SYNTH_CLASSES);
    if (strlen(folder) > 4096)
        return fail(error, EXIT_USER, "", "%.40s...: the name is too long", folder);
    if (!may_write(folder, options->force, error)) return false;
    char path[4300];
    snprintf(path, sizeof path, "%s/images", folder);
    if (!folder_make(path, error)) return false;
    const bool several = options->classes > 1;
    snprintf(path, sizeof path, "%s/%s", folder, several ? "masks" : "annotations/trimaps");
    if (!folder_make(path, error)) return false;
    Synth synth = { .folder = folder, .options = options };
    synth.pets = calloc((size_t)options->count, sizeof *synth.pets);
    if (synth.pets == NULL) return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    pthread_mutex_init(&synth.lock, NULL);
    bool complete = parallel_for(options->count, options->workers, draw_one, &synth,
                                 options->progress, options->context);
    pthread_mutex_destroy(&synth.lock);
    bool good = !synth.failed && complete;
    if (synth.failed)
        *error = synth.error;
    else if (!complete)
        fail(error, EXIT_INTERRUPTED, "", "interrupted while drawing pictures");
    good = good
        && (several ? write_class_lists(&synth, error)
                    : write_list(&synth, true, error) && write_list(&synth, false, error));
    free(synth.pets);
    return good;
}
