/* What a worker answers to an HTTP request, as bytes: over HTTP itself, or behind a server that speaks it
 * (CGI). */
#ifndef TRANSPORT_HTTP_REPLY_H
#define TRANSPORT_HTTP_REPLY_H

#include "transport/http_rules.h"

#include <rpcrew/impl/transport.h>

/* An endpoint's: what its requests have in common. */
struct http_shared {
    const crew_transport_config *config;
    struct http_rules rules;
    bool behind;            /* another server, which writes the status line */
    crew_buffer head, body; /* spare ones */
    int64_t dated_s;        /* when date was */
    char date[48];          /* the field */
};

void http_shared_fini(struct http_shared *shared);

/* What of a request its answer depends on. */
struct http_asker {
    enum http_wish wish;
    bool keeps_alive, old /* HTTP/1.0 */, head_only;
    char *origin; /* to be named in the answer; or NULL */
};

/* False without memory. */
bool http_ask(struct http_asker *asker, const struct http_message *message,
              const struct http_verdict *verdict);
void http_asker_fini(struct http_asker *asker);

/* Takes a request's fields, body, type and deadline into a message for the core; the body may be moved. */
CREW_NODISCARD crew_status http_give(const struct http_asker *asker, const struct http_verdict *verdict,
                                     struct http_message *request, crew_message *message);

/* Appends the answer that a settled message is, or the one that a verdict other than HTTP_CALLS is. A failure
 * is out's. */
void http_write_answer(struct http_shared *shared, const struct http_asker *asker,
                       const crew_message *message, crew_buffer *out);
void http_write_own(struct http_shared *shared, const struct http_asker *asker,
                    const struct http_verdict *verdict, crew_buffer *out);

#endif
