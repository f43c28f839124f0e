/* Each way in which a client's call can end is told once, and counted. */
#include "support/raw.h"

#include "core/metrics.h"

#include <rpcrew/metrics.h>
#include <rpcrew/observe.h>

#include <pthread.h>
#include <stdatomic.h>

#define URL "inproc://client-observe"

static struct raw_end service;
static crew_client *client;
static crew_metrics *metrics;
static crew_error why;

/* What was told, in lines. */
static struct told {
    pthread_mutex_t mutex;
    char calls[4096], changes[1000];
    bool in_order;
} told = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static void on_call(void *context, const crew_outcome *o)
{
    struct told *t = context;
    char line[300];
    pthread_mutex_lock(&t->mutex);
    (void)snprintf(line, sizeof line, "%s %s code=%d executed=%s%s again=%u %s out=%s in=%s\n", o->method,
                   crew_status_name(o->status), (int)o->code, crew_executed_name(o->executed),
                   o->one_way ? " one_way" : "", o->again, o->protocol, o->bytes_out ? "some" : "none",
                   o->bytes_in ? "some" : "none");
    (void)strncat(t->calls, line, sizeof t->calls - strlen(t->calls) - 1);
    t->in_order = t->in_order && o->started_ns && o->started_ns <= o->ended_ns &&
                  strncmp(o->endpoint, URL, strlen(URL)) == 0 &&
                  (o->status == CREW_OK) == (*o->message == '\0');
    pthread_mutex_unlock(&t->mutex);
}

static void on_change(void *context, crew_change change, const char *endpoint, const char *reason)
{
    struct told *t = context;
    char line[300];
    pthread_mutex_lock(&t->mutex);
    (void)snprintf(line, sizeof line, "%s %s %s\n", crew_change_name(change),
                   strncmp(endpoint, URL, strlen(URL)) == 0 ? "here" : "elsewhere", reason ? "why" : "-");
    (void)strncat(t->changes, line, sizeof t->changes - strlen(t->changes) - 1);
    pthread_mutex_unlock(&t->mutex);
}

static const crew_client_hooks hooks = { on_call, on_change, &told };

static void open_client(const char *url, const crew_client_options *options)
{
    crew_client_options all = options ? *options : (crew_client_options){ 0 };
    all.metrics = metrics;
    assert_ok_why(crew_client_new(&client, url, &all, &why), why);
    assert_ok(crew_client_observe(client, &hooks, &why));
}

