/* `segrun bench --report FILE`: one page that needs no network and no other file. */
#ifndef BENCH_PAGE_H
#define BENCH_PAGE_H

#include "bench.h"

bool bench_write_page(const Bench *, const char *path, Error *);
/* Parts of it: the table of what was measured, with the ceiling; the kernels of a plan, slowest first,
 * or all its steps, `most` rows of them. False without memory. */
void put_measured(FILE *, const Bench *);
bool put_kernels(FILE *, const Bench *, const BenchPlan *, bool steps, int most);
/* bench_graph.c: a program's graph as SVG, a box a node, or a box a group. */
bool put_graph(FILE *, const BenchPlan *, bool groups);

#endif
