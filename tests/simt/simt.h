/* The primitives of CUDA kernels for the host: what compiler/kernels/cuda/primitives.h has for a GPU,
 * under the same names. See there for what each does; here every call is checked as well.
 *
 * A kernel's text with this file in it is C++ for the system's compiler. All that does something is
 * in machine.cc and memory.cc, compiled once; what is here is small, so that a kernel compiles fast.
 */
#ifndef SIMT_H
#define SIMT_H

#include <stdint.h>

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define DEVICE static inline
#define DEVICE_MEMBER inline
#define UNROLL
#define ROLLED

/* The functions of <math.h> that kernels may call. C++'s own header is slow to read. */
extern "C" {
float fabsf(float), sqrtf(float), expf(float), logf(float), log1pf(float), erff(float);
float fmaf(float, float, float), fmaxf(float, float), fminf(float, float);
float floorf(float), ceilf(float), rintf(float), tanhf(float), powf(float, float);
double fabs(double), sqrt(double), exp(double), log(double), pow(double, double);
double fma(double, double, double), floor(double), ceil(double);
}
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

extern "C" {
int simt_thread_index(void);
int simt_block_index(void);
int simt_block_count(void);
void simt_barrier(int line);
void simt_warp_barrier(int line);
float simt_shuffle(float value, int lane, int line);
float simt_shuffle_xor(float value, int mask, int line);
void simt_load_global(void *value, const void *at, unsigned bytes);
void simt_store_global(void *at, const void *value, unsigned bytes);
void simt_load_fixed(void *value, const void *at, unsigned bytes);
void simt_load_shared(void *value, unsigned at, unsigned bytes);
void simt_store_shared(unsigned at, const void *value, unsigned bytes);
void simt_copy_async(unsigned to, const void *from, bool valid);
void simt_copy_commit(void);
void simt_copy_wait(int pending);
void simt_load_matrices(unsigned r[4], unsigned at, bool transposed, int line);
void simt_multiply_bf16(float d[4], const unsigned a[4], const unsigned b[2], int line);
void simt_multiply_tf32(float d[4], const unsigned a[4], const unsigned b[2], int line);
}

/* What is loaded says of itself how it wants to be called. The same text as in emulator.h. */
struct SimtKernel {
    void (*function)(const void *arguments);
    int threads;
    int arguments_bytes;
};
#define ENTRY \
    static void simt_kernel(const Arguments &arguments); \
    static void simt_entry(const void *arguments) { simt_kernel(*(const Arguments *)arguments); } \
    extern "C" const SimtKernel KERNEL = { simt_entry, THREADS, (int)sizeof(Arguments) }; \
    static void simt_kernel(const Arguments &arguments)

/* Whoever calls must come with all threads that take part, from the same line. */
#define CALLER int line = __builtin_LINE()

DEVICE int thread_index(void) { return simt_thread_index(); }
DEVICE int block_index(void) { return simt_block_index(); }
DEVICE int block_count(void) { return simt_block_count(); }
DEVICE void barrier(CALLER) { simt_barrier(line); }
DEVICE void warp_barrier(CALLER) { simt_warp_barrier(line); }
DEVICE float shuffle(float value, int lane, CALLER) { return simt_shuffle(value, lane, line); }
DEVICE float shuffle_xor(float value, int mask, CALLER)
{
    return simt_shuffle_xor(value, mask, line);
}

template <class T> DEVICE T load_global(const T *at)
{
    T value;
    simt_load_global(&value, at, sizeof(T));
    return value;
}
template <class T> DEVICE void store_global(T *at, T value)
{
    simt_store_global(at, &value, sizeof(T));
}
template <class T> DEVICE T load_fixed(const T *at)
{
    T value;
    simt_load_fixed(&value, at, sizeof(T));
    return value;
}
DEVICE void load_fixed4(const float *at, float out[4]) { simt_load_fixed(out, at, 16); }
template <class T> DEVICE T load_shared(unsigned at)
{
    T value;
    simt_load_shared(&value, at, sizeof(T));
    return value;
}
template <class T> DEVICE void store_shared(unsigned at, T value)
{
    simt_store_shared(at, &value, sizeof(T));
}

