/* What the tests of the CUDA device share: the stand-ins, their log, and a plan made by hand.
 *
 * The model: y = image + 1 + 10, in two steps, of which the second has two launches; before them a
 * `once` step that counts its runs.
 */
#ifndef TINY_H
#define TINY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/device.h"

#include <cmocka.h> /* behind the others: it takes the name `fail` for itself */

#define TEXT(constant) ((char *)(constant))
enum { PIXELS = 6, MAX_BATCH = 4 };

extern char root[32];           /* a folder for the test, removed at its end */
extern char stubs[512];         /* the folder of the stand-ins */
extern char log_path[128], cache[128];

extern PlanKernel tiny_kernels[];  /* pack, scale, shift, shift_fast, PLAN_MATMUL */
extern PlanLaunch tiny_shift[];    /* of the last step: by shift, by shift_fast */
extern PlanProgram tiny_programs[]; /* predict, evaluate; a third multiplies matrices */
extern PlanTarget tiny_targets[];  /* cuda-tf32, cuda-fp32, host */
extern Plan tiny_plan;

extern int built;               /* kernels, since a device was opened */
extern char said[8192];

Device *open_with(DeviceOptions, Error *);
Device *open_device(Error *);
Executor *open_executor(Device *);
/* Writes first, first + 1, ...; y is 11 more. */
bool write_image(Executor *, int batch, float first, Error *);
void run_image(Executor *, int batch, float first);
void assert_y(Executor *, int batch, float first);
/* What was opened and not closed: nothing. */
void assert_nothing_lives(void);

void clear_log(void);
/* The lines of the log that begin with one of the words, which are parted by bars. */
const char *logged(const char *words);
/* Calls visit for the files of the cache with that ending; gives their number. */
int visit_cache(const char *ending, void (*visit)(const char *path));
void remove_folder(const char *folder);

int set_up(void **state);
int tear_down(void **state);
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
/* Before and after all tests of a program. */
bool tiny_open(void);
void tiny_close(void);

#endif
