/* `segrun data check` of images/ and masks/: what is there, which numbers the masks hold, what is
 * odd, what is broken.
 *
 * Every picture and mask is decoded, as training would, on all processors. Broken is what training
 * could not use: a picture without a mask or the other way round, a file that cannot be decoded, a
 * mask in colours or of another size, a listed name that is not there. Odd is everything else
 * worth knowing. Nothing is changed.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"

enum { SHOWN = 20, MANY_NUMBERS = 32 };

typedef struct {
    const char *name;
    int lists;                  /* bit s: it is in the list of split s */
    int width, height;          /* 0 if broken */
    ImageFormat format, mask_format;
    int numbers;                /* different ones in the mask */
    bool only_background;
    char warning[200], problem[400];
} Finding;

typedef struct {
    const char *folder;
    FILE *out;
    NameList images, masks, lists[SPLIT_COUNT], classes;
    bool listed;                /* there are lists */
    int count;
    Finding *findings;          /* of all names, in order */
    pthread_mutex_t lock;
    int64_t pixels[256];        /* with that number, of all masks */
    int pictures[256];
} Check;

/* ---- a picture ------------------------------------------------------------------------------- */

static void count_numbers(Check *check, Finding *finding, const Image *mask)
{
    int64_t pixels[256] = { 0 };
    for (size_t i = 0; i < (size_t)mask->width * (size_t)mask->height; i++)
        pixels[mask->pixels[i]]++;
    pthread_mutex_lock(&check->lock);
    for (int k = 0; k < 256; k++) {
        check->pixels[k] += pixels[k];
        check->pictures[k] += pixels[k] > 0;
        finding->numbers += pixels[k] > 0;
    }
    pthread_mutex_unlock(&check->lock);
    finding->only_background = finding->numbers == 1 && pixels[0] > 0;
}

static bool look(Check *check, Finding *finding, Error *error)
{
    char path[4700];
    Image image, mask;
    char *image_path = folders_image_path(check->folder, finding->name);
    if (!image_path)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    bool read = image_read(image_path, IMAGE_RGB, &image, error);
    free(image_path);
    if (!read)
        return false;
    finding->format = image.format;
    memcpy(finding->warning, image.warning, sizeof finding->warning);
    int width = image.width, height = image.height;
    image_close(&image);
    snprintf(path, sizeof path, "%s/masks/%s.png", check->folder, finding->name);
    if (!mask_read(path, width, height, &mask, error))
        return false;
    finding->mask_format = mask.format;
    finding->width = width;
    finding->height = height;
    count_numbers(check, finding, &mask);
    image_close(&mask);
    return true;
}

static void check_one(void *context, int index)
{
    Check *check = context;
    Finding *finding = &check->findings[index];
    Error error;
    if (!finding->problem[0] && !look(check, finding, &error))
        snprintf(finding->problem, sizeof finding->problem, "%.399s", error.text);
}

/* ---- the names ------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const Finding *)a)->name, ((const Finding *)b)->name);
}

static bool has_name(const NameList *list, const char *name)
{
    for (int low = 0, high = list->count - 1; low <= high;) {
        int middle = (low + high) / 2, order = strcmp(list->names[middle], name);
        if (order == 0)
            return true;
        *(order < 0 ? &low : &high) = order < 0 ? middle + 1 : middle - 1;
    }
    return false;
}

static void add_finding(Check *check, const char *name, int lists)
{
    Finding *finding = &check->findings[check->count++];
    *finding = (Finding){ .name = name, .lists = lists };
    bool image = has_name(&check->images, name), mask = has_name(&check->masks, name);
    if (!image || !mask)
        snprintf(finding->problem, sizeof finding->problem, "%.200s: %s%s", name,
                 image || mask ? "there is no "
                               : "a list names it; there is no picture and no mask",
                 image == mask ? "" : image ? "mask" : "picture");
}

/* By name; those of several lists become one. */
static void sort_findings(Check *check)
{
    int kept = 0;
    qsort(check->findings, (size_t)check->count, sizeof *check->findings, by_name);
    for (int i = 0; i < check->count; i++)
        if (kept && by_name(&check->findings[kept - 1], &check->findings[i]) == 0)
            check->findings[kept - 1].lists |= check->findings[i].lists;
        else
            check->findings[kept++] = check->findings[i];
    check->count = kept;
}

