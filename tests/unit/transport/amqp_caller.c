/* A caller, and both ends, against a broker that does what a script says. */
#include "support/scripted.h"

struct refusals {
    uint64_t published; /* on this connection */
    uint64_t most;      /* so many are refused, none: all */
};

static bool nack(void *context, const struct fake_event *event)
{
    if (event->method != AMQP_BASIC_PUBLISH_METHOD)
        return false;
    struct refusals *refusals = context;
    uint64_t tag = ++refusals->published;
    amqp_basic_nack_t refused = { .delivery_tag = tag };
    amqp_basic_ack_t taken = { .delivery_tag = tag };
    if (refusals->most && tag > refusals->most)
        fake_send(event->connection, event->channel, AMQP_BASIC_ACK_METHOD, &taken);
    else
        fake_send(event->connection, event->channel, AMQP_BASIC_NACK_METHOD, &refused);
    return true;
}

static void a_nack_says_not_executed_only_of_a_single_queue(void **state)
{
    (void)state;
    struct refusals refusals = { 0 };
    start_broker(&(struct fake_options){ .script = nack, .context = &refusals });
    connect_client();
    assert_status(crew_client_notify(client, "add", &why, NULL), CREW_OVERLOADED);
    assert_int_equal(why.executed, CREW_EXECUTED_NO);
    assert_contains(why.message, "refused");
    crew_client_free(client);
    refusals = (struct refusals){ .most = 3 };
    (void)snprintf(url, sizeof url, "%s?exchange=several&routing_key=k", fake_url(broker));
    connect_client();
    const crew_call_options retry = { .retry = CREW_RETRY_OVERLOADED };
    assert_status(crew_client_notify_value(client, "add", NULL, &retry, &why), CREW_OVERLOADED);
    assert_int_equal(why.executed, CREW_EXECUTED_UNKNOWN);
    crew_client_stats stats;
    crew_client_stats_get(client, &stats);
    assert_int_equal(stats.retried, 0);
    const crew_call_options again = { .retry = CREW_RETRY_OVERLOADED,
                                      .idempotent = true,
                                      .timeout_ms = 20000 };
    assert_ok_why(crew_client_notify_value(client, "add", NULL, &again, &why), why);
    crew_client_stats_get(client, &stats);
    assert_int_equal(stats.retried, 2);
}

/* ---- what is too large for the broker ---- */

enum { BROKER_MOST = 20000 };

static void note_end(void *context, crew_result *result, const crew_error *error)
{
    atomic_store((atomic_int *)context, (int)error->status + 1);
    crew_result_free(result);
}

static bool has_ended(void *status)
{
    return atomic_load((atomic_int *)status) != 0;
}

static crew_status call_with(const char *method, size_t size, crew_result **result)
{
    crew_arena *arena;
    const crew_value *params;
    char *text = calloc(1, size + 1);
    memset(text, 'x', size);
    assert_ok(crew_arena_new(&arena));
    assert_ok(crew_pack(arena, &params, "[s]", text));
    const crew_call_options options = { .idempotent = true, .timeout_ms = 20000 };
    crew_status status = crew_client_call_value(client, method, params, &options, result, &why);
    crew_arena_free(arena);
    free(text);
    return status;
}

static bool has_closed_a_channel(void *unused)
{
    (void)unused;
    return fake_count(broker, AMQP_CHANNEL_CLOSE_OK_METHOD) > 0;
}

static void a_request_that_is_too_large_costs_only_itself(void **state)
{
    (void)state;
    static atomic_int other;
    atomic_store(&other, 0);
    start_broker(&(struct fake_options){ .max_message_size = BROKER_MOST });
    serve(NULL);
    connect_client();
    assert_ok_why(crew_client_start(client, "pass", note_end, &other, &why, NULL), why);
    assert_true(gate_await(&gate, 1));
    for (int times = 0; times < 3; times++) {
        assert_status(call_with("echo", BROKER_MOST, NULL), CREW_LIMIT);
        assert_int_equal(why.executed, CREW_EXECUTED_NO);
        assert_contains(why.message, "configured max size 20000");
    }
    assert_true(eventually(has_closed_a_channel, NULL));
    assert_int_equal(fake_count(broker, AMQP_CHANNEL_CLOSE_OK_METHOD),
                     1); /* from then on the limit is known */
    assert_int_equal(fake_count(broker, AMQP_CONNECTION_OPEN_METHOD), 2);
    assert_ok_why(call_with("echo", BROKER_MOST / 2, NULL), why);
    gate_open(&gate);
    assert_true(eventually(has_ended, &other));
    assert_int_equal(atomic_load(&other), CREW_OK + 1);
    crew_client_stats stats;
    crew_client_stats_get(client, &stats);
    assert_int_equal(stats.resent, 0);
}

