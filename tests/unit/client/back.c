/* Handlers that call their callers, over the connection that these call by: run as `back URL`. Both ends are
 * ours: a server, and clients with a dispatcher. */
#include "support/gate.h"
#include "support/test.h"

#include <rpcrew/client.h>
#include <rpcrew/observe.h>
#include <rpcrew/server.h>

#include <rpcrew/impl/message.h>

#include <pthread.h>
#include <stdatomic.h>

enum { PATIENCE_MS = 10000, MANY = 64, CALLS = 50 /* that a client lets wait */ };

static const char *pattern;
static char url[1200];
static crew_server *server;
static pthread_t serving;
static crew_dispatcher *theirs, *ours;
static crew_client *client;
static struct gate gate;
static crew_client *kept;

/* ---- the service ---- */

/* Asks its caller to double a number, and adds one. */
static crew_status ask(crew_call *call)
{
    crew_client *back = NULL;
    crew_result *result = NULL;
    crew_error why;
    int64_t number = 0;
    crew_status status = crew_call_client(call, &back, &why);
    while (status == CREW_OVERLOADED) /* another handler is making it */
        status = crew_call_client(call, &back, &why);
    if (status == CREW_OK)
        status = crew_client_call(back, "double", &result, &why, "[I]", crew_arg_int(call, 0));
    if (status == CREW_OK)
        status = crew_value_int(crew_result_value(result), &number);
    crew_result_free(result);
    crew_client_free(back);
    if (status != CREW_OK)
        return crew_fail(call, 7, "%s", why.message);
    return crew_reply_int(call, number + 1);
}

/* Makes ways to its caller, and does not wait for them. */
static crew_status touch(crew_call *call)
{
    for (int i = 0; i < 20; i++) {
        crew_client *back = NULL;
        crew_error why;
        if (crew_call_client(call, &back, &why) == CREW_OK)
            crew_client_free(back);
    }
    return ask(call);
}

/* Keeps a way to its caller, which the test then uses. */
static crew_status subscribe(crew_call *call)
{
    crew_error why;
    crew_status status = crew_call_client(call, &kept, &why);
    return status == CREW_OK ? crew_reply_null(call) : crew_fail(call, 8, "%s", why.message);
}

static const crew_method service_methods[] = {
    { "ask", ask, "number:int", "int", NULL, 0 },
    { "touch", touch, "number:int", "int", NULL, 0 },
    { "subscribe", subscribe, "", "null", NULL, 0 },
    { 0 },
};

/* ---- the caller's own ---- */

static crew_status twice(crew_call *call)
{
    return crew_reply_int(call, 2 * crew_arg_int(call, 0));
}

static crew_status note(crew_call *call)
{
    gate_pass(&gate);
    return crew_reply_null(call);
}

static const crew_method own_methods[] = {
    { "double", twice, "number:int", "int", NULL, 0 },
    { "note", note, "number:int", "null", NULL, 0 },
    { 0 },
};

static void *serve(void *unused)
{
    (void)!crew_server_wait(server);
    return unused;
}

static void open_client(crew_client **out, const crew_dispatcher *serves)
{
    crew_error why;
    const crew_client_options options = { .dispatcher = serves };
    assert_ok_why(crew_client_new(out, url, &options, &why), why);
}

static int setup(void **state)
{
    (void)state;
    static const crew_service service = { .name = "asks", .methods = service_methods };
    static const crew_service own = { .name = "own", .methods = own_methods };
    const crew_server_options options = { .threads = 2, .in_flight_max = 8, .drain_ms = 3000 };
    crew_error why;
    gate = (struct gate)GATE_INITIALIZER;
    gate_open(&gate); /* it only counts */
    kept = NULL;
    (void)snprintf(url, sizeof url, "%s", test_url(pattern));
    assert_ok(crew_dispatcher_new(&theirs));
    assert_ok(crew_dispatcher_new(&ours));
    assert_ok_why(crew_dispatcher_add(theirs, "", &service, NULL, &why), why);
    assert_ok_why(crew_dispatcher_add(ours, "", &own, NULL, &why), why);
    assert_ok_why(crew_server_new(&server, theirs, &options, &why), why);
    assert_ok_why(crew_server_listen(server, url, &why), why);
    assert_ok_why(crew_server_start(server, &why), why);
    assert_int_equal(pthread_create(&serving, NULL, serve, NULL), 0);
    open_client(&client, ours);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_client_free(client);
    client = NULL;
    crew_client_free(kept);
    crew_server_stop(server);
    pthread_join(serving, NULL);
    crew_server_free(server);
    crew_dispatcher_free(theirs);
    crew_dispatcher_free(ours);
    return 0;
}

