/* What every transport keeps, at both ends, by its contract (rpcrew/impl/transport.h): run as `transport
 * URL`. */
#include "support/raw.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <sys/resource.h>

static const char *pattern;
static char url[1200];
static struct raw_end server, client;

/* HTTP has a call a connection: what is sent at the same time has neither order nor one origin. */
static void skip_over_http(void)
{
    if (strncmp(pattern, "http", 4) == 0)
        skip();
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(url, sizeof url, "%s", test_url(pattern));
    raw_open(&server, url, true);
    raw_open(&client, url, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    raw_close(&client, NULL);
    raw_close(&server, NULL);
    return 0;
}

static void assert_body(const crew_message *message, crew_string body)
{
    assert_int_equal(message->body.size, body.size);
    assert_memory_equal(message->body.data, body.data, body.size);
}

static void a_request_goes_over_and_its_answer_comes_back(void **state)
{
    (void)state;
    raw_request(&client, crew_str("request"), 7, false);
    crew_message *request = raw_next(&server);
    assert_int_equal(request->kind, CREW_MESSAGE_REQUEST);
    assert_body(request, crew_str("request"));
    assert_false(request->one_way);
    raw_settle(&server, request, CREW_SETTLE_REPLY, "answer");
    crew_message_free(raw_next_of(&client, CREW_EVENT_WRITTEN));
    crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
    assert_body(reply, crew_str("answer"));
    assert_true(reply->correlation == 7 || reply->correlation == 0);
    crew_message_free(reply);
}

static void bodies_are_any_bytes_of_any_size(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 255, 256, 65535, 65536, 3 << 20 };
    char *body = malloc(3 << 20);
    for (size_t i = 0; i < 3 << 20; i++)
        body[i] = (char)(i * 7 >> 3);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        crew_string bytes = { body, sizes[i] };
        raw_request(&client, bytes, (uint32_t)i + 1, false);
        crew_message *request = raw_next(&server);
        assert_body(request, bytes);
        raw_settle(&server, request, CREW_SETTLE_DONE, NULL);
    }
    free(body);
}

static void a_one_way_request_is_confirmed_and_gets_nothing(void **state)
{
    (void)state;
    raw_request(&client, crew_str("note"), 3, true);
    crew_message *request = raw_next(&server);
    assert_body(request, crew_str("note"));
    raw_settle(&server, request, CREW_SETTLE_DONE, NULL);
    crew_message *confirmed = raw_next_of(&client, CREW_EVENT_CONFIRMED);
    assert_int_equal(confirmed->correlation, 3);
    crew_message_free(confirmed);
    raw_nothing(&client);
}

static void every_message_comes_once_and_in_order(void **state)
{
    (void)state;
    skip_over_http();
    enum { MANY = 2000 };
    for (uint32_t i = 1; i <= MANY; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "%u", i);
        raw_request(&client, crew_str(text), i, false);
    }
    for (uint32_t i = 1; i <= MANY; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "%u", i);
        crew_message *request = raw_next(&server);
        assert_body(request, crew_str(text));
        raw_settle(&server, request, CREW_SETTLE_REPLY, text);
    }
    raw_nothing(&server);
    for (uint32_t i = 1; i <= MANY; i++) {
        crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
        char text[16];
        (void)snprintf(text, sizeof text, "%u", i);
        assert_body(reply, crew_str(text));
        assert_true(reply->correlation == i || reply->correlation == 0);
        crew_message_free(reply);
    }
    raw_nothing(&client);
}

static void answers_may_come_in_any_order(void **state)
{
    (void)state;
    raw_request(&client, crew_str("1"), 1, false);
    raw_request(&client, crew_str("2"), 2, false);
    crew_message *first = raw_next(&server), *second = raw_next(&server);
    raw_settle(&server, second, CREW_SETTLE_REPLY, "two");
    raw_settle(&server, first, CREW_SETTLE_REPLY, "one");
    crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
    assert_body(reply, crew_str("two"));
    crew_message_free(reply);
    reply = raw_next_of(&client, CREW_EVENT_REPLY);
    assert_body(reply, crew_str("one"));
    crew_message_free(reply);
}

