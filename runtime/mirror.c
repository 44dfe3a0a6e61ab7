/* `--tta flip`: what a network says of a picture, averaged with what it says of the mirrored one.
 *
 * The network runs twice. The mirrored picture's probabilities are mirrored back and the mean is
 * taken, pixel by pixel, before any threshold.
 */
#include "commands.h"

#include <string.h>

bool mirrors(const Options *options)
{
    return strcmp(options->tta, "flip") == 0;
}

void mirror_rows(const uint8_t *in, uint8_t *out, int64_t rows, int width)
{
    for (; rows > 0; rows--, in += width, out += width)
        for (int left = 0, right = width - 1; left <= right; left++, right--) {
            uint8_t kept = in[left];
            out[left] = in[right];
            out[right] = kept;
        }
}

void add_mirrored(float *values, const float *mirrored, int64_t rows, int width)
{
    for (; rows > 0; rows--, values += width, mirrored += width)
        for (int x = 0; x < width; x++)
            values[x] = (values[x] + mirrored[width - 1 - x]) / 2;
}
