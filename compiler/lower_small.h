/* What lower() must know about the host templates that are not of the convolutions' family: how a
 * sample is divided into parts, and the scratch memory of a thread. `sizes` are the template's own
 * sizes in their standard order: C H W of the first operand, K P Q of the result, parts, rows of a
 * part, then the operator's attributes. Both depend on sizes alone: never on the machine.
 */
#ifndef LOWER_SMALL_H
#define LOWER_SMALL_H

#include <stdint.h>

/* Needs the first six sizes. Parts a sample, and rows of the result a part (the last may be
 * shorter). Calls bug() for a template it does not know. */
void template_parts(const char *template, const int64_t *sizes, int64_t *parts, int64_t *rows);
/* Needs all sizes. Bytes a thread, a multiple of 64. */
int64_t template_scratch(const char *template, const int64_t *sizes);

#endif
