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
