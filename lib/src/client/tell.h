/* Who observes a client is told, and its metrics. */
#ifndef CLIENT_TELL_H
#define CLIENT_TELL_H

#include "client/client.h"

/* A call has ended, so. bytes: of its answer, 0: none. Before its completion; without the lock. */
void crew_client_tell_call(const crew_client *client, const struct crew_pending *call, const crew_error *why,
                           size_t bytes);
/* why may be NULL. On the endpoint's thread. */
void crew_client_tell_change(const crew_client *client, crew_change change,
                             const struct crew_endpoint *endpoint, const char *why);

/* Whether anybody wants to know when a call started. */
static inline bool crew_client_is_observed(const crew_client *client)
{
    return client->counts || atomic_load(&client->observer_count);
}

#endif
