/* Between lower.c, which knows steps and kernels, and lower_host.c and lower_cuda.c, which know
 * templates.
 */
#ifndef LOWER_H
#define LOWER_H

#include "lower_conv.h"
#include "seg.h"

/* One program on its way into a target. */
typedef struct {
    Graph *graph;
    Plan *plan;
    PlanTarget *target;
    PlanProgram *program;
} Lowering;

/* The program with its tensors, and no steps yet. */
Lowering lower_begin(Graph *, Plan *, PlanTarget *);
/* An array with room for one more; it has room for a power of two. */
void *lower_append(Arena *, void *array, int *n, size_t size);
/* A template's text from the target's folder. */
const char *template_text(const Lowering *, const char *template);
/* The kernel of the text `front` before the text `template`, which calls its function KERNEL; added
 * where the target has none yet. The header tells what it computes, at the first places that need
 * it. */
int add_kernel(Lowering *, const char *stem, const char *front, const char *template,
               const char *header);
/* A step of a group, or of none. */
PlanStep *add_step(Lowering *, int kernel, const Group *);
void fill_step(Lowering *, PlanStep *, const PlanBuffer *buffers, int n_buffers,
               const int64_t *sizes, int n_sizes, const double *scalars, int n_scalars);
void *copied(Lowering *, const void *data, size_t bytes);

/* ---- what is said of a group ----------------------------------------------------------------- */

bool is_conv(const Node *anchor);
ConvShape conv_shape(const Node *anchor);
/* "conv encoder.1.0 64->128 @128x128" */
char *label_of(const Graph *, const Group *, const char *what);
/* Of a sample, where the group has anything of a sample. */
double group_flops(const Group *);
/* The graph lines that a group implements. */
const char *header_of(const Graph *, const Group *);
/* Names of the operands in ops.def's column: the i-th word, without brackets and dots. */
const char *operand_name(Arena *, const Node *anchor, int index);
/* Rows of partial sums that a reduction needs; the reductions of a group, its anchor's included. */
int partial_rows(const Node *reduction);
int group_reductions(const Group *, Node *const **list);
PlanBuffer temporary_buffer(const Temporary *);

/* ---- lower_call.c: which template, and what is its own --------------------------------------- */

enum { MAX_OWN_SIZES = 48, MAX_OWN_SCALARS = 8, MAX_OWN_BUFFERS = 24 };

/* One call of a template, before its rows are generated. */
typedef struct {
    const char *template;       /* "max_pool.c" */
    const char *defines;        /* lines before it, or "" */
    int64_t sizes[MAX_OWN_SIZES]; int n_sizes;
    double scalars[MAX_OWN_SCALARS]; int n_scalars;
    PlanBuffer buffers[MAX_OWN_BUFFERS]; int n_buffers;
    int64_t parts;              /* of partial sums, a sample; set by the target */
    bool writes;                /* has write_y */
} Call;
/* Of a group outside the conv family; behind its operands' sizes it leaves room for `reserved` sizes
 * that the target's templates have of their own. */
void describe_call(const Graph *, const Group *, int reserved, Call *);
/* Of the kernel that adds up partial sums. */
void describe_finish(const Graph *, const Node *reduction, int64_t parts, PlanBuffer partials,
                     Call *);
char *finish_label(const Graph *, const Node *reduction);
void partial_temporaries(Group *, int64_t parts);
Emission begin_emission(Lowering *, Group *, const Call *, const struct Dialect *);
/* Arguments, label and work of a group's step. */
void fill_call_step(Lowering *, PlanStep *, const Emission *);
int64_t padded_channels(int64_t channels);   /* to PLAN_BLOCK */

/* ---- lower_update.c: what follows the gradients ------------------------------------------------ */

enum { NORM_CHUNK = 8192 };     /* floats in a partial sum of the gradients' norm */

typedef struct {
    int64_t bytes;              /* of the trained parameters; 0: nothing to do */
    PlanBuffer parameters, gradients, first, second, state;
    PlanBuffer sums, partials, all, average;
} UpdatePlaces;
/* Makes room for the partial sums behind the program's fixed data: to be called once. */
UpdatePlaces update_places(Lowering *);
/* Number of the state's blend that a part is, and its two slabs; -1: it is none. */
int blend_of(const UpdatePlaces *, PlanPart, PlanBuffer *y, PlanBuffer *x);
const char *part_label(PlanPart);

/* ---- lower_host.c lower_cuda.c --------------------------------------------------------------- */

char *host_prelude(const Target *, Arena *);
void host_temporaries(Graph *, Group *);
void host_lower(Graph *, Plan *, PlanTarget *);
char *cuda_prelude(const Target *, Arena *);
void cuda_temporaries(Graph *, Group *);
void cuda_lower(Graph *, Plan *, PlanTarget *);

#endif
