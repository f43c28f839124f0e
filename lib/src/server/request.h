/* A request's way through a server:
 *
 *   recv -> [waiting] -> start: decode, dispatch, encode -> [endpoint's queue] -> send
 *
 * from the endpoints' messages to the pool's jobs, and back as settlements. */
#ifndef SERVER_REQUEST_H
#define SERVER_REQUEST_H

#include "server/server.h"

/* What the server's pool does with requests. */
extern const struct crew_pool_work crew_request_work;

/* Gives back what nobody has started, where the transport can by then. */
void crew_request_give_back(crew_server *server, crew_requeue when);

/* Members of the endpoints' owner. Settlements of a connection that is gone are dropped: a broker gives their
 * messages to somebody else. */
void crew_request_received(struct crew_endpoint *endpoint, crew_list *messages);
void crew_request_sending(struct crew_endpoint *endpoint, crew_list *messages);
void crew_request_answered(struct crew_endpoint *endpoint, const crew_message *message, crew_status status);
/* The answer's calls have run: each is told that its result cannot be had. */
bool crew_request_too_large(struct crew_endpoint *endpoint, crew_message *message);

#endif
