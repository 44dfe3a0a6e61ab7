/* What every host kernel starts with: its arguments, vectors of 16 floats (one channel block of one
 * pixel), and the functions that generated rows call. A kernel's text is this file, then generated
 * row functions, then a template.
 *
 * Only the compilers' vector extensions are used, so the same text runs on AVX-512, AVX2, SSE and
 * NEON. gcc splits arithmetic of wide vectors into the machine's own width, but not comparisons:
 * less16 does that by hand. All functions keep NaN: a sum, product or max16(x, ...) of NaN is NaN.
 *
 * Layouts: `plain` [N][C][H][W]; `blocked` [N][C/16][H][W][16]; a row buffer is [count][16].
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#pragma GCC diagnostic ignored "-Wpsabi"

/* The same text as in runtime/plan.h. */
typedef struct {
    void *const *buffers;       /* as the step lists them, for this N */
    const int64_t *sizes;
    const double *scalars;
    int64_t batch;              /* N */
    int threads;
    char *scratch;              /* thread t owns scratch + t * scratch_bytes; 64-byte aligned */
    int64_t scratch_bytes;
} KernelArguments;

typedef enum { OPTIMISER_ADAM, OPTIMISER_ADAMW, OPTIMISER_SGD, OPTIMISER_NESTEROV } Optimiser;
typedef struct {
    double learning_rate, beta1, beta2, eps, weight_decay;
    double clip;                /* PART_CLIP: the largest norm of all gradients together */
    double gradient_scale;      /* 1 before each run; PART_CLIP changes it */
    double blends[3][2];        /* of PART_SUM, PART_TOTAL, PART_AVERAGE: y = [0] y + [1] x */
    int64_t step;               /* of the optimiser, from 1 */
    uint64_t seed;              /* of dropout in this step */
    int64_t optimiser;          /* an Optimiser */
} PlanState;

typedef float v16 __attribute__((vector_size(64), may_alias));
typedef float v16u __attribute__((vector_size(64), aligned(4), may_alias)); /* anywhere in memory */
typedef int32_t v16i __attribute__((vector_size(64), may_alias));           /* masks: 0 or -1 */
typedef uint32_t v16w __attribute__((vector_size(64), may_alias));

#define INLINE static inline __attribute__((always_inline, unused))

/* ---- loads, stores, lanes ------------------------------------------------------------------ */

