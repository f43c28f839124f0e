/* The pool: threads that decode messages and run their calls, by turns between the peers that sent them.
 *
 * Messages wait with their peer until a thread decodes them; the calls of a decoded message, its job, run at
 * once or wait there too. Two rings have the peers with messages and those with calls, and each gives one
 * piece of work in its turn, so that what one peer sends delays another by no more than that. As many
 * handlers run at a time as there are slots, and there is a thread more: to decode what comes, and to answer
 * what needs no handler, whatever the handlers do. A handler that waits for a call of its own gives its slot
 * up meanwhile, and the pool a thread for it, up to a bound; it goes on when there is a slot again.
 *
 * However much comes at once, one thread is woken for it, which wakes the next if there is more to be done
 * when it comes: so short calls are run by few threads, and long ones by as many as there are. */
#ifndef SERVER_POOL_H
#define SERVER_POOL_H

#include "service/job.h"

#include <rpcrew/impl/message.h>
#include <rpcrew/impl/peer.h>

#include <pthread.h>

struct crew_pool;

/* What is done with work, on the pool's threads. scratch is as in crew_job_run. */
struct crew_pool_work {
    /* Decodes a message, and gives its job to crew_pool_take_on, or ends it otherwise. */
    void (*start)(crew_message *message, crew_arena *scratch);
    /* Runs one of a job's calls, the index-th; the job may be gone on return. */
    void (*run)(struct crew_job *job, size_t index, crew_arena *scratch);
};

struct crew_ring {
    crew_peer *first, *last;
};

struct crew_pool {
    pthread_mutex_t mutex;
    pthread_cond_t wanted, returned, left;
    const struct crew_pool_work *work;
    struct crew_ring messages, jobs; /* of peers that have some */
    size_t waiting;                  /* in them: messages, and calls */
    bool turn;                       /* a job's, if there is one */
    bool decoding;                   /* a message, with one slot: nobody else does then */
    bool closed;
    crew_requeue gives_back; /* what can be, by then; nothing more is taken on of that; NEVER: nothing */
    int fd;                  /* an eventfd, readable while something waits; -1 with threads */
    unsigned slots;          /* handlers that may run at a time; without threads, no bound */
    unsigned running;        /* that do, without those that wait */
    unsigned blocked;        /* that wait for a call of their own, */
    unsigned returning;      /* or have, and wait for a slot again */
    unsigned alive;          /* threads */
    unsigned idle;           /* that wait for work */
    bool waking;             /* one of those has been woken, and has not come yet */
    unsigned most;           /* threads, however many wait */
    struct crew_pool_thread *ended; /* to be joined */
};

/* slots 0: no threads, crew_pool_step does the work. spare: how many threads may be made for handlers that
 * wait. work is borrowed. CREW_NO_MEMORY, CREW_SYSTEM. */
CREW_NODISCARD crew_status crew_pool_init(struct crew_pool *pool, unsigned slots, unsigned spare,
                                          const struct crew_pool_work *work, crew_error *why);

/* Allows as many spare threads more. */
void crew_pool_allow(struct crew_pool *pool, unsigned more);

/* Ends the threads, each after what it is running; what waits stays. Once. */
void crew_pool_stop(struct crew_pool *pool);
/* Frees the messages that still wait. */
void crew_pool_fini(struct crew_pool *pool);

/* Moves all of the list; every message has a peer. Any thread. */
void crew_pool_submit(struct crew_pool *pool, crew_list *list);

/* The job of a decoded message, on a thread of the pool: what needs no slot runs now, and so does a single
 * call if there is one; else its calls wait. It may be gone at once. False: it was not taken on, since what
 * its peer sends is given back now. */
bool crew_pool_take_on(struct crew_pool *pool, struct crew_job *job, crew_peer *peer, bool needs_slot,
                       crew_arena *scratch);

/* Takes back what nobody has started, of peers that it can be given back to by then (peer->requeue is when,
 * or later): messages, and jobs of which no call has been taken, one behind the other. */
void crew_pool_take_back(struct crew_pool *pool, crew_requeue when, crew_list *messages,
                         struct crew_job **jobs);

/* Calls that wait for their turn, and messages that nobody has looked at. Any thread. */
size_t crew_pool_waiting(struct crew_pool *pool);

/* Does one piece of work on this thread, if there is one, whatever slots there are. */
bool crew_pool_step(struct crew_pool *pool, crew_arena *scratch);

#endif
