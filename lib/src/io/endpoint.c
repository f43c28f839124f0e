/* The I/O thread: opens, moves messages both ways in bursts, loses, opens again. */
#include "io/endpoint.h"

#include "core/thread.h"

#include <rpcrew/impl/protocol.h>

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* A message beyond its limit is answered with an error; one far beyond it costs its sender the connection. */
enum { HARD_TIMES = 4, HARD_MORE = 64 << 10 };

/* After a drain's end: so that what the kernel has is not lost with the socket. */
enum { LINGER_LEAST_MS = 100 };

/* Soon enough when a host is back; one that takes us and drops us again is given more time. */
enum { BACKOFF_FIRST_MS = 50, BACKOFF_OPENING_MS = 600, BACKOFF_MOST_MS = 10000, STABLE_MS = 5000 };

enum { SAID_AGAIN_MS = 60000 };

/* Options that every endpoint has, whatever its transport. */
static const crew_url_option_spec common_options[] = {
    { "timeout_ms", NULL, 1, UINT32_MAX,
      "client: deadline of a call; worker: of a request that brings none" },
    { "in_flight", NULL, 1, 1 << 20, "requests in flight, or calls outstanding" },
    { "max_bytes", NULL, 1, 1 << 30, "size of a message" },
    { "max_string", NULL, 1, 1 << 30, "size of a string" },
    { "max_items", NULL, 1, UINT32_MAX, "items of an array, members of an object" },
    { "max_depth", NULL, 1, 1024, "nesting of arrays and objects" },
    { "max_batch", NULL, 1, 1 << 24, "calls in a batch" },
    { "error", "pair|string|data|nvim", 0, 0,
      "worker: errors of MessagePack-RPC: [code, message], a text, with data, or [0, message]" },
    { NULL, NULL, 0, 0, NULL },
};

static _Thread_local const struct crew_endpoint *current;

bool crew_endpoint_is_a_client_s(void)
{
    return current && !current->options.server;
}

void crew_endpoint_command(struct crew_endpoint *endpoint, enum crew_endpoint_command command)
{
    int before = atomic_load(&endpoint->command);
    while (before < (int)command && !atomic_compare_exchange_weak(&endpoint->command, &before, (int)command))
        continue;
    crew_queue_wake(&endpoint->queue);
}

/* ---- opening and losing ---- */

/* Half to one and a half times the back-off, so that many clients do not come back in step. */
static void schedule_retry(struct crew_endpoint *e, unsigned most_ms)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned jitter = (unsigned)((now.tv_nsec / 1000 ^ (long)((uintptr_t)e >> 4)) % 1024);
    unsigned backoff_ms = e->backoff_ms < most_ms ? e->backoff_ms : most_ms;
    e->retry_at_ms = crew_now_ms() + backoff_ms / 2 + (int64_t)backoff_ms * jitter / 1024;
    e->backoff_ms = backoff_ms * 2 > most_ms ? most_ms : backoff_ms * 2;
}

static void tell_first(struct crew_endpoint *e, const crew_error *why)
{
    uint64_t one = 1;
    e->tried = true;
    e->first = *why;
    ssize_t written = write(e->tried_fd, &one, sizeof one);
    (void)written;
}

/* Takes note of whether there is a peer to send to. */
static void note_ready(struct crew_endpoint *e)
{
    bool ready = e->open && (!e->ops->ready || e->ops->ready(e->connection->state));
    bool before = atomic_exchange(&e->ready, ready);
    e->was_ready = e->open && (e->was_ready || ready);
    e->ever_open = e->ever_open || ready;
    e->says_with = e->expects_ours || (e->open && e->ops->is_ours && e->ops->is_ours(e->connection->state));
    if (ready && !before && e->options.owner->ready)
        e->options.owner->ready(e);
}

static bool can_be_mended(crew_status status)
{
    return status == CREW_NO_SERVICE || status == CREW_DISCONNECTED;
}

