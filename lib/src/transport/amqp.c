/* amqp://user:password@host:port/vhost?queue=…: RabbitMQ; amqps://…: the same over TLS.
 *
 * A worker consumes a queue with manual acks, and answers to the request's reply_to; the ack goes in the same
 * write behind the answer, so that the work of a worker that dies is given to another. A caller publishes to
 * the queue, mandatory, and gets its answers on an exclusive queue of its connection, matched by correlation
 * id. */
#include "transport/amqp_link.h"
#include "transport/transports.h"

#include <rpcrew/log.h>

#include <stdio.h>
#include <stdlib.h>

enum { BURST_BYTES = 256 << 10, EVENTS_MOST = 1000, SILENCE_KNOWN_MS = 5000 };

static const char direct_reply_to[] = "amq.rabbitmq.reply-to";

static const char *option_or(const crew_transport_config *config, const char *name, const char *fallback)
{
    const char *text = crew_url_option(config->url, name);
    return text ? text : fallback;
}

/* A loss is recv's to tell, which reads what has come before it. */
static crew_status leave_to_recv(crew_status status)
{
    return status == CREW_DISCONNECTED ? CREW_OK : status;
}

static crew_status lost(const crew_transport_config *config, const struct amqp_event *e,
                        const crew_error *why)
{
    if (e->kind == AMQP_EVENT_CANCEL)
        return crew_error_set(config->lost, CREW_DISCONNECTED, "the broker cancelled the consumer");
    return crew_error_set(config->lost, CREW_DISCONNECTED, "%s", why->message);
}

/* ---- worker ---- */

struct worker {
    const crew_transport_config *config;
    struct amqp_link *link;
    bool ack_early, paused;
    bool requeues;      /* gives back what it has not started; else all that comes is handed out */
    crew_list ready;    /* received, and not handed out for want of room */
    crew_list answered; /* answers in the outbox, in order */

    /* whether the broker still knows our consumer */
    size_t unsettled;
    bool delivered, suspected; /* since the last inquiry; by it */
    int64_t inquire_at_ms;
};

/* In a request's arena. */
struct route {
    uint64_t tag;
    crew_string correlation_id;
};

static crew_status declare(const crew_transport_config *config, struct amqp_link *link, crew_error *why)
{
    if (crew_url_option_is(config->url, "declare", "no"))
        return CREW_OK;
    return amqp_link_declare(link, crew_url_option(config->url, "queue"),
                             crew_url_option_is(config->url, "declare", "passive"),
                             crew_url_option_is(config->url, "queue_type", "quorum"), why);
}

/* Where workers refuse what was redelivered, nothing that could still be answered is given back. */
static bool worker_can_requeue(const crew_url *url)
{
    return !crew_url_option_is(url, "redelivered", "refuse");
}

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct worker *w = state;
    *w = (struct worker){ .config = config,
                          .ack_early = crew_url_option_is(config->url, "ack", "early"),
                          .requeues = worker_can_requeue(config->url) };
    crew_status status = amqp_link_open(&w->link, config, 0, why);
    if (status != CREW_OK)
        return status;
    unsigned prefetch = (unsigned)crew_url_number(config->url, "prefetch", config->in_flight_max);
    status = declare(config, w->link, why);
    if (status == CREW_OK)
        status = amqp_link_consume(w->link, crew_url_option(config->url, "queue"), prefetch, false, why);
    if (status != CREW_OK)
        amqp_link_close(w->link, 100);
    return status;
}

static crew_status worker_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct worker *w = state;
    int most_ms = w->ready.count && crew_room_is_left(room) ? 0 : timeout_ms;
    return leave_to_recv(amqp_link_wait(w->link, wake_fd, most_ms));
}

/* The caller's deadline on our clock: from the header, else from the time that it may spend in the queue. */
static int64_t deadline_of(const struct amqp_event *e)
{
    static const int64_t most = (int64_t)365 * 24 * 3600 * 1000;
    int64_t left = 0;
    if (e->deadline_unix_ms > 0)
        left = e->deadline_unix_ms - crew_unix_ms();
    else if (e->expiration.data)
        left = strtoll(e->expiration.data, NULL, 10);
    if (!left &&
        e->deadline_unix_ms <= 0) /* an expiration of "0" is: at once or not at all, and here it is */
        return 0;
    return crew_now_ms() + (left < most ? left : most);
}

