/* Initial values, safetensors files, weights by name; and the writing of files that they rest on.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/run.h"

static int passed, failed;
static char folder[] = "/tmp/test-params-XXXXXX";

static void check(bool right, const char *format, ...)
{
    va_list arguments;
    passed += right;
    failed += !right;
    if (right)
        return;
    va_start(arguments, format);
    printf("FAIL ");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

/* ---- a model --------------------------------------------------------------------------------- */

enum { WEIGHTS = 6000 };
static PlanParameter parameters[] = {
    { (char *)"a.weight", 4, { 20, 3, 10, 10 }, true, PLAN_INIT_UNIFORM, 0.25, 0, NULL },
    { (char *)"a.bias", 1, { 3 }, true, PLAN_INIT_CONSTANT, -2, 24000, NULL },
    { (char *)"n.running_var", 1, { 3 }, false, PLAN_INIT_CONSTANT, 1, 24064, NULL },
};
static const Plan plan = { .model = (char *)"tiny",
                           .parameter_bytes = 24128,
                           .trainable_bytes = 24064,
                           .n_parameters = 3,
                           .parameters = parameters };

static void test_initial_values(void)
{
    float *first = malloc(24128), *second = malloc(24128), *third = malloc(24128);
    memset(second, 0xff, 24128);
    params_initialise(&plan, 7, first);
    params_initialise(&plan, 7, second);
    params_initialise(&plan, 8, third);
    check(memcmp(first, second, 24128) == 0, "the same seed gives other values");
    check(memcmp(first, third, 24000) != 0, "another seed gives the same values");
    double sum = 0, squares = 0, least = 1, most = -1;
    for (int i = 0; i < WEIGHTS; i++) {
        sum += first[i];
        squares += (double)first[i] * first[i];
        least = fmin(least, first[i]);
        most = fmax(most, first[i]);
    }
    check(least >= -0.25 && most < 0.25 && least < -0.249 && most > 0.249, "range %g to %g", least,
          most);
    check(fabs(sum / WEIGHTS) < 0.006, "mean %g", sum / WEIGHTS);
    check(fabs(squares / WEIGHTS - 0.0625 / 3) < 0.001, "variance %g", squares / WEIGHTS);
    check(first[6000] == -2 && first[6002] == -2 && first[6003] == 0 && first[6016] == 1,
          "constants");
    free(first);
    free(second);
    free(third);
}

/* ---- safetensors: round trip ----------------------------------------------------------------- */

static const float floats[6] = { 1, -2, 3.5f, 0, 1e-30f, -1e30f };
static const uint8_t bytes_of_u8[3] = { 1, 2, 255 };

static SafeTensors sample(void)
{
    static SafeTensor tensors[] = {
        { .name = (char *)"z.weight",
          .type = PLAN_F32,
          .rank = 2,
          .dims = { 2, 3 },
          .data = floats,
          .bytes = 24 },
        { .name = (char *)"a.mask",
          .type = PLAN_U8,
          .rank = 1,
          .dims = { 3 },
          .data = bytes_of_u8,
          .bytes = 3 },
        { .name = (char *)"m\xc3\xa4\"\\",
          .type = PLAN_F32,
          .rank = 0,
          .data = floats,
          .bytes = 4 },
        { .name = (char *)"empty",
          .type = PLAN_F32,
          .rank = 2,
          .dims = { 0, 4 },
          .data = floats,
          .bytes = 0 },
    };
    static char *keys[] = { (char *)"curves", (char *)"path" };
    static char *values[] = { (char *)"1 2\n\t\"3\" \\ \x01", (char *)"caf\xc3\xa9 \xff" };
    return (SafeTensors){
        .n_tensors = 4, .tensors = tensors, .n_metadata = 2, .keys = keys, .values = values
    };
}

