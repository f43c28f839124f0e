#include "transport/stream_worker.h"

#include "core/log.h"
#include "transport/dial.h"

#include <rpcrew/log.h>

#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS = 10000,
    SEND_TIMEOUT_MS = 5000,
    SEND_BYTES = 64 << 20,
    SEND_BYTES_ALL = 256 << 20, /* of answers that wait, for all peers */
    RECEIVE_TIMEOUT_MS = 30000,
    RECEIVE_BYTES_ALL = 256 << 20, /* of requests that have not come whole, of all peers */
    AHEAD_BYTES = 16 << 10,
    HELD_BYTES = 128 << 10, /* of answers to read, from which on no requests are taken from a peer */
    ACCEPT_MOST = 64,       /* in a round */
    ACCEPT_AGAIN_MS = 100,
    TURN_READS = 4,
    FINISH_READS = 64,
    LINGER_MS = 1000, /* for a peer to close its end, after ours */
    CLOSE_TICK_MS = 10
};

crew_status stream_worker_open(struct stream_worker *w, const crew_transport_config *config, crew_error *why)
{
    *w = (struct stream_worker){ .connections = crew_url_number(config->url, "connections", CONNECTIONS),
                                 .send_bytes = crew_url_number(config->url, "send_bytes", SEND_BYTES) };
    w->keepalive_ms = dial_keepalive_ms(config->url);
    w->send_timeout_ms = (unsigned)crew_url_number(config->url, "send_timeout_ms", SEND_TIMEOUT_MS);
    w->receive_timeout_ms = (unsigned)crew_url_number(config->url, "receive_timeout_ms", RECEIVE_TIMEOUT_MS);
    return stream_set_open(&w->set, config, why);
}

crew_status stream_worker_listen(struct stream_worker *w, int fd, crew_error *why)
{
    crew_status status = CREW_OK;
    if (w->listener_count == STREAM_LISTENERS_MOST)
        status = crew_error_set(why, CREW_LIMIT, "more than %d sockets to listen on", STREAM_LISTENERS_MOST);
    if (status == CREW_OK)
        status = stream_set_watch(&w->set, fd, &w->waiting, why);
    if (status == CREW_OK)
        w->listeners[w->listener_count++] = fd;
    else
        close(fd);
    return status;
}

crew_status stream_worker_adopt(struct stream_worker *w, int in, int out, crew_error *why)
{
    struct stream *s = stream_new(&w->set, in, out, why);
    if (!s)
        return why ? why->status : CREW_SYSTEM;
    if (w->set.tls)
        s->tls = tls_new(w->set.tls, in);
    if (s->tls || !w->set.tls)
        s->peer = crew_peer_new(s);
    if (s->peer) {
        s->peer->takes_calls = s->session == &stream_plain;
        if (s->tls) /* until it is known, it has its time */
            stream_begin(s);
        return CREW_OK;
    }
    stream_free(s);
    return crew_error_set(why, CREW_NO_MEMORY, "no memory");
}

/* ---- the end of a connection ---- */

/* What waits for the peer is not written any more. */
static void drop_output(struct stream_worker *w, struct stream *s, crew_status fate)
{
    for (crew_message *m; (m = crew_list_take(&s->messages)); crew_message_give(w->set.config->messages, m))
        crew_transport_answered(w->set.config, m, fate);
    w->set.output_bytes -= stream_unwritten(s);
    s->written = s->output.size;
    s->stuck_at_ms = 0;
    if (s->session->drop)
        s->session->drop(s);
    s->waits = false;
}

static void end(struct stream_worker *w, struct stream *s, crew_status fate)
{
    drop_output(w, s, fate);
    s->peer->mine = NULL;
    crew_transport_gone(w->set.config, s->peer);
    crew_peer_release(s->peer);
    stream_free(s);
}

