/* Files: reads a model's text and the texts it uses, each once, and has grammar/seg.y parse them.
 *
 * `use "blocks.seg"` is looked for beside the file that says it, then in the folders of -I in their
 * order. Files are told apart by their real path, so one file by two names is one tree, and a file
 * that uses itself over others is an error.
 */
#include "seg.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_BYTES = 1 << 20, MAX_FILES = 200 };

typedef enum { READ_FINE, READ_MISSING, READ_FAILED } ReadResult;

/* Reads the file, reporting all but its absence. */
static ReadResult read_text(Compilation *c, const char *path, SourceFile *file)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return errno == ENOENT || errno == ENOTDIR ? READ_MISSING : READ_FAILED;
    if (!S_ISREG(status.st_mode)) {
        errno = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
        return READ_FAILED;
    }
    errno = EFBIG;
    if (status.st_size > MAX_BYTES)
        return READ_FAILED;
    FILE *in = fopen(path, "rb");
    if (!in)
        return READ_FAILED;
    size_t size = (size_t)status.st_size;
    char *text = arena_alloc(c->arena, size + 1);
    file->length = fread(text, 1, size, in);
    bool failed = ferror(in);
    fclose(in);
    file->text = text;
    file->name = path;
    return failed ? READ_FAILED : READ_FINE;
}

/* path beside the file that uses it. */
static const char *beside(Compilation *c, const char *user, const char *path)
{
    const char *slash = strrchr(user, '/');
    if (path[0] == '/' || !slash)
        return path;
    return arena_printf(c->arena, "%.*s/%s", (int)(slash - user), user, path);
}

static void cannot_read(Compilation *c, const char *path)
{
    error_system(c, "give a readable text file of at most 1 MiB", "cannot read '%s': %s", path,
                 strerror(errno));
}

bool read_source(Compilation *c, const char *path, SourceFile *file)
{
    ReadResult result = read_text(c, path, file);
    if (result != READ_FINE)
        cannot_read(c, path);
    return result == READ_FINE;
}

Tree *parse_alone(Compilation *c, const SourceFile *file)
{
    Tree *tree = arena_alloc(c->arena, sizeof *tree);
    *tree = (Tree){.file = file, .identity = file->name};
    return parse_text(c, tree) ? tree : NULL;
}

static Tree *known_tree(const Compilation *c, const char *identity)
{
    for (Tree *tree = c->trees; tree; tree = tree->next)
        if (!strcmp(tree->identity, identity))
            return tree;
    return NULL;
}

static Tree *read_uses(Compilation *c, Tree *tree);

/* The tree of the file at path; NULL where there is no such file. Errors are marked in the tree. */
static Tree *open_tree(Compilation *c, const char *path, Loc used_at)
{
    char real[PATH_MAX];
    const char *identity = realpath(path, real) ? real : path;
    Tree *known = known_tree(c, identity);
    if (known && known->open) {
        error_at(c, used_at, "'%s' uses itself", known->file->name);
        return known;
    }
    if (known)
        return known;

    int count = 0;
    Tree **end = &c->trees;
    for (; *end; end = &(*end)->next)
        count++;
    SourceFile *file = arena_alloc(c->arena, sizeof *file);
    Tree *tree = arena_alloc(c->arena, sizeof *tree);
    ReadResult result = read_text(c, path, file);
    if (result == READ_MISSING)
        return NULL;
    if (result == READ_FAILED && used_at.file)
        error_at(c, used_at, "cannot read '%s': %s", path, strerror(errno));
    else if (result == READ_FAILED)
        cannot_read(c, path);
    else if (count >= MAX_FILES)
        error_at(c, used_at, "a model uses more than %d files", MAX_FILES);
    *tree = (Tree){.file = file, .identity = arena_printf(c->arena, "%s", identity), .open = true,
                   .broken = result == READ_FAILED || count >= MAX_FILES};
    *end = tree;
    if (tree->broken)
        return tree;
    if (!c->source)
        c->source = file;
    tree->broken = !parse_text(c, tree);
    return read_uses(c, tree);
}

/* Opens the files that a tree uses; all errors are reported before the pass ends. */
static Tree *read_uses(Compilation *c, Tree *tree)
{
    for (Use *use = tree->uses; use; use = use->next) {
        const char *name = use->path;
        use->tree = open_tree(c, beside(c, tree->file->name, name), use->loc);
        for (int i = 0; i < c->n_include_dirs && !use->tree && name[0] != '/'; i++)
            use->tree = open_tree(c, arena_printf(c->arena, "%s/%s", c->include_dirs[i], name),
                                  use->loc);
        if (!use->tree)
            error_at(c, use->loc, "no file '%s' beside '%s'%s", name, tree->file->name,
                     c->n_include_dirs ? " or in the folders of -I" : "; -I names other folders");
        if (!use->tree || use->tree->broken)
            tree->broken = true;
    }
    tree->open = false;
    return tree;
}

Tree *parse(Compilation *c, const char *path, Loc used_at)
{
    int errors = c->errors;
    Tree *tree = open_tree(c, path, used_at);
    if (!tree)
        error_at(c, (Loc){0}, "no file '%s'", path);
    return tree && !tree->broken && c->errors == errors ? tree : NULL;
}
