/* A worker on RabbitMQ: consumes a queue with manual acks, and answers to the request's reply_to; the ack
 * goes in the same write behind the answer, so that the work of a worker that dies is given to another. */
#include "transport/amqp_end.h"

#include <rpcrew/log.h>

#include <ctype.h>
#include <stdlib.h>

struct worker {
    const crew_transport_config *config;
    struct amqp_link *link;
    bool ack_early, paused;
    bool cancelling; /* the consumer, and more may be on its way */
    bool refuses;    /* what was redelivered */
    crew_requeue requeue;
    bool clocks_disagree; /* ours and the callers', by the latest request that can tell */
    crew_list ready;      /* received, and not handed out for want of room */
    crew_list answered;   /* answers in the outbox, in order */
    crew_list large;      /* that may be too large for the broker; the first is on its way */
    struct amqp_sizes sizes;
    char exchange[256]; /* that the queue is bound to */
    struct amqp_binding binding;

    /* whether the broker still knows our consumer */
    size_t unsettled;
    bool delivered, suspected; /* since the last inquiry; by it */
    int64_t inquire_at_ms;
};

/* In a request's arena. */
struct route {
    uint64_t tag;
    crew_string correlation_id;
    const char *exchange; /* where the answer is published, and with which key */
    crew_string key;
};

static struct amqp_queue queue_of(const crew_url *url)
{
    return (struct amqp_queue){ .name = crew_url_option(url, "queue"),
                                .type = crew_url_option(url, "queue_type"),
                                .consumer_timeout_ms = (int64_t)crew_url_number(url, "consumer_timeout", 0) };
}

static crew_status declare(const crew_transport_config *config, struct amqp_link *link, crew_error *why)
{
    struct amqp_queue queue = queue_of(config->url);
    if (crew_url_option_is(config->url, "declare", "no"))
        return CREW_OK;
    return amqp_link_declare(link, &queue, crew_url_option_is(config->url, "declare", "passive"), why);
}

/* Where workers refuse what was redelivered, nothing that could still be answered is given back. Each giving
 * back counts towards a quorum queue's delivery limit, so unless it is known to be none it is the last
 * resort.
 */
static crew_requeue worker_requeue(const crew_url *url)
{
    if (crew_url_option_is(url, "redelivered", "refuse"))
        return CREW_REQUEUE_NEVER;
    return crew_url_option_is(url, "queue_type", "classic") ? CREW_REQUEUE_FIRST : CREW_REQUEUE_LAST;
}

/* bind=EXCHANGE:KEY */
static void read_binding(struct worker *w)
{
    const char *text = crew_url_option(w->config->url, "bind");
    size_t size = text ? strcspn(text, ":") : 0;
    w->binding = (struct amqp_binding){ NULL, NULL };
    if (!text || size >= sizeof w->exchange)
        return;
    memcpy(w->exchange, text, size);
    w->exchange[size] = '\0';
    w->binding = (struct amqp_binding){ w->exchange, text[size] ? text + size + 1 : "" };
}

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct worker *w = state;
    *w = (struct worker){ .config = config,
                          .sizes = w->sizes,
                          .ack_early = crew_url_option_is(config->url, "ack", "early"),
                          .refuses = crew_url_option_is(config->url, "redelivered", "refuse"),
                          .requeue = worker_requeue(config->url) };
    crew_status status = amqp_link_open(&w->link, config, 0, why);
    if (status != CREW_OK)
        return status;
    amqp_sizes_open(&w->sizes, w->link);
    unsigned prefetch = (unsigned)crew_url_number(config->url, "prefetch", config->in_flight_max);
    status = declare(config, w->link, why);
    read_binding(w);
    if (status == CREW_OK && w->binding.exchange)
        status = amqp_link_bind(w->link, crew_url_option(config->url, "queue"), &w->binding, why);
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
    return amqp_leave_to_recv(amqp_link_wait(w->link, wake_fd, most_ms));
}

/* The caller's deadline on our clock: from its headers, else from the time that it may spend in the queue,
 * which says as well how long it has been there at most when it comes for the first time. */
