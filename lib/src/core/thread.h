/* Threads of the library: named, and deaf to signals, which belong to the program. */
#ifndef CORE_THREAD_H
#define CORE_THREAD_H

#include <rpcrew/status.h>

#include <pthread.h>

/* name: at most 15 bytes. CREW_SYSTEM. */
CREW_NODISCARD crew_status crew_thread_start(pthread_t *thread, const char *name, void *(*run)(void *),
                                             void *argument, crew_error *why);

/* Who is told when a thread begins and ends to wait for what other threads have to do: a pool, that it needs
 * another one meanwhile. */
struct crew_waiting_hook {
    void (*begin)(void *context);
    void (*end)(void *context);
    void *context;
};

/* For this thread; borrowed, NULL: nobody is told. */
void crew_thread_set_hook(const struct crew_waiting_hook *hook);
/* Around such a wait, on any thread. */
void crew_thread_begin_wait(void);
void crew_thread_end_wait(void);

#endif
