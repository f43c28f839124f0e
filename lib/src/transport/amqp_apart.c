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
    LOSSES_MOST = 3, /* without a word, of one alone */
    FORCED = 320,    /* the broker stops: nobody's fault */
};

struct amqp_way {
    struct crew_task task;
    crew_opening opening;
    crew_url *url;
    crew_transport_config config;
    struct amqp_link *link;
    crew_error failure;
};

static void run(void *context)
{
    struct amqp_way *way = context;
    way->failure.status = amqp_link_open(&way->link, &way->config, AMQP_CALLS, &way->failure);
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
        (void)snprintf(apart->words, sizeof apart->words, "%.*s", (int)sizeof apart->words - 1,
                       apart->way->failure.message);
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
    if (count >= TAKEN_MOST || (count && apart->bytes + m->reply.size > TAKEN_BYTES))
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

/* What was not confirmed goes again. If it was one alone, and the broker had words for it, it is not what the
 * broker will have. */
static void on_loss(struct amqp_apart *apart, const struct amqp_event *e, const crew_error *why)
{
    bool alone = apart->sent.count == 1 && (apart->suspects || !apart->waiting.count);
    bool blamed = e->code && e->code != FORCED;
    apart->losses += alone && !blamed;
    drop_way(apart);
    if (alone && (blamed || apart->losses >= LOSSES_MOST)) {
        (void)snprintf(apart->words, sizeof apart->words, "%.*s", (int)sizeof apart->words - 1, why->message);
        apart->code = e->code;
        set_through(apart, crew_list_take(&apart->sent),
                    strstr(why->message, AMQP_MAX_SIZE) ? CREW_LIMIT : CREW_DISCONNECTED);
        return;
    }
    if (apart->sent.count > apart->suspects)
        apart->suspects = apart->sent.count;
    crew_list_move(&apart->sent, &apart->waiting);
    crew_list_move(&apart->waiting, &apart->sent);
    if (!blamed) /* it may be gone altogether */
        apart->retry_at_ms = crew_now_ms() + RETRY_MS;
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
    if (apart->link)
        (void)amqp_link_flush(apart->link); /* a loss is read */
    crew_message *m = crew_list_take(&apart->through);
    if (m) {
        apart->bytes -= m->reply.size;
        *fate = m->status;
    }
    return m;
}

int amqp_apart_due(const struct amqp_apart *apart)
{
    int64_t left = apart->retry_at_ms - crew_now_ms();
    if (apart->through.count)
        return 0;
    if (apart->link || apart->way || !apart->waiting.count)
        return -1;
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
    *apart = (struct amqp_apart){ .config = apart->config };
}
