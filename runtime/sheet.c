/* A sheet of predictions: for each picture the picture itself, the true mask, and the predicted
 * mask, eight pictures to a row, as one PNG drawn with cairo.
 *
 * A row of the sheet is three bands: pictures, true masks, predicted masks. In the predicted mask,
 * white is pet that was found, red is pet that was missed, blue is background that was taken for
 * pet; so a sheet shows where a network errs and not only how much. Of several classes both masks
 * have the classes' colours. Cells are at most 160 pixels wide.
 */
#include "commands.h"

#include <cairo.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 8, GAP = 6, LABEL = 18, TITLE = 46, CELL = 160, LEFT = 76 };

struct Sheet {
    cairo_surface_t *surface;
    cairo_t *cairo;
    int height, width;           /* of a picture */
    double scale;                /* to a cell */
    int cell_height, cell_width;
    int n;                       /* pictures so far */
    int classes;
};

static void show_text(cairo_t *cairo, double x, double y, double size, const char *text)
{
    cairo_set_font_size(cairo, size);
    cairo_move_to(cairo, x, y);
    cairo_show_text(cairo, text);
}

/* As show_text, shortened to `width`. */
static void show_short(cairo_t *cairo, double x, double y, double width, const char *text)
{
    char shown[64];
    cairo_text_extents_t extents;
    snprintf(shown, sizeof shown, "%s", text);
    cairo_set_font_size(cairo, 11);
    for (size_t n = strlen(shown); n > 3; n--) {
        cairo_text_extents(cairo, shown, &extents);
        if (extents.x_advance <= width)
            break;
        memcpy(shown + n - 3, "..", 3);
    }
    cairo_move_to(cairo, x, y);
    cairo_show_text(cairo, shown);
}

/* Squares in the classes' colours with their names, as many as there is room for. */
static void show_classes(cairo_t *cairo, double width, int classes, const char *const *names)
{
    double x = GAP;
    cairo_text_extents_t extents;
    for (int k = 0; k < classes && x < width - 40; k++) {
        uint32_t colour = class_colour(k);
        cairo_set_source_rgb(cairo, (colour >> 16) / 255.0, (colour >> 8 & 255) / 255.0,
                             (colour & 255) / 255.0);
        cairo_rectangle(cairo, x, 28, 10, 10);
        cairo_fill(cairo);
        cairo_set_source_rgb(cairo, 0.35, 0.35, 0.35);
        show_text(cairo, x + 14, 37, 11, names[k]);
        cairo_text_extents(cairo, names[k], &extents);
        x += 14 + extents.x_advance + 14;
    }
}

Sheet *sheet_open(const char *title, int n_pictures, int height, int width, int classes,
                  const char *const *names)
{
    Sheet *sheet = calloc(1, sizeof *sheet);
    if (!sheet)
        return NULL;
    int longest = height > width ? height : width;
    int columns = n_pictures < COLUMNS ? n_pictures : COLUMNS;
    int rows = (n_pictures + COLUMNS - 1) / COLUMNS;
    sheet->height = height;
    sheet->width = width;
    sheet->scale = (double)CELL / longest;
    sheet->cell_height = (int)(height * sheet->scale + 0.5);
    sheet->cell_width = (int)(width * sheet->scale + 0.5);
    int total_width = LEFT + columns * (sheet->cell_width + GAP) + GAP;
    int total_height = TITLE + rows * (LABEL + 3 * (sheet->cell_height + GAP) + GAP) + GAP;
    if (total_width < 560)
        total_width = 560;
    sheet->surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, total_width, total_height);
    sheet->cairo = cairo_create(sheet->surface);
    if (cairo_status(sheet->cairo) != CAIRO_STATUS_SUCCESS) {
        sheet_close(sheet);
        return NULL;
    }
    cairo_set_source_rgb(sheet->cairo, 1, 1, 1);
    cairo_paint(sheet->cairo);
    cairo_select_font_face(sheet->cairo, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_source_rgb(sheet->cairo, 0.1, 0.1, 0.1);
    show_text(sheet->cairo, GAP, 19, 15, title);
    cairo_set_source_rgb(sheet->cairo, 0.35, 0.35, 0.35);
    sheet->classes = classes;
    if (classes > 1)
        show_classes(sheet->cairo, total_width, classes, names);
    else
        show_text(sheet->cairo, GAP, 37, 11,
                  "predicted: white pet found, red pet missed, blue background taken for pet");
    return sheet;
}

Sheet *sheet_of(const Dataset *data, const ProgramTensors *tensors, const char *title,
                int n_pictures, Error *error)
{
    const char *names[MOST_CLASSES];
    for (int k = 0; k < tensors->classes && tensors->classes > 1; k++)
        names[k] = dataset_class(data, k);
    Sheet *sheet = sheet_open(title, n_pictures, (int)tensors->image->dims[1],
                              (int)tensors->image->dims[2], tensors->classes, names);
    if (!sheet)
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the sheet");
    return sheet;
}

static uint32_t error_colour(bool pet, bool predicted)
{
    if (pet)
        return predicted ? 0xffffff : 0xd62728;
    return predicted ? 0x3b6fd4 : 0x101010;
}

