/* Weights for what the compiler writes with weights inside: ONNX files (onnx/export.c) and plain C
 * (export_c.c).
 */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include "../runtime/files.h"
#include "seg.h"

/* The slab of parameters as the plan places it, filled from a safetensors file, strictly by name,
 * with zeros up to the next multiple of PLAN_ALIGN. NULL after an error. Free with free(). */
char *read_weights(Compilation *, const Plan *, const char *path);
/* What the functions of files.h could not do. Gives false. */
bool report_error(Compilation *, const Error *);

#endif