static void test_round_trip(const char *path)
{
    Error error = { 0 };
    SafeTensors file = sample();
    check(safetensors_write(path, &file, &error), "writing: %s", error.text);
    SafeTensors *back = safetensors_open(path, &error);
    check(back != NULL, "reading: %s", error.text);
    if (!back)
        return;
    check(back->n_tensors == 4 && strcmp(back->tensors[0].name, "a.mask") == 0
          && strcmp(back->tensors[3].name, "z.weight") == 0, "names are not sorted");
    const SafeTensor *tensor = safetensors_find(back, "z.weight");
    check(tensor && tensor->rank == 2 && tensor->dims[1] == 3 && tensor->bytes == 24
          && memcmp(tensor->data, floats, 24) == 0 && (uintptr_t)tensor->data % 4 == 0, "z.weight");
    tensor = safetensors_find(back, "a.mask");
    check(tensor && tensor->type == PLAN_U8 && memcmp(tensor->data, bytes_of_u8, 3) == 0, "a.mask");
    tensor = safetensors_find(back, "m\xc3\xa4\"\\");
    check(tensor && tensor->rank == 0 && tensor->bytes == 4, "a scalar with an odd name");
    tensor = safetensors_find(back, "empty");
    check(tensor && tensor->bytes == 0 && tensor->dims[0] == 0, "an empty tensor");
    check(!safetensors_find(back, "b"), "finds what is not there");
    check(back->n_metadata == 2 && strcmp(back->values[0], file.values[0]) == 0
          && strcmp(back->values[1], "caf\xc3\xa9 ?") == 0, "metadata");
    safetensors_close(back);
}

/* ---- safetensors: damage --------------------------------------------------------------------- */

static SafeTensors *parse(const void *bytes, size_t size, Error *error)
{
    *error = (Error){ 0 };
    char *copy =
        malloc(size ? size : 1); /* exactly as long: AddressSanitizer sees reads behind it */
    memcpy(copy, bytes, size);
    return safetensors_parse(copy, size, "w.safetensors", error);
}

static void test_damage(const char *path)
{
    Error error;
    size_t size;
    unsigned char *bytes = (unsigned char *)file_read(path, &size, &error);
    int wrong = 0, header = (int)(8 + bytes[0] + 256 * bytes[1]);
    for (size_t length = 0; length < size; length++) {
        SafeTensors *file = parse(bytes, length, &error);
        wrong += file || error.code != EXIT_USER || !strstr(error.text, "w.safetensors");
        safetensors_close(file);
    }
    check(wrong == 0, "%d of %zu truncations are accepted", wrong, size);
    /* A letter of a name or a byte of the data cannot be told from another; structure can. */
    wrong = 0;
    for (size_t i = 0; i < size; i++)
        for (int value = 0; value < 256; value++) {
            unsigned char before = bytes[i];
            bytes[i] = (unsigned char)value;
            SafeTensors *file = parse(bytes, size, &error);
            bool must_fail = value != before && ((int)i < 8 || ((int)i < header && value < ' '
                             && !(before == ' ' && strchr("\t\n\r", value) && value)));
            wrong += (file && must_fail) || (!file && ((int)i >= header || !error.text[0]));
            safetensors_close(file);
            bytes[i] = before;
        }
    check(wrong == 0, "%d changed bytes were not handled", wrong);
    free(bytes);
}

