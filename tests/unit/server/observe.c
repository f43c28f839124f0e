/* Each way in which a call can end is told once, with what is known of it. */
#include "support/gate.h"
#include "support/raw.h"

#include "server/report.h"

#include "conformance/service.h"

#include <arpa/inet.h>
#include <poll.h>
#include <rpcrew/impl/message.h>
#include <sys/socket.h>
#include <unistd.h>

static struct gate gate = GATE_INITIALIZER;
static crew_call *kept;
static crew_dispatcher *dispatcher;

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

static crew_status break_down(crew_call *call)
{
    (void)call;
    return CREW_SYSTEM;
}

static crew_status twice(crew_call *call)
{
    (void)!crew_reply_int(call, 1);
    (void)!crew_fail(call, 5, "no");
    return CREW_OK;
}

static crew_status pack_badly(crew_call *call)
{
    return crew_reply(call, "{s:q}", "x", 1);
}

static const crew_method methods[] = {
    { .name = "pass", .handler = pass, .params = "", .max_concurrency = 1 },
    { .name = "keep", .handler = keep, .params = "" },
    { .name = "break_down", .handler = break_down, .params = "" },
    { .name = "twice", .handler = twice, .params = "" },
    { .name = "pack_badly", .handler = pack_badly, .params = "" },
    { 0 },
};
static const crew_service service = { .name = "test", .methods = methods };

/* What was told, in lines, of all threads. */
static struct told {
    pthread_mutex_t mutex;
    char calls[8192], changes[2048];
    int call_count, answers, written;
    bool in_order;
} told = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static void on_call(void *context, const crew_call_end *end)
{
    struct told *t = context;
    char line[400];
    pthread_mutex_lock(&t->mutex);
    (void)snprintf(line, sizeof line, "%.*s %s code=%d reason=%s id=%.*s known=%d%s%s %s in=%s out=%s\n",
                   CREW_STR(end->method), crew_ending_name(end->ending), (int)end->code,
                   end->reason ? end->reason : "-", CREW_STR(end->id), end->known,
                   end->one_way ? " one_way" : "", end->deferred ? " deferred" : "", end->protocol,
                   end->bytes_in ? "some" : "none", end->bytes_out ? "some" : "none");
    (void)strncat(t->calls, line, sizeof t->calls - strlen(t->calls) - 1);
    t->call_count++;
    t->in_order =
        t->in_order && end->received_ns && end->received_ns <= end->ended_ns &&
        (!end->started_ns || (end->received_ns <= end->started_ns && end->started_ns <= end->ended_ns)) &&
        strncmp(end->endpoint, "tcp://127.0.0.1:", 16) == 0;
    pthread_mutex_unlock(&t->mutex);
}

static void on_answer(void *context, const crew_answer_end *end)
{
    struct told *t = context;
    pthread_mutex_lock(&t->mutex);
    t->answers++;
    t->written +=
        end->status == CREW_OK && end->bytes && end->written_ns >= end->received_ns && end->received_ns;
    pthread_mutex_unlock(&t->mutex);
}

static void on_change(void *context, crew_change change, const char *endpoint, const char *peer,
                      const char *why)
{
    struct told *t = context;
    char line[300];
    (void)peer;
    pthread_mutex_lock(&t->mutex);
    (void)snprintf(line, sizeof line, "%s %s %s\n", crew_change_name(change), endpoint ? "endpoint" : "-",
                   why ? "why" : "-");
    (void)strncat(t->changes, line, sizeof t->changes - strlen(t->changes) - 1);
    pthread_mutex_unlock(&t->mutex);
}

static const crew_server_hooks hooks = { on_call, on_answer, on_change, &told };

/* Where it listens, with framing that carries any bytes. */
static char url[100];

static crew_server *serve(const char *also)
{
    const crew_server_options options = { .threads = 2 };
    crew_server *server = NULL;
    crew_error why;
    (void)snprintf(url, sizeof url, "%s",
                   test_url("tcp://127.0.0.1:{port}?framing=content-length&max_bytes=500"));
    gate_reset(&gate);
    told.calls[0] = told.changes[0] = '\0';
    told.call_count = told.answers = told.written = 0;
    told.in_order = true;
    assert_ok_why(crew_server_new(&server, dispatcher, &options, &why), why);
    assert_ok_why(crew_server_observe(server, &hooks, &why), why);
    assert_ok_why(crew_server_listen(server, url, &why), why);
    if (also)
        assert_ok_why(crew_server_listen(server, also, &why), why);
    assert_status(crew_server_observe(server, &hooks, &why), CREW_BAD_ARGUMENT);
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

static int setup(void **state)
{
    (void)state;
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    return crew_dispatcher_add(dispatcher, "", &conformance_service, NULL, NULL) == CREW_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    crew_dispatcher_free(dispatcher);
    return 0;
}

static struct raw_end client;

static bool told_of(void *count)
{
    raw_drive(&client);
    pthread_mutex_lock(&told.mutex);
    bool enough = told.call_count >= *(const int *)count;
    pthread_mutex_unlock(&told.mutex);
    return enough;
}

static bool a_peer_has_gone(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&told.mutex);
    bool gone = strstr(told.changes, "peer_gone") != NULL;
    pthread_mutex_unlock(&told.mutex);
    return gone;
}

