/* Calls that come back: where both ends of a connection may call, a client serves what its service asks of it
 * (crew_client_options.dispatcher), one after another, on a thread of its own, so that a handler may call
 * too. */
#ifndef CLIENT_SERVING_H
#define CLIENT_SERVING_H

#include "core/queue.h"

#include <rpcrew/dispatcher.h>
#include <rpcrew/impl/protocol.h>

#include <stdatomic.h>

/* All zero is one that serves nothing. */
struct crew_serving {
    const crew_dispatcher *dispatcher;
    crew_handle_options options;
    crew_queue queue; /* of requests, each with its endpoint */
    pthread_t thread;
    atomic_bool stop;
};

/* dispatcher: borrowed; NULL: none. */
CREW_NODISCARD crew_status crew_serving_start(struct crew_serving *serving, const crew_dispatcher *dispatcher,
                                              const crew_limits *limits, crew_error *why);
/* When the endpoints' threads have ended: waits for a handler that still runs. */
void crew_serving_stop(struct crew_serving *serving);

/* Whether a message is calls, and none of it replies. */
bool crew_serving_wants(const crew_protocol *protocol, const crew_limits *limits, crew_string bytes);

/* Takes such a message, and sees to its answer: CREW_SETTLE_REPLY in its endpoint's queue. On an endpoint's
 * thread. */
void crew_serving_take(struct crew_serving *serving, const crew_protocol *protocol, crew_message *message);

/* What of answers to a peer's calls waits for it to be read. */
struct crew_serving_answers {
    size_t count, bytes;
};

/* Whether an answer goes over the connection that its call came by, and not too many wait there already: one
 * that calls and does not read loses them. */
struct crew_endpoint;
bool crew_serving_keeps(const struct crew_endpoint *endpoint, const crew_message *message,
                        struct crew_serving_answers *answers);

#endif
