/* What a worker makes of an HTTP request, by its head alone: who may ask, for what, in which types. */
#ifndef TRANSPORT_HTTP_RULES_H
#define TRANSPORT_HTTP_RULES_H

#include "transport/http_message.h"

#include <rpcrew/url.h>

/* An endpoint's, from its URL; borrows it. */
struct http_rules {
    const crew_url *url;
    crew_string path; /* without a '/' at its end */
    bool anywhere;    /* whatever the path: somebody else has looked at it */
    bool lists;       /* origins */
    bool strict;      /* only the protocols' own content types */
    bool shows;       /* the page, and the document that it reads */
    bool reports;     /* how the worker is, */
    bool only;        /* and nothing else */
    unsigned notify_status;
    size_t head_most, body_most;
};

void http_rules_read(struct http_rules *rules, const crew_url *url, size_t body_most);

enum http_wish {
    HTTP_REFUSED,   /* status and words: why */
    HTTP_CALLS,     /* the body is calls, of content_type (NULL: its first bytes tell) */
    HTTP_SEES,      /* the page */
    HTTP_DISCOVERS, /* the service's description */
    HTTP_REPORTS,   /* how the worker is: words: by which name */
    HTTP_ASKS,      /* what is allowed (OPTIONS) */
    HTTP_UPGRADES   /* to WebSocket */
};

struct http_verdict {
    enum http_wish wish;
    unsigned status;
    const char *words;
    const char *content_type; /* for the process's life */
    const char *origin; /* a page of whose may read the answer; in the message; NULL: nobody's need be told */
};

void http_judge(const struct http_rules *rules, const struct http_message *message,
                struct http_verdict *verdict);

/* Appends an error of JSON-RPC's that belongs to no call, as the body of a refusal. */
void http_error_body(unsigned status, const char *words, crew_buffer *out);

const char *http_status_text(unsigned status);

#define HTTP_RULES_OPTIONS                                                                                     \
    {                                                                                                          \
        "origin", NULL, 0, 0, "worker: whose pages may call, as http://host; * for all; can be repeated", true \
    },                                                                                                         \
        { "page", "yes|no", 0, 0, "worker: GET shows the methods, and openrpc.json describes them" },          \
        { "reports", "health|yes|no|only", 0, 0,                                                               \
          "worker: GET /healthz and /readyz tell how it is; yes: and /metrics; only: those alone" },           \
        { "strict", "yes|no", 0, 0, "worker: no content types but the protocols' own" },                       \
        { "notify_status", "204|200", 0, 0, "worker: the status of what has no answer" },                      \
        { "head_bytes", NULL, 1024, 64 << 10, "worker: of a request's head" }

#endif
