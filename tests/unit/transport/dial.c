/* Connecting over TCP: to what listens, to what does not, and to what does not answer. */
#include "support/test.h"

#include "core/opening.h"
#include "transport/dial.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CROWD = 64 };

static struct crew_opening opening;
static int listener;
static unsigned port;

static int setup(void **state)
{
    (void)state;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    crew_opening_init(&opening);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    port = ntohs(address.sin_port);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(listener);
    crew_opening_fini(&opening);
    return 0;
}

static void it_connects_by_address_and_by_name(void **state)
{
    (void)state;
    static const char *const hosts[] = { "127.0.0.1", "localhost" }; /* which may be ::1 as well */
    crew_error why;
    assert_int_equal(listen(listener, 8), 0);
    for (size_t i = 0; i < 2; i++) {
        int fd = dial_tcp(hosts[i], port, 5000, i ? &opening : NULL, &why);
        assert_true(fd >= 0);
        int peer = accept(listener, NULL, NULL);
        assert_int_equal(send(fd, "x", 1, 0), 1);
        char byte;
        assert_int_equal(recv(peer, &byte, 1, 0), 1);
        close(peer);
        close(fd);
    }
}

static void what_is_not_there_is_said(void **state)
{
    (void)state;
    crew_error why;
    assert_int_equal(dial_tcp("127.0.0.1", port, 5000, NULL, &why), -1);
    assert_status(why.status, CREW_NO_SERVICE);
    assert_contains(why.message, "Connection refused");
    assert_int_equal(dial_tcp("no-such-host.invalid", port, 5000, NULL, &why), -1);
    assert_status(why.status, CREW_NO_SERVICE);
    assert_contains(why.message, "no-such-host.invalid");
}

/* The listener's socket is bound to a port where nobody listens, and connects there. */
static void a_connection_that_meets_itself_is_told_and_leaves_the_port(void **state)
{
    (void)state;
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(connect(listener, (const struct sockaddr *)&address, sizeof address), 0);
    assert_true(dial_met_itself(listener));
    close(listener);
    listener = socket(AF_INET, SOCK_STREAM, 0); /* without SO_REUSEADDR: in TIME_WAIT it would be in use */
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 8), 0);
    crew_error why;
    int fd = dial_tcp("127.0.0.1", port, 5000, NULL, &why);
    assert_true(fd >= 0);
    assert_false(dial_met_itself(fd));
    close(fd);
}

/* Fills the listener's queue, so that whoever comes next is not answered at all. */
static void crowd(int fds[CROWD])
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(listen(listener, 0), 0);
    for (int i = 0; i < CROWD; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fds[i], (const struct sockaddr *)&address, sizeof address);
    }
}

static void disperse(int fds[CROWD])
{
    for (int i = 0; i < CROWD; i++)
        close(fds[i]);
}

static void a_host_that_does_not_answer_is_given_up(void **state)
{
    (void)state;
    int fds[CROWD];
    crew_error why;
    crowd(fds);
    assert_int_equal(dial_tcp("127.0.0.1", port, 50, &opening, &why), -1);
    assert_status(why.status, CREW_NO_SERVICE);
    assert_contains(why.message, "timed out");
    disperse(fds);
}

static void *dial_for_long(void *result)
{
    crew_error why;
    *(int *)result = dial_tcp("127.0.0.1", port, 600000, &opening, &why);
    return NULL;
}

static bool is_waiting(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&opening.mutex);
    bool is = opening.fd >= 0;
    pthread_mutex_unlock(&opening.mutex);
    return is;
}

static void one_that_nobody_wants_ends_at_once(void **state)
{
    (void)state;
    int fds[CROWD], result = 0;
    pthread_t thread;
    crew_error why;
    crowd(fds);
    assert_int_equal(pthread_create(&thread, NULL, dial_for_long, &result), 0);
    assert_true(eventually(is_waiting, NULL));
    crew_opening_end(&opening);
    pthread_join(thread, NULL); /* else this would take ten minutes */
    assert_int_equal(result, -1);
    assert_int_equal(opening.fd, -1);
    assert_int_equal(dial_tcp("127.0.0.1", port, 600000, &opening, &why), -1); /* nor is another begun */
    disperse(fds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_connects_by_address_and_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_there_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(a_connection_that_meets_itself_is_told_and_leaves_the_port, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_host_that_does_not_answer_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_nobody_wants_ends_at_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
