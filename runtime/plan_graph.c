/* What a report must know of a program's graph: see plan_graph.h. */
#include "plan_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool node_is_source(const PlanNode *node)
{
    return node->n_inputs == 0;
}

bool node_is_inlined(const PlanNode *node)
{
    return node->group < 0 && !node_is_source(node);
}

void node_operator(const PlanNode *node, char *text, size_t size)
{
    const char *at = strstr(node->line, " = ");
    at = at ? at + 3 : node->line;
    snprintf(text, size, "%.*s", (int)strcspn(at, " \n"), at);
}

/* From the last node to the first: what a member reads has a smaller number. */
void group_members(const PlanProgram *program, int group, bool *members)
{
    for (int i = 0; i < program->n_nodes; i++)
        members[i] = program->nodes[i].group == group;
    for (int i = program->n_nodes - 1; i >= 0; i--)
        for (int k = 0; members[i] && k < program->nodes[i].n_inputs; k++) {
            int input = program->nodes[i].inputs[k];
            members[input] |= node_is_inlined(&program->nodes[input]);
        }
}

char *group_lines(const PlanProgram *program, int group)
{
    bool *members = group < 0 ? NULL : calloc((size_t)program->n_nodes + 1, sizeof *members);
    char *text = NULL;
    size_t size;
    FILE *out = members ? open_memstream(&text, &size) : NULL;
    if (out) {
        group_members(program, group, members);
        for (int i = 0; i < program->n_nodes; i++)
            if (members[i])
                fprintf(out, "%s\n", program->nodes[i].line);
        if (fclose(out) != 0) {
            free(text);
            text = NULL;
        }
    }
    free(members);
    return text;
}

int group_step(const PlanProgram *program, int group)
{
    int found = -1;
    for (int i = 0; group >= 0 && i < program->n_steps; i++) {
        const PlanStep *step = &program->steps[i];
        if (step->group == group
            && (found < 0 || !strstr(step->label, " finish") || strstr(program->steps[found].label,
                                                                       " pack")))
            found = i;
    }
    return found;
}

/* ---- lifetimes ------------------------------------------------------------------------------- */

static bool lies_at(const PlanNode *node, const PlanBuffer *buffer)
{
    return node->buffer.slab == buffer->slab && node->buffer.offset == buffer->offset
        && node->buffer.bytes == buffer->bytes && buffer->bytes > 0;
}

/* A result's node is the last one that lies where the caller reads it. */
static void keep_results(const PlanProgram *program, int *last)
{
    for (int t = 0; t < program->n_tensors; t++) {
        const PlanTensor *tensor = &program->tensors[t];
        int i = program->n_nodes - 1;
        while (i >= 0 && !lies_at(&program->nodes[i], &tensor->buffer))
            i--;
        if (i >= 0 && tensor->role != ROLE_INPUT && tensor->role != ROLE_TARGET)
            last[i] = program->n_steps - 1;
    }
}

/* What the group of these steps reads and makes. */
static void live_with_group(const PlanProgram *program, int group, const bool *members, int begin,
                            int end, int *first, int *last)
{
    for (int i = 0; i < program->n_nodes; i++) {
        const PlanNode *node = &program->nodes[i];
        for (int k = 0; members[i] && k < node->n_inputs; k++)
            last[node->inputs[k]] = last[node->inputs[k]] > end ? last[node->inputs[k]] : end;
        if (node->group == group) {
            first[i] = first[i] < 0 ? begin : first[i];
            last[i] = last[i] > end ? last[i] : end;
        }
    }
}

bool node_lifetimes(const PlanProgram *program, int *first, int *last)
{
    bool *members = calloc((size_t)program->n_nodes + 1, sizeof *members);
    for (int i = 0; i < program->n_nodes; i++) {
        first[i] = node_is_source(&program->nodes[i]) ? 0 : -1;
        last[i] = -1;
    }
    for (int i = 0; members && i < program->n_steps; i++) {
        int group = program->steps[i].group, end = i;
        while (end + 1 < program->n_steps && program->steps[end + 1].group == group)
            end++;
        if (group >= 0) {
            group_members(program, group, members);
            live_with_group(program, group, members, i, end, first, last);
        }
        i = end;
    }
    if (members)
        keep_results(program, last);
    free(members);
    return members != NULL;
}
