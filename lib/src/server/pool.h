/* The pool: threads that take messages and the calls of batches, in turn.
 *
 * Messages wait in one queue. A batch takes no place there: it is shared out, and threads take its calls by
 * its cursor, so that a full queue cannot block it. Where both wait, threads take from the two by turns. */
#ifndef SERVER_POOL_H
#define SERVER_POOL_H

#include "service/job.h"

#include <rpcrew/impl/message.h>

#include <pthread.h>

struct crew_pool {
    pthread_mutex_t mutex;
    pthread_cond_t wanted;
    crew_list waiting;
    struct crew_job *shared, *shared_last; /* jobs with calls that nobody has taken yet */
    bool turn;                             /* a job's, if there is one */
    bool closed;
    int fd; /* an eventfd, readable while something waits; -1 with threads */
    pthread_t *threads;
    unsigned thread_count;
    /* Decodes a message and runs its call, or shares its calls. scratch is as in crew_job_run. */
    void (*start)(crew_message *message, crew_arena *scratch);
};

/* count 0: no threads, crew_pool_step does the work. CREW_NO_MEMORY, CREW_SYSTEM. */
CREW_NODISCARD crew_status crew_pool_init(struct crew_pool *pool, unsigned count,
                                          void (*start)(crew_message *, crew_arena *), crew_error *why);

/* Ends the threads, each after what it is running; what waits stays. Once. */
void crew_pool_stop(struct crew_pool *pool);
/* Frees what still waits. */
void crew_pool_fini(struct crew_pool *pool);

/* Moves all of the list. Any thread. */
void crew_pool_submit(struct crew_pool *pool, crew_list *list);
/* Lets the threads take the calls of a decoded job; it may be gone at once. Any thread. */
void crew_pool_share(struct crew_pool *pool, struct crew_job *job);
/* Takes back all messages that nobody has started. */
void crew_pool_take_back(struct crew_pool *pool, crew_list *list);

/* Does one piece of work on this thread, if there is one. */
bool crew_pool_step(struct crew_pool *pool, crew_arena *scratch);

#endif
