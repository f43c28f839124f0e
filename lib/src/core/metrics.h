/* Counting, and writing what was counted. rpcrew/metrics.h has what users see of it. */
#ifndef CORE_METRICS_H
#define CORE_METRICS_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/metrics.h>

#include <stdatomic.h>

enum crew_metrics_side { CREW_SIDE_SERVER, CREW_SIDE_CLIENT, CREW_SIDES };

/* The end of a call. Texts are copied where they are kept. */
struct crew_metrics_end {
    crew_string method;
    const char *endpoint, *protocol;
    const char *error;                 /* what went wrong, in a word; NULL: nothing */
    int64_t code;                      /* of the error; 0: none */
    bool free_code;                    /* it is of a service's own, which its callers may choose; */
    bool free_method;                  /* the method is of no bounded set */
    int64_t total_ns, wait_ns, run_ns; /* the last two are a server's; run_ns -1: it was not run */
    size_t request_bytes, response_bytes;
};

/* Any thread, without locks. */
void crew_metrics_count(crew_metrics *metrics, enum crew_metrics_side side,
                        const struct crew_metrics_end *end);

/* What clients of one URL have in common. */
enum crew_client_count {
    CREW_CLIENT_UP,          /* connections that are open */
    CREW_CLIENT_OUTSTANDING, /* calls */
    CREW_CLIENT_RESENT,
    CREW_CLIENT_RETRIED,
    CREW_CLIENT_STRAY_REPLIES,
    CREW_CLIENT_BAD_REPLIES,
    CREW_CLIENT_COUNTS
};
struct crew_client_counts {
    struct crew_client_counts *next;
    char *endpoint;
    atomic_uint_fast64_t counts[CREW_CLIENT_COUNTS];
};

/* Those of the endpoint, made if need be, for as long as the metrics are there; beyond the most endpoints,
 * those of "_OTHER". NULL without memory. */
struct crew_client_counts *crew_metrics_client(crew_metrics *metrics, const char *endpoint);

crew_metrics *crew_metrics_hold(crew_metrics *metrics);

/* Appends them all, in the text format. */
void crew_metrics_write(const crew_metrics *metrics, crew_buffer *out);

/* A metric's two lines of comment, and a label's value, escaped. */
void crew_metrics_head(crew_buffer *out, const char *name, const char *type, const char *help);
void crew_metrics_label(crew_buffer *out, const char *value, size_t size);

#endif
