/* Who observes a client is told, and its metrics. */
#ifndef CLIENT_TELL_H
#define CLIENT_TELL_H

#include "client/client.h"

/* A call has ended, so. bytes: of its answer, 0: none. Before its completion; without the lock. */
void crew_client_tell_call(const crew_client *client, const struct crew_pending *call, const crew_error *why,
                           size_t bytes);
/* Of what the link's connection does, before link->up says so; why may be NULL. On its I/O thread. */
void crew_client_tell_change(struct crew_link *link, crew_change change, const char *why);
/* Those who have come since learn of a connection that is open. On the link's I/O thread. */
void crew_client_tell_newcomers(struct crew_link *link);

#endif
