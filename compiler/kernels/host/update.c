/* One step of the optimiser for all parameters at once, as PyTorch's; g is the gradient times its
 * scale, and t the number of the step:
 *   Adam (Kingma, Ba 2015)      g += decay p,  m = beta1 m + (1 - beta1) g,
 *                               v = beta2 v + (1 - beta2) g^2,
 *                               p -= rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 *   AdamW (Loshchilov, Hutter 2019)   p -= rate decay p instead of the first
 *   SGD                         g += decay p,  m = beta1 m + g,  p -= rate m
 *   SGD, Nesterov               ...,  p -= rate (g + beta1 m)
 * Every float is read once and written once: memory sets the time.
 *
 * own buffers: parameters, gradients, first moments m, second moments v, state (PlanState)
 * sizes: count of floats (a multiple of 16)    scalars: none    scratch: 0 */
enum { CHUNK = 8192 };

typedef struct {
    float scale, decay, keep;              /* of g; of p in g; of p in p */
    float beta1, rest1, beta2, rest2;
    float rate, correction, eps;
    float ahead, here;                     /* of m and of g in the step of SGD */
} Factors;

static Factors factors_of(const PlanState *state)
{
    double step = (double)state->step, rate = state->learning_rate, decay = state->weight_decay;
    int sgd = state->optimiser >= OPTIMISER_SGD, apart = state->optimiser == OPTIMISER_ADAMW;
    int nesterov = state->optimiser == OPTIMISER_NESTEROV;
    return (Factors){
        .scale = (float)state->gradient_scale, .decay = apart ? 0 : (float)decay,
        .keep = apart ? (float)(1.0 - rate * decay) : 1,
        .beta1 = (float)state->beta1, .rest1 = sgd ? 1 : (float)(1.0 - state->beta1),
        .beta2 = (float)state->beta2, .rest2 = (float)(1.0 - state->beta2),
        .rate = (float)(sgd ? rate : rate / (1.0 - pow(state->beta1, step))),
        .correction = (float)sqrt(1.0 - pow(state->beta2, step)), .eps = (float)state->eps,
        .ahead = nesterov ? (float)state->beta1 : 1, .here = nesterov,
    };
}

static void adam_chunk(const Factors *factors, int64_t count, float *restrict p,
                       const float *restrict gradients, float *restrict m, float *restrict v)
{
    const Factors f = *factors;
    for (int64_t i = 0; i < count; i++) {
        float g = f.scale * gradients[i] + f.decay * p[i];
        m[i] = f.beta1 * m[i] + f.rest1 * g;
        v[i] = f.beta2 * v[i] + f.rest2 * g * g;
        p[i] = f.keep * p[i] - f.rate * m[i] / (sqrtf(v[i]) / f.correction + f.eps);
    }
}

static void sgd_chunk(const Factors *factors, int64_t count, float *restrict p,
                      const float *restrict gradients, float *restrict m)
{
    const Factors f = *factors;
    for (int64_t i = 0; i < count; i++) {
        float g = f.scale * gradients[i] + f.decay * p[i];
        m[i] = f.beta1 * m[i] + g;
        p[i] -= f.rate * (f.ahead * m[i] + f.here * g);
    }
}

void KERNEL(const KernelArguments *a)
{
    float *p = a->buffers[0], *m = a->buffers[2], *v = a->buffers[3];
    const float *g = a->buffers[1];
    const PlanState *state = a->buffers[4];
    const Factors factors = factors_of(state);
    int sgd = state->optimiser >= OPTIMISER_SGD;
    int64_t count = a->sizes[0];
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) if (count > CHUNK)
    for (int64_t i = 0; i < count; i += CHUNK) {
        if (sgd)
            sgd_chunk(&factors, min64(CHUNK, count - i), p + i, g + i, m + i);
        else
            adam_chunk(&factors, min64(CHUNK, count - i), p + i, g + i, m + i, v + i);
    }
}
