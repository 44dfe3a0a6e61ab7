/* Results as JSON, for programs: indented, numbers with nine digits, a newline behind them. */
#include "commands.h"

#include <stdlib.h>
#include <string.h>

bool json_write(const char *path, json_t *json, Error *error)
{
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    size_t length = text ? strlen(text) : 0;
    json_decref(json);
    if (!text)
        return fail(error, EXIT_USER, "", "%s: no JSON: its numbers are not all finite", path);
    bool written = true;
    text[length] = '\n'; /* the end of the text is not needed again */
    if (strcmp(path, "-") == 0)
        fwrite(text, 1, length + 1, stdout);
    else
        written = file_write(path, text, length + 1, error);
    free(text);
    return written;
}
