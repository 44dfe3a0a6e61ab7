/* libFuzzer: the folder of a run, read and shown as segrun report does. The first byte says which file
 * the others are: log.csv, recipe.json, command.txt. See make fuzz. */
#include <stdlib.h>
#include <unistd.h>

#include "runtime/report_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static char folder[] = "/tmp/seg-fuzz-run-XXXXXX";
static const char *const names[] = { "log.csv", "recipe.json", "command.txt", "x.seg" };

static void path_of(int i, char path[64])
{
    snprintf(path, 64, "%s/%s", folder, names[i]);
}

static bool put_file(int i, const void *bytes, size_t size)
{
    char path[64];
    path_of(i, path);
    FILE *out = fopen(path, "wb");
    bool written = out && fwrite(bytes, 1, size, out) == size;
    return out && fclose(out) == 0 && written;
}

static void remove_folder(void)
{
    char path[64];
    for (int i = 0; i < 4; i++) {
        path_of(i, path);
        unlink(path);
    }
    rmdir(folder);
}

static void show(const RunFolder *run)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return;
    put_run(out, run);
    put_curves(out, run);
    put_recipe(out, run);
    put_files(out, run);
    put_log(out, run);
    fclose(out);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static bool made;
    char path[64];
    if (!made && (!mkdtemp(folder) || !put_file(3, "model x {}\n", 11) || atexit(remove_folder)))
        abort();
    made = true;
    if (size == 0)
        return 0;
    int chosen = bytes[0] % 3;
    if (!put_file(chosen, bytes + 1, size - 1))
        return -1;
    Error error = { 0 };
    RunFolder run;
    if (run_folder_open(&run, folder, &error))
        show(&run);
    run_folder_close(&run);
    path_of(chosen, path);
    unlink(path);
    return 0;
}
