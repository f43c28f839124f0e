/* The I/O thread of an endpoint: how often it wakes, and when the other end never gets as far as speaking. */
#include "support/test.h"

#include "server/server.h"

#include <rpcrew/client.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LONG_MS = 600000 };

/* A host that takes connections and says nothing. */
static int silent_host;
static char url[100];

static int setup(void **state)
{
    (void)state;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    silent_host = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(silent_host, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(silent_host, 8), 0);
    assert_int_equal(getsockname(silent_host, (struct sockaddr *)&address, &size), 0);
    (void)snprintf(url, sizeof url, "amqp://127.0.0.1:%d/?queue=x", ntohs(address.sin_port));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(silent_host);
    return 0;
}

/* The connection that somebody is trying to log in on. */
static int accept_one(void)
{
    struct pollfd fd = { .fd = silent_host, .events = POLLIN };
    assert_int_equal(poll(&fd, 1, 10000), 1);
    return accept(silent_host, NULL, NULL);
}

/* Whether the other end still waits to be spoken to. */
static bool still_tries(int connection)
{
    char greeting[64];
    for (;;) {
        ssize_t got = recv(connection, greeting, sizeof greeting, MSG_DONTWAIT);
        if (got <= 0)
            return got < 0;
    }
}

static void deadlines_are_kept_while_a_host_does_not_answer(void **state)
{
    (void)state;
    crew_client *client;
    crew_error why;
    assert_ok(crew_client_new(&client, url, &(crew_client_options){ .connect_timeout_ms = 3000 }, &why));
    int connection = accept_one();
    const crew_call_options options = { .timeout_ms = 50 };
    for (int i = 0; i < 3; i++) {
        assert_status(crew_client_call_value(client, "m", NULL, &options, NULL, &why), CREW_NO_SERVICE);
        assert_int_equal(why.executed, CREW_EXECUTED_NO);
    }
    assert_true(still_tries(connection)); /* so the calls did not wait for it */
    close(connection);
    crew_client_free(client);
}

static bool has_stopped(void *connection)
{
    return !still_tries(*(int *)connection);
}

static void an_attempt_ends_by_its_timeout(void **state)
{
    (void)state;
    crew_client *client;
    assert_ok(crew_client_new(&client, url, &(crew_client_options){ .connect_timeout_ms = 100 }, NULL));
    int connection = accept_one();
    assert_true(eventually(has_stopped, &connection));
    close(connection);
    close(accept_one()); /* the next one */
    crew_client_free(client);
}

static void note_status(void *context, crew_result *result, const crew_error *why)
{
    *(crew_status *)context = why->status;
    crew_result_free(result);
}

static void freeing_a_client_that_is_connecting_cancels_its_calls(void **state)
{
    (void)state;
    crew_client *client;
    crew_status ended = CREW_OK;
    assert_ok(crew_client_new(&client, url, &(crew_client_options){ .connect_timeout_ms = 200 }, NULL));
    assert_ok(crew_client_start(client, "m", note_status, &ended, NULL, NULL));
    crew_client_free(client);
    assert_status(ended, CREW_CANCELLED);
}

static void a_worker_says_what_it_waited_for(void **state)
{
    (void)state;
    crew_dispatcher *dispatcher;
    crew_server *server;
    crew_error why;
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(
        crew_server_new(&server, dispatcher, &(crew_server_options){ .connect_timeout_ms = 100 }, &why));
    assert_status(crew_server_listen(server, url, &why), CREW_NO_SERVICE);
    assert_non_null(strstr(why.message, "login"));
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
}

static size_t count_threads(void)
{
    size_t count = 0;
    DIR *all = opendir("/proc/self/task");
    for (const struct dirent *entry; (entry = readdir(all));)
        count += entry->d_name[0] != '.';
    closedir(all);
    return count;
}

static bool are_no_more(void *before)
{
    return count_threads() <= *(const size_t *)before;
}

static void no_thread_outlives_its_client(void **state)
{
    (void)state;
    size_t before = count_threads();
    for (int i = 0; i < 50; i++) {
        crew_client *client;
        assert_ok(
            crew_client_new(&client, url, &(crew_client_options){ .connect_timeout_ms = LONG_MS }, NULL));
        if (i % 2) /* so that it has begun to connect */
            close(accept_one());
        crew_client_free(client);
    }
    assert_true(eventually(are_no_more, &before));
}

static void *stop(void *server)
{
    int connection = accept_one();
    crew_server_stop(server);
    (void)eventually(has_stopped, &connection);
    close(connection);
    return NULL;
}

