/* One arena per compilation: memory that is handed out zero-filled and freed all at once.
 *
 * A pass never frees. Chunks double in size, so that the number of calls to malloc stays small; a
 * large block gets a chunk of its own. Names are interned in a hash table of the arena: two equal
 * names are one pointer, and passes compare pointers.
 */
#include "seg.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct Chunk Chunk;
struct Chunk {
    Chunk *next;
    size_t used, size;           /* bytes */
    _Alignas(16) char bytes[];
};

struct Arena {
    Chunk *chunks;               /* the first one is being filled */
    const char **names;          /* open addressing; capacity is a power of two */
    size_t n_names, capacity;
};

static void *must(void *memory)
{
    if (!memory) {
        fprintf(stderr, "segc: error: out of memory\nhint: close other programs, or compile a "
                        "smaller model\n");
        exit(3);
    }
    return memory;
}

Arena *arena_open(void)
{
    return must(calloc(1, sizeof(Arena)));
}

void arena_close(Arena *arena)
{
    if (!arena)
        return;
    for (Chunk *chunk = arena->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    free(arena->names);
    free(arena);
}

void *arena_alloc(Arena *arena, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    Chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < bytes) {
        size_t size = chunk ? chunk->size : 1 << 15;
        if (size < (size_t)1 << 22)
            size *= 2;
        if (size < bytes)
            size = bytes;
        chunk = must(calloc(1, sizeof(Chunk) + size));
        chunk->size = size;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    void *memory = chunk->bytes + chunk->used;
    chunk->used += bytes;
    return memory;
}

void *arena_grow(Arena *arena, void *old, size_t old_bytes, size_t new_bytes)
{
    void *memory = arena_alloc(arena, new_bytes);
    if (old_bytes)
        memcpy(memory, old, old_bytes < new_bytes ? old_bytes : new_bytes);
    return memory;
}

const char *arena_printf(Arena *arena, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    char *text = arena_alloc(arena, (size_t)length + 1);
    va_start(list, format);
    vsnprintf(text, (size_t)length + 1, format, list);
    va_end(list);
    return text;
}

static uint64_t hash_bytes(const char *text, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
    return hash ^ hash >> 29;
}

/* The slot of the table that holds the name, or where it belongs. */
static size_t find_name(const Arena *arena, const char *text, size_t length)
{
    size_t slot = hash_bytes(text, length) & (arena->capacity - 1);
    while (arena->names[slot]) {
        const char *name = arena->names[slot];
        if (!strncmp(name, text, length) && !name[length])
            break;
        slot = (slot + 1) & (arena->capacity - 1);
    }
    return slot;
}

const char *intern(Arena *arena, const char *text, size_t length)
{
    if (arena->n_names * 2 >= arena->capacity) {
        Arena grown = *arena;
        grown.capacity = arena->capacity ? arena->capacity * 2 : 256;
        grown.names = must(calloc(grown.capacity, sizeof *grown.names));
        for (size_t i = 0; i < arena->capacity; i++) {
            const char *name = arena->names[i];
            if (name)
                grown.names[find_name(&grown, name, strlen(name))] = name;
        }
        free(arena->names);
        *arena = grown;
    }
    size_t slot = find_name(arena, text, length);
    if (!arena->names[slot]) {
        char *name = arena_alloc(arena, length + 1);
        memcpy(name, text, length);
        arena->names[slot] = name;
        arena->n_names++;
    }
    return arena->names[slot];
}

/* Makes room for `more` bytes and a NUL. */
static void text_reserve(Text *text, size_t more)
{
    if (text->capacity - text->length > more)
        return;
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity - text->length <= more)
        capacity *= 2;
    text->text = arena_grow(text->arena, text->text, text->length, capacity);
    text->capacity = capacity;
}

void text_printf(Text *text, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    text_reserve(text, (size_t)length);
    va_start(list, format);
    vsnprintf(text->text + text->length, (size_t)length + 1, format, list);
    va_end(list);
    text->length += (size_t)length;
}

void text_append(Text *text, const char *bytes, size_t length)
{
    text_reserve(text, length);
    memcpy(text->text + text->length, bytes, length);
    text->length += length;
    text->text[text->length] = 0;
}