static int setup(void **state)
{
    (void)state;
    told.calls[0] = told.changes[0] = '\0';
    told.in_order = true;
    assert_ok(crew_metrics_new(&metrics));
    raw_open(&service, URL, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_metrics_free(metrics); /* the client has them yet */
    crew_client_free(client);
    client = NULL;
    raw_close(&service, NULL);
    return 0;
}

struct outcome {
    atomic_int times;
};

static void note(void *context, crew_result *result, const crew_error *error)
{
    (void)error;
    crew_result_free(result);
    atomic_fetch_add(&((struct outcome *)context)->times, 1);
}

static bool has_ended(void *outcome)
{
    return atomic_load(&((struct outcome *)outcome)->times) > 0;
}

static void answer(const char *method, const crew_call_options *options, const char *reply)
{
    struct outcome outcome = { 0 };
    assert_ok(crew_client_start_value(client, method, NULL, options, note, &outcome, NULL, NULL));
    raw_settle(&service, raw_next(&service), CREW_SETTLE_REPLY, reply);
    assert_true(eventually(has_ended, &outcome));
}

static void cancel(const char *method)
{
    struct outcome outcome = { 0 };
    uint32_t id;
    assert_ok(crew_client_start_value(client, method, NULL, NULL, note, &outcome, &id, NULL));
    crew_message_free(raw_next(&service));
    assert_ok(crew_client_cancel(client, id));
    assert_true(eventually(has_ended, &outcome));
}

/* All that was told so far, once. */
static void told_is(const char *calls)
{
    static char got[sizeof told.calls];
    pthread_mutex_lock(&told.mutex);
    memcpy(got, told.calls, sizeof got);
    told.calls[0] = '\0';
    bool in_order = told.in_order;
    pthread_mutex_unlock(&told.mutex);
    assert_string_equal(got, calls);
    assert_true(in_order);
}

static void metrics_have(const char *line)
{
    char *text;
    assert_ok(crew_metrics_text(metrics, &text));
    assert_contains(text, line);
    free(text);
}

#define LABELS(method, more) \
    "{rpc_system_name=\"jsonrpc\",rpc_method=\"" method "\"" more ",endpoint=\"" URL "?in_flight=2\"} "

static void each_outcome_is_told_once(void **state)
{
    (void)state;
    open_client(URL "?in_flight=2", NULL);
    answer("good", NULL, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}");
    answer("bad", NULL, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":7,\"message\":\"no\"},\"id\":2}");
    answer("broken", NULL, "rubbish");
    cancel("cancelled");
    told_is("good CREW_OK code=0 executed=no again=0 jsonrpc out=some in=some\n"
            "bad CREW_REMOTE_ERROR code=7 executed=yes again=0 jsonrpc out=some in=some\n"
            "broken CREW_BAD_REPLY code=0 executed=unknown again=0 jsonrpc out=some in=some\n"
            "cancelled CREW_CANCELLED code=0 executed=unknown again=0 jsonrpc out=some in=none\n");
    assert_ok(crew_client_notify(client, "note", &why, NULL));
    assert_status(
        crew_client_call_value(client, "late", NULL, &(crew_call_options){ .timeout_ms = 50 }, NULL, &why),
        CREW_TIMEOUT);
    told_is("note CREW_OK code=0 executed=no one_way again=0 jsonrpc out=some in=none\n"
            "late CREW_TIMEOUT code=0 executed=unknown again=0 jsonrpc out=some in=none\n");
    crew_message_free(raw_next(&service));
    crew_message_free(raw_next(&service));
    struct outcome outcomes[2] = { { 0 } };
    for (int i = 0; i < 2; i++)
        assert_ok(crew_client_start(client, "waits", note, &outcomes[i], &why, NULL));
    metrics_have("rpcrew_client_outstanding{endpoint=\"" URL "?in_flight=2\"} 2\n");
    assert_status(crew_client_call(client, "more", NULL, &why, NULL), CREW_OVERLOADED);
    told_is("more CREW_OVERLOADED code=0 executed=no again=0 jsonrpc out=none in=none\n");
    metrics_have("rpc_client_call_duration_seconds_count" LABELS("good", "") "1\n");
    metrics_have("rpc_client_call_duration_seconds_count" LABELS(
        "bad", ",rpc_status_code=\"7\",error_type=\"remote_error\"") "1\n");
    metrics_have("rpc_client_call_duration_seconds_count" LABELS("late", ",error_type=\"timeout\"") "1\n");
    metrics_have("rpc_client_call_duration_seconds_bucket{rpc_system_name=\"jsonrpc\",rpc_method=\"late\","
                 "error_type=\"timeout\",endpoint=\"" URL "?in_flight=2\",le=\"0.025\"} 0\n");
    metrics_have("rpcrew_client_request_bytes_total" LABELS("good", "") "40\n");
    metrics_have("rpcrew_client_response_bytes_total" LABELS("good", "") "35\n");
    metrics_have("rpcrew_client_up{endpoint=\"" URL "?in_flight=2\"} 1\n");
    metrics_have("rpcrew_client_bad_replies_total{endpoint=\"" URL "?in_flight=2\"} 1\n");
    crew_client_free(client);
    client = NULL;
    told_is("waits CREW_CANCELLED code=0 executed=unknown again=0 jsonrpc out=some in=none\n"
            "waits CREW_CANCELLED code=0 executed=unknown again=0 jsonrpc out=some in=none\n");
    metrics_have("rpcrew_client_outstanding{endpoint=\"" URL "?in_flight=2\"} 0\n");
    metrics_have("rpcrew_client_up{endpoint=\"" URL "?in_flight=2\"} 0\n");
}

static void a_try_is_no_end(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    open_client(URL, NULL);
    const crew_call_options options = { .retry = CREW_RETRY_OVERLOADED };
    assert_ok(crew_client_start_value(client, "m", NULL, &options, note, &outcome, NULL, NULL));
    raw_settle(&service, raw_next(&service), CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32040,\"message\":\"\"},\"id\":1}");
    raw_settle(&service, raw_next(&service), CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}");
    assert_true(eventually(has_ended, &outcome));
    told_is("m CREW_OK code=0 executed=no again=1 jsonrpc out=some in=some\n");
    metrics_have("rpcrew_client_retried_total{endpoint=\"" URL "\"} 1\n");
}

static void a_batch_that_waits_for_room_is_told_of_its_calls_alone(void **state)
{
    (void)state;
    open_client(URL "?in_flight=2&timeout_ms=100", NULL);
    crew_batch *batch;
    assert_ok(crew_batch_new(&batch, client));
    for (int i = 0; i < 3; i++)
        assert_ok(crew_batch_add(batch, "m", NULL));
    assert_status(crew_batch_run(batch, &why), CREW_TIMEOUT);
    crew_batch_free(batch);
    told_is("m CREW_TIMEOUT code=0 executed=unknown again=0 jsonrpc out=some in=none\n"
            "m CREW_TIMEOUT code=0 executed=unknown again=0 jsonrpc out=some in=none\n"
            "m CREW_TIMEOUT code=0 executed=unknown again=0 jsonrpc out=some in=none\n");
}

static bool was_opened(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&told.mutex);
    bool opened = strstr(told.changes, "opened here -\n") != NULL;
    pthread_mutex_unlock(&told.mutex);
    return opened;
}

