/* The general layout of a data set: images/NAME.* and masks/NAME.png, one mask a picture.
 *
 * A pixel of a mask is pet where its value, or its index in a palette, is not 0; of a network with
 * several classes it is the class. Which split a name belongs to stands in train.txt, valid.txt
 * and test.txt beside the folders, a name a line; where there are no such files it follows from
 * the name alone: by its hash one in ten is valid, another one test. So the split stays as it is
 * when pictures are added.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "data.h"

static const char *const endings[] = { ".jpg", ".png", ".jpeg", ".gif", ".JPG", ".JPEG", ".PNG" };
enum { N_ENDINGS = sizeof endings / sizeof *endings };

static bool is_there(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0;
}

bool folders_are_general(const char *folder)
{
    char masks[4500], annotations[4500];
    snprintf(masks, sizeof masks, "%s/masks", folder);
    snprintf(annotations, sizeof annotations, "%s/annotations", folder);
    return is_there(masks) && !is_there(annotations);
}

char *folders_image_path(const char *folder, const char *name)
{
    char path[4700];
    for (int i = 0; i < N_ENDINGS; i++) {
        snprintf(path, sizeof path, "%s/images/%s%s", folder, name, endings[i]);
        if (is_there(path))
            return strdup(path);
    }
    snprintf(path, sizeof path, "%s/images/%s.jpg", folder, name);
    return strdup(path);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in a folder without their endings, sorted. Files that begin with a dot are no pictures. */
bool folders_names(const char *folder, const char *below, NameList *list, Error *error)
{
    char path[4500];
    snprintf(path, sizeof path, "%s/%s", folder, below);
    DIR *directory = opendir(path);
    if (!directory)
        return fail(error, EXIT_USER, "a data set holds images/ and masks/, or images/ and annotations/",
                    "%s: cannot be read", path);
    bool fine = true;
    for (struct dirent *entry; fine && (entry = readdir(directory));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (entry->d_name[0] == '.' || !dot)
            continue;
        fine = list_add(list, entry->d_name, (size_t)(dot - entry->d_name))
            || fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    }
    closedir(directory);
    if (fine && list->count)
        qsort(list->names, (size_t)list->count, sizeof *list->names, by_name);
    return fine;
}

/* Every picture has a mask and every mask a picture. */
static bool check_pairs(const char *folder, const NameList *images, const NameList *masks,
                        Error *error)
{
    for (int i = 0, k = 0; i < images->count || k < masks->count; i++, k++) {
        int order = i == images->count ? 1 : k == masks->count ? -1
                  : strcmp(images->names[i], masks->names[k]);
        if (order)
            return fail(error, EXIT_USER, "images/NAME.jpg and masks/NAME.png belong together",
                        "%s: the %s %s has no %s", folder, order < 0 ? "picture" : "mask",
                        order < 0 ? images->names[i] : masks->names[k],
                        order < 0 ? "mask" : "picture");
    }
    return images->count > 0 || fail(error, EXIT_USER, "", "%s/images: no pictures", folder);
}

Split folders_split(const char *name)
{
    uint64_t tenth = XXH64(name, strlen(name), 0) % 10;
    return tenth == 0 ? SPLIT_VALID : tenth == 1 ? SPLIT_TEST : SPLIT_TRAIN;
}

static bool read_all(const char *folder, NameList lists[SPLIT_COUNT], Error *error)
{
    NameList images = { 0 }, masks = { 0 };
    bool fine = folders_names(folder, "images", &images, error)
             && folders_names(folder, "masks", &masks, error)
             && check_pairs(folder, &images, &masks, error);
    for (int i = 0; fine && i < images.count; i++) {
        const char *name = images.names[i];
        fine = list_add(&lists[folders_split(name)], name, strlen(name))
            || fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    }
    list_close(&images);
    list_close(&masks);
    return fine;
}

bool folders_read(const char *folder, NameList lists[SPLIT_COUNT], Error *error)
{
    char path[4500];
    bool any = false, fine = true;
    for (int s = 0; fine && s < SPLIT_COUNT; s++) {
        snprintf(path, sizeof path, "%s/%s.txt", folder, split_name((Split)s));
        if (!is_there(path))
            continue;
        any = true;
        fine = list_read(path, &lists[s], error);
    }
    return fine && (any || read_all(folder, lists, error));
}
