/* Checks a graph after every pass, always. A graph that breaks a rule is our mistake, never the
 * user's, so the first one found ends the program with the node's text.
 *
 * The rules: operands stand before their readers and belong to the graph; their number fits the
 * op's row in ops.def; only attributes of that row are set; the shape and type are what infer_node
 * gives for the operands as they are now; results are nodes of the graph and fit what they are for;
 * nothing is left in a program that specialise should have replaced.
 */
#include <string.h>

#include "seg.h"

/* How many operands the op's column "x weight [bias]" allows. */
static void operand_range(Op op, int *least, int *most)
{
    const char *at = op_facts[op].operands;
    *least = *most = 0;
    while (*(at += strspn(at, " "))) {
        size_t length = strcspn(at, " ");
        *least += at[0] != '[';
        *most += 1;
        if (length > 3 && memcmp(at + length - 3, "...", 3) == 0)
            *most = INT32_MAX;
        at += length;
    }
}

static void verify_operands(const Graph *graph, const Node *node, Node *const *seen)
{
    int least, most;
    operand_range(node->op, &least, &most);
    if (node->n_inputs < least || node->n_inputs > most)
        bug("verify: %d operands, expected %s\n    %s", node->n_inputs,
            op_facts[node->op].operands, node_text(graph, node));
    for (int i = 0; i < node->n_inputs; i++) {
        const Node *input = node->inputs[i];
        if (!input)
            bug("verify: operand %d is missing in %%%d (%s)", i, node->id, op_facts[node->op].name);
        if (input->id < 0 || input->id >= graph->next_id || seen[input->id] != input)
            bug("verify: operand %d is no node before this one\n    %s", i, node_text(graph, node));
    }
}

static void verify_attributes(const Graph *graph, const Node *node)
{
    for (int i = 0; i < ATTR_COUNT; i++)
        if (node->attr[i] != 0 && !op_has_attribute(node->op, (Attribute)i))
            bug("verify: attribute %s does not belong here\n    %s", attribute_facts[i].name,
                node_text(graph, node));
}

static void verify_source(const Graph *graph, const Node *node)
{
    if (node->op != OP_CONSTANT && !node->name)
        bug("verify: a source without a name\n    %s", node_text(graph, node));
    bool kept = node->op == OP_PARAMETER || node->op == OP_BUFFER;
    if (kept != (node->init != INIT_NONE))
        bug("verify: initial values are for parameters and buffers\n    %s",
            node_text(graph, node));
    if (node->shape.batched != (node->op == OP_INPUT || node->op == OP_TARGET))
        bug("verify: inputs and targets, and no other sources, have a batch\n    %s",
            node_text(graph, node));
    if (graph->program == PROGRAM_PREDICT && node->op == OP_TARGET)
        bug("verify: a target in predict\n    %s", node_text(graph, node));
}

/* The shape and type again, from the operands, on a copy. */
static void verify_shape(Graph *graph, const Node *node)
{
    Node again = *node;
    infer_node(graph, &again);
    if (again.type != node->type || !shape_equal(again.shape, node->shape))
        bug("verify: shape or type differs from its operands'\n    %s\n    should be\n    %s",
            node_text(graph, node), node_text(graph, &again));
}

static void verify_kind(const Graph *graph, const Node *node)
{
    OpKind kind = op_facts[node->op].kind;
    if (graph->program != PROGRAM_MODEL
        && (kind == KIND_NORMALISE || kind == KIND_LOSS || kind == KIND_METRIC))
        bug("verify: specialise leaves no such node\n    %s", node_text(graph, node));
}

static const Node *find_source(const Graph *graph, const char *name)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        const Node *node = graph->nodes[i];
        if (op_facts[node->op].kind == KIND_SOURCE && node->name && strcmp(node->name, name) == 0)
            return node;
    }
    return NULL;
}

static void verify_result(const Graph *graph, const Result *result, Node *const *seen)
{
    const Node *node = result->node;
    if (!node || !result->name)
        bug("verify: a result without a name or node in '%s'", graph->name);
    if (node->id < 0 || node->id >= graph->next_id || seen[node->id] != node)
        bug("verify: result '%s' is no node of the graph", result->name);
    if (result->role == ROLE_LOSS && (node->shape.batched || shape_count(node->shape) != 1))
        bug("verify: loss '%s' is not one number\n    %s", result->name, node_text(graph, node));
    if (result->role == ROLE_GRADIENT || result->role == ROLE_UPDATE) {
        const Node *source = find_source(graph, result->name);
        if (source && !shape_equal(source->shape, node->shape))
            bug("verify: result for '%s' has another shape\n    %s", result->name,
                node_text(graph, node));
    }
}

void verify(Graph *graph)
{
    Node **seen = arena_alloc(graph->arena, ((size_t)graph->next_id + 1) * sizeof *seen);
    for (int i = 0; i < graph->n_nodes; i++) {
        Node *node = graph->nodes[i];
        if (node->id < 0 || node->id >= graph->next_id || seen[node->id])
            bug("verify: number %d is out of range or taken (%s)", node->id,
                op_facts[node->op].name);
        verify_operands(graph, node, seen);
        verify_attributes(graph, node);
        verify_kind(graph, node);
        if (op_facts[node->op].kind == KIND_SOURCE)
            verify_source(graph, node);
        else
            verify_shape(graph, node);
        seen[node->id] = node;
    }
    for (int i = 0; i < graph->n_results; i++)
        verify_result(graph, &graph->results[i], seen);
}
