/* Connections over TCP. */
#ifndef TRANSPORT_DIAL_H
#define TRANSPORT_DIAL_H

#include <rpcrew/impl/transport.h>

/* A connected socket that does not block, with TCP_NODELAY and keepalive's default, or -1 with *why
 * (CREW_NO_SERVICE, CREW_SYSTEM). The name's addresses are tried one after another, each for its share of
 * timeout_ms; finding them may take longer, and is the one thing that opening (NULL: none) does not end. On
 * success the opening still waits for the socket. */
int dial_tcp(const char *host, unsigned port, unsigned timeout_ms, crew_opening *opening, crew_error *why);

/* How long the other end's host may confirm nothing, until the connection counts as lost: it has lost its
 * power, or the way to it is cut, and no word of that comes. By the URL's keepalive_ms. */
unsigned dial_keepalive_ms(const crew_url *url);
/* Asks it now and then while nothing is said, which notices that; of what has been sent stream_is_unheard
 * does. */
void dial_keep_alive(int fd, unsigned ms);

#define KEEPALIVE_OPTION                    \
    { "keepalive_ms", NULL, 2000, 65000000, \
      "how long the other end's host may confirm nothing, until the connection is lost" }

/* Where nobody listens on an ephemeral port, a connection to it can meet itself. One that has ends without a
 * trace when it is closed: in TIME_WAIT it would keep the port from the service whose it is. */
bool dial_met_itself(int fd);

#endif
