/* HTTP as a caller speaks it: connections that are kept, each with one call at a time. */
#ifndef TRANSPORT_HTTP_CALLER_H
#define TRANSPORT_HTTP_CALLER_H

#include "transport/proxy.h"

#include <rpcrew/impl/transport.h>

extern const struct crew_transport_ops http_caller_ops;

#define HTTP_CALLER_OPTIONS                                                                          \
    PROXY_OPTION, { "query", NULL, 0, 0, "caller: what the path ends with, behind a '?'" },          \
        { "bearer_file", NULL, 0, 0, "caller: a file whose text is sent as Authorization: Bearer" }, \
        { "keep_ms", NULL, 0, 3600000, "caller: how long a connection without calls is kept" }

#endif
