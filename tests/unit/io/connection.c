/* Opening on a thread of its own, with a transport that opens when the test lets it. */
#include "support/gate.h"
#include "support/test.h"

#include "io/connection.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

static struct gate gate = GATE_INITIALIZER;
static atomic_int opened, closed;
static crew_status outcome;
static crew_queue queue;
static crew_url *url;

static crew_status open_slowly(void *state, const crew_transport_config *config, crew_error *why)
{
    (void)config;
    *(int *)state = 1;
    gate_pass(&gate);
    atomic_fetch_add(&opened, 1);
    return outcome == CREW_OK ? CREW_OK : crew_error_set(why, outcome, "no");
}

static void close_it(void *state, unsigned linger_ms, crew_list *unsent)
{
    (void)linger_ms;
    (void)unsent;
    *(int *)state = 0;
    atomic_fetch_add(&closed, 1);
}

static const struct crew_transport_ops ops = { .size = sizeof(int), .open = open_slowly, .close = close_it };

static int setup(void **state)
{
    (void)state;
    gate_reset(&gate);
    atomic_store(&opened, 0);
    atomic_store(&closed, 0);
    outcome = CREW_OK;
    assert_ok(crew_queue_init(&queue, 0, NULL));
    assert_ok(crew_url_parse("slow://host", &url, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_queue_fini(&queue);
    crew_url_free(url);
    return 0;
}

static struct crew_connection *start(void)
{
    struct crew_connection *connection =
        crew_connection_new(&ops, false, url, &(crew_transport_config){ .in_flight_max = 1 }, &queue);
    assert_non_null(connection);
    crew_connection_open(connection);
    assert_true(gate_await(&gate, 1));
    return connection;
}

static bool has_closed(void *unused)
{
    (void)unused;
    return atomic_load(&closed) == 1;
}

static void await_wake_up(void)
{
    struct pollfd fd = { .fd = queue.fd, .events = POLLIN };
    assert_int_equal(poll(&fd, 1, 10000), 1);
}

static void it_tells_when_it_is_through(void **state)
{
    (void)state;
    crew_error why;
    struct crew_connection *connection = start();
    assert_false(crew_connection_is_through(connection, &why));
    gate_open(&gate);
    await_wake_up();
    assert_true(crew_connection_is_through(connection, &why));
    assert_status(why.status, CREW_OK);
    assert_false(crew_connection_is_through(connection, &why)); /* once */
    ops.close(connection->state, 0, NULL);
    crew_connection_free(connection);
    assert_int_equal(atomic_load(&closed), 1);
}

static void why_it_failed_is_told(void **state)
{
    (void)state;
    crew_error why;
    outcome = CREW_NO_SERVICE;
    gate_open(&gate);
    struct crew_connection *connection = start();
    await_wake_up();
    assert_true(crew_connection_is_through(connection, &why));
    assert_status(why.status, CREW_NO_SERVICE);
    assert_string_equal(why.message, "no");
    crew_connection_free(connection);
    assert_int_equal(atomic_load(&closed), 0);
}

static void one_that_nobody_waits_for_closes_itself(void **state)
{
    (void)state;
    struct crew_connection *connection = start();
    crew_connection_free(connection); /* returns, although the host does not answer */
    assert_int_equal(atomic_load(&opened), 0);
    gate_open(&gate);
    assert_true(eventually(has_closed, NULL));
}

static void one_that_is_through_unasked_is_closed(void **state)
{
    (void)state;
    gate_open(&gate);
    struct crew_connection *connection = start();
    await_wake_up();
    crew_connection_free(connection);
    assert_int_equal(atomic_load(&closed), 1);
}

/* Waits for a socket on which nothing comes. */
static int silent[2];

static crew_status open_in_vain(void *state, const crew_transport_config *config, crew_error *why)
{
    (void)state;
    char byte;
    assert_true(crew_opening_waits_for(config->opening, silent[0]));
    gate_pass(&gate);
    ssize_t size = read(silent[0], &byte, 1);
    assert_int_equal(size, 0);
    assert_false(crew_opening_waits_for(config->opening, -1));
    close(silent[0]);
    atomic_fetch_add(&opened, 1);
    return crew_error_set(why, CREW_NO_SERVICE, "in vain");
}

static bool has_opened(void *unused)
{
    (void)unused;
    return atomic_load(&opened) == 1;
}

static void one_that_nobody_waits_for_stops_waiting(void **state)
{
    (void)state;
    static const struct crew_transport_ops vain = { .size = 1, .open = open_in_vain, .close = close_it };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, silent), 0);
    gate_open(&gate);
    struct crew_connection *connection =
        crew_connection_new(&vain, false, url, &(crew_transport_config){ .in_flight_max = 1 }, &queue);
    crew_connection_open(connection);
    assert_true(gate_await(&gate, 1));
    crew_connection_free(connection);
    assert_true(eventually(has_opened, NULL));
    close(silent[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_tells_when_it_is_through, setup, teardown),
        cmocka_unit_test_setup_teardown(why_it_failed_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_nobody_waits_for_closes_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_nobody_waits_for_stops_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_is_through_unasked_is_closed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
