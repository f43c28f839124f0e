/* What callers can rely on over every transport, from crew_client through crew_server: run as `calls URL
 * [PROTOCOL]`. */
#include "support/gate.h"
#include "support/raw.h"

#include "conformance/service.h"

#include <rpcrew/impl/transport.h>

#include <pthread.h>
#include <stdatomic.h>

static const char *pattern, *protocol;
static char url[1200];
static bool redelivers; /* a broker gives the requests of a worker that has gone to the next one */
static struct gate gate = GATE_INITIALIZER;
static crew_dispatcher *dispatcher;
static crew_server *server;
static crew_client *client;

static crew_status pass(crew_call *call)
{
    gate_pass(&gate);
    return crew_reply_null(call);
}

static const crew_method methods[] = { { "pass", pass, "" }, { 0 } };
static const crew_service service = { .name = "test", .methods = methods };

static void serve(void)
{
    crew_error why;
    assert_ok_why(crew_server_new(&server, dispatcher, &(crew_server_options){ .threads = 4 }, &why), why);
    assert_ok_why(crew_server_listen(server, url, &why), why);
    assert_ok_why(crew_server_start(server, &why), why);
}

static int setup(void **state)
{
    (void)state;
    crew_error why;
    gate_reset(&gate);
    (void)snprintf(url, sizeof url, "%s", test_url(pattern));
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, &why));
    assert_ok(crew_dispatcher_add(dispatcher, "", &conformance_service, NULL, &why));
    serve();
    assert_ok_why(crew_client_new(&client, url,
                                  &(crew_client_options){ .timeout_ms = 20000, .protocol = protocol }, &why),
                  why);
    return 0;
}

static void stop_all(void)
{
    crew_client_free(client);
    client = NULL;
    if (server) {
        crew_server_stop(server);
        assert_ok(crew_server_wait(server));
    }
    crew_server_free(server);
    server = NULL;
}

static int teardown(void **state)
{
    (void)state;
    gate_open(&gate);
    stop_all();
    crew_dispatcher_free(dispatcher);
    return 0;
}

static void a_call_returns_its_result(void **state)
{
    (void)state;
    crew_result *result;
    crew_error why;
    double difference;
    assert_ok_why(crew_client_call(client, "subtract", &result, &why, "[ii]", 42, 23), why);
    assert_ok(crew_unpack(crew_result_value(result), "f", &difference));
    assert_true(difference == 19);
    crew_result_free(result);
    assert_ok_why(
        crew_client_call(client, "subtract", &result, &why, "{s:i,s:i}", "subtrahend", 23, "minuend", 42),
        why);
    assert_ok(crew_unpack(crew_result_value(result), "f", &difference));
    assert_true(difference == 19);
    crew_result_free(result);
}

static void an_error_comes_with_code_message_and_data(void **state)
{
    (void)state;
    crew_result *result;
    crew_error why;
    int left;
    assert_status(
        crew_client_call(client, "fail", &result, &why, "[i,s,{s:i}]", 402, "not enough", "left", 3),
        CREW_REMOTE_ERROR);
    assert_int_equal(why.code, 402);
    assert_int_equal(why.executed, CREW_EXECUTED_YES);
    assert_contains(why.message, "fail at ");
    assert_contains(why.message, "not enough (code 402), after ");
    assert_null(crew_result_value(result));
    assert_ok(crew_unpack(crew_result_error_data(result), "{s:i}", "left", &left));
    assert_int_equal(left, 3);
    crew_result_free(result);
    assert_status(crew_client_call(client, "nobody", NULL, &why, NULL), CREW_REMOTE_ERROR);
    assert_int_equal(why.code, CREW_CODE_METHOD_NOT_FOUND);
    assert_int_equal(why.executed, CREW_EXECUTED_NO);
    assert_status(crew_client_call(client, "add", NULL, &why, "[i]", 1), CREW_REMOTE_ERROR);
    assert_contains(why.message, "param 'b' is missing");
    assert_int_equal(why.executed, CREW_EXECUTED_NO);
}

static bool counted(void *expected)
{
    crew_result *result;
    int64_t count = -1;
    if (crew_client_call(client, "count", &result, NULL, NULL) == CREW_OK)
        (void)!crew_unpack(crew_result_value(result), "I", &count);
    crew_result_free(result);
    return count == *(int64_t *)expected;
}

static void notifications_arrive(void **state)
{
    (void)state;
    crew_result *result;
    crew_error why;
    int64_t before;
    assert_ok(crew_client_call(client, "count", &result, NULL, NULL));
    assert_ok(crew_unpack(crew_result_value(result), "I", &before));
    crew_result_free(result);
    for (int i = 0; i < 20; i++)
        assert_ok_why(crew_client_notify(client, "update", &why, "[i]", i), why);
    before += 20;
    assert_true(eventually(counted, &before));
}

