/* How many blocks of a CUDA kernel a multiprocessor runs at the same time.
 *
 * Blocks share its registers, its shared memory and its warps; the first of them that is used up
 * sets the limit. Registers are given out to warps, in each of four parts of the multiprocessor.
 */
#ifndef OCCUPANCY_H
#define OCCUPANCY_H

#include <stdint.h>

typedef struct {
    int blocks;                /* 0: a block does not fit */
    int warps;                 /* in percent of those that could be there */
} Occupancy;

/* capability: 90 for 9.0. One that is not in the table counts as the nearest before it. */
Occupancy occupancy_of(int capability, int threads, int registers, int64_t shared_bytes);

#endif
