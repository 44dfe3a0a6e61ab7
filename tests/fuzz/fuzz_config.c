/* libFuzzer: the JSON of segrun --config, with an option of each kind. See make fuzz. */
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/commands.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define PLACE(field) offsetof(Options, field)
static const Option rows[] = {
    {'q', "quiet", OPTION_FLAG, NULL, NULL, 0, 0, PLACE(quiet), ""},
    {0, "data", OPTION_TEXT, "FOLDER", NULL, 0, 0, PLACE(data), ""},
    {0, "schedule", OPTION_CHOICE, "constant|cosine|step", NULL, 0, 0, PLACE(schedule), ""},
    {0, "batch", OPTION_COUNT, "N|auto", NULL, 1, 65536, PLACE(batch), ""},
    {0, "seed", OPTION_SEED, "N", NULL, 0, 0, PLACE(seed), ""},
    {0, "lr", OPTION_REAL, "X", NULL, 0, 1e3, PLACE(lr), ""},
    {0, "config", OPTION_TEXT, "FILE", NULL, 0, 0, PLACE(config), ""},
};
static const Command command = {.name = "train", .operands = "PLAN", .options = rows,
                                .n_options = sizeof rows / sizeof *rows};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static int file = -1;
    static char path[64];
    if (file < 0) {
        file = memfd_create("config", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    if (ftruncate(file, 0) != 0 || pwrite(file, bytes, size, 0) != (ssize_t)size)
        return -1;
    Options options = {.command = &command};
    config_read(path, &options);
    json_decref(options.config_values);
    return 0;
}
