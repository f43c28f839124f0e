/* The client against a service that does as the test says: raw messages over inproc. */
#include "support/raw.h"

#include <pthread.h>
#include <stdatomic.h>

#define URL "inproc://client"

static struct raw_end service;
static crew_client *client;
static crew_error why;

struct outcome {
    atomic_int times, status;
    bool had_result;
    crew_error why;
};

static void note_outcome(void *context, crew_result *result, const crew_error *error)
{
    struct outcome *outcome = context;
    outcome->why = *error;
    outcome->had_result = result != NULL;
    atomic_store(&outcome->status, (int)error->status);
    atomic_fetch_add(&outcome->times, 1);
    crew_result_free(result);
}

static bool has_ended(void *outcome)
{
    return atomic_load(&((struct outcome *)outcome)->times) > 0;
}

static int setup(void **state)
{
    (void)state;
    raw_open(&service, URL, true);
    assert_ok_why(crew_client_new(&client, URL, NULL, &why), why);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_client_free(client);
    client = NULL;
    raw_close(&service, NULL);
    return 0;
}

static crew_message *started(struct outcome *outcome, const crew_call_options *options)
{
    assert_ok(crew_client_start_value(client, "m", NULL, options, note_outcome, outcome, NULL, NULL));
    return raw_next(&service);
}

static void ended(struct outcome *outcome, crew_status status)
{
    assert_true(eventually(has_ended, outcome));
    assert_status((crew_status)atomic_load(&outcome->status), status);
    assert_int_equal(atomic_load(&outcome->times), 1);
}

static crew_client_stats stats(void)
{
    crew_client_stats s;
    crew_client_stats_get(client, &s);
    return s;
}

static bool one_stray(void *context)
{
    (void)context;
    return stats().stray_replies == 1;
}

static void a_request_is_these_bytes(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    crew_message *request = started(&outcome, NULL);
    assert_string_equal(request->content_type, "application/json");
    crew_buffer_append(&request->body, "", 1);
    assert_string_equal(request->body.data, "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":1}");
    raw_settle(&service, request, CREW_SETTLE_REPLY, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}");
    ended(&outcome, CREW_OK);
}

static void answers_that_break_the_protocol_are_bad_replies(void **state)
{
    (void)state;
    static const char *const rubbish[] = {
        "rubbish",
        "{}",
        "[]x",
        "{\"jsonrpc\":\"2.0\",\"result\":1,\"error\":{\"code\":1,\"message\":\"\"},\"id\":%u}",
        "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":4000000000}",
        "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":\"%u\"}",
        "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":null}",
        "{\"jsonrpc\":\"2.0\",\"result\":[[[[[[[[[[1]]]]]]]]]],\"id\":%u}",
    };
    crew_client_free(client);
    assert_ok(crew_client_new(&client, URL, &(crew_client_options){ .limits = { .depth = 5 } }, NULL));
    for (size_t i = 0; i < sizeof rubbish / sizeof *rubbish; i++) {
        struct outcome outcome = { 0 };
        crew_message *request = started(&outcome, NULL);
        const char *place = strstr(rubbish[i], "%u");
        char text[200];
        (void)snprintf(text, sizeof text, "%.*s", (int)(place ? place - rubbish[i] : 199), rubbish[i]);
        if (place)
            (void)snprintf(text + strlen(text), 100, "%zu%s", i + 1, place + 2);
        raw_settle(&service, request, CREW_SETTLE_REPLY, text);
        ended(&outcome, CREW_BAD_REPLY);
        assert_int_equal(outcome.why.executed, CREW_EXECUTED_UNKNOWN);
    }
    assert_int_equal(stats().bad_replies, sizeof rubbish / sizeof *rubbish);
}

static void an_enormous_answer_is_a_bad_reply(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    crew_client_free(client);
    assert_ok(crew_client_new(&client, URL "?max_bytes=50", NULL, NULL));
    crew_message *request = started(&outcome, NULL);
    raw_settle(&service, request, CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"result\":\"12345678901234567890\",\"id\":1}");
    ended(&outcome, CREW_BAD_REPLY);
    assert_contains(outcome.why.message, "more than 50 bytes");
}

static void a_null_id_error_settles_the_call_it_answers(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    raw_settle(&service, started(&outcome, NULL), CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"Parse error\"},\"id\":null}");
    ended(&outcome, CREW_REMOTE_ERROR);
    assert_int_equal(outcome.why.executed, CREW_EXECUTED_NO);
}

