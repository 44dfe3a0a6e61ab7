/* Nodes whose operands are constants, and sizes of tensors, which are constants too but for the
 * batch: what exporters write to say "twice as large" or "pad to that size". The batch is a NAN among
 * integers; arithmetic hands it on, and whoever needs a number there says so.
 *
 * Numbers are doubles; integers are exact to 2^53. All moves (Slice, Transpose, Expand, Gather of one)
 * are one walk through the operand with a stride for each dimension of the result.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import.h"

static Constant *constant_at(Import *import, size_t index)
{
    Value *value = operand(import, index);
    return value ? value->constant : NULL;
}

static bool give_constant(Import *import, Constant *constant)
{
    Value *value = constant ? result(import) : NULL;
    if (value)
        value->constant = constant;
    return value != NULL;
}

static bool is_op(const Import *import, const char *op)
{
    return !strcmp(import->node->op_type, op);
}

bool is_foldable(Import *import)
{
    if (is_op(import, "Constant") || is_op(import, "Shape"))
        return true;
    bool any = false;
    for (size_t i = 0; i < import->node->n_input && !import->failed; i++) {
        Value *value = operand(import, i);
        if (value && !value->constant)
            return false;
        any |= value != NULL;
    }
    return any;
}

/* A number that must be known and whole; "to the end" is written as a very large one. */
static bool whole(Import *import, double number, int64_t *out)
{
    if (isnan(number))
        return import_lacks(import, "it needs the batch as a number, and the batch is open");
    *out = (int64_t)fmax(-0x1p53, fmin(number, 0x1p53));
    return true;
}

/* Whole numbers of an operand, or of the attribute that older opsets have in its place. */
static int whole_list(Import *import, size_t index, const char *attribute, int64_t *out, int most)
{
    double numbers[64];
    if (index >= import->node->n_input || !*import->node->input[index])
        return attribute ? attribute_ints(import, attribute, out, most) : 0;
    int count = operand_numbers(import, index, numbers, most < 64 ? most : 64);
    for (int i = 0; i < count; i++)
        if (!whole(import, numbers[i], &out[i]))
            return -1;
    return count;
}

/* ---- moves ----------------------------------------------------------------------------------- */

/* result[i, j, ...] = from[offset + i * strides[0] + j * strides[1] + ...] */
static Constant *walk(Import *import, Constant *from, int rank, const int64_t *dims,
                      const int64_t *strides, int64_t offset)
{
    const double *numbers = constant_numbers(import, from);
    Constant *to = numbers ? new_constant(import, from->type, rank, dims) : NULL;
    int64_t index[MAX_RANK] = {0};
    for (int64_t i = 0, at = offset; to && i < to->count; i++) {
        to->numbers[i] = numbers[at];
        for (int d = rank - 1; d >= 0; d--) {
            at += strides[d];
            if (++index[d] < dims[d])
                break;
            at -= dims[d] * strides[d];
            index[d] = 0;
        }
    }
    return to;
}

static void strides_of(const Constant *constant, int64_t strides[MAX_RANK])
{
    int64_t stride = 1;
    for (int d = constant->rank - 1; d >= 0; d--) {
        strides[d] = stride;
        stride *= constant->dims[d];
    }
}

/* -1 is the last dimension. */
static bool dimension_of(Import *import, int64_t axis, int rank, int *dimension)
{
    if (axis < -rank || axis >= rank)
        return import_fail(import, "the file is damaged: export it again",
                           "axis %lld of %d dimensions", (long long)axis, rank);
    *dimension = (int)(axis < 0 ? axis + rank : axis);
    return true;
}

static Constant *reshaped(Import *import, Constant *from, int rank, const int64_t *dims)
{
    int64_t strides[MAX_RANK], count = 1;
    for (int d = rank - 1; d >= 0; d--) {
        strides[d] = count;
        if (dims[d] < 0 || __builtin_mul_overflow(count, dims[d], &count))
            count = -1;
        if (count < 0)
            break;
    }
    if (count != from->count) {
        import_fail(import, "the file is damaged: export it again",
                    "a constant of %lld numbers cannot have the new shape", (long long)from->count);
        return NULL;
    }
    return walk(import, from, rank, dims, strides, 0);
}

