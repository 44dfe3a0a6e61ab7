/* The data side of the runtime: from a folder of photographs to batches of bytes.
 *
 *   image      a file -> pixels, as Pillow decodes it; pixels -> a PNG or JPEG file
 *   resize     Pillow's BILINEAR and NEAREST, byte for byte; the same filter for floats
 *   dataset    lists, splits and rules of the Oxford-IIIT Pet layout
 *   dataset_folders    those of images/ and masks/
 *   classes    masks of several classes: names, colours, numbers
 *   cache      every sample of a split decoded and resized once, in a mapped file
 *   augment    rotations, cut-outs and colours of training pictures
 *   loader     batches of an epoch, shuffled, augmented and prefetched by threads
 *   synth      draws a small data set, in the same layout or with several classes
 *   check      says what is in a data set's folder, and what is odd or broken
 *
 * Nothing here prints, except data_check to the file it is given; warnings go through a callback.
 */
#ifndef DATA_H
#define DATA_H

#include <stdio.h>

#include "run.h"

/* ---- image.c, image_jpeg.c, image_png.c, image_gif.c ----------------------------------------- */

typedef enum { IMAGE_UNKNOWN, IMAGE_JPEG, IMAGE_PNG, IMAGE_GIF } ImageFormat;
typedef enum {
    IMAGE_RGB,                  /* three channels: Pillow's convert('RGB') */
    IMAGE_GREY,                 /* one channel: Pillow's convert('L') */
    IMAGE_CLASSES,              /* one channel as stored: a palette's indices, not its colours */
} ImageMode;

typedef struct {
    int width, height, channels;
    uint8_t *pixels;            /* [height][width][channels]; freed by image_close */
    ImageFormat format;         /* by the file's first bytes, whatever its name says */
    int warnings;               /* of the decoder */
    char warning[200];          /* the first of them */
} Image;

/* A picture at its own size. Fails on an unreadable, unknown, truncated or too large (100
 * megapixels) file with the file's name in the message; *image needs image_close only after
 * success. */
bool image_read(const char *path, ImageMode, Image *image, Error *);
bool image_parse(const void *bytes, size_t size, const char *path, ImageMode, Image *image,
                 Error *);
void image_close(Image *);
/* The decoders behind image_parse: one channel or three as the file has them, without alpha. */
bool image_jpeg_decode(const void *bytes, size_t size, const char *path, Image *, Error *);
bool image_png_decode(const void *bytes, size_t size, const char *path, bool classes, Image *,
                      Error *);
bool image_gif_decode(const void *bytes, size_t size, const char *path, bool classes, Image *,
                      Error *);
/* Zeroed pixels for a decoder; refuses more than 100 megapixels. */
bool image_allocate(Image *, int64_t width, int64_t height, int channels, const char *path,
                    Error *);
ImageFormat image_sniff(const void *bytes, size_t size);
const char *image_format_name(ImageFormat);   /* JPEG PNG GIF unknown */
/* pixels[height][width][channels], channels 1 or 3. The file appears whole or not at all. */
bool image_write_png(const char *path, const uint8_t *pixels, int width, int height, int channels,
                     Error *);
bool image_write_jpeg(const char *path, const uint8_t *pixels, int width, int height, int channels,
                      int quality, Error *);

/* ---- resize.c -------------------------------------------------------------------------------- */

/* Pillow's resize of 8-bit pixels [height][width][channels], channels 1 or 3, byte for byte.
 * False only when there is no memory. */
bool resize_bilinear(const uint8_t *in, int in_width, int in_height, int channels,
                     uint8_t *out, int width, int height);
bool resize_nearest(const uint8_t *in, int in_width, int in_height, int channels,
                    uint8_t *out, int width, int height);
/* One float channel: Pillow's BILINEAR of mode 'F', that is the same triangle filter with
 * half-pixel centres, widened when it shrinks, sums in double. What predict brings probabilities
 * back with. */
bool resize_float(const float *in, int in_width, int in_height, float *out, int width, int height);
/* component.c: clears all of a mask but its largest 4-connected part. False without memory. */
bool keep_largest_component(uint8_t *mask, int width, int height);
/* A palette PNG of class numbers, in the colours of class_colour. */
bool image_write_classes(const char *path, const uint8_t *classes, int width, int height, Error *);
/* [height][width][3] -> [3][height][width]. */
void image_to_planes(const uint8_t *pixels, int width, int height, uint8_t *planes);

/* ---- dataset.c ------------------------------------------------------------------------------- */

typedef enum { SPLIT_TRAIN, SPLIT_VALID, SPLIT_TEST, SPLIT_COUNT } Split;
enum { SPLITS_TRAINING = 1 << SPLIT_TRAIN | 1 << SPLIT_VALID, SPLITS_ALL = (1 << SPLIT_COUNT) - 1 };

/* What the outline in a trimap (value 3) is: pet, background, or a third class. */
typedef enum { OUTLINE_FOREGROUND, OUTLINE_BACKGROUND, OUTLINE_CLASS } Outline;

