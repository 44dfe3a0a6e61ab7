/* What infer.c's rules and infer_check.c share: the node that a rule is applied to, and checks,
 * which are false after an error.
 */
#ifndef INFER_H
#define INFER_H

#include "seg.h"

typedef struct {
    Graph *graph;          /* of the passes; NULL for infer_call */
    Compilation *user;     /* of infer_call; NULL for the passes */
    Node *node;
    const Loc *arguments;  /* of infer_call: where the operands stand */
    Shape *weight;         /* of infer_call */
} Rule;

static const int64_t MAX_COUNT = (int64_t)1 << 40; /* of a tensor's elements */

/* Reports the error at an operand, or at the whole call (-1). Always false. */
bool rule_fail(const Rule *, int operand, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* As its reader knows it: 'skip3' where the model says so, else "the result of conv". */
const char *operand_text(const Rule *, int operand);
const char *shape_text(const Rule *, Shape);    /* "C=3, H=256, W=256", "[64,3,3,3]" */

bool check_attributes(const Rule *);            /* each within its range */
/* Sets the result's shape after checking that its size can be computed with. */
bool give(const Rule *, Shape);
bool need_activation(const Rule *, int operand);                /* of type f32 */
bool need_shape(const Rule *, int operand, Shape expected);     /* passes only */
bool need_equal(const Rule *, int a, int b, int dimension);     /* 0 C, 1 H, 2 W */

#endif
