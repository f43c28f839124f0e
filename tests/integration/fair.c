/* What one peer of a ZeroMQ worker can do to another: nothing that lasts. Gates force the order; no time is
 * measured but by deadlines that are far away. */
#include "support/handlers.h"
#include "support/test.h"

#include <rpcrew.h>

#include <zmq.h>

static crew_dispatcher *dispatcher;
static crew_server *server;
static crew_client *own, *polite; /* the service's own client, and another peer */
static char url[200];
static void *context, *greedy; /* a plain DEALER */
static char address[200];

static crew_status blob(crew_call *call)
{
    size_t size = (size_t)crew_arg_uint(call, 0);
    char *text = crew_call_arena(call) ? calloc(1, size + 1) : NULL;
    if (!text)
        return CREW_NO_MEMORY;
    memset(text, 'x', size);
    crew_status status = crew_reply_string(call, (crew_string){ text, size });
    free(text);
    return status;
}

static crew_status nested(crew_call *call)
{
    crew_error why;
    const crew_call_options within = { .within = call };
    gate_pass(&gate); /* all of them are in their handlers by then */
    crew_status status = crew_client_call_value(own, "inner", NULL, &within, NULL, &why);
    return status == CREW_OK ? crew_reply_int(call, 2) : crew_fail(call, 1, "%s", why.message);
}

static crew_status inner(crew_call *call)
{
    return crew_reply_null(call);
}

static const crew_method methods[] = {
    { "pass", pass, "" },
    { "add", add, "a:int b:int" },
    { "blob", blob, "size:uint" },
    { "nested", nested, "" },
    { "inner", inner, "" },
    { "until_cancelled", until_cancelled, "" },
    { 0 },
};
static const crew_service service = { .name = "fair", .methods = methods };

static void *connect_dealer(int send_mark)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    int none = 0;
    assert_int_equal(zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none), 0);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_SNDHWM, &send_mark, sizeof send_mark), 0);
    assert_int_equal(zmq_connect(socket, address), 0);
    return socket;
}

/* With what is in *state behind the URL, if anything is. */
static int setup(void **state)
{
    crew_error why;
    const char *query = *state ? *state : "";
    gate_reset(&gate);
    int size = snprintf(url, sizeof url, "%s", test_url("zmq+ipc:///tmp/rpcrew-fair-{new}"));
    (void)snprintf(address, sizeof address, "%s", url + strlen("zmq+"));
    (void)snprintf(url + size, sizeof url - (size_t)size, "%s", query);
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, &why));
    assert_ok_why(crew_server_new(&server, dispatcher, &(crew_server_options){ .threads = 4 }, &why), why);
    assert_ok_why(crew_server_listen(server, url, &why), why);
    assert_ok_why(crew_server_start(server, &why), why);
    assert_ok_why(crew_client_new(&own, url, NULL, &why), why);
    assert_ok_why(crew_client_new(&polite, url, NULL, &why), why);
    context = zmq_ctx_new();
    greedy = connect_dealer(0); /* it is never blocked itself */
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gate_open(&gate);
    crew_client_free(own);
    crew_client_free(polite);
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
    zmq_close(greedy);
    zmq_ctx_term(context);
    return 0;
}

static void send_greedy(const char *body, size_t size)
{
    assert_int_equal(zmq_send(greedy, "", 0, ZMQ_SNDMORE), 0);
    assert_int_equal(zmq_send(greedy, body, size, 0), size);
}

static void send_call(const char *method, const char *params, unsigned id)
{
    char text[200];
    int size = snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s,\"id\":%u}",
                        method, params, id);
    send_greedy(text, (size_t)size);
}

/* The next answer to the greedy one, within ten seconds. */
static const char *greedy_answer(void)
{
    static char text[4096];
    zmq_pollitem_t item = { .socket = greedy, .events = ZMQ_POLLIN };
    assert_int_equal(zmq_poll(&item, 1, 10000), 1);
    assert_int_equal(zmq_recv(greedy, text, sizeof text, 0), 0); /* the empty frame */
    int size = zmq_recv(greedy, text, sizeof text - 1, 0);
    assert_true(size >= 0);
    text[size < (int)sizeof text - 1 ? size : (int)sizeof text - 1] = '\0';
    return text;
}

static void assert_served(void)
{
    crew_error why;
    assert_ok_why(crew_client_call(polite, "rpc.ping", NULL, &why, NULL), why);
}

