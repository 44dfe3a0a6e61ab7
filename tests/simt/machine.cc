/* The emulator's threads: every thread of a block is a fiber, a stack of its own that runs until it
 * waits for others or ends. Blocks run one after the other on each thread of the host.
 *
 * A thread that comes to a barrier waits until all of the block are there; to a collective function
 * of the warp (shuffle, load_matrices, multiply), until its 32 lanes are. The last to come does the
 * work for all, whose operands lie on their stacks, and goes on. Where nobody can run, somebody is
 * missing: that is a finding, and the end of the launch.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "machine.h"

struct Simt {
    int n_threads;
    std::vector<Block *> blocks;       /* one a thread of the host */
    std::vector<SimtMemory *> memories;
    uint32_t next_number;              /* of a block */
};

thread_local Block *block;

enum { STACK = 64 << 10, MAX_FINDINGS = 6, GUARD = 4096 };

/* ---- findings -------------------------------------------------------------------------------- */

/* "text.cc:120 < text.cc:200": where `site` is in the kernel's text, by way of addr2line. */
static std::string find_lines(const void *site)
{
    Dl_info facts;
    char command[600], line[600];
    std::string lines;
    if (!dladdr(site, &facts) || !facts.dli_fname)
        return "";
    snprintf(command, sizeof command, "addr2line -i -e '%.400s' %#lx 2>/dev/null", facts.dli_fname,
             (unsigned long)((const char *)site - (const char *)facts.dli_fbase) - 1);
    FILE *pipe = popen(command, "r");
    while (pipe && fgets(line, sizeof line, pipe)) {
        line[strcspn(line, " \n")] = 0;
        const char *name = strrchr(line, '/') ? strrchr(line, '/') + 1 : line;
        const char *number = strchr(name, ':');
        if (strncmp(name, "simt.h", 6) != 0 && number && number[1] != '?')
            lines += lines.empty() ? std::string(name) : std::string(" <") + number;
    }
    if (pipe)
        pclose(pipe);
    return lines.empty() ? "" : " (" + lines + ")";
}

/* A place in the kernel is told once; a few places are enough. */
void finding(const void *site, const char *format, ...)
{
    Launch *launch = block->launch;
    std::lock_guard<std::mutex> guard(launch->lock);
    for (const Finding &known : launch->findings)
        if (known.site == site && known.format == format)
            return;
    if (launch->findings.size() >= MAX_FINDINGS) {
        launch->stop = true;
        return;
    }
    launch->findings.push_back({site, format});
    char text[500], where[300];
    snprintf(where, sizeof where, "%s: block %lld, thread %d: ", launch->given->name,
             (long long)block->index, block->current);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    launch->report += where + std::string(text) + find_lines(site) + "\n";
}

/* ---- fibers ---------------------------------------------------------------------------------- */

/* Saves what a call must keep and the stack's pointer to *save, and goes on with another stack. */
extern "C" void simt_switch(void **save, void *load);
#if defined(__x86_64__)
enum { SAVED = 6 };
__asm__(".text\n.globl simt_switch\n.type simt_switch,@function\nsimt_switch:\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n"
        ".size simt_switch,.-simt_switch\n");
/* The frame that the first switch to a stack pops: `top` is a multiple of 16. */
static void *first_frame(char *top, void (*function)(void))
{
    void **frame = (void **)top - 2 - SAVED;
    memset(frame, 0, (SAVED + 2) * sizeof *frame);
    frame[SAVED] = (void *)function;
    return frame;
}
#elif defined(__aarch64__)
enum { SAVED = 20 };
__asm__(".text\n.globl simt_switch\n.type simt_switch,%function\nsimt_switch:\n"
        "  sub sp, sp, #160\n"
        "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
        "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
        "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
        "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
        "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
        "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
        "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
        "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
        "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
        "  add sp, sp, #160\n  ret\n.size simt_switch,.-simt_switch\n");
static void *first_frame(char *top, void (*function)(void))
{
    void **frame = (void **)top - SAVED;
    memset(frame, 0, SAVED * sizeof *frame);
    frame[11] = (void *)function;
    return frame;
}
#else
#error "the emulator knows how to switch stacks on x86-64 and aarch64"
#endif

/* The next thread that can run: of this warp, else of the next one; -1: none. */
static int next_ready(void)
{
    int warps = block->threads / WARP, warp = block->current / WARP, lane = block->current % WARP;
    uint32_t behind = block->ready[warp] & ~((2u << lane) - 1);
    if (behind)
        return warp * WARP + __builtin_ctz(behind);
    for (int i = 0; i < warps; i++, warp = warp + 1 < warps ? warp + 1 : 0)
        if (block->ready[warp])
            return warp * WARP + __builtin_ctz(block->ready[warp]);
    return -1;
}

