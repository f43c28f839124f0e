/* A caller on RabbitMQ: publishes to the queue, mandatory, and gets its answers on an exclusive queue of its
 * connection, matched by correlation id. */
#include "transport/amqp_end.h"

#include <stdio.h>

enum { BURST_BYTES = 256 << 10, SILENCE_KNOWN_MS = 5000 };

static const char direct_reply_to[] = AMQP_DIRECT_REPLY_TO;
static const char refused[] = "the broker refused it: its queue is full, or without a server";

static const char *option_or(const crew_transport_config *config, const char *name, const char *fallback)
{
    const char *text = crew_url_option(config->url, name);
    return text ? text : fallback;
}

/* Of a request that has been encoded; in its arena. */
struct sending {
    uint64_t end;         /* where its bytes end in the stream */
    crew_message *ticket; /* what its confirm will be told by; NULL: it gets none */
    bool large;           /* it is told by the channel for those, */
    crew_peer *peer;      /* and answered there; borrowed */
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
    struct amqp_sizes sizes;
    uint32_t large;        /* the correlation of the one that may be too large, */
    bool large_is_told;    /* whose being taken is told */
    bool stalled;          /* the next request has to wait for that one */
    bool direct;           /* answers come over the channel that asked: what goes over AMQP_LARGE has */
    crew_peer *large_peer; /* this for a peer, from the channel's opening to its end; NULL: it is not open */
    crew_peer *leaving;    /* one whose channel has ended, which is told when what ended it has been */
};

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct caller *c = state;
    *c = (struct caller){ .config = config, .one_way_channel = AMQP_CALLS, .sizes = c->sizes };
    c->exchange = option_or(config, "exchange", "");
    c->routing_key = option_or(config, "routing_key", option_or(config, "queue", ""));
    c->confirms_one_way = !crew_url_option_is(config->url, "confirm", "no");
    c->confirms_calls = crew_url_option_is(config->url, "confirm", "all");
    /* Calls are not confirmed unless that is asked for, so one-way calls then have a channel of their own. */
    if (c->confirms_one_way && !c->confirms_calls)
        c->one_way_channel = AMQP_CONFIRMS;
    crew_status status =
        amqp_link_open(&c->link, config, NULL, c->confirms_one_way ? c->one_way_channel : 0, why);
    if (status != CREW_OK)
        return status;
    if (!amqp_link_has(c->link, c->one_way_channel)) { /* one channel for all, which is confirmed */
        c->one_way_channel = AMQP_CALLS;
        c->confirms_calls = true;
    }
    amqp_sizes_open(&c->sizes, c->link);
    c->reply_to = direct_reply_to;
    if (*c->exchange)
        status = amqp_link_check_exchange(c->link, c->exchange, why);
    const char *reply = option_or(config, "reply", config->brief ? "direct" : "queue");
    c->direct = strcmp(reply, "direct") == 0;
    if (c->direct)
        amqp_link_answer_directly(c->link);
    else if (status == CREW_OK)
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
    return amqp_leave_to_recv(
        amqp_link_wait(c->link, wake_fd, c->events.count || c->leaving ? 0 : timeout_ms));
}

