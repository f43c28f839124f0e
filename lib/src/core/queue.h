/* The bounded queue by which threads hand messages to an endpoint's I/O thread. */
#ifndef CORE_QUEUE_H
#define CORE_QUEUE_H

#include <rpcrew/impl/message.h>

#include <pthread.h>
#include <stdatomic.h>

/* Any thread pushes, one takes. The fd is an eventfd, readable while something may be there. */
typedef struct crew_queue {
    pthread_mutex_t mutex;
    crew_list list;
    size_t limit;
    int fd;
    atomic_bool signalled; /* the fd is readable, or about to be */
} crew_queue;

/* limit 0: none. CREW_SYSTEM, CREW_NO_MEMORY. */
CREW_NODISCARD crew_status crew_queue_init(crew_queue *queue, size_t limit, crew_error *why);
/* Frees what is still in it. */
void crew_queue_fini(crew_queue *queue);

/* Moves all of the list, or nothing: CREW_OVERLOADED if it would pass the limit. */
CREW_NODISCARD crew_status crew_queue_push(crew_queue *queue, crew_list *list);
/* The same for whoever wakes the taker itself, if it is to be woken. */
CREW_NODISCARD crew_status crew_queue_add(crew_queue *queue, crew_list *list);
/* Appends all there is to list; the fd is quiet afterwards. */
void crew_queue_take(crew_queue *queue, crew_list *list);
/* Makes the fd readable, if it is not. Async-signal-safe. */
void crew_queue_wake(crew_queue *queue);

#endif