/* Direct replies come over the channel that asked, also over that of a size which is new to the caller. */
static void direct_replies_come_to_requests_of_any_size(void **state)
{
    (void)state;
    static atomic_int other;
    atomic_store(&other, 0);
    start_broker(&(struct fake_options){ .max_message_size = BROKER_MOST });
    serve(NULL);
    (void)snprintf(url + strlen(url), sizeof url - strlen(url), "&reply=direct");
    connect_client();
    for (size_t size = 100; size < BROKER_MOST - 1000; size *= 3) {
        crew_result *result;
        assert_ok_why(call_with("echo", size, &result), why);
        crew_string echoed;
        assert_ok(crew_value_string(crew_result_value(result), &echoed));
        assert_int_equal(echoed.size, size);
        crew_result_free(result);
    }
    unsigned connections = fake_count(broker, AMQP_CONNECTION_OPEN_METHOD);
    assert_ok_why(crew_client_start(client, "pass", note_end, &other, &why, NULL), why);
    assert_true(gate_await(&gate, 1));
    assert_status(call_with("echo", BROKER_MOST, NULL), CREW_LIMIT); /* which costs nothing else: */
    assert_status(call_with("nobody", BROKER_MOST - 500, NULL), CREW_REMOTE_ERROR); /* no answer is lost, */
    gate_open(&gate);
    assert_true(eventually(has_ended, &other));
    assert_int_equal(atomic_load(&other), CREW_OK + 1);
    assert_int_equal(fake_count(broker, AMQP_CONNECTION_OPEN_METHOD), connections); /* nor a connection */
}

/* The answers that were to come over it are lost with the channel: their calls end at once, and no other. */
static void with_the_channel_of_a_size_its_answers_are_lost(void **state)
{
    (void)state;
    static atomic_int other, small;
    static const char padded[] = "{\"padding\":\"%0900d\"}";
    char text[1000];
    crew_arena *arena;
    const crew_value *params;
    atomic_store(&other, 0);
    atomic_store(&small, 0);
    start_broker(&(struct fake_options){ .max_message_size = BROKER_MOST });
    serve(NULL);
    (void)snprintf(url + strlen(url), sizeof url - strlen(url), "&reply=direct");
    connect_client();
    assert_ok_why(crew_client_start(client, "pass", note_end, &small, &why, NULL), why);
    (void)snprintf(text, sizeof text, padded, 0);
    assert_ok(crew_arena_new(&arena));
    assert_ok(crew_pack(arena, &params, "[s]", text));
    assert_ok_why(crew_client_start_value(client, "pass", params, NULL, note_end, &other, NULL, &why), why);
    assert_true(gate_await(&gate, 2));
    assert_status(call_with("echo", BROKER_MOST, NULL), CREW_LIMIT);
    assert_int_equal(why.executed, CREW_EXECUTED_NO);
    assert_true(eventually(has_ended, &other));
    assert_int_equal(atomic_load(&other), CREW_DISCONNECTED + 1);
    assert_ok_why(call_with("echo", BROKER_MOST / 2, NULL), why); /* over a new one */
    assert_status(call_with("echo", BROKER_MOST, NULL), CREW_LIMIT);
    assert_int_equal(fake_count(broker, AMQP_CHANNEL_CLOSE_OK_METHOD), 1); /* the limit is known */
    assert_int_equal(atomic_load(&small), 0);
    gate_open(&gate);
    assert_true(eventually(has_ended, &small));
    assert_int_equal(atomic_load(&small), CREW_OK + 1);
    crew_arena_free(arena);
}

