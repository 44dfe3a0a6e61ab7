/* A loop over independent pieces of work on a few threads.
 *
 * Threads take the next index from a counter until none is left. The caller waits and reports
 * progress, so that a callback never runs on a thread its owner does not know. Pieces are files to
 * decode, pictures to draw or kernels to build, milliseconds each: a lock a piece costs nothing
 * that can be measured. Signals are for the caller's thread, which may have handlers.
 */
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "run.h"

enum { MAX_WORKERS = 64, TICK_NANOSECONDS = 100000000 };

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;     /* a thread ended */
    int next, count, done;
    int running;                /* threads that have not ended */
    bool stopped;
    void (*work)(void *context, int index);
    void *context;
} Loop;

static void *loop_thread(void *argument)
{
    Loop *loop = argument;
    pthread_mutex_lock(&loop->lock);
    while (!loop->stopped && loop->next < loop->count) {
        int index = loop->next++;
        pthread_mutex_unlock(&loop->lock);
        loop->work(loop->context, index);
        pthread_mutex_lock(&loop->lock);
        loop->done++;
    }
    loop->running--;
    pthread_cond_signal(&loop->changed);
    pthread_mutex_unlock(&loop->lock);
    return NULL;
}

/* Until all threads have ended; called and returns with the lock held. */
static void loop_wait(Loop *loop, bool (*tick)(void *, int, int), void *tick_context)
{
    while (loop->running > 0) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TICK_NANOSECONDS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&loop->changed, &loop->lock, &until);
        if (tick == NULL || loop->stopped || loop->running == 0) continue;
        int done = loop->done;
        pthread_mutex_unlock(&loop->lock);
        bool go_on = tick(tick_context, done, loop->count);
        pthread_mutex_lock(&loop->lock);
        if (!go_on) loop->stopped = true;
    }
}

static int start_threads(Loop *loop, pthread_t *threads, int workers)
{
    sigset_t all, before;
    int started = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (started < workers && pthread_create(&threads[started], NULL, loop_thread, loop) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

bool parallel_for(int count, int workers, void (*work)(void *context, int index), void *context,
                  bool (*tick)(void *tick_context, int done, int count), void *tick_context)
{
    Loop loop = { .count = count, .work = work, .context = context };
    if (workers <= 0) workers = system_processors();
    if (workers > count) workers = count;
    if (workers > MAX_WORKERS) workers = MAX_WORKERS;
    pthread_mutex_init(&loop.lock, NULL);
    pthread_cond_init(&loop.changed, NULL);
    pthread_t threads[MAX_WORKERS];
    pthread_mutex_lock(&loop.lock);
    int started = loop.running = start_threads(&loop, threads, workers);
    loop_wait(&loop, tick, tick_context);
    pthread_mutex_unlock(&loop.lock);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    while (!loop.stopped && loop.next < count) {   /* no thread could be started */
        work(context, loop.next++);
        loop.done++;
        if (tick != NULL && !tick(tick_context, loop.done, count)) loop.stopped = true;
    }
    bool complete = loop.done == count;
    if (complete && tick != NULL && count > 0) complete = tick(tick_context, count, count);
    pthread_cond_destroy(&loop.changed);
    pthread_mutex_destroy(&loop.lock);
    return complete;
}
