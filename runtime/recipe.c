/* What a training run is made of before its first step: the recipe (from the command line, or from
 * the checkpoint it goes on from), the files of its folder, and whether they can be written.
 *
 * A resumed run takes everything from the checkpoint that the command line does not give, and says
 * so, line by line where the two differ; so `-r CHECKPOINT` alone goes on bit for bit, and a person
 * who changes something sees what was changed.
 */
#include "commands.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static bool join(char path[1024], const char *folder, const char *name, const char *end,
                 Error *error)
{
    size_t length = strlen(folder);
    const char *slash = length > 0 && folder[length - 1] == '/' ? "" : "/";
    if (snprintf(path, 1024, "%s%s%s%s", folder, slash, name, end) >= 1024)
        return fail(error, EXIT_USER, "", "%s: the folder's name is too long", folder);
    return true;
}

bool run_files(RunFiles *files, const char *folder, const char *model, Error *error)
{
    return join(files->best, folder, model, ".best.safetensors", error)
           && join(files->last, folder, model, ".last.safetensors", error)
           && join(files->model, folder, model, ".seg", error)
           && join(files->log, folder, "log", ".csv", error)
           && join(files->plot, folder, "loss", ".png", error)
           && join(files->command, folder, "command", ".txt", error)
           && join(files->recipe, folder, "recipe", ".json", error);
}

/* The checkpoint's recipe, with what the command line gives in its place. */
static void override_recipe(const Options *options, RunState *state)
{
    const RecipeItem *items;
    bool restarts = false;
    int outline = state->outline;
    for (int i = 0, n = recipe_items(&items); i < n; i++) {
        char was[ITEM_BYTES], is[ITEM_BYTES];
        if (!option_given(options, items[i].option))
            continue;
        item_print(&items[i], state, false, was);
        item_from_options(&items[i], options, state);
        item_print(&items[i], state, false, is);
        if (strcmp(was, is) == 0)
            continue;
        restarts |= items[i].restarts;
        if (!options->quiet)
            fprintf(stderr, "resume: --%s %s from the command line; the checkpoint had %s\n",
                    items[i].option, is, was);
    }
    if (state->outline != outline)
        fprintf(stderr, "segrun: warning: with another --outline rule Dice cannot be compared "
                        "with the epochs before\n");
    if (state->batch_in_epoch > 0 && restarts) {
        fprintf(stderr,
                "segrun: warning: with another recipe the unfinished epoch %d begins again\n",
                state->epoch + 1);
        run_state_begin_epoch(state);
    }
}

/* What no item can say alone. */
static bool check_recipe(const RunState *state, Error *error)
{
    if (state->min_lr > state->lr)
        return fail(error, EXIT_USAGE, "--min-lr is where a schedule ends",
                    "--min-lr %g is more than --lr %g", state->min_lr, state->lr);
    return true;
}

bool recipe_choose(const Options *options, const SafeTensors *resumed, RunState *state,
                   Error *error)
{
    const RecipeItem *items;
    if (resumed) {
        if (!checkpoint_state(resumed, state, error))
            return false;
        override_recipe(options, state);
        return check_recipe(state, error);
    }
    *state = (RunState){ .best_dice = -1 };
    for (int i = 0, n = recipe_items(&items); i < n; i++)
        item_from_options(&items[i], options, state);
    return check_recipe(state, error);
}

