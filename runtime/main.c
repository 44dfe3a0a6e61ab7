/* segrun: trains a plan on pictures and uses what it learned.
 *
 * The tables here say everything about the command line: which commands there are, which options
 * each has, their defaults and their help. options.c parses by them and prints --help and the man
 * pages (`segrun --man COMMAND`) from them. A new option is a row and a place in Options.
 */
#include "commands.h"

#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define PLACE(field) offsetof(Options, field)
#define FLAG(letter, name, field, help) \
    { letter, name, OPTION_FLAG, NULL, NULL, 0, 0, PLACE(field), help }
#define TEXT(letter, name, argument, standard, field, help) \
    { letter, name, OPTION_TEXT, argument, standard, 0, 0, PLACE(field), help }
#define CHOICE(letter, name, words, standard, field, help) \
    { letter, name, OPTION_CHOICE, words, standard, 0, 0, PLACE(field), help }
#define COUNT(letter, name, standard, least, most, field, help) \
    { letter, name, OPTION_COUNT, "N", standard, least, most, PLACE(field), help }
#define REAL(letter, name, standard, least, most, field, help) \
    { letter, name, OPTION_REAL, "X", standard, least, most, PLACE(field), help }

#define GPU_OPTIONS \
    CHOICE('d', "device", "auto|cpu|cuda|cuda:N", "auto", device, \
           "where the network runs; auto: cuda where a GPU can be used, else cpu"), \
    CHOICE(0, "precision", "fp32|tf32|bf16", NULL, precision, \
           "default: fp32 on the cpu, which has bf16 too; on cuda tf32, or what plan and GPU have"), \
    FLAG(0, "trust", trust, "run a plan that another user made; a plan holds C that runs as you")
#define DEVICE_OPTIONS \
    GPU_OPTIONS, \
    FLAG(0, "no-tune", no_tune, \
         "of cuda: do not time the ways that a step can run before the first run"), \
    COUNT('t', "threads", "0", 0, 4096, threads, "threads of the cpu device; 0: all processors")
#define DATA_OPTIONS \
    COUNT('j', "workers", "0", 0, 1024, workers, \
          "threads that decode and prepare pictures; 0: choose"), \
        TEXT( \
            0, "cache", "FOLDER|none", NULL, cache, \
            "where decoded pictures are kept (default $SEG_CACHE, else $XDG_CACHE_HOME/seg, else " \
            "~/.cache/seg); none: in memory only"), \
        CHOICE(0, "on-bad", "fail|skip", "fail", on_bad, \
               "at a missing or broken picture: stop, or leave it out (the split does not shift)")
#define QUIET_OPTIONS \
    FLAG('q', "quiet", quiet, "print results and errors only"), \
    FLAG('v', "verbose", verbose, "say more, such as how kernels are built")
#define THRESHOLD \
    REAL(0, "threshold", NULL, 0, 1, threshold, \
         "a pixel is pet where its probability reaches this (default: as in training, else 0.5)")
#define TTA \
    CHOICE(0, "tta", "none|flip", "none", tta, \
           "flip: the mean of the picture's probabilities and those of its mirror image")
#define OUTLINE \
    CHOICE(0, "outline", "foreground|background|class", "foreground", outline, \
           "what the outline in the trimaps (value 3) counts as; class: a third one, of networks with " \
           "three")
#define OUTLINE_AS_TRAINED \
    CHOICE(0, "outline", "foreground|background|class", NULL, outline, \
           "what the outline in the trimaps (value 3) counts as (default: as in training, else " \
           "foreground)")

