/* What the files of `segc import` share. In the order a file goes through them:
 *
 *   import.c      the command line; bytes -> messages; the two files that are written
 *   read.c        initializers, inputs and outputs: names -> Values, everything checked
 *   fold.c        nodes on constants: what exporters leave behind (Shape, Gather, Concat, ...)
 *   lines.c       what nodes give: Values and Lines; the inputs' lines
 *   translate.c   the other nodes -> Lines of a model: arithmetic, activations, shapes
 *   layers.c      ... convolutions, pools, what has weights or windows
 *   sizes.c       ... what moves pixels
 *   names.c       names of values and nodes -> variables and layers
 *   text.c        Lines -> the text of a .seg file: what is read, layers that share weights
 *
 * A Value is a constant, or a tensor [N,C,H,W] with N left open. Tensors may be seen as [N, C*H*W]
 * too (`flat`), which the language has no word for but linear, and as [N, C, H*W] (`rows`), which can
 * only be reduced. The first error ends the import.
 */
#ifndef IMPORT_H
#define IMPORT_H

#include "../../runtime/files.h"
#include "../seg.h"
#include "onnx.pb-c.h"

enum { MAX_RANK = 8, MAX_LINES = 990 };
#define FLOAT_TYPE ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT
#define INT64_TYPE ONNX__TENSOR_PROTO__DATA_TYPE__INT64
#define UINT8_TYPE ONNX__TENSOR_PROTO__DATA_TYPE__UINT8

/* A hash table by interned name. */
typedef struct {
    Arena *arena;
    const char **keys;
    void **values;
    size_t count, capacity;
} Table;
void *table_get(const Table *, const char *key);       /* NULL: not there */
void table_put(Table *, const char *key, void *value);

typedef struct {
    int type;                /* of TensorProto.DataType */
    int rank;
    int64_t dims[MAX_RANK];
    int64_t count;
    const void *data;        /* little-endian, perhaps not aligned: as in the file; or NULL */
    double *numbers;         /* else, or once they were asked for; NAN in integers: the batch N */
    const char *name;        /* of the initializer; "" */
    struct Line *user;       /* the first layer with these weights */
} Constant;

/* How a tensor was made, for patterns of several nodes that are one operator of the language. */
typedef enum {
    MADE_OTHERWISE,
    MADE_SIGMOID,            /* sigmoid(of) */
    MADE_SOFTMAX,            /* softmax(of) */
    MADE_SCALED,             /* of * number */
    MADE_ERF,                /* erf(of / sqrt 2) */
    MADE_ERF_AND_1,          /* 1 + that */
    MADE_TWICE_GELU,         /* of * that */
    MADE_CENTRED,            /* of - centre, a number a channel */
    MADE_CUT,                /* of, without `cut` pixels above and left */
} Made;

typedef struct Value {
    const char *name;        /* in the ONNX file; interned */
    int uses;                /* nodes and outputs that read it */
    bool known;              /* a node before made it, or it is an input or initializer */
    Constant *constant;      /* NULL: a tensor */
    struct Line *line;       /* that makes it; NULL: an input */
    const char *variable;    /* its name in the model */
    int64_t dims[3];         /* C H W */
    bool flat;               /* seen as [N, C*H*W] */
    bool half;               /* flat, but seen as [N, C, 1]: on the way from one to the other */
    bool rows;               /* seen as [N, C, H*W] */
    bool bytes;              /* u8 */
    Made made;
    const struct Value *of;
    double number;
    int64_t cut[2];
    const double *centre;
    const char *output_name; /* in the model, of an output */
} Value;

typedef struct { const char *suffix; int rank; int64_t dims[4]; const float *floats; } Weight;

/* One statement of the model. */
typedef struct Line {
    const char *variable;
    const char *text;        /* the expression; of a layer with weights: its arguments behind x */
    const char *problem;     /* why the language cannot say it: an error if anything reads it */
    const char *layer;       /* conv, batch_norm, ...; NULL: no weights */
    const char *operand;     /* of a layer */
    const char *instance;    /* of a layer: its name */
    bool takes_bias;         /* a layer that has none yet */
    bool late_bias;          /* ... and then got one from an Add */
    const Constant *key_bias; /* the bias that its node has */
    Value *value;            /* the node's own result */
    Weight weights[4]; int n_weights;
    struct Line **reads; int n_reads;
    struct Line *shared;     /* the next layer with the same weights: one statement for all */
    struct Line *leader;     /* the first of those */
    const int64_t *dims;     /* C H W */
    bool live, printed, open, is_output;
    bool is_input, bytes;    /* an input's declaration; of bytes */
} Line;

