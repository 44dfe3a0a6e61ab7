/* What the finish_* functions share. Partial sums lie in rows, [N * parts][R][Cpad]; a block adds
 * up those of 8 channels: pairs of threads take every THREADS / 2-th row, 4 channels a thread, and
 * what the threads have is added in the order of a tree. In double; the order depends on the number
 * of rows alone. */
enum { ROWS_AT_A_TIME = 4, ROW_STEP = THREADS / 2 };

/* Calls add(values), values[R][4] of this thread's channels, for each of its rows. `partials`
 * points to the first row of the block's first channel. */
template <int R, class Add>
DEVICE void each_row(const float *partials, int rows, int padded, Add add)
{
    const float *own = partials + 4 * (thread_index() % 2);
    for (int first = thread_index() / 2; first < rows; first += ROWS_AT_A_TIME * ROW_STEP) {
        word4 words[ROWS_AT_A_TIME][R];
        UNROLL for (int i = 0; i < ROWS_AT_A_TIME; i++) {
            int64_t row = least(first + i * ROW_STEP, rows - 1);
            UNROLL for (int k = 0; k < R; k++)
                words[i][k] = load_global((const word4 *)(own + (row * R + k) * padded));
        }
        UNROLL for (int i = 0; i < ROWS_AT_A_TIME; i++) {
            float values[R][4];
            UNROLL for (int k = 0; k < R; k++) {
                values[k][0] = bits_float(words[i][k].x);
                values[k][1] = bits_float(words[i][k].y);
                values[k][2] = bits_float(words[i][k].z);
                values[k][3] = bits_float(words[i][k].w);
            }
            if (first + i * ROW_STEP < rows)
                add(values);
        }
    }
}

/* total[k]: sums[k] of all threads for the block's channel thread % 8. All threads call it; it uses
 * 16 * R * THREADS bytes of shared memory. */
template <int R> DEVICE void add_threads(double sums[R][4], int rows, double total[R])
{
    int thread = thread_index();
    for (int half = THREADS / 2; half >= 2; half /= 2) {
        if (half >= 2 * rows)                   /* the upper threads had no row */
            continue;
        barrier();
        if (thread >= half && thread < 2 * half)
            UNROLL for (int i = 0; i < 4 * R; i++)
                store_shared((unsigned)(i * (THREADS / 2) + thread - half) * 8, sums[i / 4][i % 4]);
        barrier();
        if (thread < half)
            UNROLL for (int i = 0; i < 4 * R; i++)
                sums[i / 4][i % 4] +=
                    load_shared<double>((unsigned)(i * (THREADS / 2) + thread) * 8);
    }
    barrier();
    if (thread < 2)
        UNROLL for (int i = 0; i < 4 * R; i++)
            store_shared((unsigned)(i / 4 * 8 + 4 * thread + i % 4) * 8, sums[i / 4][i % 4]);
    barrier();
    UNROLL for (int k = 0; k < R; k++)
        total[k] = load_shared<double>((unsigned)(k * 8 + thread % 8) * 8);
}
