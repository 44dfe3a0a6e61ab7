/* The graph of a program in a report: as it was before fusion, a box a node, those of one group in
 * one colour, inlined ones dashed; and after it, a box a group with its time.
 *
 * A row is a level: the longest way from an input. What the gradients need goes down on the left;
 * the gradients come up on the right, so that a tensor that both need joins neighbours. In a row the
 * box with the longest way on chooses first, a place near its operands'. Parameters and constants are
 * left out; they stand in the lines that a browser shows when one points at a box.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_page.h"
#include "bench_pictures.h"
#include "plan_graph.h"

enum { SLOTS = 48, MARGIN = 40 };

typedef struct {
    char name[96], detail[64];
    char *title;
    Colour colour;
    bool dashed, backward;
    int n_inputs, *inputs;      /* boxes before it */
    int row, slot, rest;
} Box;

typedef struct {
    const BenchPlan *plan;
    bool groups;
    int n; Box *boxes;
    int *box_of;                /* by node; -1: none */
    int rows, slots;            /* slots: of the left side */
    double width, height, across, down; /* of a box; from one to the next */
} Drawing;

/* Golden angles: neighbours differ. */
static Colour group_colour(int group)
{
    double hue = fmod(group * 137.508, 360) / 60, part[3];
    for (int i = 0; i < 3; i++) {
        double away = fabs(fmod(hue - 2 * i + 9, 6) - 3);
        part[i] = 0.62 + 0.33 * fmin(fmax(away > 2 ? 0 : 2 - away, 0), 1);
    }
    return (Colour){ part[0], part[1], part[2] };
}

static bool is_drawn(const PlanNode *node)
{
    char name[32];
    node_operator(node, name, sizeof name);
    return !node_is_source(node) || strcmp(name, "input") == 0 || strcmp(name, "target") == 0;
}

/* Does it belong to the gradients? Its operator says so, or an operand's does. */
static bool is_backward(const PlanNode *node)
{
    char name[64];
    node_operator(node, name, sizeof name);
    return strstr(name, "_grad") || strcmp(name, "batch_norm_sums") == 0;
}

static bool add_input(Box *box, int input)
{
    for (int i = 0; i < box->n_inputs; i++)
        if (box->inputs[i] == input)
            return true;
    int *more = realloc(box->inputs, ((size_t)box->n_inputs + 1) * sizeof *more);
    if (!more)
        return false;
    more[box->n_inputs++] = input;
    box->inputs = more;
    return true;
}

/* "64,256,256" of "... : f32[N,64,256,256]  # ..." */
static void node_shape(const PlanNode *node, char *text, size_t size)
{
    const char *at = strstr(node->line, " : ");
    at = at ? strchr(at, '[') : NULL;
    snprintf(text, size, "%.*s", at ? (int)strcspn(at + 1, "]\n") : 0, at ? at + 1 : "");
}

/* ---- boxes ----------------------------------------------------------------------------------- */

static void fill_node(Box *box, const PlanNode *node)
{
    char text[24];
    node_operator(node, box->name, sizeof box->name);
    if (node_is_source(node))
        snprintf(box->name, sizeof box->name, "%.*s", (int)strcspn(node->line, " "), node->line);
    node_shape(node, box->detail, sizeof box->detail);
    *text = 0;
    if (node->group >= 0)
        snprintf(text, sizeof text, "\ngroup %d", node->group);
    box->title = malloc(strlen(node->line) + sizeof text);
    if (box->title)
        sprintf(box->title, "%s%s", node->line, text);
    box->dashed = node_is_inlined(node);
    box->colour = node->group < 0 ? (Colour){ 1, 1, 1 } : group_colour(node->group);
    if (node_is_source(node))
        box->colour = faint;
}

static bool add_nodes(Drawing *d)
{
    const PlanProgram *program = d->plan->program;
    bool fine = true;
    for (int i = 0; i < program->n_nodes; i++) {
        const PlanNode *node = &program->nodes[i];
        d->box_of[i] = -1;
        if (!is_drawn(node))
            continue;
        Box *box = &d->boxes[d->n];
        fill_node(box, node);
        box->backward = is_backward(node);
        for (int k = 0; k < node->n_inputs; k++) {
            int input = d->box_of[node->inputs[k]];
            if (input < 0)
                continue;
            fine = fine && add_input(box, input);
            box->backward |= d->boxes[input].backward;
        }
        d->box_of[i] = d->n++;
    }
    return fine;
}

/* A group's box: its steps' times together. */
static void fill_group(const Drawing *d, Box *box, int group)
{
    const PlanProgram *program = d->plan->program;
    const PlanStep *main = &program->steps[group_step(program, group)];
    double seconds = 0, total = 0;
    for (int i = 0; i < program->n_steps; i++) {
        seconds += program->steps[i].group == group ? d->plan->step_times[i] : 0;
        total += d->plan->step_times[i];
    }
    Colour c = step_kind(main)->colour;
    char *lines = group_lines(program, group);
    size_t size = strlen(main->label) + (lines ? strlen(lines) : 0) + 64;
    snprintf(box->name, sizeof box->name, "%.90s", main->label);
    snprintf(box->detail, sizeof box->detail, "%.3f ms, %.1f %%", 1e3 * seconds,
             100 * seconds / fmax(total, 1e-30));
    box->colour = (Colour){ 0.6 + 0.4 * c.r, 0.6 + 0.4 * c.g, 0.6 + 0.4 * c.b };
    box->title = malloc(size);
    if (box->title)
        snprintf(box->title, size, "group %d: %s\n%s", group, main->label, lines ? lines : "");
    free(lines);
}

