/* `segrun bench --report FILE`: one page that needs no network and no other file. */
#ifndef BENCH_PAGE_H
#define BENCH_PAGE_H

#include "bench.h"

bool bench_write_page(const Bench *, const char *path, Error *);
/* bench_graph.c: a program's graph as SVG, a box a node, or a box a group. */
bool put_graph(FILE *, const BenchPlan *, bool groups);

#endif
