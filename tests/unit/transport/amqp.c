/* Workers and callers against a broker that does what a script says. */
#include "support/fake_broker.h"
#include "support/gate.h"
#include "support/test.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#define QUEUE "q"

static struct gate gate = GATE_INITIALIZER;
static struct fake_broker *broker;
static char url[200];
static crew_dispatcher *dispatcher;
static crew_server *server;
static crew_client *client;
static crew_error why;

static crew_status add(crew_call *call)
{
    return crew_reply_int(call, crew_arg_int(call, 0) + crew_arg_int(call, 1));
}

static crew_status pass(crew_call *call)
{
    gate_pass(&gate);
    return crew_reply_int(call, 1);
}

static atomic_int was_raised;

static crew_status until_cancelled(crew_call *call)
{
    struct pollfd fd = { .fd = crew_call_cancel_fd(call), .events = POLLIN };
    gate_pass(&gate);
    atomic_store(&was_raised, poll(&fd, 1, 20000) == 1 && crew_call_cancelled(call) ? 1 : -1);
    return crew_reply_null(call);
}

static const crew_method methods[] = {
    { "add", add, "a:int b:int" },
    { "pass", pass, "" },
    { "until_cancelled", until_cancelled, "" },
    { 0 },
};
static const crew_service service = { .name = "scripted", .methods = methods };

static int setup(void **state)
{
    (void)state;
    gate_reset(&gate);
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gate_open(&gate);
    crew_client_free(client);
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
    client = NULL;
    server = NULL;
    if (broker)
        fake_stop(broker);
    broker = NULL;
    return 0;
}

static void start_broker(const struct fake_options *options)
{
    broker = fake_start(options);
    (void)snprintf(url, sizeof url, "%s?queue=%s", fake_url(broker), QUEUE);
}

static void serve(const crew_server_options *options)
{
    assert_ok_why(crew_server_new(&server, dispatcher, options, &why), why);
    assert_ok_why(crew_server_listen(server, url, &why), why);
    assert_ok_why(crew_server_start(server, &why), why);
}

static void connect_client(void)
{
    assert_ok_why(crew_client_new(&client, url, NULL, &why), why);
}

/* A request that nobody waits for the answer of. */
static void put(const char *method, unsigned id)
{
    char body[100], correlation[20];
    (void)snprintf(body, sizeof body, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"id\":%u}", method, id);
    (void)snprintf(correlation, sizeof correlation, "%u", id);
    const amqp_basic_properties_t properties = { ._flags = AMQP_BASIC_REPLY_TO_FLAG |
                                                           AMQP_BASIC_CORRELATION_ID_FLAG,
                                                 .reply_to = amqp_cstring_bytes("answers"),
                                                 .correlation_id = amqp_cstring_bytes(correlation) };
    fake_put(broker, QUEUE, &properties, body);
}

static void drop(struct fake_connection *connection, void *context)
{
    (void)context;
    fake_drop(connection);
}

static void who_waits_for_a_token_is_told_of_a_lost_connection(void **state)
{
    (void)state;
    start_broker(NULL);
    atomic_store(&was_raised, 0);
    put("until_cancelled", 1);
    serve(NULL);
    assert_true(gate_await(&gate, 1));
    gate_let(&gate, 1);
    fake_each(broker, drop, NULL);
    assert_true(gate_await(&gate, 2)); /* the broker gives it out again, on the next connection */
    assert_int_equal(atomic_load(&was_raised), 1);
}

static bool block_at_the_ack(void *context, const struct fake_event *event)
{
    (void)context;
    amqp_connection_blocked_t blocked = { .reason = amqp_cstring_bytes("low on memory") };
    if (event->method == AMQP_BASIC_QOS_METHOD)
        fake_send(event->connection, 0, AMQP_CONNECTION_BLOCKED_METHOD, &blocked);
    return false;
}

static void *stop_twice(void *unused)
{
    (void)unused;
    crew_server_stop(server);
    crew_server_stop(server);
    return NULL;
}

static void a_second_stop_does_not_linger_over_an_alarm(void **state)
{
    (void)state;
    pthread_t thread;
    start_broker(&(struct fake_options){ .script = block_at_the_ack });
    put("add", 1);
    serve(&(crew_server_options){ .drain_ms = 600000 });
    assert_int_equal(pthread_create(&thread, NULL, stop_twice, NULL), 0);
    assert_status(crew_server_wait(server), CREW_TIMEOUT); /* else this would take ten minutes */
    pthread_join(thread, NULL);
}

static void what_works_with_a_broker_works_here(void **state)
{
    (void)state;
    crew_result *result;
    start_broker(NULL);
    serve(NULL);
    connect_client();
    assert_ok_why(crew_client_call(client, "add", &result, &why, "[ii]", 1, 2), why);
    crew_result_free(result);
    assert_ok_why(crew_client_notify(client, "add", &why, "[ii]", 1, 2), why);
    assert_true(fake_count(broker, AMQP_BASIC_PUBLISH_METHOD) >= 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_works_with_a_broker_works_here),
        TEST(who_waits_for_a_token_is_told_of_a_lost_connection),
        TEST(a_second_stop_does_not_linger_over_an_alarm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
