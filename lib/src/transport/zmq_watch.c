/* libzmq's monitor. A connecting socket is given up at the first loss, whatever it was: after some (a peer
 * that breaks the protocol, a message beyond the limit, a handshake that was refused) libzmq never tries
 * again, and which those are depends on its version. The core opens a new one. */
#include "transport/zmq_watch.h"

#include "transport/dial.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum {
    OLD_MS = 200,   /* after which a connection of whose handshake nothing is told may be one of ZMTP 2 */
    OLD_LEAST = 12, /* what such a peer has sent by then, which is shorter than a greeting of ZMTP 3 */
    OLD_MOST = 63,
    OLD_BOUND_MS = 1000, /* the same at a bound socket, which takes whoever sends anything for one */
    TICK_MS = 20,
    RETRY_MOST_MS = 5000, /* beyond a connection's time: libzmq tells of each attempt */
    HANDSHAKE_FAILED = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
};

crew_status zmq_watch_start(struct zmq_watch *watch, struct zmq_end *end, crew_error *why)
{
    const int events = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CONNECT_DELAYED | ZMQ_EVENT_CONNECT_RETRIED |
                       ZMQ_EVENT_CLOSED | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
                       HANDSHAKE_FAILED | ZMQ_EVENT_DISCONNECTED;
    *watch = (struct zmq_watch){ .end = end, .heard_ms = crew_now_ms() };
    watch->monitor = zmq_end_monitor(end, events);
    return watch->monitor ? CREW_OK : zmq_end_failed(end, "monitoring", why);
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
    watch->failed = watch->failed || what == ZMQ_EVENT_CONNECT_RETRIED || what == ZMQ_EVENT_CLOSED ||
                    what == ZMQ_EVENT_DISCONNECTED || (what & HANDSHAKE_FAILED);
    watch->connected = what != ZMQ_EVENT_CONNECT_DELAYED && what != ZMQ_EVENT_CONNECT_RETRIED &&
                       what != ZMQ_EVENT_CLOSED && what != ZMQ_EVENT_DISCONNECTED;
    if (what == ZMQ_EVENT_CONNECTED && dial_met_itself(value)) {
        watch->lost = "the connection met itself: nobody listens there";
    } else if (what == ZMQ_EVENT_CONNECTED) {
        watch->fd = value;
    } else if (what == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
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

/* libzmq tells nothing of a handshake with an old peer. Bound, it can send to somebody then; connected, it
 * has got a short greeting. */
static bool has_old_peer(const struct zmq_watch *watch, int64_t now_ms)
{
    int events = 0;
    size_t size = sizeof events;
    struct tcp_info info = { 0 };
    socklen_t info_size = sizeof info;
    if (!watch->end->connects)
        return watch->accepted && now_ms - watch->heard_ms >= OLD_BOUND_MS &&
               zmq_getsockopt(watch->end->socket, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLOUT);
    return watch->connected && now_ms - watch->heard_ms >= OLD_MS &&
           getsockopt(watch->fd, IPPROTO_TCP, TCP_INFO, &info, &info_size) == 0 &&
           info.tcpi_bytes_received >= OLD_LEAST && info.tcpi_bytes_received <= OLD_MOST;
}

/* Why a connecting socket leads nowhere; NULL: it may yet. libzmq tells of each attempt to connect: when it
 * no longer does, it no longer tries. */
static const char *gives_up(const struct zmq_watch *watch, int64_t now_ms)
{
    int64_t silent_ms = now_ms - watch->heard_ms, most = (int64_t)watch->end->config->connect_timeout_ms;
    if (!watch->end->connects || watch->end->inproc || watch->peers || watch->old_peer)
        return NULL;
    if (watch->connected)
        return silent_ms >= most ? "it took the connection, and made no handshake" : NULL;
    return silent_ms >= most + RETRY_MOST_MS ? "libzmq has given up connecting" : NULL;
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
    if (!watch->peers && !watch->old_peer)
        watch->old_peer = has_old_peer(watch, now_ms);
    watch->had = watch->had || watch->old_peer;
    if (!watch->lost)
        watch->lost = gives_up(watch, now_ms);
}

crew_status zmq_watch_await(struct zmq_watch *watch, int64_t until_ms, crew_error *why)
{
    const struct zmq_end *end = watch->end;
    zmq_pollitem_t item = { .socket = watch->monitor, .events = ZMQ_POLLIN };
    bool tried = false;
    while (!tried && crew_now_ms() < until_ms) {
        if (!crew_opening_waits_for(end->config->opening, -1))
            return crew_error_set(why, CREW_NO_SERVICE, "nobody wants it any more");
        (void)zmq_end_poll(&item, 1, TICK_MS);
        zmq_watch_read(watch, crew_now_ms());
        if (watch->connected || watch->peers)
            return CREW_OK;
        tried = watch->failed;
    }
    return crew_error_set(why, CREW_NO_SERVICE, "connecting to %s: %s", end->address,
                          watch->lost ? watch->lost : "refused, or unreachable");
}

bool zmq_watch_has_peer(const struct zmq_watch *watch)
{
    return (watch->peers || watch->old_peer) && !watch->lost;
}

int zmq_watch_due(const struct zmq_watch *watch, int64_t now_ms)
{
    bool connects = watch->end->connects;
    int64_t since = now_ms - watch->heard_ms, most = connects ? OLD_MS : OLD_BOUND_MS;
    if (connects && !watch->connected)
        most = RETRY_MOST_MS + (int64_t)watch->end->config->connect_timeout_ms;
    else if (watch->peers || watch->old_peer || (!connects && !watch->accepted))
        return -1;
    return since < most ? (int)(most - since) : connects ? OLD_MS : OLD_BOUND_MS; /* nothing tells of it */
}
