/* Gradient of a convolution for its weight, [K][C/1][kernel][kernel] as PyTorch keeps it: for each
 * tap the sum over samples and pixels of x under the tap times dy. One group; conv_grouped_grad_*
 * does several. Also that of a transposed convolution, with the roles of x and dy swapped.
 *
 * own buffers: the workspace [SPLITS][RESULT] (conv_grad_weight_finish.cu adds the splits), or,
 *     where SPLITS is 1, the result.  Reads read_x [C,H,W] and read_dy [K,P,Q].
 * grid: SPLITS * groups of taps * tiles of channels; shared memory: SHARED_BYTES, see below
 *
 * For a group of taps this is a matrix product whose inner dimension is the pixels. A block makes a
 * tile of TILE_K output channels, TILE_C input channels and TAP_ROWS x TAP_COLUMNS taps from every
 * SPLITS-th tile of TILE_P x TILE_Q pixels, of all samples: so the bits depend on sizes only. A step
 * writes one tile of dy and the patch of x under it to shared memory, once for all of its taps, as
 * [pixel][channel]; both operands of the product are then read transposed, by load_matrices for
 * bf16, by single words else. While a step multiplies, the next one's pixels are on their way
 * through registers into the other half of shared memory.
 *
 * With COLUMNS, for a few input channels: instead of input channels there are C * kernel * kernel
 * columns, which are neighbours in the result, and x lies as planes. The words of a column's pixels
 * are read from them at the column's offset.
 */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING, SIZE_DILATION,
    SIZE_SPLITS,
};
