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
