/* Every CUDA kernel of the models, built by NVRTC; no GPU is needed.
 *
 * Each text must be built, and the convolutions' without spilling registers. Registers, shared
 * memory and occupancy are compared with tests/nvrtc/table.txt, if that was made by the same NVRTC.
 * There are too many texts and architectures to build all of them in each run: one takes the most
 * important first (see urgency_of), for a minute, remembers in $SEG_CACHE what it has built, and
 * leaves the rest to the next; SEG_NVRTC_ALL=1 builds everything. SEG_BLESS=1 writes the table, with
 * "?" for what was not built: that is compared with nothing. It also says how long the kernels of
 * U-Net's training take to build.
 * timeout: 600   sanitize: no
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "../runtime/device_cuda.h"
#include "kernel_table.h"
#include "occupancy.h"

enum { BUDGET = 60, COLD_GOAL = 8 };   /* seconds */
enum { LOG_LINES = 12, SLOWEST = 5 };

static const char table_path[] = "tests/nvrtc/table.txt";
static const char *const models[] = {"unet", "resnet34_unet"};
enum { N_MODELS = sizeof models / sizeof *models };

static int passed, failed;

static bool check(bool good)
{
    *(good ? &passed : &failed) += 1;
    return good;
}

/* ---- results that are remembered ---------------------------------------------------------------- */

typedef struct {
    char key[33];
    KernelUse use;
    double seconds;            /* of a processor, to build it */
} Known;

typedef struct {
    char path[4096];           /* "": there is no cache */
    Known *known; int n_known;
} Memory;

static void remember(Memory *memory, const Known *known)
{
    size_t count = (size_t)memory->n_known + 1;
    memory->known = realloc(memory->known, count * sizeof *memory->known);
    memory->known[memory->n_known++] = *known;
}

static void open_memory(Memory *memory)
{
    const char *folder = getenv("SEG_CACHE");
    *memory = (Memory){0};
    if (!folder || !folder_make(folder, NULL))
        return;
    snprintf(memory->path, sizeof memory->path, "%s/nvrtc-results", folder);
    FILE *file = fopen(memory->path, "r");
    Known known;
    KernelUse *use = &known.use;
    while (file && fscanf(file, "%32s %d %d %d %d %lf", known.key, &use->registers,
                          &use->shared_bytes, &use->stack, &use->spills, &known.seconds) == 6)
        remember(memory, &known);
    if (file)
        fclose(file);
}

static void close_memory(Memory *memory)
{
    FILE *file = *memory->path ? fopen(memory->path, "w") : NULL;
    for (int i = 0; file && i < memory->n_known; i++) {
        const Known *known = &memory->known[i];
        const KernelUse *use = &known->use;
        fprintf(file, "%s %d %d %d %d %.3f\n", known->key, use->registers, use->shared_bytes,
                use->stack, use->spills, known->seconds);
    }
    if (file)
        fclose(file);
    free(memory->known);
}

static const Known *recall(const Memory *memory, const char *key)
{
    for (int i = 0; i < memory->n_known; i++)
        if (strcmp(memory->known[i].key, key) == 0)
            return &memory->known[i];
    return NULL;
}

/* ---- building ------------------------------------------------------------------------------------ */

typedef struct {
    TableText *text;
    int architecture;
    int urgency;               /* 0: at once */
    char key[33];
    bool built;                /* in this run */
    double seconds;            /* of a processor */
    char *log;                 /* of a text that cannot be built */
} Job;

typedef struct {
    const Nvrtc *nvrtc;
    KernelTable *table;
    Memory *memory;
    Job *jobs; int n_jobs;
    int *missing; int n_missing; /* jobs that are not remembered */
    int n_urgent;              /* of those; the others are built until the time is up */
    double deadline;
} Building;

