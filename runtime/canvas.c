/* The two ways to draw: see canvas.h. */
#include "canvas.h"

#include <math.h>

#include "commands.h"

const Colour ink = { 0.13, 0.13, 0.13 }, grey = { 0.5, 0.5, 0.5 }, faint = { 0.88, 0.88, 0.88 };

double tick_step(double range, int count)
{
    double least = fmax(range, 1e-300) / count, power = pow(10, floor(log10(least)));
    double part = least / power;
    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

void put_html(FILE *out, const char *text)
{
    for (const char *c = text; *c; c++)
        switch (*c) {
        case '&': fputs("&amp;", out); break;
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '"': fputs("&quot;", out); break;
        case '\n': case '\t': fputc(*c, out); break;
        default:
            if ((unsigned char)*c < ' ')
                fputs("&#xfffd;", out);
            else
                fputc(*c, out);
        }
}

/* ---- beginning and end ----------------------------------------------------------------------- */

Canvas canvas_png(double width, double height)
{
    Canvas canvas = { .width = width, .height = height };
    canvas.surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)width, (int)height);
    canvas.cairo = cairo_create(canvas.surface);
    cairo_set_source_rgb(canvas.cairo, 1, 1, 1);
    cairo_paint(canvas.cairo);
    cairo_select_font_face(canvas.cairo, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           CAIRO_FONT_WEIGHT_NORMAL);
    return canvas;
}

Canvas canvas_svg(double width, double height, FILE *out)
{
    fprintf(out, "<svg viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\">\n", width, height, width,
            height);
    return (Canvas){ .width = width, .height = height, .svg = out };
}

bool canvas_close(Canvas *canvas, const char *path, Error *error)
{
    if (canvas->svg) {
        fputs("</svg>\n", canvas->svg);
        return true;
    }
    cairo_surface_flush(canvas->surface);
    bool written = surface_write(canvas->surface, path, error);
    cairo_destroy(canvas->cairo);
    cairo_surface_destroy(canvas->surface);
    return written;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static void put_colour(Canvas *canvas, const char *attribute, Colour c)
{
    fprintf(canvas->svg, " %s=\"#%02x%02x%02x\"", attribute, (unsigned)(255 * c.r + 0.5),
            (unsigned)(255 * c.g + 0.5), (unsigned)(255 * c.b + 0.5));
}

static void end_shape(Canvas *canvas, const char *element, const char *title)
{
    if (!title) {
        fputs("/>\n", canvas->svg);
        return;
    }
    fputs("><title>", canvas->svg);
    put_html(canvas->svg, title);
    fprintf(canvas->svg, "</title></%s>\n", element);
}

static void set_colour(Canvas *canvas, Colour c)
{
    cairo_set_source_rgb(canvas->cairo, c.r, c.g, c.b);
}

void draw_box(Canvas *canvas, double x, double y, double width, double height, Colour colour,
              const char *title)
{
    if (canvas->svg) {
        fprintf(canvas->svg, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"", x, y,
                width, height);
        put_colour(canvas, "fill", colour);
        end_shape(canvas, "rect", title);
        return;
    }
    set_colour(canvas, colour);
    cairo_rectangle(canvas->cairo, x, y, width, height);
    cairo_fill(canvas->cairo);
}

void draw_dot(Canvas *canvas, double x, double y, double radius, Colour colour, const char *title)
{
    if (canvas->svg) {
        fprintf(canvas->svg, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"%.2f\" fill-opacity=\"0.7\"", x,
                y, radius);
        put_colour(canvas, "fill", colour);
        end_shape(canvas, "circle", title);
        return;
    }
    cairo_set_source_rgba(canvas->cairo, colour.r, colour.g, colour.b, 0.7);
    cairo_arc(canvas->cairo, x, y, radius, 0, 2 * M_PI);
    cairo_fill(canvas->cairo);
}

void draw_line(Canvas *canvas, double x1, double y1, double x2, double y2, double width,
               Colour colour)
{
    if (canvas->svg) {
        fprintf(canvas->svg,
                "<line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" stroke-width=\"%g\"", x1,
                y1, x2, y2, width);
        put_colour(canvas, "stroke", colour);
        end_shape(canvas, "line", NULL);
        return;
    }
    set_colour(canvas, colour);
    cairo_set_line_width(canvas->cairo, width);
    cairo_set_line_cap(canvas->cairo, CAIRO_LINE_CAP_ROUND);
    cairo_move_to(canvas->cairo, x1, y1);
    cairo_line_to(canvas->cairo, x2, y2);
    cairo_stroke(canvas->cairo);
}

void draw_label(Canvas *canvas, double x, double y, double size, double align, Colour colour,
                const char *text)
{
    if (canvas->svg) {
        fprintf(canvas->svg, "<text x=\"%.2f\" y=\"%.2f\" font-size=\"%g\" text-anchor=\"%s\"", x,
                y, size, align < 0.25 ? "start" : align < 0.75 ? "middle" : "end");
        put_colour(canvas, "fill", colour);
        fputc('>', canvas->svg);
        put_html(canvas->svg, text);
        fputs("</text>\n", canvas->svg);
        return;
    }
    cairo_text_extents_t extents;
    set_colour(canvas, colour);
    cairo_set_font_size(canvas->cairo, size);
    cairo_text_extents(canvas->cairo, text, &extents);
    cairo_move_to(canvas->cairo, x - align * extents.x_advance, y);
    cairo_show_text(canvas->cairo, text);
    cairo_new_path(canvas->cairo);
}
