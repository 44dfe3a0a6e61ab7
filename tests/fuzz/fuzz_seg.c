/* libFuzzer: a model's text, from its words to its graph. See make fuzz. */
#include <stdlib.h>
#include <string.h>

#include "seg.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
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
    arena_close(arena);
    free(text);
    return 0;
}
