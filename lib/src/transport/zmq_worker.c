/* A worker on ZeroMQ: a ROUTER. What it receives is [identity, …envelope…, body], and the answer goes back
 * behind the same frames.
 *
 * ROUTER is told to report peers that are gone or full instead of dropping in silence: answers for a full
 * peer wait, each still counted against the room for requests, and are lost only after send_timeout_ms. */
#include "transport/zmq_end.h"

#include <errno.h>
#include <stdlib.h>

enum {
    ENVELOPE_BYTES = 4096, /* of all of its frames */
    RETRY_MS = 5,          /* for answers to full peers */
    FULL_PEERS_MOST = 64,
    SEND_TIMEOUT_MS = 1000,
};

static const int64_t DEADLINE_MOST_MS = (int64_t)365 * 24 * 3600 * 1000;

struct route {
    size_t count;
    crew_string frames[];
};

/* A peer that does not read: its answers, in order. */
struct full_peer {
    struct full_peer *next;
    int64_t since_ms;
    crew_list waiting;
    crew_string identity;
    char bytes[256]; /* identities have at most 255 */
};

struct worker {
    struct zmq_end end;
    bool settle_empty;
    unsigned send_timeout_ms;
    struct full_peer *full;
    size_t full_count, waiting_count;
};

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct worker *w = state;
    *w = (struct worker){ 0 };
    crew_status status = zmq_end_open(&w->end, config, ZMQ_ROUTER, "bind", why);
    if (status != CREW_OK)
        return status;
    w->settle_empty = crew_url_option_is(config->url, "settle", "empty");
    w->send_timeout_ms = (unsigned)crew_url_number(config->url, "send_timeout_ms", SEND_TIMEOUT_MS);
    zmq_end_set(w->end.socket, ZMQ_SNDHWM, (int)crew_url_number(config->url, "send_queue", 1000));
    status = w->end.connects ? zmq_end_connect(&w->end, why) : zmq_end_bind(&w->end, why);
    if (status != CREW_OK)
        zmq_end_close(&w->end, 0);
    return status;
}

static crew_status worker_wait(void *state, int wake_fd, int timeout_ms, size_t room)
{
    struct worker *w = state;
    bool take = room > w->waiting_count;
    int tick_ms = w->waiting_count                   ? RETRY_MS
                  : w->end.inproc && w->end.connects ? ZMQ_END_INPROC_TICK_MS
                                                     : -1;
    if (tick_ms >= 0 && (timeout_ms < 0 || timeout_ms > tick_ms))
        timeout_ms = tick_ms;
    zmq_pollitem_t items[] = { { .fd = wake_fd, .events = ZMQ_POLLIN },
                               { .socket = w->end.socket, .events = ZMQ_POLLIN } };
    return zmq_end_poll(items, take ? 2 : 1, timeout_ms);
}

/* Receives one message's frames; NULL when there is none, or it was not worth keeping (*again is true then).
 */
static crew_message *receive_request(struct worker *w, bool *again)
{
    void *socket = w->end.socket;
    crew_string frames[ZMQ_END_ENVELOPE_MOST];
    crew_message *m = crew_message_take(w->end.config->messages);
    size_t count = 0, bytes = 0;
    bool good = m != NULL;
    zmq_msg_t part;
    zmq_msg_init(&part);
    *again = false;
    for (bool more = true; more;) {
        if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
            good = false;
            break;
        }
        *again = true;
        more = zmq_msg_more(&part) != 0;
        crew_string frame = { zmq_msg_data(&part), zmq_msg_size(&part) };
        if (!more && good)
            crew_buffer_append(&m->body, frame.data, frame.size);
        bytes += more ? frame.size : 0;
        good = good && (!more || (count < ZMQ_END_ENVELOPE_MOST && bytes <= ENVELOPE_BYTES));
        if (more && good)
            frames[count++] = crew_arena_string(&m->arena, frame);
    }
    zmq_msg_close(&part);
    struct route *route = good && count && !m->body.failed
                              ? crew_arena_alloc(&m->arena, sizeof *route + count * sizeof *frames)
                              : NULL;
    for (size_t i = 0; route && i < count; i++) {
        route->frames[i] = frames[i];
        if (!frames[i].data)
            route = NULL;
    }
    if (!route) {
        crew_message_give(w->end.config->messages, m);
        return NULL;
    }
    route->count = count;
    m->kind = CREW_MESSAGE_REQUEST;
    m->route = route;
    return m;
}

/* A caller's deadline comes in Unix milliseconds, and becomes one of our clock. */
static void read_header(crew_message *m)
{
    const struct route *route = m->route;
    crew_string header = route->frames[route->count - 1];
    size_t mark = sizeof ZMQ_END_HEADER - 1;
    if (header.size <= mark || header.size > mark + 20 || memcmp(header.data, ZMQ_END_HEADER, mark) != 0)
        return;
    int64_t deadline = strtoll(header.data + mark, NULL, 10);
    int64_t unix_ms = crew_unix_ms();
    if (deadline > 0) { /* and not so far away that sums overflow */
        int64_t left = deadline - unix_ms < DEADLINE_MOST_MS ? deadline - unix_ms : DEADLINE_MOST_MS;
        m->deadline_ms = crew_now_ms() + left;
    }
}

