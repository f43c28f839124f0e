#include "transport/amqp_apart.h"

#include "core/task.h"
#include "transport/amqp_request.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    TAKEN_MOST = 1024,
    TAKEN_BYTES = 64 << 20,
    FAILURES_MOST = 3, /* then there is none to be had */
    RETRY_MS = 100,
    BLAMED_MS = 10,  /* so that bad addresses do not make it log in all the time */
    LOSSES_MOST = 3, /* without a word, of one alone */
    FORCED = 320,    /* the broker stops: nobody's fault */
};

struct amqp_way {
    struct crew_task task;
    crew_opening opening;
    crew_url *url;
    crew_transport_config config;
    size_t host;
    struct amqp_link *link;
    crew_error failure;
};

static void run(void *context)
{
    struct amqp_way *way = context;
    way->failure.status = amqp_link_open(&way->link, &way->config, &way->host, AMQP_CALLS, &way->failure);
    (void)crew_opening_waits_for(&way->opening, -1);
}

static void free_way(void *context)
{
    struct amqp_way *way = context;
    if (way->link)
        amqp_link_close(way->link, 0);
    crew_opening_fini(&way->opening);
    crew_url_free(way->url);
    free(way);
}

static void drop_way(struct amqp_apart *apart)
{
    if (apart->way && !crew_task_leave(&apart->way->task))
        free_way(apart->way);
    apart->way = NULL;
    apart->link = NULL;
}

static void note_failure(struct amqp_apart *apart)
{
    drop_way(apart);
    apart->retry_at_ms = crew_now_ms() + (int64_t)(RETRY_MS << apart->failures);
    apart->failures++;
}

static void start(struct amqp_apart *apart)
{
    struct amqp_way *way = calloc(1, sizeof *way);
    if (!way) {
        note_failure(apart);
        return;
    }
    crew_opening_init(&way->opening);
    way->url = crew_url_hold(apart->config->url);
    way->config = *apart->config;
    way->config.url = way->url;
    way->config.opening = &way->opening;
    way->host = apart->host;
    way->task = (struct crew_task){ .run = run,
                                    .abandon = free_way,
                                    .context = way,
                                    .queue = apart->config->queue,
                                    .opening = &way->opening };
    apart->way = way;
    if (crew_task_start(&way->task, "rpcrew-open", &way->failure) != CREW_OK)
        note_failure(apart);
}

/* Opens it, or looks whether it is open now. */
static void drive_opening(struct amqp_apart *apart)
{
    if (apart->link || !apart->waiting.count)
        return;
    if (!apart->way && crew_now_ms() >= apart->retry_at_ms)
        start(apart);
    if (!apart->way || !crew_task_is_through(&apart->way->task))
        return;
    if (apart->way->failure.status != CREW_OK) {
        note_failure(apart);
        return;
    }
    apart->link = apart->way->link;
    apart->published = 0;
    apart->failures = 0;
}

bool amqp_apart_take(struct amqp_apart *apart, crew_message *m)
{
    size_t count = apart->waiting.count + apart->sent.count + apart->through.count;
    if (apart->bounded && (count >= TAKEN_MOST || (count && apart->bytes + m->reply.size > TAKEN_BYTES)))
        return false;
    apart->bytes += m->reply.size;
    crew_list_append(&apart->waiting, m);
    return true;
}

static void set_through(struct amqp_apart *apart, crew_message *m, crew_status fate)
{
    m->status = fate;
    apart->suspects -= apart->suspects > 0;
    apart->losses = 0;
    crew_list_append(&apart->through, m);
}

static void publish(struct amqp_apart *apart)
{
    while (apart->link && apart->waiting.count && (!apart->suspects || !apart->sent.count)) {
        crew_message *m = apart->waiting.head;
        if (!amqp_answer_publish(apart->link, m, AMQP_CALLS)) /* no memory: later */
            return;
        (void)crew_list_take(&apart->waiting);
        m->number = ++apart->published;
        m->deadline_ms = crew_now_ms(); /* since when its confirm is waited for */
        crew_list_append(&apart->sent, m);
    }
}

static void confirm(struct amqp_apart *apart, const struct amqp_event *e)
{
    crew_list all = { 0 };
    crew_list_move(&all, &apart->sent);
    for (crew_message *m; (m = crew_list_take(&all));)
        if (m->number == e->tag || (e->multiple && m->number < e->tag))
            set_through(apart, m, e->kind == AMQP_EVENT_ACK ? CREW_OK : CREW_OVERLOADED);
        else
            crew_list_append(&apart->sent, m);
}

