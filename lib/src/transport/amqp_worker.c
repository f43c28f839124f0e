/* A worker on RabbitMQ: consumes a queue with manual acks, and answers to the request's reply_to; the ack
 * goes in the same write behind the answer, so that the work of a worker that dies is given to another. */
#include "transport/amqp_apart.h"
#include "transport/amqp_request.h"

#include <rpcrew/log.h>

#include <stdlib.h>

enum { TICK_MS = 20, OWN_MS = 200, CLOSE_MOST_MS = 1000 };

struct worker {
    const crew_transport_config *config;
    struct amqp_link *link;
    bool ack_early, replies, paused;
    bool may_not_answer; /* any more */
    bool cancelling;     /* the consumer, and more may be on its way */
    bool refuses;        /* what was redelivered */
    crew_requeue requeue;
    bool clocks_disagree; /* ours and the callers', by the latest request that can tell */
    crew_list ready;      /* received, and not handed out for want of room */
    crew_list answered;   /* answers in the outbox, in order */
    crew_list large;      /* that may be too large for the broker; the first is on its way */
    struct amqp_sizes sizes;
    struct amqp_apart apart;
    char exchange[256]; /* that the queue is bound to */
    struct amqp_binding binding;

    /* whether the broker still knows our consumer */
    size_t unsettled;
    bool delivered, suspected; /* since the last inquiry; by it */
    int64_t inquire_at_ms;
};

