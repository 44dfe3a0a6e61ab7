/* Convolutions as products of matrices, for `--gemm cublas`: what a fused plan is measured against.
 *
 *   forward          columns = im2col(x);           y = columns * weight^T
 *   transposed       columns = x * weight;          y = col2im(columns)      (input gradients too)
 *   weight gradient  columns = im2col(x);           dweight = dy^T * columns
 *
 * with the weight as a matrix [channels of y][taps * channels of x] (matmul_pack.cu), that of a
 * transposed convolution [channels of x][taps * channels of y]. The products are the vendor's
 * library's: steps of the kernel PLAN_MATMUL. Contractions whose operands are no matrices in memory,
 * because they have few channels, keep the kernels of lower_conv_cuda.c.
 */
#include "lower_cuda.h"

#include <string.h>

#include "emit.h"
#include "lower_small_cuda.h"

static const char threads_256[] = "#define THREADS 256\n";

static int64_t to_blocks(int64_t channels) { return (channels + 7) / 8 * 8; }
static int64_t taps(const ConvShape *shape) { return shape->kernel * shape->kernel; }
static bool is_matrix(const Node *node) { return node->stored && node->block; }

static int64_t element_bytes(const Graph *graph)
{
    return graph->target->stored == TYPE_BF16 ? 2 : 4;
}

bool is_matmul(const Graph *graph, const Group *group)
{
    const Node *anchor = group->anchor;
    if (!graph->compilation->gemm || !is_conv(anchor) || conv_shape(anchor).groups != 1)
        return false;
    if (anchor->op == OP_CONV_GRAD_WEIGHT)
        return is_matrix(anchor->inputs[1]);
    if (anchor->op == OP_CONV)
        return is_matrix(anchor) && anchor->n_inputs == 2 && group->root == anchor
            && group->n_reductions == 0;
    return is_matrix(anchor->inputs[0]);
}

/* Bytes of a sample's columns. */
static int64_t columns_bytes(const Graph *graph, const ConvShape *s)
{
    int64_t pixels = s->transposed ? s->H * s->W : s->P * s->Q;
    int64_t channels = to_blocks(s->transposed ? s->K : s->C);
    return pixels * taps(s) * channels * element_bytes(graph);
}

/* Rows and columns of the weight's matrix. */
static void weight_matrix(const ConvShape *s, int64_t *rows, int64_t *columns)
{
    *rows = to_blocks(s->transposed ? s->C : s->K);
    *columns = taps(s) * to_blocks(s->transposed ? s->K : s->C);
}

