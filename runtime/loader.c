/* Batches of one epoch, filled ahead by threads, the same whatever the number of threads.
 *
 * Everything random is a function of (seed, epoch) or (seed, epoch, sample), never of the order in
 * which threads run, so an epoch can be entered at any batch. The generator is SplitMix64 (Steele,
 * Lea, Flood, "Fast splittable pseudorandom number generators", 2014): the state grows by a
 * constant and is mixed. The order is Fisher and Yates's shuffle, from the last place down, with
 * bounded numbers by rejection; a sample is flipped where the top bit of its own number is set.
 *
 * Threads take batch numbers in order and fill slot (number % SLOTS) once the batch that was there
 * has been given back; the caller holds one slot, so up to SLOTS - 1 batches are ready ahead.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"

enum { SLOTS = 4, MAX_WORKERS = 32, DEFAULT_WORKERS = 2 };

typedef struct {
    uint8_t *images, *masks;
    int *samples;
    bool *flipped;
    bool ready;                 /* filled, or failed */
    bool failed;
    Error error;
} Slot;

struct Loader {
    Dataset *dataset;
    LoaderOptions options;
    int count, batches;
    int *order;                 /* [count]: the samples in this epoch's order */
    Slot slots[SLOTS];
    pthread_mutex_t lock;
    pthread_cond_t filled, freed;
    int next_fill;              /* the next batch a thread takes */
    int next_out;               /* the next batch the caller gets */
    int held;                   /* batches before this one are given back */
    bool stop;
    int n_threads;              /* started at the first loader_next */
    pthread_t threads[MAX_WORKERS];
};

/* ---- random ---- */

static const uint64_t GOLDEN = 0x9e3779b97f4a7c15u;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t next_random(uint64_t *state)
{
    *state += GOLDEN;
    return mix(*state);
}

/* The start of a stream: `use` keeps shuffle and flip apart. */
static uint64_t stream(uint64_t seed, int epoch, uint64_t use)
{
    return mix(mix(mix(seed + GOLDEN) + (uint64_t)epoch) + use);
}

static uint64_t random_below(uint64_t *state, uint64_t bound)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % bound, value;
    do
        value = next_random(state);
    while (value >= limit);
    return value % bound;
}

static void shuffle(int *order, int count, uint64_t state)
{
    for (int i = count - 1; i > 0; i--) {
        int j = (int)random_below(&state, (uint64_t)i + 1), other = order[j];
        order[j] = order[i];
        order[i] = other;
    }
}

static bool is_flipped(const Loader *loader, int sample)
{
    if (!loader->options.flip) return false;
    uint64_t state = stream(loader->options.seed, loader->options.epoch, 2);
    state += (uint64_t)sample * GOLDEN;            /* the stream's number `sample` */
    return next_random(&state) >> 63;
}

static bool augment(const Loader *loader, int sample, bool flipped, const uint8_t *image,
                    const uint8_t *mask, uint8_t *to, uint8_t *to_mask)
{
    /* A stream for each sample: the changes need more than one number. */
    uint64_t state = mix(stream(loader->options.seed, loader->options.epoch, 3)
                         + (uint64_t)sample * GOLDEN);
    PictureChange change = augment_draw(&loader->options.augment, flipped, next_random, state);
    return augment_apply(&change, image, mask, dataset_width(loader->dataset),
                         dataset_height(loader->dataset), to, to_mask);
}

/* ---- filling ---- */

static void copy_row_flipped(const uint8_t *in, uint8_t *out, size_t width)
{
    size_t x = 0;
    for (; x + 8 <= width; x += 8) {
        uint64_t eight;
        memcpy(&eight, in + width - 8 - x, 8);
        eight = __builtin_bswap64(eight);
        memcpy(out + x, &eight, 8);
    }
    for (; x < width; x++) out[x] = in[width - 1 - x];
}