/* What was not confirmed goes again, in front. */
static void publish_again(struct amqp_apart *apart)
{
    drop_way(apart);
    crew_list_move(&apart->sent, &apart->waiting);
    crew_list_move(&apart->waiting, &apart->sent);
}

/* If it was one alone, and the broker had words for it, it is not what the broker will have. */
static void on_loss(struct amqp_apart *apart, const struct amqp_event *e, const crew_error *why)
{
    bool alone = apart->sent.count == 1 && (apart->suspects || !apart->waiting.count);
    bool blamed = e->code && e->code != FORCED;
    apart->losses += alone && !blamed;
    apart->retry_at_ms = crew_now_ms() + (blamed ? BLAMED_MS : RETRY_MS);
    if (alone && (blamed || apart->losses >= LOSSES_MOST)) {
        (void)snprintf(apart->words, sizeof apart->words, "%.*s", (int)sizeof apart->words - 1, why->message);
        apart->code = e->code;
        set_through(apart, crew_list_take(&apart->sent),
                    strstr(why->message, AMQP_MAX_SIZE) ? CREW_LIMIT : CREW_DISCONNECTED);
    } else if (apart->sent.count > apart->suspects) {
        apart->suspects = apart->sent.count;
    }
    publish_again(apart);
}

/* When the first that was sent is given up, if it is not confirmed; while an alarm lasts nothing is read. */
static int64_t confirm_by(const struct amqp_apart *apart)
{
    int64_t since = apart->sent.head->deadline_ms;
    return (since > apart->heard_ms ? since : apart->heard_ms) + AMQP_LARGE_MS;
}

/* What is not confirmed in time, as by a queue without a server, does not hold up the others. What may still
 * become of it is not to be taken for what becomes of those behind it. */
static void give_up_confirms(struct amqp_apart *apart)
{
    if (apart->link && amqp_link_is_blocked(apart->link))
        apart->heard_ms = crew_now_ms();
    if (!apart->sent.head || confirm_by(apart) > crew_now_ms())
        return;
    set_through(apart, crew_list_take(&apart->sent), CREW_TIMEOUT);
    publish_again(apart);
}

static void read_events(struct amqp_apart *apart)
{
    crew_error why;
    for (int i = 0; i < AMQP_EVENTS_MOST && apart->link; i++) {
        struct amqp_event e = amqp_link_next(apart->link, &why);
        if (e.kind == AMQP_EVENT_ACK || e.kind == AMQP_EVENT_NACK)
            confirm(apart, &e);
        else if (e.kind == AMQP_EVENT_LOST)
            on_loss(apart, &e, &why);
        else if (e.kind == AMQP_EVENT_NONE)
            return;
    }
}

crew_message *amqp_apart_next(struct amqp_apart *apart, crew_status *fate)
{
    read_events(apart);
    drive_opening(apart);
    while (apart->failures >= FAILURES_MOST && apart->waiting.count)
        set_through(apart, crew_list_take(&apart->waiting), CREW_NO_SERVICE);
    if (apart->failures >= FAILURES_MOST)
        apart->failures = 0; /* for the next ones it is tried again */
    publish(apart);
    if (apart->link && amqp_link_flush(apart->link) == CREW_NO_MEMORY) /* else a loss is read */
        on_loss(apart, &(struct amqp_event){ .code = 0 }, &(crew_error){ .message = "no memory" });
    give_up_confirms(apart);
    crew_message *m = crew_list_take(&apart->through);
    if (m) {
        apart->bytes -= m->reply.size;
        *fate = m->status;
    }
    return m;
}

int amqp_apart_due(const struct amqp_apart *apart)
{
    int64_t at = apart->retry_at_ms;
    if (apart->through.count)
        return 0;
    if (apart->link && apart->sent.count && !amqp_link_is_blocked(apart->link))
        at = confirm_by(apart);
    else if (apart->link || apart->way || !apart->waiting.count)
        return -1;
    int64_t left = at - crew_now_ms();
    return left > 0 ? (int)left : 0;
}

void amqp_apart_close(struct amqp_apart *apart, unsigned linger_ms, crew_list *left)
{
    if (apart->link) {
        amqp_link_close(apart->link, linger_ms);
        apart->way->link = NULL;
    }
    drop_way(apart);
    crew_list_move(left, &apart->through);
    crew_list_move(left, &apart->sent);
    crew_list_move(left, &apart->waiting);
    *apart = (struct amqp_apart){ .config = apart->config, .host = apart->host, .bounded = apart->bounded };
}
