/* How the CUDA templates outside the conv family are launched. lower_small_cuda.c */
#ifndef LOWER_SMALL_CUDA_H
#define LOWER_SMALL_CUDA_H

#include "lower_conv_cuda.h"

/* sizes: C H W of the first batched operand, K P Q of the result, room for three more, then the
 * attributes; fills in SIZE_PARTS, SIZE_PIXELS and SIZE_LANES. `batched`: the result is; if not, one
 * sample is done. Templates that follow no standard walk (finish_*, the small operators, adam) get
 * only their own sizes. */
void lower_small_cuda(const char *template, int64_t *sizes, int n_sizes, bool batched,
                      CudaLaunch *launch);

#endif
