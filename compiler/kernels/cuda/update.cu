/* One step of the optimiser for a range of the parameters, as PyTorch's; g is the gradient times its
 * scale, and t the number of the step:
 *   Adam (Kingma, Ba 2015)      g += decay p,  m = beta1 m + (1 - beta1) g,
 *                               v = beta2 v + (1 - beta2) g^2,
 *                               p -= rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 *   AdamW (Loshchilov, Hutter 2019)   p -= rate decay p instead of the first
 *   SGD                         g += decay p,  m = beta1 m + g,  p -= rate m
 *   SGD, Nesterov               ...,  p -= rate (g + beta1 m)
 * and the new convolution weights packed as conv.cu wants them (conv_packed.cu). Every float is read
 * once and written once: memory sets the time. The step's number and the rates are read from memory,
 * so that a recorded graph of launches stays valid.
 *
 * The range is cut into SEGMENTS. A plain one is any floats, 16 a thread. A weight [first][second]
 * [taps] is done in tiles of 16 x 16 x taps: new values go through shared memory into its packings,
 * A with `first` the result's channels and `second` those of x, B the other way round, zeros behind
 * the last channels included.
 *
 * own buffers: parameters, gradients, first moments m, second moments v (this range of each), state
 * (PlanState), then the packed weights of each segment, A before B
 * sizes: those of a segment, SEGMENTS times    scalars: none
 * own shared bytes: 64 + 16 * (16 * 4 + 4) * the most taps */
enum {
    SEGMENT_FIRST_BLOCK, SEGMENT_OFFSET,   /* its first block; its first float in the range */
    SEGMENT_COUNT,                         /* floats of a plain one; else its first packed buffer */
    SEGMENT_FIRST, SEGMENT_SECOND, SEGMENT_TAPS,
    SEGMENT_STEPS_A, SEGMENT_STEPS_B,      /* steps a tap of its packings; 0: none */
    SEGMENT_SIZES,
    TILE = 16, TILE_AT = 64, THREAD_FLOATS = 16,
};

typedef struct {
    float scale, decay, keep;              /* of g; of p in g; of p in p */
    float beta1, rest1, beta2, rest2;
    float rate, correction, eps;
    float ahead, here;                     /* of m and of g in the step of SGD */
    float sgd;                             /* 0: Adam */
} Factors;
enum { N_FACTORS = sizeof(Factors) / sizeof(float) };

/* x^n by squaring; n >= 0. */
DEVICE double power(double x, int64_t n)
{
    double y = 1.0;
    for (; n > 0; n /= 2, x *= x)
        y = n % 2 ? y * x : y;
    return y;
}

DEVICE Factors factors_of(const PlanState *state)
{
    double beta1 = load_fixed(&state->beta1), beta2 = load_fixed(&state->beta2);
    double rate = load_fixed(&state->learning_rate), decay = load_fixed(&state->weight_decay);
    int64_t step = load_fixed(&state->step), optimiser = load_fixed(&state->optimiser);
    bool sgd = optimiser >= OPTIMISER_SGD, apart = optimiser == OPTIMISER_ADAMW;
    bool nesterov = optimiser == OPTIMISER_NESTEROV;
    Factors f = {
        (float)load_fixed(&state->gradient_scale), apart ? 0.0f : (float)decay,
        apart ? (float)(1.0 - rate * decay) : 1.0f,
        (float)beta1, sgd ? 1.0f : (float)(1.0 - beta1), (float)beta2, (float)(1.0 - beta2),
        (float)(sgd ? rate : rate / (1.0 - power(beta1, step))),
        (float)sqrt(1.0 - power(beta2, step)), (float)load_fixed(&state->eps),
        nesterov ? (float)beta1 : 1.0f, nesterov ? 1.0f : 0.0f, sgd ? 1.0f : 0.0f,
    };
    return f;
}

/* One thread makes the factors for its block. */
DEVICE Factors shared_factors(const PlanState *state)
{
    union { Factors f; float values[N_FACTORS]; } all;
    if (thread_index() == 0) {
        all.f = factors_of(state);
        UNROLL for (unsigned i = 0; i < N_FACTORS; i++)
            store_shared(4 * i, all.values[i]);
    }
    barrier();
    UNROLL for (unsigned i = 0; i < N_FACTORS; i++)
        all.values[i] = load_shared<float>(4 * i);
    return all.f;
}

DEVICE void step_float(const Factors &f, uint32_t *p, uint32_t gradient, uint32_t *m, uint32_t *v)
{
    float before = bits_float(*p), g = f.scale * bits_float(gradient) + f.decay * before;
    float first = f.beta1 * bits_float(*m) + f.rest1 * g, move = f.ahead * first + f.here * g;
    *m = float_bits(first);
    if (f.sgd == 0.0f) {
        float second = f.beta2 * bits_float(*v) + f.rest2 * g * g;
        *v = float_bits(second);
        move = first / (sqrtf(second) / f.correction + f.eps);
    }
    *p = float_bits(f.keep * before - f.rate * move);
}

/* ---- plain segments -------------------------------------------------------------------------- */

