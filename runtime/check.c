/* `segrun data check`: what is in a data set's folder, what is odd, what is broken.
 *
 * Every listed picture and trimap is decoded, as training would, on all processors; then the
 * folders are read for files that no list names. Broken is what training could not use: a listed
 * file that is missing or cannot be decoded, a trimap of another size or with other values, a name
 * listed twice. Odd is everything else worth knowing: files of another format than their name says,
 * what decoders warn about, masks without a pet, files that nothing lists. Nothing is changed.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data.h"

enum { SHOWN = 20 };            /* lines of one kind, before "and N more" */

typedef struct {
    const char *name;
    Split split;
    int width, height;          /* 0 if broken */
    ImageFormat format, trimap_format;
    int warnings;
    char warning[200];
    bool empty, outline_only;   /* the trimap has no 1 and no 3; has 3 but no 1 */
    double pet_share;           /* of pixels, outline included */
    char problem[400];          /* why it is broken, or empty */
} Finding;

typedef struct {
    const char *folder;
    FILE *out;
    NameList trainval, test;
    int count;
    Finding *findings;          /* of trainval, then of test */
} Check;

/* ---- the listed files ---- */

static void look_at_trimap(Finding *finding, const Image *trimap)
{
    size_t count = (size_t)trimap->width * (size_t)trimap->height, values[4] = { 0 };
    for (size_t i = 0; i < count; i++) values[trimap->pixels[i] & 3]++;
    finding->empty = values[1] + values[3] == 0;
    finding->outline_only = values[1] == 0 && values[3] > 0;
    finding->pet_share = (double)(values[1] + values[3]) / (double)count;
    finding->trimap_format = trimap->format;
}

static void check_sample(void *context, int index)
{
    const Check *check = context;
    Finding *finding = &check->findings[index];
    Image image, trimap;
    Error error;
    char path[4500];
    snprintf(path, sizeof path, "%s/images/%s.jpg", check->folder, finding->name);
    if (!image_read(path, IMAGE_RGB, &image, &error)) {
        snprintf(finding->problem, sizeof finding->problem, "%.399s", error.text);
        return;
    }
    finding->format = image.format;
    finding->warnings = image.warnings;
    memcpy(finding->warning, image.warning, sizeof finding->warning);
    int width = image.width, height = image.height;
    image_close(&image);
    snprintf(path, sizeof path, "%s/annotations/trimaps/%s.png", check->folder, finding->name);
    if (!trimap_read(path, width, height, &trimap, &error)) {
        snprintf(finding->problem, sizeof finding->problem, "%.399s", error.text);
        return;
    }
    look_at_trimap(finding, &trimap);
    finding->width = width;
    finding->height = height;
    image_close(&trimap);
}

static bool read_lists(Check *check, Error *error)
{
    char path[4500];
    NameList *lists[] = { &check->trainval, &check->test };
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/annotations/%s", check->folder,
                 i ? "test.txt" : "trainval.txt");
        if (!list_read(path, lists[i], error)) return false;
    }
    check->count = check->trainval.count + check->test.count;
    check->findings = calloc((size_t)check->count, sizeof *check->findings);
    if (check->findings == NULL) return fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
    for (int i = 0; i < check->count; i++) {
        bool test = i >= check->trainval.count;
        check->findings[i].name =
            test ? check->test.names[i - check->trainval.count] : check->trainval.names[i];
        check->findings[i].split = test ? SPLIT_TEST : i % 10 == 0 ? SPLIT_VALID : SPLIT_TRAIN;
    }
    return true;
}

static int compare_findings(const void *a, const void *b)
{
    return strcmp((*(Finding *const *)a)->name, (*(Finding *const *)b)->name);
}

/* By name, so that names can be looked up and repeated ones found. NULL without memory. */
static Finding **sort_findings(const Check *check)
{
    Finding **sorted = malloc(((size_t)check->count + 1) * sizeof *sorted);
    if (sorted == NULL) return NULL;
    for (int i = 0; i < check->count; i++) sorted[i] = &check->findings[i];
    qsort(sorted, (size_t)check->count, sizeof *sorted, compare_findings);
    for (int i = 1; i < check->count; i++)
        if (strcmp(sorted[i]->name, sorted[i - 1]->name) == 0 && sorted[i]->problem[0] == '\0')
            snprintf(sorted[i]->problem, sizeof sorted[i]->problem, "%.200s: listed more than once",
                     sorted[i]->name);
    return sorted;
}

