/* The graph: nodes in one array, each with its operands, attributes, shape and place in the text.
 *
 * In: operators and operands from build and from the passes. Out: the same, plus the one text form
 * that dumps, goldens and messages share:
 *
 *     %12 = conv %9, %down.0.weight {kernel=3 padding=1} : f32[N,64,128,128]  # unet.seg:14
 *
 * A source prints its own name, everything else a number; an attribute prints where it has no
 * default or differs from it; fixed tensors print no N. Results stand behind the nodes.
 *
 * Nodes are never freed: a pass makes new ones, redirects readers with graph_replace and lets
 * graph_sort drop what nothing reaches. That keeps every pass free of bookkeeping, and the arena
 * makes it cheap.
 */
#include <stdlib.h>
#include <string.h>

#include "seg.h"

const OpFacts op_facts[OP_COUNT] = {
#define OP(ID, name, KIND, tensors, operands, attributes, text) \
    [OP_##ID] = {#name, tensors, operands, attributes, text, KIND_##KIND},
#include "ops.def"
#undef OP
};

#define ATTR_TYPE_INT ATTR_INT
#define ATTR_TYPE_FLOAT ATTR_FLOAT
#define ATTR_TYPE_BOOL ATTR_BOOL
#define ATTR_TYPE_MODE ATTR_MODE_NAME
const AttributeFacts attribute_facts[ATTR_COUNT] = {
#define ATTR(ID, name, TYPE) [ATTR_##ID] = {#name, ATTR_TYPE_##TYPE},
#include "attributes.def"
#undef ATTR
};

/* ---- facts ----------------------------------------------------------------------------------- */

static bool same_word(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

/* The attribute's word in the op's column, "stride=1", and its length; NULL where it has none. */
static const char *find_attribute(Op op, Attribute attribute, size_t *length)
{
    const char *at = op_facts[op].attributes;
    while (*at) {
        at += strspn(at, " ");
        size_t word = strcspn(at, " ");
        if (word && same_word(at, strcspn(at, " ="), attribute_facts[attribute].name)) {
            *length = word;
            return at;
        }
        at += word;
    }
    return NULL;
}

bool op_has_attribute(Op op, Attribute attribute)
{
    size_t length;
    return find_attribute(op, attribute, &length) != NULL;
}

bool op_attribute_default(Op op, Attribute attribute, double *value, Attribute *same_as)
{
    size_t length;
    const char *word = find_attribute(op, attribute, &length);
    const char *equals = word ? memchr(word, '=', length) : NULL;
    *value = 0;
    *same_as = ATTR_COUNT;
    if (!equals)
        return false;
    const char *text = equals + 1;
    size_t count = length - (size_t)(text - word);
    if (same_word(text, count, "true") || same_word(text, count, "false")) {
        *value = text[0] == 't';
    } else if (same_word(text, count, "nearest") || same_word(text, count, "bilinear")) {
        *value = text[0] == 'n' ? MODE_NEAREST : MODE_BILINEAR;
    } else {
        char *end;
        *value = strtod(text, &end);
        if (end == text)
            for (int i = 0; i < ATTR_COUNT; i++)
                if (same_word(text, count, attribute_facts[i].name))
                    *same_as = (Attribute)i;
    }
    return true;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

int64_t shape_count(Shape shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++)
        count *= shape.dims[i];
    return count;
}

bool shape_equal(Shape a, Shape b)
{
    if (a.batched != b.batched || a.rank != b.rank)
        return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dims[i] != b.dims[i])
            return false;
    return true;
}

Shape shape_sample(int64_t c, int64_t h, int64_t w)
{
    return (Shape){.batched = true, .rank = 3, .dims = {c, h, w}};
}

Shape shape_fixed(int rank, const int64_t *dims)
{
    Shape shape = {.rank = rank};
    for (int i = 0; i < rank; i++)
        shape.dims[i] = dims[i];
    return shape;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

Graph *graph_new(Compilation *compilation, const char *name, Program program)
{
    Graph *graph = arena_alloc(compilation->arena, sizeof *graph);
    graph->compilation = compilation;
    graph->arena = compilation->arena;
    graph->name = name;
    graph->program = program;
    return graph;
}

static void append_node(Graph *graph, Node *node)
{
    if (graph->n_nodes == graph->capacity) {
        int capacity = graph->capacity ? 2 * graph->capacity : 64;
        graph->nodes = arena_grow(graph->arena, graph->nodes,
                                  (size_t)graph->capacity * sizeof *graph->nodes,
                                  (size_t)capacity * sizeof *graph->nodes);
        graph->capacity = capacity;
    }
    graph->nodes[graph->n_nodes++] = node;
}

Node *graph_add(Graph *graph, Op op, Loc loc, int n_inputs, Node *const *inputs)
{
    Node *node = arena_alloc(graph->arena, sizeof *node);
    node->id = graph->next_id++;
    node->op = op;
    node->loc = loc;
    node->n_inputs = n_inputs;
    node->inputs = arena_alloc(graph->arena, (size_t)(n_inputs + 1) * sizeof *node->inputs);
    for (int i = 0; i < n_inputs; i++)
        node->inputs[i] = inputs[i];
    append_node(graph, node);
    return node;
}

void graph_result(Graph *graph, PlanRole role, const char *name, Node *node)
{
    size_t bytes = (size_t)graph->n_results * sizeof(Result);
    graph->results = arena_grow(graph->arena, graph->results, bytes, bytes + sizeof(Result));
    graph->results[graph->n_results++] = (Result){role, name, node};
}

Graph *graph_copy(const Graph *from, Program program)
{
    Graph *to = graph_new(from->compilation, from->name, program);
    Node **copies = arena_alloc(to->arena, (size_t)(from->next_id + 1) * sizeof *copies);
    for (int i = 0; i < from->n_nodes; i++) {
        const Node *old = from->nodes[i];
        Node *node = graph_add(to, old->op, old->loc, 0, NULL);
        int id = node->id;
        *node = *old;
        node->id = id;
        node->like = from->nodes[i];
        node->group = NULL;
        copies[old->id] = node;
    }
    for (int i = 0; i < to->n_nodes; i++) {
        Node *node = to->nodes[i];
        Node *const *inputs = from->nodes[i]->inputs;
        node->inputs = arena_alloc(to->arena, (size_t)(node->n_inputs + 1) * sizeof *node->inputs);
        for (int k = 0; k < node->n_inputs; k++)
            node->inputs[k] = copies[inputs[k]->id];
    }
    for (int i = 0; i < from->n_results; i++)
        graph_result(to, from->results[i].role, from->results[i].name,
                     copies[from->results[i].node->id]);
    return to;
}

void graph_replace(Graph *graph, Node *old, Node *new)
{
    for (int i = 0; i < graph->n_nodes; i++)
        for (int k = 0; k < graph->nodes[i]->n_inputs; k++)
            if (graph->nodes[i]->inputs[k] == old)
                graph->nodes[i]->inputs[k] = new;
    for (int i = 0; i < graph->n_results; i++)
        if (graph->results[i].node == old)
            graph->results[i].node = new;
}

/* Marks by id what the results reach. The stack holds every node at most once. */
static void mark_live(const Graph *graph, bool *live)
{
    Node **stack = arena_alloc(graph->arena, (size_t)(graph->n_nodes + 1) * sizeof *stack);
    for (int r = 0; r < graph->n_results; r++) {
        int depth = 0;
        if (!live[graph->results[r].node->id]) {
            live[graph->results[r].node->id] = true;
            stack[depth++] = graph->results[r].node;
        }
        while (depth) {
            const Node *node = stack[--depth];
            for (int i = 0; i < node->n_inputs; i++) {
                if (!live[node->inputs[i]->id]) {
                    live[node->inputs[i]->id] = true;
                    stack[depth++] = node->inputs[i];
                }
            }
        }
    }
}

/* Puts a node behind its operands; deep only where the old order was wrong. */
static void emit_node(Node *node, char *state, Node **sorted, int *count)
{
    enum { WAITING, OPEN, DONE };
    if (state[node->id] == DONE)
        return;
    if (state[node->id] == OPEN)
        bug("the graph has a cycle through %%%d (%s)", node->id, op_facts[node->op].name);
    state[node->id] = OPEN;
    for (int i = 0; i < node->n_inputs; i++)
        emit_node(node->inputs[i], state, sorted, count);
    state[node->id] = DONE;
    sorted[(*count)++] = node;
}

void graph_sort(Graph *graph)
{
    bool *live = arena_alloc(graph->arena, (size_t)graph->next_id + 1);
    char *state = arena_alloc(graph->arena, (size_t)graph->next_id + 1);
    Node **sorted = arena_alloc(graph->arena, (size_t)(graph->n_nodes + 1) * sizeof *sorted);
    int count = 0;
    mark_live(graph, live);
    for (int i = 0; i < graph->n_nodes; i++)
        if (live[graph->nodes[i]->id])
            emit_node(graph->nodes[i], state, sorted, &count);
    for (int i = 0; i < count; i++) {
        sorted[i]->id = i;
        graph->nodes[i] = sorted[i];
    }
    graph->n_nodes = count;
    graph->next_id = count;
}

void graph_count_uses(Graph *graph)
{
    for (int i = 0; i < graph->n_nodes; i++)
        graph->nodes[i]->uses = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        for (int k = 0; k < graph->nodes[i]->n_inputs; k++)
            graph->nodes[i]->inputs[k]->uses++;
    for (int i = 0; i < graph->n_results; i++)
        graph->results[i].node->uses++;
}

/* ---- text ------------------------------------------------------------------------------------ */

/* The shortest decimal that reads back as the same double. */
static void print_number(Text *text, double value)
{
    char digits[40];
    for (int precision = 6; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_printf(text, "%s", digits);
}

static void print_value(Text *text, Attribute attribute, double value)
{
    static const char *const axes[] = {"none", "batch", "channels", "batch|channels", "pixels",
                                       "batch|pixels", "channels|pixels", "all"};
    switch (attribute_facts[attribute].type) {
    case ATTR_INT:
        if (attribute == ATTR_AXES && value >= 0 && value <= AXIS_ALL)
            text_printf(text, "%s", axes[(int)value]);
        else
            text_printf(text, "%lld", (long long)value);
        break;
    case ATTR_FLOAT: print_number(text, value); break;
    case ATTR_BOOL: text_printf(text, "%s", value ? "true" : "false"); break;
    case ATTR_MODE_NAME:
        text_printf(text, "%s", value == MODE_BILINEAR ? "bilinear" : "nearest");
        break;
    }
}

static bool is_default(const Node *node, Attribute attribute)
{
    double value;
    Attribute same_as;
    if (!op_attribute_default(node->op, attribute, &value, &same_as))
        return false;
    return node->attr[attribute] == (same_as == ATTR_COUNT ? value : node->attr[same_as]);
}

/* " {kernel=3 padding=1}": in the order of the op's column, which is that of the language. */
static void print_attributes(Text *text, const Node *node)
{
    const char *separator = " {";
    const char *at = op_facts[node->op].attributes;
    for (; *at; at += strcspn(at, " "), at += strspn(at, " ")) {
        for (int i = 0; i < ATTR_COUNT; i++) {
            if (!same_word(at, strcspn(at, " ="), attribute_facts[i].name)
                || is_default(node, (Attribute)i))
                continue;
            text_printf(text, "%s%s=", separator, attribute_facts[i].name);
            print_value(text, (Attribute)i, node->attr[i]);
            separator = " ";
        }
    }
    static const char *const inits[] = {NULL, "kaiming_uniform", "uniform", "constant",
                                        "values"};
    if (node->init != INIT_NONE) {
        text_printf(text, "%sinit=%s", separator, inits[node->init]);
        if (node->init != INIT_VALUES) {
            text_printf(text, " %s=", node->init == INIT_CONSTANT ? "value" : "fan_in");
            print_number(text, node->init_value);
        }
        for (int64_t i = 0; node->init == INIT_VALUES && i < shape_count(node->shape); i++) {
            text_printf(text, i ? "," : " value=");
            print_number(text, node->init_values[i]);
        }
        separator = " ";
    }
    if (separator[1] == '\0')
        text_printf(text, "}");
}

static void print_reference(Text *text, const Node *node)
{
    if (node->name && op_facts[node->op].kind == KIND_SOURCE)
        text_printf(text, "%%%s", node->name);
    else
        text_printf(text, "%%%d", node->id);
}

static void print_shape(Text *text, const Node *node)
{
    text_printf(text, "%s[%s", node->type == TYPE_U8 ? "u8" : "f32",
                node->shape.batched ? "N" : "");
    for (int i = 0; i < node->shape.rank; i++)
        text_printf(text, "%s%lld", i || node->shape.batched ? "," : "",
                    (long long)node->shape.dims[i]);
    text_printf(text, "]");
}

const char *node_text(const Graph *graph, const Node *node)
{
    Text text = {.arena = graph->arena};
    print_reference(&text, node);
    text_printf(&text, " = %s", op_facts[node->op].name);
    for (int i = 0; i < node->n_inputs; i++) {
        text_printf(&text, i ? ", " : " ");
        print_reference(&text, node->inputs[i]);
    }
    print_attributes(&text, node);
    text_printf(&text, " : ");
    print_shape(&text, node);
    if (node->loc.file) {
        const char *slash = strrchr(node->loc.file->name, '/');
        text_printf(&text, "  # %s:%d", slash ? slash + 1 : node->loc.file->name,
                    loc_line(node->loc));
    }
    return text.text;
}

static const char *role_name(PlanRole role)
{
    switch (role) {
    case ROLE_INPUT: return "input";
    case ROLE_TARGET: return "target";
    case ROLE_OUTPUT: return "output";
    case ROLE_LOSS: return "loss";
    case ROLE_METRIC: return "metric";
    case ROLE_GRADIENT: return "gradient";
    case ROLE_UPDATE: return "update";
    }
    return "?";
}

/* "activations+4096" */
static void print_place(Slab slab, int64_t offset, FILE *out)
{
    static const char *const slabs[] = {"parameters", "gradients", "moments", "sums", "average",
                                        "fixed", "activations"};
    fprintf(out, " %s+%lld", slabs[slab], (long long)offset);
}

/* What fuse, order and place decided: "; group 12 epilogue, stored blocked activations+4096" */
static void print_fusion(const Graph *graph, const Node *node, FILE *out)
{
    bool placed = graph->fixed_bytes > 0;
    if (node->group)
        fprintf(out, "  ; group %d %s", node->group->id, group_part(node->group, node));
    else if (!node->stored && node->op != OP_CONSTANT)
        fprintf(out, "  ; inlined");
    else if (placed && node->stored)
        fprintf(out, "  ; at");
    if (!placed || !node->stored)
        return;
    if (node->block)
        fprintf(out, node->element == TYPE_BF16 ? " blocked bf16" : " blocked");
    print_place(node->slab, node->offset, out);
}

/* Memory that groups need besides tensors. */
static void print_temporaries(const Graph *graph, FILE *out)
{
    static const char *const names[] = {"packed weights", "workspace", "samples"};
    for (int i = 0; i < graph->n_groups; i++) {
        const Group *group = graph->groups[i];
        for (int t = 0; t < MAX_TEMPORARIES; t++) {
            const Temporary *temporary = &group->temporaries[t];
            if (!temporary->bytes)
                continue;
            fprintf(out, "group %d %s: %lld bytes at", group->id,
                    t < TEMPORARY_PARTIALS ? names[t] : "partial sums",
                    (long long)temporary->bytes);
            print_place(temporary->batched ? SLAB_ACTIVATIONS : SLAB_FIXED, temporary->offset, out);
            fprintf(out, "\n");
        }
    }
    if (graph->fixed_bytes)
        fprintf(out, "fixed %lld bytes, activations %lld bytes a sample\n",
                (long long)graph->fixed_bytes, (long long)graph->activation_bytes);
}

void graph_print(const Graph *graph, FILE *out)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        fprintf(out, "%s", node_text(graph, graph->nodes[i]));
        if (graph->groups)
            print_fusion(graph, graph->nodes[i], out);
        fprintf(out, "\n");
    }
    for (int i = 0; i < graph->n_results; i++) {
        Text text = {.arena = graph->arena};
        print_reference(&text, graph->results[i].node);
        fprintf(out, "%s %s = %s\n", role_name(graph->results[i].role), graph->results[i].name,
                text.text);
    }
    print_temporaries(graph, out);
}

/* Graphviz: a box a node, grey for sources, an ellipse a result. */
void graph_dot(const Graph *graph, FILE *out)
{
    fprintf(out, "digraph \"%s\" {\n    node [shape=box fontname=\"monospace\"];\n", graph->name);
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        Text text = {.arena = graph->arena};
        print_reference(&text, node);
        text_printf(&text, " %s", op_facts[node->op].name);
        print_attributes(&text, node);
        text_printf(&text, "\\n");
        print_shape(&text, node);
        fprintf(out, "    n%d [label=\"%s\"%s];\n", node->id, text.text,
                op_facts[node->op].kind == KIND_SOURCE ? " style=filled fillcolor=lightgrey" : "");
        for (int k = 0; k < node->n_inputs; k++)
            fprintf(out, "    n%d -> n%d;\n", node->inputs[k]->id, node->id);
    }
    for (int i = 0; i < graph->n_results; i++) {
        const Result *result = &graph->results[i];
        fprintf(out, "    r%d [label=\"%s %s\" shape=ellipse];\n    n%d -> r%d;\n", i,
                role_name(result->role), result->name, result->node->id, i);
    }
    fprintf(out, "}\n");
}