DEVICE void step_plain(const Arguments *a, const int *segment, int block, const Factors &f)
{
    word4 *parameters = (word4 *)a->buffers[0], *moments = (word4 *)a->buffers[2];
    word4 *squares = (word4 *)a->buffers[3];
    const word4 *gradients = (const word4 *)a->buffers[1];
    int begin = segment[SEGMENT_OFFSET] / 4, end = begin + segment[SEGMENT_COUNT] / 4;
    begin += block * THREADS * (THREAD_FLOATS / 4) + thread_index();
    UNROLL for (int k = 0; k < THREAD_FLOATS / 4; k++) {
        int i = begin + k * THREADS;
        if (i < end) {
            word4 p = load_global(parameters + i), g = load_global(gradients + i);
            word4 m = load_global(moments + i), v = load_global(squares + i);
            step_float(f, &p.x, g.x, &m.x, &v.x);
            step_float(f, &p.y, g.y, &m.y, &v.y);
            step_float(f, &p.z, g.z, &m.z, &v.z);
            step_float(f, &p.w, g.w, &m.w, &v.w);
            store_global(parameters + i, p);
            store_global(moments + i, m);
            store_global(squares + i, v);
        }
    }
}

/* ---- packed weights -------------------------------------------------------------------------- */

/* Byte of a tile's element in shared memory: rows of [second][taps], a word for each tap between. */
DEVICE unsigned tile_at(const int *segment, int first, int second, int tap)
{
    int taps = segment[SEGMENT_TAPS];
    return TILE_AT + (unsigned)(first * (TILE + 1) * taps + second * taps + tap) * 4;
}

/* Takes the step for the tile from element (first, second) on; the new values go to shared memory. */
DEVICE void step_tile(const Arguments *a, const int *segment, int first, int second,
                      const Factors &f)
{
    uint32_t *parameters = (uint32_t *)a->buffers[0], *moments = (uint32_t *)a->buffers[2];
    uint32_t *squares = (uint32_t *)a->buffers[3];
    const uint32_t *gradients = (const uint32_t *)a->buffers[1];
    int taps = segment[SEGMENT_TAPS], row = TILE * taps;
    for (int i = thread_index(); i < TILE * row; i += THREADS) {
        int o = i / row, c = i % row / taps, tap = i % taps;
        uint32_t p = 0;
        if (first + o < segment[SEGMENT_FIRST] && second + c < segment[SEGMENT_SECOND]) {
            int at = segment[SEGMENT_OFFSET]
                   + ((first + o) * segment[SEGMENT_SECOND] + second + c) * taps + tap;
            p = load_global(parameters + at);
            uint32_t m = load_global(moments + at), v = load_global(squares + at);
            step_float(f, &p, load_global(gradients + at), &m, &v);
            store_global(parameters + at, p);
            store_global(moments + at, m);
            store_global(squares + at, v);
        }
        store_shared(tile_at(segment, o, c, tap), p);
    }
}

/* Packs the tile: result channels from `result` on, channels of x from `x` on. */
DEVICE void pack_tile(const int *segment, int result, int x, bool result_first, int steps,
                      int results, void *packed)
{
    int taps = segment[SEGMENT_TAPS];
    for (int i = thread_index(); i < TILE * 2 * taps; i += THREADS) {
        int o = i % TILE, block = i / TILE % 2, tap = i / TILE / 2, k = x + 8 * block;
        if (result + o >= divide_up(results, 16) * 16 || k >= steps * STEP_CHANNELS)
            continue;
        v8 value;
        UNROLL for (int lane = 0; lane < 8; lane++) {
            int c = 8 * block + lane;
            value.lane[lane] = load_shared<float>(result_first ? tile_at(segment, o, c, tap)
                                                               : tile_at(segment, c, o, tap));
        }
        store_packed8(packed, packed_place(result + o, tap * steps * STEP_CHANNELS + k,
                                           steps * taps), value);
    }
}

DEVICE void step_weight(const Arguments *a, const int *segment, int block, const Factors &f)
{
    int steps_a = segment[SEGMENT_STEPS_A], steps_b = segment[SEGMENT_STEPS_B];
    int columns = divide_up(most(segment[SEGMENT_SECOND], steps_a * STEP_CHANNELS), TILE);
    int first = block / columns * TILE, second = block % columns * TILE;
    int buffer = segment[SEGMENT_COUNT];
    step_tile(a, segment, first, second, f);
    barrier();
    if (steps_a)
        pack_tile(segment, first, second, true, steps_a, segment[SEGMENT_FIRST],
                  a->buffers[buffer]);
    if (steps_b)
        pack_tile(segment, second, first, false, steps_b, segment[SEGMENT_SECOND],
                  a->buffers[buffer + (steps_a != 0)]);
}

ENTRY
{
    const Arguments *a = &arguments;
    const Factors f = shared_factors((const PlanState *)a->buffers[4]);
    const int *segment = a->sizes;
    int block = block_index();
    for (int i = 1; i < SEGMENTS && block >= a->sizes[i * SEGMENT_SIZES]; i++)
        segment += SEGMENT_SIZES;
    block -= segment[SEGMENT_FIRST_BLOCK];
    if (segment[SEGMENT_FIRST])
        step_weight(a, segment, block, f);
    else
        step_plain(a, segment, block, f);
}