static void expect(const char *header, size_t data, const char *want)
{
    char bytes[2048] = { 0 };
    Error error;
    size_t length = strlen(header);
    bytes[0] = (char)(length & 255);
    bytes[1] = (char)(length >> 8);
    memcpy(bytes + 8, header, length);
    SafeTensors *file = parse(bytes, 8 + length + data, &error);
    check(want ? !file && strstr(error.text, want) : file != NULL, "%.60s: got '%s', want '%s'",
          header, file ? "" : error.text, want ? want : "");
    safetensors_close(file);
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define B(begin, end)                                                                              \
    "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[" #begin "," #end "]}"

static void test_headers(void)
{
    expect("{}", 0, NULL);
    expect("{" A "," B(8, 12) "}", 12, NULL);
    expect("{" B(8, 12) "," A "}   ", 12, NULL);
    expect("{\"__metadata__\":{}," A "}", 8, NULL);
    expect("{\"\\u00e9\\ud83d\\ude00\":{\"shape\":[],\"data_offsets\":[0,1],\"dtype\":\"U8\"}}", 1,
           NULL);
    expect("", 0, "'{' expected");
    expect("[]", 0, "'{' expected");
    expect(" {}", 0, "'{' expected");
    expect("{} x", 0, "behind the header");
    expect("{" A "," A "}", 8, "overlap");
    expect("{" A ",\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}", 12,
           "are named 'a'");
    expect("{" A "," B(4, 8) "}", 8, "overlap");
    expect("{" A "," B(12, 16) "}", 16, "hole");
    expect("{" A "}", 9, "belong to no tensor");
    expect("{" A "}", 7, "outside the file");
    expect("{" A "," B(8, 13) "}", 13, "not what its shape");
    expect("{" A "," B(12, 8) "}", 12, "outside");
    expect("{" A ",}", 8, "'\"' expected");
    expect("{" A, 8, "'}' expected");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "lacks");
    expect("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
           "unexpected key 'dtype'");
    expect("{\"a\":{\"dtype\":\"F99\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
           "unknown type 'F99'");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8,
           "a number from 0");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[02],\"data_offsets\":[0,8]}}", 8,
           "a number from 0");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "']' expected");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}",
           8, "not what its shape");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", 8,
           "too large");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
           "more than 8");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]}}", 8,
           "a number from 0");
    expect("{\"a\\q\":{}}", 0, "wrong character or escape");
    expect("{\"a\\u0000\":{}}", 0, "wrong character or escape");
    expect("{\"a\\ud800\":{}}", 0, "wrong character or escape");
    expect("{\"a\n\":{}}", 0, "wrong character or escape");
    expect("{\"a\xff\":{}}", 0, "wrong character or escape");
    expect("{\"a\\u000a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
           "control character");
    expect("{\"__metadata__\":{\"k\":1}}", 0, "'\"' expected");
    expect("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "'k' twice");
    expect("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "stands there twice");
}

/* ---- weights by name ------------------------------------------------------------------------- */

static void test_elements(void)
{
    static const uint16_t halves[] = { 0x3c00, 0xc000, 0x0001, 0x7c00, 0x8000, 0x7bff };
    static const uint16_t brains[] = { 0x3f80, 0xc000, 0x7f80 };
    float out[6];
    SafeTensor tensor = { .dtype = "F16", .data = halves, .bytes = sizeof halves };
    check(safetensor_floats(&tensor, out) && out[0] == 1 && out[1] == -2 && out[2] == 0x1p-24f
          && isinf(out[3]) && out[4] == 0 && signbit(out[4]) && out[5] == 65504, "F16");
    tensor = (SafeTensor){ .dtype = "BF16", .data = brains, .bytes = sizeof brains };
    check(safetensor_floats(&tensor, out) && out[0] == 1 && out[1] == -2 && isinf(out[2]), "BF16");
    tensor = (SafeTensor){ .dtype = "I64", .data = halves, .bytes = 8 };
    check(!safetensor_floats(&tensor, out), "I64 as floats");
}

static void test_load(void)
{
    float *data = calloc(1, 24128), *slab = calloc(1, 24128);
    int64_t count = 1;
    Error error = { 0 };
    for (int i = 0; i < WEIGHTS; i++)
        data[i] = (float)i;
    SafeTensor tensors[] = {
        /* sorted by name, as a file's are */
        { .name = (char *)"a.bias", .rank = 1, .dims = { 3 }, .data = data + 1, .bytes = 12 },
        { .name = (char *)"a.weight",
          .rank = 4,
          .dims = { 20, 3, 10, 10 },
          .data = data,
          .bytes = 24000 },
        { .name = (char *)"n.num_batches_tracked",
          .type = PLAN_U8,
          .dtype = "I64",
          .data = &count,
          .bytes = 8 },
        { .name = (char *)"n.running_var",
          .rank = 1,
          .dims = { 3 },
          .data = data + 5,
          .bytes = 12 },
        { .name = (char *)"optimizer.exp_avg.a.bias",
          .rank = 1,
          .dims = { 3 },
          .data = data,
          .bytes = 12 },
    };
    SafeTensors file = { .n_tensors = 5, .tensors = tensors, .path = "w.safetensors" };
    check(params_load(&plan, &file, slab, true, &error), "loading: %s", error.text);
    check(slab[5999] == 5999 && slab[6000] == 1 && slab[6016] == 5, "loaded values");
    memset(slab, 0, 24128);
    tensors[1].dims[3] = 11;
    tensors[3].name = (char *)"n.running_xyz";
    check(
        !params_load(&plan, &file, slab, true, &error) && strstr(error.text, "w.safetensors")
            && strstr(error.text, "1 of another shape: a.weight is [20,3,10,11], not [20,3,10,10]")
            && strstr(error.text, "1 missing: n.running_var")
            && strstr(error.text, "1 unexpected: n.running_xyz") && error.hint[0],
        "differences: %s", error.text);
    check(slab[6000] == 0, "a load that failed changed something");
    check(params_load(&plan, &file, slab, false, &error) && slab[6000] == 1 && slab[0] == 0
          && strstr(error.text, "left out"), "lenient loading: %s", error.text);
    free(data);
    free(slab);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void test_full_disk(const char *path)
{
    Error error = { 0 };
    char text[64] = "", *large = calloc(1, 1 << 20);
    struct rlimit before, small = { 4096, RLIM_INFINITY };
    check(file_write(path, "old", 3, &error), "writing: %s", error.text);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    bool written = file_write(path, large, 1 << 20, &error);
    setrlimit(RLIMIT_FSIZE, &before);
    check(!written && error.code == EXIT_ENVIRONMENT && strstr(error.text, path) && error.hint[0],
          "a file too large: %s", error.text);
    size_t size;
    char *back = file_read(path, &size, &error);
    snprintf(text, sizeof text, "%.10s", back ? back : "");
    check(strcmp(text, "old") == 0, "the old file is lost");
    free(back);
    check(!file_write("/dev/full", large, 1 << 20, &error) && strstr(error.hint, "full"),
          "/dev/full: %s", error.text);
    check(file_write("/dev/null", large, 1 << 20, &error), "/dev/null: %s", error.text);
    free(large);
}

static void test_links_and_folders(const char *path)
{
    char link[128], deep[128], file[160];
    struct stat facts;
    Error error = { 0 };
    snprintf(link, sizeof link, "%s/link", folder);
    snprintf(deep, sizeof deep, "%s/a/b//c/", folder);
    snprintf(file, sizeof file, "%s/d", path);
    check(symlink(path, link) == 0 && file_write(link, "new", 3, &error) && lstat(link, &facts) == 0
              && S_ISLNK(facts.st_mode) && stat(path, &facts) == 0 && facts.st_size == 3,
          "a link is replaced");
    check(folder_make(deep, &error) && folder_make(deep, &error) && stat(deep, &facts) == 0,
          "folders: %s", error.text);
    check(!folder_make(file, &error) && error.code == EXIT_ENVIRONMENT, "a folder in a file");
    unlink(link);
    snprintf(deep, sizeof deep, "%s/a/b/c", folder);
    for (int i = 0; i < 3; i++) {
        check(rmdir(deep) == 0, "removing %s", deep);
        *strrchr(deep, '/') = 0;
    }
}

int main(void)
{
    char path[64];
    if (!mkdtemp(folder))
        return 3;
    snprintf(path, sizeof path, "%s/w.safetensors", folder);
    test_initial_values();
    test_round_trip(path);
    test_damage(path);
    test_headers();
    test_elements();
    test_load();
    test_full_disk(path);
    test_links_and_folders(path);
    unlink(path);
    check(rmdir(folder) == 0, "something was left in %s", folder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
