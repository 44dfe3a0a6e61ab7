/* Which pictures a command line names, and what the results of each are called.
 *
 * A folder stands for the pictures in it and in the folders below; results mirror that tree. Hidden
 * files, files that are no pictures, and links to folders are passed over and counted: as such
 * links are not followed, none can lead in a circle. A picture that is reached twice is taken once.
 *
 * A name is the path below the folder, without the ending. Where two would be equal they keep their
 * ending (cat.jpg, cat.png); where that is not enough they get their folder's name in front, and at
 * last a number. So a name depends on the other pictures only where it must.
 */
#include "commands.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* Where a picture was found. */
typedef struct {
    PictureList *list;
    const char *real;        /* the canonical path of the folder that is walked */
    const char *output;      /* the folder of the results: not walked */
    bool tree;               /* a folder was named, not a picture */
} Walk;

/* ---- what is there --------------------------------------------------------------------------- */

static bool no_memory(Error *error)
{
    return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the list of pictures");
}

/* below: "" or "holiday/2024/". */
static bool add_picture(const Walk *walk, const char *path, const char *below, const char *file,
                        Error *error)
{
    PictureList *list = walk->list;
    if (list->n == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 64;
        Picture *larger = realloc(list->pictures, (size_t)capacity * sizeof *larger);
        if (!larger)
            return no_memory(error);
        list->pictures = larger;
        list->capacity = capacity;
    }
    Picture *picture = &list->pictures[list->n++];
    const char *slash = strrchr(walk->real, '/');
    *picture = (Picture){ .number = list->n - 1, .tree = walk->tree };
    picture->path = strdup(path);
    picture->below = strdup(below);
    picture->root = strdup(slash && slash[1] ? slash + 1 : "root");
    if (asprintf(&picture->real, "%s/%s%s", walk->real, below, file) < 0)
        picture->real = NULL;
    return (picture->path && picture->below && picture->root && picture->real) || no_memory(error);
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcasecmp(name + n - m, end) == 0;
}

/* By its first bytes, or by its name: a picture that lost its head is broken, not unseen. */
static bool looks_like_picture(const char *path)
{
    static const char *const ours[] = { ".mask.png", ".probability.png", ".overlay.png" };
    static const char *const endings[] = { ".jpg", ".jpeg", ".png", ".gif" };
    unsigned char head[16];
    for (int i = 0; i < 3; i++)
        if (ends_with(path, ours[i]))
            return false;
    for (int i = 0; i < 4; i++)
        if (ends_with(path, endings[i]))
            return true;
    FILE *in = fopen(path, "rbe");
    size_t n = in ? fread(head, 1, sizeof head, in) : 0;
    if (in)
        fclose(in);
    return image_sniff(head, n) != IMAGE_UNKNOWN;
}

static bool same_file(const char *a, const struct stat *facts)
{
    struct stat others;
    return stat(a, &others) == 0 && others.st_dev == facts->st_dev
        && others.st_ino == facts->st_ino;
}

static bool walk_folder(const Walk *, const char *folder, const char *below, Error *);

static bool walk_entry(const Walk *walk, const char *path, const char *below, const char *name,
                       Error *error)
{
    PictureList *list = walk->list;
    struct stat facts, target;
    if (name[0] == '.') {
        list->hidden += strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
        return true;
    }
    if (lstat(path, &facts) != 0)
        return fail(error, EXIT_USER, "", "%s: %s", path, strerror(errno));
    if (S_ISDIR(facts.st_mode)) {
        char *deeper = NULL;
        if (same_file(walk->output, &facts))
            return true;
        bool walked = asprintf(&deeper, "%s%s/", below, name) >= 0
                    ? walk_folder(walk, path, deeper, error) : no_memory(error);
        free(deeper);
        return walked;
    }
    bool there = stat(path, &target) == 0;
    if (there && S_ISDIR(target.st_mode))
        list->links++;
    else if ((there && !S_ISREG(target.st_mode)) || !looks_like_picture(path))
        list->others++;
    else
        return add_picture(walk, path, below, name, error);
    return true;
}

static bool walk_folder(const Walk *walk, const char *folder, const char *below, Error *error)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort);
    if (n < 0)
        return fail(error, EXIT_USER, "", "%s: %s", folder, strerror(errno));
    if (interrupted())
        fail(error, EXIT_INTERRUPTED, "", "interrupted while looking for pictures");
    const char *slash = folder[strlen(folder) - 1] == '/' ? "" : "/";
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        char *path = NULL;
        if (!error->text[0] && asprintf(&path, "%s%s%s", folder, slash, name) < 0) {
            path = NULL;
            no_memory(error);
        }
        if (!error->text[0])
            walk_entry(walk, path, below, name, error);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return !error->text[0];
}

static bool take_folder(Walk *walk, const char *folder, Error *error)
{
    int before = walk->list->n;
    walk->tree = true;
    return walk_folder(walk, folder, "", error)
        && (walk->list->n > before
            || fail(error, EXIT_USER, "", "%s: no picture (JPEG, PNG or GIF) in this folder or "
                    "below it", folder));
}

