/* Connecting through a proxy for HTTP: CONNECT (RFC 9110, section 9.3.6), and then the connection is the
 * host's. */
#ifndef TRANSPORT_PROXY_H
#define TRANSPORT_PROXY_H

#include "transport/http_message.h"

#include <rpcrew/impl/transport.h>

/* The way through it, over one connection. All zero at its beginning. */
struct proxy {
    bool asked;
    crew_buffer request;
    size_t written;
    struct http_message answer;
    char why[160]; /* it is none */
};

/* Whether the url names one by proxy=; what it names is checked by proxy_check (CREW_BAD_ARGUMENT). */
bool proxy_is_wanted(const crew_url *url);
CREW_NODISCARD crew_status proxy_check(const crew_url *url, crew_error *why);

/* Goes on, over a socket that is connected to the proxy and does not block: 1: it is the host's now; 0: not
 * yet; -1: it never will be, why says it. */
int proxy_greet(struct proxy *proxy, int fd, const crew_url *url, size_t host, unsigned port);
void proxy_end(struct proxy *proxy);

/* dial_tcp to the url's host, through the proxy if it names one. */
int proxy_dial(const crew_transport_config *config, unsigned port, crew_error *why);

#define PROXY_OPTION \
    { "proxy", NULL, 0, 0, "caller: http://[user:password@]host:port, which is asked to CONNECT" }

#endif