static void two_callers_get_their_own_answers(void **state)
{
    (void)state;
    struct raw_end other;
    raw_open(&other, url, false);
    raw_request(&client, crew_str("a"), 1, false);
    raw_request(&other, crew_str("b"), 1, false);
    for (int i = 0; i < 2; i++) {
        crew_message *request = raw_next(&server);
        raw_settle(&server, request, CREW_SETTLE_REPLY, request->body.data[0] == 'a' ? "to a" : "to b");
    }
    crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
    assert_body(reply, crew_str("to a"));
    crew_message_free(reply);
    reply = raw_next_of(&other, CREW_EVENT_REPLY);
    assert_body(reply, crew_str("to b"));
    crew_message_free(reply);
    raw_close(&other, NULL);
}

static void callers_are_told_apart_by_origin(void **state)
{
    (void)state;
    skip_over_http();
    struct raw_end other;
    crew_message *requests[3];
    raw_open(&other, url, false);
    raw_request(&client, crew_str("same"), 1, false);
    requests[0] = raw_next(&server);
    raw_request(&client, crew_str("same"), 2, false);
    requests[1] = raw_next(&server);
    raw_request(&other, crew_str("same"), 1, false);
    requests[2] = raw_next(&server);
    assert_true(requests[0]->origin.size > 0);
    assert_true(crew_string_equal(requests[0]->origin, requests[1]->origin));
    assert_false(crew_string_equal(requests[0]->origin, requests[2]->origin));
    assert_false(crew_message_is_copy(requests[0], requests[2]));
    for (int i = 0; i < 3; i++)
        raw_settle(&server, requests[i], CREW_SETTLE_REPLY, "answer");
    for (int i = 0; i < 2; i++)
        crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    crew_message_free(raw_next_of(&other, CREW_EVENT_REPLY));
    raw_close(&other, NULL);
}

static void no_more_is_received_than_there_is_room_for(void **state)
{
    (void)state;
    for (uint32_t i = 1; i <= 5; i++)
        raw_request(&client, crew_str("x"), i, false);
    raw_settle(&server, raw_next(&server), CREW_SETTLE_DONE, NULL); /* they are there now */
    while (server.received.count)
        raw_settle(&server, crew_list_take(&server.received), CREW_SETTLE_DONE, NULL);
    for (uint32_t i = 1; i <= 5; i++)
        raw_request(&client, crew_str("y"), i, false);
    crew_list got = { 0 };
    int64_t until = crew_now_ms() + 10000;
    crew_room room = { .messages = 2, .bytes = SIZE_MAX }, none = { 0 };
    while (got.count < 2 && crew_now_ms() < until) {
        assert_ok(server.ops->wait(server.state, server.queue.fd, 100, &room));
        assert_ok(server.ops->recv(server.state, &got, &room));
    }
    assert_int_equal(got.count, 2);
    assert_int_equal(room.messages, 0);
    int64_t before = crew_now_ms();
    assert_ok(server.ops->recv(server.state, &got, &none));
    assert_int_equal(got.count, 2);
    unsigned waits = 0;
    /* With no room, requests do not end the wait again and again. */
    for (; crew_now_ms() - before < 100; waits++) {
        assert_ok(server.ops->wait(server.state, server.queue.fd, 100, &none));
        assert_ok(server.ops->recv(server.state, &got, &none));
    }
    assert_int_equal(got.count, 2);
    assert_true(waits < 100);
    none.bytes = SIZE_MAX; /* bytes are no room without messages, nor messages without bytes */
    assert_ok(server.ops->recv(server.state, &got, &none));
    room = (crew_room){ .messages = 5 };
    assert_ok(server.ops->recv(server.state, &got, &room));
    assert_int_equal(got.count, 2);
    crew_list_free(&got);
}

static void waiting_ends_by_the_wake_up_fd_and_by_time(void **state)
{
    (void)state;
    struct raw_end *const ends[] = { &server, &client };
    const crew_room room = { .messages = 1, .bytes = SIZE_MAX };
    for (int i = 0; i < 2; i++) {
        uint64_t one = 1;
        int wake = ends[i]->queue.fd;
        int64_t before = crew_now_ms();
        while (crew_now_ms() - before < 40)
            assert_ok(ends[i]->ops->wait(ends[i]->state, wake, 40, &room));
        assert_int_equal(write(wake, &one, sizeof one), sizeof one);
        for (int early = 0; early < 10; early++) /* without it this would take for ever */
            assert_ok(ends[i]->ops->wait(ends[i]->state, wake, -1, &room));
        assert_int_equal(read(wake, &one, sizeof one), sizeof one);
    }
}

