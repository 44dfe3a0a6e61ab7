/* The table of operator cases: see op_cases.h.
 *
 * A row's text is filled with random numbers (the same on every run); a few of the results become
 * one model, whose every value is an output with a loss of its own. Sizes reach kernels as
 * arguments, so random sizes need few kernels.
 *
 * Holes: @ number of the piece   $c $k channels   $h $w height, width   $r kernel   $s stride
 *   $p padding   $d dilation   $g groups   $o output padding   $b true or false
 * The table's first two columns: the operator that the row is about (its name in ops.def, or a word
 * of its own for fusions), and the inputs, as NAME:TYPE[C,H,W].
 */
#include "op_cases.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Sums of some hundred float products are right to some 1e-7; 2e-6 leaves room for the chains of a
 * fused model and is far below what any wrong index gives. Batch norm divides by deviations that
 * come from as few as one sample of a few pixels, which multiplies errors. */
#define TOLERANCE 2e-6
#define NORM_TOLERANCE 1e-5
/* Winograd's products cancel: 1e-6 of the largest result, sums of some hundred tiles more. Less than
 * a tenth of what is measured against the largest, so 3e-5 of it may be off. */
#define WINOGRAD_TOLERANCE 2e-6

#define X "x@:f32[$c,$h,$w]"
#define XZ "x@:f32[$c,$h,$w] z@:f32[$c,$h,$w]"
#define CONV_TEXT "conv(x@, $k, kernel = $r, stride = $s, padding = $p, dilation = $d, groups = $g, "