enum { THREADS = 8, EACH = 250 };

static void *call_many(void *argument)
{
    int base = *(int *)argument;
    for (int i = 0; i < EACH; i++) {
        crew_result *result;
        int sum = 0;
        if (crew_client_call(client, "add", &result, NULL, "[ii]", base, i) != CREW_OK ||
            crew_unpack(crew_result_value(result), "i", &sum) != CREW_OK || sum != base + i)
            return argument;
        crew_result_free(result);
    }
    return NULL;
}

static void many_threads_share_a_client(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    int bases[THREADS];
    for (int i = 0; i < THREADS; i++) {
        bases[i] = i * 100000;
        assert_int_equal(pthread_create(&threads[i], NULL, call_many, &bases[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
}

static void a_batch_has_its_results_in_order(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    crew_batch *batch;
    crew_error why;
    assert_ok(crew_batch_new(&batch, client));
    for (int i = 0; i < MANY; i++)
        assert_ok(i == 500 ? crew_batch_add(batch, "fail", "[is]", 5, "five")
                           : crew_batch_add(batch, "echo", "[i]", i));
    assert_status(crew_batch_run(batch, &why), CREW_REMOTE_ERROR);
    assert_int_equal(why.code, 5);
    assert_int_equal(crew_batch_count(batch), MANY);
    for (int i = 0; i < MANY; i++) {
        int got = -1;
        assert_status(crew_batch_status(batch, (size_t)i), i == 500 ? CREW_REMOTE_ERROR : CREW_OK);
        if (i != 500)
            assert_ok(crew_unpack(crew_batch_value(batch, (size_t)i), "i", &got));
        assert_int_equal(got, i == 500 ? -1 : i);
    }
    assert_int_equal(crew_batch_error(batch, 500)->code, 5);
    crew_batch_free(batch);
}

static void a_batch_runs_with_room_for_one_call(void **state)
{
    (void)state;
    enum { MANY = 500 };
    char narrow[1220];
    crew_batch *batch;
    crew_error why;
    crew_client_free(client);
    (void)snprintf(narrow, sizeof narrow, "%s%cin_flight=1", url, strchr(url, '?') ? '&' : '?');
    assert_ok_why(crew_client_new(&client, narrow, NULL, &why), why);
    assert_ok(crew_batch_new(&batch, client));
    for (int i = 0; i < MANY; i++)
        assert_ok(crew_batch_add(batch, "echo", "[i]", i));
    assert_ok_why(crew_batch_run(batch, &why), why);
    crew_batch_free(batch);
}

struct outcome {
    atomic_int times;
    atomic_int status;
};

static void note_outcome(void *context, crew_result *result, const crew_error *why)
{
    struct outcome *outcome = context;
    atomic_store(&outcome->status, (int)why->status);
    atomic_fetch_add(&outcome->times, 1);
    crew_result_free(result);
}

static bool has_ended(void *outcome)
{
    return atomic_load(&((struct outcome *)outcome)->times) > 0;
}

static void a_large_result_comes_whole(void **state)
{
    (void)state;
    crew_result *result;
    crew_string blob;
    assert_ok(crew_client_call(client, "blob", &result, NULL, "[i]", 3 << 20));
    assert_ok(crew_unpack(crew_result_value(result), "S", &blob));
    assert_int_equal(blob.size, 3 << 20);
    crew_result_free(result);
}

static void a_call_ends_at_its_deadline(void **state)
{
    (void)state;
    crew_error why;
    crew_call_options brief = { .timeout_ms = 1000 };
    assert_ok_why(crew_client_call(client, "get_data", NULL, &why, NULL), why); /* connected by now */
    assert_status(crew_client_call_value(client, "pass", NULL, &brief, NULL, &why), CREW_TIMEOUT);
    assert_int_equal(why.executed, CREW_EXECUTED_UNKNOWN);
    gate_open(&gate);
    assert_ok_why(crew_client_call(client, "get_data", NULL, &why, NULL), why);
}

static void calls_to_a_worker_that_does_not_read_end_at_their_deadlines(void **state)
{
    (void)state;
    struct raw_end deaf;
    enum { COUNT = 300 };
    static struct outcome outcomes[COUNT];
    crew_error why;
    crew_client_free(client);
    crew_server_free(server);
    server = NULL;
    raw_open(&deaf, url, true); /* and is not driven */
    const crew_client_options options = { .timeout_ms = 1500, .protocol = protocol };
    assert_ok_why(crew_client_new(&client, url, &options, &why), why);
    for (int i = 0; i < COUNT; i++) {
        atomic_store(&outcomes[i].times, 0);
        assert_ok_why(crew_client_start(client, "subtract", note_outcome, &outcomes[i], &why, "[ii]", 1, 2),
                      why);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_true(eventually(has_ended, &outcomes[i]));
        int status = atomic_load(&outcomes[i].status);
        assert_true(status == CREW_TIMEOUT || status == CREW_EXPIRED || status == CREW_NO_SERVICE);
    }
    raw_close(&deaf, NULL);
}

static void a_late_answer_is_given_to_nobody(void **state)
{
    (void)state;
    crew_error why;
    crew_client_stats stats = { 0 };
    crew_call_options brief = { .timeout_ms = 1000 };
    assert_ok_why(crew_client_call(client, "get_data", NULL, &why, NULL), why); /* connected by now */
    assert_status(crew_client_call_value(client, "pass", NULL, &brief, NULL, &why), CREW_TIMEOUT);
    gate_open(&gate);
    for (int i = 0; i < 2000 && stats.stray_replies == 0; i++) {
        crew_result *result;
        int got = -1;
        assert_ok_why(crew_client_call(client, "echo", &result, &why, "[i]", i), why);
        assert_ok(crew_unpack(crew_result_value(result), "i", &got));
        assert_int_equal(got, i);
        crew_result_free(result);
        crew_client_stats_get(client, &stats);
    }
    assert_int_equal(stats.stray_replies, 1);
    assert_int_equal(stats.outstanding, 0);
}

static void a_cancelled_call_ends_as_that_once(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    uint32_t id = 0;
    assert_ok(crew_client_start_value(client, "pass", NULL, NULL, note_outcome, &outcome, &id, NULL));
    assert_true(gate_await(&gate, 1));
    assert_ok(crew_client_cancel(client, id));
    assert_status(crew_client_cancel(client, id), CREW_NOT_FOUND);
    assert_true(eventually(has_ended, &outcome));
    gate_open(&gate);
    assert_ok(crew_client_call(client, "get_data", NULL, NULL, NULL));
    assert_int_equal(atomic_load(&outcome.status), CREW_CANCELLED);
    assert_int_equal(atomic_load(&outcome.times), 1);
}

static void cancel_and_answer_race_and_one_wins(void **state)
{
    (void)state;
    gate_open(&gate);
    for (int i = 0; i < 300; i++) {
        struct outcome outcome = { 0 };
        uint32_t id = 0;
        assert_ok(crew_client_start_value(client, "get_data", NULL, NULL, note_outcome, &outcome, &id, NULL));
        for (volatile int spin = 0; spin < i * 40; spin = spin + 1)
            continue;
        crew_status cancelled = crew_client_cancel(client, id);
        assert_true(eventually(has_ended, &outcome));
        assert_int_equal(atomic_load(&outcome.times), 1);
        assert_int_equal(atomic_load(&outcome.status), cancelled == CREW_OK ? CREW_CANCELLED : CREW_OK);
    }
}

static void freeing_the_client_cancels_what_is_outstanding(void **state)
{
    (void)state;
    struct outcome outcomes[10] = { { 0 } };
    for (int i = 0; i < 10; i++)
        assert_ok(crew_client_start(client, "pass", note_outcome, &outcomes[i], NULL, NULL));
    assert_true(gate_await(&gate, 4));
    crew_client_free(client);
    client = NULL;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(atomic_load(&outcomes[i].times), 1);
        assert_int_equal(atomic_load(&outcomes[i].status), CREW_CANCELLED);
    }
}

static void a_result_may_outlive_its_client(void **state)
{
    (void)state;
    crew_result *result;
    const char *text;
    assert_ok(crew_client_call(client, "echo", &result, NULL, "[s]", "kept"));
    crew_client_free(client);
    client = NULL;
    assert_ok(crew_unpack(crew_result_value(result), "s", &text));
    assert_string_equal(text, "kept");
    crew_result_free(result);
}

static void a_service_that_leaves_with_calls_unanswered_ends_them(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    assert_ok(crew_client_start(client, "pass", note_outcome, &outcome, NULL, NULL));
    assert_true(gate_await(&gate, 1));
    crew_server_stop(server);
    crew_server_stop(server); /* now */
    assert_status(crew_server_wait(server), CREW_TIMEOUT);
    if (!redelivers)
        assert_true(eventually(has_ended, &outcome));
    gate_open(&gate);
    crew_server_free(server);
    serve();
    assert_true(eventually(has_ended, &outcome));
    assert_int_equal(atomic_load(&outcome.status), redelivers ? CREW_OK : CREW_DISCONNECTED);
    crew_call_options patient = { .retry = CREW_RETRY_NO_SERVICE };
    crew_error why;
    assert_ok_why(crew_client_call_value(client, "get_data", NULL, &patient, NULL, &why), why);
}

static void an_idempotent_call_is_sent_again_to_the_next_service(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    crew_call_options again = { .idempotent = true, .retry = CREW_RETRY_NO_SERVICE };
    assert_ok(crew_client_start_value(client, "pass", NULL, &again, note_outcome, &outcome, NULL, NULL));
    assert_true(gate_await(&gate, 1));
    crew_server_stop(server);
    crew_server_stop(server);
    assert_status(crew_server_wait(server), CREW_TIMEOUT);
    gate_open(&gate);
    crew_server_free(server);
    serve();
    assert_true(eventually(has_ended, &outcome));
    assert_int_equal(atomic_load(&outcome.status), CREW_OK);
    assert_int_equal(gate_entered(&gate), 2);
}

static bool was_tried_again(void *context)
{
    (void)context;
    crew_client_stats stats;
    crew_client_stats_get(client, &stats);
    return stats.retried >= 4;
}

static void what_waits_for_a_service_reaches_it_when_it_comes(void **state)
{
    (void)state;
    struct outcome call = { 0 }, note = { 0 };
    crew_call_options patient = { .retry = CREW_RETRY_NO_SERVICE },
                      one_way = { .retry = CREW_RETRY_NO_SERVICE, .one_way = true };
    stop_all();
    (void)snprintf(url, sizeof url, "%s", test_url(pattern));
    assert_ok(crew_client_new(&client, url, &(crew_client_options){ .protocol = protocol }, NULL));
    assert_ok(crew_client_start_value(client, "get_data", NULL, &patient, note_outcome, &call, NULL, NULL));
    assert_ok(crew_client_start_value(client, "update", NULL, &one_way, note_outcome, &note, NULL, NULL));
    if (redelivers) /* elsewhere they may wait without being written */
        assert_true(eventually(was_tried_again, NULL));
    serve();
    assert_true(eventually(has_ended, &call));
    assert_true(eventually(has_ended, &note));
    assert_int_equal(atomic_load(&call.status), CREW_OK);
    assert_int_equal(atomic_load(&note.status), CREW_OK);
}

static void without_a_service_a_call_is_told_so(void **state)
{
    (void)state;
    crew_error why;
    crew_call_options brief = { .timeout_ms = 300 };
    stop_all();
    assert_ok_why(
        crew_client_new(&client, test_url(pattern), &(crew_client_options){ .protocol = protocol }, &why),
        why);
    assert_status(crew_client_call_value(client, "get_data", NULL, &brief, NULL, &why), CREW_NO_SERVICE);
    assert_int_equal(why.executed, CREW_EXECUTED_NO);
    assert_status(crew_client_notify_value(client, "update", NULL, &brief, &why), CREW_NO_SERVICE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_call_returns_its_result),
        TEST(an_error_comes_with_code_message_and_data),
        TEST(notifications_arrive),
        TEST(many_threads_share_a_client),
        TEST(a_batch_has_its_results_in_order),
        TEST(a_batch_runs_with_room_for_one_call),
        TEST(a_large_result_comes_whole),
        TEST(a_call_ends_at_its_deadline),
        TEST(calls_to_a_worker_that_does_not_read_end_at_their_deadlines),
        TEST(a_late_answer_is_given_to_nobody),
        TEST(a_cancelled_call_ends_as_that_once),
        TEST(cancel_and_answer_race_and_one_wins),
        TEST(freeing_the_client_cancels_what_is_outstanding),
        TEST(a_result_may_outlive_its_client),
        TEST(a_service_that_leaves_with_calls_unanswered_ends_them),
        TEST(an_idempotent_call_is_sent_again_to_the_next_service),
        TEST(what_waits_for_a_service_reaches_it_when_it_comes),
        TEST(without_a_service_a_call_is_told_so),
    };
    if (argc < 2)
        return 2;
    pattern = argv[1];
    protocol = argc > 2 ? argv[2] : NULL;
    crew_url *parsed = NULL;
    assert_ok(crew_url_parse(test_url(pattern), &parsed, NULL));
    redelivers = crew_transport_find(crew_url_scheme(parsed))->redelivers;
    crew_url_free(parsed);
    return cmocka_run_group_tests_name(pattern, tests, NULL, NULL);
}
