/* The largest connected part of a mask: union-find over runs of pixels in a row, which touch where
 * they share a column with a run of the row above (4-connected).
 */
#include <stdlib.h>
#include <string.h>

#include "data.h"

typedef struct { int begin, end, y, parent; int64_t pixels; } Run;

static int root_of(Run *runs, int run)
{
    while (runs[run].parent != run)
        run = runs[run].parent = runs[runs[run].parent].parent;
    return run;
}

/* The earlier one of two roots stays, so that ties are decided by place. */
static void join(Run *runs, int a, int b)
{
    a = root_of(runs, a);
    b = root_of(runs, b);
    if (a == b)
        return;
    int first = a < b ? a : b, second = a < b ? b : a;
    runs[second].parent = first;
    runs[first].pixels += runs[second].pixels;
}

static int find_runs(const uint8_t *mask, int width, int height, Run *runs)
{
    int n = 0;
    for (int y = 0; y < height; y++) {
        const uint8_t *row = mask + (size_t)y * (size_t)width;
        for (int x = 0; x < width; x++) {
            if (!row[x])
                continue;
            int begin = x;
            while (x < width && row[x])
                x++;
            runs[n] = (Run){ begin, x, y, n, x - begin };
            n++;
        }
    }
    return n;
}

bool keep_largest_component(uint8_t *mask, int width, int height)
{
    size_t most = ((size_t)width + 1) / 2 * (size_t)height;
    Run *runs = malloc((most + 1) * sizeof *runs);
    if (!runs)
        return false;
    int n = find_runs(mask, width, height, runs);
    for (int above = 0, run = 0; run < n; run++) {
        while (runs[above].y < runs[run].y - 1
               || (runs[above].y == runs[run].y - 1 && runs[above].end <= runs[run].begin))
            above++;
        for (int k = above; runs[k].y == runs[run].y - 1 && runs[k].begin < runs[run].end; k++)
            join(runs, k, run);
    }
    int best = 0;
    for (int run = 0; run < n; run++)
        if (runs[run].parent == run && runs[run].pixels > runs[best].pixels)
            best = run;
    for (int run = 0; run < n; run++)
        if (root_of(runs, run) != best)
            memset(mask + (size_t)runs[run].y * (size_t)width + (size_t)runs[run].begin, 0,
                   (size_t)(runs[run].end - runs[run].begin));
    free(runs);
    return true;
}