static void a_caller_that_has_left_costs_nothing(void **state)
{
    (void)state;
    struct raw_end brief;
    raw_open(&brief, url, false);
    raw_request(&brief, crew_str("bye"), 1, false);
    crew_message *request = raw_next(&server);
    raw_close(&brief, NULL);
    raw_settle(&server, request, CREW_SETTLE_REPLY, "too late");
    raw_request(&client, crew_str("next"), 1, false);
    request = raw_next(&server);
    assert_body(request, crew_str("next"));
    raw_settle(&server, request, CREW_SETTLE_REPLY, "served");
    crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    for (int i = 0; i < 1000 && server.told[false] + server.told[true] < 2; i++)
        raw_drive(&server);
    assert_int_equal(server.told[false] + server.told[true], 2);
    assert_true(server.told[true] >= 1); /* a broker takes the other one, too */
}

static void what_is_requeued_comes_again(void **state)
{
    (void)state;
    if (!server.ops->requeue)
        return; /* its core never asks for it */
    raw_request(&client, crew_str("1"), 1, false);
    raw_request(&client, crew_str("2"), 2, false);
    crew_message *first = raw_next(&server), *second = raw_next(&server);
    raw_settle(&server, first, CREW_SETTLE_REQUEUE, NULL);
    first = raw_next(&server);
    assert_body(first, crew_str("1"));
    raw_settle(&server, first, CREW_SETTLE_REPLY, "one");
    raw_settle(&server, second, CREW_SETTLE_REJECT, NULL);
    crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    raw_nothing(&server);
    raw_nothing(&client);
}

static void a_paused_worker_takes_no_new_requests(void **state)
{
    (void)state;
    raw_request(&client, crew_str("before"), 1, false);
    crew_message *request = raw_next(&server);
    if (server.ops->pause) {
        server.ops->pause(server.state);
        for (int i = 0; i < 1000 && server.ops->pending && server.ops->pending(server.state); i++)
            raw_drive(&server); /* until whoever sends them knows */
        raw_request(&client, crew_str("after"), 2, false);
        raw_nothing(&server);
    }
    raw_settle(&server, request, CREW_SETTLE_REPLY, "answer");
    crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
}

static void both_ends_open_again_after_a_close(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        crew_list unsent = { 0 };
        crew_error why;
        client.ops->close(client.state, 100, &unsent);
        server.ops->close(server.state, 100, NULL);
        crew_list_free(&unsent);
        assert_ok_why(server.ops->open(server.state, &server.config, &why), why);
        assert_ok_why(raw_try(&client, NULL, &why), why);
        a_request_goes_over_and_its_answer_comes_back(NULL);
    }
}

/* Rule 1: an eager transport's open may say so itself. */
static bool open_says_no_service(const char *where)
{
    struct raw_end end;
    crew_error why = { .status = CREW_OK };
    raw_prepare(&end, where, false);
    crew_status status = raw_try(&end, NULL, &why);
    if (status == CREW_OK) {
        crew_list unsent = { 0 };
        end.ops->close(end.state, 100, &unsent);
    } else {
        assert_int_equal(status, CREW_NO_SERVICE);
        assert_true(*why.message);
    }
    raw_fini(&end);
    return status != CREW_OK;
}

static void with_nobody_there_a_request_is_not_lost(void **state)
{
    (void)state;
    struct raw_end alone;
    crew_list unsent = { 0 };
    raw_close(&client, NULL);
    raw_close(&server, NULL);
    const char *nowhere = test_url(pattern);
    if (open_says_no_service(nowhere)) {
        (void)setup(NULL);
        return;
    }
    raw_open(&alone, nowhere, false);
    raw_request(&alone, crew_str("anybody?"), 5, false);
    if (alone.ops->lazy_open) {
        raw_nothing(&alone);
        raw_close(&alone, &unsent);
        assert_int_equal(unsent.count, 1);
    } else {
        /* The request itself, or, when it had been written before, a message that tells its correlation. */
        crew_list_append(&unsent, raw_next_of(&alone, CREW_EVENT_UNROUTABLE));
        raw_close(&alone, NULL);
    }
    assert_int_equal(unsent.head->correlation, 5);
    if (unsent.head->body.size)
        assert_body(unsent.head, crew_str("anybody?"));
    crew_list_free(&unsent);
    (void)setup(NULL);
}

