/* The sections of the page of `segrun report`; each begins with its heading. */
#ifndef REPORT_PAGE_H
#define REPORT_PAGE_H

#include "bench.h"
#include "page.h"
#include "run_folder.h"

void put_run(FILE *, const RunFolder *);        /* the title, and the run in short */
void put_curves(FILE *, const RunFolder *);
void put_recipe(FILE *, const RunFolder *);
void put_files(FILE *, const RunFolder *);      /* command lines, checkpoints, the model's text */
void put_log(FILE *, const RunFolder *);
/* The split that was scored last, with sheets of its best and its worst `pictures`. */
bool put_scores(FILE *, Evaluation *, int pictures, Error *);
bool put_times(FILE *, const Bench *, Error *);

#endif