static void an_answer_that_is_too_large_is_an_error_once(void **state)
{
    (void)state;
    static atomic_int other;
    atomic_store(&other, 0);
    start_broker(&(struct fake_options){ .max_message_size = BROKER_MOST });
    serve(NULL);
    connect_client();
    assert_ok_why(crew_client_start(client, "pass", note_end, &other, &why, NULL), why);
    assert_true(gate_await(&gate, 1));
    for (int times = 0; times < 3; times++) {
        crew_result *result;
        crew_string reason;
        assert_status(call_with("thrice", BROKER_MOST / 2, &result), CREW_REMOTE_ERROR);
        assert_int_equal(why.code, CREW_CODE_INTERNAL_ERROR);
        assert_int_equal(why.executed, CREW_EXECUTED_YES);
        assert_ok(crew_value_string(
            crew_value_get(crew_value_get(crew_result_error_data(result), "rpcrew"), "reason"), &reason));
        assert_true(crew_string_equal(reason, crew_str("too_large")));
        crew_result_free(result);
    }
    gate_open(&gate);
    assert_true(eventually(has_ended, &other));
    assert_int_equal(atomic_load(&other), CREW_OK + 1);
    assert_true(eventually(is_empty, NULL));
    assert_int_equal(fake_count(broker, AMQP_CHANNEL_CLOSE_OK_METHOD), 1);
    assert_int_equal(fake_count(broker, AMQP_CONNECTION_OPEN_METHOD), 2);
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.redelivered, 0);
}

static void with_one_channel_all_goes_over_it(void **state)
{
    (void)state;
    for (unsigned channels = 1; channels <= 3; channels++) {
        start_broker(&(struct fake_options){ .channel_max = channels });
        serve(NULL);
        connect_client();
        assert_ok_why(call_with("echo", BROKER_MOST, NULL), why);
        assert_ok_why(crew_client_notify(client, "add", &why, "[ii]", 1, 2), why);
        const crew_call_options brief = { .timeout_ms = 300 }; /* so that the queue is asked after */
        assert_status(crew_client_call_value(client, "pass", NULL, &brief, NULL, &why), CREW_TIMEOUT);
        gate_open(&gate);
        assert_ok_why(call_with("echo", 1, NULL), why);
        assert_int_equal(fake_count(broker, AMQP_CONNECTION_OPEN_METHOD), 2);
        crew_client_free(client);
        crew_server_free(server);
        fake_stop(broker);
        client = NULL;
        server = NULL;
        broker = NULL;
        gate_reset(&gate);
    }
}

static bool has_tried_thrice(void *unused)
{
    (void)unused;
    return fake_count(broker, AMQP_BASIC_PUBLISH_METHOD) >= 4; /* the first is of the call without retries */
}

static void *serve_in_the_end(void *unused)
{
    (void)unused;
    if (eventually(has_tried_thrice, NULL))
        put("add", 1); /* makes the queue */
    return NULL;
}

static void a_large_note_that_nobody_takes_is_not_confirmed(void **state)
{
    (void)state;
    crew_arena *arena;
    const crew_value *params;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    start_broker(NULL);
    connect_client();
    assert_ok(crew_arena_new(&arena));
    assert_ok(crew_pack(arena, &params, "[s]", text));
    const crew_call_options once = { 0 }, again = { .retry = CREW_RETRY_NO_SERVICE, .timeout_ms = 20000 };
    assert_status(crew_client_notify_value(client, "x", params, &once, &why), CREW_NO_SERVICE);
    pthread_t later;
    assert_int_equal(pthread_create(&later, NULL, serve_in_the_end, NULL), 0);
    crew_status status = crew_client_notify_value(client, "x", params, &again, &why);
    pthread_join(later, NULL);
    assert_ok_why(status, why);
    crew_arena_free(arena);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_works_with_a_broker_works_here),
        TEST(a_nack_says_not_executed_only_of_a_single_queue),
        TEST(a_request_that_is_too_large_costs_only_itself),
        TEST(direct_replies_come_to_requests_of_any_size),
        TEST(with_the_channel_of_a_size_its_answers_are_lost),
        TEST(an_answer_that_is_too_large_is_an_error_once),
        TEST(with_one_channel_all_goes_over_it),
        TEST(a_large_note_that_nobody_takes_is_not_confirmed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