static void the_worker_s_word_on_execution_is_believed(void **state)
{
    (void)state;
    static const struct {
        const char *error;
        crew_status status;
        crew_executed executed;
        const char *name;
    } cases[] = {
        { "{\"code\":5,\"message\":\"no \\\"more\\\"\"}", CREW_REMOTE_ERROR, CREW_EXECUTED_YES },
        { "{\"code\":-32602,\"message\":\"no \\\"more\\\"\"}", CREW_REMOTE_ERROR, CREW_EXECUTED_NO },
        { "{\"code\":-32000,\"message\":\"no \\\"more\\\"\"}", CREW_REMOTE_ERROR, CREW_EXECUTED_UNKNOWN },
        { "{\"code\":-32603,\"message\":\"no \\\"more\\\"\"}", CREW_REMOTE_ERROR, CREW_EXECUTED_UNKNOWN },
        { "{\"code\":-32040,\"message\":\"no \\\"more\\\"\"}", CREW_OVERLOADED, CREW_EXECUTED_NO },
        { "{\"code\":-32041,\"message\":\"no \\\"more\\\"\"}", CREW_REMOTE_ERROR, CREW_EXECUTED_UNKNOWN },
        { "{\"code\":-32043,\"message\":\"no \\\"more\\\"\"}", CREW_REMOTE_ERROR, CREW_EXECUTED_UNKNOWN },
        { "{\"code\":-32045,\"message\":\"no \\\"more\\\"\"}", CREW_REMOTE_ERROR, CREW_EXECUTED_NO },
        { "{\"code\":-32040,\"message\":\"no \\\"more\\\"\",\"data\":{\"rpcrew\":{\"executed\":\"no\"}}}",
          CREW_OVERLOADED, CREW_EXECUTED_NO },
        { "{\"code\":7,\"message\":\"no \\\"more\\\"\",\"data\":{\"rpcrew\":{\"name\":\"NO_ROOM\"}}}",
          CREW_REMOTE_ERROR, CREW_EXECUTED_YES, "NO_ROOM" },
        { "{\"code\":7,\"message\":\"no \\\"more\\\"\",\"data\":{\"rpcrew\":{\"name\":5}}}",
          CREW_REMOTE_ERROR, CREW_EXECUTED_YES },
        { "{\"code\":7,\"message\":\"no \\\"more\\\"\",\"data\":{\"rpcrew\":"
          "{\"name\":\"A NAME THAT IS LONGER THAN THERE IS ROOM FOR IN IT\"}}}",
          CREW_REMOTE_ERROR, CREW_EXECUTED_YES, "A NAME THAT IS LONGER THAN THERE IS ROO" },
        { "{\"code\":7,\"message\":\"no \\\"more\\\"\",\"data\":{\"rpcrew\":{\"executed\":\"unknown\"}}}",
          CREW_REMOTE_ERROR, CREW_EXECUTED_UNKNOWN },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct outcome outcome = { 0 };
        char text[300];
        crew_message *request = started(&outcome, NULL);
        (void)snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"error\":%s,\"id\":%zu}", cases[i].error,
                       i + 1);
        raw_settle(&service, request, CREW_SETTLE_REPLY, text);
        ended(&outcome, cases[i].status);
        assert_int_equal(outcome.why.executed, cases[i].executed);
        assert_int_equal(outcome.had_result, cases[i].status == CREW_REMOTE_ERROR);
        assert_string_equal(outcome.why.name, cases[i].name ? cases[i].name : "");
        assert_string_equal(outcome.why.peer_message, "no \"more\"");
    }
}

static void a_shed_call_is_tried_again_if_it_says_so(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    crew_message *request = started(&outcome, &(crew_call_options){ .retry = CREW_RETRY_OVERLOADED });
    raw_settle(&service, request, CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32040,\"message\":\"\","
               "\"data\":{\"rpcrew\":{\"executed\":\"no\"}}},\"id\":1}");
    request = raw_next(&service);
    raw_settle(&service, request, CREW_SETTLE_REPLY, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}");
    ended(&outcome, CREW_OK);
    assert_int_equal(stats().retried, 1);
}

