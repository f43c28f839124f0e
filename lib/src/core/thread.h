/* Threads of the library: named, and deaf to signals, which belong to the program. */
#ifndef CORE_THREAD_H
#define CORE_THREAD_H

#include <rpcrew/status.h>

#include <pthread.h>

/* name: at most 15 bytes. CREW_SYSTEM. */
CREW_NODISCARD crew_status crew_thread_start(pthread_t *thread, const char *name, void *(*run)(void *),
                                             void *argument, crew_error *why);

#endif