static void copy_planes(const uint8_t *in, uint8_t *out, size_t rows, size_t width, bool flipped)
{
    if (!flipped) {
        memcpy(out, in, rows * width);
        return;
    }
    for (size_t y = 0; y < rows; y++) copy_row_flipped(in + y * width, out + y * width, width);
}

static int batch_samples(const Loader *loader, int batch)
{
    int64_t first = (int64_t)batch * loader->options.batch;
    int64_t left = loader->count - first;
    return left < loader->options.batch ? (int)left : loader->options.batch;
}

static bool fill(Loader *loader, int batch, Slot *slot)
{
    size_t width = (size_t)dataset_width(loader->dataset);
    size_t height = (size_t)dataset_height(loader->dataset), plane = width * height;
    const int *order = loader->order + (int64_t)batch * loader->options.batch;
    for (int i = 0, n = batch_samples(loader, batch); i < n; i++) {
        const uint8_t *image, *mask;
        int sample = order[i];
        if (!dataset_load(loader->dataset, loader->options.split, sample, &image, &mask,
                          &slot->error))
            return false;
        bool flipped = is_flipped(loader, sample);
        uint8_t *to = slot->images + (size_t)i * 3 * plane;
        uint8_t *to_mask = slot->masks + (size_t)i * plane;
        if (!loader->options.augment.any) {
            copy_planes(image, to, 3 * height, width, flipped);
            copy_planes(mask, to_mask, height, width, flipped);
        } else if (!augment(loader, sample, flipped, image, mask, to, to_mask)) {
            return fail(&slot->error, EXIT_ENVIRONMENT, "", "not enough memory to load pictures");
        }
        slot->samples[i] = sample;
        slot->flipped[i] = flipped;
    }
    return true;
}