static const Option train_options[] = {
    TEXT(0, "data", "FOLDER", NULL, data, "the data set: images/ and annotations/, or images/ and masks/; required"),
    COUNT('e', "epochs", "50", 1, 1e6, epochs, "train until this many epochs are done in all"),
    { 'b', "batch", OPTION_COUNT, "N|auto", "2", 1, 65536, PLACE(batch),
      "pictures in a step; auto: the power of two that fits the device's memory, 64 at most and an "
      "eighth of the train split" },
    REAL(0, "lr", "1e-5", 0, 1e3, lr, "learning rate; -lr too"),
    CHOICE(0, "optimizer", "adam|adamw|sgd|nesterov", "adam", optimizer,
           "adamw: weight decay apart from the gradient; nesterov: SGD with its momentum"),
    REAL(0, "weight-decay", "0", 0, 10, weight_decay, "of all parameters, as PyTorch's"),
    REAL(0, "momentum", "0.9", 0, 0.9999, momentum, "of SGD; Adam's beta1"),
    CHOICE(0, "schedule", "constant|cosine|poly|plateau", "constant", schedule,
           "of the learning rate; plateau: by the valid Dice"),
    REAL(0, "warmup", "0", 0, 1e6, warmup, "epochs in which the rate rises to --lr, before any schedule"),
    REAL(0, "min-lr", "0", 0, 1e3, min_lr, "where a schedule ends"),
    REAL(0, "power", "0.9", 0.01, 100, power, "of poly: (1 - t)^power"),
    COUNT(0, "plateau", "5", 1, 1e6, plateau, "of plateau: epochs without a better valid Dice"),
    REAL(0, "factor", "0.5", 0.001, 1, factor, "of plateau: the rate is multiplied by it then"),
    REAL(0, "clip", "0", 0, 1e9, clip, "largest norm of all gradients together; 0: any"),
    COUNT(0, "accumulate", "1", 1, 1e6, accumulate,
          "batches in a step: their gradients are averaged, over pictures"),
    REAL(0, "ema", "0", 0, 0.999999, ema,
         "decay of a running average of the weights, such as 0.999; it is what is scored and saved; "
         "0: none"),
    COUNT(0, "patience", "0", 0, 1e6, patience,
          "stop after this many epochs without a better valid Dice; 0: never"),
    TEXT(0, "max-time", "TIME", NULL, max_time,
         "stop before this much time has gone by (90, 45m, 1h30m); --resume goes on"),
    COUNT(0, "save-every", "0", 0, 1e6, save_every,
          "keep a checkpoint of every N-th epoch as well; 0: best and last only"),
    TEXT(0, "augment", "LIST", "none", augment,
         "changes of training pictures, NAME=AMOUNT[@PROBABILITY],...: see docs/training.md"),
    TEXT(0, "config", "FILE", NULL, config,
         "options from a JSON object, such as a run's recipe.json; the command line has the last "
         "word"),
    TEXT('p', "folder", "FOLDER", "saved_models", folder,
         "where checkpoints, log and plot are saved; with --resume the checkpoint's folder"),
    TEXT('r', "resume", "CHECKPOINT", NULL, resume,
         "go on from here, bit for bit as if never stopped; the recipe comes from the checkpoint "
         "unless given"),
    TEXT('m', "weights", "FILE", NULL, weights, "start a new run from these weights"),
    TEXT(0, "tensorboard", "FOLDER", NULL, tensorboard,
         "write events for TensorBoard there: losses, Dice, rates, and a sheet at each new best"),
    TEXT(0, "init", "[PREFIX=]FILE", NULL, init,
         "start with another network's weights where names and shapes fit: the parameters PREFIX.NAME "
         "from the tensors NAME; the rest is drawn"),
    { 's', "seed", OPTION_SEED, "N", "0", 0, 0, PLACE(seed),
      "of initial weights, order, flips and dropout" },
    COUNT(0, "limit", "0", 0, 1e9, limit, "only the first N pictures of each split; 0: all"),
    CHOICE(0, "flip", "y|n", "y", flip, "flip training pictures left-right, each with p = 1/2"),
    TEXT(0, "trace", "FILE", NULL, trace,
         "write what happened when, for ui.perfetto.dev; the first five steps with their kernels"),
    OUTLINE,
    DEVICE_OPTIONS,
    DATA_OPTIONS,
    QUIET_OPTIONS,
};

