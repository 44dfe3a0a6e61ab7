/* A stand-in for libcublas.so.13: it logs products and computes none.
 *
 *   STUB_CUBLAS=N   cublasGemmEx returns N
 */
#include "stub.h"

#include "runtime/device_cuda_api.h"

struct cublasContext { CUstream stream; size_t workspace; };

#define PROTOTYPE(name, parameters) cublasStatus_t name parameters;
CUBLAS_FUNCTIONS(PROTOTYPE)
const char *cublasGetStatusName(cublasStatus_t status);

const char *cublasGetStatusName(cublasStatus_t status)
{
    return status == 7 ? "CUBLAS_STATUS_INVALID_VALUE" : NULL;
}

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    int failure = stub_failure(__func__);
    if (!failure)
        *handle = calloc(1, sizeof **handle);
    return failure;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, CUstream stream)
{
    handle->stream = stream;
    handle->workspace = 0;
    return stub_failure(__func__);
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    handle->workspace = workspace ? bytes : 0;
    return stub_failure(__func__);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, int transpose_a, int transpose_b, int m, int n,
                            int k, const void *alpha, const void *a, int a_type, int lda,
                            const void *b, int b_type, int ldb, const void *beta, void *c,
                            int c_type, int ldc, int compute_type, int algorithm)
{
    stub_log("cublasGemmEx %d%d %d %d %d, type %d ld %d, type %d ld %d, type %d ld %d, "
             "%g %g %d %d, workspace %zu", transpose_a, transpose_b, m, n, k, a_type, lda, b_type,
             ldb, c_type, ldc, (double)*(const float *)alpha, (double)*(const float *)beta, compute_type,
             algorithm, handle->workspace);
    if (!a || !b || !c)
        return 7;
    return (int)stub_number("STUB_CUBLAS", 0);
}
