/* A caller on ZeroMQ: a DEALER that sends REQ's envelope, ["", body]; answers are matched by the protocol's
 * id. Once the worker has shown itself to be one of ours, a frame with the call's deadline is before the body
 * (zmq_frame.h).
 *
 * One that is bound and knows its workers is a ROUTER instead, which sends each call to the worker with the
 * fewest, so that a worker that goes ends its own calls alone, and no other can answer them. */
#include "transport/zmq_frame.h"
#include "transport/zmq_watch.h"
#include "transport/zmq_workers.h"

#include <errno.h>

struct caller {
    struct zmq_end end;
    struct zmq_watch watch;
    enum { ASKS, SENDS, SENDS_NOT } frame; /* ASKS: it depends on whose id the first answer brings */
    bool full;                             /* the peers' queues are, as far as we know */
    bool knows;                            /* its workers; then it has them here */
    struct zmq_workers workers;
    bool drained; /* there was nothing more to receive */
    crew_list events;
};

enum {
    RECEIVE_MARK = 128, /* answers of a peer that libzmq queues, of whatever size */
    RETRY_MS = 5,       /* for workers that are full: a ROUTER does not tell when they have room */
};

static void close_caller(struct caller *c, unsigned linger_ms)
{
    zmq_watch_stop(&c->watch, &c->end);
    zmq_workers_fini(&c->workers);
    zmq_end_close(&c->end, linger_ms);
}

static void end_connection(void *caller, int fd)
{
    struct caller *c = caller;
    zmq_workers_end(&c->workers, fd);
    c->drained = false; /* what it has answered may still be to be read */
}

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct caller *c = state;
    int64_t until = crew_now_ms() + config->connect_timeout_ms;
    *c = (struct caller){ 0 };
    c->knows = crew_url_option_is(config->url, "peers", "known");
    crew_status status = zmq_end_open(&c->end, config, c->knows ? ZMQ_ROUTER : ZMQ_DEALER, "connect", why);
    if (status != CREW_OK)
        return status;
    zmq_end_beat(&c->end, true); /* what comes is always read */
    zmq_end_set(c->end.socket, ZMQ_RCVHWM, RECEIVE_MARK);
    const char *headers = crew_url_option(config->url, "headers");
    c->frame = !headers ? ASKS : strcmp(headers, "yes") == 0 ? SENDS : SENDS_NOT;
    if (!headers && !c->end.connects && !c->knows)
        c->frame = SENDS_NOT; /* of several workers the next one may be another */
    status = zmq_watch_start(&c->watch, &c->end, why);
    if (c->knows) {
        c->watch.on_end = end_connection;
        c->watch.context = c;
    }
    if (status == CREW_OK && c->end.connects)
        status = zmq_end_reach(&c->end, why);
    if (status == CREW_OK)
        status = c->end.connects ? zmq_end_connect(&c->end, why) : zmq_end_bind(&c->end, why);
    if (status == CREW_OK && c->end.connects && !c->end.inproc)
        status = zmq_watch_await(&c->watch, until, why);
    if (status != CREW_OK)
        close_caller(c, 0);
    return status;
}

/* Whether there is somebody to send to. */
static bool has_peer(const struct caller *c)
{
    if (c->knows)
        return zmq_workers_some(&c->workers);
    if (c->end.inproc) /* nothing is heard of its peers */
        return !c->end.connects || c->end.number;
    return zmq_watch_has_peer(&c->watch);
}

static crew_status caller_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct caller *c = state;
    (void)room;
    if (c->end.inproc && c->end.connects)
        timeout_ms = crew_sooner(timeout_ms, ZMQ_END_INPROC_TICK_MS);
    else
        timeout_ms = crew_sooner(timeout_ms, zmq_watch_due(&c->watch, crew_now_ms()));
    bool lost = c->knows ? c->workers.some_ended && c->drained : c->watch.lost != NULL;
    if (c->events.count || lost)
        timeout_ms = 0;
    if (c->full && c->knows)
        timeout_ms = crew_sooner(timeout_ms, RETRY_MS);
    short events = (short)(c->full && !c->knows && has_peer(c) ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN);
    zmq_pollitem_t items[] = { { .fd = wake_fd, .events = ZMQ_POLLIN },
                               { .socket = c->end.socket, .events = events },
                               { .socket = c->watch.monitor, .events = ZMQ_POLLIN } };
    crew_status status = zmq_end_poll(items, 3, timeout_ms);
    if (c->knows)
        zmq_workers_retry(&c->workers);
    if (c->knows || items[1].revents & ZMQ_POLLOUT)
        c->full = false;
    return status;
}

