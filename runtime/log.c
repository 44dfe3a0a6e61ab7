/* log.csv: a row an epoch. The whole file is written anew, atomically, after every epoch: it is
 * complete after a resumed run, since the rows travel in the checkpoint, and a reader never sees
 * half of it. Numbers have the digits that give the same double back.
 */
#include "commands.h"

#include <stdlib.h>

bool log_write(const char *path, const EpochRow *rows, int n, Error *error)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    fputs("epoch,train_loss,train_dice,valid_loss,valid_dice,best,seconds,images_per_second,lr\n",
          out);
    for (int i = 0; i < n; i++) {
        const EpochRow *row = &rows[i];
        fprintf(out, "%d,%.17g,%.17g,%.17g,%.17g,%d,%.3f,%.2f,%.17g\n", row->epoch, row->train_loss,
                row->train_dice, row->valid_loss, row->valid_dice, row->best, row->seconds,
                row->images_per_second, row->lr);
    }
    bool written = fclose(out) == 0;
    if (!written)
        fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory", path);
    else
        written = file_write(path, text, size, error);
    free(text);
    return written;
}
