/* Calling back: the way from a worker to one of its peers, over the connection that the peer calls by. A
 * client has one end of it, as its transport (transport/back.c), the server the other. */
#ifndef CORE_BACK_H
#define CORE_BACK_H

#include "core/queue.h"

#include <stdatomic.h>

struct crew_client;

/* What a server is to its peers' callers. */
struct crew_home {
    /* Hands messages to be written to their peers to the endpoint's thread: any thread. */
    void (*push)(void *endpoint, crew_list *messages);
    /* The endpoint stays while somebody has a hold of it. */
    void (*hold)(void *endpoint);
    void (*release)(void *endpoint);
};

/* One peer's, while somebody calls it. */
struct crew_back {
    struct crew_back *next;
    crew_peer *peer; /* held */
    const struct crew_home *home;
    void *endpoint;             /* held */
    struct crew_client *client; /* that all share */
    unsigned holds;             /* of it */
    unsigned uses;              /* of this */
    unsigned number;            /* by which its url names it */
    crew_list inbox;            /* answers that have come */
    crew_queue *wake;           /* the client's, while its thread is there */
};

/* All that there are; what is in them is under this lock, but for what never changes. */
void crew_backs_lock(void);
void crew_backs_unlock(void);

/* Under the lock: the peer's, or NULL; adds one, which is the list's until it is removed. */
struct crew_back *crew_back_of(const crew_peer *peer);
void crew_back_add(struct crew_back *back);
void crew_back_remove(struct crew_back *back);
/* The one that a url of its client names, with a use more; NULL. */
struct crew_back *crew_back_named(const char *name);
enum { CREW_BACK_URL = 40 };
void crew_back_url(const struct crew_back *back, char url[CREW_BACK_URL]);

/* Takes the lock: one use less; the last one frees it. */
void crew_back_release(struct crew_back *back);
/* Under the lock: whether its peer will answer nothing any more. */
bool crew_back_is_over(const struct crew_back *back);

/* Gives an answer to whoever waits for it; false: nobody does. Takes the lock. */
bool crew_back_deliver(crew_message *message);
/* Some peers have gone: whoever calls them is told. */
void crew_backs_wake(void);

#endif