typedef struct {
    int width, height;          /* the model's input; both needed */
    unsigned splits;            /* bits 1 << Split of those to open; 0: all */
    Outline outline;
    int classes;                /* up to 1: masks of 0 and 1; else of class numbers and 255 */
    bool skip_bad;              /* --on-bad skip: leave broken samples out, and warn */
    int limit;                  /* the first so many of each split; 0: all */
    int workers;                /* threads that decode; 0: one a processor */
    bool no_cache;              /* decode into memory */
    const char *cache_folder;   /* NULL: $SEG_CACHE, $XDG_CACHE_HOME/seg, ~/.cache/seg */
    /* While pictures are decoded (not when the cache holds them); false stops with
     * EXIT_INTERRUPTED. Called on the caller's thread. May be NULL. */
    bool (*progress)(void *context, int done, int total);
    void (*warn)(void *context, const char *line);   /* may be NULL; any thread, one at a time */
    void *context;              /* of both */
} DatasetOptions;

typedef struct Dataset Dataset;
/* Reads the lists, then decodes, or maps what was decoded before. */
Dataset *dataset_open(const char *folder, const DatasetOptions *, Error *);
void dataset_close(Dataset *);
int dataset_count(const Dataset *, Split);
int dataset_skipped(const Dataset *, Split);                 /* left out by skip_bad */
int dataset_width(const Dataset *);                          /* the model's, as given */
int dataset_height(const Dataset *);
const char *dataset_name(const Dataset *, Split, int i);     /* "Abyssinian_100" */
const char *dataset_class(const Dataset *, int class);       /* its name, of several classes */
/* Sample i at the model's size: image [3][H][W] and mask [1][H][W], valid until
 * dataset_close. Verifies the cached bytes at first use, and decodes again where they are damaged.
 * May be called by any number of threads. */
bool dataset_load(Dataset *, Split, int i, const uint8_t **image, const uint8_t **mask, Error *);
/* The picture's file and its trimap's; free() them. */
char *dataset_image_path(const Dataset *, Split, int i);
char *dataset_trimap_path(const Dataset *, Split, int i);
/* Of the names, file sizes and rule of a split: what a checkpoint records to notice other data. */
uint64_t dataset_key(const Dataset *, Split);
const char *split_name(Split);                               /* train valid test */
/* A sample from its files, at the model's size: what the cache holds, and what it is made by. */
/* masks: what counts as pet; or as which class, of `classes` where the mask says it. */
typedef enum {
    MASK_TRIMAP, MASK_TRIMAP_INSIDE, MASK_TRIMAP_CLASSES, MASK_NOT_ZERO, MASK_CLASSES
} MaskRule;
bool sample_decode(const char *image_path, const char *trimap_path, int width, int height, MaskRule,
                   int classes, uint8_t *image, uint8_t *mask, Error *);
/* A mask of the general layout at its own size; fails unless it has one value a pixel and is
 * width x height. */
bool mask_read(const char *path, int width, int height, Image *, Error *);
/* A trimap at its own size; fails unless width x height (0: any) with values 1..3 only. */
bool trimap_read(const char *path, int width, int height, Image *, Error *);

/* A list file: one name a line, `#` begins a comment line, further columns are ignored. */
typedef struct { int count; char **names; } NameList;
bool list_read(const char *path, NameList *, Error *);
bool list_add(NameList *, const char *name, size_t length);  /* false without memory */
void list_close(NameList *);

/* ---- dataset_folders.c: images/ and masks/ ----------------------------------------------------- */

bool folders_are_general(const char *folder);          /* masks/ is there, annotations/ is not */
char *folders_image_path(const char *folder, const char *name);   /* free() it */
/* The names in folder/below without their endings, sorted. */
bool folders_names(const char *folder, const char *below, NameList *, Error *);
Split folders_split(const char *name);                 /* where there are no lists */
/* The names of the splits, from their files or by the names. */
bool folders_read(const char *folder, NameList lists[SPLIT_COUNT], Error *);

/* ---- classes.c ------------------------------------------------------------------------------- */

enum { MOST_CLASSES = 255, VOID_CLASS = 255 };
uint32_t class_colour(int class);                      /* 0xRRGGBB; of VOID_CLASS too */
/* The names in classes.txt; none where there is no such file. */
bool classes_read(const char *folder, NameList *, Error *);
/* Whether a mask holds numbers below `classes` and 255 only. */
bool classes_check(const Image *mask, int classes, const char *path, Error *);
/* keep_largest_component of every class; what is cleared becomes background. */
bool classes_keep_largest(uint8_t *mask, int width, int height, int classes);

/* ---- cache.c --------------------------------------------------------------------------------- */

/* The decoded samples of one split, in a mapped file or in memory. Used by dataset.c only. */
typedef struct Cache Cache;
typedef struct {
    uint64_t key;
    int count;
    int64_t sample_bytes;       /* image and mask */
    const char *folder;         /* NULL: memory only */
    bool keep_bad;              /* record samples that cannot be decoded; else the first fails */
    int workers;
    bool (*decode)(void *context, int index, uint8_t *sample, Error *);
    bool (*progress)(void *context, int done, int total);
    void (*warn)(void *context, const char *line);
    void *context;              /* of decode; from malloc, freed with the cache */
    void *progress_context;     /* of progress and warn */
} CacheOptions;
Cache *cache_open(const CacheOptions *, Error *);
void cache_close(Cache *);
const char *cache_problem(const Cache *, int index);   /* why it cannot be decoded, or NULL */
const uint8_t *cache_sample(Cache *, int index, Error *);
/* $SEG_CACHE, $XDG_CACHE_HOME/seg or $HOME/.cache/seg; free() it; NULL where none is set. */
char *cache_folder(void);

