/* Calls the functions of prelude.h on lists of floats, for test_templates.c.
 *
 * buffers: x [count], then one list [count] a function in the order below; the two last compare the
 * vector and the scalar form of the random numbers: element i of both is drawn for
 * n = i / 512, c = i % 16 + 16 * (i / 16 % 2), pixel = i / 32.
 * sizes: count, a multiple of 16
 */
enum { EXP, LOG, LOG1P, SIGMOID, ERF, SILU, SILU_GRAD, GELU, GELU_GRAD, FUNCTIONS };

void KERNEL(const KernelArguments *a)
{
    const float *x = a->buffers[0];
    float *const *out = (float *const *)(a->buffers + 1);
    v16 one = splat16(1.0f);
    for (int64_t i = 0; i < a->sizes[0]; i += 16) {
        v16 value = load16(x + i);
        store16(out[EXP] + i, exp16(value));
        store16(out[LOG] + i, log16(value));
        store16(out[LOG1P] + i, log1p16(value));
        store16(out[SIGMOID] + i, sigmoid16(value));
        store16(out[ERF] + i, erf16(value));
        store16(out[SILU] + i, silu16(value));
        store16(out[SILU_GRAD] + i, silu_grad16(one, value));
        store16(out[GELU] + i, gelu16(value));
        store16(out[GELU_GRAD] + i, gelu_grad16(one, value));
        int64_t n = i / 512, c = 16 * (i / 16 % 2), pixel = i / 32;
        store16(out[FUNCTIONS] + i, uniform16(0x123456789abcdef0u, 7, n, c, pixel));
        for (int64_t lane = 0; lane < 16; lane++)
            out[FUNCTIONS + 1][i + lane] = uniform1(0x123456789abcdef0u, 7, n, c + lane, pixel);
    }
}
