/* How a convolution's kernels are called: template, sizes, parts and memory from its shape.
 *
 * The decisions about tiles, bands and splits are made here, in plain numbers; the templates
 * (kernels/host/conv*.c) only follow them. All of them depend on sizes, none on the number of
 * threads.
 */
#ifndef LOWER_CONV_H
#define LOWER_CONV_H

#include <stdbool.h>
#include <stdint.h>

/* How a result is computed: the same in all of them, but for rounding. docs/performance.md tells of them. */
typedef enum {
    WAY_MODEL,          /* by the cost model */
    WAY_DIRECT, WAY_WINOGRAD, WAY_WINOGRAD_LARGE,
    WAY_LINE,           /* bf16 products */
    WAY_COUNT
} ConvWay;
extern const char *const way_names[WAY_COUNT];

/* x is [C,H,W], the result [K,P,Q]. `transposed`: conv_transpose, or conv_grad_input (x is dy); its
 * weights have the channels of x first, [C][K/groups][kernel][kernel], else [K][C/groups]... .
 * For a weight gradient x and dy are [C,H,W] and [K,P,Q] and the result is [K][C/groups]...; that
 * of conv_transpose has its own dy as x, and its x as dy. */
typedef struct {
    int64_t C, H, W, K, P, Q;
    int64_t kernel, stride, padding, dilation, groups;
    bool transposed;
    bool bf16;                       /* products of bf16 are allowed: tensors are kept so */
    ConvWay way;                     /* to be taken where it fits */
} ConvShape;

enum { CONV_SIZES = 32 };

typedef struct {
    const char *template;            /* file in kernels/host */
    int n_sizes;
    int64_t sizes[CONV_SIZES];       /* the template's own, in its order */
    int64_t parts, rows;             /* result rows p*rows ... of part p of a sample; else 1, P */
    int64_t scratch_bytes;           /* a thread */
    int64_t packed_bytes;            /* own buffer 0: packed weights; 0: weights as they are, or
                                        the result of a weight gradient */
    const char *pack_template;       /* own buffers: weights, packed weights; NULL: none */
    int n_pack_sizes;
    int64_t pack_sizes[CONV_SIZES];
    /* Own buffer 1 where nothing is packed; one of them is zero: */
    int64_t workspace_bytes;         /* fixed */
    int64_t workspace_sample_bytes;  /* times N */
} ConvLowering;

bool conv_way_fits(const ConvShape *, bool grad_weight, ConvWay);
/* Forward and input gradient, in the shape's way where that fits, else by the cost model. */
void lower_conv(const ConvShape *, ConvLowering *);
/* The same always by Winograd's filtering, with packed weights or with weights as they are. Kernel
 * 3, stride 1, dilation 1, one group. */
void lower_conv_winograd(const ConvShape *, ConvLowering *);
void lower_conv_winograd_large(const ConvShape *, ConvLowering *);
void lower_conv_grad_weight(const ConvShape *, ConvLowering *);
void lower_conv_winograd_grad_weight(const ConvShape *, ConvLowering *);

/* ---- lower_conv_bf16.c: with bf16 products, filtering along rows alone ------------------------- */

bool conv_line_fits(const ConvShape *);
void lower_conv_line(const ConvShape *, ConvLowering *);
void lower_conv_line_grad_weight(const ConvShape *, ConvLowering *);
int64_t conv_strip(const ConvShape *);        /* output blocks that are multiplied together */
int64_t conv_wanted_tasks(const ConvShape *); /* a sample */

#endif