static bool join_group(Drawing *d, Box *box, const bool *members)
{
    const PlanProgram *program = d->plan->program;
    bool fine = true;
    for (int i = 0; i < program->n_nodes; i++) {
        const PlanNode *node = &program->nodes[i];
        if (!members[i])
            continue;
        box->backward |= is_backward(node);
        for (int k = 0; k < node->n_inputs; k++) {
            int input = d->box_of[node->inputs[k]];
            if (input < 0 || input == d->n)
                continue;
            fine = fine && add_input(box, input);
            box->backward |= d->boxes[input].backward;
        }
    }
    return fine;
}

/* In the order in which they run, so that a box's operands stand before it. */
static bool add_groups(Drawing *d)
{
    const PlanProgram *program = d->plan->program;
    bool *members = calloc((size_t)program->n_nodes + 1, sizeof *members), fine = members != NULL;
    for (int i = 0; fine && i < program->n_nodes; i++) {
        d->box_of[i] = -1;
        if (node_is_source(&program->nodes[i]) && is_drawn(&program->nodes[i])) {
            fill_node(&d->boxes[d->n], &program->nodes[i]);
            d->box_of[i] = d->n++;
        }
    }
    for (int s = 0; fine && s < program->n_steps; s++) {
        int group = program->steps[s].group;
        bool known = group < 0 || (s > 0 && program->steps[s - 1].group == group);
        for (int i = 0; !known && i < program->n_nodes; i++)
            known = program->nodes[i].group == group && d->box_of[i] >= 0;
        if (known)
            continue;
        Box *box = &d->boxes[d->n];
        group_members(program, group, members);
        fine = join_group(d, box, members);
        fill_group(d, box, group);
        for (int i = 0; i < program->n_nodes; i++)
            if (program->nodes[i].group == group)
                d->box_of[i] = d->n;
        d->n++;
    }
    free(members);
    return fine;
}

/* ---- layout ---------------------------------------------------------------------------------- */

static void choose_rows(Drawing *d)
{
    int lowest = 0, least = 0;
    for (int i = 0; i < d->n; i++) {
        Box *box = &d->boxes[i];
        for (int k = 0; !box->backward && k < box->n_inputs; k++) {
            int row = d->boxes[box->inputs[k]].row + 1;
            box->row = row > box->row ? row : box->row;
        }
        lowest = box->row > lowest ? box->row : lowest;
    }
    for (int i = 0; i < d->n; i++) {
        Box *box = &d->boxes[i];
        if (!box->backward)
            continue;
        box->row = lowest;
        for (int k = 0; k < box->n_inputs; k++) {
            const Box *input = &d->boxes[box->inputs[k]];
            if (input->backward && input->row - 1 < box->row)
                box->row = input->row - 1;
        }
        least = box->row < least ? box->row : least;
    }
    for (int i = 0; i < d->n; i++)
        d->boxes[i].row -= least;
    d->rows = lowest - least + 1;
}

static int nearest_free(const bool *taken, int wanted)
{
    for (int away = 0; away < SLOTS; away++) {
        if (wanted + away < SLOTS && !taken[wanted + away])
            return wanted + away;
        if (wanted - away >= 0 && !taken[wanted - away])
            return wanted - away;
    }
    return SLOTS - 1;
}

/* The longest way on from each box: the main line of the network has the longest. */
static void measure_rest(Drawing *d)
{
    for (int i = d->n - 1; i >= 0; i--)
        for (int k = 0; k < d->boxes[i].n_inputs; k++) {
            Box *input = &d->boxes[d->boxes[i].inputs[k]];
            input->rest = input->rest > d->boxes[i].rest ? input->rest : d->boxes[i].rest + 1;
        }
}

/* Of one row and side: the box with the longest way on; -1: all have their slot. */
static int next_in_row(const Drawing *d, int row, bool backward)
{
    int found = -1;
    for (int i = 0; i < d->n; i++) {
        const Box *box = &d->boxes[i];
        if (box->slot < 0 && box->row == row && box->backward == backward
            && (found < 0 || box->rest > d->boxes[found].rest))
            found = i;
    }
    return found;
}

static void fill_row(Drawing *d, int row, bool backward)
{
    bool taken[SLOTS] = { false };
    for (int i; (i = next_in_row(d, row, backward)) >= 0;) {
        Box *box = &d->boxes[i];
        int wanted = SLOTS;
        for (int k = 0; k < box->n_inputs; k++) {
            const Box *input = &d->boxes[box->inputs[k]];
            if (input->backward == backward && input->slot >= 0 && input->slot < wanted)
                wanted = input->slot;
        }
        box->slot = nearest_free(taken, wanted == SLOTS ? 0 : wanted);
        taken[box->slot] = true;
        if (!backward && box->slot >= d->slots)
            d->slots = box->slot + 1;
    }
}