static bool has_received(void *count)
{
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    return stats.received >= *(const uint64_t *)count;
}

static void done(void *ended, crew_result *result, const crew_error *why)
{
    atomic_int *status = ended;
    crew_result_free(result);
    atomic_store(status, (int)why->status + 1);
}

static bool has_ended(void *ended)
{
    return atomic_load((atomic_int *)ended) != 0;
}

static void batches_of_one_peer_do_not_delay_another(void **state)
{
    (void)state;
    crew_error why;
    crew_buffer batch = { 0 };
    for (unsigned i = 0; i < 1000; i++)
        crew_buffer_printf(&batch, "%s{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":%u}", i ? "," : "[", i);
    crew_buffer_text(&batch, "]");
    for (int i = 0; i < 64; i++)
        send_greedy(batch.data, batch.size);
    crew_buffer_fini(&batch);
    assert_true(gate_await(&gate, 4)); /* its calls have all four threads */
    assert_served();                   /* which needs none */
    static atomic_int ended;
    atomic_store(&ended, 0);
    assert_ok_why(crew_client_start(polite, "add", done, &ended, &why, "[ii]", 1, 2), why);
    assert_served();     /* so add has come, and waits for its turn */
    gate_let(&gate, 20); /* far fewer than the 64,000 before it */
    assert_true(eventually(has_ended, &ended));
    assert_int_equal(atomic_load(&ended), CREW_OK + 1);
    assert_true(gate_entered(&gate) <= 24);
}

static void a_peer_that_is_alone_is_held_back_and_never_refused(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    for (unsigned i = 1; i <= COUNT; i++)
        send_call("pass", "[]", i);
    assert_true(gate_await(&gate, 4));
    gate_open(&gate);
    for (unsigned i = 1; i <= COUNT; i++)
        if (!strstr(greedy_answer(), "\"result\":1"))
            fail_msg("refused");
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.shed, 0);
}

static void beside_others_a_flood_is_refused_and_they_are_served(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    crew_error why;
    static atomic_int ended;
    atomic_store(&ended, 0);
    assert_ok_why(crew_client_start(polite, "pass", done, &ended, &why, NULL), why);
    assert_true(gate_await(&gate, 1)); /* the other peer has a call that runs */
    static const char batch[] = "[{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":1}]";
    for (unsigned i = 1; i <= COUNT; i++)
        if (i % 2 || i < 100)
            send_call("pass", "[]", i);
        else
            send_greedy(batch, sizeof batch - 1);
    assert_true(gate_await(&gate, 4));
    unsigned answered = 0, refused = 0;
    while (refused < 1000) { /* while nothing else can be answered */
        assert_non_null(strstr(greedy_answer(), "\"reason\":\"room\""));
        refused++;
    }
    for (int i = 0; i < 20; i++)
        assert_served();
    gate_open(&gate);
    while (answered + refused < COUNT) {
        bool good = strstr(greedy_answer(), "\"result\":1") != NULL;
        answered += good;
        refused += !good;
    }
    assert_true(answered >= 64);
    assert_true(eventually(has_ended, &ended));
    assert_int_equal(atomic_load(&ended), CREW_OK + 1);
}

static bool has_lost(void *ignored)
{
    (void)ignored;
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    return stats.lost > 0;
}

static void a_peer_that_does_not_read_delays_nobody(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    uint64_t some = 300;
    crew_error why;
    for (unsigned i = 1; i <= COUNT; i++)
        send_call("blob", "[20000]", i);
    assert_true(eventually(has_received, &some)); /* more than libzmq queues for it, and it reads nothing */
    for (int i = 0; i < 100; i++) {
        crew_result *result = NULL;
        assert_ok_why(crew_client_call(polite, "add", &result, &why, "[ii]", i, 2), why);
        crew_result_free(result);
    }
    assert_true(eventually(has_lost, NULL)); /* after send_timeout_ms, and counted */
}

