#include "support/gate.h"
#include "support/raw.h"

#include <stdatomic.h>

#include "conformance/service.h"

#include <poll.h>
#include <signal.h>

#define URL "inproc://server"

static struct gate gate = GATE_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_t last_thread;
static crew_call *kept;

static crew_status pass(crew_call *call)
{
    gate_pass(&gate);
    return crew_reply_value(call, crew_arg(call, 0));
}

/* Returns only when as many calls as the barrier wants are inside at the same time. */
static crew_status meet(crew_call *call)
{
    pthread_barrier_wait(&barrier);
    return crew_reply_value(call, crew_arg(call, 0));
}

static crew_status note_thread(crew_call *call)
{
    last_thread = pthread_self();
    return crew_reply_null(call);
}

static crew_status keep(crew_call *call)
{
    kept = crew_call_defer(call);
    gate_pass(&gate);
    return CREW_OK;
}

static atomic_int was_raised;

/* Ends when its token is raised; says by which of the ways it sees it. */
static crew_status until_cancelled(crew_call *call)
{
    struct pollfd fd = { .fd = crew_call_cancel_fd(call), .events = POLLIN };
    assert_ptr_not_equal(fd.fd, -1);
    gate_pass(&gate);
    bool raised = poll(&fd, 1, 20000) == 1;
    atomic_store(&was_raised, raised);
    return crew_reply(call, "[bbb]", raised, crew_call_cancelled(call), crew_call_draining(call));
}

static crew_status not_cancelled(crew_call *call)
{
    struct pollfd fd = { .fd = crew_call_cancel_fd(call), .events = POLLIN };
    return crew_reply(call, "[bbb]", poll(&fd, 1, 0) == 1, crew_call_cancelled(call),
                      crew_call_draining(call));
}

static const crew_method methods[] = {
    { "until_cancelled", until_cancelled, "" },
    { "not_cancelled", not_cancelled, "" },
    { "pass", pass, "n:any?" },
    { "pass2", pass, "n:any?", .max_concurrency = 2 },
    { "meet", meet, "n:any" },
    { "note_thread", note_thread, "" },
    { "keep", keep, "" },
    { 0 },
};
static const crew_service service = { .name = "test", .methods = methods };

static crew_dispatcher *dispatcher;
static crew_arena arena;

static int setup(void **state)
{
    (void)state;
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    assert_ok(crew_dispatcher_add(dispatcher, "", &conformance_service, NULL, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_dispatcher_free(dispatcher);
    crew_arena_fini(&arena);
    return 0;
}

static crew_server *serve(const crew_server_options *options)
{
    crew_server *server = NULL;
    crew_error why;
    gate_reset(&gate);
    assert_ok_why(crew_server_new(&server, dispatcher, options, &why), why);
    assert_ok_why(crew_server_listen(server, URL, &why), why);
    assert_ok_why(crew_server_start(server, &why), why);
    return server;
}

static void stop(crew_server *server)
{
    gate_open(&gate);
    crew_server_stop(server);
    assert_ok(crew_server_wait(server));
    crew_server_free(server);
}

static void send_pass(struct raw_end *client, const char *method, uint32_t n)
{
    char text[100];
    (void)snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":[%u],\"id\":%u}",
                   method, n, n);
    raw_request(client, crew_str(text), n, false);
}

static crew_server_stats stats_of(crew_server *server)
{
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    return stats;
}

static void calls_run_at_the_same_time(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 4 });
    raw_open(&client, URL, false);
    pthread_barrier_init(&barrier, NULL, 4);
    for (uint32_t i = 1; i <= 4; i++)
        send_pass(&client, "meet", i);
    for (uint32_t i = 1; i <= 4; i++)
        crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    pthread_barrier_destroy(&barrier);
    raw_close(&client, NULL);
    stop(server);
}