static void log_trouble(const struct crew_endpoint *e, const char *what, const char *why)
{
    crew_log(CREW_LOG_WARN, what, "{s:s,s:s}", "endpoint", crew_url_text(e->url), "why", why);
}

/* Now and then, and when the reason is another one. */
static void log_failure(struct crew_endpoint *e, const crew_error *why)
{
    int64_t now = crew_now_ms();
    bool known = strcmp(e->last_failure.message, why->message) == 0 && now - e->said_at_ms < SAID_AGAIN_MS;
    if (known)
        return;
    e->last_failure = *why;
    e->said_at_ms = now;
    log_trouble(e, e->options.server ? "cannot open the endpoint yet" : "cannot connect yet", why->message);
}

/* The attempt is through. */
static void conclude_opening(struct crew_endpoint *e, const crew_error *result)
{
    assert(current == e);
    crew_error why = *result;
    e->open = why.status == CREW_OK;
    e->opened_at_ms = crew_now_ms();
    bool first = !e->tried;
    if (e->open) {
        e->epoch++;
        e->paused = false;
        e->ever_open = e->ever_open || !e->ops->lazy_open; /* else when there is a peer */
        e->last_failure.message[0] = '\0';
        crew_log(CREW_LOG_INFO, e->options.server ? "listening" : "connected", "{s:s}", "endpoint",
                 crew_url_text(e->url));
    } else {
        schedule_retry(e, BACKOFF_OPENING_MS);
    }
    bool may_fail = !first || e->options.background || (e->options.wait && can_be_mended(why.status));
    bool failed = !e->open && !may_fail;
    if (failed)
        crew_endpoint_command(e, CREW_ENDPOINT_CLOSE);
    if (!e->open && (!first || e->options.wait))
        log_failure(e, &why);
    note_ready(e);
    e->options.owner->changed(e, &why, &e->outgoing);
    if (first) /* last: whoever waits for it finds all that it means */
        tell_first(e, failed ? &why : &(crew_error){ .status = CREW_OK });
}

/* A server's: of all that no peer of its own has sent. NULL without memory. */
static crew_peer *new_peer(const struct crew_endpoint *e)
{
    crew_peer *peer = crew_peer_new(NULL);
    if (peer) {
        peer->requeue = e->requeue;
        peer->shared = true;
    }
    return peer;
}

/* Whoever sent what is in flight has gone with the connection. Without memory for another one this one stays.
 */
static void replace_peer(struct crew_endpoint *e)
{
    crew_peer *fresh = e->peer ? new_peer(e) : NULL;
    if (!fresh)
        return;
    atomic_store(&e->peer->gone, true);
    crew_peer_release(e->peer);
    e->peer = fresh;
}

static void lose(struct crew_endpoint *e, crew_status status)
{
    crew_error why;
    crew_list unsent = { 0 };
    char *words = e->connection->lost.message;
    crew_error_set(&why, status, "%s", *words ? words : crew_status_text(status));
    words[0] = '\0';
    e->ops->close(e->connection->state, 0, e->options.server ? NULL : &unsent);
    e->open = false;
    replace_peer(e);
    note_ready(e);
    if (crew_now_ms() - e->opened_at_ms >= STABLE_MS) /* else it may be our own doing that it was lost */
        e->backoff_ms = BACKOFF_FIRST_MS;
    schedule_retry(e, BACKOFF_MOST_MS);
    log_trouble(e, e->options.server ? "connection lost" : "a client's connection was lost", why.message);
    crew_list_move(&unsent, &e->outgoing);
    e->outgoing = unsent;
    e->options.owner->changed(e, &why, &e->outgoing);
}

/* ---- moving messages ---- */

static void trace(const struct crew_endpoint *e, const crew_message *m, bool incoming,
                  const crew_buffer *bytes)
{
    crew_trace one = { .incoming = incoming,
                       .endpoint = crew_url_text(e->url),
                       .content_type = m->content_type ? m->content_type : "",
                       .bytes = crew_buffer_string(bytes) };
    e->options.trace(e->options.trace_context, &one);
}

