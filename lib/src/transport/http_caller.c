/* A connection is a peer: what was sent over it when it closes has an unknown end, and nothing else has
 * (RFC 9112, section 9.3.1). Services close connections without calls after some seconds, and a request that
 * meets that is lost: so they are kept for less. */
#include "transport/http_caller.h"

#include "transport/dial.h"
#include "transport/http_answer.h"
#include "transport/http_head.h"
#include "transport/http_message.h"
#include "transport/proxy.h"
#include "transport/stream.h"

#include <rpcrew/log.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS = 64,
    KEEP_MS = 4000,
    UNUSED_KEEP_MS = 1000, /* a connection that was made for a call */
    HEAD_MOST = 64 << 10,  /* of a response */
    READS_MOST = 16,
    CONNECTING_MOST = 16,
    RENEW_MS = 1000,
    AGAIN_MS = 1000, /* after a connection that was refused while others stand */
    BUSY_TICK_MS = 250,
};

struct caller;

struct connection {
    struct connection *next; /* of the idle ones, the last used first */
    struct caller *caller;
    struct stream *stream;
    crew_peer *peer;
    bool connecting, busy;
    struct proxy *proxy; /* the way through it; NULL: there is none to go through any more */
    struct http_message in;
    /* the call that it is busy with */
    uint32_t correlation;
    bool one_way;
    int64_t deadline_ms; /* 0: none */
    bool used;           /* it has had one */
    int64_t idle_at_ms;  /* since when it has none; or is connecting */
    int64_t keep_ms;
};

struct caller {
    struct stream_set set;
    struct sockaddr_storage address; /* that answered */
    socklen_t address_size;
    crew_buffer head;        /* of requests, behind the method */
    crew_buffer credentials; /* behind that, if the request has none of its own, */
    int64_t renewed_at_ms;   /* when their file was last looked at, */
    struct timespec renewed; /* and its time then */
    size_t connections_most;
    int64_t keep_ms;
    unsigned keepalive_ms;
    struct connection *idle;
    size_t connecting, busy;
    int64_t again_at_ms; /* no connection is tried before */
    bool in_vain;        /* the last one could not be had, */
    bool refused;        /* and there is no other: the endpoint is lost */
    char why[200];       /* the last one could not be had */
    crew_list events;
};

/* ---- requests, as bytes ---- */

/* Tokens in files are renewed while they are in use; one that cannot be read leaves the one that there was.
 */
static void renew_credentials(struct caller *c)
{
    const crew_url *url = c->set.config->url;
    crew_buffer now = { 0 };
    crew_error why;
    struct timespec changed;
    if (!crew_url_option(url, "bearer_file") || crew_now_ms() - c->renewed_at_ms < RENEW_MS)
        return;
    c->renewed_at_ms = crew_now_ms();
    if (!http_credentials_changed(url, &changed) || memcmp(&changed, &c->renewed, sizeof changed) == 0)
        return;
    c->renewed = changed;
    if (http_write_credentials(url, &now, &why) == CREW_OK) {
        crew_buffer old = c->credentials;
        c->credentials = now;
        now = old;
    } else {
        crew_log(CREW_LOG_WARN, "a token cannot be read again; the old one stays", "{s:s}", "why",
                 why.message);
    }
    crew_buffer_fini(&now);
}

static void write_request(const struct caller *c, const crew_message *m, crew_buffer *out)
{
    const char *type = m->content_type ? m->content_type : "application/json";
    crew_buffer_text(out, "POST");
    crew_buffer_append(out, c->head.data, c->head.size);
    bool authorized = false;
    for (size_t i = 0; i < crew_value_count(m->headers); i++) {
        crew_string name = { 0 }, value = { 0 };
        (void)!crew_value_string(crew_value_key_at(m->headers, i), &name);
        (void)!crew_value_string(crew_value_at(m->headers, i), &value);
        crew_buffer_printf(out, "%.*s: %.*s\r\n", CREW_STR(name), CREW_STR(value));
        authorized = authorized || strcasecmp(name.data, "authorization") == 0;
    }
    if (!authorized)
        crew_buffer_append(out, c->credentials.data, c->credentials.size);
    crew_buffer_printf(out, "Content-Type: %s\r\nAccept: %s\r\nContent-Length: %zu\r\n", type, type,
                       m->body.size);
    int64_t left_ms = m->deadline_ms ? m->deadline_ms - crew_now_ms() : 0;
    if (left_ms > 0)
        crew_buffer_printf(out, "Rpcrew-Timeout-Ms: %lld\r\n", (long long)left_ms);
    crew_buffer_text(out, "\r\n");
    crew_buffer_append(out, m->body.data, m->body.size);
}