void matmul_temporaries(const Graph *graph, Group *group)
{
    ConvShape shape = conv_shape(group->anchor);
    int64_t rows, columns;
    weight_matrix(&shape, &rows, &columns);
    bool gradient = group->anchor->op == OP_CONV_GRAD_WEIGHT;
    Temporary *t = group->temporaries;
    t[TEMPORARY_PACKED].bytes = gradient ? 0 : rows * columns * element_bytes(graph);
    t[TEMPORARY_WORKSPACE].bytes = gradient ? rows * columns * 4 : 0;
    t[TEMPORARY_SAMPLES].bytes = columns_bytes(graph, &shape);
    t[TEMPORARY_SAMPLES].batched = true;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static CudaLaunch flat_launch(int64_t threads, int64_t threads_per_sample)
{
    return (CudaLaunch){ .defines = threads_256, .threads = 256, .blocks = (threads + 255) / 256,
                         .blocks_per_sample = (threads_per_sample + 255) / 256 };
}

/* Weights to their matrix, or the matrix of a gradient back. */
static void lower_weight(Lowering *l, const Group *group, const ConvShape *s, const char *template,
                         PlanBuffer from, PlanBuffer to)
{
    int64_t k = s->transposed ? s->C : s->K, c = s->transposed ? s->K : s->C, rows, columns;
    weight_matrix(s, &rows, &columns);
    Call call = { .template = template, .defines = "", .n_sizes = 3, .sizes = { k, c, taps(s) },
                  .n_buffers = 2, .buffers = { from, to } };
    CudaLaunch launch = flat_launch(rows * columns, 0);
    PlanStep *step = add_plain(l, &call, &launch);
    bool packs = strcmp(template, "matmul_pack.cu") == 0;
    step->once = packs && l->graph->program != PROGRAM_TRAIN;
    step->label = label_of(l->graph, group, packs ? " pack" : " unpack");
}

static void lower_im2col(Lowering *l, Group *group, const ConvShape *s, PlanBuffer columns)
{
    Call call = { .template = "im2col.cu", .defines = "", .n_sizes = 9,
                  .sizes = { s->C, s->H, s->W, s->P, s->Q, s->kernel, s->stride, s->padding,
                             s->dilation },
                  .n_buffers = 1, .buffers = { columns } };
    CudaLaunch launch = flat_launch(0, s->P * s->Q * taps(s) * to_blocks(s->C) / 8);
    Emission e = begin_emission(l, group, &call, &cuda_dialect);
    emit_cuda_read(&e, "x", group->anchor->inputs[0]);
    emit_width(&e);
    PlanStep *step = add_launches(l, &e, call.template, &launch, 1, header_of(l->graph, group));
    fill_step(l, step, e.buffers, e.n_buffers, e.sizes, e.n_sizes, e.scalars, e.n_scalars);
    step->label = label_of(l->graph, group, " im2col");
}

static void lower_col2im(Lowering *l, Group *group, const ConvShape *s, PlanBuffer columns)
{
    Call call = { .template = "col2im.cu", .defines = "", .n_sizes = 13,
                  .sizes = { s->C, s->H, s->W, s->K, s->P, s->Q, 0, 0, 0, s->kernel, s->stride,
                             s->padding, s->dilation },
                  .n_buffers = 1, .buffers = { columns } };
    CudaLaunch launch;
    lower_small_cuda("pointwise.cu", call.sizes, 9, true, &launch, NULL); /* it walks alike */
    call.parts = call.sizes[6];
    Emission e = begin_emission(l, group, &call, &cuda_dialect);
    emit_cuda_write(&e, NULL);
    emit_width(&e);
    PlanStep *step = add_launches(l, &e, call.template, &launch, 1, header_of(l->graph, group));
    fill_step(l, step, e.buffers, e.n_buffers, e.sizes, e.n_sizes, e.scalars, e.n_scalars);
    step->label = label_of(l->graph, group, " col2im");
}

static void lower_product(Lowering *l, const Group *group, const PlanBuffer buffers[3],
                          const int64_t sizes[MATMUL_SIZES])
{
    int kernel = 0;
    while (kernel < l->target->n_kernels
           && strcmp(l->target->kernels[kernel].name, PLAN_MATMUL) != 0)
        kernel++;
    if (kernel == l->target->n_kernels) {
        l->target->kernels = lower_append(l->graph->arena, l->target->kernels,
                                          &l->target->n_kernels, sizeof(PlanKernel));
        l->target->kernels[kernel] = (PlanKernel){ .name = (char *)PLAN_MATMUL, .header = (char *)"",
                                                           .body = (char *)"" };
    }
    PlanStep *step = add_step(l, kernel, group);
    fill_step(l, step, buffers, 3, sizes, MATMUL_SIZES, NULL, 0);
    step->label = label_of(l->graph, group, "");
    step->flops_per_sample = group_flops(group);
}

void lower_matmul(Lowering *l, Group *group)
{
    const Node *anchor = group->anchor;
    const Temporary *t = group->temporaries;
    ConvShape s = conv_shape(anchor);
    int64_t rows, columns, sizes[MATMUL_SIZES] = { 0 };
    weight_matrix(&s, &rows, &columns);
    PlanBuffer cols = temporary_buffer(&t[TEMPORARY_SAMPLES]);
    PlanBuffer weight = temporary_buffer(&t[TEMPORARY_PACKED]);
    if (anchor->op == OP_CONV_GRAD_WEIGHT) {
        PlanBuffer matrix = temporary_buffer(&t[TEMPORARY_WORKSPACE]);
        lower_im2col(l, group, &s, cols);
        sizes[MATMUL_ROWS] = rows;
        sizes[MATMUL_COLUMNS] = columns;
        sizes[MATMUL_DEPTH_PER_SAMPLE] = s.P * s.Q;
        sizes[MATMUL_A_TRANSPOSED] = sizes[MATMUL_FLOAT_RESULT] = 1;
        lower_product(l, group, (PlanBuffer[]){ node_buffer(anchor->inputs[1]), cols, matrix },
                      sizes);
        lower_weight(l, group, &s, "matmul_unpack.cu", matrix, node_buffer(anchor));
        return;
    }
    lower_weight(l, group, &s, "matmul_pack.cu", node_buffer(anchor->inputs[1]), weight);
    if (s.transposed) {
        sizes[MATMUL_ROWS_PER_SAMPLE] = s.H * s.W;
        sizes[MATMUL_COLUMNS] = columns;
        sizes[MATMUL_DEPTH] = rows;
        lower_product(l, group, (PlanBuffer[]){ node_buffer(anchor->inputs[0]), weight, cols },
                      sizes);
        lower_col2im(l, group, &s, cols);
        return;
    }
    lower_im2col(l, group, &s, cols);
    sizes[MATMUL_ROWS_PER_SAMPLE] = s.P * s.Q;
    sizes[MATMUL_COLUMNS] = rows;
    sizes[MATMUL_DEPTH] = columns;
    sizes[MATMUL_B_TRANSPOSED] = 1;
    lower_product(l, group, (PlanBuffer[]){ cols, weight, node_buffer(anchor) }, sizes);
}
