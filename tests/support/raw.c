#include "support/raw.h"

#include <pthread.h>

enum { PATIENCE_MS = 10000 };

static struct raw_end *ends;

static void answered(void *context, const crew_message *message, crew_status status)
{
    struct raw_end *end = context;
    assert_int_equal(message->kind, CREW_SETTLE_REPLY);
    end->told[status == CREW_OK]++;
}

void raw_prepare(struct raw_end *end, const char *url, bool server)
{
    bool any = strncmp(url, "ws", 2) == 0; /* where text is UTF-8 */
    *end = (struct raw_end){ .messages = { .spare_max = 4 },
                             .content_type = any ? "application/msgpack" : "application/json" };
    crew_error why;
    assert_ok_why(crew_url_parse(url, &end->url, &why), why);
    assert_ok_why(crew_queue_init(&end->queue, 0, &why), why);
    const crew_transport *transport = crew_transport_find(crew_url_scheme(end->url));
    assert_non_null(transport);
    end->ops = server ? transport->server : transport->client;
    end->state = calloc(1, end->ops->size);
    end->config = (crew_transport_config){ .url = end->url,
                                           .in_flight_max = 64,
                                           .connect_timeout_ms = 5000,
                                           .limits = crew_limits_resolve(NULL),
                                           .answered = server ? answered : NULL,
                                           .context = end,
                                           .hard_bytes = 128 << 20,
                                           .lost = &end->lost,
                                           .queue = &end->queue,
                                           .messages = &end->messages };
}

void raw_fini(struct raw_end *end)
{
    crew_list_free(&end->messages.spare);
    crew_queue_fini(&end->queue);
    free(end->state);
    crew_url_free(end->url);
}

static atomic_bool opening;
static struct raw_end *beside, *opened;

/* Some callers' opening wants an answer: so the others have a thread meanwhile. */
static void *drive_others(void *unused)
{
    while (atomic_load(&opening))
        for (struct raw_end *each = beside ? beside : ends; each; each = each == beside ? ends : each->next) {
            if (each == opened)
                continue;
            crew_room room = { .messages = 64, .bytes = SIZE_MAX };
            (void)!each->ops->wait(each->state, each->queue.fd, 1, &room);
            (void)!each->ops->recv(each->state, &each->received, &room);
        }
    return unused;
}

crew_status raw_try(struct raw_end *end, struct raw_end *worker, crew_error *why)
{
    pthread_t thread;
    beside = worker;
    opened = end;
    if (end->ops->lazy_open)
        return end->ops->open(end->state, &end->config, why);
    atomic_store(&opening, true);
    assert_int_equal(pthread_create(&thread, NULL, drive_others, NULL), 0);
    crew_status status = end->ops->open(end->state, &end->config, why);
    atomic_store(&opening, false);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return status;
}

static void link_end(struct raw_end *end)
{
    end->next = ends;
    ends = end;
}

void raw_open(struct raw_end *end, const char *url, bool server)
{
    crew_error why;
    if (!server) {
        raw_open_to(end, url, NULL);
        return;
    }
    raw_prepare(end, url, true);
    assert_ok_why(end->ops->open(end->state, &end->config, &why), why);
    link_end(end);
}

void raw_open_to(struct raw_end *end, const char *url, struct raw_end *worker)
{
    crew_error why;
    raw_prepare(end, url, false);
    assert_ok_why(raw_try(end, worker, &why), why);
    link_end(end);
}

void raw_close(struct raw_end *end, crew_list *unsent)
{
    crew_list own = { 0 };
    struct raw_end **at = &ends;
    while (*at != end)
        at = &(*at)->next;
    *at = end->next;
    end->ops->close(end->state, 1000, unsent ? unsent : &own);
    assert_int_equal(end->told[false] + end->told[true], end->answers);
    crew_list_move(unsent ? unsent : &own, &end->outgoing);
    crew_list_free(&own);
    crew_list_free(&end->received);
    raw_fini(end);
}

