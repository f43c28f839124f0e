/* An endpoint: one URL, one transport, and the one I/O thread that drives it. Servers and clients both are
 * owners of endpoints; what differs between them is in the owner's table.
 *
 * Opening, losing and opening again is the same for all transports and is done here. */
#ifndef IO_ENDPOINT_H
#define IO_ENDPOINT_H

#include "io/connection.h"

#include <rpcrew/impl/transport.h>
#include <rpcrew/log.h>

#include <stdatomic.h>

struct crew_endpoint;

/* All are called on the I/O thread. */
struct crew_endpoint_owner {
    /* What may be received now. */
    crew_room (*room)(struct crew_endpoint *endpoint);
    /* Takes what was received, all of it. */
    void (*received)(struct crew_endpoint *endpoint, crew_list *messages);
    /* Looks through what is about to be sent and takes out what is not to be; the endpoint may not be open.
     */
    void (*sending)(struct crew_endpoint *endpoint, crew_list *messages);
    /* What became of an answer (crew_transport_answered); NULL: nobody cares. */
    void (*answered)(struct crew_endpoint *endpoint, const crew_message *message, crew_status status);
    /* An answer is too large: puts an error in its place, if it can (crew_transport_shrink). */
    bool (*too_large)(struct crew_endpoint *endpoint, crew_message *message);
    /* crew_transport_report; NULL: it says nothing. */
    unsigned (*report)(struct crew_endpoint *endpoint, const char *name, const char **content_type,
                       crew_buffer *out);
    /* A peer has gone, or only gives nothing more (mute); NULL: nobody cares. */
    void (*gone)(struct crew_endpoint *endpoint, crew_peer *peer);
    /* There is a peer now where there was none; NULL: nobody cares. */
    void (*ready)(struct crew_endpoint *endpoint);
    /* It was opened (CREW_OK), could not be, or was lost. unsent: requests never written, to keep or take. */
    void (*changed)(struct crew_endpoint *endpoint, const crew_error *why, crew_list *unsent);
    /* Does what is due; milliseconds until it wants to be called again, or -1. */
    int (*due)(struct crew_endpoint *endpoint);
    /* It takes nothing new from now on: what it gives back now does not come again. */
    void (*paused)(struct crew_endpoint *endpoint);
    /* After a pause: nothing is in flight any more, so that it can be closed. */
    bool (*idle)(struct crew_endpoint *endpoint);
    /* The thread is about to end. */
    void (*closed)(struct crew_endpoint *endpoint);
};

enum crew_endpoint_command {
    CREW_ENDPOINT_RUN,
    CREW_ENDPOINT_PAUSE, /* no new requests; close when idle */
    CREW_ENDPOINT_CLOSE  /* now */
};

struct crew_endpoint_options {
    const struct crew_endpoint_owner *owner;
    void *context; /* the owner's */
    bool server;
    bool brief;                             /* the client's */
    const struct crew_callbacks *callbacks; /* the server's; NULL: none */
    size_t host;                            /* which of the URL's hosts, if they are peers of one another */
    bool wait;                              /* a first opening that fails is tried again, not an error */
    int give_up_fd;  /* the server's: when it is readable the first attempt is not waited for any longer */
    bool background; /* do not even wait for the first attempt; its failure is the owner's to judge */
    /* what the URL's options override */
    unsigned in_flight_max;
    size_t in_flight_bytes;
    unsigned timeout_ms; /* deadline of calls, or of requests that bring none */
    crew_limits limits;  /* resolved by the endpoint */
    crew_wire_errors errors;

    unsigned connect_timeout_ms;
    unsigned linger_ms; /* for the last messages, at the close */
    crew_trace_fn *trace;
    void *trace_context;
};