/* From the operands on: downwards on the left, upwards on the right. */
static void choose_slots(Drawing *d)
{
    measure_rest(d);
    for (int i = 0; i < d->n; i++)
        d->boxes[i].slot = -1;
    for (int row = 0; row < d->rows; row++)
        fill_row(d, row, false);
    for (int row = d->rows - 1; row >= 0; row--)
        fill_row(d, row, true);
}

/* ---- SVG ------------------------------------------------------------------------------------- */

static double box_x(const Drawing *d, const Box *box)
{
    int slot = box->slot + (box->backward ? d->slots : 0);
    return MARGIN + slot * d->across + (box->backward ? MARGIN : 0);
}

/* Downwards, upwards, or across; ways longer than a row swing to the side of what lies between. */
static void put_edge(FILE *out, const Drawing *d, const Box *from, const Box *to)
{
    bool down = to->row > from->row, level = to->row == from->row;
    double x1 = box_x(d, from) + (level ? d->width : d->width / 2);
    double x2 = box_x(d, to) + (level ? 0 : d->width / 2);
    double y1 = from->row * d->down + (level ? d->height / 2 : down ? d->height : 0);
    double y2 = to->row * d->down + (level ? d->height / 2 : down ? 0 : d->height);
    int rows = abs(to->row - from->row);
    double side = rows > 1 && fabs(x1 - x2) < 1 ? d->width * 0.55 + 3 * sqrt(rows) : 0;
    if (from->backward != to->backward && !level)
        y1 = from->row * d->down + d->height / 2, x1 = box_x(d, from) + d->width;
    fprintf(out, "<path d=\"M%.0f %.0fC%.0f %.0f %.0f %.0f %.0f %.0f\"/>\n", x1, y1, x1 + side,
            y1 + (y2 - y1) * (side > 0 ? 0.1 : 0.4), x2 + side,
            y2 - (y2 - y1) * (side > 0 ? 0.1 : 0.4), x2, y2);
}

static void put_box(FILE *out, const Drawing *d, const Box *box)
{
    double x = box_x(d, box), y = box->row * d->down;
    int letters = (int)(d->width / (d->groups ? 6.4 : 6.0));
    fprintf(out, "<g><title>");
    put_html(out, box->title ? box->title : box->name);
    fprintf(out, "</title><rect x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\" rx=\"3\" "
            "fill=\"#%02x%02x%02x\"%s/>", x, y, d->width, d->height,
            (unsigned)(255 * box->colour.r), (unsigned)(255 * box->colour.g),
            (unsigned)(255 * box->colour.b), box->dashed ? " stroke-dasharray=\"3 2\"" : "");
    char name[97], detail[65];
    snprintf(name, sizeof name, "%.*s", letters, box->name);
    snprintf(detail, sizeof detail, "%.*s", letters, box->detail);
    fprintf(out, "<text x=\"%.0f\" y=\"%.0f\">", x + 5, y + 12);
    put_html(out, name);
    fprintf(out, "</text><text class=\"s\" x=\"%.0f\" y=\"%.0f\">", x + 5, y + 24);
    put_html(out, detail);
    fputs("</text></g>\n", out);
}

static void put_boxes(FILE *out, const Drawing *d)
{
    double right = 0;
    for (int i = 0; i < d->n; i++)
        right = fmax(right, box_x(d, &d->boxes[i]) + d->width);
    fprintf(out, "<div class=\"graph\"><svg class=\"g\" width=\"%.0f\" height=\"%.0f\">\n",
            right + MARGIN, d->rows * d->down + 2);
    fputs("<g class=\"e\">\n", out);
    for (int i = 0; i < d->n; i++)
        for (int k = 0; k < d->boxes[i].n_inputs; k++)
            put_edge(out, d, &d->boxes[d->boxes[i].inputs[k]], &d->boxes[i]);
    fputs("</g>\n", out);
    for (int i = 0; i < d->n; i++)
        put_box(out, d, &d->boxes[i]);
    fputs("</svg></div>\n", out);
}

bool put_graph(FILE *out, const BenchPlan *plan, bool groups)
{
    const PlanProgram *program = plan->program;
    size_t n = (size_t)program->n_nodes + (size_t)program->n_steps + 1;
    Drawing d = { .plan = plan, .groups = groups, .boxes = calloc(n, sizeof *d.boxes),
                  .box_of = calloc(n, sizeof *d.box_of), .width = groups ? 240 : 132,
                  .height = 30, .across = groups ? 262 : 150, .down = 44 };
    bool fine = d.boxes && d.box_of && (groups ? add_groups(&d) : add_nodes(&d));
    if (fine) {
        choose_rows(&d);
        choose_slots(&d);
        put_boxes(out, &d);
    }
    for (int i = 0; d.boxes && i < d.n; i++) {
        free(d.boxes[i].title);
        free(d.boxes[i].inputs);
    }
    free(d.boxes);
    free(d.box_of);
    return fine;
}
