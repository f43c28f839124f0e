/* One client, several ZeroMQ workers, in its URL or connected to it: calls are balanced, a worker that is
 * down is left out. */
#include "support/gate.h"
#include "support/test.h"

#include <sched.h>
#include <stdatomic.h>
#include <zmq.h>

static struct gate gate = GATE_INITIALIZER;
static char addresses[3][100], all[400];
static char names[3] = { 'a', 'b', 'c' };
static crew_dispatcher *dispatchers[3];
static crew_server *servers[3];
static crew_client *client;

static crew_status who(crew_call *call)
{
    return crew_reply_string(call, (crew_string){ crew_call_context(call), 1 });
}

static crew_status pass(crew_call *call)
{
    gate_pass(&gate);
    return who(call);
}

/* At the first worker for as long as the gate is closed. */
static crew_status alone(crew_call *call)
{
    return *(const char *)crew_call_context(call) == 'a' ? pass(call) : who(call);
}

static const crew_method methods[] = {
    { "who", who, "" },
    { "pass", pass, "" },
    { "alone", alone, "", .max_concurrency = 1 },
    { 0 },
};
static const crew_service service = { .name = "test", .methods = methods };

static void serve(int i)
{
    crew_error why;
    assert_ok(crew_dispatcher_new(&dispatchers[i]));
    assert_ok(crew_dispatcher_add(dispatchers[i], "", &service, &names[i], NULL));
    assert_ok_why(crew_server_new(&servers[i], dispatchers[i], &(crew_server_options){ .threads = 16 }, &why),
                  why);
    assert_ok_why(crew_server_listen(servers[i], addresses[i], &why), why);
    assert_ok_why(crew_server_start(servers[i], &why), why);
}

static void end(int i, unsigned stops)
{
    if (!servers[i])
        return;
    gate_open(&gate);
    for (unsigned stop = 0; stop < stops; stop++)
        crew_server_stop(servers[i]);
    if (stops)
        (void)!crew_server_wait(servers[i]);
    crew_server_free(servers[i]);
    crew_dispatcher_free(dispatchers[i]);
    servers[i] = NULL;
}

static int setup(void **state)
{
    (void)state;
    gate_reset(&gate);
    (void)snprintf(all, sizeof all, "zmq+tcp://");
    for (int i = 0; i < 3; i++) {
        (void)snprintf(addresses[i], sizeof addresses[i], "%s", test_url("zmq+tcp://127.0.0.1:{port}"));
        (void)snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? "," : "",
                       addresses[i] + strlen("zmq+tcp://"));
    }
    serve(0);
    serve(1); /* the third is not there */
    assert_ok(crew_client_new(&client, all, &(crew_client_options){ .timeout_ms = 20000 }, NULL));
    return 0;
}

