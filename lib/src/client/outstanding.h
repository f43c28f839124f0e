/* The calls a client has outstanding: found by id, and in the order in which they are due.
 *
 * Ids count up, so a table indexed by their low bits has at most one call a slot: an id whose slot is still
 * taken by an older call is passed over. Ids are never 0, and come back after 2^32 calls, long past any
 * deadline. */
#ifndef CLIENT_OUTSTANDING_H
#define CLIENT_OUTSTANDING_H

#include <rpcrew/client.h>
#include <rpcrew/impl/message.h>

enum crew_call_state {
    CREW_CALL_STARTING,  /* has an id, and is still its starter's */
    CREW_CALL_UNWRITTEN, /* its request waits, with us or with the transport */
    CREW_CALL_WRITTEN,   /* all of it is with the peer, or may be */
    CREW_CALL_RETRYING   /* was not executed, and waits for another try */
};

struct crew_pending {
    uint32_t id;
    enum crew_call_state state;
    struct crew_link *link; /* the one it is on, unless it is starting */
    size_t heap_index;      /* in its link's heap; SIZE_MAX: in none */
    int64_t due_ms;         /* when something is to be done about it: its deadline, or before that */
    int64_t deadline_ms, started_ms;
    int64_t started_ns; /* if somebody observes: */
    size_t observers;   /* that were there then */
    size_t bytes;       /* of the request */
    unsigned again;     /* how often it was sent or tried again */
    crew_call_options options;
    char *method;        /* owned */
    bool sent_before;    /* a copy was written to a connection that was lost, and may have been executed */
    bool cancelled;      /* ends as cancelled, whatever else comes */
    unsigned backoff_ms; /* before the next retry; 0: none yet */
    crew_message *kept;  /* the request, if it may be sent again */
    crew_peer *peer;     /* whom it was written to, where that can be told; held */
    crew_completion *on_done;
    void *context;
    struct crew_pending *next; /* in a list of ended calls */
};

/* A binary heap by due_ms. All zero is an empty one. */
struct crew_due_heap {
    struct crew_pending **items;
    size_t count, room;
};

CREW_NODISCARD crew_status crew_due_add(struct crew_due_heap *heap, struct crew_pending *call);
void crew_due_remove(struct crew_due_heap *heap, struct crew_pending *call);
/* After a change of its due_ms. */
void crew_due_update(struct crew_due_heap *heap, struct crew_pending *call);
/* NULL if it is empty. */
struct crew_pending *crew_due_first(const struct crew_due_heap *heap);
void crew_due_fini(struct crew_due_heap *heap);

struct crew_call_table {
    struct crew_pending **slots; /* a power of two */
    size_t room, count, most;
    uint32_t last_id;
};

/* Gives the call an id and a place. CREW_OVERLOADED: most calls are there; CREW_NO_MEMORY. */
CREW_NODISCARD crew_status crew_table_add(struct crew_call_table *table, struct crew_pending *call);
struct crew_pending *crew_table_find(const struct crew_call_table *table, uint32_t id);
void crew_table_remove(struct crew_call_table *table, const struct crew_pending *call);
void crew_table_fini(struct crew_call_table *table);

#endif
