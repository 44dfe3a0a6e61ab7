/* See kernel_table.h. */
#include "kernel_table.h"

#include <stdlib.h>
#include <string.h>

#include "kernel_files.h"
#include "occupancy.h"

enum {
    LINE = 100,                /* columns */
    CELLS = 52,                /* where a row's numbers for the first architecture begin */
    CELL = 16,                 /* columns of each */
    BATCH = 16,                /* samples that share what is done once in a step */
};

static const char *const program_names[TABLE_PROGRAMS] = {"train", "evaluate", "predict"};

/* An array with room for one more; it has room for a power of two. */
static void *append(Arena *arena, void *array, int *n, size_t size)
{
    size_t count = (size_t)(*n)++;
    if (count & (count - 1))
        return array;
    return arena_grow(arena, array, count * size, (count ? 2 * count : 1) * size);
}

/* ---- what a kernel is called ------------------------------------------------------------------ */

/* Its name without the hash behind it. */
static const char *stem_name(Arena *arena, const char *kernel)
{
    const char *hash = strrchr(kernel, '_');
    return arena_printf(arena, "%.*s", hash ? (int)(hash - kernel) : (int)strlen(kernel), kernel);
}

/* "conv_grad_weight" of "conv_grad_weight_dy_combine": the longest template that it begins with. */
static const char *template_name(Arena *arena, const char *stem)
{
    int best = 0;
    for (const KernelFile *file = kernel_files; file->name; file++) {
        if (strncmp(file->name, "cuda/", 5) != 0 || !strstr(file->name, ".cu"))
            continue;
        int length = (int)strlen(file->name) - 5 - 3;
        bool begins = strncmp(stem, file->name + 5, (size_t)length) == 0
                   && (stem[length] == '_' || stem[length] == 0);
        if (begins && length > best)
            best = length;
    }
    return arena_printf(arena, "%.*s", best, stem);
}

/* The values of the macros before a kernel's Arguments, and their names; THREADS apart. */
static void read_variant(Arena *arena, const char *body, const char **values, const char **names)
{
    const char *end = strstr(body, "struct Arguments"), *line = body;
    *values = *names = "";
    while (end && (line = strstr(line, "#define ")) && line < end) {
        char name[64] = "", value[64] = "";
        sscanf(line, "#define %63s%*[ ]%63[^\n]", name, value);
        line++;
        if (strcmp(name, "KERNEL") == 0 || strcmp(name, "THREADS") == 0)
            continue;
        const char *between = **names ? "/" : "";
        *values = arena_printf(arena, "%s%s%s", *values, between, *value ? value : name);
        *names = arena_printf(arena, "%s%s%s", *names, between, name);
    }
}

static void add_legend(KernelTable *table, const char *stem, const char *names)
{
    if (!*names)
        return;
    const char *legend = arena_printf(table->arena, "%s: %s", template_name(table->arena, stem),
                                      names);
    for (int i = 0; i < table->n_legends; i++)
        if (strcmp(table->legends[i], legend) == 0)
            return;
    table->legends = append(table->arena, table->legends, &table->n_legends,
                            sizeof *table->legends);
    table->legends[table->n_legends - 1] = legend;
}

/* ---- plans -> rows ------------------------------------------------------------------------------ */

static int stem_of(KernelTable *table, const char *target, const char *name)
{
    for (int i = 0; i < table->n_stems; i++)
        if (strcmp(table->stems[i].name, name) == 0
            && strcmp(table->stems[i].target, target) == 0)
            return i;
    table->stems = append(table->arena, table->stems, &table->n_stems, sizeof *table->stems);
    table->stems[table->n_stems - 1] = (TableStem){.target = target, .name = name};
    return table->n_stems - 1;
}

static int row_of(KernelTable *table, int stem, const char *variant, int threads)
{
    for (int i = 0; i < table->n_rows; i++) {
        const TableRow *row = &table->rows[i];
        if (row->stem == stem && row->threads == threads && strcmp(row->variant, variant) == 0)
            return i;
    }
    bool tuned = strncmp(table->stems[stem].name, "conv", 4) == 0;
    table->rows = append(table->arena, table->rows, &table->n_rows, sizeof *table->rows);
    table->rows[table->n_rows - 1] = (TableRow){stem, variant, threads, tuned, false};
    return table->n_rows - 1;
}