const OpRow op_rows[] = {
    /* contractions */
    {"conv", X, "y@ = " CONV_TEXT "bias = $b)", CONV, 12, TOLERANCE},
    {"conv", "x@:f32[16,$h,$w]", "y@ = conv(x@, 32, kernel = 3, padding = 1)", ANY, 2, TOLERANCE},
    {"conv", X, "y@ = conv(x@, $k, kernel = 1)", ANY, 2, TOLERANCE},
    {"conv", X, "y@ = conv(x@, $c, kernel = 3, padding = 1, groups = $c)", ANY, 2, TOLERANCE},
    {"conv", "x@:f32[3,$h,$w]", "y@ = conv(conv(x@, 1, kernel = 5, padding = 3) * 2, 1, kernel = 1)", ANY,
     1, TOLERANCE},
    {"conv_transpose", X,
     "y@ = conv_transpose(x@, $k, kernel = $r, stride = $s, padding = $p, output_padding = $o, "
     "dilation = $d, groups = $g, bias = $b)", TRANSPOSED, 10, TOLERANCE},
    {"conv_transpose", X, "y@ = conv_transpose(x@, $k, kernel = 2, stride = 2)", ANY, 2, TOLERANCE},
    {"linear", X, "y@ = linear(x@, $k, bias = $b)", ANY, 3, TOLERANCE},
    {"linear", "x@:f32[$c,1,1]", "y@ = linear(relu(linear(x@, $k)), $c)", ANY, 2, TOLERANCE},
    /* batch norm */
    {"batch_norm", X, "y@ = batch_norm(x@)", ANY, 3, NORM_TOLERANCE},
    {"batch_norm", X, "y@ = batch_norm(x@, eps = 0.001, momentum = 0.3)", ANY, 2, NORM_TOLERANCE},
    {"batch_norm", X, "y@ = relu(batch_norm(" CONV_TEXT "bias = false)))", CONV, 4, NORM_TOLERANCE},
    /* pointwise */
    {"relu", X, "y@ = relu(x@)", ANY, 2, TOLERANCE},
    {"leaky_relu", X, "y@ = leaky_relu(x@, slope = 0.2)", ANY, 2, TOLERANCE},
    {"silu", X, "y@ = silu(3 * x@)", ANY, 2, TOLERANCE},
    {"gelu", X, "y@ = gelu(2 * x@)", ANY, 2, TOLERANCE},
    {"sigmoid", X, "y@ = sigmoid(x@) * 3 - 1", ANY, 2, TOLERANCE},
    {"add", XZ, "y@ = x@ + z@", ANY, 2, TOLERANCE},
    {"add", "x@:f32[$c,$h,$w] z@:f32[$c,1,1]", "y@ = relu(x@ + z@) + z@", ANY, 2, TOLERANCE},
    {"sub", "x@:f32[$c,$h,$w] z@:f32[1,$h,$w]", "y@ = (x@ - z@) - x@ * (z@ - 1)", ANY, 2, TOLERANCE},
    {"sub", "x@:f32[$c,1,1] z@:f32[$c,$h,$w]", "y@ = x@ - z@", ANY, 1, TOLERANCE},
    {"mul", XZ, "y@ = x@ * z@", ANY, 2, TOLERANCE},
    {"mul", "x@:f32[$c,$h,$w] z@:f32[$c,1,1]", "y@ = x@ * sigmoid(z@)", ANY, 2, TOLERANCE},
    {"mul", "x@:f32[$c,$h,$w] z@:f32[1,$h,$w]", "y@ = sigmoid(z@) * x@", ANY, 2, TOLERANCE},
    {"mul", "x@:f32[$c,$h,$w] z@:f32[1,1,1]", "y@ = x@ * z@", ANY, 1, TOLERANCE},
    {"div", XZ, "y@ = x@ / (z@ * z@ + 0.5)", ANY, 2, TOLERANCE},
    {"div", "x@:f32[$c,$h,$w] z@:f32[$c,1,1]", "y@ = x@ / (sigmoid(z@) + 0.1)", ANY, 1, TOLERANCE},
    {"div", X, "y@ = x@ / 4 + 1 / (x@ * x@ + 1)", ANY, 1, TOLERANCE},
    {"dropout", X, "y@ = dropout(x@ + 1, rate = 0.3)", ANY, 2, TOLERANCE},
    {"dropout", X, "y@ = dropout(relu(conv(x@, $k, kernel = 3, padding = 1)))", ANY, 1, TOLERANCE},
    {"softmax", X, "y@ = 4 * softmax(3 * x@) - 1", ANY, 3, TOLERANCE},
    /* reductions */
    {"global_avg_pool", X, "y@ = global_avg_pool(x@)", ANY, 2, TOLERANCE},
    {"global_max_pool", X, "y@ = global_max_pool(x@)", ANY, 2, TOLERANCE},
    {"channel_mean", X, "y@ = channel_mean(x@)", ANY, 2, TOLERANCE},
    {"channel_max", X, "y@ = channel_max(x@)", ANY, 2, TOLERANCE},
    /* windows */
    {"max_pool", X, "y@ = max_pool(x@, kernel = $r, stride = $s, padding = $p)", POOL, 5, TOLERANCE},
    {"max_pool", X, "y@ = max_pool(x@ * x@, kernel = 2)", POOL, 1, TOLERANCE},
    {"avg_pool", X, "y@ = avg_pool(x@, kernel = $r, stride = $s, padding = $p)", POOL, 5, TOLERANCE},
    {"upsample", X, "y@ = upsample(x@, scale = 2)", ANY, 2, TOLERANCE},
    {"upsample", X, "y@ = upsample(x@, scale = 3, mode = bilinear)", ANY, 2, TOLERANCE},
    {"upsample", X, "y@ = upsample(x@, mode = bilinear)", ANY, 2, TOLERANCE},
    /* moves */
    {"concat", "x@:f32[$c,$h,$w] z@:f32[$k,$h,$w] v@:f32[$c,$h,$w]", "y@ = concat(x@, z@, v@)", ANY, 3,
     TOLERANCE},
    {"concat", "x@:f32[16,$h,$w] z@:f32[32,$h,$w]",
     "y@ = conv(concat(relu(x@), z@), $k, kernel = 3, padding = 1)", ANY, 2, TOLERANCE},
    {"concat", "x@:f32[1,$h,$w] z@:f32[3,$h,$w]", "y@ = concat(relu(x@), z@, sigmoid(x@) * x@)", ANY, 1,
     TOLERANCE},
    {"pad", "x@:f32[$c,$h,$w] z@:f32[$k,20,21]", "y@ = pad(relu(x@), z@)", ANY, 2, TOLERANCE},
    {"crop", "x@:f32[$c,20,21] z@:f32[$k,$h,$w]", "y@ = crop(x@, z@) * 2", ANY, 2, TOLERANCE},
    /* losses and the metric: on the last piece's probability, see add_results */
    {"binary_cross_entropy", XZ, "y@ = x@ - z@", ANY, 2, TOLERANCE},
    {"dice_loss", X, "y@ = 2 * x@", ANY, 2, TOLERANCE},
    {"dice", X, "y@ = x@ + 0.1", ANY, 2, TOLERANCE},
    /* what fusion makes of pieces of the networks */
    {"u8 input", "x@:u8[3,$h,$w]",
     "y@ = relu(batch_norm(conv(x@ / 255, $k, kernel = 3, padding = 1, bias = false)))", ANY, 2,
     NORM_TOLERANCE},
    {"residual", X,
     "a@ = relu(batch_norm(conv(x@, $c, kernel = 3, padding = 1, bias = false)))\n"
     "    y@ = relu(batch_norm(conv(a@, $c, kernel = 3, padding = 1, bias = false)) + x@)", ANY, 3,
     NORM_TOLERANCE},
    {"downsample", X,
     "a@ = batch_norm(conv(x@, $k, kernel = 3, stride = 2, padding = 1, bias = false))\n"
     "    y@ = relu(a@ + batch_norm(conv(x@, $k, kernel = 1, stride = 2, bias = false)))", ANY, 2,
     NORM_TOLERANCE},
    {"level", X,
     "a@ = relu(batch_norm(conv(x@, 16, kernel = 3, padding = 1, bias = false)))\n"
     "    b@ = conv_transpose(max_pool(pad(a@, x@), kernel = 2), 16, kernel = 2, stride = 2)\n"
     "    y@ = conv(concat(a@, pad(b@, a@)), $k, kernel = 3, padding = 1)", POOL, 2, NORM_TOLERANCE},
    {"cbam", X,
     "a@ = global_avg_pool(x@)\n"
     "    b@ = global_max_pool(x@)\n"
     "    e@ = x@ * sigmoid(linear(relu(linear(a@, 4)), $c) + linear(relu(linear(b@, 4)), $c))\n"
     "    f@ = sigmoid(conv(concat(channel_max(e@), channel_mean(e@)), 1, kernel = 7, padding = 3))\n"
     "    y@ = e@ * f@", ANY, 3, NORM_TOLERANCE},
    {"pools on the way", X,
     "a@ = conv(x@, 24, kernel = 3, stride = 2, padding = 2) - 2\n"
     "    y@ = a@ * sigmoid(global_avg_pool(a@) + global_max_pool(a@ * 0.5 - 1))", ANY, 2, TOLERANCE},
    {"several readers", X,
     "a@ = silu(conv(x@, $k, kernel = 3, padding = 1))\n"
     "    y@ = max_pool(a@, kernel = 3, stride = 1, padding = 1) + a@ * channel_mean(a@) - gelu(a@)",
     ANY, 2, TOLERANCE},
    {"bilinear step", X,
     "y@ = batch_norm(relu(conv(upsample(x@, mode = bilinear), $k, kernel = 3, padding = 1)))", ANY, 2,
     NORM_TOLERANCE},
    /* by Winograd where the shape allows; behind the others, whose values come from their places */
    {"winograd", X, "y@ = " CONV_TEXT "bias = $b)", WINOGRAD, 6, WINOGRAD_TOLERANCE},
    {"winograd", X, "y@ = conv_transpose(x@, $k, kernel = 3, padding = $p, bias = $b)", WINOGRAD, 3,
     WINOGRAD_TOLERANCE},
    {"winograd", "x@:f32[$c,$h,$w] z@:f32[$k,$h,$w]",
     "y@ = conv(concat(relu(x@), z@), $k, kernel = 3, padding = $p)", WINOGRAD, 3,
     WINOGRAD_TOLERANCE},
    {"winograd", X, "y@ = relu(batch_norm(" CONV_TEXT "bias = false)))", WINOGRAD, 4,
     NORM_TOLERANCE},
    {"winograd", X,
     "a@ = relu(batch_norm(conv(x@, $c, kernel = 3, padding = 1, bias = false)))\n"
     "    y@ = relu(batch_norm(conv(a@, $c, kernel = 3, padding = 1, bias = false)) + x@)", WINOGRAD, 3,
     NORM_TOLERANCE},
    /* a number a channel, with which lanes behind the last channel stay zero */
    {"normalize", "x@:f32[3,$h,$w]",
     "y@ = conv(normalize(x@, [0.4, -0.3, 2], [0.2, 0.5, 3]), $k, kernel = 3, padding = 1)", ANY, 1,
     TOLERANCE},
    {"normalize", "x@:f32[9,$h,$w]",
     "y@ = normalize(relu(x@), [1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 1, 2, 3, 1, 2, 3])", ANY, 1,
     TOLERANCE},
    /* losses that came later: behind the rows whose numbers are drawn before */
    {"tversky_loss", X, "y@ = 2 * x@", ANY, 2, TOLERANCE},
    {"focal_loss", X, "y@ = 2 * x@", ANY, 2, TOLERANCE},
    /* of several classes: see put_class_results */
    {"one_hot", "x@:u8[1,$h,$w]", "y@ = one_hot(x@, 200) * 2 - 1", ANY, 1, TOLERANCE},
    {"cross_entropy", X, "y@ = (softmax(concat(x@, 2 * x@)) + softmax(concat(x@, 1 - x@))) / 2", ANY, 1,
     TOLERANCE},
    /* a class that wins clearly, or a tie of 200: no rounding gives another */
    {"dice of classes", "x@:u8[1,$h,$w] z@:f32[1,$h,$w] v@:f32[$c,$h,$w]",
     "y@ = softmax(concat(one_hot(x@, 200) * (z@ + 4), v@ - 3))", ANY, 2, TOLERANCE},
};
const int n_op_rows = sizeof op_rows / sizeof *op_rows;
enum { MAX_PIECES = 3 };

