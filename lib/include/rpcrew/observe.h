/* What a server or a client does, told while it does it: each call's end, each answer's fate, each endpoint's
 * state. Logs, metrics and health stand on it, and so can yours. */
#ifndef RPCREW_OBSERVE_H
#define RPCREW_OBSERVE_H

#include <rpcrew/client.h>
#include <rpcrew/server.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How a call ended. */
typedef enum crew_ending {
    CREW_ENDED_RESULT, /* with a result; one-way: its handler returned well */
    CREW_ENDED_ERROR,  /* with an error of the service's: crew_fail and its kin */
    CREW_ENDED_FAILED, /* -32603: its handler returned a status, or its answer cannot be written; reason */
    CREW_ENDED_BAD_PARAMS,     /* -32602, found before the handler */
    CREW_ENDED_UNKNOWN_METHOD, /* -32601 */
    CREW_ENDED_UNDECODABLE,    /* no call at all, or one that breaks the protocol or a limit */
    CREW_ENDED_SHED,           /* not run, and answered so; reason (docs/errors.md) */
    CREW_ENDED_EXPIRED,        /* not run, since nobody waits for it any more; not answered */
    CREW_ENDED_CANCELLED       /* not run: its caller has taken it back, or gone */
} crew_ending;

/* "result", "error", "failed", "bad_params", "unknown_method", "undecodable", "shed", "expired", "cancelled".
 */
CREW_API const char *crew_ending_name(crew_ending ending);

/* The end of a call. Borrowed for the hook's time. Times are nanoseconds of CLOCK_MONOTONIC. */
typedef struct crew_call_end {
    crew_string method; /* as it was asked for; empty if that was not read */
    bool known;         /* some table has it */
    crew_ending ending;
    int64_t code;         /* of the error; 0: there is none */
    crew_string message;  /* of the error */
    const char *reason;   /* of FAILED, SHED, EXPIRED and CANCELLED, in a word or a few; else NULL */
    crew_string id;       /* as it is on the wire; empty: none */
    const char *peer;     /* crew_call_peer_name; "" */
    const char *address;  /* crew_call_peer_address; "" */
    const char *endpoint; /* its URL, without password */
    const char *protocol; /* "jsonrpc", "msgpack" */
    bool one_way;         /* nobody is answered */
    bool deferred;        /* it was completed after its handler had returned */
    size_t bytes_in;      /* of the message that it came in, which other calls of a batch have in common */
    size_t bytes_out;     /* of its answer */
    int64_t received_ns;  /* taken from the transport */
    int64_t started_ns;   /* its turn came; 0: it never did */
    int64_t ended_ns;
} crew_call_end;

/* What became of an answer, or of the one to a batch. Borrowed. */
typedef struct crew_answer_end {
    const char *endpoint;
    crew_status status; /* CREW_OK: written. CREW_DISCONNECTED, CREW_TIMEOUT (its peer does not read),
                           CREW_LIMIT, CREW_NO_MEMORY: it never will be */
    size_t bytes;
    int64_t received_ns; /* of the request */
    int64_t written_ns;
} crew_answer_end;

typedef enum crew_change {
    CREW_ENDPOINT_OPENED, /* it listens, or is connected to its broker */
    CREW_ENDPOINT_FAILED, /* it could not be opened, and is tried again; why */
    CREW_ENDPOINT_LOST,   /* the connection was lost, and is made again; why */
    CREW_ENDPOINT_CLOSED, /* for good */
    CREW_PEER_CAME,       /* its first message; transports that tell their peers apart */
    CREW_PEER_GONE,
    CREW_SERVER_DRAINS, /* endpoint: NULL */
    CREW_SERVER_DRAINED /* or not, within its time: why */
} crew_change;

/* "opened", "failed", "lost", "closed", "peer_came", "peer_gone", "drains", "drained". */
CREW_API const char *crew_change_name(crew_change change);

/* Any may be NULL. They must not block: whoever calls them has other calls to serve. */
typedef struct crew_server_hooks {
    /* Once for each call, on the thread that ended it: of the pool, an endpoint's, or of whoever completes a
     * deferred one; before its answer is on its way. What goes to another worker (requeued) has not ended. */
    void (*call)(void *context, const crew_call_end *end);
    /* Once for each answer, on its endpoint's thread. */
    void (*answer)(void *context, const crew_answer_end *end);
    /* endpoint: URL without password, NULL if it is none's; why: in words, or NULL; peer: its name, or "". On
     * the thread that does it. */
    void (*change)(void *context, crew_change change, const char *endpoint, const char *peer,
                   const char *why);
    void *context;
} crew_server_hooks;

/* Adds an observer, eight at most; hooks are copied, what context points to is borrowed until
 * crew_server_free has returned and no deferred call is left. Before the first crew_server_listen.
 * CREW_BAD_ARGUMENT, CREW_LIMIT. */
CREW_NODISCARD CREW_API crew_status crew_server_observe(crew_server *server, const crew_server_hooks *hooks,
                                                        crew_error *why);

/* ---- a client ---- */

/* How a client's call ended. Borrowed for the hook's time. Times are nanoseconds of CLOCK_MONOTONIC. */
typedef struct crew_outcome {
    const char *method;     /* with the client's prefix */
    const char *endpoint;   /* the client's URL, without password */
    const char *protocol;   /* "jsonrpc", "jsonrpc1", "msgpack" */
    crew_status status;     /* CREW_OK, or the outcome: docs/delivery.md */
    int64_t code;           /* of an error that was answered; 0: none was */
    crew_executed executed; /* unless CREW_OK */
    const char *message;    /* as crew_error's; "" */
    bool one_way;
    unsigned again;   /* how often it was sent again, or tried again */
    size_t bytes_out; /* of the request */
    size_t bytes_in;  /* of the message that the answer came in; 0: none came */
    int64_t started_ns, ended_ns;
} crew_outcome;

/* Any may be NULL. They must not block: other calls of the client wait meanwhile. */
typedef struct crew_client_hooks {
    /* Once for each call, before its completion is called, or its waiter goes on: on the client's I/O thread,
     * or on the starter's if it could not be sent (too many are outstanding, too large, too late). What never
     * became a call is not told: a format that is none, CREW_WOULD_DEADLOCK, no memory. */
    void (*call)(void *context, const crew_outcome *outcome);
    /* Of the client's connections, and what of crew_change they do: opened, failed, lost, closed. endpoint:
     * URL without password; why: in words, or NULL. On the client's I/O thread. */
    void (*change)(void *context, crew_change change, const char *endpoint, const char *why);
    void *context;
} crew_client_hooks;

/* Adds an observer, eight at most; hooks are copied, what context points to is borrowed until
 * crew_client_free has returned. It is told of calls that begin from then on, and of connections, first of
 * those that are open. Any thread. CREW_LIMIT; CREW_UNSUPPORTED: a client of crew_call_client's. */
CREW_NODISCARD CREW_API crew_status crew_client_observe(crew_client *client, const crew_client_hooks *hooks,
                                                        crew_error *why);

#ifdef __cplusplus
}
#endif
#endif
