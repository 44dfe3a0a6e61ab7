/* Odd models that fusion, ordering and memory planning could get wrong: test_fusion.c runs them on
 * the host, simt/test_simt_ops.c some of them on the emulated CUDA device.
 */
#ifndef FUSION_CASES_H
#define FUSION_CASES_H

#include "comparison.h"

typedef struct {
    const char *name;
    int batch;
    double tolerance;
    bool each;                 /* every single fusion off as well */
    const char *body;          /* what stands in the model */
} FusionCase;
extern const FusionCase fusion_cases[];
extern const int n_fusion_cases;

/* Its model, until the next call, as a case. */
Case fusion_case(const FusionCase *);

#endif