INLINE v16 load16(const float *at) { return *(const v16u *)at; }
INLINE void store16(float *at, v16 value) { *(v16u *)at = value; }
INLINE float load_fixed(const float *at) { return *at; }
INLINE v16 load_fixed16(const float *at) { return load16(at); }
INLINE uint64_t load_fixed_seed(const PlanState *state) { return state->seed; }
INLINE v16 splat16(float value) { return value - (v16){0}; }
INLINE v16i lanes16(void)
{
    return (v16i){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}

/* a < b, lane by lane; false where either is NaN. */
INLINE v16i less16(v16 a, v16 b)
{
#if defined(__AVX512F__) || defined(__clang__)
    return a < b;
#else
#ifdef __AVX__
    enum { BYTES = 32 };
#else
    enum { BYTES = 16 };
#endif
    typedef float Part __attribute__((vector_size(BYTES)));
    typedef int32_t PartMask __attribute__((vector_size(BYTES)));
    union { v16 whole; Part part[64 / BYTES]; } x = {a}, y = {b};
    union { v16i whole; PartMask part[64 / BYTES]; } mask;
    for (int i = 0; i < 64 / BYTES; i++)
        mask.part[i] = x.part[i] < y.part[i];
    return mask.whole;
#endif
}

/* a where the mask is -1, b where it is 0. */
INLINE v16 select16(v16i mask, v16 a, v16 b)
{
    return (v16)(((v16i)a & mask) | ((v16i)b & ~mask));
}
INLINE v16 keep16(v16i mask, v16 a) { return (v16)((v16i)a & mask); }
#if defined __AVX512F__ && !defined __clang__ /* one instruction, where gcc would make three */
INLINE v16 max16(v16 a, v16 b) { return __builtin_ia32_maxps512_mask(b, a, a, -1, 4); }
INLINE v16 min16(v16 a, v16 b) { return __builtin_ia32_minps512_mask(b, a, a, -1, 4); }
#else
INLINE v16 max16(v16 a, v16 b) { return select16(less16(a, b), b, a); }
INLINE v16 min16(v16 a, v16 b) { return select16(less16(b, a), b, a); }
#endif
INLINE v16 abs16(v16 a) { return (v16)((v16i)a & 0x7fffffff); }

/* The first k lanes; all of them from 16 on, none up to 0. */
INLINE v16i mask16(int64_t k)
{
    int32_t clamped = (int32_t)(k > 16 ? 16 : k < 0 ? 0 : k);
    return (lanes16() - clamped) >> 31;
}
/* The lanes of channel block `block` that are channels. */
INLINE v16i channel_mask16(int64_t channels, int64_t block)
{
    return mask16(channels - 16 * block);
}

/* 1 in the lane of channel c0, c0 + 1, ... < channels that t is the number of. */
INLINE v16 one_hot16(v16 t, int64_t c0, int64_t channels)
{
    v16 number = __builtin_convertvector(lanes16() + (int32_t)c0, v16);
    v16i equal = ~(less16(t, number) | less16(number, t)) & mask16(channels - c0);
    return keep16(equal, splat16(1.0f));
}

/* The sum of the lanes, always in the same order. */
INLINE float sum16(v16 a)
{
    union { v16 whole; float lane[16]; } x = {a};
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            x.lane[i] += x.lane[i + half];
    return x.lane[0];
}
/* The largest lane; NaN if the first is. */
INLINE float highest16(v16 a)
{
    union { v16 whole; float lane[16]; } x = {a};
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            x.lane[i] = x.lane[i] < x.lane[i + half] ? x.lane[i + half] : x.lane[i];
    return x.lane[0];
}

/* Of sixteen rows of 16 lanes, the i-th row's sum16 or highest16 in lane i: they are folded
 * together, half onto half as there, which takes two shuffles where one row takes fifteen moves. */
#if defined __AVX512F__ && defined __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define FOLDS_ROWS
#endif
#endif
#ifdef FOLDS_ROWS
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define LOW_HALVES(a, b) PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define HIGH_HALVES(a, b) PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define LOW_FOURS(a, b) PICK(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
#define HIGH_FOURS(a, b) PICK(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
#define LOW_PAIRS(a, b) PICK(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29)
#define HIGH_PAIRS(a, b) PICK(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31)
#define EVENS(a, b) PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODDS(a, b) PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#define FOLD_ROWS(name, one_row, COMBINE)                                                          \
    INLINE v16 name##_2(const float *rows)                                                         \
    {                                                                                              \
        const v16 a = load16(rows), b = load16(rows + 16);                                         \
        return COMBINE(LOW_HALVES(a, b), HIGH_HALVES(a, b));                                       \
    }                                                                                              \
    INLINE v16 name##_4(const float *rows)                                                         \
    {                                                                                              \
        const v16 a = name##_2(rows), b = name##_2(rows + 32);                                     \
        return COMBINE(LOW_FOURS(a, b), HIGH_FOURS(a, b));                                         \
    }                                                                                              \
    INLINE v16 name##_8(const float *rows)                                                         \
    {                                                                                              \
        const v16 a = name##_4(rows), b = name##_4(rows + 64);                                     \
        return COMBINE(LOW_PAIRS(a, b), HIGH_PAIRS(a, b));                                         \
    }                                                                                              \
    INLINE v16 name(const float *rows)                                                             \
    {                                                                                              \
        const v16 a = name##_8(rows), b = name##_8(rows + 128);                                    \
        return COMBINE(EVENS(a, b), ODDS(a, b));                                                   \
    }
#else
#define FOLD_ROWS(name, one_row, COMBINE)                                                          \
    INLINE v16 name(const float *rows)                                                             \
    {                                                                                              \
        union { v16 whole; float lane[16]; } x;                                                    \
        for (int i = 0; i < 16; i++)                                                               \
            x.lane[i] = one_row(load16(rows + 16 * i));                                            \
        return x.whole;                                                                            \
    }
#endif
INLINE v16 add16(v16 a, v16 b) { return a + b; }
FOLD_ROWS(sum_rows16, sum16, add16)
FOLD_ROWS(highest_rows16, highest16, max16)

/* ---- plain rows ---------------------------------------------------------------------------- */

/* Rows of `channels` <= 16 planes to [count][16], zeros in the other lanes; and back. */
INLINE void expand_plain_f32(const float *plane0, int64_t plane_stride, int64_t channels,
                             int64_t count, float *restrict out)
{
    if (channels == 1) {
        for (int64_t i = 0; i < count; i++)
            store16(out + 16 * i, (v16){plane0[i]});
        return;
    }
    memset(out, 0, (size_t)count * 16 * sizeof *out);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < count; i++)
            out[16 * i + c] = plane0[c * plane_stride + i];
}
INLINE void expand_plain_u8(const uint8_t *plane0, int64_t plane_stride, int64_t channels,
                            int64_t count, float *restrict out)
{
    memset(out, 0, (size_t)count * 16 * sizeof *out);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < count; i++)
            out[16 * i + c] = (float)plane0[c * plane_stride + i];
}
INLINE void store_plain_f32(float *plane0, int64_t plane_stride, int64_t channels, int64_t count,
                            const float *restrict in)
{
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < count; i++)
            plane0[c * plane_stride + i] = in[16 * i + c];
}
/* One pixel of `channels` <= 16 planes; the other lanes are zero. */
INLINE v16 load_plain_f32(const float *plane0, int64_t plane_stride, int64_t channels)
{
    if (channels == 1)                  /* a constant, mostly: no way by memory then */
        return (v16){plane0[0]};
    if (channels == 2)
        return (v16){plane0[0], plane0[plane_stride]};
    if (channels == 3)
        return (v16){plane0[0], plane0[plane_stride], plane0[2 * plane_stride]};
    union { v16 whole; float lane[16]; } x = {{0}};
    for (int64_t c = 0; c < channels; c++)
        x.lane[c] = plane0[c * plane_stride];
    return x.whole;
}
INLINE v16 load_plain_u8(const uint8_t *plane0, int64_t plane_stride, int64_t channels)
{
    if (channels == 1)
        return (v16){(float)plane0[0]};
    if (channels == 3)
        return (v16){(float)plane0[0], (float)plane0[plane_stride],
                     (float)plane0[2 * plane_stride]};
    union { v16 whole; float lane[16]; } x = {{0}};
    for (int64_t c = 0; c < channels; c++)
        x.lane[c] = (float)plane0[c * plane_stride];
    return x.whole;
}