/* A client's requests are shown when they come back as written, since not all that is offered is. */
static void trace_received(const struct crew_endpoint *e, const crew_list *list)
{
    for (const crew_message *m = list->head; e->options.trace && m; m = m->next) {
        bool written = (m->kind == CREW_EVENT_WRITTEN || m->kind == CREW_EVENT_CONFIRMED) && m->body.size;
        if (written && m->reply.size)
            trace(e, m, false, &m->reply);
        if (written || m->kind == CREW_MESSAGE_REQUEST || m->kind == CREW_EVENT_REPLY)
            trace(e, m, !written, &m->body);
    }
}

static void trace_answers(const struct crew_endpoint *e, const crew_list *list)
{
    for (const crew_message *m = list->head; e->options.trace && e->options.server && m; m = m->next)
        if (m->kind == CREW_SETTLE_REPLY)
            trace(e, m, false, &m->reply);
}

static crew_status send_all(struct crew_endpoint *e)
{
    assert(current == e);
    crew_queue_take(&e->queue, &e->outgoing);
    e->pushed_here = false;
    if (!e->outgoing.count)
        return CREW_OK;
    e->options.owner->sending(e, &e->outgoing);
    if (!atomic_load(&e->ready) || !e->outgoing.count)
        return CREW_OK;
    trace_answers(e, &e->outgoing);
    return e->ops->send(e->connection->state, &e->outgoing);
}

void crew_endpoint_push(struct crew_endpoint *endpoint, crew_list *list)
{
    struct crew_endpoint *e = endpoint;
    if (!list->count)
        return;
    crew_status status = crew_queue_add(&e->queue, list);
    assert(status == CREW_OK); /* it has no limit of its own */
    (void)status;
    if (current == e)
        e->pushed_here = true; /* and it looks before it sleeps */
    else
        crew_queue_wake(&e->queue);
}

static crew_status receive_all(struct crew_endpoint *e)
{
    crew_room room = e->options.owner->room(e);
    assert(current == e);
    crew_list incoming = { 0 };
    crew_status status = e->ops->recv(e->connection->state, &incoming, &room);
    for (crew_message *m = incoming.head; m; m = m->next) {
        m->endpoint = e;
        m->epoch = e->epoch;
    }
    trace_received(e, &incoming);
    if (incoming.count)
        e->options.owner->received(e, &incoming);
    assert(!incoming.count);
    return status;
}

/* One round. With no_wait it takes what is there and sleeps for nothing. */
static void step_open(struct crew_endpoint *e, bool no_wait)
{
    int due_ms = e->options.owner->due(e);
    bool sendable = e->pushed_here || (e->outgoing.count && atomic_load(&e->ready));
    crew_room room = e->options.owner->room(e);
    crew_status status =
        e->ops->wait(e->connection->state, e->queue.fd, no_wait || sendable ? 0 : due_ms, &room);
    if (status == CREW_OK)
        status = send_all(e);
    /* Also after a failure: what had come by then counts, and recv is the one that tells of a loss. */
    crew_status received = status == CREW_OK || !e->options.server ? receive_all(e) : status;
    if (status == CREW_OK)
        status = received;
    if (status == CREW_CLOSED)
        crew_endpoint_command(e, CREW_ENDPOINT_CLOSE);
    else if (status != CREW_OK)
        lose(e, status);
    else
        note_ready(e);
}

static void step_closed(struct crew_endpoint *e)
{
    crew_error result;
    if (crew_connection_is_through(e->connection, &result)) {
        conclude_opening(e, &result);
        return;
    }
    int due_ms = e->options.owner->due(e);
    int64_t left = e->retry_at_ms - crew_now_ms();
    if (!e->connection->opening && left <= 0) {
        crew_connection_open(e->connection);
        return;
    }
    int timeout_ms = e->connection->opening || (due_ms >= 0 && due_ms < left) ? due_ms : (int)left;
    struct pollfd fd = { .fd = e->queue.fd, .events = POLLIN };
    (void)poll(&fd, 1, e->pushed_here ? 0 : timeout_ms);
    (void)send_all(e);
}