DEVICE void copy_async(unsigned to, const void *from, bool valid)
{
    simt_copy_async(to, from, valid);
}
DEVICE void copy_commit(void) { simt_copy_commit(); }
template <int PENDING> DEVICE void copy_wait(void) { simt_copy_wait(PENDING); }

DEVICE void load_matrices(unsigned r[4], unsigned at, CALLER)
{
    simt_load_matrices(r, at, false, line);
}
DEVICE void load_matrices_transposed(unsigned r[4], unsigned at, CALLER)
{
    simt_load_matrices(r, at, true, line);
}
DEVICE void multiply_bf16(float d[4], const unsigned a[4], const unsigned b[2], CALLER)
{
    simt_multiply_bf16(d, a, b, line);
}
DEVICE void multiply_tf32(float d[4], const unsigned a[4], const unsigned b[2], CALLER)
{
    simt_multiply_tf32(d, a, b, line);
}

/* Products of a warp group: when they are given, not later. An operand's addresses go through the
 * same 64 bits as on the device. */
#define GROUP_PRODUCTS
DEVICE void group_fence(void) {}
DEVICE void group_commit(void) {}
DEVICE void group_wait(void) {}
DEVICE void group_fence_shared(void) {}
DEVICE uint64_t group_operand(unsigned at, unsigned half, unsigned next)
{
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(half >> 4) << 16 | (uint64_t)(next >> 4) << 32;
}
/* Where a lane's row of four matrices begins: 8 rows and the next 8, of the first half and of the
 * second. */
DEVICE unsigned group_address(uint64_t operand, int eight, int half, int row)
{
    unsigned first = operand & 0x3fff, second = operand >> 16 & 0x3fff;
    unsigned next = operand >> 32 & 0x3fff;
    return (first + (unsigned)half * second + (unsigned)eight * next + (unsigned)row) * 16;
}
template <int COLUMNS, class Multiply>
DEVICE void group_multiply(float (*d)[4], uint64_t a, uint64_t b, Multiply multiply, int line)
{
    int lane = thread_index() % 32, first = thread_index() / 32 % 4 * 2;
    unsigned rows[4], columns[4];
    load_matrices(rows, group_address(a, first + lane / 8 % 2, lane / 16, lane % 8), line);
    for (int n = 0; n < COLUMNS / 8; n += 2) {
        load_matrices(columns, group_address(b, n + lane / 16, lane / 8 % 2, lane % 8), line);
        multiply(d[n], rows, columns, line);
        multiply(d[n + 1], rows, columns + 2, line);
    }
}
template <int COLUMNS>
DEVICE void group_multiply_bf16(float (*d)[4], uint64_t a, uint64_t b, CALLER)
{
    group_multiply<COLUMNS>(d, a, b, simt_multiply_bf16, line);
}
template <int COLUMNS>
DEVICE void group_multiply_tf32(float (*d)[4], uint64_t a, uint64_t b, CALLER)
{
    group_multiply<COLUMNS>(d, a, b, simt_multiply_tf32, line);
}
#undef CALLER

DEVICE unsigned float_bits(float x)
{
    unsigned bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}
DEVICE float bits_float(unsigned bits)
{
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}
DEVICE unsigned round_tf32(float x)
{
    unsigned bits = float_bits(x);
    if ((bits & 0x7f800000u) == 0x7f800000u)
        return x != x ? 0x7fffe000u : bits;
    return (bits + 0x1000u) & 0xffffe000u;
}
DEVICE unsigned pack_bf16(float low, float high)
{
    unsigned a = float_bits(low), b = float_bits(high);
    a = a + 0x7fff + (a >> 16 & 1);
    b = b + 0x7fff + (b >> 16 & 1);
    return (low != low ? 0x7fffu : a >> 16) | (high != high ? 0x7fff0000u : b & 0xffff0000u);
}

#endif
