/* Gradient of max pooling: dy of a window goes to the first largest pixel (row by row) of x in that
 * window; where windows overlap, gradients add up in the order of the windows.
 *
 * DISJOINT, windows side by side: a thread looks through a window and writes its pixels.
 *
 * Else: a tile is as many pixels of the result as a thread block has threads for LANES channel
 * blocks. The block first finds the largest pixel of every window that reaches the tile, a few rows
 * of windows at a time (as many as fit in shared memory), then each thread takes what its own pixel
 * is owed. So a window is looked through once a tile; and no thread adds to another's pixel.
 *
 * WINDOW is the kernel where it is small, so that its pixels are loaded at the same time, else 0.
 *
 * own buffers: none    own scalars: none    own shared bytes: TABLE, or 0 where DISJOINT
 * sizes: C H W of dy; K P Q of x and the result; parts a sample; pixels of the result a part (whole
 * tiles, also what lies outside the map; windows where DISJOINT); channel blocks a thread block;
 * kernel stride padding */
#undef LEAST_BLOCKS
#define LEAST_BLOCKS 1 /* no spills for the sake of occupancy */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES,
    SIZE_KERNEL, SIZE_STRIDE, SIZE_PADDING
};

/* Where a window's first largest pixel is in each lane, counted row by row in the window. */
typedef struct { unsigned lane[8]; } Places;
enum { PLACES_BYTES = 32 };

/* What lies outside the map is replaced by the nearest pixel in it, which is in the window too. */
DEVICE Places look_through(const Arguments *a, int n, int cb, int row, int column)
{
    const int *s = a->sizes;
    const int kernel = WINDOW ? WINDOW : s[SIZE_KERNEL];
    int top = row * s[SIZE_STRIDE] - s[SIZE_PADDING];
    int left = column * s[SIZE_STRIDE] - s[SIZE_PADDING];
    v8 best = splat8(-INFINITY);
    Places places;
    UNROLL for (int r = 0; r < kernel; r++)
        UNROLL for (int c = 0; c < kernel; c++) {
            int h = most(least(top + r, s[SIZE_P] - 1), 0);
            int w = most(least(left + c, s[SIZE_Q] - 1), 0);
            v8 x = read_x(a, n, cb, h, w);
            EACH_LANE {
                bool larger = r + c == 0 || best.lane[i] < x.lane[i];
                best.lane[i] = larger ? x.lane[i] : best.lane[i];
                places.lane[i] = larger ? (unsigned)((h - top) * kernel + w - left)
                                        : places.lane[i];
            }
        }
    return places;
}

/* dy in the lanes whose place this is. */
DEVICE v8 keep_place(const Places &places, int place, v8 dy)
{
    v8 y;
    EACH_LANE y.lane[i] = places.lane[i] == (unsigned)place ? dy.lane[i] : 0.0f;
    return y;
}

#ifdef DISJOINT

/* Writes the pixels of a window, or zeros where the map ends before the window does. */
DEVICE void one_window(const Arguments *a, int n, int cb, int row, int column, Accumulators *sums)
{
    const int *s = a->sizes;
    const int kernel = WINDOW ? WINDOW : s[SIZE_KERNEL];
    Places places = {};
    v8 dy = splat8(0.0f);
    if (row < s[SIZE_H] && column < s[SIZE_W]) {
        places = look_through(a, n, cb, row, column);
        dy = read_dy(a, n, cb, row, column);
    }
    int bottom = least(kernel, s[SIZE_P] - row * kernel);
    int right = least(kernel, s[SIZE_Q] - column * kernel);
    for (int r = 0; r < bottom; r++)
        for (int c = 0; c < right; c++)
            write_y(a, n, cb, row * kernel + r, column * kernel + c,
                    keep_place(places, r * kernel + c, dy), sums);
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    int rows = divide_up(s[SIZE_P], s[SIZE_KERNEL]), columns = divide_up(s[SIZE_Q], s[SIZE_KERNEL]);
    Walk walk = walk_of_thread(blocks, rows * columns, s[SIZE_PARTS], s[SIZE_PIXELS], lanes);
    Accumulators sums;
    clear_y(&sums);
    for (int i = walk.first; i < walk.end; i += walk.step)
        one_window(a, walk.n, walk.cb, i / columns, i % columns, &sums);
    finish_block(a, walk.n, walk.part, walk.cb, blocks, lanes, &sums, 0);
}

#else

typedef struct { int top, bottom, left, right; } Range;   /* of pixels, or of windows */

/* The windows of `count` that cover `place`: begin <= i < end. */
DEVICE int windows_begin(const int *s, int place)
{
    return most(place + s[SIZE_PADDING] - s[SIZE_KERNEL] + s[SIZE_STRIDE], 0) / s[SIZE_STRIDE];
}
DEVICE int windows_end(const int *s, int place, int count)
{
    return least((place + s[SIZE_PADDING]) / s[SIZE_STRIDE] + 1, count);
}
DEVICE Range windows_of(const int *s, Range pixels)
{
    Range windows = { windows_begin(s, pixels.top), windows_end(s, pixels.bottom - 1, s[SIZE_H]),
                      windows_begin(s, pixels.left), windows_end(s, pixels.right - 1, s[SIZE_W]) };
    return windows;
}