/* EAGAIN: the peer is full; 0: sent; else it is gone, or there is no memory. */
static int send_answer(const struct worker *w, const crew_message *m)
{
    const struct route *route = m->route;
    crew_string frames[ZMQ_END_ENVELOPE_MOST + 1];
    memcpy(frames, route->frames, route->count * sizeof *frames);
    frames[route->count] = crew_buffer_string(&m->reply);
    if (m->kind == CREW_SETTLE_DONE)
        frames[route->count].size = 0;
    return zmq_end_send(w->end.socket, frames, route->count + 1);
}

static struct full_peer **find_full(struct worker *w, crew_string identity)
{
    struct full_peer **at = &w->full;
    while (*at && !crew_string_equal((*at)->identity, identity))
        at = &(*at)->next;
    return at;
}

static void drop(struct worker *w, crew_message *m)
{
    crew_message_give(w->end.config->messages, m);
}

static void drop_waiting(struct worker *w, struct full_peer *peer)
{
    w->waiting_count -= peer->waiting.count;
    for (crew_message *m; (m = crew_list_take(&peer->waiting));)
        drop(w, m);
}

static void forget(struct worker *w, struct full_peer **at)
{
    struct full_peer *peer = *at;
    drop_waiting(w, peer);
    *at = peer->next;
    w->full_count--;
    free(peer);
}

/* Lets an answer wait for a full peer. One that has been full for too long gets nothing kept any more. */
static void keep_waiting(struct worker *w, crew_message *m)
{
    crew_string identity = ((const struct route *)m->route)->frames[0];
    struct full_peer *peer = *find_full(w, identity);
    if (!peer && w->full_count < FULL_PEERS_MOST && identity.size <= sizeof peer->bytes &&
        (peer = calloc(1, sizeof *peer))) {
        memcpy(peer->bytes, identity.data, identity.size);
        peer->identity = (crew_string){ peer->bytes, identity.size };
        peer->since_ms = crew_now_ms();
        peer->next = w->full;
        w->full = peer;
        w->full_count++;
    }
    if (!peer || crew_now_ms() - peer->since_ms >= w->send_timeout_ms) {
        drop(w, m);
        return;
    }
    crew_list_append(&peer->waiting, m);
    w->waiting_count++;
}

/* Tries again what waits for full peers. */
static void retry_waiting(struct worker *w)
{
    for (struct full_peer **at = &w->full; *at;) {
        struct full_peer *peer = *at;
        bool had = peer->waiting.head != NULL;
        int error = 0;
        while (peer->waiting.head && (error = send_answer(w, peer->waiting.head)) != EAGAIN) {
            drop(w, crew_list_take(&peer->waiting)); /* sent, or its peer is gone */
            w->waiting_count--;
            peer->since_ms = crew_now_ms();
        }
        if (error == EAGAIN && crew_now_ms() - peer->since_ms >= w->send_timeout_ms)
            drop_waiting(w, peer);
        /* A peer known to be full is remembered for a while, so that it cannot hold up the others again. */
        bool stale = crew_now_ms() - peer->since_ms >= 10 * (int64_t)w->send_timeout_ms;
        if ((had && error != EAGAIN) || stale)
            forget(w, at);
        else
            at = &peer->next;
    }
}

static crew_status worker_send(void *state, crew_list *messages)
{
    struct worker *w = state;
    for (crew_message *m; (m = crew_list_take(messages));) {
        bool speaks = m->kind == CREW_SETTLE_REPLY || (m->kind == CREW_SETTLE_DONE && w->settle_empty);
        struct full_peer **full = NULL;
        if (w->full && speaks)
            full = find_full(w, ((const struct route *)m->route)->frames[0]);
        bool in_turn = full && *full && (*full)->waiting.count;
        int error = 0;
        if (speaks)
            error = in_turn ? EAGAIN : send_answer(w, m);
        if (error == EAGAIN) {
            keep_waiting(w, m);
            continue;
        }
        drop(w, m); /* sent, or its peer is gone */
        if (full && *full)
            forget(w, full);
    }
    return CREW_OK;
}

static bool worker_pending(const void *state)
{
    return ((const struct worker *)state)->waiting_count > 0;
}

static crew_status worker_recv(void *state, crew_list *messages, size_t room)
{
    struct worker *w = state;
    if (zmq_end_lost(&w->end))
        return CREW_DISCONNECTED;
    if (w->end.inproc && w->end.connects && !w->end.number)
        (void)zmq_end_connect(&w->end, NULL);
    if (w->full)
        retry_waiting(w);
    room = room > w->waiting_count ? room - w->waiting_count : 0;
    for (bool again = true; room && again;) {
        crew_message *m = receive_request(w, &again);
        if (!m)
            continue;
        read_header(m);
        crew_list_append(messages, m);
        room--;
    }
    return CREW_OK;
}

static void worker_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct worker *w = state;
    (void)unsent;
    while (w->full)
        forget(w, &w->full);
    zmq_end_close(&w->end, linger_ms);
}

const struct crew_transport_ops crew_zmq_worker_ops = {
    .size = sizeof(struct worker),
    .open = worker_open,
    .wait = worker_wait,
    .send = worker_send,
    .recv = worker_recv,
    /* no pause: zmq_unbind would take the connections of the callers that still wait for answers */
    .close = worker_close,
    .pending = worker_pending,
};