static const Option eval_options[] = {
    TEXT(0, "data", "FOLDER", NULL, data, "the data set: images/ and annotations/, or images/ and masks/; required"),
    TEXT('m', "weights", "FILE", NULL, weights, "a checkpoint or other safetensors file; required"),
    CHOICE(0, "split", "train|valid|test", "test", split, "the pictures that are scored"),
    COUNT('b', "batch", "16", 1, 65536, batch, "pictures in a batch; soft Dice depends on it"),
    THRESHOLD,
    TTA,
    TEXT(0, "csv", "FILE", NULL, csv, "write every picture's scores, worst first"),
    CHOICE('p', "plot", "y|n|worst", "n", plot,
           "draw a sheet: picture, true mask, predicted mask; worst: of the lowest scores"),
    TEXT('o', "output", "FILE", "predictions.png", output, "the sheet"),
    COUNT(0, "count", "24", 1, 400, count, "pictures on the sheet; --plot y: spread over the split"),
    TEXT(0, "json", "FILE", NULL, json, "write the scores as JSON"),
    COUNT(0, "limit", "0", 0, 1e9, limit, "only the first N pictures; 0: all"),
    OUTLINE_AS_TRAINED,
    DEVICE_OPTIONS,
    DATA_OPTIONS,
    QUIET_OPTIONS,
};

static const Option predict_options[] = {
    TEXT('m', "weights", "FILE", NULL, weights, "a checkpoint or other safetensors file; required"),
    TEXT('o', "output", "FOLDER", "out", output, "where the masks are written"),
    COUNT('b', "batch", "4", 1, 65536, batch, "pictures in a batch"),
    THRESHOLD,
    TTA,
    FLAG(0, "largest-component", largest,
         "keep only the largest connected part of each mask; of several classes, of each class"),
    CHOICE(0, "on-bad", "fail|skip", "fail", on_bad,
           "at a broken picture: stop, or go on without it"),
    DEVICE_OPTIONS,
    QUIET_OPTIONS,
};

static const Option report_options[] = {
    TEXT('o', "output", "FILE", "report.html", output, "the page"),
    TEXT(0, "data", "FOLDER", NULL, data, "score the network on this data set"),
    TEXT(0, "plan", "PLAN", NULL, plan,
         "the network's plan; default, with --data: NAME.plan in the current folder, made from "
         "the run's text"),
    TEXT('m', "weights", "FILE", NULL, weights, "what is scored (default: the best checkpoint of RUN)"),
    CHOICE(0, "split", "both|train|valid|test", "both", split, "what is scored; both: valid and test"),
    COUNT(0, "count", "8", 0, 400, count, "pictures on each sheet: the best, the worst; 0: no sheets"),
    COUNT('b', "batch", "16", 1, 65536, batch, "pictures in a batch when scoring"),
    CHOICE(0, "program", "train|evaluate|predict|none", "train", program,
           "whose kernels are timed, at the run's batch, where there is a plan"),
    THRESHOLD,
    TTA,
    COUNT(0, "limit", "0", 0, 1e9, limit, "only the first N pictures of each split; 0: all"),
    OUTLINE_AS_TRAINED,
    DEVICE_OPTIONS,
    DATA_OPTIONS,
    QUIET_OPTIONS,
};

