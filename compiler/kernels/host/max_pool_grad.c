/* Gradient of max pooling: dy of a window goes to the first largest pixel (row by row) of x in that
 * window; where windows overlap, gradients add up in the order of the windows. The rows of dy that
 * reach a part's rows are taken in order; x and the unfinished rows of the result lie in rings of
 * `kernel` rows. A window on the border of two parts is done by both, so no two threads ever add to
 * the same row.
 *
 * own buffers: none    own scalars: none
 * scratch: 64 * (W + 2 * kernel * Q)
 * sizes: C H W of dy; K P Q of x and the result; parts a sample; rows of the result a part; kernel
 * stride padding */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_ROWS,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING
};

typedef struct {
    float *dy;              /* [W][16]: one row */
    float *x, *dx;          /* [kernel][Q][16]: row h lies at h % kernel */
    int64_t opened;         /* the rows below are, or have been, in the rings */
    int64_t written;        /* the next row of the result to write */
} Rows;

/* The windows of one row of dy over the rows top <= h < bottom of x. */
static void scatter_row(const int64_t *s, const Rows *rows, int64_t top, int64_t bottom)
{
    int64_t kernel = s[SIZE_KERNEL], width = s[SIZE_Q];
    for (int64_t j = 0; j < s[SIZE_W]; j++) {
        int64_t left = max64(j * s[SIZE_STRIDE] - s[SIZE_PADDING], 0);
        int64_t right = min64(j * s[SIZE_STRIDE] - s[SIZE_PADDING] + kernel, width);
        v16 best = load16(rows->x + 16 * (width * (top % kernel) + left));
        int64_t slot = top % kernel;
        for (int64_t h = top; h < bottom; h++, slot = slot + 1 < kernel ? slot + 1 : 0)
            for (int64_t w = left; w < right; w++)
                best = max16(best, load16(rows->x + 16 * (width * slot + w)));
        v16 dy = load16(rows->dy + 16 * j);
        v16i taken = {0};
        slot = top % kernel;
        for (int64_t h = top; h < bottom; h++, slot = slot + 1 < kernel ? slot + 1 : 0)
            for (int64_t w = left; w < right; w++) {
                float *dx = rows->dx + 16 * (width * slot + w);
                v16i hit = ~(less16(load16(rows->x + 16 * (width * slot + w)), best) | taken);
                taken |= hit;
                store16(dx, load16(dx) + keep16(hit, dy));
            }
    }
}

/* The same for kernel = stride = 2 without padding. */
static void scatter_pairs(const int64_t *s, const Rows *rows)
{
    const float *x0 = rows->x, *x1 = rows->x + 16 * s[SIZE_Q];
    float *dx0 = rows->dx, *dx1 = rows->dx + 16 * s[SIZE_Q];
    for (int64_t j = 0; j < s[SIZE_W]; j++) {
        v16 dy = load16(rows->dy + 16 * j);
        v16 x00 = load16(x0 + 32 * j), x01 = load16(x0 + 32 * j + 16);
        v16 x10 = load16(x1 + 32 * j), x11 = load16(x1 + 32 * j + 16);
        v16 best = max16(max16(x00, x01), max16(x10, x11));
        v16i less00 = less16(x00, best), less01 = less16(x01, best), less10 = less16(x10, best);
        store16(dx0 + 32 * j, keep16(~less00, dy));
        store16(dx0 + 32 * j + 16, keep16(less00 & ~less01, dy));
        store16(dx1 + 32 * j, keep16(less00 & less01 & ~less10, dy));
        store16(dx1 + 32 * j + 16, keep16(less00 & less01 & less10, dy));
    }
}

/* Writes the rows below `limit`; those that no window reaches are zero. */
static void write_rows(const KernelArguments *a, int64_t n, int64_t cb, Rows *rows, int64_t limit,
                       v16 *accumulators)
{
    int64_t kernel = a->sizes[SIZE_KERNEL], width = a->sizes[SIZE_Q];
    for (; rows->written < limit; rows->written++) {
        float *dx = rows->dx + 16 * width * (rows->written % kernel);
        if (rows->written >= rows->opened) {
            memset(dx, 0, (size_t)width * 64);
            rows->opened = rows->written + 1;
        }
        write_y(a, n, cb, rows->written, 0, width, dx, accumulators);
    }
}

static void one_part(const KernelArguments *a, int64_t n, int64_t part, int64_t cb)
{
    const int64_t *s = a->sizes;
    int64_t kernel = s[SIZE_KERNEL], stride = s[SIZE_STRIDE], padding = s[SIZE_PADDING];
    int64_t width = s[SIZE_Q];
    int64_t begin = part * s[SIZE_ROWS], end = min64(begin + s[SIZE_ROWS], s[SIZE_P]);
    int64_t first = max64(begin + padding - kernel + stride, 0) / stride;
    int64_t last = min64((end - 1 + padding) / stride + 1, s[SIZE_H]);
    Rows rows = {.dy = thread_scratch(a), .written = begin};
    rows.x = rows.dy + 16 * s[SIZE_W];
    rows.dx = rows.x + 16 * kernel * width;
    rows.opened = min64(begin, max64(first * stride - padding, 0));
    v16 accumulators[ACCUMULATORS + 1];
    memset(accumulators, 0, sizeof accumulators);
    for (int64_t i = first; i < last; i++) {
        int64_t top = max64(i * stride - padding, 0);
        int64_t bottom = min64(i * stride - padding + kernel, s[SIZE_P]);
        write_rows(a, n, cb, &rows, min64(top, end), accumulators);
        for (int64_t h = max64(rows.opened, top); h < bottom; h++) {
            read_x(a, n, cb, h, 0, width, rows.x + 16 * width * (h % kernel));
            memset(rows.dx + 16 * width * (h % kernel), 0, (size_t)width * 64);
        }
        rows.opened = max64(rows.opened, bottom);
        read_dy(a, n, cb, i, 0, s[SIZE_W], rows.dy);
        if (kernel == 2 && stride == 2 && padding == 0)
            scatter_pairs(s, &rows);
        else
            scatter_row(s, &rows, top, bottom);
    }
    write_rows(a, n, cb, &rows, end, accumulators);
    finish_y(a, n, part, cb, accumulators);
}

void KERNEL(const KernelArguments *a)
{
    const int64_t *s = a->sizes;
    int64_t blocks = channel_blocks(s[SIZE_K]), parts = s[SIZE_PARTS];
    int64_t tasks = a->batch * blocks * parts;
#pragma omp parallel for num_threads(a->threads) schedule(dynamic) \
    if (a->batch * blocks * s[SIZE_P] * s[SIZE_Q] > 1024)
    for (int64_t task = 0; task < tasks; task++)
        one_part(a, task / parts / blocks, task % parts, task / parts % blocks);
}
