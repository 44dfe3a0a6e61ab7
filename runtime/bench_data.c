/* `segrun bench --program data`: how fast the loader alone gives pictures, with all its threads and
 * nothing that takes them.
 */
#include "commands.h"

#include <math.h>
#include <string.h>

static const double default_seconds = 3;

static bool time_loader(const Options *options, Dataset *data, Split split, Error *error)
{
    Augmentation augment = { 0 };
    if (options->augment && !augment_parse(options->augment, &augment, error))
        return false;
    int64_t images = 0;
    int epoch = 0;
    double begun = now_seconds(), slowest = 0;
    while (now_seconds() - begun < default_seconds && !interrupted()) {
        LoaderOptions wanted = { .split = split,
                                 .batch = (int)options->batch,
                                 .shuffle = true,
                                 .flip = true,
                                 .augment = augment,
                                 .seed = options->seed,
                                 .epoch = epoch++,
                                 .workers = (int)options->workers };
        Loader *loader = loader_open(data, &wanted, error);
        Batch batch = { .n = 1 };
        while (loader && batch.n > 0) {
            double before = now_seconds();
            if (!loader_next(loader, &batch, error)) {
                loader_close(loader);
                return false;
            }
            slowest = fmax(slowest, now_seconds() - before);
            images += batch.n;
        }
        if (!loader)
            return false;
        loader_close(loader);
    }
    double seconds = now_seconds() - begun;
    printf("loader, %s split, %d pictures, batch %d\n", split_name(split),
           dataset_count(data, split), (int)options->batch);
    printf("  rate        %.0f images/s over %d epochs; longest wait %.2f ms\n",
           (double)images / seconds, epoch, 1e3 * slowest);
    if (!options->json)
        return true;
    char text[256];
    int length = snprintf(text, sizeof text,
                          "{\n  \"program\": \"data\",\n  \"batch\": %d,\n"
                          "  \"images_per_second\": %.9g,\n  \"longest_wait_seconds\": %.9g\n}\n",
                          (int)options->batch, (double)images / seconds, slowest);
    return file_write(options->json, text, (size_t)length, error);
}

/* Needs only the plan, for the size of its input. */
bool bench_data(Session *session, const Options *options, Error *error)
{
    ProgramTensors tensors;
    if (!session_open(session, options, error)
        || !session_tensors(session, "train", true, &tensors, error))
        return false;
    Split split = split_of(options->split);
    Dataset *data =
        session_dataset(session, 1u << split, outline_of(options->outline), (int)options->limit,
                        &tensors, error);
    if (!data)
        return false;
    bool timed = dataset_count(data, split) == 0
                     ? fail(error, EXIT_USER, "", "%s: the %s split is empty", options->data,
                            split_name(split))
                     : time_loader(options, data, split, error);
    dataset_close(data);
    return timed;
}