/* A peer that misbehaves loses its connection, and nobody else anything. */
static void cut(struct stream_worker *w, struct stream *s, crew_status fate, const char *why)
{
    crew_log(CREW_LOG_DEBUG, "a connection is cut", "{s:s,s:s}", "endpoint",
             crew_url_text(w->set.config->url), "why", why);
    end(w, s, fate);
}

/* ---- accepting ---- */

static void hold_off(struct stream_worker *w, const char *why)
{
    w->held = true;
    w->accept_at_ms = crew_now_ms() + ACCEPT_AGAIN_MS;
    for (size_t i = 0; i < w->listener_count; i++)
        stream_set_unwatch(&w->set, w->listeners[i]);
    if (!w->told_held)
        crew_log(CREW_LOG_WARN, "connections wait to be accepted", "{s:s,s:s}", "endpoint",
                 crew_url_text(w->set.config->url), "why", why);
    w->told_held = true;
}

static void accept_again(struct stream_worker *w)
{
    if (!w->held || crew_now_ms() < w->accept_at_ms || w->set.count >= w->connections)
        return;
    w->held = false;
    w->waiting.ready = true;
    for (size_t i = 0; i < w->listener_count && !w->held; i++)
        if (stream_set_watch(&w->set, w->listeners[i], &w->waiting, NULL) != CREW_OK)
            hold_off(w, "no memory");
}

static void set_up(const struct stream_worker *w, int fd)
{
    const int yes = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* of no use to unix sockets */
    dial_keep_alive(fd, w->keepalive_ms);
}

/* That it was somebody else's error, who has gone; or nobody's. */
static bool is_over_soon(int error)
{
    static const int errors[] = { ECONNABORTED, EINTR,  EPROTO,       ENETDOWN,   ENOPROTOOPT,
                                  EHOSTDOWN,    ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH };
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i] == error)
            return true;
    return false;
}

/* Accepts who waits at one listener; false: there is nobody any more, or none can be taken. */
static bool accept_one(struct stream_worker *w, int listener)
{
    if (w->set.count >= w->connections) {
        hold_off(w, "there are as many as connections= allows");
        return false;
    }
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && is_over_soon(errno))
        return true;
    if (fd < 0) {
        if (errno != EAGAIN)
            hold_off(w, strerror(errno));
        return false;
    }
    set_up(w, fd);
    crew_error why;
    if (stream_worker_adopt(w, fd, fd, &why) != CREW_OK)
        hold_off(w, why.message);
    return !w->held;
}

static void accept_all(struct stream_worker *w, unsigned most)
{
    accept_again(w);
    if (!w->waiting.ready || w->held)
        return;
    w->waiting.ready = false;
    for (size_t i = 0; i < w->listener_count && !w->held; i++) {
        unsigned count = 0;
        while (count < most && accept_one(w, w->listeners[i]))
            count++;
        w->waiting.ready = w->waiting.ready || count == most;
    }
    w->told_held = w->told_held && w->held;
}

void stream_worker_unlisten(void *state)
{
    struct stream_worker *w = state;
    w->waiting.ready = w->listener_count > 0;
    w->held = false;
    accept_all(w, UINT32_MAX);
    if (*w->path) /* while it is ours: whoever waits for it may bind it as soon as nobody listens */
        path_remove(w->path, w->inode);
    *w->path = '\0';
    for (size_t i = 0; i < w->listener_count; i++) {
        stream_set_unwatch(&w->set, w->listeners[i]); /* whoever handed it over has it still */
        close(w->listeners[i]);
    }
    w->listener_count = 0;
    w->held = false;
}

/* ---- requests ---- */

/* Whether something of this peer may be taken: what was found, or else whatever comes. */
static bool may_take(const struct stream *s, const crew_room *room)
{
    bool fits = s->found == STREAM_MORE || s->span.size <= CREW_RESERVE_BYTES;
    return crew_room_is_left(room) || (fits && crew_peer_is_expected(s->peer)) ||
           (room->reserve && fits && atomic_load(&s->peer->in_flight) < room->each);
}