static void the_calls_of_a_batch_run_at_the_same_time_and_answer_in_order(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 4, .in_flight_max = 1 });
    raw_open(&client, URL, false);
    pthread_barrier_init(&barrier, NULL, 4);
    const char *reply = raw_call(&client,
                                 "[{\"jsonrpc\":\"2.0\",\"method\":\"meet\",\"params\":[1],\"id\":1},"
                                 "{\"jsonrpc\":\"2.0\",\"method\":\"meet\",\"params\":[2],\"id\":2},"
                                 "{\"jsonrpc\":\"2.0\",\"method\":\"note_thread\"},"
                                 "{\"jsonrpc\":\"2.0\",\"method\":\"meet\",\"params\":[3],\"id\":3},"
                                 "{\"jsonrpc\":\"2.0\",\"method\":\"meet\",\"params\":[4],\"id\":4}]",
                                 &arena);
    assert_string_equal(
        reply, "[{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1},{\"jsonrpc\":\"2.0\",\"result\":2,\"id\":2},"
               "{\"jsonrpc\":\"2.0\",\"result\":3,\"id\":3},{\"jsonrpc\":\"2.0\",\"result\":4,\"id\":4}]");
    pthread_barrier_destroy(&barrier);
    raw_close(&client, NULL);
    assert_int_equal(stats_of(server).calls, 5);
    stop(server);
}

static void messages_in_one_body_are_answered_as_they_are_completed(void **state)
{
    (void)state;
    static const char three[] =
        "\x94\x00\x01\xa4keep\x90\x94\x00\x02\xa8get_data\x90\x94\x00\x03\xa4pass\x90";
    static const char answers[] = "\x94\x01\x02\xc0\x92\xa5hello\x05\x94\x01\x01\xc0\x07\x94\x01\x03\xc0\xc0";
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 1 });
    raw_open(&client, URL, false);
    client.content_type = "application/msgpack";
    raw_request(&client, (crew_string){ three, sizeof three - 1 }, 1, false);
    assert_true(gate_await(&gate, 1)); /* the first, which is deferred */
    gate_let(&gate, 1);
    assert_true(gate_await(&gate, 2)); /* the last; by then the one thread is through with the second */
    assert_ok(crew_reply_int(kept, 7));
    gate_open(&gate);
    crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
    assert_int_equal(reply->body.size, sizeof answers - 1);
    assert_memory_equal(reply->body.data, answers, sizeof answers - 1);
    crew_message_free(reply);
    raw_close(&client, NULL);
    stop(server);
}

static void a_long_batch_does_not_keep_others_waiting(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 1 });
    raw_open(&client, URL, false);
    raw_request(&client,
                crew_str("[{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":1},"
                         "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":2},"
                         "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":3}]"),
                7, false);
    assert_true(gate_await(&gate, 1));
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":9}"), 9, false);
    while (stats_of(server).calls < 4)
        raw_nothing(&client); /* until it is decoded, and waits beside the batch */
    gate_let(&gate, 2);       /* by turns: the single call comes before the batch's last */
    crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
    assert_int_equal(reply->correlation, 9);
    crew_message_free(reply);
    gate_open(&gate);
    reply = raw_next_of(&client, CREW_EVENT_REPLY);
    assert_int_equal(reply->correlation, 7);
    crew_message_free(reply);
    raw_close(&client, NULL);
    stop(server);
}

static void in_flight_is_bounded(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 8, .in_flight_max = 2 });
    raw_open(&client, URL, false);
    for (uint32_t i = 1; i <= 5; i++)
        send_pass(&client, "pass", i);
    assert_true(gate_await(&gate, 2));
    for (int i = 0; i < 5; i++)
        crew_message_free(raw_next_of(&client, CREW_EVENT_WRITTEN));
    raw_nothing(&client);
    assert_int_equal(gate_entered(&gate), 2);
    assert_int_equal(stats_of(server).in_flight, 2);
    assert_int_equal(stats_of(server).received, 2);
    gate_open(&gate);
    for (int i = 0; i < 5; i++)
        crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    raw_close(&client, NULL);
    stop(server);
}

static void bytes_in_flight_are_bounded(void **state)
{
    (void)state;
    struct raw_end client;
    char text[3000];
    /* Of requests of 1,000 bytes, each counted as 18,000 until it is decoded: two at first, and others as it
     * turns out how little they take; a larger one than all that is allowed is taken when nothing else is in
     * flight. */
    crew_server *server = serve(&(crew_server_options){ .threads = 8, .in_flight_bytes = 20000 });
    raw_open(&client, URL, false);
    for (uint32_t i = 1; i <= 20; i++) {
        (void)snprintf(text, sizeof text,
                       "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":%u,\"x\":\"%0900d\"}", i, 0);
        raw_request(&client, crew_str(text), i, false);
    }
    assert_true(gate_await(&gate, 2));
    raw_nothing(&client);
    crew_server_stats stats = stats_of(server);
    assert_true(stats.received < 20);
    gate_open(&gate);
    for (int i = 0; i < 20; i++)
        crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    (void)snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":1,\"x\":\"%02500d\"}",
                   0);
    raw_request(&client, crew_str(text), 1, false);
    crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    raw_close(&client, NULL);
    stop(server);
}