static void a_worker_that_connects_can_be_stopped(void **state)
{
    (void)state;
    crew_dispatcher *dispatcher;
    crew_server *server;
    crew_error why;
    pthread_t thread;
    assert_ok(crew_dispatcher_new(&dispatcher));
    const crew_server_options options = { .connect_timeout_ms = LONG_MS, .wait = true };
    assert_ok(crew_server_new(&server, dispatcher, &options, &why));
    assert_status(crew_server_listen(server, "amqp://127.0.0.1:1/", &why), CREW_BAD_ARGUMENT);
    assert_int_equal(pthread_create(&thread, NULL, stop, server), 0);
    assert_status(crew_server_listen(server, url, &why), CREW_CLOSED);
    pthread_join(thread, NULL);
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
}

static unsigned rounds_of(const crew_server *server)
{
    return atomic_load(&server->endpoints[0]->rounds);
}

static void tcp_url(char *text, size_t room)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(probe, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(probe, (struct sockaddr *)&address, &size), 0);
    close(probe);
    (void)snprintf(text, room, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
}

/* A worker and its client. */
struct pair {
    crew_dispatcher *dispatcher;
    crew_server *server;
    crew_client *client;
};

static struct pair start_pair(const char *at)
{
    struct pair pair;
    crew_error why;
    assert_ok(crew_dispatcher_new(&pair.dispatcher));
    assert_ok(crew_server_new(&pair.server, pair.dispatcher, NULL, &why));
    assert_ok(crew_server_listen(pair.server, at, &why));
    assert_ok(crew_server_start(pair.server, &why));
    assert_ok(crew_client_new(&pair.client, at, NULL, &why));
    assert_ok(crew_client_call(pair.client, "rpc.ping", NULL, &why, NULL));
    return pair;
}

static void end_pair(const struct pair *pair)
{
    crew_client_free(pair->client);
    crew_server_free(pair->server);
    crew_dispatcher_free(pair->dispatcher);
}

static atomic_bool pumps;
static uint64_t pumped; /* the client's I/O thread's, but for the first */

static bool all_were_received(void *server)
{
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    return stats.received >= pumped;
}

/* Each one-way call that is done starts the next, when the worker has received it: else they would wait for
 * room in the end, and answers be read meanwhile. */
static void pump(void *context, crew_result *result, const crew_error *why)
{
    const struct pair *pair = context;
    const crew_call_options options = { .one_way = true };
    crew_result_free(result);
    if (!atomic_load(&pumps) || (why && why->status != CREW_OK))
        return;
    assert_true(eventually(all_were_received, pair->server));
    pumped++;
    assert_ok(crew_client_start_value(pair->client, "rpc.ping", NULL, &options, pump, context, NULL, NULL));
}

static void calls_that_start_one_another_hold_up_no_answers(void **state)
{
    (void)state;
    char at[100];
    tcp_url(at, sizeof at);
    struct pair pair = start_pair(at);
    const crew_call_options options = { .timeout_ms = 5000 };
    crew_error why;
    atomic_store(&pumps, true);
    pumped = 0;
    pump(&pair, NULL, NULL);
    for (int i = 0; i < 20; i++)
        assert_ok_why(crew_client_call_value(pair.client, "rpc.ping", NULL, &options, NULL, &why), why);
    atomic_store(&pumps, false);
    end_pair(&pair);
}

/* One call after another: one wakes it with its request, and with its answer, and nothing else does. */
static void expect_two_rounds_a_call(const char *at)
{
    enum { CALLS = 200, OTHERS = 20 };
    const struct pair pair = start_pair(at);
    crew_error why;
    unsigned before = rounds_of(pair.server);
    for (int i = 0; i < CALLS; i++)
        assert_ok(crew_client_call(pair.client, "rpc.ping", NULL, &why, NULL));
    assert_true(rounds_of(pair.server) - before <= 2 * CALLS + OTHERS);
    end_pair(&pair);
}

static void a_call_wakes_a_worker_twice(void **state)
{
    char at[100];
    (void)state;
    (void)snprintf(at, sizeof at, "unix://@rpcrew-rounds-%d", (int)getpid());
    expect_two_rounds_a_call(at);
    tcp_url(at, sizeof at);
    expect_two_rounds_a_call(at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(deadlines_are_kept_while_a_host_does_not_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(an_attempt_ends_by_its_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(freeing_a_client_that_is_connecting_cancels_its_calls, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(no_thread_outlives_its_client, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_that_connects_can_be_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_says_what_it_waited_for, setup, teardown),
        cmocka_unit_test(a_call_wakes_a_worker_twice),
        cmocka_unit_test(calls_that_start_one_another_hold_up_no_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
