/* --config FILE: options from a JSON object, {"epochs": 100, "lr": 1e-3, "schedule": "cosine"}.
 *
 * Keys are the long names of the command's options; values are texts, numbers, and true and false
 * for y and n and for options without a value. What the command line gives itself is not touched.
 * Values go through the parser of the command line, so that ranges and choices hold here too. An
 * unknown key is an error: a misspelt one would be a recipe that nobody ran.
 */
#include "commands.h"

#include <string.h>

static bool config_error(const char *path, const char *key, const char *text)
{
    fprintf(stderr, "segrun: error: %s: \"%.100s\": %s\n", path, key, text);
    fprintf(stderr, "hint: keys are the long names of options, as in --help: {\"epochs\": 50, "
                    "\"lr\": 1e-3}\n");
    return false;
}

/* As a user would write it; false: no value of an option. */
static bool value_text(const json_t *value, char text[512])
{
    if (json_is_string(value))
        snprintf(text, 512, "%s", json_string_value(value));
    else if (json_is_integer(value))
        snprintf(text, 512, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(text, 512, "%.17g", json_real_value(value));
    else if (json_is_boolean(value))
        snprintf(text, 512, "%s", json_is_true(value) ? "y" : "n");
    else
        return false;
    return !json_is_string(value) || json_string_length(value) < 512;
}

static bool take_value(const char *path, const char *key, const json_t *value, Options *options)
{
    const Command *command = options->command;
    for (int i = 0; i < command->n_options; i++) {
        const Option *row = &command->options[i];
        char text[512];
        if (strcmp(row->name, key) != 0 || strcmp(key, "config") == 0)
            continue;
        if (!value_text(value, text))
            return config_error(path, key, "expected a text, a number, true or false");
        if (options->given >> i & 1)
            return true;
        if (row->kind == OPTION_FLAG && json_is_false(value))
            return true;
        if (row->kind == OPTION_FLAG && !json_is_true(value))
            return config_error(path, key, "expected true or false");
        const char *kept = json_is_string(value) ? json_string_value(value)
                         : json_is_true(value)   ? "y" : json_is_false(value) ? "n" : text;
        if (!option_set(command, row, kept, options)) {
            fprintf(stderr, "note: \"%s\" stands in %s\n", key, path);
            return false;
        }
        options->given |= (uint64_t)1 << i;
        return true;
    }
    return config_error(path, key, "the command has no such option");
}

bool config_read(const char *path, Options *options)
{
    json_error_t wrong;
    json_t *file = json_load_file(path, JSON_REJECT_DUPLICATES, &wrong);
    if (!json_is_object(file)) {
        if (file)
            fprintf(stderr, "segrun: error: %s: expected an object, { ... }\n", path);
        else
            fprintf(stderr, "segrun: error: %s:%d:%d: %s\n", path, wrong.line, wrong.column,
                    wrong.text);
        json_decref(file);
        return false;
    }
    options->config_values = file; /* owns the texts */
    const char *key;
    json_t *value;
    json_object_foreach(file, key, value)
        if (!take_value(path, key, value, options))
            return false;
    return true;
}
