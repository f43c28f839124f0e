/* Starting a thread with all signals blocked. */
#include "core/thread.h"

#include <signal.h>

crew_status crew_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *argument,
                              crew_error *why)
{
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return crew_error_set(why, CREW_SYSTEM, "starting a thread: %s", strerror(error));
    (void)pthread_setname_np(*thread, name);
    return CREW_OK;
}

static _Thread_local const struct crew_waiting_hook *waiting_hook;

void crew_thread_set_hook(const struct crew_waiting_hook *hook)
{
    waiting_hook = hook;
}

void crew_thread_begin_wait(void)
{
    if (waiting_hook)
        waiting_hook->begin(waiting_hook->context);
}

void crew_thread_end_wait(void)
{
    if (waiting_hook)
        waiting_hook->end(waiting_hook->context);
}
