/* One launch of one kernel, by hand: see simt_device.h. */
#include <stdlib.h>
#include <string.h>

#include "simt_device.h"

static bool run(Simt *simt, const SimtTry *try, const struct SimtKernel *kernel, FILE *messages)
{
    SimtBuffer buffers[SIMT_TRY];
    char report[8192];
    for (int i = 0; i < try->n_buffers; i++) {
        const SimtTryBuffer *one = &try->buffers[i];
        SimtMemory *memory = simt_memory_open(simt, one->bytes);
        if (!memory)
            abort();
        if (one->input) {
            memcpy(simt_memory_data(memory), one->data, (size_t)one->bytes);
            simt_memory_mark(memory, 0, one->bytes, true);
        }
        buffers[i] = (SimtBuffer){ memory, 0, one->bytes, one->samples ? one->samples : 1,
                                    false };
    }
    SimtLaunch launch = {
        .name = try->name, .kernel = kernel, .n_buffers = try->n_buffers, .buffers = buffers,
        .n_scalars = try->n_scalars, .scalars = try->scalars, .n_sizes = try->n_sizes,
        .sizes = try->sizes, .batch = try->batch, .blocks = try->blocks,
        .threads = try->threads ? try->threads : kernel->threads,
        .shared_bytes = try->shared_bytes,
    };
    bool ok = simt_launch(simt, &launch, report, sizeof report);
    if (!ok && messages)
        fputs(report, messages);
    for (int i = 0; i < try->n_buffers; i++)
        memcpy(try->buffers[i].data, simt_memory_data(buffers[i].memory),
               (size_t)try->buffers[i].bytes);
    return ok;
}

bool simt_try(const SimtTry *try, FILE *messages)
{
    Error error = { 0 };
    SimtBuilder builder;
    SimtUnit unit = { .name = try->name, .parts = { try->text } };
    bool ok = simt_builder_open(&builder, &error) && simt_build(&builder, &unit, 1, &error);
    if (!ok) {
        if (messages)
            fprintf(messages, "%s\n%s\n", error.text, error.hint);
        return false;
    }
    Simt *simt = simt_open(2);
    ok = run(simt, try, unit.kernel, messages);
    simt_close(simt);
    simt_unload(&unit, 1);
    return ok;
}
