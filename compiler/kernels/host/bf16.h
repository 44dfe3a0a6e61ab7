/* Tensors that are kept as bf16, the upper half of a float, in memory: what generated rows call to
 * read and write them. This text stands behind prelude.h in the target host-bf16; all that is
 * computed stays float.
 *
 * Rounding is to nearest, ties to even, as vcvtneps2bf16 does where the processor has it; NaN stays
 * NaN. That instruction also takes denormal numbers for zero.
 */
typedef uint16_t bf16;
typedef uint16_t v16h __attribute__((vector_size(32), may_alias));
typedef uint16_t v16hu __attribute__((vector_size(32), aligned(2), may_alias)); /* anywhere */

INLINE v16 wide16(v16h bits) { return (v16)(__builtin_convertvector(bits, v16w) << 16); }
INLINE v16h narrow16(v16 x)
{
#ifdef __AVX512BF16__
    v16h y;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(y) : "v"(x));
    return y;
#else
    const v16w bits = (v16w)x;
    const v16w nan = (v16w)((v16i)(0x7f800000u - (bits & 0x7fffffffu)) >> 31);
    const v16w nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return __builtin_convertvector((nearest & ~nan) | ((bits >> 16 | 0x40u) & nan), v16h);
#endif
}
INLINE v16 load16_bf16(const bf16 *at) { return wide16(*(const v16hu *)at); }
INLINE void store16_bf16(bf16 *at, v16 value) { *(v16hu *)at = narrow16(value); }
INLINE v16 rounded16(v16 value) { return wide16(narrow16(value)); }
INLINE void widen_bf16(const bf16 *from, int64_t count, float *restrict to)
{
    for (int64_t i = 0; i < count; i++)
        store16(to + 16 * i, load16_bf16(from + 16 * i));
}

