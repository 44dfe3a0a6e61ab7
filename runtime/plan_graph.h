/* The graph that a plan's program was made from (PlanNode), for people: traces and reports.
 *
 * A node is a source (no operands), or belongs to a group, which some steps compute, or is inlined:
 * every group that reads it computes it for itself.
 */
#ifndef PLAN_GRAPH_H
#define PLAN_GRAPH_H

#include "plan.h"

bool node_is_source(const PlanNode *);
bool node_is_inlined(const PlanNode *);
/* The operator of its line: "conv"; at most size - 1 letters. */
void node_operator(const PlanNode *, char *text, size_t size);
/* members[i]: does the group compute node i, inlined ones too? For all nodes of the program. */
void group_members(const PlanProgram *, int group, bool *members);
/* Their lines. Free with free(); NULL: no memory, or no group. */
char *group_lines(const PlanProgram *, int group);
/* For each node the steps during which it must be kept: from the one that makes it to the last that
 * reads it; results until the end. first[i] -1: never made. False: no memory. */
bool node_lifetimes(const PlanProgram *, int *first, int *last);
/* The step of a group that does its work: not one that packs or finishes. -1: none. */
int group_step(const PlanProgram *, int group);

#endif