static bool can_send(const struct raw_end *end)
{
    return end->outgoing.count && (!end->ops->ready || end->ops->ready(end->state));
}

static void drive(struct raw_end *end, int timeout_ms)
{
    crew_room room = { .messages = 64, .bytes = SIZE_MAX };
    assert_ok(end->ops->wait(end->state, end->queue.fd, timeout_ms, &room));
    for (struct raw_end *each = ends; each; each = each->next) {
        if (each->deaf && each != end)
            continue;
        if (each != end)
            assert_ok(each->ops->wait(each->state, each->queue.fd, 0, &room));
        room = (crew_room){ .messages = 64, .bytes = SIZE_MAX };
        (void)!each->ops->recv(each->state, &each->received, &room); /* lost ones are worth their messages */
        room = (crew_room){ .messages = 64, .bytes = SIZE_MAX };
        if (can_send(each))
            assert_ok(each->ops->send(each->state, &each->outgoing));
    }
}

void raw_drive(struct raw_end *end)
{
    drive(end, 5);
}

/* Sends, or, where nobody is there yet, keeps it for later. */
static void send_one(struct raw_end *end, crew_message *message)
{
    int64_t until = crew_now_ms() + PATIENCE_MS;
    crew_list_append(&end->outgoing, message);
    if (can_send(end))
        assert_ok(end->ops->send(end->state, &end->outgoing));
    while (end->outgoing.count && !end->ops->lazy_open && crew_now_ms() < until)
        drive(end, 5);
    assert_true(end->ops->lazy_open || !end->outgoing.count);
}

crew_message *raw_next(struct raw_end *end)
{
    int64_t until = crew_now_ms() + PATIENCE_MS;
    while (!end->received.count && crew_now_ms() < until)
        drive(end, 5);
    if (!end->received.count)
        fail_msg("nothing came");
    return crew_list_take(&end->received);
}

crew_message *raw_next_of(struct raw_end *end, crew_message_kind kind)
{
    for (;;) {
        crew_message *message = raw_next(end);
        if (message->kind == kind)
            return message;
        crew_message_free(message);
    }
}

void raw_nothing(struct raw_end *end)
{
    for (int i = 0; i < 5; i++)
        drive(end, 10);
    crew_list all = end->received;
    end->received = (crew_list){ 0 };
    for (crew_message *m; (m = crew_list_take(&all));) {
        bool own = m->kind == CREW_EVENT_WRITTEN || m->kind == CREW_EVENT_CONFIRMED;
        if (own)
            crew_message_free(m);
        else
            crew_list_append(&end->received, m);
    }
    assert_int_equal(end->received.count, 0);
}

void raw_request(struct raw_end *end, crew_string body, uint32_t correlation, bool one_way)
{
    crew_message *message = crew_message_new();
    message->kind = CREW_MESSAGE_REQUEST;
    message->correlation = correlation;
    message->one_way = one_way;
    message->deadline_ms = end->timeout_ms ? crew_now_ms() + end->timeout_ms : 0;
    message->content_type = end->content_type;
    crew_buffer_append(&message->body, body.data, body.size);
    send_one(end, message);
}

void raw_settle(struct raw_end *end, crew_message *request, crew_message_kind kind, const char *reply)
{
    request->kind = kind;
    end->answers += kind == CREW_SETTLE_REPLY;
    crew_buffer_clear(&request->reply);
    if (reply)
        crew_buffer_text(&request->reply, reply);
    send_one(end, request);
}

const char *raw_call(struct raw_end *end, const char *body, crew_arena *arena)
{
    raw_request(end, crew_str(body), 1, false);
    crew_message *reply = raw_next_of(end, CREW_EVENT_REPLY);
    const char *text = crew_arena_string(arena, crew_buffer_string(&reply->body)).data;
    crew_message_free(reply);
    return text;
}