static const Option bench_options[] = {
    COUNT('b', "batch", "2", 1, 65536, batch, "pictures in a step"),
    CHOICE(0, "program", "train|evaluate|predict|data", "train", program,
           "what is timed; data: the loader alone, which needs --data"),
    TEXT('c', "compare", "OTHER.plan", NULL, compare,
         "time this plan too, in turn with the first, and print the ratio"),
    COUNT('n', "runs", "0", 0, 10000, runs,
          "timings of each plan; 0: about three seconds, at least five"),
    FLAG(0, "profile", profile, "a row for every kernel, slowest first"),
    FLAG(0, "steps", steps, "a row for every step, in the order they run"),
    TEXT(0, "json", "FILE", NULL, json, "write all numbers as JSON; - for standard output"),
    TEXT(0, "trace", "FILE", NULL, trace,
         "write three runs, an event a step, for ui.perfetto.dev (Chrome's trace events)"),
    TEXT(0, "report", "FILE", NULL, report,
         "write a page for a browser: roofline, times, timeline, memory map, graphs, kernels"),
    TEXT(0, "plot", "FOLDER", NULL, plot,
         "write the pictures into FOLDER: roofline, times, timeline, memory (PNG)"),
    TEXT(0, "data", "FOLDER", NULL, data, "the data set, for --program data"),
    TEXT(0, "augment", "LIST", NULL, augment, "of --program data: as in training"),
    CHOICE(0, "split", "train|valid|test", "train", split, "its split"),
    COUNT(0, "limit", "0", 0, 1e9, limit, "only the first N pictures; 0: all"),
    { 's', "seed", OPTION_SEED, "N", "0", 0, 0, PLACE(seed), "of weights and inputs" },
    OUTLINE,
    DEVICE_OPTIONS,
    DATA_OPTIONS,
    QUIET_OPTIONS,
};

static const Option tune_options[] = {
    COUNT('b', "batch", "2", 1, 65536, batch, "pictures in a step"),
    CHOICE(0, "program", "all|train|evaluate|predict", "all", program, "what is tuned"),
    TEXT('o', "output", "FILE", NULL, output, "of the cpu, required: the ways that were the fastest"),
    COUNT('n', "runs", "9", 1, 1000, runs, "of the cpu: runs of each plan, in turn; the median counts"),
    COUNT('t', "threads", "0", 0, 4096, threads, "threads of the cpu device; 0: all processors"),
    { 's', "seed", OPTION_SEED, "N", "0", 0, 0, PLACE(seed), "of weights and inputs" },
    GPU_OPTIONS,
    QUIET_OPTIONS,
};

static const Option convert_options[] = {
    TEXT('o', "output", "FILE", NULL, output, "the file that is written; required"),
    TEXT(0, "plan", "PLAN", NULL, plan, "the network: its parameters must be there, and nothing else"),
    TEXT(0, "rename", "OLD=NEW", NULL, rename, "names that begin with OLD begin with NEW instead"),
    QUIET_OPTIONS,
};

static const Option info_options[] = {
    COUNT('b', "batch", "2", 1, 65536, batch, "batch for which memory is computed"),
    TEXT(0, "json", "FILE", NULL, json, "write the facts as JSON; - for standard output"),
    FLAG('v', "verbose", verbose, "also every tensor, and every step and kernel of a plan"),
};

static const Option check_options[] = {
    COUNT('j', "workers", "0", 0, 1024, workers, "threads that decode; 0: one a processor"),
    FLAG('q', "quiet", quiet, "no progress bar"),
};

static const Option preview_options[] = {
    TEXT(0, "augment", "LIST", "none", augment,
         "changes of training pictures, NAME=AMOUNT[@PROBABILITY],...: rotate (degrees), scale, crop, "
         "brightness, contrast, saturation (shares)"),
    CHOICE(0, "flip", "y|n", "y", flip, "flip pictures left-right, each with p = 1/2"),
    COUNT(0, "classes", "1", 1, 255, classes, "of masks with class numbers; 1: masks count where not 0"),
    TEXT('o', "output", "FILE", "preview.png", output, "the sheet"),
    COUNT('n', "count", "6", 1, 100, count, "pictures on it"),
    COUNT(0, "size", "128", 16, 1024, size, "of the model's input"),
    { 's', "seed", OPTION_SEED, "N", "0", 0, 0, PLACE(seed), "as in training" },
    OUTLINE,
    DATA_OPTIONS,
    QUIET_OPTIONS,
};

