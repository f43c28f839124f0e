/* What a server is made of. Its life is in server.c, a request's way through it in request.c, what may be on
 * that way in intake.c. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "io/endpoint.h"
#include "server/in_flight.h"
#include "server/pool.h"

#include <rpcrew/metrics.h>
#include <rpcrew/observe.h>

enum { CREW_ENDPOINTS_MAX = 64, CREW_OBSERVERS_MAX = 8 };

enum crew_count {
    CREW_COUNT_RECEIVED,
    CREW_COUNT_CALLS,
    CREW_COUNT_REPLIED,
    CREW_COUNT_DONE,
    CREW_COUNT_REQUEUED,
    CREW_COUNT_REJECTED,
    CREW_COUNT_MALFORMED,
    CREW_COUNT_EXPIRED,
    CREW_COUNT_SHED,
    CREW_COUNT_REDELIVERED,
    CREW_COUNT_DROPPED,
    CREW_COUNT_LOST,
    CREW_COUNT_UNANSWERABLE,
    CREW_COUNTS
};

struct crew_server {
    const crew_dispatcher *dispatcher;
    crew_server_options options;
    struct crew_pool pool;
    struct crew_endpoint *endpoints[CREW_ENDPOINTS_MAX];
    size_t endpoint_count;
    crew_arena scratch; /* of whoever steps */
    int control;        /* an eventfd: stops and closed endpoints */
    atomic_uint refs;   /* the owner's, and one a message not yet settled */
    atomic_uint stops;  /* how often crew_server_stop was called */
    atomic_bool started, stopping;
    struct crew_tokens tokens; /* whose draining is the server's */
    struct crew_in_flight in_flight;
    bool joined;
    crew_server_hooks observers[CREW_OBSERVERS_MAX];
    size_t observer_count;
    crew_metrics *metrics;                 /* NULL: nobody asked for them */
    bool observes_calls, observes_answers; /* some of them do */
    atomic_uint_fast64_t counts[CREW_COUNTS];
};

/* Whether a server could listen there, as far as the URL itself says. */
CREW_NODISCARD crew_status crew_server_check_url(const char *url, crew_error *why);

static inline crew_server *crew_server_of(const struct crew_endpoint *endpoint)
{
    return endpoint->options.context;
}

static inline void crew_server_count(crew_server *server, enum crew_count what, size_t by)
{
    atomic_fetch_add_explicit(&server->counts[what], by, memory_order_relaxed);
}

/* Every message received holds a reference until it is settled, so that calls deferred beyond the server's
 * end can be completed, without effect, at any time. */
void crew_server_unref(crew_server *server);

#endif
