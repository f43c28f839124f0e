/* Work that may block, on a thread of its own, for an I/O thread that must not: opening a connection, or a
 * further one. Who asked for it looks now and then whether it is through; who no longer wants it leaves it,
 * and it ends what it has made by itself. */
#ifndef CORE_TASK_H
#define CORE_TASK_H

#include "core/opening.h"
#include "core/queue.h"

#include <stdatomic.h>

struct crew_task {
    /* On its thread; what it makes is in the context, which nobody else touches meanwhile. */
    void (*run)(void *context);
    /* Ends what run has made, and frees the context, the task in it as well. */
    void (*abandon)(void *context);
    void *context;
    crew_queue *queue;            /* woken when it is through; lives until it is, or was left */
    struct crew_opening *opening; /* the context's, of an opening: ended when it is left; NULL: none */
    pthread_t thread;
    atomic_int phase;
    bool started; /* and not told to be through */
};

/* If no thread can be had, it is not run, and that is the status. May be started again once it is through. */
CREW_NODISCARD crew_status crew_task_start(struct crew_task *task, const char *name, crew_error *why);

/* True once, when it is through. */
bool crew_task_is_through(struct crew_task *task);

/* Gives it up. False: it was not under way, and the context is the caller's to free; else it is abandoned,
 * here or by its thread. */
bool crew_task_leave(struct crew_task *task);

#endif
