/* What a caller is told of its calls over a stream whose other end reads slowly or goes. The service is the
 * test's own, on a bare socket. */
#include "support/gate.h"
#include "support/test.h"

#include <rpcrew/client.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000, LARGE = 8 << 20 };

static char path[100], url[120];
static char *large;
static int listener, peer;
static crew_client *client;

struct outcome {
    struct gate gate;
    crew_error why;
};

static struct outcome outcomes[3];

static int setup(void **state)
{
    (void)state;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    crew_error why;
    (void)snprintf(path, sizeof path, "%s", test_url("/tmp/rpcrew-streams-{new}"));
    (void)snprintf(url, sizeof url, "unix://%s", path);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_ok_why(crew_client_new(&client, url, NULL, &why), why);
    struct pollfd fd = { .fd = listener, .events = POLLIN };
    assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
    peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    large = malloc(LARGE + 1);
    memset(large, 'x', LARGE);
    large[LARGE] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_client_free(client);
    close(peer);
    close(listener);
    (void)unlink(path);
    free(large);
    return 0;
}

static void note(void *context, crew_result *result, const crew_error *why)
{
    struct outcome *outcome = context;
    outcome->why = *why;
    crew_result_free(result);
    gate_open(&outcome->gate);
}

static struct outcome *start(int index, const char *method, const char *text, bool one_way,
                             unsigned timeout_ms)
{
    struct outcome *outcome = &outcomes[index];
    crew_arena arena = { 0 };
    const crew_value *params;
    const crew_call_options options = { .timeout_ms = timeout_ms, .one_way = one_way };
    *outcome = (struct outcome){ .gate = GATE_INITIALIZER };
    assert_ok(crew_pack(&arena, &params, "[s]", text));
    assert_ok(crew_client_start_value(client, method, params, &options, note, outcome, NULL, NULL));
    crew_arena_fini(&arena);
    return outcome;
}

static void assert_ends(struct outcome *outcome, crew_status status, crew_executed executed)
{
    gate_pass(&outcome->gate);
    assert_status(outcome->why.status, status);
    assert_int_equal(outcome->why.executed, executed);
}

/* Reads until a line has come that has this text, and asserts that none has that one. */
static void read_until(const char *wanted, const char *unwanted)
{
    size_t size = 0, room = LARGE + 100000;
    char *all = malloc(room);
    for (bool found = false; !found;) {
        struct pollfd fd = { .fd = peer, .events = POLLIN };
        assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
        ssize_t count = read(peer, all + size, room - size - 1);
        assert_true(count > 0);
        size += (size_t)count;
        all[size] = '\0';
        found = strstr(all, wanted) != NULL && all[size - 1] == '\n';
    }
    assert_null(strstr(all, unwanted));
    free(all);
}

static void what_is_told_as_not_executed_does_not_arrive(void **state)
{
    (void)state;
    struct outcome *first = start(0, "large", large, false, 300),
                   *second = start(1, "unsent", "", false, 300);
    assert_ends(first, CREW_TIMEOUT, CREW_EXECUTED_UNKNOWN);
    assert_ends(second, CREW_EXPIRED, CREW_EXECUTED_NO);
    (void)start(2, "later", "", false, PATIENCE_MS);
    read_until("\"later\"", "\"unsent\"");
}

static void a_one_way_call_that_has_begun_may_be_executed(void **state)
{
    (void)state;
    struct outcome *first = start(0, "large", large, true, 300);
    assert_ends(first, CREW_TIMEOUT, CREW_EXECUTED_UNKNOWN);
    (void)start(1, "later", "", false, PATIENCE_MS);
    read_until("\"later\"", "no such thing");
}

static void a_one_way_call_is_done_when_all_of_it_is_out(void **state)
{
    (void)state;
    struct outcome *first = start(0, "large", large, true, PATIENCE_MS);
    read_until("\"large\"", "no such thing");
    gate_pass(&first->gate);
    assert_status(first->why.status, CREW_OK);
}

static void a_lost_connection_ends_what_has_begun_at_once(void **state)
{
    (void)state;
    char some[100];
    struct outcome *first = start(0, "large", large, true, 3600000);
    assert_true(read(peer, some, sizeof some) > 0);
    close(listener); /* and nobody is there any more */
    close(peer);
    peer = listener = dup(0);
    assert_ends(first, CREW_DISCONNECTED, CREW_EXECUTED_UNKNOWN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_told_as_not_executed_does_not_arrive),
        TEST(a_one_way_call_that_has_begun_may_be_executed),
        TEST(a_one_way_call_is_done_when_all_of_it_is_out),
        TEST(a_lost_connection_ends_what_has_begun_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
