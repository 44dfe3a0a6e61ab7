/* The emulator's collective functions: all 32 lanes of a warp come, the last one does the work. How
 * elements lie in the lanes' registers is said in compiler/kernels/cuda/primitives.h, and here once
 * more in code; test_simt.c holds both against plain loops.
 *
 * Products of bf16 and of tf32 are exact in float. A GPU adds them up in an order, and with an
 * alignment of exponents, that nobody documents; here it is one after the other, rounded each time,
 * which is no more precise.
 */
#include <string.h>

#include "machine.h"

static Fiber *warp_fibers(void) { return &block->fibers[block->current / WARP * WARP]; }

extern "C" void simt_warp_barrier(int line)
{
    if (meet(wait_at(WARP_BARRIER, line, CALL_SITE)))
        block->warp_time[block->current / WARP]++;
}

static float shuffle(Kind kind, float value, int number, int line, const void *site)
{
    Fiber *fiber = wait_at(kind, line, site);
    if (number < 0 || number >= WARP)
        finding(site, "%s with %d, which is no lane", kind_names[kind], number);
    fiber->value = value;
    fiber->number = (unsigned)number % WARP;
    if (meet(fiber)) {
        Fiber *lanes = warp_fibers();
        float values[WARP];
        for (int i = 0; i < WARP; i++)
            values[i] = lanes[i].value;
        for (int i = 0; i < WARP; i++)
            lanes[i].value = values[kind == SHUFFLE ? (int)lanes[i].number
                                                    : i ^ (int)lanes[i].number];
    }
    return fiber->value;
}

extern "C" float simt_shuffle(float value, int lane, int line)
{
    return shuffle(SHUFFLE, value, lane, line, CALL_SITE);
}

extern "C" float simt_shuffle_xor(float value, int mask, int line)
{
    return shuffle(SHUFFLE_XOR, value, mask, line, CALL_SITE);
}

extern "C" void simt_load_matrices(unsigned r[4], unsigned at, bool transposed, int line)
{
    Fiber *fiber = wait_at(transposed ? MATRICES_TRANSPOSED : MATRICES, line, CALL_SITE);
    fiber->r = r;
    fiber->number = at;
    if (!meet(fiber))
        return;
    Fiber *lanes = warp_fibers();
    int first = block->current / WARP * WARP;
    uint16_t rows[WARP][8];
    for (int i = 0; i < WARP; i++)
        read_shared(first + i, lanes[i].number, 16, rows[i], fiber->site);
    for (int i = 0; i < WARP; i++)
        for (int m = 0; m < 4; m++) {
            int row = i / 4, column = 2 * (i % 4);
            unsigned low = transposed ? rows[8 * m + column][row] : rows[8 * m + row][column];
            unsigned high = transposed ? rows[8 * m + column + 1][row]
                                       : rows[8 * m + row][column + 1];
            lanes[i].r[m] = low | high << 16;
        }
}

static float float_of(unsigned bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* d += a b for matrices of 16 x `depth` and `depth` x 8, added up in the order of depth. */
static void multiply(Fiber *lanes, const float (*a)[16], const float (*b)[8], int depth)
{
    float d[16][8];
    for (int i = 0; i < WARP; i++)
        for (int k = 0; k < 4; k++)
            d[i / 4 + k / 2 * 8][2 * (i % 4) + k % 2] = lanes[i].d[k];
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < depth; k++)
            for (int column = 0; column < 8; column++)
                d[row][column] += a[row][k] * b[k][column];
    for (int i = 0; i < WARP; i++)
        for (int k = 0; k < 4; k++)
            lanes[i].d[k] = d[i / 4 + k / 2 * 8][2 * (i % 4) + k % 2];
}

static Fiber *wait_with(Kind kind, float d[4], const unsigned a[4], const unsigned b[2], int line,
                        const void *site)
{
    Fiber *fiber = wait_at(kind, line, site);
    fiber->d = d;
    fiber->a = a;
    fiber->b = b;
    return fiber;
}

extern "C" void simt_multiply_bf16(float d[4], const unsigned a[4], const unsigned b[2], int line)
{
    if (!meet(wait_with(MULTIPLY_BF16, d, a, b, line, CALL_SITE)))
        return;
    Fiber *lanes = warp_fibers();
    float left[16][16], right[16][8];
    for (int i = 0; i < WARP; i++) {
        int g = i / 4, t = i % 4;
        for (int k = 0; k < 8; k++)
            left[g + k / 2 % 2 * 8][2 * t + k % 2 + k / 4 * 8] =
                float_of(k % 2 ? lanes[i].a[k / 2] & 0xffff0000u : lanes[i].a[k / 2] << 16);
        for (int k = 0; k < 4; k++)
            right[2 * t + k % 2 + k / 2 * 8][g] =
                float_of(k % 2 ? lanes[i].b[k / 2] & 0xffff0000u : lanes[i].b[k / 2] << 16);
    }
    multiply(lanes, left, right, 16);
}

static float rounded(unsigned bits, const void *site)
{
    float x = float_of(bits);
    if ((bits & 0x1fffu) && x == x)
        finding(site, "multiply_tf32 of %a, which round_tf32 has not rounded", (double)x);
    return x;
}

extern "C" void simt_multiply_tf32(float d[4], const unsigned a[4], const unsigned b[2], int line)
{
    const void *site = CALL_SITE;
    if (!meet(wait_with(MULTIPLY_TF32, d, a, b, line, site)))
        return;
    Fiber *lanes = warp_fibers();
    float left[16][16], right[16][8];
    for (int i = 0; i < WARP; i++) {
        int g = i / 4, t = i % 4;
        for (int k = 0; k < 4; k++)
            left[g + k % 2 * 8][t + k / 2 * 4] = rounded(lanes[i].a[k], site);
        for (int k = 0; k < 2; k++)
            right[t + k * 4][g] = rounded(lanes[i].b[k], site);
    }
    multiply(lanes, left, right, 8);
}
