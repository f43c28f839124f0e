/* The ends of ZeroMQ against plain sockets of libzmq. */
#include "support/raw.h"

#include "transport/zmq_frame.h"
#include "transport/zmq_watch.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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

/* Sends a request to a worker without the library; *id is its caller's. Returns how many frames came behind
 * that, of which the last is in body, and the one before in frame. */
static size_t request_of(struct raw_end *caller, void *worker, zmq_msg_t *id, char frame[100])
{
    char body[100];
    zmq_pollitem_t item = { .socket = worker, .events = ZMQ_POLLIN };
    raw_request(caller, crew_str("x"), 1, false);
    while (zmq_poll(&item, 1, 1) == 0)
        raw_drive(caller);
    zmq_msg_init(id);
    assert_true(zmq_msg_recv(id, worker, 0) > 0);
    assert_int_equal(zmq_recv(worker, body, sizeof body, 0), 0);
    int size = zmq_recv(worker, body, sizeof body, 0), more;
    size_t count = 2, more_size = sizeof more;
    for (; zmq_getsockopt(worker, ZMQ_RCVMORE, &more, &more_size) == 0 && more; count++) {
        assert_true(size < 100);
        memcpy(frame, body, sizeof body);
        size = zmq_recv(worker, body, sizeof body, 0);
    }
    assert_int_equal(size, 1);
    return count;
}

static void *bound_router(const char *routing_id)
{
    void *worker = zmq_socket(context, ZMQ_ROUTER);
    if (routing_id)
        assert_int_equal(zmq_setsockopt(worker, ZMQ_ROUTING_ID, routing_id, strlen(routing_id)), 0);
    assert_int_equal(zmq_bind(worker, address), 0);
    return worker;
}

