/* A stand-in for libnvrtc.so.13. A "cubin" is the text with a line in front. A text that holds the
 * word STUB_ERROR does not compile.
 *
 *   STUB_NVRTC=12040   its version: CUDA 12.4 (default 13000), which says what it builds for
 */
#include "stub.h"

#include "runtime/device_cuda_api.h"

struct _nvrtcProgram { char *text, *name, *log, *cubin; };

#define PROTOTYPE(name, parameters) nvrtcResult name parameters;
NVRTC_FUNCTIONS(PROTOTYPE)

static int version(void) { return (int)stub_number("STUB_NVRTC", 13000); }

/* Source: the release notes of the toolkits. */
static const int known[] = { 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 120 };
enum { N_KNOWN = sizeof known / sizeof *known };

static int first_known(void) { return version() >= 13000 ? 8 : 0; }
static int end_known(void) { return version() >= 12080 ? N_KNOWN : N_KNOWN - 2; }

nvrtcResult nvrtcVersion(int *major, int *minor)
{
    *major = version() / 1000;
    *minor = version() % 1000 / 10;
    return stub_failure(__func__);
}

nvrtcResult nvrtcGetNumSupportedArchs(int *count)
{
    *count = end_known() - first_known();
    return stub_failure(__func__);
}

nvrtcResult nvrtcGetSupportedArchs(int *archs)
{
    memcpy(archs, known + first_known(), (size_t)(end_known() - first_known()) * sizeof *archs);
    return stub_failure(__func__);
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *text, const char *name,
                               int n_headers, const char *const *headers,
                               const char *const *include_names)
{
    (void)headers;
    (void)include_names;
    int failure = stub_failure(__func__);
    if (failure || n_headers)
        return failure;
    *program = calloc(1, sizeof **program);
    **program = (struct _nvrtcProgram){ strdup(text), strdup(name), strdup(""), NULL };
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program)
{
    free((*program)->text);
    free((*program)->name);
    free((*program)->log);
    free((*program)->cubin);
    free(*program);
    *program = NULL;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int n_options, const char *const *options)
{
    char all[256] = "";
    for (int i = 0; i < n_options; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), " %s", options[i]);
    stub_log("nvrtcCompileProgram %s%s", program->name, all);
    int failure = stub_failure(__func__);
    if (failure)
        return failure;
    const char *wrong = strstr(program->text, "STUB_ERROR");
    if (wrong) {
        int line = 1;
        for (const char *at = program->text; at < wrong; at++)
            line += *at == '\n';
        free(program->log);
        if (asprintf(&program->log,
                     "%s(%d): error: identifier \"STUB_ERROR\" is undefined\n\n1 error detected in "
                     "the compilation of \"%s\".\n",
                     program->name, line, program->name) < 0)
            abort();
        return NVRTC_ERROR_COMPILATION;
    }
    if (asprintf(&program->cubin, "STUB CUBIN%s\n%s", all, program->text) < 0)
        abort();
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes)
{
    *bytes = program->cubin ? strlen(program->cubin) + 1 : 0;
    return stub_failure(__func__);
}

nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *cubin)
{
    strcpy(cubin, program->cubin);
    return stub_failure(__func__);
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes)
{
    *bytes = strlen(program->log) + 1;
    return stub_failure(__func__);
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log)
{
    strcpy(log, program->log);
    return stub_failure(__func__);
}
