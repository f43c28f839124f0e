/* HTTP as a worker speaks it: requests over a stream, and their answers in the same order. */
#ifndef TRANSPORT_HTTP_SESSION_H
#define TRANSPORT_HTTP_SESSION_H

#include "transport/http_rules.h"
#include "transport/stream.h"

/* An endpoint's: stream_set.shared. */
struct http_shared {
    struct http_rules rules;
    crew_buffer head, body; /* spare ones */
    int64_t dated_s;        /* when date was */
    char date[48];          /* the field */
};

void http_shared_fini(struct http_shared *shared);

extern const struct stream_session stream_http;

#endif