static int64_t deadline_of(struct worker *w, const struct amqp_event *e)
{
    int64_t expiration = e->expiration.data ? strtoll(e->expiration.data, NULL, 10) : -1;
    int64_t left = e->timeout_ms >= 0 ? e->timeout_ms : expiration;
    bool first = !e->redelivered && expiration >= 0, disagree = false;
    if (e->deadline_unix_ms <= 0 && left < 0)
        return 0;
    int64_t deadline = crew_travelled_deadline(e->deadline_unix_ms, left,
                                               first || w->clocks_disagree ? left : INT64_MAX, &disagree);
    if (disagree && !w->clocks_disagree)
        crew_log(CREW_LOG_WARN, CREW_CLOCKS_DISAGREE, "{s:s}", "endpoint", crew_url_text(w->config->url));
    if (first || disagree)
        w->clocks_disagree = disagree;
    return deadline;
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

/* Percent escapes; what is none stays. False without memory. */
static bool unescape(crew_message *m, crew_string *text)
{
    char *out = crew_arena_alloc(&m->arena, text->size + 1);
    size_t size = 0;
    if (!out)
        return false;
    for (size_t i = 0; i < text->size; i++) {
        char digits[3] = { 0 };
        if (text->data[i] == '%' && text->size - i > 2)
            memcpy(digits, text->data + i + 1, 2);
        bool escaped = isxdigit((unsigned char)digits[0]) && isxdigit((unsigned char)digits[1]);
        out[size] = text->data[i];
        if (escaped)
            out[size] = (char)(unsigned char)strtoul(digits, NULL, 16);
        size++;
        i += escaped ? 2 : 0;
    }
    *text = (crew_string){ out, size };
    return true;
}

/* A body that is a string, in the encoding of AMQP 1.0 (part 1, 1.6.20; part 3, 3.2.8), as the broker leaves
 * it; another one stays as it is. */
static crew_string text_of_amqp10(crew_string body)
{
    static const char value[] = { 0x00, 0x53, 0x77 };
    if (body.size < sizeof value + 2 || memcmp(body.data, value, sizeof value) != 0)
        return body;
    const unsigned char *at = (const unsigned char *)body.data + sizeof value;
    size_t left = body.size - sizeof value, head = *at == 0xA1 ? 2 : 5;
    if ((*at != 0xA1 && *at != 0xB1) || left < head)
        return body;
    size_t size = head == 2 ? at[1] : (size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4];
    return size == left - head ? (crew_string){ (const char *)at + head, size } : body;
}

/* A header that is a text or bytes, as those of other protocols come through the broker's plugins. */
static crew_string header_of(const struct amqp_event *e, const char *name)
{
    crew_string text = { 0 };
    if (crew_value_bytes(crew_value_get(e->headers, name), &text) != CREW_OK)
        text = (crew_string){ 0 };
    return text;
}

/* Where the answer goes; false without memory. AMQP 1.0 has addresses: /queues/NAME (percent-encoded, since
 * RabbitMQ 4), /queue/NAME and /amq/queue/NAME before that. MQTT 5 has a topic, which is a key of amq.topic.
 */
static bool read_address(crew_message *m, struct route *route, const struct amqp_event *e)
{
    static const char *const prefixes[] = { "/queues/", "/queue/", "/amq/queue/" };
    crew_string topic = header_of(e, "x-reply-to-topic"), name = e->reply_to;
    route->exchange = "";
    if (!e->reply_to.size && topic.size && topic.size <= 255) {
        route->exchange = "amq.topic";
        name = topic;
    }
    m->one_way = name.size == 0;
    if (!keep_text(m, name, &m->origin))
        return false;
    route->key = m->origin;
    for (size_t i = 0; i < 3 && *route->exchange == '\0'; i++) {
        size_t size = strlen(prefixes[i]);
        if (m->origin.size > size && memcmp(m->origin.data, prefixes[i], size) == 0) {
            route->key = (crew_string){ m->origin.data + size, m->origin.size - size };
            return i > 0 || unescape(m, &route->key);
        }
    }
    return true;
}

/* The properties of a delivery, in the message's arena; false without memory. Who names only the message
 * wants that name as the answer's correlation id, as AMQP 1.0 has it. */
static bool keep_properties(crew_message *m, struct route *route, const struct amqp_event *e)
{
    const crew_string ids[] = { e->correlation_id, header_of(e, "x-correlation-id"), e->message_id,
                                header_of(e, "x-message-id") };
    crew_string content_type, id = { 0 };
    for (size_t i = 0; i < 4 && !id.size; i++)
        if (ids[i].size <= 255)
            id = ids[i];
    bool good = keep_text(m, e->content_type, &content_type) && read_address(m, route, e) &&
                keep_text(m, id, &route->correlation_id) && keep_key(m, route->correlation_id, e->message_id);
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
    crew_string body = crew_string_equal(e->type, crew_str("amqp-1.0")) ? text_of_amqp10(e->body) : e->body;
    route->tag = e->tag;
    crew_buffer_append(&m->body, body.data, body.size);
    if (!keep_properties(m, route, e) || m->body.failed) {
        crew_message_give(w->config->messages, m);
        return NULL;
    }
    m->kind = CREW_MESSAGE_REQUEST;
    m->mine = route;
    m->redelivered = e->redelivered;
    m->refusal = e->redelivered && w->refuses ? CREW_REASON_REDELIVERED : NULL;
    m->deadline_ms = deadline_of(w, e);
    return m;
}

static bool on_delivery(struct worker *w, const struct amqp_event *e)
{
    if (w->paused && w->requeue == CREW_REQUEUE_FIRST)
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
    struct amqp_queue queue = queue_of(url);
    return amqp_link_consume_again(w->link, &queue, declare, &w->binding);
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

static bool publish_answer(struct worker *w, const crew_message *m, unsigned channel)
{
    const struct route *route = m->mine;
    return amqp_link_publish(w->link, &(struct amqp_publish){ .channel = channel,
                                                              .exchange = route->exchange,
                                                              .routing_key = route->key,
                                                              .content_type = crew_str(m->content_type),
                                                              .correlation_id = route->correlation_id,
                                                              .expiration_ms = -1,
                                                              .body = crew_buffer_string(&m->reply) });
}

/* RabbitMQ's, and LavinMQ's. */
static bool is_direct(crew_string reply_to)
{
    static const char *const prefixes[] = { AMQP_DIRECT_REPLY_TO, "amq.direct.reply-to" };
    bool is = false;
    for (size_t i = 0; i < 2; i++) {
        size_t size = strlen(prefixes[i]);
        is = is || (reply_to.size > size && memcmp(reply_to.data, prefixes[i], size) == 0);
    }
    return is;
}

/* Whether publishing the answer may cost the channel or the connection, by the requester's doing. */
static bool goes_astray(const struct route *route)
{
    return *route->exchange || is_direct(route->key);
}

static bool settle_one(struct worker *w, const crew_message *m)
{
    const struct route *route = m->mine;
    bool answers = m->kind == CREW_SETTLE_REPLY;
    /* A malformed address of this kind makes the broker close the connection, and a key that the requester
     * has chosen may not be allowed; the request must not come round again, so its ack goes first. */
    bool ack_first = goes_astray(route);
    bool good = true;
    if (m->kind == CREW_SETTLE_REQUEUE || m->kind == CREW_SETTLE_REJECT)
        return w->ack_early || amqp_link_reject(w->link, route->tag, m->kind == CREW_SETTLE_REQUEUE);
    if (answers && !ack_first)
        good = publish_answer(w, m, AMQP_CALLS);
    if (!w->ack_early)
        good = good && amqp_link_ack(w->link, route->tag);
    if (answers && ack_first)
        good = good && publish_answer(w, m, AMQP_CALLS);
    return good;
}

/* An answer that the broker will not take is an error instead. */
static void shrink(struct worker *w, crew_message *m)
{
    size_t bytes = m->reply.size;
    bool is_left = crew_transport_shrink(w->config, m) && (!w->sizes.most || m->reply.size <= w->sizes.most);
    crew_log(CREW_LOG_WARN, "an answer is too large for the broker", "{s:s,s:I,s:s}", "endpoint",
             crew_url_text(w->config->url), "bytes", (int64_t)bytes, "why", w->sizes.words);
    if (is_left)
        return;
    crew_transport_answered(w->config, m, CREW_LIMIT);
    m->kind = CREW_SETTLE_DONE;
}

/* Settles it, and keeps its answer until that is written. */
static bool settle_and_keep(struct worker *w, crew_message *m)
{
    bool good = settle_one(w, m);
    m->number = amqp_link_queued(w->link);
    if (good && m->kind == CREW_SETTLE_REPLY) {
        crew_list_append(&w->answered, m);
        return true;
    }
    crew_transport_answered(w->config, m, CREW_NO_MEMORY);
    crew_message_give(w->config->messages, m);
    return good;
}

/* Of the answers that may be too large those go out that no longer may be, and the next one. */
static bool publish_large(struct worker *w)
{
    bool good = true;
    while (good && !w->sizes.busy && w->large.head) {
        const crew_message *m = w->large.head;
        bool may_be = m->reply.size > w->sizes.taken;
        if (may_be) {
            amqp_sizes_begin(&w->sizes, m->reply.size);
            good = publish_answer(w, m, AMQP_LARGE);
        } else {
            good = settle_and_keep(w, crew_list_take(&w->large));
        }
    }
    return good;
}

/* The one on its way is through: acknowledged now, or answered otherwise. */
static bool on_large(struct worker *w, const struct amqp_event *e, const crew_error *why)
{
    crew_message *m = crew_list_take(&w->large);
    bool good = true;
    amqp_sizes_note(&w->sizes, e, why);
    if (m && e->kind == AMQP_EVENT_TOO_LARGE) {
        shrink(w, m);
        good = settle_and_keep(w, m);
    } else if (m) { /* what the broker does not take has nowhere to go */
        good = w->ack_early || amqp_link_ack(w->link, ((const struct route *)m->mine)->tag);
        crew_transport_answered(w->config, m, e->taken ? CREW_OK : CREW_LIMIT);
        crew_message_give(w->config->messages, m);
    }
    return good && publish_large(w);
}

/* One whose confirm does not come, since its queue has no server perhaps, does not hold up the others. */
static bool give_up_large(struct worker *w)
{
    if (!amqp_sizes_give_up(&w->sizes, w->link))
        return true;
    crew_message *m = crew_list_take(&w->large);
    bool good = !m || w->ack_early || amqp_link_ack(w->link, ((const struct route *)m->mine)->tag);
    if (m)
        crew_transport_answered(w->config, m, CREW_TIMEOUT);
    crew_message_give(w->config->messages, m);
    return good && publish_large(w);
}

static crew_status worker_recv(void *state, crew_list *messages, crew_room *room)
{
    struct worker *w = state;
    crew_error why;
    bool good = inquire(w) && give_up_large(w), more = true;
    tell_answered(w, amqp_link_written(w->link), CREW_OK);
    for (int i = 0; i < AMQP_EVENTS_MOST && more && good; i++) {
        struct amqp_event e = amqp_link_next(w->link, &why);
        switch (e.kind) {
        case AMQP_EVENT_DELIVER: good = on_delivery(w, &e); break;
        case AMQP_EVENT_QUEUE:
            good = !consumer_is_doubtful(w, &e) ||
                   (amqp_link_cancel(w->link, false) && consume_again(w, e.consumers == 0));
            break;
        case AMQP_EVENT_CANCEL: good = consume_again(w, true); break;
        case AMQP_EVENT_CANCELLED: w->cancelling = false; break;
        case AMQP_EVENT_LARGE:
        case AMQP_EVENT_TOO_LARGE: good = on_large(w, &e, &why); break;
        case AMQP_EVENT_LOST:
            amqp_sizes_note_loss(&w->sizes, why.message);
            return amqp_lost(w->config, &e, &why);
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

/* Of an answer that waits in the outbox only where it ends there is needed. */
static void forget_content(crew_message *m)
{
    crew_buffer_fini(&m->body);
    crew_buffer_fini(&m->reply);
    crew_arena_fini(&m->arena);
    m->origin = m->key = (crew_string){ 0 };
    m->headers = NULL;
    m->mine = NULL;
}

static crew_status worker_send(void *state, crew_list *messages)
{
    struct worker *w = state;
    bool good = true, waits = !amqp_link_writable(w->link);
    w->unsettled -= messages->count;
    for (crew_message *m; (m = crew_list_take(messages));) {
        if (m->kind == CREW_SETTLE_REPLY && w->sizes.most && m->reply.size > w->sizes.most)
            shrink(w, m);
        if (good && m->kind == CREW_SETTLE_REPLY && m->reply.size > w->sizes.taken && !goes_astray(m->mine)) {
            crew_list_append(&w->large, m);
            good = publish_large(w);
        } else if (good) {
            good = settle_and_keep(w, m);
            if (waits && w->answered.tail == m) /* for long, perhaps */
                forget_content(m);
        } else {
            crew_transport_answered(w->config, m, CREW_NO_MEMORY);
            crew_message_give(w->config->messages, m);
        }
    }
    if (!good)
        return CREW_NO_MEMORY;
    crew_status status = amqp_link_flush(w->link);
    tell_answered(w, amqp_link_written(w->link), CREW_OK);
    return amqp_leave_to_recv(status);
}

static void worker_pause(void *state)
{
    struct worker *w = state;
    bool good = amqp_link_cancel(w->link, true);
    w->paused = true;
    w->cancelling = good;
    for (crew_message *m; w->requeue == CREW_REQUEUE_FIRST && (m = crew_list_take(&w->ready));) {
        good = good && amqp_link_reject(w->link, ((const struct route *)m->mine)->tag, true);
        crew_message_give(w->config->messages, m);
    }
    (void)good; /* what is not given back in words is given back by the close */
}

/* While an alarm lasts the broker does not even read that we consume no more. */
static bool worker_pending(const void *state)
{
    const struct worker *w = state;
    return w->ready.count || w->large.count || w->answered.count ||
           (w->cancelling && !amqp_link_is_blocked(w->link));
}

/* Waits for what the broker says of the answers that go one at a time; false when it says no more. */
static bool linger_over_one(struct worker *w, int64_t until_ms)
{
    crew_error why;
    int64_t left = until_ms - crew_now_ms();
    if (amqp_link_wait(w->link, -1, left > 0 ? (int)left : 0) != CREW_OK)
        return false;
    struct amqp_event e = amqp_link_next(w->link, &why);
    if (e.kind == AMQP_EVENT_LARGE || e.kind == AMQP_EVENT_TOO_LARGE)
        return on_large(w, &e, &why) && amqp_link_flush(w->link) == CREW_OK;
    return e.kind != AMQP_EVENT_LOST;
}

static void worker_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct worker *w = state;
    int64_t until = crew_now_ms() + linger_ms;
    (void)unsent;
    crew_list_free(&w->ready);
    while (w->large.count && crew_now_ms() < until && linger_over_one(w, until))
        continue;
    for (crew_message *m; (m = crew_list_take(&w->large)); crew_message_free(m))
        crew_transport_answered(w->config, m, CREW_DISCONNECTED);
    tell_answered(w, amqp_link_close(w->link, linger_ms), CREW_DISCONNECTED);
}

const struct crew_transport_ops crew_amqp_worker_ops = {
    .size = sizeof(struct worker),
    .requeue = worker_requeue,
    .open = worker_open,
    .wait = worker_wait,
    .send = worker_send,
    .recv = worker_recv,
    .pause = worker_pause,
    .close = worker_close,
    .pending = worker_pending,
};