static bool read_lists(Check *check, Error *error)
{
    for (int s = 0; s < SPLIT_COUNT; s++) {
        char path[4500];
        snprintf(path, sizeof path, "%s/%s.txt", check->folder, split_name((Split)s));
        FILE *there = fopen(path, "r");
        if (!there)
            continue;
        fclose(there);
        check->listed = true;
        if (!list_read(path, &check->lists[s], error))
            return false;
    }
    return true;
}

/* A finding for each name: of the lists, or of both folders. */
static bool find_names(Check *check, Error *error)
{
    if (!folders_names(check->folder, "images", &check->images, error)
        || !folders_names(check->folder, "masks", &check->masks, error)
        || !classes_read(check->folder, &check->classes, error) || !read_lists(check, error))
        return false;
    size_t most = (size_t)check->images.count + (size_t)check->masks.count + 1;
    for (int s = 0; s < SPLIT_COUNT; s++)
        most += (size_t)check->lists[s].count;
    check->findings = calloc(most, sizeof *check->findings);
    if (!check->findings)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    for (int s = 0; s < SPLIT_COUNT; s++)
        for (int i = 0; i < check->lists[s].count; i++)
            add_finding(check, check->lists[s].names[i], 1 << s);
    for (int i = 0; !check->listed && i < check->images.count; i++)
        add_finding(check, check->images.names[i], 0);
    for (int i = 0; !check->listed && i < check->masks.count; i++)
        if (!has_name(&check->images, check->masks.names[i]))
            add_finding(check, check->masks.names[i], 0);
    for (int i = 0; !check->listed && i < check->count; i++)
        check->findings[i].lists = 1 << folders_split(check->findings[i].name);
    sort_findings(check);
    return true;
}

/* ---- the report ------------------------------------------------------------------------------ */

static void print_splits(const Check *check)
{
    int splits[SPLIT_COUNT] = { 0 };
    for (int i = 0; i < check->count; i++)
        for (int s = 0; s < SPLIT_COUNT; s++)
            splits[s] += check->findings[i].lists >> s & 1;
    fprintf(check->out, "%-22strain %d, valid %d, test %d; %s\n", "splits", splits[SPLIT_TRAIN],
            splits[SPLIT_VALID], splits[SPLIT_TEST],
            check->listed ? "by the lists" : "by the names, as there are no lists");
}

static void print_sizes(const Check *check)
{
    int formats[4] = { 0 }, low = 0, high = 0;
    for (int i = 0; i < check->count; i++) {
        const Finding *finding = &check->findings[i];
        if (finding->width == 0)
            continue;
        int shorter = finding->width < finding->height ? finding->width : finding->height;
        int longer = finding->width + finding->height - shorter;
        low = low == 0 || shorter < low ? shorter : low;
        high = longer > high ? longer : high;
        formats[finding->format]++;
    }
    fprintf(check->out, "%-22s%d JPEG, %d PNG, %d GIF; %d to %d pixels a side\n", "pictures",
            formats[IMAGE_JPEG], formats[IMAGE_PNG], formats[IMAGE_GIF], low, high);
}

/* A line a number; gives how many that have no name are below 255. */
static int print_numbers(const Check *check)
{
    int64_t all = 0;
    int unnamed = 0;
    for (int k = 0; k < 256; k++)
        all += check->pixels[k];
    if (all == 0)
        return 0;
    fprintf(check->out, "%-22sin pictures  part of the pixels\n", "numbers in the masks");
    for (int k = 0, shown = 0; k < 256; k++) {
        const bool named = k < check->classes.count;
        if (!check->pixels[k] && !named)
            continue;
        unnamed += check->classes.count && !named && k < VOID_CLASS;
        if (shown++ == MANY_NUMBERS)
            fprintf(check->out, "  and more\n");
        if (shown <= MANY_NUMBERS || named)
            fprintf(check->out, "  %3d %-15.40s %11d  %.4f\n", k,
                    named ? check->classes.names[k] : k == VOID_CLASS ? "(no class)" : "",
                    check->pictures[k], (double)check->pixels[k] / (double)all);
    }
    return unnamed;
}

typedef const char *Detail(const Check *, const Finding *, char *text, size_t size);