/* ---- responses ---- */

static void begin(struct connection *k)
{
    http_end(&k->in);
    http_begin(&k->in, HTTP_RESPONSE, HEAD_MOST, k->caller->set.config->hard_bytes);
}

/* The next response, if all of it is there; RUBBISH: what comes is none. */
static enum stream_found find(struct stream *s, struct stream_span *span)
{
    struct connection *k = s->state;
    for (;;) {
        size_t taken;
        crew_string bytes = stream_input(s);
        if (!bytes.size && !(s->ended && !s->error && k->in.begun))
            return STREAM_MORE;
        bool ended = s->ended && !s->error; /* which may be how an answer ends */
        enum http_event event = http_read(&k->in, bytes, ended, &taken);
        stream_skip(s, taken);
        stream_keep(s, k->in.head.size + k->in.body.size);
        bool is_whole = event == HTTP_WHOLE, is_interim = k->in.status < 200 && k->in.status != 101;
        if (is_whole && is_interim) {
            begin(k);
            continue;
        }
        s->why = event == HTTP_BAD ? k->in.why : "a response that nobody asked for";
        *span = (struct stream_span){ .size = k->in.body.size };
        if (event == HTTP_BAD || (is_whole && !k->busy))
            return STREAM_RUBBISH;
        if (is_whole)
            return STREAM_MESSAGE;
    }
}

static crew_status take(struct stream *s, const struct stream_span *span, crew_message *m)
{
    struct connection *k = s->state;
    (void)span;
    crew_buffer own = m->body;
    m->body = k->in.body;
    k->in.body = own;
    stream_keep(s, 0);
    return CREW_OK;
}

static const struct stream_session stream_http_caller = { .find = find, .take = take };

/* ---- connections ---- */

static void leave_idle(struct connection *k)
{
    for (struct connection **at = &k->caller->idle; *at; at = &(*at)->next)
        if (*at == k) {
            *at = k->next;
            return;
        }
}

static void become_idle(struct connection *k)
{
    k->idle_at_ms = crew_now_ms();
    k->next = k->caller->idle;
    k->caller->idle = k;
    begin(k);
}

static void drop_proxy(struct connection *k)
{
    if (k->proxy)
        proxy_end(k->proxy);
    free(k->proxy);
    k->proxy = NULL;
}

static void close_connection(struct connection *k)
{
    struct caller *c = k->caller;
    bool was_busy = k->busy;
    leave_idle(k);
    c->connecting -= k->connecting;
    c->busy -= k->busy;
    stream_free(k->stream);
    http_end(&k->in);
    drop_proxy(k);
    if (was_busy)
        crew_transport_gone(c->set.config, k->peer);
    crew_peer_release(k->peer);
    free(k);
}

/* Takes a socket that is connected, or will be; NULL: it is closed. */
static struct connection *add_connection(struct caller *c, int fd, struct tls *tls, bool connecting,
                                         crew_error *why)
{
    struct stream *s = stream_new(&c->set, fd, fd, why);
    if (s)
        s->tls = tls;
    else
        tls_free(tls);
    struct connection *k = s ? calloc(1, sizeof *k) : NULL;
    crew_peer *peer = k ? crew_peer_new(k) : NULL;
    if (!peer) {
        free(k);
        if (s)
            stream_free(s);
        if (s && why)
            crew_error_set(why, CREW_NO_MEMORY, "no memory");
        return NULL;
    }
    *k = (struct connection){ .caller = c, .stream = s, .peer = peer, .keep_ms = c->keep_ms };
    s->state = k;
    k->connecting = connecting;
    k->idle_at_ms = crew_now_ms();
    if (connecting) {
        s->writable = false;
        c->connecting++;
    } else {
        become_idle(k);
    }
    return k;
}

/* A connection cannot be had. */
static void give_up(struct caller *c, const char *why)
{
    c->in_vain = true;
    (void)snprintf(c->why, sizeof c->why, "%s", why);
    c->again_at_ms = crew_now_ms() + AGAIN_MS;
}

