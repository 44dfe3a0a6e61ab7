/* The compiler, from text to plan: one section per .c file, in the order a model goes through them.
 *
 *   grammar/seg.l seg.y   text  -> Tree
 *   build infer           Tree  -> Graph of the model (the only stages with user errors)
 *   specialise            Graph -> one Graph per program (train, evaluate, predict)
 *   differentiate simplify
 *   fuse order place      groups of nodes, their order, where each tensor lies
 *   lower emit            groups -> steps and kernel sources of a Plan (runtime/plan.h)
 *   write                 Plan -> file
 *   format                text -> text in the one style
 *
 * Everything is allocated from one Arena per compilation and freed with it. Names are interned:
 * equal names are equal pointers. Dimension letters: N C H W activations, K R S filters
 * (output channels, height, width), P Q output height and width.
 */
#ifndef SEG_H
#define SEG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "../runtime/plan.h"

#define SEGC_VERSION "0.1"

/* ---- arena.c --------------------------------------------------------------------------------- */

typedef struct Arena Arena;
Arena *arena_open(void);
void arena_close(Arena *);
void *arena_alloc(Arena *, size_t bytes);     /* zero-filled, 16-byte aligned; never NULL */
void *arena_grow(Arena *, void *old, size_t old_bytes, size_t new_bytes); /* keeps the contents */
const char *arena_printf(Arena *, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *intern(Arena *, const char *text, size_t length);

/* A text that grows. */
typedef struct {
    Arena *arena;
    char *text;      /* always NUL-terminated once anything was written */
    size_t length;
    size_t capacity;
} Text;
void text_printf(Text *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_append(Text *, const char *bytes, size_t length);

/* ---- diagnose.c ------------------------------------------------------------------------------ */

typedef struct {
    const char *name;   /* as the user gave it */
    const char *text;   /* NUL-terminated */
    size_t length;
} SourceFile;

typedef struct {
    const SourceFile *file; /* NULL: no place */
    uint32_t begin, end;    /* byte offsets into file->text; end is behind the last byte */
} Loc;

/* What one run of the compiler works with. */
typedef struct Compilation Compilation;
typedef struct { const char *name, *value; } Define;      /* -D name=value */

struct Compilation {
    Arena *arena;
    const char *path;             /* of the model's file */
    const SourceFile *source;
    Define *defines; int n_defines;
    const char **include_dirs; int n_include_dirs;
    const char *precision;        /* of the CUDA targets, a comma list: "fp32,tf32,bf16" */
    const char *targets;          /* a comma list: "host,cuda" */
    const char *no_fuse;          /* NULL: fuse all; "": nothing; else not those of a comma list */
    const char *freeze;           /* NULL, or patterns of parameters' names with commas */
    int way;                      /* --way: a ConvWay of lower_conv.h */
    const char *tuned_path;       /* --tuned: what segrun tune wrote; or NULL */
    struct Tuned *tuned;          /* of tuned.c */
    bool warp_groups;             /* --warp-groups: candidates of sm_90a's wgmma, for segrun tune */
    bool gemm;                    /* --gemm cublas: convolutions on CUDA by im2col and cuBLAS */
    bool input_gradients;         /* train also gives the gradient of every f32 input (tests) */
    bool json;                    /* --diagnostics=json */
    int errors;                   /* user errors so far */
    bool environment;             /* error_system was called: exit code 3 */
    struct Diagnostics *diagnostics; /* of diagnose.c: what was said already */
    struct Tree *trees;           /* every file read so far, the model's own first */
    FILE *messages;               /* stderr, or a memory stream in tests */
    const char *stop_after;       /* pass, or NULL */
    const char *dump_dir;         /* or NULL */
    bool explain;                 /* print_explain for every program */
    bool verbose;
    const char *saved;            /* set by compile(): a line a program, what planning saved */
};

/* A user error with its source line and caret. note_at adds to the last error. After 20 errors the
 * rest are counted, not printed; an error of one kind (format) at one place is said once, because
 * loops and blocks come by many times. */
void error_at(Compilation *, Loc, const char *format, ...) __attribute__((format(printf, 3, 4)));
void note_at(Compilation *, Loc, const char *format, ...) __attribute__((format(printf, 3, 4)));
void warn_at(Compilation *, Loc, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* As error_at with further spans marked in the same line by ~~~. */
void error_spans(Compilation *, Loc, const Loc *more, int n_more, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* An error of the environment: a line and a `hint:` line. */
void error_system(Compilation *, const char *hint, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* An error of ours: prints and aborts. */
_Noreturn void bug(const char *format, ...) __attribute__((format(printf, 1, 2)));
int loc_line(Loc), loc_column(Loc);                     /* from 1 */
/* Length of the well-formed UTF-8 sequence at text[i], or 0. */
int utf8_length(const char *text, size_t i, size_t length);

/* ---- graph.c --------------------------------------------------------------------------------- */

typedef enum {
#define OP(ID, ...) OP_##ID,
#include "ops.def"
#undef OP
    OP_COUNT
} Op;

typedef enum {
#define ATTR(ID, ...) ATTR_##ID,
#include "attributes.def"
#undef ATTR
    ATTR_COUNT
} Attribute;

typedef enum {
    KIND_SOURCE,
    KIND_CONTRACTION, /* products summed over channels and a window: the anchors of fusion */
    KIND_NORMALISE,   /* batch_norm before specialise */
    KIND_POINTWISE,   /* every element of the result from the elements at the same place */
    KIND_CHANNEL,     /* needs a whole pixel or a whole map for each element */
    KIND_REDUCE,
    KIND_WINDOW,
    KIND_MOVE,
    KIND_SMALL,       /* fixed tensors only: some numbers a channel */
    KIND_LOSS, KIND_METRIC, /* before specialise */
} OpKind;

typedef enum { ATTR_INT, ATTR_FLOAT, ATTR_BOOL, ATTR_MODE_NAME } AttributeType;
enum { MODE_NEAREST, MODE_BILINEAR };
enum { AXIS_BATCH = 1, AXIS_CHANNELS = 2, AXIS_PIXELS = 4, AXIS_ALL = 7 };

typedef struct {
    const char *name, *tensors, *operands, *attributes, *text; /* the columns of ops.def */
    OpKind kind;
} OpFacts;
extern const OpFacts op_facts[OP_COUNT];
typedef struct { const char *name; AttributeType type; } AttributeFacts;
extern const AttributeFacts attribute_facts[ATTR_COUNT];
bool op_has_attribute(Op, Attribute);
/* Default of an attribute; false where it must be given. `stride=kernel` is resolved by build. */
bool op_attribute_default(Op, Attribute, double *value, Attribute *same_as);

typedef enum { TYPE_F32, TYPE_U8, TYPE_BF16 } Type; /* BF16: in memory only */

/* Activations: batched, dims = C,H,W, rank 3. Fixed tensors: parameters in PyTorch's shapes
 * (rank 1, 2 or 4), coefficients [rows,C], scalars and other broadcastable fixed values [1,1,1]. */
typedef struct {
    bool batched;
    int rank;
    int64_t dims[4];
} Shape;
int64_t shape_count(Shape);            /* elements, of one sample where batched */
bool shape_equal(Shape, Shape);
Shape shape_sample(int64_t c, int64_t h, int64_t w);  /* batched C,H,W */
Shape shape_fixed(int rank, const int64_t *dims);

typedef enum { INIT_NONE, INIT_KAIMING_UNIFORM, INIT_UNIFORM, INIT_CONSTANT, INIT_VALUES } Init;

typedef struct Node Node;
typedef struct Group Group;
struct Node {
    int id;               /* printed as %id; unique in its graph, in topological order */
    Op op;
    Type type;
    Shape shape;
    Loc loc;
    Node **inputs;
    int n_inputs;
    double attr[ATTR_COUNT];
    const char *name;     /* of sources and of values the model names; else NULL; interned */
    Init init;            /* of a PARAMETER or BUFFER */
    double init_value;    /* the constant; or the fan-in for the two uniform kinds */
    double *init_values;  /* of INIT_VALUES: as many as the shape has elements */
    Node *like;           /* in a copied graph: the node it was copied from (graph_copy) */
    /* fuse */
    bool stored;          /* has memory; else every reader computes it again */
    Group *group;         /* that computes it; NULL for sources and inlined nodes */
    int uses;             /* graph_count_uses */
    /* place */
    int block;            /* layout: channels in blocks of so many; 0: plain [C,H,W] */
    Type element;         /* as it lies in memory */
    Slab slab;
    int64_t offset;       /* bytes; times N in SLAB_ACTIVATIONS */
};

typedef struct {
    PlanRole role;        /* OUTPUT LOSS METRIC GRADIENT UPDATE */
    const char *name;     /* GRADIENT: of its parameter or input; UPDATE: of its buffer */
    Node *node;
} Result;

typedef enum { PROGRAM_MODEL = -1, PROGRAM_TRAIN, PROGRAM_EVALUATE, PROGRAM_PREDICT } Program;

typedef struct Graph {
    Compilation *compilation;
    const struct Target *target;           /* from fuse on */
    Arena *arena;
    const char *name;     /* of the model */
    Program program;
    Node **nodes; int n_nodes, capacity;   /* topological order */
    Result *results; int n_results;
    int next_id;
    /* fuse, order */
    Group **groups; int n_groups;          /* in the order they run */
    /* place: what `segc` prints */
    int64_t activation_bytes;              /* a sample, after planning */
    int64_t activation_bytes_unshared;     /* a sample, if no two tensors shared memory */
    int64_t fixed_bytes;
} Graph;

Graph *graph_new(Compilation *, const char *name, Program);
/* Appends; attributes zero, shape unset. */
Node *graph_add(Graph *, Op, Loc, int n_inputs, Node *const *inputs);
void graph_result(Graph *, PlanRole, const char *name, Node *);
Graph *graph_copy(const Graph *, Program);      /* node->like points to the original */
void graph_replace(Graph *, Node *old, Node *new); /* in all inputs and results */
/* Topological order, stable; dead nodes are removed, the others renumbered. */
void graph_sort(Graph *);
void graph_count_uses(Graph *);                 /* node->uses: readers plus results */
void graph_print(const Graph *, FILE *);        /* the text form: a node a line */
void graph_dot(const Graph *, FILE *);
const char *node_text(const Graph *, const Node *); /* that line, from the graph's arena */
void verify(Graph *);                           /* calls bug() with the node that is wrong */

/* ---- grammar/seg.y --------------------------------------------------------------------------- */

#include "tree.h"
/* Parses a file (once; later calls give the same tree). NULL after errors. */
struct Tree *parse(Compilation *, const char *path, Loc used_at);
/* One text alone, without the files that it uses. NULL after errors. */
struct Tree *parse_alone(Compilation *, const SourceFile *);
/* Reads a file of at most 1 MiB; false after error_system. */
bool read_source(Compilation *, const char *path, SourceFile *);

/* ---- format.c -------------------------------------------------------------------------------- */

/* The text in the one style, or NULL after errors. */
const char *format_text(Compilation *, const SourceFile *, size_t *length);
int format_command(int argc, char **argv);   /* segc fmt: its exit code */

/* ---- build.c infer.c ------------------------------------------------------------------------- */

/* The model's graph from its tree: evaluates params, blocks, loops; names every parameter. */
Graph *build(Compilation *, struct Tree *);
/* Needs: the graph as built. Gives every node its shape and type once more, and checks them. */
void infer(Graph *);
/* For build, before a call becomes a node: `call` is a node outside any graph with op, attributes
 * and the tensors that the model wrote. Checks them (user errors, then false), gives call->shape and
 * type, and the shape of the weight if the operator has one. arguments: where the tensors stand. */
bool infer_call(Compilation *, Node *call, const Loc *arguments, Shape *weight);
/* Shape and type of one node from its operands' (for passes that add nodes; calls bug() if it
 * cannot be). Gradient operators whose result's shape is not implied are given node->shape
 * first. */
void infer_node(Graph *, Node *);

/* ---- specialise.c differentiate.c simplify.c ------------------------------------------------- */

/* A program's own graph. TRAIN: batch statistics, dropout, losses and metrics as plain operators.
 * EVALUATE: running statistics, no dropout. PREDICT: also without targets, losses and metrics. */
Graph *specialise(const Graph *model, Program);
/* Needs TRAIN after specialise and simplify. Adds the gradients of the sum of all losses. */
void differentiate(Graph *);
/* Dead nodes, common subexpressions, x*1, x+0, sigmoid + cross entropy from the logits; in PREDICT
 * batch norm into the convolution before it. */
void simplify(Graph *);

/* ---- fuse.c order.c place.c ------------------------------------------------------------------ */

/* Memory that a group's steps need besides the tensors: packed weights, partial sums. */
typedef struct {
    int64_t bytes;         /* of one sample where batched; 0: not needed */
    bool batched;          /* in SLAB_ACTIVATIONS, else SLAB_FIXED */
    int64_t offset;        /* set by place */
} Temporary;
enum {
    TEMPORARY_PACKED, TEMPORARY_WORKSPACE, TEMPORARY_SAMPLES,
    TEMPORARY_PARTIALS,    /* from here one a reduction */
    MAX_TEMPORARIES = 12
};

/* One kernel call (and what belongs to it): an anchor, the pointwise nodes its operands are read
 * through (inlined), the pointwise nodes that follow it (epilogue), and reductions of its root. */
struct Group {
    int id;
    Node *anchor;          /* the node with the loops; a pointwise node for an elementwise group */
    Node *root;            /* the node whose value is stored; anchor, or the end of its epilogue */
    Node **reductions; int n_reductions; /* sums over the batch of root, done with it */
    bool once;             /* depends on parameters only: runs when they changed */
    int branches;          /* of its text, at most: see fuse */
    int last;              /* id of its last member */
    const char *reason;    /* why nothing more was fused, for --explain; may be NULL */
    Temporary temporaries[MAX_TEMPORARIES];
};
enum { MAX_REDUCTIONS = MAX_TEMPORARIES - TEMPORARY_PARTIALS };

/* Pointwise operators, and concat and slice where they keep to whole blocks of channels: they can
 * be computed for a row of one block from the same row of their operands. */
bool node_pointwise(const Node *);
/* REDUCE over the batch: needs partial sums and a finishing step. */
bool node_reduces_batch(const Node *);
/* Calls visit for every stored node the group reads, once or more. */
void group_visit_leaves(const Group *, void (*visit)(void *context, Node *leaf), void *context);
const char *group_part(const Group *, const Node *member); /* what it is there, in words */
/* What --no-fuse can switch off one by one. */
typedef struct { const char *name, *text; } FusionFacts;
extern const FusionFacts fusions[];
extern const int n_fusions;
bool fusion_on(const Compilation *, const char *fusion);
void fuse(Graph *);
void order(Graph *);
void place(Graph *);
int64_t node_bytes(const Node *);     /* as stored; of one sample where batched */
/* Offsets of parameters and buffers, from the model's graph before it is specialised. */
void place_parameters(Graph *model, Plan *);

/* ---- lower.c lower_host.c lower_cuda.c ------------------------------------------------------- */

/* What place and lower must know of the machine that a plan is for. */
typedef struct Target {
    const char *name;      /* of its PlanTarget: "host", "cuda-bf16" */
    int block;             /* channels in a block of a blocked tensor, and in a generated vector */
    Type stored;           /* of the elements of blocked tensors */
    bool keeps_packed;     /* packed weights stay through training: the update packs them again */
    bool pools;            /* kernels can pool a channel's pixels on the way, in partial sums */
    const char *folder, *extension; /* of its templates in compiler/kernels */
    char *(*prelude)(const struct Target *, Arena *);
    /* Fills group->temporaries: called by place. */
    void (*temporaries)(Graph *, Group *);
    /* The steps of one program, added to the plan's target with the kernels they call. */
    void (*lower)(Graph *, Plan *, PlanTarget *);
} Target;
extern const Target targets[];
extern const int n_targets;

/* ---- tuned.c --------------------------------------------------------------------------------- */

/* Reads compilation->tuned_path; false after errors. */
bool tuned_read(Compilation *);
/* The way of a convolution's group on the host: by that file, else by --way. */
int tuned_way(const Graph *, const Group *);
void tuned_warn(Compilation *);       /* when all is lowered: of lines that nothing went by */

/* ---- emit.c emit_value.c emit_host.c emit_cuda.c write.c ------------------------------------- */

/* A kernel's text: the generated row functions around a template. emit.c */
typedef struct {
    Graph *graph;
    Group *group;
    Text text;             /* the functions */
    Text name;             /* grows into the kernel's name */
    PlanBuffer *buffers; int n_buffers;
    int64_t *sizes; int n_sizes;
    double *scalars; int n_scalars;
    int64_t parts;         /* a sample, of partial sums */
    const struct Dialect *dialect;
    bool reads;            /* a read function is being written */
    int words;             /* CUDA: 16-byte words that a call of it loads */
    bool dense_x, dense_y; /* host: rows of the operands, or the result, are of one channel */
} Emission;
/* Whether rows of an operand, or of the result, can be [count] of one channel, which `cb` is then,
 * where the template takes such rows: of planes, and of what is computed from maps of one channel. */
bool host_reads_dense(const Group *, const Node *operand);
bool host_writes_dense(const Group *);
/* read_<operand>; write_y and finish_y, with a buffer of partial sums for each reduction. */
void emit_host_read(Emission *, const char *operand, Node *);
void emit_host_write(Emission *, const PlanBuffer *partials);
void emit_cuda_read(Emission *, const char *operand, Node *);
void emit_cuda_write(Emission *, const PlanBuffer *partials);
/* `@` in the text becomes the number of channels in a vector. */
void emit_width(Emission *);
PlanBuffer node_buffer(const Node *);
/* These two write atomically (runtime/files.h); false after error_system. */
bool write_plan(Compilation *, const Plan *, const char *path);
bool write_file(Compilation *, const char *path, const void *bytes, size_t size);
void *plan_bytes_make(const Plan *, size_t *size);   /* what it writes; free with free() */

/* ---- summary.c ------------------------------------------------------------------------------- */

void print_summary(const Graph *model, int batch, FILE *);
void print_explain(const Graph *program, FILE *);
void print_ops(FILE *);                        /* docs/language.md's operator reference */

/* ---- onnx/ ----------------------------------------------------------------------------------- */

/* `segc --export`: the program predict with its weights as an ONNX file, written atomically. False
 * after an error. export.c */
bool export_onnx(Compilation *, Graph *model, const char *weights, const char *path);
/* `segc import MODEL.onnx`: the command line behind "segc"; gives the exit code. import.c */
int import_command(int argc, char **argv);

/* ---- compile.c ------------------------------------------------------------------------------- */

/* The whole pipeline: one table of passes, one loop that runs, verifies, times and dumps them.
 * Gives NULL after user errors, or when stop_after ended it. */
Plan *compile(Compilation *);
/* The model's file, and those that it uses behind it. */
char *sources_text(const Compilation *);

#endif
