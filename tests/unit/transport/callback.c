#include "support/gate.h"
#include "support/test.h"

#include "conformance/service.h"

#include <rpcrew/impl/message.h>

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MOST = 64, PATIENCE_MS = 10000 };

/* What the test's own transport is: requests in a row, replies as they come. */
static struct post {
    pthread_mutex_t mutex;
    int fd; /* readable while requests wait */
    crew_request requests[MOST];
    size_t count, taken;
    crew_status failure; /* what receive returns next, if not CREW_OK */
    unsigned failures;
    struct {
        size_t route;
        crew_status status;
        char content_type[40], text[400];
    } replies[MOST];
    size_t reply_count;
} post = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static struct gate gate = GATE_INITIALIZER;
static crew_dispatcher *dispatcher;
static crew_server *server;
static crew_call *kept;

static crew_status pass(crew_call *call)
{
    gate_pass(&gate);
    return crew_reply_null(call);
}

static crew_status keep(crew_call *call)
{
    kept = crew_call_defer(call);
    gate_pass(&gate);
    return CREW_OK;
}

static crew_status left(crew_call *call)
{
    return crew_reply_int(call, crew_call_remaining_ms(call));
}

/* Whether it was taken back, once that is known. */
static crew_status await_cancel(crew_call *call)
{
    struct pollfd fd = { .fd = crew_call_cancel_fd(call), .events = POLLIN };
    gate_pass(&gate);
    (void)poll(&fd, 1, 60000);
    return crew_reply_bool(call, crew_call_cancelled(call));
}

static const crew_method methods[] = { { "await_cancel", await_cancel, "" },
                                       { "pass", pass, "" },
                                       { "keep", keep, "" },
                                       { "left", left, "" },
                                       { 0 } };
static const crew_service service = { .name = "test", .methods = methods };

static crew_status receive(void *context, int wake_fd, int timeout_ms, crew_request *request)
{
    struct post *mine = context;
    struct pollfd fds[] = { { .fd = mine->fd, .events = POLLIN }, { .fd = wake_fd, .events = POLLIN } };
    (void)poll(fds, 2, timeout_ms);
    pthread_mutex_lock(&mine->mutex);
    crew_status status = mine->failure;
    mine->failure = CREW_OK;
    if (status != CREW_OK)
        mine->failures++;
    if (status == CREW_OK && mine->taken == mine->count)
        status = CREW_TIMEOUT;
    if (status == CREW_OK) {
        *request = mine->requests[mine->taken++];
        uint64_t one;
        (void)!read(mine->fd, &one, sizeof one);
    }
    pthread_mutex_unlock(&mine->mutex);
    return status;
}

static void reply(void *context, void *route, const crew_answer *answer)
{
    struct post *mine = context;
    pthread_mutex_lock(&mine->mutex);
    size_t at = mine->reply_count++;
    mine->replies[at].route = (size_t)(uintptr_t)route;
    mine->replies[at].status = answer->status;
    (void)snprintf(mine->replies[at].content_type, sizeof mine->replies[at].content_type, "%s",
                   answer->content_type ? answer->content_type : "");
    (void)snprintf(mine->replies[at].text, sizeof mine->replies[at].text, "%.*s", CREW_STR(answer->bytes));
    pthread_mutex_unlock(&mine->mutex);
}

static const crew_callbacks callbacks = { .receive = receive, .reply = reply, .context = &post };

static void put(size_t route, crew_request request)
{
    uint64_t one = 1;
    request.route = (void *)(uintptr_t)route;
    pthread_mutex_lock(&post.mutex);
    post.requests[post.count++] = request;
    pthread_mutex_unlock(&post.mutex);
    assert_int_equal(write(post.fd, &one, sizeof one), sizeof one);
}

static void put_text(size_t route, const char *text)
{
    put(route, (crew_request){ .bytes = crew_str(text) });
}

static bool replied(void *count)
{
    pthread_mutex_lock(&post.mutex);
    bool there = post.reply_count >= *(size_t *)count;
    pthread_mutex_unlock(&post.mutex);
    return there;
}

static bool all_are_taken(void *ignored)
{
    (void)ignored;
    pthread_mutex_lock(&post.mutex);
    bool all = post.taken == post.count;
    pthread_mutex_unlock(&post.mutex);
    return all;
}

static void await(size_t count)
{
    assert_true(eventually(replied, &count));
    assert_int_equal(post.reply_count, count);
}

static int setup(void **state)
{
    (void)state;
    crew_error why;
    gate_reset(&gate);
    post.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    post.count = post.taken = post.reply_count = post.failures = 0;
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    assert_ok(crew_dispatcher_add(dispatcher, "", &conformance_service, NULL, NULL));
    assert_ok(crew_server_new(&server, dispatcher, &(crew_server_options){ .threads = 2 }, &why));
    assert_ok_why(crew_server_listen_with(server, "callback://test?in_flight=2&error=data", &callbacks, &why),
                  why);
    assert_ok(crew_server_start(server, &why));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gate_open(&gate);
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
    close(post.fd);
    return 0;
}

