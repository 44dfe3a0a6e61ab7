/* The harness of test_templates.c: tensors, and calls of kernel templates between simple row
 * functions (template_rows.h). Tensors are in double, [N][C][H][W]. Everything that a Case
 * or a Small holds is freed by the call.
 */
#ifndef TEMPLATES_H
#define TEMPLATES_H

#include <stdint.h>

#include "../runtime/plan.h"

enum { MAX_OPERANDS = 4, MAX_SMALL = 6 };

typedef struct { int64_t n, c, h, w; double *v; } Tensor;
Tensor zeros(int64_t n, int64_t c, int64_t h, int64_t w);
Tensor quarters(int64_t n, int64_t c, int64_t h, int64_t w); /* multiples of 1/4, -3 to 3 */
int64_t count_of(Tensor);
double *at(Tensor, int64_t n, int64_t c, int64_t h, int64_t w);
int64_t below(int64_t limit);          /* a random number 0 .. limit-1 */
int64_t padded(int64_t c);             /* up to a multiple of 16 */
/* Floats as a fixed tensor: rows of c values with zeros up to a multiple of 16. */
float *fixed(const double *values, int64_t rows, int64_t c);

/* A call between row functions: operands and the wanted result, attributes behind the standard
 * sizes, a float attribute, and one buffer of the template's own (or NULL). */
typedef struct {
    const char *name;                  /* of a kernel */
    int n_operands;
    Tensor operands[MAX_OPERANDS];
    Tensor want;
    int64_t attributes[4];
    double scalar;
    float *own;
} Case;
void run_case(Case *);

/* A call of a template without rows: its buffers, the last of which is the result. `want` has as
 * many floats. A non-zero `same` says that the result lies over buffer 0. */
typedef struct {
    const char *name;
    int n_buffers;
    float *buffers[MAX_SMALL];         /* the result's is made by run_small */
    float *want; int64_t count;
    int64_t sizes[4], batch;
    double scalar;
    int same;
} Small;
void run_small(Small *);

/* Compiles and loads all templates; ends the program where that fails. */
void compile_templates(void);
KernelFunction *template_function(const char *name);
/* Counts a check; prints what failed. */
void judge(bool good, const char *name, const int64_t *sizes, int64_t n, double worst);
double difference(const float *got, const float *want, int64_t count); /* over 1 + |want| */
int report(void);                      /* the last line, and the exit status */

#endif