static void forget(void)
{
    pthread_mutex_lock(&told.mutex);
    told.calls[0] = '\0';
    told.call_count = 0;
    pthread_mutex_unlock(&told.mutex);
}

static void ask(const char *request)
{
    static uint32_t number;
    raw_request(&client, crew_str(request), ++number, false);
    raw_drive(&client);
}

/* The request is told of by these lines, in any order, and no other. */
static void ends_so(const char *request, const char *const *lines)
{
    int count = 0;
    size_t size = 0;
    forget();
    ask(request);
    while (lines[count])
        size += strlen(lines[count++]);
    assert_true(eventually(told_of, &count));
    static char calls[sizeof told.calls];
    pthread_mutex_lock(&told.mutex);
    memcpy(calls, told.calls, sizeof calls);
    pthread_mutex_unlock(&told.mutex);
    for (int i = 0; i < count; i++)
        assert_contains(calls, lines[i]);
    assert_int_equal(strlen(calls), size);
}

#define ENDS_SO(request, ...) ends_so((request), (const char *const[]){ __VA_ARGS__, NULL })

static void every_end_is_told_once(void **state)
{
    (void)state;
    crew_server *server = serve(NULL);
    raw_open(&client, url, false);
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":7}",
            "add result code=0 reason=- id=7 known=1 jsonrpc in=some out=some\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"update\"}",
            "update result code=0 reason=- id= known=1 one_way jsonrpc in=some out=none\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"fail\",\"params\":[7,\"no\"],\"id\":\"x\"}",
            "fail error code=7 reason=- id=\"x\" known=1 jsonrpc in=some out=some\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"break_down\",\"id\":1}",
            "break_down failed code=-32603 reason=the operating system refused id=1 known=1 jsonrpc in=some "
            "out=some\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"break_down\"}",
            "break_down failed code=-32603 reason=the operating system refused id= known=1 one_way jsonrpc "
            "in=some "
            "out=none\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"twice\",\"id\":1}",
            "twice result code=0 reason=- id=1 known=1 jsonrpc in=some out=some\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1],\"id\":1}",
            "add bad_params code=-32602 reason=- id=1 known=1 jsonrpc in=some out=some\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"nope\",\"id\":1}",
            "nope unknown_method code=-32601 reason=- id=1 known=0 jsonrpc in=some out=some\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":5,\"id\":1}",
            " undecodable code=-32600 reason=- id=1 known=0 jsonrpc in=some out=some\n");
    ENDS_SO("{\"jsonrpc", " undecodable code=-32700 reason=- id=null known=0 jsonrpc in=some out=some\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"pack_badly\",\"id\":1}",
            "pack_badly failed code=-32603 reason=crew_pack's format '{s:q}' is none id=1 known=1 jsonrpc "
            "in=some "
            "out=some\n");
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"blob\",\"params\":[600],\"id\":1}",
            "blob failed code=-32603 reason=the answer has more bytes than max_bytes allows, or stands "
            "deeper than max_depth id=1 known=1 "
            "jsonrpc in=some out=some\n");
    ENDS_SO("[{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1},5,"
            "{\"jsonrpc\":\"2.0\",\"method\":\"update\"}]",
            "add result code=0 reason=- id=1 known=1 jsonrpc in=some out=some\n",
            " undecodable code=-32600 reason=- id=null known=0 jsonrpc in=some out=some\n",
            "update result code=0 reason=- id= known=1 one_way jsonrpc in=some out=none\n");
    raw_close(&client, NULL);
    stop(server);
    assert_true(told.in_order);
    assert_int_equal(told.answers, 11); /* of 14 messages, two of which are one-way */
    assert_int_equal(told.written, told.answers);
    assert_string_equal(told.changes,
                        "opened endpoint -\npeer_came endpoint -\npeer_gone endpoint -\ndrains - -\n"
                        "closed endpoint -\ndrained - -\n");
}

static void a_deferred_call_ends_when_it_is_completed(void **state)
{
    (void)state;
    crew_server *server = serve(NULL);
    raw_open(&client, url, false);
    ask("{\"jsonrpc\":\"2.0\",\"method\":\"keep\",\"id\":3}");
    assert_true(gate_await(&gate, 1));
    gate_open(&gate);
    assert_int_equal(told.call_count, 0);
    assert_ok(crew_reply_null(kept));
    assert_string_equal(told.calls,
                        "keep result code=0 reason=- id=3 known=1 deferred jsonrpc in=some out=some\n");
    raw_close(&client, NULL);
    stop(server);
}

static bool five_are_decoded(void *server)
{
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    return stats.calls >= 5;
}

