/* Counts of calls by method, endpoint and how they ended, as Prometheus reads them. A server with
 * crew_server_options.metrics has some of its own, shown at /metrics; clients count where
 * crew_client_options.metrics says, which may be there. docs/running.md names them all. */
#ifndef RPCREW_METRICS_H
#define RPCREW_METRICS_H

#include <rpcrew/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Any thread may use them. */
typedef struct crew_metrics crew_metrics;

/* CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_metrics_new(crew_metrics **metrics);
/* Whoever counts there keeps them until it is freed itself. NULL is fine. */
CREW_API void crew_metrics_free(crew_metrics *metrics);

/* All of them in Prometheus' text format, version 0.0.4; the caller frees *text. CREW_NO_MEMORY: it is NULL.
 */
CREW_NODISCARD CREW_API crew_status crew_metrics_text(const crew_metrics *metrics, char **text);

/* The server's own, borrowed for its life; NULL: it has none, which clients take for "do not count". */
struct crew_server;
CREW_API crew_metrics *crew_server_metrics(struct crew_server *server);

#ifdef __cplusplus
}
#endif
#endif
