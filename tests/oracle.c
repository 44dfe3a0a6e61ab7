/* The naive interpreter: one loop nest an operator, in the words of its definition.
 *
 * Nothing here is fast, and nothing shares code with the kernels: where both agree, two independent
 * readings of the definition agree. Gradient operators are written as sums of products over the
 * same index sets as their forward operators (scatter where forward gathers). Definitions follow
 * PyTorch: torch.nn.functional's conv2d, conv_transpose2d, batch_norm, interpolate, ...
 */
#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A value as [N][C][H][W]; an extent of 1 is read for every index. */
typedef struct {
    double *data;
    int64_t N, C, H, W;
} Tensor;

#define EACH(index, count) for (int64_t index = 0; index < (count); index++)
#define EACH_ELEMENT(T) EACH(n, (T).N) EACH(c, (T).C) EACH(h, (T).H) EACH(w, (T).W)

static double *at(Tensor t, int64_t n, int64_t c, int64_t h, int64_t w)
{
    n = t.N == 1 ? 0 : n;
    c = t.C == 1 ? 0 : c;
    h = t.H == 1 ? 0 : h;
    w = t.W == 1 ? 0 : w;
    return &t.data[((n * t.C + c) * t.H + h) * t.W + w];
}

static bool inside(Tensor t, int64_t h, int64_t w)
{
    return h >= 0 && h < t.H && w >= 0 && w < t.W;
}

/* Rank 3 is C,H,W (with N where batched), rank 4 K,C,R,S, rank 2 rows,C and rank 1 C. */
static Tensor tensor(const Oracle *o, const Node *node)
{
    const int64_t *d = node->shape.dims;
    double *data = o->values[node->id];
    switch (node->shape.rank) {
    case 1: return (Tensor){data, 1, d[0], 1, 1};
    case 2: return (Tensor){data, d[0], d[1], 1, 1};
    case 3: return (Tensor){data, node->shape.batched ? o->batch : 1, d[0], d[1], d[2]};
    default: return (Tensor){data, d[0], d[1], d[2], d[3]};
    }
}

static int64_t integer(const Node *node, Attribute attribute)
{
    return (int64_t)node->attr[attribute];
}

/* ---- contractions ---------------------------------------------------------------------------- */

typedef enum { FORWARD, GRAD_INPUT, GRAD_WEIGHT } Direction;

/* The triples (x, weight, y) that a convolution multiplies and adds; the direction says which of
 * the three is the sum of the products of the others. */
static void convolve(const Node *node, Direction direction, Tensor x, Tensor weight, Tensor y)
{
    int64_t stride = integer(node, ATTR_STRIDE), padding = integer(node, ATTR_PADDING);
    int64_t dilation = integer(node, ATTR_DILATION), groups = integer(node, ATTR_GROUPS);
    int64_t C = x.C / groups, K = y.C / groups;
    EACH(n, y.N) EACH(k, y.C) EACH(p, y.H) EACH(q, y.W)
    EACH(c, C) EACH(r, weight.H) EACH(s, weight.W) {
        int64_t h = p * stride - padding + r * dilation, w = q * stride - padding + s * dilation;
        if (!inside(x, h, w))
            continue;
        double *px = &x.data[((n * x.C + k / K * C + c) * x.H + h) * x.W + w];
        double *pw = &weight.data[((k * C + c) * weight.H + r) * weight.W + s];
        double *py = &y.data[((n * y.C + k) * y.H + p) * y.W + q];
        switch (direction) {
        case FORWARD: *py += *px * *pw; break;
        case GRAD_INPUT: *px += *py * *pw; break;
        case GRAD_WEIGHT: *pw += *px * *py; break;
        }
    }
}

/* y[n][k] = sum over j of weight[k][j] * x[n][j] */
static void multiply(Direction direction, Tensor x, Tensor weight, Tensor y)
{
    int64_t J = x.C * x.H * x.W;
    EACH(n, y.N) EACH(k, y.C) EACH(j, J) {
        double *px = &x.data[n * J + j], *pw = &weight.data[k * J + j], *py = &y.data[n * y.C + k];
        switch (direction) {
        case FORWARD: *py += *px * *pw; break;
        case GRAD_INPUT: *px += *py * *pw; break;
        case GRAD_WEIGHT: *pw += *px * *py; break;
        }
    }
}

