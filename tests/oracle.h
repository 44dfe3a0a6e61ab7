/* The oracle: a naive float64 interpreter of a Graph, the meaning of every operator.
 *
 * Batched tensors are double[N][C][H][W], fixed ones have their own shape; no layout, no fusion, no
 * order of evaluation but the graph's. It runs graphs after specialise (before or after simplify,
 * differentiate and fuse: what a node means does not change). Every kernel of every target is
 * compared with it, and gradients are compared with finite differences on it.
 */
#ifndef ORACLE_H
#define ORACLE_H

#include "../compiler/seg.h"

/* A source's values, found by name. Bytes (u8) come as 0..255. */
typedef struct {
    const char *name;
    const double *data;
} OracleBinding;

typedef struct {
    const Graph *graph;
    int batch;
    uint64_t seed;      /* of dropout, as in PlanState */
    double **values;    /* by node id */
} Oracle;

/* Computes every node. Each input, target, parameter and buffer must be bound; aborts with the
 * source's name where one is not. Close with oracle_close. */
Oracle *oracle_run(const Graph *, int batch, uint64_t seed, const OracleBinding *, int n_bindings);
void oracle_close(Oracle *);
/* Elements of a node's value: N samples where it is batched. */
int64_t oracle_count(const Node *, int batch);
const double *oracle_value(const Oracle *, const Node *);
/* The value of a result; NULL where the graph has none of that role and name. */
const double *oracle_result(const Oracle *, PlanRole, const char *name);

#endif