static int print_kind(const Check *check, const char *title, Detail *detail)
{
    int count = 0;
    char text[600];
    for (int i = 0; i < check->count; i++) {
        const char *line = detail(check, &check->findings[i], text, sizeof text);
        if (!line)
            continue;
        if (count++ == 0)
            fprintf(check->out, "%s\n", title);
        if (count <= SHOWN)
            fprintf(check->out, "  %s\n", line);
    }
    if (count > SHOWN)
        fprintf(check->out, "  and %d more\n", count - SHOWN);
    return count;
}

static const char *broken_detail(const Check *check, const Finding *finding, char *text,
                                 size_t size)
{
    (void)check, (void)text, (void)size;
    return finding->problem[0] ? finding->problem : NULL;
}

static const char *warning_detail(const Check *check, const Finding *finding, char *text,
                                  size_t size)
{
    (void)check;
    snprintf(text, size, "%s: %s", finding->name, finding->warning);
    return finding->warning[0] ? text : NULL;
}

static const char *mask_detail(const Check *check, const Finding *finding, char *text, size_t size)
{
    (void)check;
    if (finding->width == 0)
        return NULL;
    if (finding->only_background)
        snprintf(text, size, "masks/%s.png: only background", finding->name);
    else if (finding->numbers > MANY_NUMBERS)
        snprintf(text, size, "masks/%s.png: %d different numbers: is it a mask?", finding->name,
                 finding->numbers);
    else if (finding->mask_format != IMAGE_PNG)
        snprintf(text, size, "masks/%s.png is a %s: its numbers may be inexact", finding->name,
                 image_format_name(finding->mask_format));
    else
        return NULL;
    return text;
}

static const char *list_detail(const Check *check, const Finding *finding, char *text, size_t size)
{
    (void)check;
    if ((finding->lists & (finding->lists - 1)) == 0)
        return NULL;
    snprintf(text, size, "%s:%s%s%s", finding->name, finding->lists & 1 ? " train" : "",
             finding->lists & 2 ? " valid" : "", finding->lists & 4 ? " test" : "");
    return text;
}

static int print_report(const Check *check)
{
    int unlisted = 0, odd = 0;
    print_splits(check);
    print_sizes(check);
    int unnamed = print_numbers(check);
    for (int i = 0; check->listed && i < check->images.count; i++) {
        const Finding key = { .name = check->images.names[i] };
        unlisted += !bsearch(&key, check->findings, (size_t)check->count, sizeof key, by_name);
    }
    if (unlisted)
        fprintf(check->out, "%-22s%d pictures are in no list\n", "images/", unlisted);
    if (check->pixels[VOID_CLASS] && !check->classes.count && check->pictures[1] == 0)
        fprintf(check->out, "odd: 255 is used and 1 is not: for a network with one class that is "
                            "fine; with several\n  255 means that a pixel has no class\n");
    if (unnamed)
        fprintf(check->out, "broken: %d numbers have no name: classes.txt has %d lines\n", unnamed,
                check->classes.count);
    odd += print_kind(check, "odd: in several lists", list_detail);
    odd += print_kind(check, "odd: decoder warnings (read all the same)", warning_detail);
    odd += print_kind(check, "odd: masks", mask_detail);
    int broken = print_kind(check, "broken:", broken_detail) + unnamed;
    fprintf(check->out, "%d pictures, %d odd, %d broken\n", check->count, odd, broken);
    return broken;
}

int check_folders(const char *folder, int workers, FILE *out,
                  bool (*progress)(void *context, int done, int total), void *context)
{
    Check check = { .folder = folder, .out = out };
    Error error = { 0 };
    int code = EXIT_FINE;
    pthread_mutex_init(&check.lock, NULL);
    if (!find_names(&check, &error)) {
        fprintf(out, "broken: %s\n", error.text);
        code = error.code;
    } else if (!parallel_for(check.count, workers, check_one, &check, progress, context)) {
        code = EXIT_INTERRUPTED;
    } else if (print_report(&check) > 0) {
        code = EXIT_USER;
    }
    pthread_mutex_destroy(&check.lock);
    list_close(&check.images);
    list_close(&check.masks);
    list_close(&check.classes);
    for (int s = 0; s < SPLIT_COUNT; s++)
        list_close(&check.lists[s]);
    free(check.findings);
    return code;
}