/* Draws pixels (0xRRGGBB, [height][width]) into the cell at x, y. */
static void draw_cell(Sheet *sheet, const uint32_t *pixels, double x, double y)
{
    int stride = cairo_format_stride_for_width(CAIRO_FORMAT_RGB24, sheet->width);
    cairo_surface_t *cell =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, sheet->width, sheet->height);
    if (cairo_surface_status(cell) == CAIRO_STATUS_SUCCESS) {
        unsigned char *data = cairo_image_surface_get_data(cell);
        for (int row = 0; row < sheet->height; row++)
            memcpy(data + (size_t)row * (size_t)stride, pixels + (size_t)row * (size_t)sheet->width,
                   (size_t)sheet->width * sizeof *pixels);
        cairo_surface_mark_dirty(cell);
        cairo_save(sheet->cairo);
        cairo_translate(sheet->cairo, x, y);
        cairo_scale(sheet->cairo, sheet->scale, sheet->scale);
        cairo_set_source_surface(sheet->cairo, cell, 0, 0);
        cairo_pattern_set_filter(cairo_get_source(sheet->cairo),
                                 sheet->scale < 1 ? CAIRO_FILTER_GOOD : CAIRO_FILTER_NEAREST);
        cairo_paint(sheet->cairo);
        cairo_restore(sheet->cairo);
    }
    cairo_surface_destroy(cell);
}

void sheet_add(Sheet *sheet, const char *name, const uint8_t *image, const uint8_t *mask,
               const uint8_t *predicted, double dice)
{
    size_t pixels = (size_t)sheet->height * (size_t)sheet->width;
    uint32_t *colours = malloc(3 * pixels * sizeof *colours);
    if (!colours)
        return;
    for (size_t i = 0; i < pixels; i++) {
        colours[i] =
            (uint32_t)image[i] << 16 | (uint32_t)image[pixels + i] << 8 | image[2 * pixels + i];
        colours[pixels + i] = sheet->classes > 1 ? class_colour(mask[i])
                            : mask[i]            ? 0xffffff : 0x101010;
        colours[2 * pixels + i] = sheet->classes > 1 ? class_colour(predicted[i])
                                                     : error_colour(mask[i] != 0, predicted[i] != 0);
    }
    int column = sheet->n % COLUMNS, row = sheet->n / COLUMNS;
    double x = LEFT + column * (sheet->cell_width + GAP);
    double y = TITLE + row * (LABEL + 3 * (sheet->cell_height + GAP) + GAP);
    static const char *const bands[] = { "picture", "true mask", "predicted" };
    for (int band = 0; band < 3; band++) {
        double top = y + LABEL + band * (sheet->cell_height + GAP);
        draw_cell(sheet, colours + (size_t)band * pixels, x, top);
        cairo_set_source_rgb(sheet->cairo, 0.1, 0.1, 0.1);
        if (column == 0)
            show_text(sheet->cairo, GAP, top + sheet->cell_height / 2.0 + 4, 12, bands[band]);
    }
    char score[16];
    snprintf(score, sizeof score, "%.3f", dice);
    show_short(sheet->cairo, x, y + 13, sheet->cell_width - 38, name);
    show_text(sheet->cairo, x + sheet->cell_width - 32, y + 13, 11, score);
    sheet->n++;
    free(colours);
}

typedef struct { FILE *out; } PngStream;

static cairo_status_t write_png_bytes(void *context, const unsigned char *data, unsigned length)
{
    PngStream *stream = context;
    return fwrite(data, 1, length, stream->out) == length ? CAIRO_STATUS_SUCCESS
                                                          : CAIRO_STATUS_WRITE_ERROR;
}

/* To free(); NULL after an error. */
static char *surface_png(cairo_surface_t *surface, size_t *size, Error *error)
{
    char *bytes = NULL;
    PngStream stream = { open_memstream(&bytes, size) };
    cairo_status_t status = CAIRO_STATUS_NO_MEMORY;
    if (stream.out)
        status = cairo_surface_write_to_png_stream(surface, write_png_bytes, &stream);
    if (stream.out && fclose(stream.out) == 0 && status == CAIRO_STATUS_SUCCESS)
        return bytes;
    free(bytes);
    fail(error, EXIT_ENVIRONMENT, "", "cannot make a PNG: %s", cairo_status_to_string(status));
    return NULL;
}

bool surface_write(cairo_surface_t *surface, const char *path, Error *error)
{
    size_t size = 0;
    char *bytes = surface_png(surface, &size, error);
    bool written = bytes && file_write(path, bytes, size, error);
    free(bytes);
    return written;
}

char *sheet_png(Sheet *sheet, size_t *bytes, int *height, int *width, Error *error)
{
    cairo_surface_flush(sheet->surface);
    *height = cairo_image_surface_get_height(sheet->surface);
    *width = cairo_image_surface_get_width(sheet->surface);
    return surface_png(sheet->surface, bytes, error);
}

bool sheet_write(Sheet *sheet, const char *path, Error *error)
{
    cairo_surface_flush(sheet->surface);
    return surface_write(sheet->surface, path, error);
}

void sheet_close(Sheet *sheet)
{
    cairo_destroy(sheet->cairo);
    cairo_surface_destroy(sheet->surface);
    free(sheet);
}
