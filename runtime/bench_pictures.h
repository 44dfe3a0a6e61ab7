/* Pictures of what a bench measured, on a canvas: for `segrun bench --plot` and `--report`. The bench
 * has profiles.
 */
#ifndef BENCH_PICTURES_H
#define BENCH_PICTURES_H

#include "bench.h"
#include "canvas.h"

/* Kinds of steps, each with a colour. */
typedef struct { const char *name; Colour colour; } StepKind;
const StepKind *step_kind(const PlanStep *);
extern const StepKind step_kinds[];
extern const int n_step_kinds;

enum { PICTURE_WIDTH = 1100 };
/* Each step by its operations a byte and its rate, below the ceiling. */
enum { ROOFLINE_HEIGHT = 520 };
void draw_roofline(Canvas *, const Bench *);
/* A bar a plan, of the times of its kinds of steps. */
double bars_height(const Bench *);
void draw_bars(Canvas *, const Bench *);
/* One run: a lane a kind of steps. */
double timeline_height(void);
void draw_timeline(Canvas *, const Bench *, const BenchPlan *);
/* The activations' addresses over the steps; needs the plan's nodes. */
enum { MEMORY_HEIGHT = 560 };
void draw_memory(Canvas *, const Bench *, const BenchPlan *);

/* roofline.png, times.png, timeline.png and memory.png, of the first plan, into a folder. */
bool bench_plot(const Bench *, const char *folder, Error *);

#endif
