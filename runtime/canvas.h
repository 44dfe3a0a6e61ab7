/* Something to draw on: a picture that becomes a PNG (by cairo), or SVG in a page. What is drawn is
 * said once for both. Coordinates are pixels from the upper left corner.
 */
#ifndef CANVAS_H
#define CANVAS_H

#include <cairo.h>
#include <stdio.h>

#include "run.h"

typedef struct { double r, g, b; } Colour;
typedef struct {
    double width, height;
    cairo_surface_t *surface;   /* of a PNG */
    cairo_t *cairo;
    FILE *svg;                  /* else; the caller's */
} Canvas;

Canvas canvas_png(double width, double height);
Canvas canvas_svg(double width, double height, FILE *);
/* path: of the PNG; of an SVG it is not looked at. */
bool canvas_close(Canvas *, const char *path, Error *);

/* title: what a page shows when one points at it; may be NULL. */
void draw_box(Canvas *, double x, double y, double width, double height, Colour,
              const char *title);
void draw_dot(Canvas *, double x, double y, double radius, Colour, const char *title);
void draw_line(Canvas *, double x1, double y1, double x2, double y2, double width, Colour);
/* align: 0 left, 0.5 centre, 1 right of x. */
void draw_label(Canvas *, double x, double y, double size, double align, Colour, const char *text);

/* Text in HTML or SVG. */
void put_html(FILE *, const char *text);
/* A step of 1, 2 or 5 times a power of ten that gives at most `count` ticks. */
double tick_step(double range, int count);

extern const Colour ink, grey, faint;

#endif
