/* The pixels under a convolution's filter, side by side, so that the convolution is one product of
 * matrices: columns[n][p][q][tap][c] = x[n][p * stride - padding + r * dilation][...][c], zeros
 * outside x.
 *
 * own buffers: columns [N][P][Q][taps][Cpad] of elements    own scalars: none
 * sizes: C H W of x; P Q; kernel stride padding dilation */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_P, SIZE_Q, SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION
};

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int kernel = s[SIZE_KERNEL], taps = kernel * kernel, blocks = channel_blocks(s[SIZE_C]);
    int64_t each = (int64_t)s[SIZE_P] * s[SIZE_Q] * taps * blocks;
    int64_t i = (int64_t)block_index() * THREADS + thread_index();
    int n = (int)(i / each);
    if (n >= a->batch)
        return;
    int64_t rest = i - n * each;
    int cb = (int)(rest % blocks), tap = (int)(rest / blocks % taps);
    int pixel = (int)(rest / blocks / taps), p = pixel / s[SIZE_Q], q = pixel % s[SIZE_Q];
    int h = p * s[SIZE_STRIDE] - s[SIZE_PADDING] + tap / kernel * s[SIZE_DILATION];
    int w = q * s[SIZE_STRIDE] - s[SIZE_PADDING] + tap % kernel * s[SIZE_DILATION];
    bool inside = h >= 0 && h < s[SIZE_H] && w >= 0 && w < s[SIZE_W];
    store8((element *)a->buffers[0] + i * 8, inside ? read_x(a, n, cb, h, w) : splat8(0.0f));
}