/* Lets others run; comes back when this thread is ready, if it may be so again. */
static void leave(void **save)
{
    int next = next_ready();
    void *stack = block->host_stack;
    if (next >= 0) {
        block->current = next;
        stack = block->fibers[next].stack;
    }
    simt_switch(save, stack);
}

static void set_waiting(int thread)
{
    block->ready[thread / WARP] &= ~(1u << thread % WARP);
}

static void set_ready(int warp)
{
    block->ready[warp] = ~0u;
    for (int i = 0; i < WARP; i++)
        block->fibers[warp * WARP + i].waits = false;
}

void give_up(void)
{
    void *lost;
    block->launch->stop = true;
    simt_switch(&lost, block->host_stack);
    abort();
}

static void run_fiber(void)
{
    Block *mine = block;
    mine->launch->given->kernel->function(mine->launch->arguments.data());
    Fiber *fiber = &mine->fibers[mine->current];
    fiber->ended = true;
    mine->ended++;
    set_waiting(mine->current);
    leave(&fiber->stack);
    abort();
}

/* ---- waiting --------------------------------------------------------------------------------- */

const char *const kind_names[] = {
    "barrier", "warp_barrier", "shuffle", "shuffle_xor", "load_matrices",
    "load_matrices_transposed", "multiply_bf16", "multiply_tf32"
};

Fiber *wait_at(Kind kind, int line, const void *site)
{
    Fiber *fiber = &block->fibers[block->current];
    fiber->kind = kind;
    fiber->line = line;
    fiber->site = (void *)site;
    fiber->waits = true;
    return fiber;
}

/* The threads from `first` on must wait at the same place. */
static void check_same(int first, int count)
{
    const Fiber *one = &block->fibers[first];
    for (int i = first + 1; i < first + count; i++) {
        const Fiber *other = &block->fibers[i];
        if (other->kind != one->kind || other->line != one->line) {
            finding(one->site, "threads meet at different calls: thread %d at %s in line %d, "
                    "thread %d at %s in line %d", first, kind_names[one->kind], one->line, i,
                    kind_names[other->kind], other->line);
            give_up();
        }
    }
}

extern "C" void simt_barrier(int line)
{
    Fiber *fiber = wait_at(BARRIER, line, CALL_SITE);
    if (++block->arrived < block->threads) {
        set_waiting(block->current);
        leave(&fiber->stack);
        return;
    }
    check_same(0, block->threads);
    block->arrived = 0;
    block->time++;
    for (int warp = 0; warp < block->threads / WARP; warp++)
        set_ready(warp);
}

bool meet(Fiber *fiber)
{
    int warp = block->current / WARP;
    if (++block->warp_arrived[warp] < WARP) {
        set_waiting(block->current);
        leave(&fiber->stack);
        return false;
    }
    check_same(warp * WARP, WARP);
    block->warp_arrived[warp] = 0;
    set_ready(warp);
    return true;
}

/* Called on the host's stack when no thread can run. */
static void check_end(void)
{
    if (block->ended == block->threads || block->launch->stop)
        return;
    int waiting = 0, missing = 0;
    while (!block->fibers[waiting].waits)
        waiting++;
    const Fiber *fiber = &block->fibers[waiting];
    block->current = waiting;
    int first = fiber->kind == BARRIER ? 0 : waiting / WARP * WARP;
    int count = fiber->kind == BARRIER ? block->threads : WARP;
    for (missing = first; missing < first + count - 1; missing++)
        if (block->fibers[missing].ended || block->fibers[missing].kind != fiber->kind)
            break;
    const Fiber *other = &block->fibers[missing];
    if (other->ended)
        finding(fiber->site, "waits at %s in line %d for ever: thread %d has ended",
                kind_names[fiber->kind], fiber->line, missing);
    else
        finding(fiber->site, "waits at %s in line %d for ever: thread %d waits at %s in line %d",
                kind_names[fiber->kind], fiber->line, missing, kind_names[other->kind],
                other->line);
    block->launch->stop = true;
}

extern "C" int simt_thread_index(void) { return block->current; }
extern "C" int simt_block_index(void) { return (int)block->index; }
extern "C" int simt_block_count(void) { return (int)block->launch->given->blocks; }

/* ---- blocks ---------------------------------------------------------------------------------- */