/* A kernel's name holds the hash of its text: those of equal names are one, in all plans. */
static TableText *text_of(KernelTable *table, const PlanTarget *target, const PlanLaunch *launch)
{
    const PlanKernel *kernel = &target->kernels[launch->kernel];
    const char *variant, *names;
    for (int i = 0; i < table->n_texts; i++) {
        TableText *text = &table->texts[i];
        if (strcmp(text->kernel->name, kernel->name) == 0
            && strcmp(text->target->name, target->name) == 0)
            return text;
    }
    const char *name = stem_name(table->arena, kernel->name);
    int stem = stem_of(table, target->name, name);
    read_variant(table->arena, kernel->body, &variant, &names);
    add_legend(table, name, names);
    table->texts = append(table->arena, table->texts, &table->n_texts, sizeof *table->texts);
    TableText *text = &table->texts[table->n_texts - 1];
    *text = (TableText){.target = target, .kernel = kernel,
                        .row = row_of(table, stem, variant, launch->threads)};
    return text;
}

static void add_step(KernelTable *table, const PlanTarget *target, const PlanStep *step, int model,
                     int program)
{
    for (int i = 0; i < step->n_launches; i++) {
        TableText *text = text_of(table, target, &step->launches[i]);
        if (text->shared_bytes < step->launches[i].shared_bytes)
            text->shared_bytes = step->launches[i].shared_bytes;
        if (i > 0)
            continue;
        TableRow *row = &table->rows[text->row];
        Work *work = &table->stems[row->stem].work[model][program];
        text->defaults |= 1u << (model * TABLE_PROGRAMS + program);
        row->is_default = true;
        work->steps++;
        work->flops += step->flops_per_sample + step->flops / BATCH;
        work->bytes += step->bytes_per_sample + step->bytes / BATCH;
    }
}

void table_add_plan(KernelTable *table, const char *model, const Plan *plan)
{
    table->models[table->n_models++] = model;
    for (int t = 0; t < plan->n_targets; t++) {
        const PlanTarget *target = &plan->targets[t];
        for (int p = 0; p < target->n_programs; p++) {
            const PlanProgram *program = &target->programs[p];
            for (int i = 0; i < program->n_steps; i++)
                add_step(table, target, &program->steps[i], table->n_models - 1, p);
        }
    }
}

/* ---- printing --------------------------------------------------------------------------------- */

/* "96.3 G" */
static void print_amount(double amount, char text[16])
{
    static const char units[] = " kMGT";
    int unit = 0;
    while (amount >= 999.5 && units[unit + 1]) {
        amount /= 1000;
        unit++;
    }
    snprintf(text, 16, "%.3g %.1s", amount, unit ? &units[unit] : "");
}

/* "unet train 12x 80.2 GFLOP 301 MB", for each model with steps: in training, else in another
 * program. */
static const char *work_text(const KernelTable *table, Work of[TABLE_MODELS][TABLE_PROGRAMS])
{
    static const int order[TABLE_PROGRAMS] = {PROGRAM_TRAIN, PROGRAM_PREDICT, PROGRAM_EVALUATE};
    const char *all = "";
    for (int m = 0; m < table->n_models; m++) {
        int k = 0;
        while (k < TABLE_PROGRAMS - 1 && !of[m][order[k]].steps)
            k++;
        const Work *work = &of[m][order[k]];
        if (!work->steps)
            continue;
        char flops[16], bytes[16];
        print_amount(work->flops, flops);
        print_amount(work->bytes, bytes);
        all = arena_printf(table->arena, "%s%s%s %s %dx %sFLOP %sB", all, *all ? ", " : "",
                           table->models[m], program_names[order[k]], work->steps, flops, bytes);
    }
    return all;
}