/* The client is bound, and knows the workers that connect to it. */
static int setup_known(void **state)
{
    (void)state;
    gate_reset(&gate);
    const char *url = test_url("zmq+tcp://127.0.0.1:{port}");
    (void)snprintf(all, sizeof all, "%s?mode=bind&peers=known", url);
    for (int i = 0; i < 3; i++)
        (void)snprintf(addresses[i], sizeof addresses[i], "%s?mode=connect&peers=known", url);
    serve(0);
    serve(1);
    assert_ok(crew_client_new(&client, all, &(crew_client_options){ .timeout_ms = 20000 }, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_client_free(client);
    for (int i = 0; i < 3; i++)
        end(i, 1);
    return 0;
}

/* Which worker answers; '?' if none does. */
static char answerer(void)
{
    crew_result *result;
    crew_error why;
    crew_string name;
    char got = '?';
    if (crew_client_call(client, "who", &result, &why, NULL) != CREW_OK)
        print_error("%s\n", why.message);
    else if (crew_value_string(crew_result_value(result), &name) == CREW_OK)
        got = name.data[0];
    crew_result_free(result);
    return got;
}

struct count {
    atomic_int of[128], lost;
};

static void note(void *context, crew_result *result, const crew_error *why)
{
    struct count *count = context;
    crew_string name;
    if (why->status == CREW_OK && crew_value_string(crew_result_value(result), &name) == CREW_OK)
        atomic_fetch_add(&count->of[(int)name.data[0]], 1);
    else if (why->status == CREW_DISCONNECTED)
        atomic_fetch_add(&count->lost, 1);
    crew_result_free(result);
}

static uint64_t in_flight(int i)
{
    crew_server_stats stats;
    crew_server_stats_get(servers[i], &stats);
    return stats.in_flight;
}

/* With one call held at a worker, the next goes to the other, if that is connected. */
static bool the_free_one_answers(void *context)
{
    (void)context;
    return answerer() == (in_flight(0) ? 'b' : 'a');
}

/* Waits until the client is connected to both, and leaves nothing outstanding. */
static void connect_both(void)
{
    struct count count = { 0 };
    gate_reset(&gate);
    assert_ok(crew_client_start(client, "pass", note, &count, NULL, NULL));
    assert_true(gate_await(&gate, 1));
    assert_true(eventually(the_free_one_answers, NULL));
    gate_open(&gate);
    while (!atomic_load(&count.of['a']) && !atomic_load(&count.of['b']))
        assert_true(answerer() != '?');
    gate_reset(&gate);
}

static bool ten_ended(void *context)
{
    struct count *count = context;
    return atomic_load(&count->of['a']) + atomic_load(&count->of['b']) + atomic_load(&count->of['c']) +
               atomic_load(&count->lost) ==
           10;
}

static bool five_lost(void *context)
{
    return atomic_load(&((struct count *)context)->lost) == 5;
}

static void start_ten(struct count *count, unsigned retry)
{
    const crew_call_options options = { .retry = retry };
    for (int i = 0; i < 10; i++)
        assert_ok(crew_client_start_value(client, "pass", NULL, &options, note, count, NULL, NULL));
}

static void calls_are_spread_by_how_many_are_outstanding(void **state)
{
    (void)state;
    struct count count = { 0 };
    connect_both();
    start_ten(&count, 0);
    assert_true(gate_await(&gate, 10));
    gate_open(&gate);
    assert_true(eventually(ten_ended, &count));
    assert_int_equal(atomic_load(&count.of['a']), 5);
    assert_int_equal(atomic_load(&count.of['b']), 5);
}

static void a_worker_that_goes_takes_only_its_own_calls_and_is_left_out(void **state)
{
    (void)state;
    struct count count = { 0 };
    connect_both();
    start_ten(&count, 0);
    assert_true(gate_await(&gate, 10));
    crew_server_stop(servers[0]);
    crew_server_stop(servers[0]);
    assert_status(crew_server_wait(servers[0]), CREW_TIMEOUT);
    assert_true(eventually(five_lost, &count));
    gate_open(&gate);
    assert_true(eventually(ten_ended, &count));
    assert_int_equal(atomic_load(&count.of['b']), 5);
    for (int i = 0; i < 20; i++)
        assert_int_equal(answerer(), 'b');
    end(0, 0);
    serve(0);
    connect_both(); /* it is back */
}

static void what_waits_goes_to_the_first_that_appears(void **state)
{
    (void)state;
    struct count count = { 0 };
    end(0, 1);
    end(1, 1);
    crew_client_free(client);
    assert_ok(crew_client_new(&client, all, NULL, NULL));
    gate_open(&gate);
    start_ten(&count, CREW_RETRY_NO_SERVICE);
    serve(2);
    assert_true(eventually(ten_ended, &count));
    assert_int_equal(atomic_load(&count.of['c']), 10);
}

static void who_may_know_its_peers_is_said(void **state)
{
    (void)state;
    static const char *const wrong[] = { "zmq+tcp://127.0.0.1:1?peers=known",
                                         "zmq+inproc://x?peers=known&mode=bind" };
    for (size_t i = 0; i < 2; i++) {
        crew_error why;
        crew_client *none = NULL;
        assert_status(crew_client_new(&none, wrong[i], NULL, &why), CREW_BAD_ARGUMENT);
        assert_contains(why.message, "peers=known wants mode=bind, over tcp or ipc");
    }
}

static void *greeter(void *context, const char *id)
{
    int yes = 1, none = 0;
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_ROUTING_ID, id, 1), 0);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_PROBE_ROUTER, &yes, sizeof yes), 0);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none), 0);
    return socket;
}