static void assert_asks(crew_client *by, int64_t number)
{
    crew_result *result;
    crew_error why;
    int64_t got;
    assert_ok_why(crew_client_call(by, "ask", &result, &why, "[I]", number), why);
    assert_ok(crew_value_int(crew_result_value(result), &got));
    assert_int_equal(got, 2 * number + 1);
    crew_result_free(result);
}

static void a_handler_calls_its_caller(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        assert_asks(client, i);
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.calls, 20); /* answers are none */
    assert_int_equal(stats.in_flight, 0);
}

static void each_calls_its_own(void **state)
{
    (void)state;
    crew_client *other, *mute;
    crew_error why;
    open_client(&other, ours);
    open_client(&mute, NULL);
    for (int i = 0; i < 10; i++) {
        assert_asks(client, i);
        assert_asks(other, 100 + i);
        assert_status(crew_client_call(mute, "ask", NULL, &why, "[i]", 1), CREW_REMOTE_ERROR);
        assert_int_equal(why.code, 7);
    }
    crew_client_free(other);
    crew_client_free(mute);
}

static void on_done(void *context, crew_result *result, const crew_error *why)
{
    int64_t got = -1;
    assert_int_equal(why->status, CREW_OK);
    assert_ok(crew_value_int(crew_result_value(result), &got));
    crew_result_free(result);
    atomic_fetch_sub((atomic_int *)context, 1);
    gate_pass(&gate);
}

/* More calls than the worker takes at a time, all of which wait for their caller. */
static void a_full_worker_still_hears_its_callers(void **state)
{
    (void)state;
    static atomic_int left;
    crew_arena *arena;
    atomic_store(&left, MANY);
    assert_ok(crew_arena_new(&arena));
    for (int i = 0; i < MANY; i++) {
        const crew_value *params;
        assert_ok(crew_pack(arena, &params, "[i]", i));
        assert_ok(crew_client_start_value(client, "ask", params, NULL, on_done, &left, NULL, NULL));
    }
    assert_true(gate_await(&gate, MANY));
    assert_int_equal(atomic_load(&left), 0);
    crew_arena_free(arena);
}

static void what_is_kept_calls_later_and_ends_with_the_connection(void **state)
{
    (void)state;
    crew_error why;
    assert_ok_why(crew_client_call(client, "subscribe", NULL, &why, ""), why);
    assert_non_null(kept);
    /* others may have it as well */
    assert_status(crew_client_observe(kept, &(crew_client_hooks){ 0 }, &why), CREW_UNSUPPORTED);
    for (int i = 0; i < CALLS; i++)
        assert_ok_why(crew_client_notify(kept, "note", &why, "[i]", i), why);
    assert_true(gate_await(&gate, CALLS));
    assert_asks(client, 3); /* by the same one */
    crew_client_free(client);
    client = NULL;
    const crew_call_options options = { .timeout_ms = PATIENCE_MS };
    crew_status status = CREW_OK;
    for (int64_t until = crew_now_ms() + PATIENCE_MS; status == CREW_OK && crew_now_ms() < until;)
        status = crew_client_call_value(kept, "double", NULL, &options, NULL, &why);
    assert_true(status == CREW_DISCONNECTED || status == CREW_NO_SERVICE);
}

/* Openings that nobody waits for outlive the clients that they were for. */
static void ways_that_are_given_up_at_once_are_no_harm(void **state)
{
    (void)state;
    enum { CLIENTS = 4 };
    static atomic_int left;
    crew_client *clients[CLIENTS];
    crew_arena *arena;
    const crew_value *params;
    assert_ok(crew_arena_new(&arena));
    assert_ok(crew_pack(arena, &params, "[i]", 1));
    atomic_store(&left, CLIENTS * 10);
    for (int i = 0; i < CLIENTS; i++)
        open_client(&clients[i], ours);
    for (int i = 0; i < CLIENTS * 10; i++)
        assert_ok(
            crew_client_start_value(clients[i % CLIENTS], "touch", params, NULL, on_done, &left, NULL, NULL));
    assert_true(gate_await(&gate, CLIENTS * 10));
    for (int i = 0; i < CLIENTS; i++)
        crew_client_free(clients[i]);
    crew_arena_free(arena);
}

static void ids_go_on_where_the_last_one_ended(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) { /* each frees the client that it had made */
        assert_asks(client, i);
        assert_asks(client, i + 1);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_handler_calls_its_caller),
        TEST(each_calls_its_own),
        TEST(a_full_worker_still_hears_its_callers),
        TEST(what_is_kept_calls_later_and_ends_with_the_connection),
        TEST(ways_that_are_given_up_at_once_are_no_harm),
        TEST(ids_go_on_where_the_last_one_ended),
    };
    if (argc != 2)
        return 2;
    pattern = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
