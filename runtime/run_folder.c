/* Reads the folder of a run: see run_folder.h.
 *
 * The model's name is that of the newest NAME.last.safetensors, else NAME.best.safetensors, else
 * NAME.seg. Files may come from anywhere: numbers are checked, texts are only shown. A run whose
 * log.csv was lost has its curves in its last checkpoint.
 */
#include "run_folder.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what is there --------------------------------------------------------------------------- */

static bool path_of(char path[4096], const char *folder, const char *name)
{
    return snprintf(path, 4096, "%s/%s", folder, name) < 4096;
}

/* Length of a name without that ending; 0: it has another. */
static size_t stem_length(const char *name, const char *ending)
{
    size_t length = strlen(name), end = strlen(ending);
    return length > end && strcmp(name + length - end, ending) == 0 ? length - end : 0;
}

static bool add_checkpoint(RunFolder *run, const char *name, double bytes)
{
    CheckpointFile *files =
        realloc(run->checkpoints, (size_t)(run->n_checkpoints + 1) * sizeof *files);
    char *kept = strdup(name);
    if (files)
        run->checkpoints = files;
    if (!files || !kept) {
        free(kept);
        return false;
    }
    run->checkpoints[run->n_checkpoints++] = (CheckpointFile){ kept, bytes };
    return true;
}

static bool take_entry(RunFolder *run, const char *name, int *best_rank, time_t *newest)
{
    static const char *const endings[] = { ".last.safetensors", ".best.safetensors", ".seg" };
    char path[4096];
    struct stat facts;
    if (!path_of(path, run->folder, name) || stat(path, &facts) != 0 || !S_ISREG(facts.st_mode))
        return true;
    for (int rank = 0; rank < 3; rank++) {
        size_t length = stem_length(name, endings[rank]);
        if (length == 0 || length >= sizeof run->model || rank > *best_rank
            || (rank == *best_rank && facts.st_mtime <= *newest))
            continue;
        *best_rank = rank;
        *newest = facts.st_mtime;
        snprintf(run->model, sizeof run->model, "%.*s", (int)length, name);
    }
    return !stem_length(name, ".safetensors") || add_checkpoint(run, name, (double)facts.st_size);
}

static bool list_folder(RunFolder *run, Error *error)
{
    struct dirent **entries;
    int n = scandir(run->folder, &entries, NULL, alphasort), best_rank = 3;
    time_t newest = 0;
    if (n < 0)
        return fail(error, EXIT_USER, "the folder that segrun train saved to (-p)", "%s: %s",
                    run->folder, strerror(errno));
    bool fine = true;
    for (int i = 0; i < n; i++) {
        fine = fine && take_entry(run, entries[i]->d_name, &best_rank, &newest);
        free(entries[i]);
    }
    free(entries);
    if (!fine)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the list of files");
    return best_rank < 3
        || fail(error, EXIT_USER, "name the folder that segrun train saved to (-p)",
                "%s: no run in this folder: no NAME.last.safetensors, no NAME.seg", run->folder);
}

/* ---- log.csv --------------------------------------------------------------------------------- */

enum { LOG_NUMBERS = 9 };

static bool parse_row(const char *line, double numbers[LOG_NUMBERS])
{
    for (int i = 0; i < LOG_NUMBERS; i++) {
        char *end;
        numbers[i] = strtod(line, &end);
        if (end == line || *end != (i + 1 < LOG_NUMBERS ? ',' : 0))
            return false;
        line = end + 1;
    }
    const double train_dice = numbers[2], valid_dice = numbers[4], seconds = numbers[6];
    return numbers[0] >= 1 && numbers[0] <= 1e9 && numbers[0] == floor(numbers[0])
        && train_dice >= 0 && train_dice <= 1
        && valid_dice >= 0 && valid_dice <= 1 && seconds >= 0 && isfinite(seconds)
        && isfinite(numbers[7]) && isfinite(numbers[8]);
}

