/* The commands of segrun: what stands around the core and the data set.
 *
 *   main      the tables of commands and their options; dispatch
 *   options   parsing, --help and man pages, all from those tables
 *   session   what every command that runs a plan opens: plan, device, data set, executor
 *   train evaluate predict report bench tune info convert data_commands    one file a command
 *   recipe checkpoint progress interrupt json log plot sheet    what they need and write
 *
 * Commands return an ExitCode and have printed what went wrong.
 */
#ifndef COMMANDS_H
#define COMMANDS_H

#include <cairo.h>
#include <jansson.h>
#include <stdio.h>

#include "data.h"
#include "run.h"

/* ---- options.c ---------------------------------------------------------------------------- */

/* Every option of every command; a command fills those in its table. */
typedef struct {
    char **operands; int n_operands;      /* what is left of argv, owned by the caller of main */
    uint64_t given; /* bit i: row i of the command's table was on the command line */
    const struct Command *command;
    int argc; char **argv;                /* the whole command line, for command.txt */

    int64_t epochs, batch, limit, workers, threads, count, runs, size;
    int64_t accumulate, plateau, patience, save_every, classes;
    uint64_t seed;
    double lr, threshold, weight_decay, momentum, clip, warmup, min_lr, power, factor, ema;
    const char *config, *optimizer, *schedule, *max_time, *augment;
    json_t *config_values;                /* owns texts that came from --config */
    const char *device, *precision;
    const char *folder, *resume, *weights, *data, *split, *outline, *on_bad, *plot, *csv;
    const char *output, *program, *cache, *json, *flip, *compare, *trace, *report;
    const char *init, *plan, *rename, *tensorboard, *tta;
    bool quiet, verbose, trust, no_tune, largest, profile, steps, force;
} Options;

typedef enum {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_CHOICE,
    OPTION_COUNT,
    OPTION_SEED,
    OPTION_REAL
} OptionKind;

typedef struct {
    char letter;             /* 0: none */
    const char *name;        /* the long form */
    OptionKind kind;
    const char *argument;    /* FILE; for a choice its words: "auto|cpu|cuda:N"; NULL for a flag */
    const char *standard;    /* the default as a user would write it; NULL: none */
    double least, most;      /* of numbers */
    size_t place;            /* offset in Options */
    const char *help;
} Option;

typedef struct Command {
    const char *name;        /* "train", "data check" */
    const char *operands;    /* "PLAN" */
    int least_operands, most_operands;
    const char *summary;     /* one line */
    const char *text;        /* paragraphs, parted by empty lines */
    const Option *options; int n_options;
    const char *examples;    /* a line each */
    int (*run)(const Options *);
} Command;

/* Parses argv[0..argc) behind the command's words. False after a message: usage error. *help: the
 * user asked for it. */
bool options_parse(const Command *, int argc, char **argv, Options *, bool *help);
bool option_given(const Options *, const char *name);
/* As from the command line; false after a message. */
bool option_set(const Command *, const Option *, const char *text, Options *);
void options_help(const Command *, FILE *);
void options_man(const Command *, FILE *);

/* Prints "segrun: error: ..." and its hint; gives its exit code. */
int report(const Error *);

/* ---- config.c ------------------------------------------------------------------------------- */

/* The options of a JSON file in the place of those that were not given. False after a message. */
bool config_read(const char *path, Options *);

/* ---- interrupt.c ---------------------------------------------------------------------------- */

void interrupt_catch(void);  /* from here on a first Ctrl-C or SIGTERM only sets a flag */
bool interrupted(void);      /* it came: stop soon, with EXIT_INTERRUPTED */

/* ---- json.c --------------------------------------------------------------------------------- */

/* Takes `json`; NULL is an error: a number that is not finite. "-": standard output. */
bool json_write(const char *path, json_t *json, Error *);

/* ---- progress.c ----------------------------------------------------------------------------- */

/* One line that is redrawn on a terminal; elsewhere plain lines, the first after 30 s of a task and
 * each later one after twice the time of the one before. */
typedef struct {
    FILE *out;
    bool quiet, terminal;
    bool drawn;              /* a bar stands on the last line */
    double last, start;      /* seconds; of the last drawing, of this task */
    int64_t first;           /* items done before this task started here (a resumed epoch) */
    int64_t done;            /* items done by the last update of this task */
} Progress;
double now_seconds(void);    /* monotonic */
void progress_open(Progress *, FILE *, bool quiet);
void progress_start(Progress *, int64_t already_done);  /* a new task: resets its clock */
/* title: "epoch 3/50"; detail: "loss 0.123  Dice 0.87"; done and total count `unit`s. */
void progress_update(Progress *, const char *title, int64_t done, int64_t total, const char *unit,
                     const char *detail);
