/* HTTP as a worker speaks it: requests over a stream, and their answers in the same order. */
#ifndef TRANSPORT_HTTP_SESSION_H
#define TRANSPORT_HTTP_SESSION_H

#include "transport/http_reply.h"
#include "transport/stream.h"

/* stream_set.shared is a struct http_shared. */
extern const struct stream_session stream_http;

#endif
