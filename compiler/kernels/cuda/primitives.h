/* The few things that CUDA kernels ask of the machine: who a thread is, memory, barriers, shuffles,
 * asynchronous copies and products of small matrices. Kernels touch memory through these functions
 * only. They have two bodies: the ones here, for a GPU, and those of tests/simt/, which run a
 * block's threads on the host and check every access.
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
/* Before loops that take little of a kernel's time: the compiler would unroll them, and spend most
 * of its own time there. */
#define ROLLED _Pragma("unroll 1")
/* A kernel's head: THREADS a block; `arguments` lies in constant memory. A template may define anew
 * how many blocks must fit a processor together: 0 leaves it to the compiler, which may rather
 * spill a few registers than have a block less. */
#define LEAST_BLOCKS 0
#define ENTRY \
    extern "C" __global__ void __launch_bounds__(THREADS, LEAST_BLOCKS) \
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
template <class T> DEVICE void store_shared(unsigned at, T value)
{
    *(T *)(shared_bytes + at) = value;
}

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

/* ---- small matrices: four warps together, on sm_90a alone ------------------------------------ */

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define GROUP_PRODUCTS

/* Products of a warp group, four neighbouring warps of which the first is a multiple of 4, run
 * beside other instructions: their sums must be left alone from group_fence, which stands before
 * the first product after they were touched, to group_wait, which waits for all that group_commit
 * has closed. They see what threads wrote into shared memory if those have called
 * group_fence_shared and a barrier then. */
DEVICE void group_fence(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void group_commit(void) { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
DEVICE void group_wait(void) { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
DEVICE void group_fence_shared(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* An operand in shared memory: 16 bytes a row (a column of b), 8 of them behind each other; the
 * second half of their numbers `half` bytes further, the next 8 rows `next` bytes further. */
DEVICE uint64_t group_operand(unsigned at, unsigned half, unsigned next)
{
    return (uint64_t)(shared_address(at) >> 4 & 0x3fff) | (uint64_t)(half >> 4) << 16
         | (uint64_t)(next >> 4) << 32;
}

#define REGISTERS_0_15 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define REGISTERS_0_31 \
    REGISTERS_0_15 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define REGISTERS_0_63 \
    REGISTERS_0_31 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" \
                   ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define SUMS(N) "+f"(d[N][0]), "+f"(d[N][1]), "+f"(d[N][2]), "+f"(d[N][3])
#define SUMS_4(N) SUMS(N), SUMS(N + 1), SUMS(N + 2), SUMS(N + 3)
/* D, A, B: names of registers; YES: of one that is not 0: d is added to; ENDING: not transposed. */
#define GROUP_PRODUCT(SHAPE, TYPES, D, A, B, YES, ENDING, ...) \
    asm volatile("{ .reg .pred yes; setp.ne.b32 yes, " YES ", 0;\n" \
                 "wgmma.mma_async.sync.aligned." SHAPE "." TYPES \
                 " {" D "}, " A ", " B ", yes, 1, 1" ENDING "; }" \
                 : __VA_ARGS__ : "l"(a), "l"(b), "r"(1))
#define GROUP_PRODUCTS_OF(DEPTH, TYPES, ENDING) \
    if constexpr (COLUMNS == 32) \
        GROUP_PRODUCT("m64n32" DEPTH, TYPES, REGISTERS_0_15, "%16", "%17", "%18", ENDING, \
                      SUMS_4(0)); \
    if constexpr (COLUMNS == 64) \
        GROUP_PRODUCT("m64n64" DEPTH, TYPES, REGISTERS_0_31, "%32", "%33", "%34", ENDING, \
                      SUMS_4(0), SUMS_4(4)); \
    if constexpr (COLUMNS == 128) \
        GROUP_PRODUCT("m64n128" DEPTH, TYPES, REGISTERS_0_63, "%64", "%65", "%66", ENDING, \
                      SUMS_4(0), SUMS_4(4), SUMS_4(8), SUMS_4(12))

/* d += a b: a is 64 x 16, b 16 x COLUMNS (32, 64 or 128), bf16. Of d each warp has 16 rows, d[n] is
 * columns 8 n to 8 n + 7 as in multiply_bf16. */
template <int COLUMNS> DEVICE void group_multiply_bf16(float (*d)[4], uint64_t a, uint64_t b)
{
    GROUP_PRODUCTS_OF("k16", "f32.bf16.bf16", ", 0, 0");
}
/* The same with a 64 x 8 and b 8 x COLUMNS, floats that round_tf32 has rounded. */
template <int COLUMNS> DEVICE void group_multiply_tf32(float (*d)[4], uint64_t a, uint64_t b)
{
    GROUP_PRODUCTS_OF("k8", "f32.tf32.tf32", "");
}
#endif

/* ---- numbers -------------------------------------------------------------------------------- */

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