/* What a caller names its request by: one id, or both, with a NUL between them. */
static bool keep_key(crew_message *m, crew_string correlation_id, crew_string message_id)
{
    char *both;
    m->key = correlation_id;
    if (!message_id.size)
        return true;
    both = crew_arena_alloc(&m->arena, correlation_id.size + 1 + message_id.size);
    if (!both)
        return false;
    if (correlation_id.size)
        memcpy(both, correlation_id.data, correlation_id.size);
    both[correlation_id.size] = '\0';
    memcpy(both + correlation_id.size + 1, message_id.data, message_id.size);
    m->key = (crew_string){ both, correlation_id.size + 1 + message_id.size };
    return true;
}

static bool keep_text(crew_message *m, crew_string text, crew_string *kept)
{
    *kept = text.data ? crew_arena_string(&m->arena, text) : text;
    return kept->data || !text.data;
}

/* The properties of a delivery, in the message's arena; false without memory. */
static bool keep_properties(crew_message *m, struct route *route, const struct amqp_event *e)
{
    crew_string content_type;
    bool good = keep_text(m, e->content_type, &content_type) && keep_text(m, e->reply_to, &m->origin) &&
                keep_text(m, e->correlation_id, &route->correlation_id) &&
                keep_key(m, route->correlation_id, e->message_id);
    m->content_type = content_type.data;
    return good && (!e->headers || crew_value_copy(&m->arena, e->headers, &m->headers) == CREW_OK);
}

static crew_message *make_request(struct worker *w, const struct amqp_event *e)
{
    crew_message *m = crew_message_take(w->config->messages);
    struct route *route = m ? crew_arena_zalloc(&m->arena, sizeof *route) : NULL;
    if (!route) {
        crew_message_give(w->config->messages, m);
        return NULL;
    }
    route->tag = e->tag;
    crew_buffer_append(&m->body, e->body.data, e->body.size);
    if (!keep_properties(m, route, e) || m->body.failed) {
        crew_message_give(w->config->messages, m);
        return NULL;
    }
    m->kind = CREW_MESSAGE_REQUEST;
    m->mine = route;
    m->one_way = e->reply_to.size == 0;
    m->redelivered = e->redelivered;
    m->refusal = e->redelivered && !w->requeues ? CREW_REASON_REDELIVERED : NULL;
    m->deadline_ms = deadline_of(e);
    return m;
}

static bool on_delivery(struct worker *w, const struct amqp_event *e)
{
    if (w->paused && w->requeues)
        return amqp_link_reject(w->link, e->tag, true);
    crew_message *m = e->incomplete ? NULL : make_request(w, e);
    if (!m)
        return amqp_link_reject(w->link, e->tag, true); /* no memory: for another worker */
    crew_list_append(&w->ready, m);
    w->unsettled++;
    w->delivered = true;
    return true;
}

/* A consumer can be lost without a word. Once an interval of heartbeats the queue is asked after. */
static bool inquire(struct worker *w)
{
    int64_t now = crew_now_ms();
    unsigned interval_ms = amqp_link_heartbeat_ms(w->link);
    if (w->paused || !interval_ms || now < w->inquire_at_ms)
        return true;
    bool first = !w->inquire_at_ms;
    w->inquire_at_ms = now + interval_ms;
    return first || amqp_link_inquire(w->link, crew_url_option(w->config->url, "queue"));
}

/* Whether the queue is served by nobody, or, twice in a row, has messages that do not come although nothing
 * is in our way. The latter is also so where another consumer has precedence, so it is no cause for words. */
static bool consumer_is_doubtful(struct worker *w, const struct amqp_event *e)
{
    bool waits = e->exists && e->messages && !w->unsettled && !w->delivered;
    bool doubtful = !e->consumers || (waits && w->suspected);
    w->suspected = waits;
    w->delivered = false;
    return doubtful && !w->paused;
}

/* The queue was deleted or has moved, or the consumer is in doubt. What runs goes on and is answered; if the
 * queue cannot be had again, the broker closes the channel, and all is opened anew. */
