/* benchtable HOST.json [PEERS.json]: the table of `make bench`, for a terminal and for docs/.
 *
 * HOST.json is bench/host.sh's: each of its runs is what `segrun bench --compare --json` wrote.
 * PEERS.json is bench/peers/run.sh's; a peer's ratio is taken there, pair by pair from turns in which
 * our program ran as well, because times of different minutes say little. The fastest peer of a
 * program and batch is shown.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
    const char *found = json_string_value(json_object_get(object, key));
    return found ? found : "";
}

/* ---- peers ----------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of their seconds over ours, turn by turn; 0: none. */
static double ratio_of(const json_t *peer, const json_t *ours)
{
    const json_t *theirs = json_object_get(peer, "seconds");
    const json_t *mine = json_object_get(ours, "seconds");
    size_t n = json_array_size(theirs) < json_array_size(mine) ? json_array_size(theirs)
                                                               : json_array_size(mine);
    double *ratios = calloc(n + 1, sizeof *ratios), median = 0;
    size_t kept = 0;
    for (size_t i = 0; ratios && i < n; i++) {
        double a = json_number_value(json_array_get(theirs, i));
        double b = json_number_value(json_array_get(mine, i));
        if (a > 0 && b > 0)
            ratios[kept++] = a / b;
    }
    if (kept > 0) {
        qsort(ratios, kept, sizeof *ratios, by_value);
        median = kept % 2 ? ratios[kept / 2] : (ratios[kept / 2 - 1] + ratios[kept / 2]) / 2;
    }
    free(ratios);
    return median;
}

static bool is_same(const json_t *row, const json_t *run)
{
    return strcmp(text(row, "network"), text(run, "model")) == 0
        && strcmp(text(row, "program"), text(run, "program")) == 0
        && strcmp(text(row, "precision"), "fp32") == 0
        && number(row, "batch") == number(run, "batch");
}

static void print_peer(const json_t *peers, const json_t *run)
{
    const json_t *rows = json_object_get(peers, "rows"), *ours = NULL, *row, *best = NULL;
    double least = 0;
    size_t i;
    json_array_foreach((json_t *)rows, i, row)
        if (is_same(row, run) && strcmp(text(row, "who"), "ours") == 0)
            ours = row;
    json_array_foreach((json_t *)rows, i, row) {
        double ratio = ours && row != ours && is_same(row, run) ? ratio_of(row, ours) : 0;
        if (ratio > 0 && strncmp(text(row, "who"), "ours", 4) != 0 && (!best || ratio < least)) {
            best = row;
            least = ratio;
        }
    }
    if (best)
        printf(" %.2f %s |", least, text(best, "who"));
    else
        printf(" |");
}

/* ---- the table ------------------------------------------------------------------------------- */

/* What the other plan was compiled without: "all", "sums". */
static void print_without(const json_t *plan)
{
    static const char option[] = "--no-fuse";
    const char *at = strstr(text(plan, "options"), option);
    at = at ? at + strlen(option) : "";
    printf(" %.*s |", *at == '=' ? (int)strcspn(at + 1, " ") : 3, *at == '=' ? at + 1 : "all");
}

static void print_run(const json_t *run, const json_t *peers)
{
    const json_t *plans = json_object_get(run, "plans"), *ceilings = json_object_get(run, "ceilings");
    const json_t *fused = json_array_get(plans, 0), *other = json_array_get(plans, 1);
    const json_t *ratio = json_object_get(other, "ratio");
    double seconds = number(json_object_get(fused, "seconds"), "median");
    double least = 0, most = 0;
    for (size_t i = 0; i < json_array_size(ceilings); i++) {
        double flops = 1e-9 * number(json_array_get(ceilings, i), "flops_per_second");
        least = i == 0 || flops < least ? flops : least;
        most = flops > most ? flops : most;
    }
    printf("| %s %s %.0f |", text(run, "model"), text(run, "program"), number(run, "batch"));
    print_without(other);
    printf(" %.1f | %.1f | %.2f (%.2f-%.2f) |", 1e3 * seconds,
           1e3 * number(json_object_get(other, "seconds"), "median"), number(ratio, "median"),
           number(ratio, "quartile1"), number(ratio, "quartile3"));
    printf(" %.2f / %.2f | %.0f | %.0f-%.0f |", 1e-9 * number(fused, "bytes"),
           1e-9 * number(other, "bytes"), 1e-9 * number(fused, "flops") / seconds, least, most);
    if (peers)
        print_peer(peers, run);
    putchar('\n');
}

static json_t *load(const char *path)
{
    json_error_t where;
    json_t *json = json_load_file(path, 0, &where);
    if (!json)
        fprintf(stderr, "benchtable: error: %s:%d: %s\n", path, where.line, where.text);
    return json;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3)
        return fprintf(stderr, "usage: benchtable HOST.json [PEERS.json]\n"), 2;
    json_t *host = load(argv[1]), *peers = argc > 2 ? load(argv[2]) : NULL, *run;
    size_t i;
    if (!host || (argc > 2 && !peers))
        return 1;
    printf("%s, %.0f processors, %s, commit %s\n\n", text(host, "cpu"), number(host, "processors"),
           text(host, "date"), text(host, "commit"));
    printf("| network, program, batch | off | fused, ms | off, ms | ratio | GB | GFLOP/s | peak |%s\n"
           "|---|---|---|---|---|---|---|---|%s\n", peers ? " peer |" : "", peers ? "---|" : "");
    json_array_foreach(json_object_get(host, "runs"), i, run)
        print_run(run, peers);
    printf("\noff: the fusions that the other plan lacks; ratio: its time over the fused plan's, runs "
           "in turn\n(middle half); GB: of both, by definition; GFLOP/s: the fused plan's, by "
           "definition; peak: of\nmultiply-adds, least and most in the same minute");
    puts(peers ? "; peer: the fastest, its time over ours in its own turns" : "");
    json_decref(host);
    json_decref(peers);
    return 0;
}
