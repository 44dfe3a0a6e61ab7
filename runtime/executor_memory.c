/* The memory of an executor: how much the programs of a plan need, taking it, and what lies where.
 *
 * All of it is taken when the executor is opened; executor.h says how it is shared. Hostile plans
 * have sizes whose sums do not fit, so sums saturate.
 */
#include <stdio.h>
#include <string.h>

#include "executor.h"

enum { MAX_BATCH = 1 << 17 };

bool is_listed(const char *programs, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = programs; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, n) == 0 && (at[n] == 0 || at[n] == ',' || at[n] == '+'))
            return true;
    return programs == NULL;
}

unsigned listed_parts(const char *programs, const char *name)
{
    static const char *const names[PART_COUNT] = { "", "sum", "total", "clip", "update",
                                                   "average" };
    size_t n = strlen(name);
    unsigned parts = DEFAULT_PARTS;
    for (const char *at = programs; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, n) == 0 && at[n] == '+')
            for (const char *word = at + n; *word == '+'; word += 1 + strcspn(word + 1, "+,"))
                for (int part = PART_SUM; part < PART_COUNT; part++)
                    if (strcspn(word + 1, "+,") == strlen(names[part])
                        && strncmp(word + 1, names[part], strlen(names[part])) == 0)
                        parts |= 1u << part;
    return parts;
}

bool slab_is_kept(Slab slab)
{
    return slab == SLAB_PARAMETERS || slab == SLAB_MOMENTS || slab == SLAB_SUMS
        || slab == SLAB_AVERAGE;
}

bool uses_slab(const PlanProgram *program, unsigned parts, Slab slab)
{
    for (int i = 0; i < program->n_tensors; i++)
        if (program->tensors[i].buffer.slab == slab)
            return true;
    for (int i = 0; i < program->n_steps; i++)
        for (int j = 0; (parts >> program->steps[i].part & 1) && j < program->steps[i].n_buffers;
             j++)
            if (program->steps[i].buffers[j].slab == slab)
                return true;
    return false;
}

/* ---- what a plan needs ----------------------------------------------------------------------- */

