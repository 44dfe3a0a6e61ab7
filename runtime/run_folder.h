/* The folder of a training run, as `segrun train` leaves it (docs/training.md), read again. */
#ifndef RUN_FOLDER_H
#define RUN_FOLDER_H

#include "commands.h"

typedef struct { char *name; double bytes; } CheckpointFile;
typedef struct {
    const char *folder;
    char model[256];         /* "unet": what its files are called */
    RunFiles files;
    bool has_best, has_last; /* those checkpoints are there */
    int n_rows; EpochRow *rows; /* of log.csv, else of the last checkpoint; owned */
    json_t *recipe;          /* recipe.json; NULL where there is none */
    char *command, *text;    /* command.txt and the model's text; likewise */
    int n_checkpoints; CheckpointFile *checkpoints; /* by name */
} RunFolder;
/* Whatever is missing is left empty; what is there and cannot be read is an error with its file and
 * line. run_folder_close in any case. */
bool run_folder_open(RunFolder *, const char *folder, Error *);
void run_folder_close(RunFolder *);

#endif