static void a_batch_of_replies_in_one_message_settles_each(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    crew_message *request = started(&outcome, NULL);
    raw_settle(&service, request, CREW_SETTLE_REPLY,
               "[{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1},{\"jsonrpc\":\"2.0\",\"result\":2,\"id\":1}]");
    ended(&outcome, CREW_OK);
    assert_true(eventually(one_stray, NULL)); /* the second is nobody's */
}

/* What may go beside a request is checked before it is known whether anything does. */
static void headers_are_such_that_http_carries_them(void **state)
{
    (void)state;
    crew_client *http;
    crew_arena *arena;
    char long_value[2049];
    static const char *const bad[][2] = {
        { "5", "object of strings" },
        { "{\"a\":5}", "object of strings" },
        { "{\"\":\"x\"}", "no token" },
        { "{\"a b\":\"x\"}", "no token" },
        { "{\"a\\u0000\":\"x\"}", "no token" },
        { "{\"Content-Length\":\"5\"}", "the message itself uses" },
        { "{\"HOST\":\"x\"}", "the message itself uses" },
        { "{\"rpcrew-deadline\":\"5\"}", "the message itself uses" },
        { "{\"transfer-encoding\":\"chunked\"}", "the message itself uses" },
        { "{\"a\":\"x\\r\\nb: y\"}", "control character" },
        { "{\"a\":\"x\\u0000\"}", "control character" },
        { "{\"a\":\" x\"}", "begins or ends with a blank" },
        { "{\"Bcc\":\"x\"}", "the message itself uses" },
        { "{\"x-a\":\"1\",\"X-A\":\"2\"}", "twice" },
    };
    assert_ok(crew_arena_new(&arena));
    crew_call_options options = { .timeout_ms = 200, .headers = parse_json(arena, "{\"a\":\"b\"}") };
    assert_status(crew_client_call_value(client, "m", NULL, &options, NULL, &why), CREW_UNSUPPORTED);
    assert_contains(why.message, "do not travel");
    assert_ok_why(crew_client_new(&http, test_url("http://127.0.0.1:{port}/"), NULL, &why), why);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        options.headers = parse_json(arena, bad[i][0]);
        assert_status(crew_client_call_value(http, "m", NULL, &options, NULL, &why), CREW_BAD_ARGUMENT);
        assert_contains(why.message, bad[i][1]);
        assert_int_equal(why.executed, CREW_EXECUTED_NO);
    }
    memset(long_value, 'x', 129);
    long_value[129] = '\0';
    assert_ok(crew_pack(arena, &options.headers, "{s:s}", long_value, "a"));
    assert_status(crew_client_call_value(http, "m", NULL, &options, NULL, &why), CREW_BAD_ARGUMENT);
    assert_contains(why.message, "more than 128 bytes");
    memset(long_value, 'x', sizeof long_value - 1);
    long_value[sizeof long_value - 1] = '\0';
    assert_ok(crew_pack(arena, &options.headers, "{s:s}", "a", long_value));
    assert_status(crew_client_call_value(http, "m", NULL, &options, NULL, &why), CREW_LIMIT);
    crew_value *many;
    assert_ok(crew_object_new(arena, &many));
    for (int i = 0; i < 33; i++) {
        char name[10];
        const crew_value *value;
        (void)snprintf(name, sizeof name, "h%d", i);
        assert_ok(crew_pack(arena, &value, "s", "v"));
        assert_ok(crew_object_add(arena, many, crew_str(name), value));
    }
    options.headers = many;
    assert_status(crew_client_call_value(http, "m", NULL, &options, NULL, &why), CREW_LIMIT);
    options.headers = parse_json(arena, "{\"X-Trace\":\"\\u00e9\\t1\",\"Authorization\":\"Bearer x\"}");
    assert_status(crew_client_call_value(http, "m", NULL, &options, NULL, &why), CREW_NO_SERVICE);
    crew_client_free(http);
    crew_arena_free(arena);
}

static void what_waits_for_a_full_queue_is_refused(void **state)
{
    (void)state;
    crew_client_free(client);
    assert_ok(crew_client_new(&client, URL "?queue_max=2", NULL, NULL));
    for (int i = 0; i < 2; i++)
        assert_ok(crew_client_notify(client, "m", &why, NULL));
    assert_status(crew_client_notify(client, "m", &why, NULL), CREW_OVERLOADED);
    assert_int_equal(why.executed, CREW_EXECUTED_NO);
    crew_message_free(raw_next(&service));
}

