/* Between lower_cuda.c and lower_matmul.c: steps that launch CUDA templates. */
#ifndef LOWER_CUDA_H
#define LOWER_CUDA_H

#include "lower.h"
#include "lower_conv_cuda.h"

/* Sizes that CUDA templates have of their own, behind C H W and K P Q: parts, pixels, lanes. */
enum { RESERVED_CUDA_SIZES = 3 };

/* A step that runs a template behind the emission's text, in any of the ways that are given. */
PlanStep *add_launches(Lowering *, const Emission *, const char *template,
                       const CudaLaunch *launches, int n_launches, const char *header);
/* One that has no generated functions. */
PlanStep *add_plain(Lowering *, const Call *, const CudaLaunch *);

/* Template, sizes and launches of a contraction of the conv family. */
void describe_conv_cuda(const Graph *, const Node *anchor, ConvCudaLowering *);

/* ---- lower_update_cuda.c: what follows the gradients ----------------------------------------- */

/* Whether the optimiser writes this group's packed weights, so that they are packed only once. */
bool update_packs(const Graph *, const Group *);
void lower_update_cuda(Lowering *);

/* ---- lower_matmul.c: --gemm cublas ----------------------------------------------------------- */

/* Whether a contraction is lowered to columns and a product of matrices. */
bool is_matmul(const Graph *, const Group *);
void matmul_temporaries(const Graph *, Group *);
void lower_matmul(Lowering *, Group *);

#endif
