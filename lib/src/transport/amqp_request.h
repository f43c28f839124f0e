/* From what the broker delivers to a request: where its answer goes, and how its caller names it, in the ways
 * of AMQP 0-9-1 and of the other protocols that come through the broker's plugins. */
#ifndef TRANSPORT_AMQP_REQUEST_H
#define TRANSPORT_AMQP_REQUEST_H

#include "transport/amqp_link.h"

/* A request's mine, in its arena. */
struct amqp_route {
    uint64_t tag;
    crew_string correlation_id;
    const char *exchange; /* where the answer is published, and with which key */
    crew_string key;
};

/* Fills an empty message; but for deadlines, which are the worker's. False without memory. */
bool amqp_request_read(crew_message *m, const struct amqp_event *e);

/* Whether publishing the answer may cost the channel or the connection, by the requester's doing: by a
 * malformed address of direct reply-to, or a key of its choice that is not allowed. */
bool amqp_route_is_risky(const struct amqp_route *route);

/* Publishes a request's answer. False without memory. */
bool amqp_answer_publish(struct amqp_link *link, const crew_message *m, unsigned channel);

#endif