/* Takes a message, and gives it back as one with another body. */
static void pass_back(void *from, void *to, const char *body)
{
    enum { MOST = 4 };
    zmq_msg_t frames[MOST];
    size_t count = 0;
    do {
        assert_true(count < MOST);
        zmq_msg_init(&frames[count]);
        assert_true(zmq_msg_recv(&frames[count], from, 0) >= 0);
    } while (zmq_msg_more(&frames[count++]));
    for (size_t i = 0; i + 1 < count; i++)
        assert_true(zmq_msg_send(&frames[i], to, ZMQ_SNDMORE) >= 0);
    assert_true(zmq_send(to, body, strlen(body), 0) > 0);
    for (size_t i = 0; i < count; i++)
        zmq_msg_close(&frames[i]);
}

static bool one_is_stray(void *unused)
{
    (void)unused;
    crew_client_stats stats;
    crew_client_stats_get(client, &stats);
    return stats.stray_replies == 1;
}

/* Two workers without the library; the second answers what the first was asked. */
static void an_answer_of_another_worker_is_nobody_s(void **state)
{
    (void)state;
    static const char forged[] = "{\"jsonrpc\":\"2.0\",\"result\":\"x\",\"id\":1}",
                      right[] = "{\"jsonrpc\":\"2.0\",\"result\":\"r\",\"id\":1}";
    struct count count = { 0 };
    end(0, 1);
    end(1, 1);
    crew_client_free(client);
    assert_ok(crew_client_new(&client, all, &(crew_client_options){ .timeout_ms = 20000 }, NULL));
    char address[100];
    (void)snprintf(address, sizeof address, "%.*s", (int)strcspn(all + strlen("zmq+"), "?"),
                   all + strlen("zmq+"));
    void *context = zmq_ctx_new();
    void *workers[2] = { greeter(context, "1"), greeter(context, "2") };
    zmq_pollitem_t items[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(zmq_connect(workers[i], address), 0);
        items[i] = (zmq_pollitem_t){ .socket = workers[i], .events = ZMQ_POLLIN };
    }
    assert_ok(crew_client_start(client, "who", note, &count, NULL, NULL));
    assert_true(zmq_poll(items, 2, 20000) > 0);
    size_t asked = items[0].revents ? 0 : 1;
    /* The other knows the caller once it has been asked something itself. */
    struct count others = { 0 };
    zmq_pollitem_t other = { .socket = workers[1 - asked], .events = ZMQ_POLLIN };
    while (zmq_poll(&other, 1, 0) == 0)
        assert_ok(crew_client_start(client, "who", note, &others, NULL, NULL));
    pass_back(workers[1 - asked], workers[1 - asked], forged);
    assert_true(eventually(one_is_stray, NULL));
    assert_int_equal(atomic_load(&count.of['x']) + atomic_load(&count.of['r']), 0);
    pass_back(workers[asked], workers[asked], right);
    while (!atomic_load(&count.of['r']))
        sched_yield();
    crew_client_free(client);
    client = NULL;
    for (size_t i = 0; i < 2; i++)
        zmq_close(workers[i]);
    zmq_ctx_term(context);
}

static void ends_at_once(const char *url)
{
    crew_error why;
    crew_client_free(client);
    assert_ok(crew_client_new(&client, url, NULL, NULL));
    assert_status(crew_client_call(client, "who", NULL, &why, NULL), CREW_NO_SERVICE);
    assert_int_equal(why.executed, CREW_EXECUTED_NO);
    assert_true(why.elapsed_ms < 15000); /* of thirty seconds */
    assert_contains(why.message, "refused");
}