static void a_peer_that_reads_slowly_gets_all_its_answers(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    uint64_t some = 150;
    crew_error why;
    bool answered[COUNT + 1] = { false };
    for (unsigned i = 1; i <= COUNT; i++)
        send_call("blob", "[4000]", i);
    assert_true(eventually(has_received, &some)); /* more than libzmq queues for it */
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned id = 0;
        if (i % 10 == 0) /* others are served between two of its answers */
            assert_ok_why(crew_client_call(polite, "add", NULL, &why, "[ii]", 1, 2), why);
        const char *text = strstr(greedy_answer(), "\"id\":");
        assert_non_null(text);
        assert_int_equal(sscanf(text, "\"id\":%u", &id), 1);
        assert_true(id >= 1 && id <= COUNT && !answered[id]);
        answered[id] = true;
    }
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.lost, 0);
}

static void requests_of_a_peer_that_is_held_back_are_bounded(void **state)
{
    (void)state;
    enum { MANY = 20000, BODY = 1000 };
    static const char head[] = "{\"jsonrpc\":\"2.0\",\"method\":\"blob\",\"params\":[20000],\"id\":1}";
    char body[BODY];
    unsigned sent = 0;
    void *held = connect_dealer(1); /* and it reads nothing */
    zmq_pollitem_t item = { .socket = held, .events = ZMQ_POLLOUT };
    memset(body, ' ', BODY);
    memcpy(body, head, sizeof head - 1);
    for (; sent < MANY && zmq_poll(&item, 1, 1000) == 1; sent++) {
        assert_int_equal(zmq_send(held, "", 0, ZMQ_SNDMORE), 0);
        assert_int_equal(zmq_send(held, body, BODY, 0), BODY);
    }
    assert_true(sent < MANY / 4); /* what is in flight, parked, in libzmq's queues and in the socket */
    assert_served();
    zmq_close(held);
}

/* Of a worker with room for one call. */
static void who_has_nothing_in_flight_is_taken_beside_a_call_that_has_all_the_room(void **state)
{
    (void)state;
    send_call("pass", "[]", 1);
    assert_true(gate_await(&gate, 1));
    send_call("pass", "[]", 2); /* is held back */
    assert_served();
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.in_flight, 1);
    assert_int_equal(stats.shed, 0);
    gate_open(&gate);
    for (unsigned i = 1; i <= 2; i++)
        assert_non_null(strstr(greedy_answer(), "\"result\":1"));
}

/* The answers to a peer that has gone find that out, once libzmq knows. */
static bool one_more_has_found_it(void *left)
{
    if (!atomic_load(&was_raised) && *(int *)left) {
        gate_let(&gate, 1);
        --*(int *)left;
    }
    return atomic_load(&was_raised) != 0;
}

static void a_peer_that_has_gone_is_told_to_its_calls(void **state)
{
    (void)state;
    atomic_store(&was_raised, 0);
    send_call("until_cancelled", "[]", 1);
    assert_true(gate_await(&gate, 1));
    gate_let(&gate, 1);
    for (unsigned i = 2; i <= 100; i++)
        send_call("pass", "[]", i);
    assert_true(gate_await(&gate, 4)); /* three of them run, the others wait */
    zmq_close(greedy);
    greedy = zmq_socket(context, ZMQ_DEALER);
    int left = 50;
    assert_true(eventually(one_more_has_found_it, &left));
    assert_int_equal(atomic_load(&was_raised), 1);
    gate_open(&gate);
    assert_served();
    crew_server_stop(server);
    assert_ok(crew_server_wait(server));
    assert_true(gate_entered(&gate) < 80); /* what had not begun was not run */
}

static void handlers_that_call_their_own_service_are_answered(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 4; i++)
        send_call("nested", "[]", i);
    assert_true(gate_await(&gate, 4)); /* they have all four threads */
    gate_open(&gate);
    for (unsigned i = 1; i <= 4; i++)
        assert_non_null(strstr(greedy_answer(), "\"result\":2"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
static char narrow[] = "?in_flight=1";

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(batches_of_one_peer_do_not_delay_another),
        TEST(a_peer_that_is_alone_is_held_back_and_never_refused),
        TEST(beside_others_a_flood_is_refused_and_they_are_served),
        TEST(a_peer_that_does_not_read_delays_nobody),
        TEST(a_peer_that_reads_slowly_gets_all_its_answers),
        TEST(requests_of_a_peer_that_is_held_back_are_bounded),
        cmocka_unit_test_prestate_setup_teardown(
            who_has_nothing_in_flight_is_taken_beside_a_call_that_has_all_the_room, setup, teardown, narrow),
        TEST(a_peer_that_has_gone_is_told_to_its_calls),
        TEST(handlers_that_call_their_own_service_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
