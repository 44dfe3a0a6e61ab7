/* Mean and biased variance of each channel from those of its parts, in one walk over them. With K
 * the mean of the first part: mean = K + S1 / M, S1 = sum(count * (mean of the part - K)); variance
 * = (S2 - S1^2 / M) / M, S2 = sum(M2 + count * (mean of the part - K)^2). What is subtracted there
 * is small, as K is close to the mean: the shifted form of Chan, Golub and LeVeque (Algorithms for
 * computing the sample variance, 1983), in double. See finish_rows.cu for the order.
 * then_channel(c) is called by the thread that has stored the moments of channel c.
 *
 * own buffers: partials [N][parts][3][Cpad]: count, mean, sum of squared differences from that mean
 * (M2); result [2][Cpad]: mean, biased variance
 * sizes: C; parts    scalars: none    blocks: Cpad / 8    own shared bytes: 48 * THREADS */
template <class Then>
DEVICE void finish_moments(const Arguments *a, int block, int buffer, int size, Then then_channel)
{
    const float *partials = (const float *)a->buffers[buffer] + 8 * block;
    float *result = (float *)a->buffers[buffer + 1];
    int channels = a->sizes[size], padded = 16 * divide_up(channels, 16);
    int rows = a->batch * a->sizes[size + 1], thread = thread_index(), c = 8 * block + thread;
    double sums[3][4] = {}, total[3], mean = 0, variance = 0;
    if (8 * block < channels) {
        const float *first = partials + padded + 4 * (thread % 2);
        each_row<3>(partials, rows, padded, [&](const float values[3][4]) {
            UNROLL for (int i = 0; i < 4; i++) {
                double count = values[0][i];
                double difference = (double)values[1][i] - (double)load_global(first + i);
                sums[0][i] += count;
                sums[1][i] += count * difference;
                sums[2][i] += (double)values[2][i] + count * difference * difference;
            }
        });
        add_threads<3>(sums, rows, total);
        if (c < channels) {
            mean = (double)load_global(partials + padded + thread % 8) + total[1] / total[0];
            variance = (total[2] - total[1] * total[1] / total[0]) / total[0];
            variance = variance < 0 ? 0 : variance;
        }
    }
    if (thread >= 8)
        return;
    store_global(result + c, (float)mean);
    store_global(result + padded + c, (float)variance);
    then_channel(c);
}