static void answers_that_one_caller_does_not_read_delay_no_other(void **state)
{
    (void)state;
    skip_over_http();
    enum { MANY = 3000 };
    struct raw_end deaf;
    char answer[1001];
    unsigned settled = 0;
    memset(answer, 'x', 1000);
    answer[1000] = '\0';
    raw_open(&deaf, url, false);
    for (uint32_t i = 1; i <= MANY; i++)
        raw_request(&deaf, crew_str("more"), i, false);
    deaf.deaf = true;
    raw_request(&client, crew_str("mine"), 1, false);
    for (bool served = false; !served;) { /* among as many of the other's as come before it */
        crew_message *request = raw_next(&server);
        served = request->body.size && request->body.data[1] == 'i';
        raw_settle(&server, request, CREW_SETTLE_REPLY, served ? "yours" : answer);
        assert_true(++settled <= MANY + 1);
    }
    crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
    assert_body(reply, crew_str("yours"));
    crew_message_free(reply);
    raw_close(&deaf, NULL);
}

static void each_request_is_told_once_also_if_its_connection_is_lost(void **state)
{
    (void)state;
    enum { COUNT = 40, SIZE = 1 << 20 };
    unsigned told[COUNT + 1] = { 0 };
    char *body = calloc(1, SIZE);
    crew_list unsent = { 0 };
    raw_request(&client, crew_str("first"), COUNT, false);
    raw_settle(&server, raw_next(&server), CREW_SETTLE_DONE, NULL); /* so they are connected */
    server.deaf = true;
    for (uint32_t i = 0; i < COUNT; i++) {
        crew_message *m = crew_message_new();
        m->kind = CREW_MESSAGE_REQUEST;
        m->correlation = i;
        m->content_type = "application/json";
        crew_buffer_append(&m->body, body, SIZE);
        crew_list_append(&client.outgoing, m);
    }
    raw_drive(&client); /* some of it is on its way */
    raw_close(&server, NULL);
    for (int i = 0; i < 20; i++)
        raw_drive(&client);
    crew_room room = { .messages = 64, .bytes = SIZE_MAX };
    (void)!client.ops->recv(client.state, &client.received,
                            &room); /* what close still has it does not tell */
    crew_list all = client.received;
    client.received = (crew_list){ 0 };
    raw_close(&client, &unsent);
    crew_list_move(&all, &unsent);
    for (crew_message *m; (m = crew_list_take(&all)); crew_message_free(m))
        if (m->body.size == SIZE && m->kind != CREW_EVENT_REPLY)
            told[m->correlation]++;
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(told[i], 1);
    free(body);
    (void)setup(NULL);
}

static void a_caller_that_hangs_up_without_room_makes_nobody_spin(void **state)
{
    (void)state;
    const crew_room none = { 0 };
    struct raw_end brief;
    unsigned waits = 0;
    raw_open(&brief, url, false);
    raw_request(&brief, crew_str("1"), 1, false);
    crew_message *request = raw_next(&server);
    raw_request(&brief, crew_str("2"), 2, false);
    size_t received = server.received.count; /* the second, if it was sent over another connection */
    raw_close(&brief, NULL);
    for (int64_t before = crew_now_ms(); crew_now_ms() - before < 200; waits++) {
        crew_room room = none;
        assert_ok(server.ops->wait(server.state, server.queue.fd, 200, &none));
        assert_ok(server.ops->recv(server.state, &server.received, &room));
    }
    assert_true(waits < 200);
    assert_int_equal(server.received.count, received);
    raw_settle(&server, request, CREW_SETTLE_REPLY, "too late");
}

