/* Adds up the splits of a convolution's weight gradient, always in the same order: ROWS threads
 * take every ROWS-th split of a weight, then their sums are added.
 *
 * own buffers: workspace [SPLITS][COUNT], result [COUNT]
 * sizes: COUNT, SPLITS, ROWS (a power of two up to 32)
 * grid: a block for THREADS / ROWS weights; shared memory: 4 * THREADS
 */
enum { SIZE_COUNT, SIZE_SPLITS, SIZE_ROWS };

ENTRY
{
    const int *s = arguments.sizes;
    int columns = THREADS / s[SIZE_ROWS], thread = thread_index();
    int column = thread % columns, i = block_index() * columns + column;
    const float *workspace = (const float *)arguments.buffers[0];
    float sum = 0;
    if (i < s[SIZE_COUNT]) {
        UNROLL for (int split = thread / columns; split < s[SIZE_SPLITS]; split += s[SIZE_ROWS])
            sum += load_fixed(workspace + (int64_t)split * s[SIZE_COUNT] + i);
    }
    store_shared(4 * (unsigned)thread, sum);
    barrier();
    if (thread >= columns || i >= s[SIZE_COUNT])
        return;
    for (int row = 1; row < s[SIZE_ROWS]; row++)
        sum += load_shared<float>(4 * (unsigned)(row * columns + column));
    store_global((float *)arguments.buffers[1] + i, sum);
}