/* The numbers of one architecture; false where a text was not built for it. */
static bool print_cell(const KernelTable *table, int row, int architecture, FILE *out)
{
    const Architecture *of = &table->architectures[architecture];
    int registers = 0, spills = 0, stack = 0;
    Occupancy worst = {0};
    for (int i = 0; i < table->n_texts; i++) {
        const TableText *text = &table->texts[i];
        const KernelUse *use = &text->use[architecture];
        if (text->row != row)
            continue;
        if (!use->registers)
            return false;
        Occupancy here = occupancy_of(of->capability, table->rows[row].threads, use->registers,
                                      text->shared_bytes + use->shared_bytes);
        worst = !registers || here.blocks < worst.blocks ? here : worst;
        registers = use->registers > registers ? use->registers : registers;
        spills = use->spills > spills ? use->spills : spills;
        stack = use->stack > stack ? use->stack : stack;
    }
    char local[16] = "-";
    if (spills || stack)
        snprintf(local, sizeof local, spills ? "%d" : "(%d)", spills ? spills : stack);
    fprintf(out, "%4d%5s%3d%4d", registers, local, worst.blocks, worst.warps);
    return true;
}

/* The line behind `key` in the section of a target and a stem of a table; NULL: none. */
static const char *find_line(const char *text, const char *target, const char *stem,
                             const char *key)
{
    size_t target_length = strlen(target), stem_length = strlen(stem);
    bool in_target = false, in_stem = false;
    for (const char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
        if (strncmp(line, "== ", 3) == 0) {
            in_target = strncmp(line + 3, target, target_length) == 0;
            in_stem = false;
        } else if (*line != ' ' && *line != '\n') {
            in_stem = strncmp(line, stem, stem_length) == 0
                   && strchr(" \n", line[stem_length]) != NULL;
        } else if (in_target && in_stem && strncmp(line, key, strlen(key)) == 0) {
            return line;
        }
    }
    return NULL;
}

static void print_row(const KernelTable *table, int r, const char *committed, FILE *out)
{
    const TableRow *row = &table->rows[r];
    const TableStem *stem = &table->stems[row->stem];
    int64_t shared = 0;
    int n_texts = 0;
    for (int i = 0; i < table->n_texts; i++) {
        const TableText *text = &table->texts[i];
        if (text->row != r)
            continue;
        n_texts++;
        shared = text->shared_bytes > shared ? text->shared_bytes : shared;
    }
    const char *key = arena_printf(table->arena, " %-35s%c%4d ", row->variant,
                                   row->is_default ? '*' : ' ', row->threads);
    const char *front = arena_printf(table->arena, "%s%2d %6lld", key, n_texts, (long long)shared);
    const char *old = find_line(committed, stem->target, stem->name, key);
    size_t old_length = old ? strcspn(old, "\n") : 0;
    size_t at = (size_t)fprintf(out, "%-*s", CELLS, front);
    for (int a = 0; a < table->n_architectures; a++, at += CELL) {
        const char *before = old_length >= at + CELL ? old + at : NULL;
        bool open = before && before[CELL - 1] == '?';
        if (open || !print_cell(table, r, a, out))
            fprintf(out, "%*.*s", CELL, CELL, before ? before : "?");
    }
    fprintf(out, "\n");
}

static int compare_rows(const void *a, const void *b, void *context)
{
    const KernelTable *table = context;
    const TableRow *x = &table->rows[*(const int *)a], *y = &table->rows[*(const int *)b];
    const TableStem *p = &table->stems[x->stem], *q = &table->stems[y->stem];
    int order = strcmp(p->target, q->target);
    order = order ? order : strcmp(p->name, q->name);
    order = order ? order : strverscmp(x->variant, y->variant);
    return order ? order : x->threads - y->threads;
}

/* In as many lines as it needs, broken behind a '/'. */
static void print_legend(const char *legend, FILE *out)
{
    int column = fprintf(out, "  ");
    while (*legend) {
        int length = (int)strcspn(legend, "/");
        length += legend[length] != 0;
        if (column + length > LINE)
            column = fprintf(out, "\n      ") - 1;
        column += fprintf(out, "%.*s", length, legend);
        legend += length;
    }
    fprintf(out, "\n");
}

