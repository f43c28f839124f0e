/* Calls that come back over a client's connection. The service is the test's own, on a bare socket. */
#include "support/gate.h"
#include "support/test.h"

#include <rpcrew/client.h>
#include <rpcrew/dispatcher.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000, MANY = 20000 };

static char path[100], url[120];
static int listener, peer;
static crew_client *client;
static crew_dispatcher *dispatcher;

static crew_status get_data(crew_call *call)
{
    return crew_reply(call, "[s,i]", "hello", 5);
}

/* A handler that calls, over the connection that it was called by. */
static crew_status ask_back(crew_call *call)
{
    crew_result *result;
    crew_error why;
    crew_status status = crew_client_call(client, "more", &result, &why, "");
    if (status == CREW_OK)
        status = crew_reply_value(call, crew_result_value(result));
    crew_result_free(result);
    return status;
}

static const crew_method methods[] = {
    { "get_data", get_data, "", "array", NULL, 0 },
    { "ask_back", ask_back, "", "any", NULL, 0 },
    { 0 },
};

static void accept_peer(void)
{
    struct pollfd fd = { .fd = listener, .events = POLLIN };
    assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
    peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
}

static void open_client(const crew_dispatcher *serves)
{
    crew_error why;
    const crew_client_options options = { .dispatcher = serves };
    assert_ok_why(crew_client_new(&client, url, &options, &why), why);
    accept_peer();
}

static int setup(void **state)
{
    (void)state;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    (void)snprintf(path, sizeof path, "%s", test_url("/tmp/rpcrew-serving-{new}"));
    (void)snprintf(url, sizeof url, "unix://%s", path);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    static const crew_service service = { .name = "back", .methods = methods };
    crew_error why;
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok_why(crew_dispatcher_add(dispatcher, "", &service, NULL, &why), why);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_client_free(client);
    client = NULL;
    close(peer);
    close(listener);
    (void)unlink(path);
    crew_dispatcher_free(dispatcher);
    return 0;
}

static void say(const char *line)
{
    assert_int_equal(write(peer, line, strlen(line)), strlen(line));
}

/* The next line that the client sends. */
static const char *hear(void)
{
    static char line[1000];
    size_t size = 0;
    do {
        struct pollfd fd = { .fd = peer, .events = POLLIN };
        assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
        assert_int_equal(read(peer, line + size, 1), 1);
    } while (line[size++] != '\n');
    line[size - 1] = '\0';
    return line;
}

struct outcome {
    struct gate gate;
    crew_status status;
};

static void note(void *context, crew_result *result, const crew_error *why)
{
    struct outcome *outcome = context;
    outcome->status = why->status;
    crew_result_free(result);
    gate_open(&outcome->gate);
}

static void start_call(struct outcome *outcome, const char *method)
{
    *outcome = (struct outcome){ .gate = GATE_INITIALIZER };
    assert_ok(crew_client_start(client, method, note, outcome, NULL, ""));
}

static void assert_ends(struct outcome *outcome, crew_status status)
{
    gate_pass(&outcome->gate);
    assert_status(outcome->status, status);
}

static void what_is_called_back_is_served_whatever_its_id(void **state)
{
    (void)state;
    static struct outcome first; /* it outlives a test that fails */
    open_client(dispatcher);
    start_call(&first, "first");
    assert_string_equal(hear(), "{\"jsonrpc\":\"2.0\",\"method\":\"first\",\"id\":1}");
    say("{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":1}\n");
    assert_string_equal(hear(), "{\"jsonrpc\":\"2.0\",\"result\":[\"hello\",5],\"id\":1}");
    say("{\"jsonrpc\":\"2.0\",\"method\":\"nope\",\"id\":\"x\"}\n");
    assert_contains(hear(), "-32601");
    say("{\"jsonrpc\":\"2.0\",\"method\":\"get_data\"}\n"); /* gets no answer */
    say("{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":1}\n");
    assert_ends(&first, CREW_OK);
}

