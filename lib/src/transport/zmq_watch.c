/* libzmq's monitor. A connecting socket is given up at the first loss, whatever it was: after some (a peer
 * that breaks the protocol, a message beyond the limit, a handshake that was refused) libzmq never tries
 * again, and which those are depends on its version. The core opens a new one. */
#include "transport/zmq_watch.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>

enum {
    HANDSHAKE_FAILED = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
};

crew_status zmq_watch_start(struct zmq_watch *watch, struct zmq_end *end, crew_error *why)
{
    static atomic_uint count; /* a name that was used may still be bound for a moment */
    char address[64];
    *watch = (struct zmq_watch){ .connects = end->connects };
    (void)snprintf(address, sizeof address, "inproc://rpcrew-monitor-%u", atomic_fetch_add(&count, 1));
    int events =
        ZMQ_EVENT_CONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | HANDSHAKE_FAILED | ZMQ_EVENT_DISCONNECTED;
    if (zmq_socket_monitor(end->socket, address, events) != 0)
        return zmq_end_failed(end, "monitoring", why);
    watch->monitor = zmq_end_socket(ZMQ_PAIR);
    if (!watch->monitor)
        return zmq_end_failed(end, "monitoring", why);
    zmq_end_set(watch->monitor, ZMQ_LINGER, 0);
    return zmq_connect(watch->monitor, address) == 0 ? CREW_OK : zmq_end_failed(end, "monitoring", why);
}

void zmq_watch_stop(struct zmq_watch *watch, struct zmq_end *end)
{
    int result = zmq_socket_monitor(end->socket, NULL, 0);
    (void)result;
    if (watch->monitor)
        zmq_close(watch->monitor);
    watch->monitor = NULL;
}

static bool more_frames(void *socket)
{
    int more = 0;
    size_t size = sizeof more;
    return zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) == 0 && more;
}

/* Where nobody listens on an ephemeral port, a connection to it can meet itself. */
static bool is_with_itself(int fd)
{
    struct sockaddr_storage own, peer;
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
    memset(&own, 0, sizeof own);
    memset(&peer, 0, sizeof peer);
    return getsockname(fd, (struct sockaddr *)&own, &own_size) == 0 &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_size) == 0 && own.ss_family != AF_UNIX &&
           own_size == peer_size && memcmp(&own, &peer, own_size) == 0;
}

static void on_event(struct zmq_watch *watch, unsigned what, int value)
{
    if (what == ZMQ_EVENT_CONNECTED && is_with_itself(value)) {
        watch->lost = "the connection met itself: nobody listens there";
    } else if (what == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
        watch->peers++;
    } else if (what & HANDSHAKE_FAILED) {
        watch->failures++;
        if (watch->connects)
            watch->lost = "the handshake failed";
    } else if (what == ZMQ_EVENT_DISCONNECTED && watch->failures) {
        watch->failures--;
    } else if (what == ZMQ_EVENT_DISCONNECTED && (watch->peers || watch->connects)) {
        watch->peers -= watch->peers > 0;
        if (!watch->peers && !watch->lost)
            watch->lost = "the peer has gone, or is none of ours";
    }
}

/* Each event: [event and value, address]. */
void zmq_watch_read(struct zmq_watch *watch)
{
    unsigned char event[6];
    while (zmq_recv(watch->monitor, event, sizeof event, ZMQ_DONTWAIT) == (int)sizeof event) {
        uint16_t what;
        int32_t value;
        memcpy(&what, event, sizeof what);
        memcpy(&value, event + sizeof what, sizeof value);
        while (more_frames(watch->monitor))
            if (zmq_recv(watch->monitor, event, 0, ZMQ_DONTWAIT) < 0)
                break;
        on_event(watch, what, value);
    }
}
