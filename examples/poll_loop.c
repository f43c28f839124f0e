/* A server inside a loop that is yours: no pool; its fd says that requests wait, and crew_server_step runs
 * their handlers here, so that they need no locks. The loop's other work is a clock.
 *
 *   $ poll_loop zmq+tcp://127.0.0.1:5555 &
 *   $ rpcrew call zmq+tcp://127.0.0.1:5555 ticks
 *   12 */
#include <rpcrew.h>

#include <err.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* The loop's state; handlers may touch it as they like. */
static uint64_t ticks;

static crew_status get_ticks(crew_call *call)
{
    return crew_reply_uint(call, ticks);
}

static crew_status reset(crew_call *call)
{
    ticks = 0;
    return crew_reply_null(call);
}

static const crew_method methods[] = {
    { "ticks", get_ticks, "", "uint", "Tenths of a second since the start or the last reset." },
    { "reset", reset, "", "null", "Begins anew." },
    { 0 },
};

static crew_server *start(const crew_dispatcher *dispatcher, const char *url)
{
    crew_server *server = NULL;
    crew_error why;
    if (crew_server_new(&server, dispatcher, &(crew_server_options){ .stepped = true }, &why) != CREW_OK ||
        crew_server_listen(server, url, &why) != CREW_OK || crew_server_start(server, &why) != CREW_OK)
        errx(1, "%s", why.message);
    return server;
}

static int open_clock(void)
{
    int clock = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    const struct itimerspec tenth = { .it_interval.tv_nsec = 100000000, .it_value.tv_nsec = 100000000 };
    if (clock < 0 || timerfd_settime(clock, 0, &tenth, NULL) != 0)
        err(1, "timerfd");
    return clock;
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (fd < 0)
        err(1, "signalfd");
    return fd;
}

int main(int argc, char **argv)
{
    static const crew_service service = { .name = "ticks", .version = "1.0.0", .methods = methods };
    crew_dispatcher *dispatcher = NULL;
    crew_error why;
    if (argc != 2)
        errx(2, "usage: poll_loop URL");
    if (crew_dispatcher_new(&dispatcher) != CREW_OK ||
        crew_dispatcher_add(dispatcher, "", &service, NULL, &why) != CREW_OK)
        errx(1, "cannot set up");

    int signals = open_signals(); /* before the server's threads, which are not to take them */
    int clock = open_clock();
    crew_server *server = start(dispatcher, argv[1]);
    struct pollfd fds[] = {
        { .fd = crew_server_fd(server), .events = POLLIN },
        { .fd = clock, .events = POLLIN },
        { .fd = signals, .events = POLLIN },
    };
    while (poll(fds, 3, -1) >= 0 && !fds[2].revents) {
        uint64_t passed;
        if (fds[1].revents && read(clock, &passed, sizeof passed) == sizeof passed)
            ticks += passed;
        if (fds[0].revents)
            (void)crew_server_step(server, 10); /* a few at a time, so that the clock keeps going */
    }
    crew_server_stop(server);
    crew_status drained = crew_server_wait(server); /* runs what is still waiting, here */
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
    return drained == CREW_OK ? 0 : 1;
}
