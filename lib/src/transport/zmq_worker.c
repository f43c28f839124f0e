/* A worker on ZeroMQ: a ROUTER. What it receives is [identity, …envelope…, body], and the answer goes back
 * behind the same frames.
 *
 * A ROUTER cannot stop reading one peer. So requests that there is no room for are read all the same, since
 * some of another peer may be behind them, and parked, up to a bound: libzmq takes from its peers by turns,
 * so that a peer that sends little is met soon. Beyond the bound a peer that is alone waits in its socket;
 * where others are, its requests are refused.
 *
 * ROUTER is told to report peers that are gone or full instead of dropping in silence: answers for a full
 * peer wait, and are lost only after send_timeout_ms in which it read nothing, or beyond a number of bytes.
 * Meanwhile no more is taken from that peer, and nobody else waits for it. */
#include "transport/zmq_frame.h"
#include "transport/zmq_peers.h"
#include "transport/zmq_watch.h"

#include <rpcrew/log.h>

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum {
    ENVELOPE_BYTES = 4096, /* of all of its frames */
    RETRY_MS = 5,          /* for answers to full peers */
    SEND_TIMEOUT_MS = 5000,
    SEND_BYTES = 64 << 20,      /* of answers that wait for one peer */
    SEND_BYTES_ALL = 256 << 20, /* for all of them */
    HELD_BYTES = 128 << 10,     /* from which on no requests are taken from a peer that does not read */
    PARKED_MOST = 256,
    PARKED_EACH = 16,             /* as many of each peer in any case, */
    PARKED_EACH_BYTES = 64 << 10, /* of so many bytes together */
    ROUND_MOST = 1000,
    PARKED_BYTES = 8 << 20,
    DEPTHS = 4, /* beyond that */
    RECEIVE_LEAST = 8,
    MARK_MOST = 1000,
    JUDGED_MS = 1000, /* after which what comes may have waited for longer than clocks may differ */
    SEND_QUEUE = 64,  /* messages that libzmq queues for a peer */
};

struct route {
    const char *address; /* whom libzmq has it from; NULL: it does not say */
    size_t count;
    crew_string frames[];
};

struct worker {
    struct zmq_end end;
    struct zmq_watch watch; /* of one that connects */
    bool settle_empty;
    unsigned send_timeout_ms;
    size_t send_bytes;
    int64_t peek_at_ms;
    int64_t
        keeps_up_ms; /* when there was nothing more to receive, and much room: what comes was sent later */
    bool clocks_disagree; /* ours and the callers', by the latest request that can tell */
    bool told_of_clocks;
    struct zmq_peers peers;
};

/* inproc's peers are not told of. */
static bool watches(const struct worker *w)
{
    return w->end.connects && !w->end.inproc;
}

static void close_socket(struct worker *w, unsigned linger_ms)
{
    if (watches(w))
        zmq_watch_stop(&w->watch, &w->end);
    zmq_end_close(&w->end, linger_ms);
}

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct worker *w = state;
    *w = (struct worker){ 0 };
    crew_status status = zmq_end_open(&w->end, config, ZMQ_ROUTER, "bind", why);
    if (status != CREW_OK)
        return status;
    w->settle_empty = crew_url_option_is(config->url, "settle", "empty");
    w->send_timeout_ms = (unsigned)crew_url_number(config->url, "send_timeout_ms", SEND_TIMEOUT_MS);
    w->send_bytes = crew_url_number(config->url, "send_bytes", SEND_BYTES);
    /* libzmq's marks count messages, whatever their size. They stay as they are: lowering one leaves the
     * pipes on which more has been read than is left of it waiting for ever. */
    unsigned mark = config->in_flight_max < RECEIVE_LEAST ? RECEIVE_LEAST : config->in_flight_max;
    mark = (unsigned)crew_url_number(config->url, "receive_queue", mark < MARK_MOST ? mark : MARK_MOST);
    zmq_end_set(w->end.socket, ZMQ_RCVHWM, (int)mark);
    /* A caller with an id of its own that comes back is served, also while the end of its old connection is
     * not noticed. */
    zmq_end_set(w->end.socket, ZMQ_ROUTER_HANDOVER, 1);
    zmq_end_set(w->end.socket, ZMQ_SNDHWM, (int)crew_url_number(config->url, "send_queue", SEND_QUEUE));
    char id[ZMQ_FRAME_ID_MOST];
    int result = zmq_setsockopt(w->end.socket, ZMQ_ROUTING_ID, id, zmq_frame_new_id(id));
    (void)result;
    w->keeps_up_ms = crew_now_ms();
    zmq_end_set(w->end.socket, ZMQ_PROBE_ROUTER, crew_url_option_is(config->url, "peers", "known"));
    if (watches(w))
        status = zmq_watch_start(&w->watch, &w->end, why);
    if (status == CREW_OK)
        status = w->end.connects ? zmq_end_connect(&w->end, why) : zmq_end_bind(&w->end, why);
    if (status != CREW_OK)
        close_socket(w, 0);
    return status;
}