/* A worker without the library, which has got a request; *id is its caller's. */
static void *serve_one(struct raw_end *caller, zmq_msg_t *id)
{
    char frame[100];
    void *worker = bound_router(NULL);
    raw_open(caller, url, false);
    assert_int_equal(request_of(caller, worker, id, frame), 2);
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

/* How many frames a caller's second request has, and what is in the one before the body. */
static size_t second_request_to(const char *routing_id, char frame[100])
{
    struct raw_end caller;
    zmq_msg_t id;
    void *worker = bound_router(routing_id);
    raw_open(&caller, url, false);
    caller.timeout_ms = 5000;
    assert_int_equal(request_of(&caller, worker, &id, frame), 2); /* it is not known yet who that is */
    answer(worker, &id, "answer");
    zmq_msg_close(&id);
    crew_message_free(raw_next_of(&caller, CREW_EVENT_REPLY));
    size_t count = request_of(&caller, worker, &id, frame);
    zmq_msg_close(&id);
    zmq_close(worker);
    raw_close(&caller, NULL);
    return count;
}

static void deadlines_travel_to_workers_of_ours_alone(void **state)
{
    (void)state;
    char frame[100];
    struct raw_end worker;
    assert_int_equal(second_request_to(NULL, frame), 2);
    assert_int_equal(second_request_to("somebody's", frame), 2);
    assert_int_equal(second_request_to("rpcrew2.1", frame), 3);
    assert_memory_equal(frame, "RPCREW2", 7);

    /* And what one of ours says of itself, and makes of it. */
    raw_open(&worker, url, true);
    void *peer = fixed("somebody");
    send_frames(peer, (const char *const[]){ "", "RPCREW2\x81\xa4left\xcd\x13\x88", "x", NULL });
    crew_message *m = raw_next(&worker);
    assert_true(m->deadline_ms > crew_now_ms() && m->deadline_ms <= crew_now_ms() + 5000);
    raw_settle(&worker, m, CREW_SETTLE_REPLY, "answer");
    zmq_msg_t part;
    zmq_msg_init(&part);
    while (zmq_msg_recv(&part, peer, ZMQ_DONTWAIT) < 0)
        raw_drive(&worker);
    assert_memory_equal(zmq_msg_gets(&part, "Identity"), "rpcrew2.", 8);
    zmq_msg_close(&part);
    zmq_close(peer);
    raw_close(&worker, NULL);
}

/* How long a request has, whose caller gives it two seconds, by a clock that is so far from ours, and that
 * was under way for a while. */
static int64_t time_left(struct raw_end *worker, void *peer, int64_t skew_ms, int64_t under_way_ms)
{
    char bytes[ZMQ_FRAME_MOST];
    const struct zmq_frame frame = { 2000, crew_unix_ms() - under_way_ms + 2000 + skew_ms };
    size_t size = zmq_frame_write(&frame, bytes);
    assert_int_equal(zmq_send(peer, "", 0, ZMQ_SNDMORE), 0);
    assert_true(zmq_send(peer, bytes, size, ZMQ_SNDMORE) > 0);
    assert_int_equal(zmq_send(peer, "x", 1, 0), 1);
    crew_message *m = raw_next(worker);
    int64_t left = m->deadline_ms - crew_now_ms();
    raw_settle(worker, m, CREW_SETTLE_DONE, NULL);
    return left;
}

static void a_clock_that_disagrees_drops_nothing(void **state)
{
    (void)state;
    static const int64_t skews_s[] = { -86400, -10, 0, 10, 86400 };
    struct raw_end worker;
    raw_open(&worker, url, true);
    for (size_t i = 0; i < sizeof skews_s / sizeof *skews_s; i++) {
        char id[20];
        (void)snprintf(id, sizeof id, "peer %zu", i);
        void *peer = fixed(id);
        raw_drive(&worker); /* which keeps up: what comes was sent just now */
        int64_t left = time_left(&worker, peer, skews_s[i] * 1000, 0);
        assert_true(left > 0 && left <= 2000);
        left = time_left(&worker, peer, 0, 900); /* within what clocks may differ by, it was under way */
        assert_true(left > 0 && left <= 1100);
        zmq_close(peer);
    }
    raw_close(&worker, NULL);
}

static void a_stranger_s_handshake_ends_nobody_s_calls(void **state)
{
    (void)state;
    struct raw_end caller;
    char bound[250], frame[100];
    zmq_msg_t id;
    (void)snprintf(bound, sizeof bound, "%s?mode=bind", url);
    raw_open(&caller, bound, false);
    void *worker = zmq_socket(context, ZMQ_ROUTER);
    assert_int_equal(zmq_connect(worker, address), 0);
    assert_int_equal(request_of(&caller, worker, &id, frame), 2);
    void *monitor = zmq_socket(context, ZMQ_PAIR), *stranger = zmq_socket(context, ZMQ_SUB);
    assert_int_equal(zmq_socket_monitor(stranger, "inproc://stranger", ZMQ_EVENT_DISCONNECTED), 0);
    assert_int_equal(zmq_connect(monitor, "inproc://stranger"), 0);
    assert_int_equal(zmq_connect(stranger, address), 0);
    zmq_pollitem_t item = { .socket = monitor, .events = ZMQ_POLLIN };
    while (zmq_poll(&item, 1, 1) == 0)
        raw_drive(&caller);
    raw_nothing(&caller);
    assert_false(*caller.lost.message);
    answer(worker, &id, "answer");
    crew_message_free(raw_next_of(&caller, CREW_EVENT_REPLY));
    assert_int_equal(zmq_socket_monitor(stranger, NULL, 0), 0);
    zmq_close(stranger);
    zmq_close(monitor);
    zmq_close(worker);
    while (!*caller.lost.message) /* the last one that could answer has gone */
        raw_drive(&caller);
    zmq_msg_close(&id);
    raw_close(&caller, NULL);
}

static void a_connecting_socket_that_falls_silent_is_given_up(void **state)
{
    (void)state;
    const crew_transport_config config = { .connect_timeout_ms = 5000 };
    struct zmq_end end = { .config = &config, .connects = true, .socket = zmq_socket(context, ZMQ_DEALER) };
    struct zmq_watch watch = { .end = &end, .heard_ms = 1000, .monitor = zmq_socket(context, ZMQ_PAIR) };
    assert_int_equal(zmq_watch_due(&watch, 1000), 10000);
    zmq_watch_read(&watch, 10999);
    assert_null(watch.lost);
    zmq_watch_read(&watch, 11000);
    assert_non_null(watch.lost);
    watch = (struct zmq_watch){
        .end = &end, .heard_ms = 1000, .monitor = watch.monitor, .connected = true, .fd = -1
    };
    zmq_watch_read(&watch, 5999);
    assert_null(watch.lost);
    zmq_watch_read(&watch, 6000); /* connected, and no handshake */
    assert_non_null(watch.lost);
    watch = (struct zmq_watch){
        .end = &end, .heard_ms = 1000, .monitor = watch.monitor, .connected = true, .fd = -1
    };
    zmq_watch_note_message(&watch); /* of a peer whose handshake was not told */
    zmq_watch_read(&watch, 1000000);
    assert_null(watch.lost);
    watch = (struct zmq_watch){
        .end = &end, .heard_ms = 1000, .monitor = watch.monitor, .connected = true, .fd = -1, .peers = 1
    };
    zmq_watch_read(&watch, 1000000);
    assert_null(watch.lost);
    watch = (struct zmq_watch){ .end = &end, .monitor = watch.monitor };
    end.inproc = true; /* nothing is ever told of those */
    zmq_watch_read(&watch, 1000000);
    assert_null(watch.lost);
    zmq_close(watch.monitor);
    zmq_close(end.socket);
}

static void a_path_whose_owner_accepts_nobody_is_taken(void **state)
{
    (void)state;
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    int owner = socket(AF_UNIX, SOCK_STREAM, 0), waiting[3];
    (void)snprintf(name.sun_path, sizeof name.sun_path, "%s", address + strlen("ipc://"));
    assert_int_equal(bind(owner, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(listen(owner, 0), 0);
    for (size_t i = 0; i < 3; i++) {
        waiting[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(waiting[i], (struct sockaddr *)&name, sizeof name);
    }
    struct raw_end worker;
    crew_error why;
    raw_prepare(&worker, url, true);
    assert_status(worker.ops->open(worker.state, &worker.config, &why), CREW_SYSTEM);
    assert_non_null(strstr(why.message, strerror(EADDRINUSE)));
    raw_fini(&worker);
    for (size_t i = 0; i < 3; i++)
        close(waiting[i]);
    close(owner);
    unlink(name.sun_path);
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
        cmocka_unit_test_setup_teardown(deadlines_travel_to_workers_of_ours_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_clock_that_disagrees_drops_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stranger_s_handshake_ends_nobody_s_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(a_connecting_socket_that_falls_silent_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(a_path_whose_owner_accepts_nobody_is_taken, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
