/* Errors of the runtime: what happened, in one line, and what to do about it.
 *
 * Functions that can fail fill an Error and return false or NULL; only the command line prints.
 * Texts hold names from files that anybody may have made, so bytes that would steer a terminal are
 * replaced here, once, and not at every place that reports something.
 */
#include <stdarg.h>
#include <stdio.h>

#include "files.h"

static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = *text == '\n' || *text == '\t' ? ' ' : '?';
}

bool fail(Error *error, ExitCode code, const char *hint, const char *format, ...)
{
    if (!error)
        return false;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    snprintf(error->hint, sizeof error->hint, "%s", hint ? hint : "");
    make_printable(error->text);
    make_printable(error->hint);
    error->code = code;
    return false;
}