static bool consume_again(struct worker *w, bool certain)
{
    const crew_url *url = w->config->url;
    if (w->paused)
        return true;
    crew_log(certain ? CREW_LOG_WARN : CREW_LOG_DEBUG,
             "the broker has cancelled or lost the consumer; consuming again", "{s:s}", "endpoint",
             crew_url_text(url));
    bool declare = !crew_url_option(url, "declare") || crew_url_option_is(url, "declare", "yes");
    return amqp_link_consume_again(w->link, crew_url_option(url, "queue"), declare,
                                   crew_url_option_is(url, "queue_type", "quorum"));
}

/* Tells of the answers that are written up to there, or of all the others that they never will be. */
static void tell_answered(struct worker *w, uint64_t written, crew_status others)
{
    while (w->answered.head) {
        bool is_out = w->answered.head->number <= written;
        if (!is_out && others == CREW_OK)
            return;
        crew_message *m = crew_list_take(&w->answered);
        crew_transport_answered(w->config, m, is_out ? CREW_OK : others);
        crew_message_give(w->config->messages, m);
    }
}

static crew_status worker_recv(void *state, crew_list *messages, crew_room *room)
{
    struct worker *w = state;
    crew_error why;
    bool good = inquire(w), more = true;
    tell_answered(w, amqp_link_written(w->link), CREW_OK);
    for (int i = 0; i < EVENTS_MOST && more && good; i++) {
        struct amqp_event e = amqp_link_next(w->link, &why);
        switch (e.kind) {
        case AMQP_EVENT_DELIVER: good = on_delivery(w, &e); break;
        case AMQP_EVENT_QUEUE:
            good = !consumer_is_doubtful(w, &e) ||
                   (amqp_link_cancel(w->link) && consume_again(w, e.consumers == 0));
            break;
        case AMQP_EVENT_CANCEL: good = consume_again(w, true); break;
        case AMQP_EVENT_LOST: return lost(w->config, &e, &why);
        case AMQP_EVENT_NONE: more = false; break;
        default: break;
        }
    }
    while (w->ready.count && crew_room_take(room, NULL, w->ready.head->body.size)) {
        crew_message *m = crew_list_take(&w->ready);
        crew_list_append(messages, m);
        /* Not before there is room: what is acknowledged does not count against the prefetch any more. */
        if (w->ack_early)
            good = good && amqp_link_ack(w->link, ((const struct route *)m->mine)->tag);
    }
    return good ? amqp_link_flush(w->link) : CREW_NO_MEMORY;
}

static bool publish_answer(struct worker *w, const crew_message *m)
{
    const struct route *route = m->mine;
    return amqp_link_publish(w->link, &(struct amqp_publish){ .channel = AMQP_CALLS,
                                                              .exchange = "",
                                                              .routing_key = m->origin,
                                                              .content_type = crew_str(m->content_type),
                                                              .correlation_id = route->correlation_id,
                                                              .expiration_ms = -1,
                                                              .body = crew_buffer_string(&m->reply) });
}

static bool settle_one(struct worker *w, const crew_message *m)
{
    const struct route *route = m->mine;
    crew_string reply_to = m->origin;
    bool answers = m->kind == CREW_SETTLE_REPLY;
    /* A malformed address of this shape makes the broker close the connection; the request must not come
     * round again, so its ack goes first. */
    bool ack_first = reply_to.size > sizeof direct_reply_to - 1 &&
                     memcmp(reply_to.data, direct_reply_to, sizeof direct_reply_to - 1) == 0;
    bool good = true;
    if (m->kind == CREW_SETTLE_REQUEUE || m->kind == CREW_SETTLE_REJECT)
        return w->ack_early || amqp_link_reject(w->link, route->tag, m->kind == CREW_SETTLE_REQUEUE);
    if (answers && !ack_first)
        good = publish_answer(w, m);
    if (!w->ack_early)
        good = good && amqp_link_ack(w->link, route->tag);
    if (answers && ack_first)
        good = good && publish_answer(w, m);
    return good;
}

/* Of an answer that waits in the outbox only where it ends there is needed. */
static void forget_content(crew_message *m)
{
    crew_buffer_fini(&m->body);
    crew_buffer_fini(&m->reply);
    crew_arena_fini(&m->arena);
}