static void start_block(Launch *launch, int64_t index)
{
    block->launch = launch;
    block->index = index;
    block->number = launch->base + (uint32_t)index;
    block->threads = launch->given->threads;
    block->shared_bytes = (unsigned)launch->given->shared_bytes;
    block->current = 0;
    block->arrived = block->ended = 0;
    block->first_time = ++block->time;
    memset(block->warp_arrived, 0, sizeof block->warp_arrived);
    for (int i = 0; i < block->threads; i++) {
        Fiber *fiber = &block->fibers[i];
        fiber->ended = fiber->waits = false;
        fiber->copies.clear();
        fiber->groups.clear();
        fiber->open = 0;
        /* Not all at the same place in their pages: they would fall into the same lines of caches. */
        char *top = block->stacks + (size_t)(i + 1) * STACK - i % 16 * 256;
        fiber->stack = first_frame(top, run_fiber);
    }
    for (int warp = 0; warp < block->threads / WARP; warp++)
        block->ready[warp] = ~0u;
}

static void run_blocks(Launch *launch, Block *mine)
{
    block = mine;
    while (!launch->stop) {
        int64_t index = launch->next.fetch_add(1);
        if (index >= launch->given->blocks)
            break;
        start_block(launch, index);
        simt_switch(&block->host_stack, block->fibers[0].stack);
        check_end();
    }
    block = NULL;
}