/* A worker's last answers go out; a client's calls are cancelled instead, and nothing more is sent. */
static void finish(struct crew_endpoint *e)
{
    if (e->open) {
        crew_list unsent = { 0 };
        crew_status status = e->options.server ? send_all(e) : CREW_OK;
        int64_t by_ms = atomic_load(&e->close_by_ms), left_ms = by_ms - crew_now_ms();
        unsigned linger_ms = !by_ms                      ? e->options.linger_ms
                             : left_ms > LINGER_LEAST_MS ? (unsigned)left_ms
                                                         : LINGER_LEAST_MS;
        e->ops->close(e->connection->state, status == CREW_OK ? linger_ms : 0,
                      e->options.server ? NULL : &unsent);
        e->open = false;
        atomic_store(&e->ready, false);
        crew_list_free(&unsent);
    }
    atomic_store(&e->over, true);
    e->options.owner->closed(e);
    if (!e->tried)
        tell_first(e, &(crew_error){ .status = CREW_CLOSED, .message = "stopped before it was open" });
}

static bool nothing_to_do(struct crew_endpoint *e)
{
    bool pending = e->open && e->ops->pending && e->ops->pending(e->connection->state);
    return !pending && e->options.owner->idle(e);
}

/* Pausing: what has arrived by then is taken and answered before the endpoint counts as idle. */
static bool pause_round(struct crew_endpoint *e)
{
    if (e->open && !e->paused && e->ops->unlisten)
        e->ops->unlisten(e->connection->state);
    if (e->open && !e->paused && e->ops->pause)
        e->ops->pause(e->connection->state);
    e->paused = e->open;
    if (!atomic_exchange(&e->pausing, true) && e->options.owner->paused)
        e->options.owner->paused(e);
    if (e->open) {
        step_open(e, nothing_to_do(e));
    } else { /* not opened again: what runs cannot be answered any more, and others have it now */
        struct pollfd fd = { .fd = e->queue.fd, .events = POLLIN };
        (void)poll(&fd, 1, nothing_to_do(e) || e->pushed_here ? 0 : -1);
        (void)send_all(e);
    }
    return !nothing_to_do(e);
}

static void *run(void *argument)
{
    struct crew_endpoint *e = argument;
    bool more = true;
    current = e;
    while (more) {
        atomic_fetch_add_explicit(&e->rounds, 1, memory_order_relaxed);
        int command = atomic_load(&e->command);
        if (command == CREW_ENDPOINT_CLOSE)
            more = false;
        else if (command == CREW_ENDPOINT_PAUSE)
            more = pause_round(e);
        else if (e->open)
            step_open(e, false);
        else
            step_closed(e);
    }
    finish(e);
    return NULL;
}

/* ---- life ---- */

static unsigned limit_of(const crew_url *url, const char *name, unsigned fallback)
{
    return (unsigned)crew_url_number(url, name, fallback);
}

/* Parses a URL, finds its transport and checks it; *url is the caller's also on failure, if it is not NULL.
 */
static crew_status read_url(const char *text, bool server, crew_url **url, const crew_transport **transport,
                            crew_error *why)
{
    crew_status status = crew_url_parse(text, url, why);
    if (status != CREW_OK)
        return status;
    *transport = crew_transport_find(crew_url_scheme(*url));
    if (!*transport) {
        crew_buffer known = { 0 };
        for (size_t i = 0; crew_transport_at(i); i++) {
            const crew_transport *each = crew_transport_at(i);
            if (!each->hidden && (server ? each->server : each->client))
                crew_buffer_printf(&known, "%s%s", known.size ? ", " : "", each->scheme);
        }
        status =
            crew_error_set(why, CREW_UNSUPPORTED, "URL '%s': no transport '%s'; there are %.*s",
                           crew_url_text(*url), crew_url_scheme(*url), CREW_STR(crew_buffer_string(&known)));
        crew_buffer_fini(&known);
        return status;
    }
    status = crew_url_check(*url, (*transport)->options, common_options, why);
    return status == CREW_OK ? (*transport)->check(*url, server, why) : status;
}

