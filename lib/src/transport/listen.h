/* Sockets to listen on: made, or inherited from whoever started the process. */
#ifndef TRANSPORT_LISTEN_H
#define TRANSPORT_LISTEN_H

#include "transport/stream_worker.h"

#include <sys/socket.h>

/* These open the sockets that the worker's URL asks for. Whatever they have opened is the worker's, also on
 * failure: CREW_BAD_ARGUMENT, CREW_SYSTEM. */
crew_status listen_tcp(struct stream_worker *worker, crew_error *why);
crew_status listen_unix(struct stream_worker *worker, crew_error *why);
crew_status listen_inherited(struct stream_worker *worker, crew_error *why);

/* Whether the URL says listen=fd:…: sockets that systemd hands over, by LISTEN_FDS, LISTEN_PID and
 * LISTEN_FDNAMES (sd_listen_fds(3)); fd:NAME, or fd:3 for a number. */
bool listen_inherits(const crew_url *url);

/* Says so, where others than this machine can reach an address: what goes over a network in the clear should
 * be meant so. */
void listen_in_the_clear(const crew_url *url, const struct sockaddr *address);

#define LISTEN_OPTIONS { "listen", NULL, 0, 0, "worker: fd:NAME, sockets handed over by systemd" }

#endif