static Block *open_block(void)
{
    Block *made = new Block();
    made->stacks = (char *)mmap(NULL, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    made->shared = (unsigned char *)calloc(MAX_SHARED, 1);
    made->units = (Unit *)calloc(MAX_SHARED / 4, sizeof(Unit));
    made->split_units = (Unit *)calloc(MAX_SHARED, sizeof(Unit));
    if (made->stacks == MAP_FAILED || !made->shared || !made->units || !made->split_units)
        abort();
    for (int i = 0; i < MAX_THREADS; i++)
        mprotect(made->stacks + (size_t)i * STACK, GUARD, PROT_NONE);
    return made;
}

static void close_block(Block *old)
{
    munmap(old->stacks, (size_t)MAX_THREADS * STACK);
    free(old->shared);
    free(old->units);
    free(old->split_units);
    delete old;
}

/* ---- launches -------------------------------------------------------------------------------- */

/* struct Arguments of runtime/plan.h: pointers, doubles, ints, the batch. */
static void pack_arguments(Launch *launch)
{
    const SimtLaunch *given = launch->given;
    size_t doubles = (size_t)given->n_buffers * 8, ints = doubles + (size_t)given->n_scalars * 8;
    size_t end = ints + (size_t)given->n_sizes * 4 + 4;
    launch->arguments.resize(given->n_buffers + given->n_scalars ? (end + 7) / 8 * 8 : end);
    unsigned char *at = launch->arguments.data();
    for (int i = 0; i < given->n_buffers; i++) {
        uint64_t address = buffer_address(i);
        memcpy(at + 8 * i, &address, 8);
    }
    if (given->n_scalars)
        memcpy(at + doubles, given->scalars, (size_t)given->n_scalars * 8);
    for (int i = 0; i <= given->n_sizes; i++) {
        int size = i < given->n_sizes ? (int)given->sizes[i] : given->batch;
        memcpy(at + ints + 4 * (size_t)i, &size, 4);
    }
}

/* What is wrong with the launch itself; NULL: nothing. */
static const char *find_mistake(const Launch *launch)
{
    const SimtLaunch *given = launch->given;
    if (given->kernel->threads != given->threads)
        return "its text has another number of THREADS than the launch";
    if (given->threads <= 0 || given->threads > MAX_THREADS || given->threads % WARP)
        return "its number of threads is no multiple of 32 up to 1024";
    if (given->kernel->arguments_bytes != (int)launch->arguments.size())
        return "its struct Arguments has another size than what the launch gives";
    if (launch->arguments.size() > 4096)
        return "its arguments have more than 4096 bytes";
    if (given->shared_bytes < 0 || given->shared_bytes > MAX_SHARED)
        return "it asks for more shared memory than a block can have";
    if (given->blocks <= 0 || given->blocks > 1 << 28)
        return "its number of blocks";
    for (int i = 0; i < given->n_sizes; i++)
        if (given->sizes[i] != (int)given->sizes[i])
            return "a size does not fit into an int";
    for (const Buffer &buffer : launch->buffers) {
        const SimtBuffer *place = &buffer.place;
        if (!place->memory || place->offset < 0 || place->offset % 16 || place->bytes < 0
            || place->offset + place->bytes > place->memory->bytes)
            return "a buffer is not in its memory, or not aligned to 16 bytes";
    }
    return NULL;
}

/* Numbers of blocks begin anew before they reach the flags of SimtMemory::reader. */
static void number_blocks(Simt *simt, Launch *launch)
{
    if (simt->next_number > 1u << 29) {
        for (SimtMemory *memory : simt->memories) {
            memset(memory->writer, 0, (size_t)(memory->bytes / 4 + 1) * 4);
            memset(memory->reader, 0, (size_t)(memory->bytes / 4 + 1) * 4);
        }
        simt->next_number = 1;
    }
    launch->base = simt->next_number;
    simt->next_number += (uint32_t)launch->given->blocks;
}

bool simt_launch(Simt *simt, const SimtLaunch *given, char *report, size_t size)
{
    Launch launch = {};
    launch.simt = simt;
    launch.given = given;
    launch.buffers = std::vector<Buffer>((size_t)given->n_buffers);
    for (int i = 0; i < given->n_buffers; i++)
        launch.buffers[(size_t)i].place = given->buffers[i];
    pack_arguments(&launch);
    const char *mistake = find_mistake(&launch);
    if (mistake) {
        snprintf(report, size, "%s: cannot be launched: %s\n", given->name, mistake);
        return false;
    }
    number_blocks(simt, &launch);
    std::vector<std::thread> threads;
    for (int i = 1; i < simt->n_threads && i < given->blocks; i++)
        threads.emplace_back(run_blocks, &launch, simt->blocks[(size_t)i]);
    run_blocks(&launch, simt->blocks[0]);
    for (std::thread &thread : threads)
        thread.join();
    if (!launch.stop)
        check_written(&launch);
    snprintf(report, size, "%s", launch.report.c_str());
    return launch.report.empty();
}

/* ---- opening --------------------------------------------------------------------------------- */

/* A kernel that touches memory by itself, or needs more than its stack. */
static void report_fault(int number, siginfo_t *facts, void *)
{
    if (block && block->launch) {
        char text[400];
        int n = snprintf(text, sizeof text, "FAIL %s: block %lld, thread %d: touches %p, not by a "
                         "primitive (or its stack of %d KiB is full)\n",
                         block->launch->given->name, (long long)block->index, block->current,
                         facts->si_addr, STACK >> 10);
        ssize_t written = write(STDERR_FILENO, text, (size_t)n);
        (void)written;
    }
    signal(number, SIG_DFL);
}

static void catch_faults(void)
{
    static char stack[64 << 10];
    stack_t place = {};
    place.ss_sp = stack;
    place.ss_size = sizeof stack;
    struct sigaction action = {};
    action.sa_sigaction = report_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaltstack(&place, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

Simt *simt_open(int threads)
{
    Simt *simt = new Simt();
    simt->n_threads = threads < 1 ? 1 : threads;
    simt->next_number = 1;
    for (int i = 0; i < simt->n_threads; i++)
        simt->blocks.push_back(open_block());
    catch_faults();
    return simt;
}

void simt_close(Simt *simt)
{
    while (!simt->memories.empty())
        simt_memory_close(simt, simt->memories.back());
    for (Block *one : simt->blocks)
        close_block(one);
    delete simt;
}

SimtMemory *simt_memory_open(Simt *simt, int64_t bytes)
{
    SimtMemory *memory = new SimtMemory();
    size_t words = (size_t)bytes / 4 + 1;
    memory->bytes = bytes;
    memory->data = (unsigned char *)aligned_alloc(64, (words * 4 + 63) / 64 * 64);
    memory->writer = (uint32_t *)calloc(words, 4);
    memory->reader = (uint32_t *)calloc(words, 4);
    memory->state = (uint8_t *)calloc(words, 1);
    if (!memory->data || !memory->writer || !memory->reader || !memory->state)
        return NULL;
    memset(memory->data, 0, words * 4);
    simt->memories.push_back(memory);
    return memory;
}

void simt_memory_close(Simt *simt, SimtMemory *memory)
{
    for (size_t i = 0; i < simt->memories.size(); i++)
        if (simt->memories[i] == memory) {
            simt->memories.erase(simt->memories.begin() + (std::ptrdiff_t)i);
            break;
        }
    free(memory->data);
    free(memory->writer);
    free(memory->reader);
    free(memory->state);
    delete memory;
}

SimtMemory *simt_memory_find(Simt *simt, const void *address, int64_t *offset)
{
    for (SimtMemory *memory : simt->memories) {
        const unsigned char *at = (const unsigned char *)address;
        if (at >= memory->data && at <= memory->data + memory->bytes) {
            *offset = at - memory->data;
            return memory;
        }
    }
    return NULL;
}