/* A request's frames, behind the worker's id if there is one; bytes is for one of them. */
static size_t frames_of(const crew_message *m, bool with_frame, char bytes[ZMQ_FRAME_MOST],
                        crew_string *frames)
{
    size_t count = 0;
    frames[count++] = crew_str("");
    if (with_frame && m->deadline_ms) {
        int64_t left = m->deadline_ms - crew_now_ms();
        const struct zmq_frame frame = { .left_ms = left > 0 ? left : 0,
                                         .deadline_unix_ms = crew_unix_ms() + left };
        frames[count++] = (crew_string){ bytes, zmq_frame_write(&frame, bytes) };
    }
    frames[count++] = crew_buffer_string(&m->body);
    return count;
}

static bool is_ours(crew_string id)
{
    return id.size >= strlen(ZMQ_FRAME_ID) && memcmp(id.data, ZMQ_FRAME_ID, strlen(ZMQ_FRAME_ID)) == 0;
}

/* Of a known worker it is told with the request whose that is. */
static bool write_to_a_worker(struct caller *c, crew_message *m)
{
    char bytes[ZMQ_FRAME_MOST];
    crew_string frames[4];
    struct zmq_worker *worker;
    while ((worker = zmq_workers_choose(&c->workers))) {
        frames[0] = (crew_string){ worker->id, worker->id_size };
        bool with_frame = c->frame == SENDS || (c->frame == ASKS && is_ours(frames[0]));
        int error = zmq_end_send(c->end.socket, frames, 1 + frames_of(m, with_frame, bytes, frames + 1));
        if (!error) {
            m->peer = crew_peer_hold(worker->peer);
            atomic_fetch_add(&worker->peer->in_flight, !m->one_way);
            return true;
        }
        if (error == ENOMEM)
            return false;
        worker->full = error == EAGAIN;
        if (error != EAGAIN)
            end_connection(c, worker->fd);
    }
    return false;
}

static bool write_request(struct caller *c, crew_message *m)
{
    char bytes[ZMQ_FRAME_MOST];
    crew_string frames[3];
    if (c->knows)
        return write_to_a_worker(c, m);
    size_t count = frames_of(m, c->frame == SENDS, bytes, frames);
    return has_peer(c) && zmq_end_send(c->end.socket, frames, count) == 0;
}

static bool is_from_ours(zmq_msg_t *part)
{
    const char *id = zmq_msg_gets(part, "Identity");
    return id && is_ours(crew_str(id));
}

/* The next message: its first frame and its last. Returns how many frames it has; 0: there is none. */
static size_t receive(const struct caller *c, zmq_msg_t *first, zmq_msg_t *last)
{
    size_t count = 0;
    bool more = true;
    for (; more; count++) {
        if (zmq_msg_recv(last, c->end.socket, ZMQ_DONTWAIT) < 0)
            return 0;
        more = zmq_msg_more(last) != 0;
        if (!count && more)
            zmq_msg_move(first, last);
    }
    return count;
}

/* A worker that greets is there from now on. What has been told of its descriptor by then was of another,
 * most likely; if it was of itself, sending to it says so. */
static void greet(struct caller *c, crew_string id, int fd)
{
    zmq_watch_read(&c->watch, crew_now_ms());
    struct zmq_worker *before = zmq_workers_find(&c->workers, id);
    if (before)
        zmq_workers_end(&c->workers, before->fd);
    (void)zmq_workers_add(&c->workers, id, fd); /* without memory it is as if it were not there */
}

