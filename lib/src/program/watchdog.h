/* systemd's watchdog (sd_watchdog_enabled(3)): from the time on that the worker serves, it is told that it
 * lives as long as the threads of its endpoints go round. What handlers do is no part of that. */
#ifndef PROGRAM_WATCHDOG_H
#define PROGRAM_WATCHDOG_H

#include <rpcrew/server.h>

#include <pthread.h>
#include <stdatomic.h>

struct watchdog {
    crew_server *server;
    const atomic_bool *serves; /* READY=1 goes first */
    int stop_fd;               /* an eventfd; -1: nobody asked for a watchdog */
    int every_ms;
    pthread_t thread;
};

/* Does nothing unless WATCHDOG_USEC is set, and WATCHDOG_PID, if it is, is this process's. CREW_BAD_ARGUMENT:
 * that is no number; CREW_SYSTEM, CREW_NO_MEMORY. */
CREW_NODISCARD crew_status watchdog_start(struct watchdog *watchdog, crew_server *server,
                                          const atomic_bool *serves, crew_error *why);
/* Before the server is freed. */
void watchdog_stop(struct watchdog *watchdog);

#endif