typedef struct { int64_t slabs[SLAB_COUNT], shared, scratch; } Needs;

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t round_up(int64_t value)
{
    return (value + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
}

static int64_t add_up(int64_t a, int64_t b) { return a > INT64_MAX - b ? INT64_MAX : a + b; }

static int64_t multiply(int64_t a, int64_t b)
{
    return b > 0 && a > INT64_MAX / b ? INT64_MAX : a * b;
}

void place_slabs(const Plan *plan, const PlanProgram *program, unsigned parts,
                 int64_t places[SLAB_COUNT])
{
    int64_t gradients = uses_slab(program, parts, SLAB_GRADIENTS) ? plan->trainable_bytes : 0;
    places[SLAB_FIXED] = 0;
    places[SLAB_GRADIENTS] = round_up(larger(program->fixed_bytes, PLAN_STATE_BYTES));
    places[SLAB_ACTIVATIONS] = places[SLAB_GRADIENTS] + round_up(gradients);
}

/* What a program needs joins what those before it do. */
static void need_program(const Plan *plan, const PlanProgram *program, unsigned parts,
                         int64_t batch, Needs *needs)
{
    const int64_t trained = plan->trainable_bytes;
    const struct { Slab slab; int64_t bytes; } whole[] = {
        { SLAB_GRADIENTS, trained }, { SLAB_MOMENTS, 2 * trained }, { SLAB_SUMS, trained },
        { SLAB_AVERAGE, plan->parameter_bytes },
    };
    int64_t places[SLAB_COUNT], *slabs = needs->slabs;
    int64_t activations = multiply(program->sample_bytes, batch);
    for (int i = 0; i < 4; i++)
        if (uses_slab(program, parts, whole[i].slab))
            slabs[whole[i].slab] = whole[i].bytes;
    place_slabs(plan, program, parts, places);
    slabs[SLAB_FIXED] = larger(slabs[SLAB_FIXED], places[SLAB_GRADIENTS]);
    slabs[SLAB_ACTIVATIONS] = larger(slabs[SLAB_ACTIVATIONS], activations);
    needs->shared = larger(needs->shared, add_up(places[SLAB_ACTIVATIONS], activations));
    needs->scratch = larger(needs->scratch, round_up(program->scratch_bytes));
}

static Needs needs_of(const Plan *plan, const PlanTarget *target, const char *programs,
                      int64_t batch)
{
    Needs needs = { .slabs = { [SLAB_PARAMETERS] = plan->parameter_bytes } };
    for (int i = 0; i < target->n_programs; i++) {
        const char *name = target->programs[i].name;
        if (is_listed(programs, name))
            need_program(plan, &target->programs[i], listed_parts(programs, name), batch, &needs);
    }
    return needs;
}

static int64_t total_bytes(const Needs *needs, int64_t threads)
{
    int64_t total = add_up(needs->shared, multiply(needs->scratch, threads));
    for (int i = 0; i < SLAB_COUNT; i++)
        total = slab_is_kept(i) ? add_up(total, needs->slabs[i]) : total;
    return total;
}

int64_t plan_bytes_for(const Plan *plan, const char *target, const char *programs, int batch,
                       int threads)
{
    const PlanTarget *found = plan_target(plan, target);
    if (!found)
        return 0;
    Needs needs = needs_of(plan, found, programs, batch);
    return total_bytes(&needs, threads);
}

int64_t plan_bytes(const Plan *plan, const char *target, int batch, int threads)
{
    return plan_bytes_for(plan, target, NULL, batch, threads);
}

/* ---- whether it is there --------------------------------------------------------------------- */

static void print_bytes(int64_t bytes, char text[32])
{
    if (bytes < 1 << 30)
        snprintf(text, 32, "%.1f MiB", (double)bytes / (1 << 20));
    else
        snprintf(text, 32, "%.2f GiB", (double)bytes / (1 << 30));
}

/* The largest batch that needs no more than `room`; 0: none does. */
static int64_t largest_batch(const Plan *plan, const PlanTarget *target, const Device *device,
                             const char *programs, int64_t room)
{
    int64_t fits = 0;
    for (int64_t step = MAX_BATCH; step > 0; step /= 2) {
        Needs needs = needs_of(plan, target, programs, fits + step);
        if (fits + step <= MAX_BATCH && total_bytes(&needs, device->scratch_copies) <= room)
            fits += step;
    }
    return fits;
}

/* there: the bytes that can be had. */
static bool no_memory(const Plan *plan, const PlanTarget *target, const Device *device,
                      const char *programs, int max_batch, int64_t there, Error *error)
{
    char hint[200], least_text[32], needed_text[32], there_text[32];
    Needs least = needs_of(plan, target, programs, 1);
    Needs needed = needs_of(plan, target, programs, max_batch);
    print_bytes(total_bytes(&least, device->scratch_copies), least_text);
    print_bytes(total_bytes(&needed, device->scratch_copies), needed_text);
    print_bytes(there, there_text);
    int64_t room = there - there / 10; /* the rest for what stands around: threads, pictures */
    int64_t fits = largest_batch(plan, target, device, programs, room);
    if (fits > 0 && fits < max_batch)
        snprintf(hint, sizeof hint, "the largest batch that fits is %lld", (long long)fits);
    else if (fits > 0)
        snprintf(hint, sizeof hint, "close other programs");
    else
        snprintf(hint, sizeof hint,
                 "not even a batch of 1 fits, which needs %s: make the model or "
                 "its pictures smaller, or close other programs",
                 least_text);
    return fail(error, EXIT_ENVIRONMENT, hint,
                "not enough memory: '%s' with batch %d needs %s, %s are available", plan->model,
                max_batch, needed_text, there_text);
}

bool check_memory(const Plan *plan, const PlanTarget *target, const Device *device,
                  const char *programs, int max_batch, Error *error)
{
    int64_t there = device->available(device);
    Needs needs = needs_of(plan, target, programs, max_batch);
    return total_bytes(&needs, device->scratch_copies) <= there
        || no_memory(plan, target, device, programs, max_batch, there, error);
}

/* ---- taking it ------------------------------------------------------------------------------- */

static void release(Device *device, void **memory, int64_t bytes)
{
    if (*memory)
        device->release(device, *memory, bytes);
    *memory = NULL;
}

void release_slabs(Executor *executor)
{
    Device *device = executor->device;
    for (int i = 0; i < SLAB_COUNT; i++)
        release(device, &executor->kept[i], executor->bytes[i]);
    release(device, &executor->shared, executor->shared_bytes);
    release(device, &executor->scratch, executor->scratch_bytes * device->scratch_copies);
}

static bool allocate(Device *device, void **memory, int64_t bytes, Error *error)
{
    return bytes == 0 || (*memory = device->allocate(device, bytes, error)) != NULL;
}

static bool allocate_all(Executor *executor, const Needs *needs, Error *error)
{
    Device *device = executor->device;
    memcpy(executor->bytes, needs->slabs, sizeof executor->bytes);
    executor->shared_bytes = needs->shared;
    executor->scratch_bytes = needs->scratch;
    for (int i = 0; i < SLAB_COUNT; i++)
        if (slab_is_kept(i) && !allocate(device, &executor->kept[i], needs->slabs[i], error))
            return false;
    return allocate(device, &executor->shared, needs->shared, error)
        && allocate(device, &executor->scratch, needs->scratch * device->scratch_copies, error);
}

/* What was available may be gone, or in pieces. */
bool allocate_slabs(Executor *executor, const char *programs, Error *error)
{
    Device *device = executor->device;
    Error reason = { 0 };
    Needs needs = needs_of(executor->plan, executor->target, programs, executor->max_batch);
    if (allocate_all(executor, &needs, &reason))
        return true;
    release_slabs(executor);
    int64_t there = device->available(device);
    int64_t needed = total_bytes(&needs, device->scratch_copies);
    if (error && there == INT64_MAX) {
        *error = reason;
    } else if (error) {
        no_memory(executor->plan, executor->target, device, programs, executor->max_batch,
                  there < needed ? there : needed - needed / 10, error);
        snprintf(error->text + strlen(error->text), sizeof error->text - strlen(error->text),
                 ": %.300s", reason.text);
    }
    return false;
}

/* ---- what lies where ------------------------------------------------------------------------- */

char *slab_place(const Executor *executor, int program, Slab slab)
{
    return slab_is_kept(slab) ? executor->kept[slab]
                              : (char *)executor->shared + executor->programs[program].places[slab];
}

void *buffer_place(const Executor *executor, int program, const PlanBuffer *buffer, int64_t batch)
{
    int64_t offset = buffer->offset * (buffer->slab == SLAB_ACTIVATIONS ? batch : 1);
    return slab_place(executor, program, buffer->slab) + offset;
}

bool take_shared(Executor *executor, int program, Error *error)
{
    static const char zeros[1 << 20];
    Device *device = executor->device;
    bool others = executor->holds >= 0 && executor->holds != program;
    int64_t bytes = 0, size;
    const BoundProgram *bound = &executor->programs[program];
    if (others && uses_slab(bound->plan, bound->parts, SLAB_GRADIENTS))
        bytes = executor->bytes[SLAB_GRADIENTS];
    executor->holds = program;
    if (others)
        executor->prepared = executor->ran = -1;
    for (char *to = slab_place(executor, program, SLAB_GRADIENTS); bytes > 0; bytes -= size) {
        size = bytes < (int64_t)sizeof zeros ? bytes : (int64_t)sizeof zeros;
        if (!device->upload(device, to, zeros, size, error))
            return false;
        to += size;
    }
    return true;
}
