/* The few types and functions of CUDA's driver and of NVRTC that are called here, declared by
 * ourselves: neither library is linked, and no header of CUDA is needed to build.
 *
 * Source: CUDA Driver API reference ("Initialization", "Version Management", "Error Handling",
 * "Device Management", "Primary Context Management", "Context Management", "Module Management",
 * "Memory Management", "Stream Management", "Event Management", "Execution Control", "Graph
 * Management") and the NVRTC reference ("Error Handling", "General Information Query",
 * "Compilation"). Functions of the driver carry the number of their binary interface, as its
 * header's #defines do; these exist from CUDA 11.4 on. Names without one never changed.
 */
#ifndef DEVICE_CUDA_API_H
#define DEVICE_CUDA_API_H

#include <stddef.h>

/* ---- the driver ------------------------------------------------------------------------------ */

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr; /* 64-bit systems only */
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;

enum { /* CUresult, as far as they are told apart */
    CUDA_SUCCESS = 0,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_DEINITIALIZED = 4,
    CUDA_ERROR_STUB_LIBRARY = 34,
    CUDA_ERROR_DEVICE_UNAVAILABLE = 46,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_IMAGE = 200,
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
    CUDA_ERROR_ECC_UNCORRECTABLE = 214,
    CUDA_ERROR_NVLINK_UNCORRECTABLE = 220,
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
    CUDA_ERROR_CONTAINED = 226,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700,
    CUDA_ERROR_LAUNCH_TIMEOUT = 702,
    CUDA_ERROR_CONTEXT_IS_DESTROYED = 709,
    CUDA_ERROR_ASSERT = 710,
    CUDA_ERROR_HARDWARE_STACK_ERROR = 714,
    CUDA_ERROR_LAUNCH_FAILED = 719,   /* 714 to 719: what a kernel can do wrong */
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803,
    CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE = 804,
    CUDA_ERROR_UNKNOWN = 999
};
enum { /* CUdevice_attribute */
    CU_DEVICE_ATTRIBUTE_CLOCK_RATE = 13,              /* kHz */
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
    CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE = 36,       /* kHz; two transfers a clock */
    CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH = 37, /* bits */
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
};
enum { /* CUfunction_attribute */
    CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
    CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
    CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
    CU_FUNC_ATTRIBUTE_NUM_REGS = 4,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
};
enum { CU_STREAM_NON_BLOCKING = 1 };
enum { CU_EVENT_DEFAULT = 0, CU_EVENT_DISABLE_TIMING = 2 };
enum { CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1 };

/* F(name, parameters): all return a CUresult. */
#define CUDA_DRIVER_FUNCTIONS(F) \
    F(cuInit, (unsigned flags)) \
    F(cuDriverGetVersion, (int *version)) /* 12040: CUDA 12.4 */ \
    F(cuGetErrorName, (CUresult result, const char **name)) \
    F(cuGetErrorString, (CUresult result, const char **text)) \
    F(cuDeviceGetCount, (int *count)) \
    F(cuDeviceGet, (CUdevice *device, int ordinal)) \
    F(cuDeviceGetName, (char *name, int length, CUdevice device)) \
    F(cuDeviceGetAttribute, (int *value, int attribute, CUdevice device)) \
    F(cuDeviceTotalMem_v2, (size_t *bytes, CUdevice device)) \
    F(cuDevicePrimaryCtxRetain, (CUcontext *context, CUdevice device)) \
    F(cuDevicePrimaryCtxRelease_v2, (CUdevice device)) \
    F(cuCtxSetCurrent, (CUcontext context)) \
    F(cuModuleLoadData, (CUmodule *module, const void *image)) \
    F(cuModuleUnload, (CUmodule module)) \
    F(cuModuleGetFunction, (CUfunction *function, CUmodule module, const char *name)) \
    F(cuFuncGetAttribute, (int *value, int attribute, CUfunction function)) \
    F(cuFuncSetAttribute, (CUfunction function, int attribute, int value)) \
    F(cuMemGetInfo_v2, (size_t *available, size_t *total)) \
    F(cuMemAlloc_v2, (CUdeviceptr *memory, size_t bytes)) \
    F(cuMemFree_v2, (CUdeviceptr memory)) \
    F(cuMemAllocHost_v2, (void **memory, size_t bytes)) \
    F(cuMemFreeHost, (void *memory)) \
    F(cuMemsetD8Async, (CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream)) \
    F(cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream)) \
    F(cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream)) \
    F(cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)) \
    F(cuStreamCreate, (CUstream *stream, unsigned flags)) \
    F(cuStreamDestroy_v2, (CUstream stream)) \
    F(cuStreamSynchronize, (CUstream stream)) \
    F(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags)) \
    F(cuStreamBeginCapture_v2, (CUstream stream, int mode)) \
    F(cuStreamEndCapture, (CUstream stream, CUgraph *graph)) \
    F(cuEventCreate, (CUevent *event, unsigned flags)) \
    F(cuEventDestroy_v2, (CUevent event)) \
    F(cuEventRecord, (CUevent event, CUstream stream)) \
    F(cuEventSynchronize, (CUevent event)) \
    F(cuEventElapsedTime, (float *milliseconds, CUevent first, CUevent last)) \
    F(cuLaunchKernel, (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, \
                       unsigned block_x, unsigned block_y, unsigned block_z, \
                       unsigned shared_bytes, CUstream stream, void **parameters, void **extra)) \
    F(cuGraphInstantiateWithFlags, (CUgraphExec *exec, CUgraph graph, unsigned long long flags)) \
    F(cuGraphDestroy, (CUgraph graph)) \
    F(cuGraphExecDestroy, (CUgraphExec exec)) \
    F(cuGraphLaunch, (CUgraphExec exec, CUstream stream))

