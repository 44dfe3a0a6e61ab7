/* The partial sums of a reduction over the batch to their result. See finish_rows.cu for the order.
 *
 * own buffers: partials [N][parts][1][Cpad], result [Cpad], or one number (padded with zeros to 16)
 * sizes: C; parts; all_channels (1: the sum over the channels too); mean_per_sample (0: the sum;
 * else it is divided by N * mean_per_sample)
 * scalars: none    blocks: Cpad / 8, or 1 where all_channels    own shared bytes: 16 * THREADS */
DEVICE void finish_sum(const Arguments *a, int block, int buffer, int size)
{
    const float *partials = (const float *)a->buffers[buffer];
    float *result = (float *)a->buffers[buffer + 1];
    int channels = a->sizes[size], padded = 16 * divide_up(channels, 16);
    int rows = a->batch * a->sizes[size + 1], thread = thread_index(), c = 8 * block + thread;
    bool all = a->sizes[size + 2];
    double divisor = a->sizes[size + 3] ? (double)a->batch * (double)a->sizes[size + 3] : 1.0;
    double sums[1][4] = {}, total[1];
    int last = all ? channels : least(8 * block + 8, channels);
    for (int first = 8 * block; first < last; first += 8)
        each_row<1>(partials + first, rows, padded, [&](const float values[1][4]) {
            UNROLL for (int i = 0; i < 4; i++)
                if (first + 4 * (thread % 2) + i < channels)
                    sums[0][i] += (double)values[0][i];
        });
    add_threads<1>(sums, rows, total);
    double value = total[0];
    for (int i = 1; all && i < 8; i++)
        value += load_shared<double>((unsigned)i * 8);     /* channel i of thread 0's total */
    if (thread < (all ? 16 : 8))
        store_global(result + c, all && thread > 0 ? 0.0f : (float)(value / divisor));
}
