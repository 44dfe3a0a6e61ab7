/* libsegrun: a trained network inside another program. C and C++; needs nothing but libc.
 *
 *     char why[SEG_MESSAGE];
 *     SegNetwork *net = seg_open("unet.plan", "unet.best.safetensors", NULL, why);
 *     if (!net) { fputs(why, stderr); exit(1); }
 *     const void *inputs[] = { image };          // uint8_t [1][3][256][256]
 *     void *outputs[] = { probability };         // float [1][1][256][256]
 *     if (!seg_run(net, 1, inputs, outputs)) fputs(seg_message(net), stderr);
 *     seg_close(net);
 *
 * A plan holds C that is built by this machine's compiler and then runs as you: the first seg_open
 * of a plan takes seconds, later ones find the kernels in the cache ($SEG_CACHE, else
 * ~/.cache/seg). One network is used by one thread at a time; several networks may be open.
 */
#ifndef SEGRUN_H
#define SEGRUN_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SEG_MESSAGE = 1600 };       /* bytes of a message, with its hint */

typedef struct SegNetwork SegNetwork;

/* Zeros are the defaults. */
typedef struct {
    const char *device;            /* auto (default), cpu, cuda, cuda:N */
    const char *precision;         /* fp32, tf32, bf16; NULL: what plan and device have */
    int threads;                   /* of the cpu; 0: OMP_NUM_THREADS, else all */
    int max_batch;                 /* of seg_run; 0: 1 */
    bool trust;                    /* open plans that another user made */
} SegOptions;

typedef enum { SEG_FLOAT, SEG_BYTE } SegType;

/* What goes in or comes out: [batch][channels][height][width], or one number. */
typedef struct {
    const char *name;              /* as in the model: "image", "probability"; the network's */
    SegType type;                  /* float or uint8_t */
    int channels, height, width;
} SegTensor;

/* The plan, ready to predict with these weights (safetensors; a checkpoint of segrun or any file with
 * the model's names). NULL after an error, which is then in message. options may be NULL. */
SegNetwork *seg_open(const char *plan, const char *weights, const SegOptions *options,
                     char message[SEG_MESSAGE]);
void seg_close(SegNetwork *);      /* NULL is fine */

int seg_inputs(const SegNetwork *);                     /* how many there are */
int seg_outputs(const SegNetwork *);
SegTensor seg_input(const SegNetwork *, int index);     /* from 0, in the model's order */
SegTensor seg_output(const SegNetwork *, int index);
const char *seg_device(const SegNetwork *);             /* "cpu: 2 threads, AVX-512, ..." */

/* Runs `batch` samples: inputs[i] is read as seg_input(i) says, outputs[i] written. False after an
 * error: seg_message says which. */
bool seg_run(SegNetwork *, int batch, const void *const *inputs, void *const *outputs);
const char *seg_message(const SegNetwork *);            /* of the last error; "" before one */

#ifdef __cplusplus
}
#endif
#endif