static void what_waits_is_taken_when_decoding_frees_room(void **state)
{
    (void)state;
    struct raw_end client;
    char text[3000];
    /* The first counts as 45,000 bytes until it is decoded, and then as what it takes. */
    crew_server *server = serve(&(crew_server_options){ .threads = 2, .in_flight_bytes = 20000 });
    raw_open(&client, URL, false);
    (void)snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":1,\"x\":\"%02430d\"}",
                   0);
    raw_request(&client, crew_str(text), 1, false);
    send_pass(&client, "pass", 2);
    assert_true(gate_await(&gate, 2)); /* while the first still runs */
    gate_open(&gate);
    for (int i = 0; i < 2; i++)
        crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    raw_close(&client, NULL);
    stop(server);
}

static void *drain(void *server)
{
    crew_server_stop(server);
    return crew_server_wait(server) == CREW_OK ? server : NULL;
}

static bool is_draining(void *server)
{
    return stats_of(server).requeued > 0;
}

static void draining_finishes_what_runs_and_gives_back_what_does_not(void **state)
{
    (void)state;
    struct raw_end client;
    pthread_t thread;
    crew_server *first = serve(&(crew_server_options){ .threads = 1 });
    raw_open(&client, URL, false);
    for (uint32_t i = 1; i <= 4; i++)
        send_pass(&client, "pass", i);
    assert_true(gate_await(&gate, 1));
    while (stats_of(first).received < 4)
        raw_nothing(&client);
    pthread_create(&thread, NULL, drain, first);
    assert_true(eventually(is_draining, first));
    crew_server *second = NULL;
    /* With room for one at a time: what it is given counts once, whoever had it before. */
    assert_ok(crew_server_new(&second, dispatcher, &(crew_server_options){ .in_flight_max = 1 }, NULL));
    assert_ok(crew_server_listen(second, URL, NULL));
    assert_ok(crew_server_start(second, NULL));
    gate_open(&gate);
    for (int i = 0; i < 4; i++)
        crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    void *drained;
    pthread_join(thread, &drained);
    assert_non_null(drained);
    assert_int_equal(stats_of(first).requeued, 3);
    assert_int_equal(stats_of(first).replied, 1);
    assert_int_equal(stats_of(second).replied, 3);
    assert_int_equal(stats_of(first).in_flight, 0);
    assert_int_equal(stats_of(second).in_flight, 0);
    crew_server_free(first);
    raw_close(&client, NULL);
    stop(second);
}

static void a_drain_ends_at_its_time(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 1, .drain_ms = 50 });
    raw_open(&client, URL, false);
    send_pass(&client, "pass", 1);
    assert_true(gate_await(&gate, 1));
    crew_server_stop(server);
    assert_status(crew_server_wait(server), CREW_TIMEOUT);
    assert_status(crew_server_wait(server), CREW_CLOSED);
    gate_open(&gate); /* crew_server_free waits for the handler */
    crew_server_free(server);
    raw_close(&client, NULL);
}

static void a_second_stop_ends_the_drain_at_once(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 1, .drain_ms = 3600000 });
    raw_open(&client, URL, false);
    send_pass(&client, "pass", 1);
    assert_true(gate_await(&gate, 1));
    crew_server_stop(server);
    crew_server_stop(server);
    assert_status(crew_server_wait(server), CREW_TIMEOUT);
    gate_open(&gate);
    crew_server_free(server);
    raw_close(&client, NULL);
}

static crew_server *signalled;

static void on_signal(int number)
{
    (void)number;
    crew_server_stop(signalled);
}

static void a_signal_handler_may_stop_it(void **state)
{
    (void)state;
    signalled = serve(NULL);
    (void)signal(SIGUSR1, on_signal);
    (void)raise(SIGUSR1);
    assert_ok(crew_server_wait(signalled));
    crew_server_free(signalled);
    (void)signal(SIGUSR1, SIG_DFL);
}

