/* Every operator of the language in small models of random sizes: a table that several targets are
 * tested with (test_ops.c on the host, cuda_ops.c on CUDA devices, emulated or real).
 */
#ifndef OP_CASES_H
#define OP_CASES_H

#include "comparison.h"

/* Which numbers go together. WINOGRAD: kernel 3, stride 1 and shapes for which the host takes
 * Winograd's filtering; it is off in other rows, whose tolerance is for direct convolutions. */
typedef enum { ANY, CONV, TRANSPOSED, POOL, WINOGRAD } Rule;

typedef struct {
    const char *op;
    const char *inputs;        /* "x:f32[$c,$h,$w]", a space between several */
    const char *body;          /* gives y@ */
    Rule rule;
    int models;                /* texts made of this row */
    double tolerance;          /* in float32 */
} OpRow;
extern const OpRow op_rows[];
extern const int n_op_rows;

/* Model `number` of a row; always the same. Its text lives until the next call. */
bool op_case(int row, int number, Case *, Outcome *);
bool op_has_row(const char *op);

#endif
