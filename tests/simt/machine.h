/* Inside the emulator: what machine.cc and memory.cc share. */
#ifndef MACHINE_H
#define MACHINE_H

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "emulator.h"

enum { WARP = 32, MAX_THREADS = 1024, MAX_SHARED = 232448 };

/* The shadow of global memory has an entry for every 4 bytes. Blocks are numbered through all
 * launches, so that what earlier launches left needs no clearing. */
struct SimtMemory {
    unsigned char *data;
    int64_t bytes;
    uint32_t *writer;                  /* the last block that wrote it */
    uint32_t *reader;                  /* the first that read it in its launch, with flags */
    uint8_t *state;                    /* a bit a byte: 0-3 written ever, 4-7 in writer's launch */
};

/* The shadow of 4 bytes of shared memory, or of one byte of those that are `split`. Times are
 * numbers of barriers; those of earlier blocks are smaller than Block::first_time. */
struct Unit {
    uint32_t write_time, write_warp_time;
    uint32_t read_time, read_warp_time;
    uint32_t split;                    /* first_time of the block in which it was split */
    uint16_t writer, reader;           /* threads; reader: see memory.cc */
    bool in_flight;                    /* a copy_async of `writer` is on its way there */
};

struct Copy { unsigned to; unsigned char bytes[16]; };

/* What a thread waits at: the block's barrier, or a collective function of its warp. */
enum Kind {
    BARRIER, WARP_BARRIER, SHUFFLE, SHUFFLE_XOR, MATRICES, MATRICES_TRANSPOSED,
    MULTIPLY_BF16, MULTIPLY_TF32
};

struct Fiber {
    void *stack;                       /* its pointer while another runs */
    Kind kind;
    int line;
    bool waits, ended;
    void *site;                        /* who called */
    float value;                       /* of a shuffle */
    unsigned number;                   /* lane, mask or address */
    float *d;                          /* of a product; r of load_matrices */
    unsigned *r;
    const unsigned *a, *b;
    std::vector<Copy> copies;          /* on their way, the oldest first */
    std::vector<int> groups;           /* closed groups' numbers of copies, the oldest first */
    int open;                          /* copies behind the last group */
};

struct Buffer {
    SimtBuffer place;
    std::atomic<bool> stored;
};

struct Finding { const void *site; const char *format; };

struct Launch {
    Simt *simt;
    const SimtLaunch *given;
    std::vector<unsigned char> arguments;
    std::vector<Buffer> buffers;
    uint32_t base;                     /* number of its first block */
    std::atomic<int64_t> next;         /* block to run */
    std::atomic<bool> stop;            /* cannot go on */
    std::mutex lock;                   /* of the rest */
    std::vector<Finding> findings;
    std::string report;
};

/* A block that runs, on a thread of the host. */
struct Block {
    Launch *launch;
    int64_t index;
    uint32_t number;                   /* launch->base + index */
    int threads, current;              /* current: the thread that runs */
    int arrived, ended;                /* at the barrier */
    uint32_t ready[MAX_THREADS / WARP]; /* a bit a lane */
    int warp_arrived[MAX_THREADS / WARP];
    uint32_t first_time, time;         /* barriers, through all blocks */
    uint32_t warp_time[MAX_THREADS / WARP];
    Fiber fibers[MAX_THREADS];
    void *host_stack;
    char *stacks;                      /* of the fibers */
    unsigned char *shared;
    unsigned shared_bytes;             /* of this launch */
    Unit *units, *split_units;         /* a word of shared memory each; four a word */
};

extern thread_local Block *block;      /* that this thread of the host runs */

extern const char *const kind_names[];
/* Notes what the running thread comes to. */
Fiber *wait_at(Kind kind, int line, const void *site);
/* Waits for the warp's lanes. True for the last, which then does the work, after which all go on. */
bool meet(Fiber *);
/* Adds a line, once for every place in the kernel. */
void finding(const void *site, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Leaves the block and ends the launch. */
[[noreturn]] void give_up(void);
/* Where buffer `index` begins for the kernel. */
uint64_t buffer_address(int index);
/* Reads and writes shared memory for a thread. */
void read_shared(int thread, unsigned at, unsigned bytes, void *value, const void *site);
/* After a launch: bytes that it should have written, and did not. */
void check_written(Launch *);

#define CALL_SITE __builtin_return_address(0)
#endif
