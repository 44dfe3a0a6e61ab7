/* The emulator's memory: every access of a kernel, and what it is checked against.
 *
 * Global memory: bounds and alignment of the buffer, whether bytes were ever written, and which
 * block of this launch wrote or read them. Shared memory: whether two threads touch a word with no
 * barrier between, one of them writing. As in FastTrack (Flanagan, Freund 2009) the last write and
 * one read are remembered with their times; time here is the number of barriers passed, of the block
 * or, inside a warp, of the warp. Reads by several threads are remembered as reads by a warp or by
 * all, which only makes the check stricter within one stretch between barriers.
 */
#include <stdlib.h>
#include <string.h>

#include "machine.h"

/* Most accesses are of 4 or 16 bytes. */
static inline void copy_bytes(void *to, const void *from, unsigned bytes)
{
    if (bytes == 16)
        memcpy(to, from, 16);
    else if (bytes == 4)
        memcpy(to, from, 4);
    else
        memcpy(to, from, bytes);
}

/* ---- global memory --------------------------------------------------------------------------- */

static const int ADDRESS_BITS = 40;    /* of the addresses of one buffer */
/* Flags of SimtMemory::reader above the block's number. */
static const uint32_t MANY = 1u << 31, FIXED = 1u << 30, NUMBER = FIXED - 1;

uint64_t buffer_address(int index)
{
    return ((uint64_t)(index + 1) << ADDRESS_BITS) + ((uint64_t)1 << (ADDRESS_BITS - 2));
}

struct Place {
    SimtMemory *memory;
    int64_t at;                        /* in it */
    int index;                         /* of the buffer */
    int64_t offset;                    /* in that */
};

static bool locate(const void *address, unsigned bytes, const char *what, const void *site,
                   Place *place)
{
    Launch *launch = block->launch;
    int64_t index = (int64_t)((uint64_t)address >> ADDRESS_BITS) - 1;
    if (index < 0 || index >= (int64_t)launch->buffers.size()) {
        finding(site, "%s of %u bytes at %p, which is in no buffer", what, bytes, address);
        return false;
    }
    const SimtBuffer *buffer = &launch->buffers[(size_t)index].place;
    int64_t offset = (int64_t)((uint64_t)address - buffer_address((int)index));
    *place = Place{buffer->memory, buffer->offset + offset, (int)index, offset};
    if (offset < 0 || offset + bytes > buffer->bytes) {
        finding(site, "%s of %u bytes at byte %lld of buffer %d, which has %lld", what, bytes,
                (long long)offset, (int)index, (long long)buffer->bytes);
        return false;
    }
    if (offset & (bytes - 1)) {
        finding(site, "%s of %u bytes at byte %lld of buffer %d: not aligned", what, bytes,
                (long long)offset, (int)index);
        return false;
    }
    return true;
}

/* Calls visit(word, mask of its bytes) for each word; accesses are aligned. */
template <class Visit> static void each_word(int64_t at, unsigned bytes, Visit visit)
{
    if (bytes < 4) {
        visit(at / 4, (uint8_t)(((1u << bytes) - 1) << at % 4));
        return;
    }
    for (int64_t word = at / 4; word < (at + bytes) / 4; word++)
        visit(word, (uint8_t)15);
}