static void calls_outstanding_are_bounded(void **state)
{
    (void)state;
    crew_client_free(client);
    assert_ok(crew_client_new(&client, URL "?in_flight=2", NULL, NULL));
    struct outcome outcomes[3] = { { 0 } };
    crew_message *first = started(&outcomes[0], NULL), *second = started(&outcomes[1], NULL);
    assert_status(crew_client_start(client, "m", note_outcome, &outcomes[2], &why, NULL), CREW_OVERLOADED);
    assert_contains(why.message, "too many calls");
    raw_settle(&service, first, CREW_SETTLE_REPLY, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}");
    ended(&outcomes[0], CREW_OK);
    crew_message *third = started(&outcomes[2], NULL);
    crew_message_free(second);
    crew_message_free(third);
    crew_client_free(client);
    client = NULL;
    ended(&outcomes[1], CREW_CANCELLED);
    ended(&outcomes[2], CREW_CANCELLED);
}

static void a_batch_waits_for_room_instead_of_failing(void **state)
{
    (void)state;
    crew_client_free(client);
    assert_ok(crew_client_new(&client, URL "?in_flight=3&timeout_ms=200", NULL, NULL));
    crew_batch *batch;
    assert_ok(crew_batch_new(&batch, client));
    for (int i = 0; i < 7; i++)
        assert_ok(crew_batch_add(batch, "m", NULL));
    assert_status(crew_batch_add(batch, "m", "nonsense"), CREW_BAD_ARGUMENT);
    assert_status(crew_batch_run(batch, &why), CREW_TIMEOUT); /* nobody answers: three at a time */
    for (size_t i = 0; i < 7; i++)
        assert_status(crew_batch_status(batch, i), CREW_TIMEOUT);
    assert_status(crew_batch_run(batch, &why), CREW_CLOSED);
    assert_status(crew_batch_status(batch, 7), CREW_NOT_FOUND);
    crew_batch_free(batch);
}

static atomic_int blocked_status;

static crew_client *another;

static void call_from_completion(void *context, crew_result *result, const crew_error *error)
{
    crew_error inner = { 0 };
    atomic_store(&blocked_status, (int)crew_client_call(another ? another : client, "m", NULL, &inner, NULL));
    note_outcome(context, result, error);
}

static void a_blocking_call_from_a_completion_would_deadlock(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    assert_ok(crew_client_start(client, "m", call_from_completion, &outcome, NULL, NULL));
    raw_settle(&service, raw_next(&service), CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}");
    ended(&outcome, CREW_OK);
    assert_int_equal(atomic_load(&blocked_status), CREW_WOULD_DEADLOCK);
    /* Nor another client: its completion may be waiting for this one. */
    assert_ok(crew_client_new(&another, URL, NULL, NULL));
    atomic_store(&blocked_status, 0);
    outcome = (struct outcome){ 0 };
    assert_ok(crew_client_start(client, "m", call_from_completion, &outcome, NULL, NULL));
    raw_settle(&service, raw_next(&service), CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":2}");
    ended(&outcome, CREW_OK);
    assert_int_equal(atomic_load(&blocked_status), CREW_WOULD_DEADLOCK);
    crew_client_free(another);
    another = NULL;
}

struct brief_request {
    uint32_t id;
    atomic_int *ended;
};

static void free_request(void *context, crew_result *result, const crew_error *error)
{
    struct brief_request *request = context;
    (void)error;
    crew_result_free(result);
    atomic_fetch_add(request->ended, 1);
    free(request);
}

static bool all_brief_ended(void *ended)
{
    return atomic_load((atomic_int *)ended) == 300;
}

static void a_completion_may_free_what_the_id_is_in(void **state)
{
    (void)state;
    atomic_int ended_count = 0;
    raw_close(&service, NULL); /* nobody there: calls end at once */
    for (int i = 0; i < 300; i++) {
        struct brief_request *request = calloc(1, sizeof *request);
        request->ended = &ended_count;
        assert_ok(
            crew_client_start_value(client, "m", NULL, NULL, free_request, request, &request->id, NULL));
    }
    assert_true(eventually(all_brief_ended, &ended_count));
    raw_open(&service, URL, true);
}

static atomic_int restarts, closed_status;

