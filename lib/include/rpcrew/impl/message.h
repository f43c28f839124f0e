/* Messages: owned bytes and their envelope, from the wire to the answer. A message is moved, never shared. */
#ifndef RPCREW_IMPL_MESSAGE_H
#define RPCREW_IMPL_MESSAGE_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/impl/peer.h>

/* A refusal: a worker that had the message before may have died of it. */
#define CREW_REASON_REDELIVERED "redelivered"
/* Another: its peer has sent more than there is room for, while others wait. */
#define CREW_REASON_ROOM "room"
/* Another: the worker stops. */
#define CREW_REASON_STOPPING "stopping"
/* No refusal: an answer was too large for whoever was to carry it. */
#define CREW_REASON_TOO_LARGE "too_large"

/* What a message is at the moment: which of these a transport gets and gives is in impl/transport.h. */
typedef enum crew_message_kind {
    CREW_MESSAGE_REQUEST, /* worker: came in; client: to be sent */

    /* a worker's settlement of a request, exactly one each */
    CREW_SETTLE_REPLY,   /* send the answer */
    CREW_SETTLE_DONE,    /* decoded, nothing to say */
    CREW_SETTLE_REQUEUE, /* not started: for another worker */
    CREW_SETTLE_REJECT,  /* undecodable and nowhere to answer: never again */

    /* what a client's transport tells of a call */
    CREW_EVENT_WRITTEN,    /* the request itself, given back: it is with the peer or on its way */
    CREW_EVENT_CONFIRMED,  /* the one-way request itself, given back: handed over */
    CREW_EVENT_UNROUTABLE, /* nobody is there to take it: not executed */
    CREW_EVENT_REFUSED,    /* the broker has no room: not executed */
    CREW_EVENT_TOO_LARGE,  /* for whoever carries it: not executed */
    CREW_EVENT_REPLY,      /* an answer, in body */
    CREW_EVENT_STRAY       /* an answer of nobody's */
} crew_message_kind;

typedef struct crew_message {
    struct crew_message *next; /* in the one list that it is in */
    crew_message_kind kind;
    bool one_way; /* client: nobody waits for a reply; worker: no address to reply to */
    /* client, an event by which a call ends: what more is known of why; until the next operation. Worker: why
     * the body is no message, for its sender to read; in the arena */
    const char *words;

    /* client */
    bool unsure;          /* CREW_EVENT_REFUSED: some of those that it was for may have it */
    uint32_t correlation; /* the call that it belongs to; 0: told by the body's id */

    /* worker */
    crew_peer *peer;     /* who sent it, with a hold of the message's; NULL: the endpoint's one */
    const char *refusal; /* why it is to be answered and not run (docs/errors.md); NULL: run it */
    bool redelivered;    /* it had been given out before */
    bool unanswered;     /* one_way since its endpoint answers nothing, which is no cause for words */
    crew_status status;  /* why it is settled without an answer, if not for having none: CREW_EXPIRED,
                            CREW_NO_MEMORY */
    /* whom the answer goes to, in the transport's words: what one caller sends has one origin, and what
     * others send another; and what else tells one of its requests from the next, if it says. In the arena.
     */
    crew_string origin, key;

    /* worker, the core's own */
    void *endpoint;                              /* where it came in, and its settlement goes */
    uint32_t epoch;                              /* which opening of that endpoint */
    uint32_t calls;                              /* that count as in flight for it */
    size_t charged;                              /* bytes that do; once it is settled, its answer's */
    bool own_deadline;                           /* deadline_ms is the server's bound, the caller gave none */
    bool cancelled;                              /* nobody wants it */
    struct crew_message *next_taken, **at_taken; /* beside others that are in flight */
    struct crew_job *job;                        /* its calls, once they are known */
    struct crew_message *heir;                   /* a copy of it that came later, and gets its answer */

    const crew_value *headers; /* what is beside the body, an object in the arena; NULL: nothing. Of a
                                  client's, few short strings with good names */
    int64_t received_ns;       /* CLOCK_MONOTONIC, where somebody asks; the core's */
    int64_t deadline_ms;       /* crew_now_ms's clock; 0: none */
    const char *content_type;  /* borrowed for the process's life or in the arena; NULL: none */
    uint64_t number;           /* the transport's own, */
    void *mine;                /* too, in the arena: a worker's, where the answer goes */
    crew_buffer body;
    crew_buffer reply; /* worker: the answer, in the request's content type; client: what goes before a
                          request, a message of its own, where ops->has_with */
    crew_arena arena;
} crew_message;

/* NULL without memory. */
CREW_API crew_message *crew_message_new(void);
CREW_API void crew_message_free(crew_message *message);

/* Whether two requests are copies of one: of the same origin, key and body. Where callers name nothing, equal
 * requests are taken for copies: ask only about one that is redelivered. */
CREW_API bool crew_message_is_copy(const crew_message *message, const crew_message *other);

/* A list of messages, in order. All zero is an empty one. */
typedef struct crew_list {
    crew_message *head, *tail;
    size_t count;
} crew_list;

CREW_API void crew_list_append(crew_list *list, crew_message *message);
/* The first one, taken out; NULL from an empty list. */
CREW_API crew_message *crew_list_take(crew_list *list);
/* Moves all of source behind what is in list. */
CREW_API void crew_list_move(crew_list *list, crew_list *source);
CREW_API void crew_list_free(crew_list *list);

/* Messages for reuse, with their buffers and arenas. One thread. */
typedef struct crew_message_pool {
    crew_list spare;
    size_t spare_max;   /* messages */
    size_t spare_bytes; /* of their buffers and arenas, up to CREW_SPARE_BYTES_MOST */
} crew_message_pool;
enum { CREW_SPARE_BYTES_MOST = 4 << 20 };

/* An empty message; NULL without memory. */
CREW_API crew_message *crew_message_take(crew_message_pool *pool);
/* NULL is fine. */
CREW_API void crew_message_give(crew_message_pool *pool, crew_message *message);

/* The limits with their defaults filled in; limits may be NULL. */
CREW_API crew_limits crew_limits_resolve(const crew_limits *limits);

/* The clock of deadlines: milliseconds of CLOCK_MONOTONIC. */
CREW_API int64_t crew_now_ms(void);
CREW_API int64_t crew_now_ns(void);
/* Milliseconds since 1970, as deadlines travel. */
CREW_API int64_t crew_unix_ms(void);

/* The sooner of two times to wait, where -1 is for ever. */
static inline int crew_sooner(int a_ms, int b_ms)
{
    return a_ms < 0 || (b_ms >= 0 && b_ms < a_ms) ? b_ms : a_ms;
}

/* What is logged of clocks that disagree, once. */
#define CREW_CLOCKS_DISAGREE "a caller's clock disagrees with this one; the time left is counted from receipt"

/* A deadline that has travelled, on our clock, by what its caller said: when (Unix; 0: not said), and in how
 * long (below 0: not said), at least one of them. It has been under way for under_way_ms at most (INT64_MAX:
 * that is not known). Where that, or that it cannot come before it was sent, says that the clocks disagree by
 * more than a second, the time left counts, from now. */
CREW_API int64_t crew_travelled_deadline(int64_t unix_ms, int64_t left_ms, int64_t under_way_ms,
                                         bool *disagree);

#endif
