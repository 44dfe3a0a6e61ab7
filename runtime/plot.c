/* The curves of a run: left the loss, right the Dice, train and valid in each, over the epochs; the
 * best epoch is marked. As loss.png after every epoch, replaced atomically, so that a viewer never
 * shows half of it; and inside the page of `segrun report`.
 *
 * Axes get round steps (1, 2 or 5 times a power of ten); points that are no finite numbers are left
 * out, and so are those beyond 1e30. Of very long runs every second, third ... epoch is drawn.
 */
#include "plot.h"

#include <math.h>

enum { MOST_POINTS = 2000, MOST_DOTS = 40, MOST_TICKS = 20 };
static const Colour train_colour = { 0.12, 0.38, 0.72 }, valid_colour = { 0.85, 0.37, 0.05 };
static const Colour white = { 1, 1, 1 };

typedef struct {
    Canvas *canvas;
    const EpochRow *rows; int n;
    bool dice;                       /* else the loss */
    double x, y, width, height;      /* of the axes, pixels */
    double first, last, low, high;   /* what they show */
} Panel;

static double panel_x(const Panel *panel, double epoch)
{
    return panel->x + panel->width * (epoch - panel->first) / (panel->last - panel->first);
}

static double panel_y(const Panel *panel, double value)
{
    return panel->y + panel->height * (1 - (value - panel->low) / (panel->high - panel->low));
}

static void draw_axes(const Panel *panel)
{
    Canvas *canvas = panel->canvas;
    char text[32];
    double left = floor(panel->x) + 0.5, right = left + floor(panel->width);
    double top = floor(panel->y) + 0.5, bottom = top + floor(panel->height);
    double step = tick_step(panel->high - panel->low, 6);
    int digits = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    double first = ceil(panel->low / step - 1e-9);
    for (int k = 0; k < MOST_TICKS && (first + k) * step <= panel->high + 1e-9 * step; k++) {
        double value = (first + k) * step, y = floor(panel_y(panel, value)) + 0.5;
        draw_line(canvas, panel->x, y, panel->x + panel->width, y, 1, faint);
        snprintf(text, sizeof text, "%.*f", digits, value == 0 ? 0 : value);
        draw_label(canvas, panel->x - 8, y + 4, 12, 1, ink, text);
    }
    step = fmax(1, tick_step(panel->last - panel->first, 8));
    for (double i = ceil(panel->first / step - 1e-9); i * step <= panel->last; i++) {
        double x = floor(panel_x(panel, i * step)) + 0.5;
        draw_line(canvas, x, bottom, x, bottom + 4, 1, ink);
        snprintf(text, sizeof text, "%.0f", fabs(i * step));
        draw_label(canvas, x, bottom + 18, 12, 0.5, ink, text);
    }
    draw_line(canvas, left, top, right, top, 1, ink);
    draw_line(canvas, right, top, right, bottom, 1, ink);
    draw_line(canvas, right, bottom, left, bottom, 1, ink);
    draw_line(canvas, left, bottom, left, top, 1, ink);
    draw_label(canvas, panel->x + panel->width / 2, bottom + 38, 13, 0.5, ink, "epoch");
    draw_label(canvas, panel->x, panel->y - 10, 14, 0, ink, panel->dice ? "Dice" : "loss");
}

static double row_value(const Panel *panel, int i, bool valid)
{
    const EpochRow *row = &panel->rows[i];
    double value = panel->dice ? (valid ? row->valid_dice : row->train_dice)
                               : (valid ? row->valid_loss : row->train_loss);
    return fabs(value) < 1e30 ? value : NAN;
}

