/* Weight gradients on CUDA: to be written. */
#include "lower_conv_cuda.h"
#include "seg.h"

void lower_conv_cuda_grad_weight(const ConvShape *shape, CudaPrecision precision,
                                 ConvCudaLowering *lowering)
{
    (void)shape, (void)precision, (void)lowering;
    bug("lower: no weight gradients on CUDA yet");
}