static void connections_are_told_of(void **state)
{
    (void)state;
    raw_close(&service, NULL);
    open_client(URL, &(crew_client_options){ .timeout_ms = 20000 });
    const crew_call_options patient = { .retry = CREW_RETRY_NO_SERVICE };
    struct outcome outcome = { 0 };
    assert_ok(crew_client_start_value(client, "m", NULL, &patient, note, &outcome, NULL, NULL));
    raw_open(&service, URL, true);
    raw_settle(&service, raw_next(&service), CREW_SETTLE_REPLY,
               "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}");
    assert_true(eventually(has_ended, &outcome));
    assert_true(eventually(was_opened, NULL));
    crew_client_free(client);
    client = NULL;
    assert_contains(told.changes, "opened here -\nclosed here -\n");
}

static void *observe_it(void *unused)
{
    (void)unused;
    for (int i = 0; i < 7; i++)
        assert_int_equal(crew_client_observe(client, &hooks, NULL), CREW_OK);
    return NULL;
}

/* Added while calls end: tsan looks on. What they are told began behind their coming. */
static void observers_are_added_at_any_time(void **state)
{
    (void)state;
    open_client(URL, NULL);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, observe_it, NULL), 0);
    for (int i = 0; i < 100; i++)
        assert_ok(crew_client_notify(client, "note", &why, NULL));
    pthread_join(thread, NULL);
    assert_status(crew_client_observe(client, &hooks, &why), CREW_LIMIT);
    assert_contains(why.message, "8 observers");
    for (int i = 0; i < 100; i++)
        crew_message_free(raw_next(&service));
    assert_true(told.in_order);
}

static void count_calls(void *context, const crew_outcome *outcome)
{
    (void)outcome;
    atomic_fetch_add((atomic_int *)context, 1);
}

static void note_opened(void *context, crew_change change, const char *endpoint, const char *reason)
{
    (void)endpoint;
    (void)reason;
    if (change == CREW_ENDPOINT_OPENED)
        atomic_fetch_add((atomic_int *)context, 1);
}

static bool is_one(void *count)
{
    return atomic_load((atomic_int *)count) == 1;
}

