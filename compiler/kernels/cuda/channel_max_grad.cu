/* Gradient of channel_max: dy of a pixel at its first largest channel of x, zero elsewhere. First
 * that channel of every pixel of the part, by LANES threads side by side; then the result, LANES
 * channel blocks after the others.
 *
 * own buffers: none    own scalars: none    own shared bytes: 4 * pixels a part
 * sizes: C H W of dy (1 H W); K P Q of x and the result; parts a sample; pixels a part; channel
 * blocks (and threads a pixel) at a time */
enum {
    SIZE_C, SIZE_H, SIZE_W, SIZE_K, SIZE_P, SIZE_Q, SIZE_PARTS, SIZE_PIXELS, SIZE_LANES
};

typedef struct { float value; int channel; } Largest;

/* The larger of two; of equal ones the channel before. */
DEVICE Largest larger(Largest a, Largest b)
{
    bool second = a.value < b.value || (a.value == b.value && b.channel < a.channel);
    return second ? b : a;
}

/* Of the channel blocks first, first + step, ... */
DEVICE Largest largest_of_own(const Arguments *a, int n, int first, int step, int p, int q)
{
    int channels = a->sizes[SIZE_K];
    Largest best = { -INFINITY, 8 * first };
    for (int cb = first; cb < channel_blocks(channels); cb += step) {
        v8 x = read_x(a, n, cb, p, q);
        EACH_LANE {
            if (8 * cb + i < channels && best.value < x.lane[i]) {
                best.value = x.lane[i];
                best.channel = 8 * cb + i;
            }
        }
    }
    return best;
}

/* Pixel first + i of the part: its channel at byte 4 * i. */
DEVICE void find_channels(const Arguments *a, int n, int first, int end)
{
    const int *s = a->sizes;
    int lanes = s[SIZE_LANES], lane = thread_index() % lanes;
    for (int begin = first; begin < end; begin += THREADS / lanes) {
        int i = begin + thread_index() / lanes;
        Largest best = { -INFINITY, 0 };
        if (i < end)
            best = largest_of_own(a, n, lane, lanes, i / s[SIZE_Q], i % s[SIZE_Q]);
        for (int mask = 1; mask < lanes; mask *= 2) {
            Largest other;
            other.value = shuffle_xor(best.value, mask);
            other.channel = (int)float_bits(shuffle_xor(bits_float((unsigned)best.channel), mask));
            best = larger(best, other);
        }
        if (lane == 0 && i < end)
            store_shared((unsigned)(i - first) * 4, best.channel);
    }
}

DEVICE void write_part(const Arguments *a, int n, int part, int cb, int first, int end)
{
    const int *s = a->sizes;
    int blocks = channel_blocks(s[SIZE_K]), lanes = s[SIZE_LANES];
    Accumulators sums;
    clear_y(&sums);
    if (cb < blocks)
        for (int i = first + thread_index() / lanes; i < end; i += THREADS / lanes) {
            int p = i / s[SIZE_Q], q = i % s[SIZE_Q];
            int channel = load_shared<int>((unsigned)(i - first) * 4) - 8 * cb;
            float dy = read_dy(a, n, 0, p, q)[0];
            v8 value;
            EACH_LANE value.lane[i] = i == channel ? dy : 0.0f;
            write_y(a, n, cb, p, q, value, &sums);
        }
    finish_block(a, n, part, cb, blocks, lanes, &sums, (unsigned)s[SIZE_PIXELS] * 4);
}

ENTRY
{
    const Arguments *a = &arguments;
    const int *s = a->sizes;
    int n = block_index() / s[SIZE_PARTS], part = block_index() % s[SIZE_PARTS];
    int lanes = s[SIZE_LANES], first = part * s[SIZE_PIXELS];
    int end = least(first + s[SIZE_PIXELS], s[SIZE_P] * s[SIZE_Q]);
    find_channels(a, n, first, end);
    barrier();
    for (int cb = 0; cb < channel_blocks(s[SIZE_K]); cb += lanes)
        write_part(a, n, part, cb + thread_index() % lanes, first, end);
}