bool recipe_check_folder(const RunFiles *files, const char *folder, const Plan *plan, bool average,
                         Error *error)
{
    if (!folder_make(folder, error))
        return false;
    char probe[1024];
    if (!join(probe, folder, ".segrun-probe", "", error) || !file_write(probe, "", 0, error)) {
        snprintf(error->hint, sizeof error->hint,
                 "checkpoints go to --folder: choose one you can write");
        return false;
    }
    unlink(probe);
    struct statvfs facts;
    if (statvfs(folder, &facts) != 0)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: %s", folder, strerror(errno));
    /* Two files, and a temporary one while either is replaced. */
    int files_to_come = 1 + (access(files->best, F_OK) != 0) + (access(files->last, F_OK) != 0);
    double need = (double)files_to_come * (double)checkpoint_bytes(plan, average);
    double have = (double)facts.f_bavail * (double)facts.f_frsize;
    char needed[16], had[16];
    format_bytes(need, needed);
    format_bytes(have, had);
    return need <= have
           || fail(error, EXIT_ENVIRONMENT, "free some space, or save elsewhere with --folder",
                   "%s: the checkpoints need %s, the disk has %s left", folder, needed, had);
}

void print_quoted(FILE *out, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./,:=+@%";
    if (*text && text[strspn(text, plain)] == 0) {
        fputs(text, out);
        return;
    }
    fputc('\'', out);
    for (; *text; text++)
        fputs(*text == '\'' ? "'\\''" : (char[2]){ *text, 0 }, out);
    fputc('\'', out);
}

static bool write_command(const RunFiles *files, const Options *options, const Session *session,
                          Error *error)
{
    char *text = NULL;
    size_t size = 0, old_size = 0;
    char *old = NULL;
    if (options->resume && access(files->command, R_OK) == 0)
        old = file_read(files->command, &old_size, error);
    FILE *out = open_memstream(&text, &size);
    if (!out) {
        free(old);
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", files->command);
    }
    if (old)
        fwrite(old, 1, old_size, out);
    time_t now = time(NULL);
    char date[64] = "";
    struct tm parts;
    if (localtime_r(&now, &parts))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S %z", &parts);
    char here[4096];
    fprintf(out, "# %s, %s\n# in %s\n# the plan: segc %s%s%s\n", date,
            device_describe(session->device), getcwd(here, sizeof here) ? here : "?",
            session->plan->path, *session->plan->options ? " " : "", session->plan->options);
    for (int i = 0; i < options->argc; i++) {
        if (i)
            fputc(' ', out);
        print_quoted(out, options->argv[i]);
    }
    fputc('\n', out);
    bool written = fclose(out) == 0 && file_write(files->command, text, size, error);
    free(text);
    free(old);
    return written;
}

/* unet.best.safetensors of an earlier run becomes unet.best.previous.safetensors; the next one's
 * unet.best.previous-2.safetensors, and so on: starting a run by mistake loses nothing. */
static void aside_name(const char *path, int number, char aside[1100])
{
    const char *end = strrchr(path, '.');
    char count[16] = "";
    if (number > 1)
        snprintf(count, sizeof count, "-%d", number);
    snprintf(aside, 1100, "%.*s.previous%s%s", (int)(end - path), path, count, end);
}

static bool put_aside(const char *path, int number, Error *error)
{
    char aside[1100];
    aside_name(path, number, aside);
    if (access(path, F_OK) != 0)
        return true;
    if (rename(path, aside) != 0)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: cannot rename: %s", path, strerror(errno));
    fprintf(stderr, "an earlier run's checkpoint is kept as %s\n", aside);
    return true;
}

/* Best and last get the same number. */
static bool put_checkpoints_aside(const RunFiles *files, Error *error)
{
    char best[1100], last[1100];
    int number = 0;
    do {
        number++;
        aside_name(files->best, number, best);
        aside_name(files->last, number, last);
    } while (access(best, F_OK) == 0 || access(last, F_OK) == 0);
    return put_aside(files->best, number, error) && put_aside(files->last, number, error);
}

bool recipe_write(const RunFiles *files, const Options *options, const Session *session,
                  const RunState *state, Error *error)
{
    const char *text = session->plan->text;
    if (!options->resume && !put_checkpoints_aside(files, error))
        return false;
    return file_write(files->model, text, strlen(text), error)
           && recipe_json_write(files->recipe, state, error)
           && write_command(files, options, session, error);
}
