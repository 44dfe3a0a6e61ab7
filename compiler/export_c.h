/* A network as plain C: `segc --export-c`. */
#ifndef EXPORT_C_H
#define EXPORT_C_H

#include "seg.h"

/* The program predict of the plan's target "host" with the weights of a safetensors file, as
 * FOLDER/MODEL.c, .h and .weights, written atomically. Prints their names. False after an error. */
bool export_c(Compilation *, const Plan *, const char *weights, const char *folder);

#endif
