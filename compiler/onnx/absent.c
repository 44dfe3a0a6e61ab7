/* Stands for export.c and import.c in a build without protobuf-c: ONNX files cannot be read or
 * written, and whoever asks for it is told so.
 */
#include "../seg.h"

static const char hint[] = "build segc with libprotobuf-c-dev and protobuf-c-compiler installed";

bool export_onnx(Compilation *c, Graph *model, const char *weights, const char *path)
{
    (void)model, (void)weights;
    error_system(c, hint, "cannot write %s: this segc was built without ONNX", path);
    return false;
}

int import_command(int argc, char **argv)
{
    (void)argc, (void)argv;
    fprintf(stderr, "segc: error: this segc was built without ONNX\nhint: %s\n", hint);
    return 3;
}
