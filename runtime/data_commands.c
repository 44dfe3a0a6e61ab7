/* `segrun data check` and `segrun data synth`: the command line around check.c and synth.c. */
#include "commands.h"

static bool show_progress(void *context, int done, int total)
{
    progress_update(context, "pictures", done, total, "pictures", "");
    return !interrupted();
}

int command_data_check(const Options *options)
{
    Progress progress;
    progress_open(&progress, stderr, options->quiet);
    int code =
        data_check(options->operands[0], (int)options->workers, stdout, show_progress, &progress);
    progress_clear(&progress);
    if (code == EXIT_INTERRUPTED)
        fprintf(stderr, "segrun: interrupted while reading pictures\n");
    return code;
}

int command_data_synth(const Options *options)
{
    Progress progress;
    Error error = { 0 };
    progress_open(&progress, stderr, options->quiet);
    SynthOptions wanted = {
        .count = (int)options->count, .size = (int)options->size,
        .classes = (int)options->classes, .seed = options->seed,
        .workers = (int)options->workers, .force = options->force, .progress = show_progress,
        .context = &progress,
    };
    bool drawn = data_synth(options->operands[0], &wanted, &error);
    progress_clear(&progress);
    if (!drawn)
        return report(&error);
    if (!options->quiet)
        printf("%d pictures in %s\n", wanted.count, options->operands[0]);
    return EXIT_FINE;
}