static const Option synth_options[] = {
    COUNT('n', "count", "64", 4, 9999, count, "pictures in all; every fourth is for test"),
    COUNT(0, "classes", "1", 1, 8, classes,
          "1: pets and trimaps; 2 to 8: shapes, with the background as one class, in images/ and "
          "masks/"),
    COUNT(0, "size", "0", 0, 8192, size, "pixels a side; 0: varied, 200 to 500"),
    { 's', "seed", OPTION_SEED, "N", "0", 0, 0, PLACE(seed), "the same seed gives the same files" },
    COUNT('j', "workers", "0", 0, 1024, workers, "threads that draw; 0: one a processor"),
    FLAG(0, "force", force, "draw into a folder that is not empty; never over another data set"),
    FLAG('q', "quiet", quiet, "no progress bar"),
};

#define ROWS(options) options, sizeof options / sizeof *options

static const Command commands[] = {
    { "train", "PLAN", 1, 1, "train a network",
      "Trains the network of PLAN on the train split. After every epoch the valid split "
      "is "
      "scored, and the save folder gets NAME.last.safetensors, NAME.best.safetensors (by valid "
      "Dice), "
      "log.csv, loss.png, the model's text and the command; NAME is the model's."
      "\n\n"
      "Ctrl-C or SIGTERM finishes the step, saves NAME.last.safetensors and exits with 130; "
      "--resume "
      "goes on from there. A second Ctrl-C exits at once.",
      ROWS(train_options),
      "  segrun train unet.plan --data pets/ -e 50 -b 2 --lr 1e-5\n"
      "  segrun train unet.plan --data pets/ -r saved_models/unet.last.safetensors\n",
      command_train },
    { "eval", "PLAN", 1, 1, "score a trained network",
      "Scores the network of PLAN on a split and prints each score with its definition. The "
      "headline "
      "is the mean Dice: a pixel is pet where its probability reaches the threshold, Dice = "
      "2 |A and B| / (|A| + |B|) of each picture, 1 where both are empty, and the mean over "
      "pictures. Of several classes the most probable one counts, and there is a line for each.",
      ROWS(eval_options),
      "  segrun eval unet.plan -m saved_models/unet.best.safetensors --data pets/\n"
      "  segrun eval unet.plan -m W.safetensors --data pets/ --plot y --csv scores.csv\n",
      command_eval },
    { "predict", "PLAN PICTURE|FOLDER...", 2, -1, "masks for your own pictures",
      "Writes NAME.mask.png, NAME.probability.png and NAME.overlay.png for every picture, at the "
      "picture's own size: probabilities are resized back, then compared with the threshold; of "
      "several classes the most probable one counts, and the mask holds their numbers. A "
      "folder stands for all pictures in it and below it; the results have the same folders below "
      "--output. Hidden files, files that are no pictures and links to folders are passed over and "
      "counted."
      "\n\n"
      "NAME is the picture's name without its ending. Where two would be equal they keep it "
      "(cat.jpg.mask.png, cat.png.mask.png); where they are still equal, the folder's name comes in "
      "front. A picture that is given twice is predicted once.",
      ROWS(predict_options),
      "  segrun predict unet.plan -m W.safetensors cat.jpg holiday/ -o out/\n",
      command_predict },
    { "report", "RUN", 1, 1, "a page of a training run",
      "Writes one HTML page of the run in the folder RUN, with nothing outside it: curves, recipe, "
      "command lines, checkpoints, log and the model's text. With --data the network is scored and the "
      "page has each score with its definition and the best and worst pictures; with a plan, the times "
      "of its kernels.",
      ROWS(report_options),
      "  segrun report saved_models/ -o report.html\n"
      "  segrun report saved_models/ --data pets/ --plan unet.plan\n",
      command_report },
    { "bench", "PLAN", 1, 1, "time a network's steps",
      "Times a program of PLAN on random pictures, after warm-up: median and spread, pictures a "
      "second, GFLOP/s and GB/s, memory, and how near that is to the device's ceiling: for each "
      "step the time by its operations or by its least bytes, whichever is more. The ceiling of "
      "the cpu is measured before, between and after the timings; that of a GPU follows from its "
      "clocks and widths.",
      ROWS(bench_options),
      "  segrun bench unet.plan -b 2 --program train --profile\n"
      "  segrun bench unet.plan -b 2 --compare unfused.plan\n"
      "  segrun bench unet.plan -b 8 --program data --data pets/\n",
      command_bench },
    { "tune", "PLAN...", 1, 4, "find the fastest kernels on this machine",
      "Of the cpu: times the convolutions of several plans of one model, in turn, on random pictures. "
      "The plans come from segc --way, which takes one way to compute them wherever that fits; where "
      "no other is faster the first plan's stays. What is the fastest for each layer is written to "
      "FILE, which segc --tuned follows; for every model, batch, precision and machine it is another. "
      "\n\nOf a GPU: "
      "times the ways in which each step of PLAN can run, on random pictures, and keeps "
      "the fastest in the cache of kernels: every later run takes them. The first run of a program "
      "does the same by itself, unless --no-tune; other batches then take what was found for the "
      "nearest one.",
      ROWS(tune_options),
      "  for w in model direct winograd winograd_large; do segc unet.seg --way $w -o $w.plan; done\n"
      "  segrun tune model.plan direct.plan winograd.plan winograd_large.plan -b 2 -o unet.tuned\n"
      "  segc unet.seg --tuned unet.tuned -o unet.plan\n"
      "  segrun tune unet.plan -d cuda -b 16\n"
      "  segrun tune unet.plan -d cuda -b 1 --program predict --precision bf16\n",
      command_tune },
    { "info", "FILE", 1, 1, "what a plan or checkpoint holds",
      "Prints what a plan (model, options, parameters, programs, memory) or a checkpoint (recipe, "
      "progress, curves, tensors) holds.",
      ROWS(info_options),
      "  segrun info unet.plan\n"
      "  segrun info saved_models/unet.best.safetensors\n",
      command_info },
    { "convert", "FILE", 1, 1, "weights alone, as plain safetensors",
      "Writes the weights of a checkpoint or another safetensors file as plain float32 safetensors: "
      "no optimiser, no state of the run, no counters; names and shapes are PyTorch's. With --plan "
      "every name and shape must be the network's. The result is what --weights and --init read, "
      "and what safetensors.torch.load_file gives to load_state_dict.",
      ROWS(convert_options),
      "  segrun convert saved_models/unet.best.safetensors --plan unet.plan -o unet.safetensors\n"
      "  segrun convert smp.safetensors --rename encoder.= -o resnet34.safetensors\n",
      command_convert },
    { "data check", "FOLDER", 1, 1, "what is in a data set's folder",
      "Reads every listed picture and trimap, or what is in images/ and masks/, and says what is "
      "there, how many classes the masks hold, what is odd and what is broken. "
      "Changes nothing. Exit code 1 if something listed is missing or broken.",
      ROWS(check_options), "  segrun data check pets/\n", command_data_check },
    { "data preview", "FOLDER", 1, 1, "training pictures as a network sees them",
      "Draws the first pictures of the train split on a sheet, a row each: as they are, and as they "
      "come in the first four epochs of a run with this --seed and --augment; masks are outlined.",
      ROWS(preview_options),
      "  segrun data preview pets/ --augment rotate=10,scale=0.2,brightness=0.2@0.5 -o preview.png\n",
      command_data_preview },
    { "data synth", "FOLDER", 1, 1, "draw a small data set",
      "Draws pet-like pictures and their trimaps by rule, in the layout of the Oxford-IIIT Pet "
      "data "
      "set, for demonstrations and tests; with --classes discs, squares, triangles and so on, and "
      "their masks of class numbers.",
      ROWS(synth_options),
      "  segrun data synth pets-small/ --count 64\n"
      "  segrun data synth shapes/ --count 400 --classes 4 --size 128\n",
      command_data_synth },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_overview(FILE *out)
{
    fputs("Usage: segrun COMMAND [options]\n\n"
          "Trains networks that segc compiled (PLAN files) and uses what they "
          "learned.\n\nCommands:\n",
          out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-14s%s\n", commands[i].name, commands[i].summary);
    fputs("\n'segrun COMMAND --help' lists a command's options, 'segrun --man COMMAND' prints\n"
          "its man page, 'segrun --version' the version.\n", out);
}

static void print_overview_man(FILE *out)
{
    fputs(".TH \"segrun\" 1\n.SH NAME\nsegrun \\- train and use segmentation networks\n"
          ".SH SYNOPSIS\n.B segrun\nCOMMAND [options]\n.SH COMMANDS\n", out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, ".TP\n.B %s\n%s\n", commands[i].name, commands[i].summary);
    fputs(".SH SEE ALSO\nsegc(1)", out);
    for (int i = 0; i < N_COMMANDS; i++) {
        fputs(", segrun\\-", out);
        for (const char *c = commands[i].name; *c; c++)
            fputs(*c == ' ' || *c == '-' ? "\\-" : (char[2]){ *c, 0 }, out);
        fputs("(1)", out);
    }
    fputc('\n', out);
}

/* The command that argv[0] (and argv[1]) names; *words is how many of them. "data-check" too. */
static const Command *find_command(int argc, char **argv, int *words)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        const char *name = commands[i].name, *space = strchr(name, ' ');
        char joined[32];
        snprintf(joined, sizeof joined, "%s", name);
        if (space)
            joined[space - name] = '-';
        *words = 1;
        if (strcmp(argv[0], name) == 0 || strcmp(argv[0], joined) == 0)
            return &commands[i];
        *words = 2;
        if (space && argc > 1 && strncmp(argv[0], name, (size_t)(space - name)) == 0
            && strcmp(argv[1], space + 1) == 0)
            return &commands[i];
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    fprintf(stderr, "segrun: error: unknown command '%s'\nhint: segrun --help lists the commands\n",
            name);
    return EXIT_USAGE;
}

static int flushed(int code)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "segrun: error: cannot write to standard output\n");
        return EXIT_ENVIRONMENT;
    }
    return code;
}