static bool take_operand(PictureList *list, const char *operand, const char *output, Error *error)
{
    char folder[PATH_MAX], real[PATH_MAX];
    struct stat facts;
    if (stat(operand, &facts) != 0)
        return fail(error, EXIT_USER, "", "%s: %s", operand, strerror(errno));
    bool tree = S_ISDIR(facts.st_mode);
    const char *slash = tree ? NULL : strrchr(operand, '/');
    snprintf(folder, sizeof folder, "%s", tree ? operand : slash ? operand : ".");
    if (slash)
        folder[slash + 1 - operand] = 0;
    if (!realpath(folder, real))
        return fail(error, EXIT_USER, "", "%s: %s", operand, strerror(errno));
    Walk walk = { .list = list, .real = real, .output = output };
    return tree ? take_folder(&walk, operand, error)
                : add_picture(&walk, operand, "", slash ? slash + 1 : operand, error);
}

static int by_real(const void *a, const void *b)
{
    const Picture *x = a, *y = b;
    int order = strcmp(x->real, y->real);
    return order ? order : x->number - y->number;
}

static int by_number(const void *a, const void *b)
{
    return ((const Picture *)a)->number - ((const Picture *)b)->number;
}

static void close_picture(Picture *picture)
{
    free(picture->path);
    free(picture->below);
    free(picture->root);
    free(picture->real);
    free(picture->name);
}

/* Those that were reached twice are taken where they were reached first. */
static void drop_repeated(PictureList *list)
{
    int kept = 0;
    qsort(list->pictures, (size_t)list->n, sizeof *list->pictures, by_real);
    for (int i = 0; i < list->n; i++)
        if (kept > 0 && strcmp(list->pictures[i].real, list->pictures[kept - 1].real) == 0)
            close_picture(&list->pictures[i]);
        else
            list->pictures[kept++] = list->pictures[i];
    list->n = kept;
    qsort(list->pictures, (size_t)list->n, sizeof *list->pictures, by_number);
}

/* ---- names ----------------------------------------------------------------------------------- */

enum { KEEPS_ENDING = 1, HAS_ROOT = 2, MOST_LEVEL = KEEPS_ENDING | HAS_ROOT };

static bool make_name(Picture *picture)
{
    const char *slash = strrchr(picture->path, '/'), *file = slash ? slash + 1 : picture->path;
    const char *dot = strrchr(file, '.');
    bool whole = picture->level & KEEPS_ENDING || !dot || dot == file;
    bool root = picture->level & HAS_ROOT;
    int length = (int)(whole ? strlen(file) : (size_t)(dot - file));
    free(picture->name);
    if (asprintf(&picture->name, "%s%s%s%.*s", root ? picture->root : "",
                 !root ? "" : picture->tree ? "/" : "_", picture->below, length, file) < 0)
        picture->name = NULL;
    return picture->name != NULL;
}

static int by_name(const void *a, const void *b)
{
    const Picture *x = *(Picture *const *)a, *y = *(Picture *const *)b;
    int order = strcmp(x->name, y->name);
    return order ? order : x->number - y->number;
}

/* Of sorted[from]: behind the last with the same name. */
static int end_of_group(Picture *const *sorted, int n, int from)
{
    int end = from + 1;
    while (end < n && strcmp(sorted[end]->name, sorted[from]->name) == 0)
        end++;
    return end;
}

static bool name_taken(const PictureList *list, const char *name)
{
    for (int i = 0; i < list->n; i++)
        if (strcmp(list->pictures[i].name, name) == 0)
            return true;
    return false;
}

/* The second and further ones of a group that nothing else tells apart. */
static bool number_group(const PictureList *list, Picture **group, int n)
{
    int number = 2;
    for (int i = 1; i < n; i++) {
        char *name = NULL;
        do {
            free(name);
            if (asprintf(&name, "%s-%d", group[0]->name, number++) < 0)
                return false;
        } while (name_taken(list, name));
        free(group[i]->name);
        group[i]->name = name;
    }
    return true;
}

/* Raises the level of those that share a name, until none does or nothing is left to add. */
static bool name_sorted(const PictureList *list, Picture **sorted)
{
    bool raised = true;
    while (raised) {
        raised = false;
        qsort(sorted, (size_t)list->n, sizeof *sorted, by_name);
        for (int i = 0, end; i < list->n; i = end) {
            end = end_of_group(sorted, list->n, i);
            for (int k = i; end - i > 1 && k < end; k++)
                if (sorted[k]->level < MOST_LEVEL) {
                    sorted[k]->level++;
                    raised = true;
                }
        }
        for (int i = 0; raised && i < list->n; i++)
            if (!make_name(sorted[i]))
                return false;
    }
    for (int i = 0, end; i < list->n; i = end) {
        end = end_of_group(sorted, list->n, i);
        if (!number_group(list, sorted + i, end - i))
            return false;
    }
    return true;
}

static bool name_pictures(PictureList *list)
{
    Picture **sorted = malloc((size_t)(list->n + 1) * sizeof *sorted);
    bool fine = sorted != NULL;
    for (int i = 0; fine && i < list->n; i++) {
        sorted[i] = &list->pictures[i];
        fine = make_name(sorted[i]);
    }
    fine = fine && name_sorted(list, sorted);
    free(sorted);
    return fine;
}

bool pictures_list(PictureList *list, char *const *operands, int n, const char *output,
                   Error *error)
{
    for (int i = 0; i < n; i++)
        if (!take_operand(list, operands[i], output, error))
            return false;
    drop_repeated(list);
    return name_pictures(list) || no_memory(error);
}

void pictures_close(PictureList *list)
{
    for (int i = 0; i < list->n; i++)
        close_picture(&list->pictures[i]);
    free(list->pictures);
    *list = (PictureList){ 0 };
}