static void mark_read(uint32_t *entry, uint32_t flag)
{
    uint32_t me = block->number, seen = __atomic_load_n(entry, __ATOMIC_RELAXED), next;
    do {
        if ((seen & NUMBER) < block->launch->base)
            next = me | flag;
        else if ((seen & NUMBER) == me || (seen & MANY))
            next = seen | flag;
        else
            next = seen | MANY | flag;
        if (next == seen)
            return;
    } while (!__atomic_compare_exchange_n(entry, &seen, next, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
}

static void check_global_read(const Place *p, unsigned bytes, uint32_t flag, const char *what,
                              const void *site)
{
    SimtMemory *memory = p->memory;
    each_word(p->at, bytes, [&](int64_t word, uint8_t mask) {
        uint8_t state = memory->state[word];
        uint32_t writer = memory->writer[word];
        long long offset = (long long)(p->offset + 4 * word - p->at / 4 * 4);
        if ((state & mask) != mask)
            finding(site, "%s at byte %lld of buffer %d: nobody has written there", what, offset,
                    p->index);
        bool here = writer >= block->launch->base && (state >> 4 & mask);
        if (here && writer != block->number)
            finding(site, "%s at byte %lld of buffer %d, which block %u of this launch writes",
                    what, offset, p->index, writer - block->launch->base);
        else if (here && flag)
            finding(site, "%s at byte %lld of buffer %d, which this launch writes", what, offset,
                    p->index);
        mark_read(&memory->reader[word], flag);
    });
}

static void check_global_write(const Place *p, unsigned bytes, const char *what, const void *site)
{
    SimtMemory *memory = p->memory;
    uint32_t base = block->launch->base, me = block->number;
    each_word(p->at, bytes, [&](int64_t word, uint8_t mask) {
        uint8_t state = memory->state[word];
        uint32_t writer = memory->writer[word];
        uint32_t reader = __atomic_load_n(&memory->reader[word], __ATOMIC_RELAXED);
        long long offset = (long long)(p->offset + 4 * word - p->at / 4 * 4);
        if (writer >= base && writer != me && (state >> 4 & mask))
            finding(site, "%s at byte %lld of buffer %d, which block %u of this launch writes",
                    what, offset, p->index, writer - base);
        if ((reader & NUMBER) >= base && ((reader & MANY) || (reader & NUMBER) != me))
            finding(site, "%s at byte %lld of buffer %d, which block %u of this launch reads",
                    what, offset, p->index, (reader & NUMBER) - base);
        else if ((reader & NUMBER) >= base && (reader & FIXED))
            finding(site, "%s at byte %lld of buffer %d, which this launch reads by load_fixed",
                    what, offset, p->index);
        memory->state[word] = (uint8_t)((writer >= base ? state : state & 15) | mask | mask << 4);
        memory->writer[word] = me;
    });
    std::atomic<bool> *stored = &block->launch->buffers[(size_t)p->index].stored;
    if (!stored->load(std::memory_order_relaxed))
        stored->store(true, std::memory_order_relaxed);
}

static void load(void *value, const void *at, unsigned bytes, uint32_t flag, const char *what,
                 const void *site)
{
    Place place;
    if (!locate(at, bytes, what, site, &place)) {
        memset(value, 0, bytes);
        return;
    }
    check_global_read(&place, bytes, flag, what, site);
    copy_bytes(value, place.memory->data + place.at, bytes);
}

extern "C" void simt_load_global(void *value, const void *at, unsigned bytes)
{
    load(value, at, bytes, 0, "load_global", CALL_SITE);
}

extern "C" void simt_load_fixed(void *value, const void *at, unsigned bytes)
{
    load(value, at, bytes, FIXED, "load_fixed", CALL_SITE);
}

extern "C" void simt_store_global(void *at, const void *value, unsigned bytes)
{
    Place place;
    if (!locate(at, bytes, "store_global", CALL_SITE, &place))
        return;
    check_global_write(&place, bytes, "store_global", CALL_SITE);
    copy_bytes(place.memory->data + place.at, value, bytes);
}

/* ---- what a launch left out ------------------------------------------------------------------ */

struct Holes { int64_t count, bytes, first, first_end; };

static bool is_written(const Launch *launch, const SimtMemory *memory, int64_t at, unsigned mask)
{
    return memory->writer[at / 4] >= launch->base && (memory->state[at / 4] >> 4 & mask) == mask;
}

static void check_buffer(Launch *launch, int index)
{
    const SimtBuffer *buffer = &launch->buffers[(size_t)index].place;
    SimtMemory *memory = buffer->memory;
    Holes holes = {0, 0, 0, 0};
    int64_t end = buffer->offset + buffer->bytes, hole = -1;
    for (int64_t at = buffer->offset; at <= end; at++) {
        while (hole < 0 && at % 4 == 0 && at + 4 <= end && is_written(launch, memory, at, 15))
            at += 4;
        bool written = at == end || is_written(launch, memory, at, 1u << at % 4);
        if (!written) {
            if (!buffer->keeps_tail)
                memory->state[at / 4] &= (uint8_t)~(1u << at % 4);
            hole = hole < 0 ? at : hole;
            continue;
        }
        if (hole >= 0 && !(at == end && at - hole < 64 * buffer->samples)) {
            if (holes.count++ == 0) {
                holes.first = hole - buffer->offset;
                holes.first_end = at - buffer->offset;
            }
            holes.bytes += at - hole;
        }
        hole = -1;
    }
    if (holes.count == 0)
        return;
    char text[300];
    snprintf(text, sizeof text, "%s: bytes %lld to %lld of buffer %d were not written (%lld bytes "
             "in %lld pieces, of %lld)\n", launch->given->name, (long long)holes.first,
             (long long)holes.first_end - 1, index, (long long)holes.bytes, (long long)holes.count,
             (long long)buffer->bytes);
    launch->report += text;
}

void check_written(Launch *launch)
{
    for (size_t i = 0; i < launch->buffers.size(); i++)
        if (launch->buffers[i].stored)
            check_buffer(launch, (int)i);
}

/* ---- shared memory --------------------------------------------------------------------------- */

/* Unit::reader: a thread, or one of a warp's threads, or all. */
static const uint16_t WARP_READS = 0x4000, ALL_READ = 0x8000;

static uint32_t warp_time(int thread) { return block->warp_time[thread / WARP]; }

/* Whether what `other` did at those times comes before what `thread` does now. */
static bool is_before(int other, uint32_t time, uint32_t other_warp_time, int thread)
{
    return time < block->time || other == thread
        || (other / WARP == thread / WARP && other_warp_time < warp_time(thread));
}

static bool reads_are_before(const Unit *unit, int thread)
{
    if (unit->read_time < block->time)
        return true;
    if (unit->reader & ALL_READ)
        return false;
    if (unit->reader & WARP_READS)
        return (unit->reader & ~WARP_READS) == thread / WARP
            && unit->read_warp_time < warp_time(thread);
    return is_before(unit->reader, unit->read_time, unit->read_warp_time, thread);
}

/* The common case, in few instructions: written before the last barrier, and nobody else, or only
 * somebody of this warp, has read it since. */
static inline bool read_quickly(Unit *unit, int thread)
{
    uint32_t time = block->time, mine = warp_time(thread);
    if (unit->in_flight || unit->write_time >= time || unit->write_time < block->first_time)
        return false;
    if (unit->read_time == time && unit->reader != thread)
        return unit->reader == ALL_READ
            || (unit->reader == (WARP_READS | thread / WARP) && unit->read_warp_time == mine);
    unit->reader = (uint16_t)thread;
    unit->read_time = time;
    unit->read_warp_time = mine;
    return true;
}

static void check_unit_read(Unit *unit, int thread, unsigned at, const void *site)
{
    if (unit->write_time < block->first_time)
        finding(site, "reads byte %u of shared memory: nobody has written there", at);
    else if (unit->in_flight)
        finding(site, "reads byte %u of shared memory: a copy_async of thread %d is not waited for",
                at, unit->writer);
    else if (!is_before(unit->writer, unit->write_time, unit->write_warp_time, thread))
        finding(site, "reads byte %u of shared memory: no barrier since thread %d wrote it", at,
                unit->writer);
    int warp = unit->reader & WARP_READS ? unit->reader & ~WARP_READS : unit->reader / WARP;
    if (unit->read_time < block->time)
        unit->reader = (uint16_t)thread;
    else if (!(unit->reader & ALL_READ) && warp != thread / WARP)
        unit->reader = ALL_READ;
    else if (!(unit->reader & ALL_READ) && unit->reader != thread)
        unit->reader = (uint16_t)(unit->read_warp_time < warp_time(thread) ? thread
                                                                           : WARP_READS | warp);
    unit->read_time = block->time;
    unit->read_warp_time = warp_time(thread);
}

static void check_unit_write(Unit *unit, int thread, unsigned at, const void *site)
{
    bool fresh = unit->write_time >= block->first_time;
    if (fresh && unit->in_flight)
        finding(site, "writes byte %u of shared memory: a copy_async of thread %d is not waited "
                "for", at, unit->writer);
    else if (fresh && !is_before(unit->writer, unit->write_time, unit->write_warp_time, thread))
        finding(site, "writes byte %u of shared memory: no barrier since thread %d wrote it", at,
                unit->writer);
    else if (!reads_are_before(unit, thread))
        finding(site, "writes byte %u of shared memory: no barrier since %s %d read it", at,
                unit->reader >= WARP_READS ? "another thread of warp" : "thread",
                unit->reader & ALL_READ ? 0 : unit->reader & ~WARP_READS);
    unit->write_time = block->time;
    unit->write_warp_time = warp_time(thread);
    unit->writer = (uint16_t)thread;
    unit->read_time = 0;
    unit->in_flight = false;
}

/* Calls visit(unit, byte) for what an aligned access covers. A word of which a part is touched is
 * split for the rest of the block. */
template <class Visit> static void each_unit(unsigned at, unsigned bytes, Visit visit)
{
    for (unsigned word = at / 4; word <= (at + bytes - 1) / 4; word++) {
        Unit *unit = &block->units[word], *parts = &block->split_units[4 * word];
        bool split = unit->split == block->first_time;
        if (!split && bytes >= 4) {
            visit(unit, 4 * word);
            continue;
        }
        if (!split) {
            for (int i = 0; i < 4; i++)
                parts[i] = *unit;
            unit->split = block->first_time;
        }
        for (unsigned i = bytes < 4 ? at % 4 : 0, n = 0; n < (bytes < 4 ? bytes : 4); i++, n++)
            visit(&parts[i], 4 * word + i);
    }
}

static bool is_inside(unsigned at, unsigned bytes, const char *what, const void *site)
{
    if (at > block->shared_bytes || bytes > block->shared_bytes - at)
        finding(site, "%s %u bytes at byte %u of shared memory, which has %u", what, bytes, at,
                block->shared_bytes);
    else if (at & (bytes - 1))
        finding(site, "%s %u bytes at byte %u of shared memory: not aligned", what, bytes, at);
    else
        return true;
    return false;
}

void read_shared(int thread, unsigned at, unsigned bytes, void *value, const void *site)
{
    if (!is_inside(at, bytes, "reads", site)) {
        memset(value, 0, bytes);
        return;
    }
    each_unit(at, bytes, [=](Unit *unit, unsigned byte) {
        if (!read_quickly(unit, thread))
            check_unit_read(unit, thread, byte, site);
    });
    copy_bytes(value, block->shared + at, bytes);
}

extern "C" void simt_load_shared(void *value, unsigned at, unsigned bytes)
{
    read_shared(block->current, at, bytes, value, CALL_SITE);
}

extern "C" void simt_store_shared(unsigned at, const void *value, unsigned bytes)
{
    const void *site = CALL_SITE;
    if (!is_inside(at, bytes, "writes", site))
        return;
    each_unit(at, bytes, [&](Unit *unit, unsigned byte) {
        check_unit_write(unit, block->current, byte, site);
    });
    copy_bytes(block->shared + at, value, bytes);
}

/* ---- asynchronous copies --------------------------------------------------------------------- */

/* The bytes are taken now and laid down by copy_wait; until then nobody may look there. */
extern "C" void simt_copy_async(unsigned to, const void *from, bool valid)
{
    const void *site = CALL_SITE;
    Fiber *fiber = &block->fibers[block->current];
    Copy copy = {to, {0}};
    if (valid)
        load(copy.bytes, from, 16, 0, "copy_async", site);
    else if ((uint64_t)from % 16)
        finding(site, "copy_async from %p: not aligned", from);
    if (!is_inside(to, 16, "copy_async writes", site))
        return;
    each_unit(to, 16, [&](Unit *unit, unsigned byte) {
        check_unit_write(unit, block->current, byte, site);
        unit->in_flight = true;
    });
    fiber->copies.push_back(copy);
    fiber->open++;
}

extern "C" void simt_copy_commit(void)
{
    Fiber *fiber = &block->fibers[block->current];
    fiber->groups.push_back(fiber->open);
    fiber->open = 0;
}

extern "C" void simt_copy_wait(int pending)
{
    Fiber *fiber = &block->fibers[block->current];
    if ((int)fiber->groups.size() <= pending)
        return;
    auto last = fiber->groups.end() - pending;
    int count = 0;
    for (auto group = fiber->groups.begin(); group < last; ++group)
        count += *group;
    for (int i = 0; i < count; i++) {
        const Copy *copy = &fiber->copies[(size_t)i];
        memcpy(block->shared + copy->to, copy->bytes, 16);
        each_unit(copy->to, 16, [&](Unit *unit, unsigned) {
            unit->in_flight = false;
            unit->write_time = block->time;
            unit->write_warp_time = warp_time(block->current);
        });
    }
    fiber->groups.erase(fiber->groups.begin(), last);
    fiber->copies.erase(fiber->copies.begin(), fiber->copies.begin() + count);
}

/* ---- memories -------------------------------------------------------------------------------- */

unsigned char *simt_memory_data(SimtMemory *memory) { return memory->data; }
int64_t simt_memory_bytes(const SimtMemory *memory) { return memory->bytes; }

void simt_memory_mark(SimtMemory *memory, int64_t offset, int64_t bytes, bool written)
{
    for (int64_t at = offset; at < offset + bytes; at++) {
        if (at % 4 == 0 && at + 4 <= offset + bytes) {
            memory->state[at / 4] = written ? 15 : 0;
            at += 3;
        } else if (written) {
            memory->state[at / 4] |= (uint8_t)(1u << at % 4);
        } else {
            memory->state[at / 4] &= (uint8_t)~(1u << at % 4);
        }
    }
}

int64_t simt_memory_unwritten(const SimtMemory *memory, int64_t offset, int64_t bytes)
{
    for (int64_t at = offset; at < offset + bytes; at++)
        if (!(memory->state[at / 4] >> at % 4 & 1))
            return at;
    return -1;
}