/* ---- random numbers that go together ------------------------------------------------------------ */

typedef struct { int c, k, h, w, r, s, p, d, g, o, b; } Numbers;

static int draw(uint64_t *state, int least, int most)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return least + (int)((*state >> 33) % (uint64_t)(most - least + 1));
}

static void draw_groups(uint64_t *state, Numbers *n)
{
    n->g = 1;
    switch (draw(state, 0, 4)) {
    case 0: /* depthwise, with one or two results a channel */
        n->g = n->c = draw(state, 1, 36);
        n->k = n->c * draw(state, 1, 2);
        break;
    case 1:
        n->g = draw(state, 2, 4);
        n->c = n->g * draw(state, 1, 9);
        n->k = n->g * draw(state, 1, 9);
        break;
    }
}

static Numbers draw_numbers(Rule rule, uint64_t *state)
{
    static const int kernels[] = {1, 2, 3, 3, 4, 5, 7};
    Numbers n;
    for (;;) {
        n = (Numbers){
            .c = draw(state, 1, 40), .k = draw(state, 1, 40), .h = draw(state, 1, 17),
            .w = draw(state, 1, 19), .r = kernels[draw(state, 0, 6)], .s = draw(state, 1, 3),
            .d = draw(state, 1, 2), .b = draw(state, 0, 1), .g = 1,
        };
        n.p = draw(state, 0, rule == POOL ? n.r / 2 : n.r - 1);
        if (rule == POOL)
            n.d = 1;
        if (rule == WINOGRAD) {
            n.c += 30, n.k += 30, n.h += 8, n.w += 8;
            n.r = 3, n.s = n.d = 1, n.p %= 4;
        }
        if (rule == CONV || rule == TRANSPOSED)
            draw_groups(state, &n);
        int extent = n.d * (n.r - 1) + 1, least = n.h < n.w ? n.h : n.w;
        n.o = draw(state, 0, n.s - 1);
        if (rule == ANY || (rule != TRANSPOSED && least + 2 * n.p >= extent && least > 1))
            return n;
        if (rule == TRANSPOSED && (least - 1) * n.s - 2 * n.p + extent + n.o >= 1)
            return n;
    }
}