static void a_server_freed_without_a_stop_just_ends(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 1 });
    raw_open(&client, URL, false);
    for (uint32_t i = 1; i <= 10; i++)
        send_pass(&client, "pass", i);
    raw_request(&client,
                crew_str("[{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":1},"
                         "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":2}]"),
                11, false);
    assert_true(gate_await(&gate, 1));
    gate_open(&gate);
    crew_server_free(server);
    raw_close(&client, NULL);
    crew_server_free(NULL);
}

static void a_stepped_server_runs_on_its_caller_s_thread(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .stepped = true });
    raw_open(&client, URL, false);
    struct pollfd fd = { .fd = crew_server_fd(server), .events = POLLIN };
    assert_int_equal(poll(&fd, 1, 0), 0);
    assert_int_equal(crew_server_step(server, 10), 0);
    send_pass(&client, "note_thread", 1);
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"note_thread\",\"id\":2}"), 2, false);
    for (size_t steps = 0; steps < 2;) {
        assert_int_equal(poll(&fd, 1, 10000), 1);
        steps += crew_server_step(server, 1);
    }
    assert_int_equal(poll(&fd, 1, 0), 0);
    assert_true(pthread_equal(last_thread, pthread_self()));
    for (int i = 0; i < 2; i++)
        crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    raw_close(&client, NULL);
    stop(server);
}

static void a_handler_can_see_that_nobody_waits_any_more(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 2, .call_timeout_ms = 300 });
    raw_open(&client, URL, false);
    gate_open(&gate);
    assert_string_equal(
        raw_call(&client, "{\"jsonrpc\":\"2.0\",\"method\":\"not_cancelled\",\"id\":1}", &arena),
        "{\"jsonrpc\":\"2.0\",\"result\":[false,false,false],\"id\":1}");
    assert_string_equal(
        raw_call(&client, "{\"jsonrpc\":\"2.0\",\"method\":\"until_cancelled\",\"id\":1}", &arena),
        "{\"jsonrpc\":\"2.0\",\"result\":[true,true,false],\"id\":1}"); /* by its deadline */
    raw_close(&client, NULL);
    stop(server);
}

static void a_drain_presses_what_runs_after_half_of_its_time(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 2, .drain_ms = 2000 });
    raw_open(&client, URL, false);
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"until_cancelled\",\"id\":1}"), 1, false);
    assert_true(gate_await(&gate, 1));
    gate_open(&gate);
    crew_server_stop(server);
    assert_ok(crew_server_wait(server)); /* in time, since the handler ends when it is told to */
    crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
    crew_buffer_append(&reply->body, "", 1);
    assert_string_equal(reply->body.data, "{\"jsonrpc\":\"2.0\",\"result\":[true,true,true],\"id\":1}");
    crew_message_free(reply);
    crew_server_free(server);
    raw_close(&client, NULL);
}

static void *free_it(void *server)
{
    crew_server_free(server);
    return NULL;
}

static void a_server_that_is_freed_tells_what_runs(void **state)
{
    (void)state;
    struct raw_end client;
    pthread_t thread;
    crew_server *server = serve(&(crew_server_options){ .threads = 2 });
    raw_open(&client, URL, false);
    atomic_store(&was_raised, -1);
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"until_cancelled\",\"id\":1}"), 1, false);
    assert_true(gate_await(&gate, 1));
    gate_open(&gate);
    pthread_create(&thread, NULL, free_it, server);
    pthread_join(thread, NULL); /* not before the handler has ended */
    assert_int_equal(atomic_load(&was_raised), 1);
    raw_close(&client, NULL);
}

static void what_has_expired_is_not_run(void **state)
{
    (void)state;
    crew_client *client = NULL;
    crew_server *server = serve(&(crew_server_options){ .threads = 1 });
    assert_ok(crew_client_new(&client, URL, NULL, NULL));
    struct raw_end raw;
    raw_open(&raw, URL, false);
    send_pass(&raw, "pass", 1); /* holds the only thread */
    assert_true(gate_await(&gate, 1));
    crew_call_options brief = { .timeout_ms = 1000 };
    crew_error why;
    assert_status(crew_client_call_value(client, "pass", NULL, &brief, NULL, &why), CREW_TIMEOUT);
    assert_int_equal(why.executed, CREW_EXECUTED_UNKNOWN);
    gate_open(&gate);
    crew_message_free(raw_next_of(&raw, CREW_EVENT_REPLY));
    assert_ok(crew_client_call(client, "get_data", NULL, &why, NULL));
    assert_int_equal(gate_entered(&gate), 1);
    assert_int_equal(stats_of(server).expired, 1);
    raw_close(&raw, NULL);
    crew_client_free(client);
    stop(server);
}

