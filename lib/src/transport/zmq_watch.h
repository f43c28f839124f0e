/* What libzmq tells of a socket's connections. */
#ifndef TRANSPORT_ZMQ_WATCH_H
#define TRANSPORT_ZMQ_WATCH_H

#include "transport/zmq_end.h"

struct zmq_watch {
    void *monitor; /* to be polled */
    bool connects;
    unsigned peers;    /* connections with their handshake done */
    unsigned failures; /* handshakes that failed, and whose end is still to be told */
    const char *lost;  /* why the last peer has gone, or a connecting socket has no way back to one; NULL: it
                          has not */
};

crew_status zmq_watch_start(struct zmq_watch *watch, struct zmq_end *end, crew_error *why);
/* Takes note of what there is. */
void zmq_watch_read(struct zmq_watch *watch);
/* Before the socket is closed. */
void zmq_watch_stop(struct zmq_watch *watch, struct zmq_end *end);

#endif