/* How far beyond what may be parked it is: not at all; so that one more is read only now and then, to see
 * whether there are others than one; rarely; more rarely still, and then it is refused. */
static unsigned depth(const struct zmq_peers *peers)
{
    if (peers->parked_count < PARKED_MOST && peers->parked_bytes < PARKED_BYTES)
        return 0;
    if (peers->parked_count / 16 >= PARKED_MOST || peers->parked_bytes / 2 >= PARKED_BYTES)
        return DEPTHS - 1;
    return peers->parked_count / 2 < PARKED_MOST ? 1 : 2;
}

/* Half of the reserve is for those who have nothing in flight. */
static bool can_refuse(const crew_room *room)
{
    return crew_room_is_left(room) || (room->reserve && room->each > 1);
}

/* Whether requests are read. Beyond the bound only where others are, whose requests may be behind, and while
 * there is room to refuse those that are in front. */
static bool reads_on(const struct worker *w, const crew_room *room)
{
    if (!depth(&w->peers))
        return crew_room_is_left(room) || room->reserve;
    return can_refuse(room) && zmq_peers_others_are_active(&w->peers, NULL, false);
}

static bool peeks(const struct worker *w, const crew_room *room)
{
    return room->reserve && (depth(&w->peers) < DEPTHS - 1 || can_refuse(room));
}

static int peek_interval_ms(const struct worker *w)
{
    static const int intervals[DEPTHS] = { 0, 50, 500, 5000 };
    enum { SOON = 5 }; /* where another may send its next one at any time */
    return zmq_peers_others_are_active(&w->peers, NULL, true) ? SOON : intervals[depth(&w->peers)];
}

static crew_status worker_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct worker *w = state;
    bool take = reads_on(w, room);
    if (w->peers.waiting_bytes)
        timeout_ms = crew_sooner(timeout_ms, RETRY_MS);
    if (w->end.inproc && w->end.connects)
        timeout_ms = crew_sooner(timeout_ms, ZMQ_END_INPROC_TICK_MS);
    if (watches(w))
        timeout_ms = crew_sooner(timeout_ms, zmq_watch_due(&w->watch, crew_now_ms()));
    if (!take && peeks(w, room))
        timeout_ms = crew_sooner(timeout_ms, peek_interval_ms(w));
    zmq_pollitem_t items[3] = { { .fd = wake_fd, .events = ZMQ_POLLIN } };
    int count = 1;
    if (watches(w))
        items[count++] = (zmq_pollitem_t){ .socket = w->watch.monitor, .events = ZMQ_POLLIN };
    if (take)
        items[count++] = (zmq_pollitem_t){ .socket = w->end.socket, .events = ZMQ_POLLIN };
    return zmq_end_poll(items, count, timeout_ms);
}