/* The block's table has an entry for each of the windows at hand and each lane. */
DEVICE unsigned table_at(const Range *windows, int row, int column, int lanes)
{
    int width = windows->right - windows->left;
    return (unsigned)(((row - windows->top) * width + column - windows->left) * lanes
                      + thread_index() % lanes) * PLACES_BYTES;
}
DEVICE void store_places(unsigned at, const Places &p)
{
    word4 low = { p.lane[0], p.lane[1], p.lane[2], p.lane[3] };
    word4 high = { p.lane[4], p.lane[5], p.lane[6], p.lane[7] };
    store_shared(at, low);
    store_shared(at + 16, high);
}
DEVICE Places load_places(unsigned at)
{
    word4 low = load_shared<word4>(at), high = load_shared<word4>(at + 16);
    Places places = { { low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w } };
    return places;
}

/* Fills the table with these windows: all threads of the block together. */
DEVICE void find_places(const Arguments *a, int n, int cb, const Range *windows)
{
    int lanes = a->sizes[SIZE_LANES], width = windows->right - windows->left;
    int count = (windows->bottom - windows->top) * width;
    if (cb >= channel_blocks(a->sizes[SIZE_K]))
        return;
    for (int k = thread_index() / lanes; k < count; k += THREADS / lanes) {
        int row = windows->top + k / width, column = windows->left + k % width;
        store_places(table_at(windows, row, column, lanes), look_through(a, n, cb, row, column));
    }
}

/* What these windows owe pixel (p, q). */
DEVICE v8 gathered(const Arguments *a, int n, int cb, int p, int q, const Range *windows)
{
    const int *s = a->sizes;
    Range pixel = { p, p + 1, q, q + 1 }, own = windows_of(s, pixel);
    v8 sum = splat8(0.0f);
    int bottom = least(own.bottom, windows->bottom);
    for (int row = most(own.top, windows->top); row < bottom; row++)
        for (int column = own.left; column < own.right; column++) {
            Places places = load_places(table_at(windows, row, column, s[SIZE_LANES]));
            int r = p + s[SIZE_PADDING] - row * s[SIZE_STRIDE];
            int c = q + s[SIZE_PADDING] - column * s[SIZE_STRIDE];
            v8 dy = read_dy(a, n, cb, row, column);
            sum += keep_place(places, r * s[SIZE_KERNEL] + c, dy);
        }
    return sum;
}

/* Columns of a tile of `pixels`, a power of two: 4 x 2, 8 x 2, 8 x 4, 16 x 4, 16 x 8, ... */
DEVICE int tile_width(int pixels) { return pixels < 16 ? 4 : pixels < 64 ? 8 : 16; }

/* Tile `tile` of the map: its pixels, cut off at the borders. */
DEVICE Range tile_pixels(const int *s, int tile)
{
    int width = tile_width(THREADS / s[SIZE_LANES]), height = THREADS / s[SIZE_LANES] / width;
    int columns = divide_up(s[SIZE_Q], width);
    int top = tile / columns * height, left = tile % columns * width;
    Range pixels = { top, least(top + height, s[SIZE_P]), left, least(left + width, s[SIZE_Q]) };
    return pixels;
}

DEVICE void one_tile(const Arguments *a, int n, int cb, const Range *pixels, Accumulators *sums)
{
    const int *s = a->sizes;
    int lanes = s[SIZE_LANES], width = tile_width(THREADS / lanes);
    int p = pixels->top + thread_index() / lanes / width;
    int q = pixels->left + thread_index() / lanes % width;
    bool valid = cb < channel_blocks(s[SIZE_K]) && p < pixels->bottom && q < pixels->right;
    Range all = windows_of(s, *pixels), windows = all;
    int rows = TABLE / PLACES_BYTES / (most(all.right - all.left, 1) * lanes);
    v8 sum = splat8(0.0f);
    for (int top = all.top; top < all.bottom; top += rows) {
        windows.top = top;
        windows.bottom = least(top + rows, all.bottom);
        barrier();
        find_places(a, n, cb, &windows);
        barrier();
        if (valid)
            sum += gathered(a, n, cb, p, q, &windows);
    }
    if (valid)
        write_y(a, n, cb, p, q, sum, sums);
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    int groups = divide_up(blocks, lanes);
    int n = block_index() / (s[SIZE_PARTS] * groups);
    int part = block_index() / groups % s[SIZE_PARTS];
    int cb = block_index() % groups * lanes + thread_index() % lanes;
    int tiles = s[SIZE_PIXELS] / (THREADS / lanes), width = tile_width(THREADS / lanes);
    int last = divide_up(s[SIZE_Q], width) * divide_up(s[SIZE_P], THREADS / lanes / width);
    Accumulators sums;
    clear_y(&sums);
    for (int tile = part * tiles; tile < least((part + 1) * tiles, last); tile++) {
        Range pixels = tile_pixels(s, tile);
        one_tile(a, n, cb, &pixels, &sums);
    }
    finish_block(a, n, part, cb, blocks, lanes, &sums, 0);
}

#endif