static Constant *fold_reshape(Import *import, Constant *from)
{
    int64_t dims[MAX_RANK], known = 1;
    int rank = whole_list(import, 1, "shape", dims, MAX_RANK), open = -1;
    for (int d = 0; d < rank; d++) {
        if (dims[d] == 0 && d < from->rank)
            dims[d] = from->dims[d];
        if (dims[d] == -1)
            open = d;
        else if (dims[d] < 0 || __builtin_mul_overflow(known, dims[d], &known))
            known = 0;
    }
    if (open >= 0)
        dims[open] = known > 0 ? from->count / known : -1;
    return rank < 0 ? NULL : reshaped(import, from, rank, dims);
}

static Constant *fold_squeeze(Import *import, Constant *from, bool insert)
{
    int64_t axes[MAX_RANK], dims[MAX_RANK];
    int n = whole_list(import, 1, "axes", axes, MAX_RANK), rank = 0;
    int full = insert ? from->rank + n : from->rank;
    bool named[MAX_RANK] = {false};
    if (n < 0 || full > MAX_RANK)
        return NULL;
    for (int i = 0, d = 0; i < n; i++) {
        if (!dimension_of(import, axes[i], full, &d))
            return NULL;
        named[d] = true;
    }
    for (int d = 0, k = 0; d < full; d++) {
        if (insert)
            dims[rank++] = named[d] ? 1 : k < from->rank ? from->dims[k++] : 1;
        else if (!(n ? named[d] : from->dims[d] == 1))
            dims[rank++] = from->dims[d];
    }
    return reshaped(import, from, rank, dims);
}

static Constant *fold_transpose(Import *import, Constant *from)
{
    int64_t order[MAX_RANK], strides[MAX_RANK], dims[MAX_RANK], picked[MAX_RANK];
    int n = attribute_ints(import, "perm", order, MAX_RANK);
    bool named[MAX_RANK] = {false};
    strides_of(from, strides);
    for (int d = 0; d < from->rank; d++) {
        int source = from->rank - 1 - d;
        if (n && (n != from->rank || !dimension_of(import, order[d], from->rank, &source)
                  || named[source]))
            return import_fail(import, "", "a wrong permutation"), NULL;
        named[source] = true;
        dims[d] = from->dims[source];
        picked[d] = strides[source];
    }
    return walk(import, from, from->rank, dims, picked, 0);
}

