/* The harness of test_conv_kernels.c: convolution templates between small hand-written row
 * functions, built at run time with the system's compiler, and blocked tensors for them.
 */
#ifndef CONV_KERNELS_H
#define CONV_KERNELS_H

#include "../compiler/lower_conv.h"
#include "../runtime/plan.h"

typedef enum { FORWARD, WINOGRAD, LARGE, WEIGHT, WINOGRAD_WEIGHT } Pass;
extern const char *const pass_names[];
void lower_pass(Pass, const ConvShape *, ConvLowering *);
int64_t weight_count(const ConvShape *);

/* Builds and loads all kernels; ends the program where that fails. */
void build_conv_kernels(void);
/* Of a template such as "conv.c". The fused variants have a prologue that is not zero at zero, and
 * a bias, relu and the sums of what is stored behind the result. Own buffers come first, then x and
 * dy or y, bias and the sums. */
KernelFunction *conv_kernel(const char *template, bool fused);
KernelFunction *peak_kernel(void);         /* multiply-adds: a->batch times 12 vectors a thread */

/* On huge pages where it is much, as the executor's memory is. */
float *allocate_floats(int64_t count);
float random_value(void);                  /* from -1 to 1 */
int64_t random_below(int64_t n);
int64_t padded_channels(int64_t channels); /* up to a multiple of 16 */
/* A blocked tensor of random values, zeros behind C. */
float *random_blocked(int64_t N, int64_t C, int64_t pixels);

/* GFLOP/s of some layers of U-Nets, see test_conv_kernels.c. */
void conv_speed(int threads, const char *only);

#endif
