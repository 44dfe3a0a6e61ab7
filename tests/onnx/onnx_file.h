/* Small ONNX files for tests: made in an arena, changed at will, then packed. */
#ifndef ONNX_FILE_H
#define ONNX_FILE_H

#include "compiler/onnx/import.h"

typedef struct {
    Arena *arena;
    Onnx__ModelProto model;
    Onnx__GraphProto graph;
} OnnxFile;

/* Empty, opset 17, room for 64 of everything. */
OnnxFile *onnx_file_open(void);
void onnx_file_close(OnnxFile *);
void *onnx_file_bytes(OnnxFile *, size_t *size);     /* free() it */
/* A list that ends with NULL. */
Onnx__NodeProto *onnx_node(OnnxFile *, const char *op, const char *name, const char *output,
                           const char *const *inputs);
void onnx_int(OnnxFile *, Onnx__NodeProto *, const char *name, int64_t value);
void onnx_ints(OnnxFile *, Onnx__NodeProto *, const char *name, int n, const int64_t *values);
void onnx_float(OnnxFile *, Onnx__NodeProto *, const char *name, float value);
void onnx_text(OnnxFile *, Onnx__NodeProto *, const char *name, const char *value);
/* 0.1, 0.2, ... 0.7, again and again. */
Onnx__TensorProto *onnx_weights(OnnxFile *, const char *name, int rank, const int64_t *dims);
Onnx__TensorProto *onnx_integers(OnnxFile *, const char *name, int64_t n, const int64_t *values);
Onnx__ValueInfoProto *onnx_value(OnnxFile *, const char *name, int type, int rank,
                                 const int64_t *dims);  /* 0: left open, and called N */
void onnx_input(OnnxFile *, const char *name, int64_t c, int64_t h, int64_t w);
void onnx_output(OnnxFile *, const char *name);
/* image [N,3,16,16] -> conv 3x3 (stem.weight, stem.bias) -> relu -> mask_logits */
OnnxFile *onnx_small(void);

#endif
