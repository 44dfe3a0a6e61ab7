/* libFuzzer: an ONNX file into `segc import`. See make fuzz. */
#include "compiler/onnx/import.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    Arena *arena = arena_open();
    Error error = {0};
    SafeTensors weights = {0};
    Onnx__ModelProto *message = NULL;
    const char *text = NULL;
    ImportOptions options = {.path = "/nowhere/fuzz.onnx", .weights = "fuzz.safetensors"};
    options.height = options.width = size % 2 ? 32 : 0;
    import_onnx(arena, &options, bytes, size, &text, &weights, &message, &error);
    if (message)
        onnx__model_proto__free_unpacked(message, NULL);
    arena_close(arena);
    return 0;
}
