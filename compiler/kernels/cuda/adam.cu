/* One step of Adam (Kingma, Ba 2015) for all parameters at once, as PyTorch's, without decay:
 *   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *   p -= rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 * Every float is read once and written once, 4 at a time: memory sets the time. The step's number
 * and the rates are read from memory, so that a recorded graph of launches stays valid.
 *
 * own buffers: parameters, gradients, first moments m, second moments v, state (PlanState)
 * sizes: count of floats (a multiple of 16)    scalars: none    own shared bytes: 32 */
typedef struct { float beta1, rest1, beta2, rest2, rate, correction, eps; } Factors;

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
    int64_t step = load_fixed(&state->step);
    double rate = load_fixed(&state->learning_rate) / (1.0 - power(beta1, step));
    Factors f = { (float)beta1, (float)(1.0 - beta1), (float)beta2, (float)(1.0 - beta2),
                  (float)rate, (float)sqrt(1.0 - power(beta2, step)),
                  (float)load_fixed(&state->eps) };
    return f;
}

/* One thread makes the factors for its block. */
DEVICE Factors shared_factors(const PlanState *state)
{
    if (thread_index() == 0) {
        Factors f = factors_of(state);
        float values[7] = { f.beta1, f.rest1, f.beta2, f.rest2, f.rate, f.correction, f.eps };
        UNROLL for (unsigned i = 0; i < 7; i++)
            store_shared(4 * i, values[i]);
    }
    barrier();
    Factors f = { load_shared<float>(0), load_shared<float>(4), load_shared<float>(8),
                  load_shared<float>(12), load_shared<float>(16), load_shared<float>(20),
                  load_shared<float>(24) };
    return f;
}

DEVICE void step_float(const Factors &f, uint32_t *p, uint32_t gradient, uint32_t *m, uint32_t *v)
{
    float g = bits_float(gradient);
    float first = f.beta1 * bits_float(*m) + f.rest1 * g;
    float second = f.beta2 * bits_float(*v) + f.rest2 * g * g;
    *m = float_bits(first);
    *v = float_bits(second);
    *p = float_bits(bits_float(*p) - f.rate * first / (sqrtf(second) / f.correction + f.eps));
}

ENTRY
{
    const Arguments *a = &arguments;
    word4 *parameters = (word4 *)a->buffers[0];
    const word4 *gradients = (const word4 *)a->buffers[1];
    word4 *moments = (word4 *)a->buffers[2], *squares = (word4 *)a->buffers[3];
    const Factors f = shared_factors((const PlanState *)a->buffers[4]);
    int count = a->sizes[0] / 4;
    for (int i = block_index() * THREADS + thread_index(); i < count; i += block_count() * THREADS) {
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