/* ---- NVRTC ----------------------------------------------------------------------------------- */

typedef int nvrtcResult;
typedef struct _nvrtcProgram *nvrtcProgram;

enum { NVRTC_SUCCESS = 0, NVRTC_ERROR_OUT_OF_MEMORY = 1, NVRTC_ERROR_COMPILATION = 6 };

/* As above; all return an nvrtcResult. These exist from CUDA 11.2 on. */
#define NVRTC_FUNCTIONS(F) \
    F(nvrtcVersion, (int *major, int *minor)) \
    F(nvrtcGetNumSupportedArchs, (int *count)) \
    F(nvrtcGetSupportedArchs, (int *archs)) /* 90: sm_90; ascending */ \
    F(nvrtcCreateProgram, (nvrtcProgram *program, const char *text, const char *name, \
                           int n_headers, const char *const *headers, \
                           const char *const *include_names)) \
    F(nvrtcDestroyProgram, (nvrtcProgram *program)) \
    F(nvrtcCompileProgram, (nvrtcProgram program, int n_options, const char *const *options)) \
    F(nvrtcGetCUBINSize, (nvrtcProgram program, size_t *bytes)) \
    F(nvrtcGetCUBIN, (nvrtcProgram program, char *cubin)) \
    F(nvrtcGetProgramLogSize, (nvrtcProgram program, size_t *bytes)) /* with its NUL */ \
    F(nvrtcGetProgramLog, (nvrtcProgram program, char *log))

/* ---- cuBLAS ---------------------------------------------------------------------------------- */

/* Source: cuBLAS reference, "cuBLAS Datatypes", "cuBLAS Helper Function", "cublasGemmEx". */
typedef int cublasStatus_t;
typedef struct cublasContext *cublasHandle_t;

enum { CUBLAS_STATUS_SUCCESS = 0 };
enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
enum { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_32F_FAST_TF32 = 77 };
enum { CUBLAS_GEMM_DEFAULT = -1 };

/* As above; all return a cublasStatus_t. Beside them cublasGetStatusName. From CUDA 11.4 on. */
#define CUBLAS_FUNCTIONS(F) \
    F(cublasCreate_v2, (cublasHandle_t *handle)) \
    F(cublasDestroy_v2, (cublasHandle_t handle)) \
    F(cublasSetStream_v2, (cublasHandle_t handle, CUstream stream)) \
    F(cublasSetWorkspace_v2, (cublasHandle_t handle, void *workspace, size_t bytes)) \
    F(cublasGemmEx, (cublasHandle_t handle, int transpose_a, int transpose_b, int m, int n, int k, \
                     const void *alpha, const void *a, int a_type, int lda, const void *b, \
                     int b_type, int ldb, const void *beta, void *c, int c_type, int ldc, \
                     int compute_type, int algorithm))

#endif