/* Up to 16 pixels along a row of a plane, zeros behind; and back. */
INLINE v16 load_along_f32(const float *at, int64_t count)
{
    if (count == 16)
        return load16(at);
    union { v16 whole; float lane[16]; } x = {{0}};
    for (int64_t i = 0; i < count; i++)
        x.lane[i] = at[i];
    return x.whole;
}
INLINE v16 load_along_u8(const uint8_t *at, int64_t count)
{
    union { v16 whole; float lane[16]; } x = {{0}};
    for (int64_t i = 0; i < count; i++)
        x.lane[i] = (float)at[i];
    return x.whole;
}
INLINE void store_along_f32(float *at, int64_t count, v16 value)
{
    if (count == 16)
        store16(at, value);
    else
        for (int64_t i = 0; i < count; i++)
            at[i] = value[i];
}
/* The first channel of up to 16 pixels of a row buffer. */
INLINE v16 first_lanes16(const float *row, int64_t count)
{
    union { v16 whole; float lane[16]; } x = {{0}};
    for (int64_t i = 0; i < count; i++)
        x.lane[i] = row[16 * i];
    return x.whole;
}

/* ---- functions (polynomials: least largest error over the reduced range) ------------------- */

/* exp(x) = 2^n * exp(r), |r| <= log(2)/2; 2^n in two factors, so that both ends come out right. */
INLINE v16 exp16(v16 x)
{
    x = max16(min16(x, splat16(89.0f)), splat16(-105.0f));
    v16 scaled = x * 1.44269504f;
    v16 half = (v16)(((v16i)scaled & INT32_MIN) | (v16i)splat16(0.5f));
    v16i n = __builtin_convertvector(scaled + half, v16i);
    v16 whole = __builtin_convertvector(n, v16);
    v16 r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    v16 p = 0.00138141774f * r + 0.0083689196f;
    p = p * r + 0.0416684076f;
    p = p * r + 0.166665196f;
    p = p * r + 0.49999994f;
    p = p * r * r + r + 1.0f;
    v16i first = n >> 1, second = n - first;
    return p * (v16)((first + 127) << 23) * (v16)((second + 127) << 23);
}