static void restart(void *context, crew_result *result, const crew_error *error)
{
    (void)context;
    (void)error;
    crew_result_free(result);
    if (atomic_fetch_add(&restarts, 1) < 1000000)
        atomic_store(&closed_status, (int)crew_client_start(client, "m", restart, NULL, NULL, NULL));
}

static void freeing_ends_also_calls_that_start_themselves_again(void **state)
{
    (void)state;
    assert_ok(crew_client_start(client, "m", restart, NULL, NULL, NULL));
    crew_message_free(raw_next(&service));
    crew_client_free(client);
    client = NULL;
    assert_int_equal(atomic_load(&restarts), 1);
    assert_int_equal(atomic_load(&closed_status), CREW_CLOSED);
}

static void calls_that_wait_for_a_service_are_not_counted_against_retries(void **state)
{
    (void)state;
    struct outcome outcomes[30] = { { 0 } };
    crew_call_options patient = { .retry = CREW_RETRY_NO_SERVICE };
    raw_close(&service, NULL);
    for (int i = 0; i < 30; i++)
        assert_ok(
            crew_client_start_value(client, "m", NULL, &patient, note_outcome, &outcomes[i], NULL, NULL));
    while (stats().retried < 90)
        assert_int_equal(stats().outstanding, 30); /* each has come back three times, and waits again */
    raw_open(&service, URL, true);
    for (int i = 0; i < 30; i++) {
        crew_message *request = raw_next(&service);
        char text[100];
        crew_arena arena = { 0 };
        const crew_value *id = crew_value_get(
            parse_json(&arena, crew_arena_string(&arena, crew_buffer_string(&request->body)).data), "id");
        (void)snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":%s}",
                       json_of(&arena, id));
        raw_settle(&service, request, CREW_SETTLE_REPLY, text);
        crew_arena_fini(&arena);
    }
    for (int i = 0; i < 30; i++)
        ended(&outcomes[i], CREW_OK);
}

static void a_call_sent_twice_may_have_been_executed_once(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    crew_message *first = started(&outcome, &(crew_call_options){ .idempotent = true });
    raw_close(&service, NULL); /* unanswered: the connection is lost, the second copy finds nobody */
    ended(&outcome, CREW_NO_SERVICE);
    assert_int_equal(outcome.why.executed, CREW_EXECUTED_UNKNOWN);
    assert_int_equal(stats().resent, 1);
    crew_message_free(first);
    raw_open(&service, URL, true);
}

static void a_one_way_call_can_be_asynchronous(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    crew_message *request = started(&outcome, &(crew_call_options){ .one_way = true });
    assert_true(request->one_way);
    raw_settle(&service, request, CREW_SETTLE_DONE, NULL);
    ended(&outcome, CREW_OK);
    assert_false(outcome.had_result);
}

static void an_empty_array_is_no_answer(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    raw_settle(&service, started(&outcome, NULL), CREW_SETTLE_REPLY, "[]");
    ended(&outcome, CREW_BAD_REPLY);
}

static struct outcome chained;

static void start_from_completion(void *context, crew_result *result, const crew_error *error)
{
    (void)!crew_client_start(client, "next", note_outcome, &chained, NULL, NULL);
    note_outcome(context, result, error);
}

static void a_completion_may_start_the_next_call(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    assert_ok(crew_client_start(client, "m", start_from_completion, &outcome, NULL, NULL));
    raw_settle(&service, raw_next(&service), CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}");
    raw_settle(&service, raw_next(&service), CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":2}");
    ended(&outcome, CREW_OK);
    ended(&chained, CREW_OK);
}

static void names_have_their_prefix(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    crew_client_free(client);
    assert_ok(crew_client_new(&client, URL,
                              &(crew_client_options){ .prefix = "bank.", .protocol = "jsonrpc1" }, NULL));
    crew_message *request = started(&outcome, NULL);
    crew_buffer_append(&request->body, "", 1);
    assert_string_equal(request->body.data, "{\"method\":\"bank.m\",\"params\":[],\"id\":1}");
    raw_settle(&service, request, CREW_SETTLE_REPLY, "{\"result\":null,\"error\":\"no\",\"id\":1}");
    ended(&outcome, CREW_REMOTE_ERROR);
    assert_contains(outcome.why.message, "bank.m at inproc://client: no (code 0), after ");
}

static crew_status nested_status;