static void print_head(const KernelTable *table, FILE *out)
{
    fprintf(out, "%s; the work is a sample's, of a step with %d of them.\n",
            table->toolkit, BATCH);
    fprintf(out, "\nKernels: template_fused-into-it, and the work of the steps that run it.\n"
            "Rows: variant (* runs where nothing was tuned), threads, texts, dynamic shared bytes;\n"
            "for each architecture registers, bytes spilled (or only on the stack), blocks a multiprocessor\n"
            "and percent of its warps; ?: not built. Variants:\n");
    for (int i = 0; i < table->n_legends; i++)
        print_legend(table->legends[i], out);
}

static void print_target(const KernelTable *table, const char *target, FILE *out)
{
    Work all[TABLE_MODELS][TABLE_PROGRAMS] = {0};
    for (int i = 0; i < table->n_stems; i++) {
        const TableStem *stem = &table->stems[i];
        if (strcmp(stem->target, target) != 0)
            continue;
        for (int m = 0; m < table->n_models; m++)
            for (int p = 0; p < TABLE_PROGRAMS; p++) {
                all[m][p].steps += stem->work[m][p].steps;
                all[m][p].flops += stem->work[m][p].flops;
                all[m][p].bytes += stem->work[m][p].bytes;
            }
    }
    fprintf(out, "\n== %s: %s\n%*s", target, work_text(table, all), CELLS, "");
    for (int a = 0; a < table->n_architectures; a++)
        fprintf(out, "%9s bl   %%", table->architectures[a].name);
    fprintf(out, "\n");
}

void table_print(const KernelTable *table, const char *committed, FILE *out)
{
    int *order = arena_alloc(table->arena, ((size_t)table->n_rows + 1) * sizeof *order);
    for (int i = 0; i < table->n_rows; i++)
        order[i] = i;
    qsort_r(order, (size_t)table->n_rows, sizeof *order, compare_rows, (void *)table);
    print_head(table, out);
    int last = -1;
    const char *target = "";
    for (int i = 0; i < table->n_rows; i++) {
        const TableRow *row = &table->rows[order[i]];
        TableStem *stem = &table->stems[row->stem];
        if (strcmp(stem->target, target) != 0)
            print_target(table, target = stem->target, out);
        if (row->stem != last) {
            const char *work = work_text(table, stem->work);
            bool fits = strlen(stem->name) + strlen(work) + 2 <= LINE;
            fprintf(out, fits ? "%s  %s\n" : "%s\n    %s\n", stem->name, work);
        }
        last = row->stem;
        print_row(table, order[i], committed, out);
    }
}

/* ---- reading the assembler's words ------------------------------------------------------------- */

/* "ptxas info    : Used 40 registers, used 1 barriers, 512 bytes smem, 400 bytes cmem[0]" and
 * "16 bytes stack frame, 12 bytes spill stores, 12 bytes spill loads", for each function. */
bool parse_kernel_use(const char *log, KernelUse *use)
{
    *use = (KernelUse){0};
    for (const char *line = log; *line; line += strcspn(line, "\n"), line += *line != 0) {
        int stack, stores, loads, registers;
        const char *number = line + strcspn(line, "0123456789\n"), *end = strchr(line, '\n');
        const char *used = strstr(line, "Used "), *shared = strstr(line, " bytes smem");
        if (sscanf(number, "%d bytes stack frame, %d bytes spill stores, %d bytes spill loads",
                   &stack, &stores, &loads) == 3) {
            use->stack += stack;
            use->spills += stores + loads;
        }
        if (!used || (end && used > end) || sscanf(used, "Used %d registers", &registers) != 1)
            continue;
        use->registers = registers;
        if (!shared || (end && shared > end))
            continue;
        while (shared[-1] >= '0' && shared[-1] <= '9')
            shared--;
        use->shared_bytes = atoi(shared);
    }
    return use->registers > 0;
}
