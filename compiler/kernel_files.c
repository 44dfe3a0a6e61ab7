/* Finds a kernel template's text by its name; see kernel_files.h. */
#include "kernel_files.h"

#include <stddef.h>
#include <string.h>

const char *kernel_file(const char *name)
{
    for (const KernelFile *file = kernel_files; file->name; file++)
        if (strcmp(file->name, name) == 0)
            return file->text;
    return NULL;
}