static int run_command(const Command *command, int argc, char **argv, int words)
{
    char **given = malloc(((size_t)argc + 1) * sizeof *given); /* getopt moves operands */
    if (!given)
        return EXIT_ENVIRONMENT;
    memcpy(given, argv, ((size_t)argc + 1) * sizeof *given);
    Options options = { .argc = argc, .argv = given };
    bool help;
    int code = EXIT_USAGE;
    if (options_parse(command, argc - words, argv + words, &options, &help)) {
        code = EXIT_FINE;
        if (help) {
            options_help(command, stdout);
        } else {
            interrupt_catch();
            code = command->run(&options);
        }
    }
    free(given);
    json_decref(options.config_values);
    return flushed(code);
}

int main(int argc, char **argv)
{
    /* A write beyond a file-size limit fails with an error message, not with a signal. */
    signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    const char *first = argv[1];
    int words = 0;
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        print_overview(stdout);
        return flushed(EXIT_FINE);
    }
    if (strcmp(first, "--version") == 0) {
        printf("segrun 0.1, plan format %d\n", PLAN_VERSION);
        return flushed(EXIT_FINE);
    }
    bool man = strcmp(first, "--man") == 0, manual = man || strcmp(first, "help") == 0;
    if (manual && argc == 2) {
        (man ? print_overview_man : print_overview)(stdout);
        return flushed(EXIT_FINE);
    }
    const Command *command = find_command(argc - 1 - manual, argv + 1 + manual, &words);
    if (!command)
        return unknown_command(argv[1 + manual]);
    if (!manual)
        return run_command(command, argc, argv, words);
    (man ? options_man : options_help)(command, stdout);
    return flushed(EXIT_FINE);
}
