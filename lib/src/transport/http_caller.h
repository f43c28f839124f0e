/* HTTP as a caller speaks it: connections that are kept, each with one call at a time. */
#ifndef TRANSPORT_HTTP_CALLER_H
#define TRANSPORT_HTTP_CALLER_H

#include "transport/proxy.h"

#include <rpcrew/impl/transport.h>

extern const struct crew_transport_ops http_caller_ops;

/* Appends the request line and the fields that all requests to the url's host have, but for the method's name
 * in front; Host, and Authorization from user and password or from bearer_file=. CREW_BAD_ARGUMENT: that
 * cannot be read; CREW_NO_MEMORY. */
CREW_NODISCARD crew_status http_write_head(const crew_url *url, size_t host, crew_buffer *out,
                                           crew_error *why);

/* Whether the url is one over TLS; the port of a host of its, also where it names none. */
bool http_is_secure(const crew_url *url);
unsigned http_port(const crew_url *url, size_t host);

#define HTTP_CALLER_OPTIONS                                                                          \
    PROXY_OPTION, { "query", NULL, 0, 0, "caller: what the path ends with, behind a '?'" },          \
        { "bearer_file", NULL, 0, 0, "caller: a file whose text is sent as Authorization: Bearer" }, \
        { "keep_ms", NULL, 0, 3600000, "caller: how long a connection without calls is kept" }

#endif
