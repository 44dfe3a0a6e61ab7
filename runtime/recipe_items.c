/* The recipe of a run, item by item: everything a person chooses that changes what is learned.
 *
 * One table ties each item to its option (main.c), its place in RunState, its key in a checkpoint
 * and in recipe.json (the option's name), and its value in files that were written before there was
 * such an item. A new run takes the options; a resumed one takes its checkpoint and what the command
 * line or --config gives instead.
 */
#include "commands.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ITEM_AT(kind, option, from, field, words, earlier, restarts, least, most) \
    { option, kind, offsetof(Options, from), offsetof(RunState, field), words, earlier, restarts, \
      least, most }
#define ITEM(kind, option, field, words, earlier, restarts, least, most) \
    ITEM_AT(kind, option, field, field, words, earlier, restarts, least, most)
static const RecipeItem items[] = {
    ITEM(ITEM_COUNT, "epochs", epochs, NULL, NULL, false, 1, 1e6),
    ITEM(ITEM_COUNT, "batch", batch, NULL, NULL, true, 1, 65536),
    ITEM(ITEM_REAL, "lr", lr, NULL, NULL, false, 0, 1e3),
    ITEM(ITEM_SEED, "seed", seed, NULL, NULL, true, 0, 0),
    ITEM(ITEM_COUNT, "limit", limit, NULL, NULL, true, 0, 1e9),
    ITEM(ITEM_CHOICE, "flip", flip, "n|y", NULL, true, 0, 0),
    ITEM_AT(ITEM_CHOICE, "outline", outline, outline, "foreground|background|class", NULL, true, 0, 0),
    ITEM(ITEM_CHOICE, "optimizer", optimizer, "adam|adamw|sgd|nesterov", "adam", false, 0, 0),
    ITEM(ITEM_REAL, "weight-decay", weight_decay, NULL, "0", false, 0, 10),
    ITEM(ITEM_REAL, "momentum", momentum, NULL, "0.9", false, 0, 1),
    ITEM(ITEM_REAL, "clip", clip, NULL, "0", false, 0, 1e9),
    ITEM(ITEM_COUNT, "accumulate", accumulate, NULL, "1", true, 1, 1e6),
    ITEM(ITEM_CHOICE, "schedule", schedule, "constant|cosine|poly|plateau", "constant", false, 0, 0),
    ITEM(ITEM_REAL, "warmup", warmup, NULL, "0", false, 0, 1e6),
    ITEM(ITEM_REAL, "min-lr", min_lr, NULL, "0", false, 0, 1e3),
    ITEM(ITEM_REAL, "power", power, NULL, "0.9", false, 0, 100),
    ITEM(ITEM_REAL, "factor", factor, NULL, "0.5", false, 0, 1),
    ITEM(ITEM_COUNT, "plateau", plateau, NULL, "5", false, 1, 1e6),
    ITEM(ITEM_REAL, "ema", ema, NULL, "0", false, 0, 1),
    ITEM(ITEM_COUNT, "patience", patience, NULL, "0", false, 0, 1e6),
    ITEM(ITEM_COUNT, "save-every", save_every, NULL, "0", false, 0, 1e6),
    ITEM(ITEM_TEXT, "augment", augment, NULL, "none", true, 0, 0),
};
enum { N_ITEMS = sizeof items / sizeof *items };

int recipe_items(const RecipeItem **list)
{
    *list = items;
    return N_ITEMS;
}

/* Index of a word among "a|b|c"; -1: it is none. */
static int word_index(const char *words, const char *word, size_t length)
{
    for (int i = 0;; i++) {
        size_t n = strcspn(words, "|");
        if (n == length && strncmp(words, word, n) == 0)
            return i;
        if (!words[n])
            return -1;
        words += n + 1;
    }
}

static int count_words(const char *words)
{
    int n = 1;
    for (; *words; words++)
        n += *words == '|';
    return n;
}

static void word_print(const char *words, int index, char text[ITEM_BYTES])
{
    for (; index > 0; index--)
        words += strcspn(words, "|") + 1;
    snprintf(text, ITEM_BYTES, "%.*s", (int)strcspn(words, "|"), words);
}

void item_from_options(const RecipeItem *item, const Options *options, RunState *state)
{
    const void *from = (const char *)options + item->option_place;
    void *to = (char *)state + item->place;
    switch (item->kind) {
    case ITEM_COUNT: case ITEM_SEED: case ITEM_REAL:
        memcpy(to, from, 8);
        return;
    case ITEM_CHOICE: {
        const char *word = *(const char *const *)from;
        *(int *)to = word_index(item->words, word, strlen(word));
        return;
    }
    case ITEM_TEXT:
        snprintf(to, ITEM_BYTES, "%s", *(const char *const *)from);
    }
}

void item_print(const RecipeItem *item, const RunState *state, bool exact, char text[ITEM_BYTES])
{
    const void *place = (const char *)state + item->place;
    switch (item->kind) {
    case ITEM_COUNT: snprintf(text, ITEM_BYTES, "%" PRId64, *(const int64_t *)place); return;
    case ITEM_SEED: snprintf(text, ITEM_BYTES, "%" PRIu64, *(const uint64_t *)place); return;
    case ITEM_REAL:
        snprintf(text, ITEM_BYTES, exact ? "%.17g" : "%g", *(const double *)place);
        return;
    case ITEM_CHOICE: word_print(item->words, *(const int *)place, text); return;
    case ITEM_TEXT: snprintf(text, ITEM_BYTES, "%s", (const char *)place);
    }
}

bool item_parse(const RecipeItem *item, const char *text, RunState *state)
{
    void *place = (char *)state + item->place;
    char *end = NULL;
    errno = 0;
    switch (item->kind) {
    case ITEM_COUNT: *(int64_t *)place = strtoll(text, &end, 10); break;
    case ITEM_SEED: *(uint64_t *)place = strtoull(text, &end, 10); break;
    case ITEM_REAL: *(double *)place = strtod(text, &end); break;
    case ITEM_CHOICE:   /* checkpoints: a number; older ones: "adam beta1=0.9 ..." */
        *(int *)place = text[0] >= '0' && text[0] < '0' + count_words(item->words) && !text[1]
                      ? text[0] - '0' : word_index(item->words, text, strcspn(text, " "));
        return *(int *)place >= 0;
    case ITEM_TEXT:
        snprintf(place, ITEM_BYTES, "%s", text);
        return strlen(text) < ITEM_BYTES;
    }
    return end != text && !*end && !errno;
}

bool item_sound(const RecipeItem *item, const RunState *state)
{
    const void *place = (const char *)state + item->place;
    double value = item->kind == ITEM_COUNT ? (double)*(const int64_t *)place
                 : item->kind == ITEM_REAL  ? *(const double *)place : item->least;
    return value >= item->least && value <= item->most;
}

bool recipe_json_write(const char *path, const RunState *state, Error *error)
{
    json_t *json = json_object();
    for (int i = 0; i < N_ITEMS; i++) {
        const void *place = (const char *)state + items[i].place;
        char text[ITEM_BYTES];
        item_print(&items[i], state, true, text);
        json_object_set_new(json, items[i].option,
                            items[i].kind == ITEM_COUNT ? json_integer(*(const int64_t *)place)
                            : items[i].kind == ITEM_REAL ? json_real(*(const double *)place)
                                                         : json_string(text));
    }
    return json_write(path, json, error);
}
