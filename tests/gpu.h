/* A real GPU for tests: those in gpu/ are skipped with a line where there is none. */
#ifndef GPU_H
#define GPU_H

#include "../runtime/run.h"

/* For a target such as "cuda-bf16". NULL after an error. tune: whether it may choose launches. */
Device *gpu_open(const char *target, bool tune, Error *);
/* Whether there is a GPU and all that it takes; prints what is missing, and the count of a suite that
 * was skipped. */
bool gpu_is_there(void);

#endif