typedef struct {
    const char *path;        /* of the ONNX file */
    const char *weights;     /* of the safetensors file, for the text's head */
    int64_t height, width;   /* 0: as in the file */
    bool float_input;        /* inputs stay floats */
    bool as_is;              /* no sigmoid, loss and metric are added */
    int n_mean; double mean[16], deviation[16];
} ImportOptions;

typedef struct Import {
    const ImportOptions *options;
    Arena *arena;
    Error *error;
    bool failed;
    const Onnx__GraphProto *graph;
    int64_t opset;
    const Onnx__NodeProto *node; /* being looked at; NULL: none */
    size_t node_index;
    Table values;            /* const char * -> Value * */
    Table names;             /* variables in use -> themselves */
    Table instances;         /* names of layers in use -> themselves */
    Line **lines; int n_lines, lines_capacity;
    Value **inputs; int n_inputs;
    Value **outputs; int n_outputs;
    int64_t folded;          /* numbers made so far */
    struct { const char *name; char *bytes; size_t size; } files[16]; /* external data */
    int n_files;
} Import;

/* import.c: an error at the node being looked at, or of the file. Always false. */
bool import_fail(Import *, const char *hint, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The language cannot do that. */
bool import_lacks(Import *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* read.c */
bool read_graph(Import *);
Constant *read_tensor(Import *, const Onnx__TensorProto *);    /* NULL after an error */
/* Its numbers; NULL after an error. Floats: of a layer's weights. */
double *constant_numbers(Import *, Constant *);
const float *constant_floats(Import *, Constant *);
bool constant_is_integer(const Constant *);

/* Attributes of the node being looked at, checked for their type. */
int64_t attribute_int(Import *, const char *name, int64_t missing);
double attribute_float(Import *, const char *name, double missing);
/* Up to `most`; gives how many, 0 if it is not there. */
int attribute_ints(Import *, const char *name, int64_t *values, int most);
bool attribute_is(Import *, const char *name, const char *text, bool missing);
const Onnx__AttributeProto *find_attribute(Import *, const char *name);
/* An operand of the node being looked at; NULL: left out, or after an error. */
Value *operand(Import *, size_t index);
/* An operand that must be a constant with up to `most` numbers; how many, -1 after an error, and 0
 * where it is left out. */
int operand_numbers(Import *, size_t index, double *numbers, int most);
Constant *new_constant(Import *, int type, int rank, const int64_t *dims);

/* fold.c: is every operand a constant, or does the node ask for a size only? */
bool is_foldable(Import *);
bool fold_node(Import *);

/* translate.c */
bool translate_node(Import *);

/* lines.c */
Value *result(Import *);                        /* of the node being looked at */
Value *result_again(Import *);                  /* the one that there is now */
bool give_alias(Import *, const Value *, bool flat);
/* A new line for the node's result, reading these. */
Line *give_line(Import *, const int64_t dims[3], int n_reads, Value *const *reads,
                const char *format, ...) __attribute__((format(printf, 5, 6)));
Value *need_tensor(Import *, size_t index);     /* as floats, [N,C,H,W] */
Value *any_tensor(Import *, size_t index);      /* perhaps bytes, perhaps another view */
bool add_inputs(Import *);                      /* their lines, and what makes pictures of them */

/* names.c: new ones, that nothing else has */
const char *new_variable(Import *, const char *onnx_name, const char *op);
const char *number_text(Import *, double);
const char *new_instance(Import *, const char *wanted);
/* An identifier, or a layer's dotted name, out of a path as exporters write them. */
const char *plain_path(Import *, const char *onnx_name, const char *op, bool dotted);

/* sizes.c */
bool translate_size(Import *, const char *op, bool *known);

/* layers.c */
bool translate_layer(Import *, const char *op, bool *known);
bool give_affine(Import *, Value *x, const Constant *scale, const Constant *shift);
/* Makes the line normalize(x, mean, 1 / scale), lists of a number a channel, called like the module of
 * a constant of this name. */
bool fill_normalize(Import *, Line *, const Value *x, const double *mean, const double *scale,
                    const char *constant);
bool add_bias(Import *, Value *x, Constant *bias);

/* import.c: the whole, for tests: a text and weights, which hold as long as the message and the arena.
 * Free the message. */
bool import_onnx(Arena *, const ImportOptions *, const void *bytes, size_t, const char **text,
                 SafeTensors *weights, Onnx__ModelProto **message, Error *);

/* text.c */
char *model_text(Import *);                     /* NULL after an error */

#endif
