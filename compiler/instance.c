/* What instances and their parameters are called: "encoder.conv1", "encoder.conv1.weight".
 *
 * An instance's name is the enclosing instance's, a dot, and the one that the model gives with `name =`,
 * or the callee's with a count. A name that is given may have dots of its own, so two instances can be
 * called alike; a parameter belongs to one operator, and it is there that a name taken twice is found.
 */
#include "build.h"

#include <string.h>

enum { MAX_INSTANCE = 500 };

/* Letters, digits, _ and -, in parts joined by dots. */
static bool is_dotted(const char *name)
{
    bool start = true;
    for (; *name; name++) {
        bool letter = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z')
            || (*name >= '0' && *name <= '9') || *name == '_' || *name == '-';
        if (!letter && (*name != '.' || start))
            return false;
        start = *name == '.';
    }
    return !start;
}

/* The callee's name and a count within the enclosing instance. */
static const char *automatic_name(Build *b, const char *callee)
{
    Frame *frame = b->frame;
    for (int i = 0; i < frame->n_counters; i++)
        if (frame->counters[i].name == callee)
            return arena_printf(b->arena, "%s%d", callee, ++frame->counters[i].count);
    size_t bytes = (size_t)frame->n_counters * sizeof(Counter);
    frame->counters = arena_grow(b->arena, frame->counters, bytes, bytes + sizeof(Counter));
    frame->counters[frame->n_counters++] = (Counter){callee, 1};
    return arena_printf(b->arena, "%s1", callee);
}

/* A block may take no name of its own (""). */
const char *instance_name(Build *b, const Expr *call_expr, const Expr *given, bool is_block)
{
    const char *name, *outer = b->frame->instance;
    if (given) {
        Value value = evaluate(b, given);
        if (value.kind == VALUE_BROKEN)
            return NULL;
        if (value.kind != VALUE_TEXT) {
            build_error(b, given->loc, "expected a text for name, got %s", value_text(b, value));
            return NULL;
        }
        name = value.text;
        if (!*name && is_block)
            return outer;
        if (!is_dotted(name)) {
            build_error(b, given->loc, "\"%s\" is no instance's name: letters, digits, _ and -, "
                        "joined by dots", name);
            return NULL;
        }
    } else {
        name = automatic_name(b, call_expr->name);
    }
    const char *full = *outer ? arena_printf(b->arena, "%s.%s", outer, name) : name;
    if (strlen(full) > MAX_INSTANCE) {
        build_error(b, call_expr->loc, "an instance's name is longer than %d characters",
                    MAX_INSTANCE);
        return NULL;
    }
    return intern(b->arena, full, strlen(full));
}

/* Where the name stands in the table, or belongs. */
static Owner *find_owner(Owner *owners, int capacity, const char *name)
{
    size_t mask = (size_t)(capacity - 1), slot = ((uintptr_t)name >> 4) * 0x9E3779B1u & mask;
    while (owners[slot].name && owners[slot].name != name)
        slot = (slot + 1) & mask;
    return &owners[slot];
}

bool own_name(Build *b, const char *name, Loc loc)
{
    if (b->n_owners * 2 >= b->owners_capacity) {
        int capacity = b->owners_capacity ? 2 * b->owners_capacity : 64;
        Owner *owners = arena_alloc(b->arena, (size_t)capacity * sizeof *owners);
        for (int i = 0; i < b->owners_capacity; i++)
            if (b->owners[i].name)
                *find_owner(owners, capacity, b->owners[i].name) = b->owners[i];
        b->owners = owners;
        b->owners_capacity = capacity;
    }
    Owner *owner = find_owner(b->owners, b->owners_capacity, name);
    if (owner->name) {
        build_error(b, loc, "two parameters are called '%s'", name);
        note_at(b->compilation, owner->loc, "the first is made here");
        return false;
    }
    *owner = (Owner){name, loc};
    b->n_owners++;
    return true;
}
