/* The command line from a table: parsing, --help and the man page.
 *
 * In: a Command with its rows of options (main.c) and argv. Out: an Options with every row's
 * default or given value in its place. getopt_long does the scanning (operands and options in any
 * order, long names may be shortened); the kinds, ranges and choices are checked here, so that a
 * wrong value is an error that names the option. Defaults are texts that go through the same
 * parser as what a user writes, so that --help cannot say anything else than what happens.
 */
#include "commands.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_WIDTH = 80, HELP_COLUMN = 26, MAX_OPTIONS = 64 };

static bool usage_error(const Command *command, const char *format, const char *a, const char *b)
{
    fprintf(stderr, "segrun %s: error: ", command->name);
    fprintf(stderr, format, a, b);
    fprintf(stderr, "\nhint: segrun %s --help lists the options\n", command->name);
    return false;
}

/* Whether `word` is one of the words of "a|b|c:N"; N stands for a number. */
static bool is_choice(const char *choices, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = choices; *at;) {
        size_t n = strcspn(at, "|");
        bool number = n > 2 && memcmp(at + n - 2, ":N", 2) == 0;
        if (!number ? n == length && memcmp(at, word, n) == 0
                    : length >= n && memcmp(at, word, n - 1) == 0
                          && strspn(word + n - 1, "0123456789") == length - (n - 1))
            return true;
        at += n + (at[n] == '|');
    }
    return false;
}

static bool number_error(const Command *command, const Option *option, const char *text)
{
    char expected[160];
    if (option->kind == OPTION_SEED)
        snprintf(expected, sizeof expected, "a whole number from 0 to 2^64-1");
    else if (option->most < HUGE_VAL)
        snprintf(expected, sizeof expected, "%s from %g to %g",
                 option->kind == OPTION_COUNT ? "a whole number" : "a number", option->least,
                 option->most);
    else
        snprintf(expected, sizeof expected, "%s of at least %g",
                 option->kind == OPTION_COUNT ? "a whole number" : "a number", option->least);
    fprintf(stderr, "segrun %s: error: --%s '%s': expected %s\n", command->name, option->name, text,
            expected);
    fprintf(stderr, "hint: segrun %s --help lists the options\n", command->name);
    return false;
}

bool option_set(const Command *command, const Option *option, const char *text, Options *options)
{
    void *place = (char *)options + option->place;
    char *end = NULL;
    errno = 0;
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)place = true;
        return true;
    case OPTION_TEXT:
        if (!*text)
            return usage_error(command, "--%s: expected %s, got an empty text", option->name,
                               option->argument);
        *(const char **)place = text;
        return true;
    case OPTION_CHOICE:
        if (!is_choice(option->argument, text)) {
            fprintf(stderr, "segrun %s: error: --%s '%s': expected one of %s\n", command->name,
                    option->name, text, option->argument);
            fprintf(stderr, "hint: segrun %s --help lists the options\n", command->name);
            return false;
        }
        *(const char **)place = text;
        return true;
    case OPTION_COUNT: {
        if (strcmp(text, "auto") == 0 && strstr(option->argument, "auto")) {
            *(int64_t *)place = 0;
            return true;
        }
        long long value = strtoll(text, &end, 10);
        if (errno || end == text || *end || (double)value < option->least
            || (double)value > option->most)
            return number_error(command, option, text);
        *(int64_t *)place = value;
        return true;
    }
    case OPTION_SEED: {
        unsigned long long value = strtoull(text, &end, 0);
        if (errno || end == text || *end || strchr(text, '-'))
            return number_error(command, option, text);
        *(uint64_t *)place = value;
        return true;
    }
    case OPTION_REAL: {
        double value = strtod(text, &end);
        if (end == text || *end || !isfinite(value) || value < option->least
            || value > option->most)
            return number_error(command, option, text);
        *(double *)place = value;
        return true;
    }
    }
    return false;
}

/* The reference spells the learning rate -lr; getopt would read that as -l with the value r. */
static void accept_lr(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "-lr") == 0)
            argv[i] = (char *)"--lr";
}

