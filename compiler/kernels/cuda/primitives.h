/* The few things that CUDA kernels ask of the machine: who a thread is, memory, barriers, shuffles,
 * asynchronous copies and products of small matrices. Kernels touch memory through these functions
 * only. They have two bodies: the ones here, for a GPU, and those of tests/simt/, which run a block's
 * threads on the host and check every access.
 *
 * Shared memory is one array a block, addressed by bytes from 0. Addresses must be multiples of the
 * size of what is read or written there.
 *
 * Source of the instructions and of how fragments lie in registers: PTX ISA, "Warp-level matrix
 * instructions" (mma.m16n8k16, mma.m16n8k8, ldmatrix) and "cp.async".
 */
#ifdef SIMT
#include "simt.h"
#else

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fc00000)

#define DEVICE static __device__ __forceinline__
#pragma nv_diag_suppress 177 /* functions that a kernel does not call */
#define DEVICE_MEMBER __device__ __forceinline__
#define UNROLL _Pragma("unroll")
/* A kernel's head: THREADS a block; `arguments` lies in constant memory. */
#define ENTRY \
    extern "C" __global__ void __launch_bounds__(THREADS) \
    KERNEL(const __grid_constant__ Arguments arguments)

extern __shared__ __align__(1024) unsigned char shared_bytes[];

DEVICE int thread_index(void) { return (int)threadIdx.x; }
DEVICE int block_index(void) { return (int)blockIdx.x; }
DEVICE int block_count(void) { return (int)gridDim.x; }
DEVICE void barrier(void) { __syncthreads(); }          /* all threads of the block */
DEVICE void warp_barrier(void) { __syncwarp(); }        /* all threads of the warp */

/* Of the warp's lane `lane`, or of this lane's number xor `mask`: all lanes must call it. */
DEVICE float shuffle(float value, int lane) { return __shfl_sync(~0u, value, lane); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(~0u, value, mask); }

/* ---- memory ---------------------------------------------------------------------------------- */

/* T is a type of 1, 2, 4, 8 or 16 bytes. */
template <class T> DEVICE T load_global(const T *at) { return *at; }
template <class T> DEVICE void store_global(T *at, T value) { *at = value; }
/* Of memory that nobody writes while the kernel runs; T is a number. load_fixed4: 4 floats at a
 * multiple of 16 bytes. */
template <class T> DEVICE T load_fixed(const T *at) { return __ldg(at); }
DEVICE void load_fixed4(const float *at, float out[4])
{
    float4 four = __ldg((const float4 *)at);
    out[0] = four.x;
    out[1] = four.y;
    out[2] = four.z;
    out[3] = four.w;
}
template <class T> DEVICE T load_shared(unsigned at) { return *(const T *)(shared_bytes + at); }
template <class T> DEVICE void store_shared(unsigned at, T value) { *(T *)(shared_bytes + at) = value; }

DEVICE unsigned shared_address(unsigned at)
{
    return (unsigned)__cvta_generic_to_shared(shared_bytes) + at;
}

/* 16 bytes into shared memory, or 16 bytes of zeros where not `valid`; they are there after
 * copy_wait of the group that copy_commit closes, for other threads after a barrier then. Before
 * sm_80 a plain copy. */
DEVICE void copy_async(unsigned to, const void *from, bool valid)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
#else
    *(uint4 *)(shared_bytes + to) = valid ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
#endif
}
DEVICE void copy_commit(void)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Until at most PENDING of this thread's newest groups are on their way. */
template <int PENDING> DEVICE void copy_wait(void)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
#endif
}

/* ---- small matrices: all threads of a warp together ------------------------------------------ */

/* Four matrices of 8 rows of 16 bytes: lane i gives the address of row i % 8 of matrix i / 8; it
 * gets of each matrix m in r[m] the 4 bytes (i % 4) of row i / 4. Transposed (16-bit elements):
 * the elements (2 (i % 4), i / 4) and (2 (i % 4) + 1, i / 4). */
DEVICE void load_matrices(unsigned r[4], unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(at)) : "memory");
}
DEVICE void load_matrices_transposed(unsigned r[4], unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(at)) : "memory");
}

/* d += a b: a is 16 x 16 (row by row), b 16 x 8 (column by column), bf16; d 16 x 8, float. With
 * g = lane / 4 and t = lane % 4: a[0..3] hold the pairs of columns from 2t on at (row g), (g + 8),
 * (g, column + 8), (g + 8, column + 8); b[0..1] the rows from 2t and from 2t + 8 on of column g;
 * d[0..1] row g, columns 2t and 2t + 1; d[2..3] row g + 8. */
DEVICE void multiply_bf16(float d[4], const unsigned a[4], const unsigned b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
/* The same with a 16 x 8 and b 8 x 8, floats that round_tf32 has rounded: a[0..3] hold (g, t),
 * (g + 8, t), (g, t + 4), (g + 8, t + 4); b[0..1] the rows t and t + 4 of column g. */
DEVICE void multiply_tf32(float d[4], const unsigned a[4], const unsigned b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

DEVICE unsigned float_bits(float x) { return __float_as_uint(x); }
DEVICE float bits_float(unsigned x) { return __uint_as_float(x); }
/* The nearest number of 10 bits behind the point, ties away from zero; its bits. */
DEVICE unsigned round_tf32(float x)
{
#if __CUDA_ARCH__ >= 800
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#else
    return float_bits(x);
#endif
}
/* Two bf16 in a word, `low` in the lower half; to nearest, ties to even. */
DEVICE unsigned pack_bf16(float low, float high)
{
#if __CUDA_ARCH__ >= 800
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
#else
    unsigned a = float_bits(low), b = float_bits(high);
    a = a + 0x7fff + (a >> 16 & 1);
    b = b + 0x7fff + (b >> 16 & 1);
    return (low != low ? 0x7fffu : a >> 16) | (high != high ? 0x7fff0000u : b & 0xffff0000u);
#endif
}

#endif /* SIMT */
