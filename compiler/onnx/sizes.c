/* Nodes that move pixels: Resize, Pad, Slice, Concat.
 *
 * The language enlarges by whole factors, and pads and crops to the size of another tensor: a node
 * with sizes in numbers is looked up among the tensors that are there. Concat joins channels.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import.h"

/* Does every pixel become a square of equal ones? Else the reason why not. */
static const char *nearest_problem(Import *import, int64_t scale)
{
    bool old = import->opset < 11;
    bool asymmetric = old || attribute_is(import, "coordinate_transformation_mode", "asymmetric",
                                          false);
    bool floors = old || attribute_is(import, "nearest_mode", "floor", false);
    bool ceils = attribute_is(import, "nearest_mode", "ceil", false);
    if (attribute_is(import, "coordinate_transformation_mode", "align_corners", false))
        return "it aligns corners";
    if (asymmetric)
        return floors || (scale == 2 && attribute_is(import, "nearest_mode", "round_prefer_floor",
                                                      true)) ? NULL : "it shifts pixels";
    if (attribute_is(import, "coordinate_transformation_mode", "tf_half_pixel_for_nn", false))
        return floors ? NULL : "it shifts pixels";
    return floors || ceils ? "it shifts pixels" : NULL;
}

static bool resize(Import *import)
{
    double scales[4] = {0}, sizes[4] = {0};
    Value *x = need_tensor(import, 0);
    bool upsample = import->node->op_type[0] == 'U', old = upsample || import->opset < 11;
    int n = operand_numbers(import, old ? 1 : 2, scales, 4);
    int m = old ? 0 : operand_numbers(import, 3, sizes, 4);
    if (!x || n < 0 || m < 0)
        return false;
    if ((n && n != 4) || (m && m != 4) || (!n && !m) || find_attribute(import, "axes"))
        return import_lacks(import, "its scales or sizes are not four: [N, C, H, W]");
    double by_height = m ? sizes[2] / (double)x->dims[1] : scales[2];
    double by_width = m ? sizes[3] / (double)x->dims[2] : scales[3];
    if (m ? sizes[1] != (double)x->dims[0] : scales[0] != 1 || scales[1] != 1)
        return import_lacks(import, "it resizes the batch or the channels");
    if (by_height != by_width || by_height != floor(by_height) || by_height < 1 || by_height > 65535)
        return import_lacks(import, "it resizes %lldx%lld pixels by %g and %g, and the language "
                            "enlarges by a whole factor", (long long)x->dims[1],
                            (long long)x->dims[2], by_height, by_width);
    int64_t scale = (int64_t)by_height;
    bool linear_mode = attribute_is(import, "mode", "linear", false);
    if (!linear_mode && !attribute_is(import, "mode", "nearest", true))
        return import_lacks(import, "its mode is neither nearest nor linear");
    bool half = attribute_is(import, "coordinate_transformation_mode", "half_pixel", !old)
        || attribute_is(import, "coordinate_transformation_mode", "pytorch_half_pixel", false);
    const char *problem = !linear_mode ? nearest_problem(import, scale)
        : half ? NULL : "its corners are aligned, or its pixels shifted";
    if (scale == 1)
        return give_alias(import, x, false);
    if (problem)
        return import_lacks(import, "%s, and the language's bilinear has half pixels (align_corners = "
                            "False), its nearest repeats pixels", problem);
    return give_line(import, (int64_t[]){x->dims[0], x->dims[1] * scale, x->dims[2] * scale}, 1, &x,
                     "upsample(%s, scale = %lld%s)", x->variable, (long long)scale,
                     linear_mode ? ", mode = bilinear" : "") != NULL;
}

/* What has this height and width, latest first; NULL: nothing. */
static Value *find_like(Import *import, int64_t height, int64_t width)
{
    Value *like = arena_alloc(import->arena, sizeof *like);
    for (int i = import->n_lines - 1; i >= 0; i--) {
        Line *line = import->lines[i];
        if (!line->problem && line->dims[1] == height && line->dims[2] == width) {
            like->line = line;
            like->variable = line->variable;
            return like;
        }
    }
    return NULL;
}