static bool scan(const Command *command, int argc, char **argv, Options *options, bool *help)
{
    struct option longs[MAX_OPTIONS + 2];
    char letters[3 * MAX_OPTIONS + 4] = ":h";
    memset(longs, 0, sizeof longs);
    for (int i = 0; i < command->n_options; i++) {
        const Option *row = &command->options[i];
        bool argument = row->kind != OPTION_FLAG;
        longs[i] = (struct option){ row->name, argument, NULL, 256 + i };
        if (row->letter) {
            char more[3] = { row->letter, argument ? ':' : 0, 0 };
            strcat(letters, more);
        }
    }
    longs[command->n_options] = (struct option){ "help", no_argument, NULL, 'h' };
    optind = 0;
    opterr = 0;
    int found;
    while ((found = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        if (found == 'h') {
            *help = true;
            return true;
        }
        if (found == '?' || found == ':') {
            char letter[3] = { '-', (char)optopt, 0 };
            bool is_letter = optopt > 0 && optopt < 256;
            const char *what = is_letter ? letter : argv[optind - 1];
            return usage_error(command, found == ':' ? "option '%s' needs a value"
                               : "unknown option '%s'", what, "");
        }
        int row = found - 256;
        for (int i = 0; found < 256 && i < command->n_options; i++)
            if (command->options[i].letter == found)
                row = i;
        options->given |= (uint64_t)1 << row;
        if (!option_set(command, &command->options[row], optarg, options))
            return false;
    }
    return true;
}

bool options_parse(const Command *command, int argc, char **argv, Options *options, bool *help)
{
    *help = false;
    options->command = command;
    for (int i = 0; i < command->n_options; i++) {
        const Option *row = &command->options[i];
        if (row->standard && !option_set(command, row, row->standard, options))
            return false;
    }
    accept_lr(argc, argv);
    if (!scan(command, argc, argv, options, help))
        return false;
    if (*help)
        return true;
    if (options->config && !config_read(options->config, options))
        return false;
    options->operands = argv + optind;
    options->n_operands = argc - optind;
    if (options->n_operands < command->least_operands)
        return usage_error(command, "expected %s%s", command->operands, "");
    if (command->most_operands >= 0 && options->n_operands > command->most_operands)
        return usage_error(command, "unexpected '%s'%s", options->operands[command->most_operands],
                           "");
    return true;
}

bool option_given(const Options *options, const char *name)
{
    for (int i = 0; i < options->command->n_options; i++)
        if (strcmp(options->command->options[i].name, name) == 0)
            return options->given >> i & 1;
    return false;
}

/* Words of `text` in lines of `width`, each line behind `indent` spaces; starts at `column`. */
static void print_wrapped(FILE *out, const char *text, int column, int indent, int width)
{
    bool first = true;
    while (*text) {
        if (text[0] == '\n' && text[1] == '\n') {
            fprintf(out, "\n\n%*s", indent, "");
            column = indent;
            first = true;
            text += 2;
            continue;
        }
        int n = (int)strcspn(text, " \n");
        if (n == 0) {
            text++;
            continue;
        }
        if (!first && column + 1 + n > width) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
            first = true;
        }
        column += fprintf(out, "%s%.*s", first ? "" : " ", n, text);
        first = false;
        text += n;
    }
    fputc('\n', out);
}

static void print_option(const Option *row, FILE *out)
{
    char left[96], text[1024];
    char letter[8] = "    ";
    if (row->letter)
        snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(left, sizeof left, "  %s--%s%s%s", letter, row->name, row->argument ? " " : "",
             row->argument ? row->argument : "");
    snprintf(text, sizeof text, "%s%s%s%s", row->help, row->standard ? " (default " : "",
             row->standard ? row->standard : "", row->standard ? ")" : "");
    int column = fprintf(out, "%s", left);
    if (column > HELP_COLUMN - 2) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", HELP_COLUMN - column, "");
    print_wrapped(out, text, HELP_COLUMN, HELP_COLUMN, HELP_WIDTH);
}

static const char exit_text[] =
    "0 fine; 1 something wrong in what you gave (a picture, a plan, a checkpoint); 2 wrong usage; "
    "3 the environment (disk, memory, compiler); 130 interrupted.";

void options_help(const Command *command, FILE *out)
{
    fprintf(out, "Usage: segrun %s %s [options]\n\n", command->name, command->operands);
    print_wrapped(out, command->text, 0, 0, HELP_WIDTH);
    fprintf(out, "\nOptions:\n");
    for (int i = 0; i < command->n_options; i++)
        print_option(&command->options[i], out);
    static const Option help = { 'h', "help", OPTION_FLAG, NULL, NULL, 0, 0, 0, "print this text" };
    print_option(&help, out);
    fprintf(out, "\nExamples:\n%s\nExit codes: ", command->examples);
    print_wrapped(out, exit_text, 12, 12, HELP_WIDTH);
}

/* Text for troff: backslashes and hyphens escaped, no line begins with a dot or an apostrophe. */
static void print_troff(FILE *out, const char *text, bool fold)
{
    bool start = true;
    for (; *text; text++) {
        if (fold && text[0] == '\n' && text[1] == '\n') {
            fputs("\n.PP\n", out);
            text++;
            start = true;
            continue;
        }
        if (start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(*text, out);
        start = *text == '\n';
    }
}

void options_man(const Command *command, FILE *out)
{
    char name[64];
    snprintf(name, sizeof name, "segrun-%s", command->name);
    for (char *c = name; *c; c++)
        if (*c == ' ')
            *c = '-';
    fprintf(out, ".TH \"%s\" 1\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n.B segrun %s\n%s [options]\n",
            name, name, command->summary, command->name, command->operands);
    fputs(".SH DESCRIPTION\n", out);
    print_troff(out, command->text, true);
    fputs("\n.SH OPTIONS\n", out);
    for (int i = 0; i < command->n_options; i++) {
        const Option *row = &command->options[i];
        fputs(".TP\n", out);
        if (row->letter)
            fprintf(out, "\\fB\\-%c\\fR, ", row->letter);
        fputs("\\fB\\-\\-", out);
        print_troff(out, row->name, false);
        fprintf(out, "\\fR%s%s\n", row->argument ? " " : "", row->argument ? row->argument : "");
        print_troff(out, row->help, false);
        if (row->standard) {
            fputs(" (default ", out);
            print_troff(out, row->standard, false);
            fputc(')', out);
        }
        fputc('\n', out);
    }
    fputs(".SH EXAMPLES\n.nf\n", out);
    print_troff(out, command->examples, false);
    fputs(".fi\n.SH EXIT STATUS\n", out);
    print_troff(out, exit_text, false);
    fputc('\n', out);
}

int report(const Error *error)
{
    fflush(stdout);
    fprintf(stderr, "segrun: %s%s\n", error->code == EXIT_INTERRUPTED ? "" : "error: ",
            error->text);
    if (error->hint[0])
        fprintf(stderr, "hint: %s\n", error->hint);
    return error->code ? (int)error->code : EXIT_ENVIRONMENT;
}