static void draw_curve(const Panel *panel, bool valid)
{
    Colour colour = valid ? valid_colour : train_colour;
    int stride = (panel->n + MOST_POINTS - 1) / MOST_POINTS, before = -1;
    for (int i = 0; i < panel->n; i += stride) {
        double value = row_value(panel, i, valid);
        if (!isfinite(value)) {
            before = -1;
            continue;
        }
        double x = panel_x(panel, panel->rows[i].epoch), y = panel_y(panel, value);
        if (before >= 0)
            draw_line(panel->canvas, panel_x(panel, panel->rows[before].epoch),
                      panel_y(panel, row_value(panel, before, valid)), x, y, 2, colour);
        if (panel->n <= MOST_DOTS)
            draw_dot(panel->canvas, x, y, 2.6, colour, NULL);
        before = i;
    }
}

/* In the panel's corner: top right for the loss, bottom right for the Dice. */
static void draw_legend(const Panel *panel)
{
    double x = panel->x + panel->width - 74;
    double y = panel->dice ? panel->y + panel->height - 40 : panel->y + 12;
    draw_box(panel->canvas, x - 6, y - 6, 74, 40, white, NULL);
    for (int valid = 0; valid < 2; valid++) {
        double middle = y + 5 + 18 * valid;
        draw_line(panel->canvas, x, middle, x + 22, middle, 2,
                  valid ? valid_colour : train_colour);
        draw_label(panel->canvas, x + 28, middle + 4, 12, 0, ink, valid ? "valid" : "train");
    }
}

static void set_range(Panel *panel)
{
    double low = HUGE_VAL, high = -HUGE_VAL;
    for (int i = 0; i < panel->n; i++)
        for (int valid = 0; valid < 2; valid++) {
            double value = row_value(panel, i, valid);
            if (isfinite(value)) {
                low = fmin(low, value);
                high = fmax(high, value);
            }
        }
    if (low > high) {
        low = 0;
        high = 1;
    }
    if (!panel->dice)
        low = fmin(low, 0);
    if (high - low < 1e-6)
        low -= 0.05 + 0.05 * fabs(low);
    double step = tick_step(high - low, 6);
    panel->low = floor(low / step) * step;
    panel->high = ceil(high / step + 1e-9) * step;
    if (panel->dice) {
        panel->low = fmax(panel->low, 0);
        panel->high = fmin(panel->high, 1);
    }
    if (panel->low >= panel->high) { /* no Dice at all */
        panel->low = 0;
        panel->high = 1;
    }
    panel->first = 0;
    panel->last = panel->rows[panel->n - 1].epoch + 0.5;
}

static void draw_best(const Panel *panel)
{
    int best = -1;
    for (int i = 0; i < panel->n; i++)
        if (panel->rows[i].best)
            best = i;
    if (best < 0 || !isfinite(row_value(panel, best, true)))
        return;
    const EpochRow *row = &panel->rows[best];
    char text[64];
    snprintf(text, sizeof text, "best valid Dice %.4f, epoch %d", row->valid_dice, row->epoch);
    draw_dot(panel->canvas, panel_x(panel, row->epoch), panel_y(panel, row->valid_dice), 6,
             valid_colour, text);
    draw_label(panel->canvas, panel->x + panel->width, panel->y - 10, 12, 1, ink, text);
}

void draw_curves(Canvas *canvas, const char *title, const EpochRow *rows, int n)
{
    draw_label(canvas, CURVES_WIDTH / 2.0, 24, 15, 0.5, ink, title);
    for (int dice = 0; dice < 2 && n > 0; dice++) {
        Panel panel = {
            .canvas = canvas, .rows = rows, .n = n, .dice = dice, .x = dice ? 620 : 70, .y = 66,
            .width = 450, .height = 310
        };
        set_range(&panel);
        draw_axes(&panel);
        draw_curve(&panel, false);
        draw_curve(&panel, true);
        draw_legend(&panel);
        if (dice)
            draw_best(&panel);
    }
}

bool plot_write(const char *path, const char *title, const EpochRow *rows, int n, Error *error)
{
    Canvas canvas = canvas_png(CURVES_WIDTH, CURVES_HEIGHT);
    draw_curves(&canvas, title, rows, n);
    return canvas_close(&canvas, path, error);
}
