/* What libzmq tells of a socket's connections. */
#ifndef TRANSPORT_ZMQ_WATCH_H
#define TRANSPORT_ZMQ_WATCH_H

#include "transport/zmq_end.h"

struct zmq_watch {
    void *monitor; /* to be polled */
    const struct zmq_end *end;
    void (*on_end)(void *context, int fd); /* a connection has ended; NULL: nobody asks */
    void *context;
    unsigned peers;    /* connections with their handshake done; of ZMTP 2 ones it is not told */
    unsigned accepted; /* connections of a bound socket, in whatever state */
    int64_t heard_ms;  /* when the latest event came, */
    bool connected;    /* and whether a connection was there then */
    bool failed;       /* some attempt has */
    bool old_peer;     /* of ZMTP 2 */
    int fd;            /* a connecting socket's connection; libzmq's */
    bool had;          /* a peer */
    const char *lost;  /* why the last peer has gone, or a connecting socket has no way back to one; NULL: it
                          has not */
};

crew_status zmq_watch_start(struct zmq_watch *watch, struct zmq_end *end, crew_error *why);
/* Takes note of what there is. */
void zmq_watch_read(struct zmq_watch *watch, int64_t now_ms);
/* Waits for a connecting socket's first attempt: CREW_NO_SERVICE if that fails. */
crew_status zmq_watch_await(struct zmq_watch *watch, int64_t until_ms, crew_error *why);
/* Something has been received: whoever sent that has shaken hands, whatever libzmq has told. */
static inline void zmq_watch_note_message(struct zmq_watch *watch)
{
    watch->old_peer = watch->old_peer || (watch->connected && !watch->peers);
}

bool zmq_watch_has_peer(const struct zmq_watch *watch);
/* When it wants to be read again at the latest: milliseconds, or -1. */
int zmq_watch_due(const struct zmq_watch *watch, int64_t now_ms);
/* Before the socket is closed. */
void zmq_watch_stop(struct zmq_watch *watch, struct zmq_end *end);

#endif