static double seconds_of(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void set_key(const KernelTable *table, Job *job)
{
    const char *parts[] = {table->toolkit, table->architectures[job->architecture].name,
                           job->text->target->prelude, job->text->kernel->body};
    XXH3_state_t *state = XXH3_createState();
    XXH3_128bits_reset(state);
    for (int i = 0; i < 4; i++)
        XXH3_128bits_update(state, parts[i], strlen(parts[i]) + 1);
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    snprintf(job->key, sizeof job->key, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

/* Runs NVRTC; gives its log, or NULL. */
static char *compile_text(const Nvrtc *nvrtc, const char *architecture, const char *text,
                          const char *name, bool *built)
{
    char room[NVRTC_ARCHITECTURE], *log = NULL;
    const char *options[NVRTC_OPTIONS + 1];
    int n_options = nvrtc_options(nvrtc, architecture, room, options);
    size_t size = 0;
    nvrtcProgram program = NULL;
    *built = false;
    options[n_options++] = "--ptxas-options=-v";
    if (nvrtc->nvrtcCreateProgram(&program, text, name, 0, NULL, NULL) != NVRTC_SUCCESS)
        return NULL;
    *built = nvrtc->nvrtcCompileProgram(program, n_options, options) == NVRTC_SUCCESS;
    if (nvrtc->nvrtcGetProgramLogSize(program, &size) == NVRTC_SUCCESS)
        log = calloc(1, size + 1);
    if (log)
        nvrtc->nvrtcGetProgramLog(program, log);
    nvrtc->nvrtcDestroyProgram(&program);
    return log;
}

/* On any thread. */
static void build_job(void *context, int index)
{
    Building *building = context;
    Job *job = &building->jobs[building->missing[index]];
    const PlanKernel *kernel = job->text->kernel;
    KernelUse *use = &job->text->use[job->architecture];
    char *text = NULL;
    bool built;
    double start = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    if (asprintf(&text, "%s\n%s", job->text->target->prelude, kernel->body) < 0)
        abort();
    char *log = compile_text(building->nvrtc, building->table->architectures[job->architecture].name,
                             text, kernel->name, &built);
    free(text);
    job->seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID) - start;
    job->built = true;
    if (built && log && parse_kernel_use(log, use)) {
        free(log);
        return;
    }
    *use = (KernelUse){0};
    job->log = log ? log : strdup("NVRTC says nothing");
}

/* False when the time is up. */
static bool has_time(void *context, int done, int count)
{
    const Building *building = context;
    return done < building->n_urgent || done == count
        || seconds_of(CLOCK_MONOTONIC) < building->deadline;
}

/* Those that were not built before. Gives the seconds that it took. */
static double build_jobs(Building *building)
{
    double start = seconds_of(CLOCK_MONOTONIC);
    building->missing = calloc((size_t)building->n_jobs + 1, sizeof *building->missing);
    for (int i = 0; i < building->n_jobs; i++) {
        Job *job = &building->jobs[i];
        const Known *known = recall(building->memory, job->key);
        if (known) {
            job->text->use[job->architecture] = known->use;
            job->seconds = known->seconds;
        } else {
            building->missing[building->n_missing++] = i;
            building->n_urgent += job->urgency == 0;
        }
    }
    parallel_for(building->n_missing, 0, build_job, building, has_time, building);
    for (int i = 0; i < building->n_missing; i++) {
        const Job *job = &building->jobs[building->missing[i]];
        Known known = {.use = job->text->use[job->architecture], .seconds = job->seconds};
        memcpy(known.key, job->key, sizeof known.key);
        if (known.use.registers)
            remember(building->memory, &known);
    }
    free(building->missing);
    return seconds_of(CLOCK_MONOTONIC) - start;
}

/* ---- what is built --------------------------------------------------------------------------------- */

enum { SM_80, SM_90, NEWEST };

/* At once, whatever it takes: what bf16 runs on Hopper if nothing was tuned. Then the same of the
 * other precisions, convolutions on Ampere, the newest architecture, and what tuning may choose. */
static int urgency_of(const KernelTable *table, const TableText *text, int architecture)
{
    bool tuned = table->rows[text->row].tuned;
    bool bf16 = strcmp(text->target->name, "cuda-bf16") == 0;
    bool fp32 = strcmp(text->target->name, "cuda-fp32") == 0;
    if (!text->defaults)
        return architecture == SM_90 ? 6 : architecture == SM_80 ? 7 : 8;
    switch (architecture) {
    case SM_90: return bf16 ? 0 : fp32 ? 2 : 1;
    case SM_80: return tuned && !fp32 ? 3 : 4;
    default: return 5;
    }
}

static void add_job(Building *building, TableText *text, int architecture)
{
    building->jobs = realloc(building->jobs, (size_t)(building->n_jobs + 1) * sizeof *building->jobs);
    building->jobs[building->n_jobs++] = (Job){
        .text = text, .architecture = architecture,
        .urgency = urgency_of(building->table, text, architecture)};
    set_key(building->table, &building->jobs[building->n_jobs - 1]);
}

/* The verdict on one text. */
static void check_job(const Building *building, const Job *job)
{
    const Architecture *architecture = &building->table->architectures[job->architecture];
    const TableRow *row = &building->table->rows[job->text->row];
    const KernelUse *use = &job->text->use[job->architecture];
    char name[400];
    snprintf(name, sizeof name, "FAIL %s [%s], %s, %s", job->text->kernel->name, row->variant,
             job->text->target->name, architecture->name);
    if (!check(!job->log)) {
        printf("%s: it cannot be built\n", name);
        const char *line = job->log;
        for (int i = 0; i < LOG_LINES && *line; i++, line += strcspn(line, "\n"), line += *line != 0)
            printf("    %.*s\n", (int)strcspn(line, "\n"), line);
        return;
    }
    if (!check(!row->tuned || !use->spills))
        printf("%s: %d bytes are spilled, with %d registers\n", name, use->spills, use->registers);
    int64_t shared = job->text->shared_bytes + use->shared_bytes;
    Occupancy occupancy = occupancy_of(architecture->capability, row->threads, use->registers,
                                       shared);
    if (!check(occupancy.blocks || job->architecture == NEWEST || !job->text->defaults))
        printf("%s: a block of %d threads with %lld bytes of shared memory does not fit\n", name,
               row->threads, (long long)shared);
}

static int compare_urgency(const void *a, const void *b)
{
    const Job *x = a, *y = b;
    return x->urgency != y->urgency ? x->urgency - y->urgency : strcmp(x->key, y->key);
}

/* Those that were built now before all others; the slowest first. */
static int compare_seconds(const void *a, const void *b)
{
    const Job *x = a, *y = b;
    if (x->built != y->built)
        return x->built ? -1 : 1;
    return x->seconds < y->seconds ? 1 : x->seconds > y->seconds ? -1 : 0;
}

static void print_slowest(const Building *building, double seconds)
{
    int built = 0, known = building->n_jobs - building->n_missing;
    while (built < building->n_jobs && building->jobs[built].built)
        built++;
    int left_out = building->n_missing - built;
    printf("%d texts for %d architectures: %d built in %.1f s, %d known from before",
           building->table->n_texts, building->table->n_architectures, built, seconds, known);
    printf(left_out ? ", %d left out (SEG_NVRTC_ALL=1 builds all)\n" : "\n", left_out);
    for (int i = 0; i < SLOWEST && i < built; i++) {
        const Job *job = &building->jobs[i];
        printf("  %.2f s  %s, %s, %s\n", job->seconds, job->text->kernel->name,
               job->text->target->name, building->table->architectures[job->architecture].name);
    }
}

/* All that U-Net's training runs, where nothing is there yet. */
static void print_cold_build(const Building *building, const char *target)
{
    double seconds = 0;
    int count = 0;
    for (int i = 0; i < building->n_jobs; i++) {
        const Job *job = &building->jobs[i];
        if (job->architecture != SM_90 || strcmp(job->text->target->name, target) != 0
            || !(job->text->defaults & 1u << PROGRAM_TRAIN))
            continue;
        if (job->seconds == 0)
            return; /* no time was left for it */
        seconds += job->seconds;
        count++;
    }
    printf("cold build of the %d kernels that %s's training runs (%s, %s): %.1f s of a processor; 2 "
           "may take %d s each\n", count, building->table->models[0], target,
           building->table->architectures[SM_90].name, seconds, COLD_GOAL);
}

static void build_all(Building *building, bool whole)
{
    KernelTable *table = building->table;
    for (int i = 0; i < table->n_texts; i++)
        for (int a = 0; a < table->n_architectures; a++)
            add_job(building, &table->texts[i], a);
    qsort(building->jobs, (size_t)building->n_jobs, sizeof *building->jobs, compare_urgency);
    building->deadline = whole ? INFINITY : seconds_of(CLOCK_MONOTONIC) + BUDGET;
    double seconds = build_jobs(building);
    qsort(building->jobs, (size_t)building->n_jobs, sizeof *building->jobs, compare_seconds);
    print_slowest(building, seconds);
    print_cold_build(building, "cuda-bf16");
    print_cold_build(building, "cuda-tf32");
    int others = 0;
    for (int i = 0; i < building->n_jobs; i++) {
        const Job *job = &building->jobs[i];
        const KernelUse *use = &job->text->use[job->architecture];
        if (job->log || use->registers)
            check_job(building, job);
        others += use->spills && !table->rows[job->text->row].tuned;
        free(job->log);
    }
    if (others)
        printf("%d that are no convolutions spill registers: see the table\n", others);
    free(building->jobs);
}

/* ---- the table -------------------------------------------------------------------------------------- */

static char *table_text(const KernelTable *table, const char *committed)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    table_print(table, committed, out);
    fclose(out);
    return text;
}

/* Shows the committed table against `text`. */
static void print_difference(const char *text)
{
    char path[] = "/tmp/seg-table-XXXXXX", command[200];
    int fd = mkstemp(path);
    if (fd < 0)
        return;
    close(fd);
    file_write(path, text, strlen(text), NULL);
    snprintf(command, sizeof command, "diff -u %s %s | sed 1,2d | head -n 100", table_path, path);
    fflush(stdout);
    if (system(command) != 0)
        printf("(no diff)\n");
    unlink(path);
}

static void compare_table(const KernelTable *table, bool bless)
{
    Error error = {0};
    size_t bytes, length = strlen(table->toolkit);
    char *committed = file_read(table_path, &bytes, &error);
    char *text = table_text(table, bless ? NULL : committed);
    if (bless) {
        if (!check(file_write(table_path, text, strlen(text), &error)))
            printf("FAIL %s\n", error.text);
    } else if (!committed) {
        printf("nothing is compared: there is no %s; `make bless` writes it\n", table_path);
    } else if (strncmp(committed, table->toolkit, length) != 0 || committed[length] != ';') {
        printf("registers are not compared: %s is of %.*s, this is %s\n", table_path,
               (int)strcspn(committed, ";\n"), committed, table->toolkit);
    } else if (!check(strcmp(committed, text) == 0)) {
        printf("FAIL the table differs: `make bless` rewrites %s, and git diff shows what changed\n",
               table_path);
        print_difference(text);
    }
    free(committed);
    free(text);
}

/* ---- the instruments themselves ------------------------------------------------------------------------ */

static void test_occupancy(void)
{
    static const struct { int capability, threads, registers, shared, blocks, warps; } cases[] = {
        {80, 256, 32, 0, 8, 100},       {80, 256, 255, 0, 1, 12},      {80, 384, 168, 0, 1, 18},
        {90, 128, 128, 0, 4, 25},       {90, 128, 40, 57345, 3, 18},   {90, 1024, 64, 0, 1, 50},
        {90, 128, 40, 232448, 1, 6},    {90, 128, 40, 232449, 0, 0},   {80, 128, 40, 166912, 1, 6},
        {121, 256, 32, 0, 6, 100},      {121, 128, 40, 101376, 1, 8},  {75, 1024, 64, 0, 1, 100},
        {90, 32, 16, 0, 32, 50},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Occupancy got = occupancy_of(cases[i].capability, cases[i].threads, cases[i].registers,
                                     cases[i].shared);
        if (!check(got.blocks == cases[i].blocks && got.warps == cases[i].warps))
            printf("FAIL occupancy on %d of %d threads, %d registers, %d bytes: %d blocks, %d %% of "
                   "the warps; want %d, %d %%\n", cases[i].capability, cases[i].threads,
                   cases[i].registers, cases[i].shared, got.blocks, got.warps, cases[i].blocks,
                   cases[i].warps);
    }
}

static void test_log(void)
{
    static const char log[] =
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function 'a_90' for 'sm_90a'\n"
        "ptxas         .     16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads\n"
        "ptxas info    : Used 40 registers, used 1 barriers, 512 bytes smem, 400 bytes cmem[0]\n"
        "ptxas info    : Compile time = 25.817 ms\n";
    KernelUse use;
    bool good = parse_kernel_use(log, &use) && use.registers == 40 && use.shared_bytes == 512
             && use.stack == 16 && use.spills == 32 && !parse_kernel_use("k.cu(1): error: x", &use);
    if (!check(good))
        printf("FAIL reading the assembler's words\n");
}

/* ---- main -------------------------------------------------------------------------------------------- */

/* Ampere, Hopper, and the newest that this NVRTC knows. */
static void set_architectures(KernelTable *table, const Nvrtc *nvrtc)
{
    int count = 0, newest = 0;
    nvrtc->nvrtcGetNumSupportedArchs(&count);
    int *known = calloc((size_t)count + 1, sizeof *known);
    nvrtc->nvrtcGetSupportedArchs(known);
    for (int i = 0; i < count; i++)
        newest = known[i] > newest ? known[i] : newest;
    free(known);
    table->architectures[SM_80] = (Architecture){"sm_80", 80};
    table->architectures[SM_90] = (Architecture){nvrtc->architecture, 90};
    table->architectures[NEWEST] = (Architecture){
        arena_printf(table->arena, "sm_%d%s", newest, nvrtc->major >= 12 ? "a" : ""), newest};
    table->n_architectures = newest > 90 ? 3 : 2;
    table->toolkit = arena_printf(table->arena, "NVRTC %d.%d", nvrtc->major, nvrtc->minor);
}

static bool add_model(KernelTable *table, const char *name)
{
    Compilation c = {.arena = table->arena, .precision = "fp32,tf32,bf16", .targets = "cuda",
                     .warp_groups = true,
                     .messages = stdout};
    c.path = arena_printf(c.arena, "models/%s.seg", name);
    Plan *plan = compile(&c);
    if (plan)
        table_add_plan(table, name, plan);
    else
        printf("FAIL %s: no plan\n", c.path);
    return check(plan != NULL);
}

/* test_nvrtc [MODEL]: one model's kernels, compared with nothing. */
int main(int argc, char **argv)
{
    const char *variable = getenv("SEG_BLESS");
    bool bless = variable && *variable, all = getenv("SEG_NVRTC_ALL");
    Nvrtc nvrtc;
    Memory memory;
    Error error = {0};
    test_occupancy();
    test_log();
    if (!nvrtc_open(&nvrtc, 90, INT32_MAX, &error)) {
        printf("skipped: %s\n%d passed, %d failed, 1 skipped\n", error.text, passed, failed);
        return failed != 0;
    }
    KernelTable table = {.arena = arena_open()};
    set_architectures(&table, &nvrtc);
    printf("%s (%s)\n", table.toolkit, nvrtc.path);
    open_memory(&memory);
    Building building = {.nvrtc = &nvrtc, .table = &table, .memory = &memory};
    bool complete = true;
    for (int i = 0; i < N_MODELS; i++)
        complete = (argc < 2 || strcmp(argv[1], models[i]) == 0) && add_model(&table, models[i])
                && complete;
    build_all(&building, all);
    if (complete)
        compare_table(&table, bless);
    else
        table_print(&table, NULL, stdout);
    close_memory(&memory);
    arena_close(table.arena);
    nvrtc_close(&nvrtc);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
