/* libzmq's monitor. A connecting socket is given up at the first loss, whatever it was: after some (a peer
 * that breaks the protocol, a message beyond the limit, a handshake that was refused) libzmq never tries
 * again, and which those are depends on its version. The core opens a new one. */
#include "transport/zmq_watch.h"

#include "transport/dial.h"

#include <stdatomic.h>
#include <stdio.h>

enum {
    OLD_MS = 1000, /* after which a connection that takes messages, and of whose handshake nothing is told, is
                      one of ZMTP 2 */
    RETRY_MOST_MS = 5000, /* beyond a connection's time: libzmq tells of each attempt */
    HANDSHAKE_FAILED = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
};

crew_status zmq_watch_start(struct zmq_watch *watch, struct zmq_end *end, crew_error *why)
{
    static atomic_uint count; /* a name that was used may still be bound for a moment */
    char address[64];
    *watch = (struct zmq_watch){ .end = end, .heard_ms = crew_now_ms() };
    (void)snprintf(address, sizeof address, "inproc://rpcrew-monitor-%u", atomic_fetch_add(&count, 1));
    int events = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CONNECT_DELAYED | ZMQ_EVENT_CONNECT_RETRIED |
                 ZMQ_EVENT_CLOSED | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | HANDSHAKE_FAILED |
                 ZMQ_EVENT_DISCONNECTED;
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

static void on_end(struct zmq_watch *watch)
{
    static const char gone[] = "the peer has gone, or is none of ours";
    if (watch->end->connects && !watch->lost)
        watch->lost = gone;
    /* Which one of a bound socket's it was is not told, and a stranger's may end without having failed. */
    watch->accepted -= watch->accepted > 0;
    if (watch->peers > watch->accepted)
        watch->peers = watch->accepted;
    if (watch->had && !watch->accepted && !watch->lost)
        watch->lost = gone;
}

static void on_event(struct zmq_watch *watch, unsigned what, int value)
{
    bool connects = watch->end->connects;
    watch->connected = what != ZMQ_EVENT_CONNECT_DELAYED && what != ZMQ_EVENT_CONNECT_RETRIED &&
                       what != ZMQ_EVENT_CLOSED && what != ZMQ_EVENT_DISCONNECTED;
    if (what == ZMQ_EVENT_CONNECTED && dial_met_itself(value)) {
        watch->lost = "the connection met itself: nobody listens there";
    } else if (what == ZMQ_EVENT_HANDSHAKE_SUCCEEDED || (what == ZMQ_EVENT_CONNECTED && watch->end->old)) {
        watch->peers++;
        watch->had = true;
    } else if (what == ZMQ_EVENT_ACCEPTED) {
        watch->accepted++;
    } else if ((what & HANDSHAKE_FAILED) && connects) {
        watch->lost = "the handshake failed";
    } else if (what == ZMQ_EVENT_DISCONNECTED) {
        on_end(watch);
        if (watch->on_end)
            watch->on_end(watch->context, value);
    }
}

/* Whether a bound socket can send to somebody although no handshake has succeeded. */
static bool has_old_peer(const struct zmq_watch *watch, int64_t now_ms)
{
    int events = 0;
    size_t size = sizeof events;
    return watch->accepted && now_ms - watch->heard_ms >= OLD_MS &&
           zmq_getsockopt(watch->end->socket, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLOUT);
}

/* Each event: [event and value, address]. */
void zmq_watch_read(struct zmq_watch *watch, int64_t now_ms)
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
        watch->heard_ms = now_ms;
    }
    if (watch->end->connects && !watch->lost && zmq_watch_due(watch, now_ms) == 0)
        watch->lost = "libzmq has given up connecting";
    if (!watch->end->connects && !watch->peers)
        watch->old_peer = has_old_peer(watch, now_ms);
    watch->had = watch->had || watch->old_peer;
}

bool zmq_watch_has_peer(const struct zmq_watch *watch)
{
    return (watch->peers || watch->old_peer) && !watch->lost;
}

int zmq_watch_due(const struct zmq_watch *watch, int64_t now_ms)
{
    int64_t since = now_ms - watch->heard_ms;
    int64_t most =
        watch->end->connects ? RETRY_MOST_MS + (int64_t)watch->end->config->connect_timeout_ms : OLD_MS;
    if (watch->end->connects ? watch->connected : watch->peers || !watch->accepted)
        return -1;
    if (since < most)
        return (int)(most - since);
    return watch->end->connects ? 0 : OLD_MS; /* again: nothing tells of it */
}