static int64_t clamp(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

static Constant *fold_slice(Import *import, Constant *from)
{
    int64_t starts[MAX_RANK], ends[MAX_RANK], axes[MAX_RANK], steps[MAX_RANK], strides[MAX_RANK];
    int64_t dims[MAX_RANK], offset = 0;
    bool named[MAX_RANK] = {false};
    int n = whole_list(import, 1, "starts", starts, MAX_RANK);
    if (n < 0 || whole_list(import, 2, "ends", ends, MAX_RANK) != n)
        return import_fail(import, "", "starts and ends differ"), NULL;
    int n_axes = whole_list(import, 3, "axes", axes, MAX_RANK);
    int n_steps = whole_list(import, 4, NULL, steps, MAX_RANK);
    if ((n_axes && n_axes != n) || (n_steps && n_steps != n))
        return import_fail(import, "", "axes or steps are not as many as starts"), NULL;
    strides_of(from, strides);
    memcpy(dims, from->dims, sizeof dims);
    for (int i = 0, d = 0; i < n; i++) {
        int64_t step = n_steps ? steps[i] : 1;
        if (!dimension_of(import, n_axes ? axes[i] : i, from->rank, &d))
            return NULL;
        if (named[d])
            return import_fail(import, "", "an axis is named twice"), NULL;
        named[d] = true;
        if (!step || step < -MAX_LINES || step > MAX_LINES)
            return import_fail(import, "", "a step of %lld", (long long)step), NULL;
        int64_t size = from->dims[d], last = step < 0 ? size - 1 : size, first = step < 0 ? -1 : 0;
        int64_t start = starts[i] < 0 ? starts[i] + size : starts[i];
        int64_t end = ends[i] < 0 ? ends[i] + size : ends[i];
        start = clamp(start, step < 0 ? 0 : first, last);
        end = clamp(end, first, last);
        int64_t span = step > 0 ? end - start : start - end;
        int64_t pace = step > 0 ? step : -step;
        dims[d] = span > 0 ? (span + pace - 1) / pace : 0;
        offset += dims[d] ? start * strides[d] : 0;
        strides[d] *= step;
    }
    return walk(import, from, from->rank, dims, strides, offset);
}

/* Along the first dimension: all that sizes need. */
static Constant *fold_gather(Import *import, Constant *from)
{
    Constant *index = constant_at(import, 1);
    const double *numbers = constant_numbers(import, from);
    const double *picks = index ? constant_numbers(import, index) : NULL;
    if (!picks || !numbers)
        return NULL;
    if (from->rank != 1 || index->rank > 1)
        return import_lacks(import, "it picks from a constant of %d dimensions", from->rank), NULL;
    Constant *to = new_constant(import, from->type, index->rank, index->dims);
    for (int64_t i = 0; to && i < to->count; i++) {
        int64_t pick = 0;
        if (!whole(import, picks[i], &pick))
            return NULL;
        pick += pick < 0 ? from->count : 0;
        if (pick < 0 || pick >= from->count)
            return import_fail(import, "", "element %lld of %lld", (long long)pick,
                               (long long)from->count), NULL;
        to->numbers[i] = numbers[pick];
    }
    return to;
}

/* Along the first dimension as well. */
static Constant *fold_concat(Import *import)
{
    int64_t count = 0;
    Constant *first = constant_at(import, 0);
    for (size_t i = 0; i < import->node->n_input; i++) {
        Constant *part = constant_at(import, i);
        if (!part || part->rank != 1)
            return import_lacks(import, "it joins constants that are no lists"), NULL;
        count += part->count;
    }
    Constant *to = first ? new_constant(import, first->type, 1, &count) : NULL;
    int64_t at = 0;
    for (size_t i = 0; to && i < import->node->n_input; i++) {
        Constant *part = constant_at(import, i);
        const double *numbers = part ? constant_numbers(import, part) : NULL;
        if (!numbers)
            return NULL;
        memcpy(to->numbers + at, numbers, (size_t)part->count * sizeof *numbers);
        at += part->count;
    }
    return to;
}

/* from, broadcast to a shape that it fits. */
static Constant *expanded(Import *import, Constant *from, int rank, const int64_t *dims)
{
    int64_t strides[MAX_RANK], picked[MAX_RANK];
    strides_of(from, strides);
    for (int d = 0; d < rank; d++) {
        int source = d - (rank - from->rank);
        bool repeated = source < 0 || from->dims[source] == 1;
        if (!repeated && from->dims[source] != dims[d])
            return import_fail(import, "", "constants of shapes that do not go together"), NULL;
        picked[d] = repeated ? 0 : strides[source];
    }
    return walk(import, from, rank, dims, picked, 0);
}

static bool common_shape(Import *import, const Constant *a, const Constant *b, int *rank,
                         int64_t *dims)
{
    *rank = a->rank > b->rank ? a->rank : b->rank;
    for (int d = 0; d < *rank; d++) {
        int i = d - (*rank - a->rank), k = d - (*rank - b->rank);
        int64_t x = i < 0 ? 1 : a->dims[i], y = k < 0 ? 1 : b->dims[k];
        if (x != y && x != 1 && y != 1)
            return import_fail(import, "", "constants of shapes that do not go together");
        dims[d] = x == 1 ? y : x;
    }
    return true;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static double compute(const char *op, double a, double b, bool integer)
{
    switch (op[0] << 8 | op[1]) {
    case 'A' << 8 | 'd': return a + b;
    case 'S' << 8 | 'u': return a - b;
    case 'M' << 8 | 'u': return a * b;
    case 'D' << 8 | 'i': return integer ? trunc(a / b) : a / b;
    case 'M' << 8 | 'o': return a - b * floor(a / b);
    case 'M' << 8 | 'i': return a < b || isnan(a) ? a : b;
    case 'M' << 8 | 'a': return a > b || isnan(a) ? a : b;
    case 'P' << 8 | 'o': return pow(a, b);
    case 'E' << 8 | 'q': return a == b;
    case 'L' << 8 | 'e': return a < b;
    case 'G' << 8 | 'r': return a > b;
    case 'N' << 8 | 'e': return -a;
    case 'A' << 8 | 'b': return fabs(a);
    case 'S' << 8 | 'q': return sqrt(a);
    case 'F' << 8 | 'l': return floor(a);
    case 'C' << 8 | 'e': return ceil(a);
    case 'R' << 8 | 'o': return nearbyint(a);
    case 'R' << 8 | 'e': return 1 / a;
    }
    return NAN;
}

static Constant *fold_arithmetic(Import *import)
{
    static const char *const comparisons = "Equal Less Greater";
    Constant *a = constant_at(import, 0), *b = constant_at(import, 1);
    int rank;
    int64_t dims[MAX_RANK];
    if (a && !b && !import->failed)
        b = a; /* one operand */
    if (!a || !b || !common_shape(import, a, b, &rank, dims))
        return NULL;
    Constant *x = expanded(import, a, rank, dims), *y = expanded(import, b, rank, dims);
    bool compares = strstr(comparisons, import->node->op_type) != NULL;
    int type = compares ? ONNX__TENSOR_PROTO__DATA_TYPE__BOOL : a->type;
    Constant *to = x && y ? new_constant(import, type, rank, dims) : NULL;
    for (int64_t i = 0; to && i < to->count; i++)
        to->numbers[i] = compute(import->node->op_type, x->numbers[i], y->numbers[i],
                                 constant_is_integer(a));
    return to;
}

static Constant *fold_where(Import *import)
{
    Constant *parts[3];
    int rank = 0;
    int64_t dims[MAX_RANK];
    Constant shape = {0};
    for (size_t i = 0; i < 3; i++) {
        parts[i] = constant_at(import, i);
        if (!parts[i] || !common_shape(import, &shape, parts[i], &rank, dims))
            return NULL;
        shape.rank = rank;
        memcpy(shape.dims, dims, sizeof dims);
    }
    for (int i = 0; i < 3; i++)
        if (!(parts[i] = expanded(import, parts[i], rank, dims)))
            return NULL;
    Constant *to = new_constant(import, parts[1]->type, rank, dims);
    for (int64_t i = 0; to && i < to->count; i++)
        to->numbers[i] = parts[parts[0]->numbers[i] != 0 ? 1 : 2]->numbers[i];
    return to;
}

static Constant *fold_cast(Import *import, Constant *from)
{
    int type = (int)attribute_int(import, "to", 0);
    const double *numbers = constant_numbers(import, from);
    Constant *to = numbers ? new_constant(import, type, from->rank, from->dims) : NULL;
    for (int64_t i = 0; to && i < to->count; i++)
        to->numbers[i] = constant_is_integer(to) ? trunc(numbers[i]) : numbers[i];
    return to;
}

/* ---- sizes and fills ------------------------------------------------------------------------- */

static Constant *fold_shape(Import *import)
{
    Value *value = operand(import, 0);
    double dims[MAX_RANK];
    if (!value)
        return NULL;
    int rank = value->constant ? value->constant->rank : value->flat ? 2 + value->half
        : value->rows ? 3 : 4;
    for (int d = 0; d < rank; d++)
        dims[d] = value->constant ? (double)value->constant->dims[d] : d == 0 ? NAN
            : value->flat ? d == 2 ? 1 : (double)(value->dims[0] * value->dims[1] * value->dims[2])
            : value->rows && d == 2 ? (double)(value->dims[1] * value->dims[2])
            : (double)value->dims[d - 1];
    int64_t start = attribute_int(import, "start", 0), end = attribute_int(import, "end", rank);
    start = clamp(start < 0 ? start + rank : start, 0, rank);
    end = clamp(end < 0 ? end + rank : end, start, rank);
    int64_t count = end - start;
    Constant *to = new_constant(import, INT64_TYPE, 1, &count);
    if (to)
        memcpy(to->numbers, dims + start, (size_t)count * sizeof *dims);
    return to;
}

static Constant *fold_constant(Import *import)
{
    const Onnx__AttributeProto *value = find_attribute(import, "value");
    int64_t one;
    if (value && value->t)
        return read_tensor(import, value->t);
    if ((value = find_attribute(import, "value_float"))) {
        Constant *to = new_constant(import, FLOAT_TYPE, 0, NULL);
        if (to)
            to->numbers[0] = value->f;
        return to;
    }
    if ((value = find_attribute(import, "value_int"))) {
        Constant *to = new_constant(import, INT64_TYPE, 0, NULL);
        if (to)
            to->numbers[0] = (double)value->i;
        return to;
    }
    bool floats = find_attribute(import, "value_floats") != NULL;
    value = find_attribute(import, floats ? "value_floats" : "value_ints");
    if (!value)
        return import_lacks(import, "a constant of this kind cannot be read"), NULL;
    one = (int64_t)(floats ? value->n_floats : value->n_ints);
    Constant *to = new_constant(import, floats ? FLOAT_TYPE : INT64_TYPE, 1, &one);
    for (int64_t i = 0; to && i < one; i++)
        to->numbers[i] = floats ? value->floats[i] : (double)value->ints[i];
    return to;
}

static Constant *fold_fill(Import *import)
{
    int64_t dims[MAX_RANK];
    int rank = whole_list(import, 0, NULL, dims, MAX_RANK);
    const Onnx__AttributeProto *value = find_attribute(import, "value");
    Constant *one = value && value->t ? read_tensor(import, value->t) : NULL;
    const double *number = one && one->count == 1 ? constant_numbers(import, one) : NULL;
    if (rank < 0 || import->failed)
        return NULL;
    Constant *to = new_constant(import, one ? one->type : FLOAT_TYPE, rank, dims);
    for (int64_t i = 0; to && i < to->count; i++)
        to->numbers[i] = number ? *number : 0;
    return to;
}

static Constant *fold_range(Import *import)
{
    double bounds[3];
    for (size_t i = 0; i < 3; i++)
        if (operand_numbers(import, i, &bounds[i], 1) != 1)
            return NULL;
    double span = ceil((bounds[1] - bounds[0]) / bounds[2]);
    if (!(span < 65536))
        return import_lacks(import, "a range of %g numbers", span), NULL;
    int64_t count = span > 0 ? (int64_t)span : 0;
    Constant *to = new_constant(import, INT64_TYPE, 1, &count);
    for (int64_t i = 0; to && i < count; i++)
        to->numbers[i] = bounds[0] + (double)i * bounds[2];
    return to;
}

static Constant *fold_expand(Import *import, Constant *from)
{
    int64_t wanted[MAX_RANK], dims[MAX_RANK];
    int rank = whole_list(import, 1, NULL, wanted, MAX_RANK);
    Constant shape = {.rank = rank};
    if (rank < 0)
        return NULL;
    memcpy(shape.dims, wanted, sizeof wanted);
    return common_shape(import, from, &shape, &rank, dims) ? expanded(import, from, rank, dims)
                                                           : NULL;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static Constant *fold_one(Import *import, Constant *first)
{
    static const char *const moves[] = {"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice",
                                        "Gather", "Expand", "Cast", "Identity"};
    static const char arithmetic[] = " Add Sub Mul Div Mod Min Max Pow Equal Less Greater Neg Abs "
                                     "Sqrt Floor Ceil Round Reciprocal ";
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        if (!is_op(import, moves[i]))
            continue;
        switch (first ? (int)i : -1) {
        case 0: return fold_reshape(import, first);
        case 1: case 2: return fold_squeeze(import, first, i == 2);
        case 3: return fold_transpose(import, first);
        case 4: return fold_slice(import, first);
        case 5: return fold_gather(import, first);
        case 6: return fold_expand(import, first);
        case 7: return fold_cast(import, first);
        case 8: return first;
        }
        return NULL;
    }
    if (is_op(import, "Concat"))
        return fold_concat(import);
    if (is_op(import, "Where"))
        return fold_where(import);
    if (is_op(import, "ConstantOfShape"))
        return fold_fill(import);
    if (is_op(import, "Range"))
        return fold_range(import);
    const char *spaced = arena_printf(import->arena, " %.60s ", import->node->op_type);
    if (!strpbrk(import->node->op_type, " ") && strstr(arithmetic, spaced))
        return fold_arithmetic(import);
    import_lacks(import, "%.60s of constants cannot be computed here", import->node->op_type);
    return NULL;
}

bool fold_node(Import *import)
{
    Constant *folded = is_op(import, "Constant") ? fold_constant(import)
        : is_op(import, "Shape") ? fold_shape(import) : fold_one(import, constant_at(import, 0));
    if (!folded && !import->failed)
        import_fail(import, "the file is damaged: export it again", "an operand is missing");
    return give_constant(import, folded);
}