/* Who sent it: the first frame, and behind a proxy, which all its callers share, those up to the empty one.
 */
static bool keep_origin(crew_message *m, const struct route *route)
{
    size_t hops = 0, bytes = 0;
    while (hops < route->count && route->frames[hops].size)
        bytes += 1 + route->frames[hops++].size;
    m->origin = route->frames[0];
    if (hops < 2 || hops == route->count) /* without an empty frame the rest is nobody's address */
        return true;
    char *joined = crew_arena_alloc(&m->arena, bytes), *at = joined;
    for (size_t i = 0; joined && i < hops; i++) {
        *at++ = (char)route->frames[i].size; /* ids have 255 bytes at most */
        memcpy(at, route->frames[i].data, route->frames[i].size);
        at += route->frames[i].size;
    }
    m->origin = (crew_string){ joined, bytes };
    return joined != NULL;
}

/* An id that the peer has chosen, and may come back with; libzmq's own begin with a NUL, and are used once.
 */
static bool is_chosen(crew_string id)
{
    return id.size && id.data && *id.data;
}

/* Receives one message's frames; NULL when there is none, or it was not worth keeping (*again is true then).
 */
static crew_message *receive_request(struct worker *w, bool *again)
{
    void *socket = w->end.socket;
    crew_string frames[ZMQ_END_ENVELOPE_MOST];
    crew_message *m = crew_message_take(w->end.config->messages);
    size_t count = 0, bytes = 0;
    const char *address = NULL;
    int connection = -1;
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
        if (!more && count && is_chosen(frames[0]))
            connection = zmq_msg_get(&part, ZMQ_END_SOURCE);
        const char *from = more ? NULL : zmq_msg_gets(&part, "Peer-Address");
        if (!more && good)
            crew_buffer_append(&m->body, frame.data, frame.size);
        if (from && *from && good)
            address = crew_arena_string(&m->arena, crew_str(from)).data;
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
    if (route) {
        route->count = count;
        route->address = address;
    }
    /* An empty message without an envelope is what ZMQ_PROBE_ROUTER sends first, and no request. */
    if (!route || (count == 1 && !m->body.size) || !keep_origin(m, route)) {
        crew_message_give(w->end.config->messages, m);
        return NULL;
    }
    m->kind = CREW_MESSAGE_REQUEST;
    m->number = connection < 0 ? 0 : (uint64_t)connection + 1;
    m->mine = route;
    return m;
}

/* What a caller of ours says beside the body. */
static void read_frame(struct worker *w, crew_message *m, int64_t now_ms)
{
    const struct route *route = m->mine;
    struct zmq_frame frame;
    bool disagree = false;
    if (route->count < 2 || !zmq_frame_read(route->frames[route->count - 1], &m->arena, &frame) ||
        (frame.deadline_unix_ms <= 0 && frame.left_ms < 0))
        return;
    /* Once they are known to disagree they do, until one that can be judged agrees. */
    int64_t under_way_ms = now_ms - w->keeps_up_ms;
    m->deadline_ms = crew_travelled_deadline(frame.deadline_unix_ms, frame.left_ms,
                                             w->clocks_disagree ? 0 : under_way_ms, &disagree);
    if (disagree || under_way_ms < JUDGED_MS)
        w->clocks_disagree = disagree;
    if (disagree && !w->told_of_clocks)
        crew_log(CREW_LOG_WARN, CREW_CLOCKS_DISAGREE, "{s:s}", "endpoint", crew_url_text(w->end.config->url));
    w->told_of_clocks = w->told_of_clocks || disagree;
}

/* An answer's frames. */
static size_t frames_of(const crew_message *m, crew_string *frames)
{
    const struct route *route = m->mine;
    memcpy(frames, route->frames, route->count * sizeof *frames);
    frames[route->count] = m->kind == CREW_SETTLE_DONE ? crew_str("") : crew_buffer_string(&m->reply);
    return route->count + 1;
}