static bool is_listed(const Check *check, Finding **sorted, const char *name)
{
    Finding wanted = { .name = name }, *key = &wanted;
    return bsearch(&key, sorted, (size_t)check->count, sizeof *sorted, compare_findings) != NULL;
}

/* ---- files that nothing lists ---- */

typedef struct {
    int pictures;               /* unlisted, with the right ending */
    int formats[4];             /* of those, by ImageFormat */
    int hidden;                 /* begin with a dot: ._* */
    int other;                  /* another ending */
    char example[256];          /* one of the others */
} Unlisted;

static ImageFormat sniff_file(const char *path)
{
    char bytes[16];
    FILE *file = fopen(path, "rb");
    if (file == NULL) return IMAGE_UNKNOWN;
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    return image_sniff(bytes, size);
}

static Unlisted look_for_unlisted(const Check *check, Finding **sorted, const char *below,
                                  const char *ending)
{
    Unlisted found = { 0 };
    char folder[4500], path[5000], name[256];
    snprintf(folder, sizeof folder, "%s/%s", check->folder, below);
    DIR *directory = opendir(folder);
    if (directory == NULL) return found;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        size_t length = strlen(entry->d_name), end = strlen(ending);
        if (entry->d_name[0] == '.') {
            found.hidden++;
        } else if (length <= end || strcmp(entry->d_name + length - end, ending) != 0) {
            found.other++;
            snprintf(found.example, sizeof found.example, "%s", entry->d_name);
        } else {
            snprintf(name, sizeof name, "%.*s", (int)(length - end), entry->d_name);
            if (is_listed(check, sorted, name)) continue;
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            found.pictures++;
            found.formats[sniff_file(path)]++;
        }
    }
    closedir(directory);
    return found;
}

static void print_unlisted(FILE *out, const char *below, const Unlisted *found)
{
    fprintf(out, "%-22s%d not listed", below, found->pictures);
    const char *before = " (";
    for (int f = 0; f < 4; f++) {
        if (found->formats[f] == 0) continue;
        fprintf(out, "%s%d %s", before, found->formats[f], image_format_name((ImageFormat)f));
        before = ", ";
    }
    if (found->pictures > 0) fprintf(out, ")");
    if (found->hidden > 0) fprintf(out, "; %d hidden (._*)", found->hidden);
    if (found->other > 0)
        fprintf(out, "; %d of another kind, such as %s", found->other, found->example);
    fprintf(out, "\n");
}

/* ---- the report ---- */

/* Prints detail() where it is not NULL, under a title. Returns how many there were. */
static int print_kind(const Check *check, const char *title,
                      const char *(*detail)(const Finding *, char *text, size_t size))
{
    int count = 0;
    char text[600];
    for (int i = 0; i < check->count; i++) {
        const char *line = detail(&check->findings[i], text, sizeof text);
        if (line == NULL) continue;
        if (count++ == 0) fprintf(check->out, "%s\n", title);
        if (count <= SHOWN) fprintf(check->out, "  %s\n", line);
    }
    if (count > SHOWN) fprintf(check->out, "  and %d more\n", count - SHOWN);
    return count;
}

static const char *broken_detail(const Finding *finding, char *text, size_t size)
{
    (void)text, (void)size;
    return finding->problem[0] == '\0' ? NULL : finding->problem;
}

static const char *format_detail(const Finding *finding, char *text, size_t size)
{
    if (finding->width == 0) return NULL;
    if (finding->format == IMAGE_JPEG && finding->trimap_format == IMAGE_PNG) return NULL;
    if (finding->format != IMAGE_JPEG)
        snprintf(text, size, "images/%s.jpg is a %s", finding->name,
                 image_format_name(finding->format));
    else
        snprintf(text, size, "annotations/trimaps/%s.png is a %s", finding->name,
                 image_format_name(finding->trimap_format));
    return text;
}

