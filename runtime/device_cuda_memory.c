/* Memory of the CUDA device, and transfers.
 *
 * Everything that must be in order with kernels goes by the compute stream, by way of two pieces of
 * pinned memory in turn: while one is copied by the device, the other is filled or emptied by the
 * host. What the next run reads (pictures, masks) is fed: it goes by the copy stream into memory of
 * its own while the run before still computes, and is copied from there to its place, device to
 * device, when the next run begins: until then the results of the run before can be read. There are
 * two sets of such memory, so that feeding a run never waits for the one before.
 */
#include <stdio.h>
#include <string.h>

#include "device_cuda.h"

static const int64_t STAGE_BYTES = (int64_t)4 << 20;
/* Left free for modules, graphs and what is fed. */
static const int64_t RESERVED_BYTES = (int64_t)192 << 20;

static CUdeviceptr address(const void *memory) { return (CUdeviceptr)(uintptr_t)memory; }

/* ---- slabs ----------------------------------------------------------------------------------- */

int64_t cuda_available(const Device *device)
{
    CudaDevice *cuda = (CudaDevice *)device;
    size_t available = 0, total = 0;
    if (!cuda_enter(cuda, NULL)
        || cuda->driver.cuMemGetInfo_v2(&available, &total) != CUDA_SUCCESS)
        return INT64_MAX; /* what comes next fails and says why */
    return (int64_t)available > RESERVED_BYTES ? (int64_t)available - RESERVED_BYTES : 0;
}

void *cuda_allocate(Device *device, int64_t bytes, Error *error)
{
    CudaDevice *cuda = (CudaDevice *)device;
    CUdeviceptr memory = 0;
    if (!cuda_enter(cuda, error)
        || !CUDA_CALL(cuda, error, cuMemAlloc_v2, &memory, (size_t)bytes))
        return NULL;
    if (CUDA_CALL(cuda, error, cuMemsetD8Async, memory, 0, (size_t)bytes, cuda->compute))
        return (void *)(uintptr_t)memory;
    cuda->driver.cuMemFree_v2(memory);
    return NULL;
}

void cuda_release(Device *device, void *memory, int64_t bytes)
{
    CudaDevice *cuda = (CudaDevice *)device;
    (void)bytes;
    cuda->transfers.sets[cuda->transfers.set].n_feeds = 0; /* nobody runs any more */
    cuda_enter(cuda, NULL);
    cuda->driver.cuMemFree_v2(address(memory));
}

/* ---- copies in order with kernels ------------------------------------------------------------ */

static CudaStage *next_stage(CudaDevice *cuda, Error *error)
{
    CudaTransfers *transfers = &cuda->transfers;
    CudaStage *stage = &transfers->stages[transfers->stage];
    transfers->stage = (transfers->stage + 1) % CUDA_STAGES;
    return CUDA_CALL(cuda, error, cuEventSynchronize, stage->copied) ? stage : NULL;
}

bool cuda_upload(Device *device, void *to, const void *from, int64_t bytes, Error *error)
{
    CudaDevice *cuda = (CudaDevice *)device;
    if (!cuda_enter(cuda, error))
        return false;
    for (int64_t done = 0; done < bytes;) {
        int64_t part = bytes - done < STAGE_BYTES ? bytes - done : STAGE_BYTES;
        CudaStage *stage = next_stage(cuda, error);
        if (!stage)
            return false;
        memcpy(stage->memory, (const char *)from + done, (size_t)part);
        if (!CUDA_CALL(cuda, error, cuMemcpyHtoDAsync_v2, address(to) + (CUdeviceptr)done,
                       stage->memory, (size_t)part, cuda->compute)
            || !CUDA_CALL(cuda, error, cuEventRecord, stage->copied, cuda->compute))
            return false;
        done += part;
    }
    return true;
}

/* While one part is copied to the host's pinned memory, the one before goes to its place. */
bool cuda_download(Device *device, void *to, const void *from, int64_t bytes, Error *error)
{
    CudaDevice *cuda = (CudaDevice *)device;
    CudaStage *before = NULL;
    int64_t before_at = 0, before_bytes = 0;
    if (!cuda_enter(cuda, error))
        return false;
    for (int64_t done = 0; done < bytes || before;) {
        int64_t part = bytes - done < STAGE_BYTES ? bytes - done : STAGE_BYTES;
        CudaStage *stage = part > 0 ? next_stage(cuda, error) : NULL;
        if (part > 0
            && (!stage
                || !CUDA_CALL(cuda, error, cuMemcpyDtoHAsync_v2, stage->memory,
                              address(from) + (CUdeviceptr)done, (size_t)part, cuda->compute)
                || !CUDA_CALL(cuda, error, cuEventRecord, stage->copied, cuda->compute)))
            return false;
        if (before) {
            if (!CUDA_CALL(cuda, error, cuEventSynchronize, before->copied))
                return false;
            memcpy((char *)to + before_at, before->memory, (size_t)before_bytes);
        }
        before = stage;
        before_at = done;
        before_bytes = part;
        done += part;
    }
    return true;
}

/* ---- feeding --------------------------------------------------------------------------------- */

static void free_feed(CudaDevice *cuda, CudaFeed *feed)
{
    if (feed->pinned)
        cuda->driver.cuMemFreeHost(feed->pinned);
    if (feed->staging)
        cuda->driver.cuMemFree_v2(feed->staging);
    *feed = (CudaFeed){ 0 };
}