static crew_status worker_send(void *state, crew_list *messages)
{
    struct worker *w = state;
    bool good = true, waits = !amqp_link_writable(w->link);
    w->unsettled -= messages->count;
    for (crew_message *m; (m = crew_list_take(messages));) {
        good = good && settle_one(w, m);
        if (good && m->kind == CREW_SETTLE_REPLY) {
            m->number = amqp_link_queued(w->link);
            if (waits) /* for long, perhaps */
                forget_content(m);
            crew_list_append(&w->answered, m);
            continue;
        }
        crew_transport_answered(w->config, m, CREW_NO_MEMORY);
        crew_message_give(w->config->messages, m);
    }
    if (!good)
        return CREW_NO_MEMORY;
    crew_status status = amqp_link_flush(w->link);
    tell_answered(w, amqp_link_written(w->link), CREW_OK);
    return leave_to_recv(status);
}

static void worker_pause(void *state)
{
    struct worker *w = state;
    bool good = amqp_link_cancel(w->link);
    w->paused = true;
    for (crew_message *m; w->requeues && (m = crew_list_take(&w->ready));) {
        good = good && amqp_link_reject(w->link, ((const struct route *)m->mine)->tag, true);
        crew_message_give(w->config->messages, m);
    }
    (void)good; /* what is not given back in words is given back by the close */
}

static void worker_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct worker *w = state;
    (void)unsent;
    crew_list_free(&w->ready);
    tell_answered(w, amqp_link_close(w->link, linger_ms), CREW_DISCONNECTED);
}

/* ---- caller ---- */

/* Of a request that has been encoded; in its arena. */
struct sending {
    uint64_t end;         /* where its bytes end in the stream */
    crew_message *ticket; /* what its confirm will be told by; NULL: it gets none */
};

struct caller {
    const crew_transport_config *config;
    struct amqp_link *link;
    const char *reply_to, *exchange, *routing_key;
    unsigned one_way_channel; /* where one-way calls are published */
    bool confirms_one_way, confirms_calls;
    uint64_t last_tag;     /* of what is to be confirmed */
    crew_list encoded;     /* in the outbox; empty but for a moment, or after a failure */
    crew_list unconfirmed; /* tickets, by tag */
    crew_list events;
    char silence[320]; /* what the last inquiry found wrong with the queue */
    int64_t silence_at_ms;
    bool no_memory; /* for a request: recv says so */
};

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct caller *c = state;
    *c = (struct caller){ .config = config, .one_way_channel = AMQP_CALLS };
    c->exchange = option_or(config, "exchange", "");
    c->routing_key = option_or(config, "routing_key", option_or(config, "queue", ""));
    c->confirms_one_way = !crew_url_option_is(config->url, "confirm", "no");
    c->confirms_calls = crew_url_option_is(config->url, "confirm", "all");
    /* Calls are not confirmed unless that is asked for, so one-way calls then have a channel of their own. */
    if (c->confirms_one_way && !c->confirms_calls)
        c->one_way_channel = AMQP_CONFIRMS;
    crew_status status = amqp_link_open(&c->link, config, c->confirms_one_way ? c->one_way_channel : 0, why);
    if (status != CREW_OK)
        return status;
    c->reply_to = direct_reply_to;
    if (*c->exchange)
        status = amqp_link_check_exchange(c->link, c->exchange, why);
    const char *reply = option_or(config, "reply", config->brief ? "direct" : "queue");
    if (status == CREW_OK && strcmp(reply, "queue") == 0)
        status = amqp_link_declare_exclusive(c->link, &c->reply_to, why);
    if (status == CREW_OK)
        status = amqp_link_consume(c->link, c->reply_to, 0, true, why);
    if (status != CREW_OK)
        amqp_link_close(c->link, 100);
    return status;
}

static crew_status caller_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct caller *c = state;
    (void)room;
    return leave_to_recv(amqp_link_wait(c->link, wake_fd, c->events.count ? 0 : timeout_ms));
}