/* x in another height and width, `from` pixels of it cut (or, if negative, added) above and left. */
static bool fit(Import *import, Value *x, const int64_t from[2], const int64_t size[2])
{
    int64_t more[2] = {size[0] - x->dims[1], size[1] - x->dims[2]};
    bool pads = more[0] > 0 || more[1] > 0, crops = more[0] < 0 || more[1] < 0;
    const char *what = pads ? "pad" : "crop";
    if (pads && crops)
        return import_lacks(import, "it enlarges one side and cuts the other");
    if (!pads && !crops && !from[0] && !from[1])
        return give_alias(import, x, false);
    bool middle = true;
    for (int i = 0; i < 2; i++)
        middle &= pads ? -from[i] == more[i] / 2 : from[i] == -more[i] / 2;
    Value *like = middle ? find_like(import, size[0], size[1]) : NULL;
    const int64_t dims[3] = {x->dims[0], size[0], size[1]};
    Value *reads[2] = {x, like};
    Line *line = give_line(import, dims, like ? 2 : 1, reads, "%s(%s, %s)", what, x->variable,
                           like ? like->variable : "");
    if (!line || like)
        return line != NULL;
    line->problem = arena_printf(import->arena, "node '%.100s' (%s): it makes %lldx%lld of %lldx%lld "
        "pixels: %s", import->node->name, import->node->op_type, (long long)size[0],
        (long long)size[1], (long long)x->dims[1], (long long)x->dims[2],
        middle ? "the language pads and crops to the size of a tensor that is there, and none is of "
                 "that size" : "the language pads and crops around the middle");
    line->value->made = MADE_CUT; /* the other side may be cut by the next node */
    line->value->of = x;
    memcpy(line->value->cut, from, sizeof line->value->cut);
    return true;
}

static bool pad(Import *import)
{
    double pads[8] = {0}, value = 0, axes[4];
    int64_t listed[8];
    Value *x = need_tensor(import, 0);
    bool operands = import->node->n_input > 1;
    int n = operands ? operand_numbers(import, 1, pads, 8) : attribute_ints(import, "pads", listed, 8);
    int given = operands ? operand_numbers(import, 2, &value, 1) : 0;
    int n_axes = operands ? operand_numbers(import, 3, axes, 4) : 0;
    if (!x || n < 0 || given < 0 || n_axes < 0)
        return false;
    if (!attribute_is(import, "mode", "constant", true) || value != 0
        || attribute_float(import, "value", 0) != 0)
        return import_lacks(import, "it pads with something else than zeros");
    if (n != (n_axes ? 2 * n_axes : 8))
        return import_lacks(import, "pads has %d numbers", n);
    double full[8] = {0};
    for (int i = 0; i < n / 2; i++) {
        int axis = n_axes ? (int)(axes[i] < 0 ? axes[i] + 4 : axes[i]) : i;
        if (axis < 0 || axis > 3)
            return import_fail(import, "", "axis %g", axes[i]);
        full[axis] = operands ? pads[i] : (double)listed[i];
        full[4 + axis] = operands ? pads[n / 2 + i] : (double)listed[n / 2 + i];
    }
    for (int i = 0; i < 8; i++)
        if (!(fabs(full[i]) <= 65536) || (i % 4 < 2 && full[i] != 0))
            return import_lacks(import, "it pads the batch or the channels, or by %g", full[i]);
    int64_t from[2] = {-(int64_t)full[2], -(int64_t)full[3]};
    int64_t size[2] = {x->dims[1] + (int64_t)full[6] - from[0],
                       x->dims[2] + (int64_t)full[7] - from[1]};
    return fit(import, x, from, size);
}

static int64_t position(double at, int64_t size)
{
    at += at < 0 ? (double)size : 0;
    return at < 0 ? 0 : at > (double)size ? size : (int64_t)at;
}