static struct amqp_queue queue_of(const crew_url *url)
{
    return (struct amqp_queue){ .name = crew_url_option(url, "queue"), .url = url };
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

/* A worker whose answers the broker refuses is none. Under an alarm it cannot be asked. */
static crew_status open_link(struct worker *w, crew_error *why)
{
    bool alarm = false;
    crew_status status = amqp_link_open(&w->link, w->config, NULL, 0, why);
    if (status != CREW_OK || !w->replies)
        return status;
    status = amqp_link_check_answers(w->link, &alarm, why);
    if (status == CREW_OK && !alarm)
        return CREW_OK;
    amqp_link_close(w->link, 0);
    return alarm ? amqp_link_open(&w->link, w->config, NULL, 0, why) : status;
}

static crew_status worker_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct worker *w = state;
    *w = (struct worker){ .config = config,
                          .sizes = w->sizes,
                          .apart = { .config = config,
                                     .bounded = crew_url_option_is(config->url, "ack", "early") },
                          .replies = !crew_url_option_is(config->url, "replies", "no"),
                          .ack_early = crew_url_option_is(config->url, "ack", "early"),
                          .refuses = crew_url_option_is(config->url, "redelivered", "refuse"),
                          .requeue = worker_requeue(config->url) };
    crew_status status = open_link(w, why);
    if (status != CREW_OK)
        return status;
    amqp_sizes_open(&w->sizes, w->link);
    w->apart.host = amqp_link_host(w->link);
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
    int most_ms = w->ready.count && crew_room_is_left(room) ? 0 : timeout_ms,
        due_ms = amqp_apart_due(&w->apart);
    most_ms = crew_sooner(most_ms, due_ms);
    return amqp_leave_to_recv(amqp_link_wait_for_two(w->link, w->apart.link, wake_fd, most_ms));
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

static crew_message *make_request(struct worker *w, const struct amqp_event *e)
{
    crew_message *m = crew_message_take(w->config->messages);
    if (!m || !amqp_request_read(m, e)) {
        crew_message_give(w->config->messages, m);
        return NULL;
    }
    m->unanswered = !w->replies;
    m->one_way = m->one_way || m->unanswered;
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
    /* One that the broker has cancelled for a time-out is there, for it, until we say so too. */
    return amqp_link_cancel(w->link, false) && amqp_link_consume_again(w->link, &queue, declare, &w->binding);
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

static bool settle_one(struct worker *w, const crew_message *m)
{
    const struct amqp_route *route = m->mine;
    bool answers = m->kind == CREW_SETTLE_REPLY;
    /* Where there was no connection of its own to be had for it; the request must not come round again. */
    bool ack_first = amqp_route_is_risky(route);
    bool good = true;
    if (m->kind == CREW_SETTLE_REQUEUE || m->kind == CREW_SETTLE_REJECT)
        return w->ack_early || amqp_link_reject(w->link, route->tag, m->kind == CREW_SETTLE_REQUEUE);
    if (answers && !ack_first)
        good = amqp_answer_publish(w->link, m, AMQP_CALLS);
    if (!w->ack_early)
        good = good && amqp_link_ack(w->link, route->tag);
    if (answers && ack_first)
        good = good && amqp_answer_publish(w->link, m, AMQP_CALLS);
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
            good = amqp_answer_publish(w->link, m, AMQP_LARGE);
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
        good = w->ack_early || amqp_link_ack(w->link, ((const struct amqp_route *)m->mine)->tag);
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
    bool good = !m || w->ack_early || amqp_link_ack(w->link, ((const struct amqp_route *)m->mine)->tag);
    if (m)
        crew_transport_answered(w->config, m, CREW_TIMEOUT);
    crew_message_give(w->config->messages, m);
    return good && publish_large(w);
}

/* One with a connection of its own is through. */
static bool on_apart(struct worker *w, crew_message *m, crew_status fate)
{
    const struct amqp_route *route = m->mine;
    if (fate == CREW_NO_SERVICE)
        return settle_and_keep(w, m);
    if (fate == CREW_DISCONNECTED && w->apart.code == AMQP_FORBIDDEN && !*route->exchange) {
        w->may_not_answer = true; /* nothing at all: its request is for another worker */
        crew_transport_answered(w->config, m, fate);
        crew_message_give(w->config->messages, m);
        return true;
    }
    if (fate == CREW_DISCONNECTED)
        crew_log(CREW_LOG_WARN, "the broker does not take an answer to where its caller wants it",
                 "{s:s,s:S,s:s}", "endpoint", crew_url_text(w->config->url), "address", route->key, "why",
                 w->apart.words);
    if (fate == CREW_LIMIT) {
        amqp_sizes_note_loss(&w->sizes, w->apart.words);
        shrink(w, m);
        if (m->kind == CREW_SETTLE_REPLY && amqp_apart_take(&w->apart, m))
            return true;
    }
    crew_transport_answered(w->config, m, fate == CREW_OVERLOADED ? CREW_LIMIT : fate);
    bool good = w->ack_early || amqp_link_ack(w->link, route->tag);
    crew_message_give(w->config->messages, m);
    return good;
}

static bool drive_apart(struct worker *w)
{
    crew_status fate;
    bool good = true;
    for (crew_message *m; good && (m = amqp_apart_next(&w->apart, &fate));)
        good = on_apart(w, m, fate);
    return good;
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
            good = !consumer_is_doubtful(w, &e) || consume_again(w, e.consumers == 0);
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
    good = good && drive_apart(w);
    if (w->may_not_answer)
        return crew_error_set(w->config->lost, CREW_DISCONNECTED, "%s", w->apart.words);
    while (w->ready.count && crew_room_take(room, NULL, w->ready.head->body.size)) {
        crew_message *m = crew_list_take(&w->ready);
        crew_list_append(messages, m);
        /* Not before there is room: what is acknowledged does not count against the prefetch any more. */
        if (w->ack_early)
            good = good && amqp_link_ack(w->link, ((const struct amqp_route *)m->mine)->tag);
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

static bool put_apart(struct worker *w, crew_message *m)
{
    if (amqp_apart_take(&w->apart, m))
        return true;
    crew_transport_answered(w->config, m, CREW_LIMIT);
    m->kind = CREW_SETTLE_DONE;
    return settle_and_keep(w, m);
}

static crew_status worker_send(void *state, crew_list *messages)
{
    struct worker *w = state;
    bool good = true, waits = !amqp_link_writable(w->link);
    w->unsettled -= messages->count;
    for (crew_message *m; (m = crew_list_take(messages));) {
        if (m->kind == CREW_SETTLE_REPLY && w->sizes.most && m->reply.size > w->sizes.most)
            shrink(w, m);
        if (good && m->kind == CREW_SETTLE_REPLY && amqp_route_is_risky(m->mine)) {
            good = put_apart(w, m);
        } else if (good && m->kind == CREW_SETTLE_REPLY && m->reply.size > w->sizes.taken) {
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
    good = good && drive_apart(w);
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
        good = good && amqp_link_reject(w->link, ((const struct amqp_route *)m->mine)->tag, true);
        crew_message_give(w->config->messages, m);
    }
    (void)good; /* what is not given back in words is given back by the close */
}

/* While an alarm lasts the broker does not even read that we consume no more. */
static bool worker_pending(const void *state)
{
    const struct worker *w = state;
    return w->ready.count || w->large.count || w->answered.count || amqp_apart_is_busy(&w->apart) ||
           (w->cancelling && !amqp_link_is_blocked(w->link));
}

static unsigned left_until(int64_t until_ms)
{
    int64_t left = until_ms - crew_now_ms();
    return left > 0 ? (unsigned)left : 0;
}

/* Waits for what the broker says of answers; false when it says no more. */
static bool linger_a_while(struct worker *w, int64_t until_ms)
{
    crew_error why;
    unsigned left_ms = left_until(until_ms);
    if (left_ms > TICK_MS)
        left_ms = TICK_MS; /* then it looks whether it is hurried, or the second connection open */
    if (amqp_link_wait_for_two(w->link, w->apart.link, -1, (int)left_ms) != CREW_OK)
        return false;
    struct amqp_event e = amqp_link_next(w->link, &why);
    bool good = e.kind != AMQP_EVENT_LOST && drive_apart(w);
    if (e.kind == AMQP_EVENT_LARGE || e.kind == AMQP_EVENT_TOO_LARGE)
        good = good && on_large(w, &e, &why);
    return good && amqp_link_flush(w->link) == CREW_OK;
}

static void worker_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct worker *w = state;
    unsigned own_ms =
        linger_ms < OWN_MS ? linger_ms : OWN_MS; /* for the end of the worker's own connection */
    int64_t until = crew_now_ms() + linger_ms - own_ms;
    (void)unsent;
    crew_list_free(&w->ready);
    while ((w->large.count || amqp_apart_is_busy(&w->apart)) && crew_now_ms() < until &&
           !crew_transport_is_hurried(w->config) && linger_a_while(w, until))
        continue;
    unsigned left_ms = crew_transport_is_hurried(w->config) ? 0 : left_until(until);
    if (left_ms > CLOSE_MOST_MS - own_ms)
        left_ms = CLOSE_MOST_MS - own_ms;
    amqp_apart_close(&w->apart, left_ms < own_ms ? left_ms : own_ms, &w->large);
    for (crew_message *m; (m = crew_list_take(&w->large)); crew_message_free(m))
        crew_transport_answered(w->config, m, CREW_DISCONNECTED);
    tell_answered(w, amqp_link_close(w->link, left_ms + own_ms), CREW_DISCONNECTED);
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
