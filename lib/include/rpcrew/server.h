/* The server: endpoints that take messages, a pool of threads that handles them. docs/threads.md. */
#ifndef RPCREW_SERVER_H
#define RPCREW_SERVER_H

#include <rpcrew/dispatcher.h>
#include <rpcrew/log.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct crew_server crew_server;

/* Zero fields mean their defaults. */
typedef struct crew_server_options {
    unsigned threads;         /* handlers that run at a time; 2 x cores, at least 4 */
    bool stepped;             /* no pool: handlers run in crew_server_step, on its caller's thread */
    unsigned in_flight_max;   /* calls taken and not yet answered, per endpoint, before others than those of
                                 peers that have none are held back; 64, or 2 x threads where all services
                                 are CREW_WORK_CPU. A broker's prefetch follows it */
    size_t in_flight_bytes;   /* what their requests may take, decoded; 256 MiB. One is always taken */
    unsigned drain_ms;        /* how long stopping may wait for what is in flight; 10,000 */
    unsigned call_timeout_ms; /* deadline of requests that bring none; 30,000 */
    unsigned connect_timeout_ms; /* for each attempt to connect, log in and declare; 5,000 */
    unsigned unready_ms;         /* how long an endpoint may be away before the server is not ready; 10,000 */
    bool metrics; /* counts calls by method, for /metrics of HTTP endpoints with reports=yes or only */
    bool wait;    /* an endpoint that is not there at first is tried again, not an error */
    crew_limits limits;
    crew_trace_fn *trace;
    void *trace_context;
} crew_server_options;

/* options and what they point to are copied, the dispatcher is borrowed for the server's life.
 * CREW_BAD_ARGUMENT, CREW_NO_MEMORY, CREW_SYSTEM. */
CREW_NODISCARD CREW_API crew_status crew_server_new(crew_server **server, const crew_dispatcher *dispatcher,
                                                    const crew_server_options *options, crew_error *why);

/* Opens an endpoint, on a thread of its own; requests are taken once the server runs. Before
 * crew_server_start. CREW_BAD_ARGUMENT: the URL; CREW_UNSUPPORTED: its scheme; CREW_NO_SERVICE, CREW_SYSTEM
 * and others: opening failed (with options.wait, only what trying again cannot mend is an error);
 * CREW_CLOSED: crew_server_stop was called meanwhile. */
CREW_NODISCARD CREW_API crew_status crew_server_listen(crew_server *server, const char *url, crew_error *why);

/* A request, as a transport of your own received it. */
typedef struct crew_request {
    crew_string bytes;         /* borrowed until receive is called again, as content_type is */
    const char *content_type;  /* NULL: told by the first bytes */
    const crew_value *headers; /* an object, copied, for crew_call_headers; NULL: none */
    unsigned timeout_ms;       /* until its caller gives up; 0: unknown, the server's call_timeout_ms */
    bool one_way;              /* there is nobody to be answered */
    void *route;               /* yours: comes back with the answer */
} crew_request;

/* How a request ended. */
typedef struct crew_answer {
    crew_status status; /* CREW_OK; without an answer that there should be: CREW_EXPIRED (not run: its time
                           was over), CREW_CLOSED (the endpoint was), CREW_NO_MEMORY */
    const char *content_type; /* NULL if there are no bytes */
    crew_string bytes;        /* borrowed; with CREW_OK, empty if there is nothing to say */
} crew_answer;

/* A transport of your own, for workers: two functions, called on the endpoint's I/O thread, one at a time. */
typedef struct crew_callbacks {
    /* Waits for a request, timeout_ms at most (-1: for as long as it takes; 0: not at all). It returns early,
     * without one, when wake_fd is readable, since answers wait then to be sent; who cannot poll that waits
     * for some milliseconds only. It is not called while in_flight_max requests are unanswered, nor once the
     * server drains. It may stop the server itself, once, when there will be no more: in a call
     * that gives no request.
     * CREW_OK: *request, all zero before, is filled in. CREW_TIMEOUT: there is none. Anything else: the
     * endpoint is closed, so that what is in flight ends as CREW_CLOSED, and opened again after a pause;
     * after CREW_CLOSED it is not. */
    crew_status (*receive)(void *context, int wake_fd, int timeout_ms, crew_request *request);
    /* Once for each request. */
    void (*reply)(void *context, void *route, const crew_answer *answer);
    void *context;
} crew_callbacks;

/* crew_server_listen for a transport of your own. url is callback://name, with any option that all endpoints
 * have (docs/urls.md); callbacks is borrowed for the server's life. CREW_BAD_ARGUMENT also for another
 * scheme. */
CREW_NODISCARD CREW_API crew_status crew_server_listen_with(crew_server *server, const char *url,
                                                            const crew_callbacks *callbacks, crew_error *why);

/* The caller of a request that crew_callbacks gave with this route has gone, or wants no answer any more:
 * calls of it that have not begun are not run, those that run are told (crew_call_cancelled). Its reply comes
 * all the same, and the route is in use until then. False: there was nothing to cancel, since the request has
 * just been received or has just ended. Any thread, until crew_server_free. */
CREW_API bool crew_server_cancel(crew_server *server, void *route);

/* Starts to take requests; returns at once. */
CREW_NODISCARD CREW_API crew_status crew_server_start(crew_server *server, crew_error *why);

/* Waits until somebody stops the server, then drains it: no new requests, what is in flight is finished and
 * answered, within drain_ms. CREW_OK: all was. CREW_TIMEOUT: it was not, or crew_server_stop was called
 * again; the rest is answered by nobody (a broker gives it to another worker). Called by one thread. */
CREW_NODISCARD CREW_API crew_status crew_server_wait(crew_server *server);

/* crew_server_start and crew_server_wait. */
CREW_NODISCARD CREW_API crew_status crew_server_run(crew_server *server);

/* Any thread, and signal handlers. A crew_server_listen that waits returns. The second call ends the drain at
 * once. */
CREW_API void crew_server_stop(crew_server *server);

/* Stops it if need be, without drain; waits for handlers that still run. Deferred calls may be completed
 * afterwards, without effect. NULL is fine. Not from a handler. */
CREW_API void crew_server_free(crew_server *server);

/* Stepped servers: readable while requests wait. Borrowed; -1 if the server is not stepped. */
CREW_API int crew_server_fd(const crew_server *server);
/* Handles what waits, up to max calls, on this thread; returns how many. */
CREW_API size_t crew_server_step(crew_server *server, size_t max);

/* Counts since the start; read without stopping anything, so they may be a message apart. */
typedef struct crew_server_stats {
    uint64_t received;    /* messages */
    uint64_t calls;       /* decoded, notifications and invalid ones included */
    uint64_t replied;     /* messages settled with an answer */
    uint64_t done;        /* messages settled without one: notifications, expired, nowhere to answer */
    uint64_t requeued;    /* given back unstarted */
    uint64_t rejected;    /* undecodable, nowhere to answer */
    uint64_t malformed;   /* messages that could not be decoded */
    uint64_t expired;     /* dropped unstarted, their time being over */
    uint64_t shed;        /* answered and not run: for lack of room or time, or for having been redelivered */
    uint64_t redelivered; /* messages that a worker had had before */
    uint64_t dropped;     /* settled after their connection was lost */
    uint64_t lost;        /* answers that were not written: their peers have gone, or do not read */
    uint64_t unanswerable; /* messages whose calls want answers, without an address for them */
    uint64_t in_flight;    /* messages, now */
    uint64_t listening;    /* endpoints that are open, now */
} crew_server_stats;
CREW_API void crew_server_stats_get(const crew_server *server, crew_server_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
