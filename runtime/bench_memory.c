/* The memory map: which tensor lies where, and when. A rectangle is a tensor of the activations, as
 * wide as the steps that need it and as high as its bytes; what a step needs for itself (workspaces)
 * is grey. Where two rectangles overlap, one tensor was written over the other in place.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_pictures.h"
#include "plan_graph.h"

enum { TOP = 34, LEFT = 80, BOTTOM = MEMORY_HEIGHT - 50, RIGHT = PICTURE_WIDTH - 20 };

typedef struct {
    Canvas *canvas;
    const PlanProgram *program;
    double bytes, samples;      /* of the map; the batch */
} Map;

static double map_x(const Map *map, int step)
{
    return LEFT + (double)(RIGHT - LEFT) * step / fmax(map->program->n_steps, 1);
}

static double map_y(const Map *map, double bytes)
{
    return BOTTOM - (BOTTOM - TOP) * bytes / fmax(map->bytes, 1);
}

static void draw_axes(const Map *map)
{
    char text[32];
    double step = tick_step(map->bytes / (1 << 20), 8);
    for (double mib = 0; mib * (1 << 20) <= map->bytes; mib += step) {
        double y = map_y(map, mib * (1 << 20));
        draw_line(map->canvas, LEFT, y, RIGHT, y, 1, faint);
        snprintf(text, sizeof text, "%g MiB", mib);
        draw_label(map->canvas, LEFT - 8, y + 4, 12, 1, ink, text);
    }
    step = fmax(1, tick_step(map->program->n_steps, 12));
    for (double i = 0; i <= map->program->n_steps; i += step) {
        snprintf(text, sizeof text, "%g", i);
        draw_label(map->canvas, map_x(map, (int)i), BOTTOM + 18, 12, 0.5, ink, text);
    }
    draw_label(map->canvas, (LEFT + RIGHT) / 2.0, BOTTOM + 38, 13, 0.5, ink, "step");
}

static void draw_part(const Map *map, const PlanBuffer *buffer, int first, int last, Colour colour,
                      const char *title)
{
    double low = map_y(map, (double)buffer->offset * map->samples);
    double high = map_y(map, (double)(buffer->offset + buffer->bytes) * map->samples);
    double x = map_x(map, first), right = map_x(map, last + 1);
    draw_box(map->canvas, x, high, fmax(right - x - 0.2, 0.4), fmax(low - high - 0.4, 0.2), colour,
             title);
}

static void draw_node(const Map *map, int index, int first, int last)
{
    const PlanNode *node = &map->program->nodes[index];
    int step = group_step(map->program, node->group);
    Colour colour = step < 0 ? grey : step_kind(&map->program->steps[step])->colour;
    char title[400];
    if (node->buffer.slab != SLAB_ACTIVATIONS || node->buffer.bytes == 0 || first < 0)
        return;
    snprintf(title, sizeof title, "%.250s\n%.2f MiB, steps %d to %d", node->line,
             (double)node->buffer.bytes * map->samples / (1 << 20), first, last);
    /* Light: what is written in place shows through by its own border. */
    const Colour light = { 0.45 + 0.55 * colour.r, 0.45 + 0.55 * colour.g,
                           0.45 + 0.55 * colour.b };
    draw_part(map, &node->buffer, first, last, light, title);
}

static bool is_tensor(const PlanProgram *program, const PlanBuffer *buffer)
{
    for (int i = 0; i < program->n_nodes; i++) {
        const PlanBuffer *other = &program->nodes[i].buffer;
        if (other->slab == buffer->slab && other->bytes == buffer->bytes
            && other->offset == buffer->offset)
            return true;
    }
    return false;
}

static void draw_workspaces(const Map *map)
{
    char title[300];
    for (int i = 0; i < map->program->n_steps; i++)
        for (int k = 0; k < map->program->steps[i].n_buffers; k++) {
            const PlanBuffer *buffer = &map->program->steps[i].buffers[k];
            if (buffer->slab != SLAB_ACTIVATIONS || is_tensor(map->program, buffer))
                continue;
            snprintf(title, sizeof title, "workspace of %.150s\n%.2f MiB, step %d",
                     map->program->steps[i].label,
                     (double)buffer->bytes * map->samples / (1 << 20), i);
            draw_part(map, buffer, i, i, grey, title);
        }
}

void draw_memory(Canvas *canvas, const Bench *bench, const BenchPlan *plan)
{
    const PlanProgram *program = plan->program;
    Map map = { canvas, program, (double)program->sample_bytes * bench->batch, bench->batch };
    size_t n = (size_t)program->n_nodes + 1;
    int *first = calloc(n, sizeof *first), *last = calloc(n, sizeof *last);
    const char *slash = strrchr(plan->path, '/');
    char text[200];
    snprintf(text, sizeof text, "%.60s: %.40s, batch %d: %.1f MiB of activations",
             slash ? slash + 1 : plan->path, program->name, bench->batch, map.bytes / (1 << 20));
    draw_label(canvas, PICTURE_WIDTH / 2.0, 20, 14, 0.5, ink, text);
    draw_axes(&map);
    if (first && last && node_lifetimes(program, first, last)) {
        for (int i = 0; i < program->n_nodes; i++)
            draw_node(&map, i, first[i], last[i]);
        draw_workspaces(&map);
    }
    free(first);
    free(last);
}

/* ---- files ----------------------------------------------------------------------------------- */

static bool close_into(Canvas *canvas, const char *folder, const char *name, Error *error)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%.4000s/%s", folder, name) >= (int)sizeof path)
        path[sizeof path - 1] = 0;
    return canvas_close(canvas, path, error);
}

bool bench_plot(const Bench *bench, const char *folder, Error *error)
{
    if (!folder_make(folder, error))
        return false;
    Canvas roofline = canvas_png(PICTURE_WIDTH, ROOFLINE_HEIGHT);
    draw_roofline(&roofline, bench);
    Canvas bars = canvas_png(PICTURE_WIDTH, bars_height(bench));
    draw_bars(&bars, bench);
    Canvas timeline = canvas_png(PICTURE_WIDTH, timeline_height());
    draw_timeline(&timeline, bench, &bench->plans[0]);
    Canvas memory = canvas_png(PICTURE_WIDTH, MEMORY_HEIGHT);
    draw_memory(&memory, bench, &bench->plans[0]);
    bool written = close_into(&roofline, folder, "roofline.png", error);
    written = close_into(&bars, folder, "times.png", written ? error : NULL) && written;
    written = close_into(&timeline, folder, "timeline.png", written ? error : NULL) && written;
    return close_into(&memory, folder, "memory.png", written ? error : NULL) && written;
}
