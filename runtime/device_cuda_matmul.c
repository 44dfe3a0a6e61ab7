/* Products of matrices by cuBLAS: the steps of the kernel PLAN_MATMUL, which `segc --gemm cublas`
 * makes. The library is loaded when a plan needs it.
 *
 * cuBLAS thinks in columns: a matrix that lies row by row is its transpose there. So the result's
 * transpose is computed, as b^T * a^T, and no matrix is moved.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_cuda.h"

/* What NVIDIA advises for Hopper; of our own, so that nothing is allocated while a graph is
 * recorded. */
static const size_t WORKSPACE_BYTES = (size_t)32 << 20;

/* ---- the library ----------------------------------------------------------------------------- */

static const char *status_name(const CudaBlas *blas, cublasStatus_t status)
{
    const char *name = blas->cublasGetStatusName(status);
    return name ? name : "an unknown error";
}

static bool find_functions(CudaBlas *blas, Error *error)
{
    *(void **)&blas->cublasGetStatusName = dlsym(blas->library, "cublasGetStatusName");
    bool complete = blas->cublasGetStatusName != NULL;
#define FIND(name, parameters) \
    complete = complete && (*(void **)&blas->name = dlsym(blas->library, #name));
    CUBLAS_FUNCTIONS(FIND)
#undef FIND
    return complete || fail(error, EXIT_ENVIRONMENT, "install cuBLAS of a newer CUDA toolkit",
                            "%s is too old: functions are missing", blas->path);
}

bool cuda_blas_open(CudaDevice *cuda, Error *error)
{
    static const char *const names[] = { "libcublas.so.13", "libcublas.so.12", "libcublas.so.11",
                                         "libcublas.so" };
    CudaBlas *blas = &cuda->blas;
    if (blas->handle)
        return true;
    /* Of NVRTC's version, if it is there: one toolkit's libraries go together. */
    int first = cuda->nvrtc.major == 12 ? 1 : cuda->nvrtc.major == 11 ? 2 : 0;
    for (int i = 0; i < 4 && !blas->library; i++)
        blas->library = cuda_library_open(names[(first + i) % 4], blas->path);
    if (!blas->library)
        return fail(error, EXIT_ENVIRONMENT,
                    "install libcublas of a CUDA toolkit, or compile the model without --gemm "
                    "cublas",
                    "no cuBLAS, which this plan needs: there is no libcublas.so.13 or "
                    "libcublas.so.12");
    if (!find_functions(blas, error)
        || !CUDA_CALL(cuda, error, cuMemAlloc_v2, &blas->workspace, WORKSPACE_BYTES))
        return false;
    cublasStatus_t status = blas->cublasCreate_v2(&blas->handle);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = blas->cublasSetStream_v2(blas->handle, cuda->compute);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = blas->cublasSetWorkspace_v2(blas->handle, (void *)(uintptr_t)blas->workspace,
                                             WORKSPACE_BYTES);
    return status == CUBLAS_STATUS_SUCCESS
        || fail(error, EXIT_ENVIRONMENT, "use a smaller batch: it needs memory on the GPU",
                "%s: cuBLAS does not start: %s", blas->path, status_name(blas, status));
}

void cuda_blas_close(CudaDevice *cuda)
{
    CudaBlas *blas = &cuda->blas;
    if (blas->handle)
        blas->cublasDestroy_v2(blas->handle);
    if (blas->workspace)
        cuda->driver.cuMemFree_v2(blas->workspace);
    if (blas->library)
        dlclose(blas->library);
    *blas = (CudaBlas){ 0 };
}

/* ---- a product ------------------------------------------------------------------------------- */

bool cuda_is_matmul(const CudaKernels *kernels, const PlanStep *step)
{
    return strcmp(kernels->target->kernels[step->kernel].name, PLAN_MATMUL) == 0;
}

bool cuda_matmul(CudaDevice *cuda, const DeviceStep *step, int64_t batch, Error *error)
{
    CudaBlas *blas = &cuda->blas;
    const int64_t *s = step->plan->sizes;
    const float one = 1, zero = 0;
    int64_t rows = s[MATMUL_ROWS] + batch * s[MATMUL_ROWS_PER_SAMPLE];
    int64_t depth = s[MATMUL_DEPTH] + batch * s[MATMUL_DEPTH_PER_SAMPLE];
    int columns = (int)s[MATMUL_COLUMNS];
    if (rows > INT32_MAX || depth > INT32_MAX)
        return fail(error, EXIT_USER, "use a smaller batch",
                    "step '%s': a matrix of %lld rows and a depth of %lld is too large for cuBLAS",
                    step->plan->label, (long long)rows, (long long)depth);
    bool bf16 = strcmp(cuda->precision, "bf16") == 0, tf32 = strcmp(cuda->precision, "tf32") == 0;
    int type = bf16 ? CUDA_R_16BF : CUDA_R_32F;
    bool a_transposed = s[MATMUL_A_TRANSPOSED], b_transposed = s[MATMUL_B_TRANSPOSED];
    cublasStatus_t status = blas->cublasGemmEx(
        blas->handle, b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
        a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, columns, (int)rows, (int)depth, &one,
        step->buffers[1], type, b_transposed ? (int)depth : columns, step->buffers[0], type,
        a_transposed ? (int)rows : (int)depth, &zero, step->buffers[2],
        s[MATMUL_FLOAT_RESULT] ? CUDA_R_32F : type, columns,
        tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return status == CUBLAS_STATUS_SUCCESS
        || fail(error, EXIT_ENVIRONMENT, "SEG_DEBUG=1 may say more", "%s: cublasGemmEx: %s; "
                "step '%.200s': %lld x %lld x %d", cuda->name, status_name(blas, status),
                step->plan->label, (long long)rows, (long long)depth, columns);
}
