/* libFuzzer: a picture, JPEG, PNG or GIF by its first bytes, in each mode, then made small. See make
 * fuzz. Changed PNG files get their chunks' checksums put right: libpng goes no further otherwise.
 */
#include "runtime/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
size_t LLVMFuzzerMutate(uint8_t *bytes, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t room, unsigned int seed);

/* In image_allocate's place (the linker's --wrap): a small file may ask for 100 megapixels, which
 * take seconds here.
 */
bool __real_image_allocate(Image *, int64_t width, int64_t height, int channels, const char *path,
                           Error *);
bool __wrap_image_allocate(Image *, int64_t width, int64_t height, int channels, const char *path,
                           Error *);
bool __wrap_image_allocate(Image *image, int64_t width, int64_t height, int channels,
                           const char *path, Error *error)
{
    double pixels = (double)width * (double)height;
    bool slow = width > 0 && height > 0 && pixels > 1 << 18 && pixels <= 1e8;
    return slow ? fail(error, EXIT_USER, "", "%s: too slow", path)
                : __real_image_allocate(image, width, height, channels, path, error);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    for (ImageMode mode = IMAGE_RGB; mode <= IMAGE_CLASSES; mode++) {
        Error error = {0};
        Image image = {0};
        uint8_t small[3 * 7 * 5];
        if (!image_parse(bytes, size, "fuzz.jpg", mode, &image, &error))
            continue;
        (mode == IMAGE_RGB ? resize_bilinear : resize_nearest)(
            image.pixels, image.width, image.height, image.channels, small, 7, 5);
        image_close(&image);
    }
    return 0;
}

static uint32_t checksum(const uint8_t *bytes, size_t size)
{
    uint32_t sum = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        sum ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xedb88320 : 0);
    }
    return ~sum;
}

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t room, unsigned int seed)
{
    size = LLVMFuzzerMutate(bytes, size, room);
    if (seed % 8 == 0 || image_sniff(bytes, size) != IMAGE_PNG)
        return size;
    for (size_t at = 8; size - at >= 12;) {
        size_t length = 0;
        for (int i = 0; i < 4; i++)
            length = length << 8 | bytes[at + (size_t)i];
        if (length > size - at - 12)
            break;
        uint32_t sum = checksum(bytes + at + 4, length + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + length + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += 12 + length;
    }
    return size;
}
