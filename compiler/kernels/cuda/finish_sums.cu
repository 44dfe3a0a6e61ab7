/* The partial sums of batch_norm_sums to their result. See finish_rows.cu for the order.
 * then_channel(c) is called by the thread that has stored the sums of channel c.
 *
 * own buffers: partials [N][parts][2][Cpad], result [2][Cpad]
 * sizes: C; parts    scalars: none    blocks: Cpad / 8    own shared bytes: 32 * THREADS */
template <class Then>
DEVICE void finish_sums(const Arguments *a, int block, int buffer, int size, Then then_channel)
{
    const float *partials = (const float *)a->buffers[buffer] + 8 * block;
    float *result = (float *)a->buffers[buffer + 1];
    int channels = a->sizes[size], padded = 16 * divide_up(channels, 16);
    int rows = a->batch * a->sizes[size + 1], c = 8 * block + thread_index();
    double sums[2][4] = {}, total[2] = {};
    if (8 * block < channels) {
        each_row<2>(partials, rows, padded, [&](const float values[2][4]) {
            UNROLL for (int i = 0; i < 8; i++)
                sums[i / 4][i % 4] += (double)values[i / 4][i % 4];
        });
        add_threads<2>(sums, rows, total);
    }
    if (thread_index() >= 8)
        return;
    store_global(result + c, c < channels ? (float)total[0] : 0.0f);
    store_global(result + padded + c, c < channels ? (float)total[1] : 0.0f);
    then_channel(c);
}