/* One more; false: it cannot be had now. */
static bool connect_one(struct caller *c)
{
    const int yes = 1;
    crew_error why;
    int fd = socket(c->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        give_up(c, strerror(errno));
        return false;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    dial_keep_alive(fd, c->keepalive_ms);
    int error = connect(fd, (const struct sockaddr *)&c->address, c->address_size) == 0 ? 0 : errno;
    if (error && error != EINPROGRESS) {
        close(fd);
        give_up(c, strerror(error));
        c->refused = c->set.count == 0;
        return false;
    }
    struct tls *tls = c->set.tls ? tls_new(c->set.tls, fd) : NULL;
    if (c->set.tls && !tls) {
        close(fd);
        return false;
    }
    struct connection *k = add_connection(c, fd, tls, true, &why);
    if (k && proxy_is_wanted(c->set.config->url) && !(k->proxy = calloc(1, sizeof *k->proxy))) {
        close_connection(k);
        return false;
    }
    return k != NULL;
}

/* It has been told that connecting is over. */
static void conclude_connecting(struct connection *k)
{
    struct caller *c = k->caller;
    int error = 0;
    socklen_t size = sizeof error;
    (void)getsockopt(k->stream->in, SOL_SOCKET, SO_ERROR, &error, &size);
    if (!error && dial_met_itself(k->stream->in))
        error = ECONNREFUSED;
    if (!error && !k->stream->writable)
        return; /* not yet */
    int through = error || !k->proxy
                      ? 1
                      : proxy_greet(k->proxy, k->stream->in, c->set.config->url, c->set.config->host,
                                    http_port(c->set.config->url, c->set.config->host));
    if (through == 0)
        return;
    const char *words = error ? strerror(error) : NULL;
    if (through < 0)
        give_up(c, k->proxy->why);
    drop_proxy(k);
    int how = error || through < 0 || !k->stream->tls ? 1 : tls_shake_hands(k->stream->tls);
    if (how < 0)
        words = tls_why(k->stream->tls) ? tls_why(k->stream->tls) : strerror(errno);
    if (how == 0)
        return;
    if (words)
        give_up(c, words);
    if (!words && through > 0) {
        k->connecting = false;
        c->connecting--;
        become_idle(k);
        return;
    }
    close_connection(k);
    c->refused = c->set.count == 0;
}

static void forget_heads(struct caller *c)
{
    crew_buffer_fini(&c->head);
    crew_buffer_fini(&c->credentials);
}

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct caller *c = state;
    const char *host = crew_url_host(config->url, config->host);
    unsigned port = http_port(config->url, config->host);
    struct tls *tls = NULL;
    *c = (struct caller){ .keep_ms = (int64_t)crew_url_number(config->url, "keep_ms", KEEP_MS),
                          .keepalive_ms = dial_keepalive_ms(config->url),
                          .connections_most = crew_url_number(config->url, "connections", CONNECTIONS) };
    http_write_head(config->url, config->host, &c->head);
    (void)http_credentials_changed(config->url, &c->renewed);
    crew_status status = http_write_credentials(config->url, &c->credentials, why);
    c->renewed_at_ms = crew_now_ms();
    if (status == CREW_OK && c->head.failed)
        status = crew_error_set(why, CREW_NO_MEMORY, "no memory");
    int fd = -1;
    if (status == CREW_OK && http_is_secure(config->url))
        fd = tls_dial(config, port, TLS_ALPN_HTTP, &tls, why);
    else if (status == CREW_OK)
        fd = proxy_dial(config, port, why);
    if (fd < 0) {
        forget_heads(c);
        return why->status;
    }
    status = stream_set_open(&c->set, config, why);
    if (status != CREW_OK) {
        tls_free(tls);
        close(fd);
        forget_heads(c);
        return status;
    }
    c->set.session = &stream_http_caller;
    c->set.idle_ms = (unsigned)c->keep_ms;
    dial_keep_alive(fd, c->keepalive_ms);
    c->address_size = sizeof c->address;
    (void)getpeername(fd, (struct sockaddr *)&c->address, &c->address_size);
    if (tls) /* for further connections */
        status = (c->set.tls = tls_caller_new(config->url, host, TLS_ALPN_HTTP, why)) ? CREW_OK : why->status;
    if (status != CREW_OK) {
        tls_free(tls);
        close(fd);
    } else if (!add_connection(c, fd, tls, false, why)) {
        status = why->status;
    }
    if (status == CREW_OK)
        return CREW_OK;
    stream_set_close(&c->set);
    forget_heads(c);
    return status;
}

/* ---- requests ---- */

static bool may_connect(const struct caller *c)
{
    return !c->connecting && c->set.count < c->connections_most && crew_now_ms() >= c->again_at_ms;
}

