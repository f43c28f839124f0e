/* What all requests of a caller begin with, by its URL: over HTTP and to WebSocket. */
#ifndef TRANSPORT_HTTP_HEAD_H
#define TRANSPORT_HTTP_HEAD_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/url.h>

#include <time.h>

/* Appends the request line and the fields that all requests to the url's host have, but for the method's name
 * in front. */
void http_write_head(const crew_url *url, size_t host, crew_buffer *out);
/* Appends the field Authorization from user and password or from bearer_file=, if there are any.
 * CREW_BAD_ARGUMENT: that cannot be read; CREW_NO_MEMORY. */
CREW_NODISCARD crew_status http_write_credentials(const crew_url *url, crew_buffer *out, crew_error *why);

/* When that file was last changed; false: there is none, or it is none that can be looked at again. */
bool http_credentials_changed(const crew_url *url, struct timespec *when);

/* Whether the url is one over TLS; the port of a host of its, also where it names none. */
bool http_is_secure(const crew_url *url);
unsigned http_port(const crew_url *url, size_t host);

#endif