static bool publish_request(struct caller *c, const crew_message *m)
{
    char id[16];
    (void)snprintf(id, sizeof id, "%u", m->correlation);
    bool kept = m->one_way && c->confirms_one_way; /* by the broker, whatever time it takes */
    int64_t left = m->deadline_ms ? m->deadline_ms - crew_now_ms() : -1;
    if (m->deadline_ms && left < 0)
        left = 0;
    return amqp_link_publish(
        c->link,
        &(struct amqp_publish){ .channel = m->one_way ? c->one_way_channel : AMQP_CALLS,
                                .exchange = c->exchange,
                                .routing_key = crew_str(c->routing_key),
                                .content_type = crew_str(m->content_type),
                                .correlation_id = crew_str(id),
                                .reply_to = crew_str(m->one_way ? NULL : c->reply_to),
                                .expiration_ms = kept ? -1 : left,
                                .deadline_unix_ms = m->one_way || left < 0 ? 0 : crew_unix_ms() + left,
                                .mandatory = true,
                                .persistent = kept,
                                .body = crew_buffer_string(&m->body) });
}

/* What a confirm will be told by; its tag is in its arena. */
static crew_message *new_ticket(struct caller *c, const crew_message *request)
{
    crew_message *ticket = crew_message_take(c->config->messages);
    uint64_t *tag = ticket ? crew_arena_alloc(&ticket->arena, sizeof *tag) : NULL;
    if (!tag) {
        crew_message_give(c->config->messages, ticket);
        return NULL;
    }
    *tag = c->last_tag + 1;
    ticket->kind = CREW_EVENT_CONFIRMED;
    ticket->correlation = request->correlation;
    ticket->mine = tag;
    return ticket;
}

static uint64_t tag_of(const crew_message *ticket)
{
    return *(const uint64_t *)ticket->mine;
}

/* Puts a request into the outbox; false without memory: then it is not. */
static bool encode_one(struct caller *c, crew_message *m)
{
    bool confirmed = m->one_way ? c->confirms_one_way : c->confirms_calls;
    struct sending *sending = crew_arena_zalloc(&m->arena, sizeof *sending);
    if (sending && confirmed)
        sending->ticket = new_ticket(c, m);
    if (!sending || (confirmed && !sending->ticket) || !publish_request(c, m)) {
        if (sending)
            crew_message_give(c->config->messages, sending->ticket);
        return false;
    }
    c->last_tag += confirmed;
    sending->end = amqp_link_queued(c->link);
    m->mine = sending;
    return true;
}

/* Requests that are written, or will be without our doing: they may be executed from now on. */
static void note_written(struct caller *c, uint64_t up_to)
{
    while (c->encoded.head && ((const struct sending *)c->encoded.head->mine)->end <= up_to) {
        crew_message *m = crew_list_take(&c->encoded), *ticket = ((const struct sending *)m->mine)->ticket;
        m->kind = m->one_way && !ticket ? CREW_EVENT_CONFIRMED : CREW_EVENT_WRITTEN;
        crew_list_append(&c->events, m);
        if (ticket)
            crew_list_append(&c->unconfirmed, ticket);
    }
}

/* Takes a burst at a time, until the broker takes no more: so what it does not take can still expire, or be
 * cancelled. A failure is recv's to tell, which gives out what was written before it. */
static crew_status caller_send(void *state, crew_list *messages)
{
    struct caller *c = state;
    crew_status status = amqp_link_flush(c->link);
    while (status == CREW_OK && messages->head && amqp_link_writable(c->link)) {
        uint64_t before = amqp_link_queued(c->link);
        while (status == CREW_OK && messages->head && amqp_link_queued(c->link) - before < BURST_BYTES) {
            if (encode_one(c, messages->head))
                crew_list_append(&c->encoded, crew_list_take(messages));
            else
                status = CREW_NO_MEMORY;
        }
        if (status == CREW_OK)
            status = amqp_link_flush(c->link);
        note_written(c, status == CREW_OK ? UINT64_MAX : amqp_link_written(c->link));
    }
    c->no_memory = status == CREW_NO_MEMORY;
    return CREW_OK;
}

static bool caller_ready(const void *state)
{
    const struct caller *c = state;
    return amqp_link_writable(c->link);
}

/* Ids that are not ours are 0. */
static uint32_t parse_id(crew_string text)
{
    uint64_t id = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || i == 10)
            return 0;
        id = id * 10 + (uint64_t)(text.data[i] - '0');
    }
    return id <= UINT32_MAX ? (uint32_t)id : 0;
}

