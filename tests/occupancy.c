/* See occupancy.h. */
#include "occupancy.h"

enum {
    REGISTERS = 65536,         /* of a multiprocessor */
    PARTS = 4,                 /* that have registers of their own */
    WARP_REGISTERS = 256,      /* a warp gets a multiple of so many */
    BLOCK_BYTES = 128,         /* a block gets a multiple of so many, of shared memory */
};

/* Source: CUDA C Programming Guide, "Compute Capabilities", technical specifications. From 8.0 on
 * the driver keeps 1 KiB of shared memory of every block for itself, so that a block may have all of
 * a multiprocessor's but that. */
typedef struct { int capability, warps, blocks, shared, reserved; } Limits; /* shared: KiB */
static const Limits limits[] = {
    {70, 64, 32, 96, 0},     {75, 32, 16, 64, 0},     {80, 64, 32, 164, 1024},
    {86, 48, 16, 100, 1024}, {87, 48, 16, 164, 1024}, {89, 48, 24, 100, 1024},
    {90, 64, 32, 228, 1024}, {100, 64, 32, 228, 1024}, {110, 48, 24, 228, 1024},
    {120, 48, 24, 100, 1024},
};
enum { N_LIMITS = sizeof limits / sizeof *limits };

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int64_t round_up(int64_t value, int64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

Occupancy occupancy_of(int capability, int threads, int registers, int64_t shared_bytes)
{
    const Limits *of = limits;
    for (int i = 0; i < N_LIMITS && limits[i].capability <= capability; i++)
        of = &limits[i];
    int warps = (threads + 31) / 32, most = of->warps;
    if (registers)
        most = least(most, REGISTERS / PARTS / (int)round_up(registers * 32, WARP_REGISTERS) * PARTS);
    int blocks = least(of->blocks, most / warps);
    int64_t bytes = round_up(shared_bytes + of->reserved, BLOCK_BYTES);
    if (bytes)
        blocks = least(blocks, (int)(of->shared * 1024 / bytes));
    return (Occupancy){blocks, 100 * blocks * warps / of->warps};
}
