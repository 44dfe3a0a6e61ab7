/* libFuzzer: a model's text, from its words to its graph; small ones that are right are compiled for
 * the host, where nothing can be the user's fault any more. See make fuzz.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "seg.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { MOST_NODES = 40 };

static void compile_whole(const uint8_t *bytes, size_t size, FILE *messages)
{
    static int file = -1;
    static char path[64];
    if (file < 0) {
        file = memfd_create("fuzz.seg", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    if (ftruncate(file, 0) != 0 || pwrite(file, bytes, size, 0) != (ssize_t)size)
        return;
    Compilation c = {.arena = arena_open(), .path = path, .messages = messages, .targets = "host",
                     .precision = "fp32"};
    compile(&c);
    arena_close(c.arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static FILE *nowhere;
    if (size > 1 << 16)
        return 0;
    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    char *text = malloc(size + 1);
    memcpy(text, bytes, size);
    text[size] = 0;
    Arena *arena = arena_open();
    SourceFile file = {.name = "fuzz.seg", .text = text, .length = size};
    Tree tree = {.file = &file, .identity = ""};
    Compilation c = {.arena = arena, .path = file.name, .source = &file, .messages = nowhere,
                     .trees = &tree};
    Graph *graph = !memchr(text, 0, size) && parse_text(&c, &tree) && !tree.uses ? build(&c, &tree)
                                                                                : NULL;
    if (graph) {
        infer(graph);
        verify(graph);
    }
    bool right = graph && !c.errors && graph->n_nodes <= MOST_NODES;
    arena_close(arena);
    free(text);
    if (right)
        compile_whole(bytes, size, nowhere);
    return 0;
}