/* Confirms come for one tag or for all up to it. */
static void on_confirm(struct caller *c, const struct amqp_event *e)
{
    crew_list earlier = { 0 };
    while (c->unconfirmed.head && tag_of(c->unconfirmed.head) <= e->tag) {
        crew_message *ticket = crew_list_take(&c->unconfirmed);
        bool meant = e->multiple || tag_of(ticket) == e->tag;
        if (meant && e->kind == AMQP_EVENT_NACK)
            ticket->kind = CREW_EVENT_REFUSED;
        crew_list_append(meant ? &c->events : &earlier, ticket);
    }
    crew_list_move(&earlier, &c->unconfirmed);
    c->unconfirmed = earlier;
}

/* What is returned is confirmed as well, but later: the return is what it ends by. */
static void forget_ticket(struct caller *c, uint32_t correlation)
{
    crew_list earlier = { 0 };
    bool found = false;
    while (!found && c->unconfirmed.head) {
        crew_message *ticket = crew_list_take(&c->unconfirmed);
        found = ticket->correlation == correlation;
        if (found)
            crew_message_give(c->config->messages, ticket);
        else
            crew_list_append(&earlier, ticket);
    }
    crew_list_move(&earlier, &c->unconfirmed);
    c->unconfirmed = earlier;
}

static bool on_return(struct caller *c, const struct amqp_event *e)
{
    crew_message *m = crew_message_take(c->config->messages);
    if (!m)
        return false;
    m->kind = CREW_EVENT_UNROUTABLE;
    m->correlation = parse_id(e->correlation_id);
    forget_ticket(c, m->correlation);
    crew_list_append(&c->events, m);
    return !e->incomplete;
}

static bool on_answer(struct caller *c, const struct amqp_event *e)
{
    uint32_t id = parse_id(e->correlation_id);
    crew_message *m = crew_message_take(c->config->messages);
    if (!m)
        return false;
    m->kind = id ? CREW_EVENT_REPLY : CREW_EVENT_STRAY;
    m->correlation = id;
    if (id)
        crew_buffer_append(&m->body, e->body.data, e->body.size);
    crew_list_append(&c->events, m);
    return !m->body.failed && !e->incomplete;
}

static void on_queue(struct caller *c, const struct amqp_event *e)
{
    const char *fault = !e->exists ? "is not there any more" : !e->consumers ? "has no consumers" : NULL;
    c->silence[0] = '\0';
    c->silence_at_ms = crew_now_ms();
    if (fault)
        (void)snprintf(c->silence, sizeof c->silence, "queue '%s' %s", c->routing_key, fault);
}

/* Without memory for the question there is no answer, which is no worse than not to ask. */
static const char *caller_silence(void *state)
{
    struct caller *c = state;
    if (*c->exchange || !amqp_link_inquire(c->link, c->routing_key))
        return NULL;
    bool known = *c->silence && crew_now_ms() - c->silence_at_ms < SILENCE_KNOWN_MS;
    return known ? c->silence : NULL;
}

static crew_status caller_recv(void *state, crew_list *messages, crew_room *room)
{
    struct caller *c = state;
    crew_error why;
    crew_status status = c->no_memory ? CREW_NO_MEMORY : CREW_OK;
    bool more = true;
    for (int i = 0; i < EVENTS_MOST && more && status == CREW_OK && crew_room_is_left(room); i++) {
        struct amqp_event e = amqp_link_next(c->link, &why);
        (void)crew_room_take(room, NULL, e.body.size);
        switch (e.kind) {
        case AMQP_EVENT_DELIVER: status = on_answer(c, &e) ? CREW_OK : CREW_NO_MEMORY; break;
        case AMQP_EVENT_RETURN: status = on_return(c, &e) ? CREW_OK : CREW_NO_MEMORY; break;
        case AMQP_EVENT_ACK:
        case AMQP_EVENT_NACK: on_confirm(c, &e); break;
        case AMQP_EVENT_QUEUE: on_queue(c, &e); break;
        case AMQP_EVENT_CANCEL:
        case AMQP_EVENT_LOST: status = lost(c->config, &e, &why); break;
        case AMQP_EVENT_NONE: more = false; break;
        }
    }
    if (status == CREW_OK)
        status = amqp_link_flush(c->link);
    crew_list_move(messages, &c->events);
    return status;
}

