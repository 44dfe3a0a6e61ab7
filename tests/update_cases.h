/* What follows the gradients, on any device: see update_cases.c. */
#ifndef UPDATE_CASES_H
#define UPDATE_CASES_H

#include "comparison.h"

/* Prints what failed and the count that tests/run.sh reads; the exit code. */
int update_cases(const char *target, Device *);

#endif