/* EAGAIN: the peer is full; 0: sent; else it is gone, or there is no memory. */
static int send_answer(const struct worker *w, const crew_message *m)
{
    crew_string frames[ZMQ_END_ENVELOPE_MOST + 1];
    size_t count = frames_of(m, frames);
    return zmq_end_send(w->end.socket, frames, count);
}

/* ---- answers ---- */

static void drop(struct worker *w, crew_message *m)
{
    crew_message_give(w->end.config->messages, m);
}

/* What zmq_msg_send's error, or 0, means for an answer. */
static crew_status fate_of(int error)
{
    switch (error) {
    case 0: return CREW_OK;
    case ENOMEM: return CREW_NO_MEMORY;
    case EAGAIN: return CREW_TIMEOUT;
    default: return CREW_DISCONNECTED;
    }
}

static void note_full(struct worker *w, struct zmq_peer *peer)
{
    if (peer->full)
        return;
    peer->full = true;
    peer->since_ms = crew_now_ms();
    peer->next_full = w->peers.full;
    w->peers.full = peer;
}

/* What is needed of an answer while it waits: its frames, which are offered again and again. */
struct frames {
    size_t count;
    zmq_msg_t parts[];
};

/* In mine the frames, in number what it all takes. NULL without memory. */
static crew_message *keep(const crew_message *m)
{
    crew_string strings[ZMQ_END_ENVELOPE_MOST + 1];
    size_t count = frames_of(m, strings), bytes = 0;
    struct frames *frames = malloc(sizeof *frames + count * sizeof *frames->parts);
    crew_message *kept = frames ? crew_message_new() : NULL;
    if (!kept || !zmq_end_make(frames->parts, strings, count)) {
        crew_message_free(kept);
        free(frames);
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        bytes += sizeof *frames->parts + strings[i].size;
    frames->count = count;
    kept->kind = m->kind;
    kept->charged = m->charged;
    kept->received_ns = m->received_ns;
    kept->mine = frames;
    kept->number = bytes + sizeof *kept + sizeof *frames;
    return kept;
}

static void forget(crew_message *kept)
{
    struct frames *frames = kept->mine;
    zmq_end_fini(frames->parts, frames->count);
    free(frames);
    crew_message_free(kept);
}

/* The first answer that waits for a peer waits no longer. */
static void take_waiting(struct worker *w, struct zmq_peer *peer, crew_status fate)
{
    crew_message *kept = crew_list_take(&peer->waiting);
    peer->waiting_bytes -= kept->number;
    w->peers.waiting_bytes -= kept->number;
    crew_transport_answered(w->end.config, kept, fate);
    forget(kept);
}

/* Where all together have too much, those lose of it that have most. */
static void make_room_for(struct worker *w, size_t bytes)
{
    while (w->peers.waiting_bytes && w->peers.waiting_bytes + bytes > SEND_BYTES_ALL) {
        struct zmq_peer *most = w->peers.full;
        for (struct zmq_peer *peer = most; peer; peer = peer->next_full)
            if (peer->waiting_bytes > most->waiting_bytes)
                most = peer;
        take_waiting(w, most, CREW_LIMIT);
    }
}

/* Lets an answer wait for a full peer, unless there is too much of that. */
static void keep_waiting(struct worker *w, struct zmq_peer *peer, const crew_message *m)
{
    bool too_long = peer->full && crew_now_ms() - peer->since_ms >= w->send_timeout_ms;
    crew_message *kept = too_long ? NULL : keep(m);
    size_t bytes = kept ? kept->number : 0;
    bool too_much = peer->waiting.count && peer->waiting_bytes + bytes > w->send_bytes;
    note_full(w, peer);
    if (!kept || too_much) {
        crew_transport_answered(w->end.config, m,
                                too_long   ? CREW_TIMEOUT
                                : too_much ? CREW_LIMIT
                                           : CREW_NO_MEMORY);
        if (kept)
            forget(kept);
        return;
    }
    make_room_for(w, bytes);
    crew_list_append(&peer->waiting, kept);
    peer->waiting_bytes += bytes;
    w->peers.waiting_bytes += bytes;
}

static void note_gone(struct worker *w, struct zmq_peer *peer)
{
    while (peer->waiting.head)
        take_waiting(w, peer, CREW_DISCONNECTED);
    zmq_peers_gone(&w->peers, peer, w->end.config);
}

/* Tries again what waits for a peer; whether it is still to be looked after. */
static bool retry(struct worker *w, struct zmq_peer *peer)
{
    int error = 0;
    while (peer->waiting.head && error != EAGAIN) {
        struct frames *frames = peer->waiting.head->mine;
        error = zmq_end_send_parts(w->end.socket, frames->parts, frames->count);
        if (error == EHOSTUNREACH) {
            note_gone(w, peer);
        } else if (error != EAGAIN) {
            take_waiting(w, peer, fate_of(error));
            peer->since_ms = crew_now_ms();
        }
    }
    int64_t silent_ms = crew_now_ms() - peer->since_ms;
    while (error == EAGAIN && peer->waiting.head && silent_ms >= w->send_timeout_ms)
        take_waiting(w, peer, CREW_TIMEOUT);
    /* One known to be full is remembered for a while, so that it is not waited for again. */
    return error == EAGAIN || (peer->waiting.head == NULL && silent_ms >= w->send_timeout_ms &&
                               silent_ms < 10 * (int64_t)w->send_timeout_ms);
}

static void retry_waiting(struct worker *w)
{
    for (struct zmq_peer **at = &w->peers.full, *peer; (peer = *at);) {
        if (retry(w, peer)) {
            at = &peer->next_full;
        } else {
            *at = peer->next_full;
            peer->full = false;
        }
    }
}

/* Its peer's answers before it go first; what was asked by one that has gone is nobody's. */
static int offer(struct worker *w, const struct zmq_peer *peer, const crew_message *m)
{
    if (m->peer && atomic_load(&m->peer->gone))
        return EHOSTUNREACH;
    return peer && peer->waiting.count ? EAGAIN : send_answer(w, m);
}

static crew_status worker_send(void *state, crew_list *messages)
{
    struct worker *w = state;
    for (crew_message *m; (m = crew_list_take(messages)); drop(w, m)) {
        struct zmq_peer *peer = m->peer ? m->peer->mine : NULL;
        if (m->kind != CREW_SETTLE_REPLY && !(m->kind == CREW_SETTLE_DONE && w->settle_empty))
            continue;
        int error = offer(w, peer, m);
        if (error == EAGAIN && peer) {
            keep_waiting(w, peer, m);
            continue;
        }
        if (!error && peer && peer->full)
            peer->since_ms = crew_now_ms(); /* it reads again */
        crew_transport_answered(w->end.config, m, fate_of(error));
        if (error == EHOSTUNREACH && peer)
            note_gone(w, peer);
    }
    return CREW_OK;
}

static bool worker_pending(const void *state)
{
    return ((const struct worker *)state)->peers.waiting_bytes > 0;
}

/* ---- requests ---- */

/* Whether a request that cannot be taken is refused: beyond the bound, of a peer that has its share there,
 * and where others are active, who may wait behind it. */
static bool refuses(const struct worker *w, const struct zmq_peer *peer, size_t bytes)
{
    bool share = peer->parked.count >= PARKED_EACH || peer->parked_bytes + bytes > PARKED_EACH_BYTES;
    unsigned how_far = depth(&w->peers);
    return share && how_far &&
           (how_far == DEPTHS - 1 || zmq_peers_others_are_active(&w->peers, peer, how_far > 1));
}

/* Gives it out, or parks it. */
static void place(struct worker *w, crew_message *m, int64_t now_ms, crew_list *messages, crew_room *room)
{
    struct zmq_peer *peer = zmq_peers_find(&w->peers, ((const struct route *)m->mine)->frames[0]);
    if (peer && m->number && peer->connection && m->number != peer->connection) { /* it has come back */
        note_gone(w, peer);
        peer = zmq_peers_find(&w->peers, ((const struct route *)m->mine)->frames[0]);
    }
    if (!peer) { /* without memory; or what no ROUTER gives */
        drop(w, m);
        return;
    }
    peer->connection = m->number;
    const char *address = ((const struct route *)m->mine)->address;
    if (address && !peer->core->address && atomic_load(&peer->core->holds) == 1) /* nobody looks at it yet */
        peer->core->address = strdup(address);
    m->peer = crew_peer_hold(peer->core);
    peer->last_ms = now_ms;
    read_frame(w, m, now_ms);
    bool in_turn = !peer->parked.count && peer->waiting_bytes <= HELD_BYTES;
    if (in_turn && crew_room_take(room, peer->core, m->body.size)) {
        crew_list_append(messages, m);
    } else if (refuses(w, peer, m->body.size) && can_refuse(room)) {
        (*(room->messages ? &room->messages : &room->reserve))--;
        atomic_fetch_add(&peer->core->in_flight, 1);
        m->refusal = CREW_REASON_ROOM;
        crew_list_append(messages, m);
    } else {
        zmq_peers_park(&w->peers, peer, m);
    }
}

static void receive_requests(struct worker *w, crew_list *messages, crew_room *room)
{
    int64_t now = crew_now_ms();
    bool again = true, peek = !reads_on(w, room) && peeks(w, room) && now >= w->peek_at_ms;
    if (peek)
        w->peek_at_ms = now + peek_interval_ms(w);
    for (int i = 0; again && i < ROUND_MOST && (peek || reads_on(w, room)); peek = false, i++) {
        crew_message *m = receive_request(w, &again);
        if (!again && 2 * room->messages >= w->end.config->in_flight_max && !w->peers.parked_count)
            w->keeps_up_ms = now;
        if (again && watches(w))
            zmq_watch_note_message(&w->watch);
        if (!m)
            continue;
        place(w, m, now, messages, room);
    }
}

static crew_status worker_recv(void *state, crew_list *messages, crew_room *room)
{
    struct worker *w = state;
    if (watches(w))
        zmq_watch_read(&w->watch, crew_now_ms());
    if (w->watch.lost)
        return crew_error_set(w->end.config->lost, CREW_DISCONNECTED, "%s", w->watch.lost);
    if (zmq_end_lost(&w->end))
        return CREW_DISCONNECTED;
    if (w->end.inproc && w->end.connects && !w->end.number)
        (void)zmq_end_connect(&w->end, NULL);
    if (w->peers.full)
        retry_waiting(w); /* which costs little: their frames are made */
    zmq_peers_give(&w->peers, messages, room, HELD_BYTES);
    receive_requests(w, messages, room);
    zmq_peers_tidy(&w->peers, w->end.config);
    return CREW_OK;
}

static void worker_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct worker *w = state;
    int64_t until = crew_now_ms() + linger_ms;
    (void)unsent;
    for (; w->peers.waiting_bytes && !zmq_end_lost(&w->end) && crew_now_ms() < until &&
           !crew_transport_is_hurried(w->end.config);
         retry_waiting(w))
        (void)nanosleep(&(struct timespec){ .tv_nsec = RETRY_MS * 1000000L }, NULL);
    for (struct zmq_peer *peer = w->peers.full; peer; peer = peer->next_full)
        while (peer->waiting.head)
            take_waiting(w, peer, zmq_end_lost(&w->end) ? CREW_DISCONNECTED : CREW_TIMEOUT);
    zmq_peers_fini(&w->peers, w->end.config);
    int64_t left = until - crew_now_ms();
    bool alone = watches(w) && !w->watch.connected; /* what lingers there goes nowhere */
    close_socket(w, left > 0 && !alone ? (unsigned)left : 0);
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
