/* The curves of a run on a canvas: loss.png, and the page of `segrun report`. */
#ifndef PLOT_H
#define PLOT_H

#include "canvas.h"
#include "commands.h"

enum { CURVES_WIDTH = 1100, CURVES_HEIGHT = 440 };
void draw_curves(Canvas *, const char *title, const EpochRow *, int n);

#endif