crew_status crew_endpoint_check(const char *url, crew_error *why)
{
    crew_url *parsed = NULL;
    const crew_transport *transport;
    crew_status status = read_url(url, true, &parsed, &transport, why);
    crew_url_free(parsed);
    return status;
}

crew_status crew_endpoint_count(const char *url, const char *content_type, size_t *count, crew_error *why)
{
    crew_url *parsed = NULL;
    const crew_transport *transport;
    crew_status status = read_url(url, false, &parsed, &transport, why);
    if (status == CREW_OK && transport->carries && !transport->carries(parsed, content_type))
        status = crew_error_set(why, CREW_UNSUPPORTED, "URL '%s': it carries no %s", crew_url_text(parsed),
                                content_type);
    if (status == CREW_OK)
        *count = transport->hosts_are_peers ? crew_url_host_count(parsed) : 1;
    crew_url_free(parsed);
    return status;
}

static void answered(void *context, const crew_message *message, crew_status status)
{
    struct crew_endpoint *e = context;
    e->options.owner->answered(e, message, status);
}

static bool too_large(void *context, crew_message *message)
{
    struct crew_endpoint *e = context;
    return e->options.owner->too_large(e, message);
}

static void gone(void *context, crew_peer *peer)
{
    struct crew_endpoint *e = context;
    e->options.owner->gone(e, peer);
}

static unsigned report(void *context, const char *name, const char **content_type, crew_buffer *out)
{
    struct crew_endpoint *e = context;
    return e->options.owner->report(e, name, content_type, out);
}

static bool hurried(void *context)
{
    const struct crew_endpoint *e = context;
    int64_t by_ms = atomic_load(&e->close_by_ms);
    return by_ms && by_ms + LINGER_LEAST_MS <= crew_now_ms();
}

static crew_status prepare(struct crew_endpoint *e, const char *url, crew_error *why)
{
    const crew_transport *transport;
    struct crew_endpoint_options *o = &e->options;
    crew_status status = read_url(url, o->server, &e->url, &transport, why);
    if (status != CREW_OK)
        return status;
    o->in_flight_max = limit_of(e->url, "in_flight", o->in_flight_max);
    o->timeout_ms = limit_of(e->url, "timeout_ms", o->timeout_ms);
    o->limits.message_bytes = crew_url_number(e->url, "max_bytes", o->limits.message_bytes);
    o->limits.string_bytes = crew_url_number(e->url, "max_string", o->limits.string_bytes);
    o->limits.items = limit_of(e->url, "max_items", o->limits.items);
    o->limits.depth = limit_of(e->url, "max_depth", o->limits.depth);
    o->limits.batch = limit_of(e->url, "max_batch", o->limits.batch);
    o->limits = crew_limits_resolve(&o->limits);
    if (crew_url_option_is(e->url, "error", "string"))
        o->errors = CREW_ERRORS_STRING;
    else if (crew_url_option_is(e->url, "error", "data"))
        o->errors = CREW_ERRORS_DATA;
    else if (crew_url_option_is(e->url, "error", "nvim"))
        o->errors = CREW_ERRORS_NVIM;
    e->reports_only = crew_url_option_is(e->url, "reports", "only");
    e->ops = o->server ? transport->server : transport->client;
    e->expects_ours = e->ops->has_with && crew_url_option_is(e->url, "peer", "rpcrew");
    e->requeue = e->ops->requeue ? e->ops->requeue(e->url) : CREW_REQUEUE_NEVER;
    const crew_transport_config config = { .host = o->host,
                                           .answered = o->owner->answered ? answered : NULL,
                                           .gone = o->owner->gone ? gone : NULL,
                                           .too_large = o->owner->too_large ? too_large : NULL,
                                           .report = o->owner->report ? report : NULL,
                                           .hurried = hurried,
                                           .context = e,
                                           .brief = o->brief,
                                           .callbacks = o->callbacks,
                                           .in_flight_max = o->in_flight_max,
                                           .connect_timeout_ms = o->connect_timeout_ms,
                                           .limits = o->limits,
                                           .hard_bytes = o->limits.message_bytes * HARD_TIMES + HARD_MORE };
    e->connection = crew_connection_new(e->ops, o->server, e->url, &config, &e->queue);
    if (!e->connection)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    e->messages = &e->connection->messages;
    e->peer = o->server ? new_peer(e) : NULL;
    return e->peer || !o->server ? CREW_OK : crew_error_set(why, CREW_NO_MEMORY, "no memory");
}

