/* What every CUDA kernel is written with: vectors of 8 channels of one pixel (v8), their loads and
 * stores, and the functions that generated expressions call. A kernel's text is primitives.h, this
 * file, its own Arguments and the generated functions, rows.h, then a template.
 *
 * Exactly one of PRECISION_FP32, PRECISION_TF32 and PRECISION_BF16 is defined before.
 *
 * Layouts: `plain` [N][C][H][W], floats or bytes; `blocked` [N][H][W][Cpad], channels last and
 * rounded up to a multiple of 8 with zeros behind C, elements of the type `element`.
 */
typedef struct { uint16_t bits; } bf16;
#ifdef PRECISION_BF16
typedef bf16 element;      /* of blocked tensors */
#else
typedef float element;
#endif

/* The same text as in runtime/plan.h. */
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

struct alignas(16) word4 { uint32_t x, y, z, w; };       /* 16 bytes */
struct alignas(8) word2 { uint32_t x, y; };

/* ---- vectors --------------------------------------------------------------------------------- */

struct v8 {
    float lane[8];
    DEVICE_MEMBER float operator[](int i) const { return lane[i]; }
};
struct m8 { bool lane[8]; };                              /* a mask */

#define EACH_LANE UNROLL for (int i = 0; i < 8; i++)
DEVICE v8 splat8(float x) { v8 y; EACH_LANE y.lane[i] = x; return y; }
#define VECTOR_OPERATOR(OP) \
    DEVICE v8 operator OP(v8 a, v8 b) \
    { \
        v8 y; \
        EACH_LANE y.lane[i] = a.lane[i] OP b.lane[i]; \
        return y; \
    } \
    DEVICE v8 operator OP(float a, v8 b) { return splat8(a) OP b; } \
    DEVICE v8 operator OP(v8 a, float b) { return a OP splat8(b); }
VECTOR_OPERATOR(+)
VECTOR_OPERATOR(-)
VECTOR_OPERATOR(*)
VECTOR_OPERATOR(/)
DEVICE v8 operator-(v8 a) { v8 y; EACH_LANE y.lane[i] = -a.lane[i]; return y; }
DEVICE v8 &operator+=(v8 &a, v8 b) { a = a + b; return a; }

DEVICE m8 less8(v8 a, v8 b) { m8 y; EACH_LANE y.lane[i] = a.lane[i] < b.lane[i]; return y; }
DEVICE m8 operator~(m8 a) { m8 y; EACH_LANE y.lane[i] = !a.lane[i]; return y; }
DEVICE v8 select8(m8 mask, v8 a, v8 b)
{
    v8 y;
    EACH_LANE y.lane[i] = mask.lane[i] ? a.lane[i] : b.lane[i];
    return y;
}
DEVICE v8 keep8(m8 mask, v8 a) { return select8(mask, a, splat8(0)); }
/* a where it is not less than b: NaN stays NaN. */
DEVICE v8 max8(v8 a, v8 b) { return select8(less8(a, b), b, a); }
DEVICE v8 min8(v8 a, v8 b) { return select8(less8(b, a), b, a); }
/* The lanes of channel block `block` that are channels. */
DEVICE m8 channel_mask8(int channels, int block)
{
    m8 y;
    EACH_LANE y.lane[i] = 8 * block + i < channels;
    return y;
}
/* 1 in the lane of channel c0, c0 + 1, ... < channels that t is the number of. */
DEVICE v8 one_hot8(v8 t, int c0, int channels)
{
    v8 y;
    EACH_LANE y.lane[i] = c0 + i < channels && t.lane[i] == (float)(c0 + i) ? 1.0f : 0.0f;
    return y;
}
/* The sum of the lanes, always in the same order. */
DEVICE float sum8(v8 a)
{
    return ((a.lane[0] + a.lane[4]) + (a.lane[2] + a.lane[6]))
         + ((a.lane[1] + a.lane[5]) + (a.lane[3] + a.lane[7]));
}
DEVICE float highest8(v8 a)
{
    float y = a.lane[0];
    EACH_LANE y = y < a.lane[i] ? a.lane[i] : y;
    return y;
}

/* ---- loads and stores ------------------------------------------------------------------------ */