/* Whose answer it is; false: nobody's, as a greeting. */
static bool read_sender(struct caller *c, crew_message *m, zmq_msg_t *first, zmq_msg_t *last, size_t count)
{
    crew_string id = { zmq_msg_data(first), zmq_msg_size(first) };
    struct zmq_worker *worker = zmq_workers_find(&c->workers, id);
    if (count == 2 && !zmq_msg_size(last)) {
        greet(c, id, zmq_msg_get(last, ZMQ_END_SOURCE));
        return false;
    }
    m->peer = worker ? crew_peer_hold(worker->peer) : NULL;
    if (!worker)
        m->kind = CREW_EVENT_STRAY;
    return true;
}

/* The next answer: the last frame of a message. Empty ones, with which REP answers notifications, are passed
 * over. NULL when there is none, or no room for more. */
static crew_message *receive_answer(struct caller *c, crew_room *room)
{
    crew_message *m = NULL;
    size_t count = 1;
    while (!m && count && crew_room_is_left(room)) {
        zmq_msg_t first, last;
        zmq_msg_init(&first);
        zmq_msg_init(&last);
        count = receive(c, &first, &last);
        c->drained = !count;
        if (count && c->frame == ASKS && !c->knows)
            c->frame = is_from_ours(&last) ? SENDS : SENDS_NOT;
        if (count)
            zmq_watch_note_message(&c->watch);
        if (count)
            (void)crew_room_take(room, NULL, zmq_msg_size(&last));
        m = count ? crew_message_take(c->end.config->messages) : NULL;
        if (m) {
            m->kind = CREW_EVENT_REPLY;
            crew_buffer_append(&m->body, zmq_msg_data(&last), zmq_msg_size(&last));
        }
        if (m && ((c->knows && !read_sender(c, m, &first, &last, count)) || !m->body.size)) {
            crew_message_give(c->end.config->messages, m);
            m = NULL;
        }
        zmq_msg_close(&first);
        zmq_msg_close(&last);
    }
    return m;
}

static crew_status caller_send(void *state, crew_list *messages)
{
    struct caller *c = state;
    zmq_watch_read(&c->watch, crew_now_ms());
    for (crew_message *m; !c->full && (m = messages->head);) {
        c->full = !write_request(c, m);
        if (c->full)
            break;
        (void)crew_list_take(messages);
        m->kind = m->one_way ? CREW_EVENT_CONFIRMED : CREW_EVENT_WRITTEN;
        crew_list_append(&c->events, m);
    }
    return CREW_OK;
}

static crew_status caller_recv(void *state, crew_list *messages, crew_room *room)
{
    struct caller *c = state;
    zmq_watch_read(&c->watch, crew_now_ms());
    bool lost = (c->watch.lost && !c->knows) || zmq_end_lost(&c->end);
    if (c->drained) /* what they had answered has been given */
        zmq_workers_tidy(&c->workers, c->end.config);
    if (c->end.inproc && c->end.connects && !c->end.number)
        (void)zmq_end_connect(&c->end, NULL);
    crew_list_move(messages, &c->events);
    for (crew_message *m; (m = receive_answer(c, room));)
        crew_list_append(messages, m);     /* what came before the loss counts */
    if (!lost || !crew_room_is_left(room)) /* else there may be more of it */
        return CREW_OK;
    return crew_error_set(c->end.config->lost, CREW_DISCONNECTED, "%s",
                          c->watch.lost ? c->watch.lost : "the worker has gone");
}

static bool caller_ready(const void *state)
{
    const struct caller *c = state;
    return has_peer(c) && !c->full;
}

static void caller_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct caller *c = state;
    (void)unsent; /* what was not written was not taken */
    crew_list_free(&c->events);
    close_caller(c,
                 has_peer(c) ? linger_ms : 0); /* else libzmq lingers over a handshake that may never end */
}

const struct crew_transport_ops crew_zmq_caller_ops = {
    .size = sizeof(struct caller),
    .lazy_open = true,
    .open = caller_open,
    .wait = caller_wait,
    .send = caller_send,
    .recv = caller_recv,
    .close = caller_close,
    .ready = caller_ready,
};