static void each_request_gets_its_reply(void **state)
{
    (void)state;
    put_text(7, "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1}");
    await(1);
    assert_int_equal(post.replies[0].route, 7);
    assert_string_equal(post.replies[0].content_type, "application/json");
    assert_string_equal(post.replies[0].text, "{\"jsonrpc\":\"2.0\",\"result\":3,\"id\":1}");
    put_text(8, "rubbish");
    await(2);
    assert_int_equal(post.replies[1].route, 8);
    assert_contains(post.replies[1].text, "-32700");
}

static void the_content_type_is_looked_at(void **state)
{
    (void)state;
    char type[] = "application/msgpack";
    put(1, (crew_request){ .bytes = crew_str("{}"), .content_type = type });
    await(1);
    assert_string_equal(post.replies[0].content_type, "application/msgpack");
}

static void what_has_no_answer_has_an_empty_reply(void **state)
{
    (void)state;
    put_text(1, "{\"jsonrpc\":\"2.0\",\"method\":\"update\"}");
    await(1);
    put(2, (crew_request){ .bytes =
                               crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1}"),
                           .one_way = true });
    await(2);
    put(3, (crew_request){ .bytes = crew_str("rubbish"), .one_way = true });
    await(3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(post.replies[i].route, i + 1);
        assert_string_equal(post.replies[i].text, "");
        assert_string_equal(post.replies[i].content_type, "");
        assert_status(post.replies[i].status, CREW_OK);
    }
}

static void a_request_s_time_is_its_call_s(void **state)
{
    (void)state;
    put(1, (crew_request){ .bytes = crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"left\",\"id\":1}"),
                           .timeout_ms = 3600000 });
    await(1);
    long long ms = -1;
    assert_int_equal(sscanf(post.replies[0].text, "{\"jsonrpc\":\"2.0\",\"result\":%lld", &ms), 1);
    assert_true(ms > 3500000 && ms <= 3600000);
}

static void headers_reach_the_handler(void **state)
{
    (void)state;
    static const char ask[] = "{\"jsonrpc\":\"2.0\",\"method\":\"headers\",\"id\":1}";
    crew_arena *arena;
    const crew_value *headers;
    assert_ok(crew_arena_new(&arena));
    assert_ok(crew_pack(arena, &headers, "{s:s}", "Host", "example"));
    put(1, (crew_request){ .bytes = crew_str(ask), .headers = headers });
    await(1);
    assert_string_equal(post.replies[0].text,
                        "{\"jsonrpc\":\"2.0\",\"result\":{\"Host\":\"example\"},\"id\":1}");
    put_text(2, ask);
    await(2);
    assert_string_equal(post.replies[1].text, "{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":1}");
    assert_ok(crew_pack(arena, &headers, "[s]", "no object"));
    put(3, (crew_request){ .bytes = crew_str(ask), .headers = headers });
    await(3);
    assert_int_equal(post.replies[2].status, CREW_BAD_ARGUMENT);
    crew_arena_free(arena);
}

static void a_running_call_is_told_that_it_was_taken_back(void **state)
{
    (void)state;
    gate_open(&gate);
    put_text(1, "{\"jsonrpc\":\"2.0\",\"method\":\"await_cancel\",\"id\":1}");
    assert_true(gate_await(&gate, 1));
    assert_false(crew_server_cancel(server, (void *)(uintptr_t)2));
    assert_true(crew_server_cancel(server, (void *)(uintptr_t)1));
    await(1);
    assert_string_equal(post.replies[0].text, "{\"jsonrpc\":\"2.0\",\"result\":true,\"id\":1}");
    assert_false(crew_server_cancel(server, (void *)(uintptr_t)1));
}

static void what_was_taken_back_before_it_began_is_not_run(void **state)
{
    (void)state;
    static const char text[] = "[{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":1},"
                               "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":2},"
                               "{\"jsonrpc\":\"2.0\",\"method\":\"notify_hello\"},"
                               "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":3}]";
    put_text(1, text);
    assert_true(gate_await(&gate, 2)); /* both threads are in handlers */
    assert_true(crew_server_cancel(server, (void *)(uintptr_t)1));
    gate_open(&gate);
    await(1);
    assert_non_null(strstr(post.replies[0].text, "\"reason\":\"cancelled\""));
    assert_non_null(strstr(post.replies[0].text, "\"executed\":\"no\""));
    assert_non_null(strstr(post.replies[0].text, "{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":1}"));
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.shed, 2);
}

static const char brief_text[] = "{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":1}";
static const char pass_text[] = "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":1}";

static void no_more_are_received_than_may_be_in_flight(void **state)
{
    (void)state;
    for (size_t i = 1; i <= 5; i++)
        put_text(i, pass_text);
    assert_true(gate_await(&gate, 2));
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    assert_int_equal(stats.in_flight, 2);
    pthread_mutex_lock(&post.mutex);
    assert_int_equal(post.taken, 2);
    pthread_mutex_unlock(&post.mutex);
    gate_open(&gate);
    await(5);
}

