/* loss.png: the curves of a run, drawn with cairo after every epoch. Left the loss, right the Dice,
 * train and valid in each, over the epochs; the best epoch is marked. Axes get round steps (1, 2 or
 * 5 times a power of ten); points that are no finite numbers are left out. The file is replaced
 * atomically, so that a viewer never shows half of it.
 */
#include "commands.h"

#include <cairo.h>
#include <math.h>
#include <stdlib.h>

enum { WIDTH = 1100, HEIGHT = 440 };

typedef struct { double r, g, b; } Colour;
static const Colour train_colour = { 0.12, 0.38, 0.72 }, valid_colour = { 0.85, 0.37, 0.05 };
static const Colour ink = { 0.13, 0.13, 0.13 }, faint = { 0.88, 0.88, 0.88 };

typedef struct {
    cairo_t *cairo;
    double x, y, width, height;      /* of the axes, pixels */
    double first, last, low, high;   /* what they show */
} Panel;

static void set_colour(cairo_t *cairo, Colour colour)
{
    cairo_set_source_rgb(cairo, colour.r, colour.g, colour.b);
}

static double panel_x(const Panel *panel, double epoch)
{
    return panel->x + panel->width * (epoch - panel->first) / (panel->last - panel->first);
}

static double panel_y(const Panel *panel, double value)
{
    return panel->y + panel->height * (1 - (value - panel->low) / (panel->high - panel->low));
}