/* log(x): -inf at 0, NaN below, inf at inf. */
INLINE v16 log16(v16 x)
{
    v16i tiny = less16(x, splat16(1.17549435e-38f));
    v16 scaled = select16(tiny, x * 8388608.0f, x);
    v16i bits = (v16i)((v16w)scaled - 0x3f3504f3u); /* the fraction goes into [sqrt 1/2, sqrt 2) */
    v16i exponent = bits >> 23;
    v16 f = (v16)((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    v16 n = __builtin_convertvector(exponent - (tiny & 23), v16);
    v16 p = 0.0674660131f * f - 0.116756409f;
    p = p * f + 0.118881747f;
    p = p * f - 0.124055915f;
    p = p * f + 0.142195508f;
    p = p * f - 0.166679963f;
    p = p * f + 0.200021192f;
    p = p * f - 0.250000089f;
    p = p * f + 0.333333135f;
    v16 square = f * f;
    p = p * f * square - 2.12194440e-4f * n - 0.5f * square;
    v16 result = p + f + n * 0.693359375f;
    v16i infinite = less16(splat16(3.40282347e38f), x);
    v16i positive = less16(splat16(0.0f), x);
    v16i negative = less16(x, splat16(0.0f));
    result = select16(infinite, x, result);
    v16 outside = select16(negative, splat16((float)NAN), x - (float)INFINITY); /* -inf, or NaN */
    return select16(positive, result, outside);
}

/* log(1 + x) for finite x > -1, exact where x is small. */
INLINE v16 log1p16(v16 x)
{
    v16 u = x + 1.0f;
    return log16(u) + (x - (u - 1.0f)) / u;
}

INLINE v16 sigmoid16(v16 x) { return 1.0f / (1.0f + exp16(-x)); }
INLINE v16 sqrt16(v16 x)
{
    union { v16 whole; float lane[16]; } y = {x};
    for (int i = 0; i < 16; i++)
        y.lane[i] = sqrtf(y.lane[i]);
    return y.whole;
}

/* erf(x) = x P(x^2) up to 1, sign(x) (1 - exp(-Q(|x|))) beyond. */
INLINE v16 erf16(v16 x)
{
    v16 s = x * x;
    v16 near = 7.85385782e-05f * s - 0.000801019254f;
    near = near * s + 0.00518832775f;
    near = near * s - 0.026853811f;
    near = near * s + 0.112835854f;
    near = near * s - 0.37612626f;
    near = (near * s + 1.12837911f) * x;
    v16 t = min16(abs16(x), splat16(4.0f));
    v16 far = -0.000187605649f * t + 0.00296012219f;
    far = far * t - 0.0218896735f;
    far = far * t + 0.103218265f;
    far = far * t + 0.638012171f;
    far = far * t + 1.12717164f;
    far = 1.0f - exp16(-(far * t + 0.000320564432f));
    far = (v16)((v16i)far | ((v16i)x & INT32_MIN));
    return select16(less16(splat16(1.0f), t), far, near);
}

INLINE v16 relu16(v16 x) { return max16(x, splat16(0.0f)); }
INLINE v16 silu16(v16 x)
{
    v16 limited = max16(x, splat16(-88.0f));         /* -inf would give -inf * 0 */
    return limited * sigmoid16(limited);
}
INLINE v16 silu_grad16(v16 dy, v16 x)
{
    v16 limited = max16(min16(x, splat16(88.0f)), splat16(-88.0f));
    v16 s = sigmoid16(limited);
    return dy * (s + limited * s * (1.0f - s));
}
INLINE v16 gelu16(v16 x)
{
    return max16(x, splat16(-20.0f)) * 0.5f * (1.0f + erf16(x * 0.707106781f));
}
INLINE v16 gelu_grad16(v16 dy, v16 x)
{
    v16 limited = max16(min16(x, splat16(20.0f)), splat16(-20.0f));
    v16 density = 0.398942280f * exp16(-0.5f * limited * limited);
    return dy * (0.5f * (1.0f + erf16(x * 0.707106781f)) + limited * density);
}

/* ---- random numbers ------------------------------------------------------------------------ */

/* A number of 24 random bits a place: a counter-based hash, so that the backward pass, every thread
 * and every target draw the same. The scalar form, for one element:
 *   h = hash32(hash32(hash32(hash32(seed low) + seed high) + stream) + n), then
 *   (hash32(hash32(h + pixel) + c * 0x9e3779b9) >> 8) / 2^24, with pixel = h * W + w.
 * The rounds and shifts are murmur3's finaliser (Appleby). */
INLINE uint32_t hash32(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}
INLINE uint32_t uniform_key(uint64_t seed, uint64_t stream, int64_t n)
{
    uint32_t h = hash32(hash32((uint32_t)seed) + (uint32_t)(seed >> 32));
    return hash32(hash32(h + (uint32_t)stream) + (uint32_t)n);
}
INLINE float uniform1(uint64_t seed, uint64_t stream, int64_t n, int64_t c, int64_t pixel)
{
    uint32_t h = hash32(uniform_key(seed, stream, n) + (uint32_t)pixel);
    return (float)(hash32(h + (uint32_t)c * 0x9e3779b9u) >> 8) * 0x1p-24f;
}
/* In [0,1), for channels c0 .. c0+15. */
INLINE v16 uniform16(uint64_t seed, uint64_t stream, int64_t n, int64_t c0, int64_t pixel)
{
    v16w x = ((v16w)lanes16() + (uint32_t)c0) * 0x9e3779b9u
           + hash32(uniform_key(seed, stream, n) + (uint32_t)pixel);
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    x = x ^ (x >> 16);
    return __builtin_convertvector((v16i)(x >> 8), v16) * 0x1p-24f;
}

/* ---- loops --------------------------------------------------------------------------------- */

INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t channel_blocks(int64_t channels) { return (channels + 15) / 16; }
/* Where this thread's scratch begins. */
INLINE float *thread_scratch(const KernelArguments *a)
{
#ifdef _OPENMP
    return (float *)(void *)(a->scratch + omp_get_thread_num() * a->scratch_bytes);
#else
    return (float *)(void *)a->scratch;
#endif
}