static bool need_feed(CudaDevice *cuda, CudaFeed *feed, int64_t bytes, Error *error)
{
    if (feed->capacity >= bytes)
        return true;
    free_feed(cuda, feed);
    if (!CUDA_CALL(cuda, error, cuMemAllocHost_v2, &feed->pinned, (size_t)bytes)
        || !CUDA_CALL(cuda, error, cuMemAlloc_v2, &feed->staging, (size_t)bytes))
        return false;
    feed->capacity = bytes;
    return true;
}

/* Memory for what will lie at `to`: of the last feed to there if it was not used yet, else new. */
static CudaFeed *choose_feed(CudaDevice *cuda, CUdeviceptr to, Error *error)
{
    CudaTransfers *transfers = &cuda->transfers;
    CudaFeedSet *set = &transfers->sets[transfers->set];
    for (int i = 0; i < set->n_feeds; i++)
        if (set->feeds[i].to == to)
            return CUDA_CALL(cuda, error, cuEventSynchronize, set->arrived) ? &set->feeds[i] : NULL;
    if (set->n_feeds == CUDA_FEEDS) {
        if (!cuda_land_feeds(cuda, error))
            return NULL;
        set = &transfers->sets[transfers->set];
    }
    /* The run before the last must have taken what was here. */
    if (set->n_feeds == 0 && !CUDA_CALL(cuda, error, cuEventSynchronize, set->landed))
        return NULL;
    return &set->feeds[set->n_feeds++];
}

bool cuda_feed(Device *device, void *to, const void *from, int64_t bytes, Error *error)
{
    CudaDevice *cuda = (CudaDevice *)device;
    CudaFeed *feed = cuda_enter(cuda, error) ? choose_feed(cuda, address(to), error) : NULL;
    if (!feed)
        return false;
    feed->bytes = 0;
    if (!need_feed(cuda, feed, bytes, error))
        return false;
    memcpy(feed->pinned, from, (size_t)bytes);
    feed->to = address(to);
    feed->bytes = bytes;
    CudaFeedSet *set = &cuda->transfers.sets[cuda->transfers.set];
    return CUDA_CALL(cuda, error, cuMemcpyHtoDAsync_v2, feed->staging, feed->pinned, (size_t)bytes,
                     cuda->copy)
        && CUDA_CALL(cuda, error, cuEventRecord, set->arrived, cuda->copy);
}

bool cuda_land_feeds(CudaDevice *cuda, Error *error)
{
    CudaTransfers *transfers = &cuda->transfers;
    CudaFeedSet *set = &transfers->sets[transfers->set];
    int n = set->n_feeds;
    if (n == 0)
        return true;
    set->n_feeds = 0;
    transfers->set = 1 - transfers->set;
    bool landed = CUDA_CALL(cuda, error, cuStreamWaitEvent, cuda->compute, set->arrived, 0);
    for (int i = 0; landed && i < n; i++)
        landed = set->feeds[i].bytes == 0
              || CUDA_CALL(cuda, error, cuMemcpyDtoDAsync_v2, set->feeds[i].to,
                           set->feeds[i].staging, (size_t)set->feeds[i].bytes, cuda->compute);
    return landed && CUDA_CALL(cuda, error, cuEventRecord, set->landed, cuda->compute);
}

/* ---- opening --------------------------------------------------------------------------------- */

bool cuda_transfers_open(CudaDevice *cuda, Error *error)
{
    CudaTransfers *transfers = &cuda->transfers;
    for (int i = 0; i < CUDA_STAGES; i++) {
        CudaStage *stage = &transfers->stages[i];
        if (!CUDA_CALL(cuda, error, cuMemAllocHost_v2, &stage->memory, (size_t)STAGE_BYTES)
            || !CUDA_CALL(cuda, error, cuEventCreate, &stage->copied, CU_EVENT_DISABLE_TIMING))
            return false;
    }
    for (int i = 0; i < 2; i++) {
        CudaFeedSet *set = &transfers->sets[i];
        if (!CUDA_CALL(cuda, error, cuEventCreate, &set->arrived, CU_EVENT_DISABLE_TIMING)
            || !CUDA_CALL(cuda, error, cuEventCreate, &set->landed, CU_EVENT_DISABLE_TIMING))
            return false;
    }
    return true;
}

void cuda_transfers_close(CudaDevice *cuda)
{
    CudaTransfers *transfers = &cuda->transfers;
    for (int i = 0; i < CUDA_STAGES; i++) {
        if (transfers->stages[i].memory)
            cuda->driver.cuMemFreeHost(transfers->stages[i].memory);
        if (transfers->stages[i].copied)
            cuda->driver.cuEventDestroy_v2(transfers->stages[i].copied);
    }
    for (int i = 0; i < 2; i++) {
        CudaFeedSet *set = &transfers->sets[i];
        for (int k = 0; k < CUDA_FEEDS; k++)
            free_feed(cuda, &set->feeds[k]);
        if (set->arrived)
            cuda->driver.cuEventDestroy_v2(set->arrived);
        if (set->landed)
            cuda->driver.cuEventDestroy_v2(set->landed);
    }
    *transfers = (CudaTransfers){ 0 };
}
