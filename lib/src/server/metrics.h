/* Counts of calls, by method, protocol, endpoint and how they ended, as Prometheus reads them. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/observe.h>

struct crew_metrics;

/* NULL without memory. */
struct crew_metrics *crew_metrics_new(void);
void crew_metrics_free(struct crew_metrics *metrics);

/* The observer of calls: any thread, without locks. context: the metrics. */
void crew_metrics_call(void *metrics, const crew_call_end *end);

/* Appends them all, in the text format. Any thread. */
void crew_metrics_write(const struct crew_metrics *metrics, crew_buffer *out);

/* A metric's two lines of comment, and a label's value, escaped. */
void crew_metrics_head(crew_buffer *out, const char *name, const char *type, const char *help);
void crew_metrics_label(crew_buffer *out, const char *value, size_t size);

#endif