static bool publish_request(struct caller *c, const crew_message *m, bool large)
{
    char id[16];
    (void)snprintf(id, sizeof id, "%u", m->correlation);
    bool kept = m->one_way && c->confirms_one_way; /* by the broker, whatever time it takes */
    int64_t left = m->deadline_ms ? m->deadline_ms - crew_now_ms() : -1;
    if (m->deadline_ms && left < 0)
        left = 0;
    return amqp_link_publish(
        c->link,
        &(struct amqp_publish){ .channel = large        ? AMQP_LARGE
                                           : m->one_way ? c->one_way_channel
                                                        : AMQP_CALLS,
                                .exchange = c->exchange,
                                .routing_key = crew_str(c->routing_key),
                                .content_type = crew_str(m->content_type),
                                .correlation_id = crew_str(id),
                                .reply_to = crew_str(m->one_way ? NULL : c->reply_to),
                                .expiration_ms = kept ? -1 : left,
                                .deadline_unix_ms = m->one_way || left < 0 ? 0 : crew_unix_ms() + left,
                                .headers = m->headers,
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
static bool encode_one(struct caller *c, crew_message *m, bool large)
{
    bool answered_there = large && c->direct && !m->one_way;
    if (answered_there && !c->large_peer && !(c->large_peer = crew_peer_new(NULL)))
        return false;
    bool confirmed = (m->one_way ? c->confirms_one_way : c->confirms_calls) && !large;
    struct sending *sending = crew_arena_zalloc(&m->arena, sizeof *sending);
    if (sending && confirmed)
        sending->ticket = new_ticket(c, m);
    if (!sending || (confirmed && !sending->ticket) || !publish_request(c, m, large)) {
        if (sending)
            crew_message_give(c->config->messages, sending->ticket);
        return false;
    }
    c->last_tag += confirmed;
    sending->end = amqp_link_queued(c->link);
    sending->large = large;
    sending->peer = answered_there ? c->large_peer : NULL;
    m->mine = sending;
    if (large) {
        amqp_sizes_begin(&c->sizes, m->body.size);
        c->large = m->correlation;
        c->large_is_told = m->one_way ? c->confirms_one_way : c->confirms_calls;
    }
    return true;
}

/* The next request goes out, or ends, or has to wait: false then, and without memory. */
static bool take_one(struct caller *c, crew_list *messages)
{
    crew_message *m = messages->head;
    bool large = m->body.size > c->sizes.taken;
    if (c->sizes.most && m->body.size > c->sizes.most) {
        m->kind = CREW_EVENT_TOO_LARGE;
        m->words = c->sizes.words;
        crew_list_append(&c->events, crew_list_take(messages));
        return true;
    }
    c->stalled = large && c->sizes.busy;
    if (c->stalled)
        return false;
    c->no_memory = !encode_one(c, m, large);
    if (!c->no_memory)
        crew_list_append(&c->encoded, crew_list_take(messages));
    return !c->no_memory;
}

/* Requests that are written, or will be without our doing: they may be executed from now on. */
static void note_written(struct caller *c, uint64_t up_to)
{
    while (c->encoded.head && ((const struct sending *)c->encoded.head->mine)->end <= up_to) {
        crew_message *m = crew_list_take(&c->encoded);
        const struct sending *sending = m->mine;
        crew_message *ticket = sending->ticket;
        bool is_told = ticket || (sending->large && c->large_is_told);
        if (sending->peer && sending->peer == c->large_peer) {
            m->peer = crew_peer_hold(c->large_peer);
            atomic_fetch_add(&c->large_peer->in_flight, 1);
        }
        m->kind = m->one_way && !is_told ? CREW_EVENT_CONFIRMED : CREW_EVENT_WRITTEN;
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
    bool more = true;
    while (status == CREW_OK && more && messages->head && amqp_link_writable(c->link)) {
        uint64_t before = amqp_link_queued(c->link);
        while (more && messages->head && amqp_link_queued(c->link) - before < BURST_BYTES)
            more = take_one(c, messages);
        if (!c->no_memory)
            status = amqp_link_flush(c->link);
        bool whole = status == CREW_OK && !c->no_memory;
        note_written(c, whole ? UINT64_MAX : amqp_link_written(c->link));
    }
    return CREW_OK;
}

static bool caller_ready(const void *state)
{
    const struct caller *c = state;
    return amqp_link_writable(c->link) && !c->stalled;
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
        if (meant && e->kind == AMQP_EVENT_NACK) {
            ticket->kind = CREW_EVENT_REFUSED;
            ticket->unsure = *c->exchange != '\0'; /* of the queues behind it some may have it */
            ticket->words = refused;
        }
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

/* With the channel the answers are lost that were to come over it: their calls are told, as those of any peer
 * that goes. */
static void tell_leaving(struct caller *c)
{
    if (c->leaving)
        crew_transport_gone(c->config, c->leaving);
    crew_peer_release(c->leaving);
    c->leaving = NULL;
}

static void leave_large(struct caller *c)
{
    tell_leaving(c);
    c->leaving = c->large_peer;
    c->large_peer = NULL;
}

/* The one that may be too large is through; false without memory. */
static bool on_large(struct caller *c, const struct amqp_event *e, const crew_error *why)
{
    amqp_sizes_note(&c->sizes, e, why);
    c->stalled = false;
    if (e->kind == AMQP_EVENT_TOO_LARGE)
        leave_large(c);
    if (e->kind == AMQP_EVENT_LARGE && e->taken && !c->large_is_told)
        return true;
    crew_message *m = crew_message_take(c->config->messages);
    if (!m)
        return false;
    m->kind = e->kind == AMQP_EVENT_TOO_LARGE ? CREW_EVENT_TOO_LARGE
              : e->taken                      ? CREW_EVENT_CONFIRMED
                                              : CREW_EVENT_REFUSED;
    m->words = e->kind == AMQP_EVENT_TOO_LARGE ? c->sizes.words : refused;
    m->unsure = m->kind == CREW_EVENT_REFUSED && *c->exchange;
    m->correlation = c->large;
    crew_list_append(&c->events, m);
    return true;
}

static bool on_return(struct caller *c, const struct amqp_event *e)
{
    crew_message *m = crew_message_take(c->config->messages);
    if (!m)
        return false;
    m->kind = CREW_EVENT_UNROUTABLE;
    m->correlation = parse_id(e->correlation_id);
    forget_ticket(c, m->correlation);
    if (m->correlation == c->large)
        c->large_is_told = false; /* by its confirm, which comes as well */
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
    if (e->large && c->large_peer)
        m->peer = crew_peer_hold(c->large_peer);
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
    tell_leaving(c);
    if (amqp_sizes_give_up(&c->sizes,
                           c->link)) { /* with direct replies its call ends now, else by its deadline */
        c->stalled = false;
        leave_large(c);
    }
    for (int i = 0; i < AMQP_EVENTS_MOST && more && status == CREW_OK && crew_room_is_left(room); i++) {
        struct amqp_event e = amqp_link_next(c->link, &why);
        (void)crew_room_take(room, NULL, e.body.size);
        switch (e.kind) {
        case AMQP_EVENT_DELIVER: status = on_answer(c, &e) ? CREW_OK : CREW_NO_MEMORY; break;
        case AMQP_EVENT_RETURN: status = on_return(c, &e) ? CREW_OK : CREW_NO_MEMORY; break;
        case AMQP_EVENT_ACK:
        case AMQP_EVENT_NACK: on_confirm(c, &e); break;
        case AMQP_EVENT_QUEUE: on_queue(c, &e); break;
        case AMQP_EVENT_LARGE:
        case AMQP_EVENT_TOO_LARGE: status = on_large(c, &e, &why) ? CREW_OK : CREW_NO_MEMORY; break;
        case AMQP_EVENT_LOST: amqp_sizes_note_loss(&c->sizes, why.message); /* fall through */
        case AMQP_EVENT_CANCEL: status = amqp_lost(c->config, &e, &why); break;
        case AMQP_EVENT_CANCELLED: break;
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
    crew_peer_release(c->leaving);
    crew_peer_release(c->large_peer);
    amqp_link_close(c->link, linger_ms);
}

const struct crew_transport_ops crew_amqp_caller_ops = {
    .carries_headers = true,
    .brokered = true,
    .size = sizeof(struct caller),
    .open = caller_open,
    .wait = caller_wait,
    .send = caller_send,
    .recv = caller_recv,
    .close = caller_close,
    .ready = caller_ready,
    .silence = caller_silence,
};
