/* Ways of convolutions that were measured: the file that `segrun tune` writes for the host and --tuned
 * reads. A line is for one layer in one program and precision,
 *
 *     train host winograd conv down1.conv2 64->64 @256x256
 *
 * which are the program, the target, the way (lower_conv.h), and the layer as a profile calls it; a #
 * begins a comment. Files can be joined by putting one behind the other. A layer that is not in the
 * file goes by the cost model. The layer's text has its sizes in it, so that a line never serves
 * another layer; what the model does not have gives a warning, since models change.
 */
#include <string.h>

#include "lower.h"
#include "seg.h"

enum { MOST_LINES = 4096, MOST_WARNINGS = 5 };

typedef enum { LINE_ASIDE, LINE_UNUSED, LINE_USED, LINE_UNFIT } LineUse; /* ASIDE: no such program */

typedef struct {
    Program program;
    const char *target, *layer;
    ConvWay way;
    Loc loc;
    LineUse use;
} TunedLine;

struct Tuned {
    SourceFile file;
    TunedLine *lines; int n_lines;
};

/* ---- reading --------------------------------------------------------------------------------- */

static const char *const programs[] = { "train", "evaluate", "predict" };
static const char *const host_targets[] = { "host", "host-bf16" };

/* The next word of a line, to *at; at the line's end an empty one. */
static Loc next_word(const SourceFile *file, uint32_t *at, uint32_t end)
{
    *at += (uint32_t)strspn(file->text + *at, " \t");
    Loc word = { file, *at, *at };
    while (word.end < end && file->text[word.end] != ' ' && file->text[word.end] != '\t')
        word.end++;
    *at = word.end;
    return word;
}

/* The number of a word among `known`; -1 after an error. */
static int one_of(Compilation *c, Loc word, const char *what, const char *const *known, int n)
{
    Text all = { .arena = c->arena };
    const char *text = word.file->text + word.begin;
    size_t length = word.end - word.begin;
    for (int i = 0; i < n; i++) {
        if (strlen(known[i]) == length && memcmp(known[i], text, length) == 0)
            return i;
        text_printf(&all, "%s%s", i ? ", " : "", known[i]);
    }
    error_at(c, word, "expected a %s (%s), got '%.*s'", what, all.text, (int)length, text);
    return -1;
}

static bool read_line(Compilation *c, struct Tuned *tuned, uint32_t at, uint32_t end)
{
    const Loc program = next_word(&tuned->file, &at, end);
    if (program.begin == end || tuned->file.text[program.begin] == '#')
        return true;
    const Loc target = next_word(&tuned->file, &at, end), way = next_word(&tuned->file, &at, end);
    const Loc first = next_word(&tuned->file, &at, end);
    while (end > first.begin && strchr(" \t\r", tuned->file.text[end - 1]))
        end--;
    const Loc layer = { &tuned->file, first.begin, end };
    const int p = one_of(c, program, "program", programs, 3);
    const int t = p < 0 ? -1 : one_of(c, target, "target of the host", host_targets, 2);
    const int w = t < 0 ? -1 : one_of(c, way, "way", way_names + 1, WAY_COUNT - 1);
    if (w < 0)
        return false;
    if (layer.begin >= layer.end)
        return error_at(c, way, "no layer is named behind the way"), false;
    TunedLine *line = &tuned->lines[tuned->n_lines];
    *line = (TunedLine){ (Program)p, host_targets[t],
                         intern(c->arena, tuned->file.text + layer.begin, layer.end - layer.begin),
                         (ConvWay)(w + 1), layer, LINE_ASIDE };
    for (int i = 0; i < tuned->n_lines; i++) {
        const TunedLine *other = &tuned->lines[i];
        if (other->program != line->program || other->target != line->target
            || other->layer != line->layer)
            continue;
        error_at(c, layer, "this layer has a way already");
        note_at(c, other->loc, "given here");
        return false;
    }
    tuned->n_lines++;
    return true;
}

bool tuned_read(Compilation *c)
{
    if (!c->tuned_path)
        return true;
    struct Tuned *tuned = arena_alloc(c->arena, sizeof *tuned);
    if (!read_source(c, c->tuned_path, &tuned->file))
        return false;
    tuned->lines = arena_alloc(c->arena, MOST_LINES * sizeof *tuned->lines);
    const uint32_t length = (uint32_t)tuned->file.length;
    const char *zero = memchr(tuned->file.text, 0, length);
    if (zero) {
        const uint32_t at = (uint32_t)(zero - tuned->file.text);
        return error_at(c, (Loc){ &tuned->file, at, at + 1 }, "a zero byte: this is no text"), false;
    }
    for (uint32_t at = 0, end; at < length; at = end + 1) {
        end = at + (uint32_t)strcspn(tuned->file.text + at, "\n");
        if (tuned->n_lines == MOST_LINES) {
            error_at(c, (Loc){ &tuned->file, at, end }, "more than %d layers", MOST_LINES);
            break;
        }
        read_line(c, tuned, at, end);
    }
    c->tuned = tuned;
    return c->errors == 0;
}

/* ---- using ----------------------------------------------------------------------------------- */

int tuned_way(const Graph *graph, const Group *group)
{
    const struct Tuned *tuned = graph->compilation->tuned;
    const char *label = tuned ? label_of(graph, group, "") : "";
    const char *layer = intern(graph->compilation->arena, label, strlen(label));
    const ConvShape shape = conv_shape(group->anchor);
    int way = graph->compilation->way;
    for (int i = 0; tuned && i < tuned->n_lines; i++) {
        TunedLine *line = &tuned->lines[i];
        if (line->program != graph->program || strcmp(line->target, graph->target->name) != 0)
            continue;
        if (line->use == LINE_ASIDE)
            line->use = LINE_UNUSED;
        if (line->layer != layer)
            continue;
        ConvShape there = shape;
        there.bf16 = graph->target->stored == TYPE_BF16;
        const bool gradient = group->anchor->op == OP_CONV_GRAD_WEIGHT;
        line->use = conv_way_fits(&there, gradient, line->way) ? LINE_USED : LINE_UNFIT;
        way = line->way;
    }
    return way;
}

void tuned_warn(Compilation *c)
{
    const struct Tuned *tuned = c->tuned;
    int used = 0, odd = 0;
    for (int i = 0; tuned && i < tuned->n_lines; i++)
        used += tuned->lines[i].use == LINE_USED;
    if (tuned && tuned->n_lines && !used) {
        warn_at(c, (Loc){ &tuned->file, 0, 0 }, "no line is for a layer of this model and its sizes");
        return;
    }
    for (int i = 0; tuned && i < tuned->n_lines; i++) {
        const TunedLine *line = &tuned->lines[i];
        if (line->use == LINE_USED || line->use == LINE_ASIDE || odd++ >= MOST_WARNINGS)
            continue;
        warn_at(c, line->loc, line->use == LINE_UNFIT ? "%s cannot be computed by '%s'"
                              : "the model has no %s (way '%s')", line->layer, way_names[line->way]);
    }
    if (odd > MOST_WARNINGS)
        warn_at(c, (Loc){ &tuned->file, 0, 0 }, "%d more lines that nothing went by",
                odd - MOST_WARNINGS);
}
