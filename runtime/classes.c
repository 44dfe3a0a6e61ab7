/* Masks of several classes: what the numbers in them are called, how they are drawn, and whether
 * they are ones of the network.
 *
 * A mask holds a class number a pixel, 0 the background; 255 says that a pixel belongs to none
 * ("void", as in PASCAL VOC), and does not count. The names come from classes.txt in the data
 * set's folder, a line a class from 0, or are the numbers. The colours are fixed, so that a class
 * looks the same everywhere: those of Okabe and Ito (2008), which people who see no red or green
 * tell apart as well, four more, then hues a golden angle apart.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data.h"

uint32_t class_colour(int class)
{
    static const uint32_t by_hand[] = {
        0x101010, 0xe69f00, 0x56b4e9, 0x009e73, 0xf0e442, 0xd55e00,
        0xcc79a7, 0x0072b2, 0x8c6bd6, 0x9aca3c, 0xa6761d, 0xff9da7,
    };
    enum { BY_HAND = sizeof by_hand / sizeof *by_hand };
    if (class == VOID_CLASS)
        return 0xb8b8b8;
    if (class < BY_HAND)
        return by_hand[class];
    double hue = fmod(class * 0.381966011, 1) * 6;
    uint32_t colour = 0;
    for (int c = 0; c < 3; c++) {
        double along = fabs(fmod(hue + 6 - 2 * c, 6) - 3) - 1;
        double level = along < 0 ? 0 : along > 1 ? 1 : along;
        colour = colour << 8 | (uint32_t)(70 + 170 * level + 0.5);
    }
    return colour;
}

/* ---- names ----------------------------------------------------------------------------------- */

static bool add_names(const char *path, char *text, size_t size, NameList *names, Error *error)
{
    for (char *line = text, *next; line < text + size; line = next) {
        char *end = memchr(line, '\n', (size_t)(text + size - line));
        next = end ? end + 1 : text + size;
        size_t length = (size_t)((end ? end : text + size) - line);
        while (length && strchr(" \t\r", line[length - 1]))
            length--;
        if (!length && next == text + size)
            break;                      /* an empty last line */
        if (!length || length > 60 || memchr(line, '\0', length))
            return fail(error, EXIT_USER, "line 1 names class 0, line 2 class 1, and so on",
                        "%s:%d: a class has a name of 1 to 60 bytes", path, names->count + 1);
        for (size_t i = 0, n; i < length; i += n) {
            n = utf8_character(line + i, length - i);
            if (!n || (unsigned char)line[i] < ' ' || line[i] == 127)
                return fail(error, EXIT_USER, "save the file as UTF-8",
                            "%s:%d: a byte that is no part of a name", path, names->count + 1);
        }
        for (int k = 0; k < names->count; k++)
            if (strlen(names->names[k]) == length && memcmp(names->names[k], line, length) == 0)
                return fail(error, EXIT_USER, "each class has a name of its own",
                            "%s:%d: '%.*s' is the name of class %d too", path, names->count + 1,
                            (int)length, line, k);
        if (names->count == MOST_CLASSES)
            return fail(error, EXIT_USER, "", "%s: more than %d classes", path, MOST_CLASSES);
        if (!list_add(names, line, length))
            return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    }
    return true;
}

bool classes_read(const char *folder, NameList *names, Error *error)
{
    char path[4500];
    struct stat status;
    *names = (NameList){ 0 };
    snprintf(path, sizeof path, "%s/classes.txt", folder);
    if (stat(path, &status) != 0)
        return true;
    size_t size;
    char *text = file_read(path, &size, error);
    bool read = text && add_names(path, text, size, names, error);
    free(text);
    if (!read)
        list_close(names);
    return read;
}

/* ---- a mask ---------------------------------------------------------------------------------- */

bool classes_check(const Image *mask, int classes, const char *path, Error *error)
{
    size_t count = (size_t)mask->width * (size_t)mask->height, at = 0;
    while (at < count && (mask->pixels[at] < classes || mask->pixels[at] == VOID_CLASS))
        at++;
    return at == count
        || fail(error, EXIT_USER,
                "segrun data check counts the numbers; compile with more classes "
                "(segc -D classes=N), or mark with 255 what belongs to none",
                "%s: number %d at column %d, row %d; the network's %d classes are 0 to %d", path,
                mask->pixels[at], (int)(at % (size_t)mask->width),
                (int)(at / (size_t)mask->width), classes, classes - 1);
}

bool classes_keep_largest(uint8_t *mask, int width, int height, int classes)
{
    size_t count = (size_t)width * (size_t)height;
    uint8_t *one = malloc(count);
    bool fine = one != NULL;
    for (int class = 1; fine && class < classes; class++) {
        for (size_t i = 0; i < count; i++)
            one[i] = mask[i] == class;
        fine = keep_largest_component(one, width, height);
        for (size_t i = 0; fine && i < count; i++)
            if (mask[i] == class && !one[i])
                mask[i] = 0;
    }
    free(one);
    return fine;
}