static void a_handler_may_call_too(void **state)
{
    (void)state;
    open_client(dispatcher);
    say("{\"jsonrpc\":\"2.0\",\"method\":\"ask_back\",\"id\":7}\n");
    assert_string_equal(hear(), "{\"jsonrpc\":\"2.0\",\"method\":\"more\",\"id\":1}");
    say("{\"jsonrpc\":\"2.0\",\"result\":\"of it\",\"id\":1}\n");
    assert_string_equal(hear(), "{\"jsonrpc\":\"2.0\",\"result\":\"of it\",\"id\":7}");
}

static void without_a_dispatcher_it_is_told_that_there_is_no_such_method(void **state)
{
    (void)state;
    static struct outcome first; /* it outlives a test that fails */
    open_client(NULL);
    start_call(&first, "first");
    (void)hear();
    say("{\"jsonrpc\":\"2.0\",\"method\":\"update\"}\n");
    say("[{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"id\":1},{\"jsonrpc\":\"2.0\",\"method\":\"b\",\"id\":2}]"
        "\n");
    const char *answer = hear();
    assert_contains(answer, "[{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32601");
    assert_contains(answer, "\"id\":2}]");
    say("{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":1}\n");
    assert_ends(&first, CREW_OK);
}

static void more_than_wait_are_refused(void **state)
{
    (void)state;
    open_client(dispatcher);
    say("{\"jsonrpc\":\"2.0\",\"method\":\"ask_back\",\"id\":7}\n");
    (void)hear(); /* it runs, and keeps the others waiting */
    for (int i = 0; i < 65; i++)
        say("{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":8}\n");
    assert_contains(hear(), "-32040");
    say("{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":1}\n");
    for (int i = 0; i < 65; i++)
        (void)hear();
}

static void *say_it_often(void *unused)
{
    (void)unused;
    static const char line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"nope\",\"id\":8}\n";
    for (int i = 0; i < MANY; i++)
        if (write(peer, line, strlen(line)) < 0)
            break;
    return NULL;
}

static void one_that_calls_and_does_not_read_loses_answers(void **state)
{
    (void)state;
    pthread_t thread;
    static struct outcome first;
    int answers = 0;
    open_client(NULL);
    assert_int_equal(pthread_create(&thread, NULL, say_it_often, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    start_call(&first, "first");
    while (!strstr(hear(), "\"first\""))
        answers++;
    assert_true(answers > 0 && answers < MANY);
    say("{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":1}\n");
    assert_ends(&first, CREW_OK);
}

static void a_client_is_freed_while_a_handler_calls(void **state)
{
    (void)state;
    open_client(dispatcher);
    say("{\"jsonrpc\":\"2.0\",\"method\":\"ask_back\",\"id\":7}\n");
    (void)hear();
    crew_client_free(client); /* the handler's call ends as cancelled */
    client = NULL;
}

static void answers_do_not_go_to_another_connection(void **state)
{
    (void)state;
    open_client(dispatcher);
    say("{\"jsonrpc\":\"2.0\",\"method\":\"ask_back\",\"id\":7}\n");
    (void)hear();
    close(peer);
    accept_peer();               /* the client has come back, and the handler's call has ended */
    static struct outcome first; /* it outlives a test that fails */
    start_call(&first, "first");
    assert_contains(hear(), "\"method\":\"first\"");
    say("{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":2}\n");
    assert_ends(&first, CREW_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_called_back_is_served_whatever_its_id),
        TEST(a_handler_may_call_too),
        TEST(without_a_dispatcher_it_is_told_that_there_is_no_such_method),
        TEST(more_than_wait_are_refused),
        TEST(one_that_calls_and_does_not_read_loses_answers),
        TEST(a_client_is_freed_while_a_handler_calls),
        TEST(answers_do_not_go_to_another_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