static void a_request_without_a_deadline_is_shed_when_it_waits_too_long(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 1, .call_timeout_ms = 1000 });
    raw_open(&client, URL, false);
    send_pass(&client, "pass", 1);
    assert_true(gate_await(&gate, 1));
    send_pass(&client, "pass", 2);
    while (stats_of(server).received < 2)
        raw_nothing(&client);
    int64_t late_at = crew_now_ms() + 1100;
    while (crew_now_ms() < late_at)
        raw_nothing(&client);
    gate_open(&gate);
    for (int i = 0; i < 2; i++) {
        crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
        const char *text = crew_arena_string(&arena, crew_buffer_string(&reply->body)).data;
        if (reply->correlation == 2)
            assert_contains(text, "\"rpcrew\":{\"executed\":\"no\",\"reason\":\"deadline\"}");
        crew_message_free(reply);
    }
    assert_int_equal(gate_entered(&gate), 1);
    assert_int_equal(stats_of(server).shed, 1);
    raw_close(&client, NULL);
    stop(server);
}

static void a_method_s_concurrency_is_bounded(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(&(crew_server_options){ .threads = 4 });
    raw_open(&client, URL, false);
    send_pass(&client, "pass2", 1);
    send_pass(&client, "pass2", 2);
    assert_true(gate_await(&gate, 2));
    send_pass(&client, "pass2", 3);
    crew_message *reply = raw_next_of(&client, CREW_EVENT_REPLY);
    assert_int_equal(reply->correlation, 3);
    assert_contains(crew_arena_string(&arena, crew_buffer_string(&reply->body)).data,
                    "\"reason\":\"concurrency\"");
    crew_message_free(reply);
    gate_open(&gate);
    for (int i = 0; i < 2; i++)
        crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    assert_contains(raw_call(&client, "{\"jsonrpc\":\"2.0\",\"method\":\"pass2\",\"id\":1}", &arena),
                    "result");
    raw_close(&client, NULL);
    stop(server);
}

static bool all_settled(void *server)
{
    crew_server_stats stats = stats_of(server);
    return stats.received == stats.replied + stats.done + stats.rejected && stats.in_flight == 0;
}

static void ten_thousand_malformed_messages_change_nothing(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(NULL);
    raw_open(&client, URL, false);
    for (uint32_t i = 1; i <= 10000; i++) {
        raw_request(&client, crew_str(i % 2 ? "{\"jsonrpc\":" : "\x94\x01\xFF"), i, i % 4 == 0);
        if (i % 100 == 0)
            for (int replies = 0; replies < 75; replies++)
                crew_message_free(raw_next_of(&client, CREW_EVENT_REPLY));
    }
    assert_contains(raw_call(&client, "{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":1}", &arena),
                    "hello");
    assert_true(eventually(all_settled, server));
    crew_server_stats stats = stats_of(server);
    assert_int_equal(stats.malformed, 10000);
    assert_int_equal(stats.rejected, 2500);
    assert_int_equal(stats.replied, 7501);
    raw_close(&client, NULL);
    stop(server);
}

static void a_notification_is_done_without_an_answer(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = serve(NULL);
    raw_open(&client, URL, false);
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"update\"}"), 1, false);
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"nobody\"}"), 2, false);
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":1}"), 3, true);
    while (stats_of(server).done < 3)
        (void)poll(NULL, 0, 1);
    assert_int_equal(stats_of(server).replied, 0);
    raw_close(&client, NULL);
    stop(server);
}

struct seen {
    atomic_int in, out;
};

static void see(void *context, const crew_trace *trace)
{
    struct seen *seen = context;
    if (strcmp(trace->endpoint, URL) == 0 && trace->bytes.size)
        atomic_fetch_add(trace->incoming ? &seen->in : &seen->out, 1);
}

static void the_trace_sees_every_message(void **state)
{
    (void)state;
    struct raw_end client;
    struct seen seen = { 0 };
    crew_server *server = serve(&(crew_server_options){ .trace = see, .trace_context = &seen });
    raw_open(&client, URL, false);
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"update\"}"), 1, false);
    (void)raw_call(&client, "{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":1}", &arena);
    raw_close(&client, NULL);
    stop(server);
    assert_int_equal(atomic_load(&seen.in), 2);
    assert_int_equal(atomic_load(&seen.out), 1);
}

