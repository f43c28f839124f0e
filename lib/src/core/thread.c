/* Starting a thread with all signals blocked. */
#include "core/thread.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct beginning {
    void *(*run)(void *argument);
    void *argument;
    char name[16];
};

/* It names itself: whoever started it cannot know whether it is still there. */
static void *begin(void *beginning)
{
    struct beginning b = *(struct beginning *)beginning;
    free(beginning);
    (void)pthread_setname_np(pthread_self(), b.name);
    return b.run(b.argument);
}

crew_status crew_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *argument,
                              crew_error *why)
{
    sigset_t all, before;
    struct beginning *b = malloc(sizeof *b);
    if (!b)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    *b = (struct beginning){ .run = run, .argument = argument };
    (void)snprintf(b->name, sizeof b->name, "%s", name);
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, begin, b);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error)
        return CREW_OK;
    free(b);
    return crew_error_set(why, CREW_SYSTEM, "starting a thread: %s", strerror(error));
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