static bool caller_ready(const void *state)
{
    const struct caller *c = state;
    return c->idle || may_connect(c);
}

/* Whether nothing has come over it that nobody asked for, its end among that. */
static bool is_free(struct connection *k)
{
    struct stream *s = k->stream;
    (void)stream_read(s, SIZE_MAX); /* TLS has words of its own */
    return !s->ended && !s->hangs_up && !s->gone && !stream_has_input(s);
}

/* Sends the first of the list over a connection, which is idle; false: nothing of it could be written. */
static bool send_over(struct connection *k, crew_list *messages, crew_status *status)
{
    struct caller *c = k->caller;
    struct stream *s = k->stream;
    crew_message *m = messages->head;
    uint64_t begins = s->written_bytes;
    if (!is_free(k))
        return false;
    write_request(c, m, stream_output(s));
    *status = stream_queued(s);
    if (*status != CREW_OK)
        return false;
    stream_flush(s);
    if (s->written_bytes == begins)
        return false;
    (void)crew_list_take(messages);
    k->busy = k->used = true;
    c->in_vain = false;
    c->busy++;
    k->correlation = m->correlation;
    k->one_way = m->one_way;
    k->deadline_ms = m->deadline_ms;
    m->kind = CREW_EVENT_WRITTEN;
    m->peer = crew_peer_hold(k->peer);
    atomic_fetch_add(&k->peer->in_flight, 1);
    crew_list_append(&c->events, m);
    return true;
}

static crew_status caller_send(void *state, crew_list *messages)
{
    struct caller *c = state;
    crew_status status = CREW_OK;
    renew_credentials(c);
    while (messages->head && c->idle && status == CREW_OK) {
        struct connection *k = c->idle;
        c->idle = k->next;
        if (send_over(k, messages, &status))
            continue;
        if (!k->used)
            give_up(c, k->stream->refused ? k->stream->why : "it speaks, or closes, before it is asked");
        close_connection(k); /* it had closed */
        c->refused = c->refused || (c->in_vain && !c->set.count);
    }
    bool may = may_connect(c);
    for (size_t wanted = messages->count; may && wanted && c->connecting < CONNECTING_MOST; wanted--)
        may = c->set.count < c->connections_most && connect_one(c);
    return status;
}

/* ---- answers ---- */

/* Gives what has come for the call, and makes the connection free for another. */
static crew_status conclude_call(struct connection *k, const struct stream_span *span, crew_list *messages,
                                 crew_room *room)
{
    struct caller *c = k->caller;
    crew_message *m = crew_message_take(c->set.config->messages);
    if (!m)
        return CREW_NO_MEMORY;
    (void)crew_room_take(room, NULL, span->size);
    crew_status status = stream_take(k->stream, span, m);
    if (status != CREW_OK) {
        crew_message_give(c->set.config->messages, m);
        return status;
    }
    m->correlation = k->correlation;
    m->peer = crew_peer_hold(k->peer);
    http_answer_judge(&k->in, k->one_way, &c->set.config->limits, m);
    crew_list_append(messages, m);
    k->keep_ms = http_answer_keep_ms(&k->in, c->keep_ms);
    bool keeps = k->in.keeps_alive && k->keep_ms > 0 && k->in.status != 101 && !stream_unwritten(k->stream) &&
                 is_free(k);
    k->busy = false;
    c->busy--;
    become_idle(k);
    if (!keeps)
        close_connection(k);
    return CREW_OK;
}

/* What has come is no answer: its call ends with what is wrong with it. */
static crew_status conclude_bad(struct connection *k, crew_list *messages, crew_room *room)
{
    struct caller *c = k->caller;
    crew_message *m = k->busy && !k->one_way ? crew_message_take(c->set.config->messages) : NULL;
    if (m) {
        (void)crew_room_take(room, NULL, 0);
        m->kind = k->in.status == 413 ? CREW_EVENT_TOO_LARGE : CREW_EVENT_REPLY;
        m->words = k->stream->why;
        m->correlation = k->correlation;
        m->peer = crew_peer_hold(k->peer);
        m->unsure = true;
        crew_list_append(messages, m);
        k->busy = false;
        c->busy--;
    }
    close_connection(k);
    return CREW_OK;
}

