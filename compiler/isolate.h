/* A kernel's text so that many of them can stand in one file of C. */
#ifndef ISOLATE_H
#define ISOLATE_H

#include "seg.h"

/* Adds the text with all that it declares for itself renamed, its macros undefined behind it, and
 * its external functions NOINLINE, a macro that makes them static. number: from 1, another for each
 * text; 0: what all of them use, where nothing is renamed or undefined. */
void isolate(Text *into, const char *text, int number);

#endif
