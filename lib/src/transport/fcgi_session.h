/* FastCGI as a worker speaks it (fastcgi-archives.github.io): requests that another server hands on, one at a
 * time over a connection. */
#ifndef TRANSPORT_FCGI_SESSION_H
#define TRANSPORT_FCGI_SESSION_H

#include "transport/stream.h"

/* stream_set.shared is a struct http_shared. */
extern const struct stream_session stream_fcgi;

#endif