static void a_request_whose_time_is_over_is_not_run(void **state)
{
    (void)state;
    crew_server_free(server); /* for one with a single thread, which is busy */
    crew_error why;
    assert_ok(crew_server_new(&server, dispatcher, &(crew_server_options){ .threads = 1 }, &why));
    assert_ok_why(crew_server_listen_with(server, "callback://test", &callbacks, &why), why);
    assert_ok(crew_server_start(server, &why));
    put_text(1, pass_text);
    assert_true(gate_await(&gate, 1));
    put(2, (crew_request){ .bytes = crew_str(brief_text), .timeout_ms = 1 });
    put_text(3, brief_text);
    assert_true(eventually(all_are_taken, NULL));
    int64_t late_at = crew_now_ms() + 5;
    while (crew_now_ms() < late_at)
        continue;
    gate_open(&gate);
    await(3);
    for (size_t i = 0; i < 3; i++)
        assert_status(post.replies[i].status, post.replies[i].route == 2 ? CREW_EXPIRED : CREW_OK);
}

static void a_drain_answers_all_that_was_received(void **state)
{
    (void)state;
    for (size_t i = 1; i <= 5; i++)
        put_text(i, pass_text);
    assert_true(gate_await(&gate, 2));
    crew_server_stop(server);
    gate_open(&gate);
    assert_ok(crew_server_wait(server));
    assert_true(post.taken >= 2 && post.reply_count == post.taken);
    for (size_t i = 0; i < post.taken; i++)
        assert_contains(post.replies[i].text, "\"id\":1");
    size_t taken = post.taken;
    put_text(6, pass_text);
    crew_server_free(server);
    server = NULL;
    assert_int_equal(post.taken, taken);
}

static void a_server_that_ends_leaves_no_request_without_a_reply(void **state)
{
    (void)state;
    gate_open(&gate);
    put_text(1, "{\"jsonrpc\":\"2.0\",\"method\":\"keep\",\"id\":1}");
    assert_true(gate_await(&gate, 1));
    crew_server_free(server);
    server = NULL;
    await(1);
    assert_string_equal(post.replies[0].text, "");
    assert_status(post.replies[0].status, CREW_CLOSED);
    assert_ok(crew_reply_int(kept, 1));
    assert_int_equal(post.reply_count, 1);
}

static void a_failure_ends_the_opening_and_the_next_one_goes_on(void **state)
{
    (void)state;
    put_text(1, pass_text);
    assert_true(gate_await(&gate, 1));
    pthread_mutex_lock(&post.mutex);
    post.failure = CREW_DISCONNECTED;
    pthread_mutex_unlock(&post.mutex);
    put_text(2, "{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":2}"); /* which wakes it up */
    await(2);
    assert_int_equal(post.failures, 1);
    assert_int_equal(post.replies[0].route, 1); /* its connection is gone */
    assert_string_equal(post.replies[0].text, "");
    assert_status(post.replies[0].status, CREW_CLOSED);
    assert_int_equal(post.replies[1].route, 2);
    assert_contains(post.replies[1].text, "hello");
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    crew_server *other = NULL;
    crew_client *client = NULL;
    crew_error why;
    assert_ok(crew_server_new(&other, dispatcher, NULL, &why));
    assert_status(crew_server_listen(other, "callback://test", &why), CREW_BAD_ARGUMENT);
    assert_contains(why.message, "crew_server_listen_with");
    assert_status(crew_server_listen_with(other, "callback://", &callbacks, &why), CREW_BAD_ARGUMENT);
    assert_contains(why.message, "wants one name");
    assert_status(crew_server_listen_with(other, "callback://a?queue_max=1", &callbacks, &why),
                  CREW_BAD_ARGUMENT);
    assert_status(crew_server_listen_with(other, "inproc://a", &callbacks, &why), CREW_BAD_ARGUMENT);
    assert_contains(why.message, "wants callback://name");
    assert_status(
        crew_server_listen_with(other, "callback://a", &(crew_callbacks){ .receive = receive }, &why),
        CREW_BAD_ARGUMENT);
    assert_status(crew_client_new(&client, "callback://test", NULL, &why), CREW_UNSUPPORTED);
    assert_contains(why.message, "nothing can be called there");
    crew_server_free(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_request_gets_its_reply),
        TEST(the_content_type_is_looked_at),
        TEST(what_has_no_answer_has_an_empty_reply),
        TEST(a_request_s_time_is_its_call_s),
        TEST(headers_reach_the_handler),
        TEST(a_running_call_is_told_that_it_was_taken_back),
        TEST(what_was_taken_back_before_it_began_is_not_run),
        TEST(no_more_are_received_than_may_be_in_flight),
        TEST(a_request_whose_time_is_over_is_not_run),
        TEST(a_drain_answers_all_that_was_received),
        TEST(a_server_that_ends_leaves_no_request_without_a_reply),
        TEST(a_failure_ends_the_opening_and_the_next_one_goes_on),
        TEST(mistakes_are_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