/* In the order of log_write; its first line names the columns. */
static bool parse_log(RunFolder *run, char *text, Error *error)
{
    RunState state = { 0 };
    char *rest = text, *line;
    bool fine = true;
    for (int number = 1; fine && (line = strsep(&rest, "\n")); number++) {
        double v[LOG_NUMBERS];
        line[strcspn(line, "\r")] = 0;
        if (number == 1 || !*line)
            continue;
        fine = parse_row(line, v)
            || fail(error, EXIT_USER, "a row is: epoch, losses and Dice of train and valid, best, "
                                      "seconds, images_per_second, lr",
                    "%s:%d: expected %d numbers, got '%.60s'", run->files.log, number,
                    LOG_NUMBERS, line);
        if (!fine)
            break;
        EpochRow row = { (int)v[0], v[1], v[2], v[3], v[4], v[5] != 0, v[6], v[7], v[8] };
        run_state_add(&state, &row);
    }
    run->rows = state.rows;
    run->n_rows = state.n_rows;
    return fine;
}

/* The whole file as a text: what ends one is a question mark. NULL after an error. */
static char *read_text(const char *path, Error *error)
{
    size_t size;
    struct stat facts;
    if (stat(path, &facts) == 0 && !S_ISREG(facts.st_mode)) {   /* a pipe would be waited for */
        fail(error, EXIT_USER, "", "cannot read %s: it is no regular file", path);
        return NULL;
    }
    char *text = file_read(path, &size, error);
    for (size_t i = 0; text && i < size; i++)
        if (!text[i])
            text[i] = '?';
    return text;
}

static bool read_checkpoint_rows(RunFolder *run, Error *error)
{
    RunState state = { 0 };
    SafeTensors *file = safetensors_open(run->files.last, error);
    bool fine = file && (!checkpoint_has_state(file) || checkpoint_state(file, &state, error));
    if (file)
        safetensors_close(file);
    run->rows = state.rows;
    run->n_rows = state.n_rows;
    return fine;
}

static bool read_rows(RunFolder *run, Error *error)
{
    if (access(run->files.log, F_OK) != 0)
        return !run->has_last || read_checkpoint_rows(run, error);
    char *text = read_text(run->files.log, error);
    bool fine = text && parse_log(run, text, error);
    free(text);
    return fine;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static bool read_recipe(RunFolder *run, Error *error)
{
    json_error_t wrong;
    const char *path = run->files.recipe;
    if (access(path, F_OK) != 0)
        return true;
    char *text = read_text(path, error);
    if (!text)
        return false;
    run->recipe = json_loads(text, JSON_REJECT_DUPLICATES, &wrong);
    free(text);
    if (!run->recipe)
        return fail(error, EXIT_USER, "", "%s:%d:%d: %s", path, wrong.line, wrong.column,
                    wrong.text);
    return json_is_object(run->recipe)
        || fail(error, EXIT_USER, "", "%s: expected an object, { ... }", path);
}

static bool read_optional(const char *path, char **text, Error *error)
{
    return access(path, F_OK) != 0 || (*text = read_text(path, error));
}

bool run_folder_open(RunFolder *run, const char *folder, Error *error)
{
    *run = (RunFolder){ .folder = folder };
    if (!list_folder(run, error) || !run_files(&run->files, folder, run->model, error))
        return false;
    run->has_best = access(run->files.best, R_OK) == 0;
    run->has_last = access(run->files.last, R_OK) == 0;
    return read_rows(run, error) && read_recipe(run, error)
        && read_optional(run->files.command, &run->command, error)
        && read_optional(run->files.model, &run->text, error);
}

void run_folder_close(RunFolder *run)
{
    for (int i = 0; i < run->n_checkpoints; i++)
        free(run->checkpoints[i].name);
    free(run->checkpoints);
    free(run->rows);
    free(run->command);
    free(run->text);
    json_decref(run->recipe);
    *run = (RunFolder){ 0 };
}
