/* Sums over the pixels of a part, and who does which pixels: between the generated functions and a
 * template. Templates that do a result pixel by pixel share one way of dividing the work:
 *
 *   a sample's P * Q pixels are cut into SIZE_PARTS parts of SIZE_PIXELS;
 *   a block of threads does one part of one sample for SIZE_LANES blocks of channels (a power of
 *   two up to THREADS): thread t does channel block t % LANES of pixels t / LANES,
 *   + THREADS / LANES, ...
 *
 * Threads with the same channel block add up their Accumulators in a fixed order at the end.
 */
typedef struct {
    int n, part, cb;      /* cb may lie behind the last channel block: then `first` is `end` */
    int first, step, end; /* pixels of the result */
} Walk;

DEVICE Walk walk_of_thread(int blocks_of_channels, int pixels, int parts, int part_pixels,
                           int lanes)
{
    int groups = divide_up(blocks_of_channels, lanes), block = block_index();
    Walk walk;
    walk.n = block / (parts * groups);
    walk.part = block / groups % parts;
    walk.cb = block % groups * lanes + thread_index() % lanes;
    walk.step = THREADS / lanes;
    walk.end = least((walk.part + 1) * part_pixels, pixels);
    walk.first = walk.part * part_pixels + thread_index() / lanes;
    if (walk.cb >= blocks_of_channels || walk.first > walk.end)
        walk.first = walk.end;
    return walk;
}

#ifdef HAS_WRITE
/* Merges the accumulators of all threads whose number is equal modulo `lanes`, in the order of a
 * tree, and lets finish_y store them. All threads of the block call it; `at` is the byte in shared
 * memory from which THREADS * 32 * max(1, ACCUMULATORS) bytes may be used (nobody may read them
 * later without a barrier). */
DEVICE void finish_block(const Arguments *a, int n, int part, int cb, int blocks_of_channels,
                         int lanes, Accumulators *sums, unsigned at)
{
    if (ACCUMULATORS == 0)
        return;
    int thread = thread_index();
    ROLLED for (int half = THREADS / 2; half >= lanes; half /= 2) {
        barrier();
        if (thread >= half && thread < 2 * half)
            for (int k = 0; k < ACCUMULATORS; k++)
                UNROLL for (int i = 0; i < 8; i++)
                    store_shared(at + (unsigned)(((k * 8 + i) * THREADS + thread) * 4),
                                 sums->value[k].lane[i]);
        barrier();
        if (thread < half) {
            Accumulators other;
            for (int k = 0; k < ACCUMULATORS; k++)
                UNROLL for (int i = 0; i < 8; i++)
                    other.value[k].lane[i] =
                        load_shared<float>(at + (unsigned)(((k * 8 + i) * THREADS + thread + half)
                                                           * 4));
            merge_y(sums, &other);
        }
    }
    if (thread < lanes && cb < blocks_of_channels)
        finish_y(a, n, part, cb, sums);
}
#endif