struct crew_endpoint {
    struct crew_endpoint_options options;
    crew_url *url;
    const struct crew_transport_ops *ops;
    crew_queue queue; /* to be sent: any thread pushes, by crew_endpoint_push */
    pthread_t thread;
    atomic_int command;
    atomic_bool started;  /* it has a thread and a queue */
    atomic_bool ready;    /* it is open, and has a peer; written on the I/O thread */
    atomic_bool pausing;  /* it takes nothing new, and its owner knows */
    atomic_bool over;     /* its thread has nothing more to do */
    atomic_uint rounds;   /* of its thread: it goes on as long as these do, once its queue has woken it */
    unsigned rounds_seen; /* the owner's */
    /* the owner's: what it is called, the same for those whose URLs have the same text; NULL: it has not said
     */
    _Atomic(const char *) label;
    bool expects_ours;              /* a client's: its URL says that the worker is one of ours */
    bool reports_only;              /* it is for those who ask how the others are */
    atomic_bool ever_listened;      /* the owner's: it has been open */
    _Atomic(int64_t) away_since_ms; /* the owner's: not open since then; 0: it is, or was not tried */
    _Atomic(int64_t) close_by_ms; /* how long the last answers may linger, where a drain bounds it; 0: none */
    atomic_size_t in_flight;      /* messages taken and not settled; the owner's, as the next two are */
    atomic_size_t calls, bytes;   /* what those count for */
    crew_peer *peer;              /* a server's: who sends what no peer of its own has sent */

    /* the I/O thread's */
    struct crew_connection *connection;
    crew_message_pool *messages; /* the connection's */
    crew_list outgoing;          /* taken from the queue */
    size_t passed_bytes;         /* the owner's: since memory was last tidied, and when it is to be; 0: not */
    int64_t tidy_at_ms, tidy_by_ms;
    uint32_t epoch;       /* counts openings: settlements of an earlier one are stale */
    crew_requeue requeue; /* the transport's */
    bool open, paused, ever_open;
    bool pushed_here; /* it has pushed something itself */
    bool says_with;   /* a client's: what goes beside a request goes before it: the worker is one of ours */
    bool tells_open;  /* the owner's: it has told of that */
    bool was_ready;   /* since it was opened */
    bool tidy_again;  /* the owner's: when something more has passed */
    crew_error last_failure; /* to open, that has been told of; no message: none since it was open */
    int64_t said_at_ms;
    int64_t opened_at_ms;
    unsigned backoff_ms;
    int64_t retry_at_ms;

    /* how the first opening went */
    int tried_fd; /* an eventfd, readable from then on */
    bool tried;
    crew_error first;
};

/* endpoint is all zero. Starts the thread and waits for its first attempt to open (unless
 * options->background). Statuses as crew_server_listen, CREW_CLOSED if it was given up; on failure nothing is
 * left to join or fini. */
CREW_NODISCARD crew_status crew_endpoint_start(struct crew_endpoint *endpoint, const char *url,
                                               const struct crew_endpoint_options *options, crew_error *why);

/* Whether a server's URL is good, as far as it says itself. Statuses as crew_server_listen. */
CREW_NODISCARD crew_status crew_endpoint_check(const char *url, crew_error *why);

/* How many endpoints a client's URL makes: one, or one for each host. Statuses as crew_server_listen;
 * CREW_UNSUPPORTED also if nothing of that content type can be carried there. */
CREW_NODISCARD crew_status crew_endpoint_count(const char *url, const char *content_type, size_t *count,
                                               crew_error *why);

/* Any thread; the command only ever grows. Async-signal-safe. */
void crew_endpoint_command(struct crew_endpoint *endpoint, enum crew_endpoint_command command);

/* Takes what is to be sent, all of it. Any thread. */
void crew_endpoint_push(struct crew_endpoint *endpoint, crew_list *list);

/* Waits for the thread's end, which a command must have asked for. */
void crew_endpoint_join(struct crew_endpoint *endpoint);

/* After the join, when nobody pushes to the queue any more. */
void crew_endpoint_fini(struct crew_endpoint *endpoint);

/* Whether this is some client's I/O thread: if that waited for a call, and the thread that the call needs for
 * one of its own, both would wait for ever. */
bool crew_endpoint_is_a_client_s(void);

#endif
