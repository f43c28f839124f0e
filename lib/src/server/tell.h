/* Who observes a server is told, and the log. */
#ifndef SERVER_TELL_H
#define SERVER_TELL_H

#include "server/server.h"
#include "service/ending.h"

/* What the endpoint is called: one and the same pointer for those of the same URL. */
static inline const char *crew_label_of(const struct crew_endpoint *endpoint)
{
    const char *label = atomic_load(&endpoint->label);
    return label ? label : crew_url_text(endpoint->url);
}

/* A call of the message has ended. */
void crew_tell_call(const crew_call *call, const crew_message *message);
/* All that the message is has ended, before its calls were known, or run. protocol: NULL: it was not looked
 * at. */
void crew_tell_message(const crew_message *message, const crew_protocol *protocol, crew_ending ending,
                       const char *reason);
/* Counts it. */
void crew_tell_metrics(crew_metrics *metrics, const crew_call_end *end);
void crew_tell_answer(const struct crew_endpoint *endpoint, const crew_message *message, crew_status status);
/* Of the peer's first message; on its endpoint's thread. */
void crew_tell_peer(const struct crew_endpoint *endpoint, crew_peer *peer);
/* endpoint, peer and why may be NULL. */
void crew_tell_change(const crew_server *server, crew_change change, const struct crew_endpoint *endpoint,
                      const char *peer, const char *why);

#endif
