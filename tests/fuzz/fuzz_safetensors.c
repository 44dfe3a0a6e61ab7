/* libFuzzer: a safetensors file. See make fuzz. */
#include <stdlib.h>
#include <string.h>

#include "runtime/files.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    Error error = {0};
    void *copy = malloc(size + 1);
    memcpy(copy, bytes, size);
    SafeTensors *file = safetensors_parse(copy, size, "fuzz.safetensors", &error);
    for (int i = 0; file && i < file->n_tensors; i++) {
        const SafeTensor *tensor = &file->tensors[i];
        float *floats = malloc((size_t)tensor->bytes * 2 + 1);
        safetensor_floats(tensor, floats);
        free(floats);
    }
    safetensors_close(file);
    return 0;
}