static void what_was_sent_lingers_until_it_has_gone(void **state)
{
    (void)state;
    struct raw_end brief;
    raw_open(&brief, url, false);
    raw_request(&brief, crew_str("last words"), 1, true);
    for (int i = 0; i < 1000 && brief.outgoing.count; i++)
        raw_drive(&brief); /* until it is connected */
    assert_int_equal(brief.outgoing.count, 0);
    raw_close(&brief, NULL);
    crew_message *request = raw_next(&server);
    assert_body(request, crew_str("last words"));
    raw_settle(&server, request, CREW_SETTLE_DONE, NULL);
}

static void what_is_far_too_large_costs_at_most_its_sender(void **state)
{
    (void)state;
    enum { LIMIT = 1 << 16, SIZE = 4 << 20 };
    struct raw_end limited, large;
    crew_error why;
    char *body = calloc(1, SIZE);
    raw_close(&client, NULL);
    raw_close(&server, NULL);
    (void)snprintf(url, sizeof url, "%s", test_url(pattern));
    raw_prepare(&limited, url, true);
    limited.config.limits.message_bytes = limited.config.limits.string_bytes = LIMIT;
    limited.config.hard_bytes = 4 * LIMIT;
    assert_ok_why(limited.ops->open(limited.state, &limited.config, &why), why);
    raw_open_to(&large, url, &limited);
    large.deaf = true; /* its connection may be lost */
    raw_open_to(&client, url, &limited);
    for (int i = 0; i < 200 && large.ops->ready && !large.ops->ready(large.state); i++)
        raw_drive(&large);
    raw_request(&large, (crew_string){ body, SIZE }, 1, false);
    raw_request(&client, crew_str("small"), 2, false);
    bool served = false;
    for (int i = 0; i < 1000 && !served; i++) {
        const crew_room much = { .messages = 64, .bytes = SIZE_MAX };
        crew_room room = much;
        crew_list got = { 0 };
        assert_ok(limited.ops->wait(limited.state, limited.queue.fd, 5, &much));
        assert_ok(limited.ops->recv(limited.state, &got, &room));
        for (crew_message *m; (m = crew_list_take(&got));) {
            crew_list one = { 0 };
            served = served || (m->body.size == 5 && memcmp(m->body.data, "small", 5) == 0);
            m->kind = CREW_SETTLE_DONE;
            crew_list_append(&one, m);
            assert_ok(limited.ops->send(limited.state, &one));
        }
        raw_drive(&client);
        (void)!large.ops->recv(large.state, &large.received, &room);
    }
    assert_true(served);
    raw_close(&large, NULL);
    raw_close(&client, NULL);
    limited.ops->close(limited.state, 100, NULL);
    raw_fini(&limited);
    free(body);
    (void)setup(NULL);
}

static void without_descriptors_opening_fails_in_words(void **state)
{
    (void)state;
    struct raw_end end;
    struct rlimit before, few;
    crew_error why = { .status = CREW_OK };
    a_request_goes_over_and_its_answer_comes_back(NULL); /* nobody is about to be accepted then */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(0);
    close(next);
    few = (struct rlimit){ .rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max };
    raw_prepare(&end, url, false);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    crew_status status = end.ops->open(end.state, &end.config, &why);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_true(status != CREW_OK);
    assert_true(*why.message);
    assert_ok_why(raw_try(&end, NULL, &why), why);
    crew_list unsent = { 0 };
    end.ops->close(end.state, 100, &unsent);
    raw_fini(&end);
    a_request_goes_over_and_its_answer_comes_back(NULL);
}

static void who_no_longer_listens_serves_those_that_are_there(void **state)
{
    (void)state;
    if (!server.ops->unlisten)
        return;
    raw_request(&client, crew_str("before"), 1, false);
    crew_message *request = raw_next(&server);
    server.ops->unlisten(server.state);
    raw_settle(&server, request, CREW_SETTLE_REPLY, "answer");
    crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    if (open_says_no_service(url))
        return;
    struct raw_end late;
    raw_open(&late, url, false);
    raw_request(&late, crew_str("late"), 1, false);
    crew_message_free(raw_next_of(&late, CREW_EVENT_UNROUTABLE));
    raw_close(&late, NULL);
}

enum { IDS = 40 };
static struct {
    unsigned arrived[IDS];
    atomic_uint total;
    atomic_bool stop;
} seen;

