/* Between emit.c, which writes functions around rows, and emit_value.c, which writes the expression
 * that is computed for each pixel of a row.
 */
#ifndef EMIT_H
#define EMIT_H

#include "seg.h"

/* Where an element is, besides the sample n and the row h and pixel w + i. */
typedef struct {
    const char *block;      /* C text of the channel block */
    bool one_pixel;         /* read at h = w = 0 */
} Place;

typedef struct {
    char name[24];
    bool constant;          /* along a row */
} Value;

/* A value that was computed in this row. */
typedef struct Memo Memo;
struct Memo {
    const Node *node;
    Place place;
    Value value;
    Memo *older;
};

/* At `block` of a concat or slice, the value is that of an operand at `operand_block`. */
typedef struct Choice Choice;
struct Choice {
    const Node *node;
    const char *block;
    int operand;
    const char *operand_block;
    int depth;
    const Choice *outer;
};

/* One loop over a row. */
typedef struct {
    Emission *e;
    Text before, inside;    /* declarations before the loop; its body */
    Memo *memos;            /* the newest */
    const Choice *choices;  /* the innermost */
    const Node *pending;    /* a concat or slice that is not decided yet, or NULL */
    const char *pending_block;
    int counter;
    const char *indent;
} Row;

/* Index of an argument: a buffer is listed once, sizes and scalars as often as they are needed. */
int emission_buffer(Emission *, PlanBuffer);
int emission_size(Emission *, int64_t size);
int emission_scalar(Emission *, double scalar);
void emission_name(Emission *, const char *word); /* adds to the kernel's name while it is short */
int64_t channel_blocks(const Node *);

/* A new variable: `type name = `; the caller writes the rest of the line. */
Value new_value(Row *, bool constant);
Value remember(Row *, const Node *, Place, Value);
const Memo *recall(const Row *, const Node *, Place);
/* Of a fixed tensor with an element a channel, or with one number. */
Value fixed_leaf(Row *, Node *, Place);
/* Row `which` of a [rows,C] tensor. */
Value coefficient(Row *, Node *, int which, Place);
/* `const float *pK` to a batched tensor's element (n, block, h, w) of the row; K is returned. */
int leaf_pointer(Row *, const Node *, Place);
/* The value at a place: from memory where it is stored, else from its operands. */
Value row_value(Row *, Node *, Place);
Value row_expression(Row *, Node *, Place); /* from its operands in any case */

#endif