static void a_deferred_call_may_outlive_server_and_dispatcher(void **state)
{
    (void)state;
    struct raw_end client;
    crew_dispatcher *shared = dispatcher, *own;
    assert_ok(crew_dispatcher_new(&own));
    assert_ok(crew_dispatcher_add(own, "", &service, NULL, NULL));
    dispatcher = own;
    crew_server *server = serve(&(crew_server_options){ .threads = 1, .drain_ms = 20 });
    dispatcher = shared;
    raw_open(&client, URL, false);
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"keep\",\"id\":1}"), 1, false);
    assert_true(gate_await(&gate, 1));
    gate_open(&gate);
    crew_server_stop(server);
    assert_status(crew_server_wait(server), CREW_TIMEOUT);
    crew_server_free(server);
    crew_dispatcher_free(own);
    assert_ok(crew_reply_int(kept, 1));
    raw_close(&client, NULL);
}

static void a_deferred_call_may_fail_when_its_service_is_gone(void **state)
{
    (void)state;
    struct raw_end client;
    crew_dispatcher *shared = dispatcher;
    struct {
        crew_service service;
        crew_method methods[2];
        crew_service_error errors[2];
        char params[20], name[20];
    } *own = calloc(1, sizeof *own);
    memcpy(own->params, "n:any?", 7);
    memcpy(own->name, "NAME", 5);
    own->methods[0] = (crew_method){ "keep", keep, own->params };
    own->errors[0] = (crew_service_error){ 5, own->name, own->name };
    own->service = (crew_service){ .methods = own->methods, .errors = own->errors };
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &own->service, NULL, NULL));
    crew_server *server = serve(&(crew_server_options){ .threads = 1 });
    raw_open(&client, URL, false);
    raw_request(&client, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"keep\",\"id\":1}"), 1, false);
    assert_true(gate_await(&gate, 1));
    gate_open(&gate);
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
    dispatcher = shared;
    memset(own, 'x', sizeof *own);
    free(own);
    assert_ok(crew_fail_param(kept, 0, "came too late"));
    raw_close(&client, NULL);
}

