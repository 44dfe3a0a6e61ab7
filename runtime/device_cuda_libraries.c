/* Loading CUDA's driver and NVRTC at run time, and choosing the architecture to build for.
 *
 * Several toolkits may be installed. The best NVRTC is one that knows the GPU's architecture and is
 * not of a later CUDA than the driver: a cubin of a later major version may not load. Between GPUs
 * of one major version (8.0, 8.6, 8.9) cubins of the smaller number run on the larger one, so an
 * older NVRTC still serves.
 *
 * $SEG_CUDA_LIBRARIES names a folder from which both are taken, and from nowhere else.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_cuda.h"

enum { OLDEST_DRIVER = 11040, MAX_ARCHITECTURES = 64 };

static const char *given_folder(void)
{
    const char *folder = getenv("SEG_CUDA_LIBRARIES");
    return folder && *folder ? folder : NULL;
}

/* A library by its name alone is searched for by the loader. folder: NULL: none. */
static void *open_library(const char *folder, const char *name, char path[512])
{
    snprintf(path, 512, "%s%s%s", folder ? folder : "", folder ? "/" : "", name);
    /* NODELETE: the driver has threads of its own, and is not made for being unloaded */
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

void *cuda_library_open(const char *name, char path[512])
{
    static const char *const variables[] = { "CUDA_HOME", "CUDA_PATH" };
    char folder[400];
    void *library = open_library(given_folder(), name, path);
    for (int i = 0; !given_folder() && !library && i < 2; i++) {
        const char *toolkit = getenv(variables[i]);
        snprintf(folder, sizeof folder, "%s/lib64", toolkit ? toolkit : "");
        library = toolkit && *toolkit ? open_library(folder, name, path) : NULL;
    }
    if (!given_folder() && !library)
        library = open_library("/usr/local/cuda/lib64", name, path);
    return library;
}

/* ---- the driver ------------------------------------------------------------------------------ */

static bool find_driver_functions(CudaDriver *driver, Error *error)
{
    static const char hint[] = "update the NVIDIA driver: one for CUDA 11.4 or later is needed";
#define FIND(name, parameters) \
    if (!(*(void **)&driver->name = dlsym(driver->library, #name))) \
        return fail(error, EXIT_ENVIRONMENT, hint, "the NVIDIA driver is too old: it has no %s", \
                    #name);
    CUDA_DRIVER_FUNCTIONS(FIND)
#undef FIND
    return true;
}

static bool init_failed(const CudaDriver *driver, CUresult result, Error *error)
{
    const char *name = NULL;
    driver->cuGetErrorName(result, &name);
    switch (result) {
    case CUDA_ERROR_NO_DEVICE:
        return fail(error, EXIT_ENVIRONMENT,
                    "nvidia-smi lists the GPUs; CUDA_VISIBLE_DEVICES can hide them",
                    "no GPU: the NVIDIA driver finds no device");
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
        return fail(error, EXIT_ENVIRONMENT, "restart the machine after an update of the driver",
                    "the NVIDIA driver's library and its kernel module are of different versions");
    case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
        return fail(error, EXIT_ENVIRONMENT,
                    "remove CUDA's compatibility package, or update the driver",
                    "libcuda.so.1 is CUDA's compatibility library, which this GPU does not allow");
    case CUDA_ERROR_STUB_LIBRARY:
        return fail(error, EXIT_ENVIRONMENT, "install the NVIDIA driver, or use -d cpu",
                    "libcuda.so.1 is a toolkit's stub, not the NVIDIA driver");
    default:
        return fail(error, EXIT_ENVIRONMENT, "nvidia-smi may say more; -d cpu runs without a GPU",
                    "the NVIDIA driver does not start: cuInit: %s (%d)", name ? name : "error",
                    result);
    }
}

bool cuda_driver_open(CudaDriver *driver, Error *error)
{
    static const char *const folders[] = { NULL, "/usr/lib/wsl/lib" };
    char path[512];
    *driver = (CudaDriver){ 0 };
    if (given_folder())
        driver->library = open_library(given_folder(), "libcuda.so.1", path);
    for (int i = 0; !given_folder() && !driver->library && i < 2; i++)
        driver->library = open_library(folders[i], "libcuda.so.1", path);
    if (!driver->library)
        return fail(error, EXIT_ENVIRONMENT, "install the NVIDIA driver, or use -d cpu",
                    "no NVIDIA driver: there is no libcuda.so.1");
    if (!find_driver_functions(driver, error))
        return false;
    CUresult result = driver->cuInit(0);
    if (result != CUDA_SUCCESS)
        return init_failed(driver, result, error);
    result = driver->cuDriverGetVersion(&driver->version);
    if (result == CUDA_SUCCESS && driver->version >= OLDEST_DRIVER)
        return true;
    return fail(error, EXIT_ENVIRONMENT, "update the NVIDIA driver",
                "the NVIDIA driver is too old: it is for CUDA %d.%d, 11.4 is needed",
                driver->version / 1000, driver->version % 1000 / 10);
}

void cuda_driver_close(CudaDriver *driver)
{
    if (driver->library)
        dlclose(driver->library);
    *driver = (CudaDriver){ 0 };
}

/* ---- NVRTC ----------------------------------------------------------------------------------- */

/* How well one serves. */
enum { UNUSABLE, LATER_THAN_DRIVER, RELATED_ARCHITECTURE, EXACT };

static bool find_nvrtc_functions(Nvrtc *nvrtc)
{
#define FIND(name, parameters) \
    if (!(*(void **)&nvrtc->name = dlsym(nvrtc->library, #name))) \
        return false;
    NVRTC_FUNCTIONS(FIND)
#undef FIND
    return nvrtc->nvrtcVersion(&nvrtc->major, &nvrtc->minor) == NVRTC_SUCCESS;
}

/* The architecture to build for: this one, else the largest of its major version below it. 0 where
 * it knows none; range: those it knows. */
static int choose_architecture(const Nvrtc *nvrtc, int capability, int range[2])
{
    int known[MAX_ARCHITECTURES], count = 0, chosen = 0;
    range[0] = range[1] = 0;
    if (nvrtc->nvrtcGetNumSupportedArchs(&count) != NVRTC_SUCCESS || count < 1
        || count > MAX_ARCHITECTURES || nvrtc->nvrtcGetSupportedArchs(known) != NVRTC_SUCCESS)
        return 0;
    range[0] = known[0];
    range[1] = known[count - 1];
    for (int i = 0; i < count; i++)
        if (known[i] / 10 == capability / 10 && known[i] <= capability && known[i] > chosen)
            chosen = known[i];
    return chosen;
}

static int rate(Nvrtc *nvrtc, int capability, int driver_version, int range[2])
{
    int architecture = choose_architecture(nvrtc, capability, range);
    if (!architecture)
        return UNUSABLE;
    /* What only this architecture has, such as wgmma, needs the suffix; CUDA 12 brought it. */
    bool specific = architecture == capability && capability >= 90 && nvrtc->major >= 12;
    snprintf(nvrtc->architecture, sizeof nvrtc->architecture, "sm_%d%s", architecture,
             specific ? "a" : "");
    return nvrtc->major > driver_version / 1000 ? LATER_THAN_DRIVER
         : architecture != capability ? RELATED_ARCHITECTURE : EXACT;
}

static bool nvrtc_missing(const Nvrtc *seen, const int range[2], int capability, Error *error)
{
    if (!seen->major)
        return fail(error, EXIT_ENVIRONMENT,
                    "install libnvrtc of a CUDA toolkit, or set CUDA_HOME to the toolkit; -d cpu "
                    "does without",
                    "no NVRTC, which builds CUDA kernels: there is no libnvrtc.so.13 or "
                    "libnvrtc.so.12");
    return fail(error, EXIT_ENVIRONMENT,
                capability > range[1] ? "install libnvrtc of a newer CUDA toolkit, or use -d cpu"
                                      : "install libnvrtc of an older CUDA toolkit (libnvrtc.so.12 "
                                        "still knows sm_70), or use -d cpu",
                "NVRTC %d.%d (%s) builds for sm_%d to sm_%d, not for this GPU, sm_%d", seen->major,
                seen->minor, seen->path, range[0], range[1], capability);
}

/* Takes the place of *best if it serves better. */
static void consider(Nvrtc *best, int *best_rating, int best_range[2], const char *folder,
                     const char *name, int capability, int driver_version)
{
    Nvrtc found = { 0 };
    int range[2];
    found.library = open_library(folder, name, found.path);
    if (!found.library)
        return;
    int rating = find_nvrtc_functions(&found)
               ? rate(&found, capability, driver_version, range) : -1;
    if (rating < 0 || (best->library && rating <= *best_rating)) {
        nvrtc_close(&found);
        return;
    }
    nvrtc_close(best);
    *best = found;
    *best_rating = rating;
    memcpy(best_range, range, sizeof range);
}

bool nvrtc_open(Nvrtc *nvrtc, int capability, int driver_version, Error *error)
{
    static const char *const names[] = { "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2",
                                         "libnvrtc.so" };
    static const char *const variables[] = { "CUDA_HOME", "CUDA_PATH" };
    const char *folders[4] = { given_folder() };
    char toolkits[2][400];
    int n_folders = 1, rating = UNUSABLE, range[2] = { 0 };
    for (int i = 0; !given_folder() && i < 2; i++) {
        const char *toolkit = getenv(variables[i]);
        if (!toolkit || !*toolkit)
            continue;
        snprintf(toolkits[i], sizeof toolkits[i], "%s/lib64", toolkit);
        folders[n_folders++] = toolkits[i];
    }
    if (!given_folder())
        folders[n_folders++] = "/usr/local/cuda/lib64";
    *nvrtc = (Nvrtc){ 0 };
    for (int i = 0; i < n_folders * 4 && rating < EXACT; i++)
        consider(nvrtc, &rating, range, folders[i / 4], names[i % 4], capability, driver_version);
    if (rating != UNUSABLE)
        return true;
    nvrtc_missing(nvrtc, range, capability, error);
    nvrtc_close(nvrtc);
    return false;
}

int nvrtc_options(const Nvrtc *nvrtc, const char *architecture, char room[NVRTC_ARCHITECTURE],
                  const char *options[NVRTC_OPTIONS])
{
    int n = 0;
    snprintf(room, NVRTC_ARCHITECTURE, "--gpu-architecture=%s", architecture);
    options[n++] = room;
    options[n++] = "--std=c++17";
    options[n++] = "--device-as-default-execution-space";
    if (nvrtc->major * 100 + nvrtc->minor >= 1204)
        options[n++] = "--minimal";               /* no textures and the like: faster */
    return n;
}

void nvrtc_close(Nvrtc *nvrtc)
{
    if (nvrtc->library)
        dlclose(nvrtc->library);
    *nvrtc = (Nvrtc){ 0 };
}