static void where_nobody_listens_a_call_ends_at_once(void **state)
{
    (void)state;
    ends_at_once(addresses[2]);
    crew_client_free(client);
    assert_ok(crew_client_new(&client, all, NULL, NULL));
    assert_int_not_equal(answerer(), '?'); /* one of several is enough */
    end(0, 1);
    end(1, 1);
    ends_at_once(all);
}

static void note_slowly(void *context, crew_result *result, const crew_error *why)
{
    for (volatile int spin = 0; spin < 100000; spin = spin + 1)
        continue;
    note(context, result, why);
}

static bool sixty_ended(void *context)
{
    struct count *count = context;
    return atomic_load(&count->of['c']) + atomic_load(&count->lost) == 60;
}

static void answers_that_have_arrived_count_although_the_worker_has_gone(void **state)
{
    (void)state;
    struct count count = { 0 };
    crew_client_free(client);
    end(0, 1);
    end(1, 1);
    serve(2);
    gate_reset(&gate);
    const char *url = strstr(all, "mode=bind") ? all : addresses[2];
    assert_ok(crew_client_new(&client, url, NULL, NULL));
    for (int i = 0; i < 60; i++)
        assert_ok(crew_client_start(client, "pass", note_slowly, &count, NULL, NULL));
    assert_true(gate_await(&gate, 16));
    while (in_flight(2) < 60)
        continue;
    end(2, 1);
    assert_true(eventually(sixty_ended, &count));
    assert_int_equal(atomic_load(&count.of['c']), 60);
}

static bool the_first_has_answered(void *context)
{
    struct count *count = context;
    return atomic_load(&count->of['a']) == 1;
}

/* Also over MessagePack, where no data says that it was shed. */
static void what_one_worker_has_no_room_for_another_gets(void **state)
{
    (void)state;
    static const char *const protocols[] = { "jsonrpc", "msgpack" };
    for (int i = 0; i < 2; i++) {
        struct count count = { 0 };
        crew_client *other;
        crew_error why;
        const crew_call_options once = { 0 }, again = { .retry = CREW_RETRY_OVERLOADED };
        const crew_client_options options = { .protocol = protocols[i], .timeout_ms = 20000 };
        gate_reset(&gate);
        assert_ok(crew_client_new(&other, addresses[0], NULL, NULL));
        assert_ok(crew_client_start(other, "alone", note, &count, NULL, NULL));
        assert_true(gate_await(&gate, 1)); /* the first is busy with somebody else's call */
        crew_client_free(client);
        assert_ok(crew_client_new(&client, addresses[0], &options, NULL));
        assert_status(crew_client_call_value(client, "alone", NULL, &once, NULL, &why), CREW_OVERLOADED);
        assert_int_equal(why.executed, CREW_EXECUTED_NO);
        crew_client_free(client);
        assert_ok(crew_client_new(&client, all, &options, NULL));
        for (int calls = 0; calls < 4; calls++) /* wherever they begin */
            assert_ok_why(crew_client_call_value(client, "alone", NULL, &again, NULL, &why), why);
        gate_open(&gate);
        assert_true(eventually(the_first_has_answered, &count));
        crew_client_free(other);
    }
}

#define KNOWN(name) cmocka_unit_test_setup_teardown(name, setup_known, teardown)
#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calls_are_spread_by_how_many_are_outstanding),
        TEST(a_worker_that_goes_takes_only_its_own_calls_and_is_left_out),
        TEST(where_nobody_listens_a_call_ends_at_once),
        TEST(what_waits_goes_to_the_first_that_appears),
        TEST(what_one_worker_has_no_room_for_another_gets),
        TEST(answers_that_have_arrived_count_although_the_worker_has_gone),
        cmocka_unit_test(who_may_know_its_peers_is_said),
        KNOWN(calls_are_spread_by_how_many_are_outstanding),
        KNOWN(a_worker_that_goes_takes_only_its_own_calls_and_is_left_out),
        KNOWN(answers_that_have_arrived_count_although_the_worker_has_gone),
        KNOWN(an_answer_of_another_worker_is_nobody_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
