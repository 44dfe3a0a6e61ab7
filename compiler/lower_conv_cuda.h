/* How a convolution's CUDA kernels are launched: template, tiles, grid and memory from its shape.
 *
 * The decisions are made here, in plain numbers; the templates (kernels/cuda/conv*.cu) only follow
 * them. Candidates (`launches`) differ in the tiles that their defines set, not in sizes, parts or
 * memory, so that the runtime may take any of them.
 */
#ifndef LOWER_CONV_CUDA_H
#define LOWER_CONV_CUDA_H

#include "lower_conv.h"

typedef enum { CUDA_FP32, CUDA_TF32, CUDA_BF16 } CudaPrecision;

/* A way to launch a template. */
typedef struct {
    const char *defines;             /* "#define THREADS 256\n#define TILE_K 64\n": static text */
    int threads;
    int64_t blocks, blocks_per_sample;
    int64_t shared_bytes;
    int64_t merge_offset;            /* where in them, or behind them, finish_block merges sums */
} CudaLaunch;

enum { MAX_CUDA_LAUNCHES = 8 };

/* Sizes of conv_pack.cu. */
enum { PACK_C, PACK_K, PACK_KERNEL, PACK_TRANSPOSED, PACK_FEW_INPUTS, PACK_STEPS };

typedef struct {
    const char *template;            /* "conv.cu", in kernels/cuda */
    int n_sizes;
    int64_t sizes[CONV_SIZES];       /* the template's own, in its order */
    int64_t parts;                   /* of partial sums, a sample */
    int n_launches;
    CudaLaunch launches[MAX_CUDA_LAUNCHES];   /* the first is the default */
    /* Forward and input gradient; own buffer 0 is the packed weights. conv_pack.cu: own buffers
     * weights (OIHW floats), packed weights. */
    int64_t packed_bytes;            /* 0: the template reads the weights as they are, own buffer 0 */
    int n_pack_sizes;
    int64_t pack_sizes[CONV_SIZES];
    CudaLaunch pack;
    /* Weight gradient; own buffers: the workspace, where workspace_bytes is not 0, else the result
     * (OIHW floats). The finishing kernel's own buffers: workspace, result. */
    int64_t workspace_bytes;         /* fixed */
    const char *finish_template;     /* NULL where workspace_bytes is 0 */
    int n_finish_sizes;
    int64_t finish_sizes[CONV_SIZES];
    CudaLaunch finish;
} ConvCudaLowering;

/* Forward, transposed and input gradient; warp_groups: with launches of wgmma. lower_conv_cuda.c */
void lower_conv_cuda(const ConvShape *, CudaPrecision, bool warp_groups, ConvCudaLowering *);
/* The same with groups > 1. lower_conv_cuda_weight.c */
void lower_conv_cuda_grouped(const ConvShape *, CudaPrecision, ConvCudaLowering *);
/* Weight gradient. lower_conv_cuda_weight.c */
void lower_conv_cuda_grad_weight(const ConvShape *, CudaPrecision, ConvCudaLowering *);

#endif