static void *loader_thread(void *argument)
{
    Loader *loader = argument;
    pthread_mutex_lock(&loader->lock);
    for (;;) {
        while (!loader->stop && loader->next_fill < loader->batches
               && loader->next_fill >= loader->held + SLOTS)
            pthread_cond_wait(&loader->freed, &loader->lock);
        if (loader->stop || loader->next_fill >= loader->batches) break;
        int batch = loader->next_fill++;
        Slot *slot = &loader->slots[batch % SLOTS];
        pthread_mutex_unlock(&loader->lock);
        bool filled = fill(loader, batch, slot);
        pthread_mutex_lock(&loader->lock);
        slot->failed = !filled;
        slot->ready = true;
        pthread_cond_signal(&loader->filled);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

/* ---- the caller's side ---- */

static bool allocate(Loader *loader, Error *error)
{
    size_t batch = (size_t)loader->options.batch;
    size_t plane = (size_t)dataset_width(loader->dataset) * (size_t)dataset_height(loader->dataset);
    bool good =
        (loader->order = malloc(((size_t)loader->count + 1) * sizeof *loader->order)) != NULL;
    for (int i = 0; i < SLOTS; i++) {
        Slot *slot = &loader->slots[i];
        slot->images = malloc(batch * 3 * plane);
        slot->masks = malloc(batch * plane);
        slot->samples = malloc(batch * sizeof *slot->samples);
        slot->flipped = malloc(batch * sizeof *slot->flipped);
        good = good && slot->images && slot->masks && slot->samples && slot->flipped;
    }
    if (good) return true;
    return fail(error, EXIT_ENVIRONMENT, "use a smaller batch",
                "not enough memory for %d batches of %d pictures", SLOTS, loader->options.batch);
}

Loader *loader_open(Dataset *dataset, const LoaderOptions *options, Error *error)
{
    if (options->batch < 1) {
        fail(error, EXIT_USER, "", "a batch of %d pictures", options->batch);
        return NULL;
    }
    Loader *loader = calloc(1, sizeof *loader);
    if (loader == NULL) {
        fail(error, EXIT_ENVIRONMENT, "", "not enough memory");
        return NULL;
    }
    loader->dataset = dataset;
    loader->options = *options;
    loader->count = dataset_count(dataset, options->split);
    if (loader->options.batch > loader->count && loader->count > 0)
        loader->options.batch = loader->count;
    loader->batches = (loader->count + loader->options.batch - 1) / loader->options.batch;
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->filled, NULL);
    pthread_cond_init(&loader->freed, NULL);
    if (!allocate(loader, error)) {
        loader_close(loader);
        return NULL;
    }
    for (int i = 0; i < loader->count; i++) loader->order[i] = i;
    if (options->shuffle)
        shuffle(loader->order, loader->count, stream(options->seed, options->epoch, 1));
    return loader;
}

int loader_batches(const Loader *loader)
{
    return loader->batches;
}

void loader_skip(Loader *loader, int batch)
{
    if (loader->n_threads > 0) return;     /* too late; see data.h */
    if (batch > loader->batches) batch = loader->batches;
    loader->next_fill = loader->next_out = loader->held = batch;
}

static bool start_threads(Loader *loader, Error *error)
{
    int wanted = loader->options.workers > 0 ? loader->options.workers : DEFAULT_WORKERS;
    if (wanted > MAX_WORKERS) wanted = MAX_WORKERS;
    if (wanted > SLOTS - 1) wanted = SLOTS - 1;
    while (loader->n_threads < wanted
           && pthread_create(&loader->threads[loader->n_threads], NULL, loader_thread, loader) == 0)
        loader->n_threads++;
    if (loader->n_threads > 0) return true;
    return fail(error, EXIT_ENVIRONMENT, "", "no thread could be started to load pictures");
}

bool loader_next(Loader *loader, Batch *out, Error *error)
{
    *out = (Batch){ .index = loader->next_out };
    if (loader->n_threads == 0 && !start_threads(loader, error)) return false;
    pthread_mutex_lock(&loader->lock);
    if (loader->held < loader->next_out) {          /* the batch that the caller had */
        loader->slots[loader->held % SLOTS].ready = false;
        loader->held = loader->next_out;
        pthread_cond_broadcast(&loader->freed);
    }
    if (loader->next_out >= loader->batches) {
        pthread_mutex_unlock(&loader->lock);
        return true;
    }
    Slot *slot = &loader->slots[loader->next_out % SLOTS];
    while (!slot->ready) pthread_cond_wait(&loader->filled, &loader->lock);
    int batch = loader->next_out++;
    pthread_mutex_unlock(&loader->lock);
    if (slot->failed) {
        *error = slot->error;
        return false;
    }
    *out = (Batch){ batch_samples(loader, batch), batch, slot->images, slot->masks, slot->samples,
                    slot->flipped };
    return true;
}

void loader_close(Loader *loader)
{
    if (loader == NULL) return;
    pthread_mutex_lock(&loader->lock);
    loader->stop = true;
    pthread_cond_broadcast(&loader->freed);
    pthread_mutex_unlock(&loader->lock);
    for (int i = 0; i < loader->n_threads; i++) pthread_join(loader->threads[i], NULL);
    for (int i = 0; i < SLOTS; i++) {
        free(loader->slots[i].images);
        free(loader->slots[i].masks);
        free(loader->slots[i].samples);
        free(loader->slots[i].flipped);
    }
    pthread_cond_destroy(&loader->filled);
    pthread_cond_destroy(&loader->freed);
    pthread_mutex_destroy(&loader->lock);
    free(loader->order);
    free(loader);
}

char *loader_names(const Loader *loader, const Batch *batch)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) return NULL;
    for (int i = 0; i < batch->n; i++)
        fprintf(out, "%s%s%s", i > 0 ? ", " : "",
                dataset_name(loader->dataset, loader->options.split, batch->samples[i]),
                batch->flipped[i] ? " (flipped)" : "");
    fclose(out);
    return text;
}
