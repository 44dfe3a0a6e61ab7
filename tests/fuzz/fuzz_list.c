/* libFuzzer: a list of pictures (trainval.txt), and what --augment takes. See make fuzz. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static int file = -1;
    static char path[64];
    if (file < 0) {
        file = memfd_create("list", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    if (ftruncate(file, 0) != 0 || pwrite(file, bytes, size, 0) != (ssize_t)size)
        return -1;
    Error error = {0};
    NameList list;
    if (list_read(path, &list, &error))
        list_close(&list);
    char *text = strndup((const char *)bytes, size);
    Augmentation augmentation;
    augment_parse(text, &augmentation, &error);
    free(text);
    return 0;
}