DEVICE v8 words_floats(word4 a, word4 b)
{
    v8 y = { { bits_float(a.x), bits_float(a.y), bits_float(a.z), bits_float(a.w),
               bits_float(b.x), bits_float(b.y), bits_float(b.z), bits_float(b.w) } };
    return y;
}
DEVICE v8 words_bf16(word4 a)
{
    v8 y = { { bits_float(a.x << 16), bits_float(a.x & 0xffff0000u),
               bits_float(a.y << 16), bits_float(a.y & 0xffff0000u),
               bits_float(a.z << 16), bits_float(a.z & 0xffff0000u),
               bits_float(a.w << 16), bits_float(a.w & 0xffff0000u) } };
    return y;
}
DEVICE word4 floats_words(const v8 &a, int half)
{
    word4 y = { float_bits(a.lane[4 * half]), float_bits(a.lane[4 * half + 1]),
                float_bits(a.lane[4 * half + 2]), float_bits(a.lane[4 * half + 3]) };
    return y;
}
DEVICE word4 bf16_words(const v8 &a)
{
    word4 y = { pack_bf16(a.lane[0], a.lane[1]), pack_bf16(a.lane[2], a.lane[3]),
                pack_bf16(a.lane[4], a.lane[5]), pack_bf16(a.lane[6], a.lane[7]) };
    return y;
}
/* 8 elements of a blocked tensor: `at` is aligned to 8 elements. */
DEVICE v8 load8(const float *at)
{
    const word4 *words = (const word4 *)at;
    return words_floats(load_global(words), load_global(words + 1));
}
DEVICE v8 load8(const bf16 *at) { return words_bf16(load_global((const word4 *)at)); }
DEVICE void store8(float *at, v8 value)
{
    store_global((word4 *)at, floats_words(value, 0));
    store_global((word4 *)at + 1, floats_words(value, 1));
}
DEVICE void store8(bf16 *at, v8 value) { store_global((word4 *)at, bf16_words(value)); }
/* As a stored value comes back. */
DEVICE v8 rounded8(const float *, v8 value) { return value; }
DEVICE v8 rounded8(const bf16 *, v8 value) { return words_bf16(bf16_words(value)); }
/* 8 floats of a fixed tensor, at a multiple of 8. */
DEVICE v8 load_fixed8(const float *at)
{
    v8 y;
    load_fixed4(at, y.lane);
    load_fixed4(at + 4, y.lane + 4);
    return y;
}
DEVICE uint64_t load_fixed_seed(const PlanState *state) { return load_fixed(&state->seed); }
/* One pixel of `channels` <= 8 planes of a plain tensor; the other lanes are zero. */
DEVICE v8 load_plain8(const float *at, int64_t plane, int channels)
{
    v8 y;
    EACH_LANE y.lane[i] = i < channels ? load_global(at + i * plane) : 0.0f;
    return y;
}
DEVICE v8 load_plain8(const uint8_t *at, int64_t plane, int channels)
{
    v8 y;
    EACH_LANE y.lane[i] = i < channels ? (float)load_global(at + i * plane) : 0.0f;
    return y;
}
DEVICE void store_plain8(float *at, int64_t plane, int channels, v8 value)
{
    EACH_LANE {
        if (i < channels)
            store_global(at + i * plane, value.lane[i]);
    }
}

/* ---- sums ------------------------------------------------------------------------------------ */

/* Count, mean and squared deviations from it, with one element more. */
DEVICE void add_moments(v8 sums[3], v8 x)
{
    sums[0] += splat8(1);
    v8 d = x - sums[1];
    sums[1] += d * (1.0f / sums[0].lane[0]);
    sums[2] += d * (x - sums[1]);
}
DEVICE void merge_moments(v8 into[3], const v8 from[3])
{
    float total = into[0].lane[0] + from[0].lane[0];
    float share = total > 0 ? from[0].lane[0] / total : 0.0f;
    v8 shift = from[1] - into[1];
    into[2] += from[2] + shift * shift * (into[0].lane[0] * share);
    into[1] += shift * share;
    into[0] = splat8(total);
}
/* Rows of partial sums are as long as `blocks` channel blocks, rounded up to 16 channels. */
template <int ROWS>
DEVICE void store_partials(float *partials, int64_t part, int blocks, int cb, const v8 *sums)
{
    int row = (blocks + 1) / 2 * 16;
    float *to = partials + part * ROWS * row + 8 * cb;
    UNROLL for (int k = 0; k < ROWS; k++) {
        store8(to + k * row, sums[k]);
        if (cb + 1 == blocks && blocks % 2)
            store8(to + k * row + 8, splat8(0));
    }
}

/* Where a generated read function takes the elements of tensors from. A template that wants to load
 * before it computes calls it twice: with a Fetch, which keeps what it loads, in WORDS words, and
 * gives zeros, so that nothing else of the function remains; then with what was fetched. */
