/* The ends of ZeroMQ against plain sockets of libzmq. */
#include "support/raw.h"

#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

static char url[200];
static const char *address; /* libzmq's */
static void *context;

static int setup(void **state)
{
    (void)state;
    (void)snprintf(url, sizeof url, "%s", test_url("zmq+ipc:///tmp/rpcrew-unit-{new}"));
    address = url + strlen("zmq+");
    context = zmq_ctx_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    zmq_ctx_term(context);
    return 0;
}

static void send_frames(void *socket, const char *const *frames)
{
    for (; *frames; frames++)
        assert_true(zmq_send(socket, *frames, strlen(*frames), frames[1] ? ZMQ_SNDMORE : 0) >= 0);
}

static void callers_behind_a_proxy_have_origins_of_their_own(void **state)
{
    (void)state;
    static const char *const requests[][4] = {
        { "first", "", "1" }, { "first", "", "2" }, { "second", "", "3" }, { "", "4" }, { "5" },
    };
    enum { COUNT = sizeof requests / sizeof *requests };
    struct raw_end worker;
    crew_message *got[COUNT];
    raw_open(&worker, url, true);
    void *proxy = zmq_socket(context, ZMQ_DEALER);
    assert_int_equal(zmq_connect(proxy, address), 0);
    for (size_t i = 0; i < COUNT; i++) {
        send_frames(proxy, requests[i]);
        got[i] = raw_next(&worker);
        assert_int_equal(got[i]->body.data[0], '1' + (char)i);
    }
    assert_true(crew_string_equal(got[0]->origin, got[1]->origin));
    assert_false(crew_string_equal(got[0]->origin, got[2]->origin));
    assert_false(crew_string_equal(got[0]->origin, got[3]->origin));
    assert_true(crew_string_equal(got[3]->origin, got[4]->origin)); /* REQ's envelope is none */
    for (size_t i = 0; i < COUNT; i++)
        raw_settle(&worker, got[i], CREW_SETTLE_DONE, NULL);
    zmq_close(proxy);
    raw_close(&worker, NULL);
}

static void *fixed(const char *id)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    int none = 0;
    assert_int_equal(zmq_setsockopt(socket, ZMQ_ROUTING_ID, id, strlen(id)), 0);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none), 0);
    assert_int_equal(zmq_connect(socket, address), 0);
    return socket;
}

/* Reads what there is, of which there is room for none. */
static void park(struct raw_end *worker)
{
    int wake = eventfd(0, EFD_CLOEXEC);
    for (int i = 0; i < 20; i++) {
        const crew_room none = { .reserve = 1, .each = 0 };
        crew_room room = none;
        crew_list got = { 0 };
        assert_ok(worker->ops->wait(worker->state, wake, 5, &none));
        assert_ok(worker->ops->recv(worker->state, &got, &room));
        assert_int_equal(got.count, 0);
    }
    close(wake);
}

static void who_comes_back_while_its_requests_are_parked_holds_nobody_up(void **state)
{
    (void)state;
    struct raw_end worker;
    raw_open(&worker, url, true);
    void *first = fixed("mine"), *other = fixed("other");
    send_frames(first, (const char *const[]){ "", "old", NULL });
    park(&worker);
    send_frames(other, (const char *const[]){ "", "other", NULL });
    park(&worker);
    void *second = fixed("mine"); /* the first one's requests are nobody's now */
    send_frames(second, (const char *const[]){ "", "new", NULL });
    park(&worker);
    bool got_new = false, got_other = false;
    for (int i = 0; i < 2; i++) {
        crew_message *m = raw_next(&worker);
        got_new = got_new || m->body.data[0] == 'n';
        got_other = got_other || (m->body.size == 5 && m->body.data[1] == 't');
        raw_settle(&worker, m, CREW_SETTLE_REPLY, "answer");
    }
    assert_true(got_new && got_other);
    raw_nothing(&worker);
    zmq_close(first);
    zmq_close(second);
    zmq_close(other);
    raw_close(&worker, NULL);
}

/* A worker without the library, which has got a request; *id is its caller's. */
static void *serve_one(struct raw_end *caller, zmq_msg_t *id)
{
    char body[10];
    void *worker = zmq_socket(context, ZMQ_ROUTER);
    zmq_pollitem_t item = { .socket = worker, .events = ZMQ_POLLIN };
    assert_int_equal(zmq_bind(worker, address), 0);
    raw_open(caller, url, false);
    raw_request(caller, crew_str("x"), 1, false);
    while (zmq_poll(&item, 1, 1) == 0)
        raw_drive(caller);
    zmq_msg_init(id);
    assert_true(zmq_msg_recv(id, worker, 0) > 0);
    assert_int_equal(zmq_recv(worker, body, sizeof body, 0), 0);
    assert_int_equal(zmq_recv(worker, body, sizeof body, 0), 1);
    return worker;
}

static void answer(void *worker, zmq_msg_t *id, const char *body)
{
    assert_true(zmq_send(worker, zmq_msg_data(id), zmq_msg_size(id), ZMQ_SNDMORE) > 0);
    send_frames(worker, (const char *const[]){ "", body, NULL });
}

static void empty_answers_end_a_round_as_others_do(void **state)
{
    (void)state;
    enum { MANY = 50, FEW = 7 };
    struct raw_end caller;
    zmq_msg_t id;
    void *worker = serve_one(&caller, &id);
    size_t taken = 0;
    for (int i = 0; i < MANY; i++)
        answer(worker, &id, "");
    for (int64_t until = crew_now_ms() + 10000; taken < MANY && crew_now_ms() < until;) {
        crew_room room = { .messages = FEW, .bytes = SIZE_MAX };
        crew_list got = { 0 };
        assert_ok(caller.ops->recv(caller.state, &got, &room));
        taken += FEW - room.messages;
        crew_list_free(&got);
    }
    assert_true(taken >= MANY); /* none was taken without room; with what was written it may be more */
    zmq_msg_close(&id);
    zmq_close(worker);
    raw_close(&caller, NULL);
}

static void a_loss_is_told_when_the_last_answer_has_used_the_room(void **state)
{
    (void)state;
    struct raw_end caller;
    zmq_msg_t id;
    void *worker = serve_one(&caller, &id);
    answer(worker, &id, "answer");
    crew_message_free(raw_next_of(&caller, CREW_EVENT_REPLY));
    answer(worker, &id, "last");
    zmq_close(worker);
    crew_status status = CREW_OK;
    crew_list got = { 0 };
    int wake = -1;
    while (status == CREW_OK) { /* else it would wait for ever */
        const crew_room one = { .messages = 1, .bytes = SIZE_MAX };
        crew_room room = one;
        assert_ok(caller.ops->wait(caller.state, wake, -1, &one));
        status = caller.ops->recv(caller.state, &got, &room);
    }
    assert_status(status, CREW_DISCONNECTED);
    assert_int_equal(got.count, 1);
    assert_true(*caller.lost.message);
    crew_list_free(&got);
    zmq_msg_close(&id);
    raw_close(&caller, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(callers_behind_a_proxy_have_origins_of_their_own, setup, teardown),
        cmocka_unit_test_setup_teardown(who_comes_back_while_its_requests_are_parked_holds_nobody_up, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(empty_answers_end_a_round_as_others_do, setup, teardown),
        cmocka_unit_test_setup_teardown(a_loss_is_told_when_the_last_answer_has_used_the_room, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