/* Who comes late is not told of a call that is under way, but of a connection that is open. */
static void who_comes_late_is_told_what_it_can_make_sense_of(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    static atomic_int calls, opened;
    atomic_store(&calls, 0);
    open_client(URL, NULL);
    for (int i = 0; i < 7; i++) {
        atomic_store(&opened, 0);
        assert_ok(crew_client_observe(
            client, &(crew_client_hooks){ .change = note_opened, .context = &opened }, &why));
        assert_true(eventually(is_one, &opened));
        if (i == 0) {
            assert_ok(crew_client_start(client, "under way", note, &outcome, &why, NULL));
            crew_message *request = raw_next(&service);
            assert_ok(crew_client_observe(
                client, &(crew_client_hooks){ .call = count_calls, .context = &calls }, &why));
            raw_settle(&service, request, CREW_SETTLE_REPLY, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}");
            assert_true(eventually(has_ended, &outcome));
            assert_int_equal(atomic_load(&calls), 0);
            answer("next", NULL, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":2}");
            assert_int_equal(atomic_load(&calls), 1);
            i++; /* the one that counts */
        }
    }
    assert_int_equal(atomic_load(&opened), 1);
}

/* Who passes on methods of its callers' choice: their names are no text, long, or very many. */
static void methods_of_others_choice_are_bounded(void **state)
{
    (void)state;
    char name[300];
    static struct outcome first;
    open_client(URL "?in_flight=1", NULL);
    assert_ok(crew_client_start(client, "first", note, &first, &why, NULL));
    assert_status(crew_client_call(client, "\xff \"quoted\"\n\\", NULL, &why, NULL), CREW_OVERLOADED);
    metrics_have("rpc_method=\"? \\\"quoted\\\"\\n\\\\\",error_type=\"overloaded\"");
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_status(crew_client_call(client, name, NULL, &why, NULL), CREW_OVERLOADED);
    metrics_have("rpc_client_call_duration_seconds_count{rpc_system_name=\"jsonrpc\",rpc_method=\"_OTHER\","
                 "error_type=\"overloaded\",endpoint=\"" URL "?in_flight=1\"} 1\n");
    for (int i = 0; i < 600; i++) {
        (void)snprintf(name, sizeof name, "m%d", i);
        assert_status(crew_client_call(client, name, NULL, &why, NULL), CREW_OVERLOADED);
    }
    metrics_have("rpc_client_call_duration_seconds_count{rpc_system_name=\"jsonrpc\",rpc_method=\"_OTHER\","
                 "error_type=\"overloaded\",endpoint=\"" URL
                 "?in_flight=1\"} 91\n"); /* 600 - (512 - 2) + 1 */
    metrics_have("rpcrew_metrics_left_out_total 0\n");
}

static void series_are_bounded(void **state)
{
    (void)state;
    open_client(URL, NULL);
    for (int i = 0; i < 1030; i++) {
        char endpoint[30];
        (void)snprintf(endpoint, sizeof endpoint, "tcp://%d", i);
        crew_metrics_count(metrics, CREW_SIDE_SERVER,
                           &(struct crew_metrics_end){
                               .method = crew_str("m"), .endpoint = endpoint, .protocol = "jsonrpc" });
    }
    metrics_have("rpcrew_metrics_left_out_total 6\n");
    metrics_have("endpoint=\"tcp://1023\"");
    answer("good", NULL,
           "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}"); /* the other side's are not used up */
    metrics_have("rpc_client_call_duration_seconds_count{rpc_system_name=\"jsonrpc\",rpc_method=\"good\"");
}

static void endpoints_of_metrics_are_bounded(void **state)
{
    (void)state;
    for (int i = 0; i < 258; i++) {
        char url[60];
        (void)snprintf(url, sizeof url, "inproc://nobody-%d", i);
        crew_client *one;
        assert_ok(crew_client_new(&one, url, &(crew_client_options){ .metrics = metrics }, &why));
        crew_client_free(one);
    }
    metrics_have("rpcrew_client_up{endpoint=\"inproc://nobody-255\"} 0\n");
    metrics_have("rpcrew_client_up{endpoint=\"_OTHER\"} 0\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_outcome_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_try_is_no_end, setup, teardown),
        cmocka_unit_test_setup_teardown(a_batch_that_waits_for_room_is_told_of_its_calls_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(connections_are_told_of, setup, teardown),
        cmocka_unit_test_setup_teardown(observers_are_added_at_any_time, setup, teardown),
        cmocka_unit_test_setup_teardown(who_comes_late_is_told_what_it_can_make_sense_of, setup, teardown),
        cmocka_unit_test_setup_teardown(methods_of_others_choice_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(series_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(endpoints_of_metrics_are_bounded, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
