/* A worker's end over the process's own input and output, which it takes for itself. */
#ifndef TRANSPORT_STDIO_H
#define TRANSPORT_STDIO_H

#include "transport/stream_worker.h"

/* Of a struct stream_worker, or what begins with one. */
CREW_NODISCARD crew_status stdio_worker_open(void *state, const crew_transport_config *config,
                                             crew_error *why);
void stdio_worker_close(void *state, unsigned linger_ms, crew_list *unsent);

#endif
