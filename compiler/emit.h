/* Between emit.c, emit_host.c and emit_cuda.c, which write functions around rows, and emit_value.c,
 * which writes the expression that is computed for each pixel of a row.
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
    int words;              /* CUDA: loaded by the read function up to here */
    const char *indent;
} Row;

/* How a target's texts load the element of a batched tensor. */
typedef struct Dialect {
    Value (*load)(Row *, Node *, Place);
    const char *along_row;  /* added to a row's pixel: " + i", or "" where a row is one pixel */
    const char *deeper;     /* indentation of what is inside the loop over a row */
} Dialect;

extern const Dialect host_dialect, cuda_dialect;

/* Index of an argument: a buffer is listed once, sizes and scalars as often as they are needed. */
int emission_buffer(Emission *, PlanBuffer);
int emission_size(Emission *, int64_t size);
int emission_scalar(Emission *, double scalar);
void emission_name(Emission *, const char *word); /* adds to the kernel's name while it is short */
int64_t channel_blocks(const Emission *, const Node *);

/* A new variable: `type name = `; the caller writes the rest of the line. */
Value new_value(Row *, bool constant);
Value remember(Row *, const Node *, Place, Value);
const Memo *recall(const Row *, const Node *, Place);
/* Of a fixed tensor with an element a channel, or with one number. */
Value fixed_leaf(Row *, Node *, Place);
/* Row `which` of a [rows,C] tensor. */
Value coefficient(Row *, Node *, int which, Place);
/* The value at a place: from memory where it is stored, else from its operands. */
Value row_value(Row *, Node *, Place);
Value row_expression(Row *, Node *, Place); /* from its operands in any case */

/* ---- emit.c: what every dialect shares ------------------------------------------------------- */

typedef void RowBody(Row *, void *context);
/* A row with nothing in it yet. */
void begin_row(Row *, Emission *, const Choice *, const char *indent);
/* Writes body's text, with a branch for every operand of a concat where it comes to one. */
void emit_rows(Emission *, RowBody *, void *context, const Choice *, const char *indent);
int accumulators_of(const Node *reduction);
int count_accumulators(const Group *);
Node *const *sums_of(const Group *, int *n); /* the reductions; the anchor, where it is one */
bool has_bias(const Node *anchor);
Value root_value(Row *, Node *root, Place);

#endif