/* What a connection has to give; it may be closed behind this. */
static crew_status take_turn(struct connection *k, crew_list *messages, crew_room *room)
{
    struct stream *s = k->stream;
    if (k->connecting) {
        conclude_connecting(k);
        return CREW_OK;
    }
    stream_flush(s);
    for (unsigned reads = 0; crew_room_is_left(room) && reads < READS_MOST; reads++) {
        struct stream_span span;
        enum stream_found what = stream_peek(s, &span);
        if (what == STREAM_MESSAGE)
            return conclude_call(k, &span, messages, room);
        if (what == STREAM_RUBBISH)
            return conclude_bad(k, messages, room);
        if (stream_read(s, SIZE_MAX))
            continue;
        if (!s->ended)
            return CREW_OK;
        what = stream_peek(s, &span);
        if (what == STREAM_MESSAGE) /* which ended with the connection */
            return conclude_call(k, &span, messages, room);
        close_connection(k);
        return CREW_OK;
    }
    stream_wants_a_turn(s);
    return CREW_OK;
}

/* Closes those that nobody needs, and those whose calls have ended unanswered. */
static void tick(struct caller *c, bool ticks)
{
    int64_t now = crew_now_ms();
    for (struct stream *s = c->set.streams, *next; s; s = next) {
        struct connection *k = s->state;
        next = s->next;
        bool waited = k->busy && k->deadline_ms && now > k->deadline_ms + BUSY_TICK_MS;
        int64_t keep_ms = k->used || k->keep_ms > UNUSED_KEEP_MS ? k->keep_ms : UNUSED_KEEP_MS;
        bool unused = !k->busy && !k->connecting && now - k->idle_at_ms >= keep_ms;
        bool in_vain = k->connecting && now - k->idle_at_ms >= c->set.config->connect_timeout_ms;
        if (waited || unused || in_vain || (ticks && stream_is_unheard(s, c->keepalive_ms)))
            close_connection(k);
        if (!in_vain)
            continue;
        give_up(c, strerror(ETIMEDOUT));
        c->refused = c->set.count == 0;
    }
}

static crew_status caller_recv(void *state, crew_list *messages, crew_room *room)
{
    struct caller *c = state;
    crew_status status = CREW_OK;
    crew_list_move(messages, &c->events);
    size_t turns = c->set.round_count;
    for (struct stream *s; turns && status == CREW_OK && (s = stream_set_turn(&c->set)); turns--)
        status = take_turn(s->state, messages, room);
    tick(c, stream_set_ticks(&c->set));
    if (status != CREW_OK || !c->refused)
        return status;
    return crew_error_set(c->set.config->lost, CREW_DISCONNECTED, "connecting: %s", c->why);
}

static crew_status caller_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct caller *c = state;
    int64_t left_ms = c->again_at_ms - crew_now_ms();
    if (c->events.count || c->refused || (c->set.round && crew_room_is_left(room)))
        timeout_ms = 0;
    if (c->busy || c->connecting)
        timeout_ms = crew_sooner(timeout_ms, BUSY_TICK_MS);
    if (left_ms > 0)
        timeout_ms = crew_sooner(timeout_ms, (int)left_ms);
    return stream_set_wait(&c->set, wake_fd, timeout_ms);
}

/* What has begun goes out, as long as there is time. */
static void flush_all(struct caller *c, unsigned linger_ms)
{
    int64_t until_ms = crew_now_ms() + linger_ms;
    bool waits = true;
    while (waits && crew_now_ms() < until_ms && !crew_transport_is_hurried(c->set.config)) {
        waits = false;
        for (struct stream *s = c->set.streams; s; s = s->next) {
            s->writable = s->writable || stream_owed(s);
            stream_flush(s);
            if (!stream_owed(s) && !s->closing && !s->gone)
                stream_shut(s);
            stream_discard(s);
            waits = waits || (!s->gone && (stream_owed(s) || stream_unconfirmed(s)));
        }
        if (waits)
            (void)poll(NULL, 0, 1);
    }
}

static void caller_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct caller *c = state;
    (void)unsent; /* what has not begun was not taken */
    flush_all(c, linger_ms);
    for (struct stream *s = c->set.streams, *next; s; s = next) {
        struct connection *k = s->state;
        next = s->next;
        c->busy -= k->busy; /* the core ends its call */
        k->busy = false;
        close_connection(k);
    }
    crew_list_free(&c->events);
    forget_heads(c);
    stream_set_close(&c->set);
}

const struct crew_transport_ops http_caller_ops = { .size = sizeof(struct caller),
                                                    .carries_headers = true,
                                                    .open = caller_open,
                                                    .wait = caller_wait,
                                                    .send = caller_send,
                                                    .recv = caller_recv,
                                                    .ready = caller_ready,
                                                    .close = caller_close };