static crew_status nested(crew_call *call)
{
    crew_call_options within = { .within = call };
    nested_status = crew_client_call_value(client, "m", NULL, &within, NULL, &why);
    return crew_reply_null(call);
}

static void a_nested_call_inherits_the_deadline(void **state)
{
    (void)state;
    static const crew_method methods[] = { { "nested", nested, "" }, { 0 } };
    static const crew_service outer = { .name = "outer", .methods = methods };
    crew_dispatcher *dispatcher;
    crew_server *server;
    crew_client *caller;
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &outer, NULL, NULL));
    assert_ok(crew_server_new(&server, dispatcher, NULL, NULL));
    assert_ok(crew_server_listen(server, "inproc://outer", NULL));
    assert_ok(crew_server_start(server, NULL));
    assert_ok(crew_client_new(&caller, "inproc://outer", &(crew_client_options){ .timeout_ms = 1000 }, NULL));
    /* Both end at the same time: the outer answer may be just in time or just too late. */
    crew_status outer_status = crew_client_call(caller, "nested", NULL, NULL, NULL);
    assert_true(outer_status == CREW_OK || outer_status == CREW_TIMEOUT);
    crew_client_free(caller);
    crew_server_stop(server);
    assert_ok(crew_server_wait(server)); /* the inner call has ended with the outer one's time */
    crew_server_free(server);
    assert_status(nested_status, CREW_TIMEOUT);
    crew_dispatcher_free(dispatcher);
    crew_message_free(raw_next(&service));
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    crew_client *none = NULL;
    crew_result *result;
    assert_status(crew_client_new(&none, "nothing", NULL, &why), CREW_BAD_ARGUMENT);
    assert_status(crew_client_new(&none, "inproc://a/b", NULL, &why), CREW_BAD_ARGUMENT);
    assert_status(crew_client_new(&none, "zmq+tcp://a:1,b", NULL, &why), CREW_BAD_ARGUMENT);
    assert_status(crew_client_new(&none, "pigeon://roof", NULL, &why), CREW_UNSUPPORTED);
    assert_status(crew_client_new(&none, URL "?que=1", NULL, &why), CREW_BAD_ARGUMENT);
    assert_contains(why.message, "queue_max");
    assert_status(crew_client_new(&none, URL, &(crew_client_options){ .protocol = "soap" }, &why),
                  CREW_BAD_ARGUMENT);
    assert_contains(why.message, "jsonrpc, jsonrpc1");
    assert_null(none);
    assert_status(crew_client_call(client, "m", &result, &why, "[i", 1), CREW_BAD_ARGUMENT);
    assert_null(result);
    assert_status(crew_client_call(client, "m", &result, &why, "i", 1), CREW_BAD_ARGUMENT);
    assert_null(result);
    assert_status(crew_client_call(client, "m", &result, &why, "[s]", "\xFF"), CREW_MALFORMED);
    assert_status(crew_client_cancel(client, 12345), CREW_NOT_FOUND);
    assert_int_equal(stats().outstanding, 0);
    crew_client_free(NULL);
    crew_result_free(NULL);
    crew_batch_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_request_is_these_bytes),
        TEST(answers_that_break_the_protocol_are_bad_replies),
        TEST(an_enormous_answer_is_a_bad_reply),
        TEST(a_null_id_error_settles_the_call_it_answers),
        TEST(the_worker_s_word_on_execution_is_believed),
        TEST(a_shed_call_is_tried_again_if_it_says_so),
        TEST(a_batch_of_replies_in_one_message_settles_each),
        TEST(headers_are_such_that_http_carries_them),
        TEST(what_waits_for_a_full_queue_is_refused),
        TEST(calls_outstanding_are_bounded),
        TEST(a_batch_waits_for_room_instead_of_failing),
        TEST(a_blocking_call_from_a_completion_would_deadlock),
        TEST(a_completion_may_start_the_next_call),
        TEST(a_completion_may_free_what_the_id_is_in),
        TEST(freeing_ends_also_calls_that_start_themselves_again),
        TEST(calls_that_wait_for_a_service_are_not_counted_against_retries),
        TEST(a_call_sent_twice_may_have_been_executed_once),
        TEST(a_one_way_call_can_be_asynchronous),
        TEST(an_empty_array_is_no_answer),
        TEST(names_have_their_prefix),
        TEST(a_nested_call_inherits_the_deadline),
        TEST(mistakes_are_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
