/* The two ends of a transport without the library around them: what is on the wire is up to the test. The
 * test's own thread drives them. */
#ifndef SUPPORT_RAW_H
#define SUPPORT_RAW_H

#include "support/test.h"

#include "core/queue.h"

#include <rpcrew/impl/transport.h>

struct raw_end {
    crew_url *url;
    const struct crew_transport_ops *ops;
    void *state;
    crew_transport_config config;
    crew_message_pool messages;
    crew_error lost;
    crew_queue queue;         /* only woken */
    const char *content_type; /* of requests */
    unsigned timeout_ms;      /* of requests; 0: they have no deadline */
    crew_list received;
    crew_list outgoing;   /* not taken yet */
    size_t answers;       /* a server's: that it was given by raw_settle */
    size_t told[2];       /* what became of them: not written; written */
    bool deaf;            /* is not driven while others are */
    struct raw_end *next; /* of all that are open: where one is driven, all are */
};

/* Opens a caller's end that was prepared, while the others, and worker if it is none of them, are driven on a
 * thread: some callers' opening wants an answer. */
crew_status raw_try(struct raw_end *end, struct raw_end *worker, crew_error *why);
/* The same of raw_open. */
void raw_open_to(struct raw_end *end, const char *url, struct raw_end *worker);

/* Opens one end of a URL; fails the test if it cannot. */
void raw_open(struct raw_end *end, const char *url, bool server);
/* Prepares an end without opening it, for tests that do that themselves; raw_fini frees what it is. */
void raw_prepare(struct raw_end *end, const char *url, bool server);
void raw_fini(struct raw_end *end);
/* Drives the end for a moment. */
void raw_drive(struct raw_end *end);
/* Gives back what was never written, if unsent is not NULL. Of a server, each answer must have been told of.
 */
void raw_close(struct raw_end *end, crew_list *unsent);

/* Drives the end until one more message has come; fails the test after ten seconds. The caller's. */
crew_message *raw_next(struct raw_end *end);
/* The same until a message of this kind has come; the others are freed. */
crew_message *raw_next_of(struct raw_end *end, crew_message_kind kind);
/* Drives the end for a moment; nothing must have come but that requests were written, which is dropped. */
void raw_nothing(struct raw_end *end);

/* A client's request. correlation is what its events carry. */
void raw_request(struct raw_end *end, crew_string body, uint32_t correlation, bool one_way);
/* A server's settlement; moves the request. reply may be NULL. */
void raw_settle(struct raw_end *end, crew_message *request, crew_message_kind kind, const char *reply);

/* Sends a request and returns its reply's text, "" for none within wait_ms; for tests of servers. */
const char *raw_call(struct raw_end *end, const char *body, crew_arena *arena);

#endif