/* The result starts as zero, and bias is added before the products. */
static void run_contraction(const Oracle *o, const Node *node, Tensor a, Tensor b, Tensor y)
{
    if (node->n_inputs > 2)
        EACH_ELEMENT(y) *at(y, n, c, h, w) = o->values[node->inputs[2]->id][c];
    switch ((int)node->op) {
    case OP_CONV: convolve(node, FORWARD, a, b, y); break;
    case OP_CONV_TRANSPOSE: convolve(node, GRAD_INPUT, y, b, a); break;
    case OP_CONV_GRAD_INPUT: convolve(node, GRAD_INPUT, y, b, a); break;
    case OP_CONV_GRAD_WEIGHT: convolve(node, GRAD_WEIGHT, a, y, b); break;
    case OP_LINEAR: multiply(FORWARD, a, b, y); break;
    case OP_LINEAR_GRAD_INPUT: multiply(GRAD_INPUT, y, b, a); break;
    case OP_LINEAR_GRAD_WEIGHT: multiply(GRAD_WEIGHT, a, y, b); break;
    }
}

/* ---- pointwise ------------------------------------------------------------------------------- */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double normal_density(double x) { return exp(-x * x / 2) / sqrt(2 * acos(-1)); }
static double normal_probability(double x) { return erfc(-x / sqrt(2)) / 2; }
static double clamped_log(double x) { return fmax(log(x), -100); }

static double cross_entropy_term(double p, double t)
{
    return -(t * clamped_log(p) + (1 - t) * clamped_log(1 - p));
}