static const char *warning_detail(const Finding *finding, char *text, size_t size)
{
    if (finding->warnings == 0) return NULL;
    snprintf(text, size, "images/%s.jpg: %s", finding->name, finding->warning);
    return text;
}

static const char *empty_detail(const Finding *finding, char *text, size_t size)
{
    if (!finding->empty && !finding->outline_only) return NULL;
    snprintf(text, size, "annotations/trimaps/%s.png%s", finding->name,
             finding->outline_only ? " (outline only)" : "");
    return text;
}

static void print_sizes(const Check *check)
{
    const Finding *smallest = NULL, *largest = NULL;
    int formats[4] = { 0 }, low = 0, high = 0;
    double share = 0;
    for (int i = 0; i < check->count; i++) {
        const Finding *finding = &check->findings[i];
        if (finding->width == 0) continue;
        int short_side = finding->width < finding->height ? finding->width : finding->height;
        int long_side = finding->width + finding->height - short_side;
        if (low == 0 || short_side < low) low = short_side;
        if (long_side > high) high = long_side;
        int64_t area = (int64_t)finding->width * finding->height;
        if (!smallest || area < (int64_t)smallest->width * smallest->height) smallest = finding;
        if (!largest || area > (int64_t)largest->width * largest->height) largest = finding;
        formats[finding->format]++;
        share += finding->pet_share;
    }
    int good = formats[IMAGE_JPEG] + formats[IMAGE_PNG] + formats[IMAGE_GIF];
    if (good == 0) return;
    fprintf(check->out, "%-22s%d JPEG, %d PNG, %d GIF\n", "formats", formats[IMAGE_JPEG],
            formats[IMAGE_PNG], formats[IMAGE_GIF]);
    fprintf(check->out, "%-22s%d to %d pixels a side; %s %d x %d, %s %d x %d\n", "sizes", low, high,
            smallest->name, smallest->width, smallest->height, largest->name, largest->width,
            largest->height);
    fprintf(check->out, "%-22s%.1f %% of the pixels, outline included, mean over pictures\n", "pet",
            100 * share / good);
}

static int print_report(const Check *check, Finding **sorted)
{
    int splits[SPLIT_COUNT] = { 0 };
    for (int i = 0; i < check->count; i++) splits[check->findings[i].split]++;
    fprintf(check->out, "%-22strain %d, valid %d, test %d\n", "listed", splits[SPLIT_TRAIN],
            splits[SPLIT_VALID], splits[SPLIT_TEST]);
    print_sizes(check);
    Unlisted images = look_for_unlisted(check, sorted, "images", ".jpg");
    Unlisted trimaps = look_for_unlisted(check, sorted, "annotations/trimaps", ".png");
    print_unlisted(check->out, "images/", &images);
    print_unlisted(check->out, "annotations/trimaps/", &trimaps);
    int odd = print_kind(check, "odd: another format than the name says (read all the same)",
                         format_detail);
    odd += print_kind(check, "odd: decoder warnings (read all the same)", warning_detail);
    odd += print_kind(check, "odd: trimaps without a pet pixel (used all the same)", empty_detail);
    int broken = print_kind(check, "broken:", broken_detail);
    fprintf(check->out, "%d listed, %d odd, %d broken\n", check->count, odd, broken);
    return broken;
}

int data_check(const char *folder, int workers, FILE *out,
               bool (*progress)(void *context, int done, int total), void *context)
{
    if (folders_are_general(folder)) return check_folders(folder, workers, out, progress, context);
    Check check = { .folder = folder, .out = out };
    Error error = { 0 };
    int code = EXIT_FINE;
    if (!read_lists(&check, &error)) {
        fprintf(out, "broken: %s\n", error.text);
        code = error.code;
    } else if (!parallel_for(check.count, workers, check_sample, &check, progress, context)) {
        code = EXIT_INTERRUPTED;
    } else {
        Finding **sorted = sort_findings(&check);
        if (sorted == NULL)
            code = EXIT_ENVIRONMENT;
        else if (print_report(&check, sorted) > 0)
            code = EXIT_USER;
        free(sorted);
    }
    list_close(&check.trainval);
    list_close(&check.test);
    free(check.findings);
    return code;
}