/* ---- texts ------------------------------------------------------------------------------------------ */

typedef struct { char bytes[16384]; size_t length; } Writing;

static void put(Writing *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(Writing *out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(out->bytes + out->length, sizeof out->bytes - out->length, format, arguments);
    va_end(arguments);
    if (n < 0 || out->length + (size_t)n >= sizeof out->bytes)
        abort();
    out->length += (size_t)n;
}

static void put_filled(Writing *out, const char *text, size_t length, const Numbers *n, int piece)
{
    static const char letters[] = "ckhwrspdgo";
    const int values[] = {n->c, n->k, n->h, n->w, n->r, n->s, n->p, n->d, n->g, n->o};
    for (size_t at = 0; at < length; at++) {
        const char *letter = text[at] == '$' ? strchr(letters, text[at + 1]) : NULL;
        if (text[at] == '@')
            put(out, "%d", piece);
        else if (letter)
            put(out, "%d", values[letter - letters]);
        else if (text[at] == '$')
            put(out, "%s", n->b ? "true" : "false");
        else
            put(out, "%c", text[at]);
        at += text[at] == '$';
    }
}

static void put_inputs(Writing *out, const char *inputs, const Numbers *n, int piece)
{
    while (*inputs) {
        size_t length = strcspn(inputs, " "), name = strcspn(inputs, ":");
        put(out, "    input ");
        put_filled(out, inputs, name, n, piece);
        put(out, " : ");
        put_filled(out, inputs + name + 1, length - name - 1, n, piece);
        put(out, "\n");
        inputs += length + (inputs[length] == ' ');
    }
}

/* Of the probabilities y@: a mask of their numbers (comparison.c's values: some are no class). */
static void put_class_results(Writing *out, const OpRow *row, int piece, Shape shape)
{
    put(out, "    output out%d = y%d\n", piece, piece);
    put(out, "    target classes%d : u8[1,%d,%d]\n", piece, (int)shape.dims[1], (int)shape.dims[2]);
    put(out, "    loss loss%d = cross_entropy(y%d, classes%d)", piece, piece, piece);
    if (strcmp(row->op, "dice of classes") == 0) {
        put(out, " + 0.5 * dice_loss(y%d, classes%d)\n", piece, piece);
        put(out, "    metric dice%d = dice(y%d, classes%d)", piece, piece, piece);
    }
    put(out, "\n");
}

/* The results of piece y@, of that shape. Losses on f32 targets, so that every element has a
 * gradient of its own. */
static void put_results(Writing *out, const OpRow *row, int piece, Shape shape)
{
    const char *more = strcmp(row->op, "dice_loss") == 0    ? "dice_loss(sigmoid(y%d), t%d, smooth = 2)"
                     : strcmp(row->op, "tversky_loss") == 0 ? "tversky_loss(sigmoid(y%d), t%d)"
                     : strcmp(row->op, "focal_loss") == 0   ? "focal_loss(sigmoid(y%d), t%d)" : NULL;
    put(out, "    output out%d = y%d\n", piece, piece);
    put(out, "    target t%d : %s[%d,%d,%d]\n", piece, strcmp(row->op, "dice") == 0 ? "u8" : "f32",
        (int)shape.dims[0], (int)shape.dims[1], (int)shape.dims[2]);
    if (more) {
        put(out, "    loss loss%d = 0.25 * binary_cross_entropy(sigmoid(y%d), t%d) + ", piece, piece,
            piece);
        put(out, more, piece, piece);
        put(out, "\n");
    } else
        put(out, "    loss loss%d = binary_cross_entropy(sigmoid(y%d), t%d)\n", piece, piece, piece);
    if (strcmp(row->op, "dice") == 0)
        put(out, "    metric dice%d = dice(sigmoid(y%d), t%d, threshold = 0.4)\n", piece, piece, piece);
}

/* The shape of each y: from a first text that has only outputs. */
static bool find_shapes(const OpRow *row, const Numbers *numbers, int pieces, Shape *shapes,
                        Writing *text, Outcome *outcome)
{
    text->length = 0;
    put(text, "model shapes {\n");
    for (int i = 0; i < pieces; i++) {
        put_inputs(text, row->inputs, &numbers[i], i);
        put(text, "    ");
        put_filled(text, row->body, strlen(row->body), &numbers[i], i);
        put(text, "\n    output out%d = y%d\n", i, i);
    }
    put(text, "}\n");
    Case test = {.text = text->bytes};
    Compilation c;
    Graph *graph = case_graph(&test, PROGRAM_MODEL, &c, outcome);
    for (int i = 0; graph && i < graph->n_results; i++)
        shapes[i] = graph->results[i].node->shape;
    arena_close(c.arena);
    return graph != NULL;
}

static bool write_model(const OpRow *row, uint64_t *state, Writing *text, Outcome *outcome)
{
    Numbers numbers[MAX_PIECES];
    Shape shapes[MAX_PIECES];
    int pieces = draw(state, 1, MAX_PIECES);
    for (int i = 0; i < pieces; i++)
        numbers[i] = draw_numbers(row->rule, state);
    if (!find_shapes(row, numbers, pieces, shapes, text, outcome))
        return false;
    text->length = 0;
    put(text, "model pieces {\n");
    for (int i = 0; i < pieces; i++) {
        put_inputs(text, row->inputs, &numbers[i], i);
        put(text, "    ");
        put_filled(text, row->body, strlen(row->body), &numbers[i], i);
        put(text, "\n");
        bool classes = strcmp(row->op, "cross_entropy") == 0
            || strcmp(row->op, "dice of classes") == 0;
        (classes ? put_class_results : put_results)(text, row, i, shapes[i]);
    }
    put(text, "}\n");
    return true;
}

bool op_case(int row, int number, Case *test, Outcome *outcome)
{
    static Writing text;
    uint64_t state = (uint64_t)row * 1000003 + (uint64_t)number * 7919 + 17;
    int batch = draw(&state, 1, 5);
    *test = (Case){.text = text.bytes, .batch = batch, .seed = state,
                   .tolerance = op_rows[row].tolerance,
                   .winograd = op_rows[row].rule == WINOGRAD};
    return write_model(&op_rows[row], &state, &text, outcome);
}

bool op_has_row(const char *op)
{
    for (int i = 0; i < n_op_rows; i++)
        if (strcmp(op_rows[i].op, op) == 0)
            return true;
    return false;
}