static void a_url_s_limit_goes_before_the_server_s(void **state)
{
    (void)state;
    struct raw_end client;
    crew_server *server = NULL;
    char body[6000];
    assert_ok(crew_server_new(&server, dispatcher,
                              &(crew_server_options){ .limits = { .message_bytes = 100 } }, NULL));
    assert_ok(crew_server_listen(server, "inproc://limits?max_bytes=10000", NULL));
    assert_ok(crew_server_start(server, NULL));
    raw_open(&client, "inproc://limits", false);
    (void)snprintf(body, sizeof body,
                   "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":[\"%05000d\"],\"id\":1}", 7);
    assert_contains(raw_call(&client, body, &arena), "00007\"");
    raw_close(&client, NULL);
    stop(server);
}

static const char *ask(struct raw_end *client, const char *content_type, crew_string body)
{
    client->content_type = content_type;
    raw_request(client, body, 1, false);
    crew_message *reply = raw_next_of(client, CREW_EVENT_REPLY);
    const char *text = crew_arena_string(&arena, crew_buffer_string(&reply->body)).data;
    crew_message_free(reply);
    return text;
}

/* Calls that are good but for the limit, on both wires. */
static void every_limit_is_an_endpoint_s(void **state)
{
    (void)state;
#define CALL(params) "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":" params ",\"id\":1}"
    static const char spaces[] = "                                                                      ";
    static const struct {
        const char *option, *json, *words, *msgpack;
    } cases[] = {
        { "max_bytes=250", CALL("[1]"), "bytes; at most 250 are allowed", NULL },
        { "max_string=9", CALL("[\"ten bytes.\"]"), "at most 9 are allowed",
          "\x94@\x01\xa4"
          "echo\x91\xaaten bytes." },
        { "max_items=4", CALL("[1,2,3,4,5]"), "more than 4 items",
          "\x94@\x01\xa4"
          "echo\x95\x01\x01\x01\x01\x01" },
        { "max_depth=2", CALL("[[1]]"), "nested deeper than 2",
          "\x94@\x01\xa4"
          "echo\x91\x91\x01" },
        { "max_batch=2", "[" CALL("[1]") "," CALL("[1]") "," CALL("[1]") "]", "a batch of more than 2",
          NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct raw_end client;
        crew_server *server = NULL;
        char url[64], body[700];
        (void)snprintf(url, sizeof url, "inproc://limits?%s", cases[i].option);
        (void)snprintf(body, sizeof body, "%s%s%s%s", cases[i].json, spaces, spaces, spaces);
        assert_ok(crew_server_new(&server, dispatcher, NULL, NULL));
        assert_ok(crew_server_listen(server, url, NULL));
        assert_ok(crew_server_start(server, NULL));
        raw_open(&client, "inproc://limits", false);
        const char *answer = ask(&client, "application/json", crew_str(body));
        assert_contains(answer, "-32600");
        assert_contains(answer, cases[i].words);
        assert_contains(ask(&client, "application/json", crew_str(CALL("[1]"))), "\"result\":1");
        if (cases[i].msgpack) {
            char packed[64];
            size_t size = strlen(cases[i].msgpack);
            memcpy(packed, cases[i].msgpack, size);
            packed[1] = 0; /* which no C string holds */
            assert_contains(ask(&client, "application/msgpack", (crew_string){ packed, size }) + 6,
                            "Invalid Request");
        }
        raw_close(&client, NULL);
        stop(server);
    }
#undef CALL
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    crew_server *server = NULL;
    crew_error why;
    assert_ok(crew_server_new(&server, dispatcher, NULL, &why));
    assert_status(crew_server_start(server, &why), CREW_BAD_ARGUMENT);
    assert_contains(why.message, "listens nowhere");
    assert_status(crew_server_wait(server), CREW_CLOSED);
    assert_status(crew_server_listen(server, "pigeon://roof", &why), CREW_UNSUPPORTED);
    assert_contains(why.message, "inproc");
    assert_status(crew_server_listen(server, "inproc://a/b", &why), CREW_BAD_ARGUMENT);
    assert_status(crew_server_listen(server, "inproc://a?in_flite=1", &why), CREW_BAD_ARGUMENT);
    assert_contains(why.message, "in_flight");
    assert_ok(crew_server_listen(server, "inproc://a?in_flight=1", &why));
    assert_ok(crew_server_start(server, &why));
    assert_status(crew_server_start(server, &why), CREW_BAD_ARGUMENT);
    assert_status(crew_server_listen(server, "inproc://b", &why), CREW_BAD_ARGUMENT);
    crew_server_free(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_run_at_the_same_time),
        cmocka_unit_test(the_calls_of_a_batch_run_at_the_same_time_and_answer_in_order),
        cmocka_unit_test(messages_in_one_body_are_answered_as_they_are_completed),
        cmocka_unit_test(a_long_batch_does_not_keep_others_waiting),
        cmocka_unit_test(in_flight_is_bounded),
        cmocka_unit_test(bytes_in_flight_are_bounded),
        cmocka_unit_test(what_waits_is_taken_when_decoding_frees_room),
        cmocka_unit_test(draining_finishes_what_runs_and_gives_back_what_does_not),
        cmocka_unit_test(a_drain_ends_at_its_time),
        cmocka_unit_test(a_second_stop_ends_the_drain_at_once),
        cmocka_unit_test(a_signal_handler_may_stop_it),
        cmocka_unit_test(a_server_freed_without_a_stop_just_ends),
        cmocka_unit_test(a_stepped_server_runs_on_its_caller_s_thread),
        cmocka_unit_test(a_handler_can_see_that_nobody_waits_any_more),
        cmocka_unit_test(a_drain_presses_what_runs_after_half_of_its_time),
        cmocka_unit_test(a_server_that_is_freed_tells_what_runs),
        cmocka_unit_test(what_has_expired_is_not_run),
        cmocka_unit_test(a_request_without_a_deadline_is_shed_when_it_waits_too_long),
        cmocka_unit_test(a_method_s_concurrency_is_bounded),
        cmocka_unit_test(ten_thousand_malformed_messages_change_nothing),
        cmocka_unit_test(a_notification_is_done_without_an_answer),
        cmocka_unit_test(the_trace_sees_every_message),
        cmocka_unit_test(a_deferred_call_may_outlive_server_and_dispatcher),
        cmocka_unit_test(a_deferred_call_may_fail_when_its_service_is_gone),
        cmocka_unit_test(a_url_s_limit_goes_before_the_server_s),
        cmocka_unit_test(every_limit_is_an_endpoint_s),
        cmocka_unit_test(mistakes_are_explained),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