static void *serve(void *unused)
{
    (void)unused;
    while (!atomic_load(&seen.stop)) {
        const crew_room much = { .messages = 64, .bytes = SIZE_MAX };
        crew_room room = much;
        crew_list got = { 0 };
        if (server.ops->wait(server.state, server.queue.fd, 5, &much) != CREW_OK ||
            server.ops->recv(server.state, &got, &room) != CREW_OK)
            break;
        for (crew_message *m = got.head; m; m = m->next) {
            seen.arrived[(unsigned char)m->body.data[0]]++;
            atomic_fetch_add(&seen.total, 1);
            m->kind = CREW_SETTLE_DONE;
        }
        if (got.count && server.ops->send(server.state, &got) != CREW_OK)
            break;
    }
    return NULL;
}

/* Rule 3: sends much, reads what recv tells if asked to, and closes; none of unsent may arrive. */
static void close_amid(size_t size, unsigned count, unsigned drives)
{
    struct raw_end brief;
    pthread_t thread;
    crew_list unsent = { 0 };
    char *body = calloc(1, size);
    memset(&seen, 0, sizeof seen);
    raw_open(&brief, url, false);
    for (int i = 0; i < 100 && brief.ops->ready && !brief.ops->ready(brief.state); i++)
        raw_drive(&brief);
    raw_drive(&client); /* the worker has accepted it */
    server.deaf = true;
    for (unsigned i = 0; i < count; i++) {
        crew_message *m = crew_message_new();
        m->kind = CREW_MESSAGE_REQUEST;
        m->correlation = i + 1;
        m->content_type = "application/json";
        body[0] = (char)i;
        crew_buffer_append(&m->body, body, size);
        crew_list_append(&brief.outgoing, m);
    }
    assert_ok(brief.ops->send(brief.state, &brief.outgoing));
    for (unsigned i = 0; i < drives; i++)
        raw_drive(&brief);
    crew_list told = brief.received;
    brief.received = (crew_list){ 0 };
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    raw_close(&brief, &unsent);
    unsigned written = 0; /* they come first */
    for (crew_message *m = told.head; m; m = m->next)
        written += m->kind == CREW_EVENT_WRITTEN;
    for (int i = 0; i < 1000 && atomic_load(&seen.total) < written; i++)
        (void)poll(NULL, 0, 10);
    for (unsigned before = ~0u; before != atomic_load(&seen.total);) {
        before = atomic_load(&seen.total);
        (void)poll(NULL, 0, 200);
    }
    atomic_store(&seen.stop, true);
    pthread_join(thread, NULL);
    server.deaf = false;
    for (crew_message *m = unsent.head; m; m = m->next)
        if (seen.arrived[m->correlation - 1])
            fail_msg("request %u came back from close as unsent, and arrived all the same", m->correlation);
    for (crew_message *m = told.head; m; m = m->next)
        if (m->kind == CREW_EVENT_WRITTEN && !seen.arrived[m->correlation - 1])
            fail_msg("request %u was told as written, and close did not flush it", m->correlation);
    for (unsigned i = 0; i < count; i++)
        assert_true(seen.arrived[i] <= 1);
    crew_list_free(&told);
    crew_list_free(&unsent);
    free(body);
}

static void what_close_gives_back_does_not_arrive(void **state)
{
    (void)state;
    close_amid(1 << 20, IDS, 5); /* in the midst of one */
    close_amid(10, 5, 0);        /* written, and recv was not asked since */
}