struct Direct {
    template <class T> DEVICE_MEMBER v8 load(int, const T *at) const { return load8(at); }
    template <class T> DEVICE_MEMBER v8 load_plain(int, const T *at, int64_t plane,
                                                   int channels) const
    {
        return load_plain8(at, plane, channels);
    }
};
template <int WORDS> struct Fetched {
    word4 words[WORDS];
    DEVICE_MEMBER v8 load(int i, const bf16 *) const { return words_bf16(words[i]); }
    DEVICE_MEMBER v8 load(int i, const float *) const
    {
        return words_floats(words[i], words[i + 1]);
    }
    template <class T> DEVICE_MEMBER v8 load_plain(int i, const T *, int64_t, int) const
    {
        return words_floats(words[i], words[i + 1]);
    }
};
template <int WORDS> struct Fetch {
    Fetched<WORDS> *to;
    DEVICE_MEMBER v8 load(int i, const bf16 *at) const
    {
        to->words[i] = load_global((const word4 *)at);
        return splat8(0);
    }
    DEVICE_MEMBER v8 load(int i, const float *at) const
    {
        to->words[i] = load_global((const word4 *)at);
        to->words[i + 1] = load_global((const word4 *)at + 1);
        return splat8(0);
    }
    template <class T> DEVICE_MEMBER v8 load_plain(int i, const T *at, int64_t plane,
                                                   int channels) const
    {
        v8 value = load_plain8(at, plane, channels);
        to->words[i] = floats_words(value, 0);
        to->words[i + 1] = floats_words(value, 1);
        return splat8(0);
    }
};

/* ---- functions of expressions ---------------------------------------------------------------- */

#define LANE_FUNCTION(NAME, EXPRESSION) \
    DEVICE v8 NAME(v8 a) \
    { \
        v8 y; \
        EACH_LANE { float x = a.lane[i]; y.lane[i] = EXPRESSION; } \
        return y; \
    }
LANE_FUNCTION(abs8, fabsf(x))
LANE_FUNCTION(exp8, expf(x))
LANE_FUNCTION(log8, logf(x))
LANE_FUNCTION(log1p8, log1pf(x))
LANE_FUNCTION(relu8, x < 0.0f ? 0.0f : x)
LANE_FUNCTION(sigmoid8, 1.0f / (1.0f + expf(-x)))
LANE_FUNCTION(erf8, erff(x))
DEVICE v8 silu8(v8 x)
{
    v8 limited = max8(x, splat8(-88.0f));                 /* -inf would give -inf * 0 */
    return limited * sigmoid8(limited);
}
DEVICE v8 silu_grad8(v8 dy, v8 x)
{
    v8 limited = max8(min8(x, splat8(88.0f)), splat8(-88.0f));
    v8 s = sigmoid8(limited);
    return dy * (s + limited * s * (1.0f - s));
}
DEVICE v8 gelu8(v8 x)
{
    return max8(x, splat8(-20.0f)) * 0.5f * (1.0f + erf8(x * 0.707106781f));
}
DEVICE v8 gelu_grad8(v8 dy, v8 x)
{
    v8 limited = max8(min8(x, splat8(20.0f)), splat8(-20.0f));
    v8 density = 0.398942280f * exp8(-0.5f * limited * limited);
    return dy * (0.5f * (1.0f + erf8(x * 0.707106781f)) + limited * density);
}

/* ---- random numbers: the same as on the host ------------------------------------------------- */

DEVICE uint32_t hash32(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}
/* In [0,1), for channels c0 .. c0+7; pixel = h * W + w. */
DEVICE v8 uniform8(uint64_t seed, uint64_t stream, int n, int c0, int pixel)
{
    uint32_t h = hash32(hash32((uint32_t)seed) + (uint32_t)(seed >> 32));
    h = hash32(hash32(hash32(h + (uint32_t)stream) + (uint32_t)n) + (uint32_t)pixel);
    v8 y;
    EACH_LANE y.lane[i] = (float)(hash32(h + (uint32_t)(c0 + i) * 0x9e3779b9u) >> 8)
                        * (1.0f / 16777216.0f);
    return y;
}

DEVICE int least(int a, int b) { return a < b ? a : b; }
DEVICE int most(int a, int b) { return a > b ? a : b; }
DEVICE int divide_up(int a, int b) { return (a + b - 1) / b; }
DEVICE int channel_blocks(int channels) { return (channels + 7) / 8; }
