/* Peers: the other ends of a worker's endpoint, as a transport can tell one from another. */
#ifndef RPCREW_IMPL_PEER_H
#define RPCREW_IMPL_PEER_H

#include <rpcrew/base.h>
#include <stdatomic.h>

struct crew_peer;
struct crew_home;

/* What becomes of the requests that a worker has taken and not started when it stops. */
typedef enum crew_requeue {
    CREW_REQUEUE_NEVER, /* they are run, while the drain lasts, then answered 'not executed' */
    CREW_REQUEUE_LAST,  /* they are run, while the drain lasts, then given back: that counts against them */
    CREW_REQUEUE_FIRST  /* they are given back at once */
} crew_requeue;

/* What of a peer waits for the pool, and its places in the pool's two rings; the pool's, under its lock. */
struct crew_turn {
    struct crew_message *messages, *last_message; /* nobody has looked at them */
    struct crew_job *jobs, *last_job;             /* decoded, with calls that nobody has taken */
    struct crew_peer *next_messages, *next_jobs;
    bool in_messages, in_jobs;
};

/* Whoever sends requests: a ZeroMQ routing id, a connection of a stream, a broker's connection. A transport
 * makes a peer when it comes, on its I/O thread, and lets go of it when it leaves; its messages hold it as
 * well, so that it lives until the last of them is settled. A transport whose requests all come from one peer
 * makes none. */
typedef struct crew_peer {
    atomic_uint holds;
    atomic_bool gone; /* nobody reads its answers; set by crew_transport_gone */
    void *mine;       /* the transport's */
    char *name;       /* who it is, where that is sure; NULL: not known. From malloc; set by its transport
                         before its first message is given, and then the same */
    char *address;    /* where it is, "127.0.0.1:51234", or without a port; NULL: not known. As name is */
    atomic_size_t in_flight; /* calls taken from it and not settled; the core's */
    bool takes_calls;        /* its transport carries calls to it: send takes CREW_MESSAGE_REQUEST */
    atomic_size_t expects;   /* answers of it that somebody here waits for: they are taken without room */
    atomic_bool mute;        /* nothing more comes from it; set by crew_transport_mute */
    atomic_bool called;      /* somebody here has called it; the core's, as what follows is */
    const struct crew_home *home; /* whose peer it is, */
    void *endpoint;               /* and where */
    uint32_t last_id;             /* of calls to it */
    bool told;                    /* of having come */
    struct crew_message *with;    /* what it has said of its next request; NULL: nothing. The I/O thread's */
    crew_requeue requeue;         /* what it sent, when the worker stops; the core's */
    bool shared;                  /* many callers are behind it, who are not told apart; the core's */
    struct crew_turn turn;
} crew_peer;

/* Held once; NULL without memory. */
CREW_API crew_peer *crew_peer_new(void *mine);
CREW_API crew_peer *crew_peer_hold(crew_peer *peer);
/* With the last hold it is freed; NULL is fine. Any thread. */
CREW_API void crew_peer_release(crew_peer *peer);

#endif