static void end_parts(struct crew_endpoint *e)
{
    crew_queue_fini(&e->queue);
    close(e->tried_fd);
}

static crew_status start_thread(struct crew_endpoint *e, crew_error *why)
{
    crew_status status = crew_queue_init(&e->queue, 0, why);
    if (status != CREW_OK)
        return status;
    e->tried_fd = eventfd(0, EFD_CLOEXEC);
    if (e->tried_fd < 0)
        status = crew_error_set(why, CREW_SYSTEM, "eventfd: %s", strerror(errno));
    e->backoff_ms = BACKOFF_FIRST_MS;
    atomic_store(&e->started, true);
    if (status == CREW_OK)
        status = crew_thread_start(&e->thread, "rpcrew-io", run, e, why);
    if (status == CREW_OK)
        return CREW_OK;
    atomic_store(&e->started, false);
    end_parts(e);
    return status;
}

/* Waits for the first attempt; it is ended if that is not wanted any more. */
static crew_error await_first(struct crew_endpoint *e)
{
    struct pollfd fds[] = { { .fd = e->tried_fd, .events = POLLIN },
                            { .fd = e->options.server ? e->options.give_up_fd : -1, .events = POLLIN } };
    bool given_up = false;
    while (!fds[0].revents) {
        (void)poll(fds, 2, -1);
        if (!fds[1].revents)
            continue;
        given_up = true;
        fds[1] = (struct pollfd){ .fd = -1 };
        crew_endpoint_command(e, CREW_ENDPOINT_CLOSE);
    }
    uint64_t count;
    ssize_t got = read(e->tried_fd, &count, sizeof count); /* what was written before it is seen by now */
    (void)got;
    if (given_up && e->first.status == CREW_OK)
        crew_error_set(&e->first, CREW_CLOSED, "stopped");
    return e->first;
}

crew_status crew_endpoint_start(struct crew_endpoint *endpoint, const char *url,
                                const struct crew_endpoint_options *options, crew_error *why)
{
    struct crew_endpoint *e = endpoint;
    e->options = *options;
    crew_status status = prepare(e, url, why);
    if (status == CREW_OK)
        status = start_thread(e, why);
    if (status != CREW_OK) {
        crew_connection_free(e->connection);
        crew_peer_release(e->peer);
        crew_url_free(e->url);
        return status;
    }
    if (e->options.background)
        return CREW_OK;
    crew_error first = await_first(e);
    if (first.status == CREW_OK)
        return CREW_OK;
    crew_endpoint_join(e);
    crew_endpoint_fini(e);
    if (why)
        *why = first;
    return first.status;
}

void crew_endpoint_join(struct crew_endpoint *endpoint)
{
    (void)pthread_join(endpoint->thread, NULL);
}

void crew_endpoint_fini(struct crew_endpoint *endpoint)
{
    struct crew_endpoint *e = endpoint;
    crew_connection_free(e->connection); /* before the queue, which it may wake */
    end_parts(e);
    crew_list_free(&e->outgoing);
    crew_peer_release(e->peer);
    crew_url_free(e->url);
}