/* A step of 1, 2 or 5 times a power of ten that gives at most `count` ticks. */
static double round_step(double range, int count)
{
    double least = range / count, power = pow(10, floor(log10(least)));
    double part = least / power;
    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

/* align: 0 left, 0.5 centre, 1 right of x. */
static void draw_text(cairo_t *cairo, double x, double y, double size, double align,
                      const char *text)
{
    cairo_text_extents_t extents;
    cairo_set_font_size(cairo, size);
    cairo_text_extents(cairo, text, &extents);
    cairo_move_to(cairo, x - align * extents.x_advance, y);
    cairo_show_text(cairo, text);
    cairo_new_path(cairo);       /* else the next arc is joined to the end of the text */
}

static void draw_axes(const Panel *panel, const char *title)
{
    cairo_t *cairo = panel->cairo;
    char text[32];
    double step = round_step(panel->high - panel->low, 6);
    int digits = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    cairo_set_line_width(cairo, 1);
    for (double i = ceil(panel->low / step - 1e-9); i * step <= panel->high + 1e-9 * step; i++) {
        double y = floor(panel_y(panel, i * step)) + 0.5;
        set_colour(cairo, faint);
        cairo_move_to(cairo, panel->x, y);
        cairo_line_to(cairo, panel->x + panel->width, y);
        cairo_stroke(cairo);
        set_colour(cairo, ink);
        snprintf(text, sizeof text, "%.*f", digits, i * step == 0 ? 0 : i * step);
        draw_text(cairo, panel->x - 8, y + 4, 12, 1, text);
    }
    step = fmax(1, round_step(panel->last - panel->first, 8));
    for (double i = ceil(panel->first / step - 1e-9); i * step <= panel->last; i++) {
        double x = floor(panel_x(panel, i * step)) + 0.5;
        set_colour(cairo, ink);
        cairo_move_to(cairo, x, panel->y + panel->height);
        cairo_line_to(cairo, x, panel->y + panel->height + 4);
        cairo_stroke(cairo);
        snprintf(text, sizeof text, "%.0f", fabs(i * step));
        draw_text(cairo, x, panel->y + panel->height + 18, 12, 0.5, text);
    }
    cairo_rectangle(cairo, floor(panel->x) + 0.5, floor(panel->y) + 0.5, floor(panel->width),
                    floor(panel->height));
    cairo_stroke(cairo);
    draw_text(cairo, panel->x + panel->width / 2, panel->y + panel->height + 38, 13, 0.5, "epoch");
    draw_text(cairo, panel->x, panel->y - 10, 14, 0, title);
}

static double row_value(const EpochRow *row, bool dice, bool valid)
{
    if (dice)
        return valid ? row->valid_dice : row->train_dice;
    return valid ? row->valid_loss : row->train_loss;
}

static void draw_curve(const Panel *panel, const EpochRow *rows, int n, bool dice, bool valid)
{
    cairo_t *cairo = panel->cairo;
    bool pen = false;
    set_colour(cairo, valid ? valid_colour : train_colour);
    cairo_set_line_width(cairo, 2);
    cairo_set_line_join(cairo, CAIRO_LINE_JOIN_ROUND);
    for (int i = 0; i < n; i++) {
        double value = row_value(&rows[i], dice, valid);
        if (isfinite(value))
            (pen ? cairo_line_to : cairo_move_to)(cairo, panel_x(panel, rows[i].epoch),
                                                  panel_y(panel, value));
        pen = isfinite(value);
    }
    cairo_stroke(cairo);
    for (int i = 0; i < n && n <= 40; i++) {
        double value = row_value(&rows[i], dice, valid);
        if (!isfinite(value))
            continue;
        cairo_arc(cairo, panel_x(panel, rows[i].epoch), panel_y(panel, value), 2.6, 0, 2 * M_PI);
        cairo_fill(cairo);
    }
}

/* A line of the legend, in the panel's corner: top right for the loss, bottom right for the Dice.
 */
static void draw_legend(const Panel *panel, bool dice)
{
    cairo_t *cairo = panel->cairo;
    double x = panel->x + panel->width - 74;
    double y = dice ? panel->y + panel->height - 40 : panel->y + 12;
    cairo_set_source_rgba(cairo, 1, 1, 1, 0.85);
    cairo_rectangle(cairo, x - 6, y - 6, 74, 40);
    cairo_fill(cairo);
    for (int valid = 0; valid < 2; valid++) {
        double middle = y + 5 + 18 * valid;
        set_colour(cairo, valid ? valid_colour : train_colour);
        cairo_set_line_width(cairo, 2);
        cairo_move_to(cairo, x, middle);
        cairo_line_to(cairo, x + 22, middle);
        cairo_stroke(cairo);
        set_colour(cairo, ink);
        draw_text(cairo, x + 28, middle + 4, 12, 0, valid ? "valid" : "train");
    }
}

static void set_range(Panel *panel, const EpochRow *rows, int n, bool dice)
{
    double low = HUGE_VAL, high = -HUGE_VAL;
    for (int i = 0; i < n; i++)
        for (int valid = 0; valid < 2; valid++) {
            double value = row_value(&rows[i], dice, valid);
            if (isfinite(value)) {
                low = fmin(low, value);
                high = fmax(high, value);
            }
        }
    if (low > high) {
        low = 0;
        high = 1;
    }
    if (!dice)
        low = fmin(low, 0);
    if (high - low < 1e-6)
        low -= 0.05 + 0.05 * fabs(low);
    double step = round_step(high - low, 6);
    panel->low = floor(low / step) * step;
    panel->high = ceil(high / step + 1e-9) * step;
    if (dice) {
        panel->low = fmax(panel->low, 0);
        panel->high = fmin(panel->high, 1);
    }
    panel->first = 0;
    panel->last = rows[n - 1].epoch + 0.5;
}

static void draw_best(const Panel *panel, const EpochRow *rows, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (rows[i].best)
            best = i;
    if (best < 0 || !isfinite(rows[best].valid_dice))
        return;
    char text[64];
    double x = panel_x(panel, rows[best].epoch), y = panel_y(panel, rows[best].valid_dice);
    set_colour(panel->cairo, valid_colour);
    cairo_set_line_width(panel->cairo, 1.5);
    cairo_arc(panel->cairo, x, y, 6, 0, 2 * M_PI);
    cairo_stroke(panel->cairo);
    set_colour(panel->cairo, ink);
    snprintf(text, sizeof text, "best valid Dice %.4f, epoch %d", rows[best].valid_dice,
             rows[best].epoch);
    draw_text(panel->cairo, panel->x + panel->width, panel->y - 10, 12, 1, text);
}

bool plot_write(const char *path, const char *title, const EpochRow *rows, int n, Error *error)
{
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, WIDTH, HEIGHT);
    cairo_t *cairo = cairo_create(surface);
    cairo_set_source_rgb(cairo, 1, 1, 1);
    cairo_paint(cairo);
    cairo_select_font_face(cairo, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    set_colour(cairo, ink);
    draw_text(cairo, WIDTH / 2.0, 24, 15, 0.5, title);
    for (int dice = 0; dice < 2 && n > 0; dice++) {
        Panel panel = {
            .cairo = cairo, .x = dice ? 620 : 70, .y = 66, .width = 450, .height = 310
        };
        set_range(&panel, rows, n, dice);
        draw_axes(&panel, dice ? "Dice" : "loss");
        draw_curve(&panel, rows, n, dice, false);
        draw_curve(&panel, rows, n, dice, true);
        draw_legend(&panel, dice);
        if (dice)
            draw_best(&panel, rows, n);
    }
    cairo_surface_flush(surface);
    bool written = surface_write(surface, path, error);
    cairo_destroy(cairo);
    cairo_surface_destroy(surface);
    return written;
}