/* ---- augment.c ------------------------------------------------------------------------------- */

typedef struct { double amount, probability; } Change;
typedef struct {
    bool any;                   /* else pictures stay as they are */
    Change rotate;              /* up to so many degrees either way */
    Change scale;               /* 0.2: from 1/1.2 to 1.2 times the size */
    Change crop;                /* 0.2: a part of 0.8 to 1 of the sides, anywhere */
    Change brightness, contrast, saturation; /* 0.2: times 0.8 to 1.2 */
} Augmentation;
/* "rotate=10@0.5,crop=0.2"; "none". */
bool augment_parse(const char *text, Augmentation *, Error *);
/* What happens to one picture. */
typedef struct {
    bool flipped;
    double turn, side, x, y;    /* radians; of the part that is shown, 1: all; its centre moves by */
    double brightness, contrast, saturation;
} PictureChange;
PictureChange augment_draw(const Augmentation *, bool flipped, uint64_t (*next)(uint64_t *state),
                           uint64_t state);
/* [3][H][W] and [H][W]; false without memory. */
bool augment_apply(const PictureChange *, const uint8_t *image, const uint8_t *mask, int width,
                   int height, uint8_t *out, uint8_t *out_mask);

/* ---- loader.c -------------------------------------------------------------------------------- */

typedef struct {
    Split split;
    int batch;                  /* samples; the last batch may be shorter */
    bool shuffle;               /* by (seed, epoch); else list order */
    bool flip;                  /* left-right with p = 1/2, by (seed, epoch, sample) */
    Augmentation augment;       /* likewise */
    uint64_t seed;
    int epoch;
    int workers;                /* threads that fill batches; 0: two. Batches do not depend on it */
} LoaderOptions;

typedef struct {
    int n;                      /* samples; 0 behind the last batch */
    int index;                  /* of this batch in the epoch, from 0 */
    const uint8_t *images;      /* [n][3][H][W] */
    const uint8_t *masks;       /* [n][1][H][W] */
    const int *samples;         /* [n]: indexes into the split, for dataset_name */
    const bool *flipped;        /* [n] */
} Batch;

typedef struct Loader Loader;
/* One epoch. Up to four batches are filled ahead. */
Loader *loader_open(Dataset *, const LoaderOptions *, Error *);
int loader_batches(const Loader *);                    /* in the epoch */
void loader_skip(Loader *, int batch);                 /* start at this batch; before loader_next */
bool loader_next(Loader *, Batch *, Error *);          /* its pointers hold until the next call */
void loader_close(Loader *);
/* "Abyssinian_100, Abyssinian_117 (flipped)": the files of a batch, for messages; free() it. */
char *loader_names(const Loader *, const Batch *);

/* ---- synth.c, synth_draw.c, check.c ---------------------------------------------------------- */

typedef struct {
    int count;                  /* pictures in all; every fourth is for test */
    int size;                   /* pixels a side; 0: varied, 200 to 500 */
    int classes;                /* up to 1: pets and trimaps; else shapes, of up to SYNTH_CLASSES */
    uint64_t seed;
    int workers;
    bool force;                 /* write among what the folder holds */
    bool (*progress)(void *context, int done, int total);   /* may be NULL */
    void *context;
} SynthOptions;
enum { SYNTH_CLASSES = 8 };
/* Writes images/, annotations/trimaps/, trainval.txt and test.txt; of several classes images/,
 * masks/, classes.txt, train.txt, valid.txt and test.txt. Refuses a folder that holds
 * anything, unless forced, and annotations of other origin always. The same options give the same
 * files. */
bool data_synth(const char *folder, const SynthOptions *, Error *);
/* One picture and its trimap, [height][width][3] and [height][width]. */
typedef struct { int species, fur; } SynthPet;  /* species 1 cat, 2 dog; fur from 1: its class */
SynthPet synth_draw(uint64_t seed, int index, int width, int height, uint8_t *rgb, uint8_t *trimap);

/* synth_shapes.c: one picture, and its mask of class numbers. */
void synth_shapes(uint64_t seed, int index, int classes, int width, int height, uint8_t *rgb,
                  uint8_t *mask);
const char *synth_class(int class);

/* `segrun data check`: prints what is there to `out`. EXIT_FINE, or EXIT_USER if something listed
 * is missing or broken; EXIT_INTERRUPTED when progress says stop. */
int data_check(const char *folder, int workers, FILE *out,
               bool (*progress)(void *context, int done, int total), void *context);
/* check_folders.c: the same of images/ and masks/. */
int check_folders(const char *folder, int workers, FILE *out,
                  bool (*progress)(void *context, int done, int total), void *context);

#endif