static bool slice(Import *import)
{
    double lists[4][MAX_RANK];
    static const char *const names[] = {"starts", "ends", "axes", "steps"};
    Value *x = need_tensor(import, 0);
    int counts[4];
    for (size_t i = 0; x && i < 4; i++) {
        int64_t listed[MAX_RANK];
        bool operands = import->node->n_input > 1;
        counts[i] = operands ? operand_numbers(import, 1 + i, lists[i], MAX_RANK)
                             : attribute_ints(import, names[i], listed, MAX_RANK);
        for (int k = 0; !operands && k < counts[i]; k++)
            lists[i][k] = (double)listed[k];
        if (counts[i] < 0 || import->failed)
            return false;
    }
    if (!x)
        return false;
    if (counts[1] != counts[0] || (counts[2] && counts[2] != counts[0])
        || (counts[3] && counts[3] != counts[0]))
        return import_fail(import, "", "starts, ends, axes and steps differ in number");
    int64_t from[2] = {0, 0}, size[2] = {x->dims[1], x->dims[2]};
    for (int i = 0; i < counts[0]; i++) {
        double axis = counts[2] ? lists[2][i] : i;
        axis += axis < 0 ? (x->flat ? 2 : 4) : 0;
        if (!(axis >= 1 && axis <= 3) || (counts[3] && lists[3][i] != 1))
            return import_lacks(import, "it cuts the batch, or in steps");
        int64_t whole = x->dims[(int)axis - 1];
        int64_t start = position(lists[0][i], whole), end = position(lists[1][i], whole);
        if (axis == 1 && (start != 0 || end != whole))
            return import_lacks(import, "it takes channels %lld to %lld of %lld; the language has no "
                                "slice of channels", (long long)start, (long long)end,
                                (long long)whole);
        if (axis > 1) {
            from[(int)axis - 2] = start;
            size[(int)axis - 2] = end - start;
        }
    }
    if (x->made == MADE_CUT) {
        from[0] += x->cut[0];
        from[1] += x->cut[1];
        x = (Value *)x->of;
    }
    return fit(import, x, from, size);
}

static bool concat(Import *import)
{
    size_t n = import->node->n_input;
    int64_t axis = attribute_int(import, "axis", 1), channels = 0;
    if (n < 1 || n > 1000)
        return import_lacks(import, "it has %zu operands", n);
    Value **parts = arena_alloc(import->arena, n * sizeof *parts);
    Text text = {.arena = import->arena};
    for (size_t i = 0; i < n; i++) {
        if (!(parts[i] = need_tensor(import, i)))
            return false;
        if (parts[i]->dims[1] != parts[0]->dims[1] || parts[i]->dims[2] != parts[0]->dims[2]
            || parts[i]->flat != parts[0]->flat)
            return import_fail(import, "the file is damaged, or --size is not what it was made for",
                               "it joins %lldx%lld and %lldx%lld pixels",
                               (long long)parts[0]->dims[1], (long long)parts[0]->dims[2],
                               (long long)parts[i]->dims[1], (long long)parts[i]->dims[2]);
        channels += parts[i]->dims[0];
        text_printf(&text, "%s%s", i ? ", " : "", parts[i]->variable);
    }
    if (axis != 1 && axis != (parts[0]->flat ? -1 : -3))
        return import_lacks(import, "it joins along axis %lld; the language joins channels",
                            (long long)axis);
    return give_line(import, (int64_t[]){channels, parts[0]->dims[1], parts[0]->dims[2]}, (int)n,
                     parts, "concat(%s)", text.text) != NULL;
}

bool translate_size(Import *import, const char *op, bool *known)
{
    if (!strcmp(op, "Resize") || !strcmp(op, "Upsample"))
        return resize(import);
    if (!strcmp(op, "Concat"))
        return concat(import);
    if (!strcmp(op, "Pad"))
        return pad(import);
    if (!strcmp(op, "Slice"))
        return slice(import);
    *known = false;
    return false;
}
