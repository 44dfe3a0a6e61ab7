/* How the CUDA templates outside the conv family are launched. lower_small_cuda.c */
#ifndef LOWER_SMALL_CUDA_H
#define LOWER_SMALL_CUDA_H

#include "lower_conv_cuda.h"

enum { UPDATE_THREADS = 256 };  /* of what follows the gradients */

/* sizes: C H W of the first batched operand, K P Q of the result, room for three more, then the
 * attributes; fills in SIZE_PARTS, SIZE_PIXELS and SIZE_LANES. `batched`: what K P Q describe is; if
 * not, one sample is done. Templates that follow no standard walk (finish_*, the small operators)
 * get only their own sizes; of what follows
 * the gradients the blocks are not told.
 *
 * Reductions of a large sample are two launches of one text with the same arguments: `first` stores
 * what parts of a sample give in a workspace, which is own buffer 0 of both, `launch` goes on from
 * there. Gives the bytes a sample of that workspace; 0: `launch` does all, without a workspace.
 * first may be NULL for templates that are no such reductions. */
int64_t lower_small_cuda(const char *template, int64_t *sizes, int n_sizes, bool batched,
                         CudaLaunch *launch, CudaLaunch *first);

#endif
