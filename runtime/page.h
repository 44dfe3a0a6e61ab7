/* A page for a browser: one HTML file with its pictures in it, without scripts and without anything
 * from elsewhere. Every text from a file goes through put_html (canvas.h). Written in memory, then
 * to the disk in one piece.
 */
#ifndef PAGE_H
#define PAGE_H

#include <stdio.h>

#include "canvas.h"

typedef struct { FILE *out; char *text; size_t size; } Page;
/* The head, up to <body>. */
bool page_open(Page *, const char *title, Error *);
/* Ends the page and writes it; of one that is not complete nothing is written. */
bool page_close(Page *, const char *path, bool complete, Error *);

void put_cell(FILE *, const char *format, double value);
/* A picture in the page. */
void put_png(FILE *, const char *alternative, const void *png, size_t size);

#endif