static void what_costs_the_connection_was_written(void **state)
{
    (void)state;
    enum { SIZE = 64 << 20 };
    struct raw_end limited, large;
    crew_error why;
    crew_list unsent = { 0 };
    raw_close(&client, NULL);
    raw_close(&server, NULL);
    (void)snprintf(url, sizeof url, "%s", test_url(pattern));
    raw_prepare(&limited, url, true);
    limited.config.limits.message_bytes = limited.config.limits.string_bytes = 1 << 16;
    limited.config.hard_bytes = 1 << 18;
    assert_ok_why(limited.ops->open(limited.state, &limited.config, &why), why);
    raw_prepare(&large, url, false);
    assert_ok_why(raw_try(&large, &limited, &why), why);
    const crew_room much = { .messages = 64, .bytes = SIZE_MAX };
    bool lost = false, sent = false, written = false;
    char *body = calloc(1, SIZE);
    crew_list one = { 0 };
    crew_message *m = crew_message_new();
    m->kind = CREW_MESSAGE_REQUEST;
    m->correlation = 1;
    m->content_type = "application/json";
    crew_buffer_append(&m->body, body, SIZE);
    crew_list_append(&one, m);
    for (int i = 0; i < 500 && !lost; i++) {
        crew_room room = much;
        crew_list got = { 0 };
        assert_ok(limited.ops->wait(limited.state, limited.queue.fd, 2, &much));
        assert_ok(limited.ops->recv(limited.state, &got, &room));
        for (m = got.head; m; m = m->next)
            m->kind = CREW_SETTLE_DONE;
        assert_ok(limited.ops->send(limited.state, &got));
        if (!sent && (!large.ops->ready || large.ops->ready(large.state))) {
            assert_ok(large.ops->send(large.state, &one));
            sent = !one.count;
        }
        room = much;
        lost = large.ops->recv(large.state, &got, &room) != CREW_OK;
        while ((m = crew_list_take(&got))) {
            written = written || m->kind == CREW_EVENT_WRITTEN;
            crew_message_free(m);
        }
    }
    large.ops->close(large.state, 100, &unsent);
    if (lost && sent && (!written || unsent.count))
        fail_msg("a request cost its connection, so it was written in part at least; told written: %d, "
                 "unsent: %zu",
                 written, unsent.count);
    limited.ops->close(limited.state, 100, NULL);
    raw_fini(&large);
    raw_fini(&limited);
    crew_list_free(&one);
    crew_list_free(&unsent);
    free(body);
    (void)setup(NULL);
}

static unsigned count_replies(crew_list *got)
{
    unsigned count = 0;
    for (crew_message *m; (m = crew_list_take(got)); crew_message_free(m))
        count += m->kind == CREW_EVENT_REPLY;
    return count;
}