/* NULL: it has none, or there is no memory. */
static char *address_of(int fd)
{
    struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };
    socklen_t size = sizeof peer;
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 1], port[8], text[sizeof host + sizeof port + 3];
    if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0 ||
        (peer.ss_family != AF_INET && peer.ss_family != AF_INET6) ||
        getnameinfo((struct sockaddr *)&peer, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return NULL;
    (void)snprintf(text, sizeof text, peer.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return strdup(text);
}

/* Who the other end is, as far as that is sure, before its first message is given. */
static void name_peer(const struct stream *s)
{
    char name[256];
    struct ucred who;
    socklen_t size = sizeof who;
    if (s->peer->name || s->peer->address) /* its session knows better */
        return;
    if (s->tls && tls_peer_name(s->tls, name, sizeof name))
        s->peer->name = strdup(name);
    if (s->in_is_socket && !s->is_local)
        s->peer->address = address_of(s->in);
    if (s->in_is_socket && !s->tls && getsockopt(s->in, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
        who.pid && snprintf(name, sizeof name, "uid:%u", who.uid) > 0)
        s->peer->name = strdup(name);
}

/* Gives a request out; false: it cannot be, and has cost its connection. */
static bool give(struct stream_worker *w, struct stream *s, const struct stream_span *span, const char *wrong,
                 crew_list *messages)
{
    crew_message *m = crew_message_take(w->set.config->messages);
    char *origin = m ? crew_arena_alloc(&m->arena, sizeof s->number) : NULL;
    if (!origin || stream_take(s, span, m) != CREW_OK) {
        crew_message_give(w->set.config->messages, m);
        atomic_fetch_sub(&s->peer->in_flight, 1);
        cut(w, s, CREW_NO_MEMORY, "no memory");
        return false;
    }
    if (!s->named) {
        s->named = true;
        name_peer(s);
    }
    memcpy(origin, &s->number, sizeof s->number);
    m->kind = CREW_MESSAGE_REQUEST;
    if (wrong)
        m->words = crew_arena_string(&m->arena, crew_str(wrong)).data;
    m->origin = (crew_string){ origin, sizeof s->number };
    m->peer = crew_peer_hold(s->peer);
    crew_list_append(messages, m);
    return true;
}

/* What is no message is given as one, so that it is answered; and then nothing more is heard. */
static void refuse(struct stream_worker *w, const struct stream *s, struct stream_span *span)
{
    size_t most = w->set.config->limits.message_bytes + 1;
    if (span->size > most)
        span->size = most;
    crew_log(CREW_LOG_DEBUG, "a connection that cannot be read any further", "{s:s,s:s}", "endpoint",
             crew_url_text(w->set.config->url), "why", s->why);
}

/* HELD: something waits in it, which is not looked at before its answers have gone. */
enum turn { STAYS, LEAVES, HELD, ENDED };

/* Whether it is to read its answers first, or wait for them. */
static bool is_held(const struct stream *s)
{
    return stream_owed(s) > HELD_BYTES || s->waits;
}

/* We do not read on: that is no fault of the peer's, whose message has begun. */
static void stop_the_clock(struct stream *s)
{
    if (s->begun_at_ms)
        s->begun_at_ms = crew_now_ms();
}

/* Whether something may come that asks nothing of the core, and is to be read without room. */
static bool looks_ahead(const struct stream *s)
{
    return s->session->looks_ahead && s->session->looks_ahead(s) &&
           s->input.size - s->taken + s->kept < AHEAD_BYTES;
}

/* Takes what the peer has sent, as far as there is room; whether it stays in the round. */
static enum turn take_requests(struct stream_worker *w, struct stream *s, crew_list *messages,
                               crew_room *room)
{
    for (unsigned reads = 0;;) {
        struct stream_span span;
        if (!s->gone && is_held(s)) {
            stop_the_clock(s);
            return HELD; /* and comes back when it can be written to, or has been answered */
        }
        enum stream_found what = stream_peek(s, &span);
        if (what == STREAM_MORE) {
            if (s->ended)
                return LEAVES;
            bool takes = may_take(s, room);
            if ((!takes && !looks_ahead(s)) || reads++ == TURN_READS) {
                if (s->readable)
                    stop_the_clock(s);
                return s->readable ? STAYS : LEAVES;
            }
            if (!stream_read(s, takes ? SIZE_MAX : AHEAD_BYTES) && !s->ended)
                return LEAVES;
            continue;
        }
        if (what == STREAM_SKIPPED)
            continue;
        if (what == STREAM_RUBBISH)
            refuse(w, s, &span);
        if (!crew_room_take(room, s->peer, span.size))
            return STAYS;
        bool has_words =
            (what == STREAM_RUBBISH || s->late) && span.size <= w->set.config->limits.message_bytes;
        if (!give(w, s, &span, has_words ? s->why : NULL, messages))
            return ENDED;
        if (what == STREAM_RUBBISH)
            stream_refuse(s);
    }
}

/* ---- a turn ---- */

static void tell_written(struct stream_worker *w, struct stream *s)
{
    while (s->messages.head && s->messages.head->number <= s->written_bytes) {
        crew_message *m = crew_list_take(&s->messages);
        crew_transport_answered(w->set.config, m, CREW_OK);
        crew_message_give(w->set.config->messages, m);
    }
}

/* A caller that cannot come in is told so by TLS, and whoever looks after the worker here. */
static void note_refused(const struct stream_worker *w, const struct stream *s)
{
    static struct crew_rate rate;
    struct crew_line line = { 0 };
    unsigned left_out;
    if (!s->tls || tls_is_up(s->tls) || !tls_was_refused(s->tls) || !crew_rate_allows(&rate, &left_out))
        return;
    crew_line_text(&line, "endpoint", crew_str(crew_url_text(w->set.config->url)));
    crew_line_text(&line, "why", crew_str(tls_why(s->tls)));
    if (left_out)
        crew_line_number(&line, "left_out", left_out);
    crew_line_log(&line, CREW_LOG_WARN, "a caller's TLS failed");
}

/* Throws away what still comes, until the other end closes or has had its time. */
static enum turn finish(struct stream_worker *w, struct stream *s)
{
    char nothing[4096];
    if (!s->closing) {
        note_refused(w, s);
        stream_shut(s);
        s->close_by_ms = crew_now_ms() + LINGER_MS;
    }
    ssize_t count = s->in_is_socket ? 1 : 0;
    for (int i = 0; i < FINISH_READS && count > 0; i++)
        count = recv(s->in, nothing, sizeof nothing, MSG_DONTWAIT);
    if (s->in_is_socket && !s->gone && count < 0 && errno == EAGAIN && crew_now_ms() < s->close_by_ms)
        return LEAVES;
    if (count > 0 && crew_now_ms() < s->close_by_ms)
        return STAYS;
    end(w, s, CREW_DISCONNECTED);
    return ENDED;
}

static enum turn take_turn(struct stream_worker *w, struct stream *s, crew_list *messages, crew_room *room)
{
    stream_flush(s);
    tell_written(w, s);
    if (s->gone && !atomic_load(&s->peer->gone)) {
        drop_output(w, s, CREW_DISCONNECTED);
        crew_transport_gone(w->set.config, s->peer);
        if (s->in != s->out)
            stream_refuse(s); /* what is asked where answers cannot go is not for us */
    }
    if (s->closing)
        return finish(w, s);
    enum turn turn = take_requests(w, s, messages, room);
    if (turn == ENDED)
        return turn;
    stream_flush(s); /* what its session said by itself */
    if (s->ended && !stream_has_input(s))
        crew_transport_mute(w->set.config, s->peer);
    if (turn == HELD) /* perhaps that was all that held it back; else a half message waits for its rest */
        turn = !s->ended && (s->readable || stream_has_input(s)) && !is_held(s) ? STAYS : LEAVES;
    bool over = turn == LEAVES && s->ended && !stream_has_input(s) && (s->gone || !stream_owed(s)) &&
                !atomic_load(&s->peer->in_flight);
    if (!over)
        return turn;
    if (!s->gone && s->refused)
        return finish(w, s);
    end(w, s, CREW_DISCONNECTED);
    return ENDED;
}

/* Whether nothing is said over it, and nothing is owed. */
static bool is_idle(const struct stream_worker *w, const struct stream *s, int64_t now)
{
    bool waits_for_room = s->found != STREAM_MORE || stream_has_input(s);
    return w->set.idle_ms && now - s->used_at_ms >= w->set.idle_ms && !stream_owed(s) && !s->ended &&
           !waits_for_room && !atomic_load(&s->peer->in_flight);
}

/* Looks for what takes too long. */
static void tick(struct stream_worker *w)
{
    int64_t now = crew_now_ms();
    for (struct stream *s = w->set.streams, *next; s; s = next) {
        next = s->next;
        if (s->stuck_at_ms && now - s->stuck_at_ms >= w->send_timeout_ms) {
            cut(w, s, CREW_TIMEOUT, "it does not read its answers");
        } else if (stream_is_unheard(s, w->keepalive_ms)) {
            cut(w, s, CREW_DISCONNECTED, "its host confirms nothing");
        } else if (s->closing) {
            stream_wants_a_turn(s);
        } else if (s->begun_at_ms && !s->ended && now - s->begun_at_ms >= w->receive_timeout_ms) {
            s->begun_at_ms = 0;
            s->ended = s->refused = s->late = true; /* as if that were all */
            stream_wants_a_turn(s);
        } else if (is_idle(w, s, now)) {
            if (!s->session->stays || !s->session->stays(s))
                stream_refuse(s);
            stream_wants_a_turn(s);
        }
    }
}

static size_t input_of(const struct stream *s)
{
    return s->input.size + s->kept;
}

/* Where all together have too much, those lose their connections that have most of it. */
static void bound(struct stream_worker *w, const size_t *all, size_t most,
                  size_t (*size_of)(const struct stream *s), const char *why)
{
    while (*all > most && w->set.streams) {
        struct stream *largest = w->set.streams;
        for (struct stream *s = largest->next; s; s = s->next)
            if (size_of(s) > size_of(largest))
                largest = s;
        cut(w, largest, CREW_LIMIT, why);
    }
}

crew_status stream_worker_recv(void *state, crew_list *messages, crew_room *room)
{
    struct stream_worker *w = state;
    accept_all(w, ACCEPT_MOST);
    if (stream_set_ticks(&w->set))
        tick(w);
    size_t turns = w->set.round_count;
    for (struct stream *s; turns && (s = stream_set_turn(&w->set)); turns--) {
        if (take_turn(w, s, messages, room) == STAYS)
            stream_wants_a_turn(s);
    }
    bound(w, &w->set.output_bytes, SEND_BYTES_ALL, stream_owed, "too many answers wait");
    bound(w, &w->set.input_bytes, RECEIVE_BYTES_ALL, input_of, "too much is on its way");
    if (w->sole && !w->set.count)
        return crew_error_set(w->set.config->lost, CREW_CLOSED, "its input has ended");
    return CREW_OK;
}

/* Whether its turn ended while there was more to read without room, which epoll does not tell of again. */
static bool reads_on(const struct stream *s)
{
    return s->readable && !s->ended && s->found == STREAM_MORE && !is_held(s) && looks_ahead(s);
}

crew_status stream_worker_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct stream_worker *w = state;
    if (w->held)
        timeout_ms = crew_sooner(timeout_ms, ACCEPT_AGAIN_MS);
    if (w->waiting.ready && !w->held)
        timeout_ms = 0;
    for (const struct stream *s = w->set.round; s && timeout_ms; s = s->next_round)
        if (may_take(s, room) || s->closing || reads_on(s))
            timeout_ms = 0;
    return stream_set_wait(&w->set, wake_fd, timeout_ms);
}

/* ---- answers ---- */

/* What is needed of it while it waits: its size, for its account. */
static void shrink(crew_message *m)
{
    crew_buffer_fini(&m->body);
    crew_buffer_fini(&m->reply);
    crew_arena_fini(&m->arena);
    m->headers = NULL;
    m->origin = (crew_string){ 0 };
}

/* Those that were written are done with; the others wait with their streams. */
static void place_fresh(struct stream_worker *w)
{
    for (crew_message *m; (m = crew_list_take(&w->fresh));) {
        struct stream *s = m->peer->mine;
        if (s->gone || m->number <= s->written_bytes) {
            crew_transport_answered(w->set.config, m, s->gone ? CREW_DISCONNECTED : CREW_OK);
            crew_message_give(w->set.config->messages, m);
        } else {
            shrink(m);
            crew_list_append(&s->messages, m);
        }
    }
}

crew_status stream_worker_send(void *state, crew_list *messages)
{
    struct stream_worker *w = state;
    for (crew_message *m; (m = crew_list_take(messages));) {
        struct stream *s = m->peer->mine;
        if (s)
            stream_wants_a_turn(s); /* it may have been the last */
        crew_status status = CREW_DISCONNECTED;
        if (m->kind == CREW_MESSAGE_REQUEST) { /* who has gone, and who does not read, is told by that */
            if (s && !s->gone && stream_queue(s, m->content_type, crew_buffer_string(&m->body)) != CREW_OK)
                cut(w, s, CREW_NO_MEMORY, "no memory");
            crew_message_give(w->set.config->messages, m);
            continue;
        }
        if (s && !s->gone)
            status = s->session->answer(s, m, &w->fresh);
        if (status == CREW_OK)
            continue;
        crew_transport_answered(w->set.config, m, status);
        crew_message_give(w->set.config->messages, m);
    }
    for (struct stream *s = w->set.round; s; s = s->next_round)
        stream_flush(s);
    place_fresh(w);
    for (struct stream *s = w->set.round, *next; s; s = next) {
        next = s->next_round;
        if (stream_owed(s) > w->send_bytes && s->messages.count != 1) /* one answer may have more */
            cut(w, s, CREW_LIMIT, "it does not read its answers");
    }
    return CREW_OK;
}

bool stream_worker_pending(const void *state)
{
    const struct stream_worker *w = state;
    return w->set.output_bytes || w->set.round;
}

/* ---- the end ---- */

/* Whether this one is still waited for: what it is owed has not gone, or, once that is asked, not arrived. */
static bool lingers(const struct stream *s, bool shut)
{
    return !s->gone && (stream_owed(s) || (shut && stream_unconfirmed(s)));
}

/* Until nobody is waited for any more. */
static void linger(struct stream_worker *w, int64_t until_ms, bool shut)
{
    bool waits = true;
    while (waits && crew_now_ms() < until_ms && !crew_transport_is_hurried(w->set.config)) {
        waits = false;
        for (struct stream *s = w->set.streams; s; s = s->next) {
            s->writable = true;
            stream_flush(s);
            stream_discard(s);
            waits = waits || lingers(s, shut);
        }
        if (waits)
            (void)poll(NULL, 0, CLOSE_TICK_MS);
    }
}

void stream_worker_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct stream_worker *w = state;
    int64_t until_ms = crew_now_ms() + linger_ms;
    (void)unsent;
    stream_worker_unlisten(w);
    for (struct stream *s = w->set.streams; s; s = s->next)
        if (s->session->leave && !s->gone)
            s->session->leave(s);
    linger(w, until_ms, false);
    for (struct stream *s = w->set.streams; s; s = s->next) {
        tell_written(w, s);
        stream_shut(s);
    }
    linger(w, until_ms, true);
    while (w->set.streams)
        end(w, w->set.streams, w->set.streams->gone ? CREW_DISCONNECTED : CREW_TIMEOUT);
    stream_set_close(&w->set);
}
