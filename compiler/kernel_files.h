/* The kernel templates of compiler/kernels/, as texts inside the compiler.
 *
 * They live in the tree as files of C that an editor and a compiler can read on their own; the
 * Makefile embeds them (build/kernel_texts.c), so that segc is one file and never looks for them.
 */
#ifndef KERNEL_FILES_H
#define KERNEL_FILES_H

typedef struct {
    const char *name;        /* below compiler/kernels/: "host/conv.c"; NULL ends the table */
    const char *text, *end;  /* *end is a NUL */
} KernelFile;
extern const KernelFile kernel_files[];

/* A template's text, NUL-terminated, by its name; NULL where there is none. */
const char *kernel_file(const char *name);

#endif