static uint32_t hash32(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

/* The kernels' counter-based random number in [0,1): a hash of who asks, no state. */
static double uniform(uint64_t seed, uint64_t stream, int64_t n, int64_t c, int64_t pixel)
{
    uint32_t key = hash32(hash32((uint32_t)seed) + (uint32_t)(seed >> 32));
    key = hash32(hash32(key + (uint32_t)stream) + (uint32_t)n);
    key = hash32(key + (uint32_t)pixel);
    return (hash32(key + (uint32_t)c * 0x9e3779b9u) >> 8) * 0x1p-24;
}

static double drop(const Oracle *o, const Node *node, double x, int64_t n, int64_t c, int64_t pixel)
{
    double rate = node->attr[ATTR_RATE];
    double u = uniform(o->seed, (uint64_t)node->attr[ATTR_STREAM], n, c, pixel);
    return u < rate ? 0 : x / (1 - rate);
}

/* One element from those of the operands; `a` is dy where the operator is a gradient. */
static double pointwise(const Oracle *o, const Node *node, double a, double b)
{
    switch ((int)node->op) {
    case OP_RELU: return fmax(a, 0);
    case OP_LEAKY_RELU: return a > 0 ? a : node->attr[ATTR_SLOPE] * a;
    case OP_SILU: return a * sigmoid(a);
    case OP_GELU: return a * normal_probability(a);
    case OP_SIGMOID: return sigmoid(a);
    case OP_ADD: return a + b;
    case OP_SUB: return a - b;
    case OP_MUL: return a * b;
    case OP_DIV: return a / b;
    case OP_RELU_GRAD: return b > 0 ? a : 0;
    case OP_LEAKY_RELU_GRAD: return b > 0 ? a : node->attr[ATTR_SLOPE] * a;
    case OP_SILU_GRAD: return a * sigmoid(b) * (1 + b * (1 - sigmoid(b)));
    case OP_GELU_GRAD: return a * (normal_probability(b) + b * normal_density(b));
    case OP_SIGMOID_GRAD: return a * b * (1 - b);
    case OP_EXPAND: return a;
    case OP_DIVIDE_BY_COUNT:
        return a / node->attr[ATTR_PER_SAMPLE] / (node->attr[ATTR_BATCHED] ? o->batch : 1);
    case OP_CROSS_ENTROPY_TERMS: return cross_entropy_term(a, b);
    case OP_CROSS_ENTROPY_TERMS_GRAD: return (a - b) / fmax(a * (1 - a), 1e-12);
    case OP_LOGITS_CROSS_ENTROPY_TERMS: return fmax(a, 0) - a * b + log1p(exp(-fabs(a)));
    case OP_LOGITS_CROSS_ENTROPY_TERMS_GRAD: return sigmoid(a) - b;
    case OP_CLASS_TERMS: return -b * clamped_log(a);
    case OP_CLASS_TERMS_GRAD: return -b / fmax(a, 1e-12);
    }
    bug("oracle: not pointwise: %s", node_text(o->graph, node));
}

static void run_pointwise(const Oracle *o, const Node *node, Tensor a, Tensor b, Tensor y)
{
    const double *rows = o->values[node->inputs[node->n_inputs - 1]->id]; /* [rows][C] */
    EACH_ELEMENT(y) {
        double u = *at(a, n, c, h, w);
        double *result = at(y, n, c, h, w);
        if (node->op == OP_AFFINE)
            *result = u * rows[c] + rows[y.C + c];
        else if (node->op == OP_COMBINE)
            *result = u * rows[c] + *at(b, n, c, h, w) * rows[y.C + c] + rows[2 * y.C + c];
        else if (node->op == OP_DROPOUT)
            *result = drop(o, node, u, n, c, h * y.W + w);
        else if (node->op == OP_ONE_HOT)
            *result = u == (double)c;
        else
            *result = pointwise(o, node, u, node->n_inputs > 1 ? *at(b, n, c, h, w) : 0);
    }
}

/* ---- batch normalisation: [rows][C] ---------------------------------------------------------- */

static void run_moments(Tensor x, double *y)
{
    double count = (double)(x.N * x.H * x.W);
    EACH_ELEMENT(x) y[c] += *at(x, n, c, h, w) / count;
    EACH_ELEMENT(x) y[x.C + c] += pow(*at(x, n, c, h, w) - y[c], 2) / count;
}

static void run_batch_norm_sums(Tensor dy, Tensor x, const double *moments, double *y)
{
    EACH_ELEMENT(x) {
        y[c] += *at(dy, n, c, h, w);
        y[x.C + c] += *at(dy, n, c, h, w) * (*at(x, n, c, h, w) - moments[c]);
    }
}

static double inverse_deviation(const double *moments, int64_t C, int64_t c, double eps)
{
    return 1 / sqrt(moments[C + c] + eps);
}

/* The small operators, one channel of them: in[i][row * C + c] are the operands, y[row * C + c] the
 * result. */
static void small(const Oracle *o, const Node *node, const double *const *in, int64_t C, int64_t c,
                  double *y)
{
    double eps = node->attr[ATTR_EPS], momentum = node->attr[ATTR_MOMENTUM];
    double count = node->attr[ATTR_PER_SAMPLE] * o->batch;
    double inverse;
    switch ((int)node->op) {
    case OP_BATCH_NORM_COEFFICIENTS:
        y[c] = in[1][c] * inverse_deviation(in[0], C, c, eps);
        y[C + c] = in[2][c] - in[0][c] * y[c];
        return;
    case OP_BATCH_NORM_RUNNING:
        y[c] = in[2][c] / sqrt(in[1][c] + eps);
        y[C + c] = in[3][c] - in[0][c] * y[c];
        return;
    case OP_BATCH_NORM_SLOPES:
        inverse = inverse_deviation(in[0], C, c, eps);
        y[c] = in[1][c] * inverse;
        y[C + c] = -in[1][c] * pow(inverse, 3) * in[2][C + c] / count;
        y[2 * C + c] = -in[1][c] * inverse * in[2][c] / count - in[0][c] * y[C + c];
        return;
    case OP_BATCH_NORM_GRAD_WEIGHT:
        y[c] = in[1][C + c] * inverse_deviation(in[0], C, c, eps);
        return;
    case OP_BATCH_NORM_GRAD_BIAS: y[c] = in[0][c]; return;
    case OP_RUNNING_MEAN: y[c] = (1 - momentum) * in[0][c] + momentum * in[1][c]; return;
    case OP_RUNNING_VAR:
        y[c] = (1 - momentum) * in[0][c] + momentum * in[1][C + c] * count / fmax(count - 1, 1);
        return;
    case OP_FOLD_BIAS:
        y[c] = in[0][C + c] + (node->n_inputs > 1 ? in[0][c] * in[1][c] : 0);
        return;
    }
    bug("oracle: not small: %s", node_text(o->graph, node));
}

static void run_small(const Oracle *o, const Node *node, Tensor a, Tensor y)
{
    const double *in[4];
    EACH(i, node->n_inputs) in[i] = o->values[node->inputs[i]->id];
    if (node->op == OP_FOLD_WEIGHT) {
        EACH_ELEMENT(y) *at(y, n, c, h, w) = *at(a, n, c, h, w) * in[1][n];
        return;
    }
    int64_t C = node->shape.dims[node->shape.rank - 1];
    EACH(c, C) small(o, node, in, C, c, y.data);
}

/* ---- over channels, pixels, everything ------------------------------------------------------- */

static void run_softmax(Tensor x, Tensor y)
{
    EACH(n, x.N) EACH(h, x.H) EACH(w, x.W) {
        double largest = -INFINITY, total = 0;
        EACH(c, x.C) largest = fmax(largest, *at(x, n, c, h, w));
        EACH(c, x.C) total += exp(*at(x, n, c, h, w) - largest);
        EACH(c, x.C) *at(y, n, c, h, w) = exp(*at(x, n, c, h, w) - largest) / total;
    }
}

static void run_softmax_grad(Tensor dy, Tensor y, Tensor dx)
{
    EACH(n, y.N) EACH(h, y.H) EACH(w, y.W) {
        double product = 0;
        EACH(c, y.C) product += *at(dy, n, c, h, w) * *at(y, n, c, h, w);
        EACH(c, y.C)
            *at(dx, n, c, h, w) = *at(y, n, c, h, w) * (*at(dy, n, c, h, w) - product);
    }
}

/* The result has an extent of 1 along the axes, so an element of x belongs to at(y, ...). */
static void run_sum(Tensor x, Tensor y, double divisor)
{
    EACH_ELEMENT(x) *at(y, n, c, h, w) += *at(x, n, c, h, w) / divisor;
}

/* The extents that a sum over axes leaves; its printed shape may leave out extents of 1. */
static Tensor kept_axes(Tensor x, int axes, double *data)
{
    return (Tensor){data, axes & AXIS_BATCH ? 1 : x.N, axes & AXIS_CHANNELS ? 1 : x.C,
                    axes & AXIS_PIXELS ? 1 : x.H, axes & AXIS_PIXELS ? 1 : x.W};
}

static double elements(Tensor t)
{
    return (double)(t.N * t.C * t.H * t.W);
}

static void run_max(Tensor x, Tensor y)
{
    EACH_ELEMENT(y) *at(y, n, c, h, w) = -INFINITY;
    EACH_ELEMENT(x) *at(y, n, c, h, w) = fmax(*at(y, n, c, h, w), *at(x, n, c, h, w));
}

/* dy to the first of the largest elements of x that belong to one element of y. */
static void run_max_grad(Tensor dy, Tensor x, Tensor dx)
{
    Tensor largest = dy;
    largest.data = calloc((size_t)elements(dy), sizeof(double));
    char *given = calloc((size_t)elements(dy), 1);
    run_max(x, largest);
    EACH_ELEMENT(x) {
        ptrdiff_t index = at(largest, n, c, h, w) - largest.data;
        if (given[index] || *at(x, n, c, h, w) != largest.data[index])
            continue;
        given[index] = 1;
        *at(dx, n, c, h, w) = dy.data[index];
    }
    free(largest.data);
    free(given);
}

static void run_dice_sums(Tensor p, Tensor t, Tensor y, double threshold)
{
    EACH_ELEMENT(p) {
        double a = *at(p, n, c, h, w), b = *at(t, n, c, h, w);
        *at(y, n, 0, 0, 0) += a >= threshold && b == 1;
        *at(y, n, 1, 0, 0) += a >= threshold;
        *at(y, n, 2, 0, 0) += b == 1;
        *at(y, n, 3, 0, 0) += a * b;
        *at(y, n, 4, 0, 0) += a;
    }
}

/* ---- windows --------------------------------------------------------------------------------- */

/* The first largest element of a window; NULL where the window lies outside x. */
static double *largest_in_window(const Node *node, Tensor x, int64_t n, int64_t c, int64_t p,
                                 int64_t q)
{
    int64_t kernel = integer(node, ATTR_KERNEL), stride = integer(node, ATTR_STRIDE);
    int64_t padding = integer(node, ATTR_PADDING);
    double *largest = NULL;
    EACH(r, kernel) EACH(s, kernel) {
        int64_t h = p * stride - padding + r, w = q * stride - padding + s;
        if (inside(x, h, w) && (!largest || *at(x, n, c, h, w) > *largest))
            largest = at(x, n, c, h, w);
    }
    return largest;
}

static void run_max_pool(const Node *node, Tensor x, Tensor y)
{
    EACH(n, y.N) EACH(c, y.C) EACH(p, y.H) EACH(q, y.W)
        *at(y, n, c, p, q) = *largest_in_window(node, x, n, c, p, q);
}

static void run_max_pool_grad(const Node *node, Tensor dy, Tensor x, Tensor dx)
{
    EACH(n, dy.N) EACH(c, dy.C) EACH(p, dy.H) EACH(q, dy.W)
        dx.data[largest_in_window(node, x, n, c, p, q) - x.data] += *at(dy, n, c, p, q);
}

/* y is the mean of x over windows; backward adds y's share to x instead. */
static void run_avg_pool(const Node *node, Tensor x, Tensor y, bool backward)
{
    int64_t kernel = integer(node, ATTR_KERNEL), stride = integer(node, ATTR_STRIDE);
    int64_t padding = integer(node, ATTR_PADDING);
    EACH(n, y.N) EACH(c, y.C) EACH(p, y.H) EACH(q, y.W) EACH(r, kernel) EACH(s, kernel) {
        int64_t h = p * stride - padding + r, w = q * stride - padding + s;
        if (!inside(x, h, w))
            continue;
        double weight = 1 / (double)(kernel * kernel);
        if (backward)
            *at(x, n, c, h, w) += weight * *at(y, n, c, p, q);
        else
            *at(y, n, c, p, q) += weight * *at(x, n, c, h, w);
    }
}

/* How much input row i counts for output row p: nearest, or bilinear with corners not aligned. */
static double row_weight(const Node *node, int64_t p, int64_t i, int64_t rows)
{
    int64_t scale = integer(node, ATTR_SCALE);
    if (node->attr[ATTR_MODE] == MODE_NEAREST)
        return p / scale == i;
    double centre = fmax(((double)p + 0.5) / (double)scale - 0.5, 0);
    int64_t low = (int64_t)centre, high = low + 1 < rows ? low + 1 : low;
    double part = centre - (double)low;
    return (low == i ? 1 - part : 0) + (high == i ? part : 0);
}

static void run_upsample(const Node *node, Tensor x, Tensor y, bool backward)
{
    EACH(n, y.N) EACH(c, y.C) EACH(p, y.H) EACH(q, y.W) EACH(h, x.H) EACH(w, x.W) {
        double weight = row_weight(node, p, h, x.H) * row_weight(node, q, w, x.W);
        if (weight == 0)
            continue;
        if (backward)
            *at(x, n, c, h, w) += weight * *at(y, n, c, p, q);
        else
            *at(y, n, c, p, q) += weight * *at(x, n, c, h, w);
    }
}

/* ---- moves ----------------------------------------------------------------------------------- */

static void run_concat(const Oracle *o, const Node *node, Tensor y)
{
    int64_t from = 0;
    EACH(i, node->n_inputs) {
        Tensor x = tensor(o, node->inputs[i]);
        EACH_ELEMENT(x) *at(y, n, from + c, h, w) = *at(x, n, c, h, w);
        from += x.C;
    }
}

/* Every element of y that lies in x, read with an offset; what lies outside stays zero. */
static void run_move(Tensor x, Tensor y, int64_t from, int64_t top, int64_t left)
{
    EACH_ELEMENT(y)
        if (inside(x, h + top, w + left))
            *at(y, n, c, h, w) = *at(x, n, from + c, h + top, w + left);
}

/* ---- the interpreter ------------------------------------------------------------------------- */

static void run_reduction(const Node *node, Tensor a, Tensor b, Tensor c, Tensor y)
{
    Tensor kept = kept_axes(a, integer(node, ATTR_AXES), y.data);
    switch ((int)node->op) {
    case OP_SUM: run_sum(a, kept, 1); return;
    case OP_MEAN: run_sum(a, kept, elements(a) / elements(kept)); return;
    case OP_GLOBAL_AVG_POOL:
    case OP_CHANNEL_MEAN: run_sum(a, y, elements(a) / elements(y)); return;
    case OP_GLOBAL_MAX_POOL:
    case OP_CHANNEL_MAX: run_max(a, y); return;
    case OP_BATCH_MOMENTS: run_moments(a, y.data); return;
    case OP_BATCH_NORM_SUMS: run_batch_norm_sums(a, b, c.data, y.data); return;
    case OP_DICE_SUMS: run_dice_sums(a, b, y, node->attr[ATTR_THRESHOLD]); return;
    }
}

static void run_window(const Node *node, Tensor a, Tensor b, Tensor y)
{
    switch ((int)node->op) {
    case OP_MAX_POOL: run_max_pool(node, a, y); return;
    case OP_MAX_POOL_GRAD: run_max_pool_grad(node, a, b, y); return;
    case OP_AVG_POOL: run_avg_pool(node, a, y, false); return;
    case OP_AVG_POOL_GRAD: run_avg_pool(node, y, a, true); return;
    case OP_UPSAMPLE: run_upsample(node, a, y, false); return;
    case OP_UPSAMPLE_GRAD: run_upsample(node, y, a, true); return;
    }
}

static void run_move_or_concat(const Oracle *o, const Node *node, Tensor a, Tensor y)
{
    int64_t top = integer(node, ATTR_TOP), left = integer(node, ATTR_LEFT);
    switch ((int)node->op) {
    case OP_CONCAT: run_concat(o, node, y); return;
    case OP_SLICE: run_move(a, y, integer(node, ATTR_FROM), 0, 0); return;
    case OP_PAD: run_move(a, y, 0, -top, -left); return;
    case OP_CROP: run_move(a, y, 0, top, left); return;
    }
}

static void run_node(const Oracle *o, const Node *node)
{
    Tensor in[3] = {0}, y = tensor(o, node);
    for (int i = 0; i < node->n_inputs && i < 3; i++)
        in[i] = tensor(o, node->inputs[i]);
    switch (op_facts[node->op].kind) {
    case KIND_SOURCE: y.data[0] = node->attr[ATTR_VALUE]; return;
    case KIND_CONTRACTION: run_contraction(o, node, in[0], in[1], y); return;
    case KIND_POINTWISE: run_pointwise(o, node, in[0], in[1], y); return;
    case KIND_CHANNEL:
        if (node->op == OP_SOFTMAX)
            run_softmax(in[0], y);
        else if (node->op == OP_SOFTMAX_GRAD)
            run_softmax_grad(in[0], in[1], y);
        else
            run_max_grad(in[0], in[1], y);
        return;
    case KIND_REDUCE: run_reduction(node, in[0], in[1], in[2], y); return;
    case KIND_WINDOW: run_window(node, in[0], in[1], y); return;
    case KIND_MOVE: run_move_or_concat(o, node, in[0], y); return;
    case KIND_SMALL: run_small(o, node, in[0], y); return;
    case KIND_NORMALISE:
    case KIND_LOSS:
    case KIND_METRIC: break;
    }
    bug("oracle: specialise the graph first: %s", node_text(o->graph, node));
}

static const double *bound(const Graph *graph, const Node *node, const OracleBinding *bindings,
                           int n_bindings)
{
    for (int i = 0; i < n_bindings; i++)
        if (strcmp(bindings[i].name, node->name) == 0)
            return bindings[i].data;
    bug("oracle: nothing is bound to %s", node_text(graph, node));
}

int64_t oracle_count(const Node *node, int batch)
{
    return shape_count(node->shape) * (node->shape.batched ? batch : 1);
}

Oracle *oracle_run(const Graph *graph, int batch, uint64_t seed, const OracleBinding *bindings,
                   int n_bindings)
{
    Oracle *o = calloc(1, sizeof *o);
    *o = (Oracle){graph, batch, seed, calloc((size_t)graph->next_id + 1, sizeof *o->values)};
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        size_t count = (size_t)oracle_count(node, batch);
        o->values[node->id] = calloc(count, sizeof(double));
        if (op_facts[node->op].kind == KIND_SOURCE && node->op != OP_CONSTANT)
            memcpy(o->values[node->id], bound(graph, node, bindings, n_bindings),
                   count * sizeof(double));
        else
            run_node(o, node);
    }
    return o;
}

void oracle_close(Oracle *o)
{
    if (!o)
        return;
    for (int i = 0; i < o->graph->next_id; i++)
        free(o->values[i]);
    free(o->values);
    free(o);
}

const double *oracle_value(const Oracle *o, const Node *node)
{
    return o->values[node->id];
}

const double *oracle_result(const Oracle *o, PlanRole role, const char *name)
{
    for (int i = 0; i < o->graph->n_results; i++)
        if (o->graph->results[i].role == role && strcmp(o->graph->results[i].name, name) == 0)
            return oracle_value(o, o->graph->results[i].node);
    return NULL;
}