static void caller_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct caller *c = state;
    for (crew_message *m; (m = crew_list_take(&c->encoded));) {
        crew_message_give(c->config->messages, ((const struct sending *)m->mine)->ticket);
        crew_list_append(unsent, m);
    }
    crew_list_free(&c->unconfirmed);
    crew_list_free(&c->events);
    amqp_link_close(c->link, linger_ms);
}

/* ---- the table ---- */

static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    static const char *const names[] = { "queue", "exchange", "routing_key" };
    const char *wants = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (crew_url_option(url, names[i]) && strlen(crew_url_option(url, names[i])) > 255)
            wants = "the names of queues, exchanges and routing keys have 255 bytes at most";
    if (server && !crew_url_option(url, "queue"))
        wants = "a worker wants ?queue=NAME";
    else if (!server && !crew_url_option(url, "queue") && !crew_url_option(url, "routing_key"))
        wants = "a caller wants ?queue=NAME, or ?exchange=NAME&routing_key=KEY";
    if (!crew_url_option(url, "certfile") != !crew_url_option(url, "keyfile"))
        wants = "certfile and keyfile go together";
    return wants ? crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': %s", crew_url_text(url), wants)
                 : CREW_OK;
}

/* Of both schemes. */
#define OPTIONS                                                                                          \
    { "queue", NULL, 0, 0, "the queue that requests go through" },                                       \
        { "exchange", NULL, 0, 0, "caller: where requests are published; the default exchange" },        \
        { "routing_key", NULL, 0, 0, "caller: with which key; the queue's name" },                       \
        { "heartbeat", NULL, 1, 3600, "seconds" }, { "prefetch", NULL, 1, 65535, "worker: in_flight" },  \
        { "ack", "reply|early", 0, 0, "worker: with the answer, or on receipt (at most once)" },         \
        { "redelivered", "run|refuse", 0, 0, "worker: what to do with what a worker had before" },       \
        { "reply", "queue|direct", 0, 0, "caller: an exclusive queue for answers, or direct reply-to" }, \
        { "declare", "yes|passive|no", 0, 0, "worker: declares the queue, only checks it, neither" },    \
        { "queue_type", "classic|quorum", 0, 0, "worker: as what it is declared" },                      \
        { "confirm", "yes|no|all", 0, 0,                                                                 \
          "caller: one-way calls are confirmed by the broker; none; all are" }

static const crew_url_option_spec plain_options[] = {
    OPTIONS,
    { NULL, NULL, 0, 0, NULL },
};

static const crew_url_option_spec tls_options[] = {
    OPTIONS,
    { "cacertfile", NULL, 0, 0, "certificates of the authorities to trust (PEM); the system's" },
    { "certfile", NULL, 0, 0, "our certificate, for brokers that want one (PEM)" },
    { "keyfile", NULL, 0, 0, "its key (PEM)" },
    { "verify", "verify_peer|verify_none", 0, 0, "whether the broker's certificate and name are checked" },
    { NULL, NULL, 0, 0, NULL },
};

static const struct crew_transport_ops worker_ops = {
    .size = sizeof(struct worker),
    .can_requeue = worker_can_requeue,
    .open = worker_open,
    .wait = worker_wait,
    .send = worker_send,
    .recv = worker_recv,
    .pause = worker_pause,
    .close = worker_close,
};

static const struct crew_transport_ops caller_ops = {
    .size = sizeof(struct caller),
    .open = caller_open,
    .wait = caller_wait,
    .send = caller_send,
    .recv = caller_recv,
    .close = caller_close,
    .ready = caller_ready,
    .silence = caller_silence,
};

const crew_transport crew_amqp = { .scheme = "amqp",
                                   .carries_types = true,
                                   .redelivers = true,
                                   .options = plain_options,
                                   .check = check,
                                   .server = &worker_ops,
                                   .client = &caller_ops };

const crew_transport crew_amqps = { .scheme = "amqps",
                                    .carries_types = true,
                                    .redelivers = true,
                                    .options = tls_options,
                                    .check = check,
                                    .server = &worker_ops,
                                    .client = &caller_ops };