static void all_that_had_come_is_given_before_a_loss_is_told(void **state)
{
    (void)state;
    enum { COUNT = 50 };
    crew_message *requests[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        raw_request(&client, crew_str("x"), i + 1, false);
    for (int i = 0; i < COUNT; i++)
        requests[i] = raw_next(&server);
    client.deaf = true;
    for (int i = 0; i < COUNT; i++)
        raw_settle(&server, requests[i], CREW_SETTLE_REPLY, "answer");
    raw_close(&server, NULL);
    crew_list got = client.received;
    client.received = (crew_list){ 0 };
    unsigned replies = count_replies(&got);
    crew_status status = CREW_OK;
    for (int64_t until = crew_now_ms() + 10000;
         replies < COUNT && status == CREW_OK && crew_now_ms() < until;) {
        const crew_room one = { .messages = 1, .bytes = SIZE_MAX };
        crew_room room = one;
        assert_ok(client.ops->wait(client.state, client.queue.fd, 10, &one));
        status = client.ops->recv(client.state, &got, &room);
        unsigned more = count_replies(&got);
        assert_true(more <= 1); /* as much as there was room for */
        replies += more;
    }
    assert_int_equal(replies, COUNT);
    for (int i = 0; i < 50 && status == CREW_OK; i++) { /* a broker's caller loses nothing */
        crew_room room = { .messages = 1, .bytes = SIZE_MAX };
        const crew_room one = room;
        assert_ok(client.ops->wait(client.state, client.queue.fd, 10, &one));
        status = client.ops->recv(client.state, &got, &room);
    }
    assert_true(status == CREW_OK || *client.lost.message); /* why: words for those whose calls end by it */
    crew_list_free(&got);
    raw_close(&client, NULL);
    (void)setup(NULL);
}

static void what_there_was_no_room_for_ends_the_next_wait(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    crew_message *requests[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        raw_request(&client, crew_str("x"), i + 1, false);
    for (int i = 0; i < COUNT; i++)
        requests[i] = raw_next(&server);
    client.deaf = true;
    for (int i = 0; i < COUNT; i++)
        raw_settle(&server, requests[i], CREW_SETTLE_REPLY, "answer");
    for (int i = 0; i < 20; i++)
        raw_drive(&server); /* all are on their way */
    crew_list got = client.received;
    client.received = (crew_list){ 0 };
    unsigned replies = count_replies(&got);
    while (replies < COUNT) { /* else this would take for ever */
        const crew_room one = { .messages = 1, .bytes = SIZE_MAX };
        crew_room room = one;
        assert_ok(client.ops->wait(client.state, client.queue.fd, -1, &one));
        assert_ok(client.ops->recv(client.state, &got, &room));
        replies += count_replies(&got);
    }
    client.deaf = false;
}

/* Without the harness, which belongs to the test's own thread. */
static void *drive_client(void *answers)
{
    const crew_room much = { .messages = 64, .bytes = SIZE_MAX };
    int64_t until = crew_now_ms() + 10000;
    while (*(unsigned *)answers < 40 && crew_now_ms() < until) {
        crew_room room = much;
        crew_list got = { 0 };
        if (client.ops->wait(client.state, client.queue.fd, 5, &much) != CREW_OK)
            break;
        crew_status status = client.ops->recv(client.state, &got, &room);
        *(unsigned *)answers += count_replies(&got);
        if (status != CREW_OK)
            break;
    }
    return NULL;
}

static void answers_linger_until_they_have_gone(void **state)
{
    (void)state;
    enum { COUNT = 40, SIZE = 1 << 18 };
    pthread_t thread;
    unsigned answers = 0;
    char *answer = calloc(1, SIZE + 1);
    crew_message *requests[COUNT];
    memset(answer, 'x', SIZE);
    for (uint32_t i = 0; i < COUNT; i++)
        raw_request(&client, crew_str("x"), i + 1, false);
    for (int i = 0; i < COUNT; i++)
        requests[i] = raw_next(&server);
    client.deaf = true; /* until the worker closes */
    for (int i = 0; i < COUNT; i++)
        raw_settle(&server, requests[i], CREW_SETTLE_REPLY, answer);
    server.deaf = true;
    client.deaf = false;
    assert_int_equal(pthread_create(&thread, NULL, drive_client, &answers), 0);
    server.ops->close(server.state, 5000, NULL);
    pthread_join(thread, NULL);
    assert_int_equal(answers, COUNT);
    crew_error why;
    assert_ok_why(server.ops->open(server.state, &server.config, &why), why); /* for the teardown */
    free(answer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_request_goes_over_and_its_answer_comes_back),
        TEST(bodies_are_any_bytes_of_any_size),
        TEST(a_one_way_request_is_confirmed_and_gets_nothing),
        TEST(every_message_comes_once_and_in_order),
        TEST(answers_may_come_in_any_order),
        TEST(two_callers_get_their_own_answers),
        TEST(callers_are_told_apart_by_origin),
        TEST(no_more_is_received_than_there_is_room_for),
        TEST(waiting_ends_by_the_wake_up_fd_and_by_time),
        TEST(a_caller_that_has_left_costs_nothing),
        TEST(what_is_requeued_comes_again),
        TEST(a_paused_worker_takes_no_new_requests),
        TEST(answers_that_one_caller_does_not_read_delay_no_other),
        TEST(each_request_is_told_once_also_if_its_connection_is_lost),
        TEST(a_caller_that_hangs_up_without_room_makes_nobody_spin),
        TEST(what_was_sent_lingers_until_it_has_gone),
        TEST(what_is_far_too_large_costs_at_most_its_sender),
        TEST(without_descriptors_opening_fails_in_words),
        TEST(who_no_longer_listens_serves_those_that_are_there),
        TEST(all_that_had_come_is_given_before_a_loss_is_told),
        TEST(what_there_was_no_room_for_ends_the_next_wait),
        TEST(answers_linger_until_they_have_gone),
        TEST(what_close_gives_back_does_not_arrive),
        TEST(what_costs_the_connection_was_written),
        TEST(both_ends_open_again_after_a_close),
        TEST(with_nobody_there_a_request_is_not_lost),
    };
    if (argc < 2)
        return 2;
    pattern = argv[1];
    return cmocka_run_group_tests_name(pattern, tests, NULL, NULL);
}
