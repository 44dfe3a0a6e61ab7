/* One step of Adam (Kingma, Ba 2015) for all parameters at once, as PyTorch's, without decay:
 *   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *   p -= rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 * Every float is read once and written once: memory sets the time.
 *
 * own buffers: parameters, gradients, first moments m, second moments v, state (PlanState)
 * sizes: count of floats (a multiple of 16)    scalars: none    scratch: 0 */
enum { CHUNK = 8192 };

typedef struct { float beta1, rest1, beta2, rest2, rate, correction, eps; } Factors;

static void step_chunk(const Factors *factors, int64_t count, float *restrict p,
                       const float *restrict g, float *restrict m, float *restrict v)
{
    const Factors f = *factors;
    for (int64_t i = 0; i < count; i++) {
        m[i] = f.beta1 * m[i] + f.rest1 * g[i];
        v[i] = f.beta2 * v[i] + f.rest2 * g[i] * g[i];
        p[i] -= f.rate * m[i] / (sqrtf(v[i]) / f.correction + f.eps);
    }
}

void KERNEL(const KernelArguments *a)
{
    float *parameters = a->buffers[0], *first = a->buffers[2], *second = a->buffers[3];
    const float *gradients = a->buffers[1];
    const PlanState *state = a->buffers[4];
    double step = (double)state->step;
    Factors factors = {
        .beta1 = (float)state->beta1, .rest1 = (float)(1.0 - state->beta1),
        .beta2 = (float)state->beta2, .rest2 = (float)(1.0 - state->beta2),
        .rate = (float)(state->learning_rate / (1.0 - pow(state->beta1, step))),
        .correction = (float)sqrt(1.0 - pow(state->beta2, step)), .eps = (float)state->eps,
    };
    int64_t count = a->sizes[0];
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) if (count > CHUNK)
    for (int64_t i = 0; i < count; i += CHUNK)
        step_chunk(&factors, min64(CHUNK, count - i), parameters + i, gradients + i, first + i,
                   second + i);
}