/* A line that stays; removes the bar first. Nothing when quiet. */
void progress_say(Progress *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void progress_clear(Progress *);
/* Ends a task. "built 63 kernels in 0:24", where there was something to wait for. */
void progress_finish(Progress *, const char *verb, int64_t count, const char *unit);
void format_duration(double seconds, char text[16]);       /* "1:02:03", "2:03" */
void format_bytes(double bytes, char text[16]);            /* "1.5 GiB" */
void format_count(int64_t count, char text[32]);           /* "31,037,633" */

/* ---- session.c ------------------------------------------------------------------------------ */

/* A plan that is loaded and ready to run some of its programs on pictures. */
typedef struct {
    const Options *options;
    Plan *plan;
    const PlanTarget *target;  /* the device's; before session_device any that the plan has */
    Device *device;          /* NULL before session_device */
    const char *programs;    /* those that will run: "train,evaluate" */
    int max_batch;
    Executor *executor;      /* NULL before session_build */
    Progress progress;
    const char *plan_path;
} Session;
/* Pixels of one of several classes, those of void left out. */
typedef struct { int64_t both, predicted, truth; } ClassCount;
/* The tensors of a program by their part in it; NULL where it has none. */
typedef struct {
    const char *name;
    const PlanTensor *image, *mask, *output, *loss, *metric;
    const PlanTensor *predicted, *truth; /* of several classes, beside the metric: [K,1,1] */
    int classes;             /* 1: an object before the background; else of the output */
    double threshold;        /* of the metric; 0.5 without one */
} ProgramTensors;
/* Three stages, so that everything that can be wrong is seen before kernels are built: the plan,
 * which is operand 0; the device, and whether it has the memory; kernels and slabs. */
bool session_open(Session *, const Options *, Error *);
bool session_device(Session *, const char *programs, int max_batch, Error *);
bool session_build(Session *, Error *);
void session_close(Session *);
/* Finds them, and checks that pictures can be fed: one image [3,H,W], masks [1,H,W]. */
bool session_tensors(const Session *, const char *program, bool needs_mask, ProgramTensors *,
                     Error *);
/* Of the model's text and options: the same hash, the same network. */
uint64_t plan_hash(const Plan *);
Split split_of(const char *name);  /* train valid test, as the options have checked */
/* The data set as the options say, for the model's size and classes. */
Dataset *session_dataset(Session *, unsigned splits, Outline, int limit, const ProgramTensors *,
                         Error *);
/* Which part of the train split's pixels each class has; warns of one that has none. */
bool say_classes(Progress *, Dataset *, int classes, Error *);
/* Their names, a line each; empty where they are too long or there is one. */
void join_class_names(const Dataset *, int classes, char text[]);
Outline outline_of(const char *word);   /* as the options have checked; NULL: foreground */
/* --threshold is for one class. */
bool check_threshold(const Options *, const ProgramTensors *, Error *);
/* What the metric says of a batch that was run; metric_numbers of floats a picture. */
int metric_numbers(const ProgramTensors *);
bool metric_read(Executor *, const ProgramTensors *, int batch, float *numbers, Error *);
void metric_counts(const ProgramTensors *, const float *numbers, int batch, int picture,
                   ClassCount *);        /* of several classes */
/* The score of a picture in it: see score_classes and dice_of. */
double metric_dice(const ProgramTensors *, const float *numbers, int batch, int picture);

/* ---- checkpoint.c --------------------------------------------------------------------------- */

/* One epoch in the curves. */
typedef struct {
    int epoch;               /* from 1 */
    double train_loss, train_dice, valid_loss, valid_dice;
    bool best;               /* the best valid Dice so far */
    double seconds, images_per_second, lr;
} EpochRow;

enum { ITEM_BYTES = 256 };   /* of an item's text */

/* Everything of a run that is not in the slabs; the checkpoint's metadata. */
typedef struct {
    uint64_t seed;           /* the recipe: see recipe_items.c, and the options' help */
    int64_t batch, epochs, limit, accumulate, plateau, patience, save_every;
    double lr, weight_decay, momentum, clip, warmup, min_lr, power, factor, ema;
    int outline, flip, optimizer, schedule;
    char augment[ITEM_BYTES];
    char class_names[ITEM_BYTES]; /* of several, a line each; empty where they are too long */
    int epoch;               /* finished epochs */
    int64_t batch_in_epoch;  /* batches done of the next one */
    int64_t step;            /* optimiser steps done */
    double loss_sum, dice_sum, seconds; /* of the unfinished epoch: sums over pictures */
    int64_t pictures;        /* in those sums */
    double best_dice;        /* -1: none yet */
    int best_epoch;
    int worse_epochs, plateaus; /* since the best or the last plateau; the plateaus so far */
    uint64_t data_key;       /* of the training pictures' names */
    int n_rows, capacity;
    EpochRow *rows;          /* curves; owned */
} RunState;
void run_state_close(RunState *);
void run_state_add(RunState *, const EpochRow *);
void run_state_begin_epoch(RunState *);  /* no batch of the next epoch is done */

bool checkpoint_save(const char *path, const Session *, const RunState *, double threshold,
                     Error *);
/* Bytes of a checkpoint of this plan, about. */
int64_t checkpoint_bytes(const Plan *, bool average);
/* Metadata only; NULL where a file has none of ours. */
const char *checkpoint_value(const SafeTensors *, const char *key);
bool checkpoint_has_state(const SafeTensors *);    /* else weights alone */
bool checkpoint_state(const SafeTensors *, RunState *, Error *);

/* Copies of slabs on the host: what is read before kernels are built, and uploaded after. With an
 * average of the weights, that is what a file holds under their names. */
typedef struct { char *parameters, *moments, *average; bool borrowed; } Weights;
bool weights_allocate(Weights *, const Plan *, bool moments, Error *);     /* zeros */
/* From a file: the parameters, and with `moments` Adam's. Strict: all names and shapes that differ
 * are in the error. */
bool weights_take(Weights *, const Plan *, const SafeTensors *, bool moments, Error *);
/* Without moments the executor's stay as they are: zeros, before the first step. */
bool weights_upload(const Weights *, Executor *, Error *);
void weights_close(Weights *);
/* For commands that only use a network: opens Options.weights, takes them. NULL after an error. */
SafeTensors *weights_read(Weights *, const Session *, Error *);
/* --threshold, else the one of the training, else 0.5. */
double threshold_of(const Options *, const SafeTensors *);

/* ---- recipe_items.c ------------------------------------------------------------------------- */

typedef enum { SCHEDULE_CONSTANT, SCHEDULE_COSINE, SCHEDULE_POLY, SCHEDULE_PLATEAU } Schedule;
typedef enum { ITEM_COUNT, ITEM_REAL, ITEM_SEED, ITEM_CHOICE, ITEM_TEXT } ItemKind;
typedef struct {
    const char *option;      /* its long name */
    ItemKind kind;           /* in RunState: int64_t, double, uint64_t, int, char[ITEM_BYTES] */
    size_t option_place, place; /* offsets in Options and in RunState */
    const char *words;       /* of a choice, in the order of their numbers */
    const char *earlier;     /* its value where a file has none; NULL: all have it */
    bool restarts;           /* another value begins an unfinished epoch again */
    double least, most;      /* of numbers in a sound file */
} RecipeItem;
int recipe_items(const RecipeItem **);
void item_from_options(const RecipeItem *, const Options *, RunState *);
/* exact: with the digits that give the same double back. */
void item_print(const RecipeItem *, const RunState *, bool exact, char text[ITEM_BYTES]);
bool item_parse(const RecipeItem *, const char *text, RunState *);
bool item_sound(const RecipeItem *, const RunState *);
/* All items, as --config reads them. */
bool recipe_json_write(const char *path, const RunState *, Error *);

/* ---- schedule.c ----------------------------------------------------------------------------- */

/* Of the step behind `done` of the epoch's `steps`. */
double schedule_rate(const RunState *, int64_t done, int64_t steps);
double schedule_decay(const RunState *);                  /* of the average of the weights */
void schedule_epoch(RunState *, bool better);             /* an epoch was scored */
bool duration_parse(const char *text, double *seconds);   /* "90", "45m", "1h30m"; more than 0 */

/* ---- recipe.c ------------------------------------------------------------------------------- */

/* The files of a run in its save folder; NAME is the model's. */
typedef struct {
    char best[1024], last[1024];   /* NAME.best.safetensors, NAME.last.safetensors */
    char log[1024], plot[1024];    /* log.csv, loss.png */
    char model[1024], command[1024]; /* NAME.seg, command.txt */
    char recipe[1024];             /* recipe.json */
} RunFiles;
bool run_files(RunFiles *, const char *folder, const char *model, Error *);
/* The recipe of a new run from the options; of a resumed one from its checkpoint, where the options
 * do not say otherwise; prints which is which. */
bool recipe_choose(const Options *, const SafeTensors *resumed, RunState *, Error *);
/* Whether the folder can be written and holds the checkpoints to come. */
bool recipe_check_folder(const RunFiles *, const char *folder, const Plan *, bool average, Error *);
void print_quoted(FILE *, const char *text);   /* as a shell reads it */
/* Writes the model's text and the command; a new run puts an earlier run's checkpoints aside. */
bool recipe_write(const RunFiles *, const Options *, const Session *, const RunState *, Error *);

/* ---- log.c plot.c --------------------------------------------------------------------------- */

bool log_write(const char *path, const EpochRow *, int n, Error *);
bool plot_write(const char *path, const char *title, const EpochRow *, int n, Error *);

/* ---- tensorboard.c -------------------------------------------------------------------------- */

/* An event file for TensorBoard in a folder that is made; every call writes one record. */
typedef struct TensorBoard TensorBoard;
TensorBoard *tensorboard_open(const char *folder, Error *);
bool tensorboard_scalar(TensorBoard *, int64_t step, const char *tag, double value, Error *);
bool tensorboard_picture(TensorBoard *, int64_t step, const char *tag, int height, int width,
                         const void *png, size_t bytes, Error *);
void tensorboard_close(TensorBoard *);   /* NULL is fine */
uint32_t crc32c(const void *bytes, size_t size);

/* ---- pictures.c ----------------------------------------------------------------------------- */

/* A picture to predict. */
typedef struct {
    char *path;
    char *name;              /* of its results below their folder, without ending: "holiday/cat" */
    char *below;             /* the folders between the one that was named and it: "holiday/" */
    char *root;              /* the name of the one that was named, or that holds it */
    char *real;              /* its path from / */
    bool tree;               /* found below a folder that was named */
    int level, number;       /* how much its name tells; its place in the list */
} Picture;
typedef struct {
    Picture *pictures; int n, capacity;
    int hidden, others, links; /* passed over: names with a dot, no pictures, links to folders */
} PictureList;
/* Of files and folders, with what is below them, but not `output`. pictures_close in any case. */
bool pictures_list(PictureList *, char *const *operands, int n, const char *output, Error *);
void pictures_close(PictureList *);

/* ---- mirror.c ------------------------------------------------------------------------------- */

bool mirrors(const Options *);                         /* --tta flip */
/* Left to right, each row for itself; in and out may be the same. */
void mirror_rows(const uint8_t *in, uint8_t *out, int64_t rows, int width);
/* The mean of the values and the mirrored picture's, mirrored back; in place. */
void add_mirrored(float *values, const float *mirrored, int64_t rows, int width);

/* ---- sheet.c -------------------------------------------------------------------------------- */

/* A PNG of many pictures in rows of three (picture, true mask, predicted mask), eight to a row. */
typedef struct Sheet Sheet;
/* names: of several classes, in whose colours masks are drawn; NULL: of one. */
Sheet *sheet_open(const char *title, int n_pictures, int height, int width, int classes,
                  const char *const *names);
/* image [3][H][W] bytes; mask and predicted [H][W] class numbers, or 0/1. */
void sheet_add(Sheet *, const char *name, const uint8_t *image, const uint8_t *mask,
               const uint8_t *predicted, double dice);
/* For a plan's pictures: in their size, with its classes' names. */
Sheet *sheet_of(const Dataset *, const ProgramTensors *, const char *title, int n_pictures,
                Error *);
bool sheet_write(Sheet *, const char *path, Error *);
/* As a PNG in memory, to free(); NULL after an error. */
char *sheet_png(Sheet *, size_t *bytes, int *height, int *width, Error *);
void sheet_close(Sheet *);
bool surface_write(cairo_surface_t *, const char *path, Error *);  /* as PNG, atomically */

/* ---- evaluate.c ----------------------------------------------------------------------------- */

/* The scores of one picture. */
typedef struct {
    double dice, iou;
    int64_t intersection, predicted, truth;
    int index;
} PictureScore;
/* Scores of a set, each as eval prints its definition. */
typedef struct {
    double loss;             /* mean over pictures */
    double dice, iou;        /* of a picture, then the mean over pictures; both empty: 1 */
    double dice_all;         /* of all pixels of the set together */
    double accuracy;         /* part of all pixels that is right */
    double soft_dice;        /* the reference's: mean over batches */
    int64_t pictures;
    int n_classes;           /* of several: dice and iou are the means over a picture's classes, */
    double iou_all;          /* dice_all and this over those of the set, whose counts are */
    ClassCount classes[MOST_CLASSES];
} Scores;
typedef struct {
    Split split;
    int batch, workers;
    double threshold; /* negative: take the counts of the model's own metric where it has one */
    PictureScore *scores;    /* of every picture, in the split's order; may be NULL */
    Sheet *sheet;            /* gets `sheet_pictures` of them, spread over the split; may be NULL */
    int sheet_pictures;
    bool mirrors;            /* --tta flip: of the mean with the mirrored picture's probabilities */
    double *class_dice;      /* [pictures][K] by index, NAN where there is none; may be NULL */
} EvaluateOptions;
bool evaluate_split(Session *, Dataset *, const EvaluateOptions *, Scores *, Error *);
/* Each score with its definition. */
enum { SCORE_LINES = 6 };
typedef struct { const char *name; double value; char definition[128]; } ScoreLine;
int score_lines(const Scores *, const Options *, ScoreLine lines[SCORE_LINES]);

/* What `eval` and `report` open: a trained network and pictures to score it on. */
typedef struct {
    const Options *options;
    Session session;
    Dataset *data;
    Weights weights;
    ProgramTensors tensors;  /* of the program "evaluate" */
    Outline outline;
    double threshold;
    Split split;             /* the one that was scored last */
    PictureScore *scores;    /* its pictures' */
    double *class_dice;      /* of several classes, as in EvaluateOptions; else NULL */
    Scores total;
} Evaluation;
/* Everything up to the kernels; operand 0 of the options is the plan. */
bool evaluation_open(Evaluation *, const Options *, unsigned splits, Error *);
bool evaluation_build(Evaluation *, Error *);
/* Scores a split and sorts its pictures, worst first; draws some on a sheet, which may be NULL. */
bool evaluation_score(Evaluation *, Split, Sheet *, int sheet_pictures, Error *);
/* A sheet with that title of scores[first..first + count); NULL after an error. */
Sheet *evaluation_sheet(Evaluation *, const char *title, int first, int count, Error *);
void evaluation_close(Evaluation *);
const char *outline_word(Outline);       /* as in --outline */
/* "test split, 149 pictures, outline counts as pet, threshold 0.5" */
void evaluation_describe(const Evaluation *, FILE *);
/* From dice_sums' five numbers. */
double dice_of(double intersection, double predicted, double truth);
double iou_of(double intersection, double predicted, double truth);

/* ---- evaluate_classes.c: of several classes --------------------------------------------------- */

/* The class with the largest of the probabilities [K][pixels], the first of equals. */
void largest_classes(const float *probabilities, int classes, int64_t pixels, uint8_t *predicted);
void count_classes(const uint8_t *predicted, const uint8_t *truth, int64_t pixels, int classes,
                   ClassCount *);
/* The means over the classes that are predicted or true somewhere; 1 where there is none. */
void score_classes(const ClassCount *, int classes, double *dice, double *iou);
double class_dice(const ClassCount *);   /* NAN where the class is nowhere */
/* A table of the classes; a line for --csv; {"background": {"dice": ...}, ...}. */
void print_class_scores(const Scores *, const Dataset *, FILE *);
void write_csv_cell(const char *text, FILE *out);     /* quoted where it must be */
void write_class_line(const Evaluation *, const PictureScore *, FILE *);   /* NULL: the head */
json_t *class_scores_json(const Scores *, const Dataset *);

/* ---- predict_classes.c ------------------------------------------------------------------------ */

/* One picture, the probabilities [K][height][width] of its classes, and what becomes of them. */
typedef struct {
    const char *folder, *name;
    Image *image;            /* is painted over */
    const float *probabilities;
    int classes, width, height;
    bool largest;            /* only the largest part of each class but the background */
} ClassPicture;
/* NAME.mask.png, NAME.probability.png, NAME.overlay.png in the folder. */
bool predict_write_classes(const ClassPicture *, Error *);

/* ---- bench_data.c --------------------------------------------------------------------------- */

/* Times the loader of a data set; opens the session for its plan. */
bool bench_data(Session *, const Options *, Error *);

/* ---- the commands --------------------------------------------------------------------------- */

int command_train(const Options *);
int command_eval(const Options *);
int command_predict(const Options *);
int command_report(const Options *);
int command_bench(const Options *);
int command_tune(const Options *);
bool tune_ways(Session *, Error *);   /* of the cpu; tune_ways.c */
int command_info(const Options *);
int command_convert(const Options *);
int command_data_check(const Options *);
int command_data_preview(const Options *);
int command_data_synth(const Options *);

#endif