/* A connection that is reset when it is closed: half of one would still read its answers. */
static int connect_bare(void)
{
    const struct linger none = { .l_onoff = 1 };
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    address.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none), 0);
    return fd;
}

static void send_bare(int fd, const char *request)
{
    char text[300];
    int size = snprintf(text, sizeof text, "Content-Length: %zu\r\n\r\n%s", strlen(request), request);
    assert_int_equal(send(fd, text, (size_t)size, 0), size);
}

static void observers_are_bounded(void **state)
{
    (void)state;
    crew_server *server = NULL;
    crew_error why;
    assert_ok_why(crew_server_new(&server, dispatcher, &(crew_server_options){ .metrics = true }, &why), why);
    for (int i = 0; i < 8; i++)
        assert_ok(crew_server_observe(server, &hooks, &why));
    assert_status(crew_server_observe(server, &hooks, &why), CREW_LIMIT);
    assert_contains(why.message, "8 observers");
    crew_server_free(server);
}

static struct gate held = GATE_INITIALIZER;

static void hold_up(void *context, crew_change change, const char *endpoint, const char *peer,
                    const char *why)
{
    (void)context;
    (void)endpoint;
    (void)peer;
    (void)why;
    if (change == CREW_PEER_CAME)
        gate_pass(&held);
}

static bool is_alive(void *server)
{
    return crew_report_alive(server);
}

static bool is_not_alive(void *server)
{
    return !is_alive(server);
}

/* Its pool may be full; but not its thread be held up. */
static void an_endpoint_whose_thread_stands_still_is_not_alive(void **state)
{
    (void)state;
    crew_server *server = NULL;
    crew_error why;
    const crew_server_hooks holds = { .change = hold_up };
    gate_reset(&gate);
    gate_reset(&held);
    (void)snprintf(url, sizeof url, "%s", test_url("tcp://127.0.0.1:{port}?framing=content-length"));
    assert_ok_why(crew_server_new(&server, dispatcher, &(crew_server_options){ .threads = 1 }, &why), why);
    assert_ok_why(crew_server_observe(server, &holds, &why), why);
    assert_ok_why(crew_server_listen(server, url, &why), why);
    assert_true(crew_report_alive(server)); /* it has not begun yet */
    assert_ok_why(crew_server_start(server, &why), why);
    assert_true(eventually(is_alive, server));
    raw_open(&client, url, false);
    ask("{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":1}");
    assert_true(gate_await(&held, 1));
    assert_true(eventually(is_not_alive, server));
    for (int i = 0; i < 3; i++)
        assert_false(crew_report_alive(server));
    gate_open(&held);
    assert_true(gate_await(&gate, 1)); /* the only thread is inside */
    for (int i = 0; i < 3; i++)
        assert_true(eventually(is_alive, server));
    raw_close(&client, NULL);
    stop(server);
}

/* One is inside, and another one too many; a third one's caller goes; a fourth's waits no more. */
static void what_is_not_run_is_told_with_its_reason(void **state)
{
    (void)state;
    struct raw_end other = { 0 };
    crew_server *server = serve("inproc://observe");
    raw_open(&other, "inproc://observe", false);
    raw_open(&client, url, false);
    ask("{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":1}");
    assert_true(gate_await(&gate, 1));
    ENDS_SO("{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"id\":2}",
            "pass shed code=-32040 reason=concurrency id=2 known=1 jsonrpc in=some out=some\n");
    ask("{\"jsonrpc\":\"2.0\",\"method\":\"keep\",\"id\":4}");
    assert_true(gate_await(&gate, 2)); /* both threads are inside now */
    forget();
    other.timeout_ms = 1000;
    raw_request(&other, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":6}"), 6,
                false);
    raw_drive(&other);
    int fd = connect_bare();
    send_bare(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":5}");
    assert_true(eventually(five_are_decoded, server));
    close(fd);
    assert_true(eventually(a_peer_has_gone, NULL));
    int64_t until = crew_now_ms() + 1001; /* the fourth's deadline passes */
    while (crew_now_ms() < until)
        (void)poll(NULL, 0, 10);
    gate_open(&gate);
    assert_ok(crew_reply_null(kept));
    raw_close(&client, NULL);
    raw_close(&other, NULL);
    crew_server_stop(server);
    assert_ok(crew_server_wait(server));
    assert_int_equal(told.call_count, 4);
    assert_contains(told.calls, "add cancelled code=-32043 reason=cancelled id=5 known=1 jsonrpc");
    assert_contains(told.calls, "add expired code=0 reason=deadline id=6 known=1");
    crew_server_free(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_end_is_told_once),
        cmocka_unit_test(a_deferred_call_ends_when_it_is_completed),
        cmocka_unit_test(what_is_not_run_is_told_with_its_reason),
        cmocka_unit_test(an_endpoint_whose_thread_stands_still_is_not_alive),
        cmocka_unit_test(observers_are_bounded),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
