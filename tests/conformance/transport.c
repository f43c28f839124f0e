/* What every transport keeps, at both ends, by its contract (rpcrew/impl/transport.h): run as `transport
 * URL`. */
#include "support/raw.h"

#include <poll.h>
#include <unistd.h>

#include <sys/eventfd.h>

static const char *pattern;
static char url[400];
static struct raw_end server, client;

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

static void no_more_is_received_than_there_is_room_for(void **state)
{
    (void)state;
    int wake = eventfd(0, EFD_CLOEXEC);
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
        assert_ok(server.ops->wait(server.state, wake, 100, &room));
        assert_ok(server.ops->recv(server.state, &got, &room));
    }
    assert_int_equal(got.count, 2);
    assert_int_equal(room.messages, 0);
    int64_t before = crew_now_ms();
    assert_ok(server.ops->recv(server.state, &got, &none));
    assert_int_equal(got.count, 2);
    unsigned waits = 0;
    for (; crew_now_ms() - before < 100;
         waits++) /* with no room, requests do not end the wait again and again */
        assert_ok(server.ops->wait(server.state, wake, 100, &none));
    assert_true(waits < 100);
    none.bytes = SIZE_MAX; /* bytes are no room without messages, nor messages without bytes */
    assert_ok(server.ops->recv(server.state, &got, &none));
    room = (crew_room){ .messages = 5 };
    assert_ok(server.ops->recv(server.state, &got, &room));
    assert_int_equal(got.count, 2);
    crew_list_free(&got);
    close(wake);
}

static void waiting_ends_by_the_wake_up_fd_and_by_time(void **state)
{
    (void)state;
    struct raw_end *const ends[] = { &server, &client };
    const crew_room room = { .messages = 1, .bytes = SIZE_MAX };
    for (int i = 0; i < 2; i++) {
        uint64_t one = 1;
        int wake = eventfd(0, EFD_CLOEXEC);
        int64_t before = crew_now_ms();
        while (crew_now_ms() - before < 40)
            assert_ok(ends[i]->ops->wait(ends[i]->state, wake, 40, &room));
        assert_int_equal(write(wake, &one, sizeof one), sizeof one);
        for (int early = 0; early < 10; early++) /* without it this would take for ever */
            assert_ok(ends[i]->ops->wait(ends[i]->state, wake, -1, &room));
        close(wake);
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
}

static void what_is_requeued_comes_again(void **state)
{
    (void)state;
    if (!server.ops->can_requeue)
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
        assert_ok_why(client.ops->open(client.state, &client.config, &why), why);
        a_request_goes_over_and_its_answer_comes_back(NULL);
    }
}

static void with_nobody_there_a_request_is_not_lost(void **state)
{
    (void)state;
    struct raw_end alone;
    crew_list unsent = { 0 };
    raw_close(&client, NULL);
    raw_close(&server, NULL);
    raw_open(&alone, test_url(pattern), false);
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
        TEST(no_more_is_received_than_there_is_room_for),
        TEST(waiting_ends_by_the_wake_up_fd_and_by_time),
        TEST(a_caller_that_has_left_costs_nothing),
        TEST(what_is_requeued_comes_again),
        TEST(a_paused_worker_takes_no_new_requests),
        TEST(both_ends_open_again_after_a_close),
        TEST(with_nobody_there_a_request_is_not_lost),
    };
    if (argc < 2)
        return 2;
    pattern = argv[1];
    return cmocka_run_group_tests_name(pattern, tests, NULL, NULL);
}
