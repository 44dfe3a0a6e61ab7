/* libFuzzer: a picture, JPEG, PNG or GIF by its first bytes. See make fuzz. */
#include "runtime/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    Error error = {0};
    Image image = {0};
    if (image_parse(bytes, size, "fuzz.jpg", (ImageMode)(size % 3), &image, &error))
        image_close(&image);
    return 0;
}
