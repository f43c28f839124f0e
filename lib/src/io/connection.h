/* A transport's state and all that its operations touch, and the opening of it: a task, since it may block,
 * on DNS or on a host that does not answer, while deadlines pass. */
#ifndef IO_CONNECTION_H
#define IO_CONNECTION_H

#include "core/task.h"

#include <rpcrew/impl/transport.h>

struct crew_connection {
    const struct crew_transport_ops *ops;
    bool server;
    crew_url *url; /* a hold of its own */
    crew_transport_config config;
    crew_message_pool messages;
    crew_error lost; /* the transport's words */
    void *state;

    /* opening; state, config and failure are the task's meanwhile */
    struct crew_task task;
    struct crew_opening way;
    bool opening; /* and not concluded */
    crew_error failure;
};

/* Holds url; config's url, lost, queue and messages are set here. NULL without memory. */
struct crew_connection *crew_connection_new(const struct crew_transport_ops *ops, bool server, crew_url *url,
                                            const crew_transport_config *config, crew_queue *queue);

/* Starts to open. If no thread can be had for it, it is through at once. */
void crew_connection_open(struct crew_connection *connection);

/* Whether opening is through; then *why says how it went, with CREW_OK if it is open. */
bool crew_connection_is_through(struct crew_connection *connection, crew_error *why);

/* One that is still opening is left to its thread, which closes it and frees it; one that is open must have
 * been closed. NULL is fine. */
void crew_connection_free(struct crew_connection *connection);

#endif
